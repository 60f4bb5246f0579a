//! `service.`: what a service address leads to. Asked before all others: where packets are sent by
//! translation explains what the tables say about the way there.

use std::net::IpAddr;

use super::netfilter::suspected;
use super::{Cause, Explanation, likely, told};
use crate::diagnose::Case;
use crate::diagnose::death::Death;
use crate::expect::ipvs;
use crate::expect::translate::{Wanted, ports, targets};
use crate::facts::NetnsFacts;
use crate::facts::firewall::{Action, FirewallRule, Match};
use crate::model::{Direction, Hook, L4, Leads, Role, Service};
use crate::report::{Confidence, Place};

pub(super) const CAUSES: &[Cause] = &[
    Cause { code: "service.no-local-endpoint", recognise: no_local_endpoint },
    Cause { code: "service.no-endpoints", recognise: no_endpoints },
    Cause { code: "service.no-rules", recognise: no_rules },
    Cause { code: "service.stale-conntrack", recognise: stale },
    Cause { code: "service.dead-endpoint", recognise: dead },
    Cause { code: "service.bridge-nf-off", recognise: bridge_nf_off },
    Cause { code: "service.nodeport-no-snat", recognise: no_snat },
    Cause { code: "bridge.hairpin-off", recognise: hairpin },
];

fn service<'a>(case: &Case<'a>) -> Option<&'a Service> {
    case.topology.dst.as_ref()?.service.as_ref()
}

fn node<'a>(case: &Case<'a>, name: &str) -> Option<&'a NetnsFacts> {
    case.after.or(case.before)?.node(name).map(|space| &space.facts)
}

/// Whether the packets died still addressed to the service.
fn untranslated(service: &Service, death: &Death<'_>) -> bool {
    death.direction == Direction::Forward && death.ip().is_some_and(|ip| ip.dst == service.ip)
}

/// The rule that dropped, as its tool prints it, when it is kube-proxy's for services that lead
/// nowhere: it names them in a comment (pkg/proxy/iptables/proxier.go).
fn refusal(case: &Case<'_>, death: &Death<'_>, comment: &str) -> Option<String> {
    death.dropped("NETFILTER_DROP", "*").then_some(())?;
    let suspects = suspected(case, death);
    let rule = suspects.first()?.decision.rule.as_ref()?;
    rule.text.contains(comment).then(|| suspects[0].decision.describe())
}

/// A rule with this comment that ends packets to the service.
fn rule_about(facts: &NetnsFacts, service: &Service, comment: &str) -> Option<String> {
    let rules = facts.firewall.tables.iter().flat_map(|t| &t.chains).flat_map(|c| &c.rules);
    let mut ending = rules.filter(|r| matches!(r.action, Action::Drop | Action::Reject { .. }));
    let about = |rule: &&FirewallRule| {
        let is = |what: &Match| match what {
            Match::Dst(ranges) => {
                Some(ranges.iter().any(|r| r.first == service.ip && r.last == service.ip))
            }
            Match::Dport(ranges) => {
                Some(service.port.is_none_or(|port| ranges.iter().any(|r| r.contains(port))))
            }
            _ => None,
        };
        let answers: Vec<bool> = rule.conditions.iter().filter_map(|c| is(&c.what)).collect();
        rule.text.contains(comment) && !answers.is_empty() && answers.iter().all(|fits| *fits)
    };
    ending.find(about).map(|rule| rule.text.clone())
}

fn with_rule(explanation: Explanation, rule: String) -> Explanation {
    Explanation { rule: Some(rule), ..explanation }
}

fn no_local_endpoint(case: &Case<'_>, death: &Death<'_>) -> Option<Explanation> {
    let rule = refusal(case, death, "has no local endpoints")?;
    let node = case.where_words(death);
    Some(with_rule(
        told(
            format!(
                "The service takes traffic at {node} only for pods there, and {node} has none of it: {rule}"
            ),
            &[
                "send to a node that has a pod of the service (kubectl get endpointslices)"
                    .to_owned(),
                "or set externalTrafficPolicy (internalTrafficPolicy for a ClusterIP) to Cluster"
                    .to_owned(),
            ],
        ),
        rule,
    ))
}

/// The virtual service of IPVS that packets died at for want of a real server (`ip_vs_leave`,
/// net/netfilter/ipvs/ip_vs_core.c).
fn without_servers(case: &Case<'_>, death: &Death<'_>) -> Option<String> {
    let service = service(case).filter(|s| untranslated(s, death))?;
    let found = ipvs::of(node(case, &service.translator)?, service)?;
    let none = ipvs::servers(found).next().is_none();
    none.then(|| format!("ipvs {found} has no real server that takes connections"))
}

