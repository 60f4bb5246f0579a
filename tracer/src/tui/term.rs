//! The terminal, and the thread that draws on it.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ratatui::DefaultTerminal;
use ratatui::crossterm::event;

use super::state::State;
use super::{Captured, Command, Look, Snapshot, Source, input, view};

/// Shortest time from one picture to the next, however many keys and snapshots come; longest time
/// between two looks at them.
const FRAME: Duration = Duration::from_millis(40);

/// What both threads share.
#[derive(Debug, Default)]
struct Shared {
    /// The newest snapshot, until it is drawn.
    newest: Mutex<Option<Snapshot>>,
    /// Answers to what the user asked for.
    answers: Mutex<Vec<Answer>>,
    ended: AtomicBool,
}

#[derive(Debug)]
enum Answer {
    Told(String),
    Bytes(Captured),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Values are only put in and taken out, whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The screen. Dropping it gives the terminal back.
#[derive(Debug)]
pub struct Screen {
    shared: Arc<Shared>,
    commands: Receiver<Command>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Screen {
    /// Takes the terminal.
    ///
    /// # Errors
    /// When standard output is no terminal that can be drawn on.
    pub fn open(look: Look, source: Source) -> io::Result<Self> {
        // Restores the terminal before a panic is told.
        let terminal = ratatui::try_init()?;
        let shared = Arc::<Shared>::default();
        let (send, commands) = mpsc::channel();
        let theirs = Arc::clone(&shared);
        let draw = move || run(terminal, State::new(look, source), &theirs, &send);
        let thread = std::thread::Builder::new().name("screen".into()).spawn(draw);
        match thread {
            Ok(thread) => Ok(Self { shared, commands, thread: Some(thread) }),
            Err(error) => {
                ratatui::restore();
                Err(error)
            }
        }
    }

    /// Hands over what is to be shown now.
    pub fn publish(&self, snapshot: Snapshot) {
        *lock(&self.shared.newest) = Some(snapshot);
    }

    /// Tells the user something, in one line, until the next key.
    pub fn tell(&self, text: String) {
        lock(&self.shared.answers).push(Answer::Told(text));
    }

    /// Answers [`Command::Bytes`].
    pub fn show_bytes(&self, captured: Captured) {
        lock(&self.shared.answers).push(Answer::Bytes(captured));
    }

    /// What the user has asked for since. Without a screen nobody could end what is watched: then it
    /// is the end.
    pub fn commands(&self) -> Vec<Command> {
        let gone = self.thread.as_ref().is_none_or(JoinHandle::is_finished);
        self.commands.try_iter().chain(gone.then_some(Command::Quit)).collect()
    }

    /// Gives the terminal back.
    ///
    /// # Errors
    /// When it could not be drawn on.
    pub fn close(mut self) -> io::Result<()> {
        self.end()
    }

    fn end(&mut self) -> io::Result<()> {
        self.shared.ended.store(true, Relaxed);
        let Some(thread) = self.thread.take() else { return Ok(()) };
        let result = thread.join();
        ratatui::restore();
        result.unwrap_or_else(|_| Err(io::Error::other("the screen's thread panicked")))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Whatever ends the trace is told instead.
        let _ = self.end();
    }
}

fn run(
    mut terminal: DefaultTerminal,
    mut state: State,
    shared: &Shared,
    commands: &Sender<Command>,
) -> io::Result<()> {
    let mut changed = true;
    let mut drawn: Option<Instant> = None;
    while !shared.ended.load(Relaxed) {
        let newest = lock(&shared.newest).take();
        if let Some(snapshot) = newest {
            state.apply(snapshot);
            changed |= !state.is_frozen();
        }
        for answer in std::mem::take(&mut *lock(&shared.answers)) {
            changed = true;
            match answer {
                Answer::Told(text) => state.message = Some(text),
                Answer::Bytes(captured) => state.captured = Some(captured),
            }
        }
        let mut wait = FRAME;
        if changed {
            let left = drawn.map_or(Duration::ZERO, |at| FRAME.saturating_sub(at.elapsed()));
            if left.is_zero() {
                terminal.draw(|frame| view::draw(frame, &mut state))?;
                drawn = Some(Instant::now());
                changed = false;
            } else {
                wait = left;
            }
        }
        if event::poll(wait)? {
            changed = true;
            // Gone means that the end has come.
            if let Some(command) = input::handle(&mut state, &event::read()?) {
                let _ = commands.send(command);
            }
        }
    }
    Ok(())
}
