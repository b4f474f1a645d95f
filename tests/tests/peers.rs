//! Portals on several machines: each a network namespace with a `WARP_HOME` of
//! its own. Each test's name says that it mounts: they run one at a time.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};
use warp_tests::device::Device;
use warp_tests::lan::Lan;
use warp_tests::must;
use warp_tests::nasty::{build, mkdir, noise, write};
use warp_tests::run::soon;

/// What is published is seen elsewhere within this.
const SEEN_WITHIN: Duration = Duration::from_secs(2);

/// A network, and a device on each machine; the first has a portal `p`, mounted
/// on `m`.
fn devices(machines: u8) -> (Arc<Lan>, Vec<Device>) {
    let lan = Arc::new(Lan::new(machines));
    let devices: Vec<Device> = (1..=machines).map(|n| Device::on(&lan, n)).collect();
    devices[0].create("p");
    devices[0].mount();
    (lan, devices)
}

/// A ticket for the first device's portal.
#[track_caller]
fn ticket(writer: &Device, flags: &[&str]) -> String {
    let words = ["portal", "invite", "p", "--json"].iter().chain(flags);
    let invited = writer.warp(words).ok();
    writer.json(&invited, "d['ticket']")
}

/// Has a device join with a new ticket, and mounts the portal on `m`.
#[track_caller]
fn join(writer: &Device, reader: &Device) {
    let joined = reader.warp(["portal", "join", "--json", &ticket(writer, &[])]).ok();
    assert_eq!(reader.json(&joined, "d['name'], d['joined'], d['read_only']"), "p True False");
    let mounted = reader.mount();
    assert!(mounted.stderr.contains("read-only"), "{}", mounted.stderr);
}

/// What rsync finds different.
fn differences(source: &Path, target: &Path) -> String {
    let slash = |path: &Path| format!("{}/", path.display());
    must("rsync", ["-aHAXnci".to_owned(), "--delete".into(), slash(source), slash(target)])
}

/// Chunks that a device has of `p`.
fn chunks(device: &Device) -> u64 {
    let status = device.warp(["portal", "status", "p", "--json"]).ok();
    device.json(&status, "d['chunks']").parse().unwrap()
}

#[test]
fn a_second_machine_joins_with_a_ticket_and_its_mount_has_everything() {
    let (_lan, devices) = devices(2);
    let [writer, reader] = &devices[..] else { unreachable!() };
    build(&mkdir(&writer.at("tree")));
    write(&writer.at("big"), &noise(3_000_000, 9));
    must("setfattr", ["-n", "user.a", "-v", "b", &writer.at("big").to_string_lossy()]);
    must("ln", [writer.at("big"), writer.at("again")]);
    writer.sync();
    join(writer, reader);
    assert_eq!(differences(&writer.m(), &reader.m()), "");
    // The kernel has seen all of it; what changes is seen all the same.
    write(&writer.at("new"), b"new");
    write(&writer.at("big"), b"short");
    fs::remove_file(writer.at("again")).unwrap();
    fs::rename(writer.at("tree"), writer.at("wood")).unwrap();
    writer.sync();
    soon("the new file", SEEN_WITHIN, || reader.at("new").exists());
    soon("the removed one", SEEN_WITHIN, || !reader.at("again").exists());
    soon("the new content", SEEN_WITHIN, || fs::read(reader.at("big")).unwrap() == b"short");
    soon("the rename", SEEN_WITHIN, || !reader.at("tree").exists() && reader.at("wood").exists());
    assert_eq!(differences(&writer.m(), &reader.m()), "");
    // And it cannot be written.
    let denied = fs::write(reader.at("x"), b"x").unwrap_err();
    assert_eq!(denied.raw_os_error(), Some(30), "EROFS: {denied}");
}

#[test]
fn content_that_changes_without_its_size_and_times_is_seen_through_the_mount() {
    let (_lan, devices) = devices(2);
    let [writer, reader] = &devices[..] else { unreachable!() };
    write(&writer.at("f"), &vec![b'a'; 200_000]);
    must("touch", ["-d", "2001-02-03", &writer.at("f").to_string_lossy()]);
    writer.sync();
    join(writer, reader);
    assert!(fs::read(reader.at("f")).unwrap().iter().all(|b| *b == b'a'));
    write(&writer.at("f"), &vec![b'b'; 200_000]);
    must("touch", ["-d", "2001-02-03", &writer.at("f").to_string_lossy()]);
    writer.sync();
    soon("the new content", SEEN_WITHIN, || {
        fs::read(reader.at("f")).unwrap().iter().all(|b| *b == b'b')
    });
}

