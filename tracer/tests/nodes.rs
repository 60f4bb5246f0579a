//! Nodes on other machines: the same trace, wherever a node is.

#![expect(clippy::expect_used, reason = "helpers of tests fail the test")]

mod common;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use common::loopback::{Far, nodes};
use common::trace::{hops, journeys, run};
use common::{TestLab, kernel_at_least, privileged};
use tracer::endpoint;
use tracer::export::json;
use tracer::kernel::AttachWith;
use tracer::lab::Lab;
use tracer::model::{Direction, Outcome};
use tracer::node::Nodes;
use tracer::probe::Proto;
use tracer::record::{Reader, Target, replay};
use tracer::report::{ClockMethod, Confidence, Report, Status};
use tracer::session::{Session, Spec};

/// As `--probe` does it.
fn spec() -> Spec {
    Spec {
        probe: Some(Proto::Icmp),
        proto: None,
        port: None,
        count: None,
        duration: None,
        interval: Duration::from_millis(200),
        size: None,
        ipv4: true,
        ipv6: false,
        snaplen: None,
        btf: None,
        attach: AttachWith::Any,
        buffer: 8,
        watched: false,
    }
}

fn start(nodes: &Nodes) -> Session {
    start_with(spec(), nodes)
}

fn start_with(spec: Spec, nodes: &Nodes) -> Session {
    let end = |name| endpoint::resolve(name, nodes).expect("endpoint");
    let (src, dst) = (end("A.a"), end("B.b"));
    Session::start(spec, src, &dst.into(), nodes, Arc::default()).expect("a session")
}

fn finish(mut session: Session) -> Report {
    while session.step(Duration::from_millis(20)) {}
    let finished = session.finish().expect("a report");
    finished.recording.transpose().expect("a recording");
    finished.report
}

fn trace(nodes: &Nodes) -> Report {
    finish(start(nodes))
}

/// A clock that was started at another time.
fn far(ahead: Duration) -> Arc<Far> {
    let far = Arc::<Far>::default();
    far.ahead_ns.store(i64::try_from(ahead.as_nanos()).expect("small"), Relaxed);
    far
}

const DAY: Duration = Duration::from_secs(86_400);

/// Every way of having nodes elsewhere.
fn ways(lab: &Lab) -> Vec<(&'static str, Nodes)> {
    let day = DAY;
    vec![
        ("here", nodes(lab, &[])),
        ("B elsewhere", nodes(lab, &[("B", far(day))])),
        ("A elsewhere", nodes(lab, &[("A", far(day))])),
        ("both elsewhere", nodes(lab, &[("A", far(day)), ("B", far(day / 24))])),
    ]
}

#[track_caller]
fn assert_delivered(report: &Report, way: &str) {
    let verdict = &report.verdict;
    assert_eq!(verdict.status, Status::Delivered, "{way}: {report:#?}");
    assert!(report.findings.is_empty(), "{way}: {:#?}", report.findings);
    assert_eq!(report.loss.events_lost, 0, "{way}");
    assert_eq!((report.packets.sent, report.packets.replied), (5, 5), "{way}");
    assert!(report.journeys.iter().all(|j| j.outcome == Outcome::Delivered), "{way}");
    // By whichever clock, they began within the trace.
    assert!(report.journeys.iter().all(|j| j.start_ns < report.duration_ns), "{way}");
}

/// The truth about B's clock is within what is said, and only steps from node to node are inexact.
#[track_caller]
fn assert_clock(report: &Report, way: &str) {
    let day = 86_400_000_000_000_i64;
    let truth = match way {
        "B elsewhere" => -day,
        "A elsewhere" => day,
        "both elsewhere" => day - day / 24,
        _ => 0,
    };
    let clock = report.clock.iter().find(|clock| clock.node == "B").expect("a clock");
    let error = clock.error_ns.expect("it was asked");
    assert!(clock.offset_ns.abs_diff(truth) <= error, "{way}: {clock:?}");
    assert_eq!(clock.method == ClockMethod::SameClock, truth == 0, "{way}: {clock:?}");
    assert_eq!(clock.steps, 0, "{way}: {clock:?}");
    for pair in report.journeys.iter().flat_map(|journey| journey.hops.windows(2)) {
        let apart = pair[0].point.node != pair[1].point.node && truth != 0;
        assert_eq!(pair[1].delta_error_ns != Some(0), apart, "{way}: {:#?}", pair[1]);
    }
}

