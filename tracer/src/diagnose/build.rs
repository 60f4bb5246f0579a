//! Turning the trace into the report's lists: stations, directions, journeys.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Case;
use super::changes::changes;
use super::place::{place, stage};
use super::segments;
use super::text::{icmp_text, journey_line, point_report, proto_name, tcp_flags_text};
use super::verdict::Counts;
use crate::expect::audit::WalkReport;
use crate::model::{
    Body, Direction, End, EndKind, Ethernet, Hop, HopStats, Journey, JourneyDrop, L4, Loss, Names,
    NodeClock, Outcome, Packet, Point, Service, Topology, UNKNOWN_ERROR_NS,
};
use crate::report::{
    ClockMethod, ClockReport, DirectionReport, DropReport, EndReport, HeaderReport, HopReport,
    HopSummary, IcmpReport, JourneyReport, KernelReason, Latency, LossReport, OuterReport,
    ResolutionReport, StationReport, Verdict,
};

/// An endpoint; one that is not known is named by what it is not.
pub(super) fn end(end: Option<&End>) -> EndReport {
    match end {
        Some(end) => EndReport {
            name: end.name.clone(),
            node: end.node.clone(),
            pod: end.pod.clone(),
            ips: end.ips.iter().map(ToString::to_string).collect(),
            kind: end.kind,
            service: end.service.as_ref().map(Service::address),
        },
        None => EndReport {
            name: "unknown".to_owned(),
            node: String::new(),
            pod: None,
            ips: Vec::new(),
            kind: EndKind::default(),
            service: None,
        },
    }
}

/// Every observed interface.
pub(super) fn stations(topology: &Topology) -> Vec<StationReport> {
    topology
        .stations
        .iter()
        .map(|s| StationReport {
            node: s.node.clone(),
            pod: s.pod.clone(),
            netns: s.netns.clone(),
            interface: s.name.clone(),
            ifindex: s.ifindex,
            role: s.role,
            mac: s.mac.map(|mac| mac.to_string()),
            mtu: s.mtu,
            up: s.up,
            addresses: s.addresses.iter().map(ToString::to_string).collect(),
            vni: s.vxlan.as_ref().map(|v| v.vni),
            udp_port: s.vxlan.as_ref().map(|v| v.port),
        })
        .collect()
}

/// Name of an outcome as in the journeys.
fn outcome_name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Delivered => "delivered",
        Outcome::Dropped => "dropped",
        Outcome::Rejected => "rejected",
        Outcome::Lost => "lost",
        Outcome::Partial => "partial",
        Outcome::InFlight => "in-flight",
        Outcome::Incomplete => "incomplete",
        Outcome::Elsewhere => "elsewhere",
    }
}

/// What became of how many packets. Where the observation has holes, nothing that was not seen is
/// called lost.
fn outcomes(counted: impl Iterator<Item = (Outcome, u64)>, holes: bool) -> BTreeMap<String, u64> {
    let mut named = BTreeMap::new();
    for (outcome, count) in counted {
        let name = match outcome {
            Outcome::Lost | Outcome::Partial if holes => "unknown",
            _ => outcome_name(outcome),
        };
        *named.entry(name.to_owned()).or_default() += count;
    }
    named
}

/// One direction with its counts per point: planned points in order, then others that were seen.
pub(super) fn direction(
    case: &Case<'_>,
    direction: Direction,
    verdict: Verdict,
) -> DirectionReport {
    let seen = |point: Point| {
        case.trace.summary.iter().find(|s| s.direction == direction && s.point == point)
    };
    let path = case.topology.path(direction);
    let mut hops = Vec::with_capacity(path.len());
    let mut before: Option<u64> = None;
    for point in path {
        let stats = seen(*point);
        let packets = stats.map_or(0, |s| s.packets);
        let lost = before.map_or(0, |before| before.saturating_sub(packets));
        before = Some(packets);
        hops.push(hop_summary(case, *point, stats, true, lost));
    }
    let unplanned =
        case.trace.summary.iter().filter(|s| s.direction == direction && !path.contains(&s.point));
    hops.extend(unplanned.map(|s| hop_summary(case, s.point, Some(s), false, 0)));
    let of_direction = case.trace.outcomes.iter().filter(|((of, _), _)| *of == direction);
    DirectionReport {
        direction,
        backend: None,
        verdict,
        packets: Counts::of(case, direction).sent(),
        outcomes: outcomes(
            of_direction.map(|((_, o), n)| (*o, *n)),
            case.observation.holes().is_some(),
        ),
        hops,
    }
}

