//! One clock: events of several machines, each with the time of its own clock, in one order.
//!
//! Enters: events as they come ([`Clocks::take`]), readings of clocks between question and answer
//! ([`Clocks::round_trip`]), and until when each machine's events are complete
//! ([`Clocks::reached`]). Leaves: events in the order of a common axis, their `time_ns` on it; and in
//! the end for every reading a place on the axis with the error that it has at most
//! ([`Clocks::place`]).
//!
//! The axis is the clock of the machine where the trace begins. Three steps, none of which needs the
//! one behind it: packets are recognised on both sides of a wire by what they are ([`crossing`]);
//! each crossing bounds the offset of a clock, since nothing arrives before it has left
//! ([`track`]); the offset chosen lies within all bounds, so that every packet that was recognised
//! arrives after it left. The order of events of different machines beyond that is only as good as
//! the error says.
//!
//! While a trace runs, places are as good as what is known by then, which is enough to follow
//! packets. When it is over they are given anew.
//!
//! On a single machine all this does nothing and costs nothing.

mod crossing;
#[cfg(test)]
mod tests;
mod track;

use std::collections::{BTreeMap, VecDeque};

use crate::model::{Event, Hop, NodeClock, Reading, Role, RoundTrip, Topology, UNKNOWN_ERROR_NS};
use crossing::{Crossing, Crossings};
pub use track::MAX_DRIFT_PPM;
use track::{Bound, Interval, Side, Track};

/// Events held back at most; beyond it the older half goes on in the order that can be told, and what
/// comes from before it is late.
const MAX_HELD: usize = 200_000;
/// Crossings between machines of which neither could be placed yet.
const MAX_UNPLACED: usize = 4096;
/// A drift is told when it is known this well, parts per million.
const TELL_DRIFT_PPM: f64 = 10.0;
/// Readings are kept within this, so that no sum of three overflows; 73 years of uptime.
const MAX_READING: i64 = i64::MAX / 4;

/// A place on the axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// On the axis, ns.
    pub ns: u64,
    /// By how much it may be wrong at most, ns; [`UNKNOWN_ERROR_NS`].
    pub error_ns: u64,
}

/// A clock other than the axis.
#[derive(Clone, Debug, Default)]
struct Machine {
    track: Track,
    packets: u64,
    round_trips: u64,
}

/// The clocks of a trace.
#[derive(Clone, Debug)]
pub struct Clocks {
    /// Whose clock the axis is.
    axis: u16,
    machines: BTreeMap<u16, Machine>,
    crossings: Crossings,
    unplaced: Vec<Crossing>,
    /// Events that wait for those of other machines.
    held: Vec<Event>,
    /// Up to which reading the events of a machine are complete; `None`: they are not waited for.
    complete: BTreeMap<u16, Option<u64>>,
    /// Events of a machine that came when others that belong behind them had gone on.
    late: BTreeMap<u16, u64>,
    /// Events went on up to here on the axis, ns: what is placed before now is late.
    frontier: u64,
}

/// Puts hops in the order of the axis. Those of one machine stay in the order of its clock.
pub(super) fn sort(hops: &mut Vec<Hop>) {
    hops.sort_by_key(|hop| hop.clock.ns);
    let Some(first) = hops.first() else { return };
    let machine = first.clock.machine;
    if hops.iter().all(|hop| hop.clock.machine == machine) {
        return;
    }
    let mut queues: BTreeMap<u16, VecDeque<Hop>> = BTreeMap::new();
    for hop in hops.drain(..) {
        queues.entry(hop.clock.machine).or_default().push_back(hop);
    }
    let mut now = 0;
    while let Some(queue) =
        queues.values_mut().filter(|q| !q.is_empty()).min_by_key(|q| q.front().map(|h| h.time_ns))
    {
        let Some(mut hop) = queue.pop_front() else { break };
        // Where offsets are told anew at a step, an earlier one may come out later.
        now = hop.time_ns.max(now);
        hop.time_ns = now;
        hops.push(hop);
    }
}