#[test]
fn a_healthy_path_is_the_same_wherever_its_nodes_are() {
    if !privileged() {
        return;
    }
    let lab = TestLab::up(|_| {});
    let mut first: Option<Vec<Vec<String>>> = None;
    // What has to be added to B's clock to get A's, hours.
    let ahead = [0, -24, 24, 23];
    for ((way, nodes), hours) in ways(&lab).into_iter().zip(ahead) {
        let report = trace(&nodes);
        assert_delivered(&report, way);
        let clock = report.clock.iter().find(|clock| clock.node == "B").expect("B's clock");
        let error = clock.error_ns.expect("both were asked, and packets crossed");
        let truth = hours * 3_600_000_000_000_i64;
        assert!(clock.offset_ns.abs_diff(truth) <= error, "{way}: {clock:?}");
        assert!(error < 100_000_000, "{way}: {clock:?}");
        let paths = [Direction::Forward, Direction::Reply]
            .map(|direction| hops(journeys(&report, direction)[0]));
        assert_eq!(paths[0].len(), 10, "{way}");
        assert_clock(&report, way);
        match &first {
            None => first = Some(paths.to_vec()),
            Some(first) => assert_eq!(*first, paths, "{way}"),
        }
    }
}

/// What a verdict says, but for names that are random.
fn said(report: &Report) -> impl PartialEq + std::fmt::Debug + use<> {
    let verdict = &report.verdict;
    let point = |p: &Option<tracer::report::PointReport>| {
        p.as_ref().map(|p| (p.node.clone(), p.interface.clone(), p.hook))
    };
    (
        (verdict.status, verdict.direction, verdict.cause.clone(), verdict.confidence),
        verdict.r#where.as_ref().map(|p| (p.node.clone(), p.stage.clone(), p.function.clone())),
        (point(&verdict.last_seen), point(&verdict.next_expected)),
        verdict.kernel_reason.as_ref().map(|r| r.name.clone()),
    )
}

/// The same verdict everywhere while the lab is broken; it is mended in the end.
#[track_caller]
fn same_everywhere(lab: &Lab, at: &str, breaks: &[&str], mends: &[&str]) -> Report {
    run(lab, at, breaks);
    let mut reports = Vec::new();
    for (way, nodes) in ways(lab) {
        reports.push((way, trace(&nodes)));
    }
    run(lab, at, mends);
    let (_, here) = &reports[0];
    for (way, report) in &reports[1..] {
        assert_eq!(said(report), said(here), "{way}: {:#?}", report.verdict);
    }
    reports.remove(0).1
}

#[test]
fn a_fault_is_found_wherever_its_node_is() {
    if !privileged() {
        return;
    }
    let lab = TestLab::up(|_| {});

    let rule = ["FORWARD", "-d", "10.10.1.2", "-j", "DROP"];
    let (insert, delete) =
        ([&["iptables", "-I"], rule.as_slice()], [&["iptables", "-D"], rule.as_slice()]);
    let report = same_everywhere(&lab, "B", &insert.concat(), &delete.concat());
    assert_eq!(report.verdict.status, Status::Dropped, "{:#?}", report.verdict);
    assert_eq!(report.verdict.confidence, Confidence::Proven);
    let place = report.verdict.r#where.expect("a place");
    assert_eq!(place.node.as_deref(), Some("B"));

    let fdb = run(&lab, "A", &["bridge", "fdb", "show", "dev", "flannel.1"]);
    let entry: Vec<&str> = fdb.lines().next().expect("an entry").split(' ').collect();
    let (mac, to) = (entry[0], entry[2]);
    assert_eq!(entry[1], "dst", "{fdb}");
    let change = |what| ["bridge", "fdb", what, mac, "dev", "flannel.1", "dst", to, "self"];
    let back = [change("add").as_slice(), &["permanent"]].concat();
    let report = same_everywhere(&lab, "A", &change("del"), &back);
    assert_eq!(report.verdict.status, Status::Dropped, "{:#?}", report.verdict);
    assert_eq!(report.verdict.cause.as_deref(), Some("vxlan.fdb-missing"));
    let reason = if kernel_at_least(6, 12) { "NO_TX_TARGET" } else { "NOT_SPECIFIED" };
    assert_eq!(report.verdict.kernel_reason.expect("a reason").name, reason);

    // Address resolution goes on, or the neighbours would be given up.
    let rule = "table bridge fault { chain f { type filter hook forward priority 0; \
                ether type ip oifname u2 drop; }; }";
    let mend = ["nft", "delete", "table", "bridge", "fault"];
    let report = same_everywhere(&lab, "wire", &["nft", rule], &mend);
    assert_eq!(report.verdict.status, Status::Lost, "{:#?}", report.verdict);
    assert_eq!(report.verdict.cause.as_deref(), Some("underlay.lost"));
}

