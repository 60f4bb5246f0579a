//! Broken paths on the real kernel: the right place and the kernel's own reason.

#![expect(clippy::expect_used, reason = "helpers of tests fail the test")]

mod common;

use common::trace::{podtrace, run};
use common::{TestLab, kernel_at_least, privileged};
use tracer::lab::Lab;
use tracer::model::{Direction, Hook, Role};
use tracer::report::{Confidence, PointReport, Report, Status};

fn trace(lab: &Lab, args: &[&str]) -> Report {
    let mut all = vec!["--src", "A.a", "--dst", "B.b", "--probe", "--format", "json"];
    all.extend(args);
    let run = podtrace(lab, &all);
    assert_eq!(run.status, 3, "{}{}", run.stdout, run.stderr);
    let report = run.report();
    assert_eq!(report.loss.events_lost, 0);
    report
}

fn is(point: Option<&PointReport>, node: &str, role: Role, hook: Hook) {
    let point = point.expect("a point");
    assert_eq!((point.node.as_str(), point.role, point.hook), (node, role, hook));
}

/// The kernel's reason, function, and where.
#[track_caller]
fn dropped(report: &Report, direction: Direction, node: &str, reason: &str, function: &str) {
    let v = &report.verdict;
    assert_eq!(v.status, Status::Dropped, "{v:#?}");
    assert_eq!(v.direction, Some(direction));
    assert_eq!(v.confidence, Confidence::Proven);
    assert_eq!(v.kernel_reason.as_ref().map(|r| r.name.as_str()), Some(reason));
    let place = v.r#where.as_ref().expect("a place");
    assert_eq!(place.node.as_deref(), Some(node));
    assert_eq!(place.function.as_deref(), Some(function));
    assert!(!v.evidence.is_empty() && !v.fix.is_empty() && !v.summary.is_empty());
}