/// Whether what has this place surely happened up to a time; of an error that nobody knows nothing is
/// made.
fn placed_by(ns: u64, error_ns: u64, until_ns: u64) -> bool {
    let error_ns = if error_ns == UNKNOWN_ERROR_NS { 0 } else { error_ns };
    ns.saturating_add(error_ns) <= until_ns
}

fn signed(ns: u64) -> i64 {
    i64::try_from(ns).unwrap_or(MAX_READING).min(MAX_READING)
}

impl Clocks {
    /// For events at the stations of a topology.
    pub fn new(topology: &Topology) -> Self {
        let source = topology.src.as_ref().map(|end| topology.machine(&end.node));
        let mut clocks = Self {
            axis: source.unwrap_or(0),
            machines: BTreeMap::new(),
            crossings: Crossings::of(topology),
            unplaced: Vec::new(),
            held: Vec::new(),
            complete: BTreeMap::new(),
            late: BTreeMap::new(),
            frontier: 0,
        };
        for machine in topology.machines.values() {
            clocks.meet(*machine);
        }
        if clocks.axis != 0 {
            clocks.meet(0);
        }
        clocks
    }

    /// What is known of the clocks, without what is needed to learn more.
    pub fn known(&self) -> Self {
        let mut machines = self.machines.clone();
        machines.values_mut().for_each(|m| m.track.solve());
        Self {
            axis: self.axis,
            machines,
            crossings: Crossings::default(),
            unplaced: Vec::new(),
            held: Vec::new(),
            complete: BTreeMap::new(),
            late: BTreeMap::new(),
            frontier: 0,
        }
    }

    /// The same clocks, for events to come.
    pub fn again(&self) -> Self {
        Self {
            held: Vec::new(),
            complete: BTreeMap::new(),
            late: BTreeMap::new(),
            frontier: 0,
            ..self.clone()
        }
    }

    /// Whether there is more than one clock.
    pub fn several(&self) -> bool {
        !self.machines.is_empty()
    }

    fn meet(&mut self, machine: u16) {
        if machine != self.axis {
            self.machines.entry(machine).or_default();
        }
    }

    /// A machine's clock was read.
    pub fn round_trip(&mut self, trip: &RoundTrip) {
        let RoundTrip { asked_ns, reading, answered_ns } = *trip;
        if reading.machine == 0 {
            return;
        }
        self.meet(reading.machine);
        if let Some(machine) = self.machines.get_mut(&reading.machine) {
            machine.round_trips += 1;
        } else if let Some(own) = self.machines.get_mut(&0) {
            own.round_trips += 1;
        }
        let own = |ns| Reading { machine: 0, ns };
        self.cross(Crossing { left: own(asked_ns), arrived: reading, asked: true });
        self.cross(Crossing { left: reading, arrived: own(answered_ns), asked: true });
    }

    /// Bounds the clocks on both sides of a crossing.
    fn cross(&mut self, crossing: Crossing) {
        if !self.bound(&crossing) && self.unplaced.len() < MAX_UNPLACED {
            self.unplaced.push(crossing);
        }
    }

    /// False when neither side has a place on the axis yet.
    fn bound(&mut self, crossing: &Crossing) -> bool {
        let Crossing { left, arrived, asked } = *crossing;
        let least = self.interval(left).least.map(|offset| offset.saturating_add(signed(left.ns)));
        let most =
            self.interval(arrived).most.map(|offset| offset.saturating_add(signed(arrived.ns)));
        let at = signed(arrived.ns);
        if let (Some(axis), Some(machine)) = (least, self.machines.get_mut(&arrived.machine)) {
            let offset = axis.saturating_sub(at);
            machine.track.add(Bound { at, side: Side::Least, offset, certain: asked });
            machine.packets += u64::from(!asked);
        }
        let at = signed(left.ns);
        if let (Some(axis), Some(machine)) = (most, self.machines.get_mut(&left.machine)) {
            let offset = axis.saturating_sub(at);
            machine.track.add(Bound { at, side: Side::Most, offset, certain: asked });
            machine.packets += u64::from(!asked);
        }
        least.is_some() || most.is_some()
    }

