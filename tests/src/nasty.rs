//! Trees to archive and mount, and ways to compare them: one with everything
//! that a filesystem can hold, one too deep for a path, one of real files.

use crate::must;
use rustix::fs::{self as rfs, AtFlags, CWD, FileType, Mode, OFlags, Timespec, Timestamps};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Fewest regular files of [`real_tree`].
pub const REAL_FILES: usize = 20_000;
/// Path of the sparse file in a nasty tree.
pub const SPARSE: &str = "sparse/64MiB";
/// Length of the sparse file.
pub const SPARSE_LEN: u64 = 64 << 20;
/// Path of a file of 5 MiB of noise in a nasty tree.
pub const BIG: &str = "sizes/noise-5242880";

const DEPTH: usize = 60;

/// An empty directory that everyone may enter, and that is removed at the end.
///
/// # Panics
/// If there is no room for one.
pub fn scratch() -> TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    mode(dir.path(), 0o755);
    dir
}

/// Bytes that look random and do not compress; equal seeds give equal bytes,
/// and two others have nothing in common that could be stored once.
pub fn noise(len: usize, seed: u64) -> Vec<u8> {
    // The steps from one state to the next are all alike: seeds that were
    // themselves so many steps apart would give one stream, moved.
    let mut state = mixed(seed.wrapping_add(0x1234_5678_9abc_def1));
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        out.extend_from_slice(&mixed(state).to_le_bytes());
    }
    out.truncate(len);
    out
}

/// The last step of splitmix64.
fn mixed(state: u64) -> u64 {
    let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Text that compresses; equal seeds give equal text.
pub fn text(len: usize, seed: u64) -> Vec<u8> {
    let words = ["chunk", "extent", "tree", "a", "portal", "of", "the", "seal", "and", "peer"];
    let mut out = Vec::with_capacity(len + 32);
    for (line, pick) in noise(len / 16 + 16, seed).chunks(8).enumerate() {
        out.extend_from_slice(format!("{line:06} ").as_bytes());
        for byte in pick {
            out.extend_from_slice(words[usize::from(*byte) % words.len()].as_bytes());
            out.push(b' ');
        }
        out.push(b'\n');
        if out.len() >= len {
            break;
        }
    }
    while out.len() < len {
        out.push(b'.');
    }
    out.truncate(len);
    out
}

/// Writes a file.
///
/// # Panics
/// If it cannot.
#[track_caller]
pub fn write(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}

/// Makes a directory and those above it.
///
/// # Panics
/// If it cannot.
#[track_caller]
pub fn mkdir(path: &Path) -> PathBuf {
    fs::create_dir_all(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    path.to_path_buf()
}

/// Sets a file's mode.
///
/// # Panics
/// If it cannot.
#[track_caller]
pub fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}

/// Gives a file, or a link itself, to a user and a group.
///
/// # Panics
/// If it cannot.
#[track_caller]
pub fn own(path: &Path, uid: u32, gid: u32) {
    lchown(path, Some(uid), Some(gid)).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}

/// Sets an extended attribute of a file, or of a link itself.
///
/// # Panics
/// If it cannot.
#[track_caller]
pub fn xattr(path: &Path, name: &str, value: &[u8]) {
    rfs::lsetxattr(path, name, value, rfs::XattrFlags::empty())
        .unwrap_or_else(|e| panic!("{} {name}: {e}", path.display()));
}

/// Sets the time of the last change, of a link itself too.
///
/// # Panics
/// If it cannot.
#[track_caller]
pub fn mtime(path: &Path, secs: i64, nanos: i64) {
    let at = Timespec { tv_sec: secs, tv_nsec: nanos };
    let times = Timestamps { last_access: at, last_modification: at };
    rfs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)
        .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}

