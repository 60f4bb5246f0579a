//! A node of a lab as if it were on another machine: everything that goes there and comes back is
//! turned into bytes and read again, its namespaces have the numbers that every machine's first
//! namespaces have, its clock is another, and it may die.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tracer::decode::RawEvent;
use tracer::inventory::{self, Inventory, Place};
use tracer::lab::Lab;
use tracer::model::EventKind;
use tracer::node::message::{from_bytes, to_bytes};
use tracer::node::{
    CaptureRequest, Chunk, ClockSample, Events, FactsRequest, Feed, Hello, LocalNode, Locate,
    Located, Node, NodeError, NodeFacts, Nodes, ProbeRequest, Probing, SpaceAnswer, Started,
};

/// Inode number of the first network namespace of every machine.
const FIRST: u32 = 4_026_531_840;

/// How a node far away behaves; shared with the test.
#[derive(Debug)]
pub struct Far {
    /// What its clock shows more than this machine's, ns.
    pub ahead_ns: AtomicI64,
    /// Events that it still tells; then it is gone.
    pub lives_for: AtomicU64,
    /// Events that it hands out; what comes behind them is lost, and counted.
    pub hands_out: AtomicU64,
}

impl Default for Far {
    fn default() -> Self {
        let all = || AtomicU64::new(u64::MAX);
        Self { ahead_ns: AtomicI64::new(0), lives_for: all(), hands_out: all() }
    }
}

impl Far {
    fn alive(&self) -> Result<(), NodeError> {
        match self.lives_for.load(Relaxed) {
            0 => Err(NodeError::Unreachable("its machine was switched off".to_owned())),
            _ => Ok(()),
        }
    }

    fn clock(&self, ns: u64) -> u64 {
        ns.saturating_add_signed(self.ahead_ns.load(Relaxed))
    }
}

