//! The trace command: resolve, attach, watch (or probe), correlate, report.

use std::collections::HashMap;
use std::io::{IsTerminal, Write};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::args::{Proto, TraceArgs};
use super::{output, privileges, signals};
use crate::analysis::Analysis;
use crate::decode::{Batch, Decoder};
use crate::endpoint::Resolved;
use crate::expect::Family;
use crate::facts::Collected;
use crate::inventory::Inventory;
use crate::kernel::{Capture, Filter, Options, monotonic_ns};
use crate::model::{Direction, Loss, Observation, Topology};
use crate::netns::Netns;
use crate::probe::{Probe, ProbeHandle};
use crate::report::Report;
use crate::{diagnose, endpoint, expect, facts, probe};

/// Packets the probe sends without `--count`.
const DEFAULT_COUNT: u64 = 5;

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

/// Undecoded records are worked off at the latest when they take this much memory, bytes.
const DEFER_BYTES: usize = 256 << 20;

/// Runs a trace; the result is the exit status.
///
/// # Errors
/// When the trace cannot be done; see [`super::exit_code_of`] for the status.
pub fn run(args: &TraceArgs) -> Result<u8> {
    let usage = |message: String| super::Usage(message);
    let (Some(src), Some(dst)) = (&args.src, &args.dst) else {
        return Err(usage("--src and --dst are both needed".into()).into());
    };
    if matches!(args.probe, Some(Proto::Tcp | Proto::Udp)) && args.port.is_none() {
        return Err(usage("--probe=tcp and --probe=udp need --port".into()).into());
    }
    if let (Some(probe), Some(proto)) = (args.probe, args.proto)
        && probe != proto
    {
        return Err(usage("--probe and --proto name different protocols".into()).into());
    }
    let inventory = Inventory::load(args.inventory.as_deref())?;
    let src = endpoint::resolve(src, inventory.as_ref())?;
    let dst = endpoint::resolve(dst, inventory.as_ref())?;
    endpoint::distinct(&src, &dst)?;
    privileges::check()?;
    let families = families(args, &src, &dst)?;
    // Checked before the trace, so that a long one is not lost at its end.
    let sink = output::Sink::open(args.output.as_deref())?;

    let Collected { facts, namespaces } = facts::collect(inventory.as_ref(), &src, &dst)?;
    let mut flows = Vec::new();
    for family in families {
        let topology = expect::topology(&facts, family)?;
        let addresses = expect::addresses_on_path(&facts, &topology);
        flows.push(Flow { family, topology: Arc::new(topology), addresses });
    }
    let report = Session::start(args, &src, &namespaces, flows)?.run()?;
    let text = args.format.render(&report, &output::options(args, &sink));
    sink.write(&text)?;
    Ok(report.verdict.status.exit_code())
}

/// The address families to look at: the one asked for, that of the probe, or all that both ends
/// have.
fn families(args: &TraceArgs, src: &Resolved, dst: &Resolved) -> Result<Vec<Family>> {
    let has = |family: Family| {
        let of = |r: &Resolved| r.end.ips.iter().any(|ip| Family::of(ip) == family);
        of(src) && of(dst)
    };
    let mut families: Vec<Family> = [Family::V4, Family::V6]
        .into_iter()
        .filter(|f| has(*f))
        .filter(|f| !(args.ipv4 && *f == Family::V6 || args.ipv6 && *f == Family::V4))
        .collect();
    if families.is_empty() {
        let wanted = match (args.ipv4, args.ipv6) {
            (true, _) => "IPv4 ",
            (_, true) => "IPv6 ",
            _ => "",
        };
        return Err(super::Usage(format!(
            "{} and {} have no {wanted}addresses of the same family",
            src.end.name, dst.end.name
        ))
        .into());
    }
    if args.probe.is_some() {
        families.truncate(1);
    }
    Ok(families)
}