/// Builds in `dir` a tree with everything that a filesystem can hold, as far
/// as `rsync` can compare it (see [`deep`] for the rest). Takes root.
///
/// # Panics
/// If any of it cannot be made.
pub fn build(dir: &Path) {
    mkdir(dir);
    names(&mkdir(&dir.join("names")));
    nested(&mkdir(&dir.join("nested")));
    links(&mkdir(&dir.join("links")));
    sparse(&mkdir(&dir.join("sparse")));
    attributes(&mkdir(&dir.join("attributes")));
    acls(&mkdir(&dir.join("acls")));
    special(&mkdir(&dir.join("special")));
    modes(&mkdir(&dir.join("modes")));
    sizes(&mkdir(&dir.join("sizes")));
    crowd(&mkdir(&dir.join("crowd")));
    mkdir(&dir.join("empty/of/all"));
    times(&mkdir(&dir.join("times")));
    mtime(&dir.join("crowd"), 981_173_106, 789_012_345);
    own(dir, 77, 88);
    mode(dir, 0o751);
    mtime(dir, 1_000_000_000, 1);
}

fn names(dir: &Path) {
    let mut list: Vec<Vec<u8>> =
        (1..=255u8).filter(|b| !b"./".contains(b)).map(|b| vec![b]).collect();
    list.push(vec![b'n'; 255]);
    list.push("ü".repeat(127).into_bytes());
    list.push(b"not \xff\xfe UTF-8 \x80".to_vec());
    list.push(b"line one\nline two\n".to_vec());
    for name in
        ["...", " blank ", "--help", "-", "*?[a]", "\u{1f600}", "C:\\x", "\x1b[31mred", "%s$(x)"]
    {
        list.push(name.as_bytes().to_vec());
    }
    // Composed and decomposed: equal to the eye, not to the disk.
    list.extend(["\u{e9}".as_bytes().to_vec(), "e\u{301}".as_bytes().to_vec()]);
    for name in list {
        let mut content = b"named ".to_vec();
        content.extend_from_slice(&name);
        write(&dir.join(OsString::from_vec(name)), &content);
    }
    write(&mkdir(&dir.join(OsStr::from_bytes(b"dir \xc3\x28\n"))).join("x"), b"below an odd name");
}

fn nested(dir: &Path) {
    let mut at = dir.to_path_buf();
    for level in 0..DEPTH {
        at.push(format!("level {level:02} {}", "d".repeat(50)));
        mkdir(&at);
        if level % 20 == 19 {
            write(&at.join("f"), format!("at level {level}").as_bytes());
        }
    }
}

fn links(dir: &Path) {
    write(&dir.join("one"), &text(3000, 1));
    mkdir(&dir.join("below"));
    for name in ["two", "below/three", "AAA"] {
        fs::hard_link(dir.join("one"), dir.join(name)).expect("hard link");
    }
    symlink("one", dir.join("soft")).expect("symlink");
    fs::hard_link(dir.join("soft"), dir.join("soft-too")).expect("hard link of a symlink");
    symlink("no/such/file", dir.join("dangling")).expect("symlink");
    symlink("..", dir.join("up")).expect("symlink");
    symlink("/", dir.join("root")).expect("symlink");
    symlink("loop", dir.join("loop")).expect("symlink");
    symlink(OsStr::from_bytes(b"\xff\n\x1b[0m"), dir.join("odd")).expect("symlink");
    symlink("x".repeat(4000), dir.join("long")).expect("symlink of 4,000 bytes");
    own(&dir.join("dangling"), 4321, 1234);
    mtime(&dir.join("dangling"), -5, 250_000_000);
}

fn sparse(dir: &Path) {
    let file = |name: &str, len: u64, data: &[(u64, Vec<u8>)]| {
        let file = fs::File::create(dir.join(name)).expect("sparse file");
        file.set_len(len).expect("length");
        for (at, bytes) in data {
            file.write_all_at(bytes, *at).expect("data");
        }
    };
    let end = SPARSE_LEN - 100;
    file(
        "64MiB",
        SPARSE_LEN,
        &[(0, noise(5000, 2)), (SPARSE_LEN / 2, text(100_000, 3)), (end, noise(100, 4))],
    );
    file("hole", 8 << 20, &[]);
    file("head", 3 << 20, &[(2 << 20, noise(1 << 20, 5))]);
    file("tail", (3 << 20) + 17, &[(0, noise(70_000, 6))]);
    // Zeros that are written are data, not a hole.
    file("zeros", 300_000, &[(0, vec![0; 300_000])]);
}

