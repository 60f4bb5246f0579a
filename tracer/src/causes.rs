//! The list of causes: stable codes `area.cause`, one line each. Each has a page under docs/causes.

/// A cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cause {
    /// `vxlan.fdb-missing`.
    pub code: &'static str,
    /// One line, without a full stop.
    pub title: &'static str,
    /// Its page, Markdown.
    pub page: &'static str,
}

macro_rules! cause {
    ($code:literal, $title:literal $(,)?) => {
        Cause {
            code: $code,
            title: $title,
            page: include_str!(concat!("../../docs/causes/", $code, ".md")),
        }
    };
}

/// Every cause, by area.
pub const CAUSES: &[Cause] = &[
    cause!("forwarding.disabled", "The node does not forward packets (ip_forward is off)"),
    cause!("netfilter.drop", "A firewall rule drops the packet"),
    cause!("netfilter.policy", "The policy of a firewall chain drops what no rule accepts"),
    cause!("netfilter.reject", "A firewall rule refuses the packet and tells the sender"),
    cause!("netfilter.conntrack-full", "The table of tracked connections is full"),
    cause!("netfilter.conntrack-clash", "Two connections claim the same tracked tuple"),
    cause!("netfilter.invalid", "Connection tracking finds the packet invalid and a rule drops it"),
    cause!(
        "netfilter.masquerade-missing",
        "A pod's address leaves the node untranslated, and nobody outside answers it"
    ),
    cause!("netfilter.masquerade-unexpected", "Traffic between pods is masqueraded"),
    cause!("netfilter.queue", "A rule hands the packet to a program, and none takes it"),
    cause!("netfilter.redirected", "A rule sends the packet to another destination"),
    cause!("netfilter.snat-exhausted", "No source port is left for masquerading"),
    cause!("vxlan.vni-mismatch", "The nodes' VXLAN devices have different network identifiers"),
    cause!("vxlan.port-mismatch", "The nodes' VXLAN devices use different UDP ports"),
    cause!("vxlan.fdb-missing", "No forwarding entry says which node has the MAC address"),
    cause!("vxlan.fdb-wrong", "A forwarding entry leads to an address where no node is"),
    cause!("vxlan.fdb-self", "A forwarding entry leads back to the node itself"),
    cause!("vxlan.mac-stale", "The other node's VXLAN device has another MAC address by now"),
    cause!("vxlan.mac-duplicate", "Both nodes' VXLAN devices have the same MAC address"),
    cause!("vxlan.device-down", "The VXLAN device is down"),
    cause!("vxlan.device-missing", "The VXLAN device does not exist"),
    cause!(
        "vxlan.local-address",
        "The VXLAN device sends from an address that the node does not have",
    ),
    cause!(
        "vxlan.address-missing",
        "The VXLAN device has lost its address, and its routes with it"
    ),
    cause!("vxlan.ecn", "The outer packet is marked congested, the inner one cannot carry that"),
    cause!("vxlan.learning", "The VXLAN device learns addresses from what it receives"),
    cause!("neighbor.missing", "No neighbour entry for the next hop, and nobody answers for it"),
    cause!("neighbor.failed", "Nobody answers the address resolution of the next hop"),
    cause!(
        "neighbor.queue-full",
        "More packets waited for the next hop's hardware address than its queue holds",
    ),
    cause!("neighbor.wrong-mac", "A neighbour entry has a MAC address that is not the next hop's"),
    cause!("neighbor.arp-ignored", "The next hop is there but does not answer address resolution"),
    cause!("checksum.outer-udp", "The UDP checksum around the tunnelled packet is wrong"),
    cause!("checksum.outer-ip", "The IP header checksum is wrong"),
    cause!("checksum.inner", "The checksum of the packet inside the tunnel is wrong"),
    cause!("route.missing", "There is no route to the destination"),
    cause!("route.wrong-device", "The route leads out of the wrong interface"),
    cause!("route.gateway-dead", "The route leads to a gateway that does not answer"),
    cause!("route.blackhole", "A blackhole route swallows the packet"),
    cause!("route.unreachable", "A route declares the destination unreachable"),
    cause!("route.prohibit", "A route declares the destination prohibited"),
    cause!("route.rule-hijack", "A policy rule takes the traffic to another routing table"),
    cause!("route.rp-filter", "The reverse path filter refuses the source"),
    cause!("route.martian-source", "The source address is the node's own"),
    cause!("route.loop", "The packet goes round in circles between the nodes"),
    cause!("route.ttl-expired", "The packet's time to live is used up on the way"),
    cause!("route.xfrm-policy", "An IPsec policy blocks the packet, or takes it"),
    cause!("bridge.wrong-address", "The pods' bridge has an address of another network"),
    cause!("bridge.port-detached", "The pod's veth is no port of the bridge"),
    cause!("bridge.down", "The pods' bridge is down"),
    cause!("bridge.missing", "The pods' bridge does not exist"),
    cause!("bridge.fdb-wrong", "The bridge sends the pod's frames to another port"),
    cause!("bridge.port-blocking", "The bridge port is not forwarding (spanning tree)"),
    cause!("bridge.port-isolated", "Bridge ports are isolated from each other"),
    cause!("bridge.veth-down", "The node's end of the pod's veth is down"),
    cause!("bridge.hairpin-off", "The bridge port does not send back where a packet came from"),
    cause!("bridge.duplicate-mac", "Two pods of the bridge have the same MAC address"),
    cause!("pod.no-default-route", "The pod has no route back"),
    cause!("pod.interface-down", "The pod's interface is down"),
    cause!("pod.gone", "No pod has the address any more"),
    cause!("pod.duplicate-address", "The pod's address exists twice"),
    cause!("pod.icmp-ignored", "The pod is told not to answer pings"),
    cause!("underlay.link-down", "A node's physical interface or its link is down"),
    cause!("underlay.no-answer", "An address outside does not answer what left for it"),
    cause!(
        "underlay.duplicate-address",
        "A node has the address of another node on one of its interfaces"
    ),
    cause!("underlay.lost", "The packet left one node and never reached the other"),
    cause!("underlay.tunnel-blocked", "Something between the nodes blocks the tunnel's UDP port"),
    cause!("underlay.source-check", "The network between the nodes refuses pod addresses"),
    cause!("underlay.random-loss", "The network between the nodes loses some packets"),
    cause!("tc.xdp-drop", "An XDP program drops the packet"),
    cause!("tc.program-drop", "A tc program or filter drops the packet"),
    cause!("tc.queue-full", "A queue is full"),
    cause!("tc.rate-limited", "A queueing discipline slows the traffic down"),
    cause!("tc.starved", "A queueing discipline holds packets back for ever"),
    cause!("tc.foreign-program", "Another program sees, and may change or drop, the packets"),
    cause!("mtu.underlay-too-small", "The network between the nodes takes no packets this large"),
    cause!("mtu.outer-fragmented", "The tunnel's packets are fragmented"),
    cause!("mtu.pod-too-large", "The pod's MTU is larger than the tunnel's"),
    cause!("mtu.icmp-blocked", "The sender is not told that its packets are too large"),
    cause!("socket.no-listener", "Nothing listens on the port"),
    cause!("socket.buffer-full", "The receiver does not read: its buffer is full"),
    cause!("socket.backlog-full", "The server does not accept: its backlog is full"),
    cause!("service.no-rules", "No rule translates the service address"),
    cause!("policy.denied", "A NetworkPolicy denies the packet"),
    cause!("service.no-endpoints", "The service has no pod that is ready"),
    cause!("service.no-port", "The service has no such port"),
    cause!("service.not-found", "No service has the address"),
    cause!("service.dead-endpoint", "The service leads to a pod that does not exist"),
    cause!(
        "service.bridge-nf-off",
        "Bridged packets pass no netfilter: replies are not translated back",
    ),
    cause!("service.stale-conntrack", "A tracked connection still leads to a pod that has gone"),
    cause!("service.nodeport-no-snat", "Replies bypass the node that translated the request"),
    cause!(
        "service.no-local-endpoint",
        "The node has no endpoint of a service with local traffic policy",
    ),
    cause!("service.route-localnet", "NodePorts on 127.0.0.1 are not routed"),
    cause!("tun.reader-hung", "The program behind the tunnel device does not read"),
    cause!("tun.reader-gone", "No program is behind the tunnel device"),
    cause!("kernel.drop", "The kernel dropped the packet for another reason"),
];

