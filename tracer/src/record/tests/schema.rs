//! Keeps docs/schema/podtrace.trace-1.schema.json true.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::fixture;
use super::tape::Tape;
use crate::export::schema::Validator;
use crate::facts::firewall::{
    Action, AddressRange, Backend, BaseChain, Chain, Choice, Condition, Counter, FirewallRule,
    IpSet, IpSetEntry, IpSetPart, Match, NamePattern, NfHook, Policy, PortRange, RecentEntry,
    RecentList, RecentMatch, Table, TableFamily,
};
use crate::facts::*;
use crate::model::*;
use crate::record::{End, Losses, Observed, Reached, Record, Stage, StageKind};

const SCHEMA: &str = include_str!("../../../../docs/schema/podtrace.trace-1.schema.json");

fn validator() -> Validator {
    Validator::of("Record", SCHEMA)
}

fn validate(validator: &mut Validator, line: &str) {
    validator.validate(&serde_json::from_str(line).unwrap());
    assert_eq!(validator.errors, [""; 0], "{}", line.chars().take(200).collect::<String>());
}

/// One of everything that can be read of a namespace; `Default` has every field too.
fn everything() -> NetnsFacts {
    let ip = "10.0.0.1".parse().unwrap();
    let net = "10.0.0.1/24".parse().unwrap();
    let mac = Mac([2, 0, 0, 0, 0, 1]);
    let counter = Some(Counter { packets: 1, bytes: 2 });
    let tuple = Tuple { src: ip, dst: ip, sport: None, dport: Some(1), icmp: Some((8, 0, 7)) };
    let ports = PortRange { first: 1, last: 2 };
    let what = vec![
        Match::Iif(vec![NamePattern { name: "cali".into(), prefix: true }]),
        Match::Src(vec![AddressRange { first: ip, last: ip }]),
        Match::Mark { value: 1, mask: 1 },
        Match::Icmp { v6: false, types: vec![(8, None), (3, Some(1))] },
        Match::Dport(vec![ports]),
        Match::Fragment,
        Match::Length(vec![(1, 2)]),
        Match::IpSet { name: "s".into(), from_src: vec![true, false] },
        Match::Recent(RecentMatch {
            list: "r".into(),
            by_dst: true,
            mask: Some(ip),
            seconds: Some(1),
            hits: Some(2),
        }),
        Match::AnyOf(vec![vec![Condition::is(Match::Fragment)]]),
        Match::Unknown("?".into()),
    ];
    let conditions: Vec<Condition> =
        what.into_iter().map(|what| Condition { invert: true, what }).collect();
    let choice = |conditions, action| Choice {
        text: "1 : drop".into(),
        comment: Some("why".into()),
        conditions,
        action,
    };
    let rule = FirewallRule {
        handle: Some(1),
        text: "-j DROP".into(),
        counter,
        conditions: conditions.clone(),
        effects: vec![Action::SetMark { value: 1, mask: 2 }, Action::NoTrack],
        action: Action::Choose(vec![
            choice(conditions, Action::Drop),
            choice(Vec::new(), Action::Masquerade { ports: Some(ports), random: false }),
            choice(Vec::new(), Action::Jump("x".into())),
        ]),
    };
    let base = BaseChain {
        hook: NfHook::Forward,
        priority: -1,
        kind: "filter".into(),
        policy: Policy::Drop,
        counter,
        devices: vec!["eth0".into()],
    };
    let query = RouteQuery::to(ip);
    let failed = RouteOutcome::Failed { errno: -101, message: "unreachable".into() };
    NetnsFacts {
        links: vec![Link {
            mac: Some(mac),
            vxlan: Some(VxlanInfo {
                vni: 1,
                port: 2,
                local: None,
                lower_ifindex: None,
                learning: false,
            }),
            bridge_port: Some(BridgePort::default()),
            bridge: Some(BridgeInfo::default()),
            stats: Some(LinkStats::default()),
            xdp: Some(Xdp::default()),
            ..Link::default()
        }],
        addresses: vec![Address { ifindex: 1, net, tentative: false }],
        neighbors: [NeighborState::Stale, NeighborState::Other(3)]
            .map(|state| NeighborEntry { ifindex: 1, ip, mac: Some(mac), state })
            .into(),
        fdb: vec![FdbEntry {
            ifindex: 1,
            mac,
            master: None,
            dst: Some(ip),
            via: None,
            vni: None,
            port: None,
            own: true,
            permanent: true,
        }],
        routes: [RouteKind::Unicast, RouteKind::Other(9)]
            .map(|kind| Route {
                kind,
                more_hops: vec![(1, Some(ip)), (2, None)],
                ..Route::default()
            })
            .into(),
        rules: [RuleAction::ToTable, RuleAction::Goto(3), RuleAction::Other(9)]
            .map(|action| Rule {
                action,
                fwmark: Some((1, 2)),
                sport: Some((1, 2)),
                uids: Some((1, 2)),
                ..Rule::default()
            })
            .into(),
        answers: [RouteOutcome::Found(RouteHit::default()), failed]
            .map(|outcome| RouteAnswer { query, outcome })
            .into(),
        nsids: [(1, 2)].into(),
        sysctls: [("net.ipv4.ip_forward".to_owned(), "1".to_owned())].into(),
        counters: [("Ip.InReceives".to_owned(), 7)].into(),
        conntrack: Some(Conntrack {
            stats: [("drop".to_owned(), 1)].into(),
            entries: vec![ConntrackEntry {
                original: tuple,
                reply: tuple,
                proto: 6,
                status: 1,
                tcp_state: None,
                mark: 0,
                zone: 0,
                timeout: None,
            }],
            ..Conntrack::default()
        }),
        firewall: Firewall {
            tables: vec![Table {
                backend: Backend::IptablesNft,
                family: TableFamily::Inet,
                name: "filter".into(),
                chains: vec![Chain { name: "x".into(), base: Some(base), rules: vec![rule] }],
            }],
            ipsets: vec![IpSet {
                name: "s".into(),
                kind: "hash:ip".into(),
                v6: Some(false),
                netmask: Some(32),
                entries: vec![IpSetEntry {
                    parts: vec![
                        IpSetPart::Addresses(AddressRange { first: ip, last: ip }),
                        IpSetPart::Ports { proto: None, ports },
                        IpSetPart::Mac(mac),
                        IpSetPart::Interface { name: "eth0".into(), port: true },
                        IpSetPart::Mark(1),
                        IpSetPart::Set("t".into()),
                        IpSetPart::Unknown,
                    ],
                    nomatch: true,
                }],
                incomplete: Some("why".into()),
            }],
            recent: vec![RecentList {
                name: "r".into(),
                entries: vec![RecentEntry { ip, age: None, hits: 1 }],
            }],
        },
        qdiscs: vec![Qdisc::default()],
        programs: vec![AttachedProgram {
            ifindex: 1,
            point: AttachPoint::TcxEgress,
            kind: "bpf".into(),
            id: None,
            name: None,
            text: String::new(),
        }],
        xfrm: vec![XfrmPolicy {
            direction: "in".into(),
            src: net,
            dst: net,
            proto: 0,
            block: true,
            priority: 1,
        }],
        sockets: vec![Socket {
            proto: SocketProto::Tcp,
            local: "0.0.0.0:80".parse().unwrap(),
            remote: None,
            rx_queue: 0,
            drops: None,
            inode: 1,
        }],
        ipvs: Some(Ipvs {
            services: vec![
                VirtualService {
                    of: Virtual::Address { proto: 6, ip, port: 80 },
                    scheduler: "rr".into(),
                    persistent: Some(10800),
                    one_packet: true,
                    servers: vec![RealServer {
                        ip,
                        port: 8080,
                        forwarding: Forwarding::Masq,
                        weight: 1,
                        active: 2,
                        inactive: 3,
                    }],
                },
                VirtualService {
                    of: Virtual::Mark { mark: 7, v6: true },
                    scheduler: "sh".into(),
                    persistent: None,
                    one_packet: false,
                    servers: Vec::new(),
                },
            ],
            truncated: true,
        }),
        gaps: vec![Gap { source: "nft".into(), reason: "none".into() }],
        ..NetnsFacts::default()
    }
}

