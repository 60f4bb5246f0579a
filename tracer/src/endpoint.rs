//! Endpoints: from what the user typed to a node, a namespace and addresses.
//!
//! Enters: `A.a`, `shop/web`, `web`, `A`, `node/A` or an address, and the nodes that there are. Leaves: a
//! [`Resolved`] end with its namespaces held open. Understanding the text ([`name`]) is pure; finding
//! namespaces ([`search`]) asks the nodes.

mod host;
mod name;
mod outside;
mod search;
#[cfg(test)]
mod tests;

use std::io;
use std::net::IpAddr;

use crate::inventory::{Node, Place, Pod};
use crate::model::{End, EndKind};
use crate::node::{Locate, Namespace, NodeError, Nodes};

pub use host::{face, local_to};
pub use outside::{outside, source};

/// A node that can be observed.
#[derive(Clone, Debug)]
pub struct NodeHandle {
    /// Name.
    pub name: String,
    /// Its own namespace.
    pub netns: Namespace,
}

/// An end of the trace, found.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// What it is called and which addresses it has.
    pub end: End,
    /// The pod's namespace; the node's own when the address is the node's.
    pub pod_netns: Namespace,
    /// The node it is on.
    pub node: NodeHandle,
    /// The node that translates a service address to it.
    pub translator: Option<NodeHandle>,
}

/// A destination, found: one end, or several where packets go to a service.
#[derive(Clone, Debug)]
pub struct Destination {
    /// Where packets end up; of several backends the first.
    pub resolved: Resolved,
    /// The other backends of the same service.
    pub others: Vec<Resolved>,
    /// What the user should know about the choice.
    pub notes: Vec<String>,
}

impl Destination {
    /// Every end that packets may come to.
    pub fn all(&self) -> impl Iterator<Item = &Resolved> {
        std::iter::once(&self.resolved).chain(&self.others)
    }
}

impl From<Resolved> for Destination {
    fn from(resolved: Resolved) -> Self {
        Self { resolved, others: Vec::new(), notes: Vec::new() }
    }
}

/// Why an end cannot be found.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// A name was given, but there is nothing to look it up in.
    #[error(
        "{0:?} is a name, and there is no inventory to look it up in: give --inventory FILE, start \
         the lab (podtrace lab up), or use the pod's IP address"
    )]
    NoInventory(String),
    /// Not of any form that is understood.
    #[error(
        "{0:?} is no endpoint; use NODE.POD, NAMESPACE/POD, POD, NODE, node/NODE or an IP address"
    )]
    Syntax(String),
    /// No such pod on the node.
    #[error("pod {pod:?} not found on node {node}{}", nearest(near))]
    PodOnNode {
        /// Pod asked for.
        pod: String,
        /// Node asked for.
        node: String,
        /// The most similar name there.
        near: Option<String>,
    },
    /// No such pod anywhere.
    #[error("pod {pod:?} not found{}", nearest(near))]
    Pod {
        /// Pod asked for.
        pod: String,
        /// The most similar name, as it would have to be typed.
        near: Option<String>,
    },
    /// No such namespace.
    #[error("namespace {namespace:?} has no pods; namespaces: {namespaces}")]
    Namespace {
        /// Namespace asked for.
        namespace: String,
        /// Those that there are.
        namespaces: String,
    },
    /// No such node.
    #[error("node {node:?} not found; nodes: {nodes}")]
    Node {
        /// Node asked for.
        node: String,
        /// Those that there are.
        nodes: String,
    },
    /// Several pods answer to it.
    #[error("{text:?} could be {candidates}; say which (NODE.POD or NAMESPACE/POD)")]
    Ambiguous {
        /// What was typed.
        text: String,
        /// What it could be.
        candidates: String,
    },
    /// An address that nothing on this machine has.
    #[error("no network namespace on this machine has the address {0}")]
    Address(IpAddr),
    /// An address that several namespaces have.
    #[error(
        "{ip} is an address in several network namespaces of this machine: {namespaces}; name the \
         pod through an inventory (--inventory FILE)"
    )]
    AddressAmbiguous {
        /// The address.
        ip: IpAddr,
        /// Where it is.
        namespaces: String,
    },
    /// Both ends are the same.
    #[error("--src and --dst are the same {what}: {name}")]
    Same {
        /// `pod`, `node` or `address`.
        what: &'static str,
        /// Which.
        name: String,
    },
    /// The node is on another machine, and its agent did not do what it was asked.
    #[error("cannot observe node {node}")]
    Agent {
        /// Node.
        node: String,
        /// Why.
        source: NodeError,
    },
    /// A namespace that the inventory names does not open.
    #[error("cannot open network namespace {netns:?} of {whose}{}", hint(source))]
    Open {
        /// Node or pod.
        whose: String,
        /// Namespace.
        netns: String,
        /// Why.
        source: io::Error,
    },
    /// Namespaces could not be searched.
    #[error("cannot search the network namespaces of this machine for {ip}{}", hint(source))]
    Search {
        /// The address searched for.
        ip: IpAddr,
        /// Why.
        source: io::Error,
    },
    /// The node behind a pod's namespace cannot be found.
    #[error(
        "found {ip} in network namespace {netns}, but not the node it is on: no visible namespace \
         holds the other end of {interface}"
    )]
    NoNode {
        /// The pod's address.
        ip: IpAddr,
        /// The pod's namespace.
        netns: String,
        /// Its interface.
        interface: String,
    },
}

impl EndpointError {
    /// Whether the user has to type something else (exit status 2), rather than podtrace having
    /// failed (exit status 1).
    pub fn is_usage(&self) -> bool {
        !matches!(
            self,
            Self::Open { .. } | Self::Search { .. } | Self::NoNode { .. } | Self::Agent { .. }
        )
    }
}

