//! Entries of connection tracking and IPsec policies, from netlink.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use rtnetlink::sys::protocols::{NETLINK_NETFILTER, NETLINK_XFRM};

use super::dump::{attributes, bytes, dump, number16, number32};
use super::traffic::{ConntrackEntry, Tuple, XfrmPolicy};
use super::types::{Gap, NetnsFacts};

/// NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET (include/uapi/linux/netfilter/nfnetlink.h and
/// nfnetlink_conntrack.h).
const CONNTRACK_GET: u16 = 1 << 8 | 1;
/// XFRM_MSG_GETPOLICY (include/uapi/linux/xfrm.h).
const POLICY_GET: u16 = 0x15;
/// Size of `struct nfgenmsg`, bytes.
const NFGENMSG: usize = 4;
/// Size of `struct xfrm_userpolicy_id`, bytes.
const POLICY_ID: usize = 64;
/// Entries looked at, at most: a gateway may have a million.
const MAX_LOOKED_AT: usize = 100_000;
/// Entries kept, at most.
const MAX_KEPT: usize = 1_000;
/// IPPROTO_UDP.
const UDP: u8 = 17;

/// Reads both; a namespace without connection tracking has no entries.
pub(super) fn read(facts: &mut NetnsFacts, of: &[IpAddr]) {
    if facts.conntrack.as_ref().is_some_and(|c| c.count != Some(0)) {
        let ports: Vec<u16> =
            facts.links.iter().filter_map(|l| Some(l.vxlan.as_ref()?.port)).collect();
        read_entries(facts, |entry| concerns(entry, of, &ports));
    }
    let mut policies = Vec::new();
    let result = dump(NETLINK_XFRM, POLICY_GET, &[0; POLICY_ID], |body| {
        policies.extend(policy(body));
        true
    });
    facts.xfrm = policies;
    match result {
        Err(e) if !is_absent(&e) => facts.gaps.push(gap("IPsec policies", &e)),
        _ => {}
    }
}

fn gap(source: &str, error: &io::Error) -> Gap {
    Gap { source: source.to_owned(), reason: error.to_string() }
}

/// This kernel has no such thing, so there is nothing to read.
fn is_absent(error: &io::Error) -> bool {
    use nix::errno::Errno;
    [Errno::EPROTONOSUPPORT, Errno::EAFNOSUPPORT, Errno::EOPNOTSUPP]
        .iter()
        .any(|e| error.raw_os_error() == Some(*e as i32))
}

fn read_entries(facts: &mut NetnsFacts, wanted: impl Fn(&ConntrackEntry) -> bool) {
    let (mut entries, mut looked_at, mut truncated) = (Vec::new(), 0, false);
    // `struct nfgenmsg`: every family, version 0.
    let result = dump(NETLINK_NETFILTER, CONNTRACK_GET, &[0; NFGENMSG], |body| {
        looked_at += 1;
        truncated = looked_at > MAX_LOOKED_AT || entries.len() >= MAX_KEPT;
        entries.extend(body.get(NFGENMSG..).and_then(entry).filter(|e| wanted(e)));
        !truncated
    });
    if let Some(conntrack) = &mut facts.conntrack {
        conntrack.entries = entries;
        conntrack.truncated = truncated;
    }
    if let Err(e) = result {
        facts.gaps.push(gap("conntrack entries", &e));
    }
}

/// Has one of the addresses, or is a tunnel of this namespace.
fn concerns(entry: &ConntrackEntry, of: &[IpAddr], tunnels: &[u16]) -> bool {
    let ends = [entry.original.src, entry.original.dst, entry.reply.src, entry.reply.dst];
    ends.iter().any(|ip| of.contains(ip))
        || entry.proto == UDP && entry.original.dport.is_some_and(|p| tunnels.contains(&p))
}

/// Attributes of an entry (`CTA_*`); numbers are in network byte order.
fn entry(message: &[u8]) -> Option<ConntrackEntry> {
    const ORIGINAL: u16 = 1;
    const REPLY: u16 = 2;
    const STATUS: u16 = 3;
    const PROTOINFO: u16 = 4;
    const TIMEOUT: u16 = 7;
    const MARK: u16 = 8;
    const ZONE: u16 = 18;
    let (mut original, mut reply, mut tcp_state, mut timeout) = (None, None, None, None);
    let (mut status, mut mark, mut zone) = (0, 0, 0);
    for (kind, value) in attributes(message) {
        match kind {
            ORIGINAL => original = tuple(value),
            REPLY => reply = tuple(value),
            STATUS => status = big32(value)?,
            PROTOINFO => tcp_state = state(value),
            TIMEOUT => timeout = big32(value),
            MARK => mark = big32(value)?,
            ZONE => zone = big16(value)?,
            _ => {}
        }
    }
    let (proto, original) = original?;
    let (_, reply) = reply?;
    Some(ConntrackEntry { original, reply, proto, status, tcp_state, mark, zone, timeout })
}

