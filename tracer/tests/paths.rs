//! Healthy paths on the real kernel: every hop, its order, its addresses, every byte.

#![expect(clippy::expect_used, reason = "helpers of tests fail the test")]

mod common;

use std::collections::HashSet;

use common::trace::{IpSays, Live, direction, hops, http_server, journeys, podtrace, run};
use common::{TestLab, privileged};
use tracer::lab::{Backend, Lab};
use tracer::model::{Direction, Outcome, Role};
use tracer::report::{Confidence, Report, Status};

const FORWARD: [&str; 12] = [
    "A.a.eth0 egress",
    "A.veth ingress",
    "A.cni0 ingress",
    "A.flannel.1 egress",
    "A.ens33 egress",
    "wire.u1 ingress",
    "wire.u2 egress",
    "B.ens33 ingress",
    "B.flannel.1 ingress",
    "B.cni0 egress",
    "B.veth egress",
    "B.b.eth0 ingress",
];

const REPLY: [&str; 12] = [
    "B.b.eth0 egress",
    "B.veth ingress",
    "B.cni0 ingress",
    "B.flannel.1 egress",
    "B.ens33 egress",
    "wire.u2 ingress",
    "wire.u1 egress",
    "A.ens33 ingress",
    "A.flannel.1 ingress",
    "A.cni0 egress",
    "A.veth egress",
    "A.a.eth0 ingress",
];

/// Everything went well and nothing was lost in observation.
fn assert_delivered(report: &Report) {
    assert_eq!(report.verdict.status, Status::Delivered, "{:#?}", report.verdict);
    assert_eq!(report.verdict.cause, None);
    assert_eq!(report.verdict.confidence, Confidence::Proven);
    assert!(report.findings.is_empty(), "{:#?}", report.findings);
    assert_eq!(report.loss.events_lost, 0);
    for journey in &report.journeys {
        assert_eq!(journey.outcome, Outcome::Delivered, "{journey:#?}");
        assert!(journey.drop.is_none());
        assert!(journey.hops.windows(2).all(|w| w[0].time_ns <= w[1].time_ns), "{journey:#?}");
    }
}

fn probe(lab: &Lab, args: &[&str]) -> Report {
    let mut all = vec!["--format", "json"];
    all.extend(args);
    let run = podtrace(lab, &all);
    let report = run.report();
    assert_eq!(run.status, i32::from(report.verdict.status.exit_code()), "{}", run.stderr);
    report
}

#[test]
fn a_ping_across_nodes_is_seen_at_twelve_hops_each_way() {
    if !privileged() {
        return;
    }
    let lab = TestLab::up(|_| {});
    let report = probe(&lab, &["--src", "A.a", "--dst", "B.b", "--probe", "--count", "3"]);
    assert_delivered(&report);
    assert_eq!((report.packets.sent, report.packets.delivered, report.packets.replied), (3, 3, 3));
    assert_eq!(report.probe.as_ref().map(|p| (p.sent, p.answered)), Some((3, 3)));
    let (there, back) =
        (journeys(&report, Direction::Forward), journeys(&report, Direction::Reply));
    assert_eq!((there.len(), back.len()), (3, 3));
    for journey in there {
        assert_eq!(hops(journey), FORWARD);
        for hop in &journey.hops {
            let wrapped = matches!(hop.point.role, Role::Physical | Role::Wire);
            assert_eq!(hop.outer.is_some(), wrapped, "{hop:?}");
            let routed = !matches!(hop.point.role, Role::Pod | Role::Veth | Role::Bridge);
            let far = hop.point.node == "B" && !routed;
            assert_eq!(
                hop.inner.ttl,
                if far {
                    62
                } else if routed {
                    63
                } else {
                    64
                },
                "{hop:?}"
            );
        }
    }
    for journey in back {
        assert_eq!(hops(journey), REPLY);
    }
}

