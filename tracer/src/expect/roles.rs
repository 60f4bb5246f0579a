//! What each interface is for. Pure.

use std::collections::HashSet;

use crate::facts::{
    Link, NetnsFacts, RouteKind, Space, SpaceKind, attachment, attachment_of, is_link_local,
};
use crate::model::Role;

/// Kinds of interface (`IFLA_INFO_KIND`) that can lead to other machines by themselves, besides
/// hardware, which has no kind.
const UNDERLAY_KINDS: [&str; 5] = ["bond", "team", "vlan", "macvlan", "ipvlan"];

/// An interface with its role.
#[derive(Clone, Copy, Debug)]
pub struct Classified<'a> {
    /// The namespace it is in.
    pub space: &'a Space,
    /// The interface.
    pub link: &'a Link,
    /// What it is for.
    pub role: Role,
}

/// What hangs where on a node: interface indexes in the node's namespace.
#[derive(Default)]
struct Hangers {
    veths: HashSet<u32>,
    bridges: HashSet<u32>,
}

/// Gives every interface except loopback a role.
pub fn classify(spaces: &[Space]) -> Vec<Classified<'_>> {
    let mut found = Vec::new();
    for space in spaces {
        match space.kind {
            SpaceKind::Pod => pod(space, spaces, &mut found),
            SpaceKind::Node => node(space, spaces, &mut found),
            SpaceKind::Wire => {}
        }
    }
    // Which ports of a wire matter depends on what the nodes' interfaces turned out to be.
    let wires: Vec<_> = spaces
        .iter()
        .filter(|s| s.kind == SpaceKind::Wire)
        .flat_map(|space| links(space).map(move |link| (space, link)))
        .map(|(space, link)| {
            let peer = space.facts.peer(link);
            let leads_to_node = found.iter().any(|c: &Classified<'_>| {
                c.role == Role::Physical && peer == Some((c.space.facts.inum, c.link.index))
            });
            Classified { space, link, role: if leads_to_node { Role::Wire } else { Role::Other } }
        })
        .collect();
    found.extend(wires);
    found
}

fn links(space: &Space) -> impl Iterator<Item = &Link> {
    space.facts.links.iter().filter(|l| !l.loopback)
}

fn node_of<'a>(pod: &Space, spaces: &'a [Space]) -> Option<&'a Space> {
    spaces.iter().find(|s| s.kind == SpaceKind::Node && s.node == pod.node)
}

fn pod<'a>(space: &'a Space, spaces: &'a [Space], found: &mut Vec<Classified<'a>>) {
    let own = node_of(space, spaces).and_then(|node| attachment(space, node).pod).map(|l| l.index);
    found.extend(links(space).map(|link| {
        let role = if own == Some(link.index) { Role::Pod } else { Role::Other };
        Classified { space, link, role }
    }));
}

fn node<'a>(space: &'a Space, spaces: &'a [Space], found: &mut Vec<Classified<'a>>) {
    let mut hangers = Hangers::default();
    for pod in spaces.iter().filter(|s| s.kind == SpaceKind::Pod && s.node == space.node) {
        let first = attachment(pod, space);
        let others = links(pod).map(|link| attachment_of(pod, link, space));
        for attached in std::iter::once(first).chain(others) {
            hangers.veths.extend(attached.veth.map(|l| l.index));
            hangers.bridges.extend(attached.bridge.map(|l| l.index));
        }
    }
    let lowers: HashSet<u32> =
        links(space).filter_map(|l| l.vxlan.as_ref()?.lower_ifindex).collect();
    found.extend(links(space).map(|link| {
        let role = if link.vxlan.is_some() {
            Role::Vxlan
        } else if link.is_tun() {
            Role::Tun
        } else if hangers.veths.contains(&link.index) {
            Role::Veth
        } else if hangers.bridges.contains(&link.index) {
            Role::Bridge
        } else if lowers.contains(&link.index)
            || is_underlay(link, space, spaces)
            || is_egress(link, &space.facts)
        {
            Role::Physical
        } else {
            Role::Other
        };
        Classified { space, link, role }
    }));
}

/// Packets of the flow or of its tunnel leave through it, and it is of a sort that leads to other
/// machines.
fn is_egress(link: &Link, facts: &NetnsFacts) -> bool {
    can_be_underlay(link)
        && facts
            .answers
            .iter()
            .filter_map(|a| a.hit())
            .any(|hit| hit.kind == RouteKind::Unicast && hit.oif == Some(link.index))
}

/// Up, with an address or the default route, and leading somewhere else than into a pod.
fn is_underlay(link: &Link, space: &Space, spaces: &[Space]) -> bool {
    let leads_to_pod_or_nowhere = link.is_pair()
        && !space.facts.peer(link).is_some_and(|(inum, _)| {
            spaces.iter().any(|s| s.facts.inum == inum && s.kind != SpaceKind::Pod)
        });
    let facts = &space.facts;
    let has_address = || facts.addresses_of(link.index).any(|net| !is_link_local(net.addr()));
    let has_default =
        || facts.routes.iter().any(|r| r.dst.prefix_len() == 0 && r.oif == Some(link.index));
    link.up
        && link.master.is_none()
        && can_be_underlay(link)
        && !leads_to_pod_or_nowhere
        && (has_address() || has_default())
}

fn can_be_underlay(link: &Link) -> bool {
    match &link.kind {
        None => link.ethernet(),
        Some(kind) => link.is_pair() || UNDERLAY_KINDS.contains(&kind.as_str()),
    }
}
