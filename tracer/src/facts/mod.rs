//! Facts: a snapshot of the network state of each namespace on the path.
//!
//! Enters: namespaces of nodes. Leaves: [`PathFacts`], plain values that [`crate::expect`] and
//! [`crate::diagnose`] reason about, now or when a recorded trace is read again. A source that
//! cannot be read is a [`Gap`], not a failure: half a picture is better than none.

mod attach;
mod collect;
mod deep;
mod diff;
mod dump;
pub mod firewall;
mod ipvs;
mod lookup;
mod netlink;
mod parse;
mod proc;
mod queues;
mod read;
mod spaces;
#[cfg(test)]
mod tests;
mod tool;
mod tracking;
mod traffic;
mod types;

use std::io;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

pub use attach::{Attachment, attachment, attachment_of};
pub use collect::{Collected, FactsError, collect, recollect, survey};
pub(crate) use collect::{in_full, is_link_local, underlay};
pub use diff::{Change, Difference, Entry, RulePlace, diff};
pub use firewall::Firewall;
pub use ipvs::{Forwarding, Ipvs, RealServer, Virtual, VirtualService};
pub(crate) use read::read;
pub use spaces::Spaces;
pub use traffic::{
    AttachPoint, AttachedProgram, Conntrack, ConntrackEntry, LinkStats, Qdisc, Socket, SocketProto,
    Tuple, Xdp, XfrmPolicy,
};
pub use types::{
    Address, BridgeInfo, BridgePort, FdbEntry, Gap, Link, NeighborEntry, NeighborState, NetnsFacts,
    Route, RouteAnswer, RouteHit, RouteKind, RouteOutcome, RouteQuery, Rule, RuleAction,
};

use crate::model::{End, EndKind};
use crate::netns::Netns;

/// Puts a text through all that parses /proc, and lets go of the results: for fuzzing.
#[doc(hidden)]
pub fn parse_proc(text: &str) {
    proc::parse_all(text);
}

/// What a namespace is on the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SpaceKind {
    /// A pod's.
    Pod,
    /// A node's own.
    Node,
    /// Stands between nodes: a node without pods, reached over a veth (a lab's switch).
    Wire,
}

/// A namespace, whose it is, and what is known about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Space {
    /// Node it belongs to.
    pub node: String,
    /// Pod whose it is; `None` for a node's own.
    pub pod: Option<String>,
    /// What it is on the path.
    pub kind: SpaceKind,
    /// Addresses of the pod, as far as known before looking; empty for a node.
    pub ips: Vec<IpAddr>,
    /// Its state.
    pub facts: NetnsFacts,
}

impl Space {
    /// Whose it is, for a sentence: `pod A.a`, `node A`.
    pub fn title(&self) -> String {
        match &self.pod {
            Some(pod) => format!("pod {}.{pod}", self.node),
            None => format!("node {}", self.node),
        }
    }
}

/// A pod that is known but not traced: it gives its addresses a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownPod {
    /// Node.
    pub node: String,
    /// Pod.
    pub pod: String,
    /// Addresses.
    pub ips: Vec<IpAddr>,
}

/// Everything known about the way between two ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathFacts {
    /// `--src`.
    pub src: End,
    /// `--dst`; of a service with several backends the first.
    pub dst: End,
    /// The other ends that packets to the same service may come to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backends: Vec<End>,
    /// The namespaces concerned, each once.
    pub spaces: Spaces,
    /// Other pods, for names.
    pub pods: Vec<KnownPod>,
    /// What could not be read, beyond what each namespace tells of itself.
    #[serde(default)]
    pub gaps: Vec<String>,
}

impl PathFacts {
    /// Where packets to the destination may come to: itself, and the other backends of its service.
    pub fn destinations(&self) -> impl Iterator<Item = &End> {
        std::iter::once(&self.dst).chain(&self.backends)
    }

    /// The same state, seen from the way to one of [`Self::destinations`].
    #[must_use]
    pub fn towards(&self, dst: &End) -> Self {
        Self { dst: dst.clone(), backends: Vec::new(), ..self.clone() }
    }

    /// The namespace with this inode number.
    pub fn space(&self, inum: u32) -> Option<&Space> {
        self.spaces.iter().find(|s| s.facts.inum == inum)
    }

    /// The own namespace of a node.
    pub fn node(&self, name: &str) -> Option<&Space> {
        self.spaces.iter().find(|s| s.kind == SpaceKind::Node && s.node == name)
    }

    /// The node other than the source's at which packets to a service are translated, as an end;
    /// its address is the service's.
    pub fn translator(&self) -> Option<End> {
        let service = self.dst.service.as_ref()?;
        let node = self.node(&service.translator).filter(|n| n.node != self.src.node)?;
        Some(End {
            name: node.node.clone(),
            node: node.node.clone(),
            pod: None,
            ips: vec![service.ip],
            netns_inum: node.facts.inum,
            kind: EndKind::default(),
            service: None,
        })
    }

    /// The namespace of an end's pod; `None` for an end that lives in its node's own namespace.
    pub fn pod(&self, end: &End) -> Option<&Space> {
        self.space(end.netns_inum).filter(|s| s.kind == SpaceKind::Pod)
    }
}

/// Reads the tables of one namespace of this machine, and learns under which ids it knows the `known`
/// ones: that is what resolves the other ends of pairs.
///
/// # Errors
/// When the namespace cannot be entered, or the kernel gives no netlink socket there. A table that
/// cannot be read is a gap in the result instead.
pub(crate) fn snapshot_among(netns: &Netns, known: &[Netns]) -> io::Result<NetnsFacts> {
    netlink::snapshot(netns, &[], known)
}
