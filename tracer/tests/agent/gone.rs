//! Agent, collector or link gone in the middle of a trace.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use tracer::agent::client::Collector;
use tracer::node::{End, Feed, Node, NodeError};

use crate::synthetic::{ENDLESS, PATIENCE, TestAgent, capture, probe, wait_for};

/// A link in between that can be cut.
struct Link {
    port: u16,
    /// Nothing passes any more, but nobody is told.
    dark: Arc<AtomicBool>,
    streams: Arc<Mutex<Vec<TcpStream>>>,
}

impl Link {
    fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        let link = Self {
            port: listener.local_addr().expect("address").port(),
            dark: Arc::default(),
            streams: Arc::default(),
        };
        let (dark, streams) = (Arc::clone(&link.dark), Arc::clone(&link.streams));
        // Ends with the process.
        thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let far = TcpStream::connect(("127.0.0.1", port)).expect("the agent");
                let copy = |stream: &TcpStream| stream.try_clone().expect("a descriptor");
                streams.lock().expect("no panic").extend([copy(&near), copy(&far)]);
                for (from, to) in [(copy(&near), copy(&far)), (far, near)] {
                    let dark = Arc::clone(&dark);
                    thread::spawn(move || pass(from, to, &dark));
                }
            }
        });
        link
    }

    fn cut(&self) {
        for stream in &*self.streams.lock().expect("no panic") {
            // It may be closed already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, dark: &AtomicBool) {
    let mut buffer = [0; 1 << 14];
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        if !dark.load(SeqCst) && to.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
}

/// Takes chunks until the agent is unreachable; why it is.
fn until_unreachable(feed: &mut dyn Feed) -> String {
    loop {
        match feed.next(PATIENCE) {
            Ok(Some(chunk)) => assert_eq!(chunk.end, None),
            Ok(None) => panic!("nothing came, and nothing was said"),
            Err(NodeError::Unreachable(why)) => return why,
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn a_cut_connection_is_noticed_by_both_sides() {
    let agent = TestAgent::start(ENDLESS, |_| {});
    let link = Link::to(agent.port());
    let target = format!("http://127.0.0.1:{}", link.port).parse().unwrap();
    let node = Collector::default().connect("B", &target).unwrap();
    let mut feed = node.capture(&capture()).unwrap();
    let probing = node.probe(&probe(u64::MAX)).unwrap();
    assert!(feed.next(PATIENCE).unwrap().is_some());
    link.cut();
    let why = until_unreachable(&mut *feed);
    assert!(why.starts_with("the agent of node B at http://127.0.0.1:"), "{why}");
    wait_for("programs to be detached", || agent.attached() == 0);
    wait_for("the probe to stop", || agent.counters.probes.load(SeqCst) == 0);
    wait_for("the probe's end", || probing.is_finished());
    assert!(probing.join().unwrap_err().to_string().contains("the agent of node B"));
    // Nothing more comes, and calls fail at once.
    assert!(feed.next(Duration::ZERO).unwrap().is_none());
    assert!(matches!(node.hello(), Err(NodeError::Unreachable(_))));
    // Others are served.
    agent.connect().capture(&capture()).unwrap();
}

#[test]
fn a_link_that_goes_dark_is_noticed_by_both_sides() {
    let agent = TestAgent::start(ENDLESS, |_| {});
    let link = Link::to(agent.port());
    let target = format!("http://127.0.0.1:{}", link.port).parse().unwrap();
    let node = Collector::default().connect("B", &target).unwrap();
    let mut feed = node.capture(&capture()).unwrap();
    assert!(feed.next(PATIENCE).unwrap().is_some());
    link.dark.store(true, SeqCst);
    // Each side asks whether the other is still there.
    until_unreachable(&mut *feed);
    wait_for("programs to be detached", || agent.attached() == 0);
}

#[test]
fn a_collector_that_ends_has_its_programs_detached() {
    let agent = TestAgent::start(ENDLESS, |_| {});
    let (first, second) = (agent.connect(), agent.connect());
    let mut feed = first.capture(&capture()).unwrap();
    let other = second.capture(&capture()).unwrap();
    assert!(feed.next(PATIENCE).unwrap().is_some());
    assert_eq!(agent.attached(), 2);
    drop(feed);
    wait_for("one to be detached", || agent.attached() == 1);
    drop(other);
    wait_for("the other to be detached", || agent.attached() == 0);
    wait_for("the agent to say so", || agent.has_said("the collector has gone"));
    // The connections are still there.
    first.capture(&capture()).unwrap();
}

#[test]
fn an_agent_that_is_stopped_says_good_bye() {
    let agent = TestAgent::start(ENDLESS, |_| {});
    let node = agent.connect();
    let mut feed = node.capture(&capture()).unwrap();
    let TestAgent { server, counters, .. } = agent;
    server.stop();
    let end = loop {
        if let Some(end) = feed.next(PATIENCE).unwrap().expect("a chunk").end {
            break end;
        }
    };
    assert_eq!(end, End::Other("the agent was stopped".into()));
    wait_for("programs to be detached", || counters.attached.load(SeqCst) == 0);
    wait_for("the connection to be closed", || node.hello().is_err());
}

#[test]
fn nobody_there_is_said() {
    let port = {
        let agent = TestAgent::start(ENDLESS, |_| {});
        agent.port()
    };
    let target = format!("http://127.0.0.1:{port}").parse().unwrap();
    let error = Collector::default().connect("B", &target).unwrap_err();
    let text = format!("the agent of node B at http://127.0.0.1:{port}: Connection refused");
    assert!(error.to_string().starts_with(&text), "{error}");
}
