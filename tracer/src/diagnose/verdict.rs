//! The verdict of each direction and of the whole, from outcomes alone. What lies behind a failure
//! is told by [`super::failure`] and [`super::absent`].

use super::Case;
use super::absent::{no_traffic, unanswered};
use super::failure::{Failures, VANISHED, degraded};
use super::outside;
use super::text::of_packets;
use crate::model::{Direction, Outcome};
use crate::report::{Confidence, Status, Verdict};

/// Packets of a direction, by what became of them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Arrived whole.
    pub delivered: u64,
    /// Dropped, rejected, lost, or arrived in part.
    pub failed: u64,
    /// Under way when the trace ended.
    pub in_flight: u64,
    /// Under way when it began.
    pub incomplete: u64,
    /// To backends of the service that are not followed.
    pub elsewhere: u64,
}

impl Counts {
    /// The counts of a direction.
    pub fn of(case: &Case<'_>, direction: Direction) -> Self {
        let mut counts = Self::default();
        for ((of, outcome), count) in &case.trace.outcomes {
            if *of == direction {
                *match outcome {
                    Outcome::Delivered => &mut counts.delivered,
                    Outcome::InFlight => &mut counts.in_flight,
                    Outcome::Incomplete => &mut counts.incomplete,
                    Outcome::Elsewhere => &mut counts.elsewhere,
                    Outcome::Dropped | Outcome::Rejected | Outcome::Lost | Outcome::Partial => {
                        &mut counts.failed
                    }
                } += count;
            }
        }
        counts
    }

    /// Packets whose fate is known.
    pub fn ended(&self) -> u64 {
        self.delivered + self.failed
    }

    /// Packets that began within the trace.
    pub fn sent(&self) -> u64 {
        self.ended() + self.in_flight
    }
}

/// A verdict that blames nobody.
pub(super) fn plain(status: Status, direction: Option<Direction>, summary: String) -> Verdict {
    Verdict {
        status,
        direction,
        cause: None,
        r#where: None,
        last_seen: None,
        next_expected: None,
        kernel_reason: None,
        summary,
        evidence: Vec::new(),
        fix: Vec::new(),
        rule: None,
        confidence: Confidence::Proven,
        severity: None,
    }
}

