//! A probe that an agent sends.

use std::fmt;
use std::io;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, mpsc as channel};

use futures_util::stream::poll_fn;
use tokio::sync::mpsc;

use super::feed::Items;
use super::{Link, MAX_ITEM, START};
use crate::agent::payload::{pack, unpack};
use crate::agent::proto::Payload;
use crate::agent::server::Probed;
use crate::model::ProbeResult;
use crate::node::{Cause, NodeError, ProbeRequest, Probing};
use crate::probe::Progress;

type Outcome = Result<ProbeResult, io::Error>;

/// What the one who waits and the one who listens share.
#[derive(Default)]
struct State {
    sent: AtomicU64,
    answered: AtomicU64,
    finished: AtomicBool,
}

/// A probe at an agent. Dropped, its stream is closed, and the agent stops.
pub(super) struct RemoteProbing {
    state: Arc<State>,
    /// A message in it asks the agent to stop.
    stop: mpsc::Sender<Payload>,
    outcome: Mutex<channel::Receiver<Outcome>>,
    task: tokio::task::AbortHandle,
}

impl fmt::Debug for RemoteProbing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteProbing").field("progress", &self.progress()).finish_non_exhaustive()
    }
}

impl Drop for RemoteProbing {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl RemoteProbing {
    pub(super) fn start(link: &Link, request: &ProbeRequest) -> Result<Self, NodeError> {
        let request = pack(request).map_err(|why| link.nonsense(&why))?;
        let (stop, mut requests) = mpsc::channel(2);
        let (tell, outcome) = channel::channel();
        let state = Arc::<State>::default();
        let stream = link.runtime.block_on(async {
            // There is room for it.
            let _ = stop.try_send(request);
            let requests = poll_fn(move |context| requests.poll_recv(context));
            let mut client = link.client(MAX_ITEM);
            let call = client.probe(link.request(requests));
            match tokio::time::timeout(START, call).await {
                Ok(Ok(response)) => {
                    link.check(&response)?;
                    Ok(response.into_inner())
                }
                Ok(Err(status)) => Err(link.failed(status).await),
                Err(_) => Err(link.unreachable("it does not begin the probe")),
            }
        })?;
        let items = Items::of(link, stream);
        let task = link.runtime.spawn(listen(link.clone(), items, Arc::clone(&state), tell));
        Ok(Self { state, stop, outcome: Mutex::new(outcome), task: task.abort_handle() })
    }
}

/// Hears what the agent says until the probe is over.
async fn listen(link: Link, mut items: Items, state: Arc<State>, tell: channel::Sender<Outcome>) {
    let outcome = loop {
        let probed = match items.recv().await {
            Some(Ok(payload)) => unpack::<Result<Probed, NodeError>>(&payload, MAX_ITEM)
                .unwrap_or_else(|why| Err(link.nonsense(&why))),
            Some(Err(error)) => Err(error),
            None => Err(link.unreachable("it has ended the stream")),
        };
        match probed {
            Ok(Probed::Progress(progress)) => {
                state.sent.store(progress.sent, Relaxed);
                state.answered.store(progress.answered, Relaxed);
            }
            Ok(Probed::Done(result)) => break result.map_err(io::Error::from),
            Err(error) => break Err(error_of(error)),
        }
    };
    // Nobody need be waiting.
    let _ = tell.send(outcome);
    state.finished.store(true, Relaxed);
}

fn error_of(error: NodeError) -> io::Error {
    Cause { os: None, message: error.to_string() }.into()
}

impl Probing for RemoteProbing {
    fn progress(&self) -> Progress {
        Progress {
            sent: self.state.sent.load(Relaxed),
            answered: self.state.answered.load(Relaxed),
        }
    }

    fn is_finished(&self) -> bool {
        self.state.finished.load(Relaxed)
    }

    fn stop(&self) {
        // One that is under way does.
        let _ = self.stop.try_send(Payload::default());
    }

    fn join(self: Box<Self>) -> io::Result<ProbeResult> {
        let outcome = self.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        outcome.recv().unwrap_or_else(|_| Err(io::Error::other("the probe was given up")))
    }
}
