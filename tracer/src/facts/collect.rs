//! Which namespaces to read for a trace, and what to ask their routing.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;

use super::attach::attachment;
use super::types::{Link, NetnsFacts, RouteQuery};
use super::{KnownPod, PathFacts, Space, SpaceKind, deep, netlink};
use crate::endpoint::{self, Resolved};
use crate::inventory::{Inventory, Node, Place};
use crate::model::End;
use crate::netns::Netns;

/// Addresses of the other node that are asked for, at most: a node with more has its underlay
/// among the first.
const MAX_NODE_ADDRESSES: usize = 8;

/// Facts, with the namespaces that they are about held open.
#[derive(Debug)]
pub struct Collected<T> {
    /// What is known.
    pub facts: T,
    /// The namespaces, by inode.
    pub namespaces: HashMap<u32, Netns>,
}

/// A namespace that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the network state of {whose} in namespace {netns}{hint}", hint = hint(source))]
pub struct FactsError {
    /// Node or pod.
    pub whose: String,
    /// Namespace.
    pub netns: String,
    /// Why.
    pub source: io::Error,
}

fn hint(source: &io::Error) -> &'static str {
    if source.kind() == io::ErrorKind::PermissionDenied {
        " (podtrace must run as root)"
    } else {
        ""
    }
}

/// An error with all its causes, as one line.
fn in_full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Namespaces to read, each once, in the order in which they were named.
#[derive(Default)]
struct Reader {
    spaces: Vec<Space>,
    namespaces: HashMap<u32, Netns>,
    known: Vec<Netns>,
}

impl Reader {
    fn know(&mut self, netns: &Netns) {
        if self.known.iter().all(|k| k.inum() != netns.inum()) {
            self.known.push(netns.clone());
        }
    }

    fn read(
        &mut self,
        netns: &Netns,
        kind: SpaceKind,
        node: &str,
        pod: Option<(&str, &[IpAddr])>,
    ) -> Result<(), FactsError> {
        if self.namespaces.contains_key(&netns.inum()) {
            return Ok(());
        }
        let facts = netlink::snapshot(netns, &[], &self.known).map_err(|source| FactsError {
            whose: pod.map_or_else(|| format!("node {node}"), |(p, _)| format!("pod {node}.{p}")),
            netns: netns.name().to_owned(),
            source,
        })?;
        self.namespaces.insert(netns.inum(), netns.clone());
        self.spaces.push(Space {
            node: node.to_owned(),
            pod: pod.map(|(name, _)| name.to_owned()),
            kind,
            ips: pod.map(|(_, ips)| ips.to_vec()).unwrap_or_default(),
            facts,
        });
        Ok(())
    }

    /// Reads the nodes without pods that some node already read reaches over a pair.
    fn read_wires(&mut self, inventory: &Inventory, gaps: &mut Vec<String>) {
        for node in inventory.nodes.iter().filter(|n| n.pods.is_empty()) {
            let Place::Netns(name) = &node.place else { continue };
            let Ok(netns) = Netns::open(name) else { continue };
            let inum = netns.inum();
            let reached = self.spaces.iter().filter(|s| s.kind == SpaceKind::Node).any(|s| {
                s.facts.links.iter().any(|l| s.facts.peer(l).is_some_and(|p| p.0 == inum))
            });
            if reached && let Err(e) = self.read(&netns, SpaceKind::Wire, &node.name, None) {
                gaps.push(in_full(&e));
            }
        }
    }
}

/// Every namespace that the inventory names on this machine: ids can be resolved only to
/// namespaces that are held open. What does not open is not there, and nothing can lead to it.
pub(crate) fn namespaces_of(inventory: &Inventory) -> impl Iterator<Item = Netns> {
    inventory.nodes.iter().flat_map(|node| {
        let own = match &node.place {
            Place::Netns(name) => Some(name),
            Place::Agent(_) => None,
        };
        own.into_iter()
            .chain(node.pods.iter().filter_map(|p| p.netns.as_ref()))
            .filter_map(|name| Netns::open(name).ok())
    })
}