/// The verdict of one direction, and what else failed in it, worst first.
pub fn of_direction(case: &Case<'_>, direction: Direction) -> (Verdict, Vec<Verdict>) {
    let counts = Counts::of(case, direction);
    let (from, to) = case.ends(direction);
    if counts.ended() == 0 {
        let gone = case.observation.unreachable.first().map(|gone| &gone.node);
        let verdict = if let (Some(gone), true) = (gone, counts.in_flight > 0) {
            let sent = of_packets(counts.in_flight, counts.in_flight);
            let text = format!(
                "What became of {sent} from {from} is not known: node {gone} could not be observed."
            );
            let fix = vec![format!("look after node {gone}, and trace again")];
            Verdict { fix, ..unsure(direction, text) }
        } else if counts.in_flight > 0 {
            let sent = of_packets(counts.in_flight, counts.in_flight);
            unsure(direction, format!("The trace ended while {sent} from {from} were under way."))
        } else if counts.elsewhere > 0 {
            let n = counts.elsewhere;
            let text = format!("All {n} packets from {from} went to other backends than {to}.");
            let fix = vec!["send more packets, or trace the backends one by one".to_owned()];
            Verdict { fix, ..unsure(direction, text) }
        } else if counts.incomplete > 0 {
            let seen = counts.incomplete;
            unsure(
                direction,
                format!("No packet from {from} was seen from its beginning, {seen} only later."),
            )
        } else {
            no_traffic(case, direction)
        };
        return (verdict, Vec::new());
    }
    if counts.failed == 0 {
        let all = match counts.delivered {
            1 => "The packet".to_owned(),
            n => format!("All {n} packets"),
        };
        let summary = match outside::left(case, direction) {
            Some(left) => format!("{all} from {from} to {to} {left}."),
            None => format!("{all} from {from} reached {to}."),
        };
        let mut verdict = plain(Status::Delivered, None, summary);
        if let Some(losses) = case.observation.losses() {
            // Of packets none of whose events came through nothing is known.
            verdict.confidence = Confidence::Likely;
            verdict.evidence.push(format!("{losses}: there may have been other packets"));
        } else if let Some(gone) = case.observation.unreachable.first() {
            verdict.confidence = Confidence::Likely;
            verdict.evidence.push(format!(
                "node {} could not be observed to the end: {} packets more were under way",
                gone.node, counts.in_flight
            ));
        }
        return (verdict, Vec::new());
    }
    let answered = case.observation.probe.as_ref().map_or(0, |probe| probe.answered);
    let mut verdicts = Failures::of(case, direction, counts).verdicts();
    let unexplained = |verdict: &Verdict| {
        let unknown = verdict.cause.as_deref().is_none_or(|cause| cause == VANISHED);
        verdict.status == Status::Lost && (unknown || verdict.is_on_wire())
    };
    if counts.delivered == 0 && answered > 0 && verdicts.first().is_none_or(unexplained) {
        // Answers prove that packets arrived: not all that happened was seen. (A cause may know who
        // else answers.)
        let answers = if answered == 1 { "answer" } else { "answers" };
        let text = format!(
            "No packet from {from} was seen at {to}, and yet the probe got {answered} {answers}: the \
             observation is incomplete, or the packets took another way."
        );
        return (unsure(direction, text), verdicts);
    }
    if verdicts.is_empty() {
        // Only when no failed journey was kept.
        let failed = of_packets(counts.failed, counts.ended());
        let summary = format!("{failed} from {from} did not reach {to}.");
        let verdict = plain(degraded(counts, Status::Lost), Some(direction), summary);
        return (verdict, Vec::new());
    }
    let first = verdicts.remove(0);
    (first, verdicts)
}

/// The overall verdict, further findings and remarks.
pub struct Overall {
    /// That of the first direction that failed.
    pub verdict: Verdict,
    /// What else is wrong, worst first.
    pub findings: Vec<Verdict>,
    /// What is not wrong but worth knowing.
    pub notes: Vec<String>,
}

/// The whole from its two directions: that of the first that fails, but one in which nothing comes
/// through goes before one in which something does.
pub fn overall(
    case: &Case<'_>,
    forward: (Verdict, Vec<Verdict>),
    reply: (Verdict, Vec<Verdict>),
) -> Overall {
    let mut notes = Vec::new();
    let (forward, mut findings) = forward;
    let (reply, more) = reply;
    let quiet = |v: &Verdict| v.status == Status::NoTraffic;
    let dead = |v: &Verdict| matches!(v.status, Status::Dropped | Status::Rejected | Status::Lost);
    let verdict = if quiet(&forward) && !quiet(&reply) {
        notes.push(forward.summary);
        reply
    } else if forward.status == Status::Degraded && dead(&reply) {
        findings.insert(0, forward);
        reply
    } else if forward.status != Status::Delivered {
        if !quiet(&reply) && reply.status != Status::Delivered {
            findings.push(reply);
        }
        forward
    } else if !quiet(&reply) && reply.status != Status::Delivered {
        reply
    } else {
        let answers = unanswered(case, quiet(&reply));
        notes.extend(answers.note);
        answers.verdict.unwrap_or_else(|| delivered(forward, &reply))
    };
    findings.extend(more);
    Overall { verdict, findings, notes }
}

/// Both directions are well, or there was only one.
fn delivered(forward: Verdict, reply: &Verdict) -> Verdict {
    if reply.status == Status::Delivered {
        Verdict { summary: format!("{} {}", forward.summary, reply.summary), ..forward }
    } else {
        forward
    }
}

/// Nothing can be said.
fn unsure(direction: Direction, summary: String) -> Verdict {
    Verdict {
        confidence: Confidence::Possible,
        fix: vec!["trace for longer, or with --probe".to_owned()],
        ..plain(Status::Inconclusive, Some(direction), summary)
    }
}
