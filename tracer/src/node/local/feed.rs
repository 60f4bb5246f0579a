//! What a capture on this machine sees, chunk by chunk.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use crate::decode::Unpacker;
use crate::kernel::{Capture, HeldBatch, monotonic_ns};
use crate::model::{EventKind, Station};
use crate::netns::Netns;
use crate::node::message::HEARTBEAT;
use crate::node::{Chunk, Events, Feed, NodeError, Started};

/// How often is looked whether the stations are still there.
const CHECK: Duration = Duration::from_secs(1);

pub(super) struct LocalFeed {
    capture: Capture,
    unpacker: Arc<Unpacker>,
    started: Started,
    stations: Vec<Station>,
    /// Those that stations are in, by inode.
    namespaces: HashMap<u32, Netns>,
    vanished: Vec<String>,
    checked: Instant,
    /// What happened before has been handed out, ns.
    until_ns: u64,
    /// `Some` where events are named here.
    serving: Option<Serving>,
}

impl std::fmt::Debug for LocalFeed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalFeed").field("started", &self.started).finish_non_exhaustive()
    }
}

impl LocalFeed {
    pub fn new(
        mut capture: Capture,
        stations: &[Station],
        mut namespaces: HashMap<u32, Netns>,
        serving: bool,
    ) -> Self {
        let names = capture.take_names().unwrap_or_else(|| Box::new(Default::default));
        let unpacker = Arc::new(Unpacker::new(capture.slots().to_vec(), names));
        if serving {
            // Here the events behind a drop would wait for the names that it needs.
            unpacker.get_names();
        }
        let started = Started {
            armed_ns: monotonic_ns(),
            disabled: capture.disabled().to_vec(),
            vanished: capture.vanished().to_vec(),
        };
        namespaces.retain(|inum, _| stations.iter().any(|s| s.netns_inum == *inum));
        Self {
            unpacker,
            stations: stations.to_vec(),
            vanished: started.vanished.clone(),
            checked: Instant::now(),
            until_ns: 0,
            serving: serving.then(|| Serving::new(capture.slots())),
            started,
            namespaces,
            capture,
        }
    }

    /// Notes interfaces that are no longer there, once each.
    fn check_stations(&mut self) {
        self.checked = Instant::now();
        for (inum, netns) in &self.namespaces {
            let here: Vec<_> = self.stations.iter().filter(|s| s.netns_inum == *inum).collect();
            let gone = netns.run(|| {
                let there = |s: &Station| {
                    nix::net::if_::if_nametoindex(s.name.as_str()).ok() == Some(s.ifindex)
                };
                here.iter().filter(|s| !there(s)).map(|s| s.label()).collect::<Vec<_>>()
            });
            for label in gone.unwrap_or_default() {
                if !self.vanished.contains(&label) {
                    self.vanished.push(label);
                }
            }
        }
    }

    fn chunk(&mut self, batch: Option<HeldBatch>) -> Chunk {
        let unpacker = Arc::clone(&self.unpacker);
        let events = match (batch, &mut self.serving) {
            (None, _) => Events::default(),
            (Some(batch), None) => Events::Raw { batch, unpacker },
            (Some(batch), Some(serving)) => serving.name(&Events::Raw { batch, unpacker }),
        };
        let mut loss = self.capture.loss();
        loss.undecodable += self.serving.as_ref().map_or(0, |serving| serving.undecodable);
        let (until_ns, vanished) = (self.until_ns, self.vanished.clone());
        Chunk { until_ns, events, loss, vanished, end: None }
    }
}

impl Feed for LocalFeed {
    fn started(&self) -> &Started {
        &self.started
    }

    fn look(&mut self) {
        self.check_stations();
    }

    fn next(&mut self, wait: Duration) -> Result<Option<Chunk>, NodeError> {
        if self.checked.elapsed() >= CHECK {
            self.check_stations();
        }
        // Read before the queue is: what it speaks of is in there by now.
        let until_ns = self.capture.until_ns();
        let batch = match self.capture.batches().try_recv() {
            Ok(batch) => Some(batch),
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => {
                self.until_ns = until_ns;
                match self.capture.batches().recv_timeout(wait.min(HEARTBEAT)) {
                    Ok(batch) => Some(batch),
                    Err(RecvTimeoutError::Timeout) => None,
                    Err(RecvTimeoutError::Disconnected) => {
                        return Err(NodeError::Capture(
                            "the events cannot be read any more".into(),
                        ));
                    }
                }
            }
        };
        Ok(Some(self.chunk(batch)))
    }
}

/// What is done for somebody elsewhere.
struct Serving {
    /// Namespaces whose drops are this node's; `None`: all of the machine's.
    own: Option<HashSet<u32>>,
    undecodable: u64,
}

impl Serving {
    fn new(slots: &[u32]) -> Self {
        let inum = |path: &str| Netns::open(path).ok().map(|n| n.inum());
        let whole = match (Netns::current(), inum("/proc/1/ns/net")) {
            (Ok(here), Some(first)) => here.inum() == first,
            _ => true,
        };
        let own = (!whole).then(|| slots.iter().copied().chain([0]).collect());
        Self { own, undecodable: 0 }
    }

    fn name(&mut self, events: &Events) -> Events {
        let (mut named, undecodable) = events.named();
        self.undecodable += undecodable;
        if let Some(own) = &self.own {
            named.retain(|event| {
                matches!(event.kind, EventKind::Hop(_)) || own.contains(&event.netns_inum)
            });
        }
        Events::Named(named)
    }
}