/// Protocol and addresses of one direction (`CTA_TUPLE_*`, `CTA_IP_*`, `CTA_PROTO_*`).
fn tuple(value: &[u8]) -> Option<(u8, Tuple)> {
    const IP: u16 = 1;
    const PROTO: u16 = 2;
    let (mut src, mut dst, mut proto) = (None, None, None);
    let (mut sport, mut dport) = (None, None);
    let (mut icmp_kind, mut icmp_code, mut icmp_id) = (None, None, None);
    for (kind, value) in attributes(value) {
        for (field, value) in attributes(value) {
            match (kind, field) {
                (IP, 1 | 3) => src = address(value),
                (IP, 2 | 4) => dst = address(value),
                (PROTO, 1) => proto = value.first().copied(),
                (PROTO, 2) => sport = big16(value),
                (PROTO, 3) => dport = big16(value),
                (PROTO, 4 | 7) => icmp_id = big16(value),
                (PROTO, 5 | 8) => icmp_kind = value.first().copied(),
                (PROTO, 6 | 9) => icmp_code = value.first().copied(),
                _ => {}
            }
        }
    }
    let icmp = icmp_kind.zip(icmp_code).zip(icmp_id).map(|((kind, code), id)| (kind, code, id));
    Some((proto?, Tuple { src: src?, dst: dst?, sport, dport, icmp }))
}

/// CTA_PROTOINFO_TCP → CTA_PROTOINFO_TCP_STATE (`enum tcp_conntrack`).
fn state(value: &[u8]) -> Option<String> {
    const NAMES: [&str; 10] = [
        "NONE",
        "SYN_SENT",
        "SYN_RECV",
        "ESTABLISHED",
        "FIN_WAIT",
        "CLOSE_WAIT",
        "LAST_ACK",
        "TIME_WAIT",
        "CLOSE",
        "SYN_SENT2",
    ];
    let (_, tcp) = attributes(value).find(|(kind, _)| *kind == 1)?;
    let (_, state) = attributes(tcp).find(|(kind, _)| *kind == 1)?;
    NAMES.get(usize::from(*state.first()?)).map(|name| (*name).to_owned())
}

fn big16(value: &[u8]) -> Option<u16> {
    bytes(value, 0).map(u16::from_be_bytes)
}

fn big32(value: &[u8]) -> Option<u32> {
    bytes(value, 0).map(u32::from_be_bytes)
}

fn address(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => bytes(value, 0).map(|b: [u8; 4]| IpAddr::V4(Ipv4Addr::from(b))),
        16 => bytes(value, 0).map(|b: [u8; 16]| IpAddr::V6(Ipv6Addr::from(b))),
        _ => None,
    }
}

/// `struct xfrm_userpolicy_info` (include/uapi/linux/xfrm.h): a selector of 56 bytes, lifetimes of
/// 96, then the policy itself.
fn policy(body: &[u8]) -> Option<XfrmPolicy> {
    const AF_INET: u16 = 2;
    const AF_INET6: u16 = 10;
    let family = number16(body, 40)?;
    let side = |at: usize, length: u8| {
        let ip = match family {
            AF_INET => IpAddr::from(bytes::<4>(body, at)?),
            AF_INET6 => IpAddr::from(bytes::<16>(body, at)?),
            _ => return None,
        };
        IpNet::new(ip, length).ok()
    };
    let direction = match body.get(160)? {
        0 => "in",
        1 => "out",
        2 => "fwd",
        // Of one socket.
        _ => return None,
    };
    Some(XfrmPolicy {
        direction: direction.to_owned(),
        dst: side(0, *body.get(42)?)?,
        src: side(16, *body.get(43)?)?,
        proto: *body.get(44)?,
        block: *body.get(161)? == 1,
        priority: number32(body, 152)?,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(value.len() + 4).unwrap();
        let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn direction(src: [u8; 4], dst: [u8; 4], sport: u16, dport: u16) -> Vec<u8> {
        let ip = [attribute(1, &src), attribute(2, &dst)].concat();
        let proto = [
            attribute(1, &[6]),
            attribute(2, &sport.to_be_bytes()),
            attribute(3, &dport.to_be_bytes()),
        ];
        [attribute(1 | 0x8000, &ip), attribute(2 | 0x8000, &proto.concat())].concat()
    }

    #[test]
    fn an_entry_with_translated_destination() {
        let message = [
            attribute(1 | 0x8000, &direction([10, 0, 0, 2], [10, 96, 0, 10], 4000, 80)),
            attribute(2 | 0x8000, &direction([10, 0, 1, 2], [10, 0, 0, 2], 8080, 4000)),
            attribute(3, &0x2e_u32.to_be_bytes()),
            attribute(4, &attribute(1, &attribute(1, &[3]))),
            attribute(8, &7_u32.to_be_bytes()),
        ]
        .concat();
        let entry = entry(&message).unwrap();
        assert_eq!(entry.proto, 6);
        assert_eq!(entry.original.dst, "10.96.0.10".parse::<IpAddr>().unwrap());
        assert_eq!(entry.reply.sport, Some(8080));
        assert_eq!(entry.tcp_state.as_deref(), Some("ESTABLISHED"));
        assert_eq!(entry.mark, 7);
        assert!(entry.destination_translated() && !entry.source_translated());
        assert!(entry.seen_reply());
        assert!(concerns(&entry, &["10.0.1.2".parse().unwrap()], &[]));
        assert!(!concerns(&entry, &["10.0.1.3".parse().unwrap()], &[80]));
    }

    proptest! {
        #[test]
        fn no_message_is_too_strange(message in proptest::collection::vec(any::<u8>(), 0..300)) {
            entry(&message);
            policy(&message);
        }
    }
}
