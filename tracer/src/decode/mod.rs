//! Decoding: from the bytes of an event to a typed event. Pure.
//!
//! Enters: batches of ring-buffer records ([`tracer_common`] layouts) and what is needed to name
//! their numbers. Leaves: [`Event`]s. Two steps: [`Unpacker`] makes a record independent of the
//! machine it came from ([`RawEvent`], which is what a recording keeps), [`Parser`] reads the
//! packet in it; [`Decoder`] does both. They check every bound; what cannot be read is counted.

mod headers;
mod symbols;
mod unread;

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use tracer_common::{DropTrailer, HOOK_EGRESS, HOOK_INGRESS, HopHeader, KIND_DROP, KIND_HOP};
use zerocopy::FromBytes;

pub use headers::parse_frame;
pub use symbols::Symbols;
pub use unread::Unread;

use crate::model::{
    Body, DropInfo, Event, EventKind, Gso, Hook, L4, Packet, Reading, StationId, Topology,
};

/// Ring-buffer records, copied out one behind the other: each a 32-bit length in host byte order
/// and then as many bytes.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    count: usize,
}

impl Batch {
    /// An empty one with room for so many bytes.
    pub fn with_capacity(bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), count: 0 }
    }

    /// Appends a record.
    pub fn push(&mut self, record: &[u8]) {
        let Ok(len) = u32::try_from(record.len()) else { return };
        self.bytes.extend_from_slice(&len.to_ne_bytes());
        self.bytes.extend_from_slice(record);
        self.count += 1;
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Memory taken, bytes.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Gives back memory that it has room for and does not need.
    pub fn shrink(&mut self) {
        self.bytes.shrink_to_fit();
    }

    /// The records in their order.
    pub fn records(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.bytes.as_slice();
        std::iter::from_fn(move || {
            let (len, after) = rest.split_first_chunk::<4>()?;
            let (record, after) = after.split_at_checked(u32::from_ne_bytes(*len) as usize)?;
            rest = after;
            Some(record)
        })
    }
}

/// Names for the numbers that a kernel puts into drop events.
#[derive(Clone, Debug, Default)]
pub struct KernelNames {
    /// `enum skb_drop_reason`, with or without its prefix.
    pub reasons: HashMap<u32, String>,
    /// Function addresses.
    pub symbols: Symbols,
}

impl KernelNames {
    fn reason(&self, code: u32) -> String {
        match self.reasons.get(&code) {
            Some(name) => name.strip_prefix("SKB_DROP_REASON_").unwrap_or(name).to_owned(),
            None => format!("REASON_{code}"),
        }
    }
}

/// Frames at the top of a stack that belong to the tracing itself.
fn is_tracing(function: &str) -> bool {
    function.starts_with("bpf_")
        || function.starts_with("__bpf_")
        || function.starts_with("__traceiter_")
        || function.contains("packet_dropped")
}

/// Gives the names when the first drop event asks for them: reading them takes longer than all else
/// that a short trace does.
pub type NameSource = Box<dyn FnOnce() -> KernelNames + Send>;

/// An event whose packet has not been read: what a machine saw, with all numbers of that machine
/// named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawEvent<'a> {
    /// Number of the machine it came from, as in [`Reading`].
    pub machine: u16,
    /// When, CLOCK_MONOTONIC of that machine, ns.
    pub time_ns: u64,
    /// As [`Event::netns_inum`].
    pub netns_inum: u32,
    /// As [`Event::ifindex`].
    pub ifindex: u32,
    /// As [`Event::skb`].
    pub skb: u64,
    /// As [`Event::len`].
    pub len: u32,
    /// As [`Event::gso`].
    pub gso: Option<Gso>,
    /// What.
    pub kind: EventKind,
    /// Where in `data` the network header stands, bytes: 14 behind an Ethernet header, 0 without.
    pub l3_offset: u8,
    /// EtherType of the network header.
    pub protocol: u16,
    /// The packet as captured, perhaps cut short.
    pub data: Cow<'a, [u8]>,
}

