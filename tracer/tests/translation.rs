//! Address translation on the real kernel: services and masquerading, followed hop by hop.

#![expect(clippy::expect_used, reason = "helpers of tests fail the test")]

mod common;

use common::trace::{hops, http_server, journeys, podtrace, run};
use common::{TestLab, privileged};
use tracer::lab::Lab;
use tracer::model::{Direction, Role};
use tracer::report::{HopReport, JourneyReport, Report, Status};

fn probe(lab: &Lab, src: &str, dst: &str, port: &str) -> Report {
    let args = ["--format", "json", "--src", src, "--dst", dst, "--probe=tcp", "--port", port];
    let run = podtrace(lab, &args);
    let report = run.report();
    assert_eq!(run.status, i32::from(report.verdict.status.exit_code()), "{}", run.stderr);
    report
}

fn assert_delivered(report: &Report) {
    assert_eq!(report.verdict.status, Status::Delivered, "{:#?}", report.verdict);
    assert_eq!(report.loss.events_lost, 0);
    let probe = report.probe.as_ref().expect("a probe");
    assert_eq!((probe.answered, probe.refused), (probe.sent, 0), "{probe:?}");
}

/// [`hops`], without the bridge itself: the kernel hands translated packets to the bridge's own
/// device while the neighbour entry is not confirmed, and straight to the port once it is.
fn at_ports(journey: &JourneyReport) -> Vec<String> {
    hops(journey).into_iter().filter(|hop| hop != "B.cni0 egress").collect()
}

/// The first packet of a direction: SYN or SYN-ACK.
fn first(report: &Report, direction: Direction) -> &JourneyReport {
    journeys(report, direction).first().copied().expect("a packet")
}

/// `10.10.0.2 → 10.96.0.10:80`, without the client's port.
fn forward(hop: &HopReport) -> String {
    format!("{} → {}:{}", hop.inner.src_ip, hop.inner.dst_ip, hop.inner.dst_port.unwrap_or(0))
}

fn back(hop: &HopReport) -> String {
    format!("{}:{} → {}", hop.inner.src_ip, hop.inner.src_port.unwrap_or(0), hop.inner.dst_ip)
}

#[test]
fn a_service_on_another_node_is_followed_through_its_translation() {
    if !privileged() {
        return;
    }
    let lab = TestLab::up(|_| {});
    let _server = http_server(&lab, "B.b", 8080, 1);
    for (service, client, pod) in [
        ("10.96.0.10", "10.10.0.2", "10.10.1.2"),
        ("fd00:10:96::10", "fd00:10:10::2", "fd00:10:10:1::2"),
    ] {
        let report = probe(&lab, "A.a", service, "80");
        assert_delivered(&report);
        assert_eq!(report.dst.name, "B.b");
        let shown = report.dst.service.as_deref().expect("a service");
        assert!(shown.contains(service) && shown.ends_with(":80"), "{shown}");
        let there = first(&report, Direction::Forward);
        assert_eq!(there.hops.len(), 12, "{:?}", hops(there));
        for (at, hop) in there.hops.iter().enumerate() {
            // The bridge translates before it hands the packet up.
            let to = if at < 2 { (service, 80) } else { (pod, 8080) };
            assert_eq!(forward(hop), format!("{client} → {}:{}", to.0, to.1), "{hop:?}");
        }
        let change = "dst service.ip:80 → B.b.ip:8080";
        assert!(there.hops[2].changes.iter().any(|c| c == change), "{:?}", there.hops[2].changes);
        let answer = first(&report, Direction::Reply);
        assert_eq!(answer.hops.len(), 12, "{:?}", hops(answer));
        for (at, hop) in answer.hops.iter().enumerate() {
            let from = if at < 9 { (pod, 8080) } else { (service, 80) };
            assert_eq!(back(hop), format!("{}:{} → {client}", from.0, from.1), "{hop:?}");
        }
    }
}

