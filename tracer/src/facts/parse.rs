//! Netlink messages → the values of [`super::types`]. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::{
    BridgeStpState, InfoBridge, InfoBridgePort, InfoData, InfoPortData, InfoVxlan, LinkAttribute,
    LinkFlags, LinkInfo, LinkMessage, LinkXdp, Stats64, XdpAttached,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteNextHopFlags,
    RouteType, RouteVia,
};
use netlink_packet_route::rule::{
    RuleAction as WireRuleAction, RuleAttribute, RuleFlags, RuleMessage,
};

use super::traffic::{LinkStats, Xdp};
use super::types::{
    Address, BridgeInfo, BridgePort, FdbEntry, Link, NeighborEntry, NeighborState, Route, RouteHit,
    RouteKind, Rule, RuleAction,
};
use crate::model::{Mac, VxlanInfo};

pub(super) fn link(message: LinkMessage) -> Link {
    let flags = message.header.flags;
    let mut link = Link {
        index: message.header.index,
        arphrd: message.header.link_layer_type.into(),
        loopback: flags.contains(LinkFlags::Loopback),
        up: flags.contains(LinkFlags::Up),
        lower_up: flags.contains(LinkFlags::LowerUp),
        promiscuous: flags.contains(LinkFlags::Promisc),
        oper_state: "unknown".to_owned(),
        ..Link::default()
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Address(bytes) => link.mac = mac(&bytes),
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::OperState(state) => {
                link.oper_state = state.to_string().to_ascii_lowercase();
            }
            LinkAttribute::Controller(index) => link.master = nonzero(index),
            LinkAttribute::Link(index) => link.linked = nonzero(index),
            LinkAttribute::LinkNetNsId(id) => link.linked_nsid = Some(id).filter(|id| *id >= 0),
            LinkAttribute::LinkInfo(infos) => info(&mut link, infos),
            LinkAttribute::Stats64(counts) => link.stats = Some(stats(&counts)),
            LinkAttribute::Xdp(attributes) => link.xdp = xdp(&attributes),
            _ => {}
        }
    }
    if !link.ethernet() {
        link.mac = None;
    }
    link
}

fn info(link: &mut Link, infos: Vec<LinkInfo>) {
    for info in infos {
        match info {
            LinkInfo::Kind(kind) => link.kind = Some(kind.to_string()),
            LinkInfo::Data(InfoData::Vxlan(attributes)) => link.vxlan = Some(vxlan(attributes)),
            LinkInfo::Data(InfoData::Bridge(attributes)) => link.bridge = Some(bridge(attributes)),
            LinkInfo::PortData(InfoPortData::BridgePort(attributes)) => {
                link.bridge_port = Some(bridge_port(attributes));
            }
            _ => {}
        }
    }
}

fn vxlan(attributes: Vec<InfoVxlan>) -> VxlanInfo {
    let mut info = VxlanInfo { vni: 0, port: 0, local: None, lower_ifindex: None, learning: false };
    for attribute in attributes {
        match attribute {
            InfoVxlan::Id(vni) => info.vni = vni,
            InfoVxlan::Port(port) => info.port = port,
            InfoVxlan::Local(ip) => info.local = Some(IpAddr::V4(ip)),
            InfoVxlan::Local6(ip) => info.local = Some(IpAddr::V6(ip)),
            InfoVxlan::Link(index) => info.lower_ifindex = nonzero(index),
            InfoVxlan::Learning(learning) => info.learning = learning,
            _ => {}
        }
    }
    info
}

fn stats(counts: &Stats64) -> LinkStats {
    LinkStats {
        rx_packets: counts.rx_packets,
        tx_packets: counts.tx_packets,
        rx_bytes: counts.rx_bytes,
        tx_bytes: counts.tx_bytes,
        rx_errors: counts.rx_errors,
        tx_errors: counts.tx_errors,
        rx_dropped: counts.rx_dropped,
        tx_dropped: counts.tx_dropped,
        rx_nohandler: counts.rx_nohandler,
        tx_carrier_errors: counts.tx_carrier_errors,
    }
}

