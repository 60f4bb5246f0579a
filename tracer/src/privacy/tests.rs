//! A trace full of secrets, and nothing of them left.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use proptest::prelude::*;

use super::*;
use crate::export::jsonl::Lines;
use crate::export::marks::Marks;
use crate::export::pcapng::Pcapng;
use crate::export::{html, json, markdown, perfetto, svg, text as plain};
use crate::facts::firewall::AddressRange;
use crate::model::Mac;
use crate::record::testing::{Shared, fixture, play};
use crate::record::{Reader, Replay, Target};

fn rewritten(file: &[u8]) -> Vec<u8> {
    let out = Shared::default();
    let mut reader = Reader::new(Box::new(io::Cursor::new(file.to_vec()))).unwrap();
    rewrite(&mut reader, Target::new(out.clone())).unwrap();
    out.bytes()
}

fn unpacked(file: &[u8]) -> String {
    String::from_utf8(zstd::decode_all(file).unwrap()).unwrap()
}

/// A recording in which names, notes, errors and payload are secret.
fn secret_recording(name: &str) -> String {
    let text = unpacked(&fixture(name));
    let mut text = text
        .replace("podtrace-record-fx-", "confidential-netns-")
        .replace("cni0", "topsecretbr")
        .replace("\"A.", "\"payroll.")
        .replace("\"A\"", "\"payroll\"")
        .replace("\"pod\":\"a\"", "\"pod\":\"ledger-7f9c\"")
        .replace("payroll.a", "payroll.ledger-7f9c")
        .replace(
            "\"disabled\":[]",
            "\"disabled\":[\"/home/alice/vmlinux: unreadable on host hal9000\"]",
        )
        .replace("\"command\":[", "\"command\":[\"--inventory=/home/alice/inv.toml\",")
        .replacen("\"gaps\":[]", "\"gaps\":[\"alice@hal9000 cannot look\"]", 1);
    text.insert_str(text.find('\n').unwrap() + 1, "{\"note\":\"for alice, 203.0.113.77\"}\n");
    text
}

/// Everything in it that nobody should learn.
fn secrets(replay: &Replay) -> BTreeSet<String> {
    let (_, topology, _) = &replay.main.traces[0];
    let mut secrets: BTreeSet<String> = [
        "payroll",
        "ledger",
        "topsecret",
        "confidential",
        "alice",
        "hal9000",
        "203.0.113.77",
        "home",
        "inventory",
    ]
    .map(str::to_owned)
    .into();
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let mut ip = |ip: std::net::IpAddr| {
        if !ip.is_loopback() && !ip.is_unspecified() && !ip.is_multicast() {
            secrets.insert(ip.to_string());
            if let std::net::IpAddr::V4(ip) = ip {
                secrets.insert(hex(&ip.octets()));
            }
        }
    };
    topology.names.ip.keys().copied().for_each(&mut ip);
    topology.stations.iter().flat_map(|s| &s.addresses).for_each(|net| ip(net.addr()));
    for space in &replay.before.as_ref().unwrap().spaces {
        for address in &space.facts.addresses {
            if address.net.prefix_len() > 8 {
                ip(address.net.addr());
            }
        }
    }
    for mac in topology.names.mac.keys().filter(|mac| !mac.is_multicast()) {
        secrets.insert(mac.to_string());
        secrets.insert(hex(&mac.0));
    }
    for station in topology.stations.iter().filter(|s| s.name.starts_with("veth")) {
        secrets.insert(station.name.clone());
    }
    assert!(secrets.len() > 40);
    secrets
}

