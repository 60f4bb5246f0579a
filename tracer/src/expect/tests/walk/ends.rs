//! Ends that are no pods: nodes and addresses outside.

use super::*;
use crate::expect::walk::ProblemKind;
use crate::model::{End, EndKind};

const OUTSIDE: &str = "203.0.113.9";

fn end(kind: EndKind, node: usize, address: &str) -> End {
    End {
        name: address.to_owned(),
        node: ["A", "B"][node].to_owned(),
        pod: None,
        ips: vec![ip(address)],
        netns_inum: NODE[node],
        kind,
        service: None,
    }
}

fn know(facts: &mut PathFacts, inum: u32, query: RouteQuery, oif: u32, gateway: Option<&str>) {
    space(facts, inum).answers.push(found(query, oif, gateway));
}

fn comes(dst: &str, src: &str, iif: u32) -> RouteQuery {
    RouteQuery { dst: ip(dst), src: Some(ip(src)), iif: Some(iif), oif: None }
}

/// Node A replaces the source of everything that leaves for other networks.
fn masquerades(facts: &mut PathFacts) {
    let conditions = vec![Match::Oif(vec![NamePattern::new("ens33", '+')])];
    let masquerade = Action::Masquerade { ports: None, random: false };
    let rules = vec![rule("-A FLANNEL-POSTRTG -o ens33 -j MASQUERADE", conditions, masquerade)];
    filter(facts, NODE[0], "FLANNEL-POSTRTG", NfHook::Postrouting, Policy::Accept, rules);
}

fn to_outside() -> PathFacts {
    let mut facts = healthy();
    facts.dst = end(EndKind::Outside, 0, OUTSIDE);
    let gateway = Some("192.168.10.1");
    know(&mut facts, POD[0], RouteQuery::to(ip(OUTSIDE)), ETH, Some("10.10.0.1"));
    know(&mut facts, NODE[0], comes(OUTSIDE, "10.10.0.2", BRIDGE), PHYSICAL, gateway);
    know(&mut facts, NODE[0], RouteQuery::to(ip(OUTSIDE)), PHYSICAL, gateway);
    know(&mut facts, NODE[0], comes("10.10.0.2", OUTSIDE, PHYSICAL), BRIDGE, None);
    facts
}

/// Pod a to node B, which is reached without the tunnel.
fn to_node() -> PathFacts {
    let mut facts = healthy();
    facts.dst = end(EndKind::Node, 1, "192.168.10.11");
    let far = "192.168.10.11";
    know(&mut facts, POD[0], RouteQuery::to(ip(far)), ETH, Some("10.10.0.1"));
    know(&mut facts, NODE[0], comes(far, "10.10.0.2", BRIDGE), PHYSICAL, None);
    know(&mut facts, NODE[0], comes("10.10.0.2", far, PHYSICAL), BRIDGE, None);
    facts
}

/// Both ways: what is planned, and that nothing is found wrong or unknown on them.
fn sound(facts: &PathFacts) -> [Vec<String>; 2] {
    [Direction::Forward, Direction::Reply].map(|direction| {
        let (topology, walked) = run(facts, &icmp(Family::V4), direction);
        assert_eq!(walked.problems, [], "{direction}");
        // Of what is beyond the nodes nothing is known.
        let beyond = |gap: &&str| gap.starts_with("what becomes of it beyond A.ens33");
        let (beyond, unknown): (Vec<_>, Vec<_>) = walked.gaps().partition(beyond);
        assert_eq!(unknown, [] as [&str; 0], "{direction}");
        let outside = facts.dst.kind == EndKind::Outside && direction == Direction::Forward;
        assert_eq!(beyond.len(), usize::from(outside), "{direction}");
        assert_eq!(topology.gaps, [] as [String; 0]);
        planned(&topology, topology.path(direction))
    })
}

#[test]
fn what_goes_outside_is_followed_to_the_edge_and_back() {
    let mut facts = to_outside();
    masquerades(&mut facts);
    let [there, back] = sound(&facts);
    assert_eq!(there, ["A.a.eth0>", "A.vethabc<", "A.cni0<", "A.ens33>"]);
    assert_eq!(back, ["wire.u1>", "A.ens33<", "A.cni0>", "A.vethabc>", "A.a.eth0<"]);
    let (topology, walked) = run(&facts, &icmp(Family::V4), Direction::Forward);
    let aliases: Vec<_> = topology.aliases.iter().map(|a| (a.ip, a.real, a.source)).collect();
    assert_eq!(aliases, [(ip("192.168.10.10"), ip("10.10.0.2"), true)]);
    let last = walked.steps.last().unwrap();
    assert!(last.text.ends_with("leaves node A as 192.168.10.10"), "{}", last.text);
}

