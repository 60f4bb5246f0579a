//! Endpoints: from what the user typed to a node, a namespace and addresses.
//!
//! Enters: `A.a`, `shop/web`, `web` or an address, and the inventory if there is one. Leaves: a
//! [`Resolved`] end with its namespaces open. Understanding the text ([`name`]) is pure; finding
//! namespaces ([`search`]) asks the kernel.

mod name;
mod search;
#[cfg(test)]
mod tests;

use std::io;
use std::net::IpAddr;

use crate::inventory::{Inventory, Node, Place, Pod};
use crate::model::End;
use crate::netns::Netns;

/// A node that can be observed here.
#[derive(Clone, Debug)]
pub struct NodeHandle {
    /// Name.
    pub name: String,
    /// Its own namespace.
    pub netns: Netns,
}

/// An end of the trace, found.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// What it is called and which addresses it has.
    pub end: End,
    /// The pod's namespace; the node's own when the address is the node's.
    pub pod_netns: Netns,
    /// The node it is on.
    pub node: NodeHandle,
    /// The node that translates a service address to it.
    pub translator: Option<NodeHandle>,
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
    #[error("{0:?} is no endpoint; use NODE.POD, NAMESPACE/POD, POD or an IP address")]
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
    /// The node is on another machine.
    #[error(
        "node {node} is on another machine ({agent}); remote nodes are not supported yet, run \
         podtrace where the node's network namespace is"
    )]
    Remote {
        /// Node.
        node: String,
        /// Its agent.
        agent: String,
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
        !matches!(self, Self::Open { .. } | Self::Search { .. } | Self::NoNode { .. })
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
pub fn resolve(text: &str, inventory: Option<&Inventory>) -> Result<Resolved, EndpointError> {
    match name::understand(text, inventory)? {
        name::Target::Pod(node, found, None) => pod(node, found),
        name::Target::Pod(node, found, Some(ip)) => {
            let mut resolved = pod(node, found)?;
            // Who types an address means that address.
            resolved.end.ips = vec![ip];
            Ok(resolved)
        }
        name::Target::Address(ip) => search::by_address(ip, inventory),
    }
}

/// Finds a pod of the inventory.
///
/// # Errors
/// When its node or its namespace cannot be opened.
pub fn pod(node: &Node, pod: &Pod) -> Result<Resolved, EndpointError> {
    let netns = node_netns(node)?;
    let pod_netns = pod_netns(node, pod, &netns)?;
    let ips = if pod.ips.is_empty() {
        search::addresses(&pod_netns).map_err(|source| EndpointError::Open {
            whose: format!("pod {}", label(node, pod)),
            netns: pod_netns.name().to_owned(),
            source,
        })?
    } else {
        pod.ips.clone()
    };
    Ok(Resolved {
        end: End {
            name: label(node, pod),
            node: node.name.clone(),
            pod: Some(pod.name.clone()),
            ips,
            netns_inum: pod_netns.inum(),
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
    if src.pod_netns.inum() != dst.pod_netns.inum() || dst.end.service.is_some() {
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

/// Opens a node's own namespace.
///
/// # Errors
/// When it is on another machine, or not there.
pub fn node_netns(node: &Node) -> Result<Netns, EndpointError> {
    match &node.place {
        Place::Netns(netns) => open(&format!("node {}", node.name), netns),
        Place::Agent(agent) => {
            Err(EndpointError::Remote { node: node.name.clone(), agent: agent.clone() })
        }
    }
}

/// Opens a pod's namespace: the one the inventory names, else the one that has its address and
/// leads to `node`.
///
/// # Errors
/// When it is not there, or cannot be searched for.
pub fn pod_netns(node: &Node, pod: &Pod, node_netns: &Netns) -> Result<Netns, EndpointError> {
    match (&pod.netns, pod.ips.first()) {
        (Some(netns), _) => open(&format!("pod {}", label(node, pod)), netns),
        (None, Some(ip)) => search::pod_of_node(*ip, node_netns),
        (None, None) => Err(EndpointError::PodOnNode {
            pod: pod.name.clone(),
            node: node.name.clone(),
            near: None,
        }),
    }
}

fn open(whose: &str, netns: &str) -> Result<Netns, EndpointError> {
    Netns::open(netns).map_err(|source| EndpointError::Open {
        whose: whose.to_owned(),
        netns: netns.to_owned(),
        source,
    })
}

/// `A.a`
fn label(node: &Node, pod: &Pod) -> String {
    format!("{}.{}", node.name, pod.name)
}
