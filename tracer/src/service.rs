//! The destination behind an address that a node translates: a ClusterIP, or a node's own address
//! with the port of a NodePort.
//!
//! Enters: what the user typed, and the source. Leaves: the pod that packets end up at, with the
//! [`Service`] through which they are addressed. What is not there (a service that nothing
//! translates, a backend that no pod has) is still a destination: that packets to it go nowhere is
//! for the trace to show.

use std::net::IpAddr;

use anyhow::{Context, Result};

use crate::endpoint::{self, EndpointError, NodeHandle, Resolved};
use crate::expect::translate::{Target, Wanted, ports, targets};
use crate::expect::unknown;
use crate::facts::NetnsFacts;
use crate::model::{End, EndKind, Leads, Service};
use crate::node::{Depth, Nodes};
use crate::session::SpecError;

/// Nodes that are asked whether an address is a service's, at most: kube-proxy writes the same rules
/// on all of them.
const MAX_ASKED: usize = 8;

/// The flow that is asked for, as far as it decides on a translation.
#[derive(Clone, Copy, Debug, Default)]
pub struct Flow {
    /// IP protocol.
    pub proto: Option<u8>,
    /// Destination port.
    pub port: Option<u16>,
    /// A probe makes new connections: what is tracked already says nothing about them.
    pub probe: bool,
}

/// A destination, found.
#[derive(Clone, Debug)]
pub struct Destination {
    /// Where packets end up.
    pub resolved: Resolved,
    /// What the user should know about the choice.
    pub notes: Vec<String>,
}

/// Finds the destination that `text` names, behind a service address too.
///
/// # Errors
/// When nothing is found, or the state of the node that should translate cannot be read.
pub fn destination(text: &str, src: &Resolved, flow: Flow, nodes: &Nodes) -> Result<Destination> {
    let plain = |resolved| Destination { resolved, notes: Vec::new() };
    match endpoint::resolve(text, nodes) {
        // Only a node's own address with a port can be more than it is.
        Ok(found) => {
            let own = found.pod_netns.inum() == found.node.netns.inum();
            let (true, Some(_), Some(ip)) = (own, flow.port, found.end.ips.first().copied()) else {
                return Ok(plain(found));
            };
            let handle = found.node.clone();
            Ok(behind(ip, src, handle, flow, nodes)?.unwrap_or_else(|| plain(found)))
        }
        Err(EndpointError::Address(ip)) => {
            let handle = src.node.clone();
            match behind(ip, src, handle, flow, nodes)? {
                Some(found) => Ok(found),
                // Missing on a pod network: that is a pod's address, not a service's.
                None if home_of(ip, &src.node, nodes).is_some() => {
                    Err(EndpointError::Address(ip).into())
                }
                None if !is_service(ip, src, nodes) => {
                    if let Some(own) = endpoint::local_to(&src.node, ip) {
                        return Ok(plain(own));
                    }
                    Ok(plain(endpoint::outside(ip, src.node.clone())))
                }
                None => Ok(plain(nowhere(ip, src, flow))),
            }
        }
        Err(other) => Err(other.into()),
    }
}

/// The backend to which a node translates an address; `None` where it does not.
fn behind(
    ip: IpAddr,
    src: &Resolved,
    node: NodeHandle,
    flow: Flow,
    nodes: &Nodes,
) -> Result<Option<Destination>> {
    let Some(source) = src.end.ips.iter().copied().find(|own| own.is_ipv4() == ip.is_ipv4()) else {
        return Ok(None);
    };
    let state = node
        .netns
        .read(Depth::Translations, &[source, ip])
        .with_context(|| format!("cannot read how node {} translates {ip}", node.name))?;
    let flow = with_port(ip, flow, &state)?;
    let wanted = Wanted { src: source, dst: ip, proto: flow.proto, port: flow.port };
    let mut all = targets(&state, &wanted);
    all.retain(|t| !(flow.probe && t.leads == Leads::Tracked));
    let Some(first) = all.first() else { return Ok(None) };
    let found =
        all.iter().find_map(|t| Some((t, endpoint::resolve(&t.ip.to_string(), nodes).ok()?)));
    // A tracked connection decides, whatever it leads to.
    let (target, resolved) = match found {
        Some((target, resolved)) if first.leads != Leads::Tracked || target == first => {
            (target, Some(resolved))
        }
        _ => (first, None),
    };
    if target.port.is_some() && flow.port.is_none() {
        let text = format!("service {ip} is translated by port; say which with --port");
        return Err(SpecError(text).into());
    }
    let service = Service {
        ip,
        port: flow.port,
        proto: flow.proto.or(flow.port.map(|_| target.proto)),
        target_port: target.port.filter(|_| flow.port.is_some()),
        leads: target.leads,
        dead: resolved.is_none(),
        others: others(&all, target),
        translator: node.name.clone(),
        entry: Some(target.entry.clone()),
    };
    let mut resolved = match resolved {
        Some(resolved) => resolved,
        None => {
            let home = home_of(target.ip, &node, nodes).unwrap_or_else(|| node.clone());
            on_node(target.ip.to_string(), target.ip, home)
        }
    };
    let notes = choice(target, &service, &resolved);
    resolved.end.service = Some(service);
    resolved.translator = Some(node);
    Ok(Some(Destination { resolved, notes }))
}

