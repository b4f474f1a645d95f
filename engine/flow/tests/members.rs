//! Who belongs to a portal, on two devices and without a network.

mod alter;

use alter::Alter as _;
use std::fs;
use std::path::Path;
use tempfile::TempDir;
use warp_flow::home::{Home, random_secret};
use warp_flow::members::{NotJoined, now_secs};
use warp_flow::portals::Portals;
use warp_flow::volume::{NewInode, Volume};
use warp_flow::{FlowError, Kind};
use warp_format::keys::SigningKey;
use warp_format::members::{Capability, Chain, NotGood};
use warp_format::record::Body;
use warp_format::wire::Change;
use warp_format::{DeviceId, FormatError, Keyring, Secret};

/// A device: its directory, its keys, and its portals.
struct Device {
    dir: TempDir,
    keyring: Keyring,
    portals: Portals,
}

impl Device {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let keyring = Keyring::new(random_secret().unwrap(), random_secret().unwrap()).unwrap();
        let portals = Portals::new(&Home::at(dir.path().into()), &keyring).unwrap();
        Self { dir, keyring, portals }
    }

    fn id(&self) -> DeviceId {
        self.keyring.device_key().device_id()
    }

    /// Forgets all that is in memory.
    fn restart(&mut self) {
        self.portals = Portals::new(&Home::at(self.dir.path().into()), &self.keyring).unwrap();
    }

    fn invite(&self, uses: u32) -> DeviceId {
        self.invite_until(now_secs() + 3600, uses)
    }

    fn invite_until(&self, expires: u64, uses: u32) -> DeviceId {
        let seed: Secret =
            self.portals.invite("p", "desk", Capability::Reader, expires, uses).unwrap();
        SigningKey::from_seed(&seed).device_id()
    }

    /// What the founder answers when this device redeems an invite.
    fn redeems(&self, founder: &Self, invite: &DeviceId) -> Result<Chain, NotJoined> {
        let who = (self.id(), self.portals.wrap_key());
        founder.portals.redeem("p", invite, who, "phone")
    }
}

/// A device with a portal `p`, and one without.
fn two() -> (Device, Device) {
    let (founder, other) = (Device::new(), Device::new());
    founder.portals.create("p", (0, 0), None).unwrap();
    (founder, other)
}

fn not_good(result: Result<Chain, NotJoined>) -> NotGood {
    match result {
        Err(NotJoined::NotGood(why)) => why,
        other => panic!("{:?}", other.map(|chain| chain.len())),
    }
}

#[test]
fn an_invite_is_redeemed_as_often_as_it_says_also_after_a_restart() {
    let (mut founder, first) = two();
    assert!(!founder.portals.is_shared("p").unwrap());
    let invite = founder.invite(2);
    assert!(founder.portals.is_shared("p").unwrap() && !founder.portals.is_joined("p").unwrap());
    let chain = first.redeems(&founder, &invite).unwrap();
    founder.restart();
    // It may not have heard the first time: that is no second use.
    assert_eq!(first.redeems(&founder, &invite).unwrap(), chain);
    Device::new().redeems(&founder, &invite).unwrap();
    founder.restart();
    assert_eq!(not_good(Device::new().redeems(&founder, &invite)), NotGood::Used);
    assert_eq!(not_good(first.redeems(&founder, &DeviceId([7; 32]))), NotGood::Unknown);
    // Both are told by names of their own.
    let chain = founder.portals.chain("p").unwrap();
    let mut names: Vec<_> = chain.members().map(|member| member.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["desk", "phone", "phone-2"]);
}

#[test]
fn of_two_who_redeem_one_use_at_once_one_wins() {
    let (founder, _) = two();
    for _ in 0..8 {
        let invite = founder.invite(1);
        let others = [Device::new(), Device::new()];
        let won = std::thread::scope(|scope| {
            let tries = others
                .each_ref()
                .map(|other| scope.spawn(|| other.redeems(&founder, &invite).is_ok()));
            tries.map(|tried| tried.join().unwrap())
        });
        assert_eq!(won.iter().filter(|won| **won).count(), 1, "{won:?}");
    }
}

#[test]
fn a_ticket_ends_by_its_time_and_by_its_founder() {
    let (founder, other) = two();
    let late = founder.invite_until(now_secs() - 3600, 1);
    assert_eq!(not_good(other.redeems(&founder, &late)), NotGood::Expired);
    let open = founder.invite(5);
    let close = || founder.portals.alter("p", &founder.id(), Change::CloseInvites);
    assert_eq!(close().unwrap(), 1);
    assert_eq!(close().unwrap(), 0);
    assert_eq!(not_good(other.redeems(&founder, &open)), NotGood::Closed);
}

#[test]
fn a_portal_is_joined_once_and_under_a_free_name() {
    let (founder, other) = two();
    other.portals.create("p", (0, 0), None).unwrap();
    let chain = other.redeems(&founder, &founder.invite(1)).unwrap();
    let bytes = chain.bytes_from(0);
    let entry = other.portals.join(bytes, None).unwrap();
    assert_eq!((entry.name.as_str(), entry.id), ("p-2", chain.portal()));
    assert!(other.portals.is_joined("p-2").unwrap() && !other.portals.is_joined("p").unwrap());
    assert_eq!(other.portals.chain("p-2").unwrap(), chain);
    let again = other.portals.join(bytes, Some("q")).err().unwrap();
    assert!(matches!(&again, FlowError::JoinedAlready { name } if name == "p-2"), "{again}");
    // Who reads it writes neither it nor its members.
    assert!(matches!(other.portals.open("p-2").err(), Some(FlowError::NotWriter)));
    let refused = other.portals.invite("p-2", "x", Capability::Reader, u64::MAX, 1).err().unwrap();
    assert_eq!(refused.kind(), Kind::Refused, "{refused}");
    // Who is no member joins nothing.
    let stranger = Device::new();
    assert!(matches!(stranger.portals.join(bytes, None).err(), Some(FlowError::NotMember)));
    assert!(stranger.portals.list().unwrap().is_empty());
}

