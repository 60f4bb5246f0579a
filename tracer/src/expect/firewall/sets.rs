//! Whether a packet is in an ipset, or in a list of `-m recent`. Pure.
//!
//! As the kernel looks it up (net/netfilter/ipset): every dimension of the set takes its value from
//! the source or the destination of the packet, as the rule says; among networks the smallest that
//! has an address decides, and may say that it is *not* in.

use std::net::IpAddr;

use super::PacketView;
use super::matching::{Holds, ICMP, ICMPV6};
use crate::facts::NetnsFacts;
use crate::facts::firewall::{IpSet, IpSetEntry, IpSetPart, RecentMatch};

/// Sets in sets go no deeper: the kernel allows none at all in a member.
const DEEPEST: u8 = 4;

/// Whether the packet is in the set.
pub(super) fn member(
    facts: &NetnsFacts,
    name: &str,
    from_src: &[bool],
    packet: &PacketView,
) -> Holds {
    within(facts, name, from_src, packet, DEEPEST)
}

fn within(
    facts: &NetnsFacts,
    name: &str,
    from_src: &[bool],
    packet: &PacketView,
    depth: u8,
) -> Holds {
    let Some(set) = facts.firewall.ipset(name) else { return Holds::Unknown };
    let known = set.incomplete.is_none();
    let dimensions = set.dimensions().count();
    if set.kind.is_empty() {
        return Holds::Unknown;
    }
    // A set of the other IP version, or a rule that names too few parts, matches nothing
    // (net/netfilter/ipset/ip_set_core.c, ip_set_test).
    let other = set.v6.is_some_and(|v6| v6 != packet.dst.is_ipv6());
    if other || from_src.len() < dimensions {
        return Holds::Never;
    }
    let best = set.entries.iter().filter_map(|entry| {
        let parts = entry.parts.iter().zip(from_src);
        let fits = parts.map(|(part, src)| fits(facts, part, *src, from_src, packet, depth));
        let all = fits.min().unwrap_or(Holds::Never);
        (all != Holds::Never).then(|| (width(entry), all, entry.nomatch))
    });
    let best = best.min_by(|a, b| (a.0, b.1).cmp(&(b.0, a.1)));
    match best {
        Some((_, Holds::Always, nomatch)) if nomatch && known => Holds::Never,
        Some((_, Holds::Always, false)) if known || exact(set) => Holds::Always,
        None if known => Holds::Never,
        Some((_, holds, false)) if known => holds,
        _ => Holds::Unknown,
    }
}

/// Whether nothing that was not read could except an entry.
fn exact(set: &IpSet) -> bool {
    !set.dimensions().any(|what| what == "net")
}

/// How many addresses an entry has, as bits: the fewer, the more it says.
fn width(entry: &IpSetEntry) -> u32 {
    let bits = |part: &IpSetPart| match part {
        IpSetPart::Addresses(range) => match (range.first, range.last) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                32 - b.to_bits().abs_diff(a.to_bits()).leading_zeros()
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                128 - b.to_bits().abs_diff(a.to_bits()).leading_zeros()
            }
            _ => 0,
        },
        _ => 0,
    };
    entry.parts.iter().map(bits).sum()
}

fn fits(
    facts: &NetnsFacts,
    part: &IpSetPart,
    src: bool,
    from_src: &[bool],
    packet: &PacketView,
    depth: u8,
) -> Holds {
    match part {
        IpSetPart::Addresses(range) => {
            Holds::when(range.contains(if src { packet.src } else { packet.dst }))
        }
        IpSetPart::Ports { proto, ports } => {
            if proto.is_some_and(|proto| proto != packet.proto) {
                return Holds::Never;
            }
            let own = match packet.proto {
                ICMP | ICMPV6 => packet.icmp.map(|(kind, code)| u16::from_be_bytes([kind, code])),
                _ if src => packet.sport,
                _ => packet.dport,
            };
            Holds::when_known(own.map(|port| ports.contains(port)))
        }
        IpSetPart::Mac(mac) => {
            let own = if src { packet.ether_src } else { packet.ether_dst };
            Holds::when_known(own.map(|own| own == *mac))
        }
        IpSetPart::Interface { name, port } => {
            let own = match (src, port) {
                (true, false) => &packet.iif,
                (true, true) => &packet.port_in,
                (false, false) => &packet.oif,
                (false, true) => &packet.port_out,
            };
            Holds::when_known(own.as_ref().map(|own| own == name))
        }
        IpSetPart::Mark(mark) => Holds::when_known(packet.mark.map(|own| own == *mark)),
        IpSetPart::Set(_) if depth == 0 => Holds::Unknown,
        IpSetPart::Set(name) => within(facts, name, from_src, packet, depth - 1),
        IpSetPart::Unknown => Holds::Unknown,
    }
}

