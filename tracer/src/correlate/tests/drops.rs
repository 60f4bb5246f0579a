use super::*;
use crate::model::{Direction::*, Outcome::*, tcp_flags::*};

#[test]
fn a_drop_ends_its_journey_at_every_place() {
    for position in 0..11 {
        let mut tape = Tape::new(cross_node());
        let sample = ping(Forward, 1, 5);
        let at = tape.walk(&sample, Forward, 0..=position, ARMED);
        let station = tape.topology.forward[position].station;
        let netns = tape.topology.station(station).netns_inum;
        tape.dropped(&sample, Forward, position, netns, info("SOMETHING", "f", &[]), at);
        let trace = tape.trace(&tape.observation());
        let journey = only(&trace);
        if netns == WIRE {
            // The wire is no node: what it loses is lost, the event is evidence.
            assert_eq!((journey.outcome, journey.side_drops.len()), (Lost, 1));
        } else {
            assert_eq!(journey.outcome, Dropped, "at {position}");
            assert_eq!(journey.drop.as_ref().unwrap().info.reason, "SOMETHING");
        }
    }
}

#[test]
fn a_copy_that_dies_does_not_end_a_packet_that_goes_on() {
    let mut tape = Tape::new(cross_node());
    let sample = ping(Forward, 1, 5);
    let at = tape.walk(&sample, Forward, 0..10, ARMED);
    tape.dropped(&sample, Forward, 9, BYSTANDER, info("OTHERHOST", "ip_rcv_core", &[]), at);
    tape.dropped(&sample, Forward, 9, NODE_B, info("NOT_SPECIFIED", "br_flood", &[]), at + 1);
    tape.walk(&sample, Forward, 10..12, at + STEP);
    let trace = tape.trace(&tape.observation());
    assert_eq!((only(&trace).outcome, only(&trace).side_drops.len()), (Delivered, 2));
    assert!(only(&trace).drop.is_none());
}

#[test]
fn drops_of_no_packet_are_kept_up_to_a_limit_and_then_counted() {
    let mut tape = Tape::new(cross_node());
    for n in 0..1002_u16 {
        // Nobody saw these packets set out.
        let sample = ping(Forward, n, 1000 + u32::from(n));
        let drop = info("SOMETHING", "f", &[]);
        tape.dropped(&sample, Forward, 8, NODE_B, drop, ARMED + u64::from(n));
    }
    let trace = tape.trace(&tape.observation());
    assert_eq!(trace.stray_drops.len(), 1000);
    assert_eq!(trace.stray_omitted.into_iter().collect::<Vec<_>>(), [("B".to_owned(), 2)]);
}

#[test]
fn a_bystander_does_not_answer_for_a_lost_packet() {
    let mut tape = Tape::new(cross_node());
    let sample = ping(Forward, 1, 5);
    let at = tape.walk(&sample, Forward, 0..10, ARMED);
    tape.dropped(&sample, Forward, 9, BYSTANDER, info("OTHERHOST", "ip_rcv_core", &[]), at);
    let trace = tape.trace(&tape.observation());
    assert_eq!((only(&trace).outcome, only(&trace).side_drops.len()), (Lost, 1));
}

#[test]
fn healthy_noise_is_no_drop() {
    let mut tape = Tape::new(cross_node());
    let (request, answer) = (ping(Forward, 1, 5), ping(Reply, 1, 6));
    let at = tape.cross(&request, Forward, ARMED);
    let at = tape.cross(&answer, Reply, at);
    tape.dropped(&answer, Reply, 11, POD_A, info("NO_SOCKET", "ping_rcv", &[]), at);
    let ack = tcp(Forward, 7, 100, ACK, 0);
    let at = tape.cross(&ack, Forward, at + STEP);
    for (reason, function) in [
        ("NOT_SPECIFIED", "tcp_rcv_state_process"),
        ("QUEUE_PURGE", "skb_queue_purge_reason"),
        ("NOT_SPECIFIED", "inet_sock_destruct"),
        ("TCP_OLD_DATA", "tcp_data_queue"),
    ] {
        tape.dropped(&ack, Forward, 11, POD_B, info(reason, function, &[]), at);
    }
    let trace = tape.trace(&tape.observation());
    assert!(trace.journeys.iter().all(|j| j.outcome == Delivered && j.side_drops.is_empty()));
    assert!(trace.stray_drops.is_empty());
}

#[test]
fn a_refusal_behind_the_last_hop_counts_and_a_reset_tells_the_sender() {
    let mut tape = Tape::new(cross_node());
    let (syn, reset) = (tcp(Forward, 1, 99, SYN, 0), tcp(Reply, 0, 0, RST | ACK, 0));
    let at = tape.cross(&syn, Forward, ARMED);
    let at = tape.cross(&reset, Reply, at);
    tape.dropped(&syn, Forward, 11, POD_B, info("NO_SOCKET", "tcp_v4_rcv", &[]), at);
    let datagram = udp(Forward, 3, 20);
    let at = tape.cross(&datagram, Forward, at + STEP);
    tape.dropped(&datagram, Forward, 11, POD_B, info("SOCKET_RCVBUFF", "udp_q", &[]), at);
    let trace = tape.trace(&tape.observation());
    let outcomes: Vec<_> = trace.journeys.iter().map(|j| (j.direction, j.outcome)).collect();
    assert_eq!(outcomes, [(Forward, Rejected), (Reply, Delivered), (Forward, Dropped)]);
}

