//! Finding the journeys that a TCP packet with payload carries.
//!
//! Each skb at the first station is one journey: a range of the flow's sequence space. Later an skb
//! may carry a part of a journey (segmentation) or several (GRO); the bytes decide. Where the same
//! bytes were sent more than once, the IP id tells which sending an skb stems from; without ids, the
//! latest sending that has not passed there yet.

use std::collections::BTreeMap;

use super::identity::{Flow, Segment, ttl};
use super::live::Live;
use super::{Correlator, Map};
use crate::model::{Event, Point, StreamPlace};

/// Where unwrapped sequence numbers begin: high enough that what precedes the first sighting does
/// not fall below zero.
const BASE: u64 = 1 << 33;
/// Ranges remembered for telling retransmissions, per connection.
const MAX_HISTORY: usize = 8192;
/// Connections remembered; beyond it idle ones are forgotten.
const MAX_STREAMS: usize = 4096;
/// A connection without journeys under way is idle after this, ns: longer than any retransmission
/// timeout that is likely to succeed (RFC 6298 caps it at 60 s or more).
const IDLE_NS: u64 = 60_000_000_000;

/// One direction of a TCP connection.
#[derive(Debug)]
pub(super) struct Stream {
    /// Which connection it is: port numbers come back.
    place: StreamPlace,
    /// Latest unwrapped sequence number.
    reference: u64,
    /// Journeys under way by first byte and id; with the end.
    live: BTreeMap<(u64, u64), u64>,
    /// Longest journey so far, bytes: how far before a byte its journey can begin.
    longest: u64,
    /// What was sent, by first byte: end and id.
    history: BTreeMap<u64, (u64, u64)>,
    last_ns: u64,
}

impl Stream {
    fn new(number: u64, seq: u32) -> Self {
        Self {
            place: StreamPlace { number, first: BASE + u64::from(seq) },
            reference: BASE + u64::from(seq),
            live: BTreeMap::new(),
            longest: 0,
            history: BTreeMap::new(),
            last_ns: 0,
        }
    }

    /// Position of a 32-bit sequence number (RFC 9293) in a space that does not wrap: the nearest to
    /// the latest one.
    fn position(&self, seq: u32) -> u64 {
        let low = self.reference as u32;
        let ahead = i64::from(seq.wrapping_sub(low).cast_signed());
        self.reference.saturating_add_signed(ahead)
    }

    /// As [`Self::position`], and remembers it as the latest.
    fn unwrap(&mut self, seq: u32) -> u64 {
        let at = self.position(seq);
        self.reference = self.reference.max(at);
        at
    }

    /// Ids of the journeys under way that have bytes of a range, oldest first.
    fn overlapping(&self, start: u64, end: u64) -> Vec<u64> {
        let from = start.saturating_sub(self.longest);
        let mut ids: Vec<u64> = self
            .live
            .range((from, 0)..(end, 0))
            .filter(|(_, journey_end)| **journey_end > start)
            .map(|((_, id), _)| *id)
            .collect();
        ids.sort_unstable();
        ids
    }

    /// The latest journey that sent bytes of a range.
    fn sent(&self, start: u64, end: u64) -> Option<u64> {
        let from = start.saturating_sub(self.longest);
        let hits = self.history.range(from..end).filter(|(_, (e, _))| *e > start);
        hits.map(|(_, (_, id))| *id).max()
    }

    fn note(&mut self, id: u64, start: u64, end: u64) {
        self.live.insert((start, id), end);
        self.longest = self.longest.max(end - start);
        if self.history.len() >= MAX_HISTORY {
            self.history.pop_first();
        }
        self.history.insert(start, (end, id));
    }
}

/// All connections.
#[derive(Debug, Default)]
pub(super) struct Streams {
    flows: Map<Flow, Stream>,
    numbers: u64,
}

