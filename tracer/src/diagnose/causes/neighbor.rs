//! `neighbor.`

use super::{Cause, Explanation, likely, told};
use crate::diagnose::Case;
use crate::diagnose::death::{Death, Ending};
use crate::diagnose::verdict::Counts;
use crate::model::Role;

pub(super) const CAUSES: &[Cause] = &[
    Cause { code: "neighbor.missing", recognise: missing },
    Cause { code: "neighbor.queue-full", recognise: queue_full },
    Cause { code: "neighbor.failed", recognise: failed },
    Cause { code: "neighbor.wrong-mac", recognise: wrong },
];

/// The kernel gave the resolution up; for neighbour discovery it gives no reason.
fn gave_up(death: &Death<'_>) -> bool {
    death.dropped("NEIGH_*", "*") || death.dropped("NOT_SPECIFIED", "neigh_*")
}

/// The node asks at the tunnel device, where flanneld should have told it and nobody can answer.
fn missing(case: &Case<'_>, death: &Death<'_>) -> Option<Explanation> {
    let question = case
        .open_questions(death)
        .find(|r| r.station.is_some_and(|id| case.topology.station(id).role == Role::Vxlan));
    let waits = matches!(death.ending, Ending::Vanished);
    let failed = gave_up(death) || waits;
    let asked = question.map(|r| r.target).or_else(|| {
        let question = death.question()?;
        death.dropped("*", "vxlan_xmit*").then_some(question.target_ip)
    });
    let target = asked.filter(|_| failed || death.question().is_some())?;
    let device = case.device(death);
    Some(told(
        format!(
            "{} has no neighbour entry for {} at {device}, and nobody answers questions in the tunnel",
            case.where_words(death),
            case.ip_name(&target)
        ),
        &[
            format!(
                "ip neigh show dev {device}   # flanneld writes a permanent one for every other node"
            ),
            "restart flanneld on this node: it writes neighbours and entries anew".to_owned(),
        ],
    ))
}

/// The answer came, but more packets were waiting for it than are kept.
fn queue_full(case: &Case<'_>, death: &Death<'_>) -> Option<Explanation> {
    let through = Counts::of(case, death.direction).delivered > 0;
    let answered = case.questions(death).next().is_some_and(|question| question.answer.is_some());
    (death.dropped("NEIGH_QUEUEFULL", "*") && through && answered).then(|| {
        let device = case.device(death);
        told(
            format!(
                "More packets waited at {} for the next hop's hardware address than its queue holds",
                case.where_words(death)
            ),
            &[
                "harmless in a burst to a neighbour not spoken to before: trace again".to_owned(),
                format!("ip neigh show dev {device}   # does the entry come and go?"),
                format!("ip ntable show dev {device}   # queue: packets kept while asking"),
            ],
        )
    })
}

/// The kernel asked for a hardware address and gave up.
fn failed(case: &Case<'_>, death: &Death<'_>) -> Option<Explanation> {
    let gave_up = gave_up(death) || matches!(death.ending, Ending::Unresolved { .. });
    gave_up.then(|| {
        let asked = match death.ending {
            Ending::Unresolved { question } => Some(question),
            _ => case.open_questions(death).next(),
        };
        let target = asked.map(|r| case.ip_name(&r.target));
        let device = case.device(death);
        let text = match &target {
            Some(target) => {
                format!("Nobody answers {}'s question for {target}", case.where_words(death))
            }
            None => {
                format!("Nobody answers {}'s question for the next hop", case.where_words(death))
            }
        };
        let whose = target.unwrap_or_else(|| "the next hop".to_owned());
        likely(
            text,
            &[
                format!("ip neigh show dev {device}"),
                format!("check that {whose} is there and up, and that ARP passes (ND for IPv6)"),
            ],
        )
    })
}

/// A frame for another host's hardware address, in a pod or at a physical interface.
fn wrong(case: &Case<'_>, death: &Death<'_>) -> Option<Explanation> {
    let at_tunnel =
        death.last.is_some_and(|p| case.topology.station(p.station).role == Role::Vxlan);
    (death.dropped("OTHERHOST", "*") && !at_tunnel).then(|| {
        let dst = death.packet().and_then(|p| p.eth).map(|eth| eth.dst.to_string());
        likely(
            format!(
                "The packet came to {} with another host's hardware address{}",
                case.where_words(death),
                dst.map_or_else(String::new, |dst| format!(" ({dst})"))
            ),
            &["on the sending side: ip neigh show   # a stale entry; ip neigh del it".to_owned()],
        )
    })
}
