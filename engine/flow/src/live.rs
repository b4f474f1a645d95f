//! A portal's local state: a published tree, what has changed since, and the
//! journal that makes changes durable.
//!
//! Neighbours: the file operations (above, in the next step), `overlay` for
//! what has changed, `publish` for folding it into a new tree, `cache` for
//! store and journal. Promises: after `commit` returns, every change applied
//! before survives a power cut, whatever `publish` was doing; what was never
//! applied never appears. Never: writes a name, an attribute or a byte of
//! content to the disk unsealed.
//! Tested by `engine/flow/tests/model_live.rs` and `crash_live.rs`.

use crate::archive::ReadKeys;
use crate::error::{FlowError, Result};
use crate::overlay::Overlay;
use crate::publish;
use crate::reader::TreeReader;
use std::sync::Arc;
use warp_cache::disk::Disk;
use warp_cache::journal::{Journal, Nonces};
use warp_cache::store::Store;
use warp_format::change::{Change, decode_changes, encode_changes};
use warp_format::keys::SigningKey;
use warp_format::local::{LocalKey, MAX_ENTRY_LEN};
use warp_format::record::{Key, Record};
use warp_format::{ContentSecret, FileId, FormatError, Head, NamingKeys, PortalId, Sealer, Secret};

/// What a portal's state on this device is sealed and signed with.
pub struct PortalSecrets {
    /// The portal.
    pub portal: PortalId,
    /// Names, cuts and content derive from it.
    pub root: Secret,
    /// Seals the journal; used for nothing else.
    pub local: Secret,
    /// This device's signing key.
    pub device: Secret,
}

impl PortalSecrets {
    pub(crate) fn read_keys(&self) -> ReadKeys {
        ReadKeys { naming: NamingKeys::derive(&self.root), sealer: self.sealer() }
    }

    pub(crate) fn sealer(&self) -> Sealer {
        Sealer::new(ContentSecret::derive(&self.root, 0), 0)
    }

    pub(crate) fn signing_key(&self) -> SigningKey {
        SigningKey::from_seed(&self.device)
    }
}

/// The published tree, if there is one yet.
pub(crate) type Base = Option<TreeReader<Arc<Store>>>;

/// A portal's state, open for change.
pub struct Live {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) store: Arc<Store>,
    pub(crate) secrets: PortalSecrets,
    pub(crate) journal: Journal,
    pub(crate) overlay: Overlay,
    pub(crate) base: Base,
    /// The last head; `None` before the first.
    pub(crate) head: Option<Head>,
}

impl Live {
    /// Opens the state on this disk, or starts one: the newest head, and on
    /// top of it whatever the journal holds.
    pub fn open(disk: Arc<dyn Disk>, secrets: PortalSecrets, nonces: Nonces) -> Result<Self> {
        let (store, _) = Store::open(Arc::clone(&disk))?;
        let store = Arc::new(store);
        let head = publish::newest_head(&*disk, &secrets)?;
        let local = LocalKey::new(secrets.local.clone());
        let (journal, entries) = Journal::open(Arc::clone(&disk), local, nonces)?;
        let mut live = Self {
            disk,
            store,
            secrets,
            journal,
            overlay: Overlay::default(),
            base: None,
            head: None,
        };
        if let Some(head) = head {
            live.set_base(head);
        }
        // Changes that a publish had folded already may come again (the power
        // went before their journal was removed): applied in order to what
        // they led to, they lead there again.
        for entry in entries {
            for change in decode_changes(&entry)? {
                live.check_published(&change)?;
                live.overlay.apply(&live.base, change)?;
            }
        }
        Ok(live)
    }

    pub(crate) fn set_base(&mut self, head: Head) {
        let keys = self.secrets.read_keys();
        self.base = Some(TreeReader::new(Arc::clone(&self.store), keys, head.root));
        self.head = Some(head);
    }

    /// Sequence number of the last head; 0 before the first.
    pub fn sequence(&self) -> u64 {
        self.head.as_ref().map_or(0, |head| head.sequence)
    }

    /// A head that the journal says was durable must be there: what it holds
    /// is in no journal any more.
    fn check_published(&self, change: &Change) -> Result<()> {
        match change {
            Change::Published(sequence) if *sequence > self.sequence() => {
                Err(FlowError::Lost { what: "last head" })
            }
            _ => Ok(()),
        }
    }

    /// Makes changes, all of them or none: they are seen at once, and durable
    /// after the next [`Self::commit`].
    pub fn apply(&mut self, changes: Vec<Change>) -> Result<()> {
        // What a truncation has to read is read first: a disk that fails here
        // fails before anything is changed.
        for change in &changes {
            if let Change::Truncate { file, len } = change {
                self.overlay.extents(&self.base, *file, *len, u64::MAX)?;
            }
        }
        let entry = encode_changes(&changes);
        if entry.len() > MAX_ENTRY_LEN {
            let (value, limit) = (entry.len() as u64, MAX_ENTRY_LEN as u64);
            return Err(FormatError::Limit { at: "changes", value, limit }.into());
        }
        // What the journal would not give back must not go in.
        decode_changes(&entry)?;
        self.journal.append(&entry);
        changes.into_iter().try_for_each(|change| self.overlay.apply(&self.base, change))
    }

    /// Makes every change so far durable.
    pub fn commit(&mut self) -> Result<()> {
        Ok(self.journal.commit()?)
    }

    /// The record under a key.
    pub fn get(&self, key: &Key) -> Result<Option<Record>> {
        self.overlay.get(&self.base, key)
    }

    /// All records of an inode from this key on, in order.
    pub fn records_of(&self, file: FileId, from: &Key) -> Result<Vec<(Key, Record)>> {
        self.overlay.records_of(&self.base, file, from)
    }

    /// Bytes of a file: `len` of them from `offset`, zeros where nothing was
    /// written. Its length is for the caller to know.
    pub fn read(&self, file: FileId, offset: u64, len: usize) -> Result<Vec<u8>> {
        self.overlay.read(&self.base, file, offset, len)
    }

    /// Folds every change into a new tree and a signed head, and lets go of
    /// the journal that held them.
    pub fn publish(&mut self) -> Result<Head> {
        publish::publish(self)
    }
}
