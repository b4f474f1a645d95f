//! `warp portal`: the portals of this device.

use super::key;
use super::mount::lost_keyring;
use super::sharing;
use crate::args::{Portal, PortalCreate, PortalLeave, PortalLs, PortalStatus};
use crate::client::Daemon;
use crate::daemon::wire::{
    CreatePortal, LeavePortal, Left, NamePortal, PortalRow, PortalStanding, Standing,
};
use crate::report::{Exit, Failure, Result, Ui};
use crate::show;
use hyper::Method;
use serde_json::{Value, json};
use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};
use warp_flow::home::Home;
use warp_format::record::Time;

pub(super) fn run(verb: Portal, ui: &Ui) -> Result<Exit> {
    match verb {
        Portal::Create(args) => create(&args, ui),
        Portal::Ls(args) => ls(&args, ui),
        Portal::Status(args) => status(&args, ui),
        Portal::Invite(args) => sharing::invite(&args, ui),
        Portal::Join(args) => sharing::join(&args, ui),
        Portal::Expire(args) => sharing::expire(&args, ui),
        Portal::Leave(args) => leave(&args, ui),
    }
}

fn create(args: &PortalCreate, ui: &Ui) -> Result<Exit> {
    let home = Home::from_environment()?;
    if home.read_keyring()?.is_none() && home.has_portals() {
        return Err(lost_keyring(&home));
    }
    key::ensure(&args.passphrase, &home, ui)?;
    let ask = CreatePortal {
        name: args.name.clone(),
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        quota: args.quota,
    };
    let mut daemon = Daemon::started(&home)?;
    let made: PortalRow =
        daemon.ask_unlocked(&args.passphrase, Method::POST, "/v1/portals", &ask)?;
    if ui.json {
        ui.print(&json!({ "name": made.name, "id": made.id }).to_string())?;
    }
    let typed = show::word(Path::new(&made.name));
    ui.summary(&format!("portal {} is ready.  Next: warp mount {typed} DIR", made.name));
    Ok(Exit::Ok)
}

fn ls(args: &PortalLs, ui: &Ui) -> Result<Exit> {
    let home = Home::from_environment()?;
    if home.read_keyring()?.is_none() && home.has_portals() {
        return Err(lost_keyring(&home));
    }
    let rows: Vec<PortalRow> =
        Daemon::started(&home)?.ask_unlocked(&args.passphrase, Method::GET, "/v1/portals", &())?;
    if ui.json {
        let rows: Vec<_> = rows.iter().map(row).collect();
        ui.print(&json!({ "portals": rows }).to_string())?;
        return Ok(Exit::Ok);
    }
    for row in &rows {
        ui.print(&line(row))?;
    }
    if rows.is_empty() {
        ui.summary("no portal yet.  Make one: warp portal create NAME");
    }
    Ok(Exit::Ok)
}

fn status(args: &PortalStatus, ui: &Ui) -> Result<Exit> {
    if args.members {
        return sharing::members(args, ui);
    }
    let home = Home::from_environment()?;
    let ask = NamePortal { name: args.name.clone() };
    let found: PortalStanding = known(&home, &args.name)?.ask_unlocked(
        &args.passphrase,
        Method::POST,
        "/v1/portals/status",
        &ask,
    )?;
    let PortalStanding { portal, standing } = found;
    if ui.json {
        let mut document = row(&portal);
        merge(&mut document, &standing);
        ui.print(&document.to_string())?;
        return Ok(Exit::Ok);
    }
    ui.print(&format!("portal       {}", portal.name))?;
    ui.print(&format!("id           {}", portal.id))?;
    let on = portal.mounted_on.map(PathBuf::from);
    ui.print(&format!("mounted on   {}", on.map_or("-".into(), |p| p.display().to_string())))?;
    ui.print(&format!("sequence     {}", standing.sequence))?;
    ui.print(&format!("chunks       {}", standing.chunks))?;
    ui.print(&format!("stored       {}", show::size(standing.stored_bytes)))?;
    if let Some(quota) = standing.quota_bytes {
        ui.print(&format!("quota        {}", show::size(quota)))?;
    }
    ui.print(&format!("snapshots    {}", standing.snapshots))?;
    ui.print(&format!("unpublished  {}", unpublished(&standing)))?;
    if let Some(trouble) = &standing.trouble {
        ui.print(&format!("trouble      {trouble}"))?;
    }
    ui.print(&format!("damaged      {}", damaged(&standing, &portal.name)))?;
    let scrubbed = standing.scrubbed.and_then(|at| i64::try_from(at).ok());
    let scrubbed = scrubbed.map(|secs| show::time(Time { secs, nanos: 0 }));
    ui.print(&format!(
        "all read     {}",
        scrubbed.unwrap_or_else(|| "not since it was made".into())
    ))?;
    Ok(Exit::Ok)
}

/// The daemon, for a question about a portal that is there only if there is
/// a key.
pub(super) fn known(home: &Home, name: &str) -> Result<Daemon> {
    if home.read_keyring()?.is_none() {
        if home.has_portals() {
            return Err(lost_keyring(home));
        }
        let cause = format!("portal {name}: this device has no key yet, and no portal");
        return Err(Failure::new(Exit::NotFound, cause)
            .hint(format!("`warp portal create {}` makes both", show::word(Path::new(name)))));
    }
    Daemon::started(home)
}

