//! The path as a picture: nodes, pods, interfaces, the tunnel, and where it broke.
//!
//! From the top left down through the sender's node, over the wire at the bottom, up through the
//! receiver's node on the right. Colours follow the reader's light or dark preference.

use std::fmt::Write as _;

use super::text::words;
use crate::model::{Direction, Role};
use crate::report::{DirectionReport, HopSummary, Report, Status};

/// Sizes, in units of the picture.
const WIDTH: i64 = 900;
const BOX: (i64, i64) = (250, 46);
const STEP: i64 = 66;
const TOP: i64 = 78;
const LEFT: i64 = 36;
const RIGHT: i64 = WIDTH - LEFT - BOX.0;

/// Colours and fonts; also in the page of the HTML export, so all names begin alike.
pub(super) const STYLE: &str = "\
.pt{--ink:#1b1f24;--dim:#59636e;--line:#8c959f;--card:#fff;--node:#f3f5f7;--good:#1a7f37;--bad:#cf222e;\
--warn:#9a6700;--tunnel:#0969da;font-family:system-ui,sans-serif}\
@media(prefers-color-scheme:dark){.pt{--ink:#e6edf3;--dim:#9198a1;--line:#6e7681;--card:#0d1117;\
--node:#161b22;--good:#3fb950;--bad:#f85149;--warn:#d29922;--tunnel:#4493f8}}\
@media print{.pt{--ink:#000;--dim:#444;--line:#777;--card:#fff;--node:#f3f5f7;--good:#1a7f37;\
--bad:#cf222e;--warn:#9a6700;--tunnel:#0969da}}\
.pt text{fill:var(--ink);font-size:14px}.pt .dim{fill:var(--dim);font-size:12px}\
.pt .title{font-weight:600;font-size:15px}.pt .card{fill:var(--card);stroke:var(--line)}\
.pt .node{fill:var(--node);stroke:var(--line)}.pt .pod{fill:none;stroke:var(--line);stroke-dasharray:4 3}\
.pt .unseen{stroke-dasharray:3 3}.pt .good{stroke:var(--good)}.pt .bad{stroke:var(--bad)}\
.pt .warn{stroke:var(--warn)}.pt .none{stroke:var(--line);stroke-dasharray:3 4}\
.pt .edge{fill:none;stroke-width:2.5}.pt .tunnel{fill:none;stroke:var(--tunnel);stroke-width:22;opacity:.18;\
stroke-linejoin:round}.pt .badtext{fill:var(--bad);font-weight:600}.pt .warntext{fill:var(--warn)}\
.pt .tunneltext{fill:var(--tunnel);font-size:12px}";

/// For text and attribute values.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // Not allowed in XML, or able to turn the text round.
            c if c.is_control()
                || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{fffe}' | '\u{ffff}') =>
            {
                out.push('\u{fffd}');
            }
            c => out.push(c),
        }
    }
    out
}

/// At most this many characters.
fn short(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most - 1).chain(['…']).collect()
}

/// A station in the picture.
struct Stop<'a> {
    hop: &'a HopSummary,
    x: i64,
    y: i64,
    width: i64,
}

impl Stop<'_> {
    fn middle(&self) -> (i64, i64) {
        (self.x + self.width / 2, self.y + BOX.1 / 2)
    }
}

/// The direction that the picture is about: that which failed, else forward.
pub(super) fn told(report: &Report) -> Option<&DirectionReport> {
    let wanted = report.verdict.direction.unwrap_or(Direction::Forward);
    report.directions.iter().find(|d| d.direction == wanted).or(report.directions.first())
}

/// The picture as a file of its own, ending with a line feed.
pub fn render(report: &Report) -> String {
    let mut out = draw(report, true);
    out.push('\n');
    out
}

/// The picture; with its own style when it stands alone.
pub(super) fn draw(report: &Report, alone: bool) -> String {
    let Some(direction) = told(report) else { return String::new() };
    let hops: Vec<&HopSummary> = direction.hops.iter().filter(|h| h.expected).collect();
    let stops = place(&hops);
    let rows = stops.iter().map(|s| s.y).max().map_or(0, |y| (y - TOP) / STEP + 1);
    let height = TOP + rows * STEP + 24;
    let mut out = String::new();
    let style = if alone { format!("<style>{STYLE}</style>") } else { String::new() };
    let _ = write!(
        out,
        r#"<svg xmlns="http://www.w3.org/2000/svg" class="pt" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{}">{style}"#,
        escape(&format!("Path of the packets: {}", report.verdict.summary))
    );
    let _ = write!(
        out,
        r#"<text class="title" x="{LEFT}" y="24">{}</text>"#,
        escape(&short(
            &format!(
                "{} {} → {}",
                words::title(direction.direction),
                sender(report, direction).0,
                sender(report, direction).1
            ),
            110
        ))
    );
    nodes(&mut out, &stops);
    tunnel(&mut out, &stops);
    for pair in stops.windows(2) {
        edge(&mut out, direction, &pair[0], &pair[1]);
    }
    for stop in &stops {
        station(&mut out, report, stop);
    }
    out.push_str("</svg>");
    out
}

