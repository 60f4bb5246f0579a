//! Texts of /proc → values. Pure; what does not parse is left out.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::super::traffic::{Socket, SocketProto};

/// TCP_LISTEN (include/net/tcp_states.h).
const LISTEN: u8 = 0x0a;

/// `ipv4/conf/flannel.1/rp_filter` → `net.ipv4.conf.flannel/1.rp_filter`, as sysctl(8) writes it.
pub(super) fn sysctl_name(path: &str) -> String {
    let swapped = path.chars().map(|c| match c {
        '/' => '.',
        '.' => '/',
        c => c,
    });
    "net.".chars().chain(swapped).collect()
}

/// `/proc/net/snmp` and `netstat`: a line of names, and a line of as many numbers, each behind the
/// protocol's name.
pub(super) fn counters_in_pairs(text: &str) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    let mut lines = text.lines();
    while let (Some(names), Some(values)) = (lines.next(), lines.next()) {
        let (Some((group, names)), Some((same, values))) =
            (names.split_once(':'), values.split_once(':'))
        else {
            continue;
        };
        if group != same {
            continue;
        }
        for (name, value) in names.split_whitespace().zip(values.split_whitespace()) {
            // Negative: "no limit", which is no counter.
            if let Ok(value) = value.parse() {
                found.insert(format!("{group}.{name}"), value);
            }
        }
    }
    found
}

/// `/proc/net/snmp6` and `xfrm_stat`: a name and a number in each line, the name beginning with
/// the protocol's.
pub(super) fn counters_in_lines(text: &str) -> BTreeMap<String, u64> {
    const GROUPS: [&str; 5] = ["Ip6", "Icmp6", "UdpLite6", "Udp6", "Xfrm"];
    let counter = |line: &str| {
        let (name, value) = line.split_once(char::is_whitespace)?;
        let group = GROUPS.into_iter().find(|group| name.starts_with(group))?;
        let rest = name.get(group.len()..).filter(|rest| !rest.is_empty())?;
        Some((format!("{group}.{rest}"), value.trim().parse().ok()?))
    };
    text.lines().filter_map(counter).collect()
}

/// A line of `/proc/net/{tcp,tcp6,udp,udp6}` (net/ipv4/tcp_ipv4.c, get_tcp4_sock): a listening TCP
/// socket, or any UDP socket.
pub(super) fn socket(proto: SocketProto, line: &str) -> Option<Socket> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let local = socket_address(fields.get(1)?)?;
    let remote = socket_address(fields.get(2)?)?;
    let state = u8::from_str_radix(fields.get(3)?, 16).ok()?;
    if proto == SocketProto::Tcp && state != LISTEN {
        return None;
    }
    let rx_queue = fields.get(4)?.split_once(':')?.1;
    let drops = match proto {
        SocketProto::Tcp => None,
        SocketProto::Udp => fields.get(12).and_then(|d| d.parse().ok()),
    };
    Some(Socket {
        proto,
        local,
        remote: Some(remote).filter(|r| r.port() != 0),
        rx_queue: u64::from_str_radix(rx_queue, 16).ok()?,
        drops,
        inode: fields.get(9)?.parse().ok()?,
    })
}

