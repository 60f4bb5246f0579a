//! Finds the end that has an address, and what its node is called.

use std::net::IpAddr;
use std::sync::Arc;

use super::{EndpointError, NodeHandle, Resolved, label, outside};
use crate::inventory::{Node, Pod};
use crate::model::{End, EndKind};
use crate::node::{Locate, Located, Namespace, NodeError, Nodes, Site};

/// Finds an address that no pod of the inventory has: on this machine, else on the others.
pub(super) fn by_address(ip: IpAddr, nodes: &Nodes) -> Result<Resolved, EndpointError> {
    let (mut failed, mut stand_ins) = (None, Vec::new());
    for site in nodes.sites() {
        let wanted =
            Locate::Address { ip, nodes: nodes.node_names(&site), pods: nodes.pod_names(&site) };
        match site.find(&wanted) {
            Ok((netns, located)) => {
                let stand_in = located.stand_in;
                let found = resolved(ip, nodes, &site, netns, located);
                if !outside::is_known(ip, &found, nodes) {
                    continue;
                }
                if !stand_in {
                    return Ok(found);
                }
                stand_ins.push(found);
            }
            // Where it may be matters more than where it is not.
            Err(NodeError::NoAddress(_)) => {}
            // Of strangers, however many.
            Err(NodeError::Ambiguous { .. } | NodeError::NoNode { .. })
                if nodes.inventory().is_some() && !outside::is_held(ip, &site, nodes) => {}
            Err(error) => _ = failed.get_or_insert(error),
        }
    }
    // On several machines it is as on several nodes of one: nobody's place.
    if stand_ins.len() == 1
        && let Some(only) = stand_ins.pop()
    {
        return Ok(only);
    }
    Err(match failed {
        None => EndpointError::Address(ip),
        Some(NodeError::Ambiguous { ip, namespaces }) => {
            EndpointError::AddressAmbiguous { ip, namespaces }
        }
        Some(NodeError::NoNode { ip, netns, interface }) => {
            EndpointError::NoNode { ip, netns, interface }
        }
        Some(NodeError::Search { ip, cause }) => EndpointError::Search { ip, source: cause.into() },
        Some(other) => EndpointError::Search { ip, source: std::io::Error::other(other) },
    })
}

fn resolved(
    ip: IpAddr,
    nodes: &Nodes,
    site: &Arc<Site>,
    pod_netns: Namespace,
    located: Located,
) -> Resolved {
    let netns = Namespace { site: Arc::clone(site), netns: located.node.clone() };
    let node = NodeHandle { name: node_name(nodes, &netns, located.host), netns };
    // The inventory may know the pod without knowing this address of it.
    let on_host = pod_netns.inum() == node.netns.inum();
    let pod = pod_in_inventory(nodes, &pod_netns, &node.netns).filter(|_| !on_host);
    let name = match pod {
        Some((node, pod)) => label(node, pod),
        None if on_host && nodes.inventory().is_some() => node.name.clone(),
        None => ip.to_string(),
    };
    Resolved {
        end: End {
            name,
            node: node.name.clone(),
            pod: pod.map(|(_, pod)| pod.name.clone()),
            ips: vec![ip],
            netns_inum: pod_netns.inum(),
            kind: if on_host { EndKind::Node } else { EndKind::Pod },
            service: None,
        },
        pod_netns,
        node,
        translator: None,
    }
}

fn pod_in_inventory<'a>(
    nodes: &'a Nodes,
    netns: &'a Namespace,
    node: &Namespace,
) -> Option<(&'a Node, &'a Pod)> {
    let here = nodes.at(&netns.site).flat_map(|n| n.pods.iter().map(move |p| (n, p)));
    here.filter(|(_, pod)| pod.netns.is_some()).find(|(_, pod)| {
        let (netns_name, ips) = (pod.netns.clone(), pod.ips.clone());
        let wanted = Locate::Pod { node: node.inum(), netns: netns_name, ips };
        netns.site.find(&wanted).is_ok_and(|(own, _)| own.inum() == netns.inum())
    })
}

/// What to call a node: as the inventory does, else by the host name where it is the host, else by
/// the name of its namespace.
fn node_name(nodes: &Nodes, netns: &Namespace, host: Option<String>) -> String {
    if let Some(name) = netns.site.name() {
        return name.to_owned();
    }
    let known = nodes.at(&netns.site).find(|node| {
        let own = super::node_netns(nodes, node);
        own.is_ok_and(|own| own.inum() == netns.inum())
    });
    if let Some(node) = known {
        return node.name.clone();
    }
    host.unwrap_or_else(|| {
        // A path means that only a process holds it: the inode says more than a pid that may go.
        if netns.name().contains('/') {
            format!("netns-{}", netns.inum())
        } else {
            netns.name().to_owned()
        }
    })
}
