//! Nothing readable on the disk: a file under `WARP_HOME` shows neither what
//! is in a portal nor, the keyring apart, what it is sealed with.

use rustix::fs::XattrFlags;
use std::collections::{BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};
use warp_format::keys::{RecoveryPhrase, SigningKey};
use warp_format::{Keyring, Secret};
use warp_tests::device::{Device, Words};
use warp_tests::nasty::{mkdir, noise, same_tree, text, write};
use warp_tests::{Warp, must};

/// Bytes of a marker.
const MARKER_LEN: usize = 64;
/// Bytes of the largest file.
const LARGE: usize = 5 << 20;
/// As few bytes of a marker as this are found, too.
const PIECE_LEN: usize = 16;

/// Of a marker that is written as text, its bytes are looked for, too.
const AS_BYTES: &str = "as bytes";

/// Random bytes in many places of a tree, each by the name of its place.
#[derive(Default)]
struct Markers {
    all: Vec<(String, Vec<u8>)>,
}

impl Markers {
    /// Fresh random bytes; none of them is in `without`.
    fn make(&mut self, place: &str, without: &[u8]) -> Vec<u8> {
        let mut random = File::open("/dev/urandom").expect("random bytes");
        let mut bytes = Vec::new();
        while bytes.len() < MARKER_LEN {
            let mut byte = [0];
            std::io::Read::read_exact(&mut random, &mut byte).expect("random bytes");
            bytes.extend(byte.iter().filter(|byte| !without.contains(byte)));
        }
        self.all.push((format!("{place} (marker {})", self.all.len()), bytes.clone()));
        bytes
    }

    /// The same as text: also found written out in bytes.
    fn make_text(&mut self, place: &str) -> String {
        let bytes = self.make(&format!("{place}, {AS_BYTES}"), b"");
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let place = format!("{place}, as text (marker {})", self.all.len());
        self.all.push((place, hex.clone().into_bytes()));
        hex
    }

    /// A name that is a marker.
    fn name(&mut self, place: &str) -> OsString {
        OsString::from_vec(self.make(place, b"/\0"))
    }

    /// What to look for.
    fn pieces(&self) -> Pieces {
        let mut pieces = Pieces::default();
        self.all.iter().for_each(|(place, bytes)| pieces.add(place, bytes));
        pieces
    }
}

/// What is looked for: any [`PIECE_LEN`] bytes of something.
struct Pieces {
    /// By the first two bytes of a piece: whether there is one.
    starts: Vec<bool>,
    /// Pieces and what they are of.
    places: HashMap<Vec<u8>, String>,
}

impl Default for Pieces {
    fn default() -> Self {
        Self { starts: vec![false; 1 << 16], places: HashMap::new() }
    }
}

impl Pieces {
    fn start(piece: &[u8]) -> usize {
        usize::from(piece[0]) << 8 | usize::from(piece[1])
    }

    fn add(&mut self, place: &str, bytes: &[u8]) {
        for piece in bytes.windows(PIECE_LEN) {
            self.starts[Self::start(piece)] = true;
            self.places.insert(piece.to_vec(), place.into());
        }
    }

    /// What these bytes show.
    fn find(&self, bytes: &[u8]) -> BTreeSet<String> {
        let place = |window: &[u8]| match self.starts[Self::start(window)] {
            true => self.places.get(window).cloned(),
            false => None,
        };
        bytes.windows(PIECE_LEN).filter_map(place).collect()
    }
}

/// All that lies below a directory, itself included.
fn everything(dir: &Path) -> Vec<PathBuf> {
    let mut found = vec![dir.to_path_buf()];
    let mut next = 0;
    while let Some(path) = found.get(next).cloned() {
        next += 1;
        if fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_dir()) {
            let entries = fs::read_dir(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            found.extend(entries.map(|entry| entry.expect("an entry").path()));
        }
    }
    found
}

/// What the files under the home show, and their names, and how many bytes
/// were looked at. `except` is not looked into.
fn scan(device: &Device, pieces: &Pieces, except: &[&str]) -> (Vec<String>, u64) {
    let (mut shown, mut looked_at) = (Vec::new(), 0);
    let except: Vec<_> = except.iter().map(|name| device.home().join(name)).collect();
    for path in everything(device.home()) {
        let name = path.as_os_str().as_encoded_bytes();
        let content = match fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_file() && !except.contains(&path) => fs::read(&path),
            Ok(meta) if meta.is_symlink() => {
                fs::read_link(&path).map(|target| target.into_os_string().into_vec())
            }
            // A socket; or a file of the daemon's that is gone by now.
            _ => Ok(Vec::new()),
        };
        let content = content.unwrap_or_default();
        looked_at += content.len() as u64;
        for bytes in [name, &content] {
            shown.extend(pieces.find(bytes).iter().map(|p| format!("{}: {p}", path.display())));
        }
    }
    (shown, looked_at)
}

