//! POSIX access control lists, as far as a filesystem has to know them: what
//! they say of an inode's mode, what its mode says of them, and what a new
//! inode inherits. The kernel decides who may do what.
//!
//! Promises: a list that is not whole is refused. Never: looks up a user.
//! Tested by the unit tests below and `tests/tests/portal.rs`.

/// Attribute of the list that grants access.
pub(crate) const ACCESS: &[u8] = b"system.posix_acl_access";
/// Attribute of the list that new entries of a directory inherit.
pub(crate) const DEFAULT: &[u8] = b"system.posix_acl_default";

const VERSION: u32 = 2;
const ENTRY_LEN: usize = 8;
const NO_ID: u32 = u32::MAX;

const USER_OBJ: u16 = 1;
const USER: u16 = 2;
const GROUP_OBJ: u16 = 4;
const GROUP: u16 = 8;
const MASK: u16 = 16;
const OTHER: u16 = 32;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    tag: u16,
    permissions: u16,
    id: u32,
}

/// A list, whole and in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Acl(Vec<Entry>);

impl Acl {
    /// The list in an attribute's value; `None` if it is no valid one. An
    /// empty list is valid: it takes the attribute away.
    pub(crate) fn decode(value: &[u8]) -> Option<Self> {
        let (version, entries) = value.split_first_chunk::<4>()?;
        let (entries, rest) = entries.as_chunks::<ENTRY_LEN>();
        if u32::from_le_bytes(*version) != VERSION || !rest.is_empty() {
            return None;
        }
        let half = |a: u8, b: u8| u16::from_le_bytes([a, b]);
        let entries: Vec<Entry> = entries
            .iter()
            .map(|[a, b, c, d, id @ ..]| Entry {
                tag: half(*a, *b),
                permissions: half(*c, *d),
                id: u32::from_le_bytes(*id),
            })
            .collect();
        let acl = Self(entries);
        (acl.0.is_empty() || acl.is_valid()).then_some(acl)
    }

    fn is_valid(&self) -> bool {
        let count = |tag: u16| self.0.iter().filter(|entry| entry.tag == tag).count();
        let named = |entry: &Entry| matches!(entry.tag, USER | GROUP);
        let needs_mask = self.0.iter().any(named);
        self.0.iter().all(|e| {
            let known = matches!(e.tag, USER_OBJ | USER | GROUP_OBJ | GROUP | MASK | OTHER);
            known && e.permissions <= 7 && (!named(e) || e.id != NO_ID)
        }) && self.0.is_sorted_by_key(|entry| entry.tag)
            && [USER_OBJ, GROUP_OBJ, OTHER].into_iter().all(|tag| count(tag) == 1)
            && count(MASK) <= 1
            && (!needs_mask || count(MASK) == 1)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// True if it says no more than a mode does.
    pub(crate) fn is_minimal(&self) -> bool {
        self.0.len() <= 3
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = VERSION.to_le_bytes().to_vec();
        for entry in &self.0 {
            out.extend_from_slice(&entry.tag.to_le_bytes());
            out.extend_from_slice(&entry.permissions.to_le_bytes());
            out.extend_from_slice(&entry.id.to_le_bytes());
        }
        out
    }

    fn find(&self, tag: u16) -> Option<u16> {
        self.0.iter().find(|entry| entry.tag == tag).map(|entry| entry.permissions)
    }

    /// The nine permission bits that it stands for: the mask, if there is
    /// one, is what `ls` shows as the group's.
    pub(crate) fn mode(&self) -> u16 {
        let of = |tag| self.find(tag).unwrap_or(0);
        let group = self.find(MASK).unwrap_or_else(|| of(GROUP_OBJ));
        of(USER_OBJ) << 6 | group << 3 | of(OTHER)
    }

    /// After `chmod` to these nine bits.
    pub(crate) fn with_mode(mut self, mode: u16) -> Self {
        let masked = self.find(MASK).is_some();
        for entry in &mut self.0 {
            match entry.tag {
                USER_OBJ => entry.permissions = mode >> 6 & 7,
                GROUP_OBJ if !masked => entry.permissions = mode >> 3 & 7,
                MASK => entry.permissions = mode >> 3 & 7,
                OTHER => entry.permissions = mode & 7,
                _ => {}
            }
        }
        self
    }

    /// The list of a new inode whose directory has this default list, made
    /// with this mode: no more than either grants.
    pub(crate) fn inherited(self, mode: u16) -> Self {
        let granted = self.mode() & mode;
        self.with_mode(granted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(entries: &[(u16, u16, u32)]) -> Acl {
        Acl(entries
            .iter()
            .map(|(tag, permissions, id)| Entry { tag: *tag, permissions: *permissions, id: *id })
            .collect())
    }

    fn full() -> Acl {
        list(&[
            (USER_OBJ, 7, NO_ID),
            (USER, 6, 1000),
            (GROUP_OBJ, 5, NO_ID),
            (MASK, 6, NO_ID),
            (OTHER, 4, NO_ID),
        ])
    }

    #[test]
    fn a_list_comes_back_and_a_broken_one_is_refused() {
        let bytes = full().encode();
        assert_eq!(Acl::decode(&bytes), Some(full()));
        assert_eq!(Acl::decode(&bytes[..bytes.len() - 1]), None);
        assert!(Acl::decode(&VERSION.to_le_bytes()).is_some_and(|acl| acl.is_empty()));
        let without_mask = list(&[
            (USER_OBJ, 7, NO_ID),
            (USER, 6, 1000),
            (GROUP_OBJ, 5, NO_ID),
            (OTHER, 4, NO_ID),
        ]);
        let without_other = list(&[(USER_OBJ, 7, NO_ID), (GROUP_OBJ, 5, NO_ID)]);
        let unordered = list(&[(GROUP_OBJ, 7, NO_ID), (USER_OBJ, 5, NO_ID), (OTHER, 4, NO_ID)]);
        let too_much = list(&[(USER_OBJ, 8, NO_ID), (GROUP_OBJ, 5, NO_ID), (OTHER, 4, NO_ID)]);
        for bad in [without_mask, without_other, unordered, too_much] {
            assert_eq!(Acl::decode(&bad.encode()), None, "{bad:?}");
        }
    }

    #[test]
    fn the_mask_is_the_groups_part_of_the_mode() {
        assert_eq!(full().mode(), 0o764);
        let changed = full().with_mode(0o640);
        assert_eq!(changed.find(MASK), Some(4));
        assert_eq!(changed.find(GROUP_OBJ), Some(5));
        assert_eq!(full().inherited(0o666).mode(), 0o664);
    }
}
