//! Writing a trace file while the trace runs.
//!
//! A thread of its own turns batches into records and compresses them. It is handed batches over a
//! queue of bounded size: where it does not keep up, batches are not recorded and their events
//! counted, so that writing never slows the capture, and never silently loses.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::event::EventRecord;
use super::format::{Header, Losses, Reached, Record};
use super::limits;
use super::rotation::{Parts, Rotation};
use crate::decode::RawEvent;
use crate::model::{Loss, RoundTrip};
use crate::node::Events;

/// Bytes of records that make a zstd frame.
const FRAME: usize = 1 << 20;
/// What is written at the latest after this time, so that little is missing after a crash.
const FLUSH: Duration = Duration::from_secs(1);
/// Batches that wait to be written, bytes.
const QUEUE: usize = 256 << 20;
/// zstd's default.
const LEVEL: i32 = 3;

/// Where a recording goes; opened before the trace begins.
pub struct Target {
    out: Box<dyn Write + Send>,
    rotation: Option<Rotation>,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Target")
    }
}

impl Target {
    /// A file, made anew; `-` is standard output.
    ///
    /// # Errors
    /// When it cannot be created.
    pub fn open(path: &Path) -> io::Result<Self> {
        if path == Path::new("-") {
            return Ok(Self::new(io::stdout()));
        }
        Ok(Self::new(File::create(path)?))
    }

    /// Several files, each of which can be replayed by itself: `trace.podtrace` becomes
    /// `trace-0001.podtrace`, and when that has `size` bytes (it may get a few hundred kilobytes
    /// more) `trace-0002.podtrace` and so on. With `keep`, only so many files stay: the newest.
    ///
    /// # Errors
    /// When the first cannot be created.
    pub fn rotating(path: &Path, size: u64, keep: Option<u32>) -> io::Result<Self> {
        Self::in_parts(Rotation::of_files(path, size, keep))
    }

    pub(super) fn in_parts(mut rotation: Rotation) -> io::Result<Self> {
        Ok(Self { out: (rotation.open)(1)?, rotation: Some(rotation) })
    }

    /// Where bytes of a recording made elsewhere go.
    pub fn stream(&mut self) -> &mut dyn Write {
        &mut self.out
    }

    /// Anything that takes bytes.
    pub fn new(out: impl Write + Send + 'static) -> Self {
        Self { out: Box::new(out), rotation: None }
    }
}

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Event records.
    pub events: u64,
    /// Compressed bytes.
    pub bytes: u64,
    /// Events that were not recorded.
    pub unrecorded: u64,
    /// Files.
    pub parts: u32,
}

enum Message {
    Batch(Arc<Events>),
    Record(Box<Record<'static>>),
    /// Everything so far is to be in the file.
    Flush,
}

/// Bytes that wait, and whether writing has failed.
#[derive(Default)]
struct Queue {
    state: Mutex<(usize, bool)>,
    changed: Condvar,
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, (usize, bool)> {
        // Two numbers cannot be left half-way by a thread that panicked.
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Makes room for `size` bytes, waiting for it or not; whether it could be had.
    fn enter(&self, size: usize, wait: bool) -> bool {
        let full = |state: &mut (usize, bool)| state.0 > 0 && state.0 + size > QUEUE && !state.1;
        let mut state = self.state();
        if wait {
            state = self
                .changed
                .wait_while(state, full)
                .unwrap_or_else(|poisoned| poisoned.into_inner());
        }
        if full(&mut state) || state.1 {
            return false;
        }
        state.0 += size;
        true
    }

    fn leave(&self, size: usize) {
        self.state().0 -= size;
        self.changed.notify_all();
    }

    fn fail(&self) {
        self.state().1 = true;
        self.changed.notify_all();
    }
}

/// A recording under way. To be told what the analysis is told, in the same order.
pub struct Recorder {
    sender: Sender<Message>,
    queue: Arc<Queue>,
    thread: JoinHandle<io::Result<Summary>>,
    unrecorded: u64,
    /// Batches since the last [`Record::Idle`].
    batches: bool,
    /// Whether [`Recorder::batch`] waits for room.
    patient: bool,
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorder").field("unrecorded", &self.unrecorded).finish_non_exhaustive()
    }
}

impl Recorder {
    /// Starts a recording.
    ///
    /// # Errors
    /// When there can be no thread, or zstd has no memory.
    pub fn start(mut target: Target, header: Header) -> io::Result<Self> {
        let parts = target.rotation.take().map(Parts::new);
        let writer = RecordWriter::new(target)?;
        let (sender, receiver) = channel();
        let queue = Arc::<Queue>::default();
        let thread = std::thread::Builder::new().name("recorder".into()).spawn({
            let queue = Arc::clone(&queue);
            move || run(writer, parts, &receiver, &queue)
        })?;
        let (unrecorded, batches, patient) = (0, false, false);
        let mut recorder = Self { sender, queue, thread, unrecorded, batches, patient };
        recorder.record(Record::Header(Box::new(header)));
        Ok(recorder)
    }

