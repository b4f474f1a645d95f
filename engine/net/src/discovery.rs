//! Finding members on the local network, by mDNS (`_portal._udp.local.`).
//!
//! Beside `endpoint`: the daemon starts it, or does not. Promises: a portal is
//! announced only as a keyed hash of the hour, so that who lacks the access
//! key neither recognises a portal nor ties it to what was announced an hour
//! ago; what is found is a hint and bounded in number (a device that is dialled
//! shows who it is); records of this device itself and addresses of the
//! loopback interface are passed over. Never: trusts a record, sends anything
//! while it is off. Tested by the unit tests below, fuzz target `lan_record`,
//! and `tests/discovery.rs`.
//!
//! A record's TXT: `v=1`, `d=` the device id in hexadecimal, `p=` the port,
//! `h0=` to `h31=` one hint each (16 hexadecimal digits).

use crate::error::{NetError, Result};
use crate::limits::{ADDRS_MAX, ANNOUNCED_MAX, FOUND_MAX, FOUND_WAITING_MAX};
use mdns_sd::{IfKind, ResolvedService, ServiceDaemon, ServiceEvent, ServiceInfo};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;
use warp_format::wire::lan_hint;
use warp_format::{DeviceId, Secret};

const SERVICE: &str = "_portal._udp.local.";
/// How often the hour is looked at, and how soon a new list is announced.
const TICK: Duration = Duration::from_millis(200);

/// A device on the local network says it is a member of one of our portals.
/// That is a hint: who it is shows when it is dialled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Which of the access keys that were announced.
    pub portal: usize,
    /// The device it claims to be.
    pub device: DeviceId,
    /// Where it can be dialled.
    pub addrs: Vec<SocketAddr>,
}

/// On which interfaces devices look for each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// All but loopback.
    Lan,
    /// Loopback alone: for tests, which send nothing elsewhere.
    Loopback,
}

/// Announces this device and listens for others; dropping it says goodbye.
pub struct Discovery {
    orders: Sender<Vec<Secret>>,
}

impl Discovery {
    /// Starts; nothing is announced before [`Self::announce`]. `port` is where
    /// the endpoint listens.
    pub fn start(
        device: DeviceId,
        port: u16,
        scope: Scope,
    ) -> Result<(Self, mpsc::Receiver<Found>)> {
        let daemon = ServiceDaemon::new().map_err(failed)?;
        match scope {
            Scope::Lan => daemon.disable_interface(vec![IfKind::LoopbackV4, IfKind::LoopbackV6]),
            Scope::Loopback => daemon
                .disable_interface(IfKind::All)
                .and_then(|()| daemon.enable_interface(IfKind::LoopbackV4)),
        }
        .map_err(failed)?;
        let browsing = daemon.browse(SERVICE).map_err(failed)?;
        let (tell, told) = mpsc::channel(FOUND_WAITING_MAX);
        let (orders, queue) = channel();
        let keys = Vec::new();
        let work = Work {
            daemon,
            device,
            port,
            scope,
            keys,
            announced: None,
            seen: Seen::default(),
            tell,
        };
        std::thread::Builder::new()
            .name("warp-mdns".to_owned())
            .spawn(move || work.run(&queue, &browsing))
            .map_err(|error| NetError::Discovery { what: error.to_string() })?;
        Ok((Self { orders }, told))
    }

    /// From now on these portals are announced and listened for, by their
    /// access keys; [`Found::portal`] counts in this list. No more than 32 are
    /// announced; all are listened for.
    pub fn announce(&self, portals: Vec<Secret>) {
        // The thread has ended only if the library failed, which was logged.
        let _ = self.orders.send(portals);
    }
}

fn failed(error: mdns_sd::Error) -> NetError {
    NetError::Discovery { what: error.to_string() }
}

/// The thread's state.
struct Work {
    daemon: ServiceDaemon,
    device: DeviceId,
    port: u16,
    scope: Scope,
    keys: Vec<Secret>,
    /// The hour in which the record that is out was made.
    announced: Option<u64>,
    seen: Seen,
    tell: mpsc::Sender<Found>,
}

impl Work {
    fn run(mut self, orders: &Receiver<Vec<Secret>>, events: &mdns_sd::Receiver<ServiceEvent>) {
        loop {
            match orders.try_recv() {
                Ok(keys) => {
                    self.keys = keys;
                    self.announced = None;
                    self.tell_all();
                }
                Err(std::sync::mpsc::TryRecvError::Empty) => {}
                Err(std::sync::mpsc::TryRecvError::Disconnected) => break,
            }
            self.keep_announced(hour(SystemTime::now()));
            match events.recv_timeout(TICK) {
                Ok(ServiceEvent::ServiceResolved(service)) => self.resolved(&service),
                Ok(_) => {}
                Err(error) if events.is_disconnected() => {
                    return tracing::warn!(%error, "mDNS has ended by itself");
                }
                Err(_) => {}
            }
        }
        // Dropping the daemon alone would leave the records of others' caches.
        if let Ok(done) = self.daemon.shutdown() {
            let _ = done.recv_timeout(Duration::from_secs(1));
        }
    }

