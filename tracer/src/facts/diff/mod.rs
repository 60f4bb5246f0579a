//! What changed between two snapshots of the same path. Pure.

mod compare;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

pub use compare::diff;

use super::firewall::{Backend, TableFamily};
use super::types::{Address, FdbEntry, Link, NeighborEntry, Route, Rule};

/// A change, and in whose namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// Inode of the namespace.
    pub netns: u32,
    /// Node.
    pub node: String,
    /// Pod; `None`: the node's own namespace.
    pub pod: Option<String>,
    /// What changed.
    pub change: Change,
}

/// A table entry before and after; `None`: it was not there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry<T> {
    /// Before.
    pub before: Option<T>,
    /// After.
    pub after: Option<T>,
}

/// A rule of a packet filter, or a base chain's policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RulePlace {
    /// Which tool's.
    pub backend: Backend,
    /// Family of the table.
    pub family: TableFamily,
    /// Table.
    pub table: String,
    /// Chain.
    pub chain: String,
    /// Position in the chain, from 0; `None`: the policy.
    pub position: Option<usize>,
    /// As the tool prints it; for a policy `policy drop`.
    pub text: String,
}

/// What changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// A protocol counter went up.
    Counter {
        /// `Ip.InAddrErrors`.
        name: String,
        /// By how much.
        by: u64,
    },
    /// A counter of an interface went up.
    LinkCounter {
        /// Interface index.
        ifindex: u32,
        /// Interface.
        interface: String,
        /// Field of [`super::LinkStats`]: `rx_dropped`.
        name: String,
        /// By how much.
        by: u64,
    },
    /// A counter of a queueing discipline went up.
    QdiscCounter {
        /// Interface.
        interface: String,
        /// Kind of the queueing discipline.
        kind: String,
        /// Handle as tc writes it.
        handle: String,
        /// Field of [`super::Qdisc`]: `drops`, `overlimits`, `requeues`.
        name: String,
        /// By how much.
        by: u64,
    },
    /// A counter of connection tracking went up.
    ConntrackCounter {
        /// As in [`super::Conntrack::stats`].
        name: String,
        /// By how much.
        by: u64,
    },
    /// Packets met a rule or a policy.
    RuleCounter {
        /// Which.
        rule: RulePlace,
        /// Packets.
        packets: u64,
        /// Bytes.
        bytes: u64,
    },
    /// A socket dropped packets because its buffer was full.
    SocketDrops {
        /// Bound to this address.
        local: std::net::SocketAddr,
        /// Packets.
        by: u64,
    },
    /// A rule or policy came or went.
    FirewallRule(Entry<RulePlace>),
    /// A kernel parameter changed.
    Sysctl {
        /// Name.
        name: String,
        /// Before and after.
        value: Entry<String>,
    },
    /// An interface came, went, or is different: state, MTU, hardware address, bridge, …
    Link(Entry<Box<Link>>),
    /// An address came or went.
    Address(Entry<Address>),
    /// A route came, went or changed.
    Route(Entry<Route>),
    /// A policy-routing rule came or went.
    Rule(Entry<Rule>),
    /// A neighbour came, went, or changed its state or hardware address.
    Neighbor {
        /// Whose.
        ip: IpAddr,
        /// Before and after.
        entry: Entry<NeighborEntry>,
    },
    /// A forwarding entry came, went or changed.
    Fdb(Entry<FdbEntry>),
}
