//! Finding the journey of a packet that is followed as a whole: UDP, ICMP, TCP without payload,
//! and fragments of anything.
//!
//! One journey is one datagram: three fragments that leave a pod are one journey, as is the single
//! skb that reassembly at a bridge makes of them; it is complete when all bytes have arrived.
//!
//! Identical packets are told apart by the kernel's skb pointer where it is still the same, else
//! by order: the oldest that has not been here yet, among those seen lately.

use std::collections::VecDeque;

use super::identity::ttl;
use super::identity::{Datagram, Discriminator, Flow, Key};
use super::live::{Home, Live};
use super::{Correlator, Map};
use crate::model::{Event, Point, tcp_flags};

/// Identical packets are looked through as far back as this many.
const SCAN: usize = 256;
/// Among identical packets, first in is first out only within this time, ns; what has not been seen
/// for longer is taken for lost. Queues in front of a 1 Mbit/s link hold packets about as long.
const FIFO_WINDOW_NS: u64 = 100_000_000;
/// Fragments of one number belong to one datagram within this time, ns: the kernel's default for
/// reassembly is 30 s, but a busy sender uses a number again sooner.
const FRAGMENTS_NS: u64 = 1_000_000_000;
/// Latest journeys remembered for each conversation, for packets that lack part of their identity.
const RECENT: usize = 256;
/// Conversations remembered for that.
const MAX_RECENT_FLOWS: usize = 4096;
/// SYNs and FINs remembered.
const MAX_CONTROL: usize = 65_536;

/// What is filed where.
#[derive(Debug, Default)]
pub(super) struct Datagrams {
    groups: Map<Key, VecDeque<u64>>,
    recent: Map<Flow, VecDeque<u64>>,
    /// Latest journey with this SYN or FIN: those occupy a sequence number, so sending one again is
    /// a retransmission although its IP id differs.
    control: Map<(Flow, u32, u8), u64>,
}

impl Datagrams {
    fn file(&mut self, id: u64, key: Key) {
        self.groups.entry(key).or_default().push_back(id);
    }

    fn remember(&mut self, id: u64, flow: Flow) {
        if self.recent.len() >= MAX_RECENT_FLOWS && !self.recent.contains_key(&flow) {
            self.recent.clear();
        }
        let recent = self.recent.entry(flow).or_default();
        if recent.len() == RECENT {
            recent.pop_front();
        }
        recent.push_back(id);
    }

    fn note_control(&mut self, slot: (Flow, u32, u8), id: u64) {
        if self.control.len() >= MAX_CONTROL {
            self.control.clear();
        }
        self.control.insert(slot, id);
    }

    /// Forgets a journey that is no longer matched against.
    pub fn forget(&mut self, id: u64, keys: &[Key]) {
        for key in keys {
            let Some(group) = self.groups.get_mut(key) else { continue };
            if group.front() == Some(&id) {
                group.pop_front();
            } else {
                group.retain(|&other| other != id);
            }
            if group.is_empty() {
                self.groups.remove(key);
            }
        }
    }
}

impl Correlator {
    /// A datagram, or a fragment of one, came by.
    pub(super) fn see_datagram(&mut self, point: Point, item: &Datagram, event: &Event) {
        let direction = item.flow.direction;
        let first = self.plan.is_first(direction, point);
        let known = if !first {
            self.next_of(point, item, event).or_else(|| self.renumbered(point, item))
        } else if item.fragment {
            self.begun_fragments(point, item, event)
        } else {
            None
        };
        if let Some(id) = known {
            self.enter(id, point, item, event);
            return;
        }
        let earlier = self.latest_at(point, item);
        if let Some((id, true)) = earlier {
            if let Some(live) = self.store.get_mut(id) {
                live.sight_again(point, event, item.start, item.end, true);
            }
            return;
        }
        let mut live = Live::datagram(item);
        live.origin = self.plan.is_origin(direction, point);
        let sequenced = self.occupies_sequence(item);
        match (sequenced, earlier) {
            (Some(slot), _) if live.origin => {
                live.retransmission_of = self.datagrams.control.get(&slot).copied();
            }
            // An unnumbered packet like an earlier one is simply the next one; a numbered one is a
            // copy, and so is anything that comes by more often than it was sent.
            (_, Some((id, _))) if !live.origin || self.is_copy(id, item, event) => {
                live.duplicate_of = self.original(id);
            }
            _ => {}
        }
        let id = self.begin(live, event.time_ns);
        self.datagrams.file(id, item.key);
        self.datagrams.remember(id, item.flow);
        if let Some(slot) = sequenced {
            self.datagrams.note_control(slot, id);
        }
        if let Discriminator::Tcp { flags, seq, .. } = item.discriminator {
            if flags & tcp_flags::SYN != 0 {
                self.streams.open(item.flow, seq, event.time_ns);
            }
            if flags & tcp_flags::RST != 0 {
                self.resets.note(item.flow.reversed(), event.time_ns);
            }
        }
        self.enter(id, point, item, event);
    }

