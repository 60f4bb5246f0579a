#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use super::super::firewall::{TableFamily, iptables, nft};
use super::super::{
    Conntrack, Link, LinkStats, NeighborEntry, NeighborState, PathFacts, Qdisc, Route, Space,
    SpaceKind,
};
use super::compare::without_counters;
use super::*;
use crate::facts::NetnsFacts;
use crate::model::{End, EndKind};

fn end(name: &str) -> End {
    let node = "A".to_owned();
    End {
        name: name.to_owned(),
        node,
        pod: None,
        ips: Vec::new(),
        netns_inum: 1,
        kind: EndKind::default(),
        service: None,
    }
}

fn path(facts: NetnsFacts) -> PathFacts {
    let space = Space {
        node: "A".to_owned(),
        pod: None,
        kind: SpaceKind::Node,
        ips: Vec::new(),
        facts: NetnsFacts { inum: 7, ..facts },
    };
    let (spaces, pods, gaps) = (vec![space], Vec::new(), Vec::new());
    PathFacts {
        src: end("A.a"),
        dst: end("A.b"),
        backends: Vec::new(),
        spaces: spaces.into(),
        pods,
        gaps,
    }
}

fn changes(before: NetnsFacts, after: NetnsFacts) -> Vec<Change> {
    diff(&path(before), &path(after)).into_iter().map(|d| d.change).collect()
}

fn counters(values: &[(&str, u64)]) -> std::collections::BTreeMap<String, u64> {
    values.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
}

#[test]
fn counters_tell_by_how_much_they_moved() {
    let before = NetnsFacts {
        counters: counters(&[("Ip.InAddrErrors", 3), ("Ip.InReceives", 5), ("Ip.Down", 9)]),
        conntrack: Some(Conntrack { stats: counters(&[("drop", 1)]), ..Conntrack::default() }),
        ..NetnsFacts::default()
    };
    let after = NetnsFacts {
        counters: counters(&[
            ("Ip.InAddrErrors", 8),
            ("Ip.InReceives", 5),
            ("Ip.Down", 2),
            ("IcmpMsg.OutType3", 1),
        ]),
        conntrack: Some(Conntrack { stats: counters(&[("drop", 4)]), ..Conntrack::default() }),
        ..NetnsFacts::default()
    };
    let counter = |name: &str, by| Change::Counter { name: name.to_owned(), by };
    assert_eq!(
        changes(before, after),
        [
            counter("IcmpMsg.OutType3", 1),
            counter("Ip.InAddrErrors", 5),
            Change::ConntrackCounter { name: "drop".to_owned(), by: 3 },
        ]
    );
}

#[test]
fn a_rule_that_packets_met_is_found_though_another_came_above_it() {
    let text = |rules: &str| format!("*filter\n:FORWARD ACCEPT [1:10]\n{rules}COMMIT\n");
    let facts = |rules: &str| NetnsFacts {
        firewall: firewall_of(iptables::parse(&text(rules), false)),
        ..NetnsFacts::default()
    };
    let before = facts("[5:50] -A FORWARD -i a -j DROP\n");
    let after = facts("[0:0] -A FORWARD -j ACCEPT\n[8:90] -A FORWARD -i a -j DROP\n");
    let place = |position, text: &str| RulePlace {
        backend: Backend::IptablesLegacy,
        family: TableFamily::Ip,
        table: "filter".to_owned(),
        chain: "FORWARD".to_owned(),
        position: Some(position),
        text: text.to_owned(),
    };
    assert_eq!(
        changes(before, after),
        [
            Change::FirewallRule(Entry {
                before: None,
                after: Some(place(0, "-A FORWARD -j ACCEPT")),
            }),
            Change::RuleCounter {
                rule: place(1, "-A FORWARD -i a -j DROP"),
                packets: 3,
                bytes: 40,
            },
        ]
    );
}

#[test]
fn policies_count_and_change() {
    let facts = |policy: &str| NetnsFacts {
        firewall: firewall_of(iptables::parse(
            &format!("*filter\n:FORWARD {policy}\nCOMMIT\n"),
            false,
        )),
        ..NetnsFacts::default()
    };
    let moved = changes(facts("DROP [1:10]"), facts("DROP [3:30]"));
    let [Change::RuleCounter { rule, packets: 2, bytes: 20 }] = &moved[..] else {
        panic!("{moved:?}")
    };
    assert_eq!((rule.position, rule.text.as_str()), (None, "policy drop"));
    let [Change::FirewallRule(new), Change::FirewallRule(old)] =
        &changes(facts("ACCEPT [1:10]"), facts("DROP [0:0]"))[..]
    else {
        panic!("a changed policy is one that went and one that came")
    };
    assert_eq!(new.after.as_ref().unwrap().text, "policy drop");
    assert_eq!(old.before.as_ref().unwrap().text, "policy accept");
}

