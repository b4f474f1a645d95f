//! Runs `warp` on a damaged archive under watch: time, memory, exit code, what
//! it says, and what it writes where.

use super::map::{Archive, PASSPHRASE};
use super::model::{Exactness, below};
use super::{Model, source};
use crate::Warp;
use rustix::fs::{XattrFlags, lsetxattr, statvfs};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Nothing may take longer.
pub(super) const TIME: Duration = Duration::from_secs(5);
/// Nothing may have more memory.
const MEMORY: u64 = 256 << 20;
/// The exit codes that a damaged archive may lead to: failed (a newer
/// version), partial, integrity, refused, limit.
const CODES: [i32; 6] = [0, 1, 3, 6, 7, 8];
/// What lies beside the targets and must stay as it is.
const SENTINEL: &str = "sentinel";
const KEPT: &str = "nothing may change this";

/// The archives under test and a place to work in.
pub struct Lab {
    dir: tempfile::TempDir,
    /// Not sealed.
    pub plain: Archive,
}

/// A directory of one thread.
pub struct Slot<'a> {
    lab: &'a Lab,
    pub(super) dir: PathBuf,
}

/// What one run came to.
#[derive(Debug)]
pub(super) struct Ran {
    pub(super) code: i32,
    stderr: String,
    /// The target with a slash: what cannot be written is named by its path
    /// on the host.
    target: Option<String>,
    /// What is wrong with the run itself.
    pub(super) faults: Vec<String>,
}

impl Lab {
    /// Makes the tree and its archive.
    ///
    /// # Panics
    /// If that fails, or if the map of the archive is not the tree.
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("warp-damage-").tempdir_in(place());
        let dir = dir.expect("a directory to work in");
        let tree = dir.path().join("tree");
        source::build(&tree);
        let file = dir.path().join("plain.warp");
        make(&tree, &file, None);
        let plain = Archive::read(&file);
        for (path, item) in &plain.model.items {
            item.differs(&below(&tree, path), Exactness::All).expect("the map is the tree");
        }
        Self { dir, plain }
    }

    /// The same tree, sealed.
    pub fn sealed(&self) -> Archive {
        let key = self.passphrase_file();
        std::fs::write(&key, PASSPHRASE).expect("a passphrase file");
        let file = self.dir.path().join("sealed.warp");
        make(&self.dir.path().join("tree"), &file, Some(&key));
        Archive::read(&file)
    }

    fn passphrase_file(&self) -> PathBuf {
        self.dir.path().join("passphrase")
    }

    pub(super) fn slot(&self, number: usize) -> Slot<'_> {
        let dir = self.dir.path().join(format!("slot-{number}"));
        std::fs::create_dir_all(dir.join(SENTINEL)).expect("a slot");
        std::fs::write(dir.join(SENTINEL).join("kept"), KEPT).expect("a file to keep");
        Slot { lab: self, dir }
    }
}

impl Default for Lab {
    fn default() -> Self {
        Self::new()
    }
}

/// Memory, where there is enough of it, since the cases write much; it must
/// keep attributes as a disk does.
fn place() -> PathBuf {
    let shm = Path::new("/dev/shm");
    let roomy = statvfs(shm).is_ok_and(|s| s.f_bavail * s.f_frsize > 1 << 30);
    let probe = tempfile::Builder::new().prefix("warp-damage-").tempfile_in(shm);
    let keeps =
        probe.is_ok_and(|f| lsetxattr(f.path(), "user.x", b"y", XattrFlags::empty()).is_ok());
    if roomy && keeps { shm.into() } else { std::env::temp_dir() }
}

fn make(tree: &Path, file: &Path, passphrase: Option<&Path>) {
    let mut args: Vec<&OsStr> =
        vec!["archive".as_ref(), "create".as_ref(), "--quiet".as_ref(), file.as_ref()];
    if let Some(path) = passphrase {
        args.extend::<[&OsStr; 3]>([
            "--encrypt".as_ref(),
            "--passphrase-file".as_ref(),
            path.as_ref(),
        ]);
    }
    // The tree itself, not a directory of its name.
    args.extend::<[&OsStr; 3]>(["-C".as_ref(), tree.as_ref(), ".".as_ref()]);
    Warp::new(args).ok();
}

