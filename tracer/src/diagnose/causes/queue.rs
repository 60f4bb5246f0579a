//! `tc.`: queues, and programs that take packets away.

use super::{Cause, Explanation, likely, told};
use crate::diagnose::Case;
use crate::diagnose::death::{Death, Ending};
use crate::facts::Change;
use crate::model::{Hook, Station};
use crate::report::Confidence;

pub(super) const CAUSES: &[Cause] = &[
    Cause { code: "tc.queue-full", recognise: full },
    Cause { code: "tc.rate-limited", recognise: held },
    Cause { code: "tc.xdp-drop", recognise: xdp },
];

/// The device whose queue a packet was in: the one that dropped, or the last one it left by.
fn device<'a>(case: &'a Case<'_>, death: &Death<'_>) -> Option<&'a Station> {
    let last = death.last.filter(|p| p.hook == Hook::Egress);
    let dropped = case.leaving_device(death).filter(|_| death.drop().is_some());
    dropped.or_else(|| last.map(|p| case.topology.station(p.station)))
}

fn full(case: &Case<'_>, death: &Death<'_>) -> Option<Explanation> {
    let dropped = death.dropped("QDISC_*", "*") || death.dropped("FULL_RING", "*");
    let station = dropped.then(|| device(case, death)).flatten()?;
    let qdisc = case.qdisc(station).filter(|q| !q.options.is_empty());
    let text = qdisc.map_or_else(String::new, |q| format!(" ({} {})", q.kind, q.options));
    let mut explanation = told(
        format!("The queue of {} is full{text}", station.label()),
        &[
            format!("tc -s qdisc show dev {}", station.name),
            format!("tc qdisc del dev {} root   # if nobody wants this limit", station.name),
        ],
    );
    explanation.evidence.extend(drops_line(case, station));
    Some(explanation)
}

/// Nothing was dropped: the packets still wait.
fn held(case: &Case<'_>, death: &Death<'_>) -> Option<Explanation> {
    if !matches!(death.ending, Ending::Wire | Ending::Vanished) {
        return None;
    }
    let station = device(case, death)?;
    let qdisc = case.qdisc(station).filter(|q| q.qlen > 0 || q.backlog > 0)?;
    let mut explanation = likely(
        format!(
            "The packets wait in the queue of {} ({} {})",
            station.label(),
            qdisc.kind,
            qdisc.options
        ),
        &[
            format!("tc -s qdisc show dev {}", station.name),
            format!("tc qdisc del dev {} root   # if nobody wants this limit", station.name),
        ],
    );
    explanation.confidence = Confidence::Proven;
    explanation.place = Some(case.station_place(station, "transmit"));
    explanation
        .evidence
        .push(format!("{} packets ({} bytes) wait there", qdisc.qlen, qdisc.backlog));
    explanation.evidence.extend(drops_line(case, station));
    Some(explanation)
}

fn drops_line(case: &Case<'_>, station: &Station) -> Option<String> {
    case.changes.iter().filter(|d| d.netns == station.netns_inum).find_map(|d| match &d.change {
        Change::QdiscCounter { interface, kind, name, by, .. }
            if *interface == station.name && name == "drops" =>
        {
            Some(format!("{kind} at {interface} dropped {by} packets during the trace"))
        }
        _ => None,
    })
}

fn xdp(case: &Case<'_>, death: &Death<'_>) -> Option<Explanation> {
    let by_xdp = death.dropped("NOT_SPECIFIED", "veth_xdp_rcv*")
        || death.dropped("NOT_SPECIFIED", "do_xdp_generic")
        || death.dropped("XDP", "*");
    by_xdp.then(|| {
        let device = case.device(death);
        told(
            format!("An XDP program on {} takes the packets away", case.where_words(death)),
            &[
                "ip -d link show   # which interface has one (prog/xdp)?".to_owned(),
                format!("ip link set {device} xdp off   # if it is this one and nobody wants it"),
            ],
        )
    })
}
