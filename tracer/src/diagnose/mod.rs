//! Diagnosis: from journeys, topology and observation to verdicts and the report. Pure.
//!
//! [`verdict`] says what became of the packets, [`failure`] and [`absent`] where and why, [`place`]
//! reads kernel stacks, [`build`] fills the lists that views draw.

mod absent;
pub mod backends;
mod build;
mod case;
mod causes;
mod changes;
mod death;
mod failure;
mod findings;
mod fix;
pub mod guard;
mod large;
mod outside;
mod place;
mod segments;
#[cfg(test)]
mod tests;
mod text;
mod verdict;

use crate::expect::Family;
use crate::expect::walk::{self, FlowSpec, Walk};
use crate::facts::{self, PathFacts};
use crate::model::{Body, Direction, Ip, Journey, L4, Observation, Outcome, Topology, Trace};
use crate::report::{PacketCounts, Report, SCHEMA, Tool, Verdict};

pub use build::headers;
use case::Case;
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

/// Packets listed in a report, each with all its hops; more than anybody reads, and twelve hops of each
/// take a hundred megabytes.
const LISTED: usize = 5_000;

/// At most `most` of the journeys, in their order: of those that failed as many as there is room for,
/// then the first of the others.
fn listed(journeys: &[Journey], most: usize) -> Vec<&Journey> {
    let failed = |j: &&Journey| {
        !matches!(j.outcome, Outcome::Delivered | Outcome::Incomplete | Outcome::Elsewhere)
    };
    let mut failed_left = journeys.iter().filter(failed).count().min(most);
    let mut others_left = most - failed_left;
    let mut take = |j: &&Journey| {
        let left = if failed(j) { &mut failed_left } else { &mut others_left };
        let room = *left > 0;
        *left = left.saturating_sub(1);
        room
    };
    journeys.iter().filter(|j| take(j)).collect()
}

/// The report of a trace.
pub fn report(input: &Input<'_>) -> Report {
    let Input { topology, trace, observation, meta, .. } = *input;
    let case = Case::new(input);
    let forward = verdict::of_direction(&case, Direction::Forward);
    let reply = verdict::of_direction(&case, Direction::Reply);
    let directions = vec![
        build::direction(&case, Direction::Forward, forward.0.clone()),
        build::direction(&case, Direction::Reply, reply.0.clone()),
    ];
    let mut overall = verdict::overall(&case, forward, reply);
    let told: Vec<&Verdict> = [&overall.verdict].into_iter().chain(&overall.findings).collect();
    let others = findings::others(&case, &told);
    overall.findings.extend(others);
    let mut notes = overall.notes;
    notes.extend(build::notes(&case));
    let told: Vec<&Verdict> = [&overall.verdict].into_iter().chain(&overall.findings).collect();
    let listed = listed(&trace.journeys, LISTED);
    let unlisted = (trace.journeys.len() - listed.len()) as u64;
    let journeys = listed.into_iter().map(|j| build::journey(&case, j, &told)).collect();
    Report {
        schema: SCHEMA.to_owned(),
        tool: Tool { version: meta.version.clone(), kernel: meta.kernel.clone() },
        started: meta.started.clone(),
        duration_ns: meta.duration_ns,
        src: build::end(topology.src.as_ref()),
        dst: build::end(topology.dst.as_ref()),
        verdict: overall.verdict,
        findings: overall.findings,
        backends: Vec::new(),
        packets: case.packets(),
        stations: build::stations(topology),
        directions,
        expected: build::expected(&case),
        journeys,
        journeys_omitted: trace.omitted + unlisted,
        resolutions: build::resolutions(&case),
        icmp_errors: build::icmp_errors(&case),
        clock: build::clocks(&case),
        loss: build::loss(&case),
        probe: observation.probe.clone(),
        notes,
    }
}

impl<'a> Case<'a> {
    fn new(input: &Input<'a>) -> Self {
        let Input { topology, trace, observation, before, after, .. } = *input;
        let changes = match (before, after) {
            (Some(before), Some(after)) => facts::diff(before, after),
            _ => Vec::new(),
        };
        let walks = walks(input);
        Self { topology, trace, observation, before, after, walks, changes }
    }

