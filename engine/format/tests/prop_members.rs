//! The membership chain against a model that knows nothing of bytes: random
//! acts by random signers, most of whom may not.

use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::BTreeMap;
use warp_format::keys::SigningKey;
use warp_format::limits::EXPIRY_TOLERANCE_SECS;
use warp_format::members::{Act, Capability, Chain};
use warp_format::{DeviceId, FormatError, PortalId, Secret};

const DEVICES: u8 = 5;
const INVITES: u8 = 4;
const CAPABILITIES: [Capability; 4] =
    [Capability::Custodian, Capability::Reader, Capability::Writer, Capability::Admin];

/// Devices are 0 to `DEVICES - 1`, of which 0 is the founder; the keys of
/// invites come after them.
fn key(n: u8) -> SigningKey {
    SigningKey::from_seed(&Secret::new([n + 1; 32]))
}

fn id(n: u8) -> DeviceId {
    key(n).device_id()
}

fn founded() -> Chain {
    Chain::found(&key(0), PortalId([9; 32]), "photos", "desk", [7; 32], 0).unwrap()
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Invite { invite: u8, capability: Capability, may_invite: bool, expires: u64, uses: u32 },
    Add { device: u8, invite: u8 },
    Remove { device: u8, last: u64 },
    Expire { device: u8, at: Option<u64> },
    Close,
}

