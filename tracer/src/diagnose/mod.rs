//! Diagnosis: from journeys, topology and observation to verdicts and the report. Pure.
//!
//! [`verdict`] says what became of the packets, [`failure`] and [`absent`] where and why, [`place`]
//! reads kernel stacks, [`build`] fills the lists that views draw.

mod absent;
mod build;
mod changes;
mod failure;
mod fix;
mod large;
mod place;
#[cfg(test)]
mod tests;
mod text;
mod verdict;

use std::net::IpAddr;

use crate::expect::Family;
use crate::facts::PathFacts;
use crate::model::{
    Direction, End, Hook, Observation, Outcome, Point, Role, StationId, Topology, Trace,
};
use crate::report::{PacketCounts, Report, SCHEMA, Tool};

pub use large::with_large;
pub use place::{Stage, stage};
pub use text::{icmp_text, tcp_flags_text};
use verdict::Counts;

/// What the report says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Wall-clock time at which the trace began, RFC 3339.
    pub started: String,
    /// How long it ran, ns.
    pub duration_ns: u64,
    /// Version of podtrace.
    pub version: String,
    /// Kernel release of the machine that traced (`uname -r`).
    pub kernel: String,
}

/// All that a report is made from; live and from a file the same.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// Where the flow can pass.
    pub topology: &'a Topology,
    /// IP version of the flow.
    pub family: Family,
    /// What the packets did.
    pub trace: &'a Trace,
    /// What the capture and the probe tell besides.
    pub observation: &'a Observation,
    /// Network state before the trace, where it was read.
    pub before: Option<&'a PathFacts>,
    /// Network state after it.
    pub after: Option<&'a PathFacts>,
    /// What the report says about itself.
    pub meta: &'a Meta,
}

/// All that a diagnosis rests on.
struct Case<'a> {
    topology: &'a Topology,
    trace: &'a Trace,
    observation: &'a Observation,
}

/// The report of a trace.
pub fn report(input: &Input<'_>) -> Report {
    let Input { topology, trace, observation, meta, .. } = *input;
    let case = Case { topology, trace, observation };
    let forward = verdict::of_direction(&case, Direction::Forward);
    let reply = verdict::of_direction(&case, Direction::Reply);
    let directions = vec![
        build::direction(&case, Direction::Forward, forward.0.clone()),
        build::direction(&case, Direction::Reply, reply.0.clone()),
    ];
    let overall = verdict::overall(&case, forward, reply);
    let mut notes = overall.notes;
    notes.extend(build::notes(&case));
    Report {
        schema: SCHEMA.to_owned(),
        tool: Tool { version: meta.version.clone(), kernel: meta.kernel.clone() },
        started: meta.started.clone(),
        duration_ns: meta.duration_ns,
        src: build::end(topology.src.as_ref()),
        dst: build::end(topology.dst.as_ref()),
        verdict: overall.verdict,
        findings: overall.findings,
        packets: case.packets(),
        stations: build::stations(topology),
        directions,
        journeys: trace.journeys.iter().map(|j| build::journey(&case, j)).collect(),
        journeys_omitted: trace.omitted,
        resolutions: build::resolutions(&case),
        icmp_errors: build::icmp_errors(&case),
        // Nodes on one machine share its clock.
        clock: Vec::new(),
        loss: build::loss(&case),
        probe: observation.probe.clone(),
        notes,
    }
}

impl<'a> Case<'a> {
    /// Names of the sending and the receiving end.
    fn ends(&self, direction: Direction) -> (&'a str, &'a str) {
        let name = |end: &'a Option<End>| end.as_ref().map_or("the sender", |e| e.name.as_str());
        let (src, dst) = (name(&self.topology.src), name(&self.topology.dst));
        match direction {
            Direction::Forward => (src, dst),
            Direction::Reply => (dst, src),
        }
    }

    /// Position of a point on the planned path.
    fn position(&self, direction: Direction, point: Point) -> Option<usize> {
        self.topology.path(direction).iter().position(|p| *p == point)
    }

    /// The planned point behind this one.
    fn next_planned(&self, direction: Direction, point: Point) -> Option<Point> {
        let at = self.position(direction, point)?;
        self.topology.path(direction).get(at + 1).copied()
    }

    /// Whether a namespace stands for the wire.
    fn is_wire(&self, netns_inum: u32) -> bool {
        let mut stations = self.topology.stations.iter();
        stations.any(|s| s.netns_inum == netns_inum && s.role == Role::Wire)
    }

    /// Name of an address, or the address.
    fn ip_name(&self, ip: &IpAddr) -> String {
        changes::ip_name(&self.topology.names, ip)
    }

    /// The point at which a question or an ICMP error was seen, of which only the station is known:
    /// the way in which the path that its addresses belong to crosses it.
    fn station_point(
        &self,
        station: Option<StationId>,
        from: &IpAddr,
        to: &IpAddr,
    ) -> Option<Point> {
        let station = station?;
        let owns = |end: &Option<End>, ip| end.as_ref().is_some_and(|e| e.ips.contains(ip));
        let (src, dst) = (&self.topology.src, &self.topology.dst);
        let back = owns(dst, from) || (owns(src, to) && !owns(src, from));
        let first = if back { Direction::Reply } else { Direction::Forward };
        let then = if back { Direction::Forward } else { Direction::Reply };
        let planned = self.topology.path(first).iter().chain(self.topology.path(then));
        let point = planned.copied().find(|p| p.station == station);
        Some(point.unwrap_or(Point { station, hook: Hook::Ingress }))
    }

    /// Questions for hardware addresses that stayed open at a node's own interfaces, in words.
    fn unanswered_resolutions(&self, node: &str) -> Vec<String> {
        let open = self.trace.resolutions.iter().filter(|r| r.answer.is_none());
        open.filter_map(|r| {
            let station = self.topology.station(r.station?);
            (station.node == node).then(|| {
                format!(
                    "{} asked {} times for {} at {}, no answer",
                    self.ip_name(&r.asker),
                    r.requests,
                    self.ip_name(&r.target),
                    station.label()
                )
            })
        })
        .collect()
    }

    fn packets(&self) -> PacketCounts {
        let count = |direction, outcome| {
            self.trace.outcomes.get(&(direction, outcome)).copied().unwrap_or(0)
        };
        PacketCounts {
            sent: Counts::of(self, Direction::Forward).sent(),
            delivered: count(Direction::Forward, Outcome::Delivered),
            replied: count(Direction::Reply, Outcome::Delivered),
            retransmitted: self.trace.retransmitted,
            duplicated: self.trace.duplicated,
        }
    }
}
