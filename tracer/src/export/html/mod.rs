//! One self-contained page: no script, nothing loaded, every text from outside escaped (by the
//! template, which escapes all but what this module made itself).

mod state;

use askama::Template;

use super::svg;
use super::text::{self, words};
use crate::facts::PathFacts;
use crate::model::Outcome;
use crate::report::{
    BackendReport, ClockMethod, DirectionReport, HeaderReport, HopReport, HopSummary,
    JourneyReport, OuterReport, Report, Status, Verdict,
};

/// Packets shown one by one; those that failed first.
const PACKETS: usize = 100;
/// Colours for places.
const COLORS: usize = 5;

/// What the page shows besides the report, where it is known.
#[derive(Clone, Copy, Debug, Default)]
pub struct Extras<'a> {
    /// Network state before.
    pub before: Option<&'a PathFacts>,
    /// And after.
    pub after: Option<&'a PathFacts>,
}

#[derive(Template)]
#[template(path = "report.html")]
struct Page {
    style: &'static str,
    status: &'static str,
    tone: &'static str,
    src: String,
    dst: String,
    counts: String,
    verdict: Told,
    findings: Vec<Told>,
    /// Of a service with several.
    backends: Vec<Backend>,
    picture: String,
    directions: Vec<Direction>,
    places: Vec<Place>,
    packets: Vec<Packet>,
    packets_left: u64,
    changes: Vec<(String, String)>,
    spaces: Vec<state::Space>,
    environment: Vec<(String, String)>,
    notes: Vec<String>,
    version: String,
}

struct Told {
    status: &'static str,
    tone: &'static str,
    summary: String,
    rows: Vec<(&'static str, String)>,
    evidence: Vec<String>,
    fix: Vec<String>,
}

struct Backend {
    address: String,
    name: String,
    status: &'static str,
    tone: &'static str,
    fate: String,
}

struct Direction {
    title: String,
    /// Nothing was seen of it.
    silent: bool,
    hops: Vec<Expected>,
    shown: String,
    stages: Vec<Stage>,
}

struct Expected {
    label: String,
    role: String,
    way: &'static str,
    expected: &'static str,
    packets: u64,
    lost: String,
    latency: String,
    missing: bool,
}

/// Consecutive hops with the same headers.
struct Stage {
    rows: Vec<Header>,
}

struct Header {
    outer: bool,
    at: String,
    what: String,
    from: String,
    to: String,
    changed: String,
}

struct Place {
    name: String,
    color: usize,
}

struct Packet {
    id: String,
    way: &'static str,
    summary: String,
    outcome: &'static str,
    tone: &'static str,
    time: String,
    width: u64,
    bars: Vec<Bar>,
    hops: Vec<Hop>,
    /// How TCP data travelled.
    segments: Option<String>,
    drop: Option<Drop>,
}

struct Bar {
    color: usize,
    share: u64,
    title: String,
}

struct Hop {
    label: String,
    way: &'static str,
    time: String,
    step: String,
    length: u32,
    inner: String,
    outer: String,
    changed: String,
}

struct Drop {
    text: String,
    stack: String,
}

/// The page, ending with a line feed.
pub fn render(report: &Report, extras: Extras<'_>) -> String {
    let places = places(report);
    let longest = report.journeys.iter().map(length).max().unwrap_or(0).max(1);
    let mut shown: Vec<&JourneyReport> = report.journeys.iter().collect();
    // Those that failed are what the reader came for; the sort keeps the order otherwise.
    shown.sort_by_key(|j| j.outcome == Outcome::Delivered);
    shown.truncate(PACKETS);
    let left = report.journeys.len() - shown.len();
    shown.sort_by_key(|j| j.id.parse::<u64>().unwrap_or(u64::MAX));
    let page = Page {
        style: svg::STYLE,
        status: words::status(report.verdict.status),
        tone: tone(report.verdict.status),
        src: report.src.title(),
        dst: report.dst.title(),
        counts: report.counts(),
        verdict: told(&report.verdict),
        findings: report.findings.iter().map(told).collect(),
        backends: report.backends.iter().map(backend).collect(),
        picture: svg::draw(report, false),
        directions: report.directions.iter().map(|d| direction(report, d)).collect(),
        packets: shown.iter().map(|j| packet(report, j, &places, longest)).collect(),
        places,
        packets_left: left as u64 + report.journeys_omitted,
        changes: state::changes(extras),
        spaces: extras.before.map(state::spaces).unwrap_or_default(),
        environment: environment(report),
        notes: report.notes.clone(),
        version: report.tool.version.clone(),
    };
    let mut html = page.render().unwrap_or_else(|error| format!("<!doctype html>{error}"));
    if !html.ends_with('\n') {
        html.push('\n');
    }
    html
}

fn tone(status: Status) -> &'static str {
    match status {
        Status::Delivered => "good",
        Status::Dropped | Status::Rejected | Status::Lost => "bad",
        Status::Degraded | Status::NoTraffic | Status::Inconclusive => "warn",
    }
}

