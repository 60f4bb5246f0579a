//! `checksum.`: what the receiver's own sums say. They are never computed here: a packet whose sum
//! is still to be filled in by hardware would look wrong.

use super::{Cause, Explanation, told};
use crate::diagnose::Case;
use crate::diagnose::death::Death;

pub(super) const CAUSES: &[Cause] = &[
    Cause { code: "checksum.outer-udp", recognise: outer_udp },
    Cause { code: "checksum.outer-ip", recognise: outer_ip },
    Cause { code: "checksum.inner", recognise: inner },
];

fn offload(death: &Death<'_>, case: &Case<'_>) -> Vec<String> {
    let (node, device) = case.sender_device(death);
    vec![
        format!("on {node}: ethtool -K {device} tx-checksum-ip-generic off"),
        "if that helps: a bug in the network card's (or the hypervisor's) checksum offload"
            .to_owned(),
    ]
}

fn outer_udp(case: &Case<'_>, death: &Death<'_>) -> Option<Explanation> {
    (death.dropped("UDP_CSUM", "*") && death.is_outer()).then(|| {
        told(
            format!(
                "The tunnel packet came to {} with a wrong UDP checksum",
                case.where_words(death)
            ),
            &offload(death, case),
        )
    })
}

fn outer_ip(case: &Case<'_>, death: &Death<'_>) -> Option<Explanation> {
    (death.dropped("IP_CSUM", "*") && death.is_outer()).then(|| {
        told(
            format!(
                "The tunnel packet came to {} with a wrong IP checksum",
                case.where_words(death)
            ),
            &offload(death, case),
        )
    })
}

fn inner(case: &Case<'_>, death: &Death<'_>) -> Option<Explanation> {
    (death.dropped("*_CSUM", "*") && !death.is_outer()).then(|| {
        told(
            format!("The packet came to {} with a wrong checksum", case.where_words(death)),
            &offload(death, case),
        )
    })
}
