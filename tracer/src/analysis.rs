//! Analysis: from topologies, events and observation to the report. Pure.
//!
//! The one way in which a report is made, live and when a recording is replayed: the same calls in
//! the same order give the same report.

use std::cmp::Reverse;
use std::sync::Arc;

use crate::correlate::{Clocks, Correlator, Dispatch, Limits, Scope, To};
use crate::diagnose::backends::{self, Leg as BackendLeg};
use crate::diagnose::{self, Meta};
use crate::expect::Family;
use crate::facts::PathFacts;
use crate::model::{
    Body, Direction, End, Event, Loss, Observation, Reading, RoundTrip, Topology, Trace,
    Unreachable,
};
use crate::report::Report;

/// One address family of the flow, while events come.
#[derive(Debug)]
struct Flow {
    family: Family,
    /// One for each end that packets may come to.
    legs: Vec<Leg>,
    /// Tells them apart, where there is something to tell.
    dispatch: Option<Dispatch>,
}

/// The way to one end.
#[derive(Debug)]
struct Leg {
    topology: Arc<Topology>,
    correlator: Correlator,
}

impl Flow {
    fn of(family: Family, topologies: Vec<Arc<Topology>>) -> Self {
        let dispatch = Dispatch::among(&topologies);
        let legs = topologies.into_iter().map(|topology| {
            let correlator = Correlator::new(&topology, Limits::default());
            Leg { topology, correlator }
        });
        Self { family, legs: legs.collect(), dispatch }
    }

    /// Takes events of this family; none: nothing is on its way.
    fn push(&mut self, events: Vec<Event>) {
        let idle = events.is_empty();
        let Some(dispatch) = &mut self.dispatch else {
            if let [leg] = self.legs.as_mut_slice() {
                leg.correlator.push(events);
            }
            return;
        };
        let ready = dispatch.take(events);
        self.hand_on(ready);
        if idle {
            self.legs.iter_mut().for_each(|leg| leg.correlator.push([]));
        }
    }

    /// What waits to be told apart goes on as it is.
    fn flush(&mut self) {
        if let Some(dispatch) = &mut self.dispatch {
            let rest = dispatch.rest();
            self.hand_on(rest);
        }
    }

    fn hand_on(&mut self, ready: Vec<(To, Event)>) {
        let mut by_leg: Vec<Vec<Event>> = self.legs.iter().map(|_| Vec::new()).collect();
        for (to, event) in ready {
            match to {
                To::Leg(leg) => by_leg[leg].push(event),
                To::Every => by_leg.iter_mut().for_each(|events| events.push(event.clone())),
                To::Nobody => {}
            }
        }
        for (leg, events) in self.legs.iter_mut().zip(by_leg) {
            if !events.is_empty() {
                leg.correlator.push(events);
            }
        }
    }
}

/// An analysis under way.
#[derive(Debug)]
pub struct Analysis {
    flows: Vec<Flow>,
    clocks: Clocks,
    /// Told by [`Analysis::arm`] and [`Analysis::close`], ns of machine 0.
    armed_ns: u64,
    closed_ns: Option<u64>,
}

/// The packets of an analysis that is over.
#[derive(Clone, Debug)]
pub struct Analyzed {
    /// By address family.
    pub traces: Vec<(Family, Arc<Topology>, Trace)>,
    /// What the capture and the probe told besides, with times of machine 0.
    pub observation: Observation,
    /// Where the times of its events belong.
    pub clocks: Clocks,
}

/// Network state around a trace, where it was read.
#[derive(Clone, Copy, Debug, Default)]
pub struct State<'a> {
    /// Before.
    pub before: Option<&'a PathFacts>,
    /// After.
    pub after: Option<&'a PathFacts>,
}

/// A second look at a path over which small packets arrive: packets as large as the source pod's
/// interface takes.
#[derive(Clone, Debug)]
pub struct Large {
    /// Bytes of network-layer packet.
    pub mtu: u32,
    /// What became of them.
    pub analyzed: Analyzed,
}

/// The report of a whole trace. `None` for one of nothing.
pub fn conclude(
    main: &Analyzed,
    large: Option<&Large>,
    state: State<'_>,
    meta: &Meta,
) -> Option<Report> {
    let report = main.report(state, meta)?;
    Some(match large {
        Some(Large { mtu, analyzed }) => {
            diagnose::with_large(report, analyzed.report(state, meta)?, *mtu)
        }
        None => report,
    })
}