    fn keep_announced(&mut self, hour: u64) {
        if self.announced == Some(hour) {
            return;
        }
        if let Err(error) = self.register(hour) {
            tracing::warn!(%error, "mDNS: not announced");
        }
        self.announced = Some(hour);
    }

    fn register(&self, hour: u64) -> Result<()> {
        let name = format!("{:#}", self.device);
        let instance = name.get(..16).unwrap_or_default();
        if self.keys.is_empty() {
            let full = format!("{instance}.{SERVICE}");
            return self.daemon.unregister(&full).map(drop).map_err(failed);
        }
        let mut txt = HashMap::from([
            ("v".to_owned(), "1".to_owned()),
            ("d".to_owned(), name.clone()),
            ("p".to_owned(), self.port.to_string()),
        ]);
        for (index, key) in self.keys.iter().take(ANNOUNCED_MAX).enumerate() {
            txt.insert(format!("h{index}"), hex(&lan_hint(key, hour)));
        }
        let host = format!("{instance}.local.");
        let mut info =
            ServiceInfo::new(SERVICE, instance, &host, "", self.port, txt).map_err(failed)?;
        info = info.enable_addr_auto();
        if self.scope == Scope::Loopback {
            info.set_interfaces(vec![IfKind::LoopbackV4]);
        }
        self.daemon.register(info).map_err(failed)
    }

    fn resolved(&mut self, service: &ResolvedService) {
        let properties = service.get_properties();
        let txt = |key: &str| properties.get_property_val_str(key);
        let ips = service.get_addresses().iter().map(mdns_sd::ScopedIp::to_ip_addr);
        let Some(record) = Record::parse(txt, ips, self.scope) else { return };
        if record.device == self.device {
            return;
        }
        if self.seen.note(record.clone()) {
            self.tell(&record);
        }
    }

    /// New keys: what is known of others may mean something now.
    fn tell_all(&self) {
        self.seen.records.values().for_each(|(_, record)| self.tell(record));
    }

    fn tell(&self, record: &Record) {
        let hour = hour(SystemTime::now());
        for portal in record.portals(&self.keys, hour) {
            let found = Found { portal, device: record.device, addrs: record.addrs.clone() };
            tracing::debug!(peer = %record.device, portal, addrs = ?record.addrs, "found on the network");
            // If nobody takes them, they come again with the next record.
            let _ = self.tell.try_send(found);
        }
    }
}

/// What a record says, as far as it makes sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    device: DeviceId,
    addrs: Vec<SocketAddr>,
    hints: Vec<[u8; 8]>,
}

impl Record {
    /// Reads the properties and addresses of a record; `None` if it is none of
    /// ours. Public for its fuzz target.
    pub fn parse<'a>(
        txt: impl Fn(&str) -> Option<&'a str>,
        ips: impl Iterator<Item = IpAddr>,
        scope: Scope,
    ) -> Option<Self> {
        if txt("v") != Some("1") {
            return None;
        }
        let device = DeviceId(unhex::<32>(txt("d")?)?);
        let port = txt("p")?.parse::<u16>().ok().filter(|port| *port > 0)?;
        let is_usable = |ip: &IpAddr| match scope {
            Scope::Lan => !ip.is_loopback() && !ip.is_unspecified() && !ip.is_multicast(),
            Scope::Loopback => ip.is_loopback(),
        };
        let mut addrs: Vec<_> = ips.filter(is_usable).map(|ip| SocketAddr::new(ip, port)).collect();
        addrs.sort_unstable();
        addrs.dedup();
        addrs.truncate(ADDRS_MAX);
        let hints = (0..ANNOUNCED_MAX).map_while(|index| unhex::<8>(txt(&format!("h{index}"))?));
        let hints: Vec<_> = hints.collect();
        (!addrs.is_empty() && !hints.is_empty()).then_some(Self { device, addrs, hints })
    }

    /// Which of these portals it speaks of. The clocks of two devices may be
    /// an hour apart.
    pub fn portals(&self, keys: &[Secret], hour: u64) -> Vec<usize> {
        let hours = [hour.saturating_sub(1), hour, hour.saturating_add(1)];
        let is_meant =
            |key: &Secret| hours.iter().any(|hour| self.hints.contains(&lan_hint(key, *hour)));
        let indexes = keys.iter().enumerate().filter(|(_, key)| is_meant(key));
        indexes.map(|(index, _)| index).collect()
    }
}

