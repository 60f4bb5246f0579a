//! A look at what happens now, while events go on coming: the newest journeys, judged as if the trace
//! ended here. Costs the same however long the trace runs.

use super::Correlator;
use super::archive::Bench;
use super::live::Live;
use super::outcome::{Window, conclude, judge};
use super::stats::Stats;
use crate::model::{Observation, Outcome, Trace};

/// What a look takes in.
#[derive(Clone, Copy, Debug)]
pub struct Scope {
    /// Journeys that began this shortly ago, ns.
    pub window_ns: u64,
    /// Of those, at most this many are counted: the newest.
    pub counted: usize,
    /// Of the counted ones, at most this many are listed, half of them those that failed.
    pub listed: usize,
}

impl Default for Scope {
    fn default() -> Self {
        Self { window_ns: 10_000_000_000, counted: 4096, listed: 256 }
    }
}

/// What a look sees.
#[derive(Clone, Debug, Default)]
pub struct Recent {
    /// As of a trace that began `span_ns` ago.
    pub trace: Trace,
    /// Time that it covers, ns; shorter than the window where packets are many or the trace is young.
    pub span_ns: u64,
}

impl Correlator {
    /// Kernel time of the newest event that was taken, ns; 0 before the first.
    pub fn newest_ns(&self) -> u64 {
        self.now_ns
    }

    /// The newest journeys, judged as if the trace ended at [`Observation::end_ns`].
    pub fn snapshot(&self, observation: &Observation, scope: Scope) -> Recent {
        let end_ns = observation.end_ns;
        let mut since_ns = end_ns.saturating_sub(scope.window_ns).max(observation.armed_ns);
        let mut recent: Vec<&Live> = self
            .store
            .iter()
            .rev()
            .take(scope.counted)
            .chain(self.archive.newest(scope.counted))
            .filter(|live| (since_ns..=end_ns).contains(&live.start_ns()))
            .collect();
        recent.sort_unstable_by_key(|live| live.id);
        if recent.len() > scope.counted {
            recent.drain(..recent.len() - scope.counted);
            since_ns = recent.iter().map(|l| l.start_ns()).min().unwrap_or(since_ns);
        }
        let blind_ns = observation.blind_ns();
        let closed_ns = observation.closed_ns;
        let window = Window { armed_ns: since_ns, closed_ns, end_ns, blind_ns };
        let bench = Bench { plan: &self.plan, window: &window, resets: &self.resets };
        let mut stats = Stats::default();
        let judged: Vec<_> = recent
            .into_iter()
            .map(|live| {
                let (outcome, fatal) = judge(live, bench.plan, bench.window, bench.resets);
                stats.add(live, bench.plan, outcome, bench.window.counts(live));
                (live, outcome, fatal)
            })
            .collect();
        let omitted = judged.len().saturating_sub(scope.listed);
        let journeys = choose(judged, scope.listed)
            .into_iter()
            .map(|(live, outcome, fatal)| conclude(live.clone(), outcome, fatal, &self.plan));
        let trace = Trace {
            journeys: journeys.collect(),
            omitted: omitted as u64,
            outcomes: stats.outcomes.clone(),
            retransmitted: stats.retransmitted,
            duplicated: stats.duplicated,
            summary: stats.summary(&self.plan),
            resolutions: recently(&self.neighbors.resolutions, since_ns, |r| r.time_ns),
            icmp_errors: recently(&self.errors.reports, since_ns, |r| r.time_ns),
            stray_drops: recently(&self.strays.kept, since_ns, |d| d.time_ns),
            stray_omitted: self.strays.omitted.clone(),
            clocks: Vec::new(),
        };
        Recent { trace, span_ns: end_ns.saturating_sub(since_ns) }
    }
}

/// At most `most` of the journeys, in their order: the newest that failed for one half, and the
/// newest of the others.
fn choose<T>(
    mut judged: Vec<(T, Outcome, Option<usize>)>,
    most: usize,
) -> Vec<(T, Outcome, Option<usize>)> {
    let fine = |outcome: Outcome| {
        matches!(
            outcome,
            Outcome::Delivered | Outcome::Incomplete | Outcome::InFlight | Outcome::Elsewhere
        )
    };
    let failed = judged.iter().filter(|(_, outcome, _)| !fine(*outcome)).count();
    let arrived = judged.len() - failed;
    let failed_kept = failed.min((most / 2).max(most.saturating_sub(arrived)));
    let (mut skip_failed, mut skip_fine) =
        (failed - failed_kept, arrived.saturating_sub(most - failed_kept));
    judged.retain(|(_, outcome, _)| {
        let skip = if fine(*outcome) { &mut skip_fine } else { &mut skip_failed };
        let keep = *skip == 0;
        *skip = skip.saturating_sub(1);
        keep
    });
    judged
}

fn recently<T: Clone>(all: &[T], since_ns: u64, time_ns: impl Fn(&T) -> u64) -> Vec<T> {
    /// More is not looked at, however many there are.
    const MOST: usize = 1024;
    let newest = &all[all.len().saturating_sub(MOST)..];
    newest.iter().filter(|item| time_ns(item) >= since_ns).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_journeys_are_listed_in_preference_and_order_stays() {
        let judged = |outcomes: &[Outcome]| {
            outcomes.iter().enumerate().map(|(i, o)| (i, *o, None)).collect::<Vec<_>>()
        };
        use Outcome::{Delivered, Dropped};
        let list = [Dropped, Dropped, Delivered, Delivered, Delivered, Dropped, Delivered];
        let ids = |most| choose(judged(&list), most).iter().map(|j| j.0).collect::<Vec<_>>();
        assert_eq!(ids(4), [1, 4, 5, 6]);
        assert_eq!(ids(100), [0, 1, 2, 3, 4, 5, 6]);
        let all_failed = choose(judged(&[Dropped; 6]), 4);
        assert_eq!(all_failed.iter().map(|j| j.0).collect::<Vec<_>>(), [2, 3, 4, 5]);
    }
}
