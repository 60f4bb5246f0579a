//! Analysis: from topologies, events and observation to the report. Pure.
//!
//! The one way in which a report is made, live and when a recording is replayed: the same calls in
//! the same order give the same report.

use std::cmp::Reverse;
use std::sync::Arc;

use crate::correlate::{Correlator, Limits};
use crate::diagnose::{self, Meta};
use crate::expect::Family;
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

/// What became of one address family.
#[derive(Clone, Debug)]
pub struct Analyzed {
    /// Which.
    pub family: Family,
    /// What it was observed at.
    pub topology: Arc<Topology>,
    /// Its packets.
    pub trace: Trace,
    /// What is to be said about it.
    pub report: Report,
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

    /// The result: that of the address family with most packets first, whose report has a word on
    /// the other. `None` for an analysis of nothing.
    pub fn finish(
        self,
        observation: &Observation,
        meta: &Meta,
    ) -> Option<(Analyzed, Vec<Analyzed>)> {
        let mut all: Vec<_> = self
            .flows
            .into_iter()
            .map(|Flow { family, topology, correlator }| {
                let trace = correlator.finish(observation);
                let report = diagnose::report(&topology, &trace, observation, meta);
                Analyzed { family, topology, trace, report }
            })
            .collect();
        let packets = |a: &Analyzed| a.report.directions.iter().map(|d| d.packets).sum::<u64>();
        all.sort_by_key(|a| Reverse(packets(a)));
        let others = all.split_off(all.len().min(1));
        let mut main = all.pop()?;
        for other in others.iter().filter(|other| packets(other) > 0) {
            main.report.notes.push(format!(
                "{} packets of the flow were seen too ({}): {}",
                other.family,
                packets(other),
                other.report.verdict.summary
            ));
        }
        Some((main, others))
    }
}
