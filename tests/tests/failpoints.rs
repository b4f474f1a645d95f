//! The daemon ends at every single call by which it changes its disk, before
//! it and in the middle of it: at each record, barrier, rename and removal of
//! journal, packs, heads and portals, in the recovery too. What a program was
//! told is durable is there after the next `warp mount`, and nothing is half
//! there. (What a power cut leaves is for `engine/flow/tests/crash_live.rs`.)

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use warp_tests::device::{Device, USABLE_WITHIN, fails};
use warp_tests::failpoint::{At, Failpoint};
use warp_tests::nasty::{mkdir, noise, scratch, write};
use warp_tests::{Warp, must};

/// Names and contents; a directory has none.
type Tree = BTreeMap<String, Option<Vec<u8>>>;

/// What a program does, and waits for until it is durable.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Act {
    Make(&'static str, usize),
    Append(&'static str, usize),
    Mkdir(&'static str),
    Rename(&'static str, &'static str),
    Remove(&'static str),
    Publish,
    Snapshot,
    RemoveSnapshot,
    CreatePortal,
    LeavePortal,
    Unmount,
}

/// Small contents lie in the tree, others in chunks; names change in one and
/// in two directories; there is something to publish each time.
const ACTS: [Act; 18] = [
    Act::Make("inline", 100),
    Act::Make("chunk", 5_000),
    Act::Append("old 2", 700),
    Act::Publish,
    Act::Mkdir("dir"),
    Act::Rename("chunk", "dir/moved"),
    Act::Make("chunks", 300_000),
    Act::Snapshot,
    Act::Rename("inline", "old 0"),
    Act::Remove("old 1"),
    Act::CreatePortal,
    Act::Publish,
    Act::Append("dir/moved", 90),
    Act::LeavePortal,
    Act::RemoveSnapshot,
    Act::Remove("chunks"),
    Act::Make("last", 40),
    Act::Unmount,
];

/// Kinds of calls that have to be among those that were cut, and where.
const SITES: [&str; 23] = [
    "create journal",
    "pwrite journal",
    "fdatasync journal",
    "unlink journal",
    "pwrite own.pack",
    "fdatasync own.pack",
    "create head",
    "pwrite head",
    "fdatasync head",
    "unlink head",
    "pwrite dedup",
    "fdatasync dedup",
    "create snapshots",
    "pwrite snapshots",
    "fdatasync snapshots",
    "fsync state",
    "mkdir state",
    "create portal",
    "write portal",
    "fsync portal",
    "fsync directory",
    "rename directory",
    "unlink left",
];

/// Devices that are worked on at a time.
const AT_A_TIME: usize = 3;

fn content(of: &str, len: usize) -> Vec<u8> {
    noise(len, of.bytes().map(u64::from).sum())
}

impl Act {
    fn perform(self, device: &Device) -> io::Result<()> {
        let sync = |path: &Path| File::open(path)?.sync_all();
        let command = |line: &str| match device.types(line).code {
            0 => Ok(()),
            code => Err(io::Error::other(format!("`warp {line}`: {code}"))),
        };
        match self {
            Self::Make(name, len) => {
                let path = device.at(name);
                fs::write(&path, content(name, len))?;
                sync(&path)
            }
            Self::Append(name, len) => {
                let mut file = OpenOptions::new().append(true).open(device.at(name))?;
                file.write_all(&content(name, len))?;
                file.sync_data()
            }
            Self::Mkdir(name) => fs::create_dir(device.at(name)).and_then(|()| sync(&device.m())),
            Self::Rename(from, to) => {
                fs::rename(device.at(from), device.at(to)).and_then(|()| sync(&device.m()))
            }
            Self::Remove(name) => fs::remove_file(device.at(name)).and_then(|()| sync(&device.m())),
            Self::Publish => command("sync m"),
            Self::Snapshot => command("snapshot create p s"),
            Self::RemoveSnapshot => command("snapshot rm p s"),
            Self::CreatePortal => command("portal create q"),
            Self::LeavePortal => command("portal leave q --yes"),
            Self::Unmount => command("umount m"),
        }
    }

    /// What there is once it is done.
    fn done(self, tree: &mut Tree) {
        match self {
            Self::Make(name, len) => {
                tree.insert(name.into(), Some(content(name, len)));
            }
            Self::Append(name, len) => {
                if let Some(Some(bytes)) = tree.get_mut(name) {
                    bytes.extend(content(name, len));
                }
            }
            Self::Mkdir(name) => {
                tree.insert(name.into(), None);
            }
            Self::Rename(from, to) => {
                let moved = tree.remove(from).expect("there is one");
                tree.insert(to.into(), moved);
            }
            Self::Remove(name) => {
                tree.remove(name);
            }
            Self::Publish
            | Self::Snapshot
            | Self::RemoveSnapshot
            | Self::CreatePortal
            | Self::LeavePortal
            | Self::Unmount => {}
        }
    }

    /// Whether it may have left this when it was cut off.
    fn may_leave(self, before: &Tree, found: &Tree) -> bool {
        let mut after = before.clone();
        self.done(&mut after);
        let (Self::Make(name, _) | Self::Append(name, _)) = self else {
            return found == before || *found == after;
        };
        // Bytes go in order; everything else is as it was.
        let (mut found, mut before) = (found.clone(), before.clone());
        let there = found.remove(name).flatten();
        let start = before.remove(name).flatten();
        let end = after.remove(name).flatten().expect("it is a file");
        let grows = match (&there, &start) {
            (None, start) => start.is_none(),
            (Some(there), start) => {
                end.starts_with(there) && there.len() >= start.as_ref().map_or(0, Vec::len)
            }
        };
        grows && found == before
    }
}

fn tree(dir: &Path) -> Tree {
    let mut found = Tree::new();
    let mut left = vec![String::new()];
    while let Some(at) = left.pop() {
        for entry in fs::read_dir(dir.join(&at)).expect("a directory") {
            let entry = entry.expect("an entry");
            let name = format!("{at}{}", entry.file_name().to_string_lossy());
            let is_dir = entry.file_type().expect("a type").is_dir();
            let bytes = || fs::read(entry.path()).unwrap_or_else(|e| panic!("{name}: {e}"));
            found.insert(name.clone(), (!is_dir).then(bytes));
            if is_dir {
                left.push(name + "/");
            }
        }
    }
    found
}

/// A device whose portal has files in its packs and others in its journal
/// only, and whose daemon was killed. Gives what is durable.
fn device() -> (Device, Tree) {
    let device = Device::mounted();
    for n in 0..3 {
        let name = format!("old {n}");
        write(&device.at(&name), &content(&name, 1 << (6 * n)));
    }
    device.sync();
    let path = device.at("journal");
    write(&path, &content("journal", 3_000));
    File::open(&path).and_then(|file| file.sync_all()).expect("durable");
    let durable = tree(&device.m());
    mkdir(&device.path("other"));
    device.crash();
    // As it is found each time.
    device.warp(["umount", "m"]).ok();
    device.until_gone();
    let home = device.home().as_os_str();
    must("cp", ["-a".as_ref(), home, device.path("before").as_os_str()]);
    (device, durable)
}

/// The daemon, which ends there; once it listens, or has ended before.
fn daemon(device: &Device, failpoint: &Failpoint, at: At) -> Child {
    let mut command = Command::new(Warp::binary());
    command.arg("daemon").current_dir("/").stdin(Stdio::null()).stderr(Stdio::null());
    command.env("WARP_HOME", device.home());
    command.env("WARP_LISTEN", "127.0.0.1:0").env("WARP_MDNS", "off");
    failpoint.set(&mut command, &device.home().join("portals"), at);
    let mut child = command.stdout(Stdio::piped()).spawn().expect("it starts");
    let mut line = String::new();
    let stdout = child.stdout.take().expect("piped");
    BufReader::new(stdout).read_line(&mut line).expect("text");
    child
}

/// What came of one life of a daemon.
struct Life {
    calls: Vec<String>,
    was_killed: bool,
    /// How many acts were acknowledged.
    acknowledged: usize,
}

fn live(device: &Device, failpoint: &Failpoint, at: At) -> Life {
    fs::remove_dir_all(device.home()).expect("removed");
    let before = device.path("before");
    must("cp", ["-a".as_ref(), before.as_os_str(), device.home().as_os_str()]);
    let mut daemon = daemon(device, failpoint, at);
    let mut acknowledged = 0;
    // It may end while it mounts.
    if device.warp(["mount", "p", "m"]).within(Duration::from_secs(20)).run().code == 0 {
        for act in ACTS {
            if let Err(e) = act.perform(device) {
                let until = Instant::now() + Duration::from_secs(5);
                while daemon.try_wait().expect("a child").is_none() {
                    assert!(Instant::now() < until, "{at:?}, {act:?}: {e}, and it lives");
                    std::thread::sleep(Duration::from_millis(1));
                }
                break;
            }
            acknowledged += 1;
        }
    }
    let status = daemon.wait().expect("a child");
    let was_killed = status.signal().is_some();
    assert!(was_killed || status.success(), "{at:?}: {status}");
    // Another one may have been started for a command that came too late.
    for pid in device.daemons() {
        must("kill", ["-9", &pid.to_string()]);
    }
    device.until_gone();
    Life { calls: failpoint.calls(), was_killed, acknowledged }
}

/// Mounts what a life has left, as anybody would, and goes on.
fn check(device: &Device, life: &Life, durable: &Tree, what: &str) {
    let mut before = durable.clone();
    ACTS[..life.acknowledged].iter().for_each(|act| act.done(&mut before));
    let took = device.mount().took;
    assert!(took <= USABLE_WITHIN, "{what}: usable after {took:?} only");
    let found = tree(&device.m());
    let next = ACTS.get(life.acknowledged).copied();
    let is_right = next.map_or(found == before, |act| act.may_leave(&before, &found));
    let names = |tree: &Tree| -> Vec<(String, usize)> {
        tree.iter().map(|(k, v)| (k.clone(), v.as_ref().map_or(0, Vec::len))).collect()
    };
    assert!(is_right, "{what}, in {next:?}: found {:?}, not {:?}", names(&found), names(&before));
    // A portal is there whole or not at all.
    let acts = &ACTS[..life.acknowledged];
    let listed = device.warp(["portal", "ls"]).ok().text();
    let has_other = listed.lines().any(|line| line.split_whitespace().next() == Some("q"));
    if next != Some(Act::CreatePortal) && next != Some(Act::LeavePortal) {
        let should = acts.contains(&Act::CreatePortal) && !acts.contains(&Act::LeavePortal);
        assert_eq!(has_other, should, "{what}: {listed}");
    }
    check_snapshot(device, acts, next, durable, what);
    if has_other {
        device.mount_at("q", "other");
        assert_eq!(tree(&device.path("other")), Tree::new(), "{what}");
        device.warp(["umount", "other"]).ok();
    }
    // It goes on.
    Act::Make("more", 2_000).perform(device).unwrap_or_else(|e| panic!("{what}: {e}"));
    device.umount();
}

/// A snapshot is there with all that was when it was made, or not at all.
fn check_snapshot(device: &Device, acts: &[Act], next: Option<Act>, durable: &Tree, what: &str) {
    let then = device.at(".snapshots/s");
    let is_there = then.exists();
    if next != Some(Act::Snapshot) && next != Some(Act::RemoveSnapshot) {
        let should = acts.contains(&Act::Snapshot) && !acts.contains(&Act::RemoveSnapshot);
        assert_eq!(is_there, should, "{what}: a snapshot is there: {is_there}");
    }
    if is_there {
        let mut want = durable.clone();
        let made = ACTS.iter().take_while(|act| **act != Act::Snapshot);
        made.for_each(|act| act.done(&mut want));
        assert!(tree(&then) == want, "{what}: a snapshot with something else");
    }
}

/// Every so-manyth call from `first` on, until there are no more; gives how
/// many lives that took.
fn killed_at_each(first: usize, step: usize) -> usize {
    let (device, durable) = device();
    let failpoint = Failpoint::new(&device.path(""));
    let mut lives = 0;
    for number in (first..).step_by(step) {
        let life = live(&device, &failpoint, At::Before(number));
        let call = life.calls.last().cloned().unwrap_or_default();
        check(&device, &life, &durable, &format!("killed before call {number}, {call}"));
        if !life.was_killed {
            break;
        }
        lives += 1;
        if call.starts_with("pwrite ") {
            let life = live(&device, &failpoint, At::Within(number));
            check(&device, &life, &durable, &format!("killed within call {number}, {call}"));
            lives += 1;
        }
    }
    lives
}

#[test]
fn a_portal_mount_killed_at_any_call_keeps_what_was_acknowledged() {
    let calls = {
        let (device, durable) = device();
        let failpoint = Failpoint::new(&device.path(""));
        let whole = live(&device, &failpoint, At::Never);
        assert!(!whole.was_killed && whole.acknowledged == ACTS.len(), "{:?}", whole.calls);
        check(&device, &whole, &durable, "unharmed");
        whole.calls
    };
    let found: BTreeSet<&str> = calls.iter().map(String::as_str).collect();
    let missing: Vec<&&str> = SITES.iter().filter(|site| !found.contains(**site)).collect();
    assert!(missing.is_empty(), "{missing:?} are not among {found:?}");
    // Side by side, each with a device of its own: most of the time they wait.
    let lives: usize = std::thread::scope(|scope| {
        let all: Vec<_> = (1..=AT_A_TIME)
            .map(|first| scope.spawn(move || killed_at_each(first, AT_A_TIME)))
            .collect();
        all.into_iter().map(|one| one.join().expect("it says why")).sum()
    });
    println!("{lives} lives, {} calls: {found:?}", calls.len());
    // A call may be there once and not another time, when two threads meet.
    assert!(lives >= calls.len(), "{lives} lives for {} calls", calls.len());
}

/// A key is there whole, with its phrase, or not at all.
#[test]
fn a_key_whose_making_is_killed_at_any_call_is_made_or_is_not() {
    let dir = scratch();
    let failpoint = Failpoint::new(dir.path());
    let mut made = 0;
    for number in 1.. {
        let device = Device::without_key();
        let init = |phrase: &str| device.warp(["key", "init", "--phrase-file", phrase]);
        let mut first = init("phrase");
        failpoint.set(first.command(), &device.path(""), At::Before(number));
        let first = first.run();
        let call = failpoint.calls().pop().unwrap_or_default();
        if first.code == 0 {
            assert!(number > 5, "{number} calls cannot make anything durable");
            break;
        }
        assert_eq!(first.code, 137, "{call}: {}", first.stderr);
        let second = init("phrase2").run();
        if second.code == 0 {
            made += 1;
            continue;
        }
        fails(second, 2, "there is a key already", "");
        let phrase = fs::read_to_string(device.path("phrase")).expect("text");
        assert_eq!(phrase.split_whitespace().count(), 24, "{call}: a key, and no phrase");
        device.types("key show").exits(0);
    }
    assert!(made > 0, "a kill at the beginning leaves no key");
}
