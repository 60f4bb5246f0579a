//! Reports made by hand, for the tests of every format.

use std::collections::BTreeMap;

use crate::model::{Direction, Hook, Loss, Outcome, ProbeResult, Role};
use crate::report::*;

use Hook::{Egress, Ingress};

/// An interface on the path: node, pod, name, role, hook.
type Stop = (&'static str, Option<&'static str>, &'static str, Role, Hook);

const FORWARD: [Stop; 12] = [
    ("A", Some("a"), "eth0", Role::Pod, Egress),
    ("A", None, "veth3f9a1c", Role::Veth, Ingress),
    ("A", None, "cni0", Role::Bridge, Ingress),
    ("A", None, "flannel.1", Role::Vxlan, Egress),
    ("A", None, "ens33", Role::Physical, Egress),
    ("switch", None, "p1", Role::Wire, Ingress),
    ("switch", None, "p2", Role::Wire, Egress),
    ("B", None, "ens33", Role::Physical, Ingress),
    ("B", None, "flannel.1", Role::Vxlan, Ingress),
    ("B", None, "cni0", Role::Bridge, Egress),
    ("B", None, "veth77b2e0", Role::Veth, Egress),
    ("B", Some("b"), "eth0", Role::Pod, Ingress),
];

const REPLY: [Stop; 12] = [
    ("B", Some("b"), "eth0", Role::Pod, Egress),
    ("B", None, "veth77b2e0", Role::Veth, Ingress),
    ("B", None, "cni0", Role::Bridge, Ingress),
    ("B", None, "flannel.1", Role::Vxlan, Egress),
    ("B", None, "ens33", Role::Physical, Egress),
    ("switch", None, "p2", Role::Wire, Ingress),
    ("switch", None, "p1", Role::Wire, Egress),
    ("A", None, "ens33", Role::Physical, Ingress),
    ("A", None, "flannel.1", Role::Vxlan, Ingress),
    ("A", None, "cni0", Role::Bridge, Egress),
    ("A", None, "veth3f9a1c", Role::Veth, Egress),
    ("A", Some("a"), "eth0", Role::Pod, Ingress),
];

/// Addresses of a family: pods, and the names of all.
struct Family {
    a: &'static str,
    b: &'static str,
    underlay: [&'static str; 2],
    proto: &'static str,
    request: u8,
    reply: u8,
}

const V4: Family = Family {
    a: "10.10.0.2",
    b: "10.10.1.2",
    underlay: ["192.168.10.11", "192.168.10.12"],
    proto: "icmp",
    request: 8,
    reply: 0,
};
const V6: Family = Family {
    a: "fd00:10:a000:1001:5054:ff:fe12:3456",
    b: "fd00:10:b000:2002:5054:ff:fe65:4321",
    underlay: ["fd00:192:168:10::11", "fd00:192:168:10::12"],
    proto: "icmpv6",
    request: 128,
    reply: 129,
};

fn mac(owner: &str) -> String {
    match owner {
        "A.a" => "5a:11:4c:00:0a:02",
        "A.cni0" => "5a:11:4c:00:0a:01",
        "A.flannel.1" => "66:1d:0e:aa:00:01",
        "A.ens33" => "52:54:00:0a:00:0b",
        "B.b" => "5a:11:4c:00:0b:02",
        "B.cni0" => "5a:11:4c:00:0b:01",
        "B.flannel.1" => "66:1d:0e:bb:00:01",
        "B.ens33" => "52:54:00:0b:00:0c",
        _ => "02:00:00:00:00:99",
    }
    .to_owned()
}

fn names(family: &Family) -> BTreeMap<String, String> {
    let macs =
        ["A.a", "A.cni0", "A.flannel.1", "A.ens33", "B.b", "B.cni0", "B.flannel.1", "B.ens33"];
    let ips = [
        (family.a, "A.a"),
        (family.b, "B.b"),
        (family.underlay[0], "A.ens33"),
        (family.underlay[1], "B.ens33"),
    ];
    let macs = macs.iter().map(|owner| (mac(owner), format!("{owner}.mac")));
    macs.chain(ips.iter().map(|(ip, owner)| ((*ip).to_owned(), format!("{owner}.ip")))).collect()
}

fn point(stop: &Stop) -> PointReport {
    let (node, pod, interface, role, hook) = *stop;
    PointReport {
        node: node.into(),
        pod: pod.map(Into::into),
        interface: interface.into(),
        role,
        hook,
    }
}

/// The hops of an echo request or its reply, with headers as the kernel would show them.
fn hops(stops: &[Stop], family: &Family, direction: Direction, seq: u16) -> Vec<HopReport> {
    let forward = direction == Direction::Forward;
    let (src, dst) = if forward { (family.a, family.b) } else { (family.b, family.a) };
    let (near, far) = if forward { ("A", "B") } else { ("B", "A") };
    let (from, to) = if forward { ("A.a", "B.b") } else { ("B.b", "A.a") };
    let mut time = 0;
    let mut before: Option<(u8, bool)> = None;
    let mut result = Vec::new();
    for (i, stop) in stops.iter().enumerate() {
        let (node, _, _, role, _) = *stop;
        let far_side = node == far || stops.len() < 12 && i > 2;
        let wrapped = matches!(role, Role::Physical | Role::Wire);
        let local = matches!(role, Role::Pod | Role::Veth | Role::Bridge);
        let routed = stops.len() == 12;
        let ttl = match (local, far_side) {
            (true, false) => 64,
            (true, true) if routed => 62,
            (true, true) => 64,
            (false, _) => 63,
        };
        let (src_mac, dst_mac) = match (local, far_side) {
            _ if !routed => (mac(from), mac("A.cni0").replace("0a:01", "0a:03")),
            (true, false) => (mac(from), mac(&format!("{near}.cni0"))),
            (true, true) => (mac(&format!("{far}.cni0")), mac(to)),
            (false, _) => (mac(&format!("{near}.flannel.1")), mac(&format!("{far}.flannel.1"))),
        };
        let delta = if i == 0 { 0 } else { [1_210, 3_480, 12_300, 850, 26_900][i % 5] };
        time += delta;
        let mut changes = Vec::new();
        if let Some((last_ttl, last_wrapped)) = before {
            if last_ttl != ttl {
                changes.push(format!("TTL {last_ttl} → {ttl}"));
                let who = if far_side {
                    format!("{far}.flannel.1.mac → {to}.mac")
                } else {
                    format!("{near}.cni0.mac → {far}.flannel.1.mac")
                };
                changes.push(format!("dst MAC {who}"));
            }
            match (last_wrapped, wrapped) {
                (false, true) => changes.push("VXLAN VNI 1".into()),
                (true, false) => changes.push("VXLAN removed".into()),
                _ => {}
            }
        }
        before = Some((ttl, wrapped));
        result.push(HopReport {
            point: point(stop),
            time_ns: time,
            delta_ns: delta,
            length: if wrapped { 148 } else { 98 },
            skbs: 1,
            segments: 1,
            bytes: 56,
            inner: HeaderReport {
                src_mac: Some(src_mac),
                dst_mac: Some(dst_mac),
                src_ip: src.into(),
                dst_ip: dst.into(),
                proto: family.proto.into(),
                ttl,
                id: 4711,
                icmp_type: Some(if forward { family.request } else { family.reply }),
                icmp_code: Some(0),
                icmp_id: Some(7),
                icmp_seq: Some(seq),
                ..HeaderReport::default()
            },
            outer: wrapped.then(|| OuterReport {
                src_mac: Some(mac(&format!("{near}.ens33"))),
                dst_mac: Some(mac(&format!("{far}.ens33"))),
                src_ip: family.underlay[usize::from(!forward)].into(),
                dst_ip: family.underlay[usize::from(forward)].into(),
                ttl: 64,
                vni: Some(1),
                udp_src: 52_341,
                udp_dst: 8472,
            }),
            names: names(family),
            changes,
        });
    }
    result
}

fn journey(id: u64, stops: &[Stop], family: &Family, direction: Direction) -> JourneyReport {
    let seq = u16::try_from(id.div_ceil(2)).unwrap();
    let what = if direction == Direction::Forward { "request" } else { "reply" };
    let proto = if family.proto == "icmp" { "ICMP" } else { "ICMP6" };
    JourneyReport {
        id: id.to_string(),
        direction,
        summary: format!("{proto} echo {what}, id 7, seq {seq}, length 64"),
        outcome: Outcome::Delivered,
        bytes: Some(56),
        retransmission_of: None,
        duplicate_of: None,
        looped: false,
        hops: hops(stops, family, direction, seq),
        drop: None,
        side_drops: Vec::new(),
    }
}

fn verdict(status: Status, summary: &str) -> Verdict {
    Verdict {
        status,
        direction: None,
        cause: None,
        r#where: None,
        last_seen: None,
        next_expected: None,
        kernel_reason: None,
        summary: summary.into(),
        evidence: Vec::new(),
        fix: Vec::new(),
        confidence: Confidence::Proven,
    }
}

fn summaries(stops: &[Stop], packets: u64) -> Vec<HopSummary> {
    let latency = |i: usize| Latency {
        min_ns: 800 + i as u64,
        median_ns: 1_210 * (i as u64 + 1),
        max_ns: 204_000,
    };
    stops
        .iter()
        .enumerate()
        .map(|(i, stop)| HopSummary {
            point: point(stop),
            expected: true,
            packets,
            skbs: packets,
            bytes: 56 * packets,
            repeated_bytes: 0,
            lost: 0,
            latency: (i > 0 && packets > 0).then(|| latency(i)),
        })
        .collect()
}

fn end(name: &str, ips: &[&str]) -> EndReport {
    let (node, pod) = name.split_once('.').unwrap();
    EndReport {
        name: name.into(),
        node: node.into(),
        pod: Some(pod.into()),
        ips: ips.iter().map(|ip| (*ip).to_owned()).collect(),
    }
}

fn station(stop: &Stop) -> StationReport {
    let (node, pod, interface, role, _) = *stop;
    let owner = format!("{node}.{}", pod.unwrap_or(interface));
    StationReport {
        node: node.into(),
        pod: pod.map(Into::into),
        netns: format!("podtrace-{node}{}", pod.map_or_else(String::new, |p| format!("-{p}"))),
        interface: interface.into(),
        ifindex: 2,
        role,
        mac: Some(mac(&owner)),
        mtu: if role == Role::Physical { 1500 } else { 1450 },
        up: true,
        addresses: vec!["192.0.2.1/24".into()],
        vni: (role == Role::Vxlan).then_some(1),
        udp_port: (role == Role::Vxlan).then_some(8472),
    }
}

fn direction(direction: Direction, stops: &[Stop], packets: u64) -> DirectionReport {
    DirectionReport {
        direction,
        verdict: verdict(Status::Delivered, "Every packet arrived."),
        packets,
        outcomes: BTreeMap::from([("delivered".to_owned(), packets)]),
        hops: summaries(stops, packets),
    }
}

fn echo(family: &Family, forward: &[Stop], reply: &[Stop], count: u64) -> Report {
    let journeys = (0..count).flat_map(|n| {
        [
            journey(2 * n + 1, forward, family, Direction::Forward),
            journey(2 * n + 2, reply, family, Direction::Reply),
        ]
    });
    Report {
        schema: SCHEMA.into(),
        tool: Tool { version: "0.1.0".into(), kernel: "6.18.0".into() },
        started: "2026-01-02T03:04:05.678Z".into(),
        duration_ns: 4_100_000_000,
        src: end("A.a", &[family.a]),
        dst: end("B.b", &[family.b]),
        verdict: verdict(Status::Delivered, "Every packet arrived, both ways."),
        findings: Vec::new(),
        packets: PacketCounts {
            sent: count,
            delivered: count,
            replied: count,
            ..PacketCounts::default()
        },
        stations: forward.iter().map(station).collect(),
        directions: vec![
            direction(Direction::Forward, forward, count),
            direction(Direction::Reply, reply, count),
        ],
        journeys: journeys.collect(),
        journeys_omitted: 0,
        resolutions: Vec::new(),
        icmp_errors: Vec::new(),
        clock: Vec::new(),
        loss: LossReport::default(),
        probe: Some(ProbeResult {
            proto: "icmp".into(),
            sent: count,
            answered: count,
            rtt_ns: (0..count).map(|n| 181_000 + 12_000 * n).collect(),
            ..ProbeResult::default()
        }),
        notes: Vec::new(),
    }
}

/// Five pings across nodes, all answered.
pub(super) fn healthy() -> Report {
    echo(&V4, &FORWARD, &REPLY, 5)
}

/// A ping over IPv6, with long addresses.
pub(super) fn ipv6() -> Report {
    echo(&V6, &FORWARD, &REPLY, 1)
}

/// A ping to a pod on the same node: bridged only.
pub(super) fn same_node() -> Report {
    let out: [Stop; 4] = [
        FORWARD[0],
        FORWARD[1],
        ("A", None, "veth90210c", Role::Veth, Egress),
        ("A", Some("a2"), "eth0", Role::Pod, Ingress),
    ];
    let back: [Stop; 4] = [
        ("A", Some("a2"), "eth0", Role::Pod, Egress),
        ("A", None, "veth90210c", Role::Veth, Ingress),
        ("A", None, "veth3f9a1c", Role::Veth, Egress),
        REPLY[11],
    ];
    let mut report = echo(&V4, &out, &back, 1);
    report.dst = end("A.a2", &["10.10.0.3"]);
    for hop in report.journeys.iter_mut().flat_map(|j| &mut j.hops) {
        for ip in [&mut hop.inner.src_ip, &mut hop.inner.dst_ip] {
            *ip = ip.replace("10.10.1.2", "10.10.0.3");
        }
        hop.names.insert("10.10.0.3".into(), "A.a2.ip".into());
        hop.names.insert("5a:11:4c:00:0a:03".into(), "A.a2.mac".into());
        hop.names.insert("5a:11:4c:00:0b:02".into(), "A.a2.mac".into());
    }
    report
}

/// Nothing beyond hop `seen` of the forward path.
fn cut(mut report: Report, seen: usize, status: Status, outcome: Outcome) -> Report {
    let sent = report.packets.sent;
    report.packets = PacketCounts { sent, ..PacketCounts::default() };
    report.journeys.retain(|j| j.direction == Direction::Forward);
    for journey in &mut report.journeys {
        journey.hops.truncate(seen);
        journey.outcome = outcome;
    }
    let wrong = Verdict {
        status,
        direction: Some(Direction::Forward),
        last_seen: Some(point(&FORWARD[seen - 1])),
        next_expected: Some(point(&FORWARD[seen])),
        ..verdict(status, "")
    };
    let name = serde_json::to_value(outcome).unwrap().as_str().unwrap().to_owned();
    let [forward, reply] = report.directions.as_mut_slice() else { panic!("two directions") };
    forward.verdict = wrong.clone();
    forward.outcomes = BTreeMap::from([(name, sent)]);
    for (i, hop) in forward.hops.iter_mut().enumerate().skip(seen) {
        (hop.packets, hop.skbs, hop.bytes, hop.latency) = (0, 0, 0, None);
        hop.lost = if i == seen { sent } else { 0 };
    }
    *reply = direction(Direction::Reply, &REPLY, 0);
    reply.verdict = verdict(Status::NoTraffic, "No answer was seen.");
    reply.outcomes.clear();
    report.verdict = wrong;
    if let Some(probe) = &mut report.probe {
        (probe.answered, probe.rtt_ns) = (0, Vec::new());
    }
    report
}

/// Dropped by a policy in the FORWARD chain of A.
pub(super) fn forward_drop() -> Report {
    let mut report = cut(healthy(), 3, Status::Dropped, Outcome::Dropped);
    let place = Place {
        node: Some("A".into()),
        pod: None,
        netns: Some("podtrace-A".into()),
        interface: Some("cni0".into()),
        stage: Some("forward".into()),
        function: Some("nft_do_chain".into()),
    };
    let reason = KernelReason { code: 6, name: "NETFILTER_DROP".into() };
    for journey in &mut report.journeys {
        journey.drop = Some(DropReport {
            time_ns: 17_200,
            reason: reason.clone(),
            function: "nft_do_chain".into(),
            hook: Some("FORWARD".into()),
            rule: Some("ip filter FORWARD policy drop".into()),
            place: place.clone(),
            stack: [
                "nft_do_chain",
                "nft_do_chain_ipv4",
                "nf_hook_slow",
                "ip_forward",
                "ip_rcv",
                "__netif_receive_skb_one_core",
                "br_pass_frame_up",
                "br_handle_frame_finish",
            ]
            .map(Into::into)
            .to_vec(),
        });
    }
    let wrong = Verdict {
        cause: Some("netfilter.forward-policy-drop".into()),
        r#where: Some(place),
        kernel_reason: Some(reason),
        summary: "The FORWARD chain on node A drops what is to be routed from the pods to other \
                  nodes."
            .into(),
        evidence: vec![
            "the kernel dropped 5 of 5 packets in nft_do_chain, called from ip_forward".into(),
            "policy of chain FORWARD (ip filter) is drop; its counter rose by 5".into(),
        ],
        fix: vec![
            "on A: iptables -P FORWARD ACCEPT".into(),
            "or restart flanneld there, which adds its own ACCEPT rules".into(),
        ],
        ..report.verdict.clone()
    };
    report.directions[0].verdict = wrong.clone();
    report.verdict = wrong;
    report.findings = vec![Verdict {
        direction: None,
        cause: Some("mtu.too-large".into()),
        r#where: Some(Place {
            node: Some("B".into()),
            pod: Some("b".into()),
            netns: None,
            interface: Some("eth0".into()),
            stage: None,
            function: None,
        }),
        fix: vec!["recreate the pod".into()],
        confidence: Confidence::Likely,
        ..verdict(
            Status::Degraded,
            "The MTU of pod b is 1500, but its node's VXLAN device \
                                     carries only 1450 bytes.",
        )
    }];
    report
}