#[test]
fn of_a_portal_of_100_000_files_a_mount_fetches_what_is_walked() {
    let (_lan, devices) = devices(2);
    let [writer, reader] = &devices[..] else { unreachable!() };
    for dir in 0..100 {
        let dir = writer.at(format!("d{dir:02}"));
        mkdir(&dir);
        (0..1000).for_each(|n| write(&dir.join(format!("file-{n:03}")), b"some bytes"));
    }
    writer.sync();
    reader.warp(["portal", "join", &ticket(writer, &[])]).ok();
    let began = Instant::now();
    reader.mount();
    let names = fs::read_dir(reader.at("d42")).unwrap().count();
    let took = began.elapsed();
    assert_eq!(names, 1000);
    assert!(took < Duration::from_secs(2), "{took:?}");
    let (here, there) = (chunks(reader), chunks(writer));
    assert!(here * 10 < there, "{here} of {there} chunks were fetched for one directory of 100");
    assert_eq!(differences(&writer.m(), &reader.m()), "");
    // What is published while all of it is walked again is seen as soon.
    std::thread::scope(|scope| {
        let walk = scope
            .spawn(|| must("find", [reader.m().as_os_str(), "-printf".as_ref(), "%s".as_ref()]));
        for n in 0.. {
            let name = format!("new-{n}");
            write(&writer.at(&name), b"new");
            writer.sync();
            soon("what is new", SEEN_WITHIN, || reader.at(&name).exists());
            if walk.is_finished() && n >= 3 {
                break;
            }
        }
        walk.join().unwrap();
    });
}

#[test]
fn two_machines_find_each_other_again_after_both_have_new_addresses_mount() {
    let (lan, devices) = devices(2);
    let [writer, reader] = &devices[..] else { unreachable!() };
    write(&writer.at("f"), b"one");
    writer.sync();
    join(writer, reader);
    for (device, machine) in [(reader, 2), (writer, 1)] {
        device.warp(["down"]).ok();
        lan.readdress(machine, machine + 100);
    }
    writer.mount();
    write(&writer.at("g"), b"two");
    writer.sync();
    // What is known is there before anybody is found.
    reader.mount();
    assert!(reader.at("f").exists());
    soon("the writer is found by multicast", Duration::from_secs(5), || reader.at("g").exists());
    assert_eq!(fs::read(reader.at("g")).unwrap(), b"two");
}

/// Reads a file with `cat`, while something is done after a while.
fn read_while(path: &Path, after: Duration, act: impl FnOnce() + Send) -> (Vec<u8>, Duration) {
    std::thread::scope(|scope| {
        scope.spawn(move || {
            std::thread::sleep(after);
            act();
        });
        let mut cat = Command::new("cat");
        cat.arg(path);
        let done = warp_tests::run::run(cat, Duration::from_secs(60)).exits(0);
        (done.stdout, done.took)
    })
}

#[test]
fn peers_that_die_in_the_middle_of_a_read_cost_no_byte_mount() {
    let (lan, devices) = devices(5);
    let (writer, reader) = (&devices[0], &devices[4]);
    let files: Vec<Vec<u8>> = (0..3).map(|n| noise(24_000_000, 20 + n)).collect();
    for (n, bytes) in files.iter().enumerate() {
        write(&writer.at(format!("f{n}")), bytes);
    }
    writer.sync();
    for device in &devices[1..4] {
        join(writer, device);
        for (n, bytes) in files.iter().enumerate() {
            assert!(fs::read(device.at(format!("f{n}"))).unwrap() == *bytes);
        }
    }
    (1..=4).for_each(|machine| lan.sends_at(machine, 80));
    join(writer, reader);
    // Told of a death at once, by silence of the process, of the network: each
    // with three others left.
    let stopped = devices[2].daemon().to_string();
    let signal = |name: &str| drop(must("kill", [name, &stopped]));
    let killed = &devices[1];
    let acts: [&(dyn Fn() + Sync); 3] =
        [&|| killed.kill(), &|| signal("-STOP"), &|| lan.drop_all(4)];
    let undo: [&dyn Fn(); 3] =
        [&|| drop(killed.warp(["mount", "p", "m"]).ok()), &|| signal("-CONT"), &|| {}];
    for (n, (act, undo)) in acts.iter().zip(undo).enumerate() {
        soon("all are connected", Duration::from_secs(20), || {
            let peers = reader.warp(["peers", "--json"]).ok();
            reader.json(&peers, "sum(p['connected'] for p in d['peers'])") == "4"
        });
        let path = reader.at(format!("f{n}"));
        let (bytes, took) = read_while(&path, Duration::from_millis(150), act);
        assert!(bytes == files[n], "f{n} came otherwise");
        // 24 MB from one peer alone takes 2.4 s.
        assert!(took < Duration::from_secs(8), "f{n} took {took:?}");
        undo();
    }
    assert!(!reader.log().contains("sent bytes that are not"), "nobody has lied");
}

