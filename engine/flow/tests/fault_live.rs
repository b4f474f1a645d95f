//! A portal's state on a disk that fails at each of its calls: what fails says
//! so and changes nothing, what was acknowledged stays, and once the disk works
//! again, so does everything else.

mod common;

use common::{Act, Model, open};
use std::sync::Arc;
use warp_cache::testing::{CrashDisk, Fate, Fault, FaultyDisk};
use warp_flow::Kind;

fn acts() -> Vec<Act> {
    let mut acts = Vec::new();
    for round in 0..2u8 {
        acts.extend([
            Act::Create(round),
            Act::Write(round, 0, 700),
            Act::Commit,
            Act::Create(50 + round),
            Act::Write(50 + round, 0, 60_000),
            Act::Write(50 + round, 60_000, 30_000),
            Act::Publish,
            Act::Flip(round, 100, 90),
            Act::Append(50 + round, 700),
            Act::Rename(50 + round, 60 + round),
            Act::Truncate(60 + round, 80_000),
            Act::Commit,
            Act::Remove(round),
            Act::Publish,
        ]);
    }
    acts
}

/// More calls than the acts make.
const FOR_EVER: u64 = 1000;

/// What came of the acts while the disk failed.
struct Outcome {
    /// The model after each act that was taken.
    models: Vec<Model>,
    /// Index of the last model that was acknowledged as durable.
    acknowledged: usize,
    failures: u32,
}

fn run(live: &warp_flow::live::Live) -> Outcome {
    let mut outcome = Outcome { models: vec![Model::default()], acknowledged: 0, failures: 0 };
    for act in acts() {
        let mut model = outcome.models.last().unwrap().clone();
        let changes = model.act(&act);
        let done = match act {
            Act::Commit => live.commit(),
            Act::Publish => live.publish().map(drop),
            _ if changes.is_empty() => continue,
            _ => live.apply(changes),
        };
        match (&act, done) {
            (Act::Commit | Act::Publish, Ok(())) => {
                outcome.acknowledged = outcome.models.len() - 1;
            }
            (_, Ok(())) => outcome.models.push(model),
            (_, Err(_)) => outcome.failures += 1,
        }
        // What is shown is what was taken, whatever the disk does.
        outcome.models.last().unwrap().compare(live).unwrap();
    }
    outcome
}

/// Calls that the acts make on a disk that works.
fn calls(fault: Fault) -> u64 {
    let disk = FaultyDisk::new(Arc::new(CrashDisk::default()), fault, 0, 0);
    let live = open(Arc::new(disk.clone()), 1).unwrap();
    assert_eq!(run(&live).failures, 0);
    disk.calls()
}

#[test]
fn a_disk_that_is_full_for_a_while_loses_nothing() {
    let all = calls(Fault::Full);
    let mut failures = 0;
    for from in 0..all {
        for window in [2, FOR_EVER] {
            let under = CrashDisk::default();
            let disk = FaultyDisk::new(Arc::new(under.clone()), Fault::Full, from, from + window);
            let Ok(live) = open(Arc::new(disk), 1) else { continue };
            let outcome = run(&live);
            failures += outcome.failures;
            let last = outcome.models.last().unwrap();
            if window < FOR_EVER {
                // The first attempts may use up what is left of the fault.
                let published = (0..=window).map(|_| live.publish()).find(Result::is_ok);
                assert!(published.is_some(), "call {from}, {window} fail: does not recover");
                last.compare(&live).unwrap();
            } else if let Err(e) = live.commit() {
                assert_eq!(e.kind(), Kind::Full, "call {from}: {e}");
            }
            drop(live);
            let live = open(Arc::new(under), 2).unwrap();
            let rest = &outcome.models[outcome.acknowledged..];
            let found = rest.iter().rev().find(|model| model.compare(&live).is_ok());
            let found = found.unwrap_or_else(|| panic!("call {from}, {window} fail: lost"));
            assert!(window == FOR_EVER || found.compare(&live) == last.compare(&live));
        }
    }
    assert!(failures > 50, "{failures}");
}

#[test]
fn a_broken_disk_is_never_reported_as_durable() {
    let all = calls(Fault::Broken);
    let mut failures = 0;
    for from in 0..all {
        for window in [1, FOR_EVER] {
            let under = CrashDisk::default();
            let disk = FaultyDisk::new(Arc::new(under.clone()), Fault::Broken, from, from + window);
            let Ok(live) = open(Arc::new(disk), 1) else { continue };
            let outcome = run(&live);
            failures += outcome.failures;
            drop(live);
            // The power goes: what no barrier covered is gone.
            let log = under.log();
            let image = CrashDisk::after(&log, &mut |_| Fate::Lost, 0);
            let live = open(Arc::new(image), 2)
                .unwrap_or_else(|e| panic!("call {from}, {window} fail: {e}"));
            let rest = &outcome.models[outcome.acknowledged..];
            let there = rest.iter().any(|model| model.compare(&live).is_ok());
            assert!(there, "call {from}, {window} fail: an acknowledged change is gone");
        }
    }
    assert!(failures > 50, "{failures}");
}

/// Once the disk has refused something, nothing more is taken on top of it.
#[test]
fn a_full_disk_is_told_to_the_next_who_changes_something() {
    let under = CrashDisk::default();
    let counted = FaultyDisk::new(Arc::new(under.clone()), Fault::Full, 0, 0);
    drop(open(Arc::new(counted.clone()), 1).unwrap());
    // One more change is written, then the disk is full.
    let full = counted.calls() + 1;
    let under = CrashDisk::default();
    let disk = FaultyDisk::new(Arc::new(under.clone()), Fault::Full, full, FOR_EVER);
    let live = open(Arc::new(disk), 1).unwrap();
    let mut model = Model::default();
    live.apply(model.act(&Act::Create(1))).unwrap();
    live.commit().unwrap();
    let durable = model.clone();
    live.apply(model.act(&Act::Write(1, 0, 100))).unwrap();
    assert_eq!(live.commit().unwrap_err().kind(), Kind::Full);
    for _ in 0..3 {
        let refused = live.apply(model.clone().act(&Act::Create(2))).unwrap_err();
        assert_eq!(refused.kind(), Kind::Full);
    }
    model.compare(&live).unwrap();
    drop(live);
    durable.compare(&open(Arc::new(under), 2).unwrap()).unwrap();
}
