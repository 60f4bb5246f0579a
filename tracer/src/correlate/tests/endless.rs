use super::*;
use crate::correlate::Scope;
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

#[test]
fn a_look_sees_the_last_seconds_of_an_endless_trace() {
    let mut tape = Tape::new(cross_node());
    for number in 0..3_000u32 {
        let sample = ping(Forward, u16::try_from(number).unwrap(), number + 1);
        let at = ARMED + u64::from(number) * 100_000_000;
        if number % 100 == 99 {
            tape.walk(&sample, Forward, 0..5, at);
        } else {
            tape.cross(&sample, Forward, at);
        }
    }
    let limits = Limits { keep_journeys: 50, ..Limits::default() };
    let mut correlator = Correlator::new(&tape.topology, limits);
    for batch in tape.events.chunks(100) {
        correlator.push(batch.to_vec());
    }
    correlator.push([]);
    let observation = tape.observation();
    let seen = correlator.snapshot(&observation, Scope::default());
    // The tape runs on for a second behind its last packet.
    assert_eq!(seen.span_ns, 10_000_000_000);
    assert_eq!(correlator.newest_ns() + 1_000_000_000, observation.end_ns);
    assert_eq!(count(&seen.trace, Forward, Delivered), 89);
    assert_eq!(count(&seen.trace, Forward, Lost), 1);
    assert_eq!(seen.trace.journeys.len(), 90);
    let at_points = stats(&seen.trace, Forward);
    assert_eq!((at_points[0].packets, at_points[11].packets), (90, 89));

    let narrow = Scope { counted: 40, listed: 10, ..Scope::default() };
    let seen = correlator.snapshot(&observation, narrow);
    assert_eq!(count(&seen.trace, Forward, Delivered), 39);
    assert_eq!((seen.trace.journeys.len(), seen.trace.omitted), (10, 30));
    assert_eq!(seen.trace.journeys.last().unwrap().outcome, Lost);
    assert!(seen.span_ns < 6_000_000_000);

    // It has changed nothing.
    let trace = correlator.finish(&observation);
    assert_eq!(count(&trace, Forward, Delivered), 2_970);
}