#[test]
fn without_any_peer_what_is_known_is_there_and_the_rest_is_an_error_in_time_mount() {
    let (lan, devices) = devices(2);
    let [writer, reader] = &devices[..] else { unreachable!() };
    mkdir(&writer.at("d"));
    write(&writer.at("d/known"), &noise(100_000, 1));
    write(&writer.at("d/unknown"), &noise(100_000, 2));
    writer.sync();
    join(writer, reader);
    let known = fs::read(reader.at("d/known")).unwrap();
    must("ls", ["-l", &reader.at("d").to_string_lossy()]);
    lan.silence(1);
    // The peer is noticed to be gone.
    std::thread::sleep(Duration::from_secs(7));
    assert!(fs::read(reader.at("d/known")).unwrap() == known);
    must("ls", ["-l", &reader.at("d").to_string_lossy()]);
    must("df", [reader.m()]);
    // A reader who waits can be killed.
    let mut cat = Command::new("cat");
    let mut cat = cat.arg(reader.at("d/unknown")).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    let began = Instant::now();
    cat.kill().unwrap();
    cat.wait().unwrap();
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let began = Instant::now();
    let failed = fs::read(reader.at("d/unknown")).unwrap_err();
    assert_eq!(failed.raw_os_error(), Some(5), "EIO: {failed}");
    assert!(began.elapsed() < Duration::from_secs(32), "{:?}", began.elapsed());
    assert!(reader.log().contains("no peer is connected"), "the log says why");
    // Who has waited in vain does not wait as long again.
    let began = Instant::now();
    assert!(fs::read(reader.at("d/unknown")).is_err());
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    lan.restore(1);
    soon("the peer is back", Duration::from_secs(30), || fs::read(reader.at("d/unknown")).is_ok());
    assert_eq!(differences(&writer.m(), &reader.m()), "");
}

#[test]
fn a_ticket_is_good_for_what_it_says_and_no_longer() {
    let (_lan, devices) = devices(3);
    let (writer, a, b) = (&devices[0], &devices[1], &devices[2]);
    let join = |device: &Device, ticket: &str| device.warp(["portal", "join", ticket]).run();
    let says = |output: warp_tests::Output, code: i32, why: &str| {
        let output = output.exits(code);
        assert!(output.stderr.contains(why), "{}", output.stderr);
    };
    let good = ticket(writer, &[]);
    // Mistyped, cut, nothing of the kind, one's own.
    let mut typed = good.clone().into_bytes();
    typed[30] = if typed[30] == b'a' { b'b' } else { b'a' };
    says(join(a, std::str::from_utf8(&typed).unwrap()), 2, "checksum");
    says(join(a, &good[..good.len() - 5]), 2, "ticket");
    says(join(a, "https://example.org"), 2, "warp1");
    says(join(writer, &good), 2, "own");
    // Used.
    join(a, &good).exits(0);
    says(join(b, &good), 7, "used");
    says(join(a, &good), 2, "already");
    // Taken back.
    let open = ticket(writer, &["--uses", "5"]);
    writer.warp(["portal", "expire", "p", "--invites"]).ok();
    says(join(b, &open), 7, "revoked");
    // Nobody there.
    let lost = ticket(writer, &[]);
    writer.warp(["down"]).ok();
    says(join(b, &lost), 5, "answer");
}

#[test]
fn of_two_who_race_for_one_ticket_one_joins() {
    let (_lan, devices) = devices(3);
    let ticket = ticket(&devices[0], &[]);
    let codes: Vec<i32> = std::thread::scope(|scope| {
        let join = |n: usize| {
            let (devices, ticket) = (&devices, &ticket);
            scope.spawn(move || devices[n].warp(["portal", "join", ticket]).run().code)
        };
        [join(1), join(2)].map(|joined| joined.join().unwrap()).into()
    });
    let mut sorted = codes.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, [0, 7], "{codes:?}");
}

