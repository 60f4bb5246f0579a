//! Packets: a list that follows the newest, and one of them whole.

use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Modifier;
use ratatui::text::{Line, Text};
use ratatui::widgets::Paragraph;

use super::{bytes, cell, show};
use crate::export::text::part;
use crate::model::{Direction, Outcome};
use crate::report::JourneyReport;
use crate::tui::Snapshot;
use crate::tui::state::State;
use crate::tui::style::{Tone, lines};

/// Columns of the outcome.
const OUTCOME: usize = 11;
/// Columns of the number and of the time, and from how many columns of screen on there is room for the
/// time, and for both.
const ID: usize = 6;
const TIME: usize = 9;
const ROOM_FOR_TIME: usize = 60;
const ROOM_FOR_BOTH: usize = 90;

pub(super) fn draw(frame: &mut Frame<'_>, state: &mut State, area: Rect) {
    let height = usize::from(area.height);
    state.page = height;
    let packets = state.packets();
    let Some(at) = state.position(&packets) else {
        let text = if state.model().packets.is_empty() {
            "no packet seen"
        } else {
            "none passes the filter"
        };
        frame.render_widget(Paragraph::new(text), area);
        return;
    };
    let first = if at + 1 == packets.len() {
        packets.len().saturating_sub(height)
    } else {
        at.saturating_sub(height / 2).min(packets.len().saturating_sub(height))
    };
    let rows = packets.iter().enumerate().skip(first).take(height).map(|(i, journey)| {
        let line = row(state, journey, usize::from(area.width));
        if i == at { line.patch_style(Modifier::REVERSED) } else { line }
    });
    frame.render_widget(Paragraph::new(Text::from(rows.collect::<Vec<_>>())), area);
}

fn row(state: &State, journey: &JourneyReport, width: usize) -> Line<'static> {
    let look = state.look;
    let glyphs = look.glyphs();
    let (mark, tone) = match journey.outcome {
        Outcome::Delivered => (glyphs.ok, Tone::Good),
        Outcome::Dropped | Outcome::Rejected | Outcome::Lost => (glyphs.bad, Tone::Bad),
        Outcome::Partial => (glyphs.warn, Tone::Warn),
        Outcome::InFlight | Outcome::Incomplete | Outcome::Elsewhere => (glyphs.unseen, Tone::Dim),
    };
    let outcome = match journey.outcome {
        Outcome::Delivered => "delivered",
        Outcome::Dropped => "dropped",
        Outcome::Rejected => "rejected",
        Outcome::Lost => "lost",
        Outcome::Partial => "partial",
        Outcome::InFlight => "under way",
        Outcome::Incomplete => "incomplete",
        Outcome::Elsewhere => "elsewhere",
    };
    let way = match journey.direction {
        Direction::Forward => ">",
        Direction::Reply => "<",
    };
    let total = journey.hops.last().map_or(0, |h| h.time_ns);
    let total = part::duration(total, &look.text(80));
    let mut start = String::new();
    if !(ROOM_FOR_TIME..ROOM_FOR_BOTH).contains(&width) {
        start += &cell(state, &look.clean(&journey.id), ID, true);
    }
    if width >= ROOM_FOR_TIME {
        let seconds = Duration::from_nanos(journey.start_ns).as_secs_f64();
        start += &cell(state, &format!("{seconds:.3}"), TIME, true);
    }
    let summary = width.saturating_sub(start.len() + 3 + 2 + OUTCOME + 1 + 8 + 2).max(4);
    let text = match &journey.drop {
        Some(drop) => format!("{} [{}]", journey.summary, drop.reason.name),
        None => journey.summary.clone(),
    };
    Line::from(vec![
        look.span(Tone::Dim, start),
        look.span(Tone::Node, format!(" {way} ")),
        look.span(tone, cell(state, mark, 2, false)),
        look.span(Tone::Plain, cell(state, &look.clean(&text), summary, false)),
        look.span(tone, format!(" {}", cell(state, outcome, OUTCOME, false))),
        look.span(Tone::Plain, cell(state, &total, 8, true)),
    ])
}

/// The selected packet: its way, headers and changes, and its bytes.
pub(super) fn detail(frame: &mut Frame<'_>, state: &mut State, snapshot: &Snapshot, area: Rect) {
    let packets = state.packets();
    let shown = match state.position(&packets).map(|at| packets[at]) {
        Some(packet) => {
            let options = state.look.text(area.width.into());
            let text = part::packet(&snapshot.report, packet, &options);
            let mut shown = lines(text.trim_start_matches('\n'));
            shown.extend(bytes::lines(state, packet, area.width.into()));
            shown
        }
        None => vec![Line::from("the packet is gone")],
    };
    show(frame, state, area, shown);
}