fn hop_summary(
    case: &Case<'_>,
    point: Point,
    stats: Option<&HopStats>,
    expected: bool,
    lost: u64,
) -> HopSummary {
    HopSummary {
        point: point_report(case.topology, point),
        expected,
        packets: stats.map_or(0, |s| s.packets),
        skbs: stats.map_or(0, |s| s.skbs),
        bytes: stats.map_or(0, |s| s.unique_bytes),
        repeated_bytes: stats.map_or(0, |s| s.repeated_bytes),
        lost,
        latency: stats.and_then(|s| s.latency).map(|(min_ns, median_ns, max_ns)| Latency {
            min_ns,
            median_ns,
            max_ns,
            error_ns: stats.and_then(|s| known(s.latency_error_ns)),
        }),
    }
}

/// The expected way of each direction, from the state before the trace, beside what was seen.
pub(super) fn expected(case: &Case<'_>) -> Vec<WalkReport> {
    let mut told = Vec::new();
    for walk in &case.walks {
        if told.iter().any(|w: &WalkReport| w.direction == walk.direction) {
            continue;
        }
        let seen = |point: Point| {
            let of = |s: &&HopStats| s.direction == walk.direction && s.point == point;
            case.trace.summary.iter().find(of).map_or(0, |s| s.packets)
        };
        told.push(WalkReport::new(case.topology, walk).observed(walk, seen));
    }
    told
}

/// An error as the report says it.
pub(super) fn known(error_ns: u64) -> Option<u64> {
    (error_ns < UNKNOWN_ERROR_NS).then_some(error_ns)
}

/// The clock of every node.
pub(super) fn clocks(case: &Case<'_>) -> Vec<ClockReport> {
    let method = |clock: &NodeClock| match (clock.same, clock.packets > 0, clock.round_trips > 0) {
        (true, ..) => ClockMethod::SameClock,
        (_, true, true) => ClockMethod::PacketsAndRoundTrips,
        (_, true, false) => ClockMethod::Packets,
        (_, false, true) => ClockMethod::RoundTrips,
        (_, false, false) => ClockMethod::None,
    };
    let report = |clock: &NodeClock| ClockReport {
        node: clock.node.clone(),
        offset_ns: clock.offset_ns,
        error_ns: known(clock.error_ns),
        drift_ppm: clock.drift_ppm,
        method: method(clock),
        samples: clock.packets + clock.round_trips,
        steps: clock.steps,
    };
    case.trace.clocks.iter().map(report).collect()
}

/// One packet's way.
pub(super) fn journey(case: &Case<'_>, journey: &Journey, told: &[&Verdict]) -> JourneyReport {
    let first = journey.hops.first();
    let start = journey.start_ns();
    let mut hops = Vec::with_capacity(journey.hops.len());
    let mut before: Option<&Hop> = None;
    for hop in &journey.hops {
        hops.push(hop_report(case, hop, before, first));
        before = Some(hop);
    }
    let drop_report = |drop: &JourneyDrop| {
        let last = journey.hops.iter().rfind(|h| h.time_ns <= drop.time_ns);
        let report = drop_report(case, drop, last, (first, start));
        DropReport { rule: rule_of(&report, journey.direction, told), ..report }
    };
    let first_byte = journey
        .stream
        .zip(journey.range)
        .and_then(|(stream, range)| range.start.checked_sub(stream.first).map(|before| before + 1));
    JourneyReport {
        id: journey.id.to_string(),
        direction: journey.direction,
        backend: None,
        summary: journey_line(journey),
        start_ns: start.saturating_sub(case.observation.armed_ns),
        outcome: journey.outcome,
        bytes: journey.range.map(|r| r.end - r.start),
        first_byte,
        missing: segments::missing(case, journey),
        retransmission_of: journey.retransmission_of.map(|id| id.to_string()),
        duplicate_of: journey.duplicate_of.map(|id| id.to_string()),
        looped: journey.looped,
        hops,
        drop: journey.drop.as_ref().map(drop_report),
        side_drops: journey.side_drops.iter().map(drop_report).collect(),
    }
}

