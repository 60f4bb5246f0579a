//! What else is wrong on the path: problems in the tables that did not end these packets.

use super::Case;
use super::text::point_report;
use super::verdict::plain;
use crate::expect::walk::{Problem, Seriousness};
use crate::model::{Direction, Outcome};
use crate::report::{Confidence, Severity, Status, Verdict};

/// Findings beside `verdicts`, the worst first, of equals in the order in which packets meet them.
pub(super) fn others(case: &Case<'_>, verdicts: &[&Verdict]) -> Vec<Verdict> {
    let mut found: Vec<(&Problem, Verdict)> = Vec::new();
    for walk in &case.walks {
        for problem in &walk.problems {
            let known = found.iter().any(|(p, _)| same(p, problem));
            if !known && !is_told(problem, verdicts) && !is_refuted(case, problem) {
                found.push((problem, finding(case, problem)));
            }
        }
    }
    found.sort_by_key(|(p, _)| (std::cmp::Reverse(p.seriousness), p.direction, p.position));
    found.into_iter().map(|(_, verdict)| verdict).collect()
}

/// The same entry, met in both directions or before and after the trace.
fn same(a: &Problem, b: &Problem) -> bool {
    a.cause() == b.cause()
        && a.spot.netns_inum == b.spot.netns_inum
        && (a.entry == b.entry && a.spot.interface == b.spot.interface || a.text == b.text)
}

/// Whether a verdict says it already.
fn is_told(problem: &Problem, verdicts: &[&Verdict]) -> bool {
    verdicts.iter().any(|v| {
        let node = v.r#where.as_ref().and_then(|w| w.node.as_deref());
        v.cause.as_deref() == Some(problem.cause())
            && (node == Some(problem.spot.node.as_str()) || v.summary.contains(&problem.text))
    })
}

/// Whether packets came by what should have ended them: then the tables were misread, or they say
/// something about other packets.
fn is_refuted(case: &Case<'_>, problem: &Problem) -> bool {
    let path = case.topology.path(problem.direction);
    let passed = case.trace.journeys.iter().filter(|j| j.direction == problem.direction).any(|j| {
        j.outcome == Outcome::Delivered
            || j.hops.iter().any(|h| {
                path.iter().position(|p| *p == h.point).is_some_and(|at| at >= problem.position)
            })
    });
    let arrived = case.trace.outcomes.get(&(problem.direction, Outcome::Delivered)).copied();
    problem.deadly() && (passed || arrived.unwrap_or(0) > 0)
}

fn finding(case: &Case<'_>, problem: &Problem) -> Verdict {
    let (status, severity) = match problem.seriousness {
        Seriousness::Deadly => (Status::Lost, Severity::Fatal),
        Seriousness::Harms => (Status::Degraded, Severity::Harm),
        Seriousness::Note => (Status::Delivered, Severity::Note),
    };
    let direction: Direction = problem.direction;
    Verdict {
        cause: Some(problem.cause().to_owned()),
        r#where: Some(case.spot_place(problem)),
        last_seen: problem.after.map(|p| point_report(case.topology, p)),
        next_expected: problem.before.map(|p| point_report(case.topology, p)),
        evidence: problem.entry.iter().map(|entry| case.entry_line(problem, entry)).collect(),
        fix: problem.fix(),
        confidence: if problem.certain { Confidence::Likely } else { Confidence::Possible },
        severity: Some(severity),
        ..plain(status, Some(direction), problem.text.clone())
    }
}