/// Reads what concerns the way between two pods: their namespaces, their nodes', and what stands
/// between the nodes where that can be seen.
///
/// # Errors
/// When one of the four namespaces cannot be entered.
pub fn collect(
    inventory: Option<&Inventory>,
    src: &Resolved,
    dst: &Resolved,
) -> Result<Collected<PathFacts>, FactsError> {
    let mut reader = Reader::default();
    for end in [src, dst] {
        reader.know(&end.node.netns);
        reader.know(&end.pod_netns);
    }
    if let Some(node) = &dst.translator {
        reader.know(&node.netns);
    }
    for netns in inventory.into_iter().flat_map(namespaces_of) {
        reader.know(&netns);
    }
    let mut gaps = Vec::new();
    for end in [src, dst] {
        reader.read(&end.node.netns, SpaceKind::Node, &end.node.name, None)?;
        let name = end.end.pod.as_deref().unwrap_or(&end.end.name);
        let pod = Some((name, end.end.ips.as_slice()));
        reader.read(&end.pod_netns, SpaceKind::Pod, &end.node.name, pod)?;
    }
    if let Some(node) = &dst.translator {
        reader.read(&node.netns, SpaceKind::Node, &node.name, None)?;
    }
    if let Some(inventory) = inventory {
        reader.read_wires(inventory, &mut gaps);
    }
    let Reader { spaces, namespaces, .. } = reader;
    let traced = [&src.end, &dst.end];
    let pods = inventory
        .into_iter()
        .flat_map(Inventory::pods)
        .map(|(node, pod)| KnownPod {
            node: node.name.clone(),
            pod: pod.name.clone(),
            ips: pod.ips.clone(),
        })
        .filter(|p| {
            traced.iter().all(|e| e.node != p.node || e.pod.as_deref() != Some(p.pod.as_str()))
        })
        .collect();
    let mut facts = PathFacts { src: src.end.clone(), dst: dst.end.clone(), spaces, pods, gaps };
    ask(&mut facts, &namespaces)?;
    deep::read(&mut facts, &namespaces);
    Ok(Collected { facts, namespaces })
}

/// Reads the same namespaces again and asks the same questions: what a trace may have changed.
///
/// # Errors
/// When one of the namespaces cannot be entered any more.
pub fn recollect(collected: &Collected<PathFacts>) -> Result<PathFacts, FactsError> {
    let mut facts = collected.facts.clone();
    for space in &mut facts.spaces {
        let Some(netns) = collected.namespaces.get(&space.facts.inum) else { continue };
        let queries: Vec<RouteQuery> = space.facts.answers.iter().map(|a| a.query).collect();
        let fresh = netlink::snapshot(netns, &queries, &[]).map_err(|source| FactsError {
            whose: space.title(),
            netns: netns.name().to_owned(),
            source,
        })?;
        let nsids = std::mem::take(&mut space.facts.nsids);
        space.facts = NetnsFacts { nsids, ..fresh };
    }
    deep::read(&mut facts, &collected.namespaces);
    Ok(facts)
}

/// Reads every node of this machine in the inventory, with its pods. What cannot be read is told
/// in the second value.
pub fn survey(inventory: &Inventory) -> (Collected<Vec<Space>>, Vec<String>) {
    let mut reader = Reader::default();
    let mut gaps = Vec::new();
    let mut nodes: Vec<(&Node, Netns)> = Vec::new();
    for node in &inventory.nodes {
        match endpoint::node_netns(node) {
            Ok(netns) => {
                reader.know(&netns);
                nodes.push((node, netns));
            }
            Err(e) => gaps.push(in_full(&e)),
        }
    }
    let mut pods = Vec::new();
    for (node, netns) in &nodes {
        for pod in &node.pods {
            match endpoint::pod_netns(node, pod, netns) {
                Ok(found) => {
                    reader.know(&found);
                    pods.push((*node, pod, found));
                }
                Err(e) => gaps.push(in_full(&e)),
            }
        }
    }
    for (node, netns) in nodes.iter().filter(|(n, _)| !n.pods.is_empty()) {
        let mut read = reader.read(netns, SpaceKind::Node, &node.name, None);
        for (_, pod, found) in pods.iter().filter(|(of, ..)| of.name == node.name) {
            let named = Some((pod.name.as_str(), pod.ips.as_slice()));
            read = read.and(reader.read(found, SpaceKind::Pod, &node.name, named));
        }
        if let Err(e) = read {
            gaps.push(in_full(&e));
        }
    }
    reader.read_wires(inventory, &mut gaps);
    let Reader { spaces, namespaces, .. } = reader;
    (Collected { facts: spaces, namespaces }, gaps)
}

/// Asks the routing of every namespace where the flow would go from there, either way.
fn ask(facts: &mut PathFacts, namespaces: &HashMap<u32, Netns>) -> Result<(), FactsError> {
    for index in 0..facts.spaces.len() {
        let space = &facts.spaces[index];
        let Some(netns) = namespaces.get(&space.facts.inum) else { continue };
        let questions: [fn(&PathFacts, &Space) -> Vec<RouteQuery>; 2] = [first, second];
        for queries in questions {
            let space = &facts.spaces[index];
            let mut queries = queries(facts, space);
            queries.retain(|q| space.facts.answer(q).is_none());
            let answers = netlink::ask(netns, &queries).map_err(|source| FactsError {
                whose: format!("node {}", space.node),
                netns: netns.name().to_owned(),
                source,
            })?;
            facts.spaces[index].facts.answers.extend(answers);
        }
    }
    Ok(())
}