/// One address family of the flow.
struct Flow {
    family: Family,
    topology: Arc<Topology>,
    /// Whose resolution is of interest.
    addresses: Vec<IpAddr>,
}

/// A trace under way.
struct Session<'a> {
    args: &'a TraceArgs,
    namespaces: &'a HashMap<u32, Netns>,
    src: &'a Resolved,
    flows: Vec<Flow>,
    analysis: Analysis,
    capture: Capture,
    decoder: Decoder,
    observation: Observation,
    started: jiff::Timestamp,
    begun: Instant,
    /// Batches not yet decoded.
    waiting: Vec<Batch>,
    waiting_bytes: usize,
    /// When a packet was last seen.
    last_event: Instant,
    /// When the probe was first seen to have sent everything.
    all_sent: Option<Instant>,
}

impl<'a> Session<'a> {
    fn start(
        args: &'a TraceArgs,
        src: &'a Resolved,
        namespaces: &'a HashMap<u32, Netns>,
        flows: Vec<Flow>,
    ) -> Result<Self> {
        let options =
            Options { ring_bytes: args.buffer << 20, btf: args.btf.clone(), ..Options::default() };
        let filter = filter(args, &flows);
        let topology = Arc::clone(&flows[0].topology);
        let mut capture = Capture::start(&topology, namespaces, &filter, &options)?;
        let names = capture.take_names().unwrap_or_else(|| Box::new(Default::default));
        let decoder = Decoder::new(&topology, capture.slots().to_vec(), names);
        let observation = Observation {
            armed_ns: monotonic_ns(),
            disabled: capture.disabled().to_vec(),
            vanished: capture.vanished().to_vec(),
            ..Observation::default()
        };
        let topologies = flows.iter().map(|f| (f.family, Arc::clone(&f.topology)));
        let mut analysis = Analysis::new(topologies);
        analysis.arm(observation.armed_ns);
        let session = Self {
            args,
            namespaces,
            src,
            flows,
            analysis,
            capture,
            decoder,
            observation,
            started: jiff::Timestamp::now(),
            begun: Instant::now(),
            waiting: Vec::new(),
            waiting_bytes: 0,
            last_event: Instant::now(),
            all_sent: None,
        };
        for line in &session.observation.disabled {
            session.warn(line);
        }
        for gap in &topology.gaps {
            session.warn(gap);
        }
        if args.probe.is_none() {
            let (from, to) = (&topology.src, &topology.dst);
            let name =
                |e: &Option<crate::model::End>| e.as_ref().map_or("?", |e| &e.name).to_owned();
            session.warn(&format!(
                "watching {} → {} at {} interfaces (Ctrl-C ends)",
                name(from),
                name(to),
                topology.stations.len()
            ));
        }
        Ok(session)
    }

    /// One line on standard error, unless `--quiet`.
    fn warn(&self, line: &str) {
        if !self.args.quiet {
            eprintln!("podtrace: {line}");
        }
    }

    fn run(mut self) -> Result<Report> {
        let stop = signals::stop_flag()?;
        let probe = self.start_probe(&stop)?;
        let mut progress = Progress::new(self.args);
        let mut stations_checked = Instant::now();
        let patience = loop {
            self.take(Duration::from_millis(20));
            if stop.load(Relaxed) {
                break INTERRUPTED;
            }
            if self.args.duration.is_some_and(|d| self.begun.elapsed() >= d) {
                break TIME_IS_UP;
            }
            if let Some(probe) = &probe {
                // It has waited for late drops already.
                if self.probe_done(probe) {
                    break TIME_IS_UP;
                }
            } else if self
                .args
                .count
                .is_some_and(|n| self.analysis.started(Direction::Forward) >= n)
            {
                break LATE_DROPS;
            }
            if stations_checked.elapsed() >= Duration::from_secs(1) {
                stations_checked = Instant::now();
                self.check_stations();
            }
            progress.show(&self, probe.as_ref());
        };
        self.let_finish(patience);
        progress.clear();
        stop.store(true, Relaxed);
        if let Some(probe) = probe {
            self.observation.probe = Some(probe.join().context("the probe failed")?);
        }
        self.check_stations();
        self.report()
    }