#[test]
fn who_is_removed_gets_nothing_new_through_the_mount() {
    let (_lan, devices) = devices(2);
    let [writer, reader] = &devices[..] else { unreachable!() };
    write(&writer.at("old"), &noise(50_000, 1));
    writer.sync();
    join(writer, reader);
    assert!(fs::read(reader.at("old")).is_ok());
    let peers = writer.warp(["peers", "--json"]).ok();
    let name = writer.json(&peers, "d['peers'][0]['name']");
    let ended = writer.warp(["portal", "expire", "p", "--member", &name, "--json"]).ok();
    assert_eq!(writer.json(&ended, "d['member']"), name);
    write(&writer.at("new"), &noise(50_000, 2));
    writer.sync();
    std::thread::sleep(Duration::from_secs(3));
    assert!(!reader.at("new").exists());
    assert!(fs::read(reader.at("old")).is_ok(), "what it has, it has");
    let peers = writer.warp(["peers", "--json"]).ok();
    assert_eq!(writer.json(&peers, "d['peers']"), "[]");
}

#[test]
fn members_are_listed_and_end_when_it_was_said_through_the_mount() {
    let (_lan, devices) = devices(2);
    let [writer, reader] = &devices[..] else { unreachable!() };
    let list = |device: &Device, what: &str| {
        let told = device.warp(["portal", "status", "p", "--members", "--json"]).ok();
        device.json(&told, &format!("[{what} for m in d['members']]"))
    };
    assert_eq!(list(writer, "m"), "[]", "nobody was invited yet");
    join(writer, reader);
    let rights = "(m['capability'], m['may_invite'], m['founder'], m['here'])";
    let (first, second) = ("('admin', True, True, ", "('writer', False, False, ");
    assert_eq!(list(writer, rights), format!("[{first}True), {second}False)]"));
    soon("the reader's list", SEEN_WITHIN, || {
        list(reader, rights) == format!("[{first}False), {second}True)]")
    });
    let name = writer.json(&writer.warp(["peers", "--json"]).ok(), "d['peers'][0]['name']");
    let expire = |flags: &[&str]| {
        let words = ["portal", "expire", "p", "--json", "--member", &name];
        writer.warp(words.iter().chain(flags)).run()
    };
    // 2100-01-01T00:00:00Z
    let at = writer.json(&expire(&["--at", "2100-01-01T00:00:00Z"]).exits(0), "d['at']");
    assert_eq!(at, "4102444800");
    let ends = "(m['expires'], m['expired'])";
    assert_eq!(list(writer, ends), "[(None, False), (4102444800, False)]");
    assert_eq!(writer.json(&expire(&["--never"]).exits(0), "d['at']"), "None");
    assert_eq!(list(writer, ends), "[(None, False), (None, False)]");
    let past = expire(&["--at", "2001-01-01"]).exits(2);
    assert!(past.stderr.contains("past"), "{}", past.stderr);
    expire(&["--at", "soon"]).exits(2);
    expire(&["--never", "--in", "1h"]).exits(2);
    assert_eq!(list(writer, ends), "[(None, False), (None, False)]", "nothing has changed");
    expire(&[]).exits(0);
    assert_eq!(list(writer, "m['founder']"), "[True]");
}

