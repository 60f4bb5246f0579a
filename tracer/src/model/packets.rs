//! Decoded packets.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// ff:ff:ff:ff:ff:ff
    pub const BROADCAST: Mac = Mac([0xff; 6]);

    /// Group bit set (broadcast included).
    pub fn is_multicast(&self) -> bool {
        self.0[0] & 1 != 0
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl std::str::FromStr for Mac {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let bad = || format!("{s:?} is not a hardware address (aa:bb:cc:dd:ee:ff)");
        let mut bytes = [0; 6];
        let mut parts = s.split(':');
        for byte in &mut bytes {
            *byte = parts
                .next()
                .filter(|p| (1..=2).contains(&p.len()))
                .and_then(|p| u8::from_str_radix(p, 16).ok())
                .ok_or_else(bad)?;
        }
        if parts.next().is_some() { Err(bad()) } else { Ok(Mac(bytes)) }
    }
}

impl Serialize for Mac {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Mac {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Ethernet header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ethernet {
    /// Source.
    pub src: Mac,
    /// Destination.
    pub dst: Mac,
}

/// TCP flag bits as in RFC 9293 section 3.1, low byte.
pub mod tcp_flags {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset.
    pub const RST: u8 = 0x04;
    /// Push.
    pub const PSH: u8 = 0x08;
    /// Acknowledgement field is significant.
    pub const ACK: u8 = 0x10;
}

/// Transport header, as far as it was captured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum L4 {
    /// TCP (RFC 9293).
    Tcp {
        /// Source port.
        sport: u16,
        /// Destination port.
        dport: u16,
        /// Sequence number of the first payload byte (of the SYN or FIN itself where set).
        seq: u32,
        /// Acknowledgement number.
        ack: u32,
        /// Flag bits, see [`tcp_flags`].
        flags: u8,
        /// Window field, unscaled.
        window: u16,
        /// Payload bytes of the whole packet (of all segments of a super-packet).
        payload: u32,
    },
    /// UDP (RFC 768).
    Udp {
        /// Source port.
        sport: u16,
        /// Destination port.
        dport: u16,
        /// Payload bytes.
        payload: u32,
    },
    /// ICMP or ICMPv6 other than an error.
    Icmp {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
        /// Identifier (echo).
        id: u16,
        /// Sequence number (echo).
        seq: u16,
    },
    /// An ICMP or ICMPv6 error with what it quotes.
    IcmpError {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
        /// Next-hop MTU of "fragmentation needed" / "packet too big", bytes.
        mtu: Option<u32>,
        /// The quoted packet (the innermost of the flow where the quoted one is VXLAN).
        quoted: Option<Box<Ip>>,
        /// The quoted packet was the tunnel's outer one.
        quoted_outer: bool,
    },
    /// Another protocol, or a later fragment.
    Other,
}

/// Fragment fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Offset of this fragment's payload in the datagram's, bytes.
    pub offset: u32,
    /// More fragments follow.
    pub more: bool,
}

/// An IP packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ip {
    /// Source.
    pub src: IpAddr,
    /// Destination.
    pub dst: IpAddr,
    /// Protocol / last next-header.
    pub proto: u8,
    /// TTL / hop limit.
    pub ttl: u8,
    /// IPv4 identification, or the IPv6 fragment header's; 0 where IPv6 has none.
    pub id: u32,
    /// `Some` when this is a fragment.
    pub fragment: Option<Fragment>,
    /// IPv4 "don't fragment".
    pub dont_fragment: bool,
    /// ECN field, 2 bits.
    pub ecn: u8,
    /// Bytes behind the IP header(s) (transport header and payload), of the whole super-packet.
    pub payload_len: u32,
    /// Transport header.
    pub l4: L4,
    /// Hash of the first captured payload bytes; equal at every hop of the same packet; `None`
    /// where too few were captured.
    pub payload_hash: Option<u32>,
}

/// Tunnel header around a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outer {
    /// Outer Ethernet header.
    pub eth: Option<Ethernet>,
    /// Outer source.
    pub src: IpAddr,
    /// Outer destination.
    pub dst: IpAddr,
    /// Outer TTL.
    pub ttl: u8,
    /// Outer IPv4 identification.
    pub id: u32,
    /// Outer fragment fields.
    pub fragment: Option<Fragment>,
    /// UDP source port (flow hash).
    pub udp_src: u16,
    /// UDP destination port.
    pub udp_dst: u16,
    /// VXLAN network identifier; `None` for flannel's udp backend.
    pub vni: Option<u32>,
}

/// ARP request/reply, or IPv6 neighbour solicitation/advertisement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbor {
    /// A question (request/solicitation) rather than an answer.
    pub request: bool,
    /// Who sends.
    pub sender_ip: IpAddr,
    /// Hardware address given by the sender.
    pub sender_mac: Option<Mac>,
    /// The address asked for (request) or announced to (ARP reply) / announced (advertisement).
    pub target_ip: IpAddr,
}

/// What is above the link layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// IPv4 or IPv6.
    Ip(Ip),
    /// Address resolution.
    Neighbor(Neighbor),
    /// Anything else; the EtherType.
    Other(u16),
}

/// A decoded frame: the innermost packet, and the tunnel around it if any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Ethernet header directly around `body` (the inner one when encapsulated).
    pub eth: Option<Ethernet>,
    /// Tunnel, where encapsulated.
    pub outer: Option<Outer>,
    /// The flow's own packet.
    pub body: Body,
}
