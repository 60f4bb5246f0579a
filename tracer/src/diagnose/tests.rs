//! Verdicts over synthetic traces.

mod backends;
mod directions;

use super::*;
use crate::correlate::testing::*;
use crate::model::{Direction::*, Hook, Loss, ProbeResult, Unreachable, tcp_flags};
use crate::report::{Confidence, Status, Verdict};

fn meta() -> Meta {
    Meta {
        started: "2026-01-01T00:00:00Z".into(),
        duration_ns: 1,
        version: "0".into(),
        kernel: "6.18".into(),
    }
}

fn diagnose(tape: &Tape, observation: &Observation) -> Report {
    let trace = tape.trace(observation);
    report(&Input {
        topology: &tape.topology,
        family: Family::V4,
        trace: &trace,
        observation,
        before: None,
        after: None,
        meta: &meta(),
    })
}

fn probe(proto: &str, sent: u64, answered: u64) -> Option<ProbeResult> {
    Some(ProbeResult { proto: proto.into(), sent, answered, ..ProbeResult::default() })
}

/// Interface, stage and function of a verdict's place, with its node.
fn place_of(verdict: &Verdict) -> (Option<&str>, Option<&str>, Option<&str>, Option<&str>) {
    let place = verdict.r#where.as_ref().unwrap();
    (
        place.node.as_deref(),
        place.interface.as_deref(),
        place.stage.as_deref(),
        place.function.as_deref(),
    )
}

fn healthy() -> Tape {
    let mut tape = Tape::new(cross_node());
    for seq in 1..=5u16 {
        let at = ARMED + u64::from(seq) * 1_000_000;
        let back = tape.cross(&ping(Forward, seq, 100 + u32::from(seq)), Forward, at);
        tape.cross(&ping(Reply, seq, 200 + u32::from(seq)), Reply, back);
    }
    tape
}

#[test]
fn healthy_pings_are_delivered() {
    let tape = healthy();
    let observation = Observation { probe: probe("icmp", 5, 5), ..tape.observation() };
    let report = diagnose(&tape, &observation);
    assert_eq!(report.verdict.status, Status::Delivered);
    assert_eq!(report.verdict.direction, None);
    assert_eq!(
        report.verdict.summary,
        "All 5 packets from A.a reached B.b. All 5 packets from B.b reached A.a."
    );
    assert_eq!((report.packets.sent, report.packets.delivered, report.packets.replied), (5, 5, 5));
    assert!(report.findings.is_empty() && report.notes.is_empty());
    let [forward, reply] = report.directions.as_slice() else { panic!() };
    for direction in [forward, reply] {
        assert_eq!((direction.packets, direction.hops.len()), (5, 12));
        assert!(direction.hops.iter().all(|h| h.packets == 5 && h.lost == 0 && h.expected));
    }
}

#[test]
fn a_journey_reads_like_a_textbook() {
    let report = diagnose(&healthy(), &healthy().observation());
    let journey = &report.journeys[0];
    assert_eq!(journey.summary, "ICMP echo request, id 77, seq 1, length 64");
    assert_eq!((journey.id.as_str(), journey.bytes), ("1", Some(64)));
    let changes: Vec<_> = journey.hops.iter().map(|h| h.changes.join("; ")).collect();
    assert_eq!(changes[0], "");
    assert_eq!(changes[1], "src MAC A.a.mac → A.vetha.mac");
    assert_eq!(changes[3], "TTL 64 → 63; src MAC A.cni0.mac → A.flannel.1.mac");
    assert!(
        changes[4].starts_with("+VXLAN VNI 1 → 192.168.10.11:8472")
            || changes[4].starts_with("+VXLAN VNI 1 → 192.168.10.12:8472"),
        "{}",
        changes[4]
    );
    assert!(changes[8].starts_with("-VXLAN"));
    assert!(changes[9].starts_with("TTL 63 → 62"));
    let hop = &journey.hops[4];
    assert_eq!(hop.outer.as_ref().unwrap().vni, Some(1));
    assert_eq!(hop.names["192.168.10.11"], "A.ens33.ip");
    assert_eq!((hop.time_ns, hop.delta_ns), (4 * STEP, STEP));
}

