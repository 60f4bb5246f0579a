//! The calls.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use futures_util::stream::poll_fn;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tonic::{Request, Response, Status, Streaming};

use super::Shared;
use super::stream::{self, QUEUE};
use crate::agent::payload::{MAX_REQUEST, pack, unpack};
use crate::agent::proto::agent_server::Agent;
use crate::agent::proto::{Item, Payload};
use crate::node::{Node, NodeError};

/// How long a question may wait for its turn.
const TURN: Duration = Duration::from_secs(20);

/// How long a probe's request may take to come.
const REQUEST: Duration = Duration::from_secs(5);

type Items = Pin<Box<dyn Stream<Item = Result<Item, Status>> + Send>>;

/// Answers one connection.
pub struct Service {
    shared: Arc<Shared>,
    node: Arc<dyn Node>,
    /// Who asks, for the log.
    from: String,
}

impl Service {
    pub fn new(shared: Arc<Shared>, node: Arc<dyn Node>, from: String) -> Self {
        Self { shared, node, from }
    }

    /// Refuses who speaks something else.
    fn check<T>(&self, request: &Request<T>) -> Result<(), Status> {
        let speaks = &self.shared.settings.speaks;
        speaks.check("collector", request.metadata()).map_err(Status::failed_precondition)
    }

    fn respond<T>(&self, body: T) -> Response<T> {
        let mut response = Response::new(body);
        self.shared.settings.speaks.tell(response.metadata_mut());
        response
    }

    /// Answers a question on a thread where that may take its time.
    async fn answer<Q, A>(
        &self,
        request: Request<Payload>,
        answer: fn(&dyn Node, &Q) -> Result<A, NodeError>,
    ) -> Result<Response<Payload>, Status>
    where
        Q: DeserializeOwned + Send + 'static,
        A: Serialize + 'static,
    {
        self.check(&request)?;
        let question: Q =
            unpack(request.get_ref(), MAX_REQUEST).map_err(Status::invalid_argument)?;
        let turn = Arc::clone(&self.shared.questions).acquire_owned();
        let Ok(Ok(permit)) = tokio::time::timeout(TURN, turn).await else {
            return Err(Status::resource_exhausted("the agent is too busy with other questions"));
        };
        let node = Arc::clone(&self.node);
        let worked = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            pack(&answer(&*node, &question))
        });
        let answer = worked.await.map_err(|_| Status::internal("the agent failed"))?;
        Ok(self.respond(answer.map_err(Status::internal)?))
    }

    fn permit(&self, of: &Arc<Semaphore>, what: &str) -> Result<OwnedSemaphorePermit, Status> {
        Arc::clone(of).try_acquire_owned().map_err(|_| {
            Status::resource_exhausted(format!(
                "the agent serves {} {what} already, which is its limit",
                self.shared.settings.limits.traces
            ))
        })
    }
}

/// What comes out of a channel.
fn items(mut receiver: mpsc::Receiver<Item>) -> Items {
    Box::pin(poll_fn(move |context| receiver.poll_recv(context).map(|item| item.map(Ok))))
}

#[tonic::async_trait]
impl Agent for Service {
    type CaptureStream = Items;
    type ProbeStream = Items;

    async fn hello(&self, request: Request<Payload>) -> Result<Response<Payload>, Status> {
        self.answer(request, |node, (): &()| node.hello()).await
    }

    async fn locate(&self, request: Request<Payload>) -> Result<Response<Payload>, Status> {
        self.answer(request, |node, what| node.locate(what)).await
    }

    async fn facts(&self, request: Request<Payload>) -> Result<Response<Payload>, Status> {
        self.answer(request, |node, question| node.facts(question)).await
    }

    async fn clock(&self, request: Request<Payload>) -> Result<Response<Payload>, Status> {
        self.check(&request)?;
        // Not on another thread: what is not measured adds to the error.
        let answer = pack(&self.node.clock()).map_err(Status::internal)?;
        Ok(self.respond(answer))
    }

    async fn capture(&self, request: Request<Payload>) -> Result<Response<Items>, Status> {
        self.check(&request)?;
        let question = unpack(request.get_ref(), MAX_REQUEST).map_err(Status::invalid_argument)?;
        let question = self.shared.settings.limits.capture(question);
        let permit = self.permit(&self.shared.traces, "traces")?;
        let (sender, receiver) = mpsc::channel(QUEUE);
        let sending = stream::Sending::new(&self.shared, &self.from, sender);
        let node = Arc::clone(&self.node);
        let work = move || {
            stream::capture(&*node, &question, sending);
            drop(permit);
        };
        std::thread::Builder::new().name("trace".into()).spawn(work)?;
        Ok(self.respond(items(receiver)))
    }

    async fn probe(&self, request: Request<Streaming<Payload>>) -> Result<Response<Items>, Status> {
        self.check(&request)?;
        let mut requests = request.into_inner();
        let first = tokio::time::timeout(REQUEST, requests.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("no request came"))??;
        let first = first.ok_or_else(|| Status::invalid_argument("no request came"))?;
        let question = unpack(&first, MAX_REQUEST).map_err(Status::invalid_argument)?;
        let question = self.shared.settings.limits.probe(question);
        let permit = self.permit(&self.shared.probes, "probes")?;
        let (sender, receiver) = mpsc::channel(QUEUE);
        let sending = stream::Sending::new(&self.shared, &self.from, sender);
        let stop = sending.stop();
        // Whatever comes next, or nothing more: it is to stop.
        tokio::spawn(async move {
            let _ = requests.message().await;
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        let node = Arc::clone(&self.node);
        let work = move || {
            stream::probe(&*node, &question, sending);
            drop(permit);
        };
        std::thread::Builder::new().name("probe".into()).spawn(work)?;
        Ok(self.respond(items(receiver)))
    }
}
