//! `netfilter.`: which rule, which policy, or connection tracking itself.

use super::{Cause, Explanation, likely};
use crate::diagnose::Case;
use crate::diagnose::death::Death;
use crate::expect::firewall::{
    Decision, Meaning, PacketView, Suspect, Verdict, evaluate, meaning, suspects,
};
use crate::expect::walk::{Problem, Seriousness, Spot, Stage, firewall_problem};
use crate::facts::firewall::{Action, CtState, FirewallRule, Match, NfHook, TableFamily};
use crate::facts::{Change, NetnsFacts};
use crate::model::{Body, Direction, Hook, L4, Station};
use crate::report::Confidence;

pub(super) const CAUSES: &[Cause] = &[
    Cause { code: "netfilter.conntrack-full", recognise: table_full },
    Cause { code: "netfilter.snat-exhausted", recognise: exhausted },
    Cause {
        code: "netfilter.invalid",
        recognise: |case, death| rule(case, death, "netfilter.invalid"),
    },
    Cause { code: "policy.denied", recognise: |case, death| rule(case, death, "policy.denied") },
    Cause {
        code: "netfilter.reject",
        recognise: |case, death| rule(case, death, "netfilter.reject"),
    },
    Cause {
        code: "netfilter.policy",
        recognise: |case, death| rule(case, death, "netfilter.policy"),
    },
    Cause { code: "netfilter.drop", recognise: |case, death| rule(case, death, "netfilter.drop") },
    Cause { code: "netfilter.drop", recognise: unknown },
    Cause { code: "netfilter.queue", recognise: queued },
];

/// Other suspects named.
const MORE: usize = 2;

/// The hooks whose chains can have dropped, by the name that the stack gave.
fn hooks(death: &Death<'_>, view: &PacketView) -> Vec<(TableFamily, NfHook)> {
    use NfHook::{Egress, Forward, Ingress, Input, Output, Postrouting, Prerouting};
    let ip = view.tables();
    let stage = death.stage();
    let leaves = stage.is_some_and(|s| s.name == "transmit");
    match stage.and_then(|s| s.hook) {
        Some("PREROUTING") => vec![(ip, Prerouting)],
        Some("INPUT") => vec![(ip, Input)],
        Some("FORWARD") => vec![(ip, Forward)],
        Some("OUTPUT") => vec![(ip, Output)],
        Some("POSTROUTING") => vec![(ip, Postrouting)],
        Some("NETDEV") if leaves => vec![(TableFamily::Netdev, Egress)],
        Some("NETDEV") => vec![(TableFamily::Netdev, Ingress)],
        // br_netfilter shows bridged packets to the IP chains too.
        Some("BRIDGE/PREROUTING") => vec![(ip, Prerouting), (TableFamily::Bridge, Prerouting)],
        Some("BRIDGE/FORWARD") => vec![(ip, Forward), (TableFamily::Bridge, Forward)],
        Some("BRIDGE/POSTROUTING") => vec![(ip, Postrouting), (TableFamily::Bridge, Postrouting)],
        Some("BRIDGE/INPUT") => vec![(ip, Input), (TableFamily::Bridge, Input)],
        Some("BRIDGE") => [Prerouting, Forward, Input, Output, Postrouting]
            .into_iter()
            .map(|hook| (TableFamily::Bridge, hook))
            .collect(),
        _ => Vec::new(),
    }
}

