//! Which backend of a service a packet went to, so that the packets of each are followed by
//! themselves.
//!
//! A translation belongs to a connection: the first packet decides it, and all others of the same
//! two ports follow. Before the node has translated a packet it shows the service's address; what it
//! was sent on to is seen on the same skb a moment later. Until then events wait, all of them, so that
//! their order stays. A packet that ends before it is translated belongs to no backend.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;

use crate::model::{Body, Event, Ip, L4, Leads, Topology};

/// How long after a packet was seen with the service's address it is looked for behind the
/// translation, ns: longer than a packet takes to the node that translates, if that is another.
const HOLD_NS: u64 = 500_000_000;
/// An skb that was seen this long ago is another packet by now, ns.
const SAME_SKB_NS: u64 = 100_000_000;
/// Events that wait, at most; beyond it the oldest go on undecided.
const MAX_WAITING: usize = 50_000;
/// Entries of each table, at most; beyond it they are learned anew.
const MAX_LEARNED: usize = 65_536;

/// To whom an event goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    /// One of the topologies, by position.
    Leg(usize),
    /// Each of them: address resolution.
    Every,
    /// None: a packet to a backend that is not followed.
    Nobody,
}

/// A connection as its client sees it: protocol, client, its port, service, its port.
type Connection = (u8, (IpAddr, u16), (IpAddr, u16));

/// A packet within a node, whatever translation makes of it: machine and skb …
type Skb = (u16, u64);

/// … with what stays the same: IP identification, TCP sequence number, length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    time_ns: u64,
    id: u32,
    seq: u32,
    len: u32,
}

impl Mark {
    fn of(ip: &Ip, time_ns: u64) -> Self {
        let seq = if let L4::Tcp { seq, .. } = ip.l4 { seq } else { 0 };
        Self { time_ns, id: ip.id, seq, len: ip.payload_len }
    }

    /// Whether a later sighting of the same skb is the same packet.
    fn is(&self, later: &Self) -> bool {
        later.time_ns.saturating_sub(self.time_ns) <= SAME_SKB_NS
            && (self.id, self.seq, self.len) == (later.id, later.seq, later.len)
    }
}

/// A table that forgets everything rather than grow without bound.
#[derive(Debug)]
struct Learned<K, V>(HashMap<K, V>);

impl<K: Eq + Hash, V: Copy> Learned<K, V> {
    fn new() -> Self {
        Self(HashMap::new())
    }

    fn get(&self, key: &K) -> Option<V> {
        self.0.get(key).copied()
    }

    fn set(&mut self, key: K, value: V) {
        if self.0.len() >= MAX_LEARNED && !self.0.contains_key(&key) {
            self.0.clear();
        }
        self.0.insert(key, value);
    }
}

/// Who has a backend's address.
#[derive(Clone, Copy, Debug)]
struct Backend {
    /// The topology that leads there; `None`: it is not followed.
    leg: Option<usize>,
    /// The port that it answers on, where the trace is about one.
    port: Option<u16>,
}

/// Tells the legs of one address family apart.
#[derive(Debug)]
pub struct Dispatch {
    /// Whose address is whose.
    backends: HashMap<IpAddr, Backend>,
    /// Addresses and ports that stand for backends.
    services: HashSet<(IpAddr, Option<u16>)>,
    /// For packets that no backend was chosen for.
    open: usize,
    chosen: Learned<Connection, Option<usize>>,
    /// Connections whose client is translated on the way, by what they look like behind that.
    originals: Learned<Connection, Connection>,
    /// Packets seen with the service's address.
    sent: Learned<Skb, (Mark, Connection)>,
    /// Packets seen with a backend's address as their source.
    answered: Learned<Skb, (Mark, Option<usize>)>,
    /// Fragmented packets with a service's address, by source, destination and identification.
    fragments: Learned<(IpAddr, IpAddr, u32), (Connection, bool)>,
    waiting: VecDeque<Event>,
    newest_ns: u64,
}

/// What an event's packet tells.
enum Seen {
    /// It goes there, whatever else is known.
    Known(To),
    /// It has a service's address, and is of this connection.
    OfService(Connection),
}

