//! Faults of tunnels and between the nodes.

use super::*;

#[test]
fn tunnel_neighbours() {
    let mut facts = healthy();
    space(&mut facts, NODE[0]).neighbors.clear();
    let problem = only(&facts, "neighbor.missing", "A.flannel.1", "A.flannel.1>");
    assert_eq!(
        problem.fix()[0],
        "ip neigh replace 10.10.1.0 lladdr 02:f6:00:00:00:01 dev flannel.1 nud permanent"
    );
    let mut facts = healthy();
    let entry = &mut space(&mut facts, NODE[0]).neighbors[0];
    (entry.mac, entry.state) = (None, NeighborState::Failed);
    only(&facts, "neighbor.missing", "A.flannel.1", "A.flannel.1>");
    let mut facts = healthy();
    link(&mut facts, NODE[1], VXLAN).mac = Some(mac("02:f6:00:00:00:99"));
    let problem = only(&facts, "vxlan.mac-stale", "A.flannel.1", "B.flannel.1<");
    assert!(problem.fix()[0].contains("lladdr 02:f6:00:00:00:99"));
}

#[test]
fn tunnel_forwarding_entries() {
    let mut facts = healthy();
    space(&mut facts, NODE[0]).fdb.clear();
    let problem = only(&facts, "vxlan.fdb-missing", "A.flannel.1", "A.flannel.1>");
    assert_eq!(
        problem.fix()[0],
        "bridge fdb append 02:f6:00:00:00:01 dev flannel.1 dst 192.168.10.11 self permanent"
    );
    let mut facts = healthy();
    space(&mut facts, NODE[0]).fdb[0].dst = Some(ip("192.168.10.99"));
    let outer = RouteQuery {
        dst: ip("192.168.10.99"),
        src: Some(ip("192.168.10.10")),
        iif: None,
        oif: None,
    };
    space(&mut facts, NODE[0]).answers.push(found(outer, PHYSICAL, None));
    only(&facts, "vxlan.fdb-wrong", "A.flannel.1", "A.flannel.1>");
    let mut facts = healthy();
    space(&mut facts, NODE[0]).fdb[0].dst = Some(ip("192.168.10.10"));
    let (topology, walked) = run(&facts, &icmp(Family::V4), Direction::Forward);
    let first = walked.first_break().unwrap();
    assert_eq!(
        (first.cause(), last_seen(&topology, first).as_str()),
        ("vxlan.fdb-self", "A.flannel.1>")
    );
}

#[test]
fn tunnel_devices_that_do_not_fit_each_other() {
    let vxlan = |change: &dyn Fn(&mut crate::model::VxlanInfo)| {
        let mut facts = healthy();
        change(link(&mut facts, NODE[1], VXLAN).vxlan.as_mut().unwrap());
        facts
    };
    only(&vxlan(&|v| v.vni = 2), "vxlan.vni-mismatch", "B.flannel.1", "B.ens33<");
    only(&vxlan(&|v| v.port = 4789), "vxlan.port-mismatch", "B.flannel.1", "B.ens33<");
    let mut facts = healthy();
    let near = link(&mut facts, NODE[0], VXLAN).mac;
    link(&mut facts, NODE[1], VXLAN).mac = near;
    let (topology, walked) = run(&facts, &icmp(Family::V4), Direction::Forward);
    let first = walked.first_break().unwrap();
    assert_eq!(
        (first.cause(), last_seen(&topology, first).as_str()),
        ("vxlan.mac-duplicate", "B.ens33<")
    );
}

