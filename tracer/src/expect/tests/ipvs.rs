//! Services that IPVS balances.

use super::*;
use crate::expect::firewall::{PacketView, untranslated};
use crate::expect::ipvs::{leads_to, servers, service, services_at, text};
use crate::expect::translate::{Wanted, ports, targets};
use crate::expect::walk::{FlowSpec, Problem, StepOutcome, Walk, walk};
use crate::facts::firewall::iptables;
use crate::facts::{
    Forwarding, Ipvs, Link, NetnsFacts, RealServer, Space, Virtual, VirtualService,
};
use crate::model::{Leads, Service};

/// Index of `kube-ipvs0`.
const KUBE_IPVS0: u32 = 9;

fn server(ip_port: &str, weight: u32) -> RealServer {
    let at: std::net::SocketAddr = ip_port.parse().unwrap();
    let forwarding = Forwarding::Masq;
    RealServer { ip: at.ip(), port: at.port(), forwarding, weight, active: 0, inactive: 0 }
}

fn balanced(of: Virtual, servers: Vec<RealServer>) -> VirtualService {
    let scheduler = "rr".to_owned();
    VirtualService { of, scheduler, persistent: None, one_packet: false, servers }
}

fn tcp(address: &str, port: u16) -> Virtual {
    Virtual::Address { proto: 6, ip: ip(address), port }
}

/// A node as kube-proxy leaves it: one service with two backends and one that goes away, one without.
fn serve(space: &mut Space) {
    let kind = Some("dummy".to_owned());
    let name = "kube-ipvs0".to_owned();
    space.facts.links.push(Link { index: KUBE_IPVS0, name, kind, arphrd: 1, ..Link::default() });
    for own in ["10.96.0.10/32", "10.96.0.99/32"] {
        space.facts.addresses.push(address(KUBE_IPVS0, own));
    }
    let web =
        vec![server("10.10.1.2:8080", 1), server("10.10.1.3:8080", 1), server("10.10.1.4:8080", 0)];
    let services =
        vec![balanced(tcp("10.96.0.10", 80), web), balanced(tcp("10.96.0.99", 80), Vec::new())];
    space.facts.ipvs = Some(Ipvs { services, truncated: false });
}

fn served() -> PathFacts {
    let mut facts = two_nodes(&Shape::default());
    for space in facts.spaces.iter_mut().filter(|s| s.kind == SpaceKind::Node) {
        serve(space);
    }
    facts
}

fn node<'a>(facts: &'a PathFacts, name: &str) -> &'a NetnsFacts {
    &facts.node(name).unwrap().facts
}

fn wanted(dst: &str, port: u16) -> Wanted {
    Wanted { src: ip("10.10.0.2"), dst: ip(dst), proto: Some(6), port: Some(port) }
}

fn found(facts: &NetnsFacts, wanted: &Wanted) -> Vec<String> {
    targets(facts, wanted).into_iter().map(|t| t.entry).collect()
}

#[test]
fn the_real_servers_that_take_connections_are_the_targets() {
    let facts = served();
    let node = node(&facts, "A");
    let both = [
        "ipvs TCP 10.96.0.10:80 rr -> 10.10.1.2:8080 Masq weight 1",
        "ipvs TCP 10.96.0.10:80 rr -> 10.10.1.3:8080 Masq weight 1",
    ];
    assert_eq!(found(node, &wanted("10.96.0.10", 80)), both);
    let first = targets(node, &wanted("10.96.0.10", 80)).remove(0);
    assert_eq!((first.ip, first.port, first.proto), (ip("10.10.1.2"), Some(8080), 6));
    assert_eq!(first.leads, Leads::Rule);
    for (dst, port) in [("10.96.0.10", 81), ("10.96.0.99", 80), ("10.96.0.11", 80)] {
        assert_eq!(found(node, &wanted(dst, port)), [""; 0], "{dst}:{port}");
    }
    let udp = Wanted { proto: Some(17), ..wanted("10.96.0.10", 80) };
    assert_eq!(found(node, &udp), [""; 0]);
    assert_eq!(ports(node, ip("10.96.0.10")), [(6, 80)].into());
}

#[test]
fn a_service_without_real_servers_is_still_a_service() {
    let facts = served();
    let node = node(&facts, "A");
    let empty = service(node, ip("10.96.0.99"), 6, 80).unwrap();
    assert_eq!(servers(empty).count(), 0);
    assert_eq!(services_at(node, ip("10.96.0.99")).count(), 1);
    assert!(service(node, ip("10.96.0.99"), 6, 81).is_none());
}

#[test]
fn a_service_for_every_port_comes_after_that_of_the_port() {
    let mut facts = served();
    let space = facts.spaces.iter_mut().find(|s| s.node == "A" && s.pod.is_none()).unwrap();
    let all = balanced(tcp("10.96.0.10", 0), vec![server("10.10.1.9:0", 1)]);
    space.facts.ipvs.as_mut().unwrap().services.insert(0, all);
    assert_eq!(found(&space.facts, &wanted("10.96.0.10", 80)).len(), 2);
    let other = targets(&space.facts, &wanted("10.96.0.10", 443));
    let other: Vec<_> = other.iter().map(|t| (t.ip, t.port)).collect();
    assert_eq!(other, [(ip("10.10.1.9"), None)]);
}