#[test]
fn pods_on_one_node_meet_at_the_bridge() {
    if !privileged() {
        return;
    }
    let lab = TestLab::up(|_| {});
    let report = probe(&lab, &["--src", "A.a", "--dst", "A.a2", "--probe", "--count", "2"]);
    assert_delivered(&report);
    let path = ["A.a.eth0 egress", "A.veth ingress", "A.veth egress", "A.a2.eth0 ingress"];
    for journey in journeys(&report, Direction::Forward) {
        assert_eq!(hops(journey), path);
    }
    assert_eq!(report.packets.replied, 2);
}

#[test]
fn ipv6_takes_its_own_tunnel() {
    if !privileged() {
        return;
    }
    let lab = TestLab::up(|_| {});
    let report = probe(&lab, &["--src", "A.a", "--dst", "B.b", "-6", "--probe", "--count", "2"]);
    assert_delivered(&report);
    // Pods have the MTU of the IPv4 tunnel.
    let told = |n: &String| n.contains("A.cni0.ip tells the sender so") && n.contains("MTU 1430");
    assert!(report.notes.iter().any(told), "{:?}", report.notes);
    let there = journeys(&report, Direction::Forward);
    let expected = FORWARD.map(|h| h.replace("flannel.1", "flannel-v6.1"));
    for journey in &there {
        assert_eq!(hops(journey), expected);
        assert_eq!(journey.hops[0].inner.proto, "icmpv6");
    }
    assert!(there[0].hops[4].outer.as_ref().is_some_and(|o| o.src_ip.contains(':')));
    let same = probe(&lab, &["--src", "A.a", "--dst", "A.a2", "-6", "--probe", "--count", "1"]);
    assert_delivered(&same);
    assert_eq!(journeys(&same, Direction::Forward)[0].hops.len(), 4);
}

#[test]
fn nothing_is_assumed_of_names_ports_and_addresses() {
    if !privileged() {
        return;
    }
    let lab = TestLab::up(|c| {
        c.bridge_name = "br-pods".into();
        c.vxlan_name = "overlay7".into();
        c.physical_name = "uplink".into();
        c.vxlan_port = 4789;
        c.vni = 77;
        c.pod_cidr = "172.20.0.0/16".parse().expect("CIDR");
        c.wire_cidr = "10.77.0.0/24".parse().expect("CIDR");
    });
    let report = probe(&lab, &["--src", "A.a", "--dst", "B.b", "--probe", "--count", "2"]);
    assert_delivered(&report);
    let there = journeys(&report, Direction::Forward);
    let expected = FORWARD.map(|h| {
        h.replace("cni0", "br-pods").replace("flannel.1", "overlay7").replace("ens33", "uplink")
    });
    assert_eq!(hops(there[0]), expected);
    let outer = there[0].hops[4].outer.as_ref().expect("wrapped");
    assert_eq!((outer.vni, outer.udp_dst), (Some(77), 4789));
    let roles: HashSet<_> = report
        .stations
        .iter()
        .filter(|s| s.node == "A")
        .map(|s| (s.interface.as_str(), s.role))
        .collect();
    assert!(
        roles.contains(&("br-pods", Role::Bridge)) && roles.contains(&("uplink", Role::Physical))
    );
}

#[test]
fn host_gw_is_routed_without_a_tunnel() {
    if !privileged() {
        return;
    }
    let lab = TestLab::up(|c| c.backend = Backend::HostGw);
    let report = probe(&lab, &["--src", "A.a", "--dst", "B.b", "--probe", "--count", "2"]);
    assert_delivered(&report);
    let expected: Vec<_> = FORWARD.into_iter().filter(|h| !h.contains("flannel")).collect();
    for journey in journeys(&report, Direction::Forward) {
        assert_eq!(hops(journey), expected);
    }
    let expected: Vec<_> = REPLY.into_iter().filter(|h| !h.contains("flannel")).collect();
    for journey in journeys(&report, Direction::Reply) {
        assert_eq!(hops(journey), expected);
    }
    assert!(report.journeys.iter().flat_map(|j| &j.hops).all(|h| h.outer.is_none()));
}

