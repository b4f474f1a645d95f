//! `warp status`: this device on one screen.

use super::{portal, sharing};
use crate::args::StatusArgs;
use crate::client::Daemon;
use crate::daemon::edge::{identity, whose};
use crate::daemon::wire::{MountRow, PortalRow, Status};
use crate::places::{is_archive_mount, mount_of};
use crate::report::{Exit, Failure, Result, Ui};
use crate::show;
use hyper::Method;
use serde_json::{Value, json};
use std::path::PathBuf;
use warp_flow::FlowError;
use warp_flow::home::Home;
use warp_flow::portals::Portals;
use warp_format::Keyring;
use warp_fs::Mounted;
use warp_fs::kernel::{absolute, is_dead, mounts};

/// What is known: from the daemon, or without one from the disk.
struct Known {
    status: Status,
    /// Of the daemon, if one runs.
    running: Option<Running>,
    /// Mounts of ours that the daemon does not serve.
    others: Vec<Other>,
}

/// An archive, a portal that another daemon serves, or a dead mount.
struct Other {
    mount: Mounted,
    dead: bool,
}

struct Running {
    pid: Option<u32>,
}

pub(crate) fn run(args: &StatusArgs, ui: &Ui) -> Result<Exit> {
    loop {
        let home = Home::from_environment()?;
        let mut known = known(&home)?;
        if let Some(typed) = &args.directory {
            only(&mut known, typed)?;
        }
        if ui.json {
            ui.print(&document(&known).to_string())?;
        } else {
            show(&known, ui)?;
        }
        let Some(every) = args.watch.filter(|every| !every.is_zero()) else {
            return Ok(Exit::Ok);
        };
        std::thread::sleep(every);
        if !ui.json {
            ui.print("")?;
        }
    }
}

fn known(home: &Home) -> Result<Known> {
    let mut known = of_daemon(home)?;
    let served: Vec<PathBuf> =
        known.status.mounts.iter().map(|row| row.directory.clone().into()).collect();
    let ours = mounts().into_iter().filter(|mount| mount.is_ours());
    known.others = ours
        .filter(|mount| !served.contains(&mount.directory))
        .map(|mount| Other { dead: is_dead(&mount.directory), mount })
        .collect();
    Ok(known)
}

fn of_daemon(home: &Home) -> Result<Known> {
    if let Some(mut daemon) = Daemon::running(home)? {
        let status = daemon.ask(Method::GET, "/v1/status", &())?;
        let running = Some(Running { pid: daemon.pid() });
        return Ok(Known { status, running, others: Vec::new() });
    }
    let mut status = Status {
        stays: false,
        locked: false,
        identity: None,
        portals: Vec::new(),
        mounts: Vec::new(),
        peers: Vec::new(),
    };
    if let Some(bytes) = home.read_keyring()? {
        let path = home.keyring_path();
        let bad = |source| FlowError::File { path: path.clone(), source };
        status.locked = Keyring::is_sealed(&bytes).map_err(bad)?;
        if !status.locked {
            let keyring = Keyring::open(&bytes, None).map_err(bad)?;
            status.identity = Some(identity(&keyring)?);
            let portals = Portals::new(home, &keyring)?;
            let entries = portals.list()?;
            status.portals = entries
                .into_iter()
                .map(|entry| {
                    let (joined, kept) = whose(&portals, &entry.name);
                    let id = format!("{:#}", entry.id);
                    PortalRow { name: entry.name, id, joined, kept, mounted_on: None }
                })
                .collect();
        }
    }
    Ok(Known { status, running: None, others: Vec::new() })
}

/// Leaves only the mount that `typed` is in.
fn only(known: &mut Known, typed: &PathBuf) -> Result<()> {
    let dead = known.others.iter().find(|other| other.mount.directory == absolute(typed));
    let directory = match dead {
        Some(other) => Some(other.mount.directory.clone()),
        None => mount_of(typed).map_err(|e| FlowError::io(typed, e))?.map(|m| m.directory),
    };
    let status = &mut known.status;
    status.mounts.retain(|row| Some(PathBuf::from(row.directory.clone())) == directory);
    known.others.retain(|other| Some(&other.mount.directory) == directory.as_ref());
    if status.mounts.is_empty() && known.others.is_empty() {
        let cause = format!("{}: is in no mount of warp", typed.display());
        return Err(Failure::new(Exit::NotFound, cause)
            .hint("`warp status` without a directory lists what is mounted"));
    }
    let shown: Vec<String> = status.mounts.iter().map(|row| row.id.clone()).collect();
    status.portals.retain(|portal| shown.contains(&portal.id));
    let named: Vec<String> = status.mounts.iter().map(|row| row.portal.clone()).collect();
    status.peers.retain(|peer| named.contains(&peer.portal));
    Ok(())
}

fn document(known: &Known) -> Value {
    let Status { stays, locked, identity, portals, mounts, peers } = &known.status;
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
        "peers": peers.iter().map(sharing::document).collect::<Vec<_>>(),
        "other_mounts": known.others.iter().map(other).collect::<Vec<_>>(),
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

fn other(other: &Other) -> Value {
    json!({
        "directory": other.mount.directory.to_string_lossy(),
        "source": other.mount.source,
        "dead": other.dead,
    })
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
        if row.standing.damaged_chunks > 0 {
            let damaged = portal::damaged(&row.standing, &row.portal);
            ui.print(&format!("        damaged: {damaged}"))?;
        }
    }
    for Other { mount, dead } in &known.others {
        let at = mount.directory.display();
        let what = match (dead, is_archive_mount(mount)) {
            (true, _) => {
                let typed = show::word(&mount.directory);
                format!(": no process serves it; `warp umount {typed}` clears it")
            }
            (false, true) => ", an archive".to_owned(),
            (false, false) => ", by the daemon of another WARP_HOME".to_owned(),
        };
        ui.print(&format!("mount   {} on {at}{what}", mount.source))?;
    }
    for row in &status.portals {
        ui.print(&format!("portal  {}", portal::line(row)))?;
    }
    for row in &status.peers {
        ui.print(&format!("peer    {}", sharing::line(row)))?;
    }
    Ok(())
}
