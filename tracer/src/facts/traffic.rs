//! What the kernel counts and keeps per connection, socket, queue and attached program.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Counters of an interface (`IFLA_STATS64`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LinkStats {
    /// Packets received.
    pub rx_packets: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Bad packets received.
    pub rx_errors: u64,
    /// Packets that could not be sent.
    pub tx_errors: u64,
    /// Good packets received and dropped.
    pub rx_dropped: u64,
    /// Packets dropped on the way out.
    pub tx_dropped: u64,
    /// Packets for a protocol or address that nobody handles.
    pub rx_nohandler: u64,
    /// Sent without carrier.
    pub tx_carrier_errors: u64,
}

/// Where a program or filter is attached to an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AttachPoint {
    /// XDP, before the kernel makes a packet of it.
    Xdp,
    /// `tc filter … ingress` (clsact or ingress qdisc).
    TcIngress,
    /// `tc filter … egress` (clsact).
    TcEgress,
    /// TCX link, ingress.
    TcxIngress,
    /// TCX link, egress.
    TcxEgress,
}

/// A program, or the filters of one kind, attached to an interface by someone else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachedProgram {
    /// Interface index.
    pub ifindex: u32,
    /// Where.
    pub point: AttachPoint,
    /// `bpf`, or the kind of tc filter: `u32`, `flower`, `matchall`, …
    pub kind: String,
    /// Id of the BPF program.
    pub id: Option<u32>,
    /// Name of the BPF program.
    pub name: Option<String>,
    /// As tc prints all filters there with their actions; empty for what is not a filter of tc.
    #[serde(default)]
    pub text: String,
}

/// XDP on an interface (`IFLA_XDP`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Xdp {
    /// `native`, `generic`, `offload` or `multiple`.
    pub mode: String,
    /// Id of the program.
    pub id: Option<u32>,
    /// Name of the program.
    pub name: Option<String>,
}

/// A queueing discipline of an interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Qdisc {
    /// Interface index.
    pub ifindex: u32,
    /// Kind: `tbf`, `htb`, `netem`, `fq_codel`, `noqueue`, `clsact`, …
    pub kind: String,
    /// Handle as tc writes it: `8001:`.
    pub handle: String,
    /// Parent as tc writes it: `root`, `1:10`, `ffff:fff1`.
    pub parent: String,
    /// Packets sent.
    pub packets: u64,
    /// Bytes sent.
    pub bytes: u64,
    /// Packets dropped.
    pub drops: u64,
    /// Times that a limit was met.
    pub overlimits: u64,
    /// Packets put back.
    pub requeues: u64,
    /// Packets waiting.
    pub qlen: u64,
    /// Bytes waiting.
    pub backlog: u64,
    /// Parameters as tc prints them: `rate 8Kbit burst 1600b lat 400ms`; empty for kinds that
    /// neither shape nor lose on purpose.
    pub options: String,
}

/// Connection tracking of a namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Conntrack {
    /// Entries now.
    pub count: Option<u64>,
    /// Entries at most (`nf_conntrack_max`), as this namespace shows it. Kernels differ in whether
    /// a namespace has a limit of its own; the machine's applies besides.
    pub max: Option<u64>,
    /// Events summed over processors: `found`, `invalid`, `insert_failed`, `drop`, `early_drop`,
    /// `error`, `search_restart`, `clash_resolve`, `chain_toolong`.
    pub stats: BTreeMap<String, u64>,
    /// Entries that concern the ends of the trace, or the tunnels of this namespace.
    pub entries: Vec<ConntrackEntry>,
    /// There were more entries than are read.
    pub truncated: bool,
}

/// What conntrack knows of one connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConntrackEntry {
    /// As first sent.
    pub original: Tuple,
    /// As its replies look on arrival.
    pub reply: Tuple,
    /// Layer-4 protocol number.
    pub proto: u8,
    /// `IPS_*` bits (include/uapi/linux/netfilter/nf_conntrack_common.h).
    pub status: u32,
    /// TCP state: `ESTABLISHED`.
    pub tcp_state: Option<String>,
    /// Mark of the connection.
    pub mark: u32,
    /// Zone.
    pub zone: u16,
    /// Seconds until it is forgotten.
    pub timeout: Option<u32>,
}

impl ConntrackEntry {
    /// `IPS_SEEN_REPLY`.
    pub fn seen_reply(&self) -> bool {
        self.status & (1 << 1) != 0
    }

    /// `IPS_SRC_NAT`: the source is translated.
    pub fn source_translated(&self) -> bool {
        self.status & (1 << 4) != 0
    }

    /// `IPS_DST_NAT`: the destination is translated.
    pub fn destination_translated(&self) -> bool {
        self.status & (1 << 5) != 0
    }
}

/// Addresses of one direction of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tuple {
    /// Source.
    pub src: IpAddr,
    /// Destination.
    pub dst: IpAddr,
    /// Source port.
    pub sport: Option<u16>,
    /// Destination port.
    pub dport: Option<u16>,
    /// ICMP type, code and identifier.
    pub icmp: Option<(u8, u8, u16)>,
}

/// Protocol of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SocketProto {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// A listening TCP socket, or any UDP socket.
///
/// The kernel's own UDP sockets (of VXLAN devices) are not listed: /proc shows only those that
/// belong to a program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Socket {
    /// Protocol.
    pub proto: SocketProto,
    /// Bound to; an unspecified address: to all. IPv6 unspecified also takes IPv4 unless the
    /// program said otherwise, which /proc does not tell.
    pub local: SocketAddr,
    /// Connected to (UDP).
    pub remote: Option<SocketAddr>,
    /// TCP: connections not yet accepted; UDP: bytes not yet read.
    pub rx_queue: u64,
    /// Packets dropped because the buffer was full (UDP).
    pub drops: Option<u64>,
    /// Inode of the socket: its identity.
    pub inode: u64,
}

impl Socket {
    /// Whether it could take a packet to this address and port, as far as its binding tells.
    pub fn takes(&self, proto: SocketProto, ip: IpAddr, port: u16) -> bool {
        let bound = self.local.ip();
        self.proto == proto
            && self.local.port() == port
            && (bound == ip || bound.is_unspecified() && (bound.is_ipv6() || ip.is_ipv4()))
    }
}

/// An IPsec policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct XfrmPolicy {
    /// `in`, `out` or `fwd`.
    pub direction: String,
    /// Sources.
    pub src: IpNet,
    /// Destinations.
    pub dst: IpNet,
    /// Layer-4 protocol; 0: any.
    pub proto: u8,
    /// Blocks rather than protects or passes.
    pub block: bool,
    /// Lower comes first.
    pub priority: u32,
}
