//! The trace file: what a trace saw, written as it runs, to be looked at again elsewhere.
//!
//! Enters, when recording: topologies, facts, batches of the ring buffer, observation. Leaves, when
//! replaying: the same, in the same order, so that [`crate::analysis`] makes the same report of it.
//!
//! docs/trace-format.md is the specification. In short: JSON Lines in zstd frames, append-only; each
//! line is an object with one member, whose key is the kind of the record ([`Record`]). Kinds that a
//! reader does not know are skipped, and so are unknown fields; a field added to a type that is
//! recorded needs a default, so that files of before can be read.
//!
//! Files come from strangers: [`reader`] bounds everything it takes ([`limits`]).

mod event;
mod format;
pub mod limits;
mod reader;
mod replay;
mod rotation;
mod scan;
#[cfg(test)]
mod tests;
mod writer;

pub(crate) use event::EventRecord;
pub use format::{
    Clock, End, Facts, FamilyTopology, Header, Losses, Machine, Observed, Reached, Record, SCHEMA,
    Stage, StageKind, When,
};
pub(crate) use limits::event as check_event;
pub use reader::{Next, ReadError, Reader};
pub use replay::{Replay, replay, replay_with_events};
pub use scan::scan;
#[cfg(test)]
pub(crate) use tests::testing;
pub use writer::{RecordWriter, Recorder, Summary, Target};