#[test]
fn a_pods_address_that_leaves_untranslated_may_be_why_nobody_answers() {
    let (_, walked) = run(&to_outside(), &icmp(Family::V4), Direction::Forward);
    let [problem] = walked.problems.as_slice() else { panic!("{:#?}", walked.problems) };
    assert_eq!(problem.cause(), "netfilter.masquerade-missing");
    assert!(problem.deadly() && !problem.certain, "routers outside may know the way");
    // What a node itself sends carries the node's address.
    let mut facts = to_outside();
    facts.src = end(EndKind::Node, 0, "192.168.10.10");
    assert_eq!(sound(&facts)[0], ["A.ens33>"]);
}

#[test]
fn answers_to_what_stands_for_the_source_come_over_the_underlay() {
    let mut facts = to_node();
    masquerades(&mut facts);
    let [there, back] = sound(&facts);
    let near = ["A.a.eth0>", "A.vethabc<", "A.cni0<", "A.ens33>"];
    assert_eq!(there, [&near[..], &["wire.u1<", "wire.u2>", "B.ens33<"]].concat());
    let far = ["B.ens33>", "wire.u2<", "wire.u1>", "A.ens33<"];
    assert_eq!(back, [&far[..], &["A.cni0>", "A.vethabc>", "A.a.eth0<"]].concat());
}

#[test]
fn a_node_that_filters_what_comes_to_it() {
    let mut facts = to_node();
    masquerades(&mut facts);
    let tcp = FlowSpec { dport: Some(80), ..FlowSpec::small(Family::V4, TCP) };
    let (_, walked) = run(&facts, &tcp, Direction::Forward);
    let [problem] = walked.problems.as_slice() else { panic!("{:#?}", walked.problems) };
    assert_eq!(problem.cause(), "socket.no-listener");
    assert!(problem.text.ends_with("in node B"), "{}", problem.text);
    // By the address that it sees, which is the node's.
    let from_node =
        Match::Src(vec![AddressRange { first: ip("192.168.10.10"), last: ip("192.168.10.10") }]);
    let rules = vec![rule("-A INPUT -s 192.168.10.10 -j DROP", vec![from_node], Action::Drop)];
    filter(&mut facts, NODE[1], "INPUT", NfHook::Input, Policy::Accept, rules);
    let (_, walked) = run(&facts, &icmp(Family::V4), Direction::Forward);
    let [problem] = walked.problems.as_slice() else { panic!("{:#?}", walked.problems) };
    assert_eq!((problem.cause(), problem.spot.node.as_str()), ("netfilter.drop", "B"));
}

#[test]
fn a_pod_sends_by_the_interface_that_its_own_routing_chooses() {
    let mut facts = healthy();
    let other = Link { index: 9, name: "net1".to_owned(), up: true, ..Link::default() };
    space(&mut facts, POD[0]).links.push(other);
    answer(&mut facts, POD[0], "10.10.1.2", via(9, Some("172.21.77.1")));
    let (topology, walked) = run(&facts, &icmp(Family::V4), Direction::Forward);
    assert_eq!(planned(&topology, &topology.forward)[..2], ["A.a.net1>", "A.vethabc<"]);
    let [problem] = walked.problems.as_slice() else { panic!("{:#?}", walked.problems) };
    assert!(
        matches!(&problem.kind, ProblemKind::RouteWrongDevice { has, .. } if has == "net1"),
        "{problem:?}"
    );
    let fix = problem.fix();
    assert!(fix[0].starts_with("ip route replace 10.10.1.2/32 via 10.10.0.1 dev eth0"), "{fix:?}");
    assert!(fix.iter().all(|step| !step.contains("del")), "{fix:?}");
}

#[test]
fn an_address_of_the_other_node_that_this_one_has_too() {
    let mut facts = healthy();
    space(&mut facts, NODE[0]).addresses.push(address(PHYSICAL, "192.168.10.11/32"));
    let (_, walked) = run(&facts, &icmp(Family::V4), Direction::Forward);
    let problem = &walked.problems[0];
    assert_eq!(problem.cause(), "underlay.duplicate-address");
    assert!(problem.fix()[0].starts_with("ip addr del 192.168.10.11/32 dev ens33"));
}

#[test]
fn pods_on_an_interface_of_the_node_pass_its_stack_by() {
    let mut facts = healthy();
    for (pod, node) in POD.into_iter().zip(NODE) {
        let eth = link(&mut facts, pod, ETH);
        (eth.kind, eth.linked) = (Some("macvlan".to_owned()), Some(PHYSICAL));
        space(&mut facts, node).links.retain(|l| l.index != VETH);
    }
    let (topology, walked) = run(&facts, &icmp(Family::V4), Direction::Forward);
    let way = ["A.a.eth0>", "A.ens33>", "wire.u1<", "wire.u2>", "B.ens33<", "B.b.eth0<"];
    assert_eq!(planned(&topology, &topology.forward), way);
    assert_eq!(walked.problems, []);
    assert_eq!(walked.gaps().count(), 1, "what is behind the interface is not known");
}