/// Five pings that the kernel drops like this behind a position.
fn dropped_at(position: usize, netns: u32, reason: &str, function: &str, stack: &[&str]) -> Report {
    let mut tape = Tape::new(cross_node());
    for seq in 1..=5 {
        let sample = ping(Forward, seq, u32::from(seq));
        let start = ARMED + u64::from(seq) * 1_000_000;
        let at = tape.walk(&sample, Forward, 0..=position, start);
        tape.dropped(&sample, Forward, position, netns, info(reason, function, stack), at);
    }
    diagnose(&tape, &tape.observation())
}

#[test]
fn a_firewall_drop_names_node_hook_and_interface() {
    let report = dropped_at(2, NODE_A, "NETFILTER_DROP", "nft_do_chain", FORWARD_STACK);
    let verdict = &report.verdict;
    assert_eq!((verdict.status, verdict.direction), (Status::Dropped, Some(Forward)));
    assert_eq!(verdict.cause.as_deref(), Some("netfilter.drop"));
    // Which rule it was is not known.
    assert_eq!(verdict.confidence, Confidence::Likely);
    assert_eq!(place_of(verdict), (Some("A"), Some("cni0"), Some("forward"), Some("nft_do_chain")));
    assert_eq!(
        verdict.summary,
        "The firewall of A drops the packets; its rules could not be read. \
         A dropped the packet in netfilter FORWARD (NETFILTER_DROP at nft_do_chain) after \
         A.cni0 ingress; 5 of 5 packets."
    );
    assert_eq!(verdict.next_expected.as_ref().unwrap().interface, "flannel.1");
    assert!(verdict.fix[0].starts_with("on A: nft list ruleset"));
    assert_eq!(report.verdict.status.exit_code(), 3);
    let hops = &report.directions[0].hops;
    assert_eq!((hops[2].lost, hops[3].lost, hops[4].lost), (0, 5, 0));
    assert_eq!(report.journeys[0].drop.as_ref().unwrap().hook.as_deref(), Some("FORWARD"));
    assert_eq!(report.directions[1].verdict.status, Status::NoTraffic);
}

#[test]
fn other_drops_have_their_places() {
    let of = |position, netns, reason, function, stack: &[&str]| {
        let report = dropped_at(position, netns, reason, function, stack);
        assert_eq!(report.verdict.status, Status::Dropped);
        let place = report.verdict.r#where.unwrap();
        format!("{} {} {}", place.node.unwrap(), place.interface.unwrap(), place.stage.unwrap())
    };
    assert_eq!(of(3, NODE_A, "NO_TX_TARGET", "vxlan_xmit", &[]), "A flannel.1 encap");
    assert_eq!(of(2, NODE_A, "IP_INNOROUTES", "ip_error", &[]), "A cni0 route");
    assert_eq!(of(7, NODE_B, "VXLAN_VNI_NOT_FOUND", "vxlan_rcv", &[]), "B ens33 decap");
    assert_eq!(of(8, NODE_B, "OTHERHOST", "ip_rcv_core", &[]), "B flannel.1 receive");
    assert_eq!(of(8, NODE_B, "IP_RPFILTER", "ip_rcv_finish_core", &[]), "B flannel.1 route");
    assert_eq!(of(0, POD_A, "QDISC_DROP", "__dev_queue_xmit", &[]), "A eth0 transmit");
    assert_eq!(of(1, NODE_A, "BRIDGE_INGRESS_STP_STATE", "br_handle_frame", &[]), "A vetha bridge");
    let out = ["nft_do_chain_ipv4", "nf_hook_slow", "__ip_local_out", "iptunnel_xmit"];
    assert_eq!(of(3, NODE_A, "NETFILTER_DROP", "nft_do_chain", &out), "A flannel.1 output");
    assert_eq!(of(11, POD_B, "NO_SOCKET", "tcp_v4_rcv", &[]), "B eth0 socket");
}

#[test]
fn kernel_reasons_without_a_table_entry_have_their_causes() {
    let cause = |report: &Report| report.verdict.cause.clone().unwrap_or_default();
    let queue = dropped_at(2, NODE_A, "NOT_SPECIFIED", "nf_queue", FORWARD_STACK);
    assert_eq!(cause(&queue), "netfilter.queue");
    let policy = dropped_at(2, NODE_A, "XFRM_POLICY", "udp_queue_rcv_one_skb", &[]);
    assert_eq!(cause(&policy), "route.xfrm-policy");
    let mut tape = Tape::new(cross_node());
    let sample = ping(Forward, 1, 1);
    let at = tape.walk(&sample, Forward, 0..=2, ARMED);
    let mut lowered = sample.clone();
    lowered.ip.ttl = 1;
    tape.dropped(&lowered, Forward, 2, NODE_A, info("IP_INHDR", "ip_forward", &[]), at);
    let report = diagnose(&tape, &tape.observation());
    assert_eq!(cause(&report), "route.ttl-expired");
    assert!(
        report
            .verdict
            .summary
            .contains("lowers the packet's TTL from 64 to 1 behind A.cni0 ingress")
    );
}

