//! Hand-made facts of a two-node cluster, as the kernel would give them.

use std::net::IpAddr;

use crate::facts::*;
use crate::model::{End, EndKind, Mac, VxlanInfo};

/// Inodes of the namespaces.
pub const NODE: [u32; 2] = [100, 200];
pub const POD: [u32; 2] = [101, 201];
pub const NEIGHBOR: u32 = 102;
pub const WIRE: u32 = 300;

/// Interface indexes on a node.
pub const PHYSICAL: u32 = 2;
pub const BRIDGE: u32 = 3;
pub const VETH: u32 = 4;
pub const VETH2: u32 = 5;
pub const VXLAN: u32 = 6;
pub const VXLAN6: u32 = 7;
/// Interface index in a pod.
pub const ETH: u32 = 2;

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub fn mac(text: &str) -> Mac {
    text.parse().unwrap()
}

/// What differs from the ordinary cluster.
#[derive(Clone)]
pub struct Shape {
    pub bridge: &'static str,
    pub vxlan: &'static str,
    pub physical: &'static str,
    pub port: u16,
    pub tunnel: bool,
    pub wire: bool,
    /// A second VXLAN device, for IPv6.
    pub vxlan6: bool,
    pub pod_bridge: bool,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            bridge: "cni0",
            vxlan: "flannel.1",
            physical: "ens33",
            port: 8472,
            tunnel: true,
            wire: true,
            vxlan6: false,
            pod_bridge: true,
        }
    }
}

fn ether(index: u32, name: &str, kind: Option<&str>, mac: Mac) -> Link {
    Link {
        index,
        name: name.to_owned(),
        kind: kind.map(str::to_owned),
        arphrd: 1,
        mac: Some(mac),
        mtu: 1450,
        up: true,
        lower_up: true,
        oper_state: "up".to_owned(),
        ..Link::default()
    }
}

fn pair(index: u32, name: &str, mac: Mac, peer: u32, nsid: i32) -> Link {
    Link { linked: Some(peer), linked_nsid: Some(nsid), ..ether(index, name, Some("veth"), mac) }
}

fn loopback() -> Link {
    Link { loopback: true, up: true, ..Link::default() }
}

pub fn address(ifindex: u32, net: &str) -> Address {
    Address { ifindex, net: net.parse().unwrap(), tentative: false }
}

pub fn found(query: RouteQuery, oif: u32, gateway: Option<&str>) -> RouteAnswer {
    let hit =
        RouteHit { oif: Some(oif), gateway: gateway.map(ip), table: 254, ..Default::default() };
    RouteAnswer { query, outcome: RouteOutcome::Found(hit) }
}

pub fn failed(query: RouteQuery) -> RouteAnswer {
    let message = "Network is unreachable".to_owned();
    RouteAnswer { query, outcome: RouteOutcome::Failed { errno: 101, message } }
}

fn forwarded(dst: &str, src: &str, iif: u32) -> RouteQuery {
    RouteQuery { dst: ip(dst), src: Some(ip(src)), iif: Some(iif), oif: None }
}

fn pod(n: usize) -> Space {
    let facts = NetnsFacts {
        name: format!("pod{n}"),
        inum: POD[n],
        links: vec![loopback(), pair(ETH, "eth0", mac(&format!("02:aa:00:00:00:0{n}")), VETH, 0)],
        addresses: vec![
            address(ETH, &format!("10.10.{n}.2/24")),
            address(ETH, &format!("fd00:10:{n}::2/64")),
            address(ETH, &format!("fe80::aa:{n}/64")),
        ],
        answers: vec![found(
            RouteQuery::to(ip(&format!("10.10.{}.2", 1 - n))),
            ETH,
            Some(&format!("10.10.{n}.1")),
        )],
        nsids: [(0, NODE[n])].into(),
        ..Default::default()
    };
    let ips = vec![ip(&format!("10.10.{n}.2")), ip(&format!("fd00:10:{n}::2"))];
    let name = ["a", "b"][n].to_owned();
    Space { node: ["A", "B"][n].to_owned(), pod: Some(name), kind: SpaceKind::Pod, ips, facts }
}

