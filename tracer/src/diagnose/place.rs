//! Where in a kernel a packet was dropped: stage and netfilter hook from the function and the
//! stack, interface and node from the namespace and the last hop.
//!
//! `skb->dev` is trusted only where the packet is on its way out: a packet that is being routed
//! still names the interface it came in by, a tunnel's outer packet the tunnel device, a socket's
//! packet often nothing. Everywhere else the interface is that of the last hop in the namespace.

use crate::model::{DropInfo, Hop, JourneyDrop, Station, Topology};
use crate::report::Place;

/// Stage of processing, with the netfilter hook where one dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stage {
    /// As in [`Place::stage`].
    pub name: &'static str,
    /// `FORWARD`, `BRIDGE/PREROUTING`, …; `None` where netfilter did not drop it.
    pub hook: Option<&'static str>,
}

/// Frames that stand for netfilter itself, whatever hook they run in.
const NETFILTER: &[&str] =
    &["nf_hook*", "nf_queue*", "nft_do_chain*", "ipt_do_table*", "ip6t_do_table*"];

/// Frames that call a netfilter hook, with the hook and the stage. br_netfilter calls the IP hooks
/// for bridged packets.
const HOOKS: &[(&str, &str, &str)] = &[
    ("nft_do_chain_netdev", "NETDEV", "receive"),
    ("nf_ingress", "NETDEV", "receive"),
    ("nft_do_chain_bridge", "BRIDGE", "bridge"),
    ("br_nf_pre_routing*", "BRIDGE/PREROUTING", "bridge"),
    ("br_nf_forward*", "BRIDGE/FORWARD", "bridge"),
    ("br_nf_post_routing*", "BRIDGE/POSTROUTING", "bridge"),
    ("br_nf_local_in*", "BRIDGE/INPUT", "bridge"),
    ("ip_rcv", "PREROUTING", "prerouting"),
    ("ip_sublist_rcv", "PREROUTING", "prerouting"),
    ("ip_list_rcv", "PREROUTING", "prerouting"),
    ("ipv6_rcv", "PREROUTING", "prerouting"),
    ("ip6_sublist_rcv", "PREROUTING", "prerouting"),
    ("ipv6_list_rcv", "PREROUTING", "prerouting"),
    ("ip_forward", "FORWARD", "forward"),
    ("ip6_forward", "FORWARD", "forward"),
    ("ip_local_deliver", "INPUT", "input"),
    ("ip6_input", "INPUT", "input"),
    ("__ip_local_out", "OUTPUT", "output"),
    ("__ip6_local_out", "OUTPUT", "output"),
    ("ip6_xmit", "OUTPUT", "output"),
    ("raw_sendmsg", "OUTPUT", "output"),
    ("rawv6_sendmsg", "OUTPUT", "output"),
    // What IPVS sends on.
    ("ip_vs_nat_xmit*", "OUTPUT", "output"),
    ("ip_vs_nat_send_or_cont*", "OUTPUT", "output"),
    ("ip_output", "POSTROUTING", "postrouting"),
    ("ip6_output", "POSTROUTING", "postrouting"),
    ("ip_mc_output", "POSTROUTING", "postrouting"),
    ("br_*", "BRIDGE", "bridge"),
    ("__br_*", "BRIDGE", "bridge"),
    ("__dev_queue_xmit", "NETDEV", "transmit"),
    ("__netif_receive_skb*", "NETDEV", "receive"),
];

