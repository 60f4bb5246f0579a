//! `podtrace bundle`: everything for a bug report in one file.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;

use super::Usage;
use super::export::{Source, write};
use super::output::Sink;
use crate::export::Kind;
use crate::record;

/// What is in a bundle.
const CONTENTS: [(&str, Kind); 5] = [
    ("trace.podtrace", Kind::Podtrace),
    ("report.html", Kind::Html),
    ("report.md", Kind::Markdown),
    ("report.json", Kind::Json),
    ("packets.pcapng", Kind::Pcapng),
];

/// zstd's default.
const LEVEL: i32 = 3;

/// Put a recorded trace and its exports into one file, for an attachment.
///
/// It unpacks with `tar --zstd -xf`: the recording, the page for a browser, Markdown for the issue,
/// the report as JSON, and the packets for Wireshark.
#[derive(Clone, Debug, Args)]
pub struct BundleArgs {
    /// Recording made with -w (- is standard input)
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The bundle, a .tar.zst file (- is standard output)
    #[arg(long, short = 'o', value_name = "FILE")]
    output: PathBuf,
    /// Replace addresses and names by stand-ins, drop payload
    #[arg(long)]
    privacy: bool,
}

impl BundleArgs {
    /// Runs the command; the result is the exit status.
    pub(super) fn run(&self) -> Result<u8> {
        let mut source = Source::open(&self.file)?;
        if self.privacy {
            source = source.private()?;
        }
        let replay = record::replay(&mut source.reader()?)?;
        for remark in &replay.remarks {
            eprintln!("podtrace: {remark}");
        }
        let mut sink = Sink::open(Some(&self.output))?;
        if sink.is_terminal() {
            return Err(Usage("a bundle is nothing for a terminal".to_owned()).into());
        }
        let started = replay.header.started.parse::<jiff::Timestamp>();
        let time = started.map_or(0, |t| u64::try_from(t.as_second()).unwrap_or(0));
        let mut compressed =
            zstd::Encoder::new(sink.stream(), LEVEL).context("cannot write the bundle")?;
        compressed.include_checksum(true)?;
        let mut bundle = tar::Builder::new(compressed);
        for (name, kind) in CONTENTS {
            let mut content = Vec::new();
            write(kind, &replay, None, &source, &mut content)?;
            let mut header = tar::Header::new_ustar();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            header.set_mtime(time);
            let path = format!("podtrace/{name}");
            bundle
                .append_data(&mut header, path, content.as_slice())
                .context("cannot write the bundle")?;
        }
        let finished = bundle.into_inner().and_then(zstd::Encoder::finish);
        drop(finished.context("cannot write the bundle")?);
        sink.finish()?;
        Ok(0)
    }
}
