//! Packet headers: the one place where packet bytes are read.
//!
//! Frames are cut short (snap length), super-packets state lengths of up to 64 KiB, and drop events
//! may start at the network header: every header is read on its own and lengths are believed from
//! the headers, never from the bytes at hand.

use std::net::IpAddr;

use etherparse::{Ethernet2HeaderSlice, Ipv4HeaderSlice, Ipv6HeaderSlice, UdpHeaderSlice};

use crate::model::{Body, Ethernet, Fragment, Ip, L4, Mac, Neighbor, Outer, Packet};

/// EtherTypes (IEEE 802).
mod ethertype {
    pub const IPV4: u16 = 0x0800;
    pub const IPV6: u16 = 0x86dd;
    pub const ARP: u16 = 0x0806;
}

/// IP protocol numbers (IANA).
mod proto {
    pub const HOP_BY_HOP: u8 = 0;
    pub const ICMP: u8 = 1;
    pub const TCP: u8 = 6;
    pub const UDP: u8 = 17;
    pub const ROUTING: u8 = 43;
    pub const FRAGMENT: u8 = 44;
    pub const ICMPV6: u8 = 58;
    pub const DESTINATION: u8 = 60;
}

const ETHERNET_LEN: usize = 14;
const IPV6_LEN: usize = 40;
const UDP_LEN: usize = 8;
/// RFC 7348 section 5.
const VXLAN_LEN: usize = 8;
const ICMP_LEN: usize = 8;
/// The "VNI is valid" flag, RFC 7348 section 5.
const VXLAN_VNI_VALID: u8 = 0x08;
/// Payload bytes that go into [`Ip::payload_hash`]: as many as the shortest capture keeps of an
/// encapsulated packet, so that the hash is the same at every hop.
const HASHED: usize = 16;
/// IPv6 extension headers followed before giving up.
const MAX_EXTENSIONS: usize = 8;

/// Decodes a frame. `l3` is where its network header stands, `ethertype` what it is, `frame_len`
/// the length of the whole frame in bytes (used where a header cannot state it).
///
/// `None` when not even the network header is there, or the capture ends before what identifies the
/// packet.
pub fn parse_frame(
    data: &[u8],
    l3: usize,
    ethertype: u16,
    frame_len: u32,
    vxlan_ports: &[u16],
) -> Option<Packet> {
    let packet = data.get(l3..)?;
    let eth = (l3 >= ETHERNET_LEN).then(|| ethernet(&data[l3 - ETHERNET_LEN..])).flatten();
    let len = frame_len.saturating_sub(u32::try_from(l3).ok()?);
    if let Some(tunnel) = vxlan(packet, ethertype, eth, vxlan_ports)
        && let Some(inner) = tunnelled(&tunnel)
    {
        return Some(inner);
    }
    let body = body(packet, ethertype, len, vxlan_ports)?;
    Some(Packet { eth, outer: None, body })
}

fn ethernet(data: &[u8]) -> Option<Ethernet> {
    let header = Ethernet2HeaderSlice::from_slice(data).ok()?;
    Some(Ethernet { src: Mac(header.source()), dst: Mac(header.destination()) })
}

fn body(data: &[u8], ethertype: u16, len: u32, vxlan_ports: &[u16]) -> Option<Body> {
    match ethertype {
        ethertype::IPV4 | ethertype::IPV6 => {
            let (network, rest) = network(data, ethertype, len)?;
            if let Some(neighbor) = neighbor_discovery(&network, rest) {
                return Some(Body::Neighbor(neighbor));
            }
            let ip = ip(network, rest, vxlan_ports, true);
            (!is_cut(&ip, rest)).then_some(Body::Ip(ip))
        }
        ethertype::ARP => arp(data).map(Body::Neighbor),
        other => Some(Body::Other(other)),
    }
}

/// A VXLAN header and what is around and in it.
struct Tunnel<'a> {
    outer: Outer,
    frame: &'a [u8],
    /// Bytes of inner frame, from the outer header.
    frame_len: u32,
}

