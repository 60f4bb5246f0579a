//! Faults of routing and packet filters.

use super::*;

#[test]
fn nodes_that_do_not_forward() {
    for (n, seen) in [(0, "A.cni0<"), (1, "B.flannel.1<")] {
        let mut facts = healthy();
        set(&mut facts, NODE[n], "net.ipv4.ip_forward", "0");
        // Such a node answers no question about forwarding.
        for answer in &mut space(&mut facts, NODE[n]).answers {
            if answer.query.iif.is_some() {
                answer.outcome = no_route();
            }
        }
        let place = ["A.cni0", "B.flannel.1"][n];
        let problem = only(&facts, "forwarding.disabled", place, seen);
        assert_eq!(problem.fix()[0], "sysctl -w net.ipv4.ip_forward=1");
    }
    let mut facts = healthy();
    set(&mut facts, NODE[0], "net.ipv4.conf.cni0.forwarding", "0");
    let problem = only(&facts, "forwarding.disabled", "A.cni0", "A.cni0<");
    assert!(problem.text.contains("net.ipv4.conf.cni0.forwarding"));
}

#[test]
fn routes_that_are_missing() {
    let mut facts = healthy();
    answer(&mut facts, NODE[0], "10.10.1.2", no_route());
    let problem = only(&facts, "route.missing", "A.flannel.1", "A.cni0<");
    assert_eq!(problem.fix()[0], "ip route add 10.10.1.0/24 via 10.10.1.0 dev flannel.1 onlink");
    // What is left when the specific route is gone is no way either.
    let mut facts = healthy();
    answer(&mut facts, NODE[0], "10.10.1.2", via(PHYSICAL, Some("192.168.10.1")));
    space(&mut facts, NODE[0]).routes =
        vec![route("0.0.0.0/0", RouteKind::Unicast, Some(PHYSICAL))];
    only(&facts, "route.missing", "A.flannel.1", "A.cni0<");
}

#[test]
fn routes_that_refuse() {
    for (kind, cause) in [
        (RouteKind::Blackhole, "route.blackhole"),
        (RouteKind::Unreachable, "route.unreachable"),
        (RouteKind::Prohibit, "route.prohibit"),
    ] {
        let mut facts = healthy();
        answer(&mut facts, NODE[0], "10.10.1.2", no_route());
        space(&mut facts, NODE[0]).routes = vec![route("10.10.1.0/24", kind, None)];
        let problem = only(&facts, cause, "A.flannel.1", "A.cni0<");
        let word = cause.trim_start_matches("route.");
        assert_eq!(problem.fix(), [format!("ip route del {word} 10.10.1.0/24")]);
    }
    let mut facts = healthy();
    answer(&mut facts, NODE[0], "10.10.1.2", no_route());
    space(&mut facts, NODE[0]).rules.push(Rule {
        priority: 100,
        dst: Some("10.10.0.0/16".parse().unwrap()),
        action: RuleAction::Prohibit,
        ..Rule::default()
    });
    let problem = only(&facts, "route.prohibit", "A.flannel.1", "A.cni0<");
    assert_eq!(problem.fix(), ["ip rule del priority 100 from all to 10.10.0.0/16 prohibit"]);
}

#[test]
fn routes_that_lead_astray() {
    let mut facts = healthy();
    answer(&mut facts, NODE[0], "10.10.1.2", via(BRIDGE, None));
    space(&mut facts, NODE[0]).routes =
        vec![route("10.10.1.0/24", RouteKind::Unicast, Some(BRIDGE))];
    let problem = only(&facts, "route.wrong-device", "A.flannel.1", "A.cni0<");
    assert_eq!(problem.fix()[0], "ip route del 10.10.1.0/24 dev cni0");
    // By a rule.
    space(&mut facts, NODE[0]).routes[0].table = 52;
    space(&mut facts, NODE[0]).rules.push(Rule {
        priority: 5270,
        table: 52,
        action: RuleAction::ToTable,
        ..Rule::default()
    });
    let problem = only(&facts, "route.rule-hijack", "A.flannel.1", "A.cni0<");
    assert!(problem.fix()[1].contains("priority 5270 from all lookup 52"));
    // Back to where it came from.
    let mut facts = healthy();
    answer(&mut facts, NODE[1], "10.10.1.2", via(VXLAN, Some("10.10.0.0")));
    let iif = Some(VXLAN);
    let query = RouteQuery { dst: ip("10.10.1.2"), src: Some(ip("10.10.0.2")), iif, oif: None };
    space(&mut facts, NODE[1]).answers.push(found(query, VXLAN, Some("10.10.0.0")));
    only(&facts, "route.loop", "B.cni0", "B.flannel.1<");
}

#[test]
fn sources_that_are_not_believed() {
    let mut facts = healthy();
    set(&mut facts, NODE[1], "net.ipv4.conf.flannel/1.rp_filter", "1");
    assert_eq!(run(&facts, &icmp(Family::V4), Direction::Forward).1.problems, []);
    for answer in &mut space(&mut facts, NODE[1]).answers {
        if answer.query.dst == ip("10.10.0.2") && answer.query.iif.is_none() {
            answer.outcome = via(PHYSICAL, None);
        }
    }
    space(&mut facts, NODE[1]).routes =
        vec![route("10.10.0.0/24", RouteKind::Unicast, Some(PHYSICAL))];
    let problem = only(&facts, "route.rp-filter", "B.flannel.1", "B.flannel.1<");
    assert_eq!(problem.fix()[0], "sysctl -w net.ipv4.conf.flannel/1.rp_filter=2");
    // Loosely, any way back will do.
    set(&mut facts, NODE[1], "net.ipv4.conf.flannel/1.rp_filter", "2");
    assert_eq!(run(&facts, &icmp(Family::V4), Direction::Forward).1.problems, []);
}

