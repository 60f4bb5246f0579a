//! Facts of a lab, compared with what the system's own tools say.

#![expect(clippy::expect_used, reason = "helpers of tests fail the test")]

mod common;

use std::collections::BTreeMap;
use std::net::UdpSocket;

use common::{TestLab, privileged};
use tracer::endpoint;
use tracer::facts::firewall::{Action, Backend, NfHook, Policy, TableFamily};
use tracer::facts::{
    self, AttachPoint, Change, Collected, Difference, NetnsFacts, PathFacts, SocketProto, diff,
    recollect,
};
use tracer::inventory::Inventory;
use tracer::node::Nodes;

/// Runs a command in a part of the lab.
fn run(lab: &TestLab, target: &str, command: &str) -> (bool, String) {
    let argv: Vec<&str> = command.split_whitespace().collect();
    let output = lab.exec(target, &argv).expect("run a command");
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a command that must succeed.
fn must(lab: &TestLab, target: &str, command: &str) -> String {
    let (success, text) = run(lab, target, command);
    assert!(success, "{target}: {command}: {text}");
    text
}

fn collect(lab: &TestLab) -> Collected<PathFacts> {
    let inventory = Inventory::load(Some(&lab.inventory_path())).expect("inventory");
    let nodes = Nodes::new(inventory);
    let end = |name| endpoint::resolve(name, &nodes).expect("endpoint");
    facts::collect(&nodes, &end("A.a"), &end("B.b").into()).expect("facts")
}

fn node<'a>(facts: &'a PathFacts, name: &str) -> &'a NetnsFacts {
    &facts.node(name).expect("node").facts
}

fn changes(before: &Collected<PathFacts>) -> Vec<Difference> {
    diff(&before.facts, &recollect(before).expect("facts"))
}

/// By how much a protocol counter of a node moved.
fn moved(changes: &[Difference], node: &str, counter: &str) -> u64 {
    changes
        .iter()
        .filter(|d| d.node == node && d.pod.is_none())
        .find_map(|d| match &d.change {
            Change::Counter { name, by } if name == counter => Some(*by),
            _ => None,
        })
        .unwrap_or_default()
}

#[test]
fn a_healthy_lab_is_read_without_gaps_and_as_the_tools_show_it() {
    if !privileged() {
        return;
    }
    let lab = TestLab::up(|_| {});
    let collected = collect(&lab);
    for space in &collected.facts.spaces {
        assert!(space.facts.gaps.is_empty(), "{}: {:?}", space.title(), space.facts.gaps);
    }
    let facts = node(&collected.facts, "A");

    let listing = must(&lab, "A", "sysctl -a");
    let shown: BTreeMap<&str, &str> =
        listing.lines().filter_map(|line| line.split_once(" = ")).collect();
    assert!(facts.sysctls.len() > 100);
    for (name, value) in &facts.sysctls {
        let shown = shown.get(name.as_str()).map(|v| v.replace('\t', " "));
        assert_eq!(shown.as_deref(), Some(value.as_str()), "{name}");
    }
    assert_eq!(facts.interface_sysctl("ipv4", "flannel.1", "forwarding"), Some("1"));

    for (tool, family) in [("iptables-save", TableFamily::Ip), ("ip6tables-save", TableFamily::Ip6)]
    {
        let listing = must(&lab, "A", tool);
        let shown: Vec<&str> = listing.lines().filter(|l| l.starts_with("-A")).collect();
        let tables = facts.firewall.tables.iter().filter(|t| t.family == family);
        let read: Vec<&str> = tables
            .flat_map(|t| &t.chains)
            .flat_map(|c| &c.rules)
            .map(|r| r.text.as_str())
            .collect();
        // The tool prints chain by chain, in order of the chains' names or of their making.
        assert_eq!(read, shown, "{tool}");
    }
    assert!(facts.firewall.tables.iter().all(|t| t.backend == Backend::IptablesNft));
    let forward = facts.firewall.chains_at(TableFamily::Ip, NfHook::Forward);
    assert_eq!(forward.len(), 1);
    assert!(forward[0].chain.rules.iter().all(|r| r.handle.is_some()));

    let links: serde_json::Value =
        serde_json::from_str(&must(&lab, "A", "ip -j link")).expect("JSON");
    let shown: Vec<(&str, u64)> = links
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|l| Some((l["ifname"].as_str()?, l["mtu"].as_u64()?)))
        .collect();
    let read: Vec<(&str, u64)> =
        facts.links.iter().map(|l| (l.name.as_str(), u64::from(l.mtu))).collect();
    assert_eq!(read, shown);
    assert!(facts.links.iter().all(|l| l.stats.is_some()));
    assert!(facts.counter("Ip.InReceives").is_some());
    assert!(facts.counter("TcpExt.ListenOverflows").is_some());
    assert!(facts.conntrack.as_ref().is_some_and(|c| c.max.is_some()));
}

