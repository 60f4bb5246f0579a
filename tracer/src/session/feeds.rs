//! What comes from the nodes of a trace: one feed each, taken by a thread each, put into one queue.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::endpoint::NodeHandle;
use crate::kernel::monotonic_ns;
use crate::model::{Loss, Reading, RoundTrip, Station};
use crate::node::{
    CaptureRequest, Chunk, ClockSample, End, Events, Feed, Namespace, NodeError, Site,
};

/// How often a thread looks whether it is to end.
const LOOK: Duration = Duration::from_millis(10);

/// Events of other machines that wait here, bytes: beyond it they wait at their nodes, which count
/// what they have to drop.
const WAITING: usize = 256 << 20;

/// How long is waited for what a node has seen by now, after its last word that brought it further,
/// and altogether.
const SYNC: Duration = Duration::from_secs(3);
const SYNC_AT_MOST: Duration = Duration::from_secs(15);

/// How often the clock of another machine is read before the first packet, and how often later.
const CLOCK_FIRST: usize = 8;
const CLOCK_LATER: Duration = Duration::from_secs(1);

/// A node that could not be reached any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Gone {
    /// Until when it told everything, ns on its clock.
    pub since_ns: u64,
    /// Why.
    pub why: String,
}

/// One feed, as far as it has come.
#[derive(Debug)]
pub(super) struct Source {
    pub site: Arc<Site>,
    /// The node that its losses are told under.
    pub node: String,
    /// From then on everything was attached there, ns on its clock.
    pub armed_ns: u64,
    /// What happened before has come, ns on its clock.
    pub until_ns: u64,
    /// What happened before has been worked off, ns on its clock.
    pub worked_ns: u64,
    pub loss: Loss,
    pub gone: Option<Gone>,
    /// Nothing more comes from there.
    pub over: bool,
    disabled: Vec<String>,
    vanished: Vec<String>,
}

impl Source {
    /// It is over, for this reason.
    fn ends(&mut self, why: String) {
        self.over = true;
        self.gone = Some(Gone { since_ns: self.until_ns.max(self.armed_ns), why });
    }
}

/// What came.
pub(super) enum Arrival {
    /// Events of a source, which may be none, and what else there is to say.
    Events(Waiting, Option<String>),
    /// The clock of a machine was read.
    Clock(RoundTrip),
    /// A node is gone.
    Gone(String),
}

/// Events that are not worked off yet.
pub(super) struct Waiting {
    /// Where they are from.
    pub source: usize,
    pub events: Events,
    /// With them, what happened there before is complete, ns on its clock.
    pub until_ns: u64,
}

enum Message {
    Chunk(usize, Chunk),
    Gone(usize, NodeError),
    Clock(RoundTrip),
}

/// Memory for what waits.
#[derive(Debug, Default)]
struct Room {
    taken: Mutex<usize>,
    changed: Condvar,
}

impl Room {
    fn taken(&self) -> MutexGuard<'_, usize> {
        // A number cannot be left half-way.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, size: usize, stop: &AtomicBool) {
        let mut taken = self.taken();
        while *taken > 0 && *taken + size > WAITING && !stop.load(Relaxed) {
            let waited = self.changed.wait_timeout(taken, LOOK);
            taken = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        *taken += size;
    }

    fn leave(&self, size: usize) {
        let mut taken = self.taken();
        *taken = taken.saturating_sub(size);
        drop(taken);
        self.changed.notify_all();
    }
}

/// The feeds of a trace. Dropping them detaches everything.
#[derive(Debug)]
pub(super) struct Feeds {
    pub sources: Vec<Source>,
    messages: Receiver<Message>,
    stop: Arc<AtomicBool>,
    /// How often the feeds were asked to look ([`Feed::look`]).
    looks: Arc<AtomicUsize>,
    room: Arc<Room>,
    threads: Vec<JoinHandle<()>>,
}

