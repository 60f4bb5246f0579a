//! One packet's way as a ladder of hops, with the break where it ended.

use super::canvas::{Canvas, Line, Tone, wrap};
use super::segments;
use super::units::{count, duration, within};
use super::words;
use crate::model::{Outcome, Role};
use crate::report::{
    DirectionReport, DropReport, HopReport, JourneyReport, PointReport, Report, Status,
};

/// Steps drawn of a way that goes round in circles, before and after the gap.
const HEAD: usize = 14;
const TAIL: usize = 6;

/// Width of a duration.
const TIME: usize = 7;
/// Widest that names of interfaces (IFNAMSIZ - 1) and roles get while room is scarce.
const MAX_INTERFACE: usize = 15;
const MAX_ROLE: usize = 9;

/// The packet to show: the first that shows what the direction's verdict says, else the first that
/// failed in any way, else the first delivered.
pub(in crate::export) fn choose<'a>(
    report: &'a Report,
    direction: &DirectionReport,
) -> Option<&'a JourneyReport> {
    let rank = |journey: &JourneyReport| match (direction.verdict.status, journey.outcome) {
        (Status::Dropped, Outcome::Dropped)
        | (Status::Rejected, Outcome::Rejected)
        | (Status::Lost, Outcome::Lost)
        | (Status::Degraded, Outcome::Partial) => 0,
        (_, Outcome::Dropped | Outcome::Rejected | Outcome::Lost | Outcome::Partial) => 1,
        (_, Outcome::Delivered) => 2,
        (_, Outcome::InFlight | Outcome::Incomplete | Outcome::Elsewhere) => 3,
    };
    let of_direction = report.journeys.iter().filter(|journey| {
        journey.direction == direction.direction && journey.backend == direction.backend
    });
    of_direction.min_by_key(|journey| rank(journey))
}

/// A line of the ladder.
enum Step<'a> {
    Seen(&'a HopReport),
    /// On the planned path, not seen.
    Unseen(&'a PointReport),
}

impl Step<'_> {
    fn point(&self) -> &PointReport {
        match self {
            Step::Seen(hop) => &hop.point,
            Step::Unseen(point) => point,
        }
    }
}

/// Draws a direction: its title and the way of `shown`.
pub(super) fn draw(
    canvas: &mut Canvas,
    report: &Report,
    direction: &DirectionReport,
    shown: Option<&JourneyReport>,
) {
    let glyphs = canvas.glyphs();
    let (mark, tone) = words::mark(direction.verdict.status, glyphs);
    let title = words::title(direction.direction);
    let Some(journey) = shown else {
        return canvas.title(title, tone, mark, "no packet seen");
    };
    let mut text = journey.summary.clone();
    if direction.packets > 1 {
        text = format!("packet {}, one of {}: {text}", journey.id, direction.packets);
    }
    if let Some(id) = &journey.retransmission_of {
        text += &format!(" (retransmission of {id})");
    }
    if let Some(id) = &journey.duplicate_of {
        text += &format!(" (copy of {id})");
    }
    canvas.title(title, tone, mark, &text);
    if let Some(text) = segments::in_words(report, journey) {
        canvas.paragraph(Line::new().plain("  "), 2, Tone::Plain, &text);
    }
    let verdict = &direction.verdict;
    if verdict.status != Status::Delivered && *verdict != report.verdict {
        canvas.paragraph(Line::new().plain("  "), 2, tone, &verdict.summary);
    }

    let planned: Vec<&PointReport> =
        direction.hops.iter().filter(|h| h.expected).map(|h| &h.point).collect();
    let steps = align(&journey.hops, &planned);
    let columns = Columns::fit(canvas, &steps);
    columns.header(canvas);
    let last_seen = steps.iter().rposition(|s| matches!(s, Step::Seen(_)));
    let gap = gap(canvas, last_seen.map_or(0, |last| last + 1));
    let (mut node, mut number, mut segments) = (None, 0, (1, 1));
    if last_seen.is_none() {
        end(canvas, journey, &steps, None);
    }
    for (i, step) in steps.iter().enumerate() {
        if let Step::Seen(_) = step {
            number += 1;
        }
        if gap.contains(&i) {
            if i == gap.start {
                let text = format!("{} {}", glyphs.ellipsis, count(gap.len() as u64, "more step"));
                canvas.line(Line::new().plain("      ").add(Tone::Dim, text));
                node = None;
            }
        } else {
            let point = step.point();
            if node != Some(&point.node) {
                node = Some(&point.node);
                node_header(canvas, report, point);
            }
            match step {
                Step::Seen(hop) => {
                    columns.seen(
                        canvas,
                        number,
                        hop,
                        planned.is_empty() || planned.contains(&point),
                        segments,
                    );
                    segments = (hop.skbs, hop.segments);
                }
                Step::Unseen(point) => columns.unseen(canvas, point),
            }
        }
        if Some(i) == last_seen {
            end(canvas, journey, &steps, Some(i));
        }
    }
}

