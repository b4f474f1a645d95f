//! What decodes as an entry of the log of snapshots encodes to the same bytes,
//! and its name can be a directory's.
#![no_main]

use libfuzzer_sys::fuzz_target;
use warp_format::snapshot::{Snapshot, SnapshotEntry, is_snapshot_name};

fuzz_target!(|input: &[u8]| {
    if let Ok(entry) = SnapshotEntry::decode(input) {
        assert_eq!(entry.encode(), input);
        let (SnapshotEntry::Add(Snapshot { name, .. }) | SnapshotEntry::Remove(name)) = &entry;
        assert!(is_snapshot_name(name));
    }
});