#[test]
fn what_is_warmed_up_is_there_offline_through_the_mount() {
    let (lan, devices) = devices(2);
    let [writer, reader] = &devices[..] else { unreachable!() };
    mkdir(&writer.at("d"));
    let (warm, cold) = (noise(300_000, 1), noise(300_000, 2));
    write(&writer.at("d/warm"), &warm);
    write(&writer.at("cold"), &cold);
    writer.sync();
    join(writer, reader);
    let here = |device: &Device| {
        let told = device.warp(["warmup", "--check", "--json", "m/d"]).ok();
        device.json(&told, "d['paths'][0]['bytes_here'], d['paths'][0]['bytes']")
    };
    assert_eq!(here(reader), "0 300000");
    let told = reader.warp(["warmup", "--explain", "--json", "m/d"]).ok();
    let each = "{(c['from'], c['asked'][0]['peer'], c['asked'][0]['why'], \
                c['asked'][0]['candidates'][0]['peer']) for c in d['paths'][0]['explained']}";
    let name = reader.json(&reader.warp(["peers", "--json"]).ok(), "d['peers'][0]['name']");
    let from_it = format!("{{('{name}', '{name}', 'planned', '{name}')}}");
    assert_eq!(reader.json(&told, each), from_it);
    let bytes = "sum(c['bytes'] for c in d['paths'][0]['explained']) >= 300000";
    assert_eq!(reader.json(&told, bytes), "True");
    assert_eq!(here(reader), "300000 300000");
    let nothing = reader.warp(["warmup", "--explain", "m/d"]).ok();
    assert_eq!(nothing.stdout, b"", "nothing comes a second time");
    reader.warp(["umount", "m"]).ok();
    reader.warp(["mount", "--offline", "p", "m"]).ok();
    assert!(fs::read(reader.at("d/warm")).unwrap() == warm);
    let began = Instant::now();
    let failed = fs::read(reader.at("cold")).unwrap_err();
    assert_eq!(failed.raw_os_error(), Some(5), "EIO: {failed}");
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    // Mounted as usual it asks again; without any peer, a warm-up says so.
    reader.warp(["umount", "m"]).ok();
    reader.mount();
    assert!(fs::read(reader.at("cold")).unwrap() == cold);
    write(&writer.at("later"), &noise(300_000, 3));
    writer.sync();
    soon("the new file", SEEN_WITHIN, || reader.at("later").exists());
    lan.silence(1);
    let failed = reader.warp(["warmup", "m/later"]).run().exits(5);
    assert!(failed.stderr.contains("could not be had"), "{}", failed.stderr);
    // Where it is written, all of it is here.
    let refused = writer.warp(["warmup", "m/d"]).run().exits(2);
    assert!(refused.stderr.contains("all of it is here"), "{}", refused.stderr);
}

#[test]
fn what_comes_from_peers_is_counted_and_limited_through_the_mount() {
    let (lan, devices) = devices(2);
    let [writer, reader] = &devices[..] else { unreachable!() };
    write(&writer.at("f"), &noise(4_000_000, 1));
    writer.sync();
    reader.warp(["up", "--metrics", "127.0.0.1:9464", "--limit", "2M"]).ok();
    join(writer, reader);
    let began = Instant::now();
    fs::read(reader.at("f")).unwrap();
    let took = began.elapsed();
    // 4 MB at 2 MiB a second, with what a bucket lets pass at once.
    assert!(took > Duration::from_millis(1500) && took < Duration::from_secs(6), "{took:?}");
    let script = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:9464/metrics').read().decode())";
    let mut asked = lan.on(2, "python3");
    asked.args(["-c", script]);
    let told = warp_tests::run::run(asked, Duration::from_secs(10)).exits(0).text();
    let value = |name: &str| -> f64 {
        let line = told.lines().find(|line| line.starts_with(name) && line.contains('{'));
        line.and_then(|line| line.rsplit(' ').next()).and_then(|n| n.parse().ok()).unwrap_or(-1.0)
    };
    assert!(value("warp_received_bytes_total") >= 4_000_000.0, "{told}");
    assert_eq!(value("warp_peers_connected"), 1.0, "{told}");
    assert_eq!(value("warp_bad_chunks_total"), 0.0, "{told}");
    // Not for the network.
    let home = reader.path("other");
    let refused = reader.warp(["up", "--metrics", "10.77.0.2:9464"]).env("WARP_HOME", home).run();
    assert!(refused.code != 0 && refused.stderr.contains("127.0.0.1"), "{}", refused.stderr);
}

#[test]
fn a_peer_gives_each_of_the_thousands_of_chunks_that_it_fetched_mount() {
    let (_lan, devices) = devices(3);
    let [writer, first, second] = &devices[..] else { unreachable!() };
    let name = |n: u64| format!("f{n:04}");
    // Longer than what shares a chunk with its neighbours.
    let content = |n: u64| format!("{n:06}").repeat(11_000).into_bytes();
    let files = 0..1200;
    files.clone().for_each(|n| write(&writer.at(name(n)), &content(n)));
    writer.sync();
    join(writer, first);
    // It hears from the first while that has less and less to learn.
    join(writer, second);
    first.warp(["warmup", "m"]).ok();
    assert!(chunks(first) >= 1200, "each file is a chunk");
    // What is here is told every two seconds.
    std::thread::sleep(Duration::from_secs(4));
    writer.warp(["down"]).ok();
    for n in files {
        assert_eq!(fs::read(second.at(name(n))).unwrap(), content(n), "{n}");
    }
}
