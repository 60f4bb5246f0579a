mod cluster;
mod ipvs;
mod service;
mod walk;

use cluster::*;

use super::*;
use crate::facts::RouteQuery;
use crate::model::{EndKind, Hook, Mac};

fn planned(topology: &Topology, points: &[Point]) -> Vec<String> {
    points
        .iter()
        .map(|p| {
            let sign = if p.hook == Hook::Egress { '>' } else { '<' };
            format!("{}{sign}", topology.station(p.station).label())
        })
        .collect()
}

/// Plans a family's way and checks that the reply mirrors it, as it does on a symmetric cluster.
fn way(facts: &PathFacts, family: Family) -> (Topology, Vec<String>) {
    let topology = topology(facts, family).unwrap();
    let forward = planned(&topology, &topology.forward);
    let mirrored: Vec<_> = planned(&topology, &topology.reply)
        .into_iter()
        .rev()
        .map(|p| p.replace('<', "!").replace('>', "<").replace('!', ">"))
        .collect();
    assert_eq!(forward, mirrored, "the reply mirrors the request");
    (topology, forward)
}

const VXLAN_WAY: [&str; 12] = [
    "A.a.eth0>",
    "A.vethabc<",
    "A.cni0<",
    "A.flannel.1>",
    "A.ens33>",
    "wire.u1<",
    "wire.u2>",
    "B.ens33<",
    "B.flannel.1<",
    "B.cni0>",
    "B.vethabc>",
    "B.b.eth0<",
];

#[test]
fn vxlan_between_nodes_is_twelve_points() {
    let facts = two_nodes(&Shape::default());
    let (topology, forward) = way(&facts, Family::V4);
    assert_eq!(forward, VXLAN_WAY);
    assert_eq!(topology.gaps, [] as [String; 0]);
    assert_eq!(topology.vxlan_ports, [8472]);
    let labels: Vec<_> = topology.stations.iter().map(Station::label).collect();
    let in_order: Vec<_> = VXLAN_WAY.iter().map(|p| p.trim_end_matches(['<', '>'])).collect();
    assert_eq!(labels, in_order, "stations come as a packet meets them");
}

#[test]
fn without_a_visible_wire_two_points_fewer() {
    let (_, forward) = way(&two_nodes(&Shape { wire: false, ..Shape::default() }), Family::V4);
    let expected: Vec<_> = VXLAN_WAY.into_iter().filter(|p| !p.starts_with("wire")).collect();
    assert_eq!(forward, expected);
}

#[test]
fn names_of_interfaces_and_ports_do_not_matter() {
    let shape = Shape {
        bridge: "bridge-x",
        vxlan: "overlay",
        physical: "enp1s0",
        port: 4789,
        ..Shape::default()
    };
    let (topology, forward) = way(&two_nodes(&shape), Family::V4);
    let renamed = VXLAN_WAY.map(|p| {
        p.replace("cni0", "bridge-x").replace("flannel.1", "overlay").replace("ens33", "enp1s0")
    });
    assert_eq!(forward, renamed);
    assert_eq!(topology.vxlan_ports, [4789]);
}

#[test]
fn both_ports_are_told_when_the_nodes_disagree() {
    let mut facts = two_nodes(&Shape::default());
    for link in &mut facts.spaces[2].facts.links {
        if let Some(vxlan) = &mut link.vxlan {
            vxlan.port = 4789;
        }
    }
    let (topology, forward) = way(&facts, Family::V4);
    assert_eq!(topology.vxlan_ports, [4789, 8472]);
    assert_eq!(forward, VXLAN_WAY);
}

#[test]
fn host_gateway_has_no_tunnel() {
    let (topology, forward) =
        way(&two_nodes(&Shape { tunnel: false, ..Shape::default() }), Family::V4);
    let expected: Vec<_> = VXLAN_WAY.into_iter().filter(|p| !p.contains("flannel")).collect();
    assert_eq!(forward, expected);
    assert_eq!(topology.gaps, [] as [String; 0]);
    assert!(topology.vxlan_ports.is_empty());
}

#[test]
fn without_bridges_the_veth_is_the_pods_gateway() {
    let (_, forward) =
        way(&two_nodes(&Shape { pod_bridge: false, ..Shape::default() }), Family::V4);
    let expected: Vec<_> = VXLAN_WAY.into_iter().filter(|p| !p.contains("cni0")).collect();
    assert_eq!(forward, expected);
}

#[test]
fn on_one_bridge_four_points() {
    let (topology, forward) = way(&one_node(false), Family::V4);
    assert_eq!(forward, ["A.a.eth0>", "A.vethabc<", "A.vethdef>", "A.a2.eth0<"]);
    assert_eq!(topology.names.ip(&ip("10.10.0.3")), Some("A.a2.ip"));
}

#[test]
fn on_one_bridge_through_the_gateway_six_points() {
    let (_, forward) = way(&one_node(true), Family::V4);
    assert_eq!(
        forward,
        ["A.a.eth0>", "A.vethabc<", "A.cni0<", "A.cni0>", "A.vethdef>", "A.a2.eth0<"]
    );
}

