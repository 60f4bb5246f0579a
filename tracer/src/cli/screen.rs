//! `--tui`: a trace or a recording on the screen.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::record::Replay;
use crate::session::Session;
use crate::tui::replay::Playback;
use crate::tui::{Command, Look, Screen, Snapshot, Source, Totals};

/// Shortest time from one look to the next.
const LOOK: Duration = Duration::from_millis(250);
/// Longest time from one look to the next, whatever it costs.
const LONGEST: Duration = Duration::from_secs(2);
/// Looks take at most one part in this many of the time, so that events are worked off.
const SHARE: u32 = 12;
/// Notices that are kept.
const NOTICES: usize = 50;

/// Shows a trace until it is over or the user has seen enough. `stop` ends the trace.
///
/// # Errors
/// When the terminal cannot be drawn on.
pub fn watch(
    session: &mut Session,
    look: Look,
    stop: &AtomicBool,
    mut notices: Vec<String>,
) -> Result<()> {
    let screen = Screen::open(look, Source::Live).context("cannot draw on the terminal")?;
    let mut due = Instant::now();
    let mut warned = false;
    while session.step(Duration::from_millis(20)) {
        for command in screen.commands() {
            match command {
                // As Ctrl-C does.
                Command::Quit => stop.store(true, Relaxed),
                Command::Probe if !session.toggle_probe()? => {
                    let why = "no probe: only some protocols or packets are to be seen";
                    notices.push(why.to_owned());
                }
                _ => {}
            }
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
    screen.close().context("cannot draw on the terminal")
}

/// Plays a recording until the user has seen enough.
///
/// # Errors
/// When the terminal cannot be drawn on.
pub fn play(mut playback: Playback, look: Look) -> Result<Replay> {
    let stop = super::signals::stop_flag()?;
    let screen = Screen::open(look, Source::Replay).context("cannot draw on the terminal")?;
    let mut due = Instant::now();
    let mut moved = true;
    'playing: while !stop.load(Relaxed) {
        for command in screen.commands() {
            if !playback.obey(command) {
                break 'playing;
            }
            (moved, due) = (true, Instant::now());
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
    Ok(playback.into_replay())
}