#[test]
fn a_bare_address_is_found_without_an_inventory() {
    if !privileged() {
        return;
    }
    // Addresses of its own, for other labs on this machine use the default ones.
    let lab = TestLab::up(|c| c.pod_cidr = "172.30.0.0/16".parse().expect("CIDR"));
    let [a, b] = ["A.a", "B.b"].map(|t| IpSays::ask(&lab, t).ip("eth0", "inet"));
    let output = std::process::Command::new(common::trace::PODTRACE)
        .args(["--src", &a, "--dst", &b, "--probe", "--count", "1", "--format", "json"])
        .env("PODTRACE_INVENTORY", "")
        .output()
        .expect("start podtrace");
    let text = String::from_utf8_lossy(&output.stdout);
    let report: Report = serde_json::from_str(&text)
        .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stderr)));
    assert_delivered(&report);
    assert_eq!(
        journeys(&report, Direction::Forward)[0].hops.first().map(|h| h.point.role),
        Some(Role::Pod)
    );
    assert_eq!(
        journeys(&report, Direction::Forward)[0].hops.last().map(|h| h.point.role),
        Some(Role::Pod)
    );
}

#[test]
fn http_between_pods_is_followed_on_both_paths() {
    if !privileged() {
        return;
    }
    let lab = TestLab::up(|_| {});
    let _server = http_server(&lab, "B.b", 8080, 1000);
    let _neighbour = http_server(&lab, "A.a2", 8080, 1000);
    for (dst, ip, len) in [("B.b", "10.10.1.2", 12), ("A.a2", "10.10.0.3", 4)] {
        let args =
            ["--src", "A.a", "--dst", dst, "--proto", "tcp", "--port", "8080", "--format", "json"];
        let live = Live::start(&lab, &args);
        run(
            &lab,
            "A.a",
            &["curl", "-sf", "-m", "30", "-o", "/dev/null", &format!("http://{ip}:8080/file")],
        );
        let run = live.interrupt();
        let report = run.report();
        assert_eq!(run.status, 0, "{}", run.stderr);
        assert_delivered(&report);
        let there = journeys(&report, Direction::Forward);
        let syn = there.iter().find(|j| j.hops[0].inner.tcp_flags.as_deref() == Some("S"));
        assert_eq!(syn.expect("a SYN").hops.len(), len);
        assert!(there.iter().all(|j| j.hops.len() == len), "{there:#?}");
        let back = journeys(&report, Direction::Reply);
        assert!(back.iter().map(|j| j.bytes.unwrap_or(0)).sum::<u64>() >= 1000);
    }
}

#[test]
fn every_byte_of_ten_megabytes_is_accounted_for_at_every_hop() {
    if !privileged() {
        return;
    }
    const SIZE: usize = 10_000_000;
    let lab = TestLab::up(|_| {});
    let _server = http_server(&lab, "B.b", 8080, SIZE);
    // Super-packets all the way; then segmented by A's and B's physical interfaces.
    for offload in ["on", "off"] {
        for node in ["A", "B"] {
            run(
                &lab,
                node,
                &["ethtool", "-K", "ens33", "tso", offload, "gso", offload, "gro", offload],
            );
        }
        let args = ["--src", "A.a", "--dst", "B.b", "--proto", "tcp", "--format", "json"];
        let live = Live::start(&lab, &args);
        run(
            &lab,
            "A.a",
            &["curl", "-sf", "-m", "60", "-o", "/dev/null", "http://10.10.1.2:8080/file"],
        );
        let run = live.interrupt();
        let report = run.report();
        assert_eq!(report.loss.events_lost, 0);
        assert_eq!(report.verdict.status, Status::Delivered, "{:#?}", report.verdict);
        let reply = direction(&report, Direction::Reply);
        let expected: Vec<_> = reply.hops.iter().filter(|h| h.expected).collect();
        assert_eq!(expected.len(), 12);
        let first = expected[0].bytes;
        // The file and the HTTP header.
        assert!((SIZE as u64..SIZE as u64 + 1000).contains(&first), "{first}");
        for hop in expected {
            assert_eq!(hop.bytes, first, "offload {offload}: {hop:?}");
        }
    }
}

