//! A TCP transfer that is cut differently at every hop, whose segments are lost, dropped, reordered
//! and sent again: every byte is accounted for at every point, with what became of it.

use super::*;
use crate::model::{Direction::*, Outcome::*};
use proptest::prelude::*;

/// Payload of a segment.
const MSS: u32 = 1448;
/// Where segments are lost: between these positions of the plan.
const WIRE: (usize, usize) = (5, 6);

/// How each side of the wire handles segments.
#[derive(Clone, Debug)]
struct Offload {
    /// The sender hands super-packets to the device (TSO), which is seen up to the wire; else they
    /// are segments from the first station on.
    sender: bool,
    /// Segments that the receiver merges at most (GRO); 1: it does not.
    receiver: u32,
}

/// What becomes of a segment on the wire.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Passes,
    /// Behind so many others.
    Late(u8),
    Lost,
    Dropped,
}

#[derive(Clone, Copy, Debug)]
struct Piece {
    id: u32,
    start: u32,
    len: u32,
}

/// A sender's super-packets of these many segments each.
fn super_packets(sizes: &[u32], tail: u32) -> Vec<(u32, u32)> {
    let mut at = 0;
    let mut packets = Vec::new();
    for (i, segments) in sizes.iter().enumerate() {
        let cut = if i + 1 == sizes.len() { tail } else { 0 };
        let len = (segments * MSS).saturating_sub(cut).max(1);
        packets.push((at, len));
        at += len;
    }
    packets
}

fn cut((start, len): (u32, u32), id: u32) -> Vec<Piece> {
    let count = len.div_ceil(MSS);
    (0..count)
        .map(|n| Piece { id: id + n, start: start + n * MSS, len: (len - n * MSS).min(MSS) })
        .collect()
}

/// What the receiver makes of segments that come in this order.
fn merge(pieces: &[Piece], most: u32) -> Vec<Piece> {
    let mut merged: Vec<(Piece, u32)> = Vec::new();
    for piece in pieces {
        match merged.last_mut() {
            // As GRO: in order, and nothing behind a short one (net/ipv4/tcp_offload.c).
            Some((last, n))
                if *n < most && last.start + last.len == piece.start && last.len == *n * MSS =>
            {
                last.len += piece.len;
                *n += 1;
            }
            _ => merged.push((*piece, 1)),
        }
    }
    merged.into_iter().map(|(piece, _)| piece).collect()
}

/// One transfer, with what is true of it.
struct Transfer {
    tape: Tape,
    isn: u32,
    numbered: bool,
    at: u64,
    next_id: u32,
    /// Bytes sent, and which of them arrived.
    sent: u32,
    arrived: Vec<bool>,
    drops: Vec<(u32, u32)>,
}

impl Transfer {
    fn sample(&self, piece: Piece) -> Sample {
        let id = if self.numbered { piece.id } else { 0 };
        let mut sample = data(id, self.isn.wrapping_add(piece.start), piece.len);
        sample.skb = 0xffff_0000_0000_0000 | u64::from(piece.id) << 16 | u64::from(piece.len >> 16);
        sample
    }

    fn walk(&mut self, piece: Piece, positions: std::ops::Range<usize>) {
        let sample = self.sample(piece);
        self.at = self.tape.walk(&sample, Forward, positions, self.at);
    }

    /// Sends super-packets, of which the segments have these fates.
    fn send(&mut self, packets: &[(u32, u32)], offload: &Offload, fates: &[Fate]) {
        let mut fates = fates.iter().copied().chain(std::iter::repeat(Fate::Passes));
        for packet in packets {
            let pieces = cut(*packet, self.next_id);
            self.next_id += u32::try_from(pieces.len()).unwrap();
            if offload.sender {
                let whole = Piece { len: packet.1, ..pieces[0] };
                self.walk(whole, 0..WIRE.0);
            } else {
                pieces.iter().for_each(|piece| self.walk(*piece, 0..WIRE.0));
            }
            self.sent = self.sent.max(packet.0 + packet.1);
            self.arrived.resize(self.sent as usize, false);
            let mut through: Vec<(usize, Piece)> = Vec::new();
            for (i, piece) in pieces.iter().enumerate() {
                self.walk(*piece, WIRE.0..WIRE.1);
                match fates.next().unwrap_or(Fate::Passes) {
                    Fate::Passes => through.push((i, *piece)),
                    Fate::Late(by) => through.push((i + usize::from(by), *piece)),
                    Fate::Lost => {}
                    Fate::Dropped => {
                        let info = info("NETFILTER_DROP", "nft_do_chain", FORWARD_STACK);
                        let sample = self.sample(*piece);
                        self.tape.dropped(&sample, Forward, 8, NODE_B, info, self.at);
                        self.drops.push((piece.start, piece.len));
                    }
                }
            }
            through.sort_by_key(|(place, _)| *place);
            let through: Vec<Piece> = through.into_iter().map(|(_, piece)| piece).collect();
            through.iter().for_each(|piece| self.walk(*piece, WIRE.1..8));
            for piece in merge(&through, offload.receiver) {
                self.walk(piece, 8..12);
                let end = piece.start + piece.len;
                self.arrived[piece.start as usize..end as usize].fill(true);
            }
        }
    }

