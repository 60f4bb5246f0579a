//! The terminal, and the thread that draws on it.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use ratatui::DefaultTerminal;
use ratatui::crossterm::event;

use super::state::State;
use super::{Command, Look, Snapshot, Source, input, view};

/// Longest time between two looks at keys and snapshots: at most this often is drawn.
const FRAME: Duration = Duration::from_millis(40);

/// What both threads share.
#[derive(Debug, Default)]
struct Shared {
    /// The newest snapshot, until it is drawn.
    newest: Mutex<Option<Snapshot>>,
    ended: AtomicBool,
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
        let draw = move || {
            let result = run(terminal, State::new(look, source), &theirs, &send);
            // Nobody could end a trace without a screen.
            let _ = send.send(Command::Quit);
            result
        };
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
        *self.shared.newest.lock().unwrap_or_else(PoisonError::into_inner) = Some(snapshot);
    }

    /// What the user has asked for since.
    pub fn commands(&self) -> impl Iterator<Item = Command> {
        self.commands.try_iter()
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
    while !shared.ended.load(Relaxed) {
        let newest = shared.newest.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(snapshot) = newest {
            state.apply(snapshot);
            changed |= !state.is_frozen();
        }
        if std::mem::take(&mut changed) {
            terminal.draw(|frame| view::draw(frame, &mut state))?;
        }
        if event::poll(FRAME)? {
            changed = true;
            // Gone means that the end has come.
            if let Some(command) = input::handle(&mut state, &event::read()?) {
                let _ = commands.send(command);
            }
        }
    }
    Ok(())
}
