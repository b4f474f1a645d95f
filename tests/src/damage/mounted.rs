//! The same archives as a mount shows them.

use super::check::{Slot, TIME, bound, code, end, head};
use super::edit::Edited;
use super::hit::Hit;
use super::judge::{is_regular, text};
use super::map::Archive;
use super::model::{Exactness, Model, below, relative, walk};
use crate::Warp;
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::mpsc::channel;

/// A mount that ends with this value, whatever happens.
struct Mounted {
    child: Child,
    dir: PathBuf,
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // Gone already, unless something went wrong.
        let _ = unmount(&self.dir, UnmountFlags::DETACH);
    }
}

/// Mounts; `None` if `warp` refuses to.
fn mount(slot: &Slot<'_>, faults: &mut Vec<String>) -> Option<Mounted> {
    let dir = slot.dir.join("mounted");
    std::fs::create_dir_all(&dir).expect("a directory to mount on");
    let said = slot.dir.join("stderr");
    let mut warp = Warp::new(["mount", "--foreground", "--quiet"]);
    let command = warp.command().arg(slot.archive()).arg(&dir);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command.stderr(File::create(&said).expect("a file for messages"));
    let mut child = command.spawn().expect("warp starts");
    bound(&child);
    let stdout = child.stdout.take().expect("piped");
    let mut mounted = Mounted { child, dir };
    let (tx, rx) = channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        let _ = BufReader::new(stdout).read_line(&mut line);
        let _ = tx.send(line);
    });
    match rx.recv_timeout(TIME) {
        Ok(line) if line.starts_with("ready ") => return Some(mounted),
        Ok(_) => match end(&mut mounted.child, TIME) {
            Some(status) => {
                let stderr = std::fs::read_to_string(said).unwrap_or_default();
                faults.extend(slot.faults("mount", code(status), &stderr));
                if code(status) == 0 {
                    faults.push("mount: ends at once, with exit code 0".into());
                }
            }
            None => faults.push("mount: neither ready nor at an end".into()),
        },
        Err(_) => faults.push("mount: not ready in time".into()),
    }
    None
}

/// Unmounts as a user does who presses ^C.
fn finish(slot: &Slot<'_>, mut mounted: Mounted, faults: &mut Vec<String>) {
    let pid = i32::try_from(mounted.child.id()).ok().and_then(Pid::from_raw).expect("a process");
    let _ = kill_process(pid, Signal::INT);
    match end(&mut mounted.child, TIME) {
        // It ends as it was asked to.
        Some(status) if [0, 130].contains(&code(status)) => {}
        Some(status) => faults.push(format!("mount: ended with {}", code(status))),
        None => faults.push("mount: does not end".into()),
    }
    let stderr = std::fs::read_to_string(slot.dir.join("stderr")).unwrap_or_default();
    if stderr.contains("panicked") || stderr.contains("memory allocation") {
        faults.push(format!("mount: {}", head(&stderr)));
    }
}

/// What reading everything came to.
struct Seen {
    /// What is not as the model has it.
    wrong: Vec<String>,
    /// What could not be read.
    failed: usize,
}

/// Mounts a damaged archive and reads everything.
pub fn judge_mounted_hit(slot: &Slot<'_>, archive: &Archive, hit: &Hit) -> Result<(), String> {
    slot.put(&hit.bytes);
    judge(slot, Some(archive.model.clone()), Exactness::Mounted, None, &hit.what)
}

/// Mounts an archive with an edited field and reads everything.
pub fn judge_mounted_edit(slot: &Slot<'_>, edited: &Edited) -> Result<(), String> {
    slot.put(&edited.bytes);
    let verify = slot.verify(false);
    let sound = Some(verify.code == 0);
    // With an unsound tree there is nothing to compare with.
    let model = edited.model.as_ref().ok().cloned();
    let how = if edited.host_may_refuse { Exactness::HostMayRefuse } else { Exactness::Mounted };
    judge(slot, model, how, sound, &edited.what)
}

fn judge(
    slot: &Slot<'_>,
    model: Option<Model>,
    how: Exactness,
    sound: Option<bool>,
    what: &str,
) -> Result<(), String> {
    let mut faults = Vec::new();
    match mount(slot, &mut faults) {
        Some(mounted) => {
            let (tx, rx) = channel();
            let dir = mounted.dir.clone();
            std::thread::spawn(move || tx.send(read_all(&dir, model.as_ref(), how)));
            match rx.recv_timeout(2 * TIME) {
                Ok(seen) => {
                    faults.extend(seen.wrong);
                    if sound == Some(true) && seen.failed > 0 {
                        faults.push(format!("{} of a sound archive cannot be read", seen.failed));
                    }
                    finish(slot, mounted, &mut faults);
                }
                Err(_) => faults.push("mount: reading does not end".into()),
            }
        }
        None if sound == Some(true) => faults.push("a sound archive is not mounted".into()),
        None => {}
    }
    if faults.is_empty() {
        return Ok(());
    }
    faults.truncate(8);
    Err(format!("{what}, mounted:\n  {}", faults.join("\n  ")))
}

fn is_io_error(error: &std::io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
}

fn read_all(top: &Path, model: Option<&Model>, how: Exactness) -> Seen {
    let mut seen = Seen { wrong: Vec::new(), failed: 0 };
    let (found, failed) = walk(top);
    for (path, error) in &failed {
        seen.failed += 1;
        if !is_io_error(error) && model.is_some() {
            seen.wrong.push(format!("{}: {error}", path.display()));
        }
    }
    let Some(model) = model else {
        found.iter().for_each(|path| touch(path));
        return seen;
    };
    for path in found.iter().filter(|path| !model.items.contains_key(&relative(top, path))) {
        seen.wrong.push(format!("{} comes from nowhere", path.display()));
    }
    for (name, item) in &model.items {
        let path = below(top, name);
        match open(&path, is_regular(&item.inode.body)) {
            Ok(()) => seen.wrong.extend(item.differs(&path, how).err()),
            Err(error) if is_io_error(&error) => seen.failed += 1,
            Err(error) => seen.wrong.push(format!("{}: {error}", text(name))),
        }
    }
    seen
}

/// The error that keeps a path from being looked at, or a file from being
/// read to its end.
fn open(path: &Path, regular: bool) -> std::io::Result<()> {
    let meta = path.symlink_metadata()?;
    if regular && meta.is_file() && meta.len() <= 16 << 20 {
        std::io::copy(&mut File::open(path)?, &mut std::io::sink())?;
    }
    // Attributes are read by another request.
    let mut names = vec![0; 64 << 10];
    rustix::fs::llistxattr(path, names.as_mut_slice())?;
    Ok(())
}

/// Reads what there is, for the reader's sake only.
fn touch(path: &Path) {
    let mut names = vec![0; 64 << 10];
    let _ = rustix::fs::llistxattr(path, names.as_mut_slice());
    if path.symlink_metadata().is_ok_and(|meta| meta.is_file())
        && let Ok(file) = File::open(path)
    {
        let _ = file.take(1 << 20).read_to_end(&mut Vec::new());
    }
}
