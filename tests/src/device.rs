//! A device with portals: a `WARP_HOME` of its own, the daemon that serves it,
//! and its mounts. Everything goes away with it, however a test ends.

use crate::lan::Lan;
use crate::nasty::{mkdir, scratch, write};
use crate::{Output, Warp, must, run};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The daemon must have ended this long after the last mount is gone.
pub const GONE_WITHIN: Duration = Duration::from_secs(5);
/// A portal must be usable this long after `warp mount` was typed, also after
/// a crash.
pub const USABLE_WITHIN: Duration = Duration::from_secs(1);

/// A directory with a `WARP_HOME` (`h`) and whatever a test puts beside it.
pub struct Device {
    dir: TempDir,
    home: PathBuf,
    /// The machine that it is, if it is not this one.
    machine: Option<(Arc<Lan>, u8)>,
}

impl Device {
    /// With an empty home: no key.
    pub fn without_key() -> Self {
        Self::with_home_at("h")
    }

    /// The same with its home at another path below the directory.
    pub fn with_home_at(name: &str) -> Self {
        let dir = scratch();
        let home = dir.path().join(name);
        Self { dir, home, machine: None }
    }

    /// With a key, on a machine of a network.
    #[track_caller]
    pub fn on(lan: &Arc<Lan>, machine: u8) -> Self {
        let mut device = Self::without_key();
        device.machine = Some((Arc::clone(lan), machine));
        device.make_key();
        mkdir(&device.path("m"));
        device
    }

    /// With a key that no passphrase protects; the phrase is in `phrase`.
    #[track_caller]
    pub fn new() -> Self {
        let device = Self::without_key();
        device.make_key();
        device
    }

    /// With a portal `p`, and an empty directory `m` to mount it on.
    #[track_caller]
    pub fn with_portal() -> Self {
        let device = Self::new();
        device.create("p");
        mkdir(&device.path("m"));
        device
    }

    /// [`Self::with_portal`], mounted.
    #[track_caller]
    pub fn mounted() -> Self {
        let device = Self::with_portal();
        device.mount();
        device
    }

    /// Makes the key.
    #[track_caller]
    pub fn make_key(&self) {
        let phrase = self.path("phrase");
        self.warp(["key", "init", "--phrase-file"]).word(phrase).ok();
    }

    /// Makes a portal.
    #[track_caller]
    pub fn create(&self, portal: &str) -> Output {
        self.warp(["portal", "create", portal]).ok()
    }

    /// A path beside the home.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The `WARP_HOME`.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// The mountpoint `m`.
    pub fn m(&self) -> PathBuf {
        self.path("m")
    }

    /// A path below the mountpoint `m`.
    pub fn at(&self, name: impl AsRef<Path>) -> PathBuf {
        self.m().join(name)
    }

    /// `warp ARGS…` of this device, started beside the home; on this machine,
    /// with its network bound to the loopback.
    pub fn warp<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Warp {
        let warp = match &self.machine {
            Some((lan, machine)) => Warp::on((lan, *machine), args),
            None => Warp::new(args).env("WARP_LISTEN", "127.0.0.1:0").env("WARP_MDNS", "off"),
        };
        let mut warp = warp.env("WARP_HOME", &self.home).within(Duration::from_secs(60));
        warp.command().current_dir(self.dir.path());
        warp
    }

    /// Runs a command line as a person types it, in words split at blanks.
    pub fn types(&self, line: &str) -> Output {
        self.warp(line.split_whitespace()).run()
    }

    /// Mounts `p` on `m`; it must be usable.
    #[track_caller]
    pub fn mount(&self) -> Output {
        self.mount_at("p", "m")
    }

    /// Mounts a portal on a directory beside the home; it must be usable.
    #[track_caller]
    pub fn mount_at(&self, portal: &str, directory: &str) -> Output {
        let output = self.warp(["mount", portal, directory]).ok();
        assert!(self.is_mounted(directory), "the command returned, and nothing is mounted");
        fs::read_dir(self.path(directory)).expect("the mount is usable");
        output
    }

    /// Unmounts `m`, which was the last mount: nothing is left.
    #[track_caller]
    pub fn umount(&self) -> Output {
        let output = self.warp(["umount", "m"]).ok();
        assert_eq!(self.table_line("m"), None, "still mounted");
        // The command returns when the daemon has gone, not a moment before.
        assert_eq!(self.daemons(), [0; 0], "still running");
        assert_eq!(fs::read_dir(self.m()).expect("a directory").count(), 0);
        output
    }

    /// Unmounts `m` and mounts it again.
    #[track_caller]
    pub fn remount(&self) {
        self.umount();
        self.mount();
    }

    /// Publishes what is written.
    #[track_caller]
    pub fn sync(&self) -> Output {
        self.warp(["sync", "m"]).ok()
    }

    /// The line of the mount table about a directory beside the home.
    pub fn table_line(&self, directory: &str) -> Option<String> {
        mount_table().into_iter().find(|(at, _)| *at == self.path(directory)).map(|found| found.1)
    }

    /// Whether something is mounted on a directory beside the home.
    pub fn is_mounted(&self, directory: &str) -> bool {
        self.table_line(directory).is_some()
    }

