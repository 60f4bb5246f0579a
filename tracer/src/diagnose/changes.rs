//! What differs between two hops of a packet, in short phrases.

use std::net::IpAddr;

use crate::model::{Body, Ethernet, Ip, L4, Mac, Names, Outer, Packet};

/// What differs from `before` to `after`.
pub fn changes(names: &Names, before: &Packet, after: &Packet) -> Vec<String> {
    let mut list = Vec::new();
    match (&before.outer, &after.outer) {
        (None, Some(outer)) => list.push(wrapped(outer)),
        (Some(outer), None) => list.push(match outer.vni {
            Some(_) => "-VXLAN".to_owned(),
            None => "-UDP tunnel".to_owned(),
        }),
        (Some(before), Some(after)) => outer_changes(names, before, after, &mut list),
        (None, None) => {}
    }
    if let (Body::Ip(before), Body::Ip(after)) = (&before.body, &after.body) {
        ip_changes(names, before, after, &mut list);
    }
    ethernet_changes(names, "", before.eth, after.eth, &mut list);
    list
}

/// `+VXLAN VNI 1 → 192.168.10.12:8472`
fn wrapped(outer: &Outer) -> String {
    let to = std::net::SocketAddr::new(outer.dst, outer.udp_dst);
    match outer.vni {
        Some(vni) => format!("+VXLAN VNI {vni} → {to}"),
        None => format!("+UDP tunnel → {to}"),
    }
}

fn outer_changes(names: &Names, before: &Outer, after: &Outer, list: &mut Vec<String>) {
    ip_change(names, "outer src IP", &before.src, &after.src, list);
    ip_change(names, "outer dst IP", &before.dst, &after.dst, list);
    change("outer TTL", before.ttl, after.ttl, list);
    change("UDP port", before.udp_dst, after.udp_dst, list);
    if let (Some(before), Some(after)) = (before.vni, after.vni) {
        change("VNI", before, after, list);
    }
    ethernet_changes(names, "outer ", before.eth, after.eth, list);
}

fn ip_changes(names: &Names, before: &Ip, after: &Ip, list: &mut Vec<String>) {
    change("TTL", before.ttl, after.ttl, list);
    let (old, new) = (ports(&before.l4), ports(&after.l4));
    let pair = |side: fn((u16, u16)) -> u16| old.map(side).zip(new.map(side));
    translation(names, "src", (&before.src, &after.src), pair(|p| p.0), list);
    translation(names, "dst", (&before.dst, &after.dst), pair(|p| p.1), list);
    change("ECN", before.ecn, after.ecn, list);
}

fn ethernet_changes(
    names: &Names,
    prefix: &str,
    before: Option<Ethernet>,
    after: Option<Ethernet>,
    list: &mut Vec<String>,
) {
    let (Some(before), Some(after)) = (before, after) else { return };
    for (what, before, after) in [("src", before.src, after.src), ("dst", before.dst, after.dst)] {
        if before != after {
            let (before, after) = (mac_name(names, &before), mac_name(names, &after));
            list.push(format!("{prefix}{what} MAC {before} → {after}"));
        }
    }
}

fn ip_change(names: &Names, what: &str, before: &IpAddr, after: &IpAddr, list: &mut Vec<String>) {
    if before != after {
        list.push(format!("{what} {} → {}", ip_name(names, before), ip_name(names, after)));
    }
}

/// What address translation did to one end: `dst service.ip:80 → B.b.ip:8080`.
fn translation(
    names: &Names,
    what: &str,
    (before, after): (&IpAddr, &IpAddr),
    ports: Option<(u16, u16)>,
    list: &mut Vec<String>,
) {
    match ports {
        Some((old, new)) if before != after => {
            let (before, after) = (ip_name(names, before), ip_name(names, after));
            list.push(format!("{what} {before}:{old} → {after}:{new}"));
        }
        _ => ip_change(names, &format!("{what} IP"), before, after, list),
    }
    if let Some((old, new)) = ports.filter(|_| before == after) {
        change(&format!("{what} port"), old, new, list);
    }
}

fn change<T: PartialEq + std::fmt::Display>(
    what: &str,
    before: T,
    after: T,
    list: &mut Vec<String>,
) {
    if before != after {
        list.push(format!("{what} {before} → {after}"));
    }
}

fn ports(l4: &L4) -> Option<(u16, u16)> {
    match l4 {
        L4::Tcp { sport, dport, .. } | L4::Udp { sport, dport, .. } => Some((*sport, *dport)),
        L4::Icmp { .. } | L4::IcmpError { .. } | L4::Other => None,
    }
}

/// Name of a hardware address, or the address.
fn mac_name(names: &Names, mac: &Mac) -> String {
    names.mac(mac).map_or_else(|| mac.to_string(), str::to_owned)
}

/// Name of a network address, or the address.
pub fn ip_name(names: &Names, ip: &IpAddr) -> String {
    names.ip(ip).map_or_else(|| ip.to_string(), str::to_owned)
}
