//! The backends of a service, a row each.

use super::canvas::{Canvas, Line, Tone};
use super::words;
use crate::report::{BackendReport, Report, Status};

/// Rows without `-v`: of a large service first those that fail.
const SOME: usize = 12;

/// Draws the table; nothing for less than two.
pub(super) fn draw(canvas: &mut Canvas, report: &Report) {
    if report.backends.len() < 2 {
        return;
    }
    let of = report.dst.service.as_deref().unwrap_or(&report.dst.name);
    canvas.title("BACKENDS", Tone::Plain, &format!("of service {of}"), "");
    let mut rows: Vec<&BackendReport> = report.backends.iter().collect();
    // Stable: those of a kind stay in the order of the rules.
    rows.sort_by_key(|row| rank(row.status));
    let shown = if canvas.verbose() { rows.len() } else { SOME };
    let width = rows.iter().take(shown).map(|row| row.address.chars().count()).max().unwrap_or(0);
    for row in rows.iter().take(shown) {
        let (mark, tone) = match row.status {
            Status::NoTraffic => (" ", Tone::Dim),
            status => words::mark(status, canvas.glyphs()),
        };
        let head = Line::new()
            .add(tone, format!("{mark} "))
            .cell(Tone::Plain, &canvas.clean(&row.address), width, false)
            .plain("  ");
        let name = match row.address.starts_with(&row.name) {
            true => String::new(),
            false => format!("{}: ", row.name),
        };
        canvas.paragraph(head, 4, Tone::Plain, &format!("{name}{}", fate(row)));
    }
    if let Some(more) = rows.len().checked_sub(shown).filter(|more| *more > 0) {
        let text = format!("{} {more} more (-v)", canvas.glyphs().ellipsis);
        canvas.paragraph(Line::new().plain("  "), 2, Tone::Dim, &text);
    }
}

fn rank(status: Status) -> u8 {
    match status {
        Status::Dropped | Status::Rejected | Status::Lost => 0,
        Status::Degraded => 1,
        Status::Inconclusive => 2,
        Status::Delivered => 3,
        Status::NoTraffic => 4,
    }
}

/// `3 sent, 3 delivered, 0 of 3 answered, 3 refused; socket.no-listener at B.b.eth0`.
pub(in crate::export) fn fate(row: &BackendReport) -> String {
    let nothing = row.sent == 0 && row.replied == 0 && row.attempts.is_none_or(|n| n == 0);
    if nothing {
        return "no packet to it was seen".to_owned();
    }
    let mut text = format!("{} sent, {} delivered", row.sent, row.delivered);
    match (row.attempts, row.answered) {
        (Some(attempts), Some(answered)) => text += &format!(", {answered} of {attempts} answered"),
        _ => text += &format!(", {} back", row.replied),
    }
    if let Some(refused) = row.refused.filter(|n| *n > 0) {
        text += &format!(", {refused} refused");
    }
    let place = row.r#where.as_ref().and_then(words::short_place);
    let cause = row.cause.clone();
    match (cause, place) {
        (Some(cause), Some(place)) => text += &format!("; {cause} at {place}"),
        (Some(cause), None) => text += &format!("; {cause}"),
        (None, Some(place)) => text += &format!("; at {place}"),
        (None, None) => {}
    }
    text
}
