//! What the journal carries: changes of records and of file bytes.
//!
//! Promises: one encoding for one list of changes; a list that decodes is
//! whole. Never: applies them. Tested by the unit tests below and
//! `engine/flow/tests/crash_live.rs`.

use crate::bytes::{Put, Reader};
use crate::error::{FormatError, Result};
use crate::id::FileId;
use crate::limits::MAX_FILE_SIZE;
use crate::local::MAX_ENTRY_LEN;
use crate::record::{Key, Record};

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A record takes this value. An extent replaces whatever its range of the
    /// file held.
    Put(Key, Record),
    /// A record is no more.
    Remove(Key),
    /// Bytes of a file.
    Write {
        /// The file.
        file: FileId,
        /// From this offset on.
        offset: u64,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// A file holds nothing between these offsets.
    Clear {
        /// The file.
        file: FileId,
        /// First byte that is no more.
        from: u64,
        /// First byte that stays again; `u64::MAX`: none does.
        to: u64,
    },
    /// An inode and all that belongs to it is no more.
    Delete(FileId),
    /// The head with this sequence number is durable. If it is not there
    /// later, it was lost after it had been relied on.
    Published(u64),
}

/// The bytes of changes that are made together or not at all.
pub fn encode_changes(changes: &[Change]) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_varint(changes.len() as u64);
    for change in changes {
        match change {
            Change::Put(key, record) => {
                out.push(0);
                out.put_bytes(&key.to_bytes());
                out.put_bytes(&record.to_bytes());
            }
            Change::Remove(key) => {
                out.push(1);
                out.put_bytes(&key.to_bytes());
            }
            Change::Write { file, offset, bytes } => {
                out.push(2);
                out.extend_from_slice(&file.0);
                out.put_varint(*offset);
                out.put_bytes(bytes);
            }
            Change::Clear { file, from, to } => {
                out.push(3);
                out.extend_from_slice(&file.0);
                out.put_varint(*from);
                out.put_varint(*to);
            }
            Change::Delete(file) => {
                out.push(5);
                out.extend_from_slice(&file.0);
            }
            Change::Published(sequence) => {
                out.push(4);
                out.put_varint(*sequence);
            }
        }
    }
    out
}

/// The changes in these bytes.
pub fn decode_changes(bytes: &[u8]) -> Result<Vec<Change>> {
    let at = "changes";
    let mut r = Reader::new(bytes);
    let count = r.varint(at)?;
    // The shortest change takes two bytes.
    if count > (r.remaining() / 2) as u64 {
        return Err(FormatError::Truncated { at });
    }
    // In memory a change takes far more than two bytes: let it grow.
    let mut changes = Vec::new();
    for _ in 0..count {
        changes.push(match r.u8(at)? {
            0 => {
                let key = Key::decode(r.bytes(64, at)?)?;
                Change::Put(key, Record::decode(key.kind, r.bytes(MAX_ENTRY_LEN, at)?)?)
            }
            1 => Change::Remove(Key::decode(r.bytes(64, at)?)?),
            2 => {
                let (file, offset) = (FileId(r.array(at)?), r.varint(at)?);
                let bytes = r.bytes(MAX_ENTRY_LEN, at)?.to_vec();
                let end = offset.checked_add(bytes.len() as u64);
                if end.is_none_or(|end| end > MAX_FILE_SIZE) {
                    return Err(FormatError::Invalid { at: "write" });
                }
                Change::Write { file, offset, bytes }
            }
            3 => {
                let file = FileId(r.array(at)?);
                let (from, to) = (r.varint(at)?, r.varint(at)?);
                if from > to {
                    return Err(FormatError::Invalid { at: "clear" });
                }
                Change::Clear { file, from, to }
            }
            4 => Change::Published(r.varint(at)?),
            5 => Change::Delete(FileId(r.array(at)?)),
            _ => return Err(FormatError::Invalid { at }),
        });
    }
    r.end(at)?;
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{KeyKind, Stamp};

    #[test]
    fn a_write_past_the_largest_file_and_a_range_backwards_are_refused() {
        let file = FileId([3; 16]);
        let write = Change::Write { file, offset: MAX_FILE_SIZE, bytes: vec![1] };
        for bad in [write, Change::Clear { file, from: 2, to: 1 }] {
            assert!(decode_changes(&encode_changes(&[bad])).is_err());
        }
    }

    #[test]
    fn changes_come_back_and_cut_ones_are_refused() {
        let key = Key::new(FileId([3; 16]), KeyKind::Inode);
        let link = Key::new(FileId([3; 16]), KeyKind::Link(FileId::ROOT, crate::NameHash([1; 16])));
        let changes = vec![
            Change::Put(link, Record::Link(Stamp::NONE)),
            Change::Remove(key),
            Change::Write { file: FileId([3; 16]), offset: 1 << 40, bytes: vec![7; 300] },
            Change::Clear { file: FileId([3; 16]), from: 9, to: u64::MAX },
            Change::Delete(FileId([4; 16])),
            Change::Published(300),
        ];
        let bytes = encode_changes(&changes);
        assert_eq!(decode_changes(&bytes), Ok(changes));
        for i in 0..bytes.len() {
            assert!(decode_changes(&bytes[..i]).is_err(), "cut at {i}");
        }
    }
}
