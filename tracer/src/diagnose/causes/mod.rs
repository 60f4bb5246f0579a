//! Causes: why packets ended as they did.
//!
//! Two sorts compete. What is wrong in the tables is found by [`crate::expect::walk`], as problems
//! with a cause and a place each. What shows in events and counters only is recognised here: one
//! [`Cause`] each, in the list of its area. A table entry that decides at the very place where the
//! packets ended beats what the drop event says by itself, which beats what merely lies near. What
//! nobody explains keeps the kernel's own reason as its cause.

mod checksum;
mod link;
mod mtu;
mod neighbor;
mod netfilter;
mod pod;
mod queue;
mod route;
mod service;
mod socket;
mod underlay;
mod vxlan;

use super::Case;
use super::death::{Death, Ending};
use super::place::matches;
use crate::expect::walk::{Problem, ProblemKind, Seriousness};
use crate::model::{Direction, Point};
use crate::report::{Confidence, Place, Verdict};

/// What a cause says about packets that it explains.
#[derive(Clone, Debug)]
pub(super) struct Explanation {
    /// One sentence.
    pub summary: String,
    /// Beyond what is known of the ending.
    pub evidence: Vec<String>,
    /// Commands or steps.
    pub fix: Vec<String>,
    /// How sure.
    pub confidence: Confidence,
    /// Where the fault is, when the ending does not tell.
    pub place: Option<Place>,
    /// Which way packets suffer, when it is not the way in which they are missed.
    pub direction: Option<Direction>,
    /// Rule at fault, as its tool prints it.
    pub rule: Option<String>,
}

/// A cause that shows in what happened to packets, whatever the tables say.
pub(super) struct Cause {
    /// `area.cause`, as in docs/causes.
    pub code: &'static str,
    /// Looks at the evidence; `None` when it does not convince.
    pub recognise: fn(&Case<'_>, &Death<'_>) -> Option<Explanation>,
}

/// Reasons of the kernel that have one meaning only: causes of other areas are not considered.
const EXCLUSIVE: &[(&str, &[&str])] = &[
    ("NETFILTER_DROP", &["netfilter.", "policy.", "service."]),
    ("IP_RPFILTER", &["route.rp-filter"]),
    ("IP_LOCAL_SOURCE", &["route.martian-source"]),
    ("IP_INVALID_SOURCE", &["route.martian-source"]),
    ("*_CSUM", &["checksum."]),
    ("PKT_TOO_BIG", &["mtu."]),
    ("LOCAL_MAC", &["vxlan.mac-duplicate"]),
    ("VXLAN_VNI_NOT_FOUND", &["vxlan.vni-mismatch"]),
    ("IP_TUNNEL_ECN", &["vxlan.ecn"]),
    ("SOCKET_*", &["socket.buffer-full", "socket.backlog-full"]),
    ("XFRM_POLICY", &["route.xfrm-policy"]),
    ("XDP", &["tc."]),
];

/// How good an explanation is; the larger wins, of equals the earlier in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Strength {
    /// The state that was read fits the place, the drop event says nothing for or against it.
    Fits,
    /// The drop event or the ending speaks for it.
    Suggested,
    /// A table entry at about this place speaks for it too.
    Supported,
    /// A table entry at exactly this place decides the packet's fate.
    Decided,
}

/// Every cause.
fn all() -> impl Iterator<Item = &'static Cause> {
    [
        pod::CAUSES,
        link::CAUSES,
        route::CAUSES,
        netfilter::CAUSES,
        neighbor::CAUSES,
        vxlan::CAUSES,
        mtu::CAUSES,
        checksum::CAUSES,
        queue::CAUSES,
        socket::CAUSES,
        underlay::CAUSES,
    ]
    .into_iter()
    .flatten()
}

/// The verdict on these packets with the best explanation there is; `bare`: what is known without.
pub(super) fn explain(case: &Case<'_>, death: &Death<'_>, bare: Verdict) -> Verdict {
    // Where translation sends packets explains what else is wrong there.
    let mut services = service::CAUSES.iter().filter(|c| allowed(death, c.code));
    if let Some((code, explanation)) =
        services.find_map(|c| Some((c.code, (c.recognise)(case, death)?)))
    {
        return apply(case, death, code, explanation, bare);
    }
    let mut best: Option<(Strength, &str, Explanation)> = None;
    if let Some((problem, strength)) = best_problem(case, death) {
        best = Some((strength, problem.cause(), from_problem(case, death, problem, strength)));
    }
    for cause in all().filter(|c| allowed(death, c.code)) {
        let Some(explanation) = (cause.recognise)(case, death) else { continue };
        let strength = match explanation.confidence {
            Confidence::Proven => Strength::Supported,
            Confidence::Likely => Strength::Suggested,
            Confidence::Possible => Strength::Fits,
        };
        // A cause that both the tables and the event speak for keeps what the tables say.
        if best.as_ref().is_none_or(|(than, ..)| strength > *than) {
            best = Some((strength, cause.code, explanation));
        }
    }
    match best {
        Some((_, code, explanation)) => apply(case, death, code, explanation, bare),
        None => Verdict { confidence: Confidence::Possible, ..bare },
    }
}

