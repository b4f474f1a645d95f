//! Peers that die, stall, lie, lack, refuse, and join late.

use crate::bound;
use crate::world::{Actor, GIB, KIB, MB, MIB, MS, Piece, Run, SECOND, World, run, whole};
use warp_plan::{Due, PeerNo};

/// Four peers of 30 MB/s at 10 ms.
fn even() -> Vec<Actor> {
    (0..4).map(|_| Actor::new(30 * MB, 10 * MS)).collect()
}

fn ratio(actors: &[Actor], pieces: &[Piece], run: &Run) -> f64 {
    run.makespan() as f64 / bound::fluid(actors, pieces) as f64
}

fn quarter(actors: &[Actor]) -> Vec<Piece> {
    whole(actors, GIB / 4, 256 * KIB)
}

#[test]
fn sim_a_peer_dies_silently_and_the_reader_hardly_notices() {
    // Whichever it is, whenever it is.
    for (peer, at) in [(0, 900), (1, 1_000), (2, 1_100), (3, 1_250)] {
        let mut actors = even();
        actors[peer].faults.dies = Some(at * MS);
        let pieces = quarter(&actors);
        let run = run(&actors, &pieces);
        let gap = run.gap(at * MS);
        assert!(gap <= 150 * MS, "peer {peer}: {gap} µs without a byte in order");
        let ratio = ratio(&actors, &pieces, &run);
        assert!(ratio <= 1.03, "{ratio}");
        assert!(run.waste_share() <= 0.01);
    }
}

#[test]
fn sim_a_closed_connection_is_made_up_for_within_a_round_trip() {
    let mut actors = even();
    actors[1].faults.leaves = Some(SECOND);
    let pieces = quarter(&actors);
    let run = run(&actors, &pieces);
    let gap = run.gap(SECOND);
    // A round trip, and a chunk at the rate of one peer, twice: the chunk that
    // was lost may have to wait for the one under way.
    let chunk = 256 * KIB * SECOND / (30 * MB);
    assert!(gap <= 10 * MS + 20 * MS + 2 * chunk, "{gap} µs without a byte in order");
    assert!(ratio(&actors, &pieces, &run) <= 1.02);
}

#[test]
fn sim_all_but_one_die_at_once() {
    let mut actors = even();
    for actor in &mut actors[1..] {
        actor.faults.dies = Some(SECOND);
    }
    let pieces = quarter(&actors);
    let run = run(&actors, &pieces);
    assert!(run.gap(SECOND) <= 200 * MS);
    assert!(ratio(&actors, &pieces, &run) <= 1.03);
}

#[test]
fn sim_one_peer_stalls_mid_file_and_comes_back() {
    let mut actors = even();
    actors[2].rates = vec![(0, 30 * MB), (SECOND, 0), (SECOND + 300 * MS, 30 * MB)];
    let pieces = quarter(&actors);
    let run = run(&actors, &pieces);
    assert!(run.gap(SECOND) <= 150 * MS);
    assert!(run.counts.suspected >= 1);
    let later = run.log.iter().any(|(at, a)| *at > SECOND + 300 * MS && a.peer == PeerNo(2));
    assert!(later, "it is asked again once it delivers");
    let ratio = ratio(&actors, &pieces, &run);
    assert!(ratio <= 1.03, "{ratio}");
    assert!(run.waste_share() <= 0.01);
}

#[test]
fn sim_a_silent_peer_that_alone_has_a_chunk_is_tried_until_it_answers() {
    let mut actors = even();
    actors[3].rates = vec![(0, 0), (4 * SECOND, 30 * MB)];
    let mut pieces = quarter(&actors);
    pieces[5].holders = [PeerNo(3)].into_iter().collect();
    let run = run(&actors, &pieces);
    assert!(run.done[5] >= 4 * SECOND);
    assert!(run.done[5] <= 10 * SECOND, "it came {} µs after the start", run.done[5]);
}

#[test]
fn sim_a_slowloris_keeps_nobody_waiting() {
    // It delivers just enough never to be silent.
    let mut actors = even();
    actors[0] = actors[0].clone().then(SECOND, 100_000);
    let pieces = quarter(&actors);
    let run = run(&actors, &pieces);
    assert!(run.gap(SECOND) <= 250 * MS, "{}", run.gap(SECOND));
    let ratio = ratio(&actors, &pieces, &run);
    assert!(ratio <= 1.05, "{ratio}");
    assert!(run.waste_share() <= 0.01, "{}", run.waste_share());
}

