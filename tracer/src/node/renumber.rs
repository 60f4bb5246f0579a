//! Numbers of other machines, made different from those of every other node.
//!
//! A kernel names a namespace by an inode number, and two kernels use the same ones (4026531840
//! everywhere); an skb by its address, and those collide by chance. Both are exchanged at the
//! boundary of a node on another machine, so that behind it a number means one thing.
//!
//! * Namespaces get numbers below [`FIRST_INODE`], which no kernel gives to one.
//! * Times stay what the node's own clock showed; which clock that was is put beside them.
//! * Kernel addresses have their highest bits set; the number of the node is put there instead. 0
//!   stays 0: not known.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{
    CaptureRequest, Chunk, ClockSample, Events, FactsRequest, Feed, Hello, Locate, Located, Node,
    NodeError, NodeFacts, ProbeRequest, Probing, SpaceAnswer, Started,
};
use crate::facts::NetnsFacts;

/// PROC_DYNAMIC_FIRST (fs/proc/generic.c): inode numbers of namespaces begin here.
const FIRST_INODE: u32 = 0xf000_0000;
/// Bits of a namespace's number that tell namespaces of one node apart.
const NETNS_BITS: u32 = 16;
/// Highest bits of a kernel address that are all set: 64 less the 57 of five-level page tables.
const ADDRESS_BITS: u32 = 7;

/// Nodes on other machines that can be told apart, at most.
pub(super) const MAX_SITES: u8 = (1 << ADDRESS_BITS) - 1;

const _: () = assert!((MAX_SITES as u32) < FIRST_INODE >> NETNS_BITS);

/// A node on another machine, with numbers that are used by it alone.
#[derive(Debug)]
pub(super) struct Renumbered {
    node: Box<dyn Node>,
    numbers: Arc<Numbers>,
}

impl Renumbered {
    /// `site` counts the nodes, from 1 to [`MAX_SITES`].
    pub fn new(node: Box<dyn Node>, site: u8) -> Self {
        Self { node, numbers: Arc::new(Numbers { site, table: Mutex::default() }) }
    }
}

#[derive(Debug)]
struct Numbers {
    site: u8,
    table: Mutex<Table>,
}

/// Both ways.
#[derive(Debug, Default)]
struct Table {
    ours: HashMap<u32, u32>,
    theirs: Vec<u32>,
}

impl Numbers {
    fn table(&self) -> MutexGuard<'_, Table> {
        // Entries are only ever added; one that is in one half only is never used.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Our number for one of theirs. 0 is no namespace; a node with more than can be numbered tells
    /// nonsense, and what it says is of no known namespace.
    fn ours(&self, theirs: u32) -> u32 {
        if theirs == 0 {
            return 0;
        }
        let mut table = self.table();
        if let Some(known) = table.ours.get(&theirs) {
            return *known;
        }
        let Some(next) =
            u32::try_from(table.theirs.len() + 1).ok().filter(|n| n >> NETNS_BITS == 0)
        else {
            return 0;
        };
        let ours = u32::from(self.site) << NETNS_BITS | next;
        table.theirs.push(theirs);
        table.ours.insert(theirs, ours);
        ours
    }

    fn theirs(&self, ours: u32) -> Result<u32, NodeError> {
        let index = (ours & ((1 << NETNS_BITS) - 1)).checked_sub(1);
        let index = index.filter(|_| ours >> NETNS_BITS == u32::from(self.site));
        let known = index.and_then(|i| self.table().theirs.get(i as usize).copied());
        known.ok_or(NodeError::Unknown(ours))
    }

    fn skb(&self, theirs: u64) -> u64 {
        if theirs == 0 { 0 } else { theirs ^ u64::from(self.site) << (64 - ADDRESS_BITS) }
    }

    fn facts(&self, facts: &mut NetnsFacts) {
        facts.inum = self.ours(facts.inum);
        for inum in facts.nsids.values_mut() {
            *inum = self.ours(*inum);
        }
    }

    fn chunk(&self, chunk: &mut Chunk) {
        if chunk.events.is_empty() {
            return;
        }
        if let Events::Raw { .. } = chunk.events {
            let (named, undecodable) = chunk.events.named();
            chunk.events = Events::Named(named);
            chunk.loss.undecodable += undecodable;
        }
        if let Events::Named(events) = &mut chunk.events {
            for event in events {
                event.machine = u16::from(self.site);
                event.netns_inum = self.ours(event.netns_inum);
                event.skb = self.skb(event.skb);
            }
        }
    }
}

