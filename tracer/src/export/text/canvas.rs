//! Lines of styled text within a width: measuring, padding, wrapping, shortening, escaping.

use std::fmt::Write as _;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::{MIN_WIDTH, TextOptions};

/// What a piece of text means; colour follows from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Tone {
    #[default]
    Plain,
    /// Titles.
    Strong,
    /// Of less interest.
    Dim,
    Good,
    Bad,
    Warn,
    /// Names of nodes.
    Node,
}

impl Tone {
    /// SGR parameters (ECMA-48 section 8.3.117).
    fn sgr(self) -> Option<&'static str> {
        match self {
            Tone::Plain => None,
            Tone::Strong => Some("1"),
            Tone::Dim => Some("2"),
            Tone::Good => Some("1;32"),
            Tone::Bad => Some("1;31"),
            Tone::Warn => Some("33"),
            Tone::Node => Some("1;36"),
        }
    }
}

/// The characters that drawings are made of.
#[derive(Debug)]
pub(super) struct Glyphs {
    pub(super) ok: &'static str,
    pub(super) bad: &'static str,
    pub(super) warn: &'static str,
    pub(super) unclear: &'static str,
    pub(super) arrow: &'static str,
    pub(super) ellipsis: &'static str,
    pub(super) dash: &'static str,
    pub(super) rule: &'static str,
    pub(super) unseen: &'static str,
    pub(super) micro: &'static str,
    pub(super) plus_minus: &'static str,
    pub(super) times: &'static str,
    /// Frame of the outer layers: first, middle, last.
    pub(super) outer: [&'static str; 3],
    /// Frame of the inner layers.
    pub(super) inner: [&'static str; 3],
}

const UNICODE: Glyphs = Glyphs {
    ok: "✓",
    bad: "✗",
    warn: "!",
    unclear: "?",
    arrow: "→",
    ellipsis: "…",
    dash: "–",
    rule: "─",
    unseen: "·",
    micro: "µ",
    plus_minus: "±",
    times: "×",
    outer: ["┏", "┃", "┗"],
    inner: ["┌", "│", "└"],
};

const ASCII: Glyphs = Glyphs {
    ok: "[ok]",
    bad: "[X]",
    warn: "!",
    unclear: "[?]",
    arrow: "->",
    ellipsis: "...",
    dash: "-",
    rule: "-",
    unseen: ".",
    micro: "u",
    plus_minus: "+-",
    times: "x",
    outer: ["#", "#", "#"],
    inner: ["|", "|", "|"],
};

/// A line in the making.
#[derive(Clone, Debug, Default)]
pub(super) struct Line(Vec<(Tone, String)>);

impl Line {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Appends text.
    pub(super) fn add(mut self, tone: Tone, text: impl Into<String>) -> Self {
        self.0.push((tone, text.into()));
        self
    }

    /// Appends text without style.
    pub(super) fn plain(self, text: impl Into<String>) -> Self {
        self.add(Tone::Plain, text)
    }

    /// Appends `text`, which then takes `width` columns if it is shorter; numbers stand right.
    pub(super) fn cell(self, tone: Tone, text: &str, width: usize, right: bool) -> Self {
        let pad = " ".repeat(width.saturating_sub(text.width()));
        if right { self.plain(pad).add(tone, text) } else { self.add(tone, text).plain(pad) }
    }

    /// Appends another line's text.
    pub(super) fn append(mut self, other: Line) -> Self {
        self.0.extend(other.0);
        self
    }

    /// Columns taken so far.
    pub(super) fn width(&self) -> usize {
        self.0.iter().map(|(_, text)| text.width()).sum()
    }
}

/// Where text is drawn.
#[derive(Debug)]
pub(super) struct Canvas {
    options: TextOptions,
    out: String,
}

impl Canvas {
    pub(super) fn new(options: &TextOptions) -> Self {
        let options = TextOptions { width: options.width.max(MIN_WIDTH), ..*options };
        Self { options, out: String::new() }
    }

    pub(super) fn width(&self) -> usize {
        self.options.width
    }

    pub(super) fn verbose(&self) -> bool {
        self.options.verbose
    }

    pub(super) fn glyphs(&self) -> &'static Glyphs {
        if self.options.unicode { &UNICODE } else { &ASCII }
    }

    /// Lines drawn so far.
    pub(super) fn lines(&self) -> usize {
        self.out.matches('\n').count()
    }

    /// What has been drawn.
    pub(super) fn finish(self) -> String {
        self.out
    }

    /// Text from outside, fit to be shown and measured: what would move the cursor, change the
    /// direction of writing or stay invisible is escaped as `\u{1b}`; without Unicode, so is all
    /// beyond ASCII, save for what has a well-known spelling in it.
    pub(super) fn clean(&self, text: &str) -> String {
        let mut clean = String::with_capacity(text.len());
        for c in text.chars() {
            let visible = c.width().is_some_and(|w| w > 0) && !is_format(c);
            match c {
                _ if visible && (c.is_ascii() || self.options.unicode) => clean.push(c),
                '→' => clean.push_str(ASCII.arrow),
                '←' => clean.push_str("<-"),
                '…' => clean.push_str(ASCII.ellipsis),
                '–' | '—' | '−' => clean.push('-'),
                '×' => clean.push_str(ASCII.times),
                '±' => clean.push_str(ASCII.plus_minus),
                'µ' | 'μ' => clean.push_str(ASCII.micro),
                '≥' => clean.push_str(">="),
                '≤' => clean.push_str("<="),
                '’' | '‘' => clean.push('\''),
                '“' | '”' => clean.push('"'),
                _ => {
                    let _ = write!(clean, "\\u{{{:x}}}", u32::from(c));
                }
            }
        }
        clean
    }

    /// `text`, shortened to `width` columns if it is longer.
    pub(super) fn shorten(&self, text: &str, width: usize) -> String {
        if text.width() <= width {
            return text.to_owned();
        }
        let ellipsis = self.glyphs().ellipsis;
        match width.checked_sub(ellipsis.width()) {
            Some(room) => split(text, room).0.to_owned() + ellipsis,
            None => split(text, width).0.to_owned(),
        }
    }

    /// Draws an empty line.
    pub(super) fn blank(&mut self) {
        self.out.push('\n');
    }

    /// Draws a line; what does not fit is cut off with an ellipsis.
    pub(super) fn line(&mut self, line: Line) {
        let mut room = self.width();
        let whole = line.width() <= room;
        let mut drawn = String::new();
        for (tone, text) in line.0 {
            let mut text = self.clean(&text);
            if text.is_empty() {
                continue;
            }
            if text.width() > room || (!whole && text.width() == room) {
                text = self.shorten(&(text + " "), room);
            }
            room -= text.width();
            match tone.sgr().filter(|_| self.options.color && !text.trim().is_empty()) {
                Some(sgr) => {
                    let _ = write!(drawn, "\x1b[{sgr}m{text}\x1b[0m");
                }
                None => drawn.push_str(&text),
            }
            if room == 0 {
                break;
            }
        }
        self.out.push_str(drawn.trim_end());
        self.out.push('\n');
    }

    /// Draws `text` behind `head`, wrapped at words; further lines are indented by `indent`.
    pub(super) fn paragraph(&mut self, head: Line, indent: usize, tone: Tone, text: &str) {
        let text = self.clean(text);
        let first = self.width().saturating_sub(head.width());
        let rest = self.width().saturating_sub(indent);
        let mut head = Some(head);
        for part in wrap(&text, first, rest) {
            let line = head.take().unwrap_or_else(|| Line::new().plain(" ".repeat(indent)));
            self.line(line.add(tone, part));
        }
    }

    /// Draws a title, set off from what is above.
    pub(super) fn title(&mut self, title: &str, tone: Tone, mark: &str, text: &str) {
        self.blank();
        let mut line = Line::new().add(Tone::Strong, title).plain("  ");
        if !mark.is_empty() {
            line = line.add(tone, mark).plain("  ");
        }
        self.paragraph(line, 2, Tone::Plain, text);
    }
}

/// Characters that stay invisible or change the direction of others (Unicode category Cf), beyond
/// those without width.
fn is_format(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
}

/// Splits `text` behind at most `width` columns.
fn split(text: &str, width: usize) -> (&str, &str) {
    let mut used = 0;
    let end = text
        .char_indices()
        .find(|(_, c)| {
            used += c.width().unwrap_or(0);
            used > width
        })
        .map_or(text.len(), |(at, _)| at);
    text.split_at(end)
}

/// Breaks `text` at spaces into lines of at most `first`, then `rest` columns; words longer than a
/// line are broken anywhere. At least one line.
pub(super) fn wrap(text: &str, first: usize, rest: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut room = first.max(1);
    for word in text.split_whitespace() {
        let mut word = word;
        let space = usize::from(lines.last().is_some_and(|l| !l.is_empty()));
        if word.width() + space > room && (space == 1 || first < rest && word.width() <= rest) {
            lines.push(String::new());
            room = rest.max(1);
        } else if space == 1
            && let Some(line) = lines.last_mut()
        {
            line.push(' ');
            room -= 1;
        }
        while word.width() > room {
            let (mut head, mut tail) = split(word, room);
            if head.is_empty() {
                // A character wider than the line stands out of it, alone.
                let first = word.chars().next().map_or(word.len(), char::len_utf8);
                (head, tail) = word.split_at(first);
            }
            if let Some(line) = lines.last_mut() {
                line.push_str(head);
            }
            lines.push(String::new());
            (word, room) = (tail, rest.max(1));
        }
        if let Some(line) = lines.last_mut() {
            line.push_str(word);
        }
        room = room.saturating_sub(word.width());
    }
    lines
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn canvas(unicode: bool) -> Canvas {
        Canvas::new(&TextOptions { unicode, ..TextOptions::default() })
    }

    #[test]
    fn dangerous_characters_are_escaped() {
        let unicode = canvas(true);
        assert_eq!(
            unicode.clean("a\x1b[31m\n\u{202e}\u{200b}\u{7f}"),
            "a\\u{1b}[31m\\u{a}\\u{202e}\\u{200b}\\u{7f}"
        );
        assert_eq!(unicode.clean("pöd → 日本"), "pöd → 日本");
        assert_eq!(canvas(false).clean("pöd → …"), "p\\u{f6}d -> ...");
    }

    #[test]
    fn shortening_counts_columns() {
        assert_eq!(canvas(true).shorten("flannel.1", 9), "flannel.1");
        assert_eq!(canvas(true).shorten("flannel.1", 8), "flannel…");
        assert_eq!(canvas(true).shorten("日本語", 4), "日…");
        assert_eq!(canvas(false).shorten("flannel.1", 8), "flann...");
    }

    #[test]
    fn words_wrap_and_giants_break() {
        assert_eq!(wrap("one two three", 8, 5), ["one two", "three"]);
        assert_eq!(wrap("abcdefghij kl", 4, 3), ["abcd", "efg", "hij", "kl"]);
        assert_eq!(wrap("", 4, 4), [""]);
        assert_eq!(wrap("iptables -D", 3, 10), ["", "iptables", "-D"]);
    }

    #[test]
    fn lines_are_cut_at_the_width() {
        let mut canvas = canvas(true);
        canvas.line(Line::new().plain("x".repeat(79)).add(Tone::Bad, "yz"));
        canvas.line(Line::new().plain("x".repeat(80)));
        let text = canvas.finish();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines, ["x".repeat(79) + "…", "x".repeat(80)]);
    }

    proptest! {
        #[test]
        fn wrapped_lines_fit(text: String, first in 1_usize..30, rest in 2_usize..30) {
            let clean = canvas(true).clean(&text);
            for (i, line) in wrap(&clean, first, rest).iter().enumerate() {
                let most = if i == 0 { first.max(2) } else { rest };
                prop_assert!(line.width() <= most);
            }
        }

        #[test]
        fn drawn_lines_fit(parts: Vec<String>, unicode: bool) {
            let mut canvas = canvas(unicode);
            canvas.line(parts.iter().fold(Line::new(), |l, p| l.plain(p.clone())));
            let text = canvas.finish();
            prop_assert_eq!(text.lines().count(), 1);
            prop_assert!(text.width() <= 81, "{:?}", text);
            prop_assert!(!text.trim_end().chars().any(char::is_control));
        }
    }
}
