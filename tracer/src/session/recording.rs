//! What a session hands to its recorder.

use std::io;
use std::sync::Arc;

use anyhow::{Context, Result};

use super::Session;
use crate::expect::Family;
use crate::facts::PathFacts;
use crate::kernel::{architecture, monotonic_ns, release};
use crate::model::{Loss, Observation, Topology};
use crate::record::{
    Clock, End, Facts, FamilyTopology, Header, Machine, Observed, Record, Recorder, SCHEMA, Stage,
    StageKind, Summary, Target, When,
};
use crate::report::Report;

/// The clock of events.
const CLOCK: &str = "CLOCK_MONOTONIC";

/// Records where the flow can pass, and the state before.
pub(super) fn begin(recorder: &mut Recorder, paths: &[(Family, Arc<Topology>)], before: PathFacts) {
    for (family, topology) in paths {
        let topology = topology.as_ref().clone();
        let record = FamilyTopology { family: *family, topology };
        recorder.record(Record::Topology(Box::new(record)));
    }
    let facts = Facts { when: When::Before, facts: before };
    recorder.record(Record::Facts(Box::new(facts)));
}

impl Session {
    /// Records the trace from its beginning. To be called before the first [`Session::step`];
    /// `command` is how podtrace was called.
    ///
    /// # Errors
    /// When there can be no writer.
    pub fn record_to(&mut self, target: Target, command: Vec<String>) -> Result<()> {
        let header = self.header(self.started, command);
        let mut recorder = Recorder::start(target, header).context("cannot record the trace")?;
        begin(&mut recorder, &self.paths, self.before.facts.clone());
        self.recorder = Some(recorder);
        self.record_observation();
        for trip in self.round_trips.clone() {
            self.record(|recorder| recorder.clock(&trip));
        }
        self.record(|recorder| recorder.flush());
        Ok(())
    }

    /// The first record of a recording that starts at a time.
    pub(super) fn header(&self, started: jiff::Timestamp, command: Vec<String>) -> Header {
        Header {
            schema: SCHEMA.to_owned(),
            tool: env!("CARGO_PKG_VERSION").to_owned(),
            started: started.to_string(),
            command,
            machines: self.machines(),
            part: 1,
            private: false,
        }
    }

    /// Machines by their number.
    fn machines(&self) -> Vec<Machine> {
        let wall = jiff::Timestamp::now().to_string();
        let here = Clock { name: CLOCK.to_owned(), at_ns: monotonic_ns(), wall };
        let (kernel, architecture) = (release(), architecture());
        let mut machines = vec![Machine { kernel, architecture, clock: here }];
        for source in &self.feeds.sources {
            let (number, said) = (usize::from(source.site.machine()), source.site.said());
            let Some(said) = said.filter(|_| number > 0) else { continue };
            if machines.len() <= number {
                machines.resize(number + 1, Machine::default());
            }
            let (at_ns, wall) = (said.clock_ns, said.wall.clone());
            machines[number] = Machine {
                kernel: said.kernel.clone(),
                architecture: said.architecture.clone(),
                clock: Clock { name: CLOCK.to_owned(), at_ns, wall },
            };
        }
        machines
    }

    /// Whether the recording goes nowhere any more.
    pub fn recording_failed(&self) -> bool {
        self.recorder.as_ref().is_some_and(Recorder::failed)
    }

    /// Tells the recorder, if there is one.
    pub(super) fn record(&mut self, tell: impl FnOnce(&mut Recorder)) {
        if let Some(recorder) = &mut self.recorder {
            tell(recorder);
        }
    }

    fn observed(&self, observation: &Observation) -> Observed {
        Observed { duration_ns: self.duration_ns, observation: observation.clone() }
    }

    /// Records what is known of the observation by now.
    pub(super) fn record_observation(&mut self) {
        if self.recorder.is_some() {
            let record = Record::Observation(Box::new(self.observed(&self.observation)));
            self.record(|recorder| recorder.record(record));
        }
    }

    /// Records that a stage is over.
    pub(super) fn record_stage(&mut self, kind: StageKind, mtu: Option<u32>) {
        if self.recorder.is_some() {
            let stage = Stage { kind, mtu, observed: self.observed(&self.observation) };
            self.record(|recorder| recorder.record(Record::Stage(Box::new(stage))));
        }
    }

    /// Records what the observation of the main stage has become.
    pub(super) fn record_amended(&mut self, observation: &Observation) {
        if self.recorder.is_some() {
            let record = Record::Amended(Box::new(self.observed(observation)));
            self.record(|recorder| recorder.record(record));
        }
    }

    /// Records the losses so far.
    pub(super) fn record_losses(&mut self) {
        if self.recorder.is_some() {
            let losses = self.feeds.sources.iter().map(|source| &source.loss);
            let loss = losses.fold(Loss::default(), |all, loss| all.plus(loss));
            self.record(|recorder| recorder.losses(&loss));
        }
    }

    /// Records what comes last, and waits until everything is written.
    pub(super) fn end_recording(
        &mut self,
        after: &PathFacts,
        report: &Report,
    ) -> Option<io::Result<Summary>> {
        let mut recorder = self.recorder.take()?;
        let facts = Facts { when: When::After, facts: after.clone() };
        recorder.record(Record::Facts(Box::new(facts)));
        let unrecorded = recorder.unrecorded();
        let verdict = Some(report.verdict.clone());
        recorder.record(Record::End(Box::new(End { unrecorded, verdict, continued: false })));
        Some(recorder.finish())
    }
}