fn attributes(dir: &Path) {
    let (file, below, link) = (dir.join("file"), mkdir(&dir.join("dir")), dir.join("link"));
    write(&file, b"with attributes");
    symlink("file", &link).expect("symlink");
    for path in [&file, &below] {
        xattr(path, "user.text", b"a value");
        xattr(path, "user.empty", b"");
        xattr(path, "user.binary", b"\x00\xff\n\x1b");
        xattr(path, "trusted.warp", b"for root only");
    }
    xattr(&file, "user.long", &noise(1500, 7));
    xattr(&link, "trusted.link", b"of the link itself");
    // cap_net_bind_service+ep, as the kernel stores it.
    let capability = [1u8, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let tool = dir.join("tool");
    write(&tool, b"#!/bin/true\n");
    mode(&tool, 0o755);
    xattr(&tool, "security.capability", &capability);
    for n in 0..20 {
        xattr(&tool, &format!("user.many.{n}"), format!("value {n}").as_bytes());
    }
}

fn acls(dir: &Path) {
    let (file, below) = (dir.join("file"), mkdir(&dir.join("dir")));
    write(&file, b"with an ACL");
    let set = |args: &[&str], path: &Path| {
        let mut words: Vec<&OsStr> = args.iter().map(OsStr::new).collect();
        words.push(path.as_os_str());
        must("setfacl", words);
    };
    set(&["-m", "u:12345:rw,g:54321:r,m::rw"], &file);
    set(&["-m", "u:12345:rwx", "-m", "d:u:12345:rwx,d:g::r-x,d:o::-"], &below);
    // Inherits from the default.
    write(&below.join("heir"), b"inherits");
    mkdir(&below.join("heiress"));
}

fn special(dir: &Path) {
    let make = |name: &str, kind: FileType, device: u64, bits: u32| {
        let path = dir.join(name);
        rfs::mknodat(CWD, &path, kind, Mode::from_raw_mode(0o600), device)
            .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        mode(&path, bits);
    };
    make("null", FileType::CharacterDevice, rfs::makedev(1, 3), 0o666);
    make("high", FileType::CharacterDevice, rfs::makedev(240, 70_000), 0o600);
    make("disk", FileType::BlockDevice, rfs::makedev(7, 200), 0o660);
    make("fifo", FileType::Fifo, 0, 0o640);
    make("socket", FileType::Socket, 0, 0o755);
    own(&dir.join("disk"), 0, 6);
    mtime(&dir.join("fifo"), 12, 34);
    mtime(&dir.join("null"), 1_234_567_890, 987_654_321);
}

fn modes(dir: &Path) {
    for bits in [0o0000, 0o4755, 0o2755, 0o6711, 0o1644, 0o7777, 0o0200, 0o2640] {
        let path = dir.join(format!("file-{bits:04o}"));
        write(&path, format!("mode {bits:04o}").as_bytes());
        own(&path, 1000, 4_000_000_000);
        mode(&path, bits);
    }
    for bits in [0o0000, 0o1777, 0o2775, 0o0711] {
        let path = mkdir(&dir.join(format!("dir-{bits:04o}")));
        write(&path.join("inside"), b"inside");
        own(&path, 65534, 65534);
        mode(&path, bits);
    }
}

fn sizes(dir: &Path) {
    let around = [512, 4096, 64 << 10, 256 << 10, 1 << 20];
    let near = around.iter().flat_map(|n| [n - 1, *n, n + 1]);
    for (len, seed) in [0, 1, 511].into_iter().chain(near).chain([5 << 20]).zip(100u64..) {
        write(&dir.join(format!("noise-{len}")), &noise(len, seed));
        write(&dir.join(format!("text-{len}")), &text(len, seed));
    }
    let twins = mkdir(&dir.join("twins"));
    for name in ["noise-5242880", "noise-65537", "text-513"] {
        fs::copy(dir.join(name), twins.join(name)).expect("copy");
    }
    // The same, moved by a byte: only content-defined cuts find it again.
    let mut moved = b"!".to_vec();
    moved.extend(fs::read(dir.join("noise-5242880")).expect("made above"));
    write(&twins.join("moved"), &moved);
}

/// More names than one reply of a directory listing holds.
fn crowd(dir: &Path) {
    for n in 0..1500 {
        let path = dir.join(format!("member number {n}"));
        write(&path, if n % 3 == 0 { b"" } else { b"small" });
        mtime(&path, 1_700_000_000 + n, n * 600_000);
    }
}

fn times(dir: &Path) {
    let rows: [(&str, i64, i64); 8] = [
        ("epoch", 0, 0),
        ("fraction", 1_600_000_000, 123_456_789),
        ("last-nanosecond", 1_600_000_000, 999_999_999),
        ("before-1970", -123_456_790, 12_345_679),
        ("just-before", -1, 999_999_999),
        ("1901", -2_147_483_648, 500),
        ("2038", 2_147_483_648, 1),
        ("2400", 13_569_465_600, 77),
    ];
    for (name, secs, nanos) in rows {
        let (file, below) = (dir.join(name), mkdir(&dir.join(format!("{name}.d"))));
        write(&file, name.as_bytes());
        mtime(&file, secs, nanos);
        mtime(&below, secs, nanos);
    }
}

/// Builds below `dir` directories so deep that the path of the innermost file
/// has more than the 4,096 bytes that the kernel takes at once.
///
/// # Panics
/// If it cannot be made.
pub fn deep(dir: &Path) {
    mkdir(dir);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut fd = rfs::open(dir, flags, Mode::empty()).expect("the directory made above");
    for level in 0..DEPTH {
        let name = format!("{level:02}-{}", "long".repeat(24));
        rfs::mkdirat(&fd, &name, Mode::from_raw_mode(0o750)).expect("directory");
        fd = rfs::openat(&fd, &name, flags, Mode::empty()).expect("directory");
        if level % 10 == 9 {
            let create = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
            let file = rfs::openat(&fd, "bottom", create, Mode::from_raw_mode(0o604));
            let content = format!("level {level}\n");
            rustix::io::write(file.expect("file"), content.as_bytes()).expect("written");
        }
    }
}

/// Everything about a tree of any depth that `tar` puts into a stream, as a
/// checksum; `rsync` refuses paths as long as those of [`deep`].
pub fn tar_sum(dir: &Path) -> String {
    in_dir(dir, "set -o pipefail; tar --sort=name --format=gnu --numeric-owner -cf - . | sha256sum")
}

/// Directories of real files, [`REAL_FILES`] or more in all: sources of
/// crates as cargo unpacked them, and pages of the toolchain's manual. As
/// many as are needed and no more, so that tests stay short.
///
/// # Panics
/// If this machine has too few.
pub fn real_tree() -> Vec<PathBuf> {
    let home = std::env::var_os("CARGO_HOME").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".cargo"),
        PathBuf::from,
    );
    let crates = children(&home.join("registry/src")).iter().flat_map(|i| children(i)).collect();
    let sysroot = PathBuf::from(must("rustc", ["--print", "sysroot"]).trim_end());
    let pages = children(&sysroot.join("share/doc/rust/html"));
    let (mut found, mut files) = (Vec::new(), 0);
    let mut take = |list: Vec<PathBuf>, until: usize| {
        let mut rest = list.into_iter();
        while files < until
            && let Some(dir) = rest.next()
        {
            files += count(&dir);
            found.push(dir);
        }
        rest.collect()
    };
    let crates: Vec<PathBuf> = take(crates, REAL_FILES * 3 / 4);
    take(pages, REAL_FILES);
    take(crates, REAL_FILES);
    assert!(files >= REAL_FILES, "only {files} files in cargo's registry and the manual");
    found
}

