//! kill -9 at any moment: what was acknowledged is there, what was in flight
//! is whole or not there, and `warp mount` is all the recovery there is.

use rustix::process::{Pid, Signal, kill_process};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use warp_tests::damage::Rng;
use warp_tests::device::{Device, Running, USABLE_WITHIN, python};
use warp_tests::nasty::{mkdir, noise, write};

/// Kills in one run, unless `WARP_KILL_ROUNDS` asks for more (a release: 100).
const ROUNDS: usize = 20;
/// Most files that the writer keeps at a time: all are read after each round.
const FILES_MAX: usize = 60;
/// Longest content that a file starts with: some are inlined in the tree, some
/// share a chunk, some have chunks of their own.
const LENGTHS: [usize; 6] = [0, 100, 600, 5_000, 70_000, 300_000];

/// Names and contents.
type Files = BTreeMap<String, Vec<u8>>;

/// What is being done and not acknowledged.
#[derive(Debug, Clone)]
enum Act {
    Create { name: String, content: Vec<u8> },
    Append { name: String, more: Vec<u8> },
    Replace { name: String, content: Vec<u8> },
    Delete { name: String },
}

impl Act {
    fn name(&self) -> &str {
        match self {
            Self::Create { name, .. }
            | Self::Append { name, .. }
            | Self::Replace { name, .. }
            | Self::Delete { name } => name,
        }
    }

    /// What the files are once it is acknowledged.
    fn done(self, files: &mut Files) {
        match self {
            Self::Create { name, content } | Self::Replace { name, content } => {
                files.insert(name, content);
            }
            Self::Append { name, more } => files.entry(name).or_default().extend(more),
            Self::Delete { name } => {
                files.remove(&name);
            }
        }
    }

    /// Whether it may have left this content (`None`: no such file) behind
    /// when it was cut off; `before` is what was acknowledged.
    fn may_leave(&self, before: Option<&Vec<u8>>, found: Option<&Vec<u8>>) -> bool {
        match self {
            Self::Create { content, .. } => found.is_none_or(|found| content.starts_with(found)),
            Self::Append { more, .. } => found.is_some_and(|found| {
                let rest = before.and_then(|before| found.strip_prefix(before.as_slice()));
                rest.is_some_and(|rest| more.starts_with(rest))
            }),
            Self::Replace { content, .. } => found == before || found == Some(content),
            Self::Delete { .. } => found.is_none() || found == before,
        }
    }

    /// Does it, durably.
    fn perform(&self, dir: &Path, rng: &mut Rng) -> io::Result<()> {
        let path = dir.join(self.name());
        match self {
            Self::Create { content, .. } => {
                let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
                file.write_all(content)?;
                file.sync_all()?;
                // One fsync commits everything before it, the name too: half
                // of the time nothing else is asked for.
                if rng.below(2) == 0 { sync_dir(dir) } else { Ok(()) }
            }
            Self::Append { more, .. } => {
                let mut file = OpenOptions::new().append(true).open(path)?;
                file.write_all(more)?;
                if rng.below(2) == 0 { file.sync_all() } else { file.sync_data() }
            }
            Self::Replace { content, .. } => {
                let new = dir.join(TEMPORARY);
                let mut file = File::create(&new)?;
                file.write_all(content)?;
                file.sync_all()?;
                fs::rename(&new, path)?;
                sync_dir(dir)
            }
            Self::Delete { .. } => {
                fs::remove_file(path)?;
                sync_dir(dir)
            }
        }
    }
}

/// What a replacement is written to first.
const TEMPORARY: &str = ".new";

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// What the writer knows to be durable, and what it was doing.
#[derive(Default)]
struct Known {
    files: Files,
    in_flight: Option<Act>,
    /// Acknowledged creates, appends, replacements and deletes.
    counts: [usize; 4],
    made: usize,
}

impl Known {
    /// The next thing to do.
    fn choose(&mut self, rng: &mut Rng) -> Act {
        let content = |rng: &mut Rng| {
            let len = rng.pick(&LENGTHS);
            let more = rng.below(50);
            rng.bytes(len + more)
        };
        let existing: Vec<String> = self.files.keys().cloned().collect();
        let kind = if existing.len() < 5 { 0 } else { rng.below(4) };
        match kind {
            0 if existing.len() < FILES_MAX => {
                self.made += 1;
                Act::Create { name: format!("file {}", self.made), content: content(rng) }
            }
            1 => {
                let name = existing[rng.below(existing.len())].clone();
                Act::Append { name, more: content(rng) }
            }
            2 => {
                let name = existing[rng.below(existing.len())].clone();
                Act::Replace { name, content: content(rng) }
            }
            _ => Act::Delete { name: existing[rng.below(existing.len())].clone() },
        }
    }

