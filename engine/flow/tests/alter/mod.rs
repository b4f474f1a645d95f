//! Changes of who is a member, as the device that makes them wants them.

use std::sync::atomic::{AtomicU8, Ordering};
use warp_flow::Result;
use warp_flow::portals::Portals;
use warp_format::keys::SigningKey;
use warp_format::members::Capability;
use warp_format::wire::Change;
use warp_format::{DeviceId, Secret};

pub(crate) trait Alter {
    /// Gives the seed of the invite's key.
    fn invite(
        &self,
        name: &str,
        device: &str,
        capability: Capability,
        expires: u64,
        uses: u32,
    ) -> Result<Secret>;
    fn expire_member(&self, name: &str, device: &DeviceId, at: Option<u64>) -> Result<()>;
    fn remove_member(&self, name: &str, device: &DeviceId) -> Result<()>;
}

impl Alter for Portals {
    fn invite(
        &self,
        name: &str,
        device: &str,
        capability: Capability,
        expires: u64,
        uses: u32,
    ) -> Result<Secret> {
        static NEXT: AtomicU8 = AtomicU8::new(100);
        self.found(name, device)?;
        let seed = Secret::new([NEXT.fetch_add(1, Ordering::Relaxed); 32]);
        let key = SigningKey::from_seed(&seed).device_id();
        let change = Change::Invite { key, capability, may_invite: false, expires, uses };
        self.alter(name, &self.me(), change).map(|_| seed)
    }

    fn expire_member(&self, name: &str, device: &DeviceId, at: Option<u64>) -> Result<()> {
        self.alter(name, &self.me(), Change::Expire { device: *device, at }).map(drop)
    }

    fn remove_member(&self, name: &str, device: &DeviceId) -> Result<()> {
        self.alter(name, &self.me(), Change::Remove { device: *device }).map(drop)
    }
}
