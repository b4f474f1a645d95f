//! Every queue and cache of the walk has its bound here.

use std::time::Duration;

/// Chunks that wait for a worker while an archive is made.
pub const SEAL_QUEUE: usize = 8;
/// Batches of records that wait for the writer.
pub const RECORD_QUEUE: usize = 64;
/// Records that wait for an open group of small files to close.
pub const HELD_RECORDS: usize = 20_000;
/// Bytes of opened chunks kept in memory by a reader.
pub const OPENED_BYTES: u64 = 48 << 20;
/// Bytes of decoded tree nodes kept in memory by a reader.
pub const NODE_BYTES: u64 = 32 << 20;
/// Files that wait for a worker while an archive is extracted.
pub const EXTRACT_QUEUE: usize = 256;
/// Deepest directory that is followed, against trees that never end.
pub const MAX_DEPTH: usize = 4096;

/// Workers for hashing, packing and sealing: one for each core, at most 8.
pub fn workers() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from).clamp(1, 8)
}

/// Bytes that are written to a portal before they are published without
/// waiting for quiet. It bounds memory and the next start after a kill: writers
/// slow down at twice this much, and wait at four times; that and what is being
/// folded is replayed at most.
pub const PUBLISH_BYTES: u64 = 64 << 20;
/// The same for changes of records, of a few hundred bytes each.
pub const PUBLISH_CHANGES: u64 = 200_000;
/// A portal is published when nothing was changed for this long.
pub const PUBLISH_QUIET: Duration = Duration::from_secs(3);
/// A portal that never is quiet is published after this.
pub const PUBLISH_AFTER: Duration = Duration::from_secs(30);
/// Bytes in memory of a file that is open and has no name any more; what is
/// written beyond goes into the store.
pub const ORPHAN_BYTES: usize = 16 << 20;
/// Garbage that is worth reading the tree for: so many bytes, and this share of
/// the store in percent.
pub const SWEEP_BYTES: u64 = 16 << 20;
/// See [`SWEEP_BYTES`].
pub const SWEEP_PERCENT: u64 = 20;
/// A portal that is quiet for this long after it was opened is swept once: how
/// much garbage it has, it does not know until then.
pub const SWEEP_AFTER_OPEN: Duration = Duration::from_secs(60);
/// How far ahead of a read its file is asked for, at first: what the kernel
/// reads at once.
pub const AHEAD_FIRST_BYTES: u64 = 1 << 20;
/// The same as long as nothing is known of the peers: more than a link of
/// 1 Gbit/s and 100 ms holds.
pub const AHEAD_BYTES: u64 = 32 << 20;
/// The same at most, once their rates are known.
pub const AHEAD_MOST_BYTES: u64 = 256 << 20;
/// A long chunk of a large file: it is so far that the slowest peer can bring
/// two of them before they are read.
pub const AHEAD_CHUNK_BYTES: u64 = 1 << 20;
/// A peer that takes longer than this for it is not reckoned with.
pub const AHEAD_SPAN: Duration = Duration::from_secs(4);
/// Files of which it is remembered how far they were read.
pub const AHEAD_FILES: usize = 1024;
/// How long a reader waits for a chunk that no peer gives: less than a request
/// may take, so that it is told why.
pub const FETCH_WITHIN: Duration = Duration::from_secs(28);
/// Chunks in one request to a peer, and their bytes: so much is lost at most
/// when another peer is faster with the rest.
pub const REQUEST_CHUNKS: usize = 16;
/// See [`REQUEST_CHUNKS`].
pub const REQUEST_BYTES: u64 = 512 << 10;
/// Chunks that are asked for ahead of being read.
pub const EXPECTED_CHUNKS: usize = 16 << 10;
/// Bytes of chunks that are kept because they came once, by default.
pub const CACHE_BYTES: u64 = 10 << 30;
/// It is looked whether these are too many after so many more chunks.
pub const CACHE_LOOK_EVERY: u64 = 256;
/// Chunks of which it is told how they came, in one answer.
pub const EXPLAINED_CHUNKS: usize = 64 << 10;
/// Chunks that a warm-up asks for ahead.
pub const WARM_AHEAD: usize = 1024;
/// Nodes that are asked for ahead of a walk over many.
pub const NODES_AHEAD: usize = 16;
/// Inodes and directories of which it is remembered where a walk came upon
/// them.
pub const WALKS: usize = 64 << 10;
/// Steps of walks that wait to be taken.
pub const WALK_QUEUE: usize = 64;
/// Entries of a directory that are looked at together ahead of a walk.
pub const WALK_PAGE: usize = 1024;
/// Directories in a directory whose listings are fetched together.
pub const WALK_DIRS: usize = 4096;
