//! Services with several backends, from events to the report.

use std::sync::Arc;

use super::*;
use crate::analysis::{Analysis, State};
use crate::model::{Alias, Attempt, AttemptOutcome, End, Leads, Service, Topology};

const SERVICE: &str = "10.96.0.10";
const OTHER: &str = "10.10.1.3";
const SYN: u8 = tcp_flags::SYN;
const SYN_ACK: u8 = tcp_flags::SYN | tcp_flags::ACK;
const RST: u8 = tcp_flags::RST | tcp_flags::ACK;

fn service(leads: Leads) -> Service {
    Service {
        ip: ip(SERVICE),
        port: Some(443),
        proto: Some(6),
        target_port: Some(80).filter(|_| leads.translates()),
        leads,
        dead: false,
        others: Vec::new(),
        translator: "A".into(),
        entry: None,
    }
}

fn leg(name: &str, address: &str) -> Topology {
    let mut topology = cross_node();
    let dst = topology.dst.as_mut().unwrap();
    (dst.name, dst.ips) = (name.into(), vec![ip(address)]);
    dst.service = Some(service(Leads::Rule));
    topology.aliases = vec![Alias {
        ip: ip(SERVICE),
        port: Some(443),
        real: ip(address),
        real_port: Some(80),
        source: false,
    }];
    topology
}

/// Two backends, and the service before one is chosen.
fn legs() -> Vec<(Family, Arc<Topology>)> {
    let mut open = cross_node();
    open.forward.truncate(3);
    open.reply.clear();
    open.dst = Some(End {
        name: format!("{SERVICE}:443"),
        node: "A".into(),
        pod: None,
        kind: crate::model::EndKind::Pod,
        ips: vec![ip(SERVICE)],
        netns_inum: NODE_A,
        service: Some(service(Leads::Open)),
    });
    let all = [leg("B.b", "10.10.1.2"), leg("B.b2", OTHER), open];
    all.into_iter().map(|topology| (Family::V4, Arc::new(topology))).collect()
}

fn seen(sample: &Sample, src: Option<(&str, u16)>, dst: Option<(&str, u16)>) -> Sample {
    let mut seen = sample.clone();
    let L4::Tcp { sport, dport, .. } = &mut seen.ip.l4 else { panic!("{:?}", seen.ip.l4) };
    if let Some((address, port)) = src {
        (seen.ip.src, *sport) = (ip(address), port);
    }
    if let Some((address, port)) = dst {
        (seen.ip.dst, *dport) = (ip(address), port);
    }
    seen
}

/// A connection attempt from a port, sent on to a backend, and its answer; where it ends.
fn attempt(tape: &mut Tape, port: u16, backend: &str, answer: Option<u8>, time: u64) {
    let mut syn = tcp(Forward, u32::from(port), u32::from(port), SYN, 0);
    syn.skb = u64::from(port) << 8;
    let syn = seen(&syn, Some(("10.10.0.2", port)), Some((backend, 80)));
    let sent = seen(&syn, None, Some((SERVICE, 443)));
    let time = tape.walk(&sent, Forward, 0..2, time);
    let Some(flags) = answer else {
        // Lost on the wire.
        tape.walk(&syn, Forward, 2..5, time);
        return;
    };
    let time = tape.walk(&syn, Forward, 2..12, time);
    let mut back = tcp(Reply, 7, 5000 + u32::from(port), flags, 0);
    back.skb = u64::from(port) << 8 | 1;
    let back = seen(&back, Some((backend, 80)), Some(("10.10.0.2", port)));
    let time = tape.walk(&back, Reply, 0..9, time);
    let back = seen(&back, Some((SERVICE, 443)), None);
    tape.walk(&back, Reply, 9..12, time);
}

