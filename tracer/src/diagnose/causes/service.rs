//! `service.`: what a service address leads to. Asked before all others: where packets are sent by
//! translation explains what the tables say about the way there.

use std::net::IpAddr;

use super::netfilter::understood;
use super::{Cause, Explanation, likely, told};
use crate::diagnose::Case;
use crate::diagnose::death::Death;
use crate::expect::firewall::{
    Decision, Holds, Meaning, PacketView, evaluate, meaning, service_ports, wrong_port,
};
use crate::expect::ipvs;
use crate::expect::translate::{Wanted, targets};
use crate::facts::NetnsFacts;
use crate::facts::firewall::{CtState, NfHook};
use crate::model::{Direction, Hook, L4, Leads, Role, Service};
use crate::report::{Confidence, Place};

pub(super) const CAUSES: &[Cause] = &[
    Cause {
        code: "service.no-local-endpoint",
        recognise: |case, death| refusal(case, death, "service.no-local-endpoint"),
    },
    Cause {
        code: "service.no-endpoints",
        recognise: |case, death| {
            refusal(case, death, "service.no-endpoints").or_else(|| without_servers(case, death))
        },
    },
    Cause { code: "service.no-port", recognise: no_port },
    Cause {
        code: "service.not-found",
        recognise: |case, death| refusal(case, death, "service.not-found"),
    },
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

/// Why kube-proxy refused the packets, if this is why: what dropped them says so, or what would have.
fn refusal(case: &Case<'_>, death: &Death<'_>, code: &str) -> Option<Explanation> {
    let seen = death.dropped("NETFILTER_DROP", "*");
    let (decision, meaning) = if seen {
        understood(case, death)?
    } else {
        // It may have died before it came to the rule: without translation there may be no route.
        refuses(node(case, &service(case)?.translator)?, service(case)?, death)?
    };
    (meaning.cause == code).then(|| {
        let place = case.where_words(death);
        let rule = decision.describe();
        let mut explanation =
            told(format!("{} ({place}: {rule})", meaning.summary), meaning.fix.as_slice());
        explanation.evidence = meaning.evidence;
        with_rule(explanation, rule)
    })
}

/// What the node's filters would do with the first packet to a service that nothing translates.
fn refuses(
    facts: &NetnsFacts,
    service: &Service,
    death: &Death<'_>,
) -> Option<(Decision, Meaning)> {
    if service.leads != Leads::Nowhere || !untranslated(service, death) {
        return None;
    }
    let ip = death.ip()?;
    let packet = PacketView {
        dport: service.port,
        ct: Some(vec![CtState::New]),
        mark: Some(0),
        ..PacketView::new(ip.src, service.ip, ip.proto)
    };
    [NfHook::Forward, NfHook::Input].into_iter().find_map(|hook| {
        let evaluation = evaluate(facts, packet.tables(), hook, &packet);
        let decision = evaluation.enders().find(|d| d.holds == Holds::Always)?.clone();
        let meaning = meaning(&decision, &packet, facts)?;
        Some((decision, meaning))
    })
}

fn with_rule(explanation: Explanation, rule: String) -> Explanation {
    Explanation { rule: Some(rule), ..explanation }
}

/// The virtual service of IPVS that packets died at for want of a real server (`ip_vs_leave`,
/// net/netfilter/ipvs/ip_vs_core.c).
fn without_servers(case: &Case<'_>, death: &Death<'_>) -> Option<Explanation> {
    let service = service(case).filter(|s| untranslated(s, death))?;
    let found = ipvs::of(node(case, &service.translator)?, service)?;
    let none = ipvs::servers(found).next().is_none();
    none.then(|| {
        let rule = format!("ipvs {found} has no real server that takes connections");
        let text = format!("The service has no pod that is ready: {rule}");
        let fix = [
            "kubectl get endpointslices   # is any pod ready?".to_owned(),
            "compare the service's selector with the pods' labels, and look at their readiness"
                .to_owned(),
        ];
        with_rule(told(text, &fix), rule)
    })
}

/// The port is none of the service's, in a mode in which no rule says so.
fn no_port(case: &Case<'_>, death: &Death<'_>) -> Option<Explanation> {
    if let Some(explanation) = refusal(case, death, "service.no-port") {
        return Some(explanation);
    }
    let service = service(case).filter(|s| s.leads == Leads::Nowhere)?;
    let facts = node(case, &service.translator)?;
    // In IPVS mode a rule refuses at INPUT what is for none of the ports (KUBE-IPVS-FILTER).
    let balanced = ipvs::services_at(facts, service.ip).next().is_some();
    if !untranslated(service, death) || death.dropped("NETFILTER_DROP", "*") && !balanced {
        return None;
    }
    let ports = service_ports(facts, service.ip);
    let ip = death.ip()?;
    let ping = matches!(ip.l4, L4::Icmp { .. });
    // One that is there is not the wrong one.
    let known = |port| ports.iter().any(|p| (p.proto, p.port) == (ip.proto, port));
    if ports.is_empty() || service.port.map_or(!ping, known) {
        return None;
    }
    let packet =
        PacketView { dport: service.port, ..PacketView::new(ip.src, service.ip, ip.proto) };
    let meaning = wrong_port(&packet, &ports);
    Some(told(meaning.summary, &meaning.fix))
}

fn no_rules(case: &Case<'_>, death: &Death<'_>) -> Option<Explanation> {
    let service = service(case).filter(|s| s.leads == Leads::Nowhere)?;
    if !untranslated(service, death) || death.dropped("NETFILTER_DROP", "*") {
        return None;
    }
    let (address, node_name) = (service.address(), &service.translator);
    let facts = node(case, node_name)?;
    if ipvs::of(facts, service).is_some() {
        // IPVS has it, and does not translate it, or only what carries a mark.
        return None;
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
