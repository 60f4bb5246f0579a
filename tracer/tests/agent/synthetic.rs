//! A node that makes its events up, and an agent that serves it.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use tracer::agent::Speaks;
use tracer::agent::address::Target;
use tracer::agent::client::{Collector, RemoteNode};
use tracer::agent::limits::Limits;
use tracer::agent::server::{Server, Settings};
use tracer::decode::RawEvent;
use tracer::kernel::{Filter, Options, monotonic_ns};
use tracer::model::{EventKind, Hook, Loss, ProbeResult};
use tracer::node::{
    CaptureRequest, Chunk, ClockSample, End, Events, FactsRequest, Feed, Hello, Locate, Located,
    Node, NodeError, NodeFacts, ProbeRequest, Probing, Started, message,
};
use tracer::probe::{Probe, Progress, Proto};

/// Long enough for anything that happens at all on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for a condition.
pub fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// How events are made.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// So many per second, this many in all; more than `backlog` that nobody takes are lost.
    Steady { rate: u64, count: u64, backlog: u64 },
    /// As many at once, as often as they are taken.
    Flood { at_once: u64 },
}

/// What the tests look at.
#[derive(Debug, Default)]
pub struct Counters {
    /// Events that were made, whether or not they were handed over.
    pub made: AtomicU64,
    /// Captures that are attached.
    pub attached: AtomicUsize,
    /// Captures that have been.
    pub captures: AtomicUsize,
    /// Probes that run.
    pub probes: AtomicUsize,
}

/// The node.
#[derive(Debug)]
pub struct Synthetic {
    pub pace: Pace,
    pub counters: Arc<Counters>,
}

impl Node for Synthetic {
    fn hello(&self) -> Result<Hello, NodeError> {
        Ok(Hello {
            protocol: message::PROTOCOL,
            version: "synthetic".into(),
            kernel: "6.99".into(),
            architecture: "x86_64".into(),
            boot_id: "none".into(),
            clock_ns: monotonic_ns(),
            wall: "2026-01-01T00:00:00Z".into(),
        })
    }

    fn locate(&self, what: &Locate) -> Result<Located, NodeError> {
        match what {
            Locate::Address { ip, .. } => Err(NodeError::NoAddress(*ip)),
            _ => Err(NodeError::Unknown(7)),
        }
    }

    fn facts(&self, _: &FactsRequest) -> Result<NodeFacts, NodeError> {
        Ok(NodeFacts { spaces: Vec::new() })
    }

    fn capture(&self, _: &CaptureRequest) -> Result<Box<dyn Feed>, NodeError> {
        self.counters.attached.fetch_add(1, SeqCst);
        self.counters.captures.fetch_add(1, SeqCst);
        Ok(Box::new(SyntheticFeed {
            started: Started { armed_ns: 1, ..Started::default() },
            pace: self.pace,
            begun: Instant::now(),
            made: 0,
            lost: 0,
            counters: Arc::clone(&self.counters),
        }))
    }

    fn probe(&self, request: &ProbeRequest) -> Result<Box<dyn Probing>, NodeError> {
        self.counters.probes.fetch_add(1, SeqCst);
        Ok(Box::new(SyntheticProbing {
            sent: Mutex::new(0),
            count: request.probe.count,
            stop: AtomicBool::new(false),
            counters: Arc::clone(&self.counters),
        }))
    }

    fn clock(&self) -> Result<ClockSample, NodeError> {
        let now = monotonic_ns();
        Ok(ClockSample { asked_ns: now, node_ns: now, answered_ns: now })
    }
}

#[derive(Debug)]
struct SyntheticFeed {
    started: Started,
    pace: Pace,
    begun: Instant,
    made: u64,
    lost: u64,
    counters: Arc<Counters>,
}

impl Drop for SyntheticFeed {
    fn drop(&mut self) {
        self.counters.attached.fetch_sub(1, SeqCst);
    }
}

/// An event that can be told from all others of its node: by its skb.
fn event(number: u64) -> RawEvent<'static> {
    RawEvent {
        time_ns: 1000 + number,
        machine: 0,
        netns_inum: 4_026_531_840,
        ifindex: 2,
        skb: number,
        len: 98,
        gso: None,
        kind: EventKind::Hop(Hook::Ingress),
        l3_offset: 14,
        protocol: 0x0800,
        data: vec![u8::try_from(number & 0xff).unwrap_or(0); 58].into(),
    }
}

impl Feed for SyntheticFeed {
    fn started(&self) -> &Started {
        &self.started
    }

