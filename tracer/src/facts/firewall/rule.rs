//! Rules: what must hold, and what then happens.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::model::Mac;

/// Packets and bytes that met a rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counter {
    /// Packets.
    pub packets: u64,
    /// Bytes of network-layer packet.
    pub bytes: u64,
}

/// A rule: when every condition holds, `effects` and then `action` happen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirewallRule {
    /// The kernel's number for it, where there is one (nft).
    pub handle: Option<u64>,
    /// As its tool prints it: `-A INPUT -p udp -m udp --dport 8472 -j DROP`.
    pub text: String,
    /// Packets that met it; `None`: not counted.
    pub counter: Option<Counter>,
    /// What must hold.
    pub conditions: Vec<Condition>,
    /// What it does before `action`, without deciding: set a mark, not track.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub effects: Vec<Action>,
    /// What it does.
    pub action: Action,
}

/// One thing that must hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// It must *not* hold.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub invert: bool,
    /// What.
    pub what: Match,
}

impl Condition {
    /// Must hold.
    pub fn is(what: Match) -> Self {
        Self { invert: false, what }
    }
}

/// What a condition compares; several values: any of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Match {
    /// Input interface.
    Iif(Vec<NamePattern>),
    /// Output interface.
    Oif(Vec<NamePattern>),
    /// Bridge port that a bridged packet came in by.
    PhysdevIn(Vec<NamePattern>),
    /// Bridge port that a bridged packet leaves by.
    PhysdevOut(Vec<NamePattern>),
    /// Source address.
    Src(Vec<AddressRange>),
    /// Destination address.
    Dst(Vec<AddressRange>),
    /// IPv6 rather than IPv4.
    V6(bool),
    /// Ethernet protocol.
    EtherType(Vec<u16>),
    /// Source hardware address.
    EtherSrc(Vec<Mac>),
    /// Destination hardware address.
    EtherDst(Vec<Mac>),
    /// Layer-4 protocol number.
    Proto(Vec<u8>),
    /// Source port.
    Sport(Vec<PortRange>),
    /// Destination port.
    Dport(Vec<PortRange>),
    /// Source or destination port.
    Port(Vec<PortRange>),
    /// Conntrack state.
    CtState(Vec<CtState>),
    /// Any of these conntrack status bits (`IPS_*`,
    /// include/uapi/linux/netfilter/nf_conntrack_common.h).
    CtStatus(u32),
    /// `mark & mask == value`.
    Mark {
        /// Value.
        value: u32,
        /// Bits that count.
        mask: u32,
    },
    /// As `Mark`, for the mark of the connection.
    CtMark {
        /// Value.
        value: u32,
        /// Bits that count.
        mask: u32,
    },
    /// `flags & mask == value`, for the TCP flags byte (FIN is 1).
    TcpFlags {
        /// Value.
        value: u8,
        /// Bits that count.
        mask: u8,
    },
    /// ICMP type and, where given, code.
    Icmp {
        /// ICMPv6 rather than ICMP.
        v6: bool,
        /// Type and code.
        types: Vec<(u8, Option<u8>)>,
    },
    /// Kind of the source address as routing sees it: `LOCAL`, `UNICAST`, `BROADCAST`, …
    SrcType(Vec<String>),
    /// Kind of the destination address as routing sees it.
    DstType(Vec<String>),
    /// Addressed to: `host`, `broadcast`, `multicast`, `other`.
    PacketType(Vec<String>),
    /// A later fragment of an IPv4 packet.
    Fragment,
    /// Bytes of network-layer packet: from and to, both included.
    Length(Vec<(u32, u32)>),
    /// The packet is in an ipset: for every dimension of the set, whose part of the packet is
    /// looked up.
    IpSet {
        /// Name of the set.
        name: String,
        /// From the source (or else the destination), dimension by dimension.
        from_src: Vec<bool>,
    },
    /// The packet's address is in a list of `-m recent`.
    Recent(RecentMatch),
    /// All conditions of any of these alternatives: what a concatenation is compared with.
    AnyOf(Vec<Vec<Condition>>),
    /// Holds for some packets only, by rate or by chance: the text.
    Sometimes(String),
    /// Not understood: the text.
    Unknown(String),
}

