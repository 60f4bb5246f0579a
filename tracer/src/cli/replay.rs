//! `podtrace replay`: a recorded trace, as if it ran now.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use super::args::{Look, format_parser};
use super::{output, screen};
use crate::export::Format;
use crate::record::{self, Reader};
use crate::tui::replay::Playback;

/// Show the report of a recorded trace.
///
/// It is the report that the trace itself made; no privileges are needed. The exit status is that of
/// the trace.
#[derive(Clone, Debug, Args)]
pub struct ReplayArgs {
    /// Recording made with -w (- is standard input)
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Output format
    #[arg(long, value_name = "FORMAT", default_value = "text", value_parser = format_parser())]
    format: Format,
    /// Write the report to a file instead of standard output (- is standard output)
    #[arg(long, short = 'o', value_name = "FILE")]
    output: Option<PathBuf>,
    /// Watch it as it was; the report is printed at the end [q quits, ? shows the keys]
    #[arg(long)]
    tui: bool,
    /// No warnings
    #[arg(long, short = 'q')]
    quiet: bool,
    #[command(flatten)]
    look: Look,
}

impl ReplayArgs {
    /// Runs the command; the result is the exit status.
    pub(super) fn run(&self) -> Result<u8> {
        let mut reader = Reader::open(&self.file)?;
        let look = if self.tui { Some(output::screen(self.look)?) } else { None };
        let sink = output::Sink::open(self.output.as_deref())?;
        let replay = match look {
            Some(look) => screen::play(Playback::open(&mut reader)?, look)?,
            None => record::replay(&mut reader)?,
        };
        if !self.quiet {
            for remark in &replay.remarks {
                eprintln!("podtrace: {remark}");
            }
        }
        let text = self.format.render(&replay.report, &output::options(self.look, &sink));
        sink.write(&text)?;
        Ok(replay.report.verdict.status.exit_code())
    }
}
