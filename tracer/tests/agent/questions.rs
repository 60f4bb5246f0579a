//! Calls that succeed, and refusals that are clear.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use tracer::agent::Speaks;
use tracer::agent::client::Collector;
use tracer::node::{Depth, End, FactsRequest, Locate, Node, NodeError};

use crate::synthetic::{ENDLESS, PATIENCE, Pace, TestAgent, capture, probe, wait_for};

#[test]
fn a_remote_node_answers_as_the_local_one() {
    let agent = TestAgent::start(ENDLESS, |_| {});
    let node = agent.connect();
    assert_eq!(node.hello().unwrap().kernel, "6.99");
    let ip = [192, 0, 2, 7].into();
    let missing = node.locate(&Locate::Address { ip, nodes: Vec::new(), pods: Vec::new() });
    assert_eq!(missing, Err(NodeError::NoAddress(ip)));
    let request =
        FactsRequest { spaces: Vec::new(), depth: Depth::Tables, ends: Vec::new(), peers: None };
    assert_eq!(node.facts(&request).unwrap().spaces, []);
    let sample = node.clock().unwrap();
    assert!(sample.asked_ns <= sample.node_ns && sample.node_ns <= sample.answered_ns);
}

#[test]
fn a_capture_comes_with_everything() {
    let pace = Pace::Steady { rate: 100_000, count: 5000, backlog: u64::MAX };
    let agent = TestAgent::start(pace, |_| {});
    let node = agent.connect();
    let mut feed = node.capture(&capture()).unwrap();
    assert_eq!(feed.started().armed_ns, 1);
    let mut seen = Vec::new();
    let last = loop {
        let Some(chunk) = feed.next(PATIENCE).unwrap() else { panic!("nothing came") };
        chunk.events.for_each(|event| seen.push(event.unwrap().skb));
        if chunk.end.is_some() {
            break chunk;
        }
    };
    assert_eq!(seen, (0..5000).collect::<Vec<_>>());
    assert_eq!(last.end, Some(End::Other("all is made".into())));
    assert_eq!((last.loss.total(), last.until_ns), (0, 6000));
    wait_for("the node to detach", || agent.attached() == 0);
}

#[test]
fn a_probe_tells_of_its_progress_and_stops_when_asked() {
    let agent = TestAgent::start(ENDLESS, |_| {});
    let node = agent.connect();
    let probing = node.probe(&probe(5)).unwrap();
    assert_eq!(probing.join().unwrap().sent, 5);

    let probing = node.probe(&probe(u64::MAX)).unwrap();
    wait_for("progress", || probing.progress().sent >= 3);
    assert!(!probing.is_finished());
    probing.stop();
    wait_for("its end", || probing.is_finished());
    assert!(probing.join().unwrap().sent >= 3);

    // Dropped without a word.
    let probing = node.probe(&probe(u64::MAX)).unwrap();
    wait_for("it to run", || agent.counters.probes.load(SeqCst) == 1);
    drop(probing);
    wait_for("it to stop", || agent.counters.probes.load(SeqCst) == 0);

    // Errors of the kernel stay what they are.
    let error = node.probe(&probe(13)).unwrap().join().unwrap_err();
    assert_eq!(error.raw_os_error(), Some(99));
}

#[test]
fn other_versions_are_refused_by_both_sides() {
    let newer = || Speaks { protocol: Speaks::default().protocol + 1, version: "9.9.9".into() };
    let refusal = |agent: &TestAgent, speaks| {
        let collector = Collector { tls: None, speaks };
        let error = collector.connect("B", &agent.target()).unwrap_err();
        assert!(matches!(error, NodeError::Refused(_)), "{error:?}");
        error.to_string()
    };
    let agent = TestAgent::start(ENDLESS, |_| {});
    let text = refusal(&agent, newer());
    assert!(
        text.contains("the collector speaks protocol 2 (podtrace 9.9.9), this side 1"),
        "{text}"
    );
    assert!(text.contains("use the same version of podtrace on both"), "{text}");
    let agent = TestAgent::start(ENDLESS, |settings| settings.speaks = newer());
    let text = refusal(&agent, Speaks::default());
    assert!(text.contains("the collector speaks protocol 1"), "{text}");
    assert!(!text.contains('\n'));
}

#[test]
fn limits_are_kept_and_said() {
    let agent = TestAgent::start(Pace::Flood { at_once: 500 }, |settings| {
        settings.limits.traces = 1;
        settings.limits.rate = 1000;
        settings.limits.duration = Duration::from_millis(1500);
    });
    let node = agent.connect();
    let mut feed = node.capture(&capture()).unwrap();
    let error = agent.connect().capture(&capture()).unwrap_err();
    assert!(error.to_string().contains("serves 1 traces already, which is its limit"), "{error}");
    let mut seen = 0;
    let last = loop {
        let Some(chunk) = feed.next(PATIENCE).unwrap() else { panic!("nothing came") };
        seen += chunk.events.len() as u64;
        if chunk.end.is_some() {
            break chunk;
        }
    };
    assert_eq!(last.end, Some(End::Duration(Duration::from_millis(1500))));
    assert_eq!(seen + last.loss.over_rate, agent.counters.made.load(SeqCst));
    assert!(last.loss.over_rate > 0, "{:?}", last.loss);
    wait_for("the trace to be over", || agent.server.traces() == 0);
    node.capture(&capture()).unwrap();
}
