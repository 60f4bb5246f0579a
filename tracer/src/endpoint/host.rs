//! A node as an end: which of its addresses packets carry.

use std::io;
use std::net::IpAddr;

use super::{EndpointError, NodeHandle, Resolved, node_netns};
use crate::facts::{Link, NetnsFacts, RouteQuery, is_link_local};
use crate::inventory::Node;
use crate::model::{End, EndKind};
use crate::node::{Depth, FactsRequest, Namespace, Nodes, SpaceAnswer, SpaceRequest};

/// Finds a node of the inventory, with every address that may be meant, the likeliest first:
/// [`face`] chooses.
pub(super) fn node(nodes: &Nodes, node: &Node) -> Result<Resolved, EndpointError> {
    let netns = node_netns(nodes, node)?;
    let facts = netns.read(Depth::Tables, &[]).map_err(|source| EndpointError::Open {
        whose: format!("node {}", node.name),
        netns: netns.name().to_owned(),
        source,
    })?;
    Ok(Resolved {
        end: End {
            name: node.name.clone(),
            node: node.name.clone(),
            pod: None,
            ips: addresses(&facts),
            netns_inum: netns.inum(),
            kind: EndKind::Node,
            service: None,
        },
        pod_netns: netns.clone(),
        node: NodeHandle { name: node.name.clone(), netns },
        translator: None,
    })
}

/// A node as an end, by an address that it has as others do (a local cache of the name service on every
/// node); `None`: it does not have it.
pub fn local_to(node: &NodeHandle, ip: IpAddr) -> Option<Resolved> {
    let facts = node.netns.read(Depth::Tables, &[]).ok()?;
    facts.holder(ip)?;
    Some(Resolved {
        end: End {
            name: node.name.clone(),
            node: node.name.clone(),
            pod: None,
            ips: vec![ip],
            netns_inum: node.netns.inum(),
            kind: EndKind::Node,
            service: None,
        },
        pod_netns: node.netns.clone(),
        node: node.clone(),
        translator: None,
    })
}

/// Addresses of a node, those by which other machines know it first. Pure.
fn addresses(facts: &NetnsFacts) -> Vec<IpAddr> {
    let tunnel = |ip: IpAddr| {
        facts.links.iter().filter_map(|l| l.vxlan.as_ref()).any(|v| v.local == Some(ip))
    };
    let rank = |link: &Link, ip: IpAddr| match () {
        () if tunnel(ip) => 0,
        () if facts.leads_out(link) => 1,
        () if link.vxlan.is_some() || link.is_tun() || link.is("bridge") || link.is_pair() => 3,
        () => 2,
    };
    let mut found: Vec<(bool, u8, IpAddr)> = facts
        .addresses
        .iter()
        .filter(|a| !is_link_local(a.net.addr()) && !a.net.addr().is_loopback())
        .filter_map(|a| {
            let (ip, link) = (a.net.addr(), facts.link(a.ifindex)?);
            // Dummies hold what is there on every node (service addresses, a local DNS cache).
            let own = !link.loopback && !link.is("dummy");
            own.then(|| (ip.is_ipv6(), rank(link, ip), ip))
        })
        .collect();
    found.sort_by_key(|(v6, rank, _)| (*v6, *rank));
    found.into_iter().map(|(_, _, ip)| ip).collect()
}

/// Chooses, for an end that is a node, the one address of each family that faces the other end: as
/// source the one that its kernel takes for packets there, as destination the one by which other
/// machines know it. What has one address only, because it was typed, keeps it.
pub fn face(src: &mut Resolved, dst: &mut Resolved) {
    for v6 in [false, true] {
        let of = |end: &End| end.ips.iter().copied().find(|ip| ip.is_ipv6() == v6);
        let service = dst.end.service.as_ref().map(|s| s.ip).filter(|ip| ip.is_ipv6() == v6);
        if let Some(sent_to) = service.or_else(|| of(&dst.end)) {
            narrow(src, v6, |netns| source_for(netns, sent_to));
        }
        narrow(dst, v6, |_| None);
    }
}

/// Leaves one address of a family: what `choose` says, else the likeliest.
fn narrow(end: &mut Resolved, v6: bool, choose: impl Fn(&Namespace) -> Option<IpAddr>) {
    let of_family = |ip: &&IpAddr| ip.is_ipv6() == v6;
    let several = end.end.ips.iter().filter(of_family).count() > 1;
    if end.end.kind != EndKind::Node || !several {
        return;
    }
    let chosen = choose(&end.node.netns)
        .or_else(|| end.end.ips.iter().copied().find(|ip| ip.is_ipv6() == v6));
    end.end.ips.retain(|ip| ip.is_ipv6() != v6);
    end.end.ips.extend(chosen);
    end.end.ips.sort_by_key(IpAddr::is_ipv6);
}

/// The source address that a namespace's kernel takes for packets to an address.
fn source_for(netns: &Namespace, dst: IpAddr) -> Option<IpAddr> {
    let ask = || -> io::Result<Option<IpAddr>> {
        let request = FactsRequest {
            spaces: vec![SpaceRequest { netns: netns.inum(), queries: vec![RouteQuery::to(dst)] }],
            depth: Depth::Answers,
            ends: Vec::new(),
            peers: None,
        };
        let answer = netns.site.facts(&request).map_err(io::Error::other)?;
        Ok(answer.spaces.into_iter().find_map(|space| match space {
            SpaceAnswer::Read(facts) => facts.answers.first()?.hit()?.prefsrc,
            SpaceAnswer::Failed(_) => None,
        }))
    };
    // Where it does not say, the likeliest stays.
    ask().ok().flatten().filter(|ip| !ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{Address, Route};
    use crate::model::VxlanInfo;

    #[test]
    fn a_node_is_known_by_its_address_on_the_underlay() {
        let link = |index, kind: Option<&str>| Link {
            index,
            name: format!("if{index}"),
            kind: kind.map(str::to_owned),
            ..Link::default()
        };
        let address =
            |ifindex, net: &str| Address { ifindex, net: net.parse().unwrap(), tentative: false };
        let mut facts = NetnsFacts {
            links: vec![
                link(2, Some("bridge")),
                link(3, Some("dummy")),
                link(4, None),
                link(5, None),
            ],
            addresses: vec![
                address(2, "10.42.0.1/24"),
                address(3, "10.96.0.10/32"),
                address(4, "10.0.2.15/24"),
                address(5, "192.168.56.11/24"),
                address(5, "fd00::11/64"),
                address(5, "fe80::1/64"),
            ],
            routes: vec![Route {
                dst: "0.0.0.0/0".parse().unwrap(),
                oif: Some(4),
                ..Route::default()
            }],
            ..NetnsFacts::default()
        };
        let texts = |facts: &NetnsFacts| -> Vec<String> {
            addresses(facts).iter().map(ToString::to_string).collect()
        };
        assert_eq!(texts(&facts), ["10.0.2.15", "192.168.56.11", "10.42.0.1", "fd00::11"]);
        // The tunnel's address is the one by which the others know it, whatever the default route.
        facts.links[2].vxlan = None;
        facts.links.push(Link {
            vxlan: Some(VxlanInfo {
                vni: 1,
                port: 8472,
                local: Some("192.168.56.11".parse().unwrap()),
                lower_ifindex: Some(5),
                learning: false,
            }),
            ..link(6, Some("vxlan"))
        });
        assert_eq!(texts(&facts)[0], "192.168.56.11");
    }
}