#[test]
fn a_member_ends_and_may_come_anew() {
    let (founder, other) = two();
    let invite = founder.invite(3);
    let chain = other.redeems(&founder, &invite).unwrap();
    other.portals.join(chain.bytes_from(0), None).unwrap();
    let (device, name) = founder.portals.find_member("p", "phone").unwrap();
    assert_eq!((device, name.as_str()), (other.id(), "phone"));
    let short: String = format!("{device:#}").chars().take(10).collect();
    assert_eq!(founder.portals.find_member("p", &short).unwrap().0, device);
    assert!(founder.portals.find_member("p", "phnoe").is_err());
    founder.portals.expire_member("p", &device, Some(now_secs() - 3600)).unwrap();
    assert!(!founder.portals.chain("p").unwrap().admits(&device, now_secs()));
    let chain = other.redeems(&founder, &invite).unwrap();
    assert!(chain.admits(&device, now_secs()));
    founder.portals.remove_member("p", &device).unwrap();
    assert!(!founder.portals.chain("p").unwrap().admits(&device, now_secs()));
    // The founder stays.
    assert!(founder.portals.remove_member("p", &founder.id()).is_err());
}

#[test]
fn a_chain_that_is_told_grows_what_is_here_and_never_shortens_it() {
    let (founder, mut other) = two();
    let chain = other.redeems(&founder, &founder.invite(1)).unwrap();
    other.portals.join(chain.bytes_from(0), None).unwrap();
    founder.invite(1);
    let longer = founder.portals.chain("p").unwrap();
    let told = longer.bytes_from(chain.len());
    assert_eq!(other.portals.update_members("p", told).unwrap(), Some(longer.clone()));
    other.restart();
    assert_eq!(other.portals.chain("p").unwrap(), longer);
    assert_eq!(other.portals.update_members("p", chain.bytes_from(0)).unwrap(), None);
    assert_eq!(other.portals.chain("p").unwrap(), longer);
    // Another history of the same portal.
    let stranger = Device::new();
    stranger.portals.create("p", (0, 0), None).unwrap();
    stranger.invite(1);
    let forged = stranger.portals.chain("p").unwrap();
    let refused = other.portals.update_members("p", forged.bytes_from(0)).err().unwrap();
    assert!(matches!(refused, FlowError::Corrupt(FormatError::Forked { .. })), "{refused}");
}

#[test]
fn a_damaged_chain_names_its_file_and_hides_no_portal() {
    let (founder, _) = two();
    founder.portals.create("q", (0, 0), None).unwrap();
    founder.invite(1);
    let file = founder.portals.find("p").unwrap().directory.join("members");
    let mut bytes = fs::read(&file).unwrap();
    bytes[60] ^= 1;
    fs::write(&file, bytes).unwrap();
    let damaged = founder.portals.chain("p").err().unwrap();
    assert_eq!(damaged.kind(), Kind::Integrity);
    assert!(damaged.to_string().contains("members"), "{damaged}");
    assert_eq!(founder.portals.list().unwrap().len(), 2);
    assert!(founder.portals.open("q").is_ok());
}

#[test]
fn who_has_recovered_a_key_still_writes_what_was_written_here() {
    let (founder, other) = two();
    other.redeems(&founder, &founder.invite(1)).unwrap();
    founder.portals.remove_member("p", &other.id()).unwrap();
    // Sealed in an epoch whose secret only devices were handed.
    {
        let portal = founder.portals.open("p").unwrap();
        let volume = portal.volume(Path::new("/")).unwrap();
        let (uid, gid, umask, body) = (0, 0, 0, Body::Extents(0));
        let new = NewInode { permissions: 0o644, umask, uid, gid, body };
        let ino = volume.make(1, b"f", new).unwrap().ino;
        volume.write(ino, 0, vec![7; 100_000], false).unwrap();
        portal.close().unwrap();
    }
    let entropy = founder.keyring.phrase().unwrap().entropy().unwrap();
    let recovered = Keyring::new(entropy, random_secret().unwrap()).unwrap();
    assert_ne!(recovered.device_key().device_id(), founder.id());
    let portals = Portals::new(&Home::at(founder.dir.path().into()), &recovered).unwrap();
    assert!(!portals.is_joined("p").unwrap());
    let portal = portals.open("p").unwrap();
    let volume = portal.volume(Path::new("/")).unwrap();
    let ino = volume.lookup(1, b"f").unwrap().unwrap().ino;
    assert_eq!(volume.read(ino, 0, 100_000).unwrap(), [7; 100_000]);
    drop(volume);
    portal.close().unwrap();
    // Who is a member, the lost key alone could say.
    assert!(portals.alter("p", &portals.me(), Change::CloseInvites).is_err());
}