/// Nodes of a lab, those named here far away. What the wire between them sees is left out: a wire
/// between machines cannot be seen.
pub fn nodes(lab: &Lab, far: &[(&'static str, Arc<Far>)]) -> Nodes {
    let mut inventory =
        Inventory::load(Some(&lab.inventory_path())).expect("inventory").expect("inventory");
    inventory.nodes.retain(|node| !node.pods.is_empty());
    let mut connected = Vec::new();
    for node in &mut inventory.nodes {
        let found = far.iter().find(|(name, _)| *name == node.name);
        if let (Some((name, far)), Place::Netns(netns)) = (found, node.place.clone()) {
            node.place = Place::Agent(format!("loopback://{name}"));
            connected.push((node.name.clone(), netns, Arc::clone(far)));
        }
    }
    let connect = move |node: &inventory::Node| {
        let found = connected.iter().find(|(name, ..)| *name == node.name);
        let (_, netns, far) = found.expect("a node far away");
        let node: Box<dyn Node> = Box::new(Loopback {
            inner: LocalNode::serving(),
            netns: netns.clone(),
            shared: Arc::new(Shared { far: Arc::clone(far), numbers: Mutex::default() }),
        });
        Ok(node)
    };
    Nodes::with_connect(Some(inventory), Box::new(connect))
}

#[derive(Debug)]
struct Shared {
    far: Arc<Far>,
    /// Real inode numbers, in the order in which they were met.
    numbers: Mutex<Vec<u32>>,
}

impl Shared {
    fn shown(&self, real: u32) -> u32 {
        if real == 0 {
            return 0;
        }
        let mut numbers = self.numbers.lock().expect("numbers");
        let at = numbers.iter().position(|n| *n == real).unwrap_or_else(|| {
            numbers.push(real);
            numbers.len() - 1
        });
        FIRST + u32::try_from(at).expect("few")
    }

    fn real(&self, shown: u32) -> u32 {
        let numbers = self.numbers.lock().expect("numbers");
        numbers[usize::try_from(shown - FIRST).expect("small")]
    }
}

fn through<T: Serialize + DeserializeOwned>(message: &T) -> T {
    from_bytes(&to_bytes(message).expect("to bytes")).expect("from bytes")
}

#[derive(Debug)]
struct Loopback {
    inner: LocalNode,
    /// The node's own namespace.
    netns: String,
    shared: Arc<Shared>,
}

impl Node for Loopback {
    fn hello(&self) -> Result<Hello, NodeError> {
        self.shared.far.alive()?;
        let hello = self.inner.hello()?;
        let clock_ns = self.shared.far.clock(hello.clock_ns);
        Ok(through(&Hello { boot_id: self.netns.clone(), clock_ns, ..hello }))
    }

    fn locate(&self, what: &Locate) -> Result<Located, NodeError> {
        self.shared.far.alive()?;
        let what = match through(what) {
            Locate::Node(None) => Locate::Node(Some(self.netns.clone())),
            Locate::Node(Some(_)) => panic!("nobody knows its name"),
            Locate::Pod { node, netns, ips } => {
                Locate::Pod { node: self.shared.real(node), netns, ips }
            }
            address @ Locate::Address { .. } => address,
        };
        let mut located = self.inner.locate(&what).map_err(|error| through(&error))?;
        for netns in [&mut located.netns, &mut located.node] {
            netns.inum = self.shared.shown(netns.inum);
        }
        Ok(through(&located))
    }

    fn facts(&self, request: &FactsRequest) -> Result<NodeFacts, NodeError> {
        self.shared.far.alive()?;
        let mut request = through(request);
        for space in &mut request.spaces {
            space.netns = self.shared.real(space.netns);
        }
        let mut facts = self.inner.facts(&request).map_err(|error| through(&error))?;
        for space in &mut facts.spaces {
            if let SpaceAnswer::Read(facts) = space {
                facts.inum = self.shared.shown(facts.inum);
                for inum in facts.nsids.values_mut() {
                    *inum = self.shared.shown(*inum);
                }
            }
        }
        Ok(through(&facts))
    }

    fn capture(&self, request: &CaptureRequest) -> Result<Box<dyn Feed>, NodeError> {
        self.shared.far.alive()?;
        let mut request = through(request);
        for station in &mut request.stations {
            station.netns_inum = self.shared.real(station.netns_inum);
        }
        let inner = self.inner.capture(&request).map_err(|error| through(&error))?;
        let mut started = inner.started().clone();
        started.armed_ns = self.shared.far.clock(started.armed_ns);
        let own = request.stations.iter().map(|s| s.netns_inum).chain([0]).collect();
        Ok(Box::new(FarFeed {
            inner,
            started,
            own,
            kept_back: 0,
            shared: Arc::clone(&self.shared),
        }))
    }

    fn probe(&self, request: &ProbeRequest) -> Result<Box<dyn Probing>, NodeError> {
        self.shared.far.alive()?;
        let mut request = through(request);
        request.netns = self.shared.real(request.netns);
        self.inner.probe(&request)
    }

    fn clock(&self) -> Result<ClockSample, NodeError> {
        self.shared.far.alive()?;
        let sample = self.inner.clock()?;
        let later = self.inner.clock()?;
        let node_ns = self.shared.far.clock(sample.node_ns);
        Ok(ClockSample { node_ns, answered_ns: later.answered_ns, ..sample })
    }
}

#[derive(Debug)]
struct FarFeed {
    inner: Box<dyn Feed>,
    started: Started,
    /// Namespaces of this node: another kernel would not see drops in others.
    own: Vec<u32>,
    /// Events that were not handed out.
    kept_back: u64,
    shared: Arc<Shared>,
}

impl Feed for FarFeed {
    fn started(&self) -> &Started {
        &self.started
    }

    fn next(&mut self, wait: Duration) -> Result<Option<Chunk>, NodeError> {
        let far = &self.shared.far;
        far.alive()?;
        let Some(mut chunk) = self.inner.next(wait)? else { return Ok(None) };
        chunk.until_ns = far.clock(chunk.until_ns);
        let mut events: Vec<RawEvent<'static>> = chunk.events.named().0;
        events.retain(|event| {
            matches!(event.kind, EventKind::Hop(_)) || self.own.contains(&event.netns_inum)
        });
        let left = far.lives_for.load(Relaxed);
        if left < u64::MAX {
            events.truncate(usize::try_from(left).expect("few"));
            far.lives_for.store(left - events.len() as u64, Relaxed);
            far.alive()?;
        }
        let most = far.hands_out.load(Relaxed);
        let kept = events.split_off(events.len().min(usize::try_from(most).unwrap_or(usize::MAX)));
        if most < u64::MAX {
            far.hands_out.store(most - events.len() as u64, Relaxed);
        }
        self.kept_back += kept.len() as u64;
        chunk.loss.over_rate += self.kept_back;
        for event in &mut events {
            event.time_ns = far.clock(event.time_ns);
            event.netns_inum = self.shared.shown(event.netns_inum);
        }
        chunk.events = Events::Named(events);
        Ok(Some(through(&chunk)))
    }
}