/// From one end to the other, in both directions and every family that both have; also to and from
/// another node that translates on the way.
fn flows(facts: &PathFacts) -> Vec<(End, IpAddr, End, IpAddr)> {
    let mut flows = Vec::new();
    let (src, dst) = (&facts.src, &facts.dst);
    let mut add = |a: &End, b: &End| {
        for (from, to) in [(a, b), (b, a)] {
            for v6 in [false, true] {
                let of = |end: &End| end.ips.iter().copied().find(|ip| ip.is_ipv6() == v6);
                if let (Some(source), Some(target)) = (of(from), of(to)) {
                    flows.push((from.clone(), source, to.clone(), target));
                }
            }
        }
    };
    add(src, dst);
    if let Some(via) = facts.translator() {
        add(src, &via);
        add(&via, dst);
    }
    flows
}

/// What can be asked at once.
fn first(facts: &PathFacts, space: &Space) -> Vec<RouteQuery> {
    let mut queries = Vec::new();
    for (from, source, to, target) in flows(facts) {
        match space.kind {
            SpaceKind::Pod if space.facts.inum == from.netns_inum => {
                queries.push(RouteQuery::to(target));
            }
            SpaceKind::Node if space.node == from.node => {
                let entry = facts.pod(&from).and_then(|p| attachment(p, space).entry());
                if let Some(iif) = entry {
                    let (src, iif) = (Some(source), Some(iif));
                    queries.push(RouteQuery { dst: target, src, iif, oif: None });
                }
                queries.push(RouteQuery::to(target));
                if let Some(other) = facts.node(&to.node).filter(|o| o.node != space.node) {
                    queries.extend(underlay(facts, other).map(RouteQuery::to));
                }
            }
            SpaceKind::Node if space.node == to.node => queries.push(RouteQuery::to(target)),
            _ => {}
        }
    }
    dedup(queries)
}

/// What depends on the answers to the first questions: the way of tunnel packets, and the way of
/// what comes in through the interface by which the other direction leaves.
fn second(facts: &PathFacts, space: &Space) -> Vec<RouteQuery> {
    if space.kind != SpaceKind::Node {
        return Vec::new();
    }
    let mut queries = Vec::new();
    for answer in &space.facts.answers {
        let Some(hit) = answer.hit() else { continue };
        let device = hit.oif.and_then(|oif| space.facts.link(oif));
        let next_hop = hit.gateway.unwrap_or(answer.query.dst);
        queries.extend(device.and_then(|d| space.facts.tunnel_query(d, next_hop)));
    }
    for (from, source, to, target) in flows(facts) {
        if space.node == to.node
            && from.node != to.node
            && let Some((device, _)) = space.facts.way_to(source)
        {
            let (src, iif) = (Some(source), Some(device.index));
            queries.push(RouteQuery { dst: target, src, iif, oif: None });
        }
    }
    dedup(queries)
}

/// Addresses by which another node may reach this one: those of what is neither a bridge nor a
/// tunnel, nor leads into a pod.
pub(crate) fn underlay<'a>(
    facts: &'a PathFacts,
    node: &'a Space,
) -> impl Iterator<Item = IpAddr> + 'a {
    let leads_into_pod = |link: &Link| {
        let peer = node.facts.peer(link).and_then(|(inum, _)| facts.space(inum));
        peer.is_some_and(|s| s.kind == SpaceKind::Pod)
    };
    node.facts
        .addresses
        .iter()
        .filter(move |a| {
            node.facts.link(a.ifindex).is_some_and(|l| {
                let virtual_only = ["bridge", "dummy"].iter().any(|kind| l.is(kind));
                !(l.loopback
                    || l.vxlan.is_some()
                    || virtual_only
                    || l.is_tun()
                    || leads_into_pod(l))
            })
        })
        .map(|a| a.net.addr())
        .filter(|ip| !is_link_local(*ip))
        .take(MAX_NODE_ADDRESSES)
}

/// 169.254.0.0/16 (RFC 3927) or fe80::/10 (RFC 4291): means something on one link only.
pub(crate) fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

fn dedup(queries: Vec<RouteQuery>) -> Vec<RouteQuery> {
    let mut seen = std::collections::HashSet::new();
    queries.into_iter().filter(|q| seen.insert(*q)).collect()
}
