//! Exports: each output format is a sink of the report.
//!
//! Enters: a [`Report`]. Leaves: text. A format is a module with a `render` function and a variant
//! of [`Format`]; nothing else knows the formats. Formats that show every event ([`pcapng`],
//! [`jsonl`], [`perfetto`]) need a recording besides.

pub mod html;
pub mod json;
pub mod jsonl;
pub mod markdown;
pub mod marks;
pub mod pcapng;
pub mod perfetto;
pub mod svg;
pub mod text;

mod kind;

#[cfg(test)]
pub(crate) mod fixtures;
#[cfg(test)]
pub(crate) mod schema;

use std::fmt;
use std::str::FromStr;

use crate::report::Report;
pub use kind::Kind;
pub use text::TextOptions;

/// An output format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs: schema `podtrace.report/1`.
    Json,
    /// For an issue.
    Markdown,
    /// A page of its own.
    Html,
    /// The path as a picture.
    Svg,
}

impl Format {
    /// Every format, in the order in which help lists them.
    pub const ALL: [Format; 5] =
        [Format::Text, Format::Json, Format::Markdown, Format::Html, Format::Svg];

    /// As given on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Format::Text => "text",
            Format::Json => "json",
            Format::Markdown => "markdown",
            Format::Html => "html",
            Format::Svg => "svg",
        }
    }

    /// The report in this format, ending with a line feed. `options` say how people like it; they
    /// do not concern programs.
    pub fn render(self, report: &Report, options: &TextOptions) -> String {
        match self {
            Format::Text => text::render(report, options),
            Format::Json => json::render(report),
            Format::Markdown => markdown::render(report),
            Format::Html => html::render(report, html::Extras::default()),
            Format::Svg => svg::render(report),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// There is no such format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no output format {0:?}; choose one of: {names}", names = names())]
pub struct UnknownFormat(String);

fn names() -> String {
    Format::ALL.map(Format::as_str).join(", ")
}

impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|f| f.as_str() == s).ok_or_else(|| UnknownFormat(s.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_chosen_by_name() {
        for format in Format::ALL {
            assert_eq!(format.to_string().parse(), Ok(format));
        }
        let error = "xml".parse::<Format>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "there is no output format \"xml\"; choose one of: text, json, markdown, html, svg"
        );
    }

    #[test]
    fn every_format_renders_and_ends_with_a_line_feed() {
        for format in Format::ALL {
            let text = format.render(&fixtures::healthy(), &TextOptions::default());
            assert!(text.ends_with('\n') && !text.ends_with("\n\n"), "{format}");
        }
    }
}
