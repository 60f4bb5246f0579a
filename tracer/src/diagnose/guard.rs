//! The last word on every verdict: it does not contradict what the probe itself was told. However it came
//! about, a probe of which something went unanswered or was refused is not well, and one that got replies
//! to everything was neither lost nor dropped.

use super::text::of_packets;
use super::verdict::plain;
use crate::model::{Direction, ProbeResult};
use crate::report::{Confidence, Report, Status, Verdict};

/// Causes by which somebody else may have answered in the destination's place.
const OTHERS_ANSWER: [&str; 4] =
    ["bridge.duplicate-mac", "neighbor.wrong-mac", "netfilter.redirected", "pod.duplicate-address"];

/// What the probe was told.
#[derive(Clone, Copy)]
struct Told {
    sent: u64,
    replies: u64,
    refused: u64,
    unanswered: u64,
}

impl Told {
    fn of(probe: &ProbeResult) -> Self {
        let answered = probe.answered.min(probe.sent);
        let refused = probe.refused.min(answered);
        Self {
            sent: probe.sent,
            replies: answered - refused,
            refused,
            unanswered: probe.sent - answered,
        }
    }
}

/// The report, with a verdict that agrees with what its probe was told.
pub fn checked(mut report: Report) -> Report {
    let Some(told) = report.probe.as_ref().map(Told::of).filter(|told| told.sent > 0) else {
        return report;
    };
    if let Some(verdict) = corrected(&report, told) {
        let before = std::mem::replace(&mut report.verdict, verdict);
        let verdict = &report.verdict;
        let same = report.directions.iter_mut().filter(|d| Some(d.direction) == before.direction);
        for direction in same.filter(|d| d.verdict.status == before.status) {
            direction.verdict.status = verdict.status;
            direction.verdict.confidence = verdict.confidence;
        }
    }
    report
}

/// The verdict that it must be instead; `None`: it can stay.
fn corrected(report: &Report, told: Told) -> Option<Verdict> {
    let verdict = &report.verdict;
    let all_replied = told.replies == told.sent;
    match verdict.status {
        Status::Delivered => not_well(report, told),
        Status::Dropped | Status::Rejected | Status::Lost if all_replied => {
            let other = |cause: &str| OTHERS_ANSWER.contains(&cause);
            if verdict.cause.as_deref().is_some_and(other) {
                let confidence = match verdict.confidence {
                    Confidence::Proven => Confidence::Likely,
                    less => less,
                };
                return Some(Verdict { confidence, ..verdict.clone() });
            }
            Some(contradicted(verdict, told))
        }
        Status::Dropped | Status::Rejected | Status::Lost if told.replies > 0 => {
            Some(Verdict { status: Status::Degraded, ..verdict.clone() })
        }
        // Nothing but the probe was sent, nothing of it is missing, and no drop event says otherwise.
        Status::Degraded
            if all_replied
                && verdict.kernel_reason.is_none()
                && report.packets.sent <= told.sent
                && report.packets.delivered < report.packets.sent =>
        {
            Some(contradicted(verdict, told))
        }
        _ => None,
    }
}

/// Everything that was seen arrived, and yet the probe did not get replies to everything.
fn not_well(report: &Report, told: Told) -> Option<Verdict> {
    let (from, to) = (&report.src.name, report.dst.title());
    let mut parts = Vec::new();
    if told.refused > 0 {
        parts.push(format!("{} refused", of_packets(told.refused, told.sent)));
    }
    if told.unanswered > 0 {
        parts.push(format!("{} unanswered", of_packets(told.unanswered, told.sent)));
    }
    if parts.is_empty() {
        return None;
    }
    let holes = report.loss.events_lost > 0 || report.packets.unknown > 0;
    let status = match holes {
        true => Status::Inconclusive,
        false if told.refused == told.sent => Status::Rejected,
        false => Status::Degraded,
    };
    let summary = format!(
        "Of what the probe sent from {from} to {to}, {}. {}",
        parts.join(", "),
        report.verdict.summary
    );
    Some(Verdict {
        confidence: Confidence::Possible,
        evidence: report.verdict.evidence.clone(),
        fix: vec!["look after the server: does it listen, and answer everybody?".to_owned()],
        ..plain(status, Some(Direction::Reply), summary)
    })
}