    /// Enters a sighting of a datagram into its journey.
    fn enter(&mut self, id: u64, point: Point, item: &Datagram, event: &Event) {
        if let Some(live) = self.store.get_mut(id) {
            live.end = live.end.max(item.end);
            live.whole |= item.last;
            live.sight(point, event, item.start, item.end, true);
        }
        self.by_skb.insert(event.skb, id);
        self.advance(id, point);
    }

    /// The journey that goes on with this sighting.
    fn next_of(&self, point: Point, item: &Datagram, event: &Event) -> Option<u64> {
        let group = self.datagrams.groups.get(&item.key)?;
        let fits = |live: &Live| {
            live.is_like(item) && live.goes_on_at(&self.plan, point, item.start, item.end)
        };
        if group.len() > 1
            && let Some(&id) = self.by_skb.get(&event.skb)
            && let Some(live) = self.store.get(id)
            && matches!(&live.home, Home::Datagram(keys) if keys.contains(&item.key))
            && fits(live)
        {
            return Some(id);
        }
        let mut best = None;
        for live in group.iter().rev().take(SCAN).filter_map(|&id| self.store.get(id)) {
            if !fits(live) {
                continue;
            }
            let lately = event.time_ns.saturating_sub(live.last_ns) <= FIFO_WINDOW_NS;
            if lately || best.is_none() {
                best = Some(live.id);
            }
            if !lately {
                break;
            }
        }
        best
    }

    /// At the first station: the datagram whose other fragments were just sent.
    fn begun_fragments(&self, point: Point, item: &Datagram, event: &Event) -> Option<u64> {
        let group = self.datagrams.groups.get(&item.key)?;
        let mut begun = group.iter().rev().take(SCAN).filter_map(|&id| self.store.get(id));
        begun
            .find(|live| {
                live.fragmented
                    && live.is_like(item)
                    && !live.passed(point, item.start, item.end)
                    && event.time_ns.saturating_sub(live.start_ns()) <= FRAGMENTS_NS
            })
            .map(|live| live.id)
    }

    /// A packet that has lost or changed its number: IPv6 reassembly takes the number away, and
    /// fragmenting again gives a new one. Its first bytes carry the transport header, so the
    /// conversation finds it; the new key is filed for the fragments that follow.
    fn renumbered(&mut self, point: Point, item: &Datagram) -> Option<u64> {
        if item.discriminator == Discriminator::Opaque {
            return None;
        }
        let recent = self.datagrams.recent.get(&item.flow)?;
        let fits = |live: &&Live| {
            (live.fragmented || item.fragment || live.hash.is_none() || item.hash.is_none())
                && live.discriminator == item.discriminator
                && live.is_like(item)
                && live.goes_on_at(&self.plan, point, item.start, item.end)
        };
        let id = recent.iter().rev().filter_map(|&id| self.store.get(id)).find(fits)?.id;
        let live = self.store.get_mut(id)?;
        if let Home::Datagram(keys) = &mut live.home
            && !keys.contains(&item.key)
        {
            keys.push(item.key);
            self.datagrams.file(id, item.key);
        }
        Some(id)
    }

