//! Names for addresses: `A.a.ip`, `A.cni0.mac`, `wire.u1.mac`. Pure.

use std::collections::HashMap;
use std::hash::Hash;

use super::roles::Classified;
use crate::facts::PathFacts;
use crate::model::{Mac, Names, Role};

/// Names every address of the namespaces on the path, and of the other pods. Where two places have
/// the same address, the one that says more gets the name.
pub(super) fn names(facts: &PathFacts, classified: &[Classified<'_>]) -> Names {
    let mut names = Names::default();
    let mut ranked: Vec<_> = classified.iter().collect();
    ranked.sort_by_key(|c| rank(c.role));
    let (stations, others) = ranked.split_at(ranked.partition_point(|c| c.role != Role::Other));
    name_links(&mut names, stations);
    name_pods(&mut names, facts);
    name_links(&mut names, others);
    if let Some(service) = &facts.dst.service {
        put(&mut names.ip, service.ip, || "service.ip".to_owned());
    }
    names
}

/// What says more comes first: a bridge often has the hardware address of one of its ports.
fn rank(role: Role) -> u8 {
    match role {
        Role::Pod => 0,
        Role::Bridge => 1,
        Role::Vxlan => 2,
        Role::Tun => 3,
        Role::Physical => 4,
        Role::Veth => 5,
        Role::Wire => 6,
        Role::Other => 7,
    }
}

fn name_links(names: &mut Names, links: &[&Classified<'_>]) {
    for c in links {
        let base = match (&c.space.pod, c.role) {
            (Some(pod), Role::Pod) => format!("{}.{pod}", c.space.node),
            (Some(pod), _) => format!("{}.{pod}.{}", c.space.node, c.link.name),
            (None, _) => format!("{}.{}", c.space.node, c.link.name),
        };
        for net in c.space.facts.addresses_of(c.link.index) {
            put(&mut names.ip, net.addr(), || format!("{base}.ip"));
        }
        // All zero is no address (a TUN, or a device not set up yet).
        if let Some(mac) = c.link.mac.filter(|mac| *mac != Mac::default()) {
            put(&mut names.mac, mac, || format!("{base}.mac"));
        }
    }
}

/// Pods that are known but not traced, with the hardware addresses that their node has for them.
/// The ends are among the first to be named by their interface; here they are named even when that
/// lost the address.
fn name_pods(names: &mut Names, facts: &PathFacts) {
    for end in [&facts.src, &facts.dst] {
        if end.pod.is_some() {
            for ip in &end.ips {
                put(&mut names.ip, *ip, || format!("{}.ip", end.name));
            }
        }
    }
    for pod in &facts.pods {
        let base = format!("{}.{}", pod.node, pod.pod);
        for ip in &pod.ips {
            put(&mut names.ip, *ip, || format!("{base}.ip"));
            let neighbors = facts.node(&pod.node).into_iter().flat_map(|n| &n.facts.neighbors);
            for mac in neighbors.filter(|n| n.ip == *ip).filter_map(|n| n.mac) {
                put(&mut names.mac, mac, || format!("{base}.mac"));
            }
        }
    }
}

fn put<K: Eq + Hash>(map: &mut HashMap<K, String>, key: K, name: impl FnOnce() -> String) {
    map.entry(key).or_insert_with(name);
}
