//! Table entries as `ip`, `bridge` and `sysctl` print them, shortened to what decides. Pure.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::facts::{
    FdbEntry, Link, NeighborEntry, NeighborState, NetnsFacts, Route, RouteHit, RouteKind, Rule,
    RuleAction,
};

/// `flannel.1: up, mtu 1450, 02:…`
pub(super) fn link(link: &Link) -> String {
    let state = match (link.up, link.lower_up) {
        (false, _) => "down",
        (true, false) => "up, no carrier",
        (true, true) => "up",
    };
    let mac = link.mac.map(|mac| format!(", {mac}")).unwrap_or_default();
    format!("{}: {state}, mtu {}{mac}", link.name, link.mtu)
}

/// `flannel.1: vxlan id 1 local 192.168.10.11 dstport 8472 nolearning`
pub(super) fn vxlan(link: &Link) -> String {
    let Some(vxlan) = &link.vxlan else { return self::link(link) };
    let local = vxlan.local.map(|ip| format!(" local {ip}")).unwrap_or_default();
    let learning = if vxlan.learning { "" } else { " nolearning" };
    format!("{}: vxlan id {}{local} dstport {}{learning}", link.name, vxlan.vni, vxlan.port)
}

/// Name of an interface, or its index where it is not known.
pub(super) fn name(facts: &NetnsFacts, index: u32) -> String {
    facts.link(index).map_or_else(|| format!("if{index}"), |l| l.name.clone())
}

/// `10.10.1.0/24 via 10.10.1.0 dev flannel.1 onlink`: also what `ip route del` takes.
pub(super) fn route(facts: &NetnsFacts, route: &Route) -> String {
    let mut text = match kind(route.kind) {
        "" => String::new(),
        kind => format!("{kind} "),
    };
    text += &prefix(&route.dst);
    if let Some(gateway) = route.gateway {
        text += &format!(" via {gateway}");
    }
    if let Some(oif) = route.oif {
        text += &format!(" dev {}", name(facts, oif));
    }
    if route.table != RT_TABLE_MAIN {
        text += &format!(" table {}", table(route.table));
    }
    // IPv6 gives every route a metric; 1024 is its default.
    if let Some(metric) = route.priority.filter(|m| !route.dst.addr().is_ipv6() || *m != 1024) {
        text += &format!(" metric {metric}");
    }
    if route.onlink {
        text += " onlink";
    }
    text
}

/// The answer of `ip route get`, where the route itself is not known.
pub(super) fn hit(facts: &NetnsFacts, dst: IpAddr, hit: &RouteHit) -> String {
    let mut text = match kind(hit.kind) {
        "" => dst.to_string(),
        kind => format!("{kind} {dst}"),
    };
    if let Some(gateway) = hit.gateway {
        text += &format!(" via {gateway}");
    }
    if let Some(oif) = hit.oif {
        text += &format!(" dev {}", name(facts, oif));
    }
    if hit.table != RT_TABLE_MAIN {
        text += &format!(" table {}", table(hit.table));
    }
    text
}

/// `priority 5270 not fwmark 0x1 lookup 52`: what `ip rule del` takes.
pub(super) fn rule(rule: &Rule) -> String {
    let mut text = format!("priority {}", rule.priority);
    if rule.invert {
        text += " not";
    }
    text += &match rule.src {
        Some(src) => format!(" from {}", prefix(&src)),
        None => " from all".to_owned(),
    };
    if let Some(dst) = rule.dst {
        text += &format!(" to {}", prefix(&dst));
    }
    if let Some((mark, mask)) = rule.fwmark {
        text += &format!(" fwmark {mark:#x}");
        if mask != u32::MAX {
            text += &format!("/{mask:#x}");
        }
    }
    for (word, name) in [("iif", &rule.iif), ("oif", &rule.oif)] {
        if let Some(name) = name {
            text += &format!(" {word} {name}");
        }
    }
    text += &match rule.action {
        RuleAction::ToTable => format!(" lookup {}", table(rule.table)),
        RuleAction::Goto(priority) => format!(" goto {priority}"),
        RuleAction::Nop => " nop".to_owned(),
        RuleAction::Blackhole => " blackhole".to_owned(),
        RuleAction::Unreachable => " unreachable".to_owned(),
        RuleAction::Prohibit => " prohibit".to_owned(),
        RuleAction::Other(n) => format!(" action {n}"),
    };
    text
}