    /// What has not arrived, in runs.
    fn holes(&self) -> Vec<(u32, u32)> {
        let mut runs: Vec<(u32, u32)> = Vec::new();
        for byte in (0..self.sent).filter(|byte| !self.arrived[*byte as usize]) {
            match runs.last_mut() {
                Some((start, len)) if *start + *len == byte => *len += 1,
                _ => runs.push((byte, 1)),
            }
        }
        runs
    }
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        8 => Just(Fate::Passes),
        1 => (1u8..4).prop_map(Fate::Late),
        1 => Just(Fate::Lost),
        1 => Just(Fate::Dropped),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn every_byte_has_its_fate_at_every_point(
        sizes in prop::collection::vec(1u32..46, 1..6),
        tail in 0..MSS,
        fates in prop::collection::vec(fate(), 0..200),
        again in prop::collection::vec(fate(), 0..40),
        isn in any::<u32>(),
        (sender, receiver) in (any::<bool>(), prop_oneof![Just(1u32), 2u32..46]),
        numbered in any::<bool>(),
    ) {
        let offload = Offload { sender, receiver };
        let packets = super_packets(&sizes, tail);
        let mut transfer = Transfer {
            tape: Tape::new(cross_node()),
            isn,
            numbered,
            at: ARMED,
            next_id: 1,
            sent: 0,
            arrived: Vec::new(),
            drops: Vec::new(),
        };
        transfer.send(&packets, &offload, &fates);
        let arrived_first = transfer.arrived.clone();
        let mut sendings = u64::from(transfer.sent);
        // What is missing is sent again, twice if need be, the second time with luck.
        let mut rounds = 1;
        for fates in [again.as_slice(), &[]] {
            let holes = transfer.holes();
            if holes.is_empty() {
                break;
            }
            transfer.at += 200_000_000;
            sendings += holes.iter().map(|(_, len)| u64::from(*len)).sum::<u64>();
            transfer.send(&holes, &offload, fates);
            rounds += 1;
        }
        let trace = transfer.tape.trace(&transfer.tape.observation());
        check(&trace);

        // Every byte at every point, once or again.
        let total = u64::from(transfer.sent);
        let stats = stats(&trace, Forward);
        prop_assert_eq!(stats.len(), 12);
        for (position, point) in stats.iter().enumerate() {
            prop_assert_eq!(point.unique_bytes, total, "at {}", position);
            let repeated = if position < WIRE.1 { sendings - total } else { 0 };
            prop_assert_eq!(point.repeated_bytes, repeated, "at {}", position);
        }

        // Each journey: what of it arrived, and what is missing of the rest, byte by byte.
        let byte = |position: u64| {
            (position as u32).wrapping_sub(isn) as usize
        };
        let mut first_arrived = vec![true; transfer.sent as usize];
        for journey in &trace.journeys {
            let range = journey.range.unwrap();
            prop_assert!(journey.duplicate_of.is_none() && !journey.looped);
            let gone: u64 = journey.missing.iter().map(|m| m.range.end - m.range.start).sum();
            let last = journey.hops.iter().find(|h| h.point == transfer.tape.topology.forward[11]);
            prop_assert_eq!(last.map_or(0, |h| h.covered) + gone, range.end - range.start);
            prop_assert_eq!(journey.outcome == Delivered, gone == 0);
            for part in &journey.missing {
                prop_assert_eq!(part.last_seen, Some(transfer.tape.topology.forward[WIRE.0]));
                if journey.retransmission_of.is_none() {
                    let first = byte(part.range.start);
                    let len = (part.range.end - part.range.start) as usize;
                    first_arrived[first..first + len].fill(false);
                }
            }
            // Only what did not arrive is sent again.
            if journey.retransmission_of.is_some() {
                let (first, len) = (byte(range.start), (range.end - range.start) as usize);
                prop_assert!(arrived_first[first..first + len].iter().all(|arrived| !arrived));
            }
        }
        prop_assert_eq!(first_arrived, arrived_first);
        prop_assert_eq!(trace.retransmitted > 0, rounds > 1);
        if numbered {
            let dropped: u64 = trace
                .journeys
                .iter()
                .flat_map(|j| j.drop.iter().chain(&j.side_drops))
                .map(|d| d.bytes)
                .sum();
            let truth: u64 = transfer.drops.iter().map(|(_, len)| u64::from(*len)).sum();
            prop_assert_eq!(dropped, truth);
        }
    }
}

#[test]
fn a_connection_is_numbered_from_its_first_byte() {
    let mut tape = Tape::new(cross_node());
    let isn = u32::MAX - 2;
    let syn = tcp(Forward, 1, isn, crate::model::tcp_flags::SYN, 0);
    let mut at = tape.cross(&syn, Forward, ARMED);
    at = tape.cross(&data(2, isn.wrapping_add(1 + 1000), 500), Forward, at);
    tape.cross(&data(3, isn.wrapping_add(1), 1000), Forward, at);
    let trace = tape.trace(&tape.observation());
    let places: Vec<_> = trace.journeys[1..]
        .iter()
        .map(|j| j.range.unwrap().start - j.stream.unwrap().first)
        .collect();
    assert_eq!(places, [1000, 0]);
    assert_eq!(count(&trace, Forward, Delivered), 3);
}
