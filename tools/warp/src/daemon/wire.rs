//! What daemon and command line say to each other, as JSON.

use crate::report::{Exit, Failure, problem_line};
use serde::{Deserialize, Serialize};
use std::ffi::{OsStr, OsString};
use std::num::NonZeroU64;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use warp_flow::{FlowError, Problem};
use warp_format::members::Capability;

/// A path: its text, or its bytes where they are none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum WirePath {
    Text(String),
    Bytes { bytes: Vec<u8> },
}

impl From<&Path> for WirePath {
    fn from(path: &Path) -> Self {
        match path.to_str() {
            Some(text) => Self::Text(text.to_owned()),
            None => Self::Bytes { bytes: path.as_os_str().as_bytes().to_vec() },
        }
    }
}

impl From<WirePath> for PathBuf {
    fn from(path: WirePath) -> Self {
        match path {
            WirePath::Text(text) => text.into(),
            WirePath::Bytes { bytes } => OsString::from_vec(bytes).into(),
        }
    }
}

/// Why a request failed, in the words that the command line prints.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct WireFailure {
    pub(crate) cause: String,
    pub(crate) hint: Option<String>,
    pub(crate) exit: u8,
}

impl From<Failure> for WireFailure {
    fn from(failure: Failure) -> Self {
        Self { cause: failure.cause, hint: failure.hint, exit: failure.exit as u8 }
    }
}

impl From<WireFailure> for Failure {
    fn from(failure: WireFailure) -> Self {
        let exit = Exit::from_code(failure.exit);
        Self { cause: failure.cause, hint: failure.hint, exit }
    }
}

/// Whose device this is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) owner: String,
    pub(crate) device: String,
}

/// A portal of this device.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PortalRow {
    pub(crate) name: String,
    pub(crate) id: String,
    /// Another device writes it.
    pub(crate) joined: bool,
    /// This device is a custodian of it, and can read nothing.
    pub(crate) kept: bool,
    pub(crate) mounted_on: Option<WirePath>,
}

/// How far a portal is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Standing {
    pub(crate) sequence: u64,
    pub(crate) chunks: u64,
    pub(crate) stored_bytes: u64,
    pub(crate) unpublished_bytes: u64,
    pub(crate) unpublished_changes: u64,
    /// Most bytes that it may take on this disk.
    pub(crate) quota_bytes: Option<u64>,
    pub(crate) snapshots: u64,
    pub(crate) trouble: Option<String>,
    /// Chunks that are known to be damaged.
    pub(crate) damaged_chunks: u64,
    /// When every pack had been read in the background, in seconds since 1970.
    pub(crate) scrubbed: Option<u64>,
}

/// A portal, and how far it is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PortalStanding {
    pub(crate) portal: PortalRow,
    pub(crate) standing: Standing,
}

/// A mount.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct MountRow {
    pub(crate) portal: String,
    pub(crate) id: String,
    pub(crate) path: WirePath,
    pub(crate) directory: WirePath,
    pub(crate) read_only: bool,
    /// Unmounted lazily: files in it are still open.
    pub(crate) detached: bool,
    pub(crate) standing: Standing,
}

