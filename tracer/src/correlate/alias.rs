//! Address translation: packets by the addresses of the ends, whatever they carry where they are
//! seen.
//!
//! A destination is translated by a rule that the topology knows. A source is translated to an
//! address that the topology knows and to a port that only the packets tell: the kernel's packet is
//! still the same skb behind the translation, and its sender's number stays.

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::IpAddr;

use super::Correlator;
use super::live::Live;
use crate::model::{Alias, Direction, Event, Ip, L4, Topology};

/// Translated source ports remembered; beyond it they are learned anew.
const MAX_LEARNED: usize = 65_536;
/// An skb that was seen this long ago is another packet by now, ns.
const SAME_SKB_NS: u64 = 100_000_000;

/// A translated source: address, IP protocol, port.
type Translated = (IpAddr, u8, u16);

/// What stands for what.
#[derive(Debug, Default)]
pub(super) struct Aliases {
    list: Vec<Alias>,
    /// The source's own port behind a translated one.
    learned: HashMap<Translated, u16>,
    /// Of flows that were first seen with a translated source (a node's own): the port by which they
    /// are known, by the source's own, which shows where answers are translated back.
    known_by: HashMap<Translated, u16>,
}

impl Aliases {
    pub fn of(topology: &Topology) -> Self {
        Self { list: topology.aliases.clone(), learned: HashMap::new(), known_by: HashMap::new() }
    }

    /// The packet with the ends' own addresses and ports. Not a copy where nothing is translated.
    pub fn canonical<'p>(&self, ip: &'p Ip) -> Cow<'p, Ip> {
        if self.list.is_empty() {
            return Cow::Borrowed(ip);
        }
        let (sport, dport) = ports(&ip.l4);
        let src = self.real(ip.proto, ip.src, sport);
        let dst = self.real(ip.proto, ip.dst, dport).or_else(|| {
            let port = self.known_by.get(&(ip.dst, ip.proto, dport?)).copied()?;
            Some((ip.dst, Some(port)))
        });
        if src.is_none() && dst.is_none() {
            return Cow::Borrowed(ip);
        }
        let mut own = ip.clone();
        if let Some((address, port)) = src {
            own.src = address;
            set_ports(&mut own.l4, port, None);
        }
        if let Some((address, port)) = dst {
            own.dst = address;
            set_ports(&mut own.l4, None, port);
        }
        Cow::Owned(own)
    }

    /// The end's own address behind one that a packet carries, and its port where that differs.
    fn real(&self, proto: u8, ip: IpAddr, port: Option<u16>) -> Option<(IpAddr, Option<u16>)> {
        // A later fragment shows no ports.
        let fits =
            |a: &&Alias| a.ip == ip && (port.is_none() || a.port.is_none() || a.port == port);
        let alias = self.list.iter().find(fits)?;
        let port = if alias.source {
            port.and_then(|port| self.learned.get(&(ip, proto, port)).copied())
        } else {
            alias.real_port
        };
        Some((alias.real, port))
    }

    /// The translated source of a packet, where it is one.
    fn translated(&self, ip: &Ip) -> Option<Translated> {
        let port = ports(&ip.l4).0?;
        let is_source = self.list.iter().any(|a| a.source && a.ip == ip.src);
        is_source.then_some((ip.src, ip.proto, port))
    }
}

impl Correlator {
    /// Learns, from an answer that was just translated back, by which port its flow is known.
    pub(super) fn learn_known(&mut self, ip: &Ip, event: &Event) {
        let is_own = |a: &Alias| a.source && a.real == ip.dst;
        let (Some(sport), Some(dport)) = ports(&ip.l4) else { return };
        if !self.aliases.list.iter().any(is_own)
            || self.aliases.known_by.contains_key(&(ip.dst, ip.proto, dport))
        {
            return;
        }
        let own = self.aliases.canonical(ip);
        let before = self.by_skb.get(&event.skb).and_then(|id| self.store.get(*id));
        let same = |live: &&Live| {
            event.time_ns.saturating_sub(live.last_ns) <= SAME_SKB_NS
                && live.direction == Direction::Reply
                && (live.flow.src, live.flow.dst, live.flow.proto) == (own.src, own.dst, own.proto)
                && live.flow.ports.0 == ports(&own.l4).0.unwrap_or(sport)
                && live.flow.ports.1 != dport
                && (live.ip_id == own.id || live.stream.is_some())
        };
        let Some(port) = before.filter(same).map(|live| live.flow.ports.1) else { return };
        if self.aliases.known_by.len() >= MAX_LEARNED {
            self.aliases.known_by.clear();
        }
        self.aliases.known_by.insert((ip.dst, ip.proto, dport), port);
    }

    /// Learns the port to which the source of this packet was translated, by its skb.
    pub(super) fn learn_port(&mut self, ip: &Ip, event: &Event) {
        let Some(translated) = self.aliases.translated(ip) else { return };
        let known = self.aliases.learned.contains_key(&translated);
        let own = self.aliases.canonical(ip);
        let own_src = own.src;
        let before = self.by_skb.get(&event.skb).and_then(|id| self.store.get(*id));
        let same = |live: &&Live| {
            event.time_ns.saturating_sub(live.last_ns) <= SAME_SKB_NS
                && live.flow.src == own.src
                && live.flow.dst == own.dst
                && live.flow.proto == own.proto
                // A port can be given to another connection later; its number then tells.
                && (live.ip_id == own.id || live.stream.is_some() && !known)
        };
        let Some(port) = before.filter(same).map(|live| live.flow.ports.0) else { return };
        if self.aliases.learned.len() >= MAX_LEARNED {
            self.aliases.learned.clear();
        }
        self.aliases.learned.insert(translated, port);
        // The flow is known by the source's own port from now on: its first packet seen was an answer.
        self.aliases.known_by.remove(&(own_src, ip.proto, port));
    }
}

/// Ports as translation sees them: an echo's identifier is both.
fn ports(l4: &L4) -> (Option<u16>, Option<u16>) {
    match *l4 {
        L4::Tcp { sport, dport, .. } | L4::Udp { sport, dport, .. } => (Some(sport), Some(dport)),
        L4::Icmp { id, .. } => (Some(id), Some(id)),
        L4::IcmpError { .. } | L4::Other => (None, None),
    }
}

fn set_ports(l4: &mut L4, source: Option<u16>, destination: Option<u16>) {
    match l4 {
        L4::Tcp { sport, dport, .. } | L4::Udp { sport, dport, .. } => {
            *sport = source.unwrap_or(*sport);
            *dport = destination.unwrap_or(*dport);
        }
        L4::Icmp { id, .. } => *id = source.or(destination).unwrap_or(*id),
        L4::IcmpError { .. } | L4::Other => {}
    }
}