/// The page of a cause; `None` where there is no such code.
pub fn page(code: &str) -> Option<&'static str> {
    CAUSES.iter().find(|cause| cause.code == code).map(|cause| cause.page)
}

/// One line about a cause; `None` where there is no such code.
pub fn title(code: &str) -> Option<&'static str> {
    CAUSES.iter().find(|cause| cause.code == code).map(|cause| cause.title)
}

/// The code most like `code`; `None` where none is.
pub fn nearest(code: &str) -> Option<&'static str> {
    nearest_of(code, CAUSES.iter().map(|cause| cause.code))
}

/// The name most like `name`, where at most a third of it is different or one contains the other.
pub(crate) fn nearest_of<'n>(
    name: &str,
    names: impl Iterator<Item = &'n str> + Clone,
) -> Option<&'n str> {
    let part = |other: &&str| name.len() > 2 && other.contains(name);
    let near = names.clone().map(|other| (distance(name, other), other)).min();
    match near {
        Some((distance, other)) if distance * 3 <= name.len().max(other.len()) => Some(other),
        _ => names.clone().find(part),
    }
}

/// Edits (insert, delete, replace) from one to the other (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn codes_are_unique_and_well_formed() {
        let codes: BTreeSet<_> = CAUSES.iter().map(|cause| cause.code).collect();
        assert_eq!(codes.len(), CAUSES.len());
        for code in codes {
            let (area, cause) = code.split_once('.').expect("area.cause");
            let kebab = |s: &str| s.chars().all(|c| c.is_ascii_lowercase() || c == '-');
            assert!(kebab(area) && kebab(cause), "{code}");
        }
        assert!(CAUSES.iter().all(|cause| !cause.title.ends_with('.')));
    }

    #[test]
    fn pages_have_their_parts() {
        for cause in CAUSES {
            let head = format!("# {}\n\n{}.\n", cause.code, cause.title);
            assert!(cause.page.starts_with(&head), "{}", cause.code);
            for part in ["What it is", "How it looks", "Why it happens", "How to mend it"] {
                assert!(cause.page.contains(&format!("\n## {part}\n\n")), "{}", cause.code);
            }
        }
    }

    #[test]
    fn typing_errors_find_the_nearest() {
        assert_eq!(nearest("vxlan.fdb-mising"), Some("vxlan.fdb-missing"));
        assert_eq!(nearest("fdb-self"), Some("vxlan.fdb-self"));
        assert_eq!(nearest("zzzzzz"), None);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
