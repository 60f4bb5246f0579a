//! A trace from its beginning to its report: attach, watch (or probe), correlate, diagnose.
//!
//! Enters: a [`Spec`] and two resolved ends. Leaves: a [`Report`]. Whoever drives it (the command
//! line, a screen) calls [`Session::step`] until it says that the trace is over, then
//! [`Session::finish`]. What needs a second look once the first result is known (a full-size packet,
//! a ping from node to node) is sent by [`follow`] over the same capture.

mod courtesy;
mod feeds;
mod filter;
mod follow;
mod intake;
mod keep;
mod look;
mod recording;
mod spec;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::analysis::{self, Analysis, Analyzed, Large, State};
use crate::decode::{Parser, Unread};
use crate::diagnose::Meta;
use crate::endpoint::{self, Destination, Resolved};
use crate::expect::{self, Family};
use crate::facts::{self, Collected, PathFacts, Space};
use crate::kernel::{Options, monotonic_ns, release};
use crate::model::{Direction, End, Observation, ProbeResult, RoundTrip, Topology};
use crate::node::{CaptureRequest, Namespace, Nodes, ProbeRequest, Probing};
use crate::probe::{self, Probe};
use crate::record::{Recorder, StageKind, Summary};
use crate::report::Report;

use feeds::{Feeds, Waiting};
use filter::{families, filter};
pub use keep::Excerpt;
pub use look::Look;
pub use spec::{DEFAULT_COUNT, DEFAULT_SIZE, Spec};

/// How long after the last packet of a probe an unfinished journey is waited for. The kernel drops
/// packets that wait for an address resolution after three seconds (net/ipv4/arp.c: three probes,
/// one second apart; measured 3.05 to 3.07 s).
const LATE_DROPS: Duration = Duration::from_millis(3500);

/// How long nothing must happen before a probe without an answer to everything is done, when no
/// packet of it is under way any more.
const QUIET: Duration = Duration::from_millis(1000);

/// How long packets under way are waited for when the time is up.
const TIME_IS_UP: Duration = Duration::from_millis(500);

/// The same after Ctrl-C.
const INTERRUPTED: Duration = Duration::from_millis(250);

/// Where somebody watches, undecoded records take at most this much memory, bytes; beyond it they
/// are lost, and counted.
const WATCHED_BACKLOG: usize = 128 << 20;

/// The trace cannot be done as asked; the user has to ask otherwise.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SpecError(pub String);

/// How far a trace has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Since the beginning.
    pub elapsed: Duration,
    /// Packets that the probe has sent; `None` without a probe.
    pub sent: Option<u64>,
    /// Packets that left the source.
    pub seen: u64,
    /// Of those, the ones that arrived.
    pub arrived: u64,
    /// Answers that arrived.
    pub replied: u64,
}

/// What a trace leaves.
#[derive(Debug)]
pub struct Finished {
    /// The report.
    pub report: Report,
    /// What was recorded, or why it could not be; `None` without a recording.
    pub recording: Option<std::io::Result<Summary>>,
    /// What the user should know besides; see [`Session::notices`].
    pub notices: Vec<String>,
}

/// A trace under way. Dropping it detaches everything.
pub struct Session {
    spec: Spec,
    src: Resolved,
    /// Network state before, with its namespaces held open.
    before: Collected<PathFacts>,
    /// One for each address family and end that packets may come to; the first is what the probe uses.
    paths: Vec<(Family, Arc<Topology>)>,
    analysis: Analysis,
    observation: Observation,
    probe: Option<Box<dyn Probing>>,
    feeds: Feeds,
    parser: Parser,
    /// Events that could not be decoded here.
    unread: Unread,
    /// When the analysis was last told how far the nodes have come.
    told: Instant,
    /// Clocks that were read: before there was a recorder, or where an excerpt may be asked for.
    round_trips: Vec<RoundTrip>,
    /// Set from outside (Ctrl-C) to end the trace.
    stop: Arc<AtomicBool>,
    started: jiff::Timestamp,
    begun: Instant,
    /// What is not worked off yet, in the order in which it came.
    waiting: VecDeque<Waiting>,
    waiting_bytes: usize,
    /// When a packet was last seen.
    last_event: Instant,
    /// When the probe was first seen to have sent everything.
    all_sent: Option<Instant>,
    /// When what is gone was last looked for.
    noted: Instant,
    patience: Duration,
    notices: Vec<String>,
    recorder: Option<Recorder>,
    /// How long the main stage took, ns; known from its end on.
    duration_ns: u64,
    looks: look::Looks,
    kept: keep::Kept,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("spec", &self.spec).finish_non_exhaustive()
    }
}

