//! Peers that are broken or malicious cost bounded memory and get disconnected.

use std::future::Future;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tracer::agent::client::Collector;
use tracer::node::{Node, NodeError};

use crate::synthetic::{ENDLESS, PATIENCE, Pace, TestAgent, capture, probe, wait_for};

/// More than one connection may ever hold of what a peer sends, bytes.
const BOUND: u64 = 64 << 20;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// Bytes without any meaning.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// A body: frames, the last of them again and again if it is endless. Counts what was taken.
struct Frames {
    frames: Vec<Bytes>,
    endless: bool,
    taken: Arc<AtomicU64>,
    /// Of an answer, that it is whole.
    trailers: Option<HeaderMap>,
}

impl Body for Frames {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let next = match self.frames.len() {
            0 => {
                let trailers = self.trailers.take();
                return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
            }
            1 if self.endless => self.frames[0].clone(),
            _ => self.frames.remove(0),
        };
        self.taken.fetch_add(next.len() as u64, SeqCst);
        Poll::Ready(Some(Ok(Frame::data(next))))
    }
}

fn frames(frames: Vec<Vec<u8>>, endless: bool, taken: &Arc<AtomicU64>) -> Frames {
    let frames = frames.into_iter().map(Bytes::from).collect();
    Frames { frames, endless, taken: Arc::clone(taken), trailers: None }
}

/// A gRPC message: not compressed, length, bytes.
fn message(length: u32, bytes: &[u8]) -> Vec<u8> {
    let mut message = vec![0];
    message.extend(length.to_be_bytes());
    message.extend(bytes);
    message
}

/// Calls an agent with this body; its gRPC status.
fn call(agent: &TestAgent, method: &str, body: Frames) -> String {
    let (port, uri) = (agent.port(), format!("http://agent/podtrace.agent.Agent/{method}"));
    runtime().block_on(async move {
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.expect("connect");
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .expect("HTTP/2");
        tokio::spawn(connection);
        let request = Request::post(uri)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("podtrace-protocol", "1")
            .body(body)
            .expect("a request");
        let response = tokio::time::timeout(PATIENCE, sender.send_request(request));
        let response = response.await.expect("an answer in time").expect("an answer");
        let status = response.headers().get("grpc-status").expect("a status");
        status.to_str().expect("text").to_owned()
    })
}

/// The agent goes on serving.
fn serves(agent: &TestAgent) {
    agent.connect().hello().expect("an answer");
}

/// Waits until the other side closes.
fn is_disconnected(stream: &mut TcpStream) {
    stream.set_read_timeout(Some(PATIENCE)).expect("set");
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) => {
                let late = [std::io::ErrorKind::WouldBlock, std::io::ErrorKind::TimedOut];
                assert!(!late.contains(&error.kind()), "it stays connected");
                return;
            }
        }
    }
}

#[test]
fn noise_is_disconnected() {
    let agent = TestAgent::start(ENDLESS, |_| {});
    let mut stream = TcpStream::connect(("127.0.0.1", agent.port())).unwrap();
    // It may be closed before all is written.
    let _ = stream.write_all(&noise(1 << 20));
    is_disconnected(&mut stream);
    serves(&agent);
}

#[test]
fn whoever_says_nothing_is_disconnected() {
    let agent = TestAgent::start(ENDLESS, |settings| {
        settings.limits.patience = Duration::from_millis(200);
        settings.limits.connections = 1;
    });
    let mut stream = TcpStream::connect(("127.0.0.1", agent.port())).unwrap();
    is_disconnected(&mut stream);
    // Its place is free again.
    wait_for("a free place", || Collector::default().connect("B", &agent.target()).is_ok());
}