/// The packet as the hook saw it.
fn view(case: &Case<'_>, death: &Death<'_>) -> Option<PacketView> {
    let packet = death.packet()?;
    let Body::Ip(ip) = &packet.body else { return None };
    let mut view = match &packet.outer {
        Some(outer) => {
            const UDP: u8 = 17;
            let mut view = PacketView::new(outer.src, outer.dst, UDP);
            (view.sport, view.dport) = (Some(outer.udp_src), Some(outer.udp_dst));
            view
        }
        None => {
            let mut view = PacketView::new(ip.src, ip.dst, ip.proto);
            match ip.l4 {
                L4::Tcp { sport, dport, flags, .. } => {
                    (view.sport, view.dport) = (Some(sport), Some(dport));
                    view.tcp_flags = Some(flags);
                }
                L4::Udp { sport, dport, .. } => {
                    (view.sport, view.dport) = (Some(sport), Some(dport));
                }
                L4::Icmp { kind, code, .. } | L4::IcmpError { kind, code, .. } => {
                    view.icmp = Some((kind, code));
                }
                L4::Other => {}
            }
            view
        }
    };
    if death.packet().is_some_and(|p| p.outer.is_none()) && opens(case, death, &view) {
        view.ct = Some(vec![CtState::New]);
    }
    view.ether_src = packet.eth.map(|eth| eth.src);
    view.ether_dst = packet.eth.map(|eth| eth.dst);
    let here = |p: &crate::model::Point| case.topology.station(p.station).netns_inum == death.netns;
    let name = |station: &Station| station.name.clone();
    let hook = death.stage().and_then(|s| s.hook).unwrap_or_default();
    if let Some(last) = death.last.filter(here) {
        let station = case.topology.station(last.station);
        let entered = last.hook == Hook::Ingress;
        if entered && !matches!(hook, "OUTPUT") {
            view.iif = Some(name(station));
        }
        if hook.starts_with("BRIDGE") {
            view.port_in = view.iif.clone();
        }
    }
    if matches!(hook, "OUTPUT") {
        view.iif = Some(String::new());
    }
    if matches!(hook, "FORWARD" | "OUTPUT" | "POSTROUTING" | "NETDEV") {
        view.oif = death.next.filter(here).map(|p| name(case.topology.station(p.station)));
        if let Some(station) = case.leaving_device(death).filter(|_| hook != "FORWARD") {
            view.oif = Some(name(station));
        }
    }
    Some(view)
}

/// Whether the packet is the first of its connection: a SYN, or a request where nothing was ever
/// answered.
fn opens(case: &Case<'_>, death: &Death<'_>, view: &PacketView) -> bool {
    /// SYN, RST and ACK, FIN (RFC 9293).
    const SYN: u8 = 0x02;
    const OTHERS: u8 = 0x01 | 0x04 | 0x10;
    match view.tcp_flags {
        Some(flags) => flags & SYN != 0 && flags & OTHERS == 0,
        None => {
            let answered = |j: &crate::model::Journey| j.direction == Direction::Reply;
            death.direction == Direction::Forward
                && case.trace.omitted == 0
                && !case.trace.journeys.iter().any(answered)
        }
    }
}

/// What the likeliest suspect means, with what it decides.
pub(super) fn understood(case: &Case<'_>, death: &Death<'_>) -> Option<(Decision, Meaning)> {
    let (view, facts) = (view(case, death)?, case.netns_after(death.netns)?);
    let decision = suspected(case, death).into_iter().next()?.decision;
    let meaning = meaning(&decision, &view, facts)?;
    Some((decision, meaning))
}

/// What may have dropped these packets, likeliest first.
pub(super) fn suspected(case: &Case<'_>, death: &Death<'_>) -> Vec<Suspect> {
    let Some(view) = view(case, death) else { return Vec::new() };
    let Some(after) = case.netns_after(death.netns) else { return Vec::new() };
    let before = case.netns_before(death.netns);
    let hooks = hooks(death, &view).into_iter();
    let all =
        hooks.flat_map(|(family, hook)| suspects(before, after, family, hook, &view, death.count));
    // Of several hooks the one whose counter moved.
    let (moved, still): (Vec<_>, Vec<_>) = all.partition(|s| s.rose.is_some());
    moved.into_iter().chain(still).collect()
}

/// Cause of a decision.
fn code(decision: &Decision, facts: &NetnsFacts, view: &PacketView) -> &'static str {
    if let Some(meaning) = meaning(decision, view, facts) {
        return meaning.cause;
    }
    match (&decision.verdict, &decision.rule) {
        (Verdict::Reject(_), _) => "netfilter.reject",
        (_, None) => "netfilter.policy",
        (_, Some(_)) if wants_invalid(decision, facts) => "netfilter.invalid",
        _ => "netfilter.drop",
    }
}

/// Whether the rule takes packets that connection tracking calls invalid.
fn wants_invalid(decision: &Decision, facts: &NetnsFacts) -> bool {
    rule_of(decision, facts).is_some_and(|rule| {
        rule.conditions.iter().any(|c| {
            !c.invert && matches!(&c.what, Match::CtState(states) if *states == [CtState::Invalid])
        }) && rule.action == Action::Drop
    })
}

