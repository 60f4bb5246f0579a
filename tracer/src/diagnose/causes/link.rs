//! `bridge.`: what the bridge's own drops say.

use super::{Cause, Explanation, likely, told};
use crate::diagnose::Case;
use crate::diagnose::death::Death;

pub(super) const CAUSES: &[Cause] = &[
    Cause { code: "bridge.port-blocking", recognise: blocking },
    Cause { code: "bridge.veth-down", recognise: no_carrier },
];

/// Also what a bridge says that is down (net/bridge/br_input.c, `br_handle_frame`).
fn blocking(case: &Case<'_>, death: &Death<'_>) -> Option<Explanation> {
    death.dropped("BRIDGE_INGRESS_STP_STATE", "*").then(|| {
        let device = case.device(death);
        likely(
            format!("The bridge of {} takes nothing from {device}", case.where_words(death)),
            &[
                format!("bridge -d link show dev {device}   # state forwarding?"),
                "ip link show type bridge   # is the bridge up?".to_owned(),
            ],
        )
    })
}

/// The pod's interface has no carrier: its queue takes nothing, not even questions for its gateway.
fn no_carrier(case: &Case<'_>, death: &Death<'_>) -> Option<Explanation> {
    let ours = death.place.pod.is_some() && death.last.is_none();
    (ours && death.dropped("QDISC_DROP", "__dev_queue_xmit")).then(|| {
        told(
            format!(
                "The interface of {} has no carrier: its other end is down",
                case.where_words(death)
            ),
            &["on the node: ip link show type veth; ip link set VETH up".to_owned()],
        )
    })
}
