//! What a portal's volume says of its files by itself, as their content goes
//! from memory into chunks and changes there.

#[path = "common/place.rs"]
mod place;

use place::Place;
use warp_flow::portal::PortalVolume;
use warp_flow::volume::{Allocate, NewInode, SetAttr, Volume, XattrMode};
use warp_flow::{FlowError, Refusal};
use warp_format::record::{Body, NO_DIRECTORIES};

const ROOT: u64 = 1;

fn make(volume: &PortalVolume, name: &str, body: Body) -> u64 {
    let new = NewInode { permissions: 0o644, umask: 0, uid: 1000, gid: 1000, body };
    volume.make(ROOT, name.as_bytes(), new).unwrap().ino
}

fn file(volume: &PortalVolume, name: &str, bytes: &[u8]) -> u64 {
    let ino = make(volume, name, Body::Extents(0));
    volume.write(ino, 0, bytes.to_vec(), false).unwrap();
    ino
}

fn noise(len: usize, seed: u8) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
    bytes
}

fn says(volume: &PortalVolume, ino: u64, name: &str) -> Option<String> {
    let value = volume.xattr(ino, format!("user.warp.{name}").as_bytes()).unwrap();
    value.map(|value| String::from_utf8(value).unwrap())
}

fn hash(volume: &PortalVolume, ino: u64) -> String {
    let hash = says(volume, ino, "hash").expect("published");
    assert!(hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit()), "{hash}");
    hash
}

/// Inline, in a group, in chunks: equal bytes have equal hashes, wherever they
/// are, and each change of them has another.
#[test]
fn a_hash_follows_the_content_and_comes_with_its_chunks() {
    let place = Place::new(None);
    let (portal, volume) = place.open();
    for (len, fewest) in [(300, 0), (5_000, 1), (700_000, 3)] {
        let bytes = noise(len, 1);
        let one = file(&volume, &format!("one {len}"), &bytes);
        // Only in memory and in the journal.
        assert_eq!(says(&volume, one, "hash"), None);
        assert_eq!(says(&volume, one, "chunks"), None);
        portal.publish().unwrap();
        let chunks: u32 = says(&volume, one, "chunks").unwrap().parse().unwrap();
        assert!(chunks >= fewest && (len > 512) == (chunks > 0), "{len} bytes in {chunks}");
        let at_first = hash(&volume, one);
        // Another file with the same bytes, made otherwise.
        let two = file(&volume, &format!("two {len}"), &bytes[..len / 2]);
        volume.write(two, len as u64 / 2, bytes[len / 2..].to_vec(), false).unwrap();
        portal.publish().unwrap();
        assert_eq!(hash(&volume, two), at_first);
        // A byte of it.
        volume.write(two, len as u64 - 7, vec![!bytes[len - 7]], false).unwrap();
        assert_eq!(says(&volume, two, "hash"), None);
        portal.publish().unwrap();
        let changed = hash(&volume, two);
        assert_ne!(changed, at_first);
        // As it was, written whole; and what is no content changes nothing.
        volume.write(two, 0, bytes, false).unwrap();
        let mode = SetAttr { permissions: Some(0o600), ..SetAttr::default() };
        volume.set_attr(two, &mode).unwrap();
        volume.link(two, ROOT, format!("link {len}").as_bytes()).unwrap();
        portal.publish().unwrap();
        assert_eq!(hash(&volume, two), at_first);
        volume.set_attr(two, &SetAttr { permissions: Some(0o644), ..mode }).unwrap();
        assert_eq!(hash(&volume, two), at_first);
        // Longer by zeros that nobody wrote.
        let longer = SetAttr { size: Some(len as u64 + 1), ..SetAttr::default() };
        volume.set_attr(two, &longer).unwrap();
        portal.publish().unwrap();
        assert_ne!(hash(&volume, two), at_first);
    }
    portal.close().unwrap();
}

/// What names chunks again is known without a publish, and what is a hole too.
#[test]
fn a_clone_has_the_hash_of_its_source_at_once() {
    let place = Place::new(None);
    let (portal, volume) = place.open();
    let bytes = noise(700_000, 2);
    let source = file(&volume, "source", &bytes);
    portal.publish().unwrap();
    let clone = make(&volume, "clone", Body::Extents(0));
    assert_eq!(volume.copy((source, 0), (clone, 0), 700_000).unwrap(), 700_000);
    assert_eq!(hash(&volume, clone), hash(&volume, source));
    assert_eq!(says(&volume, clone, "chunks"), says(&volume, source, "chunks"));
    let before = hash(&volume, clone);
    volume.allocate(clone, 0..4096, Allocate::Punch).unwrap();
    assert_ne!(hash(&volume, clone), before);
    // Without a name it is what it was.
    let before = hash(&volume, clone);
    volume.unlink(ROOT, b"clone", false).unwrap();
    assert_eq!(hash(&volume, clone), before);
    portal.publish().unwrap();
    assert_eq!(hash(&volume, clone), before);
    volume.write(clone, 0, b"x".to_vec(), false).unwrap();
    assert_eq!(says(&volume, clone, "hash"), None);
    portal.close().unwrap();
}

#[test]
fn what_a_volume_says_by_itself_is_nobodys_to_change_and_is_not_listed() {
    let place = Place::new(None);
    let (portal, volume) = place.open();
    let dir = make(&volume, "d", Body::Directory(NO_DIRECTORIES));
    let empty = make(&volume, "empty", Body::Extents(0));
    for ino in [ROOT, dir, empty] {
        assert_eq!(says(&volume, ino, "state").as_deref(), Some("local"));
        assert_eq!(says(&volume, ino, "replicas").as_deref(), Some("1"));
        assert_eq!(says(&volume, ino, "other"), None);
        assert_eq!(says(&volume, ino, ""), None);
        for name in ["user.warp.state", "user.warp.other", "user.warp."] {
            let set = volume.set_xattr(ino, name.as_bytes(), b"x", XattrMode::Set);
            let removed = volume.remove_xattr(ino, name.as_bytes());
            for refused in [set, removed] {
                let permitted = !matches!(refused, Err(FlowError::Refused(Refusal::NotPermitted)));
                assert!(!permitted, "{name}: {refused:?}");
            }
        }
        assert_eq!(volume.xattrs(ino).unwrap(), [[0; 0]; 0]);
    }
    // Nothing is all there is of it, published or not.
    assert_eq!(says(&volume, empty, "chunks").as_deref(), Some("0"));
    let before = hash(&volume, empty);
    portal.publish().unwrap();
    assert_eq!(hash(&volume, empty), before);
    assert_eq!(says(&volume, dir, "chunks"), None);
    assert_eq!(says(&volume, dir, "hash"), None);
    volume.set_xattr(empty, b"user.warped", b"x", XattrMode::Set).unwrap();
    assert_eq!(volume.xattrs(empty).unwrap(), [b"user.warped"]);
    assert!(matches!(
        volume.xattr(77, b"user.warp.state"),
        Err(FlowError::Refused(Refusal::Missing))
    ));
    portal.close().unwrap();
}
