//! ipsets, lists of `-m recent`, and chains that are too much to follow.

use super::*;

fn members(kind: &str, entries: Vec<Vec<IpSetPart>>) -> IpSet {
    let entries = entries.into_iter().map(|parts| IpSetEntry { parts, nomatch: false }).collect();
    IpSet {
        name: "S".to_owned(),
        kind: kind.to_owned(),
        v6: Some(false),
        entries,
        ..IpSet::default()
    }
}

fn addresses(text: &str) -> IpSetPart {
    let range = match text.parse::<ipnet::IpNet>() {
        Ok(net) => net.into(),
        Err(_) => ip(text).into(),
    };
    IpSetPart::Addresses(range)
}

fn port(proto: Option<u8>, port: u16) -> IpSetPart {
    IpSetPart::Ports { proto, ports: PortRange { first: port, last: port } }
}

/// Whether [`packet`] of TCP to port 80 is in the set.
fn lookup(sets: Vec<IpSet>, from_src: &[bool]) -> Holds {
    let in_set = Match::IpSet { name: "S".to_owned(), from_src: from_src.to_vec() };
    let mut facts = filter(vec![forward(vec![rule("-m set", vec![in_set], Action::Drop)])]);
    facts.firewall.ipsets = sets;
    let packet = PacketView { dport: Some(80), sport: Some(4000), ..packet(6) };
    at_forward(&facts, &packet).ends
}

#[test]
fn addresses_are_looked_up_where_the_rule_says() {
    let set = members("hash:ip", vec![vec![addresses(POD)]]);
    assert_eq!(lookup(vec![set.clone()], &[true]), Holds::Always);
    assert_eq!(lookup(vec![set.clone()], &[false]), Holds::Never);
    let six = IpSet { v6: Some(true), ..set };
    assert_eq!(lookup(vec![six], &[true]), Holds::Never);
}

#[test]
fn every_dimension_must_fit() {
    let set = |proto, number| {
        vec![members("hash:ip,port", vec![vec![addresses(FAR), port(proto, number)]])]
    };
    assert_eq!(lookup(set(Some(6), 80), &[false, false]), Holds::Always);
    assert_eq!(lookup(set(Some(6), 4000), &[false, true]), Holds::Always);
    assert_eq!(lookup(set(Some(17), 80), &[false, false]), Holds::Never);
    assert_eq!(lookup(set(Some(6), 81), &[false, false]), Holds::Never);
    assert_eq!(lookup(set(Some(6), 80), &[false]), Holds::Never, "the kernel asks for both");
    let nets = members("hash:net,net", vec![vec![addresses("10.10.0.0/24"), addresses(FAR)]]);
    assert_eq!(lookup(vec![nets], &[true, false]), Holds::Always);
}

#[test]
fn the_smallest_network_decides_and_may_except() {
    let mut set = members("hash:net", vec![vec![addresses("10.0.0.0/8")], vec![addresses(POD)]]);
    assert_eq!(lookup(vec![set.clone()], &[true]), Holds::Always);
    set.entries[1].nomatch = true;
    assert_eq!(lookup(vec![set], &[true]), Holds::Never);
}

#[test]
fn sets_have_sets_as_members() {
    let list = members("list:set", vec![vec![IpSetPart::Set("inner".to_owned())]]);
    let list = IpSet { v6: None, ..list };
    let inner =
        IpSet { name: "inner".to_owned(), ..members("bitmap:port", vec![vec![port(None, 80)]]) };
    let inner = IpSet { v6: None, ..inner };
    assert_eq!(lookup(vec![list.clone(), inner], &[false]), Holds::Always);
    assert_eq!(lookup(vec![list], &[false]), Holds::Unknown, "the member was not read");
}

#[test]
fn what_was_not_read_is_not_decided() {
    assert_eq!(lookup(vec![], &[true]), Holds::Unknown);
    let mut set = members("hash:ip", vec![vec![addresses(FAR)]]);
    set.incomplete = Some("it has more than 2 entries".to_owned());
    assert_eq!(lookup(vec![set.clone()], &[false]), Holds::Always, "what is in it is in it");
    assert_eq!(lookup(vec![set], &[true]), Holds::Unknown);
}

#[test]
fn session_affinity_forces_the_backend_of_last_time() {
    let recent = |list: &str| {
        Match::Recent(RecentMatch {
            list: list.to_owned(),
            by_dst: false,
            mask: None,
            seconds: Some(10_800),
            hits: None,
        })
    };
    let dnat = |to: &str| Action::Dnat { to: to.to_owned() };
    let mut facts = filter(vec![forward(vec![
        rule("-m recent --name A", vec![recent("A")], dnat("10.0.0.1:80")),
        rule("-m recent --name B", vec![recent("B")], dnat("10.0.0.2:80")),
        rule("-m statistic", vec![Match::Sometimes("half".to_owned())], dnat("10.0.0.1:80")),
        rule("else", vec![], dnat("10.0.0.2:80")),
    ])]);
    let list = |name: &str, ip: &str, age| RecentList {
        name: name.to_owned(),
        entries: vec![RecentEntry { ip: ip.parse().unwrap(), age, hits: 1 }],
    };
    let targets = |facts: &NetnsFacts| -> Vec<String> {
        let found = at_forward(facts, &packet(6)).decisions;
        found.iter().map(|d| d.rule.as_ref().unwrap().text.clone()).collect()
    };
    facts.firewall.recent = vec![list("A", FAR, Some(1)), list("B", POD, Some(9))];
    assert_eq!(targets(&facts), ["-m recent --name B"]);
    facts.firewall.recent[1].entries[0].age = Some(20_000);
    assert_eq!(targets(&facts), ["-m statistic", "else"], "too long ago");
}

#[test]
fn a_maze_of_chains_ends_at_once() {
    let ways = |to: &str| -> Vec<FirewallRule> {
        (0..6).map(|_| maybe(Action::Jump(to.to_owned()))).collect()
    };
    let mut chains = vec![forward(ways("m1"))];
    chains.extend((1..15).map(|n| chain(&format!("m{n}"), ways(&format!("m{}", n + 1)))));
    chains.push(chain("m15", vec![drop()]));
    let evaluation = at_forward(&filter(chains), &packet(6));
    assert_eq!(evaluation.ends, Holds::Unknown);
    assert!(evaluation.decisions.len() < 20, "{}", evaluation.decisions.len());
}

/// Every way through sets another mark, so that no chain is met twice in the same state.
#[test]
fn a_maze_that_no_memory_helps_with_is_given_up() {
    let mark = |bit: u32| Action::SetMark { value: 1 << bit, mask: 0 };
    let level = |bit: u32| {
        let next = format!("m{}", bit + 1);
        let sure = |text: &str, action| rule(text, vec![], action);
        vec![
            sure("jump", Action::Jump(next.clone())),
            sure("mark", mark(2 * bit)),
            sure("jump", Action::Jump(next.clone())),
            sure("mark", mark(2 * bit + 1)),
            sure("jump", Action::Jump(next.clone())),
            sure("mark", mark(2 * bit)),
            sure("jump", Action::Jump(next)),
        ]
    };
    let mut chains = vec![forward(level(0))];
    chains.extend((1..14).map(|n| chain(&format!("m{n}"), level(n))));
    chains.push(chain("m14", vec![]));
    let evaluation = at_forward(&filter(chains), &packet(6));
    assert_eq!(evaluation.ends, Holds::Unknown);
    let unclear: Vec<_> = evaluation.decisions.iter().flat_map(|d| &d.unclear).collect();
    assert!(unclear.iter().all(|u| u.contains("to follow")), "{unclear:?}");
}
