//! The machine that podtrace runs on, with all network namespaces there.

mod feed;
mod probe;
mod search;

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{
    CaptureRequest, ClockSample, FactsRequest, Feed, Hello, Locate, Located, NetnsRef, Node,
    NodeError, NodeFacts, ProbeRequest, Probing, message,
};
use crate::facts;
use crate::kernel::{Capture, architecture, monotonic_ns, release};
use crate::netns::Netns;

/// This machine.
#[derive(Debug, Default)]
pub struct LocalNode {
    /// Namespaces that were located, in that order.
    open: Mutex<Vec<Netns>>,
    /// Whether it serves somebody elsewhere.
    serving: bool,
}

impl LocalNode {
    /// For a trace of this process: events are named when they are read.
    pub fn new() -> Self {
        Self::default()
    }

    /// For somebody elsewhere: with events named. Where this process runs in a namespace that is not
    /// the machine's first, that namespace is the node (a container, a lab), and drops in others than
    /// those asked for are not its own.
    pub fn serving() -> Self {
        Self { open: Mutex::default(), serving: true }
    }

    fn open(&self) -> MutexGuard<'_, Vec<Netns>> {
        // Namespaces are only ever added, one by one.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hold(&self, netns: &Netns) -> NetnsRef {
        let mut open = self.open();
        if open.iter().all(|known| known.inum() != netns.inum()) {
            open.push(netns.clone());
        }
        NetnsRef { name: netns.name().to_owned(), inum: netns.inum() }
    }

    fn held(&self, inum: u32) -> Result<Netns, NodeError> {
        let open = self.open();
        open.iter().find(|n| n.inum() == inum).cloned().ok_or(NodeError::Unknown(inum))
    }

    fn hold_found(&self, found: &search::Found) -> Located {
        Located {
            netns: self.hold(&found.netns),
            node: self.hold(&found.node),
            ips: found.ips.clone(),
            host: found.host.clone(),
            stand_in: found.stand_in,
        }
    }
}

impl Node for LocalNode {
    fn hello(&self) -> Result<Hello, NodeError> {
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
        Ok(Hello {
            protocol: message::PROTOCOL,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            kernel: release(),
            architecture: architecture(),
            // Without it, the node is taken for a machine of its own.
            boot_id: boot_id.map_or_else(|_| String::new(), |id| id.trim().to_owned()),
            clock_ns: monotonic_ns(),
            wall: jiff::Timestamp::now().to_string(),
        })
    }

    fn locate(&self, what: &Locate) -> Result<Located, NodeError> {
        let found = match what {
            Locate::Node(name) => search::node(name.as_deref())?,
            Locate::Pod { node, netns, ips } => {
                search::pod(&self.held(*node)?, netns.as_deref(), ips)?
            }
            Locate::Address { ip, nodes, pods } => search::address(*ip, nodes, pods)?,
        };
        Ok(self.hold_found(&found))
    }

    fn facts(&self, request: &FactsRequest) -> Result<NodeFacts, NodeError> {
        let mut known = Vec::new();
        if let Some(peers) = &request.peers {
            known.clone_from(&self.open());
            for netns in peers.iter().filter_map(|name| Netns::open(name).ok()) {
                if known.iter().all(|k| k.inum() != netns.inum()) {
                    known.push(netns);
                }
            }
        }
        let mut spaces = Vec::new();
        for space in &request.spaces {
            spaces.push((self.held(space.netns)?, space.queries.as_slice()));
        }
        let spaces = facts::read(&spaces, request.depth, &request.ends, &known);
        Ok(NodeFacts { spaces })
    }

    fn capture(&self, request: &CaptureRequest) -> Result<Box<dyn Feed>, NodeError> {
        let namespaces: HashMap<u32, Netns> =
            self.open().iter().map(|n| (n.inum(), n.clone())).collect();
        let CaptureRequest { stations, filter, options } = request;
        let capture = Capture::start(stations, &namespaces, filter, options)
            .map_err(|error| NodeError::Capture(facts::in_full(&error)))?;
        Ok(Box::new(feed::LocalFeed::new(capture, stations, namespaces, self.serving)))
    }

    fn probe(&self, request: &ProbeRequest) -> Result<Box<dyn Probing>, NodeError> {
        Ok(Box::new(probe::LocalProbe::start(&self.held(request.netns)?, request.probe.clone())))
    }

    fn clock(&self) -> Result<ClockSample, NodeError> {
        let now = monotonic_ns();
        Ok(ClockSample { asked_ns: now, node_ns: now, answered_ns: now })
    }
}
