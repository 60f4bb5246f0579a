//! Analysis: from topologies, events and observation to the report. Pure.
//!
//! The one way in which a report is made, live and when a recording is replayed: the same calls in
//! the same order give the same report.

use std::cmp::Reverse;
use std::sync::Arc;

use crate::correlate::{Correlator, Limits, Scope};
use crate::diagnose::{self, Meta};
use crate::expect::Family;
use crate::facts::PathFacts;
use crate::model::{Body, Direction, Event, Observation, Topology, Trace};
use crate::report::Report;

/// One address family of the flow, while events come.
#[derive(Debug)]
struct Flow {
    family: Family,
    topology: Arc<Topology>,
    correlator: Correlator,
}

/// An analysis under way.
#[derive(Debug)]
pub struct Analysis {
    flows: Vec<Flow>,
}

/// The packets of an analysis that is over.
#[derive(Clone, Debug)]
pub struct Analyzed {
    /// By address family.
    pub traces: Vec<(Family, Arc<Topology>, Trace)>,
    /// What the capture and the probe told besides.
    pub observation: Observation,
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
    /// For flows over these topologies, one for each address family.
    pub fn new(topologies: impl IntoIterator<Item = (Family, Arc<Topology>)>) -> Self {
        let flows = topologies.into_iter().map(|(family, topology)| {
            let correlator = Correlator::new(&topology, Limits::default());
            Flow { family, topology, correlator }
        });
        Self { flows: flows.collect() }
    }

    /// Kernel time from which everything was attached, ns. To be told before the first event.
    pub fn arm(&mut self, armed_ns: u64) {
        for flow in &mut self.flows {
            flow.correlator.arm(armed_ns);
        }
    }

    /// Takes the events of a batch. An empty batch says that nothing is on its way.
    pub fn push(&mut self, events: Vec<Event>) {
        if let [flow] = self.flows.as_mut_slice() {
            flow.correlator.push(events);
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
            flow.correlator.push(events);
        }
    }

    /// Kernel time after which new packets do not count, ns.
    pub fn close(&mut self, closed_ns: u64) {
        for flow in &mut self.flows {
            flow.correlator.close(closed_ns);
        }
    }

    /// Packets that have left their first station.
    pub fn started(&self, direction: Direction) -> u64 {
        self.flows.iter().map(|f| f.correlator.started(direction)).sum()
    }

    /// Of those, the ones that have reached the last station whole.
    pub fn delivered(&self, direction: Direction) -> u64 {
        self.flows.iter().map(|f| f.correlator.delivered(direction)).sum()
    }

    /// Packets of which more is to be expected.
    pub fn pending(&self) -> u64 {
        self.flows.iter().map(|f| f.correlator.pending()).sum()
    }

    /// Kernel time of the newest event that was taken, ns; 0 before the first.
    pub fn newest_ns(&self) -> u64 {
        self.flows.iter().map(|f| f.correlator.newest_ns()).max().unwrap_or(0)
    }

    /// The newest packets, judged as if the trace ended at [`Observation::end_ns`], with the time
    /// that they cover, ns. The analysis goes on.
    pub fn snapshot(&self, observation: Observation) -> (Analyzed, u64) {
        let mut span_ns = 0;
        let traces = self.flows.iter().map(|flow| {
            let recent = flow.correlator.snapshot(&observation, Scope::default());
            span_ns = span_ns.max(recent.span_ns);
            (flow.family, Arc::clone(&flow.topology), recent.trace)
        });
        let traces = traces.collect();
        (Analyzed { traces, observation }, span_ns)
    }

    /// Judges every packet.
    pub fn finish(self, observation: Observation) -> Analyzed {
        let traces = self.flows.into_iter().map(|Flow { family, topology, correlator }| {
            (family, topology, correlator.finish(&observation))
        });
        let traces = traces.collect();
        Analyzed { traces, observation }
    }
}

impl Analyzed {
    /// The report on the address family with most packets, with a word on the other. `None` for an
    /// analysis of nothing.
    pub fn report(&self, state: State<'_>, meta: &Meta) -> Option<Report> {
        let mut reports: Vec<(Family, Report)> = self
            .traces
            .iter()
            .map(|(family, topology, trace)| {
                let input = diagnose::Input {
                    topology,
                    family: *family,
                    trace,
                    observation: &self.observation,
                    before: state.before,
                    after: state.after,
                    meta,
                };
                (*family, diagnose::report(&input))
            })
            .collect();
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
        Some(main)
    }
}