impl Session {
    /// Reads the network state, attaches, and starts the probe if there is to be one. `stop` ends
    /// the trace when it is set.
    ///
    /// # Errors
    /// When the ends have no address family in common ([`SpecError`]), a namespace cannot be read,
    /// or nothing can be attached.
    pub fn start(
        spec: Spec,
        src: Resolved,
        dst: &Destination,
        nodes: &Nodes,
        stop: Arc<AtomicBool>,
    ) -> Result<Self> {
        endpoint::distinct(&src, &dst.resolved)?;
        let families = families(&spec, &src.end, &dst.resolved.end)?;
        let before = facts::collect(nodes, &src, dst)?;
        let mut paths = Vec::new();
        for family in families {
            let watched = spec.probe.is_none();
            let mut topologies = expect::topologies(&before.facts, family, watched)?;
            for topology in &mut topologies {
                topology.machines = machines(&before);
            }
            expect::fit(&mut topologies, tracer_common::MAX_SLOTS);
            paths.extend(topologies.into_iter().map(|topology| (family, Arc::new(topology))));
        }
        let mut options = Options {
            attach: spec.attach,
            ring_bytes: spec.buffer << 20,
            btf: spec.btf.clone(),
            ..Options::default()
        };
        if spec.watched {
            options.backlog_bytes = WATCHED_BACKLOG;
        }
        let topology = Arc::clone(&paths[0].1);
        let filter = filter(&spec, &before.facts, &paths);
        let request = CaptureRequest { stations: Vec::new(), filter, options };
        let namespace_of = |inum| before.namespaces.get(&inum);
        let feeds = Feeds::start(&topology.stations, &src.node, &request, namespace_of)?;
        let parser = Parser::new(&topology);
        let observation = Observation {
            armed_ns: monotonic_ns(),
            disabled: feeds.disabled(),
            vanished: feeds.vanished(),
            ..Observation::default()
        };
        let notices = observation.disabled.iter().chain(&topology.gaps).cloned().collect();
        let now = Instant::now();
        let round_trips = feeds.read_clocks();
        let mut session = Self {
            spec,
            src,
            before,
            analysis: analysis(&paths, observation.armed_ns),
            paths,
            observation,
            probe: None,
            feeds,
            parser,
            unread: Unread::default(),
            told: now,
            stop,
            round_trips: Vec::new(),
            started: jiff::Timestamp::now(),
            begun: now,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            last_event: now,
            all_sent: None,
            noted: now,
            patience: TIME_IS_UP,
            notices,
            recorder: None,
            duration_ns: 0,
            looks: look::Looks::default(),
            kept: keep::Kept::default(),
        };
        if !round_trips.is_empty() {
            round_trips.iter().for_each(|trip| session.analysis.round_trip(trip));
            session.round_trips = round_trips;
        }
        session.start_probe()?;
        Ok(session)
    }