#[test]
fn each_family_goes_through_its_own_tunnel() {
    let facts = two_nodes(&Shape { vxlan6: true, ..Shape::default() });
    let (topology, forward) = way(&facts, Family::V4);
    assert_eq!(forward, VXLAN_WAY);
    let v6 = plan(&facts, &topology, Family::V6, Direction::Forward);
    let expected = VXLAN_WAY.map(|p| p.replace("flannel.1", "flannel-v6.1"));
    assert_eq!(planned(&topology, &v6), expected);
    assert_eq!(way(&facts, Family::V6).1, expected);
}

#[test]
fn a_missing_route_does_not_change_what_was_meant() {
    for (vxlan6, family, target) in
        [(false, Family::V4, "10.10.1.2"), (true, Family::V6, "fd00:10:1::2")]
    {
        let mut facts = two_nodes(&Shape { vxlan6, ..Shape::default() });
        let target = ip(target);
        for answer in &mut facts.spaces[0].facts.answers {
            if answer.query.dst == target {
                *answer = failed(answer.query);
            }
        }
        let (topology, forward) = way(&facts, family);
        let device = if vxlan6 { "flannel-v6.1" } else { "flannel.1" };
        assert_eq!(forward, VXLAN_WAY.map(|p| p.replace("flannel.1", device)));
        let [gap] = topology.gaps.as_slice() else { panic!("{:?}", topology.gaps) };
        assert!(
            gap.contains("A does not route") && gap.contains("Network is unreachable"),
            "{gap}"
        );
    }
}

#[test]
fn missing_routes_on_both_nodes_leave_the_interfaces_to_tell() {
    let mut facts = two_nodes(&Shape::default());
    for (space, target) in [(0, "10.10.1.2"), (2, "10.10.0.2")] {
        let target = ip(target);
        for answer in &mut facts.spaces[space].facts.answers {
            if answer.query.dst == target {
                *answer = failed(answer.query);
            }
        }
    }
    let (topology, forward) = way(&facts, Family::V4);
    assert_eq!(forward, VXLAN_WAY);
    assert_eq!(topology.gaps.len(), 2, "{:?}", topology.gaps);
}

#[test]
fn a_default_route_in_place_of_the_tunnels_is_no_plan() {
    let mut facts = two_nodes(&Shape::default());
    let target = ip("10.10.1.2");
    for answer in &mut facts.spaces[0].facts.answers {
        if answer.query.dst == target {
            *answer = found(answer.query, PHYSICAL, Some("192.168.10.254"));
        }
    }
    let (topology, forward) = way(&facts, Family::V4);
    assert_eq!(forward, VXLAN_WAY);
    assert!(
        topology.gaps.iter().any(|g| g.contains("routes 10.10.1.2 to ens33 via 192.168.10.254")),
        "{:?}",
        topology.gaps
    );
}

#[test]
fn a_missing_forwarding_entry_leaves_the_lower_device() {
    let mut facts = two_nodes(&Shape::default());
    facts.spaces[0].facts.fdb.clear();
    let (topology, forward) = way(&facts, Family::V4);
    assert_eq!(forward, VXLAN_WAY);
    let [gap] = topology.gaps.as_slice() else { panic!("{:?}", topology.gaps) };
    assert!(gap.contains("A.flannel.1 has no tunnel endpoint for 10.10.1.0"), "{gap}");
}

#[test]
fn a_detached_port_still_belongs_to_its_bridge() {
    let mut facts = two_nodes(&Shape::default());
    for link in &mut facts.spaces[0].facts.links {
        link.master = None;
    }
    assert_eq!(way(&facts, Family::V4).1, VXLAN_WAY);
}

#[test]
fn a_pod_without_its_address_is_found_by_its_pair() {
    let mut facts = two_nodes(&Shape::default());
    facts.spaces[3].facts.addresses.clear();
    let (topology, forward) = way(&facts, Family::V4);
    assert_eq!(forward, VXLAN_WAY);
    assert_eq!(topology.names.ip(&ip("10.10.1.2")), Some("B.b.ip"));
}

#[test]
fn only_ports_of_the_wire_that_lead_to_the_nodes_are_stations() {
    let (topology, _) = way(&two_nodes(&Shape::default()), Family::V4);
    let wire: Vec<_> = topology
        .stations
        .iter()
        .filter(|s| s.node == "wire")
        .map(|s| (s.name.as_str(), s.role))
        .collect();
    assert_eq!(wire, [("u1", Role::Wire), ("u2", Role::Wire)]);
    assert!(topology.find(NODE[0], VETH2).is_none(), "a neighbour's veth is no station");
}