/// Functions outside netfilter, with their stage; the first that matches.
const STAGES: &[(&str, &str)] = &[
    ("vxlan_rcv*", "decap"),
    ("vxlan_*", "encap"),
    ("iptunnel_xmit", "encap"),
    ("ip6tunnel_xmit", "encap"),
    ("udp_tunnel*_xmit_skb", "encap"),
    ("arp_*", "neighbor"),
    ("ndisc_*", "neighbor"),
    ("neigh_*", "neighbor"),
    ("__neigh_*", "neighbor"),
    ("ip_error", "route"),
    ("ip_route_*", "route"),
    ("ip6_route_*", "route"),
    ("ip6_pkt_*", "route"),
    ("ip_rcv_finish*", "route"),
    ("ip6_rcv_finish*", "route"),
    ("fib_*", "route"),
    ("br_*", "bridge"),
    ("__br_*", "bridge"),
    ("ip_forward*", "forward"),
    ("ip6_forward*", "forward"),
    ("ip_local_deliver*", "input"),
    ("ip6_input*", "input"),
    ("ip6_protocol_deliver_rcu", "input"),
    ("ip_protocol_deliver_rcu", "input"),
    ("__ip_local_out", "output"),
    ("__ip6_local_out", "output"),
    ("ip_output", "postrouting"),
    ("ip6_output", "postrouting"),
    ("ip_finish_output*", "postrouting"),
    ("__ip_finish_output", "postrouting"),
    ("ip6_finish_output*", "postrouting"),
    ("ip_fragment*", "postrouting"),
    ("ip_do_fragment", "postrouting"),
    ("ip6_fragment", "postrouting"),
    ("ip_rcv_core", "receive"),
    ("ip6_rcv_core", "receive"),
    ("ip_defrag*", "receive"),
    ("ip_expire", "receive"),
    ("ip6frag_*", "receive"),
    ("ip6_frag_*", "receive"),
    ("inet_frag*", "receive"),
    ("nf_ct_frag*", "receive"),
    ("__netif_receive_skb*", "receive"),
    ("netif_receive*", "receive"),
    ("enqueue_to_backlog", "receive"),
    ("process_backlog", "receive"),
    ("do_xdp_generic", "receive"),
    ("veth_xdp_*", "receive"),
    ("sch_handle_ingress", "receive"),
    ("__dev_queue_xmit", "transmit"),
    ("dev_hard_start_xmit", "transmit"),
    ("__dev_forward_skb*", "transmit"),
    ("veth_*", "transmit"),
    ("tun_*", "transmit"),
    ("validate_xmit_*", "transmit"),
    ("sch_*", "transmit"),
    ("qdisc_*", "transmit"),
    ("tbf_*", "transmit"),
    ("netem_*", "transmit"),
    ("htb_*", "transmit"),
    ("fq_*", "transmit"),
    ("tcp_*", "socket"),
    ("__tcp_*", "socket"),
    ("udp_*", "socket"),
    ("__udp*", "socket"),
    ("udpv6_*", "socket"),
    ("icmp_*", "socket"),
    ("icmpv6_*", "socket"),
    ("ping_*", "socket"),
    ("raw_*", "socket"),
    ("rawv6_*", "socket"),
    ("sock_*", "socket"),
    ("sk_*", "socket"),
];

/// The stage at which the kernel dropped a packet; `None` where no frame is known.
pub fn stage(info: &DropInfo) -> Option<Stage> {
    let frames =
        || [info.function.as_str()].into_iter().chain(info.stack.iter().map(String::as_str));
    let in_netfilter = |frame: &str| NETFILTER.iter().any(|pattern| matches(pattern, frame));
    if frames().take_while(|frame| !is_known(frame)).any(in_netfilter)
        || in_netfilter(&info.function)
    {
        // The first known frame outside netfilter called the hook. Over veth the rest of the packet's
        // way is further out on the same stack.
        let hook = frames().find_map(|frame| HOOKS.iter().find(|(p, ..)| matches(p, frame)));
        if let Some(&(_, hook, name)) = hook {
            // Of both, the inner one called it.
            let leaves = frames()
                .find(|f| *f == "__dev_queue_xmit" || f.starts_with("__netif_receive_skb"))
                .is_some_and(|f| f == "__dev_queue_xmit");
            let name = if hook == "NETDEV" && leaves { "transmit" } else { name };
            return Some(Stage { name, hook: Some(hook) });
        }
    }
    let name = frames().find_map(|frame| STAGES.iter().find(|(p, _)| matches(p, frame)))?.1;
    Some(Stage { name, hook: None })
}

/// Whether a frame decides a stage without netfilter.
fn is_known(frame: &str) -> bool {
    STAGES.iter().any(|(pattern, _)| matches(pattern, frame))
}

/// Matches a name against a pattern with at most one `*`.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        Some((start, end)) => {
            name.len() >= start.len() + end.len() && name.starts_with(start) && name.ends_with(end)
        }
        None => pattern == name,
    }
}

/// Whether the packet was on its way out, so that `skb->dev` is the interface it was to leave by.
fn is_leaving(stage: Option<Stage>) -> bool {
    stage.is_some_and(|s| {
        matches!(s.name, "postrouting" | "transmit" | "neighbor") || s.hook == Some("NETDEV")
    })
}