#[test]
fn nft_rules_are_the_same_whatever_they_have_counted() {
    assert_eq!(
        without_counters("udp dport 1 counter packets 5 bytes 6 drop"),
        "udp dport 1 counter drop"
    );
    assert_eq!(without_counters("counter packets 5 bytes 6"), "counter");
    assert_eq!(without_counters("comment \"counter packets x\""), "comment \"counter packets x\"");
    let facts = |packets: u64| {
        let json = r#"{"nftables":[{"table":{"family":"inet","name":"t"}},{"chain":{"family":"inet","table":"t","name":"c"}},{"rule":{"family":"inet","table":"t","chain":"c","handle":3,"expr":[{"counter":{"packets":N,"bytes":0}},{"drop":null}]}}]}"#;
        let mut tables = nft::parse(&json.replace('N', &packets.to_string())).unwrap();
        let listing = format!(
            "table inet t {{ # handle 1\nchain c {{ # handle 2\ncounter packets {packets} bytes 0 drop # handle 3\n}}\n}}\n"
        );
        nft::add_text(&mut tables, &listing);
        NetnsFacts { firewall: firewall_of(tables), ..NetnsFacts::default() }
    };
    let moved = changes(facts(1), facts(6));
    let [Change::RuleCounter { rule, packets: 5, .. }] = &moved[..] else { panic!("{moved:?}") };
    assert_eq!(rule.text, "counter drop");
}

#[test]
fn tables_tell_what_came_went_and_changed() {
    let link = |mtu, rx_dropped| Link {
        index: 4,
        name: "eth0".to_owned(),
        mtu,
        stats: Some(LinkStats { rx_dropped, ..LinkStats::default() }),
        ..Link::default()
    };
    let route =
        |dst: &str, oif| Route { dst: dst.parse().unwrap(), oif: Some(oif), ..Route::default() };
    let neighbor =
        |state, ip: &str| NeighborEntry { ifindex: 4, ip: ip.parse().unwrap(), mac: None, state };
    let qdisc = |drops| Qdisc {
        ifindex: 4,
        kind: "tbf".to_owned(),
        handle: "1:".to_owned(),
        drops,
        ..Qdisc::default()
    };
    let sysctl = |value: &str| [("net.ipv4.ip_forward".to_owned(), value.to_owned())].into();
    let before = NetnsFacts {
        links: vec![link(1500, 1)],
        routes: vec![route("10.0.0.0/8", 4), route("10.1.0.0/16", 4)],
        neighbors: vec![
            neighbor(NeighborState::Reachable, "10.0.0.1"),
            neighbor(NeighborState::Incomplete, "10.0.0.2"),
        ],
        qdiscs: vec![qdisc(0)],
        sysctls: sysctl("1"),
        ..NetnsFacts::default()
    };
    let after = NetnsFacts {
        links: vec![link(1400, 3)],
        routes: vec![route("10.0.0.0/8", 5)],
        neighbors: vec![
            neighbor(NeighborState::Stale, "10.0.0.1"),
            neighbor(NeighborState::Failed, "10.0.0.2"),
        ],
        qdiscs: vec![qdisc(2)],
        sysctls: sysctl("0"),
        ..NetnsFacts::default()
    };
    let found = changes(before.clone(), after);
    let [
        Change::Link(mtu),
        Change::Route(changed),
        Change::Route(gone),
        Change::Neighbor { ip, entry },
        Change::Sysctl { value, .. },
        Change::LinkCounter { name, by: 2, .. },
        Change::QdiscCounter { kind, by: 2, .. },
    ] = &found[..]
    else {
        panic!("{found:#?}")
    };
    assert_eq!(mtu.after.as_ref().unwrap().mtu, 1400);
    assert_eq!(changed.before.as_ref().unwrap().oif, Some(4));
    assert_eq!(changed.after.as_ref().unwrap().oif, Some(5));
    assert!(gone.after.is_none());
    assert_eq!(*ip, "10.0.0.2".parse::<IpAddr>().unwrap());
    assert_eq!(entry.after.as_ref().unwrap().state, NeighborState::Failed);
    assert_eq!(value.after.as_deref(), Some("0"));
    assert_eq!((name.as_str(), kind.as_str()), ("rx_dropped", "tbf"));
    assert_eq!(changes(before.clone(), before), []);
}

#[test]
fn a_source_that_could_not_be_read_did_not_become_empty() {
    let before = NetnsFacts { routes: vec![Route::default()], ..NetnsFacts::default() };
    let gap = crate::facts::Gap { source: "IPv4 routes".to_owned(), reason: "busy".to_owned() };
    let after = NetnsFacts { gaps: vec![gap], ..NetnsFacts::default() };
    assert_eq!(changes(before, after), []);
}

#[test]
fn a_tool_that_is_always_missing_hides_nothing_of_the_others() {
    let facts = |counter: &str, missing: bool| {
        let text = format!("*filter\n:FORWARD DROP {counter}\nCOMMIT\n");
        let source = "firewall (nft)".to_owned();
        let gap = crate::facts::Gap { source, reason: "nft is not installed".to_owned() };
        NetnsFacts {
            firewall: firewall_of(iptables::parse(&text, false)),
            gaps: missing.then_some(gap).into_iter().collect(),
            ..NetnsFacts::default()
        }
    };
    assert_eq!(changes(facts("[1:1]", true), facts("[2:2]", true)).len(), 1);
    assert_eq!(changes(facts("[1:1]", true), facts("[2:2]", false)).len(), 0);
}

fn firewall_of(tables: Vec<crate::facts::firewall::Table>) -> crate::facts::Firewall {
    crate::facts::Firewall { tables, ..crate::facts::Firewall::default() }
}