/// Kernel time of a record, ns; `None` for a record that is not one.
pub fn time_of(record: &[u8]) -> Option<u64> {
    HopHeader::read_from_prefix(record).ok().map(|(header, _)| header.time_ns)
}

impl RawEvent<'_> {
    /// When, by the clock of its machine.
    pub fn reading(&self) -> Reading {
        Reading { machine: self.machine, ns: self.time_ns }
    }

    /// The same without a copy of the packet.
    pub fn borrowed(&self) -> RawEvent<'_> {
        RawEvent { kind: self.kind.clone(), data: Cow::Borrowed(&self.data), ..*self }
    }

    /// The same with a packet of its own.
    pub fn into_owned(self) -> RawEvent<'static> {
        let Self { machine, time_ns, netns_inum, ifindex, skb, len, gso, kind, .. } = self;
        let (l3_offset, protocol) = (self.l3_offset, self.protocol);
        let data = Cow::Owned(self.data.into_owned());
        RawEvent {
            machine,
            time_ns,
            netns_inum,
            ifindex,
            skb,
            len,
            gso,
            kind,
            l3_offset,
            protocol,
            data,
        }
    }
}

/// Turns records of one machine into raw events.
pub struct Unpacker {
    names: LazyLock<KernelNames, NameSource>,
    /// Inode of the namespace behind each slot.
    slots: Vec<u32>,
}

impl fmt::Debug for Unpacker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unpacker").field("slots", &self.slots).finish_non_exhaustive()
    }
}

impl Unpacker {
    /// For programs whose slots stand for the namespaces with these inodes.
    pub fn new(slots: Vec<u32>, names: NameSource) -> Self {
        Self { names: LazyLock::new(names), slots }
    }

    /// Gets the names now: takes long, and the first drop event waits for it.
    pub fn get_names(&self) {
        LazyLock::force(&self.names);
    }

    /// Reads everything but the packet; `None` for a record that is not one.
    pub fn unpack<'a>(&self, record: &'a [u8]) -> Option<RawEvent<'a>> {
        let (header, rest) = HopHeader::read_from_prefix(record).ok()?;
        let (kind, netns_inum, data) = match header.kind {
            KIND_HOP => {
                let hook = match header.hook {
                    HOOK_INGRESS => Hook::Ingress,
                    HOOK_EGRESS => Hook::Egress,
                    _ => return None,
                };
                let netns = *self.slots.get(usize::from(header.slot))?;
                (EventKind::Hop(hook), netns, rest)
            }
            KIND_DROP => {
                let (trailer, data) = DropTrailer::read_from_prefix(rest).ok()?;
                (EventKind::Drop(Box::new(self.drop(&trailer))), trailer.netns, data)
            }
            _ => return None,
        };
        Some(RawEvent {
            machine: 0,
            time_ns: header.time_ns,
            netns_inum,
            ifindex: header.ifindex,
            skb: header.skb,
            len: header.len,
            gso: (header.gso_segs > 1)
                .then_some(Gso { segments: header.gso_segs, size: header.gso_size }),
            kind,
            l3_offset: header.l3_offset,
            protocol: u16::from_be(header.protocol),
            data: Cow::Borrowed(data.get(..usize::from(header.caplen))?),
        })
    }

    fn drop(&self, trailer: &DropTrailer) -> DropInfo {
        let frames = (trailer.frames as usize).min(trailer.stack.len());
        DropInfo {
            code: trailer.reason,
            reason: self.names.reason(trailer.reason),
            function: self.names.symbols.name(trailer.location),
            stack: trailer.stack[..frames]
                .iter()
                .map(|address| self.names.symbols.name(*address))
                .skip_while(|name| is_tracing(name))
                .collect(),
        }
    }
}

/// Reads the packets of raw events.
#[derive(Clone, Debug)]
pub struct Parser {
    stations: HashMap<(u32, u32), StationId>,
    /// Node that each namespace belongs to.
    nodes: HashMap<u32, String>,
    vxlan_ports: Vec<u16>,
    /// Addresses of the flow, translated ones too.
    flow: HashSet<IpAddr>,
}

