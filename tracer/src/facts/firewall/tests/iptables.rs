//! Output of the real tools, and arbitrary text.

use proptest::prelude::*;

use super::super::*;

fn legacy() -> Firewall {
    let tables = iptables::parse(include_str!("../../fixtures/iptables-legacy.txt"), false);
    Firewall { tables, ..Firewall::default() }
}

fn rule<'a>(firewall: &'a Firewall, table: &str, chain: &str, at: usize) -> &'a FirewallRule {
    let table = firewall.tables.iter().find(|t| t.name == table).unwrap();
    &table.chain(chain).unwrap().rules[at]
}

fn is(what: Match) -> Condition {
    Condition::is(what)
}

fn port(port: u16) -> PortRange {
    PortRange { first: port, last: port }
}

#[test]
fn the_implementation_is_told_by_the_first_line() {
    assert!(legacy().tables.iter().all(|t| t.backend == Backend::IptablesLegacy));
    let nft = iptables::parse(include_str!("../../fixtures/iptables-nft.txt"), false);
    assert_eq!(nft.len(), 2);
    assert!(nft.iter().all(|t| t.backend == Backend::IptablesNft));
}

#[test]
fn rules_keep_their_text_and_counters() {
    let firewall = legacy();
    let first = rule(&firewall, "filter", "INPUT", 0);
    assert_eq!(first.text, "-A INPUT -i lo -j ACCEPT");
    assert_eq!(first.counter, Some(Counter { packets: 2, bytes: 168 }));
    let vxlan = rule(&firewall, "filter", "INPUT", 1);
    assert_eq!(vxlan.text, "-A INPUT -p udp -m udp --dport 8472 -j DROP");
    assert_eq!(vxlan.conditions, [is(Match::Proto(vec![17])), is(Match::Dport(vec![port(8472)]))]);
    assert_eq!(vxlan.action, Action::Drop);
}

#[test]
fn base_chains_know_hook_priority_and_policy() {
    let firewall = legacy();
    let at = |hook| -> Vec<(String, i32, Policy)> {
        firewall
            .chains_at(TableFamily::Ip, hook)
            .iter()
            .map(|h| (h.table.name.clone(), h.base.priority, h.base.policy))
            .collect()
    };
    let accept = |name: &str, priority| (name.to_owned(), priority, Policy::Accept);
    assert_eq!(
        at(NfHook::Prerouting),
        [accept("raw", -300), accept("mangle", -150), accept("nat", -100)]
    );
    assert_eq!(at(NfHook::Postrouting), [accept("mangle", -150), accept("nat", 100)]);
    assert_eq!(
        at(NfHook::Input),
        [accept("mangle", -150), ("filter".to_owned(), 0, Policy::Drop), accept("nat", 100)]
    );
    assert!(firewall.chains_at(TableFamily::Ip6, NfHook::Input).is_empty());
    let output = firewall.chains_at(TableFamily::Ip, NfHook::Output);
    let filter = output.iter().find(|h| h.table.name == "filter").unwrap();
    assert_eq!(filter.base.counter, Some(Counter { packets: 2, bytes: 168 }));
    assert!(filter.table.chain("WEIRD").unwrap().base.is_none());
}

#[test]
fn a_comment_is_no_condition_whatever_it_says() {
    let firewall = legacy();
    let rule = rule(&firewall, "filter", "INPUT", 2);
    assert_eq!(
        rule.conditions,
        [
            is(Match::Proto(vec![17])),
            is(Match::Sport(vec![PortRange { first: 1000, last: 2000 }])),
            is(Match::Dport(vec![port(53)])),
        ]
    );
    assert_eq!(rule.action, Action::Reject { with: "icmp-host-prohibited".into() });
}

#[test]
fn modules_are_understood() {
    let firewall = legacy();
    let of = |chain, at| rule(&firewall, "filter", chain, at).conditions.clone();
    let ports = vec![port(22), port(80), PortRange { first: 8000, last: 8100 }];
    assert_eq!(of("INPUT", 3)[1], is(Match::Dport(ports)));
    assert_eq!(of("INPUT", 4)[1], is(Match::Icmp { v6: false, types: vec![(3, Some(4))] }));
    assert_eq!(
        of("INPUT", 5)[1..],
        [
            is(Match::Icmp { v6: false, types: vec![(8, None)] }),
            is(Match::Sometimes("-m limit --limit 5/min --limit-burst 7".into())),
        ]
    );
    let range = words::address_range("10.0.0.1-10.0.0.9").unwrap();
    assert_eq!(of("INPUT", 6), [is(Match::Src(vec![range]))]);
    assert!(range.contains("10.0.0.5".parse().unwrap()));
    assert!(!range.contains("10.0.0.10".parse().unwrap()));
    let mark = Match::Mark { value: 0x10000, mask: 0x10000 };
    assert_eq!(of("FORWARD", 2), [Condition { invert: true, what: mark }]);
    assert_eq!(
        of("FORWARD", 3),
        [
            is(Match::PacketType(vec!["broadcast".into()])),
            is(Match::Length(vec![(1400, 65535)])),
            is(Match::EtherSrc(vec!["02:00:00:00:00:01".parse().unwrap()])),
        ]
    );
    assert_eq!(of("FORWARD", 5), [is(Match::Fragment)]);
    let lo = vec![NamePattern { name: "lo".into(), prefix: false }];
    assert_eq!(
        of("OUTPUT", 1),
        [
            Condition { invert: true, what: Match::Oif(lo) },
            is(Match::Proto(vec![17])),
            is(Match::Dport(vec![port(8472)])),
            is(Match::CtState(vec![CtState::New, CtState::Related])),
            is(Match::CtStatus(1 << 2)),
        ]
    );
}

