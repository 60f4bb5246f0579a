//! Synthetic events for tests: two nodes with VXLAN between them, and packets that cross them.

use std::net::IpAddr;

use crate::model::{
    Body, Direction, DropInfo, End, EndKind, Ethernet, Event, EventKind, Fragment, Gso, Hook, Ip,
    L4, Mac, Names, Neighbor, Observation, Outer, Packet, Point, Reading, Role, Station, StationId,
    Topology, Trace, VxlanInfo, tcp_flags,
};

use super::{Correlator, Limits};

/// Namespace of node A, of pod a, of the wire, of node B, of pod b, and of a pod off the path.
pub(crate) const NODE_A: u32 = 1;
pub(crate) const POD_A: u32 = 11;
pub(crate) const WIRE: u32 = 9;
pub(crate) const NODE_B: u32 = 2;
pub(crate) const POD_B: u32 = 22;
pub(crate) const BYSTANDER: u32 = 33;

/// Time between two hops, ns.
pub(crate) const STEP: u64 = 1_000;
/// When the traces of the tests are armed, ns.
pub(crate) const ARMED: u64 = 1_000_000;

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn mac(last: u8) -> Mac {
    Mac([2, 0, 0, 0, 0, last])
}

fn station(node: &str, pod: Option<&str>, netns: u32, name: &str, role: Role, at: u8) -> Station {
    Station {
        node: node.into(),
        pod: pod.map(Into::into),
        netns: format!("ns-{netns}"),
        netns_inum: netns,
        ifindex: u32::from(at) + 2,
        name: name.into(),
        role,
        mac: Some(mac(at)),
        mtu: 1450,
        up: true,
        addresses: Vec::new(),
        vxlan: (role == Role::Vxlan).then_some(VxlanInfo {
            vni: 1,
            port: 8472,
            local: None,
            lower_ifindex: None,
            learning: false,
        }),
        ethernet: true,
    }
}

fn end(name: &str, node: &str, pod: &str, ips: &[&str], netns: u32) -> Option<End> {
    Some(End {
        name: name.into(),
        node: node.into(),
        pod: Some(pod.into()),
        ips: ips.iter().map(|i| ip(i)).collect(),
        netns_inum: netns,
        kind: EndKind::default(),
        service: None,
    })
}

fn path(steps: &[(u16, Hook)]) -> Vec<Point> {
    steps.iter().map(|&(at, hook)| Point { station: StationId(at), hook }).collect()
}

fn reversed(path: &[Point]) -> Vec<Point> {
    let flip = |hook| if hook == Hook::Ingress { Hook::Egress } else { Hook::Ingress };
    path.iter().rev().map(|p| Point { station: p.station, hook: flip(p.hook) }).collect()
}

/// Pods on two nodes: twelve points each way, the wire among them.
pub(crate) fn cross_node() -> Topology {
    use Hook::{Egress, Ingress};
    let forward = path(&[
        (0, Egress),
        (1, Ingress),
        (2, Ingress),
        (3, Egress),
        (4, Egress),
        (5, Ingress),
        (6, Egress),
        (7, Ingress),
        (8, Ingress),
        (9, Egress),
        (10, Egress),
        (11, Ingress),
    ]);
    let names = [("10.10.0.2", "A.a.ip"), ("10.10.1.2", "B.b.ip"), ("192.168.10.11", "A.ens33.ip")];
    let mac_names = ["A.a", "A.vetha", "A.cni0", "A.flannel.1", "A.ens33"];
    Topology {
        src: end("A.a", "A", "a", &["10.10.0.2", "fd00:10:0::2"], POD_A),
        dst: end("B.b", "B", "b", &["10.10.1.2", "fd00:10:1::2"], POD_B),
        stations: vec![
            station("A", Some("a"), POD_A, "eth0", Role::Pod, 0),
            station("A", None, NODE_A, "vetha", Role::Veth, 1),
            station("A", None, NODE_A, "cni0", Role::Bridge, 2),
            station("A", None, NODE_A, "flannel.1", Role::Vxlan, 3),
            station("A", None, NODE_A, "ens33", Role::Physical, 4),
            station("wire", None, WIRE, "u1", Role::Wire, 5),
            station("wire", None, WIRE, "u2", Role::Wire, 6),
            station("B", None, NODE_B, "ens33", Role::Physical, 7),
            station("B", None, NODE_B, "flannel.1", Role::Vxlan, 8),
            station("B", None, NODE_B, "cni0", Role::Bridge, 9),
            station("B", None, NODE_B, "vethb", Role::Veth, 10),
            station("B", Some("b"), POD_B, "eth0", Role::Pod, 11),
        ],
        reply: reversed(&forward),
        forward,
        names: Names {
            ip: names.iter().map(|(a, n)| (ip(a), (*n).to_owned())).collect(),
            mac: (0..).zip(mac_names).map(|(at, n)| (mac(at), format!("{n}.mac"))).collect(),
        },
        vxlan_ports: vec![8472],
        gaps: Vec::new(),
        machines: Default::default(),
        aliases: Vec::new(),
        elsewhere: Vec::new(),
    }
}

