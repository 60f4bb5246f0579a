//! What the kernel side lets through where the filter needs its maps: many addresses, many ports.
//!
//! Needs root; runs only with `PODTRACE_PRIVILEGED=1`.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests fail the test")]

mod common;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::Command;

use common::trace::PATIENCE;
use common::{privileged, unique_name};
use tracer::kernel::{Capture, Filter, Options};
use tracer::model::{Role, Station};
use tracer::netns::Netns;
use tracer_common::{HopHeader, KIND_HOP};

/// A namespace that goes away with this value.
struct Space(String);

impl Space {
    fn new() -> Self {
        let space = Self(format!("podtrace-{}-filter", unique_name()));
        run(&["netns", "add", &space.0]);
        run(&["-n", &space.0, "link", "set", "lo", "up"]);
        space
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

fn run(args: &[&str]) {
    assert!(Command::new("ip").args(args).status().unwrap().success(), "ip {args:?}");
}

fn loopback(netns: &Netns) -> Station {
    Station {
        node: "A".into(),
        pod: None,
        netns: netns.name().to_owned(),
        netns_inum: netns.inum(),
        ifindex: 1,
        name: "lo".into(),
        role: Role::Other,
        mac: None,
        mtu: 65_536,
        up: true,
        addresses: Vec::new(),
        vxlan: None,
        ethernet: true,
    }
}

/// Destination ports of the first `count` UDP packets over IPv4 that the hop programs record.
fn ports(capture: &Capture, count: usize) -> Vec<u16> {
    // Behind the record's header: Ethernet, IPv4, UDP.
    const KIND: usize = std::mem::offset_of!(HopHeader, kind);
    const IP: usize = size_of::<HopHeader>() + 14;
    const PORT: usize = IP + 20 + 2;
    let mut ports = Vec::new();
    while ports.len() < count {
        let batch = capture.batches().recv_timeout(PATIENCE).expect("records in time");
        let hops = batch.records().filter(|r| r[KIND] == KIND_HOP && r[IP + 9] == 17);
        ports.extend(hops.map(|r| u16::from_be_bytes([r[PORT], r[PORT + 1]])));
    }
    ports
}

#[test]
fn maps_decide_where_addresses_and_ports_are_many() {
    if !privileged() {
        return;
    }
    let space = Space::new();
    let netns = Netns::open(&space.0).unwrap();
    let source = IpAddr::from([127, 0, 0, 1]);
    let mut filter = Filter { proto: Some(17), ..Filter::default() };
    filter.add_flow((1..=250).map(|n| (source, [127, 0, 1, n].into())).collect());
    filter.add_port(53, vec![5300, 5353]);
    let namespaces = HashMap::from([(netns.inum(), netns.clone())]);
    let options = Options { ring_bytes: 1 << 20, ..Options::default() };
    let capture = Capture::start(&[loopback(&netns)], &namespaces, &filter, &options).unwrap();
    netns
        .run(|| {
            let send = |from: [u8; 4], to: [u8; 4], port: u16| {
                let socket = UdpSocket::bind(SocketAddr::from((from, 0))).unwrap();
                // A refusal of an earlier one is none of this one's.
                let _ = socket.send_to(b"x", SocketAddr::from((to, port)));
            };
            // Another port, another destination, another source, both on the same side.
            send([127, 0, 0, 1], [127, 0, 1, 250], 54);
            send([127, 0, 0, 1], [127, 0, 1, 251], 53);
            send([127, 0, 0, 2], [127, 0, 1, 1], 53);
            send([127, 0, 1, 1], [127, 0, 1, 2], 53);
            for port in [5300, 5353, 53] {
                send([127, 0, 0, 1], [127, 0, 1, 250], port);
            }
            send([127, 0, 1, 7], [127, 0, 0, 1], 53);
        })
        .unwrap();
    // Each leaves by the loopback device, and comes in again.
    assert_eq!(ports(&capture, 8), [5300, 5300, 5353, 5353, 53, 53, 53, 53]);
}
