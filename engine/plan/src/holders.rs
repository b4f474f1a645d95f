//! Numbers of peers and chunks, and sets of peers.
//!
//! Neighbours: the caller numbers its peers and chunks; `wants` keeps a set of
//! holders for each chunk, `list` goes through it. Promises: a set is 32 bytes,
//! copied and never allocated. Never: knows what a number stands for. Tested
//! by the unit tests below.

/// The most peers a planner knows at a time. Numbers of peers that left are
/// used again.
pub const PEERS_MAX: usize = 256;

const WORDS: usize = PEERS_MAX / 64;

/// A peer, as the caller numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerNo(pub u8);

impl PeerNo {
    pub(crate) fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// A chunk, as the caller numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkNo(pub u64);

/// A set of peers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Holders([u64; WORDS]);

impl Holders {
    /// The empty set.
    pub const NONE: Self = Self([0; WORDS]);

    /// Adds a peer.
    pub fn insert(&mut self, peer: PeerNo) {
        self.0[peer.index() / 64] |= 1 << (peer.index() % 64);
    }

    /// Takes a peer out.
    pub fn remove(&mut self, peer: PeerNo) {
        self.0[peer.index() / 64] &= !(1 << (peer.index() % 64));
    }

    /// Whether a peer is in it.
    pub fn contains(&self, peer: PeerNo) -> bool {
        self.0[peer.index() / 64] >> (peer.index() % 64) & 1 == 1
    }

    /// Whether nobody is in it.
    pub fn is_empty(&self) -> bool {
        self.0 == [0; WORDS]
    }

    /// How many are in it.
    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// The peers that are in both.
    pub fn and(&self, other: &Self) -> Self {
        Self(std::array::from_fn(|index| self.0[index] & other.0[index]))
    }

    /// The peers that are in this set and not in the other.
    pub fn without(&self, other: &Self) -> Self {
        Self(std::array::from_fn(|index| self.0[index] & !other.0[index]))
    }

    /// As a bitmap, peer 0 in the lowest bit of the first word.
    pub(crate) fn words(&self) -> [u64; WORDS] {
        self.0
    }

    /// The peers, by number.
    pub fn iter(&self) -> impl Iterator<Item = PeerNo> + use<> {
        let words = self.0;
        (0..WORDS).flat_map(move |index| {
            let mut word = words[index];
            std::iter::from_fn(move || {
                let bit = (word != 0).then(|| word.trailing_zeros() as usize)?;
                word &= word - 1;
                // Below PEERS_MAX by construction, so it fits.
                Some(PeerNo((index * 64 + bit) as u8))
            })
        })
    }
}

impl FromIterator<PeerNo> for Holders {
    fn from_iter<I: IntoIterator<Item = PeerNo>>(peers: I) -> Self {
        let mut set = Self::NONE;
        peers.into_iter().for_each(|peer| set.insert(peer));
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_gives_back_what_was_put_in() {
        let peers = [0, 1, 63, 64, 127, 128, 255].map(PeerNo);
        let mut set: Holders = peers.into_iter().collect();
        assert_eq!(set.iter().collect::<Vec<_>>(), peers);
        assert_eq!(set.len(), 7);
        assert!(set.contains(PeerNo(64)) && !set.contains(PeerNo(65)));
        set.remove(PeerNo(64));
        assert!(!set.contains(PeerNo(64)) && set.contains(PeerNo(63)));
        let rest: Holders = peers.into_iter().filter(|peer| peer.0 != 64).collect();
        assert!(set.without(&rest).is_empty() && set.and(&rest) == rest);
    }
}
