//! Where the devices of a portal were last: remembered across starts.
//!
//! Neighbours: `dial` tries these addresses; tickets, multicast and
//! connections that came in add to them. Promises: what is remembered is
//! bounded, the newest first; a file that is damaged is forgotten. Never:
//! takes an address for an identity: who answers there must prove who it is.
//! Tested by the unit tests below.

use crate::home::{sync_dir, write_private};
use std::collections::HashMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use warp_format::DeviceId;

const FILE: &str = "peers";
/// Addresses remembered of one device.
const ADDRESSES: usize = 8;
/// Devices of which addresses are remembered.
const DEVICES: usize = 1024;
/// Longest file that is read, in bytes.
const MAX_LEN: u64 = 1 << 20;

/// Addresses of devices.
pub(crate) struct Book {
    path: PathBuf,
    known: Mutex<HashMap<DeviceId, Vec<SocketAddr>>>,
}

impl Book {
    /// The book of a portal's directory.
    pub(crate) fn open(directory: &Path) -> Self {
        let path = directory.join(FILE);
        let small = fs::metadata(&path).is_ok_and(|file| file.len() <= MAX_LEN);
        let text =
            if small { fs::read_to_string(&path).unwrap_or_default() } else { String::new() };
        let mut known: HashMap<DeviceId, Vec<SocketAddr>> = HashMap::new();
        for (device, address) in text.lines().filter_map(parse) {
            let addresses = known.entry(device).or_default();
            if addresses.len() < ADDRESSES {
                addresses.push(address);
            }
        }
        Self { path, known: Mutex::new(known) }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<DeviceId, Vec<SocketAddr>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where a device was, the newest first.
    pub(crate) fn addresses(&self, device: &DeviceId) -> Vec<SocketAddr> {
        self.known().get(device).cloned().unwrap_or_default()
    }

    /// Remembers where a device is; true if that is news.
    pub(crate) fn note(&self, device: DeviceId, address: SocketAddr) -> bool {
        let mut known = self.known();
        if known.len() >= DEVICES && !known.contains_key(&device) {
            return false;
        }
        let addresses = known.entry(device).or_default();
        if addresses.first() == Some(&address) {
            return false;
        }
        let is_new = !addresses.contains(&address);
        addresses.retain(|other| *other != address);
        addresses.insert(0, address);
        addresses.truncate(ADDRESSES);
        let lines = known.iter().flat_map(|(device, addresses)| {
            addresses.iter().map(move |address| format!("{device:#} {address}\n"))
        });
        let text: String = lines.collect();
        drop(known);
        // An aid: without it they are found in another way.
        if let Err(e) = self.write(&text) {
            tracing::warn!("addresses are not remembered: {e}");
        }
        is_new
    }

    fn write(&self, text: &str) -> std::io::Result<()> {
        let making = self.path.with_extension("new");
        let _ = fs::remove_file(&making);
        write_private(&making, text.as_bytes())?;
        fs::rename(&making, &self.path)?;
        sync_dir(self.path.parent().unwrap_or(Path::new("")))
    }
}

/// `DEVICE ADDRESS:PORT`.
fn parse(line: &str) -> Option<(DeviceId, SocketAddr)> {
    let (device, address) = line.split_once(' ')?;
    let mut id = [0; 32];
    if device.len() != 64 || !device.is_ascii() {
        return None;
    }
    for (i, byte) in id.iter_mut().enumerate() {
        *byte = u8::from_str_radix(device.get(2 * i..2 * i + 2)?, 16).ok()?;
    }
    Some((DeviceId(id), address.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_address_comes_first_and_survives_a_start() {
        let dir = tempfile::tempdir().unwrap();
        let device = DeviceId([7; 32]);
        let at = |n: u16| SocketAddr::from(([127, 0, 0, 1], n));
        let book = Book::open(dir.path());
        assert!(book.note(device, at(1)) && book.note(device, at(2)));
        assert!(!book.note(device, at(2)) && !book.note(device, at(1)), "no news");
        assert_eq!(Book::open(dir.path()).addresses(&device), [at(1), at(2)]);
        for n in 0..100 {
            book.note(device, at(n));
        }
        assert_eq!(Book::open(dir.path()).addresses(&device).len(), ADDRESSES);
    }

    #[test]
    fn a_damaged_book_is_read_as_far_as_it_goes() {
        let dir = tempfile::tempdir().unwrap();
        let good = format!("{:#} 127.0.0.1:9\n", DeviceId([1; 32]));
        let text = format!("é\nzz 1\n{}\n{good}{:#} nowhere\n", "x".repeat(64), DeviceId([2; 32]));
        fs::write(dir.path().join(FILE), text).unwrap();
        let book = Book::open(dir.path());
        assert_eq!(book.addresses(&DeviceId([1; 32])).len(), 1);
        assert!(book.addresses(&DeviceId([2; 32])).is_empty());
    }
}
