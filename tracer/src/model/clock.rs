//! Readings of clocks. Every machine has its own (CLOCK_MONOTONIC, from an unknown moment on), and
//! only readings of one machine can be compared as they are.

use serde::{Deserialize, Serialize};

/// What the clock of a machine showed.
///
/// Machines are numbered as in the header of a recording: 0 is the one that podtrace runs on, which
/// may hold any number of nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Reading {
    /// Number of the machine.
    #[serde(rename = "m")]
    pub machine: u16,
    /// CLOCK_MONOTONIC there, ns.
    #[serde(rename = "t")]
    pub ns: u64,
}

/// A machine's clock, read between two readings of that of machine 0: a question and its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoundTrip {
    /// What machine 0 showed when it asked, ns.
    pub asked_ns: u64,
    /// What the machine showed in between.
    #[serde(flatten)]
    pub reading: Reading,
    /// What machine 0 showed when the answer was there, ns.
    pub answered_ns: u64,
}

/// The largest error that is told, ns: by how much a time is wrong is not known. Every reader of JSON
/// has this number exactly.
pub const UNKNOWN_ERROR_NS: u64 = (1 << 53) - 1;

/// A clock against that of the node where the trace begins.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeClock {
    /// Node.
    pub node: String,
    /// Whether it is the same clock.
    pub same: bool,
    /// What to add to its readings at the end of the trace, ns.
    pub offset_ns: i64,
    /// By how much that may be wrong at most, ns; [`UNKNOWN_ERROR_NS`].
    pub error_ns: u64,
    /// How much faster it runs, parts per million; `None`: too short to tell.
    pub drift_ppm: Option<f64>,
    /// Packets recognised on both sides.
    pub packets: u64,
    /// Questions answered.
    pub round_trips: u64,
    /// Times that it was set, or stood still, during the trace.
    pub steps: u64,
}
