//! A packet under way: where it was seen, how much of it, and what dropped pieces of it.

use std::collections::VecDeque;

use super::clock::Clocks;
use super::identity::{Datagram, Discriminator, Flow, Key};
use super::plan::Plan;
use super::ranges::IntervalSet;
use crate::model::{Direction, Event, Hop, JourneyDrop, Point, StreamPlace};

/// Hops kept for one packet that goes in circles; a TTL of 64 makes about 62 rounds.
const MAX_HOPS: usize = 64;
/// Interfaces between two pods on different nodes, the wire between included: no list grows bit by bit.
const USUAL_HOPS: usize = 12;
/// Drop events of copies kept for one packet.
const MAX_DROPS: usize = 16;

/// How a journey is found again.
#[derive(Clone, Debug)]
pub(super) enum Home {
    /// Under these keys (a datagram can be renumbered when it is fragmented again).
    Datagram(Vec<Key>),
    /// In the sequence space of its TCP flow.
    Stream,
}

/// Where it stands, as far as is known now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Open,
    Delivered,
    Dropped,
}

/// A hop with what accounting needs beyond the model.
#[derive(Clone, Debug)]
pub(super) struct HopState {
    pub hop: Hop,
    /// Bytes of the journey that came by.
    pub cover: IntervalSet,
    /// skbs of which this journey has the first byte: of an skb that carries several journeys, one
    /// owns it.
    pub owned: u32,
    /// Bytes that came by again.
    pub repeated: u64,
    /// A later round of a loop.
    pub again: bool,
}

/// A drop event with what decides whether it was fatal.
#[derive(Clone, Debug)]
pub(super) struct DropState {
    pub drop: JourneyDrop,
    /// Bytes dropped.
    pub start: u64,
    pub end: u64,
    /// Furthest planned position of those bytes before.
    pub reached: Option<u16>,
}

/// One journey that is still matched against.
#[derive(Clone, Debug)]
pub(super) struct Live {
    pub id: u64,
    pub direction: Direction,
    pub flow: Flow,
    pub home: Home,
    pub start: u64,
    /// End of the range; grows while fragments of it are still unseen.
    pub end: u64,
    /// `end` is the real one.
    pub whole: bool,
    /// Began as a fragment.
    pub fragmented: bool,
    /// Seen at its first station, or dropped before it could leave.
    pub origin: bool,
    pub discriminator: Discriminator,
    pub hash: Option<u32>,
    pub ip_id: u32,
    pub segments: u16,
    /// The TCP connection in whose byte accounts it counts.
    pub stream: Option<StreamPlace>,
    pub hops: Vec<HopState>,
    pub drops: Vec<DropState>,
    pub retransmission_of: Option<u64>,
    pub duplicate_of: Option<u64>,
    pub looped: bool,
    /// The sender was told by an ICMP error.
    pub told: bool,
    pub last_ns: u64,
    pub phase: Phase,
}

impl Live {
    /// A datagram that is first seen with this.
    pub fn datagram(item: &Datagram) -> Self {
        Self {
            start: if item.fragment { 0 } else { item.start },
            end: item.end,
            whole: item.last,
            fragmented: item.fragment,
            discriminator: item.discriminator,
            hash: item.hash,
            ip_id: item.ip_id,
            ..Self::blank(item.flow, Home::Datagram(vec![item.key]))
        }
    }

    /// A piece of a TCP stream.
    pub fn stream(flow: Flow, stream: StreamPlace, start: u64, end: u64) -> Self {
        Self { start, end, stream: Some(stream), ..Self::blank(flow, Home::Stream) }
    }

    fn blank(flow: Flow, home: Home) -> Self {
        Self {
            id: 0,
            direction: flow.direction,
            flow,
            home,
            start: 0,
            end: 0,
            whole: true,
            fragmented: false,
            origin: false,
            discriminator: Discriminator::Opaque,
            hash: None,
            ip_id: 0,
            segments: 1,
            stream: None,
            hops: Vec::with_capacity(USUAL_HOPS),
            drops: Vec::new(),
            retransmission_of: None,
            duplicate_of: None,
            looped: false,
            told: false,
            last_ns: 0,
            phase: Phase::Open,
        }
    }

