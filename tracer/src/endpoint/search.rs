//! Finds namespaces by the addresses in them, and the node behind a pod's namespace.

use std::collections::HashSet;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::ifaddrs::getifaddrs;

use super::{EndpointError, NodeHandle, Resolved, label};
use crate::facts::{self, NetnsFacts, is_link_local};
use crate::inventory::{Inventory, Node, Place, Pod};
use crate::model::End;
use crate::netns::{NETNS_DIR, Netns};

/// Every network namespace of this machine that can be seen, each once: those with a name first,
/// then those that only a process holds.
fn all() -> Vec<Netns> {
    let mut seen = HashSet::new();
    let mut found = Vec::new();
    let mut add = |name: &str| {
        if let Ok(netns) = Netns::open(name)
            && seen.insert(netns.inum())
        {
            found.push(netns);
        }
    };
    for name in entries(Path::new(NETNS_DIR)) {
        add(&name);
    }
    let mut visited = HashSet::new();
    for pid in entries(Path::new("/proc")).filter(|e| e.bytes().all(|b| b.is_ascii_digit())) {
        let path = format!("/proc/{pid}/ns/net");
        // Most processes share a namespace: look before opening. Processes come and go, and
        // others' may not be looked at.
        if std::fs::metadata(&path).is_ok_and(|m| visited.insert(m.ino())) {
            add(&path);
        }
    }
    found
}

fn entries(dir: &Path) -> impl Iterator<Item = String> {
    let mut names: Vec<_> = std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    // By number where they are numbers: the oldest process names a namespace best.
    names.sort_by_key(|name| (name.parse::<u32>().unwrap_or(u32::MAX), name.clone()));
    names.into_iter()
}

/// Addresses of a namespace that are not bound to one link or to the host, IPv4 first.
pub(super) fn addresses(netns: &Netns) -> io::Result<Vec<IpAddr>> {
    let mut ips = every_address(netns)?;
    ips.retain(|ip| !is_link_local(*ip) && !ip.is_loopback());
    ips.sort_by_key(IpAddr::is_ipv6);
    Ok(ips)
}