/// Steps that are left out of the `length` that were seen.
fn gap(canvas: &Canvas, length: usize) -> std::ops::Range<usize> {
    if canvas.verbose() || length <= 2 * (HEAD + TAIL) { 0..0 } else { HEAD..length - TAIL }
}

/// Sorts planned points that were not seen in between the hops (longest common subsequence).
/// Within a gap, what was seen comes first.
fn align<'a>(hops: &'a [HopReport], planned: &[&'a PointReport]) -> Vec<Step<'a>> {
    let width = planned.len() + 1;
    let mut common = vec![0_u32; (hops.len() + 1) * width];
    let at = |common: &[u32], h: usize, p: usize| common.get(h * width + p).copied().unwrap_or(0);
    for (h, hop) in hops.iter().enumerate().rev() {
        for (p, point) in planned.iter().enumerate().rev() {
            let best = if hop.point == **point {
                at(&common, h + 1, p + 1) + 1
            } else {
                at(&common, h + 1, p).max(at(&common, h, p + 1))
            };
            if let Some(cell) = common.get_mut(h * width + p) {
                *cell = best;
            }
        }
    }
    let (mut steps, mut h, mut p) = (Vec::new(), 0, 0);
    loop {
        match (hops.get(h), planned.get(p)) {
            (Some(hop), Some(point)) if hop.point == **point => {
                steps.push(Step::Seen(hop));
                (h, p) = (h + 1, p + 1);
            }
            (Some(hop), point)
                if point.is_none() || at(&common, h + 1, p) >= at(&common, h, p + 1) =>
            {
                steps.push(Step::Seen(hop));
                h += 1;
            }
            (_, Some(point)) => {
                steps.push(Step::Unseen(point));
                p += 1;
            }
            (_, None) => return steps,
        }
    }
}

fn node_header(canvas: &mut Canvas, report: &Report, point: &PointReport) {
    let node = point.node.as_str();
    let glyphs = canvas.glyphs();
    let rule = glyphs.rule;
    let kind = if point.role == Role::Wire { "wire" } else { "node" };
    let mut line = Line::new()
        .add(Tone::Dim, rule.repeat(2))
        .plain(" ")
        .add(Tone::Node, format!("{} {}", kind, canvas.clean(node)))
        .plain(" ");
    let clock = report.clock.iter().find(|c| c.node == node);
    if let Some(error) = clock.and_then(|c| within(c.error_ns, glyphs)) {
        line = line.add(Tone::Dim, format!("(clock {error}) "));
    }
    let rest = canvas.width().min(100).saturating_sub(line.width());
    canvas.line(line.add(Tone::Dim, rule.repeat(rest)));
}

/// Says how the journey ended, behind step `last`, unless it arrived.
fn end(canvas: &mut Canvas, journey: &JourneyReport, steps: &[Step<'_>], last: Option<usize>) {
    if journey.looped {
        let text = "goes round in a circle";
        broken(canvas, Tone::Warn, canvas.glyphs().warn, text);
    }
    let bad = canvas.glyphs().bad;
    if canvas.verbose() {
        let warn = canvas.glyphs().warn;
        journey.side_drops.iter().for_each(|drop| draw_drop(canvas, warn, "a copy dropped", drop));
    }
    if let Some(drop) = &journey.drop {
        return draw_drop(canvas, bad, &words::outcome(journey.outcome).to_uppercase(), drop);
    }
    let next = steps.iter().skip(last.map_or(0, |i| i + 1)).find_map(|s| match s {
        Step::Unseen(point) => Some(words::label_hook(point)),
        Step::Seen(_) => None,
    });
    let here = last.and_then(|i| steps.get(i)).map(Step::point);
    match journey.outcome {
        Outcome::Delivered | Outcome::Incomplete => {}
        Outcome::InFlight | Outcome::Elsewhere => {
            broken(canvas, Tone::Warn, canvas.glyphs().unclear, words::outcome(journey.outcome));
        }
        Outcome::Partial => broken(canvas, Tone::Bad, bad, "only a part arrived"),
        Outcome::Dropped | Outcome::Rejected | Outcome::Lost => {
            let mut text = words::outcome(journey.outcome).to_uppercase();
            if let Some(here) = here {
                text += &format!(": left {}", words::label(here));
            }
            text += &next.map_or_else(String::new, |next| format!(", never came to {next}"));
            broken(canvas, Tone::Bad, bad, &text);
        }
    }
}

fn broken(canvas: &mut Canvas, tone: Tone, mark: &str, text: &str) {
    let head = Line::new().cell(tone, mark, 4, true).plain("  ");
    canvas.paragraph(head, 6, tone, text);
}

fn draw_drop(canvas: &mut Canvas, mark: &str, what: &str, drop: &DropReport) {
    let time = duration(drop.time_ns, canvas.glyphs());
    let mut text = format!(
        "{what} after {time}: {} ({}) in {}",
        drop.reason.name, drop.reason.code, drop.function
    );
    if let Some(hook) = &drop.hook {
        text += &format!(", {hook}");
    }
    let here = [
        drop.place.node.as_ref().map(|n| format!("node {n}")),
        drop.place.pod.as_ref().map(|p| format!("pod {p}")),
        drop.place.interface.clone(),
    ];
    let here = here.into_iter().flatten().collect::<Vec<_>>().join(", ");
    if !here.is_empty() {
        text += &format!(" [{here}]");
    }
    let tone = if mark == canvas.glyphs().bad { Tone::Bad } else { Tone::Warn };
    broken(canvas, tone, mark, &text);
    let indent = || Line::new().plain("      ");
    if let Some(rule) = &drop.rule {
        canvas.paragraph(indent().add(Tone::Dim, "rule   "), 13, Tone::Plain, rule);
    }
    if canvas.verbose() && !drop.stack.is_empty() {
        let stack = drop.stack.join(" < ");
        canvas.paragraph(indent().add(Tone::Dim, "stack  "), 13, Tone::Plain, &stack);
    }
}

/// Widths of the ladder's columns.
struct Columns {
    interface: usize,
    role: usize,
    arrow: &'static str,
}

impl Columns {
    fn fit(canvas: &Canvas, steps: &[Step<'_>]) -> Self {
        let widest = |text: &dyn Fn(&PointReport) -> String, least: usize| {
            let widths =
                steps.iter().map(|s| Line::new().plain(canvas.clean(&text(s.point()))).width());
            widths.max().unwrap_or(0).max(least)
        };
        // Beyond 80 columns, names may take a third of what is more.
        let more = canvas.width().saturating_sub(80) / 3;
        Self {
            interface: widest(&|p| p.interface.clone(), 9).min(MAX_INTERFACE + more),
            role: widest(&words::role, 4).min(MAX_ROLE + more),
            arrow: canvas.glyphs().arrow,
        }
    }

    /// Columns in front of what changed.
    fn changes(&self) -> usize {
        4 + 2 + self.interface + 1 + self.role + 1 + 3 + 1 + TIME + 1 + TIME + 2
    }

    fn row(&self, canvas: &Canvas, tone: Tone, mark: &str, cells: [&str; 5]) -> Line {
        let [interface, role, hook, time, step] = cells;
        let interface = canvas.shorten(&canvas.clean(interface), self.interface);
        let role = canvas.shorten(&canvas.clean(role), self.role);
        let quiet = if tone == Tone::Plain { Tone::Dim } else { tone };
        Line::new()
            .cell(tone, mark, 4, true)
            .plain("  ")
            .cell(tone, &interface, self.interface, false)
            .plain(" ")
            .cell(quiet, &role, self.role, false)
            .plain(" ")
            .cell(tone, hook, 3, false)
            .plain(" ")
            .cell(tone, time, TIME, true)
            .plain(" ")
            .cell(tone, step, TIME, true)
            .plain("  ")
    }

    fn header(&self, canvas: &mut Canvas) {
        let row = self.row(canvas, Tone::Dim, "#", ["interface", "role", "", "time", "step"]);
        canvas.line(row.add(Tone::Dim, "what changed"));
    }

    fn seen(
        &self,
        canvas: &mut Canvas,
        number: usize,
        hop: &HopReport,
        planned: bool,
        before: (u32, u32),
    ) {
        let glyphs = canvas.glyphs();
        let role = words::role(&hop.point);
        let time = duration(hop.time_ns, glyphs);
        let step = if number == 1 { String::new() } else { duration(hop.delta_ns, glyphs) };
        let tone = if planned { Tone::Plain } else { Tone::Warn };
        let cells =
            [hop.point.interface.as_str(), &role, words::hook(hop.point.hook), &time, &step];
        let row = self.row(canvas, tone, &number.to_string(), cells);
        let mut changes = hop.changes.clone();
        if !planned {
            changes.insert(0, "not on the planned path".to_owned());
        }
        if let Some(error) = within(hop.delta_error_ns, glyphs) {
            changes.insert(0, format!("step {error}"));
        }
        changes.extend(super_packets(hop, before));
        self.draw(canvas, row, Tone::Plain, &changes);
    }

    fn unseen(&self, canvas: &mut Canvas, point: &PointReport) {
        let role = words::role(point);
        let cells = [point.interface.as_str(), &role, words::hook(point.hook), "", ""];
        let row = self.row(canvas, Tone::Dim, canvas.glyphs().unseen, cells);
        self.draw(canvas, row, Tone::Dim, &["not seen".to_owned()]);
    }

    /// Draws a row with its changes: as many to a line as fit, broken between them if possible.
    fn draw(&self, canvas: &mut Canvas, row: Line, tone: Tone, changes: &[String]) {
        let indent = self.changes();
        let room = canvas.width().saturating_sub(indent);
        let mut lines: Vec<String> = Vec::new();
        for change in changes.iter().map(|c| canvas.clean(&c.replace('→', self.arrow))) {
            match lines.last_mut() {
                Some(line) if width(line) + 2 + width(&change) <= room => {
                    line.push_str(", ");
                    line.push_str(&change);
                }
                _ => lines.extend(wrap(&change, room, room)),
            }
        }
        let mut row = Some(row);
        if lines.is_empty() {
            lines.push(String::new());
        }
        for line in lines {
            let head = row.take().unwrap_or_else(|| Line::new().plain(" ".repeat(indent)));
            canvas.line(head.add(tone, line));
        }
    }
}

fn width(text: &str) -> usize {
    unicode_width::UnicodeWidthStr::width(text)
}

/// Says so when the packet is carried by more or fewer skbs or segments than before.
fn super_packets(hop: &HopReport, before: (u32, u32)) -> Option<String> {
    if (hop.skbs, hop.segments) == before {
        return None;
    }
    let skbs = count(u64::from(hop.skbs), "skb");
    Some(match hop.segments {
        segments if segments > hop.skbs => {
            format!("{skbs} of {}", count(u64::from(segments), "segment"))
        }
        _ => skbs,
    })
}
