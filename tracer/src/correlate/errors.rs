//! ICMP errors about the flow: each once, with the journey that it quotes.

use std::collections::HashSet;
use std::net::IpAddr;

use super::Correlator;
use super::identity::{Discriminator, TCP, direction, flow_of, key_of};
use crate::model::{Event, IcmpReport, Ip, L4};

/// Errors kept; beyond it they still tell that a sender was told.
const MAX_ERRORS: usize = 10_000;
/// Errors remembered for recognising one at its next hop.
const MAX_SEEN: usize = 65_536;

/// One error, as it is at every hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct ErrorKey {
    src: IpAddr,
    dst: IpAddr,
    id: u32,
    kind: u8,
    code: u8,
    quoted: Option<(IpAddr, IpAddr, u32, Discriminator)>,
}

/// Errors seen.
#[derive(Debug, Default)]
pub(super) struct Errors {
    seen: HashSet<ErrorKey>,
    pub reports: Vec<IcmpReport>,
}

impl Correlator {
    /// An ICMP error came by.
    pub(super) fn see_error(&mut self, event: &Event, error: &Ip) {
        let L4::IcmpError { kind, code, quoted, quoted_outer, .. } = &error.l4 else { return };
        let carried = self.aliases.canonical(error);
        let key = ErrorKey {
            src: carried.src,
            dst: carried.dst,
            id: error.id,
            kind: *kind,
            code: *code,
            quoted: quoted.as_deref().map(|q| {
                let own = self.aliases.canonical(q);
                (own.src, own.dst, own.id, Discriminator::of(&own.l4))
            }),
        };
        if self.errors.seen.len() >= MAX_SEEN {
            self.errors.seen.clear();
        }
        if !self.errors.seen.insert(key) {
            return;
        }
        let about = quoted.as_deref().and_then(|quoted| self.quoted(quoted));
        // A redirect is advice, and an error about the tunnel's packet goes to the node: neither
        // tells the sender that its packet died.
        let tells = !is_redirect(*kind)
            && !quoted_outer
            && quoted.as_deref().is_some_and(|quoted| quoted.src == error.dst);
        if tells && let Some(live) = about.and_then(|id| self.store.get_mut(id)) {
            live.told = true;
        }
        if self.errors.reports.len() < MAX_ERRORS {
            self.errors.reports.push(IcmpReport {
                station: event.station,
                time_ns: event.time_ns,
                packet: error.clone(),
                about,
            });
        }
    }

    /// The journey of a quoted packet.
    fn quoted(&self, quoted: &Ip) -> Option<u64> {
        let quoted = &*self.aliases.canonical(quoted);
        let direction = direction(&self.ends, quoted)?;
        let flow = flow_of(direction, quoted);
        let quote = Discriminator::of(&quoted.l4);
        if quoted.proto == TCP
            && let Discriminator::Tcp { seq, .. } = quote
            && let Some(id) = self.segment_quoted(&flow, seq)
        {
            return Some(id);
        }
        self.datagram_quoted(&key_of(direction, quoted, quote), &flow, &quote)
    }
}

/// ICMP redirect (RFC 792) or ICMPv6 redirect (RFC 4861).
fn is_redirect(kind: u8) -> bool {
    matches!(kind, 5 | 137)
}