#[test]
fn ipvs_sees_only_what_is_for_the_node_or_from_it() {
    let mut facts = served();
    let space = facts.spaces.iter_mut().find(|s| s.node == "A" && s.pod.is_none()).unwrap();
    space.facts.addresses.retain(|a| a.ifindex != KUBE_IPVS0);
    assert_eq!(found(&space.facts, &wanted("10.96.0.10", 80)), [""; 0]);
    let own = Wanted { src: ip("192.168.10.10"), ..wanted("10.96.0.10", 80) };
    assert_eq!(found(&space.facts, &own).len(), 2);
}

#[test]
fn what_a_rule_translates_ipvs_never_sees() {
    let mut facts = served();
    let space = facts.spaces.iter_mut().find(|s| s.node == "A" && s.pod.is_none()).unwrap();
    let rule = "*nat\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -d 10.96.0.10/32 -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.10.1.7:80\nCOMMIT\n";
    space.facts.firewall.tables =
        iptables::parse(&format!("# Generated by iptables-nft-save v1.8.9\n{rule}"), false);
    let only = targets(&space.facts, &wanted("10.96.0.10", 80));
    assert_eq!(only.iter().map(|t| t.ip).collect::<Vec<_>>(), [ip("10.10.1.7")]);
}

/// Pod a to the service, with pod b behind it.
fn to_service(mut facts: PathFacts, entry: &str) -> PathFacts {
    facts.dst.service = Some(Service {
        ip: ip("10.96.0.10"),
        port: Some(80),
        proto: Some(6),
        target_port: Some(8080),
        leads: Leads::Rule,
        dead: false,
        others: Vec::new(),
        translator: "A".to_owned(),
        entry: Some(entry.to_owned()),
    });
    facts
}

fn walked(facts: &PathFacts, direction: Direction) -> Walk {
    let topology = topology(facts, Family::V4).unwrap();
    let flow = FlowSpec { dport: Some(8080), ..FlowSpec::small(Family::V4, 6) };
    walk(facts, &topology, &flow, direction)
}

#[test]
fn translated_packets_leave_by_input_and_output() {
    let mut facts = served();
    for space in &mut facts.spaces {
        for name in ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"] {
            space.facts.sysctls.insert(name.to_owned(), "1".to_owned());
        }
    }
    let space = facts.spaces.iter_mut().find(|s| s.node == "A" && s.pod.is_none()).unwrap();
    let entry = text(&space.facts.ipvs.as_ref().unwrap().services[0], &server("10.10.1.2:8080", 1));
    // Nothing new is forwarded, which IPVS does not do.
    let filter = "# Generated by iptables-nft-save v1.8.9\n*filter\n:FORWARD DROP [0:0]\n:INPUT ACCEPT [0:0]\n-A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT\nCOMMIT\n";
    space.facts.firewall.tables = iptables::parse(filter, false);
    let facts = to_service(facts, &entry);
    for direction in [Direction::Forward, Direction::Reply] {
        let walk = walked(&facts, direction);
        let wrong =
            |p: &&Problem| ["netfilter.", "route."].iter().any(|a| p.cause().starts_with(a));
        assert_eq!(walk.problems.iter().find(wrong), None);
    }
    let walk = walked(&facts, Direction::Forward);
    let step = walk.steps.iter().find(|s| s.text == entry).unwrap();
    assert_eq!(step.outcome, StepOutcome::Passes);
    assert_eq!(step.stage.as_str(), "input");
}

#[test]
fn what_input_refuses_ipvs_never_gets() {
    let mut facts = served();
    let space = facts.spaces.iter_mut().find(|s| s.node == "A" && s.pod.is_none()).unwrap();
    let filter = "# Generated by iptables-nft-save v1.8.9\n*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -d 10.96.0.10/32 -p tcp -m tcp --dport 80 -j DROP\nCOMMIT\n";
    space.facts.firewall.tables = iptables::parse(filter, false);
    let walk = walked(&to_service(facts, ""), Direction::Forward);
    let problem = walk.first_break().unwrap();
    assert_eq!((problem.stage.as_str(), problem.kind.cause()), ("input", "netfilter.drop"));
}

#[test]
fn on_one_node_the_packet_goes_up_to_the_node() {
    let mut facts = one_node(false);
    serve(&mut facts.spaces[0]);
    let web = &mut facts.spaces[0].facts.ipvs.as_mut().unwrap().services[0];
    web.servers = vec![server("10.10.0.3:8080", 1)];
    let node = &mut facts.spaces[0].facts;
    node.sysctls.insert("net.bridge.bridge-nf-call-iptables".to_owned(), "1".to_owned());
    let service = |facts| to_service(facts, "").dst.service.unwrap();
    let service = service(facts.clone());
    assert!(leads_to(&facts.spaces[0].facts, &service, ip("10.10.0.3")).is_some());
    let bridged = topology(&facts, Family::V4).unwrap();
    assert!(!planned(&bridged, &bridged.forward).contains(&"A.cni0<".to_owned()));
    facts.dst.service = Some(service);
    let routed = topology(&facts, Family::V4).unwrap();
    let way = planned(&routed, &routed.forward);
    assert!(way.contains(&"A.cni0<".to_owned()), "{way:?}");
}

#[test]
fn what_ipvs_does_not_translate_has_a_meaning() {
    let facts = served();
    for (address, port, cause) in [
        ("10.96.0.99", 80, "service.no-endpoints"),
        ("10.96.0.10", 8080, "service.no-port"),
        ("10.96.0.11", 80, "service.no-rules"),
    ] {
        let packet =
            PacketView { dport: Some(port), ..PacketView::new(ip("10.10.0.2"), ip(address), 6) };
        assert_eq!(untranslated(&packet, node(&facts, "A"), "A").cause, cause, "{address}:{port}");
    }
}
