//! Much traffic, other people's traffic, several traces at once.

#![expect(clippy::expect_used, reason = "helpers of tests fail the test")]

mod common;

use std::process::{Command, Stdio};

use common::trace::{Live, direction, journeys, podtrace, run};
use common::{TestLab, privileged};
use nix::sys::signal::Signal;
use tracer::model::{Direction, Outcome};
use tracer::report::Status;

#[test]
fn a_thousand_pings_a_second_are_all_seen_whole() {
    if !privileged() {
        return;
    }
    let lab = TestLab::up(|_| {});
    let run = podtrace(
        &lab,
        &[
            "--src",
            "A.a",
            "--dst",
            "B.b",
            "--probe",
            "--count",
            "5000",
            "--interval",
            "1ms",
            "--format",
            "json",
        ],
    );
    assert_eq!(run.status, 0, "{}", run.stderr);
    let report = run.report();
    assert_eq!(report.loss.events_lost, 0);
    assert_eq!(
        (report.packets.sent, report.packets.delivered, report.packets.replied),
        (5000, 5000, 5000)
    );
    assert_eq!(report.packets.duplicated, 0);
    // A report lists the first of so many, and says how many more there were.
    assert!(!report.journeys.is_empty());
    assert_eq!(report.journeys.len() as u64 + report.journeys_omitted, 2 * 5000);
    for way in [Direction::Forward, Direction::Reply] {
        let listed = journeys(&report, way);
        let broken = listed.iter().find(|j| j.hops.len() != 12 || j.outcome != Outcome::Delivered);
        assert!(broken.is_none(), "{broken:#?}");
        assert!(direction(&report, way).hops.iter().all(|h| h.packets == 5000 && h.lost == 0));
    }
}

#[test]
fn two_traces_at_once_do_not_disturb_each_other() {
    if !privileged() {
        return;
    }
    let lab = TestLab::up(|_| {});
    let one = Live::start(&lab, &["--src", "A.a", "--dst", "B.b", "--format", "json"]);
    let two = Live::start(&lab, &["--src", "A.a2", "--dst", "B.b", "--format", "json"]);
    run(&lab, "A.a", &["ping", "-c3", "-i0.05", "10.10.1.2"]);
    run(&lab, "A.a2", &["ping", "-c4", "-i0.05", "10.10.1.2"]);
    for (live, sent, source) in [(one, 3, "10.10.0.2"), (two, 4, "10.10.0.3")] {
        let report = live.interrupt().report();
        assert_eq!(report.verdict.status, Status::Delivered, "{:#?}", report.verdict);
        assert_eq!((report.packets.sent, report.packets.replied), (sent, sent));
        for journey in journeys(&report, Direction::Forward) {
            assert_eq!(journey.hops.len(), 12);
            assert_eq!(journey.hops[0].inner.src_ip, source);
        }
    }
}

#[test]
fn two_traces_of_one_flow_see_the_same() {
    if !privileged() {
        return;
    }
    let lab = TestLab::up(|_| {});
    let args = ["--src", "A.a", "--dst", "B.b", "--format", "json"];
    let traces = [Live::start(&lab, &args), Live::start(&lab, &args)];
    run(&lab, "A.a", &["ping", "-c5", "-i0.05", "10.10.1.2"]);
    for live in traces {
        let report = live.interrupt().report();
        assert_eq!(report.verdict.status, Status::Delivered, "{:#?}", report.verdict);
        assert_eq!((report.packets.sent, report.packets.replied), (5, 5));
        assert!(report.journeys.iter().all(|j| j.hops.len() == 12));
    }
}

#[test]
fn events_that_find_no_room_are_counted_and_nothing_is_concluded_from_them() {
    if !privileged() {
        return;
    }
    let lab = TestLab::up(|_| {});
    let args = ["--src", "A.a", "--dst", "B.b", "--buffer", "1", "--format", "json"];
    let live = Live::start(&lab, &args);
    // While it does not read, the buffer takes less than half of this.
    live.send(Signal::SIGSTOP);
    run(&lab, "A.a", &["ping", "-f", "-q", "-c", "1000", "10.10.1.2"]);
    live.send(Signal::SIGCONT);
    let run = live.interrupt();
    let report = run.report();
    let seen: u64 = report.directions.iter().flat_map(|d| &d.hops).map(|h| h.packets).sum();
    assert!(report.loss.events_lost > 0 && seen > 0);
    // Twelve hops each way; drop events (one per answered ping) are lost too.
    assert!(seen < 24_000, "{seen}");
    assert!(seen + report.loss.events_lost >= 24_000, "{seen} + {}", report.loss.events_lost);
    let v = &report.verdict;
    assert!(matches!(v.status, Status::Delivered | Status::Inconclusive), "{v:#?}");
    assert!(v.evidence.iter().any(|e| e.contains("events were lost")), "{v:#?}");
}