fn rule_of<'a>(decision: &Decision, facts: &'a NetnsFacts) -> Option<&'a FirewallRule> {
    let position = decision.rule.as_ref()?.position.checked_sub(1)?;
    let table = facts.firewall.table(decision.backend, decision.family, &decision.table)?;
    table.chain(&decision.chain)?.rules.get(usize::try_from(position).ok()?)
}

/// The rule or policy that dropped, if it is of this cause.
fn rule(case: &Case<'_>, death: &Death<'_>, wanted: &str) -> Option<Explanation> {
    death.dropped("NETFILTER_DROP", "*").then_some(())?;
    let facts = case.netns_after(death.netns)?;
    let view = view(case, death)?;
    let all = suspected(case, death);
    let first = all.first()?;
    if code(&first.decision, facts, &view) != wanted {
        return None;
    }
    let problem = as_problem(case, death, &first.decision, &view, facts);
    let mut evidence = problem.evidence().to_vec();
    match first.rose {
        Some(1) => evidence.push("its counter rose by 1 packet during the trace".to_owned()),
        Some(n) => evidence.push(format!("its counter rose by {n} packets during the trace")),
        None => {}
    }
    let sure = match first.rose {
        Some(n) => n > 0 && first.reached,
        // Not counted: sure only where nothing else can have done it.
        None => first.reached && all.len() == 1,
    };
    let others = all.iter().skip(1).take(MORE).filter(|_| !sure);
    evidence.extend(others.map(|s| format!("or perhaps: {}", s.decision.describe())));
    Some(Explanation {
        summary: match meaning(&first.decision, &view, facts) {
            Some(meaning) => {
                format!("{}: {}", meaning.summary, text(case, death, &first.decision))
            }
            None => text(case, death, &first.decision),
        },
        evidence,
        fix: problem.fix(),
        confidence: if sure { Confidence::Proven } else { Confidence::Likely },
        place: None,
        direction: None,
        rule: Some(first.decision.describe()),
    })
}

/// `B's firewall drops the tunnel's packets (UDP 8472) in table filter, chain INPUT: rule …`
fn text(case: &Case<'_>, death: &Death<'_>, decision: &Decision) -> String {
    let verb = if matches!(decision.verdict, Verdict::Reject(_)) { "rejects" } else { "drops" };
    let what = match death.packet().and_then(|p| p.outer.as_ref()) {
        Some(outer) => format!("the tunnel's packets (UDP {})", outer.udp_dst),
        None => "the packets".to_owned(),
    };
    format!("The firewall of {} {verb} {what}: {}", case.where_words(death), decision.describe())
}

/// In the shape that knows how to mend it.
fn as_problem(
    case: &Case<'_>,
    death: &Death<'_>,
    decision: &Decision,
    view: &PacketView,
    facts: &NetnsFacts,
) -> Problem {
    Problem {
        kind: firewall_problem(decision, view, facts, death.is_outer()),
        spot: Spot {
            node: death.place.node.clone().unwrap_or_default(),
            pod: death.place.pod.clone(),
            netns: death.place.netns.clone().unwrap_or_default(),
            netns_inum: death.netns,
            interface: death.place.interface.clone(),
        },
        stage: Stage::Forward,
        direction: death.direction,
        position: death.last.and_then(|p| case.position(death.direction, p)).map_or(0, |at| at + 1),
        after: death.last,
        before: death.next,
        seriousness: Seriousness::Deadly,
        certain: true,
        text: String::new(),
        entry: None,
    }
}

/// By how much a counter of connection tracking rose where the packets died.
fn conntrack_rose(case: &Case<'_>, death: &Death<'_>, wanted: &str) -> Option<u64> {
    case.changes.iter().filter(|d| d.netns == death.netns).find_map(|d| match &d.change {
        Change::ConntrackCounter { name, by } if name == wanted => Some(*by),
        _ => None,
    })
}

/// Whether connection tracking can have dropped: not nft, and no rule's counter says it did.
fn not_a_rule(case: &Case<'_>, death: &Death<'_>) -> bool {
    death.dropped("NETFILTER_DROP", "nf_hook_slow")
        && suspected(case, death).iter().all(|s| s.rose.is_none_or(|n| n == 0) && !s.reached)
}

