//! One packet's way in a report: its hops, their headers, and how it ended.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{KernelReason, Place, PointReport};
use crate::model::{Direction, Outcome, Reading};

/// The error of what one clock told.
pub(super) fn exact() -> Option<u64> {
    Some(0)
}

/// One packet's way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JourneyReport {
    /// Unique within the report.
    pub id: String,
    /// Which way.
    pub direction: Direction,
    /// Of a service with several backends, the address of the one that it belongs to; the service's where
    /// none was chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    /// One line as tcpdump would put it: `ICMP echo request, id 7, seq 1, length 64`.
    pub summary: String,
    /// Kernel time of its first hop, or of its drop where there is none, since everything was
    /// attached, ns. 0 in reports of versions that did not tell it.
    #[serde(default)]
    pub start_ns: u64,
    /// What became of it.
    pub outcome: Outcome,
    /// Bytes followed; `null` where there is nothing to follow.
    pub bytes: Option<u64>,
    /// For TCP data, the number of its first byte in the connection, from 1 (from the first byte seen
    /// where the trace began in its midst).
    #[serde(default)]
    pub first_byte: Option<u64>,
    /// Parts of TCP data that did not arrive with this packet.
    #[serde(default)]
    pub missing: Vec<MissingReport>,
    /// Id of the journey that it retransmits.
    pub retransmission_of: Option<String>,
    /// Id of the journey that it repeats.
    pub duplicate_of: Option<String>,
    /// It went round in a circle.
    pub looped: bool,
    /// Hops in time order.
    pub hops: Vec<HopReport>,
    /// The drop that ended it.
    pub drop: Option<DropReport>,
    /// Drop events of copies.
    pub side_drops: Vec<DropReport>,
}

/// Bytes of a packet that did not arrive with it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MissingReport {
    /// Where they begin in the packet's payload, bytes from 0.
    pub offset: u64,
    /// How many.
    pub bytes: u64,
    /// First of the segments that they are, counted from 1 in the packet as it was sent; `null` where
    /// that was one segment.
    pub first_segment: Option<u64>,
    /// The last of them.
    pub last_segment: Option<u64>,
    /// Where they were seen last; `null`: nowhere.
    pub last_seen: Option<PointReport>,
    /// The kernel said that it dropped them.
    pub dropped: bool,
    /// Id of the journey that brought them later.
    pub resent: Option<String>,
    /// How long after the first sending that one arrived, ns.
    pub arrived_after_ns: Option<u64>,
    /// By how much that may be wrong at most, ns.
    pub arrived_error_ns: Option<u64>,
}

/// One hop of one packet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HopReport {
    /// Where.
    #[serde(flatten)]
    pub point: PointReport,
    /// When its machine's own clock says it was, by which the event can be found again: not part of
    /// what is written.
    #[serde(skip)]
    pub clock: Reading,
    /// Kernel time since the journey's first hop, ns.
    pub time_ns: u64,
    /// By how much that may be wrong at most, ns: 0 where one clock told both, `null` where nobody
    /// knows.
    #[serde(default = "exact")]
    pub time_error_ns: Option<u64>,
    /// Since the previous hop, ns.
    pub delta_ns: u64,
    /// By how much that may be wrong at most, ns.
    #[serde(default = "exact")]
    pub delta_error_ns: Option<u64>,
    /// Frame length, bytes.
    pub length: u32,
    /// skbs that carried it here.
    pub skbs: u32,
    /// Segments those stand for.
    pub segments: u32,
    /// Bytes followed that came by here.
    pub bytes: u64,
    /// The flow's own headers.
    pub inner: HeaderReport,
    /// The tunnel's headers, where encapsulated.
    pub outer: Option<OuterReport>,
    /// Names of the addresses above.
    pub names: BTreeMap<String, String>,
    /// What differs from the hop before, one short phrase each: `TTL 64 → 63`,
    /// `dst MAC A.cni0.mac → A.a.mac`, `VXLAN VNI 1`.
    pub changes: Vec<String>,
}

/// Headers of the flow's own packet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeaderReport {
    /// Source hardware address.
    pub src_mac: Option<String>,
    /// Destination hardware address.
    pub dst_mac: Option<String>,
    /// Source address.
    pub src_ip: String,
    /// Destination address.
    pub dst_ip: String,
    /// `icmp`, `tcp`, `udp`, `icmpv6`, or the protocol number.
    pub proto: String,
    /// TTL / hop limit.
    pub ttl: u8,
    /// IPv4 identification, or the IPv6 fragment header's.
    pub id: u32,
    /// Source port.
    pub src_port: Option<u16>,
    /// Destination port.
    pub dst_port: Option<u16>,
    /// TCP sequence number.
    pub tcp_seq: Option<u32>,
    /// TCP acknowledgement number.
    pub tcp_ack: Option<u32>,
    /// TCP flags as tcpdump prints them: `S`, `S.`, `P.`, `F.`, `R`, `.`.
    pub tcp_flags: Option<String>,
    /// ICMP type.
    pub icmp_type: Option<u8>,
    /// ICMP code.
    pub icmp_code: Option<u8>,
    /// ICMP echo identifier.
    pub icmp_id: Option<u16>,
    /// ICMP echo sequence number.
    pub icmp_seq: Option<u16>,
    /// Fragment offset, bytes; `null` when not a fragment.
    pub fragment_offset: Option<u32>,
    /// More fragments follow.
    pub more_fragments: Option<bool>,
}

/// Headers of the tunnel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OuterReport {
    /// Source hardware address.
    pub src_mac: Option<String>,
    /// Destination hardware address.
    pub dst_mac: Option<String>,
    /// Source address.
    pub src_ip: String,
    /// Destination address.
    pub dst_ip: String,
    /// TTL.
    pub ttl: u8,
    /// VXLAN network identifier.
    pub vni: Option<u32>,
    /// UDP source port.
    pub udp_src: u16,
    /// UDP destination port.
    pub udp_dst: u16,
}

/// A drop event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DropReport {
    /// Kernel time since the journey's first hop, ns.
    pub time_ns: u64,
    /// By how much that may be wrong at most, ns: 0 where one clock told both, `null` where nobody
    /// knows.
    #[serde(default = "exact")]
    pub time_error_ns: Option<u64>,
    /// Number and name.
    pub reason: KernelReason,
    /// Function that freed the packet.
    pub function: String,
    /// Netfilter hook or stage derived from the stack: `PREROUTING`, `INPUT`, `FORWARD`, `OUTPUT`,
    /// `POSTROUTING`, `BRIDGE`, `NETDEV`; `null` where it does not apply.
    pub hook: Option<String>,
    /// Netfilter rule, when known.
    pub rule: Option<String>,
    /// Where.
    pub place: Place,
    /// Kernel stack, innermost first.
    pub stack: Vec<String>,
}
