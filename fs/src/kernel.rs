//! Mounting and unmounting: the only module that does either, and the only
//! one that knows fuser's session.
//!
//! Promises: each way in which a mount can fail has its own error; a dead
//! mount in the way is cleared. Never: leaves a mount behind when it fails.
//! Tested by `tests/tests/mount.rs`.

use crate::ops::Shell;
use crate::owners::{IdMap, Owners};
use fuser::{Config, INodeNo, MountOption, Session, SessionACL};
use rustix::event::{PollFd, PollFlags};
use rustix::mount::MountFlags;
use std::ffi::{CString, OsStr};
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc;
use std::time::Duration;
use warp_flow::volume::Volume;

/// The type that our mounts have in /proc/self/mountinfo.
pub const FS_TYPE: &str = "fuse.warp";
const DEVICE: &str = "/dev/fuse";
/// Threads that read and answer requests. One would have to be woken on
/// another core for each request of a single program, which on a virtual
/// machine takes longer than the answer; several take turns. The last that is
/// free never works on a request itself.
const THREADS: usize = 4;
/// How long a request may take.
pub const DEADLINE: Duration = Duration::from_secs(30);
/// How long a mount is waited for that may be dead.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// Why something could not be mounted.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The mountpoint is not there.
    #[error("{}: no such directory", .0.display())]
    Missing(PathBuf),
    /// The mountpoint is no directory.
    #[error("{}: is not a directory", .0.display())]
    NotADirectory(PathBuf),
    /// The mountpoint has something in it.
    #[error("{}: is not empty", .0.display())]
    NotEmpty(PathBuf),
    /// Something of ours is mounted there already.
    #[error("{}: {what} is mounted there already", path.display())]
    Busy {
        /// The mountpoint.
        path: PathBuf,
        /// What is there.
        what: String,
    },
    /// There is no /dev/fuse.
    #[error("{DEVICE} does not exist")]
    NoDevice,
    /// /dev/fuse is closed to this user.
    #[error("{DEVICE} cannot be opened: {0}")]
    DeviceClosed(#[source] io::Error),
    /// Owners are mapped by an ordinary user.
    #[error("only root can show owners as others (uidmap, gidmap)")]
    Mapped,
    /// `allow_other` is not allowed to this user.
    #[error("allow_other is not allowed to ordinary users on this machine")]
    AllowOther,
    /// Anything else.
    #[error("{}: cannot be mounted: {source}", path.display())]
    Failed {
        /// The mountpoint.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What the kernel does with what is written to files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Caching {
    /// It gathers writes, and hands them over later in large pieces; until then
    /// sizes and times are its own. Good while nobody else writes.
    #[default]
    WriteBack,
    /// It hands each write over before the program goes on.
    WriteThrough,
}

/// How to mount.
#[derive(Debug, Clone)]
pub struct MountOptions {
    directory: PathBuf,
    source: String,
    /// Let other users in, as the files' modes allow.
    pub allow_other: bool,
    /// Mount over a directory that is not empty.
    pub nonempty: bool,
    /// Let nobody change anything.
    pub read_only: bool,
    /// Let nobody run a program from it.
    pub no_exec: bool,
    /// Stored users, and who is shown in their place: for root only.
    pub users: IdMap,
    /// The same for groups.
    pub groups: IdMap,
    /// When a request that is not answered is answered with EIO; not one that
    /// asks for what was written to be durable.
    pub deadline: Duration,
    /// What the kernel does with what is written; nothing is, if read-only.
    pub caching: Caching,
    /// Which portal it is, for the log: never a name.
    pub portal: String,
}

impl MountOptions {
    /// Mounts on `directory`, read-only; `source` is shown as the device.
    pub fn new(directory: PathBuf, source: &str) -> Self {
        // A comma would start another option, a line end another line.
        let clean = |c: char| if c == ',' || c == '\\' || c.is_control() { '_' } else { c };
        let source = source.chars().map(clean).collect();
        Self {
            directory,
            source,
            allow_other: false,
            nonempty: false,
            read_only: true,
            no_exec: false,
            users: IdMap::default(),
            groups: IdMap::default(),
            deadline: DEADLINE,
            caching: Caching::default(),
            portal: String::new(),
        }
    }

    fn config(&self) -> Config {
        let mut config = Config::default();
        config.mount_options = vec![
            MountOption::FSName(self.source.clone()),
            // As a plain option, because fuser gives the kernel a subtype
            // only through fusermount3.
            MountOption::CUSTOM("subtype=warp".into()),
            if self.read_only { MountOption::RO } else { MountOption::RW },
            MountOption::NoSuid,
            MountOption::NoDev,
            MountOption::NoAtime,
            MountOption::DefaultPermissions,
        ];
        if self.no_exec {
            config.mount_options.push(MountOption::NoExec);
        }
        config.acl = if self.allow_other { SessionACL::All } else { SessionACL::Owner };
        config.n_threads = Some(THREADS);
        config.clone_fd = true;
        config
    }
}

/// A filesystem that is mounted, and usable.
pub struct Mount {
    run: Box<dyn FnOnce() -> io::Result<()> + Send>,
    directory: PathBuf,
    refused: Arc<AtomicU64>,
}

impl Mount {
    /// Mounts a volume.
    pub fn new<V: Volume>(volume: V, options: &MountOptions) -> Result<Self, MountError> {
        let directory = check(options)?;
        let failed = |source| MountError::Failed { path: directory.clone(), source };
        let owners = owners(&volume, options)
            .map_err(|e| failed(io::Error::other(e)))?
            .ok_or(MountError::Mapped)?;
        let shell = Shell::new(volume, owners, THREADS, options).map_err(failed)?;
        let (kernel, refused) = (shell.kernel(), shell.refused());
        let (config, as_root) = (options.config(), rustix::process::geteuid().is_root());
        let session = if as_root {
            let device = attach(&directory, options).map_err(failed)?;
            let own = device.try_clone().map_err(failed)?;
            let attached = Attached { directory: directory.clone(), device: own };
            let session = Session::from_fd(shell, device, config.acl, config).map_err(failed)?;
            (session, Some(attached))
        } else {
            let session = Session::new(shell, &directory, &config)
                .map_err(|source| classify(&directory, options, source))?;
            (session, None)
        };
        let _ = kernel.set(session.0.notifier());
        raise_read_ahead(&directory);
        // The mount is let go of behind the session.
        let run = move || {
            let (session, _attached) = session;
            session.run()
        };
        Ok(Self { run: Box::new(run), directory, refused })
    }

    /// Counts the writes, and the changes of attributes, that were answered
    /// with an error.
    pub fn refused(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.refused)
    }

    /// The mountpoint, absolute.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Answers requests until it is unmounted, by whomever.
    pub fn run(self) -> Result<(), MountError> {
        match (self.run)() {
            Ok(()) => Ok(()),
            // The connection was aborted: a forced unmount.
            Err(e) if e.kind() == io::ErrorKind::ConnectionAborted => Ok(()),
            Err(source) => Err(MountError::Failed { path: self.directory, source }),
        }
    }
}

