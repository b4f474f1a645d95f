//! `warp key`, and archives signed with its key.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use warp_tests::{Output, Warp};

struct Device {
    dir: TempDir,
}

impl Device {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn warp(&self, args: &[&str]) -> Warp {
        Warp::new(args).env("WARP_HOME", self.path("home"))
    }

    fn init(&self) -> Output {
        let phrase = self.path("phrase");
        self.warp(&["key", "init", "--phrase-file", phrase.to_str().unwrap()]).ok()
    }
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn line<'a>(text: &'a str, start: &str) -> &'a str {
    text.lines().find(|l| l.starts_with(start)).unwrap_or_else(|| panic!("no {start} in {text}"))
}

#[test]
fn a_key_is_made_private_with_a_phrase_of_24_words() {
    let device = Device::new();
    let made = device.init().text();
    let phrase = std::fs::read_to_string(device.path("phrase")).unwrap();
    assert_eq!(phrase.split_whitespace().count(), 24);
    assert_eq!(mode(&device.path("phrase")), 0o600);
    assert_eq!(mode(&device.path("home/keyring")), 0o600);
    let shown = device.warp(&["key", "show"]).ok().text();
    assert_eq!(line(&made, "owner "), line(&shown, "owner "));
    assert_eq!(line(&made, "device "), line(&shown, "device "));
    let exported = device.warp(&["key", "export", "--public"]).ok().text();
    assert!(line(&shown, "owner ").ends_with(exported.trim()));
}

#[test]
fn a_second_key_is_refused_and_the_first_kept() {
    let device = Device::new();
    device.init();
    let before = std::fs::read(device.path("home/keyring")).unwrap();
    let other = device.path("other");
    let args = ["key", "init", "--phrase-file", other.to_str().unwrap()];
    let refused = device.warp(&args).run().exits(2);
    assert!(refused.stderr.contains("hint:"), "{}", refused.stderr);
    assert_eq!(std::fs::read(device.path("home/keyring")).unwrap(), before);
    assert!(!other.exists());
}

#[test]
fn without_a_terminal_the_phrase_needs_a_file() {
    let device = Device::new();
    let refused = device.warp(&["key", "init"]).run().exits(2);
    assert!(refused.stderr.contains("--phrase-file"), "{}", refused.stderr);
    assert!(!device.path("home/keyring").exists());
    std::fs::write(device.path("taken"), "something else").unwrap();
    let taken = device.path("taken");
    device.warp(&["key", "init", "--phrase-file", taken.to_str().unwrap()]).run().exits(2);
    assert_eq!(std::fs::read_to_string(taken).unwrap(), "something else");
}

#[test]
fn the_phrase_brings_the_owner_back_with_another_device() {
    let device = Device::new();
    let first = device.init().text();
    let phrase = device.path("phrase");
    let new = Device::new();
    let file = phrase.to_str().unwrap();
    let dry = new.warp(&["key", "recover", "--dry-run", "--phrase-file", file]).ok().text();
    assert_eq!(line(&dry, "owner "), line(&first, "owner "));
    assert!(!new.path("home/keyring").exists());
    let second = new.warp(&["key", "recover", "--phrase-file", file]).ok().text();
    assert_eq!(line(&first, "owner "), line(&second, "owner "));
    assert_ne!(line(&first, "device "), line(&second, "device "));
    // The phrase comes out again as it went in.
    let words = new.warp(&["key", "export", "--phrase", "--stdin"]).ok().text();
    assert_eq!(words.trim(), std::fs::read_to_string(&phrase).unwrap().trim());
    new.warp(&["key", "export", "--phrase"]).run().exits(2);
}

#[test]
fn words_that_are_no_phrase_are_refused() {
    let device = Device::new();
    let wrong = device.path("wrong");
    std::fs::write(&wrong, "zoo ".repeat(24)).unwrap();
    let args = ["key", "recover", "--phrase-file", wrong.to_str().unwrap()];
    device.warp(&args).run().exits(7);
    device.warp(&["key", "recover", "--phrase-file", "/nonexistent/p"]).run().exits(4);
    assert!(!device.path("home/keyring").exists());
}

#[test]
fn a_sealed_keyring_opens_with_its_passphrase_only() {
    let device = Device::new();
    let (right, wrong) = (device.path("right"), device.path("wrong"));
    std::fs::write(&right, "correct horse\n").unwrap();
    std::fs::write(&wrong, "battery staple\n").unwrap();
    let (right, wrong) = (right.to_str().unwrap(), wrong.to_str().unwrap());
    let phrase = device.path("phrase");
    let phrase = phrase.to_str().unwrap();
    device.warp(&["key", "init", "--phrase-file", phrase, "--passphrase-file", right]).ok();
    device.warp(&["key", "show", "--passphrase-file", right]).ok();
    device.warp(&["key", "show"]).env("WARP_PASSPHRASE", "correct horse").ok();
    device.warp(&["key", "show", "--passphrase-file", wrong]).run().exits(7);
    device.warp(&["key", "show"]).run().exits(7);
}

#[test]
fn a_damaged_keyring_is_told_from_none() {
    let device = Device::new();
    device.warp(&["key", "show"]).run().exits(4);
    device.init();
    let path = device.path("home/keyring");
    let whole = std::fs::read(&path).unwrap();
    for at in [0, 9, 20, whole.len() / 2, whole.len() - 1] {
        let mut bad = whole.clone();
        bad[at] ^= 1;
        std::fs::write(&path, bad).unwrap();
        let told = device.warp(&["key", "show"]).run().exits(6);
        assert!(told.stderr.contains("keyring"), "{}", told.stderr);
    }
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    device.warp(&["key", "show"]).run().exits(6);
}

#[test]
fn a_signed_archive_names_its_signer_and_a_changed_one_is_refused() {
    let device = Device::new();
    let made = device.init().text();
    let id = line(&made, "device ").split_whitespace().nth(1).unwrap().to_owned();
    std::fs::write(device.path("file"), "content").unwrap();
    let archive = device.path("a.warp");
    let (dir, file) = (device.dir.path().to_str().unwrap(), archive.to_str().unwrap());
    device.warp(&["archive", "create", "--sign", file, "-C", dir, "file"]).ok();
    let verified = Warp::new(["archive", "verify", file]).ok().text();
    assert!(verified.contains(&id), "{verified}");
    let json = Warp::new(["archive", "verify", "--json", file]).ok().text();
    assert!(json.contains(&id), "{json}");
    let mut bytes = std::fs::read(&archive).unwrap();
    let signature_at = bytes.len() - 100;
    bytes[signature_at] ^= 1;
    std::fs::write(&archive, bytes).unwrap();
    Warp::new(["archive", "verify", file]).run().exits(6);
    // Without a key there is nothing to sign with.
    let other = Device::new();
    let target = other.path("b.warp");
    let target = target.to_str().unwrap();
    other.warp(&["archive", "create", "--sign", target, "-C", dir, "file"]).run().exits(4);
    assert!(!other.path("b.warp").exists());
}
