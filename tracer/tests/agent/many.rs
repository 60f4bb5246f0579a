//! Many agents, one collector.

use std::time::{Duration, Instant};

use tracer::node::{Feed, Node};

use crate::synthetic::{PATIENCE, Pace, TestAgent, capture};

const AGENTS: usize = 24;
/// Events per second of each.
const RATE: u64 = 10_000;
/// Events of each: two seconds' worth.
const COUNT: u64 = 2 * RATE;

/// What came from an agent.
struct Received {
    feed: Box<dyn Feed>,
    events: u64,
    /// Sequence number behind the last event.
    next: u64,
    lost: u64,
    over: bool,
}

#[test]
fn every_event_of_24_agents_comes_or_is_counted() {
    // A real node holds what is not taken at once for a while, too.
    let pace = Pace::Steady { rate: RATE, count: COUNT, backlog: 2 * RATE };
    let agents: Vec<TestAgent> = (0..AGENTS).map(|_| TestAgent::start(pace, |_| {})).collect();
    let nodes: Vec<_> = agents.iter().map(TestAgent::connect).collect();
    let mut all: Vec<Received> = nodes
        .iter()
        .map(|node| Received {
            feed: node.capture(&capture()).unwrap(),
            events: 0,
            next: 0,
            lost: 0,
            over: false,
        })
        .collect();
    let deadline = Instant::now() + 3 * PATIENCE;
    while all.iter().any(|one| !one.over) {
        assert!(Instant::now() < deadline, "it takes too long");
        let mut idle = true;
        for one in all.iter_mut().filter(|one| !one.over) {
            let Some(chunk) = one.feed.next(Duration::ZERO).unwrap() else { continue };
            idle = false;
            let mut gaps = 0;
            chunk.events.for_each(|event| {
                let number = event.unwrap().skb;
                assert!(number >= one.next, "an event came twice");
                gaps += number - one.next;
                one.next = number + 1;
                one.events += 1;
            });
            one.lost += gaps;
            // A loss is told with the first event behind it, at the latest.
            assert!(one.lost <= chunk.loss.total(), "{} lost, {:?} told", one.lost, chunk.loss);
            if chunk.end.is_some() {
                one.over = true;
                assert_eq!(one.events + chunk.loss.total(), COUNT);
            }
        }
        if idle {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    let came: u64 = all.iter().map(|one| one.events).sum();
    eprintln!("{came} of {} events came", COUNT * AGENTS as u64);
    assert!(came > 0);
}
