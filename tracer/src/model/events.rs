//! What the kernel programs saw, decoded.

use serde::{Deserialize, Serialize};

use super::{Hook, Packet, Reading, StationId};

/// GSO state of a super-packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gso {
    /// Number of segments it will become.
    pub segments: u16,
    /// Payload bytes of each (the last may be shorter).
    pub size: u16,
}

/// A kernel drop, resolved to names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropInfo {
    /// `enum skb_drop_reason`, as numbered by the kernel it came from.
    pub code: u32,
    /// Its name without the `SKB_DROP_REASON_` prefix.
    pub reason: String,
    /// Function that freed the packet.
    pub function: String,
    /// Kernel stack, innermost first, tracing machinery removed; symbol names without offsets.
    pub stack: Vec<String>,
}

/// What was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// The packet crossed an interface.
    Hop(Hook),
    /// The kernel freed it with a drop reason.
    Drop(Box<DropInfo>),
}

/// One decoded event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When, ns: by the clock of its machine until [`crate::correlate::Clocks`] has placed it on the
    /// axis that all machines have in common.
    pub time_ns: u64,
    /// By how much that may be wrong at most against other machines' times, ns;
    /// [`super::UNKNOWN_ERROR_NS`].
    pub error_ns: u64,
    /// When, by the clock of the machine it came from.
    pub clock: Reading,
    /// Where; `None` when the interface is not a station (drops elsewhere, or without device).
    pub station: Option<StationId>,
    /// Inode of the namespace; 0 when unknown (a drop without device, route and socket).
    pub netns_inum: u32,
    /// Interface index there; 0 when unknown.
    pub ifindex: u32,
    /// Kernel address of the skb.
    pub skb: u64,
    /// Length of the frame at this point, bytes.
    pub len: u32,
    /// Super-packet.
    pub gso: Option<Gso>,
    /// What.
    pub kind: EventKind,
    /// Decoded headers.
    pub packet: Packet,
}
