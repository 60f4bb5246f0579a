//! The way of one packet, checked step by step from state alone. Pure.
//!
//! Enters: [`PathFacts`], the [`Topology`] planned from them, and what the packet is like. Leaves:
//! a [`Walk`]: every step with the table entry that decides it, and every [`Problem`] on the way.
//! Each segment is checked from what should come into it, not from what the segment before lets
//! through, so that a break does not hide what is wrong behind it. Where a fact is missing, a step
//! is unknown and says what is missing; it is never taken for wrong.

mod arrive;
mod balance;
mod cause;
mod device;
mod edge;
mod encap;
mod enter;
mod fib;
mod filter;
mod fix;
mod kind;
mod leave;
mod masquerade;
mod nowhere;
mod problem;
mod route;
mod text;
mod via;
mod walker;

pub use filter::firewall_problem;
pub use kind::{Neighborhood, ProblemKind, RefusalKind};
pub use problem::{Problem, Seriousness};

use crate::expect::Family;
use crate::expect::side::{self, Side};
use crate::facts::{PathFacts, RouteHit, is_link_local};
use crate::model::{Direction, EndKind, Hook, Leads, Point, Role, Topology};
use route::Leg;
use walker::{At, Walker};

/// A packet whose way is asked for, as the request; the reply's is derived from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowSpec {
    /// IP version.
    pub family: Family,
    /// IP protocol number (IANA): 1 or 58 ICMP echo, 6 TCP, 17 UDP.
    pub proto: u8,
    /// Source port, where known.
    pub sport: Option<u16>,
    /// Destination port, where known.
    pub dport: Option<u16>,
    /// Bytes of the IP packet, header included.
    pub size: u32,
    /// IPv4 "don't fragment"; IPv6 never fragments on the way.
    pub dont_fragment: bool,
    /// TTL / hop limit as it leaves the pod.
    pub ttl: u8,
}

impl FlowSpec {
    /// A small packet of a protocol (as in [`FlowSpec::proto`]): what `ping` sends.
    pub fn small(family: Family, proto: u8) -> Self {
        Self { family, proto, sport: None, dport: None, size: 84, dont_fragment: true, ttl: 64 }
    }
}

/// Where in the kernel a step is; the names are those of [`crate::report::Place::stage`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// The pod's own stack and interface.
    Pod,
    /// The bridge and its ports.
    Bridge,
    /// What happens on receipt, before any table is asked.
    Receive,
    /// The netfilter hook PREROUTING.
    Prerouting,
    /// Routing: rules, tables, checks of the source.
    Route,
    /// The netfilter hook INPUT.
    Input,
    /// Forwarding, and the netfilter hook FORWARD.
    Forward,
    /// The netfilter hook OUTPUT.
    Output,
    /// The netfilter hook POSTROUTING.
    Postrouting,
    /// Address resolution.
    Neighbor,
    /// Into the tunnel.
    Encap,
    /// Out of the tunnel.
    Decap,
    /// Out through an interface: queue, device, size.
    Transmit,
    /// Between the nodes.
    Wire,
    /// The receiving socket.
    Socket,
}

impl Stage {
    /// As in [`crate::report::Place::stage`].
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::Pod => "pod",
            Stage::Bridge => "bridge",
            Stage::Receive => "receive",
            Stage::Prerouting => "prerouting",
            Stage::Route => "route",
            Stage::Input => "input",
            Stage::Forward => "forward",
            Stage::Output => "output",
            Stage::Postrouting => "postrouting",
            Stage::Neighbor => "neighbor",
            Stage::Encap => "encap",
            Stage::Decap => "decap",
            Stage::Transmit => "transmit",
            Stage::Wire => "wire",
            Stage::Socket => "socket",
        }
    }
}

/// Whose tables and which interface a step is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spot {
    /// Node.
    pub node: String,
    /// Pod, inside one.
    pub pod: Option<String>,
    /// Namespace, as a person would name it.
    pub netns: String,
    /// Inode of the namespace.
    pub netns_inum: u32,
    /// Interface, where one is concerned.
    pub interface: Option<String>,
}

/// What becomes of the packet at a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepOutcome {
    /// It goes on.
    Passes,
    /// It goes no further, or suffers: index into [`Walk::problems`].
    Stops(usize),
    /// It may pass or not: what is not known.
    Unknown(String),
}