/// Pods on one node: four points each way.
pub(crate) fn same_node() -> Topology {
    use Hook::{Egress, Ingress};
    let forward = path(&[(0, Egress), (1, Ingress), (2, Egress), (3, Ingress)]);
    Topology {
        src: end("A.a", "A", "a", &["10.10.0.2"], POD_A),
        dst: end("A.a2", "A", "a2", &["10.10.1.2"], POD_B),
        stations: vec![
            station("A", Some("a"), POD_A, "eth0", Role::Pod, 0),
            station("A", None, NODE_A, "vetha", Role::Veth, 1),
            station("A", None, NODE_A, "vetha2", Role::Veth, 2),
            station("A", Some("a2"), POD_B, "eth0", Role::Pod, 3),
        ],
        reply: reversed(&forward),
        forward,
        ..Topology::default()
    }
}

/// A packet as it leaves its pod, and the frame around it.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub ip: Ip,
    pub gso: Option<Gso>,
    pub skb: u64,
}

fn blank(direction: Direction, proto: u8, id: u32, payload_len: u32, l4: L4) -> Sample {
    let (src, dst) = match direction {
        Direction::Forward => ("10.10.0.2", "10.10.1.2"),
        Direction::Reply => ("10.10.1.2", "10.10.0.2"),
    };
    Sample {
        ip: Ip {
            src: ip(src),
            dst: ip(dst),
            proto,
            ttl: 64,
            id,
            fragment: None,
            dont_fragment: false,
            ecn: 0,
            payload_len,
            l4,
            payload_hash: Some(7),
        },
        gso: None,
        skb: 0xffff_0000_0000_0000 | u64::from(id) << 8,
    }
}

/// ICMP echo: a request forward, a reply back.
pub(crate) fn ping(direction: Direction, seq: u16, id: u32) -> Sample {
    let kind = if direction == Direction::Forward { 8 } else { 0 };
    blank(direction, 1, id, 64, L4::Icmp { kind, code: 0, id: 77, seq })
}

pub(crate) fn udp(direction: Direction, id: u32, payload: u32) -> Sample {
    blank(direction, 17, id, payload + 8, L4::Udp { sport: 5000, dport: 53, payload })
}

/// TCP with `payload` bytes; ports mirror with the direction.
pub(crate) fn tcp(direction: Direction, id: u32, seq: u32, flags: u8, payload: u32) -> Sample {
    let (sport, dport) = if direction == Direction::Forward { (40_000, 80) } else { (80, 40_000) };
    let l4 = L4::Tcp { sport, dport, seq, ack: 1, flags, window: 500, payload };
    let mut sample = blank(direction, 6, id, payload + 20, l4);
    if payload > 1448 {
        let segments = u16::try_from(payload.div_ceil(1448)).unwrap();
        sample.gso = Some(Gso { segments, size: 1448 });
    }
    sample
}