#[test]
fn packets_that_have_too_far_to_go() {
    let walked = |ttl| {
        let flow = FlowSpec { ttl, ..icmp(Family::V4) };
        let (topology, walked) = run(&healthy(), &flow, Direction::Forward);
        let seen = |p: &Problem| (p.cause(), last_seen(&topology, p));
        walked.problems.iter().map(seen).collect::<Vec<_>>()
    };
    assert_eq!(walked(1), [("route.ttl-expired", "A.cni0<".to_owned())]);
    assert_eq!(walked(2), [("route.ttl-expired", "B.flannel.1<".to_owned())]);
    assert_eq!(walked(3), []);
}

#[test]
fn rules_and_policies_that_drop() {
    let mut facts = healthy();
    let port = Match::Dport(vec![PortRange { first: 8472, last: 8472 }]);
    let text = "-A INPUT -p udp -m udp --dport 8472 -j DROP";
    let drop = rule(text, vec![Match::Proto(vec![17]), port], Action::Drop);
    filter(&mut facts, NODE[1], "INPUT", NfHook::Input, Policy::Accept, vec![drop]);
    let problem = only(&facts, "netfilter.drop", "B.ens33", "B.ens33<");
    assert_eq!(
        problem.fix(),
        ["iptables-nft -t filter -D INPUT -p udp -m udp --dport 8472 -j DROP"]
    );
    let mut facts = healthy();
    filter(&mut facts, NODE[0], "FORWARD", NfHook::Forward, Policy::Drop, vec![]);
    let problem = only(&facts, "netfilter.policy", "A.flannel.1", "A.cni0<");
    assert_eq!(problem.fix(), ["iptables-nft -t filter -P FORWARD ACCEPT"]);
    let mut facts = healthy();
    let with = "icmp-admin-prohibited".to_owned();
    let reject = rule("-A FORWARD -j REJECT", vec![], Action::Reject { with });
    filter(&mut facts, NODE[1], "FORWARD", NfHook::Forward, Policy::Accept, vec![reject]);
    only(&facts, "netfilter.reject", "B.cni0", "B.flannel.1<");
}

#[test]
fn rules_that_may_drop_are_doubtful_and_chance_is_harm() {
    let mut facts = healthy();
    let odd = rule("-m odd -j DROP", vec![Match::Unknown("odd".to_owned())], Action::Drop);
    filter(&mut facts, NODE[0], "FORWARD", NfHook::Forward, Policy::Accept, vec![odd]);
    let (_, walked) = run(&facts, &icmp(Family::V4), Direction::Forward);
    assert_eq!(walked.problems, []);
    assert_eq!(walked.gaps().collect::<Vec<_>>(), ["it depends on odd"]);
    let mut facts = healthy();
    let some = Match::Sometimes("statistic".to_owned());
    let drop = rule("-m statistic -j DROP", vec![some], Action::Drop);
    filter(&mut facts, NODE[0], "FORWARD", NfHook::Forward, Policy::Accept, vec![drop]);
    let problem = only(&facts, "netfilter.drop", "A.flannel.1", "A.cni0<");
    assert_eq!(problem.seriousness, Seriousness::Harms);
}

#[test]
fn connection_tracking_that_is_full() {
    let state = |count, max| {
        let mut facts = healthy();
        space(&mut facts, NODE[0]).conntrack =
            Some(Conntrack { count: Some(count), max: Some(max), ..Conntrack::default() });
        facts
    };
    assert_eq!(run(&state(10, 400), &icmp(Family::V4), Direction::Forward).1.problems, []);
    let full = only(&state(600, 400), "netfilter.conntrack-full", "A.cni0", "A.cni0<");
    assert!(full.deadly() && full.certain);
    let nearly = only(&state(399, 400), "netfilter.conntrack-full", "A.cni0", "A.cni0<");
    assert_eq!(nearly.seriousness, Seriousness::Harms);
    // With br_netfilter it happens in the bridge.
    let mut facts = state(600, 400);
    set(&mut facts, NODE[0], "net.bridge.bridge-nf-call-iptables", "1");
    only(&facts, "netfilter.conntrack-full", "A.cni0", "A.vethabc<");
}

#[test]
fn sources_that_are_translated_between_pods() {
    let mut facts = healthy();
    let masquerade = Action::Masquerade { ports: None, random: false };
    let rules = vec![rule("-A POSTROUTING -j MASQUERADE", vec![], masquerade)];
    filter(&mut facts, NODE[0], "POSTROUTING", NfHook::Postrouting, Policy::Accept, rules);
    let problem = only(&facts, "netfilter.masquerade-unexpected", "A.flannel.1", "A.cni0<");
    assert_eq!(problem.seriousness, Seriousness::Note);
}

#[test]
fn destinations_that_are_translated_between_pods() {
    let mut facts = healthy();
    let dnat = |to: &str| Action::Dnat { to: to.to_owned() };
    let rules = |to| vec![rule("-A PREROUTING -j DNAT", vec![], dnat(to))];
    let with = |facts: &mut PathFacts, to| {
        filter(facts, NODE[0], "PREROUTING", NfHook::Prerouting, Policy::Accept, rules(to));
    };
    with(&mut facts, "10.10.1.99:53");
    let problem = only(&facts, "netfilter.redirected", "A.cni0", "A.cni0<");
    assert!(problem.deadly() && problem.certain);
    assert!(problem.text.contains("redirects the packet at PREROUTING"), "{}", problem.text);
    // To where it is going anyway.
    let mut facts = healthy();
    with(&mut facts, "10.10.1.2");
    assert_eq!(run(&facts, &icmp(Family::V4), Direction::Forward).1.problems, []);
}
