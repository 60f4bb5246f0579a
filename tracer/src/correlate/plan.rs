//! The planned paths as lookups: position of a point, where a direction begins and ends, which
//! namespaces lie on the way.

use std::collections::HashSet;
use std::net::IpAddr;

use crate::model::{Direction, Hook, Point, Role, Station, Topology};

/// Both directions.
#[derive(Debug)]
pub(super) struct Plan {
    forward: Way,
    reply: Way,
    /// Namespaces that stand for the wire between nodes.
    wire: HashSet<u32>,
    /// Addresses of services with more backends than are followed.
    chosen_among: Vec<IpAddr>,
}

/// One direction.
#[derive(Debug)]
struct Way {
    /// Position by station and hook.
    positions: Vec<Option<u16>>,
    path: Vec<Point>,
    origin_netns: u32,
    end_netns: u32,
    /// That of the end itself, where its own interface is not watched.
    told_netns: u32,
    /// Namespaces that the path leads through, ends included.
    netns: HashSet<u32>,
    /// Stations in the destination's namespace.
    end_stations: HashSet<u16>,
    /// There is somebody to arrive at.
    arrives: bool,
}

impl Plan {
    pub fn of(topology: &Topology) -> Self {
        let is_wire = |s: &&Station| s.role == Role::Wire;
        Self {
            forward: Way::of(topology, Direction::Forward),
            reply: Way::of(topology, Direction::Reply),
            chosen_among: chosen_among(topology),
            wire: topology.stations.iter().filter(is_wire).map(|s| s.netns_inum).collect(),
        }
    }

    fn way(&self, direction: Direction) -> &Way {
        match direction {
            Direction::Forward => &self.forward,
            Direction::Reply => &self.reply,
        }
    }

    /// Whether a packet that was seen no more with these addresses may have been translated to an
    /// address that is not followed.
    pub fn may_go_elsewhere(&self, direction: Direction, dst: &IpAddr) -> bool {
        direction == Direction::Forward && self.chosen_among.contains(dst)
    }

    /// Position of a point on the planned path.
    pub fn position(&self, direction: Direction, point: Point) -> Option<u16> {
        self.way(direction).positions.get(index(point)).copied().flatten()
    }

    /// Whether this is the first planned point.
    pub fn is_first(&self, direction: Direction, point: Point) -> bool {
        self.way(direction).path.first() == Some(&point)
    }

    /// Whether a packet first seen here has been seen from its beginning. Without a planned path
    /// the first station that sees it is its origin.
    pub fn is_origin(&self, direction: Direction, point: Point) -> bool {
        self.way(direction).path.first().is_none_or(|first| *first == point)
    }

    /// Whether a packet seen here has arrived: the last planned point, or, without a planned path,
    /// the way into any interface of the destination.
    pub fn is_final(&self, direction: Direction, point: Point) -> bool {
        let way = self.way(direction);
        if !way.arrives {
            return false;
        }
        match way.path.last() {
            Some(last) => *last == point,
            None => point.hook == Hook::Ingress && way.end_stations.contains(&point.station.0),
        }
    }

    /// Whether a namespace is the sender's own.
    pub fn is_origin_netns(&self, direction: Direction, netns: u32) -> bool {
        netns != 0 && self.way(direction).origin_netns == netns
    }

    /// Whether a namespace is the receiver's own.
    pub fn is_end_netns(&self, direction: Direction, netns: u32) -> bool {
        let way = self.way(direction);
        netns != 0 && (way.end_netns == netns || way.told_netns == netns)
    }

    /// Whether a namespace stands for the wire.
    pub fn is_wire(&self, netns: u32) -> bool {
        self.wire.contains(&netns)
    }

    /// Whether a drop there can have ended a packet of this direction: the namespace is on the path,
    /// or the kernel did not say which it was. Copies flooded to other pods end elsewhere.
    pub fn is_on_path(&self, direction: Direction, netns: u32) -> bool {
        let way = self.way(direction);
        netns == 0 || way.netns.is_empty() || (way.netns.contains(&netns) && !self.is_wire(netns))
    }
}

fn chosen_among(topology: &Topology) -> Vec<IpAddr> {
    let service = topology.dst.as_ref().and_then(|end| end.service.as_ref());
    let own = service.filter(|service| !service.others.is_empty()).map(|service| service.ip);
    // An end that is reached through services of which it is not the only backend.
    let through = topology.aliases.iter().filter(|alias| !alias.source).map(|alias| alias.ip);
    own.into_iter().chain(through.filter(|_| !topology.elsewhere.is_empty())).collect()
}

impl Way {
    fn of(topology: &Topology, direction: Direction) -> Self {
        let exists = |point: &&Point| usize::from(point.station.0) < topology.stations.len();
        let path: Vec<Point> = topology.path(direction).iter().filter(exists).copied().collect();
        let mut positions = vec![None; topology.stations.len() * 2];
        for (at, point) in path.iter().enumerate() {
            if let (Some(slot), Ok(at)) = (positions.get_mut(index(*point)), u16::try_from(at)) {
                slot.get_or_insert(at);
            }
        }
        let (origin, end) = match direction {
            Direction::Forward => (&topology.src, &topology.dst),
            Direction::Reply => (&topology.dst, &topology.src),
        };
        let netns_of =
            |point: Option<&Point>| point.map(|p| topology.station(p.station).netns_inum);
        let told = |end: &Option<crate::model::End>| end.as_ref().map_or(0, |e| e.netns_inum);
        let arrives = end.as_ref().is_none_or(crate::model::End::exists);
        let end_netns = netns_of(path.last()).unwrap_or_else(|| told(end));
        Self {
            origin_netns: netns_of(path.first()).unwrap_or_else(|| told(origin)),
            end_netns,
            told_netns: told(end),
            netns: path
                .iter()
                .map(|p| topology.station(p.station).netns_inum)
                .chain([told(end)].into_iter().filter(|inum| *inum != 0 && !path.is_empty()))
                .collect(),
            end_stations: (0u16..)
                .zip(&topology.stations)
                .filter(|(_, s)| end_netns != 0 && s.netns_inum == end_netns)
                .map(|(id, _)| id)
                .collect(),
            positions,
            path,
            arrives,
        }
    }
}

/// Index of a point in a table by station and hook.
fn index(point: Point) -> usize {
    usize::from(point.station.0) * 2 + usize::from(point.hook == Hook::Egress)
}
