//! One JSON object for each sighting, schema `podtrace.events/1`
//! (docs/schema/podtrace.events-1.schema.json).

use serde::Serialize;

use super::marks::Marks;
use super::pcapng::Clock;
use crate::correlate::Clocks;
use crate::decode::{Parser, RawEvent};
use crate::diagnose;
use crate::model::{Body, Direction, DropInfo, EventKind, Hook, Role, Topology};
use crate::record::Replay;
use crate::report::{HeaderReport, OuterReport};

/// A sighting.
#[derive(Debug, Serialize)]
struct Sighting<'a> {
    /// Kernel time of the machine that traced, ns.
    time_ns: u64,
    /// Wall-clock time, RFC 3339.
    time: Option<String>,
    node: Option<&'a str>,
    pod: Option<&'a str>,
    interface: Option<&'a str>,
    role: Option<Role>,
    /// Which way; null for a drop.
    hook: Option<Hook>,
    /// Why the kernel dropped it; null for a hop.
    drop: Option<&'a DropInfo>,
    length: u32,
    segments: u16,
    /// Number of the packet, where recognised.
    packet: Option<u64>,
    direction: Option<Direction>,
    inner: Option<HeaderReport>,
    outer: Option<OuterReport>,
    neighbor: Option<Resolution>,
}

/// An address resolution.
#[derive(Debug, Serialize)]
struct Resolution {
    request: bool,
    sender: String,
    sender_mac: Option<String>,
    target: String,
}

/// Turns events into lines.
#[derive(Debug)]
pub struct Lines<'a> {
    topology: &'a Topology,
    parser: Parser,
    marks: &'a Marks,
    clock: Clock,
    clocks: &'a Clocks,
}

impl<'a> Lines<'a> {
    /// For events of a recording over this topology.
    pub fn new(topology: &'a Topology, marks: &'a Marks, replay: &'a Replay) -> Self {
        let (clock, clocks) = (Clock::of(&replay.header), &replay.main.clocks);
        Self { topology, parser: Parser::new(topology), marks, clock, clocks }
    }

    /// The line of an event, with its line feed; `None` when nothing can be told of its packet.
    pub fn line(&self, raw: RawEvent<'_>) -> Option<String> {
        let mark = self.marks.of(self.topology, &raw);
        let time_ns = self.clocks.machine_0_at(raw.reading());
        let event = self.parser.parse(raw)?;
        let station = event.station.map(|id| self.topology.station(id));
        let owner = self.topology.owner(event.netns_inum);
        let wall = i128::from(self.clock.wall_ns(time_ns));
        let (inner, outer) = diagnose::headers(&event.packet);
        let (hook, drop) = match &event.kind {
            EventKind::Hop(hook) => (Some(*hook), None),
            EventKind::Drop(info) => (None, Some(info.as_ref())),
        };
        let sighting = Sighting {
            time_ns,
            time: jiff::Timestamp::from_nanosecond(wall).ok().map(|t| t.to_string()),
            node: station.map(|s| s.node.as_str()).or(owner.map(|o| o.0)),
            pod: station.map_or(owner.and_then(|o| o.1), |s| s.pod.as_deref()),
            interface: station.map(|s| s.name.as_str()),
            role: station.map(|s| s.role),
            hook,
            drop,
            length: event.len,
            segments: event.gso.map_or(1, |gso| gso.segments),
            packet: mark.map(|mark| mark.id),
            direction: mark.map(|mark| mark.direction),
            inner: matches!(event.packet.body, Body::Ip(_)).then_some(inner),
            outer,
            neighbor: match &event.packet.body {
                Body::Neighbor(n) => Some(Resolution {
                    request: n.request,
                    sender: n.sender_ip.to_string(),
                    sender_mac: n.sender_mac.map(|mac| mac.to_string()),
                    target: n.target_ip.to_string(),
                }),
                _ => None,
            },
        };
        let mut line = serde_json::to_string(&sighting).ok()?;
        line.push('\n');
        Some(line)
    }
}
