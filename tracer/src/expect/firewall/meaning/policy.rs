//! NetworkPolicies: which denies what to which pod. Pure.
//!
//! kube-router (k3s) has a chain for every pod (KUBE-POD-FW-…) that jumps to one for every policy
//! (KUBE-NWPLCY-…), whose rules name the policy in a comment; what no policy has marked is rejected
//! at the end (pkg/controllers/netpol). Calico's Felix does the same with cali-tw-… (to the
//! workload) and cali-fw-… (from it), cali-pi-… and cali-po-… (felix/rules).

use std::net::IpAddr;

use super::{Meaning, Owner, chain, comments, listed, rule, table};
use crate::expect::firewall::matching::{Holds, holds};
use crate::expect::firewall::{Decision, PacketView, sets};
use crate::facts::NetnsFacts;
use crate::facts::firewall::{Action, AddressRange, Chain, FirewallRule, Match, PortRange, Table};

/// Rules of a policy that are told, at most.
const RULES: usize = 3;
/// Policies that are told in full, at most.
const POLICIES: usize = 3;
/// Chains of policies that are looked at, at most.
const CHAINS: usize = 256;

/// Which side of a packet a policy is about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    /// Who may reach the pod.
    Ingress,
    /// What the pod may reach.
    Egress,
}

/// A policy as its rules have it.
struct Policy {
    /// `default/allow-a`.
    name: String,
    rules: Vec<Allowed>,
}

/// What one rule of a policy lets pass.
struct Allowed {
    /// `pods in KUBE-SRC-5ABC`.
    peer: String,
    /// `tcp/8080`; `None`: everything.
    on: Option<String>,
    /// Why it does not let this packet pass.
    why: Option<String>,
    /// Look-ups that failed or held, and the rule.
    evidence: Vec<String>,
}

pub(super) fn read(
    decision: &Decision,
    packet: &PacketView,
    facts: &NetnsFacts,
) -> Option<Meaning> {
    let (table, own) = (table(decision, facts)?, chain(decision, facts)?);
    let own_rule = rule(decision, facts)?;
    let owner = Owner::named(&table.name, &own.name, &own_rule.text)?;
    let side = match owner {
        Owner::KubeRouter if own.name.starts_with("KUBE-POD-FW-") => side_of(decision, own, packet),
        Owner::Calico if own.name.contains("cali-tw-") => Side::Ingress,
        Owner::Calico if own.name.contains("cali-fw-") => Side::Egress,
        // A policy of Calico's that denies by itself.
        Owner::Calico if own.name.contains("cali-pi-") => Side::Ingress,
        Owner::Calico if own.name.contains("cali-po-") => Side::Egress,
        _ => return None,
    };
    let address = if side == Side::Ingress { packet.dst } else { packet.src };
    let pod = pod_name(&own_rule.text).unwrap_or_else(|| address.to_string());
    let itself = own.name.contains("cali-pi-") || own.name.contains("cali-po-");
    let policies = if itself {
        // What it denies is what it says; the rule is evidence.
        let name = own.rules.iter().find_map(policy_name).unwrap_or_else(|| own.name.clone());
        vec![Policy { name, rules: Vec::new() }]
    } else {
        policies(table, own, &pod, packet, facts, side)
    };
    let summary = if itself {
        format!("NetworkPolicy {} denies {} to {}", policies[0].name, packet.src, packet.dst)
    } else {
        summary(&policies, &pod, packet, side)
    };
    let mut evidence: Vec<String> = Vec::new();
    for line in
        policies.iter().take(POLICIES).flat_map(|p| &p.rules).take(RULES).flat_map(|r| &r.evidence)
    {
        if !evidence.contains(line) {
            evidence.push(line.clone());
        }
    }
    Some(Meaning {
        cause: "policy.denied",
        summary,
        evidence,
        fix: fix(&policies, packet, owner, side),
    })
}

/// kube-router has one chain for both sides; the rule that jumped to it tells.
fn side_of(decision: &Decision, own: &Chain, packet: &PacketView) -> Side {
    let led = decision.via.iter().rev().map(|via| via.rule.as_str());
    for rule in led.take(1) {
        if rule.contains("traffic destined to POD") {
            return Side::Ingress;
        }
        if rule.contains("traffic from POD") {
            return Side::Egress;
        }
    }
    // The chain permits the pod's own node by the pod's address.
    let has = |ip: IpAddr| {
        own.rules.iter().flat_map(|r| &r.conditions).any(|c| match &c.what {
            Match::Dst(ranges) => ranges.iter().any(|r| r.first == ip && r.last == ip),
            _ => false,
        })
    };
    if has(packet.src) && !has(packet.dst) { Side::Egress } else { Side::Ingress }
}

/// `… POD name:b1 namespace: default` → `default/b1`.
fn pod_name(rule: &str) -> Option<String> {
    let said = comments(rule);
    let comment = said.iter().find(|c| c.contains("POD name:"))?;
    let word = |after: &str| {
        let (_, rest) = comment.split_once(after)?;
        rest.split_whitespace().next().map(str::to_owned)
    };
    Some(format!("{}/{}", word("namespace:")?, word("POD name:")?))
}