impl Slot<'_> {
    pub(super) fn archive(&self) -> PathBuf {
        self.dir.join("case.warp")
    }

    pub(super) fn target(&self) -> PathBuf {
        self.dir.join("target")
    }

    pub(super) fn salvaged(&self) -> PathBuf {
        self.dir.join("salvaged")
    }

    /// Puts the damaged archive in its place.
    pub(super) fn put(&self, bytes: &[u8]) {
        std::fs::write(self.archive(), bytes).expect("room for the archive");
    }

    pub(super) fn verify(&self, sealed: bool) -> Ran {
        self.run(&["archive", "verify"], sealed, None)
    }

    pub(super) fn extract(&self, sealed: bool) -> Ran {
        self.run(&["archive", "extract", "--quiet"], sealed, Some(&self.target()))
    }

    pub(super) fn salvage(&self, sealed: bool) -> Ran {
        self.run(&["archive", "extract", "--quiet", "--salvage"], sealed, Some(&self.salvaged()))
    }

    fn run(&self, args: &[&str], sealed: bool, target: Option<&Path>) -> Ran {
        let said = self.dir.join("stderr");
        let mut warp = Warp::new(args);
        let command = warp.command();
        command.arg(self.archive());
        if let Some(target) = target {
            command.arg("-C").arg(target);
        }
        if sealed {
            command.arg("--passphrase-file").arg(self.lab.passphrase_file());
        }
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(File::create(&said).expect("a file for messages"));
        let name = args[1..].join(" ");
        let started = Instant::now();
        let mut child = command.spawn().expect("warp starts");
        bound(&child);
        let mut faults = Vec::new();
        let status = end(&mut child, TIME);
        if status.is_none() {
            let _ = child.kill();
            let _ = child.wait();
            faults.push(format!("{name}: still running after {:?}", started.elapsed()));
        }
        let code = status.map_or(-1, code);
        let stderr = std::fs::read(said).expect("what it said");
        let stderr = String::from_utf8_lossy(&stderr).into_owned();
        faults.extend(self.faults(&name, code, &stderr));
        let target = target.map(|path| format!("{}/", path.display()));
        Ran { code, stderr, target, faults }
    }

    pub(super) fn faults(&self, name: &str, code: i32, stderr: &str) -> Vec<String> {
        let mut faults = Vec::new();
        if code != -1 && !CODES.contains(&code) {
            faults.push(format!("{name}: exit code {code}: {}", head(stderr)));
        }
        if ["panicked", "memory allocation", "stack overflow"].iter().any(|w| stderr.contains(w)) {
            faults.push(format!("{name}: {}", head(stderr)));
        }
        // An error about the whole run names the archive or the file it is about.
        let case = self.archive().display().to_string();
        let nameless =
            |line: &&str| line.strip_prefix("error: ").is_some_and(|why| !why.starts_with(&case));
        if let Some(line) = stderr.lines().find(nameless) {
            faults.push(format!("{name}: names no file: {line}"));
        }
        if code > 0 && stderr.is_empty() {
            faults.push(format!("{name}: exit code {code} without a word"));
        }
        if let Err(why) = self.undisturbed() {
            faults.push(format!("{name}: {why}"));
        }
        faults
    }

    /// Nothing is written but into the targets.
    fn undisturbed(&self) -> Result<(), String> {
        let known = ["case.warp", "stderr", "target", "salvaged", "mounted", SENTINEL];
        let names = |dir: &Path| -> Vec<String> {
            let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
            entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect()
        };
        if let Some(name) = names(&self.dir).iter().find(|n| !known.contains(&n.as_str())) {
            return Err(format!("{name} was written beside the target"));
        }
        let sentinel = self.dir.join(SENTINEL);
        let kept = std::fs::read(sentinel.join("kept"));
        if names(&sentinel) == ["kept"] && kept.is_ok_and(|bytes| bytes == KEPT.as_bytes()) {
            Ok(())
        } else {
            Err(format!("what lies beside the target was changed: {:?}", names(&sentinel)))
        }
    }

    /// Where a hostile name or link may point to.
    pub(super) fn outside(&self) -> PathBuf {
        self.dir.join(SENTINEL)
    }

    /// Keeps the archive of a failed case, if `WARP_DAMAGE_KEEP` says where,
    /// under the first words of what is wrong with it.
    pub(super) fn keep(&self, why: &str) {
        if let Some(dir) = std::env::var_os("WARP_DAMAGE_KEEP") {
            let case = why.split(':').next().unwrap_or_default().replace([' ', ','], "-");
            let file = PathBuf::from(dir).join(format!("{case}.warp"));
            std::fs::copy(self.archive(), file).expect("a place to keep failed cases");
        }
    }

    /// Makes room for the next case.
    pub(super) fn clear(&self) {
        for dir in [self.target(), self.salvaged()] {
            if dir.exists() {
                open_up(&dir);
                std::fs::remove_dir_all(&dir).expect("what was extracted can be removed");
            }
        }
    }
}