#[test]
fn tunnel_devices_down_or_without_address() {
    let mut facts = healthy();
    link(&mut facts, NODE[1], VXLAN).up = false;
    only(&facts, "vxlan.device-down", "B.flannel.1", "B.ens33<");
    // At the source its routes go with it.
    let mut facts = healthy();
    link(&mut facts, NODE[0], VXLAN).up = false;
    answer(&mut facts, NODE[0], "10.10.1.2", no_route());
    only(&facts, "vxlan.device-down", "A.flannel.1", "A.cni0<");
    let mut facts = healthy();
    space(&mut facts, NODE[0]).addresses.retain(|a| a.ifindex != VXLAN);
    answer(&mut facts, NODE[0], "10.10.1.2", no_route());
    let problem = only(&facts, "vxlan.address-missing", "A.flannel.1", "A.cni0<");
    assert_eq!(problem.fix()[0], "ip addr add 10.10.0.0/32 dev flannel.1");
    let mut facts = healthy();
    space(&mut facts, NODE[1]).links.retain(|l| l.index != VXLAN);
    let (topology, walked) = run(&facts, &icmp(Family::V4), Direction::Forward);
    let first = walked.first_break().unwrap();
    assert_eq!(
        (first.cause(), last_seen(&topology, first).as_str()),
        ("vxlan.device-missing", "B.ens33<")
    );
    let mut facts = healthy();
    link(&mut facts, NODE[0], VXLAN).vxlan.as_mut().unwrap().local = Some(ip("10.0.2.15"));
    only(&facts, "vxlan.local-address", "A.flannel.1", "A.flannel.1>");
    let mut facts = healthy();
    link(&mut facts, NODE[0], VXLAN).vxlan.as_mut().unwrap().learning = true;
    let problem = only(&facts, "vxlan.learning", "A.flannel.1", "A.flannel.1>");
    assert_eq!(problem.seriousness, Seriousness::Note);
}

#[test]
fn links_between_the_nodes() {
    let mut facts = healthy();
    link(&mut facts, NODE[1], PHYSICAL).up = false;
    only(&facts, "underlay.link-down", "B.ens33", "wire.u2>");
    let mut facts = healthy();
    link(&mut facts, NODE[0], PHYSICAL).lower_up = false;
    only(&facts, "underlay.link-down", "A.ens33", "A.flannel.1>");
    // A wire's own tables are not asked.
    let mut facts = healthy();
    link(&mut facts, WIRE, 11).up = false;
    link(&mut facts, WIRE, 11).mtu = 1400;
    assert_eq!(run(&facts, &icmp(Family::V4), Direction::Forward).1.problems, []);
    let mut facts = healthy();
    space(&mut facts, NODE[0]).neighbors.push(NeighborEntry {
        ifindex: PHYSICAL,
        ip: ip("192.168.10.11"),
        mac: Some(mac("02:00:00:00:00:99")),
        state: NeighborState::Permanent,
    });
    only(&facts, "neighbor.wrong-mac", "A.ens33", "B.ens33<");
}

#[test]
fn next_hops_that_are_not_the_other_node() {
    let mut facts = cluster(&Shape { tunnel: false, ..Shape::default() });
    answer(&mut facts, NODE[0], "10.10.1.2", via(PHYSICAL, Some("192.168.10.77")));
    let problem = only(&facts, "route.gateway-dead", "A.ens33", "A.ens33>");
    assert!(!problem.certain, "somebody else may forward it");
    space(&mut facts, NODE[0]).neighbors.push(NeighborEntry {
        ifindex: PHYSICAL,
        ip: ip("192.168.10.77"),
        mac: None,
        state: NeighborState::Failed,
    });
    let problem = only(&facts, "route.gateway-dead", "A.ens33", "A.ens33>");
    assert!(problem.certain);
}

#[test]
fn routes_to_the_tunnel_endpoint() {
    let mut facts = healthy();
    answer(&mut facts, NODE[0], "192.168.10.11", no_route());
    let problem = only(&facts, "route.missing", "A.flannel.1", "A.flannel.1>");
    assert!(problem.fix()[0].starts_with("ip route add 192.168.10.0/24 dev ens33 src "));
    space(&mut facts, NODE[0]).routes = vec![route("192.168.10.11/32", RouteKind::Blackhole, None)];
    let problem = only(&facts, "route.blackhole", "A.flannel.1", "A.flannel.1>");
    assert_eq!(problem.fix(), ["ip route del blackhole 192.168.10.11"]);
}

#[test]
fn a_default_route_to_a_router_between() {
    let mut facts = cluster(&Shape { tunnel: false, ..Shape::default() });
    answer(&mut facts, NODE[0], "10.10.1.2", via(PHYSICAL, Some("192.168.10.77")));
    space(&mut facts, NODE[0]).routes =
        vec![route("0.0.0.0/0", RouteKind::Unicast, Some(PHYSICAL))];
    let problem = only(&facts, "route.missing", "A.ens33", "A.ens33>");
    assert!(!problem.certain, "the router may know the way");
    assert_eq!(problem.fix()[0], "ip route add 10.10.1.0/24 via 192.168.10.11 dev ens33");
}

