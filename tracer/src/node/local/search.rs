//! Finds namespaces of this machine by the addresses in them, and the node behind a pod's namespace.

use std::collections::HashSet;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

use crate::facts::{self, NetnsFacts, is_link_local};
use crate::netns::{NETNS_DIR, Netns};
use crate::node::NodeError;

/// A namespace with the one of its node.
#[derive(Debug)]
pub(super) struct Found {
    pub netns: Netns,
    pub node: Netns,
    pub ips: Vec<IpAddr>,
    /// Name of this host, where `node` is the namespace that podtrace runs in.
    pub host: Option<String>,
    /// See [`super::Located::stand_in`].
    pub stand_in: bool,
}

impl Found {
    fn new(netns: Netns, node: Netns) -> Result<Self, NodeError> {
        let ips = addresses(&netns).map_err(|e| unreadable(netns.name(), e))?;
        Ok(Self { netns, node, ips, host: None, stand_in: false })
    }
}

fn unreadable(netns: &str, error: io::Error) -> NodeError {
    NodeError::Netns { netns: netns.to_owned(), cause: error.into() }
}

fn open(name: &str) -> Result<Netns, NodeError> {
    Netns::open(name).map_err(|e| unreadable(name, e))
}

fn home() -> Result<Netns, NodeError> {
    Netns::current().map_err(|e| unreadable("/proc/thread-self/ns/net", e))
}

/// A node's own namespace.
pub(super) fn node(name: Option<&str>) -> Result<Found, NodeError> {
    let netns = name.map_or_else(home, open)?;
    Ok(Found { netns: netns.clone(), node: netns, ips: Vec::new(), host: None, stand_in: false })
}

/// A pod's: the one that is named, else the one that has its address and leads to `node`.
pub(super) fn pod(node: &Netns, name: Option<&str>, ips: &[IpAddr]) -> Result<Found, NodeError> {
    let netns = match (name, ips.first()) {
        (Some(name), _) => open(name)?,
        (None, Some(ip)) => pod_of_node(*ip, node)?,
        (None, None) => return Err(NodeError::Refused("neither namespace nor address".to_owned())),
    };
    if ips.is_empty() {
        return Found::new(netns, node.clone());
    }
    Ok(Found { netns, node: node.clone(), ips: ips.to_vec(), host: None, stand_in: false })
}

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
fn addresses(netns: &Netns) -> io::Result<Vec<IpAddr>> {
    let mut ips: Vec<IpAddr> = every_address(netns)?.into_iter().map(|(ip, _)| ip).collect();
    ips.retain(|ip| !is_link_local(*ip) && !ip.is_loopback());
    ips.sort_by_key(IpAddr::is_ipv6);
    Ok(ips)
}

/// Every address, and whether the interface that has it leads nowhere.
fn every_address(netns: &Netns) -> io::Result<Vec<(IpAddr, bool)>> {
    netns.run(|| -> io::Result<Vec<(IpAddr, bool)>> {
        let ips = getifaddrs()?.filter_map(|interface| {
            let storage = interface.address?;
            let v4 = storage.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
            let ip = v4.or_else(|| storage.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))?;
            Some((ip, leads_nowhere(interface.flags) && !ip.is_loopback()))
        });
        Ok(ips.collect())
    })?
}

/// Of an interface that sends nothing to anybody: kube-proxy gives the addresses of all services to
/// one on every node (`kube-ipvs0`), NodeLocal DNSCache that of the name service.
fn leads_nowhere(flags: InterfaceFlags) -> bool {
    // Tunnels into programs are between two points, and resolve no addresses either.
    let dummy = flags.contains(InterfaceFlags::IFF_NOARP)
        && !flags.contains(InterfaceFlags::IFF_POINTOPOINT);
    dummy || flags.contains(InterfaceFlags::IFF_LOOPBACK) || !flags.contains(InterfaceFlags::IFF_UP)
}

/// A namespace that has an address, and whether only interfaces have it there that lead nowhere.
struct Holder<'a> {
    netns: &'a Netns,
    stand_in: bool,
}

