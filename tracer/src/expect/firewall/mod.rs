//! What a namespace's packet filters do with a packet, in the kernel's own order. Pure.
//!
//! At a hook every base chain runs, by priority, whichever tool wrote it; an accept in one does
//! not spare the packet the next. What is not known about the packet, and conditions that are not
//! understood, are neither true nor false: then all that may decide is listed.

mod cost;
mod evaluate;
mod matching;
mod meaning;
mod sets;
mod suspects;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

pub use evaluate::evaluate;
pub use matching::Holds;
pub use meaning::{
    Meaning, Owner, ServicePort, meaning, remedy, service_ports, untranslated, wrong_port,
};
pub use suspects::{Suspect, suspects};

use crate::expect::Family;
use crate::facts::firewall::{
    Backend, Choice, Counter, CtState, FirewallRule, NfHook, TableFamily,
};
use crate::model::Mac;

/// A packet as a hook sees it. `None`: not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PacketView {
    /// Source.
    pub src: IpAddr,
    /// Destination.
    pub dst: IpAddr,
    /// Layer-4 protocol number.
    pub proto: u8,
    /// Source port.
    pub sport: Option<u16>,
    /// Destination port.
    pub dport: Option<u16>,
    /// ICMP type and code.
    pub icmp: Option<(u8, u8)>,
    /// TCP flags byte.
    pub tcp_flags: Option<u8>,
    /// Interface that it came in by; empty: none, the host sends it.
    pub iif: Option<String>,
    /// Interface that it leaves by; empty: none yet.
    pub oif: Option<String>,
    /// Bridge port that it came in by; empty: none.
    pub port_in: Option<String>,
    /// Bridge port that it leaves by; empty: none.
    pub port_out: Option<String>,
    /// Source hardware address.
    pub ether_src: Option<Mac>,
    /// Destination hardware address.
    pub ether_dst: Option<Mac>,
    /// What conntrack makes of it.
    pub ct: Option<Vec<CtState>>,
    /// Mark.
    pub mark: Option<u32>,
    /// Mark of the connection.
    pub ct_mark: Option<u32>,
    /// Bytes of network-layer packet.
    pub length: Option<u32>,
    /// A later fragment.
    pub fragment: Option<bool>,
}

impl PacketView {
    /// Of a protocol between two addresses; of the rest nothing is known.
    pub fn new(src: IpAddr, dst: IpAddr, proto: u8) -> Self {
        Self {
            src,
            dst,
            proto,
            sport: None,
            dport: None,
            icmp: None,
            tcp_flags: None,
            iif: None,
            oif: None,
            port_in: None,
            port_out: None,
            ether_src: None,
            ether_dst: None,
            ct: None,
            mark: None,
            ct_mark: None,
            length: None,
            fragment: None,
        }
    }

    /// IP version.
    pub fn family(&self) -> Family {
        Family::of(&self.dst)
    }

    /// The tables that see it at the IP hooks.
    pub fn tables(&self) -> TableFamily {
        match self.family() {
            Family::V4 => TableFamily::Ip,
            Family::V6 => TableFamily::Ip6,
        }
    }
}

/// What a rule or policy does with the packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Goes on to the next base chain.
    Accept,
    /// Ends it silently.
    Drop,
    /// Ends it and says so: with what.
    Reject(String),
    /// Translates the source, and accepts.
    Snat(String),
    /// Translates the destination, and accepts.
    Dnat(String),
    /// Hands it to a program, which may do anything.
    Queue,
    /// Not understood: the text.
    Unknown(String),
}

impl Verdict {
    /// The packet goes no further.
    pub fn ends(&self) -> bool {
        matches!(self, Self::Drop | Self::Reject(_))
    }
}

/// A rule, and where to find it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleRef {
    /// Position in its chain, from 1.
    pub position: u32,
    /// The kernel's number for it (nft).
    pub handle: Option<u64>,
    /// As its tool prints it.
    pub text: String,
    /// Packets that met it; `None`: not counted.
    pub counter: Option<Counter>,
}

impl RuleRef {
    fn new(index: usize, rule: &FirewallRule) -> Self {
        Self {
            position: u32::try_from(index + 1).unwrap_or(u32::MAX),
            handle: rule.handle,
            text: rule.text.clone(),
            counter: rule.counter,
        }
    }
}

/// An entry of a map that was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element {
    /// As nft prints it, with its comment.
    pub text: String,
    /// Its comment.
    pub comment: Option<String>,
}

impl From<&Choice> for Element {
    fn from(choice: &Choice) -> Self {
        Self { text: choice.text.clone(), comment: choice.comment.clone() }
    }
}

/// A rule that sends packets on to another chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Via {
    /// Chain of the rule.
    pub chain: String,
    /// The rule, as its tool prints it.
    pub rule: String,
    /// The entry of its map that was chosen.
    pub element: Option<Element>,
}

/// What decides in a base chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whose table.
    pub backend: Backend,
    /// Which packets the table sees.
    pub family: TableFamily,
    /// Table.
    pub table: String,
    /// Chain of the rule, or the base chain whose policy it is.
    pub chain: String,
    /// Hook.
    pub hook: NfHook,
    /// The rule; `None`: the base chain's policy.
    pub rule: Option<RuleRef>,
    /// The entry of the rule's map that was chosen.
    pub element: Option<Element>,
    /// The rules that lead from the base chain to this one; empty where nobody followed them.
    pub via: Vec<Via>,
    /// What it does.
    pub verdict: Verdict,
    /// For which packets of this kind.
    pub holds: Holds,
    /// Conditions that could not be judged.
    pub unclear: Vec<String>,
}

impl Decision {
    /// `table filter, chain FORWARD: -A FORWARD -j DROP` or `… policy drop`.
    pub fn describe(&self) -> String {
        let family = match (self.backend, self.family) {
            // The command says it already.
            (Backend::Nft, family) => format!("{} ", family.name()),
            (_, TableFamily::Ip6) => "ip6 ".to_owned(),
            _ => String::new(),
        };
        let what = match (&self.rule, &self.verdict) {
            (Some(rule), _) => rule.text.as_str(),
            (None, Verdict::Unknown(why)) => why.as_str(),
            (None, _) => "policy drop",
        };
        let backend = self.backend.name();
        let element = self.element().filter(|e| !e.text.is_empty());
        let element = element.map_or_else(String::new, |e| format!(" (element {})", e.text));
        format!("{backend} table {family}{}, chain {}: {what}{element}", self.table, self.chain)
    }

    /// The entry of a map by which the packet came to its end: that of the rule itself, or of one
    /// that led there.
    pub fn element(&self) -> Option<&Element> {
        let led = || self.via.iter().rev().find_map(|via| via.element.as_ref());
        self.element.as_ref().or_else(led)
    }
}

/// What the chains of a hook do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evaluation {
    /// What may decide, in order; behind the first certain end nothing.
    pub decisions: Vec<Decision>,
    /// Whether the packet ends here.
    pub ends: Holds,
    /// The packet behind the hook: marks set, connection tracking declined.
    pub packet: PacketView,
}

impl Evaluation {
    /// The decisions that end the packet, or may.
    pub fn enders(&self) -> impl Iterator<Item = &Decision> {
        self.decisions.iter().filter(|d| d.verdict.ends())
    }
}
