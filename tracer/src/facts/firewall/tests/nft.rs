//! Output of the real nft, and arbitrary text.

use proptest::prelude::*;

use super::super::*;

fn ruleset() -> Firewall {
    let mut tables = nft::parse(include_str!("../../fixtures/nft.json")).unwrap();
    nft::add_text(&mut tables, include_str!("../../fixtures/nft.txt"));
    Firewall { tables, ..Firewall::default() }
}

/// The rule with this handle.
fn rule(firewall: &Firewall, table: &str, handle: u64) -> FirewallRule {
    let table = firewall.tables.iter().find(|t| t.name == table).unwrap();
    let mut rules = table.chains.iter().flat_map(|c| &c.rules);
    rules.find(|r| r.handle == Some(handle)).unwrap().clone()
}

fn is(what: Match) -> Condition {
    Condition::is(what)
}

fn not(what: Match) -> Condition {
    Condition { invert: true, what }
}

fn port(port: u16) -> PortRange {
    PortRange { first: port, last: port }
}

fn net(text: &str) -> AddressRange {
    text.parse::<ipnet::IpNet>().unwrap().into()
}

#[test]
fn rules_have_the_text_that_nft_lists() {
    let firewall = ruleset();
    let text = |handle| rule(&firewall, "fw", handle).text;
    assert_eq!(text(26), r#"iifname "cni*" udp dport 8472 counter packets 0 bytes 0 drop"#);
    assert_eq!(text(47), "ip daddr { 10.0.0.0/8, 192.168.0.0-192.168.0.9 } return");
    for rule in firewall.tables.iter().flat_map(|t| &t.chains).flat_map(|c| &c.rules) {
        assert!(!rule.text.starts_with('['), "not found in the listing: {}", rule.text);
    }
}

#[test]
fn a_rule_over_several_lines_is_one_text() {
    let listing = "table ip t { # handle 1\n\tchain c { # handle 2\n\t\ttype filter hook input priority filter; policy accept;\n\t\tip daddr { 10.0.0.1,\n\t\t\t     10.0.0.2 } drop # handle 3\n\t\taccept # handle 4\n\t}\n}\n";
    let json = r#"{"nftables":[{"table":{"family":"ip","name":"t"}},{"chain":{"family":"ip","table":"t","name":"c"}},{"rule":{"family":"ip","table":"t","chain":"c","handle":3,"expr":[]}},{"rule":{"family":"ip","table":"t","chain":"c","handle":4,"expr":[{"accept":null}]}}]}"#;
    let mut tables = nft::parse(json).unwrap();
    nft::add_text(&mut tables, listing);
    let texts: Vec<_> = tables[0].chains[0].rules.iter().map(|r| r.text.as_str()).collect();
    assert_eq!(texts, ["ip daddr { 10.0.0.1, 10.0.0.2 } drop", "accept"]);
}

#[test]
fn base_chains_of_every_family() {
    let firewall = ruleset();
    let at = |family, hook| -> Vec<(&str, i32, Policy)> {
        let hooked = firewall.chains_at(family, hook);
        hooked.iter().map(|h| (h.chain.name.as_str(), h.base.priority, h.base.policy)).collect()
    };
    let want = [("raw", -300, Policy::Accept), ("pre", -100, Policy::Accept)];
    assert_eq!(at(TableFamily::Ip, NfHook::Prerouting), want);
    assert_eq!(at(TableFamily::Ip6, NfHook::Prerouting), want);
    assert_eq!(at(TableFamily::Ip, NfHook::Forward), [("f", 10, Policy::Drop)]);
    assert_eq!(at(TableFamily::Bridge, NfHook::Prerouting), [("p", -200, Policy::Accept)]);
    let egress = firewall.chains_at(TableFamily::Netdev, NfHook::Egress);
    assert_eq!(egress[0].base.devices, ["lo"], "told by the listing alone");
    assert!(at(TableFamily::Netdev, NfHook::Ingress).is_empty());
}

#[test]
fn what_nft_leaves_unsaid_is_said() {
    let firewall = ruleset();
    let vxlan = rule(&firewall, "fw", 26);
    let cni = vec![NamePattern { name: "cni".into(), prefix: true }];
    assert_eq!(
        vxlan.conditions,
        [is(Match::Iif(cni)), is(Match::Proto(vec![17])), is(Match::Dport(vec![port(8472)]))]
    );
    assert_eq!(vxlan.counter, Some(Counter::default()));
    assert_eq!(vxlan.action, Action::Drop);
    // In a table for both families an IPv4 address means IPv4.
    let v6 = rule(&firewall, "fw", 45);
    assert_eq!(v6.conditions[..2], [is(Match::V6(true)), is(Match::Src(vec![net("fd00::/8")]))]);
}

#[test]
fn sets_are_resolved() {
    let firewall = ruleset();
    let range =
        AddressRange { first: "10.20.0.1".parse().unwrap(), last: "10.20.0.9".parse().unwrap() };
    let pods = vec![net("10.10.0.0/16"), range];
    let v4 = is(Match::V6(false));
    assert_eq!(
        rule(&firewall, "fw", 23).conditions,
        [v4.clone(), is(Match::Src(pods.clone())), v4, not(Match::Dst(pods))]
    );
    assert_eq!(rule(&firewall, "fw", 25).conditions[2], is(Match::Dport(vec![port(22), port(80)])));
}

#[test]
fn comparisons_are_understood() {
    let firewall = ruleset();
    let of = |handle| rule(&firewall, "fw", handle).conditions;
    let mark = |value, mask| Match::Mark { value, mask };
    assert_eq!(of(27), [is(mark(0x4000, 0x4000))]);
    assert_eq!(of(28), [not(mark(0, 1))]);
    assert_eq!(
        of(32),
        [
            is(Match::Proto(vec![58])),
            is(Match::Icmp { v6: true, types: vec![(135, None), (136, None)] })
        ]
    );
    assert_eq!(
        of(34),
        [is(Match::Proto(vec![1])), is(Match::Icmp { v6: false, types: vec![(3, Some(4))] })]
    );
    let proto = is(Match::Proto(vec![6]));
    assert_eq!(of(35), [proto.clone(), is(Match::TcpFlags { value: 2, mask: 22 })]);
    assert_eq!(of(36), [proto, is(Match::TcpFlags { value: 2, mask: 6 })]);
    assert_eq!(of(37), [is(Match::CtStatus(32))]);
    assert_eq!(of(38), [is(Match::CtMark { value: 5, mask: u32::MAX })]);
    assert_eq!(of(39), [is(Match::DstType(vec!["LOCAL".into()]))]);
    assert_eq!(of(42), [is(Match::Proto(vec![6, 17])), is(Match::Dport(vec![port(53)]))]);
    assert_eq!(of(44)[3], is(Match::Length(vec![(1400, 65535)])));
    assert!(matches!(of(33)[2].what, Match::Sometimes(_)));
    assert!(matches!(of(49)[0].what, Match::Sometimes(_)));
    for handle in [40, 50] {
        let conditions = of(handle);
        assert!(conditions.iter().any(|c| matches!(c.what, Match::Unknown(_))), "{handle}");
    }
}

#[test]
fn actions_are_understood() {
    let firewall = ruleset();
    let of = |handle| rule(&firewall, "fw", handle).action;
    assert_eq!(of(15), Action::Dnat { to: "10.10.1.2:8080".into() });
    assert_eq!(of(18), Action::Redirect { ports: Some(port(8080)) });
    assert_eq!(of(19), Action::Masquerade { ports: None, random: true });
    assert_eq!(of(20), Action::Snat { to: "192.0.2.1".into(), random: false });
    assert_eq!(of(29), Action::SetMark { value: 16, mask: 16 });
    assert_eq!(of(39), Action::Reject { with: "icmpx admin-prohibited".into() });
    assert_eq!(of(43), Action::Reject { with: "tcp reset".into() });
    assert_eq!(of(48), Action::Continue, "log");
    assert_eq!(of(52), Action::NoTrack);
    let marked = rule(&firewall, "fw", 30);
    assert_eq!(marked.effects, [Action::SetMark { value: 8, mask: u32::MAX }]);
    assert_eq!(marked.action, Action::Accept);
}

#[test]
fn verdict_maps_are_choices() {
    let firewall = ruleset();
    let choice = |text: &str, conditions, action| Choice {
        text: text.to_owned(),
        comment: None,
        conditions,
        action,
    };
    let state = |state| vec![is(Match::CtState(vec![state]))];
    assert_eq!(
        rule(&firewall, "fw", 22).action,
        Action::Choose(vec![
            choice("invalid : drop", state(CtState::Invalid), Action::Drop),
            choice("established : accept", state(CtState::Established), Action::Accept),
            choice("related : accept", state(CtState::Related), Action::Accept),
        ])
    );
    let key = vec![
        is(Match::V6(false)),
        is(Match::Dst(vec![net("10.96.0.10/32")])),
        is(Match::Proto(vec![6])),
        is(Match::Dport(vec![port(80)])),
    ];
    let svc = Action::Goto("svc".into());
    assert_eq!(
        rule(&firewall, "fw", 17).action,
        Action::Choose(vec![choice("10.96.0.10 . 80 : goto svc", key, svc)])
    );
    let Action::Choose(choices) = rule(&firewall, "fw", 14).action else { panic!("no choice") };
    let (last, others) = choices.split_last().unwrap();
    assert!(last.conditions.is_empty(), "one of them is taken for certain");
    assert!(
        others
            .iter()
            .all(|c| matches!(c.conditions[..], [Condition { what: Match::Sometimes(_), .. }]))
    );
}

#[test]
fn iptables_rules_that_nft_cannot_read_stay_unknown() {
    let json = r#"{"nftables":[{"table":{"family":"ip","name":"t"}},{"chain":{"family":"ip","table":"t","name":"c"}},{"rule":{"family":"ip","table":"t","chain":"c","handle":3,"expr":[{"xt":{"type":"match","name":"conntrack"}},{"xt":{"type":"target","name":"REJECT"}}]}}]}"#;
    let tables = nft::parse(json).unwrap();
    let rule = &tables[0].chains[0].rules[0];
    assert!(matches!(rule.conditions[..], [Condition { what: Match::Unknown(_), .. }]));
    assert!(matches!(rule.action, Action::Unknown(_)));
}

fn json() -> impl Strategy<Value = serde_json::Value> {
    let word = proptest::sample::select(vec![
        "match", "op", "==", "in", "left", "right", "meta", "key", "mark", "iifname", "payload",
        "protocol", "field", "tcp", "ip", "dport", "saddr", "set", "@s", "prefix", "addr", "len",
        "range", "vmap", "data", "concat", "accept", "jump", "target", "mangle", "value", "|", "&",
        "ct", "state", "new", "expr", "counter", "packets", "icmp", "type", "code", "flags",
        "elem",
    ]);
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<i64>().prop_map(Into::into),
        word.clone().prop_map(Into::into),
    ];
    leaf.prop_recursive(5, 40, 5, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            proptest::collection::vec((word.clone(), inner), 0..4).prop_map(|members| {
                members
                    .into_iter()
                    .map(|(k, v)| (k.to_owned(), v))
                    .collect::<serde_json::Map<_, _>>()
                    .into()
            }),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn no_rule_is_too_strange(expr in proptest::collection::vec(json(), 0..5), elem in json()) {
        let rule = serde_json::json!({"nftables": [
            {"table": {"family": "inet", "name": "t"}},
            {"set": {"family": "inet", "table": "t", "name": "s", "elem": elem}},
            {"chain": {"family": "inet", "table": "t", "name": "c"}},
            {"rule": {"family": "inet", "table": "t", "chain": "c", "expr": expr}},
        ]});
        let tables = nft::parse(&rule.to_string()).unwrap();
        prop_assert_eq!(tables[0].chains[0].rules.len(), 1);
    }

    #[test]
    fn no_text_is_too_strange(text in "\\PC{0,100}", listing in "(table|chain|type|\\{|\\}|;| |\n|# handle [0-9]|device|\"[a-z]\"){0,40}") {
        _ = nft::parse(&text);
        let mut tables = nft::parse(r#"{"nftables":[{"table":{"family":"ip","name":"t"}}]}"#).unwrap();
        nft::add_text(&mut tables, &listing);
        nft::add_text(&mut tables, &text);
    }
}
