//! The way of one packet, checked step by step from state alone. Pure.
//!
//! Enters: [`PathFacts`], the [`Topology`] planned from them, and what the packet is like. Leaves:
//! a [`Walk`]: every step with the table entry that decides it, and every [`Problem`] on the way.
//! Each segment is checked from what should come into it, not from what the segment before lets
//! through, so that a break does not hide what is wrong behind it. Where a fact is missing, a step
//! is unknown and says what is missing; it is never taken for wrong.

mod fix;
mod kind;
mod problem;

pub use kind::{Neighborhood, ProblemKind, RefusalKind};
pub use problem::{Problem, Seriousness};

use crate::expect::Family;
use crate::model::{Direction, Point};

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