    fn acknowledge(&mut self) {
        let act = self.in_flight.take().expect("something was done");
        self.counts[match act {
            Act::Create { .. } => 0,
            Act::Append { .. } => 1,
            Act::Replace { .. } => 2,
            Act::Delete { .. } => 3,
        }] += 1;
        act.done(&mut self.files);
    }

    /// Fails unless the directory holds exactly what was acknowledged, give or
    /// take what was in flight; that is settled then.
    #[track_caller]
    fn check(&mut self, dir: &Path, round: &str) {
        let mut found = read_all(dir);
        // In flight, a replacement's new content may have no name of its own yet.
        found.remove(TEMPORARY);
        let act = self.in_flight.take();
        let names = found.keys().chain(self.files.keys()).cloned();
        let names: BTreeSet<String> = names.collect();
        for name in &names {
            let (before, now) = (self.files.get(name), found.get(name));
            let excused =
                act.as_ref().is_some_and(|act| act.name() == name && act.may_leave(before, now));
            let len = |content: Option<&Vec<u8>>| content.map(Vec::len);
            assert!(
                before == now || excused,
                "{round}: {name} has {:?} bytes, {:?} were acknowledged; in flight: {}",
                len(now),
                len(before),
                act.as_ref().map_or_else(|| "nothing".into(), describe),
            );
        }
        self.files = found;
    }
}

fn describe(act: &Act) -> String {
    match act {
        Act::Create { name, content } => format!("create {name}, {} bytes", content.len()),
        Act::Append { name, more } => format!("append {} bytes to {name}", more.len()),
        Act::Replace { name, content } => format!("replace {name}, {} bytes", content.len()),
        Act::Delete { name } => format!("delete {name}"),
    }
}

fn read_all(dir: &Path) -> Files {
    let read = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().expect("the writer's names are text");
        let content = fs::read(entry.path()).unwrap_or_else(|e| panic!("{name}: {e}"));
        (name, content)
    };
    fs::read_dir(dir).expect("a directory").map(|entry| read(entry.expect("an entry"))).collect()
}

/// Where the daemon's life stands. Two flags, so that whoever works does so
/// until the very moment of the kill, and no longer.
#[derive(Default)]
struct Death {
    /// From here on failures are no surprise.
    near: AtomicBool,
    /// The signal is sent: what works now works in the next mount.
    done: AtomicBool,
}

impl Death {
    fn is_near(&self) -> bool {
        self.near.load(Ordering::SeqCst)
    }

    fn is_done(&self) -> bool {
        self.done.load(Ordering::SeqCst)
    }

    /// Brings it about.
    fn comes_to(&self, daemon: u32) {
        let pid = i32::try_from(daemon).ok().and_then(Pid::from_raw).expect("a process");
        self.near.store(true, Ordering::SeqCst);
        kill_process(pid, Signal::KILL).expect("it was alive");
        self.done.store(true, Ordering::SeqCst);
    }
}

/// Writes until the mount dies; nothing else may go wrong.
fn write_until_death(known: &Mutex<Known>, dir: &Path, rng: &mut Rng, death: &Death) {
    while !death.is_done() {
        let mut locked = known.lock().expect("the other side does not panic");
        let act = locked.choose(rng);
        locked.in_flight = Some(act.clone());
        drop(locked);
        if let Err(e) = act.perform(dir, rng) {
            assert!(death.is_near(), "{}: {e}", describe(&act));
            return;
        }
        known.lock().expect("the other side does not panic").acknowledge();
    }
}

/// Much data that nobody asks to be durable, made and thrown away.
fn bulk_until_death(dir: &Path, seed: u64, death: &Death) {
    let bytes = noise(4 << 20, seed);
    for n in 0.. {
        let path = dir.join(format!("bulk {}", n % 5));
        let written = fs::write(&path, &bytes[n % 4096..]);
        let done = if n % 3 == 2 { written.and_then(|()| fs::remove_file(&path)) } else { written };
        if let Err(e) = done {
            assert!(death.is_near(), "bulk: {e}");
            return;
        }
        if death.is_done() {
            return;
        }
    }
}

/// `warp sync`, again and again.
fn sync_until_death(device: &Device, death: &Death) {
    while !death.is_done() {
        let output = device.warp(["sync", "m"]).within(Duration::from_secs(20)).run();
        assert!(!output.stderr.contains("panicked"), "{}", output.stderr);
        assert!(output.code == 0 || death.is_near(), "{}", output.stderr);
    }
}

