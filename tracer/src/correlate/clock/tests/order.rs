//! Events of two machines, their clocks far apart, put in order.

mod waiting;

use proptest::prelude::*;

use super::Oscillator;
use crate::correlate::testing::*;
use crate::correlate::{Clocks, Correlator, Limits};
use crate::model::{
    Direction, Event, Observation, Outcome, Reading, Role, RoundTrip, Topology, Trace,
};

const MS: i64 = 1_000_000;
/// When traces begin, real time, ns.
const BEGIN: i64 = 1_000 * MS;

/// Two nodes on machines of their own, and a collector on a third if `apart`.
fn topology(apart: bool) -> Topology {
    let mut topology = cross_node();
    topology.forward.retain(|p| topology.stations[usize::from(p.station.0)].role != Role::Wire);
    topology.reply.retain(|p| topology.stations[usize::from(p.station.0)].role != Role::Wire);
    let numbers = if apart { [("A", 1), ("B", 2)] } else { [("A", 0), ("B", 1)] };
    topology.machines =
        numbers.iter().filter(|(_, n)| *n > 0).map(|(node, n)| ((*node).to_owned(), *n)).collect();
    topology
}

/// What happened, in real time.
struct World {
    tape: Tape,
    clocks: Vec<Oscillator>,
    trips: Vec<RoundTrip>,
}

impl World {
    fn new(apart: bool, clocks: Vec<Oscillator>) -> Self {
        Self { tape: Tape::new(topology(apart)), clocks, trips: Vec::new() }
    }

    /// A packet crosses, taking `way` ns between the nodes and a µs to the next point else.
    fn cross(&mut self, sample: &Sample, direction: Direction, begin: i64, way: i64) -> i64 {
        let mut at = begin;
        let mut before = None;
        for point in self.tape.topology.path(direction).to_vec() {
            let node = self.tape.topology.station(point.station).node.clone();
            at += if before.as_ref().is_some_and(|b| *b != node) { way } else { 1_000 };
            before = Some(node);
            self.tape.hop(sample, direction, point, at.unsigned_abs());
        }
        at
    }

    fn trip(&mut self, machine: u16, asked: i64, there: i64, back: i64) {
        let read = |m: u16, at: i64| self.clocks[usize::from(m)].at(at).unsigned_abs();
        self.trips.push(RoundTrip {
            asked_ns: read(0, asked),
            reading: Reading { machine, ns: read(machine, asked + there) },
            answered_ns: read(0, asked + there + back),
        });
    }

    /// Real events as the machines saw them: each machine's in its order, one machine behind the
    /// other.
    fn seen(&self) -> Vec<Vec<Event>> {
        let mut machines = vec![Vec::new(); self.clocks.len()];
        let mut events = self.tape.events.clone();
        events.sort_by_key(|e| e.time_ns);
        for mut event in events {
            let station = self.tape.topology.station(event.station.unwrap());
            let machine = self.tape.topology.machine(&station.node);
            let real = i64::try_from(event.time_ns).unwrap();
            event.time_ns = self.clocks[usize::from(machine)].at(real).unsigned_abs();
            event.clock = Reading { machine, ns: event.time_ns };
            machines[usize::from(machine)].push(event);
        }
        machines
    }

    /// The trace, told as an analysis is.
    fn trace(&self, batch: usize, order: &[u16]) -> (Trace, Clocks) {
        let mut clocks = Clocks::new(&self.tape.topology);
        let mut correlator = Correlator::new(&self.tape.topology, Limits::default());
        for trip in &self.trips {
            clocks.round_trip(trip);
        }
        let mut queues = self.seen();
        let mut said = vec![0; queues.len()];
        while queues.iter().any(|q| !q.is_empty()) {
            for machine in order {
                let queue = &mut queues[usize::from(*machine)];
                let events: Vec<Event> = queue.drain(..batch.min(queue.len())).collect();
                if let Some(last) = events.last() {
                    said[usize::from(*machine)] = last.clock.ns;
                }
                let until = if queue.is_empty() { None } else { Some(said[usize::from(*machine)]) };
                for ready in [clocks.take(events), clocks.reached(*machine, until)] {
                    if !ready.is_empty() {
                        correlator.push(ready);
                        correlator.push([]);
                    }
                }
            }
        }
        let rest = clocks.rest();
        if !rest.is_empty() {
            correlator.push(rest);
        }
        correlator.push([]);
        correlator.retime(&clocks);
        let observation = Observation { end_ns: u64::MAX / 4, ..Observation::default() };
        (correlator.finish(&observation), clocks)
    }

