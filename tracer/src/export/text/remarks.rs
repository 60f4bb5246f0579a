//! All else that was seen, or not: further findings, address resolutions without answer, ICMP
//! errors, repeated packets, notes, and always what the observation missed.

use super::canvas::{Canvas, Line, Tone};
use super::units::{count, duration, within};
use super::verdict;
use super::words;
use crate::model::Loss;
use crate::report::{ClockMethod, Confidence, IcmpReport, Report, ResolutionReport, Verdict};

/// Remarks of a kind that are listed without `-v`.
const SOME: usize = 5;

/// Draws the remarks.
pub(super) fn draw(canvas: &mut Canvas, report: &Report) {
    if !report.findings.is_empty() {
        canvas.title("ALSO FOUND", Tone::Plain, "", "");
        report.findings.iter().for_each(|f| finding(canvas, f));
    }
    canvas.blank();
    let unanswered: Vec<String> =
        report.resolutions.iter().filter(|r| r.answer.is_none()).map(unanswered).collect();
    list(canvas, Tone::Warn, &unanswered);
    let errors: Vec<String> = report.icmp_errors.iter().map(|e| icmp_error(canvas, e)).collect();
    list(canvas, Tone::Warn, &errors);
    repeated(canvas, report);
    let verbose = canvas.verbose();
    for clock in report.clock.iter().filter(|c| verbose || c.method != ClockMethod::SameClock) {
        let glyphs = canvas.glyphs();
        let sign = if clock.offset_ns < 0 { "-" } else { "+" };
        let offset = duration(clock.offset_ns.unsigned_abs(), glyphs);
        let mut text = format!("clock of {}: {sign}{offset}", clock.node);
        if let Some(error) = within(clock.error_ns, glyphs) {
            text.push_str(&format!(" {error}"));
        }
        text.push_str(match clock.method {
            ClockMethod::SameClock => "",
            ClockMethod::Packets => ", from packets",
            ClockMethod::RoundTrips => ", from answers of the node",
            ClockMethod::PacketsAndRoundTrips => ", from packets and answers of the node",
            ClockMethod::None => ", from nothing",
        });
        if let Some(drift) = clock.drift_ppm {
            text.push_str(&format!(", {drift:+} ppm"));
        }
        if clock.steps > 0 {
            text.push_str(&format!(", was set or stood still {}", count(clock.steps, "time")));
        }
        remark(canvas, Tone::Plain, "", &text);
    }
    report.notes.iter().for_each(|note| remark(canvas, Tone::Plain, "note: ", note));
    if report.journeys_omitted > 0 {
        let text = format!("{} counted, not kept singly", count(report.journeys_omitted, "packet"));
        remark(canvas, Tone::Plain, "note: ", &text);
    }
    losses(canvas, report);
}

fn finding(canvas: &mut Canvas, finding: &Verdict) {
    let tone = if finding.confidence == Confidence::Possible { Tone::Plain } else { Tone::Warn };
    let mark = canvas.glyphs().warn;
    let head = Line::new().add(tone, mark).plain(" ");
    canvas.paragraph(head, 2, tone, &finding.summary);
    if canvas.verbose() {
        verdict::details(canvas, finding, 2);
    } else {
        let place = finding.r#where.as_ref().and_then(words::short_place);
        let parts =
            [finding.cause.clone(), place, Some(words::confidence(finding.confidence).into())];
        let text = parts.into_iter().flatten().collect::<Vec<_>>().join(", ");
        canvas.paragraph(Line::new().plain("  "), 2, Tone::Dim, &text);
        verdict::fixes(canvas, finding, 2);
    }
}

fn unanswered(resolution: &ResolutionReport) -> String {
    let ResolutionReport { at, asker, target, requests, .. } = resolution;
    let at = at.as_ref().map_or_else(String::new, |at| format!(" at {}", words::label_hook(at)));
    let times = if *requests == 1 { "once".to_owned() } else { format!("{requests} times") };
    format!("nobody answered who has {target} (asked {times} by {asker}{at})")
}

fn icmp_error(canvas: &Canvas, error: &IcmpReport) -> String {
    let name = error.from_name.as_ref().map_or_else(String::new, |n| format!(" {n}"));
    let at = error
        .at
        .as_ref()
        .map_or_else(String::new, |at| format!(", seen at {}", words::label_hook(at)));
    let about = error.about.as_ref().map_or_else(String::new, |id| format!(", about packet {id}"));
    let arrow = canvas.glyphs().arrow;
    format!(
        "ICMP {}/{} {}: {}{name} {arrow} {}{at}{about}",
        error.r#type, error.code, error.text, error.from, error.to
    )
}

fn repeated(canvas: &mut Canvas, report: &Report) {
    let packets = &report.packets;
    let mut parts = Vec::new();
    if packets.retransmitted > 0 {
        parts.push(format!("{} retransmitted", count(packets.retransmitted, "packet")));
    }
    if packets.duplicated > 0 {
        parts.push(format!("{} duplicated", count(packets.duplicated, "packet")));
    }
    if !parts.is_empty() {
        remark(canvas, Tone::Warn, canvas.glyphs().warn, &format!(" {}", parts.join(", ")));
    }
}

/// Says what the observation missed, even when that is nothing: all else rests on it.
fn losses(canvas: &mut Canvas, report: &Report) {
    let loss = &report.loss;
    if loss.events_lost == 0 {
        return remark(canvas, Tone::Good, "observation: ", "nothing lost");
    }
    let nodes: Vec<String> =
        loss.by_node.iter().filter(|(_, l)| l.total() > 0).map(|(n, l)| causes(n, l)).collect();
    let text = format!(
        "{} LOST{}; packets may have been missed",
        count(loss.events_lost, "event"),
        if nodes.is_empty() { String::new() } else { format!(" ({})", nodes.join("; ")) }
    );
    remark(canvas, Tone::Bad, "observation: ", &text);
}

fn causes(node: &str, loss: &Loss) -> String {
    format!("{node}: {}", parts(loss))
}

/// What was lost at a node: `3 undecodable, 1 events, backlog full`.
pub(in crate::export) fn parts(loss: &Loss) -> String {
    let parts = [
        (loss.ring_hop, "hop events, ring buffer full"),
        (loss.ring_drop, "drop events, ring buffer full"),
        (loss.backlog, "events, backlog full"),
        (loss.undecodable, "undecodable"),
        (loss.over_rate, "events, more in a second than the node hands out"),
        (loss.late, "events, too late to be put in order"),
        (loss.stray, "drops of no packet followed, only counted"),
    ];
    let parts: Vec<String> =
        parts.into_iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
    parts.join(", ")
}

fn list(canvas: &mut Canvas, tone: Tone, lines: &[String]) {
    let shown = if canvas.verbose() { lines.len() } else { SOME };
    let mark = canvas.glyphs().warn;
    lines.iter().take(shown).for_each(|line| remark(canvas, tone, mark, &format!(" {line}")));
    if let Some(more) = lines.len().checked_sub(shown).filter(|more| *more > 0) {
        let text = format!("{} {more} more like this", canvas.glyphs().ellipsis);
        remark(canvas, Tone::Dim, "  ", &text);
    }
}

fn remark(canvas: &mut Canvas, tone: Tone, head: &str, text: &str) {
    // The space behind a mark is part of the head, as wrapping drops leading spaces.
    let (space, text) = text.strip_prefix(' ').map_or(("", text), |rest| (" ", rest));
    canvas.paragraph(Line::new().add(tone, format!("{head}{space}")), 2, tone, text);
}
