//! Checks and repairs of portals, whether they are mounted or not.
//!
//! Neighbours: `api`, whose client may go away in the middle; `flow::check` and
//! `flow::repair`. Promises: a check disturbs nobody who uses the portal; a
//! repair has it for itself. Never: says a name of the portal to the log.
//! Tested by `tests/tests/check.rs`.

use super::{Edge, Result};
use crate::daemon::wire::{
    CheckPortal, Checked, RepairPortal, Repaired, WireAside, WireDamage, WirePath, WireProblem,
    WireReads,
};
use crate::report::{Exit, Failure};
use crate::show;
use std::path::PathBuf;
use std::sync::Arc;
use warp_flow::check::{Damage, Reads};
use warp_flow::portals::PortalEntry;
use warp_flow::{Problem, Progress, check, repair};

impl Edge {
    /// Says what of a portal is damaged: one that is not mounted is opened for
    /// it.
    pub(crate) fn check(
        self: &Arc<Self>,
        ask: CheckPortal,
        progress: &Progress,
    ) -> Result<Checked> {
        let keys = self.keys()?;
        let entry = keys.portals.find(&ask.portal)?;
        let reads = match ask.reads {
            WireReads::Nothing => Reads::Nothing,
            WireReads::Sample { share, seed } => Reads::Sample { share, seed },
            WireReads::Everything => Reads::Everything,
        };
        let found =
            self.with_portal(&ask.portal, |portal, _| Ok(portal.own()?.check(reads, progress)?))?;
        let (damage, problems) = (found.damage.len(), found.problems.len());
        tracing::info!(portal = %entry.id, read = found.stored_bytes_read, damage, problems, "checked");
        Ok(checked(found, &entry))
    }

    /// Makes a portal's store sound again; it must not be mounted.
    pub(crate) fn repair(
        self: &Arc<Self>,
        ask: RepairPortal,
        progress: &Progress,
    ) -> Result<Repaired> {
        let keys = self.keys()?;
        let entry = keys.portals.find(&ask.portal)?;
        if let Some(on) = self.row(&entry).mounted_on.map(PathBuf::from) {
            let cause = format!("portal {}: is mounted on {}", entry.name, on.display());
            let hint = format!("warp umount {}", show::word(&on));
            return Err(Failure::new(Exit::Busy, cause).hint(hint).into());
        }
        let mut reserved = self.reserve(&entry)?;
        self.unshare(&keys, &entry, &mut reserved);
        let done = keys.portals.repair(&entry.name, ask.dry_run, progress);
        drop(reserved);
        self.share_again(&keys, &entry);
        let done = done?;
        tracing::info!(
            portal = %entry.id,
            dry_run = ask.dry_run,
            indexes = done.indexes.len(),
            set_aside = done.set_aside.len(),
            problems = done.problems.len(),
            "repaired"
        );
        Ok(repaired(done, &entry))
    }
}

fn packs_of(entry: &PortalEntry) -> WirePath {
    entry.directory.join("state").as_path().into()
}

fn damage(found: Vec<Damage>) -> Vec<WireDamage> {
    let each = found.into_iter().map(|damage| WireDamage {
        file: damage.file,
        offset: damage.offset,
        len: damage.len,
        chunk: damage.chunk.map(|id| format!("{id:#}")),
        readable: damage.readable,
    });
    each.collect()
}

fn problems(found: Vec<Problem>) -> Vec<WireProblem> {
    found.into_iter().map(WireProblem::from).collect()
}

fn checked(found: check::Checked, entry: &PortalEntry) -> Checked {
    Checked {
        names: found.names,
        nodes: found.nodes,
        chunks: found.chunks,
        chunks_read: found.chunks_read,
        data_bytes: found.data_bytes,
        data_bytes_read: found.data_bytes_read,
        packs: found.packs,
        stored_bytes: found.stored_bytes,
        stored_bytes_read: found.stored_bytes_read,
        damage: damage(found.damage),
        problems: problems(found.problems),
        unpublished: found.unpublished,
        directory: packs_of(entry),
    }
}

fn repaired(done: repair::Repaired, entry: &PortalEntry) -> Repaired {
    let set_aside = done.set_aside.into_iter().map(|pack| WireAside {
        file: pack.file,
        whole: pack.whole,
        aside: pack.aside,
        moved_to: pack.moved_to,
    });
    Repaired {
        packs: done.packs,
        stored_bytes: done.stored_bytes,
        chunks: done.chunks,
        indexes: done.indexes,
        set_aside: set_aside.collect(),
        damage: damage(done.damage),
        dedup_discarded: done.dedup_discarded,
        problems: problems(done.problems),
        directory: packs_of(entry),
    }
}
