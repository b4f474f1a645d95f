//! What a device remembers of a portal's snapshots: names for trees.
//!
//! Each entry of their log adds a snapshot or takes one away; the log is
//! sealed like the journal, and never leaves the device. Promises: one
//! encoding for one entry; a name that decodes can be one of a directory.
//! Never: touches a disk. Tested by the unit tests below and fuzz target
//! `snapshot`.

use crate::bytes::{Put, Reader};
use crate::error::{FormatError, Result};
use crate::limits::MAX_NAME_LEN;
use crate::record::Time;
use crate::seal::ChunkRef;

/// Most tags of one snapshot.
pub const MAX_TAGS: usize = 64;

/// A name for a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Its name, which is also that of a directory.
    pub name: String,
    /// When it was made.
    pub time: Time,
    /// Number of the head that it was made of.
    pub sequence: u64,
    /// Root of the tree.
    pub root: ChunkRef,
    /// Words of the user's.
    pub tags: Vec<String>,
}

/// An entry of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SnapshotEntry {
    /// A snapshot was made; it replaces one of its name.
    Add(Snapshot),
    /// The one of this name is no more.
    Remove(String),
}

/// True if a snapshot can be called so: it is a directory's name, and is typed
/// behind an option.
pub fn is_snapshot_name(name: &str) -> bool {
    (1..=MAX_NAME_LEN).contains(&name.len())
        && !name.starts_with(['.', '-'])
        && !name.contains(|c: char| c == '/' || c.is_control())
}

impl SnapshotEntry {
    /// The entry's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Add(snapshot) => {
                out.push(0);
                out.put_bytes(snapshot.name.as_bytes());
                out.put_signed(snapshot.time.secs);
                out.put_varint(snapshot.time.nanos.into());
                out.put_varint(snapshot.sequence);
                snapshot.root.encode(&mut out);
                out.put_varint(snapshot.tags.len() as u64);
                snapshot.tags.iter().for_each(|tag| out.put_bytes(tag.as_bytes()));
            }
            Self::Remove(name) => {
                out.push(1);
                out.put_bytes(name.as_bytes());
            }
        }
        out
    }

    /// The entry in these bytes, all of them.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let at = "snapshot";
        let mut r = Reader::new(bytes);
        let entry = match r.u8(at)? {
            0 => {
                let name = word(&mut r)?;
                let time = Time { secs: r.signed(at)?, nanos: r.varint_u32(at)? };
                let sequence = r.varint(at)?;
                let root = ChunkRef::decode(&mut r)?;
                let count = r.varint(at)?;
                if count > MAX_TAGS as u64 {
                    return Err(FormatError::Limit { at, value: count, limit: MAX_TAGS as u64 });
                }
                if time.nanos >= 1_000_000_000 {
                    return Err(FormatError::Invalid { at });
                }
                let tags = (0..count).map(|_| word(&mut r)).collect::<Result<_>>()?;
                Self::Add(Snapshot { name, time, sequence, root, tags })
            }
            1 => Self::Remove(word(&mut r)?),
            _ => return Err(FormatError::Invalid { at }),
        };
        r.end(at)?;
        Ok(entry)
    }
}

fn word(r: &mut Reader<'_>) -> Result<String> {
    let at = "snapshot";
    let bytes = r.bytes(MAX_NAME_LEN, at)?;
    let name = std::str::from_utf8(bytes).map_err(|_| FormatError::Invalid { at })?;
    if is_snapshot_name(name) { Ok(name.to_owned()) } else { Err(FormatError::Invalid { at }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{ChunkId, ContentHash};

    fn root() -> ChunkRef {
        ChunkRef { id: ChunkId([1; 32]), hash: ContentHash([2; 32]), len: 77, epoch: 0 }
    }

    #[test]
    fn an_entry_comes_back_and_no_cut_one_does() {
        let time = Time { secs: -5, nanos: 999_999_999 };
        let tags = vec!["weekly".into(), "before the upgrade".into()];
        let snapshot = Snapshot { name: "today".into(), time, sequence: 9, root: root(), tags };
        for entry in [SnapshotEntry::Add(snapshot), SnapshotEntry::Remove("today".into())] {
            let bytes = entry.encode();
            assert_eq!(SnapshotEntry::decode(&bytes), Ok(entry));
            for cut in 0..bytes.len() {
                assert!(SnapshotEntry::decode(&bytes[..cut]).is_err(), "cut at {cut}");
            }
            assert!(SnapshotEntry::decode(&[bytes, vec![0]].concat()).is_err());
        }
    }

    #[test]
    fn a_name_is_that_of_a_directory_and_no_option() {
        let long = "x".repeat(256);
        for bad in ["", ".", "..", ".x", "-n", "a/b", "a\nb", "a\0b", &long] {
            assert!(!is_snapshot_name(bad), "{bad:?}");
            assert!(SnapshotEntry::decode(&SnapshotEntry::Remove(bad.into()).encode()).is_err());
        }
        assert!(is_snapshot_name("2026-11-26T00:13:41Z"));
    }
}