/// Gone on the wire between the nodes.
pub(super) fn wire_loss() -> Report {
    let mut report = cut(healthy(), 5, Status::Lost, Outcome::Lost);
    let wrong = Verdict {
        cause: Some("underlay.lost".into()),
        r#where: Some(Place {
            node: None,
            pod: None,
            netns: None,
            interface: None,
            stage: Some("wire".into()),
            function: None,
        }),
        summary: "Packets leave A on ens33 and never come to B.".into(),
        evidence: vec!["5 of 5 packets left A.ens33; none came to B.ens33; no drop event".into()],
        fix: vec![
            "open UDP port 8472 between the nodes, both ways (security group, firewall)".into(),
        ],
        confidence: Confidence::Likely,
        ..report.verdict.clone()
    };
    report.directions[0].verdict = wrong.clone();
    report.verdict = wrong;
    report.clock = vec![
        ClockReport { node: "A".into(), offset_ns: 0, error_ns: 0 },
        ClockReport { node: "B".into(), offset_ns: -1_234_567, error_ns: 48_000 },
    ];
    let unanswered = ResolutionReport {
        at: Some(point(&FORWARD[4])),
        asker: "192.168.10.11".into(),
        target: "192.168.10.12".into(),
        requests: 3,
        answer: None,
    };
    let answered = ResolutionReport {
        at: Some(point(&FORWARD[0])),
        answer: Some(mac("A.cni0")),
        ..unanswered.clone()
    };
    report.resolutions = vec![unanswered, answered];
    report.icmp_errors = vec![IcmpReport {
        at: Some(point(&FORWARD[4])),
        from: "192.168.10.11".into(),
        from_name: Some("A.ens33.ip".into()),
        to: "192.168.10.11".into(),
        r#type: 3,
        code: 1,
        text: "host unreachable".into(),
        about: Some("1".into()),
    }];
    report.loss = LossReport {
        events_lost: 123,
        by_node: BTreeMap::from([
            ("A".into(), Loss { ring_hop: 100, ring_drop: 3, ..Loss::default() }),
            ("B".into(), Loss { backlog: 20, ..Loss::default() }),
        ]),
    };
    report.notes = vec!["B.flannel.1 vanished during the trace".into()];
    report
}

