//! Portals, with the real binary and the real kernel: what is copied into a
//! mount is there after the next one, to the last attribute, and is stored
//! once; tools that people use work in it.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use warp_tests::device::{Device, GONE_WITHIN, USABLE_WITHIN, bash};
use warp_tests::nasty::{
    self, all_acls, all_stats, all_xattrs, data_len, mkdir, noise, real_copy, same_tree, sums,
    tar_sum, text, write,
};
use warp_tests::{must, run};

/// Copies a directory's content with `rsync`, and gives its statistics. Times
/// are compared to the nanosecond: without that, `rsync` leaves a directory
/// alone if it has changed in the very second that its time is to name.
#[track_caller]
fn rsync(from: &Path, to: &Path) -> String {
    let mut command = Command::new("rsync");
    command.args(["-aHAX", "--stats", "--modify-window=-1"]).arg(from.join("")).arg(to.join(""));
    run::run(command, Duration::from_secs(240)).exits(0).text()
}

/// The number on the line of `rsync --stats` that starts so.
#[track_caller]
fn statistic(stats: &str, line: &str) -> u64 {
    let found =
        stats.lines().find_map(|l| l.strip_prefix(line)).unwrap_or_else(|| panic!("{stats}"));
    let digits: String =
        found.split(['(', 'b']).next().unwrap_or("").chars().filter(char::is_ascii_digit).collect();
    digits.parse().unwrap_or_else(|e| panic!("{line} {found}: {e}"))
}

/// `rsync` finds nothing to do.
#[track_caller]
fn nothing_to_transfer(from: &Path, to: &Path) {
    let stats = rsync(from, to);
    for line in ["Number of regular files transferred:", "Total transferred file size:"] {
        assert_eq!(statistic(&stats, line), 0, "{stats}");
    }
    assert!(statistic(&stats, "Number of files:") > 0, "{stats}");
}

#[track_caller]
fn copy(from: &Path, to: &Path) {
    must("cp", [OsStr::new("-a"), "-T".as_ref(), from.as_os_str(), to.as_os_str()]);
}

/// Same names, contents, attributes, access lists and times.
#[track_caller]
fn same(source: &Path, target: &Path) {
    same_tree(source, target);
    assert_eq!(sums(source), sums(target));
    assert_eq!(all_stats(source), all_stats(target));
    assert_eq!(all_xattrs(source), all_xattrs(target));
    assert_eq!(all_acls(source), all_acls(target));
}

/// Bytes on the disk below the home.
fn stored(device: &Device) -> u64 {
    data_len(device.home())
}

#[test]
fn a_mounted_portal_keeps_a_nasty_tree_copied_in_two_ways() {
    let device = Device::mounted();
    let tree = device.path("tree");
    nasty::build(&tree);
    // The control: this machine's `cp` does copy everything.
    copy(&tree, &device.path("control"));
    same(&tree, &device.path("control"));
    copy(&tree, &device.at("copied"));
    rsync(&tree, &device.at("synced"));
    for name in ["copied", "synced"] {
        same(&tree, &device.at(name));
    }
    device.remount();
    for name in ["copied", "synced"] {
        same(&tree, &device.at(name));
    }
    nothing_to_transfer(&tree, &device.at("synced"));
    same(&tree, &device.at("synced"));
    device.umount();
}

#[test]
fn a_mounted_portal_keeps_directories_deeper_than_a_path() {
    // But for the times, which are those of its making.
    let timeless = |dir: &Path| {
        let tar = "tar --sort=name --mtime=@0 --numeric-owner -cf - deep | sha256sum";
        bash(dir, &format!("set -o pipefail; {tar}")).exits(0).text()
    };
    let device = Device::mounted();
    nasty::deep(&device.path("deep"));
    nasty::deep(&device.at("deep"));
    let sum = tar_sum(&device.at("deep"));
    device.remount();
    assert_eq!(tar_sum(&device.at("deep")), sum);
    assert_eq!(timeless(&device.m()), timeless(&device.path("")));
    bash(&device.m(), "rm -r deep").exits(0);
    device.remount();
    assert_eq!(fs::read_dir(device.m()).expect("a directory").count(), 0);
    device.umount();
}

#[test]
fn a_mounted_portal_keeps_a_real_tree_once() {
    let device = Device::with_portal();
    let tree = device.path("tree");
    real_copy(&tree);
    let input = data_len(&tree);
    device.mount();
    rsync(&tree, &mkdir(&device.at("first")));
    device.remount();
    same_tree(&tree, &device.at("first"));
    assert_eq!(sums(&tree), sums(&device.at("first")));
    nothing_to_transfer(&tree, &device.at("first"));
    device.umount();
    let once = stored(&device);
    assert!(once < input, "{once} bytes stored of {input}");
    device.mount();
    copy(&tree, &device.at("second"));
    device.umount();
    let added = stored(&device).saturating_sub(once);
    assert!(added * 100 < input * 3, "a second copy of {input} bytes adds {added}");
    device.mount();
    same_tree(&tree, &device.at("second"));
    device.umount();
}

