use super::*;
use crate::model::{Direction::*, Outcome::*};

#[test]
fn an_endless_trace_keeps_failures_and_beginnings_and_counts_the_rest() {
    let mut tape = Tape::new(cross_node());
    let mut at = ARMED;
    for number in 0..3_000u32 {
        let seq = u16::try_from(number % 65_536).unwrap();
        let sample = ping(Forward, seq, number + 1);
        if number % 100 == 99 {
            tape.walk(&sample, Forward, 0..5, at);
        } else {
            tape.cross(&sample, Forward, at);
        }
        at += 100_000_000;
    }
    let limits = Limits { keep_journeys: 50, ..Limits::default() };
    let trace = tape.trace_with(&tape.observation(), limits, 100);
    assert_eq!(trace.journeys.len(), 50);
    assert_eq!(trace.omitted, 2_950);
    assert_eq!(count(&trace, Forward, Delivered), 2_970);
    assert_eq!(count(&trace, Forward, Lost), 30);
    assert_eq!(trace.journeys.iter().filter(|j| j.outcome == Lost).count(), 30);
    assert_eq!(trace.journeys[0].id, 1);
    let stats = stats(&trace, Forward);
    assert_eq!((stats[0].packets, stats[11].packets), (3_000, 2_970));
    assert_eq!(stats[11].latency, Some((STEP, STEP, STEP)));
}

#[test]
fn what_is_matched_against_is_bounded() {
    let mut tape = Tape::new(cross_node());
    for number in 0..2_000u32 {
        let sample = udp(Forward, number + 1, 10);
        tape.walk(&sample, Forward, 0..2, ARMED + u64::from(number) * STEP);
    }
    let limits = Limits { live_journeys: 100, ..Limits::default() };
    let mut correlator = Correlator::new(&tape.topology, limits);
    for batch in tape.events.chunks(200) {
        correlator.push(batch.to_vec());
        assert!(correlator.store.len() <= 300);
    }
    let trace = correlator.finish(&tape.observation());
    assert_eq!(count(&trace, Forward, Lost), 2_000);
}
