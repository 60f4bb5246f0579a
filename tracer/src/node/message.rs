//! What nodes are asked and what they answer. Values only, all of them serde types: what crosses a
//! network is their bytes ([`to_bytes`], [`from_bytes`]).
//!
//! Times are CLOCK_MONOTONIC of the answering node, ns. Namespaces are named by their inode there;
//! [`super`] says when another machine's are renumbered.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Cause, Events};
use crate::facts::{NetnsFacts, RouteQuery};
use crate::kernel::{Filter, Options};
use crate::model::{Loss, Station};
use crate::probe::Probe;

/// Version of these messages. It changes when a peer with the version before could misunderstand
/// one.
pub const PROTOCOL: u32 = 1;

/// A feed is never silent for longer.
pub const HEARTBEAT: Duration = Duration::from_millis(50);

/// A message as bytes.
///
/// # Errors
/// When memory runs out; the messages themselves can always be written.
pub fn to_bytes<T: Serialize>(message: &T) -> io::Result<Vec<u8>> {
    Ok(serde_json::to_vec(message)?)
}

/// The message that bytes are. They may come from anywhere: nothing beyond their own size is
/// allocated for them.
///
/// # Errors
/// When they are not such a message.
pub fn from_bytes<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    Ok(serde_json::from_slice(bytes)?)
}

/// Who a node is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`PROTOCOL`] of the answering side.
    pub protocol: u32,
    /// Its version of podtrace.
    pub version: String,
    /// Kernel release (`uname -r`).
    pub kernel: String,
    /// Hardware architecture (`uname -m`).
    pub architecture: String,
    /// The kernel's id of this boot (`/proc/sys/kernel/random/boot_id`): equal for two nodes on one
    /// machine.
    pub boot_id: String,
    /// What its clock shows, ns …
    pub clock_ns: u64,
    /// … at this wall-clock time, RFC 3339.
    pub wall: String,
}

/// A namespace of the answering node.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NetnsRef {
    /// As a person would name it (`podtrace-A`, `/proc/12/ns/net`).
    pub name: String,
    /// Inode.
    pub inum: u32,
}

/// Which namespace is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Locate {
    /// A node's own: by a name under `/run/netns` or a path; `None`: the one that the answering
    /// program runs in.
    Node(Option<String>),
    /// A pod's.
    Pod {
        /// Its node's own namespace, which it must lead to where several have its address.
        node: u32,
        /// A name under `/run/netns` or a path; `None`: to be found from the addresses.
        netns: Option<String>,
        /// Addresses of the pod.
        ips: Vec<IpAddr>,
    },
    /// Whichever has this address.
    Address {
        /// The address.
        ip: IpAddr,
        /// Namespaces of nodes (names or paths). Where several have the address, one that is named
        /// here or below counts.
        nodes: Vec<String>,
        /// Namespaces of pods.
        pods: Vec<String>,
    },
}

/// A namespace that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Located {
    /// The namespace.
    pub netns: NetnsRef,
    /// The one of the node that it belongs to; itself where it is a node's.
    pub node: NetnsRef,
    /// Of a pod: its addresses, those that were asked for or else those in the namespace that mean
    /// something beyond one link or host, IPv4 first.
    pub ips: Vec<IpAddr>,
    /// Name of the host, where the node's namespace is the one that the answering program runs in
    /// and an address was asked for.
    #[serde(default)]
    pub host: Option<String>,
    /// An address was asked for, and only an interface that leads nowhere has it (`dummy`, loopback, or
    /// one that is down): other nodes may have it likewise, as they do addresses of services.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stand_in: bool,
}

/// How much of a namespace's state to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Depth {
    /// Only the answers to route queries.
    Answers,
    /// Links, addresses, neighbours, forwarding database, routes and rules too.
    Tables,
    /// Besides the tables, what decides on address translation: packet filters, tracked connections.
    Translations,
    /// Everything that is known how to read.
    Everything,
}

/// Network state to read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FactsRequest {
    /// Of these namespaces.
    pub spaces: Vec<SpaceRequest>,
    /// How much.
    pub depth: Depth,
    /// Addresses of the flow: tracked connections of others are left out.
    #[serde(default)]
    pub ends: Vec<IpAddr>,
    /// Learn under which ids each namespace knows those that were located by now, and these (names
    /// or paths; what does not open is not there).
    #[serde(default)]
    pub peers: Option<Vec<String>>,
}

/// A namespace to read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpaceRequest {
    /// Inode.
    pub netns: u32,
    /// Questions to its routing.
    #[serde(default)]
    pub queries: Vec<RouteQuery>,
}