#[test]
fn git_clones_commits_and_checks_in_a_mounted_portal() {
    let device = Device::mounted();
    let prelude = "export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1 GIT_TERMINAL_PROMPT=0
        export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b";
    let git =
        |script: &str| bash(&device.path(""), &format!("{prelude}\n{script}")).exits(0).text();
    for n in 0..200 {
        let dir = mkdir(&device.path(format!("origin/dir {}", n % 7)));
        write(&dir.join(format!("file {n}")), &text(n * 37, n as u64));
    }
    write(&device.path("origin/noise"), &noise(300_000, 1));
    git("cd origin; git init -q -b main; git add .; git commit -q -m one
        git mv noise moved; git commit -q -m two");
    git("git clone -q origin m/clone; cd m/clone; git checkout -q -b mine
        echo changed > 'dir 1/file 1'; rm 'dir 2/file 2'; git add -A; git commit -q -m three
        git gc -q; git fsck --full --strict; git status --porcelain");
    let head = git("cd m/clone; git rev-parse HEAD HEAD^{tree}");
    device.remount();
    assert_eq!(git("cd m/clone; git rev-parse HEAD HEAD^{tree}"), head);
    assert_eq!(git("cd m/clone; git status --porcelain; git log --format=%s"), "three\ntwo\none\n");
    git("cd m/clone; git fsck --full --strict; git checkout -q main; git branch -q -D mine");
    // A second working tree, everything packed anew, and a clone by hard links.
    git("cd m/clone; git worktree add -q -b other ../tree; cd ../tree
        echo more > more; git add .; git commit -q -m four; cd ../clone
        git repack -q -a -d -f; git gc -q --prune=now; git fsck --full --strict
        cd ..; git clone -q clone second; cd second; git fsck --full --strict
        git checkout -q other; cmp more ../tree/more");
    device.remount();
    git("cd m/clone; git worktree list | grep -q /tree; git worktree remove ../tree
        git merge -q other; git fsck --full --strict; cmp more ../second/more");
    assert_eq!(git("cd m/second; git status --porcelain; git fsck --strict --no-dangling"), "");
    // What came out is what went in.
    same_content(&device.path("origin/moved"), &device.at("clone/moved"));
    device.umount();
}

#[track_caller]
fn same_content(a: &Path, b: &Path) {
    let same = fs::read(a).expect("readable") == fs::read(b).expect("readable");
    assert!(same, "{} and {} differ", a.display(), b.display());
}

#[test]
fn cargo_builds_in_a_mounted_portal_and_the_program_runs() {
    let device = Device::mounted();
    let source = mkdir(&device.at("hello/src"));
    let manifest =
        "[package]\nname = \"hello\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[workspace]\n";
    write(&device.at("hello/Cargo.toml"), manifest.as_bytes());
    write(&source.join("main.rs"), b"fn main() { println!(\"built in a portal\"); }\n");
    let build = || {
        let mut cargo = Command::new("cargo");
        cargo.args(["build", "--offline"]).current_dir(device.at("hello"));
        for name in
            ["CARGO_TARGET_DIR", "CARGO_BUILD_TARGET_DIR", "RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS"]
        {
            cargo.env_remove(name);
        }
        run::run(cargo, Duration::from_secs(120)).exits(0).stderr
    };
    assert!(build().contains("Compiling hello"));
    let program = device.at("hello/target/debug/hello");
    let run = || must(program.to_str().expect("text"), [] as [&str; 0]);
    assert_eq!(run(), "built in a portal\n");
    device.remount();
    assert_eq!(run(), "built in a portal\n");
    // The times came back to the nanosecond: there is nothing to do.
    assert!(!build().contains("Compiling"), "built again");
    device.umount();
}

#[test]
fn a_mounted_portal_is_written_while_it_is_synced() {
    let device = Device::mounted();
    let files = 60;
    let body = |n: u64| noise(150_000 + n as usize * 1000, n);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for n in 0..files {
                let file = device.at(format!("file {n}"));
                // In two halves, so that a sync may come between them.
                let (bytes, half) = (body(n), 70_000);
                write(&file, &bytes[..half]);
                std::thread::sleep(Duration::from_millis(10));
                let mut file = fs::OpenOptions::new().append(true).open(&file).expect("opens");
                std::io::Write::write_all(&mut file, &bytes[half..]).expect("written");
            }
        });
        let mut syncs = 0;
        while !writer.is_finished() {
            device.sync();
            syncs += 1;
        }
        assert!(syncs > 1, "the test syncs while it writes");
    });
    let check = || {
        for n in 0..files {
            let read = fs::read(device.at(format!("file {n}"))).expect("there");
            assert!(read == body(n), "file {n}: {} bytes", read.len());
        }
    };
    check();
    device.remount();
    check();
    device.umount();
}

