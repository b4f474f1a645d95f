//! Talking to the daemon, and starting it.
//!
//! Each connection begins with a greeting. A daemon that answers it counts
//! the client in and does not end by itself before the client is gone; one
//! that does not answer never saw what was asked, so that it can be asked
//! again, of the next daemon.

use crate::args::PassphraseArg;
use crate::daemon::lock::RunDir;
use crate::daemon::wire::{Line, WireFailure};
use crate::passphrase;
use crate::report::{Exit, Failure, Result};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::SendRequest;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use warp_flow::home::Home;
use warp_flow::{FlowError, Progress};

/// How long it is tried to reach a daemon.
const REACH_WITHIN: Duration = Duration::from_secs(10);
/// How long a daemon may take to greet.
const GREET_WITHIN: Duration = Duration::from_secs(5);
/// How often it is looked whether somebody wants it to stop.
const LOOK_EVERY: Duration = Duration::from_millis(100);
const PAUSE: Duration = Duration::from_millis(5);
/// What says how the daemon uses the network, and what its log has.
const DAEMON_VARIABLES: [&str; 6] = [
    "WARP_LIMIT",
    "WARP_LIMIT_PER_PEER",
    "WARP_LISTEN",
    "WARP_MDNS",
    "WARP_METRICS",
    "WARP_VERBOSE",
];
/// Directories that the daemon finds its home by.
const HOME_VARIABLES: [&str; 7] = [
    "WARP_HOME",
    "HOME",
    "XDG_DATA_HOME",
    "XDG_STATE_HOME",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "XDG_RUNTIME_DIR",
];

/// A daemon that is connected and has greeted.
pub(crate) struct Daemon {
    runtime: Runtime,
    sender: SendRequest<Full<Bytes>>,
    pid: Option<u32>,
}

/// Why there is no answer.
enum Trouble {
    /// The keyring is sealed.
    Locked,
    Failed(Failure),
}

