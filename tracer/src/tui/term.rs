//! The terminal, and the thread that draws on it.

use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::panic;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use ratatui::DefaultTerminal;
use ratatui::crossterm::{event, style};

use super::state::State;
use super::{Captured, Command, Look, Snapshot, Source, input, view};

/// Shortest time from one picture to the next, however many keys and snapshots come; longest time
/// between two looks at them.
const FRAME: Duration = Duration::from_millis(40);

/// How long the thread that draws may take to end.
const PATIENCE: Duration = Duration::from_secs(2);

/// The thread that draws.
const THREAD: &str = "screen";

/// What both threads share.
#[derive(Debug, Default)]
struct Shared {
    /// The newest snapshot, until it is drawn.
    newest: Mutex<Option<Snapshot>>,
    /// Answers to what the user asked for.
    answers: Mutex<Vec<Answer>>,
    /// Held while something is drawn.
    drawing: Mutex<()>,
    /// Something has panicked, and the terminal was given back before that was told.
    panicked: AtomicBool,
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
        // The user may have asked for colour in spite of NO_COLOR.
        style::force_color_output(look.color);
        // Restores the terminal before a panic is told.
        let terminal = ratatui::try_init()?;
        let shared = Arc::<Shared>::default();
        end_with_panic(&shared);
        let (send, commands) = mpsc::channel();
        let theirs = Arc::clone(&shared);
        let draw = move || run(terminal, State::new(look, source), &theirs, &send);
        let thread = thread::Builder::new().name(THREAD.into()).spawn(draw);
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
        // A terminal that goes while it is being read keeps its reader for ever.
        let asked = Instant::now();
        while !thread.is_finished() {
            if asked.elapsed() > PATIENCE {
                return Err(io::Error::other("the terminal does not answer"));
            }
            thread::sleep(Duration::from_millis(1));
        }
        let result = thread.join();
        // Once more, and the cursor would jump back over what was told.
        if !self.shared.panicked.load(Relaxed) {
            ratatui::restore();
        }
        result.unwrap_or_else(|_| Err(io::Error::other("the screen's thread panicked")))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Whatever ends the trace is told instead.
        let _ = self.end();
    }
}

/// Lets nothing be drawn any more once something panics: what is said of it then stays in sight.
fn end_with_panic(shared: &Arc<Shared>) {
    let shared = Arc::clone(shared);
    let restore_and_tell = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        shared.ended.store(true, Relaxed);
        shared.panicked.store(true, Relaxed);
        // A panic of the drawing itself has ended it.
        let elsewhere = thread::current().name() != Some(THREAD);
        let _drawn = elsewhere.then(|| lock(&shared.drawing));
        restore_and_tell(panic);
    }));
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
                let _drawing = lock(&shared.drawing);
                if shared.ended.load(Relaxed) {
                    break;
                }
                terminal.draw(|frame| view::draw(frame, &mut state))?;
                drawn = Some(Instant::now());
                changed = false;
            } else {
                wait = left;
            }
        }
        if !wait_for_input(wait)? {
            return Err(io::Error::other("the terminal has gone"));
        }
        if event::poll(Duration::ZERO)? {
            changed = true;
            // Gone means that the end has come.
            if let Some(command) = input::handle(&mut state, &event::read()?) {
                let _ = commands.send(command);
            }
        }
    }
    Ok(())
}

/// Waits for a key; `false` when the terminal has hung up, which crossterm takes for a key to come.
fn wait_for_input(time: Duration) -> io::Result<bool> {
    let input = io::stdin();
    if !input.is_terminal() {
        // crossterm reads the controlling terminal then.
        event::poll(time)?;
        return Ok(true);
    }
    let mut keys = [PollFd::new(input.as_fd(), PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX);
    match poll(&mut keys, timeout) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(error) => return Err(error.into()),
    }
    let seen = keys[0].revents().unwrap_or(PollFlags::empty());
    Ok(!seen.intersects(PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL))
}
