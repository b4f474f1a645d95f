//! Peers that cost money, run on battery, or may be asked at some times only.

use crate::world::{Actor, GIB, KIB, MB, MS, Run, SECOND, World, whole};
use warp_plan::{Due, Micros, PeerNo};

fn two() -> Vec<Actor> {
    vec![Actor::new(10 * MB, 10 * MS), Actor::new(50 * MB, 10 * MS)]
}

fn asked(run: &Run, peer: u8) -> usize {
    run.log.iter().filter(|(_, assignment)| assignment.peer == PeerNo(peer)).count()
}

fn with_goal(actors: &[Actor], goal: Option<Micros>) -> Run {
    let pieces = whole(actors, GIB / 32, 256 * KIB);
    let mut world = World::new(actors, &pieces);
    world.planner().bulk_goal(goal);
    world.run()
}

#[test]
fn sim_a_metered_peer_is_asked_only_if_the_goal_is_missed_without_it() {
    let mut actors = two();
    for battery in [false, true] {
        (actors[1].traits.metered, actors[1].traits.battery) = (!battery, battery);
        // 32 MiB at 10 MB/s take 3.4 s.
        assert_eq!(asked(&with_goal(&actors, None), 1), 0);
        assert_eq!(asked(&with_goal(&actors, Some(4 * SECOND)), 1), 0);
        let run = with_goal(&actors, Some(2 * SECOND));
        assert!(asked(&run, 1) > 0);
        assert!(run.makespan() <= 2 * SECOND + 100 * MS, "{}", run.makespan());
    }
}

#[test]
fn sim_what_only_a_metered_peer_has_comes_from_it() {
    let mut actors = two();
    actors[1].traits.metered = true;
    let mut pieces = whole(&actors, GIB / 64, 256 * KIB);
    pieces[3].holders = [PeerNo(1)].into_iter().collect();
    let run = World::new(&actors, &pieces).run();
    assert_eq!(asked(&run, 1), 1);
}

#[test]
fn sim_a_reader_does_not_wait_for_the_sake_of_money() {
    let mut actors = two();
    actors[1].traits.metered = true;
    let mut pieces = whole(&actors, GIB / 64, 256 * KIB);
    for (number, piece) in pieces.iter_mut().enumerate() {
        // A chunk each 8 ms: three times what the first peer can do.
        piece.due = Due::By(100 * MS + number as u64 * 8 * MS);
    }
    let run = World::new(&actors, &pieces).run();
    assert!(asked(&run, 1) > 0);
    assert!(run.makespan() <= 900 * MS, "{}", run.makespan());
}

#[test]
fn sim_a_peer_is_asked_within_its_window_only() {
    let mut actors = two();
    actors[1].traits.open_from = SECOND;
    actors[1].traits.open_until = 2 * SECOND;
    let run = with_goal(&actors, None);
    let at: Vec<Micros> =
        run.log.iter().filter(|(_, a)| a.peer == PeerNo(1)).map(|(at, _)| *at).collect();
    assert!(!at.is_empty() && at.iter().all(|at| (SECOND..2 * SECOND).contains(at)), "{at:?}");
    assert!(at[0] < SECOND + 10 * MS, "as soon as it opens");
}
