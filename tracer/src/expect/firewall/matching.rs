//! Conditions against a packet, three-valued. Pure.

use super::{PacketView, sets};
use crate::facts::NetnsFacts;
use crate::facts::firewall::{Condition, CtState, Match, NamePattern, PortRange};

/// How a condition about the packet's mark is told that cannot be judged.
pub(super) const MARK: &str = "this mark";

/// Whether something holds for packets of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Holds {
    /// For none.
    Never,
    /// It cannot be told.
    Unknown,
    /// For some: by rate or by chance.
    Sometimes,
    /// For all.
    Always,
}

impl Holds {
    /// Both.
    pub(super) fn and(self, other: Self) -> Self {
        self.min(other)
    }

    fn not(self) -> Self {
        match self {
            Self::Never => Self::Always,
            Self::Always => Self::Never,
            between => between,
        }
    }

    pub(super) fn when(known: bool) -> Self {
        if known { Self::Always } else { Self::Never }
    }

    pub(super) fn when_known(known: Option<bool>) -> Self {
        known.map_or(Self::Unknown, Self::when)
    }
}

/// IPS_SRC_NAT and IPS_DST_NAT (include/uapi/linux/netfilter/nf_conntrack_common.h).
const SRC_NAT: u32 = 1 << 4;
const DST_NAT: u32 = 1 << 5;
/// IP protocol numbers (IANA).
pub(super) const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
pub(super) const ICMPV6: u8 = 58;
const DCCP: u8 = 33;
const SCTP: u8 = 132;
const UDPLITE: u8 = 136;

/// Whether all of `conditions` hold; those that could not be judged are added to `unclear`.
pub(super) fn all(
    conditions: &[Condition],
    packet: &PacketView,
    facts: &NetnsFacts,
    unclear: &mut Vec<String>,
) -> Holds {
    let mut result = Holds::Always;
    let mut open = Vec::new();
    for condition in conditions {
        let held = holds(condition, packet, facts);
        match held {
            Holds::Never => return Holds::Never,
            Holds::Unknown => open.push(describe(condition, packet, facts)),
            Holds::Sometimes | Holds::Always => {}
        }
        result = result.and(held);
    }
    unclear.extend(open);
    result
}

/// Whether a condition holds.
pub(super) fn holds(condition: &Condition, packet: &PacketView, facts: &NetnsFacts) -> Holds {
    let held = one(&condition.what, packet, facts);
    if condition.invert { held.not() } else { held }
}

fn one(what: &Match, packet: &PacketView, facts: &NetnsFacts) -> Holds {
    let name = |device: &Option<String>, patterns: &[NamePattern]| {
        let matches = |name: &String| patterns.iter().any(|p| p.matches(name));
        Holds::when_known(device.as_ref().map(matches))
    };
    match what {
        Match::Iif(patterns) => name(&packet.iif, patterns),
        Match::Oif(patterns) => name(&packet.oif, patterns),
        Match::PhysdevIn(patterns) => name(&packet.port_in, patterns),
        Match::PhysdevOut(patterns) => name(&packet.port_out, patterns),
        Match::Src(ranges) => Holds::when(ranges.iter().any(|r| r.contains(packet.src))),
        Match::Dst(ranges) => Holds::when(ranges.iter().any(|r| r.contains(packet.dst))),
        Match::V6(v6) => Holds::when(packet.dst.is_ipv6() == *v6),
        Match::EtherType(types) => {
            let own = if packet.dst.is_ipv6() { 0x86dd } else { 0x0800 };
            Holds::when(types.contains(&own))
        }
        Match::EtherSrc(macs) => Holds::when_known(packet.ether_src.map(|m| macs.contains(&m))),
        Match::EtherDst(macs) => Holds::when_known(packet.ether_dst.map(|m| macs.contains(&m))),
        Match::Proto(protos) => Holds::when(protos.contains(&packet.proto)),
        Match::Sport(ranges) => ports(packet, packet.sport, ranges),
        Match::Dport(ranges) => ports(packet, packet.dport, ranges),
        Match::Port(ranges) => {
            let (a, b) = (ports(packet, packet.sport, ranges), ports(packet, packet.dport, ranges));
            a.max(b)
        }
        Match::CtState(states) => Holds::when_known(
            packet.ct.as_ref().map(|own| own.iter().any(|state| states.contains(state))),
        ),
        Match::CtStatus(bits) => ct_status(packet, *bits),
        Match::Mark { value, mask } => {
            Holds::when_known(packet.mark.map(|mark| mark & mask == *value))
        }
        Match::CtMark { value, mask } => {
            Holds::when_known(packet.ct_mark.map(|mark| mark & mask == *value))
        }
        Match::TcpFlags { value, mask } if packet.proto == TCP => {
            Holds::when_known(packet.tcp_flags.map(|flags| flags & mask == *value))
        }
        Match::TcpFlags { .. } => Holds::Never,
        Match::Icmp { v6, types } => {
            if packet.proto != if *v6 { ICMPV6 } else { ICMP } {
                return Holds::Never;
            }
            let fits = |(kind, code): (u8, u8)| {
                types.iter().any(|(k, c)| *k == kind && c.is_none_or(|c| c == code))
            };
            if types.is_empty() { Holds::Always } else { Holds::when_known(packet.icmp.map(fits)) }
        }
        Match::SrcType(kinds) => kind_of(packet.src, facts, kinds),
        Match::DstType(kinds) => kind_of(packet.dst, facts, kinds),
        Match::PacketType(kinds) => {
            if packet.dst.is_multicast() || packet.port_in.as_ref().is_none_or(|p| !p.is_empty()) {
                // Bridged frames may be for another.
                Holds::Unknown
            } else {
                Holds::when(kinds.iter().any(|kind| kind == "host" || kind == "unicast"))
            }
        }
        Match::Fragment => Holds::when_known(packet.fragment),
        Match::Length(ranges) => Holds::when_known(
            packet.length.map(|len| ranges.iter().any(|(from, to)| (*from..=*to).contains(&len))),
        ),
        Match::IpSet { name, from_src } => sets::member(facts, name, from_src, packet),
        Match::Recent(asked) => sets::recent(facts, asked, packet),
        Match::AnyOf(alternatives) => any_of(alternatives, packet, facts),
        Match::Sometimes(_) => Holds::Sometimes,
        Match::Unknown(_) => Holds::Unknown,
    }
}

