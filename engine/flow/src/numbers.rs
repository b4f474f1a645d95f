//! Inode numbers of a mounted portal.
//!
//! An inode's number is a keyed hash of its id, so that it is the same after
//! every mount and tells nothing. Promises: no two inodes that the kernel
//! knows share a number, whatever the hash does; the root is 1. Never: keeps
//! what the kernel has forgotten. Tested by the unit tests below.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use warp_format::FileId;

/// The root's number.
pub(crate) const ROOT: u64 = 1;

/// Numbers of inodes, and which of them the kernel knows.
pub(crate) struct Numbers {
    key: [u8; 32],
    root: FileId,
    table: RwLock<Table>,
}

#[derive(Default)]
struct Table {
    known: HashMap<u64, Known>,
    /// Known inodes whose first number another one has.
    moved: HashMap<FileId, u64>,
}

struct Known {
    file: FileId,
    /// How often the kernel was told of it and has not forgotten.
    lookups: u64,
}

impl Numbers {
    /// Under this key, with this root.
    pub(crate) fn new(key: [u8; 32], root: FileId) -> Self {
        Self { key, root, table: RwLock::default() }
    }

    fn read(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The inode behind a number that the kernel knows.
    pub(crate) fn file(&self, number: u64) -> Option<FileId> {
        if number == ROOT {
            return Some(self.root);
        }
        self.read().known.get(&number).map(|known| known.file)
    }

    /// True if the kernel knows an inode.
    pub(crate) fn knows(&self, file: FileId) -> bool {
        let table = self.read();
        let number = self.free_for(&table, file);
        table.known.contains_key(&number)
    }

    /// The number of an inode, whether the kernel knows it or not.
    pub(crate) fn number(&self, file: FileId) -> u64 {
        if file == self.root { ROOT } else { self.free_for(&self.read(), file) }
    }

    /// The same; the kernel is told of it.
    pub(crate) fn retain(&self, file: FileId) -> u64 {
        if file == self.root {
            return ROOT;
        }
        let mut table = self.write();
        let number = self.free_for(&table, file);
        let known = table.known.entry(number).or_insert(Known { file, lookups: 0 });
        known.lookups += 1;
        if number != self.probe(file, 0) {
            table.moved.insert(file, number);
        }
        number
    }

    /// The kernel has forgotten it `count` times; gives the inode if it knows
    /// it no more.
    pub(crate) fn forget(&self, number: u64, count: u64) -> Option<FileId> {
        let mut table = self.write();
        let known = table.known.get_mut(&number)?;
        known.lookups = known.lookups.saturating_sub(count);
        if known.lookups > 0 {
            return None;
        }
        let file = table.known.remove(&number)?.file;
        table.moved.remove(&file);
        Some(file)
    }

    fn free_for(&self, table: &Table, file: FileId) -> u64 {
        if let Some(number) = table.moved.get(&file) {
            return *number;
        }
        let numbers = (0..).map(|attempt| self.probe(file, attempt));
        let free = |number: &u64| {
            *number > ROOT && table.known.get(number).is_none_or(|known| known.file == file)
        };
        // Ends: the kernel knows fewer inodes than there are numbers.
        numbers.into_iter().find(free).unwrap_or(u64::MAX)
    }

    fn probe(&self, file: FileId, attempt: u32) -> u64 {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(&file.0).update(&attempt.to_le_bytes());
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
        // Programs that keep it in a signed number see what others see.
        u64::from_le_bytes(bytes) >> 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_known_until_it_is_forgotten_as_often_as_it_was_told() {
        let numbers = Numbers::new([1; 32], FileId::ROOT);
        let file = FileId([5; 16]);
        let number = numbers.number(file);
        assert_eq!(numbers.file(number), None);
        assert_eq!((numbers.retain(file), numbers.retain(file)), (number, number));
        assert_eq!(numbers.forget(number, 1), None);
        assert_eq!(numbers.file(number), Some(file));
        assert_eq!(numbers.forget(number, 1), Some(file));
        assert_eq!((numbers.file(number), numbers.file(ROOT)), (None, Some(FileId::ROOT)));
    }

    #[test]
    fn two_inodes_with_one_hash_get_two_numbers_and_keep_them() {
        let numbers = Numbers::new([1; 32], FileId::ROOT);
        let (first, second) = (FileId([5; 16]), FileId([6; 16]));
        let taken = numbers.probe(second, 0);
        numbers.write().known.insert(taken, Known { file: first, lookups: 1 });
        let number = numbers.retain(second);
        assert_ne!(number, taken);
        // The one in the way goes; the other stays where the kernel knows it.
        assert_eq!(numbers.forget(taken, 1), Some(first));
        assert_eq!((numbers.number(second), numbers.retain(second)), (number, number));
        assert_eq!(numbers.forget(number, 2), Some(second));
        assert_eq!(numbers.number(second), taken);
    }
}
