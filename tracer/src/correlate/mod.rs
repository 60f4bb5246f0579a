//! Correlation: from time-ordered events to journeys, the same packet across hops. Pure.
//!
//! Events enter in (nearly) time order through [`Correlator::push`]; a [`Trace`] leaves through
//! [`Correlator::finish`]. A packet is recognised by what no hop changes ([`identity`]): datagrams as
//! a whole or by the ranges of their fragments ([`datagram`]), TCP payload by its place in the
//! stream ([`stream`]), so that splitting and merging on the way does not matter. What address
//! translation changes is put back first ([`alias`]). Journeys are
//! matched against while they are [`live`], judged by [`outcome`], kept in a bounded [`archive`] and
//! counted in [`stats`].
//!
//! Memory is bounded on endless traces: finished journeys beyond [`Limits::keep_journeys`] are folded
//! into counts, everything remembered about the past has a limit of its own.

mod alias;
mod archive;
mod clock;
mod datagram;
mod dispatch;
mod drops;
mod errors;
mod identity;
mod live;
mod neighbors;
mod noise;
mod outcome;
mod plan;
mod ranges;
mod snapshot;
mod stats;
mod stream;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};

use alias::Aliases;
use archive::{Archive, Bench};
use datagram::Datagrams;
use drops::{Resets, Strays};
use errors::Errors;
use identity::{Ends, Identity, direction, identify};
use live::{Home, Live, Phase, Store};
use neighbors::Neighbors;
use outcome::Window;
use plan::Plan;
use stream::Streams;

use crate::model::{Body, Direction, Event, EventKind, L4, Observation, Point, Topology, Trace};

pub use clock::{Clocks, MAX_DRIFT_PPM, Placed};
pub use dispatch::{Dispatch, To};
pub use noise::harmless;
pub use outcome::IN_FLIGHT_NS;
pub use snapshot::{Recent, Scope};

/// How long a delivered journey is still matched against, ns: the receiver's refusal and copies
/// come right behind it.
const LINGER_NS: u64 = 100_000_000;
/// How long an undelivered one is, ns: the kernel gives reassembly up after 30 s, neighbour
/// resolution after 3 s.
const GIVE_UP_NS: u64 = 35_000_000_000;
/// Looked into several times for each event. The hash is seeded anew in each process, and cheaper than
/// the standard library's.
type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// Entries of the index by skb address; the addresses in use are far fewer, stale ones go.
const MAX_SKBS: usize = 262_144;

/// Bounds of what the correlator keeps.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Journeys kept whole; the rest is counted.
    pub keep_journeys: usize,
    /// Journeys matched against at a time; beyond it the oldest is judged early.
    pub live_journeys: usize,
    /// Events this much younger than the newest wait for stragglers of other CPUs, ns.
    pub reorder_ns: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { keep_journeys: 20_000, live_journeys: 65_536, reorder_ns: 2_000_000 }
    }
}

/// How far a trace has come, per direction (forward, reply).
#[derive(Debug, Default)]
struct Progress {
    started: [u64; 2],
    delivered: [u64; 2],
    pending: u64,
}

fn side(direction: Direction) -> usize {
    match direction {
        Direction::Forward => 0,
        Direction::Reply => 1,
    }
}

/// Turns events into journeys.
#[derive(Debug)]
pub struct Correlator {
    ends: Ends,
    aliases: Aliases,
    plan: Plan,
    limits: Limits,
    window: Window,
    waiting: Vec<Event>,
    store: Store,
    datagrams: Datagrams,
    streams: Streams,
    by_skb: Map<u64, u64>,
    neighbors: Neighbors,
    errors: Errors,
    resets: Resets,
    strays: Strays,
    /// Delivered journeys with the time at which they are let go.
    leaving: VecDeque<(u64, u64)>,
    archive: Archive,
    progress: Progress,
    now_ns: u64,
}

