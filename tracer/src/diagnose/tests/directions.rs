//! Which of the two directions is the verdict, and what the other one is then.

use super::*;

#[test]
fn a_lost_answer_is_a_failure_of_the_reply_direction() {
    let mut tape = Tape::new(cross_node());
    for seq in 1..=2 {
        let at = ARMED + u64::from(seq) * 1_000_000;
        let back = tape.cross(&ping(Forward, seq, u32::from(seq)), Forward, at);
        tape.walk(&ping(Reply, seq, 50 + u32::from(seq)), Reply, 0..5, back);
    }
    let observation = Observation { probe: probe("icmp", 2, 0), ..tape.observation() };
    let report = diagnose(&tape, &observation);
    assert_eq!((report.verdict.status, report.verdict.direction), (Status::Lost, Some(Reply)));
    assert_eq!(report.verdict.last_seen.unwrap().node, "B");
    assert_eq!(report.directions[0].verdict.status, Status::Delivered);
}

#[test]
fn answers_that_came_are_not_lost() {
    let mut tape = Tape::new(cross_node());
    for seq in 1..=3u16 {
        let at = ARMED + u64::from(seq) * 1_000_000;
        let back = tape.cross(&ping(Forward, seq, 100 + u32::from(seq)), Forward, at);
        tape.walk(&ping(Reply, seq, 200 + u32::from(seq)), Reply, 0..5, back);
    }
    let lost = Observation { probe: probe("icmp", 3, 0), ..tape.observation() };
    assert_eq!(diagnose(&tape, &lost).verdict.status, Status::Lost);
    let answered = Observation { probe: probe("icmp", 3, 3), ..tape.observation() };
    let report = diagnose(&tape, &answered);
    assert_eq!(report.verdict.status, Status::Inconclusive, "{:#?}", report.verdict);
    assert_eq!(report.verdict.direction, Some(Reply));
    assert!(report.verdict.summary.contains("3 answers"), "{}", report.verdict.summary);
}

/// A burst of which the sender's node keeps only a part while it asks for the next hop, told in time;
/// of the answers to the others `answers` hops of the way are seen.
fn burst(answers: std::ops::Range<usize>) -> Tape {
    let mut tape = Tape::new(cross_node());
    for seq in 1..=6u16 {
        let at = ARMED + u64::from(seq) * 1_000_000;
        let there = ping(Forward, seq, 100 + u32::from(seq));
        if seq <= 2 {
            let at = tape.walk(&there, Forward, 0..4, at);
            let overflow = info("NEIGH_QUEUEFULL", "__neigh_event_send", &[]);
            tape.dropped(&there, Forward, 3, NODE_A, overflow, at);
        } else {
            let back = tape.cross(&there, Forward, at);
            tape.walk(&ping(Reply, seq, 200 + u32::from(seq)), Reply, answers.clone(), back);
        }
    }
    let next_hop = tape.topology.forward[4];
    tape.resolution(next_hop, "192.168.10.11", "192.168.10.12", Some(mac(7)), ARMED);
    // Open, at the same node: but not where these packets go.
    let bridge = tape.topology.reply[9];
    tape.resolution(bridge, "10.10.0.1", "10.10.0.2", None, ARMED);
    tape
}

#[test]
fn a_queue_that_overflows_is_not_a_neighbour_that_does_not_answer() {
    let tape = burst(0..12);
    let observation = Observation { probe: probe("icmp", 6, 4), ..tape.observation() };
    let verdict = diagnose(&tape, &observation).verdict;
    assert_eq!((verdict.status, verdict.direction), (Status::Degraded, Some(Forward)));
    assert_eq!(verdict.cause.as_deref(), Some("neighbor.queue-full"));
    assert!(!verdict.summary.contains("Nobody"), "{}", verdict.summary);
}

#[test]
fn a_dead_direction_goes_before_a_damaged_one() {
    let tape = burst(0..5);
    let observation = Observation { probe: probe("icmp", 6, 0), ..tape.observation() };
    let report = diagnose(&tape, &observation);
    let verdict = &report.verdict;
    assert_eq!((verdict.status, verdict.direction), (Status::Lost, Some(Reply)));
    let causes: Vec<_> = report.findings.iter().filter_map(|f| f.cause.as_deref()).collect();
    assert_eq!(causes, ["neighbor.queue-full"]);
}