impl Analysis {
    /// For flows over these topologies, one for each address family and each end that packets may come
    /// to; those of a family over the same stations.
    pub fn new(topologies: impl IntoIterator<Item = (Family, Arc<Topology>)>) -> Self {
        let mut families: Vec<(Family, Vec<Arc<Topology>>)> = Vec::new();
        for (family, topology) in topologies {
            match families.iter_mut().find(|(known, _)| *known == family) {
                Some((_, legs)) => legs.push(topology),
                None => families.push((family, vec![topology])),
            }
        }
        let none = Topology::default();
        let first = families.first().and_then(|(_, legs)| legs.first());
        let clocks = Clocks::new(first.map_or(&none, |topology| topology));
        let flows = families.into_iter().map(|(family, legs)| Flow::of(family, legs)).collect();
        Self { flows, clocks, armed_ns: 0, closed_ns: None }
    }

    /// The same where all that can be learned of the clocks is known before.
    pub fn with_clocks(
        topologies: impl IntoIterator<Item = (Family, Arc<Topology>)>,
        clocks: &Clocks,
    ) -> Self {
        Self { clocks: clocks.clone(), ..Self::new(topologies) }
    }

    /// For the same flows, with nothing seen yet but all that is known of the clocks.
    pub fn again(&self) -> Self {
        let topologies = self
            .flows
            .iter()
            .flat_map(|f| f.legs.iter().map(|leg| (f.family, Arc::clone(&leg.topology))));
        Self { clocks: self.clocks.again(), ..Self::new(topologies) }
    }

    /// Kernel time from which everything was attached, ns, of machine 0. To be told before the first
    /// event.
    pub fn arm(&mut self, armed_ns: u64) {
        self.armed_ns = armed_ns;
        self.place_window();
    }

    /// Places on the axis what part of time counts, as well as the clocks are known now.
    fn place_window(&mut self) {
        let on_axis = |ns| self.clocks.place(Reading { machine: 0, ns }).ns;
        let (armed_ns, closed_ns) = (on_axis(self.armed_ns), self.closed_ns.map(on_axis));
        for leg in self.flows.iter_mut().flat_map(|flow| &mut flow.legs) {
            leg.correlator.count_within(armed_ns, closed_ns);
        }
    }

    /// A clock was read: of machine 0, of another, and of machine 0 again. What was read before the
    /// first packets is what their order is told by; several are better than one, and one now and
    /// then shows when a clock was set.
    pub fn round_trip(&mut self, trip: &RoundTrip) {
        self.clocks.round_trip(trip);
    }

    /// Takes the events of a batch, each with the time of its machine. An empty batch says that
    /// nothing is on its way.
    ///
    /// Of several machines, events wait until those of the others are there: see
    /// [`Analysis::reached`].
    pub fn push(&mut self, events: Vec<Event>) {
        let idle = events.is_empty();
        let ready = self.clocks.take(events);
        self.ordered(ready);
        if idle {
            self.hand_on(Vec::new());
        }
    }

    /// Hands on events that are complete and in order where there are several clocks.
    fn ordered(&mut self, events: Vec<Event>) {
        if events.is_empty() {
            return;
        }
        self.hand_on(events);
        if self.clocks.several() {
            // None waits for others any more: what is learned of clocks meanwhile would put later
            // ones of the same machine before it.
            self.hand_on(Vec::new());
        }
    }

    /// Every event of a machine up to this reading of its clock (CLOCK_MONOTONIC, ns) has been taken,
    /// or is lost; `None`: nothing comes from it any more, and it is not waited for. To be told of
    /// every machine, machine 0 included, several times a second, where there are several.
    pub fn reached(&mut self, machine: u16, until_ns: Option<u64>) {
        let ready = self.clocks.reached(machine, until_ns);
        self.ordered(ready);
    }

    /// Whatever was taken is all there is of its time, of whichever machine: nothing is waited for.
    pub fn flush(&mut self) {
        let rest = self.clocks.rest();
        self.ordered(rest);
        self.flows.iter_mut().for_each(Flow::flush);
        self.hand_on(Vec::new());
    }

