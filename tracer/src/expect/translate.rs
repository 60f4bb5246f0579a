//! Address translation as the tables of a node have it: where packets to an address end up, and
//! which addresses stand for the source. Pure.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use super::firewall::{Decision, Holds, PacketView, Verdict, evaluate, service_ports};
use super::{Family, ipvs};
use crate::facts::firewall::{CtState, NfHook};
use crate::facts::{Link, NetnsFacts, PathFacts, Space, is_link_local};
use crate::model::{Alias, End, Leads};

/// IP protocol numbers (IANA).
const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;

/// A flow to an address that may be a service's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Source.
    pub src: IpAddr,
    /// Destination, as sent.
    pub dst: IpAddr,
    /// IP protocol; `None`: TCP or UDP.
    pub proto: Option<u8>,
    /// Destination port, as sent.
    pub port: Option<u16>,
}

/// To what a node translates the destination of packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Address.
    pub ip: IpAddr,
    /// Port; `None`: as sent.
    pub port: Option<u16>,
    /// IP protocol of the packets.
    pub proto: u8,
    /// By what.
    pub leads: Leads,
    /// The rule or the tracked connection.
    pub entry: String,
}

/// Where the node may send packets of the flow. First what only tracked connections lead to, which
/// keep their translation whatever the rules say; then every backend that the rules allow a new
/// connection.
pub fn targets(facts: &NetnsFacts, wanted: &Wanted) -> Vec<Target> {
    let by_rules = by_rules(facts, wanted);
    let known = |t: &Target| by_rules.iter().any(|rule| (rule.ip, rule.port) == (t.ip, t.port));
    let mut found = tracked(facts, wanted);
    found.retain(|t| !known(t));
    found.extend(by_rules);
    let mut seen = BTreeSet::new();
    found.retain(|t| seen.insert((t.ip, t.port, t.proto)));
    found
}

fn by_rules(facts: &NetnsFacts, wanted: &Wanted) -> Vec<Target> {
    let protos: &[u8] = match &wanted.proto {
        Some(proto) => &[*proto],
        None => &[TCP, UDP],
    };
    let mut found = Vec::new();
    for proto in protos {
        let packet = first_packet(wanted.src, wanted.dst, *proto, wanted.port);
        let local = facts.addresses.iter().any(|a| a.net.addr() == wanted.src);
        let hook = if local { NfHook::Output } else { NfHook::Prerouting };
        let evaluation = evaluate(facts, packet.tables(), hook, &packet);
        for decision in &evaluation.decisions {
            let Verdict::Dnat(to) = &decision.verdict else { continue };
            let Some((ip, port)) = target(to) else { continue };
            let entry = decision.describe();
            found.push(Target { ip, port, proto: *proto, leads: Leads::Rule, entry });
        }
        // IPVS gets what no rule has sent elsewhere.
        if !found.iter().any(|t| t.leads == Leads::Rule && t.proto == *proto) {
            found.extend(ipvs::targets(facts, wanted, *proto));
        }
    }
    found
}

/// The first packet of a connection, not marked yet.
fn first_packet(src: IpAddr, dst: IpAddr, proto: u8, port: Option<u16>) -> PacketView {
    PacketView {
        dport: port,
        ct: Some(vec![CtState::New]),
        mark: Some(0),
        fragment: Some(false),
        ..PacketView::new(src, dst, proto)
    }
}

/// The ports of a service address that rules or IPVS of the node know, with their protocol.
pub fn ports(facts: &NetnsFacts, ip: IpAddr) -> BTreeSet<(u8, u16)> {
    service_ports(facts, ip).into_iter().map(|port| (port.proto, port.port)).collect()
}

fn tracked(facts: &NetnsFacts, wanted: &Wanted) -> Vec<Target> {
    let entries = facts.conntrack.iter().flat_map(|c| &c.entries);
    entries
        .filter(|e| {
            // TCP's connections end, but their entries stay for a while.
            (e.proto != TCP || e.tcp_state.as_deref() == Some("ESTABLISHED"))
                && wanted.proto.is_none_or(|proto| proto == e.proto)
                && e.destination_translated()
                && (e.original.src, e.original.dst) == (wanted.src, wanted.dst)
                && (wanted.port.is_none() || e.original.dport == wanted.port)
        })
        .map(|e| Target {
            ip: e.reply.src,
            port: e.reply.sport,
            proto: e.proto,
            leads: Leads::Tracked,
            entry: tracked_text(e),
        })
        .collect()
}

