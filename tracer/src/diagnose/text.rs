//! Words: a packet in one line as tcpdump would put it, ICMP messages, names of points.

use crate::model::{Body, Journey, L4, Packet, Point, Station, Topology, tcp_flags};
use crate::report::{Place, PointReport};

/// TCP flags as tcpdump prints them.
pub fn tcp_flags_text(flags: u8) -> String {
    /// Push and urgent are bits 3 and 5 (RFC 9293 section 3.1).
    const URG: u8 = 0x20;
    let known = [
        (tcp_flags::FIN, 'F'),
        (tcp_flags::SYN, 'S'),
        (tcp_flags::RST, 'R'),
        (tcp_flags::PSH, 'P'),
        (tcp_flags::ACK, '.'),
        (URG, 'U'),
    ];
    let text: String = known.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, c)| c).collect();
    if text.is_empty() { "none".to_owned() } else { text }
}

/// Name of a protocol number (IANA), or the number.
pub fn proto_name(proto: u8) -> String {
    match proto {
        1 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        58 => "icmpv6".to_owned(),
        132 => "sctp".to_owned(),
        other => other.to_string(),
    }
}

/// A journey in one line.
pub fn journey_line(journey: &Journey) -> String {
    let hop = journey.hops.first();
    let packet = hop.map(|h| &h.packet).or_else(|| journey.drop.as_ref().map(|d| &d.packet));
    let Some(packet) = packet else { return "unknown packet".to_owned() };
    let bytes = journey.range.map_or(0, |r| r.end - r.start);
    let pieces = match hop {
        Some(h) if h.skbs > 1 => format!(", {} fragments", h.skbs),
        _ => String::new(),
    };
    format!("{}{pieces}", packet_line(packet, bytes))
}

/// A packet in one line; `bytes`: what is followed of it.
fn packet_line(packet: &Packet, bytes: u64) -> String {
    let ip = match &packet.body {
        Body::Ip(ip) => ip,
        Body::Neighbor(n) if n.request => return format!("who has {}", n.target_ip),
        Body::Neighbor(n) => return format!("{} is here", n.sender_ip),
        Body::Other(kind) => return format!("EtherType {kind:#06x}"),
    };
    let v6 = ip.src.is_ipv6();
    match &ip.l4 {
        L4::Tcp { sport, dport, seq, ack, flags, window, .. } => {
            let range = if bytes > 0 {
                format!("seq {seq}:{}", seq.wrapping_add((bytes & 0xffff_ffff) as u32))
            } else {
                format!("seq {seq}")
            };
            let ack = match flags & tcp_flags::ACK {
                0 => String::new(),
                _ => format!(", ack {ack}"),
            };
            let flags = tcp_flags_text(*flags);
            format!("TCP {sport} > {dport} [{flags}], {range}{ack}, win {window}, length {bytes}")
        }
        L4::Udp { sport, dport, payload } => format!("UDP {sport} > {dport}, length {payload}"),
        L4::Icmp { kind, code, id, seq } => {
            let name = if v6 { "ICMPv6" } else { "ICMP" };
            match (v6, kind) {
                (false, 8) | (true, 128) => {
                    format!("{name} echo request, id {id}, seq {seq}, length {bytes}")
                }
                (false, 0) | (true, 129) => {
                    format!("{name} echo reply, id {id}, seq {seq}, length {bytes}")
                }
                _ => format!("{name} type {kind} code {code}, length {bytes}"),
            }
        }
        L4::IcmpError { kind, code, .. } => icmp_text(v6, *kind, *code, None),
        L4::Other => format!("{}, length {bytes}", proto_name(ip.proto)),
    }
}

/// An ICMP error in words (RFC 792, 1122, 1812; RFC 4443).
pub fn icmp_text(v6: bool, kind: u8, code: u8, mtu: Option<u32>) -> String {
    let text = match (v6, kind, code) {
        (false, 3, 0) => "network unreachable",
        (false, 3, 1) => "host unreachable",
        (false, 3, 2) => "protocol unreachable",
        (false, 3, 3) => "port unreachable",
        (false, 3, 4) => "fragmentation needed",
        (false, 3, 5) => "source route failed",
        (false, 3, 9) => "network administratively prohibited",
        (false, 3, 10) => "host administratively prohibited",
        (false, 3, 13) => "communication administratively prohibited",
        (false, 5, _) => "redirect",
        (false, 11, 0) => "time to live exceeded",
        (false, 11, 1) => "fragment reassembly time exceeded",
        (false, 12, _) => "parameter problem",
        (true, 1, 0) => "no route to destination",
        (true, 1, 1) => "communication administratively prohibited",
        (true, 1, 2) => "beyond scope of source address",
        (true, 1, 3) => "address unreachable",
        (true, 1, 4) => "port unreachable",
        (true, 1, 5) => "source address failed ingress/egress policy",
        (true, 1, 6) => "reject route to destination",
        (true, 2, _) => "packet too big",
        (true, 3, 0) => "hop limit exceeded",
        (true, 3, 1) => "fragment reassembly time exceeded",
        (true, 4, _) => "parameter problem",
        (true, 137, _) => "redirect",
        _ => {
            let name = if v6 { "ICMPv6" } else { "ICMP" };
            return format!("{name} error type {kind} code {code}");
        }
    };
    match mtu {
        Some(mtu) => format!("{text}, MTU {mtu}"),
        None => text.to_owned(),
    }
}

/// `A.cni0 ingress`
pub fn point_text(topology: &Topology, point: Point) -> String {
    format!("{} {}", topology.station(point.station).label(), point.hook)
}

/// A point by its names.
pub fn point_report(topology: &Topology, point: Point) -> PointReport {
    let station: &Station = topology.station(point.station);
    PointReport {
        node: station.node.clone(),
        pod: station.pod.clone(),
        interface: station.name.clone(),
        role: station.role,
        hook: point.hook,
    }
}

/// Who did it: `A`, `pod B.b`, or the namespace by number.
pub fn actor(place: &Place, netns_inum: u32) -> String {
    match (&place.node, &place.pod) {
        (Some(node), Some(pod)) => format!("pod {node}.{pod}"),
        (Some(node), None) => node.clone(),
        _ if netns_inum != 0 => format!("network namespace {netns_inum}, off the path,"),
        _ => "the kernel".to_owned(),
    }
}

/// `5 of 5 packets`
pub fn of_packets(some: u64, all: u64) -> String {
    let noun = if all == 1 { "packet" } else { "packets" };
    format!("{some} of {all} {noun}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_read_as_in_tcpdump() {
        assert_eq!(tcp_flags_text(0x12), "S.");
        assert_eq!(tcp_flags_text(0x18), "P.");
        assert_eq!(tcp_flags_text(0x11), "F.");
        assert_eq!(tcp_flags_text(0x04), "R");
        assert_eq!(tcp_flags_text(0), "none");
    }

    #[test]
    fn errors_have_names() {
        assert_eq!(icmp_text(false, 3, 4, Some(1450)), "fragmentation needed, MTU 1450");
        assert_eq!(icmp_text(true, 1, 4, None), "port unreachable");
        assert_eq!(icmp_text(false, 3, 99, None), "ICMP error type 3 code 99");
    }
}
