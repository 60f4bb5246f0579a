//! The state of one namespace as values.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::firewall::Firewall;
use super::ipvs::Ipvs;
use super::traffic::{AttachedProgram, Conntrack, LinkStats, Qdisc, Socket, Xdp, XfrmPolicy};
use crate::model::{Mac, VxlanInfo};

/// ARPHRD_ETHER (include/uapi/linux/if_arp.h).
pub(super) const ARPHRD_ETHER: u16 = 1;

/// State of one network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetnsFacts {
    /// Namespace, as a person would name it.
    pub name: String,
    /// Inode: its identity in the kernel.
    pub inum: u32,
    /// Interfaces.
    pub links: Vec<Link>,
    /// Addresses of interfaces.
    pub addresses: Vec<Address>,
    /// ARP and neighbour-discovery entries.
    pub neighbors: Vec<NeighborEntry>,
    /// Forwarding database of bridges and VXLAN devices.
    pub fdb: Vec<FdbEntry>,
    /// Routes of all tables.
    pub routes: Vec<Route>,
    /// Policy rules.
    pub rules: Vec<Rule>,
    /// What the kernel answered to route queries.
    pub answers: Vec<RouteAnswer>,
    /// Ids under which this namespace knows others: id → inode.
    pub nsids: BTreeMap<i32, u32>,
    /// Kernel parameters of networking, under the names that sysctl(8) uses:
    /// `net.ipv4.conf.cni0.rp_filter`; a dot within an interface name is a slash.
    #[serde(default)]
    pub sysctls: BTreeMap<String, String>,
    /// Protocol counters: `Ip.InAddrErrors`, `TcpExt.ListenOverflows`, `Udp.InCsumErrors`,
    /// `Ip6.InNoRoutes`.
    #[serde(default)]
    pub counters: BTreeMap<String, u64>,
    /// Connection tracking; `None` where there is none.
    #[serde(default)]
    pub conntrack: Option<Conntrack>,
    /// Packet filters.
    #[serde(default)]
    pub firewall: Firewall,
    /// Services of IPVS; `None` where it has none, or could not be asked (see `gaps`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipvs: Option<Ipvs>,
    /// Queueing disciplines.
    #[serde(default)]
    pub qdiscs: Vec<Qdisc>,
    /// Programs and filters at the interfaces' tc hooks and XDP, other than podtrace's own.
    #[serde(default)]
    pub programs: Vec<AttachedProgram>,
    /// IPsec policies.
    #[serde(default)]
    pub xfrm: Vec<XfrmPolicy>,
    /// Listening TCP and all UDP sockets of programs; not the kernel's own tunnel sockets.
    #[serde(default)]
    pub sockets: Vec<Socket>,
    /// What could not be read.
    #[serde(default)]
    pub gaps: Vec<Gap>,
}

/// A source that could not be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// What: `IPv6 routes`.
    pub source: String,
    /// Why.
    pub reason: String,
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.source, self.reason)
    }
}

/// A network interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Interface index.
    pub index: u32,
    /// Name.
    pub name: String,
    /// What made it (`IFLA_INFO_KIND`: `veth`, `bridge`, `vxlan`, …); `None` for hardware.
    pub kind: Option<String>,
    /// Link layer type (`ARPHRD_*`, include/uapi/linux/if_arp.h).
    pub arphrd: u16,
    /// Hardware address; `None` without link layer.
    pub mac: Option<Mac>,
    /// Bytes of network-layer packet that fit.
    pub mtu: u32,
    /// The loopback device.
    pub loopback: bool,
    /// Administratively up.
    pub up: bool,
    /// Has a carrier.
    pub lower_up: bool,
    /// Operational state as in RFC 2863, lower case: `up`, `down`, `lowerlayerdown`, `unknown`, …
    pub oper_state: String,
    /// Bridge, bond or VRF that it is a port of: interface index.
    pub master: Option<u32>,
    /// The interface it sits on or is paired with (`IFLA_LINK`): interface index.
    pub linked: Option<u32>,
    /// Namespace of `linked` where it is another one (`IFLA_LINK_NETNSID`), see
    /// [`NetnsFacts::nsids`].
    pub linked_nsid: Option<i32>,
    /// `Some` for a VXLAN device.
    pub vxlan: Option<VxlanInfo>,
    /// `Some` for a port of a bridge.
    pub bridge_port: Option<BridgePort>,
    /// `Some` for a bridge.
    #[serde(default)]
    pub bridge: Option<BridgeInfo>,
    /// Counters.
    #[serde(default)]
    pub stats: Option<LinkStats>,
    /// `Some` when an XDP program is attached.
    #[serde(default)]
    pub xdp: Option<Xdp>,
    /// Hears everything (`promisc`).
    #[serde(default)]
    pub promiscuous: bool,
}

