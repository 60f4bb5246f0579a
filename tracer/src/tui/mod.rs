//! The live view: screens over the same report that every other output is made of.
//!
//! Enters: [`Snapshot`]s, from a trace that runs or a recording that is played. Leaves: [`Command`]s.
//! Both go through a [`Screen`], whose thread alone touches the terminal ([`term`]): whoever
//! publishes a snapshot never waits for drawing, and the newest replaces one not yet drawn.
//!
//! [`model`] remembers what came, [`state`] what is shown of it, [`input`] turns keys into changes of
//! that, and [`view`] draws it: all of them pure, so that tests need no terminal.

mod bytes;
mod filter;
mod input;
mod model;
pub mod replay;
mod state;
mod style;
mod term;
#[cfg(test)]
mod tests;
mod view;

use std::sync::Arc;
use std::time::Duration;

use crate::export::Kind;
use crate::model::Reading;
use crate::report::{PointReport, Report};
pub use bytes::Collector;
pub use term::Screen;

/// How screens look.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Use colours.
    pub color: bool,
    /// Draw with characters beyond ASCII.
    pub unicode: bool,
}

/// Where the snapshots come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A trace that runs.
    Live,
    /// A recording.
    Replay,
}

/// What is to be shown.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Of the last seconds.
    pub report: Arc<Report>,
    /// Time that the report covers.
    pub span: Duration,
    /// Since the beginning.
    pub elapsed: Duration,
    /// Counts since the beginning.
    pub totals: Totals,
    /// How a recording is played; `None` for a trace that runs.
    pub player: Option<Player>,
    /// What the user should know, newest last.
    pub notices: Vec<String>,
}

/// A packet of which the captured bytes are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its id.
    pub id: String,
    /// Its hops in their order: when and where.
    pub sightings: Vec<(Reading, PointReport)>,
}

/// The captured bytes of a packet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Captured {
    /// Its id.
    pub id: String,
    /// Of each hop in its order; `None` where they are not known any more.
    pub hops: Vec<Option<Vec<u8>>>,
}

/// Counts of packets since the beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Sent by the probe; `None` without one.
    pub sent: Option<u64>,
    /// Left the source.
    pub seen: u64,
    /// Of those, the ones that arrived.
    pub arrived: u64,
    /// Answers that arrived.
    pub replied: u64,
}

/// How a recording is played.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Player {
    /// Length of the recording.
    pub length: Duration,
    /// Times as fast as it was.
    pub speed: f64,
    /// Goes on by itself.
    pub playing: bool,
}

/// What the user asks for beyond the screen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// End.
    Quit,
    /// Write what was seen so far to a file.
    Save(Kind),
    /// Tell the captured bytes of a packet; see [`Screen::show_bytes`].
    Bytes(Wanted),
    /// Start a probe, or stop it.
    Probe,
    /// Play or pause.
    Play,
    /// Twice as fast, or half.
    Faster(bool),
    /// To the next packet, or the one before.
    Step(bool),
    /// Forward or back by a twentieth.
    Scrub(bool),
    /// To the end, or the beginning.
    Jump(bool),
}
