//! The daemon's requests: HTTP/1 over its socket, JSON in and out.
//!
//! | request | asks | answers |
//! |---|---|---|
//! | `GET /v1/hello` | – | `Hello` |
//! | `GET /v1/status` | – | `Status` |
//! | `POST /v1/unlock` | the passphrase's bytes, not JSON | – |
//! | `POST /v1/unlocked` | – | –, if the keyring is open |
//! | `GET /v1/portals` | – | list of `PortalRow` |
//! | `POST /v1/portals` | `CreatePortal` | `PortalRow` |
//! | `DELETE /v1/portals` | `LeavePortal` | `Left` |
//! | `POST /v1/portals/status` | `NamePortal` | `PortalStanding` |
//! | `POST /v1/portals/members` | `NamePortal` | `MemberRow`s |
//! | `POST /v1/invites` | `InviteTo` | `Invited` |
//! | `DELETE /v1/invites` | `ExpireIn` | `Expired` |
//! | `POST /v1/join` | `JoinPortal` | `Joined` |
//! | `GET /v1/peers` | – | list of `PeerRow` |
//! | `POST /v1/snapshots` | `MakeSnapshot` | `SnapshotRow` |
//! | `DELETE /v1/snapshots` | `RemoveSnapshots` | – |
//! | `POST /v1/snapshots/list` | `NamePortal` | list of `SnapshotRow` |
//! | `POST /v1/restore` | `RestoreSnapshot` | lines: [`Line`](super::wire::Line) of `Restored` |
//! | `POST /v1/mounts` | `MountPortal` | `MountRow`, once it is usable |
//! | `DELETE /v1/mounts` | `Unmount` | `Unmounted`, once it is published |
//! | `POST /v1/mounts/wait` | `OfMount` | –, once the mount has ended |
//! | `POST /v1/sync` | `OfMount` | `Synced`, once it is published |
//! | `POST /v1/warmup` | `WarmUp` | lines: `Line` of `Warmed` |
//! | `POST /v1/check` | `CheckPortal` | lines: `Line` of `Checked` |
//! | `POST /v1/repair` | `RepairPortal` | lines: `Line` of `Repaired` |
//! | `POST /v1/up` | `GoUp` | `IsUp` |
//! | `POST /v1/down` | – | –, once all is unmounted |
//!
//! Names and paths are in bodies only: a path in a URL would have to be
//! quoted, and a name may be anything that somebody types. A request that
//! fails has the status of its kind and a `WireFailure`; 423 says that the
//! keyring is sealed: unlock it and ask again.

use super::edge::{Edge, Refusal};
use super::long::long;
use super::wire::{Hello, WireFailure};
use crate::report::{Exit, Failure};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::Response;
use axum::routing::{get, post};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::pin::Pin;
use std::sync::Arc;
use zeroize::Zeroizing;

pub(super) type Answer = Pin<Box<dyn Future<Output = Response> + Send>>;

/// All requests.
pub(super) fn routes(edge: &Arc<Edge>) -> Router {
    Router::new()
        .route("/v1/hello", get(on(edge, hello)))
        .route("/v1/status", get(on(edge, Edge::status)))
        .route("/v1/unlock", post(unlock(edge)))
        .route("/v1/unlocked", post(on(edge, Edge::check_unlocked)))
        .route(
            "/v1/portals",
            get(on(edge, Edge::list)).post(on(edge, Edge::create)).delete(on(edge, Edge::leave)),
        )
        .route("/v1/portals/status", post(on(edge, Edge::portal)))
        .route("/v1/portals/members", post(on(edge, Edge::members)))
        .route("/v1/invites", post(on(edge, Edge::invite)).delete(on(edge, Edge::expire)))
        .route("/v1/join", post(on(edge, Edge::join)))
        .route("/v1/peers", get(on(edge, Edge::list_peers)))
        .route(
            "/v1/snapshots",
            post(on(edge, Edge::make_snapshot)).delete(on(edge, Edge::remove_snapshots)),
        )
        .route("/v1/snapshots/list", post(on(edge, Edge::snapshots)))
        .route("/v1/restore", post(long(edge, Edge::restore)))
        .route("/v1/mounts", post(on(edge, Edge::mount)).delete(on(edge, Edge::unmount)))
        .route("/v1/mounts/wait", post(on(edge, Edge::wait)))
        .route("/v1/sync", post(on(edge, Edge::sync)))
        .route("/v1/warmup", post(long(edge, Edge::warm_up)))
        .route("/v1/check", post(long(edge, Edge::check)))
        .route("/v1/repair", post(long(edge, Edge::repair)))
        .route("/v1/up", post(on(edge, Edge::up)))
        .route("/v1/down", post(on(edge, Edge::down)))
        .fallback(async || {
            let failure = Failure::new(Exit::Failed, "the daemon does not know this request")
                .hint("it may be older than this program: `warp down` ends it");
            refusal(StatusCode::NOT_FOUND, failure)
        })
}