impl Link {
    /// Frames carry an Ethernet header here.
    pub fn ethernet(&self) -> bool {
        self.arphrd == ARPHRD_ETHER
    }

    /// Whether the kernel calls it so (`IFLA_INFO_KIND`).
    pub fn is(&self, kind: &str) -> bool {
        self.kind.as_deref() == Some(kind)
    }

    /// One of two ends: what enters the other end comes out here.
    pub fn is_pair(&self) -> bool {
        self.is("veth") || self.is("netkit")
    }

    /// A layer-3 tunnel into a program.
    pub fn is_tun(&self) -> bool {
        self.is("tun") && !self.ethernet()
    }
}

/// Attributes of a bridge (`IFLA_BR_*`); `None`: not told by this kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BridgeInfo {
    /// Spanning tree runs.
    pub stp: Option<bool>,
    /// Drops frames whose VLAN is not allowed.
    pub vlan_filtering: Option<bool>,
    /// Bridged IPv4 goes through iptables here whatever the sysctl says.
    pub nf_call_iptables: Option<bool>,
    /// Bridged IPv6 goes through ip6tables here whatever the sysctl says.
    pub nf_call_ip6tables: Option<bool>,
    /// Time after which a learned address is forgotten, in hundredths of a second.
    pub ageing_time: Option<u32>,
}

/// Flags of a bridge port (`IFLA_BRPORT_*`); `None`: not told by this kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BridgePort {
    /// Spanning-tree state: `disabled`, `listening`, `learning`, `forwarding`, `blocking`.
    pub state: Option<String>,
    /// Sends frames back to where they came from.
    pub hairpin: Option<bool>,
    /// Exchanges nothing with other isolated ports.
    pub isolated: Option<bool>,
    /// Learns source addresses.
    pub learning: Option<bool>,
    /// Gets frames for unknown destinations.
    pub flood: Option<bool>,
}

/// An address of an interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// Interface index.
    pub ifindex: u32,
    /// Address with prefix length.
    pub net: IpNet,
    /// Not usable yet, or not unique (IPv6 duplicate address detection).
    pub tentative: bool,
}

/// State of a neighbour entry (`NUD_*`, include/uapi/linux/neighbour.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NeighborState {
    /// Asked, not answered yet.
    Incomplete,
    /// Confirmed lately.
    Reachable,
    /// Known, to be confirmed at the next use.
    Stale,
    /// Used, to be confirmed soon.
    Delay,
    /// Being confirmed.
    Probe,
    /// Asked in vain.
    Failed,
    /// Needs no resolution.
    Noarp,
    /// Set by hand (or by flanneld).
    Permanent,
    /// No state.
    None,
    /// Several bits, or one unknown here.
    Other(u16),
}

/// An ARP or neighbour-discovery entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NeighborEntry {
    /// Interface index.
    pub ifindex: u32,
    /// Whose.
    pub ip: IpAddr,
    /// Where; `None` while unresolved.
    pub mac: Option<Mac>,
    /// How sure.
    pub state: NeighborState,
}

/// Where a bridge or a VXLAN device sends a hardware address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FdbEntry {
    /// Bridge port or VXLAN device: interface index.
    pub ifindex: u32,
    /// Destination hardware address.
    pub mac: Mac,
    /// Bridge, for an entry of a bridge: interface index.
    pub master: Option<u32>,
    /// Remote tunnel endpoint, for an entry of a VXLAN device.
    pub dst: Option<IpAddr>,
    /// Interface index that the tunnel packet must leave through, where set (`via`).
    pub via: Option<u32>,
    /// VXLAN network identifier to use instead of the device's, where set.
    pub vni: Option<u32>,
    /// UDP port to use instead of the device's, where set.
    pub port: Option<u16>,
    /// Belongs to the device itself rather than to the bridge above it.
    pub own: bool,
    /// Permanent: not learned, does not age.
    pub permanent: bool,
}

/// What a route does (`RTN_*`, include/uapi/linux/rtnetlink.h).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RouteKind {
    /// Forwards.
    #[default]
    Unicast,
    /// Is for this host.
    Local,
    /// Is a broadcast address.
    Broadcast,
    /// Is an anycast address.
    Anycast,
    /// Is a multicast address.
    Multicast,
    /// Drops silently.
    Blackhole,
    /// Drops, and says "unreachable".
    Unreachable,
    /// Drops, and says "prohibited".
    Prohibit,
    /// Ends the search in this table.
    Throw,
    /// Anything else, by number.
    Other(u8),
}