/// A copy of [`real_tree`] in a new directory, which cargo will not change.
///
/// # Panics
/// If it cannot be made.
pub fn real_copy(to: &Path) {
    mkdir(to);
    let mut args: Vec<OsString> = vec!["-a".into(), "-t".into(), to.into(), "--".into()];
    args.extend(real_tree().into_iter().map(PathBuf::into_os_string));
    must("cp", args);
}

/// Subdirectories, by name.
fn children(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).map_or_else(|_| Vec::new(), |list| list.flatten().collect());
    let is_dir = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
    let mut found: Vec<PathBuf> =
        entries.iter().filter(|e| is_dir(e)).map(fs::DirEntry::path).collect();
    found.sort();
    found
}

/// Regular files below a directory.
fn count(dir: &Path) -> usize {
    let entries = fs::read_dir(dir).map_or_else(|_| Vec::new(), |list| list.flatten().collect());
    let counted = |entry: &fs::DirEntry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => count(&entry.path()),
        Ok(kind) => usize::from(kind.is_file()),
        Err(_) => 0,
    };
    entries.iter().map(counted).sum()
}

/// Bytes of data below a directory; a hole has none.
///
/// # Panics
/// If it cannot be read.
pub fn data_len(dir: &Path) -> u64 {
    let mut sum = 0;
    for entry in fs::read_dir(dir).expect("a directory").flatten() {
        let meta = entry.metadata().expect("there");
        if meta.is_dir() {
            sum += data_len(&entry.path());
        } else if meta.is_file() {
            sum += meta.len().min(meta.blocks() * 512);
        }
    }
    sum
}