fn node(n: usize, shape: &Shape) -> Space {
    let o = 1 - n;
    let m = |kind: &str| mac(&format!("02:{kind}:00:00:00:0{n}"));
    let mut facts = NetnsFacts {
        name: format!("node{n}"),
        inum: NODE[n],
        links: vec![loopback(), pair(PHYSICAL, shape.physical, m("e3"), 10 + n as u32, 2)],
        addresses: vec![address(PHYSICAL, &format!("192.168.10.1{n}/24"))],
        answers: vec![found(RouteQuery::to(ip(&format!("192.168.10.1{o}"))), PHYSICAL, None)],
        nsids: [(0, POD[n]), (2, if shape.wire { WIRE } else { NODE[o] })].into(),
        ..Default::default()
    };
    if !shape.wire {
        facts.links[1].linked = Some(PHYSICAL);
    }
    let entry = if shape.pod_bridge {
        // As the kernel does it: the bridge takes the address of its lowest port.
        facts.links.push(ether(BRIDGE, shape.bridge, Some("bridge"), m("4e")));
        facts.addresses.push(address(BRIDGE, &format!("10.10.{n}.1/24")));
        facts.addresses.push(address(BRIDGE, &format!("fd00:10:{n}::1/64")));
        BRIDGE
    } else {
        facts.addresses.push(address(VETH, &format!("10.10.{n}.1/32")));
        VETH
    };
    let master = shape.pod_bridge.then_some(BRIDGE);
    facts.links.push(Link { master, ..pair(VETH, "vethabc", m("4e"), ETH, 0) });
    // A neighbour pod's, in a namespace that is not looked at.
    facts.links.push(Link { master, ..pair(VETH2, "vethdef", m("4f"), ETH, 1) });

    let (near4, far4) = (format!("10.10.{n}.2"), format!("10.10.{o}.2"));
    let (near6, far6) = (format!("fd00:10:{n}::2"), format!("fd00:10:{o}::2"));
    facts.answers.push(found(RouteQuery::to(ip(&near4)), entry, None));
    facts.answers.push(found(RouteQuery::to(ip(&near6)), entry, None));
    let mut tunnel = |index: u32, name: &str, v6: bool, far: &str, near: &str| {
        let prefix = if v6 { "fd00:192::1" } else { "192.168.10.1" };
        let hop = if v6 { format!("fd00:10:{o}::") } else { format!("10.10.{o}.0") };
        let own = if v6 { format!("fd00:10:{n}::/128") } else { format!("10.10.{n}.0/32") };
        let vtep = mac(&format!("02:f{}:00:00:00:0{o}", index % 10));
        let local = ip(&format!("{prefix}{n}"));
        let remote = ip(&format!("{prefix}{o}"));
        let info = VxlanInfo {
            vni: 1,
            port: shape.port,
            local: Some(local),
            lower_ifindex: Some(PHYSICAL),
            learning: false,
        };
        let own_mac = mac(&format!("02:f{}:00:00:00:0{n}", index % 10));
        facts.links.push(Link {
            linked: Some(PHYSICAL),
            vxlan: Some(info),
            ..ether(index, name, Some("vxlan"), own_mac)
        });
        facts.addresses.push(address(index, &own));
        facts.neighbors.push(NeighborEntry {
            ifindex: index,
            ip: ip(&hop),
            mac: Some(vtep),
            state: NeighborState::Permanent,
        });
        facts.fdb.push(FdbEntry {
            ifindex: index,
            mac: vtep,
            master: None,
            dst: Some(remote),
            via: None,
            vni: None,
            port: None,
            own: true,
            permanent: true,
        });
        facts.answers.push(found(forwarded(far, near, entry), index, Some(&hop)));
        facts.answers.push(found(RouteQuery::to(ip(far)), index, Some(&hop)));
        let outer = RouteQuery { dst: remote, src: Some(local), iif: None, oif: None };
        facts.answers.push(found(outer, PHYSICAL, None));
    };
    if shape.tunnel {
        tunnel(VXLAN, shape.vxlan, false, &far4, &near4);
        if shape.vxlan6 {
            tunnel(VXLAN6, "flannel-v6.1", true, &far6, &near6);
            facts.addresses.push(address(PHYSICAL, &format!("fd00:192::1{n}/64")));
        }
    } else {
        let via = format!("192.168.10.1{o}");
        facts.answers.push(found(forwarded(&far4, &near4, entry), PHYSICAL, Some(&via)));
        facts.answers.push(found(RouteQuery::to(ip(&far4)), PHYSICAL, Some(&via)));
    }
    Space {
        node: ["A", "B"][n].to_owned(),
        pod: None,
        kind: SpaceKind::Node,
        ips: Vec::new(),
        facts,
    }
}