/// Fails if any of it can be read; says how many bytes were looked at.
#[track_caller]
fn shows_nothing(device: &Device, pieces: &Pieces, when: &str) -> u64 {
    let (shown, looked_at) = scan(device, pieces, &[]);
    assert!(shown.is_empty(), "{when}, this can be read:\n{}", shown.join("\n"));
    looked_at
}

/// Fails unless only the owner can read what is under the home.
#[track_caller]
fn is_private(device: &Device, when: &str) {
    for path in everything(device.home()) {
        // The daemon may have taken it away since.
        let Ok(meta) = fs::symlink_metadata(&path) else { continue };
        let kind = meta.file_type();
        assert!(kind.is_dir() || kind.is_file() || kind.is_socket(), "{when}: {}", path.display());
        let want = if kind.is_dir() { 0o700 } else { 0o600 };
        let mode = meta.mode() & 0o7777;
        assert_eq!(mode, want, "{when}: {} has mode {mode:o}", path.display());
    }
}

/// Fails if the daemon has a file open that is not under the home: nothing is
/// spooled where nobody looks.
#[track_caller]
fn keeps_files_at_home(device: &Device) {
    let table = format!("/proc/{}/fd", device.daemon());
    for entry in fs::read_dir(table).expect("a process").flatten() {
        let Ok(target) = fs::read_link(entry.path()) else { continue };
        let is_file = fs::metadata(entry.path()).is_ok_and(|meta| meta.is_file());
        let on_disk = is_file && !target.starts_with("/memfd:");
        assert!(!on_disk || target.starts_with(device.home()), "{} is open", target.display());
    }
}

/// Fills a directory with markers in all places that a tree has.
fn fill(dir: &Path, markers: &mut Markers) {
    contents(&mkdir(&dir.join("contents")), markers);
    let names = mkdir(&dir.join("names"));
    write(&names.join(markers.name("name")), b"x");
    write(&names.join(markers.make_text("name")), b"x");
    let below = mkdir(&names.join(markers.name("name of a directory")));
    write(&below.join("x"), b"x");
    fs::hard_link(names.join(below.join("x")), names.join(markers.name("second name")))
        .expect("hard link");
    let target = OsString::from_vec(markers.make("target", b"\0"));
    symlink(target, dir.join("link")).expect("symlink");
    symlink(markers.make_text("target"), dir.join("link too")).expect("symlink");
    let long = [vec![b'/'; 1000], markers.make("long target", b"\0"), vec![b'/'; 1000]].concat();
    symlink(OsString::from_vec(long), dir.join("long link")).expect("symlink");
    attributes(&dir.join("file"), markers);
    attributes(&mkdir(&dir.join("dir")), markers);
}

fn contents(dir: &Path, markers: &mut Markers) {
    // In the tree itself, in a shared chunk, in a chunk, in many.
    for len in [64, 300, 2_000, 60_000, 500_000, LARGE] {
        let mut content = noise(len, len as u64);
        let step = (len / 4).max(MARKER_LEN);
        for at in (0..=len - MARKER_LEN).step_by(step) {
            let marker = markers.make(&format!("content at {at} of {len}"), b"");
            content[at..at + MARKER_LEN].copy_from_slice(&marker);
        }
        write(&dir.join(format!("random {len}")), &content);
    }
    // What surrounds it compresses.
    let mut content = text(200_000, 1);
    content.splice(100_000..100_000, markers.make("content within text", b""));
    write(&dir.join("text"), &content);
    let open = |name| OpenOptions::new().append(true).create(true).open(dir.join(name));
    for _ in 0..3 {
        let mut file = open("appended").expect("opens");
        file.write_all(&markers.make("appended content", b"")).expect("appended");
    }
    let sparse = File::create(dir.join("sparse")).expect("created");
    sparse.write_all_at(&markers.make("content after a hole", b""), 16 << 20).expect("written");
}