    /// Every place that is said is true within its error, against the clock of the first node.
    fn check(&self, trace: &Trace) -> Result<(), TestCaseError> {
        let mut real = std::collections::HashMap::new();
        for event in &self.tape.events {
            let station = self.tape.topology.station(event.station.unwrap());
            let machine = self.tape.topology.machine(&station.node);
            let at = i64::try_from(event.time_ns).unwrap();
            let shown = self.clocks[usize::from(machine)].at(at).unsigned_abs();
            real.insert(Reading { machine, ns: shown }, at);
        }
        let axis = self.tape.topology.machine("A");
        for journey in &trace.journeys {
            prop_assert!(journey.hops.windows(2).all(|w| w[0].time_ns <= w[1].time_ns));
            for hop in &journey.hops {
                let truth = self.clocks[usize::from(axis)].at(real[&hop.clock]).unsigned_abs();
                prop_assert!(
                    hop.time_ns.abs_diff(truth) <= hop.error_ns,
                    "{} ± {}, in truth {truth}",
                    hop.time_ns,
                    hop.error_ns
                );
            }
            let crossing =
                journey.hops.windows(2).find(|w| w[0].clock.machine != w[1].clock.machine);
            if let Some([left, arrived]) = crossing {
                prop_assert!(arrived.error_since(left) > 0);
                prop_assert!(arrived.time_ns >= left.time_ns);
            }
        }
        Ok(())
    }
}

