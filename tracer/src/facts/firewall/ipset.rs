//! ipsets as the kernel tells of them over netlink (include/uapi/linux/netfilter/ipset/ip_set.h):
//! no tool is needed. Only sets that rules name are read.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use nix::errno::Errno;
use rtnetlink::sys::protocols::NETLINK_NETFILTER;
use serde::{Deserialize, Serialize};

use super::super::dump::{attributes, bytes, dump, string};
use super::super::types::Gap;
use super::{AddressRange, PortRange};
use crate::model::Mac;

/// NFNL_SUBSYS_IPSET << 8 | IPSET_CMD_LIST.
const LIST: u16 = 6 << 8 | 7;
/// IPSET_PROTOCOL, which every kernel since 2.6.39 takes (later ones take 7 too).
const PROTOCOL: u8 = 6;
/// Sets read, at most.
const MAX_SETS: usize = 4096;
/// Entries kept of a set, at most (the kernel's own default limit).
const MAX_ENTRIES: usize = 65_536;
/// Entries kept of all sets, at most.
const MAX_TOTAL: usize = 262_144;
/// IPSET_MAXNAMELEN, with the zero byte.
const MAX_NAME: usize = 32;

/// A set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpSet {
    /// Name.
    pub name: String,
    /// Type: `hash:ip,port`, `bitmap:port`, `list:set`.
    pub kind: String,
    /// IPv6 rather than IPv4; `None`: neither.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub v6: Option<bool>,
    /// Bits of an address that are looked up, where not all are (`netmask`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netmask: Option<u8>,
    /// Entries.
    pub entries: Vec<IpSetEntry>,
    /// Why this is not all that is in it; `None`: it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incomplete: Option<String>,
}

impl IpSet {
    /// What is looked up, dimension by dimension: `ip`, `net`, `port`, `mac`, `iface`, `mark`, `set`.
    pub fn dimensions(&self) -> impl Iterator<Item = &str> {
        self.kind.split_once(':').map_or("", |(_, what)| what).split(',')
    }
}

/// An entry of a set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpSetEntry {
    /// One for every dimension of the set, in order.
    pub parts: Vec<IpSetPart>,
    /// What is in this network is *not* in the set, though a larger network is.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub nomatch: bool,
}

/// What an entry has for a dimension.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IpSetPart {
    /// Addresses.
    Addresses(AddressRange),
    /// Ports of a protocol (of ICMP: type << 8 | code); `None`: of any.
    Ports {
        /// Layer-4 protocol number.
        proto: Option<u8>,
        /// Ports.
        ports: PortRange,
    },
    /// Hardware address.
    Mac(Mac),
    /// Interface.
    Interface {
        /// Name.
        name: String,
        /// The bridge's port rather than the bridge.
        port: bool,
    },
    /// Mark.
    Mark(u32),
    /// Another set.
    Set(String),
    /// Not understood.
    Unknown,
}

/// Reads the sets of these names, and those that are their members, in the calling thread's
/// namespace. One that cannot be read is there without entries, and says why.
pub(super) fn read(names: &[&str], gaps: &mut Vec<Gap>) -> Vec<IpSet> {
    let mut wanted: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut sets: Vec<IpSet> = Vec::new();
    let mut left = MAX_TOTAL;
    while let Some(name) = wanted.pop() {
        if sets.len() >= MAX_SETS || sets.iter().any(|set| set.name == name) {
            continue;
        }
        let set = read_one(&name, left.min(MAX_ENTRIES));
        left = left.saturating_sub(set.entries.len());
        wanted.extend(set.entries.iter().flat_map(|e| &e.parts).filter_map(|part| match part {
            IpSetPart::Set(member) => Some(member.clone()),
            _ => None,
        }));
        if let Some(reason) = &set.incomplete {
            gaps.push(Gap { source: format!("ipset {name}"), reason: reason.clone() });
        }
        sets.push(set);
    }
    sets.sort_by(|a, b| a.name.cmp(&b.name));
    sets
}

fn read_one(name: &str, most: usize) -> IpSet {
    let mut set = IpSet { name: name.to_owned(), ..IpSet::default() };
    if name.len() >= MAX_NAME {
        set.incomplete = Some("no set has so long a name".to_owned());
        return set;
    }
    let mut full = false;
    let result = dump(NETLINK_NETFILTER, LIST, &request(name), |message| {
        full = !add(&mut set, message, most);
        !full
    });
    set.incomplete = match result {
        Err(e) => Some(reason(&e)),
        Ok(()) if full => Some(format!("it has more than {most} entries")),
        Ok(()) if set.kind.is_empty() => Some("the kernel told nothing about it".to_owned()),
        Ok(()) => None,
    };
    set
}

