//! The destination behind an address that a node translates: a ClusterIP, or a node's own address
//! with the port of a NodePort.
//!
//! Enters: what the user typed, and the source. Leaves: the pod that packets end up at, with the
//! [`Service`] through which they are addressed. What is not there (a service that nothing
//! translates, a backend that no pod has) is still a destination: that packets to it go nowhere is
//! for the trace to show.

use std::collections::BTreeSet;
use std::net::IpAddr;

use anyhow::{Context, Result};

use crate::endpoint::{self, Destination, EndpointError, NodeHandle, Resolved};
use crate::expect::translate::{Wanted, ports, targets};
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

/// Backends of a service that are followed, at most: each has interfaces to attach to.
const MAX_FOLLOWED: usize = 256;

/// Finds the destination that `text` names, behind a service address too.
///
/// # Errors
/// When nothing is found, or the state of the node that should translate cannot be read.
pub fn destination(text: &str, src: &Resolved, flow: Flow, nodes: &Nodes) -> Result<Destination> {
    match endpoint::resolve(text, nodes) {
        // Only a node's own address with a port can be more than it is.
        Ok(found) => {
            let own = found.pod_netns.inum() == found.node.netns.inum();
            let (true, Some(_), Some(ip)) = (own, flow.port, found.end.ips.first().copied()) else {
                return Ok(found.into());
            };
            let on_the_way = [src.node.clone(), found.node.clone()];
            Ok(translated(ip, src, &on_the_way, flow, nodes)?.unwrap_or_else(|| found.into()))
        }
        Err(EndpointError::Address(ip)) => {
            match translated(ip, src, std::slice::from_ref(&src.node), flow, nodes)? {
                Some(found) => Ok(found),
                // Missing on a pod network: that is a pod's address, not a service's.
                None if home_of(ip, &src.node, nodes).is_some() => {
                    Err(EndpointError::Address(ip).into())
                }
                None if !is_service(ip, src, nodes) => {
                    let own = endpoint::local_to(&src.node, ip);
                    Ok(own.unwrap_or_else(|| endpoint::outside(ip, src.node.clone())).into())
                }
                None => Ok(nowhere(ip, src, flow).into()),
            }
        }
        Err(other) => Err(other.into()),
    }
}

/// The backends to which the first of these nodes that translates an address sends it on.
fn translated(
    ip: IpAddr,
    src: &Resolved,
    on_the_way: &[NodeHandle],
    flow: Flow,
    nodes: &Nodes,
) -> Result<Option<Destination>> {
    let mut asked = BTreeSet::new();
    for node in on_the_way.iter().filter(|n| asked.insert(n.netns.inum())) {
        if let Some(found) = behind(ip, src, node, flow, nodes)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// The backends to which a node translates an address; `None` where it does not.
fn behind(
    ip: IpAddr,
    src: &Resolved,
    node: &NodeHandle,
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
    // What is tracked says nothing about the new connections of a probe.
    all.retain(|t| !(flow.probe && t.leads == Leads::Tracked));
    // A leg is an address: ports tell nothing apart on the way there.
    let mut seen = BTreeSet::new();
    all.retain(|t| seen.insert(t.ip));
    if all.iter().any(|t| t.port.is_some()) && flow.port.is_none() {
        let text = format!("service {ip} is translated by port; say which with --port");
        return Err(SpecError(text).into());
    }
    let unfollowed: Vec<IpAddr> = all.iter().skip(MAX_FOLLOWED).map(|t| t.ip).collect();
    let mut notes = Vec::new();
    if !unfollowed.is_empty() {
        notes.push(format!(
            "service {ip} has {} backends; the first {MAX_FOLLOWED} are followed",
            all.len()
        ));
    }
    // Of a service with the same port for TCP and UDP, both are meant.
    let same = all.iter().all(|t| t.proto == all[0].proto);
    let proto = all.first().filter(|_| same && flow.port.is_some()).map(|t| t.proto);
    let backends = all.iter().take(MAX_FOLLOWED).map(|target| {
        let (mut resolved, dead) = backend(target.ip, node, nodes);
        resolved.end.service = Some(Service {
            ip,
            port: flow.port,
            proto: flow.proto.or(proto),
            target_port: target.port.filter(|_| flow.port.is_some()),
            leads: target.leads,
            dead,
            others: unfollowed.clone(),
            translator: node.name.clone(),
            entry: Some(target.entry.clone()),
        });
        resolved.translator = Some(node.clone());
        resolved
    });
    let mut backends = backends.collect::<Vec<_>>().into_iter();
    let Some(resolved) = backends.next() else { return Ok(None) };
    Ok(Some(Destination { resolved, others: backends.collect(), notes }))
}

/// Who has a backend's address; where nobody has, the node whose pod network it is of, and that it is
/// dead. Of no pod network, it is outside.
fn backend(ip: IpAddr, translator: &NodeHandle, nodes: &Nodes) -> (Resolved, bool) {
    match endpoint::resolve(&ip.to_string(), nodes) {
        Ok(resolved) => (resolved, false),
        Err(_) => match home_of(ip, translator, nodes) {
            Some(home) => (on_node(ip.to_string(), ip, home), true),
            None => (endpoint::outside(ip, translator.clone()), false),
        },
    }
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
        // DNS: one port, by either protocol.
        [(_, port), more @ ..] if !flow.probe && more.iter().all(|(_, other)| other == port) => {
            Ok(Flow { port: Some(*port), ..flow })
        }
        several => {
            let name = |proto| match proto {
                6 => "tcp".to_owned(),
                17 => "udp".to_owned(),
                other => format!("protocol {other}"),
            };
            let list = several.iter().map(|(proto, port)| format!("{port}/{}", name(*proto)));
            let list: Vec<String> = list.collect();
            Err(SpecError(format!(
                "service {ip} has several ports ({}); say which with --port and --proto",
                list.join(", ")
            )))
        }
    }
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