fn oscillator() -> impl Strategy<Value = Oscillator> {
    (1i64 << 38..1 << 44, -450i64..450).prop_map(|(base, ppm)| Oscillator {
        base,
        ppm,
        steps: Vec::new(),
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Clocks hours apart, asymmetric ways, batches in any order: every packet is one journey over
    /// both nodes, in the order in which it happened, and no time is further off than said.
    #[test]
    fn packets_are_followed_over_machines_whatever_their_clocks_show(
        clocks in prop::collection::vec(oscillator(), 3),
        apart in any::<bool>(),
        pings in prop::collection::vec((0..200 * MS, 1_000..5 * MS, 1_000..5 * MS), 1..40),
        (there, back) in (100_000..20 * MS, 100_000..20 * MS),
        (batch, turn) in (1usize..40, any::<bool>()),
    ) {
        let machines = if apart { 3 } else { 2 };
        let mut world = World::new(apart, clocks[..machines].to_vec());
        for machine in 1..machines {
            world.trip(u16::try_from(machine).unwrap(), BEGIN, there, back);
        }
        let mut at = BEGIN + 50 * MS;
        for (seq, (gap, forth, home)) in (0u16..).zip(&pings) {
            at += gap;
            let id = u32::from(seq) + 1;
            let arrived = world.cross(&ping(Direction::Forward, seq, id), Direction::Forward, at, *forth);
            world.cross(&ping(Direction::Reply, seq, id), Direction::Reply, arrived + 1_000, *home);
        }
        let mut order: Vec<u16> = (0..u16::try_from(machines).unwrap()).collect();
        if turn {
            order.reverse();
        }
        let (trace, clocks) = world.trace(batch, &order);
        world.check(&trace)?;
        prop_assert_eq!(trace.journeys.len(), 2 * pings.len());
        prop_assert!(trace.journeys.iter().all(|j| j.outcome == Outcome::Delivered && j.hops.len() == 10));
        let nodes = clocks.nodes(&world.tape.topology);
        prop_assert_eq!(nodes.iter().map(|n| n.node.as_str()).collect::<Vec<_>>(), ["A", "B"]);
        prop_assert!(nodes[0].same && !nodes[1].same);
        prop_assert_eq!(nodes[1].packets, 2 * pings.len() as u64);
    }
}

#[test]
fn many_packets_make_the_bound_half_of_the_way_there_and_back() {
    let clocks = vec![
        Oscillator { base: 1 << 40, ..Oscillator::default() },
        Oscillator { base: 1 << 43, ppm: 200, ..Oscillator::default() },
    ];
    let mut world = World::new(false, clocks);
    world.trip(1, BEGIN, 3 * MS, 2 * MS);
    for seq in 0..295u16 {
        let at = BEGIN + 10 * MS + i64::from(seq) * 100 * MS;
        let id = u32::from(seq) + 1;
        let queue = i64::from(seq % 7) * 40_000;
        let arrived =
            world.cross(&ping(Direction::Forward, seq, id), Direction::Forward, at, 30_000 + queue);
        world.cross(&ping(Direction::Reply, seq, id), Direction::Reply, arrived, 50_000);
    }
    let (trace, clocks) = world.trace(16, &[0, 1]);
    world.check(&trace).unwrap();
    let [_, node] = &clocks.nodes(&world.tape.topology)[..] else { panic!("two nodes") };
    // 80 µs there and back: the last packets had not to wait.
    assert!((40_000..41_000).contains(&node.error_ns), "{}", node.error_ns);
    let drift = node.drift_ppm.unwrap();
    assert!((drift - 200.0).abs() < 10.0, "{drift}");
    assert_eq!((node.steps, node.round_trips), (0, 1));
}

/// Super-packets, cut where nobody sees it and merged across their borders, faster than any other
/// packet: what is recognised of them keeps the order right.
#[test]
fn super_packets_are_followed_over_machines() {
    const MSS: u32 = 1448;
    for numbered in [true, false] {
        let clocks = vec![
            Oscillator { base: 1 << 40, ppm: 80, ..Oscillator::default() },
            Oscillator { base: 1 << 43, ppm: -80, ..Oscillator::default() },
        ];
        let mut world = World::new(false, clocks);
        world.trip(1, BEGIN, MS, 3 * MS);
        let sample = |segment: u32, count: u32| {
            let id = if numbered { 1 + segment } else { 0 };
            let mut sample = data(id, 5000 + segment * MSS, count * MSS);
            sample.skb = u64::from(segment) << 8 | u64::from(count);
            sample
        };
        let mut at = BEGIN + 10 * MS;
        let mut arrived = 0;
        for packet in 0..60u32 {
            at += 200_000;
            let path = world.tape.topology.forward.clone();
            let time = |step: i64| (at + step * 1_000).unsigned_abs();
            for (i, point) in (0i64..).zip(&path[..5]) {
                world.tape.hop(&sample(packet * 10, 10), Direction::Forward, *point, time(i));
            }
            // Merged in sevens, with a rest at the end.
            let left = (packet + 1) * 10;
            let way = i64::from(packet * 37 % 11) * 3 + 5;
            while arrived < left && (arrived + 7 <= left || packet == 59) {
                let count = (left - arrived).min(7);
                for (i, point) in (0i64..).zip(&path[5..]) {
                    let merged = sample(arrived, count);
                    world.tape.hop(&merged, Direction::Forward, *point, time(4 + way + i));
                }
                arrived += count;
            }
            if packet % 8 == 0 {
                let ack =
                    tcp(Direction::Reply, if numbered { packet + 1 } else { 0 }, packet, 16, 0);
                world.cross(&ack, Direction::Reply, at + 100_000, 300_000);
            }
        }
        let (trace, _) = world.trace(9, &[1, 0]);
        world.check(&trace).unwrap();
        let forward: Vec<_> =
            trace.journeys.iter().filter(|j| j.direction == Direction::Forward).collect();
        assert_eq!(forward.len(), 60, "numbered: {numbered}");
        assert!(forward.iter().all(|j| j.outcome == Outcome::Delivered && j.missing.is_empty()));
    }
}

/// A guest that stands still for a while, and one whose clock is set, in the midst of a trace.
#[test]
fn a_suspended_guest_is_noticed() {
    for step in [-3_000 * MS, 400 * MS] {
        let steps = vec![(BEGIN + 1_000 * MS, step)];
        let clocks = vec![
            Oscillator { base: 1 << 40, ppm: -100, ..Oscillator::default() },
            Oscillator { base: 1 << 43, ppm: 100, steps },
        ];
        let mut world = World::new(false, clocks);
        world.trip(1, BEGIN, 2 * MS, 2 * MS);
        for seq in 0..40u16 {
            let awake = if seq < 20 { BEGIN + 10 * MS } else { BEGIN + 4_100 * MS };
            let at = awake + i64::from(seq % 20) * 40 * MS;
            let id = u32::from(seq) + 1;
            let there =
                world.cross(&ping(Direction::Forward, seq, id), Direction::Forward, at, 70_000);
            world.cross(&ping(Direction::Reply, seq, id), Direction::Reply, there + 1_000, 90_000);
        }
        let (trace, clocks) = world.trace(8, &[0, 1]);
        world.check(&trace).unwrap();
        // A packet that is under way when a clock is set may be taken for two: until the clock's first
        // answer, nothing tells the step from a slow network.
        let whole = trace.journeys.iter().filter(|j| j.outcome == Outcome::Delivered).count();
        assert!(whole >= 76, "{step}: {whole} of 80");
        let [_, node] = &clocks.nodes(&world.tape.topology)[..] else { panic!("two nodes") };
        assert_eq!(node.steps, 1);
        assert!(node.error_ns < 200_000, "{}", node.error_ns);
    }
}

#[test]
fn one_machine_costs_nothing_and_is_exact() {
    let mut tape = Tape::new(cross_node());
    tape.cross(&ping(Direction::Forward, 1, 1), Direction::Forward, ARMED);
    let mut clocks = Clocks::new(&tape.topology);
    let events = clocks.take(tape.events.clone());
    assert_eq!(events, tape.events);
    assert!(!clocks.several() && clocks.rest().is_empty());
    let nodes = clocks.nodes(&tape.topology);
    assert_eq!(nodes.iter().map(|n| n.node.as_str()).collect::<Vec<_>>(), ["A", "B"]);
    assert!(nodes.iter().all(|n| n.same && n.offset_ns == 0 && n.error_ns == 0));
}

#[test]
fn readings_from_anywhere_overflow_nothing() {
    let mut clocks = Clocks::new(&topology(true));
    for ns in [0, 1, u64::MAX, u64::MAX / 2, 1 << 62] {
        for other in [0, u64::MAX, 1 << 61] {
            for machine in [0, 1, 2, 9] {
                let reading = Reading { machine, ns };
                clocks.round_trip(&RoundTrip { asked_ns: other, reading, answered_ns: ns });
                clocks.reached(machine, Some(ns));
                let _ = (clocks.place(reading), clocks.machine_0_at(reading));
            }
        }
    }
    let _ = clocks.nodes(&topology(true));
}
