//! Which of the two directions is the verdict, and what the other one is then.

use super::*;
use crate::model::EndKind;

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

/// Pod a to an address outside, which is followed to A.ens33 and back from there.
fn to_outside() -> Tape {
    let mut topology = cross_node();
    topology.forward.truncate(5);
    topology.reply = topology.reply.split_off(7);
    let dst = topology.dst.as_mut().unwrap();
    dst.name = "203.0.113.9".to_owned();
    (dst.kind, dst.node, dst.pod) = (EndKind::Outside, "A".to_owned(), None);
    dst.netns_inum = topology.src.as_ref().map_or(0, |src| src.netns_inum + 1);
    Tape::new(topology)
}

#[test]
fn what_left_for_outside_was_answered_or_not() {
    let mut tape = to_outside();
    let back = tape.cross(&ping(Forward, 1, 100), Forward, ARMED + 1_000_000);
    let left = "left node A as 10.10.0.2 at ens33";
    // Watched: that is all there is to see.
    let watched = diagnose(&tape, &tape.observation());
    assert_eq!(watched.verdict.status, Status::Delivered);
    assert!(watched.verdict.summary.contains(left), "{}", watched.verdict.summary);
    assert_eq!(watched.notes, ["No packet from 203.0.113.9 back to A.a was seen."]);
    // Asked, and not answered: whatever the protocol asks for.
    for proto in ["icmp", "udp"] {
        let observation = Observation { probe: probe(proto, 1, 0), ..tape.observation() };
        let Verdict { status, direction, cause, summary, .. } =
            diagnose(&tape, &observation).verdict;
        assert_eq!((status, direction), (Status::Lost, Some(Reply)), "{proto}");
        assert_eq!(cause.as_deref(), Some("underlay.no-answer"));
        assert!(summary.contains(&format!("{left}, and no answer came back")), "{summary}");
    }
    tape.cross(&ping(Reply, 1, 200), Reply, back);
    let observation = Observation { probe: probe("icmp", 1, 1), ..tape.observation() };
    let answered = diagnose(&tape, &observation);
    assert_eq!(answered.verdict.status, Status::Delivered);
    assert!(answered.findings.is_empty() && answered.notes.is_empty());
}
