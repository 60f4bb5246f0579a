//! What to look at next, by the kernel's reason. Commands that show, not guesses that change.

use std::net::IpAddr;

use crate::report::Place;

/// Steps for a drop by the kernel. `src`, `dst`: addresses of the dropped packet.
pub fn for_drop(
    reason: &str,
    hook: Option<&str>,
    place: &Place,
    ends: Option<(IpAddr, IpAddr)>,
) -> Vec<String> {
    let at = on(place);
    let dev = place.interface.as_deref().map_or_else(String::new, |name| format!(" dev {name}"));
    let in_stage = |name| place.stage.as_deref() == Some(name);
    match reason {
        "NETFILTER_DROP" => {
            let hook = hook.map_or_else(String::new, |hook| format!(" of the {hook} hook"));
            let mut steps = vec![
                format!("{at}: nft list ruleset (drop rules, reject rules and drop policies{hook})"),
                format!("{at}: iptables-save -c; iptables-legacy-save -c (counters that rise)"),
            ];
            // nft drops inside its own function: this one is xtables', or conntrack's.
            if place.function.as_deref() == Some("nf_hook_slow") {
                steps.push(format!("{at}: conntrack -S (drop, insert_failed: full, or a clash)"));
            }
            steps
        }
        "NO_SOCKET" => vec![format!("{at}: ss -lntu (is anything listening on this port and address?)")],
        "NO_TX_TARGET" if in_stage("encap") => vec![
            format!("{at}: bridge fdb show{dev} (an entry for the destination MAC is missing)"),
            format!("{at}: ip neigh show{dev}"),
        ],
        "OTHERHOST" => vec![
            format!("{at}: ip link show{dev} (compare its MAC with the packet's destination MAC)"),
            "on the sending node: ip neigh show; bridge fdb show (a stale MAC)".to_owned(),
        ],
        "QDISC_DROP" | "QDISC_OVERLIMIT" => vec![
            format!("{at}: tc -s qdisc show{dev}"),
            format!("{at}: ip -s link show{dev} (is it up, and does it have a carrier?)"),
        ],
        "PKT_TOO_BIG" => vec![
            format!("{at}: ip link show (which interface has the smaller MTU?)"),
            "let ICMP \"fragmentation needed\" pass back to the sender".to_owned(),
        ],
        "IP_RPFILTER" => vec![
            format!("{at}: {}", route_get(ends.map(|(src, _)| src))),
            format!("{at}: sysctl -a | grep '\\.rp_filter'"),
        ],
        "IP_INADDRERRORS" => vec![
            format!("{at}: sysctl net.ipv4.ip_forward"),
            format!("{at}: {}", route_get(ends.map(|(_, dst)| dst))),
        ],
        "SOCKET_RCVBUFF" | "SOCKET_BACKLOG" | "PROTO_MEM" => vec![
            format!("{at}: ss -nmtu (the receiver does not keep up with its socket)"),
            format!("{at}: nstat -az | grep -i -e RcvbufErrors -e Backlog"),
        ],
        _ if reason.starts_with("NEIGH_") => vec![
            format!("{at}: ip neigh show{dev} (INCOMPLETE or FAILED: nobody answered)"),
            format!("{at}: {}", route_get(ends.map(|(_, dst)| dst))),
        ],
        _ if reason.starts_with("VXLAN_") || in_stage("decap") || in_stage("encap") => vec![
            format!("{at}: ip -d link show type vxlan (compare VNI, port and MAC of both nodes)"),
            format!("{at}: bridge fdb show{dev}"),
        ],
        _ if reason.ends_with("_CSUM") => vec![
            format!("{at}: nstat -az | grep -i csum"),
            "on the sending node: ethtool -k of the VXLAN and the physical interface (checksum offload)"
                .to_owned(),
        ],
        _ if reason.starts_with("BRIDGE_") || in_stage("bridge") => vec![
            format!("{at}: bridge -d link show"),
            format!("{at}: ip link show{dev}"),
        ],
        _ if in_stage("route") => vec![
            format!("{at}: {}", route_get(ends.map(|(_, dst)| dst))),
            format!("{at}: ip rule show; ip route show table all"),
        ],
        _ => vec![
            format!("{at}: nstat -az; ip -s link show{dev} (counters that rise with the packets)"),
            format!("look up SKB_DROP_REASON_{reason} in the kernel's include/net/dropreason-core.h"),
        ],
    }
}

fn route_get(ip: Option<IpAddr>) -> String {
    ip.map_or_else(|| "ip route show".to_owned(), |ip| format!("ip route get {ip}"))
}

/// `on A`, `in pod B.b`
pub fn on(place: &Place) -> String {
    match (&place.node, &place.pod) {
        (Some(node), Some(pod)) => format!("in pod {node}.{pod}"),
        (Some(node), None) => format!("on {node}"),
        (None, _) => "there".to_owned(),
    }
}