#[test]
fn messages_with_a_huge_length_are_refused() {
    let agent = TestAgent::start(ENDLESS, |_| {});
    for method in ["Hello", "Locate", "Facts", "Clock", "Capture", "Probe"] {
        let taken = Arc::default();
        let body = frames(vec![message(u32::MAX, &[0; 100])], false, &taken);
        // OUT_OF_RANGE
        assert_eq!(call(&agent, method, body), "11", "{method}");
    }
    serves(&agent);
}

#[test]
fn garbage_is_refused() {
    let agent = TestAgent::start(ENDLESS, |_| {});
    // A payload of protobuf whose data is no JSON; then bytes that are no protobuf.
    for bytes in [vec![0x0a, 3, 0xff, 0xfe, 0xfd], vec![0xff; 40]] {
        for method in ["Locate", "Facts", "Capture", "Probe"] {
            let body = frames(
                vec![message(u32::try_from(bytes.len()).unwrap(), &bytes)],
                false,
                &Arc::default(),
            );
            let status = call(&agent, method, body);
            // INVALID_ARGUMENT; INTERNAL
            assert!(status == "3" || status == "13", "{method}: {status}");
        }
    }
    assert_eq!(agent.counters.captures.load(SeqCst), 0);
    serves(&agent);
}

#[test]
fn an_endless_stream_is_not_taken() {
    let agent = TestAgent::start(ENDLESS, |_| {});
    for method in ["Hello", "Capture", "Probe"] {
        let taken = Arc::default();
        let chunk = message(0xfff0, &[0; 0xfff0]);
        let status = call(&agent, method, frames(vec![chunk], true, &taken));
        assert_ne!(status, "0", "{method}");
        assert!(taken.load(SeqCst) < BOUND, "{} bytes were taken", taken.load(SeqCst));
    }
    serves(&agent);
}

#[test]
fn a_reader_that_takes_nothing_holds_up_the_source_and_is_left() {
    let agent = TestAgent::start(Pace::Flood { at_once: 1000 }, |settings| {
        settings.limits.rate = u64::MAX;
        settings.limits.stall = Duration::from_millis(300);
    });
    let node = agent.connect();
    let mut feed = node.capture(&capture()).unwrap();
    wait_for("the agent to give up", || agent.has_said("the collector takes nothing"));
    assert_eq!(agent.attached(), 0);
    // What was made is what is on the way, and not more.
    let made = agent.counters.made.load(SeqCst);
    let mut came = 0;
    let error = loop {
        match feed.next(PATIENCE) {
            Ok(Some(chunk)) => came += chunk.events.len() as u64,
            Ok(None) => panic!("nothing came, and nothing was said"),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, NodeError::Unreachable(_)), "{error:?}");
    // The one that could not be sent is missing.
    assert_eq!(came + 1000, made);
    serves(&agent);
}

type Answer = Box<dyn Fn(&str) -> Response<Frames> + Send + Sync>;

/// Something that pretends to be an agent; its port.
fn impostor(answer: Answer) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let port = listener.local_addr().expect("an address").port();
    let answer = Arc::new(answer);
    // Ends with the process.
    thread::spawn(move || {
        runtime().block_on(async move {
            listener.set_nonblocking(true).expect("set");
            let listener = tokio::net::TcpListener::from_std(listener).expect("listen");
            while let Ok((stream, _)) = listener.accept().await {
                let answer = Arc::clone(&answer);
                let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                    let response = answer(request.uri().path());
                    Box::pin(async move { Ok::<_, std::convert::Infallible>(response) })
                        as Pin<Box<dyn Future<Output = _> + Send>>
                });
                let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .timer(TokioTimer::new())
                    .serve_connection(TokioIo::new(stream), service);
                tokio::spawn(connection);
            }
        });
    });
    port
}

fn response(mut body: Frames, protocol: Option<&str>) -> Response<Frames> {
    body.trailers = Some(HeaderMap::from_iter([(
        HeaderName::from_static("grpc-status"),
        HeaderValue::from_static("0"),
    )]));
    let mut response = Response::builder().header("content-type", "application/grpc");
    if let Some(protocol) = protocol {
        response = response.header("podtrace-protocol", protocol);
    }
    response.body(body).expect("a response")
}

