//! Packets that were never seen: nothing was sent, nothing could be sent, or nobody answered.

use super::Case;
use super::case::asks;
use super::causes;
use super::death::{Death, Ending};
use super::fix;
use super::outside;
use super::place::{place, stage};
use super::text::{actor, of_packets, point_report, point_text};
use super::verdict::{Counts, plain};
use crate::model::{Direction, JourneyDrop, Resolution};
use crate::report::{Confidence, KernelReason, Place, Status, Verdict};

/// No packet of a direction was seen at all.
pub(super) fn no_traffic(case: &Case<'_>, direction: Direction) -> Verdict {
    let (from, to) = case.ends(direction);
    let losses = case.observation.losses();
    let doubt = match case.observation.unreachable.first() {
        _ if losses.is_some() => losses,
        Some(gone) => Some(format!("node {} could not be observed to the end", gone.node)),
        None => None,
    };
    if let Some(but) = doubt {
        return Verdict {
            evidence: case.observation.holes().into_iter().collect(),
            confidence: Confidence::Possible,
            ..plain(
                Status::Inconclusive,
                Some(direction),
                format!("No packet from {from} to {to} was seen, but {but}."),
            )
        };
    }
    if let Some(open) = open_resolution(case, direction) {
        return unresolved(case, direction, open);
    }
    let silent = no_packet(case, direction);
    let refused = direction == Direction::Forward
        && case.observation.probe.as_ref().is_some_and(|p| !p.errors.is_empty());
    if !refused {
        return silent;
    }
    // The sender's own kernel refused, and told the program.
    let sender = case.sender(direction);
    let place = Place {
        node: sender.map(|e| e.node.clone()),
        pod: sender.and_then(|e| e.pod.clone()),
        stage: Some("pod".to_owned()),
        ..Place::default()
    };
    let bare = Verdict { status: Status::Rejected, r#where: Some(place.clone()), ..silent.clone() };
    let death = Death {
        ending: Ending::Unsent,
        netns: sender.map_or(0, |e| e.netns_inum),
        ..unseen(case, direction, place)
    };
    let explained = causes::explain(case, &death, bare);
    if explained.cause.is_some() { explained } else { silent }
}

/// Packets of which nothing was seen.
pub(super) fn unseen<'a>(case: &Case<'a>, direction: Direction, place: Place) -> Death<'a> {
    let probe = case.observation.probe.as_ref();
    let count = probe.map_or(0, |p| p.sent.saturating_sub(p.answered));
    Death {
        direction,
        ending: Ending::Unsent,
        place,
        netns: 0,
        last: None,
        next: case.topology.path(direction).first().copied(),
        count,
        of: probe.map_or(0, |p| p.sent),
        example: None,
    }
}

/// Nothing more is known.
fn no_packet(case: &Case<'_>, direction: Direction) -> Verdict {
    let (from, to) = case.ends(direction);
    let mut verdict = plain(
        Status::NoTraffic,
        Some(direction),
        format!("No packet from {from} to {to} was seen."),
    );
    let probe = case.observation.probe.as_ref().filter(|_| direction == Direction::Forward);
    if let Some(probe) = probe {
        let errors: Vec<String> =
            probe.errors.iter().map(|(error, count)| format!("{error} ({count} times)")).collect();
        if !errors.is_empty() {
            let errors = errors.join(", ");
            verdict.summary = format!("The probe could not send from {from}: {errors}.");
            verdict.evidence.push(format!("the probe's socket returned: {errors}"));
            verdict.fix.push(format!("in {from}: ip route; ip link"));
        } else if probe.sent > 0 {
            verdict.summary = format!(
                "The probe sent {} packets to {to}, but none was seen leaving {from}.",
                probe.sent
            );
        }
    }
    // Elsewhere on the machine others may use the same addresses.
    let here = |d: &&JourneyDrop| {
        d.netns_inum == 0 || case.topology.stations.iter().any(|s| s.netns_inum == d.netns_inum)
    };
    if let Some(drop) = case.trace.stray_drops.iter().find(here) {
        verdict.evidence.push(format!(
            "the kernel dropped something of the flow: {} at {}",
            drop.info.reason, drop.info.function
        ));
    }
    if direction == Direction::Forward
        && probe.is_none()
        && let Some((code, explanation)) = causes::absence(case)
    {
        verdict.cause = Some(code.to_owned());
        verdict.summary = format!("{} {}.", verdict.summary, explanation.summary);
        verdict.evidence.extend(explanation.evidence);
        verdict.fix = explanation.fix;
        verdict.r#where = explanation.place;
        verdict.confidence = explanation.confidence;
    }
    if verdict.fix.is_empty() && direction == Direction::Forward && probe.is_none() {
        verdict.fix.push("send something, or let podtrace do it with --probe".to_owned());
    }
    verdict
}

