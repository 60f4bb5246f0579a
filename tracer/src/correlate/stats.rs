//! Counts over all journeys, kept and omitted: per point, and per outcome.

use std::collections::HashMap;

use super::Map;
use super::live::Live;
use super::plan::Plan;
use super::ranges::IntervalSet;
use crate::model::{Direction, HopStats, Outcome, Point};

/// Latencies kept at each point for the median; beyond it a uniform sample of this size.
const SAMPLE: usize = 4096;
/// TCP connections whose byte accounts are kept apart; beyond it the oldest half is closed.
const MAX_ACCOUNTS: u64 = 8192;

/// A uniform sample of an endless series (Vitter's algorithm R) with its exact extremes.
#[derive(Debug)]
struct Sample {
    min: u64,
    max: u64,
    seen: u64,
    values: Vec<u64>,
    /// State of a xorshift generator: reproducible, and the values are not secrets.
    random: u64,
}

impl Default for Sample {
    fn default() -> Self {
        let random = 0x9e37_79b9_7f4a_7c15;
        Self { min: u64::MAX, max: 0, seen: 0, values: Vec::new(), random }
    }
}

impl Sample {
    fn add(&mut self, value: u64) {
        self.min = self.min.min(value);
        self.max = self.max.max(value);
        self.seen += 1;
        if self.values.len() < SAMPLE {
            self.values.push(value);
            return;
        }
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let at = usize::try_from(self.random % self.seen).unwrap_or(usize::MAX);
        if let Some(slot) = self.values.get_mut(at) {
            *slot = value;
        }
    }

    /// Minimum, median, maximum; `None` when nothing was added.
    fn summary(mut self) -> Option<(u64, u64, u64)> {
        if self.values.is_empty() {
            return None;
        }
        let middle = (self.values.len() - 1) / 2;
        let (_, median, _) = self.values.select_nth_unstable(middle);
        Some((self.min, *median, self.max))
    }
}

/// Counts at one point.
#[derive(Debug, Default)]
struct PointStats {
    /// In which order points were first met, for those that were not planned.
    order: usize,
    packets: u64,
    skbs: u64,
    unique: u64,
    repeated: u64,
    latency: Sample,
    latency_error_ns: u64,
}

/// Counts of a trace.
#[derive(Debug, Default)]
pub(super) struct Stats {
    points: Map<(Direction, Point), PointStats>,
    /// Bytes of each TCP connection that came by each point.
    accounts: Map<(u64, Point), IntervalSet>,
    /// Connections below this number are closed.
    closed_accounts: u64,
    pub outcomes: HashMap<(Direction, Outcome), u64>,
    pub retransmitted: u64,
    pub duplicated: u64,
}

impl Stats {
    /// Adds a finished journey. `counts`: it was sent within the trace.
    ///
    /// Points count what was sent and has ended, and copies of it; what was under way when the trace
    /// began or ended would make them differ without a loss.
    pub fn add(&mut self, live: &Live, plan: &Plan, outcome: Outcome, counts: bool) {
        let copy = live.duplicate_of.is_some();
        self.duplicated += u64::from(copy);
        self.retransmitted += u64::from(counts && live.retransmission_of.is_some());
        if counts || !copy {
            *self.outcomes.entry((live.direction, outcome)).or_default() += 1;
        }
        if matches!(outcome, Outcome::Incomplete | Outcome::InFlight | Outcome::Elsewhere) {
            return;
        }
        if let Some(stream) = live.stream.map(|s| s.number) {
            self.limit_accounts(stream);
        }
        for hop in &live.hops {
            let order = self.points.len();
            let key = (live.direction, hop.hop.point);
            let stats = self
                .points
                .entry(key)
                .or_insert_with(|| PointStats { order, ..PointStats::default() });
            stats.packets += u64::from(counts && !hop.again);
            stats.skbs += u64::from(hop.owned);
            stats.repeated += hop.repeated;
            match live.stream.map(|s| s.number) {
                Some(stream) => {
                    let account = self.accounts.entry((stream, hop.hop.point)).or_default();
                    for &(start, end) in hop.cover.ranges() {
                        let new = account.insert(start, end);
                        stats.unique += new;
                        stats.repeated += end - start - new;
                    }
                }
                None if copy || hop.again => stats.repeated += hop.cover.len(),
                None => stats.unique += hop.cover.len(),
            }
        }
        self.add_latencies(live, plan);
    }

    fn add_latencies(&mut self, live: &Live, plan: &Plan) {
        let mut way: Vec<_> = live
            .hops
            .iter()
            .filter(|hop| !hop.again)
            .map(|hop| (plan.position(live.direction, hop.hop.point), &hop.hop))
            .collect();
        // Points outside the plan have only their time to be placed by.
        let planned = way.iter().all(|(position, ..)| position.is_some());
        if planned {
            way.sort_unstable_by_key(|(position, ..)| *position);
        } else {
            way.sort_unstable_by_key(|(_, hop)| hop.time_ns);
        }
        for pair in way.windows(2) {
            let [(_, before), (_, hop)] = pair else { continue };
            if let Some(stats) = self.points.get_mut(&(live.direction, hop.point)) {
                stats.latency.add(hop.time_ns.saturating_sub(before.time_ns));
                stats.latency_error_ns = stats.latency_error_ns.max(hop.error_since(before));
            }
        }
    }

    /// Closes the accounts of old connections.
    fn limit_accounts(&mut self, newest: u64) {
        if newest.saturating_sub(self.closed_accounts) > MAX_ACCOUNTS {
            self.closed_accounts = newest - MAX_ACCOUNTS / 2;
            let open = self.closed_accounts;
            self.accounts.retain(|(stream, _), _| *stream >= open);
        }
    }

    /// Per direction: the planned points in order, then those that were not planned.
    pub fn summary(self, plan: &Plan) -> Vec<HopStats> {
        let mut points: Vec<_> = self.points.into_iter().collect();
        points.sort_by_key(|((direction, point), stats)| {
            let position = plan.position(*direction, *point);
            (*direction, position.is_none(), position, stats.order)
        });
        points
            .into_iter()
            .map(|((direction, point), stats)| HopStats {
                direction,
                point,
                packets: stats.packets,
                skbs: stats.skbs,
                unique_bytes: stats.unique,
                repeated_bytes: stats.repeated,
                latency: stats.latency.summary(),
                latency_error_ns: stats.latency_error_ns,
            })
            .collect()
    }
}