fn every_address(netns: &Netns) -> io::Result<Vec<IpAddr>> {
    netns.run(|| -> io::Result<Vec<IpAddr>> {
        let ips = getifaddrs()?.filter_map(|interface| {
            let storage = interface.address?;
            let v4 = storage.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
            v4.or_else(|| storage.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
        });
        Ok(ips.collect())
    })?
}

/// The namespaces that have `ip`, among all that can be seen.
fn holders(ip: IpAddr, all: &[Netns]) -> Result<Vec<&Netns>, EndpointError> {
    let mut found = Vec::new();
    let mut failed = None;
    for netns in all {
        match every_address(netns) {
            Ok(ips) if ips.contains(&ip) => found.push(netns),
            Ok(_) => {}
            Err(e) => failed = Some(e),
        }
    }
    match failed {
        // It may be in one of those that could not be looked into.
        Some(source) if found.is_empty() => Err(EndpointError::Search { ip, source }),
        _ => Ok(found),
    }
}

/// The namespace that has `ip`, on the other end of a pair with `node`.
pub(super) fn pod_of_node(ip: IpAddr, node: &Netns) -> Result<Netns, EndpointError> {
    let all = all();
    let candidates = holders(ip, &all)?;
    let leads_there = |netns: &&Netns| {
        let known = std::slice::from_ref(node);
        facts::snapshot_among(netns, known).is_ok_and(|f| node_behind(&f, ip) == Some(node.inum()))
    };
    match candidates.as_slice() {
        [] => Err(EndpointError::Address(ip)),
        [one] => Ok(Netns::clone(one)),
        several => match several.iter().copied().filter(leads_there).collect::<Vec<_>>()[..] {
            [one] => Ok(one.clone()),
            _ => Err(ambiguous(ip, several)),
        },
    }
}

fn ambiguous(ip: IpAddr, namespaces: &[&Netns]) -> EndpointError {
    let names: Vec<_> = namespaces.iter().map(|n| n.name()).collect();
    EndpointError::AddressAmbiguous { ip, namespaces: names.join(", ") }
}

/// Inode of the namespace at the other end of the pair that carries `ip`.
fn node_behind(facts: &NetnsFacts, ip: IpAddr) -> Option<u32> {
    let (inum, _) = facts.peer(facts.holder(ip)?)?;
    Some(inum).filter(|inum| *inum != facts.inum)
}

/// Finds an address that no pod of the inventory has.
pub(super) fn by_address(
    ip: IpAddr,
    inventory: Option<&Inventory>,
) -> Result<Resolved, EndpointError> {
    let all = all();
    let mut found = holders(ip, &all)?;
    if let (true, Some(inventory)) = (found.len() > 1, inventory) {
        // Who names namespaces means those.
        let known: HashSet<u32> = facts::namespaces_of(inventory).map(|n| n.inum()).collect();
        if found.iter().any(|n| known.contains(&n.inum())) {
            found.retain(|n| known.contains(&n.inum()));
        }
    }
    let netns = match found.as_slice() {
        [] => return Err(EndpointError::Address(ip)),
        [one] => *one,
        several => return Err(ambiguous(ip, several)),
    };
    let search = |source| EndpointError::Search { ip, source };
    let home = Netns::current().map_err(search)?;
    let handle = |netns: &Netns| NodeHandle {
        name: node_name(netns, inventory, &home),
        netns: netns.clone(),
    };
    let facts = facts::snapshot_among(netns, &all).map_err(search)?;
    let link = facts.holder(ip);
    // A tunnel device makes a namespace a node's, even where its way out is a pair (a lab's wire).
    let is_node = netns.inum() == home.inum()
        || in_inventory(netns, inventory).is_some()
        || facts.links.iter().any(|l| l.vxlan.is_some());
    let node = match link.filter(|l| l.is_pair() && !is_node) {
        // Hardware, a bridge or a tunnel has it: that is a node's own address.
        None => handle(netns),
        Some(link) => {
            let behind = node_behind(&facts, ip)
                .and_then(|inum| all.iter().find(|n| n.inum() == inum))
                .ok_or_else(|| EndpointError::NoNode {
                    ip,
                    netns: netns.name().to_owned(),
                    interface: link.name.clone(),
                })?;
            handle(behind)
        }
    };
    // The inventory may know the pod without knowing this address of it.
    let pod = inventory.and_then(|i| pod_in_inventory(netns, i));
    Ok(Resolved {
        end: End {
            name: pod.map_or_else(|| ip.to_string(), |(node, pod)| label(node, pod)),
            node: node.name.clone(),
            pod: pod.map(|(_, pod)| pod.name.clone()),
            ips: vec![ip],
            netns_inum: netns.inum(),
            service: None,
        },
        pod_netns: netns.clone(),
        node,
        translator: None,
    })
}

fn pod_in_inventory<'a>(netns: &Netns, inventory: &'a Inventory) -> Option<(&'a Node, &'a Pod)> {
    inventory.pods().find(|(_, pod)| {
        let own = pod.netns.as_ref().and_then(|name| Netns::open(name).ok());
        own.is_some_and(|own| own.inum() == netns.inum())
    })
}

/// The inventory's name for a node's namespace.
fn in_inventory<'a>(netns: &Netns, inventory: Option<&'a Inventory>) -> Option<&'a str> {
    inventory?.nodes.iter().find_map(|node| match &node.place {
        Place::Netns(name) => {
            let same = Netns::open(name).is_ok_and(|n| n.inum() == netns.inum());
            same.then_some(node.name.as_str())
        }
        Place::Agent(_) => None,
    })
}

/// What to call a node: as the inventory does, else by the name of its namespace, else by the host
/// name.
fn node_name(netns: &Netns, inventory: Option<&Inventory>, home: &Netns) -> String {
    if let Some(name) = in_inventory(netns, inventory) {
        return name.to_owned();
    }
    if netns.inum() == home.inum()
        && let Ok(host) = std::fs::read_to_string("/proc/sys/kernel/hostname")
    {
        return host.trim().to_owned();
    }
    // A path means that only a process holds it: the inode says more than a pid that may go.
    if netns.name().contains('/') {
        format!("netns-{}", netns.inum())
    } else {
        netns.name().to_owned()
    }
}