#[test]
fn udp_is_followed_and_large_datagrams_are_one_packet() {
    if !privileged() {
        return;
    }
    let lab = TestLab::up(|_| {});
    let echo = "import socket\ns=socket.socket(socket.AF_INET,socket.SOCK_DGRAM)\ns.bind(('0.0.0.0',9000))\nwhile 1:\n d,a=s.recvfrom(65535)\n s.sendto(d,a)";
    let _server = common::trace::Server::start(&lab, "B.b", &["python3", "-c", echo]);
    common::trace::wait_for("the UDP server", || {
        run(&lab, "B.b", &["ss", "-lun"]).contains(":9000")
    });
    let small =
        probe(&lab, &["--src", "A.a", "--dst", "B.b", "--probe=udp", "--port", "9000", "-c", "3"]);
    assert_delivered(&small);
    assert_eq!(small.probe.as_ref().map(|p| p.answered), Some(3));
    assert_eq!(small.packets.replied, 3);
    // Fragments from the pod on, put together at the bridge by connection tracking, and fragmented
    // again: still one packet, all of whose bytes arrive.
    let large = probe(
        &lab,
        &["--src", "A.a", "--dst", "B.b", "--probe=udp", "--port", "9000", "-c", "2", "-s", "4000"],
    );
    assert_eq!(large.verdict.status, Status::Delivered, "{:#?}", large.verdict);
    assert_eq!(large.packets.sent, 2, "{:#?}", large.packets);
    let journey = journeys(&large, Direction::Forward)[0];
    assert_eq!(journey.bytes, Some(4008));
    assert!(journey.hops.iter().all(|h| h.bytes == 4008), "{journey:#?}");
    assert!(journey.hops[0].skbs >= 3);
}

#[test]
fn retransmissions_are_told_from_what_was_sent_first() {
    if !privileged() {
        return;
    }
    const SIZE: usize = 5_000_000;
    let lab = TestLab::up(|_| {});
    let _server = http_server(&lab, "B.b", 8080, SIZE);
    run(
        &lab,
        "A",
        &[
            "iptables",
            "-I",
            "FORWARD",
            "-p",
            "tcp",
            "--sport",
            "8080",
            "-m",
            "statistic",
            "--mode",
            "nth",
            "--every",
            "20",
            "--packet",
            "10",
            "-j",
            "DROP",
        ],
    );
    let args = ["--src", "A.a", "--dst", "B.b", "--proto", "tcp", "--format", "json"];
    let live = Live::start(&lab, &args);
    run(&lab, "A.a", &["curl", "-sf", "-m", "60", "-o", "/dev/null", "http://10.10.1.2:8080/file"]);
    let report = live.interrupt().report();
    assert_eq!(report.loss.events_lost, 0);
    // Some packets died, and yet every byte arrived.
    assert_eq!(report.verdict.status, Status::Degraded, "{:#?}", report.verdict);
    assert_eq!(report.verdict.direction, Some(Direction::Reply));
    assert_eq!(
        report.verdict.kernel_reason.as_ref().map(|r| r.name.as_str()),
        Some("NETFILTER_DROP")
    );
    let reply = direction(&report, Direction::Reply);
    let (first, last) =
        (reply.hops.first().expect("hops"), reply.hops.iter().rfind(|h| h.expected).expect("hops"));
    assert_eq!(first.bytes, last.bytes);
    assert!(first.repeated_bytes > 0);
    assert!(report.packets.retransmitted > 0);
    let again = report.journeys.iter().find(|j| j.retransmission_of.is_some()).expect("one");
    let original = report.journeys.iter().find(|j| Some(&j.id) == again.retransmission_of.as_ref());
    assert!(original.is_some_and(|o| o.hops[0].time_ns <= again.hops[0].time_ns));
}
