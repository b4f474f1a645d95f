//! Ranges of a portal's files against plain bytes in memory: written, cleared,
//! allocated and cloned, across publishes, sweeps, restarts and unlinked files.

use proptest::prelude::*;
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;
use warp_flow::home::Home;
use warp_flow::portal::{Portal, PortalVolume};
use warp_flow::portals::Portals;
use warp_flow::volume::{Allocate, NewInode, SetAttr, Volume};
use warp_flow::{FlowError, Refusal};
use warp_format::record::Body;
use warp_format::{Keyring, Secret};

const ROOT: u64 = 1;
/// Files; the last has no name.
const FILES: usize = 3;
const NAMES: [&[u8]; FILES] = [b"one", b"two", b"no name"];

#[derive(Debug, Clone)]
enum Act {
    Write(usize, u64, usize),
    Truncate(usize, u64),
    Allocate(usize, u64, u64, Allocate),
    Copy(usize, u64, usize, u64, u64),
    Publish,
    Sweep,
    /// Opens it anew. With `true` as after a crash: nothing published first.
    Reopen(bool),
}

fn act() -> impl Strategy<Value = Act> {
    let which = 0..FILES;
    // Inline, grouped and cut files.
    let offset = prop_oneof![0u64..600, 0u64..70_000, 0u64..400_000];
    let how = prop_oneof![
        any::<bool>().prop_map(|keep_size| Allocate::Reserve { keep_size }),
        Just(Allocate::Punch),
        any::<bool>().prop_map(|keep_size| Allocate::Zero { keep_size }),
    ];
    let write = (which.clone(), offset.clone(), 1usize..90_000);
    let range = (which.clone(), offset.clone(), offset.clone(), how);
    let copy = (which.clone(), offset.clone(), which.clone(), offset.clone(), offset.clone());
    prop_oneof![
        4 => write.prop_map(|(file, at, len)| Act::Write(file, at, len)),
        2 => (which, offset).prop_map(|(file, len)| Act::Truncate(file, len)),
        3 => range.prop_map(|(file, at, len, how)| Act::Allocate(file, at, len, how)),
        5 => copy.prop_map(|(from, a, to, b, len)| Act::Copy(from, a, to, b, len)),
        3 => Just(Act::Publish),
        1 => Just(Act::Sweep),
        1 => any::<bool>().prop_map(Act::Reopen),
    ]
}

fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self { dir: tempfile::tempdir().unwrap() };
        place.portals().create("p", (1000, 1000), None).unwrap();
        place
    }

    fn portals(&self) -> Portals {
        let keyring = Keyring::new(Secret::new([1; 32]), Secret::new([2; 32])).unwrap();
        Portals::new(&Home::at(self.dir.path().into()), &keyring).unwrap()
    }

    fn open(&self) -> World {
        let portal = self.portals().open("p").unwrap();
        let volume = portal.volume(Path::new("/")).unwrap();
        let inos = NAMES.map(|name| match volume.lookup(ROOT, name).unwrap() {
            Some(found) => found.ino,
            None => {
                let body = Body::Extents(0);
                let new = NewInode { permissions: 0o644, umask: 0, uid: 1, gid: 1, body };
                volume.make(ROOT, name, new).unwrap().ino
            }
        });
        volume.unlink(ROOT, NAMES[FILES - 1], false).unwrap();
        World { portal, volume, inos }
    }
}

struct World {
    portal: Arc<Portal>,
    volume: PortalVolume,
    inos: [u64; FILES],
}

impl World {
    /// A copy, by as many calls as it takes, as the kernel's callers do.
    fn copy(&self, from: (usize, u64), to: (usize, u64), len: u64) -> Result<u64, FlowError> {
        // A file that is copied behind its own end grows meanwhile.
        let size = self.volume.attr(self.inos[from.0])?.map_or(0, |attr| attr.inode.size);
        let (len, mut done) = (len.min(size.saturating_sub(from.1)), 0);
        while done < len {
            let source = (self.inos[from.0], from.1 + done);
            let target = (self.inos[to.0], to.1 + done);
            match self.volume.copy(source, target, len - done)? {
                0 => break,
                more => done += more,
            }
        }
        Ok(done)
    }

    fn compare(&self, want: &[Vec<u8>]) -> Result<(), TestCaseError> {
        for (ino, want) in self.inos.iter().zip(want) {
            let size = self.volume.attr(*ino).unwrap().unwrap().inode.size;
            prop_assert_eq!(size, want.len() as u64);
            let found = self.volume.read(*ino, 0, want.len() + 1).unwrap();
            let differs = found.iter().zip(want).position(|(a, b)| a != b);
            prop_assert!(found == *want, "differs at {:?}", differs);
        }
        Ok(())
    }
}

fn clear(bytes: &mut [u8], from: u64, to: u64) {
    let end = bytes.len() as u64;
    bytes[from.min(end) as usize..to.min(end) as usize].fill(0);
}