/// What was seen says that packets did not arrive, and replies to all of them say that they did.
fn contradicted(verdict: &Verdict, told: Told) -> Verdict {
    let summary = format!(
        "The probe got a reply to each of its {} packets, so they arrived, by whatever way: not all of it \
         was seen. What was seen: {}",
        told.sent, verdict.summary
    );
    Verdict {
        confidence: Confidence::Possible,
        evidence: verdict.evidence.clone(),
        fix: vec!["trace for longer".to_owned()],
        ..plain(Status::Inconclusive, verdict.direction, summary)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::export::fixtures;
    use crate::report::KernelReason;

    fn report(status: Status, probe: (u64, u64, u64)) -> Report {
        let mut report = fixtures::healthy();
        let (sent, answered, refused) = probe;
        report.probe = Some(ProbeResult { sent, answered, refused, ..ProbeResult::default() });
        report.verdict.status = status;
        report.verdict.direction = (status != Status::Delivered).then_some(Direction::Forward);
        report.verdict.confidence = Confidence::Proven;
        report
    }

    #[test]
    fn what_went_unanswered_or_was_refused_is_not_well() {
        let status = |probe| checked(report(Status::Delivered, probe)).verdict.status;
        assert_eq!(status((5, 5, 0)), Status::Delivered);
        assert_eq!(status((5, 5, 5)), Status::Rejected);
        assert_eq!(status((5, 5, 1)), Status::Degraded);
        assert_eq!(status((5, 4, 0)), Status::Degraded);
        let mut blind = report(Status::Delivered, (5, 4, 0));
        blind.packets.unknown = 1;
        let verdict = checked(blind).verdict;
        assert_eq!(verdict.status, Status::Inconclusive);
        assert!(verdict.summary.contains("1 of 5 packets unanswered"), "{}", verdict.summary);
    }

    #[test]
    fn what_was_answered_was_not_lost() {
        let lost = checked(report(Status::Lost, (5, 5, 0))).verdict;
        assert_eq!((lost.status, lost.confidence), (Status::Inconclusive, Confidence::Possible));
        assert!(lost.summary.contains("a reply to each of its 5 packets"));
        assert_eq!(checked(report(Status::Dropped, (5, 2, 0))).verdict.status, Status::Degraded);
        assert_eq!(checked(report(Status::Rejected, (5, 5, 5))).verdict.status, Status::Rejected);
        assert_eq!(checked(report(Status::Lost, (5, 0, 0))).verdict.status, Status::Lost);
        // Another may have answered: then it is no more than likely.
        let mut other = report(Status::Lost, (5, 5, 0));
        other.verdict.cause = Some("pod.duplicate-address".to_owned());
        let other = checked(other).verdict;
        assert_eq!((other.status, other.confidence), (Status::Lost, Confidence::Likely));
        // Only packets of the probe, all replied to: none of them was lost.
        let mut partly = report(Status::Degraded, (5, 5, 0));
        partly.packets.delivered = 4;
        assert_eq!(checked(partly.clone()).verdict.status, Status::Inconclusive);
        partly.verdict.kernel_reason =
            Some(KernelReason { code: 6, name: "NETFILTER_DROP".into() });
        assert_eq!(checked(partly.clone()).verdict.status, Status::Degraded);
        partly.verdict.kernel_reason = None;
        partly.packets.sent = 20;
        assert_eq!(checked(partly).verdict.status, Status::Degraded);
    }

    proptest! {
        #[test]
        fn verdicts_agree_with_the_probe(
            status in prop::sample::select(vec![
                Status::Delivered, Status::Dropped, Status::Rejected, Status::Lost,
                Status::Degraded, Status::NoTraffic, Status::Inconclusive,
            ]),
            sent in 0_u64..6,
            answered in 0_u64..8,
            refused in 0_u64..8,
            packets in (0_u64..30, 0_u64..30, 0_u64..3),
            lost in 0_u64..2,
            cause in prop::option::of(prop::sample::select(vec![
                "pod.duplicate-address", "kernel.vanished", "service.no-rules",
            ])),
        ) {
            let mut report = report(status, (sent, answered, refused));
            (report.packets.sent, report.packets.delivered, report.packets.unknown) = packets;
            report.loss.events_lost = lost;
            report.verdict.cause = cause.map(str::to_owned);
            let report = checked(report);
            let told = Told::of(report.probe.as_ref().unwrap());
            let verdict = &report.verdict;
            if told.unanswered + told.refused > 0 {
                prop_assert_ne!(verdict.status.exit_code(), 0);
            }
            let dead = matches!(verdict.status, Status::Lost | Status::Dropped);
            if told.sent > 0 && told.replies == told.sent && dead {
                prop_assert_ne!(verdict.confidence, Confidence::Proven);
            }
            // Once said, it stays.
            prop_assert_eq!(checked(report.clone()), report);
        }
    }
}
