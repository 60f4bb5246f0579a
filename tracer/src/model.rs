//! The vocabulary that every other module speaks: stations on a path, decoded packets, events,
//! journeys. Values only: no I/O, no view.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
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

/// Which way through an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Hook {
    /// Entering the host (receive).
    Ingress,
    /// Leaving the host (transmit).
    Egress,
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Hook::Ingress => "ingress",
            Hook::Egress => "egress",
        })
    }
}

/// What an interface is for on the pod-to-pod path; found from the kernel, never from its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The pod's own end of its veth pair.
    Pod,
    /// The node's end of a pod's veth pair.
    Veth,
    /// The bridge that the pods' veths are ports of.
    Bridge,
    /// A VXLAN device.
    Vxlan,
    /// A TUN device (flannel's udp backend).
    Tun,
    /// What leads to the other nodes.
    Physical,
    /// A port of what stands for the wire between nodes, where that can be seen (a lab).
    Wire,
    /// Anything else.
    Other,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Role::Pod => "pod",
            Role::Veth => "veth",
            Role::Bridge => "bridge",
            Role::Vxlan => "vxlan",
            Role::Tun => "tun",
            Role::Physical => "physical",
            Role::Wire => "wire",
            Role::Other => "other",
        })
    }
}

/// Request or answer, as seen from `--src`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// From `--src` to `--dst`.
    Forward,
    /// From `--dst` to `--src`.
    Reply,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Direction::Forward => "forward",
            Direction::Reply => "reply",
        })
    }
}

/// Index into [`Topology::stations`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StationId(pub u16);

/// VXLAN device attributes (`IFLA_VXLAN_*`, include/uapi/linux/if_link.h).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VxlanInfo {
    /// VXLAN network identifier.
    pub vni: u32,
    /// UDP destination port.
    pub port: u16,
    /// Local tunnel address, where set.
    pub local: Option<IpAddr>,
    /// ifindex of the lower device, where set.
    pub lower_ifindex: Option<u32>,
    /// Whether the device learns addresses from what it receives (flannel: no).
    pub learning: bool,
}

/// One network interface that is observed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Station {
    /// Node it belongs to (a pod's interface belongs to the pod's node).
    pub node: String,
    /// The pod whose namespace it is in; `None` in the node's own namespace.
    pub pod: Option<String>,
    /// Namespace, as a person would name it (`podtrace-A`, `/proc/12/ns/net`).
    pub netns: String,
    /// Inode of the namespace: its identity in the kernel.
    pub netns_inum: u32,
    /// Interface index in that namespace.
    pub ifindex: u32,
    /// Interface name.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// Hardware address; `None` without link layer (TUN).
    pub mac: Option<Mac>,
    /// Bytes of network-layer packet that fit.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
    /// Addresses with prefix lengths.
    pub addresses: Vec<IpNet>,
    /// `Some` for a VXLAN device.
    pub vxlan: Option<VxlanInfo>,
    /// Frames carry an Ethernet header here (false for TUN).
    pub ethernet: bool,
}

impl Station {
    /// `A.cni0`, `A.a.eth0`: the name used in messages.
    pub fn label(&self) -> String {
        match &self.pod {
            Some(pod) => format!("{}.{}.{}", self.node, pod, self.name),
            None => format!("{}.{}", self.node, self.name),
        }
    }
}

/// One step of a planned or observed path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Point {
    /// Which interface.
    pub station: StationId,
    /// Which way.
    pub hook: Hook,
}

/// One end of the trace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// `A.a`, or the address when nothing better is known.
    pub name: String,
    /// Node name.
    pub node: String,
    /// Pod name, `None` when only an address was given and no pod is known for it.
    pub pod: Option<String>,
    /// Addresses, IPv4 first.
    pub ips: Vec<IpAddr>,
    /// Inode of the pod's network namespace.
    pub netns_inum: u32,
    /// The service through which it is addressed; `None` where packets carry its own address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<Service>,
}

impl End {
    /// Whether anything is there for packets to arrive at: not behind a service address that nothing
    /// translates, or that leads to an address which no pod has.
    pub fn exists(&self) -> bool {
        self.service.as_ref().is_none_or(|s| s.leads != Leads::Nowhere && !s.dead)
    }
}

/// How a service address is translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Leads {
    /// A rule translates it.
    Rule,
    /// A connection is tracked already, and keeps its translation whatever the rules say.
    Tracked,
    /// Nothing translates it.
    Nowhere,
}

