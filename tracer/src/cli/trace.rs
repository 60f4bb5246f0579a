//! The trace command: from arguments to a session, its progress on the terminal, and its report.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::args::{TraceArgs, What};
use super::export::Source;
use super::save::Files;
use super::{Usage, output, privileges, screen, signals};
use crate::endpoint;
use crate::inventory::Inventory;
use crate::model::{End, EndKind, Service};
use crate::node::Nodes;
use crate::probe::Proto;
use crate::record::{self, Target};
use crate::service;
use crate::session::{Finished, Session, Spec};

/// How often the progress line is drawn.
const PROGRESS: Duration = Duration::from_millis(200);

/// Runs a trace; the result is the exit status.
///
/// # Errors
/// When the trace cannot be done; see [`super::exit_code_of`] for the status.
pub fn run(args: &TraceArgs) -> Result<u8> {
    let usage = |message: String| Usage(message);
    let (Some(src), Some(dst)) = (&args.src, &args.dst) else {
        return Err(usage("--src and --dst are both needed".into()).into());
    };
    if matches!(args.probe, Some(Proto::Tcp | Proto::Udp)) && args.port.is_none() {
        return Err(usage("--probe=tcp and --probe=udp need --port".into()).into());
    }
    if let (Some(probe), Some(proto)) = (args.probe, args.proto)
        && probe != proto
    {
        return Err(usage("--probe and --proto name different protocols".into()).into());
    }
    let look = if args.tui { Some(output::screen(args.look)?) } else { None };
    if args.tui && args.write.as_deref() == Some(Path::new("-")) {
        return Err(usage("--tui and -w - both want standard output".into()).into());
    }
    if args.rotate_size.is_some() && args.write.as_deref() == Some(Path::new("-")) {
        return Err(usage("--rotate-size needs a file: standard output is only one".into()).into());
    }
    let to_stdout = args.write.as_deref() == Some(Path::new("-"));
    if args.format == What::Events && (to_stdout || args.rotate_size.is_some()) {
        return Err(usage("--format jsonl needs the recording in one file".into()).into());
    }
    let nodes = Nodes::new(Inventory::load(args.inventory.as_deref())?);
    let mut src = endpoint::source(src, dst, &nodes)?;
    if args.probe.is_some() && src.end.kind == EndKind::Outside {
        let text = format!(
            "{} is outside: podtrace cannot send from there; watch without --probe",
            src.end.name
        );
        return Err(usage(text).into());
    }
    let flow = service::Flow {
        proto: args.probe.or(args.proto).map(Proto::number),
        port: args.port,
        probe: args.probe.is_some(),
    };
    let mut dst = service::destination(dst, &src, flow, &nodes)?;
    let mut notes = dst.notes.clone();
    endpoint::face(&mut src, &mut dst.resolved);
    endpoint::distinct(&src, &dst.resolved)?;
    if std::iter::once(&src).chain(dst.all()).any(|end| !end.node.netns.site.is_remote()) {
        privileges::check()?;
    }
    // Checked before the trace, so that a long one is not lost at its end.
    let sink = output::Sink::open(args.output.as_deref())?;

    let mut recording = match &args.write {
        Some(path) => {
            let target = match args.rotate_size {
                Some(size) => Target::rotating(path, size, args.rotate_count),
                None => Target::open(path),
            };
            Some(target.with_context(|| format!("cannot record to {}", path.display()))?)
        }
        None => None,
    };
    // What is seen has to be known before stand-ins can be given: the recording is rewritten at the
    // end, and the report made from that. Likewise, which packet an event belongs to.
    let mut kept = None;
    if args.privacy || (args.format == What::Events && recording.is_none()) {
        let (source, target) = Source::temporary()?;
        kept = Some((source, recording.replace(target)));
    }
    let recording_to_stdout =
        args.output.is_none() && args.write.as_deref() == Some(Path::new("-"));

    let stop = signals::stop_flag()?;
    let mut session = Session::start(spec(args), src, &dst, &nodes, Arc::clone(&stop))?;
    let say = |lines| say(args, lines);
    if let Some(target) = recording {
        session.record_to(target, screen::command_line())?;
    }
    match look {
        Some(look) => {
            let files = Files::new(args.privacy);
            if args.privacy {
                notes.push("only the screen shows real addresses and names".to_owned());
            }
            say(screen::watch(&mut session, look, &stop, notes, files)?);
        }
        None => follow(args, &mut session, notes, recording_to_stdout),
    }
    let Finished { mut report, mut recording, notices } = session.finish()?;
    say(notices);
    let mut written = None;
    if let Some((mut source, target)) = kept {
        recording.take().transpose().context("cannot record the trace")?;
        if args.privacy {
            source = source.private()?;
            report = record::replay(&mut source.reader()?)?.report;
        }
        if let Some(mut target) = target {
            source.copy(target.stream()).context("cannot record the trace")?;
        }
        written = Some(source);
    } else if let (What::Events, Some(Ok(_)), Some(path)) = (args.format, &recording, &args.write) {
        written = Some(Source::open(path)?);
    }
    match (args.format, written) {
        _ if recording_to_stdout => {
            // The recording has taken its place.
            say(vec![report.verdict.summary.clone()]);
        }
        (What::Report(format), _) => {
            let options = output::options(args.look, &sink);
            sink.write(&format.render(&report, &options))?;
        }
        (What::Events, Some(source)) => {
            let replay = record::replay(&mut source.reader()?)?;
            source.write_events(&replay, sink)?;
        }
        // Without a recording there are none; that it failed is said below.
        (What::Events, None) => {}
    }
    if let Some(recording) = recording {
        let summary = recording.context("cannot record the trace")?;
        if args.rotate_size.is_some() {
            say(vec![format!("recorded to {} files", summary.parts)]);
        }
        if summary.unrecorded > 0 {
            say(vec![format!(
                "{} events are missing in the recording: writing did not keep up",
                summary.unrecorded
            )]);
        }
    }
    Ok(report.verdict.status.exit_code())
}

