//! What members of a portal may do, on several machines: custodians, and
//! invites of others than the device that made the portal. Each test's name
//! says that it mounts: they run one at a time.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use warp_tests::device::{Device, fails};
use warp_tests::lan::Lan;
use warp_tests::must;
use warp_tests::nasty::{build, mkdir, noise, write};
use warp_tests::run::soon;

const CONTENT: &str = "Etwas-das-niemand-sonst-lesen-darf";
const NAME: &str = "ein-Name-den-keiner-sieht";

/// A network, and a device on each machine; the first has a portal `p`, mounted
/// on `m`.
fn devices(machines: u8) -> (Arc<Lan>, Vec<Device>) {
    let lan = Arc::new(Lan::new(machines));
    let devices: Vec<Device> = (1..=machines).map(|n| Device::on(&lan, n)).collect();
    devices[0].create("p");
    devices[0].mount();
    (lan, devices)
}

#[track_caller]
fn ticket(issuer: &Device, flags: &[&str]) -> String {
    let words = ["portal", "invite", "p", "--json"].iter().chain(flags);
    issuer.json(&issuer.warp(words).ok(), "d['ticket']")
}

/// What a device may do that joins with a new ticket of another.
#[track_caller]
fn join(issuer: &Device, joins: &Device, flags: &[&str]) -> String {
    let joined = joins.warp(["portal", "join", "--json", &ticket(issuer, flags)]).ok();
    joins.json(&joined, "d['capability'], d['may_invite'], d['read_only']")
}

/// The number of the head that a device has of `p`.
fn head(device: &Device) -> u64 {
    let status = device.warp(["portal", "status", "p", "--json"]).ok();
    device.json(&status, "d['sequence']").parse().unwrap()
}

/// What rsync finds different.
fn differences(source: &Path, target: &Path) -> String {
    let slash = |path: &Path| format!("{}/", path.display());
    must("rsync", ["-aHAXnci".to_owned(), "--delete".into(), slash(source), slash(target)])
}

/// Which of the markers are in files below a path, in their names, or in what
/// the daemon has in memory.
fn found(device: &Device) -> BTreeSet<&'static str> {
    let dump = device.path("dump");
    copy_memory(device.daemon(), &dump);
    let searched = [device.home(), &dump];
    let has = |marker: &&str| {
        let grep = Command::new("grep").args(["-raqF", marker]).args(searched).status().unwrap();
        let name = format!("*{marker}*");
        let find = ["-name", &name].map(OsStr::new);
        let find = must("find", [device.home().as_os_str()].into_iter().chain(find));
        assert!(grep.code() < Some(2), "{grep}");
        grep.success() || !find.is_empty()
    };
    let found = [CONTENT, NAME].into_iter().filter(has).collect();
    fs::remove_file(dump).unwrap();
    found
}

/// Writes all memory that a process can write to a file.
fn copy_memory(process: u32, to: &Path) {
    let memory = File::open(format!("/proc/{process}/mem")).unwrap();
    let mut dump = File::create(to).unwrap();
    let mut copied = 0;
    for line in fs::read_to_string(format!("/proc/{process}/maps")).unwrap().lines() {
        let mut words = line.split(' ');
        let (range, rights) = (words.next().unwrap(), words.next().unwrap());
        let (from, to) = range.split_once('-').unwrap();
        let [from, to] = [from, to].map(|at| u64::from_str_radix(at, 16).unwrap());
        if !rights.starts_with("rw") || to - from > 1 << 30 {
            continue;
        }
        let mut bytes = vec![0; (to - from) as usize];
        // It may be gone by now, or guarded.
        if memory.read_exact_at(&mut bytes, from).is_ok() {
            copied += bytes.len();
            dump.write_all(&bytes).unwrap();
        }
    }
    assert!(copied > 1 << 20, "only {copied} bytes of memory were seen");
}