impl Step {
    fn act(self) -> Act {
        match self {
            Self::Invite { invite, capability, may_invite, expires, uses } => {
                Act::Invite { key: id(DEVICES + invite), capability, may_invite, expires, uses }
            }
            Self::Add { device, invite } => Act::Add {
                device: id(device),
                wrap_key: [device; 32],
                name: format!("device-{device}"),
                invite: id(DEVICES + invite),
                handed: vec![device; 20],
            },
            Self::Remove { device, last } => Act::Remove { device: id(device), last },
            Self::Expire { device, at } => Act::Expire { device: id(device), at },
            Self::Close => Act::CloseInvites,
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    let capability = (0..CAPABILITIES.len()).prop_map(|n| CAPABILITIES[n]);
    let invite = (0..INVITES, capability, any::<bool>(), 0..3000u64, 0..3u32).prop_map(
        |(invite, capability, may_invite, expires, uses)| Step::Invite {
            invite,
            capability,
            may_invite,
            expires,
            uses,
        },
    );
    prop_oneof![
        3 => invite,
        5 => (0..DEVICES, 0..INVITES).prop_map(|(device, invite)| Step::Add { device, invite }),
        2 => (0..DEVICES, 0..9u64).prop_map(|(device, last)| Step::Remove { device, last }),
        1 => (0..DEVICES, proptest::option::of(0..3000u64))
            .prop_map(|(device, at)| Step::Expire { device, at }),
        1 => Just(Step::Close),
    ]
}

/// Who signs (the founder more often than others, else little happens), when
/// as they say, and what.
fn history() -> impl Strategy<Value = Vec<(u8, u64, Step)>> {
    let signer = prop_oneof![2 => Just(0), 1 => 0..DEVICES];
    vec((signer, 0..3000u64, step()), 0..30)
}

#[derive(Debug, Clone, Copy)]
struct Right {
    capability: Capability,
    may_invite: bool,
}

impl Right {
    /// An admin gives everything; another who may invite, what they may do
    /// themselves, and not to pass it on.
    fn may_give(self, given: Self) -> bool {
        self.capability == Capability::Admin
            || (self.may_invite && given.capability <= self.capability && !given.may_invite)
    }
}

#[derive(Debug, Clone, Copy)]
struct Known {
    right: Right,
    expires: Option<u64>,
    removed: Option<u64>,
}

#[derive(Debug, Clone, Copy)]
struct Invited {
    right: Right,
    expires: u64,
    uses: u32,
    used: u32,
    closed: bool,
}

#[derive(Debug, Clone)]
struct Model {
    devices: BTreeMap<u8, Known>,
    invites: BTreeMap<u8, Invited>,
}

impl Model {
    fn new() -> Self {
        let right = Right { capability: Capability::Admin, may_invite: true };
        let founder = Known { right, expires: None, removed: None };
        Self { devices: BTreeMap::from([(0, founder)]), invites: BTreeMap::new() }
    }

    fn member(&self, device: u8) -> Option<Known> {
        self.devices.get(&device).copied().filter(|known| known.removed.is_none())
    }

    /// Does it, if the signer may; says whether.
    fn step(&mut self, signer: u8, time: u64, step: Step) -> bool {
        let Some(by) = self.member(signer) else { return false };
        let ends = |device| by.right.capability == Capability::Admin && device != 0;
        match step {
            Step::Invite { invite, capability, may_invite, expires, uses } => {
                let right = Right { capability, may_invite };
                if !by.right.may_give(right) || uses == 0 || self.invites.contains_key(&invite) {
                    return false;
                }
                let invited = Invited { right, expires, uses, used: 0, closed: false };
                self.invites.insert(invite, invited);
            }
            Step::Add { device, invite } => {
                let is_member = self.member(device).is_some();
                let Some(invited) = self.invites.get_mut(&invite) else { return false };
                let is_good = !invited.closed
                    && invited.used < invited.uses
                    && time < invited.expires + EXPIRY_TOLERANCE_SECS;
                if !is_good || is_member || !by.right.may_give(invited.right) {
                    return false;
                }
                invited.used += 1;
                let known = Known { right: invited.right, expires: None, removed: None };
                self.devices.insert(device, known);
            }
            Step::Remove { device, last } => {
                if !ends(device) || self.member(device).is_none() {
                    return false;
                }
                self.devices.get_mut(&device).unwrap().removed = Some(last);
            }
            Step::Expire { device, at } => {
                if !ends(device) || self.member(device).is_none() {
                    return false;
                }
                self.devices.get_mut(&device).unwrap().expires = at;
            }
            Step::Close => {
                if by.right.capability != Capability::Admin {
                    return false;
                }
                self.invites.values_mut().for_each(|invite| invite.closed = true);
            }
        }
        true
    }

    fn compare(&self, chain: &Chain) {
        for device in 0..DEVICES {
            let known = self.devices.get(&device);
            let member = chain.member(&id(device));
            assert_eq!(member.is_some(), known.is_some(), "device {device}");
            let (Some(member), Some(known)) = (member, known) else {
                assert!(!chain.admits(&id(device), 0) && !chain.may_publish(&id(device), 0));
                continue;
            };
            assert_eq!(member.capability, known.right.capability, "device {device}");
            assert_eq!(member.may_invite, known.right.may_invite, "device {device}");
            for now in [0, 299, 300, 1500, 3299, 3300, u64::MAX] {
                let is_over =
                    known.expires.is_some_and(|at| now >= at.saturating_add(EXPIRY_TOLERANCE_SECS));
                let admitted = known.removed.is_none() && !is_over;
                assert_eq!(chain.admits(&id(device), now), admitted, "device {device} at {now}");
            }
            for sequence in [0, 4, 8, 9, u64::MAX] {
                let counts = known.right.capability >= Capability::Writer
                    && known.removed.is_none_or(|last| sequence <= last);
                assert_eq!(chain.may_publish(&id(device), sequence), counts, "{device} {sequence}");
            }
        }
        for now in [0, 1500, 3299] {
            let open = self.invites.values().filter(|invite| {
                let in_time = now < invite.expires + EXPIRY_TOLERANCE_SECS;
                in_time && !invite.closed && invite.used < invite.uses
            });
            assert_eq!(chain.open_invites(now), open.count(), "open at {now}");
        }
    }
}

/// Does a history to a chain and to a model, which must agree after each step.
fn run(history: &[(u8, u64, Step)]) -> Chain {
    let (mut chain, mut model) = (founded(), Model::new());
    for &(signer, time, step) in history {
        let before = chain.clone();
        let done = chain.append(&key(signer), time, step.act());
        let may = model.step(signer, time, step);
        assert_eq!(done.is_ok(), may, "{signer} at {time}: {step:?}: {done:?}");
        if may {
            assert_eq!(chain.len(), before.len() + 1);
        } else {
            assert_eq!(chain, before, "changed, though refused");
        }
        model.compare(&chain);
    }
    chain
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Rights, uses, removals and expiries are what a plain model says after
    /// every act, whoever tries it; and the bytes say the same.
    #[test]
    fn a_chain_does_what_the_model_does(history in history()) {
        let chain = run(&history);
        prop_assert_eq!(Chain::open(chain.bytes_from(0)), Ok(chain));
    }

    /// Whatever happens: a device was never added more often than invites said.
    #[test]
    fn no_more_are_added_than_were_invited(history in history()) {
        let chain = run(&history);
        let mut chain_so_far = founded();
        let (mut invited, mut added) = (0, 0);
        for position in 1..chain.len() {
            let all = chain.bytes_from(position);
            let record = &all[..all.len() - chain.bytes_from(position + 1).len()];
            let known: Vec<_> = chain_so_far.members().map(|member| member.device).collect();
            chain_so_far = chain_so_far.extended(record).unwrap().unwrap();
            added += chain_so_far.members().filter(|m| !known.contains(&m.device)).count();
        }
        let mut model = Model::new();
        for (signer, time, step) in history {
            if let (true, Step::Invite { uses, .. }) = (model.step(signer, time, step), step) {
                invited += uses as usize;
            }
        }
        prop_assert!(added <= invited, "{} of {}", added, invited);
        prop_assert_eq!(chain_so_far, chain);
    }

    /// A byte that is changed, anywhere and in any way, is noticed.
    #[test]
    fn no_changed_byte_opens(history in history(), at in any::<prop::sample::Index>(), by in 1..=255u8) {
        let chain = run(&history);
        let mut bytes = chain.bytes_from(0).to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= by;
        prop_assert!(Chain::open(&bytes).is_err(), "byte {at}");
        // Nor is it taken by who knows the beginning.
        prop_assert!(founded().extended(&bytes).is_err() || at < founded().bytes_from(0).len());
    }

    /// A longer chain is taken from wherever it begins, a shorter one is no
    /// news, and a gap is an error.
    #[test]
    fn a_chain_takes_what_begins_with_it(
        history in history(),
        short in any::<prop::sample::Index>(),
        from in any::<prop::sample::Index>(),
    ) {
        let long = run(&history);
        let cut = short.index(long.len() as usize) as u64 + 1;
        let len = long.bytes_from(0).len() - long.bytes_from(cut).len();
        let short = Chain::open(&long.bytes_from(0)[..len]).unwrap();
        prop_assert_eq!(short.len(), cut);
        let from = from.index(long.len() as usize) as u64;
        let taken = short.extended(long.bytes_from(from));
        if from > cut {
            prop_assert!(taken.is_err(), "a gap");
        } else if cut == long.len() {
            prop_assert_eq!(taken, Ok(None));
        } else {
            prop_assert_eq!(taken, Ok(Some(long.clone())));
        }
        prop_assert_eq!(long.extended(short.bytes_from(0)), Ok(None));
    }

    /// Of two records at one position the second is refused, whatever follows.
    #[test]
    fn of_two_records_at_one_place_the_first_stays(
        before in history(), one in history(), other in history(),
    ) {
        let common = run(&before);
        let grown = |history: &[(u8, u64, Step)]| {
            let mut chain = common.clone();
            for &(signer, time, step) in history {
                let _ = chain.append(&key(signer), time, step.act());
            }
            chain
        };
        let (one, other) = (grown(&one), grown(&other));
        let at = common.len();
        let is_same = one.bytes_from(0).starts_with(other.bytes_from(0))
            || other.bytes_from(0).starts_with(one.bytes_from(0));
        for from in [0, at] {
            if other.len() == at && from == at {
                continue;
            }
            match one.extended(other.bytes_from(from)) {
                Err(FormatError::Forked { .. }) => prop_assert!(!is_same),
                taken => {
                    prop_assert!(is_same);
                    let longer = (other.len() > one.len()).then(|| other.clone());
                    prop_assert_eq!(taken, Ok(longer));
                }
            }
        }
    }
}