impl Feeds {
    /// Attaches to all stations of a path. `request` lacks them; `namespace_of` tells where each is.
    /// The site of the source comes last, so that a packet seen at its first station is seen
    /// everywhere.
    pub fn start<'a>(
        stations: &[Station],
        source: &NodeHandle,
        request: &CaptureRequest,
        namespace_of: impl Fn(u32) -> Option<&'a Namespace>,
    ) -> Result<Self> {
        let mut sites: Vec<(Arc<Site>, Vec<Station>)> = Vec::new();
        for station in stations {
            let namespace = namespace_of(station.netns_inum)
                .with_context(|| format!("nobody knows where {} is", station.label()))?;
            match sites.iter_mut().find(|(site, _)| Arc::ptr_eq(site, &namespace.site)) {
                Some((_, here)) => here.push(station.clone()),
                None => sites.push((Arc::clone(&namespace.site), vec![station.clone()])),
            }
        }
        let source_site = &source.netns.site;
        sites.sort_by_key(|(site, _)| Arc::ptr_eq(site, source_site));
        let (sender, messages) = channel();
        let mut feeds = Self {
            sources: Vec::new(),
            messages,
            stop: Arc::default(),
            looks: Arc::default(),
            room: Arc::default(),
            threads: Vec::new(),
        };
        let mut taken = Vec::new();
        for (site, stations) in sites {
            let node = match site.name() {
                Some(name) => name.to_owned(),
                None if Arc::ptr_eq(&site, source_site) => source.name.clone(),
                None => stations.first().map_or_else(String::new, |s| s.node.clone()),
            };
            let feed = site.capture(&CaptureRequest { stations, ..request.clone() });
            // What is wrong on this machine says so itself.
            let feed = if site.is_remote() {
                feed.with_context(|| format!("cannot observe node {node}"))?
            } else {
                feed?
            };
            let started = feed.started().clone();
            feeds.sources.push(Source {
                site: Arc::clone(&site),
                node,
                armed_ns: started.armed_ns,
                until_ns: 0,
                worked_ns: 0,
                loss: Loss::default(),
                gone: None,
                over: false,
                disabled: started.disabled,
                vanished: started.vanished,
            });
            taken.push(feed);
        }
        for (at, feed) in taken.into_iter().enumerate() {
            feeds.spawn(at, feed, &sender)?;
        }
        Ok(feeds)
    }

    fn spawn(&mut self, at: usize, feed: Box<dyn Feed>, sender: &Sender<Message>) -> Result<()> {
        let site = &self.sources[at].site;
        let thread = |name: &str| std::thread::Builder::new().name(name.to_owned());
        let cannot = "cannot start a thread";
        let (stop, out) = (Arc::clone(&self.stop), sender.clone());
        let room = site.is_remote().then(|| Arc::clone(&self.room));
        let looks = Arc::clone(&self.looks);
        let taker =
            thread("feed").spawn(move || take(at, feed, &out, room.as_deref(), &stop, &looks));
        self.threads.push(taker.context(cannot)?);
        if site.is_remote() {
            let (site, out, stop) = (Arc::clone(site), sender.clone(), Arc::clone(&self.stop));
            // Not waited for in the end: it may be waiting for a node that does not answer.
            thread("clock").spawn(move || read_clock(&site, &out, &stop)).context(cannot)?;
        }
        Ok(())
    }

    /// Probes that cannot run, each with the reason.
    pub fn disabled(&self) -> Vec<String> {
        self.sources.iter().flat_map(|s| s.disabled.iter().cloned()).collect()
    }

    /// Stations that are gone, by label.
    pub fn vanished(&self) -> Vec<String> {
        self.sources.iter().flat_map(|s| s.vanished.iter().cloned()).collect()
    }

    /// Reads the clocks of other machines: what the order of the first packets is told by.
    pub fn read_clocks(&self) -> Vec<RoundTrip> {
        let remote = self.sources.iter().filter(|s| s.site.is_remote());
        let read = |source: &Source| source.site.clock().ok().map(|c| trip(&source.site, c));
        remote.flat_map(|source| (0..CLOCK_FIRST).map_while(move |_| read(source))).collect()
    }

    /// Whether nothing more comes from anywhere.
    pub fn over(&self) -> bool {
        self.sources.iter().all(|s| s.over)
    }

    /// The next thing that comes within `wait`.
    pub fn next(&mut self, wait: Duration) -> Option<Arrival> {
        let message = match self.messages.recv_timeout(wait) {
            Ok(message) => message,
            Err(RecvTimeoutError::Timeout) => return None,
            Err(RecvTimeoutError::Disconnected) => {
                // All have gone; do not spin.
                std::thread::sleep(wait);
                return None;
            }
        };
        Some(self.account(message))
    }

    fn account(&mut self, message: Message) -> Arrival {
        match message {
            Message::Clock(trip) => Arrival::Clock(trip),
            Message::Gone(at, error) => {
                let source = &mut self.sources[at];
                let why = error.to_string();
                let word = format!("node {} is unreachable: {why}", source.node);
                source.ends(why);
                Arrival::Gone(word)
            }
            Message::Chunk(at, chunk) => {
                let source = &mut self.sources[at];
                if source.site.is_remote() {
                    self.room.leave(chunk.events.size());
                }
                source.until_ns = source.until_ns.max(chunk.until_ns);
                source.loss = chunk.loss;
                source.vanished = chunk.vanished;
                let word = chunk.end.map(|end| {
                    let why = match end {
                        End::Duration(most) => format!("its limit of {most:?} is reached"),
                        End::Other(why) => why,
                    };
                    source.ends(why.clone());
                    format!("node {} observes no more: {why}", source.node)
                });
                let until_ns = source.until_ns;
                Arrival::Events(Waiting { source: at, events: chunk.events, until_ns }, word)
            }
        }
    }

    /// Takes until everything that has happened by now is there: what comes goes to `each`. A node
    /// that does not tell is waited for only so long, and counts as gone then: what it has not told
    /// proves nothing.
    pub fn sync(&mut self, mut each: impl FnMut(Arrival)) {
        let now = |source: &Source| match source.site.is_remote() {
            false => Some(monotonic_ns()),
            true => source.site.clock().ok().map(|sample| sample.node_ns),
        };
        self.looks.fetch_add(1, SeqCst);
        let due: Vec<Option<u64>> =
            self.sources.iter().map(|s| if s.over { None } else { now(s) }).collect();
        let begun = Instant::now();
        let mut last_word = begun;
        let behind =
            |s: &Source, due: Option<u64>| !s.over && due.is_some_and(|due| s.until_ns < due);
        let reached = |sources: &[Source]| sources.iter().map(|s| s.until_ns).sum::<u64>();
        while self.sources.iter().zip(&due).any(|(s, due)| behind(s, *due)) {
            if last_word.elapsed() > SYNC || begun.elapsed() > SYNC_AT_MOST {
                for (source, due) in self.sources.iter_mut().zip(&due) {
                    if behind(source, *due) {
                        source.ends("it has not told in time what it saw".to_owned());
                    }
                }
                break;
            }
            let before = reached(&self.sources);
            if let Some(arrival) = self.next(LOOK) {
                each(arrival);
            }
            if reached(&self.sources) > before {
                last_word = Instant::now();
            }
        }
    }
}