#[test]
fn sim_a_liar_is_never_asked_again_after_its_first_lie() {
    for truncates in [false, true] {
        let mut actors = even();
        let every = Some(10);
        if truncates {
            actors[1].faults.truncates_every = every;
        } else {
            actors[1].faults.lies_every = every;
        }
        let pieces = quarter(&actors);
        let run = run(&actors, &pieces);
        assert_eq!(run.bad, [0, 1, 0, 0]);
        assert_eq!(run.counts.quarantined, 1);
        assert!(run.waste_share() <= 0.01);
        // The liar counts for nothing, and nothing is waited for.
        let mut honest = actors.clone();
        honest[1].faults.dies = Some(300 * MS);
        assert!(ratio(&honest, &pieces, &run) <= 1.03);
    }
}

#[test]
fn sim_not_having_only_corrects_the_map() {
    let mut actors = even();
    actors[1].faults.lacks_every = Some(3);
    let pieces = quarter(&actors);
    let run = run(&actors, &pieces);
    assert_eq!(run.counts.quarantined, 0);
    let asked = run.log.iter().filter(|(_, a)| a.peer == PeerNo(1)).count();
    assert!(asked > 150, "it is still asked for the rest: {asked}");
    assert!(ratio(&actors, &pieces, &run) <= 1.03);
}

#[test]
fn sim_a_busy_peer_is_left_alone_and_asked_again() {
    let mut actors = even();
    actors[1].faults.busy_above = Some(1);
    let pieces = quarter(&actors);
    let run = run(&actors, &pieces);
    let asked: Vec<u64> =
        run.log.iter().filter(|(_, a)| a.peer == PeerNo(1)).map(|(at, _)| *at).collect();
    assert!(asked.len() > 10, "it is asked again");
    assert!(asked.last().is_some_and(|at| *at > run.makespan() / 2), "until the end");
    let mut rest = actors.clone();
    rest[1].faults.dies = Some(1);
    assert!(ratio(&rest, &pieces, &run) <= 1.02, "no worse than without it");
}

#[test]
fn sim_a_stream_that_is_reset_is_asked_elsewhere_at_once() {
    let mut actors = even();
    actors[1].faults.resets_every = Some(7);
    let pieces = quarter(&actors);
    let run = run(&actors, &pieces);
    let ratio = ratio(&actors, &pieces, &run);
    assert!(ratio <= 1.05, "{ratio}");
}

#[test]
fn sim_who_joins_late_takes_its_part() {
    let mut actors = even();
    actors[3].joins = SECOND;
    actors[3].rates = vec![(0, 100 * MB)];
    let pieces = whole(&actors, GIB / 2, MIB);
    let run = run(&actors, &pieces);
    let ratio = ratio(&actors, &pieces, &run);
    assert!(ratio <= 1.02, "{ratio}");
}

#[test]
fn sim_the_own_link_is_the_bottleneck_and_nobody_is_hedged() {
    let actors: Vec<Actor> = (0..6).map(|_| Actor::new(60 * MB, 15 * MS)).collect();
    let pieces = quarter(&actors);
    let run = World::new(&actors, &pieces).with_downlink(90 * MB).run();
    let bound = 15 * MS + GIB / 4 * SECOND / (90 * MB);
    let ratio = run.makespan() as f64 / bound as f64;
    assert!(ratio <= 1.05, "{ratio}");
    assert_eq!((run.counts.hedged, run.counts.suspected), (0, 0));
    assert!(run.waste_share() <= 0.01);
}

#[test]
fn sim_a_cold_small_read_takes_what_the_nearest_takes() {
    // Peers A, none of them known; each size of chunk, waited for or not.
    let actors: Vec<Actor> = [(100, 5), (50, 20), (20, 50), (5, 100)]
        .map(|(rate, rtt)| Actor::new(rate * MB, rtt * MS))
        .to_vec();
    for total in [64 * KIB, 256 * KIB, MIB] {
        for len in [64 * KIB, 256 * KIB, MIB].into_iter().filter(|len| *len <= total) {
            for due in [Due::By(0), Due::By(50 * MS), Due::Bulk(0)] {
                let mut pieces = whole(&actors, total, len);
                pieces.iter_mut().for_each(|piece| piece.due = due);
                let took = run(&actors, &pieces).makespan();
                let ideal = 5 * MS + total * SECOND / (100 * MB);
                let ratio = took as f64 / ideal as f64;
                assert!(ratio <= 1.25, "{total} bytes by {len}, {due:?}: {ratio}");
            }
        }
    }
}
