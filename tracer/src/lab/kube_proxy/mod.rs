//! The rules of kube-proxy 1.36 for the lab's services, in either of its modes. Pure: plan → text.
//!
//! Left out is what only counts or only watches: `KUBE-PROXY-CANARY` and `nfacct`.

mod iptables;
mod nftables;

use std::net::{IpAddr, SocketAddr};

use super::plan::Plan;
use super::services::{ServiceBackend, ServicePlan, ServicePort};

pub(super) use iptables::{filter, nat};
pub(super) use nftables::ruleset;

/// Alphabet of base 32 (RFC 4648 section 6), in which kube-proxy writes the hashes in chain names.
const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// Looks like the hash that kube-proxy puts into chain names (base 32) and is as stable; kube-proxy
/// itself hashes with SHA-256, which nothing depends on. At most 25 characters.
fn chain_hash(text: &str, length: usize) -> String {
    // FNV-1a, 128 bits (draft-eastlake-fnv).
    let mut hash: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    for byte in text.bytes() {
        hash ^= u128::from(byte);
        hash = hash.wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
    }
    (0..length).map(|i| char::from(BASE32[(hash >> (i * 5)) as usize & 31])).collect()
}

/// A service's port in one IP version.
struct Port<'p> {
    service: &'p ServicePlan,
    port: &'p ServicePort,
    /// ClusterIP.
    ip: IpAddr,
    backends: Vec<SocketAddr>,
}

impl Port<'_> {
    /// `default/dns:dns-tcp`.
    fn name(&self) -> String {
        self.service.port_name(self.port)
    }
}

/// Every port of every service, for the IP version at `index` of the plan's lists.
fn ports(plan: &Plan, index: usize) -> Vec<Port<'_>> {
    let of = |service: &'_ ServicePlan, port: &ServicePort| -> Vec<SocketAddr> {
        let address = |b: &ServiceBackend| b.addresses.get(index).copied();
        let all = service.backends.iter().filter_map(address);
        all.map(|ip| SocketAddr::new(ip, port.target)).collect()
    };
    plan.services
        .iter()
        .filter_map(|service| Some((service, *service.ips.get(index)?)))
        .flat_map(|(service, ip)| service.ports.iter().map(move |port| (service, ip, port)))
        .map(|(service, ip, port)| Port { service, port, ip, backends: of(service, port) })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chain_names_fit_and_differ() {
        let (a, b) = (chain_hash("one", 16), chain_hash("two", 16));
        assert_ne!(a, b);
        // iptables allows 28 characters (XT_EXTENSION_MAXNAMELEN - 1).
        assert!(format!("KUBE-SVC-{a}").len() <= 28);
    }
}
