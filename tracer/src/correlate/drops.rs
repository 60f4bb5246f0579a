//! Finding the journey that a drop event ended, and what refusals tell the sender.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::Correlator;
use super::identity::{Datagram, Flow, Identity, direction, identify};
use super::live::Phase;
use super::noise::harmless;
use crate::model::{Body, DropInfo, Event, JourneyDrop, L4, Topology};

/// Drop events kept that belong to no journey.
const MAX_STRAY: usize = 1000;
/// A reset that comes within this time of a drop answers the dropped packet, ns. The kernel sends it
/// before it frees the packet, so anything longer is for slow links on the way back.
const RESET_WITHIN_NS: u64 = 100_000_000;
/// Connections whose resets are remembered, and resets of each.
const MAX_RESETS: (usize, usize) = (4096, 16);

/// TCP resets seen, by the flow that they answer.
#[derive(Debug, Default)]
pub(super) struct Resets(HashMap<Flow, VecDeque<u64>>);

impl Resets {
    pub fn note(&mut self, answered: Flow, time_ns: u64) {
        if self.0.len() >= MAX_RESETS.0 && !self.0.contains_key(&answered) {
            self.0.clear();
        }
        let times = self.0.entry(answered).or_default();
        if times.len() == MAX_RESETS.1 {
            times.pop_front();
        }
        times.push_back(time_ns);
    }

    /// Whether a packet that began and was dropped at these times was answered by a reset.
    pub fn answered(&self, flow: &Flow, start_ns: u64, drop_ns: u64) -> bool {
        let until = drop_ns.saturating_add(RESET_WITHIN_NS);
        self.0.get(flow).is_some_and(|times| times.iter().any(|t| (start_ns..=until).contains(t)))
    }
}

/// Drop events that belong to no journey: the first of them, and how many more there were.
#[derive(Debug, Default)]
pub(super) struct Strays {
    pub kept: Vec<JourneyDrop>,
    /// Those that are only counted, by node.
    pub omitted: BTreeMap<String, u64>,
    nodes: HashMap<u32, String>,
    /// A node of each machine, for namespaces that are none's.
    machines: BTreeMap<u16, String>,
}

impl Strays {
    pub fn of(topology: &Topology) -> Self {
        let mut strays = Self::default();
        for station in &topology.stations {
            strays.nodes.insert(station.netns_inum, station.node.clone());
            let machine = topology.machine(&station.node);
            strays.machines.entry(machine).or_insert_with(|| station.node.clone());
        }
        strays
    }

    fn add(&mut self, drop: JourneyDrop) {
        if self.kept.len() < MAX_STRAY {
            return self.kept.push(drop);
        }
        let node = self.nodes.get(&drop.netns_inum);
        let node = node.or_else(|| self.machines.get(&drop.clock.machine));
        *self.omitted.entry(node.cloned().unwrap_or_default()).or_default() += 1;
    }
}

impl Correlator {
    /// The kernel freed a packet with a drop reason.
    pub(super) fn see_drop(&mut self, event: &Event, info: &DropInfo) {
        if harmless(info, &event.packet).is_some() {
            return;
        }
        let drop = JourneyDrop {
            time_ns: event.time_ns,
            clock: event.clock,
            error_ns: event.error_ns,
            netns_inum: event.netns_inum,
            ifindex: event.ifindex,
            info: info.clone(),
            packet: event.packet.clone(),
            bytes: 0,
        };
        let ip = match &event.packet.body {
            Body::Ip(ip) if !matches!(ip.l4, L4::IcmpError { .. }) => ip,
            Body::Ip(_) | Body::Neighbor(_) => return self.stray(drop),
            Body::Other(_) => return,
        };
        self.learn_port(ip, event);
        let ip = self.aliases.canonical(ip);
        let Some(direction) = direction(&self.ends, &ip) else {
            return self.stray(drop);
        };
        // A sender's own refusal (an output rule, a neighbour that does not answer, a queue) comes
        // before the first station: that packet's journey is the drop alone.
        let unsent = self.plan.is_origin_netns(direction, event.netns_inum);
        let shares = match identify(direction, &ip, event) {
            Identity::Segment(item) => {
                let shares = self.segments_dropped(&item, event);
                if shares.is_empty() && unsent {
                    vec![self.begin_dropped_segment(&item, event.time_ns)]
                } else {
                    shares
                }
            }
            Identity::Datagram(item) => match self.datagram_dropped(&item, event, unsent) {
                Some(id) => vec![(id, item.start, item.end)],
                None if unsent => {
                    vec![(self.begin_dropped(&item, event.time_ns), item.start, item.end)]
                }
                None => Vec::new(),
            },
        };
        if shares.is_empty() {
            return self.stray(drop);
        }
        for (id, start, end) in shares {
            let drop = JourneyDrop { bytes: end - start, ..drop.clone() };
            self.attach(id, drop, start, end);
        }
    }

    fn attach(&mut self, id: u64, drop: JourneyDrop, start: u64, end: u64) {
        let Some(live) = self.store.get_mut(id) else { return };
        let on_path = self.plan.is_on_path(live.direction, drop.netns_inum);
        live.dropped(&self.plan, drop, start, end);
        if on_path && live.phase == Phase::Open {
            self.change_phase(id, Phase::Dropped);
        }
    }

    /// Which of several like datagrams was dropped: the one with this skb, else the oldest that has
    /// not arrived, else the latest.
    fn datagram_dropped(&self, item: &Datagram, event: &Event, unsent: bool) -> Option<u64> {
        let like = self.datagrams_like(item);
        if let Some(id) = self.by_skb.get(&event.skb)
            && like.contains(id)
        {
            return Some(*id);
        }
        let open = |id: &&u64| self.store.get(**id).is_some_and(|l| l.phase == Phase::Open);
        let oldest = like.iter().rev().find(open).copied();
        if unsent { oldest } else { oldest.or_else(|| like.first().copied()) }
    }

    fn stray(&mut self, drop: JourneyDrop) {
        self.strays.add(drop);
    }
}
