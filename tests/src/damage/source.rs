//! The tree that the damaged archives are made of: small, but with everything
//! that an archive keeps apart.

use super::Rng;
use rustix::fs::{self, AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Names in the directory that fills several leaves.
const NAMES: usize = 130;

struct Source {
    root: PathBuf,
    rng: Rng,
    /// Everything made, in order; times are set at the end, deepest first.
    made: Vec<PathBuf>,
}

/// Makes the tree. Each inode has a time of its own, by which a file is known
/// again after it has lost its name.
pub(super) fn build(root: &Path) {
    let mut source = Source { root: root.into(), rng: Rng::new(0x7761_7270, 0), made: vec![] };
    source.dir("", 0o755);
    source.names();
    source.large();
    source.special();
    source.apart();
    source.times();
}

impl Source {
    fn at(&mut self, path: &str) -> PathBuf {
        let path = if path.is_empty() { self.root.clone() } else { self.root.join(path) };
        self.made.push(path.clone());
        path
    }

    fn dir(&mut self, path: &str, mode: u32) {
        let path = self.at(path);
        std::fs::create_dir(&path).expect("a new directory");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).expect("chmod");
    }

    fn file(&mut self, path: &str, bytes: &[u8], mode: u32) {
        let path = self.at(path);
        std::fs::write(&path, bytes).expect("a new file");
        if rustix::process::geteuid().is_root() && bytes.len().is_multiple_of(3) {
            std::os::unix::fs::chown(&path, Some(12_345), Some(23_456)).expect("chown");
        }
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).expect("chmod");
    }

    fn xattr(&mut self, path: &str, name: &str, len: usize) {
        let value = self.rng.bytes(len);
        let path = self.root.join(path);
        // A filesystem without attributes makes a tree without them.
        let _ = fs::lsetxattr(&path, name, &value, XattrFlags::empty());
    }

    /// Bytes that pack to about a third.
    fn text(&mut self, len: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(len + 16);
        while out.len() < len {
            let word = format!("{} lines of number {}\n", self.rng.below(9), self.rng.below(9999));
            out.extend_from_slice(word.as_bytes());
        }
        out.truncate(len);
        out
    }

    /// Many long names: several leaves; inline contents, groups and doubles.
    fn names(&mut self) {
        self.dir("names", 0o750);
        for i in 0..NAMES {
            let tail = "abcdefghijklmnopqrstuvwxyz ".repeat(4);
            let name = format!("names/{i:03} {}", &tail[..40 + self.rng.below(60)]);
            let len = match i % 6 {
                0 => 0,
                1 => 600 + self.rng.below(4000),
                2 => 700,
                _ => 1 + self.rng.below(500),
            };
            // Every third of equal length has equal bytes.
            let bytes = if len == 700 { vec![b'='; len] } else { self.rng.bytes(len) };
            self.file(&name, &bytes, [0o644, 0o600, 0o4755, 0o440][i % 4]);
            if i % 5 == 0 {
                self.xattr(&name, "user.one", 20 + i);
                self.xattr(&name, "user.two of them", 150);
            }
        }
    }

    fn large(&mut self) {
        self.dir("large", 0o755);
        for (name, len) in [("300k", 300 << 10), ("420k", 420_001), ("700k", 700 << 10)] {
            let bytes = self.rng.bytes(len);
            self.file(&format!("large/{name}"), &bytes, 0o644);
        }
        let text = self.text(2 << 20);
        self.file("large/text", &text, 0o640);
        self.file("large/the same text", &text, 0o600);
        self.xattr("large/text", "user.kind", 900);
        for (name, parts, len) in [
            ("holes", [0usize, 500_000], 1_300_000u64),
            ("hole first", [400_000, 900_000], 990_000),
        ] {
            let path = self.at(&format!("large/{name}"));
            let file = std::fs::File::create(&path).expect("a new file");
            for at in parts {
                let bytes = self.rng.bytes(70_000);
                std::os::unix::fs::FileExt::write_all_at(&file, &bytes, at as u64).expect("write");
            }
            file.set_len(len).expect("truncate");
        }
        self.file("large/one byte", b"1", 0o644);
        let path = self.at("large/only a hole");
        std::fs::File::create(path).and_then(|f| f.set_len(3 << 20)).expect("a hole");
    }

    /// Files whose records fill leaves that have data between them, and end
    /// within a file.
    fn apart(&mut self) {
        self.dir("the last", 0o755);
        for i in 0..36 {
            let name = format!("the last/{i:02} of those whose data lies between leaves");
            // Records wait for an open group of small files, so groups must
            // fill up here.
            let len = [60_000, i, 67_000, 100 + i][i % 4];
            let bytes = self.rng.bytes(len);
            self.file(&name, &bytes, 0o644);
            for n in 0..8 {
                self.xattr(&name, &format!("user.number {n}"), 120 + n);
            }
        }
    }

    fn special(&mut self) {
        let mut path = String::from("deep");
        self.dir(&path, 0o755);
        for name in ["a", "b b", "ç", "d", "e", "f"] {
            path = format!("{path}/{name}");
            self.dir(&path, 0o711);
            let bytes = self.rng.bytes(300 + path.len() * 40);
            self.file(&format!("{path}/file in {name}"), &bytes, 0o644);
        }
        self.xattr("deep/a", "user.dir", 60);
        for name in ["empty", "empty/empty too", "deep/a/b b/empty"] {
            self.dir(name, 0o700);
        }
        for (old, new) in [
            ("large/300k", "deep/a/hard 300k"),
            ("large/300k", "empty/hard 300k"),
            ("large/one byte", "deep/hard one byte"),
        ] {
            let (old, new) = (self.root.join(old), self.at(new));
            std::fs::hard_link(old, new).expect("a link");
        }
        for (target, name) in [
            ("../large/text", "deep/link"),
            ("nowhere", "dangling"),
            ("/etc/hostname", "absolute"),
            ("deep", "link to a directory"),
        ] {
            let path = self.at(name);
            std::os::unix::fs::symlink(target, path).expect("a symbolic link");
        }
        let path = self.at("pipe");
        fs::mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o640), 0).expect("a pipe");
    }

    fn times(&mut self) {
        for (n, path) in self.made.iter().enumerate().rev() {
            let n = n as i64;
            let time = Timespec { tv_sec: 1_400_000_000 + n * 1000, tv_nsec: 1 + n * 1001 };
            let times = Timestamps { last_access: time, last_modification: time };
            fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).expect("utimensat");
        }
    }
}
