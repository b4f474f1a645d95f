//! Requests that take long: the answer is lines of JSON, of which the last is
//! the result and the others say how far it is.
//!
//! Neighbours: `api` has the routes, `client` reads the lines. Promises: work
//! that nobody waits for any more is told to stop; a line comes several times
//! a second, so that a client that is gone is noticed. Never: begins while the
//! keyring is sealed: that is told by the status, as elsewhere.
//! Tested by `tests/tests/snapshots.rs`.

use super::api::{self, Answer};
use super::edge::{Edge, Refusal};
use super::wire::{Line, WireFailure};
use crate::report::{Exit, Failure};
use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_TYPE;
use axum::response::Response;
use hyper::body::Frame;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::mpsc;
use warp_flow::Progress;

/// How often it is said how far it is.
const SAY_EVERY: Duration = Duration::from_millis(200);

/// Work that can say how far it is, and be stopped.
pub(super) type Work<Q, A> = fn(&Arc<Edge>, Q, &Progress) -> Result<A, Refusal>;

/// A request that is answered by `work`, on a thread that may block.
pub(super) fn long<Q, A>(
    edge: &Arc<Edge>,
    work: Work<Q, A>,
) -> impl Fn(Bytes) -> Answer + Clone + Send + Sync + use<Q, A>
where
    Q: DeserializeOwned + Send + 'static,
    A: Serialize + Send + 'static,
{
    let edge = Arc::clone(edge);
    move |body| {
        let edge = Arc::clone(&edge);
        Box::pin(async move {
            match api::read::<Q>(&body).map_err(Refusal::from).and_then(|ask| {
                edge.check_unlocked(())?;
                Ok(ask)
            }) {
                Ok(ask) => answer(edge, ask, work),
                Err(refusal) => api::refused(refusal),
            }
        })
    }
}

fn answer<Q, A>(edge: Arc<Edge>, ask: Q, work: Work<Q, A>) -> Response
where
    Q: Send + 'static,
    A: Serialize + Send + 'static,
{
    let progress = Arc::new(Progress::default());
    let (tx, lines) = mpsc::channel(1);
    let stop = StopAtEnd(Arc::clone(&progress));
    let counted = Arc::clone(&progress);
    let mut result = tokio::task::spawn_blocking(move || work(&edge, ask, &counted));
    tokio::spawn(async move {
        let last = loop {
            match tokio::time::timeout(SAY_EVERY, &mut result).await {
                Ok(Ok(Ok(answer))) => break Line::Answer(answer),
                Ok(Ok(Err(refusal))) => break Line::Failure(WireFailure::from(refusal.failure())),
                Ok(Err(_)) => {
                    let failure = Failure::new(Exit::Failed, "the daemon failed in the middle")
                        .hint("its log says more: `warp info` shows where it is");
                    break Line::Failure(WireFailure::from(failure));
                }
                Err(_) => {
                    let (total, done) = (progress.total(), progress.done());
                    let files = progress.files();
                    // Nobody reads: then the work ends soon, and is awaited.
                    let _ = tx.send(line(&Line::<A>::Progress { total, done, files })).await;
                }
            }
        };
        let _ = tx.send(line(&last)).await;
    });
    let mut response = Response::new(Body::new(Lines { lines, _stop: stop }));
    let kind = axum::http::HeaderValue::from_static("application/jsonl");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

fn line(line: &impl Serialize) -> Bytes {
    let mut bytes = serde_json::to_vec(line).expect("text and numbers are always JSON");
    bytes.push(b'\n');
    bytes.into()
}

/// Stops the work when the answer is sent, or nobody waits for it.
struct StopAtEnd(Arc<Progress>);

impl Drop for StopAtEnd {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// Lines, as they come.
struct Lines {
    lines: mpsc::Receiver<Bytes>,
    _stop: StopAtEnd,
}

impl hyper::body::Body for Lines {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.lines.poll_recv(context).map(|line| line.map(|line| Ok(Frame::data(line))))
    }
}
