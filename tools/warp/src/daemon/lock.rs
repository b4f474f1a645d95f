//! Where the daemon listens, and who may be it.
//!
//! The lock, not the socket, says whether a daemon lives: the kernel takes
//! the lock from a process that dies, while its socket stays behind. Only who
//! holds the lock removes or binds the socket.
//! Tested below, and by `tests/tests/portal.rs`.

use rustix::fs::{FlockOperation, Mode, OFlags};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use warp_flow::home::{Home, make_private_dir};

const SOCKET: &str = "edge.sock";
const LOCK: &str = "edge.lock";

/// The directory with the socket and the lock.
pub(crate) struct RunDir {
    path: PathBuf,
    dir: OwnedFd,
}

/// The right to be the daemon, for as long as it is kept.
pub(crate) struct Lock {
    _file: File,
}

impl RunDir {
    /// Makes it if it is not there, and closes it to others.
    pub(crate) fn make(home: &Home) -> io::Result<Self> {
        make_private_dir(home.run())?;
        let run_dir = Self::open(home)?;
        let there = std::fs::metadata(home.run())?;
        if there.permissions().mode() & 0o077 != 0 {
            std::fs::set_permissions(home.run(), PermissionsExt::from_mode(0o700))?;
        }
        Ok(run_dir)
    }

    /// As it is; fails with `NotFound` if it is not there. Whoever owns the
    /// directory may listen in it, and is told passphrases: that must be this
    /// user or root.
    pub(crate) fn open(home: &Home) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(home.run(), flags, Mode::empty())?;
        let (me, owner) = (rustix::process::geteuid(), rustix::fs::fstat(&dir)?.st_uid);
        if !me.is_root() && owner != me.as_raw() && owner != 0 {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "the directory belongs to another user",
            ));
        }
        Ok(Self { path: home.run().to_path_buf(), dir })
    }

    /// The socket, for people.
    pub(crate) fn socket(home: &Home) -> PathBuf {
        home.run().join(SOCKET)
    }

    /// The socket, for the kernel: an address has room for 108 bytes, which a
    /// path to a home may exceed.
    pub(crate) fn address(&self) -> PathBuf {
        Path::new("/proc/self/fd").join(self.dir.as_raw_fd().to_string()).join(SOCKET)
    }

    /// Takes the lock; `None` while another process has it.
    pub(crate) fn lock(&self) -> io::Result<Option<Lock>> {
        let path = self.path.join(LOCK);
        let file = {
            use std::os::unix::fs::OpenOptionsExt;
            let mut options = File::options();
            options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&path)?
        };
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            Err(e) => return Err(e.into()),
        }
        // Of a file that was removed meanwhile, a lock excludes nobody.
        let (mine, there) = (file.metadata()?, std::fs::metadata(&path));
        let same = there.is_ok_and(|there| (there.dev(), there.ino()) == (mine.dev(), mine.ino()));
        Ok(same.then_some(Lock { _file: file }))
    }

    /// Listens, in place of whoever listened before and died.
    pub(crate) fn listen(&self, lock: &Lock) -> io::Result<UnixListener> {
        self.remove_socket(lock)?;
        let listener = UnixListener::bind(self.address())?;
        std::fs::set_permissions(self.address(), PermissionsExt::from_mode(0o600))?;
        Ok(listener)
    }

    /// Takes the socket away.
    pub(crate) fn remove_socket(&self, _: &Lock) -> io::Result<()> {
        match std::fs::remove_file(self.path.join(SOCKET)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    /// True if somebody listens.
    pub(crate) fn is_served(&self) -> bool {
        UnixStream::connect(self.address()).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_dir(at: &Path) -> RunDir {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        RunDir { path: at.into(), dir: rustix::fs::open(at, flags, Mode::empty()).unwrap() }
    }

    #[test]
    fn one_has_the_lock_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (run_dir(dir.path()), run_dir(dir.path()));
        let lock = a.lock().unwrap().unwrap();
        assert!(b.lock().unwrap().is_none());
        drop(lock);
        assert!(b.lock().unwrap().is_some());
    }

    #[test]
    fn a_lock_on_a_removed_file_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let place = run_dir(dir.path());
        let old = place.lock().unwrap().unwrap();
        std::fs::remove_file(dir.path().join(LOCK)).unwrap();
        let new = place.lock().unwrap();
        assert!(new.is_some());
        assert!(place.lock().unwrap().is_none());
        drop(old);
        assert!(place.lock().unwrap().is_none());
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_long_path_works() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("d".repeat(120)).join("e".repeat(120));
        std::fs::create_dir_all(&deep).unwrap();
        let place = run_dir(&deep);
        let lock = place.lock().unwrap().unwrap();
        let first = place.listen(&lock).unwrap();
        assert!(place.is_served());
        drop(first);
        assert!(deep.join(SOCKET).exists());
        assert!(!place.is_served());
        let _second = place.listen(&lock).unwrap();
        assert!(place.is_served());
        let mode = std::fs::metadata(deep.join(SOCKET)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        place.remove_socket(&lock).unwrap();
        place.remove_socket(&lock).unwrap();
        assert!(!place.is_served());
    }
}
