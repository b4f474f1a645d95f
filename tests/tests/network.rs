//! Portals over networks as they are: far away, lossy, behind a router.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};
use warp_tests::device::Device;
use warp_tests::lan::Lan;
use warp_tests::nasty::{noise, write};
use warp_tests::run::{self, soon};

/// A writer with a mounted portal `p`, and a device that is to join.
fn two(lan: &Arc<Lan>) -> [Device; 2] {
    let devices = [1, 2].map(|machine| Device::on(lan, machine));
    devices[0].create("p");
    devices[0].mount();
    devices
}

#[track_caller]
fn join(writer: &Device, reader: &Device) {
    let invited = writer.warp(["portal", "invite", "p", "--json"]).ok();
    let ticket = writer.json(&invited, "d['ticket']");
    reader.warp(["portal", "join", &ticket]).ok();
    reader.mount();
}

/// Sends UDP packets from one machine to another and gives the echoes, in
/// milliseconds each.
fn echoes(lan: &Lan, count: u32) -> Vec<f64> {
    let server = "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
        s.bind(('', 7)); s.settimeout(2)\nprint('ready', flush=True)\n\
        while True:\n d, a = s.recvfrom(99); s.sendto(d, a)";
    let client = format!(
        "import socket, time\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
         s.settimeout(0.15)\nfor n in range({count}):\n \
         t = time.monotonic(); s.sendto(b'%d' % n, ('{}', 7))\n \
         try:\n  s.recvfrom(99); print((time.monotonic() - t) * 1e3)\n \
         except TimeoutError: pass",
        lan.address(2)
    );
    let mut command = lan.on(2, "python3");
    let mut serves = command.args(["-c", server]).stderr(std::process::Stdio::null());
    serves = serves.stdout(std::process::Stdio::null());
    let mut serves = serves.spawn().expect("python3");
    std::thread::sleep(Duration::from_millis(300));
    let mut asks = lan.on(1, "python3");
    asks.args(["-c", &client]);
    let told = run::run(asks, Duration::from_secs(60)).exits(0).text();
    serves.kill().expect("killed");
    serves.wait().expect("ended");
    told.lines().map(|line| line.parse().expect("a number")).collect()
}

#[test]
fn the_shaper_takes_as_long_and_loses_as_much_as_it_is_told() {
    let lan = Lan::new(2);
    lan.is_far(2, Duration::from_millis(10), 0.0);
    let mut took = echoes(&lan, 50);
    took.sort_by(f64::total_cmp);
    assert_eq!(took.len(), 50, "nothing is lost");
    // The machine may be busy: no packet is early, and half are in time.
    assert!(took[0] >= 19.9 && took[25] < 40.0, "{took:?}");
    let lan = Lan::new(2);
    lan.is_far(2, Duration::ZERO, 0.2);
    // 0.64 of them come back.
    let back = echoes(&lan, 60).len();
    assert!((24..=52).contains(&back), "{back} of 60 came back");
}

#[test]
fn a_file_is_read_whole_and_soon_over_a_far_and_lossy_way_mount() {
    let lan = Arc::new(Lan::new(2));
    let [writer, reader] = two(&lan);
    lan.sends_at(1, 100);
    lan.is_far(2, Duration::from_millis(10), 0.01);
    let bytes = noise(12_000_000, 5);
    write(&writer.at("big"), &bytes);
    write(&writer.at("small"), &bytes[..100_000]);
    writer.sync();
    join(&writer, &reader);
    let began = Instant::now();
    assert_eq!(fs::read(reader.at("small")).unwrap(), bytes[..100_000]);
    // The names and the content are a few round trips of 20 ms.
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    let began = Instant::now();
    assert!(fs::read(reader.at("big")).unwrap() == bytes, "other bytes");
    // A second at the link's rate; a control that takes loss for congestion
    // reached a twelfth of it.
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
}

#[test]
fn a_device_behind_a_router_joins_reads_and_hears_of_what_is_new_mount() {
    let lan = Arc::new(Lan::new(2));
    lan.is_behind_nat(2);
    let [writer, reader] = two(&lan);
    let bytes = noise(3_000_000, 6);
    write(&writer.at("f"), &bytes);
    writer.sync();
    join(&writer, &reader);
    assert!(fs::read(reader.at("f")).unwrap() == bytes, "other bytes");
    for n in 0..3 {
        let name = format!("new-{n}");
        write(&writer.at(&name), name.as_bytes());
        writer.sync();
        soon("what is new", Duration::from_secs(2), || reader.at(&name).exists());
        assert_eq!(fs::read(reader.at(&name)).unwrap(), name.as_bytes());
    }
}
