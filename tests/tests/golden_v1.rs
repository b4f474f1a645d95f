//! Files of format version 1, made once: they open for ever, and what is made
//! of the same content today is cut at the same places.
//!
//! `tests/data/v1/make` says what they are. Whoever has to change one of them
//! to make these tests pass has lost somebody's data.

use std::fs;
use std::path::{Path, PathBuf};
use warp_tests::device::{Device, fails};
use warp_tests::must;
use warp_tests::nasty::mkdir;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/v1").join(name)
}

fn lines(name: &str) -> Vec<String> {
    let path = golden(name);
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.lines().map(str::to_owned).collect()
}

/// The tree below a directory is this one, in all that is kept.
#[track_caller]
fn holds(dir: &Path, want: &[String]) {
    let script = golden("manifest.py");
    let found = must("python3", [script.as_os_str(), dir.as_os_str()]);
    let found: Vec<&str> = found.lines().collect();
    let differs = found.iter().zip(want).find(|(found, want)| **found != want.as_str());
    assert_eq!(differs, None, "{}", dir.display());
    assert_eq!(found.len(), want.len(), "{}", dir.display());
}

/// What is in an archive: all but the largest file, which only one has.
fn tree_of(archive: &str) -> Vec<String> {
    let mut all = lines("tree.tsv");
    all.retain(|line| archive == "plain" || !line.starts_with("cut/large\t"));
    all
}

const ARCHIVES: [&str; 5] = ["plain", "lz4", "solid", "signed", "sealed"];

fn typed(device: &Device, verb: &str, archive: &str, rest: &str) -> String {
    let (file, passphrase) = (golden(&format!("{archive}.warp")), golden("passphrase"));
    let sealed = format!("--passphrase-file {}", passphrase.display());
    let sealed = if archive == "sealed" { &sealed } else { "" };
    let line = format!("{verb} {sealed} {} {rest}", file.display());
    device.types(&line).exits(0).text()
}

#[test]
fn an_archive_of_version_1_is_extracted_and_verified() {
    let device = Device::without_key();
    for archive in ARCHIVES {
        typed(&device, "archive verify", archive, "");
        typed(&device, "archive extract", archive, &format!("-C {archive}"));
        holds(&device.path(archive), &tree_of(archive));
        typed(&device, "archive extract --salvage", archive, &format!("-C {archive}-salvaged"));
        holds(&device.path(format!("{archive}-salvaged")), &tree_of(archive));
    }
}

#[test]
fn an_archive_of_version_1_mounts() {
    let device = Device::without_key();
    mkdir(&device.m());
    for archive in ARCHIVES {
        typed(&device, "mount", archive, "m");
        holds(&device.m(), &tree_of(archive));
        device.umount();
    }
}

/// The hash of a root is made of the hashes of all contents, so that it tells
/// of every cut, whatever the compressor's version makes of it. A sealed
/// archive is cut under keys of its own.
#[test]
fn the_same_tree_is_cut_at_the_same_places_as_ever() {
    let device = Device::without_key();
    typed(&device, "archive extract", "plain", "-C tree");
    for line in lines("roots.tsv") {
        let (archive, root) = line.split_once('\t').expect("a name and a hash");
        let options = match archive {
            "plain" => "",
            "lz4" => "--level 0 -x large",
            "solid" => "--solid --level 19 -x large",
            // Their signature and their keys are not these.
            "signed" => "-x large",
            _ => continue,
        };
        device.types(&format!("archive create --force {options} a.warp -C tree .")).exits(0);
        let proof = device.types("archive verify --json --proof small/1 a.warp").exits(0);
        assert_eq!(device.json(&proof, "d['root_hash']"), root, "{archive}");
    }
}

/// A device whose home is the one of version 1.
fn device() -> Device {
    let device = Device::without_key();
    let home = golden("home.tar");
    must("tar", ["-C".as_ref(), device.path("").as_os_str(), "-xf".as_ref(), home.as_os_str()]);
    fs::rename(device.path("home"), device.home()).expect("a home");
    mkdir(&device.m());
    device
}

/// Packs with an index and without, heads, a dedup log, snapshots, and a
/// journal that a killed daemon left.
#[test]
fn a_portal_of_version_1_mounts_with_what_was_not_published() {
    let device = device();
    device.mount().exits(0);
    for _ in 0..2 {
        holds(&device.m(), &lines("portal.tsv"));
        for snapshot in ["first", "second"] {
            let then = device.at(".snapshots").join(snapshot);
            holds(&then, &lines(&format!("{snapshot}.tsv")));
        }
        device.remount();
    }
    device.umount();
    let listed = device.types("snapshot ls p --json").exits(0);
    let rows = "[[s['name'], s['tags'], s['sequence']] for s in d['snapshots']]";
    assert_eq!(device.json(&listed, rows), "[['first', ['golden'], 3], ['second', [], 4]]");
    let status = device.types("portal status p --json").exits(0);
    assert_eq!(device.json(&status, "d['quota_bytes']"), "1073741824");
}

#[test]
fn keys_of_version_1_are_those_that_they_were() {
    let device = device();
    let of = |name: &str, field: &str| {
        let script = "import json, sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])";
        let path = golden(name);
        must("python3", ["-c".as_ref(), script.as_ref(), path.as_os_str(), field.as_ref()])
            .trim()
            .to_owned()
    };
    let shown = device.types("key show --json").exits(0);
    assert_eq!(device.json(&shown, "d['owner']"), of("key.json", "owner"));
    assert_eq!(device.json(&shown, "d['device']"), of("key.json", "device"));
    let phrase = golden("phrase");
    let line = format!("key recover --dry-run --json --phrase-file {}", phrase.display());
    let recovered = device.types(&line).exits(0);
    assert_eq!(device.json(&recovered, "d['owner']"), of("key.json", "owner"));
    fs::copy(golden("sealed-keyring"), device.home().join("keyring")).expect("copied");
    let line = format!("key show --json --passphrase-file {}", golden("passphrase").display());
    let shown = device.types(&line).exits(0);
    assert_eq!(device.json(&shown, "d['owner']"), of("sealed.json", "owner"));
    assert_eq!(device.json(&shown, "d['device']"), of("sealed.json", "device"));
}

#[test]
fn another_version_is_refused_with_what_to_do() {
    let device = Device::without_key();
    let bytes = fs::read(golden("lz4.warp")).expect("an archive");
    for (version, cause, hint) in [(0, "too old", "build that made it"), (2, "newer", "newer warp")]
    {
        let mut changed = bytes.clone();
        changed[8] = version;
        fs::write(device.path("a.warp"), changed).expect("written");
        for line in ["archive verify a.warp", "archive extract -C out a.warp", "info a.warp"] {
            fails(device.types(line), 1, cause, hint);
        }
    }
    assert!(!device.path("out").exists());
}