#[test]
fn the_output_device_counts_where_the_packet_is_leaving() {
    let mut tape = Tape::new(cross_node());
    let sample = ping(Forward, 1, 1);
    let at = tape.walk(&sample, Forward, 0..3, ARMED);
    // Looks as at flannel.1, and names it.
    let stack = ["nf_hook_slow", "ip_output", "ip_forward"];
    let drop = info("NETFILTER_DROP", "nft_do_chain", &stack);
    tape.dropped(&sample, Forward, 3, NODE_A, drop, at);
    let report = diagnose(&tape, &tape.observation());
    assert_eq!(place_of(&report.verdict).1, Some("flannel.1"));
    assert_eq!(report.verdict.last_seen.unwrap().interface, "cni0");
}

#[test]
fn some_of_many_is_degraded() {
    let mut tape = healthy();
    let sample = ping(Forward, 9, 999);
    let at = tape.walk(&sample, Forward, 0..3, ARMED + 20_000_000);
    let drop = info("NETFILTER_DROP", "nft_do_chain", FORWARD_STACK);
    tape.dropped(&sample, Forward, 2, NODE_A, drop, at);
    let report = diagnose(&tape, &tape.observation());
    assert_eq!(report.verdict.status, Status::Degraded);
    assert_eq!(report.verdict.cause.as_deref(), Some("netfilter.drop"));
    assert!(report.verdict.summary.ends_with("1 of 6 packets."));
}

#[test]
fn a_refused_connection_is_rejected() {
    let mut tape = Tape::new(cross_node());
    let syn = tcp(Forward, 1, 99, tcp_flags::SYN, 0);
    let reset = tcp(Reply, 0, 0, tcp_flags::RST | tcp_flags::ACK, 0);
    let at = tape.cross(&syn, Forward, ARMED);
    let at = tape.cross(&reset, Reply, at);
    tape.dropped(&syn, Forward, 11, POD_B, info("NO_SOCKET", "tcp_v4_rcv", &[]), at);
    let report = diagnose(&tape, &tape.observation());
    assert_eq!(report.verdict.status, Status::Rejected);
    assert_eq!(report.verdict.cause.as_deref(), Some("socket.no-listener"));
    assert!(report.verdict.summary.starts_with("Nothing listens on TCP port 80 in pod B.b. "));
    assert!(report.verdict.evidence.iter().any(|e| e == "answered with a TCP reset"));
    assert_eq!(report.verdict.next_expected, None);
    assert_eq!(report.journeys[0].summary, "TCP 40000 > 80 [S], seq 99, win 500, length 0");
}

#[test]
fn an_icmp_error_makes_it_rejected_and_is_quoted() {
    let mut tape = Tape::new(cross_node());
    let sample = udp(Forward, 3, 20);
    let at = tape.walk(&sample, Forward, 0..9, ARMED);
    tape.error(&sample, "10.10.1.0", 3, 13, tape.topology.reply[3], at);
    tape.dropped(&sample, Forward, 8, NODE_B, info("NETFILTER_DROP", "n", FORWARD_STACK), at + 1);
    let report = diagnose(&tape, &tape.observation());
    assert_eq!(report.verdict.status, Status::Rejected);
    let text = "ICMP error from 10.10.1.0: communication administratively prohibited";
    assert!(report.verdict.evidence.iter().any(|e| e == text), "{:?}", report.verdict.evidence);
    assert_eq!(report.icmp_errors.len(), 1);
    assert_eq!(report.icmp_errors[0].about.as_deref(), Some("1"));
}

fn lost_behind(position: usize) -> Tape {
    let mut tape = Tape::new(cross_node());
    for seq in 1..=5 {
        let sample = ping(Forward, seq, u32::from(seq));
        tape.walk(&sample, Forward, 0..=position, ARMED + u64::from(seq) * 1_000_000);
    }
    tape
}

