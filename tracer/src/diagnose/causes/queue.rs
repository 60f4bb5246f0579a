//! `tc.`: queues, and programs that take packets away.

use super::{Cause, Explanation, likely, told};
use crate::diagnose::Case;
use crate::diagnose::death::{Death, Ending};
use crate::facts::Change;
use crate::model::{Hook, Role, Station};
use crate::report::Confidence;

pub(super) const CAUSES: &[Cause] = &[
    Cause { code: "tun.reader-hung", recognise: tun_hung },
    Cause { code: "tun.reader-gone", recognise: tun_gone },
    Cause { code: "tc.queue-full", recognise: full },
    Cause { code: "tc.starved", recognise: starved },
    Cause { code: "tc.rate-limited", recognise: limited },
    Cause { code: "tc.xdp-drop", recognise: xdp },
    Cause { code: "tc.program-drop", recognise: program },
];

/// The device whose queue a packet was in: the one that dropped, or the last one it left by.
fn device<'a>(case: &'a Case<'_>, death: &Death<'_>) -> Option<&'a Station> {
    let last = death.last.filter(|p| p.hook == Hook::Egress);
    let dropped = case.leaving_device(death).filter(|_| death.drop().is_some());
    dropped.or_else(|| last.map(|p| case.topology.station(p.station)))
}

/// The tunnel device that a program should read (flannel's udp backend), where packets died in it.
fn tun<'a>(case: &'a Case<'_>, death: &Death<'_>) -> Option<&'a Station> {
    device(case, death).filter(|s| s.role == Role::Tun)
}

/// drivers/net/tun.c, `tun_net_xmit`: the program has not read for a while.
fn tun_hung(case: &Case<'_>, death: &Death<'_>) -> Option<Explanation> {
    let station = tun(case, death).filter(|_| death.dropped("FULL_RING", "*"))?;
    Some(told(
        format!("The program behind {} does not read its packets", station.label()),
        &["restart flanneld on this node: it is the one that should read".to_owned()],
    ))
}

/// Nobody holds the device open: it has no carrier, and its queue takes nothing.
fn tun_gone(case: &Case<'_>, death: &Death<'_>) -> Option<Explanation> {
    let station = tun(case, death).filter(|_| death.dropped("QDISC_*", "*"))?;
    let link = case.netns_after(station.netns_inum)?.link(station.ifindex);
    link.filter(|l| !l.lower_up)?;
    let mut explanation = told(
        format!("No program reads the packets of {}", station.label()),
        &["start flanneld on this node: it is the one that should read".to_owned()],
    );
    explanation.evidence.push(format!("{} has no carrier: nobody has it open", station.name));
    Some(explanation)
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

/// Nothing passes at all.
fn starved(case: &Case<'_>, death: &Death<'_>) -> Option<Explanation> {
    (death.count == death.of).then(|| held(case, death)).flatten()
}

/// Some pass.
fn limited(case: &Case<'_>, death: &Death<'_>) -> Option<Explanation> {
    (death.count < death.of).then(|| held(case, death)).flatten()
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
    let by_xdp = death.dropped("NOT_SPECIFIED", "veth_xdp_*")
        || death.dropped("NOT_SPECIFIED", "netif_receive_generic_xdp")
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

/// A classifier at the interface said "drop".
fn program(case: &Case<'_>, death: &Death<'_>) -> Option<Explanation> {
    (death.dropped("TC_*", "*") || death.dropped("*", "sch_handle_*")).then(|| {
        let device = case.device(death);
        let (way, hook) =
            if death.dropped("TC_EGRESS", "*") || death.dropped("*", "sch_handle_egress") {
                ("egress", "sent")
            } else {
                ("ingress", "received")
            };
        told(
            format!(
                "A tc program or filter on {} drops what is {hook} at {device}",
                case.where_words(death)
            ),
            &[
                format!("tc filter show dev {device} {way}; bpftool net show dev {device}"),
                format!("tc filter del dev {device} {way}   # if nobody wants it"),
            ],
        )
    })
}
