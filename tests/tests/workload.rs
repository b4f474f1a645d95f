//! Programs that ask much of a filesystem: databases whose writers die at any
//! moment, in every way that SQLite keeps its journal.

use std::fs::{self, OpenOptions};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use warp_tests::damage::Rng;
use warp_tests::device::{Device, Running, python};

/// Every way that SQLite knows (but for none at all).
const MODES: [&str; 5] = ["delete", "truncate", "persist", "memory", "wal"];
/// Programs that write one database at a time; the first two are killed.
const WRITERS: usize = 4;
/// Writers that die.
const VICTIMS: usize = 2;
/// How often each of them is killed before it may come to its end.
const DEATHS: usize = 3;
/// Transactions of each writer.
const LAST: usize = 40;

const CREATE: &str = r"
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
assert db.execute('pragma journal_mode=' + sys.argv[2]).fetchone()[0] == sys.argv[2]
db.execute('create table t(who integer, n integer, v blob, primary key(who, n))')
db.execute('create index i on t(v)')
db.commit()
";

/// Writes rows up to the last one, and says of each that it is committed. In
/// the middle of transaction `fall` it kills itself.
const WRITE: &str = r"
import hashlib, os, signal, sqlite3, sys
path, mode, who, last, fall = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
value = lambda n, times: hashlib.sha256(b'%d %d' % (who, n)).digest() * times
db = sqlite3.connect(path, timeout=60, isolation_level=None)
assert db.execute('pragma journal_mode=' + mode).fetchone()[0] == mode
n = db.execute('select coalesce(max(n), 0) from t where who = ?', (who,)).fetchone()[0]
print('found', n, flush=True)
while n < last:
    n += 1
    db.execute('begin immediate')
    db.execute('insert into t values(?, ?, ?)', (who, n, value(n, 1 + n % 7)))
    if n % 5 == 0:
        db.execute('update t set v = ? where who = ? and n = ?', (value(n // 2, 90), who, n // 2))
    if n == fall:
        os.kill(os.getpid(), signal.SIGKILL)
    db.execute('commit')
    print('committed', n, flush=True)
";

const CHECK: &str = r"
import hashlib, sqlite3, sys
path, writers, last = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
db = sqlite3.connect(path, timeout=60)
assert db.execute('pragma integrity_check').fetchall() == [('ok',)], path
long = {n // 2 for n in range(5, last + 1, 5)}
want = [(who, n, hashlib.sha256(b'%d %d' % (who, n)).digest() * (90 if n in long else 1 + n % 7))
        for who in range(writers) for n in range(1, last + 1)]
assert db.execute('select who, n, v from t order by who, n').fetchall() == want, path
";

/// One life of a writer, which adds to what it has said before.
fn live(device: &Device, mode: &str, who: usize, said: &Path, fall: usize) -> Running {
    let out = OpenOptions::new().append(true).create(true).open(said).expect("opens");
    let mut command = Command::new("python3");
    command.args(["-c", WRITE, &format!("{mode}.db"), mode, &who.to_string()]);
    command.args([LAST.to_string(), fall.to_string()]).current_dir(device.m());
    Running::start(command.stdout(out).stderr(Stdio::inherit()))
}

/// What a writer found when it was started is what it had committed, and at
/// most one transaction of which it could not say so any more.
#[track_caller]
fn nothing_was_lost(said: &Path) {
    let text = fs::read_to_string(said).expect("text");
    let mut committed = 0;
    for line in text.lines() {
        let (word, n) = line.split_once(' ').expect("a word and a number");
        let n: usize = n.parse().expect("a number");
        match word {
            "found" => assert!(
                n == committed || n == committed + 1,
                "{}: found {n}, committed {committed}",
                said.display()
            ),
            _ => assert_eq!(n, committed + 1, "{}", said.display()),
        }
        committed = n;
    }
    assert_eq!(committed, LAST, "{}", said.display());
}

/// A writer's lives.
fn write_and_die(device: &Device, mode: &str, who: usize) {
    let said = device.path(format!("{mode} {who}"));
    let mut rng = Rng::new(who as u64, MODES.iter().position(|m| *m == mode).unwrap_or(0));
    for death in 0..if who < VICTIMS { DEATHS } else { 0 } {
        // With its journal in memory, SQLite itself promises nothing to who is
        // killed while it writes: such a writer dies before, with its locks.
        let fall = if mode == "memory" { 5 + 9 * death + who } else { 0 };
        let mut writer = live(device, mode, who, &said, fall);
        if fall == 0 {
            std::thread::sleep(Duration::from_millis(60 + rng.below(300) as u64));
            writer.0.kill().expect("it was started");
        }
        writer.ends(Duration::from_secs(100));
    }
    assert_eq!(live(device, mode, who, &said, 0).ends(Duration::from_secs(100)), Some(0));
    nothing_was_lost(&said);
}

#[test]
fn a_mounted_portal_serves_sqlite_whose_writers_are_killed() {
    let device = &Device::mounted();
    for mode in MODES {
        python(&device.m(), CREATE, &[&format!("{mode}.db"), mode]).exits(0);
    }
    std::thread::scope(|scope| {
        for mode in MODES {
            for who in 0..WRITERS {
                scope.spawn(move || write_and_die(device, mode, who));
            }
        }
    });
    let check = || {
        for mode in MODES {
            let numbers = [&format!("{mode}.db"), &WRITERS.to_string(), &LAST.to_string()];
            python(&device.m(), CHECK, &numbers.map(String::as_str)).exits(0);
        }
    };
    check();
    device.remount();
    check();
    device.umount();
}