#[test]
fn lost_on_the_wire_is_between_the_nodes() {
    for position in 4..=6 {
        let mut tape = lost_behind(position);
        if position == 5 {
            let sample = ping(Forward, 1, 1);
            let drop = info("NO_TX_TARGET", "br_handle_frame_finish", &[]);
            tape.dropped(&sample, Forward, 5, WIRE, drop, ARMED + 1_000_000 + 6 * STEP);
        }
        let report = diagnose(&tape, &tape.observation());
        let verdict = &report.verdict;
        assert_eq!(
            (verdict.status, verdict.cause.as_deref()),
            (Status::Lost, Some("underlay.lost"))
        );
        assert_eq!(place_of(verdict), (None, None, Some("wire"), None));
        let last = verdict.last_seen.as_ref().unwrap();
        assert_eq!(
            (last.node.as_str(), last.interface.as_str(), last.hook),
            ("A", "ens33", Hook::Egress)
        );
        let next = verdict.next_expected.as_ref().unwrap();
        assert_eq!(
            (next.node.as_str(), next.interface.as_str(), next.hook),
            ("B", "ens33", Hook::Ingress)
        );
        let proven = position == 5;
        assert_eq!(verdict.confidence == Confidence::Proven, proven);
        assert_eq!(verdict.evidence.iter().any(|e| e.contains("NO_TX_TARGET")), proven);
        assert_eq!(verdict.kernel_reason, None);
    }
}

#[test]
fn vanished_in_a_node_is_a_guess() {
    let mut tape = lost_behind(2);
    tape.resolution(tape.topology.forward[4], "192.168.10.11", "192.168.10.99", None, ARMED + 9);
    let report = diagnose(&tape, &tape.observation());
    assert_eq!(report.verdict.status, Status::Lost);
    assert_eq!(report.verdict.cause.as_deref(), Some("kernel.vanished"));
    assert_eq!(report.verdict.confidence, Confidence::Possible);
    let asked = "A.ens33.ip asked 1 times for 192.168.10.99 at A.ens33, no answer";
    assert!(report.verdict.evidence.iter().any(|e| e == asked), "{:?}", report.verdict.evidence);
}

/// A node that was observed up to a time.
fn gone(node: &str, since_ns: u64) -> Vec<Unreachable> {
    vec![Unreachable { node: node.to_owned(), since_ns, why: "no route".to_owned() }]
}

#[test]
fn what_a_node_did_not_tell_proves_nothing() {
    let tape = lost_behind(4);
    let observation = Observation { unreachable: gone("B", ARMED), ..tape.observation() };
    let report = diagnose(&tape, &observation);
    assert_eq!(report.verdict.status, Status::Inconclusive);
    assert!(report.verdict.summary.contains("node B could not be observed"));
    assert!(report.notes.iter().any(|n| n.starts_with("B unreachable since 0.0 s")));

    // It told of everything that these packets could do.
    let observation = Observation { unreachable: gone("B", u64::MAX), ..tape.observation() };
    let report = diagnose(&tape, &observation);
    assert!(report.journeys.iter().all(|j| j.outcome == crate::model::Outcome::Lost));
    assert_eq!(report.verdict.status, Status::Inconclusive, "later ones are not known");

    // A drop stays one.
    let mut tape = lost_behind(2);
    for seq in 1..=5 {
        let sample = ping(Forward, seq, u32::from(seq));
        let drop = info("NETFILTER_DROP", "nft_do_chain", FORWARD_STACK);
        tape.dropped(
            &sample,
            Forward,
            2,
            NODE_A,
            drop,
            ARMED + u64::from(seq) * 1_000_000 + STEP * 3,
        );
    }
    let observation = Observation { unreachable: gone("B", ARMED), ..tape.observation() };
    let report = diagnose(&tape, &observation);
    assert_eq!(report.verdict.status, Status::Dropped, "{:#?}", report.verdict);
}