    /// Adds a record other than an event.
    pub fn record(&mut self, record: Record<'static>) {
        self.send(Message::Record(Box::new(record)));
    }

    fn send(&self, message: Message) {
        // The thread reads until the sender is gone; should it have panicked, `finish` says so.
        let _ = self.sender.send(message);
    }

    /// What was recorded so far is to be in the file soon.
    pub fn flush(&self) {
        self.send(Message::Flush);
    }

    /// The analysis is given the events of this batch.
    pub fn batch(&mut self, batch: &Arc<Events>) {
        if self.queue.enter(batch.size(), self.patient) {
            self.send(Message::Batch(Arc::clone(batch)));
            self.batches = true;
        } else {
            self.unrecorded += batch.len() as u64;
        }
    }

    /// The analysis is told that nothing is on its way.
    pub fn idle(&mut self) {
        if std::mem::take(&mut self.batches) {
            self.record(Record::Idle(()));
        }
    }

    /// The analysis is told until when the events of a machine are complete.
    pub fn reached(&mut self, machine: u16, until_ns: Option<u64>) {
        self.record(Record::Reached(Reached { machine, until_ns }));
    }

    /// The analysis is told of a reading of a machine's clock.
    pub fn clock(&mut self, trip: &RoundTrip) {
        self.record(Record::Clock(*trip));
    }

    /// The analysis is told that what begins later does not count.
    pub fn closed(&mut self, closed_ns: u64) {
        self.record(Record::Closed(closed_ns));
    }

    /// Losses of the capture so far.
    pub fn losses(&mut self, capture: &Loss) {
        let losses = Losses { capture: capture.clone(), unrecorded: self.unrecorded };
        self.record(Record::Loss(losses));
    }

    /// The capture has ended: from now on there is time to wait for the writer.
    pub fn patient(&mut self) {
        self.patient = true;
    }

    /// Events that were not recorded so far.
    pub fn unrecorded(&self) -> u64 {
        self.unrecorded
    }

    /// Whether writing has failed; [`Recorder::finish`] says how.
    pub fn failed(&self) -> bool {
        self.queue.state().1
    }

    /// Waits until everything is written.
    ///
    /// # Errors
    /// When it could not be.
    pub fn finish(self) -> io::Result<Summary> {
        let Self { sender, thread, unrecorded, .. } = self;
        drop(sender);
        let summary = thread
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the recorder's thread panicked")))?;
        Ok(Summary { unrecorded, ..summary })
    }
}

/// Writes records, frame by frame.
pub struct RecordWriter {
    out: Box<dyn Write + Send>,
    compressor: zstd::bulk::Compressor<'static>,
    /// Records of the frame to come.
    lines: Vec<u8>,
    /// Compressed bytes of the present file.
    file_bytes: u64,
    summary: Summary,
}

impl std::fmt::Debug for RecordWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecordWriter").field("summary", &self.summary).finish_non_exhaustive()
    }
}

impl RecordWriter {
    /// Writes to `target`.
    ///
    /// # Errors
    /// When zstd has no memory.
    pub fn new(target: Target) -> io::Result<Self> {
        let mut compressor = zstd::bulk::Compressor::new(LEVEL)?;
        compressor.include_checksum(true)?;
        let lines = Vec::with_capacity(FRAME + (64 << 10));
        let summary = Summary { parts: 1, ..Summary::default() };
        Ok(Self { out: target.out, compressor, lines, file_bytes: 0, summary })
    }

