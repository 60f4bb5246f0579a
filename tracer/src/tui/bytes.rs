//! The captured bytes of one packet, looked for among all that was captured.

use std::collections::HashSet;

use super::{Captured, Wanted};
use crate::decode::RawEvent;
use crate::model::{EventKind, Reading, Topology};
use crate::report::PointReport;

/// Takes raw events, and keeps the bytes of those that are wanted.
#[derive(Debug)]
pub struct Collector<'a> {
    topology: &'a Topology,
    wanted: &'a Wanted,
    found: Vec<Option<Vec<u8>>>,
}

impl<'a> Collector<'a> {
    /// For a packet that was seen at stations of this topology.
    pub fn new(topology: &'a Topology, wanted: &'a Wanted) -> Self {
        Self { topology, wanted, found: vec![None; wanted.sightings.len()] }
    }

    /// When the events happened that are of interest.
    pub fn times(&self) -> HashSet<Reading> {
        self.wanted.sightings.iter().map(|(time, _)| *time).collect()
    }

    /// Looks at an event.
    pub fn see(&mut self, raw: &RawEvent<'_>) {
        for ((time, point), found) in self.wanted.sightings.iter().zip(&mut self.found) {
            if *time == raw.reading() && found.is_none() && is_at(self.topology, raw, point) {
                *found = Some(raw.data.to_vec());
            }
        }
    }

    /// What was found.
    pub fn finish(self) -> Captured {
        Captured { id: self.wanted.id.clone(), hops: self.found }
    }
}

/// Whether the event is a sighting at this point.
fn is_at(topology: &Topology, raw: &RawEvent<'_>, point: &PointReport) -> bool {
    let EventKind::Hop(hook) = raw.kind else { return false };
    let here = |s: &&crate::model::Station| {
        (s.netns_inum, s.ifindex) == (raw.netns_inum, raw.ifindex)
            && s.node == point.node
            && s.pod == point.pod
            && s.name == point.interface
    };
    hook == point.hook && topology.stations.iter().any(|s| here(&s))
}