/// Policy's name in the comment of one of its rules: `… policy name allow-a namespace default`,
/// `Policy default/knp.default.allow-a ingress`.
fn policy_name(rule: &FirewallRule) -> Option<String> {
    let said = comments(&rule.text);
    let of = |comment: &&str| {
        if let Some((_, rest)) = comment.split_once("policy name") {
            let mut words = rest.trim_start_matches(':').split_whitespace();
            let name = words.next()?.trim_end_matches(',');
            let namespace = words.skip_while(|w| !w.starts_with("namespace")).nth(1)?;
            return Some(format!("{namespace}/{name}"));
        }
        let rest = comment.split_once("Policy ")?.1;
        let full = rest.split_whitespace().next()?;
        Some(full.replace("knp.default.", ""))
    };
    said.iter().find_map(of)
}

/// The policies that the pod's chain asks, each once.
fn policies(
    table: &Table,
    own: &Chain,
    pod: &str,
    packet: &PacketView,
    facts: &NetnsFacts,
    side: Side,
) -> Vec<Policy> {
    let mut found: Vec<Policy> = Vec::new();
    let mut chains: Vec<(&Chain, Option<String>)> = Vec::new();
    let mut todo = vec![own];
    while let Some(chain) = todo.pop() {
        for rule in &chain.rules {
            let Action::Jump(name) = &rule.action else { continue };
            let Some(target) = table.chain(name) else { continue };
            let known = chains.iter().any(|(c, _)| c.name == *name);
            if known || chains.len() >= CHAINS {
                continue;
            }
            // Groups of policies (cali-gi-, cali-go-) hold jumps again.
            if name.contains("cali-gi-") || name.contains("cali-go-") {
                todo.push(target);
            } else if ["KUBE-NWPLCY-", "cali-pi-", "cali-po-"].iter().any(|p| name.contains(p))
                && name != "KUBE-NWPLCY-DEFAULT"
            {
                chains.push((target, run_through(rule, pod)));
            }
        }
    }
    for (chain, said) in chains {
        let name = chain.rules.iter().find_map(policy_name).or(said);
        let name = name.unwrap_or_else(|| chain.name.clone());
        let mut rules: Vec<Allowed> = Vec::new();
        for rule in chain.rules.iter().filter(|r| lets_pass(&r.action)) {
            let allowed = allowed(rule, packet, facts, side);
            // kube-router marks with one rule and returns with the next.
            if !rules.iter().any(|r| r.peer == allowed.peer && r.on == allowed.on) {
                rules.push(allowed);
            }
        }
        match found.iter_mut().find(|p| p.name == name) {
            Some(policy) => policy.rules.extend(rules),
            None => found.push(Policy { name, rules }),
        }
    }
    found
}

/// `run through nw policy allow-a`: the policy is of the pod's namespace.
fn run_through(rule: &FirewallRule, pod: &str) -> Option<String> {
    let said = comments(&rule.text);
    let name = said.iter().find_map(|c| c.strip_prefix("run through nw policy "))?;
    Some(match pod.split_once('/') {
        Some((namespace, _)) => format!("{namespace}/{name}"),
        None => name.to_owned(),
    })
}

/// Marks the packet as allowed, or accepts it.
fn lets_pass(action: &Action) -> bool {
    matches!(action, Action::Accept | Action::SetMark { .. })
}

fn allowed(rule: &FirewallRule, packet: &PacketView, facts: &NetnsFacts, side: Side) -> Allowed {
    let ingress = side == Side::Ingress;
    let (mut peer, mut protos, mut ports) = (None, None, None);
    let (mut why, mut evidence) = (None, Vec::new());
    for condition in rule.conditions.iter().filter(|c| !c.invert) {
        let fails = holds(condition, packet, facts) == Holds::Never;
        match &condition.what {
            Match::IpSet { name, from_src } => {
                let words = sets::words(facts, name, from_src, packet);
                // The set of the peers, rather than that of the policy's own pods.
                if from_src.first() == Some(&ingress) {
                    peer = Some(format!("pods in {name}"));
                    let who = if ingress { packet.src } else { packet.dst };
                    why = why.or_else(|| fails.then(|| format!("{who} is not among them")));
                } else if fails {
                    why = why.or_else(|| Some(words.clone()));
                }
                evidence.push(words);
            }
            Match::Src(ranges) if ingress => {
                peer = Some(networks(ranges));
                why = why.or_else(|| fails.then(|| format!("{} is not among them", packet.src)));
            }
            Match::Dst(ranges) if !ingress => {
                peer = Some(networks(ranges));
                why = why.or_else(|| fails.then(|| format!("{} is not among them", packet.dst)));
            }
            Match::Proto(list) => protos = Some((list.clone(), fails)),
            Match::Dport(list) => ports = Some((list.clone(), fails)),
            _ => {}
        }
    }
    let wrong = protos.as_ref().is_some_and(|p| p.1) || ports.as_ref().is_some_and(|p| p.1);
    why = why.or_else(|| wrong.then(|| format!("this is {}", flow(packet))));
    if evidence.is_empty() {
        evidence.push(rule.text.clone());
    }
    Allowed {
        peer: peer.unwrap_or_else(|| "everybody".to_owned()),
        on: on(protos.map(|p| p.0), ports.map(|p| p.0)),
        why,
        evidence,
    }
}

