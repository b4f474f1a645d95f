//! The daemon of one home ("edge"): mounts portals, publishes them, and ends
//! when nobody needs it.
//!
//! `lock` says who may be it, `api` what it is asked (`long` what takes long), `edge` what it does,
//! `mounted` one mount of it, `snapshots` what it does for those, `log` what it says. Promises: one per home; it
//! listens when it says `ready`; a request that was accepted is answered
//! before it ends by itself. Never: blocks the thread that accepts.
//! Tested by `tests/tests/portal.rs`.

mod api;
pub(crate) mod edge;
pub(crate) mod lock;
pub(crate) mod log;
mod long;
mod metrics;
mod mounted;
mod snapshots;
pub(crate) mod wire;

use crate::args::Network;
use crate::report::{Exit, Failure, Result, Ui};
use crate::signals;
use edge::Edge;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use lock::{Lock, RunDir};
use std::io::Write;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::UnixStream;
use warp_flow::home::Home;

/// The argument that starts it. Tests, and `ps`, know it by this word.
pub(crate) const WORD: &str = "daemon";
/// How long a daemon waits for the one before it to be gone.
const WAIT_FOR_LOCK: Duration = Duration::from_secs(10);
/// How long it stays when it has nothing to do.
const IDLE: Duration = Duration::from_millis(300);
/// The same for one that has just been started, by somebody who is about to
/// ask something.
const IDLE_AT_START: Duration = Duration::from_secs(3);
/// How long an answer may take to reach a client at the end.
const LAST_ANSWERS: Duration = Duration::from_secs(2);
/// A pause where there is nothing to wait for but time.
const PAUSE: Duration = Duration::from_millis(10);

/// `warp daemon`: started by a client, in the background.
pub(crate) fn run_detached() -> Result<Exit> {
    // Fails only for who leads a group, and then has a session already.
    let _ = rustix::process::setsid();
    let home = Home::from_environment()?;
    let Some((run_dir, lock)) = take_lock(&home)? else {
        // Another one was faster, and listens.
        say_ready();
        return Ok(Exit::Ok);
    };
    run(&home, &run_dir, lock, None, || {
        say_ready();
        detach();
    })
}

/// `warp up --foreground`.
pub(crate) fn run_here(network: &Network, ui: &Ui) -> Result<Exit> {
    let home = Home::from_environment()?;
    let Some((run_dir, lock)) = take_lock(&home)? else {
        return Err(Failure::new(Exit::Busy, "a daemon runs already")
            .hint("`warp down` ends it, `warp up` makes it stay"));
    };
    run(&home, &run_dir, lock, Some(network), || {
        let socket = RunDir::socket(&home);
        ui.summary(&format!("listening on {}; Ctrl-C ends it", socket.display()));
    })
}

/// The lock; `None` if another daemon has it, and listens.
fn take_lock(home: &Home) -> Result<Option<(RunDir, Lock)>> {
    let failed = |e| Failure::from(warp_flow::FlowError::io(home.run(), e));
    let run_dir = RunDir::make(home).map_err(failed)?;
    let until = Instant::now() + WAIT_FOR_LOCK;
    loop {
        if let Some(lock) = run_dir.lock().map_err(failed)? {
            return Ok(Some((run_dir, lock)));
        }
        if run_dir.is_served() {
            return Ok(None);
        }
        if Instant::now() > until {
            return Err(Failure::new(Exit::Temporary, "the daemon before this one does not end")
                .hint("try again; `warp info` shows where its log is"));
        }
        std::thread::sleep(PAUSE);
    }
}

fn say_ready() {
    // A parent that is gone does not need to know.
    let _ = writeln!(std::io::stdout(), "ready");
}

/// Lets go of the terminal and of the parent's pipes.
fn detach() {
    if let Ok(null) = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stdin(&null);
        let _ = rustix::stdio::dup2_stdout(&null);
        let _ = rustix::stdio::dup2_stderr(&null);
    }
}

