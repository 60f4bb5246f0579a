//! The record of an event.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::decode::RawEvent;
use crate::model::{DropInfo, EventKind, Gso, Hook};

/// A raw event as it stands in the file; see [`RawEvent`] for the meaning of the fields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventRecord<'a> {
    /// Number of the machine.
    #[serde(default, skip_serializing_if = "is_first")]
    m: u16,
    /// Kernel time there, ns.
    t: u64,
    /// Inode of the namespace.
    ns: u32,
    /// Interface index.
    #[serde(rename = "if")]
    ifindex: u32,
    /// Identity of the skb.
    skb: u64,
    /// Bytes of frame.
    len: u32,
    /// Segments and their size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gso: Option<(u16, u16)>,
    /// Which way through the interface; absent for a drop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hook: Option<Hook>,
    /// Why it was dropped; absent for a hop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    drop: Option<Box<DropInfo>>,
    /// Where the network header stands.
    l3: u8,
    /// EtherType.
    proto: u16,
    /// The packet, hexadecimal.
    #[serde(borrow)]
    data: Cow<'a, str>,
}

fn is_first(machine: &u16) -> bool {
    *machine == 0
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";

fn to_hex(bytes: &[u8]) -> String {
    let digit = |n: u8| char::from(DIGITS[usize::from(n & 15)]);
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        text.push(digit(byte >> 4));
        text.push(digit(*byte));
    }
    text
}

/// What a byte that is no digit stands for in [`VALUES`].
const NO_DIGIT: u8 = 0xff;

/// What each byte stands for as a hexadecimal digit.
const VALUES: [u8; 256] = {
    let mut values = [NO_DIGIT; 256];
    let mut n = 0;
    while n < 16 {
        values[DIGITS[n].to_ascii_uppercase() as usize] = n as u8;
        values[DIGITS[n] as usize] = n as u8;
        n += 1;
    }
    values
};

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    let mut bytes = Vec::with_capacity(pairs.len());
    // Looked at once at the end: this is done for every byte of a recording.
    let mut seen = 0;
    for [high, low] in pairs {
        let (high, low) = (VALUES[usize::from(*high)], VALUES[usize::from(*low)]);
        seen |= high | low;
        bytes.push(high << 4 | low & 15);
    }
    (seen < 16).then_some(bytes)
}

impl EventRecord<'static> {
    /// The record of an event.
    pub fn of(event: RawEvent<'_>) -> Self {
        let (hook, drop) = match event.kind {
            EventKind::Hop(hook) => (Some(hook), None),
            EventKind::Drop(info) => (None, Some(info)),
        };
        Self {
            m: event.machine,
            t: event.time_ns,
            ns: event.netns_inum,
            ifindex: event.ifindex,
            skb: event.skb,
            len: event.len,
            gso: event.gso.map(|g| (g.segments, g.size)),
            hook,
            drop,
            l3: event.l3_offset,
            proto: event.protocol,
            data: to_hex(&event.data).into(),
        }
    }
}

impl EventRecord<'_> {
    /// The event of a record, or why it is none.
    pub fn event(self) -> Result<RawEvent<'static>, &'static str> {
        let kind = match (self.hook, self.drop) {
            (Some(hook), None) => EventKind::Hop(hook),
            (None, Some(info)) => EventKind::Drop(info),
            _ => return Err("an event has either a hook or a drop"),
        };
        Ok(RawEvent {
            machine: self.m,
            time_ns: self.t,
            netns_inum: self.ns,
            ifindex: self.ifindex,
            skb: self.skb,
            len: self.len,
            gso: self.gso.map(|(segments, size)| Gso { segments, size }),
            kind,
            l3_offset: self.l3,
            protocol: self.proto,
            data: from_hex(&self.data).ok_or("packet data is not hexadecimal")?.into(),
        })
    }
}
