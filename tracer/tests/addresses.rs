//! The addresses and names at each hop are those that `ip` reports, in both directions and families.

#![expect(clippy::expect_used, reason = "helpers of tests fail the test")]

mod common;

use common::trace::{IpSays, journeys, podtrace};
use common::{TestLab, privileged};
use tracer::model::Direction;
use tracer::report::{HopReport, Report, Status};

/// One half of the way: the node, its pod, and what `ip` says there.
struct Side {
    node: &'static str,
    pod: &'static str,
    node_says: IpSays,
    pod_says: IpSays,
}

/// A pair of hardware addresses, each with its name.
type Macs = [(String, String); 2];

impl Side {
    fn pod_mac(&self) -> (String, String) {
        (self.pod_says.mac("eth0"), format!("{}.{}.mac", self.node, self.pod))
    }

    fn node_mac(&self, interface: &str) -> (String, String) {
        (self.node_says.mac(interface), format!("{}.{interface}.mac", self.node))
    }

    fn node_ip(&self, interface: &str, family: &str) -> (String, String) {
        (self.node_says.ip(interface, family), format!("{}.{interface}.ip", self.node))
    }

    fn pod_ip(&self, family: &str) -> (String, String) {
        (self.pod_says.ip("eth0", family), format!("{}.{}.ip", self.node, self.pod))
    }
}

#[track_caller]
fn is(hop: &HopReport, shown: Option<&str>, (address, name): &(String, String)) {
    assert_eq!(shown, Some(address.as_str()), "{hop:#?}");
    assert_eq!(hop.names.get(address), Some(name), "{address}: {:?}", hop.names);
}

fn check(report: &Report, direction: Direction, from: &Side, to: &Side, family: &str) {
    let (bridge, vxlan, physical) =
        ("cni0", if family == "inet" { "flannel.1" } else { "flannel-v6.1" }, "ens33");
    let journey = journeys(report, direction)[0];
    assert_eq!(journey.hops.len(), 12);
    for (i, hop) in journey.hops.iter().enumerate() {
        let macs: Macs = match i {
            0..=2 => [from.pod_mac(), from.node_mac(bridge)],
            3..=8 => [from.node_mac(vxlan), to.node_mac(vxlan)],
            _ => [to.node_mac(bridge), to.pod_mac()],
        };
        is(hop, hop.inner.src_mac.as_deref(), &macs[0]);
        is(hop, hop.inner.dst_mac.as_deref(), &macs[1]);
        is(hop, Some(&hop.inner.src_ip), &from.pod_ip(family));
        is(hop, Some(&hop.inner.dst_ip), &to.pod_ip(family));
        assert_eq!(hop.outer.is_some(), (4..=7).contains(&i), "hop {i}");
        if let Some(outer) = &hop.outer {
            is(hop, Some(&outer.src_ip), &from.node_ip(physical, family));
            is(hop, Some(&outer.dst_ip), &to.node_ip(physical, family));
            is(hop, outer.src_mac.as_deref(), &from.node_mac(physical));
            is(hop, outer.dst_mac.as_deref(), &to.node_mac(physical));
            assert_eq!((outer.vni, outer.udp_dst), (Some(1), 8472));
        }
    }
}

#[test]
fn addresses_at_every_hop_are_those_that_ip_reports() {
    if !privileged() {
        return;
    }
    let lab = TestLab::up(|_| {});
    let [a, b] = [("A", "a"), ("B", "b")].map(|(node, pod)| Side {
        node,
        pod,
        node_says: IpSays::ask(&lab, node),
        pod_says: IpSays::ask(&lab, &format!("{node}.{pod}")),
    });
    for (flag, family) in [("-4", "inet"), ("-6", "inet6")] {
        let args =
            ["--src", "A.a", "--dst", "B.b", flag, "--probe", "--count", "1", "--format", "json"];
        let run = podtrace(&lab, &args);
        let report = run.report();
        assert_eq!(report.verdict.status, Status::Delivered, "{:#?}", report.verdict);
        check(&report, Direction::Forward, &a, &b, family);
        check(&report, Direction::Reply, &b, &a, family);
    }
}
