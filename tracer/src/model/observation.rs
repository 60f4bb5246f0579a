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
    /// Events beyond what a node hands out in a second.
    #[serde(default)]
    pub over_rate: u64,
    /// Events that came too late to be put in order with those of other machines: seen, but perhaps
    /// taken for another packet.
    #[serde(default)]
    pub late: u64,
    /// Drop events that belong to no packet followed, beyond those that are kept: counted only. What was
    /// seen of packets does not suffer from it, so [`Loss::total`] is without them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub stray: u64,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl Loss {
    /// All events of packets that may have been missed.
    pub fn total(&self) -> u64 {
        self.ring_hop
            + self.ring_drop
            + self.backlog
            + self.undecodable
            + self.over_rate
            + self.late
    }

    /// Both together.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        Self {
            ring_hop: self.ring_hop + other.ring_hop,
            ring_drop: self.ring_drop + other.ring_drop,
            backlog: self.backlog + other.backlog,
            undecodable: self.undecodable + other.undecodable,
            over_rate: self.over_rate + other.over_rate,
            late: self.late + other.late,
            stray: self.stray + other.stray,
        }
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
    /// Nodes that could not be observed to the end.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unreachable: Vec<Unreachable>,
}

/// A node that could not be observed any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unreachable {
    /// Which.
    pub node: String,
    /// Kernel time until which it told everything, ns.
    pub since_ns: u64,
    /// Why.
    pub why: String,
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

    /// How many events were lost, as a clause; `None`: none.
    pub fn losses(&self) -> Option<String> {
        let lost = self.events_lost();
        let events = if lost == 1 { "1 event".to_owned() } else { format!("{lost} events") };
        let verb = if lost == 1 { "was" } else { "were" };
        let unread: Vec<&str> = self
            .loss
            .iter()
            .filter(|(_, loss)| loss.undecodable > 0)
            .map(|(node, _)| node.as_str())
            .collect();
        match lost {
            0 => None,
            _ if self.is_only_unread() => Some(format!(
                "{events} seen at {} could not be read (an invalid tunnel header, or cut off)",
                unread.join(", ")
            )),
            _ => Some(format!("{events} {verb} lost in observation")),
        }
    }

    /// Whether all losses are events that were seen and could not be read.
    pub fn is_only_unread(&self) -> bool {
        let lost = self.events_lost();
        lost > 0 && self.loss.iter().map(|(_, loss)| loss.undecodable).sum::<u64>() == lost
    }

    /// Kernel time from which a node of the path was not observed, ns.
    pub fn blind_ns(&self) -> Option<u64> {
        self.unreachable.iter().map(|u| u.since_ns).min()
    }

    /// Why a packet that was not seen may have been there nevertheless, as a clause.
    pub fn holes(&self) -> Option<String> {
        if let Some(losses) = self.losses() {
            return Some(losses);
        }
        if let Some(gone) = self.unreachable.first() {
            return Some(format!("node {} could not be observed to the end", gone.node));
        }
        let vanished = &self.vanished;
        (!vanished.is_empty()).then(|| format!("the trace lost sight of {}", vanished.join(", ")))
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
    /// TCP and UDP, where each attempt has a socket of its own: what became of the first 4096, in
    /// order of sending.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<Attempt>,
}

impl ProbeResult {
    /// Attempts that are told one by one: what they tell (which backend does not answer) is soon told,
    /// and results are sent from node to node.
    pub const MAX_ATTEMPTS: usize = 4096;
}

/// One connection attempt or datagram of the probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Local port that it left from; 0 when the kernel gave it none.
    pub port: u16,
    /// What became of it.
    pub outcome: AttemptOutcome,
}

/// What became of one attempt of the probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AttemptOutcome {
    /// A reply came: SYN-ACK, datagram.
    Answered,
    /// A refusal came: RST, port unreachable.
    Refused,
    /// Nothing came.
    Unanswered,
    /// The kernel did not send it, or an ICMP error other than a refusal came.
    Error,
}