fn table_full(case: &Case<'_>, death: &Death<'_>) -> Option<Explanation> {
    let facts = case.netns_after(death.netns)?;
    let conntrack = facts.conntrack.as_ref()?;
    let (count, max) = (conntrack.count?, conntrack.max?);
    // Entries come and go: close to the limit is at it.
    let full = max > 0 && count.saturating_mul(100) >= max.saturating_mul(95);
    let hook = death.stage().and_then(|s| s.hook)?;
    let early = hook.ends_with("PREROUTING") || hook == "OUTPUT";
    if !(full && early && not_a_rule(case, death)) {
        return None;
    }
    let mut explanation = likely(
        format!(
            "The connection table of {} is full: {count} of {max} entries",
            case.where_words(death)
        ),
        &[
            format!("sysctl -w net.netfilter.nf_conntrack_max={}", max.saturating_mul(4)),
            "conntrack -S; conntrack -L | head   # and what fills it".to_owned(),
        ],
    );
    explanation.confidence = Confidence::Proven;
    let rose = ["drop", "early_drop", "insert_failed"]
        .iter()
        .find_map(|name| Some((name, conntrack_rose(case, death, name)?)));
    explanation
        .evidence
        .extend(rose.map(|(name, by)| format!("conntrack -S: {name} rose by {by}")));
    Some(explanation)
}

/// No free port to translate the source to, or a clash with another connection.
fn exhausted(case: &Case<'_>, death: &Death<'_>) -> Option<Explanation> {
    let hook = death.stage().and_then(|s| s.hook)?;
    let rose = ["insert_failed", "drop"]
        .iter()
        .find_map(|name| Some((name, conntrack_rose(case, death, name)?)));
    if hook != "POSTROUTING" || !not_a_rule(case, death) {
        return None;
    }
    let (name, by) = rose?;
    let mut explanation = likely(
        format!(
            "Source translation on {} found no free port, or its connection clashes with another",
            case.where_words(death)
        ),
        &[
            "iptables -t nat -S POSTROUTING   # a rule with few --to-ports?".to_owned(),
            "use --random-fully; for DNS a node-local cache".to_owned(),
        ],
    );
    explanation.confidence = Confidence::Proven;
    explanation.evidence.push(format!("conntrack -S: {name} rose by {by}"));
    Some(explanation)
}

/// Netfilter dropped, and no rule was found that did.
fn unknown(case: &Case<'_>, death: &Death<'_>) -> Option<Explanation> {
    death.dropped("NETFILTER_DROP", "*").then(|| {
        let gap = case.netns_after(death.netns).is_none_or(|f| {
            f.firewall.is_empty()
                || f.gaps.iter().any(|g| g.source.contains("tables") || g.source.contains("nft"))
        });
        let why =
            if gap { "its rules could not be read" } else { "none of its rules is known to match" };
        likely(format!("The firewall of {} drops the packets; {why}", case.where_words(death)), &[])
    })
}

/// net/netfilter/nf_queue.c: a packet for a queue that no program has bound (and that is not bypassed)
/// is dropped, as is one that finds the queue full.
fn queued(case: &Case<'_>, death: &Death<'_>) -> Option<Explanation> {
    death.dropped("*", "nf_queue*").then_some(())?;
    let view = view(case, death)?;
    let facts = case.netns_after(death.netns);
    let rules: Vec<Decision> = hooks(death, &view)
        .into_iter()
        .filter_map(|(family, hook)| Some(evaluate(facts?, family, hook, &view).decisions))
        .flatten()
        .filter(|d| matches!(d.verdict, Verdict::Queue))
        .collect();
    let by = rules.first().map_or_else(String::new, |rule| format!(": {}", rule.describe()));
    let mut explanation = likely(
        format!(
            "The firewall of {} hands the packets to a program (queue), and none takes them{by}",
            case.where_words(death)
        ),
        &[
            "cat /proc/net/netfilter/nfnetlink_queue   # queues that a program has bound"
                .to_owned(),
            "start the program that reads this queue, or let the rule bypass it (--queue-bypass)"
                .to_owned(),
        ],
    );
    if let [only] = rules.as_slice() {
        explanation.confidence = Confidence::Proven;
        explanation.rule = Some(only.describe());
    }
    Some(explanation)
}
