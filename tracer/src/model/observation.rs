//! What the capture and the probe tell besides events.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

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
