use super::*;
use crate::model::{Direction::*, Outcome::*, Point};

#[test]
fn a_ping_and_its_answer_make_twelve_hops_each() {
    let mut tape = Tape::new(cross_node());
    for seq in 1..=5 {
        let at = ARMED + u64::from(seq) * 1_000_000;
        let back = tape.cross(&ping(Forward, seq, 100 + u32::from(seq)), Forward, at);
        tape.cross(&ping(Reply, seq, 200 + u32::from(seq)), Reply, back);
    }
    let trace = tape.trace(&tape.observation());
    check(&trace);
    assert_eq!(trace.journeys.len(), 10);
    for journey in &trace.journeys {
        assert_eq!((journey.hops.len(), journey.outcome), (12, Delivered));
        assert_eq!(journey.range.unwrap().end, 64);
    }
    for direction in [Forward, Reply] {
        let stats = stats(&trace, direction);
        let points: Vec<Point> = stats.iter().map(|s| s.point).collect();
        assert_eq!(points, tape.topology.path(direction));
        assert!(stats.iter().all(|s| (s.packets, s.unique_bytes) == (5, 320)));
        assert_eq!(stats[0].latency, None);
        assert!(stats[1..].iter().all(|s| s.latency == Some((STEP, STEP, STEP))));
    }
}

#[test]
fn pods_on_one_node_make_four_hops() {
    let mut tape = Tape::new(same_node());
    tape.cross(&ping(Forward, 1, 0), Forward, ARMED);
    let trace = tape.trace(&tape.observation());
    assert_eq!((only(&trace).hops.len(), only(&trace).outcome), (4, Delivered));
}

#[test]
fn a_packet_under_way_when_the_trace_began_does_not_count() {
    let mut tape = Tape::new(cross_node());
    tape.walk(&ping(Forward, 1, 1), Forward, 3..12, ARMED);
    tape.cross(&ping(Forward, 2, 2), Forward, ARMED - 5 * STEP);
    let trace = tape.trace(&tape.observation());
    assert_eq!(count(&trace, Forward, Incomplete), 2);
    assert!(trace.summary.is_empty());
}

#[test]
fn what_begins_after_the_close_leaves_no_trace_and_what_began_last_is_in_flight() {
    let mut tape = Tape::new(cross_node());
    tape.walk(&ping(Forward, 1, 1), Forward, 0..3, ARMED + 10);
    tape.cross(&ping(Forward, 2, 2), Forward, ARMED + 100_000);
    let mut observation = tape.observation();
    observation.closed_ns = Some(ARMED + 50_000);
    observation.end_ns = ARMED + 150_000_000;
    let trace = tape.trace(&observation);
    assert_eq!(only(&trace).outcome, InFlight);
    assert!(trace.summary.is_empty());
    observation.end_ns = ARMED + 300_000_000;
    assert_eq!(only(&tape.trace(&observation)).outcome, Lost);
}

#[test]
fn without_a_planned_path_the_receivers_interface_is_the_end() {
    let mut tape = Tape::new(cross_node());
    tape.cross(&ping(Forward, 1, 1), Forward, ARMED);
    tape.topology.forward.clear();
    let trace = tape.trace(&tape.observation());
    assert_eq!((only(&trace).hops.len(), only(&trace).outcome), (12, Delivered));
}

#[test]
fn events_that_come_a_little_late_find_their_place() {
    let mut tape = Tape::new(cross_node());
    tape.cross(&ping(Forward, 1, 1), Forward, ARMED);
    let mut correlator = Correlator::new(&tape.topology, Limits::default());
    let late = tape.events.remove(0);
    correlator.push(tape.events.clone());
    assert_eq!(correlator.started(Forward), 0);
    correlator.push([late]);
    correlator.push([]);
    assert_eq!((correlator.started(Forward), correlator.delivered(Forward)), (1, 1));
    let trace = correlator.finish(&tape.observation());
    assert_eq!(only(&trace).outcome, Delivered);
}

#[test]
fn fragments_are_one_journey_however_they_are_joined_and_split() {
    let mut tape = Tape::new(cross_node());
    let whole = Sample { skb: 0xabc, ..udp(Forward, 4711, 2992) };
    let small = fragments(&whole, &[0, 1424, 2848], 3000);
    let other = fragments(&whole, &[0, 1400, 2800], 3000);
    let mut at = ARMED;
    for part in &small {
        at = tape.walk(part, Forward, 0..2, at);
    }
    at = tape.walk(&whole, Forward, 2..3, at);
    for part in &other {
        at = tape.walk(part, Forward, 3..9, at);
    }
    at = tape.walk(&whole, Forward, 9..10, at);
    for part in &small {
        at = tape.walk(part, Forward, 10..12, at);
    }
    let trace = tape.trace(&tape.observation());
    let journey = only(&trace);
    assert_eq!((journey.outcome, journey.hops.len()), (Delivered, 12));
    assert!(journey.hops.iter().all(|h| h.covered == 3000));
    let skbs: Vec<u32> = journey.hops.iter().map(|h| h.skbs).collect();
    assert_eq!(skbs, [3, 3, 1, 3, 3, 3, 3, 3, 3, 1, 3, 3]);
}

#[test]
fn a_lost_fragment_makes_it_partial() {
    let mut tape = Tape::new(cross_node());
    let parts = fragments(&udp(Forward, 4711, 2992), &[0, 1424, 2848], 3000);
    let mut at = tape.cross(&parts[0], Forward, ARMED);
    at = tape.walk(&parts[1], Forward, 0..5, at);
    tape.cross(&parts[2], Forward, at);
    let trace = tape.trace(&tape.observation());
    assert_eq!(only(&trace).outcome, Partial);
    assert_eq!(only(&trace).hops[11].covered, 3000 - 1424);
}

