//! Agent, collector or link gone in the middle of a trace.

use tracer::model::Outcome;
use tracer::report::{Report, Status};

use crate::guest::Guest;
use crate::{AGENTS, COLLECTOR_IS_A, Pair, pair, parsed};

/// Succeeds when programs of podtrace are loaded.
const LOADED: &str = "bpftool prog show | grep -q sched_cls";

/// A collector on A that goes on until it is told to stop, and watches already a ping that goes on
/// as long.
fn collector(pair: &Pair, inventory: &str) {
    pair.a.ok(&format!(
        "podtrace --src A.a --dst B.b --inventory {inventory} --format json \
         >/run/report.json 2>/run/errors & echo $! >/run/collector.pid
         until grep -q watching /run/errors; do
             kill -0 $! || {{ cat /run/errors; exit 1; }}; sleep 0.2
         done
         ip netns exec podtrace-A-a ping -i 0.2 10.10.1.2 >/run/ping.log 2>&1 & echo $! >/run/ping.pid
         until grep -q 'time=' /run/ping.log; do kill -0 $! || exit 1; sleep 0.2; done"
    ));
    // Whether B is still observed is for B itself to say; why not, for A.
    pair.b.run(LOADED).status.filter(|status| *status == 0).unwrap_or_else(|| {
        panic!("nothing is attached on B: {:?}", pair.a.run("cat /run/errors; cat /run/ping.log"))
    });
}

/// What it says in the end.
fn end(pair: &Pair) -> Report {
    parsed(&pair.a.run(
        "kill $(cat /run/ping.pid); pid=$(cat /run/collector.pid); kill -INT $pid
         while kill -0 $pid 2>/dev/null; do sleep 0.1; done
         cat /run/report.json; cat /run/errors >&2",
    ))
}

#[track_caller]
fn assert_detached(guest: &Guest) {
    guest.until(&format!("! {LOADED}"));
}

/// What is said of a node of which nobody hears any more.
#[track_caller]
fn assert_unreachable(report: &Report) {
    let told = report.notes.iter().any(|note| note.contains("B unreachable since"));
    assert!(told, "{:#?}", report.notes);
    // Where nobody looks, absence proves nothing.
    assert_ne!(report.verdict.status, Status::Lost, "{:#?}", report.verdict);
    assert!(report.journeys.iter().all(|journey| journey.outcome != Outcome::Lost));
}

#[test]
fn an_agent_that_is_killed_leaves_what_the_rest_can_prove() {
    let Some(pair) = pair() else { return };
    collector(&pair, COLLECTOR_IS_A);
    pair.b.ok("kill -9 $(cat /run/agent.pid)");
    assert_detached(&pair.b);
    pair.a.until("grep -q 'B.*unreachable' /run/errors");
    let report = end(&pair);
    pair.agent(&pair.b, "B");
    assert_unreachable(&report);
    assert_detached(&pair.a);
}

#[test]
fn a_collector_that_is_killed_leaves_nothing_on_either_machine() {
    let Some(pair) = pair() else { return };
    // On a kernel without TCX what is left on its own node would wait for the next start.
    collector(&pair, AGENTS);
    pair.a.ok("kill -9 $(cat /run/collector.pid); kill $(cat /run/ping.pid)");
    assert_detached(&pair.b);
    assert_detached(&pair.a);
}

#[test]
fn a_link_that_is_cut_is_noticed_at_both_ends() {
    let Some(pair) = pair() else { return };
    collector(&pair, COLLECTOR_IS_A);
    let fault = pair.wire.broken(|_, _| true);
    assert_detached(&pair.b);
    pair.a.until("grep -q 'B.*unreachable' /run/errors");
    let report = end(&pair);
    drop(fault);
    assert_unreachable(&report);
    assert_detached(&pair.a);
    // Neighbours are resolved anew.
    pair.a.until("ip netns exec podtrace-A-a ping -c1 -W1 10.10.1.2");
}
