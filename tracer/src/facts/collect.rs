//! Which namespaces to read for a trace, and what to ask their routing.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use super::attach::attachment;
use super::types::{Link, NetnsFacts, RouteQuery};
use super::{KnownPod, PathFacts, Space, SpaceKind};
use crate::endpoint::{self, Destination, Resolved};
use crate::inventory::Inventory;
use crate::model::End;
use crate::node::{
    Depth, FactsRequest, Namespace, NodeError, Nodes, Site, SpaceAnswer, SpaceRequest,
};

/// Addresses of the other node that are asked for, at most: a node with more has its underlay
/// among the first.
const MAX_NODE_ADDRESSES: usize = 8;

/// Facts, with the namespaces that they are about held open.
#[derive(Clone, Debug)]
pub struct Collected<T> {
    /// What is known.
    pub facts: T,
    /// The namespaces, by inode.
    pub namespaces: HashMap<u32, Namespace>,
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
pub(crate) fn in_full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// A namespace to read, and whose it is: a space without facts.
type Wanted = (Namespace, Space);

/// Namespaces to read, each once, in the order in which they were named.
#[derive(Default)]
struct Reader {
    wanted: Vec<Wanted>,
    spaces: Vec<Space>,
    namespaces: HashMap<u32, Namespace>,
}

impl Reader {
    fn want(
        &mut self,
        namespace: &Namespace,
        kind: SpaceKind,
        node: &str,
        pod: Option<(&str, &[IpAddr])>,
    ) {
        let inum = namespace.inum();
        if self.namespaces.contains_key(&inum) {
            return;
        }
        self.namespaces.insert(inum, namespace.clone());
        let space = Space {
            node: node.to_owned(),
            pod: pod.map(|(name, _)| name.to_owned()),
            kind,
            ips: pod.map(|(_, ips)| ips.to_vec()).unwrap_or_default(),
            facts: NetnsFacts::default(),
        };
        self.wanted.push((namespace.clone(), space));
    }

    /// Reads what is wanted; what cannot be read is told for each.
    fn read(&mut self, nodes: &Nodes, depth: Depth, ends: &[IpAddr]) -> Vec<FactsError> {
        let wanted = std::mem::take(&mut self.wanted);
        let queries = vec![Vec::new(); wanted.len()];
        let mut failed = Vec::new();
        for outcome in ask_sites(wanted, queries, Some(nodes), depth, ends) {
            match outcome {
                Ok((_, space)) => self.spaces.push(space),
                Err((namespace, error)) => {
                    self.namespaces.remove(&namespace.inum());
                    failed.push(error);
                }
            }
        }
        failed
    }

