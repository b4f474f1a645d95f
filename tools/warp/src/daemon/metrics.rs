//! What the daemon counts, for programs that watch it: Prometheus text at
//! `/metrics`, on a loopback address only.
//!
//! Neighbours: `edge`, which has the numbers; docs/metrics.md says what each
//! means. Promises: a name that is in the table below keeps its meaning. Never:
//! names a portal or a device other than by the start of its id.
//! Tested by the unit tests below and `tests/tests/peers.rs`.

use super::edge::Edge;
use crate::report::{Exit, Failure};
use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;

/// Name, type and meaning of everything that is told.
const METRICS: [(&str, &str, &str); 12] = [
    ("warp_mounts", "gauge", "Portals that are mounted."),
    ("warp_head", "gauge", "Number of the last head."),
    ("warp_stored_bytes", "gauge", "Bytes of packs on this disk."),
    ("warp_unpublished_bytes", "gauge", "Bytes written and not yet in a published tree."),
    ("warp_peers_connected", "gauge", "Devices of the portal that are connected."),
    ("warp_peer_rtt_seconds", "gauge", "Way to a device and back."),
    ("warp_chunks_received_total", "counter", "Chunks that came from peers and were right."),
    ("warp_received_bytes_total", "counter", "Their bytes."),
    ("warp_wasted_bytes_total", "counter", "Bytes that came and were of no use."),
    ("warp_hedged_total", "counter", "Chunks asked for twice because the first would be late."),
    ("warp_bad_chunks_total", "counter", "Chunks that were not what their id says."),
    ("warp_failed_reads_total", "counter", "Chunks that no peer gave in time."),
];

/// One number, of which portal (and device).
pub(super) struct Sample {
    pub(super) name: &'static str,
    pub(super) labels: Vec<(&'static str, String)>,
    pub(super) value: f64,
}

impl Sample {
    pub(super) fn new(name: &'static str, portal: &str, value: f64) -> Self {
        Self { name, labels: vec![("portal", portal.to_owned())], value }
    }
}

/// The samples as text, in the order of the table.
fn text(samples: &[Sample]) -> String {
    let mut out = String::new();
    for (name, kind, about) in METRICS {
        let _ = writeln!(out, "# HELP {name} {about}\n# TYPE {name} {kind}");
        for sample in samples.iter().filter(|sample| sample.name == name) {
            // Ids and names of this file: nothing in them needs quoting.
            let labels: Vec<_> =
                sample.labels.iter().map(|(key, value)| format!("{key}=\"{value}\"")).collect();
            let labels = match labels.is_empty() {
                true => String::new(),
                false => format!("{{{}}}", labels.join(",")),
            };
            let _ = writeln!(out, "{name}{labels} {}", sample.value);
        }
    }
    out
}

/// Answers whoever asks on this machine, until the daemon ends.
pub(super) async fn serve(edge: Arc<Edge>, listener: TcpListener) {
    let asked = move || {
        let edge = Arc::clone(&edge);
        async move {
            let samples = tokio::task::spawn_blocking(move || edge.samples()).await;
            let kind = [(CONTENT_TYPE, "text/plain; version=0.0.4")];
            (kind, text(&samples.unwrap_or_default()))
        }
    };
    let routes = Router::new().route("/metrics", get(asked));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, for example: it passes.
            tokio::time::sleep(super::PAUSE).await;
            continue;
        };
        let service = TowerToHyperService::new(routes.clone());
        tokio::spawn(async move {
            // Who goes away in the middle is no fault of ours.
            let served = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service);
            let _ = tokio::time::timeout(super::LAST_ANSWERS, served).await;
        });
    }
}

/// Listens at an address that only this machine reaches.
pub(super) fn listen(at: SocketAddr) -> Result<std::net::TcpListener, Failure> {
    if !at.ip().is_loopback() {
        return Err(Failure::new(Exit::Usage, format!("{at}: metrics are for this machine alone"))
            .hint("--metrics 127.0.0.1:9464"));
    }
    let bound = std::net::TcpListener::bind(at).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    let listener = bound.map_err(|e| {
        Failure::new(Exit::Failed, format!("metrics cannot be served at {at}: {e}"))
            .hint("name another port: --metrics 127.0.0.1:PORT")
    })?;
    tracing::info!(%at, "serves metrics");
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_names_type_and_meaning_and_every_sample() {
        let samples = [Sample::new("warp_head", "ab12", 7.0), Sample::new("warp_head", "cd", 1.5)];
        let text = text(&samples);
        assert!(text.contains("# TYPE warp_head gauge\nwarp_head{portal=\"ab12\"} 7\n"), "{text}");
        assert!(text.contains("warp_head{portal=\"cd\"} 1.5\n"), "{text}");
        assert_eq!(text.matches("# HELP").count(), METRICS.len());
    }

    #[test]
    fn the_document_lists_every_metric() {
        let document = include_str!("../../../../docs/metrics.md");
        for (name, kind, _) in METRICS {
            assert!(document.contains(&format!("| `{name}` | {kind} |")), "{name}");
        }
    }
}
