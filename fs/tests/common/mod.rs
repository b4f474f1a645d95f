//! A portal on a disk that can be stalled and stopped, really mounted, and
//! served by the test itself.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use tempfile::TempDir;
use warp_cache::testing::StallingDisk;
use warp_flow::home::Home;
use warp_flow::portal::Portal;
use warp_flow::portals::Portals;
use warp_format::{Keyring, Secret};
use warp_fs::{Mount, MountError, MountOptions, unmount};

/// The device that a portal is on.
pub(crate) struct Place {
    home: TempDir,
}

impl Place {
    /// With one portal, which belongs to root.
    pub(crate) fn new() -> Self {
        let place = Self { home: tempfile::tempdir().unwrap() };
        place.portals().create("p", (0, 0), None).unwrap();
        place
    }

    fn portals(&self) -> Portals {
        let keyring = Keyring::new(Secret::new([1; 32]), Secret::new([2; 32])).unwrap();
        Portals::new(&Home::at(self.home.path().into()), &keyring).unwrap()
    }

    /// Opens the portal and mounts it; `set` says how.
    pub(crate) fn mount(&self, set: impl FnOnce(&mut MountOptions)) -> Served {
        let mut disk = None;
        let over = |under| {
            let stalling = StallingDisk::new(under);
            disk = Some(stalling.clone());
            Arc::new(stalling) as Arc<_>
        };
        let portal = self.portals().open_over("p", over).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let mut options = MountOptions::new(dir.path().into(), "p");
        options.read_only = false;
        set(&mut options);
        let mount = Mount::new(portal.volume(Path::new("/")).unwrap(), &options).unwrap();
        let server = Some(std::thread::spawn(move || mount.run()));
        Served { disk: disk.unwrap(), portal, dir, server }
    }
}

/// A portal that is mounted. It is unmounted when dropped, whatever the test
/// came to.
pub(crate) struct Served {
    pub(crate) disk: StallingDisk,
    pub(crate) portal: Arc<Portal>,
    dir: TempDir,
    server: Option<JoinHandle<Result<(), MountError>>>,
}

impl Served {
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Unmounts, in order, and closes the portal, published.
    pub(crate) fn close(mut self) {
        self.unmount();
        self.portal.close().unwrap();
    }

    /// What a kill of the process leaves: what had reached the disk, and no
    /// more. What the kernel holds goes with the mount.
    pub(crate) fn kill(mut self) {
        self.disk.kill();
        self.unmount();
        // It cannot be saved; the lock goes with it.
        let _ = self.portal.close_unpublished();
    }

    fn unmount(&mut self) {
        unmount(self.dir.path(), true).unwrap();
        self.server.take().unwrap().join().unwrap().unwrap();
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if self.server.is_some() {
            self.disk.resume();
            // Lazily: nothing waits for it, and the process may end.
            let _ = unmount(self.dir.path(), true);
        }
    }
}
