//! The suites by which filesystems are judged, on a real mount: what POSIX
//! says (pjdfstest), bytes against a copy in memory (fsx), blocks that know
//! their place (fio), and everything at once (stress-ng).
//!
//! Nothing is expected to fail. What pjdfstest skips is a committed list, so
//! that a case which starts to be skipped is seen.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;
use warp_tests::device::Device;
use warp_tests::nasty::{mkdir, mode, sums, write};
use warp_tests::run;
use warp_tests::suite::{lines_with, suite, with_users};

/// The cases that cannot run: those that remount, need a second filesystem or
/// features which FUSE lacks, one a line, sorted.
const SKIPPED: &str = include_str!("../data/pjdfstest-skipped.txt");
/// Fewer passed cases mean that the suite itself has lost some.
const PASSED_MIN: usize = 375;

#[test]
fn a_mounted_portal_passes_pjdfstest() {
    const USERS: [(&str, u32); 2] = [("warp-one", 64_901), ("warp-two", 64_902)];
    let device = Device::with_portal();
    device.warp(["mount", "--allow-other", "p", "m"]).ok();
    // The suite's users have to pass through on their way to its directories.
    mode(&device.m(), 0o755);
    let configuration = format!(
        "[features]\nposix_fallocate = {{}}\nutime_now = {{}}\nutimensat = {{}}\n\
         [settings]\nnaptime = 0.02\nallow_remount = false\nexpected_failures = []\n\
         [dummy_auth]\nentries = [[\"{0}\", \"{0}\"], [\"{1}\", \"{1}\"]]\n",
        USERS[0].0, USERS[1].0
    );
    write(&device.path("pjdfstest.toml"), configuration.as_bytes());
    let mut command = suite("pjdfstest");
    command.arg("-c").arg(device.path("pjdfstest.toml")).arg("-p").arg(device.m());
    let mut command = with_users(&device, &USERS, &command);
    command.env("NO_COLOR", "1").env("RUST_BACKTRACE", "0");
    let output = run::run(command, Duration::from_secs(300));
    let text = output.text();
    assert!(text.contains("Summary: "), "it did not run: {text}\n{}", output.stderr);
    let cases = |word: &str| -> BTreeSet<&str> {
        let rows = text.lines().filter(|line| !line.starts_with(char::is_whitespace));
        let words = rows.filter_map(|line| line.rsplit_once(' '));
        words.filter(|(_, last)| *last == word).map(|(name, _)| name.trim()).collect()
    };
    let failed = cases("FAILED");
    let from_first = text.lines().skip_while(|line| !line.contains("FAILED"));
    let why = from_first.take(20).collect::<Vec<_>>().join("\n");
    assert!(failed.is_empty(), "failed: {failed:#?}\n{why}");
    let passed = cases("ok").len();
    assert!(passed >= PASSED_MIN, "only {passed} passed: {text}");
    let skipped: Vec<&str> = cases("skipped").into_iter().collect();
    let expected: Vec<&str> = SKIPPED.lines().collect();
    assert_eq!(skipped, expected, "what is skipped is not what tests/data says");
    println!("pjdfstest: {passed} passed, {} skipped", skipped.len());
    device.umount();
}

/// Everything that fsx can do, by weight.
const WEIGHTS: &str = "
[weights]
close_open = 1
invalidate = 1
mapread = 10
mapwrite = 10
read = 10
write = 10
truncate = 5
fsync = 0.5
fdatasync = 0.5
posix_fallocate = 5
punch_hole = 5
sendfile = 2
posix_fadvise = 1
copy_file_range = 5
";
/// Files of 256 KiB, of which many states are seen: how many seeds, and how
/// many operations with each.
const SMALL: (u64, u64) = (12, 4_000);
/// Files of 8 MiB and operations of up to 1 MiB, which cross chunks.
const LARGE: (u64, u64) = (3, 2_500);

#[test]
fn a_mounted_portal_passes_fsx_with_fifteen_seeds() {
    const { assert!(SMALL.0 + LARGE.0 == 15 && SMALL.0 * SMALL.1 + LARGE.0 * LARGE.1 >= 55_000) };
    let device = Device::mounted();
    write(&device.path("small"), WEIGHTS.as_bytes());
    let large = format!("flen = 8388608\n[opsize]\nmax = 1048576\n{WEIGHTS}");
    write(&device.path("large"), large.as_bytes());
    let runs = (0..SMALL.0).map(|seed| ("small", SMALL.1, seed));
    let runs: Vec<_> = runs.chain((0..LARGE.0).map(|seed| ("large", LARGE.1, seed))).collect();
    let dir = mkdir(&device.at("fsx"));
    // All at once: each has a file of its own, and the mount has them all.
    let failures: Vec<String> = std::thread::scope(|scope| {
        let start = |(mix, operations, seed): &(&str, u64, u64)| {
            let mut command = suite("fsx");
            command.arg("-f").arg(device.path(mix)).arg("-P").arg(device.path(""));
            command.args(["-N", &operations.to_string(), "-S", &seed.to_string()]);
            command.arg(dir.join(format!("{mix} {seed}"))).env("RUST_BACKTRACE", "0");
            scope.spawn(|| run::run(command, Duration::from_secs(500)))
        };
        let started: Vec<_> = runs.iter().map(start).collect();
        let outputs = started.into_iter().map(|one| one.join().expect("it ends in time"));
        let failed = outputs.filter(|output| output.code != 0);
        failed.map(|o| format!("{}\n{}\n{}", o.what, o.text(), o.stderr)).collect()
    });
    assert!(failures.is_empty(), "{} of {} failed:\n{}", failures.len(), runs.len(), failures[0]);
    let before = sums(&dir);
    device.remount();
    assert_eq!(sums(&dir), before, "after a remount");
    device.umount();
}