/// What `-m recent --rcheck` (or `--update`, `--remove`) asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecentMatch {
    /// Name of the list.
    pub list: String,
    /// The destination address is looked up rather than the source.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_dst: bool,
    /// Bits of the address that count, where not all do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask: Option<IpAddr>,
    /// Seen in the last so many seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u32>,
    /// Seen at least so often.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hits: Option<u32>,
}

/// An interface name, or how names begin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamePattern {
    /// Name, or its beginning.
    pub name: String,
    /// Names that begin so.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub prefix: bool,
}

impl NamePattern {
    /// From a name that may end in `wildcard`.
    pub fn new(text: &str, wildcard: char) -> Self {
        match text.strip_suffix(wildcard) {
            Some(start) => Self { name: start.to_owned(), prefix: true },
            None => Self { name: text.to_owned(), prefix: false },
        }
    }

    /// Whether it means this interface.
    pub fn matches(&self, name: &str) -> bool {
        if self.prefix { name.starts_with(&self.name) } else { name == self.name }
    }
}

/// Addresses from `first` to `last`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressRange {
    /// First.
    pub first: IpAddr,
    /// Last.
    pub last: IpAddr,
}

impl AddressRange {
    /// Whether `ip` is one of them.
    pub fn contains(&self, ip: IpAddr) -> bool {
        ip.is_ipv4() == self.first.is_ipv4() && self.first <= ip && ip <= self.last
    }
}

impl From<IpNet> for AddressRange {
    fn from(net: IpNet) -> Self {
        Self { first: net.network(), last: net.broadcast() }
    }
}

impl From<IpAddr> for AddressRange {
    fn from(ip: IpAddr) -> Self {
        Self { first: ip, last: ip }
    }
}

/// Ports from `first` to `last`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRange {
    /// First.
    pub first: u16,
    /// Last.
    pub last: u16,
}

impl PortRange {
    /// Whether `port` is one of them.
    pub fn contains(&self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }
}

/// What conntrack thinks of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CtState {
    /// First of its connection.
    New,
    /// Of a connection seen in both directions.
    Established,
    /// About a known connection: an ICMP error, a helper's second connection.
    Related,
    /// Fits no connection.
    Invalid,
    /// Not looked at.
    Untracked,
    /// Of a connection whose source is translated.
    Snat,
    /// Of a connection whose destination is translated.
    Dnat,
}

/// What a rule does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Ends this base chain; chains after it at the same hook still see the packet.
    Accept,
    /// Drops.
    Drop,
    /// Drops and answers.
    Reject {
        /// With what, as the tool writes it: `icmp-port-unreachable`.
        with: String,
    },
    /// Goes on in another chain, and comes back.
    Jump(String),
    /// Goes on in another chain, and does not come back here.
    Goto(String),
    /// Goes back to the caller; in a base chain: the policy.
    Return,
    /// Goes on with the next rule: no verdict (count, log).
    Continue,
    /// Translates the source; ends the chain.
    Snat {
        /// To what, as the tool writes it.
        to: String,
        /// Ports are chosen at random.
        random: bool,
    },
    /// Translates the source to an address of the output interface; ends the chain.
    Masquerade {
        /// To these ports only.
        ports: Option<PortRange>,
        /// Ports are chosen at random.
        random: bool,
    },
    /// Translates the destination; ends the chain.
    Dnat {
        /// To what, as the tool writes it: `10.0.0.1:80`.
        to: String,
    },
    /// Translates the destination to this host; ends the chain.
    Redirect {
        /// To these ports.
        ports: Option<PortRange>,
    },
    /// Conntrack shall not look at it.
    NoTrack,
    /// `mark = (mark & !mask) ^ value`.
    SetMark {
        /// Value.
        value: u32,
        /// Bits cleared first.
        mask: u32,
    },
    /// Hands the packet to a program.
    Queue,
    /// The first choice whose conditions hold; none: goes on with the next rule.
    Choose(Vec<Choice>),
    /// Not understood: the text.
    Unknown(String),
}

/// One branch of [`Action::Choose`] (an entry of a verdict map).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    /// The entry as nft prints it, with its comment; empty where nobody named it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub text: String,
    /// The comment of the entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// What must hold.
    pub conditions: Vec<Condition>,
    /// What happens then.
    pub action: Action,
}
