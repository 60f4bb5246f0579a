mod sets;
mod suspects;

use super::*;
use crate::facts::NetnsFacts;
use crate::facts::firewall::*;

const POD: &str = "10.10.0.2";
const FAR: &str = "10.10.1.2";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn packet(proto: u8) -> PacketView {
    PacketView {
        iif: Some("cni0".to_owned()),
        oif: Some("flannel.1".to_owned()),
        ct: Some(vec![CtState::New]),
        mark: Some(0),
        ..PacketView::new(ip(POD), ip(FAR), proto)
    }
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

fn not(mut rule: FirewallRule) -> FirewallRule {
    rule.conditions.iter_mut().for_each(|c| c.invert = true);
    rule
}

fn counted(packets: u64, rule: FirewallRule) -> FirewallRule {
    FirewallRule { counter: Some(Counter { packets, bytes: packets * 84 }), ..rule }
}

fn jump(name: &str) -> FirewallRule {
    rule(&format!("-j {name}"), vec![], Action::Jump(name.to_owned()))
}

fn drop() -> FirewallRule {
    rule("-j DROP", vec![], Action::Drop)
}

fn accept() -> FirewallRule {
    rule("-j ACCEPT", vec![], Action::Accept)
}

fn maybe(action: Action) -> FirewallRule {
    rule("-m odd", vec![Match::Unknown("odd".to_owned())], action)
}

fn chain(name: &str, rules: Vec<FirewallRule>) -> Chain {
    Chain { name: name.to_owned(), base: None, rules }
}

fn base(
    name: &str,
    hook: NfHook,
    priority: i32,
    policy: Policy,
    rules: Vec<FirewallRule>,
) -> Chain {
    let base = BaseChain {
        hook,
        priority,
        kind: "filter".to_owned(),
        policy,
        counter: None,
        devices: Vec::new(),
    };
    Chain { base: Some(base), ..chain(name, rules) }
}

fn forward(rules: Vec<FirewallRule>) -> Chain {
    base("FORWARD", NfHook::Forward, 0, Policy::Accept, rules)
}

fn table(backend: Backend, chains: Vec<Chain>) -> Table {
    Table { backend, family: TableFamily::Ip, name: "filter".to_owned(), chains }
}

fn facts(tables: Vec<Table>) -> NetnsFacts {
    NetnsFacts { firewall: Firewall { tables, ..Firewall::default() }, ..NetnsFacts::default() }
}

fn filter(chains: Vec<Chain>) -> NetnsFacts {
    facts(vec![table(Backend::IptablesNft, chains)])
}

fn at_forward(facts: &NetnsFacts, packet: &PacketView) -> Evaluation {
    evaluate(facts, packet.tables(), NfHook::Forward, packet)
}

/// `FORWARD/2` for the second rule, `FORWARD/policy` for the policy.
fn decided(evaluation: &Evaluation) -> Vec<(String, Holds)> {
    let name = |d: &Decision| {
        let what = d.rule.as_ref().map_or("policy".to_owned(), |r| r.position.to_string());
        format!("{}/{what}", d.chain)
    };
    evaluation.decisions.iter().map(|d| (name(d), d.holds)).collect()
}

/// What [`decided`] should give.
fn these<const N: usize>(deciders: [(&str, Holds); N]) -> Vec<(String, Holds)> {
    deciders.map(|(name, holds)| (name.to_owned(), holds)).into()
}

#[test]
fn without_rules_everything_passes() {
    let evaluation = at_forward(&NetnsFacts::default(), &packet(1));
    assert_eq!((evaluation.ends, evaluation.decisions.len()), (Holds::Never, 0));
}

#[test]
fn the_first_rule_that_matches_decides() {
    let udp = rule("-p udp -j DROP", vec![Match::Proto(vec![17])], Action::Drop);
    let rules = filter(vec![forward(vec![udp, accept(), drop()])]);
    let icmp = at_forward(&rules, &packet(1));
    assert_eq!(decided(&icmp), these([("FORWARD/2", Holds::Always)]));
    assert_eq!(icmp.ends, Holds::Never);
    let udp = at_forward(&rules, &packet(17));
    assert_eq!(decided(&udp), these([("FORWARD/1", Holds::Always)]));
    assert_eq!(udp.ends, Holds::Always);
    assert_eq!(udp.decisions[0].verdict, Verdict::Drop);
}

#[test]
fn a_policy_decides_what_no_rule_does() {
    let chain = base("FORWARD", NfHook::Forward, 0, Policy::Drop, vec![]);
    let evaluation = at_forward(&filter(vec![chain]), &packet(1));
    assert_eq!(decided(&evaluation), these([("FORWARD/policy", Holds::Always)]));
    assert_eq!(evaluation.ends, Holds::Always);
    assert!(evaluation.decisions[0].rule.is_none());
}

#[test]
fn accepting_in_one_base_chain_does_not_spare_the_next() {
    let first = table(Backend::IptablesNft, vec![forward(vec![accept()])]);
    let mut own = table(Backend::Nft, vec![base("f", NfHook::Forward, 10, Policy::Drop, vec![])]);
    own.family = TableFamily::Inet;
    let evaluation = at_forward(&facts(vec![own, first]), &packet(1));
    assert_eq!(
        decided(&evaluation),
        these([("FORWARD/1", Holds::Always), ("f/policy", Holds::Always)]),
        "by priority, not by the order of the tables"
    );
    assert_eq!(evaluation.ends, Holds::Always);
    assert_eq!(evaluation.decisions[1].backend, Backend::Nft);
}

#[test]
fn nothing_runs_behind_a_certain_end() {
    let first = table(Backend::IptablesLegacy, vec![forward(vec![drop()])]);
    let second = table(Backend::Nft, vec![base("late", NfHook::Forward, 10, Policy::Drop, vec![])]);
    let evaluation = at_forward(&facts(vec![first, second]), &packet(1));
    assert_eq!(decided(&evaluation), these([("FORWARD/1", Holds::Always)]));
    assert_eq!(evaluation.decisions[0].backend, Backend::IptablesLegacy);
}

#[test]
fn legacy_and_nft_chains_both_run() {
    let legacy = table(Backend::IptablesLegacy, vec![forward(vec![accept()])]);
    let nft = table(Backend::IptablesNft, vec![forward(vec![drop()])]);
    for tables in [vec![legacy.clone(), nft.clone()], vec![nft, legacy]] {
        assert_eq!(at_forward(&facts(tables), &packet(1)).ends, Holds::Always);
    }
}

#[test]
fn other_hooks_and_families_do_not_run() {
    let mut six = table(Backend::IptablesNft, vec![forward(vec![drop()])]);
    six.family = TableFamily::Ip6;
    let input =
        table(Backend::IptablesNft, vec![base("INPUT", NfHook::Input, 0, Policy::Drop, vec![])]);
    let evaluation = at_forward(&facts(vec![six, input]), &packet(1));
    assert_eq!((evaluation.ends, evaluation.decisions.len()), (Holds::Never, 0));
}

#[test]
fn jumps_come_back_and_gotos_do_not() {
    let tables = |way: Action| {
        let first = rule("-j OWN", vec![], way);
        filter(vec![forward(vec![first, drop()]), chain("OWN", vec![])])
    };
    let jumped = at_forward(&tables(Action::Jump("OWN".to_owned())), &packet(1));
    assert_eq!(decided(&jumped), these([("FORWARD/2", Holds::Always)]));
    let gone = at_forward(&tables(Action::Goto("OWN".to_owned())), &packet(1));
    assert_eq!(decided(&gone), these([("FORWARD/policy", Holds::Always)]));
}

#[test]
fn a_goto_returns_to_the_caller_of_its_chain() {
    let own = chain("OWN", vec![rule("-g LAST", vec![], Action::Goto("LAST".to_owned())), drop()]);
    let rules = filter(vec![forward(vec![jump("OWN"), accept()]), own, chain("LAST", vec![])]);
    let evaluation = at_forward(&rules, &packet(1));
    assert_eq!(decided(&evaluation), these([("FORWARD/2", Holds::Always)]));
}

#[test]
fn return_leaves_a_chain_and_in_a_base_chain_means_the_policy() {
    let back = rule("-j RETURN", vec![], Action::Return);
    let own = chain("OWN", vec![back.clone(), drop()]);
    let inner = filter(vec![forward(vec![jump("OWN"), accept()]), own]);
    assert_eq!(decided(&at_forward(&inner, &packet(1))), these([("FORWARD/2", Holds::Always)]));
    let chain = base("FORWARD", NfHook::Forward, 0, Policy::Drop, vec![back, accept()]);
    let evaluation = at_forward(&filter(vec![chain]), &packet(1));
    assert_eq!(decided(&evaluation), these([("FORWARD/policy", Holds::Always)]));
}

#[test]
fn jumping_in_circles_ends() {
    let rules = filter(vec![
        forward(vec![jump("A"), drop()]),
        chain("A", vec![jump("B")]),
        chain("B", vec![jump("A")]),
    ]);
    let evaluation = at_forward(&rules, &packet(1));
    assert_eq!(evaluation.ends, Holds::Unknown, "such rules cannot exist; what they do is unknown");
}

#[test]
fn a_jump_to_a_chain_that_is_not_there_is_unknown() {
    let evaluation = at_forward(&filter(vec![forward(vec![jump("GONE")])]), &packet(1));
    assert_eq!(evaluation.ends, Holds::Unknown);
    assert!(
        matches!(&evaluation.decisions[0].verdict, Verdict::Unknown(text) if text.contains("GONE"))
    );
}

#[test]
fn what_is_not_understood_is_neither_true_nor_false() {
    let rules = filter(vec![forward(vec![maybe(Action::Drop), accept()])]);
    let evaluation = at_forward(&rules, &packet(1));
    assert_eq!(evaluation.ends, Holds::Unknown);
    assert_eq!(
        decided(&evaluation),
        these([("FORWARD/1", Holds::Unknown), ("FORWARD/2", Holds::Unknown)])
    );
    assert_eq!(evaluation.decisions[0].unclear, ["odd"]);
    // And negated neither.
    let rules = filter(vec![forward(vec![not(maybe(Action::Drop))])]);
    let evaluation = at_forward(&rules, &packet(1));
    assert_eq!(evaluation.ends, Holds::Unknown);
    assert_eq!(evaluation.decisions[0].unclear, ["not odd"]);
}

#[test]
fn a_condition_that_fails_settles_it_whatever_else_is_unknown() {
    let both = rule(
        "-m odd -p udp -j DROP",
        vec![Match::Unknown("odd".to_owned()), Match::Proto(vec![17])],
        Action::Drop,
    );
    let evaluation = at_forward(&filter(vec![forward(vec![both])]), &packet(1));
    assert_eq!(evaluation.ends, Holds::Never);
    assert_eq!(decided(&evaluation), these([("FORWARD/policy", Holds::Always)]));
}

#[test]
fn unknown_steps_that_all_end_the_packet_are_a_certain_end() {
    let chain = base("FORWARD", NfHook::Forward, 0, Policy::Drop, vec![maybe(Action::Drop)]);
    let evaluation = at_forward(&filter(vec![chain]), &packet(1));
    assert_eq!(evaluation.ends, Holds::Always, "which of them is all that is unknown");
    assert!(evaluation.decisions.iter().all(|d| d.holds == Holds::Unknown));
}

#[test]
fn behind_an_unknown_accept_a_drop_is_unknown() {
    let rules = filter(vec![forward(vec![maybe(Action::Accept), drop(), accept()])]);
    let evaluation = at_forward(&rules, &packet(1));
    assert_eq!(evaluation.ends, Holds::Unknown);
    assert_eq!(
        decided(&evaluation),
        these([("FORWARD/1", Holds::Unknown), ("FORWARD/2", Holds::Unknown)]),
        "and nothing comes behind the drop"
    );
}

#[test]
fn an_unknown_jump_reaches_its_chain_and_what_is_behind_it() {
    let rules = filter(vec![
        forward(vec![maybe(Action::Jump("OWN".to_owned())), accept()]),
        chain("OWN", vec![drop(), accept()]),
    ]);
    let evaluation = at_forward(&rules, &packet(1));
    assert_eq!(
        decided(&evaluation),
        these([("OWN/1", Holds::Unknown), ("FORWARD/2", Holds::Unknown)]),
        "the accept behind the drop is not reached"
    );
    assert_eq!(evaluation.ends, Holds::Unknown);
}

#[test]
fn an_unknown_jump_into_a_chain_that_decides_nothing_leaves_no_doubt() {
    let rules = filter(vec![
        forward(vec![maybe(Action::Jump("LOG".to_owned())), drop()]),
        chain("LOG", vec![rule("-j LOG", vec![], Action::Continue)]),
    ]);
    let evaluation = at_forward(&rules, &packet(1));
    assert_eq!(decided(&evaluation), these([("FORWARD/2", Holds::Always)]));
    assert!(evaluation.decisions[0].unclear.is_empty());
}

#[test]
fn an_unknown_return_keeps_its_doubt_within_the_chain() {
    let rules = filter(vec![
        forward(vec![jump("OWN"), drop()]),
        chain("OWN", vec![maybe(Action::Return), rule("-j LOG", vec![], Action::Continue)]),
    ]);
    let evaluation = at_forward(&rules, &packet(1));
    assert_eq!(decided(&evaluation), these([("FORWARD/2", Holds::Always)]));
}

#[test]
fn chance_and_rate_are_told_from_ignorance() {
    let some = rule(
        "-m statistic --mode random --probability 0.05 -j DROP",
        vec![Match::Sometimes("random 0.05".to_owned())],
        Action::Drop,
    );
    let evaluation = at_forward(&filter(vec![forward(vec![some, accept()])]), &packet(1));
    assert_eq!(evaluation.ends, Holds::Sometimes);
    assert_eq!(
        decided(&evaluation),
        these([("FORWARD/1", Holds::Sometimes), ("FORWARD/2", Holds::Sometimes)])
    );
}

#[test]
fn marks_are_followed() {
    let mark = |value, mask| rule("MARK", vec![], Action::SetMark { value, mask });
    let blocked = not(rule(
        "-m mark ! --mark 0x10000/0x10000 -j REJECT",
        vec![Match::Mark { value: 0x10000, mask: 0x10000 }],
        Action::Reject { with: "icmp-port-unreachable".to_owned() },
    ));
    let with = |rules: Vec<FirewallRule>| at_forward(&filter(vec![forward(rules)]), &packet(1));
    assert_eq!(with(vec![blocked.clone()]).ends, Holds::Always);
    let marked = with(vec![mark(0x10000, 0x10000), blocked.clone()]);
    assert_eq!((marked.ends, marked.packet.mark), (Holds::Never, Some(0x10000)));
    // Only perhaps marked: perhaps blocked.
    let perhaps = FirewallRule {
        conditions: vec![Condition::is(Match::Unknown("odd".to_owned()))],
        ..mark(0x10000, 0x10000)
    };
    let evaluation = with(vec![perhaps, blocked]);
    assert_eq!((evaluation.ends, evaluation.packet.mark), (Holds::Unknown, None));
    // Setting what it is already changes nothing.
    let same = FirewallRule {
        conditions: vec![Condition::is(Match::Unknown("odd".to_owned()))],
        ..mark(0, 0x4000)
    };
    assert_eq!(with(vec![same]).packet.mark, Some(0));
}

#[test]
fn marks_reach_later_base_chains() {
    let mangle = base(
        "m",
        NfHook::Forward,
        -150,
        Policy::Accept,
        vec![rule("MARK", vec![], Action::SetMark { value: 1, mask: u32::MAX })],
    );
    let check = rule("mark 1", vec![Match::Mark { value: 1, mask: u32::MAX }], Action::Drop);
    let evaluation = at_forward(&filter(vec![forward(vec![check]), mangle]), &packet(1));
    assert_eq!(evaluation.ends, Holds::Always);
}

#[test]
fn invalid_means_packets_that_conntrack_has_refused() {
    let invalid = rule("INVALID", vec![Match::CtState(vec![CtState::Invalid])], Action::Drop);
    let rules = filter(vec![forward(vec![invalid.clone()])]);
    assert_eq!(at_forward(&rules, &packet(6)).ends, Holds::Never);
    let refused = PacketView { ct: Some(vec![CtState::Invalid]), ..packet(6) };
    assert_eq!(at_forward(&rules, &refused).ends, Holds::Always);
    let unknown = PacketView { ct: None, ..packet(6) };
    assert_eq!(at_forward(&rules, &unknown).ends, Holds::Unknown);
    // Before connection tracking there is no connection yet.
    let raw = base("PREROUTING", NfHook::Prerouting, -300, Policy::Accept, vec![invalid]);
    let early = evaluate(&filter(vec![raw]), TableFamily::Ip, NfHook::Prerouting, &packet(6));
    assert_eq!(early.ends, Holds::Always);
    assert_eq!(early.packet.ct, Some(vec![CtState::New]), "which is over behind it");
}

#[test]
fn declining_connection_tracking_is_remembered() {
    let notrack = rule("NOTRACK", vec![], Action::NoTrack);
    let raw = base("PREROUTING", NfHook::Prerouting, -300, Policy::Accept, vec![notrack]);
    let evaluation = evaluate(&filter(vec![raw]), TableFamily::Ip, NfHook::Prerouting, &packet(6));
    assert_eq!(evaluation.packet.ct, Some(vec![CtState::Untracked]));
}

#[test]
fn translation_chains_see_new_connections_only() {
    let mut nat = base(
        "PREROUTING",
        NfHook::Prerouting,
        -100,
        Policy::Accept,
        vec![rule("DNAT", vec![], Action::Dnat { to: "10.10.1.9:80".to_owned() })],
    );
    if let Some(base) = &mut nat.base {
        base.kind = "nat".to_owned();
    }
    let rules = filter(vec![nat]);
    let run = |packet| evaluate(&rules, TableFamily::Ip, NfHook::Prerouting, &packet);
    let fresh = run(packet(6));
    assert_eq!(fresh.decisions[0].verdict, Verdict::Dnat("10.10.1.9:80".to_owned()));
    assert_eq!(fresh.ends, Holds::Never);
    let known = PacketView { ct: Some(vec![CtState::Established]), ..packet(6) };
    assert!(run(known).decisions.is_empty());
}

#[test]
fn interfaces_match_by_name_and_by_prefix() {
    let on = |patterns: &[&str]| {
        let patterns = patterns.iter().map(|p| NamePattern::new(p, '+')).collect();
        let rules =
            filter(vec![forward(vec![rule("-i", vec![Match::Iif(patterns)], Action::Drop)])]);
        at_forward(&rules, &packet(1)).ends
    };
    assert_eq!(on(&["cni0"]), Holds::Always);
    assert_eq!(on(&["cni"]), Holds::Never);
    assert_eq!(on(&["eth+", "cn+"]), Holds::Always);
}

#[test]
fn ports_belong_to_protocols_that_have_them() {
    let range = PortRange { first: 8472, last: 8472 };
    let rules =
        filter(vec![forward(vec![rule("--dport", vec![Match::Dport(vec![range])], Action::Drop)])]);
    assert_eq!(at_forward(&rules, &packet(1)).ends, Holds::Never);
    assert_eq!(at_forward(&rules, &packet(17)).ends, Holds::Unknown);
    let with = |port| at_forward(&rules, &PacketView { dport: Some(port), ..packet(17) }).ends;
    assert_eq!((with(8472), with(53)), (Holds::Always, Holds::Never));
}

#[test]
fn icmp_types_match_with_and_without_code() {
    let of = |types: Vec<(u8, Option<u8>)>, icmp| {
        let what = Match::Icmp { v6: false, types };
        let rules = filter(vec![forward(vec![rule("icmp", vec![what], Action::Drop)])]);
        at_forward(&rules, &PacketView { icmp, ..packet(1) }).ends
    };
    assert_eq!(of(vec![(8, None)], Some((8, 0))), Holds::Always);
    assert_eq!(of(vec![(3, Some(4))], Some((3, 3))), Holds::Never);
    assert_eq!(of(vec![(8, None)], None), Holds::Unknown);
    assert_eq!(of(vec![], None), Holds::Always);
}

#[test]
fn kinds_of_address_come_from_the_addresses_of_the_node() {
    let of = |kind: &str, dst: &str| {
        let what = Match::DstType(vec![kind.to_owned()]);
        let mut rules = filter(vec![forward(vec![rule("addrtype", vec![what], Action::Drop)])]);
        rules.addresses.push(crate::facts::Address {
            ifindex: 1,
            net: "192.168.10.11/24".parse().unwrap(),
            tentative: false,
        });
        at_forward(&rules, &PacketView { dst: ip(dst), ..packet(1) }).ends
    };
    assert_eq!(of("LOCAL", "192.168.10.11"), Holds::Always);
    assert_eq!(of("LOCAL", "192.168.10.12"), Holds::Never);
    assert_eq!(of("BROADCAST", "192.168.10.255"), Holds::Always);
    assert_eq!(of("unicast", "192.168.10.12"), Holds::Always);
    assert_eq!(of("MULTICAST", "224.0.0.1"), Holds::Always);
    assert_eq!(of("BLACKHOLE", "192.168.10.12"), Holds::Unknown);
}

#[test]
fn the_first_branch_that_holds_is_taken() {
    let branch = |proto: u8, action: Action| Choice {
        text: String::new(),
        comment: None,
        conditions: vec![Condition::is(Match::Proto(vec![proto]))],
        action,
    };
    let map = rule(
        "ip protocol vmap",
        vec![],
        Action::Choose(vec![branch(17, Action::Drop), branch(6, Action::Jump("tcp".to_owned()))]),
    );
    let rules = filter(vec![
        forward(vec![map, accept()]),
        chain("tcp", vec![rule("reject", vec![], Action::Reject { with: "tcp reset".to_owned() })]),
    ]);
    assert_eq!(decided(&at_forward(&rules, &packet(17))), these([("FORWARD/1", Holds::Always)]));
    assert_eq!(decided(&at_forward(&rules, &packet(6))), these([("tcp/1", Holds::Always)]));
    assert_eq!(decided(&at_forward(&rules, &packet(1))), these([("FORWARD/2", Holds::Always)]));
}

#[test]
fn what_a_rule_does_that_is_not_understood_may_be_anything() {
    let odd = rule("-j ODD", vec![], Action::Unknown("ODD".to_owned()));
    let evaluation = at_forward(&filter(vec![forward(vec![odd, accept()])]), &packet(1));
    assert_eq!(evaluation.ends, Holds::Unknown);
    assert_eq!(evaluation.packet.mark, None);
    assert_eq!(evaluation.decisions[1].unclear, ["ODD"]);
}

#[test]
fn chains_at_devices_see_their_devices_only() {
    let mut egress = base("e", NfHook::Egress, 0, Policy::Drop, vec![]);
    if let Some(base) = &mut egress.base {
        base.devices = vec!["flannel.1".to_owned()];
    }
    let mut table = table(Backend::Nft, vec![egress]);
    table.family = TableFamily::Netdev;
    let rules = facts(vec![table]);
    let on = |device: &str| {
        let packet = PacketView { oif: Some(device.to_owned()), ..packet(1) };
        evaluate(&rules, TableFamily::Netdev, NfHook::Egress, &packet).ends
    };
    assert_eq!((on("flannel.1"), on("cni0")), (Holds::Always, Holds::Never));
}