#[test]
fn a_missing_forwarding_entry_is_found_where_the_tunnel_begins() {
    if !privileged() {
        return;
    }
    let lab = TestLab::up(|_| {});
    let fdb = run(&lab, "A", &["bridge", "fdb", "show", "dev", "flannel.1"]);
    let mac = fdb.split(' ').next().expect("an entry");
    run(&lab, "A", &["bridge", "fdb", "del", mac, "dev", "flannel.1"]);
    let report = trace(&lab, &["-4"]);
    // Older kernels have no reason of its own for it.
    let reason = if kernel_at_least(6, 12) { "NO_TX_TARGET" } else { "NOT_SPECIFIED" };
    dropped(&report, Direction::Forward, "A", reason, "vxlan_xmit");
    is(report.verdict.last_seen.as_ref(), "A", Role::Vxlan, Hook::Egress);
    is(report.verdict.next_expected.as_ref(), "A", Role::Physical, Hook::Egress);
    assert_eq!(report.verdict.r#where.as_ref().and_then(|p| p.stage.as_deref()), Some("encap"));
    assert_eq!((report.packets.sent, report.packets.delivered), (5, 0));
}

#[test]
fn a_forward_policy_of_drop_is_found_on_either_node_and_in_the_reply() {
    if !privileged() {
        return;
    }
    let lab = TestLab::up(|_| {});
    for (node, direction, address) in [
        ("A", Direction::Forward, "10.10.1.2"),
        ("B", Direction::Forward, "10.10.1.2"),
        ("B", Direction::Reply, "10.10.0.2"),
        ("A", Direction::Reply, "10.10.0.2"),
    ] {
        let rule = ["FORWARD", "-d", address, "-j", "DROP"];
        run(&lab, node, &[&["iptables", "-I"], rule.as_slice()].concat());
        let report = trace(&lab, &[]);
        run(&lab, node, &[&["iptables", "-D"], rule.as_slice()].concat());
        dropped(&report, direction, node, "NETFILTER_DROP", "nft_do_chain");
        let stage = report.verdict.r#where.as_ref().and_then(|p| p.stage.clone());
        assert_eq!(stage.as_deref(), Some("forward"));
        let journey = report.journeys.iter().find(|j| j.drop.is_some()).expect("a drop");
        let drop = journey.drop.as_ref().expect("a drop");
        assert_eq!(drop.hook.as_deref(), Some("FORWARD"));
        assert!(drop.stack.iter().any(|f| f == "ip_forward"), "{:?}", drop.stack);
    }
    let healthy = podtrace(&lab, &["--src", "A.a", "--dst", "B.b", "--probe", "--format", "json"]);
    assert_eq!(healthy.status, 0, "{}", healthy.stdout);
}

#[test]
fn a_forward_policy_without_flannels_rules_drops() {
    if !privileged() {
        return;
    }
    let lab = TestLab::up(|_| {});
    run(&lab, "A", &["iptables", "-F", "FLANNEL-FWD"]);
    run(&lab, "A", &["iptables", "-P", "FORWARD", "DROP"]);
    let report = trace(&lab, &["-4"]);
    dropped(&report, Direction::Forward, "A", "NETFILTER_DROP", "nft_do_chain");
    is(report.verdict.last_seen.as_ref(), "A", Role::Bridge, Hook::Ingress);
    is(report.verdict.next_expected.as_ref(), "A", Role::Vxlan, Hook::Egress);
}

#[test]
fn a_drop_of_ipv6_is_found_too() {
    if !privileged() {
        return;
    }
    let lab = TestLab::up(|_| {});
    run(&lab, "B", &["ip6tables", "-I", "FORWARD", "-d", "fd00:10:10:1::2", "-j", "DROP"]);
    let report = trace(&lab, &["-6"]);
    dropped(&report, Direction::Forward, "B", "NETFILTER_DROP", "nft_do_chain");
    is(report.verdict.last_seen.as_ref(), "B", Role::Vxlan, Hook::Ingress);
    let healthy =
        podtrace(&lab, &["--src", "A.a", "--dst", "B.b", "-4", "--probe", "--format", "json"]);
    assert_eq!(healthy.status, 0, "{}", healthy.stdout);
}

#[test]
fn a_firewall_on_the_tunnel_port_is_found_at_input_and_output() {
    if !privileged() {
        return;
    }
    let lab = TestLab::up(|_| {});
    for (node, chain, last, hook) in
        [("B", "INPUT", Role::Physical, Hook::Ingress), ("A", "OUTPUT", Role::Vxlan, Hook::Egress)]
    {
        let rule = [chain, "-p", "udp", "--dport", "8472", "-j", "DROP"];
        run(&lab, node, &[&["iptables", "-I"], rule.as_slice()].concat());
        let report = trace(&lab, &[]);
        run(&lab, node, &[&["iptables", "-D"], rule.as_slice()].concat());
        dropped(&report, Direction::Forward, node, "NETFILTER_DROP", "nft_do_chain");
        is(report.verdict.last_seen.as_ref(), node, last, hook);
        let stage = report.verdict.r#where.as_ref().and_then(|p| p.stage.clone());
        assert_eq!(stage, Some(chain.to_lowercase()));
    }
}

#[test]
fn a_cut_wire_is_a_loss_between_the_nodes() {
    if !privileged() {
        return;
    }
    let lab = TestLab::up(|_| {});
    // The nodes know each other's hardware address; without, it is the resolution that fails.
    run(&lab, "A.a", &["ping", "-c1", "-W5", "10.10.1.2"]);
    run(&lab, "wire", &["ip", "link", "set", "u2", "down"]);
    let report = trace(&lab, &[]);
    let v = &report.verdict;
    assert_eq!((v.status, v.direction), (Status::Lost, Some(Direction::Forward)), "{v:#?}");
    is(v.last_seen.as_ref(), "A", Role::Physical, Hook::Egress);
    is(v.next_expected.as_ref(), "B", Role::Physical, Hook::Ingress);
    assert!(v.evidence.iter().any(|e| e.contains("lost")), "{:?}", v.evidence);
}

#[test]
fn a_refusal_is_told_from_a_drop() {
    if !privileged() {
        return;
    }
    let lab = TestLab::up(|_| {});
    run(
        &lab,
        "B",
        &[
            "iptables",
            "-I",
            "FORWARD",
            "-d",
            "10.10.1.2",
            "-j",
            "REJECT",
            "--reject-with",
            "icmp-admin-prohibited",
        ],
    );
    let report = trace(&lab, &[]);
    let v = &report.verdict;
    assert_eq!((v.status, v.direction), (Status::Rejected, Some(Direction::Forward)), "{v:#?}");
    assert_eq!(v.kernel_reason.as_ref().map(|r| r.name.as_str()), Some("NETFILTER_DROP"));
    assert!(report.icmp_errors.iter().any(|e| (e.r#type, e.code) == (3, 13)));
}

#[test]
fn a_closed_port_refuses() {
    if !privileged() {
        return;
    }
    let lab = TestLab::up(|_| {});
    for (proto, function) in [("--probe=tcp", "tcp_v4_rcv"), ("--probe=udp", "__udp4_lib_rcv")] {
        let args = ["--src", "A.a", "--dst", "B.b", proto, "--port", "9", "--format", "json"];
        let run = podtrace(&lab, &args);
        assert_eq!(run.status, 3, "{}{}", run.stdout, run.stderr);
        let report = run.report();
        let v = &report.verdict;
        assert_eq!((v.status, v.direction), (Status::Rejected, Some(Direction::Forward)), "{v:#?}");
        assert_eq!(v.kernel_reason.as_ref().map(|r| r.name.as_str()), Some("NO_SOCKET"));
        let place = v.r#where.as_ref().expect("a place");
        assert_eq!((place.node.as_deref(), place.pod.as_deref()), (Some("B"), Some("b")));
        assert_eq!(place.function.as_deref(), Some(function));
    }
}

#[test]
fn late_drops_are_waited_for() {
    if !privileged() {
        return;
    }
    let lab = TestLab::up(|_| {});
    // The tunnel's far end is an address where nobody is.
    let fdb = run(&lab, "A", &["bridge", "fdb", "show", "dev", "flannel.1"]);
    let mac = fdb.split(' ').next().expect("an entry");
    run(&lab, "A", &["bridge", "fdb", "replace", mac, "dev", "flannel.1", "dst", "192.168.10.99"]);
    let report = trace(&lab, &["--count", "2"]);
    let v = &report.verdict;
    assert_eq!((v.status, v.direction), (Status::Dropped, Some(Direction::Forward)), "{v:#?}");
    assert_eq!(v.kernel_reason.as_ref().map(|r| r.name.as_str()), Some("NEIGH_FAILED"));
    is(v.last_seen.as_ref(), "A", Role::Vxlan, Hook::Egress);
    let asked = report.resolutions.iter().find(|r| r.target == "192.168.10.99");
    assert!(asked.is_some_and(|r| r.answer.is_none() && r.requests >= 2), "{asked:?}");
}

#[test]
fn no_traffic_is_said_to_be_none() {
    if !privileged() {
        return;
    }
    let lab = TestLab::up(|_| {});
    let run = podtrace(
        &lab,
        &["--src", "A.a", "--dst", "B.b", "--duration", "300ms", "--format", "json"],
    );
    assert_eq!(run.status, 4, "{}{}", run.stdout, run.stderr);
    assert_eq!(run.report().verdict.status, Status::NoTraffic);
}
