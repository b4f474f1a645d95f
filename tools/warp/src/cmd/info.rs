//! `warp info`: this machine, an archive, or the mount that a path is in.

use crate::args::Info;
use crate::client::Daemon;
use crate::daemon::lock::RunDir;
use crate::daemon::log;
use crate::daemon::wire::{MountRow, Status};
use crate::places::mount_of;
use crate::report::{Exit, Failure, Result, Ui};
use crate::show;
use hyper::Method;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use warp_flow::FlowError;
use warp_flow::archive::{ArchiveFile, ReadKeys};
use warp_flow::home::Home;
use warp_flow::reader::TreeReader;
use warp_format::limits::VERSION;
use warp_fs::Mounted;
use warp_fs::kernel::check_device;

/// One line of an answer: what, for people, and for programs.
type Row = (&'static str, String, Value);

pub(super) fn run(args: &Info, ui: &Ui) -> Result<Exit> {
    let rows = match &args.path {
        None => machine(),
        Some(path) => match mount_of(path).map_err(|e| FlowError::io(path, e))? {
            // An archive that lies in a mount is asked about for itself.
            Some(mount) if !path.is_file() || !is_archive(path) => mounted(&mount)?,
            _ if path.is_dir() => {
                let cause = format!("{}: is not in a mount of warp", path.display());
                return Err(Failure::new(Exit::NotFound, cause)
                    .hint("name an archive, or a path in a mount; `warp status` lists them"));
            }
            _ => archive(path)?,
        },
    };
    if ui.json {
        let fields = rows.into_iter().map(|(what, _, value)| (what.to_owned(), value));
        ui.print(&Value::Object(fields.collect()).to_string())?;
        return Ok(Exit::Ok);
    }
    let width = rows.iter().map(|(what, _, _)| what.len()).max().unwrap_or(0);
    for (what, text, _) in rows {
        ui.print(&format!("{:<width$} {text}", what.replace('_', " ")))?;
    }
    Ok(Exit::Ok)
}

fn is_archive(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "warp")
}

/// The same for people and for programs.
fn text(what: &'static str, text: impl Into<String>) -> Row {
    let text = text.into();
    (what, text.clone(), Value::String(text))
}

fn bytes(what: &'static str, bytes: u64) -> Row {
    (what, show::size(bytes), json!(bytes))
}

fn path(what: &'static str, path: &Path) -> Row {
    text(what, path.to_string_lossy())
}

fn machine() -> Vec<Row> {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let features = cpu_features();
    let fuse = match check_device() {
        Ok(()) => "usable".to_owned(),
        Err(e) => e.to_string(),
    };
    let mut rows = vec![
        text("version", env!("CARGO_PKG_VERSION")),
        text("kernel", kernel.trim()),
        ("cores", cores.to_string(), json!(cores)),
        ("cpu_features", features.join(" "), json!(features)),
        bytes("memory_bytes", memory()),
        ("fuse", fuse.clone(), json!(fuse)),
    ];
    if let Ok(home) = Home::from_environment() {
        rows.extend([
            path("keyring", &home.keyring_path()),
            path("portals", &home.data().join("portals")),
            path("socket", &RunDir::socket(&home)),
            path("log", &log::path(&home)),
        ]);
    }
    rows
}

/// Of those that make hashing, sealing and packing faster, what there is.
fn cpu_features() -> Vec<&'static str> {
    #[cfg(target_arch = "x86_64")]
    let known = [
        ("avx2", std::arch::is_x86_feature_detected!("avx2")),
        ("avx512f", std::arch::is_x86_feature_detected!("avx512f")),
        ("sha_ni", std::arch::is_x86_feature_detected!("sha")),
        ("vaes", std::arch::is_x86_feature_detected!("vaes")),
    ];
    #[cfg(not(target_arch = "x86_64"))]
    let known: [(&str, bool); 0] = [];
    known.into_iter().filter(|(_, there)| *there).map(|(name, _)| name).collect()
}

fn memory() -> u64 {
    let table = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = table.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = total.and_then(|text| text.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kib.unwrap_or(0) << 10
}

fn archive(at: &Path) -> Result<Vec<Row>> {
    let file = ArchiveFile::open(at)?;
    let footer = file.footer().clone();
    let sealed = footer.header.slot.is_some();
    let signer = footer.signature.as_ref().map(|signature| format!("{:#}", signature.signer));
    let mut rows = vec![
        path("file", at),
        ("format", VERSION.to_string(), json!(VERSION)),
        ("sealed", if sealed { "yes" } else { "no" }.into(), json!(sealed)),
        ("signed_by", signer.clone().unwrap_or_else(|| "nobody".into()), json!(signer)),
        bytes("archive_bytes", file.file_len()),
        ("chunks", footer.index_count.to_string(), json!(footer.index_count)),
    ];
    if sealed {
        return Ok(rows);
    }
    let keys = ReadKeys::unlock(&footer.header, at, &|| Ok(Default::default()))?;
    let summary = TreeReader::new(file, keys, footer.root).summary()?;
    rows.push(("inodes", summary.inodes.to_string(), json!(summary.inodes)));
    rows.push(("names", summary.names.to_string(), json!(summary.names)));
    rows.push(bytes("content_bytes", summary.bytes));
    Ok(rows)
}

fn mounted(mount: &Mounted) -> Result<Vec<Row>> {
    let Some(row) = portal_of(mount)? else {
        let rows = vec![path("mountpoint", &mount.directory), text("source", mount.source.clone())];
        return Ok(rows);
    };
    let unpublished = row.standing.unpublished_bytes;
    Ok(vec![
        path("mountpoint", &mount.directory),
        text("portal", row.portal),
        text("id", row.id),
        path("path", &PathBuf::from(row.path)),
        ("read_only", if row.read_only { "yes" } else { "no" }.into(), json!(row.read_only)),
        ("sequence", row.standing.sequence.to_string(), json!(row.standing.sequence)),
        bytes("unpublished_bytes", unpublished),
    ])
}

/// The portal that this home's daemon serves there.
fn portal_of(mount: &Mounted) -> Result<Option<MountRow>> {
    let Ok(home) = Home::from_environment() else { return Ok(None) };
    let Some(mut daemon) = Daemon::running(&home)? else { return Ok(None) };
    let status: Status = daemon.ask(Method::GET, "/v1/status", &())?;
    let here = |row: &MountRow| PathBuf::from(row.directory.clone()) == mount.directory;
    Ok(status.mounts.into_iter().find(here))
}