impl Dispatch {
    /// For these topologies, one for each end; `None` where there is nothing to tell apart.
    pub fn among(legs: &[Arc<Topology>]) -> Option<Self> {
        let elsewhere: Vec<IpAddr> = legs.iter().flat_map(|t| t.elsewhere.clone()).collect();
        if legs.len() < 2 && elsewhere.is_empty() {
            return None;
        }
        let unfollowed = |ip| (ip, Backend { leg: None, port: None });
        let mut backends: HashMap<IpAddr, Backend> =
            elsewhere.into_iter().map(unfollowed).collect();
        let mut open = 0;
        for (leg, topology) in legs.iter().enumerate() {
            let Some(dst) = &topology.dst else { continue };
            if dst.service.as_ref().is_some_and(|s| s.leads == Leads::Open) {
                open = leg;
            } else {
                let port = dst.service.as_ref().and_then(|s| s.target_port.or(s.port));
                let backend = Backend { leg: Some(leg), port };
                backends.extend(dst.ips.iter().map(|ip| (*ip, backend)));
            }
        }
        let destinations = legs.iter().flat_map(|t| &t.aliases).filter(|alias| !alias.source);
        let services = destinations.map(|alias| (alias.ip, alias.port)).collect();
        Some(Self {
            backends,
            services,
            open,
            chosen: Learned::new(),
            originals: Learned::new(),
            sent: Learned::new(),
            answered: Learned::new(),
            fragments: Learned::new(),
            waiting: VecDeque::new(),
            newest_ns: 0,
        })
    }

    /// Takes events, nearly in the order of their times; what is decided by now goes on.
    pub fn take(&mut self, events: Vec<Event>) -> Vec<(To, Event)> {
        for event in events {
            self.newest_ns = self.newest_ns.max(event.time_ns);
            self.learn(&event);
            self.waiting.push_back(event);
        }
        let mut ready = Vec::new();
        while let Some(oldest) = self.waiting.front() {
            let late = self.newest_ns.saturating_sub(oldest.time_ns) > HOLD_NS
                || self.waiting.len() > MAX_WAITING;
            let to = match self.decide(oldest) {
                Some(to) => to,
                None if late => self.give_up(),
                None => break,
            };
            ready.extend(self.waiting.pop_front().map(|event| (to, event)));
        }
        ready
    }

    /// The oldest that waits is never seen behind the translation, and the others of its connection
    /// will not be either: they need not wait as long.
    fn give_up(&mut self) -> To {
        let ip = match self.waiting.front().map(|event| &event.packet.body) {
            Some(Body::Ip(ip)) => ip,
            _ => return To::Leg(self.open),
        };
        if let Some((connection, _)) = self.of_service(ip) {
            let original = self.original(connection);
            self.chosen.set(original, Some(self.open));
        }
        To::Leg(self.open)
    }

    /// Whatever waits, decided as well as can be: nothing more comes.
    pub fn rest(&mut self) -> Vec<(To, Event)> {
        let waiting = std::mem::take(&mut self.waiting);
        let decided = waiting
            .into_iter()
            .map(|event| (self.decide(&event).unwrap_or(To::Leg(self.open)), event));
        decided.collect()
    }

    /// Events that wait.
    pub fn waiting(&self) -> u64 {
        self.waiting.len() as u64
    }

    fn decide(&self, event: &Event) -> Option<To> {
        let ip = match &event.packet.body {
            Body::Neighbor(_) => return Some(To::Every),
            Body::Other(_) => return Some(To::Leg(self.open)),
            Body::Ip(ip) => match &ip.l4 {
                L4::IcmpError { quoted: Some(quoted), .. } => quoted,
                _ => ip,
            },
        };
        match self.seen(ip) {
            Seen::Known(to) => Some(to),
            Seen::OfService(connection) => self.chosen.get(&self.original(connection)).map(to),
        }
    }

    fn seen(&self, ip: &Ip) -> Seen {
        if let Some((connection, _)) = self.of_service(ip) {
            return Seen::OfService(connection);
        }
        let backend = self.backend(ip).map(|(backend, _)| backend.leg);
        Seen::Known(backend.map_or(To::Leg(self.open), to))
    }

