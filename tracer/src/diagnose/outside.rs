//! Ends beyond everything that is known: packets are seen to leave, and to come back or not.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::Case;
use super::absent::{Answers, unseen};
use super::causes;
use super::death::{Death, Ending};
use super::fix;
use super::text::{icmp_text, of_packets, point_report, point_text};
use super::verdict::{Counts, plain};
use crate::model::{Body, Direction, L4, Outcome, Point, ProbeResult};
use crate::report::{Confidence, Place, Status, Verdict};

/// The last point of the known part of the way to an end outside.
fn edge(case: &Case<'_>, direction: Direction) -> Option<Point> {
    let end = match direction {
        Direction::Forward => case.topology.dst.as_ref(),
        Direction::Reply => case.topology.src.as_ref(),
    };
    end.filter(|end| end.is_outside())?;
    case.topology.path(direction).last().copied()
}

/// `left node A as 192.168.10.11 at ens33`, for packets to an end outside.
pub(super) fn left(case: &Case<'_>, direction: Direction) -> Option<String> {
    let point = edge(case, direction)?;
    let station = case.topology.station(point.station);
    let source = source_at(case, direction, point);
    let source = source.map(|ip| format!(" as {ip}")).unwrap_or_default();
    let whose = match &station.pod {
        Some(pod) => format!("pod {}.{pod}", station.node),
        None => format!("node {}", station.node),
    };
    Some(format!("left {whose}{source} at {}", station.name))
}

/// The source address that packets carry at a point.
fn source_at(case: &Case<'_>, direction: Direction, point: Point) -> Option<IpAddr> {
    let journeys = case.trace.journeys.iter().filter(|j| j.direction == direction);
    let mut hops = journeys
        .filter(|j| j.outcome == Outcome::Delivered)
        .filter_map(|j| j.hops.iter().find(|h| h.point == point));
    match &hops.next()?.packet.body {
        Body::Ip(ip) => Some(ip.src),
        Body::Neighbor(_) | Body::Other(_) => None,
    }
}

/// Requests that left for an end outside, and came to nothing that was seen.
pub(super) fn unanswered(case: &Case<'_>, probe: &ProbeResult, silent: bool) -> Option<Answers> {
    let last = edge(case, Direction::Forward)?;
    let left = left(case, Direction::Forward)?;
    let missing = probe.sent.saturating_sub(probe.answered);
    let (from, to) = case.ends(Direction::Forward);
    if missing == 0 {
        return Some(Answers { verdict: None, note: None });
    }
    if Counts::of(case, Direction::Reply).delivered >= probe.sent {
        let note = format!("Answers reached {from}, but the probe missed {missing} of them.");
        return Some(Answers { verdict: None, note: Some(note) });
    }
    let station = case.topology.station(last.station);
    let mut evidence = vec![
        format!("the requests were seen at {}", point_text(case.topology, last)),
        format!("the probe sent {} and got {} answers", probe.sent, probe.answered),
    ];
    if silent {
        let entry = case.topology.path(Direction::Reply).first();
        let at = entry.map(|p| format!(" at {}", point_text(case.topology, *p)));
        let at = at.unwrap_or_default();
        evidence.push(format!("no packet of {to} to {from} was seen{at}"));
    }
    // Whoever is out there may say why.
    let told = case.trace.icmp_errors.iter().find_map(|error| match &error.packet.l4 {
        L4::IcmpError { kind, code, .. } => {
            let text = icmp_text(error.packet.src.is_ipv6(), *kind, *code, None);
            Some(format!("{} says: {text}", case.ip_name(&error.packet.src)))
        }
        _ => None,
    });
    evidence.extend(told.clone());
    let missed = case.observation.events_lost() > 0 || !case.observation.unreachable.is_empty();
    evidence.extend(case.observation.holes().filter(|_| missed));
    let status = match (missed, probe.answered, &told) {
        (true, ..) => Status::Inconclusive,
        (false, 0, Some(_)) => Status::Rejected,
        (false, 0, None) => Status::Lost,
        (false, ..) => Status::Degraded,
    };
    let place = Place {
        node: Some(station.node.clone()),
        pod: station.pod.clone(),
        netns: Some(station.netns.clone()),
        interface: Some(station.name.clone()),
        stage: Some("wire".to_owned()),
        function: None,
    };
    let death = Death {
        ending: Ending::Unanswered,
        netns: station.netns_inum,
        ..unseen(case, Direction::Reply, place.clone())
    };
    let share = of_packets(missing, probe.sent);
    let end = match &told {
        Some(told) => format!("no answer came back; {told}"),
        None => "no answer came back".to_owned(),
    };
    let at = fix::on(&place);
    let verdict = Verdict {
        cause: Some("underlay.no-answer".to_owned()),
        r#where: Some(place),
        last_seen: Some(point_report(case.topology, last)),
        next_expected: case
            .topology
            .path(Direction::Reply)
            .first()
            .map(|p| point_report(case.topology, *p)),
        evidence,
        fix: vec![
            format!("{at}: ping or curl {to} from the node itself: is it there at all?"),
            format!("at {to}, or the gateway: did the packets come, and which way does it answer?"),
        ],
        confidence: if missed { Confidence::Possible } else { Confidence::Likely },
        ..plain(status, Some(Direction::Reply), format!("{share} to {to} {left}, and {end}."))
    };
    Some(Answers { verdict: Some(causes::explain(case, &death, verdict)), note: None })
}

/// Packets that left for an end outside, while somebody there told their sender that they were refused.
pub(super) fn refused(case: &Case<'_>) -> Option<Verdict> {
    let last = edge(case, Direction::Forward)?;
    let left = left(case, Direction::Forward)?;
    let (_, to) = case.ends(Direction::Forward);
    let mut about = BTreeSet::new();
    let mut told = None;
    for error in &case.trace.icmp_errors {
        if let (Some(id), L4::IcmpError { kind, code, .. }) = (error.about, &error.packet.l4)
            && is_refusal(error.packet.src.is_ipv6(), *kind, *code)
        {
            about.insert(id);
            let text = icmp_text(error.packet.src.is_ipv6(), *kind, *code, None);
            told.get_or_insert_with(|| format!("{} says: {text}", case.ip_name(&error.packet.src)));
        }
    }
    let (told, refused) = (told?, about.len() as u64);
    let sent = Counts::of(case, Direction::Forward).delivered;
    let status = if refused >= sent { Status::Rejected } else { Status::Degraded };
    let share = of_packets(refused, sent.max(refused));
    Some(Verdict {
        cause: Some("underlay.no-answer".to_owned()),
        last_seen: Some(point_report(case.topology, last)),
        evidence: vec![told.clone()],
        fix: vec![format!("look after {to}: does it listen there, and let you in?")],
        confidence: Confidence::Likely,
        ..plain(
            status,
            Some(Direction::Forward),
            format!("{share} to {to} {left}, and were refused; {told}."),
        )
    })
}

/// Whether an ICMP error says that a packet goes no further, whatever its size (RFC 792, RFC 4443:
/// destination unreachable; "fragmentation needed" is none for good).
fn is_refusal(v6: bool, kind: u8, code: u8) -> bool {
    const FRAGMENTATION_NEEDED: u8 = 4;
    if v6 { kind == 1 } else { kind == 3 && code != FRAGMENTATION_NEEDED }
}