/// The VXLAN packet that starts at `data`, if it is one.
fn vxlan<'a>(
    data: &'a [u8],
    ethertype: u16,
    eth: Option<Ethernet>,
    ports: &[u16],
) -> Option<Tunnel<'a>> {
    if ports.is_empty() {
        return None;
    }
    let (network, rest) = network(data, ethertype, 0)?;
    if network.proto != proto::UDP || network.fragment.is_some_and(|f| f.offset != 0) {
        return None;
    }
    let udp = UdpHeaderSlice::from_slice(rest).ok()?;
    if !ports.contains(&udp.destination_port()) {
        return None;
    }
    let vxlan = rest.get(UDP_LEN..UDP_LEN + VXLAN_LEN)?;
    if vxlan[0] & VXLAN_VNI_VALID == 0 {
        return None;
    }
    Some(Tunnel {
        outer: Outer {
            eth,
            src: network.src,
            dst: network.dst,
            ttl: network.ttl,
            id: network.id,
            fragment: network.fragment,
            udp_src: udp.source_port(),
            udp_dst: udp.destination_port(),
            vni: Some(u32::from_be_bytes([0, vxlan[4], vxlan[5], vxlan[6]])),
        },
        frame: rest.get(UDP_LEN + VXLAN_LEN..)?,
        frame_len: network.payload_len.saturating_sub((UDP_LEN + VXLAN_LEN) as u32),
    })
}

fn tunnelled(tunnel: &Tunnel<'_>) -> Option<Packet> {
    let header = Ethernet2HeaderSlice::from_slice(tunnel.frame).ok()?;
    let len = tunnel.frame_len.saturating_sub(ETHERNET_LEN as u32);
    // A tunnel inside the tunnel is payload.
    let body = body(tunnel.frame.get(ETHERNET_LEN..)?, header.ether_type().0, len, &[])?;
    Some(Packet {
        eth: Some(Ethernet { src: Mac(header.source()), dst: Mac(header.destination()) }),
        outer: Some(tunnel.outer.clone()),
        body,
    })
}

/// What IPv4 and IPv6 headers have in common.
struct Network {
    src: IpAddr,
    dst: IpAddr,
    proto: u8,
    ttl: u8,
    id: u32,
    fragment: Option<Fragment>,
    dont_fragment: bool,
    ecn: u8,
    payload_len: u32,
}

/// Reads the network header(s); also returns what follows. `len` is used where the header states
/// no length (BIG TCP).
fn network(data: &[u8], ethertype: u16, len: u32) -> Option<(Network, &[u8])> {
    match ethertype {
        ethertype::IPV4 => ipv4(data, len),
        ethertype::IPV6 => ipv6(data, len),
        _ => None,
    }
}

fn ipv4(data: &[u8], len: u32) -> Option<(Network, &[u8])> {
    let header = Ipv4HeaderSlice::from_slice(data).ok()?;
    let header_len = header.slice().len();
    let total = match u32::from(header.total_len()) {
        0 => len,
        stated => stated,
    };
    let offset = u32::from(header.fragments_offset().value()) * 8;
    let more = header.more_fragments();
    Some((
        Network {
            src: header.source_addr().into(),
            dst: header.destination_addr().into(),
            proto: header.protocol().0,
            ttl: header.ttl(),
            id: header.identification().into(),
            fragment: (offset != 0 || more).then_some(Fragment { offset, more }),
            dont_fragment: header.dont_fragment(),
            ecn: header.ecn().value(),
            payload_len: total.saturating_sub(header_len as u32),
        },
        data.get(header_len..)?,
    ))
}

fn ipv6(data: &[u8], len: u32) -> Option<(Network, &[u8])> {
    let header = Ipv6HeaderSlice::from_slice(data).ok()?;
    let mut rest = data.get(IPV6_LEN..)?;
    let mut left = match u32::from(header.payload_length()) {
        0 => len.saturating_sub(IPV6_LEN as u32),
        stated => stated,
    };
    let mut next = header.next_header().0;
    let (mut id, mut fragment) = (0, None);
    for _ in 0..MAX_EXTENSIONS {
        let taken = match next {
            proto::HOP_BY_HOP | proto::ROUTING | proto::DESTINATION => {
                let Some(units) = rest.get(1) else { break };
                8 + usize::from(*units) * 8
            }
            proto::FRAGMENT => {
                let Some(header) = rest.first_chunk::<8>() else { break };
                let word = u16::from_be_bytes([header[2], header[3]]);
                fragment = Some(Fragment { offset: u32::from(word & !7), more: word & 1 != 0 });
                id = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
                8
            }
            _ => break,
        };
        let Some(after) = rest.get(taken..) else { break };
        next = rest[0];
        rest = after;
        left = left.saturating_sub(taken as u32);
    }
    Some((
        Network {
            src: header.source_addr().into(),
            dst: header.destination_addr().into(),
            proto: next,
            ttl: header.hop_limit(),
            id,
            fragment,
            dont_fragment: false,
            ecn: header.ecn().value(),
            payload_len: left,
        },
        rest,
    ))
}

