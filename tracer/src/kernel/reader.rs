//! The ring-buffer reader: a thread that copies records out in batches, on a timer.
//!
//! The programs never wake it: one wake-up per event would cost more than everything else they do
//! (measured: it halves the packet rate that the node can carry).

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use aya::maps::{MapData, RingBuf};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::EventFd;

use crate::decode::Batch;

/// How often the ring buffer is looked at, ms.
const INTERVAL_MS: u8 = 5;

/// A batch is handed over when it has grown to this, bytes.
const BATCH_BYTES: usize = 4 << 20;

#[derive(Default)]
struct Shared {
    /// Bytes handed over and not yet released.
    backlog: AtomicUsize,
    /// Records dropped because the backlog was full.
    discarded: AtomicU64,
    /// How often the ring buffer has been read until it was empty.
    passes: AtomicU64,
}

pub(super) struct Reader {
    stop: Arc<EventFd>,
    batches: Receiver<Batch>,
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

impl Reader {
    pub(super) fn start(ring: RingBuf<MapData>, backlog_bytes: usize) -> std::io::Result<Self> {
        let stop = Arc::new(EventFd::new()?);
        let shared = Arc::new(Shared::default());
        let (sender, batches) = channel();
        let thread = std::thread::Builder::new().name("ring reader".into()).spawn({
            let (stop, shared) = (Arc::clone(&stop), Arc::clone(&shared));
            move || run(ring, &stop, &shared, &sender, backlog_bytes)
        })?;
        Ok(Self { stop, batches, shared, thread })
    }

    pub(super) fn batches(&self) -> &Receiver<Batch> {
        &self.batches
    }

    pub(super) fn release(&self, batch: &Batch) {
        self.shared.backlog.fetch_sub(batch.size(), Relaxed);
    }

    pub(super) fn discarded(&self) -> u64 {
        self.shared.discarded.load(Relaxed)
    }

    /// Waits until every record that is in the ring buffer now has been handed over.
    pub(super) fn sync(&self) {
        // The pass under way may have begun before: the one after it has not.
        let enough = self.shared.passes.load(Relaxed) + 2;
        while self.shared.passes.load(Relaxed) < enough && !self.thread.is_finished() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Reads what is left, ends the thread, and returns it with the number of discarded records.
    pub(super) fn finish(self) -> (Vec<Batch>, u64) {
        let Self { stop, batches, shared, thread } = self;
        // Failing to signal would mean waiting for ever; closing the channel ends the thread too.
        let signalled = stop.write(1).is_ok();
        let mut rest = Vec::new();
        if signalled {
            rest.extend(batches.iter());
        }
        drop(batches);
        // A panic in the thread has been printed; what it had read is here.
        let _ = thread.join();
        (rest, shared.discarded.load(Relaxed))
    }
}

fn run(
    mut ring: RingBuf<MapData>,
    stop: &EventFd,
    shared: &Shared,
    sender: &Sender<Batch>,
    backlog_bytes: usize,
) {
    // As much as the last one took: growing means copying.
    let mut room = 0;
    loop {
        let mut fds = [PollFd::new(stop.as_fd(), PollFlags::POLLIN)];
        let stopping = poll(&mut fds, PollTimeout::from(INTERVAL_MS)).unwrap_or(0) > 0;
        let mut batch = Batch::with_capacity(room);
        loop {
            let Some(record) = ring.next() else { break };
            if shared.backlog.load(Relaxed) + batch.size() > backlog_bytes {
                shared.discarded.fetch_add(1, Relaxed);
                continue;
            }
            batch.push(&record);
            drop(record);
            if batch.size() >= BATCH_BYTES && !hand_over(&mut batch, shared, sender) {
                return;
            }
        }
        room = batch.size();
        if !batch.is_empty() && !hand_over(&mut batch, shared, sender) || stopping {
            return;
        }
        shared.passes.fetch_add(1, Relaxed);
    }
}

/// Sends the batch and leaves an empty one; false when nobody listens any more.
fn hand_over(batch: &mut Batch, shared: &Shared, sender: &Sender<Batch>) -> bool {
    shared.backlog.fetch_add(batch.size(), Relaxed);
    let full = std::mem::replace(batch, Batch::with_capacity(BATCH_BYTES));
    sender.send(full).is_ok()
}
