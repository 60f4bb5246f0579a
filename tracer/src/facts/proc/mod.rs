//! Reads what /proc tells of the calling thread's network namespace.

mod parse;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use super::traffic::{Conntrack, Socket, SocketProto};
use super::types::{Gap, NetnsFacts};

/// `/proc/sys/net` is that of the namespace of the thread that opens it.
const SYSCTLS: &str = "/proc/sys/net";
/// Not `/proc/net`: that is the namespace of the process's first thread.
const TABLES: &str = "/proc/thread-self/net";

/// Parameters of a namespace that decide what happens to packets, below [`SYSCTLS`].
const PARAMETERS: [&str; 22] = [
    "core/somaxconn",
    "ipv4/fib_multipath_hash_policy",
    "ipv4/icmp_echo_ignore_all",
    "ipv4/icmp_echo_ignore_broadcasts",
    "ipv4/icmp_ratelimit",
    "ipv4/icmp_ratemask",
    "ipv4/ip_default_ttl",
    "ipv4/ip_forward",
    "ipv4/ip_forward_use_pmtu",
    "ipv4/ip_local_port_range",
    "ipv4/ip_no_pmtu_disc",
    "ipv4/neigh/default/gc_thresh3",
    "ipv4/tcp_max_syn_backlog",
    "ipv4/tcp_mtu_probing",
    "ipv4/tcp_syncookies",
    "ipv4/udp_rmem_min",
    "ipv6/bindv6only",
    "ipv6/icmp/echo_ignore_all",
    "ipv6/icmp/echo_ignore_anycast",
    "ipv6/icmp/ratelimit",
    "ipv6/neigh/default/gc_thresh3",
    "ipv6/route/max_size",
];
/// Parameters of each interface, for IPv4.
const PER_INTERFACE_V4: [&str; 14] = [
    "accept_local",
    "arp_announce",
    "arp_filter",
    "arp_ignore",
    "disable_policy",
    "drop_unicast_in_l2_multicast",
    "forwarding",
    "ignore_routes_with_linkdown",
    "medium_id",
    "proxy_arp",
    "route_localnet",
    "rp_filter",
    "send_redirects",
    "src_valid_mark",
];
/// Parameters of each interface, for IPv6.
const PER_INTERFACE_V6: [&str; 7] = [
    "accept_dad",
    "disable_ipv6",
    "disable_policy",
    "drop_unicast_in_l2_multicast",
    "forwarding",
    "ignore_routes_with_linkdown",
    "proxy_ndp",
];

/// Reads all of it; what cannot be read is a gap.
pub(super) fn read(facts: &mut NetnsFacts) {
    let gaps = &mut facts.gaps;
    facts.sysctls = sysctls(gaps);
    facts.counters = counters(gaps);
    facts.sockets = sockets(gaps);
    facts.conntrack = conntrack(gaps);
}

/// Parses a text as each of the files.
pub(super) fn parse_all(text: &str) {
    parse::counters_in_pairs(text);
    parse::counters_in_lines(text);
    parse::conntrack_stats(text);
    for line in text.lines() {
        parse::socket(SocketProto::Tcp, line);
        parse::socket(SocketProto::Udp, line);
    }
}

fn gap(source: &str, error: &io::Error) -> Gap {
    Gap { source: source.to_owned(), reason: error.to_string() }
}

/// A file's text; `None` and no gap when this kernel has no such file.
fn text(path: &str, source: &str, gaps: &mut Vec<Gap>) -> Option<String> {
    match fs::read(path) {
        Ok(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(e) => {
            gaps.push(gap(source, &e));
            None
        }
    }
}

fn sysctls(gaps: &mut Vec<Gap>) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    if let Err(e) = fs::metadata(SYSCTLS) {
        gaps.push(gap("sysctls", &e));
        return found;
    }
    // What this kernel lacks is left out: absence of a parameter is a fact about the kernel.
    let mut add = |path: &str| {
        if let Ok(value) = fs::read_to_string(Path::new(SYSCTLS).join(path)) {
            found.insert(parse::sysctl_name(path), value.trim().replace('\t', " "));
        }
    };
    for path in PARAMETERS {
        add(path);
    }
    for directory in ["bridge", "netfilter"] {
        for name in names(directory) {
            // The number of entries is no parameter.
            if name != "nf_conntrack_count" {
                add(&format!("{directory}/{name}"));
            }
        }
    }
    for (family, parameters) in [("ipv4", &PER_INTERFACE_V4[..]), ("ipv6", &PER_INTERFACE_V6[..])] {
        for interface in names(&format!("{family}/conf")) {
            for parameter in parameters {
                add(&format!("{family}/conf/{interface}/{parameter}"));
            }
        }
    }
    found
}

/// Names in a directory below [`SYSCTLS`]; none when it is not there.
fn names(directory: &str) -> Vec<String> {
    let entries = fs::read_dir(Path::new(SYSCTLS).join(directory));
    entries
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect()
}

fn counters(gaps: &mut Vec<Gap>) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    for name in ["snmp", "netstat"] {
        if let Some(text) = text(&format!("{TABLES}/{name}"), "protocol counters", gaps) {
            found.extend(parse::counters_in_pairs(&text));
        }
    }
    for name in ["snmp6", "xfrm_stat"] {
        if let Some(text) = text(&format!("{TABLES}/{name}"), "protocol counters", gaps) {
            found.extend(parse::counters_in_lines(&text));
        }
    }
    found
}

fn sockets(gaps: &mut Vec<Gap>) -> Vec<Socket> {
    let mut found = Vec::new();
    for (name, proto) in [
        ("tcp", SocketProto::Tcp),
        ("tcp6", SocketProto::Tcp),
        ("udp", SocketProto::Udp),
        ("udp6", SocketProto::Udp),
    ] {
        if let Some(text) = text(&format!("{TABLES}/{name}"), "sockets", gaps) {
            found.extend(text.lines().skip(1).filter_map(|line| parse::socket(proto, line)));
        }
    }
    found
}

/// Limits and statistics; the entries come from netlink.
fn conntrack(gaps: &mut Vec<Gap>) -> Option<Conntrack> {
    let mut number = |name: &str| {
        let path = format!("{SYSCTLS}/netfilter/{name}");
        text(&path, "conntrack limits", gaps)?.trim().parse().ok()
    };
    let (count, max) = (number("nf_conntrack_count"), number("nf_conntrack_max"));
    let stats = text(&format!("{TABLES}/stat/nf_conntrack"), "conntrack statistics", gaps)
        .map(|text| parse::conntrack_stats(&text))
        .unwrap_or_default();
    (count.is_some() || !stats.is_empty()).then(|| Conntrack {
        count,
        max,
        stats,
        ..Conntrack::default()
    })
}
