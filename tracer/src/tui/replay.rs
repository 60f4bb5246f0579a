//! A recording that is played: the same events, in their time, with the same looks at them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Command, Player, Snapshot, Totals};
use crate::analysis::{Analysis, State};
use crate::diagnose::Meta;
use crate::expect::Family;
use crate::model::{Direction, Event, Observation, Topology};
use crate::record::{self, ReadError, Reader, Replay};
use crate::report::Report;

/// Slowest and fastest.
const SPEEDS: (f64, f64) = (1.0 / 64.0, 64.0);

/// A recording, and where it is played.
#[derive(Debug)]
pub struct Playback {
    replay: Replay,
    report: Arc<Report>,
    topologies: Vec<(Family, Arc<Topology>)>,
    /// Of the main stage, in order of time.
    events: Vec<Event>,
    analysis: Analysis,
    /// First event not yet seen.
    next: usize,
    /// Kernel time: beginning, now, end, ns.
    start_ns: u64,
    at_ns: u64,
    end_ns: u64,
    speed: f64,
    playing: bool,
    moved: Instant,
}

impl Playback {
    /// Reads a recording whole, and stands at its beginning, playing.
    ///
    /// # Errors
    /// As [`record::replay`].
    pub fn open(reader: &mut Reader) -> Result<Self, ReadError> {
        let (replay, mut events) = record::replay_with_events(reader)?;
        let observation = &replay.main.observation;
        let end_ns = observation.end_ns;
        // A second look is behind the end; its result is in the report.
        events.retain(|event| event.time_ns <= end_ns);
        events.sort_by_key(|event| event.time_ns);
        let first = events.first().map_or(end_ns, |event| event.time_ns);
        let start_ns = if observation.armed_ns == 0 { first } else { observation.armed_ns };
        let topologies: Vec<_> =
            replay.main.traces.iter().map(|(f, t, _)| (*f, Arc::clone(t))).collect();
        Ok(Self {
            report: Arc::new(replay.report.clone()),
            analysis: begin(&topologies, &replay),
            replay,
            topologies,
            events,
            next: 0,
            start_ns,
            at_ns: start_ns,
            end_ns: end_ns.max(start_ns),
            speed: 1.0,
            playing: true,
            moved: Instant::now(),
        })
    }

    /// The report of the whole.
    pub fn into_replay(self) -> Replay {
        self.replay
    }

    /// Where the flow can pass.
    pub fn topology(&self) -> Arc<Topology> {
        self.topologies.first().map(|(_, topology)| Arc::clone(topology)).unwrap_or_default()
    }

    /// Does what the user asks for; false for the end.
    pub fn obey(&mut self, command: &Command) -> bool {
        let part = (self.end_ns - self.start_ns) / 20;
        match *command {
            Command::Quit => return false,
            // Nothing can be sent into the past; files and bytes are the caller's.
            Command::Probe | Command::Save(_) | Command::Bytes(_) => {}
            Command::Play => {
                if !self.playing && self.at_ns >= self.end_ns {
                    self.go(self.start_ns);
                }
                self.playing = !self.playing;
            }
            Command::Faster(true) => self.speed = (self.speed * 2.0).min(SPEEDS.1),
            Command::Faster(false) => self.speed = (self.speed / 2.0).max(SPEEDS.0),
            Command::Step(true) => {
                self.playing = false;
                let next = self.events.get(self.next).map_or(self.end_ns, |e| e.time_ns);
                self.go(next);
            }
            Command::Step(false) => {
                self.playing = false;
                let last = self.next.checked_sub(1).and_then(|i| self.events.get(i));
                let to = last.map_or(self.start_ns, |e| e.time_ns.saturating_sub(1));
                self.go(to.max(self.start_ns));
            }
            Command::Scrub(true) => self.go(self.at_ns + part),
            Command::Scrub(false) => self.go(self.at_ns.saturating_sub(part)),
            Command::Jump(true) => self.go(self.end_ns),
            Command::Jump(false) => self.go(self.start_ns),
        }
        true
    }

    /// Lets the time pass that has passed since the last call; whether anything has moved.
    pub fn advance(&mut self) -> bool {
        let passed = self.moved.elapsed();
        self.moved = Instant::now();
        if !self.playing {
            return false;
        }
        let passed = passed.mul_f64(self.speed);
        self.go(self.at_ns + u64::try_from(passed.as_nanos()).unwrap_or(u64::MAX / 2));
        self.playing = self.at_ns < self.end_ns;
        true
    }

    /// Moves to a time; what lies before the present one is told anew from the beginning.
    fn go(&mut self, to_ns: u64) {
        let to_ns = to_ns.clamp(self.start_ns, self.end_ns);
        if to_ns < self.at_ns {
            self.analysis = begin(&self.topologies, &self.replay);
            self.next = 0;
        }
        self.at_ns = to_ns;
        let until = self.events.partition_point(|event| event.time_ns <= to_ns);
        if until > self.next {
            self.analysis.push(self.events[self.next..until].to_vec());
            self.next = until;
        }
        self.analysis.flush();
    }

