//! Bytes of TCP super-packets that did not arrive: which segments they were, and what brought them later.

use super::Case;
use super::build::known;
use super::text::point_report;
use crate::model::{Hop, Journey, Missing, Point};
use crate::report::MissingReport;

/// The parts that did not arrive, and what became of them later.
pub(super) fn missing(case: &Case<'_>, journey: &Journey) -> Vec<MissingReport> {
    let Some(range) = journey.range.filter(|_| journey.stream.is_some()) else { return Vec::new() };
    let parts = journey.missing.iter().map(|part| {
        let later = sent_again(case, journey, part);
        MissingReport {
            offset: part.range.start - range.start,
            bytes: part.range.end - part.range.start,
            first_segment: segment(journey, part.range.start),
            last_segment: segment(journey, part.range.end - 1),
            last_seen: part.last_seen.map(|point| point_report(case.topology, point)),
            dropped: part.dropped,
            resent: later.map(|(again, _)| again.id.to_string()),
            arrived_after_ns: later
                .map(|(_, arrival)| arrival.time_ns.saturating_sub(journey.start_ns())),
            arrived_error_ns: later.and_then(|(_, arrival)| {
                known(journey.hops.first().map_or(0, |first| arrival.error_since(first)))
            }),
        }
    });
    parts.collect()
}

/// Which segment of the super-packet a byte of the connection is in, from 1.
fn segment(journey: &Journey, byte: u64) -> Option<u64> {
    let size = u64::from(journey.hops.first()?.segment_size?);
    Some(byte.checked_sub(journey.range?.start)?.checked_div(size)? + 1)
}

/// The sending that brought the first byte of a part, with its arrival.
fn sent_again<'a>(
    case: &Case<'a>,
    journey: &Journey,
    part: &Missing,
) -> Option<(&'a Journey, &'a Hop)> {
    let stream = journey.stream?.number;
    let from = case.trace.journeys.partition_point(|j| j.id <= journey.id);
    let arrival = |j: &'a Journey| {
        let range = j.range.filter(|_| j.stream.is_some_and(|s| s.number == stream))?;
        let byte = part.range.start;
        let holds = (range.start..range.end).contains(&byte);
        let lacks = j.missing.iter().any(|m| (m.range.start..m.range.end).contains(&byte));
        let last = destination(case, j)?;
        let hop = j.hops.iter().find(|hop| hop.point == last)?;
        (holds && !lacks).then_some((j, hop))
    };
    case.trace.journeys[from..].iter().find_map(arrival)
}

/// The last planned point of a journey's direction.
fn destination(case: &Case<'_>, journey: &Journey) -> Option<Point> {
    case.topology.path(journey.direction).last().copied()
}
