//! A record heard on the local network is read or passed over, and names no
//! portal whose key its sender lacks.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::net::IpAddr;
use warp_format::Secret;
use warp_net::{Record, Scope};

fuzz_target!(|input: (Vec<(String, String)>, Vec<IpAddr>, u64)| {
    let (properties, ips, hour) = input;
    let value = |key: &str| {
        properties.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    };
    if let Some(record) = Record::parse(value, ips.into_iter(), Scope::Lan) {
        let keys = [Secret::new([1; 32]), Secret::new([2; 32])];
        assert!(record.portals(&keys, hour).is_empty(), "a keyed hash was guessed");
    }
});
