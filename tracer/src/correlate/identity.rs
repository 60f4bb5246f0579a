//! What identifies a packet at every hop: everything that forwarding leaves alone.

use std::net::IpAddr;

use crate::model::{Body, Direction, End, Event, Fragment, Ip, L4, Packet, Topology, tcp_flags};

/// IP protocol number of TCP (IANA).
pub(super) const TCP: u8 = 6;

/// Which way a packet goes by its addresses, which are the ends' own. The source decides; where it is
/// neither's, the destination still does.
pub(super) fn direction(ends: &Ends, ip: &Ip) -> Option<Direction> {
    if let Some(port) = ends.answers_from {
        let answer = match ip.l4 {
            L4::Tcp { sport, .. } | L4::Udp { sport, .. } => sport == port,
            _ => false,
        };
        let own = ends.src.contains(&ip.src) || ends.dst.contains(&ip.dst);
        return own.then_some(if answer { Direction::Reply } else { Direction::Forward });
    }
    if ends.src.contains(&ip.src) {
        Some(Direction::Forward)
    } else if ends.dst.contains(&ip.src) {
        Some(Direction::Reply)
    } else if ends.dst.contains(&ip.dst) {
        Some(Direction::Forward)
    } else if ends.src.contains(&ip.dst) {
        Some(Direction::Reply)
    } else {
        None
    }
}

/// Addresses of the two ends.
#[derive(Debug, Default)]
pub(super) struct Ends {
    src: Vec<IpAddr>,
    dst: Vec<IpAddr>,
    /// Where a pod talks to itself through a service, the port that answers: addresses say nothing.
    answers_from: Option<u16>,
}

impl Ends {
    pub fn of(topology: &Topology) -> Self {
        let ips = |end: &Option<End>| end.as_ref().map_or_else(Vec::new, |e| e.ips.clone());
        let (src, dst) = (ips(&topology.src), ips(&topology.dst));
        let service = topology.dst.as_ref().and_then(|e| e.service.as_ref());
        let same = src.iter().any(|ip| dst.contains(ip));
        let answers_from = service.filter(|_| same).and_then(|s| s.target_port.or(s.port));
        Self { src, dst, answers_from }
    }
}

/// The transport conversation that a packet belongs to, in one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Flow {
    pub direction: Direction,
    pub src: IpAddr,
    pub dst: IpAddr,
    pub proto: u8,
    /// Source and destination port; for ICMP the echo identifier twice; else zeros.
    pub ports: (u16, u16),
}

impl Flow {
    /// The same conversation seen from the other end.
    pub fn reversed(&self) -> Self {
        Self {
            direction: match self.direction {
                Direction::Forward => Direction::Reply,
                Direction::Reply => Direction::Forward,
            },
            src: self.dst,
            dst: self.src,
            proto: self.proto,
            ports: (self.ports.1, self.ports.0),
        }
    }
}

/// What the transport header adds to the identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Discriminator {
    /// TCP without payload.
    Tcp { sport: u16, dport: u16, seq: u32, ack: u32, flags: u8, window: u16 },
    /// UDP.
    Udp { sport: u16, dport: u16 },
    /// ICMP other than errors.
    Icmp { kind: u8, code: u8, id: u16, seq: u16 },
    /// Nothing known.
    Opaque,
}

impl Discriminator {
    pub fn of(l4: &L4) -> Self {
        match *l4 {
            L4::Tcp { sport, dport, seq, ack, flags, window, .. } => {
                Self::Tcp { sport, dport, seq, ack, flags, window }
            }
            L4::Udp { sport, dport, .. } => Self::Udp { sport, dport },
            L4::Icmp { kind, code, id, seq } => Self::Icmp { kind, code, id, seq },
            L4::IcmpError { .. } | L4::Other => Self::Opaque,
        }
    }

    /// Whether both can be of one packet, when one may not have been captured.
    pub fn agrees(&self, other: &Self) -> bool {
        *self == Self::Opaque || *other == Self::Opaque || self == other
    }

    /// As [`Self::agrees`], for a packet of which an ICMP error quotes perhaps only 8 bytes behind
    /// the IP header (RFC 792): TCP is then known by its ports and sequence number.
    pub fn agrees_with_quote(&self, quote: &Self) -> bool {
        match (self, quote) {
            (
                Self::Tcp { sport, dport, seq, .. },
                Self::Tcp { sport: quoted_sport, dport: quoted_dport, seq: quoted_seq, .. },
            ) => (sport, dport, seq) == (quoted_sport, quoted_dport, quoted_seq),
            _ => self.agrees(quote),
        }
    }
}

