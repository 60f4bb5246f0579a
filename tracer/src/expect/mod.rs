//! Expected path: from facts to the stations that a packet should cross, and their names. Pure.
//!
//! Enters: [`PathFacts`]. Leaves: a [`Topology`]. What an interface is for is told by what the
//! kernel says about it (kind, pairing, ports, routes), never by its name. Where the kernel's own
//! answer decides the way, the plan follows it; where there is no answer because something is
//! broken, the plan shows the way that a healthy packet would take, and says so in the gaps.

pub mod audit;
mod edges;
pub mod firewall;
mod fit;
pub mod ipvs;
mod names;
mod plan;
mod roles;
pub mod services;
mod side;
#[cfg(test)]
mod tests;
pub mod translate;
pub mod unknown;
pub mod walk;

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

pub use fit::fit;
pub use roles::{Classified, classify};

use crate::facts::{PathFacts, RouteHit, Space, SpaceKind, is_link_local};
use crate::model::{Direction, End, EndKind, Leads, Point, Role, Service, Station, Topology};

/// IP version of the traced flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Family {
    /// IPv4.
    #[serde(rename = "ipv4")]
    V4,
    /// IPv6.
    #[serde(rename = "ipv6")]
    V6,
}

impl Family {
    /// Of an address.
    pub fn of(ip: &IpAddr) -> Self {
        if ip.is_ipv6() { Self::V6 } else { Self::V4 }
    }

    /// The first family that both ends have, IPv4 before IPv6.
    ///
    /// # Errors
    /// When they have none in common.
    pub fn common(src: &End, dst: &End) -> Result<Self, ExpectError> {
        [Self::V4, Self::V6]
            .into_iter()
            .find(|f| f.first(src).is_some() && f.first(dst).is_some())
            .ok_or_else(|| ExpectError::NoCommonFamily {
                src: src.name.clone(),
                src_has: list(src),
                dst: dst.name.clone(),
                dst_has: list(dst),
            })
    }