/// The rule that a verdict found for drops like this one.
fn rule_of(drop: &DropReport, direction: Direction, told: &[&Verdict]) -> Option<String> {
    let like = |v: &&&Verdict| {
        v.direction == Some(direction)
            && v.kernel_reason.as_ref() == Some(&drop.reason)
            && v.r#where.as_ref().is_some_and(|place| {
                place.function == drop.place.function && place.netns == drop.place.netns
            })
    };
    told.iter().find(like)?.rule.clone()
}

fn hop_report(case: &Case<'_>, hop: &Hop, before: Option<&Hop>, first: Option<&Hop>) -> HopReport {
    let error = |since: Option<&Hop>| since.map_or(Some(0), |since| known(hop.error_since(since)));
    let names = &case.topology.names;
    HopReport {
        point: point_report(case.topology, hop.point),
        clock: hop.clock,
        time_ns: first.map_or(0, |first| hop.time_ns.saturating_sub(first.time_ns)),
        time_error_ns: error(first),
        delta_ns: before.map_or(0, |b| hop.time_ns.saturating_sub(b.time_ns)),
        delta_error_ns: error(before),
        length: hop.len,
        skbs: hop.skbs,
        segments: hop.segments,
        bytes: hop.covered,
        inner: header(&hop.packet),
        outer: outer(&hop.packet),
        names: names_of(names, &hop.packet),
        changes: before.map_or_else(Vec::new, |b| changes(names, &b.packet, &hop.packet)),
    }
}

/// The headers of a packet: the flow's own, and the tunnel's.
pub fn headers(packet: &Packet) -> (HeaderReport, Option<OuterReport>) {
    (header(packet), outer(packet))
}

/// The tunnel's headers.
fn outer(packet: &Packet) -> Option<OuterReport> {
    packet.outer.as_ref().map(|outer| OuterReport {
        src_mac: outer.eth.map(|e| e.src.to_string()),
        dst_mac: outer.eth.map(|e| e.dst.to_string()),
        src_ip: outer.src.to_string(),
        dst_ip: outer.dst.to_string(),
        ttl: outer.ttl,
        vni: outer.vni,
        udp_src: outer.udp_src,
        udp_dst: outer.udp_dst,
    })
}

/// The flow's own headers.
fn header(packet: &Packet) -> HeaderReport {
    let mut header = HeaderReport {
        src_mac: packet.eth.map(|e| e.src.to_string()),
        dst_mac: packet.eth.map(|e| e.dst.to_string()),
        ..HeaderReport::default()
    };
    let Body::Ip(ip) = &packet.body else { return header };
    header.src_ip = ip.src.to_string();
    header.dst_ip = ip.dst.to_string();
    header.proto = proto_name(ip.proto);
    header.ttl = ip.ttl;
    header.id = ip.id;
    header.fragment_offset = ip.fragment.map(|f| f.offset);
    header.more_fragments = ip.fragment.map(|f| f.more);
    match &ip.l4 {
        L4::Tcp { sport, dport, seq, ack, flags, .. } => {
            (header.src_port, header.dst_port) = (Some(*sport), Some(*dport));
            (header.tcp_seq, header.tcp_ack) = (Some(*seq), Some(*ack));
            header.tcp_flags = Some(tcp_flags_text(*flags));
        }
        L4::Udp { sport, dport, .. } => {
            (header.src_port, header.dst_port) = (Some(*sport), Some(*dport));
        }
        L4::Icmp { kind, code, id, seq } => {
            (header.icmp_type, header.icmp_code) = (Some(*kind), Some(*code));
            (header.icmp_id, header.icmp_seq) = (Some(*id), Some(*seq));
        }
        L4::IcmpError { kind, code, .. } => {
            (header.icmp_type, header.icmp_code) = (Some(*kind), Some(*code));
        }
        L4::Other => {}
    }
    header
}