#[test]
fn a_busy_neighbour_does_not_appear() {
    if !privileged() {
        return;
    }
    let lab = TestLab::up(|_| {});
    let flood = |from: &str, to: &str| {
        let mut command = Command::new("ping");
        command.args(["-f", "-q", "-c", "20000", to]).stdout(Stdio::null()).stderr(Stdio::null());
        lab.spawn(from, &mut command).expect("start ping")
    };
    // The same destination from another pod, and another destination from the same pod: only one
    // of the two addresses is the flow's. And a third between two others.
    let live = Live::start(&lab, &["--src", "A.a", "--dst", "B.b", "--format", "json"]);
    let mut floods =
        [flood("A.a2", "10.10.1.2"), flood("A.a", "10.10.1.3"), flood("B.b2", "10.10.0.3")];
    run(&lab, "A.a", &["ping", "-c", "20", "-i", "0.02", "10.10.1.2"]);
    let report = live.interrupt().report();
    for child in &mut floods {
        child.kill().expect("end ping");
        child.wait().expect("wait for ping");
    }
    assert_eq!(report.verdict.status, Status::Delivered, "{:#?}", report.verdict);
    assert_eq!(report.loss.events_lost, 0);
    assert_eq!((report.packets.sent, report.packets.replied), (20, 20));
    for journey in &report.journeys {
        for hop in &journey.hops {
            let ends = [hop.inner.src_ip.as_str(), hop.inner.dst_ip.as_str()];
            assert!(ends.contains(&"10.10.0.2") && ends.contains(&"10.10.1.2"), "{hop:?}");
        }
    }
    for resolution in &report.resolutions {
        assert_ne!(resolution.asker, "10.10.0.3");
    }
}

#[test]
fn a_filter_on_the_port_keeps_other_connections_out() {
    if !privileged() {
        return;
    }
    let lab = TestLab::up(|_| {});
    let _one = common::trace::http_server(&lab, "B.b", 8080, 100);
    let _two = common::trace::http_server(&lab, "B.b", 8081, 100);
    let live = Live::start(
        &lab,
        &["--src", "A.a", "--dst", "B.b", "--proto", "tcp", "--port", "8081", "--format", "json"],
    );
    for port in [8080, 8081] {
        let url = format!("http://10.10.1.2:{port}/file");
        run(&lab, "A.a", &["curl", "-sf", "-m", "30", "-o", "/dev/null", &url]);
    }
    run(&lab, "A.a", &["ping", "-c1", "10.10.1.2"]);
    let report = live.interrupt().report();
    assert_eq!(report.verdict.status, Status::Delivered, "{:#?}", report.verdict);
    assert!(report.journeys.len() > 5);
    for journey in &report.journeys {
        let inner = &journey.hops[0].inner;
        assert!(inner.src_port == Some(8081) || inner.dst_port == Some(8081), "{inner:?}");
    }
}

#[test]
fn an_end_with_hundreds_of_addresses_is_followed() {
    if !privileged() {
        return;
    }
    let lab = TestLab::up(|_| {});
    // More than the programs hold as constants: a map decides.
    let more = |network: &str| (1..=250).map(|n| format!("{network}{n}\", \"")).collect::<String>();
    let inventory = std::fs::read_to_string(lab.inventory_path()).expect("the inventory");
    let many = format!("\"{}{}10.10.0.2\"", more("10.77.0."), more("fd00:77::"));
    let inventory = inventory.replace("\"10.10.0.2\"", &many);
    std::fs::write(lab.inventory_path(), inventory).expect("a larger inventory");
    for (other, another, dst, src) in [
        ("10.10.1.3", "10.10.1.2", "10.10.1.2", "10.10.0.2"),
        ("fd00:10:10:1::3", "fd00:10:10:1::2", "fd00:10:10:1::2", "fd00:10:10::2"),
    ] {
        let live = Live::start(&lab, &["--src", "A.a", "--dst", "B.b", "--format", "json"]);
        run(&lab, "A.a", &["ping", "-c5", "-i0.05", other]);
        run(&lab, "A.a2", &["ping", "-c5", "-i0.05", another]);
        run(&lab, "A.a", &["ping", "-c3", "-i0.05", dst]);
        let report = live.interrupt().report();
        assert_eq!(report.src.ips.len(), 502);
        assert_eq!(report.verdict.status, Status::Delivered, "{:#?}", report.verdict);
        assert_eq!((report.packets.sent, report.packets.replied), (3, 3));
        assert!(report.journeys.iter().all(|j| j.hops.len() == 12), "{:#?}", report.journeys);
        for journey in journeys(&report, Direction::Forward) {
            let inner = &journey.hops[0].inner;
            assert_eq!((inner.src_ip.as_str(), inner.dst_ip.as_str()), (src, dst));
        }
    }
}

#[test]
fn tunnel_packets_that_cannot_be_read_count_where_they_were_seen() {
    if !privileged() {
        return;
    }
    let lab = TestLab::up(|_| {});
    // Clears the flag in the VXLAN header that says that there is a network identifier.
    let rules = "add table ip t; add chain ip t p { type filter hook postrouting priority 300; }; \
                 add rule ip t p udp dport 8472 @th,64,8 set 0";
    run(&lab, "A", &["nft", rules]);
    let args = ["--src", "A.a", "--dst", "B.b", "--probe", "-c", "3", "--format", "json"];
    let run = podtrace(&lab, &args);
    assert_eq!(run.status, 4, "{}{}", run.stdout, run.stderr);
    let report = run.report();
    assert_eq!(report.verdict.status, Status::Inconclusive, "{:#?}", report.verdict);
    assert!(report.verdict.summary.contains("could not be read"), "{:#?}", report.verdict);
    assert!(report.loss.by_node["A"].undecodable >= 3, "{:?}", report.loss);
    let packets = &report.packets;
    assert_eq!((packets.sent, packets.delivered, packets.unknown), (3, 0, 3));
    assert!(report.directions.iter().all(|d| !d.outcomes.contains_key("lost")));
}