/// What is not there in the end was on the way, and is as secret.
fn fleeting(dir: &Path, markers: &mut Markers) {
    let dir = mkdir(&dir.join("fleeting"));
    let file = File::create(dir.join("overwritten")).expect("created");
    for _ in 0..3 {
        file.write_all_at(&markers.make("overwritten content", b""), 10_000).expect("written");
        file.sync_all().expect("durable");
    }
    for (place, len) in [("removed content", 100), ("removed large content", 2 << 20)] {
        let path = dir.join(markers.name("removed name"));
        let file = File::create(&path).expect("created");
        file.write_all_at(&noise(len, 9), 0).expect("written");
        file.write_all_at(&markers.make(place, b""), 20).expect("written");
        file.sync_all().expect("durable");
        let renamed = dir.join(markers.name("name it had then"));
        fs::rename(&path, &renamed).expect("renamed");
        fs::remove_file(&renamed).expect("removed");
    }
    let name = format!("user.{}", markers.make_text("name of a removed attribute"));
    let path = dir.join("overwritten");
    let value = markers.make("value of a removed attribute", b"");
    rustix::fs::setxattr(&path, &name, &value, XattrFlags::empty()).expect("set");
    file.sync_all().expect("durable");
    rustix::fs::removexattr(&path, &name).expect("removed");
}

fn attributes(path: &Path, markers: &mut Markers) {
    if !path.exists() {
        write(path, b"x");
    }
    let kind = path.file_name().expect("a name").display().to_string();
    let set = |name: &[u8], value: &[u8]| {
        let name = [b"user.", name].concat();
        rustix::fs::setxattr(path, &name[..], value, XattrFlags::empty()).expect("set");
    };
    set(b"value", &markers.make(&format!("value of an attribute of a {kind}"), b""));
    let long = [noise(700, 3), markers.make("long value of an attribute", b"")].concat();
    set(b"long", &long);
    set(&markers.make(&format!("name of an attribute of a {kind}"), b"\0"), b"x");
    set(markers.make_text("name of an attribute").as_bytes(), b"x");
}

/// An open archive of the same tree, somewhere under the home, shows every
/// marker to the same scan.
#[track_caller]
fn an_open_archive_shows_all(device: &Device, tree: &Path, markers: &Markers) {
    let dir = mkdir(&device.home().join("portals/control/below"));
    Warp::new(["archive", "create", "--level", "0"]).word(dir.join("a")).word(tree).ok();
    let (shown, _) = scan(device, &markers.pieces(), &[]);
    let in_tree = |place: &str| !place.contains(AS_BYTES) && !place.contains("of the portal");
    for (place, _) in markers.all.iter().filter(|(place, _)| in_tree(place)) {
        let found = shown.iter().any(|line| line.ends_with(place));
        assert!(found, "the control does not find {place}:\n{}", shown.join("\n"));
    }
    fs::remove_dir_all(device.home().join("portals/control")).expect("removed");
}

/// A device with a mounted portal, filled with markers and scanned at every
/// stage of a portal's life.
fn walk(device: &Device, markers: &mut Markers, stage: impl Fn(&Pieces, &str) -> u64) {
    let tree = mkdir(&device.path("tree"));
    fill(&tree, markers);
    an_open_archive_shows_all(device, &tree, markers);
    must("cp", [OsStr::new("-aT"), tree.as_os_str(), device.at("tree").as_os_str()]);
    fleeting(&device.m(), markers);
    File::open(device.m()).and_then(|dir| dir.sync_all()).expect("durable");
    let pieces = markers.pieces();
    keeps_files_at_home(device);
    assert!(stage(&pieces, "after fsync") > LARGE as u64, "the content is nowhere");
    device.sync();
    assert!(stage(&pieces, "after sync") > LARGE as u64, "the content is nowhere");
    // Some more, not even fsynced, that only a crash leaves behind.
    let late = device.at(markers.name("late name"));
    write(&late, &markers.make("late content", b""));
    File::open(device.m()).and_then(|dir| dir.sync_all()).expect("durable");
    device.crash();
    stage(&markers.pieces(), "after a crash");
}

#[test]
fn no_file_of_a_mounted_portal_shows_what_is_in_it() {
    let device = Device::new();
    let mut markers = Markers::default();
    // Nobody is told what a portal is called, either.
    let name = markers.make_text("name of the portal");
    let name = &name[..64];
    device.create(name);
    mkdir(&device.m());
    device.mount_at(name, "m");
    let stage = |pieces: &Pieces, when: &str| {
        is_private(&device, when);
        shows_nothing(&device, pieces, when)
    };
    walk(&device, &mut markers, stage);
    let pieces = markers.pieces();
    device.mount_at(name, "m");
    stage(&pieces, "mounted again");
    same_tree(&device.path("tree"), &device.at("tree"));
    stage(&pieces, "read");
    device.umount();
    assert!(stage(&pieces, "after umount") > LARGE as u64, "the content is nowhere");
    device.mount_at(name, "m");
    // Errors of the kind that names files must not land in the log either.
    for (_, marker) in &markers.all {
        let name =
            OsString::from_vec(marker.iter().filter(|b| !b"/\0".contains(b)).copied().collect());
        let path = device.at("tree").join(name);
        fs::metadata(&path).expect_err("not there");
        device.warp(["sync"]).word(&path).run().exits(4);
    }
    device.umount();
    stage(&pieces, "after questions for what is not there");
    assert!(device.log().len() < 1 << 20, "the log is no dump");
}

