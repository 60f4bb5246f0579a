//! One report of the ways to all backends of a service: each is a row, the one that fails worst gives
//! the verdict.

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use super::text::of_packets;
use crate::model::{
    AttemptOutcome, Body, Direction, End, L4, Leads, Observation, ProbeResult, Trace,
};
use crate::report::{
    BackendReport, Confidence, EndReport, JourneyReport, Report, Severity, Status, Verdict,
};

/// Backends named one by one in a sentence.
const NAMED: usize = 4;

/// The report on the way to one end.
#[derive(Clone, Debug)]
pub struct Leg {
    /// The end; for packets that no backend was chosen for, the service.
    pub end: End,
    /// The attempts of the probe that came to it, where they are told one by one.
    pub probe: Option<ProbeResult>,
    /// What became of its packets.
    pub report: Report,
}

impl Leg {
    /// Packets ended before a backend was chosen for them.
    fn is_open(&self) -> bool {
        self.end.service.as_ref().is_some_and(|s| s.leads == Leads::Open)
    }

    fn sent(&self) -> u64 {
        self.report.packets.sent
    }

    /// Something of it was seen.
    fn is_seen(&self) -> bool {
        self.sent() > 0
            || self.report.packets.replied > 0
            || self.report.directions.iter().any(|d| !d.outcomes.is_empty())
            || self.probe.as_ref().is_some_and(|probe| probe.sent > 0)
    }

    fn fails(&self) -> bool {
        self.report.verdict.status.exit_code() == 3
    }
}

/// The part of a probe that came to each of these ends: attempts are known by the port that they left
/// from, with one of these addresses. `None` where they cannot be told one by one. What came to none is
/// the open end's, the last.
pub fn shares(
    probe: &ProbeResult,
    sources: &[IpAddr],
    ends: &[(&End, &Trace)],
) -> Vec<Option<ProbeResult>> {
    if probe.attempts.is_empty() {
        return ends.iter().map(|_| None).collect();
    }
    let ports: Vec<HashSet<u16>> =
        ends.iter().map(|(_, trace)| client_ports(trace, sources)).collect();
    let seen = ends.iter().any(|(_, trace)| !trace.journeys.is_empty());
    let known = |port: u16| ports.iter().any(|ports| ports.contains(&port));
    if seen && !probe.attempts.iter().any(|attempt| known(attempt.port)) {
        // A node's own packets are seen first when they are masqueraded already, to other ports.
        return ends.iter().map(|_| None).collect();
    }
    let open = |end: &End| end.service.as_ref().is_some_and(|s| s.leads == Leads::Open);
    let share = |at: usize| {
        let own = |port: u16| match ports[at].contains(&port) {
            true => true,
            false => open(ends[at].0) && !ports.iter().any(|ports| ports.contains(&port)),
        };
        let attempts: Vec<_> = probe.attempts.iter().filter(|a| own(a.port)).copied().collect();
        let count = |outcome| attempts.iter().filter(|a| a.outcome == outcome).count() as u64;
        let refused = count(AttemptOutcome::Refused);
        ProbeResult {
            proto: probe.proto.clone(),
            sent: attempts.len() as u64,
            answered: count(AttemptOutcome::Answered) + refused,
            refused,
            attempts,
            ..ProbeResult::default()
        }
    };
    (0..ends.len()).map(|at| Some(share(at))).collect()
}

/// The ports that requests left the client from.
fn client_ports(trace: &Trace, sources: &[IpAddr]) -> HashSet<u16> {
    let forward = trace.journeys.iter().filter(|j| j.direction == Direction::Forward);
    let packets = forward.filter_map(|j| {
        let hop = j.hops.first().map(|hop| &hop.packet);
        hop.or_else(|| j.drop.as_ref().map(|drop| &drop.packet))
    });
    let ports = packets.filter_map(|packet| match &packet.body {
        Body::Ip(ip) if sources.contains(&ip.src) => match ip.l4 {
            L4::Tcp { sport, .. } | L4::Udp { sport, .. } => Some(sport),
            _ => None,
        },
        _ => None,
    });
    ports.collect()
}

/// What the observation tells of one end: of the probe only what came to it.
pub fn observed(observation: &Observation, share: Option<ProbeResult>) -> Observation {
    Observation { probe: share, ..observation.clone() }
}

