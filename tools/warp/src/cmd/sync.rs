//! `warp sync`.

use crate::args::Sync;
use crate::client::Daemon;
use crate::daemon::wire::{OfMount, Synced};
use crate::places::{dead_mount_of, mount_of};
use crate::report::{Exit, Failure, Result, Ui};
use crate::show;
use hyper::Method;
use serde_json::json;
use std::path::Path;
use warp_flow::FlowError;
use warp_flow::home::Home;

pub(crate) fn run(args: &Sync, ui: &Ui) -> Result<Exit> {
    let typed = &args.directory;
    let at = |e: std::io::Error| Failure::from(FlowError::io(typed, e));
    let no_portal = || {
        Failure::new(Exit::NotFound, format!("{}: is not in a mounted portal", typed.display()))
            .hint("`warp status` lists what is mounted")
    };
    if let Some(dead) = dead_mount_of(typed) {
        let (shown, word) = (dead.directory.display(), show::word(&dead.directory));
        let source = show::word(Path::new(&dead.source));
        return Err(Failure::new(Exit::Failed, format!("{shown}: no process serves it any more"))
            .hint(format!("`warp mount {source} {word}` brings back what was synced before")));
    }
    let mount = mount_of(typed).map_err(at)?.ok_or_else(no_portal)?;
    let home = Home::from_environment()?;
    let mut daemon = Daemon::running(&home)?.ok_or_else(no_portal)?;
    let ask = OfMount { directory: mount.directory.as_path().into() };
    let synced: Synced = daemon.ask(Method::POST, "/v1/sync", &ask)?;
    if ui.json {
        let document = json!({
            "directory": mount.directory.to_string_lossy(),
            "sequence": synced.sequence,
        });
        ui.print(&document.to_string())?;
    }
    ui.summary(&format!(
        "{} is published as number {}",
        mount.directory.display(),
        synced.sequence
    ));
    Ok(Exit::Ok)
}