/// An address that a node translates to an end's own (a ClusterIP, a NodePort).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// The address that packets are sent to.
    pub ip: IpAddr,
    /// The port that they are sent to, where the trace is about one.
    pub port: Option<u16>,
    /// IP protocol (IANA), where the trace is about one.
    pub proto: Option<u8>,
    /// The end's own port, where the translation changes it.
    pub target_port: Option<u16>,
    /// How it is translated.
    pub leads: Leads,
    /// No network namespace has the address to which it is translated.
    pub dead: bool,
    /// Other addresses to which it may be translated instead.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<IpAddr>,
    /// Node that translates, or should.
    pub translator: String,
    /// The rule or the tracked connection that translates, as its tool prints it.
    pub entry: Option<String>,
}

impl Service {
    /// `10.96.0.10:80`
    pub fn address(&self) -> String {
        match self.port {
            Some(port) => std::net::SocketAddr::new(self.ip, port).to_string(),
            None => self.ip.to_string(),
        }
    }
}

/// An address that packets of the flow carry on a part of their way in the place of an end's own
/// (address translation).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alias {
    /// The address that they carry.
    pub ip: IpAddr,
    /// Only with this port; `None`: with any.
    pub port: Option<u16>,
    /// The end's own address.
    pub real: IpAddr,
    /// The end's own port; `None`: it is not changed, or to another one for each connection.
    pub real_port: Option<u16>,
    /// Stands for `--src` (source translation): the port may be another for each connection.
    pub source: bool,
}

/// Everything known about where the flow can pass: what to attach to, in which order a healthy
/// packet crosses it, and what the addresses are called.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Topology {
    /// `--src`.
    pub src: Option<End>,
    /// `--dst`.
    pub dst: Option<End>,
    /// Every observed interface.
    pub stations: Vec<Station>,
    /// The way a packet from `--src` to `--dst` should take.
    pub forward: Vec<Point>,
    /// The way back.
    pub reply: Vec<Point>,
    /// Names of addresses.
    pub names: Names,
    /// UDP ports of the VXLAN devices on the path.
    pub vxlan_ports: Vec<u16>,
    /// Addresses that stand for those of the ends on a part of the way.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<Alias>,
    /// What could not be found out, one line each.
    pub gaps: Vec<String>,
}

impl Topology {
    /// The station behind an id of this topology.
    pub fn station(&self, id: StationId) -> &Station {
        &self.stations[usize::from(id.0)]
    }

    /// The station with this interface index in this namespace.
    pub fn find(&self, netns_inum: u32, ifindex: u32) -> Option<StationId> {
        self.stations
            .iter()
            .position(|s| s.netns_inum == netns_inum && s.ifindex == ifindex)
            .and_then(|i| u16::try_from(i).ok())
            .map(StationId)
    }

    /// The planned path of a direction.
    pub fn path(&self, direction: Direction) -> &[Point] {
        match direction {
            Direction::Forward => &self.forward,
            Direction::Reply => &self.reply,
        }
    }

    /// Node a namespace belongs to and the pod, if it is a pod's.
    pub fn owner(&self, netns_inum: u32) -> Option<(&str, Option<&str>)> {
        self.stations
            .iter()
            .find(|s| s.netns_inum == netns_inum)
            .map(|s| (s.node.as_str(), s.pod.as_deref()))
    }
}

/// Names of the addresses on the path: `A.a.ip`, `A.cni0.mac`, `B.ens33.ip`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Names {
    /// By network address.
    pub ip: HashMap<IpAddr, String>,
    /// By hardware address.
    pub mac: HashMap<Mac, String>,
}

impl Names {
    /// Name of a network address.
    pub fn ip(&self, ip: &IpAddr) -> Option<&str> {
        self.ip.get(ip).map(String::as_str)
    }
    /// Name of a hardware address.
    pub fn mac(&self, mac: &Mac) -> Option<&str> {
        if *mac == Mac::BROADCAST {
            return Some("broadcast");
        }
        self.mac.get(mac).map(String::as_str)
    }
}

// ------------------------------------------------------------------ packets

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

// ------------------------------------------------------------------ events

/// GSO state of a super-packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gso {
    /// Number of segments it will become.
    pub segments: u16,
    /// Payload bytes of each (the last may be shorter).
    pub size: u16,
}

/// A kernel drop, resolved to names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropInfo {
    /// `enum skb_drop_reason`, as numbered by the kernel it came from.
    pub code: u32,
    /// Its name without the `SKB_DROP_REASON_` prefix.
    pub reason: String,
    /// Function that freed the packet.
    pub function: String,
    /// Kernel stack, innermost first, tracing machinery removed; symbol names without offsets.
    pub stack: Vec<String>,
}

