//! Cut → join is the identity, chunks keep their bounds, and the cuts do not
//! depend on how much of the data a reader shows at a time.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;
use warp_format::NamingKeys;
use warp_format::chunk::CutRule;

static KEYS: LazyLock<NamingKeys> = LazyLock::new(NamingKeys::public);

fuzz_target!(|input: &[u8]| {
    let Some(([a, b, c, d], data)) = input.split_first_chunk::<4>() else { return };
    // Small bounds, so that short inputs have many cuts.
    let [min, more, most, extra] = [*a, *b, *c, *d].map(usize::from);
    let (min, avg) = (min + 1, (min + more + 1).max(16));
    let rule = CutRule { min, avg, max: avg + most };
    let (mut at, mut joined) = (0, Vec::with_capacity(data.len()));
    while at < data.len() {
        let rest = &data[at..];
        let n = rule.first_cut(&KEYS, rest, true);
        assert!(n <= rule.max && (n >= rule.min || n == rest.len()));
        let window = &rest[..rest.len().min(rule.max + extra)];
        assert_eq!(rule.first_cut(&KEYS, window, window.len() == rest.len()), n);
        joined.extend_from_slice(&rest[..n]);
        at += n;
    }
    assert_eq!(joined, data);
});
