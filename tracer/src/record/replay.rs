//! From a recording to the report: the calls that the live trace made, in the same order.

use std::sync::Arc;

use super::format::{
    End, Facts, Header, Losses, Observed, Reached, Record, Stage, StageKind, When,
};
use super::reader::{Next, ReadError, Reader};
use super::{SCHEMA, limits};
use crate::analysis::{self, Analysis, Analyzed, Large, State};
use crate::decode::{Parser, RawEvent, Unread};
use crate::diagnose::Meta;
use crate::expect::Family;
use crate::facts::PathFacts;
use crate::model::{Event, Loss, Reading, Topology};
use crate::report::Report;

/// Unknown kinds of records that are told apart.
const UNKNOWN_KINDS: usize = 16;

/// What a recording holds.
#[derive(Debug)]
pub struct Replay {
    /// Its first record.
    pub header: Header,
    /// The report, as the live trace made it.
    pub report: Report,
    /// What was traced.
    pub main: Analyzed,
    /// The second look, where there was one.
    pub large: Option<Large>,
    /// State of the namespaces before.
    pub before: Option<PathFacts>,
    /// And after.
    pub after: Option<PathFacts>,
    /// Events recorded.
    pub events: u64,
    /// Its last record; `None` when it is cut off.
    pub end: Option<End>,
    /// What is to be said about the recording itself; part of the report's notes too.
    pub remarks: Vec<String>,
}

/// Collects what comes.
#[derive(Default)]
struct Player {
    header: Option<Header>,
    topologies: Vec<(Family, Arc<Topology>)>,
    before: Option<PathFacts>,
    after: Option<PathFacts>,
    observed: Observed,
    losses: Losses,
    notes: Vec<String>,
    unknown: Vec<String>,
    end: Option<End>,
    /// From the first event of a stage on.
    running: Option<(Analysis, Parser)>,
    /// For the next stage.
    next: Option<Analysis>,
    main: Option<Analyzed>,
    /// How long the main stage took.
    duration_ns: u64,
    large: Option<Large>,
    batch: Vec<Event>,
    /// Every event, where they are asked for.
    kept: Option<Vec<Event>>,
    events: u64,
    unread: Unread,
    first_ns: Option<u64>,
    last_ns: u64,
}

/// Reads a recording to its end.
///
/// # Errors
/// When it is not a recording, or a record is wrong. One that ends too early is no error: what is
/// there is replayed, and [`Replay::remarks`] and the report say so.
pub fn replay(reader: &mut Reader) -> Result<Replay, ReadError> {
    read(Player::default(), reader).map(|(replay, _)| replay)
}

/// The same, with every event that could be decoded, all with the time of machine 0.
///
/// # Errors
/// As [`replay`].
pub fn replay_with_events(reader: &mut Reader) -> Result<(Replay, Vec<Event>), ReadError> {
    read(Player { kept: Some(Vec::new()), ..Player::default() }, reader)
}

fn read(mut player: Player, reader: &mut Reader) -> Result<(Replay, Vec<Event>), ReadError> {
    let cut = loop {
        let number = reader.number() + 1;
        let record = match reader.read()? {
            Next::Record(record) => record,
            Next::Finished if player.end.is_some() => break None,
            Next::Finished => break Some("its last record is missing".to_owned()),
            Next::Cut(reason) => break Some(reason),
        };
        player.take(record).map_err(|wrong| wrong.at(number))?;
    };
    let number = reader.number();
    let mut events = player.kept.take().unwrap_or_default();
    let replay =
        player.finish(cut.map(|reason| (number, reason))).map_err(|wrong| wrong.at(number))?;
    for event in &mut events {
        event.time_ns = replay.main.clocks.machine_0_at(event.clock);
        event.clock = Reading { machine: 0, ns: event.time_ns };
    }
    Ok((replay, events))
}

/// What is wrong.
enum Wrong {
    /// The record.
    Record(String),
    /// The whole file.
    File(ReadError),
}

impl Wrong {
    fn at(self, number: u64) -> ReadError {
        match self {
            Wrong::Record(reason) => ReadError::Record { number, reason },
            Wrong::File(error) => error,
        }
    }

    fn foreign(why: impl Into<String>) -> Self {
        Wrong::File(ReadError::Foreign(why.into()))
    }
}

impl<T: Into<String>> From<T> for Wrong {
    fn from(reason: T) -> Self {
        Wrong::Record(reason.into())
    }
}

