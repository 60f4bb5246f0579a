//! Machines that are waited for, or were not waited for long enough.

use std::sync::Arc;

use super::*;
use crate::analysis::Analysis;
use crate::correlate::clock::MAX_HELD;
use crate::expect::Family;
use crate::model::{EventKind, Hook, Loss};

/// One packet there, and one back; the clocks of the two nodes are hours apart.
fn there_and_back() -> World {
    let clocks = vec![Oscillator::default(), Oscillator { base: 1 << 43, ..Oscillator::default() }];
    let mut world = World::new(false, clocks);
    world.trip(1, BEGIN, MS, MS);
    let way = 50_000;
    world.cross(&ping(Direction::Forward, 1, 1), Direction::Forward, BEGIN + 10 * MS, way);
    world.cross(&ping(Direction::Reply, 1, 2), Direction::Reply, BEGIN + 20 * MS, way);
    world
}

fn analysis(world: &World) -> Analysis {
    let mut analysis = Analysis::new([(Family::V4, Arc::new(world.tape.topology.clone()))]);
    world.trips.iter().for_each(|trip| analysis.round_trip(trip));
    analysis
}

fn clocks(world: &World) -> Clocks {
    let mut clocks = Clocks::new(&world.tape.topology);
    world.trips.iter().for_each(|trip| clocks.round_trip(trip));
    clocks
}

#[test]
fn a_machine_that_is_gone_is_not_waited_for() {
    let world = there_and_back();
    let [here, there] = &world.seen()[..] else { panic!("two machines") };
    let mut clocks = clocks(&world);
    assert_eq!(clocks.take(here.clone()), []);
    assert_eq!(clocks.take(Vec::new()), [], "nobody has told how far machines are");
    assert_eq!(clocks.take(there.clone()), []);
    assert_eq!(clocks.reached(0, Some(here[0].clock.ns)), []);
    let first = there[0].clock.ns;
    assert_eq!(clocks.reached(1, Some(first - 20 * 1_000_000)), []);
    assert_eq!(clocks.reached(0, None), []);
    let events = clocks.reached(1, None);
    assert_eq!(events.len(), here.len() + there.len());
    assert!(events.iter().all(|e| (e.error_ns > 0) == (e.clock.machine == 1)));
    assert!(matches!(events[0].kind, EventKind::Hop(Hook::Egress)));
    assert_eq!(clocks.late().count(), 0);
}

/// A node whose events come long after those of the other, from the very first one on: both
/// directions are whole all the same.
#[test]
fn a_node_that_is_slow_to_tell_splits_no_packet() {
    let world = there_and_back();
    let [here, there] = &world.seen()[..] else { panic!("two machines") };
    let end = |events: &[Event]| Some(events.iter().map(|e| e.clock.ns).max().unwrap_or(0) + 1);
    let mut analysis = analysis(&world);
    analysis.push(here.clone());
    // Nothing more is on its way from here; of the other nobody has said anything.
    analysis.push(Vec::new());
    analysis.reached(0, end(here));
    analysis.push(Vec::new());
    analysis.push(there.clone());
    analysis.reached(1, end(there));
    let observation = Observation { end_ns: u64::MAX / 4, ..Observation::default() };
    let analyzed = analysis.finish(observation);
    let journeys = &analyzed.traces[0].2.journeys;
    let outcomes: Vec<_> = journeys.iter().map(|j| (j.direction, j.outcome)).collect();
    let whole = |direction| (direction, Outcome::Delivered);
    assert_eq!(outcomes, [whole(Direction::Forward), whole(Direction::Reply)]);
    assert_eq!(analyzed.observation.events_lost(), 0);
}

#[test]
fn what_comes_after_all_was_said_to_be_told_is_late() {
    let world = there_and_back();
    let [here, there] = &world.seen()[..] else { panic!("two machines") };
    let mut analysis = analysis(&world);
    analysis.push(here.clone());
    let later = |events: &[Event]| Some(events.last().unwrap().clock.ns + 1_000_000_000);
    analysis.reached(1, later(there));
    // Said, but nobody has relied on it yet.
    analysis.push(there[..1].to_vec());
    analysis.reached(0, later(here));
    analysis.push(there[1..].to_vec());
    let observation = Observation { end_ns: u64::MAX / 4, ..Observation::default() };
    let analyzed = analysis.finish(observation);
    let late = there.len() as u64 - 1;
    assert_eq!(analyzed.observation.loss, [("B".to_owned(), Loss { late, ..Loss::default() })]);
    assert_eq!(analyzed.observation.events_lost(), late);
}

#[test]
fn what_is_held_is_bounded_and_what_it_costs_is_counted() {
    let world = there_and_back();
    let [here, there] = &world.seen()[..] else { panic!("two machines") };
    let mut clocks = clocks(&world);
    // One node goes on and on, the other has told nothing yet.
    let (first, many) = (&here[0], MAX_HELD as u64 + 1);
    let later = |n: u64| {
        let ns = first.clock.ns + n * 1_000_000;
        Event { time_ns: ns, clock: Reading { ns, ..first.clock }, ..first.clone() }
    };
    let handed = clocks.take((0..many).map(later).collect());
    assert_eq!(handed.len() as u64, many / 2);
    assert!(handed.is_sorted_by_key(|e| e.time_ns));
    assert_eq!(clocks.late().count(), 0);
    assert_eq!(clocks.take(there.clone()), []);
    assert_eq!(clocks.late().collect::<Vec<_>>(), [(1, there.len() as u64)]);
    assert_eq!(clocks.rest().len() as u64, many - many / 2 + there.len() as u64);
}
