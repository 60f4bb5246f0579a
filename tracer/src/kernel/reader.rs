//! The ring-buffer reader: a thread that copies records out in batches, on a timer.
//!
//! The programs never wake it: one wake-up per event would cost more than everything else they do
//! (measured: it halves the packet rate that the node can carry).

use std::ops::Deref;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicU64, AtomicUsize, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
};
use std::sync::mpsc::{Receiver, Sender, channel};

use aya::maps::{MapData, RingBuf};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::EventFd;

use super::monotonic_ns;
use crate::decode::Batch;

/// How often the ring buffer is looked at, ms.
const INTERVAL_MS: u8 = 5;

/// A batch is handed over when it has grown to this, bytes.
const BATCH_BYTES: usize = 4 << 20;

#[derive(Debug, Default)]
struct Shared {
    /// Bytes handed over and not yet dropped.
    backlog: AtomicUsize,
    /// Records dropped because the backlog was full.
    discarded: AtomicU64,
    /// What happened before has been handed over, ns.
    until_ns: AtomicU64,
}

/// A batch whose memory counts as backlog until it is released or dropped.
#[derive(Debug)]
pub struct HeldBatch {
    batch: Batch,
    /// Bytes that still count.
    counts: AtomicUsize,
    shared: Arc<Shared>,
}

impl HeldBatch {
    fn new(batch: Batch, shared: &Arc<Shared>) -> Self {
        shared.backlog.fetch_add(batch.size(), Relaxed);
        let counts = AtomicUsize::new(batch.size());
        Self { batch, counts, shared: Arc::clone(shared) }
    }

    /// Its memory counts no more.
    pub fn release(&self) {
        self.shared.backlog.fetch_sub(self.counts.swap(0, Relaxed), Relaxed);
    }

    /// Gives back memory that it has room for and does not need.
    pub fn shrink(&mut self) {
        self.batch.shrink();
    }
}

impl From<Batch> for HeldBatch {
    /// A batch that is nobody's backlog.
    fn from(batch: Batch) -> Self {
        Self::new(batch, &Arc::default())
    }
}

impl Deref for HeldBatch {
    type Target = Batch;

    fn deref(&self) -> &Batch {
        &self.batch
    }
}

impl Drop for HeldBatch {
    fn drop(&mut self) {
        self.release();
    }
}

/// Ends its thread when it is dropped.
pub(super) struct Reader {
    stop: Arc<EventFd>,
    batches: Receiver<HeldBatch>,
    shared: Arc<Shared>,
}

impl Reader {
    pub(super) fn start(ring: RingBuf<MapData>, backlog_bytes: usize) -> std::io::Result<Self> {
        let stop = Arc::new(EventFd::new()?);
        let shared = Arc::new(Shared::default());
        let (sender, batches) = channel();
        std::thread::Builder::new().name("ring reader".into()).spawn({
            let (stop, shared) = (Arc::clone(&stop), Arc::clone(&shared));
            move || run(ring, &stop, &shared, &sender, backlog_bytes)
        })?;
        Ok(Self { stop, batches, shared })
    }

    pub(super) fn batches(&self) -> &Receiver<HeldBatch> {
        &self.batches
    }

    pub(super) fn discarded(&self) -> u64 {
        self.shared.discarded.load(Relaxed)
    }

    pub(super) fn until_ns(&self) -> u64 {
        self.shared.until_ns.load(Acquire)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // Should it fail, the thread ends when it cannot hand over any more.
        let _ = self.stop.write(1);
    }
}

fn run(
    mut ring: RingBuf<MapData>,
    stop: &EventFd,
    shared: &Arc<Shared>,
    sender: &Sender<HeldBatch>,
    backlog_bytes: usize,
) {
    // As much as the last one took: growing means copying.
    let mut room = 0;
    // When the pass before this one began.
    let mut before_ns = 0;
    loop {
        let mut fds = [PollFd::new(stop.as_fd(), PollFlags::POLLIN)];
        let stopping = poll(&mut fds, PollTimeout::from(INTERVAL_MS)).unwrap_or(0) > 0;
        let begun_ns = monotonic_ns();
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
        // A program that was writing its record when this pass began may have been too late for it,
        // and has hidden those behind it; it was done long before this pass ended.
        shared.until_ns.store(before_ns, Release);
        before_ns = begun_ns;
    }
}

/// Sends the batch and leaves an empty one; false when nobody listens any more.
fn hand_over(batch: &mut Batch, shared: &Arc<Shared>, sender: &Sender<HeldBatch>) -> bool {
    let full = std::mem::replace(batch, Batch::with_capacity(BATCH_BYTES));
    sender.send(HeldBatch::new(full, shared)).is_ok()
}
