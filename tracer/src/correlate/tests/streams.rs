use super::*;
use crate::model::{Direction::*, Outcome::*, tcp_flags::*};
use proptest::prelude::*;

/// Start of the sequence numbers: close to the wrap.
const ISN: u32 = u32::MAX - 100_000;

#[test]
fn ten_megabytes_are_accounted_for_at_every_point() {
    const TOTAL: u32 = 10_000_000;
    let mut tape = Tape::new(cross_node());
    let mut at = ARMED;
    let mut sent = 0;
    let mut id = 1;
    while sent < TOTAL {
        let size = (TOTAL - sent).min(45 * 1448);
        let seq = ISN.wrapping_add(sent);
        // Super-packets to the tunnel device, segments on the wire, merged again behind it, across
        // the borders of what was sent.
        at = tape.walk(&data(id, seq, size), Forward, 0..5, at);
        let mut offset = 0;
        while offset < size {
            let part = (size - offset).min(1448);
            let segment = data(id + offset / 1448, seq.wrapping_add(offset), part);
            at = tape.walk(&segment, Forward, 5..8, at);
            offset += part;
        }
        sent += size;
        id += 45;
    }
    let mut offset = 0;
    while offset < TOTAL {
        let part = (TOTAL - offset).min(31 * 1448);
        let merged = data(1 + offset / 1448, ISN.wrapping_add(offset), part);
        at = tape.walk(&merged, Forward, 8..12, at);
        offset += part;
    }
    let trace = tape.trace(&tape.observation());
    check(&trace);
    let stats = stats(&trace, Forward);
    assert_eq!(stats.len(), 12);
    for point in &stats {
        assert_eq!((point.unique_bytes, point.repeated_bytes), (u64::from(TOTAL), 0));
        assert_eq!(point.packets, trace.journeys.len() as u64);
    }
    assert_eq!(stats[0].skbs, u64::from(TOTAL.div_ceil(45 * 1448)));
    assert_eq!(stats[6].skbs, u64::from(TOTAL.div_ceil(1448)));
    assert_eq!(stats[11].skbs, u64::from(TOTAL.div_ceil(31 * 1448)));
    assert_eq!(count(&trace, Forward, Delivered), trace.journeys.len() as u64);
    assert_eq!((trace.retransmitted, trace.duplicated), (0, 0));
}

#[test]
fn a_lost_segment_and_its_retransmission_are_two_journeys() {
    let mut tape = Tape::new(cross_node());
    let whole = data(10, 1000, 3 * 1448);
    let mut at = tape.walk(&whole, Forward, 0..5, ARMED);
    for (segment, end) in [(0, 12), (1, 6), (2, 12)] {
        let part = data(10 + segment, 1000 + segment * 1448, 1448);
        at = tape.walk(&part, Forward, 5..end, at);
    }
    let again = data(50, 1000 + 1448, 1448);
    tape.cross(&again, Forward, at + 200 * STEP);
    let trace = tape.trace(&tape.observation());
    check(&trace);
    let [first, second] = trace.journeys.as_slice() else { panic!("{:#?}", trace.journeys) };
    assert_eq!((first.outcome, first.hops[11].covered), (Partial, 2 * 1448));
    assert_eq!((second.outcome, second.retransmission_of), (Delivered, Some(1)));
    let stats = stats(&trace, Forward);
    assert_eq!((stats[0].unique_bytes, stats[0].repeated_bytes), (3 * 1448, 1448));
    assert_eq!((stats[11].unique_bytes, stats[11].repeated_bytes), (3 * 1448, 0));
}

#[test]
fn the_ip_id_tells_a_late_original_from_its_retransmission() {
    let mut tape = Tape::new(cross_node());
    let (original, again) = (data(10, 1000, 1448), data(11, 1000, 1448));
    tape.walk(&original, Forward, 0..5, ARMED);
    tape.walk(&again, Forward, 0..5, ARMED + 50 * STEP);
    // The original was only slow, the retransmission is lost.
    tape.walk(&original, Forward, 5..12, ARMED + 100 * STEP);
    let trace = tape.trace(&tape.observation());
    let outcomes: Vec<_> = trace.journeys.iter().map(|j| j.outcome).collect();
    assert_eq!(outcomes, [Delivered, Lost]);
    assert_eq!(trace.journeys[1].retransmission_of, Some(1));
}