fn no_endpoints(case: &Case<'_>, death: &Death<'_>) -> Option<Explanation> {
    let comment = "has no endpoints";
    let rule = refusal(case, death, comment).or_else(|| {
        // It may have died before it came to the rule: without translation there may be no route.
        let service = service(case).filter(|s| untranslated(s, death))?;
        rule_about(node(case, &service.translator)?, service, comment)
    });
    let rule = rule.or_else(|| without_servers(case, death))?;
    Some(with_rule(
        told(
            format!("The service has no pod that is ready: {rule}"),
            &[
                "kubectl get endpointslices   # is any pod ready?".to_owned(),
                "compare the service's selector with the pods' labels, and look at their readiness"
                    .to_owned(),
            ],
        ),
        rule,
    ))
}

/// The rule of kube-proxy's that refuses what is for the address of a service and for none of its ports
/// (pkg/proxy/ipvs/proxier.go).
fn unserved(case: &Case<'_>, death: &Death<'_>) -> Option<String> {
    death.dropped("NETFILTER_DROP", "*").then_some(())?;
    let suspects = suspected(case, death);
    let first = &suspects.first()?.decision;
    (first.chain == "KUBE-IPVS-FILTER").then(|| first.describe())
}

/// The address is a service's, the port is not.
fn other_port(facts: &NetnsFacts, service: &Service) -> Option<Explanation> {
    let name = |proto: u8| match proto {
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        132 => "sctp".to_owned(),
        other => other.to_string(),
    };
    let (port, known) = (service.port?, ports(facts, service.ip));
    let is_own = |(p, n): &(u8, u16)| *n == port && service.proto.is_none_or(|own| own == *p);
    if known.iter().any(is_own) {
        return None;
    }
    let listed: Vec<String> =
        known.iter().map(|(proto, port)| format!("{}/{port}", name(*proto))).collect();
    let has = if listed.len() == 1 { "port" } else { "ports" };
    let own = service.proto.map_or_else(String::new, |proto| name(proto) + "/");
    (!listed.is_empty()).then(|| {
        let text = format!(
            "{} is the address of a service with {has} {}, not {own}{port}",
            service.ip,
            listed.join(", ")
        );
        let evidence =
            ipvs::services_at(facts, service.ip).map(|(.., s)| format!("ipvs {s}")).take(8);
        let evidence = evidence.collect();
        let fix = [
            "send to a port that the service has".to_owned(),
            "kubectl get service -A -o wide   # which service has the address, and which ports?"
                .to_owned(),
        ];
        Explanation { evidence, ..told(text, &fix) }
    })
}

fn no_rules(case: &Case<'_>, death: &Death<'_>) -> Option<Explanation> {
    let service = service(case).filter(|s| s.leads == Leads::Nowhere)?;
    let filter = unserved(case, death);
    if !untranslated(service, death) || filter.is_none() && death.dropped("NETFILTER_DROP", "*") {
        return None;
    }
    let (address, node_name) = (service.address(), &service.translator);
    let facts = node(case, node_name)?;
    if ipvs::of(facts, service).is_some() {
        // IPVS has it, and does not translate it, or only what carries a mark.
        return None;
    }
    if let Some(explanation) = other_port(facts, service) {
        let evidence = explanation.evidence.into_iter().chain(filter).collect();
        return Some(Explanation { evidence, ..explanation });
    }
    let mut explanation = told(
        format!("No rule on {node_name} translates {address}, and no pod or node has that address"),
        &[
            format!(
                "on {node_name}: iptables-save -t nat | grep {}; nft list ruleset | grep {}",
                service.ip, service.ip
            ),
            format!("is kube-proxy running on {node_name}? restart it: it writes its rules anew"),
            "kubectl get service -A   # is it an address of a service, and this its port?"
                .to_owned(),
        ],
    );
    explanation.evidence.push(format!("the packet still has the destination {address}"));
    if death.ip().is_some_and(|ip| matches!(ip.l4, L4::Icmp { .. })) {
        explanation.fix.insert(
            0,
            "a service's address answers no pings: only its ports are translated (--probe=tcp --port N)"
                .to_owned(),
        );
    }
    if facts.firewall.is_empty() && facts.has_gap("firewall") {
        explanation.confidence = Confidence::Likely;
    }
    Some(explanation)
}