/// Two files that two processes write at random, in blocks that say where they
/// belong; the same seeds read them again.
fn fio(dir: &Path, phase: &str) -> warp_tests::Output {
    let mut command = suite("fio");
    command.args(["--name=blocks", "--rw=randrw", "--bsrange=4k-256k", "--size=64m"]);
    command.args([
        "--numjobs=2",
        "--thread",
        "--fsync=64",
        "--ioengine=psync",
        "--verify=crc32c",
        phase,
    ]);
    command.args(["--verify_fatal=1", "--verify_state_save=0"]);
    command.current_dir(dir);
    run::run(command, Duration::from_secs(100))
}

#[test]
fn a_mounted_portal_holds_what_fio_wrote_before_a_remount() {
    let device = Device::mounted();
    let dir = mkdir(&device.at("fio"));
    fio(&dir, "--do_verify=1").exits(0);
    let written: u64 = data_files(&dir).map(|file| file.metadata().expect("there").len()).sum();
    assert_eq!(written, 2 * (64 << 20));
    device.remount();
    fio(&dir, "--verify_only").exits(0);
    device.crash();
    device.mount();
    let output = fio(&dir, "--verify_only").exits(0);
    assert!(!output.stderr.contains("verify failed"), "{}", output.stderr);
    // The control: it would have seen a single byte.
    for file in data_files(&dir) {
        change(&file.path());
    }
    let output = fio(&dir, "--verify_only");
    assert!(output.stderr.contains("verify failed"), "{}", output.stderr);
    device.umount();
}

/// Changes a byte in each MiB: not every block is written, but some of these.
fn change(path: &Path) {
    let file = fs::OpenOptions::new().read(true).write(true).open(path).expect("opens");
    let mut byte = [0];
    for place in 0..64 {
        let at = (place << 20) + 2000;
        file.read_exact_at(&mut byte, at).expect("there");
        file.write_all_at(&[!byte[0]], at).expect("written");
    }
}

fn data_files(dir: &Path) -> impl Iterator<Item = fs::DirEntry> {
    fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry"))
}

/// Stressors for a second each; gives what they say has failed.
fn stress(dir: &Path, which: &[&str]) -> Vec<String> {
    let mut command = suite("stress-ng");
    command.args(which).args(["--timeout", "1", "--verify"]);
    command.arg("--temp-path").arg(mkdir(dir)).current_dir(dir);
    // Code 3 says that a stressor lacks something, as some do on every disk.
    let output = run::run(command, Duration::from_secs(240));
    let text = output.text() + &output.stderr;
    assert!([0, 2, 3].contains(&output.code), "{}: {text}", output.code);
    assert!(text.contains("run completed"), "it did not run: {text}");
    // Without the number of the process, which is another each time.
    let failed = lines_with(&text, "fail:").into_iter();
    failed.map(|line| line.split("] ").nth(1).unwrap_or(&line).to_owned()).collect()
}

/// All of the class, one after the other, but for `io`.
const CLASS: [&str; 6] = ["--class", "filesystem", "--sequential", "1", "--exclude", "io"];

#[test]
fn a_mounted_portal_fails_no_stressor_that_the_host_passes() {
    let device = Device::mounted();
    // It asks `syncfs`, which tells of failures of others, too; and for the
    // kernel it is one if a process is killed while it unlinks (EINTR out of
    // `fuse_flush_time_update`), as other stressors' children are. So it has
    // a mount in which nobody was killed before.
    assert_eq!(stress(&device.at("io"), &["--io", "2"]), [""; 0]);
    let failed = stress(&device.at("stress"), &CLASS);
    // The host is asked only about what failed: it takes another minute.
    if !failed.is_empty() {
        let on_host = stress(&device.path("stress"), &CLASS);
        let stressors = |lines: &[String]| -> BTreeSet<String> {
            lines.iter().map(|line| line.split(':').next().unwrap_or("").to_owned()).collect()
        };
        let only_here: Vec<String> =
            stressors(&failed).difference(&stressors(&on_host)).cloned().collect();
        assert!(only_here.is_empty(), "{only_here:?} fail: {failed:#?}\non the host: {on_host:#?}");
    }
    // Whoever asks first is told of those children; who unmounts must not be.
    let told = device.types("sync m");
    assert!([0, 1].contains(&told.code), "{}: {}", told.code, told.stderr);
    device.umount();
}
