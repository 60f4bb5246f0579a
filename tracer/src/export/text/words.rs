//! How things are called in text.

use super::canvas::{Glyphs, Tone};
use crate::model::{Direction, Hook, Outcome, Role};
use crate::report::{Confidence, Place, PointReport, Status};

/// `A.cni0`, `A.a.eth0`.
pub fn label(point: &PointReport) -> String {
    let pod = point.pod.as_ref().map_or_else(String::new, |pod| format!("{pod}."));
    format!("{}.{pod}{}", point.node, point.interface)
}

/// `A.cni0 in`.
pub(in crate::export) fn label_hook(point: &PointReport) -> String {
    format!("{} {}", label(point), hook(point.hook))
}

/// `in`, `out`.
pub(in crate::export) fn hook(hook: Hook) -> &'static str {
    match hook {
        Hook::Ingress => "in",
        Hook::Egress => "out",
    }
}

/// `bridge`; for a pod's interface, whose it is: `pod a`.
pub(in crate::export) fn role(point: &PointReport) -> String {
    match (&point.pod, point.role) {
        (Some(pod), Role::Pod) => format!("pod {pod}"),
        (_, role) => role.to_string(),
    }
}

/// `A, pod a, cni0, forward, in nft_do_chain`; empty when nothing is known.
pub fn place(place: &Place) -> String {
    let parts = [
        place.node.as_ref().map(|node| format!("node {node}")),
        place.pod.as_ref().map(|pod| format!("pod {pod}")),
        place.interface.clone(),
        place.stage.clone(),
        place.function.as_ref().map(|function| format!("in {function}")),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// `A.cni0`, `A`, for the headline; `None` when not even the node is known.
pub fn short_place(place: &Place) -> Option<String> {
    let parts: Vec<&str> = [&place.node, &place.pod, &place.interface]
        .into_iter()
        .flatten()
        .map(String::as_str)
        .collect();
    place.node.as_ref().map(|_| parts.join("."))
}

/// `DELIVERED`, `NO TRAFFIC`.
pub fn status(status: Status) -> &'static str {
    match status {
        Status::Delivered => "DELIVERED",
        Status::Dropped => "DROPPED",
        Status::Rejected => "REJECTED",
        Status::Lost => "LOST",
        Status::Degraded => "DEGRADED",
        Status::NoTraffic => "NO TRAFFIC",
        Status::Inconclusive => "INCONCLUSIVE",
    }
}

/// The mark in front of a status, and its tone.
pub(super) fn mark(status: Status, glyphs: &Glyphs) -> (&'static str, Tone) {
    match status {
        Status::Delivered => (glyphs.ok, Tone::Good),
        Status::Dropped | Status::Rejected | Status::Lost => (glyphs.bad, Tone::Bad),
        Status::Degraded => (glyphs.warn, Tone::Warn),
        Status::NoTraffic | Status::Inconclusive => (glyphs.unclear, Tone::Warn),
    }
}

/// `proven`, with what a reader should make of less.
pub(in crate::export) fn confidence(confidence: Confidence) -> &'static str {
    match confidence {
        Confidence::Proven => "proven",
        Confidence::Likely => "likely",
        Confidence::Possible => "possible, worth checking",
    }
}

/// `FORWARD`, `REPLY`.
pub(in crate::export) fn title(direction: Direction) -> &'static str {
    match direction {
        Direction::Forward => "FORWARD",
        Direction::Reply => "REPLY",
    }
}

/// What became of a single packet.
pub(in crate::export) fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Delivered => "delivered",
        Outcome::Dropped => "dropped",
        Outcome::Rejected => "rejected",
        Outcome::Lost => "lost",
        Outcome::Partial => "arrived in part",
        Outcome::InFlight => "still under way at the end",
        Outcome::Elsewhere => "went to another backend of the service",
        Outcome::Incomplete => "under way before the trace began",
    }
}
