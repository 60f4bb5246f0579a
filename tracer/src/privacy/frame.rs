//! Packets: addresses get their stand-ins wherever a header has them, checksums become zero (they
//! would tell), options are blanked, and payload is replaced by a few bytes that only tell equal
//! from different.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::Mask;
use crate::model::Mac;

/// Bytes of payload that tell packets apart; what the decoder hashes.
const PAYLOAD: usize = 16;
/// Packets within packets that are followed (tunnel, then a quote).
const DEPTH: usize = 4;

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const ARP: u16 = 0x0806;

/// Where what is left of the packet ends.
type End = usize;

impl Mask {
    /// A packet whose network header is at `l3`.
    pub(super) fn frame(
        &self,
        mut data: Vec<u8>,
        l3: usize,
        ethertype: u16,
        ports: &[u16],
    ) -> Vec<u8> {
        let end = self.link(&mut data, l3, ethertype, ports, DEPTH);
        data.truncate(end);
        data
    }

    fn link(&self, data: &mut [u8], l3: usize, ethertype: u16, ports: &[u16], depth: usize) -> End {
        let l3 = l3.min(data.len());
        if l3 >= 14 {
            self.mac_at(data, l3 - 14);
            self.mac_at(data, l3 - 8);
            data[..l3 - 14].fill(0);
        } else {
            data[..l3].fill(0);
        }
        l3 + self.network(&mut data[l3..], ethertype, ports, depth)
    }

    fn mac_at(&self, data: &mut [u8], at: usize) {
        if let Some(bytes) = data.get_mut(at..at + 6) {
            let mut mac = Mac::default();
            mac.0.copy_from_slice(bytes);
            bytes.copy_from_slice(&self.mac(mac).0);
        }
    }

    /// Replaces an address; one that is cut off is blanked.
    fn v4_at(&self, data: &mut [u8], at: usize) {
        match data.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<4>()) {
            Some(bytes) => *bytes = self.v4(Ipv4Addr::from(*bytes)).octets(),
            None => blank(data, at),
        }
    }

    fn v6_at(&self, data: &mut [u8], at: usize) {
        match data.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<16>()) {
            Some(bytes) => *bytes = self.v6(Ipv6Addr::from(*bytes)).octets(),
            None => blank(data, at),
        }
    }

    fn network(&self, data: &mut [u8], ethertype: u16, ports: &[u16], depth: usize) -> End {
        if depth == 0 {
            return 0;
        }
        match ethertype {
            IPV4 if data.len() >= 20 => self.ipv4(data, ports, depth),
            IPV6 if data.len() >= 40 => self.ipv6(data, ports, depth),
            ARP => {
                self.mac_at(data, 8);
                self.v4_at(data, 14);
                self.mac_at(data, 18);
                self.v4_at(data, 24);
                data.len().min(28)
            }
            _ => 0,
        }
    }

    fn ipv4(&self, data: &mut [u8], ports: &[u16], depth: usize) -> End {
        let header = (usize::from(data[0] & 15) * 4).clamp(20, data.len());
        let fragment = u16::from_be_bytes([data[6], data[7]]) & 0x1fff != 0;
        let protocol = if fragment { 255 } else { data[9] };
        self.v4_at(data, 12);
        self.v4_at(data, 16);
        zero(data, 10..12);
        // 1 is "no operation" (RFC 791 section 3.1).
        data[20..header].fill(1);
        header + self.transport(&mut data[header..], protocol, ports, depth)
    }

    fn ipv6(&self, data: &mut [u8], ports: &[u16], depth: usize) -> End {
        self.v6_at(data, 8);
        self.v6_at(data, 24);
        let (mut next, mut at) = (data[6], 40);
        // Hop-by-hop, routing, fragment and destination options headers.
        for _ in 0..8 {
            if !matches!(next, 0 | 43 | 44 | 60) || data.len() < at + 8 {
                break;
            }
            let (kind, len) = (next, data[at + 1]);
            next = data[at];
            if kind == 44 {
                if u16::from_be_bytes([data[at + 2], data[at + 3]]) & 0xfff8 != 0 {
                    next = 255;
                }
                at += 8;
            } else {
                let end = (at + 8 + usize::from(len) * 8).min(data.len());
                data[at + 2..end].fill(0);
                at = end;
            }
        }
        at + self.transport(&mut data[at..], next, ports, depth)
    }

    fn transport(&self, data: &mut [u8], protocol: u8, ports: &[u16], depth: usize) -> End {
        match protocol {
            6 if data.len() >= 20 => {
                let header = (usize::from(data[12] >> 4) * 4).max(20);
                zero(data, 16..18);
                let options = header.min(data.len());
                data[20..options].fill(1);
                self.payload(data, header)
            }
            17 if data.len() >= 8 => {
                zero(data, 6..8);
                let port = u16::from_be_bytes([data[2], data[3]]);
                if ports.contains(&port) && data.get(8).is_some_and(|flags| flags & 8 != 0) {
                    let (Some(ethertype), true) = (data.get(28..30), data.len() >= 30) else {
                        return 8;
                    };
                    let ethertype = u16::from_be_bytes([ethertype[0], ethertype[1]]);
                    return 16 + self.link(&mut data[16..], 14, ethertype, ports, depth - 1);
                }
                self.payload(data, 8)
            }
            1 if data.len() >= 8 => {
                zero(data, 2..4);
                match data[0] {
                    3..=5 | 11 | 12 => {
                        if data[0] == 5 {
                            self.v4_at(data, 4);
                        }
                        8 + self.network(&mut data[8..], IPV4, ports, depth - 1)
                    }
                    _ => self.payload(data, 8),
                }
            }
            58 if data.len() >= 8 => {
                zero(data, 2..4);
                match data[0] {
                    1..=4 => 8 + self.network(&mut data[8..], IPV6, ports, depth - 1),
                    135 | 136 => {
                        self.v6_at(data, 8);
                        let end = data.len().min(32);
                        // The one option that is of use: a hardware address (RFC 4861, 4.6.1).
                        match data.get(24..26) {
                            Some([1 | 2, 1]) => self.mac_at(data, 26),
                            _ => blank(data, 24),
                        }
                        if end < 32 { end.min(24) } else { end }
                    }
                    128 | 129 => self.payload(data, 8),
                    _ => 8,
                }
            }
            _ => self.payload(data, 0),
        }
    }

    /// What is behind a header of `at` bytes.
    fn payload(&self, data: &mut [u8], at: usize) -> End {
        let at = at.min(data.len());
        let end = data.len().min(at + PAYLOAD);
        let payload = &data[at..end];
        let halves = [self.random((0_u8, payload)), self.random((1_u8, payload))];
        let bytes = halves.map(u64::to_be_bytes).concat();
        let len = end - at;
        data[at..end].copy_from_slice(&bytes[..len]);
        end
    }
}

fn zero(data: &mut [u8], range: std::ops::Range<usize>) {
    if let Some(bytes) = data.get_mut(range) {
        bytes.fill(0);
    }
}

fn blank(data: &mut [u8], from: usize) {
    if let Some(rest) = data.get_mut(from..) {
        rest.fill(0);
    }
}