fn attempts(list: &[(u16, AttemptOutcome)]) -> Option<ProbeResult> {
    let count = |outcome| list.iter().filter(|a| a.1 == outcome).count() as u64;
    let refused = count(AttemptOutcome::Refused);
    Some(ProbeResult {
        proto: "tcp".into(),
        sent: list.len() as u64,
        answered: count(AttemptOutcome::Answered) + refused,
        refused,
        attempts: list
            .iter()
            .map(|(port, outcome)| Attempt { port: *port, outcome: *outcome })
            .collect(),
        ..ProbeResult::default()
    })
}

fn reported(tape: &Tape, probe: Option<ProbeResult>, batch: usize) -> Report {
    reported_over(legs(), tape, probe, batch)
}

fn reported_over(
    legs: Vec<(Family, Arc<Topology>)>,
    tape: &Tape,
    probe: Option<ProbeResult>,
    batch: usize,
) -> Report {
    let observation = Observation { probe, ..tape.observation() };
    let mut analysis = Analysis::new(legs);
    analysis.arm(ARMED);
    let mut events = tape.events.clone();
    events.sort_by_key(|event| event.time_ns);
    for batch in events.chunks(batch) {
        analysis.push(batch.to_vec());
    }
    analysis.finish(observation).report(State::default(), &meta()).unwrap()
}

fn rows(report: &Report) -> Vec<(&str, Status, u64, u64, u64)> {
    let row = |r: &'_ crate::report::BackendReport| (r.status, r.sent, r.delivered, r.replied);
    let named = report.backends.iter().map(|r| (r.name.as_str(), row(r)));
    named.map(|(name, (status, a, b, c))| (name, status, a, b, c)).collect()
}

#[test]
fn packets_are_told_apart_by_their_connection() {
    use AttemptOutcome::Answered;
    let mut tape = Tape::new(cross_node());
    // Side by side, so that the packets of one are under way between those of the other.
    for (at, port, backend) in
        [(0, 40_001, "10.10.1.2"), (300, 40_002, OTHER), (600, 40_003, OTHER)]
    {
        attempt(&mut tape, port, backend, Some(SYN_ACK), ARMED + at);
    }
    let probe = attempts(&[(40_001, Answered), (40_002, Answered), (40_003, Answered)]);
    for batch in [1, 7, 1000] {
        let report = reported(&tape, probe.clone(), batch);
        assert_eq!(report.verdict.status, Status::Delivered, "{:#?}", report.verdict);
        assert!(report.findings.is_empty(), "{:#?}", report.findings);
        let expected = [("B.b", Status::Delivered, 1, 1, 1), ("B.b2", Status::Delivered, 2, 2, 2)];
        assert_eq!(rows(&report), expected);
        assert_eq!(report.backends[1].answered, Some(2));
        assert_eq!((report.packets.sent, report.packets.replied), (3, 3));
        assert_eq!(report.journeys.len(), 6);
        let ids: std::collections::BTreeSet<_> = report.journeys.iter().map(|j| &j.id).collect();
        assert_eq!(ids.len(), 6, "ids are unique");
        assert_eq!(report.dst.title(), "service 10.96.0.10:443");
    }
}

#[test]
fn the_backend_that_fails_is_named_and_the_others_are_not() {
    use AttemptOutcome::{Answered, Unanswered};
    let mut tape = Tape::new(cross_node());
    attempt(&mut tape, 40_001, "10.10.1.2", Some(SYN_ACK), ARMED);
    attempt(&mut tape, 40_002, OTHER, None, ARMED + 100_000);
    let report = reported(&tape, attempts(&[(40_001, Answered), (40_002, Unanswered)]), 5);
    assert_eq!(report.verdict.status, Status::Degraded, "{:#?}", report.verdict);
    let summary = &report.verdict.summary;
    assert!(
        summary.starts_with("1 of 2 backends of service 10.96.0.10:443 fails: B.b2. "),
        "{summary}"
    );
    let expected = [("B.b", Status::Delivered, 1, 1, 1), ("B.b2", Status::Lost, 1, 0, 0)];
    assert_eq!(rows(&report), expected);
    assert_eq!(report.backends[1].cause.as_deref(), Some("underlay.lost"));
}

