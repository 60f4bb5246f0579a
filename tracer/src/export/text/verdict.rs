//! The verdict: first thing read, last thing seen.

use super::canvas::{Canvas, Line, Tone};
use super::units::{count, duration};
use super::words;
use crate::report::{PacketCounts, Report, Status, Verdict};

/// Lines from which on the verdict is repeated at the end: it has left the screen.
const SCREEN: usize = 24;
/// Width of the labels in front of details.
const LABEL: usize = 12;

/// Draws the verdict with what it rests on and how to mend it.
pub(super) fn draw(canvas: &mut Canvas, report: &Report) {
    headline(canvas, report);
    let verdict = &report.verdict;
    if !verdict.summary.is_empty() {
        let tone = if verdict.status == Status::Delivered { Tone::Plain } else { Tone::Strong };
        canvas.paragraph(Line::new().plain("  "), 2, tone, &verdict.summary);
    }
    details(canvas, verdict, 2);
    probe(canvas, report);
}

/// Draws the headline once more, below a long report.
pub(super) fn repeat(canvas: &mut Canvas, report: &Report) {
    if canvas.lines() > SCREEN {
        headline(canvas, report);
    }
}

fn headline(canvas: &mut Canvas, report: &Report) {
    let verdict = &report.verdict;
    let (mark, tone) = words::mark(verdict.status, canvas.glyphs());
    let mut what = words::status(verdict.status).to_owned();
    if verdict.status != Status::Delivered {
        if let Some(direction) = verdict.direction {
            what += &format!(" {direction}");
        }
        if let Some(place) = verdict.r#where.as_ref().and_then(words::short_place) {
            what += &format!(" at {place}");
        }
    }
    let head = Line::new().add(tone, format!("{mark} {}", canvas.clean(&what))).plain("  ");
    let arrow = canvas.glyphs().arrow;
    let ends = format!("{} {arrow} {}", report.src.name, report.dst.title());
    canvas.paragraph(head, 2, Tone::Plain, &format!("{ends}: {}", report.counts()));
}

fn probe(canvas: &mut Canvas, report: &Report) {
    let Some(probe) = &report.probe else { return };
    if probe.answered != probe.sent || probe.refused > 0 || !probe.errors.is_empty() {
        let PacketCounts { answered, refused, .. } = report.packets;
        let mut text = format!("{}: {} sent, {answered} answered", probe.proto, probe.sent);
        if refused > 0 {
            text += &format!(", {refused} refused");
        }
        detail(canvas, 2, "probe", Tone::Plain, &text);
    }
    let times = canvas.glyphs().times;
    for (error, n) in &probe.errors {
        detail(canvas, 2, "", Tone::Warn, &format!("{error} {times}{n}"));
    }
    let mut sorted = probe.rtt_ns.clone();
    sorted.sort_unstable();
    if let (Some(min), Some(median), Some(max)) =
        (sorted.first(), sorted.get(sorted.len() / 2), sorted.last())
    {
        let [min, median, max] = [min, median, max].map(|ns| duration(*ns, canvas.glyphs()));
        let text = match probe.rtt_ns.len() {
            1 => min,
            _ => format!("{min} min, {median} median, {max} max"),
        };
        detail(canvas, 2, "round trip", Tone::Plain, &text);
    }
}

/// Draws where, why, how sure, and the way out, indented.
pub(super) fn details(canvas: &mut Canvas, verdict: &Verdict, indent: usize) {
    if let Some(place) = verdict.r#where.as_ref().map(words::place).filter(|p| !p.is_empty()) {
        let netns = verdict.r#where.as_ref().and_then(|p| p.netns.as_ref());
        let netns = netns.map_or_else(String::new, |n| format!(" (netns {n})"));
        detail(canvas, indent, "where", Tone::Plain, &(place + &netns));
    }
    if let Some(reason) = &verdict.kernel_reason {
        let text = format!("kernel drop reason {} ({})", reason.name, reason.code);
        detail(canvas, indent, "why", Tone::Plain, &text);
    }
    if let Some(cause) = &verdict.cause {
        let text = format!("{cause} ({})", words::confidence(verdict.confidence));
        detail(canvas, indent, "cause", Tone::Plain, &text);
    }
    if let Some(point) = &verdict.last_seen {
        let mut text = words::label_hook(point);
        if let Some(next) = &verdict.next_expected {
            text += &format!("; not seen at {}", words::label_hook(next));
        }
        detail(canvas, indent, "last seen", Tone::Plain, &text);
    }
    list(canvas, indent, "evidence", Tone::Plain, &verdict.evidence);
    fixes(canvas, verdict, indent);
}

/// Draws the way out.
pub(super) fn fixes(canvas: &mut Canvas, verdict: &Verdict, indent: usize) {
    list(canvas, indent, "fix", Tone::Good, &verdict.fix);
}

fn list(canvas: &mut Canvas, indent: usize, label: &str, tone: Tone, lines: &[String]) {
    for (i, line) in lines.iter().filter(|l| !l.is_empty()).enumerate() {
        detail(canvas, indent, if i == 0 { label } else { "" }, tone, line);
    }
}

/// Draws a labelled line.
pub(super) fn detail(canvas: &mut Canvas, indent: usize, label: &str, tone: Tone, text: &str) {
    let head = Line::new().plain(" ".repeat(indent)).cell(Tone::Dim, label, LABEL, false);
    canvas.paragraph(head, indent + LABEL, tone, text);
}

/// `3 delivered, 2 dropped` of the outcomes counted for a direction.
pub(super) fn outcomes(outcomes: &std::collections::BTreeMap<String, u64>) -> String {
    let parts: Vec<String> =
        outcomes.iter().filter(|(_, n)| **n > 0).map(|(name, n)| format!("{n} {name}")).collect();
    parts.join(", ")
}

/// `5 packets: 3 delivered, 2 dropped`.
pub(super) fn packets(n: u64, by_outcome: &std::collections::BTreeMap<String, u64>) -> String {
    let list = outcomes(by_outcome);
    let packets = count(n, "packet");
    if list.is_empty() { packets } else { format!("{packets}: {list}") }
}
