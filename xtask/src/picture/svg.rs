//! From what `tmux capture-pane -e` gives to SVG: text in cells, with the attributes of ECMA-48's
//! "select graphic rendition". Each character is taken to be one column wide.

use std::fmt::Write;

/// Size of a cell and of the letters in it, and room around the screen, px.
const CELL: (f64, f64) = (8.4, 18.0);
const FONT: f64 = 14.0;
const MARGIN: f64 = 12.0;
/// Height of the bar on top, px.
const BAR: f64 = 28.0;

/// The terminal's own colours.
const FOREGROUND: &str = "#d8dee9";
const BACKGROUND: &str = "#1b1f27";
const FRAME: &str = "#2b303b";
/// Black, red, green, yellow, blue, magenta, cyan, white; then the same, bright.
const PALETTE: [&str; 16] = [
    "#3b4252", "#f0717b", "#8fd46a", "#ebcb6b", "#6ea8fe", "#c792ea", "#62d0e0", "#d8dee9",
    "#6b7489", "#ff8b94", "#a6e686", "#ffdf86", "#8fbdff", "#dba8ff", "#86e6f4", "#ffffff",
];

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Style {
    foreground: Option<usize>,
    background: Option<usize>,
    bold: bool,
    dim: bool,
    underlined: bool,
    reversed: bool,
}

impl Style {
    /// Changes as the parameters of a control sequence say.
    fn apply(&mut self, parameters: &str) {
        let mut numbers = parameters.split(';').map(|p| p.parse::<usize>().unwrap_or(0));
        while let Some(number) = numbers.next() {
            match number {
                // Of 256 colours; those beyond the first 16 are not in use here.
                38 | 48 if numbers.next() == Some(5) => {
                    let index = numbers.next().filter(|index| *index < PALETTE.len());
                    let ground =
                        if number == 38 { &mut self.foreground } else { &mut self.background };
                    *ground = index;
                }
                0 => *self = Self::default(),
                1 => self.bold = true,
                2 => self.dim = true,
                4 => self.underlined = true,
                7 => self.reversed = true,
                22 => (self.bold, self.dim) = (false, false),
                24 => self.underlined = false,
                27 => self.reversed = false,
                30..=37 => self.foreground = Some(number - 30),
                39 => self.foreground = None,
                40..=47 => self.background = Some(number - 40),
                49 => self.background = None,
                90..=97 => self.foreground = Some(number - 90 + 8),
                100..=107 => self.background = Some(number - 100 + 8),
                _ => {}
            }
        }
    }

    /// Colour of the letters, and of the cell where it is not the terminal's own.
    fn colors(self) -> (&'static str, Option<&'static str>) {
        let color = |index: Option<usize>| index.and_then(|i| PALETTE.get(i)).copied();
        let (front, back) = (color(self.foreground), color(self.background));
        if self.reversed {
            (back.unwrap_or(BACKGROUND), Some(front.unwrap_or(FOREGROUND)))
        } else {
            (front.unwrap_or(FOREGROUND), back)
        }
    }
}

/// Pieces of one style, with the column where each begins.
fn pieces(line: &str, style: &mut Style) -> Vec<(usize, Style, String)> {
    let mut pieces: Vec<(usize, Style, String)> = Vec::new();
    let mut column = 0;
    let mut rest = line;
    while let Some(c) = rest.chars().next() {
        if let Some((parameters, after)) = rest.strip_prefix("\x1b[").and_then(sequence) {
            style.apply(parameters);
            rest = after;
            continue;
        }
        rest = &rest[c.len_utf8()..];
        if c.is_control() {
            continue;
        }
        match pieces.last_mut() {
            Some((_, of, text)) if *of == *style => text.push(c),
            _ => pieces.push((column, *style, c.to_string())),
        }
        column += 1;
    }
    pieces
}

