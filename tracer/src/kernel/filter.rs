//! What the kernel side lets through: as constants of the programs where it is little, in maps where it
//! is much. A service has up to thousands of endpoints.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use tracer_common::{
    Config, MAX_ENDS, MAX_L3_DEVICES, MAX_PAIRS, MAX_VXLAN_PORTS, SIDE_DESTINATION, SIDE_SOURCE,
};

use super::CaptureError;
use crate::model::Station;

/// What the kernel side lets through.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// Address pairs of the flow, either direction; of each IP version no more than the programs hold
    /// as constants.
    pub pairs: Vec<(IpAddr, IpAddr)>,
    /// IP protocol; `None`: all. ICMP errors about the flow always pass.
    pub proto: Option<u8>,
    /// TCP or UDP port at either end; `None`: all.
    pub port: Option<u16>,
    /// The port to which a node translates `port`.
    pub port_behind: Option<u16>,
    /// UDP ports of the VXLAN devices on the path.
    pub vxlan_ports: Vec<u16>,
    /// Addresses whose ARP and neighbour discovery is of interest.
    pub addresses: Vec<IpAddr>,
    /// Bytes of each packet to keep; `None`: the headers and 16 bytes of payload.
    pub snaplen: Option<u16>,
    /// Where there are more pairs than that: addresses on the source's side, each of which may be paired
    /// with any of `destinations`. `pairs` are not used then for this IP version. (One too many stands
    /// there, so that an agent that does not know this field refuses instead of overlooking.)
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<IpAddr>,
    /// Addresses on the destination's side, see `sources`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub destinations: Vec<IpAddr>,
    /// TCP or UDP ports at either end, where they are more than `port` and `port_behind` can say: both
    /// are `None` then.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<u16>,
}

impl Filter {
    /// Lets the packets between any of these pairs through, `pairs` being all of `sources` with all of
    /// `destinations`, or a part of that.
    pub fn add_flow(&mut self, mut pairs: Vec<(IpAddr, IpAddr)>) {
        pairs.sort_unstable();
        pairs.dedup();
        for v4 in [true, false] {
            let of = |(a, b): &(IpAddr, IpAddr)| a.is_ipv4() == v4 && b.is_ipv4() == v4;
            let mut pairs: Vec<_> = pairs.iter().copied().filter(of).collect();
            if pairs.len() > MAX_PAIRS {
                self.sources.extend(pairs.iter().map(|(source, _)| source));
                self.destinations.extend(pairs.iter().map(|(_, destination)| destination));
                pairs.truncate(MAX_PAIRS + 1);
            }
            self.pairs.extend(pairs);
        }
        for side in [&mut self.sources, &mut self.destinations] {
            side.sort_unstable();
            side.dedup();
        }
    }

    /// Lets packets from or to `port` through, and those to the ports that it is translated to.
    pub fn add_port(&mut self, port: u16, mut behind: Vec<u16>) {
        behind.retain(|other| *other != port);
        behind.sort_unstable();
        behind.dedup();
        match *behind.as_slice() {
            [] => self.port = Some(port),
            [one] => (self.port, self.port_behind) = (Some(port), Some(one)),
            _ => self.ports = std::iter::once(port).chain(behind).collect(),
        }
    }

    /// Whether a map decides on packets of this IP version.
    fn many(&self, v4: bool) -> bool {
        let any = |side: &[IpAddr]| side.iter().any(|ip| ip.is_ipv4() == v4);
        any(&self.sources) && any(&self.destinations)
    }
}

/// What is put into maps: keys and values.
pub(super) struct Tables {
    /// See `ADDRESSES`.
    pub addresses: Vec<([u32; 4], u8)>,
    /// See `ENDS`.
    pub ends: Vec<([u32; 4], u8)>,
    /// See `PORTS`.
    pub ports: Vec<(u32, u8)>,
}