/// Mounts what this descriptor of /dev/fuse will answer for. Only root may; the
/// library would do the same, and take away by name in the end whatever is
/// mounted there then.
fn attach(directory: &Path, options: &MountOptions) -> io::Result<OwnedFd> {
    let device: OwnedFd = fs::OpenOptions::new().read(true).write(true).open(DEVICE)?.into();
    let mut flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOATIME;
    flags.set(MountFlags::RDONLY, options.read_only);
    flags.set(MountFlags::NOEXEC, options.no_exec);
    let others = if options.allow_other { ",allow_other" } else { "" };
    let number = device.as_raw_fd();
    let data =
        format!("fd={number},rootmode=40000,user_id=0,group_id=0,default_permissions{others}");
    let data = CString::new(data)?;
    rustix::mount::mount(options.source.as_str(), directory, FS_TYPE, flags, data.as_c_str())?;
    Ok(device)
}

/// A mount of ours, which goes when this is dropped. One that the kernel has
/// ended is gone already: what is at its place now is another's.
struct Attached {
    directory: PathBuf,
    device: OwnedFd,
}

impl Attached {
    fn is_ended(&self) -> bool {
        let mut polled = [PollFd::new(&self.device, PollFlags::empty())];
        let now = rustix::event::Timespec::default();
        rustix::event::poll(&mut polled, Some(&now)).is_err()
            || polled[0].revents().contains(PollFlags::ERR)
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        if !self.is_ended() {
            // Somebody is in it: then it stays, and is dead.
            let _ = unmount(&self.directory, false);
        }
    }
}

