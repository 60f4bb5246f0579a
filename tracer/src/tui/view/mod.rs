//! Screens. Pure: from state to a frame.

mod bytes;
mod drops;
mod help;
mod packets;
mod path;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Modifier;
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Clear, Paragraph};
use unicode_width::UnicodeWidthStr;

use super::state::{Panel, State};
use super::style::{Tone, lines};
use super::{Snapshot, Source};
use crate::export::text::part;

/// From this height on there are a head line, tabs and a foot line.
const ROOMY: u16 = 9;

/// Draws the whole screen.
pub(super) fn draw(frame: &mut Frame<'_>, state: &mut State) {
    let area = frame.area();
    let bar = u16::from(area.height >= ROOMY);
    let rows = Layout::vertical([
        Constraint::Length(bar),
        Constraint::Length(bar),
        Constraint::Min(0),
        Constraint::Length(1),
        Constraint::Length(bar),
    ]);
    let [head, tabs, body, verdict, foot] = rows.areas(area);
    frame.render_widget(Clear, area);
    frame.render_widget(head_line(state), head);
    frame.render_widget(tab_line(state), tabs);
    frame.render_widget(verdict_line(state), verdict);
    frame.render_widget(foot_line(state), foot);
    if (state.typing || state.message.is_some()) && bar == 0 {
        frame.render_widget(foot_line(state), verdict);
    }
    if state.help {
        return show(frame, state, body, help::lines(state.look, state.source));
    }
    if state.choosing {
        return show(frame, state, body, help::exports(state.look));
    }
    let Some(snapshot) = state.model().snapshot.clone() else {
        return show(frame, state, body, vec![Line::from("waiting for the first look …")]);
    };
    let look = state.look;
    match state.panel {
        Panel::Path => path::draw(frame, state, &snapshot, body),
        Panel::Packets if state.detail => packets::detail(frame, state, &snapshot, body),
        Panel::Packets => packets::draw(frame, state, body),
        Panel::Drops => drops::draw(frame, state, body),
        Panel::Verdict => {
            let text = part::verdict(&snapshot.report, &look.text(body.width.into()));
            let mut shown = lines(&text);
            for notice in &snapshot.notices {
                shown.push(Line::from(look.span(Tone::Warn, look.clean(notice))));
            }
            show(frame, state, body, shown);
        }
        Panel::Facts => {
            let options = look.text(body.width.into());
            let text = part::expected(&snapshot.report, state.direction, &options);
            let mut shown = lines(text.trim_start_matches('\n'));
            if shown.is_empty() {
                shown.push(Line::from("the tables of the nodes were not read"));
            }
            show(frame, state, body, shown);
        }
    }
}

/// Shows text from where it is scrolled to.
fn show(frame: &mut Frame<'_>, state: &mut State, area: Rect, text: Vec<Line<'static>>) {
    state.page = usize::from(area.height);
    state.lines = text.len();
    state.scroll.0 = state.scroll.0.min(text.len().saturating_sub(state.page));
    let small = |n: usize| u16::try_from(n).unwrap_or(u16::MAX);
    let scroll = (small(state.scroll.0), small(state.scroll.1));
    frame.render_widget(Paragraph::new(Text::from(text)).scroll(scroll), area);
}

/// What is traced, for how long, and how many packets.
fn head_line(state: &State) -> Line<'static> {
    let look = state.look;
    let Some(snapshot) = &state.model().snapshot else {
        return Line::from(look.span(Tone::Strong, "podtrace"));
    };
    let report = &snapshot.report;
    let arrow = look.glyphs().arrow;
    let ends = format!("{} {arrow} {}", report.src.name, report.dst.title());
    let totals = &snapshot.totals;
    let probe = totals.sent.map_or_else(String::new, |n| format!("probe {n}, "));
    Line::from(vec![
        look.span(Tone::Strong, format!("{} ", look.clean(&ends))),
        look.span(Tone::Node, clock(state, snapshot)),
        Span::raw(format!(
            "  {probe}{} sent, {} delivered, {} replied",
            totals.seen, totals.arrived, totals.replied
        )),
    ])
}

