//! Packets followed from hop to hop, and all else that correlation makes of events.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{
    Direction, DropInfo, Ip, Mac, NodeClock, Packet, Point, Reading, StationId, UNKNOWN_ERROR_NS,
};

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
    /// The same by the clock of the machine where it was.
    pub clock: Reading,
    /// By how much `time_ns` may be wrong at most against other machines' times, ns;
    /// [`UNKNOWN_ERROR_NS`].
    pub error_ns: u64,
    /// When its last byte came by, ns.
    pub end_ns: u64,
    /// Frame length of the first skb, bytes.
    pub len: u32,
    /// skbs that carried it.
    pub skbs: u32,
    /// Segments those skbs stand for (GSO).
    pub segments: u32,
    /// Payload bytes of each segment of the first skb; `None` where it is one segment.
    pub segment_size: Option<u16>,
    /// Bytes of the journey's range that came by (each counted once).
    pub covered: u64,
    /// Headers of the first skb, with the kernel address of that skb.
    pub packet: Packet,
    /// Kernel address of the first skb.
    pub skb: u64,
}

impl Hop {
    /// By how much the time since another hop may be wrong at most, ns: not at all where one clock
    /// told both.
    pub fn error_since(&self, other: &Hop) -> u64 {
        error_between((self.clock, self.error_ns), (other.clock, other.error_ns))
    }
}

fn error_between((a, a_error): (Reading, u64), (b, b_error): (Reading, u64)) -> u64 {
    if a.machine == b.machine { 0 } else { a_error.saturating_add(b_error).min(UNKNOWN_ERROR_NS) }
}

impl JourneyDrop {
    /// By how much the time since a hop may be wrong at most, ns.
    pub fn error_since(&self, hop: &Hop) -> u64 {
        error_between((self.clock, self.error_ns), (hop.clock, hop.error_ns))
    }
}

/// A drop event that belongs to a journey.
#[derive(Clone, Debug)]
pub struct JourneyDrop {
    /// When, ns.
    pub time_ns: u64,
    /// The same by the clock of the machine where it was.
    pub clock: Reading,
    /// By how much `time_ns` may be wrong at most, ns; [`UNKNOWN_ERROR_NS`].
    pub error_ns: u64,
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

/// Which bytes of a TCP connection a journey carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamPlace {
    /// Number of the connection's direction, unique in the trace.
    pub number: u64,
    /// Where its first byte is, in the space of [`Journey::range`]; the first one seen where the trace
    /// began in its midst.
    pub first: u64,
}

/// Bytes of a journey that did not arrive with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Which.
    pub range: ByteRange,
    /// Where they were seen last; `None`: nowhere.
    pub last_seen: Option<Point>,
    /// The kernel said that it dropped them.
    pub dropped: bool,
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
    /// For TCP data, where in the connection that is.
    pub stream: Option<StreamPlace>,
    /// Parts of it that did not reach the last station, in ascending order; at most
    /// [`Journey::MAX_MISSING`].
    pub missing: Vec<Missing>,
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
    /// Missing parts that are told apart.
    pub const MAX_MISSING: usize = 256;

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
    /// Further such events, which were only counted, by node.
    pub stray_omitted: BTreeMap<String, u64>,
    /// Journeys that send bytes again, kept and omitted ones.
    pub retransmitted: u64,
    /// Journeys that are second copies, kept and omitted ones.
    pub duplicated: u64,
    /// The clock of every node.
    pub clocks: Vec<NodeClock>,
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
    /// By how much each of these may be wrong at most, ns; 0 where one clock told both times.
    pub latency_error_ns: u64,
}