/// TCP data forward.
pub(crate) fn data(id: u32, seq: u32, payload: u32) -> Sample {
    tcp(Direction::Forward, id, seq, tcp_flags::ACK, payload)
}

/// Fragments of a datagram at these offsets, the last one ending at `total`.
pub(crate) fn fragments(whole: &Sample, offsets: &[u32], total: u32) -> Vec<Sample> {
    let ends = offsets.iter().skip(1).chain([&total]);
    offsets
        .iter()
        .zip(ends)
        .map(|(&offset, &end)| {
            let mut part = whole.clone();
            part.ip.fragment = Some(Fragment { offset, more: end != total });
            part.ip.payload_len = end - offset;
            part.skb += u64::from(offset);
            if offset > 0 {
                part.ip.l4 = L4::Other;
                part.ip.payload_hash = None;
            }
            part
        })
        .collect()
}

/// A drop with the stack that such a drop has.
pub(crate) fn info(reason: &str, function: &str, stack: &[&str]) -> DropInfo {
    DropInfo {
        code: 6,
        reason: reason.into(),
        function: function.into(),
        stack: stack.iter().map(|&f| f.to_owned()).collect(),
    }
}

/// The stack of a drop in netfilter's FORWARD hook.
pub(crate) const FORWARD_STACK: &[&str] =
    &["nft_do_chain", "nft_do_chain_ipv4", "nf_hook_slow", "ip_forward", "ip_rcv"];

/// Events, in the making.
pub(crate) struct Tape {
    pub topology: Topology,
    pub events: Vec<Event>,
}

impl Tape {
    pub fn new(topology: Topology) -> Self {
        Self { topology, events: Vec::new() }
    }

    /// A frame at a point, with the TTL and the tunnel that it has there.
    pub fn frame(&self, sample: &Sample, direction: Direction, point: Point) -> Packet {
        let station = self.topology.station(point.station);
        let mut ip = sample.ip.clone();
        let cross = self.topology.forward.len() > 4;
        let near: u16 = if direction == Direction::Forward { 2 } else { 9 };
        let at = point.station.0;
        let travelled = |limit: u16| if near == 2 { at > limit } else { at < limit };
        if cross {
            ip.ttl -=
                u8::from(travelled(near)) + u8::from(travelled(if near == 2 { 8 } else { 3 }));
        }
        let outer = matches!(station.role, Role::Physical | Role::Wire).then(|| Outer {
            eth: Some(Ethernet { src: mac(4), dst: mac(7) }),
            src: crate::correlate::testing::ip("192.168.10.11"),
            dst: crate::correlate::testing::ip("192.168.10.12"),
            ttl: 64,
            id: 0,
            fragment: None,
            udp_src: 44_444,
            udp_dst: 8472,
            vni: Some(1),
        });
        let eth = Some(Ethernet { src: station.mac.unwrap(), dst: mac(2) });
        Packet { eth, outer, body: Body::Ip(ip) }
    }

    /// One sighting.
    pub fn hop(&mut self, sample: &Sample, direction: Direction, point: Point, time_ns: u64) {
        let station = self.topology.station(point.station);
        let event = Event {
            time_ns,
            error_ns: 0,
            clock: Reading { machine: 0, ns: time_ns },
            station: Some(point.station),
            netns_inum: station.netns_inum,
            ifindex: station.ifindex,
            skb: sample.skb,
            len: sample.ip.payload_len + 34,
            gso: sample.gso,
            kind: EventKind::Hop(point.hook),
            packet: self.frame(sample, direction, point),
        };
        self.events.push(event);
    }

    /// Sightings at planned positions, `STEP` apart.
    pub fn walk(
        &mut self,
        sample: &Sample,
        direction: Direction,
        positions: impl IntoIterator<Item = usize>,
        mut time_ns: u64,
    ) -> u64 {
        for position in positions {
            let point = self.topology.path(direction)[position];
            self.hop(sample, direction, point, time_ns);
            time_ns += STEP;
        }
        time_ns
    }

