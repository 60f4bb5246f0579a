//! A TCP transfer whose super-packets are cut and merged by two machines, each in its own way.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use tracer::model::Direction;
use tracer::report::{Report, Status};

use crate::common::trace::direction;
use crate::server::Server;
use crate::wire::{From, is_large_tcp};
use crate::{Pair, pair};

/// Of the file that is fetched, bytes.
const SIZE: u64 = 400_000;
/// `-m`: also when the machines are slow it ends.
const FETCH: &str = "ip netns exec podtrace-A-a \
                     curl -sf -m 60 -o /dev/null http://10.10.1.2:8080/file";

/// Offloads of a machine: its tunnel's and its card's.
fn offload(pair: &Pair, node: From, state: &str) {
    let guest = if node == From::A { &pair.a } else { &pair.b };
    guest.ok(&format!(
        "for device in ens33 flannel.1; do \
             ethtool -K $device gso {state} tso {state} gro {state} || exit; \
         done"
    ));
}

#[track_caller]
fn assert_complete(report: &Report, how: &str) {
    assert_eq!(report.loss.events_lost, 0, "{how}: {:#?}", report.loss);
    let back = direction(report, Direction::Reply);
    let hops: Vec<_> = back.hops.iter().filter(|hop| hop.expected).collect();
    assert_eq!(hops.len(), 10, "{how}");
    // The file and the header of HTTP.
    let bytes = hops[0].bytes;
    assert!((SIZE..SIZE + 1000).contains(&bytes), "{how}: {bytes}");
    for hop in hops {
        assert_eq!(hop.bytes, bytes, "{how}: {hop:#?}");
    }
}

#[test]
fn every_byte_is_followed_however_it_is_cut() {
    let Some(pair) = pair() else { return };
    let _server = Server::start(&pair, SIZE);
    for (a, b) in [("on", "off"), ("off", "on")] {
        offload(&pair, From::A, a);
        offload(&pair, From::B, b);
        let report = pair.watch("--proto tcp", FETCH);
        let how = format!("A {a}, B {b}");
        assert_complete(&report, &how);
        assert_eq!(report.verdict.status, Status::Delivered, "{how}: {:#?}", report.verdict);
        // Super-packets of the sender, segments on the wire.
        let cut = report.journeys.iter().filter(|j| j.direction == Direction::Reply).any(|j| {
            let skbs = |at: usize| j.hops.get(at).map_or(0, |hop| hop.skbs);
            skbs(0) == 1 && skbs(5) > 1
        });
        assert!(cut, "{how}: {:#?}", report.journeys.iter().max_by_key(|j| j.bytes));
    }
    offload(&pair, From::A, "on");
    offload(&pair, From::B, "on");
}

#[test]
fn a_segment_that_the_wire_loses_is_named_with_what_brought_it_later() {
    let Some(pair) = pair() else { return };
    let _server = Server::start(&pair, SIZE);
    // Of several super-packets the middle of one.
    let seen = Arc::new(AtomicU32::new(0));
    let fault = pair.wire.broken(move |from, frame| {
        from == From::B && is_large_tcp(frame, 1400) && seen.fetch_add(1, Relaxed) == 100
    });
    let report = pair.watch("--proto tcp", FETCH);
    drop(fault);
    assert_complete(&report, "one lost");
    let parts = |j: &tracer::report::JourneyReport| j.missing.clone();
    let missing: Vec<_> = report.journeys.iter().flat_map(parts).collect();
    let [lost] = &missing[..] else { panic!("{missing:#?} {:#?}", report.verdict) };
    assert!(!lost.dropped, "{lost:#?}");
    assert_eq!(lost.first_segment, lost.last_segment, "{lost:#?}");
    let seen = lost.last_seen.as_ref().expect("where it was seen last");
    assert_eq!((seen.node.as_str(), seen.interface.as_str()), ("B", "ens33"), "{lost:#?}");
    assert!(lost.resent.is_some() && lost.arrived_after_ns.is_some(), "{lost:#?}");
    assert!(report.packets.retransmitted > 0, "{:#?}", report.packets);
}
