//! What is typed wrongly, missing, full, hostile or in the way: one line says
//! why, one says what to do, and the exit code is the documented one.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;
use warp_tests::nasty::{mkdir, mode, noise, own, scratch, write};
use warp_tests::{Output, Warp, run};

/// A directory with a tree `t` and an archive of it, `t.warp`.
struct Place {
    dir: TempDir,
}

impl Place {
    #[track_caller]
    fn new() -> Self {
        let place = Self { dir: scratch() };
        let tree = mkdir(&place.path("t"));
        write(&tree.join("hello"), b"hello\n");
        write(&tree.join("noise"), &noise(100_000, 1));
        write(&mkdir(&tree.join("sub")).join("below"), b"below\n");
        place.warp(["archive", "create", "t.warp", "t"]).ok();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `warp ARGS…`, started in the directory.
    fn warp<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Warp {
        let mut warp = Warp::new(args);
        warp.command().current_dir(self.dir.path());
        warp
    }

    /// The same as a user without rights.
    fn as_nobody(&self, args: &[&str]) -> Output {
        let warp = self.path("warp-for-everyone");
        if !warp.exists() {
            fs::copy(Warp::binary(), &warp).expect("copied");
            mode(&warp, 0o755);
        }
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
        command.arg(&warp).args(args).current_dir(self.dir.path());
        run::run(command, Duration::from_secs(60))
    }

    /// A script in a mount namespace of its own, with `d` a filesystem of
    /// 1 MiB and `$0` the binary.
    fn with_small_disk(&self, script: &str) -> Output {
        mkdir(&self.path("d"));
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "bash", "-c"]);
        command.arg(format!("mount -t tmpfs -o size=1m tmpfs d || exit 99\n{script}"));
        command.arg(Warp::binary()).current_dir(self.dir.path());
        run::run(command, Duration::from_secs(60))
    }

    /// The names in the directory, sorted.
    fn names(&self) -> Vec<OsString> {
        let list = fs::read_dir(self.dir.path()).expect("a directory");
        let mut names: Vec<_> = list.map(|entry| entry.expect("an entry").file_name()).collect();
        names.sort();
        names
    }
}

/// It failed with `code`; standard error is one line with the cause, which
/// holds `cause`, and if `hint` is given one with the hint, which holds that.
#[track_caller]
fn fails(output: Output, code: i32, cause: &str, hint: &str) {
    let output = output.exits(code);
    let mut lines = output.stderr.lines();
    let first = lines.next().unwrap_or_default();
    assert!(first.starts_with("error: ") && first.contains(cause), "{}: {first}", output.what);
    match lines.next() {
        Some(second) => {
            assert!(second.starts_with("hint: "), "{}: {second}", output.what);
            assert!(second.contains(hint), "{}: {second}", output.what);
            assert!(!hint.is_empty() || second.len() > 10, "{}: {second}", output.what);
        }
        None => assert_eq!(hint, "", "{}: no hint, only {first}", output.what),
    }
    assert_eq!(lines.next(), None, "{}", output.stderr);
    assert_eq!(output.text(), "", "{}: nothing on standard output", output.what);
}

