//! What can go wrong on the walk, by what the caller may do about it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use warp_cache::CacheError;
use warp_format::{ChunkId, DeviceId, FormatError};
use warp_net::Unchanged;

/// An error of this crate.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FlowError {
    /// The operating system refused something about a path.
    #[error("{}: {source}", path.display())]
    Io {
        /// What it was about.
        path: PathBuf,
        /// Why.
        #[source]
        source: Arc<io::Error>,
    },
    /// A file as a whole is not what it should be.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: FormatError,
    },
    /// Bytes in a file are damaged.
    #[error(transparent)]
    Corrupt(#[from] FormatError),
    /// A chunk that the tree names is not there.
    #[error("chunk {id} is missing")]
    Missing {
        /// The chunk.
        id: ChunkId,
    },
    /// No peer gave something in time.
    #[error("{what}{} could not be had from any peer{}", id.map(|id| format!(" {id}")).unwrap_or_default(), why.as_ref().map(|why| format!(": {why}")).unwrap_or_default())]
    Unreachable {
        /// "chunk", ...
        what: &'static str,
        /// Which chunk.
        id: Option<ChunkId>,
        /// What came of asking.
        why: Option<String>,
    },
    /// This device only reads the portal.
    #[error("the portal is written on another device, and only that one can do this")]
    NotWriter,
    /// This device is a custodian of the portal.
    #[error("this device is a custodian of the portal: it keeps its chunks, and can read nothing")]
    KeepsOnly,
    /// Only a portal's founder changes who is a member.
    #[error("only the device that made the portal ({founder}) can say who is a member")]
    NotFounder {
        /// That device.
        founder: DeviceId,
    },
    /// That device is not connected.
    #[error(
        "the device that made the portal cannot be reached, and only it changes who is a member"
    )]
    FounderAway,
    /// This device may not change who is a member in that way.
    #[error("this device is a {capability} of the portal, and has no right to that")]
    NoRight {
        /// What it is.
        capability: &'static str,
    },
    /// That device was asked to, and did not.
    #[error("the device that made the portal changed nothing: {why}")]
    Unchanged {
        /// Why.
        why: Unchanged,
    },
    /// Nobody was ever invited to it.
    #[error("no other device was ever invited to the portal")]
    NotShared,
    /// This device is no member of it.
    #[error("this device is no member of the portal, or not one that reads")]
    NotMember,
    /// A device says what it may not.
    #[error("device {device} may not publish")]
    NotAllowed {
        /// The device.
        device: DeviceId,
    },
    /// This device has the portal.
    #[error("this device has that portal already, as {name}")]
    JoinedAlready {
        /// What it is called here.
        name: String,
    },
    /// No member is called like that.
    #[error("{name}: no member is called that, or more than one")]
    NoMember {
        /// The name, as it was asked for.
        name: String,
        /// The one that was probably meant.
        nearest: Option<String>,
    },
    /// Something with a peer did not work.
    #[error(transparent)]
    Net(#[from] warp_net::NetError),
    /// A device has signed two heads of one number.
    #[error("device {device} has signed two different heads of number {sequence}")]
    Forked {
        /// The device.
        device: DeviceId,
        /// The number.
        sequence: u64,
    },
    /// The store or the journal on this machine failed.
    #[error(transparent)]
    Store(Arc<CacheError>),
    /// A part of the tree that another part needs is not there.
    #[error("its {what} is missing")]
    Lost {
        /// "inode record", "content", ...
        what: &'static str,
    },
    /// Part of the files, some of them without a trace of their names.
    #[error("{found} of {had} files and directories were found")]
    LostFiles {
        /// Inodes that were found.
        found: u64,
        /// Inodes that the archive had.
        had: u64,
    },
    /// A path that is not in the tree.
    #[error("{}: not found in the archive", path.display())]
    NotFound {
        /// The path, as it was asked for.
        path: PathBuf,
    },
    /// Something is in the way and would have to be replaced.
    #[error("{}: exists already", path.display())]
    Exists {
        /// What is in the way.
        path: PathBuf,
    },
    /// A path that the user gave cannot be used.
    #[error("{}: {why}", path.display())]
    BadPath {
        /// The path.
        path: PathBuf,
        /// Why not.
        why: &'static str,
    },
    /// No portal has this name.
    #[error("portal {name}: this device has no portal of that name")]
    NoPortal {
        /// The name, as it was asked for.
        name: String,
        /// A portal with a similar name.
        nearest: Option<String>,
    },
    /// A name that a portal cannot have.
    #[error("portal {name}: {why}")]
    BadName {
        /// The name.
        name: String,
        /// Why not.
        why: &'static str,
    },
    /// A portal has no snapshot of this name.
    #[error("snapshot {name}: the portal has none of that name")]
    NoSnapshot {
        /// The name, as it was asked for.
        name: String,
        /// A snapshot with a similar name.
        nearest: Option<String>,
    },
    /// A name that a snapshot cannot have.
    #[error("snapshot {name}: {why}")]
    BadSnapshot {
        /// The name.
        name: String,
        /// Why not.
        why: &'static str,
    },
    /// Another process has it open.
    #[error("{what}: another process has it open")]
    InUse {
        /// What.
        what: String,
    },
    /// A file operation that POSIX says must fail.
    #[error("{0}")]
    Refused(Refusal),
    /// What has been written cannot be published, and no more is taken.
    #[error("nothing more can be written: {why}")]
    Stalled {
        /// What keeps it from being published.
        why: Arc<Self>,
    },
    /// Whoever asked was told that it failed, and waits no longer.
    #[error("it took too long, and nobody waits for it any more")]
    GivenUp,
    /// The user stopped it.
    #[error("interrupted")]
    Interrupted,
}

