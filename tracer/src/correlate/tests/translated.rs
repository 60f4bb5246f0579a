//! Packets whose addresses are translated on the way.

use super::*;
use crate::model::{Alias, L4, Leads, Service, Topology, tcp_flags};

/// A packet with other addresses and ports than it left with; the skb stays.
fn as_seen(sample: &Sample, src: Option<(&str, u16)>, dst: Option<(&str, u16)>) -> Sample {
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

fn destination(port: u16, real_port: u16) -> Alias {
    Alias {
        ip: ip("10.96.0.10"),
        port: Some(port),
        real: ip("10.10.1.2"),
        real_port: Some(real_port),
        source: false,
    }
}

fn source(address: &str) -> Alias {
    Alias { ip: ip(address), port: None, real: ip("10.10.0.2"), real_port: None, source: true }
}

fn translated(aliases: Vec<Alias>) -> Topology {
    Topology { aliases, ..cross_node() }
}

const SYN: u8 = tcp_flags::SYN;
const SYN_ACK: u8 = tcp_flags::SYN | tcp_flags::ACK;

/// The pod calls 10.96.0.10:443, pod b listens on 80.
#[test]
fn a_destination_is_followed_across_its_translation_both_ways() {
    let mut tape = Tape::new(translated(vec![destination(443, 80)]));
    let syn = tcp(Direction::Forward, 7, 1000, SYN, 0);
    let sent = as_seen(&syn, None, Some(("10.96.0.10", 443)));
    let time = tape.walk(&sent, Direction::Forward, 0..2, ARMED);
    let time = tape.walk(&syn, Direction::Forward, 2..12, time);
    let answer = tcp(Direction::Reply, 8, 5000, SYN_ACK, 0);
    let time = tape.walk(&answer, Direction::Reply, 0..9, time);
    let back = as_seen(&answer, Some(("10.96.0.10", 443)), None);
    tape.walk(&back, Direction::Reply, 9..12, time);
    let trace = tape.trace(&tape.observation());
    check(&trace);
    assert_eq!(trace.journeys.len(), 2, "{:#?}", trace.journeys);
    for journey in &trace.journeys {
        assert_eq!((journey.outcome, journey.hops.len()), (Outcome::Delivered, 12));
    }
    // Hops keep what was there.
    let Body::Ip(first) = &trace.journeys[0].hops[0].packet.body else { panic!() };
    assert_eq!(first.dst, ip("10.96.0.10"));
}

/// Another port of the service address is another flow.
#[test]
fn other_ports_of_a_service_address_are_not_translated() {
    let mut tape = Tape::new(translated(vec![destination(443, 80)]));
    let syn = tcp(Direction::Forward, 7, 1000, SYN, 0);
    let sent = as_seen(&syn, None, Some(("10.96.0.10", 22)));
    tape.walk(&sent, Direction::Forward, 0..2, ARMED);
    let trace = tape.trace(&tape.observation());
    assert_eq!(only(&trace).outcome, Outcome::Lost);
}

/// Masquerading takes another address and a random port, which only the skb tells.
#[test]
fn a_masqueraded_source_is_followed_with_its_new_port() {
    let mut tape = Tape::new(translated(vec![source("10.10.0.0")]));
    let mut time = ARMED;
    // A second connection with the same sender's numbers is not mistaken for the first.
    for (own, taken, skb) in [(40_000, 61_001, 1), (40_001, 61_002, 2)] {
        let mut syn = tcp(Direction::Forward, 7, 1000, SYN, 0);
        syn.skb = skb;
        let syn = as_seen(&syn, Some(("10.10.0.2", own)), None);
        time = tape.walk(&syn, Direction::Forward, 0..3, time);
        let masqueraded = as_seen(&syn, Some(("10.10.0.0", taken)), None);
        time = tape.walk(&masqueraded, Direction::Forward, 3..12, time);
        let answer = tcp(Direction::Reply, 8, 5000, SYN_ACK, 0);
        let answer = as_seen(&answer, None, Some(("10.10.0.0", taken)));
        time = tape.walk(&answer, Direction::Reply, 0..9, time);
        let back = as_seen(&answer, None, Some(("10.10.0.2", own)));
        time = tape.walk(&back, Direction::Reply, 9..12, time);
    }
    let trace = tape.trace(&tape.observation());
    check(&trace);
    assert_eq!(count(&trace, Direction::Forward, Outcome::Delivered), 2);
    assert_eq!(count(&trace, Direction::Reply, Outcome::Delivered), 2);
    assert_eq!(trace.journeys.len(), 4, "{:#?}", trace.journeys);
}

/// A pod that reaches itself through its service: only ports tell requests from answers.
#[test]
fn a_pod_talks_to_itself() {
    let mut topology = same_node();
    topology.dst.clone_from(&topology.src);
    let own = topology.dst.as_mut().unwrap();
    own.service = Some(Service {
        ip: ip("10.96.0.10"),
        port: Some(443),
        proto: Some(6),
        target_port: Some(80),
        leads: Leads::Rule,
        dead: false,
        others: Vec::new(),
        translator: "A".to_owned(),
        entry: None,
    });
    topology.aliases =
        vec![Alias { real: ip("10.10.0.2"), ..destination(443, 80) }, source("10.10.0.1")];
    let mut tape = Tape::new(topology);
    let pod = "10.10.0.2";
    let syn = tcp(Direction::Forward, 7, 1000, SYN, 0);
    let sent = as_seen(&syn, None, Some(("10.96.0.10", 443)));
    let time = tape.walk(&sent, Direction::Forward, 0..2, ARMED);
    let arrived = as_seen(&syn, Some(("10.10.0.1", 61_001)), Some((pod, 80)));
    let time = tape.walk(&arrived, Direction::Forward, 2..4, time);
    let answer = tcp(Direction::Reply, 8, 5000, SYN_ACK, 0);
    let answer = as_seen(&answer, Some((pod, 80)), Some(("10.10.0.1", 61_001)));
    let time = tape.walk(&answer, Direction::Reply, 0..2, time);
    let back = as_seen(&answer, Some(("10.96.0.10", 443)), Some((pod, 40_000)));
    tape.walk(&back, Direction::Reply, 2..4, time);
    let trace = tape.trace(&tape.observation());
    assert_eq!(count(&trace, Direction::Forward, Outcome::Delivered), 1);
    assert_eq!(count(&trace, Direction::Reply, Outcome::Delivered), 1);
    assert_eq!(trace.journeys.len(), 2, "{:#?}", trace.journeys);
}

/// Where nobody is, the last point that is known is not an arrival.
#[test]
fn nothing_arrives_where_nobody_is() {
    let mut topology = cross_node();
    topology.dst.as_mut().unwrap().service = Some(Service {
        ip: ip("10.96.0.10"),
        port: None,
        proto: None,
        target_port: None,
        leads: Leads::Rule,
        dead: true,
        others: Vec::new(),
        translator: "A".to_owned(),
        entry: None,
    });
    topology.forward.truncate(10);
    let mut tape = Tape::new(topology);
    tape.cross(&ping(Direction::Forward, 1, 7), Direction::Forward, ARMED);
    let trace = tape.trace(&tape.observation());
    assert_eq!(only(&trace).outcome, Outcome::Lost);
}

/// Of several backends one is followed: what is translated to another vanishes before our eyes, and
/// is not lost.
#[test]
fn packets_to_other_backends_are_not_lost() {
    let mut topology = translated(vec![destination(443, 80)]);
    topology.dst.as_mut().unwrap().service = Some(Service {
        ip: ip("10.96.0.10"),
        port: Some(443),
        proto: Some(6),
        target_port: Some(80),
        leads: Leads::Rule,
        dead: false,
        others: vec![ip("10.10.1.3")],
        translator: "A".to_owned(),
        entry: None,
    });
    let mut tape = Tape::new(topology);
    let mut time = ARMED;
    for (seq, last) in [(1000, 2), (2000, 12), (3000, 4)] {
        let syn = tcp(Direction::Forward, seq, seq, SYN, 0);
        let sent = as_seen(&syn, None, Some(("10.96.0.10", 443)));
        time = tape.walk(&sent, Direction::Forward, 0..2, time);
        time = tape.walk(&syn, Direction::Forward, 2..last, time);
    }
    let trace = tape.trace(&tape.observation());
    let outcomes: Vec<Outcome> = trace.journeys.iter().map(|j| j.outcome).collect();
    assert_eq!(outcomes, [Outcome::Elsewhere, Outcome::Delivered, Outcome::Lost]);
}

/// An ICMP error quotes the packet as it was where the error was made.
#[test]
fn an_error_about_a_translated_packet_finds_it() {
    let mut tape = Tape::new(translated(vec![destination(443, 80)]));
    let syn = tcp(Direction::Forward, 7, 1000, SYN, 0);
    let sent = as_seen(&syn, None, Some(("10.96.0.10", 443)));
    let time = tape.walk(&sent, Direction::Forward, 0..2, ARMED);
    let time = tape.walk(&syn, Direction::Forward, 2..9, time);
    let (far, near) = (tape.topology.reply[3], tape.topology.reply[11]);
    tape.error(&syn, "10.10.1.0", 3, 1, far, time);
    // Seen again where the quote is translated back.
    tape.error(&sent, "10.10.1.0", 3, 1, near, time + STEP);
    let trace = tape.trace(&tape.observation());
    assert_eq!(trace.icmp_errors.len(), 1);
    assert_eq!(trace.icmp_errors[0].about, Some(only(&trace).id));
}

/// A node's own packet is seen first with the source that masquerading gave it; its answer gets the
/// node's own address and port back before it arrives.
#[test]
fn answers_to_a_masqueraded_node_are_followed_to_where_they_are_translated_back() {
    let mut tape = Tape::new(translated(vec![source("10.10.0.1")]));
    let mut time = ARMED;
    for n in 0..2u16 {
        let (taken, own) = (61_000 + n, 40_000 + n);
        let mut syn = tcp(Direction::Forward, 7 + u32::from(n), 1000, SYN, 0);
        syn.skb = 100 + u64::from(n);
        let syn = as_seen(&syn, Some(("10.10.0.1", taken)), None);
        time = tape.walk(&syn, Direction::Forward, 0..12, time);
        let mut answer = tcp(Direction::Reply, 70 + u32::from(n), 5000, SYN_ACK, 0);
        answer.skb = 200 + u64::from(n);
        let answer = as_seen(&answer, None, Some(("10.10.0.1", taken)));
        time = tape.walk(&answer, Direction::Reply, 0..2, time);
        let back = as_seen(&answer, None, Some(("10.10.0.2", own)));
        time = tape.walk(&back, Direction::Reply, 2..12, time);
    }
    let trace = tape.trace(&tape.observation());
    check(&trace);
    assert_eq!(count(&trace, Direction::Forward, Outcome::Delivered), 2);
    assert_eq!(count(&trace, Direction::Reply, Outcome::Delivered), 2, "{:#?}", trace.journeys);
    assert_eq!(trace.journeys.len(), 4);
}

/// The trace begins while an answer is under way: what that one seems to say does not outlive the first
/// request.
#[test]
fn an_answer_that_came_first_does_not_mislead() {
    let mut tape = Tape::new(translated(vec![source("10.10.0.0")]));
    let (own, taken) = (40_000, 61_001);
    let answer = |id: u32| {
        let mut answer = tcp(Direction::Reply, id, 5000 + id, SYN_ACK, 0);
        answer.skb = 1000 + u64::from(id);
        as_seen(&answer, None, Some(("10.10.0.0", taken)))
    };
    let back = |answer: &Sample| as_seen(answer, None, Some(("10.10.0.2", own)));
    let first = answer(90);
    let time = tape.walk(&first, Direction::Reply, 7..9, ARMED);
    let mut time = tape.walk(&back(&first), Direction::Reply, 9..12, time);
    for n in 0..3 {
        let mut syn = tcp(Direction::Forward, 7 + n, 1000 + n, SYN, 0);
        syn.skb = 100 + u64::from(n);
        let sent = as_seen(&syn, Some(("10.10.0.2", own)), None);
        time = tape.walk(&sent, Direction::Forward, 0..3, time);
        let masqueraded = as_seen(&sent, Some(("10.10.0.0", taken)), None);
        time = tape.walk(&masqueraded, Direction::Forward, 3..12, time);
        let reply = answer(91 + n);
        time = tape.walk(&reply, Direction::Reply, 0..9, time);
        time = tape.walk(&back(&reply), Direction::Reply, 9..12, time);
    }
    let trace = tape.trace(&tape.observation());
    check(&trace);
    assert_eq!(count(&trace, Direction::Forward, Outcome::Delivered), 3);
    assert_eq!(count(&trace, Direction::Reply, Outcome::Delivered), 3, "{:#?}", trace.outcomes);
    assert_eq!(count(&trace, Direction::Reply, Outcome::Lost), 0);
}