impl Correlator {
    /// A correlator for the flow between the topology's two ends. What it needs of the topology is
    /// copied.
    pub fn new(topology: &Topology, limits: Limits) -> Self {
        Self {
            ends: Ends::of(topology),
            aliases: Aliases::of(topology),
            plan: Plan::of(topology),
            limits,
            window: Window { armed_ns: 0, closed_ns: None, end_ns: u64::MAX, blind_ns: None },
            waiting: Vec::new(),
            store: Store::default(),
            datagrams: Datagrams::default(),
            streams: Streams::default(),
            by_skb: Map::default(),
            neighbors: Neighbors::default(),
            errors: Errors::default(),
            resets: Resets::default(),
            strays: Strays::of(topology),
            leaving: VecDeque::new(),
            archive: Archive::new(limits.keep_journeys),
            progress: Progress::default(),
            now_ns: 0,
        }
    }

    /// The part of time that counts, ns: from when everything was attached, and until when new packets
    /// count. To be told before the first [`Self::push`] where the progress getters are used;
    /// [`Observation`] decides in the end.
    pub fn count_within(&mut self, armed_ns: u64, closed_ns: Option<u64>) {
        (self.window.armed_ns, self.window.closed_ns) = (armed_ns, closed_ns);
    }

    /// Counts [`Self::pending`] anew, after new packets have ceased to count.
    pub fn count_pending(&mut self) {
        let open = |live: &&Live| live.phase == Phase::Open && self.window.counts(live);
        self.progress.pending = self.store.iter().filter(open).count() as u64;
    }

    /// Takes a batch of events, sorted by time within. The newest wait until the next batch, so that
    /// events which another CPU delivers a little late still find their place; an empty batch says
    /// that nothing is on its way, and none waits.
    pub fn push(&mut self, events: impl IntoIterator<Item = Event>) {
        let before = self.waiting.len();
        self.waiting.extend(events);
        let idle = self.waiting.len() == before;
        // Two sorted runs: what the stable sort of the standard library is quickest at.
        self.waiting.sort_by_key(|event| event.time_ns);
        let newest = self.waiting.last().map_or(0, |event| event.time_ns);
        let due = if idle {
            self.waiting.len()
        } else {
            let ripe = newest.saturating_sub(self.limits.reorder_ns);
            self.waiting.partition_point(|event| event.time_ns <= ripe)
        };
        let rest = self.waiting.split_off(due);
        for event in std::mem::replace(&mut self.waiting, rest) {
            self.take(&event);
        }
        self.let_go();
    }

    /// Packets that began at their first station, within the window.
    pub fn started(&self, direction: Direction) -> u64 {
        self.progress.started[side(direction)]
    }

    /// Of those, the ones that reached the last station whole.
    pub fn delivered(&self, direction: Direction) -> u64 {
        self.progress.delivered[side(direction)]
    }

    /// Packets of both directions that were neither delivered nor dropped yet.
    pub fn pending(&self) -> u64 {
        self.progress.pending
    }

    /// Judges every journey and closes the trace.
    pub fn finish(mut self, observation: &Observation) -> Trace {
        self.push([]);
        self.window = Window {
            armed_ns: observation.armed_ns,
            closed_ns: observation.closed_ns,
            end_ns: observation.end_ns,
            blind_ns: observation.blind_ns(),
        };
        let left: Vec<u64> = self.store.iter().map(|live| live.id).collect();
        for id in left {
            self.settle(id);
        }
        let bench = Bench { plan: &self.plan, window: &self.window, resets: &self.resets };
        let journeys = self.archive.close(&bench);
        let stats = self.archive.stats;
        Trace {
            journeys,
            omitted: self.archive.omitted,
            outcomes: stats.outcomes.clone(),
            retransmitted: stats.retransmitted,
            duplicated: stats.duplicated,
            summary: stats.summary(&self.plan),
            resolutions: self.neighbors.resolutions,
            icmp_errors: self.errors.reports,
            stray_drops: self.strays.kept,
            stray_omitted: self.strays.omitted,
            clocks: Vec::new(),
        }
    }

    /// Gives what was followed its times anew.
    pub fn retime(&mut self, clocks: &Clocks) {
        self.store.iter_mut().chain(self.archive.kept_mut()).for_each(|live| live.retime(clocks));
        for drop in &mut self.strays.kept {
            drop.time_ns = clocks.place(drop.clock).ns;
        }
    }

