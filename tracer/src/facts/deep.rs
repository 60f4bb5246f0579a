//! Reads what a namespace keeps beyond its tables: parameters, counters, packet filters, queues.

use std::net::IpAddr;

use super::types::{Gap, NetnsFacts};
use super::{firewall, ipvs, proc, queues, tracking};
use crate::netns::Netns;

/// Completes the facts of a namespace, on a thread inside it.
pub(super) fn everything(facts: &mut NetnsFacts, netns: &Netns, ends: &[IpAddr]) {
    inside(facts, netns, |facts| {
        proc::read(facts);
        tracking::read(facts, ends);
        queues::read(facts);
        firewall::read(facts);
        ipvs::read(facts);
    });
}

/// What decides on address translation for packets of these addresses: packet filters, tracked
/// connections.
pub(super) fn translations(facts: &mut NetnsFacts, netns: &Netns, of: &[IpAddr]) {
    inside(facts, netns, |facts| {
        proc::read(facts);
        tracking::read(facts, of);
        firewall::read(facts);
        ipvs::read(facts);
    });
}

fn inside(facts: &mut NetnsFacts, netns: &Netns, read: impl FnOnce(&mut NetnsFacts) + Send) {
    if let Err(e) = netns.run(|| read(facts)) {
        let source = "everything beyond the tables".to_owned();
        facts.gaps.push(Gap { source, reason: e.to_string() });
    }
}