    /// The backend that a packet goes to (true) or comes from. One may be the client of another, nodes
    /// and pods alike: then its port tells, and that one is followed.
    fn backend(&self, ip: &Ip) -> Option<(Backend, bool)> {
        let ports = ports(&ip.l4);
        let (sport, dport) = (ports.map(|p| p.0), ports.map(|p| p.1));
        let fits = |backend: &Backend, port: Option<u16>| match (backend.port, port) {
            (Some(own), Some(port)) => own == port,
            _ => true,
        };
        let rank = |address: &IpAddr, port| {
            let backend = self.backends.get(address).copied()?;
            Some(((fits(&backend, port), backend.leg.is_some()), backend))
        };
        match (rank(&ip.dst, dport), rank(&ip.src, sport)) {
            (Some((to, backend)), Some((from, _))) if to >= from => Some((backend, true)),
            (Some((_, backend)), None) => Some((backend, true)),
            (_, Some((_, backend))) => Some((backend, false)),
            (None, None) => None,
        }
    }

    /// The connection of a packet with a service's address, and whether it is the client's.
    fn of_service(&self, ip: &Ip) -> Option<(Connection, bool)> {
        let Some((sport, dport)) = ports(&ip.l4) else {
            ip.fragment?;
            return self.fragments.get(&(ip.src, ip.dst, ip.id));
        };
        let is_service = |ip, port| {
            self.services.contains(&(ip, Some(port))) || self.services.contains(&(ip, None))
        };
        if is_service(ip.dst, dport) {
            Some(((ip.proto, (ip.src, sport), (ip.dst, dport)), true))
        } else if is_service(ip.src, sport) {
            Some(((ip.proto, (ip.dst, dport), (ip.src, sport)), false))
        } else {
            None
        }
    }

    /// The connection as its client began it.
    fn original(&self, mut connection: Connection) -> Connection {
        // A client is translated once or twice at most.
        for _ in 0..4 {
            match self.originals.get(&connection) {
                Some(original) if original != connection => connection = original,
                _ => break,
            }
        }
        connection
    }

    fn learn(&mut self, event: &Event) {
        let Body::Ip(ip) = &event.packet.body else { return };
        if matches!(ip.l4, L4::IcmpError { .. }) || event.skb == 0 {
            return;
        }
        if ip.fragment.is_some()
            && let (Some(_), Some(of)) = (ports(&ip.l4), self.of_service(ip))
        {
            self.fragments.set((ip.src, ip.dst, ip.id), of);
        }
        let skb = (event.clock.machine, event.skb);
        let mark = Mark::of(ip, event.time_ns);
        match self.of_service(ip) {
            Some((connection, true)) => {
                let before = self.sent.get(&skb).filter(|(before, _)| before.is(&mark));
                if let Some((_, original)) = before
                    && original != self.original(connection)
                    && original.2 == connection.2
                {
                    self.originals.set(connection, original);
                }
                self.sent.set(skb, (mark, self.original(connection)));
            }
            Some((connection, false)) => {
                let original = self.original(connection);
                let before = self.answered.get(&skb).filter(|(before, _)| before.is(&mark));
                let known = self.chosen.get(&original).filter(|leg| *leg != Some(self.open));
                if let (Some((_, leg)), None) = (before, known) {
                    self.chosen.set(original, leg);
                }
            }
            None => {
                let before = self.sent.get(&skb).filter(|(before, _)| before.is(&mark));
                match (self.backend(ip), before) {
                    (Some((backend, true)), Some((_, connection))) => {
                        self.chosen.set(connection, backend.leg);
                    }
                    (Some((backend, false)), _) => self.answered.set(skb, (mark, backend.leg)),
                    _ => {}
                }
            }
        }
    }
}

fn to(leg: Option<usize>) -> To {
    leg.map_or(To::Nobody, To::Leg)
}

fn ports(l4: &L4) -> Option<(u16, u16)> {
    match *l4 {
        L4::Tcp { sport, dport, .. } | L4::Udp { sport, dport, .. } => Some((sport, dport)),
        L4::Icmp { .. } | L4::IcmpError { .. } | L4::Other => None,
    }
}
