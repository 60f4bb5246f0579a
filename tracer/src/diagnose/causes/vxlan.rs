//! `vxlan.`

use super::{Cause, Explanation, likely, told};
use crate::diagnose::Case;
use crate::diagnose::death::Death;
use crate::model::Role;

pub(super) const CAUSES: &[Cause] = &[
    Cause { code: "vxlan.fdb-missing", recognise: fdb_missing },
    Cause { code: "vxlan.mac-stale", recognise: mac_stale },
    Cause { code: "vxlan.mac-duplicate", recognise: mac_duplicate },
    Cause { code: "vxlan.vni-mismatch", recognise: vni },
    Cause { code: "vxlan.device-missing", recognise: nobody_listens },
    Cause { code: "vxlan.local-address", recognise: no_way_out },
    Cause { code: "vxlan.ecn", recognise: ecn },
];

/// `vxlan_xmit` found no destination for the frame's hardware address; before reasons were told
/// apart (6.12) the same without a reason.
fn fdb_missing(case: &Case<'_>, death: &Death<'_>) -> Option<Explanation> {
    let dropped = death.dropped("NO_TX_TARGET", "vxlan_xmit*")
        || death.dropped("NOT_SPECIFIED", "vxlan_xmit");
    (dropped && death.question().is_none()).then(|| {
        let device = case.device(death);
        let mac = death.packet().and_then(|p| p.eth).map(|eth| eth.dst);
        let mac = mac.map_or_else(|| "the destination".to_owned(), |mac| mac.to_string());
        told(
            format!("{} has no forwarding entry for {mac} at {device}", case.where_words(death)),
            &[
                format!(
                    "bridge fdb show dev {device}   # flanneld writes one for every other node"
                ),
                "restart flanneld on this node: it writes neighbours and entries anew".to_owned(),
            ],
        )
    })
}

/// The inner frame came out of the tunnel for a hardware address that is not this device's.
fn mac_stale(case: &Case<'_>, death: &Death<'_>) -> Option<Explanation> {
    let at_tunnel = death.last.is_some_and(|p| {
        case.topology.station(p.station).role == Role::Vxlan
            && p.hook == crate::model::Hook::Ingress
    });
    (at_tunnel && death.dropped("OTHERHOST", "ip*_rcv_core*")).then(|| {
        let station = death.last.map(|p| case.topology.station(p.station));
        let sent = death.packet().and_then(|p| p.eth).map(|eth| eth.dst.to_string());
        let has = station.and_then(|s| s.mac).map(|mac| mac.to_string());
        let node = case.where_words(death);
        let mut explanation = told(
            format!(
                "The packet came to {node} with another hardware address than its tunnel device has"
            ),
            &[
                "on the sending node: ip neigh show; bridge fdb show (they name the old address)"
                    .to_owned(),
                format!("restart flanneld on {node}: it announces the present address"),
            ],
        );
        if let (Some(sent), Some(has), Some(station)) = (sent, has, station) {
            explanation
                .evidence
                .push(format!("the frame was for {sent}, {} has {has}", station.label()));
        }
        explanation
    })
}

/// `vxlan_set_mac`: a frame from the device's own hardware address.
fn mac_duplicate(case: &Case<'_>, death: &Death<'_>) -> Option<Explanation> {
    death.dropped("LOCAL_MAC", "*").then(|| {
        let mac = death.packet().and_then(|p| p.eth).map(|eth| eth.src);
        told(
            format!(
                "The tunnel devices of both nodes have the same hardware address{}",
                mac.map_or_else(String::new, |mac| format!(", {mac}"))
            ),
            &[
                format!("ip link del {}   # on one of the nodes", case.device(death)),
                "restart flanneld there: the device gets a new address (cloned machines: also \
                 a new machine-id)"
                    .to_owned(),
            ],
        )
    })
}

fn vni(case: &Case<'_>, death: &Death<'_>) -> Option<Explanation> {
    death.dropped("VXLAN_VNI_NOT_FOUND", "*").then(|| {
        let vni = death.example.and_then(|j| j.hops.iter().find_map(|h| h.packet.outer.as_ref()?.vni));
        let vni = vni.map_or_else(|| "that".to_owned(), |vni| vni.to_string());
        told(
            format!("{} has no VXLAN device with VNI {vni}", case.where_words(death)),
            &[
                "ip -d link show type vxlan   # on both nodes: the VNIs must be equal".to_owned(),
                "make the flannel configuration the same everywhere, delete the device, restart flanneld"
                    .to_owned(),
            ],
        )
    })
}

/// The outer packet came to a node where nothing listens on the tunnel's port.
fn nobody_listens(case: &Case<'_>, death: &Death<'_>) -> Option<Explanation> {
    let refused = death.dropped("NO_SOCKET", "__udp4_lib_rcv")
        || death.dropped("NO_SOCKET", "__udp6_lib_rcv");
    (refused && death.is_outer()).then(|| {
        let port = death.packet().and_then(|p| p.outer.as_ref()).map(|o| o.udp_dst);
        let port =
            port.map_or_else(|| "the tunnel's port".to_owned(), |port| format!("UDP {port}"));
        likely(
            format!("Nothing takes tunnel packets at {port} on {}", case.where_words(death)),
            &[
                "ip -d link show type vxlan   # is it there and up, with this port?".to_owned(),
                "restart flanneld on this node".to_owned(),
            ],
        )
    })
}

/// `vxlan_xmit_one` found no route for the outer packet.
fn no_way_out(case: &Case<'_>, death: &Death<'_>) -> Option<Explanation> {
    death.dropped("IP_OUTNOROUTES", "vxlan_xmit_one").then(|| {
        let device = case.device(death);
        likely(
            format!(
                "{} has no way for the tunnel packet: {device} sends from an address that is not \
                 there, or there is no route to the other node",
                case.where_words(death)
            ),
            &[
                format!("ip -d link show {device}; ip addr   # is its local address on this node?"),
                format!("bridge fdb show dev {device}; ip route get DST   # the other node"),
            ],
        )
    })
}

fn ecn(case: &Case<'_>, death: &Death<'_>) -> Option<Explanation> {
    death.dropped("IP_TUNNEL_ECN", "*").then(|| {
        told(
            format!(
                "The tunnel packet came to {} marked \"congestion experienced\" while the packet in \
                 it does not take such marks (RFC 6040)",
                case.where_words(death)
            ),
            &["find what marks packets between the nodes (AQM, a rule that sets TOS)".to_owned()],
        )
    })
}
