//! What an address is that no known namespace has: a service's, or one outside. Pure.
//!
//! Enters: the address, and the state of nodes. Nothing says "service" by itself: a node that lacks
//! kube-proxy's rules knows as little of a ClusterIP as of a host on another continent. What tells
//! them apart is evidence on any node: rules or IPVS that translate the very address, a rule that calls
//! a range that of services, or services next to it.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::facts::firewall::{Action, Condition, FirewallRule, Match, Table};
use crate::facts::{NetnsFacts, Virtual};

/// How many leading bits the addresses of a cluster's services have in common, at least:
/// kube-apiserver takes ranges of /12 to /28 (IPv4) and of /108 or longer (IPv6). Somewhat fewer
/// addresses count as near, so that an address outside is not called a service.
const NEAR: (u8, u8) = (16, 112);

/// Whether the rules of any of these nodes tell that an address is that of a service.
pub fn is_service<'a>(ip: IpAddr, nodes: impl Iterator<Item = &'a NetnsFacts> + Clone) -> bool {
    let tables = || nodes.clone().flat_map(|facts| &facts.firewall.tables);
    let rules = || {
        tables().flat_map(|table| {
            let rules = table.chains.iter().flat_map(|chain| &chain.rules);
            rules.map(move |rule| (table, rule))
        })
    };
    let named = |(table, rule): (&Table, &FirewallRule)| {
        serves(table, rule) && destinations(rule).any(|single| single == ip)
    };
    let ranged = |(_, rule): (&Table, &FirewallRule)| is_service_range(rule, ip);
    let balanced = || {
        let services = nodes.clone().filter_map(|facts| facts.ipvs.as_ref());
        services.flat_map(|ipvs| &ipvs.services).filter_map(|service| match service.of {
            Virtual::Address { ip, .. } => Some(ip),
            Virtual::Mark { .. } => None,
        })
    };
    if balanced().any(|other| other == ip) || rules().any(named) || rules().any(ranged) {
        return true;
    }
    // A neighbour of a node is a host, whatever else is in that network.
    let on_link =
        |ip: IpAddr| nodes.clone().flat_map(|facts| &facts.addresses).any(|a| a.net.contains(&ip));
    let Some(around) = around(ip).filter(|_| !on_link(ip)) else { return false };
    // The ports of nodes are balanced at the nodes' own addresses, those of services at a dummy's.
    let at_dummy =
        |ip: IpAddr| nodes.clone().any(|f| f.holder(ip).is_some_and(|link| link.is("dummy")));
    balanced().any(|other| around.contains(&other) && at_dummy(other))
        || rules().filter(|(table, rule)| serves(table, rule)).any(|(_, rule)| {
            destinations(rule).any(|other| around.contains(&other) && !on_link(other))
        })
}

/// Addresses that may belong to the services of the same cluster; `None` for one that is no private
/// one, of which clusters do not take theirs.
fn around(ip: IpAddr) -> Option<IpNet> {
    match ip {
        // Besides RFC 1918 the shared space of RFC 6598, which some clouds use.
        IpAddr::V4(v4)
            if v4.is_private() || v4.octets()[0] == 100 && v4.octets()[1] & 0xc0 == 64 =>
        {
            Ipv4Net::new(v4, NEAR.0).ok().map(|net| IpNet::V4(net.trunc()))
        }
        IpAddr::V6(v6) if v6.is_unique_local() => {
            Ipv6Net::new(v6, NEAR.1).ok().map(|net| IpNet::V6(net.trunc()))
        }
        _ => None,
    }
}

/// Whether a rule does to packets what is done to those for a service.
fn serves(table: &Table, rule: &FirewallRule) -> bool {
    let translates = table.name == "nat" || table.name.contains("kube-proxy");
    let otherwise = matches!(
        rule.action,
        Action::Masquerade { .. } | Action::Snat { .. } | Action::Return | Action::Accept
    );
    translates && !otherwise || says(rule, &["no endpoints"])
}