/// One report of all; `probe`: what the whole probe did. `None` for no leg.
pub fn merged(legs: Vec<Leg>, probe: Option<&ProbeResult>) -> Option<Report> {
    let rows: Vec<BackendReport> = legs.iter().filter(|leg| !leg.is_open()).map(row).collect();
    let main = main(&legs)?;
    let verdict = verdict(&legs, main);
    let mut findings = findings(&legs, main);
    let mut legs = legs;
    for leg in &mut legs {
        let address = address(&leg.end);
        for journey in &mut leg.report.journeys {
            journey.backend = Some(address.clone());
        }
        for direction in &mut leg.report.directions {
            direction.backend = Some(address.clone());
        }
    }
    let mut report = legs[main].report.clone();
    let service = legs[main].end.service.clone();
    if let Some(service) = service.as_ref().filter(|_| rows.len() > 1) {
        report.dst = EndReport {
            name: service.address(),
            pod: None,
            ips: vec![service.ip.to_string()],
            service: Some(service.address()),
            ..report.dst
        };
    }
    findings.retain(|f| f.summary != verdict.summary);
    report.verdict = verdict;
    report.findings = findings;
    report.probe = probe.cloned();
    report.backends = rows;
    let mut numbers = Numbers::new(&report);
    for (at, leg) in legs.into_iter().enumerate() {
        if at != main && leg.is_seen() {
            add(&mut report, leg.report, &mut numbers);
        }
    }
    report.packets.told_by(probe);
    report.journeys.sort_by_key(|j| j.start_ns);
    Some(report)
}

/// The leg that the report is about: the one that fails worst, else the busiest.
fn main(legs: &[Leg]) -> Option<usize> {
    let rank = |leg: &Leg| {
        let verdict = &leg.report.verdict;
        let proven = match verdict.confidence {
            Confidence::Proven => 2,
            Confidence::Likely => 1,
            Confidence::Possible => 0,
        };
        let weight = match verdict.status {
            _ if !leg.is_seen() => 0,
            Status::Dropped | Status::Rejected | Status::Lost => 4,
            Status::Degraded => 3,
            Status::Inconclusive => 2,
            Status::NoTraffic | Status::Delivered => 1,
        };
        (weight, leg.fails().then_some(proven), leg.sent())
    };
    // The first of equals.
    (0..legs.len()).rev().max_by_key(|at| rank(&legs[*at]))
}

fn verdict(legs: &[Leg], main: usize) -> Verdict {
    let own = legs[main].report.verdict.clone();
    let seen = || legs.iter().filter(|leg| leg.is_seen());
    let service = legs[main].end.service.as_ref();
    let service =
        service.map_or_else(|| "the service".to_owned(), |s| format!("service {}", s.address()));
    let backends = legs.iter().filter(|leg| !leg.is_open()).count();
    let failing: Vec<&Leg> = seen().filter(|leg| leg.fails()).collect();
    let well = seen().any(|leg| leg.report.packets.delivered > 0 && !leg.fails());
    if let Some(first) = failing.first() {
        let total: u64 = legs.iter().map(Leg::sent).sum();
        let what = match (failing.as_slice(), first.is_open()) {
            ([_], true) if well => {
                let share = of_packets(legs[main].sent(), total);
                format!(
                    "Of the packets to {service}, {share} ended before a backend was chosen for them."
                )
            }
            ([_], true) => String::new(),
            (several, _) => {
                let several: Vec<_> = several.iter().filter(|leg| !leg.is_open()).collect();
                let names: Vec<&str> =
                    several.iter().take(NAMED).map(|leg| leg.end.name.as_str()).collect();
                let more = several.len().saturating_sub(NAMED);
                let more = if more > 0 { format!(" and {more} more") } else { String::new() };
                let verb = if several.len() == 1 { "fails" } else { "fail" };
                format!(
                    "{} of {backends} backends of {service} {verb}: {}{more}.",
                    several.len(),
                    names.join(", ")
                )
            }
        };
        let status = if well { Status::Degraded } else { own.status };
        let summary = match what.is_empty() {
            true => own.summary,
            false => format!("{what} {}", capitalized(&own.summary)),
        };
        return Verdict { status, summary, ..own };
    }
    if own.status != Status::Delivered {
        return own;
    }
    let used: Vec<&Leg> = seen().filter(|leg| leg.sent() > 0).collect();
    if used.len() < 2 {
        return own;
    }
    let count = |f: fn(&Report) -> u64| used.iter().map(|leg| f(&leg.report)).sum::<u64>();
    let (sent, replied) = (count(|r| r.packets.delivered), count(|r| r.packets.replied));
    let names: Vec<String> = used
        .iter()
        .take(NAMED)
        .map(|leg| format!("{} {}", leg.end.name, leg.report.packets.delivered))
        .collect();
    let more = used.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(", and {more} more") } else { String::new() };
    let source = &legs[main].report.src.name;
    let back = match replied {
        0 => String::new(),
        n => format!(" All {n} packets of the replies reached {source}."),
    };
    let confidence = used.iter().map(|leg| leg.report.verdict.confidence);
    Verdict {
        summary: format!(
            "All {sent} packets from {source} reached {} backends of {service} ({}{more}).{back}",
            used.len(),
            names.join(", ")
        ),
        confidence: confidence.max_by_key(|c| *c as u8).unwrap_or(own.confidence),
        ..own
    }
}

