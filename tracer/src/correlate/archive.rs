//! Finished journeys: a bounded number whole, the rest as counts.

use std::collections::VecDeque;

use super::drops::Resets;
use super::live::Live;
use super::outcome::{Window, conclude, judge};
use super::plan::Plan;
use super::stats::Stats;
use crate::model::{Journey, Outcome};

/// Journeys remembered for a look at what happens now, once there is no room for more.
const TAIL: usize = 2048;

/// What judging a journey needs.
pub(super) struct Bench<'a> {
    pub plan: &'a Plan,
    pub window: &'a Window,
    pub resets: &'a Resets,
}

/// Finished journeys. The first ones show how it went while all was well, those that did not arrive
/// what went wrong: both are kept in preference to the rest.
#[derive(Debug)]
pub(super) struct Archive {
    keep: usize,
    arrived: Vec<Live>,
    failed: Vec<Live>,
    /// The newest of those that were only counted, for [`super::Correlator::snapshot`].
    tail: VecDeque<Live>,
    pub omitted: u64,
    pub stats: Stats,
}

impl Archive {
    pub fn new(keep: usize) -> Self {
        Self {
            keep,
            arrived: Vec::new(),
            failed: Vec::new(),
            tail: VecDeque::new(),
            omitted: 0,
            stats: Stats::default(),
        }
    }

    /// Takes a finished journey; where there is no room, counts one.
    pub fn add(&mut self, mut live: Live, bench: &Bench<'_>) {
        if !bench.window.admits(live.start_ns()) {
            return;
        }
        live.hops.shrink_to_fit();
        let (outcome, _) = judge(&live, bench.plan, bench.window, bench.resets);
        let failed =
            !matches!(outcome, Outcome::Delivered | Outcome::Incomplete | Outcome::Elsewhere);
        let full = self.arrived.len() + self.failed.len() >= self.keep;
        match (failed, full) {
            (true, false) => self.failed.push(live),
            (false, false) => self.arrived.push(live),
            (true, true) => {
                if let Some(least) = self.arrived.pop() {
                    self.count(&least, bench);
                    self.failed.push(live);
                } else {
                    self.count_last(live, bench);
                }
            }
            (false, true) => self.count_last(live, bench),
        }
    }

    /// The newest journeys that were settled, each list in the order in which they were: at most
    /// `most` of each.
    pub fn newest(&self, most: usize) -> impl Iterator<Item = &Live> {
        let last = |list: &'_ Vec<Live>| list.len().saturating_sub(most);
        self.arrived[last(&self.arrived)..]
            .iter()
            .chain(&self.failed[last(&self.failed)..])
            .chain(self.tail.iter())
    }

    /// All that are kept whole.
    pub fn kept_mut(&mut self) -> impl Iterator<Item = &mut Live> {
        self.arrived.iter_mut().chain(&mut self.failed)
    }

    fn count_last(&mut self, live: Live, bench: &Bench<'_>) {
        self.count(&live, bench);
        if self.tail.len() >= TAIL {
            self.tail.pop_front();
        }
        self.tail.push_back(live);
    }

    fn count(&mut self, live: &Live, bench: &Bench<'_>) {
        let (outcome, _) = judge(live, bench.plan, bench.window, bench.resets);
        self.stats.add(live, bench.plan, outcome, bench.window.counts(live));
        self.omitted += 1;
    }

    /// Judges and counts all that was kept; returns it in order of its start.
    pub fn close(&mut self, bench: &Bench<'_>) -> Vec<Journey> {
        let mut kept = std::mem::take(&mut self.arrived);
        kept.append(&mut self.failed);
        kept.retain(|live| bench.window.admits(live.start_ns()));
        kept.sort_unstable_by_key(|live| live.id);
        kept.into_iter()
            .map(|live| {
                let (outcome, fatal) = judge(&live, bench.plan, bench.window, bench.resets);
                self.stats.add(&live, bench.plan, outcome, bench.window.counts(&live));
                conclude(live, outcome, fatal, bench.plan)
            })
            .collect()
    }
}