#[test]
fn a_rule_that_leads_away_from_the_other_node() {
    let mut facts = cluster(&Shape { tunnel: false, ..Shape::default() });
    answer(&mut facts, NODE[0], "10.10.1.2", via(PHYSICAL, Some("192.168.10.77")));
    let node = space(&mut facts, NODE[0]);
    let by = |table, gateway: &str| Route {
        table,
        gateway: Some(ip(gateway)),
        ..route("10.10.1.0/24", RouteKind::Unicast, Some(PHYSICAL))
    };
    node.routes = vec![by(254, "192.168.10.11"), by(52, "192.168.10.77")];
    node.rules.push(Rule {
        priority: 32766,
        table: 254,
        action: RuleAction::ToTable,
        ..Rule::default()
    });
    node.rules.push(Rule {
        priority: 5270,
        table: 52,
        action: RuleAction::ToTable,
        ..Rule::default()
    });
    let problem = only(&facts, "route.rule-hijack", "A.ens33", "A.cni0<");
    assert!(problem.fix()[1].contains("priority 5270 from all lookup 52"));
    // One that leads to the other node as well does no harm.
    answer(&mut facts, NODE[0], "10.10.1.2", via(PHYSICAL, Some("192.168.10.11")));
    space(&mut facts, NODE[0]).routes[1].gateway = Some(ip("192.168.10.11"));
    assert_eq!(run(&facts, &icmp(Family::V4), Direction::Forward).1.problems, []);
}

#[test]
fn sizes_that_do_not_fit() {
    let mut facts = healthy();
    link(&mut facts, NODE[0], PHYSICAL).mtu = 1400;
    let problem = only(&facts, "mtu.underlay-too-small", "A.flannel.1", "A.flannel.1>");
    assert_eq!(problem.seriousness, Seriousness::Harms);
    assert!(problem.fix()[1].contains("mtu 1350"));
    let mut facts = healthy();
    link(&mut facts, POD[0], ETH).mtu = 1500;
    only(&facts, "mtu.pod-too-large", "A.a.eth0", "A.cni0<");
    let (_, walked) = run(&facts, &FlowSpec { size: 1500, ..icmp(Family::V4) }, Direction::Forward);
    assert!(walked.first_break().is_some_and(|p| p.cause() == "mtu.pod-too-large"));
}

#[test]
fn what_others_have_put_in_the_way() {
    let mut facts = healthy();
    space(&mut facts, NODE[0]).qdiscs.push(Qdisc {
        ifindex: VXLAN,
        kind: "tbf".to_owned(),
        handle: "8001:".to_owned(),
        parent: "root".to_owned(),
        options: "rate 8Kbit burst 1600b lat 400ms".to_owned(),
        drops: 5,
        ..Qdisc::default()
    });
    let problem = only(&facts, "tc.rate-limited", "A.flannel.1", "A.flannel.1>");
    assert_eq!(problem.fix(), ["tc qdisc del dev flannel.1 root"]);
    let mut facts = healthy();
    space(&mut facts, NODE[1]).programs.push(AttachedProgram {
        ifindex: PHYSICAL,
        point: AttachPoint::Xdp,
        kind: "bpf".to_owned(),
        id: Some(7),
        name: Some("filter".to_owned()),
        text: String::new(),
    });
    let problem = only(&facts, "tc.foreign-program", "B.ens33", "B.ens33<");
    assert!(!problem.certain && !problem.deadly());
    let mut facts = healthy();
    space(&mut facts, NODE[0]).xfrm.push(XfrmPolicy {
        direction: "fwd".to_owned(),
        src: "10.10.0.0/16".parse().unwrap(),
        dst: "10.10.0.0/16".parse().unwrap(),
        proto: 0,
        block: true,
        priority: 0,
    });
    assert!(only(&facts, "route.xfrm-policy", "A.flannel.1", "A.cni0<").deadly());
}

#[test]
fn a_tunnel_device_that_is_gone_at_the_source() {
    let mut facts = healthy();
    space(&mut facts, NODE[0]).links.retain(|l| l.index != VXLAN);
    for outcome in [no_route(), via(PHYSICAL, Some("192.168.10.1"))] {
        answer(&mut facts, NODE[0], "10.10.1.2", outcome);
        let (topology, walked) = run(&facts, &icmp(Family::V4), Direction::Forward);
        let first = walked.first_break().unwrap();
        let told = (first.cause(), last_seen(&topology, first));
        assert_eq!(told, ("vxlan.device-missing", "A.cni0<".to_owned()));
        assert!(first.certain);
    }
}
