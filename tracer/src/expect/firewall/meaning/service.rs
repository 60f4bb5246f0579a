//! Services that lead nowhere, as kube-proxy refuses them. Pure.
//!
//! iptables: rules of table filter with the service in a comment (pkg/proxy/iptables/proxier.go).
//! nftables: elements of the maps no-endpoint-services and no-endpoint-nodeports, and the chain
//! cluster-ips-check (pkg/proxy/nftables/proxier.go).

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::{Meaning, comments};
use crate::expect::firewall::matching::{ICMP, ICMPV6};
use crate::expect::firewall::sets::protocol;
use crate::expect::firewall::{Decision, Element, PacketView, Verdict};
use crate::expect::ipvs;
use crate::facts::NetnsFacts;
use crate::facts::firewall::{Action, Condition, FirewallRule, Match};

const NO_ENDPOINTS: &str = " has no endpoints";
const NO_LOCAL_ENDPOINTS: &str = " has no local endpoints";

/// A port of a service address, as rules have it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServicePort {
    /// Layer-4 protocol number.
    pub proto: u8,
    /// Port.
    pub port: u16,
    /// `namespace/name` of the service, where a rule says so.
    pub service: Option<String>,
}

pub(super) fn read(
    decision: &Decision,
    packet: &PacketView,
    facts: &NetnsFacts,
) -> Option<Meaning> {
    let rule = decision.rule.as_ref()?;
    let said = comments(&rule.text);
    let about = |words: &str| said.iter().find_map(|comment| comment.strip_suffix(words));
    if let Some(service) = about(NO_LOCAL_ENDPOINTS) {
        return Some(no_local_endpoint(service));
    }
    if let Some(service) = about(NO_ENDPOINTS) {
        return Some(no_endpoints(service));
    }
    if let Some(element) = refused_element(decision) {
        let service = element.comment.as_deref().unwrap_or("the service");
        let drops = matches!(decision.verdict, Verdict::Drop);
        return Some(if drops { no_local_endpoint(service) } else { no_endpoints(service) });
    }
    if decision.chain == "KUBE-IPVS-FILTER" {
        // What is for none of the ports of an address that kube-ipvs0 has (pkg/proxy/ipvs).
        return Some(wrong_port(packet, &service_ports(facts, packet.dst)));
    }
    if decision.chain != "cluster-ips-check" && !said.iter().any(|c| c.contains("ClusterIPs")) {
        return None;
    }
    match decision.verdict {
        Verdict::Reject(_) => {
            let ports = service_ports(facts, packet.dst);
            // A packet to a port that the service has is translated before it comes here.
            let known = |p: &ServicePort| Some(p.port) == packet.dport && p.proto == packet.proto;
            (!ports.iter().any(known)).then(|| wrong_port(packet, &ports))
        }
        _ => Some(not_found(packet.dst)),
    }
}

/// The element of kube-proxy's maps of services without endpoints that led here.
fn refused_element(decision: &Decision) -> Option<&Element> {
    let own = decision.rule.as_ref().map(|r| (r.text.as_str(), decision.element.as_ref()));
    let led = decision.via.iter().rev().map(|via| (via.rule.as_str(), via.element.as_ref()));
    led.chain(own).find(|(rule, _)| rule.contains("@no-endpoint-")).and_then(|(_, e)| e)
}

/// `shop/web:http` → `shop/web`.
fn name_of(service_port: &str) -> &str {
    service_port.split(':').next().unwrap_or(service_port)
}

/// `kubectl -n shop get endpointslices -l kubernetes.io/service-name=web`
fn slices(service_port: &str) -> String {
    match name_of(service_port).split_once('/') {
        Some((namespace, name)) => format!(
            "kubectl -n {namespace} get endpointslices -l kubernetes.io/service-name={name} -o wide"
        ),
        None => "kubectl get endpointslices -A".to_owned(),
    }
}

fn titled(service_port: &str) -> String {
    let name = name_of(service_port);
    if name.contains('/') { format!("Service {name}") } else { "The service".to_owned() }
}

