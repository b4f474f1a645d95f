//! `warp repair`: a portal's store is made sound again from its packs.

use super::check::{count, damage, job, problems, tell_damage};
use super::portal::known;
use crate::args::Repair;
use crate::bar::Unit;
use crate::daemon::wire::{RepairPortal, Repaired, WireAside};
use crate::report::{Exit, Result, Ui};
use crate::show;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::Instant;
use warp_flow::home::Home;

pub(crate) fn run(args: &Repair, ui: &Ui) -> Result<Exit> {
    let started = Instant::now();
    let home = Home::from_environment()?;
    let ask = RepairPortal { portal: args.portal.clone(), dry_run: args.dry_run };
    let mut daemon = known(&home, &args.portal)?;
    let done: Repaired = job(&mut daemon, &args.passphrase, ("/v1/repair", &ask), Unit::Bytes, ui)?;
    let name = &args.portal;
    tell_damage(name, &done.damage, &done.problems, ui);
    // What is lost, no repair brings back.
    let exit = if done.problems.is_empty() { Exit::Ok } else { Exit::Integrity };
    if ui.json {
        let document = json!({
            "portal": name,
            "ok": exit == Exit::Ok,
            "dry_run": args.dry_run,
            "packs": done.packs,
            "stored_bytes": done.stored_bytes,
            "chunks": done.chunks,
            "indexes": done.indexes,
            "set_aside": done.set_aside.iter().map(|pack| json!({
                "file": pack.file,
                "whole_chunks": pack.whole,
                "aside": pack.aside,
                "moved_to": pack.moved_to,
            })).collect::<Vec<_>>(),
            "dedup_discarded": done.dedup_discarded,
            "directory": PathBuf::from(done.directory.clone()).to_string_lossy(),
            "damage": damage(&done.damage),
            "problems": problems(&done.problems),
            "seconds": started.elapsed().as_secs_f64(),
        });
        ui.print(&document.to_string())?;
        return Ok(exit);
    }
    tell(args, &done, ui)?;
    let seconds = started.elapsed().as_secs_f64();
    let verdict = match done.problems.len() {
        0 => "nothing is lost".to_owned(),
        1 => "1 file or directory cannot be brought back".to_owned(),
        n => format!("{n} files and directories cannot be brought back"),
    };
    let read = format!("{} read ({})", count(done.packs, "pack"), show::size(done.stored_bytes));
    let whole = count(done.chunks, "chunk");
    ui.print(&format!("{name}: {read}, {whole} whole; {verdict} ({seconds:.1} s)"))?;
    if !done.problems.is_empty() && !args.dry_run {
        ui.summary("copy those files into the mount again: what is written anew is stored anew");
    }
    Ok(exit)
}

/// What was done, a line each.
fn tell(args: &Repair, done: &Repaired, ui: &Ui) -> Result<()> {
    let name = &args.portal;
    let would = if args.dry_run { "would be " } else { "" };
    if !done.indexes.is_empty() {
        let made = if done.indexes.len() == 1 {
            "1 index"
        } else {
            &format!("{} indexes", done.indexes.len())
        };
        ui.print(&format!("{name}: {made} {would}made anew from their packs"))?;
    }
    for WireAside { file, whole, aside, moved_to } in &done.set_aside {
        let whole = match (whole, moved_to) {
            (0, _) => "nothing in it is whole".to_owned(),
            (n, None) => format!("{n} whole chunks {would}moved to a new pack"),
            (n, Some(new)) => format!("{n} whole chunks moved to {new}"),
        };
        let aside = aside.as_deref().map(|aside| format!(" as {aside}")).unwrap_or_default();
        ui.print(&format!("{name}: {file} {would}set aside{aside}; {whole}"))?;
    }
    if done.dedup_discarded {
        ui.print(&format!("{name}: what was remembered of stored contents {would}forgotten"))?;
    }
    if done.indexes.is_empty() && done.set_aside.is_empty() && !done.dedup_discarded {
        ui.print(&format!("{name}: nothing to repair"))?;
    }
    if done.set_aside.iter().any(|pack| pack.aside.is_some()) {
        let directory = PathBuf::from(done.directory.clone());
        let typed = show::word(Path::new(&directory));
        ui.summary(&format!("what was set aside stays in {typed} until you delete it"));
    }
    Ok(())
}
