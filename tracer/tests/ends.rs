//! Nodes and addresses outside as ends, on the real kernel.

#![expect(clippy::expect_used, reason = "helpers of tests fail the test")]

mod common;

use common::trace::{Live, hops, journeys, podtrace, run};
use common::{TestLab, privileged};
use tracer::lab::Lab;
use tracer::model::{Direction, EndKind};
use tracer::report::{Report, Status};

const OUTSIDE: &str = "203.0.113.80";

fn trace(lab: &Lab, src: &str, dst: &str, more: &[&str]) -> Report {
    let args = [&["--format", "json", "--src", src, "--dst", dst][..], more].concat();
    let run = podtrace(lab, &args);
    let report = run.report();
    assert_eq!(run.status, i32::from(report.verdict.status.exit_code()), "{}", run.stderr);
    report
}

fn check(lab: &Lab, src: &str, dst: &str) -> (i32, String) {
    let run = podtrace(lab, &["check", "--src", src, "--dst", dst]);
    (run.status, run.stdout)
}

fn assert_healthy(report: &Report) {
    let of = format!("{} → {}: {:#?}", report.src.name, report.dst.name, report.verdict);
    assert_eq!(report.verdict.status, Status::Delivered, "{of}");
    assert!(report.findings.is_empty(), "{of} {:#?}", report.findings);
    assert_eq!(report.loss.events_lost, 0);
    let probe = report.probe.as_ref().expect("a probe");
    assert_eq!(probe.answered, probe.sent, "{of}");
}

#[test]
fn nodes_and_addresses_outside_are_ends_like_any_other() {
    if !privileged() {
        return;
    }
    let lab = TestLab::up(|_| {});
    for (src, dst) in [
        ("A.a", "B"),
        ("A.a", "node/A"),
        ("A.a", "192.168.10.12"),
        ("A.a", OUTSIDE),
        ("A", "B.b"),
        ("A", "A.a"),
        ("A", "B"),
        ("B", OUTSIDE),
        ("A.a", "B.agent-b"),
    ] {
        assert_healthy(&trace(&lab, src, dst, &["--probe", "--count", "2", "--interval", "20ms"]));
        let (status, text) = check(&lab, src, dst);
        // What is beyond the node is in no table.
        let expected = if dst == OUTSIDE { 4 } else { 0 };
        assert_eq!(status, expected, "check {src} → {dst}: {text}");
    }
    let report = trace(&lab, "A.a", OUTSIDE, &["--probe=icmp", "--count", "1"]);
    assert_eq!(report.dst.kind, EndKind::Outside);
    assert!(
        report.verdict.summary.contains("left node A as 192.168.10.11 at ens33"),
        "{}",
        report.verdict.summary
    );
    let there = journeys(&report, Direction::Forward);
    assert!(hops(there[0]).contains(&"A.ens33 egress".to_owned()), "{:?}", hops(there[0]));
    let back = journeys(&report, Direction::Reply);
    assert_eq!(hops(back[0]).last().map(String::as_str), Some("A.a.eth0 ingress"));
}

#[test]
fn what_comes_not_back_from_outside_is_lost_and_never_exits_0() {
    if !privileged() {
        return;
    }
    let lab = TestLab::up(|_| {});
    run(&lab, "outside", &["ip", "addr", "add", "203.0.113.99/32", "dev", "lo"]);
    let drop = "iptables -w 5 -I INPUT -d 203.0.113.99 -j DROP";
    run(&lab, "outside", &drop.split(' ').collect::<Vec<_>>());
    let report =
        trace(&lab, "A.a", "203.0.113.99", &["--probe=udp", "--port", "9", "--count", "2"]);
    assert_eq!(report.verdict.status, Status::Lost, "{:#?}", report.verdict);
    assert_eq!(report.verdict.direction, Some(Direction::Reply));
    assert_eq!(report.verdict.cause.as_deref(), Some("underlay.no-answer"));
    // The same without masquerading: the pod's address is what is wrong.
    run(&lab, "A", &["iptables", "-w", "5", "-t", "nat", "-F", "FLANNEL-POSTRTG"]);
    let report = trace(&lab, "A.a", OUTSIDE, &["--probe", "--count", "2"]);
    assert_eq!(report.verdict.cause.as_deref(), Some("netfilter.masquerade-missing"));
    assert_eq!(report.verdict.status, Status::Lost);
    assert_eq!(check(&lab, "A.a", OUTSIDE).0, 4, "routers outside may know the way to pods");
}

#[test]
fn traffic_of_nodes_and_to_the_outside_is_watched() {
    if !privileged() {
        return;
    }
    let lab = TestLab::up(|_| {});
    for (src, dst, from, to) in [
        ("A.a", OUTSIDE, "A.a", OUTSIDE),
        ("A.a", "B", "A.a", "192.168.10.12"),
        ("B", "A.a", "B", "10.10.0.2"),
        (OUTSIDE, "A", "outside", "192.168.10.11"),
    ] {
        let args = ["--format", "json", "--src", src, "--dst", dst, "--count", "2"];
        let tracing = Live::start(&lab, &args);
        let ping = ["ping", "-c", "2", "-i", "0.2", "-W", "2", to];
        // It would take the address that faces the nodes.
        let as_outside = ["-I", OUTSIDE].into_iter().filter(|_| from == "outside");
        run(&lab, from, &ping.into_iter().chain(as_outside).collect::<Vec<_>>());
        let ran = tracing.wait();
        let report = ran.report();
        let of = format!("{src} → {dst}: {:#?}", report.verdict);
        assert_eq!((ran.status, report.verdict.status), (0, Status::Delivered), "{of}");
        assert!(report.findings.is_empty(), "{of} {:#?}", report.findings);
        assert_eq!(report.packets.replied, 2, "{of}");
    }
}