    /// The whole way.
    pub fn cross(&mut self, sample: &Sample, direction: Direction, time_ns: u64) -> u64 {
        let points = self.topology.path(direction).len();
        self.walk(sample, direction, 0..points, time_ns)
    }

    /// A drop of a packet that looks as at a planned position.
    pub fn dropped(
        &mut self,
        sample: &Sample,
        direction: Direction,
        position: usize,
        netns_inum: u32,
        info: DropInfo,
        time_ns: u64,
    ) {
        let point = self.topology.path(direction)[position];
        let event = Event {
            time_ns,
            error_ns: 0,
            clock: Reading { machine: 0, ns: time_ns },
            station: None,
            netns_inum,
            ifindex: self.topology.station(point.station).ifindex,
            skb: sample.skb,
            len: 0,
            gso: sample.gso,
            kind: EventKind::Drop(Box::new(info)),
            packet: self.frame(sample, direction, point),
        };
        self.events.push(event);
    }

    /// An ICMP error about a packet, at a planned point of the direction that it travels in.
    pub fn error(
        &mut self,
        about: &Sample,
        from: &str,
        kind: u8,
        code: u8,
        at: Point,
        time_ns: u64,
    ) {
        let error = Ip {
            src: ip(from),
            dst: about.ip.src,
            proto: 1,
            id: 999,
            l4: L4::IcmpError {
                kind,
                code,
                mtu: None,
                quoted: Some(Box::new(about.ip.clone())),
                quoted_outer: false,
            },
            ..about.ip.clone()
        };
        let sample = Sample { ip: error, gso: None, skb: 1 };
        self.hop(&sample, Direction::Reply, at, time_ns);
    }

    /// Address resolution at a station, optionally answered.
    pub fn resolution(
        &mut self,
        at: Point,
        asker: &str,
        target: &str,
        answer: Option<Mac>,
        time_ns: u64,
    ) {
        let ask = Neighbor {
            request: true,
            sender_ip: ip(asker),
            sender_mac: Some(mac(0)),
            target_ip: ip(target),
        };
        let answered = answer.map(|mac| Neighbor {
            request: false,
            sender_ip: ip(target),
            sender_mac: Some(mac),
            target_ip: ip(asker),
        });
        for (neighbor, later) in [Some(ask), answered].into_iter().flatten().zip([0, STEP]) {
            let station = self.topology.station(at.station);
            self.events.push(Event {
                time_ns: time_ns + later,
                error_ns: 0,
                clock: Reading { machine: 0, ns: time_ns + later },
                station: Some(at.station),
                netns_inum: station.netns_inum,
                ifindex: station.ifindex,
                skb: 5,
                len: 42,
                gso: None,
                kind: EventKind::Hop(at.hook),
                packet: Packet { eth: None, outer: None, body: Body::Neighbor(neighbor) },
            });
        }
    }

    /// What the capture tells when nothing is wrong with it, ending well after the last event.
    pub fn observation(&self) -> Observation {
        let last = self.events.iter().map(|e| e.time_ns).max().unwrap_or(ARMED);
        Observation { armed_ns: ARMED, end_ns: last + 1_000_000_000, ..Observation::default() }
    }

    /// The trace of these events.
    pub fn trace(&self, observation: &Observation) -> Trace {
        self.trace_with(observation, Limits::default(), 7)
    }

    /// The same with limits, pushed in batches of a size.
    pub fn trace_with(&self, observation: &Observation, limits: Limits, batch: usize) -> Trace {
        let mut events = self.events.clone();
        events.sort_by_key(|event| event.time_ns);
        let mut correlator = Correlator::new(&self.topology, limits);
        for batch in events.chunks(batch) {
            correlator.push(batch.to_vec());
        }
        correlator.finish(observation)
    }
}