#[test]
fn holes_in_the_observation_make_it_inconclusive() {
    let tape = lost_behind(4);
    let loss = Loss { ring_hop: 17, ..Loss::default() };
    let observation = Observation { loss: vec![("A".into(), loss.clone())], ..tape.observation() };
    let report = diagnose(&tape, &observation);
    assert_eq!(report.verdict.status, Status::Inconclusive);
    assert!(report.verdict.summary.contains("17 events were lost"));
    assert_eq!(report.verdict.status.exit_code(), 4);
    assert_eq!(report.loss.events_lost, 17);

    // Neither in words nor in numbers is anything lost.
    assert_eq!((report.packets.sent, report.packets.delivered, report.packets.unknown), (5, 0, 5));
    assert_eq!(report.counts(), "0/5 delivered, 5 unknown, 0 answered");
    assert_eq!(report.directions[0].outcomes.get("unknown"), Some(&5));
    assert_eq!(report.directions[0].outcomes.get("lost"), None);

    // What was seen and could not be read says where.
    let unread = Loss { undecodable: 5, ..Loss::default() };
    let losses = vec![("A".into(), unread), ("B".into(), Loss::default())];
    let observation = Observation { loss: losses, ..tape.observation() };
    let report = diagnose(&tape, &observation);
    assert_eq!(report.verdict.status, Status::Inconclusive);
    let text = "5 events seen at A could not be read";
    assert!(report.verdict.summary.contains(text), "{}", report.verdict.summary);
    assert_eq!(report.loss.by_node["A"].undecodable, 5);

    let observation = Observation { vanished: vec!["B.ens33".into()], ..tape.observation() };
    let report = diagnose(&tape, &observation);
    assert_eq!(report.verdict.status, Status::Inconclusive);
    assert!(report.verdict.summary.contains("B.ens33"));

    // What arrived did, but there may have been more.
    let tape = healthy();
    let observation = Observation { loss: vec![("A".into(), loss.clone())], ..tape.observation() };
    let verdict = diagnose(&tape, &observation).verdict;
    assert_eq!((verdict.status, verdict.confidence), (Status::Delivered, Confidence::Likely));
    assert!(verdict.evidence.iter().any(|e| e.contains("17 events were lost")));

    // A drop event is one, whatever else was missed; only its proof suffers.
    let mut tape = lost_behind(2);
    for seq in 1..=5 {
        let drop = info("NETFILTER_DROP", "nft_do_chain", FORWARD_STACK);
        let sample = ping(Forward, seq, u32::from(seq));
        let at = ARMED + u64::from(seq) * 1_000_000 + 10 * STEP;
        tape.dropped(&sample, Forward, 2, NODE_A, drop, at);
    }
    let observation = Observation { loss: vec![("A".into(), loss)], ..tape.observation() };
    let report = diagnose(&tape, &observation);
    assert_eq!(
        (report.verdict.status, report.verdict.confidence),
        (Status::Dropped, Confidence::Likely)
    );
}

#[test]
fn silence_is_told_from_failure() {
    let mut tape = Tape::new(cross_node());
    let report = diagnose(&tape, &tape.observation());
    assert_eq!(report.verdict.status, Status::NoTraffic);

    let errors = vec![("Network is unreachable".to_owned(), 5)];
    let result = ProbeResult { proto: "icmp".into(), errors, ..ProbeResult::default() };
    let observation = Observation { probe: Some(result), ..tape.observation() };
    let report = diagnose(&tape, &observation);
    assert_eq!(report.verdict.status, Status::NoTraffic);
    assert!(report.verdict.summary.contains("Network is unreachable (5 times)"));

    tape.resolution(tape.topology.forward[0], "10.10.0.2", "10.10.0.1", None, ARMED);
    let observation = Observation { probe: probe("icmp", 5, 0), ..tape.observation() };
    let report = diagnose(&tape, &observation);
    assert_eq!(report.verdict.status, Status::Lost);
    assert_eq!(report.verdict.cause.as_deref(), Some("neighbor.failed"));
    assert_eq!(place_of(&report.verdict).0, Some("A"));

    let mut asked = tape.events[0].clone();
    asked.kind =
        crate::model::EventKind::Drop(Box::new(info("QDISC_DROP", "__dev_queue_xmit", &[])));
    tape.events.push(asked);
    let report = diagnose(&tape, &observation);
    assert_eq!(report.verdict.status, Status::Dropped);
    assert_eq!(report.verdict.cause.as_deref(), Some("bridge.veth-down"));
    assert_eq!(place_of(&report.verdict).1, Some("eth0"));
}