/// An ordinary user can remove only what is below directories that are open.
fn open_up(dir: &Path) {
    use std::os::unix::fs::PermissionsExt;
    if rustix::process::geteuid().is_root() {
        return;
    }
    let _ = std::fs::set_permissions(dir, PermissionsExt::from_mode(0o700));
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            open_up(&entry.path());
        }
    }
}

/// Bounds the memory of a process: what it may write to, touched or not.
pub(super) fn bound(child: &Child) {
    let limit = Rlimit { current: Some(MEMORY), maximum: Some(MEMORY) };
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        // It may have ended already.
        let _ = prlimit(Some(pid), Resource::Data, limit);
    }
}

/// Waits for the end; `None` if it does not come in time.
pub(super) fn end(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let until = Instant::now() + limit;
    let mut pause = Duration::from_micros(300);
    loop {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        if Instant::now() > until {
            return None;
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(4));
    }
}

/// 128 + N for signal N.
pub(super) fn code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

pub(super) fn head(text: &str) -> String {
    text.lines().take(4).collect::<Vec<_>>().join(" | ")
}

impl Ran {
    fn lines(&self) -> impl Iterator<Item = &str> {
        let after = |line| {
            let warning = str::strip_prefix(line, "warning: ");
            warning.or_else(|| str::strip_prefix(line, "error: "))
        };
        self.stderr.lines().filter_map(after)
    }

    /// True if a line is about this path.
    pub(super) fn names(&self, path: &[u8]) -> bool {
        let path = String::from_utf8_lossy(path);
        let path = if path.is_empty() { "." } else { &path };
        self.lines().any(|line| {
            let target = self.target.as_deref().unwrap_or_default();
            let line = line.strip_prefix(target).unwrap_or(line);
            line.strip_prefix(path).is_some_and(|rest| rest.starts_with(": "))
        })
    }

    /// True if a line is about this path or a directory above it.
    pub(super) fn covers(&self, path: &[u8]) -> bool {
        let above = path.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| &path[..at]);
        self.names(path) || self.names(b"") || above.into_iter().any(|path| self.names(path))
    }

    /// True if it gave up before anything else.
    pub(super) fn refused(&self) -> bool {
        self.stderr.lines().any(|line| line.starts_with("error: "))
    }

    /// True if a line is about the archive as a whole.
    pub(super) fn blames(&self, archive: &Path) -> bool {
        let path = archive.display().to_string();
        self.lines().any(|line| line.starts_with(&path))
    }

    pub(super) fn said(&self) -> String {
        format!("exit {}: {}", self.code, head(&self.stderr))
    }
}

impl Model {
    /// The paths that `named` says nothing of and that are not below `top`.
    pub(super) fn lost<'a>(
        &'a self,
        top: &'a Path,
        named: impl Fn(&[u8]) -> bool + 'a,
    ) -> impl Iterator<Item = &'a [u8]> {
        self.paths()
            .filter(move |path| below(top, path).symlink_metadata().is_err() && !named(path))
    }
}
