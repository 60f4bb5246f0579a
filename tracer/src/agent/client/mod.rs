//! The collector's side: a node that is served by an agent.

mod connect;
mod feed;
mod probing;
mod runtime;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::Handle;
use tokio_rustls::rustls::ClientConfig;
use tonic::{Code, Request, Status};

use self::connect::Channel;
use super::address::Target;
use super::payload::{MAX_ANSWER, MAX_REQUEST, pack, unpack};
use super::proto::Payload;
use super::proto::agent_client::AgentClient;
use super::tls::{COLLECTOR_FOLDER, Credentials};
use super::{Speaks, one_line};
use crate::facts::in_full;
use crate::kernel::monotonic_ns;
use crate::node::{
    CaptureRequest, ClockSample, FactsRequest, Feed, Hello, Locate, Located, Node, NodeError,
    NodeFacts, ProbeRequest, Probing,
};

/// How long an agent may take to answer who it is, with connecting.
const HELLO: Duration = Duration::from_secs(10);
/// … to find a namespace.
const LOCATE: Duration = Duration::from_secs(30);
/// … to read network state.
const FACTS: Duration = Duration::from_secs(60);
/// … to read its clock.
const CLOCK: Duration = Duration::from_secs(3);
/// … to load and attach programs.
const START: Duration = Duration::from_secs(60);

/// What an item of a stream takes at most, bytes, as it comes and unpacked.
const MAX_ITEM: usize = 16 << 20;

/// A node behind an agent.
#[derive(Debug)]
pub struct RemoteNode {
    link: Link,
}

/// A connection to an agent.
#[derive(Clone, Debug)]
struct Link {
    /// `the agent of node B at https://…`
    agent: String,
    channel: Channel,
    speaks: Speaks,
    runtime: Handle,
}

/// How to reach agents.
#[derive(Clone, Debug, Default)]
pub struct Collector {
    /// Certificates; `None`: only agents on this machine can be reached.
    pub tls: Option<Arc<ClientConfig>>,
    /// Protocol and version.
    pub speaks: Speaks,
}

impl Collector {
    /// With the certificates in a folder ([`COLLECTOR_FOLDER`] if none is given).
    ///
    /// # Errors
    /// When they cannot be used, in words.
    pub fn with_certificates(folder: Option<&Path>) -> Result<Self, String> {
        let folder = folder.unwrap_or(Path::new(COLLECTOR_FOLDER));
        let tls = Credentials::read(folder).and_then(|c| c.client());
        Ok(Self { tls: Some(tls.map_err(|error| in_full(&error))?), ..Self::default() })
    }

    /// Connects to the agent of a node, and hears that it speaks the same protocol.
    ///
    /// # Errors
    /// When it cannot be reached, or one refuses the other.
    pub fn connect(&self, node: &str, target: &Target) -> Result<RemoteNode, NodeError> {
        let agent = format!("the agent of node {node} at {target}");
        let failed = |why: String| NodeError::Unreachable(format!("{agent}: {why}"));
        let runtime = runtime::handle().map_err(failed)?;
        let channel = runtime.block_on(async {
            match tokio::time::timeout(HELLO, Channel::connect(target, self.tls.clone())).await {
                Ok(channel) => channel.map_err(failed),
                Err(_) => Err(failed(format!("no answer within {} s", HELLO.as_secs()))),
            }
        })?;
        let link = Link { agent, channel, speaks: self.speaks.clone(), runtime };
        let node = RemoteNode { link };
        node.hello()?;
        Ok(node)
    }
}

/// Connects to the agent that an inventory names: `folder` is where it says that the certificates
/// are.
///
/// # Errors
/// When the address is none, there are no certificates, the agent cannot be reached or refuses.
pub fn connect(node: &str, url: &str, folder: Option<&Path>) -> Result<RemoteNode, NodeError> {
    let refused = |why: String| NodeError::Refused(format!("the agent of node {node}: {why}"));
    let target: Target = url.parse().map_err(refused)?;
    let collector = match &target {
        Target::Tls { .. } => Collector::with_certificates(folder).map_err(refused)?,
        Target::Plain(_) | Target::Unix(_) => Collector::default(),
    };
    collector.connect(node, &target)
}

