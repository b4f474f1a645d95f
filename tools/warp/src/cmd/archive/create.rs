//! `warp archive create`.

use crate::args::{Create, PassphraseArg};
use crate::bar::{Bar, Unit};
use crate::passphrase;
use crate::report::{Exit, Failure, Result, Ui};
use crate::{show, signals};
use serde_json::json;
use std::io::IsTerminal;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use warp_flow::{CreateOptions, Created, OutputFile, Progress, Selection};
use warp_format::codec::Level;

pub(crate) fn run(args: Create, ui: &Ui) -> Result<Exit> {
    let mut selection = Selection {
        base: args.directory.clone().unwrap_or_default(),
        paths: args.paths.clone(),
        ..Selection::default()
    };
    for pattern in &args.exclude {
        let pattern = glob::Pattern::new(pattern)
            .map_err(|e| Failure::new(Exit::Usage, format!("--exclude {pattern}: {e}")))?;
        selection.excludes.push(pattern);
    }
    let progress = Arc::new(Progress::default());
    signals::stop_on_signal(&progress)?;
    if args.dry_run {
        let found = warp_flow::survey(&selection, &progress)?;
        return tell(&args, &found, 0.0, ui);
    }
    let to_stdout = args.file == Path::new("-");
    if to_stdout && std::io::stdout().is_terminal() {
        return Err(Failure::new(Exit::Usage, "an archive is not written to a terminal")
            .hint("redirect standard output, or name a file"));
    }
    let signer = if args.sign {
        let own = PassphraseArg { passphrase_file: args.key_passphrase_file.clone() };
        Some(crate::cmd::key::keyring(&own)?.device_key())
    } else {
        None
    };
    // The file first: no passphrase is asked for an output that cannot be.
    let mut output =
        if to_stdout { None } else { Some(OutputFile::create(&args.file, args.force)?) };
    let passphrase = if args.encrypt {
        Some(passphrase::choose(&args.passphrase, &args.file.display().to_string())?)
    } else {
        None
    };
    let level = Level::new(args.level).expect("clap checks the range");
    let options = CreateOptions { level, solid: args.solid, passphrase, signer };
    let started = Instant::now();
    let bar = Bar::show(ui, Unit::Bytes, &progress);
    let made = match &mut output {
        Some(file) => {
            selection.skip.extend(file.identities());
            warp_flow::create(&selection, &options, file, &progress)
        }
        None => warp_flow::create(&selection, &options, &mut std::io::stdout(), &progress),
    };
    drop(bar);
    let made = made.map_err(|e| about_output(e, &args.file))?;
    if let Some(file) = output {
        file.commit()?;
    }
    tell(&args, &made, started.elapsed().as_secs_f64(), ui)
}

/// The writer knows its output as `output`; the user knows it by its path.
fn about_output(error: warp_flow::FlowError, file: &Path) -> Failure {
    match error {
        warp_flow::FlowError::Io { path, source } if path == Path::new("output") => {
            warp_flow::FlowError::Io { path: file.into(), source }.into()
        }
        warp_flow::FlowError::Interrupted => {
            let exit = signals::received().unwrap_or(Exit::Interrupted);
            Failure::new(exit, "interrupted; nothing was written")
        }
        other => other.into(),
    }
}

fn tell(args: &Create, made: &Created, seconds: f64, ui: &Ui) -> Result<Exit> {
    let exit = ui.problems(&made.problems);
    // Standard output is the archive's with `-`.
    if ui.json && args.file != Path::new("-") {
        let document = json!({
            "file": args.file.to_string_lossy(),
            "dry_run": args.dry_run,
            "names": made.names,
            "inodes": made.inodes,
            "bytes": made.bytes,
            "archive_bytes": made.archive_bytes,
            "data_chunks": made.chunks,
            "unreadable": made.problems.len(),
            "seconds": seconds,
        });
        ui.print(&document.to_string())?;
    } else if args.dry_run {
        ui.summary(&format!(
            "{} names, {} would go into {}",
            made.names,
            show::size(made.bytes),
            args.file.display()
        ));
    } else {
        ui.summary(&format!(
            "{}: {} names, {} in {} ({:.1} s)",
            args.file.display(),
            made.names,
            show::size(made.bytes),
            show::size(made.archive_bytes),
            seconds
        ));
    }
    Ok(if exit == Exit::Ok { exit } else { Exit::Partial })
}