#[test]
fn forwarding_switched_off_shows_as_a_parameter_and_a_counter() {
    if !privileged() {
        return;
    }
    let lab = TestLab::up(|_| {});
    let before = collect(&lab);
    must(&lab, "A", "sysctl -w net.ipv4.ip_forward=0");
    assert!(!run(&lab, "A.a", "ping -c3 -i0.05 -W1 10.10.1.2").0);
    let changes = changes(&before);
    let sysctl = changes.iter().find_map(|d| match &d.change {
        Change::Sysctl { name, value } if name == "net.ipv4.ip_forward" => Some((d, value)),
        _ => None,
    });
    let (place, value) = sysctl.expect("the parameter changed");
    assert_eq!((place.node.as_str(), &place.pod), ("A", &None));
    assert_eq!((value.before.as_deref(), value.after.as_deref()), (Some("1"), Some("0")));
    assert_eq!(moved(&changes, "A", "Ip.InAddrErrors"), 3);
    assert_eq!(moved(&changes, "B", "Ip.InAddrErrors"), 0);
}

#[test]
fn the_rule_that_packets_met_is_named_whichever_tool_wrote_it() {
    if !privileged() {
        return;
    }
    const VXLAN: &str = "INPUT -p udp --dport 8472 -j DROP";
    let nft = |family: &str, table: &str| {
        format!(
            "nft add table {family} {table}
            nft add chain {family} {table} wall {{ type filter hook input priority -5 ; }}
            nft add rule {family} {table} wall udp dport 8472 counter drop"
        )
    };
    for (backend, write, family, table) in [
        (Backend::IptablesNft, format!("iptables -I {VXLAN}"), TableFamily::Ip, "filter"),
        (Backend::IptablesLegacy, format!("iptables-legacy -I {VXLAN}"), TableFamily::Ip, "filter"),
        (Backend::Nft, nft("inet", "own"), TableFamily::Inet, "own"),
        // Within a table that iptables made, and does not show then.
        (Backend::Nft, nft("ip", "filter"), TableFamily::Ip, "filter"),
    ] {
        let lab = TestLab::up(|_| {});
        for command in write.lines() {
            must(&lab, "B", command);
        }
        let before = collect(&lab);
        let firewall = &node(&before.facts, "B").firewall;
        let table_read = firewall.table(backend, family, table).expect("the table");
        let rule = table_read.chains.iter().flat_map(|c| &c.rules).next().expect("the rule");
        assert_eq!(rule.action, Action::Drop);
        let flannel = firewall.tables.iter().flat_map(|t| t.chain("FLANNEL-FWD"));
        let texts: Vec<_> = flannel.flat_map(|c| &c.rules).map(|r| r.text.as_str()).collect();
        assert_eq!(texts.len(), 4, "of IPv4 and IPv6, each once: {texts:?}");
        assert!(texts.iter().all(|t| t.starts_with("-A FLANNEL-FWD -")), "{texts:?}");
        assert!(!run(&lab, "A.a", "ping -c2 -i0.05 -W1 10.10.1.2").0);
        let changes = changes(&before);
        let met: Vec<_> = changes
            .iter()
            .filter_map(|d| match &d.change {
                Change::RuleCounter { rule, packets, .. }
                    if rule.text.ends_with("drop") || rule.text.ends_with("DROP") =>
                {
                    Some((d.node.as_str(), rule, *packets))
                }
                _ => None,
            })
            .collect();
        let [("B", place, 2)] = met[..] else { panic!("{backend:?}: {changes:#?}") };
        assert_eq!((place.backend, place.table.as_str()), (backend, table));
        let text = if backend == Backend::Nft {
            "udp dport 8472 counter drop"
        } else {
            "-A INPUT -p udp -m udp --dport 8472 -j DROP"
        };
        assert_eq!(place.text, text);
    }
}

