//! `warp archive verify`.

use super::OpenArchive;
use crate::args::Verify;
use crate::bar::{Bar, Unit};
use crate::report::{Exit, Failure, Result, Ui};
use crate::{show, signals};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Instant;
use warp_flow::archive::ArchiveFile;
use warp_flow::verify::{Depth, Step, Verified, prove, verify, verify_without_keys};
use warp_flow::{FlowError, Progress};
use warp_format::DeviceId;

pub(crate) fn run(args: &Verify, ui: &Ui) -> Result<Exit> {
    let started = Instant::now();
    let progress = Arc::new(Progress::default());
    if args.keyless {
        let file = ArchiveFile::open(&args.file)?;
        check_signer(args, &file)?;
        signals::stop_on_signal(&progress)?;
        let done = {
            let _bar = Bar::show(ui, Unit::Chunks, &progress);
            verify_without_keys(&file, &progress)
        };
        return tell(args, &done.map_err(stopped)?, &file, started, ui);
    }
    let archive = super::open(&args.file, &args.passphrase)?;
    check_signer(args, archive.source())?;
    if let Some(path) = &args.proof {
        return proof(&archive, path, ui);
    }
    signals::stop_on_signal(&progress)?;
    let depth = match args.sample {
        None => Depth::Everything,
        Some(share) => Depth::Sample { share, seed: seed()? },
    };
    let done = {
        let _bar = Bar::show(ui, Unit::Chunks, &progress);
        verify(&archive, depth, &progress)
    };
    tell(args, &done.map_err(stopped)?, archive.source(), started, ui)
}

fn stopped(error: FlowError) -> Failure {
    match (&error, signals::received()) {
        (FlowError::Interrupted, Some(exit)) => Failure::new(exit, "interrupted"),
        _ => error.into(),
    }
}

fn seed() -> Result<u64> {
    let mut bytes = [0u8; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(|e| Failure::new(Exit::Failed, format!("random numbers: {e}")))?;
    Ok(u64::from_le_bytes(bytes))
}

/// The signature itself was checked when the archive was opened; whose it is
/// is for the user to say.
fn check_signer(args: &Verify, file: &ArchiveFile) -> Result<()> {
    let Some(wanted) = &args.signer else { return Ok(()) };
    let found = file.footer().signature.as_ref().map(|s| hex(&s.signer));
    if found.as_ref().is_some_and(|found| found.eq_ignore_ascii_case(wanted.trim())) {
        return Ok(());
    }
    let path = args.file.display();
    let by = found.map_or("nobody".into(), |id| format!("another device: {id}"));
    Err(Failure::new(Exit::Integrity, format!("{path}: is signed by {by}"))
        .hint("do not trust it, or give the signer that you expect"))
}

fn hex(id: &DeviceId) -> String {
    format!("{id:#}")
}

fn tell(
    args: &Verify,
    done: &Verified,
    file: &ArchiveFile,
    started: Instant,
    ui: &Ui,
) -> Result<Exit> {
    let exit = ui.problems(&done.problems);
    let signer = file.footer().signature.as_ref().map(|s| hex(&s.signer));
    let seconds = started.elapsed().as_secs_f64();
    if ui.json {
        let document = json!({
            "file": args.file.to_string_lossy(),
            "ok": exit == Exit::Ok,
            "archive_bytes": done.archive_bytes,
            "names": done.names,
            "tree_nodes": done.nodes,
            "data_chunks": done.chunks,
            "data_chunks_read": done.chunks_read,
            "contents_checked": !args.keyless,
            "signed_by": signer,
            "problems": done.problems.iter().map(|p| json!({
                "path": show::path(&p.path), "why": p.error.to_string(),
            })).collect::<Vec<_>>(),
            "seconds": seconds,
        });
        ui.print(&document.to_string())?;
        return Ok(exit);
    }
    let verdict = if exit == Exit::Ok { "ok" } else { "DAMAGED" };
    let what = if args.keyless {
        format!(
            "{} chunks match their ids, layout and index checked; contents not opened (no passphrase)",
            done.chunks_read
        )
    } else if done.chunks_read == done.chunks {
        format!(
            "every byte read: {} names, {} data chunks opened and compared, {} tree nodes",
            done.names, done.chunks, done.nodes
        )
    } else {
        format!(
            "{} of {} data chunks opened and compared, the others not read; all {} names and {} tree nodes checked",
            done.chunks_read, done.chunks, done.names, done.nodes
        )
    };
    let signed = signer.map_or("not signed".into(), |id| format!("signed by {id}"));
    let size = show::size(done.archive_bytes);
    let path = args.file.display();
    ui.print(&format!("{path}: {verdict}: {what}; {size}, {signed} ({seconds:.1} s)"))?;
    Ok(exit)
}

fn proof(archive: &OpenArchive, path: &std::path::Path, ui: &Ui) -> Result<Exit> {
    let steps = prove(archive, path)?;
    let footer = archive.source().footer();
    let rows: Vec<Value> = steps
        .iter()
        .map(|step| match step {
            Step::Node { level, node, name } => json!({
                "node": format!("{:#}", node.id), "hash": format!("{:#}", node.hash),
                "level": level, "for": show::path(name),
            }),
            Step::Extent { offset, extent } => json!({
                "chunk": format!("{:#}", extent.chunk.id),
                "hash": format!("{:#}", extent.chunk.hash),
                "offset": offset, "start": extent.start, "length": extent.len,
            }),
        })
        .collect();
    if ui.json {
        let document = json!({
            "path": path.to_string_lossy(),
            "root": format!("{:#}", footer.root.id),
            "root_hash": format!("{:#}", footer.root.hash),
            "signed_by": footer.signature.as_ref().map(|s| hex(&s.signer)),
            "steps": rows,
        });
        ui.print(&document.to_string())?;
        return Ok(Exit::Ok);
    }
    ui.print(&format!("root    {:#}", footer.root.hash))?;
    for step in &steps {
        match step {
            Step::Node { level, node, name } => ui.print(&format!(
                "node    {:#} level {level} ({})",
                node.hash,
                if name.is_empty() { "inode".into() } else { show::path(name) }
            ))?,
            Step::Extent { offset, extent } => ui.print(&format!(
                "content {:#} bytes {}..{} at {offset}",
                extent.chunk.hash,
                extent.start,
                extent.start + extent.len
            ))?,
        }
    }
    ui.print(&format!("ok: {} is in this archive, every step read and checked", path.display()))?;
    Ok(Exit::Ok)
}
