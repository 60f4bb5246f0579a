//! Colours and characters: what a piece of text means, and how that looks.

use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};

use super::Look;
use crate::export::TextOptions;
use crate::report::Status;

/// What a piece of text means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Strong,
    Dim,
    Good,
    Bad,
    Warn,
    Node,
}

/// Characters that drawings are made of. Each says its meaning without colour.
#[derive(Debug)]
pub(super) struct Glyphs {
    pub ok: &'static str,
    pub bad: &'static str,
    pub warn: &'static str,
    pub unseen: &'static str,
    pub arrow: &'static str,
    pub rule: &'static str,
    pub tunnel: &'static str,
    pub ellipsis: &'static str,
    /// From little to much.
    pub bars: [&'static str; 8],
}

const UNICODE: Glyphs = Glyphs {
    ok: "✓",
    bad: "✗",
    warn: "!",
    unseen: "·",
    arrow: "→",
    rule: "─",
    tunnel: "═",
    ellipsis: "…",
    bars: ["▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"],
};

const ASCII: Glyphs = Glyphs {
    ok: "+",
    bad: "X",
    warn: "!",
    unseen: ".",
    arrow: "->",
    rule: "-",
    tunnel: "=",
    ellipsis: "~",
    bars: ["_", ".", ":", "-", "=", "+", "*", "#"],
};

impl Look {
    pub(super) fn glyphs(self) -> &'static Glyphs {
        if self.unicode { &UNICODE } else { &ASCII }
    }

    /// Without colour, weight and marks have to do.
    pub(super) fn style(self, tone: Tone) -> Style {
        let bold = Style::new().add_modifier(Modifier::BOLD);
        let colored = |style: Style, color| if self.color { style.fg(color) } else { style };
        match tone {
            Tone::Plain => Style::new(),
            Tone::Strong => bold,
            Tone::Dim => Style::new().add_modifier(Modifier::DIM),
            Tone::Good => colored(bold, Color::Green),
            Tone::Bad => colored(bold, Color::Red),
            Tone::Warn => colored(Style::new(), Color::Yellow),
            Tone::Node => colored(bold, Color::Cyan),
        }
    }

    /// Text that is shown as it is.
    pub(super) fn span(self, tone: Tone, text: impl Into<String>) -> Span<'static> {
        Span::styled(text.into(), self.style(tone))
    }

    /// Text from outside.
    pub(super) fn clean(self, text: &str) -> String {
        crate::export::text::part::clean(text, &self.text(80))
    }

    /// For the renderers of the report.
    pub(super) fn text(self, width: usize) -> TextOptions {
        TextOptions { color: self.color, width, verbose: true, unicode: self.unicode }
    }

    pub(super) fn mark(self, status: Status) -> (&'static str, Tone) {
        let glyphs = self.glyphs();
        match status {
            Status::Delivered => (glyphs.ok, Tone::Good),
            Status::Dropped | Status::Rejected | Status::Lost => (glyphs.bad, Tone::Bad),
            Status::Degraded => (glyphs.warn, Tone::Warn),
            Status::NoTraffic | Status::Inconclusive => ("?", Tone::Warn),
        }
    }

    /// A series as bars, its newest values last, `width` columns wide.
    pub(super) fn spark(self, values: &[u64], width: usize) -> String {
        let bars = self.glyphs().bars;
        let newest = &values[values.len().saturating_sub(width)..];
        let most = newest.iter().copied().max().unwrap_or(0).max(1);
        let bar = |v: &u64| bars[usize::try_from((v * 7).div_ceil(most)).unwrap_or(7).min(7)];
        newest.iter().map(bar).collect()
    }
}

/// Text with the colours of [`crate::export::text`] as lines of a screen.
pub(super) fn lines(text: &str) -> Vec<Line<'static>> {
    text.lines().map(line).collect()
}

fn line(text: &str) -> Line<'static> {
    let mut spans = Vec::new();
    let mut style = Style::new();
    for (i, part) in text.split("\x1b[").enumerate() {
        let part = match part.split_once('m') {
            Some((codes, rest)) if i > 0 => {
                style = codes.split(';').fold(style, sgr);
                rest
            }
            _ => part,
        };
        if !part.is_empty() {
            spans.push(Span::styled(part.to_owned(), style));
        }
    }
    Line::from(spans)
}

/// ECMA-48 section 8.3.117: what the text renderer uses of it.
fn sgr(style: Style, code: &str) -> Style {
    match code {
        "0" => Style::new(),
        "1" => style.add_modifier(Modifier::BOLD),
        "2" => style.add_modifier(Modifier::DIM),
        "31" => style.fg(Color::Red),
        "32" => style.fg(Color::Green),
        "33" => style.fg(Color::Yellow),
        "36" => style.fg(Color::Cyan),
        _ => style,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_of_text_become_styles() {
        let line = line("a \x1b[1;31mbad\x1b[0m b");
        let texts: Vec<_> = line.spans.iter().map(|s| s.content.as_ref()).collect();
        assert_eq!(texts, ["a ", "bad", " b"]);
        assert_eq!(line.spans[1].style.fg, Some(Color::Red));
        assert_eq!(line.spans[2].style, Style::new());
    }

    #[test]
    fn a_series_shows_its_newest_values() {
        let look = Look { color: false, unicode: true };
        assert_eq!(look.spark(&[9, 0, 1, 7], 3), "▁▂█");
        assert_eq!(look.spark(&[], 3), "");
        assert_eq!(look.spark(&[0, 0], 3), "▁▁");
    }
}