/// A decision on the way, and what decides it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Where.
    pub spot: Spot,
    /// In which part of the kernel.
    pub stage: Stage,
    /// The planned point that the step leads to; `None` behind the last.
    pub point: Option<Point>,
    /// The entry that decides, as `ip`, `bridge`, `nft` or `iptables-save` print it.
    pub text: String,
    /// What becomes of the packet.
    pub outcome: StepOutcome,
}

/// The way of a packet in one direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Walk {
    /// Which.
    pub direction: Direction,
    /// In the order in which the packet meets them.
    pub steps: Vec<Step>,
    /// In the order in which the packet meets them.
    pub problems: Vec<Problem>,
}

impl Walk {
    /// The first problem that certainly ends the packet; where none is certain, the first that
    /// may.
    pub fn first_break(&self) -> Option<&Problem> {
        let deadly = || self.problems.iter().filter(|p| p.deadly());
        deadly().find(|p| p.certain).or_else(|| deadly().next())
    }

    /// What could not be told, in the order of the steps.
    pub fn gaps(&self) -> impl Iterator<Item = &str> {
        self.steps.iter().filter_map(|s| match &s.outcome {
            StepOutcome::Unknown(gap) => Some(gap.as_str()),
            _ => None,
        })
    }
}

/// Checks the way of a packet of `flow` (or of its answer) step by step. Without steps when an end
/// has no address of the family, or a node was not looked at.
pub fn walk(facts: &PathFacts, topology: &Topology, flow: &FlowSpec, direction: Direction) -> Walk {
    if let Some(walk) = via::walk(facts, topology, flow, direction) {
        return walk;
    }
    let (from, to) = match direction {
        Direction::Forward => (&facts.src, &facts.dst),
        Direction::Reply => (&facts.dst, &facts.src),
    };
    let side = |end| Side::new(facts, flow.family, end);
    let (Some(from), Some(to)) = (side(from), side(to)) else {
        return Walk { direction, steps: Vec::new(), problems: Vec::new() };
    };
    if from.node.facts.inum == to.node.facts.inum
        && from.pod.zip(to.pod).is_some_and(|(a, b)| a.facts.inum == b.facts.inum)
    {
        // A pod that reaches itself through a service: its own tables take the address for its own,
        // and say nothing about the translated packet.
        return Walk { direction, steps: Vec::new(), problems: Vec::new() };
    }
    let to_nowhere = from.end.service.as_ref().is_some_and(|s| s.leads == Leads::Nowhere);
    if to_nowhere {
        // Nobody is there who could answer.
        return Walk { direction, steps: Vec::new(), problems: Vec::new() };
    }
    let from = from.sending(side::sent_to(facts, &topology.aliases, direction, to.ip));
    let mut walker = Walker::new(facts, topology, flow, direction, [from, to]);
    if let Some(ip) = walker.in_place_of_receiver() {
        walker.packet.dst = ip;
    }
    if walker.leads_nowhere() {
        walker.walk_nowhere();
    } else if walker.to.is_outside() {
        walker.over_the_edge();
    } else if walker.from.is_outside() {
        walker.in_from_outside();
    } else if walker.passes_by(walker.from) || walker.passes_by(walker.to) {
        walker.past_the_stack();
    } else if walker.from.node.facts.inum == walker.to.node.facts.inum {
        walker.within_node();
    } else {
        walker.between_nodes();
    }
    walker.finish()
}

impl<'a> Walker<'a> {
    fn within_node(&mut self) {
        let node = self.from.node;
        let routed = |w: &Self| {
            let planned = |hook| w.planned(node, Role::Bridge, hook).is_some();
            planned(Hook::Ingress) || planned(Hook::Egress)
        };
        let bridged = self.from.bridge().is_some() && self.to.bridge().is_some();
        if bridged && !routed(self) {
            self.leave_to_bridge();
            return self.bridged();
        }
        let iif = self.leave_pod();
        self.forward_home(iif);
    }

    /// From the node's routing to the pod.
    fn forward_home(&mut self, iif: Option<&'a crate::facts::Link>) {
        let node = self.to.node;
        let prerouted = iif.is_some_and(|l| self.was_prerouted(node, l));
        if self.to.end.kind == EndKind::Node {
            return self.enter_node(iif, prerouted);
        }
        if self.to.pod.is_none() {
            let gap = format!("no pod that is known has {}", self.to.ip);
            return self.unknown(At::new(node, iif), Stage::Input, "to the node itself", gap);
        }
        let out = self.home_link();
        self.through(Leg { node, iif, out, home: true }, prerouted);
        self.enter_pod();
    }

