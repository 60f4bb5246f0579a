//! Packets: a list that follows the newest, and one of them whole.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Modifier;
use ratatui::text::{Line, Text};
use ratatui::widgets::Paragraph;

use super::{cell, show};
use crate::export::text::part;
use crate::model::{Direction, Outcome};
use crate::report::JourneyReport;
use crate::tui::Snapshot;
use crate::tui::state::State;
use crate::tui::style::{Tone, lines};

/// Columns of the outcome.
const OUTCOME: usize = 11;

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
    let summary = width.saturating_sub(6 + 3 + 2 + OUTCOME + 1 + 8 + 2).max(4);
    let text = match &journey.drop {
        Some(drop) => format!("{} [{}]", journey.summary, drop.reason.name),
        None => journey.summary.clone(),
    };
    Line::from(vec![
        look.span(Tone::Dim, cell(state, &look.clean(&journey.id), 6, true)),
        look.span(Tone::Node, format!(" {way} ")),
        look.span(tone, cell(state, mark, 2, false)),
        look.span(Tone::Plain, cell(state, &look.clean(&text), summary, false)),
        look.span(tone, format!(" {}", cell(state, outcome, OUTCOME, false))),
        look.span(Tone::Plain, cell(state, &total, 8, true)),
    ])
}

/// The selected packet: its way, headers and changes.
pub(super) fn detail(frame: &mut Frame<'_>, state: &mut State, snapshot: &Snapshot, area: Rect) {
    let packets = state.packets();
    let text = match state.position(&packets) {
        Some(at) => {
            let options = state.look.text(area.width.into());
            part::packet(&snapshot.report, packets[at], &options)
        }
        None => "the packet is gone".to_owned(),
    };
    let shown = lines(text.trim_start_matches('\n'));
    show(frame, state, area, shown);
}
