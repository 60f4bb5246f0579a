//! Files that are written from the screen, while it goes on.

use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::thread::JoinHandle;

use anyhow::{Context, Result};

use super::export::{Source, write};
use super::output::Sink;
use crate::export::Kind;
use crate::record;

/// What writes files.
#[derive(Debug)]
pub(super) struct Files {
    privacy: bool,
    /// One at a time: each takes memory and a CPU.
    running: Option<JoinHandle<String>>,
    /// Of every file, what was said of it.
    said: Vec<String>,
}

impl Files {
    /// With `privacy`, files hold stand-ins.
    pub fn new(privacy: bool) -> Self {
        Self { privacy, running: None, said: Vec::new() }
    }

    /// Begins a file in this format of what `source` gives; says so.
    pub fn begin(
        &mut self,
        kind: Kind,
        source: impl FnOnce() -> Result<Source> + Send + 'static,
    ) -> String {
        if self.running.is_some() {
            return "the file before is still being written".to_owned();
        }
        let privacy = self.privacy;
        let run = move || match source().and_then(|source| save(kind, source, privacy)) {
            Ok(said) => said,
            Err(error) => format!("not written: {error:#}"),
        };
        match std::thread::Builder::new().name("save".into()).spawn(run) {
            Ok(thread) => {
                self.running = Some(thread);
                "writing …".to_owned()
            }
            Err(error) => format!("not written: {error}"),
        }
    }

    /// What is to be said of a file that was written since.
    pub fn news(&mut self) -> Option<String> {
        let thread = self.running.take_if(|thread| thread.is_finished())?;
        Some(self.end(thread))
    }

    /// Waits for what is being written; what was said of all files.
    pub fn finish(mut self) -> Vec<String> {
        if let Some(thread) = self.running.take() {
            self.end(thread);
        }
        self.said
    }

    fn end(&mut self, thread: JoinHandle<String>) -> String {
        let said = thread.join().unwrap_or_else(|_| "not written: writing panicked".to_owned());
        self.said.push(said.clone());
        said
    }
}

/// Writes the file; says what it is called.
fn save(kind: Kind, mut source: Source, privacy: bool) -> Result<String> {
    if privacy {
        source = source.private()?;
    }
    let path = free_name(kind.extension());
    let mut sink = Sink::open(Some(&path))?;
    let mut out = BufWriter::new(sink.stream());
    let written = match kind {
        Kind::Podtrace => source.copy(&mut out),
        _ => {
            let replay = record::replay(&mut source.reader()?)?;
            write(kind, &replay, None, &source, &mut out)
        }
    };
    written
        .and_then(|()| Ok(out.flush()?))
        .with_context(|| format!("cannot write {}", path.display()))?;
    drop(out);
    sink.finish()?;
    let whole = std::path::absolute(&path).unwrap_or_else(|_| path.clone());
    Ok(format!("wrote {}", whole.display()))
}

/// A name that no file has in the current directory.
fn free_name(extension: &str) -> PathBuf {
    let stem = jiff::Zoned::now().strftime("podtrace-%Y%m%d-%H%M%S").to_string();
    let name = |n: u32| match n {
        0 => PathBuf::from(format!("{stem}.{extension}")),
        n => PathBuf::from(format!("{stem}-{n}.{extension}")),
    };
    (0..).map(name).find(|path| !path.exists()).unwrap_or_else(|| name(0))
}
