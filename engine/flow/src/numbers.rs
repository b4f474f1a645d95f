//! Inode numbers of a mounted portal.
//!
//! An inode's number is a keyed hash of its id, so that it is the same after
//! every mount and tells nothing; in a snapshot, of its id and the snapshot.
//! Promises: no two inodes that the kernel
//! knows share a number, whatever the hash does; the root is 1. Never: keeps
//! what the kernel has forgotten. Tested by the unit tests below.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use warp_format::FileId;

/// The root's number.
pub(crate) const ROOT: u64 = 1;

/// An inode of what is live, or of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Node {
    pub(crate) file: FileId,
    /// 0: what is live; else which snapshot's tree it is in.
    pub(crate) view: u32,
}

impl Node {
    /// The directory of all snapshots: an id that no inode has.
    pub(crate) const SNAPSHOTS: Self = Self { file: FileId::META, view: 0 };

    pub(crate) fn live(file: FileId) -> Self {
        Self { file, view: 0 }
    }

    /// True for what changes, and can be changed.
    pub(crate) fn is_live(self) -> bool {
        self.view == 0 && self != Self::SNAPSHOTS
    }
}

/// Numbers of inodes, and which of them the kernel knows.
pub(crate) struct Numbers {
    key: [u8; 32],
    root: Node,
    table: RwLock<Table>,
}

#[derive(Default)]
struct Table {
    known: HashMap<u64, Known>,
    /// Known inodes whose first number another one has.
    moved: HashMap<Node, u64>,
    /// Of each snapshot that was looked at: which it is, and how many of its
    /// inodes are known.
    views: Vec<([u8; 32], usize)>,
}

struct Known {
    node: Node,
    /// How often the kernel was told of it and has not forgotten.
    lookups: u64,
}

impl Table {
    fn view_of(&mut self, node: Node) -> Option<&mut ([u8; 32], usize)> {
        self.views.get_mut((node.view as usize).wrapping_sub(1))
    }
}

impl Numbers {
    /// Under this key, with this root.
    pub(crate) fn new(key: [u8; 32], root: FileId) -> Self {
        Self { key, root: Node::live(root), table: RwLock::default() }
    }

