//! Who owns what is shown, and who what is made: stored owners to shown ones,
//! and back.
//!
//! Neighbours: `attr` shows, `ops` stores. Promises: what a mount shows as
//! somebody's is stored as that one's again when it is written back; an owner
//! that would come back as another one is refused. Tested below and by
//! `tests/tests/owners.rs`.

use std::fmt;

/// Who is shown where a stored owner has no place among the shown ones:
/// `nobody`, as the kernel does it.
const OVERFLOW: u32 = 65_534;
/// Ranges in one map. An answer to the kernel carries the map along.
const MAX_RANGES: usize = 8;

/// Attributes that hold ids: POSIX ACLs.
const ACLS: [&[u8]; 2] = [b"system.posix_acl_access", b"system.posix_acl_default"];
/// Their layout: a version, then entries of tag, permissions and id.
const ACL_HEAD_LEN: usize = 4;
const ACL_ENTRY_LEN: usize = 8;
const ACL_USER: u16 = 0x02;
const ACL_GROUP: u16 = 0x08;

/// Who owns what is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owners {
    /// As stored: a mount by root.
    Stored,
    /// All of it this user: an ordinary user's mount, in which files of
    /// another owner could not be read.
    Mounter {
        /// User.
        uid: u32,
        /// Group.
        gid: u32,
        /// The user and group that new files are stored as: those of what is
        /// mounted.
        default: (u32, u32),
    },
    /// A mount by root that shows owners as others.
    Mapped {
        /// Users.
        users: IdMap,
        /// Groups.
        groups: IdMap,
    },
}

impl Owners {
    /// Who is shown as the owner.
    pub(crate) fn shown(&self, uid: u32, gid: u32) -> (u32, u32) {
        match self {
            Self::Stored => (uid, gid),
            Self::Mounter { uid, gid, .. } => (*uid, *gid),
            Self::Mapped { users, groups } => (users.shown(uid), groups.shown(gid)),
        }
    }

    /// Whom a file that this caller makes is stored as; `None` if it would
    /// not be shown as the caller's.
    pub(crate) fn of_new(&self, uid: u32, gid: u32) -> Option<(u32, u32)> {
        match self {
            Self::Stored => Some((uid, gid)),
            Self::Mounter { default, .. } => Some(*default),
            Self::Mapped { users, groups } => Some((users.stored(uid)?, groups.stored(gid)?)),
        }
    }

    /// The stored user for one that is given to a file; `None` as above.
    pub(crate) fn stored_uid(&self, given: u32) -> Option<u32> {
        match self {
            Self::Stored => Some(given),
            Self::Mounter { uid, default, .. } => Some(swapped(given, *uid, default.0)),
            Self::Mapped { users, .. } => users.stored(given),
        }
    }

    /// The stored group for one that is given to a file; `None` as above.
    pub(crate) fn stored_gid(&self, given: u32) -> Option<u32> {
        match self {
            Self::Stored => Some(given),
            Self::Mounter { gid, default, .. } => Some(swapped(given, *gid, default.1)),
            Self::Mapped { groups, .. } => groups.stored(given),
        }
    }

    /// An extended attribute as it is shown: the ids in an ACL are shown ones.
    pub(crate) fn xattr_shown(&self, name: &[u8], value: Vec<u8>) -> Vec<u8> {
        let user = |id| match self {
            Self::Mounter { uid, default, .. } => swapped(id, default.0, *uid),
            _ => self.shown(id, 0).0,
        };
        let group = |id| match self {
            Self::Mounter { gid, default, .. } => swapped(id, default.1, *gid),
            _ => self.shown(0, id).1,
        };
        if *self == Self::Stored || !ACLS.contains(&name) {
            return value;
        }
        with_ids(&value, |id| Some(user(id)), |id| Some(group(id))).unwrap_or(value)
    }

    /// An extended attribute as it is stored; `None` if an ACL names somebody
    /// who cannot be.
    pub(crate) fn xattr_stored(&self, name: &[u8], value: &[u8]) -> Option<Vec<u8>> {
        if *self == Self::Stored || !ACLS.contains(&name) {
            return Some(value.to_vec());
        }
        with_ids(value, |id| self.stored_uid(id), |id| self.stored_gid(id))
    }
}

/// One id for another; all else as it is.
fn swapped(id: u32, from: u32, to: u32) -> u32 {
    if id == from { to } else { id }
}

