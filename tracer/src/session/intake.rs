//! What comes from the nodes of a trace: put aside, decoded when there is time, and correlated; and
//! what the feeds tell besides, of losses, interfaces and nodes that are gone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Session;
use super::courtesy::Courtesy;
use super::feeds::{Arrival, Source, Waiting};
use crate::model::{Loss, Reading, Unreachable};
use crate::node::Events;
use crate::record::Recorder;

/// Records are decoded as they come below this rate; above it they are kept for later, so that
/// podtrace takes no CPU time from the traffic it watches. Bytes per look.
const BUSY_BYTES: usize = 512 << 10;

/// The same where somebody watches, who is to see what happens now: records are decoded as they come,
/// in turns of this length, so that looks come in between.
const TURN: Duration = Duration::from_millis(100);

/// With more than this undecoded, decoding does not give way to the traffic any more. Bytes.
const BEHIND_BYTES: usize = 8 << 20;

/// How often the analysis is told how far the nodes have come.
const TELL: Duration = Duration::from_millis(50);

/// Undecoded records are worked off at the latest when they take this much memory, bytes.
const DEFER_BYTES: usize = 256 << 20;

impl Session {
    /// Takes events for about `time`, and decodes them unless the traffic is heavy.
    pub(super) fn take(&mut self, time: Duration) {
        let until = Instant::now() + time;
        let mut taken = 0;
        while let Some(arrival) = self.feeds.next(until.saturating_duration_since(Instant::now())) {
            taken += self.arrived(arrival);
        }
        if self.spec.watched {
            self.work_off(Some(TURN));
        } else if taken < BUSY_BYTES || self.waiting_bytes > DEFER_BYTES {
            self.work_off(None);
        }
    }

    /// Takes everything that has happened by now.
    pub(super) fn sync(&mut self) {
        let mut arrived = Vec::new();
        self.feeds.sync(|arrival| arrived.push(arrival));
        for arrival in arrived {
            self.arrived(arrival);
        }
    }

    /// Puts aside what came; bytes of events.
    fn arrived(&mut self, arrival: Arrival) -> usize {
        match arrival {
            Arrival::Events(arrived, word) => {
                self.notices.extend(word);
                let size = arrived.events.size();
                if !arrived.events.is_empty() {
                    self.last_event = Instant::now();
                    self.waiting_bytes += size;
                } else if self.waiting.is_empty() {
                    self.worked_off(&arrived);
                    return 0;
                }
                self.waiting.push_back(arrived);
                size
            }
            Arrival::Clock(trip) => {
                self.analysis.round_trip(&trip);
                self.record(|recorder| recorder.clock(&trip));
                if self.spec.watched {
                    self.round_trips.push(trip);
                }
                0
            }
            Arrival::Gone(word) => {
                self.notices.push(word);
                0
            }
        }
    }

    /// Decodes and correlates what waits: everything, or what can be done in about `time`.
    pub(super) fn work_off(&mut self, time: Option<Duration>) {
        if self.waiting.is_empty() {
            // Tells the correlators that nothing is on its way.
            self.analysis.push(Vec::new());
            self.record(Recorder::idle);
        }
        let polite = !self.spec.watched || self.waiting_bytes < BEHIND_BYTES;
        let _courtesy = polite.then(Courtesy::begin);
        let until = time.map(|time| Instant::now() + time);
        while let Some(mut next) = self.waiting.pop_front() {
            self.waiting_bytes -= next.events.size();
            if !next.events.is_empty() {
                if self.spec.watched {
                    next.events.shrink();
                }
                self.decode(std::mem::take(&mut next.events));
            }
            self.worked_off(&next);
            if self.told.elapsed() >= TELL && !self.waiting.is_empty() {
                self.tell_reached();
            }
            if until.is_some_and(|until| Instant::now() >= until) {
                break;
            }
        }
        if self.told.elapsed() >= TELL {
            self.tell_reached();
        }
    }

    fn decode(&mut self, events: Events) {
        let events = Arc::new(events);
        self.record(|recorder| recorder.batch(&events));
        let mut decoded = Vec::with_capacity(events.len());
        events.for_each(|raw| decoded.extend(self.parser.read(raw, &mut self.unread)));
        events.release();
        self.analysis.push(decoded);
        if self.spec.watched {
            self.kept.add(events);
        }
    }

    /// Everything of a source up to there has been worked off.
    fn worked_off(&mut self, done: &Waiting) {
        if let Some(source) = self.feeds.sources.get_mut(done.source) {
            source.worked_ns = source.worked_ns.max(done.until_ns);
        }
    }

    /// Tells the analysis how far each node has come, where events of several machines have to be
    /// put in order.
    pub(super) fn tell_reached(&mut self) {
        if self.feeds.sources.iter().all(|source| !source.site.is_remote()) {
            return;
        }
        self.told = Instant::now();
        let here = self.feeds.sources.iter().any(|source| !source.site.is_remote());
        // One that is over is not waited for, once all that came of it has been worked off.
        let done = |at, s: &Source| s.over && self.waiting.iter().all(|w| w.source != at);
        let far =
            |(at, s): (usize, &Source)| (s.site.machine(), (!done(at, s)).then_some(s.worked_ns));
        let sources = self.feeds.sources.iter().enumerate();
        let mut reached: Vec<(u16, Option<u64>)> = sources.map(far).collect();
        if !here {
            reached.push((0, None));
        }
        for (machine, until_ns) in reached {
            self.analysis.reached(machine, until_ns);
            self.record(|recorder| recorder.reached(machine, until_ns));
        }
    }

    /// Whether the source's node is no longer observed.
    pub(super) fn source_gone(&self) -> bool {
        let site = &self.src.node.netns.site;
        self.feeds.sources.iter().any(|s| s.over && Arc::ptr_eq(&s.site, site))
    }

    /// Nodes that are no longer observed.
    pub(super) fn unreachable(&self) -> Vec<Unreachable> {
        let gone = |source: &Source| {
            let gone = source.gone.as_ref()?;
            let reading = Reading { machine: source.site.machine(), ns: gone.since_ns };
            Some(Unreachable {
                node: source.node.clone(),
                since_ns: self.analysis.machine_0_at(reading),
                why: gone.why.clone(),
            })
        };
        self.feeds.sources.iter().filter_map(gone).collect()
    }

    /// What was lost so far, by node.
    pub(super) fn losses(&self) -> Vec<(String, Loss)> {
        let sources = self.feeds.sources.iter();
        let mut losses: Vec<_> = sources.map(|s| (s.node.clone(), s.loss.clone())).collect();
        self.unread.add_to(&mut losses);
        losses
    }

    /// Notes interfaces that are no longer there, once each.
    pub(super) fn note_vanished(&mut self) {
        for label in self.feeds.vanished() {
            if !self.observation.vanished.contains(&label) {
                self.notices.push(format!("interface {label} vanished during the trace"));
                self.observation.vanished.push(label);
            }
        }
    }
}