    fn read(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The inode that is shown as the root.
    pub(crate) fn root(&self) -> Node {
        self.root
    }

    /// Which view shows this snapshot.
    pub(crate) fn view(&self, snapshot: [u8; 32]) -> u32 {
        let mut table = self.write();
        let at = table.views.iter().position(|(other, _)| *other == snapshot);
        let at = at.unwrap_or_else(|| {
            table.views.push((snapshot, 0));
            table.views.len() - 1
        });
        at as u32 + 1
    }

    /// True if the kernel knows an inode of this view.
    pub(crate) fn sees(&self, view: u32) -> bool {
        let table = self.read();
        let at = (view as usize).wrapping_sub(1);
        table.views.get(at).is_some_and(|(_, known)| *known > 0)
    }

    /// The inode behind a number that the kernel knows.
    pub(crate) fn node(&self, number: u64) -> Option<Node> {
        if number == ROOT {
            return Some(self.root);
        }
        self.read().known.get(&number).map(|known| known.node)
    }

    /// True if the kernel knows an inode.
    pub(crate) fn knows(&self, node: Node) -> bool {
        let table = self.read();
        let number = self.free_for(&table, node);
        table.known.contains_key(&number)
    }

    /// The live inodes that the kernel knows, and the root, in order of their
    /// ids, with their numbers.
    pub(crate) fn live(&self) -> Vec<(FileId, u64)> {
        let table = self.read();
        let known = table.known.iter().filter(|(_, known)| known.node.is_live());
        let mut all: Vec<_> = known.map(|(number, known)| (known.node.file, *number)).collect();
        all.push((self.root.file, ROOT));
        all.sort_unstable();
        all
    }

    /// The number of an inode, whether the kernel knows it or not.
    pub(crate) fn number(&self, node: Node) -> u64 {
        if node == self.root { ROOT } else { self.free_for(&self.read(), node) }
    }

    /// The same; the kernel is told of it.
    pub(crate) fn retain(&self, node: Node) -> u64 {
        if node == self.root {
            return ROOT;
        }
        let mut table = self.write();
        let number = self.free_for(&table, node);
        let known = table.known.entry(number).or_insert(Known { node, lookups: 0 });
        known.lookups += 1;
        let is_new = known.lookups == 1;
        if let (true, Some((_, known))) = (is_new, table.view_of(node)) {
            *known += 1;
        }
        if number != self.probe(&table, node, 0) {
            table.moved.insert(node, number);
        }
        number
    }

    /// The kernel has forgotten it `count` times; gives the inode if it knows
    /// it no more.
    pub(crate) fn forget(&self, number: u64, count: u64) -> Option<Node> {
        let mut table = self.write();
        let known = table.known.get_mut(&number)?;
        known.lookups = known.lookups.saturating_sub(count);
        if known.lookups > 0 {
            return None;
        }
        let node = table.known.remove(&number)?.node;
        table.moved.remove(&node);
        if let Some((_, known)) = table.view_of(node) {
            *known -= 1;
        }
        Some(node)
    }

    fn free_for(&self, table: &Table, node: Node) -> u64 {
        if let Some(number) = table.moved.get(&node) {
            return *number;
        }
        let numbers = (0..).map(|attempt| self.probe(table, node, attempt));
        let free = |number: &u64| {
            *number > ROOT && table.known.get(number).is_none_or(|known| known.node == node)
        };
        // Ends: the kernel knows fewer inodes than there are numbers.
        numbers.into_iter().find(free).unwrap_or(u64::MAX)
    }

    fn probe(&self, table: &Table, node: Node, attempt: u32) -> u64 {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(&node.file.0).update(&attempt.to_le_bytes());
        let at = (node.view as usize).wrapping_sub(1);
        if let Some((snapshot, _)) = table.views.get(at) {
            hasher.update(snapshot);
        }
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
        let file = Node::live(FileId([5; 16]));
        let number = numbers.number(file);
        assert_eq!(numbers.node(number), None);
        assert_eq!((numbers.retain(file), numbers.retain(file)), (number, number));
        assert_eq!(numbers.forget(number, 1), None);
        assert_eq!(numbers.node(number), Some(file));
        assert_eq!(numbers.forget(number, 1), Some(file));
        assert_eq!((numbers.node(number), numbers.node(ROOT)), (None, Some(numbers.root())));
    }

    #[test]
    fn two_inodes_with_one_hash_get_two_numbers_and_keep_them() {
        let numbers = Numbers::new([1; 32], FileId::ROOT);
        let (first, second) = (Node::live(FileId([5; 16])), Node::live(FileId([6; 16])));
        let taken = numbers.probe(&Table::default(), second, 0);
        numbers.write().known.insert(taken, Known { node: first, lookups: 1 });
        let number = numbers.retain(second);
        assert_ne!(number, taken);
        // The one in the way goes; the other stays where the kernel knows it.
        assert_eq!(numbers.forget(taken, 1), Some(first));
        assert_eq!((numbers.number(second), numbers.retain(second)), (number, number));
        assert_eq!(numbers.forget(number, 2), Some(second));
        assert_eq!(numbers.number(second), taken);
    }

    #[test]
    fn an_inode_has_another_number_in_each_snapshot() {
        let numbers = Numbers::new([1; 32], FileId::ROOT);
        let views = [0, numbers.view([1; 32]), numbers.view([2; 32])];
        assert_eq!(numbers.view([1; 32]), views[1]);
        let told = views.map(|view| numbers.retain(Node { file: FileId([5; 16]), view }));
        assert!(told[0] != told[1] && told[1] != told[2] && told[0] != told[2], "{told:?}");
        assert!(numbers.sees(views[1]) && numbers.sees(views[2]));
        numbers.forget(told[1], 1);
        assert!(!numbers.sees(views[1]) && numbers.sees(views[2]) && !numbers.sees(0));
    }
}