#[test]
fn a_backend_that_refuses_is_told_from_one_that_answers() {
    use AttemptOutcome::{Answered, Refused};
    let mut tape = Tape::new(cross_node());
    attempt(&mut tape, 40_001, "10.10.1.2", Some(SYN_ACK), ARMED);
    attempt(&mut tape, 40_002, OTHER, Some(RST), ARMED + 100_000);
    let syn = tcp(Forward, 40_002, 40_002, SYN, 0);
    let syn = seen(&syn, Some(("10.10.0.2", 40_002)), Some((OTHER, 80)));
    let refused = info("NO_SOCKET", "tcp_v4_rcv", &["tcp_v4_rcv"]);
    tape.dropped(&syn, Forward, 11, POD_B, refused, ARMED + 100_000 + 12 * STEP);
    let report = reported(&tape, attempts(&[(40_001, Answered), (40_002, Refused)]), 5);
    assert_eq!(report.verdict.status, Status::Degraded, "{:#?}", report.verdict);
    assert_eq!(report.verdict.cause.as_deref(), Some("socket.no-listener"));
    let row = &report.backends[1];
    assert_eq!((row.attempts, row.answered, row.refused), (Some(1), Some(0), Some(1)));
    assert_eq!(report.backends[0].status, Status::Delivered);
}

#[test]
fn what_ends_before_a_backend_is_chosen_is_no_backends_fault() {
    use AttemptOutcome::Unanswered;
    let mut tape = Tape::new(cross_node());
    let mut syn = tcp(Forward, 40_001, 40_001, SYN, 0);
    syn.skb = 77;
    let syn = seen(&syn, Some(("10.10.0.2", 40_001)), Some((SERVICE, 443)));
    let time = tape.walk(&syn, Forward, 0..2, ARMED);
    let netfilter = info("NETFILTER_DROP", "nft_do_chain", FORWARD_STACK);
    tape.dropped(&syn, Forward, 1, NODE_A, netfilter, time);
    let report = reported(&tape, attempts(&[(40_001, Unanswered)]), 5);
    assert_eq!(report.verdict.status, Status::Dropped, "{:#?}", report.verdict);
    let none = [("B.b", Status::NoTraffic, 0, 0, 0), ("B.b2", Status::NoTraffic, 0, 0, 0)];
    assert_eq!(rows(&report), none);
    assert!(!report.verdict.summary.contains("B.b"), "{}", report.verdict.summary);
}

#[test]
fn an_skb_that_is_used_again_says_nothing_about_another_connection() {
    use AttemptOutcome::{Answered, Unanswered};
    let mut tape = Tape::new(cross_node());
    // Vanishes before translation; its skb then carries a packet of another connection.
    let mut lost = tcp(Forward, 5, 5, SYN, 0);
    lost.skb = 40_002 << 8;
    let lost = seen(&lost, Some(("10.10.0.2", 40_001)), Some((SERVICE, 443)));
    let time = tape.walk(&lost, Forward, 0..2, ARMED);
    attempt(&mut tape, 40_002, OTHER, Some(SYN_ACK), time + 10);
    let report = reported(&tape, attempts(&[(40_001, Unanswered), (40_002, Answered)]), 3);
    assert_eq!(rows(&report)[1], ("B.b2", Status::Delivered, 1, 1, 1));
    assert_eq!(report.verdict.status, Status::Degraded, "{:#?}", report.verdict);
    assert!(!report.verdict.summary.contains("B.b2"), "{}", report.verdict.summary);
}