/// What the rules alone lead to.
fn by_rules(case: &Case<'_>, service: &Service, src: IpAddr) -> Option<IpAddr> {
    let wanted = Wanted { src, dst: service.ip, proto: service.proto, port: service.port };
    let all = targets(node(case, &service.translator)?, &wanted);
    all.iter().find(|t| t.leads == Leads::Rule).map(|t| t.ip)
}

/// The address that packets were translated to, where nobody is.
fn gone(case: &Case<'_>, death: &Death<'_>) -> Option<IpAddr> {
    let translated = death.ip().map(|ip| ip.dst).or_else(|| Some(death.question()?.target_ip))?;
    let dst = case.topology.dst.as_ref()?;
    (death.direction == Direction::Forward && dst.ips.contains(&translated)).then_some(translated)
}

fn stale(case: &Case<'_>, death: &Death<'_>) -> Option<Explanation> {
    let service = service(case).filter(|s| s.leads == Leads::Tracked)?;
    let to = gone(case, death)?;
    let src = case.topology.src.as_ref()?.ips.iter().find(|ip| ip.is_ipv4() == to.is_ipv4())?;
    let meant = by_rules(case, service, *src);
    if meant == Some(to) {
        return None;
    }
    let (address, node) = (service.address(), &service.translator);
    let instead = match meant {
        Some(ip) => format!("the rules lead to {} by now", case.ip_name(&ip)),
        None => "no rule leads there any more".to_owned(),
    };
    let port = service.port.map_or_else(String::new, |port| format!(" --dport {port}"));
    let mut explanation = told(
        format!(
            "A tracked connection on {node} still sends packets for {address} to {to}; {instead}"
        ),
        &[
            format!("on {node}: conntrack -D -p udp --orig-dst {}{port}", service.ip),
            "kube-proxy removes such entries itself; an old one did not for UDP: update it"
                .to_owned(),
        ],
    );
    explanation.evidence.extend(service.entry.iter().map(|entry| format!("on {node}: {entry}")));
    Some(explanation)
}

fn dead(case: &Case<'_>, death: &Death<'_>) -> Option<Explanation> {
    let service = service(case).filter(|s| s.dead)?;
    let to = gone(case, death)?;
    let (address, node) = (service.address(), &service.translator);
    let fix = [
        "kubectl get endpointslices   # does the service still list the address?".to_owned(),
        format!("is kube-proxy on {node} up to date? restart it: it writes its rules anew"),
    ];
    let text = format!("The service address {address} leads to {to}, and no pod has that address");
    // IPv6 gives no reason there.
    let resolved_in_vain = death.dropped("NEIGH_*", "*")
        || death.dropped("*", "neigh_invalidate")
        || case.open_questions(death).next().is_some();
    let mut explanation = if resolved_in_vain { told(text, &fix) } else { likely(text, &fix) };
    explanation.evidence.extend(service.entry.iter().map(|entry| format!("on {node}: {entry}")));
    Some(Explanation { rule: service.entry.clone(), ..explanation })
}

/// The address from which an answer came to the client that called the service, un-translated, and
/// was refused.
fn stranger(case: &Case<'_>, death: &Death<'_>) -> Option<IpAddr> {
    let (src, dst) = (case.topology.src.as_ref()?, case.topology.dst.as_ref()?);
    let from = death.ip()?.src;
    let at_client = death.netns == 0 || death.netns == src.netns_inum;
    (death.direction == Direction::Reply
        && death.dropped("NO_SOCKET", "*")
        && at_client
        && dst.ips.contains(&from))
    .then_some(from)
}

fn bridge_nf_off(case: &Case<'_>, death: &Death<'_>) -> Option<Explanation> {
    let (service, from) = (service(case)?, stranger(case, death)?);
    let name = if from.is_ipv4() {
        "net.bridge.bridge-nf-call-iptables"
    } else {
        "net.bridge.bridge-nf-call-ip6tables"
    };
    let same = case.topology.src.as_ref()?.node == case.topology.dst.as_ref()?.node;
    // Without br_netfilter there is no such parameter.
    let off = node(case, &service.translator)?.sysctl_number(name).unwrap_or(0) == 0;
    (same && off).then(|| {
        let node = &service.translator;
        let mut explanation = told(
            format!(
                "The answer comes from {}, not from the service address {}: on {node} bridged packets \
                 pass no netfilter, so it is not translated back",
                case.ip_name(&from),
                service.address()
            ),
            &[
                format!("on {node}: modprobe br_netfilter; sysctl -w {name}=1"),
                "persist both in /etc/modules-load.d and /etc/sysctl.d".to_owned(),
            ],
        );
        explanation.evidence.push(format!("on {node}: {name} is 0 or absent"));
        explanation
    })
}