impl Player {
    fn take(&mut self, record: Record<'_>) -> Result<(), Wrong> {
        if self.header.is_none() && !matches!(record, Record::Header(_)) {
            return Err(Wrong::foreign("its first record is no header"));
        }
        if self.end.is_some() {
            return Err("a record follows the last one".into());
        }
        match record {
            Record::Header(header) => self.begin(*header)?,
            Record::Event(event) => {
                let raw = event.event()?;
                limits::event(&raw)?;
                self.running()?;
                self.see(raw);
                if self.batch.len() >= limits::BATCH {
                    self.hand_on()?;
                }
            }
            Record::Batch(_) => self.hand_on()?,
            Record::Idle(()) => {
                self.hand_on_rest()?;
                self.running()?.push(Vec::new());
            }
            Record::Reached(Reached { machine, until_ns }) => {
                limits::machine(machine)?;
                self.hand_on_rest()?;
                self.running()?.reached(machine, until_ns);
            }
            Record::Clock(trip) => {
                limits::machine(trip.reading.machine)?;
                self.running()?.round_trip(&trip);
            }
            Record::Closed(closed_ns) => {
                self.observed.observation.closed_ns = Some(closed_ns);
                self.running()?.close(closed_ns);
            }
            Record::Topology(record) => {
                if self.running.is_some() || self.main.is_some() {
                    return Err("a topology after the first event".into());
                }
                limits::topology(&record.topology)?;
                let known = || self.topologies.iter().filter(|(f, _)| *f == record.family);
                limits::legs(known().count())?;
                if known().any(|(_, t)| t.dst == record.topology.dst) {
                    return Err(
                        format!("a second topology for one end and {}", record.family).into()
                    );
                }
                // Several ends of one family: events name stations of all by the same numbers.
                if known().next().is_some_and(|(_, t)| t.stations != record.topology.stations) {
                    return Err(
                        format!("topologies of {} over other interfaces", record.family).into()
                    );
                }
                self.topologies.push((record.family, Arc::new(record.topology)));
            }
            Record::Facts(record) => {
                let Facts { when, facts } = *record;
                match when {
                    When::Before => self.before = Some(facts),
                    When::After => self.after = Some(facts),
                }
            }
            Record::Observation(observed) => self.observed = *observed,
            Record::Stage(stage) => self.stage(*stage)?,
            Record::Amended(observed) => match &mut self.main {
                Some(main) => main.observation = observed.observation,
                None => return Err("nothing to amend yet".into()),
            },
            Record::Loss(losses) => self.losses = losses,
            Record::Note(note) => {
                if self.notes.len() < limits::NOTES {
                    self.notes.push(note.chars().take(limits::NAME).collect());
                }
            }
            Record::Unknown(kind) => {
                if self.unknown.len() < UNKNOWN_KINDS && !self.unknown.contains(&kind) {
                    self.unknown.push(kind);
                }
            }
            Record::End(end) => self.end = Some(*end),
        }
        Ok(())
    }

    fn begin(&mut self, header: Header) -> Result<(), Wrong> {
        if self.header.is_some() {
            return Err("a second header".into());
        }
        if header.schema != SCHEMA {
            let found: String = header.schema.chars().take(80).collect();
            return Err(Wrong::File(if header.schema.starts_with("podtrace.trace/") {
                ReadError::Newer { found }
            } else {
                ReadError::Foreign(format!("its schema is {found:?}"))
            }));
        }
        limits::header(&header)?;
        self.header = Some(header);
        Ok(())
    }

    /// The analysis of the stage, begun if need be.
    fn running(&mut self) -> Result<&mut Analysis, Wrong> {
        let begun = match self.running.take() {
            Some(running) => running,
            None => {
                let Some((_, first)) = self.topologies.first() else {
                    return Err("events before any topology".into());
                };
                let parser = Parser::new(first);
                let topologies = self.topologies.iter().map(|(f, t)| (*f, Arc::clone(t)));
                let next = self.next.take();
                let mut analysis = next.unwrap_or_else(|| Analysis::new(topologies));
                analysis.arm(self.observed.observation.armed_ns);
                (analysis, parser)
            }
        };
        Ok(&mut self.running.insert(begun).0)
    }

    fn see(&mut self, raw: RawEvent<'_>) {
        self.events += 1;
        self.first_ns.get_or_insert(raw.time_ns);
        self.last_ns = self.last_ns.max(raw.time_ns);
        let Some((_, parser)) = &self.running else { return };
        if let Some(event) = parser.read(Some(raw), &mut self.unread) {
            if let Some(kept) = &mut self.kept {
                kept.push(event.clone());
            }
            self.batch.push(event);
        }
    }

    fn hand_on(&mut self) -> Result<(), Wrong> {
        let events = std::mem::take(&mut self.batch);
        self.running()?.push(events);
        Ok(())
    }

