//! What a person sees while something takes long: on a terminal one line that moves, elsewhere
//! plain lines.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// Where there is no terminal, how often a long step says that it is still at work.
const STILL_AT_WORK: Duration = Duration::from_secs(60);
/// Columns of the moving line; it must not wrap.
const COLUMNS: usize = 79;

/// Begins a part of the output.
pub fn section(title: &str) {
    println!("\n=== {title}");
}

/// `1.2 s`, `3 min 05 s`
pub fn seconds(time: Duration) -> String {
    match time.as_secs() {
        0..=59 => format!("{:.1} s", time.as_secs_f64()),
        whole => format!("{} min {:02} s", whole / 60, whole % 60),
    }
}

/// A step that is at work.
#[derive(Debug)]
pub struct Progress {
    what: String,
    started: Instant,
    spoke: Instant,
    turn: usize,
    detail: String,
    terminal: bool,
    ended: bool,
}

impl Progress {
    /// Shows that it begins.
    pub fn start(what: &str) -> Self {
        let now = Instant::now();
        let mut progress = Self {
            what: what.to_owned(),
            started: now,
            spoke: now,
            turn: 0,
            detail: String::new(),
            terminal: io::stderr().is_terminal(),
            ended: false,
        };
        if progress.terminal {
            progress.tick();
        } else {
            eprintln!("{what} …");
        }
        progress
    }

    /// Takes note of what the step said last.
    pub fn last_line(&mut self, line: &str) {
        let line = line.trim();
        if !line.is_empty() {
            line.clone_into(&mut self.detail);
        }
        self.tick();
    }

    /// Shows that it still goes on.
    pub fn tick(&mut self) {
        if !self.terminal {
            if self.spoke.elapsed() >= STILL_AT_WORK {
                self.spoke = Instant::now();
                eprintln!("{} … {} so far", self.what, seconds(self.started.elapsed()));
            }
            return;
        }
        if self.turn > 0 && self.spoke.elapsed() < Duration::from_millis(90) {
            return;
        }
        self.spoke = Instant::now();
        const WHEEL: [char; 4] = ['|', '/', '-', '\\'];
        let wheel = WHEEL[self.turn % WHEEL.len()];
        self.turn += 1;
        let elapsed = seconds(self.started.elapsed());
        let text = format!("{wheel} {} {elapsed}  {}", self.what, self.detail);
        self.rewrite(&text);
    }

    fn rewrite(&self, text: &str) {
        let text: String = text.chars().filter(|c| !c.is_control()).take(COLUMNS).collect();
        let mut stderr = io::stderr().lock();
        // A terminal that has gone away is no reason to stop.
        let _ = write!(stderr, "\r\x1b[K{text}");
        let _ = stderr.flush();
    }

    /// It has ended well.
    pub fn done(self) {
        self.end("done in");
    }

    /// It has failed; the caller says why.
    pub fn failed(self) {
        self.end("FAILED after");
    }

    fn end(mut self, how: &str) {
        self.ended = true;
        if self.terminal {
            self.rewrite("");
        }
        eprintln!("{}: {how} {}", self.what, seconds(self.started.elapsed()));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if !self.ended && self.terminal {
            self.rewrite("");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_readable() {
        assert_eq!(seconds(Duration::from_millis(1234)), "1.2 s");
        assert_eq!(seconds(Duration::from_secs(185)), "3 min 05 s");
    }
}