/// The secrets of a device, and a phrase: the phrase's entropy, the device's
/// key, what the owner's keys are derived from.
fn secrets(keyring: &Keyring, phrase: &str) -> Pieces {
    let mut pieces = Pieces::default();
    let entropy = RecoveryPhrase::parse(phrase).and_then(|p| p.entropy()).expect("a phrase");
    pieces.add("the phrase's entropy", entropy.expose());
    pieces.add("the phrase", phrase.as_bytes());
    let open = keyring.encode();
    // The two secrets follow the head of 12 bytes: docs/format.md.
    assert_eq!(&open[12..44], entropy.expose());
    let device: [u8; 32] = open[44..76].try_into().expect("32 bytes");
    let id = SigningKey::from_seed(&Secret::new(device)).device_id();
    assert_eq!(id, keyring.device_key().device_id());
    pieces.add("the device's key", &device);
    let (_, storage) = keyring.phrase().expect("it has one").owner_keys();
    pieces.add("the owner's second key", storage.expose());
    pieces
}

#[test]
fn only_the_keyring_of_a_mounted_portal_holds_keys() {
    let device = Device::mounted();
    let read = |path: &Path| fs::read(path).expect("readable");
    let phrase = String::from_utf8(read(&device.path("phrase"))).expect("text");
    let bytes = read(&device.home().join("keyring"));
    let secrets = secrets(&Keyring::open(&bytes, None).expect("open"), phrase.trim());
    let stage = |when: &str| {
        let (shown, _) = scan(&device, &secrets, &["keyring"]);
        assert!(shown.is_empty(), "{when}:\n{}", shown.join("\n"));
        // The control: the same scan finds them in the keyring.
        let (shown, _) = scan(&device, &secrets, &[]);
        assert!(shown.len() >= 2, "{when}: {shown:?}");
        is_private(&device, when);
    };
    stage("mounted");
    write(&device.at("file"), &noise(1 << 20, 1));
    device.sync();
    stage("after sync");
    device.crash();
    stage("after a crash");
    device.mount();
    device.umount();
    stage("after umount");
}

#[test]
fn no_file_of_a_mounted_portal_holds_keys_under_a_passphrase() {
    const PASSPHRASE: &str = "correct horse battery staple";
    let device = Device::without_key();
    let passphrase = device.path("passphrase");
    write(&passphrase, format!("{PASSPHRASE}\n").as_bytes());
    let given = |args: &[&str]| device.warp(args).word("--passphrase-file").word(&passphrase);
    given(&["key", "init", "--phrase-file", "phrase"]).ok();
    given(&["portal", "create", "p"]).ok();
    mkdir(&device.m());
    let phrase = fs::read_to_string(device.path("phrase")).expect("text");
    let sealed = fs::read(device.home().join("keyring")).expect("readable");
    let keyring = Keyring::open(&sealed, Some(PASSPHRASE.as_bytes())).expect("opens");
    let mut secrets = secrets(&keyring, phrase.trim());
    secrets.add("the passphrase", PASSPHRASE.as_bytes());
    let stage = |when: &str| {
        shows_nothing(&device, &secrets, when);
        is_private(&device, when);
    };
    stage("with a portal");
    given(&["mount", "p", "m"]).ok();
    let content = noise(1 << 20, 1);
    write(&device.at("file"), &content);
    stage("mounted");
    device.sync();
    stage("after sync");
    // Who can list processes does not see it, either.
    for pid in device.daemons() {
        for file in ["cmdline", "environ"] {
            let bytes = fs::read(format!("/proc/{pid}/{file}")).expect("readable");
            assert!(secrets.find(&bytes).is_empty(), "{file}");
        }
    }
    device.crash();
    stage("after a crash");
    device.warp(["mount", "p", "m"]).env("WARP_PASSPHRASE", PASSPHRASE).ok();
    assert!(fs::read(device.at("file")).expect("there") == content);
    for pid in device.daemons() {
        let bytes = fs::read(format!("/proc/{pid}/environ")).expect("readable");
        assert!(secrets.find(&bytes).is_empty(), "the daemon's environment");
    }
    device.umount();
    stage("after umount");
    // And a key in a test's own control file is found.
    write(&device.home().join("control"), keyring.encode().as_slice());
    assert!(scan(&device, &secrets, &[]).0.len() >= 2, "the scan finds no keys");
}