fn no_endpoints(service: &str) -> Meaning {
    Meaning {
        cause: "service.no-endpoints",
        summary: format!("{} has no pod that is ready (no endpoints)", titled(service)),
        evidence: Vec::new(),
        fix: vec![
            format!("{}   # is any pod ready?", slices(service)),
            "compare the service's selector with the pods' labels, and look at their readiness"
                .to_owned(),
        ],
    }
}

fn no_local_endpoint(service: &str) -> Meaning {
    Meaning {
        cause: "service.no-local-endpoint",
        summary: format!(
            "{} takes traffic here only for pods on this node, and none of its pods is here",
            titled(service)
        ),
        evidence: Vec::new(),
        fix: vec![
            format!("{}   # send to a node that has a pod of the service", slices(service)),
            "or set externalTrafficPolicy (internalTrafficPolicy for a ClusterIP) to Cluster"
                .to_owned(),
        ],
    }
}

/// What it means that a packet goes to a service address, but to none of its ports.
pub fn wrong_port(packet: &PacketView, ports: &[ServicePort]) -> Meaning {
    let service = ports.iter().find_map(|p| p.service.as_deref());
    let title = service.map_or_else(
        || format!("The service with the address {}", packet.dst),
        |name| format!("Service {name}"),
    );
    let shown: Vec<String> = ports
        .iter()
        .map(|p| match p.proto == packet.proto {
            true => p.port.to_string(),
            false => format!("{}/{}", p.port, protocol(p.proto)),
        })
        .collect();
    let has = match shown.as_slice() {
        [] => "has no such port".to_owned(),
        [one] => format!("has port {one}"),
        _ => format!("has ports {}", super::listed(&shown)),
    };
    let not = match packet.dport {
        Some(port) => format!(", not {port}"),
        None => format!(", and nothing for {}", protocol(packet.proto)),
    };
    let look = match service.and_then(|name| name.split_once('/')) {
        Some((namespace, name)) => format!("kubectl -n {namespace} get service {name}"),
        None => format!("kubectl get service -A | grep -w {}", packet.dst),
    };
    let ping = matches!(packet.proto, ICMP | ICMPV6);
    let summary = if ping {
        format!("{title} answers no pings: only its ports are translated, and it {has}")
    } else {
        format!("{title} {has}{not}")
    };
    Meaning {
        cause: "service.no-port",
        summary,
        evidence: Vec::new(),
        fix: vec![
            format!("send to a port that the service has: {look}"),
            "or add the port to the service (spec.ports)".to_owned(),
        ],
    }
}

/// What it means that the rules of a node do not translate a packet to a service address.
pub fn untranslated(packet: &PacketView, facts: &NetnsFacts, node: &str) -> Meaning {
    let port = packet.dport.unwrap_or_default();
    let found = ipvs::service(facts, packet.dst, packet.proto, port);
    if let Some(found) = found.filter(|s| ipvs::servers(s).next().is_none()) {
        let evidence = vec![format!("ipvs {found} has no real server that takes connections")];
        return Meaning { evidence, ..no_endpoints("the service") };
    }
    let ports = service_ports(facts, packet.dst);
    let known = |p: &ServicePort| Some(p.port) == packet.dport && p.proto == packet.proto;
    if !ports.is_empty() && !ports.iter().any(known) {
        return wrong_port(packet, &ports);
    }
    let ip = packet.dst;
    Meaning {
        cause: "service.no-rules",
        summary: format!("No rule on {node} translates {ip}, and no pod or node has that address"),
        evidence: Vec::new(),
        fix: vec![
            format!("iptables-save -t nat | grep {ip}; nft list ruleset | grep {ip}"),
            format!("is kube-proxy running on {node}? restart it: it writes its rules anew"),
            "kubectl get service -A   # is it an address of a service, and this its port?"
                .to_owned(),
        ],
    }
}

