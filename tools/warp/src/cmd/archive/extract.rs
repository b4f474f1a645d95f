//! `warp archive extract`.

use crate::args::Extract;
use crate::bar::{Bar, Unit};
use crate::report::{Exit, Failure, Result, Ui};
use crate::{show, signals};
use serde_json::json;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;
use warp_flow::{ExtractOptions, FlowError, Problem, Progress};

pub(crate) fn run(args: Extract, ui: &Ui) -> Result<Exit> {
    let options = ExtractOptions {
        target: args.directory.unwrap_or_default(),
        top: PathBuf::new(),
        paths: args.paths,
        force: args.force,
    };
    let progress = Arc::new(Progress::default());
    let started = Instant::now();
    let result = if args.salvage {
        super::with_passphrase(&args.file, &args.passphrase, |ask| {
            let _ = signals::stop_on_signal(&progress);
            let _bar = Bar::show(ui, Unit::Bytes, &progress);
            warp_flow::salvage(&args.file, ask, &options, &progress)
        })
    } else {
        let archive = super::open(&args.file, &args.passphrase)?;
        signals::stop_on_signal(&progress)?;
        let _bar = Bar::show(ui, Unit::Bytes, &progress);
        warp_flow::extract_archive(&archive, &options, &progress).map_err(Failure::from)
    };
    let done = result.map_err(|failure| match signals::received() {
        Some(exit) => Failure::new(exit, FlowError::Interrupted.to_string())
            .hint("what was extracted so far is whole; `--force` extracts it again"),
        None => failure,
    })?;
    let exit = ui.problems(&done.problems);
    if exit == Exit::Integrity && !args.salvage {
        ui.note("hint: `warp archive extract --salvage` restores every file that is whole");
    }
    let exists = |p: &Problem| matches!(p.error, FlowError::Exists { .. });
    if done.problems.iter().any(exists) {
        ui.note("hint: `--force` replaces what is there");
    }
    if ui.json {
        let document = json!({
            "file": args.file.to_string_lossy(),
            "target": options.target.to_string_lossy(),
            "names": done.names,
            "bytes": done.bytes,
            "not_restored": done.problems.iter().map(|p| {
                let mut row: serde_json::Map<String, serde_json::Value> =
                    show::json_path(&p.path).into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
                row.insert("why".into(), json!(p.error.to_string()));
                row
            }).collect::<Vec<_>>(),
            "seconds": started.elapsed().as_secs_f64(),
        });
        ui.print(&document.to_string())?;
    } else {
        ui.summary(&format!(
            "{} names, {} extracted ({:.1} s)",
            done.names,
            show::size(done.bytes),
            started.elapsed().as_secs_f64()
        ));
    }
    Ok(exit)
}