    fn interval(&self, reading: Reading) -> Interval {
        if reading.machine == self.axis {
            return Interval::ZERO;
        }
        let machine = self.machines.get(&reading.machine);
        machine.map_or_else(Interval::default, |m| m.track.at(signed(reading.ns)))
    }

    /// Works off what was learned.
    fn solve(&mut self) {
        self.machines.values_mut().for_each(|m| m.track.solve());
        if self.unplaced.is_empty() {
            return;
        }
        for crossing in std::mem::take(&mut self.unplaced) {
            self.cross(crossing);
        }
        self.machines.values_mut().for_each(|m| m.track.solve());
    }

    /// Where a reading is on the axis, by all that is known.
    pub fn place(&self, reading: Reading) -> Placed {
        if reading.machine == self.axis {
            return Placed { ns: reading.ns, error_ns: 0 };
        }
        let (offset, error) = self.interval(reading).estimate();
        let ns = reading.ns.saturating_add_signed(offset);
        let error_ns = error.map_or(UNKNOWN_ERROR_NS, |e| e.min(UNKNOWN_ERROR_NS));
        Placed { ns, error_ns }
    }

    /// What machine 0 showed when another showed this, nearly.
    pub fn machine_0_at(&self, reading: Reading) -> u64 {
        if reading.machine == 0 { reading.ns } else { self.on_machine_0(self.place(reading).ns) }
    }

    /// What machine 0 showed at a place on the axis, nearly.
    pub fn on_machine_0(&self, axis_ns: u64) -> u64 {
        let offset = |ns| self.interval(Reading { machine: 0, ns }).estimate().0;
        let before = |offset: i64| axis_ns.saturating_add_signed(offset.saturating_neg());
        before(offset(before(offset(axis_ns))))
    }

    /// Takes events of whichever machines as they come, and hands on those that can be put in order:
    /// nothing that is missing of other machines lies before them, as far as [`Clocks::reached`] tells.
    pub fn take(&mut self, events: Vec<Event>) -> Vec<Event> {
        if events.iter().all(|event| event.clock.machine == self.axis) && !self.several() {
            return events;
        }
        let mut found = Vec::new();
        for event in events {
            self.meet(event.clock.machine);
            self.crossings.see(&event, |crossing| found.push(crossing));
            self.note_late(event.clock);
            self.held.push(event);
        }
        found.into_iter().for_each(|crossing| self.cross(crossing));
        if self.held.len() > MAX_HELD { self.force() } else { Vec::new() }
    }

    /// Counts an event that surely belongs before others that went on already.
    fn note_late(&mut self, clock: Reading) {
        if self.frontier == 0 {
            return;
        }
        let placed = self.place(clock);
        if placed_by(placed.ns, placed.error_ns, self.frontier) {
            *self.late.entry(clock.machine).or_default() += 1;
        }
    }

    /// Events of a machine that came too late to be put in order: packets may have been taken for
    /// several, or for lost.
    pub fn late(&self) -> impl Iterator<Item = (u16, u64)> {
        self.late.iter().map(|(machine, late)| (*machine, *late))
    }

    /// The events of a machine up to a reading of its clock have been taken, all that will come;
    /// `None`: nothing comes from it any more. Hands on the events that can be put in order now.
    pub fn reached(&mut self, machine: u16, until_ns: Option<u64>) -> Vec<Event> {
        self.meet(machine);
        self.complete.insert(machine, until_ns);
        if !self.several() {
            return Vec::new();
        }
        self.solve();
        let mut frontier = u64::MAX;
        for machine in self.machines.keys().chain([&self.axis]) {
            match self.complete.get(machine) {
                // Machine 0 has no events of its own where all nodes are elsewhere.
                None if *machine == 0 && self.axis != 0 => {}
                None => return Vec::new(),
                Some(None) => {}
                Some(Some(ns)) => {
                    let reading = Reading { machine: *machine, ns: *ns };
                    let least = self.interval(reading).least.unwrap_or_default();
                    frontier = frontier.min(ns.saturating_add_signed(least));
                }
            }
        }
        if frontier <= self.frontier {
            return Vec::new();
        }
        self.release(frontier)
    }