#[test]
fn a_mount_needs_an_empty_directory() {
    let place = Place::new();
    let mount = |dir: &str| place.warp(["mount", "t.warp", dir]).run();
    fails(mount("missing"), 4, "missing", "mkdir");
    fails(mount("t.warp"), 2, "t.warp", "directory");
    fails(mount("t"), 2, "not empty", "nonempty");
    fails(mount("t/hello/below"), 2, "t/hello/below", "");
    mkdir(&place.path("m"));
    fails(place.warp(["mount", "nothing.warp", "m"]).run(), 4, "nothing.warp", "");
    fails(place.warp(["mount", "-o", "rw", "t.warp", "m"]).run(), 2, "read-only", "extract");
    fails(place.warp(["mount", "-o", "bogus", "t.warp", "m"]).run(), 2, "bogus", "nonempty");
    fails(place.warp(["mount", "t/noise", "m"]).run(), 6, "t/noise", "");
    fails(place.warp(["mount", "t", "m"]).run(), 2, "t: is a directory", "");
    fails(place.warp(["umount", "m"]).run(), 4, "m", "findmnt");
    fails(place.warp(["umount", "missing"]).run(), 4, "missing", "");
    // The same in the foreground, which says it itself.
    fails(place.warp(["mount", "-f", "t.warp", "missing"]).run(), 4, "missing", "mkdir");
    fails(place.warp(["archive", "mount", "t.warp", "t"]).run(), 2, "not empty", "nonempty");
    assert_eq!(fs::read_dir(place.path("m")).expect("a directory").count(), 0);
}

/// Unmounts at the end, however the test ends.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_mount_goes_over_files_if_told_to_and_not_over_a_mount() {
    let place = Place::new();
    let mounted = Mounted(place.path("t"));
    place.warp(["mount", "-o", "ro,nonempty", "t.warp", "t"]).ok();
    assert!(place.path("t/t/hello").exists() && !place.path("t/hello").exists());
    fails(place.warp(["mount", "t.warp", "t"]).run(), 11, "already", "warp umount");
    fails(
        place.warp(["mount", "-o", "nonempty", "t.warp", "t"]).run(),
        11,
        "already",
        "warp umount",
    );
    place.warp(["umount", "t"]).ok();
    drop(mounted);
    assert!(place.path("t/hello").exists());
}

/// Not ours to unmount.
#[test]
fn umount_leaves_a_foreign_mount_alone() {
    let place = Place::new();
    let output =
        place.with_small_disk("\"$0\" umount d; code=$?; mountpoint -q d || exit 98; exit $code");
    fails(output, 2, "tmpfs", "umount");
}

#[test]
fn a_wrong_or_missing_passphrase_is_refused() {
    let place = Place::new();
    write(&place.path("right"), b"right\n");
    write(&place.path("wrong"), b"wrong\n");
    write(&place.path("empty"), b"\n");
    mkdir(&place.path("m"));
    let create = ["archive", "create", "--encrypt", "s.warp", "t"];
    fails(place.warp(create).run(), 7, "passphrase", "--passphrase-file");
    let file = |name| ["--passphrase-file", name];
    fails(place.warp(create.into_iter().chain(file("empty"))).run(), 7, "empty", "");
    fails(place.warp(create.into_iter().chain(file("missing"))).run(), 4, "missing", "");
    assert!(!place.path("s.warp").exists());
    place.warp(create.into_iter().chain(file("right"))).ok();
    let commands: [&[&str]; 6] = [
        &["archive", "ls", "s.warp"],
        &["archive", "verify", "s.warp"],
        &["archive", "extract", "-C", "out", "s.warp"],
        &["archive", "extract", "--salvage", "-C", "out", "s.warp"],
        &["archive", "diff", "s.warp", "t.warp"],
        &["mount", "s.warp", "m"],
    ];
    for command in commands {
        let run = |more: &[&str]| place.warp(command.iter().chain(more)).run();
        fails(run(&file("wrong")), 7, "s.warp", "passphrase");
        fails(run(&[]), 7, "s.warp", "--passphrase-file");
        assert!(!place.path("out").exists(), "{command:?}");
    }
}

