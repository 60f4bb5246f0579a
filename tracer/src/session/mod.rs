//! A trace from its beginning to its report: attach, watch (or probe), correlate, diagnose.
//!
//! Enters: a [`Spec`] and two resolved ends. Leaves: a [`Report`]. Whoever drives it (the command
//! line, a screen) calls [`Session::step`] until it says that the trace is over, then
//! [`Session::finish`]. What needs a second look once the first result is known (a full-size packet,
//! a ping from node to node) is sent by [`follow`] over the same capture.

mod courtesy;
mod feeds;
mod follow;
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
use crate::decode::Parser;
use crate::diagnose::Meta;
use crate::endpoint::{self, Resolved};
use crate::expect::{self, Family};
use crate::facts::{self, Collected, PathFacts, Space};
use crate::kernel::{Filter, Options, monotonic_ns};
use crate::model::{
    Alias, Direction, End, Loss, Observation, ProbeResult, Reading, RoundTrip, Topology,
    Unreachable,
};
use crate::node::{CaptureRequest, Events, Namespace, Nodes, ProbeRequest, Probing};
use crate::probe::{self, Probe};
use crate::record::{Recorder, StageKind, Summary};
use crate::report::Report;
use tracer_common::MAX_PAIRS;

use courtesy::Courtesy;
use feeds::{Arrival, Feeds};
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

/// Records are decoded as they come below this rate; above it they are kept for later, so that
/// podtrace takes no CPU time from the traffic it watches. Bytes per look.
const BUSY_BYTES: usize = 512 << 10;

/// The same where somebody watches, who is to see what happens now: records are decoded as they come,
/// in turns of this length, so that looks come in between.
const TURN: Duration = Duration::from_millis(100);

/// With more than this undecoded, decoding does not give way to the traffic any more. Bytes.
const BEHIND_BYTES: usize = 8 << 20;

/// Where somebody watches, undecoded records take at most this much memory, bytes; beyond it they
/// are lost, and counted.
const WATCHED_BACKLOG: usize = 128 << 20;

/// How often the analysis is told how far the nodes have come.
const TELL: Duration = Duration::from_millis(50);

