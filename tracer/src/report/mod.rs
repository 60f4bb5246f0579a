//! The report, schema `podtrace.report/1`: what every view draws and what `--format json` prints.
//!
//! Built by [`crate::diagnose`] from topology, trace and observation; views read nothing else, so
//! text and JSON cannot disagree. Fields may be added within a schema version, never changed.

mod backend;
mod counts;
mod journey;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::expect::audit::WalkReport;
use crate::model::{Direction, EndKind, Hook, ProbeResult, Role};

pub use backend::BackendReport;
pub use counts::PacketCounts;
use journey::exact;
pub use journey::{DropReport, HeaderReport, HopReport, JourneyReport, MissingReport, OuterReport};

/// The value of [`Report::schema`].
pub const SCHEMA: &str = "podtrace.report/1";

/// A whole report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// What wrote it.
    pub tool: Tool,
    /// Wall-clock time at which the trace began, RFC 3339.
    pub started: String,
    /// How long it ran, ns.
    pub duration_ns: u64,
    /// `--src`.
    pub src: EndReport,
    /// `--dst`.
    pub dst: EndReport,
    /// The overall verdict: that of the first direction that failed.
    pub verdict: Verdict,
    /// Other things wrong on the path, worst first.
    pub findings: Vec<Verdict>,
    /// Of a service with several backends, what became of packets to each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backends: Vec<BackendReport>,
    /// Counts over all journeys.
    pub packets: PacketCounts,
    /// Every observed interface.
    pub stations: Vec<StationReport>,
    /// Per direction: planned points with counts, and the direction's own verdict.
    pub directions: Vec<DirectionReport>,
    /// The way that the tables say packets should take, per direction, with what was seen of them at
    /// each step; empty where the network state was not read.
    #[serde(default)]
    pub expected: Vec<WalkReport>,
    /// Single packets, in order of their start.
    pub journeys: Vec<JourneyReport>,
    /// Journeys counted but not listed (long traces).
    pub journeys_omitted: u64,
    /// Address resolutions seen on the path.
    pub resolutions: Vec<ResolutionReport>,
    /// ICMP errors about the flow, seen on the path.
    pub icmp_errors: Vec<IcmpReport>,
    /// Clock of each node against the first.
    pub clock: Vec<ClockReport>,
    /// What was not observed.
    pub loss: LossReport,
    /// The built-in probe, `null` without.
    pub probe: Option<ProbeResult>,
    /// Remarks: probes that could not run, interfaces that vanished, gaps in what could be read.
    pub notes: Vec<String>,
}

/// What wrote the report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tool {
    /// Version of podtrace.
    pub version: String,
    /// Kernel release of the machine that traced (`uname -r`).
    pub kernel: String,
}

/// An endpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EndReport {
    /// `A.a`.
    pub name: String,
    /// Node.
    pub node: String,
    /// Pod, where known.
    pub pod: Option<String>,
    /// Addresses.
    pub ips: Vec<String>,
    /// What it is; absent for a pod.
    #[serde(default, skip_serializing_if = "EndKind::is_pod")]
    pub kind: EndKind,
    /// The service address (and port) through which it is reached: `10.96.0.10:80`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
}

impl EndReport {
    /// `B.b`, `B.b via service 10.96.0.10:80`.
    pub fn title(&self) -> String {
        match &self.service {
            Some(service) if *service != self.name => {
                format!("{} via service {service}", self.name)
            }
            Some(service) => format!("service {service}"),
            None => match (self.kind, &self.pod) {
                (EndKind::Pod, _) => self.name.clone(),
                (EndKind::Node, Some(_)) => {
                    format!("{} (on the network of node {})", self.name, self.node)
                }
                (EndKind::Node, None) => format!("node {}", self.name),
                (EndKind::Outside, _) => format!("{} (outside)", self.name),
            },
        }
    }
}