/// The first question of the sender that nobody answered.
fn open_resolution<'a>(case: &Case<'a>, direction: Direction) -> Option<&'a Resolution> {
    let sender = match direction {
        Direction::Forward => case.topology.src.as_ref(),
        Direction::Reply => case.topology.dst.as_ref(),
    }?;
    let open = |r: &&Resolution| r.answer.is_none() && sender.ips.contains(&r.asker);
    case.trace.resolutions.iter().find(open)
}

/// The sender does not learn the hardware address of its next hop, so it sends nothing.
fn unresolved<'a>(case: &Case<'a>, direction: Direction, open: &'a Resolution) -> Verdict {
    let (from, _) = case.ends(direction);
    let at = case.station_point(open.station, &open.asker, &open.target);
    let target = case.ip_name(&open.target);
    let mut evidence = vec![match at {
        Some(p) => format!(
            "{} questions for {target} at {}, no answer",
            open.requests,
            point_text(case.topology, p)
        ),
        None => format!("{} questions for {target}, no answer", open.requests),
    }];
    let killed = case.trace.stray_drops.iter().find(|drop| asks(drop, open));
    let last_seen = at.map(|p| point_report(case.topology, p));
    if let Some(drop) = killed {
        let place = place(case.topology, drop, None);
        let hook = stage(&drop.info).and_then(|s| s.hook);
        evidence.push(format!(
            "kernel drop event {} ({}) at {}",
            drop.info.reason, drop.info.code, drop.info.function
        ));
        let summary = format!(
            "{from} cannot resolve {target}: {} dropped its question ({} at {}).",
            actor(&place, drop.netns_inum),
            drop.info.reason,
            drop.info.function
        );
        let death = Death {
            ending: Ending::Drop { drop, stage: stage(&drop.info) },
            netns: drop.netns_inum,
            ..unseen(case, direction, place.clone())
        };
        let bare = Verdict {
            cause: Some(format!("kernel.{}", drop.info.reason)),
            kernel_reason: Some(KernelReason {
                code: drop.info.code,
                name: drop.info.reason.clone(),
            }),
            fix: fix::for_drop(&drop.info.reason, hook, &place, None),
            r#where: Some(place),
            last_seen,
            evidence,
            ..plain(Status::Dropped, Some(direction), summary)
        };
        return causes::explain(case, &death, bare);
    }
    let asked = at.map(|p| case.topology.station(p.station));
    let place = Place {
        node: asked.map(|s| s.node.clone()),
        pod: asked.and_then(|s| s.pod.clone()),
        netns: asked.map(|s| s.netns.clone()),
        interface: asked.map(|s| s.name.clone()),
        stage: Some("neighbor".to_owned()),
        function: None,
    };
    let death = Death {
        ending: Ending::Unresolved { question: open },
        netns: asked.map_or(0, |s| s.netns_inum),
        ..unseen(case, direction, place.clone())
    };
    let bare = Verdict {
        cause: Some("neighbor.failed".to_owned()),
        fix: vec![
            format!("{}: ip neigh show; ip addr show", fix::on(&place)),
            format!("check that {target} exists, is up and answers"),
        ],
        r#where: Some(place),
        last_seen,
        evidence,
        confidence: Confidence::Likely,
        ..plain(
            Status::Lost,
            Some(direction),
            format!("{from} sends nothing, because nobody answers its question for {target}."),
        )
    };
    causes::explain(case, &death, bare)
}

/// The verdict on packets that waited in vain for an address, because `killer` took the question for
/// it; `bare`: what is known of the packets themselves.
pub(super) fn question<'a>(
    case: &Case<'a>,
    bare: Verdict,
    question: &'a Resolution,
    killer: &'a JourneyDrop,
) -> Verdict {
    let direction = bare.direction.unwrap_or(Direction::Forward);
    let last = case.station_point(question.station, &question.asker, &question.target);
    let place = place(case.topology, killer, None);
    let summary = format!(
        "{} dropped the question for {} ({} at {}), which the packets wait for. {}",
        actor(&place, killer.netns_inum),
        case.ip_name(&question.target),
        killer.info.reason,
        killer.info.function,
        bare.summary
    );
    let mut evidence =
        vec![format!("kernel drop event {} at {}", killer.info.reason, killer.info.function)];
    evidence.extend(bare.evidence);
    let hook = stage(&killer.info).and_then(|s| s.hook);
    let bare = Verdict {
        summary,
        evidence,
        cause: Some(format!("kernel.{}", killer.info.reason)),
        kernel_reason: Some(KernelReason {
            code: killer.info.code,
            name: killer.info.reason.clone(),
        }),
        fix: fix::for_drop(&killer.info.reason, hook, &place, None),
        r#where: Some(place.clone()),
        ..bare
    };
    let death = Death { last, place, ..Death::of_drop(case, direction, killer) };
    causes::explain(case, &death, bare)
}

