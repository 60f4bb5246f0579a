//! What was seen last, kept for whoever watches: to be saved, or looked at byte by byte.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::Session;
use super::recording::begin;
use crate::decode::RawEvent;
use crate::expect::Family;
use crate::facts::{self, Collected, PathFacts};
use crate::model::{Reading, RoundTrip, Topology};
use crate::node::Events;
use crate::record::{
    End, Facts, Header, Observed, Record, Recorder, Stage, StageKind, Summary, Target, When,
};

/// Records that are kept, bytes.
const KEPT_BYTES: usize = 32 << 20;

/// The newest batches of records.
#[derive(Debug, Default)]
pub(super) struct Kept {
    batches: VecDeque<Arc<Events>>,
    bytes: usize,
    /// Records that had to go.
    gone: u64,
}

impl Kept {
    /// Adds a batch; the oldest go where there is no room.
    pub fn add(&mut self, batch: Arc<Events>) {
        self.bytes += batch.size();
        self.batches.push_back(batch);
        while self.bytes > KEPT_BYTES
            && let Some(oldest) = self.batches.pop_front()
        {
            self.bytes -= oldest.size();
            self.gone += oldest.len() as u64;
        }
    }
}

/// What was seen so far, as far as it is kept, to be written while the trace goes on.
#[derive(Debug)]
pub struct Excerpt {
    header: Header,
    paths: Vec<(Family, Arc<Topology>)>,
    before: Collected<PathFacts>,
    observed: Observed,
    round_trips: Vec<RoundTrip>,
    batches: Vec<Arc<Events>>,
    gone: u64,
}

impl Session {
    /// What was seen so far; `command` is how podtrace was called. Earlier records than those that
    /// are kept are missing: the excerpt then begins later.
    pub fn excerpt(&self, command: Vec<String>) -> Excerpt {
        let mut observation = self.observation.clone();
        observation.end_ns = self.known_until();
        observation.loss = self.losses();
        observation.unreachable = self.unreachable();
        let mut started = self.started;
        let first = self.kept.batches.front().and_then(|events| events.first());
        let first = first.map(|reading| self.analysis.machine_0_at(reading));
        match first {
            Some(first) if self.kept.gone > 0 => {
                let later = first.saturating_sub(observation.armed_ns);
                started = started.saturating_add(Duration::from_nanos(later)).unwrap_or(started);
                observation.armed_ns = first;
                // It tells of the whole time.
                observation.probe = None;
            }
            _ => observation.probe = self.probe_so_far(observation.end_ns),
        }
        let duration_ns = observation.end_ns.saturating_sub(observation.armed_ns);
        Excerpt {
            header: self.header(started, command),
            paths: self.paths.clone(),
            before: self.before.clone(),
            observed: Observed { duration_ns, observation },
            round_trips: self.round_trips.clone(),
            batches: self.kept.batches.iter().cloned().collect(),
            gone: self.kept.gone,
        }
    }

    /// Gives `each` the kept records of these times.
    pub fn records_of(&self, times: &HashSet<Reading>, mut each: impl FnMut(RawEvent<'_>)) {
        let nanoseconds: HashSet<u64> = times.iter().map(|reading| reading.ns).collect();
        for events in &self.kept.batches {
            events.of_times(
                |ns| nanoseconds.contains(&ns),
                |raw| {
                    if times.contains(&raw.reading()) {
                        each(raw);
                    }
                },
            );
        }
    }
}

impl Excerpt {
    /// Records that are no longer kept.
    pub fn missing(&self) -> u64 {
        self.gone
    }

    /// Writes it as a recording, with the state of the namespaces as it is now. Takes its time.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(self, target: Target) -> io::Result<Summary> {
        // Without it, the recording has less to tell.
        let after = facts::recollect(&self.before);
        let mut recorder = Recorder::start(target, self.header)?;
        recorder.patient();
        begin(&mut recorder, &self.paths, self.before.facts);
        if self.gone > 0 {
            let note = format!("{} earlier events were not kept, and are missing", self.gone);
            recorder.record(Record::Note(note));
        }
        recorder.record(Record::Observation(Box::new(self.observed.clone())));
        self.round_trips.iter().for_each(|trip| recorder.clock(trip));
        for batch in &self.batches {
            recorder.batch(batch);
        }
        recorder.idle();
        let stage = Stage { kind: StageKind::Main, mtu: None, observed: self.observed };
        recorder.record(Record::Stage(Box::new(stage)));
        if let Ok(facts) = after {
            let facts = Facts { when: When::After, facts };
            recorder.record(Record::Facts(Box::new(facts)));
        }
        let unrecorded = recorder.unrecorded();
        recorder.record(Record::End(Box::new(End { unrecorded, verdict: None, continued: false })));
        recorder.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{EventKind, Hook};

    /// Events of four packets of a quarter of a MiB.
    fn some(n: u8) -> Arc<Events> {
        let event = RawEvent {
            machine: 0,
            time_ns: u64::from(n),
            netns_inum: 1,
            ifindex: 1,
            skb: 1,
            len: 1,
            gso: None,
            kind: EventKind::Hop(Hook::Ingress),
            l3_offset: 0,
            protocol: 0,
            data: vec![n; 256 << 10].into(),
        };
        Arc::new(Events::Named(vec![event; 4]))
    }

    #[test]
    fn the_newest_are_kept() {
        let mut kept = Kept::default();
        (0..100).for_each(|n| kept.add(some(n)));
        assert!(kept.bytes <= KEPT_BYTES);
        let sizes: usize = kept.batches.iter().map(|batch| batch.size()).sum();
        assert_eq!(sizes, kept.bytes);
        let left: usize = kept.batches.iter().map(|batch| batch.len()).sum();
        assert_eq!(kept.gone + left as u64, 400);
        assert_eq!(
            kept.batches.back().and_then(|batch| batch.first()).map(|first| first.ns),
            Some(99)
        );
    }
}