/// A route.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Table; 254 is "main", 255 "local".
    pub table: u32,
    /// What it does.
    pub kind: RouteKind,
    /// Destination.
    pub dst: IpNet,
    /// Out of which interface: index. Several hops: that of the first.
    pub oif: Option<u32>,
    /// Next hop; `None`: the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// Source address for packets of this host.
    pub prefsrc: Option<IpAddr>,
    /// Metric.
    pub priority: Option<u32>,
    /// Who set it (`RTPROT_*`).
    pub protocol: u8,
    /// The next hop need not be on the link (`onlink`).
    pub onlink: bool,
    /// Dead or without carrier.
    pub dead: bool,
    /// Further next hops of a multipath route: interface index and gateway.
    pub more_hops: Vec<(u32, Option<IpAddr>)>,
    /// No carrier at its interface (`linkdown`): used nevertheless, unless a sysctl says otherwise.
    #[serde(default)]
    pub linkdown: bool,
    /// Only for packets with this type of service; 0: for all.
    #[serde(default)]
    pub tos: u8,
    /// Bytes of network-layer packet at most, where the route says so.
    #[serde(default)]
    pub mtu: Option<u32>,
}

/// What a rule does (`FR_ACT_*`, include/uapi/linux/fib_rules.h).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RuleAction {
    /// Look in the table.
    ToTable,
    /// Go on at the rule of this priority.
    Goto(u32),
    /// Nothing.
    #[default]
    Nop,
    /// Drop silently.
    Blackhole,
    /// Drop, and say "unreachable".
    Unreachable,
    /// Drop, and say "prohibited".
    Prohibit,
    /// Anything else, by number.
    Other(u8),
}

/// A policy rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// IPv6 rather than IPv4.
    pub v6: bool,
    /// Lower comes first.
    pub priority: u32,
    /// Selects what does *not* match (`not`).
    pub invert: bool,
    /// Source prefix.
    pub src: Option<IpNet>,
    /// Destination prefix.
    pub dst: Option<IpNet>,
    /// Incoming interface name.
    pub iif: Option<String>,
    /// Outgoing interface name.
    pub oif: Option<String>,
    /// Firewall mark and mask.
    pub fwmark: Option<(u32, u32)>,
    /// Table; 254 is "main".
    pub table: u32,
    /// What it does.
    pub action: RuleAction,
    /// Only this type of service; 0: any.
    #[serde(default)]
    pub tos: u8,
    /// Only this layer-4 protocol.
    #[serde(default)]
    pub proto: Option<u8>,
    /// Only these source ports: first and last.
    #[serde(default)]
    pub sport: Option<(u16, u16)>,
    /// Only these destination ports: first and last.
    #[serde(default)]
    pub dport: Option<(u16, u16)>,
    /// Answers of the table with a prefix of at most this length do not count.
    #[serde(default)]
    pub suppress_prefix: Option<u32>,
    /// Only packets of these users (first and last id): never forwarded ones.
    #[serde(default)]
    pub uids: Option<(u32, u32)>,
}

/// A question to the kernel's routing: where would this packet go?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RouteQuery {
    /// Destination.
    pub dst: IpAddr,
    /// Source; the kernel needs one where `iif` is set.
    pub src: Option<IpAddr>,
    /// As if it had come in here (interface index), to be forwarded; `None`: sent by the host.
    pub iif: Option<u32>,
    /// To be sent out of this interface (index).
    pub oif: Option<u32>,
}

impl RouteQuery {
    /// For a packet that the host sends itself.
    pub fn to(dst: IpAddr) -> Self {
        Self { dst, src: None, iif: None, oif: None }
    }
}

/// A question with its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteAnswer {
    /// The question.
    pub query: RouteQuery,
    /// The answer.
    pub outcome: RouteOutcome,
}

impl RouteAnswer {
    /// Where the packet goes, if anywhere.
    pub fn hit(&self) -> Option<&RouteHit> {
        match &self.outcome {
            RouteOutcome::Found(hit) => Some(hit),
            RouteOutcome::Failed { .. } => None,
        }
    }
}

/// Answer to a [`RouteQuery`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RouteOutcome {
    /// A route applies.
    Found(RouteHit),
    /// None does, or the packet would be refused.
    Failed {
        /// Error number; 0 when the kernel gave none.
        errno: i32,
        /// In words.
        message: String,
    },
}

/// The way a packet would take.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteHit {
    /// What happens to it.
    pub kind: RouteKind,
    /// Out of which interface: index.
    pub oif: Option<u32>,
    /// Next hop; `None`: the destination itself.
    pub gateway: Option<IpAddr>,
    /// Source address that the host would use.
    pub prefsrc: Option<IpAddr>,
    /// Table that decided.
    pub table: u32,
    /// Bytes of network-layer packet at most, where the route or a path learned from ICMP errors
    /// says so.
    #[serde(default)]
    pub mtu: Option<u32>,
}
