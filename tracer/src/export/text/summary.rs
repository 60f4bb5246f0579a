//! Counts and latencies per hop, where there is more than one packet.

use unicode_width::UnicodeWidthStr;

use super::canvas::{Canvas, Line, Tone};
use super::units::{duration, within};
use super::verdict;
use super::words;
use crate::report::{DirectionReport, HopSummary, Latency, Report};

/// Narrowest that the names of places get.
const MIN_PLACE: usize = 14;

/// A column: title, how dear it is (the cheapest goes first when room is scarce), and its cells.
struct Column {
    title: &'static str,
    worth: u8,
    cells: Vec<(Tone, String)>,
}

impl Column {
    fn width(&self) -> usize {
        let cells = self.cells.iter().map(|(_, text)| text.width());
        cells.max().unwrap_or(0).max(self.title.width())
    }
}

/// Draws the table of a direction.
pub(super) fn draw(canvas: &mut Canvas, report: &Report, direction: &DirectionReport) {
    if direction.packets < 2 || direction.hops.is_empty() {
        return;
    }
    let text = format!(
        "{}, {}",
        direction.direction,
        verdict::packets(direction.packets, &direction.outcomes)
    );
    canvas.title("PER HOP", Tone::Plain, "", &text);

    let tcp = report.journeys.iter().flat_map(|j| &j.hops).any(|h| h.inner.proto == "tcp");
    let mut columns = columns(canvas, &direction.hops, tcp);
    let places: Vec<String> =
        direction.hops.iter().map(|h| canvas.clean(&words::label(&h.point))).collect();
    let place = places.iter().map(|p| p.width()).max().unwrap_or(0).max(MIN_PLACE);
    let fixed = 4 + 2 + 1 + 3;
    let total = |columns: &[Column]| columns.iter().map(|c| c.width() + 2).sum::<usize>();
    while fixed + place.min(24) + total(&columns) > canvas.width() {
        let cheapest = columns.iter().enumerate().min_by_key(|(_, c)| c.worth).map(|(i, _)| i);
        let Some(cheapest) = cheapest.filter(|_| columns.len() > 1) else { break };
        columns.remove(cheapest);
    }
    let place = place.min(canvas.width().saturating_sub(fixed + total(&columns)).max(MIN_PLACE));

    let head = Line::new().cell(Tone::Dim, "#", 4, true).plain("  ");
    let head = head.cell(Tone::Dim, "where", place + 4, false);
    canvas.line(
        columns
            .iter()
            .fold(head, |line, c| line.plain("  ").cell(Tone::Dim, c.title, c.width(), true)),
    );
    let mut number = 0;
    for (i, (hop, label)) in direction.hops.iter().zip(&places).enumerate() {
        number += usize::from(hop.expected);
        let mark = if hop.expected { number.to_string() } else { canvas.glyphs().warn.to_owned() };
        let tone = match (hop.packets, hop.expected) {
            (_, false) => Tone::Warn,
            (0, _) => Tone::Dim,
            _ => Tone::Plain,
        };
        let line = Line::new()
            .cell(tone, &mark, 4, true)
            .plain("  ")
            .cell(tone, &canvas.shorten(label, place), place, false)
            .plain(" ")
            .cell(tone, words::hook(hop.point.hook), 3, false);
        canvas.line(columns.iter().fold(line, |line, column| match column.cells.get(i) {
            Some((tone, text)) => line.plain("  ").cell(*tone, text, column.width(), true),
            None => line,
        }));
    }
    if direction.hops.iter().any(|h| !h.expected) {
        let text = format!("{} not on the planned path", canvas.glyphs().warn);
        canvas.line(Line::new().plain("   ").add(Tone::Warn, text));
    }
}

fn columns(canvas: &Canvas, hops: &[HopSummary], tcp: bool) -> Vec<Column> {
    let column = |title, worth, cell: &dyn Fn(&HopSummary) -> (Tone, String)| Column {
        title,
        worth,
        cells: hops.iter().map(cell).collect(),
    };
    let number = |n: u64, tone: Tone| {
        if n == 0 { (Tone::Dim, "0".to_owned()) } else { (tone, n.to_string()) }
    };
    let mut columns = vec![
        column("packets", 9, &|h| number(h.packets, Tone::Plain)),
        column("lost", 8, &|h| number(h.lost, Tone::Bad)),
    ];
    let split = hops.iter().any(|h| h.skbs != h.packets);
    if split {
        columns.push(column("skbs", 3, &|h| number(h.skbs, Tone::Plain)));
    }
    if (tcp || split) && hops.iter().any(|h| h.bytes > 0) {
        columns.push(column("bytes", 7, &|h| number(h.bytes, Tone::Plain)));
    }
    if hops.iter().any(|h| h.repeated_bytes > 0) {
        columns.push(column("again", 4, &|h| number(h.repeated_bytes, Tone::Warn)));
    }
    let latency = |pick: fn(&Latency) -> u64| {
        move |h: &HopSummary| {
            let text = h.latency.as_ref().map(|l| duration(pick(l), canvas.glyphs()));
            (Tone::Plain, text.unwrap_or_default())
        }
    };
    if hops.iter().any(|h| h.latency.is_some()) {
        columns.push(column("min", 1, &latency(|l| l.min_ns)));
        columns.push(column("median", 5, &latency(|l| l.median_ns)));
        columns.push(column("max", 2, &latency(|l| l.max_ns)));
        let error = |h: &HopSummary| h.latency.and_then(|l| within(l.error_ns, canvas.glyphs()));
        if hops.iter().any(|h| error(h).is_some()) {
            columns.push(column("exact to", 6, &|h| (Tone::Dim, error(h).unwrap_or_default())));
        }
    }
    columns
}
