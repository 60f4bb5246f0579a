//! What IPVS does with a packet: which virtual service it is for, and which real servers may get it.
//! Pure.
//!
//! IPVS takes packets that are for the node itself, behind the packet filters at INPUT (kube-proxy
//! gives every service address to the interface `kube-ipvs0` for that), and those that the node sends
//! itself. Translated, they leave by OUTPUT and POSTROUTING, never by FORWARD (`ip_vs_nat_xmit`,
//! net/netfilter/ipvs/ip_vs_xmit.c).

use std::net::IpAddr;

use super::translate::{Target, Wanted};
use crate::facts::{Forwarding, NetnsFacts, RealServer, Virtual, VirtualService};
use crate::model::{Leads, Service};

/// IP protocol numbers (IANA).
const TCP: u8 = 6;
const UDP: u8 = 17;

/// The virtual service for packets without a mark, found as the kernel does: by its port, else the one
/// for every port (`ip_vs_service_find`).
pub fn service(facts: &NetnsFacts, ip: IpAddr, proto: u8, port: u16) -> Option<&VirtualService> {
    let with = |port| {
        let wanted = Virtual::Address { proto, ip, port };
        facts.ipvs.iter().flat_map(|i| &i.services).find(|s| s.of == wanted)
    };
    with(port).or_else(|| with(0))
}

/// The virtual services for an address, with protocol and port.
pub fn services_at(
    facts: &NetnsFacts,
    wanted: IpAddr,
) -> impl Iterator<Item = (u8, u16, &VirtualService)> {
    let all = facts.ipvs.iter().flat_map(|i| &i.services);
    all.filter_map(move |s| match s.of {
        Virtual::Address { proto, ip, port } if ip == wanted => Some((proto, port, s)),
        _ => None,
    })
}

/// Address, protocol and port of each virtual service that sends packets to an address.
pub(super) fn services_leading_to(
    facts: &NetnsFacts,
    to: IpAddr,
) -> impl Iterator<Item = (IpAddr, u8, u16)> {
    let all = facts.ipvs.iter().flat_map(|i| &i.services);
    all.filter(move |s| servers(s).any(|server| server.ip == to)).filter_map(|s| match s.of {
        Virtual::Address { proto, ip, port } if port != 0 => Some((ip, proto, port)),
        _ => None,
    })
}

/// The virtual service behind a service address of a trace.
pub fn of<'a>(facts: &'a NetnsFacts, of: &Service) -> Option<&'a VirtualService> {
    match of.proto {
        Some(proto) => service(facts, of.ip, proto, of.port?),
        None => [TCP, UDP].into_iter().find_map(|proto| service(facts, of.ip, proto, of.port?)),
    }
}

/// The real servers that get new connections.
pub fn servers(service: &VirtualService) -> impl Iterator<Item = &RealServer> {
    service.servers.iter().filter(|s| s.weight > 0)
}

/// As a line of evidence: `ipvs TCP 10.96.0.10:80 rr -> 10.10.1.2:8080 Masq weight 1`.
pub fn text(service: &VirtualService, server: &RealServer) -> String {
    format!("ipvs {service} -> {server}")
}

/// The entry that sends a service's packets to an end's address.
pub fn leads_to(facts: &NetnsFacts, service: &Service, to: IpAddr) -> Option<String> {
    let found = of(facts, service)?;
    servers(found).find(|s| s.ip == to).map(|server| text(found, server))
}

/// Where IPVS sends packets of a protocol. Without a port: of all services with the address. What is
/// not translated on its way to a real server (`Tunnel`, `Route`) does not become a target.
pub(super) fn targets(facts: &NetnsFacts, wanted: &Wanted, proto: u8) -> Vec<Target> {
    // Without the address the node passes packets on untouched; its own always come by.
    let own = |ip| facts.holder(ip).is_some();
    if !own(wanted.dst) && !own(wanted.src) {
        return Vec::new();
    }
    let found: Vec<&VirtualService> = match wanted.port {
        Some(port) => service(facts, wanted.dst, proto, port).into_iter().collect(),
        None => {
            let at = services_at(facts, wanted.dst).filter(|(p, ..)| *p == proto);
            at.map(|(.., service)| service).collect()
        }
    };
    let servers = found.into_iter().flat_map(|s| servers(s).map(move |server| (s, server)));
    servers
        .filter(|(_, server)| server.forwarding == Forwarding::Masq)
        .map(|(service, server)| Target {
            ip: server.ip,
            port: Some(server.port).filter(|port| *port != 0),
            proto,
            leads: Leads::Rule,
            entry: text(service, server),
        })
        .collect()
}