/// `0100007F:1F90`: words of 32 bits as they lie in memory, and the port as a number.
fn socket_address(text: &str) -> Option<SocketAddr> {
    let (words, port) = text.split_once(':')?;
    let word = |at: usize| {
        let digits = words.get(at * 8..at * 8 + 8)?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
    };
    let ip = match words.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        32 => {
            let mut bytes = [0; 16];
            for (at, four) in bytes.chunks_exact_mut(4).enumerate() {
                four.copy_from_slice(&word(at)?);
            }
            IpAddr::V6(Ipv6Addr::from(bytes))
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

/// `/proc/net/stat/nf_conntrack`: names, then a line of hexadecimal numbers per processor.
pub(super) fn conntrack_stats(text: &str) -> BTreeMap<String, u64> {
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next().unwrap_or_default().split_whitespace().collect();
    let mut sums = BTreeMap::new();
    for line in lines {
        for (name, value) in names.iter().zip(line.split_whitespace()) {
            // The number of entries stands in each line as a whole.
            if *name != "entries"
                && let Ok(value) = u64::from_str_radix(value, 16)
            {
                let sum: &mut u64 = sums.entry((*name).to_owned()).or_default();
                *sum = sum.saturating_add(value);
            }
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parameters_are_named_as_sysctl_names_them() {
        assert_eq!(sysctl_name("ipv4/ip_forward"), "net.ipv4.ip_forward");
        let path = "ipv4/conf/flannel.1/rp_filter";
        assert_eq!(sysctl_name(path), "net.ipv4.conf.flannel/1.rp_filter");
    }

    #[test]
    fn counters_of_a_real_kernel() {
        let found = counters_in_pairs(include_str!("../fixtures/snmp.txt"));
        assert_eq!(found.get("Ip.InReceives"), Some(&30));
        assert_eq!(found.get("Ip.InAddrErrors"), Some(&0));
        assert_eq!(found.get("IcmpMsg.OutType3"), Some(&3));
        assert_eq!(found.get("Udp.RcvbufErrors"), Some(&15));
        assert_eq!(found.get("Tcp.MaxConn"), None, "-1 is no count");
        let found = counters_in_pairs(include_str!("../fixtures/netstat.txt"));
        assert!(found.contains_key("TcpExt.ListenOverflows"));
        assert!(found.contains_key("IpExt.InNoRoutes"));
        let found = counters_in_lines(include_str!("../fixtures/snmp6.txt"));
        assert!(found.contains_key("Ip6.InNoRoutes"));
        assert!(found.contains_key("Icmp6.InDestUnreachs"));
        assert!(found.contains_key("UdpLite6.InErrors"));
        assert_eq!(found.get("Udp6.NoPorts"), Some(&0));
    }

    #[test]
    fn sockets_of_a_real_kernel() {
        let all = |proto, text: &str| -> Vec<Socket> {
            text.lines().skip(1).filter_map(|line| socket(proto, line)).collect()
        };
        let tcp = all(SocketProto::Tcp, include_str!("../fixtures/tcp.txt"));
        assert_eq!(tcp.len(), 1, "established connections are left out");
        assert_eq!(tcp[0].local, "10.10.0.2:8080".parse().unwrap());
        let udp6 = all(SocketProto::Udp, include_str!("../fixtures/udp6.txt"));
        let local: Vec<_> = udp6.iter().map(|s| s.local.to_string()).collect();
        assert_eq!(local, ["[::]:5353", "[::1]:5354"]);
        assert_eq!(udp6[0].drops, Some(0));
        let udp = all(SocketProto::Udp, include_str!("../fixtures/udp.txt"));
        assert_eq!(udp.len(), 2);
        assert_eq!(udp[0].drops, Some(15));
        assert_eq!(udp[0].rx_queue, 0x1040);
    }

    #[test]
    fn a_socket_takes_what_it_is_bound_to() {
        let text = include_str!("../fixtures/udp6.txt");
        let any = socket(SocketProto::Udp, text.lines().nth(1).unwrap()).unwrap();
        let ip = |text: &str| text.parse().unwrap();
        assert!(any.takes(SocketProto::Udp, ip("10.0.0.1"), 5353));
        assert!(any.takes(SocketProto::Udp, ip("fd00::1"), 5353));
        assert!(!any.takes(SocketProto::Tcp, ip("fd00::1"), 5353));
        assert!(!any.takes(SocketProto::Udp, ip("fd00::1"), 5354));
    }

    #[test]
    fn statistics_are_summed_over_processors() {
        let text = "entries  found invalid drop\n00000007 00000001 0000000a 00000000\n00000007 00000002 00000010 000000ff\n";
        let found = conntrack_stats(text);
        let want = [("drop", 255), ("found", 3), ("invalid", 26)];
        assert_eq!(found, want.map(|(n, v)| (n.to_owned(), v)).into());
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange(text in "[ -~\n\t]{0,400}", junk in "\\PC{0,200}") {
            for text in [&text, &junk] {
                counters_in_pairs(text);
                counters_in_lines(text);
                conntrack_stats(text);
                for line in text.lines() {
                    socket(SocketProto::Udp, line);
                    socket_address(line);
                }
            }
        }
    }
}
