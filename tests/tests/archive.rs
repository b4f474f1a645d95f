//! Archives, with the real binary: what goes in comes out, to the last
//! attribute; each verb does what its help says.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use warp_format::archive::{FRAME_LEN, Frame, HEADER_LEN};
use warp_format::codec::Unpacker;
use warp_format::{SealedChunk, Sealer};
use warp_tests::nasty::{
    self, all_stats, all_xattrs, data_len, mkdir, mode, mtime, noise, own, same_tree, scratch,
    sums, tar_sum, text, write, xattr,
};
use warp_tests::{Output, Warp, must, run};

/// The most memory that making an archive may take, whatever goes in.
const CREATE_MEMORY_KIB: u64 = 200 << 10;

/// `warp archive VERB`, to be given more arguments.
fn archive(verb: &str) -> Warp {
    Warp::new(["archive", verb])
}

/// [`Warp`], with a command line that grows word by word.
trait Words {
    fn arg(self, word: impl AsRef<OsStr>) -> Self;
    fn args<const N: usize>(self, words: [&str; N]) -> Self;
}

impl Words for Warp {
    fn arg(mut self, word: impl AsRef<OsStr>) -> Self {
        self.command().arg(word);
        self
    }

    fn args<const N: usize>(mut self, words: [&str; N]) -> Self {
        self.command().args(words);
        self
    }
}

/// Packs `names` of directory `from`.
#[track_caller]
fn create(file: &Path, from: &Path, names: &[&str]) -> Output {
    names.iter().fold(archive("create").arg(file).arg("-C").arg(from), Words::arg).ok()
}

#[track_caller]
fn extract(file: &Path, to: &Path) -> Output {
    archive("extract").arg("-C").arg(to).arg(file).ok()
}

#[track_caller]
fn verify(file: &Path) -> String {
    archive("verify").arg(file).ok().text()
}

fn len(path: &Path) -> u64 {
    fs::metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).len()
}

#[track_caller]
fn same_bytes(a: &Path, b: &Path) {
    // Not `assert_eq!`: nobody wants to see megabytes.
    assert!(
        fs::read(a).expect("readable") == fs::read(b).expect("readable"),
        "{} and {} differ",
        a.display(),
        b.display()
    );
}

/// The names in a directory, sorted.
fn list(dir: &Path) -> Vec<OsString> {
    let mut names: Vec<_> =
        fs::read_dir(dir).expect("a directory").map(|e| e.expect("an entry").file_name()).collect();
    names.sort();
    names
}

fn secret(dir: &Path) -> PathBuf {
    let file = dir.join("passphrase");
    write(&file, b"correct horse battery staple\n");
    mode(&file, 0o600);
    file
}

fn contains(bytes: &[u8], marker: &[u8]) -> bool {
    bytes.windows(marker.len()).any(|window| window == marker)
}

/// Everything that the chunks of an open archive hold: names and attributes
/// are packed, so they cannot be looked for in the file itself.
fn unpack(archive: &[u8]) -> Vec<u8> {
    let (mut at, mut out, mut unpacker) = (HEADER_LEN, Vec::new(), Unpacker::new());
    while let Ok(frame) = Frame::decode(&archive[at..]) {
        let start = at + FRAME_LEN;
        let sealed = SealedChunk::found(archive[start..start + frame.len].to_vec());
        out.extend(Sealer::plain().open_any(&mut unpacker, &sealed).expect("an open archive").1);
        at = start + frame.len;
    }
    out
}

/// Valid by the judgement of another program.
#[track_caller]
fn is_json(output: &Output) {
    let dir = scratch();
    let file = dir.path().join("document.json");
    write(&file, &output.stdout);
    must("python3", [OsStr::new("-m"), OsStr::new("json.tool"), file.as_os_str()]);
}

/// Evaluates a Python expression over a JSON document called `d`.
#[track_caller]
fn python(output: &Output, expression: &str) -> String {
    let dir = scratch();
    let file = dir.path().join("document.json");
    write(&file, &output.stdout);
    let script = format!("import json,sys; d=json.load(open(sys.argv[1])); print({expression})");
    let args = [OsStr::new("-c"), OsStr::new(&script), file.as_os_str()];
    must("python3", args).trim_end().to_owned()
}