fn run(
    home: &Home,
    run_dir: &RunDir,
    lock: Lock,
    stays: Option<&Network>,
    ready: impl FnOnce(),
) -> Result<Exit> {
    let failed = |e: std::io::Error| Failure::new(Exit::Failed, format!("daemon: {e}"));
    log::begin(home, edge::sharing::log_level())
        .map_err(|e| warp_flow::FlowError::io(home.logs(), e))?;
    let edge = Edge::new(home.clone(), stays.cloned());
    let stopped = Arc::clone(&edge);
    signals::on_signal(move || stopped.stop())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(failed)?;
    let metrics = edge.metrics()?.map(metrics::listen).transpose()?;
    let listener = run_dir.listen(&lock).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    tracing::info!(pid = std::process::id(), version = env!("CARGO_PKG_VERSION"), "listening");
    ready();
    runtime.block_on(async {
        if let Some(metrics) = metrics {
            let listener = tokio::net::TcpListener::from_std(metrics).map_err(failed)?;
            tokio::spawn(metrics::serve(Arc::clone(&edge), listener));
        }
        let served = serve(listener, &edge).await;
        // From here on a client finds nobody, starts the next daemon, and
        // that one waits for the lock. Who was in the queue and not accepted
        // sees its connection end without a greeting, and does the same.
        let _ = run_dir.remove_socket(&lock);
        let closing = Arc::clone(&edge);
        let _ = tokio::task::spawn_blocking(move || closing.close_all()).await;
        last_answers(&edge).await;
        served.map_err(failed)
    })?;
    // A thread that still waits for something must not keep the process.
    runtime.shutdown_background();
    tracing::info!("ended");
    drop(lock);
    Ok(signals::received().unwrap_or(Exit::Ok))
}

/// Accepts clients until there is nothing more to do.
async fn serve(listener: UnixListener, edge: &Arc<Edge>) -> std::io::Result<()> {
    let listener = tokio::net::UnixListener::from_std(listener)?;
    let routes = api::routes(edge);
    let mut grace = IDLE_AT_START;
    let mut idle_since = None;
    while !edge.ends() {
        idle_since = edge.is_idle().then(|| idle_since.unwrap_or_else(Instant::now));
        let left = idle_since.map(|since| grace.saturating_sub(since.elapsed()));
        if left.is_some_and(|left| left.is_zero()) {
            break;
        }
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    grace = IDLE;
                    idle_since = None;
                    admit(stream, edge, &routes);
                }
                Err(e) => {
                    // Out of descriptors, for example: it passes.
                    tracing::warn!(error = %e, "a client could not be accepted");
                    tokio::time::sleep(PAUSE).await;
                }
            },
            () = edge.activity.notified() => {}
            () = tokio::time::sleep(left.unwrap_or_default()), if left.is_some() => {}
        }
    }
    Ok(())
}

/// Serves a client of this user, or of root.
fn admit(stream: UnixStream, edge: &Arc<Edge>, routes: &axum::Router) {
    let me = rustix::process::geteuid().as_raw();
    let peer = stream.peer_cred().map(|peer| peer.uid());
    if !peer.as_ref().is_ok_and(|uid| *uid == me || *uid == 0) {
        tracing::warn!(?peer, "a client of another user was refused");
        return;
    }
    // One that comes too late is not greeted, and asks the next daemon.
    let Some(present) = edge.arrive() else { return };
    let service = TowerToHyperService::new(routes.clone());
    tokio::spawn(async move {
        // A client that goes away in the middle is no fault of ours.
        let _ = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service)
            .await;
        drop(present);
    });
}

/// Lets the answers that are under way arrive.
async fn last_answers(edge: &Edge) {
    let until = Instant::now() + LAST_ANSWERS;
    while edge.has_clients() && Instant::now() < until {
        tokio::time::sleep(PAUSE / 10).await;
    }
}