fn sender<'a>(report: &'a Report, direction: &DirectionReport) -> (&'a str, &'a str) {
    match direction.direction {
        Direction::Forward => (&report.src.name, &report.dst.name),
        Direction::Reply => (&report.dst.name, &report.src.name),
    }
}

/// Gives every station its place.
fn place<'a>(hops: &[&'a HopSummary]) -> Vec<Stop<'a>> {
    let first_node = hops.first().map(|h| h.point.node.clone());
    let last_node = hops.last().map(|h| h.point.node.clone());
    let (left, wire, right) = if first_node == last_node {
        let (left, right) = hops.split_at(hops.len() / 2);
        (left, &[][..], right)
    } else {
        let left = hops.iter().take_while(|h| Some(&h.point.node) == first_node.as_ref()).count();
        let right =
            hops.iter().rev().take_while(|h| Some(&h.point.node) == last_node.as_ref()).count();
        let right = right.min(hops.len() - left);
        let (left, rest) = hops.split_at(left);
        let (wire, right) = rest.split_at(rest.len() - right);
        (left, wire, right)
    };
    let rows = left.len().max(right.len()).max(1) as i64;
    let y = |row: i64| TOP + row * STEP;
    let mut stops = Vec::new();
    for (i, hop) in (rows - left.len() as i64..).zip(left) {
        stops.push(Stop { hop, x: LEFT, y: y(i), width: BOX.0 });
    }
    if !wire.is_empty() {
        let room = RIGHT - LEFT - BOX.0 - 2 * 30;
        let each = room / wire.len() as i64;
        for (i, hop) in (0..).zip(wire) {
            let x = LEFT + BOX.0 + 30 + i * each + 8;
            stops.push(Stop { hop, x, y: y(rows - 1), width: (each - 16).max(40) });
        }
    }
    for (i, hop) in (0..).zip(right) {
        stops.push(Stop { hop, x: RIGHT, y: y(rows - 1 - i), width: BOX.0 });
    }
    stops
}