#[test]
fn a_custodian_keeps_everything_serves_it_alone_and_can_read_nothing_mount() {
    let (_lan, devices) = devices(3);
    let [writer, custodian, reader] = &devices[..] else { unreachable!() };
    assert_eq!(join(writer, custodian, &["--role", "custodian"]), "custodian False True");
    build(&mkdir(&writer.at("tree")));
    write(&writer.at(NAME), CONTENT.repeat(1000).as_bytes());
    write(&writer.at("small"), CONTENT.as_bytes());
    write(&writer.at("big"), &noise(6_000_000, 3));
    writer.sync();
    soon("all is kept", Duration::from_secs(20), || head(custodian) == head(writer));
    // What is published later is kept, too, and what it takes the place of.
    let before = head(writer);
    write(&writer.at("later"), &noise(100_000, 4));
    writer.sync();
    assert!(head(writer) > before);
    soon("the next head", Duration::from_secs(10), || head(custodian) == head(writer));
    fs::read(writer.at(NAME)).unwrap();
    let all: BTreeSet<_> = [CONTENT, NAME].into();
    assert_eq!(found(writer), all, "what is searched for can be found");
    assert_eq!(found(custodian), BTreeSet::new());
    // It can neither mount it nor say who is a member.
    let mount = custodian.warp(["mount", "p", "m"]).run();
    fails(mount, 7, "custodian", "--read-only");
    fails(custodian.warp(["portal", "invite", "p"]).run(), 7, "no right", "--members");
    let list = custodian.warp(["portal", "ls", "--json"]).ok();
    assert_eq!(custodian.json(&list, "[p['custodian'] for p in d['portals']]"), "[True]");

    // It serves what it has, also after a crash and without the writer.
    join(writer, reader, &[]);
    reader.mount();
    soon("they know each other", Duration::from_secs(10), || {
        let peers = reader.warp(["peers", "--json"]).ok();
        reader.json(&peers, "sum(p['connected'] for p in d['peers'])") == "2"
    });
    custodian.crash();
    custodian.warp(["up"]).ok();
    assert_eq!(head(custodian), head(writer));
    let source = writer.path("source");
    must("cp", ["-a".as_ref(), writer.m().as_os_str(), source.as_os_str()]);
    writer.warp(["down"]).ok();
    assert_eq!(differences(&source, &reader.m()), "");
    assert_eq!(found(custodian), BTreeSet::new());
}

#[test]
fn a_device_that_joins_when_the_writer_is_away_gets_the_newest_from_a_custodian_mount() {
    let (_lan, devices) = devices(3);
    let [writer, custodian, reader] = &devices[..] else { unreachable!() };
    join(writer, custodian, &["--role", "custodian"]);
    join(writer, reader, &[]);
    reader.warp(["down"]).ok();
    write(&writer.at("f"), &noise(500_000, 1));
    writer.sync();
    soon("it is kept", Duration::from_secs(20), || head(custodian) == head(writer));
    writer.warp(["down"]).ok();
    // It has not seen any head so far that has the file.
    reader.mount();
    soon("the newest head", Duration::from_secs(10), || reader.at("f").exists());
    assert!(fs::read(reader.at("f")).unwrap() == noise(500_000, 1));
}

#[test]
fn who_may_invite_does_so_through_the_device_that_made_the_portal_mount() {
    let (lan, devices) = devices(4);
    let [founder, admin, second, third] = &devices[..] else { unreachable!() };
    write(&founder.at("f"), b"all");
    founder.sync();
    assert_eq!(join(founder, admin, &["--role", "admin"]), "admin True False");
    // One whom an admin invites, with the right to invite readers.
    let flags = ["--role", "reader", "--may-invite"];
    assert_eq!(join(admin, second, &flags), "reader True True");
    assert_eq!(join(second, third, &["--role", "custodian"]), "custodian False True");
    second.mount();
    assert_eq!(fs::read(second.at("f")).unwrap(), b"all");
    // Nobody gives what they lack.
    for flags in [["--role", "writer"], ["--role", "admin"]] {
        let words = ["portal", "invite", "p"].iter().chain(&flags);
        fails(second.warp(words).run(), 7, "reader", "--members");
    }
    let words = ["portal", "invite", "p", "--read-only", "--may-invite"];
    fails(second.warp(words).run(), 7, "no right", "--members");
    fails(third.warp(["portal", "invite", "p"]).run(), 7, "custodian", "--members");
    // An admin ends tickets and memberships, and nobody else does.
    let open = ticket(second, &["--read-only"]);
    let expire = ["portal", "expire", "p", "--invites"];
    fails(second.warp(expire).run(), 7, "no right", "--members");
    let closed = admin.warp(expire.iter().chain(&["--json"])).ok();
    assert_eq!(admin.json(&closed, "d['invites']"), "1");
    let late = Device::new();
    let refused = late.warp(["portal", "join", &open]).run();
    assert_ne!(refused.code, 0, "{}", refused.stderr);
    let members = founder.warp(["portal", "status", "p", "--members", "--json"]).ok();
    let custodian = "[m['id'] for m in d['members'] if m['capability'] == 'custodian'][0]";
    let id = founder.json(&members, custodian);
    soon("the admin has heard of it", Duration::from_secs(5), || {
        let members = admin.warp(["portal", "status", "p", "--members", "--json"]).ok();
        admin.json(&members, "len(d['members'])") == "4"
    });
    admin.warp(["portal", "expire", "p", "--member", &id]).ok();
    let members = founder.warp(["portal", "status", "p", "--members", "--json"]).ok();
    assert_eq!(founder.json(&members, "len(d['members'])"), "3");
    // Without the founder nothing of it can be done.
    lan.silence(1);
    let away = admin.warp(["portal", "invite", "p"]).run();
    assert_eq!(away.code, 5, "{}", away.stderr);
    lan.restore(1);
}
