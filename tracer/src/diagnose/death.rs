//! How packets of one direction ended: what every cause is asked to explain.

use super::Case;
use super::place::{Stage, matches, place, stage};
use crate::model::{
    Body, Direction, Ip, Journey, JourneyDrop, Neighbor, Outcome, Packet, Point, Resolution,
};
use crate::report::Place;

/// The last that was seen of them.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ending<'a> {
    /// A drop event.
    Drop {
        /// The event.
        drop: &'a JourneyDrop,
        /// Where in the kernel.
        stage: Option<Stage>,
    },
    /// Left one node and never came to the next.
    Wire,
    /// Seen, then no more within the node.
    Vanished,
    /// The sender asked for its next hop's hardware address in vain, and sent nothing.
    Unresolved {
        /// The question.
        question: &'a Resolution,
    },
    /// The sender has something to send, and nothing was seen of it.
    Unsent,
    /// Arrived, and was not answered.
    Unanswered,
}

/// Packets of one direction that ended alike.
#[derive(Clone, Debug)]
pub(super) struct Death<'a> {
    /// Which way they went.
    pub direction: Direction,
    /// How they ended.
    pub ending: Ending<'a>,
    /// Where, as far as the ending tells.
    pub place: Place,
    /// Inode of the namespace of `place`; 0 when unknown.
    pub netns: u32,
    /// The last point at which they were seen.
    pub last: Option<Point>,
    /// The planned point behind it.
    pub next: Option<Point>,
    /// How many.
    pub count: u64,
    /// Of how many.
    pub of: u64,
    /// One of them.
    pub example: Option<&'a Journey>,
}

impl<'a> Death<'a> {
    /// By a drop event of which no more is known.
    pub fn of_drop(case: &Case<'a>, direction: Direction, drop: &'a JourneyDrop) -> Self {
        Self {
            direction,
            ending: Ending::Drop { drop, stage: stage(&drop.info) },
            place: place(case.topology, drop, None),
            netns: drop.netns_inum,
            last: None,
            next: case.topology.path(direction).first().copied(),
            count: 1,
            of: 1,
            example: None,
        }
    }

    /// The drop event.
    pub fn drop(&self) -> Option<&'a JourneyDrop> {
        match self.ending {
            Ending::Drop { drop, .. } => Some(drop),
            _ => None,
        }
    }

    /// Stage of the drop; `None` without drop event.
    pub fn stage(&self) -> Option<Stage> {
        match self.ending {
            Ending::Drop { stage, .. } => stage,
            _ => None,
        }
    }

    /// Whether the drop event has this reason and function (patterns with at most one `*`).
    pub fn dropped(&self, reason: &str, function: &str) -> bool {
        self.drop().is_some_and(|drop| {
            matches(reason, &drop.info.reason) && matches(function, &drop.info.function)
        })
    }

    /// The packet as it was when it died, or when it was seen last.
    pub fn packet(&self) -> Option<&'a Packet> {
        let last = || {
            let hops = &self.example?.hops;
            let at_last = hops.iter().rfind(|h| Some(h.point) == self.last);
            at_last.or(hops.last()).map(|h| &h.packet)
        };
        self.drop().map(|drop| &drop.packet).or_else(last)
    }

    /// Its IP header; the innermost one.
    pub fn ip(&self) -> Option<&'a Ip> {
        match &self.packet()?.body {
            Body::Ip(ip) => Some(ip),
            Body::Neighbor(_) | Body::Other(_) => None,
        }
    }

    /// The question for a hardware address, where such a packet was dropped.
    pub fn question(&self) -> Option<&'a Neighbor> {
        match &self.drop()?.packet.body {
            Body::Neighbor(question) => Some(question),
            Body::Ip(_) | Body::Other(_) => None,
        }
    }

    /// Whether it died as the tunnel's outer packet: an encapsulated one, outside the tunnel device.
    pub fn is_outer(&self) -> bool {
        self.packet().is_some_and(|p| p.outer.is_some())
    }

    /// Whether others of the same direction arrived.
    pub fn is_partial(&self) -> bool {
        self.count < self.of || self.example.is_some_and(|j| j.outcome == Outcome::Partial)
    }
}