/// `10.10.1.0 dev flannel.1 lladdr 02:… PERMANENT`
pub(super) fn neighbor(facts: &NetnsFacts, entry: &NeighborEntry) -> String {
    let mac = entry.mac.map(|mac| format!(" lladdr {mac}")).unwrap_or_default();
    format!("{} dev {}{mac} {}", entry.ip, name(facts, entry.ifindex), state(entry.state))
}

/// `02:… dev flannel.1 dst 192.168.10.12 self permanent`
pub(super) fn fdb(facts: &NetnsFacts, entry: &FdbEntry) -> String {
    let mut text = format!("{} dev {}", entry.mac, name(facts, entry.ifindex));
    if let Some(dst) = entry.dst {
        text += &format!(" dst {dst}");
    }
    if let Some(port) = entry.port {
        text += &format!(" port {port}");
    }
    if let Some(vni) = entry.vni {
        text += &format!(" vni {vni}");
    }
    if let Some(via) = entry.via {
        text += &format!(" via {}", name(facts, via));
    }
    text += match (entry.own, entry.master) {
        (true, _) => " self",
        (false, Some(_)) => " master",
        (false, None) => "",
    };
    if entry.permanent {
        text += " permanent";
    }
    text
}

/// State of a neighbour entry, upper case as `ip neigh` prints it.
pub(super) fn state(state: NeighborState) -> String {
    match state {
        NeighborState::Incomplete => "INCOMPLETE".to_owned(),
        NeighborState::Reachable => "REACHABLE".to_owned(),
        NeighborState::Stale => "STALE".to_owned(),
        NeighborState::Delay => "DELAY".to_owned(),
        NeighborState::Probe => "PROBE".to_owned(),
        NeighborState::Failed => "FAILED".to_owned(),
        NeighborState::Noarp => "NOARP".to_owned(),
        NeighborState::Permanent => "PERMANENT".to_owned(),
        NeighborState::None => "NONE".to_owned(),
        NeighborState::Other(bits) => format!("state {bits:#x}"),
    }
}

/// RT_TABLE_MAIN (include/uapi/linux/rtnetlink.h).
pub(super) const RT_TABLE_MAIN: u32 = 254;
/// RT_TABLE_LOCAL.
pub(super) const RT_TABLE_LOCAL: u32 = 255;

pub(super) fn table(table: u32) -> String {
    match table {
        253 => "default".to_owned(),
        RT_TABLE_MAIN => "main".to_owned(),
        RT_TABLE_LOCAL => "local".to_owned(),
        n => n.to_string(),
    }
}

/// `default`, `10.10.1.2`, `10.10.1.0/24`
pub(super) fn prefix(net: &IpNet) -> String {
    match net.prefix_len() {
        0 => "default".to_owned(),
        n if n == net.max_prefix_len() => net.addr().to_string(),
        _ => net.to_string(),
    }
}

fn kind(kind: RouteKind) -> &'static str {
    match kind {
        RouteKind::Unicast => "",
        RouteKind::Local => "local",
        RouteKind::Broadcast => "broadcast",
        RouteKind::Anycast => "anycast",
        RouteKind::Multicast => "multicast",
        RouteKind::Blackhole => "blackhole",
        RouteKind::Unreachable => "unreachable",
        RouteKind::Prohibit => "prohibit",
        RouteKind::Throw => "throw",
        RouteKind::Other(_) => "other",
    }
}