    fn next(&mut self, wait: Duration) -> Result<Option<Chunk>, NodeError> {
        let due = match self.pace {
            Pace::Flood { at_once } => self.made + at_once,
            Pace::Steady { rate, count, .. } => {
                thread::sleep(wait.min(Duration::from_millis(10)));
                let since = u64::try_from(self.begun.elapsed().as_micros()).expect("microseconds");
                (since * rate / 1_000_000).min(count)
            }
        };
        let mut end = None;
        if let Pace::Steady { backlog, count, .. } = self.pace {
            // The oldest are there, the newest found no room.
            let room = due.min(self.made.saturating_add(backlog));
            self.lost += due - room;
            let events = (self.made..room).map(event).collect();
            self.made = due;
            if self.made == count {
                end = Some(End::Other("all is made".into()));
            }
            return Ok(Some(self.chunk(events, end)));
        }
        let events = (self.made..due).map(event).collect();
        self.counters.made.fetch_add(due - self.made, SeqCst);
        self.made = due;
        Ok(Some(self.chunk(events, end)))
    }
}

impl SyntheticFeed {
    fn chunk(&self, events: Vec<RawEvent<'static>>, end: Option<End>) -> Chunk {
        Chunk {
            until_ns: 1000 + self.made,
            events: Events::Named(events),
            loss: Loss { backlog: self.lost, ..Loss::default() },
            vanished: Vec::new(),
            end,
        }
    }
}

#[derive(Debug)]
struct SyntheticProbing {
    sent: Mutex<u64>,
    count: u64,
    stop: AtomicBool,
    counters: Arc<Counters>,
}

impl Drop for SyntheticProbing {
    fn drop(&mut self) {
        self.counters.probes.fetch_sub(1, SeqCst);
    }
}

impl Probing for SyntheticProbing {
    fn progress(&self) -> Progress {
        // One more each time that it is looked at.
        let mut sent = self.sent.lock().expect("no panic");
        *sent = (*sent + 1).min(self.count);
        Progress { sent: *sent, answered: *sent }
    }

    fn is_finished(&self) -> bool {
        *self.sent.lock().expect("no panic") == self.count || self.stop.load(SeqCst)
    }

    fn stop(&self) {
        self.stop.store(true, SeqCst);
    }

    fn join(self: Box<Self>) -> io::Result<ProbeResult> {
        let sent = *self.sent.lock().expect("no panic");
        if self.count == 13 {
            return Err(io::Error::from_raw_os_error(99));
        }
        Ok(ProbeResult { proto: "icmp".into(), sent, answered: sent, ..ProbeResult::default() })
    }
}

/// An agent of a synthetic node on loopback, in plain text unless changed.
pub struct TestAgent {
    pub server: Server,
    pub counters: Arc<Counters>,
    pub log: Arc<Mutex<Vec<String>>>,
}

impl TestAgent {
    pub fn start(pace: Pace, change: impl FnOnce(&mut Settings)) -> Self {
        let counters = Arc::<Counters>::default();
        let log = Arc::new(Mutex::new(Vec::new()));
        let lines = Arc::clone(&log);
        let mut settings = Settings {
            listen: "127.0.0.1:0".parse().expect("an address"),
            tls: None,
            limits: Limits::default(),
            speaks: Speaks::default(),
            log: Arc::new(move |line| lines.lock().expect("no panic").push(line.to_owned())),
        };
        change(&mut settings);
        let made = Arc::clone(&counters);
        let factory = move || -> io::Result<Arc<dyn Node>> {
            Ok(Arc::new(Synthetic { pace, counters: Arc::clone(&made) }))
        };
        let server = Server::start(settings, Arc::new(factory)).expect("listen");
        Self { server, counters, log }
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        let listen = self.server.listen().to_string();
        listen.rsplit_once(':').expect("a port").1.parse().expect("a number")
    }

    pub fn target(&self) -> Target {
        format!("http://127.0.0.1:{}", self.port()).parse().expect("a target")
    }

    pub fn connect(&self) -> RemoteNode {
        Collector::default().connect("B", &self.target()).expect("connect")
    }

    /// Captures that are attached.
    pub fn attached(&self) -> usize {
        self.counters.attached.load(SeqCst)
    }

    /// Whether a line of the log has this in it.
    pub fn has_said(&self, text: &str) -> bool {
        self.log.lock().expect("no panic").iter().any(|line| line.contains(text))
    }
}

/// A steady node that does not end within a test.
pub const ENDLESS: Pace = Pace::Steady { rate: 1000, count: u64::MAX, backlog: 10_000 };

pub fn capture() -> CaptureRequest {
    CaptureRequest { stations: Vec::new(), filter: Filter::default(), options: Options::default() }
}

pub fn probe(count: u64) -> ProbeRequest {
    let address = [192, 0, 2, 1].into();
    ProbeRequest {
        netns: 1,
        probe: Probe {
            proto: Proto::Icmp,
            src: address,
            dst: address,
            port: 0,
            count,
            interval: Duration::from_millis(10),
            size: 56,
            dont_fragment: false,
            timeout: Duration::from_millis(10),
        },
    }
}
