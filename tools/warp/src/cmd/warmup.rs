//! `warp warmup`: fetches files before anybody reads them.

use super::check::job;
use crate::args::Warmup;
use crate::bar::Unit;
use crate::client::Daemon;
use crate::daemon::wire::{WarmUp, Warmed, WireProblem};
use crate::places::mount_of;
use crate::report::{Exit, Failure, Result, Ui};
use crate::show;
use serde_json::{Value, json};
use std::path::Path;
use warp_flow::FlowError;
use warp_flow::home::Home;

pub(super) fn run(args: &Warmup, ui: &Ui) -> Result<Exit> {
    let home = Home::from_environment()?;
    let asks: Vec<WarmUp> =
        args.paths.iter().map(|path| ask(path, args.check)).collect::<Result<_>>()?;
    let mut exit = Exit::Ok;
    let mut documents = Vec::new();
    for (path, ask) in args.paths.iter().zip(&asks) {
        let mut daemon = Daemon::started(&home)?;
        let done: Warmed =
            job(&mut daemon, &args.passphrase, ("/v1/warmup", ask), Unit::Bytes, ui)?;
        let told = done.problems.iter().map(|p| (p.line.clone(), Exit::from_code(p.exit)));
        let failed = ui.tell_problems(told);
        let no_peer = |p: &WireProblem| p.exit == Exit::Temporary as u8;
        if failed != Exit::Ok {
            exit = if done.problems.iter().all(no_peer) { Exit::Temporary } else { failed };
        }
        if ui.json {
            documents.push(document(path, &done));
        } else {
            tell(path, &done, args.check, ui)?;
        }
    }
    if ui.json {
        ui.print(&json!({ "paths": documents }).to_string())?;
    }
    Ok(exit)
}

/// Which mount a path is in, and where in it.
fn ask(typed: &Path, check: bool) -> Result<WarmUp> {
    let at = |e| Failure::from(FlowError::io(typed, e));
    let mount = mount_of(typed).map_err(at)?.ok_or_else(|| {
        Failure::new(Exit::NotFound, format!("{}: is in no mount of warp", typed.display()))
            .hint("`warp status` lists what is mounted")
    })?;
    let real = std::fs::canonicalize(typed).map_err(at)?;
    let below = real.strip_prefix(&mount.directory).unwrap_or(Path::new(""));
    Ok(WarmUp { directory: mount.directory.as_path().into(), path: below.into(), check })
}

fn tell(path: &Path, done: &Warmed, check: bool, ui: &Ui) -> Result<()> {
    let (shown, all) = (path.display(), show::size(done.bytes));
    if check {
        let here = show::size(done.bytes_here);
        return ui.print(&format!("{shown}: {here} of {all} are here ({} files)", done.files));
    }
    let came = show::size(done.bytes.saturating_sub(done.bytes_here));
    if done.problems.is_empty() {
        ui.summary(&format!(
            "{shown}: {all} are here ({} files), {came} of it came now",
            done.files
        ));
    }
    Ok(())
}

fn document(path: &Path, done: &Warmed) -> Value {
    json!({
        "path": path.to_string_lossy(),
        "files": done.files,
        "chunks": done.chunks,
        "bytes": done.bytes,
        "bytes_here": done.bytes_here,
        "problems": done.problems.len(),
    })
}