impl Drop for Feeds {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            // A panic in it has been printed.
            let _ = thread.join();
        }
    }
}

fn take(
    at: usize,
    mut feed: Box<dyn Feed>,
    out: &Sender<Message>,
    room: Option<&Room>,
    stop: &AtomicBool,
    looks: &AtomicUsize,
) {
    let (mut looked, mut until_ns) = (0, 0);
    while !stop.load(Relaxed) {
        match feed.next(LOOK) {
            Ok(Some(mut chunk)) => {
                let asked = looks.load(SeqCst);
                if asked != looked {
                    // Whoever waits for this moment is to see what is seen now: the next chunk says it.
                    feed.look();
                    looked = asked;
                    chunk.until_ns = until_ns;
                }
                until_ns = chunk.until_ns;
                if let Some(room) = room {
                    room.enter(chunk.events.size(), stop);
                }
                let over = chunk.end.is_some();
                if out.send(Message::Chunk(at, chunk)).is_err() || over {
                    return;
                }
            }
            Ok(None) => {}
            Err(error) => {
                // When nobody listens, nobody need know.
                let _ = out.send(Message::Gone(at, error));
                return;
            }
        }
    }
}

/// A reading of another machine's clock.
fn trip(site: &Site, sample: ClockSample) -> RoundTrip {
    let ClockSample { asked_ns, node_ns, answered_ns } = sample;
    RoundTrip { asked_ns, reading: Reading { machine: site.machine(), ns: node_ns }, answered_ns }
}

fn read_clock(site: &Site, out: &Sender<Message>, stop: &AtomicBool) {
    loop {
        let due = Instant::now() + CLOCK_LATER;
        while !stop.load(Relaxed) && Instant::now() < due {
            std::thread::sleep(LOOK);
        }
        if stop.load(Relaxed) {
            return;
        }
        // That a node is gone is told by its feed.
        let Ok(sample) = site.clock() else { return };
        if out.send(Message::Clock(trip(site, sample))).is_err() {
            return;
        }
    }
}
