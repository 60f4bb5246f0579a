//! The help: every key that does something, and no other.

use ratatui::text::{Line, Span};

use crate::tui::input::EXPORTS;
use crate::tui::style::Tone;
use crate::tui::{Look, Source};

const KEYS: [(&str, &str); 11] = [
    ("Tab 1-5", "panel"),
    ("up/down k/j", "select, or scroll; PgUp PgDn g G further"),
    ("left/right h/l", "sideways"),
    ("Enter", "the selected packet whole, to its bytes; Esc back"),
    ("/", "show packets with all these words, --proto P, --port N"),
    ("Esc", "drop filter and selection"),
    ("r", "reverse direction"),
    ("s", "save a recording, for podtrace replay"),
    ("e", "export: HTML, Markdown, pcapng, JSON, ..."),
    ("?", "this help"),
    ("q Ctrl-C", "quit; the report is printed"),
];

const LIVE: [(&str, &str); 2] = [
    ("space", "freeze the view; the capture goes on"),
    ("p", "start a probe from the source pod, or stop it"),
];

const REPLAY: [(&str, &str); 5] = [
    ("space", "play, pause"),
    ("+ -", "faster, slower"),
    ("n N", "to the next packet, the one before"),
    ("] [", "forward, back by a twentieth"),
    ("} {", "to the end, the beginning"),
];

pub(super) fn lines(look: Look, source: Source) -> Vec<Line<'static>> {
    let own: &[(&str, &str)] = match source {
        Source::Live => &LIVE,
        Source::Replay => &REPLAY,
    };
    let rows = own.iter().chain(&KEYS);
    let mut lines: Vec<Line<'static>> = rows
        .map(|(key, text)| {
            Line::from(vec![look.span(Tone::Strong, format!("{key:<15}")), Span::raw(*text)])
        })
        .collect();
    lines.push(Line::default());
    lines.push(Line::from("All but Drops shows the last 10 seconds; the report at the end, all."));
    lines
}

/// What can be chosen of the formats.
pub(super) fn exports(look: Look) -> Vec<Line<'static>> {
    let row = |(key, _, text): (char, _, &'static str)| {
        Line::from(vec![look.span(Tone::Strong, format!("{key:<4}")), Span::raw(text)])
    };
    let mut lines = vec![Line::from("Write what was seen so far to a file, as")];
    lines.extend(EXPORTS.map(row));
    lines.push(Line::from("Any other key: nothing"));
    lines
}
