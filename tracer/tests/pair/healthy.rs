//! Packets that arrive, and what is said of time.

use tracer::export::json;
use tracer::export::text::{self, TextOptions};
use tracer::model::{Direction, Outcome};
use tracer::record::{Reader, replay};
use tracer::report::{ClockMethod, Report, Status};

use crate::common::trace::{hops, journeys};
use crate::server::Server;
use crate::{AGENTS, COLLECTOR_IS_A, Pair, pair, parsed};

/// From pod to pod. Between two machines nobody sees the wire.
const WAY: [&str; 10] = [
    "A.a.eth0 egress",
    "A.veth ingress",
    "A.cni0 ingress",
    "A.flannel.1 egress",
    "A.ens33 egress",
    "B.ens33 ingress",
    "B.flannel.1 ingress",
    "B.cni0 egress",
    "B.veth egress",
    "B.b.eth0 ingress",
];

/// The way back.
fn back() -> Vec<String> {
    let turned = |hop: &&str| match hop.strip_suffix("ingress") {
        Some(hop) => format!("{hop}egress"),
        None => hop.replace("egress", "ingress"),
    };
    WAY.iter().rev().map(turned).collect()
}

/// Least and most that has to be added to B's clock to get A's, ns.
fn truth(pair: &Pair) -> [i128; 2] {
    let (a, [a_before, a_after]) = pair.a.clock();
    let (b, [b_before, b_after]) = pair.b.clock();
    // B was asked after A: by so much A's clock has gone on.
    let later = [b_before - a_after, b_after - a_before];
    later.map(|later| i128::from(a) - i128::from(b) + later.as_nanos().cast_signed())
}

#[track_caller]
fn assert_delivered(report: &Report) {
    assert_eq!(report.verdict.status, Status::Delivered, "{:#?}", report.verdict);
    assert!(report.findings.is_empty(), "{:#?}", report.findings);
    assert_eq!(report.loss.events_lost, 0, "{:#?}", report.loss);
    assert!(report.journeys.iter().all(|j| j.outcome == Outcome::Delivered));
}

/// B's clock is known within the stated bound, and only steps from machine to machine are inexact.
#[track_caller]
fn assert_clock(report: &Report, truth: [[i128; 2]; 2]) {
    let clock = report.clock.iter().find(|clock| clock.node == "B").expect("B's clock");
    assert_ne!(clock.method, ClockMethod::SameClock);
    assert_eq!(clock.steps, 0, "{clock:#?}");
    let error = clock.error_ns.expect("an error bound");
    let told = [-1, 1].map(|sign| i128::from(clock.offset_ns) + sign * i128::from(error));
    // The clocks drift apart from one reading to the other.
    let [before, after] = truth;
    let at_some_time = [before[0].min(after[0]), before[1].max(after[1])];
    assert!(
        told[0] <= at_some_time[1] && at_some_time[0] <= told[1],
        "{clock:#?}, truth {before:?} … {after:?}"
    );
    for pair in report.journeys.iter().flat_map(|journey| journey.hops.windows(2)) {
        let crosses = pair[0].point.node != pair[1].point.node;
        let error = pair[1].delta_error_ns.expect("a bound");
        assert_eq!(error > 0, crosses, "{:#?}", pair[1]);
    }
}

#[test]
fn a_ping_is_followed_from_machine_to_machine_and_replayed_elsewhere() {
    let Some(pair) = pair() else { return };
    let before = truth(&pair);
    let answer = pair.podtrace(AGENTS, "--probe --format json -w /run/x.podtrace");
    let after = truth(&pair);
    let report = parsed(&answer);
    assert_delivered(&report);
    assert_eq!((report.packets.sent, report.packets.replied), (5, 5));
    for journey in journeys(&report, Direction::Forward) {
        assert_eq!(hops(journey), WAY);
    }
    for journey in journeys(&report, Direction::Reply) {
        assert_eq!(hops(journey), back());
    }
    assert_clock(&report, [before, after]);

    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), pair.a.read("/run/x.podtrace")).expect("write the file");
    let replayed = replay(&mut Reader::open(file.path()).expect("a recording")).expect("a replay");
    assert_eq!(json::render(&replayed.report), answer.stdout);
    let kernels: Vec<_> = replayed.header.machines.iter().map(|m| m.kernel.as_str()).collect();
    for series in ["6.1.", "6.12."] {
        assert!(kernels.iter().any(|kernel| kernel.starts_with(series)), "{kernels:?}");
    }
    let text = text::render(&replayed.report, &TextOptions::default());
    let crossing = text.lines().filter(|line| line.contains("step ±"));
    assert!(crossing.count() >= 2, "{text}");
}

#[test]
fn ipv6_is_followed_by_a_collector_that_is_a_node_itself() {
    let Some(pair) = pair() else { return };
    let before = truth(&pair);
    let report = pair.probe(COLLECTOR_IS_A, "-6");
    let after = truth(&pair);
    assert_delivered(&report);
    assert!(report.journeys[0].hops[0].inner.src_ip.contains(':'));
    assert_clock(&report, [before, after]);
}

#[test]
fn a_service_is_followed_to_its_pod_on_the_other_machine() {
    let Some(pair) = pair() else { return };
    let _server = Server::start(&pair, 1);
    let args = "--probe=tcp --port 80 --format json";
    let report = parsed(&pair.podtrace_to("10.96.0.10", AGENTS, args));
    assert_delivered(&report);
    assert_eq!(report.dst.name, "B.b");
    assert_eq!(report.dst.service.as_deref(), Some("10.96.0.10:80"));
    let first = &journeys(&report, Direction::Forward)[0].hops;
    let ends = [first.first(), first.last()].map(|hop| hop.expect("a hop").inner.dst_ip.clone());
    assert_eq!(ends, ["10.96.0.10", "10.10.1.2"]);
}
