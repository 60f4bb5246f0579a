//! Decoding: from the bytes of an event to a typed event. Pure.
//!
//! Enters: batches of ring-buffer records ([`tracer_common`] layouts) and what is needed to name
//! their numbers. Leaves: [`Event`]s. The only entry point is [`Decoder::decode`]; it checks every
//! bound and counts what it cannot read.

mod headers;
mod symbols;

use std::collections::HashMap;
use std::fmt;
use std::sync::LazyLock;

use tracer_common::{DropTrailer, HOOK_EGRESS, HOOK_INGRESS, HopHeader, KIND_DROP, KIND_HOP};
use zerocopy::FromBytes;

pub use headers::parse_frame;
pub use symbols::Symbols;

use crate::model::{DropInfo, Event, EventKind, Gso, Hook, StationId, Topology};

/// Ring-buffer records, copied out one behind the other: each a 32-bit length in host byte order
/// and then as many bytes.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    count: usize,
}

impl Batch {
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

    fn records(&self) -> impl Iterator<Item = &[u8]> {
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

/// Turns records into events for one machine.
pub struct Decoder {
    names: LazyLock<KernelNames, NameSource>,
    /// Inode of the namespace behind each slot.
    slots: Vec<u32>,
    stations: HashMap<(u32, u32), StationId>,
    vxlan_ports: Vec<u16>,
    undecodable: u64,
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoder").field("slots", &self.slots).finish_non_exhaustive()
    }
}

impl Decoder {
    /// A decoder for programs whose slots stand for the namespaces with these inodes.
    pub fn new(topology: &Topology, slots: Vec<u32>, names: NameSource) -> Self {
        let stations = topology
            .stations
            .iter()
            .zip(0u16..)
            .map(|(s, i)| ((s.netns_inum, s.ifindex), StationId(i)))
            .collect();
        Self {
            names: LazyLock::new(names),
            slots,
            stations,
            vxlan_ports: topology.vxlan_ports.clone(),
            undecodable: 0,
        }
    }

    /// Records that could not be decoded so far.
    pub fn undecodable(&self) -> u64 {
        self.undecodable
    }

    /// Decodes all records of a batch, in their order.
    pub fn decode(&mut self, batch: &Batch) -> Vec<Event> {
        let mut events = Vec::with_capacity(batch.len());
        for record in batch.records() {
            match self.event(record) {
                Some(event) => events.push(event),
                None => self.undecodable += 1,
            }
        }
        events
    }

    fn event(&self, record: &[u8]) -> Option<Event> {
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
        let data = data.get(..usize::from(header.caplen))?;
        let packet = parse_frame(
            data,
            usize::from(header.l3_offset),
            u16::from_be(header.protocol),
            header.len,
            &self.vxlan_ports,
        )?;
        Some(Event {
            time_ns: header.time_ns,
            station: self.stations.get(&(netns_inum, header.ifindex)).copied(),
            netns_inum,
            ifindex: header.ifindex,
            skb: header.skb,
            len: header.len,
            gso: (header.gso_segs > 1)
                .then_some(Gso { segments: header.gso_segs, size: header.gso_size }),
            kind,
            packet,
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

#[cfg(test)]
mod tests;