/// The single addresses that a rule, or a map that it looks into, is for.
fn destinations(rule: &FirewallRule) -> impl Iterator<Item = IpAddr> + '_ {
    let chosen = match &rule.action {
        Action::Choose(choices) => choices.as_slice(),
        _ => &[],
    };
    let conditions = rule.conditions.iter().chain(chosen.iter().flat_map(|c| &c.conditions));
    let ranges = conditions.filter(|c| !c.invert).flat_map(|c| match &c.what {
        Match::Dst(ranges) => ranges.as_slice(),
        _ => &[],
    });
    ranges.filter(|r| r.first == r.last).map(|r| r.first)
}

/// Whether a rule is for all addresses of services, and this is among them.
fn is_service_range(rule: &FirewallRule, ip: IpAddr) -> bool {
    let covers = |c: &&Condition| match &c.what {
        Match::Dst(ranges) => {
            ranges.iter().any(|r| r.first <= ip && ip <= r.last && r.first != r.last)
        }
        _ => false,
    };
    says(rule, &["clusterip", "cluster ip"])
        && rule.conditions.iter().filter(|c| !c.invert).any(|c| covers(&c))
}

fn says(rule: &FirewallRule, words: &[&str]) -> bool {
    let text = rule.text.to_ascii_lowercase();
    words.iter().any(|word| text.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::firewall::iptables;
    use crate::facts::{Address, Ipvs, Link, VirtualService};

    fn node(rules: &str, net: &str) -> NetnsFacts {
        let mut facts = NetnsFacts::default();
        facts.firewall.tables = iptables::parse(rules, false);
        facts.addresses = vec![Address { ifindex: 2, net: net.parse().unwrap(), tentative: false }];
        facts
    }

    const RULES: &str = "*nat\n:PREROUTING ACCEPT [0:0]\n:KUBE-SERVICES - [0:0]\n:KUBE-SVC-X - [0:0]\n\
        -A PREROUTING -j KUBE-SERVICES\n\
        -A KUBE-SERVICES -d 10.97.0.80/32 -p tcp -m tcp --dport 80 -j KUBE-SVC-X\n\
        -A KUBE-SERVICES -d 203.0.113.80/32 -p tcp -m tcp --dport 80 -j KUBE-SVC-X\n\
        -A KUBE-SERVICES -d 192.168.10.12/32 -p tcp -m tcp --dport 80 -j KUBE-SVC-X\n\
        COMMIT\n";

    fn judge(ip: &str) -> bool {
        let (empty, full) = (node("", "192.168.10.11/24"), node(RULES, "192.168.10.12/24"));
        is_service(ip.parse().unwrap(), [&empty, &full].into_iter())
    }

    #[test]
    fn a_service_is_one_that_rules_of_any_node_speak_of() {
        assert!(judge("10.97.0.80"));
        assert!(judge("203.0.113.80"), "an external address, by name");
        assert!(judge("10.97.0.99"), "next to a service");
    }

    #[test]
    fn what_ipvs_balances_is_a_service_and_what_is_next_to_it() {
        let at = |address: &str| VirtualService {
            of: Virtual::Address { proto: 6, ip: address.parse().unwrap(), port: 80 },
            scheduler: "rr".to_owned(),
            persistent: None,
            one_packet: false,
            servers: Vec::new(),
        };
        let mut facts = node("", "192.168.10.12/24");
        // The port of a node, and a service.
        let services = vec![at("192.168.10.12"), at("10.97.0.80")];
        facts.ipvs = Some(Ipvs { services, truncated: false });
        let kind = Some("dummy".to_owned());
        facts.links = vec![Link { index: 3, kind, ..Link::default() }];
        let net = "10.97.0.80/32".parse().unwrap();
        facts.addresses.push(Address { ifindex: 3, net, tentative: false });
        let judge = |ip: &str| is_service(ip.parse().unwrap(), [&facts].into_iter());
        assert!(judge("10.97.0.80"));
        assert!(judge("10.97.0.99"), "next to it");
        assert!(!judge("192.168.20.1"), "near a node");
    }

    #[test]
    fn everything_else_is_outside() {
        for ip in ["203.0.113.9", "8.8.8.8", "10.98.0.1", "192.168.10.1", "192.168.20.1"] {
            assert!(!judge(ip), "{ip}");
        }
        assert!(!is_service("10.97.0.80".parse().unwrap(), [].into_iter()));
    }
}
