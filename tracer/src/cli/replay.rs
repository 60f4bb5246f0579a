//! `podtrace replay`: a recorded trace, as if it ran now.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use super::args::{Look, What, what_parser};
use super::export::Source;
use super::{output, screen};
use crate::record::{self, Reader};

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
    #[arg(long, value_name = "FORMAT", default_value = "text", value_parser = what_parser())]
    format: What,
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
        let look = if self.tui { Some(output::screen(self.look)?) } else { None };
        let sink = output::Sink::open(self.output.as_deref())?;
        // Events are told once it is known which packets they belong to.
        let again = look.is_some() || self.format == What::Events;
        let source = if again { Some(Source::open(&self.file)?) } else { None };
        let (replay, files) = match (&source, look) {
            (Some(source), Some(look)) => screen::play(source, look)?,
            (Some(source), None) => (record::replay(&mut source.reader()?)?, Vec::new()),
            (None, _) => (record::replay(&mut Reader::open(&self.file)?)?, Vec::new()),
        };
        if !self.quiet {
            for remark in replay.remarks.iter().chain(&files) {
                eprintln!("podtrace: {remark}");
            }
        }
        match (self.format, source) {
            (What::Report(format), _) => {
                let options = output::options(self.look, &sink);
                sink.write(&format.render(&replay.report, &options))?;
            }
            (What::Events, Some(source)) => source.write_events(&replay, sink)?,
            (What::Events, None) => {}
        }
        Ok(replay.report.verdict.status.exit_code())
    }
}