/// Whether the packet's address is in the list, lately and often enough.
pub(super) fn recent(facts: &NetnsFacts, asked: &RecentMatch, packet: &PacketView) -> Holds {
    let Some(list) = facts.firewall.recent.iter().find(|list| list.name == asked.list) else {
        return Holds::Unknown;
    };
    let own = masked(if asked.by_dst { packet.dst } else { packet.src }, asked.mask);
    let Some(entry) = list.entries.iter().find(|entry| masked(entry.ip, asked.mask) == own) else {
        return Holds::Never;
    };
    let often = asked.hits.is_none_or(|hits| entry.hits >= hits);
    let lately = match (asked.seconds, entry.age) {
        (None, _) => Some(true),
        (Some(seconds), Some(age)) => Some(age <= u64::from(seconds)),
        (Some(_), None) => None,
    };
    // Hits count within the seconds; which of them are is not kept.
    let lately = if asked.hits.is_some() && asked.seconds.is_some() && often {
        lately.filter(|lately| !lately)
    } else {
        lately
    };
    if often { Holds::when_known(lately) } else { Holds::Never }
}

fn masked(ip: IpAddr, mask: Option<IpAddr>) -> IpAddr {
    match (ip, mask) {
        (IpAddr::V4(ip), Some(IpAddr::V4(mask))) => IpAddr::V4(ip & mask),
        (IpAddr::V6(ip), Some(IpAddr::V6(mask))) => IpAddr::V6(ip & mask),
        (ip, _) => ip,
    }
}

/// `10.42.0.10 is not in ipset KUBE-SRC-…`, `…, which could not be read: …`; `None` where it is
/// said for nothing.
pub(super) fn words(
    facts: &NetnsFacts,
    name: &str,
    from_src: &[bool],
    packet: &PacketView,
) -> String {
    let set = facts.firewall.ipset(name);
    let dimensions: Vec<&str> = set.map(|set| set.dimensions().collect()).unwrap_or_default();
    let value = |(at, src): (usize, &bool)| -> String {
        let what = dimensions.get(at).copied();
        match what {
            Some("port") => {
                let port = if *src { packet.sport } else { packet.dport };
                format!(
                    "{}:{}",
                    protocol(packet.proto),
                    port.map_or_else(|| "?".into(), |p| p.to_string())
                )
            }
            Some("mac") => "its hardware address".to_owned(),
            Some("iface") => {
                let name = if *src { &packet.iif } else { &packet.oif };
                name.clone().filter(|n| !n.is_empty()).unwrap_or_else(|| "its interface".to_owned())
            }
            Some("mark") => "its mark".to_owned(),
            // A set of sets: what its members are looked up with.
            _ if *src => packet.src.to_string(),
            _ => packet.dst.to_string(),
        }
    };
    let shown = dimensions.len().max(1);
    let values: Vec<String> = from_src.iter().enumerate().take(shown).map(value).collect();
    let values = values.join(",");
    match (member(facts, name, from_src, packet), set) {
        (Holds::Always, _) => format!("{values} is in ipset {name}"),
        (Holds::Never, _) => format!("{values} is not in ipset {name}"),
        (_, Some(IpSet { incomplete: Some(reason), .. })) => {
            format!("whether {values} is in ipset {name}, which could not be read: {reason}")
        }
        (_, None) => format!("whether {values} is in ipset {name}, which was not read"),
        _ => format!("whether {values} is in ipset {name}"),
    }
}

/// `tcp`, `udp`, or the number.
pub(super) fn protocol(proto: u8) -> String {
    match proto {
        1 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        58 => "icmpv6".to_owned(),
        132 => "sctp".to_owned(),
        other => format!("protocol {other}"),
    }
}
