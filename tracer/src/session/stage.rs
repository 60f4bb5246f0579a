//! One stage of a trace: the packets between two moments, correlated by themselves.

use std::sync::Arc;

use crate::correlate::{Correlator, Limits};
use crate::expect::Family;
use crate::model::{Body, Event, Observation, Topology, Trace};
use crate::probe::ProbeHandle;

/// One address family of the flow.
#[derive(Debug)]
pub(super) struct Flow {
    pub family: Family,
    pub topology: Arc<Topology>,
    pub correlator: Correlator,
}

impl Flow {
    pub fn new(family: Family, topology: Arc<Topology>) -> Self {
        let correlator = Correlator::new(&topology, Limits::default());
        Self { family, topology, correlator }
    }
}

/// A stage under way.
#[derive(Debug)]
pub(super) struct Stage {
    /// At least one.
    pub flows: Vec<Flow>,
    pub observation: Observation,
    pub probe: Option<ProbeHandle>,
}

/// A stage that is over.
#[derive(Debug)]
pub(super) struct Closed {
    pub traces: Vec<(Family, Arc<Topology>, Trace)>,
    pub observation: Observation,
}

impl Stage {
    /// A stage over everything from the observation's beginning on.
    pub fn new(mut flows: Vec<Flow>, observation: Observation) -> Self {
        for flow in &mut flows {
            flow.correlator.arm(observation.armed_ns);
        }
        Self { flows, observation, probe: None }
    }

    /// The stage after this one, over the same path.
    pub fn next(&self, armed_ns: u64) -> Self {
        let again = |f: &Flow| Flow::new(f.family, Arc::clone(&f.topology));
        let observation = Observation {
            armed_ns,
            disabled: self.observation.disabled.clone(),
            vanished: self.observation.vanished.clone(),
            ..Observation::default()
        };
        Self::new(self.flows.iter().map(again).collect(), observation)
    }

    /// Packets that were neither delivered nor dropped yet.
    pub fn pending(&self) -> u64 {
        self.flows.iter().map(|f| f.correlator.pending()).sum()
    }

    /// Hands events to the correlator of their address family.
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

    /// Judges every packet.
    pub fn close(self) -> Closed {
        let Self { flows, observation, .. } = self;
        let traces = flows
            .into_iter()
            .map(|f| (f.family, f.topology, f.correlator.finish(&observation)))
            .collect();
        Closed { traces, observation }
    }
}