fn leave(args: &PortalLeave, ui: &Ui) -> Result<Exit> {
    let home = Home::from_environment()?;
    let mut daemon = known(&home, &args.name)?;
    // What cannot be done is told before anything is asked. Of a portal that
    // is not there, the daemon says so; one that is damaged can be left, too.
    let all: Vec<PortalRow> =
        daemon.ask_unlocked(&args.passphrase, Method::GET, "/v1/portals", &())?;
    let found = all.into_iter().find(|row| row.name == args.name);
    if let Some(on) = found.as_ref().and_then(|row| row.mounted_on.clone()).map(PathBuf::from) {
        let cause = format!("portal {}: is mounted on {}", args.name, on.display());
        return Err(
            Failure::new(Exit::Busy, cause).hint(format!("warp umount {}", show::word(&on)))
        );
    }
    if let (false, Some(found)) = (args.yes, &found) {
        confirm(args, found.joined, ui)?;
    }
    let ask = LeavePortal { name: args.name.clone(), keep_data: args.keep_data };
    let left: Left = daemon.ask_unlocked(&args.passphrase, Method::DELETE, "/v1/portals", &ask)?;
    let name = &args.name;
    let was = PathBuf::from(left.was);
    let kept = left.kept.map(PathBuf::from);
    if ui.json {
        let kept = kept.as_ref().map(|path| path.to_string_lossy());
        ui.print(&json!({ "name": name, "id": left.id, "kept": kept }).to_string())?;
    }
    match kept {
        Some(kept) => {
            ui.summary(&format!("left portal {name}; its sealed data is in {}", kept.display()));
            ui.summary(&format!("bring it back: mv {} {}", show::word(&kept), show::word(&was)));
        }
        None => ui.summary(&format!("left portal {name}; its data is deleted")),
    }
    Ok(Exit::Ok)
}

fn confirm(args: &PortalLeave, joined: bool, ui: &Ui) -> Result<()> {
    let name = &args.name;
    if !std::io::stdin().is_terminal() {
        let cause = format!("portal {name}: no terminal to ask whether to leave it");
        let hint = if args.keep_data || joined {
            "`--yes` leaves without asking"
        } else {
            "`--yes` deletes this only copy, which cannot be undone; `--keep-data` keeps it"
        };
        return Err(Failure::new(Exit::Usage, cause).hint(hint));
    }
    if args.keep_data {
        ui.note(&format!("Portal {name} leaves this device; its sealed data is moved aside."));
    } else if joined {
        ui.note(&format!("What is here of portal {name} is deleted; the devices that write"));
        ui.note("and hold it keep it. To come back takes another ticket.");
    } else {
        ui.note(&format!("This device holds the only copy of portal {name}."));
        ui.note("To leave it deletes it, and cannot be undone; `--keep-data` keeps its data.");
    }
    let _ = write!(std::io::stderr(), "Leave {name}? [y/N] ");
    let mut typed = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut typed)
        .map_err(|e| Failure::new(Exit::Failed, format!("terminal: {e}")))?;
    if matches!(typed.trim().to_lowercase().as_str(), "y" | "yes") {
        return Ok(());
    }
    Err(Failure::new(Exit::Failed, format!("portal {name}: was not left")))
}

/// A portal in a document.
pub(super) fn row(row: &PortalRow) -> Value {
    let on = row.mounted_on.clone().map(PathBuf::from);
    json!({
        "name": row.name,
        "id": row.id,
        "joined": row.joined,
        "custodian": row.kept,
        "mounted_on": on.map(|path| path.to_string_lossy().into_owned()),
    })
}

/// Adds how far it is.
pub(super) fn merge(document: &mut Value, standing: &Standing) {
    document["sequence"] = json!(standing.sequence);
    document["chunks"] = json!(standing.chunks);
    document["stored_bytes"] = json!(standing.stored_bytes);
    document["quota_bytes"] = json!(standing.quota_bytes);
    document["snapshots"] = json!(standing.snapshots);
    document["unpublished_bytes"] = json!(standing.unpublished_bytes);
    document["unpublished_changes"] = json!(standing.unpublished_changes);
    document["trouble"] = json!(standing.trouble);
    document["damaged_chunks"] = json!(standing.damaged_chunks);
    document["scrubbed_at"] = json!(standing.scrubbed);
}

/// A portal in a list: name, id, mountpoint.
pub(super) fn line(row: &PortalRow) -> String {
    let on = row.mounted_on.clone().map(PathBuf::from);
    let on = on.map_or("-".into(), |path| path.display().to_string());
    let joined = match (row.kept, row.joined) {
        (true, _) => "  (kept for others)",
        (false, true) => "  (written on another device)",
        (false, false) => "",
    };
    format!("{:<20} {}  {on}{joined}", row.name, short(&row.id))
}

/// An id as people see it.
pub(super) fn short(id: &str) -> &str {
    id.get(..10).unwrap_or(id)
}

/// `2 chunks: …`.
pub(super) fn damaged(standing: &Standing, name: &str) -> String {
    let typed = show::word(Path::new(name));
    match standing.damaged_chunks {
        0 => "nothing known".into(),
        1 => format!("1 chunk; `warp check {typed}` names what it hits"),
        n => format!("{n} chunks; `warp check {typed}` names what they hit"),
    }
}

/// `1.5 MiB in 3 changes`.
pub(super) fn unpublished(standing: &Standing) -> String {
    match standing.unpublished_changes {
        0 => "nothing".into(),
        1 => format!("{} in 1 change", show::size(standing.unpublished_bytes)),
        n => format!("{} in {n} changes", show::size(standing.unpublished_bytes)),
    }
}