/// The calls that are a question and an answer.
#[derive(Clone, Copy)]
enum Call {
    Hello,
    Locate,
    Facts,
    Clock,
}

impl Link {
    fn client(&self, limit: usize) -> AgentClient<Channel> {
        AgentClient::with_origin(self.channel.clone(), connect::origin())
            .max_decoding_message_size(limit)
            .max_encoding_message_size(MAX_REQUEST)
    }

    fn request<T>(&self, body: T) -> Request<T> {
        let mut request = Request::new(body);
        self.speaks.tell(request.metadata_mut());
        request
    }

    fn unreachable(&self, why: &str) -> NodeError {
        NodeError::Unreachable(format!("{}: {why}", self.agent))
    }

    fn nonsense(&self, why: &str) -> NodeError {
        NodeError::Nonsense(format!("{}: {}", self.agent, one_line(why)))
    }

    /// What a status means.
    async fn failed(&self, status: Status) -> NodeError {
        let says = one_line(status.message());
        match status.code() {
            Code::FailedPrecondition
            | Code::ResourceExhausted
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::InvalidArgument => NodeError::Refused(format!("{}: {says}", self.agent)),
            Code::Unimplemented => NodeError::Refused(format!(
                "{}: does not know the call; use the same version of podtrace on both sides",
                self.agent
            )),
            Code::OutOfRange | Code::DataLoss => self.nonsense(&says),
            // The connection knows better what has happened to it.
            _ => match self.channel.why_closed().await {
                Some(why) => self.unreachable(&why),
                None => self.unreachable(&says),
            },
        }
    }

    /// Refuses an answer of another version.
    fn check<T>(&self, response: &tonic::Response<T>) -> Result<(), NodeError> {
        let checked = self.speaks.check("agent", response.metadata());
        checked.map_err(|why| NodeError::Refused(format!("{}: {why}", self.agent)))
    }

    fn ask<Q: Serialize, A: DeserializeOwned>(
        &self,
        call: Call,
        question: &Q,
        limit: Duration,
    ) -> Result<A, NodeError> {
        let question = pack(question).map_err(|why| self.nonsense(&why))?;
        let answer = self.runtime.block_on(async {
            let asked = tokio::time::timeout(limit, self.call(call, question)).await;
            asked.unwrap_or_else(|_| {
                Err(self.unreachable(&format!("no answer within {} s", limit.as_secs())))
            })
        })?;
        // What it could not do, it says in the answer.
        let answer: Result<A, NodeError> =
            unpack(&answer, MAX_ANSWER).map_err(|why| self.nonsense(&why))?;
        answer
    }

    async fn call(&self, call: Call, question: Payload) -> Result<Payload, NodeError> {
        let mut client = self.client(MAX_ANSWER);
        let request = self.request(question);
        let response = match call {
            Call::Hello => client.hello(request).await,
            Call::Locate => client.locate(request).await,
            Call::Facts => client.facts(request).await,
            Call::Clock => client.clock(request).await,
        };
        match response {
            Ok(response) => {
                self.check(&response)?;
                Ok(response.into_inner())
            }
            Err(status) => Err(self.failed(status).await),
        }
    }
}

impl Node for RemoteNode {
    fn hello(&self) -> Result<Hello, NodeError> {
        self.link.ask(Call::Hello, &(), HELLO)
    }

    fn locate(&self, what: &Locate) -> Result<Located, NodeError> {
        self.link.ask(Call::Locate, what, LOCATE)
    }

    fn facts(&self, request: &FactsRequest) -> Result<NodeFacts, NodeError> {
        self.link.ask(Call::Facts, request, FACTS)
    }

    fn capture(&self, request: &CaptureRequest) -> Result<Box<dyn Feed>, NodeError> {
        Ok(Box::new(feed::RemoteFeed::start(&self.link, request)?))
    }

    fn probe(&self, request: &ProbeRequest) -> Result<Box<dyn Probing>, NodeError> {
        Ok(Box::new(probing::RemoteProbing::start(&self.link, request)?))
    }

    fn clock(&self) -> Result<ClockSample, NodeError> {
        let asked_ns = monotonic_ns();
        let sample: ClockSample = self.link.ask(Call::Clock, &(), CLOCK)?;
        Ok(ClockSample { asked_ns, node_ns: sample.node_ns, answered_ns: monotonic_ns() })
    }
}