fn reason(error: &io::Error) -> String {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOENT) => "there is no such set in this namespace".to_owned(),
        Some(Errno::EPERM) => "not permitted (podtrace must be root in this namespace)".to_owned(),
        _ => error.to_string(),
    }
}

/// `struct nfgenmsg`, then the protocol's version and the set's name.
fn request(name: &str) -> Vec<u8> {
    let mut body = vec![0; 4];
    attribute(&mut body, 1, &[PROTOCOL]);
    let mut zero_ended = name.as_bytes().to_vec();
    zero_ended.push(0);
    attribute(&mut body, 2, &zero_ended);
    body
}

fn attribute(to: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(4 + value.len()).unwrap_or_default();
    to.extend(length.to_ne_bytes());
    to.extend(kind.to_ne_bytes());
    to.extend(value);
    to.resize(to.len().next_multiple_of(4), 0);
}

/// Takes what one message of the dump tells; whether there is room for more.
fn add(set: &mut IpSet, message: &[u8], most: usize) -> bool {
    // Behind `struct nfgenmsg`.
    for (kind, value) in attributes(message.get(4..).unwrap_or_default()) {
        match kind {
            // IPSET_ATTR_TYPENAME
            3 => set.kind = string(value),
            // IPSET_ATTR_FAMILY: AF_INET or AF_INET6.
            5 => {
                set.v6 = match value.first() {
                    Some(2) => Some(false),
                    Some(10) => Some(true),
                    _ => None,
                };
            }
            // IPSET_ATTR_DATA, of the set itself: IPSET_ATTR_NETMASK.
            7 => {
                let mask = attributes(value).find(|(kind, _)| *kind == 20);
                set.netmask = mask.and_then(|(_, v)| v.first().copied()).or(set.netmask);
            }
            // IPSET_ATTR_ADT: entries, each an IPSET_ATTR_DATA.
            8 => {
                for (_, data) in attributes(value) {
                    if set.entries.len() >= most {
                        return false;
                    }
                    let entry = entry(set, data);
                    set.entries.push(entry);
                }
            }
            _ => {}
        }
    }
    true
}

/// Attributes of an entry that are looked at.
#[derive(Default)]
struct Raw<'a> {
    ip: [Option<IpAddr>; 2],
    ip_to: [Option<IpAddr>; 2],
    cidr: [Option<u8>; 2],
    port: Option<u16>,
    port_to: Option<u16>,
    proto: Option<u8>,
    flags: u32,
    mark: Option<u32>,
    mac: Option<&'a [u8]>,
    name: Option<String>,
    iface: Option<String>,
}

fn entry(set: &IpSet, data: &[u8]) -> IpSetEntry {
    let mut raw = Raw::default();
    for (kind, value) in attributes(data) {
        let small = || bytes(value, 0).map(u16::from_be_bytes);
        let large = || bytes(value, 0).map(u32::from_be_bytes);
        match kind {
            1 => raw.ip[0] = address(value),
            2 => raw.ip_to[0] = address(value),
            3 => raw.cidr[0] = value.first().copied(),
            4 => raw.port = small(),
            5 => raw.port_to = small(),
            7 => raw.proto = value.first().copied(),
            8 => raw.flags = large().unwrap_or_default(),
            10 => raw.mark = large(),
            17 => raw.mac = Some(value),
            18 => raw.name = Some(string(value)),
            20 => raw.ip[1] = address(value),
            21 => raw.cidr[1] = value.first().copied(),
            22 => raw.ip_to[1] = address(value),
            23 => raw.iface = Some(string(value)),
            _ => {}
        }
    }
    let mut addresses = 0;
    let parts = set.dimensions().map(|what| {
        let found = match what {
            "ip" | "net" => {
                let at = addresses;
                addresses += 1;
                range(set, &raw, at).map(IpSetPart::Addresses)
            }
            "port" => raw.port.map(|first| IpSetPart::Ports {
                proto: raw.proto.filter(|_| set.kind != "bitmap:port"),
                ports: PortRange { first, last: raw.port_to.unwrap_or(first) },
            }),
            "mac" => raw.mac.and_then(|mac| bytes(mac, 0)).map(|mac| IpSetPart::Mac(Mac(mac))),
            // IPSET_FLAG_PHYSDEV
            "iface" => raw
                .iface
                .clone()
                .map(|name| IpSetPart::Interface { name, port: raw.flags & 1 << 1 != 0 }),
            "mark" => raw.mark.map(IpSetPart::Mark),
            "set" => raw.name.clone().map(IpSetPart::Set),
            _ => None,
        };
        found.unwrap_or(IpSetPart::Unknown)
    });
    // IPSET_FLAG_NOMATCH
    IpSetEntry { parts: parts.collect(), nomatch: raw.flags & 1 << 2 != 0 }
}