#[test]
fn a_nasty_tree_comes_back_as_it_was() {
    let dir = scratch();
    let dir = dir.path();
    nasty::build(&dir.join("a"));
    let (one, two, out) = (dir.join("1.warp"), dir.join("2.warp"), dir.join("out"));
    create(&one, dir, &["a"]);
    create(&two, dir, &["a"]);
    same_bytes(&one, &two);
    let said = verify(&one);
    assert!(said.contains("every byte read"), "{said}");
    extract(&one, &out);
    assert_eq!(list(&out), ["a"]);
    same_tree(&dir.join("a"), &out.join("a"));
    // What rsync does not look at, or looks at with its own eyes.
    assert_eq!(all_stats(&dir.join("a")), all_stats(&out.join("a")));
    assert_eq!(all_xattrs(&dir.join("a")), all_xattrs(&out.join("a")));
    assert_eq!(sums(&dir.join("a")), sums(&out.join("a")));
    let (sparse, back) = (dir.join("a").join(nasty::SPARSE), out.join("a").join(nasty::SPARSE));
    let blocks = |path| fs::metadata(path).expect("there").blocks();
    assert!(blocks(&back) <= blocks(&sparse) + 512, "{} blocks", blocks(&back));
    let inode = |name| fs::symlink_metadata(out.join("a/links").join(name)).expect("there").ino();
    for name in ["two", "below/three", "AAA"] {
        assert_eq!(inode(name), inode("one"), "{name}");
    }
    assert_eq!(inode("soft"), inode("soft-too"));
}

#[test]
fn a_second_copy_of_a_nasty_tree_costs_next_to_nothing() {
    let dir = scratch();
    let dir = dir.path();
    nasty::build(&dir.join("a"));
    must("cp", [OsStr::new("-a"), dir.join("a").as_os_str(), dir.join("b").as_os_str()]);
    let (one, both) = (dir.join("one.warp"), dir.join("both.warp"));
    create(&one, dir, &["a"]);
    create(&both, dir, &["a", "b"]);
    cheap(&one, &both, data_len(&dir.join("a")));
    // The copy differs in nothing that is kept: equal bytes, then.
    let other = mkdir(&dir.join("elsewhere"));
    fs::rename(dir.join("b"), other.join("a")).expect("renamed");
    create(&dir.join("copy.warp"), &other, &["a"]);
    same_bytes(&one, &dir.join("copy.warp"));
}

/// The second copy may add 3 % of what it holds.
#[track_caller]
fn cheap(one: &Path, both: &Path, input: u64) {
    let added = len(both) - len(one);
    assert!(
        added * 100 < input * 3,
        "{added} bytes more for a copy of {input} bytes ({} for the first)",
        len(one)
    );
}

#[test]
fn directories_deeper_than_a_path_come_back() {
    let dir = scratch();
    let dir = dir.path();
    nasty::deep(&dir.join("a"));
    let (file, out) = (dir.join("deep.warp"), dir.join("out"));
    create(&file, dir, &["a"]);
    verify(&file);
    extract(&file, &out);
    assert_eq!(tar_sum(&dir.join("a")), tar_sum(&out.join("a")));
    let names = archive("ls").arg(&file).ok().text();
    let longest = names.lines().map(str::len).max().unwrap_or_default();
    assert!(longest > 4096, "the longest path has {longest} bytes");
}