/// An ACL with other ids. What is no ACL is left as it is, for the store to
/// refuse.
fn with_ids(
    acl: &[u8],
    user: impl Fn(u32) -> Option<u32>,
    group: impl Fn(u32) -> Option<u32>,
) -> Option<Vec<u8>> {
    let mut out = acl.to_vec();
    for entry in out.get_mut(ACL_HEAD_LEN..).unwrap_or_default().chunks_exact_mut(ACL_ENTRY_LEN) {
        let [t0, t1, _, _, id @ ..] = entry else { continue };
        let old = u32::from_le_bytes([id[0], id[1], id[2], id[3]]);
        let new = match u16::from_le_bytes([*t0, *t1]) {
            ACL_USER => user(old)?,
            ACL_GROUP => group(old)?,
            _ => old,
        };
        id.copy_from_slice(&new.to_le_bytes());
    }
    Some(out)
}

/// Which stored ids are shown as which others. Those that are not named are
/// shown as they are, unless another one is shown in their place already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct IdMap {
    ranges: [IdRange; MAX_RANGES],
    len: usize,
}

/// `count` ids from `from` on, shown as those from `to` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct IdRange {
    /// The first stored id.
    pub from: u32,
    /// The first shown id.
    pub to: u32,
    /// How many.
    pub count: u32,
}

/// Why a range cannot be in a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdMapError {
    /// It is empty.
    #[error("maps nobody")]
    Nobody,
    /// It ends behind the last id there can be.
    #[error("names an id that is no user or group")]
    NoSuchId,
    /// An id is in it and in another one.
    #[error("names an id twice")]
    Twice,
    /// There are too many.
    #[error("there may be {MAX_RANGES} ranges, and not more")]
    TooMany,
}

impl IdMap {
    /// Adds a range.
    pub fn add(&mut self, from: u32, to: u32, count: u32) -> Result<(), IdMapError> {
        let new = IdRange { from, to, count };
        if count == 0 {
            return Err(IdMapError::Nobody);
        }
        // The last number means "no id" to the kernel.
        if from.checked_add(count).is_none() || to.checked_add(count).is_none() {
            return Err(IdMapError::NoSuchId);
        }
        let overlaps = |a: u32, b: u32, b_count: u32| a < b + b_count && b < a + count;
        if self.ranges().any(|r| overlaps(from, r.from, r.count) || overlaps(to, r.to, r.count)) {
            return Err(IdMapError::Twice);
        }
        let slot = self.ranges.get_mut(self.len).ok_or(IdMapError::TooMany)?;
        *slot = new;
        self.len += 1;
        Ok(())
    }

    /// What was added.
    pub fn ranges(&self) -> impl Iterator<Item = IdRange> + '_ {
        self.ranges.iter().take(self.len).copied()
    }

    /// True if it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn shown(&self, id: u32) -> u32 {
        let into =
            |r: IdRange| (id >= r.from && id - r.from < r.count).then(|| r.to + (id - r.from));
        if let Some(shown) = self.ranges().find_map(into) {
            return shown;
        }
        if self.is_shown_for_another(id) { OVERFLOW } else { id }
    }

    fn stored(&self, id: u32) -> Option<u32> {
        let back = |r: IdRange| (id >= r.to && id - r.to < r.count).then(|| r.from + (id - r.to));
        if let Some(stored) = self.ranges().find_map(back) {
            return Some(stored);
        }
        let from = |r: IdRange| id >= r.from && id - r.from < r.count;
        // Stored as itself, it would be shown as somebody else.
        (!self.ranges().any(from)).then_some(id)
    }

    fn is_shown_for_another(&self, id: u32) -> bool {
        self.ranges().any(|r| id >= r.to && id - r.to < r.count)
    }
}

impl fmt::Display for IdRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.count {
            1 => write!(f, "{}:{}", self.from, self.to),
            count => write!(f, "{}:{}:{count}", self.from, self.to),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(ranges: &[(u32, u32, u32)]) -> IdMap {
        let mut map = IdMap::default();
        for (from, to, count) in ranges {
            map.add(*from, *to, *count).unwrap();
        }
        map
    }

