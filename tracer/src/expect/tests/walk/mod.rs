//! The walk on hand-made facts: nothing wrong on a healthy cluster, and each fault told as itself.

mod ends;
mod nodes;
mod pods;
mod tunnels;

use super::*;
use crate::expect::walk::{FlowSpec, Problem, Seriousness, StepOutcome, Walk, walk};
use crate::facts::firewall::*;
use crate::facts::*;
use crate::model::Mac;

/// IP protocol numbers.
const ICMP: u8 = 1;
const TCP: u8 = 6;

/// A cluster with all that a walk asks for.
fn cluster(shape: &Shape) -> PathFacts {
    let mut facts = two_nodes(shape);
    complete(&mut facts);
    facts
}

fn complete(facts: &mut PathFacts) {
    for space in &mut facts.spaces {
        let own = &mut space.facts;
        for link in &mut own.links {
            if link.index == PHYSICAL && space.kind == SpaceKind::Node
                || space.kind == SpaceKind::Wire
            {
                link.mtu = 1500;
            }
            if link.index == VXLAN6 && space.kind == SpaceKind::Node {
                link.mtu = 1430;
            }
            if link.master.is_some() {
                let state = Some("forwarding".to_owned());
                link.bridge_port = Some(BridgePort { state, ..BridgePort::default() });
            }
        }
        for (name, value) in [
            ("net.ipv4.ip_forward", "1"),
            ("net.ipv6.conf.all.forwarding", "1"),
            ("net.ipv4.conf.all.rp_filter", "0"),
        ] {
            own.sysctls.insert(name.to_owned(), value.to_owned());
        }
        for v6 in [false, true] {
            for (priority, table) in [(0, 255), (32766, 254), (32767, 253)] {
                let action = RuleAction::ToTable;
                own.rules.push(Rule { v6, priority, table, action, ..Rule::default() });
            }
        }
    }
}

fn healthy() -> PathFacts {
    cluster(&Shape::default())
}

fn run(facts: &PathFacts, flow: &FlowSpec, direction: Direction) -> (Topology, Walk) {
    let topology = topology(facts, flow.family).unwrap();
    let walked = walk(facts, &topology, flow, direction);
    (topology, walked)
}

fn icmp(family: Family) -> FlowSpec {
    FlowSpec::small(family, if family == Family::V6 { 58 } else { ICMP })
}

fn space(facts: &mut PathFacts, inum: u32) -> &mut NetnsFacts {
    &mut facts.spaces.iter_mut().find(|s| s.facts.inum == inum).unwrap().facts
}

fn link(facts: &mut PathFacts, inum: u32, index: u32) -> &mut Link {
    space(facts, inum).links.iter_mut().find(|l| l.index == index).unwrap()
}

fn set(facts: &mut PathFacts, inum: u32, name: &str, value: &str) {
    space(facts, inum).sysctls.insert(name.to_owned(), value.to_owned());
}

/// The answers for a destination become others.
fn answer(facts: &mut PathFacts, inum: u32, dst: &str, outcome: RouteOutcome) {
    for answer in &mut space(facts, inum).answers {
        if answer.query.dst == ip(dst) {
            answer.outcome = outcome.clone();
        }
    }
}

fn no_route() -> RouteOutcome {
    let message = "Network is unreachable".to_owned();
    RouteOutcome::Failed { errno: 101, message }
}

fn via(oif: u32, gateway: Option<&str>) -> RouteOutcome {
    RouteOutcome::Found(RouteHit {
        oif: Some(oif),
        gateway: gateway.map(ip),
        table: 254,
        ..RouteHit::default()
    })
}

fn route(dst: &str, kind: RouteKind, oif: Option<u32>) -> Route {
    Route { table: 254, kind, dst: dst.parse().unwrap(), oif, ..Route::default() }
}

fn rule(text: &str, conditions: Vec<Match>, action: Action) -> FirewallRule {
    FirewallRule {
        handle: None,
        text: text.to_owned(),
        counter: None,
        conditions: conditions.into_iter().map(Condition::is).collect(),
        effects: Vec::new(),
        action,
    }
}

fn filter(
    facts: &mut PathFacts,
    inum: u32,
    chain: &str,
    hook: NfHook,
    policy: Policy,
    rules: Vec<FirewallRule>,
) {
    let base = BaseChain {
        hook,
        priority: 0,
        kind: "filter".to_owned(),
        policy,
        counter: None,
        devices: Vec::new(),
    };
    let chain = Chain { name: chain.to_owned(), base: Some(base), rules };
    let table = Table {
        backend: Backend::IptablesNft,
        family: TableFamily::Ip,
        name: "filter".to_owned(),
        chains: vec![chain],
    };
    space(facts, inum).firewall.tables.push(table);
}

/// The point behind which the packet is gone: `A.cni0<`.
fn last_seen(topology: &Topology, problem: &Problem) -> String {
    problem.after.map_or_else(String::new, |p| planned(topology, &[p]).remove(0))
}

/// Walks forward over IPv4 and expects exactly one problem: its cause, place, last point seen.
#[track_caller]
fn only(facts: &PathFacts, cause: &str, place: &str, seen: &str) -> Problem {
    only_in(facts, &icmp(Family::V4), Direction::Forward, cause, place, seen)
}