#[test]
fn every_way_to_unmount_a_mounted_portal_keeps_what_was_written() {
    let device = Device::with_portal();
    let ways: [&[&str]; 5] = [
        &["umount", "m"],
        &["fusermount3", "-u", "m"],
        &["warp", "umount", "m"],
        &["warp", "umount", "--lazy", "m"],
        &["warp", "umount", "--no-flush", "m"],
    ];
    for (number, way) in ways.iter().enumerate() {
        device.mount();
        write(&device.at(format!("large {number}")), &noise(3 << 20, number as u64));
        write(&mkdir(&device.at(format!("dir {number}"))).join("small"), way.join(" ").as_bytes());
        // Nothing is synced: unmounting is enough.
        if way[0] == "warp" {
            device.warp(&way[1..]).ok();
        } else {
            let mut command = Command::new(way[0]);
            command.args(&way[1..]).current_dir(device.path(""));
            run::run(command, Duration::from_secs(20)).exits(0);
        }
        assert_eq!(device.table_line("m"), None, "{way:?}");
        if number % 2 == 0 {
            // Nobody has to wait for the daemon: the next mount finds its way.
            device.until_gone();
        }
    }
    device.mount();
    for (number, way) in ways.iter().enumerate() {
        let large = fs::read(device.at(format!("large {number}"))).expect("there");
        assert!(large == noise(3 << 20, number as u64), "{way:?}");
        let small = fs::read(device.at(format!("dir {number}/small"))).expect("there");
        assert_eq!(small, way.join(" ").as_bytes(), "{way:?}");
    }
    device.umount();
}

#[test]
fn a_portal_is_mounted_soon_and_says_what_it_is() {
    let device = Device::with_portal();
    let took = device.mount().took;
    assert!(took < USABLE_WITHIN, "{took:?}");
    let line = device.table_line("m").expect("mounted");
    let (left, right) = line.split_once(" - ").expect("a line of the mount table");
    let options: Vec<&str> = left.split(' ').nth(5).unwrap_or_default().split(',').collect();
    for option in ["rw", "nosuid", "nodev"] {
        assert!(options.contains(&option), "{option}: {line}");
    }
    assert!(!options.contains(&"noexec"), "programs may run: {line}");
    assert!(right.starts_with("fuse.warp "), "{line}");
    device.umount();
}

#[test]
fn a_portal_mounted_read_only_refuses_every_change() {
    let device = Device::mounted();
    write(&device.at("file"), b"content");
    device.umount();
    for options in [&["--read-only"][..], &["-o", "ro"]] {
        let mount = device.warp(["mount", "p", "m"].iter().chain(options)).ok();
        let line = device.table_line("m").expect("mounted");
        assert!(line.contains(" ro,"), "{}: {line}", mount.what);
        assert_eq!(fs::read(device.at("file")).expect("there"), b"content");
        for (what, result) in [
            ("write", fs::write(device.at("file"), b"x")),
            ("make", fs::write(device.at("new"), b"x")),
            ("mkdir", fs::create_dir(device.at("dir"))),
            ("remove", fs::remove_file(device.at("file"))),
            ("rename", fs::rename(device.at("file"), device.at("moved"))),
        ] {
            let e = result.expect_err(what);
            assert_eq!(e.kind(), std::io::ErrorKind::ReadOnlyFilesystem, "{what}: {e}");
        }
        device.umount();
    }
}

#[test]
fn a_part_of_a_portal_is_mounted_alone() {
    let device = Device::mounted();
    write(&mkdir(&device.at("sub/below")).join("file"), b"one");
    write(&device.at("beside"), b"beside");
    device.umount();
    device.mount_at("p:/sub", "m");
    let names: Vec<_> = fs::read_dir(device.m())
        .expect("a directory")
        .map(|e| e.expect("an entry").file_name())
        .collect();
    assert_eq!(names, ["below"]);
    write(&device.at("below/file"), b"two");
    // The way up ends at the mountpoint.
    assert_eq!(fs::read(device.at("below/../below/file")).expect("there"), b"two");
    device.umount();
    device.mount();
    assert_eq!(fs::read(device.at("sub/below/file")).expect("there"), b"two");
    assert_eq!(fs::read(device.at("beside")).expect("there"), b"beside");
    device.umount();
}

