//! Correlation of synthetic traces.

mod datagrams;
mod drops;
mod endless;
mod segments;
mod streams;
mod translated;

use super::testing::*;
use super::{Correlator, Limits};
use crate::model::{Body, Direction, HopStats, Journey, Outcome, Trace};

/// Number of journeys of a direction with an outcome.
fn count(trace: &Trace, direction: Direction, outcome: Outcome) -> u64 {
    trace.outcomes.get(&(direction, outcome)).copied().unwrap_or(0)
}

/// Counts of a direction, in the order of the plan.
fn stats(trace: &Trace, direction: Direction) -> Vec<&HopStats> {
    trace.summary.iter().filter(|s| s.direction == direction).collect()
}

/// Checks what holds of every trace.
fn check(trace: &Trace) {
    for (journey, next) in trace.journeys.iter().zip(trace.journeys.iter().skip(1)) {
        assert!(journey.id < next.id && journey.start_ns() <= next.start_ns());
    }
    for journey in &trace.journeys {
        assert!(journey.hops.windows(2).all(|w| w[0].time_ns <= w[1].time_ns));
    }
    let counted: u64 = trace.outcomes.values().sum();
    let copies = trace.journeys.iter().filter(|j| j.duplicate_of.is_some()).count() as u64;
    assert!(counted + copies >= trace.journeys.len() as u64 + trace.omitted);
}

fn only(trace: &Trace) -> &Journey {
    assert_eq!(trace.journeys.len(), 1, "{:#?}", trace.journeys);
    &trace.journeys[0]
}
