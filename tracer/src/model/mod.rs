//! The vocabulary that every other module speaks: stations on a path, decoded packets, events,
//! journeys. Values only: no I/O, no view.

mod clock;
mod ends;
mod events;
mod journeys;
mod observation;
mod packets;
mod topology;

pub use clock::{NodeClock, Reading, RoundTrip, UNKNOWN_ERROR_NS};
pub use ends::{Alias, End, EndKind, Leads, Service};
pub use events::{DropInfo, Event, EventKind, Gso};
pub use journeys::{
    ByteRange, Hop, HopStats, IcmpReport, Journey, JourneyDrop, Missing, Outcome, Resolution,
    StreamPlace, Trace,
};
pub use observation::{
    Attempt, AttemptOutcome, Loss, NodePing, Observation, ProbeResult, Unreachable,
};
pub use packets::{Body, Ethernet, Fragment, Ip, L4, Mac, Neighbor, Outer, Packet, tcp_flags};
pub use topology::{Direction, Hook, Names, Point, Role, Station, StationId, Topology, VxlanInfo};