    /// The latest like packet that was at this point, and whether this one is it in a further round
    /// of a loop (its TTL has fallen since).
    fn latest_at(&self, point: Point, item: &Datagram) -> Option<(u64, bool)> {
        let group = self.datagrams.groups.get(&item.key)?;
        let mut seen = group.iter().rev().take(SCAN).filter_map(|&id| self.store.get(id));
        let live = seen.find(|live| {
            live.is_like(item)
                && live.at(point).is_some_and(|h| {
                    item.start == item.end || h.cover.overlap(item.start, item.end) > 0
                })
        })?;
        let looped = live.at(point).and_then(|h| ttl(&h.hop.packet)).is_some_and(|t| t > item.ttl);
        Some((live.id, looped))
    }

    /// What a copy of this journey is a copy of; `None` where that was not seen from its beginning,
    /// so that nothing is known about it.
    fn original(&self, id: u64) -> Option<u64> {
        let live = self.store.get(id)?;
        live.duplicate_of.or(live.origin.then_some(id))
    }

    /// Whether a packet at its origin is a copy of a journey there: the same number, too soon for
    /// the sender to have gone through all 65,536.
    fn is_copy(&self, of: u64, item: &Datagram, event: &Event) -> bool {
        item.ip_id != 0
            && self
                .store
                .get(of)
                .is_some_and(|live| event.time_ns.saturating_sub(live.start_ns()) <= FIFO_WINDOW_NS)
    }

    /// What a TCP packet without payload occupies in the sequence space, if anything.
    fn occupies_sequence(&self, item: &Datagram) -> Option<(Flow, u32, u8)> {
        match item.discriminator {
            Discriminator::Tcp { seq, flags, .. } if !item.fragment => {
                let control = flags & (tcp_flags::SYN | tcp_flags::FIN);
                (control != 0).then_some((item.flow, seq, control))
            }
            _ => None,
        }
    }

    /// The journeys that a dropped or quoted datagram can be, latest first.
    pub(super) fn datagrams_like(&self, item: &Datagram) -> Vec<u64> {
        let by_key = self.datagrams.groups.get(&item.key);
        let recent = self.datagrams.recent.get(&item.flow);
        let like = |id: &&u64| self.store.get(**id).is_some_and(|live| live.is_like(item));
        let mut ids: Vec<u64> = by_key
            .into_iter()
            .flat_map(|g| g.iter().rev().take(SCAN))
            .filter(like)
            .copied()
            .collect();
        if ids.is_empty() && item.discriminator != Discriminator::Opaque {
            // Part of the identity is missing (not captured, or renumbered).
            ids = recent
                .into_iter()
                .flat_map(|r| r.iter().rev())
                .filter(like)
                .filter(|id| {
                    self.store.get(**id).is_some_and(|l| {
                        l.discriminator == item.discriminator
                            && (l.ip_id == item.ip_id || l.fragmented || item.fragment)
                    })
                })
                .copied()
                .collect();
        }
        ids
    }

    /// The journey that an ICMP error quotes, by what the quote holds.
    pub(super) fn datagram_quoted(
        &self,
        key: &Key,
        flow: &Flow,
        quote: &Discriminator,
    ) -> Option<u64> {
        let numbered = matches!(key, Key::Numbered { .. });
        let group = if numbered { self.datagrams.groups.get(key) } else { None };
        let ids = group.or_else(|| self.datagrams.recent.get(flow))?;
        ids.iter()
            .rev()
            .find(|id| {
                self.store.get(**id).is_some_and(|l| l.discriminator.agrees_with_quote(quote))
            })
            .copied()
    }

    /// A packet that was dropped before any station saw it: its journey is the drop alone.
    pub(super) fn begin_dropped(&mut self, item: &Datagram, time_ns: u64) -> u64 {
        let mut live = Live::datagram(item);
        live.origin = true;
        let id = self.begin(live, time_ns);
        self.datagrams.file(id, item.key);
        self.datagrams.remember(id, item.flow);
        id
    }
}