/// What is made of a recording beside text and page; bytes of packets as digits too.
fn exports(file: &[u8], replay: &Replay) -> Vec<String> {
    let marks = Marks::new([&replay.main]);
    let reader = || Reader::new(Box::new(io::Cursor::new(file.to_vec()))).unwrap();
    let mut packets = Vec::new();
    let mut export = Pcapng::start(&mut packets, replay, &marks, None).unwrap();
    let each = |event| -> anyhow::Result<()> { Ok(export.event(&mut packets, &event)?) };
    crate::record::scan(&mut reader(), each).unwrap();
    export.finish(&mut packets, replay).unwrap();
    let mut lines = String::new();
    let source = Lines::new(&replay.main.traces[0].1, &marks, replay);
    crate::record::scan(&mut reader(), |event| -> anyhow::Result<()> {
        lines.extend(source.line(event));
        Ok(())
    })
    .unwrap();
    assert!(packets.len() > 1000 && lines.len() > 1000);
    vec![
        packets.iter().map(|b| format!("{b:02x}")).collect(),
        String::from_utf8_lossy(&packets).into_owned(),
        lines,
        markdown::render(&replay.report),
        svg::render(&replay.report),
        perfetto::render(&replay.report, &replay.main),
    ]
}

/// A recording with stand-ins, and all that can be made of it.
fn masked(open: &str) -> (Replay, Vec<String>) {
    let file = rewritten(open.as_bytes());
    let masked = play(&file).unwrap();
    let mut shown = exports(&file, &masked);
    shown.extend([
        unpacked(&file),
        json::render(&masked.report),
        plain::render(&masked.report, &plain::TextOptions::default()),
        html::render(
            &masked.report,
            html::Extras { before: masked.before.as_ref(), after: masked.after.as_ref() },
        ),
    ]);
    (masked, shown)
}

/// The secrets that stand somewhere, with what is around them.
fn found<'s>(secrets: &'s BTreeSet<String>, shown: &[String]) -> BTreeMap<&'s str, String> {
    let near = |text: &String, secret: &str| {
        let at = text.find(secret)?;
        let near = &text[text.floor_char_boundary(at.saturating_sub(80))..];
        Some(near.chars().take(160).collect())
    };
    let each = secrets.iter().filter_map(|secret| {
        shown.iter().find_map(|text| near(text, secret)).map(|near| (secret.as_str(), near))
    });
    each.collect()
}

#[test]
fn nothing_of_the_secrets_is_left_and_the_verdict_is_the_same() {
    for name in ["healthy", "forward-drop", "wire-loss"] {
        let open = secret_recording(name);
        let original = play(open.as_bytes()).unwrap();
        let comment = (name == "forward-drop").then(|| "isolate-payroll".to_owned());
        let secrets: BTreeSet<String> = secrets(&original).into_iter().chain(comment).collect();
        for secret in &secrets {
            assert!(open.contains(secret) || matches!(secret.len(), 8 | 12), "{secret} is none");
        }
        let (masked, shown) = self::masked(&open);
        let mut left = found(&secrets, &shown);
        // Stand-ins are random: among the digits of some hundred packets, eight that are those of an
        // address come about by chance, and 192.168.10.11 is the stand-in of an address of its kind
        // as often as any other. What leaks is there again under another key.
        for _ in 0..2 {
            if !left.is_empty() {
                let again = found(&secrets, &self::masked(&open).1);
                left.retain(|secret, _| again.contains_key(secret));
            }
        }
        assert!(left.is_empty(), "{name}: {left:#?}");
        // The same can be learned from it.
        let (a, b) = (&original.report, &masked.report);
        assert_eq!((a.verdict.status, &a.verdict.cause), (b.verdict.status, &b.verdict.cause));
        assert_eq!((&a.packets, a.journeys.len()), (&b.packets, b.journeys.len()));
        let roles = |r: &crate::report::Report| -> Vec<_> {
            r.journeys.iter().flat_map(|j| &j.hops).map(|h| (h.point.role, h.delta_ns)).collect()
        };
        assert_eq!(roles(a), roles(b));
        assert!(masked.header.private && masked.before.is_some());
        assert!(masked.report.stations.iter().any(|s| s.interface == "bridge1"));
        assert_eq!(masked.report.src.name, "node1.pod1");
    }
}