/// What can be said about the answers when all packets of both directions arrived.
pub(super) struct Answers {
    /// `Some` where answers are missing.
    pub verdict: Option<Verdict>,
    /// A remark.
    pub note: Option<String>,
}

/// Requests that arrived and were not answered. `silent`: no packet of the reply direction was seen.
pub(super) fn unanswered(case: &Case<'_>, silent: bool) -> Answers {
    let nothing = Answers { verdict: None, note: None };
    let (from, to) = case.ends(Direction::Forward);
    let Some(probe) = &case.observation.probe else {
        let note = silent.then(|| format!("No packet from {to} back to {from} was seen."));
        return Answers { note, verdict: outside::refused(case) };
    };
    if let Some(answers) = outside::unanswered(case, probe, silent) {
        return answers;
    }
    let missing = probe.sent.saturating_sub(probe.answered);
    if missing == 0 {
        return nothing;
    }
    let share = of_packets(missing, probe.sent);
    let udp = probe.proto == "udp";
    if Counts::of(case, Direction::Reply).delivered >= probe.sent {
        let summary = format!(
            "Answers reached {from}, but the probe missed {missing} of them: they came too late, or \
             were not accepted."
        );
        let verdict = Verdict {
            confidence: Confidence::Possible,
            ..plain(Status::Degraded, Some(Direction::Reply), summary)
        };
        return Answers { verdict: Some(verdict), ..nothing };
    }
    let last = case.topology.path(Direction::Forward).last().copied();
    let seen = last.map(|p| point_text(case.topology, p));
    let mut evidence: Vec<String> =
        seen.iter().map(|seen| format!("the requests were seen at {seen}")).collect();
    evidence.push(format!("the probe sent {} and got {} answers", probe.sent, probe.answered));
    if silent {
        evidence.push(format!("no packet left {to} for {from}"));
    }
    let end = case.topology.dst.as_ref();
    let station = last.map(|p| case.topology.station(p.station));
    let missed = case.observation.events_lost() > 0 || !case.observation.unreachable.is_empty();
    let (status, confidence) = match (missed, probe.answered) {
        (true, _) => (Status::Inconclusive, Confidence::Possible),
        // Whoever only listens need not answer.
        (false, 0) if udp => (Status::Degraded, Confidence::Possible),
        (false, 0) => (Status::Lost, Confidence::Likely),
        (false, _) => (Status::Degraded, Confidence::Likely),
    };
    if udp {
        evidence.push(
            "UDP itself asks for no answer: a server may be one that only listens".to_owned(),
        );
    }
    evidence.extend(case.observation.holes().filter(|_| missed));
    let open = open_resolution(case, Direction::Reply);
    evidence.extend(open.map(|r| {
        format!("{to} asked {} times for {}, no answer", r.requests, case.ip_name(&r.target))
    }));
    let place = Place {
        node: end.map(|e| e.node.clone()),
        pod: end.and_then(|e| e.pod.clone()),
        netns: station.map(|s| s.netns.clone()),
        interface: station.map(|s| s.name.clone()),
        stage: Some("pod".to_owned()),
        function: None,
    };
    let at = fix::on(&place);
    let death = Death {
        ending: Ending::Unanswered,
        netns: end.map_or(0, |e| e.netns_inum),
        ..unseen(case, Direction::Reply, place.clone())
    };
    let verdict = Verdict {
        cause: Some("pod.no-answer".to_owned()),
        r#where: Some(place),
        last_seen: last.map(|p| point_report(case.topology, p)),
        next_expected: case
            .topology
            .path(Direction::Reply)
            .first()
            .map(|p| point_report(case.topology, *p)),
        evidence,
        fix: vec![
            format!("{at}: ip route (is there a way back to {from}?)"),
            format!("{at}: ss -lntu; sysctl net.ipv4.icmp_echo_ignore_all"),
        ],
        confidence,
        ..plain(
            status,
            Some(Direction::Reply),
            match probe.answered {
                0 => format!("{to} received the packets but sent no reply: {share}."),
                _ => format!("{to} received the packets and did not answer {share}."),
            },
        )
    };
    Answers { verdict: Some(causes::explain(case, &death, verdict)), ..nothing }
}