#[test]
fn a_mounted_portal_ends_its_daemon_only_with_the_last_mount() {
    let device = Device::with_portal();
    device.create("q");
    mkdir(&device.path("n"));
    device.mount();
    let daemon = device.daemon();
    device.mount_at("q", "n");
    assert_eq!(device.daemon(), daemon, "one daemon serves both");
    write(&device.at("file"), b"in p");
    write(&device.path("n/file"), b"in q");
    device.warp(["umount", "m"]).ok();
    assert_eq!(device.daemon(), daemon);
    assert_eq!(fs::read(device.path("n/file")).expect("there"), b"in q");
    device.mount();
    assert_eq!(fs::read(device.at("file")).expect("there"), b"in p");
    device.warp(["umount", "n"]).ok();
    device.umount();
}

#[test]
fn a_foreground_portal_mount_ends_with_its_signal_and_keeps_everything() {
    use std::io::{BufRead, BufReader};
    let device = Device::with_portal();
    for (round, (signal, code)) in [("-TERM", 143), ("-INT", 130)].into_iter().enumerate() {
        let mut warp = device.warp(["mount", "-f", "p", "m"]);
        let mut running =
            warp_tests::device::Running::start(warp.command().stdout(std::process::Stdio::piped()));
        let mut out = BufReader::new(running.0.stdout.take().expect("piped"));
        let mut line = String::new();
        out.read_line(&mut line).expect("a line");
        assert_eq!(line, "ready m\n", "the directory as it was typed");
        write(&device.at(format!("file {round}")), &noise(1 << 20, round as u64));
        must("kill", [signal, &running.0.id().to_string()]);
        assert_eq!(running.ends(GONE_WITHIN), Some(code), "{signal}");
        assert_eq!(device.table_line("m"), None, "{signal}");
        device.until_gone();
    }
    device.mount();
    for round in 0..2 {
        let read = fs::read(device.at(format!("file {round}"))).expect("there");
        assert!(read == noise(1 << 20, round), "round {round}");
    }
    device.umount();
}

#[test]
fn a_mounted_portal_is_reported() {
    let device = Device::mounted();
    write(&device.at("file"), &noise(1 << 20, 1));
    device.sync();
    let mountpoint = device.m().display().to_string();
    let status = device.warp(["status", "--json"]).ok();
    assert_eq!(device.json(&status, "type(d).__name__"), "dict");
    assert!(status.text().contains(&mountpoint), "{}", status.text());
    let list = device.warp(["portal", "ls", "--json"]).ok();
    assert!(device.json(&list, "json.dumps(d)").contains("\"p\""), "{}", list.text());
    let one = device.warp(["portal", "status", "p", "--json"]).ok();
    assert_eq!(device.json(&one, "d['name']"), "p");
    for args in [&["status"][..], &["portal", "ls"], &["portal", "status", "p"]] {
        let said = device.warp(args).ok();
        assert!(
            said.text().lines().any(|line| line.contains('p')),
            "{}: {}",
            said.what,
            said.text()
        );
    }
    // Published: nothing is left to do.
    let published = device.warp(["portal", "status", "p", "--json"]).ok();
    let unpublished = device.json(&published, "[v for k, v in d.items() if 'unpublished' in k]");
    assert!(unpublished.starts_with("[0"), "{unpublished}: {}", published.text());
    device.umount();
    let list = device.warp(["portal", "ls"]).ok().text();
    assert!(list.lines().any(|line| line.split_whitespace().next() == Some("p")), "{list}");
    device.warp(["info"]).ok();
    let info = device.warp(["info", "--json"]).ok();
    assert_eq!(device.json(&info, "type(d).__name__"), "dict");
}

/// As most people work: not as root, through fusermount3.
#[test]
fn an_ordinary_user_mounts_a_portal() {
    let device = Device::without_key();
    let warp = device.path("warp");
    fs::copy(warp_tests::Warp::binary(), &warp).expect("copied");
    nasty::mode(&warp, 0o755);
    nasty::own(&device.path(""), 65534, 65534);
    let script = "set -eu; cd \"$1\"; mkdir dev; mount -t tmpfs -o mode=0755,dev tmpfs dev
        mknod -m 0666 dev/fuse c 10 229; mount --bind dev/fuse /dev/fuse
        exec setpriv --reuid 65534 --regid 65534 --clear-groups -- bash -euc '
          mkdir m; ./warp key init --phrase-file phrase >/dev/null; ./warp portal create p >/dev/null
          ./warp mount p m; echo hello > m/file; mkdir m/dir; chmod 700 m/dir
          stat -c \"%u %a\" m/file m/dir; chown 0 m/file 2>/dev/null || echo no
          ./warp umount m; ./warp mount p m; cat m/file; fusermount3 -u m'";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "bash", "-c", script, "bash"]);
    command.arg(device.path("")).env("WARP_HOME", device.home());
    command.env("WARP_LISTEN", "127.0.0.1:0").env("WARP_MDNS", "off");
    let output = run::run(command, Duration::from_secs(60)).exits(0);
    assert_eq!(output.text(), "65534 644\n65534 700\nno\nhello\n", "{}", output.stderr);
    device.until_gone();
}