/// Whether a cause can be behind a drop event with this reason.
fn allowed(death: &Death<'_>, code: &str) -> bool {
    let Some(drop) = death.drop() else { return true };
    let exclusive = EXCLUSIVE.iter().find(|(reason, _)| matches(reason, &drop.info.reason));
    exclusive.is_none_or(|(_, codes)| codes.iter().any(|of| code.starts_with(of)))
}

/// The problem on the way that explains these packets best, and how well.
fn best_problem<'a>(case: &'a Case<'_>, death: &Death<'_>) -> Option<(&'a Problem, Strength)> {
    let candidates: Vec<(&Problem, Strength)> = suspects(case, death)
        .filter(|p| p.seriousness > Seriousness::Note && allowed(death, p.cause()))
        .filter(|p| fits_errors(case, death, p.cause()))
        .filter_map(|p| Some((p, nearness(case, death, p)?)))
        .collect();
    // The first of equals.
    let (best, strength) = candidates
        .iter()
        .rev()
        .max_by_key(|(p, strength)| (*strength, p.deadly(), p.certain, is_root(&p.kind)))?;
    // A device that goes down takes its routes and entries with it: then it is the cause, whichever
    // direction it shows in.
    let root = follows_from(&best.kind).then(|| {
        case.walks
            .iter()
            .flat_map(|w| &w.problems)
            .find(|p| is_root(&p.kind) && p.deadly() && p.spot.netns_inum == best.spot.netns_inum)
    });
    root.flatten().map_or(Some((*best, *strength)), |root| Some((root, *strength)))
}

/// Errors that the sender's socket returned, with the causes that can be behind each: nf_hook_slow
/// gives EPERM (net/netfilter/core.c), routes that refuse give EINVAL and EACCES (net/ipv4/fib_semantics.c,
/// `fib_props`).
const ERRORS: &[(&str, &[&str])] = &[
    ("EPERM", &["netfilter.", "policy.", "service.", "route.xfrm-policy"]),
    ("EINVAL", &["route.", "pod."]),
    ("EACCES", &["route."]),
];

/// Whether a cause can be behind packets that their sender could not send.
fn fits_errors(case: &Case<'_>, death: &Death<'_>, code: &str) -> bool {
    let Some(probe) = case.observation.probe.as_ref() else { return true };
    let unsent = matches!(death.ending, Ending::Unsent) && death.drop().is_none();
    let listed = |error: &str| ERRORS.iter().find(|(name, _)| error.starts_with(name));
    !unsent
        || probe.errors.iter().all(|(error, _)| {
            listed(error).is_none_or(|(_, codes)| codes.iter().any(|of| code.starts_with(of)))
        })
}

/// The problems that can be behind these packets: those of their direction. An answer that was never
/// sent can also be a request that was not taken.
fn suspects<'a>(case: &'a Case<'_>, death: &Death<'_>) -> impl Iterator<Item = &'a Problem> {
    let unanswered = matches!(death.ending, Ending::Unanswered);
    let (direction, netns) = (death.direction, death.netns);
    case.walks
        .iter()
        .flat_map(|w| &w.problems)
        .filter(move |p| p.direction == direction || unanswered && p.spot.netns_inum == netns)
}

/// A device that is not there, or not up: what depends on it is gone too.
fn is_root(kind: &ProblemKind) -> bool {
    matches!(
        kind,
        ProblemKind::PodInterfaceDown
            | ProblemKind::VethDown
            | ProblemKind::BridgeDown
            | ProblemKind::PortDetached { .. }
            | ProblemKind::VxlanMissing
            | ProblemKind::VxlanDown
            | ProblemKind::VxlanAddressMissing { .. }
            | ProblemKind::LinkDown { .. }
            | ProblemKind::GatewayAddressMissing { .. }
    )
}

/// What keeps a question for a hardware address from its answer as well.
fn stops_questions(kind: &ProblemKind) -> bool {
    matches!(
        kind,
        ProblemKind::PodInterfaceDown
            | ProblemKind::PodInterfaceMissing
            | ProblemKind::PodAddressMissing { .. }
            | ProblemKind::VethDown
            | ProblemKind::BridgeDown
            | ProblemKind::PortDetached { .. }
            | ProblemKind::PortBlocking { .. }
            | ProblemKind::PortIsolated { .. }
    )
}

/// An entry that goes when its device does.
fn follows_from(kind: &ProblemKind) -> bool {
    matches!(
        kind,
        ProblemKind::PodRouteMissing { .. }
            | ProblemKind::RouteMissing { .. }
            | ProblemKind::RouteWrongDevice { .. }
            | ProblemKind::GatewayDead { .. }
            | ProblemKind::NeighborMissing { .. }
            | ProblemKind::NeighborFailed { .. }
            | ProblemKind::FdbMissing { .. }
    )
}

