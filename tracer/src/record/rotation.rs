//! A recording in several files, each of which can be replayed by itself.
//!
//! When a file has reached its size it is brought to an end, as if the trace had ended there, and
//! the next one begins with what the first began with. A packet that was under way is in both, in
//! part: the first takes it for being under way still if it had just set out, the second leaves it
//! out.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::format::{End, Header, Losses, Observed, Record, Stage, StageKind, When};
use super::writer::RecordWriter;
use crate::model::{Loss, Observation};

/// Opens the file with this number, from 1.
type Open = Box<dyn FnMut(u32) -> io::Result<Box<dyn Write + Send>> + Send>;

/// When to begin another file, and where.
pub(super) struct Rotation {
    /// Compressed bytes after which a file is full.
    pub limit: u64,
    pub open: Open,
}

impl Rotation {
    /// `trace.podtrace` becomes `trace-0001.podtrace` and so on; with `keep`, only so many files, the
    /// newest, stay.
    pub fn of_files(path: &Path, limit: u64, keep: Option<u32>) -> Self {
        let path = path.to_owned();
        let open = move |part: u32| -> io::Result<Box<dyn Write + Send>> {
            let file = File::create(part_path(&path, part))?;
            if let Some(old) = keep.and_then(|keep| part.checked_sub(keep)).filter(|old| *old > 0) {
                // Whoever has taken it away already did what was to be done.
                let _ = fs::remove_file(part_path(&path, old));
            }
            Ok(Box::new(file))
        };
        Self { limit, open: Box::new(open) }
    }
}

/// The name of a part of a recording.
pub(super) fn part_path(path: &Path, part: u32) -> PathBuf {
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push(format!("-{part:04}"));
    if let Some(extension) = path.extension() {
        name.push(".");
        name.push(extension);
    }
    path.with_file_name(name)
}

/// What the files of a recording have in common, and where the present one begins.
pub(super) struct Parts {
    rotation: Rotation,
    header: Option<Header>,
    /// What every file begins with, behind the header.
    head: Vec<Record<'static>>,
    /// The observation before the first event.
    observation: Observation,
    /// Name of the node in whose name losses are told.
    node: String,
    part: u32,
    /// Bytes of the present file before its first event, where it is not the first.
    head_bytes: u64,
    /// When the present file begins, ns, where it is not the first.
    armed_ns: Option<u64>,
    /// Time of the latest event, ns.
    last_ns: u64,
    /// There are events in the present file.
    filled: bool,
    /// Losses so far, and those that the files before have told.
    losses: Losses,
    told: Losses,
    /// Packets still come: what is behind them is not worth a file.
    open: bool,
}

impl Parts {
    pub fn new(rotation: Rotation) -> Self {
        Self {
            rotation,
            header: None,
            head: Vec::new(),
            observation: Observation::default(),
            node: String::new(),
            part: 1,
            head_bytes: 0,
            armed_ns: None,
            last_ns: 0,
            filled: false,
            losses: Losses::default(),
            told: Losses::default(),
            open: true,
        }
    }

    /// An event has come, at this time, ns.
    pub fn saw(&mut self, time_ns: u64) {
        self.last_ns = self.last_ns.max(time_ns);
        self.filled = true;
    }