/// Adds the transport header. `quoting`: whether ICMP errors are to be looked into.
fn ip(network: Network, rest: &[u8], vxlan_ports: &[u16], quoting: bool) -> Ip {
    let later_fragment = network.fragment.is_some_and(|f| f.offset != 0);
    let (l4, header_len) = if later_fragment {
        (L4::Other, None)
    } else {
        transport(&network, rest, vxlan_ports, quoting).unwrap_or((L4::Other, None))
    };
    let payload_hash = header_len.and_then(|header_len| {
        let stated = (network.payload_len as usize).checked_sub(header_len)?;
        // TCP is told apart by its sequence numbers, and its payload may not have been kept.
        if stated == 0 || network.proto == proto::TCP {
            return None;
        }
        let from = rest.get(header_len..)?;
        from.get(..stated.min(HASHED)).map(hash)
    });
    Ip {
        src: network.src,
        dst: network.dst,
        proto: network.proto,
        ttl: network.ttl,
        id: network.id,
        fragment: network.fragment,
        dont_fragment: network.dont_fragment,
        ecn: network.ecn,
        payload_len: network.payload_len,
        l4,
        payload_hash,
    }
}

/// Whether the capture ends before what tells this packet from others: TCP is followed by its sequence
/// numbers, all else by its identification, where it has one.
fn is_cut(ip: &Ip, rest: &[u8]) -> bool {
    let known = matches!(ip.proto, proto::TCP | proto::UDP | proto::ICMP | proto::ICMPV6);
    let first = ip.fragment.is_none_or(|f| f.offset == 0);
    let unread = known && first && matches!(ip.l4, L4::Other);
    unread && ip.payload_len as usize > rest.len() && (ip.proto == proto::TCP || ip.id == 0)
}

/// FNV-1a, 32 bits: cheap, and collisions only matter among packets alike in all else.
fn hash(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |h, b| (h ^ u32::from(*b)).wrapping_mul(0x0100_0193))
}

/// The transport header and its length in bytes (`None` where nothing is to be hashed behind it).
fn transport(
    network: &Network,
    data: &[u8],
    vxlan_ports: &[u16],
    quoting: bool,
) -> Option<(L4, Option<usize>)> {
    let be16 = |at: usize| Some(u16::from_be_bytes(*data.get(at..)?.first_chunk()?));
    let be32 = |at: usize| Some(u32::from_be_bytes(*data.get(at..)?.first_chunk()?));
    match network.proto {
        // RFC 9293 section 3.1. By hand: the options may be cut off, the fields are there all the
        // same. An ICMP error may quote no more than the first 8 bytes.
        proto::TCP => {
            let offset = data.get(12).map_or(20, |b| u32::from(b >> 4) * 4);
            Some((
                L4::Tcp {
                    sport: be16(0)?,
                    dport: be16(2)?,
                    seq: be32(4)?,
                    ack: be32(8).unwrap_or(0),
                    flags: data.get(13).copied().unwrap_or(0),
                    window: be16(14).unwrap_or(0),
                    payload: network.payload_len.saturating_sub(offset),
                },
                usize::try_from(offset).ok(),
            ))
        }
        proto::UDP => {
            let udp = UdpHeaderSlice::from_slice(data).ok()?;
            Some((
                L4::Udp {
                    sport: udp.source_port(),
                    dport: udp.destination_port(),
                    payload: network.payload_len.saturating_sub(UDP_LEN as u32),
                },
                Some(UDP_LEN),
            ))
        }
        proto::ICMP | proto::ICMPV6 => {
            let (kind, code) = (*data.first()?, *data.get(1)?);
            if quoting && is_error(network.proto, kind) {
                return Some((icmp_error(network.proto, kind, code, data, vxlan_ports), None));
            }
            let echo = match network.proto {
                proto::ICMP => matches!(kind, 0 | 8),
                _ => matches!(kind, 128 | 129),
            };
            let (id, seq) = if echo { (be16(4)?, be16(6)?) } else { (0, 0) };
            Some((L4::Icmp { kind, code, id, seq }, Some(ICMP_LEN)))
        }
        _ => Some((L4::Other, None)),
    }
}