/// No service has the address.
fn not_found(ip: IpAddr) -> Meaning {
    Meaning {
        cause: "service.not-found",
        summary: format!("No service has the address {ip}, which is of the services' network"),
        evidence: Vec::new(),
        fix: vec![
            format!("kubectl get service -A | grep -w {ip}   # is it an address of a service?"),
            "send to the service's name, or to the address that it has now".to_owned(),
        ],
    }
}

/// The ports that rules know of a service address: those that they translate, and those without
/// endpoints.
pub fn service_ports(facts: &NetnsFacts, ip: IpAddr) -> Vec<ServicePort> {
    let mut found = BTreeSet::new();
    let rules = facts.firewall.tables.iter().flat_map(|t| &t.chains).flat_map(|c| &c.rules);
    for rule in rules {
        if let Action::Choose(choices) = &rule.action {
            for choice in choices {
                let target = match &choice.action {
                    Action::Goto(chain) | Action::Jump(chain) => service_of_chain(chain),
                    _ => None,
                };
                let name = || choice.comment.as_deref().map(|c| name_of(c).to_owned());
                let all = rule.conditions.iter().chain(&choice.conditions);
                port_of(all, ip, target.or_else(name), &mut found);
            }
        }
        let leads = matches!(rule.action, Action::Jump(_) | Action::Goto(_) | Action::Dnat { .. });
        let refused = || comments(&rule.text).iter().any(|c| c.ends_with("endpoints"));
        if leads || refused() {
            port_of(rule.conditions.iter(), ip, service_of_rule(rule), &mut found);
        }
    }
    found.extend(ipvs::services_at(facts, ip).map(|(proto, port, _)| ServicePort {
        proto,
        port,
        service: None,
    }));
    // Of the same port once, with a name if there is one.
    let named: BTreeSet<(u8, u16)> =
        found.iter().filter(|p| p.service.is_some()).map(|p| (p.proto, p.port)).collect();
    let known = |p: &ServicePort| p.service.is_some() || !named.contains(&(p.proto, p.port));
    found.into_iter().filter(known).collect()
}

/// Adds the ports of conditions that are about this one address.
fn port_of<'a>(
    conditions: impl Iterator<Item = &'a Condition> + Clone,
    ip: IpAddr,
    service: Option<String>,
    to: &mut BTreeSet<ServicePort>,
) {
    let wanted = || conditions.clone().filter(|c| !c.invert).map(|c| &c.what);
    let is_for = wanted().any(|what| match what {
        Match::Dst(ranges) => ranges.iter().any(|r| r.first == ip && r.last == ip),
        _ => false,
    });
    let protos = wanted().find_map(|what| match what {
        Match::Proto(protos) => Some(protos),
        _ => None,
    });
    let ports = wanted().find_map(|what| match what {
        Match::Dport(ports) => Some(ports),
        _ => None,
    });
    let (true, Some(protos), Some(ports)) = (is_for, protos, ports) else { return };
    for proto in protos {
        let single = ports.iter().filter(|r| r.first == r.last);
        to.extend(single.map(|range| ServicePort {
            proto: *proto,
            port: range.first,
            service: service.clone(),
        }));
    }
}

/// `service-KHN6ECMT-shop/web/tcp/http` → `shop/web`.
fn service_of_chain(chain: &str) -> Option<String> {
    let rest = chain.strip_prefix("service-").or_else(|| chain.strip_prefix("external-"))?;
    let (_, path) = rest.split_once('-')?;
    let mut parts = path.split('/');
    Some(format!("{}/{}", parts.next()?, parts.next()?))
}

/// From kube-proxy's comments: `shop/web:http cluster IP`, `shop/web has no endpoints`.
fn service_of_rule(rule: &FirewallRule) -> Option<String> {
    let said = comments(&rule.text);
    let of = |comment: &&str| {
        let first = comment.split_whitespace().next()?;
        let (namespace, name) = name_of(first).split_once('/')?;
        (!namespace.is_empty() && !name.is_empty()).then(|| format!("{namespace}/{name}"))
    };
    said.iter().find_map(of)
}