/// Names of the addresses of a frame.
fn names_of(names: &Names, packet: &Packet) -> BTreeMap<String, String> {
    let mut list = BTreeMap::new();
    let mut ips = Vec::new();
    if let Body::Ip(ip) = &packet.body {
        ips.extend([ip.src, ip.dst]);
    }
    ips.extend(packet.outer.iter().flat_map(|o| [o.src, o.dst]));
    for ip in ips {
        if let Some(name) = names.ip(&ip) {
            list.insert(ip.to_string(), name.to_owned());
        }
    }
    let frames = [packet.eth, packet.outer.as_ref().and_then(|o| o.eth)];
    for Ethernet { src, dst } in frames.into_iter().flatten() {
        for mac in [src, dst] {
            if let Some(name) = names.mac(&mac) {
                list.insert(mac.to_string(), name.to_owned());
            }
        }
    }
    list
}

fn drop_report(
    case: &Case<'_>,
    drop: &JourneyDrop,
    last: Option<&Hop>,
    (first, start): (Option<&Hop>, u64),
) -> DropReport {
    DropReport {
        time_ns: drop.time_ns.saturating_sub(start),
        time_error_ns: first.map_or(Some(0), |first| known(drop.error_since(first))),
        reason: KernelReason { code: drop.info.code, name: drop.info.reason.clone() },
        function: drop.info.function.clone(),
        hook: stage(&drop.info).and_then(|s| s.hook).map(str::to_owned),
        rule: None,
        place: place(case.topology, drop, last),
        stack: drop.info.stack.clone(),
    }
}

/// Address resolutions seen on the path.
pub(super) fn resolutions(case: &Case<'_>) -> Vec<ResolutionReport> {
    case.trace
        .resolutions
        .iter()
        .map(|r| ResolutionReport {
            at: case
                .station_point(r.station, &r.asker, &r.target)
                .map(|p| point_report(case.topology, p)),
            asker: r.asker.to_string(),
            target: r.target.to_string(),
            requests: r.requests,
            answer: r.answer.map(|mac| mac.to_string()),
        })
        .collect()
}

/// ICMP errors about the flow.
pub(super) fn icmp_errors(case: &Case<'_>) -> Vec<IcmpReport> {
    let errors = case.trace.icmp_errors.iter();
    errors
        .filter_map(|e| match &e.packet.l4 {
            L4::IcmpError { kind, code, mtu, .. } => Some(IcmpReport {
                at: case
                    .station_point(e.station, &e.packet.src, &e.packet.dst)
                    .map(|p| point_report(case.topology, p)),
                from: e.packet.src.to_string(),
                from_name: case.topology.names.ip(&e.packet.src).map(str::to_owned),
                to: e.packet.dst.to_string(),
                r#type: *kind,
                code: *code,
                text: icmp_text(e.packet.src.is_ipv6(), *kind, *code, *mtu),
                about: e.about.map(|id| id.to_string()),
            }),
            _ => None,
        })
        .collect()
}

/// What was not observed.
pub(super) fn loss(case: &Case<'_>) -> LossReport {
    let mut by_node: BTreeMap<String, Loss> = case.observation.loss.iter().cloned().collect();
    for (node, stray) in &case.trace.stray_omitted {
        by_node.entry(node.clone()).or_default().stray += stray;
    }
    LossReport { events_lost: case.observation.events_lost(), by_node }
}

/// Remarks about the observation itself.
pub(super) fn notes(case: &Case<'_>) -> Vec<String> {
    let vanished = case.observation.vanished.iter();
    let armed_ns = case.observation.armed_ns;
    let unreachable = case.observation.unreachable.iter().map(|gone| {
        let after = Duration::from_nanos(gone.since_ns.saturating_sub(armed_ns)).as_secs_f64();
        format!(
            "{} unreachable since {after:.1} s after the trace began: {}; what is not seen there \
             proves nothing",
            gone.node, gone.why
        )
    });
    let elsewhere = Counts::of(case, Direction::Forward).elsewhere;
    let elsewhere = (elsewhere > 0).then(|| {
        let (_, to) = case.ends(Direction::Forward);
        format!("{elsewhere} packets to the service went to other backends than {to}")
    });
    let stray = case.trace.stray_omitted.iter().map(|(node, count)| {
        format!(
            "{count} drop events more at {node} that belong to no packet followed were only counted"
        )
    });
    vanished
        .map(|label| format!("{label} vanished during the trace"))
        .chain(unreachable)
        .chain(case.observation.disabled.iter().cloned())
        .chain(case.topology.gaps.iter().cloned())
        .chain(elsewhere)
        .chain(stray)
        .collect()
}