#[test]
fn handshake_and_bare_acknowledgements_are_followed_whole() {
    let mut tape = Tape::new(cross_node());
    let mut at = tape.cross(&tcp(Forward, 1, 99, SYN, 0), Forward, ARMED);
    // Lost on the wire, sent again with another number.
    at = tape.walk(&tcp(Reply, 0, 500, SYN | ACK, 0), Reply, 0..5, at);
    at = tape.cross(&tcp(Forward, 2, 99, SYN, 0), Forward, at + 1_000_000_000);
    at = tape.cross(&tcp(Reply, 0, 500, SYN | ACK, 0), Reply, at);
    for id in 3..6 {
        // Three duplicate acknowledgements differ in their number alone.
        at = tape.cross(&tcp(Forward, id, 100, ACK, 0), Forward, at);
    }
    let trace = tape.trace(&tape.observation());
    check(&trace);
    assert_eq!(count(&trace, Forward, Delivered), 5);
    assert_eq!((count(&trace, Reply, Delivered), count(&trace, Reply, Lost)), (1, 1));
    assert_eq!((trace.retransmitted, trace.duplicated), (2, 0));
    assert_eq!(trace.journeys[2].retransmission_of, Some(1));
    assert!(trace.journeys.iter().all(|j| j.range.is_none()));
}

#[test]
fn a_doubled_segment_is_a_copy() {
    let mut tape = Tape::new(cross_node());
    let segment = data(10, 1000, 1448);
    tape.cross(&segment, Forward, ARMED);
    tape.walk(&segment, Forward, 6..12, ARMED + 50 * STEP);
    let trace = tape.trace(&tape.observation());
    assert_eq!(trace.journeys[1].duplicate_of, Some(1));
    assert_eq!(trace.retransmitted, 0);
    let stats = stats(&trace, Forward);
    assert_eq!((stats[11].unique_bytes, stats[11].repeated_bytes), (1448, 1448));
    assert_eq!(count(&trace, Forward, Delivered), 1);
}

#[test]
fn a_segment_in_a_circle_is_one_journey() {
    let mut tape = Tape::new(cross_node());
    let mut segment = data(10, 1000, 1448);
    let at = tape.walk(&segment, Forward, 0..5, ARMED);
    segment.ip.ttl -= 1;
    tape.walk(&segment, Forward, 3..5, at);
    let trace = tape.trace(&tape.observation());
    assert!(only(&trace).looped);
    assert_eq!(only(&trace).hops.len(), 7);
}

/// Cuts `total` bytes at these places.
fn pieces(total: u32, cuts: &[u32]) -> Vec<(u32, u32)> {
    let mut ends: Vec<u32> = cuts.iter().map(|c| 1 + c % total).collect();
    ends.push(total);
    ends.sort_unstable();
    ends.dedup();
    let starts = [0].into_iter().chain(ends.iter().copied());
    starts.zip(ends.iter().copied()).filter(|(s, e)| s < e).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// However a stream is cut at each point, every byte is accounted for at each, once.
    #[test]
    fn splitting_and_merging_keeps_every_byte(
        cuts in prop::collection::vec(prop::collection::vec(any::<u32>(), 0..12), 12),
        total in 1u32..200_000,
        isn in any::<u32>(),
        numbered in any::<bool>(),
    ) {
        let mut tape = Tape::new(cross_node());
        let mut at = ARMED;
        for (position, cuts) in cuts.iter().enumerate() {
            for (start, end) in pieces(total, cuts) {
                let id = if numbered { 1 + start / 1448 } else { 0 };
                let sample = data(id, isn.wrapping_add(start), end - start);
                at = tape.walk(&sample, Forward, position..position + 1, at);
            }
        }
        let trace = tape.trace(&tape.observation());
        let sent = pieces(total, &cuts[0]).len() as u64;
        prop_assert_eq!(trace.journeys.len() as u64, sent);
        prop_assert_eq!(count(&trace, Forward, Delivered), sent);
        for (position, point) in stats(&trace, Forward).iter().enumerate() {
            prop_assert_eq!((point.unique_bytes, point.repeated_bytes), (u64::from(total), 0));
            prop_assert_eq!(point.skbs, pieces(total, &cuts[position]).len() as u64);
        }
        for journey in &trace.journeys {
            let range = journey.range.unwrap();
            prop_assert!(journey.hops.iter().all(|h| h.covered == range.end - range.start));
        }
    }
}