/// Where a drop happened. `last`: the last hop before it, if any.
pub fn place(topology: &Topology, drop: &JourneyDrop, last: Option<&Hop>) -> Place {
    let stage = stage(&drop.info);
    let last = last.map(|hop| topology.station(hop.point.station));
    let owner = topology.stations.iter().find(|s| s.netns_inum == drop.netns_inum).or_else(|| {
        // The kernel did not say: it was where the packet was seen last.
        last.filter(|_| drop.netns_inum == 0)
    });
    let netns = owner.map_or(drop.netns_inum, |s| s.netns_inum);
    let device = topology.find(netns, drop.ifindex).map(|id| topology.station(id));
    let here = last.filter(|s| s.netns_inum == netns);
    let station: Option<&Station> =
        if is_leaving(stage) { device.or(here) } else { here.or(device) };
    Place {
        node: owner.map(|s| s.node.clone()),
        pod: owner.and_then(|s| s.pod.clone()),
        netns: owner.map(|s| s.netns.clone()),
        interface: station.map(|s| s.name.clone()),
        stage: stage.map(|s| s.name.to_owned()),
        function: Some(drop.info.function.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::correlate::testing::info;

    fn of(function: &str, stack: &[&str]) -> (&'static str, Option<&'static str>) {
        let stage = stage(&info("X", function, stack)).unwrap();
        (stage.name, stage.hook)
    }

    #[test]
    fn netfilter_hooks_come_from_the_stack() {
        let nft =
            |caller| of("nft_do_chain", &["nft_do_chain_ipv4", "nf_hook_slow", caller, "ip_rcv"]);
        assert_eq!(nft("ip_forward"), ("forward", Some("FORWARD")));
        assert_eq!(nft("ip_local_deliver"), ("input", Some("INPUT")));
        assert_eq!(nft("__ip_local_out"), ("output", Some("OUTPUT")));
        assert_eq!(nft("ip_output"), ("postrouting", Some("POSTROUTING")));
        assert_eq!(nft("ip_sabotage_in"), ("prerouting", Some("PREROUTING")));
        assert_eq!(nft("br_nf_pre_routing"), ("bridge", Some("BRIDGE/PREROUTING")));
        assert_eq!(nft("br_nf_forward_ip"), ("bridge", Some("BRIDGE/FORWARD")));
        assert_eq!(of("nf_hook_slow", &["ip_forward"]), ("forward", Some("FORWARD")));
        // A filter of what IPVS sends on.
        let sent =
            ["nf_hook_slow", "ip_vs_nat_xmit", "ip_vs_in_hook", "nf_hook_slow", "ip_local_deliver"];
        assert_eq!(of("nft_do_chain", &sent), ("output", Some("OUTPUT")));
        let queue = ["nf_hook_slow", "ip_forward", "ip_rcv"];
        assert_eq!(of("nf_queue", &queue), ("forward", Some("FORWARD")));
        assert_eq!(
            of("nft_do_chain", &["nft_do_chain_netdev", "nf_hook_slow", "__dev_queue_xmit"]).1,
            Some("NETDEV")
        );
        assert_eq!(
            of("nft_do_chain", &["nft_do_chain_netdev", "nf_hook_slow", "__dev_queue_xmit"]).0,
            "transmit"
        );
        let nested =
            ["nft_do_chain_netdev", "__netif_receive_skb_core.constprop.0", "__dev_queue_xmit"];
        assert_eq!(of("nft_do_chain", &nested), ("receive", Some("NETDEV")));
        // The rest of the way, nested on the same stack, is not the place.
        let nested =
            ["nf_hook_slow", "ip_local_deliver", "ip_rcv", "veth_xmit", "ip_output", "ip_forward"];
        assert_eq!(of("nft_do_chain", &nested).1, Some("INPUT"));
    }

    #[test]
    fn other_places_come_from_the_function() {
        // A hook further out on the stack has let the packet pass.
        let stack = ["vxlan_xmit", "__dev_queue_xmit", "ip_output", "nf_hook_slow", "ip_forward"];
        assert_eq!(of("vxlan_xmit", &stack), ("encap", None));
        assert_eq!(of("vxlan_rcv", &[]), ("decap", None));
        assert_eq!(of("ip_error", &[]), ("route", None));
        assert_eq!(of("ip_rcv_finish_core", &[]), ("route", None));
        assert_eq!(of("neigh_invalidate", &[]), ("neighbor", None));
        assert_eq!(of("br_handle_frame", &[]), ("bridge", None));
        assert_eq!(of("__dev_queue_xmit", &[]), ("transmit", None));
        assert_eq!(of("ip_rcv_core", &[]), ("receive", None));
        assert_eq!(of("tcp_v4_rcv", &[]), ("socket", None));
        assert_eq!(of("__udp4_lib_rcv", &[]), ("socket", None));
        assert_eq!(of("ip_forward", &[]), ("forward", None));
        assert_eq!(of("unknown_caller", &["ip_forward"]), ("forward", None));
        assert!(stage(&info("X", "unheard_of", &[])).is_none());
    }
}