    /// Reads the nodes without pods that some node already read reaches over a pair.
    fn read_wires(&mut self, nodes: &Nodes, depth: Depth, ends: &[IpAddr]) -> Vec<FactsError> {
        let between = nodes.inventory().into_iter().flat_map(|i| &i.nodes);
        for node in between.filter(|n| n.pods.is_empty()) {
            let Ok(namespace) = endpoint::node_netns(nodes, node) else { continue };
            let reached = self.spaces.iter().filter(|s| s.kind == SpaceKind::Node).any(|s| {
                let leads_there = |l| s.facts.peer(l).is_some_and(|p| p.0 == namespace.inum());
                s.facts.links.iter().any(leads_there)
            });
            if reached {
                self.want(&namespace, SpaceKind::Wire, &node.name, None);
            }
        }
        self.read(nodes, depth, ends)
    }
}

/// What became of one space.
type Outcome = Result<Wanted, (Namespace, FactsError)>;

/// Reads spaces, one request to each site, with the answers to the queries of each. `nodes`: also
/// learn under which ids the namespaces know each other.
fn ask_sites(
    wanted: Vec<Wanted>,
    queries: Vec<Vec<RouteQuery>>,
    nodes: Option<&Nodes>,
    depth: Depth,
    ends: &[IpAddr],
) -> Vec<Outcome> {
    let mut sites: Vec<Arc<Site>> = Vec::new();
    for (namespace, _) in &wanted {
        if sites.iter().all(|s| !Arc::ptr_eq(s, &namespace.site)) {
            sites.push(Arc::clone(&namespace.site));
        }
    }
    let mut answers: Vec<Option<SpaceAnswer>> = wanted.iter().map(|_| None).collect();
    let mut failed: HashMap<usize, NodeError> = HashMap::new();
    for site in &sites {
        let of_site = || {
            let here = wanted.iter().zip(&queries).enumerate();
            here.filter(|(_, ((namespace, _), _))| Arc::ptr_eq(&namespace.site, site))
        };
        let request = FactsRequest {
            spaces: of_site()
                .map(|(_, ((n, _), q))| SpaceRequest { netns: n.inum(), queries: q.clone() })
                .collect(),
            depth,
            ends: ends.to_vec(),
            peers: nodes.map(|nodes| nodes.peers(site)),
        };
        match site.facts(&request) {
            Ok(facts) => {
                for ((at, _), answer) in of_site().zip(facts.spaces) {
                    answers[at] = Some(answer);
                }
            }
            Err(error) => failed.extend(of_site().map(|(at, _)| (at, error.clone()))),
        }
    }
    let mut outcomes = Vec::with_capacity(wanted.len());
    for (at, ((namespace, mut space), answer)) in wanted.into_iter().zip(answers).enumerate() {
        let source = match (answer, failed.remove(&at)) {
            (Some(SpaceAnswer::Read(facts)), _) => {
                space.facts = *facts;
                outcomes.push(Ok((namespace, space)));
                continue;
            }
            (Some(SpaceAnswer::Failed(cause)), _) => cause.into(),
            (None, Some(error)) => io::Error::other(error),
            (None, None) => io::Error::other("the node left it out"),
        };
        let error = FactsError { whose: space.title(), netns: namespace.name().to_owned(), source };
        outcomes.push(Err((namespace, error)));
    }
    outcomes
}

/// Reads what concerns the way from one end to others (several where they are backends of one
/// service): their namespaces, their nodes', and what stands between the nodes where that can be
/// seen.
///
/// # Errors
/// When one of those namespaces cannot be read.
pub fn collect(
    nodes: &Nodes,
    src: &Resolved,
    dst: &Destination,
) -> Result<Collected<PathFacts>, FactsError> {
    let mut reader = Reader::default();
    for end in std::iter::once(src).chain(dst.all()) {
        reader.want(&end.node.netns, SpaceKind::Node, &end.node.name, None);
        let name = end.end.pod.as_deref().unwrap_or(&end.end.name);
        let pod = Some((name, end.end.ips.as_slice()));
        reader.want(&end.pod_netns, SpaceKind::Pod, &end.node.name, pod);
    }
    if let Some(node) = &dst.resolved.translator {
        reader.want(&node.netns, SpaceKind::Node, &node.name, None);
    }
    let ends: Vec<IpAddr> =
        src.end.ips.iter().chain(dst.all().flat_map(|d| &d.end.ips)).copied().collect();
    if let Some(error) = reader.read(nodes, Depth::Everything, &ends).into_iter().next() {
        return Err(error);
    }
    let unread = reader.read_wires(nodes, Depth::Everything, &ends);
    let gaps = unread.iter().map(|e| in_full(e)).collect();
    let Reader { spaces, namespaces, .. } = reader;
    let traced: Vec<&End> = std::iter::once(src).chain(dst.all()).map(|r| &r.end).collect();
    let pods = nodes
        .inventory()
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
    let mut facts = PathFacts {
        src: src.end.clone(),
        dst: dst.resolved.end.clone(),
        backends: dst.others.iter().map(|other| other.end.clone()).collect(),
        spaces: spaces.into(),
        pods,
        gaps,
    };
    ask(&mut facts, &namespaces)?;
    Ok(Collected { facts, namespaces })
}

/// Reads the same namespaces again and asks the same questions: what a trace may have changed. Of a
/// node that has become unreachable the state before stays, and a gap says so.
///
/// # Errors
/// When one of the namespaces cannot be entered any more.
pub fn recollect(collected: &Collected<PathFacts>) -> Result<PathFacts, FactsError> {
    let mut facts = collected.facts.clone();
    let held = |space: &Space| collected.namespaces.get(&space.facts.inum).cloned();
    let wanted: Vec<Wanted> =
        facts.spaces.iter().filter_map(|s| Some((held(s)?, s.clone()))).collect();
    let queries = wanted.iter().map(|(_, s)| s.facts.answers.iter().map(|a| a.query).collect());
    let queries = queries.collect();
    let ends: Vec<IpAddr> =
        facts.src.ips.iter().chain(facts.destinations().flat_map(|d| &d.ips)).copied().collect();
    for outcome in ask_sites(wanted, queries, None, Depth::Everything, &ends) {
        match outcome {
            Ok((namespace, fresh)) => {
                let known = facts.spaces.iter_mut().find(|s| s.facts.inum == namespace.inum());
                if let Some(space) = known {
                    let nsids = std::mem::take(&mut space.facts.nsids);
                    space.facts = NetnsFacts { nsids, ..fresh.facts };
                }
            }
            Err((namespace, error)) if namespace.site.is_remote() => {
                facts.gaps.push(format!("as it was before the trace: {}", in_full(&error)));
            }
            Err((_, error)) => return Err(error),
        }
    }
    Ok(facts)
}

/// Reads every node of the inventory, with its pods. What cannot be read is told in the second
/// value.
pub fn survey(nodes: &Nodes) -> (Collected<Vec<Space>>, Vec<String>) {
    let mut reader = Reader::default();
    let mut gaps = Vec::new();
    let all = nodes.inventory().into_iter().flat_map(|i| &i.nodes);
    for node in all.filter(|n| !n.pods.is_empty()) {
        let netns = match endpoint::node_netns(nodes, node) {
            Ok(netns) => netns,
            Err(e) => {
                gaps.push(in_full(&e));
                continue;
            }
        };
        reader.want(&netns, SpaceKind::Node, &node.name, None);
        for pod in &node.pods {
            match endpoint::pod_netns(node, pod, &netns) {
                Ok(located) => {
                    let named = Some((pod.name.as_str(), pod.ips.as_slice()));
                    reader.want(&located.0, SpaceKind::Pod, &node.name, named);
                }
                Err(e) => gaps.push(in_full(&e)),
            }
        }
    }
    let mut failed = reader.read(nodes, Depth::Tables, &[]);
    failed.extend(reader.read_wires(nodes, Depth::Tables, &[]));
    gaps.extend(failed.iter().map(|e| in_full(e)));
    let Reader { spaces, namespaces, .. } = reader;
    (Collected { facts: spaces, namespaces }, gaps)
}

/// Asks the routing of every namespace where the flow would go from there, either way.
fn ask(facts: &mut PathFacts, namespaces: &HashMap<u32, Namespace>) -> Result<(), FactsError> {
    // What the second asks depends on the answers to the first.
    let questions: [fn(&PathFacts, &Space) -> Vec<RouteQuery>; 2] = [first, second];
    for question in questions {
        let (mut wanted, mut queries) = (Vec::new(), Vec::new());
        for space in &facts.spaces {
            let Some(namespace) = namespaces.get(&space.facts.inum) else { continue };
            let mut new = question(facts, space);
            new.retain(|q| space.facts.answer(q).is_none());
            if !new.is_empty() {
                wanted.push((namespace.clone(), space.clone()));
                queries.push(new);
            }
        }
        for outcome in ask_sites(wanted, queries, None, Depth::Answers, &[]) {
            let (namespace, answered) = outcome.map_err(|(_, error)| error)?;
            let asked = facts.spaces.iter_mut().find(|s| s.facts.inum == namespace.inum());
            if let Some(space) = asked {
                space.facts.answers.extend(answered.facts.answers);
            }
        }
    }
    Ok(())
}

/// From one end to the other, in both directions and every family that both have; also to and from
/// another node that translates on the way.
fn flows(facts: &PathFacts) -> Vec<(End, IpAddr, End, IpAddr)> {
    let mut flows = Vec::new();
    let src = &facts.src;
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
    let via = facts.translator();
    if let Some(via) = &via {
        add(src, via);
    }
    for dst in facts.destinations() {
        add(src, dst);
        if let Some(via) = &via {
            add(via, dst);
        }
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
                queries.extend(addressed(facts, &from, &to, target).map(RouteQuery::to));
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
                    queries.extend(tunnel_addresses(other).map(RouteQuery::to));
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
            && (from.node != to.node || from.is_outside())
            && let Some((device, _)) = space.facts.way_to(source)
        {
            let (src, iif) = (Some(source), Some(device.index));
            queries.push(RouteQuery { dst: target, src, iif, oif: None });
        }
    }
    dedup(queries)
}

/// What packets to an end may be addressed to where they set out, besides its own address: a
/// service's, or what a node puts in the place of the source.
fn addressed<'a>(
    facts: &'a PathFacts,
    from: &End,
    to: &End,
    target: IpAddr,
) -> impl Iterator<Item = IpAddr> + 'a {
    let same_family = move |ip: &IpAddr| ip.is_ipv6() == target.is_ipv6();
    let service = to.service.as_ref().map(|s| s.ip);
    let there = facts.node(&to.node).filter(|node| node.node != from.node);
    let nodes = there.into_iter().flat_map(|n| underlay(facts, n).chain(tunnel_addresses(n)));
    service.into_iter().chain(nodes).filter(same_family)
}

/// Addresses of a node's tunnel devices: what masquerading takes for what leaves through a tunnel.
fn tunnel_addresses(node: &Space) -> impl Iterator<Item = IpAddr> + '_ {
    let tunnel =
        |ifindex| node.facts.link(ifindex).is_some_and(|l| l.vxlan.is_some() || l.is_tun());
    let addresses = node.facts.addresses.iter().filter(move |a| tunnel(a.ifindex));
    addresses.map(|a| a.net.addr()).filter(|ip| !is_link_local(*ip)).take(MAX_NODE_ADDRESSES)
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