/// How well a problem's place agrees with where packets ended.
fn nearness(case: &Case<'_>, death: &Death<'_>, problem: &Problem) -> Option<Strength> {
    let here = death.netns != 0 && problem.spot.netns_inum == death.netns;
    let same_way = problem.direction == death.direction && problem.deadly();
    if same_way && stops_questions(&problem.kind) && case.asks_for_the_other_end(death) {
        return Some(if problem.certain { Strength::Decided } else { Strength::Supported });
    }
    // Packets that left the planned path did so behind the last planned point.
    let planned = |p: &Point| case.position(death.direction, *p).is_some();
    let strayed = || death.example?.hops.iter().map(|h| h.point).rfind(planned);
    let last = death.last.filter(planned).or_else(strayed);
    let at = last.and_then(|p| case.position(death.direction, p)).map_or(0, |at| at + 1);
    // Between nodes lie the wire's own points, if it can be watched.
    let until = match death.ending {
        Ending::Wire => case.next_node_position(death.direction, at),
        _ => at,
    };
    let other_way = problem.direction != death.direction;
    let exact = other_way || (at..=until).contains(&problem.position);
    let near = problem.position + 1 >= at && problem.position <= until + 1;
    let decides = problem.deadly() && (problem.certain || death.drop().is_some());
    match (exact, near, here) {
        (true, ..) if decides => Some(Strength::Decided),
        (true, ..) | (_, true, true) => Some(Strength::Supported),
        (_, true, _) | (.., true) => Some(Strength::Suggested),
        _ => None,
    }
}

/// What a problem in the network state explains.
fn from_problem(
    case: &Case<'_>,
    death: &Death<'_>,
    problem: &Problem,
    strength: Strength,
) -> Explanation {
    let sure = strength == Strength::Decided;
    let confidence = match death.drop() {
        Some(_) if sure || strength == Strength::Supported => Confidence::Proven,
        None if sure && problem.certain => Confidence::Proven,
        _ => Confidence::Likely,
    };
    let silent = death.drop().is_none();
    let firewall = matches!(problem.kind, ProblemKind::Firewall { .. });
    Explanation {
        summary: problem.text.clone(),
        evidence: problem
            .entry
            .iter()
            .chain(problem.evidence())
            .map(|entry| case.entry_line(problem, entry))
            .collect(),
        fix: problem.fix(),
        confidence,
        place: silent.then(|| case.spot_place(problem)),
        direction: None,
        rule: problem.entry.clone().filter(|_| firewall),
    }
}

/// Puts an explanation into a verdict.
fn apply(
    case: &Case<'_>,
    death: &Death<'_>,
    code: &str,
    explanation: Explanation,
    bare: Verdict,
) -> Verdict {
    let unseen = case.observation.holes().is_some();
    let lost = case.observation.events_lost() > 0 || !case.observation.vanished.is_empty();
    // A drop event is there whatever else was missed; an absence is not.
    let confidence = match explanation.confidence {
        Confidence::Proven if lost => Confidence::Likely,
        // Nothing that the ending did not say already.
        _ if bare.cause.as_deref() == Some(code) => bare.confidence,
        confidence => confidence,
    };
    if unseen && death.drop().is_none() {
        return bare;
    }
    let mut evidence = explanation.evidence;
    evidence.extend(bare.evidence);
    Verdict {
        cause: Some(code.to_owned()),
        summary: format!("{} {}", sentence(&explanation.summary), bare.summary),
        evidence,
        fix: if explanation.fix.is_empty() { bare.fix } else { explanation.fix },
        confidence,
        r#where: explanation.place.or(bare.r#where),
        direction: explanation.direction.or(bare.direction),
        rule: explanation.rule.or(bare.rule),
        ..bare
    }
}

/// Why a flow of which nothing was seen may not be there: code and explanation.
pub(super) fn absence(case: &Case<'_>) -> Option<(&'static str, Explanation)> {
    service::localhost(case)
}

/// With a full stop.
fn sentence(text: &str) -> String {
    if text.ends_with(['.', '!', '?']) { text.to_owned() } else { format!("{text}.") }
}

/// An explanation from the drop event or the ending alone.
pub(super) fn likely(summary: impl Into<String>, fix: &[String]) -> Explanation {
    Explanation {
        summary: summary.into(),
        evidence: Vec::new(),
        fix: fix.to_vec(),
        confidence: Confidence::Likely,
        place: None,
        direction: None,
        rule: None,
    }
}

/// As [`likely`], where the kernel's reason leaves no other reading.
pub(super) fn told(summary: impl Into<String>, fix: &[String]) -> Explanation {
    Explanation { confidence: Confidence::Proven, ..likely(summary, fix) }
}