    fn packets(&self) -> PacketCounts {
        let count = |direction, outcome| {
            self.trace.outcomes.get(&(direction, outcome)).copied().unwrap_or(0)
        };
        let forward = Counts::of(self, Direction::Forward);
        let replied = count(Direction::Reply, Outcome::Delivered);
        let mut unknown = forward.in_flight;
        if self.observation.holes().is_some() {
            // What was not seen to arrive may have arrived.
            unknown += [Outcome::Lost, Outcome::Partial]
                .map(|outcome| count(Direction::Forward, outcome))
                .iter()
                .sum::<u64>();
        }
        let mut packets = PacketCounts {
            sent: forward.sent(),
            delivered: count(Direction::Forward, Outcome::Delivered),
            replied,
            retransmitted: self.trace.retransmitted,
            duplicated: self.trace.duplicated,
            answered: replied,
            refused: count(Direction::Forward, Outcome::Rejected),
            unknown,
        };
        packets.told_by(self.observation.probe.as_ref());
        packets
    }
}

/// The expected way of the packets that were traced, in both directions, from the state before the
/// trace and after it.
fn walks(input: &Input<'_>) -> Vec<Walk> {
    let spec = flow_spec(input);
    let states = input.before.into_iter().chain(input.after);
    states
        .flat_map(|facts| {
            [Direction::Forward, Direction::Reply]
                .map(|direction| walk::walk(facts, input.topology, &spec, direction))
        })
        .collect()
}

/// A packet like those that were traced.
fn flow_spec(input: &Input<'_>) -> FlowSpec {
    /// IP protocol numbers (IANA).
    const ICMP: u8 = 1;
    let journeys = input.trace.journeys.iter().filter(|j| j.direction == Direction::Forward);
    let packets = journeys.filter_map(|j| {
        let hop = j.hops.first().map(|h| (&h.packet, h.segment_size));
        hop.or_else(|| j.drop.as_ref().map(|d| (&d.packet, None)))
    });
    let sized = packets.filter_map(|(packet, segment)| match &packet.body {
        Body::Ip(ip) => Some((ip, on_the_wire(ip, segment))),
        Body::Neighbor(_) | Body::Other(_) => None,
    });
    let Some((ip, size)) = sized.max_by_key(|(_, size)| *size) else {
        let probe = input.observation.probe.as_ref().map(|p| p.proto.as_str());
        let proto = match probe {
            Some("tcp") => 6,
            Some("udp") => 17,
            _ => ICMP,
        };
        return FlowSpec::small(input.family, proto);
    };
    let (sport, dport) = match ip.l4 {
        L4::Tcp { sport, dport, .. } | L4::Udp { sport, dport, .. } => (Some(sport), Some(dport)),
        _ => (None, None),
    };
    // The filters on the way see what a service's port is translated to.
    let service = input.topology.dst.as_ref().and_then(|e| e.service.as_ref());
    let dport = service.and_then(|s| s.target_port.filter(|_| s.port == dport)).or(dport);
    FlowSpec {
        family: input.family,
        proto: ip.proto,
        sport,
        dport,
        size,
        dont_fragment: ip.dont_fragment,
        ttl: ip.ttl,
    }
}

/// Bytes of network-layer packet that leave the sender at once: a super-packet is cut into segments of
/// `segment` bytes of payload, each with the headers of the whole.
fn on_the_wire(ip: &Ip, segment: Option<u16>) -> u32 {
    let header = if ip.src.is_ipv6() { 40 } else { 20 };
    match (segment, &ip.l4) {
        (Some(size), L4::Tcp { payload, .. } | L4::Udp { payload, .. }) => {
            ip.payload_len.saturating_sub(*payload) + u32::from(size) + header
        }
        // What was dropped before it left may be a super-packet whose segments are not known.
        _ => ip.payload_len.saturating_add(header).min(1500),
    }
}
