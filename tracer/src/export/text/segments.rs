//! How the bytes of a TCP super-packet travelled, in words.

use super::units::count;
use super::words;
use crate::model::Direction;
use crate::report::{HopReport, JourneyReport, MissingReport, Report};

/// Missing parts told one by one.
const TOLD: usize = 3;

/// `bytes 1–65160 left in one skb of 45 segments, 44 segments crossed, 63712 bytes arrived in 3 skbs;
/// segment 17 was lost behind A.ens33 out, its retransmission arrived 212 ms later`. Nothing for one
/// segment that arrived.
pub(in crate::export) fn in_words(report: &Report, journey: &JourneyReport) -> Option<String> {
    let origin = journey.hops.first().filter(|hop| hop.inner.proto == "tcp")?;
    let all = journey.bytes?;
    let carried = journey.hops.iter().map(|hop| hop.segments.max(hop.skbs)).max()?;
    if carried <= 1 && journey.missing.is_empty() {
        return None;
    }
    let bytes = match journey.first_byte {
        Some(first) => format!("bytes {first}–{}", first + all.max(1) - 1),
        None => format!("{all} bytes"),
    };
    let mut text = format!("{bytes} left in {}", skbs(origin));
    if origin.segments > origin.skbs {
        text += &format!(" of {}", count(u64::from(origin.segments), "segment"));
    }
    let most = journey.hops.iter().max_by_key(|hop| hop.skbs);
    if let Some(most) = most.filter(|most| most.skbs > origin.skbs) {
        text += &format!(", {} crossed", count(u64::from(most.skbs), "segment"));
    }
    text += &match arrival(report, journey) {
        Some(hop) if hop.bytes == all => format!(", all arrived in {}", skbs(hop)),
        Some(hop) => format!(", {} arrived in {}", count(hop.bytes, "byte"), skbs(hop)),
        None => ", nothing arrived".to_owned(),
    };
    for part in journey.missing.iter().take(TOLD) {
        text += "; ";
        text += &fate(part);
    }
    if journey.missing.len() > TOLD {
        text += &format!("; {} more parts did not arrive", journey.missing.len() - TOLD);
    }
    Some(text)
}

fn skbs(hop: &HopReport) -> String {
    if hop.skbs == 1 { "one skb".to_owned() } else { format!("{} skbs", hop.skbs) }
}

/// The journey at the last planned point of its direction.
fn arrival<'a>(report: &Report, journey: &'a JourneyReport) -> Option<&'a HopReport> {
    let of = |d: Direction| report.directions.iter().find(|r| r.direction == d);
    let planned = of(journey.direction)?.hops.iter().rfind(|hop| hop.expected)?;
    journey.hops.iter().find(|hop| hop.point == planned.point)
}

fn fate(part: &MissingReport) -> String {
    let (what, its, was) = match part.first_segment.zip(part.last_segment) {
        Some((first, last)) if first < last => {
            (format!("segments {first} to {last}"), "their", "were")
        }
        Some((first, _)) => (format!("segment {first}"), "its", "was"),
        None => (count(part.bytes, "byte"), "their", "were"),
    };
    let mut text = format!("{what} {was} {}", if part.dropped { "dropped" } else { "lost" });
    if let Some(point) = &part.last_seen {
        text += &format!(" behind {}", words::label_hook(point));
    }
    if let Some(after) = part.arrived_after_ns {
        let (after, error) = (super::duration(after), super::within(part.arrived_error_ns));
        text += &format!(", {its} retransmission arrived {after}{error} later");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::super::fixtures;
    use super::*;

    #[test]
    fn a_lost_segment_is_told_with_what_brought_it_later() {
        let report = fixtures::tcp();
        let text = |i: usize| in_words(&report, &report.journeys[i]);
        assert_eq!(
            text(2).unwrap(),
            "bytes 1449–66608 left in one skb of 45 segments, 45 segments crossed, 63712 bytes \
             arrived in one skb; segment 17 was lost behind A.ens33 out, its retransmission arrived \
             212 ms ±48.0 µs later"
        );
        assert_eq!(text(1), None, "an acknowledgement has no bytes");
        let mut part = report.journeys[2].missing[0].clone();
        (part.last_segment, part.dropped, part.arrived_after_ns) = (Some(19), true, None);
        assert_eq!(fate(&part), "segments 17 to 19 were dropped behind A.ens33 out");
        (part.first_segment, part.last_seen) = (None, None);
        assert_eq!(fate(&part), "1448 bytes were dropped");
    }
}