/// Where the time stands.
fn clock(state: &State, snapshot: &Snapshot) -> String {
    let elapsed = snapshot.elapsed.as_secs_f64();
    let Some(player) = &snapshot.player else {
        let state = if state.is_frozen() { "FROZEN" } else { "live" };
        return format!("{state} {elapsed:.0}s");
    };
    /// Columns of the time bar.
    const BAR: usize = 12;
    let length = player.length.as_secs_f64().max(1e-9);
    let done = ((elapsed / length * BAR as f64) as usize).min(BAR);
    let (on, off) = if state.look.unicode { ("━", "─") } else { ("#", "-") };
    let how = match (player.playing, elapsed >= length) {
        (_, true) => "end".to_owned(),
        (true, _) => format!("play x{}", player.speed),
        (false, _) => format!("pause x{}", player.speed),
    };
    format!("{how} {}{} {elapsed:.2}/{length:.2}s", on.repeat(done), off.repeat(BAR - done))
}

fn tab_line(state: &State) -> Line<'static> {
    let look = state.look;
    let mut spans = Vec::new();
    for (i, panel) in Panel::ALL.into_iter().enumerate() {
        let text = format!(" {} {} ", i + 1, panel.title());
        let style = look.style(if panel == state.panel { Tone::Strong } else { Tone::Dim });
        // Seen without colour, too.
        let style =
            if panel == state.panel { style.add_modifier(Modifier::REVERSED) } else { style };
        spans.push(Span::styled(text, style));
        spans.push(Span::raw(" "));
    }
    spans.push(look.span(Tone::Node, state.direction.to_string()));
    Line::from(spans)
}

/// The verdict on the last seconds, always.
fn verdict_line(state: &State) -> Line<'static> {
    let look = state.look;
    let Some(snapshot) = &state.model().snapshot else { return Line::default() };
    let verdict = &snapshot.report.verdict;
    let (mark, tone) = look.mark(verdict.status);
    let cause = verdict.cause.as_ref().map_or_else(String::new, |c| format!(" {}", look.clean(c)));
    Line::from(vec![
        look.span(tone, format!("{mark} {}{cause}", part::status(verdict.status))),
        Span::raw(format!("  {}", look.clean(&verdict.summary))),
    ])
}

fn foot_line(state: &State) -> Line<'static> {
    let look = state.look;
    if let Some(message) = &state.message {
        return Line::from(look.span(Tone::Strong, look.clean(message)));
    }
    if state.typing || !state.filter.value().is_empty() {
        let cursor = if state.typing { "_" } else { "" };
        let hint = if state.typing { "  Enter keeps it, Esc drops it" } else { "  Esc drops it" };
        return Line::from(vec![
            look.span(Tone::Strong, format!("/{}{cursor}", look.clean(state.filter.value()))),
            look.span(Tone::Dim, hint),
        ]);
    }
    let keys = match state.source {
        Source::Live => "q quit  ? help  Tab panel  space freeze  r reverse  / filter",
        Source::Replay => "q quit  ? help  Tab panel  space play  n/N step  [ ] scrub  +/- speed",
    };
    Line::from(look.span(Tone::Dim, keys))
}

/// `text` in exactly `width` columns; numbers stand right.
fn cell(state: &State, text: &str, width: usize, right: bool) -> String {
    let mut text = text.to_owned();
    if text.width() > width {
        let ellipsis = state.look.glyphs().ellipsis;
        while text.width() + ellipsis.width() > width && text.pop().is_some() {}
        if width > 0 {
            text += ellipsis;
        }
    }
    let pad = " ".repeat(width.saturating_sub(text.width()));
    if right { pad + &text } else { text + &pad }
}
