//! Foreign bytes never open as a journal record, a sealed entry comes back in
//! its place only, and what decodes as a journal header encodes to the same
//! bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use warp_format::Secret;
use warp_format::local::{
    ENTRY_MAGIC, Entry, EntryHead, JOURNAL_HEADER_LEN, JournalHeader, LocalKey,
};

fn check_header(bytes: &[u8]) {
    if let Ok(header) = JournalHeader::decode(bytes) {
        assert_eq!(header.encode(), bytes[..JOURNAL_HEADER_LEN]);
    }
}

fuzz_target!(|input: &[u8]| {
    check_header(input);
    // Once more with a right checksum, so that what it covers is read.
    if let Some(bytes) = input.first_chunk::<JOURNAL_HEADER_LEN>() {
        let mut bytes = *bytes;
        let check = blake3::hash(&bytes[..JOURNAL_HEADER_LEN - 32]);
        bytes[JOURNAL_HEADER_LEN - 32..].copy_from_slice(check.as_bytes());
        check_header(&bytes);
    }

    let key = LocalKey::new(Secret::new([1; 32]));
    assert_eq!(key.open(1, input), None, "a tag was guessed");
    assert_eq!(key.open(1, &[&ENTRY_MAGIC, input].concat()), None, "a tag was guessed");

    let Some(([at, flip], entry)) = input.split_first_chunk::<2>() else { return };
    let (journal, sequence, durable) = (u64::from(*at), u64::from(*flip), 3);
    let mut record = Vec::new();
    key.seal(journal, sequence, durable, [9; 24], entry, &mut record);
    let head = EntryHead { len: entry.len() as u32, sequence, durable };
    assert_eq!(record.len(), head.record_len());
    assert_eq!(key.open(journal + 1, &record), None);
    assert_eq!(key.open(journal, &record[..record.len() - 1]), None);
    let whole = Some(Entry { head, bytes: entry.to_vec() });
    assert_eq!(key.open(journal, &record), whole);
    let place = usize::from(*at) * record.len() / 256;
    record[place] ^= flip;
    assert_eq!(key.open(journal, &record).is_some(), *flip == 0);
});