    #[test]
    fn what_is_shown_is_stored_as_it_was() {
        let maps = [
            map(&[]),
            map(&[(1000, 1001, 1)]),
            map(&[(1000, 1001, 1), (1001, 1000, 1)]),
            map(&[(0, 100_000, 65_536), (70_000, 0, 10)]),
            map(&[(5, 7, 4)]),
        ];
        for map in maps {
            for id in (0..2000).chain([65_533, 65_534, 65_535, 70_000, 100_000, 165_535, 165_536]) {
                let shown = map.shown(id);
                if shown != OVERFLOW || id == OVERFLOW {
                    assert_eq!(map.stored(shown), Some(id), "{map:?} {id}");
                }
                if let Some(stored) = map.stored(id) {
                    assert_eq!(map.shown(stored), id, "{map:?} {id}");
                }
            }
        }
    }

    #[test]
    fn whom_a_map_leaves_no_place_is_nobody() {
        let map = map(&[(1000, 1001, 1)]);
        assert_eq!((map.shown(1000), map.shown(1001), map.shown(7)), (1001, OVERFLOW, 7));
        assert_eq!(
            (map.stored(1001), map.stored(1000), map.stored(7)),
            (Some(1000), None, Some(7))
        );
    }

    #[test]
    fn a_range_that_means_two_things_is_refused() {
        let mut map = map(&[(10, 20, 5)]);
        let ranges = [
            ((0, 0, 0), IdMapError::Nobody),
            ((14, 50, 1), IdMapError::Twice),
            ((50, 24, 3), IdMapError::Twice),
            ((8, 50, 3), IdMapError::Twice),
            ((u32::MAX, 0, 1), IdMapError::NoSuchId),
            ((1, u32::MAX - 1, 2), IdMapError::NoSuchId),
        ];
        for ((from, to, count), why) in ranges {
            assert_eq!(map.add(from, to, count), Err(why), "{from}:{to}:{count}");
        }
        for n in 1..MAX_RANGES as u32 {
            map.add(100 * n, 100 * n, 1).unwrap();
        }
        assert_eq!(map.add(1, 1, 1), Err(IdMapError::TooMany));
    }

    #[test]
    fn an_ordinary_users_files_are_the_portal_owners() {
        let owners = Owners::Mounter { uid: 1000, gid: 100, default: (7, 8) };
        assert_eq!(owners.shown(42, 43), (1000, 100));
        assert_eq!(owners.of_new(1000, 100), Some((7, 8)));
        assert_eq!(owners.of_new(2000, 200), Some((7, 8)));
        assert_eq!((owners.stored_uid(1000), owners.stored_gid(100)), (Some(7), Some(8)));
        assert_eq!(owners.stored_gid(50), Some(50));
    }

    /// `u::rw-,u:ID:r--,g::r--,g:ID:r--,m::r--,o::---`.
    fn acl(uid: u32, gid: u32) -> Vec<u8> {
        let none = u32::MAX;
        let entries = [(1, none), (2, uid), (4, none), (8, gid), (16, none), (32, none)];
        let entry = |(tag, id): (u16, u32)| {
            [&tag.to_le_bytes()[..], &4u16.to_le_bytes(), &id.to_le_bytes()].concat()
        };
        [2u32.to_le_bytes().to_vec(), entries.into_iter().flat_map(entry).collect()].concat()
    }

    #[test]
    fn the_ids_in_an_acl_are_shown_and_stored_like_owners() {
        let name = b"system.posix_acl_access";
        let mapped = Owners::Mapped { users: map(&[(5, 6, 1)]), groups: map(&[(7, 8, 1)]) };
        assert_eq!(mapped.xattr_shown(name, acl(5, 7)), acl(6, 8));
        assert_eq!(mapped.xattr_stored(name, &acl(6, 8)), Some(acl(5, 7)));
        assert_eq!(mapped.xattr_stored(name, &acl(5, 8)), None);
        let mounter = Owners::Mounter { uid: 6, gid: 8, default: (5, 7) };
        assert_eq!(mounter.xattr_shown(name, acl(5, 7)), acl(6, 8));
        assert_eq!(mounter.xattr_shown(name, acl(50, 70)), acl(50, 70));
        assert_eq!(mounter.xattr_stored(name, &acl(6, 8)), Some(acl(5, 7)));
        // Other attributes, and what is no ACL, are bytes.
        assert_eq!(mapped.xattr_stored(b"user.x", &acl(5, 8)), Some(acl(5, 8)));
        for garbage in [&b""[..], b"\x02", b"\x02\0\0\0\x02\0\0"] {
            assert_eq!(mapped.xattr_shown(name, garbage.to_vec()), garbage);
            assert_eq!(mapped.xattr_stored(name, garbage), Some(garbage.to_vec()));
        }
    }
}