/// Under what a datagram is filed: equal at every hop, and as distinctive as the packet allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Key {
    /// The sender numbered it: fragments and the whole share this, wherever they are split and
    /// reassembled.
    Numbered { direction: Direction, src: IpAddr, dst: IpAddr, proto: u8, id: u32 },
    /// No number (IPv6; IPv4 with DF from an unconnected socket): content is all there is.
    Content {
        direction: Direction,
        src: IpAddr,
        dst: IpAddr,
        proto: u8,
        discriminator: Discriminator,
        len: u32,
        hash: Option<u32>,
    },
}

/// A packet that is followed as a whole, or as fragments of a whole.
#[derive(Clone, Copy, Debug)]
pub(super) struct Datagram {
    pub key: Key,
    pub flow: Flow,
    pub discriminator: Discriminator,
    pub hash: Option<u32>,
    pub ttl: u8,
    /// Sender's number, 0: none.
    pub ip_id: u32,
    /// Bytes of the datagram's IP payload that are here; both 0 when there is nothing to follow.
    pub start: u64,
    pub end: u64,
    /// `end` is the end of the datagram.
    pub last: bool,
    /// Not the whole datagram.
    pub fragment: bool,
}

/// TCP payload: a piece of its flow's sequence space.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    pub flow: Flow,
    /// Sequence number of the first payload byte.
    pub seq: u32,
    /// Payload bytes.
    pub len: u32,
    pub ttl: u8,
    pub ip_id: u32,
    /// Consecutive IP ids that the segments of a super-packet stand for.
    pub segments: u16,
}

impl Segment {
    /// Whether the IP ids of two (super-)packets intersect; numbers are 16 bits wide. IPv6 has none:
    /// never.
    pub fn shares_ids(&self, ip_id: u32, segments: u16) -> bool {
        if self.ip_id == 0 && ip_id == 0 {
            return false;
        }
        let apart = |from: u32, to: u32| to.wrapping_sub(from) & 0xffff;
        apart(self.ip_id, ip_id) < u32::from(self.segments)
            || apart(ip_id, self.ip_id) < u32::from(segments)
    }
}

/// How a packet is followed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Identity {
    Datagram(Datagram),
    Segment(Segment),
}

/// The identity of an IP packet of the flow.
pub(super) fn identify(direction: Direction, ip: &Ip, event: &Event) -> Identity {
    let flow = flow_of(direction, ip);
    if let (L4::Tcp { seq, flags, payload, .. }, None) = (&ip.l4, ip.fragment)
        && *payload > 0
    {
        // Data on a SYN (TCP Fast Open) begins behind the SYN's own number.
        let seq = if flags & tcp_flags::SYN != 0 { seq.wrapping_add(1) } else { *seq };
        return Identity::Segment(Segment {
            flow,
            seq,
            len: *payload,
            ttl: ip.ttl,
            ip_id: ip.id,
            segments: event.gso.map_or(1, |gso| gso.segments.max(1)),
        });
    }
    let discriminator = Discriminator::of(&ip.l4);
    let bare_tcp = matches!(discriminator, Discriminator::Tcp { .. }) && ip.fragment.is_none();
    let (start, end) = match ip.fragment {
        _ if bare_tcp => (0, 0),
        None => (0, u64::from(ip.payload_len)),
        Some(Fragment { offset, .. }) => {
            (u64::from(offset), u64::from(offset) + u64::from(ip.payload_len))
        }
    };
    Identity::Datagram(Datagram {
        key: key_of(direction, ip, discriminator),
        flow,
        discriminator,
        hash: if ip.fragment.is_some() { None } else { ip.payload_hash },
        ttl: ip.ttl,
        ip_id: ip.id,
        start,
        end,
        last: ip.fragment.is_none_or(|f| !f.more),
        fragment: ip.fragment.is_some(),
    })
}

/// Conversation of a packet.
pub(super) fn flow_of(direction: Direction, ip: &Ip) -> Flow {
    let ports = match ip.l4 {
        L4::Tcp { sport, dport, .. } | L4::Udp { sport, dport, .. } => (sport, dport),
        L4::Icmp { id, .. } => (id, id),
        L4::IcmpError { .. } | L4::Other => (0, 0),
    };
    Flow { direction, src: ip.src, dst: ip.dst, proto: ip.proto, ports }
}

/// Key of a packet that is followed as a whole.
pub(super) fn key_of(direction: Direction, ip: &Ip, discriminator: Discriminator) -> Key {
    let (src, dst, proto) = (ip.src, ip.dst, ip.proto);
    if ip.id != 0 || ip.fragment.is_some() {
        Key::Numbered { direction, src, dst, proto, id: ip.id }
    } else {
        let (len, hash) = (ip.payload_len, ip.payload_hash);
        Key::Content { direction, src, dst, proto, discriminator, len, hash }
    }
}

/// TTL of a packet, where it is one.
pub(super) fn ttl(packet: &Packet) -> Option<u8> {
    match &packet.body {
        Body::Ip(ip) => Some(ip.ttl),
        Body::Neighbor(_) | Body::Other(_) => None,
    }
}
