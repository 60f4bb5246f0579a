//! Chunks of a capture as they come over the network.

use std::fmt;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tonic::Streaming;

use super::{Link, MAX_ITEM, START};
use crate::agent::payload::{pack, unpack};
use crate::agent::proto::{Item, Payload};
use crate::node::{CaptureRequest, Chunk, Feed, NodeError, Started};

/// Items that wait to be taken. Behind them the agent waits, and drops and counts when its own
/// memory for it is full.
const QUEUE: usize = 2;

/// Items of a stream, as they come. Dropped, the stream is closed.
pub(super) struct Items {
    items: mpsc::Receiver<Result<Payload, NodeError>>,
    task: AbortHandle,
}

impl Drop for Items {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Items {
    /// Takes items from a stream in the background, so that one that waits to be taken holds up
    /// only its own stream.
    pub(super) fn of(link: &Link, mut stream: Streaming<Item>) -> Self {
        let (sender, items) = mpsc::channel(QUEUE);
        let watched = link.clone();
        let task = link.runtime.spawn(async move {
            let mut expected = 0;
            loop {
                let item = match stream.message().await {
                    Ok(Some(Item { sequence, payload: Some(payload) })) if sequence == expected => {
                        expected += 1;
                        Ok(payload)
                    }
                    Ok(Some(_)) => Err(watched.nonsense("a message is missing")),
                    Ok(None) => Err(watched.unreachable("it has ended the stream")),
                    Err(status) => Err(watched.failed(status).await),
                };
                let over = item.is_err();
                if sender.send(item).await.is_err() || over {
                    return;
                }
            }
        });
        Self { items, task: task.abort_handle() }
    }

    /// The next one; `None` when none came within `wait`.
    pub(super) fn next(
        &mut self,
        runtime: &Handle,
        wait: Duration,
    ) -> Option<Result<Payload, NodeError>> {
        match self.items.try_recv() {
            Ok(item) => return Some(item),
            Err(mpsc::error::TryRecvError::Empty) if wait.is_zero() => return None,
            // Closed: told below.
            Err(_) => {}
        }
        let item = runtime.block_on(async { tokio::time::timeout(wait, self.items.recv()).await });
        let closed = || Err(NodeError::Unreachable("the stream is closed".into()));
        item.ok().map(|item| item.unwrap_or_else(closed))
    }

    /// As [`Items::next`], from within the runtime.
    pub(super) async fn recv(&mut self) -> Option<Result<Payload, NodeError>> {
        self.items.recv().await
    }
}

/// A capture at an agent.
pub(super) struct RemoteFeed {
    link: Link,
    started: Started,
    items: Items,
    /// Nothing more comes.
    over: bool,
}

impl fmt::Debug for RemoteFeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteFeed").field("started", &self.started).finish_non_exhaustive()
    }
}

impl RemoteFeed {
    pub(super) fn start(link: &Link, request: &CaptureRequest) -> Result<Self, NodeError> {
        let request = pack(request).map_err(|why| link.nonsense(&why))?;
        let stream = link.runtime.block_on(async {
            let mut client = link.client(MAX_ITEM);
            let call = client.capture(link.request(request));
            match tokio::time::timeout(START, call).await {
                Ok(Ok(response)) => {
                    link.check(&response)?;
                    Ok(response.into_inner())
                }
                Ok(Err(status)) => Err(link.failed(status).await),
                Err(_) => Err(link.unreachable("it does not begin the trace")),
            }
        })?;
        let mut items = Items::of(link, stream);
        let first = items.next(&link.runtime, START);
        let first = first.ok_or_else(|| link.unreachable("it does not begin the trace"))??;
        let started: Result<Started, NodeError> =
            unpack(&first, MAX_ITEM).map_err(|why| link.nonsense(&why))?;
        Ok(Self { link: link.clone(), started: started?, items, over: false })
    }
}

impl Feed for RemoteFeed {
    fn started(&self) -> &Started {
        &self.started
    }

    fn next(&mut self, wait: Duration) -> Result<Option<Chunk>, NodeError> {
        if self.over {
            // As a local feed does, behind its end.
            std::thread::sleep(wait);
            return Ok(None);
        }
        let Some(payload) = self.items.next(&self.link.runtime, wait) else { return Ok(None) };
        let chunk = payload.and_then(|payload| {
            let chunk: Result<Chunk, NodeError> =
                unpack(&payload, MAX_ITEM).map_err(|why| self.link.nonsense(&why))?;
            chunk
        });
        self.over = match &chunk {
            Ok(chunk) => chunk.end.is_some(),
            Err(_) => true,
        };
        chunk.map(Some)
    }
}