impl Streams {
    fn at(&mut self, flow: Flow, seq: u32, now_ns: u64) -> &mut Stream {
        if self.flows.len() >= MAX_STREAMS && !self.flows.contains_key(&flow) {
            self.flows
                .retain(|_, s| !s.live.is_empty() || now_ns.saturating_sub(s.last_ns) < IDLE_NS);
        }
        let numbers = &mut self.numbers;
        let stream = self.flows.entry(flow).or_insert_with(|| {
            *numbers += 1;
            Stream::new(*numbers, seq)
        });
        stream.last_ns = now_ns;
        stream
    }

    /// A SYN opens a new connection on these ports; its number is that before the first byte
    /// (RFC 9293). One that is sent again does no harm: no data went before it.
    pub fn open(&mut self, flow: Flow, syn: u32, now_ns: u64) {
        if self.flows.get(&flow).is_none_or(|s| s.live.is_empty()) {
            self.flows.remove(&flow);
            self.at(flow, syn.wrapping_add(1), now_ns);
        }
    }

    /// Forgets a journey that is no longer matched against.
    pub fn forget(&mut self, flow: &Flow, start: u64, id: u64) {
        if let Some(stream) = self.flows.get_mut(flow) {
            stream.live.remove(&(start, id));
        }
    }
}

/// A part of an skb and the journey that it belongs to.
#[derive(Clone, Copy, Debug)]
struct Share {
    id: u64,
    start: u64,
    end: u64,
}

impl Correlator {
    /// TCP payload came by.
    pub(super) fn see_segment(&mut self, point: Point, item: &Segment, event: &Event) {
        let stream = self.streams.at(item.flow, item.seq, event.time_ns);
        let (place, start) = (stream.place, stream.unwrap(item.seq));
        let end = start + u64::from(item.len);
        let origin = self.plan.is_origin(item.flow.direction, point);
        if self.plan.is_first(item.flow.direction, point) {
            let again = stream.sent(start, end);
            self.begin_segment(place, item, point, event, (start, end), origin, again);
            return;
        }

        let candidates = stream.overlapping(start, end);
        let mut rest = vec![(start, end)];
        let mut shares = Vec::new();
        self.share(&candidates, item, &mut rest, &mut shares, |live, s, e| {
            // What has passed here already is left for another sending of the same bytes.
            live.at(point).map_or_else(|| vec![(s, e)], |hop| hop.cover.missing(s, e))
        });
        let mut owner = true;
        for share in shares.drain(..) {
            if let Some(live) = self.store.get_mut(share.id) {
                live.sight(point, event, share.start, share.end, owner);
                owner = false;
            }
            self.by_skb.insert(event.skb, share.id);
            self.advance(share.id, point);
        }
        if rest.is_empty() {
            return;
        }
        // All sendings of these bytes have passed here: a loop where the TTL has fallen, else a copy.
        self.share(&candidates, item, &mut rest, &mut shares, |_, s, e| vec![(s, e)]);
        for share in shares {
            let looped = self
                .store
                .get(share.id)
                .and_then(|live| live.at(point))
                .and_then(|hop| ttl(&hop.hop.packet))
                .is_some_and(|before| before > item.ttl);
            if looped {
                if let Some(live) = self.store.get_mut(share.id) {
                    live.sight_again(point, event, share.start, share.end, owner);
                    owner = false;
                }
            } else {
                let bytes = (share.start, share.end);
                let id = self.begin_segment(place, item, point, event, bytes, false, None);
                if let Some(live) = self.store.get_mut(id) {
                    live.duplicate_of = Some(share.id);
                }
            }
        }
        for bytes in rest {
            // Where no path is planned a retransmission is told by the bytes alone.
            let again = self.streams.flows.get(&item.flow).and_then(|s| s.sent(bytes.0, bytes.1));
            self.begin_segment(place, item, point, event, bytes, origin, again);
        }
    }