fn any_of(alternatives: &[Vec<Condition>], packet: &PacketView, facts: &NetnsFacts) -> Holds {
    let mut best = Holds::Never;
    for conditions in alternatives {
        best = best.max(all(conditions, packet, facts, &mut Vec::new()));
        if best == Holds::Always {
            break;
        }
    }
    best
}

fn ports(packet: &PacketView, port: Option<u16>, ranges: &[PortRange]) -> Holds {
    if !matches!(packet.proto, TCP | UDP | DCCP | SCTP | UDPLITE) {
        return Holds::Never;
    }
    let every = ranges.iter().any(|r| r.first == 0 && r.last == u16::MAX);
    let fits = |port| ranges.iter().any(|r| r.contains(port));
    if every { Holds::Always } else { Holds::when_known(port.map(fits)) }
}

fn ct_status(packet: &PacketView, bits: u32) -> Holds {
    let Some(ct) = &packet.ct else { return Holds::Unknown };
    let translated = (bits & SRC_NAT != 0 && ct.contains(&CtState::Snat))
        || (bits & DST_NAT != 0 && ct.contains(&CtState::Dnat));
    if translated {
        Holds::Always
    } else if bits & !(SRC_NAT | DST_NAT) == 0 {
        Holds::Never
    } else {
        Holds::Unknown
    }
}

/// Kinds of address as `-m addrtype` and `fib … type` name them.
fn kind_of(ip: std::net::IpAddr, facts: &NetnsFacts, kinds: &[String]) -> Holds {
    let broadcast = || {
        let of_network = |net: &ipnet::IpNet| {
            net.addr().is_ipv4() && net.prefix_len() < 31 && net.broadcast() == ip
        };
        facts.addresses.iter().any(|a| of_network(&a.net))
            || ip == std::net::IpAddr::V4(std::net::Ipv4Addr::BROADCAST)
    };
    let own = if ip.is_unspecified() {
        "unspec"
    } else if ip.is_multicast() {
        "multicast"
    } else if ip.is_loopback() || facts.addresses.iter().any(|a| a.net.addr() == ip) {
        "local"
    } else if broadcast() {
        "broadcast"
    } else {
        "unicast"
    };
    let named = |kind: &str| kinds.iter().any(|k| k.eq_ignore_ascii_case(kind));
    if named(own) {
        Holds::Always
    } else if own == "unicast" && ["blackhole", "unreachable", "prohibit"].into_iter().any(named) {
        // A route decides.
        Holds::Unknown
    } else {
        Holds::Never
    }
}

fn describe(condition: &Condition, packet: &PacketView, facts: &NetnsFacts) -> String {
    let not = if condition.invert { "not " } else { "" };
    match &condition.what {
        Match::Unknown(text) | Match::Sometimes(text) => format!("{not}{text}"),
        Match::IpSet { name, from_src } => sets::words(facts, name, from_src, packet),
        Match::Recent(asked) => {
            let ip = if asked.by_dst { packet.dst } else { packet.src };
            format!("whether {ip} is in the recent list {} (/proc/net/xt_recent)", asked.list)
        }
        Match::AnyOf(_) => format!("{not}these values together"),
        Match::Iif(_) | Match::Oif(_) => format!("{not}this interface"),
        Match::PhysdevIn(_) | Match::PhysdevOut(_) => format!("{not}this bridge port"),
        Match::Sport(_) | Match::Dport(_) | Match::Port(_) => format!("{not}this port"),
        Match::CtState(_) | Match::CtStatus(_) => format!("{not}this connection state"),
        Match::Mark { .. } => format!("{not}{MARK}"),
        Match::CtMark { .. } => format!("{not}this connection mark"),
        Match::TcpFlags { .. } => format!("{not}these TCP flags"),
        Match::Icmp { .. } => format!("{not}this ICMP type"),
        Match::SrcType(_) | Match::DstType(_) => format!("{not}this kind of address"),
        Match::EtherSrc(_) | Match::EtherDst(_) => format!("{not}this hardware address"),
        Match::PacketType(_) => format!("{not}this kind of packet"),
        Match::Fragment => format!("{not}a fragment"),
        Match::Length(_) => format!("{not}this length"),
        Match::Src(_) | Match::Dst(_) | Match::V6(_) | Match::EtherType(_) | Match::Proto(_) => {
            format!("{not}this address or protocol")
        }
    }
}
