//! `mtu.`

use super::{Cause, Explanation, likely, told};
use crate::diagnose::Case;
use crate::diagnose::death::{Death, Ending};
use crate::model::Role;

pub(super) const CAUSES: &[Cause] = &[
    Cause { code: "mtu.pod-too-large", recognise: too_big },
    Cause { code: "mtu.underlay-too-small", recognise: does_not_fit },
];

/// Bytes that every IPv4 path and every VXLAN over it carries; below, size is no suspect.
const SMALL: u32 = 600;

fn too_big(case: &Case<'_>, death: &Death<'_>) -> Option<Explanation> {
    death.dropped("PKT_TOO_BIG", "*").then(|| {
        let device = case.leaving_device(death);
        let mtu = device.map(|s| (s.label(), s.mtu));
        let size = death.packet().and_then(|p| case.ip_bytes(p));
        let mut text =
            format!("The packet is too large for where {} sends it", case.where_words(death));
        if let (Some((device, mtu)), Some(size)) = (&mtu, size) {
            text.push_str(&format!(": {size} bytes, {device} takes {mtu}"));
        }
        // Towards a pod every device should take what the pods may send.
        let pod = death.example.and_then(|j| j.hops.first());
        let pod = pod.map_or(0, |h| case.topology.station(h.point.station).mtu);
        if let Some(device) = device
            && matches!(device.role, Role::Bridge | Role::Veth)
            && device.mtu < pod
        {
            return told(text, &[format!("ip link set {} mtu {pod}", device.name)]);
        }
        let mtu = mtu.map_or_else(|| "that MTU".to_owned(), |(_, mtu)| mtu.to_string());
        told(
            text,
            &[
                format!("in the pods: ip link set eth0 mtu {mtu}; for good: the CNI's \"mtu\""),
                "let ICMP \"fragmentation needed\" reach the sender: it would send smaller packets"
                    .to_owned(),
            ],
        )
    })
}

/// A device behind the sending one takes no frame of this size; on a real wire nothing is told.
fn does_not_fit(case: &Case<'_>, death: &Death<'_>) -> Option<Explanation> {
    let large = death.example.is_some_and(|j| j.hops.iter().any(|h| h.len > SMALL));
    let refused = death.dropped("NOT_SPECIFIED", "__dev_forward_skb*")
        || death.dropped("NOT_SPECIFIED", "br_dev_queue_push_xmit");
    let size = death.example.and_then(|j| j.hops.last()).map_or(0, |h| h.len);
    let fix = [
        "ip link set PHYSICAL mtu N on the nodes to what the network really carries".to_owned(),
        "net-conf.json \"MTU\": that minus 50; recreate the tunnel devices and the pods".to_owned(),
    ];
    if large && refused {
        return Some(told(
            format!(
                "Frames of {size} bytes do not fit what {} sends them through",
                case.where_words(death)
            ),
            &fix,
        ));
    }
    // Alone this is any loss; that small packets arrive is known where the large ones are judged.
    let full = death.example.and_then(|j| j.hops.first()).is_some_and(|h| {
        let mtu = case.topology.station(h.point.station).mtu;
        h.len.saturating_sub(14) >= mtu
    });
    (full && matches!(death.ending, Ending::Wire)).then(|| {
        likely(format!("Frames of {size} bytes do not come through between the nodes"), &fix)
    })
}
