//! What is asked of a portal's snapshots.
//!
//! Neighbours: `api` above; `edge`, which gives the portal. Promises: what was
//! written through the mount before a snapshot was asked for is in it.
//! Tested by `tests/tests/snapshots.rs`.

use super::edge::{Edge, Refusal};
use super::wire::{
    MakeSnapshot, NamePortal, RemoveSnapshots, RestoreSnapshot, Restored, SnapshotRow, WireProblem,
};
use crate::show;
use std::path::PathBuf;
use std::sync::Arc;
use warp_flow::portal::Portal;
use warp_flow::snapshots::Snapshot;
use warp_flow::{ExtractOptions, FlowError, Progress};
use warp_format::record::Time;

type Result<T> = std::result::Result<T, Refusal>;

impl From<Snapshot> for SnapshotRow {
    fn from(made: Snapshot) -> Self {
        let Snapshot { name, time: Time { secs, nanos }, sequence, tags, .. } = made;
        Self { name, secs, nanos, sequence, tags }
    }
}

/// Makes one that is called by the time, to the second: of several in one
/// second, the later ones are counted.
fn make_named(portal: &Portal, name: Option<String>, tags: Vec<String>) -> Result<Snapshot> {
    if let Some(name) = name {
        return Ok(portal.make_snapshot(&name, tags)?);
    }
    let time = show::time(warp_flow::now()).replace(' ', "T");
    let names = (1..).map(|n| if n == 1 { format!("{time}Z") } else { format!("{time}Z-{n}") });
    let taken = portal.snapshots();
    let free = names.into_iter().find(|name| taken.iter().all(|other| other.name != *name));
    Ok(portal.make_snapshot(&free.unwrap_or(time), tags)?)
}

impl Edge {
    pub(super) fn restore(
        self: &Arc<Self>,
        ask: RestoreSnapshot,
        progress: &Progress,
    ) -> Result<Restored> {
        let path = PathBuf::from(ask.path);
        let options = ExtractOptions {
            target: ask.target.into(),
            top: ask.top.into(),
            paths: if path.as_os_str().is_empty() { Vec::new() } else { vec![path] },
            force: ask.overwrite,
        };
        self.with_portal(&ask.portal, |portal, _| {
            let portal = portal.own()?;
            let done = if ask.dry_run {
                portal.plan_restore(&ask.snapshot, &options, progress)?
            } else {
                portal.restore(&ask.snapshot, &options, progress)?
            };
            let problems = done.problems.into_iter().map(WireProblem::from).collect();
            Ok(Restored { names: done.names, bytes: done.bytes, problems })
        })
    }

    pub(super) fn make_snapshot(self: &Arc<Self>, ask: MakeSnapshot) -> Result<SnapshotRow> {
        self.with_portal(&ask.portal, |portal, mounted| {
            // What the kernel still keeps to itself belongs to it.
            mounted.map_or(Ok(()), |mounted| mounted.write_back())?;
            Ok(make_named(portal.own()?, ask.name, ask.tags)?.into())
        })
    }

    pub(super) fn snapshots(self: &Arc<Self>, ask: NamePortal) -> Result<Vec<SnapshotRow>> {
        self.with_portal(&ask.name, |portal, _| {
            Ok(portal.own()?.snapshots().into_iter().map(SnapshotRow::from).collect())
        })
    }

    /// Takes all of them away, or none.
    pub(super) fn remove_snapshots(self: &Arc<Self>, ask: RemoveSnapshots) -> Result<()> {
        self.with_portal(&ask.portal, |portal, mounted| {
            let portal = portal.own()?;
            for name in &ask.names {
                portal.snapshot(name)?;
            }
            for name in &ask.names {
                match portal.remove_snapshot(name) {
                    // Named twice.
                    Err(FlowError::NoSnapshot { .. }) => {}
                    other => other?,
                }
            }
            if mounted.is_none() {
                // It is closed before it would come to that by itself. If it
                // fails, the next sweep does it; the log says why.
                if let Err(e) = portal.sweep_thoroughly() {
                    tracing::error!("sweep: {e}");
                }
            }
            Ok(())
        })
    }
}