#[test]
fn addresses_have_names() {
    let (topology, _) = way(&two_nodes(&Shape::default()), Family::V4);
    let names = &topology.names;
    for (address, name) in [
        ("10.10.0.2", "A.a.ip"),
        ("fd00:10::2", "A.a.ip"),
        ("fe80::aa:0", "A.a.ip"),
        ("10.10.0.1", "A.cni0.ip"),
        ("10.10.1.0", "B.flannel.1.ip"),
        ("192.168.10.11", "B.ens33.ip"),
        ("10.10.0.3", "A.a2.ip"),
    ] {
        assert_eq!(names.ip(&ip(address)), Some(name), "{address}");
    }
    for (address, name) in [
        ("02:aa:00:00:00:00", "A.a.mac"),
        ("02:f6:00:00:00:01", "B.flannel.1.mac"),
        ("02:e3:00:00:00:00", "A.ens33.mac"),
        ("02:11:00:00:00:01", "wire.u1.mac"),
        // The veth has it too; the bridge says more.
        ("02:4e:00:00:00:00", "A.cni0.mac"),
        ("02:4f:00:00:00:00", "A.vethdef.mac"),
    ] {
        assert_eq!(names.mac(&mac(address)), Some(name), "{address}");
    }
    assert_eq!(names.mac(&Mac::default()), None);
}

#[test]
fn addresses_for_resolution_are_those_of_the_path() {
    let facts = two_nodes(&Shape::default());
    let (topology, _) = way(&facts, Family::V4);
    let addresses = addresses_on_path(&facts, &topology);
    for wanted in ["10.10.0.2", "10.10.0.1", "10.10.1.0", "192.168.10.10", "192.168.10.11"] {
        assert!(addresses.contains(&ip(wanted)), "{wanted} in {addresses:?}");
    }
    assert!(!addresses.contains(&ip("10.10.0.3")), "a neighbour's address is not on the path");
}

#[test]
fn an_end_in_the_nodes_own_namespace_has_no_pod_points() {
    let mut facts = two_nodes(&Shape::default());
    facts.spaces.remove(3);
    facts.dst = End {
        name: "192.168.10.11".to_owned(),
        node: "B".to_owned(),
        pod: None,
        ips: vec![ip("192.168.10.11")],
        netns_inum: NODE[1],
        kind: EndKind::default(),
        service: None,
    };
    let topology = topology(&facts, Family::V4).unwrap();
    assert_eq!(
        planned(&topology, &topology.forward),
        ["A.a.eth0>", "A.vethabc<", "A.cni0<", "A.ens33>", "wire.u1<", "wire.u2>", "B.ens33<"]
    );
}

#[test]
fn says_what_is_missing_to_plan_at_all() {
    let mut facts = two_nodes(&Shape::default());
    facts.dst.ips.truncate(1);
    let error = topology(&facts, Family::V6).unwrap_err();
    assert_eq!(error.to_string(), "B.b has no IPv6 address (it has 10.10.1.2)");
    facts.spaces.remove(2);
    assert_eq!(topology(&facts, Family::V4).unwrap_err(), ExpectError::NoNode("B".to_owned()));
}

#[test]
fn facts_survive_being_written_down() {
    let facts = two_nodes(&Shape { vxlan6: true, ..Shape::default() });
    let text = serde_json::to_string(&facts).unwrap();
    assert_eq!(serde_json::from_str::<PathFacts>(&text).unwrap(), facts);
    assert!(facts.spaces[0].facts.answer(&RouteQuery::to(ip("10.10.1.2"))).is_some());
}

#[test]
fn the_other_familys_tunnel_is_no_substitute() {
    let mut facts = two_nodes(&Shape { vxlan6: true, ..Shape::default() });
    let node = &mut facts.spaces[0].facts;
    node.links.retain(|l| l.index != VXLAN);
    for answer in &mut node.answers {
        if answer.query.dst == ip("10.10.1.2") {
            *answer = failed(answer.query);
        }
    }
    let topology = topology(&facts, Family::V4).unwrap();
    for points in [&topology.forward, &topology.reply] {
        let points = planned(&topology, points);
        assert!(!points.iter().any(|p| p.contains("flannel-v6.1")), "{points:?}");
    }
    assert!(
        topology.gaps.iter().any(|g| g == "A has no tunnel device that answers B.flannel.1"),
        "{:?}",
        topology.gaps
    );
}

#[test]
fn a_pod_that_lost_its_interface_leaves_the_bridge() {
    let mut facts = two_nodes(&Shape::default());
    facts.spaces[3].facts.links.retain(|l| l.loopback);
    facts.spaces[3].facts.addresses.clear();
    facts.spaces[2].facts.links.retain(|l| l.index != VETH);
    let (topology, forward) = way(&facts, Family::V4);
    assert_eq!(forward, &VXLAN_WAY[..10]);
    assert!(topology.gaps[0].starts_with("B.b: no interface"), "{:?}", topology.gaps);
}

#[test]
fn ends_of_different_families_cannot_talk() {
    let mut facts = two_nodes(&Shape::default());
    assert_eq!(Family::common(&facts.src, &facts.dst), Ok(Family::V4));
    facts.src.ips.remove(0);
    assert_eq!(Family::common(&facts.src, &facts.dst), Ok(Family::V6));
    facts.dst.ips.truncate(1);
    let error = Family::common(&facts.src, &facts.dst).unwrap_err();
    assert!(error.is_usage());
    assert!(error.to_string().contains("A.a (it has fd00:10::2) and B.b (it has 10.10.1.2)"));
}