/// Parameters of a "select graphic rendition", and what is behind it.
fn sequence(text: &str) -> Option<(&str, &str)> {
    let (parameters, rest) = text.split_once('m')?;
    parameters.chars().all(|c| c.is_ascii_digit() || c == ';').then_some((parameters, rest))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Draws a screen of so many columns and rows.
pub fn draw(captured: &str, title: &str, (columns, rows): (u16, u16)) -> String {
    let width = f64::from(columns) * CELL.0 + 2.0 * MARGIN;
    let height = f64::from(rows) * CELL.1 + 2.0 * MARGIN + BAR;
    let mut svg = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.1} {height:.1}\" \
         width=\"{width:.1}\" height=\"{height:.1}\" font-family=\"'DejaVu Sans Mono', Menlo, \
         Consolas, monospace\" font-size=\"{FONT}\">\n\
         <title>{0}</title>\n\
         <rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"{FRAME}\"/>\n\
         <rect y=\"{BAR}\" width=\"100%\" height=\"{1:.1}\" rx=\"8\" fill=\"{BACKGROUND}\"/>\n\
         <text x=\"{MARGIN}\" y=\"19\" fill=\"{FOREGROUND}\">{0}</text>",
        escaped(title),
        height - BAR,
    );
    let mut style = Style::default();
    for (row, line) in captured.lines().take(rows.into()).enumerate() {
        let top = BAR + MARGIN + row as f64 * CELL.1;
        for (column, style, text) in pieces(line, &mut style) {
            let (left, length) =
                (MARGIN + column as f64 * CELL.0, text.chars().count() as f64 * CELL.0);
            let (front, back) = style.colors();
            if let Some(back) = back {
                let _ = writeln!(
                    svg,
                    "<rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{length:.1}\" height=\"{}\" \
                     fill=\"{back}\"/>",
                    CELL.1
                );
            }
            if text.trim().is_empty() {
                continue;
            }
            let mut attributes = String::new();
            for (on, attribute) in [
                (style.bold, " font-weight=\"bold\""),
                (style.dim, " opacity=\"0.65\""),
                (style.underlined, " text-decoration=\"underline\""),
            ] {
                if on {
                    attributes += attribute;
                }
            }
            // The length keeps columns in line whatever the font.
            let _ = writeln!(
                svg,
                "<text x=\"{left:.1}\" y=\"{:.1}\" textLength=\"{length:.1}\" \
                 lengthAdjust=\"spacingAndGlyphs\" xml:space=\"preserve\" \
                 fill=\"{front}\"{attributes}>{}</text>",
                top + FONT,
                escaped(&text)
            );
        }
    }
    svg += "</svg>\n";
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_begin_and_end() {
        let mut style = Style::default();
        let pieces = pieces("a\x1b[1;31mbc\x1b[22;39m d\x1b[7m\x1b[0m\x1b[92;48;5;4me", &mut style);
        let red = Style { bold: true, foreground: Some(1), ..Style::default() };
        let bright = Style { foreground: Some(10), background: Some(4), ..Style::default() };
        let plain = Style::default();
        assert_eq!(
            pieces,
            [
                (0, plain, "a".to_owned()),
                (1, red, "bc".to_owned()),
                (3, plain, " d".to_owned()),
                (5, bright, "e".to_owned())
            ]
        );
        assert_eq!(Style { reversed: true, ..red }.colors(), (BACKGROUND, Some(PALETTE[1])));
    }

    #[test]
    fn a_picture_holds_the_text_and_nothing_that_is_no_text() {
        let svg =
            draw("\x1b[32m✓ a<b\x1b[0m\n\x1b[7m 1 Path \x1b[0m\x1b]0;x\x07", "t & u", (20, 2));
        assert!(svg.contains("✓ a&lt;b</text>"), "{svg}");
        assert!(svg.contains("<title>t &amp; u</title>"), "{svg}");
        assert!(svg.contains(&format!("fill=\"{}\"", PALETTE[2])), "{svg}");
        assert!(!svg.contains(|c: char| c.is_control() && c != '\n'), "{svg}");
        assert_eq!(svg.matches("<rect").count(), 3);
    }
}