#[test]
fn an_icmp_error_is_reported_once_and_makes_it_rejected() {
    let mut tape = Tape::new(cross_node());
    let sample = udp(Forward, 3, 20);
    let at = tape.walk(&sample, Forward, 0..3, ARMED);
    for (step, position) in (9..12).enumerate() {
        let point = tape.topology.reply[position];
        tape.error(&sample, "10.10.0.1", 3, 13, point, at + step as u64 * STEP);
    }
    tape.dropped(&sample, Forward, 2, NODE_A, info("NETFILTER_DROP", "n", FORWARD_STACK), at + 9);
    let trace = tape.trace(&tape.observation());
    assert_eq!(only(&trace).outcome, Rejected);
    assert_eq!(trace.icmp_errors.len(), 1);
    assert_eq!(trace.icmp_errors[0].about, Some(1));
}

#[test]
fn a_late_neighbour_failure_finds_its_packet() {
    let mut tape = Tape::new(cross_node());
    let samples: Vec<_> = (1..=3).map(|seq| ping(Forward, seq, u32::from(seq))).collect();
    for (sample, second) in samples.iter().zip(0..) {
        tape.walk(sample, Forward, 0..3, ARMED + second * 1_000_000_000);
    }
    for sample in &samples {
        let failed = info("NEIGH_FAILED", "neigh_invalidate", &[]);
        // The kernel has used the address of the skb for something else since.
        let sample = Sample { skb: 1, ..sample.clone() };
        tape.dropped(&sample, Forward, 3, NODE_A, failed, ARMED + 3_050_000_000);
    }
    let trace = tape.trace(&tape.observation());
    assert_eq!(count(&trace, Forward, Dropped), 3);
}

#[test]
fn what_its_own_pod_drops_is_a_journey_without_hops() {
    let mut tape = Tape::new(cross_node());
    let failed = info("NEIGH_FAILED", "neigh_invalidate", &[]);
    tape.dropped(&ping(Forward, 1, 1), Forward, 0, POD_A, failed.clone(), ARMED);
    tape.dropped(&data(5, 77, 100), Forward, 0, POD_A, failed, ARMED + 1);
    let trace = tape.trace(&tape.observation());
    assert_eq!(count(&trace, Forward, Dropped), 2);
    assert!(trace.journeys.iter().all(|j| j.hops.is_empty() && j.drop.is_some()));
}

#[test]
fn a_drop_of_part_of_a_stream_is_attached_with_its_bytes() {
    let mut tape = Tape::new(cross_node());
    let whole = data(10, 1000, 3 * 1448);
    let mut at = tape.walk(&whole, Forward, 0..5, ARMED);
    for segment in 0..3 {
        let part = data(10 + segment, 1000 + segment * 1448, 1448);
        if segment == 0 {
            at = tape.walk(&part, Forward, 5..12, at);
        } else {
            at = tape.walk(&part, Forward, 5..8, at);
            tape.dropped(&part, Forward, 7, NODE_B, info("UDP_CSUM", "__udp4_lib_rcv", &[]), at);
        }
    }
    let trace = tape.trace(&tape.observation());
    let journey = only(&trace);
    assert_eq!(journey.outcome, Partial);
    assert_eq!(journey.drop.as_ref().unwrap().bytes, 2 * 1448);
}

#[test]
fn progress_follows_the_journeys() {
    let mut tape = Tape::new(cross_node());
    let (one, two, three) = (ping(Forward, 1, 1), ping(Forward, 2, 2), ping(Forward, 3, 3));
    tape.cross(&one, Forward, ARMED);
    let at = tape.walk(&two, Forward, 0..3, ARMED + 100 * STEP);
    tape.walk(&three, Forward, 0..3, ARMED + 200 * STEP);
    let mut correlator = Correlator::new(&tape.topology, Limits::default());
    correlator.count_within(ARMED, None);
    correlator.push(tape.events.clone());
    correlator.push([]);
    assert_eq!((correlator.started(Forward), correlator.delivered(Forward)), (3, 1));
    assert_eq!(correlator.pending(), 2);
    tape.events.clear();
    tape.dropped(&two, Forward, 2, NODE_A, info("NETFILTER_DROP", "n", FORWARD_STACK), at);
    correlator.push(tape.events.clone());
    correlator.push([]);
    assert_eq!(correlator.pending(), 1);
    correlator.count_within(ARMED, Some(ARMED + 150 * STEP));
    correlator.count_pending();
    assert_eq!(correlator.pending(), 0);
}
