//! Hop programs as clsact filters, which any kernel can do: they see the same, stand in nobody's
//! way, and do not outlive their podtrace for long.

#![expect(clippy::expect_used, reason = "helpers of tests fail the test")]

mod common;

use common::clsact::{clsact_filters, clsact_qdiscs};
use common::trace::{Live, hops, journeys, podtrace, run};
use common::{TestLab, privileged};
use nix::sys::signal::Signal;
use tracer::lab::Lab;
use tracer::model::Direction;
use tracer::report::Status;

const NONE: [String; 0] = [];

fn watch(lab: &Lab, src: &str, dst: &str) -> Live {
    Live::start(lab, &["--src", src, "--dst", dst, "--attach", "clsact", "--format", "json"])
}

#[test]
fn clsact_shows_the_twelve_hops_that_tcx_shows() {
    if !privileged() {
        return;
    }
    let lab = TestLab::up(|_| {});
    for family in ["-4", "-6"] {
        let args = ["--src", "A.a", "--dst", "B.b", "--probe", "-c", "2", "-s", "56", family];
        let run =
            podtrace(&lab, &[&args[..], &["--attach", "clsact", "--format", "json"]].concat());
        assert_eq!(run.status, 0, "{}{}", run.stdout, run.stderr);
        let report = run.report();
        assert_eq!(report.verdict.status, Status::Delivered, "{:#?}", report.verdict);
        assert_eq!(report.loss.events_lost, 0);
        for direction in [Direction::Forward, Direction::Reply] {
            let all = journeys(&report, direction);
            assert!(all.len() >= 2);
            for journey in all {
                assert_eq!(journey.hops.len(), 12, "{:?}", hops(journey));
            }
        }
        assert_eq!(clsact_qdiscs(&lab), NONE);
    }
}

#[test]
fn a_killed_podtrace_is_cleaned_up_after_by_the_next() {
    if !privileged() {
        return;
    }
    let lab = TestLab::up(|_| {});
    let live = watch(&lab, "A.a", "B.b");
    assert!(clsact_filters(&lab).len() >= 24, "{:?}", clsact_filters(&lab));
    assert_eq!(live.signal(Signal::SIGKILL).status, 128 + 9);
    let left = clsact_filters(&lab);
    assert!(left.len() >= 24, "{left:?}");
    // Another flow, which does not enter the namespaces of the first one's pods.
    let args =
        ["--src", "A.a2", "--dst", "B.b2", "--attach", "clsact", "--duration", "100ms", "-q"];
    let next = podtrace(&lab, &args);
    assert_eq!(next.status, 4, "{}", next.stderr);
    assert_eq!(clsact_filters(&lab), NONE);
    assert_eq!(clsact_qdiscs(&lab), NONE);
}

#[test]
fn filters_of_others_stay_and_ours_see_packets_before_them() {
    if !privileged() {
        return;
    }
    let lab = TestLab::up(|_| {});
    // Takes everything out of the list of filters, as a filter of another tool may.
    run(&lab, "A", &["tc", "qdisc", "add", "dev", "cni0", "clsact"]);
    for (way, device) in [("ingress", "cni0"), ("egress", "cni0")] {
        let add = ["tc", "filter", "add", "dev", device, way, "prio", "5", "protocol", "all"];
        // One instruction of classic BPF: return 0xffffffff, "matches".
        let all = ["bpf", "bytecode", "1,6 0 0 4294967295", "flowid", "1:1"];
        run(&lab, "A", &[&add[..], &all[..]].concat());
    }
    let others = |lab: &Lab| {
        ["ingress", "egress"]
            .map(|way| run(lab, "A", &["tc", "filter", "show", "dev", "cni0", way]))
    };
    let before = others(&lab);
    assert!(before.iter().all(|text| text.contains("bytecode")), "{before:?}");
    let live = watch(&lab, "A.a", "B.b");
    run(&lab, "A.a", &["ping", "-c1", "-W30", "10.10.1.2"]);
    let report = live.interrupt().report();
    assert_eq!(journeys(&report, Direction::Forward)[0].hops.len(), 12);
    assert_eq!(others(&lab), before);
    assert_eq!(clsact_qdiscs(&lab), ["A cni0"]);
    // The same when podtrace is killed.
    watch(&lab, "A.a", "B.b").signal(Signal::SIGKILL);
    let args = ["--src", "A.a", "--dst", "B.b", "--attach", "clsact", "--duration", "100ms", "-q"];
    assert_eq!(podtrace(&lab, &args).status, 4);
    assert_eq!(others(&lab), before);
    assert_eq!(clsact_qdiscs(&lab), ["A cni0"]);
}

#[test]
fn two_podtraces_share_a_qdisc_and_the_last_removes_it() {
    if !privileged() {
        return;
    }
    let lab = TestLab::up(|_| {});
    let first = watch(&lab, "A.a", "B.b");
    let of_first = clsact_filters(&lab);
    let second = watch(&lab, "A.a2", "B.b");
    // The second has found nothing to clean up.
    let both = clsact_filters(&lab);
    assert!(of_first.iter().all(|filter| both.contains(filter)), "{of_first:?} {both:?}");
    run(&lab, "A.a2", &["ping", "-c1", "-W30", "10.10.1.2"]);
    assert_eq!(first.interrupt().status, 4);
    assert!(!clsact_filters(&lab).is_empty());
    run(&lab, "A.a2", &["ping", "-c1", "-W30", "10.10.1.2"]);
    let report = second.interrupt().report();
    assert_eq!(report.packets.replied, 2);
    assert_eq!(clsact_qdiscs(&lab), NONE);
}

#[test]
fn an_ingress_qdisc_limits_what_is_seen_and_is_said_so() {
    if !privileged() {
        return;
    }
    let lab = TestLab::up(|_| {});
    run(&lab, "B", &["tc", "qdisc", "add", "dev", "cni0", "ingress"]);
    let args = ["--src", "A.a", "--dst", "B.b", "--probe", "-c", "1", "-4"];
    let run = podtrace(&lab, &[&args[..], &["--attach", "clsact", "--format", "json"]].concat());
    let report = run.report();
    assert_eq!(report.packets.replied, report.packets.sent, "{}", run.stdout);
    let limit = "B.cni0 egress cannot be observed: an ingress qdisc is where clsact would be";
    assert!(run.stderr.contains(limit), "{}", run.stderr);
    assert!(report.notes.iter().any(|note| note.contains(limit)), "{:?}", report.notes);
    assert_eq!(clsact_qdiscs(&lab), ["B cni0"]);
    assert_eq!(clsact_filters(&lab), NONE);
}
