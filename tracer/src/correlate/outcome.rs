//! What became of a journey, and which drop event ended it.

use super::clock;
use super::drops::Resets;
use super::live::{DropState, Live};
use super::noise::is_refusal;
use super::plan::Plan;
use crate::model::{Body, ByteRange, Journey, Missing, Outcome};

/// An unfinished journey that began this shortly before the end of the trace is taken to be still
/// under way, ns: well above a healthy round trip, well below what a person waits for a packet.
pub const IN_FLIGHT_NS: u64 = 200_000_000;

/// The part of time that counts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    /// From here on everything was attached, ns.
    pub armed_ns: u64,
    /// What begins later does not count, ns.
    pub closed_ns: Option<u64>,
    /// End of the trace, ns.
    pub end_ns: u64,
    /// From here on a part of the path was not observed, ns.
    pub blind_ns: Option<u64>,
}

impl Window {
    /// Whether a packet that began then belongs to the trace at all.
    pub fn admits(&self, start_ns: u64) -> bool {
        self.closed_ns.is_none_or(|closed| start_ns <= closed)
    }

    /// Whether a packet that began then may have gone on unseen.
    fn is_blind(&self, start_ns: u64) -> bool {
        self.blind_ns.is_some_and(|blind| start_ns.saturating_add(IN_FLIGHT_NS) >= blind)
    }

    /// Whether a journey counts as sent: seen from its beginning, within the window.
    pub fn counts(&self, live: &Live) -> bool {
        let start = live.start_ns();
        live.origin && start >= self.armed_ns && self.admits(start)
    }
}

/// What became of a journey; with the position of the fatal drop in its list.
pub(super) fn judge(
    live: &Live,
    plan: &Plan,
    window: &Window,
    resets: &Resets,
) -> (Outcome, Option<usize>) {
    if !window.counts(live) && live.duplicate_of.is_none() {
        return (Outcome::Incomplete, None);
    }
    let (arrived, complete) = live.arrived(plan);
    let fatal = |drop: &DropState| {
        if complete { refused(live, plan, drop) } else { ended(live, plan, drop) }
    };
    // The last of several: each earlier one was survived by some copy.
    let by = live.drops.iter().rposition(fatal);
    let outcome = match by {
        Some(_) if !complete && arrived > 0 => Outcome::Partial,
        Some(at) if sender_told(live, &live.drops[at], resets) => Outcome::Rejected,
        Some(_) => Outcome::Dropped,
        None if complete => Outcome::Delivered,
        None if window.end_ns.saturating_sub(live.start_ns()) < IN_FLIGHT_NS => Outcome::InFlight,
        None if window.is_blind(live.start_ns()) => Outcome::InFlight,
        None if arrived > 0 => Outcome::Partial,
        None if went_elsewhere(live, plan) => Outcome::Elsewhere,
        None => Outcome::Lost,
    };
    (outcome, by)
}

/// Whether it was last seen on its way to a service, before a backend was chosen for it.
fn went_elsewhere(live: &Live, plan: &Plan) -> bool {
    live.hops.last().is_some_and(|h| match &h.hop.packet.body {
        Body::Ip(ip) => plan.may_go_elsewhere(live.direction, &ip.dst),
        Body::Neighbor(_) | Body::Other(_) => false,
    })
}

/// Whether the receiving host refused what had reached its interface.
fn refused(live: &Live, plan: &Plan, drop: &DropState) -> bool {
    let arrived_ns = live
        .hops
        .iter()
        .find(|h| plan.is_final(live.direction, h.hop.point))
        .map_or(u64::MAX, |h| h.hop.time_ns);
    // A socket's drops often name no namespace.
    let netns = drop.drop.netns_inum;
    (netns == 0 || plan.is_end_netns(live.direction, netns))
        && drop.drop.time_ns >= arrived_ns
        && is_refusal(&drop.drop.info.reason)
}

/// Whether this drop ended the bytes that it took: on the path, and they were not seen further on.
fn ended(live: &Live, plan: &Plan, drop: &DropState) -> bool {
    plan.is_on_path(live.direction, drop.drop.netns_inum)
        && live.reached(plan, drop.start, drop.end) <= drop.reached
}

/// Whether the sender heard that its packet died.
fn sender_told(live: &Live, drop: &DropState, resets: &Resets) -> bool {
    live.told || resets.answered(&live.flow, live.start_ns(), drop.drop.time_ns)
}

/// The parts that did not reach the last station, each with the point where all of it was seen last.
fn missing(live: &Live, plan: &Plan) -> Vec<Missing> {
    let mut points: Vec<_> = live
        .hops
        .iter()
        .filter(|h| !h.again)
        .filter_map(|h| Some((plan.position(live.direction, h.hop.point)?, h)))
        .collect();
    points.sort_by_key(|(position, _)| std::cmp::Reverse(*position));
    let mut rest = vec![(live.start, live.end)];
    let mut parts = Vec::new();
    for (_, hop) in points {
        let mut left = Vec::new();
        for (start, end) in std::mem::take(&mut rest) {
            let gone = hop.cover.missing(start, end);
            if !plan.is_final(live.direction, hop.hop.point) {
                let seen = between(start, end, &gone);
                parts.extend(seen.map(|(s, e)| (s, e, Some(hop.hop.point))));
            }
            left.extend(gone);
        }
        rest = left;
    }
    parts.extend(rest.into_iter().map(|(start, end)| (start, end, None)));
    parts.retain(|(start, end, _)| start < end);
    parts.sort_unstable_by_key(|(start, ..)| *start);
    parts.truncate(Journey::MAX_MISSING);
    let dropped = |start, end| {
        let covers = |d: &DropState| d.start <= start && end <= d.end;
        live.drops.iter().any(|d| covers(d) && ended(live, plan, d))
    };
    let part = |(start, end, last_seen)| Missing {
        range: ByteRange { start, end },
        last_seen,
        dropped: dropped(start, end),
    };
    parts.into_iter().map(part).collect()
}

/// What of a range lies between gaps in it, which are in ascending order.
fn between(start: u64, end: u64, gaps: &[(u64, u64)]) -> impl Iterator<Item = (u64, u64)> + use<> {
    let ends = gaps.iter().map(|gap| gap.0).chain([end]);
    let starts = [start].into_iter().chain(gaps.iter().map(|gap| gap.1));
    starts.zip(ends).filter(|(s, e)| s < e).collect::<Vec<_>>().into_iter()
}

/// The finished journey.
pub(super) fn conclude(live: Live, outcome: Outcome, fatal: Option<usize>, plan: &Plan) -> Journey {
    let missing = match outcome {
        Outcome::Partial | Outcome::Lost | Outcome::Dropped | Outcome::Rejected => {
            missing(&live, plan)
        }
        Outcome::Delivered | Outcome::InFlight | Outcome::Incomplete | Outcome::Elsewhere => {
            Vec::new()
        }
    };
    let range = (live.start < live.end).then_some(ByteRange { start: live.start, end: live.end });
    let mut drops: Vec<_> = live.drops.into_iter().map(|d| d.drop).collect();
    let drop = fatal.map(|at| drops.remove(at));
    let mut hops: Vec<_> = live.hops.into_iter().map(|h| h.hop).collect();
    clock::sort(&mut hops);
    Journey {
        id: live.id,
        direction: live.direction,
        range,
        stream: live.stream,
        missing,
        hops,
        drop,
        side_drops: drops,
        retransmission_of: live.retransmission_of,
        duplicate_of: live.duplicate_of,
        looped: live.looped,
        outcome,
    }
}