    /// When it was first seen, or dropped before it was seen, ns.
    pub fn start_ns(&self) -> u64 {
        let hop = self.hops.first().map(|h| h.hop.time_ns);
        hop.or_else(|| self.drops.first().map(|d| d.drop.time_ns)).unwrap_or(0)
    }

    /// The first visit of a point.
    pub fn at(&self, point: Point) -> Option<&HopState> {
        self.hops.iter().find(|h| h.hop.point == point && !h.again)
    }

    /// Whether these bytes came by a point; without bytes, whether the packet did.
    pub fn passed(&self, point: Point, start: u64, end: u64) -> bool {
        self.at(point).is_some_and(|h| h.cover.covers(start, end))
    }

    /// Furthest planned position that these bytes were seen at.
    pub fn reached(&self, plan: &Plan, start: u64, end: u64) -> Option<u16> {
        self.hops
            .iter()
            .filter(|h| h.cover.covers(start, end))
            .filter_map(|h| plan.position(self.direction, h.hop.point))
            .max()
    }

    /// Whether a sighting of these bytes at a point can be this journey going on: not seen there
    /// yet, and not further already.
    pub fn goes_on_at(&self, plan: &Plan, point: Point, start: u64, end: u64) -> bool {
        if self.passed(point, start, end) {
            return false;
        }
        match (plan.position(self.direction, point), self.reached(plan, start, end)) {
            (Some(here), Some(reached)) => reached < here,
            _ => true,
        }
    }

    /// Whether the packet can be this datagram, by all that is known of both.
    pub fn is_like(&self, item: &Datagram) -> bool {
        let whole = !self.fragmented && !item.fragment;
        self.discriminator.agrees(&item.discriminator)
            && (!whole
                || (self.end == item.end
                    && (self.hash.is_none() || item.hash.is_none() || self.hash == item.hash)))
            && (!(self.whole && item.last) || self.end == item.end)
            && (!self.whole || item.end <= self.end)
    }

    /// Enters a sighting. `owner`: this journey has the first byte of the skb.
    pub fn sight(&mut self, point: Point, event: &Event, start: u64, end: u64, owner: bool) {
        self.last_ns = self.last_ns.max(event.time_ns);
        match self.hops.iter_mut().find(|h| h.hop.point == point && !h.again) {
            Some(seen) => {
                seen.hop.end_ns = seen.hop.end_ns.max(event.time_ns);
                seen.hop.skbs += 1;
                seen.hop.segments += segments(event);
                seen.owned += u32::from(owner);
                let new = seen.cover.insert(start, end);
                seen.hop.covered += new;
                seen.repeated += end - start - new;
            }
            None => self.push_hop(point, event, start, end, owner, false),
        }
    }

    /// Enters a further round of a loop.
    pub fn sight_again(&mut self, point: Point, event: &Event, start: u64, end: u64, owner: bool) {
        self.last_ns = self.last_ns.max(event.time_ns);
        self.looped = true;
        if self.hops.len() < MAX_HOPS {
            self.push_hop(point, event, start, end, owner, true);
        }
    }

    fn push_hop(
        &mut self,
        point: Point,
        event: &Event,
        start: u64,
        end: u64,
        owner: bool,
        again: bool,
    ) {
        let mut cover = IntervalSet::default();
        let covered = cover.insert(start, end);
        let hop = Hop {
            point,
            time_ns: event.time_ns,
            clock: event.clock,
            error_ns: event.error_ns,
            end_ns: event.time_ns,
            len: event.len,
            skbs: 1,
            segments: segments(event),
            segment_size: event.gso.filter(|gso| gso.segments > 1).map(|gso| gso.size),
            covered,
            packet: event.packet.clone(),
            skb: event.skb,
        };
        self.hops.push(HopState { hop, cover, owned: u32::from(owner), repeated: 0, again });
    }