/// Two pods that are watched by name, one of them behind a service with another backend, which cannot
/// be watched: its packets are seen no more once they are translated.
#[test]
fn packets_to_backends_that_are_not_watched_are_not_missed() {
    let mut topology = leg("B.b", "10.10.1.2");
    topology.dst.as_mut().unwrap().service = None;
    topology.elsewhere = vec![ip(OTHER)];
    let topology = Arc::new(topology);
    let mut tape = Tape::new(cross_node());
    attempt(&mut tape, 40_001, "10.10.1.2", Some(SYN_ACK), ARMED);
    let mut syn = tcp(Forward, 9, 9, SYN, 0);
    syn.skb = 9;
    let syn = seen(&syn, Some(("10.10.0.2", 40_002)), Some((SERVICE, 443)));
    tape.walk(&syn, Forward, 0..2, ARMED + 50_000);
    let report = reported_over(vec![(Family::V4, topology)], &tape, None, 4);
    assert_eq!(report.verdict.status, Status::Delivered, "{:#?}", report.verdict);
    assert!(report.findings.is_empty(), "{:#?}", report.findings);
    assert_eq!(report.directions[0].outcomes["elsewhere"], 1);
}

/// A node has a backend of its own, and its address stands for the client on the way to another: ports
/// tell who answers.
#[test]
fn an_address_can_be_a_backends_and_a_clients() {
    use AttemptOutcome::Answered;
    const NODE: &str = "192.168.10.11";
    let masquerade = |mut topology: Topology| {
        topology.aliases.push(Alias {
            ip: ip(NODE),
            port: None,
            real: ip("10.10.0.2"),
            real_port: None,
            source: true,
        });
        (Family::V4, Arc::new(topology))
    };
    let mut legs = vec![masquerade(leg("B.b", "10.10.1.2")), masquerade(leg("A", NODE))];
    legs.extend(super::backends::legs().pop());
    let mut tape = Tape::new(cross_node());
    let syn = tcp(Forward, 3, 3, SYN, 0);
    let translated = seen(&syn, Some(("10.10.0.2", 40_001)), Some(("10.10.1.2", 80)));
    let sent = seen(&translated, None, Some((SERVICE, 443)));
    let masqueraded = seen(&translated, Some((NODE, 50_001)), None);
    let time = tape.walk(&sent, Forward, 0..2, ARMED);
    let time = tape.walk(&translated, Forward, 2..3, time);
    let time = tape.walk(&masqueraded, Forward, 3..12, time);
    let answer = tcp(Reply, 4, 5000, SYN_ACK, 0);
    let answer = seen(&answer, Some(("10.10.1.2", 80)), Some((NODE, 50_001)));
    let time = tape.walk(&answer, Reply, 0..9, time);
    let back = seen(&answer, Some((SERVICE, 443)), Some(("10.10.0.2", 40_001)));
    tape.walk(&back, Reply, 9..12, time);
    let report = reported_over(legs, &tape, attempts(&[(40_001, Answered)]), 3);
    assert_eq!(report.verdict.status, Status::Delivered, "{:#?}", report.verdict);
    let expected = [("B.b", Status::Delivered, 1, 1, 1), ("A", Status::NoTraffic, 0, 0, 0)];
    assert_eq!(rows(&report), expected);
    assert_eq!(report.backends[0].answered, Some(1));
}

/// A node's own packets are seen first when they are masqueraded: the probe's ports say nothing then.
#[test]
fn attempts_that_no_port_tells_apart_are_not_shared_out() {
    use AttemptOutcome::Answered;
    let mut tape = Tape::new(cross_node());
    attempt(&mut tape, 40_001, "10.10.1.2", Some(SYN_ACK), ARMED);
    let trace = tape.trace(&tape.observation());
    // One left from a port that was seen, one was seen nowhere.
    let probe = attempts(&[(40_001, Answered), (50_000, Answered)]).unwrap();
    let unseen = attempts(&[(50_000, Answered)]).unwrap();
    let legs = legs();
    let ends: Vec<_> = legs.iter().map(|(_, t)| (t.dst.as_ref().unwrap(), &trace)).collect();
    let of = |probe, source: &str| super::super::backends::shares(probe, &[ip(source)], &ends);
    assert!(of(&probe, "10.10.0.99").iter().all(Option::is_none));
    assert!(of(&unseen, "10.10.0.2").iter().all(Option::is_none));
    let shares = of(&probe, "10.10.0.2");
    assert_eq!(shares.iter().flatten().map(|p| p.sent).collect::<Vec<_>>(), [1, 1, 2]);
}