/// Undecoded records are worked off at the latest when they take this much memory, bytes.
const DEFER_BYTES: usize = 256 << 20;

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
    /// One for each address family; the first is what the probe uses.
    paths: Vec<(Family, Arc<Topology>)>,
    analysis: Analysis,
    observation: Observation,
    probe: Option<Box<dyn Probing>>,
    feeds: Feeds,
    parser: Parser,
    /// Events that could not be decoded here.
    undecodable: u64,
    /// When the analysis was last told how far the nodes have come.
    told: Instant,
    /// Clocks that were read before there was a recorder.
    round_trips: Vec<RoundTrip>,
    /// Set from outside (Ctrl-C) to end the trace.
    stop: Arc<AtomicBool>,
    started: jiff::Timestamp,
    begun: Instant,
    /// Events not yet decoded, by source.
    waiting: VecDeque<(usize, Events)>,
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
        dst: &Resolved,
        nodes: &Nodes,
        stop: Arc<AtomicBool>,
    ) -> Result<Self> {
        endpoint::distinct(&src, dst)?;
        let families = families(&spec, &src.end, &dst.end)?;
        let before = facts::collect(nodes, &src, dst)?;
        let mut paths = Vec::new();
        for family in families {
            let mut topology = expect::topology(&before.facts, family)?;
            topology.machines = machines(&before);
            paths.push((family, Arc::new(topology)));
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
            undecodable: 0,
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
            // On the axis of the clocks that are known by now.
            session.analysis.arm(session.observation.armed_ns);
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
            kernel: nix::sys::utsname::uname()
                .map_or_else(|_| String::new(), |u| u.release().to_string_lossy().into_owned()),
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

    /// Takes events for about `time`, and decodes them unless the traffic is heavy.
    fn take(&mut self, time: Duration) {
        let until = Instant::now() + time;
        let mut taken = 0;
        while let Some(arrival) = self.feeds.next(until.saturating_duration_since(Instant::now())) {
            taken += self.arrived(arrival);
        }
        if self.spec.watched {
            self.work_off(Some(TURN));
        } else if taken < BUSY_BYTES || self.waiting_bytes > DEFER_BYTES {
            self.work_off(None);
        }
    }

    /// Takes everything that has happened by now.
    fn sync(&mut self) {
        let mut arrived = Vec::new();
        self.feeds.sync(|arrival| arrived.push(arrival));
        for arrival in arrived {
            self.arrived(arrival);
        }
    }

    /// Puts aside what came; bytes of events.
    fn arrived(&mut self, arrival: Arrival) -> usize {
        match arrival {
            Arrival::Events(source, events) => {
                let size = events.size();
                self.last_event = Instant::now();
                self.waiting_bytes += size;
                self.waiting.push_back((source, events));
                size
            }
            Arrival::Clock(trip) => {
                self.analysis.round_trip(&trip);
                self.record(|recorder| recorder.clock(&trip));
                0
            }
            Arrival::Word(word) => {
                self.notices.extend(word);
                0
            }
        }
    }

    /// Decodes and correlates what waits: everything, or what can be done in about `time`.
    fn work_off(&mut self, time: Option<Duration>) {
        if self.waiting.is_empty() {
            // Tells the correlators that nothing is on its way.
            self.analysis.push(Vec::new());
            self.record(Recorder::idle);
        }
        let polite = !self.spec.watched || self.waiting_bytes < BEHIND_BYTES;
        let _courtesy = polite.then(Courtesy::begin);
        let until = time.map(|time| Instant::now() + time);
        while let Some((_, mut events)) = self.waiting.pop_front() {
            self.waiting_bytes -= events.size();
            if self.spec.watched {
                events.shrink();
            }
            let events = Arc::new(events);
            self.record(|recorder| recorder.batch(&events));
            let mut decoded = Vec::with_capacity(events.len());
            let mut undecodable = 0;
            events.for_each(|raw| match raw.and_then(|raw| self.parser.parse(raw)) {
                Some(event) => decoded.push(event),
                None => undecodable += 1,
            });
            self.undecodable += undecodable;
            events.release();
            self.analysis.push(decoded);
            if self.spec.watched {
                self.kept.add(events);
            }
            if until.is_some_and(|until| Instant::now() >= until) {
                break;
            }
        }
        if self.told.elapsed() >= TELL {
            self.tell_reached();
        }
    }

    /// Tells the analysis how far each node has come, where events of several machines have to be
    /// put in order.
    fn tell_reached(&mut self) {
        let alone = self.feeds.sources.iter().all(|source| !source.site.is_remote());
        if alone || !self.waiting.is_empty() {
            return;
        }
        self.told = Instant::now();
        let here = self.feeds.sources.iter().any(|source| !source.site.is_remote());
        let sources = self.feeds.sources.iter();
        let mut reached: Vec<(u16, Option<u64>)> =
            sources.map(|s| (s.site.machine(), (!s.over).then_some(s.until_ns))).collect();
        if !here {
            reached.push((0, None));
        }
        for (machine, until_ns) in reached {
            self.analysis.reached(machine, until_ns);
            self.record(|recorder| recorder.reached(machine, until_ns));
        }
    }

    /// Whether the source's node is no longer observed.
    fn source_gone(&self) -> bool {
        let site = &self.src.node.netns.site;
        self.feeds.sources.iter().any(|s| s.over && Arc::ptr_eq(&s.site, site))
    }

    /// Nodes that are no longer observed.
    fn unreachable(&self) -> Vec<Unreachable> {
        let gone = |source: &feeds::Source| {
            let gone = source.gone.as_ref()?;
            let reading = Reading { machine: source.site.machine(), ns: gone.since_ns };
            Some(Unreachable {
                node: source.node.clone(),
                since_ns: self.analysis.machine_0_at(reading),
                why: gone.why.clone(),
            })
        };
        self.feeds.sources.iter().filter_map(gone).collect()
    }

    /// What was lost so far, by node.
    fn losses(&self) -> Vec<(String, Loss)> {
        let sources = self.feeds.sources.iter();
        let mut losses: Vec<_> = sources.map(|s| (s.node.clone(), s.loss.clone())).collect();
        if let Some((_, loss)) = losses.last_mut() {
            loss.undecodable += self.undecodable;
        }
        losses
    }

    /// Notes interfaces that are no longer there, once each.
    fn note_vanished(&mut self) {
        for label in self.feeds.vanished() {
            if !self.observation.vanished.contains(&label) {
                self.notices.push(format!("interface {label} vanished during the trace"));
                self.observation.vanished.push(label);
            }
        }
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

/// The address families to look at: the one asked for, that of the probe, or all that both ends
/// have.
fn families(spec: &Spec, src: &End, dst: &End) -> Result<Vec<Family>, SpecError> {
    let mut families: Vec<Family> = [Family::V4, Family::V6]
        .into_iter()
        .filter(|f| f.first(src).is_some() && f.first(dst).is_some())
        .filter(|f| !(spec.ipv4 && *f == Family::V6 || spec.ipv6 && *f == Family::V4))
        .collect();
    if families.is_empty() {
        let wanted = match (spec.ipv4, spec.ipv6) {
            (true, _) => "IPv4 ",
            (_, true) => "IPv6 ",
            _ => "",
        };
        return Err(SpecError(format!(
            "{} and {} have no {wanted}addresses of the same family",
            src.name, dst.name
        )));
    }
    if spec.probe.is_some() {
        families.truncate(1);
    }
    Ok(families)
}

/// An analysis of everything from a moment on (kernel time, ns).
fn analysis(paths: &[(Family, Arc<Topology>)], armed_ns: u64) -> Analysis {
    let mut analysis = Analysis::new(paths.iter().cloned());
    analysis.arm(armed_ns);
    analysis
}

fn filter(spec: &Spec, facts: &PathFacts, paths: &[(Family, Arc<Topology>)]) -> Filter {
    let mut filter = Filter {
        proto: spec.protocol(),
        port: spec.port,
        snaplen: spec.snaplen,
        ..Filter::default()
    };
    for (family, topology) in paths {
        let ips = |end: &Option<End>| {
            let ips = end.as_ref().map(|e| e.ips.clone()).unwrap_or_default();
            ips.into_iter().filter(|ip| Family::of(ip) == *family).collect::<Vec<_>>()
        };
        let (sources, destinations) = (ips(&topology.src), ips(&topology.dst));
        let aliases = |source: bool| {
            topology.aliases.iter().filter(move |a| a.source == source).map(|a| a.ip)
        };
        let mut pairs = Vec::new();
        for a in sources.iter().copied().chain(aliases(true)) {
            for b in destinations.iter().copied().chain(aliases(false)) {
                pairs.push((a, b));
            }
        }
        // What translation may make of the addresses comes behind the addresses themselves: only
        // those must fit.
        pairs.sort_by_key(|(a, b)| !(sources.contains(a) && destinations.contains(b)));
        pairs.truncate(MAX_PAIRS.max(sources.len() * destinations.len()));
        filter.pairs.extend(pairs);
        let translated =
            |a: &Alias| a.real_port.filter(|_| a.port.is_some() && a.port == spec.port);
        filter.port_behind = topology.aliases.iter().find_map(translated).or(filter.port_behind);
        filter.addresses.extend(expect::addresses_on_path(facts, topology));
        filter.vxlan_ports.extend(&topology.vxlan_ports);
    }
    filter.addresses.sort_unstable();
    filter.addresses.dedup();
    filter.vxlan_ports.sort_unstable();
    filter.vxlan_ports.dedup();
    filter
}
