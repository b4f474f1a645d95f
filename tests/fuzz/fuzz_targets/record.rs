//! What decodes as a record or a key encodes to the same bytes; keys sort as
//! their bytes do.
#![no_main]

use libfuzzer_sys::fuzz_target;
use warp_format::record::{Key, KeyKind, Record};
use warp_format::{FileId, NameHash};

fuzz_target!(|input: &[u8]| {
    let Some((pick, bytes)) = input.split_first() else { return };
    let hash = NameHash([0; 16]);
    let kind = match pick % 7 {
        0 => KeyKind::Meta,
        1 => KeyKind::Inode,
        2 => KeyKind::Xattr(hash),
        3 => KeyKind::Link(FileId::ROOT, hash),
        4 => KeyKind::Extent(0),
        5 => KeyKind::Extent(i64::MAX as u64 - 100),
        _ => KeyKind::Dentry(hash),
    };
    if let Ok(record) = Record::decode(kind, bytes) {
        assert_eq!(record.to_bytes(), bytes);
    }
    let (a, b) = bytes.split_at(bytes.len().min(usize::from(*pick)));
    if let (Ok(first), Ok(second)) = (Key::decode(a), Key::decode(b)) {
        assert_eq!((first.to_bytes().as_slice(), second.to_bytes().as_slice()), (a, b));
        assert_eq!(first.cmp(&second), a.cmp(b));
    }
});
