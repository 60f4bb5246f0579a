//! Crossings between machines, recognised by the packets themselves and by nothing else: a packet
//! leaves through a physical interface of one and comes in at one of another with every byte that
//! tells it from other packets unchanged. No time is compared, so no clock is needed.
//!
//! The same bytes may be sent again. What arrives did so after they left for the first time, so the
//! first departure is what counts; that is never wrong, only less sharp. Only where the first departure
//! was not seen and packets have no number (IPv6), a second one is taken for it; such a crossing
//! contradicts all others, and is told by that.
//!
//! Super-packets are recognised by their segments, wherever they are split and merged: what is merged at
//! the receiver has left when the last segment in it has.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

use crate::correlate::identity::Discriminator;
use crate::model::{Body, Event, EventKind, Hook, Ip, L4, Reading, Role, Topology};

/// Departures remembered.
const MAX_DEPARTURES: usize = 131_072;
/// Arrivals of which the departure was not told yet.
const MAX_ARRIVALS: usize = 16_384;
/// Arrivals of the same packet.
const MAX_ALIKE: usize = 8;

/// Something that was at one machine before it was at the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Crossing {
    /// Where it came from, and when it had not left yet.
    pub left: Reading,
    /// Where it went to, and when it was there.
    pub arrived: Reading,
    /// A question or an answer, not a packet that was recognised.
    pub asked: bool,
}

/// What tells a packet from others on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Fingerprint {
    src: IpAddr,
    dst: IpAddr,
    proto: u8,
    id: u32,
    offset: u32,
    discriminator: Discriminator,
    len: u32,
    hash: Option<u32>,
}

impl Fingerprint {
    fn of(ip: &Ip) -> Option<Self> {
        let mut print = Self {
            src: ip.src,
            dst: ip.dst,
            proto: ip.proto,
            id: ip.id,
            offset: ip.fragment.map_or(0, |f| f.offset),
            discriminator: Discriminator::of(&ip.l4),
            len: ip.payload_len,
            hash: ip.payload_hash,
        };
        match ip.l4 {
            L4::IcmpError { .. } => return None,
            // Segmentation and merging leave the first byte and the number of its segment alone.
            L4::Tcp { sport, dport, seq, payload, .. } if payload > 0 => {
                print.discriminator =
                    Discriminator::Tcp { sport, dport, seq, ack: 0, flags: 0, window: 0 };
                (print.len, print.hash) = (0, None);
            }
            _ => {}
        }
        (ip.id != 0 || print.discriminator != Discriminator::Opaque).then_some(print)
    }

    /// Of a segment of a super-packet, counted from 0: senders number them one after the other.
    fn segment(mut self, nth: u16, size: u16) -> Self {
        if let Discriminator::Tcp { seq, .. } = &mut self.discriminator {
            *seq = seq.wrapping_add(u32::from(nth) * u32::from(size));
        }
        if self.id != 0 {
            self.id = self.id.wrapping_add(u32::from(nth)) & 0xffff;
        }
        self
    }
}

/// Recognises packets that cross from machine to machine.
#[derive(Clone, Debug, Default)]
pub(super) struct Crossings {
    /// By station: whether it leads to other nodes.
    physical: Vec<bool>,
    departures: HashMap<Fingerprint, Reading>,
    departed: VecDeque<Fingerprint>,
    arrivals: HashMap<Fingerprint, Vec<Reading>>,
    arrived: VecDeque<Fingerprint>,
}

impl Crossings {
    pub fn of(topology: &Topology) -> Self {
        let physical = topology.stations.iter().map(|s| s.role == Role::Physical).collect();
        Self { physical, ..Self::default() }
    }

    /// Takes an event of whichever machine, of each in nearly the order of its time; machines may be
    /// behind one another. Hands on what crossed.
    pub fn see(&mut self, event: &Event, mut found: impl FnMut(Crossing)) {
        let (EventKind::Hop(hook), Some(station), Body::Ip(ip)) =
            (&event.kind, event.station, &event.packet.body)
        else {
            return;
        };
        if self.physical.get(usize::from(station.0)) != Some(&true) {
            return;
        }
        let Some(print) = Fingerprint::of(ip) else { return };
        let data = matches!(ip.l4, L4::Tcp { payload, .. } if payload > 0);
        let (segments, size) = match event.gso.filter(|_| data) {
            Some(gso) => (gso.segments.max(1), gso.size),
            None => (1, 0),
        };
        match hook {
            Hook::Egress => {
                for nth in 0..segments {
                    self.depart(print.segment(nth, size), event.clock, &mut found);
                }
            }
            Hook::Ingress => {
                self.arrive(print, event.clock, &mut found);
                if segments > 1 {
                    self.arrive(print.segment(segments - 1, size), event.clock, &mut found);
                }
            }
        }
    }

    fn depart(&mut self, print: Fingerprint, left: Reading, found: &mut impl FnMut(Crossing)) {
        if self.departures.contains_key(&print) {
            return;
        }
        if self.departed.len() >= MAX_DEPARTURES
            && let Some(oldest) = self.departed.pop_front()
        {
            self.departures.remove(&oldest);
        }
        self.departures.insert(print, left);
        self.departed.push_back(print);
        for arrived in self.arrivals.remove(&print).into_iter().flatten() {
            cross(left, arrived, found);
        }
    }

    fn arrive(&mut self, print: Fingerprint, arrived: Reading, found: &mut impl FnMut(Crossing)) {
        if let Some(left) = self.departures.get(&print) {
            return cross(*left, arrived, found);
        }
        if self.arrived.len() >= MAX_ARRIVALS
            && let Some(oldest) = self.arrived.pop_front()
        {
            self.arrivals.remove(&oldest);
        }
        let alike = self.arrivals.entry(print).or_default();
        if alike.is_empty() {
            self.arrived.push_back(print);
        }
        if alike.len() < MAX_ALIKE {
            alike.push(arrived);
        }
    }
}

fn cross(left: Reading, arrived: Reading, found: &mut impl FnMut(Crossing)) {
    if left.machine != arrived.machine {
        found(Crossing { left, arrived, asked: false });
    }
}