fn no_snat(case: &Case<'_>, death: &Death<'_>) -> Option<Explanation> {
    let (service, from) = (service(case)?, stranger(case, death)?);
    let translator = case.after.or(case.before)?.node(&service.translator)?.facts.inum;
    let hops = &death.example?.hops;
    let bypassed =
        hops.iter().all(|h| case.topology.station(h.point.station).netns_inum != translator);
    bypassed.then(|| {
        let node = &service.translator;
        let mut explanation = told(
            format!(
                "The answer comes from {}, not from {}: it bypasses {node}, which translated the request \
                 without taking the place of its source",
                case.ip_name(&from),
                service.address()
            ),
            &[
                format!("on {node}: iptables-save -t nat | grep -E 'KUBE-MARK-MASQ|MASQUERADE|POSTROUTING'"),
                "let the node masquerade what it sends on (kube-proxy does so unless told otherwise)".to_owned(),
            ],
        );
        explanation.evidence.push(format!("the answer was seen nowhere on {node}"));
        explanation
    })
}

/// Where nothing of the flow was seen: the source's node may translate 127.0.0.1 to the destination,
/// and refuse to route what has a loopback address. Code and explanation.
pub(in crate::diagnose) fn localhost(case: &Case<'_>) -> Option<(&'static str, Explanation)> {
    let (src, dst) = (case.topology.src.as_ref()?, case.topology.dst.as_ref()?);
    let space = case.after.or(case.before)?.node(&src.node)?;
    let loopback = IpAddr::from([127, 0, 0, 1]);
    let wanted = Wanted { src: loopback, dst: loopback, proto: None, port: None };
    let all = targets(&space.facts, &wanted);
    let target = all.iter().find(|t| dst.ips.contains(&t.ip))?;
    let device = space.facts.way_to(target.ip).map(|(link, _)| link.name.as_str());
    let routed = [Some("all"), device].into_iter().flatten().any(|device| {
        let value = space.facts.interface_sysctl("ipv4", device, "route_localnet");
        value.is_some_and(|value| value != "0")
    });
    if routed {
        return None;
    }
    let node = &src.node;
    let mut explanation = likely(
        format!(
            "{node} translates packets to 127.0.0.1 into packets to {}, but does not route packets with \
             a loopback address: such a NodePort works only on the node's other addresses",
            dst.name
        ),
        &[
            "use the node's address instead of 127.0.0.1".to_owned(),
            format!("or on {node}: sysctl -w net.ipv4.conf.all.route_localnet=1"),
        ],
    );
    explanation.confidence = Confidence::Possible;
    explanation.evidence = vec![
        format!("on {node}: {}", target.entry),
        format!("on {node}: net.ipv4.conf.all.route_localnet = 0"),
    ];
    explanation.place = Some(Place {
        node: Some(node.clone()),
        netns: Some(space.facts.name.clone()),
        stage: Some("route".to_owned()),
        ..Place::default()
    });
    Some(("service.route-localnet", explanation))
}

fn hairpin(case: &Case<'_>, death: &Death<'_>) -> Option<Explanation> {
    service(case)?;
    let (src, dst) = (case.topology.src.as_ref()?, case.topology.dst.as_ref()?);
    let stations = death.example?.hops.iter().filter(|h| h.point.hook == Hook::Ingress);
    let mut stations = stations.map(|h| case.topology.station(h.point.station));
    let port = stations.find(|s| s.role == Role::Veth)?;
    let sent_back =
        death.example?.hops.iter().any(|h| {
            h.point.hook == Hook::Egress && case.topology.station(h.point.station) == port
        });
    if src.netns_inum != dst.netns_inum || sent_back {
        return None;
    }
    let facts = case.netns_after(port.netns_inum)?;
    let link = facts.link(port.ifindex)?;
    let off = link.bridge_port.as_ref()?.hairpin == Some(false);
    off.then(|| {
        let mut explanation = told(
            format!(
                "{} reaches itself through the service, and the bridge sends nothing back to the port \
                 {} that it came from",
                src.name, port.name
            ),
            &[
                format!("on {}: bridge link set dev {} hairpin on", port.node, port.name),
                "set hairpinMode in the CNI configuration (flannel's cni-conf.json), for new pods"
                    .to_owned(),
            ],
        );
        explanation.evidence.push(format!("on {}: {} hairpin off", port.node, port.name));
        explanation
    })
}
