//! What goes on for a while: traces and probes, each on a thread of its own, which ends as soon as
//! nobody takes what it sends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::Shared;
use crate::agent::limits::{Bucket, Limits};
use crate::agent::payload::pack;
use crate::agent::proto::Item;
use crate::node::message::HEARTBEAT;
use crate::node::{
    CaptureRequest, Cause, Chunk, End, Events, Feed, Node, NodeError, ProbeRequest, Started,
};
use crate::probe::Progress;

/// Messages that wait to be sent.
pub const QUEUE: usize = 4;

/// Events in one message: some hundred KiB.
const EVENTS: usize = 2048;

/// How often a probe is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// What a probe says.
#[derive(Debug, Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Probed {
    /// It has come so far.
    Progress(Progress),
    /// It is over.
    Done(Result<crate::model::ProbeResult, Cause>),
}

/// The end of a stream from which messages go to the collector.
pub struct Sending {
    shared: Arc<Shared>,
    from: String,
    sender: mpsc::Sender<Item>,
    runtime: Handle,
    sequence: u64,
    stop: Arc<AtomicBool>,
    begun: Instant,
}

/// Why a stream is over before its end.
enum Over {
    /// The collector has gone.
    Gone,
    /// It is there, but takes nothing.
    Stalled,
    /// The message cannot be packed.
    Unsendable(String),
}

impl Over {
    fn text(self) -> String {
        match self {
            Over::Gone => "the collector has gone".into(),
            Over::Stalled => "the collector takes nothing".into(),
            Over::Unsendable(why) => why,
        }
    }
}

impl Sending {
    /// On the thread of the runtime.
    pub fn new(shared: &Arc<Shared>, from: &str, sender: mpsc::Sender<Item>) -> Self {
        Self {
            shared: Arc::clone(shared),
            from: from.to_owned(),
            sender,
            runtime: Handle::current(),
            sequence: 0,
            stop: Arc::default(),
            begun: Instant::now(),
        }
    }

    /// Set by whoever wants it to stop.
    pub fn stop(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.stop)
    }

    fn limits(&self) -> &Limits {
        &self.shared.settings.limits
    }

    /// Sends, waiting while the collector does not keep up.
    fn send<T: Serialize>(&mut self, message: &T) -> Result<(), Over> {
        let payload = pack(message).map_err(Over::Unsendable)?;
        let item = Item { sequence: self.sequence, payload: Some(payload) };
        self.sequence += 1;
        let sending = self.sender.send_timeout(item, self.shared.settings.limits.stall);
        self.runtime.block_on(sending).map_err(|error| match error {
            mpsc::error::SendTimeoutError::Timeout(_) => Over::Stalled,
            mpsc::error::SendTimeoutError::Closed(_) => Over::Gone,
        })
    }

    /// Why it has to end, if it has to.
    fn end(&self) -> Option<End> {
        if *self.shared.ending.borrow() {
            return Some(End::Other("the agent was stopped".into()));
        }
        let limit = self.limits().duration;
        (self.begun.elapsed() >= limit).then_some(End::Duration(limit))
    }
}

/// Traces until the collector has gone, the node fails or a limit is reached.
pub fn capture(node: &dyn Node, request: &CaptureRequest, mut sending: Sending) {
    let feed = match node.capture(request) {
        Ok(feed) => feed,
        Err(error) => {
            let text = format!("{}: no trace: {error}", sending.from);
            sending.shared.log(&crate::agent::one_line(&text));
            // It may have gone meanwhile.
            let _ = sending.send(&Err::<Started, _>(error));
            return;
        }
    };
    sending.shared.log(&format!(
        "{}: a trace began at {} interfaces",
        sending.from,
        request.stations.len()
    ));
    let mut tally =
        Tally { bucket: Bucket::new(sending.limits().rate, Instant::now()), ..Tally::default() };
    let why = match forward(feed, &mut sending, &mut tally) {
        Ok(why) => why,
        Err(over) => over.text(),
    };
    let text = format!(
        "{}: a trace ended after {:.1} s with {} events sent, {} above the rate limit: {why}",
        sending.from,
        sending.begun.elapsed().as_secs_f64(),
        tally.sent,
        tally.limited
    );
    sending.shared.log(&crate::agent::one_line(&text));
}