#[test]
fn what_is_no_archive_is_told_from_a_broken_and_a_newer_one() {
    let place = Place::new();
    let good = fs::read(place.path("t.warp")).expect("there");
    write(
        &place.path("text"),
        b"This is no archive, and it is long enough to be one.\n".repeat(50).as_slice(),
    );
    write(&place.path("empty"), b"");
    write(&place.path("start"), &good[..5]);
    write(&place.path("header"), &good[..256]);
    write(&place.path("half"), &good[..good.len() / 2]);
    write(&place.path("short"), &good[..good.len() - 1]);
    let mut newer = good.clone();
    newer[8] = 9;
    write(&place.path("newer"), &newer);
    mkdir(&place.path("m"));
    for command in [
        &["archive", "ls"][..],
        &["archive", "verify"],
        &["archive", "extract", "-C", "out"],
        &["mount"],
    ] {
        let run = |file: &str| {
            let mut args = [command, &[file]].concat();
            args.extend((command == ["mount"]).then_some("m"));
            place.warp(args).run()
        };
        fails(run("text"), 6, "text: ", "create");
        fails(run("empty"), 6, "empty: ", "");
        fails(run("start"), 6, "start: ", "");
        fails(run("t"), 2, "t: is a directory", "");
        for file in ["header", "half", "short"] {
            fails(run(file), 6, &format!("{file}: "), "--salvage");
        }
        fails(run("newer"), 1, "newer: ", "newer warp");
        fails(run("missing.warp"), 4, "missing.warp: ", "");
    }
    fails(place.warp(["archive", "diff", "t.warp", "text"]).run(), 6, "text", "");
    fails(place.warp(["archive", "diff", "missing.warp", "t.warp"]).run(), 4, "missing.warp", "");
}

#[test]
fn a_path_that_is_not_in_the_archive_is_not_found() {
    let place = Place::new();
    for command in [&["archive", "ls"][..], &["archive", "extract", "-C", "out"]] {
        for path in ["nothing", "t/nothing", "t/hello/below", "hello"] {
            let output = place.warp([command, &["t.warp", path]].concat()).run();
            fails(output, 4, path, "warp archive ls");
        }
    }
    let proof = place.warp(["archive", "verify", "--proof", "t/nothing", "t.warp"]).run();
    fails(proof, 4, "t/nothing", "warp archive ls");
    // One that is there does not make up for one that is not.
    let both = place.warp(["archive", "extract", "-C", "out", "t.warp", "t/hello", "t/no"]).run();
    fails(both, 4, "t/no", "");
    assert!(!place.path("out/t").exists());
    for path in ["../t", "t/../t"] {
        let output = place.warp(["archive", "extract", "-C", "out", "t.warp", path]).run();
        assert!([2, 4].contains(&output.code), "{}: {}", output.what, output.stderr);
    }
}

#[test]
fn an_output_that_exists_is_kept() {
    let place = Place::new();
    write(&place.path("out.warp"), b"precious");
    let create = ["archive", "create", "out.warp", "t"];
    fails(place.warp(create).run(), 2, "out.warp", "--force");
    assert_eq!(fs::read(place.path("out.warp")).expect("there"), b"precious");
    place.warp(create.into_iter().chain(["--force"])).ok();
    assert_eq!(
        fs::read(place.path("out.warp")).expect("there"),
        fs::read(place.path("t.warp")).expect("there")
    );
    fails(place.warp(["archive", "create", "t", "t"]).run(), 2, "t", "");
    fails(place.warp(["archive", "create", "--force", "t", "t"]).run(), 2, "directory", "");
    fails(
        place.warp(["archive", "create", "no/such/dir/x.warp", "t"]).run(),
        4,
        "no/such/dir/x.warp",
        "",
    );
    // A link that leads nowhere is something, too.
    symlink("nowhere", place.path("link.warp")).expect("symlink");
    fails(place.warp(["archive", "create", "link.warp", "t"]).run(), 2, "link.warp", "--force");
    assert!(!place.path("nowhere").exists());
    // Nothing is left over from all that failed.
    assert_eq!(place.names(), ["link.warp", "out.warp", "t", "t.warp"]);
}

