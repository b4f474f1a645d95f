//! A device's home with one portal in it, for tests without a kernel.

use std::num::NonZeroU64;
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;
use warp_flow::home::Home;
use warp_flow::portal::{Portal, PortalVolume};
use warp_flow::portals::Portals;
use warp_format::{Keyring, Secret};

pub(crate) struct Place {
    dir: TempDir,
}

impl Place {
    /// With a portal that may take so many bytes on the disk.
    pub(crate) fn new(quota: Option<u64>) -> Self {
        let place = Self { dir: tempfile::tempdir().unwrap() };
        let quota = quota.and_then(NonZeroU64::new);
        place.portals().create("p", (1000, 1000), quota).unwrap();
        place
    }

    pub(crate) fn portals(&self) -> Portals {
        let keyring = Keyring::new(Secret::new([1; 32]), Secret::new([2; 32])).unwrap();
        Portals::new(&Home::at(self.dir.path().into()), &keyring).unwrap()
    }

    pub(crate) fn open(&self) -> (Arc<Portal>, PortalVolume) {
        let portal = self.portals().open("p").unwrap();
        let volume = portal.volume(Path::new("/")).unwrap();
        (portal, volume)
    }
}