#[test]
fn what_is_not_understood_stays_a_condition() {
    let firewall = legacy();
    let of = |chain, at| rule(&firewall, "filter", chain, at).conditions.clone();
    let veth = vec![NamePattern { name: "veth".into(), prefix: true }];
    assert_eq!(
        of("FORWARD", 0),
        [is(Match::PhysdevIn(veth)), is(Match::Unknown("-m physdev --physdev-is-bridged".into())),]
    );
    // A netmask that is no prefix, a module and an option unknown here.
    let unknown = |c: &Condition| matches!(c.what, Match::Unknown(_));
    assert!(unknown(&of("FORWARD", 4)[0]));
    assert!(unknown(&of("FORWARD", 6)[0]));
    assert!(unknown(&of("OUTPUT", 0)[0]));
    assert_eq!(
        of("WEIRD", 0),
        [
            Condition { invert: true, what: Match::DstType(vec!["LOCAL".into()]) },
            is(Match::Unknown("-m addrtype --limit-iface-in".into())),
        ]
    );
    assert_eq!(of("WEIRD", 1)[1], is(Match::Unknown("-m tcp --tcp-option 7".into())));
}

#[test]
fn targets_are_understood() {
    let firewall = legacy();
    let of = |table, chain, at| rule(&firewall, table, chain, at).action.clone();
    assert_eq!(of("filter", "INPUT", 6), Action::Goto("WEIRD".into()));
    assert_eq!(of("filter", "FORWARD", 0), Action::Jump("WEIRD".into()));
    assert_eq!(of("filter", "WEIRD", 0), Action::Continue, "no target");
    assert_eq!(of("filter", "WEIRD", 2), Action::Return);
    assert_eq!(of("filter", "OUTPUT", 0), Action::Continue, "LOG");
    assert_eq!(of("filter", "OUTPUT", 1), Action::Queue);
    assert_eq!(of("nat", "PREROUTING", 0), Action::Redirect { ports: Some(port(8080)) });
    let ports = Some(PortRange { first: 40000, last: 40010 });
    assert_eq!(of("nat", "POSTROUTING", 0), Action::Masquerade { ports, random: true });
    let to = "192.0.2.1".to_owned();
    assert_eq!(of("nat", "POSTROUTING", 1), Action::Snat { to, random: false });
    assert_eq!(of("raw", "PREROUTING", 0), Action::NoTrack);
    let restore = rule(&firewall, "mangle", "PREROUTING", 0);
    assert_eq!(restore.action, Action::Continue);
    assert!(matches!(restore.effects[..], [Action::Unknown(_)]));
}

#[test]
fn kube_proxys_rules_are_understood_entirely() {
    let tables = iptables::parse(include_str!("../../fixtures/iptables-nft.txt"), false);
    let rules: Vec<_> = tables.iter().flat_map(|t| &t.chains).flat_map(|c| &c.rules).collect();
    assert_eq!(rules.len(), 38);
    for rule in &rules {
        let unknown = |c: &Condition| matches!(c.what, Match::Unknown(_));
        assert!(!rule.conditions.iter().any(unknown), "{}", rule.text);
        assert!(!matches!(rule.action, Action::Unknown(_)), "{}", rule.text);
    }
    let marks: Vec<_> =
        rules.iter().filter(|r| matches!(r.action, Action::SetMark { .. })).collect();
    assert_eq!(marks[0].action, Action::SetMark { value: 0x4000, mask: 0x4000 });
    assert_eq!(marks[1].action, Action::SetMark { value: 0x4000, mask: 0 });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn no_text_is_too_strange(lines in proptest::collection::vec(
        prop_oneof![
            "\\PC{0,80}",
            "(\\[[0-9]:[0-9]\\] )?-A [A-C]( (!|-[a-zA-Z]|--[a-z-]{1,12}|-m (tcp|mark|limit)|[A-Z0-9/:,\"\\\\]{0,9})){0,9}",
            "[*:#]\\PC{0,20}",
        ], 0..20)) {
        iptables::parse(&lines.join("\n"), false);
    }

    #[test]
    fn each_rule_keeps_its_text(options in "( (!|-[ios]|--[a-z]{1,9}|[a-z0-9]{1,9})){0,9}") {
        let text = format!("*filter\n:A - [0:0]\n[1:2] -A A{options}");
        let tables = iptables::parse(&text, false);
        let rule = &tables[0].chains[0].rules[0];
        prop_assert_eq!(&rule.text, &format!("-A A{options}"));
    }
}