fn nearest(near: &Option<String>) -> String {
    near.as_ref().map(|n| format!("; nearest: {n:?}")).unwrap_or_default()
}

fn hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::PermissionDenied => " (podtrace must run as root)",
        io::ErrorKind::NotFound => " (is it running?)",
        _ => "",
    }
}

/// Finds the end that `text` names.
///
/// # Errors
/// See [`EndpointError`].
pub fn resolve(text: &str, nodes: &Nodes) -> Result<Resolved, EndpointError> {
    match name::understand(text, nodes.inventory())? {
        name::Target::Pod(node, found, None) => pod(nodes, node, found),
        name::Target::Pod(node, found, Some(ip)) => {
            let mut resolved = pod(nodes, node, found)?;
            // Who types an address means that address; a node's is the node's, whoever uses it.
            resolved.end.ips = vec![ip];
            if resolved.end.kind == EndKind::Node {
                resolved.end.name.clone_from(&resolved.end.node);
                resolved.end.pod = None;
            }
            Ok(resolved)
        }
        name::Target::Node(node) => host::node(nodes, node),
        name::Target::Address(ip) => search::by_address(ip, nodes),
    }
}

/// Finds a pod of the inventory.
///
/// # Errors
/// When its node or its namespace cannot be opened.
pub fn pod(nodes: &Nodes, node: &Node, pod: &Pod) -> Result<Resolved, EndpointError> {
    let netns = node_netns(nodes, node)?;
    let (pod_netns, ips) = pod_netns(node, pod, &netns)?;
    let on_host = pod_netns.inum() == netns.inum();
    Ok(Resolved {
        end: End {
            name: label(node, pod),
            node: node.name.clone(),
            pod: Some(pod.name.clone()),
            ips,
            netns_inum: pod_netns.inum(),
            kind: if on_host { EndKind::Node } else { EndKind::Pod },
            service: None,
        },
        pod_netns,
        node: NodeHandle { name: node.name.clone(), netns },
        translator: None,
    })
}

/// Refuses a trace from a pod to itself, unless it goes through a service.
///
/// # Errors
/// When both ends are the same pod, or the same node's own namespace.
pub fn distinct(src: &Resolved, dst: &Resolved) -> Result<(), EndpointError> {
    let outside = src.end.is_outside() || dst.end.is_outside();
    let apart = src.pod_netns.inum() != dst.pod_netns.inum();
    if apart || outside || dst.end.service.is_some() {
        return Ok(());
    }
    let what = match (&src.end.pod, src.pod_netns.inum() == src.node.netns.inum()) {
        (_, true) => "node",
        (Some(_), _) => "pod",
        (None, _) => "address",
    };
    let name = if what == "node" { &src.node.name } else { &src.end.name };
    Err(EndpointError::Same { what, name: name.clone() })
}

/// Finds a node's own namespace.
///
/// # Errors
/// When it is not there, or its agent does not answer.
pub fn node_netns(nodes: &Nodes, node: &Node) -> Result<Namespace, EndpointError> {
    let name = match &node.place {
        Place::Netns(netns) => Some(netns.clone()),
        Place::Agent(_) => None,
    };
    let found = nodes.site(node).and_then(|site| site.find(&Locate::Node(name)));
    found.map(|(namespace, _)| namespace).map_err(|e| wrong(node, e))
}

/// Finds a pod's namespace, with the pod's addresses: the one that the inventory names, else the one
/// that has its address and leads to `node`.
///
/// # Errors
/// When it is not there, or cannot be searched for.
pub fn pod_netns(
    node: &Node,
    pod: &Pod,
    node_netns: &Namespace,
) -> Result<(Namespace, Vec<IpAddr>), EndpointError> {
    if pod.netns.is_none() && pod.ips.is_empty() {
        let (pod, node) = (pod.name.clone(), node.name.clone());
        return Err(EndpointError::PodOnNode { pod, node, near: None });
    }
    let wanted =
        Locate::Pod { node: node_netns.inum(), netns: pod.netns.clone(), ips: pod.ips.clone() };
    match node_netns.site.find(&wanted) {
        Ok((namespace, located)) => Ok((namespace, located.ips)),
        Err(NodeError::Netns { netns, cause }) => Err(EndpointError::Open {
            whose: format!("pod {}", label(node, pod)),
            netns,
            source: cause.into(),
        }),
        Err(error) => Err(wrong(node, error)),
    }
}

/// What a node's error means for who looks for an end.
fn wrong(node: &Node, error: NodeError) -> EndpointError {
    let here = |error| match error {
        NodeError::Netns { netns, cause } => EndpointError::Open {
            whose: format!("node {}", node.name),
            netns,
            source: cause.into(),
        },
        NodeError::Search { ip, cause } => EndpointError::Search { ip, source: cause.into() },
        NodeError::NoAddress(ip) => EndpointError::Address(ip),
        NodeError::Ambiguous { ip, namespaces } => {
            EndpointError::AddressAmbiguous { ip, namespaces }
        }
        NodeError::NoNode { ip, netns, interface } => {
            EndpointError::NoNode { ip, netns, interface }
        }
        other => EndpointError::Open {
            whose: format!("node {}", node.name),
            netns: String::new(),
            source: io::Error::other(other),
        },
    };
    match &node.place {
        Place::Netns(_) => here(error),
        Place::Agent(_) => EndpointError::Agent { node: node.name.clone(), source: error },
    }
}

/// `A.a`
fn label(node: &Node, pod: &Pod) -> String {
    format!("{}.{}", node.name, pod.name)
}