#[test]
fn ipv6_fragments_change_their_number_at_the_bridge() {
    let mut tape = Tape::new(cross_node());
    let v6 = |mut sample: Sample, id: u32| {
        (sample.ip.src, sample.ip.dst) = (ip("fd00:10:0::2"), ip("fd00:10:1::2"));
        sample.ip.id = id;
        sample
    };
    let whole = v6(Sample { skb: 1, ..udp(Forward, 0, 2992) }, 0);
    let mut at = ARMED;
    let first: Vec<_> = fragments(&whole, &[0, 1424, 2848], 3000);
    for part in &first {
        at = tape.walk(&v6(part.clone(), 0x1111), Forward, 0..2, at);
    }
    at = tape.walk(&whole, Forward, 2..3, at);
    for part in &first {
        at = tape.walk(&v6(part.clone(), 0x2222), Forward, 3..12, at);
    }
    let trace = tape.trace(&tape.observation());
    assert_eq!((only(&trace).outcome, only(&trace).hops.len()), (Delivered, 12));
}

#[test]
fn identical_unnumbered_packets_are_told_apart() {
    let mut tape = Tape::new(cross_node());
    // Three alike, queued behind one another at every hop; the pointers change on the way.
    for packet in 0..3u64 {
        for position in 0..12 {
            let skb = if position < 4 { packet } else { 100 + packet * 12 + position as u64 };
            let sample = Sample { skb, ..udp(Forward, 0, 20) };
            let at = ARMED + packet * 300 + position as u64 * STEP;
            tape.walk(&sample, Forward, position..position + 1, at);
        }
    }
    let trace = tape.trace(&tape.observation());
    check(&trace);
    assert_eq!(count(&trace, Forward, Delivered), 3);
    for journey in &trace.journeys {
        assert_eq!((journey.hops.len(), journey.duplicate_of), (12, None));
        assert!(journey.hops.windows(2).all(|w| w[1].time_ns - w[0].time_ns == STEP));
    }
}

#[test]
fn a_second_copy_is_told_from_a_second_packet() {
    let mut tape = Tape::new(cross_node());
    let numbered = udp(Forward, 9, 20);
    tape.cross(&numbered, Forward, ARMED);
    // The wire doubles it.
    tape.walk(&numbered, Forward, 6..12, ARMED + 50 * STEP);
    let trace = tape.trace(&tape.observation());
    check(&trace);
    assert_eq!((trace.duplicated, count(&trace, Forward, Delivered)), (1, 1));
    assert_eq!(trace.journeys[1].duplicate_of, Some(1));
    assert_eq!(trace.journeys[1].outcome, Delivered);
    let stats = stats(&trace, Forward);
    assert_eq!((stats[11].packets, stats[11].skbs), (1, 2));
    assert_eq!((stats[11].unique_bytes, stats[11].repeated_bytes), (28, 28));
}

#[test]
fn what_was_not_seen_from_its_beginning_has_no_copies() {
    let mut tape = Tape::new(cross_node());
    for copy in 0..3 {
        tape.walk(&udp(Forward, 9, 20), Forward, 4..8, ARMED + copy * 50 * STEP);
    }
    let trace = tape.trace(&tape.observation());
    assert_eq!((trace.duplicated, count(&trace, Forward, Incomplete)), (0, 3));
}

#[test]
fn a_packet_in_a_circle_is_one_journey() {
    let mut tape = Tape::new(cross_node());
    let mut sample = ping(Forward, 1, 5);
    let mut at = tape.walk(&sample, Forward, 0..5, ARMED);
    for _ in 0..100 {
        sample.ip.ttl = sample.ip.ttl.saturating_sub(1).max(3);
        at = tape.walk(&sample, Forward, 3..5, at);
    }
    let trace = tape.trace(&tape.observation());
    let journey = only(&trace);
    assert!(journey.looped && journey.outcome == Lost);
    assert!(journey.hops.len() > 5 && journey.hops.len() <= 64);
    assert_eq!(stats(&trace, Forward)[3].packets, 1);
}

#[test]
fn a_fragmented_tunnel_packet_still_carries_its_journey() {
    let mut tape = Tape::new(cross_node());
    tape.cross(&ping(Forward, 1, 1), Forward, ARMED);
    for event in &mut tape.events {
        if let Some(outer) = &mut event.packet.outer {
            outer.fragment = Some(crate::model::Fragment { offset: 0, more: true });
        }
    }
    assert_eq!(only(&tape.trace(&tape.observation())).outcome, Delivered);
}

#[test]
fn resolutions_are_matched_with_their_answers() {
    let mut tape = Tape::new(cross_node());
    let at = tape.topology.forward[0];
    tape.resolution(at, "10.10.0.2", "10.10.0.1", Some(mac(2)), ARMED);
    for second in 0..3 {
        let time = ARMED + second * 1_000_000_000;
        tape.resolution(at, "10.10.0.2", "10.10.0.9", None, time);
        tape.resolution(tape.topology.forward[1], "10.10.0.2", "10.10.0.9", None, time + STEP);
    }
    let trace = tape.trace(&tape.observation());
    let [answered, open] = trace.resolutions.as_slice() else { panic!("{:?}", trace.resolutions) };
    assert_eq!((answered.requests, answered.answer), (1, Some(mac(2))));
    assert_eq!((open.requests, open.answer), (3, None));
}