    fn start_probe(&self, stop: &Arc<AtomicBool>) -> Result<Option<ProbeHandle>> {
        let Some(proto) = self.args.probe else { return Ok(None) };
        let Some(flow) = self.flows.first() else { return Ok(None) };
        let ends = (flow.topology.src.as_ref(), flow.topology.dst.as_ref());
        let address = |end: Option<&crate::model::End>| {
            end.and_then(|e| e.ips.iter().find(|ip| Family::of(ip) == flow.family).copied())
        };
        let (Some(src), Some(dst)) = (address(ends.0), address(ends.1)) else {
            anyhow::bail!("no address to send from or to");
        };
        let probe = Probe {
            proto: match proto {
                Proto::Icmp => probe::Proto::Icmp,
                Proto::Tcp => probe::Proto::Tcp,
                Proto::Udp => probe::Proto::Udp,
            },
            src,
            dst,
            port: self.args.port.unwrap_or(0),
            count: self.probe_count(),
            interval: self.args.interval,
            size: usize::from(self.args.size),
            timeout: LATE_DROPS,
        };
        Ok(Some(probe.start(&self.src.pod_netns, Arc::clone(stop))))
    }

    /// Packets that the probe is to send.
    fn probe_count(&self) -> u64 {
        let endless = self.args.duration.is_some();
        self.args.count.unwrap_or(if endless { u64::MAX } else { DEFAULT_COUNT })
    }