/// The program's name is not among the attributes.
fn xdp(attributes: &[LinkXdp]) -> Option<Xdp> {
    let (mut mode, mut id) = (None, None);
    for attribute in attributes {
        match attribute {
            LinkXdp::Attached(XdpAttached::None) => return None,
            LinkXdp::Attached(XdpAttached::Driver) => mode = Some("native"),
            LinkXdp::Attached(XdpAttached::SocketBuffer) => mode = Some("generic"),
            LinkXdp::Attached(XdpAttached::Hardware) => mode = Some("offload"),
            LinkXdp::Attached(XdpAttached::Multiple) => mode = Some("multiple"),
            LinkXdp::Attached(_) => mode = Some("unknown"),
            LinkXdp::ProgId(program) => id = Some(*program),
            _ => {}
        }
    }
    Some(Xdp { mode: mode?.to_owned(), id, name: None })
}

fn bridge(attributes: Vec<InfoBridge>) -> BridgeInfo {
    let mut info = BridgeInfo::default();
    for attribute in attributes {
        match attribute {
            InfoBridge::StpState(state) => info.stp = Some(state != BridgeStpState::Disabled),
            InfoBridge::VlanFiltering(on) => info.vlan_filtering = Some(on),
            InfoBridge::NfCallIpTables(on) => info.nf_call_iptables = Some(on),
            InfoBridge::NfCallIp6Tables(on) => info.nf_call_ip6tables = Some(on),
            InfoBridge::AgeingTime(time) => info.ageing_time = Some(time),
            _ => {}
        }
    }
    info
}

fn bridge_port(attributes: Vec<InfoBridgePort>) -> BridgePort {
    let mut port = BridgePort::default();
    for attribute in attributes {
        match attribute {
            InfoBridgePort::State(state) => port.state = Some(state.to_string()),
            InfoBridgePort::HairpinMode(on) => port.hairpin = Some(on),
            InfoBridgePort::Isolated(on) => port.isolated = Some(on),
            InfoBridgePort::Learning(on) => port.learning = Some(on),
            InfoBridgePort::UnicastFlood(on) => port.flood = Some(on),
            _ => {}
        }
    }
    port
}

pub(super) fn address(message: AddressMessage) -> Option<Address> {
    // On a point-to-point link `Address` is the far end and `Local` this one; elsewhere both are
    // equal, and IPv6 gives `Address` only.
    let (mut near, mut any, mut flags) = (None, None, AddressFlags::empty());
    for attribute in message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => near = Some(ip),
            AddressAttribute::Address(ip) => any = Some(ip),
            AddressAttribute::Flags(f) => flags = f,
            _ => {}
        }
    }
    let net = IpNet::new(near.or(any)?, message.header.prefix_len).ok()?;
    let tentative = flags.intersects(AddressFlags::Tentative | AddressFlags::Dadfailed);
    Some(Address { ifindex: message.header.index, net, tentative })
}

pub(super) fn neighbor(message: NeighbourMessage) -> Option<NeighborEntry> {
    let (mut ip, mut lladdr) = (None, None);
    for attribute in message.attributes {
        match attribute {
            NeighbourAttribute::Destination(d) => ip = neighbor_address(&d),
            NeighbourAttribute::LinkLayerAddress(bytes) => lladdr = mac(&bytes),
            _ => {}
        }
    }
    let state = match message.header.state {
        NeighbourState::Incomplete => NeighborState::Incomplete,
        NeighbourState::Reachable => NeighborState::Reachable,
        NeighbourState::Stale => NeighborState::Stale,
        NeighbourState::Delay => NeighborState::Delay,
        NeighbourState::Probe => NeighborState::Probe,
        NeighbourState::Failed => NeighborState::Failed,
        NeighbourState::Noarp => NeighborState::Noarp,
        NeighbourState::Permanent => NeighborState::Permanent,
        NeighbourState::None => NeighborState::None,
        other => NeighborState::Other(other.into()),
    };
    Some(NeighborEntry { ifindex: message.header.ifindex, ip: ip?, mac: lladdr, state })
}