#[test]
fn payload_is_gone_and_equal_payload_stays_equal() {
    let mask = Mask::default();
    let packet = |payload: &[u8]| {
        let mut data = Vec::new();
        etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
            .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
            .udp(5000, 53)
            .write(&mut data, payload)
            .unwrap();
        mask.frame(data, 14, 0x0800, &[8472])
    };
    let one = packet(b"user=alice&password=xyzzy");
    assert_eq!(one.len(), 14 + 20 + 8 + 16);
    assert_eq!(one, packet(b"user=alice&password=xyzzy"));
    assert_ne!(one, packet(b"user=bob&password=qwerty12"));
    for secret in [&b"user"[..], b"alice"] {
        assert!(!one.windows(secret.len()).any(|w| w == secret));
    }
}

#[test]
fn words_of_rules_stay_and_names_go() {
    let mut mask = Mask::default();
    let rule = "-A KUBE-SVC-X -s 10.1.2.0/24 -p tcp --dport 8080 -m comment --comment \"alice's shop\" -j DROP";
    let masked = mask.text(rule);
    for kept in ["-s ", "-p tcp --dport 8080 -m comment --comment", "-j DROP", "/24"] {
        assert!(masked.contains(kept), "{masked}");
    }
    for gone in ["KUBE", "10.1.2", "alice", "shop"] {
        assert!(!masked.contains(gone), "{masked}");
    }
    assert_eq!(mask.text(rule), masked);
}

#[test]
fn addresses_within_words_and_numbers_go() {
    let mut mask = Mask::default();
    for text in [
        "to:10.77.88.99-10.77.88.120:80-90",
        "pod-10.77.88.99.example",
        "x10.77.88.99",
        "10.77.88.99_old",
        "match 0xa4d5863/0xffffffff at 16",
        "match 0a4d5863/ffffffff at 16",
        "match 64646464/ffffffff at 16",
        "fe80::4d58:63ff%uplink7",
        "http://10.77.88.99:8080/",
        "[fd77:88::99]:80",
        "ipv6-fd77:88::99",
        "02-4d-58-63-00-01",
    ] {
        let masked = mask.text(text);
        for gone in ["77.88", "88.99", "4d58", "64646464", "fd77", "88::", "uplink", "4d-58"] {
            assert!(!masked.contains(gone), "{text}: {masked}");
        }
    }
    mask.names.node("A");
    assert_eq!(mask.text("-A INPUT -j DROP, on A"), "-A INPUT -j DROP, on node1");
    let plain = "mark match 0x4000/0x4000 mask 0xffffffff limit 3 size 1000000000";
    assert_eq!(mask.text(plain), plain);
}

/// Facts of a packet filter that names addresses, interfaces, comments and sets.
fn filtered(facts: &mut crate::facts::PathFacts) {
    use crate::facts::firewall::{
        Action, Backend, Chain, Condition, FirewallRule, Match, NamePattern,
    };
    use crate::facts::firewall::{Table, TableFamily};
    let pattern = |name: &str, prefix| NamePattern { name: name.into(), prefix };
    let rule = FirewallRule {
        handle: Some(7),
        text: "-i cali+ -s 10.77.88.0/24 -m comment --comment \"zurich office\" -j zurich-fw"
            .into(),
        counter: None,
        conditions: [
            Match::Iif(vec![
                pattern("cali", true),
                pattern("caliabc", false),
                pattern("none", true),
            ]),
            Match::Src(vec!["10.77.88.0/24".parse::<ipnet::IpNet>().unwrap().into()]),
            Match::EtherSrc(vec![Mac([2, 0x4d, 0x58, 0x63, 0, 1])]),
            Match::Unknown("--match-set zurich-nets src".into()),
        ]
        .map(Condition::is)
        .into(),
        effects: vec![Action::NoTrack, Action::Dnat { to: "10.77.88.99-10.77.88.120:80".into() }],
        action: Action::Jump("zurich-fw".into()),
    };
    let space = &mut facts.spaces[0].facts;
    space.links[0].name = "caliabc".into();
    space.sysctls.insert("net.ipv4.conf.zurich0/7.rp_filter".into(), "1".into());
    space.sysctls.insert("net.ipv4.conf.all.rp_filter".into(), "1".into());
    space.firewall.tables = vec![Table {
        backend: Backend::Nft,
        family: TableFamily::Inet,
        name: "zurich".into(),
        chains: vec![Chain { name: "zurich-fw".into(), base: None, rules: vec![rule] }],
    }];
}

