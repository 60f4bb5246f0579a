//! The services behind which an address is: from the rules of a node back to the addresses that they
//! translate. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::ipvs;
use super::translate::{Target, Wanted, target, targets};
use crate::facts::firewall::{Action, Condition, Match, Table};
use crate::facts::{Address, Link, NetnsFacts, PathFacts, is_link_local};
use crate::model::Alias;

/// Services that one address is looked for behind, at most.
const MAX_SERVICES: usize = 64;
/// Own addresses of a node that a node port is looked for at, at most.
const MAX_OWN: usize = 8;

/// A service address, as rules name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Named {
    /// `None`: every address of the node.
    ip: Option<IpAddr>,
    proto: u8,
    port: u16,
}

/// A service through which packets may come to an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Behind {
    /// Address that packets are sent to.
    pub ip: IpAddr,
    /// Port that they are sent to.
    pub port: u16,
    /// All that they may be translated to.
    pub targets: Vec<Target>,
}

/// What stands for the ends where they reach each other through services, although they are named by
/// their own addresses.
pub(super) fn aliases(facts: &PathFacts, src: IpAddr, dst: IpAddr) -> Vec<Alias> {
    let ways = [(&facts.src.node, src, dst), (&facts.dst.node, dst, src)];
    let mut found: Vec<Alias> = Vec::new();
    for (node, from, to) in ways {
        let Some(node) = facts.node(node) else { continue };
        for service in leading_to(&node.facts, from, to) {
            let real_port = service.targets.iter().find(|t| t.ip == to).and_then(|t| t.port);
            let (ip, port) = (service.ip, Some(service.port));
            let known = found.iter().any(|a| (a.ip, a.port) == (ip, port));
            if !known && ip != src && ip != dst {
                found.push(Alias { ip, port, real: to, real_port, source: false });
            }
        }
    }
    found
}

/// Addresses to which packets for the services of [`aliases`] may be sent instead.
pub(super) fn elsewhere(facts: &PathFacts, src: IpAddr, dst: IpAddr) -> Vec<IpAddr> {
    let ways = [(&facts.src.node, src, dst), (&facts.dst.node, dst, src)];
    let all: BTreeSet<IpAddr> = ways
        .into_iter()
        .filter_map(|(node, from, to)| Some((facts.node(node)?, from, to)))
        .flat_map(|(node, from, to)| leading_to(&node.facts, from, to))
        .flat_map(|service| service.targets)
        .map(|target| target.ip)
        .filter(|ip| *ip != src && *ip != dst)
        .collect();
    all.into_iter().collect()
}

/// The services of a node through which packets from one address may come to another.
pub(super) fn leading_to(facts: &NetnsFacts, from: IpAddr, to: IpAddr) -> Vec<Behind> {
    let mut found = Vec::new();
    for Named { ip, proto, port } in addresses(facts, to) {
        // Nodes are called by the addresses that face other machines.
        let faces = |a: &&Address| facts.link(a.ifindex).is_some_and(|link| !is_inner(link));
        let own = facts.addresses.iter().filter(faces).map(|a| a.net.addr());
        let own = own.filter(|own| {
            own.is_ipv4() == to.is_ipv4() && !own.is_loopback() && !is_link_local(*own)
        });
        let at: Vec<IpAddr> = match ip {
            Some(ip) => vec![ip],
            None => own.take(MAX_OWN).collect(),
        };
        for ip in at {
            let wanted = Wanted { src: from, dst: ip, proto: Some(proto), port: Some(port) };
            // Conditions further up may say otherwise.
            let targets = targets(facts, &wanted);
            if targets.iter().any(|t| t.ip == to) {
                found.push(Behind { ip, port, targets });
            }
        }
    }
    found
}

/// For pods, tunnels and services.
fn is_inner(link: &Link) -> bool {
    link.loopback || link.vxlan.is_some() || link.is_tun() || link.is("bridge") || link.is("dummy")
}

/// The addresses by which rules, or tracked connections, can lead to an address.
fn addresses(facts: &NetnsFacts, to: IpAddr) -> BTreeSet<Named> {
    let mut found = BTreeSet::new();
    for table in &facts.firewall.tables {
        chains_leading_to(table, to, &mut found);
    }
    let balanced = ipvs::services_leading_to(facts, to);
    found.extend(balanced.map(|(ip, proto, port)| Named { ip: Some(ip), proto, port }));
    let entries = facts.conntrack.iter().flat_map(|c| &c.entries);
    let translated = entries.filter(|e| e.destination_translated() && e.reply.src == to);
    found.extend(translated.filter_map(|e| {
        Some(Named { ip: Some(e.original.dst), proto: e.proto, port: e.original.dport? })
    }));
    found.into_iter().take(MAX_SERVICES).collect()
}

/// From the rules that translate to `to`, up through the chains that lead there.
fn chains_leading_to<'a>(table: &'a Table, to: IpAddr, found: &mut BTreeSet<Named>) {
    let rules = || table.chains.iter().flat_map(|c| c.rules.iter().map(move |r| (c, r)));
    let mut reached: BTreeSet<&'a str> = BTreeSet::new();
    let mut next: Vec<&'a str> = Vec::new();
    for (chain, rule) in rules() {
        if leads(&rule.action, to) {
            found.extend(address(rule.conditions.iter()));
            if reached.insert(&chain.name) {
                next.push(&chain.name);
            }
        }
    }
    if next.is_empty() {
        return;
    }
    // Who jumps where; a large rule set is gone through once.
    let mut callers: std::collections::HashMap<&'a str, Vec<(&'a str, Option<Named>)>> =
        std::collections::HashMap::new();
    for (chain, rule) in rules() {
        let mut note = |action: &'a Action, conditions: &[&Condition]| {
            if let Action::Jump(name) | Action::Goto(name) = action {
                let address = address(conditions.iter().copied());
                callers.entry(name).or_default().push((&chain.name, address));
            }
        };
        match &rule.action {
            Action::Choose(choices) => {
                for choice in choices {
                    let all: Vec<&Condition> =
                        rule.conditions.iter().chain(&choice.conditions).collect();
                    note(&choice.action, &all);
                }
            }
            action => note(action, &rule.conditions.iter().collect::<Vec<_>>()),
        }
    }
    while let Some(name) = next.pop() {
        for (caller, address) in callers.get(name).into_iter().flatten() {
            found.extend(*address);
            if reached.insert(caller) {
                next.push(caller);
            }
        }
    }
}

/// Whether an action translates to `to`, or may (a map of backends, of which one is drawn).
fn leads(action: &Action, to: IpAddr) -> bool {
    match action {
        Action::Dnat { to: text } => target(text).is_some_and(|(ip, _)| ip == to),
        Action::Choose(choices) => choices.iter().any(|choice| leads(&choice.action, to)),
        _ => false,
    }
}

/// The service address that conditions ask for, where they ask for one port.
fn address<'a>(conditions: impl Iterator<Item = &'a Condition>) -> Option<Named> {
    let (mut ip, mut proto, mut port) = (None, None, None);
    for condition in conditions.filter(|c| !c.invert) {
        match &condition.what {
            Match::Dst(ranges) => match ranges.as_slice() {
                [one] if one.first == one.last => ip = Some(one.first),
                _ => {}
            },
            Match::Proto(protos) => proto = protos.first().copied(),
            Match::Dport(ranges) => match ranges.as_slice() {
                [one] if one.first == one.last => port = Some(one.first),
                _ => {}
            },
            _ => {}
        }
    }
    Some(Named { ip, proto: proto?, port: port? })
}