fn networks(ranges: &[AddressRange]) -> String {
    let shown: Vec<String> = ranges
        .iter()
        .map(|r| {
            if r.first == r.last { r.first.to_string() } else { format!("{}-{}", r.first, r.last) }
        })
        .collect();
    listed(&shown)
}

/// `tcp/8080`
fn on(protos: Option<Vec<u8>>, ports: Option<Vec<PortRange>>) -> Option<String> {
    let protos: Vec<String> = protos?.iter().map(|p| sets::protocol(*p)).collect();
    let protos = protos.join(",");
    let Some(ports) = ports else { return Some(protos) };
    let ports: Vec<String> = ports
        .iter()
        .map(|r| {
            if r.first == r.last { r.first.to_string() } else { format!("{}-{}", r.first, r.last) }
        })
        .collect();
    Some(format!("{protos}/{}", ports.join(",")))
}

/// `tcp/8080`, `icmp`.
fn flow(packet: &PacketView) -> String {
    let proto = sets::protocol(packet.proto);
    packet.dport.map_or_else(|| proto.clone(), |port| format!("{proto}/{port}"))
}

fn summary(policies: &[Policy], pod: &str, packet: &PacketView, side: Side) -> String {
    let named: Vec<String> = policies.iter().map(|p| p.name.clone()).collect();
    match policies {
        [] => match side {
            Side::Ingress => format!("NetworkPolicies let nothing reach {pod}"),
            Side::Egress => format!("NetworkPolicies let {pod} reach nothing"),
        },
        [one] => format!("NetworkPolicy {} {}", one.name, lets(one, pod, side)),
        many => {
            let flow = flow(packet);
            let none = match side {
                Side::Ingress => format!("lets {} reach {pod} on {flow}", packet.src),
                Side::Egress => format!("lets {pod} reach {} on {flow}", packet.dst),
            };
            let told: Vec<String> = many
                .iter()
                .take(POLICIES)
                .map(|p| format!("{} {}", p.name, lets(p, pod, side)))
                .collect();
            format!("None of the NetworkPolicies {} {none}: {}", listed(&named), told.join("; "))
        }
    }
}

/// `lets only pods in KUBE-SRC-5ABC reach default/b1 on tcp/8080; 10.61.4.11 is not among them`
fn lets(policy: &Policy, pod: &str, side: Side) -> String {
    if policy.rules.is_empty() {
        return match side {
            Side::Ingress => format!("lets nothing reach {pod}"),
            Side::Egress => format!("lets {pod} reach nothing"),
        };
    }
    let told: Vec<String> = policy
        .rules
        .iter()
        .take(RULES)
        .map(|rule| {
            let on = rule.on.as_ref().map_or_else(String::new, |on| format!(" on {on}"));
            match side {
                Side::Ingress => format!("{} reach {pod}{on}", rule.peer),
                Side::Egress => format!("{pod} reach {}{on}", rule.peer),
            }
        })
        .collect();
    let more = policy.rules.len().saturating_sub(RULES);
    let more = if more > 0 { format!(" (and {more} more rules)") } else { String::new() };
    let mut whys: Vec<&str> = policy.rules.iter().filter_map(|r| r.why.as_deref()).collect();
    whys.dedup();
    let whys = if whys.is_empty() {
        String::new()
    } else {
        format!("; {}", whys[..whys.len().min(RULES)].join(", "))
    };
    format!("lets only {}{more}{whys}", told.join(", "))
}

fn fix(policies: &[Policy], packet: &PacketView, owner: Owner, side: Side) -> Vec<String> {
    let (peer, way) = match side {
        Side::Ingress => (packet.src, "ingress"),
        Side::Egress => (packet.dst, "egress"),
    };
    let mut steps: Vec<String> = policies
        .iter()
        .take(POLICIES)
        .filter_map(|policy| policy.name.split_once('/'))
        .map(|(namespace, name)| {
            format!(
                "kubectl -n {namespace} get networkpolicy {name} -o yaml   # what {way} it allows: selectors, ports"
            )
        })
        .collect();
    if steps.is_empty() {
        steps.push("kubectl get networkpolicy -A   # which of them select the pod?".to_owned());
    }
    steps.push(format!(
        "kubectl get pods -A -o wide --show-labels | grep -w {peer}   # has it the labels that the policy selects?"
    ));
    steps.push(format!(
        "# where it should pass: add a rule to the policy, or the labels to the pod; {} writes the chains anew",
        owner.name()
    ));
    steps
}