    /// Takes note of a record, and makes it one about the present file.
    pub fn adapt(&mut self, mut record: Record<'static>) -> Record<'static> {
        match &mut record {
            Record::Header(header) => {
                self.header = Some(header.as_ref().clone());
                // Events of several machines have no border in common.
                self.open &= header.machines.len() < 2;
            }
            Record::Topology(topology) => {
                if let (true, Some(src)) = (self.node.is_empty(), &topology.topology.src) {
                    self.node.clone_from(&src.node);
                }
                self.head.push(Record::Topology(topology.clone()));
            }
            Record::Facts(facts) if facts.when == When::Before => {
                self.head.push(Record::Facts(facts.clone()));
            }
            Record::Observation(observed) if self.open => {
                self.observation = observed.observation.clone();
            }
            Record::Closed(_) => self.open = false,
            Record::Loss(losses) => {
                self.losses = losses.clone();
                *losses = since(losses, &self.told);
            }
            Record::Stage(stage) if stage.kind == StageKind::Main => {
                self.own(&mut stage.observed);
            }
            Record::Amended(observed) => self.own(observed),
            Record::End(end) => {
                end.unrecorded = end.unrecorded.saturating_sub(self.told.unrecorded);
            }
            _ => {}
        }
        record
    }

    /// Makes what is told of the whole trace something about the last file.
    fn own(&self, observed: &mut Observed) {
        let Some(armed_ns) = self.armed_ns else { return };
        let Observed { duration_ns, observation } = observed;
        let before = armed_ns.saturating_sub(observation.armed_ns);
        *duration_ns = duration_ns.saturating_sub(before);
        observation.armed_ns = armed_ns;
        // It counts all that was sent, most of it in other files.
        observation.probe = None;
        if let Some((_, loss)) = observation.loss.first_mut() {
            *loss = less(loss, &self.told.capture);
        }
    }

    /// Begins another file if the present one is full.
    pub fn rotate(&mut self, writer: &mut RecordWriter) -> io::Result<()> {
        let limit = self.rotation.limit;
        let bytes = writer.file_bytes();
        // Where the network state alone takes that much, files are larger than asked for.
        let full = bytes >= limit && bytes.saturating_sub(self.head_bytes) >= limit / 2;
        if !self.open || !self.filled || !full {
            return Ok(());
        }
        let Some(header) = self.header.clone() else { return Ok(()) };
        let lost = since(&self.losses, &self.told);
        let unrecorded = lost.unrecorded;
        let armed_ns = self.armed_ns.unwrap_or(self.observation.armed_ns);
        let observation = Observation {
            armed_ns,
            end_ns: self.last_ns,
            loss: vec![(self.node.clone(), lost.capture.clone())],
            ..self.observation.clone()
        };
        let observed = Observed { duration_ns: self.last_ns.saturating_sub(armed_ns), observation };
        writer.record(&Record::Loss(lost))?;
        let stage = Stage { kind: StageKind::Main, mtu: None, observed };
        writer.record(&Record::Stage(Box::new(stage)))?;
        writer.record(&Record::End(Box::new(End {
            unrecorded,
            verdict: None,
            continued: true,
        })))?;
        writer.frame()?;

        self.part += 1;
        self.filled = false;
        writer.go_on_in((self.rotation.open)(self.part)?);
        self.told = self.losses.clone();
        // Whatever set out until now is in the file before, at least in part.
        let armed_ns = self.last_ns.saturating_add(1);
        self.armed_ns = Some(armed_ns);
        writer.record(&Record::Header(Box::new(Header { part: self.part, ..header })))?;
        for record in &self.head {
            writer.record(record)?;
        }
        let observation = Observation { armed_ns, ..self.observation.clone() };
        let observed = Observed { duration_ns: 0, observation };
        writer.record(&Record::Observation(Box::new(observed)))?;
        writer.frame()?;
        self.head_bytes = writer.file_bytes();
        Ok(())
    }
}

/// What was lost since.
fn since(now: &Losses, before: &Losses) -> Losses {
    Losses {
        capture: less(&now.capture, &before.capture),
        unrecorded: now.unrecorded.saturating_sub(before.unrecorded),
    }
}

fn less(now: &Loss, before: &Loss) -> Loss {
    Loss {
        ring_hop: now.ring_hop.saturating_sub(before.ring_hop),
        ring_drop: now.ring_drop.saturating_sub(before.ring_drop),
        backlog: now.backlog.saturating_sub(before.backlog),
        undecodable: now.undecodable.saturating_sub(before.undecodable),
        over_rate: now.over_rate.saturating_sub(before.over_rate),
        late: now.late.saturating_sub(before.late),
        stray: now.stray.saturating_sub(before.stray),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_numbered_before_the_extension() {
        let name = |path: &str, part| part_path(Path::new(path), part).display().to_string();
        assert_eq!(name("/x/a.b.podtrace", 2), "/x/a.b-0002.podtrace");
        assert_eq!(name("trace", 12_345), "trace-12345");
    }

    #[test]
    fn the_newest_files_stay() {
        let dir = tempfile::tempdir().unwrap();
        let mut rotation = Rotation::of_files(&dir.path().join("x.podtrace"), 1, Some(2));
        for part in 1..=5 {
            (rotation.open)(part).unwrap();
        }
        let mut left: Vec<_> =
            fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["x-0004.podtrace", "x-0005.podtrace"]);
    }
}