    /// What the user should know by now, each line once.
    pub fn notices(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notices)
    }

    /// Where the flow can pass.
    pub fn topology(&self) -> &Topology {
        &self.paths[0].1
    }

    /// How far the trace has come.
    pub fn progress(&self) -> Progress {
        Progress {
            elapsed: self.begun.elapsed(),
            sent: self.sent(),
            seen: self.analysis.started(Direction::Forward),
            arrived: self.analysis.delivered(Direction::Forward),
            replied: self.analysis.delivered(Direction::Reply),
        }
    }

    fn sent(&self) -> Option<u64> {
        let now = self.probe.as_ref().map(|p| p.progress().sent);
        let before = self.observation.probe.as_ref().map(|p| p.sent);
        now.or(before).map(|_| now.unwrap_or(0) + before.unwrap_or(0))
    }

    /// Watches for about `time`; false when the trace is over and [`Session::finish`] is due.
    pub fn step(&mut self, time: Duration) -> bool {
        self.take(time);
        if self.stop.load(Relaxed) {
            self.patience = INTERRUPTED;
            return false;
        }
        if self.spec.duration.is_some_and(|d| self.begun.elapsed() >= d) || self.feeds.over() {
            self.patience = TIME_IS_UP;
            return false;
        }
        if self.probe.is_some() {
            // It has waited for late drops already.
            if self.probe_done() {
                self.patience = TIME_IS_UP;
                return false;
            }
        } else if self.spec.count.is_some_and(|n| self.progress().seen >= n) {
            self.patience = LATE_DROPS;
            return false;
        }
        if self.noted.elapsed() >= Duration::from_secs(1) {
            self.noted = Instant::now();
            self.note_vanished();
            self.record_losses();
        }
        true
    }

    /// Waits for what is under way, looks again where the result asks for it, detaches, and
    /// diagnoses.
    ///
    /// # Errors
    /// When the probe could not be sent.
    pub fn finish(mut self) -> Result<Finished> {
        let patience = self.patience;
        let mut main = self.close_stage(StageKind::Main, None, patience)?;
        let after = facts::recollect(&self.before)?;
        let mut report = self.diagnose(&main, None, &after)?;
        if !self.stop.load(Relaxed) && main.observation.unreachable.is_empty() {
            report = self.follow_up(report, &mut main, &after)?;
        }
        let recording = self.end_recording(&after, &report);
        Ok(Finished { report, recording, notices: self.notices() })
    }

    /// The report of what was traced by now.
    fn diagnose(
        &self,
        main: &Analyzed,
        large: Option<&Large>,
        after: &PathFacts,
    ) -> Result<Report> {
        let state = State { before: Some(&self.before.facts), after: Some(after) };
        analysis::conclude(main, large, state, &self.meta()).context("there was nothing to trace")
    }

    fn meta(&self) -> Meta {
        Meta {
            started: self.started.to_string(),
            duration_ns: self.duration_ns,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            kernel: release(),
        }
    }

    fn start_probe(&mut self) -> Result<()> {
        match self.spec.probe {
            Some(proto) => self.start_probe_of(proto, self.spec.probe_count()),
            None => Ok(()),
        }
    }

    fn start_probe_of(&mut self, proto: probe::Proto, count: u64) -> Result<()> {
        let probe = Probe {
            proto,
            count,
            interval: self.spec.interval,
            size: usize::from(self.spec.size.unwrap_or(DEFAULT_SIZE)),
            ..self.template()?
        };
        self.probe = Some(self.send(probe)?);
        Ok(())
    }

    /// A probe between the two ends, of one ICMP packet.
    fn template(&self) -> Result<Probe> {
        let (family, topology) = &self.paths[0];
        let address = |end: &Option<End>| end.as_ref().and_then(|e| family.first(e));
        let (Some(src), Some(own)) = (address(&topology.src), address(&topology.dst)) else {
            anyhow::bail!("no address to send from or to");
        };
        let service = topology.dst.as_ref().and_then(|e| e.service.as_ref());
        let dst = service.map_or(own, |service| service.ip);
        let port = self.spec.port.or_else(|| service.and_then(|s| s.port));
        Ok(Probe {
            proto: probe::Proto::Icmp,
            src,
            dst,
            port: port.unwrap_or(0),
            count: 1,
            interval: self.spec.interval,
            size: usize::from(DEFAULT_SIZE),
            dont_fragment: false,
            timeout: LATE_DROPS,
        })
    }

    fn send(&self, probe: Probe) -> Result<Box<dyn Probing>> {
        send_from(&self.src.pod_netns, probe)
    }

    /// Whether the probe has sent everything and nothing more is to be expected of it.
    fn probe_done(&mut self) -> bool {
        let Some(probe) = &self.probe else { return true };
        if probe.is_finished() {
            return true;
        }
        let progress = probe.progress();
        if progress.sent < self.spec.probe_count() {
            return false;
        }
        let sent = *self.all_sent.get_or_insert_with(Instant::now);
        if sent.elapsed() >= LATE_DROPS {
            return true;
        }
        let settled = self.waiting.is_empty()
            && self.analysis.pending() == 0
            && self.analysis.started(Direction::Forward) > 0;
        // Every event is in the ring buffer before its packet's answer is; the reader looks every
        // few milliseconds.
        let since = self.last_event.elapsed().min(sent.elapsed());
        let wait =
            if progress.answered >= progress.sent { Duration::from_millis(30) } else { QUIET };
        settled && since >= wait
    }

    /// Waits for packets that were under way when the stage was told to end, at most `patience`.
    /// What sets out from now on would be seen only in part, and does not count.
    fn close_stage(
        &mut self,
        kind: StageKind,
        mtu: Option<u32>,
        patience: Duration,
    ) -> Result<Analyzed> {
        let closed_ns = monotonic_ns();
        self.observation.closed_ns = Some(closed_ns);
        self.analysis.close(closed_ns);
        self.record(|recorder| recorder.closed(closed_ns));
        let deadline = Instant::now() + patience;
        loop {
            self.take(Duration::from_millis(10));
            self.analysis.close(closed_ns);
            let done = self.analysis.pending() == 0 && self.waiting.is_empty();
            if Instant::now() >= deadline || done {
                break;
            }
        }
        if let Some(probe) = self.probe.take() {
            probe.stop();
            let progress = probe.progress();
            let result = match probe.join() {
                Ok(result) => result,
                // What it did until its node went away is known nevertheless.
                Err(error) if self.source_gone() => ProbeResult {
                    proto: self.spec.probe.unwrap_or(probe::Proto::Icmp).as_str().to_owned(),
                    sent: progress.sent,
                    answered: progress.answered,
                    errors: vec![(error.to_string(), 1)],
                    ..ProbeResult::default()
                },
                Err(error) => return Err(error).context("the probe failed"),
            };
            self.add_probe(result);
        }
        // What is left is to be recorded whole; nothing waits for it any more.
        self.record(Recorder::patient);
        self.observation.end_ns = monotonic_ns();
        self.sync();
        self.note_vanished();
        self.work_off(None);
        self.tell_reached();
        self.observation.loss = self.losses();
        self.observation.unreachable = self.unreachable();
        if self.duration_ns == 0 {
            self.duration_ns = u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        }
        self.record_stage(kind, mtu);
        // The next stage, if there is one, starts with nothing seen.
        let next = Observation {
            armed_ns: monotonic_ns(),
            disabled: self.observation.disabled.clone(),
            vanished: self.observation.vanished.clone(),
            ..Observation::default()
        };
        let again = self.analysis.again();
        let over = std::mem::replace(&mut self.analysis, again);
        self.analysis.arm(next.armed_ns);
        let observation = std::mem::replace(&mut self.observation, next);
        self.record_observation();
        Ok(over.finish(observation))
    }
}

/// Machines of the nodes that are not on this one.
fn machines(before: &Collected<PathFacts>) -> BTreeMap<String, u16> {
    let of = |space: &Space| {
        let site = &before.namespaces.get(&space.facts.inum)?.site;
        site.is_remote().then(|| (space.node.clone(), site.machine()))
    };
    before.facts.spaces.iter().filter_map(of).collect()
}

/// Starts a probe inside a namespace.
fn send_from(netns: &Namespace, probe: Probe) -> Result<Box<dyn Probing>> {
    let request = ProbeRequest { netns: netns.inum(), probe };
    netns.site.probe(&request).context("the probe failed")
}

/// An analysis of everything from a moment on (kernel time, ns).
fn analysis(paths: &[(Family, Arc<Topology>)], armed_ns: u64) -> Analysis {
    let mut analysis = Analysis::new(paths.iter().cloned());
    analysis.arm(armed_ns);
    analysis
}
