//! Reads what a namespace keeps beyond its tables: parameters, counters, packet filters, queues.
//!
//! All namespaces at once, each on a thread of its own inside it: programs are started there, and
//! waiting for them takes longest.

use std::collections::HashMap;

use super::types::{Gap, NetnsFacts};
use super::{PathFacts, firewall, proc};
use crate::netns::Netns;

/// Completes the facts of every space whose namespace is held open.
pub(super) fn read(facts: &mut PathFacts, namespaces: &HashMap<u32, Netns>) {
    std::thread::scope(|scope| {
        for space in &mut facts.spaces {
            let Some(netns) = namespaces.get(&space.facts.inum) else { continue };
            scope.spawn(move || {
                if let Err(e) = netns.run(|| read_inside(&mut space.facts)) {
                    let source = "everything beyond the tables".to_owned();
                    space.facts.gaps.push(Gap { source, reason: e.to_string() });
                }
            });
        }
    });
}

/// On a thread inside the namespace.
fn read_inside(facts: &mut NetnsFacts) {
    proc::read(facts);
    firewall::read(facts);
}