/// What was read, in the order of the request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeFacts {
    /// One for each namespace that was asked for.
    pub spaces: Vec<SpaceAnswer>,
}

/// What was read of one namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SpaceAnswer {
    /// Its state, as deep as asked.
    Read(Box<NetnsFacts>),
    /// It could not be entered.
    Failed(Cause),
}

/// What to observe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptureRequest {
    /// Interfaces, all of the answering node, those that a packet crosses last behind the others'.
    pub stations: Vec<Station>,
    /// What to let through.
    pub filter: Filter,
    /// How.
    pub options: Options,
}

/// How a capture began.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// From then on everything was attached, ns.
    pub armed_ns: u64,
    /// Probes that cannot run there, each with the reason.
    pub disabled: Vec<String>,
    /// Stations that were gone already, by label.
    pub vanished: Vec<String>,
}

/// A piece of a capture.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Chunk {
    /// Whatever happened before this is in this chunk or in one before it, or is lost, ns.
    pub until_ns: u64,
    /// What happened, in nearly the order of time.
    #[serde(default, skip_serializing_if = "Events::is_empty")]
    pub events: Events,
    /// Losses since the capture began, whoever had to drop.
    #[serde(default)]
    pub loss: Loss,
    /// Stations that have vanished since the capture began, by label.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub vanished: Vec<String>,
    /// Why nothing more comes; `None`: more may come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<End>,
}

/// Why a capture ended at the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// The node's limit on the duration of a trace.
    Duration(Duration),
    /// Anything else, in words.
    Other(String),
}

/// Test traffic to send.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeRequest {
    /// From inside this namespace.
    pub netns: u32,
    /// What.
    pub probe: Probe,
}

/// A node's clock, read between two readings of the asker's. All CLOCK_MONOTONIC, ns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockSample {
    /// The asker's clock when it asked.
    pub asked_ns: u64,
    /// The node's clock when it answered.
    pub node_ns: u64,
    /// The asker's clock when the answer was there.
    pub answered_ns: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::RawEvent;
    use crate::model::{DropInfo, EventKind, Gso, Hook};

    fn chunk() -> Chunk {
        let hop = RawEvent {
            machine: 0,
            time_ns: 5,
            netns_inum: 4_026_531_840,
            ifindex: 3,
            skb: 0xffff_8880_1234_5600,
            len: 98,
            gso: Some(Gso { segments: 2, size: 49 }),
            kind: EventKind::Hop(Hook::Egress),
            l3_offset: 14,
            protocol: 0x0800,
            data: vec![1, 2, 255].into(),
        };
        let info = DropInfo {
            code: 6,
            reason: "NETFILTER_DROP".to_owned(),
            function: "nft_do_chain".to_owned(),
            stack: vec!["ip_forward".to_owned()],
        };
        let drop = RawEvent { kind: EventKind::Drop(Box::new(info)), gso: None, ..hop.clone() };
        Chunk { until_ns: 7, events: Events::Named(vec![hop, drop]), ..Chunk::default() }
    }

    #[test]
    fn events_survive_the_way() {
        let sent = chunk();
        let bytes = to_bytes(&sent).unwrap();
        let got: Chunk = from_bytes(&bytes).unwrap();
        assert_eq!((got.until_ns, got.events.named()), (7, sent.events.named()));
        let silent = to_bytes(&Chunk { until_ns: 9, ..Chunk::default() }).unwrap();
        assert!(from_bytes::<Chunk>(&silent).unwrap().events.is_empty());
    }

    #[test]
    fn events_beyond_the_bounds_are_refused() {
        let text = String::from_utf8(to_bytes(&chunk()).unwrap()).unwrap();
        let long = "x".repeat(10_000);
        for (sense, nonsense) in [
            ("0102ff", "0102fg"),
            ("NETFILTER_DROP", long.as_str()),
            (r#""hook":"egress","#, ""),
            (r#""if":3"#, r#""if":-3"#),
        ] {
            assert!(text.contains(sense), "{text}");
            let damaged = text.replacen(sense, nonsense, 1);
            assert!(from_bytes::<Chunk>(damaged.as_bytes()).is_err(), "{nonsense}");
        }
    }

    proptest::proptest! {
        #[test]
        fn damaged_messages_never_panic(at: usize, value: u8, cut: usize) {
            let mut bytes = to_bytes(&chunk()).unwrap();
            let n = bytes.len();
            bytes[at % n] = value;
            let _ = from_bytes::<Chunk>(&bytes[..=cut % n]);
            let _ = from_bytes::<Chunk>(&bytes);
            let _ = from_bytes::<FactsRequest>(&bytes);
        }
    }
}