    /// The daemons of this home: one, or none.
    pub fn daemons(&self) -> Vec<u32> {
        let mut setting = OsString::from("WARP_HOME=");
        setting.push(&self.home);
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").expect("/proc").flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse() else { continue };
            let words = |file| fs::read(entry.path().join(file)).unwrap_or_default();
            let (line, environment) = (words("cmdline"), words("environ"));
            let has = |bytes: &[u8], word: &[u8]| bytes.split(|b| *b == 0).any(|w| w == word);
            let names_home = has(&environment, setting.as_bytes())
                || has(&line, self.home.as_os_str().as_bytes());
            if names_home && has(&line, b"daemon") {
                found.push(pid);
            }
        }
        found
    }

    /// The daemon's process.
    #[track_caller]
    pub fn daemon(&self) -> u32 {
        let daemons = self.daemons();
        assert_eq!(daemons.len(), 1, "one daemon serves a home: {daemons:?}");
        daemons[0]
    }

    /// Kills the daemon with SIGKILL and does not wait.
    #[track_caller]
    pub fn kill(&self) {
        must("kill", ["-9", &self.daemon().to_string()]);
    }

    /// Kills the daemon, and waits until it is gone.
    #[track_caller]
    pub fn crash(&self) {
        self.kill();
        self.until_gone();
    }

    /// Waits for the daemon to end by itself.
    #[track_caller]
    pub fn until_gone(&self) {
        let until = Instant::now() + GONE_WITHIN;
        while !self.daemons().is_empty() {
            assert!(Instant::now() < until, "still running: {:?}", self.daemons());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Whatever the daemon has logged.
    pub fn log(&self) -> String {
        let log = fs::read(self.home.join("log/edge.log")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// What `expression` gives in Python, where `d` is the JSON document that
    /// a command has printed.
    #[track_caller]
    pub fn json(&self, output: &Output, expression: &str) -> String {
        let script =
            format!("import json, sys\nd = json.load(open(sys.argv[1]))\nprint({expression})");
        let file = self.path("json");
        write(&file, &output.stdout);
        must("python3", [OsStr::new("-c"), script.as_ref(), file.as_os_str()]).trim_end().into()
    }
}

impl Default for Device {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(30).collect();
            eprintln!("the daemon's log ends with:");
            tail.iter().rev().for_each(|line| eprintln!("  {line}"));
        }
        for pid in self.daemons() {
            let _ = Command::new("kill").args(["-9", &pid.to_string()]).status();
        }
        // The last mounted first: one may lie on another.
        for (at, _) in mount_table().iter().rev() {
            if at.starts_with(self.dir.path()) {
                let _ = Command::new("umount").arg("-l").arg(at).status();
            }
        }
    }
}

/// Mountpoints and their lines in the mount table.
fn mount_table() -> Vec<(PathBuf, String)> {
    let table = fs::read_to_string("/proc/self/mountinfo").expect("the mount table");
    let row = |line: &str| Some((line.split(' ').nth(4)?.into(), line.to_owned()));
    table.lines().filter_map(row).collect()
}

/// It failed with `code`; standard error is one line with the cause, which
/// holds `cause`, and one that says what to do, which holds `hint`.
#[track_caller]
pub fn fails(output: Output, code: i32, cause: &str, hint: &str) {
    let output = output.exits(code);
    let lines: Vec<&str> = output.stderr.lines().collect();
    let [first, second] = lines[..] else {
        panic!("{}: a cause and a hint, not:\n{}", output.what, output.stderr)
    };
    assert!(first.starts_with("error: ") && first.contains(cause), "{}: {first}", output.what);
    assert!(second.starts_with("hint: ") && second.contains(hint), "{}: {second}", output.what);
    assert!(second.len() > 10, "{}: {second}", output.what);
    assert!(!output.stderr.chars().any(|c| c.is_control() && c != '\n'), "{:?}", output.stderr);
    assert_eq!(output.text(), "", "{}: nothing on standard output", output.what);
}

/// [`Warp`], with a command line that grows.
pub trait Words {
    /// One more argument.
    #[must_use]
    fn word(self, word: impl AsRef<OsStr>) -> Self;
}

impl Words for Warp {
    fn word(mut self, word: impl AsRef<OsStr>) -> Self {
        self.command().arg(word);
        self
    }
}

/// Runs a bash script in a directory, with a minute's time.
pub fn bash(directory: &Path, script: &str) -> Output {
    let mut command = Command::new("bash");
    command.arg("-c").arg(format!("set -eu\n{script}")).current_dir(directory);
    run::run(command, Duration::from_secs(60))
}

/// Runs a Python script in a directory, with a minute's time.
pub fn python(directory: &Path, script: &str, args: &[&str]) -> Output {
    let mut command = Command::new("python3");
    command.arg("-c").arg(script).args(args).current_dir(directory);
    run::run(command, Duration::from_secs(60))
}

/// A process that a test started and that ends with it.
pub struct Running(pub Child);

impl Running {
    /// Starts it.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).spawn().unwrap_or_else(|e| panic!("{command:?}: {e}")))
    }

    /// Its exit code, which must come within this time.
    ///
    /// # Panics
    /// If it does not.
    #[track_caller]
    pub fn ends(&mut self, within: Duration) -> Option<i32> {
        let until = Instant::now() + within;
        loop {
            if let Some(status) = self.0.try_wait().expect("a child") {
                return status.code();
            }
            assert!(Instant::now() < until, "still running after {within:?}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
