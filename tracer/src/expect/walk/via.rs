//! Over another node that translates: a pod sends to the node port of a node that is not its own. Two
//! ways, one behind the other: to that node itself, and from there to the backend.

use super::{FlowSpec, Problem, ProblemKind, Stage, Step, StepOutcome, Walk};
use crate::expect;
use crate::facts::PathFacts;
use crate::model::{Direction, End, EndKind, Point, Topology};

/// The walk over the node that translates; `None` where it is no other than the source's, and where
/// answers do not come by it.
pub(super) fn walk(
    facts: &PathFacts,
    topology: &Topology,
    flow: &FlowSpec,
    direction: Direction,
) -> Option<Walk> {
    let service = facts.dst.service.as_ref().filter(|s| s.leads.translates() && !s.dead)?;
    if facts.src.kind == EndKind::Outside {
        return None;
    }
    let via = End { kind: EndKind::Node, ..facts.translator()? };
    let taken = |ip| facts.node(&via.node).is_some_and(|node| node.facts.holder(ip).is_some());
    let masqueraded = topology.aliases.iter().any(|a| a.source && taken(a.ip));
    if direction == Direction::Reply && !masqueraded {
        return None;
    }
    let ends = |src: &End, dst: &End| PathFacts {
        src: src.clone(),
        dst: End { service: None, ..dst.clone() },
        backends: Vec::new(),
        ..facts.clone()
    };
    let near = part(&ends(&facts.src, &via), topology, service.port, flow, direction)?;
    let far = part(&ends(&via, &facts.dst), topology, flow.dport, flow, direction)?;
    let inum = facts.node(&via.node)?.facts.inum;
    Some(match direction {
        Direction::Forward => joined(sent_on(near, inum), far),
        Direction::Reply => joined(sent_on(far, inum), near),
    })
}

/// The walk to the node, up to where that translates: what it would do with packets of its own comes to
/// nothing. Answers are translated back before they are routed (PREROUTING), requests by the rule that
/// says so, or by IPVS at INPUT.
fn sent_on(mut walk: Walk, via: u32) -> Walk {
    let problems = &walk.problems;
    let there = |step: &Step| step.spot.netns_inum == via;
    let translates = |step: &Step| match step.outcome {
        StepOutcome::Stops(at) => matches!(
            problems.get(at).map(|p| &p.kind),
            Some(ProblemKind::Firewall { redirect: Some(_), .. })
        ),
        _ => false,
    };
    let by_rule = walk.steps.iter().position(|step| there(step) && translates(step));
    let own = |step: &Step| {
        there(step)
            && match walk.direction {
                Direction::Forward => step.stage == Stage::Socket,
                Direction::Reply => matches!(step.stage, Stage::Input | Stage::Socket),
            }
    };
    let end = by_rule.map(|at| at + 1).or_else(|| walk.steps.iter().position(own));
    let Some(end) = end else { return walk };
    walk.steps.truncate(end);
    if by_rule.is_some()
        && let Some(last) = walk.steps.last_mut()
    {
        last.outcome = StepOutcome::Passes;
    }
    let stops = |step: &Step| match step.outcome {
        StepOutcome::Stops(at) => Some(at + 1),
        _ => None,
    };
    let left = walk.steps.iter().filter_map(stops).max().unwrap_or(0);
    walk.problems.truncate(left);
    walk
}

/// One of the two, its points as `topology` numbers them.
fn part(
    facts: &PathFacts,
    topology: &Topology,
    dport: Option<u16>,
    flow: &FlowSpec,
    direction: Direction,
) -> Option<Walk> {
    let own = expect::topology(facts, flow.family).ok()?;
    let flow = FlowSpec { dport, ..flow.clone() };
    let mut walk = super::walk(facts, &own, &flow, direction);
    let point = |point: Option<Point>| {
        let point = point?;
        let station = own.station(point.station);
        let station = topology.find(station.netns_inum, station.ifindex)?;
        Some(Point { station, hook: point.hook })
    };
    for step in &mut walk.steps {
        step.point = point(step.point);
    }
    let path = topology.path(direction);
    for problem in &mut walk.problems {
        (problem.after, problem.before) = (point(problem.after), point(problem.before));
        let at = |wanted: Option<Point>| path.iter().position(|p| Some(*p) == wanted);
        let behind = at(problem.after).map(|at| at + 1);
        problem.position = at(problem.before).or(behind).unwrap_or(problem.position);
    }
    Some(walk)
}

fn joined(first: Walk, second: Walk) -> Walk {
    let before = first.problems.len();
    let shifted = second.steps.into_iter().map(|step| Step {
        outcome: match step.outcome {
            StepOutcome::Stops(at) => StepOutcome::Stops(at + before),
            other => other,
        },
        ..step
    });
    let steps = first.steps.into_iter().chain(shifted).collect();
    let problems: Vec<Problem> = first.problems.into_iter().chain(second.problems).collect();
    Walk { direction: first.direction, steps, problems }
}