    /// The first address of this family that an end has.
    pub fn first(self, end: &End) -> Option<IpAddr> {
        end.ips.iter().copied().find(|ip| Self::of(ip) == self)
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// Why no path can be planned.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExpectError {
    /// An end lacks an address of the family.
    #[error("{end} has no {family} address (it has {has})")]
    NoAddress {
        /// Which end.
        end: String,
        /// The family wanted.
        family: Family,
        /// The addresses it has.
        has: String,
    },
    /// The ends speak different IP versions.
    #[error("no IP version is common to {src} (it has {src_has}) and {dst} (it has {dst_has})")]
    NoCommonFamily {
        /// One end.
        src: String,
        /// Its addresses.
        src_has: String,
        /// The other.
        dst: String,
        /// Its addresses.
        dst_has: String,
    },
    /// The facts do not cover a node.
    #[error("nothing is known about node {0}")]
    NoNode(String),
}

impl ExpectError {
    /// Whether the user has to choose other ends or another family (exit status 2), rather than
    /// podtrace having failed (exit status 1).
    pub fn is_usage(&self) -> bool {
        !matches!(self, Self::NoNode(_))
    }
}

/// An end's addresses, for messages.
fn list(end: &End) -> String {
    let ips: Vec<_> = end.ips.iter().map(ToString::to_string).collect();
    if ips.is_empty() { "none".to_owned() } else { ips.join(", ") }
}

/// Where a flow of this family can pass: for each end that packets may come to one topology, all over
/// the same stations. Where a service has several backends, the last one is for packets that end
/// before one is chosen ([`Leads::Open`]). `watched`: also what reaches the ends through services is
/// of the flow, although they are named by their own addresses; a probe sends to those.
///
/// # Errors
/// When an end has no address of that family, or a node was not looked at.
pub fn topologies(
    facts: &PathFacts,
    family: Family,
    watched: bool,
) -> Result<Vec<Topology>, ExpectError> {
    let mut first = topology(facts, family)?;
    if let (true, None, Some(src), Some(dst)) =
        (watched, &facts.dst.service, family.first(&facts.src), family.first(&facts.dst))
    {
        first.aliases.extend(services::aliases(facts, src, dst));
        first.elsewhere = services::elsewhere(facts, src, dst);
    }
    let mut all = vec![first];
    let others: Vec<PathFacts> = facts
        .backends
        .iter()
        .map(|end| facts.towards(end))
        .chain(open_end(facts).map(|end| facts.towards(&end)))
        .collect();
    for facts in others {
        if facts.node(&facts.dst.node).is_none() || family.first(&facts.dst).is_none() {
            continue;
        }
        let mut other = topology(&facts, family)?;
        other.forward = renumbered(&other, &other.forward, &all[0]);
        other.reply = renumbered(&other, &other.reply, &all[0]);
        other.stations.clone_from(&all[0].stations);
        all.push(other);
    }
    Ok(all)
}

/// A path over the same interfaces as another topology numbers them.
fn renumbered(own: &Topology, path: &[Point], other: &Topology) -> Vec<Point> {
    let point = |point: &Point| {
        let station = own.station(point.station);
        let station = other.find(station.netns_inum, station.ifindex)?;
        Some(Point { station, hook: point.hook })
    };
    path.iter().filter_map(point).collect()
}

/// A service with several backends, before one of them is chosen.
pub fn open_end(facts: &PathFacts) -> Option<End> {
    let service = facts.dst.service.as_ref().filter(|_| !facts.backends.is_empty())?;
    let node = facts.node(&service.translator)?;
    Some(End {
        name: service.address(),
        node: node.node.clone(),
        pod: None,
        kind: EndKind::Pod,
        ips: vec![service.ip],
        netns_inum: node.facts.inum,
        service: Some(Service {
            target_port: None,
            leads: Leads::Open,
            dead: false,
            entry: None,
            ..service.clone()
        }),
    })
}

/// Everything known about where a flow of this family can pass between the two ends of `facts`.
///
/// # Errors
/// When an end has no address of that family, or a node was not looked at.
pub fn topology(facts: &PathFacts, family: Family) -> Result<Topology, ExpectError> {
    for end in [&facts.src, &facts.dst] {
        if facts.node(&end.node).is_none() {
            return Err(ExpectError::NoNode(end.node.clone()));
        }
        if family.first(end).is_none() {
            let (end, has) = (end.name.clone(), list(end));
            return Err(ExpectError::NoAddress { end, family, has });
        }
    }
    let classified = classify(&facts.spaces);
    let mut stations: Vec<_> = classified
        .iter()
        .filter(|c| c.role != Role::Other || decides(c))
        .map(|c| (order(facts, c), c.station()))
        .collect();
    stations.sort_by_key(|(order, _)| *order);
    let mut topology = Topology {
        src: Some(facts.src.clone()),
        dst: Some(facts.dst.clone()),
        stations: stations.into_iter().map(|(_, station)| station).collect(),
        names: names::names(facts, &classified),
        vxlan_ports: vxlan_ports(&classified),
        gaps: known_gaps(facts),
        ..Topology::default()
    };
    let mut gaps = BTreeSet::new();
    topology.aliases = translate::aliases(facts, family);
    topology.elsewhere = facts.dst.service.iter().flat_map(|s| s.others.clone()).collect();
    topology.forward = plan::plan(facts, &topology, family, Direction::Forward, &mut gaps);
    topology.reply = plan::plan(facts, &topology, family, Direction::Reply, &mut gaps);
    topology.gaps.extend(gaps);
    Ok(topology)
}

/// The way that a packet of `family` should take in `direction`, over the stations of `topology`.
/// Empty when an end has no address of that family.
pub fn plan(
    facts: &PathFacts,
    topology: &Topology,
    family: Family,
    direction: Direction,
) -> Vec<Point> {
    plan::plan(facts, topology, family, direction, &mut BTreeSet::new())
}

/// Every address of the stations and the ends, and every next hop and tunnel endpoint: whose ARP
/// and neighbour discovery concern the flow.
pub fn addresses_on_path(facts: &PathFacts, topology: &Topology) -> Vec<IpAddr> {
    let of_stations = topology.stations.iter().flat_map(|s| &s.addresses).map(|net| net.addr());
    let of_ends = facts.src.ips.iter().chain(facts.destinations().flat_map(|d| &d.ips)).copied();
    let of_answers = facts.spaces.iter().flat_map(|s| &s.facts.answers).flat_map(|answer| {
        let next_hop = answer.hit().and_then(|hit| hit.gateway);
        [Some(answer.query.dst), next_hop].into_iter().flatten()
    });
    let all: BTreeSet<_> = of_stations.chain(of_ends).chain(of_answers).collect();
    all.into_iter().filter(|ip| !ip.is_loopback() && !ip.is_unspecified()).collect()
}

/// A packet of the flow would leave through it, whatever it is; in a pod, may come or go by it.
fn decides(classified: &Classified<'_>) -> bool {
    let Classified { space, link, .. } = classified;
    let leaves = || {
        let hits = space.facts.answers.iter().filter_map(|a| a.hit());
        hits.into_iter().any(|hit: &RouteHit| hit.oif == Some(link.index))
    };
    let addressed = || space.facts.addresses_of(link.index).any(|net| !is_link_local(net.addr()));
    match space.kind {
        SpaceKind::Node => leaves(),
        SpaceKind::Pod => link.up && (leaves() || addressed()),
        SpaceKind::Wire => false,
    }
}

/// Sorts stations as a packet from `--src` to `--dst` meets them.
fn order(facts: &PathFacts, classified: &Classified<'_>) -> (u8, u8, u32) {
    let from_pod = match classified.role {
        Role::Pod => 0,
        Role::Veth => 1,
        Role::Bridge => 2,
        Role::Vxlan => 3,
        Role::Tun => 4,
        Role::Other => 5,
        Role::Physical => 6,
        Role::Wire => 7,
    };
    let space = classified.space;
    let same_node = facts.src.node == facts.dst.node;
    // On one node, only the pod and its veth tell the ends apart.
    let is_dst = match space.kind {
        SpaceKind::Pod => space.facts.inum == facts.dst.netns_inum,
        SpaceKind::Node if same_node => facts
            .attachment(&facts.dst)
            .and_then(|a| a.veth)
            .is_some_and(|veth| veth.index == classified.link.index),
        SpaceKind::Node => space.node == facts.dst.node,
        SpaceKind::Wire => false,
    };
    let (side, position) = match (space.kind, is_dst) {
        (SpaceKind::Wire, _) => (1, 0),
        (_, false) => (0, from_pod),
        (_, true) => (2, u8::MAX - from_pod),
    };
    (side, position, classified.link.index)
}

fn vxlan_ports(classified: &[Classified<'_>]) -> Vec<u16> {
    let ports = classified.iter().filter_map(|c| c.link.vxlan.as_ref().map(|v| v.port));
    ports.collect::<BTreeSet<_>>().into_iter().collect()
}

/// What the facts already know to be missing, and what the ends lack.
fn known_gaps(facts: &PathFacts) -> Vec<String> {
    let mut gaps = facts.gaps.clone();
    for space in &facts.spaces {
        gaps.extend(space.facts.gaps.iter().map(|gap| format!("{}: {gap}", whose(space))));
    }
    for end in [&facts.src, &facts.dst] {
        let Some(attachment) = facts.attachment(end) else { continue };
        match (attachment.pod, attachment.veth) {
            (None, _) => gaps.push(format!(
                "{}: no interface in its namespace has its address or leads to node {}",
                end.name, end.node
            )),
            (Some(_), None) if attachment.lower.is_some() => {}
            (Some(link), None) => gaps.push(format!(
                "{}: {} is not one of a veth pair with node {}; the node's end is unknown",
                end.name, link.name, end.node
            )),
            _ => {}
        }
    }
    gaps
}

/// `A`, `A.a`
fn whose(space: &Space) -> String {
    match &space.pod {
        Some(pod) => format!("{}.{pod}", space.node),
        None => space.node.clone(),
    }
}

impl Classified<'_> {
    /// As a station.
    pub fn station(&self) -> Station {
        let (space, link) = (self.space, self.link);
        Station {
            node: space.node.clone(),
            pod: space.pod.clone(),
            netns: space.facts.name.clone(),
            netns_inum: space.facts.inum,
            ifindex: link.index,
            name: link.name.clone(),
            role: self.role,
            mac: link.mac,
            mtu: link.mtu,
            up: link.up,
            addresses: space.facts.addresses_of(link.index).collect(),
            vxlan: link.vxlan.clone(),
            ethernet: link.ethernet(),
        }
    }
}
