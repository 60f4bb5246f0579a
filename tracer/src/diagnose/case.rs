//! What a diagnosis rests on, with the look-ups that all of it shares.

use std::net::IpAddr;

use super::changes;
use super::death::{Death, Ending};
use crate::expect::walk::{Problem, Walk};
use crate::facts::{Change, Difference, NetnsFacts, PathFacts, Qdisc};
use crate::model::{
    Body, Direction, End, Hook, JourneyDrop, Neighbor, Observation, Packet, Point, Resolution,
    Role, Station, StationId, Topology, Trace,
};
use crate::report::Place;

/// All that a diagnosis rests on.
pub(super) struct Case<'a> {
    pub topology: &'a Topology,
    pub trace: &'a Trace,
    pub observation: &'a Observation,
    pub before: Option<&'a PathFacts>,
    pub after: Option<&'a PathFacts>,
    /// The expected way of each direction, from the state before the trace and from that after it.
    pub walks: Vec<Walk>,
    /// From before to after.
    pub changes: Vec<Difference>,
}

impl<'a> Case<'a> {
    /// Names of the sending and the receiving end.
    pub fn ends(&self, direction: Direction) -> (&'a str, &'a str) {
        let name = |end: &'a Option<End>| end.as_ref().map_or("the sender", |e| e.name.as_str());
        let (src, dst) = (name(&self.topology.src), name(&self.topology.dst));
        match direction {
            Direction::Forward => (src, dst),
            Direction::Reply => (dst, src),
        }
    }