fn target(port: u16) -> tracer::agent::address::Target {
    format!("http://127.0.0.1:{port}").parse().expect("a target")
}

fn error_of(answer: Answer) -> String {
    let error = Collector::default().connect("B", &target(impostor(answer))).expect_err("refused");
    assert!(!error.to_string().contains('\n'));
    error.to_string()
}

#[test]
fn a_collector_takes_only_an_agent_for_one() {
    let reply = |bytes: &[u8], protocol: Option<&'static str>| -> Answer {
        let bytes = bytes.to_vec();
        Box::new(move |_| response(frames(vec![bytes.clone()], false, &Arc::default()), protocol))
    };
    let empty = message(0, &[]);
    let error = error_of(reply(&empty, None));
    assert!(error.contains("does not speak podtrace's protocol"), "{error}");
    let error = error_of(reply(&empty, Some("2")));
    assert!(error.contains("the agent speaks protocol 2, this side 1"), "{error}");
    let error = error_of(reply(&empty, Some("1")));
    assert!(error.contains("makes no sense"), "{error}");
    let error = error_of(reply(&message(u32::MAX, &[]), Some("1")));
    assert!(error.contains("makes no sense"), "{error}");
    error_of(reply(&noise(1000), Some("1")));
}

#[test]
fn a_collector_is_not_held_by_noise() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let noisy = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        // It may be closed before all is written.
        let _ = stream.write_all(&noise(1 << 20));
        is_disconnected(&mut stream);
    });
    let error = Collector::default().connect("B", &target(port)).unwrap_err();
    assert!(matches!(error, NodeError::Unreachable(_)), "{error:?}");
    noisy.join().unwrap();
}

/// `Payload { data }`, then perhaps as an item with a sequence number.
fn payload(json: &str) -> Vec<u8> {
    let mut bytes = vec![0x0a, u8::try_from(json.len()).expect("short")];
    bytes.extend(json.as_bytes());
    bytes
}

fn item(json: &str) -> Vec<u8> {
    let payload = payload(json);
    let mut bytes = vec![0x12, u8::try_from(payload.len()).expect("short")];
    bytes.extend(payload);
    message(u32::try_from(bytes.len()).expect("short"), &bytes)
}

const HELLO: &str = r#"{"Ok":{"protocol":1,"version":"","kernel":"","architecture":"",
"boot_id":"","clock_ns":0,"wall":""}}"#;

#[test]
fn an_agent_that_sends_without_end_is_held_up() {
    let taken = Arc::<AtomicU64>::default();
    let counted = Arc::clone(&taken);
    let port = impostor(Box::new(move |path| {
        let body = if path.ends_with("Hello") {
            let hello = payload(HELLO);
            vec![message(u32::try_from(hello.len()).expect("short"), &hello)]
        } else {
            let started = item(r#"{"Ok":{"armed_ns":1,"disabled":[],"vanished":[]}}"#);
            // An item of a MiB that is nothing but noise, again and again.
            vec![started, message(1 << 20, &noise(1 << 20))]
        };
        let endless = !path.ends_with("Hello");
        let counter = if endless { Arc::clone(&counted) } else { Arc::default() };
        response(frames(body, endless, &counter), Some("1"))
    }));
    let node = Collector::default().connect("B", &target(port)).unwrap();
    let mut feed = node.capture(&capture()).unwrap();
    // Nonsense ends it, and the stream with it.
    let error = feed.next(PATIENCE).unwrap_err();
    assert!(!error.to_string().is_empty());
    let probing = node.probe(&probe(1)).unwrap();
    wait_for("the probe's end", || probing.is_finished());
    assert!(probing.join().is_err());
    drop(feed);
    assert!(taken.load(SeqCst) < BOUND, "{} bytes were taken", taken.load(SeqCst));
}