/// Everything at once.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Status {
    pub(crate) stays: bool,
    pub(crate) locked: bool,
    pub(crate) identity: Option<Identity>,
    pub(crate) portals: Vec<PortalRow>,
    pub(crate) mounts: Vec<MountRow>,
    /// The other devices of portals that are shared.
    pub(crate) peers: Vec<PeerRow>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) version: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct CreatePortal {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Most bytes that it may take on this disk.
    pub(crate) quota: Option<NonZeroU64>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct NamePortal {
    pub(crate) name: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct InviteTo {
    pub(crate) portal: String,
    /// What who joins may do.
    pub(crate) capability: Capability,
    pub(crate) may_invite: bool,
    pub(crate) expires_s: u64,
    pub(crate) uses: u32,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Invited {
    /// What is typed or scanned on the other device: a secret.
    pub(crate) ticket: String,
    /// Until when, in seconds since 1970.
    pub(crate) expires_at: u64,
    /// This device redeems it; else the one that made the portal does.
    pub(crate) here: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct JoinPortal {
    pub(crate) ticket: String,
    /// Without one, it is called as where it comes from.
    pub(crate) name: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Joined {
    pub(crate) portal: PortalRow,
    /// Devices of the portal, with this one.
    pub(crate) devices: u64,
    /// What this device may do.
    pub(crate) capability: Capability,
    pub(crate) may_invite: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ExpireIn {
    pub(crate) portal: String,
    /// A member, by its name or the start of its id.
    pub(crate) member: Option<String>,
    /// All open tickets.
    pub(crate) invites: bool,
    /// When the member's time is over.
    pub(crate) when: When,
}

/// When a membership ends.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum When {
    Now,
    /// In so many seconds.
    After(u64),
    /// Then, in seconds since 1970.
    At(u64),
    Never,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Expired {
    /// The member's name and id.
    pub(crate) member: Option<(String, String)>,
    /// Tickets that were open.
    pub(crate) invites: u64,
    /// From when, in seconds since 1970; `None` for never.
    pub(crate) at: Option<u64>,
}

/// A member of a portal, as its chain has it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct MemberRow {
    pub(crate) name: String,
    pub(crate) id: String,
    /// It is the device that is asked.
    pub(crate) here: bool,
    /// It made the portal.
    pub(crate) founder: bool,
    /// `custodian`, `reader`, `writer` or `admin`.
    pub(crate) capability: String,
    pub(crate) may_invite: bool,
    /// Since when, in seconds since 1970.
    pub(crate) since: u64,
    /// Until when.
    pub(crate) expires: Option<u64>,
    /// Its time is over.
    pub(crate) expired: bool,
}

/// A device of a portal, other than this one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PeerRow {
    pub(crate) name: String,
    pub(crate) id: String,
    pub(crate) portal: String,
    /// `custodian`, `reader`, `writer` or `admin`.
    pub(crate) capability: String,
    pub(crate) connected: bool,
    /// Where it is, or was last.
    pub(crate) address: Option<String>,
    pub(crate) rtt_us: Option<u64>,
    /// Bytes of chunks that it gave since it is connected.
    pub(crate) received_bytes: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LeavePortal {
    pub(crate) name: String,
    pub(crate) keep_data: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Left {
    pub(crate) id: String,
    /// Where its state was.
    pub(crate) was: WirePath,
    /// Where it is now.
    pub(crate) kept: Option<WirePath>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct MakeSnapshot {
    pub(crate) portal: String,
    /// Without one, it is called by its time.
    pub(crate) name: Option<String>,
    pub(crate) tags: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RemoveSnapshots {
    pub(crate) portal: String,
    pub(crate) names: Vec<String>,
}

/// A snapshot of a portal.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SnapshotRow {
    pub(crate) name: String,
    /// When it was made: since 1970, in seconds and the nanoseconds on top.
    pub(crate) secs: i64,
    pub(crate) nanos: u32,
    pub(crate) sequence: u64,
    pub(crate) tags: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RestoreSnapshot {
    pub(crate) portal: String,
    pub(crate) snapshot: String,
    /// The directory of the portal that `target` stands for.
    pub(crate) top: WirePath,
    /// What of it; empty: all.
    pub(crate) path: WirePath,
    pub(crate) target: WirePath,
    pub(crate) overwrite: bool,
    pub(crate) dry_run: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Restored {
    pub(crate) names: u64,
    pub(crate) bytes: u64,
    pub(crate) problems: Vec<WireProblem>,
}

/// Something that was not done, or cannot be read, while the rest went on.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct WireProblem {
    /// A path in the portal.
    pub(crate) path: WirePath,
    pub(crate) why: String,
    /// Both, as they are told.
    pub(crate) line: String,
    pub(crate) exit: u8,
    /// Something is there already.
    pub(crate) exists: bool,
}

impl From<Problem> for WireProblem {
    fn from(problem: Problem) -> Self {
        let line = problem_line(&problem);
        let Problem { path, error } = problem;
        Self {
            line,
            path: Path::new(OsStr::from_bytes(&path)).into(),
            why: error.to_string(),
            exit: Exit::from(error.kind()) as u8,
            exists: matches!(error, FlowError::Exists { .. }),
        }
    }
}

/// A line of the answer to a request that takes long.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Line<A> {
    Progress { total: u64, done: u64, files: u64 },
    Answer(A),
    Failure(WireFailure),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct MountPortal {
    pub(crate) portal: String,
    pub(crate) path: WirePath,
    pub(crate) directory: WirePath,
    pub(crate) read_only: bool,
    pub(crate) allow_other: bool,
    pub(crate) nonempty: bool,
    pub(crate) no_exec: bool,
    /// Each write is handed over before the program goes on.
    pub(crate) write_through: bool,
    /// Ranges of stored users and who is shown in their place, as triples of
    /// first, first and count.
    pub(crate) users: Vec<(u32, u32, u32)>,
    /// The same for groups.
    pub(crate) groups: Vec<(u32, u32, u32)>,
    /// No peer is asked.
    pub(crate) offline: bool,
    /// Most bytes of chunks that are kept because they came once.
    pub(crate) cache_bytes: Option<u64>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Unmount {
    pub(crate) directory: WirePath,
    pub(crate) lazy: bool,
    pub(crate) flush: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Unmounted {
    /// False: this daemon has no such mount.
    pub(crate) served: bool,
    /// The daemon has nothing more to do and ends.
    pub(crate) ends: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct OfMount {
    pub(crate) directory: WirePath,
}

/// The daemon is to stay.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct GoUp {
    /// How the network is to be used: names of settings, and their values.
    pub(crate) network: Vec<(String, String)>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct IsUp {
    /// It uses the network in another way.
    pub(crate) differs: bool,
}

/// What of a mount is to be fetched.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct WarmUp {
    pub(crate) directory: WirePath,
    /// Below the mountpoint.
    pub(crate) path: WirePath,
    /// Only say how much is here.
    pub(crate) check: bool,
    /// Say how each chunk came.
    #[serde(default)]
    pub(crate) explain: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Warmed {
    pub(crate) files: u64,
    pub(crate) chunks: u64,
    pub(crate) bytes: u64,
    /// Of these, how many were here before.
    pub(crate) bytes_here: u64,
    pub(crate) problems: Vec<WireProblem>,
    #[serde(default)]
    pub(crate) explained: Vec<WireExplained>,
}

/// How a chunk came: the documented form of `warp warmup --explain --json`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct WireExplained {
    pub(crate) chunk: String,
    pub(crate) bytes: u64,
    pub(crate) from: Option<String>,
    pub(crate) took_us: u64,
    pub(crate) asked: Vec<WireAsked>,
}

/// A peer that was asked for it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct WireAsked {
    pub(crate) peer: String,
    /// `planned`, `rescue` or `hedge`.
    pub(crate) why: String,
    /// After the chunk was wanted.
    pub(crate) after_us: u64,
    /// From then on.
    pub(crate) expected_us: u64,
    pub(crate) candidates: Vec<WireCandidate>,
}

/// A holder that was compared.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct WireCandidate {
    pub(crate) peer: String,
    pub(crate) expected_us: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct CheckPortal {
    pub(crate) portal: String,
    pub(crate) reads: WireReads,
}

/// How much a check reads.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) enum WireReads {
    Nothing,
    Sample { share: f64, seed: u64 },
    Everything,
}

/// Bytes of a pack that are not what was written.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct WireDamage {
    pub(crate) file: String,
    pub(crate) offset: u64,
    pub(crate) len: u64,
    pub(crate) chunk: Option<String>,
    pub(crate) readable: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Checked {
    pub(crate) names: u64,
    pub(crate) nodes: u64,
    pub(crate) chunks: u64,
    pub(crate) chunks_read: u64,
    pub(crate) data_bytes: u64,
    pub(crate) data_bytes_read: u64,
    pub(crate) packs: u64,
    pub(crate) stored_bytes: u64,
    pub(crate) stored_bytes_read: u64,
    pub(crate) damage: Vec<WireDamage>,
    pub(crate) problems: Vec<WireProblem>,
    pub(crate) unpublished: Option<String>,
    /// Where the packs are.
    pub(crate) directory: WirePath,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RepairPortal {
    pub(crate) portal: String,
    pub(crate) dry_run: bool,
}

/// A damaged pack, and what became of it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct WireAside {
    pub(crate) file: String,
    pub(crate) whole: u64,
    pub(crate) aside: Option<String>,
    pub(crate) moved_to: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Repaired {
    pub(crate) packs: u64,
    pub(crate) stored_bytes: u64,
    pub(crate) chunks: u64,
    pub(crate) indexes: Vec<String>,
    pub(crate) set_aside: Vec<WireAside>,
    pub(crate) damage: Vec<WireDamage>,
    pub(crate) dedup_discarded: bool,
    pub(crate) problems: Vec<WireProblem>,
    /// Where the packs are.
    pub(crate) directory: WirePath,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Synced {
    pub(crate) sequence: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_any_bytes_arrives_as_it_was() {
        for bytes in [&b"/a b/\xc3\xa4"[..], b"/\xff\xfe\n", b""] {
            let path = Path::new(OsStr::from_bytes(bytes));
            let text = serde_json::to_string(&WirePath::from(path)).unwrap();
            let back: WirePath = serde_json::from_str(&text).unwrap();
            assert_eq!(PathBuf::from(back), path);
        }
    }

    #[test]
    fn a_failure_arrives_as_it_was() {
        let failure = Failure::new(Exit::Busy, "d: is in use").hint("leave it");
        let back = Failure::from(WireFailure::from(failure));
        assert_eq!((back.exit, back.cause.as_str()), (Exit::Busy, "d: is in use"));
        assert_eq!(back.hint.as_deref(), Some("leave it"));
    }
}