    /// Enters a drop event. Segments that end alike are one entry.
    pub fn dropped(&mut self, plan: &Plan, drop: JourneyDrop, start: u64, end: u64) {
        self.last_ns = self.last_ns.max(drop.time_ns);
        let reached = self.reached(plan, start, end);
        let alike = self.drops.iter().position(|d| {
            d.end == start
                && start < end
                && d.reached == reached
                && d.drop.netns_inum == drop.netns_inum
                && d.drop.info.code == drop.info.code
                && d.drop.info.function == drop.info.function
        });
        if let Some(known) = alike.and_then(|at| self.drops.get_mut(at)) {
            known.end = end;
            known.drop.bytes += end - start;
        } else if self.drops.len() < MAX_DROPS {
            self.drops.push(DropState { drop, start, end, reached });
        }
    }

    /// Gives hops and drops their times anew.
    pub fn retime(&mut self, clocks: &Clocks) {
        for HopState { hop, .. } in &mut self.hops {
            let placed = clocks.place(hop.clock);
            let took = hop.end_ns.saturating_sub(hop.time_ns);
            (hop.time_ns, hop.error_ns) = (placed.ns, placed.error_ns);
            hop.end_ns = placed.ns.saturating_add(took);
        }
        for DropState { drop, .. } in &mut self.drops {
            let placed = clocks.place(drop.clock);
            (drop.time_ns, drop.error_ns) = (placed.ns, placed.error_ns);
        }
    }

    /// Bytes that reached the last station, and whether that is all of it.
    pub fn arrived(&self, plan: &Plan) -> (u64, bool) {
        let last = self.hops.iter().filter(|h| plan.is_final(self.direction, h.hop.point));
        last.map(|h| (h.cover.len(), self.whole && h.cover.covers(self.start, self.end)))
            .max()
            .unwrap_or((0, false))
    }
}

/// Segments that one skb stands for.
fn segments(event: &Event) -> u32 {
    event.gso.map_or(1, |gso| u32::from(gso.segments.max(1)))
}

/// The journeys that are still matched against, by id. Ids count up from 1 in the order in which
/// journeys begin.
#[derive(Debug, Default)]
pub(super) struct Store {
    /// Id of the first slot.
    base: u64,
    slots: VecDeque<Option<Box<Live>>>,
    count: usize,
}

impl Store {
    pub fn insert(&mut self, mut live: Live) -> u64 {
        if self.base == 0 {
            self.base = 1;
        }
        let id = self.base + self.slots.len() as u64;
        live.id = id;
        self.slots.push_back(Some(Box::new(live)));
        self.count += 1;
        id
    }

    fn slot(&self, id: u64) -> Option<usize> {
        usize::try_from(id.checked_sub(self.base)?).ok()
    }

    pub fn get(&self, id: u64) -> Option<&Live> {
        self.slots.get(self.slot(id)?)?.as_deref()
    }

    pub fn get_mut(&mut self, id: u64) -> Option<&mut Live> {
        let slot = self.slot(id)?;
        self.slots.get_mut(slot)?.as_deref_mut()
    }

    pub fn take(&mut self, id: u64) -> Option<Live> {
        let slot = self.slot(id)?;
        let live = self.slots.get_mut(slot)?.take()?;
        self.count -= 1;
        while let Some(None) = self.slots.front() {
            self.slots.pop_front();
            self.base += 1;
        }
        Some(*live)
    }

    pub fn oldest(&self) -> Option<&Live> {
        self.slots.front()?.as_deref()
    }

    pub fn len(&self) -> usize {
        self.count
    }

    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Live> {
        self.slots.iter().filter_map(|slot| slot.as_deref())
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Live> {
        self.slots.iter_mut().filter_map(|slot| slot.as_deref_mut())
    }
}