    /// What machine 0 showed when another showed this, nearly.
    pub fn machine_0_at(&self, reading: Reading) -> u64 {
        self.clocks.machine_0_at(reading)
    }

    fn legs(&self) -> impl Iterator<Item = &Leg> {
        self.flows.iter().flat_map(|flow| &flow.legs)
    }

    /// With the events that came too late, each under a node of its machine.
    fn with_late(&self, mut observation: Observation) -> Observation {
        for (machine, late) in self.clocks.late() {
            let topologies = self.legs().map(|leg| &leg.topology);
            let station = topologies.flat_map(|topology| {
                topology.stations.iter().find(|s| topology.machine(&s.node) == machine)
            });
            let name = station.map(|s| s.node.as_str()).next().unwrap_or("?");
            match observation.loss.iter_mut().find(|(known, _)| known == name) {
                Some((_, loss)) => loss.late += late,
                None => observation.loss.push((name.to_owned(), Loss { late, ..Loss::default() })),
            }
        }
        observation
    }

    fn hand_on(&mut self, events: Vec<Event>) {
        if self.clocks.several() {
            self.place_window();
        }
        if let [flow] = self.flows.as_mut_slice() {
            flow.push(events);
            return;
        }
        let mut by_family: Vec<Vec<Event>> = self.flows.iter().map(|_| Vec::new()).collect();
        for event in events {
            let family = match &event.packet.body {
                Body::Ip(ip) => Family::of(&ip.src),
                Body::Neighbor(n) => Family::of(&n.sender_ip),
                Body::Other(_) => continue,
            };
            if let Some(i) = self.flows.iter().position(|f| f.family == family) {
                by_family[i].push(event);
            }
        }
        for (flow, events) in self.flows.iter_mut().zip(by_family) {
            flow.push(events);
        }
    }

    /// Kernel time after which new packets do not count, ns.
    pub fn close(&mut self, closed_ns: u64) {
        self.closed_ns = Some(closed_ns);
        self.place_window();
        for leg in self.flows.iter_mut().flat_map(|flow| &mut flow.legs) {
            leg.correlator.count_pending();
        }
    }

    /// Packets that have left their first station.
    pub fn started(&self, direction: Direction) -> u64 {
        self.legs().map(|leg| leg.correlator.started(direction)).sum()
    }

    /// Of those, the ones that have reached the last station whole.
    pub fn delivered(&self, direction: Direction) -> u64 {
        self.legs().map(|leg| leg.correlator.delivered(direction)).sum()
    }

    /// Packets of which more is to be expected.
    pub fn pending(&self) -> u64 {
        let waiting = self.flows.iter().filter_map(|flow| Some(flow.dispatch.as_ref()?.waiting()));
        self.legs().map(|leg| leg.correlator.pending()).sum::<u64>() + waiting.sum::<u64>()
    }

    /// Kernel time of the newest event that was taken, ns; 0 before the first.
    pub fn newest_ns(&self) -> u64 {
        let newest = self.legs().map(|leg| leg.correlator.newest_ns()).max().unwrap_or(0);
        if self.clocks.several() { self.clocks.on_machine_0(newest) } else { newest }
    }

    /// The newest packets, judged as if the trace ended at [`Observation::end_ns`], with the time
    /// that they cover, ns. The analysis goes on.
    pub fn snapshot(&self, observation: Observation) -> (Analyzed, u64) {
        let observation = self.with_late(observation);
        let mut span_ns = 0;
        let observed = on_axis(&observation, &self.clocks);
        let mut traces = Vec::new();
        for flow in &self.flows {
            for leg in &flow.legs {
                let mut recent = leg.correlator.snapshot(&observed, Scope::default());
                recent.trace.clocks = self.clocks.nodes(&leg.topology);
                span_ns = span_ns.max(recent.span_ns);
                traces.push((flow.family, Arc::clone(&leg.topology), recent.trace));
            }
        }
        (Analyzed { traces, observation, clocks: self.clocks.known() }, span_ns)
    }