/// The same act on plain bytes.
fn model(want: &mut [Vec<u8>], act: &Act, seed: u64) {
    let grow = |bytes: &mut Vec<u8>, len: u64| bytes.resize(bytes.len().max(len as usize), 0);
    match *act {
        Act::Write(file, at, len) => {
            grow(&mut want[file], at + len as u64);
            want[file][at as usize..][..len].copy_from_slice(&noise(len, seed));
        }
        Act::Truncate(file, len) => want[file].resize(len as usize, 0),
        Act::Allocate(file, at, len, how) => {
            match how {
                Allocate::Reserve { .. } => {}
                _ => clear(&mut want[file], at, at + len),
            }
            if let Allocate::Reserve { keep_size: false } | Allocate::Zero { keep_size: false } =
                how
            {
                grow(&mut want[file], at + len);
            }
        }
        Act::Copy(from, start, to, target, len) => {
            let source = &want[from];
            let end = (start + len).min(source.len() as u64);
            let bytes = source.get(start as usize..end as usize).unwrap_or_default().to_vec();
            if !bytes.is_empty() {
                grow(&mut want[to], target + bytes.len() as u64);
                want[to][target as usize..][..bytes.len()].copy_from_slice(&bytes);
            }
        }
        Act::Publish | Act::Sweep => {}
        Act::Reopen(_) => want[FILES - 1].clear(),
    }
}

/// True if source and target have bytes in common, which is refused.
fn overlaps(want: &[Vec<u8>], act: &Act) -> bool {
    let Act::Copy(from, start, to, target, len) = *act else { return false };
    let len = len.min((want[from].len() as u64).saturating_sub(start));
    from == to && len > 0 && start < target + len && target < start + len
}

fn run(place: &Place, acts: &[Act]) -> Result<(), TestCaseError> {
    let mut world = place.open();
    let mut want = vec![Vec::new(); FILES];
    for (seed, act) in acts.iter().enumerate() {
        let volume = &world.volume;
        if overlaps(&want, act) {
            let Act::Copy(from, start, to, target, len) = *act else { continue };
            let refused = volume.copy((world.inos[from], start), (world.inos[to], target), len);
            prop_assert!(matches!(refused, Err(FlowError::Refused(Refusal::Invalid))));
            continue;
        }
        match *act {
            Act::Write(file, at, len) => {
                volume.write(world.inos[file], at, noise(len, seed as u64), false).unwrap();
            }
            Act::Truncate(file, len) => {
                let cut = SetAttr { size: Some(len), ..SetAttr::default() };
                volume.set_attr(world.inos[file], &cut).unwrap();
            }
            Act::Allocate(file, at, len, how) => {
                volume.allocate(world.inos[file], at..at + len, how).unwrap();
            }
            Act::Copy(from, start, to, target, len) => {
                let copied = world.copy((from, start), (to, target), len).unwrap();
                let there = (want[from].len() as u64).saturating_sub(start);
                prop_assert_eq!(copied, len.min(there));
            }
            Act::Publish => drop(world.portal.publish().unwrap()),
            Act::Sweep => world.portal.sweep_thoroughly().unwrap(),
            Act::Reopen(crash) => {
                if crash {
                    world.portal.close_unpublished().unwrap();
                } else {
                    world.portal.close().unwrap();
                }
                drop(world);
                world = place.open();
            }
        }
        model(&mut want, act, seed as u64);
        world.compare(&want)?;
    }
    world.portal.close().unwrap();
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn ranges_are_what_was_done_to_them(acts in prop::collection::vec(act(), 1..30)) {
        run(&Place::new(), &acts)?;
    }
}

/// What only an unpublished clone names survives a sweep, and a restart out of
/// the journal. Its source was open and had no name any more.
#[test]
fn a_clone_keeps_its_chunks_when_the_source_goes_before_it_is_published() {
    let place = Place::new();
    let world = place.open();
    let bytes = noise(3 << 20, 7);
    for (i, part) in bytes.chunks(1 << 20).enumerate() {
        world.volume.write(world.inos[0], (i << 20) as u64, part.to_vec(), false).unwrap();
    }
    world.portal.publish().unwrap();
    let before = world.portal.status().stored_bytes;
    world.volume.unlink(ROOT, NAMES[0], false).unwrap();
    world.portal.publish().unwrap();
    assert_eq!(world.copy((0, 0), (1, 0), u64::MAX >> 2).unwrap(), bytes.len() as u64);
    assert_eq!(world.portal.status().unpublished_bytes, 0, "bytes were copied");
    world.volume.forget(world.inos[0], 1);
    world.portal.sweep_thoroughly().unwrap();
    world.portal.close_unpublished().unwrap();
    drop(world);
    let world = place.open();
    assert!(world.volume.read(world.inos[1], 0, bytes.len()).unwrap() == bytes);
    world.portal.publish().unwrap();
    world.portal.sweep_thoroughly().unwrap();
    assert!(world.volume.read(world.inos[1], 0, bytes.len()).unwrap() == bytes);
    let after = world.portal.status().stored_bytes;
    assert!(after < before + (256 << 10), "{before} bytes became {after}");
    world.portal.close().unwrap();
}

/// More is not promised than there is.
#[test]
fn an_allocation_that_the_disk_has_no_room_for_is_refused_and_changes_nothing() {
    let place = Place::new();
    let world = place.open();
    let how = Allocate::Reserve { keep_size: false };
    let refused = world.volume.allocate(world.inos[0], 0..(1 << 60), how);
    assert!(matches!(refused, Err(FlowError::Refused(Refusal::NoSpace))), "{refused:?}");
    assert_eq!(world.volume.attr(world.inos[0]).unwrap().unwrap().inode.size, 0);
    let too_far = world.volume.allocate(world.inos[0], 0..u64::MAX, Allocate::Punch);
    assert!(matches!(too_far, Err(FlowError::Refused(Refusal::TooLarge))), "{too_far:?}");
    let zeros = Allocate::Zero { keep_size: false };
    world.volume.allocate(world.inos[0], 0..(1 << 60), zeros).unwrap();
    assert_eq!(world.volume.attr(world.inos[0]).unwrap().unwrap().inode.size, 1 << 60);
    world.portal.close().unwrap();
}