fn backend(row: &BackendReport) -> Backend {
    Backend {
        address: row.address.clone(),
        name: row.name.clone(),
        status: words::status(row.status),
        tone: tone(row.status),
        fate: text::fate(row),
    }
}

fn told(verdict: &Verdict) -> Told {
    let rows = [
        ("where", verdict.r#where.as_ref().map(words::place)),
        (
            "cause",
            verdict
                .cause
                .as_ref()
                .map(|c| format!("{c} ({})", words::confidence(verdict.confidence))),
        ),
        ("last seen", verdict.last_seen.as_ref().map(words::label_hook)),
        ("expected next", verdict.next_expected.as_ref().map(words::label_hook)),
        ("kernel", verdict.kernel_reason.as_ref().map(|r| format!("{} ({})", r.name, r.code))),
        ("rule", verdict.rule.clone()),
    ];
    Told {
        status: words::status(verdict.status),
        tone: tone(verdict.status),
        summary: verdict.summary.clone(),
        rows: rows
            .into_iter()
            .filter_map(|(name, value)| value.filter(|v| !v.is_empty()).map(|v| (name, v)))
            .collect(),
        evidence: verdict.evidence.clone(),
        fix: verdict.fix.clone(),
    }
}

fn direction(report: &Report, direction: &DirectionReport) -> Direction {
    let shown = text::choose(report, direction);
    let (from, to) = match direction.direction {
        crate::model::Direction::Forward => (&report.src.name, &report.dst.name),
        crate::model::Direction::Reply => (&report.dst.name, &report.src.name),
    };
    Direction {
        title: format!("{}: {from} → {to}", capital(words::title(direction.direction))),
        silent: direction.hops.iter().all(|hop| hop.packets == 0),
        hops: direction.hops.iter().map(expected).collect(),
        shown: shown.map_or_else(String::new, |j| format!("{} ({})", j.id, j.summary)),
        stages: shown.map(|j| stages(&j.hops)).unwrap_or_default(),
    }
}

/// `FORWARD` → `Forward`
fn capital(text: &str) -> String {
    let lower = text.to_lowercase();
    let mut chars = lower.chars();
    chars.next().map_or_else(String::new, |c| c.to_uppercase().chain(chars).collect())
}

fn expected(hop: &HopSummary) -> Expected {
    Expected {
        label: words::label(&hop.point),
        role: hop.point.role.to_string(),
        way: words::hook(hop.point.hook),
        expected: if hop.expected { "yes" } else { "no" },
        packets: hop.packets,
        lost: if hop.lost == 0 { String::new() } else { hop.lost.to_string() },
        latency: hop
            .latency
            .map_or_else(String::new, |l| text::duration(l.median_ns) + &text::within(l.error_ns)),
        missing: hop.expected && hop.packets == 0,
    }
}

fn named(hop: &HopReport, address: &str) -> String {
    match hop.names.get(address) {
        Some(name) => format!("{address} ({name})"),
        None => address.to_owned(),
    }
}

fn named_mac(hop: &HopReport, mac: Option<&String>) -> String {
    mac.map_or_else(|| "none".to_owned(), |mac| named(hop, mac))
}

fn headers(hop: &HopReport) -> (&HeaderReport, &Option<OuterReport>) {
    (&hop.inner, &hop.outer)
}

/// Where headers change: what they are then, outermost first.
fn stages(hops: &[HopReport]) -> Vec<Stage> {
    let mut stages = Vec::new();
    for same in hops.chunk_by(|a, b| headers(a) == headers(b)) {
        let (Some(first), Some(last)) = (same.first(), same.last()) else { continue };
        let at = |hop: &HopReport| words::label_hook(&hop.point);
        let mut place =
            if same.len() == 1 { at(first) } else { format!("{} to {}", at(first), at(last)) };
        let mut changed = first.changes.join("; ");
        let mut row = |outer: bool, what: String, from: String, to: String| Header {
            outer,
            at: std::mem::take(&mut place),
            what,
            from,
            to,
            changed: std::mem::take(&mut changed),
        };
        let mut rows = Vec::new();
        if let Some(outer) = &first.outer {
            rows.push(row(
                true,
                "outer MAC".into(),
                named_mac(first, outer.src_mac.as_ref()),
                named_mac(first, outer.dst_mac.as_ref()),
            ));
            rows.push(row(
                true,
                format!("outer IP, TTL {}", outer.ttl),
                named(first, &outer.src_ip),
                named(first, &outer.dst_ip),
            ));
            let vni = outer.vni.map_or_else(String::new, |vni| format!(", VNI {vni}"));
            rows.push(row(
                true,
                format!("UDP{vni}"),
                outer.udp_src.to_string(),
                outer.udp_dst.to_string(),
            ));
        }
        let inner = &first.inner;
        if inner.src_mac.is_some() || inner.dst_mac.is_some() {
            rows.push(row(
                false,
                "MAC".into(),
                named_mac(first, inner.src_mac.as_ref()),
                named_mac(first, inner.dst_mac.as_ref()),
            ));
        }
        let port = |port: Option<u16>| port.map_or_else(String::new, |p| format!(" port {p}"));
        rows.push(row(
            false,
            format!("IP {}, TTL {}", inner.proto, inner.ttl),
            format!("{}{}", named(first, &inner.src_ip), port(inner.src_port)),
            format!("{}{}", named(first, &inner.dst_ip), port(inner.dst_port)),
        ));
        stages.push(Stage { rows });
    }
    stages
}

/// What bars are coloured by: nodes, and between them.
fn places(report: &Report) -> Vec<Place> {
    let mut names: Vec<String> = Vec::new();
    for station in &report.stations {
        if !names.contains(&station.node) {
            names.push(station.node.clone());
        }
    }
    names.push("between nodes".to_owned());
    let color = |i: usize| i % COLORS;
    (0..).zip(names).map(|(i, name)| Place { name, color: color(i) }).collect()
}

fn length(journey: &JourneyReport) -> u64 {
    journey.hops.last().map_or(0, |hop| hop.time_ns)
}

fn packet(report: &Report, journey: &JourneyReport, places: &[Place], longest: u64) -> Packet {
    let color = |name: &str| places.iter().find(|p| p.name == name).map_or(0, |p| p.color);
    let bars = journey.hops.windows(2).map(|pair| {
        let (from, to) = (&pair[0].point, &pair[1].point);
        let place = if from.node == to.node { &from.node } else { "between nodes" };
        Bar {
            color: color(place),
            share: pair[1].delta_ns.max(1),
            title: format!(
                "{} → {}: {}{}",
                words::label_hook(from),
                words::label_hook(to),
                text::duration(pair[1].delta_ns),
                text::within(pair[1].delta_error_ns)
            ),
        }
    });
    Packet {
        id: journey.id.clone(),
        way: match journey.direction {
            crate::model::Direction::Forward => "forward",
            crate::model::Direction::Reply => "reply",
        },
        summary: journey.summary.clone(),
        outcome: words::outcome(journey.outcome),
        tone: match journey.outcome {
            Outcome::Delivered => "good",
            Outcome::Dropped | Outcome::Rejected | Outcome::Lost => "bad",
            Outcome::Partial | Outcome::InFlight | Outcome::Incomplete | Outcome::Elsewhere => {
                "warn"
            }
        },
        time: text::duration(length(journey)),
        width: (u128::from(length(journey)) * 100 / u128::from(longest)).clamp(1, 100) as u64,
        bars: bars.collect(),
        hops: journey.hops.iter().map(hop).collect(),
        segments: text::segments::in_words(report, journey),
        drop: journey.drop.as_ref().map(|drop| Drop {
            text: format!(
                "dropped after {}{}: {} ({}) in {}{}{}",
                text::duration(drop.time_ns),
                text::within(drop.time_error_ns),
                drop.reason.name,
                drop.reason.code,
                drop.function,
                drop.hook.as_ref().map_or_else(String::new, |h| format!(", netfilter hook {h}")),
                drop.rule.as_ref().map_or_else(String::new, |r| format!(", rule {r}")),
            ),
            stack: drop.stack.join("\n"),
        }),
    }
}

fn hop(hop: &HopReport) -> Hop {
    let inner = &hop.inner;
    Hop {
        label: words::label(&hop.point),
        way: words::hook(hop.point.hook),
        time: text::duration(hop.time_ns) + &text::within(hop.time_error_ns),
        step: text::duration(hop.delta_ns) + &text::within(hop.delta_error_ns),
        length: hop.length,
        inner: format!("{} → {} ttl {}", inner.src_ip, inner.dst_ip, inner.ttl),
        outer: hop.outer.as_ref().map_or_else(String::new, |o| {
            let vni = o.vni.map_or_else(String::new, |vni| format!(" vni {vni}"));
            format!("{} → {}{vni}", o.src_ip, o.dst_ip)
        }),
        changed: hop.changes.join("; "),
    }
}

fn environment(report: &Report) -> Vec<(String, String)> {
    let mut rows = Vec::new();
    let mut row = |name: &str, value: String| rows.push((name.to_owned(), value));
    row("podtrace", report.tool.version.clone());
    row("kernel", report.tool.kernel.clone());
    row("started", report.started.clone());
    row("duration", text::duration(report.duration_ns));
    for (name, end) in [("source", &report.src), ("destination", &report.dst)] {
        row(name, format!("{}: {}, node {}", end.name, end.ips.join(", "), end.node));
    }
    for clock in report.clock.iter().filter(|c| c.method != ClockMethod::SameClock) {
        let mut value = format!("{} ns{}", clock.offset_ns, text::within(clock.error_ns));
        if let Some(drift) = clock.drift_ppm {
            value.push_str(&format!(", {drift:+} ppm"));
        }
        row(&format!("clock of {}", clock.node), value);
    }
    let lost = report.loss.events_lost;
    row("events lost", if lost == 0 { "none".to_owned() } else { lost.to_string() });
    for (node, loss) in report.loss.by_node.iter().filter(|(_, loss)| loss.total() + loss.stray > 0)
    {
        let value = format!(
            "ring buffer full: {} hops, {} drops; memory: {}; undecodable: {}; over the rate: {}; \
             late: {}; stray drops not kept: {}",
            loss.ring_hop,
            loss.ring_drop,
            loss.backlog,
            loss.undecodable,
            loss.over_rate,
            loss.late,
            loss.stray
        );
        row(&format!("lost on {node}"), value);
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::super::fixtures;
    use super::*;

    #[test]
    fn no_text_from_outside_is_markup() {
        for (name, mut report) in fixtures::all() {
            let evil = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>";
            for text in [
                &mut report.src.name,
                &mut report.verdict.summary,
                &mut report.verdict.fix.first_mut().unwrap_or(&mut String::new()),
                &mut report.tool.kernel,
            ] {
                text.push_str(evil);
            }
            report.notes.push(evil.to_owned());
            for station in &mut report.stations {
                station.addresses.insert(0, evil.to_owned());
                station.node.push_str(evil);
            }
            for direction in &mut report.directions {
                direction.verdict.cause = Some(evil.to_owned());
                for hop in &mut direction.hops {
                    hop.point.interface.push_str(evil);
                    hop.point.node.push_str(evil);
                }
            }
            for journey in &mut report.journeys {
                journey.summary.push_str(evil);
                for hop in &mut journey.hops {
                    hop.changes.push(evil.to_owned());
                    let addresses: Vec<_> = hop.names.keys().cloned().collect();
                    hop.names.extend(addresses.into_iter().map(|a| (a, evil.to_owned())));
                }
            }
            let html = render(&report, Extras::default());
            for tag in ["<script", "<img", "onerror=alert(2)>\"", "src=x onerror=alert(2)></"] {
                assert!(!html.contains(tag), "{name}: {tag}");
            }
            assert!(html.contains("&#60;script&#62;"), "{name}");
            assert_eq!(html.matches("<svg").count(), html.matches("</svg>").count());
        }
    }

    #[test]
    fn the_page_needs_nothing_from_outside() {
        for (name, report) in fixtures::all() {
            let html = render(&report, Extras::default());
            let html = html.replace("http://www.w3.org/2000/svg", "");
            for link in ["http:", "https:", "url(", "@import", "src=", "<link"] {
                assert!(!html.contains(link), "{name}: {link}");
            }
            assert!(html.contains("prefers-color-scheme:dark") && html.contains("@media print"));
        }
    }

    #[test]
    fn verdict_and_fix_come_before_all_else() {
        let report = fixtures::forward_drop();
        let html = render(&report, Extras::default());
        let at = |text: &str| html.find(text).unwrap_or_else(|| panic!("{text}"));
        assert!(at("DROPPED") < at("<b>Fix</b>") && at("<b>Fix</b>") < at("<svg"));
        assert!(at("<svg") < at("Latency") && html.contains("edge bad"));
    }
}
