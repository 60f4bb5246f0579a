//! Faults on either machine, and between them.

use tracer::model::Direction;
use tracer::report::{Confidence, Report, Status};

use crate::guest::Guest;
use crate::wire::is_vxlan;
use crate::{AGENTS, Pair, pair};

/// What podtrace says while a machine is broken; mended in the end, also when that is wrong.
struct Broken<'p> {
    guest: &'p Guest,
    mend: String,
}

impl<'p> Broken<'p> {
    fn by(guest: &'p Guest, break_it: &str, mend: &str) -> Self {
        guest.ok(break_it);
        Self { guest, mend: mend.to_owned() }
    }
}

impl Drop for Broken<'_> {
    fn drop(&mut self) {
        let answer = self.guest.run(&self.mend);
        if answer.status != Some(0) {
            eprintln!("not mended: {answer:?}");
        }
    }
}

#[track_caller]
fn assert_cause(report: &Report, node: Option<&str>, cause: &str) {
    let verdict = &report.verdict;
    assert_eq!(verdict.cause.as_deref(), Some(cause), "{verdict:#?}");
    assert_eq!(verdict.direction, Some(Direction::Forward), "{verdict:#?}");
    let place = verdict.r#where.as_ref().expect("a place");
    assert_eq!(place.node.as_deref(), node, "{verdict:#?}");
    assert_eq!(report.loss.events_lost, 0);
}

#[track_caller]
fn assert_mended(pair: &Pair) {
    let report = pair.probe(AGENTS, "-c 1");
    assert_eq!(report.verdict.status, Status::Delivered, "{:#?}", report.verdict);
}

#[test]
fn a_packet_filter_on_the_far_machine_is_found() {
    let Some(pair) = pair() else { return };
    let rule = "INPUT -p udp --dport 8472 -j DROP";
    let broken =
        Broken::by(&pair.b, &format!("iptables -I {rule}"), &format!("iptables -D {rule}"));
    let report = pair.probe(AGENTS, "");
    drop(broken);
    assert_cause(&report, Some("B"), "netfilter.drop");
    assert_eq!(
        report.verdict.r#where.as_ref().and_then(|p| p.stage.as_deref()),
        Some("input"),
        "{:#?}",
        report.verdict
    );
    assert_eq!(report.verdict.confidence, Confidence::Proven);
    assert!(report.verdict.rule.as_ref().is_some_and(|rule| rule.contains("8472")));
}

#[test]
fn a_missing_tunnel_entry_on_the_near_machine_is_found() {
    let Some(pair) = pair() else { return };
    let entry = pair.a.ok("bridge fdb show dev flannel.1");
    let words: Vec<&str> = entry.lines().next().expect("an entry").split(' ').collect();
    let [mac, "dst", address, ..] = words[..] else { panic!("{entry}") };
    let broken = Broken::by(
        &pair.a,
        &format!("bridge fdb del {mac} dev flannel.1 dst {address}"),
        &format!("bridge fdb add {mac} dev flannel.1 dst {address} self permanent"),
    );
    let report = pair.probe(AGENTS, "");
    drop(broken);
    assert_cause(&report, Some("A"), "vxlan.fdb-missing");
    // The near kernel is 6.1.
    let reason = report.verdict.kernel_reason.as_ref().expect("a reason");
    assert_eq!(reason.name, "NOT_SPECIFIED");
}

#[test]
fn a_wire_that_loses_the_tunnel_is_told_from_one_that_loses_all() {
    let Some(pair) = pair() else { return };
    let fault = pair.wire.broken(|_, frame| is_vxlan(frame));
    let report = pair.probe(AGENTS, "");
    drop(fault);
    assert_eq!(report.verdict.status, Status::Lost, "{:#?}", report.verdict);
    assert_cause(&report, None, "underlay.tunnel-blocked");
    assert_mended(&pair);
}