    /// Events behind the last batch record: of a batch that was cut short.
    fn hand_on_rest(&mut self) -> Result<(), Wrong> {
        if self.batch.is_empty() { Ok(()) } else { self.hand_on() }
    }

    fn stage(&mut self, stage: Stage) -> Result<(), Wrong> {
        self.hand_on_rest()?;
        self.running()?;
        let Some((analysis, _)) = self.running.take() else { return Ok(()) };
        self.next = Some(analysis.again());
        let Observed { duration_ns, observation } = stage.observed;
        match (stage.kind, stage.mtu) {
            (StageKind::Main, _) if self.main.is_none() => {
                self.main = Some(analysis.finish(observation));
                self.duration_ns = duration_ns;
            }
            (StageKind::Main, _) => return Err("a second main stage".into()),
            (StageKind::Large, Some(mtu)) => {
                self.large = Some(Large { mtu, analyzed: analysis.finish(observation) });
            }
            (StageKind::Large, None) => return Err("a stage of large packets without size".into()),
            (StageKind::Unknown, _) => self.unknown.push("a stage".to_owned()),
        }
        Ok(())
    }

    /// The main stage; what there is of it, when the recording is cut off.
    fn main(&mut self) -> Result<Analyzed, Wrong> {
        if let Some(main) = self.main.take() {
            return Ok(main);
        }
        self.hand_on_rest()?;
        self.running()?;
        self.duration_ns = self.last_ns.saturating_sub(self.first_ns.unwrap_or(self.last_ns));
        let mut observation = std::mem::take(&mut self.observed.observation);
        observation.end_ns = observation.end_ns.max(self.last_ns);
        observation.loss = vec![(self.first_node(), self.losses.capture.clone())];
        self.unread.add_to(&mut observation.loss);
        let Some((analysis, _)) = self.running.take() else {
            return Err(Wrong::foreign("it holds nothing"));
        };
        Ok(analysis.finish(observation))
    }

    fn finish(mut self, cut: Option<(u64, String)>) -> Result<Replay, Wrong> {
        if self.topologies.is_empty() {
            return Err(Wrong::foreign(match cut {
                Some((number, reason)) => format!("it ends before record {number}: {reason}"),
                None => "it has no topology".to_owned(),
            }));
        }
        let mut main = self.main()?;
        let mut remarks = std::mem::take(&mut self.notes);
        if let Some((number, reason)) = cut {
            remarks.push(format!(
                "the recording ends early, before record {number} ({reason}); what came then is \
                 unknown"
            ));
        }
        if let Some(part) = self.header.as_ref().map(|h| h.part).filter(|part| *part > 1) {
            remarks.push(format!(
                "this is file {part} of a recording: what was under way when it began does not count"
            ));
        }
        if self.end.as_ref().is_some_and(|end| end.continued) {
            remarks.push("the recording goes on in the next file".to_owned());
        }
        let unrecorded =
            self.end.as_ref().map_or(0, |end| end.unrecorded).max(self.losses.unrecorded);
        if unrecorded > 0 {
            let none = (self.first_node(), Loss::default());
            let losses = &mut main.observation.loss;
            if losses.is_empty() {
                losses.push(none);
            }
            losses[0].1.backlog = losses[0].1.backlog.saturating_add(unrecorded);
            remarks.push(format!("{unrecorded} events were seen but not recorded"));
        }
        if !self.unknown.is_empty() {
            remarks.push(format!(
                "the recording holds records that this version does not know: {}",
                self.unknown.join(", ")
            ));
        }
        let Some(header) = self.header else { return Err(Wrong::foreign("it has no header")) };
        let meta = Meta {
            started: header.started.clone(),
            duration_ns: self.duration_ns,
            version: header.tool.clone(),
            kernel: header.machines.first().map_or_else(String::new, |m| m.kernel.clone()),
        };
        let state = State { before: self.before.as_ref(), after: self.after.as_ref() };
        let report = analysis::conclude(&main, self.large.as_ref(), state, &meta);
        let mut report = report.ok_or_else(|| Wrong::foreign("it has no topology"))?;
        report.notes.extend(remarks.iter().cloned());
        Ok(Replay {
            header,
            report,
            main,
            large: self.large,
            before: self.before,
            after: self.after,
            events: self.events,
            end: self.end,
            remarks,
        })
    }

    fn first_node(&self) -> String {
        let src = self.topologies.first().and_then(|(_, t)| t.src.as_ref());
        src.map_or_else(String::new, |end| end.node.clone())
    }
}