pub(super) fn fdb(message: NeighbourMessage) -> Option<FdbEntry> {
    let header = &message.header;
    let mut entry = FdbEntry {
        ifindex: header.ifindex,
        mac: Mac::default(),
        master: None,
        dst: None,
        via: None,
        vni: None,
        port: None,
        own: header.flags.contains(NeighbourFlags::Own),
        permanent: matches!(header.state, NeighbourState::Permanent),
    };
    let mut known = false;
    for attribute in message.attributes {
        match attribute {
            NeighbourAttribute::LinkLayerAddress(bytes) => {
                entry.mac = mac(&bytes)?;
                known = true;
            }
            NeighbourAttribute::Destination(d) => entry.dst = neighbor_address(&d),
            NeighbourAttribute::Controller(index) => entry.master = nonzero(index),
            NeighbourAttribute::IfIndex(index) => entry.via = nonzero(index),
            NeighbourAttribute::Vni(vni) => entry.vni = Some(vni),
            NeighbourAttribute::Port(port) => entry.port = Some(port),
            _ => {}
        }
    }
    known.then_some(entry)
}

pub(super) fn route(message: RouteMessage) -> Option<Route> {
    let header = &message.header;
    let any = match header.address_family {
        AddressFamily::Inet => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        AddressFamily::Inet6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => return None,
    };
    let (mut table, mut dst) = (u32::from(header.table), any);
    let (mut oif, mut gateway, mut prefsrc, mut priority) = (None, None, None, None);
    let mut onlink = header.flags.contains(RouteFlags::Onlink);
    let mut linkdown = header.flags.contains(RouteFlags::Linkdown);
    let mut dead = linkdown || header.flags.contains(RouteFlags::Dead);
    let mut mtu = None;
    let mut hops = Vec::new();
    for attribute in message.attributes {
        match attribute {
            RouteAttribute::Table(t) => table = t,
            RouteAttribute::Destination(d) => dst = route_address(&d)?,
            RouteAttribute::Oif(index) => oif = nonzero(index),
            RouteAttribute::Priority(p) => priority = Some(p),
            RouteAttribute::MultiPath(next) => {
                for hop in next {
                    onlink |= hop.flags.contains(RouteNextHopFlags::Onlink);
                    dead |= hop.flags.contains(RouteNextHopFlags::Dead);
                    linkdown |= hop.flags.contains(RouteNextHopFlags::Linkdown);
                    hops.push((hop.interface_index, hop.attributes.iter().find_map(next_hop)));
                }
            }
            RouteAttribute::PrefSource(a) => prefsrc = route_address(&a),
            RouteAttribute::Metrics(metrics) => mtu = mtu_of(&metrics),
            other => gateway = next_hop(&other).or(gateway),
        }
    }
    if oif.is_none() && !hops.is_empty() {
        let (index, via) = hops.remove(0);
        (oif, gateway) = (Some(index), via);
    }
    let dst = IpNet::new(dst, header.destination_prefix_length).ok()?;
    Some(Route {
        table,
        kind: kind(header.kind),
        dst,
        oif,
        gateway,
        prefsrc,
        priority,
        protocol: header.protocol.into(),
        onlink,
        dead,
        more_hops: hops,
        linkdown,
        tos: header.tos,
        mtu,
    })
}

fn mtu_of(metrics: &[RouteMetric]) -> Option<u32> {
    metrics.iter().find_map(|metric| match metric {
        RouteMetric::Mtu(mtu) => Some(*mtu),
        _ => None,
    })
}

/// The answer to a single query: a route with host prefix.
pub(super) fn hit(message: RouteMessage) -> RouteHit {
    let mut hit = RouteHit {
        kind: kind(message.header.kind),
        table: u32::from(message.header.table),
        ..RouteHit::default()
    };
    for attribute in message.attributes {
        match attribute {
            RouteAttribute::Table(t) => hit.table = t,
            RouteAttribute::Oif(index) => hit.oif = nonzero(index),
            RouteAttribute::PrefSource(a) => hit.prefsrc = route_address(&a),
            RouteAttribute::Metrics(metrics) => hit.mtu = mtu_of(&metrics),
            other => hit.gateway = next_hop(&other).or(hit.gateway),
        }
    }
    hit
}