/// The flow with the port of the service, where it has only one.
fn with_port(ip: IpAddr, flow: Flow, state: &NetnsFacts) -> Result<Flow, SpecError> {
    let wanted = |proto| flow.proto.is_none_or(|own| own == proto);
    let ports: Vec<(u8, u16)> = match flow.port {
        Some(_) => return Ok(flow),
        None => ports(state, ip).into_iter().filter(|(proto, _)| wanted(*proto)).collect(),
    };
    match ports.as_slice() {
        [] => Ok(flow),
        [(proto, port)] => Ok(Flow { proto: Some(*proto), port: Some(*port), ..flow }),
        several => {
            let list: Vec<String> = several.iter().map(|(_, port)| port.to_string()).collect();
            Err(SpecError(format!(
                "service {ip} has several ports ({}); say which with --port (and --proto)",
                list.join(", ")
            )))
        }
    }
}

/// What new connections may be translated to instead.
fn others(all: &[Target], target: &Target) -> Vec<IpAddr> {
    if target.leads == Leads::Tracked {
        return Vec::new();
    }
    let other = |t: &&Target| t.leads == Leads::Rule && t.ip != target.ip;
    all.iter().filter(other).map(|t| t.ip).collect()
}

/// Which of several backends is followed.
fn choice(target: &Target, service: &Service, to: &Resolved) -> Vec<String> {
    if service.others.is_empty() {
        return Vec::new();
    }
    let others: Vec<String> = service.others.iter().map(IpAddr::to_string).collect();
    vec![format!(
        "service {} has several backends; only packets to {} ({}) are followed, not those to {}",
        service.address(),
        to.end.name,
        target.ip,
        others.join(", ")
    )]
}

/// The node whose bridge has the network of a pod's address: `first`, or one of the inventory.
fn home_of(ip: IpAddr, first: &NodeHandle, nodes: &Nodes) -> Option<NodeHandle> {
    let has = |node: &NodeHandle| {
        node.netns
            .read(Depth::Tables, &[])
            .is_ok_and(|facts| facts.bridge_of(ip).is_some_and(|l| !facts.leads_out(l)))
    };
    let others = nodes.inventory().into_iter().flat_map(|i| &i.nodes).filter_map(|n| {
        let netns = endpoint::node_netns(nodes, n).ok()?;
        Some(NodeHandle { name: n.name.clone(), netns })
    });
    [first.clone()].into_iter().chain(others).find(has)
}

/// Whether the rules of any node say that an address is a service's.
fn is_service(ip: IpAddr, src: &Resolved, nodes: &Nodes) -> bool {
    let others = nodes.inventory().into_iter().flat_map(|i| &i.nodes);
    let others = others.filter_map(|node| endpoint::node_netns(nodes, node).ok());
    let states: Vec<NetnsFacts> = [src.node.netns.clone()]
        .into_iter()
        .chain(others.filter(|netns| netns.inum() != src.node.netns.inum()))
        .take(MAX_ASKED)
        .filter_map(|netns| netns.read(Depth::Translations, &[ip]).ok())
        .collect();
    unknown::is_service(ip, states.iter())
}

/// A service address that nothing translates: packets to it are the source node's to deal with.
fn nowhere(ip: IpAddr, src: &Resolved, flow: Flow) -> Resolved {
    let service = Service {
        ip,
        port: flow.port,
        proto: flow.proto,
        target_port: None,
        leads: Leads::Nowhere,
        dead: false,
        others: Vec::new(),
        translator: src.node.name.clone(),
        entry: None,
    };
    let mut resolved = on_node(service.address(), ip, src.node.clone());
    resolved.end.service = Some(service);
    resolved
}

fn on_node(name: String, ip: IpAddr, node: NodeHandle) -> Resolved {
    Resolved {
        end: End {
            name,
            node: node.name.clone(),
            pod: None,
            ips: vec![ip],
            netns_inum: node.netns.inum(),
            kind: EndKind::default(),
            service: None,
        },
        pod_netns: node.netns.clone(),
        node,
        translator: None,
    }
}
