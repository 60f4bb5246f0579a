//! Facts are recorded in trace files: what was written must be read again, also by later versions.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use super::firewall::{iptables, nft};
use super::*;

#[test]
fn facts_recorded_before_there_were_counters_still_load() {
    let old = r#"{
        "name": "podtrace-A", "inum": 7,
        "links": [{"index": 2, "name": "ens33", "kind": null, "arphrd": 1, "mac": "02:00:00:00:00:01",
            "mtu": 1500, "loopback": false, "up": true, "lower_up": true, "oper_state": "up",
            "master": null, "linked": null, "linked_nsid": null, "vxlan": null, "bridge_port": null}],
        "addresses": [], "neighbors": [], "fdb": [],
        "routes": [{"table": 254, "kind": "unicast", "dst": "10.0.0.0/8", "oif": 2, "gateway": null,
            "prefsrc": null, "priority": null, "protocol": 3, "onlink": false, "dead": false,
            "more_hops": []}],
        "rules": [{"v6": false, "priority": 0, "invert": false, "src": null, "dst": null,
            "iif": null, "oif": null, "fwmark": null, "table": 255, "action": "to-table"}],
        "answers": [{"query": {"dst": "10.0.0.1", "src": null, "iif": null, "oif": null},
            "outcome": {"found": {"kind": "unicast", "oif": 2, "gateway": null, "prefsrc": null,
            "table": 254}}}],
        "nsids": {}
    }"#;
    let facts: NetnsFacts = serde_json::from_str(old).unwrap();
    assert_eq!(facts.links[0].stats, None);
    assert!(facts.firewall.is_empty());
    assert_eq!(facts.routes[0].mtu, None);
    assert_eq!(facts.rules[0].action, RuleAction::ToTable);
}

#[test]
fn what_is_recorded_is_read_again_unchanged() {
    let mut tables = nft::parse(include_str!("fixtures/nft.json")).unwrap();
    tables.extend(iptables::parse(include_str!("fixtures/iptables-legacy.txt"), false));
    tables.extend(iptables::parse(include_str!("fixtures/iptables-nft.txt"), false));
    let facts = NetnsFacts {
        links: vec![Link {
            stats: Some(LinkStats { rx_dropped: u64::MAX, ..LinkStats::default() }),
            xdp: Some(Xdp { mode: "generic".to_owned(), id: Some(3), name: None }),
            bridge: Some(BridgeInfo { stp: Some(true), ..BridgeInfo::default() }),
            ..Link::default()
        }],
        conntrack: Some(Conntrack { max: Some(400), ..Conntrack::default() }),
        firewall: Firewall { tables, ..Firewall::default() },
        qdiscs: vec![Qdisc { kind: "tbf".to_owned(), ..Qdisc::default() }],
        rules: vec![Rule { sport: Some((1, 2)), ..Rule::default() }],
        routes: vec![Route { mtu: Some(1400), ..Route::default() }],
        ..NetnsFacts::default()
    };
    let text = serde_json::to_string(&facts).unwrap();
    assert_eq!(serde_json::from_str::<NetnsFacts>(&text).unwrap(), facts);
}

#[test]
fn parameters_of_interfaces_with_dots_are_found() {
    let facts = NetnsFacts {
        sysctls: [("net.ipv4.conf.flannel/1.rp_filter".to_owned(), "2".to_owned())].into(),
        ..NetnsFacts::default()
    };
    assert_eq!(facts.interface_sysctl("ipv4", "flannel.1", "rp_filter"), Some("2"));
    assert_eq!(facts.sysctl_number("net.ipv4.conf.flannel/1.rp_filter"), Some(2));
    assert_eq!(facts.interface_sysctl("ipv6", "flannel.1", "rp_filter"), None);
}