/// The namespaces that have `ip`, among all that can be seen.
fn holders(ip: IpAddr, all: &[Netns]) -> Result<Vec<Holder<'_>>, NodeError> {
    let mut found = Vec::new();
    let mut failed = None;
    for netns in all {
        match every_address(netns) {
            Ok(ips) => {
                let mut own = ips.iter().filter(|(own, _)| *own == ip).peekable();
                if own.peek().is_some() {
                    found.push(Holder { netns, stand_in: own.all(|(_, nowhere)| *nowhere) });
                }
            }
            Err(e) => failed = Some(e),
        }
    }
    match failed {
        // It may be in one of those that could not be looked into.
        Some(error) if found.is_empty() => Err(NodeError::Search { ip, cause: error.into() }),
        _ => Ok(found),
    }
}

/// The namespace that has `ip`, on the other end of a pair with `node`.
fn pod_of_node(ip: IpAddr, node: &Netns) -> Result<Netns, NodeError> {
    let all = all();
    let candidates: Vec<&Netns> = holders(ip, &all)?.into_iter().map(|h| h.netns).collect();
    let leads_there = |netns: &&Netns| {
        let known = std::slice::from_ref(node);
        facts::snapshot_among(netns, known).is_ok_and(|f| node_behind(&f, ip) == Some(node.inum()))
    };
    match candidates.as_slice() {
        [] => Err(NodeError::NoAddress(ip)),
        [one] => Ok(Netns::clone(one)),
        several => match several.iter().copied().filter(leads_there).collect::<Vec<_>>()[..] {
            [one] => Ok(one.clone()),
            _ => Err(ambiguous(ip, several)),
        },
    }
}

fn ambiguous(ip: IpAddr, namespaces: &[&Netns]) -> NodeError {
    let names: Vec<_> = namespaces.iter().map(|n| n.name()).collect();
    NodeError::Ambiguous { ip, namespaces: names.join(", ") }
}

/// Inode of the namespace at the other end of the pair that carries `ip`.
fn node_behind(facts: &NetnsFacts, ip: IpAddr) -> Option<u32> {
    let (inum, _) = facts.peer(facts.holder(ip)?)?;
    Some(inum).filter(|inum| *inum != facts.inum)
}

fn inums(names: &[String]) -> HashSet<u32> {
    names.iter().filter_map(|name| Netns::open(name).ok()).map(|n| n.inum()).collect()
}

/// Finds whichever namespace has an address; `nodes` and `pods` are namespaces that are known.
pub(super) fn address(ip: IpAddr, nodes: &[String], pods: &[String]) -> Result<Found, NodeError> {
    let all = all();
    let mut found = holders(ip, &all)?;
    if found.len() > 1 {
        // What several have in this way is nobody's place: the address of a service.
        found.retain(|h| !h.stand_in);
    }
    let nodes = inums(nodes);
    if found.len() > 1 {
        // Who names namespaces means those.
        let pods = inums(pods);
        let known =
            |h: &Holder<'_>| nodes.contains(&h.netns.inum()) || pods.contains(&h.netns.inum());
        if found.iter().any(&known) {
            found.retain(known);
        }
    }
    let (netns, stand_in) = match found.as_slice() {
        [] => return Err(NodeError::NoAddress(ip)),
        [one] => (one.netns, one.stand_in),
        several => {
            let several: Vec<_> = several.iter().map(|h| h.netns).collect();
            return Err(ambiguous(ip, &several));
        }
    };
    let home = home()?;
    let facts = facts::snapshot_among(netns, &all)
        .map_err(|e| NodeError::Search { ip, cause: e.into() })?;
    let link = facts.holder(ip);
    // A tunnel device makes a namespace a node's, even where its way out is a pair (a lab's wire).
    let is_node = netns.inum() == home.inum()
        || nodes.contains(&netns.inum())
        || facts.links.iter().any(|l| l.vxlan.is_some());
    let node = match link.filter(|l| l.is_pair() && !is_node) {
        // Hardware, a bridge or a tunnel has it: that is a node's own address.
        None => netns,
        Some(link) => node_behind(&facts, ip)
            .and_then(|inum| all.iter().find(|n| n.inum() == inum))
            .ok_or_else(|| NodeError::NoNode {
                ip,
                netns: netns.name().to_owned(),
                interface: link.name.clone(),
            })?,
    };
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname");
    let host = host.ok().filter(|_| node.inum() == home.inum());
    Ok(Found {
        netns: netns.clone(),
        node: node.clone(),
        ips: vec![ip],
        host: host.map(|name| name.trim().to_owned()),
        stand_in,
    })
}
