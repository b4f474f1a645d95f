//! `warp restore`: what a snapshot has, back onto the host.

use super::portal::known;
use crate::args::Restore;
use crate::bar::{Bar, Unit};
use crate::client::Daemon;
use crate::daemon::wire::{NamePortal, RestoreSnapshot, Restored, SnapshotRow, Status};
use crate::places::{Source, is_archive_mount, mount_of};
use crate::report::{Exit, Failure, Result, Ui};
use crate::{show, signals, units};
use hyper::Method;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;
use warp_flow::home::Home;
use warp_flow::{FlowError, Progress};

/// What is brought back, and where to.
struct Place {
    portal: String,
    /// The directory of the portal that the target stands for.
    top: PathBuf,
    /// Below it; empty: all of it.
    path: PathBuf,
    target: PathBuf,
}

pub(super) fn run(args: &Restore, ui: &Ui) -> Result<Exit> {
    let home = Home::from_environment()?;
    let place = place(args, &home)?;
    let mut daemon = known(&home, &place.portal)?;
    let ask = NamePortal { name: place.portal.clone() };
    let all: Vec<SnapshotRow> =
        daemon.ask_unlocked(&args.passphrase, Method::POST, "/v1/snapshots/list", &ask)?;
    let snapshot = choose(args.at.as_deref(), &all, &place.portal)?;
    let ask = RestoreSnapshot {
        portal: place.portal.clone(),
        snapshot: snapshot.name.clone(),
        top: place.top.as_path().into(),
        path: place.path.as_path().into(),
        target: place.target.as_path().into(),
        overwrite: args.overwrite,
        dry_run: args.dry_run,
    };
    let progress = Arc::new(Progress::default());
    signals::stop_on_signal(&progress)?;
    let started = Instant::now();
    let done: Restored = {
        let _bar = Bar::show(ui, Unit::Bytes, &progress);
        let done = daemon.ask_long(&args.passphrase, "/v1/restore", &ask, &progress);
        done.map_err(|failure| match signals::received() {
            Some(exit) => Failure::new(exit, FlowError::Interrupted.to_string())
                .hint("what was restored so far is whole; `--overwrite` restores it again"),
            None => failure,
        })?
    };
    let seconds = started.elapsed().as_secs_f64();
    let exit =
        ui.tell_problems(done.problems.iter().map(|p| (p.line.clone(), Exit::from_code(p.exit))));
    if ui.json {
        let document = json!({
            "portal": place.portal,
            "snapshot": snapshot.name,
            "target": place.target.to_string_lossy(),
            "dry_run": args.dry_run,
            "names": done.names,
            "bytes": done.bytes,
            "not_restored": done.problems.iter().map(|p| {
                json!({ "path": PathBuf::from(p.path.clone()).to_string_lossy(), "why": p.why })
            }).collect::<Vec<_>>(),
            "seconds": seconds,
        });
        ui.print(&document.to_string())?;
        return Ok(exit);
    }
    let would = if args.dry_run { "would be " } else { "" };
    ui.summary(&format!(
        "{} names, {} {would}restored from {} to {} ({seconds:.1} s)",
        done.names,
        show::size(done.bytes),
        snapshot.name,
        place.target.display(),
    ));
    if done.problems.iter().any(|p| p.exists) {
        ui.note("hint: `--overwrite` replaces what is there");
    }
    Ok(exit)
}