/// Types that quote a packet (RFC 792; RFC 4443 section 2.1: below 128).
fn is_error(protocol: u8, kind: u8) -> bool {
    match protocol {
        proto::ICMP => matches!(kind, 3 | 4 | 5 | 11 | 12),
        _ => kind < 128,
    }
}

fn icmp_error(protocol: u8, kind: u8, code: u8, data: &[u8], vxlan_ports: &[u16]) -> L4 {
    let be32 = |at: usize| Some(u32::from_be_bytes(*data.get(at..)?.first_chunk()?));
    // RFC 1191 section 4 (low half of the word), RFC 4443 section 3.2.
    let mtu = match (protocol, kind, code) {
        (proto::ICMP, 3, 4) => be32(4).map(|w| w & 0xffff),
        (proto::ICMPV6, 2, _) => be32(4),
        _ => None,
    };
    let ethertype = if protocol == proto::ICMP { ethertype::IPV4 } else { ethertype::IPV6 };
    let quote = data.get(ICMP_LEN..).unwrap_or_default();
    let mut quoted_outer = false;
    let mut quoted = None;
    if let Some(tunnel) = vxlan(quote, ethertype, None, vxlan_ports)
        && let Some(Packet { body: Body::Ip(inner), .. }) = tunnelled(&tunnel)
    {
        quoted_outer = true;
        quoted = Some(Box::new(inner));
    } else if let Some((network, rest)) = network(quote, ethertype, 0) {
        quoted = Some(Box::new(ip(network, rest, vxlan_ports, false)));
    }
    L4::IcmpError { kind, code, mtu, quoted, quoted_outer }
}

/// RFC 826, for Ethernet and IPv4.
fn arp(data: &[u8]) -> Option<Neighbor> {
    let packet: &[u8; 28] = data.first_chunk()?;
    if packet[..6] != [0, 1, 8, 0, 6, 4] {
        return None;
    }
    let address =
        |at: usize| IpAddr::from([packet[at], packet[at + 1], packet[at + 2], packet[at + 3]]);
    let mut mac = [0; 6];
    mac.copy_from_slice(&packet[8..14]);
    Some(Neighbor {
        request: match u16::from_be_bytes([packet[6], packet[7]]) {
            1 => true,
            2 => false,
            _ => return None,
        },
        sender_ip: address(14),
        sender_mac: Some(Mac(mac)),
        target_ip: address(24),
    })
}

/// RFC 4861 sections 4.3 and 4.4.
fn neighbor_discovery(network: &Network, data: &[u8]) -> Option<Neighbor> {
    const SOLICITATION: u8 = 135;
    const ADVERTISEMENT: u8 = 136;
    /// Options begin behind type, code, checksum, flags and target address.
    const OPTIONS: usize = 24;
    if network.proto != proto::ICMPV6 || network.fragment.is_some() {
        return None;
    }
    let request = match *data.first()? {
        SOLICITATION => true,
        ADVERTISEMENT => false,
        _ => return None,
    };
    let target: [u8; 16] = *data.get(8..)?.first_chunk()?;
    // Source (1) or target (2) link-layer address option, of one unit of 8 bytes.
    let sender_mac = data
        .get(OPTIONS..)
        .and_then(|o| o.first_chunk::<8>())
        .filter(|o| matches!(o[0], 1 | 2) && o[1] == 1)
        .map(|o| Mac([o[2], o[3], o[4], o[5], o[6], o[7]]));
    Some(Neighbor { request, sender_ip: network.src, sender_mac, target_ip: IpAddr::from(target) })
}