    /// Adds an event.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn event(&mut self, event: RawEvent<'_>) -> io::Result<()> {
        self.summary.events += 1;
        self.record(&Record::Event(EventRecord::of(event)))
    }

    /// Adds a record. In the place of one that is too long stands a note.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn record(&mut self, record: &Record<'_>) -> io::Result<()> {
        let before = self.lines.len();
        serde_json::to_writer(&mut self.lines, record)?;
        let len = self.lines.len() - before;
        if len > limits::RECORD {
            self.lines.truncate(before);
            let most = limits::RECORD;
            let note = format!("a record of {len} bytes is missing: at most {most} are allowed");
            serde_json::to_writer(&mut self.lines, &Record::Note(note))?;
        }
        self.lines.push(b'\n');
        self.full_frame()
    }

    fn full_frame(&mut self) -> io::Result<()> {
        if self.lines.len() < FRAME { Ok(()) } else { self.frame() }
    }

    /// Ends the frame, if there is anything in it.
    pub(super) fn frame(&mut self) -> io::Result<()> {
        if self.lines.is_empty() {
            return Ok(());
        }
        let frame = self.compressor.compress(&self.lines)?;
        self.lines.clear();
        self.out.write_all(&frame)?;
        self.out.flush()?;
        self.summary.bytes += frame.len() as u64;
        self.file_bytes += frame.len() as u64;
        Ok(())
    }

    /// Compressed bytes of the present file by now.
    pub(super) fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// What follows goes into another file.
    pub(super) fn go_on_in(&mut self, out: Box<dyn Write + Send>) {
        self.out = out;
        self.file_bytes = 0;
        self.summary.parts += 1;
    }

    /// Writes what is left.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(mut self) -> io::Result<Summary> {
        self.frame()?;
        Ok(self.summary)
    }
}

/// Turns messages into records until the recorder is gone, or writing fails.
fn run(
    mut writer: RecordWriter,
    parts: Option<Parts>,
    messages: &Receiver<Message>,
    queue: &Queue,
) -> io::Result<Summary> {
    let outcome = write_all(&mut writer, parts, messages, queue);
    if outcome.is_err() {
        queue.fail();
        // What still comes is let go, so that it takes no memory.
        for message in messages {
            if let Message::Batch(batch) = message {
                queue.leave(batch.size());
            }
        }
    }
    outcome.and_then(|()| writer.finish())
}

fn write_all(
    writer: &mut RecordWriter,
    mut parts: Option<Parts>,
    messages: &Receiver<Message>,
    queue: &Queue,
) -> io::Result<()> {
    let mut flushed = Instant::now();
    loop {
        match messages.recv_timeout(FLUSH.saturating_sub(flushed.elapsed())) {
            Ok(Message::Batch(batch)) => {
                let written = write_batch(writer, parts.as_mut(), &batch);
                queue.leave(batch.size());
                written?;
            }
            Ok(Message::Record(record)) => {
                let record = match &mut parts {
                    Some(parts) => parts.adapt(*record),
                    None => *record,
                };
                writer.record(&record)?;
            }
            Ok(Message::Flush) | Err(RecvTimeoutError::Timeout) => {
                writer.frame()?;
                flushed = Instant::now();
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
}

fn write_batch(
    writer: &mut RecordWriter,
    mut parts: Option<&mut Parts>,
    batch: &Events,
) -> io::Result<()> {
    // Not behind the batch that fills a file: another might never come.
    if let Some(parts) = &mut parts {
        parts.rotate(writer)?;
    }
    let before = writer.summary.events;
    let (mut written, mut last_ns) = (Ok(()), 0);
    batch.for_each(|event| {
        if let (Ok(()), Some(event)) = (&written, event) {
            last_ns = last_ns.max(event.time_ns);
            written = writer.event(event);
        }
    });
    written?;
    let events = writer.summary.events - before;
    writer.record(&Record::Batch(events))?;
    if let Some(parts) = parts
        && events > 0
    {
        parts.saw(last_ns);
    }
    Ok(())
}
