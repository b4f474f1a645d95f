//! What decodes as a footer encodes to the same 576 bytes and tells the length
//! of its file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use warp_format::archive::{FOOTER_LEN, Footer, HEADER_LEN, INDEX_ENTRY_LEN};

fn check(bytes: &[u8], file_len: u64) {
    if let Ok(footer) = Footer::decode(bytes, file_len) {
        assert_eq!(footer.encode(), bytes[..FOOTER_LEN]);
        assert_eq!(footer.file_len(), Some(file_len));
    }
}

fn recheck(bytes: &mut [u8]) {
    let (body, check) = bytes.split_last_chunk_mut::<32>().expect("longer than its checksum");
    *check = *blake3::hash(body).as_bytes();
}

fn number(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fuzz_target!(|input: &[u8]| {
    check(input, input.len() as u64);
    // Once more with right checksums and in a file of the right length, so
    // that what they cover is read.
    if let Some(bytes) = input.first_chunk::<FOOTER_LEN>() {
        let mut bytes = *bytes;
        recheck(&mut bytes[12..12 + HEADER_LEN]);
        recheck(&mut bytes);
        let (index_at, count) = (number(&bytes, 340), number(&bytes, 348));
        let index_len = count.wrapping_mul(INDEX_ENTRY_LEN as u64);
        check(&bytes, index_at.wrapping_add(index_len).wrapping_add(FOOTER_LEN as u64));
    }
});
