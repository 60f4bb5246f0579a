//! Reads what a namespace keeps beyond its tables: parameters, counters, packet filters, queues.
//!
//! All namespaces at once, each on a thread of its own inside it: programs are started there, and
//! waiting for them takes longest.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;

use super::types::{Gap, NetnsFacts};
use super::{PathFacts, firewall, proc, queues, tracking};
use crate::netns::Netns;

/// Completes the facts of every space whose namespace is held open.
pub(super) fn read(facts: &mut PathFacts, namespaces: &HashMap<u32, Netns>) {
    let ends: Vec<IpAddr> = facts.src.ips.iter().chain(&facts.dst.ips).copied().collect();
    let ends = ends.as_slice();
    std::thread::scope(|scope| {
        for space in &mut facts.spaces {
            let Some(netns) = namespaces.get(&space.facts.inum) else { continue };
            scope.spawn(move || {
                if let Err(e) = netns.run(|| read_inside(&mut space.facts, ends)) {
                    let source = "everything beyond the tables".to_owned();
                    space.facts.gaps.push(Gap { source, reason: e.to_string() });
                }
            });
        }
    });
}

/// What decides on address translation for packets of these addresses: links and addresses, packet
/// filters, tracked connections.
///
/// # Errors
/// When the namespace cannot be entered, or the kernel gives no netlink socket there.
pub fn translations(netns: &Netns, of: &[IpAddr]) -> io::Result<NetnsFacts> {
    let mut facts = super::snapshot(netns, &[])?;
    netns.run(|| {
        proc::read(&mut facts);
        tracking::read(&mut facts, of);
        firewall::read(&mut facts);
    })?;
    Ok(facts)
}

/// On a thread inside the namespace.
fn read_inside(facts: &mut NetnsFacts, ends: &[IpAddr]) {
    proc::read(facts);
    tracking::read(facts, ends);
    queues::read(facts);
    firewall::read(facts);
}