/// Who is shown as the owner, to this user; `None` if that cannot be had.
fn owners(volume: &impl Volume, options: &MountOptions) -> warp_flow::Result<Option<Owners>> {
    let (me, group) = (rustix::process::geteuid(), rustix::process::getegid());
    let (users, groups) = (options.users, options.groups);
    let mapped = !users.is_empty() || !groups.is_empty();
    Ok(match (me.is_root(), mapped) {
        (true, false) => Some(Owners::Stored),
        (true, true) => Some(Owners::Mapped { users, groups }),
        (false, true) => None,
        (false, false) => {
            let (uid, gid) = (me.as_raw(), group.as_raw());
            let root = volume.attr(INodeNo::ROOT.0)?;
            let default = root.map_or((uid, gid), |root| (root.inode.uid, root.inode.gid));
            Some(Owners::Mounter { uid, gid, default })
        }
    })
}

/// Everything that can be said about the mountpoint before mounting on it.
fn check(options: &MountOptions) -> Result<PathBuf, MountError> {
    let path = &options.directory;
    let failed = |source| MountError::Failed { path: path.clone(), source };
    // A process that was killed leaves a mount that answers nothing.
    if is_ours(path) && is_dead(path) {
        unmount(&absolute(path), true).map_err(failed)?;
    }
    let meta = match fs::metadata(path) {
        Ok(meta) => meta,
        Err(e) => {
            return Err(match e.kind() {
                io::ErrorKind::NotFound => MountError::Missing(path.clone()),
                io::ErrorKind::NotADirectory => MountError::NotADirectory(path.clone()),
                _ => failed(e),
            });
        }
    };
    if !meta.is_dir() {
        return Err(MountError::NotADirectory(path.clone()));
    }
    let absolute = fs::canonicalize(path).map_err(failed)?;
    if let Some(there) = mounts().into_iter().find(|m| m.directory == absolute && m.is_ours()) {
        return Err(MountError::Busy { path: absolute, what: there.source });
    }
    let empty = fs::read_dir(&absolute).map_err(failed)?.next().is_none();
    if !empty && !options.nonempty {
        return Err(MountError::NotEmpty(absolute));
    }
    check_device()?;
    Ok(absolute)
}

/// Whether /dev/fuse is there and open to this user.
pub fn check_device() -> Result<(), MountError> {
    match fs::OpenOptions::new().read(true).write(true).open(DEVICE) {
        Ok(_) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Err(MountError::NoDevice),
        Err(e) => Err(MountError::DeviceClosed(e)),
    }
}

fn classify(path: &Path, options: &MountOptions, source: io::Error) -> MountError {
    let text = source.to_string();
    if options.allow_other && text.contains("user_allow_other") {
        MountError::AllowOther
    } else {
        MountError::Failed { path: path.into(), source }
    }
}

/// The kernel reads ahead 128 KiB over FUSE unless told otherwise; 1 MiB
/// turns a sequential read into an eighth of the requests. Only root may, and
/// nothing depends on it. The device number comes from the mount table: to
/// ask the mount itself, before it is served, would wait for ever.
fn raise_read_ahead(directory: &Path) {
    if let Some(mount) = mounts().into_iter().rev().find(|m| m.directory == directory) {
        let _ = fs::write(format!("/sys/class/bdi/{}/read_ahead_kb", mount.device), "1024");
    }
}

/// A line of the mount table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mounted {
    /// Where.
    pub directory: PathBuf,
    /// Device number, as `MAJOR:MINOR`.
    pub device: String,
    /// Type of the filesystem.
    pub fs_type: String,
    /// What is mounted.
    pub source: String,
}

impl Mounted {
    /// True if a `warp` process serves (or served) it.
    pub fn is_ours(&self) -> bool {
        self.fs_type == FS_TYPE
    }
}