/// Lets a writer work, kills the daemon at some moment, and mounts again;
/// gives the time from the kill to a usable mount.
fn round(device: &Device, known: &Mutex<Known>, rng: &mut Rng, number: usize) -> Duration {
    let (dir, bulk) = (device.at("files"), device.at("bulk"));
    let after = Duration::from_millis([0, 3, 30, 150, 400][number % 5] + rng.below(150) as u64);
    let (mut writer_rng, seed) = (Rng::new(rng.draw(), number), rng.draw());
    let (daemon, death) = (device.daemon(), &Death::default());
    std::thread::scope(|scope| {
        scope.spawn(|| write_until_death(known, &dir, &mut writer_rng, death));
        if number % 3 == 1 {
            scope.spawn(|| bulk_until_death(&bulk, seed, death));
        }
        if number % 3 == 2 {
            scope.spawn(|| sync_until_death(device, death));
        }
        std::thread::sleep(after);
        let start = Instant::now();
        death.comes_to(daemon);
        device.mount();
        fs::read_dir(&dir).expect("usable").for_each(drop);
        start.elapsed()
    })
}

/// How often to kill: at least [`ROUNDS`] times.
fn rounds() -> usize {
    let Ok(text) = std::env::var("WARP_KILL_ROUNDS") else { return ROUNDS };
    let asked: usize =
        text.parse().unwrap_or_else(|e| panic!("WARP_KILL_ROUNDS={text} is no number: {e}"));
    asked.max(ROUNDS)
}

#[test]
fn a_killed_portal_mount_loses_nothing_that_was_acknowledged() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    let seed: u64 = std::env::var("WARP_TEST_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| u64::from(now.subsec_nanos()));
    println!("WARP_TEST_SEED={seed} repeats the choices of this run");
    let mut rng = Rng::new(seed, 0);
    let device = Device::mounted();
    let (dir, known) = (mkdir(&device.at("files")), Mutex::new(Known::default()));
    mkdir(&device.at("bulk"));
    sync_dir(&device.m()).expect("durable");
    let mut slowest = Duration::ZERO;
    for number in 0..rounds() {
        let took = round(&device, &known, &mut rng, number);
        let mut known = known.lock().expect("nobody panics");
        known.check(&dir, &format!("seed {seed}, round {number}"));
        println!("round {number}: usable after {took:?}, {:?} acknowledged", known.counts);
        assert!(took <= USABLE_WITHIN, "round {number}: usable after {took:?} only");
        slowest = slowest.max(took);
        // What nobody fsynced may be there or not, and must be readable.
        read_all(&device.at("bulk"));
        if number % 4 == 3 {
            throw_away(&device);
        }
    }
    let mut known = known.into_inner().expect("nobody panics");
    println!("slowest: {slowest:?}; acknowledged: {:?}", known.counts);
    assert!(
        known.counts.iter().all(|count| *count >= 10),
        "too little was done: {:?}",
        known.counts
    );
    // An ordinary end, after so many others.
    device.remount();
    known.check(&dir, "at the end");
    device.umount();
}

/// Throws the bulk data away, so that the next rounds make it anew.
fn throw_away(device: &Device) {
    for name in read_all(&device.at("bulk")).keys() {
        fs::remove_file(device.at("bulk").join(name)).expect("removed");
    }
}

/// A crash in the recovery from a crash.
#[test]
fn a_portal_mount_killed_while_it_recovers_recovers() {
    let device = Device::mounted();
    let content = noise(8 << 20, 1);
    let file = device.at("file");
    write(&file, &content);
    File::open(&file).and_then(|file| file.sync_all()).expect("durable");
    device.crash();
    for after_ms in [0, 1, 2, 5, 10, 20, 50] {
        let mut mount = device.warp(["mount", "p", "m"]);
        let command = mount.command().stdout(Stdio::null()).stderr(Stdio::null());
        let mut mounting = Running::start(command);
        let until = Instant::now() + Duration::from_secs(5);
        while device.daemons().is_empty() && Instant::now() < until {
            std::thread::yield_now();
        }
        std::thread::sleep(Duration::from_millis(after_ms));
        let kill_all = || {
            for daemon in device.daemons() {
                let _ = Command::new("kill").args(["-9", &daemon.to_string()]).status();
            }
        };
        kill_all();
        // It ends, and soon; perhaps with another daemon, started in time.
        mounting.ends(Duration::from_secs(10));
        kill_all();
        device.until_gone();
    }
    let took = device.mount().took;
    assert!(took <= USABLE_WITHIN, "{took:?}");
    assert!(fs::read(&file).expect("there") == content);
    device.umount();
}