fn wire() -> Space {
    let facts = NetnsFacts {
        name: "switch".to_owned(),
        inum: WIRE,
        links: vec![
            ether(2, "sw", Some("bridge"), mac("02:11:00:00:00:09")),
            Link { master: Some(2), ..pair(10, "u1", mac("02:11:00:00:00:01"), PHYSICAL, 0) },
            Link { master: Some(2), ..pair(11, "u2", mac("02:11:00:00:00:02"), PHYSICAL, 1) },
            // To a node that is not part of the trace.
            Link { master: Some(2), ..pair(12, "u3", mac("02:11:00:00:00:03"), PHYSICAL, 2) },
        ],
        nsids: [(0, NODE[0]), (1, NODE[1])].into(),
        ..Default::default()
    };
    Space { node: "wire".to_owned(), pod: None, kind: SpaceKind::Wire, ips: Vec::new(), facts }
}

fn end(node: &str, pod: &str, ips: &[&str], netns_inum: u32) -> End {
    End {
        name: format!("{node}.{pod}"),
        node: node.to_owned(),
        pod: Some(pod.to_owned()),
        ips: ips.iter().map(|text| ip(text)).collect(),
        netns_inum,
        kind: EndKind::default(),
        service: None,
    }
}

/// Pod a on node A, pod b on node B.
pub fn two_nodes(shape: &Shape) -> PathFacts {
    let mut spaces = vec![node(0, shape), pod(0), node(1, shape), pod(1)];
    if shape.wire {
        spaces.push(wire());
    }
    PathFacts {
        src: end("A", "a", &["10.10.0.2", "fd00:10:0::2"], POD[0]),
        dst: end("B", "b", &["10.10.1.2", "fd00:10:1::2"], POD[1]),
        backends: Vec::new(),
        spaces: spaces.into(),
        pods: vec![KnownPod {
            node: "A".to_owned(),
            pod: "a2".to_owned(),
            ips: vec![ip("10.10.0.3")],
        }],
        gaps: Vec::new(),
    }
}

/// Pods a and a2 on node A; `through_gateway`: a reaches a2 only by its gateway.
pub fn one_node(through_gateway: bool) -> PathFacts {
    let mut facts = two_nodes(&Shape::default());
    facts.spaces.truncate(2);
    let gateway = through_gateway.then_some("10.10.0.1");
    let [own, other] = [ip("10.10.0.2"), ip("10.10.0.3")];
    let mut second = facts.spaces[1].clone();
    facts.spaces[0].facts.nsids.insert(1, NEIGHBOR);
    facts.spaces[1].facts.answers = vec![found(RouteQuery::to(other), ETH, gateway)];
    second.pod = Some("a2".to_owned());
    second.ips = vec![other];
    second.facts.inum = NEIGHBOR;
    second.facts.links[1].linked = Some(VETH2);
    second.facts.links[1].mac = Some(mac("02:aa:00:00:00:09"));
    second.facts.addresses = vec![address(ETH, "10.10.0.3/24")];
    second.facts.answers = vec![found(RouteQuery::to(own), ETH, gateway)];
    facts.spaces.push(second);
    facts.dst = end("A", "a2", &["10.10.0.3"], NEIGHBOR);
    facts.pods.clear();
    facts
}