/// Nothing was seen.
pub(super) fn no_traffic() -> Report {
    let mut report = healthy();
    report.journeys.clear();
    report.packets = PacketCounts::default();
    report.probe = None;
    for (d, stops) in report.directions.iter_mut().zip([FORWARD, REPLY]) {
        *d = direction(d.direction, &stops, 0);
        d.outcomes.clear();
        d.verdict = verdict(Status::NoTraffic, "No packet of the flow was seen.");
    }
    report.verdict = Verdict {
        fix: vec!["let something send from A.a to B.b, or add --probe".into()],
        ..verdict(Status::NoTraffic, "No packet between A.a and B.b was seen in 4.1 s.")
    };
    report
}

/// A bulk TCP transfer: super-packets, retransmissions, a second copy.
pub(super) fn tcp() -> Report {
    let mut report = healthy();
    report.journeys.truncate(2);
    for journey in &mut report.journeys {
        let forward = journey.direction == Direction::Forward;
        journey.summary = if forward {
            "TCP 40312 → 8080 [P.], seq 1449:66609, ack 80, length 65160".into()
        } else {
            "TCP 8080 → 40312 [.], ack 66609, length 0".into()
        };
        journey.bytes = forward.then_some(65_160);
        for hop in &mut journey.hops {
            let (src, dst) = if forward { (40_312, 8080) } else { (8080, 40_312) };
            let tunnelled = hop.outer.is_some();
            hop.inner.proto = "tcp".into();
            (hop.inner.icmp_type, hop.inner.icmp_code) = (None, None);
            (hop.inner.icmp_id, hop.inner.icmp_seq) = (None, None);
            (hop.inner.src_port, hop.inner.dst_port) = (Some(src), Some(dst));
            hop.inner.tcp_seq = Some(if forward { 1449 } else { 80 });
            hop.inner.tcp_ack = Some(if forward { 80 } else { 66_609 });
            hop.inner.tcp_flags = Some(if forward { "P." } else { "." }.into());
            if forward {
                (hop.skbs, hop.segments) = if tunnelled { (45, 45) } else { (1, 45) };
                hop.length = if tunnelled { 1514 } else { 65_226 };
                hop.bytes = 65_160;
            }
        }
    }
    let mut again = report.journeys[0].clone();
    (again.id, again.retransmission_of) = ("3".into(), Some("1".into()));
    let mut copy = report.journeys[0].clone();
    (copy.id, copy.duplicate_of) = ("4".into(), Some("1".into()));
    for hop in &mut copy.hops {
        (hop.inner.fragment_offset, hop.inner.more_fragments) = (Some(0), Some(true));
    }
    report.journeys.extend([again, copy]);
    report.journeys_omitted = 478;
    for (d, packets) in report.directions.iter_mut().zip([322_u64, 160]) {
        let forward = d.direction == Direction::Forward;
        d.packets = packets;
        d.outcomes = BTreeMap::from([("delivered".into(), packets)]);
        for hop in &mut d.hops {
            hop.packets = packets;
            let wire = matches!(hop.point.role, Role::Physical | Role::Wire);
            hop.skbs = if forward && wire { 7_242 } else { packets };
            hop.bytes = if forward { 10_485_760 } else { 0 };
            hop.repeated_bytes = if forward { 2_896 } else { 0 };
        }
    }
    // An interface that was not on the plan.
    let stray = HopSummary {
        point: point(&("A", None, "wg0", Role::Other, Egress)),
        expected: false,
        packets: 1,
        ..report.directions[0].hops[0].clone()
    };
    report.directions[0].hops.push(stray);
    report.packets =
        PacketCounts { sent: 322, delivered: 322, replied: 160, retransmitted: 2, duplicated: 1 };
    report.probe = None;
    report
}