impl Parser {
    /// For events at the stations of this topology.
    pub fn new(topology: &Topology) -> Self {
        let stations = topology
            .stations
            .iter()
            .zip(0u16..)
            .map(|(s, i)| ((s.netns_inum, s.ifindex), StationId(i)))
            .collect();
        let nodes = topology.stations.iter().map(|s| (s.netns_inum, s.node.clone())).collect();
        let ends = [&topology.src, &topology.dst].into_iter().flatten();
        let aliases = topology.aliases.iter().flat_map(|alias| [alias.ip, alias.real]);
        let flow = ends.flat_map(|end| end.ips.iter().copied()).chain(aliases).collect();
        Self { stations, nodes, vxlan_ports: topology.vxlan_ports.clone(), flow }
    }

    /// The node that a namespace belongs to.
    pub fn node(&self, netns_inum: u32) -> Option<&str> {
        self.nodes.get(&netns_inum).map(String::as_str)
    }

    /// Reads an event, and counts it where it happened when it cannot be read. `None`: a record that is
    /// no event at all.
    pub fn read(&self, raw: Option<RawEvent<'_>>, unread: &mut Unread) -> Option<Event> {
        let netns = raw.as_ref().map(|raw| raw.netns_inum);
        let event = raw.and_then(|raw| self.parse(raw));
        if event.is_none() {
            unread.count(netns.and_then(|netns| self.node(netns)));
        }
        event
    }

    /// Whether this is a tunnel's packet in which the flow's was found by the kernel side, and which
    /// could not be read here: its VXLAN header says that it is invalid, or the capture ends in it. (As
    /// what it is outside, it would not have been let through.)
    fn is_unread_tunnel(&self, packet: &Packet) -> bool {
        let Body::Ip(ip) = &packet.body else { return false };
        let L4::Udp { dport, .. } = ip.l4 else { return false };
        packet.outer.is_none()
            && self.vxlan_ports.contains(&dport)
            && !(self.flow.contains(&ip.src) && self.flow.contains(&ip.dst))
    }

    /// The event; `None` when its packet cannot be told from others: not even the network header is
    /// there, or the capture ends before what identifies it.
    pub fn parse(&self, raw: RawEvent<'_>) -> Option<Event> {
        let packet = parse_frame(
            &raw.data,
            usize::from(raw.l3_offset),
            raw.protocol,
            raw.len,
            &self.vxlan_ports,
        )
        .filter(|packet| !self.is_unread_tunnel(packet))?;
        Some(Event {
            time_ns: raw.time_ns,
            error_ns: 0,
            clock: raw.reading(),
            station: self.stations.get(&(raw.netns_inum, raw.ifindex)).copied(),
            netns_inum: raw.netns_inum,
            ifindex: raw.ifindex,
            skb: raw.skb,
            len: raw.len,
            gso: raw.gso,
            kind: raw.kind,
            packet,
        })
    }
}

/// Turns records into events for one machine.
#[derive(Debug)]
pub struct Decoder {
    unpacker: Arc<Unpacker>,
    parser: Parser,
    unread: Unread,
}

impl Decoder {
    /// A decoder for programs whose slots stand for the namespaces with these inodes.
    pub fn new(topology: &Topology, slots: Vec<u32>, names: NameSource) -> Self {
        let unpacker = Arc::new(Unpacker::new(slots, names));
        Self { unpacker, parser: Parser::new(topology), unread: Unread::default() }
    }

    /// Its first half.
    pub fn unpacker(&self) -> &Arc<Unpacker> {
        &self.unpacker
    }

    /// Records that could not be decoded so far.
    pub fn unread(&self) -> &Unread {
        &self.unread
    }

    /// Decodes all records of a batch, in their order.
    pub fn decode(&mut self, batch: &Batch) -> Vec<Event> {
        let mut events = Vec::with_capacity(batch.len());
        for record in batch.records() {
            events.extend(self.parser.read(self.unpacker.unpack(record), &mut self.unread));
        }
        events
    }
}

#[cfg(test)]
mod tests;
