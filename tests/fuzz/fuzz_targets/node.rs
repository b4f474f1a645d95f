//! What decodes as a node has ordered keys and encodes to the same bytes, and
//! so does each record in it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;
use warp_format::NamingKeys;
use warp_format::record::Key;
use warp_format::tree::Node;

static KEYS: LazyLock<NamingKeys> = LazyLock::new(NamingKeys::public);

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// The node table of docs/format.md.
fn encode(node: &Node) -> Vec<u8> {
    let mut out = vec![node.level()];
    put_varint(&mut out, node.len() as u64);
    let mut last: &[u8] = &[];
    for i in 0..node.len() {
        let key = node.key_bytes(i).expect("an entry has a key");
        assert!(i == 0 || last < key);
        let shared = last.iter().zip(key).take_while(|(a, b)| a == b).count();
        put_varint(&mut out, shared as u64);
        put_varint(&mut out, (key.len() - shared) as u64);
        out.extend_from_slice(&key[shared..]);
        last = key;
        match (node.value(i), node.child(i)) {
            (Some(value), None) => {
                put_varint(&mut out, value.len() as u64);
                out.extend_from_slice(value);
            }
            (None, Some(child)) => {
                out.extend_from_slice(&child.node.id.0);
                out.extend_from_slice(&child.node.hash.0);
                for number in [child.node.len.into(), child.node.epoch.into(), child.records] {
                    put_varint(&mut out, number);
                }
            }
            _ => panic!("an entry is a value or a child"),
        }
    }
    out
}

fuzz_target!(|input: &[u8]| {
    let Ok(node) = Node::decode(input.to_vec()) else { return };
    assert_eq!(encode(&node), input);
    assert_eq!(node.is_empty(), node.key_bytes(0).is_none());
    assert!(node.key_bytes(node.len()).is_none() && node.record(node.len()).is_none());
    node.content_hash(&KEYS);
    for i in 0..node.len() {
        let bytes = node.key_bytes(i).expect("an entry has a key");
        assert_eq!(Key::decode(bytes).expect("keys are checked").to_bytes(), bytes);
        match node.record(i) {
            Some(Ok((_, record))) => assert_eq!(Some(record.to_bytes().as_slice()), node.value(i)),
            Some(Err(_)) => {}
            None => assert!(node.level() > 0),
        }
    }
});
