//! Looks at a trace that goes on: what a screen shows of it.
//!
//! A look is made by the thread that correlates, from a bounded number of the newest packets
//! ([`Analysis::snapshot`]); records that come meanwhile wait in the capture's queue. Network state is
//! read again on a thread of its own, and only while something fails.
//!
//! [`Analysis::snapshot`]: crate::analysis::Analysis::snapshot

use std::collections::VecDeque;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::Session;
use crate::analysis::State;
use crate::diagnose::Meta;
use crate::facts::{self, FactsError, PathFacts};
use crate::kernel::monotonic_ns;
use crate::model::ProbeResult;
use crate::probe::Proto;
use crate::report::{Report, Status};

/// How often network state is read again while something fails.
const READ_AGAIN: Duration = Duration::from_secs(3);

/// What came within this time, ns, is looked at; see [`crate::correlate::Scope`].
const WINDOW_NS: u64 = 10_000_000_000;

/// Without an event for this long, none is on its way from the kernel.
const QUIET: Duration = Duration::from_millis(50);

/// How long a packet of the probe may be without an answer before it counts, ns.
const ANSWER_NS: u64 = 1_000_000_000;

/// What is going on.
#[derive(Debug)]
pub struct Look {
    /// As of a trace of the last seconds.
    pub report: Report,
    /// Time that it covers.
    pub span: Duration,
}

/// What looks remember.
#[derive(Debug, Default)]
pub(super) struct Looks {
    /// Network state, once something failed.
    facts: Option<PathFacts>,
    reading: Option<JoinHandle<Result<PathFacts, FactsError>>>,
    asked: Option<Instant>,
    /// Something fails, or did when the state was last read.
    concerned: bool,
    /// Counters of the probe: when (ns), sent, answered.
    probed: VecDeque<(u64, u64, u64)>,
}

impl Session {
    /// What is going on now.
    ///
    /// # Errors
    /// When there is nothing to trace.
    pub fn look(&mut self) -> Result<Look> {
        self.read_again();
        let mut observation = self.observation.clone();
        observation.end_ns = self.known_until();
        observation.loss = self.losses();
        observation.unreachable = self.unreachable();
        observation.probe = self.probed(observation.end_ns);
        let (analyzed, span_ns) = self.analysis.snapshot(observation);
        let state = State { before: Some(&self.before.facts), after: self.looks.facts.as_ref() };
        let meta = Meta { duration_ns: span_ns, ..self.meta() };
        let report = analyzed.report(state, &meta).context("there was nothing to trace")?;
        let fine = matches!(report.verdict.status, Status::Delivered | Status::NoTraffic);
        self.looks.concerned |= !fine;
        Ok(Look { report, span: Duration::from_nanos(span_ns) })
    }

    /// Until when everything that was seen has been worked off, ns: under heavy traffic that is some
    /// time ago, and packets are not lost that were only not looked at yet.
    pub(super) fn known_until(&self) -> u64 {
        let quiet = self.waiting.is_empty() && self.last_event.elapsed() >= QUIET;
        match self.analysis.newest_ns() {
            newest if newest > 0 && !quiet => newest,
            _ => monotonic_ns(),
        }
    }

    /// Starts a probe, or stops the one that runs; false where there can be none.
    ///
    /// # Errors
    /// When the probe could not be sent.
    pub fn toggle_probe(&mut self) -> Result<bool> {
        self.looks.probed.clear();
        if let Some(probe) = self.probe.take() {
            // Noticed within milliseconds.
            probe.stop();
            let result = probe.join().context("the probe failed")?;
            self.add_probe(result);
            return Ok(true);
        }
        let proto = self.spec.probe.unwrap_or(Proto::Icmp);
        let seen = self.spec.protocol().is_none_or(|filtered| filtered == proto.number());
        if !seen || self.spec.count.is_some_and(|count| count < u64::MAX) {
            return Ok(false);
        }
        self.all_sent = None;
        self.start_probe_of(proto, u64::MAX)?;
        Ok(true)
    }

    /// Adds what a probe did to what those before it did.
    pub(super) fn add_probe(&mut self, result: ProbeResult) {
        self.observation.probe = Some(match self.observation.probe.take() {
            None => result,
            Some(mut all) => {
                all.sent += result.sent;
                all.answered += result.answered;
                all.refused += result.refused;
                all.rtt_ns.extend(result.rtt_ns);
                all.attempts.extend(result.attempts);
                all.attempts.truncate(ProbeResult::MAX_ATTEMPTS);
                for (error, count) in result.errors {
                    match all.errors.iter_mut().find(|(known, _)| *known == error) {
                        Some((_, n)) => *n += count,
                        None => all.errors.push((error, count)),
                    }
                }
                all
            }
        });
    }

    /// Takes network state that was read, and has it read again where that may tell more.
    fn read_again(&mut self) {
        let looks = &mut self.looks;
        if looks.reading.as_ref().is_some_and(JoinHandle::is_finished)
            && let Some(reading) = looks.reading.take()
            && let Ok(Ok(facts)) = reading.join()
        {
            looks.facts = Some(facts);
        }
        let due = looks.asked.is_none_or(|at| at.elapsed() >= READ_AGAIN);
        if !looks.concerned || !due || looks.reading.is_some() {
            return;
        }
        looks.asked = Some(Instant::now());
        looks.concerned = false;
        let before = self.before.clone();
        let read = move || facts::recollect(&before);
        // Without a thread, the looks do without.
        looks.reading = std::thread::Builder::new().name("facts".into()).spawn(read).ok();
    }

    /// What the probe has done that can have been answered by now.
    pub(super) fn probe_so_far(&self, now_ns: u64) -> Option<ProbeResult> {
        let before = self.observation.probe.clone();
        let Some(probe) = &self.probe else { return before };
        let old = |at: u64| now_ns.saturating_sub(at) >= ANSWER_NS;
        let sent = self.looks.probed.iter().rev().find(|(at, ..)| old(*at)).map_or(0, |s| s.1);
        let running = ProbeResult {
            proto: self.spec.probe.unwrap_or(Proto::Icmp).as_str().to_owned(),
            sent,
            answered: probe.progress().answered.min(sent),
            ..ProbeResult::default()
        };
        Some(match before {
            Some(before) => ProbeResult {
                sent: before.sent + running.sent,
                answered: before.answered + running.answered,
                ..before
            },
            None => running,
        })
    }

    /// What the probe did within the window.
    fn probed(&mut self, now_ns: u64) -> Option<ProbeResult> {
        let probe = self.probe.as_ref()?;
        let progress = probe.progress();
        let samples = &mut self.looks.probed;
        samples.push_back((now_ns, progress.sent, progress.answered));
        let old = |at: u64| now_ns.saturating_sub(at) > WINDOW_NS;
        while samples.get(1).is_some_and(|(at, ..)| old(*at)) {
            samples.pop_front();
        }
        let (_, sent_before, answered_before) =
            samples.front().copied().filter(|(at, ..)| old(*at)).unwrap_or_default();
        let due = samples.iter().rev().find(|(at, ..)| now_ns.saturating_sub(*at) >= ANSWER_NS);
        let sent = due.map_or(0, |(_, sent, _)| sent.saturating_sub(sent_before));
        Some(ProbeResult {
            proto: self.spec.probe.unwrap_or(Proto::Icmp).as_str().to_owned(),
            sent,
            answered: progress.answered.saturating_sub(answered_before).min(sent),
            ..ProbeResult::default()
        })
    }
}
