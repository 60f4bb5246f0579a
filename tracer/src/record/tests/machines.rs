//! A trace over two machines, recorded and replayed.

use std::sync::Arc;

use super::tape::{Tape, play};
use super::*;
use crate::decode::{Parser, RawEvent, Unpacker};
use crate::model::{Observation, Reading, Role, RoundTrip, Topology};

/// How much more the clocks of machines show than that of the first, ns.
const AHEAD: [u64; 3] = [0, 7_200_000_000_000, 300_000_000_000];

/// The tape's topology with its second node on a machine of its own; both on others than the one that
/// traces, if `apart`.
fn topology(tape: &Tape, apart: bool) -> Topology {
    let mut topology = tape.topology.as_ref().clone();
    let wire = |t: &Topology, p: &crate::model::Point| t.station(p.station).role == Role::Wire;
    let seen = topology.clone();
    topology.forward.retain(|p| !wire(&seen, p));
    topology.reply.retain(|p| !wire(&seen, p));
    for (node, machine) in [("A", u16::from(apart)), ("B", 1 + u16::from(apart))] {
        if machine > 0 {
            topology.machines.insert(node.into(), machine);
        }
    }
    topology
}

/// The events of each batch, by machine.
fn events(tape: &Tape, topology: &Topology) -> Vec<[Vec<RawEvent<'static>>; 2]> {
    let unpacker = Unpacker::new(tape.slots(), tape.names());
    let batches = tape.batches.iter().map(|batch| {
        let mut machines = [Vec::new(), Vec::new()];
        for mut raw in batch.records().filter_map(|r| unpacker.unpack(r)).map(RawEvent::into_owned)
        {
            let Some((node, _)) = topology.owner(raw.netns_inum) else { continue };
            let Some(nth) = ["A", "B"].iter().position(|n| *n == node) else { continue };
            raw.machine = topology.machine(node);
            raw.time_ns += AHEAD[usize::from(raw.machine)];
            machines[nth].push(raw);
        }
        machines
    });
    batches.collect()
}

#[test]
fn two_machines_are_replayed_as_they_were_traced() {
    two_machines(false);
}

#[test]
fn so_are_two_that_are_watched_from_a_third() {
    two_machines(true);
}

/// The recording, after it was compared with what was seen live.
pub(crate) fn two_machines(apart: bool) -> Vec<u8> {
    let tape = Tape::of_pings(4);
    let topology = Arc::new(topology(&tape, apart));
    let parser = Parser::new(&topology);
    let trips = topology.machines.values().map(|machine| RoundTrip {
        asked_ns: 2_000_000,
        reading: Reading { machine: *machine, ns: 2_300_000 + AHEAD[usize::from(*machine)] },
        answered_ns: 2_900_000,
    });
    let trips: Vec<RoundTrip> = trips.collect();
    let observation = Observation { armed_ns: tape.armed_ns, ..Observation::default() };
    let mut live = Analysis::new([(Family::V4, Arc::clone(&topology))]);
    live.arm(tape.armed_ns);
    trips.iter().for_each(|trip| live.round_trip(trip));
    let record = FamilyTopology { family: Family::V4, topology: topology.as_ref().clone() };
    let header = Header {
        schema: SCHEMA.into(),
        tool: "9.8.7".into(),
        started: "2026-01-02T03:04:05Z".into(),
        command: Vec::new(),
        machines: vec![Machine { kernel: "6.18.0".into(), ..Machine::default() }; 3],
        part: 1,
        private: false,
    };
    let mut records = vec![
        Record::Header(Box::new(header)),
        Record::Topology(Box::new(record)),
        Record::Observation(Box::new(Observed { duration_ns: 0, observation })),
    ];
    records.extend(trips.into_iter().map(Record::Clock));
    for machines in events(&tape, &topology) {
        // The second machine is heard of first.
        for (number, events) in machines.into_iter().enumerate().rev() {
            let machine = number as u16 + u16::from(apart);
            let until_ns = events.last().map(|e| e.time_ns + 50_000);
            let count = events.len() as u64;
            live.push(events.iter().filter_map(|e| parser.parse(e.borrowed())).collect());
            live.reached(machine, until_ns);
            records.extend(events.into_iter().map(|e| Record::Event(EventRecord::of(e))));
            records.push(Record::Batch(count));
            records.push(Record::Reached(Reached { machine, until_ns }));
        }
        live.push(Vec::new());
        records.push(Record::Idle(()));
    }
    live.close(tape.closed_ns);
    records.push(Record::Closed(tape.closed_ns));
    let observed = Observed { duration_ns: 5, observation: tape.observation() };
    records.push(Record::Stage(Box::new(Stage { kind: StageKind::Main, mtu: None, observed })));
    let mut file = Vec::new();
    for record in &records {
        serde_json::to_writer(&mut file, record).unwrap();
        file.push(b'\n');
    }
    file.extend(b"{\"end\":{}}\n");

    let live = live.finish(tape.observation());
    let live = analysis::conclude(&live, None, State::default(), &meta()).unwrap();
    assert_eq!((live.verdict.status, live.packets.sent), (Status::Delivered, 4));
    let [a, b] = live.clock.as_slice() else { panic!("{:?}", live.clock) };
    assert_eq!((a.offset_ns, a.error_ns, a.samples), (0, Some(0), 0));
    // Packets one way bound one side; the other was asked for once, four seconds ago.
    let error = b.error_ns.unwrap();
    let (a, own) = (u16::from(apart), 1 + u16::from(apart));
    let truth = AHEAD[usize::from(a)] as i64 - AHEAD[usize::from(own)] as i64;
    assert!(b.offset_ns.abs_diff(truth) <= error && error < 8_000_000, "{b:?}");
    assert_eq!((b.samples, b.steps), (5, 0));
    for journey in &live.journeys {
        assert_eq!(journey.hops.len(), 10);
        let over: Vec<_> = journey.hops.iter().filter(|h| h.delta_error_ns != Some(0)).collect();
        let [over] = over.as_slice() else { panic!("one hop is on the other machine") };
        assert_eq!((over.point.node.as_str(), over.point.role), ("B", Role::Physical));
        // In truth 3000 ns: the wire's two points are not seen.
        assert!(over.delta_ns.abs_diff(3_000) <= over.delta_error_ns.unwrap());
    }

    let replay = play(&file).unwrap();
    assert_eq!(json::render(&replay.report), json::render(&live));
    file
}