/// What was done with events so far.
struct Tally {
    bucket: Bucket,
    sent: u64,
    limited: u64,
    undecodable: u64,
    /// Whatever happened before this was sent.
    until_ns: u64,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            bucket: Bucket::new(0, Instant::now()),
            sent: 0,
            limited: 0,
            undecodable: 0,
            until_ns: 0,
        }
    }
}

impl Tally {
    /// Splits a chunk into messages that are not too large, without what is above the rate limit.
    fn split(&mut self, chunk: Chunk) -> Vec<Chunk> {
        let (mut events, undecodable) = chunk.events.named();
        let allowed = self.bucket.take(events.len(), Instant::now());
        self.limited += (events.len() - allowed) as u64;
        self.undecodable += undecodable;
        self.sent += allowed as u64;
        events.truncate(allowed);
        let mut loss = chunk.loss;
        loss.over_rate += self.limited;
        loss.undecodable += self.undecodable;
        let mut chunks = Vec::new();
        while events.len() > EVENTS {
            let rest = events.split_off(EVENTS);
            chunks.push(Chunk {
                // What comes in the next ones may have happened earlier.
                until_ns: self.until_ns,
                events: Events::Named(std::mem::replace(&mut events, rest)),
                loss: loss.clone(),
                vanished: chunk.vanished.clone(),
                end: None,
            });
        }
        self.until_ns = chunk.until_ns;
        chunks.push(Chunk { events: Events::Named(events), loss, ..chunk });
        chunks
    }
}

/// Hands on what the feed gives; why it ended.
fn forward(
    mut feed: Box<dyn Feed>,
    sending: &mut Sending,
    tally: &mut Tally,
) -> Result<String, Over> {
    sending.send(&Ok::<_, NodeError>(feed.started()))?;
    let mut loss = crate::model::Loss::default();
    loop {
        if sending.sender.is_closed() {
            return Err(Over::Gone);
        }
        if let Some(end) = sending.end() {
            let why = match &end {
                End::Duration(_) => "the limit on its duration".to_owned(),
                End::Other(why) => why.clone(),
            };
            let last = Chunk { until_ns: tally.until_ns, loss, end: Some(end), ..Chunk::default() };
            sending.send(&Ok::<_, NodeError>(last))?;
            return Ok(why);
        }
        let chunk = match feed.next(HEARTBEAT) {
            Ok(Some(chunk)) => chunk,
            Ok(None) => continue,
            Err(error) => {
                let why = error.to_string();
                sending.send(&Err::<Chunk, _>(error))?;
                return Ok(why);
            }
        };
        let over = chunk.end.is_some();
        for chunk in tally.split(chunk) {
            loss.clone_from(&chunk.loss);
            sending.send(&Ok::<_, NodeError>(chunk))?;
        }
        if over {
            return Ok("the node ended it".into());
        }
    }
}

/// Sends test traffic until it is done, or nobody wants it any more.
pub fn probe(node: &dyn Node, request: &ProbeRequest, mut sending: Sending) {
    let probing = match node.probe(request) {
        Ok(probing) => probing,
        Err(error) => {
            // It may have gone meanwhile.
            let _ = sending.send(&Err::<Probed, _>(error));
            return;
        }
    };
    let mut told = None;
    while !probing.is_finished() {
        if sending.sender.is_closed() {
            // Dropped, it stops.
            return;
        }
        if sending.stop.load(Relaxed) || sending.end().is_some() {
            probing.stop();
        }
        let progress = probing.progress();
        if told != Some(progress) {
            told = Some(progress);
            if sending.send(&Ok::<_, NodeError>(Probed::Progress(progress))).is_err() {
                return;
            }
        }
        std::thread::sleep(LOOK);
    }
    let progress = probing.progress();
    let result = probing.join().map_err(Cause::from);
    for last in [Probed::Progress(progress), Probed::Done(result)] {
        if sending.send(&Ok::<_, NodeError>(last)).is_err() {
            return;
        }
    }
}