/// What was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// The packet crossed an interface.
    Hop(Hook),
    /// The kernel freed it with a drop reason.
    Drop(Box<DropInfo>),
}

/// One decoded event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Kernel time, CLOCK_MONOTONIC of the machine it came from, ns.
    pub time_ns: u64,
    /// Where; `None` when the interface is not a station (drops elsewhere, or without device).
    pub station: Option<StationId>,
    /// Inode of the namespace; 0 when unknown (a drop without device, route and socket).
    pub netns_inum: u32,
    /// Interface index there; 0 when unknown.
    pub ifindex: u32,
    /// Kernel address of the skb.
    pub skb: u64,
    /// Length of the frame at this point, bytes.
    pub len: u32,
    /// Super-packet.
    pub gso: Option<Gso>,
    /// What.
    pub kind: EventKind,
    /// Decoded headers.
    pub packet: Packet,
}

/// Events that were not seen, by cause.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// Hop events that found the ring buffer full.
    pub ring_hop: u64,
    /// Drop events that found the ring buffer full.
    pub ring_drop: u64,
    /// Events discarded in user space because memory for them ran out.
    pub backlog: u64,
    /// Events that could not be decoded.
    pub undecodable: u64,
}

impl Loss {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.ring_hop + self.ring_drop + self.backlog + self.undecodable
    }
}

// ------------------------------------------------------------------ journeys

/// Half-open range in the byte space in which a packet is followed: TCP sequence space for TCP
/// data, datagram payload for everything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteRange {
    /// First byte.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
}

/// A journey at one point of its path; several skbs may carry it there (segments, fragments) and
/// one skb may carry several journeys (GRO).
#[derive(Clone, Debug)]
pub struct Hop {
    /// Where.
    pub point: Point,
    /// When its first byte came by, ns.
    pub time_ns: u64,
    /// When its last byte came by, ns.
    pub end_ns: u64,
    /// Frame length of the first skb, bytes.
    pub len: u32,
    /// skbs that carried it.
    pub skbs: u32,
    /// Segments those skbs stand for (GSO).
    pub segments: u32,
    /// Bytes of the journey's range that came by (each counted once).
    pub covered: u64,
    /// Headers of the first skb, with the kernel address of that skb.
    pub packet: Packet,
    /// Kernel address of the first skb.
    pub skb: u64,
}

/// A drop event that belongs to a journey.
#[derive(Clone, Debug)]
pub struct JourneyDrop {
    /// When, ns.
    pub time_ns: u64,
    /// Node, pod and namespace it happened in; `None` when the kernel did not say.
    pub netns_inum: u32,
    /// Interface that the skb named; not always where it was (skb->dev lies).
    pub ifindex: u32,
    /// Reason, function, stack.
    pub info: DropInfo,
    /// Headers at that moment.
    pub packet: Packet,
    /// Bytes of the journey's range that were dropped with it.
    pub bytes: u64,
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// All of it reached the last station of its path.
    Delivered,
    /// The kernel dropped it, silently for the sender.
    Dropped,
    /// Dropped, and the sender was told (ICMP error or TCP reset).
    Rejected,
    /// Seen, then no more, with no drop event.
    Lost,
    /// Only a part arrived (segments or fragments are missing).
    Partial,
    /// The trace ended while it was under way.
    InFlight,
    /// Its first station was not seen (it was under way when the trace began).
    Incomplete,
    /// Sent to a service with several backends, and translated to another than the one followed.
    Elsewhere,
}

/// One packet's way.
#[derive(Clone, Debug)]
pub struct Journey {
    /// Position in the trace, from 1.
    pub id: u64,
    /// Request or answer.
    pub direction: Direction,
    /// Bytes followed; `None` where there is nothing to follow (no payload).
    pub range: Option<ByteRange>,
    /// Hops in time order.
    pub hops: Vec<Hop>,
    /// The drop that ended it.
    pub drop: Option<JourneyDrop>,
    /// Drops of copies (flooding) or other drop events that did not end it.
    pub side_drops: Vec<JourneyDrop>,
    /// Id of the journey whose bytes this one sends again.
    pub retransmission_of: Option<u64>,
    /// Id of the journey of which this is a second, identical copy.
    pub duplicate_of: Option<u64>,
    /// Crossed the same point more than once with falling TTL.
    pub looped: bool,
    /// What became of it.
    pub outcome: Outcome,
}