/// Frames round what belongs together.
fn nodes(out: &mut String, stops: &[Stop<'_>]) {
    let mut frame = |class: &str, title: &str, members: &[&Stop<'_>], margin: i64| {
        let (Some(left), Some(right), Some(top), Some(bottom)) = (
            members.iter().map(|s| s.x).min(),
            members.iter().map(|s| s.x + s.width).max(),
            members.iter().map(|s| s.y).min(),
            members.iter().map(|s| s.y + BOX.1).max(),
        ) else {
            return;
        };
        let head = if class == "node" { 14 } else { 0 };
        let _ = write!(
            out,
            r#"<rect class="{class}" x="{}" y="{}" width="{}" height="{}" rx="8"/>"#,
            left - margin,
            top - margin - head,
            right - left + 2 * margin,
            bottom - top + 2 * margin + head
        );
        if class == "node" {
            let _ = write!(
                out,
                r#"<text class="dim" x="{}" y="{}">{}</text>"#,
                left - margin + 8,
                top - margin + 3,
                escape(&short(title, ((right - left + 2 * margin) / 8).max(4) as usize))
            );
        }
    };
    let mut names: Vec<&str> = Vec::new();
    for stop in stops {
        if !names.contains(&stop.hop.point.node.as_str()) {
            names.push(&stop.hop.point.node);
        }
    }
    for name in names {
        let members: Vec<_> = stops.iter().filter(|s| s.hop.point.node == *name).collect();
        let wire = members.iter().all(|s| s.hop.point.role == Role::Wire);
        let title = if wire { "the wire".to_owned() } else { format!("node {name}") };
        frame("node", &title, &members, 14);
    }
    for stop in stops.iter().filter(|s| s.hop.point.pod.is_some()) {
        frame("pod", "", &[stop], 6);
    }
}

/// The band of the tunnel.
fn tunnel(out: &mut String, stops: &[Stop<'_>]) {
    let ends = |s: &Stop<'_>| matches!(s.hop.point.role, Role::Vxlan | Role::Tun);
    let (Some(first), Some(last)) = (stops.iter().position(ends), stops.iter().rposition(ends))
    else {
        return;
    };
    if first == last {
        return;
    }
    let points: Vec<String> = stops[first..=last]
        .iter()
        .map(|s| {
            let (x, y) = s.middle();
            format!("{x},{y}")
        })
        .collect();
    let _ = write!(out, r#"<polyline class="tunnel" points="{}"/>"#, points.join(" "));
    let (x, y) = (WIDTH / 2, stops[first].y + BOX.1 / 2);
    let _ = write!(
        out,
        r#"<text class="tunneltext" x="{x}" y="{y}" text-anchor="middle">the shaded band is the tunnel</text>"#
    );
}

fn edge(out: &mut String, direction: &DirectionReport, from: &Stop<'_>, to: &Stop<'_>) {
    let ((x1, y1), (x2, y2)) = (from.middle(), to.middle());
    let (x1, x2, y1, y2) = if x1 == x2 {
        let half = BOX.1 / 2 * (y2 - y1).signum();
        (x1, x2, y1 + half, y2 - half)
    } else {
        (x1 + from.width / 2, x2 - to.width / 2, y1, y2)
    };
    let broken = from.hop.packets > 0 && to.hop.packets == 0;
    let class = match (from.hop.packets, to.hop.packets, to.hop.lost) {
        (0, 0, _) => "none",
        _ if broken => "bad",
        (_, _, 0) => "good",
        _ => "warn",
    };
    let _ = write!(out, r#"<path class="edge {class}" d="M{x1} {y1}L{x2} {y2}"/>"#);
    let (x, y) = ((x1 + x2) / 2, (y1 + y2) / 2);
    if broken {
        let _ =
            write!(out, r#"<path class="edge bad" d="M{} {}l14 14m0 -14l-14 14"/>"#, x - 7, y - 7);
    }
    if class != "bad" && class != "warn" {
        return;
    }
    let text = match &direction.verdict.cause {
        Some(cause) if broken || direction.verdict.status == Status::Degraded => {
            let reason = direction.verdict.kernel_reason.as_ref().map(|r| r.name.as_str());
            let reason = reason.filter(|r| !cause.contains(r));
            format!("{cause} {}", reason.unwrap_or_default())
        }
        _ => format!("{} not seen here", to.hop.lost),
    };
    let class = if broken { "badtext" } else { "warntext" };
    let right = x > WIDTH / 2 && x1 == x2;
    let (x, y, anchor) = match (x1 == x2, right) {
        (true, false) => (x + 16, y + 5, "start"),
        (true, true) => (x - 16, y + 5, "end"),
        (false, _) => (x, y - 38, "middle"),
    };
    let _ = write!(
        out,
        r#"<text class="{class}" x="{x}" y="{y}" text-anchor="{anchor}">{}</text>"#,
        escape(&short(text.trim(), 44))
    );
}

fn station(out: &mut String, report: &Report, stop: &Stop<'_>) {
    let point = &stop.hop.point;
    let seen = if stop.hop.packets == 0 { " unseen" } else { "" };
    let wide = stop.width >= BOX.0;
    let _ = write!(
        out,
        r#"<rect class="card{seen}" x="{}" y="{}" width="{}" height="{}" rx="6"/>"#,
        stop.x, stop.y, stop.width, BOX.1
    );
    let room = (stop.width / 9).max(3) as usize;
    let _ = write!(
        out,
        r#"<text x="{}" y="{}" font-weight="600">{}</text>"#,
        stop.x + 10,
        stop.y + 19,
        escape(&short(&point.interface, if wide { 16 } else { room }))
    );
    let found = report
        .stations
        .iter()
        .find(|s| s.node == point.node && s.pod == point.pod && s.interface == point.interface);
    let address = found.and_then(|s| s.addresses.first().cloned().or_else(|| s.mac.clone()));
    let below = match (wide, address) {
        (true, Some(address)) => address,
        _ => format!("{} seen", stop.hop.packets),
    };
    let _ = write!(
        out,
        r#"<text class="dim" x="{}" y="{}">{}</text>"#,
        stop.x + 10,
        stop.y + 37,
        escape(&short(&below, if wide { 26 } else { room + 1 }))
    );
    if wide {
        for (text, y) in [(words::role(point), 19), (format!("{} seen", stop.hop.packets), 37)] {
            let _ = write!(
                out,
                r#"<text class="dim" x="{}" y="{}" text-anchor="end">{}</text>"#,
                stop.x + stop.width - 10,
                stop.y + y,
                escape(&short(&text, 14))
            );
        }
    }
}