    /// Whether the probe has sent everything and nothing more is to be expected of it.
    fn probe_done(&mut self, probe: &ProbeHandle) -> bool {
        if probe.is_finished() {
            return true;
        }
        let progress = probe.progress();
        if progress.sent < self.probe_count() {
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

    /// Waits for packets that were under way when the trace was told to end. What sets out from now
    /// on would be seen only in part, and does not count.
    fn let_finish(&mut self, patience: Duration) {
        let closed_ns = monotonic_ns();
        self.observation.closed_ns = Some(closed_ns);
        let deadline = Instant::now() + patience;
        loop {
            self.take(Duration::from_millis(10));
            self.analysis.close(closed_ns);
            let settled = self.analysis.pending() == 0 && self.waiting.is_empty();
            if settled || Instant::now() >= deadline {
                return;
            }
        }
    }

    /// Takes batches for about `time`, and decodes them unless the traffic is heavy.
    fn take(&mut self, time: Duration) {
        let until = Instant::now() + time;
        let mut taken = 0;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.capture.batches().recv_timeout(left) {
                Ok(batch) => {
                    taken += batch.size();
                    self.last_event = Instant::now();
                    self.waiting_bytes += batch.size();
                    self.waiting.push(batch);
                }
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => {
                    // The reader has gone; do not spin.
                    std::thread::sleep(left);
                    break;
                }
            }
        }
        if taken < BUSY_BYTES || self.waiting_bytes > DEFER_BYTES {
            self.work_off();
        }
    }

    /// Decodes and correlates everything that waits.
    fn work_off(&mut self) {
        if self.waiting.is_empty() {
            // Tells the correlators that nothing is on its way.
            self.analysis.push(Vec::new());
        }
        for batch in std::mem::take(&mut self.waiting) {
            let events = self.decoder.decode(&batch);
            self.capture.release(&batch);
            self.waiting_bytes -= batch.size();
            self.analysis.push(events);
        }
    }

    /// Notes interfaces that are no longer there, once each.
    fn check_stations(&mut self) {
        let Some(flow) = self.flows.first() else { return };
        let mut gone = Vec::new();
        for (inum, netns) in self.namespaces {
            let stations: Vec<_> =
                flow.topology.stations.iter().filter(|s| s.netns_inum == *inum).collect();
            let there = netns.run(|| {
                stations
                    .iter()
                    .map(|s| nix::net::if_::if_nametoindex(s.name.as_str()).ok() == Some(s.ifindex))
                    .collect::<Vec<_>>()
            });
            if let Ok(there) = there {
                gone.extend(stations.iter().zip(there).filter(|(_, t)| !t).map(|(s, _)| s.label()));
            }
        }
        gone.retain(|label| !self.observation.vanished.contains(label));
        for label in gone {
            self.warn(&format!("interface {label} vanished during the trace"));
            self.observation.vanished.push(label);
        }
    }

    fn report(mut self) -> Result<Report> {
        self.observation.end_ns = monotonic_ns();
        let duration = self.begun.elapsed();
        let (rest, loss) = self.capture.stop();
        for batch in self.waiting.drain(..).chain(rest) {
            let events = self.decoder.decode(&batch);
            self.analysis.push(events);
        }
        let loss = Loss { undecodable: self.decoder.undecodable(), ..loss };
        let node = self.flows[0].topology.src.as_ref().map_or_else(String::new, |e| e.node.clone());
        self.observation.loss = vec![(node, loss)];
        let meta = diagnose::Meta {
            started: self.started.to_string(),
            duration_ns: u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            kernel: nix::sys::utsname::uname()
                .map_or_else(|_| String::new(), |u| u.release().to_string_lossy().into_owned()),
        };
        let finished = self.analysis.finish(&self.observation, &meta);
        let (main, _) = finished.context("there was nothing to trace")?;
        Ok(main.report)
    }
}

fn filter(args: &TraceArgs, flows: &[Flow]) -> Filter {
    let mut filter = Filter {
        proto: args.probe.or(args.proto).map(Proto::number),
        port: args.port,
        snaplen: args.snaplen,
        ..Filter::default()
    };
    for Flow { topology, family, addresses, .. } in flows {
        let ips = |end: &Option<crate::model::End>| {
            let ips = end.as_ref().map(|e| e.ips.clone()).unwrap_or_default();
            ips.into_iter().filter(|ip| Family::of(ip) == *family).collect::<Vec<_>>()
        };
        for a in ips(&topology.src) {
            for b in ips(&topology.dst) {
                filter.pairs.push((a, b));
            }
        }
        filter.addresses.extend(addresses);
        filter.vxlan_ports.extend(&topology.vxlan_ports);
    }
    filter.addresses.sort_unstable();
    filter.addresses.dedup();
    filter.vxlan_ports.sort_unstable();
    filter.vxlan_ports.dedup();
    filter
}

/// The progress line of a terminal.
struct Progress {
    on: bool,
    shown: Instant,
    drawn: bool,
}

impl Progress {
    fn new(args: &TraceArgs) -> Self {
        Self {
            on: !args.quiet && std::io::stderr().is_terminal(),
            shown: Instant::now(),
            drawn: false,
        }
    }

    fn show(&mut self, session: &Session<'_>, probe: Option<&ProbeHandle>) {
        if !self.on || self.shown.elapsed() < Duration::from_millis(200) {
            return;
        }
        self.shown = Instant::now();
        self.drawn = true;
        let forward = session.analysis.started(Direction::Forward);
        let arrived = session.analysis.delivered(Direction::Forward);
        let replies = session.analysis.delivered(Direction::Reply);
        let probe = probe.map_or_else(String::new, |p| format!("{} sent, ", p.progress().sent));
        eprint!(
            "\r\x1b[K{:.0}s  {probe}{forward} seen, {arrived} arrived, {replies} replies arrived  (Ctrl-C ends)",
            session.begun.elapsed().as_secs_f64()
        );
        // Nothing depends on it.
        let _ = std::io::stderr().flush();
    }

    fn clear(&mut self) {
        if self.drawn {
            eprint!("\r\x1b[K");
        }
    }
}