impl Journey {
    /// First time seen, ns.
    pub fn start_ns(&self) -> u64 {
        self.hops.first().map_or_else(|| self.drop.as_ref().map_or(0, |d| d.time_ns), |h| h.time_ns)
    }
}

/// An address resolution seen on the path: who asked for what, and whether anybody answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolution {
    /// Station of the first request.
    pub station: Option<StationId>,
    /// When first asked, ns.
    pub time_ns: u64,
    /// Who asked.
    pub asker: IpAddr,
    /// For which address.
    pub target: IpAddr,
    /// Requests seen at that station.
    pub requests: u32,
    /// Hardware address answered, if any.
    pub answer: Option<Mac>,
}

/// An ICMP error seen on the path that quotes a packet of the flow.
#[derive(Clone, Debug)]
pub struct IcmpReport {
    /// Station where first seen.
    pub station: Option<StationId>,
    /// When, ns.
    pub time_ns: u64,
    /// The error packet.
    pub packet: Ip,
    /// Journey that it quotes, where recognised.
    pub about: Option<u64>,
}

/// What the capture and the probe tell besides events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Observation {
    /// Kernel time from which everything was attached, ns.
    pub armed_ns: u64,
    /// Kernel time after which new packets do not count, ns; `None`: all do.
    pub closed_ns: Option<u64>,
    /// Kernel time when the capture ended, ns.
    pub end_ns: u64,
    /// Lost events, by node name (events of one machine that cannot be told apart count for each
    /// of its nodes once, under the name of the first).
    pub loss: Vec<(String, Loss)>,
    /// What the probe sent and got; `None` without `--probe`.
    pub probe: Option<ProbeResult>,
    /// Interfaces that vanished during the trace, by label.
    pub vanished: Vec<String>,
    /// Probes that could not run, with the reason.
    pub disabled: Vec<String>,
    /// The follow-up ping between nodes, where one was sent.
    pub node_ping: Option<NodePing>,
}

/// A ping from node to node, sent when packets were lost between them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodePing {
    /// Node that sent.
    pub from: String,
    /// Node that was to answer.
    pub to: String,
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// Echo requests sent.
    pub sent: u64,
    /// Answers received.
    pub answered: u64,
}

impl Observation {
    /// Events lost anywhere.
    pub fn events_lost(&self) -> u64 {
        self.loss.iter().map(|(_, l)| l.total()).sum()
    }
}

/// What the built-in probe did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeResult {
    /// `icmp`, `tcp`, `udp`.
    pub proto: String,
    /// Packets (or connection attempts) sent.
    pub sent: u64,
    /// Answers received (echo reply, SYN-ACK or RST, UDP reply or port unreachable).
    pub answered: u64,
    /// Answers that were refusals (RST, port unreachable).
    pub refused: u64,
    /// Errors the socket returned, with their count.
    pub errors: Vec<(String, u64)>,
    /// Round-trip times, ns, in order of sending.
    pub rtt_ns: Vec<u64>,
}

/// Journeys and all else that `correlate` makes of the events: what `diagnose` and the views need.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    /// Journeys kept whole, in order of their start.
    pub journeys: Vec<Journey>,
    /// Journeys that were counted in `summary` but not kept (long traces).
    pub omitted: u64,
    /// Per direction and point.
    pub summary: Vec<HopStats>,
    /// Outcomes, counted over kept and omitted journeys.
    pub outcomes: HashMap<(Direction, Outcome), u64>,
    /// Address resolutions.
    pub resolutions: Vec<Resolution>,
    /// ICMP errors about the flow.
    pub icmp_errors: Vec<IcmpReport>,
    /// Drop events that match the flow but no journey.
    pub stray_drops: Vec<JourneyDrop>,
    /// Journeys that send bytes again, kept and omitted ones.
    pub retransmitted: u64,
    /// Journeys that are second copies, kept and omitted ones.
    pub duplicated: u64,
}

/// Counts at one point for one direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HopStats {
    /// Which way.
    pub direction: Direction,
    /// Where.
    pub point: Point,
    /// Journeys seen here.
    pub packets: u64,
    /// skbs seen here.
    pub skbs: u64,
    /// Bytes followed (see [`ByteRange`]) that came by, each counted once.
    pub unique_bytes: u64,
    /// Bytes that came by again (retransmissions).
    pub repeated_bytes: u64,
    /// Time since the previous point of the same journey, ns: minimum, median, maximum; `None` at
    /// the first point.
    pub latency: Option<(u64, u64, u64)>,
}
