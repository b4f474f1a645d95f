//! `warp warmup`: fetches files before anybody reads them.

use super::check::job;
use crate::args::Warmup;
use crate::bar::Unit;
use crate::client::Daemon;
use crate::daemon::wire::{WarmUp, Warmed, WireExplained, WireProblem};
use crate::places::mount_of;
use crate::report::{Exit, Failure, Result, Ui};
use crate::show;
use serde_json::{Value, json};
use std::path::Path;
use warp_flow::FlowError;
use warp_flow::home::Home;

pub(super) fn run(args: &Warmup, ui: &Ui) -> Result<Exit> {
    let home = Home::from_environment()?;
    let asks: Vec<WarmUp> = args.paths.iter().map(|path| ask(path, args)).collect::<Result<_>>()?;
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
            for chunk in &done.explained {
                ui.print(&line(chunk))?;
            }
            tell(path, &done, args.check, ui)?;
        }
    }
    if ui.json {
        ui.print(&json!({ "paths": documents }).to_string())?;
    }
    Ok(exit)
}

/// Which mount a path is in, and where in it.
fn ask(typed: &Path, args: &Warmup) -> Result<WarmUp> {
    let at = |e| Failure::from(FlowError::io(typed, e));
    let mount = mount_of(typed).map_err(at)?.ok_or_else(|| {
        Failure::new(Exit::NotFound, format!("{}: is in no mount of warp", typed.display()))
            .hint("`warp status` lists what is mounted")
    })?;
    let real = std::fs::canonicalize(typed).map_err(at)?;
    let below = real.strip_prefix(&mount.directory).unwrap_or(Path::new(""));
    Ok(WarmUp {
        directory: mount.directory.as_path().into(),
        path: below.into(),
        check: args.check,
        explain: args.explain,
    })
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

/// `4f4732abb2  64.0 KiB from nas in 12.1 ms: asked nas at 0.0 ms (planned, 11.9 ms; laptop 14.0 ms)`
fn line(chunk: &WireExplained) -> String {
    let ms = |us: u64| format!("{:.1} ms", us as f64 / 1000.0);
    let short = chunk.chunk.get(..10).unwrap_or(&chunk.chunk);
    let asked = chunk.asked.iter().map(|asked| {
        let others = asked.candidates.iter().filter(|other| other.peer != asked.peer);
        let others: String =
            others.map(|other| format!("; {} {}", other.peer, ms(other.expected_us))).collect();
        let (at, expected) = (ms(asked.after_us), ms(asked.expected_us));
        format!("{} at {at} ({}, {expected}{others})", asked.peer, asked.why)
    });
    let asked: Vec<String> = asked.collect();
    let from = chunk.from.as_deref().unwrap_or("a peer that is gone");
    let (size, took) = (show::size(chunk.bytes), ms(chunk.took_us));
    format!("{short}  {size} from {from} in {took}: asked {}", asked.join(", "))
}

fn document(path: &Path, done: &Warmed) -> Value {
    json!({
        "path": path.to_string_lossy(),
        "files": done.files,
        "chunks": done.chunks,
        "bytes": done.bytes,
        "bytes_here": done.bytes_here,
        "problems": done.problems.len(),
        "explained": done.explained,
    })
}
