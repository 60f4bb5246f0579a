//! Ends of no node and no pod that is known.
//!
//! Where there is an inventory, it says what a node is and what a pod: a namespace of this machine
//! that holds an address (a lab's gateway, another cluster's node) is neither for that. Without one,
//! whatever namespace of this machine has an address is taken for what it seems.

use std::net::IpAddr;
use std::sync::Arc;

use super::{EndpointError, NodeHandle, Resolved, node_netns, resolve};
use crate::model::{End, EndKind};
use crate::node::{Depth, Namespace, Nodes, Site};

/// An address outside, at the node by which packets leave for it and come back from it.
pub fn outside(ip: IpAddr, node: NodeHandle) -> Resolved {
    Resolved {
        end: End {
            name: ip.to_string(),
            node: node.name.clone(),
            pod: None,
            ips: vec![ip],
            netns_inum: node.netns.inum(),
            kind: EndKind::Outside,
            service: None,
        },
        pod_netns: node.netns.clone(),
        node,
        translator: None,
    }
}

/// Finds the source that `text` names. One outside comes in at the node of `to`.
///
/// # Errors
/// As [`resolve`]; an address outside too when `to` is none of a node or a pod.
pub fn source(text: &str, to: &str, nodes: &Nodes) -> Result<Resolved, EndpointError> {
    match resolve(text, nodes) {
        Err(EndpointError::Address(ip)) => {
            let Ok(to) = resolve(to, nodes) else { return Err(EndpointError::Address(ip)) };
            Ok(outside(ip, to.node))
        }
        found => found,
    }
}

/// Whether what was found on this machine is a node or a pod at all.
pub(super) fn is_known(ip: IpAddr, found: &Resolved, nodes: &Nodes) -> bool {
    if nodes.inventory().is_none() || found.node.netns.site.is_remote() {
        return true;
    }
    let Some(node) = node_at(&found.node.netns, nodes) else { return false };
    let on_host = found.pod_netns.inum() == found.node.netns.inum();
    if on_host {
        return node;
    }
    found.end.pod.is_some() || node && hangs_on(ip, &found.node.netns)
}

/// Whether a namespace is that of a node of the inventory; `Some(false)`: of one that stands between
/// nodes.
fn node_at(netns: &Namespace, nodes: &Nodes) -> Option<bool> {
    let here = |node: &&crate::inventory::Node| {
        node_netns(nodes, node).is_ok_and(|own| own.inum() == netns.inum())
    };
    let node = nodes.at(&netns.site).find(here)?;
    let others = nodes.inventory().into_iter().flat_map(|i| &i.nodes);
    let between = node.pods.is_empty() && others.into_iter().any(|n| !n.pods.is_empty());
    Some(!between)
}

/// Whether an address is one that a node has for pods: in the network of a bridge that does not lead
/// out, or alone behind a pair.
fn hangs_on(ip: IpAddr, node: &Namespace) -> bool {
    node.read(Depth::Tables, &[]).is_ok_and(|facts| {
        let bridge = facts.bridge_of(ip).is_some_and(|bridge| !facts.leads_out(bridge));
        let alone = facts.routes.iter().any(|route| {
            let host = route.dst.prefix_len() == route.dst.max_prefix_len();
            let pair = route.oif.and_then(|oif| facts.link(oif)).is_some_and(|l| l.is_pair());
            host && pair && route.dst.addr() == ip && route.gateway.is_none()
        });
        bridge || alone
    })
}

/// Whether a node of the inventory at a site has an address, or a pod of one.
pub(super) fn is_held(ip: IpAddr, site: &Arc<Site>, nodes: &Nodes) -> bool {
    let holds = |netns: &Namespace| {
        netns.read(Depth::Tables, &[]).is_ok_and(|facts| facts.holder(ip).is_some())
    };
    nodes.at(site).any(|node| {
        node_netns(nodes, node).is_ok_and(|netns| holds(&netns) || hangs_on(ip, &netns))
            || node.pods.iter().any(|pod| pod.ips.contains(&ip))
    })
}