#[test]
fn a_source_that_is_missing_or_has_no_name_is_refused() {
    let place = Place::new();
    let create =
        |paths: &[&str]| place.warp([&["archive", "create", "x.warp"], paths].concat()).run();
    fails(create(&["missing"]), 4, "missing", "");
    fails(create(&["t", "t/missing"]), 4, "t/missing", "");
    fails(create(&["-C", "missing", "t"]), 4, "missing", "");
    fails(create(&["../t"]), 2, "../t", "");
    fails(create(&["t", place.path("other/u").to_str().expect("text")]), 4, "other/u", "");
    mkdir(&place.path("other/t"));
    fails(create(&["t", place.path("other/t").to_str().expect("text")]), 2, "other/t", "");
    fails(create(&["-x", "[", "t"]), 2, "exclude", "");
    assert_eq!(place.names(), ["other", "t", "t.warp"]);
}

#[test]
fn a_source_that_may_not_be_read_makes_a_partial_archive() {
    let place = Place::new();
    mode(&place.path("t/hello"), 0o600);
    own(&mkdir(&place.path("out")), 65534, 65534);
    let output = place.as_nobody(&["archive", "create", "out/x.warp", "t"]).exits(3);
    let warnings: Vec<&str> =
        output.stderr.lines().filter(|line| line.starts_with("warning: ")).collect();
    assert_eq!(warnings.len(), 1, "{}", output.stderr);
    assert!(warnings[0].contains("t/hello: ") && warnings[0].contains("denied"), "{}", warnings[0]);
    // Alone, it is partial all the same; and an archive is not read for others.
    place.as_nobody(&["archive", "create", "out/y.warp", "t/hello"]).exits(3);
    mode(&place.path("t.warp"), 0o600);
    fails(place.as_nobody(&["archive", "ls", "t.warp"]), 1, "t.warp", "");
    fails(place.as_nobody(&["archive", "create", "x.warp", "t"]), 1, "x.warp", "");
    assert_eq!(place.names(), ["out", "t", "t.warp", "warp-for-everyone"]);
}

