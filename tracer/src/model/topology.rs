//! Where the flow can pass: interfaces, planned paths, names.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{Alias, End, Mac};

/// Which way through an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Hook {
    /// Entering the host (receive).
    Ingress,
    /// Leaving the host (transmit).
    Egress,
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Hook::Ingress => "ingress",
            Hook::Egress => "egress",
        })
    }
}

/// What an interface is for on the pod-to-pod path; found from the kernel, never from its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The pod's own end of its veth pair.
    Pod,
    /// The node's end of a pod's veth pair.
    Veth,
    /// The bridge that the pods' veths are ports of.
    Bridge,
    /// A VXLAN device.
    Vxlan,
    /// A TUN device (flannel's udp backend).
    Tun,
    /// What leads to the other nodes.
    Physical,
    /// A port of what stands for the wire between nodes, where that can be seen (a lab).
    Wire,
    /// Anything else.
    Other,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Role::Pod => "pod",
            Role::Veth => "veth",
            Role::Bridge => "bridge",
            Role::Vxlan => "vxlan",
            Role::Tun => "tun",
            Role::Physical => "physical",
            Role::Wire => "wire",
            Role::Other => "other",
        })
    }
}

/// Request or answer, as seen from `--src`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// From `--src` to `--dst`.
    Forward,
    /// From `--dst` to `--src`.
    Reply,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Direction::Forward => "forward",
            Direction::Reply => "reply",
        })
    }
}

/// Index into [`Topology::stations`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StationId(pub u16);

/// VXLAN device attributes (`IFLA_VXLAN_*`, include/uapi/linux/if_link.h).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VxlanInfo {
    /// VXLAN network identifier.
    pub vni: u32,
    /// UDP destination port.
    pub port: u16,
    /// Local tunnel address, where set.
    pub local: Option<IpAddr>,
    /// ifindex of the lower device, where set.
    pub lower_ifindex: Option<u32>,
    /// Whether the device learns addresses from what it receives (flannel: no).
    pub learning: bool,
}

/// One network interface that is observed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Station {
    /// Node it belongs to (a pod's interface belongs to the pod's node).
    pub node: String,
    /// The pod whose namespace it is in; `None` in the node's own namespace.
    pub pod: Option<String>,
    /// Namespace, as a person would name it (`podtrace-A`, `/proc/12/ns/net`).
    pub netns: String,
    /// Inode of the namespace: its identity in the kernel.
    pub netns_inum: u32,
    /// Interface index in that namespace.
    pub ifindex: u32,
    /// Interface name.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// Hardware address; `None` without link layer (TUN).
    pub mac: Option<Mac>,
    /// Bytes of network-layer packet that fit.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
    /// Addresses with prefix lengths.
    pub addresses: Vec<IpNet>,
    /// `Some` for a VXLAN device.
    pub vxlan: Option<VxlanInfo>,
    /// Frames carry an Ethernet header here (false for TUN).
    pub ethernet: bool,
}

impl Station {
    /// `A.cni0`, `A.a.eth0`: the name used in messages.
    pub fn label(&self) -> String {
        match &self.pod {
            Some(pod) => format!("{}.{}.{}", self.node, pod, self.name),
            None => format!("{}.{}", self.node, self.name),
        }
    }
}

/// One step of a planned or observed path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Point {
    /// Which interface.
    pub station: StationId,
    /// Which way.
    pub hook: Hook,
}

/// Everything known about where the flow can pass: what to attach to, in which order a healthy
/// packet crosses it, and what the addresses are called.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Topology {
    /// `--src`.
    pub src: Option<End>,
    /// `--dst`.
    pub dst: Option<End>,
    /// Every observed interface.
    pub stations: Vec<Station>,
    /// The way a packet from `--src` to `--dst` should take.
    pub forward: Vec<Point>,
    /// The way back.
    pub reply: Vec<Point>,
    /// Names of addresses.
    pub names: Names,
    /// UDP ports of the VXLAN devices on the path.
    pub vxlan_ports: Vec<u16>,
    /// Addresses that stand for those of the ends on a part of the way.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<Alias>,
    /// Addresses that are not followed, to which packets for [`Self::aliases`] may be sent instead.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub elsewhere: Vec<IpAddr>,
    /// Machines of nodes that are not on the one that podtrace runs on, which is 0; numbered as in
    /// [`super::Reading`].
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub machines: BTreeMap<String, u16>,
    /// What could not be found out, one line each.
    pub gaps: Vec<String>,
}

impl Topology {
    /// The station behind an id of this topology.
    pub fn station(&self, id: StationId) -> &Station {
        &self.stations[usize::from(id.0)]
    }

    /// The station with this interface index in this namespace.
    pub fn find(&self, netns_inum: u32, ifindex: u32) -> Option<StationId> {
        self.stations
            .iter()
            .position(|s| s.netns_inum == netns_inum && s.ifindex == ifindex)
            .and_then(|i| u16::try_from(i).ok())
            .map(StationId)
    }

    /// Number of the machine that a node is on.
    pub fn machine(&self, node: &str) -> u16 {
        self.machines.get(node).copied().unwrap_or(0)
    }

    /// The planned path of a direction.
    pub fn path(&self, direction: Direction) -> &[Point] {
        match direction {
            Direction::Forward => &self.forward,
            Direction::Reply => &self.reply,
        }
    }

    /// Node a namespace belongs to and the pod, if it is a pod's.
    pub fn owner(&self, netns_inum: u32) -> Option<(&str, Option<&str>)> {
        self.stations
            .iter()
            .find(|s| s.netns_inum == netns_inum)
            .map(|s| (s.node.as_str(), s.pod.as_deref()))
    }
}

/// Names of the addresses on the path: `A.a.ip`, `A.cni0.mac`, `B.ens33.ip`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Names {
    /// By network address.
    pub ip: HashMap<IpAddr, String>,
    /// By hardware address.
    pub mac: HashMap<Mac, String>,
}

impl Names {
    /// Name of a network address.
    pub fn ip(&self, ip: &IpAddr) -> Option<&str> {
        self.ip.get(ip).map(String::as_str)
    }
    /// Name of a hardware address.
    pub fn mac(&self, mac: &Mac) -> Option<&str> {
        if *mac == Mac::BROADCAST {
            return Some("broadcast");
        }
        self.mac.get(mac).map(String::as_str)
    }
}
