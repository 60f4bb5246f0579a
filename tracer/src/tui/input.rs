//! Keys. What a key does is told in [`super::view::help`], and nowhere else than here done.

use ratatui::crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tui_input::backend::crossterm::EventHandler;

use super::state::{Panel, State};
use super::{Command, Source};
use crate::export::Kind;
use crate::model::Direction;

/// Formats to export to: key, format, what it is for.
pub(super) const EXPORTS: [(char, Kind, &str); 7] = [
    ('h', Kind::Html, "HTML: a page of its own"),
    ('m', Kind::Markdown, "Markdown: for an issue"),
    ('p', Kind::Pcapng, "pcapng: packets for Wireshark"),
    ('j', Kind::Json, "JSON: the report, for programs"),
    ('l', Kind::Jsonl, "JSON lines: every sighting of a packet"),
    ('v', Kind::Svg, "SVG: the path as a picture"),
    ('f', Kind::Perfetto, "Perfetto: a timeline for ui.perfetto.dev"),
];

/// Columns by which text moves sideways.
const SIDEWAYS: usize = 8;

/// Changes the state as an event asks; what goes beyond the screen is returned.
pub(super) fn handle(state: &mut State, event: &Event) -> Option<Command> {
    let Event::Key(key) = event else { return None };
    if key.kind == KeyEventKind::Release {
        return None;
    }
    if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
        return Some(Command::Quit);
    }
    state.message = None;
    if std::mem::take(&mut state.choosing) {
        let chosen = EXPORTS.iter().find(|(c, ..)| key.code == KeyCode::Char(*c));
        return chosen.map(|(_, kind, _)| Command::Save(*kind));
    }
    if state.typing {
        match key.code {
            KeyCode::Enter => state.typing = false,
            KeyCode::Esc => {
                state.typing = false;
                state.filter.reset();
            }
            _ => {
                state.filter.handle_event(event);
            }
        }
        return None;
    }
    if state.help {
        state.help = false;
        return (key.code == KeyCode::Char('q')).then_some(Command::Quit);
    }
    if state.source == Source::Replay
        && let Some(command) = player(key)
    {
        return Some(command);
    }
    press(state, key)
}

fn player(key: &KeyEvent) -> Option<Command> {
    Some(match key.code {
        KeyCode::Char(' ') => Command::Play,
        KeyCode::Char('+' | '=') => Command::Faster(true),
        KeyCode::Char('-') => Command::Faster(false),
        KeyCode::Char('n' | '.') => Command::Step(true),
        KeyCode::Char('N' | ',') => Command::Step(false),
        KeyCode::Char(']') => Command::Scrub(true),
        KeyCode::Char('[') => Command::Scrub(false),
        KeyCode::Char('}') => Command::Jump(true),
        KeyCode::Char('{') => Command::Jump(false),
        _ => return None,
    })
}

fn press(state: &mut State, key: &KeyEvent) -> Option<Command> {
    let page = isize::try_from(state.page.max(2) - 1).unwrap_or(10);
    match key.code {
        KeyCode::Char('q') => return Some(Command::Quit),
        KeyCode::Char('?') => state.help = true,
        KeyCode::Char('p') if state.source == Source::Live => return Some(Command::Probe),
        KeyCode::Char('s') => return Some(Command::Save(Kind::Podtrace)),
        KeyCode::Char('e') => state.choosing = true,
        KeyCode::Char(' ') => state.freeze(),
        KeyCode::Char('r') => {
            state.direction = match state.direction {
                Direction::Forward => Direction::Reply,
                Direction::Reply => Direction::Forward,
            };
            state.scroll = (0, 0);
        }
        KeyCode::Char('/') => {
            state.show(Panel::Packets);
            state.typing = true;
        }
        KeyCode::Tab => state.show(state.panel.step(1)),
        KeyCode::BackTab => state.show(state.panel.step(Panel::ALL.len() - 1)),
        KeyCode::Char(c @ '1'..='5') => {
            state.show(Panel::ALL[c as usize - '1' as usize]);
        }
        KeyCode::Enter if state.panel == Panel::Packets && !state.detail => {
            return state.open().map(Command::Bytes);
        }
        KeyCode::Esc if state.detail => {
            state.detail = false;
            state.scroll = (0, 0);
        }
        KeyCode::Esc => {
            state.filter.reset();
            state.selected = None;
        }
        KeyCode::Up | KeyCode::Char('k') => go(state, -1),
        KeyCode::Down | KeyCode::Char('j') => go(state, 1),
        KeyCode::PageUp => go(state, -page),
        KeyCode::PageDown => go(state, page),
        KeyCode::Home | KeyCode::Char('g') => go(state, -100_000),
        KeyCode::End | KeyCode::Char('G') => go(state, 100_000),
        KeyCode::Left | KeyCode::Char('h') => {
            state.scroll.1 = state.scroll.1.saturating_sub(SIDEWAYS);
        }
        KeyCode::Right | KeyCode::Char('l') => {
            state.scroll.1 = (state.scroll.1 + SIDEWAYS).min(200);
        }
        _ => {}
    }
    None
}

/// Moves the selection of a list, or the text.
fn go(state: &mut State, by: isize) {
    match state.panel {
        Panel::Packets if !state.detail => state.select(by),
        Panel::Drops => {
            let last = state.model().drops.len().saturating_sub(1);
            state.group = state.group.saturating_add_signed(by).min(last);
        }
        _ => {
            let last = state.lines.saturating_sub(state.page);
            state.scroll.0 = state.scroll.0.saturating_add_signed(by).min(last);
        }
    }
}