#[test]
fn a_full_disk_leaves_no_part_of_an_archive() {
    let place = Place::new();
    write(&place.path("t/large"), &noise(3 << 20, 5));
    let script = "\"$0\" archive create d/x.warp t; code=$?; find d -type f >&2; exit $code";
    fails(place.with_small_disk(script), 8, "d/x.warp: ", "make room");
    // Nor does it cost the archive that it was to replace.
    let script = "echo old > d/x.warp; \"$0\" archive create --force d/x.warp t; code=$?
        [ \"$(cat d/x.warp)\" = old ] || exit 98; exit $code";
    fails(place.with_small_disk(script), 8, "d/x.warp: ", "make room");
    let script = "\"$0\" archive create - t > d/x.warp";
    fails(place.with_small_disk(script), 8, "", "");
}

#[test]
fn a_full_disk_leaves_no_part_of_a_file() {
    let place = Place::new();
    write(&place.path("t/large"), &noise(3 << 20, 5));
    place.warp(["archive", "create", "--force", "t.warp", "t"]).ok();
    let script = "\"$0\" archive extract -C d t.warp; code=$?
        cd d; find t -type f -exec cmp {} ../{} \\; >&2; exit $code";
    fails(place.with_small_disk(script), 8, "", "make room");
}

#[test]
fn a_wrong_command_line_is_a_usage_error() {
    let place = Place::new();
    let wrong: [&[&str]; 14] = [
        &["--bogus"],
        &["bogus"],
        &[],
        &["archive"],
        &["archive", "bogus"],
        &["archive", "create", "x.warp"],
        &["archive", "create", "--level", "20", "x.warp", "t"],
        &["archive", "create", "--bogus", "x.warp", "t"],
        &["archive", "ls"],
        &["archive", "ls", "--sort", "bogus", "t.warp"],
        &["archive", "verify", "--sample", "0%", "t.warp"],
        &["archive", "verify", "--sample", "5%", "--keyless", "t.warp"],
        &["archive", "diff", "t.warp"],
        &["mount", "t.warp"],
    ];
    for args in wrong {
        let output = place.warp(args).run().exits(2);
        assert_eq!(output.text(), "", "{args:?}");
        assert!(!output.stderr.is_empty(), "{args:?}");
    }
    // The nearest name is suggested.
    let typo = place.warp(["archive", "extrct", "t.warp"]).run().exits(2);
    assert!(typo.stderr.contains("`extract`"), "{}", typo.stderr);
    assert_eq!(place.names(), ["t", "t.warp"]);
}

#[test]
fn every_command_has_help() {
    let place = Place::new();
    let commands: [&[&str]; 12] = [
        &[],
        &["archive"],
        &["archive", "create"],
        &["archive", "ls"],
        &["archive", "extract"],
        &["archive", "verify"],
        &["archive", "diff"],
        &["archive", "mount"],
        &["mount"],
        &["umount"],
        &["unmount"],
        &["doctor"],
    ];
    for command in commands {
        for flag in ["--help", "-h"] {
            let help = place.warp(command.iter().chain([&flag])).ok();
            assert!(help.text().contains("Usage: warp"), "{command:?}");
            assert_eq!(help.stderr, "", "{command:?}");
        }
    }
    let help = place.warp(["--help"]).ok().text();
    assert!(help.contains("Exit codes: 0 ok"), "{help}");
    for code in
        ["1 failed", "2 usage", "4 not found", "6 integrity", "8 no space", "11 busy", "130"]
    {
        let unwrapped = help.replace('\n', " ");
        assert!(unwrapped.contains(code), "{code}: {help}");
    }
    let version = place.warp(["--version"]).ok().text();
    assert!(version.starts_with("warp "), "{version}");
}

/// Characters that move a cursor, clear a screen or start a line.
const EVIL: &[u8] = b"\x1b[2J\x1b]0;t\x07\rerror: forged\nerror: all is lost\x9b\x08";

fn evil() -> OsString {
    OsString::from_vec(EVIL.to_vec())
}

/// What a text does that it must not do, if anything.
fn harm(what: &str, text: &str) -> Option<String> {
    let steers = text.chars().any(|c| c.is_control() && c != '\n');
    let forges = text.lines().any(|line| line.starts_with("error: all is lost"));
    (steers || forges).then(|| format!("{what}: {text:?}"))
}

#[test]
fn a_hostile_name_cannot_steer_an_error() {
    let place = Place::new();
    let tree = mkdir(&place.path("h"));
    write(&tree.join(evil()), b"x");
    write(&mkdir(&tree.join("dir").join(evil())).join("below"), b"x");
    place.warp(["archive", "create", "h.warp", "h"]).ok();
    place.warp(["archive", "extract", "-C", "out", "h.warp"]).ok();
    let run = |args: &[&OsStr]| place.warp(args).run();
    let [archive, create, extract, ls, verify] =
        ["archive", "create", "extract", "ls", "verify"].map(OsStr::new);
    let (h, name) = (OsStr::new("h.warp"), evil());
    let name = name.as_os_str();
    let exists = run(&[archive, extract, "-C".as_ref(), "out".as_ref(), h]).exits(2);
    assert!(exists.stderr.contains("[2J"), "the name is in the message: {}", exists.stderr);
    let outputs = [
        exists,
        run(&[archive, ls, h, name]).exits(4),
        run(&[archive, ls, name]).exits(4),
        run(&[archive, verify, name]).exits(4),
        run(&[archive, create, name, name]).exits(4),
        run(&[archive, create, "y.warp".as_ref(), name]).exits(4),
        run(&[archive, create, "h".as_ref(), "h".as_ref()]).exits(2),
        run(&["mount".as_ref(), h, name]).exits(4),
        run(&["mount".as_ref(), "-o".as_ref(), "\x1b[2J".as_ref(), h, "m".as_ref()]).exits(2),
        run(&["umount".as_ref(), name]).exits(4),
        // A summary is a message, too.
        run(&[archive, create, name, "h".as_ref()]).exits(0),
    ];
    let harm: Vec<_> = outputs.iter().filter_map(|o| harm(&o.what, &o.stderr)).collect();
    assert!(harm.is_empty(), "{}", harm.join("\n"));
}

/// On a terminal, names from an archive are shown without what could steer
/// it; elsewhere their bytes are given as they are.
#[test]
fn a_hostile_name_cannot_steer_a_terminal() {
    let place = Place::new();
    let tree = mkdir(&place.path("h"));
    write(&tree.join(evil()), b"x");
    symlink(evil(), tree.join("link")).expect("symlink");
    place.warp(["archive", "create", "h.warp", "h"]).ok();
    fs::write(tree.join(evil()), b"y").expect("written");
    place.warp(["archive", "create", "i.warp", "h"]).ok();
    write(&place.path("name"), &[b"h/", EVIL].concat());
    let raw = place.warp(["archive", "ls", "h.warp"]).ok();
    assert!(raw.stdout.windows(EVIL.len()).any(|window| window == EVIL));
    let mut all = Vec::new();
    for command in [
        "archive ls h.warp",
        "archive ls -l h.warp",
        "archive ls --json h.warp",
        "archive diff h.warp i.warp",
        "archive diff --json h.warp i.warp",
        "archive verify --proof \"$(cat name)\" h.warp",
    ] {
        let mut terminal = Command::new("script");
        let warp = Warp::binary();
        terminal.args(["--quiet", "--return", "--command"]);
        terminal.arg(format!("'{}' {command}", warp.display())).arg("/dev/null");
        terminal.current_dir(place.dir.path()).env("SHELL", "/bin/bash").env("TERM", "xterm");
        let output = run::run(terminal, Duration::from_secs(20)).exits(0);
        let text = output.text().replace("\r\n", "\n");
        assert!(text.contains("forged"), "{command}: the name is shown: {text:?}");
        all.extend(harm(command, &text));
    }
    assert!(all.is_empty(), "{}", all.join("\n"));
}

#[test]
fn extraction_never_follows_a_link_out_of_its_target() {
    let place = Place::new();
    let outside = mkdir(&place.path("outside"));
    write(&outside.join("hello"), b"untouched");
    // Where the archive has a directory.
    for (at, force) in [("one", false), ("two", true)] {
        let target = mkdir(&place.path(at));
        symlink("../outside", target.join("t")).expect("symlink");
        let mut args = vec!["archive", "extract", "-C", at, "t.warp"];
        args.extend(force.then_some("--force"));
        let output = place.warp(args).run();
        assert!(force || output.code == 2, "{}: {} {}", output.what, output.code, output.stderr);
        assert!(output.code == 0 || output.stderr.contains("warning: "), "{}", output.stderr);
        assert_eq!(fs::read_dir(&outside).expect("a directory").count(), 1, "{}", output.what);
        assert_eq!(fs::read(outside.join("hello")).expect("there"), b"untouched");
    }
    // The same for a path that leads through it.
    let output = place.warp(["archive", "extract", "-C", "one", "t.warp", "t/sub/below"]).run();
    assert_ne!(output.code, 0, "{}", output.what);
    assert_eq!(fs::read_dir(&outside).expect("a directory").count(), 1, "{}", output.what);
    // Where the archive has a directory further down.
    mkdir(&place.path("three/t"));
    symlink("../../outside", place.path("three/t/sub")).expect("symlink");
    let output = place.warp(["archive", "extract", "-C", "three", "t.warp"]).run().exits(2);
    assert!(output.stderr.contains("t/sub"), "{}", output.stderr);
    assert!(!outside.join("below").exists());
    // What is not in its way is there.
    assert_eq!(fs::read(place.path("three/t/hello")).expect("there"), b"hello\n");
    // Where the archive has a file: kept, or with --force replaced itself.
    mkdir(&place.path("four/t"));
    symlink("../../outside/hello", place.path("four/t/hello")).expect("symlink");
    let kept = place.warp(["archive", "extract", "-C", "four", "t.warp"]).run().exits(2);
    assert!(kept.stderr.contains("hint: `--force` replaces"), "{}", kept.stderr);
    assert_eq!(fs::read(outside.join("hello")).expect("there"), b"untouched");
    place.warp(["archive", "extract", "--force", "-C", "four", "t.warp"]).ok();
    assert_eq!(fs::read(outside.join("hello")).expect("there"), b"untouched");
    assert_eq!(fs::read(place.path("four/t/hello")).expect("there"), b"hello\n");
    assert!(!fs::symlink_metadata(place.path("four/t/hello")).expect("there").is_symlink());
}

#[test]
fn extraction_never_overwrites_the_archive_s_own_links() {
    // A link in the archive, and in a later one a directory of that name.
    let place = Place::new();
    let outside = mkdir(&place.path("outside"));
    let tree = mkdir(&place.path("l"));
    symlink(&outside, tree.join("x")).expect("symlink");
    place.warp(["archive", "create", "first.warp", "l"]).ok();
    fs::remove_file(tree.join("x")).expect("removed");
    write(&mkdir(&tree.join("x")).join("planted"), b"outside");
    place.warp(["archive", "create", "second.warp", "l"]).ok();
    place.warp(["archive", "extract", "-C", "out", "first.warp"]).ok();
    place.warp(["archive", "extract", "-C", "out", "second.warp"]).run().exits(2);
    place.warp(["archive", "extract", "--force", "-C", "out", "second.warp"]).run();
    assert_eq!(fs::read_dir(&outside).expect("a directory").count(), 0);
}

#[test]
fn errors_are_plain_text_and_quiet_is_quiet() {
    let place = Place::new();
    let output = place.warp(["--color", "always", "archive", "ls", "missing"]).run().exits(4);
    assert!(output.stderr.starts_with("\x1b["), "{:?}", output.stderr);
    let output = place.warp(["archive", "ls", "missing"]).env("CLICOLOR_FORCE", "1").run().exits(4);
    assert!(output.stderr.starts_with("\x1b["), "{:?}", output.stderr);
    let plain =
        place.warp(["archive", "ls", "missing"]).env("CLICOLOR_FORCE", "1").env("NO_COLOR", "1");
    fails(plain.run(), 4, "missing", "");
    let quiet = place.warp(["-q", "archive", "create", "q.warp", "t"]).ok();
    assert_eq!((quiet.text(), quiet.stderr.as_str()), (String::new(), ""));
    // A reader that has seen enough is no failure.
    let mut pipe = Command::new("bash");
    pipe.args(["-c", "set -o pipefail; \"$0\" archive ls t.warp | head -n 0"]);
    pipe.arg(Warp::binary()).current_dir(place.dir.path());
    run::run(pipe, Duration::from_secs(20)).exits(0);
}

#[test]
fn a_file_name_longer_than_usual_is_no_obstacle() {
    let place = Place::new();
    let long = format!("{}.warp", "n".repeat(250));
    place.warp(["archive", "create", long.as_str(), "t"]).ok();
    place.warp(["archive", "verify", long.as_str()]).ok();
    let longer = format!("{}.warp", "n".repeat(251));
    let output = place.warp(["archive", "create", longer.as_str(), "t"]).run();
    assert_eq!(output.code, 1, "{}", output.stderr);
    assert_eq!(place.names().len(), 3);
    let odd = Path::new(OsStr::from_bytes(b"odd \xff.warp"));
    place.warp([OsStr::new("archive"), "create".as_ref(), odd.as_os_str(), "t".as_ref()]).ok();
    assert!(place.dir.path().join(odd).exists());
}
