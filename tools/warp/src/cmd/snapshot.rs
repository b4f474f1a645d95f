//! `warp snapshot`: names for what a portal was.

use super::portal::known;
use crate::args::{Snapshot, SnapshotCreate, SnapshotLs, SnapshotRm};
use crate::daemon::wire::{MakeSnapshot, NamePortal, RemoveSnapshots, SnapshotRow};
use crate::report::{Exit, Result, Ui};
use crate::show;
use hyper::Method;
use serde_json::{Value, json};
use std::path::Path;
use warp_flow::home::Home;
use warp_format::record::Time;

pub(super) fn run(verb: Snapshot, ui: &Ui) -> Result<Exit> {
    match verb {
        Snapshot::Create(args) => create(args, ui),
        Snapshot::Ls(args) => ls(&args, ui),
        Snapshot::Rm(args) => rm(args, ui),
    }
}

fn create(args: SnapshotCreate, ui: &Ui) -> Result<Exit> {
    let home = Home::from_environment()?;
    let mut daemon = known(&home, &args.portal)?;
    let ask = MakeSnapshot { portal: args.portal.clone(), name: args.name, tags: args.tags };
    let made: SnapshotRow =
        daemon.ask_unlocked(&args.passphrase, Method::POST, "/v1/snapshots", &ask)?;
    if ui.json {
        ui.print(&document(&made).to_string())?;
    }
    let (portal, name) = (show::word(Path::new(&args.portal)), show::word(Path::new(&made.name)));
    ui.summary(&format!("snapshot {name} of portal {} is made", args.portal));
    ui.summary(&format!(
        "look into it: ls MOUNT/.snapshots/{name}   bring it back: warp restore {portal} --at {name} -C DIR"
    ));
    Ok(Exit::Ok)
}

fn ls(args: &SnapshotLs, ui: &Ui) -> Result<Exit> {
    let home = Home::from_environment()?;
    let ask = NamePortal { name: args.portal.clone() };
    let rows: Vec<SnapshotRow> = known(&home, &args.portal)?.ask_unlocked(
        &args.passphrase,
        Method::POST,
        "/v1/snapshots/list",
        &ask,
    )?;
    if ui.json {
        let rows: Vec<_> = rows.iter().map(document).collect();
        ui.print(&json!({ "snapshots": rows }).to_string())?;
        return Ok(Exit::Ok);
    }
    let width = rows.iter().map(|row| row.name.chars().count()).max().unwrap_or(0);
    for row in &rows {
        let time = show::time(Time { secs: row.secs, nanos: row.nanos });
        let line = format!("{:<width$}  {time}  {}", row.name, row.tags.join(", "));
        ui.print(line.trim_end())?;
    }
    if rows.is_empty() {
        let typed = show::word(Path::new(&args.portal));
        ui.summary(&format!("no snapshot yet.  Make one: warp snapshot create {typed}"));
    }
    Ok(Exit::Ok)
}

fn rm(args: SnapshotRm, ui: &Ui) -> Result<Exit> {
    let home = Home::from_environment()?;
    let mut daemon = known(&home, &args.portal)?;
    let ask = RemoveSnapshots { portal: args.portal, names: args.names };
    let () = daemon.ask_unlocked(&args.passphrase, Method::DELETE, "/v1/snapshots", &ask)?;
    if ui.json {
        ui.print(&json!({ "removed": ask.names }).to_string())?;
    }
    let (count, s) = (ask.names.len(), if ask.names.len() == 1 { "" } else { "s" });
    ui.summary(&format!("{count} snapshot{s} removed; what only they had leaves the disk soon"));
    Ok(Exit::Ok)
}

fn document(row: &SnapshotRow) -> Value {
    json!({
        "name": row.name,
        "time": row.secs,
        "time_nanos": row.nanos,
        "sequence": row.sequence,
        "tags": row.tags,
    })
}