#[track_caller]
fn only_in(
    facts: &PathFacts,
    flow: &FlowSpec,
    direction: Direction,
    cause: &str,
    place: &str,
    seen: &str,
) -> Problem {
    let (topology, walked) = run(facts, flow, direction);
    let told: Vec<_> = walked
        .problems
        .iter()
        .map(|p| {
            let spot = [Some(p.spot.node.clone()), p.spot.pod.clone(), p.spot.interface.clone()];
            let place = spot.into_iter().flatten().collect::<Vec<_>>().join(".");
            (p.cause(), place, last_seen(&topology, p))
        })
        .collect();
    assert_eq!(told, [(cause, place.to_owned(), seen.to_owned())], "{:#?}", walked.problems);
    let problem = walked.problems.into_iter().next().unwrap();
    assert!(crate::causes::title(cause).is_some(), "{cause} is no known cause");
    assert!(!problem.fix().is_empty(), "{cause} has no way out");
    assert!(!problem.text.is_empty());
    problem
}

#[test]
fn a_healthy_cluster_has_no_problem_and_no_gap() {
    let shapes = [
        Shape::default(),
        Shape { wire: false, ..Shape::default() },
        Shape { tunnel: false, ..Shape::default() },
        Shape { port: 4789, ..Shape::default() },
        Shape { pod_bridge: false, ..Shape::default() },
    ];
    for shape in shapes {
        for direction in [Direction::Forward, Direction::Reply] {
            let (_, walked) = run(&cluster(&shape), &icmp(Family::V4), direction);
            assert_eq!(walked.problems, [], "{direction}");
            let gaps: Vec<_> = walked.gaps().collect();
            assert_eq!(gaps, [""; 0], "{direction}");
            assert!(walked.steps.len() > 10);
        }
    }
}

#[test]
fn pods_of_one_node_have_no_problem() {
    for through_gateway in [false, true] {
        let mut facts = one_node(through_gateway);
        complete(&mut facts);
        for direction in [Direction::Forward, Direction::Reply] {
            let (_, walked) = run(&facts, &icmp(Family::V4), direction);
            assert_eq!(walked.problems, [], "{through_gateway} {direction}");
        }
    }
}

#[test]
fn ipv6_has_no_problem() {
    let facts = cluster(&Shape { vxlan6: true, ..Shape::default() });
    for direction in [Direction::Forward, Direction::Reply] {
        let (_, walked) = run(&facts, &icmp(Family::V6), direction);
        assert_eq!(walked.problems, [], "{direction}");
    }
}

#[test]
fn facts_that_are_missing_accuse_nobody() {
    let mut facts = two_nodes(&Shape::default());
    link(&mut facts, NODE[0], PHYSICAL).mtu = 1500;
    for space in &mut facts.spaces {
        let gap =
            |source: &str| Gap { source: source.to_owned(), reason: "no permission".to_owned() };
        space.facts.gaps = vec![gap("firewall (nft)"), gap("sysctls")];
        space.facts.answers.clear();
        for link in &mut space.facts.links {
            link.mtu = if link.is("vxlan") { 1450 } else { 1500 };
        }
    }
    for (inum, index) in [(POD[0], ETH), (POD[1], ETH)] {
        link(&mut facts, inum, index).mtu = 1450;
    }
    let (_, walked) = run(&facts, &icmp(Family::V4), Direction::Forward);
    assert_eq!(walked.problems, []);
    assert!(walked.gaps().count() >= 4, "and each gap is told");
}

#[test]
fn steps_name_the_entries_that_decide() {
    let (_, walked) = run(&healthy(), &icmp(Family::V4), Direction::Forward);
    let texts: Vec<_> = walked.steps.iter().map(|s| s.text.as_str()).collect();
    for entry in [
        "10.10.1.2 via 10.10.1.0 dev flannel.1",
        "10.10.1.0 dev flannel.1 lladdr 02:f6:00:00:00:01 PERMANENT",
        "02:f6:00:00:00:01 dev flannel.1 dst 192.168.10.11 self permanent",
        "flannel.1: vxlan id 1 local 192.168.10.10 dstport 8472 nolearning",
    ] {
        assert!(texts.contains(&entry), "{entry} not in {texts:#?}");
    }
    assert!(walked.steps.iter().all(|s| s.outcome == StepOutcome::Passes));
}

#[test]
fn a_break_hides_nothing_behind_it() {
    let mut facts = healthy();
    set(&mut facts, NODE[0], "net.ipv4.ip_forward", "0");
    space(&mut facts, NODE[0]).fdb.clear();
    link(&mut facts, NODE[1], VXLAN).up = false;
    link(&mut facts, POD[1], ETH).up = false;
    let (_, walked) = run(&facts, &icmp(Family::V4), Direction::Forward);
    let causes: Vec<_> = walked.problems.iter().map(Problem::cause).collect();
    assert_eq!(
        causes,
        ["forwarding.disabled", "vxlan.fdb-missing", "vxlan.device-down", "pod.interface-down"]
    );
    let positions: Vec<_> = walked.problems.iter().map(|p| p.position).collect();
    assert!(positions.is_sorted(), "{positions:?}");
    assert_eq!(walked.first_break().unwrap().cause(), "forwarding.disabled");
}