    fn between_nodes(&mut self) {
        let node = self.from.node;
        let iif = self.leave_pod();
        if self.from.stray.is_some() {
            return;
        }
        let prerouted = iif.is_some_and(|l| self.was_prerouted(node, l));
        self.onward(iif, prerouted);
    }

    /// From the node's routing to the other node.
    pub(super) fn onward(&mut self, iif: Option<&'a crate::facts::Link>, prerouted: bool) {
        let node = self.from.node;
        let carrier = [Role::Vxlan, Role::Tun]
            .into_iter()
            .find_map(|role| self.planned(node, role, Hook::Egress));
        let exit = self.planned(node, Role::Physical, Hook::Egress);
        let out = carrier.or(exit.filter(|_| !self.has_lost_tunnel()));
        let hit = self.through(Leg { node, iif, out, home: false }, prerouted);
        let Some(out) = out else { return self.far_side(None) };
        self.pod_mtu(out);
        self.reach(node, Some(out), Hook::Egress);
        self.egress(node, out);
        self.devices(node, out, Hook::Egress);
        match self.role(node, out) {
            Role::Vxlan => self.tunnel(out, hit),
            Role::Tun => {
                let gap = "a program takes the packets here; what it does is in no table";
                self.unknown(At::on(node, out), Stage::Encap, text::link(out), gap);
                self.far_side(None);
            }
            _ => {
                self.hand_over(out, hit);
                self.wire();
                self.far_side(None);
            }
        }
    }

    /// The other node would answer through a tunnel, and this one has no device for it.
    fn has_lost_tunnel(&self) -> bool {
        let back = match self.direction {
            Direction::Forward => Direction::Reply,
            Direction::Reply => Direction::Forward,
        };
        let tunnels = |p: &Point| {
            let station = self.topology.station(p.station);
            station.role == Role::Vxlan && station.netns_inum == self.to.node.facts.inum
        };
        self.topology.path(back).iter().any(tunnels)
            && self.from.node.facts.links.iter().all(|l| l.vxlan.is_none())
    }

    fn tunnel(&mut self, device: &'a crate::facts::Link, hit: Option<&'a RouteHit>) {
        let node = self.from.node;
        let mut tunnelled = self.wrap(device, hit);
        self.send_outer(&mut tunnelled);
        let exit = self.planned(node, Role::Physical, Hook::Egress);
        if let Some(exit) = exit {
            self.reach(node, Some(exit), Hook::Egress);
            self.devices(node, exit, Hook::Egress);
        }
        self.wire();
        self.far_side(Some(&tunnelled));
    }

    /// At the other node, to the pod.
    fn far_side(&mut self, tunnelled: Option<&encap::Tunnelled<'a>>) {
        let entry = self.receive(tunnelled);
        let tun = self.planned(self.to.node, Role::Tun, Hook::Ingress);
        let iif = match tunnelled {
            Some(tunnelled) => self.unwrap(tunnelled),
            None if tun.is_some() => self.out_of_program(tun),
            None => entry,
        };
        self.back_to_the_receiver();
        // Marks do not leave a node.
        self.packet.mark = Some(0);
        self.forward_home(iif);
    }

    /// Out of a TUN device, by whose program the packets came.
    fn out_of_program(
        &mut self,
        tun: Option<&'a crate::facts::Link>,
    ) -> Option<&'a crate::facts::Link> {
        let node = self.to.node;
        let tun = tun?;
        let gap = "a program hands the packets out here; what it does is in no table";
        self.unknown(At::on(node, tun), Stage::Decap, text::link(tun), gap);
        self.reach(node, Some(tun), Hook::Ingress);
        self.devices(node, tun, Hook::Ingress);
        self.ingress(node, tun);
        Some(tun)
    }

    /// Whether the bridge has shown the packet to the hook PREROUTING already.
    fn was_prerouted(&self, node: &'a crate::facts::Space, iif: &crate::facts::Link) -> bool {
        node.facts.inum == self.from.node.facts.inum
            && self.from.bridge().is_some_and(|bridge| bridge.index == iif.index)
            && self.bridge_calls_iptables(node, iif)
    }
}