/// A path in a mounted portal goes back to where it was; what is named by its
/// portal needs a place.
fn place(args: &Restore, home: &Home) -> Result<Place> {
    let absolute =
        |path: &Path| std::path::absolute(path).map_err(|e| Failure::from(FlowError::io(path, e)));
    let target = args.directory.as_deref().map(absolute).transpose()?;
    let typed = Path::new(&args.what);
    // What was deleted is looked for from where it was.
    let wanted = absolute(typed)?;
    let there = wanted.ancestors().find(|path| path.exists());
    let found = there.and_then(|path| mount_of(path).ok().flatten().map(|mount| (path, mount)));
    let by_name = matches!(Source::parse(typed), Source::Portal { .. });
    if let Some((there, mount)) = found.filter(|_| !by_name || typed.exists()) {
        if is_archive_mount(&mount) {
            let cause = format!("{}: is in an archive, which has no snapshots", typed.display());
            return Err(Failure::new(Exit::Usage, cause));
        }
        let real = std::fs::canonicalize(there).map_err(|e| FlowError::io(there, e))?;
        let rest = wanted.strip_prefix(there).unwrap_or(Path::new(""));
        let below = real.strip_prefix(&mount.directory).unwrap_or(Path::new("")).join(rest);
        let (portal, top) = served(home, &mount.directory)?;
        let path = if rest.as_os_str().is_empty() { below.components().collect() } else { below };
        return Ok(Place { portal, top, path, target: target.unwrap_or(mount.directory) });
    }
    match (Source::parse(typed), target) {
        (Source::Portal { name, path }, Some(target)) => {
            let path = path.strip_prefix("/").map(Path::to_path_buf).unwrap_or(path);
            Ok(Place { portal: name, top: PathBuf::new(), path, target })
        }
        (Source::Portal { name, .. }, None) => {
            let cause = format!("{name}: where to restore it is not said");
            let typed = show::word(typed);
            Err(Failure::new(Exit::Usage, cause)
                .hint(format!("`warp restore {typed} -C DIR`, or name a path in its mount")))
        }
        (Source::Archive(path), _) => {
            let cause = format!("{}: is not in a mounted portal", path.display());
            Err(Failure::new(Exit::NotFound, cause).hint(
                "`warp status` lists what is mounted; `warp archive extract` is for archives",
            ))
        }
    }
}

/// The portal that is mounted on a directory, and which of its directories is
/// shown there.
fn served(home: &Home, directory: &Path) -> Result<(String, PathBuf)> {
    let status: Option<Status> = match Daemon::running(home)? {
        Some(mut daemon) => Some(daemon.ask(Method::GET, "/v1/status", &())?),
        None => None,
    };
    let mounts = status.map(|status| status.mounts).unwrap_or_default();
    let found = mounts.into_iter().find(|row| PathBuf::from(row.directory.clone()) == directory);
    found.map(|row| (row.portal, PathBuf::from(row.path))).ok_or_else(|| {
        let cause = format!("{}: another home's daemon mounted it", directory.display());
        Failure::new(Exit::NotFound, cause).hint("`warp status` lists what this one has mounted")
    })
}

/// The snapshot of this name, or the last one that was made by then.
fn choose<'a>(at: Option<&str>, all: &'a [SnapshotRow], portal: &str) -> Result<&'a SnapshotRow> {
    let ls = format!("`warp snapshot ls {}` lists them", show::word(Path::new(portal)));
    let none = |cause: String| Failure::new(Exit::NotFound, cause).hint(ls.clone());
    let Some(at) = at else {
        return all.last().ok_or_else(|| {
            let typed = show::word(Path::new(portal));
            Failure::new(Exit::NotFound, format!("portal {portal}: has no snapshot"))
                .hint(format!("`warp snapshot create {typed}` makes one"))
        });
    };
    if let Some(found) = all.iter().find(|row| row.name == at) {
        return Ok(found);
    }
    let Ok(until) = units::time(at, warp_flow::now().secs) else {
        return Err(none(format!("snapshot {at}: portal {portal} has none of that name")));
    };
    let made_by = |row: &&SnapshotRow| row.secs <= until;
    all.iter()
        .rfind(made_by)
        .ok_or_else(|| none(format!("portal {portal}: has no snapshot that was made by {at}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_chosen_by_name_or_as_the_last_one_by_a_time() {
        let row = |name: &str, secs| SnapshotRow {
            name: name.into(),
            secs,
            nanos: 5,
            sequence: 1,
            tags: Vec::new(),
        };
        // 2026-11-25 00:00:00 is 1795564800.
        let all =
            [row("a", 1_795_564_800), row("2026-11-24", 1_795_564_860), row("c", 1_795_700_000)];
        let at = |at: &str| choose(Some(at), &all, "p").map(|row| row.name.clone());
        assert_eq!(at("a").unwrap(), "a");
        assert_eq!(at("2026-11-24").unwrap(), "2026-11-24", "a name comes before a time");
        assert_eq!(at("2026-11-25").unwrap(), "2026-11-24");
        assert_eq!(at("2026-11-25T00:00:59Z").unwrap(), "a");
        assert_eq!(at("2030-01-01").unwrap(), "c");
        assert_eq!(at("2026-11-23").unwrap_err().exit, Exit::NotFound);
        assert_eq!(at("b").unwrap_err().exit, Exit::NotFound);
        assert_eq!(choose(None, &all, "p").unwrap().name, "c");
        assert_eq!(choose(None, &[], "p").unwrap_err().exit, Exit::NotFound);
    }
}