#[test]
fn what_the_pod_itself_drops_is_seen_nowhere_and_known_all_the_same() {
    let mut tape = Tape::new(cross_node());
    for seq in 1..=3 {
        let drop = info("NEIGH_FAILED", "neigh_invalidate", &[]);
        let sample = ping(Forward, seq, u32::from(seq));
        tape.dropped(&sample, Forward, 0, POD_A, drop, ARMED + u64::from(seq));
    }
    let report = diagnose(&tape, &tape.observation());
    assert_eq!(report.verdict.status, Status::Dropped);
    assert_eq!(
        report.verdict.summary,
        "Nobody answers pod A.a's question for the next hop. pod A.a dropped the packet while resolving the next hop's address (NEIGH_FAILED at \
         neigh_invalidate) before it left its pod; 3 of 3 packets."
    );
    assert_eq!(report.verdict.next_expected.unwrap().interface, "eth0");
    assert_eq!(report.journeys.len(), 3);
}

#[test]
fn a_pod_that_does_not_answer_is_named() {
    let mut tape = Tape::new(cross_node());
    for seq in 1..=5 {
        let sample = ping(Forward, seq, u32::from(seq));
        tape.cross(&sample, Forward, ARMED + u64::from(seq) * 1_000_000);
    }
    let observation = Observation { probe: probe("icmp", 5, 0), ..tape.observation() };
    let report = diagnose(&tape, &observation);
    let verdict = &report.verdict;
    assert_eq!((verdict.status, verdict.direction), (Status::Lost, Some(Reply)));
    assert_eq!(verdict.cause.as_deref(), Some("pod.no-answer"));
    assert_eq!(verdict.confidence, Confidence::Likely);
    assert_eq!(verdict.last_seen.as_ref().unwrap().pod.as_deref(), Some("b"));

    let observation = Observation { probe: probe("udp", 5, 0), ..tape.observation() };
    let report = diagnose(&tape, &observation);
    let verdict = &report.verdict;
    assert_eq!((verdict.status, verdict.direction), (Status::Degraded, Some(Reply)));
    assert_eq!(verdict.cause.as_deref(), Some("pod.no-answer"));
    // It may be a server that only listens.
    assert_eq!(verdict.confidence, Confidence::Possible);
    let said = "B.b received the packets but sent no reply";
    assert!(verdict.summary.contains(said), "{}", verdict.summary);
    let observation = Observation { probe: probe("udp", 5, 3), ..tape.observation() };
    assert_eq!(diagnose(&tape, &observation).verdict.status, Status::Degraded);

    let report = diagnose(&tape, &tape.observation());
    assert_eq!(report.verdict.status, Status::Delivered);
    assert_eq!(report.notes, ["No packet from B.b back to A.a was seen."]);
}

#[test]
fn the_report_survives_its_own_format() {
    let tape = lost_behind(4);
    let mut report = diagnose(&tape, &tape.observation());
    let text = serde_json::to_string(&report).unwrap();
    // By whose own clock is not part of it.
    report.journeys.iter_mut().flat_map(|j| &mut j.hops).for_each(|h| h.clock = Default::default());
    assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
}

#[test]
fn failed_packets_are_listed_first_and_order_stays() {
    use crate::model::Outcome::{Delivered, Dropped, Elsewhere};
    let journey = |(id, outcome)| Journey {
        id,
        direction: Forward,
        range: None,
        hops: Vec::new(),
        drop: None,
        side_drops: Vec::new(),
        retransmission_of: None,
        duplicate_of: None,
        looped: false,
        stream: None,
        missing: Vec::new(),
        outcome,
    };
    let outcomes = [Delivered, Delivered, Dropped, Elsewhere, Dropped, Delivered];
    let journeys: Vec<Journey> = (1..).zip(outcomes).map(journey).collect();
    let ids = |most| listed(&journeys, most).iter().map(|j| j.id).collect::<Vec<_>>();
    assert_eq!(ids(1), [3]);
    assert_eq!(ids(3), [1, 3, 5]);
    assert_eq!(ids(9), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn a_super_packet_is_as_large_as_its_segments() {
    let mut tape = Tape::new(cross_node());
    tape.cross(&data(1, 1000, 45 * 1448), Forward, ARMED);
    let observation = tape.observation();
    let trace = tape.trace(&observation);
    let input = Input {
        topology: &tape.topology,
        family: Family::V4,
        trace: &trace,
        observation: &observation,
        before: None,
        after: None,
        meta: &meta(),
    };
    assert_eq!(flow_spec(&input).size, 1448 + 20 + 20);
}
