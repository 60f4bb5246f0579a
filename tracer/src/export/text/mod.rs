//! The report for people: a verdict first, then what happened on the way.
//!
//! Never wider than asked, no escape sequence unless colour is asked for, and no control character
//! from outside gets through.

mod audit;
mod backends;
mod canvas;
mod journey;
mod layers;
mod remarks;
pub(super) mod segments;
mod summary;
mod units;
mod verdict;
pub(super) mod words;

#[cfg(test)]
mod tests;

use crate::model::Direction;
use crate::report::{DirectionReport, Report, Status};
pub use audit::render as audit;
pub(super) use backends::fate;
use canvas::Canvas;
pub(super) use journey::choose;
pub(super) use remarks::parts as losses;

/// Narrowest layout; less is treated as this many columns.
pub const MIN_WIDTH: usize = 60;

/// How to draw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextOptions {
    /// Use ANSI colours.
    pub color: bool,
    /// Columns to use at most; at least [`MIN_WIDTH`].
    pub width: usize,
    /// Show everything: stacks, both directions' headers, every step of long ways.
    pub verbose: bool,
    /// Draw with characters beyond ASCII.
    pub unicode: bool,
}

impl Default for TextOptions {
    /// What a pipe gets: 80 columns, no colour.
    fn default() -> Self {
        Self { color: false, width: 80, verbose: false, unicode: true }
    }
}

/// The report as text, ending with a line feed.
pub fn render(report: &Report, options: &TextOptions) -> String {
    let mut canvas = Canvas::new(options);
    verdict::draw(&mut canvas, report);
    backends::draw(&mut canvas, report);
    for direction in &report.directions {
        let shown = journey::choose(report, direction);
        journey::draw(&mut canvas, report, direction, shown);
        if let Some(shown) = shown
            && (canvas.verbose() || direction.direction == told(report))
        {
            layers::draw(&mut canvas, shown);
        }
    }
    let parted = |direction| {
        let verdict =
            report.directions.iter().find(|d| d.direction == direction).map(|d| d.verdict.status);
        verdict.is_some_and(|status| status != Status::Delivered)
    };
    for walk in &report.expected {
        if canvas.verbose() || walk.direction == told(report) && parted(walk.direction) {
            audit::beside(&mut canvas, walk);
        }
    }
    report.directions.iter().for_each(|d| summary::draw(&mut canvas, report, d));
    remarks::draw(&mut canvas, report);
    verdict::repeat(&mut canvas, report);
    canvas.finish()
}

/// ` ±12.0 µs` behind a duration that two clocks told; nothing behind others.
pub(super) fn within(error_ns: Option<u64>) -> String {
    let text = units::within(error_ns, Canvas::new(&TextOptions::default()).glyphs());
    text.map_or_else(String::new, |text| format!(" {text}"))
}

/// A duration with three significant digits.
pub(super) fn duration(ns: u64) -> String {
    units::duration(ns, Canvas::new(&TextOptions::default()).glyphs())
}

/// Parts of the report on their own, as text.
pub mod part {
    use super::canvas::Canvas;
    use super::{TextOptions, audit, backends, journey, layers, remarks, verdict};
    use crate::model::Direction;
    use crate::report::{JourneyReport, Report};

    /// One packet: its way, and its headers at each stage.
    pub fn packet(report: &Report, packet: &JourneyReport, options: &TextOptions) -> String {
        let mut canvas = Canvas::new(options);
        if let Some(way) = report.directions.iter().find(|d| d.direction == packet.direction) {
            journey::draw(&mut canvas, report, way, Some(packet));
        }
        layers::draw(&mut canvas, packet);
        canvas.finish()
    }

    /// The verdict, and what else is to be said.
    pub fn verdict(report: &Report, options: &TextOptions) -> String {
        let mut canvas = Canvas::new(options);
        verdict::draw(&mut canvas, report);
        backends::draw(&mut canvas, report);
        remarks::draw(&mut canvas, report);
        canvas.finish()
    }

    /// The way that the tables say, beside what was seen; empty where they were not read.
    pub fn expected(report: &Report, direction: Direction, options: &TextOptions) -> String {
        let mut canvas = Canvas::new(options);
        for walk in report.expected.iter().filter(|w| w.direction == direction) {
            audit::beside(&mut canvas, walk);
        }
        canvas.finish()
    }

    /// Text from outside, fit to be shown.
    pub fn clean(text: &str, options: &TextOptions) -> String {
        Canvas::new(options).clean(text)
    }

    /// How exact a time is: `±12.0 µs`, `±?`; nothing where one clock told it.
    pub fn within(error_ns: Option<u64>, options: &TextOptions) -> Option<String> {
        super::units::within(error_ns, Canvas::new(options).glyphs())
    }

    /// A duration with three significant digits, such that all characters can be shown.
    pub fn duration(ns: u64, options: &TextOptions) -> String {
        super::units::duration(ns, Canvas::new(options).glyphs())
    }

    pub use super::words::{label, place, short_place, status};
}

/// The direction whose headers are drawn: that which failed, else forward.
fn told(report: &Report) -> Direction {
    let seen = |d: &&DirectionReport| d.packets > 0;
    match report.verdict.direction {
        Some(direction)
            if report.directions.iter().filter(seen).any(|d| d.direction == direction) =>
        {
            direction
        }
        _ => Direction::Forward,
    }
}