    fn take(&mut self, event: &Event) {
        self.now_ns = self.now_ns.max(event.time_ns);
        let hook = match &event.kind {
            EventKind::Drop(info) => return self.see_drop(event, info),
            EventKind::Hop(hook) => *hook,
        };
        let Some(station) = event.station else { return };
        let point = Point { station, hook };
        match &event.packet.body {
            Body::Neighbor(neighbor) => self.neighbors.see(event, neighbor),
            Body::Ip(ip) if matches!(ip.l4, L4::IcmpError { .. }) => self.see_error(event, ip),
            Body::Ip(ip) => {
                self.learn_port(ip, event);
                self.learn_known(ip, event);
                let ip = self.aliases.canonical(ip);
                let Some(direction) = direction(&self.ends, &ip) else { return };
                match identify(direction, &ip, event) {
                    Identity::Datagram(item) => self.see_datagram(point, &item, event),
                    Identity::Segment(item) => self.see_segment(point, &item, event),
                }
            }
            Body::Other(_) => {}
        }
    }

    /// Enters a new journey.
    fn begin(&mut self, mut live: Live, time_ns: u64) -> u64 {
        live.last_ns = time_ns;
        let direction = live.direction;
        let counts = live.origin && time_ns >= self.window.armed_ns && self.window.admits(time_ns);
        if counts {
            self.progress.started[side(direction)] += 1;
            self.progress.pending += 1;
        }
        self.store.insert(live)
    }

    /// After a sighting: delivered by it, or alive after all.
    fn advance(&mut self, id: u64, point: Point) {
        let Some(live) = self.store.get(id) else { return };
        if live.phase != Phase::Delivered
            && self.plan.is_final(live.direction, point)
            && live.arrived(&self.plan).1
        {
            self.change_phase(id, Phase::Delivered);
            self.leaving.push_back((self.now_ns.saturating_add(LINGER_NS), id));
        } else if live.phase == Phase::Dropped
            && live.drops.iter().all(|d| live.reached(&self.plan, d.start, d.end) > d.reached)
        {
            self.change_phase(id, Phase::Open);
        }
    }

    fn change_phase(&mut self, id: u64, phase: Phase) {
        let Some(live) = self.store.get_mut(id) else { return };
        let before = std::mem::replace(&mut live.phase, phase);
        if !self.window.counts(live) {
            return;
        }
        let pending = &mut self.progress.pending;
        *pending = match (before == Phase::Open, phase == Phase::Open) {
            (true, false) => pending.saturating_sub(1),
            (false, true) => *pending + 1,
            _ => *pending,
        };
        if phase == Phase::Delivered {
            self.progress.delivered[side(live.direction)] += 1;
        }
    }

    /// Settles what nothing further is expected of.
    fn let_go(&mut self) {
        while let Some(&(due_ns, id)) = self.leaving.front() {
            if due_ns > self.now_ns {
                break;
            }
            self.leaving.pop_front();
            self.settle(id);
        }
        while let Some(oldest) = self.store.oldest() {
            let stale = self.now_ns.saturating_sub(oldest.last_ns) > GIVE_UP_NS;
            if !stale && self.store.len() <= self.limits.live_journeys {
                break;
            }
            let id = oldest.id;
            self.settle(id);
        }
        if self.by_skb.len() > MAX_SKBS {
            let store = &self.store;
            self.by_skb.retain(|_, id| store.get(*id).is_some());
        }
    }

    /// Moves a journey from those that are matched against to the archive.
    fn settle(&mut self, id: u64) {
        let Some(live) = self.store.take(id) else { return };
        if live.phase == Phase::Open && self.window.counts(&live) {
            self.progress.pending = self.progress.pending.saturating_sub(1);
        }
        match &live.home {
            Home::Datagram(keys) => self.datagrams.forget(id, keys),
            Home::Stream => self.streams.forget(&live.flow, live.start, id),
        }
        let bench = Bench { plan: &self.plan, window: &self.window, resets: &self.resets };
        self.archive.add(live, &bench);
    }
}
