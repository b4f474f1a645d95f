//! Runs programs, with a limit on time: a hang is a failure, not a wait.

use crate::lan::Lan;
use std::ffi::OsStr;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// What a program said and how it ended.
#[derive(Debug)]
pub struct Output {
    /// Exit code; 128 + N for signal N.
    pub code: i32,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: String,
    /// Wall time.
    pub took: Duration,
    /// What was run, for messages.
    pub what: String,
}

impl Output {
    /// Standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Fails the test unless the exit code is this one.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(
            self.code,
            code,
            "{}\nstdout: {}\nstderr: {}",
            self.what,
            self.text(),
            self.stderr
        );
        assert!(!self.stderr.contains("panicked"), "{}: {}", self.what, self.stderr);
        self
    }
}

/// A `warp` command line.
pub struct Warp {
    command: Command,
    limit: Duration,
}

impl Warp {
    /// `warp ARGS…` with the binary that `WARP_BIN` names.
    ///
    /// # Panics
    /// If `WARP_BIN` is not set: `cargo xtask check` builds and sets it.
    pub fn new<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Self {
        Self::of(Command::new(Self::binary()), args)
    }

    /// The same on a machine of a network.
    pub fn on<A: AsRef<OsStr>>(
        (lan, machine): (&Lan, u8),
        args: impl IntoIterator<Item = A>,
    ) -> Self {
        let mut command = lan.on(machine, "env");
        command.arg("--").arg(Self::binary());
        Self::of(command, args)
    }

    fn of<A: AsRef<OsStr>>(mut command: Command, args: impl IntoIterator<Item = A>) -> Self {
        command.args(args).env_remove("WARP_PASSPHRASE");
        Self { command, limit: Duration::from_secs(120) }
    }

    /// Path of the binary under test.
    ///
    /// # Panics
    /// If `WARP_BIN` is not set.
    pub fn binary() -> PathBuf {
        std::env::var_os("WARP_BIN")
            .expect("WARP_BIN names the binary under test; `cargo xtask check` builds and sets it")
            .into()
    }

    /// Another time limit (default: two minutes).
    #[must_use]
    pub fn within(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// The command, to change it further.
    pub fn command(&mut self) -> &mut Command {
        &mut self.command
    }

    /// Runs it.
    pub fn run(self) -> Output {
        run(self.command, self.limit)
    }

    /// Runs it; it must succeed.
    #[track_caller]
    pub fn ok(self) -> Output {
        self.run().exits(0)
    }
}

/// Runs any program, which must succeed within two minutes; gives its
/// standard output.
#[track_caller]
pub fn must<A: AsRef<OsStr>>(program: &str, args: impl IntoIterator<Item = A>) -> String {
    let mut command = Command::new(program);
    command.args(args);
    run(command, Duration::from_secs(120)).exits(0).text()
}

/// Waits until something is so.
///
/// # Panics
/// If it is not when the limit is over.
#[track_caller]
pub fn soon(what: &str, limit: Duration, is_so: impl Fn() -> bool) {
    let until = Instant::now() + limit;
    while !is_so() {
        assert!(Instant::now() < until, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Runs a command; kills it and panics when the limit is over.
///
/// # Panics
/// If the program cannot be started or does not end in time.
pub fn run(mut command: Command, limit: Duration) -> Output {
    let what = format!("{command:?}");
    let started = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{what}: {e}"));
    let mut stdout = child.stdout.take().expect("piped");
    let mut stderr = child.stderr.take().expect("piped");
    let out = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        stdout.read_to_end(&mut bytes).map(|_| bytes).unwrap_or_default()
    });
    let err = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        stderr.read_to_end(&mut bytes).map(|_| bytes).unwrap_or_default()
    });
    let status = wait(&mut child, started + limit).unwrap_or_else(|| {
        let _ = child.kill();
        panic!("{what}: still running after {limit:?}")
    });
    let took = started.elapsed();
    let stdout = out.join().expect("the reader does not panic");
    let stderr =
        String::from_utf8_lossy(&err.join().expect("the reader does not panic")).into_owned();
    Output { code: code(status), stdout, stderr, took, what }
}

fn code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

fn wait(child: &mut Child, until: Instant) -> Option<ExitStatus> {
    let mut pause = Duration::from_micros(200);
    while Instant::now() < until {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    }
    None
}