#[test]
fn a_service_on_the_same_node_is_translated_in_the_bridge() {
    if !privileged() {
        return;
    }
    let lab = TestLab::up(|_| {});
    let _server = http_server(&lab, "B.b", 8080, 1);
    let report = probe(&lab, "B.b2", "10.96.0.10", "80");
    assert_delivered(&report);
    let there = first(&report, Direction::Forward);
    let path = ["B.b2.eth0 egress", "B.veth ingress", "B.veth egress", "B.b.eth0 ingress"];
    assert_eq!(at_ports(there), path);
    let seen: Vec<String> = there.hops.iter().map(forward).collect();
    let (sent, arrived) = ("10.10.1.3 → 10.96.0.10:80", "10.10.1.3 → 10.10.1.2:8080");
    assert!(seen[..2].iter().all(|s| s == sent), "{seen:?}");
    assert!(seen[2..].iter().all(|s| s == arrived), "{seen:?}");
}

#[test]
fn a_pod_reaches_itself_through_its_service() {
    if !privileged() {
        return;
    }
    let lab = TestLab::up(|_| {});
    let _server = http_server(&lab, "B.b", 8080, 1);
    let report = probe(&lab, "B.b", "10.96.0.10", "80");
    assert_delivered(&report);
    let there = first(&report, Direction::Forward);
    let path = ["B.b.eth0 egress", "B.veth ingress", "B.veth egress", "B.b.eth0 ingress"];
    assert_eq!(at_ports(there), path);
    // Answers must come back through the bridge, so the source is taken too.
    assert_eq!(forward(there.hops.last().expect("hops")), "10.10.1.1 → 10.10.1.2:8080");
    assert_eq!(at_ports(first(&report, Direction::Reply)), path);
}

#[test]
fn an_unexpected_masquerade_is_followed_and_found() {
    if !privileged() {
        return;
    }
    let lab = TestLab::up(|_| {});
    let _server = http_server(&lab, "B.b", 8080, 1);
    let rule =
        "iptables -w 5 -t nat -I POSTROUTING -s 10.10.0.2 ! -o cni0 -j MASQUERADE --random-fully";
    run(&lab, "A", &rule.split(' ').collect::<Vec<_>>());
    let report = probe(&lab, "A.a", "B.b", "8080");
    assert_delivered(&report);
    for (direction, source) in
        [(Direction::Forward, forward as fn(&HopReport) -> String), (Direction::Reply, back)]
    {
        let packet = first(&report, direction);
        assert_eq!(packet.hops.len(), 12, "{:?}", hops(packet));
        for hop in &packet.hops {
            let near = hop.point.node == "A"
                && matches!(hop.point.role, Role::Pod | Role::Veth | Role::Bridge);
            let own = if near { "10.10.0.2" } else { "10.10.0.0" };
            assert!(source(hop).contains(own), "{hop:?}");
        }
    }
    let found: Vec<_> = report.findings.iter().filter_map(|f| f.cause.as_deref()).collect();
    assert_eq!(found, ["netfilter.masquerade-unexpected"], "{:#?}", report.findings);
}

#[test]
fn a_node_port_is_followed_over_the_node_that_translates() {
    if !privileged() {
        return;
    }
    let lab = TestLab::up(|_| {});
    let _server = http_server(&lab, "A.a2", 8080, 1);
    for rule in [
        "PREROUTING -d 192.168.10.12 -p tcp --dport 30080 -j DNAT --to-destination 10.10.0.3:8080",
        "POSTROUTING -d 10.10.0.3 -p tcp --dport 8080 -j MASQUERADE",
    ] {
        let argv = ["iptables", "-w", "5", "-t", "nat", "-I"].into_iter().chain(rule.split(' '));
        run(&lab, "B", &argv.collect::<Vec<_>>());
    }
    let report = probe(&lab, "A.a", "192.168.10.12", "30080");
    assert_delivered(&report);
    assert_eq!(report.dst.name, "A.a2");
    let there = first(&report, Direction::Forward);
    assert!(hops(there).contains(&"B.flannel.1 egress".to_owned()), "{:?}", hops(there));
    let answer = first(&report, Direction::Reply);
    assert!(hops(answer).contains(&"B.ens33 egress".to_owned()), "{:?}", hops(answer));
    let last = answer.hops.last().expect("hops");
    assert_eq!(back(last), "192.168.10.12:30080 → 10.10.0.2");
}

#[test]
fn a_service_that_nothing_translates_is_never_reached() {
    if !privileged() {
        return;
    }
    let lab = TestLab::up(|_| {});
    let report = probe(&lab, "A.a", "10.96.0.77", "80");
    assert_eq!(report.verdict.cause.as_deref(), Some("service.no-rules"), "{:#?}", report.verdict);
    assert_eq!(report.packets.delivered, 0);
}
