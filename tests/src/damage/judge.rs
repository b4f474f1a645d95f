//! What is wrong with what `warp` made of a damaged archive.

use super::check::{Ran, Slot};
use super::edit::Edited;
use super::hit::Hit;
use super::map::Archive;
use super::model::{Exactness, Model, below, relative, walk};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use warp_format::record::{Body, FileType};

/// Where salvage puts what has lost its name.
const LOST_AND_FOUND: &[u8] = b"lost+found";

/// The three commands on one archive.
struct Trial {
    verify: Ran,
    extract: Ran,
    salvage: Ran,
}

impl Trial {
    fn run(slot: &Slot<'_>, bytes: &[u8], sealed: bool) -> Self {
        slot.put(bytes);
        Self {
            verify: slot.verify(sealed),
            extract: slot.extract(sealed),
            salvage: slot.salvage(sealed),
        }
    }

    fn faults(&self) -> Vec<String> {
        let runs = [&self.verify, &self.extract, &self.salvage];
        runs.iter().flat_map(|ran| ran.faults.clone()).collect()
    }
}

/// Verifies, extracts and salvages a damaged archive.
pub fn judge_hit(slot: &Slot<'_>, archive: &Archive, hit: &Hit) -> Result<(), String> {
    let trial = Trial::run(slot, &hit.bytes, archive.is_sealed);
    let mut faults = trial.faults();
    let Trial { verify, extract, salvage } = &trial;
    let damaged = !hit.ranges.is_empty();
    for (name, ran) in [("verify", verify), ("extract", extract)] {
        if damaged != (ran.code != 0) {
            faults.push(format!("{name} did not find the damage: {}", ran.said()));
        }
    }
    if verify.code != extract.code {
        faults.push(format!("verify: {}; extract: {}", verify.said(), extract.said()));
    }
    let model = &archive.model;
    // Extraction: exact or absent, and what is absent is named by both.
    faults.extend(inexact(&slot.target(), model, extract, Exactness::All));
    if !extract.refused() {
        let target = slot.target();
        let lost = model.lost(&target, |path| extract.covers(path));
        faults.extend(lost.map(|p| format!("extract lost {} silently", text(p))));
    }
    for path in model.paths().filter(|_| !(verify.refused() || extract.refused())) {
        let (v, e) = (verify.covers(path), extract.covers(path));
        if v != e {
            let path = text(path);
            faults.push(format!("{path}: named by verify: {v}, by extract: {e}"));
        }
    }
    // Salvage: exact or absent, all that is whole, nothing lost in silence.
    faults.extend(inexact(&slot.salvaged(), model, salvage, Exactness::All));
    let archive_named = salvage.blames(&slot.archive());
    let salvaged = slot.salvaged();
    let nameless = by_time(&salvaged);
    // What has lost its name only is named as what it is called now.
    let told_of = |path: &[u8]| {
        archive_named || salvage.covers(path) || nameless.contains_key(&model.items[path].time())
    };
    let lost = model.lost(&salvaged, told_of);
    faults.extend(lost.map(|p| format!("salvage lost {} silently", text(p))));
    if !(archive.is_sealed && archive.headless(&hit.ranges)) {
        faults.extend(unsalvaged(&salvaged, &nameless, archive, hit));
    }
    told(faults, &hit.what, &trial)
}

/// Verifies, extracts and salvages an archive with an edited field.
pub fn judge_edit(slot: &Slot<'_>, archive: &Archive, edited: &Edited) -> Result<(), String> {
    let trial = Trial::run(slot, &edited.bytes, false);
    let mut faults = trial.faults();
    let Trial { verify, extract, salvage } = &trial;
    let host = [1, 3, 8].contains(&extract.code) && edited.host_may_refuse;
    if (verify.code == 0) != (extract.code == 0) && !(verify.code == 0 && host) {
        faults.push(format!("verify: {}; extract: {}", verify.said(), extract.said()));
    }
    let exactness = edited.exactness();
    match &edited.model {
        Ok(model) => {
            faults.extend(inexact(&slot.target(), model, extract, exactness));
            if !extract.refused() {
                let target = slot.target();
                let lost = model.lost(&target, |path| extract.code == 0 || extract.covers(path));
                faults.extend(lost.map(|p| format!("extract lost {} silently", text(p))));
            }
            if edited.tree_only && verify.code != 0 {
                faults.push(format!("verify refuses a sound tree: {}", verify.said()));
            }
        }
        Err(why) if edited.tree_only && verify.code == 0 => {
            faults.push(format!("verify accepts a tree that is not sound: {why}"));
        }
        Err(_) => {}
    }
    if let Some(model) = &edited.leaves {
        faults.extend(inexact(&slot.salvaged(), model, salvage, exactness));
    }
    if edited.tree_only && salvage.refused() {
        faults.push(format!("salvage gives up: {}", salvage.said()));
    }
    if edited.tree_is_whole {
        let lost = inexact_or_missing(&slot.salvaged(), &archive.model);
        faults.extend(lost.map(|why| format!("salvage of a whole tree: {why}")));
    }
    told(faults, &edited.what, &trial)
}