fn hello(_: &Arc<Edge>, (): ()) -> Result<Hello, Refusal> {
    Ok(Hello { version: env!("CARGO_PKG_VERSION").into() })
}

/// A request that is answered by `work`, on a thread that may block.
fn on<Q, A>(
    edge: &Arc<Edge>,
    work: fn(&Arc<Edge>, Q) -> Result<A, Refusal>,
) -> impl Fn(Bytes) -> Answer + Clone + Send + Sync + use<Q, A>
where
    Q: DeserializeOwned + 'static,
    A: Serialize + Send + 'static,
{
    let edge = Arc::clone(edge);
    move |body| {
        let edge = Arc::clone(&edge);
        Box::pin(answer(move || work(&edge, read(&body)?)))
    }
}

fn unlock(edge: &Arc<Edge>) -> impl Fn(Bytes) -> Answer + Clone + Send + Sync + use<> {
    let edge = Arc::clone(edge);
    move |body| {
        let edge = Arc::clone(&edge);
        let passphrase = Zeroizing::new(body.to_vec());
        Box::pin(answer(move || edge.unlock(&passphrase)))
    }
}

pub(super) fn read<Q: DeserializeOwned>(body: &[u8]) -> Result<Q, Failure> {
    let body = if body.is_empty() { b"null" } else { body };
    serde_json::from_slice(body)
        .map_err(|e| Failure::new(Exit::Usage, format!("the request cannot be read: {e}")))
}

async fn answer<A: Serialize + Send + 'static>(
    work: impl FnOnce() -> Result<A, Refusal> + Send + 'static,
) -> Response {
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(answer)) => json(StatusCode::OK, &answer),
        Ok(Err(why)) => refused(why),
        Err(_) => {
            let failure = Failure::new(Exit::Failed, "the daemon failed in the middle of this")
                .hint("its log says more: `warp info` shows where it is");
            refusal(StatusCode::INTERNAL_SERVER_ERROR, failure)
        }
    }
}

/// The answer to what is not fulfilled.
pub(super) fn refused(why: Refusal) -> Response {
    let status = match &why {
        Refusal::Locked => StatusCode::LOCKED,
        Refusal::Failed(failure) => status_of(failure.exit),
    };
    refusal(status, why.failure())
}

fn status_of(exit: Exit) -> StatusCode {
    match exit {
        Exit::Usage => StatusCode::BAD_REQUEST,
        Exit::NotFound => StatusCode::NOT_FOUND,
        Exit::Busy => StatusCode::CONFLICT,
        Exit::Refused => StatusCode::FORBIDDEN,
        Exit::Temporary => StatusCode::SERVICE_UNAVAILABLE,
        Exit::Full => StatusCode::INSUFFICIENT_STORAGE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn refusal(status: StatusCode, failure: Failure) -> Response {
    // The cause may name a portal or a path, which the log never does.
    tracing::warn!(status = status.as_u16(), exit = failure.exit as u8, "a request failed");
    json(status, &WireFailure::from(failure))
}

fn json<A: Serialize>(status: StatusCode, answer: &A) -> Response {
    let bytes = serde_json::to_vec(answer).expect("text and numbers are always JSON");
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = status;
    let kind = axum::http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::wire::NamePortal;

    #[test]
    fn a_body_that_is_empty_asks_nothing_and_one_that_is_wrong_says_so() {
        assert!(read::<()>(b"").is_ok());
        assert_eq!(read::<NamePortal>(br#"{"name":"a"}"#).unwrap().name, "a");
        assert_eq!(read::<NamePortal>(b"").unwrap_err().exit, Exit::Usage);
        assert_eq!(read::<NamePortal>(b"{").unwrap_err().exit, Exit::Usage);
    }

    #[test]
    fn locked_is_a_status_of_its_own() {
        let exits = [Exit::Failed, Exit::Usage, Exit::NotFound, Exit::Refused, Exit::Busy];
        assert!(exits.into_iter().all(|exit| status_of(exit) != StatusCode::LOCKED));
    }
}