pub(super) fn rule(message: RuleMessage) -> Option<Rule> {
    let header = &message.header;
    let v6 = match header.family {
        AddressFamily::Inet => false,
        AddressFamily::Inet6 => true,
        _ => return None,
    };
    let mut rule = Rule {
        v6,
        invert: header.flags.contains(RuleFlags::Invert),
        table: u32::from(header.table),
        tos: header.tos,
        ..Rule::default()
    };
    let (mut mark, mut mask, mut target) = (None, u32::MAX, 0);
    for attribute in message.attributes {
        match attribute {
            RuleAttribute::Priority(p) => rule.priority = p,
            RuleAttribute::Source(ip) => rule.src = IpNet::new(ip, header.src_len).ok(),
            RuleAttribute::Destination(ip) => rule.dst = IpNet::new(ip, header.dst_len).ok(),
            RuleAttribute::Iifname(name) => rule.iif = Some(name),
            RuleAttribute::Oifname(name) => rule.oif = Some(name),
            RuleAttribute::FwMark(m) => mark = Some(m),
            RuleAttribute::FwMask(m) => mask = m,
            RuleAttribute::Table(t) => rule.table = t,
            RuleAttribute::Goto(t) => target = t,
            RuleAttribute::IpProtocol(p) => rule.proto = Some(i32::from(p) as u8),
            RuleAttribute::SourcePortRange(r) => rule.sport = Some((r.start, r.end)),
            RuleAttribute::DestinationPortRange(r) => rule.dport = Some((r.start, r.end)),
            RuleAttribute::SuppressPrefixLen(l) if l != u32::MAX => rule.suppress_prefix = Some(l),
            RuleAttribute::UidRange(r) => rule.uids = Some((r.start, r.end)),
            _ => {}
        }
    }
    rule.fwmark = mark.map(|m| (m, mask));
    rule.action = match header.action {
        WireRuleAction::ToTable => RuleAction::ToTable,
        WireRuleAction::Goto => RuleAction::Goto(target),
        WireRuleAction::Nop => RuleAction::Nop,
        WireRuleAction::Blackhole => RuleAction::Blackhole,
        WireRuleAction::Unreachable => RuleAction::Unreachable,
        WireRuleAction::Prohibit => RuleAction::Prohibit,
        other => RuleAction::Other(other.into()),
    };
    Some(rule)
}

fn next_hop(attribute: &RouteAttribute) -> Option<IpAddr> {
    match attribute {
        RouteAttribute::Gateway(address) => route_address(address),
        // An IPv4 route through an IPv6 neighbour.
        RouteAttribute::Via(RouteVia::Inet6(ip)) => Some(IpAddr::V6(*ip)),
        RouteAttribute::Via(RouteVia::Inet(ip)) => Some(IpAddr::V4(*ip)),
        _ => None,
    }
}

fn kind(kind: RouteType) -> RouteKind {
    match kind {
        RouteType::Unicast => RouteKind::Unicast,
        RouteType::Local => RouteKind::Local,
        RouteType::Broadcast => RouteKind::Broadcast,
        RouteType::Anycast => RouteKind::Anycast,
        RouteType::Multicast => RouteKind::Multicast,
        RouteType::BlackHole => RouteKind::Blackhole,
        RouteType::Unreachable => RouteKind::Unreachable,
        RouteType::Prohibit => RouteKind::Prohibit,
        RouteType::Throw => RouteKind::Throw,
        other => RouteKind::Other(other.into()),
    }
}

fn route_address(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some(IpAddr::V4(*ip)),
        RouteAddress::Inet6(ip) => Some(IpAddr::V6(*ip)),
        _ => None,
    }
}

fn neighbor_address(address: &NeighbourAddress) -> Option<IpAddr> {
    match address {
        NeighbourAddress::Inet(ip) => Some(IpAddr::V4(*ip)),
        NeighbourAddress::Inet6(ip) => Some(IpAddr::V6(*ip)),
        // The forwarding database gives bare bytes.
        NeighbourAddress::Other(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(bytes.as_slice()).ok().map(IpAddr::from),
            16 => <[u8; 16]>::try_from(bytes.as_slice()).ok().map(IpAddr::from),
            _ => None,
        },
        _ => None,
    }
}

fn mac(bytes: &[u8]) -> Option<Mac> {
    bytes.try_into().ok().map(Mac)
}

fn nonzero(index: u32) -> Option<u32> {
    Some(index).filter(|i| *i != 0)
}