/// Why a file operation fails that is not at fault itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The inode, or what the name leads to, is not there.
    #[error("no such file or directory")]
    Missing,
    /// The name is taken.
    #[error("file exists")]
    Exists,
    /// A directory with something in it.
    #[error("directory not empty")]
    NotEmpty,
    /// It must be a directory.
    #[error("not a directory")]
    NotADirectory,
    /// It must not be a directory.
    #[error("is a directory")]
    IsADirectory,
    /// There is no attribute of that name.
    #[error("no such attribute")]
    NoAttribute,
    /// An argument has no meaning here.
    #[error("invalid argument")]
    Invalid,
    /// A name over 255 bytes.
    #[error("name too long")]
    NameTooLong,
    /// A file larger than any may be.
    #[error("file too large")]
    TooLarge,
    /// An attribute's value over 64 KiB.
    #[error("attribute too large")]
    AttributeTooLarge,
    /// Something that this filesystem does not keep.
    #[error("operation not supported")]
    Unsupported,
    /// It is on another file system.
    #[error("invalid cross-device link")]
    Elsewhere,
    /// Something that is not the caller's to change, whoever that is.
    #[error("operation not permitted")]
    NotPermitted,
    /// Nothing may be changed here.
    #[error("read-only file system")]
    ReadOnly,
    /// The disk has no more room than deleting needs.
    #[error("no space left on device")]
    NoSpace,
    /// The portal takes as much of the disk as it may.
    #[error("disk quota exceeded")]
    Quota,
}

impl From<Refusal> for FlowError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// What kind of failure it is: the command line makes an exit code of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Anything else.
    Failed,
    /// The command was used wrongly.
    Usage,
    /// Some items could not be read; the rest was done.
    Partial,
    /// Something named is not there.
    NotFound,
    /// A hash, tag or signature does not match.
    Integrity,
    /// A wrong passphrase or phrase.
    Refused,
    /// A disk or a quota is full.
    Full,
    /// In use by something else.
    Busy,
    /// No peer is there that could help; a later try may find one.
    Temporary,
    /// Stopped by a signal.
    Interrupted,
}

impl FlowError {
    /// An I/O error about `path`.
    pub fn io(path: impl Into<PathBuf>, source: impl Into<io::Error>) -> Self {
        Self::Io { path: path.into(), source: Arc::new(source.into()) }
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::NotFound => Kind::NotFound,
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Kind::Full,
                io::ErrorKind::ResourceBusy => Kind::Busy,
                _ => Kind::Failed,
            },
            // Inside of an archive that this warp reads, another version is
            // damage.
            Self::File { source: FormatError::Version { .. }, .. } => Kind::Failed,
            Self::File { source, .. } | Self::Corrupt(source) => match source {
                FormatError::WrongKey { .. } | FormatError::Locked => Kind::Refused,
                _ => Kind::Integrity,
            },
            Self::Unreachable { .. } | Self::FounderAway => Kind::Temporary,
            Self::NotWriter | Self::JoinedAlready { .. } => Kind::Usage,
            Self::NotFounder { .. }
            | Self::NotMember
            | Self::NotAllowed { .. }
            | Self::NoRight { .. }
            | Self::KeepsOnly => Kind::Refused,
            Self::Unchanged { why } => match why {
                Unchanged::NotAllowed | Unchanged::NotFounder => Kind::Refused,
                Unchanged::Invalid => Kind::Usage,
                Unchanged::Failed => Kind::Failed,
            },
            Self::NotShared | Self::NoMember { .. } => Kind::NotFound,
            Self::Net(error) => match error {
                warp_net::NetError::Denied { .. } | warp_net::NetError::Refused { .. } => {
                    Kind::Refused
                }
                error if error.is_retryable() => Kind::Temporary,
                _ => Kind::Failed,
            },
            Self::Forked { .. } => Kind::Integrity,
            Self::Missing { .. } | Self::Lost { .. } | Self::LostFiles { .. } => Kind::Integrity,
            Self::Store(error) => match &**error {
                CacheError::Missing { .. }
                | CacheError::Corrupt { .. }
                | CacheError::Lost { .. } => Kind::Integrity,
                CacheError::Doubtful { .. } => Kind::Failed,
                CacheError::Io { source, .. } => match source.kind() {
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Kind::Full,
                    _ => Kind::Failed,
                },
            },
            Self::NotFound { .. } | Self::NoPortal { .. } | Self::NoSnapshot { .. } => {
                Kind::NotFound
            }
            Self::Exists { .. }
            | Self::BadPath { .. }
            | Self::BadName { .. }
            | Self::BadSnapshot { .. } => Kind::Usage,
            Self::InUse { .. } => Kind::Busy,
            Self::Refused(Refusal::Missing) => Kind::NotFound,
            Self::Refused(Refusal::NoSpace | Refusal::Quota) => Kind::Full,
            Self::Refused(_) => Kind::Usage,
            Self::Stalled { why } => why.kind(),
            Self::GivenUp => Kind::Failed,
            Self::Interrupted => Kind::Interrupted,
        }
    }

    /// True if a peer may have it later.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }

    /// True if stored bytes are damaged or missing, as opposed to a disk or a
    /// user that refuses.
    pub fn is_damage(&self) -> bool {
        self.kind() == Kind::Integrity
    }
}

impl From<Arc<Self>> for FlowError {
    fn from(shared: Arc<Self>) -> Self {
        Self::clone(&shared)
    }
}

impl From<CacheError> for FlowError {
    fn from(error: CacheError) -> Self {
        match error {
            CacheError::Missing { id } => Self::Missing { id },
            other => Self::Store(Arc::new(other)),
        }
    }
}

/// Result of this crate.
pub type Result<T, E = FlowError> = std::result::Result<T, E>;