    /// What is to be shown now. At the end it is the report itself.
    pub fn snapshot(&self) -> Snapshot {
        let whole = Duration::from_nanos(self.end_ns - self.start_ns);
        let (report, span) = if self.at_ns >= self.end_ns {
            (Arc::clone(&self.report), whole)
        } else {
            self.look().unwrap_or_else(|| (Arc::clone(&self.report), whole))
        };
        Snapshot {
            report,
            span,
            elapsed: Duration::from_nanos(self.at_ns - self.start_ns),
            totals: Totals {
                sent: None,
                seen: self.analysis.started(Direction::Forward),
                arrived: self.analysis.delivered(Direction::Forward),
                replied: self.analysis.delivered(Direction::Reply),
            },
            player: Some(Player { length: whole, speed: self.speed, playing: self.playing }),
            notices: self.replay.remarks.clone(),
        }
    }

    fn look(&self) -> Option<(Arc<Report>, Duration)> {
        let observation = Observation {
            end_ns: self.at_ns,
            closed_ns: None,
            probe: None,
            node_ping: None,
            ..self.replay.main.observation.clone()
        };
        let (analyzed, span_ns) = self.analysis.snapshot(observation);
        let meta = Meta {
            started: self.report.started.clone(),
            duration_ns: span_ns,
            version: self.report.tool.version.clone(),
            kernel: self.report.tool.kernel.clone(),
        };
        let state =
            State { before: self.replay.before.as_ref(), after: self.replay.after.as_ref() };
        let report = analyzed.report(state, &meta)?;
        Some((Arc::new(report), Duration::from_nanos(span_ns)))
    }
}

fn begin(topologies: &[(Family, Arc<Topology>)], replay: &Replay) -> Analysis {
    let topologies = topologies.iter().map(|(f, t)| (*f, Arc::clone(t)));
    let mut analysis = Analysis::with_clocks(topologies, &replay.main.clocks);
    analysis.arm(replay.main.observation.armed_ns);
    analysis
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn reader(name: &str) -> Reader {
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
        Reader::open(&data.join(name)).unwrap()
    }

    #[test]
    fn the_end_is_the_report_of_the_whole() {
        for name in ["healthy.podtrace", "forward-drop.podtrace", "wire-loss.podtrace"] {
            let mut playback = Playback::open(&mut reader(name)).unwrap();
            assert!(playback.obey(&Command::Jump(true)));
            let report = record::replay(&mut reader(name)).unwrap().report;
            assert_eq!(*playback.snapshot().report, report, "{name}");
            let player = playback.snapshot().player.unwrap();
            assert_eq!(playback.snapshot().elapsed, player.length);
        }
    }

    #[test]
    fn steps_lead_forward_and_back() {
        let mut playback = Playback::open(&mut reader("forward-drop.podtrace")).unwrap();
        let mut journeys = vec![playback.snapshot().report.journeys.clone()];
        for _ in 0..6 {
            assert!(playback.obey(&Command::Step(true)));
            journeys.push(playback.snapshot().report.journeys.clone());
        }
        assert!(journeys[0].is_empty());
        assert!(journeys.windows(2).any(|pair| pair[0] != pair[1]));
        for before in journeys.iter().rev().skip(1) {
            assert!(playback.obey(&Command::Step(false)));
            assert_eq!(playback.snapshot().report.journeys, *before);
        }
        assert!(!playback.snapshot().player.unwrap().playing);
    }

    /// Between them the clocks are hours apart, and one of them is not that of the recording machine.
    #[test]
    fn packets_of_several_machines_come_as_time_goes_on() {
        for apart in [false, true] {
            let file = std::io::Cursor::new(record::testing::two_machines(apart));
            let mut playback = Playback::open(&mut Reader::new(Box::new(file)).unwrap()).unwrap();
            let mut arrived = vec![0];
            while playback.snapshot().elapsed < playback.snapshot().player.unwrap().length {
                assert!(playback.obey(&Command::Step(true)));
                let before_the_end = playback.at_ns < playback.end_ns;
                let snapshot = playback.snapshot();
                if before_the_end && *arrived.last().unwrap() < snapshot.totals.arrived {
                    arrived.push(snapshot.totals.arrived);
                    let whole = |j: &&crate::report::JourneyReport| j.hops.len() == 10;
                    let seen = snapshot.report.journeys.iter().filter(whole).count() as u64;
                    assert!(seen >= snapshot.totals.arrived, "{apart}");
                }
            }
            assert_eq!(arrived, [0, 1, 2, 3, 4], "{apart}");
        }
    }

    #[test]
    fn time_stands_while_paused_and_speed_has_bounds() {
        let mut playback = Playback::open(&mut reader("healthy.podtrace")).unwrap();
        playback.obey(&Command::Play);
        assert!(!playback.advance());
        assert_eq!(playback.snapshot().elapsed, Duration::ZERO);
        for _ in 0..20 {
            playback.obey(&Command::Faster(true));
        }
        assert_eq!(playback.snapshot().player.unwrap().speed, SPEEDS.1);
        assert!(!playback.obey(&Command::Quit));
    }
}
