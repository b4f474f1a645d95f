//! The daemon's log: `edge.log`, and the three before it.
//!
//! Says what happened to which portal, by the first digits of its id. Never:
//! names, paths inside a portal, passphrases, keys.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use warp_flow::home::{Home, make_private_dir};

/// The file at which a full one is put aside.
const MAX_LEN_BYTES: u64 = 4 << 20;
/// Files put aside that are kept.
const KEPT: u32 = 3;

/// The log that is being written.
pub(crate) fn path(home: &Home) -> PathBuf {
    home.logs().join("edge.log")
}

/// Sends what this process says, up to this level, and its panics to the log.
pub(crate) fn begin(home: &Home, level: tracing::Level) -> io::Result<()> {
    make_private_dir(home.logs())?;
    let file = Rotating::open(&path(home), MAX_LEN_BYTES)?;
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_max_level(level)
        .with_target(false)
        .with_writer(Mutex::new(file))
        .finish();
    // Fails only if there is a log already.
    let _ = tracing::subscriber::set_global_default(subscriber);
    std::panic::set_hook(Box::new(|panic| {
        let at = panic.location().map(ToString::to_string).unwrap_or_default();
        let said = panic.payload_as_str().unwrap_or("no text");
        tracing::error!(at, said, "panic");
    }));
    Ok(())
}

/// A file that is put aside when it is full.
struct Rotating {
    path: PathBuf,
    max_len: u64,
    file: File,
    len: u64,
}

impl Rotating {
    fn open(path: &Path, max_len: u64) -> io::Result<Self> {
        let file = File::options().append(true).create(true).mode(0o600).open(path)?;
        let len = file.metadata()?.len();
        Ok(Self { path: path.into(), max_len, file, len })
    }

    fn aside(&self, number: u32) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{number}"));
        name.into()
    }

    fn rotate(&mut self) -> io::Result<()> {
        for number in (1..KEPT).rev() {
            let older = self.aside(number + 1);
            match std::fs::rename(self.aside(number), older) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        std::fs::rename(&self.path, self.aside(1))?;
        *self = Self::open(&self.path, self.max_len)?;
        Ok(())
    }
}

impl Write for Rotating {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.len > 0 && self.len + bytes.len() as u64 > self.max_len {
            // A log that cannot be put aside is better too long than silent.
            let _ = self.rotate();
        }
        let written = self.file.write(bytes)?;
        self.len += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn full_files_are_put_aside_and_the_oldest_goes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("edge.log");
        let mut log = Rotating::open(&path, 10).unwrap();
        for line in ["one\n", "two\n", "three\n", "four\n", "five\n", "a line of its own\n", "x\n"]
        {
            log.write_all(line.as_bytes()).unwrap();
        }
        let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
        assert_eq!(read("edge.log"), "x\n");
        assert_eq!(read("edge.log.1"), "a line of its own\n");
        assert_eq!(read("edge.log.2"), "four\nfive\n");
        assert_eq!(read("edge.log.3"), "three\n");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 4);
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_log_goes_on_where_the_last_process_stopped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("edge.log");
        Rotating::open(&path, 10).unwrap().write_all(b"12345678\n").unwrap();
        let mut log = Rotating::open(&path, 10).unwrap();
        log.write_all(b"9\n").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"9\n");
    }
}