fn told(mut faults: Vec<String>, what: &str, trial: &Trial) -> Result<(), String> {
    if faults.is_empty() {
        return Ok(());
    }
    let count = faults.len();
    faults.truncate(6);
    let Trial { verify, extract, salvage } = trial;
    let said = [("verify", verify), ("extract", extract), ("salvage", salvage)];
    let said: String =
        said.iter().map(|(name, ran)| format!("\n  {name}: {}", ran.said())).collect();
    Err(format!("{what}: {count} faults\n  {}{said}", faults.join("\n  ")))
}

/// What stands in `target` and is not what the model says.
fn inexact(target: &Path, model: &Model, ran: &Ran, how: Exactness) -> Vec<String> {
    let mut faults = Vec::new();
    if !target.exists() {
        return faults;
    }
    let (mut found, failed) = walk(target);
    faults.extend(failed.iter().map(|(path, e)| format!("{}: {e}", path.display())));
    found.push(target.into());
    for path in found {
        let name = relative(target, &path);
        if name.starts_with(LOST_AND_FOUND) {
            continue;
        }
        let Some(item) = model.items.get(&name) else {
            // The archive's own root may be gone, but not the target.
            if !name.is_empty() {
                faults.push(format!("{} comes from nowhere", text(&name)));
            }
            continue;
        };
        // A directory with damaged attributes is made all the same, and
        // named; a root of which nothing is known is the target as it is.
        let is_dir = item.inode.file_type() == FileType::Directory;
        let excused = is_dir && (ran.names(&name) || ran.code != 0 && name.is_empty());
        // An attribute that the host refuses is told, and the content kept.
        let content_only = how == Exactness::HostMayRefuse && ran.names(&name);
        let differs = match (excused, content_only) {
            (true, _) => Ok(()),
            (false, true) => item.content_differs(&path),
            (false, false) => item.differs(&path, how),
        };
        faults.extend(differs.err());
    }
    if ran.code == 0 {
        let lost = model.lost(target, |_| false);
        faults.extend(lost.map(|p| format!("{} is missing after exit 0", text(p))));
    }
    faults
}

/// The first of the model's paths that is not in `target` as it should be.
fn inexact_or_missing(target: &Path, model: &Model) -> Option<String> {
    model
        .items
        .iter()
        .find_map(|(path, item)| item.differs(&below(target, path), Exactness::All).err())
}

/// Files that the damage left whole and salvage did not give back: under
/// their own names if the way there is whole too, else in `lost+found`.
fn unsalvaged(
    top: &Path,
    nameless: &HashMap<(i64, i64), PathBuf>,
    archive: &Archive,
    hit: &Hit,
) -> Vec<String> {
    let mut faults = Vec::new();
    for (path, item) in &archive.model.items {
        let needs = &archive.needs[path];
        let is_dir = item.inode.file_type() == FileType::Directory;
        if !archive.whole(&needs.own, &hit.ranges) || path.is_empty() {
            continue;
        }
        if archive.whole(&needs.way, &hit.ranges) {
            if let Err(why) = item.differs(&below(top, path), Exactness::All) {
                faults.push(format!("whole, but not salvaged: {why}"));
            }
        } else if !is_dir {
            let found = nameless.get(&item.time());
            match found.map(|path| item.differs(path, Exactness::All)) {
                Some(Ok(())) => {}
                Some(Err(why)) => faults.push(format!("whole, but not salvaged: {why}")),
                None => faults.push(format!("whole, but nowhere: {}", text(path))),
            }
        }
    }
    faults
}

/// All files below a directory by their times, of which each has its own.
fn by_time(top: &Path) -> HashMap<(i64, i64), PathBuf> {
    use std::os::unix::fs::MetadataExt;
    let time = |path: PathBuf| {
        let meta = path.symlink_metadata().ok()?;
        (!meta.is_dir()).then(|| ((meta.mtime(), meta.mtime_nsec()), path))
    };
    if top.exists() { walk(top).0.into_iter().filter_map(time).collect() } else { HashMap::new() }
}

pub(super) fn text(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

/// True for what has bytes.
pub(super) fn is_regular(body: &Body) -> bool {
    matches!(body, Body::Inline(_) | Body::Extents(_))
}
