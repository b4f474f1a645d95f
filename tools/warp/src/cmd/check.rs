//! `warp check`: what of a portal is damaged, and what was not read.

use super::portal::known;
use crate::args::{Check, PassphraseArg};
use crate::bar::{Bar, Unit};
use crate::client::Daemon;
use crate::daemon::wire::{CheckPortal, Checked, WireDamage, WireProblem, WireReads};
use crate::report::{Exit, Failure, Result, Ui};
use crate::{show, signals};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;
use warp_flow::home::{Home, random_array};
use warp_flow::{FlowError, Progress};

pub(crate) fn run(args: &Check, ui: &Ui) -> Result<Exit> {
    let started = Instant::now();
    let home = Home::from_environment()?;
    let reads = match args.sample {
        // As many digits as can be typed again.
        Some(share) => {
            let drawn = || -> Result<u64> { Ok(u32::from_le_bytes(random_array()?).into()) };
            WireReads::Sample { share, seed: args.seed.map_or_else(drawn, Ok)? }
        }
        None if args.read_data => WireReads::Everything,
        None => WireReads::Nothing,
    };
    let ask = CheckPortal { portal: args.portal.clone(), reads };
    let mut daemon = known(&home, &args.portal)?;
    let found: Checked = job(&mut daemon, &args.passphrase, ("/v1/check", &ask), Unit::Chunks, ui)?;
    tell(args, &found, reads, started, ui)
}

/// `1 pack`, `2 packs`.
pub(super) fn count(n: u64, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

/// Has the daemon do a job, shows how far it is, and stops it on a signal.
pub(super) fn job<A: DeserializeOwned>(
    daemon: &mut Daemon,
    passphrase: &PassphraseArg,
    (path, ask): (&str, &impl Serialize),
    unit: Unit,
    ui: &Ui,
) -> Result<A> {
    let progress = Arc::new(Progress::default());
    signals::stop_on_signal(&progress)?;
    let _bar = Bar::show(ui, unit, &progress);
    let done = daemon.ask_long(passphrase, path, ask, &progress);
    done.map_err(|failure| match signals::received() {
        Some(exit) => Failure::new(exit, FlowError::Interrupted.to_string()),
        None => failure,
    })
}

fn tell(
    args: &Check,
    found: &Checked,
    reads: WireReads,
    started: Instant,
    ui: &Ui,
) -> Result<Exit> {
    let name = &args.portal;
    tell_damage(name, &found.damage, &found.problems, ui);
    if let Some(why) = &found.unpublished {
        ui.warn(&format!("{name}: what was written last is not published, nor checked: {why}"));
    }
    let is_sound = found.damage.is_empty() && found.problems.is_empty();
    let exit = if is_sound { Exit::Ok } else { Exit::Integrity };
    if ui.json {
        ui.print(&document(name, found, reads, started).to_string())?;
        return Ok(exit);
    }
    let verdict = if is_sound { "ok" } else { "DAMAGED" };
    let (all, read) = (show::size(found.data_bytes), show::size(found.data_bytes_read));
    let chunks =
        format!("{} of {} data chunks read ({read} of {all})", found.chunks_read, found.chunks);
    let what = match reads {
        WireReads::Everything => {
            let packs = count(found.packs, "pack");
            format!("every byte of {packs} read; {chunks}, each opened and compared")
        }
        WireReads::Sample { seed, .. } => {
            format!("{chunks}, sample {seed}, the others not; `--read-data` reads all of it")
        }
        WireReads::Nothing => format!("{chunks}; `--read-data` reads all of it"),
    };
    let (names, nodes) = (count(found.names, "name"), count(found.nodes, "tree node"));
    let checked = format!("{names} and {nodes} checked");
    let seconds = started.elapsed().as_secs_f64();
    ui.print(&format!("{name}: {verdict}: {checked}; {what} ({seconds:.1} s)"))?;
    if !is_sound {
        let typed = show::word(Path::new(name));
        ui.summary(&format!("`warp repair -n {typed}` says what can be saved"));
    }
    Ok(exit)
}

fn document(name: &str, found: &Checked, reads: WireReads, started: Instant) -> Value {
    let seed = match reads {
        WireReads::Sample { seed, .. } => Some(seed),
        _ => None,
    };
    json!({
        "portal": name,
        "ok": found.damage.is_empty() && found.problems.is_empty(),
        "names": found.names,
        "tree_nodes": found.nodes,
        "data_chunks": found.chunks,
        "data_chunks_read": found.chunks_read,
        "data_bytes": found.data_bytes,
        "data_bytes_read": found.data_bytes_read,
        "packs": found.packs,
        "stored_bytes": found.stored_bytes,
        "stored_bytes_read": found.stored_bytes_read,
        "sample_seed": seed,
        "unpublished": found.unpublished,
        "directory": PathBuf::from(found.directory.clone()).to_string_lossy(),
        "damage": damage(&found.damage),
        "problems": problems(&found.problems),
        "seconds": started.elapsed().as_secs_f64(),
    })
}

/// Damaged places, in a document.
pub(super) fn damage(found: &[WireDamage]) -> Vec<Value> {
    let each = found.iter().map(|damage| {
        json!({
            "file": damage.file,
            "offset": damage.offset,
            "length": damage.len,
            "chunk": damage.chunk,
            "readable": damage.readable,
        })
    });
    each.collect()
}

/// Damaged files, in a document.
pub(super) fn problems(found: &[WireProblem]) -> Vec<Value> {
    let each = found.iter().map(|problem| {
        let path = PathBuf::from(problem.path.clone());
        let mut row = json!({ "why": problem.why });
        for (field, value) in show::json_path(path.as_os_str().as_bytes()) {
            row[field] = value;
        }
        row
    });
    each.collect()
}

/// Names each damaged file, and says which packs are damaged.
pub(super) fn tell_damage(portal: &str, damage: &[WireDamage], problems: &[WireProblem], ui: &Ui) {
    for problem in problems {
        let path = PathBuf::from(problem.path.clone());
        let shown = show::path(path.as_os_str().as_bytes());
        ui.warn(&format!("{portal}:{shown}: {}", problem.why));
    }
    let mut packs: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for damage in damage {
        let (places, readable) = packs.entry(&damage.file).or_default();
        *places += 1;
        *readable += usize::from(damage.readable);
    }
    for (file, (places, readable)) in packs {
        let saved = match readable {
            0 => String::new(),
            n => format!(", {n} of which cost no content"),
        };
        ui.warn(&format!("{file}: {}{saved}", count(places as u64, "damaged place")));
    }
}