/// Tells the user what is no part of the report.
fn say(args: &TraceArgs, lines: Vec<String>) {
    for line in lines.iter().filter(|_| !args.quiet) {
        eprintln!("podtrace: {line}");
    }
}

/// Traces until it is over, with a line of progress on a terminal.
fn follow(args: &TraceArgs, session: &mut Session, notes: Vec<String>, recording_to_stdout: bool) {
    say(args, notes);
    say(args, session.notices());
    if args.probe.is_none() {
        let topology = session.topology();
        let name = |e: &Option<End>| {
            let end = e.as_ref();
            let service = end.and_then(|e| e.service.as_ref()).map(Service::address);
            service.or_else(|| end.map(|e| e.name.clone())).unwrap_or_default()
        };
        let watching = format!(
            "watching {} → {} at {} interfaces (Ctrl-C ends)",
            name(&topology.src),
            name(&topology.dst),
            topology.stations.len()
        );
        say(args, vec![watching]);
    }
    let mut line = ProgressLine::new(args);
    let mut warned = false;
    while session.step(Duration::from_millis(20)) {
        if session.recording_failed() && !std::mem::replace(&mut warned, true) {
            // Whoever reads the recording from a pipe may have seen enough.
            if recording_to_stdout {
                break;
            }
            let warning = "the recording cannot be written any more; the trace goes on";
            say(args, vec![warning.to_owned()]);
        }
        line.draw(session);
        say(args, session.notices());
    }
    line.clear();
    say(args, session.notices());
}

fn spec(args: &TraceArgs) -> Spec {
    Spec {
        probe: args.probe,
        proto: args.proto,
        port: args.port,
        // What is watched goes on until its watcher has seen enough.
        count: args.count.or(args.tui.then_some(u64::MAX)),
        duration: args.duration,
        interval: args.interval,
        size: args.size,
        ipv4: args.ipv4,
        ipv6: args.ipv6,
        snaplen: args.snaplen,
        btf: args.btf.clone(),
        attach: args.attach,
        buffer: args.buffer,
        watched: args.tui,
    }
}

/// The progress line of a terminal.
struct ProgressLine {
    on: bool,
    drawn: Option<Instant>,
}

impl ProgressLine {
    fn new(args: &TraceArgs) -> Self {
        Self { on: !args.quiet && std::io::stderr().is_terminal(), drawn: None }
    }

    fn draw(&mut self, session: &Session) {
        if !self.on || self.drawn.is_some_and(|at| at.elapsed() < PROGRESS) {
            return;
        }
        self.drawn = Some(Instant::now());
        let p = session.progress();
        let probe = p.sent.map_or_else(String::new, |sent| format!("probe {sent}, "));
        eprint!(
            "\r\x1b[K{:.0}s  {probe}{} sent, {} delivered, {} replied  (Ctrl-C ends)",
            p.elapsed.as_secs_f64(),
            p.seen,
            p.arrived,
            p.replied
        );
        // Nothing depends on it.
        let _ = std::io::stderr().flush();
    }

    fn clear(&mut self) {
        if self.drawn.is_some() {
            eprint!("\r\x1b[K");
        }
    }
}