fn is_ours(path: &Path) -> bool {
    let absolute = absolute(path);
    mounts().iter().any(|m| m.directory == absolute && m.is_ours())
}

/// True for a mount that no process serves. Attributes would not tell: the
/// kernel may still have them. One that does not answer within a second has a
/// process, be it a stopped one.
pub fn is_dead(directory: &Path) -> bool {
    use rustix::io::Errno;
    let (tell, told) = mpsc::channel();
    let directory = directory.to_owned();
    std::thread::spawn(move || tell.send(rustix::fs::statvfs(directory).err()));
    let error = told.recv_timeout(ANSWER_WITHIN).ok().flatten();
    matches!(error, Some(Errno::NOTCONN | Errno::CONNABORTED))
}

/// The path from the root, made without touching the last component, which
/// may be a mount that no longer answers.
pub fn absolute(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.into());
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => {
            fs::canonicalize(parent).unwrap_or_else(|_| parent.into()).join(name)
        }
        _ => path,
    }
}

/// What is mounted, in the order of the table.
pub fn mounts() -> Vec<Mounted> {
    let table = fs::read("/proc/self/mountinfo").unwrap_or_default();
    table.split(|b| *b == b'\n').filter_map(parse_mount).collect()
}

/// `ID PARENT DEV ROOT DIR OPTIONS [FIELDS…] - TYPE SOURCE OPTIONS`.
fn parse_mount(line: &[u8]) -> Option<Mounted> {
    let mut fields = line.split(|b| *b == b' ');
    let device = String::from_utf8_lossy(fields.nth(2)?).into_owned();
    let directory = unescape(fields.nth(1)?);
    fields.find(|field| *field == b"-")?;
    let fs_type = String::from_utf8_lossy(fields.next()?).into_owned();
    let source = String::from_utf8_lossy(&unescape(fields.next()?)).into_owned();
    Some(Mounted { directory: OsStr::from_bytes(&directory).into(), device, fs_type, source })
}

/// The table writes blanks and the like as a backslash and three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        let octal = match (first, tail) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..]) => {
                Some((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'))
            }
            _ => None,
        };
        out.push(octal.unwrap_or(*first));
        rest = if octal.is_some() { &tail[3..] } else { tail };
    }
    out
}

/// Unmounts a directory: as root directly, else through fusermount3. `lazy`
/// detaches it even while it is in use.
pub fn unmount(directory: &Path, lazy: bool) -> io::Result<()> {
    use rustix::mount::UnmountFlags;
    let mut flags = UnmountFlags::NOFOLLOW;
    flags.set(UnmountFlags::DETACH, lazy);
    match rustix::mount::unmount(directory, flags) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::PERM) => fusermount(directory, lazy),
        Err(e) => Err(e.into()),
    }
}

fn fusermount(directory: &Path, lazy: bool) -> io::Result<()> {
    let mut command = Command::new("fusermount3");
    command.arg("-u");
    if lazy {
        command.arg("-z");
    }
    let output = command
        .arg("--")
        .arg(directory)
        .output()
        .map_err(|e| io::Error::new(e.kind(), format!("fusermount3 (package fuse3): {e}")))?;
    if output.status.success() {
        return Ok(());
    }
    let text = std::ffi::OsString::from_vec(output.stderr).to_string_lossy().trim().to_owned();
    let busy = text.contains("busy");
    let kind = if busy { io::ErrorKind::ResourceBusy } else { io::ErrorKind::Other };
    Err(io::Error::new(kind, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_mount_table_is_read_with_its_escapes() {
        let line = br"36 35 98:0 / /mnt/a\040b\134c rw,noatime shared:1 - fuse.warp /x\012y rw";
        let found = parse_mount(line).unwrap();
        assert_eq!(found.directory, Path::new(r"/mnt/a b\c"));
        assert_eq!((found.device.as_str(), found.fs_type.as_str()), ("98:0", "fuse.warp"));
        assert_eq!(found.source, "/x\ny");
        assert_eq!(parse_mount(b"garbage"), None);
    }

    #[test]
    fn a_source_cannot_smuggle_in_options() {
        let options = MountOptions::new("/m".into(), "a,suid\nb\\c");
        assert_eq!(options.source, "a_suid_b_c");
    }
}