impl Node for Renumbered {
    fn hello(&self) -> Result<Hello, NodeError> {
        self.node.hello()
    }

    fn locate(&self, what: &Locate) -> Result<Located, NodeError> {
        let mut what = what.clone();
        if let Locate::Pod { node, .. } = &mut what {
            *node = self.numbers.theirs(*node)?;
        }
        let mut located = self.node.locate(&what)?;
        for netns in [&mut located.netns, &mut located.node] {
            netns.inum = self.numbers.ours(netns.inum);
        }
        Ok(located)
    }

    fn facts(&self, request: &FactsRequest) -> Result<NodeFacts, NodeError> {
        let mut request = request.clone();
        for space in &mut request.spaces {
            space.netns = self.numbers.theirs(space.netns)?;
        }
        let mut facts = self.node.facts(&request)?;
        if facts.spaces.len() != request.spaces.len() {
            let (asked, told) = (request.spaces.len(), facts.spaces.len());
            return Err(NodeError::Nonsense(format!("{told} namespaces instead of {asked}")));
        }
        for (answer, asked) in facts.spaces.iter_mut().zip(&request.spaces) {
            if let SpaceAnswer::Read(facts) = answer {
                if facts.inum != asked.netns {
                    return Err(NodeError::Nonsense("another namespace than asked for".to_owned()));
                }
                self.numbers.facts(facts);
            }
        }
        Ok(facts)
    }

    fn capture(&self, request: &CaptureRequest) -> Result<Box<dyn Feed>, NodeError> {
        let mut request = request.clone();
        for station in &mut request.stations {
            station.netns_inum = self.numbers.theirs(station.netns_inum)?;
        }
        let feed = self.node.capture(&request)?;
        Ok(Box::new(RenumberedFeed { feed, numbers: Arc::clone(&self.numbers) }))
    }

    fn probe(&self, request: &ProbeRequest) -> Result<Box<dyn Probing>, NodeError> {
        let netns = self.numbers.theirs(request.netns)?;
        self.node.probe(&ProbeRequest { netns, ..request.clone() })
    }

    fn clock(&self) -> Result<ClockSample, NodeError> {
        self.node.clock()
    }
}

#[derive(Debug)]
struct RenumberedFeed {
    feed: Box<dyn Feed>,
    numbers: Arc<Numbers>,
}

impl Feed for RenumberedFeed {
    fn started(&self) -> &Started {
        self.feed.started()
    }

    fn next(&mut self, wait: Duration) -> Result<Option<Chunk>, NodeError> {
        let mut chunk = self.feed.next(wait)?;
        if let Some(chunk) = &mut chunk {
            self.numbers.chunk(chunk);
        }
        Ok(chunk)
    }

    fn look(&mut self) {
        self.feed.look();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(site: u8) -> Numbers {
        Numbers { site, table: Mutex::default() }
    }

    #[test]
    fn namespaces_of_different_nodes_get_different_numbers() {
        let (a, b) = (numbers(1), numbers(2));
        // The first namespace of every machine has this number.
        let first = 4_026_531_840;
        let (at_a, at_b) = (a.ours(first), b.ours(first));
        assert_ne!(at_a, at_b);
        assert!(at_a < FIRST_INODE && at_b < FIRST_INODE && at_a != 0);
        assert_eq!(a.ours(first), at_a, "the same every time");
        assert_ne!(a.ours(first + 1), at_a);
        assert_eq!(a.theirs(at_a), Ok(first));
        assert_eq!(b.theirs(at_a), Err(NodeError::Unknown(at_a)));
        assert_eq!(a.theirs(first), Err(NodeError::Unknown(first)));
        assert_eq!(a.ours(0), 0);
        assert_eq!(a.theirs(0), Err(NodeError::Unknown(0)));
    }

    #[test]
    fn a_node_cannot_make_the_table_grow_for_ever() {
        let numbers = numbers(3);
        let most = (1 << NETNS_BITS) - 1;
        assert!((1..=most).all(|inum| numbers.ours(inum) != 0));
        assert_eq!(numbers.ours(most + 1), 0);
    }

    #[test]
    fn addresses_of_different_nodes_never_meet() {
        // Kernel addresses on x86-64 (four and five levels) and arm64.
        let addresses = [0xffff_8880_1234_5600_u64, 0xff11_0000_1234_5600, 0xffff_0000_c1d2_e300];
        let mut seen = std::collections::HashSet::new();
        for site in 0..=MAX_SITES {
            for address in addresses {
                assert!(seen.insert(numbers(site).skb(address)));
            }
        }
        assert_eq!(numbers(5).skb(0), 0);
    }
}