fn lines_of(record: &Record<'_>) -> String {
    serde_json::to_string(record).unwrap()
}

#[test]
fn records_are_as_the_schema_says() {
    let mut validator = validator();
    let mut kinds = BTreeSet::new();
    let unpacked = |name: &str| {
        let plain = zstd::decode_all(fixture(name).as_slice()).unwrap();
        String::from_utf8(plain).unwrap()
    };
    let mut texts: Vec<String> = ["healthy", "forward-drop", "wire-loss"].map(unpacked).into();
    texts.push(Tape::of_pings(1).lines().join("\n"));
    for text in &texts {
        for line in text.lines() {
            validate(&mut validator, line);
            let record: Value = serde_json::from_str(line).unwrap();
            kinds.extend(record.as_object().unwrap().keys().cloned());
        }
    }
    let ip = "10.0.0.1".parse().unwrap();
    let service = Service {
        ip,
        port: None,
        proto: None,
        target_port: None,
        leads: Leads::Rule,
        dead: false,
        others: vec![ip],
        translator: "A".into(),
        entry: None,
    };
    let text = zstd::decode_all(fixture("healthy").as_slice()).unwrap();
    let text = String::from_utf8(text).unwrap();
    for line in text.lines().take(4) {
        match serde_json::from_str(line).unwrap() {
            Record::Topology(mut record) => {
                let topology = &mut record.topology;
                topology.dst.as_mut().unwrap().service = Some(service.clone());
                topology.dst.as_mut().unwrap().kind = crate::model::EndKind::Outside;
                let alias = Alias { ip, port: None, real: ip, real_port: None, source: false };
                topology.aliases.push(alias);
                topology.elsewhere.push(ip);
                topology.machines.insert("B".into(), 1);
                validate(&mut validator, &lines_of(&Record::Topology(record)));
            }
            Record::Facts(mut record) => {
                record.facts.spaces[0].facts = everything();
                record.facts.backends = vec![record.facts.dst.clone()];
                record.facts.pods =
                    vec![KnownPod { node: "A".into(), pod: "c".into(), ips: vec![ip] }];
                validate(&mut validator, &lines_of(&Record::Facts(record)));
            }
            _ => {}
        }
    }
    let observation = Observation {
        loss: vec![("A".into(), Loss { stray: 1, ..Loss::default() })],
        unreachable: vec![Unreachable { node: "B".into(), since_ns: 1, why: "x".into() }],
        probe: Some(ProbeResult {
            errors: vec![("x".into(), 1)],
            attempts: vec![Attempt { port: 1, outcome: AttemptOutcome::Error }],
            ..ProbeResult::default()
        }),
        node_ping: Some(NodePing {
            from: "A".into(),
            to: "B".into(),
            src: ip,
            dst: ip,
            sent: 1,
            answered: 0,
        }),
        ..Observation::default()
    };
    let observed = Observed { duration_ns: 1, observation };
    for record in [
        Record::Amended(Box::new(observed.clone())),
        Record::Stage(Box::new(Stage { kind: StageKind::Large, mtu: Some(1450), observed })),
        Record::Loss(Losses { capture: Loss { stray: 1, ..Loss::default() }, ..Losses::default() }),
        Record::Reached(Reached { machine: 1, until_ns: None }),
        Record::Clock(RoundTrip { asked_ns: 1, reading: Reading::default(), answered_ns: 2 }),
        Record::Note("x".into()),
        Record::End(Box::new(End { unrecorded: 0, verdict: None, continued: true })),
    ] {
        validate(&mut validator, &lines_of(&record));
    }
    // What is written only where there is something to say.
    let whole: Vec<Value> = texts[1].lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let mut event = whole.iter().find(|r| r.get("event").is_some()).unwrap().clone();
    event["event"]["gso"] = json!([2, 1448]);
    event["event"]["m"] = json!(1);
    validate(&mut validator, &event.to_string());
    let mut end = whole.last().unwrap().clone();
    end["end"]["verdict"]["rule"] = json!("-j DROP");
    end["end"]["verdict"]["severity"] = json!("harm");
    validate(&mut validator, &end.to_string());
    // What is declared and never written would be declared in vain, or misspelt.
    let missing: Vec<_> = validator.declared().difference(&validator.met).cloned().collect();
    assert_eq!(missing, [""; 0]);
}

#[test]
fn what_is_no_record_does_not_fit() {
    for wrong in [
        json!({}),
        json!({"batch": 1, "idle": null}),
        json!({"batch": -1}),
        json!({"event": {"t": 1}}),
        json!({"end": {"unrecorded": "none"}}),
        json!({"something": 1}),
    ] {
        let mut validator = validator();
        validator.validate(&wrong);
        assert!(!validator.errors.is_empty(), "{wrong}");
    }
}