/// Overall or per-direction result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// Everything arrived.
    Delivered,
    /// The kernel dropped it.
    Dropped,
    /// Dropped and the sender was told.
    Rejected,
    /// Seen, then no more, and nothing was lost in observation.
    Lost,
    /// Arrives in part or slowly.
    Degraded,
    /// No packet of the flow was seen.
    NoTraffic,
    /// The observation does not suffice.
    Inconclusive,
}

impl Status {
    /// Exit status of the command: 0 delivered, 3 not delivered or degraded, 4 no traffic or
    /// inconclusive.
    pub fn exit_code(self) -> u8 {
        match self {
            Status::Delivered => 0,
            Status::Dropped | Status::Rejected | Status::Lost | Status::Degraded => 3,
            Status::NoTraffic | Status::Inconclusive => 4,
        }
    }
}

/// How sure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Confidence {
    /// The kernel's own drop event, or a deciding table entry with the packet seen before it and
    /// not after, and no event lost.
    Proven,
    /// Strong circumstantial evidence.
    Likely,
    /// A guess worth checking.
    Possible,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    Note,
    /// Some packets suffer: large ones, many at once.
    Harm,
    /// Packets of the flow would not pass.
    Fatal,
}

/// A verdict or finding.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// What became of the packets.
    pub status: Status,
    /// Which way failed; `null` when both were delivered.
    pub direction: Option<Direction>,
    /// `area.cause`; `null` when delivered.
    pub cause: Option<String>,
    /// Where it happened.
    pub r#where: Option<Place>,
    /// The last point at which the packet was seen.
    pub last_seen: Option<PointReport>,
    /// The point at which it should have been seen next.
    pub next_expected: Option<PointReport>,
    /// `null` when there was no drop event.
    pub kernel_reason: Option<KernelReason>,
    /// One sentence for a human.
    pub summary: String,
    /// What it rests on, one line each.
    pub evidence: Vec<String>,
    /// Commands or steps that mend it.
    pub fix: Vec<String>,
    /// Packet-filter rule or policy that did it; absent where none did, or none is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// How sure.
    pub confidence: Confidence,
    /// How bad, for a finding from the tables; absent where the status says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub severity: Option<Severity>,
}

impl Verdict {
    /// Whether it happened between nodes.
    pub fn is_on_wire(&self) -> bool {
        self.r#where.as_ref().is_some_and(|place| place.stage.as_deref() == Some("wire"))
    }
}

/// A place in the kernel of a node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Place {
    /// Node; `null` when unknown.
    pub node: Option<String>,
    /// Pod, when it happened inside one.
    pub pod: Option<String>,
    /// Network namespace.
    pub netns: Option<String>,
    /// Interface.
    pub interface: Option<String>,
    /// Stage of processing: `pod`, `bridge`, `prerouting`, `input`, `forward`, `output`,
    /// `postrouting`, `route`, `neighbor`, `encap`, `decap`, `transmit`, `receive`, `wire`,
    /// `socket`.
    pub stage: Option<String>,
    /// Kernel function.
    pub function: Option<String>,
}

/// A point of a path, by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PointReport {
    /// Node.
    pub node: String,
    /// Pod, for the pod's own interface.
    pub pod: Option<String>,
    /// Interface.
    pub interface: String,
    /// Its role.
    pub role: Role,
    /// Which way.
    pub hook: Hook,
}

/// The kernel's drop reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelReason {
    /// Number in the kernel that dropped.
    pub code: u32,
    /// Name without prefix.
    pub name: String,
}

/// An observed interface.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StationReport {
    /// Node.
    pub node: String,
    /// Pod, for a pod's own interface.
    pub pod: Option<String>,
    /// Network namespace.
    pub netns: String,
    /// Interface name.
    pub interface: String,
    /// Interface index.
    pub ifindex: u32,
    /// Role.
    pub role: Role,
    /// Hardware address.
    pub mac: Option<String>,
    /// MTU, bytes.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
    /// Addresses with prefix length.
    pub addresses: Vec<String>,
    /// VXLAN network identifier, for a VXLAN device.
    pub vni: Option<u32>,
    /// VXLAN UDP port, for a VXLAN device.
    pub udp_port: Option<u16>,
}