#[test]
fn rules_of_packet_filters_match_the_stand_ins() {
    let mut facts = play(&fixture("healthy")).unwrap().before.unwrap();
    filtered(&mut facts);
    let mut mask = Mask::default();
    let masked = mask.facts(&facts).unwrap();
    let text = serde_json::to_string(&masked).unwrap();
    for gone in ["zurich", "cali", "77.88", "4d:58"] {
        assert!(!text.contains(gone), "{gone}: {text}");
    }
    let space = &masked.spaces[0].facts;
    let link = &space.links[0].name;
    let rule = &space.firewall.tables[0].chains[0].rules[0];
    let [iif, src, ..] = &rule.conditions[..] else { panic!("{rule:?}") };
    let crate::facts::firewall::Match::Iif(names) = &iif.what else { panic!("{iif:?}") };
    assert_eq!(names.len(), 3);
    assert!(names[0].matches(link) && names[1].matches(link) && !names[2].matches(link));
    let crate::facts::firewall::Match::Src(ranges) = &src.what else { panic!("{src:?}") };
    assert!(ranges[0].contains(mask.ip("10.77.88.42".parse().unwrap())));
    assert_eq!(space.sysctls["net.ipv4.conf.all.rp_filter"], "1");
    // The chain that is jumped to is called as the rule calls it.
    let chain = &space.firewall.tables[0].chains[0].name;
    assert!(matches!(&rule.action, crate::facts::firewall::Action::Jump(to) if to == chain));
}

fn v4() -> impl Strategy<Value = std::net::Ipv4Addr> {
    any::<u32>().prop_map(std::net::Ipv4Addr::from)
}

proptest! {
    #[test]
    fn private_subnets_stay_subnets(a: u16, b: u16, len in 8_u8..=32) {
        let [a, b] = [a, b].map(|low| {
            let [c, d] = low.to_be_bytes();
            std::net::Ipv4Addr::new(10, 20, c, d)
        });
        let mask = Mask::default();
        let net = |ip| ipnet::Ipv4Net::new(ip, len).unwrap().trunc();
        prop_assert_eq!(net(a) == net(b), net(mask.v4(a)) == net(mask.v4(b)));
        prop_assert_eq!(a == b, mask.v4(a) == mask.v4(b));
        // A range that is a subnet holds the same addresses.
        let range = mask.range(AddressRange::from(ipnet::IpNet::V4(net(a))));
        prop_assert_eq!(range.contains(mask.v4(b).into()), net(a).contains(&b));
    }

    #[test]
    fn special_addresses_keep_what_they_are(ip in v4()) {
        let masked = Mask::default().v4(ip);
        prop_assert_eq!(ip.is_private(), masked.is_private());
        prop_assert_eq!(ip.is_loopback(), masked.is_loopback());
        prop_assert_eq!(ip.is_multicast(), masked.is_multicast());
        prop_assert_eq!(ip.is_link_local(), masked.is_link_local());
        prop_assert_eq!(ip.is_broadcast(), masked.is_broadcast());
    }

    #[test]
    fn hardware_addresses_keep_their_kind(bytes: [u8; 6]) {
        let masked = Mask::default().mac(Mac(bytes));
        prop_assert_eq!(Mac(bytes).is_multicast(), masked.is_multicast());
    }

    #[test]
    fn any_packet_can_be_masked(
        data in proptest::collection::vec(any::<u8>(), 0..200),
        l3 in 0..40_usize,
        ethertype in prop_oneof![Just(0x0800_u16), Just(0x86dd), Just(0x0806), any::<u16>()],
    ) {
        let len = data.len();
        prop_assert!(Mask::default().frame(data, l3, ethertype, &[8472]).len() <= len);
    }

    #[test]
    fn any_text_can_be_masked(text: String) {
        Mask::default().text(&text);
    }
}