/// The last record of each device.
#[derive(Default)]
struct Seen {
    records: HashMap<DeviceId, (u64, Record)>,
    clock: u64,
}

impl Seen {
    /// Takes note; whether it is news. At the limit the device that was heard
    /// longest ago is forgotten, so that made-up ones keep no real one out.
    fn note(&mut self, record: Record) -> bool {
        self.clock += 1;
        let before = self.records.insert(record.device, (self.clock, record.clone()));
        if self.records.len() > FOUND_MAX
            && let Some(oldest) =
                self.records.iter().min_by_key(|(_, (at, _))| *at).map(|(device, _)| *device)
        {
            self.records.remove(&oldest);
        }
        before.is_none_or(|(_, before)| before != record)
    }
}

fn hour(now: SystemTime) -> u64 {
    now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() / 3600)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        let digit = |digit: u8| char::from(digit).to_digit(16);
        *byte = (digit(*high)? * 16 + digit(*low)?) as u8;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const LAN: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 1, 7));

    fn key(byte: u8) -> Secret {
        Secret::new([byte; 32])
    }

    fn txt(device: u8, hints: &[[u8; 8]]) -> HashMap<String, String> {
        let hints = hints.iter().enumerate().map(|(i, hint)| (format!("h{i}"), hex(hint)));
        let mut txt: HashMap<_, _> = hints.collect();
        txt.insert("v".into(), "1".into());
        txt.insert("d".into(), hex(&[device; 32]));
        txt.insert("p".into(), "4711".into());
        txt
    }

    fn parse(txt: &HashMap<String, String>, ips: &[IpAddr]) -> Option<Record> {
        let get = |key: &str| txt.get(key).map(String::as_str);
        Record::parse(get, ips.iter().copied(), Scope::Lan)
    }

    #[test]
    fn a_record_names_our_portals_within_an_hour_and_no_others() {
        let hint = |byte, hour| lan_hint(&key(byte), hour);
        let record = parse(&txt(3, &[hint(1, 1000), hint(2, 1000)]), &[LAN]).unwrap();
        assert_eq!(record.addrs, [SocketAddr::new(LAN, 4711)]);
        let keys = [key(9), key(2), key(1)];
        for hour in [999, 1000, 1001] {
            assert_eq!(record.portals(&keys, hour), [1, 2]);
        }
        assert_eq!(record.portals(&keys, 1002), [0usize; 0]);
        assert_ne!(hint(1, 1000), hint(1, 1001), "the hour changes what is seen");
    }

    #[test]
    fn records_that_make_no_sense_are_passed_over() {
        let good = txt(3, &[[1; 8]]);
        assert!(parse(&good, &[LAN]).is_some());
        assert_eq!(parse(&good, &[]), None);
        assert_eq!(parse(&good, &[IpAddr::V4(Ipv4Addr::LOCALHOST)]), None);
        assert_eq!(parse(&good, &[IpAddr::V4(Ipv4Addr::UNSPECIFIED)]), None);
        let long = "0".repeat(1000);
        for (field, value) in [
            ("v", "2"),
            ("d", "00"),
            ("d", "zz"),
            ("d", &long),
            ("p", "0"),
            ("p", "65536"),
            ("p", "-1"),
            ("h0", "0123"),
            ("h0", "é23456789abcdef"),
        ] {
            let mut bad = good.clone();
            bad.insert(field.into(), value.into());
            assert_eq!(parse(&bad, &[LAN]), None, "{field}={value}");
        }
    }

    #[test]
    fn addresses_hints_and_devices_are_bounded() {
        let hints: Vec<[u8; 8]> = (0..100u8).map(|n| [n; 8]).collect();
        let ips: Vec<IpAddr> = (0..100).map(|n| IpAddr::V4(Ipv4Addr::new(10, 0, 0, n))).collect();
        let record = parse(&txt(3, &hints), &ips).unwrap();
        assert_eq!((record.hints.len(), record.addrs.len()), (ANNOUNCED_MAX, ADDRS_MAX));
        let mut seen = Seen::default();
        let device = |n: u16| {
            let mut device = [0; 32];
            device[..2].copy_from_slice(&n.to_le_bytes());
            Record { device: DeviceId(device), ..record.clone() }
        };
        let news = (0..1000).filter(|n| seen.note(device(*n))).count();
        assert_eq!((news, seen.records.len()), (1000, FOUND_MAX));
        assert!(!seen.note(device(999)), "the same again is no news");
        let moved = Record { addrs: vec![SocketAddr::new(LAN, 1)], ..device(999) };
        assert!(seen.note(moved), "a known device has moved");
    }
}
