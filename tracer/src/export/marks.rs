//! Which packet a single sighting belongs to, for exports that go event by event.

use std::collections::HashMap;

use crate::analysis::Analyzed;
use crate::decode::RawEvent;
use crate::model::{
    Direction, EventKind, Hook, Journey, Outcome, Point, StationId, Topology, Trace,
};

/// A sighting at a station: station, way, time of its machine, skb.
type Sighting = (StationId, Hook, u64, u64);

/// A packet as exports name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Number of the packet, from 1; that of the report for packets in the report.
    pub id: u64,
    /// Request or answer.
    pub direction: Direction,
    /// What became of it.
    pub outcome: Outcome,
    /// This was its last sighting, though more should have come: the point that comes next.
    pub missing_at: Option<Point>,
}

/// Packets by sightings; as many as the analysis kept whole.
#[derive(Clone, Debug, Default)]
pub struct Marks {
    hops: HashMap<Sighting, Mark>,
    /// By time, namespace and interface.
    drops: HashMap<(u64, u32, u32), Mark>,
    numbered: u64,
}

impl Marks {
    /// Of these analyses; the packets of the first keep their numbers.
    pub fn new<'a>(analyses: impl IntoIterator<Item = &'a Analyzed>) -> Self {
        let mut marks = Self::default();
        for analyzed in analyses {
            let mut traces: Vec<_> = analyzed.traces.iter().collect();
            // The one with most packets is that of the report.
            traces.sort_by_key(|(_, _, t)| std::cmp::Reverse(t.journeys.len()));
            for (_, topology, trace) in traces {
                marks.add(topology, trace);
            }
        }
        marks
    }

    fn add(&mut self, topology: &Topology, trace: &Trace) {
        let before = self.numbered;
        for journey in &trace.journeys {
            let id = before + journey.id;
            self.numbered = self.numbered.max(id);
            let mark = Mark {
                id,
                direction: journey.direction,
                outcome: journey.outcome,
                missing_at: None,
            };
            for hop in &journey.hops {
                let key = (hop.point.station, hop.point.hook, hop.clock.ns, hop.skb);
                // A super-packet that carries several is told by the first.
                self.hops.entry(key).or_insert(mark);
            }
            self.mark_last(topology, journey);
            if let Some(drop) = &journey.drop {
                self.drops.insert((drop.clock.ns, drop.netns_inum, drop.ifindex), mark);
            }
        }
    }

    fn mark_last(&mut self, topology: &Topology, journey: &Journey) {
        if journey.outcome != Outcome::Lost {
            return;
        }
        let Some(last) = journey.hops.last() else { return };
        let path = topology.path(journey.direction);
        let at = path.iter().position(|point| *point == last.point);
        let next = at.and_then(|at| path.get(at + 1)).copied();
        let key = (last.point.station, last.point.hook, last.clock.ns, last.skb);
        if let Some(mark) = self.hops.get_mut(&key) {
            mark.missing_at = next;
        }
    }

    /// The packet that an event is a sighting of.
    pub fn of(&self, topology: &Topology, event: &RawEvent<'_>) -> Option<Mark> {
        match &event.kind {
            EventKind::Hop(hook) => {
                let station = topology.find(event.netns_inum, event.ifindex)?;
                self.hops.get(&(station, *hook, event.time_ns, event.skb)).copied()
            }
            EventKind::Drop(_) => {
                let key = (event.time_ns, event.netns_inum, event.ifindex);
                self.drops.get(&key).copied()
            }
        }
    }
}