/// Hostile and oversized names everywhere, a loop, and a probe with errors.
pub(super) fn ugly() -> Report {
    let evil = "evil\x1b[31m\n\u{202e}pod-with-a-very-long-name-5d78c9869d-abcde-日本語";
    let mut report = cut(healthy(), 5, Status::Dropped, Outcome::Dropped);
    let mut journey = report.journeys.remove(0);
    let lap = [journey.hops[3].clone(), journey.hops[4].clone()];
    for lap in std::iter::repeat_n(lap, 30) {
        journey.hops.extend(lap);
    }
    for (i, hop) in journey.hops.iter_mut().enumerate().skip(3) {
        hop.inner.ttl = 64 - (i / 2) as u8;
        hop.point.interface = "an-interface-16".into();
    }
    journey.hops[0].point.pod = Some(evil.into());
    journey.hops[0].changes = vec![evil.repeat(3), "short".into()];
    journey.hops[0].names.insert("10.10.0.2".into(), evil.into());
    journey.summary = evil.into();
    journey.looped = true;
    journey.side_drops = vec![DropReport {
        time_ns: 5,
        reason: KernelReason { code: 113, name: "NO_TX_TARGET".into() },
        function: evil.into(),
        hook: None,
        rule: None,
        place: Place {
            node: None,
            pod: None,
            netns: None,
            interface: None,
            stage: None,
            function: None,
        },
        stack: vec![evil.into()],
    }];
    journey.drop = journey.side_drops.first().cloned();
    report.journeys.insert(0, journey);
    report.src.name = evil.into();
    report.verdict.summary = evil.repeat(2);
    report.verdict.cause = Some("kernel.NO_TX_TARGET".into());
    report.verdict.evidence = vec!["x".repeat(500), evil.into()];
    report.verdict.fix = vec![String::new()];
    report.directions[0].hops[0].point.pod = Some(evil.into());
    report.notes = vec![evil.into(); 3];
    report.resolutions = vec![
        ResolutionReport {
            at: None,
            asker: evil.into(),
            target: evil.into(),
            requests: 1,
            answer: None,
        };
        9
    ];
    if let Some(probe) = &mut report.probe {
        probe.errors = vec![("EPERM: Operation not permitted".into(), 5), (evil.into(), 1)];
        probe.refused = 1;
    }
    report
}

/// All of them, with a name.
pub(super) fn all() -> Vec<(&'static str, Report)> {
    vec![
        ("healthy", healthy()),
        ("ipv6", ipv6()),
        ("same_node", same_node()),
        ("forward_drop", forward_drop()),
        ("wire_loss", wire_loss()),
        ("no_traffic", no_traffic()),
        ("tcp", tcp()),
        ("ugly", ugly()),
    ]
}
