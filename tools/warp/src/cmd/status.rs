//! `warp status`: this device on one screen.

use super::portal;
use crate::args::StatusArgs;
use crate::client::Daemon;
use crate::daemon::edge::identity;
use crate::daemon::wire::{MountRow, PortalRow, Status};
use crate::places::mount_of;
use crate::report::{Exit, Failure, Result, Ui};
use hyper::Method;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Duration;
use warp_flow::FlowError;
use warp_flow::home::Home;
use warp_flow::portals::Portals;
use warp_format::Keyring;

const WATCH_EVERY: Duration = Duration::from_secs(1);

/// What is known: from the daemon, or without one from the disk.
struct Known {
    status: Status,
    /// Of the daemon, if one runs.
    running: Option<Running>,
}

struct Running {
    pid: Option<u32>,
}

pub(crate) fn run(args: &StatusArgs, ui: &Ui) -> Result<Exit> {
    loop {
        let home = Home::from_environment()?;
        let mut known = known(&home)?;
        if let Some(typed) = &args.directory {
            only(&mut known.status, typed)?;
        }
        if ui.json {
            ui.print(&document(&known).to_string())?;
        } else {
            show(&known, ui)?;
        }
        if !args.watch {
            return Ok(Exit::Ok);
        }
        std::thread::sleep(WATCH_EVERY);
        if !ui.json {
            ui.print("")?;
        }
    }
}

fn known(home: &Home) -> Result<Known> {
    if let Some(mut daemon) = Daemon::running(home)? {
        let status = daemon.ask(Method::GET, "/v1/status", &())?;
        return Ok(Known { status, running: Some(Running { pid: daemon.pid() }) });
    }
    let mut status = Status {
        stays: false,
        locked: false,
        identity: None,
        portals: Vec::new(),
        mounts: Vec::new(),
    };
    if let Some(bytes) = home.read_keyring()? {
        let path = home.keyring_path();
        let bad = |source| FlowError::File { path: path.clone(), source };
        status.locked = Keyring::is_sealed(&bytes).map_err(bad)?;
        if !status.locked {
            let keyring = Keyring::open(&bytes, None).map_err(bad)?;
            status.identity = Some(identity(&keyring)?);
            let entries = Portals::new(home, &keyring)?.list()?;
            status.portals = entries
                .into_iter()
                .map(|entry| PortalRow {
                    id: format!("{:#}", entry.id),
                    name: entry.name,
                    mounted_on: None,
                })
                .collect();
        }
    }
    Ok(Known { status, running: None })
}

/// Leaves only the mount that `typed` is in.
fn only(status: &mut Status, typed: &PathBuf) -> Result<()> {
    let mount = mount_of(typed).map_err(|e| FlowError::io(typed, e))?;
    let directory = mount.map(|mount| mount.directory);
    status.mounts.retain(|row| Some(PathBuf::from(row.directory.clone())) == directory);
    let Some(row) = status.mounts.first() else {
        let cause = format!("{}: is not in a mounted portal", typed.display());
        return Err(Failure::new(Exit::NotFound, cause)
            .hint("`warp status` without a directory lists what is mounted"));
    };
    status.portals.retain(|portal| portal.id == row.id);
    Ok(())
}

fn document(known: &Known) -> Value {
    let Status { stays, locked, identity, portals, mounts } = &known.status;
    json!({
        "owner": identity.as_ref().map(|identity| &identity.owner),
        "device": identity.as_ref().map(|identity| &identity.device),
        "keyring_locked": locked,
        "daemon": {
            "running": known.running.is_some(),
            "pid": known.running.as_ref().and_then(|running| running.pid),
            "stays": stays,
        },
        "portals": portals.iter().map(portal::row).collect::<Vec<_>>(),
        "mounts": mounts.iter().map(mount).collect::<Vec<_>>(),
        "unpublished_bytes": unpublished_bytes(mounts),
    })
}

fn mount(row: &MountRow) -> Value {
    let path = |path: &crate::daemon::wire::WirePath| {
        PathBuf::from(path.clone()).to_string_lossy().into_owned()
    };
    let mut document = json!({
        "portal": row.portal,
        "id": row.id,
        "path": path(&row.path),
        "directory": path(&row.directory),
        "read_only": row.read_only,
        "detached": row.detached,
    });
    portal::merge(&mut document, &row.standing);
    document
}

fn unpublished_bytes(mounts: &[MountRow]) -> u64 {
    mounts.iter().map(|row| row.standing.unpublished_bytes).sum()
}

fn show(known: &Known, ui: &Ui) -> Result<()> {
    let status = &known.status;
    match (&status.identity, status.locked) {
        (Some(identity), _) => {
            ui.print(&format!("owner   {}", identity.owner))?;
            ui.print(&format!("device  {}", identity.device))?;
        }
        (None, true) => ui.print("device  the keyring is sealed, and not open in a daemon")?,
        (None, false) => ui.print("device  no key yet; `warp key init` makes one")?,
    }
    ui.print(&match &known.running {
        None => "daemon  not running".to_owned(),
        Some(running) => {
            let pid = running.pid.map_or("?".into(), |pid| pid.to_string());
            let why = if status.stays { "up" } else { "on demand" };
            format!("daemon  process {pid}, {why}")
        }
    })?;
    for row in &status.mounts {
        let directory = PathBuf::from(row.directory.clone());
        let path = PathBuf::from(row.path.clone());
        let how = match (row.detached, row.read_only) {
            (true, _) => ", detached and still in use",
            (false, true) => ", read-only",
            (false, false) => "",
        };
        let left = portal::unpublished(&row.standing);
        ui.print(&format!(
            "mount   {}:{} on {}{how}; published number {}, unpublished: {left}",
            row.portal,
            path.display(),
            directory.display(),
            row.standing.sequence,
        ))?;
        if let Some(trouble) = &row.standing.trouble {
            ui.print(&format!("        not published: {trouble}"))?;
        }
    }
    for row in &status.portals {
        ui.print(&format!("portal  {}", portal::line(row)))?;
    }
    Ok(())
}