    /// Judges every packet.
    pub fn finish(mut self, observation: Observation) -> Analyzed {
        let rest = self.clocks.rest();
        self.ordered(rest);
        self.flows.iter_mut().for_each(Flow::flush);
        let observation = self.with_late(observation);
        let observed = on_axis(&observation, &self.clocks);
        let Self { flows, clocks, .. } = self;
        let mut traces = Vec::new();
        for Flow { family, legs, .. } in flows {
            for Leg { topology, mut correlator } in legs {
                if clocks.several() {
                    correlator.push([]);
                    correlator.retime(&clocks);
                }
                let mut trace = correlator.finish(&observed);
                trace.clocks = clocks.nodes(&topology);
                traces.push((family, topology, trace));
            }
        }
        Analyzed { traces, observation, clocks: clocks.known() }
    }
}

/// What was observed, its times moved from machine 0 to the axis of events.
fn on_axis(observation: &Observation, clocks: &Clocks) -> Observation {
    let on_axis = |ns| clocks.place(Reading { machine: 0, ns }).ns;
    let gone =
        |gone: &Unreachable| Unreachable { since_ns: on_axis(gone.since_ns), ..gone.clone() };
    Observation {
        armed_ns: on_axis(observation.armed_ns),
        closed_ns: observation.closed_ns.map(on_axis),
        end_ns: on_axis(observation.end_ns),
        unreachable: observation.unreachable.iter().map(gone).collect(),
        ..observation.clone()
    }
}

impl Analyzed {
    /// The report on the address family with most packets, with a word on the other. `None` for an
    /// analysis of nothing.
    pub fn report(&self, state: State<'_>, meta: &Meta) -> Option<Report> {
        let observation = on_axis(&self.observation, &self.clocks);
        let mut reports: Vec<(Family, Report)> = Vec::new();
        for legs in self.traces.chunk_by(|(a, ..), (b, ..)| a == b) {
            let Some((family, ..)) = legs.first() else { continue };
            let report = match legs {
                [(_, topology, trace)] => {
                    Some(leg_report(*family, topology, trace, &observation, state, meta))
                }
                several => of_backends(*family, several, &observation, state, meta),
            };
            reports.extend(report.map(|report| (*family, report)));
        }
        let packets = |r: &Report| r.directions.iter().map(|d| d.packets).sum::<u64>();
        reports.sort_by_key(|(_, r)| Reverse(packets(r)));
        let mut reports = reports.into_iter();
        let (_, mut main) = reports.next()?;
        for (family, other) in reports.filter(|(_, r)| packets(r) > 0) {
            main.notes.push(format!(
                "{family} packets of the flow were seen too ({}): {}",
                packets(&other),
                other.verdict.summary
            ));
        }
        Some(diagnose::guard::checked(main))
    }
}

/// The report on the way to one end.
fn leg_report(
    family: Family,
    topology: &Topology,
    trace: &Trace,
    observation: &Observation,
    state: State<'_>,
    meta: &Meta,
) -> Report {
    // Seen from the way to this end; of one among several, the facts are about all.
    let towards = |facts: &PathFacts| {
        let dst = topology.dst.as_ref().filter(|_| !facts.backends.is_empty())?;
        Some(facts.towards(dst))
    };
    let (before, after) = (state.before.and_then(towards), state.after.and_then(towards));
    diagnose::report(&diagnose::Input {
        topology,
        family,
        trace,
        observation,
        before: before.as_ref().or(state.before),
        after: after.as_ref().or(state.after),
        meta,
    })
}

/// One report of the ways to all backends of a service.
fn of_backends(
    family: Family,
    legs: &[(Family, Arc<Topology>, Trace)],
    observation: &Observation,
    state: State<'_>,
    meta: &Meta,
) -> Option<Report> {
    let ends: Vec<(&End, &Trace)> =
        legs.iter().filter_map(|(_, t, trace)| Some((t.dst.as_ref()?, trace))).collect();
    let shares = match &observation.probe {
        Some(probe) => {
            let sources = legs.first().and_then(|(_, t, _)| t.src.as_ref());
            let sources = sources.map_or(&[][..], |src| &src.ips);
            backends::shares(probe, sources, &ends)
        }
        None => ends.iter().map(|_| None).collect(),
    };
    let legs = legs.iter().filter(|(_, t, _)| t.dst.is_some()).zip(shares).zip(&ends);
    let legs = legs.map(|(((_, topology, trace), probe), (end, _))| {
        let own = backends::observed(observation, probe.clone());
        let report = leg_report(family, topology, trace, &own, state, meta);
        BackendLeg { end: (*end).clone(), probe, report }
    });
    backends::merged(legs.collect(), observation.probe.as_ref())
}