    /// Hands on the older half of the events, whatever may be missing before them.
    fn force(&mut self) -> Vec<Event> {
        self.solve();
        let mut due = std::mem::take(&mut self.held);
        due.iter_mut().for_each(|event| self.stamp(event));
        due.sort_by_key(|event| event.time_ns);
        self.held = due.split_off(due.len() / 2);
        let last = due.last().map_or(0, |event| event.time_ns);
        self.frontier = self.frontier.max(last);
        due
    }

    fn stamp(&self, event: &mut Event) {
        let placed = self.place(event.clock);
        (event.time_ns, event.error_ns) = (placed.ns, placed.error_ns);
    }

    /// All events that are still held.
    pub fn rest(&mut self) -> Vec<Event> {
        self.release(u64::MAX)
    }

    /// Hands on the events that surely happened up to a place on the axis: what came before them on
    /// their way has been taken, then, and what was recognised tells their order.
    fn release(&mut self, until_ns: u64) -> Vec<Event> {
        self.solve();
        if until_ns < u64::MAX {
            self.frontier = until_ns;
        }
        let mut due = Vec::new();
        for mut event in std::mem::take(&mut self.held) {
            self.stamp(&mut event);
            if placed_by(event.time_ns, event.error_ns, until_ns) {
                due.push(event);
            } else {
                self.held.push(event);
            }
        }
        due.sort_by_key(|event| event.time_ns);
        due
    }

    /// The clock of every node, against that of the node where the trace begins.
    pub fn nodes(&self, topology: &Topology) -> Vec<NodeClock> {
        let mut clocks: Vec<NodeClock> = Vec::new();
        for station in topology.stations.iter().filter(|s| s.role != Role::Wire) {
            if clocks.iter().any(|clock| clock.node == station.node) {
                continue;
            }
            clocks.push(self.node(&station.node, topology.machine(&station.node)));
        }
        clocks
    }

    fn node(&self, node: &str, number: u16) -> NodeClock {
        let known = self.machines.get(&number);
        let newest = known.and_then(|machine| machine.track.newest());
        let interval = |ns: i64| match known {
            Some(machine) => machine.track.at(ns),
            None => Interval::ZERO,
        };
        let (offset_ns, error) = interval(newest.map_or(0, |(_, last)| last)).estimate();
        let drift_ppm = newest.and_then(|(first, last)| drift(interval, first, last));
        NodeClock {
            node: node.to_owned(),
            same: number == self.axis,
            offset_ns,
            error_ns: error.map_or(UNKNOWN_ERROR_NS, |e| e.min(UNKNOWN_ERROR_NS)),
            drift_ppm,
            packets: known.map_or(0, |m| m.packets),
            round_trips: known.map_or(0, |m| m.round_trips),
            steps: known.map_or(0, |m| m.track.steps() as u64),
        }
    }
}

/// How much faster a clock runs than the axis, parts per million, from the two moments that tell most
/// about it; `None` where none do.
fn drift(interval: impl Fn(i64) -> Interval, first: i64, last: i64) -> Option<f64> {
    /// Moments looked at.
    const MOMENTS: i64 = 32;
    let moment = |i: i64| {
        let at = first + (last - first) / MOMENTS * i;
        let (offset, error) = interval(at).estimate();
        Some((at, offset, error?))
    };
    let moments: Vec<(i64, i64, u64)> = (0..=MOMENTS).filter_map(moment).collect();
    let mut best: Option<(f64, f64)> = None;
    for (i, (from, before, before_error)) in moments.iter().enumerate() {
        for (to, after, after_error) in &moments[i + 1..] {
            let span = (to - from) as f64;
            let unsure = (before_error + after_error) as f64 / span * 1e6;
            if span > 0.0 && best.is_none_or(|(_, least)| unsure < least) {
                // More to add as time passes means that it is slow.
                best = Some(((before - after) as f64 / span * 1e6, unsure));
            }
        }
    }
    let (ppm, unsure) = best?;
    (unsure <= TELL_DRIFT_PPM).then_some((ppm * 10.0).round() / 10.0)
}