#[test]
fn a_node_that_dies_leaves_what_the_rest_can_prove() {
    if !privileged() {
        return;
    }
    let lab = TestLab::up(|_| {});

    // A ping and its answer cross five stations of B each; some come and go, then B is gone.
    let far = far(Duration::from_secs(86_400));
    far.lives_for.store(25, Relaxed);
    let report = trace(&nodes(&lab, &[("B", far)]));
    let verdict = &report.verdict;
    assert_ne!(verdict.status, Status::Lost, "absence at B proves nothing: {verdict:#?}");
    assert_ne!(verdict.status, Status::Dropped, "{verdict:#?}");
    assert!((1..5).contains(&report.packets.delivered), "{:#?}", report.packets);
    assert!(report.journeys.iter().all(|j| j.outcome != Outcome::Lost));
    let gone = |line: &String| line.contains("B") && line.contains("unreachable");
    assert!(report.notes.iter().any(gone), "{:#?}", report.notes);

    // What is proven at A stays proven.
    run(&lab, "A", &["iptables", "-I", "FORWARD", "-d", "10.10.1.2", "-j", "DROP"]);
    let far = Arc::<Far>::default();
    let session = start(&nodes(&lab, &[("B", Arc::clone(&far))]));
    far.lives_for.store(0, Relaxed);
    let report = finish(session);
    assert_eq!(report.verdict.status, Status::Dropped, "{:#?}", report.verdict);
    assert_eq!(report.verdict.confidence, Confidence::Proven);
    assert!(report.notes.iter().any(gone), "{:#?}", report.notes);
    run(&lab, "A", &["iptables", "-D", "FORWARD", "-d", "10.10.1.2", "-j", "DROP"]);

    // Where the source was, nothing is proven.
    let far = Arc::<Far>::default();
    let session = start(&nodes(&lab, &[("A", Arc::clone(&far))]));
    far.lives_for.store(0, Relaxed);
    let report = finish(session);
    assert_eq!(report.verdict.status, Status::Inconclusive, "{:#?}", report.verdict);
}

/// Events wait for those of other machines, but not for those of one from which none can come.
#[test]
fn a_node_that_is_gone_holds_up_no_other() {
    if !privileged() {
        return;
    }
    let lab = TestLab::up(|_| {});
    let far = far(DAY);
    far.lives_for.store(25, Relaxed);
    let spec = Spec { count: Some(4000), interval: Duration::from_millis(5), ..spec() };
    let mut session = start_with(spec, &nodes(&lab, &[("B", far)]));
    while session.progress().seen < 100 {
        assert!(session.step(Duration::from_millis(20)), "{:?}", session.progress());
        assert!(session.progress().sent < Some(4000), "{:?}", session.progress());
    }
    let report = session.finish().expect("a report").report;
    // Whether a packet or two were seen to arrive before: of the others nothing is known.
    let verdict = &report.verdict;
    assert!(matches!(verdict.status, Status::Delivered | Status::Inconclusive), "{verdict:#?}");
    assert_ne!(verdict.confidence, Confidence::Proven, "{verdict:#?}");
    assert!(report.packets.delivered < 10, "{:#?}", report.packets);
}

#[test]
fn what_a_node_does_not_hand_out_is_counted_and_shown() {
    if !privileged() {
        return;
    }
    let lab = TestLab::up(|_| {});
    let far = Arc::<Far>::default();
    far.hands_out.store(3, Relaxed);
    let report = trace(&nodes(&lab, &[("B", far)]));
    let (_, loss) = report.loss.by_node.iter().find(|(node, _)| *node == "B").expect("node B");
    assert!(loss.over_rate > 0, "{:#?}", report.loss);
    assert_eq!(report.loss.events_lost, loss.over_rate);
    assert_eq!(report.verdict.status, Status::Inconclusive, "{:#?}", report.verdict);
}

#[test]
fn a_recording_of_several_machines_replays_to_the_same_report() {
    if !privileged() {
        return;
    }
    let lab = TestLab::up(|_| {});
    let day = Duration::from_secs(86_400);
    let nodes = nodes(&lab, &[("A", far(day)), ("B", far(2 * day))]);
    let file = tempfile::NamedTempFile::new().expect("temporary file");
    let mut session = start(&nodes);
    let target = Target::open(file.path()).expect("a target");
    session.record_to(target, Vec::new()).expect("a recording");
    let report = finish(session);
    assert_delivered(&report, "live");
    let replayed = replay(&mut Reader::open(file.path()).expect("a recording")).expect("a replay");
    assert_eq!(json::render(&replayed.report), json::render(&report));
    let kernels = replayed.header.machines.iter().map(|m| m.kernel.is_empty());
    assert_eq!(kernels.collect::<Vec<_>>(), [false; 3]);
}
