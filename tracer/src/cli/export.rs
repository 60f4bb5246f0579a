//! `podtrace export`: a recorded trace in another format.

use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;

use super::Usage;
use super::output::Sink;
use crate::export::jsonl::Lines;
use crate::export::marks::Marks;
use crate::export::pcapng::Pcapng;
use crate::export::{Kind, html, json, markdown, perfetto, svg};
use crate::privacy;
use crate::record::{self, ReadError, Reader, Replay, Target};

/// Turn a recorded trace into another format.
#[derive(Clone, Debug, Args)]
pub struct ExportArgs {
    /// Recording made with -w (- is standard input)
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Format
    #[arg(long, value_name = "FORMAT")]
    format: Kind,
    /// Where to write it instead of standard output (- is standard output)
    #[arg(long, short = 'o', value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace addresses and names by stand-ins, drop payload
    #[arg(long)]
    privacy: bool,
    /// Only what this interface saw, such as A.cni0 (pcapng)
    #[arg(long, value_name = "INTERFACE")]
    hop: Option<String>,
    /// No warnings
    #[arg(long, short = 'q')]
    quiet: bool,
}

/// A recording that can be read more than once.
#[derive(Debug)]
pub(super) struct Source {
    file: std::fs::File,
}

impl Source {
    /// Opens a file; what comes through a pipe is kept in a temporary one.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let name = || path.display().to_string();
        let mut given: Box<dyn io::Read> = if path == Path::new("-") {
            Box::new(io::stdin())
        } else {
            let file = std::fs::File::open(path)
                .map_err(|source| ReadError::Open { name: name(), source })?;
            if file.metadata().is_ok_and(|m| m.is_file()) {
                return Ok(Self { file });
            }
            Box::new(file)
        };
        let mut file = tempfile::tempfile().context("cannot keep the recording for a while")?;
        io::copy(&mut given, &mut file).with_context(|| format!("cannot read {}", name()))?;
        Ok(Self { file })
    }

    /// For a recording to be made, which nobody else can find.
    pub(super) fn temporary() -> Result<(Self, Target)> {
        let file = tempfile::tempfile().context("cannot make a temporary file")?;
        let target = Target::new(file.try_clone()?);
        Ok((Self { file }, target))
    }

    /// Another handle on it.
    pub(super) fn share(&self) -> Result<Self> {
        // Opened anew, for a position of its own.
        let path = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        let file = std::fs::File::open(path).context("cannot open the recording again")?;
        Ok(Self { file })
    }

    /// The same with stand-ins.
    pub(super) fn private(&self) -> Result<Self> {
        let (masked, target) = Self::temporary()?;
        privacy::rewrite(&mut self.reader()?, target)?;
        Ok(masked)
    }

    /// The file itself.
    pub(super) fn copy(&self, out: &mut dyn Write) -> Result<()> {
        let mut file = self.file.try_clone()?;
        file.seek(SeekFrom::Start(0))?;
        io::copy(&mut file, out)?;
        Ok(())
    }

    /// Writes every sighting of a packet.
    pub(super) fn write_events(&self, replay: &Replay, mut sink: Sink) -> Result<()> {
        let mut out = BufWriter::new(sink.stream());
        write(Kind::Jsonl, replay, None, self, &mut out)
            .and_then(|()| Ok(out.flush()?))
            .context("cannot write the events")?;
        drop(out);
        sink.finish()
    }

    /// From its beginning.
    pub(super) fn reader(&self) -> Result<Reader> {
        let mut file = self.file.try_clone()?;
        file.seek(SeekFrom::Start(0))?;
        Ok(Reader::new(Box::new(file))?)
    }
}

impl ExportArgs {
    /// Runs the command; the result is the exit status.
    pub(super) fn run(&self) -> Result<u8> {
        if self.hop.is_some() && self.format != Kind::Pcapng {
            return Err(Usage("--hop is for --format pcapng".to_owned()).into());
        }
        let mut source = Source::open(&self.file)?;
        if self.privacy {
            source = source.private()?;
        }
        let mut sink = Sink::open(self.output.as_deref())?;
        if matches!(self.format, Kind::Pcapng | Kind::Podtrace) && sink.is_terminal() {
            let message = "this format is nothing for a terminal: give a file with -o, or a pipe";
            return Err(Usage(message.to_owned()).into());
        }
        let replay = record::replay(&mut source.reader()?)?;
        if !self.quiet {
            for remark in &replay.remarks {
                eprintln!("podtrace: {remark}");
            }
        }
        let mut out = BufWriter::new(sink.stream());
        write(self.format, &replay, self.hop.as_deref(), &source, &mut out)
            .and_then(|()| Ok(out.flush()?))
            .context("cannot write the export")?;
        drop(out);
        sink.finish()?;
        Ok(0)
    }
}

/// Writes a recording in a format.
pub(super) fn write(
    kind: Kind,
    replay: &Replay,
    hop: Option<&str>,
    source: &Source,
    out: &mut dyn Write,
) -> Result<()> {
    let analyses = || std::iter::once(&replay.main).chain(replay.large.iter().map(|l| &l.analyzed));
    let text = match kind {
        Kind::Json => json::render(&replay.report),
        Kind::Markdown => markdown::render(&replay.report),
        Kind::Svg => svg::render(&replay.report),
        Kind::Perfetto => perfetto::render(&replay.report, &replay.main),
        Kind::Podtrace => return source.copy(out),
        Kind::Html => {
            let (before, after) = (replay.before.as_ref(), replay.after.as_ref());
            html::render(&replay.report, html::Extras { before, after })
        }
        Kind::Jsonl => {
            let marks = Marks::new(analyses());
            let Some((_, topology, _)) = replay.main.traces.first() else { return Ok(()) };
            let lines = Lines::new(topology, &marks, replay);
            return record::scan(&mut source.reader()?, |event| {
                if let Some(line) = lines.line(event) {
                    out.write_all(line.as_bytes())?;
                }
                Ok(())
            });
        }
        Kind::Pcapng => {
            let marks = Marks::new(analyses());
            let mut export = Pcapng::start(out, replay, &marks, hop)?;
            record::scan(&mut source.reader()?, |event| -> Result<()> {
                Ok(export.event(out, &event)?)
            })?;
            return Ok(export.finish(out, replay)?);
        }
    };
    Ok(out.write_all(text.as_bytes())?)
}
