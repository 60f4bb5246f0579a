//! What of the traffic concerns a trace: address families, and the filter of the kernel side.

use std::sync::Arc;

use super::{Spec, SpecError};
use crate::expect::{self, Family};
use crate::facts::PathFacts;
use crate::kernel::Filter;
use crate::model::{Alias, End, Topology};

/// The address families to look at: the one asked for, that of the probe, or all that both ends
/// have.
pub(super) fn families(spec: &Spec, src: &End, dst: &End) -> Result<Vec<Family>, SpecError> {
    let mut families: Vec<Family> = [Family::V4, Family::V6]
        .into_iter()
        .filter(|f| f.first(src).is_some() && f.first(dst).is_some())
        .filter(|f| !(spec.ipv4 && *f == Family::V6 || spec.ipv6 && *f == Family::V4))
        .collect();
    if families.is_empty() {
        let wanted = match (spec.ipv4, spec.ipv6) {
            (true, _) => "IPv4 ",
            (_, true) => "IPv6 ",
            _ => "",
        };
        return Err(SpecError(format!(
            "{} and {} have no {wanted}addresses of the same family",
            src.name, dst.name
        )));
    }
    if spec.probe.is_some() {
        families.truncate(1);
    }
    Ok(families)
}

/// What the kernel side lets through.
pub(super) fn filter(spec: &Spec, facts: &PathFacts, paths: &[(Family, Arc<Topology>)]) -> Filter {
    let (proto, snaplen) = (spec.protocol(), spec.snaplen);
    let mut filter = Filter { proto, snaplen, ..Filter::default() };
    let (mut pairs, mut behind) = (Vec::new(), Vec::new());
    for (family, topology) in paths {
        let ips = |end: &Option<End>| {
            let ips = end.as_ref().map(|e| e.ips.clone()).unwrap_or_default();
            ips.into_iter().filter(|ip| Family::of(ip) == *family).collect::<Vec<_>>()
        };
        let aliases = |source: bool| {
            topology.aliases.iter().filter(move |a| a.source == source).map(|a| a.ip)
        };
        // What translation may make of either end may meet what it makes of the other.
        for a in ips(&topology.src).into_iter().chain(aliases(true)) {
            let destinations = ips(&topology.dst).into_iter().chain(aliases(false));
            pairs.extend(destinations.map(|b| (a, b)));
        }
        let translated =
            |a: &Alias| a.real_port.filter(|_| a.port.is_some() && a.port == spec.port);
        behind.extend(topology.aliases.iter().filter_map(translated));
        filter.addresses.extend(expect::addresses_on_path(facts, topology));
        filter.vxlan_ports.extend(&topology.vxlan_ports);
    }
    filter.add_flow(pairs);
    if let Some(port) = spec.port {
        filter.add_port(port, behind);
    }
    filter.addresses.sort_unstable();
    filter.addresses.dedup();
    filter.vxlan_ports.sort_unstable();
    filter.vxlan_ports.dedup();
    filter
}