/// As `conntrack -L` prints it, without what changes.
fn tracked_text(entry: &crate::facts::ConntrackEntry) -> String {
    let tuple = |t: &crate::facts::Tuple| {
        let port = |name: &str, port: Option<u16>| {
            port.map_or_else(String::new, |port| format!(" {name}={port}"))
        };
        let (sport, dport) = (port("sport", t.sport), port("dport", t.dport));
        format!("src={} dst={}{sport}{dport}", t.src, t.dst)
    };
    let proto = match entry.proto {
        UDP => "udp".to_owned(),
        other => other.to_string(),
    };
    let unreplied = if entry.seen_reply() { "" } else { " [UNREPLIED]" };
    format!("conntrack {proto} {}{unreplied} {}", tuple(&entry.original), tuple(&entry.reply))
}

/// The first address of a translation's target, as iptables and nft write it: `10.10.1.2:8080`,
/// `[fd00::2]:8080`, `10.10.1.2`, `10.10.1.2-10.10.1.9:80-90`.
pub(super) fn target(text: &str) -> Option<(IpAddr, Option<u16>)> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some((ip, None));
    }
    if let Ok(socket) = text.parse::<SocketAddr>() {
        return Some((socket.ip(), Some(socket.port())));
    }
    let (addresses, ports) = match text.strip_prefix('[').and_then(|t| t.split_once(']')) {
        Some((addresses, rest)) => (addresses, rest.strip_prefix(':')),
        None if text.matches(':').count() == 1 => {
            text.split_once(':').map_or((text, None), |(a, p)| (a, Some(p)))
        }
        None => (text, None),
    };
    let first = |range: &str| range.split('-').next().unwrap_or_default().to_owned();
    let ip = first(addresses).parse().ok()?;
    let port = ports.and_then(|p| first(p).parse().ok());
    Some((ip, port))
}

/// What stands for the addresses of the ends in packets of a family.
pub(super) fn aliases(facts: &PathFacts, family: Family) -> Vec<Alias> {
    let (Some(src), Some(dst)) = (family.first(&facts.src), family.first(&facts.dst)) else {
        return Vec::new();
    };
    let mut aliases = Vec::new();
    let service = facts.dst.service.as_ref().filter(|s| s.leads.translates());
    if let Some(service) = service {
        aliases.push(Alias {
            ip: service.ip,
            port: service.port,
            real: dst,
            real_port: service.target_port,
            source: false,
        });
    }
    let mut sources = Vec::new();
    let translator = service.map_or(facts.src.node.as_str(), |s| s.translator.as_str());
    let nodes = BTreeSet::from([facts.src.node.as_str(), translator]);
    for node in nodes.into_iter().filter_map(|name| facts.node(name)) {
        for ip in sources_at(facts, node, src, dst) {
            if !sources.contains(&ip) && ip != src {
                sources.push(ip);
            }
        }
    }
    aliases.extend(sources.into_iter().map(|ip| Alias {
        ip,
        port: None,
        real: src,
        real_port: None,
        source: true,
    }));
    aliases
}