impl Tables {
    pub fn of(filter: &Filter) -> Result<Self, CaptureError> {
        let mut ends = BTreeMap::<[u32; 4], u8>::new();
        let sides = [(&filter.sources, SIDE_SOURCE), (&filter.destinations, SIDE_DESTINATION)];
        for (addresses, side) in sides {
            for address in addresses {
                *ends.entry(words(*address)).or_default() |= side;
            }
        }
        count(ends.len(), "addresses", MAX_ENDS)?;
        count(filter.addresses.len(), "addresses to be resolved", MAX_ENDS)?;
        Ok(Self {
            addresses: filter.addresses.iter().map(|address| (words(*address), 1)).collect(),
            ends: ends.into_iter().collect(),
            ports: filter.ports.iter().map(|port| (port.to_be().into(), 1)).collect(),
        })
    }
}

/// Room that a map needs: none can have none.
pub(super) fn entries(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX).max(1)
}

fn words(address: IpAddr) -> [u32; 4] {
    match address {
        // Memory order is network order: the programs compare words as they lie in the packet.
        IpAddr::V4(v4) => [u32::from_ne_bytes(v4.octets()), 0, 0, 0],
        IpAddr::V6(v6) => {
            let o = v6.octets();
            let word = |i: usize| u32::from_ne_bytes([o[i], o[i + 1], o[i + 2], o[i + 3]]);
            [word(0), word(4), word(8), word(12)]
        }
    }
}

fn count(all: usize, what: &'static str, max: usize) -> Result<u32, CaptureError> {
    let fits = u32::try_from(all).ok().filter(|n| *n as usize <= max);
    fits.ok_or(CaptureError::FilterFull(all, what, max))
}

/// Puts the filter into the configuration.
pub(super) fn fill(
    config: &mut Config,
    filter: &Filter,
    stations: &[Station],
    slots: &[u32],
) -> Result<(), CaptureError> {
    let pairs = |v4: bool| -> Vec<_> {
        let of = |(a, b): &&(IpAddr, IpAddr)| a.is_ipv4() == v4 && b.is_ipv4() == v4;
        filter.pairs.iter().filter(|_| !filter.many(v4)).filter(of).collect()
    };
    config.many4 = u32::from(filter.many(true));
    config.many6 = u32::from(filter.many(false));
    let (v4, v6) = (pairs(true), pairs(false));
    config.pairs4 = count(v4.len(), "IPv4 address pairs", MAX_PAIRS)?;
    config.pairs6 = count(v6.len(), "IPv6 address pairs", MAX_PAIRS)?;
    for (slot, (a, b)) in config.pair4.iter_mut().zip(v4) {
        *slot = [words(*a)[0], words(*b)[0]];
    }
    for (slot, (a, b)) in config.pair6.iter_mut().zip(v6) {
        *slot = [words(*a), words(*b)];
    }
    config.vxlan_ports = count(filter.vxlan_ports.len(), "VXLAN ports", MAX_VXLAN_PORTS)?;
    for (slot, port) in config.vxlan_port.iter_mut().zip(&filter.vxlan_ports) {
        *slot = port.to_be().into();
    }
    let l3: Vec<_> = stations.iter().filter(|s| !s.ethernet).collect();
    config.l3_devices = count(l3.len(), "interfaces without Ethernet header", MAX_L3_DEVICES)?;
    for (entry, station) in config.l3_device.iter_mut().zip(l3) {
        let slot = slots.iter().position(|s| *s == station.netns_inum).unwrap_or(0);
        *entry = [u32::try_from(slot).unwrap_or(0), station.ifindex];
    }
    config.proto = filter.proto.map_or(0, u32::from);
    config.many_ports = u32::from(!filter.ports.is_empty());
    let port = filter.port.or(filter.ports.first().copied());
    config.port = port.map_or(0, |p| p.to_be().into());
    config.port_behind = filter.port_behind.map_or(0, |p| p.to_be().into());
    config.snaplen = filter.snaplen.map_or(0, u32::from);
    Ok(())
}

#[cfg(test)]
mod tests {
    use zerocopy::FromZeros;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn config(filter: &Filter) -> Config {
        let mut config = Config::new_zeroed();
        fill(&mut config, filter, &[], &[]).unwrap();
        config
    }

