//! Nodes: the machines on which the way of a packet can be observed, wherever they are.
//!
//! Enters: questions as values ([`message`]). Leaves: values: facts, events with every number of that
//! machine named, what a probe did. [`LocalNode`] answers for the machine that podtrace runs on, with
//! all network namespaces there; an agent answers for another machine over the network. Whoever asks
//! cannot tell the difference, and nothing behind this module may try to.
//!
//! [`Nodes`] are those of an inventory, connected to when they are first needed. Numbers by which a
//! kernel names things mean something on that machine only: those of other machines are changed
//! ([`renumber`]) into numbers that no other node uses, on their way in and back.
//!
//! All calls block. Each returns in bounded time, with [`NodeError::Unreachable`] when the node does
//! not answer.

mod error;
mod events;
mod local;
pub mod message;
mod nodes;
mod renumber;

use std::fmt;
use std::io;
use std::time::Duration;

pub use error::{Cause, NodeError};
pub use events::Events;
pub use local::LocalNode;
pub use message::{
    CaptureRequest, Chunk, ClockSample, Depth, End, FactsRequest, Hello, Locate, Located, NetnsRef,
    NodeFacts, ProbeRequest, SpaceAnswer, SpaceRequest, Started,
};
pub use nodes::{Connect, Namespace, Nodes, Site};

use crate::model::ProbeResult;
use crate::probe::Progress;

/// A machine that can be observed.
///
/// A namespace that a request names by its inode must have been located through the same value
/// before ([`Node::locate`]): a node keeps open what it was asked for, and only that.
pub trait Node: fmt::Debug + Send + Sync {
    /// Who is there.
    ///
    /// # Errors
    /// When it does not answer, or speaks another version of the messages.
    fn hello(&self) -> Result<Hello, NodeError>;

    /// Finds a namespace, and holds it open.
    ///
    /// # Errors
    /// When there is none, or it cannot be entered.
    fn locate(&self, what: &Locate) -> Result<Located, NodeError>;

    /// Reads network state.
    ///
    /// # Errors
    /// When the node does not answer. A namespace that cannot be read is told in its place.
    fn facts(&self, request: &FactsRequest) -> Result<NodeFacts, NodeError>;

    /// Attaches to interfaces. Everything is attached when this returns; dropping the feed detaches.
    ///
    /// # Errors
    /// When the programs cannot be loaded or attached, or the node refuses.
    fn capture(&self, request: &CaptureRequest) -> Result<Box<dyn Feed>, NodeError>;

    /// Starts test traffic.
    ///
    /// # Errors
    /// When the node does not answer or refuses. What prevents the probe itself is told by
    /// [`Probing::join`].
    fn probe(&self, request: &ProbeRequest) -> Result<Box<dyn Probing>, NodeError>;

    /// Reads the node's clock, between two readings of the own one.
    ///
    /// # Errors
    /// When the node does not answer.
    fn clock(&self) -> Result<ClockSample, NodeError>;
}

/// What comes from a running capture.
pub trait Feed: fmt::Debug + Send {
    /// How it began.
    fn started(&self) -> &Started;

    /// The next chunk; `None` when none came within `wait`. A node that sees nothing sends empty
    /// chunks at least every [`message::HEARTBEAT`], so that one knows until when nothing happened.
    /// Behind one with [`Chunk::end`] comes nothing more.
    ///
    /// # Errors
    /// When the node has become unreachable; nothing more comes then.
    fn next(&mut self, wait: Duration) -> Result<Option<Chunk>, NodeError>;

    /// Looks at once for what is only looked for now and then (stations that have vanished), where that
    /// can be asked for.
    fn look(&mut self) {}
}

/// A running probe. Dropped, it stops soon.
pub trait Probing: fmt::Debug + Send + Sync {
    /// What was sent and answered by now, as far as known here.
    fn progress(&self) -> Progress;

    /// Whether [`Probing::join`] returns at once.
    fn is_finished(&self) -> bool;

    /// Asks it to stop; it does within some tens of milliseconds.
    fn stop(&self);

    /// Waits for its end.
    ///
    /// # Errors
    /// When it could not be sent, or the node has become unreachable.
    fn join(self: Box<Self>) -> io::Result<ProbeResult>;
}
