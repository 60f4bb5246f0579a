//! Drops: by place and reason, with rule and stack of the selected group.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Modifier;
use ratatui::text::{Line, Text};
use ratatui::widgets::{Paragraph, Wrap};

use super::cell;
use crate::export::text::part;
use crate::tui::model::DropGroup;
use crate::tui::state::State;
use crate::tui::style::Tone;

/// Columns of the course of a count.
const COURSE: usize = 16;

pub(super) fn draw(frame: &mut Frame<'_>, state: &mut State, area: Rect) {
    let look = state.look;
    let groups: Vec<&DropGroup> = state.model().drops.values().collect();
    if groups.is_empty() {
        frame.render_widget(Paragraph::new("no drop seen"), area);
        return;
    }
    let at = state.group.min(groups.len() - 1);
    let room = if area.height >= 6 { area.height / 2 } else { area.height };
    let list = u16::try_from(groups.len()).unwrap_or(u16::MAX).min(room.max(1));
    let [list, detail] =
        Layout::vertical([Constraint::Length(list), Constraint::Min(0)]).areas(area);
    let first = at.saturating_sub(usize::from(list.height).saturating_sub(1));
    let width = usize::from(area.width);
    let rows = groups.iter().enumerate().skip(first).take(list.height.into()).map(|(i, group)| {
        let line = row(state, group, width);
        if i == at { line.patch_style(Modifier::REVERSED) } else { line }
    });
    frame.render_widget(Paragraph::new(Text::from(rows.collect::<Vec<_>>())), list);

    let drop = &groups[at].last;
    let mut lines = vec![Line::default()];
    let mut told = |name: &str, text: &str| {
        lines.push(Line::from(vec![
            look.span(Tone::Dim, format!("{name:<8}")),
            look.span(Tone::Plain, look.clean(text)),
        ]));
    };
    told("place", &part::place(&drop.place));
    told("reason", &format!("{} ({})", drop.reason.name, drop.reason.code));
    if let Some(hook) = &drop.hook {
        told("hook", hook);
    }
    if let Some(rule) = &drop.rule {
        told("rule", rule);
    }
    told("last", &format!("{} s after the beginning", groups[at].last_s));
    told("stack", &drop.stack.join(" < "));
    frame.render_widget(Paragraph::new(Text::from(lines)).wrap(Wrap { trim: false }), detail);
    state.page = usize::from(list.height);
    state.group = at;
}

fn row(state: &State, group: &DropGroup, width: usize) -> Line<'static> {
    let look = state.look;
    let drop = &group.last;
    let place = part::short_place(&drop.place).unwrap_or_else(|| "somewhere".to_owned());
    let hook = drop.hook.as_ref().map_or_else(String::new, |h| format!(" {h}"));
    let text = format!("{} {place}{hook} in {}", drop.reason.name, drop.function);
    let course = if width >= 60 { COURSE } else { 0 };
    let room = width.saturating_sub(6 + 1 + 2 + 1 + course);
    Line::from(vec![
        look.span(Tone::Bad, format!("{} ", look.glyphs().bad)),
        look.span(Tone::Strong, cell(state, &group.count.to_string(), 6, true)),
        look.span(Tone::Plain, format!(" {}", cell(state, &look.clean(&text), room, false))),
        look.span(Tone::Warn, format!(" {}", look.spark(&group.course, course))),
    ])
}
