//! A portal's state is cut at every point of its own write log: it always
//! opens, is what it was after some act between the last acknowledged one and
//! the last one done, and goes on from there.

mod common;

use common::{Act, Model, open};
use std::sync::Arc;
use warp_cache::testing::{Barrier, CrashDisk, Fate, Op};
use warp_flow::live::Live;

/// A day's work: files made, appended to, replaced by rename, removed, with
/// commits and publishes in between.
fn acts() -> Vec<Act> {
    let mut acts = Vec::new();
    for round in 0..4u8 {
        acts.extend([
            Act::Create(round),
            Act::Write(round, 0, 700),
            Act::Commit,
            Act::Write(round, 700, 900 + 300 * u16::from(round)),
            Act::Flip(0, 300, 64),
            Act::Append(round, 80),
            Act::Commit,
            Act::Publish,
            Act::Create(100 + round),
            Act::Write(100 + round, 0, 400),
            Act::Truncate(0, 500 + 10 * u32::from(round)),
            Act::Commit,
            Act::Remove(0),
            Act::Rename(100 + round, 0),
            Act::Commit,
        ]);
        if round % 2 == 1 {
            acts.push(Act::Publish);
        }
    }
    acts
}

/// Runs the acts; marks after each commit and publish how many acts are
/// acknowledged. Gives the model after each act.
fn run(disk: &CrashDisk) -> Vec<Model> {
    let live = open(Arc::new(disk.clone()), 1).unwrap();
    let mut models = vec![Model::default()];
    for (i, act) in acts().iter().enumerate() {
        if step(&live, &mut models, act) {
            disk.mark(i as u64 + 1);
        }
    }
    models
}

/// Does an act and adds the model after it; true if it acknowledged all.
fn step(live: &Live, models: &mut Vec<Model>, act: &Act) -> bool {
    let mut model = models[models.len() - 1].clone();
    let changes = model.act(act);
    models.push(model);
    if !changes.is_empty() {
        live.apply(changes).unwrap();
    }
    match act {
        Act::Commit => live.commit().unwrap(),
        Act::Publish => drop(live.publish().unwrap()),
        _ => return false,
    }
    true
}

fn check(log: &[Op], image: CrashDisk, models: &[Model]) -> Result<(), String> {
    let acknowledged = log
        .iter()
        .rev()
        .find_map(|op| if let Op::Mark(m) = op { Some(*m as usize) } else { None })
        .unwrap_or(0);
    let disk = Arc::new(image);
    let live = open(Arc::<CrashDisk>::clone(&disk), 2).map_err(|e| e.to_string())?;
    let found = (acknowledged..models.len()).find(|i| models[*i].compare(&live).is_ok());
    let Some(found) = found else {
        let why = models[acknowledged].compare(&live).unwrap_err();
        return Err(format!("acknowledged {acknowledged}: {why}"));
    };
    // It goes on: a new file, published, is there after another start.
    let mut model = models[found].clone();
    for act in [Act::Create(200), Act::Write(200, 0, 100)] {
        live.apply(model.act(&act)).map_err(|e| e.to_string())?;
    }
    live.publish().map_err(|e| format!("publish after the crash: {e}"))?;
    drop(live);
    let live = open(disk, 3).map_err(|e| format!("second start: {e}"))?;
    model.compare(&live).map_err(|e| format!("after the second start: {e}"))
}

/// Every `step`-th prefix of the log, whole, bare, and with `rounds` random
/// fates each.
fn crashes(disk: &CrashDisk, models: &[Model], step: usize, rounds: u64) -> Result<u64, String> {
    let log = disk.log();
    let mut images = 0;
    for cut in (0..=log.len()).step_by(step) {
        let log = &log[..cut];
        let loose = log.iter().rev().take_while(|op| **op != Op::SyncNames);
        let loose = loose.filter(|op| op.is_naming()).count();
        for names in 0..=loose {
            for seed in 0..rounds + 2 {
                let mut state = (seed << 32 | cut as u64 | 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                let mut fate = |_: &Op| {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    match (seed, state % 5) {
                        (0, _) => Fate::Whole,
                        (1, _) | (_, 0) => Fate::Lost,
                        (_, 1) => Fate::Torn(512 * (state >> 40 & 3) as usize),
                        (_, 2) => Fate::Torn(4096 * (state >> 40 & 1) as usize),
                        _ => Fate::Whole,
                    }
                };
                let image = CrashDisk::after(log, &mut fate, names);
                check(log, image, models).map_err(|e| format!("cut {cut} seed {seed}: {e}"))?;
                images += 1;
            }
        }
    }
    Ok(images)
}

#[test]
fn every_acknowledged_change_survives_a_power_cut_at_any_point() {
    let disk = CrashDisk::default();
    let models = run(&disk);
    let images = crashes(&disk, &models, 1, 4).unwrap();
    assert!(images > 500, "{images}");
}

#[test]
fn a_disk_that_drops_any_kind_of_barrier_is_caught() {
    for barrier in
        [Barrier::File("own-"), Barrier::File("journal-"), Barrier::File("head-"), Barrier::Names]
    {
        let disk = CrashDisk::new(Some(barrier));
        let models = run(&disk);
        let result = crashes(&disk, &models, 1, 2);
        assert!(result.is_err(), "{barrier:?} dropped and nothing noticed");
    }
}

/// A killed process leaves bytes that no barrier covers, and the next one
/// reads them back from memory: what it builds on them must not outlast them.
#[test]
fn a_kill_a_restart_and_then_a_power_cut_lose_nothing_acknowledged() {
    for killed_after in (3..acts().len()).step_by(4) {
        let disk = CrashDisk::default();
        let mut models = vec![Model::default()];
        let live = open(Arc::new(disk.clone()), 1).unwrap();
        let mut acknowledged = 0;
        for (i, act) in acts()[..killed_after].iter().enumerate() {
            if step(&live, &mut models, act) {
                acknowledged = i + 1;
                disk.mark(acknowledged as u64);
            }
        }
        drop(live);
        models.truncate(acknowledged + 1);
        let live = open(Arc::new(disk.clone()), 2).unwrap();
        models[acknowledged].compare(&live).unwrap();
        let more =
            [Act::Create(210), Act::Write(210, 0, 2000), Act::Commit, Act::Publish, Act::Commit];
        for act in &more {
            if step(&live, &mut models, act) {
                disk.mark(models.len() as u64 - 1);
            }
        }
        let result = crashes(&disk, &models, 3, 1);
        result.unwrap_or_else(|e| panic!("killed after {killed_after}: {e}"));
    }
}
