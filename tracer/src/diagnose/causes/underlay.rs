//! `underlay.`: between the nodes, where nothing can be observed but that packets do not arrive.

use super::{Cause, Explanation, likely};
use crate::diagnose::Case;
use crate::diagnose::death::{Death, Ending};
use crate::model::NodePing;

pub(super) const CAUSES: &[Cause] = &[
    Cause { code: "underlay.tunnel-blocked", recognise: blocked },
    Cause { code: "underlay.source-check", recognise: source_check },
    Cause { code: "underlay.random-loss", recognise: some_lost },
    Cause { code: "underlay.lost", recognise: lost },
];

/// The ping between the nodes that followed.
fn ping<'a>(case: &'a Case<'_>, death: &Death<'_>) -> Option<&'a NodePing> {
    case.observation.node_ping.as_ref().filter(|_| matches!(death.ending, Ending::Wire))
}

fn ping_line(ping: &NodePing) -> String {
    format!(
        "ping from {} ({}) to {} ({}): {} of {} answered",
        ping.from, ping.src, ping.to, ping.dst, ping.answered, ping.sent
    )
}

fn tunnelled(death: &Death<'_>) -> Option<u16> {
    death.example?.hops.iter().find_map(|h| h.packet.outer.as_ref()).map(|outer| outer.udp_dst)
}

/// The nodes reach each other, the tunnel's packets do not pass.
fn blocked(case: &Case<'_>, death: &Death<'_>) -> Option<Explanation> {
    let ping = ping(case, death).filter(|p| p.answered > 0)?;
    let port = tunnelled(death)?;
    if death.is_partial() {
        return None;
    }
    let mut explanation = likely(
        format!(
            "Something between {} and {} takes UDP {port} (the tunnel) and lets ping pass",
            ping.from, ping.to
        ),
        &[
            format!(
                "allow UDP {port} between the nodes, both ways, in security groups and firewalls"
            ),
            "\"allow established\" is not enough: the tunnel's two directions are different flows"
                .to_owned(),
        ],
    );
    explanation.evidence.push(ping_line(ping));
    Some(explanation)
}

/// Without a tunnel, pod addresses are on the wire, which clouds refuse by default.
fn source_check(case: &Case<'_>, death: &Death<'_>) -> Option<Explanation> {
    let ping = ping(case, death).filter(|p| p.answered > 0)?;
    if tunnelled(death).is_some() || death.is_partial() {
        return None;
    }
    let mut explanation = likely(
        format!(
            "Something between {} and {} takes packets with pod addresses and lets the nodes' own pass",
            ping.from, ping.to
        ),
        &[
            "turn off the source/destination check of the machines (AWS), allow the pod network as \
             address pair (OpenStack), or add routes for it (VPC)"
                .to_owned(),
            "or use flannel's vxlan backend, which hides pod addresses".to_owned(),
        ],
    );
    explanation.evidence.push(ping_line(ping));
    Some(explanation)
}

/// Some come through and some do not.
fn some_lost(case: &Case<'_>, death: &Death<'_>) -> Option<Explanation> {
    let some = matches!(death.ending, Ending::Wire) && death.count < death.of;
    some.then(|| {
        let share = death.count.saturating_mul(100) / death.of.max(1);
        let mut explanation = likely(
            format!("{share} % of the packets are lost between the nodes"),
            &[
                "ip -s link; ethtool -S PHYSICAL   # on both nodes: errors, drops, a full ring?"
                    .to_owned(),
                "mtr -u from node to node: a bad cable, an overloaded link or switch".to_owned(),
            ],
        );
        explanation.evidence.extend(ping(case, death).map(ping_line));
        explanation
    })
}

fn lost(case: &Case<'_>, death: &Death<'_>) -> Option<Explanation> {
    if !matches!(death.ending, Ending::Wire) {
        return None;
    }
    let pinged = ping(case, death);
    let text = match pinged {
        Some(p) if p.answered == 0 => {
            format!("Nothing comes from {} to {}, not even a ping", p.from, p.to)
        }
        _ => "The packets are lost between the nodes".to_owned(),
    };
    let mut explanation = likely(text, &[]);
    explanation.evidence.extend(pinged.map(ping_line));
    Some(explanation)
}