    /// One source, this many destinations.
    fn flow(destinations: u8) -> Filter {
        let mut filter = Filter::default();
        let to = (1..=destinations).map(|n| (ip("10.0.0.1"), IpAddr::from([10, 1, 0, n])));
        filter.add_flow(to.chain([(ip("fd00::1"), ip("fd00::2"))]).collect());
        filter
    }

    #[test]
    fn addresses_are_words_in_memory_order() {
        assert_eq!(words(ip("10.0.0.1"))[0].to_ne_bytes(), [10, 0, 0, 1]);
        let v6 = words(ip("fd00::1"));
        assert_eq!(v6[0].to_ne_bytes(), [0xfd, 0, 0, 0]);
        assert_eq!(v6[3].to_ne_bytes(), [0, 0, 0, 1]);
    }

    #[test]
    fn few_pairs_are_constants() {
        let filter = flow(8);
        assert_eq!((filter.pairs.len(), filter.sources.len()), (9, 0));
        let config = config(&filter);
        assert_eq!((config.pairs4, config.pairs6, config.many4, config.many6), (8, 1, 0, 0));
        assert!(Tables::of(&filter).unwrap().ends.is_empty());
    }

    #[test]
    fn many_are_in_a_map_by_side() {
        let mut filter = flow(200);
        // An end that talks to itself is on both sides.
        filter.destinations.push(ip("10.0.0.1"));
        let config = config(&filter);
        assert_eq!((config.pairs4, config.pairs6, config.many4, config.many6), (0, 1, 1, 0));
        let ends: BTreeMap<_, _> = Tables::of(&filter).unwrap().ends.into_iter().collect();
        assert_eq!(ends.len(), 201);
        assert_eq!(ends.get(&words(ip("10.0.0.1"))), Some(&(SIDE_SOURCE | SIDE_DESTINATION)));
        assert_eq!(ends.get(&words(ip("10.1.0.200"))), Some(&SIDE_DESTINATION));
        // Who does not know of the map has one pair too many, and says so.
        assert_eq!(filter.pairs.iter().filter(|(a, _)| a.is_ipv4()).count(), MAX_PAIRS + 1);
        let unaware = Filter { sources: Vec::new(), destinations: Vec::new(), ..filter };
        let error = fill(&mut Config::new_zeroed(), &unaware, &[], &[]).unwrap_err().to_string();
        assert_eq!(error, "9 IPv4 address pairs on the path; the kernel filter holds at most 8");
    }

    #[test]
    fn more_than_the_map_holds_is_an_error() {
        let ips = (0..=MAX_ENDS as u32).map(|n| IpAddr::V4(n.into())).collect();
        let filter = Filter { sources: ips, ..Filter::default() };
        let error = Tables::of(&filter).err().map(|e| e.to_string());
        let expected = "65537 addresses on the path; the kernel filter holds at most 65536";
        assert_eq!(error.as_deref(), Some(expected));
    }

    #[test]
    fn ports_behind_a_service_are_let_through() {
        let with = |behind: &[u16]| {
            let mut filter = Filter::default();
            filter.add_port(80, behind.to_vec());
            filter
        };
        assert_eq!((with(&[80]).port, with(&[80]).port_behind), (Some(80), None));
        assert_eq!((with(&[8080; 2]).port, with(&[8080]).port_behind), (Some(80), Some(8080)));
        let many = with(&[9090, 8080, 80]);
        assert_eq!((many.port, many.ports.as_slice()), (None, &[80, 8080, 9090][..]));
        let config = config(&many);
        assert_eq!((config.many_ports, config.port), (1, 80_u16.to_be().into()));
        assert_eq!(Tables::of(&many).unwrap().ports.len(), 3);
    }

    #[test]
    fn filters_without_maps_are_as_they_were() {
        let text = serde_json::to_string(&flow(1)).unwrap();
        assert!(!text.contains("sources") && !text.contains("ports\":[80"), "{text}");
        assert_eq!(serde_json::from_str::<Filter>(&text).unwrap(), flow(1));
    }
}
