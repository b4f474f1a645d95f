//! A portal's mount against a reference in memory: random acts, done to both;
//! what each gives, refusals included, and then the whole tree compared, across
//! remounts and kills.
//!
//! `act` has what is done, `tree` the reference, `seen` the comparison. A kill
//! must leave one of the states that there were since something was synced
//! last: all names and attributes of that very state, and content but for what
//! the kernel may have held, as `docs/semantics.md` promises.

#[path = "../common/mod.rs"]
mod common;

mod act;
mod seen;
mod tree;

use act::{Act, Files, perform};
use common::{Place, Served};
use proptest::prelude::*;
use rustix::time::{ClockId, clock_gettime};
use seen::{Loose, Seen, adopt, compare, compare_open};
use std::time::Duration;
use tree::{Ino, Tree};
use warp_fs::Caching;

/// Sequences in one run of each test, unless `WARP_MODEL_CASES` asks for more.
const CASES: u32 = 20;

fn config() -> ProptestConfig {
    let asked = std::env::var("WARP_MODEL_CASES").ok();
    let cases = asked.map_or(CASES, |cases| cases.parse().expect("WARP_MODEL_CASES is a number"));
    ProptestConfig { max_shrink_time: 60_000, ..ProptestConfig::with_cases(cases) }
}

/// The two, side by side.
struct Both {
    place: Place,
    served: Option<Served>,
    caching: Caching,
    files: Files,
    tree: Tree,
    /// What a kill may bring back: the states since the last that is durable,
    /// without the present one.
    before: Vec<Tree>,
    loose: Loose,
}

impl Both {
    fn new(caching: Caching) -> Self {
        let (place, served, files) = (Place::new(), None, Files::default());
        let (before, loose) = Default::default();
        let mut both = Self { place, served, caching, files, tree: Tree::new(), before, loose };
        both.mount();
        both
    }

    fn mount(&mut self) {
        let caching = self.caching;
        self.served = Some(self.place.mount(|options| options.caching = caching));
    }

    fn served(&self) -> &Served {
        self.served.as_ref().expect("it is mounted")
    }

    fn see(&self) -> Result<Seen, String> {
        Seen::at(&self.served().path("")).map_err(|e| format!("cannot be walked: {e}"))
    }

    /// Does it to both.
    fn act(&mut self, act: &Act) -> Result<(), String> {
        match act {
            Act::Publish => {
                self.served().portal.publish().map_err(|e| e.to_string())?;
                self.durable(None);
            }
            Act::Remount => {
                self.files = Files::default();
                self.tree.close_all();
                self.served.take().expect("it is mounted").close();
                self.mount();
                self.durable(None);
            }
            Act::Kill => return self.kill(),
            _ => self.act_on_files(act)?,
        }
        self.compare()
    }

    fn act_on_files(&mut self, act: &Act) -> Result<(), String> {
        let before = self.tree.clone();
        let now = clock_gettime(ClockId::Realtime);
        self.tree.now = Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec as u32);
        let written = written(act).and_then(|slot| before.handles[slot]).map(|handle| handle.ino);
        if let Some(ino) = written {
            let had = || self.before.iter().chain([&before]).filter_map(|tree| tree.had(ino));
            self.loose.entry(ino).or_insert_with(|| had().collect());
        }
        let root = self.served().path("");
        let (did, wanted) = (perform(act, &root, &mut self.files), self.tree.act(act));
        if did != wanted {
            return Err(format!("gave {did:.60?} instead of {wanted:.60?}"));
        }
        self.before.push(before);
        for (ino, had) in &mut self.loose {
            had.extend(self.tree.had(*ino));
        }
        match act {
            Act::Sync(slot) | Act::Drop(slot) => {
                if let Some(handle) = self.tree.handles[*slot] {
                    self.durable(Some(handle.ino));
                }
            }
            Act::SyncDir(_) if did.is_ok() => self.durable(None),
            _ => {}
        }
        Ok(())
    }

    /// All that the portal was told is: all but what the kernel holds of files
    /// that are open, unless they were synced themselves.
    fn durable(&mut self, synced: Option<Ino>) {
        self.before.clear();
        let handles = self.tree.handles;
        let is_open = |ino: &Ino| handles.iter().flatten().any(|handle| handle.ino == *ino);
        self.loose.retain(|ino, _| Some(*ino) != synced && is_open(ino));
    }

    fn compare(&self) -> Result<(), String> {
        compare(&self.tree, &self.see()?, &Loose::new())?;
        for (file, handle) in self.files.iter().zip(&self.tree.handles) {
            if let (Some(file), Some(handle)) = (file, handle) {
                compare_open(&self.tree, handle.ino, file)
                    .map_err(|e| format!("an open file{e}"))?;
            }
        }
        Ok(())
    }

    fn kill(&mut self) -> Result<(), String> {
        let served = self.served.take().expect("it is mounted");
        served.disk.kill();
        // An open file would keep the mount; what it hands over goes nowhere.
        self.files = Files::default();
        served.kill();
        self.mount();
        let seen = self.see()?;
        let mut why = None;
        let before = std::mem::take(&mut self.before);
        for mut tree in std::iter::once(self.tree.clone()).chain(before.into_iter().rev()) {
            tree.close_all();
            match compare(&tree, &seen, &self.loose) {
                Ok(()) => {
                    adopt(&mut tree, &seen, &self.loose);
                    self.tree = tree;
                    self.loose.clear();
                    return self.compare();
                }
                Err(e) => why = Some(e),
            }
        }
        Err(format!("is no state that there was since the last sync; of that one: {why:?}"))
    }
}

/// The open file that an act may write to.
fn written(act: &Act) -> Option<usize> {
    match act {
        Act::Write(slot, ..) | Act::Truncate(slot, _) | Act::Allocate(slot, ..) => Some(*slot),
        Act::Copy(_, _, slot, ..) => Some(*slot),
        _ => None,
    }
}

/// Does all; an error says what was done so far.
fn run(acts: Vec<Act>, caching: Caching) -> Result<(), String> {
    let (mut both, mut done) = (Both::new(caching), Vec::new());
    for act in acts {
        let act = act.within(&both.tree);
        done.push(format!("{act:?}"));
        both.act(&act).map_err(|e| format!("{e}\n  after {}", done.join("\n  then ")))?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_mount_is_what_was_done_to_it(acts in act::acts()) {
        run(acts, Caching::WriteBack).map_err(TestCaseError::fail)?;
    }

    #[test]
    fn a_mount_that_writes_through_is_what_was_done_to_it(acts in act::acts()) {
        run(acts, Caching::WriteThrough).map_err(TestCaseError::fail)?;
    }
}