    /// The end that sends packets of a direction.
    pub fn sender(&self, direction: Direction) -> Option<&'a End> {
        match direction {
            Direction::Forward => self.topology.src.as_ref(),
            Direction::Reply => self.topology.dst.as_ref(),
        }
    }

    /// Inode of the namespace that should answer; `None`: one that is not known.
    pub fn answerer(&self) -> Option<u32> {
        self.topology.dst.as_ref().filter(|e| !e.is_outside()).map(|e| e.netns_inum)
    }

    /// Position of a point on the planned path.
    pub fn position(&self, direction: Direction, point: Point) -> Option<usize> {
        self.topology.path(direction).iter().position(|p| *p == point)
    }

    /// The planned point behind this one.
    pub fn next_planned(&self, direction: Direction, point: Point) -> Option<Point> {
        let at = self.position(direction, point)?;
        self.topology.path(direction).get(at + 1).copied()
    }

    /// Position of the first planned point from `at` on that is a node's.
    pub fn next_node_position(&self, direction: Direction, at: usize) -> usize {
        let path = self.topology.path(direction);
        let is_node = |p: &Point| self.topology.station(p.station).role != Role::Wire;
        let behind = path.get(at..).unwrap_or_default().iter().position(is_node);
        at + behind.unwrap_or(0)
    }

    /// Whether a namespace stands for the wire.
    pub fn is_wire(&self, netns_inum: u32) -> bool {
        let mut stations = self.topology.stations.iter();
        stations.any(|s| s.netns_inum == netns_inum && s.role == Role::Wire)
    }

    /// Name of an address, or the address.
    pub fn ip_name(&self, ip: &IpAddr) -> String {
        changes::ip_name(&self.topology.names, ip)
    }

    /// The point at which a question or an ICMP error was seen, of which only the station is known:
    /// the way in which the path that its addresses belong to crosses it.
    pub fn station_point(
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
    pub fn unanswered_resolutions(&self, node: &str) -> Vec<String> {
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

    /// Questions in the namespace where packets ended: first those at the interface that they were to
    /// leave by, and of these the open ones. Never for the sending end, which is not where they go.
    pub fn questions(&self, death: &Death<'_>) -> impl Iterator<Item = &'a Resolution> {
        let (trace, topology) = (self.trace, self.topology);
        let sender = self.sender(death.direction);
        let here = |r: &&Resolution| {
            r.station.is_some_and(|id| topology.station(id).netns_inum == death.netns)
                && !sender.is_some_and(|end| end.ips.contains(&r.target))
        };
        let leaving = self.leaving_device(death).map(|s| s.ifindex);
        let elsewhere =
            |r: &Resolution| r.station.map(|id| topology.station(id).ifindex) != leaving;
        let mut questions: Vec<&Resolution> = trace.resolutions.iter().filter(here).collect();
        questions.sort_by_key(|r| (elsewhere(r), r.answer.is_some()));
        questions.into_iter()
    }

    /// Those that stayed open.
    pub fn open_questions(&self, death: &Death<'_>) -> impl Iterator<Item = &'a Resolution> {
        self.questions(death).filter(|question| question.answer.is_none())
    }

    /// Whether packets ended because nobody answered the question for the hardware address of the other
    /// end itself: it goes the way that they would have gone.
    pub fn asks_for_the_other_end(&self, death: &Death<'_>) -> bool {
        let far = match death.direction {
            Direction::Forward => self.topology.dst.as_ref(),
            Direction::Reply => self.topology.src.as_ref(),
        };
        let target = match death.ending {
            Ending::Unresolved { question } => Some(question.target),
            // For neighbour discovery the kernel gives no reason.
            _ if death.dropped("NEIGH_*", "*") || death.dropped("NOT_SPECIFIED", "neigh_*") => {
                self.open_questions(death).next().map(|q| q.target)
            }
            _ => None,
        };
        target.is_some_and(|ip| far.is_some_and(|end| end.ips.contains(&ip)))
    }

    /// For packets that ended because an address could not be resolved: the question, and the event
    /// that dropped it on the path, where there was one.
    pub fn killed_question(&self, death: &Death<'_>) -> Option<(&'a Resolution, &'a JourneyDrop)> {
        death.dropped("*", "neigh_*").then_some(())?;
        let on_path = |inum| self.topology.stations.iter().any(|s| s.netns_inum == inum);
        let (trace, is_wire) = (self.trace, |inum| self.is_wire(inum));
        self.open_questions(death).find_map(|question| {
            let killer = trace.stray_drops.iter().find(|drop| {
                asks(drop, question)
                    && drop.netns_inum != death.netns
                    && on_path(drop.netns_inum)
                    && !is_wire(drop.netns_inum)
            })?;
            Some((question, killer))
        })
    }

    /// State of a namespace before the trace.
    pub fn netns_before(&self, inum: u32) -> Option<&'a NetnsFacts> {
        self.before?.space(inum).map(|s| &s.facts)
    }

    /// State of a namespace after the trace, or what is known of it.
    pub fn netns_after(&self, inum: u32) -> Option<&'a NetnsFacts> {
        self.after.or(self.before)?.space(inum).map(|s| &s.facts)
    }

    /// By how much a protocol counter of a namespace rose.
    pub fn counter_moved(&self, netns: u32, wanted: &str) -> Option<u64> {
        self.changes.iter().filter(|d| d.netns == netns).find_map(|d| match &d.change {
            Change::Counter { name, by } if name == wanted => Some(*by),
            _ => None,
        })
    }

    /// The queueing discipline at the root of an interface, after the trace.
    pub fn qdisc(&self, station: &Station) -> Option<&'a Qdisc> {
        let facts = self.netns_after(station.netns_inum)?;
        facts.qdiscs.iter().find(|q| q.ifindex == station.ifindex && q.parent == "root")
    }

    /// `A`, `pod B.b`: where packets ended.
    pub fn where_words(&self, death: &Death<'_>) -> String {
        match (&death.place.node, &death.place.pod) {
            (Some(node), Some(pod)) => format!("pod {node}.{pod}"),
            (Some(node), None) => node.clone(),
            (None, _) => "a namespace off the path".to_owned(),
        }
    }

    /// Name of the interface where packets ended, for commands.
    pub fn device(&self, death: &Death<'_>) -> String {
        death.place.interface.clone().unwrap_or_else(|| "DEVICE".to_owned())
    }

    /// The interface that a dropped packet was to leave by: the one that the skb names where that can
    /// be trusted, else the next planned one of the same namespace.
    pub fn leaving_device(&self, death: &Death<'_>) -> Option<&'a Station> {
        let here = |p: Point| {
            let station = self.topology.station(p.station);
            (station.netns_inum == death.netns && p.hook == Hook::Egress).then_some(station)
        };
        let named = || {
            let drop = death.drop()?;
            let id = self.topology.find(death.netns, drop.ifindex)?;
            let station = self.topology.station(id);
            let entered = death.last.is_some_and(|p| p.station == id && p.hook == Hook::Ingress);
            (!entered).then_some(station)
        };
        named().or_else(|| death.next.and_then(here))
    }

    /// Node and interface by which the other side sent what was received damaged.
    pub fn sender_device(&self, death: &Death<'_>) -> (String, String) {
        let hops = death.example.map(|j| j.hops.as_slice()).unwrap_or_default();
        let sent = hops.iter().rfind(|h| {
            let station = self.topology.station(h.point.station);
            h.point.hook == Hook::Egress
                && station.netns_inum != death.netns
                && station.role == Role::Vxlan
        });
        let station = sent.map(|h| self.topology.station(h.point.station));
        station.map_or_else(
            || ("the sending node".to_owned(), "DEVICE".to_owned()),
            |s| (s.node.clone(), s.name.clone()),
        )
    }

    /// The stations that a looping packet crosses again and again, in order.
    pub fn loop_points(&self, death: &Death<'_>) -> Vec<String> {
        const MOST: usize = 8;
        let hops = death.example.map(|j| j.hops.as_slice()).unwrap_or_default();
        let mut points: Vec<String> = Vec::new();
        for hop in hops {
            let again = hops.iter().filter(|h| h.point == hop.point).count() > 1;
            let label = super::text::point_text(self.topology, hop.point);
            if again && !points.contains(&label) && points.len() < MOST {
                points.push(label);
            }
        }
        points
    }

    /// TTL of a packet.
    pub fn ttl(&self, packet: &Packet) -> Option<u8> {
        match &packet.body {
            Body::Ip(ip) => Some(ip.ttl),
            Body::Neighbor(_) | Body::Other(_) => None,
        }
    }

    /// Bytes of an IP packet, its header (without options) included.
    pub fn ip_bytes(&self, packet: &Packet) -> Option<u32> {
        match &packet.body {
            Body::Ip(ip) => Some(ip.payload_len + if ip.src.is_ipv6() { 40 } else { 20 }),
            Body::Neighbor(_) | Body::Other(_) => None,
        }
    }

    /// A table entry as evidence.
    pub fn entry_line(&self, problem: &Problem, entry: &str) -> String {
        match &problem.spot.pod {
            Some(pod) => format!("in pod {}.{pod}: {entry}", problem.spot.node),
            None => format!("on {}: {entry}", problem.spot.node),
        }
    }

    /// Where a problem is.
    pub fn spot_place(&self, problem: &Problem) -> Place {
        Place {
            node: Some(problem.spot.node.clone()),
            pod: problem.spot.pod.clone(),
            netns: Some(problem.spot.netns.clone()),
            interface: problem.spot.interface.clone(),
            stage: Some(problem.stage.as_str().to_owned()),
            function: None,
        }
    }

    /// A place at a station.
    pub fn station_place(&self, station: &Station, stage: &str) -> Place {
        Place {
            node: Some(station.node.clone()),
            pod: station.pod.clone(),
            netns: Some(station.netns.clone()),
            interface: Some(station.name.clone()),
            stage: Some(stage.to_owned()),
            function: None,
        }
    }
}

/// Whether a drop took this question.
pub(super) fn asks(drop: &JourneyDrop, question: &Resolution) -> bool {
    matches!(&drop.packet.body, Body::Neighbor(Neighbor { request: true, sender_ip, target_ip, .. })
        if *sender_ip == question.asker && *target_ip == question.target)
}