/// One direction.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DirectionReport {
    /// Which.
    pub direction: Direction,
    /// Of a service with several backends, the address of the one that this is about: the one that fails
    /// worst, else the busiest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    /// Its verdict.
    pub verdict: Verdict,
    /// Packets that began at the first station.
    pub packets: u64,
    /// Of those, how each ended.
    pub outcomes: BTreeMap<String, u64>,
    /// Planned points in order, then seen ones that were not planned.
    pub hops: Vec<HopSummary>,
}

/// Counts at one point.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HopSummary {
    /// Where.
    #[serde(flatten)]
    pub point: PointReport,
    /// On the planned path.
    pub expected: bool,
    /// Packets seen here.
    pub packets: u64,
    /// skbs seen here (fewer after GRO, more after GSO).
    pub skbs: u64,
    /// Bytes followed that came by, each counted once.
    pub bytes: u64,
    /// Bytes that came by again.
    pub repeated_bytes: u64,
    /// Packets seen at the previous point and not here (0 at the first).
    pub lost: u64,
    /// Time since the previous point, over all packets.
    pub latency: Option<Latency>,
}

/// Distribution of a latency, ns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    /// Smallest.
    pub min_ns: u64,
    /// Median.
    pub median_ns: u64,
    /// Largest.
    pub max_ns: u64,
    /// By how much each of these may be wrong at most, ns: 0 where one clock told both times, `null`
    /// where nobody knows.
    #[serde(default = "exact")]
    pub error_ns: Option<u64>,
}

/// An address resolution.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolutionReport {
    /// Where asked; `null` when not at a station.
    pub at: Option<PointReport>,
    /// Asker.
    pub asker: String,
    /// Address asked for.
    pub target: String,
    /// Requests seen.
    pub requests: u32,
    /// Answer; `null`: none.
    pub answer: Option<String>,
}

/// An ICMP error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IcmpReport {
    /// Where first seen.
    pub at: Option<PointReport>,
    /// Its source: the node that complains.
    pub from: String,
    /// Name of the source.
    pub from_name: Option<String>,
    /// Its destination.
    pub to: String,
    /// Type.
    pub r#type: u8,
    /// Code.
    pub code: u8,
    /// In words.
    pub text: String,
    /// Journey that it is about.
    pub about: Option<String>,
}

/// A node's clock against that of the node where the trace begins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClockReport {
    /// Node.
    pub node: String,
    /// What to add to the node's time to get the first node's, at the end of the trace, ns.
    pub offset_ns: i64,
    /// By how much that may be wrong at most, ns: 0 for the same clock, `null` where nobody knows.
    pub error_ns: Option<u64>,
    /// How much faster it runs, parts per million; `null`: the trace is too short to tell, or it is
    /// the same clock.
    #[serde(default)]
    pub drift_ppm: Option<f64>,
    /// What it was told from.
    #[serde(default)]
    pub method: ClockMethod,
    /// Packets recognised on both sides, and questions that the node answered.
    #[serde(default)]
    pub samples: u64,
    /// Times that it was set or stood still during the trace.
    #[serde(default)]
    pub steps: u64,
}

/// What the offset of a clock is known from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClockMethod {
    /// It is the same clock.
    #[default]
    SameClock,
    /// Packets that were recognised on both sides.
    Packets,
    /// Questions to the node and its answers.
    RoundTrips,
    /// Both.
    PacketsAndRoundTrips,
    /// Nothing.
    None,
}

/// Losses in observation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LossReport {
    /// All of them.
    pub events_lost: u64,
    /// By node.
    pub by_node: BTreeMap<String, crate::model::Loss>,
}
