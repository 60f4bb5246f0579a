//! A second, full-size probe beside the first: what small packets cannot tell about the path.

use crate::report::{Confidence, IcmpReport, Report, Status, Verdict};

/// The report of small packets that arrived, with what became of packets of `bytes` (IP length) that
/// must not be fragmented.
pub fn with_large(mut small: Report, large: Report, bytes: u32) -> Report {
    match large.verdict.status {
        Status::Rejected if let Some(told) = path_mtu_told(&large) => {
            let from = told.from_name.as_deref().unwrap_or(&told.from);
            small.notes.push(format!(
                "packets of {bytes} bytes are too big for the path; {from} tells the sender so, as is usual \
                 over IPv6 ({})",
                told.text
            ));
        }
        Status::Delivered => {
            small
                .notes
                .push(format!("packets of {bytes} bytes that must not be fragmented arrive too"));
        }
        Status::Inconclusive | Status::NoTraffic => {
            small.notes.push(format!(
                "whether packets of {bytes} bytes arrive too could not be told: {}",
                large.verdict.summary
            ));
        }
        Status::Dropped | Status::Rejected | Status::Lost | Status::Degraded => {
            let mut verdict = large.verdict;
            verdict.evidence.insert(0, small.verdict.summary);
            verdict.summary = format!(
                "Small packets arrive, packets of {bytes} bytes do not. {}",
                verdict.summary
            );
            small.verdict = Verdict {
                status: Status::Degraded,
                cause: verdict.cause.or_else(|| Some("mtu.black-hole".to_owned())),
                confidence: match verdict.confidence {
                    Confidence::Possible => Confidence::Likely,
                    other => other,
                },
                ..verdict
            };
            for direction in large.directions {
                if direction.verdict.status != Status::Delivered
                    && let Some(of) =
                        small.directions.iter_mut().find(|d| d.direction == direction.direction)
                {
                    of.verdict = small.verdict.clone();
                }
            }
            small.findings.extend(large.findings);
            // Numbered on: ids are unique within a report.
            let ids = small.journeys.iter().filter_map(|j| j.id.parse::<u64>().ok());
            let last = ids.max().unwrap_or(0);
            let shift = |id: &str| {
                id.parse::<u64>().map_or_else(|_| id.to_owned(), |n| (n + last).to_string())
            };
            for mut journey in large.journeys {
                journey.id = shift(&journey.id);
                journey.retransmission_of = journey.retransmission_of.as_deref().map(shift);
                journey.duplicate_of = journey.duplicate_of.as_deref().map(shift);
                small.journeys.push(journey);
            }
            for mut error in large.icmp_errors {
                error.about = error.about.as_deref().map(shift);
                small.icmp_errors.push(error);
            }
        }
    }
    small
}

/// Routers never fragment IPv6: to be told the path's MTU, and to send smaller packets from then on,
/// is what every sender must be ready for (RFC 8201). flannel counts on it, for it gives pods the MTU
/// that fits its IPv4 tunnel, 20 bytes more than its IPv6 tunnel takes.
fn path_mtu_told(large: &Report) -> Option<&IcmpReport> {
    // ICMPv6 packet too big (RFC 4443 section 3.2).
    large.icmp_errors.iter().find(|e| (e.r#type, e.code) == (2, 0) && e.from.contains(':'))
}
