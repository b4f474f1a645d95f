//! Every bound of this crate in one place. What a frame may be is bounded in
//! [`warp_format::limits`]; these bound what a peer can make this device hold
//! or do. docs/protocol.md lists both.

use std::time::Duration;

/// Largest UDP payload that is probed for. Above it, ten segments of one
/// system call exceed 64 KiB, and nothing arrives (measured with 8,900).
pub(crate) const MTU_MAX_BYTES: u16 = 6500;
/// A connection on which nothing came for so long is over.
pub(crate) const IDLE: Duration = Duration::from_secs(5);
/// How often an idle connection is kept alive.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(1);
/// Bytes that a peer may have under way to us: 1 Gbit/s at 100 ms is 12.5 MB.
pub(crate) const WINDOW_BYTES: u32 = 16 << 20;
/// The same before the first session of a connection.
pub(crate) const LOBBY_WINDOW_BYTES: u32 = 256 << 10;
/// Bytes that are sent before anything is known of a path. The library's
/// 240 KB overran the queue of a link of 10 Mbit/s: half of its rate for most
/// of a second.
pub(crate) const FIRST_WINDOW_BYTES: u64 = 48 << 10;
/// Socket buffers asked for; the kernel may give less.
pub(crate) const SOCKET_BUFFER_BYTES: usize = 4 << 20;

/// Handshakes that others may have under way.
pub(crate) const HANDSHAKES_MAX: usize = 64;
/// Above so many, an address must first show that it receives (stateless retry).
pub(crate) const HANDSHAKES_UNCHECKED_MAX: usize = 16;
/// Connections that wait for our answer to their first packet, and what is
/// kept of each.
pub(crate) const INCOMING_MAX: usize = 128;
pub(crate) const INCOMING_BYTES: u64 = 32 << 10;
/// Connections in all.
pub(crate) const LINKS_MAX: usize = 512;
/// Connections that others dialled and on which no portal is open.
pub(crate) const LOBBY_MAX: usize = 64;
/// How long a connection may be without a session.
pub(crate) const LOBBY: Duration = Duration::from_secs(10);
/// How long a handshake, or the answer to a `Hello`, may take.
pub(crate) const ANSWER: Duration = Duration::from_secs(5);
/// Addresses of one device that are tried.
pub(crate) const ADDRS_MAX: usize = 16;
/// Two connections of one pair of devices that are dialled by each of them
/// within this time are held to be dialled at once.
pub(crate) const AT_ONCE: Duration = Duration::from_secs(3);

/// Refusals and denials are given no sooner than this after the question, so
/// that their time does not tell a known portal from an unknown one.
pub(crate) const REFUSAL: Duration = Duration::from_millis(50);
/// Refusals and denials on one connection.
pub(crate) const REFUSALS_MAX: u32 = 16;
/// Sessions on one connection.
pub(crate) const SESSIONS_MAX: usize = 256;
/// Control frames waiting to be sent, in bytes: more, and the peer is slow.
pub(crate) const OUTBOX_BYTES: usize = 8 << 20;
/// Above so many waiting bytes nothing more is read from the peer's control stream.
pub(crate) const OUTBOX_PAUSE_BYTES: usize = 1 << 20;

/// Requests that a peer may have open.
pub(crate) const REQUESTS_MAX: u32 = 256;
/// Chunks that a peer may be waiting for; above, the answer is `Busy`.
pub(crate) const WAITING_MAX: usize = 1024;
/// Batches of chunks in memory, for all peers and for each.
pub(crate) const BATCHES_MAX: usize = 64;
pub(crate) const BATCHES_PER_PEER_MAX: usize = 4;
/// The same of those that somebody waits for, beside these.
pub(crate) const URGENT_BATCHES_PER_PEER_MAX: usize = 2;
/// Bytes after which a batch takes no further chunk.
pub(crate) const BATCH_BYTES: usize = 256 << 10;
/// Time after which a batch takes no further chunk.
pub(crate) const BATCH_TIME: Duration = Duration::from_millis(2);
/// An answer of no more than this goes before longer ones.
pub(crate) const SMALL_BYTES: usize = 64 << 10;
/// A peer that takes nothing of an answer for so long is given up on.
pub(crate) const STALL: Duration = Duration::from_secs(10);
/// Bytes that one turn of a rate limit lets pass, and the quantum of a round.
pub(crate) const SLICE_BYTES: usize = 32 << 10;

/// Devices that discovery remembers.
pub(crate) const FOUND_MAX: usize = 256;
/// Finds that wait to be taken; more are dropped, as they come again.
pub(crate) const FOUND_WAITING_MAX: usize = 64;
/// Portals in one mDNS record.
pub(crate) const ANNOUNCED_MAX: usize = 32;