    /// A new journey with these bytes, seen here.
    #[expect(
        clippy::too_many_arguments,
        reason = "the parts of one sighting, private to this file"
    )]
    fn begin_segment(
        &mut self,
        place: StreamPlace,
        item: &Segment,
        point: Point,
        event: &Event,
        (start, end): (u64, u64),
        origin: bool,
        again: Option<u64>,
    ) -> u64 {
        let mut live = Live::stream(item.flow, place, start, end);
        live.origin = origin;
        live.ip_id = item.ip_id;
        live.segments = item.segments;
        live.retransmission_of = if origin { again } else { None };
        let id = self.begin(live, event.time_ns);
        if let Some(stream) = self.streams.flows.get_mut(&item.flow) {
            stream.note(id, start, end);
        }
        if let Some(live) = self.store.get_mut(id) {
            live.sight(point, event, start, end, true);
        }
        self.by_skb.insert(event.skb, id);
        self.advance(id, point);
        id
    }

    /// Hands the bytes in `rest` out to the candidates, each the parts that `take` says; what nobody
    /// takes stays in `rest`. First those whose IP ids the skb shares, then the latest sending.
    fn share(
        &self,
        candidates: &[u64],
        item: &Segment,
        rest: &mut Vec<(u64, u64)>,
        shares: &mut Vec<Share>,
        take: impl Fn(&Live, u64, u64) -> Vec<(u64, u64)>,
    ) {
        let live = || candidates.iter().rev().filter_map(|&id| self.store.get(id));
        let stems = |l: &&Live| item.shares_ids(l.ip_id, l.segments);
        for live in live().filter(stems).chain(live().filter(|l| !stems(l))) {
            if rest.is_empty() {
                break;
            }
            let mut left = Vec::new();
            for &(start, end) in rest.iter() {
                let (s, e) = (start.max(live.start), end.min(live.end));
                if s >= e {
                    left.push((start, end));
                    continue;
                }
                let taken = take(live, s, e);
                let mut at = start;
                for &(s, e) in &taken {
                    shares.push(Share { id: live.id, start: s, end: e });
                    if at < s {
                        left.push((at, s));
                    }
                    at = e;
                }
                if at < end {
                    left.push((at, end));
                }
            }
            *rest = left;
        }
        // In the order of the bytes, so that the first one owns the skb.
        shares.sort_by_key(|share| share.start);
    }

    /// The journeys that a dropped skb carried, with their parts of it.
    pub(super) fn segments_dropped(
        &mut self,
        item: &Segment,
        event: &Event,
    ) -> Vec<(u64, u64, u64)> {
        let stream = self.streams.at(item.flow, item.seq, event.time_ns);
        let start = stream.position(item.seq);
        let end = start + u64::from(item.len);
        let candidates = stream.overlapping(start, end);
        let mut shares = Vec::new();
        let mut rest = vec![(start, end)];
        // The skb itself, when its last sighting was this one.
        if let Some(&id) = self.by_skb.get(&event.skb)
            && candidates.contains(&id)
        {
            self.share(&[id], item, &mut rest, &mut shares, |_, s, e| vec![(s, e)]);
        }
        self.share(&candidates, item, &mut rest, &mut shares, |_, s, e| vec![(s, e)]);
        shares.into_iter().map(|share| (share.id, share.start, share.end)).collect()
    }

    /// A segment that was dropped before any station saw it: its journey is the drop alone.
    pub(super) fn begin_dropped_segment(
        &mut self,
        item: &Segment,
        time_ns: u64,
    ) -> (u64, u64, u64) {
        let stream = self.streams.at(item.flow, item.seq, time_ns);
        let (place, start) = (stream.place, stream.unwrap(item.seq));
        let end = start + u64::from(item.len);
        let mut live = Live::stream(item.flow, place, start, end);
        live.origin = true;
        live.ip_id = item.ip_id;
        live.segments = item.segments;
        live.retransmission_of = stream.sent(start, end);
        let id = self.begin(live, time_ns);
        if let Some(stream) = self.streams.flows.get_mut(&item.flow) {
            stream.note(id, start, end);
        }
        (id, start, end)
    }

    /// The latest journey with this byte of a connection.
    pub(super) fn segment_quoted(&self, flow: &Flow, seq: u32) -> Option<u64> {
        let stream = self.streams.flows.get(flow)?;
        let at = stream.position(seq);
        stream.overlapping(at, at + 1).pop()
    }
}