fn range(set: &IpSet, raw: &Raw<'_>, at: usize) -> Option<AddressRange> {
    let first = raw.ip.get(at).copied().flatten()?;
    if let Some(last) = raw.ip_to.get(at).copied().flatten() {
        return Some(AddressRange { first, last });
    }
    let own = raw.cidr.get(at).copied().flatten();
    let length = own.or(set.netmask.filter(|_| at == 0));
    Some(match length {
        Some(length) => IpNet::new(first, length).ok()?.into(),
        None => first.into(),
    })
}

/// A nested attribute with the address, in network byte order.
fn address(value: &[u8]) -> Option<IpAddr> {
    attributes(value).find_map(|(kind, value)| match kind {
        1 => Some(Ipv4Addr::from(bytes::<4>(value, 0)?).into()),
        2 => Some(Ipv6Addr::from(bytes::<16>(value, 0)?).into()),
        _ => None,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that panics has failed")]
mod tests {
    use super::*;

    fn nested(parts: &[(u16, &[u8])]) -> Vec<u8> {
        let mut all = Vec::new();
        for (kind, value) in parts {
            attribute(&mut all, *kind, value);
        }
        all
    }

    fn message(kind: &str, entries: &[Vec<u8>]) -> Vec<u8> {
        let adt: Vec<(u16, &[u8])> = entries.iter().map(|e| (0x8007, e.as_slice())).collect();
        let mut all = vec![0; 4];
        let name = format!("{kind}\0");
        all.extend(nested(&[(3, name.as_bytes()), (5, &[2]), (0x8008, &nested(&adt))]));
        all
    }

    fn ip(text: &str) -> Vec<u8> {
        let ip: Ipv4Addr = text.parse().unwrap();
        nested(&[(0x4001, &ip.octets())])
    }

    #[test]
    fn entries_are_read_dimension_by_dimension() {
        let entry = nested(&[(0x8001, &ip("10.0.0.1")), (0x4004, &80u16.to_be_bytes()), (7, &[6])]);
        let mut set = IpSet::default();
        assert!(add(&mut set, &message("hash:ip,port", &[entry]), 9));
        assert_eq!((set.kind.as_str(), set.v6), ("hash:ip,port", Some(false)));
        let address: IpAddr = "10.0.0.1".parse().unwrap();
        let ports = PortRange { first: 80, last: 80 };
        assert_eq!(
            set.entries[0].parts,
            [IpSetPart::Addresses(address.into()), IpSetPart::Ports { proto: Some(6), ports }]
        );
    }

    #[test]
    fn networks_can_be_excepted() {
        let flags = (1u32 << 2).to_be_bytes();
        let entry = nested(&[(0x8001, &ip("10.0.1.0")), (3, &[24]), (0x4008, &flags)]);
        let mut set = IpSet::default();
        assert!(add(&mut set, &message("hash:net", &[entry]), 9));
        let net: IpNet = "10.0.1.0/24".parse().unwrap();
        assert_eq!(set.entries[0].parts, [IpSetPart::Addresses(net.into())]);
        assert!(set.entries[0].nomatch);
    }

    #[test]
    fn a_set_that_is_too_large_says_so_and_garbage_is_nothing() {
        let one = nested(&[(0x8001, &ip("10.0.0.1"))]);
        let mut set = IpSet::default();
        assert!(!add(&mut set, &message("hash:ip", &[one.clone(), one]), 1));
        assert_eq!(set.entries.len(), 1);
        let mut set = IpSet::default();
        assert!(add(&mut set, &[1, 2, 3], 1) && set.kind.is_empty());
        let _ = add(&mut set, &[0xff; 64], 1);
    }
}