#[test]
fn a_real_tree_comes_back_as_it_was_within_limits() {
    let dir = scratch();
    let dir = dir.path();
    nasty::real_copy(&dir.join("a"));
    let (one, two, out) = (dir.join("1.warp"), dir.join("2.warp"), dir.join("out"));
    let mut making = archive("create").arg(&one).arg("-C").arg(dir).arg("a");
    let peak_kib = peak_memory_kib(making.command());
    assert!(peak_kib <= CREATE_MEMORY_KIB, "create took {} MiB", peak_kib >> 10);
    create(&two, dir, &["a"]);
    same_bytes(&one, &two);
    let said = verify(&one);
    assert!(said.contains("every byte read"), "{said}");
    extract(&one, &out);
    same_tree(&dir.join("a"), &out.join("a"));
    fs::remove_dir_all(&out).expect("removed");

    must("cp", [OsStr::new("-a"), dir.join("a").as_os_str(), dir.join("b").as_os_str()]);
    create(&dir.join("both.warp"), dir, &["a", "b"]);
    cheap(&one, &dir.join("both.warp"), data_len(&dir.join("a")));
}

/// Runs a command that must succeed; gives the most memory that it had.
#[track_caller]
fn peak_memory_kib(command: &mut Command) -> u64 {
    let mut child = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().expect("started");
    let status = PathBuf::from(format!("/proc/{}/status", child.id()));
    let until = Instant::now() + Duration::from_secs(120);
    let mut peak = 0;
    loop {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
        peak = peak.max(kib.unwrap_or(0));
        if let Some(status) = child.try_wait().expect("a child") {
            assert!(status.success(), "{command:?}: {status}");
            assert!(peak > 1024, "nothing was measured: {peak} KiB");
            return peak;
        }
        if Instant::now() > until {
            let _ = child.kill();
            panic!("{command:?}: still running");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_sealed_archive_comes_back_as_it_was() {
    let dir = scratch();
    let dir = dir.path();
    nasty::build(&dir.join("a"));
    sealed_round_trip(dir);
}

#[test]
fn a_sealed_archive_of_a_real_tree_comes_back_as_it_was() {
    let dir = scratch();
    let dir = dir.path();
    nasty::real_copy(&dir.join("a"));
    sealed_round_trip(dir);
}

fn sealed_round_trip(dir: &Path) {
    let (file, out, secret) = (dir.join("sealed.warp"), dir.join("out"), secret(dir));
    let with = |verb| archive(verb).arg("--passphrase-file").arg(&secret);
    with("create").arg("--encrypt").arg(&file).arg("-C").arg(dir).arg("a").ok();
    let said = with("verify").arg(&file).ok().text();
    assert!(said.contains("every byte read"), "{said}");
    with("extract").arg("-C").arg(&out).arg(&file).ok();
    same_tree(&dir.join("a"), &out.join("a"));
    // Without the passphrase: whole, but closed.
    let said = archive("verify").arg("--keyless").arg(&file).ok().text();
    assert!(said.contains("contents not opened") && !said.contains("every byte read"), "{said}");
    archive("verify").arg(&file).run().exits(7);
    // From the environment too.
    archive("ls").arg(&file).env("WARP_PASSPHRASE", "correct horse battery staple").ok();
}

#[test]
fn a_sealed_archive_shows_neither_content_nor_names_nor_attributes() {
    let dir = scratch();
    let dir = dir.path();
    let tree = mkdir(&dir.join("a"));
    // A name or a target takes no NUL, a name no slash either.
    let marker = |seed| -> Vec<u8> {
        let usable = noise(400, seed).into_iter().filter(|b| !matches!(b, 0 | b'/' | b'\n'));
        usable.take(64).collect()
    };
    let (inline, content, name, value, target) =
        (marker(1), marker(2), marker(3), marker(4), marker(5));
    write(&tree.join("inline"), &inline);
    let mut long = noise(50_000, 6);
    long.extend(&content);
    long.extend(noise(50_000, 7));
    write(&tree.join("long"), &long);
    write(&tree.join(OsString::from_vec(name.clone())), b"short");
    xattr(&tree.join("inline"), "user.marker", &value);
    symlink(OsString::from_vec(target.clone()), tree.join("link")).expect("symlink");
    let (open, sealed) = (dir.join("open.warp"), dir.join("sealed.warp"));
    for level in ["0", "3", "19"] {
        let make = |file| {
            archive("create")
                .args(["--force", "--level", level])
                .arg(file)
                .arg("-C")
                .arg(dir)
                .arg("a")
        };
        make(&open).ok();
        make(&sealed).arg("--encrypt").env("WARP_PASSPHRASE", "marked").ok();
        let (open, sealed) = (fs::read(&open).expect("there"), fs::read(&sealed).expect("there"));
        assert!(contains(&open, &content), "control: content is stored as it is, level {level}");
        let opened = unpack(&open);
        for (what, marker) in [
            ("inline content", &inline),
            ("content", &content),
            ("name", &name),
            ("attribute", &value),
            ("target", &target),
        ] {
            assert!(contains(&opened, marker), "control: {what} is not in it, level {level}");
            assert!(!contains(&sealed, marker), "{what} is in the sealed archive, level {level}");
        }
        // Half a marker is telling as well.
        assert!(!contains(&sealed, &content[..16]) && !contains(&sealed, &name[..16]));
    }
}

/// A small tree: `t/{big,small,sub/{deeper/x,note},link,tool}`.
fn small_tree(dir: &Path) -> PathBuf {
    let tree = mkdir(&dir.join("t"));
    mkdir(&tree.join("sub/deeper"));
    write(&tree.join("big"), &text(300_000, 1));
    write(&tree.join("small"), b"small\n");
    write(&tree.join("tool"), b"#!/bin/sh\n");
    write(&tree.join("sub/note"), &noise(2000, 2));
    write(&tree.join("sub/deeper/x"), b"x");
    symlink("sub/note", tree.join("link")).expect("symlink");
    mode(&tree.join("tool"), 0o4755);
    own(&tree.join("small"), 1000, 2000);
    mtime(&tree.join("small"), 951_782_400, 5);
    tree
}

#[test]
fn ls_shows_names_sizes_and_json() {
    let dir = scratch();
    let dir = dir.path();
    let tree = small_tree(dir);
    write(&tree.join(OsStr::from_bytes(b"bad\xffname")), b"");
    let file = dir.join("t.warp");
    create(&file, dir, &["t"]);
    let ls = || archive("ls").arg(&file);

    let names = ls().ok().stdout;
    let names: BTreeSet<&[u8]> = names.split(|b| *b == b'\n').filter(|n| !n.is_empty()).collect();
    let want: [&[u8]; 10] = [
        b"t",
        b"t/bad\xffname",
        b"t/big",
        b"t/link",
        b"t/small",
        b"t/sub",
        b"t/sub/deeper",
        b"t/sub/deeper/x",
        b"t/sub/note",
        b"t/tool",
    ];
    assert_eq!(names, BTreeSet::from(want));

    let long = String::from_utf8_lossy(&ls().arg("-l").ok().stdout).into_owned();
    let line = |name: &str| long.lines().find(|l| l.contains(name)).unwrap_or_default().to_owned();
    let small = line("t/small");
    assert!(small.starts_with("-rw"), "{small}");
    for part in [" 1000 ", " 2000 ", " 6 ", "2000-02-29 00:00:00"] {
        assert!(small.contains(part), "{part}: {small}");
    }
    assert!(line("t/tool").starts_with("-rwsr-xr-x"), "{long}");
    assert!(line("t/link").ends_with("t/link -> sub/note"), "{long}");
    assert!(line("t/link").starts_with('l') && line("t/sub").starts_with('d'), "{long}");

    let by_size = String::from_utf8_lossy(&ls().args(["--sort", "size"]).ok().stdout).into_owned();
    assert_eq!(by_size.lines().next(), Some("t/big"), "{by_size}");
    assert_eq!(by_size.lines().count(), 10);
    let by_time = ls().args(["--sort", "time"]).ok();
    let by_time = String::from_utf8_lossy(&by_time.stdout).into_owned();
    assert_eq!(by_time.lines().last(), Some("t/small"), "{by_time}");

    let json = ls().arg("--json").ok();
    is_json(&json);
    assert_eq!(python(&json, "len(d['entries'])"), "10");
    let entry =
        |field: &str| format!("[e{field} for e in d['entries'] if e['path']=='t/small'][0]");
    assert_eq!(python(&json, &entry("['size']")), "6");
    assert_eq!(python(&json, &entry("['mode']")), "0644");
    assert_eq!(
        python(&json, "[e['path_hex'] for e in d['entries'] if 'path_hex' in e]"),
        "['742f626164ff6e616d65']"
    );

    // A path shows what is below it, and nothing else.
    let sub = ls().arg("t/sub").ok().text();
    let sub: BTreeSet<&str> = sub.lines().collect();
    assert_eq!(sub, BTreeSet::from(["t/sub", "t/sub/deeper", "t/sub/deeper/x", "t/sub/note"]));
}

#[test]
fn every_report_is_valid_json() {
    let dir = scratch();
    let dir = dir.path();
    nasty::build(&dir.join("a"));
    let (file, other) = (dir.join("a.warp"), dir.join("b.warp"));
    let made = archive("create").arg("--json").arg(&file).arg("-C").arg(dir).arg("a").ok();
    write(&dir.join("a/added"), b"");
    create(&other, dir, &["a"]);
    let reports = [
        made,
        archive("ls").arg("--json").arg(&file).ok(),
        archive("ls").arg("--json").arg("-l").arg(&file).ok(),
        archive("verify").arg("--json").arg(&file).ok(),
        archive("verify").arg("--json").args(["--sample", "10%"]).arg(&file).ok(),
        archive("verify")
            .arg("--json")
            .arg("--proof")
            .arg(Path::new("a").join(nasty::BIG))
            .arg(&file)
            .ok(),
        archive("diff").arg("--json").arg(&file).arg(&other).ok(),
        archive("extract").arg("--json").arg("-C").arg(dir.join("out")).arg(&file).ok(),
    ];
    for report in &reports {
        is_json(report);
        assert_eq!(report.stderr, "", "{}", report.what);
    }
    assert_eq!(python(&reports[3], "d['ok'] and d['problems'] == []"), "True");
    assert_eq!(python(&reports[3], "d['data_chunks'] == d['data_chunks_read']"), "True");
    assert_eq!(python(&reports[7], "d['not_restored']"), "[]");
}

#[test]
fn extract_takes_one_file_or_one_directory() {
    let dir = scratch();
    let dir = dir.path();
    let tree = small_tree(dir);
    let file = dir.join("t.warp");
    create(&file, dir, &["t"]);
    let one = dir.join("one");
    archive("extract").arg("-C").arg(&one).arg(&file).arg("t/sub/note").ok();
    assert_eq!(list(&one.join("t")), ["sub"]);
    assert_eq!(list(&one.join("t/sub")), ["note"]);
    same_bytes(&tree.join("sub/note"), &one.join("t/sub/note"));
    let two = dir.join("two");
    archive("extract").arg("-C").arg(&two).arg(&file).args(["t/sub", "t/small", "t/sub/note"]).ok();
    assert_eq!(list(&two.join("t")), ["small", "sub"]);
    same_tree(&tree.join("sub"), &two.join("t/sub"));
    // Into the current directory, if none is named.
    let three = mkdir(&dir.join("three"));
    let mut here = archive("extract").arg(&file).arg("t/small");
    here.command().current_dir(&three);
    here.ok();
    same_bytes(&tree.join("small"), &three.join("t/small"));
}

#[test]
fn extract_replaces_files_only_if_told_to() {
    let dir = scratch();
    let dir = dir.path();
    let tree = small_tree(dir);
    fs::hard_link(tree.join("big"), tree.join("big-too")).expect("hard link");
    let (file, out) = (dir.join("t.warp"), dir.join("out"));
    create(&file, dir, &["t"]);
    extract(&file, &out);
    write(&out.join("t/small"), b"changed by hand");
    fs::remove_file(out.join("t/sub/note")).expect("removed");
    let said = archive("extract").arg("-C").arg(&out).arg(&file).run().exits(2).stderr;
    assert!(said.contains("t/small") && said.contains("exists"), "{said}");
    assert_eq!(fs::read(out.join("t/small")).expect("there"), b"changed by hand");
    // What was not in the way is there again.
    same_bytes(&tree.join("sub/note"), &out.join("t/sub/note"));
    archive("extract").arg("--force").arg("-C").arg(&out).arg(&file).ok();
    same_tree(&tree, &out.join("t"));
}

/// `one` and `two` are names of one file. If something else is in the way of
/// the first, the second must not become a name of that.
#[test]
fn a_hard_link_is_never_made_to_what_was_there_before() {
    let dir = scratch();
    let dir = dir.path();
    let tree = mkdir(&dir.join("t"));
    write(&tree.join("one"), b"of the archive");
    fs::hard_link(tree.join("one"), tree.join("two")).expect("hard link");
    let (file, out) = (dir.join("t.warp"), dir.join("out"));
    create(&file, dir, &["t"]);
    write(&mkdir(&out.join("t")).join("one"), b"somebody else's");
    archive("extract").arg("-C").arg(&out).arg(&file).run().exits(2);
    assert_eq!(fs::read(out.join("t/one")).expect("there"), b"somebody else's");
    if let Ok(two) = fs::read(out.join("t/two")) {
        assert_eq!(
            two, b"of the archive",
            "t/two has become a name of a file that was there before"
        );
    }
}

#[test]
fn exclude_leaves_out_names_and_paths() {
    let dir = scratch();
    let dir = dir.path();
    let tree = small_tree(dir);
    write(&tree.join("sub/keep.o"), b"o");
    write(&tree.join("drop.tmp"), b"tmp");
    write(&tree.join("sub/drop.tmp"), b"tmp");
    let file = dir.join("t.warp");
    archive("create")
        .args(["-x", "*.tmp", "--exclude", "t/sub/deeper", "-x", "t/*.o"])
        .arg(&file)
        .arg("-C")
        .arg(dir)
        .arg("t")
        .ok();
    let names = archive("ls").arg(&file).ok().text();
    assert!(!names.contains("drop.tmp") && !names.contains("deeper"), "{names}");
    assert!(names.contains("t/sub/note") && names.contains("t/big"), "{names}");
}

#[test]
fn a_dash_writes_the_same_archive_to_standard_output() {
    let dir = scratch();
    let dir = dir.path();
    small_tree(dir);
    let file = dir.join("t.warp");
    create(&file, dir, &["t"]);
    let mut piped = archive("create").arg("-").arg("-C").arg(dir).arg("t");
    let empty = mkdir(&dir.join("empty"));
    piped.command().current_dir(&empty);
    let piped = piped.ok();
    assert!(piped.stdout == fs::read(&file).expect("there"), "the bytes differ");
    assert!(list(&empty).is_empty(), "{:?}", list(&empty));
}

#[test]
fn the_same_tree_gives_the_same_bytes_from_wherever_it_is_named() {
    let dir = scratch();
    let dir = dir.path();
    nasty::build(&dir.join("a"));
    let (by_c, here, absolute, again) =
        (dir.join("c.warp"), dir.join("here.warp"), dir.join("abs.warp"), dir.join("again.warp"));
    create(&by_c, dir, &["a"]);
    let mut in_dir = archive("create").args(["here.warp", "a"]);
    in_dir.command().current_dir(dir);
    in_dir.ok();
    archive("create").arg(&absolute).arg(dir.join("a")).ok();
    let mut above = archive("create").arg(&again).args(["-C", ".."]).arg("./a/");
    above.command().current_dir(dir.join("a"));
    above.ok();
    for other in [&here, &absolute, &again] {
        same_bytes(&by_c, other);
    }
    // The archive itself never goes in, even if it lies in the tree.
    let inside = dir.join("a/inside.warp");
    archive("create").arg(&inside).arg("-C").arg(dir).arg("a").ok();
    let names = archive("ls").arg(&inside).ok().text();
    assert!(!names.contains("inside.warp"), "the archive holds itself");
}

#[test]
fn diff_names_each_difference_by_its_kind() {
    let dir = scratch();
    let dir = dir.path();
    let tree = small_tree(dir);
    let (a, b) = (dir.join("a.warp"), dir.join("b.warp"));
    create(&a, dir, &["t"]);
    let top = fs::metadata(&tree).expect("there");
    write(&tree.join("new"), b"new");
    fs::remove_file(tree.join("tool")).expect("removed");
    write(&tree.join("small"), b"SMALL\n");
    mode(&tree.join("sub/note"), 0o600);
    xattr(&tree.join("sub/deeper/x"), "user.new", b"1");
    fs::remove_file(tree.join("link")).expect("removed");
    symlink("elsewhere", tree.join("link")).expect("symlink");
    mtime(&tree, top.mtime(), top.mtime_nsec());
    create(&b, dir, &["t"]);

    let diff = |a: &Path, b: &Path| archive("diff").arg(a).arg(b);
    let text = diff(&a, &b).ok().text();
    let lines: BTreeSet<&str> = text.lines().collect();
    let want = ["A t/new", "D t/tool", "M t/link", "M t/small", "m t/sub/note", "m t/sub/deeper/x"];
    assert_eq!(lines, BTreeSet::from(want));
    diff(&a, &b).arg("--exit-code").run().exits(1);
    let text = diff(&b, &a).ok().text();
    assert!(text.contains("D t/new") && text.contains("A t/tool"), "{text}");
    let same = diff(&a, &a).arg("--exit-code").ok();
    assert_eq!(same.text(), "");
    let json = diff(&a, &b).arg("--json").ok();
    assert_eq!(
        python(&json, "sorted(set(e['change'] for e in d['differences']))"),
        "['added', 'attributes', 'content', 'removed']"
    );

    // Sealed under keys of their own, archives compare by content.
    let sealed = dir.join("sealed.warp");
    let make = archive("create").arg("--encrypt").arg(&sealed).arg("-C").arg(dir).arg("t");
    make.env("WARP_PASSPHRASE", "secret").ok();
    let same = diff(&b, &sealed).arg("--exit-code").env("WARP_PASSPHRASE", "secret").ok();
    assert_eq!(same.text(), "");
}

#[test]
fn verify_says_what_it_checked() {
    let dir = scratch();
    let dir = dir.path();
    let tree = small_tree(dir);
    for n in 0..40 {
        write(&tree.join(format!("noise {n}")), &noise(700_000, n));
    }
    let file = dir.join("t.warp");
    create(&file, dir, &["t"]);
    let verify = || archive("verify").arg(&file);
    let all = verify().ok().text();
    assert!(all.contains(": ok: every byte read"), "{all}");
    let some = verify().args(["--sample", "5%"]).ok().text();
    assert!(!some.contains("every byte read") && some.contains("the others not read"), "{some}");
    let counts = verify().args(["--json", "--sample", "5%"]).ok();
    assert_eq!(python(&counts, "0 < d['data_chunks_read'] < d['data_chunks'] / 2"), "True");
    let proof = verify().args(["--proof", "t/noise 7"]).ok().text();
    assert!(proof.starts_with("root ") && proof.contains("content "), "{proof}");
    assert!(proof.lines().last().is_some_and(|line| line.starts_with("ok: t/noise 7")), "{proof}");
    verify().args(["--proof", "t/no such file"]).run().exits(4);
}

#[test]
fn a_dry_run_writes_nothing() {
    let dir = scratch();
    let dir = dir.path();
    small_tree(dir);
    let before = list(dir);
    let said = archive("create").arg("-n").arg(dir.join("t.warp")).arg("-C").arg(dir).arg("t").ok();
    assert_eq!(list(dir), before);
    assert!(said.stderr.contains("9 names"), "{}", said.stderr);
}

#[test]
fn an_interrupted_create_leaves_nothing_behind() {
    let dir = scratch();
    let tree = mkdir(&dir.path().join("t"));
    for n in 0..24 {
        write(&tree.join(format!("text {n}")), &text(8 << 20, n));
    }
    for (signal, code) in [("-INT", 130), ("-TERM", 143)] {
        let out = mkdir(&dir.path().join("out"));
        let mut making = archive("create").args(["--level", "19"]).arg(out.join("t.warp"));
        making.command().arg("-C").arg(dir.path()).arg("t");
        let mut child = making.command().stderr(Stdio::piped()).spawn().expect("started");
        // Until it is at work: the file has its first bytes.
        let until = Instant::now() + Duration::from_secs(20);
        let at_work = || {
            let list = fs::read_dir(&out).expect("a directory").flatten();
            list.map(|e| e.metadata().map_or(0, |m| m.len())).sum::<u64>() > 0
        };
        while !at_work() {
            assert!(Instant::now() < until, "nothing was written");
            assert!(child.try_wait().expect("a child").is_none(), "it was too quick");
            std::thread::sleep(Duration::from_millis(5));
        }
        must("kill", [signal, &child.id().to_string()]);
        let asked = Instant::now();
        let ended = child.wait_with_output().expect("a child");
        let took = asked.elapsed();
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!(ended.status.code(), Some(code), "{said}");
        assert!(said.starts_with("error: interrupted"), "{said}");
        assert!(took < Duration::from_secs(10), "{took:?}");
        assert_eq!(list(&out), [""; 0], "{signal}");
    }
}

/// `warp` run by a user without rights, from a place that the user can reach.
fn as_nobody<A: AsRef<OsStr>>(dir: &Path, args: impl IntoIterator<Item = A>) -> Output {
    let warp = dir.join("warp-for-everyone");
    if !warp.exists() {
        fs::copy(Warp::binary(), &warp).expect("copied");
        mode(&warp, 0o755);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
    command.arg(&warp).args(args).current_dir(dir).env_remove("WARP_PASSPHRASE");
    run::run(command, Duration::from_secs(60))
}

#[test]
fn an_ordinary_user_extracts_files_as_her_own() {
    let dir = scratch();
    let dir = dir.path();
    let tree = small_tree(dir);
    let file = dir.join("t.warp");
    create(&file, dir, &["t"]);
    mode(&file, 0o644);
    let out = mkdir(&dir.join("out"));
    own(&out, 65534, 65534);
    let done = as_nobody(dir, ["archive", "extract", "-C", "out", "t.warp"]).exits(0);
    assert!(!done.stderr.contains("warning"), "{}", done.stderr);
    assert_eq!(sums(&tree), sums(&out.join("t")));
    let meta = fs::metadata(out.join("t/small")).expect("there");
    assert_eq!(
        (meta.uid(), meta.gid(), meta.mtime(), meta.mtime_nsec()),
        (65534, 65534, 951_782_400, 5)
    );
    // A set-id bit would now stand for another owner than the one that set it.
    assert_eq!(fs::metadata(out.join("t/tool")).expect("there").mode() & 0o7777, 0o755);
}

#[test]
fn what_a_user_may_not_read_is_named_and_the_rest_archived() {
    let dir = scratch();
    let dir = dir.path();
    let tree = small_tree(dir);
    write(&tree.join("private"), b"not for you");
    mode(&tree.join("private"), 0o600);
    write(&mkdir(&tree.join("closed")).join("inside"), b"not for you either");
    mode(&tree.join("closed"), 0o700);
    let out = mkdir(&dir.join("out"));
    own(&out, 65534, 65534);
    let made = as_nobody(dir, ["archive", "create", "out/t.warp", "t"]).exits(3);
    let warnings: Vec<&str> = made.stderr.lines().filter(|l| l.starts_with("warning:")).collect();
    assert_eq!(warnings.len(), 2, "{}", made.stderr);
    assert!(warnings.iter().any(|line| line.contains("t/private")), "{}", made.stderr);
    assert!(warnings.iter().any(|line| line.contains("t/closed")), "{}", made.stderr);
    verify(&out.join("t.warp"));
    let back = dir.join("back");
    extract(&out.join("t.warp"), &back);
    assert!(!back.join("t/private").exists() && !back.join("t/closed/inside").exists());
    for name in ["big", "small", "tool", "sub/note", "sub/deeper/x"] {
        same_bytes(&tree.join(name), &back.join("t").join(name));
    }
}