impl Daemon {
    /// The daemon, if one runs.
    pub(crate) fn running(home: &Home) -> Result<Option<Self>> {
        let at = |e: io::Error| Failure::from(FlowError::io(RunDir::socket(home), e));
        let run_dir = match RunDir::open(home) {
            Ok(run_dir) => run_dir,
            Err(e) if nobody(&e) => return Ok(None),
            Err(e) => return Err(at(e)),
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .map_err(at)?;
        match runtime.block_on(connect(&run_dir)) {
            Ok((_, _, uid)) if is_anothers(rustix::process::geteuid().as_raw(), uid) => {
                let socket = RunDir::socket(home);
                let cause = format!("{}: the daemon is user {uid}'s", socket.display());
                Err(Failure::new(Exit::Failed, cause)
                    .hint("do it as that user, or with a WARP_HOME of your own"))
            }
            Ok((sender, pid, _)) => {
                let mut daemon = Self { runtime, sender, pid };
                Ok(daemon.greet()?.then_some(daemon))
            }
            Err(e) if nobody(&e) => Ok(None),
            Err(e) => Err(at(e)),
        }
    }

    /// The daemon; starts it if none runs.
    pub(crate) fn started(home: &Home) -> Result<Self> {
        Self::started_with(home, &[])
    }

    /// The same; a daemon that is started by this is told these settings.
    pub(crate) fn started_with(home: &Home, settings: &[(&'static str, String)]) -> Result<Self> {
        let until = Instant::now() + REACH_WITHIN;
        loop {
            if let Some(daemon) = Self::running(home)? {
                return Ok(daemon);
            }
            if Instant::now() > until {
                return Err(Failure::new(Exit::Temporary, "the daemon cannot be reached")
                    .hint("its log says why: `warp info` shows where it is"));
            }
            start(home, settings)?;
        }
    }

    /// Its process, as this process sees it.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// False if it was about to end and has not heard us.
    fn greet(&mut self) -> Result<bool> {
        let greeting = request(Method::GET, "/v1/hello", Bytes::new());
        let sender = &mut self.sender;
        let answered = self.runtime.block_on(async {
            tokio::time::timeout(GREET_WITHIN, sender.send_request(greeting)).await
        });
        match answered {
            Ok(Ok(response)) => Ok(response.status() == StatusCode::OK),
            Ok(Err(_)) => Ok(false),
            Err(_) => Err(Failure::new(Exit::Temporary, "the daemon does not answer")
                .hint("its log says why: `warp info` shows where it is")),
        }
    }

    /// Asks for something that needs no key.
    pub(crate) fn ask<A: DeserializeOwned>(
        &mut self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<A> {
        match self.exchange(method, path, json(body)) {
            Ok(answer) => Ok(answer),
            Err(Trouble::Failed(failure)) => Err(failure),
            Err(Trouble::Locked) => Err(Failure::new(Exit::Refused, "the keyring is sealed")
                .hint("give `--passphrase-file FILE` or set WARP_PASSPHRASE")),
        }
    }

    /// Asks; if the keyring is sealed, unlocks it first.
    pub(crate) fn ask_unlocked<A: DeserializeOwned>(
        &mut self,
        passphrase: &PassphraseArg,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<A> {
        let body = json(body);
        match self.exchange(method.clone(), path, body.clone()) {
            Ok(answer) => return Ok(answer),
            Err(Trouble::Failed(failure)) => return Err(failure),
            Err(Trouble::Locked) => {}
        }
        let typed = passphrase::ask(passphrase, "the keyring")?;
        let unlocked = self
            .exchange::<()>(Method::POST, "/v1/unlock", Bytes::from_owner(typed))
            .and_then(|()| self.exchange(method, path, body));
        unlocked.map_err(|trouble| match trouble {
            Trouble::Failed(failure) => failure,
            Trouble::Locked => Failure::new(Exit::Refused, "the keyring is sealed again"),
        })
    }

    /// Asks for what takes long: meanwhile `progress` shows how far it is, and
    /// stops it. If the keyring is sealed, unlocks it first.
    pub(crate) fn ask_long<A: DeserializeOwned>(
        &mut self,
        passphrase: &PassphraseArg,
        path: &str,
        body: &impl Serialize,
        progress: &Progress,
    ) -> Result<A> {
        let () = self.ask_unlocked(passphrase, Method::POST, "/v1/unlocked", &())?;
        let sender = &mut self.sender;
        let gone = || {
            Failure::new(Exit::Failed, "the daemon ended in the middle of this")
                .hint("its log says why: `warp info` shows where it is")
        };
        let unreadable = |e: serde_json::Error| {
            Failure::new(Exit::Failed, format!("the daemon's answer cannot be read: {e}"))
                .hint("`warp down`, then try again")
        };
        self.runtime.block_on(async {
            let asked = sender.send_request(request(Method::POST, path, json(body)));
            let mut response = asked.await.map_err(|_| gone())?;
            let mut bytes = Vec::new();
            let failed = response.status() != StatusCode::OK;
            loop {
                let frame = tokio::time::timeout(LOOK_EVERY, response.frame()).await;
                if progress.is_stopped() {
                    // To be gone is what stops the daemon.
                    return Err(FlowError::Interrupted.into());
                }
                match frame {
                    Ok(Some(frame)) => {
                        let data = frame.map_err(|_| gone())?.into_data();
                        bytes.extend_from_slice(&data.unwrap_or_default());
                    }
                    Ok(None) if failed => {
                        let failure: WireFailure =
                            serde_json::from_slice(&bytes).map_err(unreadable)?;
                        return Err(failure.into());
                    }
                    Ok(None) => return Err(gone()),
                    Err(_) => {}
                }
                while let Some(end) = bytes.iter().position(|b| *b == b'\n' && !failed) {
                    let line: Vec<u8> = bytes.drain(..=end).collect();
                    match serde_json::from_slice(&line).map_err(unreadable)? {
                        Line::Answer(answer) => return Ok(answer),
                        Line::Failure(failure) => return Err(failure.into()),
                        Line::Progress { total, done, files } => progress.show(total, done, files),
                    }
                }
            }
        })
    }

    fn exchange<A: DeserializeOwned>(
        &mut self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> std::result::Result<A, Trouble> {
        let sender = &mut self.sender;
        let asked = Instant::now();
        let shown = method.clone();
        let done = self.runtime.block_on(async {
            let response = sender.send_request(request(method, path, body)).await?;
            let status = response.status();
            Ok::<_, hyper::Error>((status, response.into_body().collect().await?.to_bytes()))
        });
        let status = done.as_ref().map_or(0, |(status, _)| status.as_u16());
        tracing::debug!(method = %shown, path, status, took = ?asked.elapsed(), "asked the daemon");
        let (status, bytes) = done.map_err(|_| {
            Trouble::Failed(
                Failure::new(Exit::Failed, "the daemon ended in the middle of this")
                    .hint("do it again; nothing that was synced is lost"),
            )
        })?;
        let unreadable = |e: serde_json::Error| {
            let cause = format!("the daemon's answer cannot be read: {e}");
            Trouble::Failed(Failure::new(Exit::Failed, cause).hint("`warp down`, then try again"))
        };
        match status {
            StatusCode::OK => serde_json::from_slice(&bytes).map_err(unreadable),
            StatusCode::LOCKED => Err(Trouble::Locked),
            _ => {
                let failure: WireFailure = serde_json::from_slice(&bytes).map_err(unreadable)?;
                Err(Trouble::Failed(failure.into()))
            }
        }
    }

    /// Says good-bye, and returns when its process is gone, or after `limit`.
    pub(crate) fn wait_for_end(self, limit: Duration) {
        let Self { runtime, sender, pid } = self;
        drop(sender);
        drop(runtime);
        let until = Instant::now() + limit;
        while pid.is_some_and(is_alive) && Instant::now() < until {
            std::thread::sleep(PAUSE);
        }
    }
}

/// True if nobody listens, as opposed to being kept out.
fn nobody(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, ConnectionReset, NotFound, WouldBlock};
    matches!(error.kind(), ConnectionRefused | ConnectionReset | NotFound | WouldBlock)
}

/// True if a daemon would not listen: it does to its own user, and to root.
fn is_anothers(me: u32, uid: u32) -> bool {
    me != 0 && me != uid
}

/// The way to a daemon, its process and its user.
async fn connect(run_dir: &RunDir) -> io::Result<(SendRequest<Full<Bytes>>, Option<u32>, u32)> {
    let stream = tokio::net::UnixStream::connect(run_dir.address()).await?;
    let peer = stream.peer_cred()?;
    let (pid, uid) = (peer.pid().and_then(|pid| u32::try_from(pid).ok()), peer.uid());
    let shaken = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (sender, connection) = shaken.map_err(io::Error::other)?;
    tokio::spawn(connection);
    Ok((sender, pid, uid))
}

fn request(method: Method, path: &str, body: Bytes) -> Request<Full<Bytes>> {
    let built = Request::builder().method(method).uri(path).header("host", "warp");
    built.body(Full::new(body)).expect("method and path are constants of this program")
}

fn json(body: &impl Serialize) -> Bytes {
    serde_json::to_vec(body).expect("text and numbers are always JSON").into()
}

/// Starts a daemon and returns when it, or another one, listens.
fn start(home: &Home, settings: &[(&'static str, String)]) -> Result<()> {
    let failed = |e: io::Error| Failure::new(Exit::Failed, format!("background process: {e}"));
    let mut command = Command::new("/proc/self/exe");
    // As `ps` shows it.
    command.arg0("warp");
    // Not the directory that this was typed in: it would stay busy. And not
    // what is in the environment: flags and passphrases are for this command.
    command.arg(crate::daemon::WORD).current_dir("/").env_clear().envs(environment(home));
    command.envs(settings.iter().map(|(name, value)| (name, value)));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut line).map_err(failed)?;
    }
    if line == "ready\n" {
        tracing::info!(socket = %RunDir::socket(home).display(), "started a daemon");
        return Ok(());
    }
    let mut said = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        stderr.read_to_string(&mut said).map_err(failed)?;
    }
    let status = child.wait().map_err(failed)?;
    let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
    let mut failure = failure_of(&said, code.max(1));
    failure.cause = format!("the daemon did not start: {}", failure.cause);
    Err(failure)
}

/// What a process of this program said when it failed, as a failure.
pub(crate) fn failure_of(said: &str, code: u8) -> Failure {
    let mut failure = Failure::new(Exit::from_code(code), "it gave no reason")
        .hint("`warp doctor` checks what it needs");
    for line in said.lines() {
        if let Some(cause) = line.strip_prefix("error: ") {
            failure.cause = cause.to_owned();
        } else if let Some(hint) = line.strip_prefix("hint: ") {
            failure.hint = Some(hint.to_owned());
        }
    }
    failure
}

/// What the daemon needs to know of this process's environment.
fn environment(home: &Home) -> Vec<(&'static str, OsString)> {
    let mut variables = Vec::new();
    for name in HOME_VARIABLES {
        if let Some(value) = std::env::var_os(name).filter(|value| !value.is_empty()) {
            // It lives in another directory than this one.
            let value = match name {
                "WARP_HOME" => home.data().into(),
                _ => std::path::absolute(&value).map_or(value, Into::into),
            };
            variables.push((name, value));
        }
    }
    let set = |name| std::env::var_os(name).map(|value| (name, value));
    variables.extend(DAEMON_VARIABLES.into_iter().filter_map(set));
    // `fusermount3` is looked for there.
    variables.extend(std::env::var_os("PATH").map(|path| ("PATH", path)));
    variables
}

/// False for a process that is gone, or that only its parent still counts.
fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read(Path::new("/proc").join(pid.to_string()).join("stat"));
    stat.is_ok_and(|stat| is_running(&stat))
}

/// `PID (NAME) STATE …`; the name may hold anything.
fn is_running(stat: &[u8]) -> bool {
    let name_end = stat.iter().rposition(|b| *b == b')').unwrap_or(stat.len());
    !matches!(stat.get(name_end + 2), None | Some(b'Z' | b'X'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_said_becomes_a_failure() {
        let failure = failure_of("error: /x: No space left\nhint: make room\n", 8);
        assert_eq!(failure.exit, Exit::Full);
        assert_eq!(failure.cause, "/x: No space left");
        assert_eq!(failure.hint.as_deref(), Some("make room"));
        assert_eq!(failure_of("", 101).exit, Exit::Failed);
    }

    #[test]
    fn a_process_that_only_its_parent_counts_is_gone() {
        assert!(is_alive(std::process::id()));
        assert!(!is_alive(u32::MAX));
        assert!(is_running(b"7 (a) Z) S 1 7"));
        assert!(!is_running(b"7 (warp) Z 1 7"));
        assert!(!is_running(b""));
    }

    #[test]
    fn a_stale_socket_is_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        let missing = std::os::unix::net::UnixStream::connect(&socket).unwrap_err();
        assert!(nobody(&missing));
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        let stale = std::os::unix::net::UnixStream::connect(&socket).unwrap_err();
        assert!(nobody(&stale));
        assert!(!nobody(&io::ErrorKind::PermissionDenied.into()));
    }
}
