//! Step *tier* of the walk out: what has been opened stays in memory a while.
//!
//! Neighbours: `flow` asks before it reads and opens a chunk. Promises: at
//! most the given weight (about) is kept; of concurrent askers for one key,
//! one makes the value and the others wait for it; a failure is not kept.
//! Never: writes to a disk. Tested by the unit tests below.

use std::hash::Hash;
use std::sync::Arc;

/// A weighted cache with single flight for each key.
pub struct Tier<K, V> {
    cache: moka::sync::Cache<K, V>,
}

impl<K, V> Tier<K, V>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// A tier of at most `max_bytes`; `weigh` gives a value's size in bytes.
    pub fn new(max_bytes: u64, weigh: impl Fn(&V) -> usize + Send + Sync + 'static) -> Self {
        let cache = moka::sync::Cache::builder()
            .max_capacity(max_bytes)
            .weigher(move |_, value: &V| u32::try_from(weigh(value)).unwrap_or(u32::MAX))
            .build();
        Self { cache }
    }

    /// True if the value is here; it does not count as used by that.
    pub fn contains(&self, key: &K) -> bool {
        self.cache.contains_key(key)
    }

    /// The value, made by `make` if it is not here.
    pub fn get_or_make<E>(&self, key: K, make: impl FnOnce() -> Result<V, E>) -> Result<V, Arc<E>>
    where
        E: Send + Sync + 'static,
    {
        // The plain lookup first: it is several times cheaper than setting up
        // a single flight, and most lookups hit.
        if let Some(value) = self.cache.get(&key) {
            return Ok(value);
        }
        self.cache.try_get_with(key, make)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn concurrent_askers_make_a_value_once() {
        let tier: Tier<u8, u64> = Tier::new(1000, |_| 8);
        let made = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let value = tier.get_or_make(1, || {
                        made.fetch_add(1, Ordering::SeqCst);
                        std::thread::sleep(std::time::Duration::from_millis(20));
                        Ok::<_, String>(42)
                    });
                    assert_eq!(value, Ok(42));
                });
            }
        });
        assert_eq!(made.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_failure_is_told_and_not_kept() {
        let tier: Tier<u8, u64> = Tier::new(1000, |_| 8);
        assert_eq!(*tier.get_or_make(1, || Err("no")).unwrap_err(), "no");
        assert_eq!(tier.get_or_make(1, || Ok::<_, &str>(1)), Ok(1));
    }
}