/// As a sentence begins.
fn capitalized(text: &str) -> String {
    let mut rest = text.chars();
    // A name stays as it is written.
    let word = text.split_whitespace().next().unwrap_or_default();
    match rest.next() {
        Some(first) if word.chars().all(char::is_alphabetic) => {
            first.to_uppercase().chain(rest).collect()
        }
        _ => text.to_owned(),
    }
}

/// What else fails, and what else is wrong on the ways that packets took.
fn findings(legs: &[Leg], main: usize) -> Vec<Verdict> {
    let mut found = Vec::new();
    let mut add = |verdict: &Verdict| {
        let same = |known: &Verdict| {
            (&known.cause, &known.r#where, known.direction, &known.summary)
                == (&verdict.cause, &verdict.r#where, verdict.direction, &verdict.summary)
        };
        if !found.iter().any(same) {
            found.push(verdict.clone());
        }
    };
    let others = || legs.iter().enumerate().filter(|(at, leg)| *at != main && leg.is_seen());
    for (_, leg) in others().filter(|(_, leg)| leg.fails()) {
        add(&leg.report.verdict);
    }
    legs[main].report.findings.iter().for_each(&mut add);
    for (_, leg) in others() {
        leg.report.findings.iter().for_each(&mut add);
    }
    // Where nothing was sent, the tables alone tell.
    for leg in legs.iter().filter(|leg| !leg.is_seen() && !leg.is_open()) {
        let grave = |f: &&Verdict| f.severity == Some(Severity::Fatal);
        leg.report.findings.iter().filter(grave).for_each(&mut add);
    }
    found
}

/// `10.10.1.2:8080`
fn address(end: &End) -> String {
    let service = end.service.as_ref();
    let port = service.and_then(|s| s.target_port.or(s.port));
    match (end.ips.first().copied(), port) {
        (Some(ip), Some(port)) => SocketAddr::new(ip, port).to_string(),
        (Some(ip), None) => ip.to_string(),
        (None, _) => String::new(),
    }
}

fn row(leg: &Leg) -> BackendReport {
    let packets = &leg.report.packets;
    let verdict = &leg.report.verdict;
    let probe = leg.probe.as_ref();
    BackendReport {
        name: leg.end.name.clone(),
        address: address(&leg.end),
        node: leg.end.node.clone(),
        pod: leg.end.pod.clone(),
        status: verdict.status,
        sent: packets.sent,
        delivered: packets.delivered,
        replied: packets.replied,
        attempts: probe.map(|p| p.sent),
        answered: probe.map(|p| p.answered.saturating_sub(p.refused)),
        refused: probe.map(|p| p.refused),
        cause: verdict.cause.clone().filter(|_| leg.fails()),
        r#where: verdict.r#where.clone().filter(|_| leg.fails()),
    }
}

/// Packets of all legs numbered on: ids are unique within a report.
struct Numbers {
    next: u64,
}

impl Numbers {
    fn new(report: &Report) -> Self {
        let ids = report.journeys.iter().filter_map(|j| j.id.parse::<u64>().ok());
        Self { next: ids.max().unwrap_or(0) + 1 }
    }

    fn renumber(&mut self, journeys: &mut [JourneyReport]) -> BTreeMap<String, String> {
        let mut new = BTreeMap::new();
        for journey in journeys.iter_mut() {
            new.insert(journey.id.clone(), self.next.to_string());
            journey.id = self.next.to_string();
            self.next += 1;
        }
        let of = |id: &Option<String>| id.as_ref().and_then(|id| new.get(id).cloned());
        for journey in journeys {
            journey.retransmission_of = of(&journey.retransmission_of);
            journey.duplicate_of = of(&journey.duplicate_of);
        }
        new
    }
}

/// Adds what was seen of another leg.
fn add(report: &mut Report, mut other: Report, numbers: &mut Numbers) {
    report.packets.add(&other.packets);
    let ids = numbers.renumber(&mut other.journeys);
    report.journeys.append(&mut other.journeys);
    report.journeys_omitted += other.journeys_omitted;
    for resolution in other.resolutions {
        if !report.resolutions.contains(&resolution) {
            report.resolutions.push(resolution);
        }
    }
    for mut error in other.icmp_errors {
        error.about = error.about.and_then(|id| ids.get(&id).cloned());
        report.icmp_errors.push(error);
    }
    for note in other.notes {
        if !report.notes.contains(&note) {
            report.notes.push(note);
        }
    }
}