/// Addresses to which a node may translate the flow's source.
fn sources_at(facts: &PathFacts, node: &Space, src: IpAddr, dst: IpAddr) -> Vec<IpAddr> {
    let service = facts.dst.service.as_ref();
    let protos: Vec<u8> = match service.and_then(|s| s.proto) {
        Some(proto) => vec![proto],
        None => vec![if dst.is_ipv6() { ICMPV6 } else { ICMP }, TCP, UDP],
    };
    let mut found = Vec::new();
    for proto in protos {
        let sent = service.map_or(dst, |s| s.ip);
        let mut packet = first_packet(src, sent, proto, service.and_then(|s| s.port));
        let hook = match node.facts.holder(src) {
            Some(_) => NfHook::Output,
            None => NfHook::Prerouting,
        };
        let before = evaluate(&node.facts, packet.tables(), hook, &packet);
        let translates = service.is_none_or(|s| s.translator == node.node);
        packet.mark = before.packet.mark;
        if translates {
            packet.dst = dst;
            packet.dport = service.map_or(packet.dport, |s| s.target_port.or(s.port));
            if service.is_some() {
                packet.ct = Some(vec![CtState::New, CtState::Dnat]);
            }
        }
        let Some(device) = way_out(facts, node, packet.dst) else { continue };
        packet.oif = Some(device.name.clone());
        let after = evaluate(&node.facts, packet.tables(), NfHook::Postrouting, &packet);
        for decision in after.decisions.iter().filter(|d| d.holds != Holds::Never) {
            let Verdict::Snat(to) = &decision.verdict else { continue };
            match target(to) {
                Some((ip, _)) => found.push(ip),
                None => found.extend(own_addresses(node, device, packet.dst)),
            }
        }
    }
    found
}

/// The source that a packet to `dst` gets by a rule, at the interface by which it leaves.
pub(super) fn taken(
    node: &Space,
    device: Option<&Link>,
    decision: &Decision,
    dst: IpAddr,
) -> Option<IpAddr> {
    let Verdict::Snat(to) = &decision.verdict else { return None };
    match target(to) {
        Some((ip, _)) => Some(ip),
        None => own_addresses(node, device?, dst).into_iter().next(),
    }
}

/// Through which interface the node sends packets to an address.
fn way_out<'a>(facts: &'a PathFacts, node: &'a Space, dst: IpAddr) -> Option<&'a Link> {
    let near = |end: &End| end.ips.contains(&dst) && end.node == node.node;
    let bridge = [&facts.dst, &facts.src]
        .into_iter()
        .filter(|end| near(end))
        .find_map(|end| facts.attachment(end)?.bridge);
    bridge.or_else(|| node.facts.way_to(dst).map(|(link, _)| link))
}

/// What masquerading takes: an address of the interface (net/netfilter/nf_nat_masquerade.c), first
/// one of the next hop's network; an interface without one borrows any of the namespace that is not
/// bound to the host (inet_select_addr, net/ipv4/devinet.c).
fn own_addresses(node: &Space, device: &Link, dst: IpAddr) -> Vec<IpAddr> {
    let facts = &node.facts;
    let next_hop = facts.way_to(dst).and_then(|(_, hit)| hit.gateway).unwrap_or(dst);
    let fits = |ip: IpAddr| ip.is_ipv4() == dst.is_ipv4() && !is_link_local(ip);
    let mut own: Vec<_> = facts.addresses_of(device.index).filter(|n| fits(n.addr())).collect();
    own.sort_by_key(|net| !net.contains(&next_hop));
    if !own.is_empty() {
        return own.into_iter().map(|net| net.addr()).collect();
    }
    let mut others: Vec<_> = facts
        .addresses
        .iter()
        .filter(|a| fits(a.net.addr()) && !a.net.addr().is_loopback())
        .map(|a| (a.ifindex, a.net.addr()))
        .collect();
    others.sort_unstable();
    others.into_iter().map(|(_, ip)| ip).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Option<(String, Option<u16>)> {
        target(text).map(|(ip, port)| (ip.to_string(), port))
    }

    #[test]
    fn targets_are_read_as_both_tools_write_them() {
        assert_eq!(at("10.10.1.2:8080"), Some(("10.10.1.2".into(), Some(8080))));
        assert_eq!(at("10.10.1.2"), Some(("10.10.1.2".into(), None)));
        assert_eq!(at("[fd00::2]:8080"), Some(("fd00::2".into(), Some(8080))));
        assert_eq!(at("fd00::2"), Some(("fd00::2".into(), None)));
        assert_eq!(at("10.0.0.1-10.0.0.9:80-90"), Some(("10.0.0.1".into(), Some(80))));
        assert_eq!(at("masquerade"), None);
        assert_eq!(at(":8080"), None);
    }
}
