//! `warp archive ls`.

use crate::args::{Ls, Sort};
use crate::report::{Exit, Failure, Result, Ui, one_line};
use crate::show;
use serde_json::{Map, Value, json};
use std::io::{BufWriter, IsTerminal, Write};
use warp_flow::FlowError;
use warp_flow::reader::Attributes;
use warp_format::FileId;
use warp_format::record::{Body, FileType, Inode};

struct Row {
    path: Vec<u8>,
    attributes: Attributes,
}

pub(crate) fn run(args: &Ls, ui: &Ui) -> Result<Exit> {
    let archive = super::open(&args.file, &args.passphrase)?;
    let mut out = Output::new(ui, args.long);
    let mut kept: Vec<Row> = Vec::new();
    let mut problems = Vec::new();
    let sorted = !matches!(args.sort, Sort::Name);
    let mut visit = |path: &[u8], found: warp_flow::Result<(&_, &Attributes)>| {
        match found {
            Ok((_, attributes)) if sorted => {
                kept.push(Row { path: path.to_vec(), attributes: attributes.clone() });
            }
            Ok((_, attributes)) => out.row(path, attributes)?,
            Err(error) => problems.push(warp_flow::Problem { path: path.to_vec(), error }),
        }
        Ok(())
    };
    if args.paths.is_empty() {
        archive.visit_all(&mut visit)?;
    }
    for path in &args.paths {
        let id = archive.resolve(path)?;
        let shown = normal(path);
        if let Some(attributes) = archive.attributes(id)? {
            if id != FileId::ROOT {
                let dentry_free: &Attributes = &attributes;
                visit_one(&mut visit, &shown, dentry_free, &archive, id)?;
            } else {
                archive.visit_all(&mut visit)?;
            }
        }
    }
    match args.sort {
        Sort::Name => {}
        Sort::Size => kept.sort_by_key(|row| std::cmp::Reverse(row.attributes.inode.size)),
        Sort::Time => kept.sort_by_key(|row| std::cmp::Reverse(row.attributes.inode.mtime)),
    }
    for row in &kept {
        out.row(&row.path, &row.attributes)?;
    }
    out.end()?;
    Ok(ui.problems(&problems))
}

/// The stored path that a typed one names.
fn normal(path: &std::path::Path) -> Vec<u8> {
    use std::os::unix::ffi::OsStrExt;
    let parts: Vec<&[u8]> = path
        .as_os_str()
        .as_bytes()
        .split(|b| *b == b'/')
        .filter(|part| !part.is_empty() && *part != b".")
        .collect();
    parts.join(&b'/')
}

fn visit_one(
    visit: &mut warp_flow::reader::Visit<'_>,
    path: &[u8],
    attributes: &Attributes,
    archive: &super::OpenArchive,
    id: FileId,
) -> Result<()> {
    use warp_format::record::{Dentry, Name, Stamp};
    let last = path.rsplit(|b| *b == b'/').next().unwrap_or(path);
    let name = Name::new(last).map_err(FlowError::from)?;
    let file_type = attributes.inode.file_type();
    let dentry = Dentry { stamp: Stamp::NONE, name, file: id, file_type };
    visit(path, Ok((&dentry, attributes)))?;
    if file_type == FileType::Directory {
        archive.visit_below(id, path, visit)?;
    }
    Ok(())
}

/// Rows on standard output, or one JSON document.
struct Output<'a> {
    ui: &'a Ui,
    long: bool,
    terminal: bool,
    out: BufWriter<std::io::Stdout>,
    rows: u64,
}

fn failed(e: std::io::Error) -> FlowError {
    if e.kind() == std::io::ErrorKind::BrokenPipe {
        // The reader has seen enough, as with `| head`.
        std::process::exit(0);
    }
    FlowError::io("standard output", e)
}

impl<'a> Output<'a> {
    fn new(ui: &'a Ui, long: bool) -> Self {
        let stdout = std::io::stdout();
        let terminal = stdout.is_terminal();
        Self { ui, long, terminal, out: BufWriter::with_capacity(64 << 10, stdout), rows: 0 }
    }

    fn row(&mut self, path: &[u8], attributes: &Attributes) -> warp_flow::Result<()> {
        self.rows += 1;
        if self.ui.json {
            let lead = if self.rows == 1 { "{\"entries\":[\n" } else { ",\n" };
            let value = json_row(path, attributes);
            return write!(self.out, "{lead}{value}").map_err(failed);
        }
        let inode = &attributes.inode;
        if self.long {
            let size = match inode.body {
                Body::Device { number, .. } => {
                    format!("{},{}", rustix::fs::major(number), rustix::fs::minor(number))
                }
                _ => inode.size.to_string(),
            };
            write!(
                self.out,
                "{} {:>3} {:>5} {:>5} {:>12} {} ",
                show::mode(inode.file_type(), inode.permissions),
                attributes.links,
                inode.uid,
                inode.gid,
                size,
                show::time(inode.mtime),
            )
            .map_err(failed)?;
        }
        self.name(path)?;
        if let (true, Body::Symlink(target)) = (self.long, &inode.body) {
            self.out.write_all(b" -> ").map_err(failed)?;
            self.name(target)?;
        }
        self.out.write_all(b"\n").map_err(failed)
    }

    /// A name's bytes; on a terminal without what could steer it.
    fn name(&mut self, bytes: &[u8]) -> warp_flow::Result<()> {
        if !self.terminal {
            return self.out.write_all(bytes).map_err(failed);
        }
        let safe = one_line(&String::from_utf8_lossy(bytes));
        self.out.write_all(safe.as_bytes()).map_err(failed)
    }

    fn end(mut self) -> Result<()> {
        if self.ui.json {
            let lead = if self.rows == 0 { "{\"entries\":[" } else { "" };
            writeln!(self.out, "{lead}\n]}}").map_err(failed)?;
        }
        self.out.flush().map_err(|e| Failure::from(failed(e)))
    }
}

fn json_row(path: &[u8], attributes: &Attributes) -> Value {
    let inode: &Inode = &attributes.inode;
    let mut row: Map<String, Value> =
        show::json_path(path).into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
    let kind = match inode.file_type() {
        FileType::Regular => "file",
        FileType::Directory => "directory",
        FileType::Symlink => "symlink",
        FileType::Fifo => "fifo",
        FileType::Socket => "socket",
        FileType::CharDevice => "char-device",
        FileType::BlockDevice => "block-device",
    };
    row.insert("type".into(), json!(kind));
    row.insert("mode".into(), json!(format!("{:04o}", inode.permissions)));
    row.insert("uid".into(), json!(inode.uid));
    row.insert("gid".into(), json!(inode.gid));
    row.insert("size".into(), json!(inode.size));
    row.insert("mtime".into(), json!(inode.mtime.secs));
    row.insert("mtime_nanos".into(), json!(inode.mtime.nanos));
    row.insert("links".into(), json!(attributes.links));
    if let Body::Symlink(target) = &inode.body {
        row.insert("target".into(), json!(String::from_utf8_lossy(target)));
    }
    Value::Object(row)
}
