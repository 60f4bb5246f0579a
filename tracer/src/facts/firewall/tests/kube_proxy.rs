//! Rules as kube-proxy 1.36 writes them: nothing of theirs that decides may stay unknown.

use super::super::*;

fn every_rule(tables: &[Table]) -> impl Iterator<Item = &FirewallRule> {
    tables.iter().flat_map(|t| &t.chains).flat_map(|c| &c.rules)
}

fn unknown(conditions: &[Condition]) -> bool {
    conditions.iter().any(|c| match &c.what {
        Match::Unknown(_) => true,
        Match::AnyOf(alternatives) => alternatives.iter().any(|all| unknown(all)),
        _ => false,
    })
}

fn undecided(action: &Action) -> bool {
    match action {
        Action::Unknown(_) => true,
        Action::Choose(choices) => {
            choices.iter().any(|c| unknown(&c.conditions) || undecided(&c.action))
        }
        _ => false,
    }
}

#[track_caller]
fn all_understood(tables: &[Table]) {
    assert!(every_rule(tables).count() > 15);
    for rule in every_rule(tables) {
        let effects = rule.effects.iter().any(undecided);
        let open = unknown(&rule.conditions) || undecided(&rule.action) || effects;
        assert!(!open, "{rule:#?}");
    }
}

#[test]
fn every_rule_is_understood_in_both_modes() {
    all_understood(&nft::parse(include_str!("../../fixtures/kube-proxy-nft.json")).unwrap());
    all_understood(&iptables::parse(include_str!("../../fixtures/kube-proxy-iptables.txt"), false));
}

#[test]
fn map_elements_keep_the_name_of_the_service() {
    let tables = nft::parse(include_str!("../../fixtures/kube-proxy-nft.json")).unwrap();
    let check = tables[0].chain("service-endpoints-check").unwrap();
    let Action::Choose(choices) = &check.rules[0].action else { panic!("{check:?}") };
    let np = &choices[0];
    assert_eq!(np.comment.as_deref(), Some("shop/np"));
    assert_eq!(np.text, r#"10.110.92.53 . tcp . 80 comment "shop/np" : goto reject-chain"#);
}

#[test]
fn a_translation_by_chance_has_all_its_targets() {
    let tables = nft::parse(include_str!("../../fixtures/kube-proxy-nft.json")).unwrap();
    let web = tables[0].chain("service-KHN6ECMT-shop/web/tcp/http").unwrap();
    let Action::Choose(choices) = &web.rules[0].action else { panic!("{web:?}") };
    let to = |at: usize| &choices[at].action;
    assert_eq!(*to(0), Action::Dnat { to: "10.244.0.2:8080".into() });
    assert_eq!(*to(1), Action::Dnat { to: "10.244.1.2:8080".into() });
    assert!(matches!(choices[0].conditions[..], [Condition { what: Match::Sometimes(_), .. }]));
    assert!(choices[1].conditions.is_empty());
}

#[test]
fn sets_and_lists_that_rules_of_iptables_name() {
    let text = "*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -m set ! --match-set KUBE-SRC-5ABC src,dst -m tcp -j DROP\n-A FORWARD -m recent --rcheck --seconds 10800 --reap --name KUBE-SEP-A --mask 255.255.255.255 --rsource -j ACCEPT\n-A FORWARD -p tcp -m recent --set --name KUBE-SEP-A --mask 255.255.255.255 --rsource -m tcp -j ACCEPT\n-A FORWARD -m set --match-set X src --return-nomatch -j DROP\nCOMMIT\n";
    let tables = iptables::parse(text, false);
    let conditions: Vec<_> = every_rule(&tables).map(|r| r.conditions.clone()).collect();
    let set = Match::IpSet { name: "KUBE-SRC-5ABC".into(), from_src: vec![true, false] };
    assert_eq!(conditions[0], [Condition { invert: true, what: set }]);
    let recent = RecentMatch {
        list: "KUBE-SEP-A".into(),
        by_dst: false,
        mask: None,
        seconds: Some(10_800),
        hits: None,
    };
    assert_eq!(conditions[1], [Condition::is(Match::Recent(recent))]);
    assert_eq!(conditions[2], [Condition::is(Match::Proto(vec![6]))], "putting down always holds");
    assert!(unknown(&conditions[3]), "an option that is not understood");
}
