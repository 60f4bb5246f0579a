//! `--tui`: a trace or a recording on the screen.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::export::Source as Recording;
use super::save::Files;
use crate::model::Topology;
use crate::record::{self, Replay};
use crate::session::Session;
use crate::tui::replay::Playback;
use crate::tui::{Captured, Collector, Command, Look, Screen, Snapshot, Source, Totals, Wanted};

/// Shortest time from one look to the next.
const LOOK: Duration = Duration::from_millis(250);
/// Longest time from one look to the next, whatever it costs.
const LONGEST: Duration = Duration::from_secs(2);
/// Looks take at most one part in this many of the time, so that events are worked off.
const SHARE: u32 = 12;
/// Notices that are kept.
const NOTICES: usize = 50;

/// Shows a trace until it is over or the user has seen enough; returns what there is to say of the
/// files that were written. `stop` ends the trace.
///
/// # Errors
/// When the terminal cannot be drawn on.
pub fn watch(
    session: &mut Session,
    look: Look,
    stop: &AtomicBool,
    mut notices: Vec<String>,
    mut files: Files,
) -> Result<Vec<String>> {
    let screen = Screen::open(look, Source::Live).context("cannot draw on the terminal")?;
    if let Some(note) = notices.last() {
        screen.tell(note.clone());
    }
    let mut due = Instant::now();
    let mut warned = false;
    while session.step(Duration::from_millis(20)) {
        for command in screen.commands() {
            match command {
                // As Ctrl-C does.
                Command::Quit => stop.store(true, Relaxed),
                Command::Probe if !session.toggle_probe()? => {
                    screen.tell("no probe: only some protocols or packets are to be seen".into());
                }
                Command::Save(kind) => {
                    let excerpt = session.excerpt(command_line());
                    screen.tell(files.begin(kind, move || {
                        let (recording, target) = Recording::temporary()?;
                        excerpt.write(target).context("cannot keep what was seen")?;
                        Ok(recording)
                    }));
                }
                Command::Bytes(wanted) => screen.show_bytes(kept_bytes(session, &wanted)),
                _ => {}
            }
        }
        if let Some(said) = files.news() {
            screen.tell(said);
        }
        notices.extend(session.notices());
        if session.recording_failed() && !std::mem::replace(&mut warned, true) {
            notices.push("the recording cannot be written any more; the trace goes on".to_owned());
        }
        notices.drain(..notices.len().saturating_sub(NOTICES));
        if Instant::now() < due {
            continue;
        }
        let begun = Instant::now();
        let progress = session.progress();
        let seen = session.look()?;
        screen.publish(Snapshot {
            report: Arc::new(seen.report),
            span: seen.span,
            elapsed: progress.elapsed,
            totals: Totals {
                sent: progress.sent,
                seen: progress.seen,
                arrived: progress.arrived,
                replied: progress.replied,
            },
            player: None,
            notices: notices.clone(),
        });
        due = begun + (begun.elapsed() * SHARE).clamp(LOOK, LONGEST);
    }
    screen.close().context("cannot draw on the terminal")?;
    Ok(files.finish())
}

/// How podtrace was called.
pub fn command_line() -> Vec<String> {
    std::env::args_os().map(|argument| argument.to_string_lossy().into_owned()).collect()
}

fn kept_bytes(session: &Session, wanted: &Wanted) -> Captured {
    let mut collector = Collector::new(session.topology(), wanted);
    session.records_of(&collector.times(), |raw| collector.see(&raw));
    collector.finish()
}

/// The bytes of a packet of a recording.
fn recorded_bytes(recording: &Recording, topology: &Topology, wanted: &Wanted) -> Result<Captured> {
    let mut collector = Collector::new(topology, wanted);
    let times = collector.times();
    record::scan(&mut recording.reader()?, |raw| -> Result<()> {
        if times.contains(&raw.reading()) {
            collector.see(&raw);
        }
        Ok(())
    })?;
    Ok(collector.finish())
}

/// Plays a recording until the user has seen enough; also returns what there is to say of the files
/// that were written.
///
/// # Errors
/// When the recording cannot be read, or the terminal not drawn on.
pub fn play(recording: &Recording, look: Look) -> Result<(Replay, Vec<String>)> {
    let mut playback = Playback::open(&mut recording.reader()?)?;
    let mut files = Files::new(false);
    let stop = super::signals::stop_flag()?;
    let screen = Screen::open(look, Source::Replay).context("cannot draw on the terminal")?;
    let mut looking: Option<JoinHandle<Result<Captured>>> = None;
    let mut due = Instant::now();
    let mut moved = true;
    'playing: while !stop.load(Relaxed) {
        for command in screen.commands() {
            match command {
                Command::Save(kind) => {
                    let recording = recording.share()?;
                    screen.tell(files.begin(kind, move || Ok(recording)));
                }
                Command::Bytes(wanted) => {
                    let recording = recording.share()?;
                    let topology = playback.topology();
                    // A recording may be long. One that is not waited for any more ends by itself.
                    looking = Some(std::thread::spawn(move || {
                        recorded_bytes(&recording, &topology, &wanted)
                    }));
                }
                command if !playback.obey(&command) => break 'playing,
                _ => (moved, due) = (true, Instant::now()),
            }
        }
        if let Some(thread) = looking.take_if(|thread| thread.is_finished())
            && let Ok(Ok(captured)) = thread.join()
        {
            screen.show_bytes(captured);
        }
        if let Some(said) = files.news() {
            screen.tell(said);
        }
        moved |= playback.advance();
        if moved && Instant::now() >= due {
            let begun = Instant::now();
            screen.publish(playback.snapshot());
            due = begun + Duration::from_millis(100).max(begun.elapsed() * 2);
            moved = false;
        }
        // Commands come between two pictures.
        std::thread::sleep(Duration::from_millis(20));
    }
    screen.close().context("cannot draw on the terminal")?;
    Ok((playback.into_replay(), files.finish()))
}
