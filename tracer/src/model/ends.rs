//! Between whom packets go, and the addresses that stand for them on a part of the way.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// What an end is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EndKind {
    /// A pod, in a network namespace of its own.
    #[default]
    Pod,
    /// A node, or a pod that uses the network of its node: packets are the node's own.
    Node,
    /// An address of no node and no pod that is known: packets are followed up to the interface by
    /// which they leave the node that is named, and from there on when they come back.
    Outside,
}

impl EndKind {
    /// Whether it is a pod with a namespace of its own.
    pub fn is_pod(&self) -> bool {
        *self == Self::Pod
    }
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
    /// Inode of the pod's network namespace; of the node's where it is no pod.
    pub netns_inum: u32,
    /// What it is.
    #[serde(default, skip_serializing_if = "EndKind::is_pod")]
    pub kind: EndKind,
    /// The service through which it is addressed; `None` where packets carry its own address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<Service>,
}

impl End {
    /// Whether anything is there for packets to arrive at: not behind a service address that nothing
    /// translates, or that leads to an address which no pod has.
    pub fn exists(&self) -> bool {
        self.service.as_ref().is_none_or(|s| s.leads.translates() && !s.dead)
    }

    /// Whether it is beyond everything that is known.
    pub fn is_outside(&self) -> bool {
        self.kind == EndKind::Outside
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
    /// To one of several backends, which is not chosen yet where packets were seen last.
    Open,
}

impl Leads {
    /// Whether packets come to a backend behind it.
    pub fn translates(self) -> bool {
        !matches!(self, Self::Nowhere | Self::Open)
    }
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