#[test]
fn both_implementations_of_iptables_are_told_apart() {
    if !privileged() {
        return;
    }
    let lab = TestLab::up(|_| {});
    must(&lab, "A", "iptables-legacy -P FORWARD DROP");
    let before = collect(&lab);
    let forward = node(&before.facts, "A").firewall.chains_at(TableFamily::Ip, NfHook::Forward);
    let policies: Vec<_> = forward.iter().map(|h| (h.table.backend, h.base.policy)).collect();
    assert!(policies.contains(&(Backend::IptablesLegacy, Policy::Drop)));
    assert!(policies.contains(&(Backend::IptablesNft, Policy::Accept)));
    assert!(!run(&lab, "A.a", "ping -c2 -i0.05 -W1 10.10.1.2").0);
    let met = changes(&before).into_iter().find_map(|d| match d.change {
        Change::RuleCounter { rule, packets, .. } if rule.text == "policy drop" => {
            Some((rule.backend, packets))
        }
        _ => None,
    });
    assert_eq!(met, Some((Backend::IptablesLegacy, 2)));
}

#[test]
fn queues_policies_sockets_and_connections() {
    if !privileged() {
        return;
    }
    let lab = TestLab::up(|_| {});
    must(&lab, "A", "tc qdisc add dev flannel.1 root tbf rate 8kbit burst 1600 latency 1ms");
    must(&lab, "A", "tc qdisc add dev ens33 clsact");
    let filter = "protocol ip u32 match ip dst 10.98.0.1/32 classid 1:1";
    must(&lab, "A", &format!("tc filter add dev ens33 ingress {filter}"));
    must(&lab, "B", "ip xfrm policy add src 10.10.9.0/24 dst 10.99.0.0/16 dir out action block");
    let pod = lab.netns("B.b").expect("netns");
    let socket = pod.run(|| UdpSocket::bind("10.10.1.2:5300")).expect("thread").expect("bind");
    let before = collect(&lab);
    let a = node(&before.facts, "A");
    let tbf = a.qdiscs.iter().find(|q| q.kind == "tbf").expect("the qdisc");
    assert_eq!(tbf.parent, "root");
    assert!(tbf.options.contains("rate 8Kbit"), "{}", tbf.options);
    assert_eq!(a.link(tbf.ifindex).map(|l| l.name.as_str()), Some("flannel.1"));
    let [filter] = &a.programs[..] else { panic!("{:?}", a.programs) };
    assert_eq!((filter.kind.as_str(), filter.point), ("u32", AttachPoint::TcIngress));
    assert!(filter.text.contains("flowid 1:1"), "{}", filter.text);
    let policies = &node(&before.facts, "B").xfrm;
    let [policy] = &policies[..] else { panic!("{policies:?}") };
    assert!(policy.block);
    assert_eq!(
        (policy.direction.as_str(), policy.dst.to_string().as_str()),
        ("out", "10.99.0.0/16")
    );
    let b = before.facts.pod(&before.facts.dst).expect("pod");
    let ip = "10.10.1.2".parse().expect("an address");
    assert!(b.facts.sockets.iter().any(|s| s.takes(SocketProto::Udp, ip, 5300)));
    drop(socket);

    // More at once than the bucket holds.
    run(&lab, "A.a", "ping -c5 -i0.01 -s1300 -W1 10.10.1.2");
    let after = recollect(&before).expect("facts");
    let drops = diff(&before.facts, &after).into_iter().find_map(|d| match d.change {
        Change::QdiscCounter { interface, name, by, .. } if name == "drops" => {
            Some((d.node, interface, by))
        }
        _ => None,
    });
    let (node_name, interface, by) = drops.expect("drops");
    assert_eq!((node_name.as_str(), interface.as_str()), ("A", "flannel.1"));
    assert!((1..=5).contains(&by), "{by}");
    let entries = &node(&after, "A").conntrack.as_ref().expect("conntrack").entries;
    let ping = entries.iter().find(|e| e.proto == 1).expect("the ping's entry");
    assert_eq!(ping.original.dst, ip);
    assert_eq!(ping.original.icmp.map(|(kind, ..)| kind), Some(8));
    assert!(b.facts.sockets.len() > after.pod(&after.dst).expect("pod").facts.sockets.len());
}

#[test]
fn the_traces_own_programs_are_no_fact_about_the_path() {
    if !privileged() {
        return;
    }
    let lab = TestLab::up(|_| {});
    let before = collect(&lab);
    let live = common::trace::Live::start(&lab, &["--src", "A.a", "--dst", "B.b"]);
    let after = recollect(&before).expect("facts");
    live.interrupt();
    for space in &after.spaces {
        assert!(space.facts.programs.is_empty(), "{:?}", space.facts.programs);
    }
}