#[test]
fn a_killed_portal_mount_leaves_no_program_hanging() {
    let device = Device::mounted();
    write(&device.at("file"), &noise(1 << 20, 1));
    let open = File::open(device.at("file")).expect("opens");
    // One waits in fsync, one reads, one appends, one lists; what fails is
    // tried again until the flag is gone.
    let flag = device.path("go");
    write(&flag, b"");
    let busy = |work: &str| {
        let mut command = Command::new("bash");
        command.args(["-c", &format!("while [ -e $2 ]; do {work}; done"), "bash"]);
        command.arg(device.m()).arg(&flag).stdout(Stdio::null()).stderr(Stdio::null());
        (work.to_owned(), Running::start(&mut command))
    };
    let mut all = [
        busy("dd if=/dev/zero of=$1/synced bs=64k count=50 conv=fsync"),
        busy("cat $1/file; echo 3 > /proc/sys/vm/drop_caches"),
        busy("echo x >> $1/appended"),
        busy("find $1 -ls"),
    ];
    std::thread::sleep(Duration::from_millis(300));
    device.crash();
    fs::remove_file(&flag).expect("removed");
    let until = Instant::now() + Duration::from_secs(10);
    for (work, running) in &mut all {
        while running.0.try_wait().expect("a child").is_none() {
            assert!(Instant::now() < until, "hangs: {work}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    // Nothing is made in a dead mount. (What was there may still be in the
    // kernel's memory, and is shown from there.)
    let e = File::create(device.at("new")).expect_err("dead");
    assert_eq!(e.raw_os_error(), Some(rustix::io::Errno::NOTCONN.raw_os_error()), "{e}");
    drop(open);
    device.mount();
    device.umount();
}

/// A crash is no reason for a new mount to wait for who still looks into the
/// old one.
#[test]
fn a_dead_portal_mount_is_cleared_though_it_is_in_use() {
    let device = Device::mounted();
    let content = noise(100_000, 1);
    write(&mkdir(&device.at("dir")).join("file"), &content);
    sync_dir(&device.m()).expect("durable");
    let _open = File::open(device.at("dir/file")).expect("opens");
    let mut sleeper = Command::new("sleep");
    let _inside = Running::start(sleeper.arg("60").current_dir(device.at("dir")));
    device.crash();
    device.mount();
    assert!(fs::read(device.at("dir/file")).expect("there") == content);
    device.umount();
    // Unmounting a dead mount clears it, too.
    device.mount();
    device.crash();
    device.warp(["umount", "m"]).ok();
    assert_eq!(device.table_line("m"), None);
    device.mount();
    assert!(fs::read(device.at("dir/file")).expect("there") == content);
    device.umount();
}

/// What SQLite has committed is there; its file is never torn. (`extra`: with
/// less it does not make the removal of its journal durable, which commits.)
#[test]
fn a_killed_portal_mount_keeps_what_sqlite_committed() {
    const COMMIT: &str = r"
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
db.execute('pragma journal_mode=' + sys.argv[2])
db.execute('pragma synchronous=extra')
db.execute('create table if not exists t(n integer primary key, v blob)')
n = db.execute('select coalesce(max(n), 0) from t').fetchone()[0]
while True:
    n += 1
    with db: db.execute('insert into t values(?, randomblob(500))', (n,))
    print(n, flush=True)
";
    const COUNT: &str = r"
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
assert db.execute('pragma integrity_check').fetchall() == [('ok',)]
print(*db.execute('select count(*), max(n) from t').fetchone())
";
    let device = Device::mounted();
    for mode in ["delete", "wal"] {
        let file = format!("{mode}.db");
        for wait_ms in [0, 150, 303] {
            let said: PathBuf = device.path("said");
            let out = File::create(&said).expect("created");
            let mut command = Command::new("python3");
            command.args(["-c", COMMIT, &file, mode]).current_dir(device.m());
            let mut committing = Running::start(command.stdout(out).stderr(Stdio::null()));
            let until = Instant::now() + Duration::from_secs(20);
            while fs::read_to_string(&said).expect("text").lines().count() < 3 {
                assert!(Instant::now() < until, "nothing is committed");
                std::thread::sleep(Duration::from_millis(1));
            }
            std::thread::sleep(Duration::from_millis(wait_ms));
            device.crash();
            assert_ne!(committing.ends(Duration::from_secs(10)), Some(0));
            device.mount();
            let said = fs::read_to_string(&said).expect("text");
            let last: u64 = said.lines().last().expect("it committed").parse().expect("a number");
            let text = python(&device.m(), COUNT, &[&file]).exits(0).text();
            let (count, highest) = text.trim().split_once(' ').expect("two numbers");
            assert_eq!(count, highest, "{mode}: rows are missing");
            let count: u64 = count.parse().expect("a number");
            // When the daemon dies after SQLite has removed its journal and
            // before it opens the directory to sync it, SQLite takes that for
            // a directory that needs no sync, and says that it has committed.
            let its_own_lie = u64::from(mode == "delete");
            assert!(count + its_own_lie >= last, "{mode}: {count} rows, {last} committed");
        }
    }
    device.umount();
}