/// Fails unless `rsync` finds no difference at all between two directories:
/// content, hard links, ACLs, attributes, owners, modes, times to the
/// nanosecond, and nothing too much.
#[track_caller]
pub fn same_tree(source: &Path, target: &Path) {
    let slash = |path: &Path| path.join("").into_os_string();
    let differences = must(
        "rsync",
        [
            OsString::from("-aHAXSnci"),
            "--delete".into(),
            "--modify-window=-1".into(),
            slash(source),
            slash(target),
        ],
    );
    assert_eq!(differences, "", "{} and {} differ", source.display(), target.display());
}

/// Checksums of all regular files below a directory, by path.
pub fn sums(dir: &Path) -> String {
    in_dir(dir, "find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum")
}

/// Extended attributes of everything below a directory, by path.
pub fn all_xattrs(dir: &Path) -> String {
    in_dir(dir, "find . -print0 | LC_ALL=C sort -z | xargs -0 getfattr -h -d -m - -e hex")
}

/// Access lists of everything below a directory, by path.
pub fn all_acls(dir: &Path) -> String {
    in_dir(dir, "find . ! -type l -print0 | LC_ALL=C sort -z | xargs -0 getfacl -n -p")
}

/// Type, mode, owner, size, time, count of names and target of everything
/// below a directory, by path. (Sizes and counts of directories are the
/// filesystem's own business.)
pub fn all_stats(dir: &Path) -> String {
    in_dir(
        dir,
        r"find . \( -type d -printf '%p d %m %U %G %T@\0' \) -o \
          -printf '%p %y %m %U %G %s %T@ %n %l\0' | LC_ALL=C sort -z",
    )
}

fn in_dir(dir: &Path, script: &str) -> String {
    let script = format!("cd \"$1\" || exit 1; {script}");
    must("bash", [OsStr::new("-c"), OsStr::new(&script), OsStr::new("bash"), dir.as_os_str()])
}
