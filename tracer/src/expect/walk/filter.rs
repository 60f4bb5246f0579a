//! Packet filters on the way.

use super::walker::{At, Fault, Walker};
use super::{ProblemKind, Stage};
use crate::expect::firewall::{
    Decision, Evaluation, Holds, PacketView, Verdict, evaluate, meaning, remedy,
};
use crate::expect::translate;
use crate::facts::firewall::{NfHook, TableFamily};
use crate::facts::{Link, NetnsFacts, Space};

/// Where a packet is between interfaces.
#[derive(Clone, Copy, Default)]
pub(super) struct Between<'a> {
    pub(super) iif: Option<&'a Link>,
    pub(super) oif: Option<&'a Link>,
    /// Bridge ports, for what is bridged.
    pub(super) ports: [Option<&'a Link>; 2],
}

impl<'a> Walker<'a> {
    /// The IP hooks, for the packet itself.
    pub(super) fn hook(&mut self, space: &'a Space, hook: NfHook, between: Between<'a>) {
        let packet = self.packet.clone();
        let family = packet.tables();
        self.packet = self.filter(space, family, hook, between, packet, false);
        if let Some(src) = self.taken.take() {
            self.packet.src = src;
        }
    }

    /// A hook of any family, for any packet; returns the packet behind it.
    pub(super) fn filter(
        &mut self,
        space: &'a Space,
        family: TableFamily,
        hook: NfHook,
        between: Between<'a>,
        packet: PacketView,
        outer: bool,
    ) -> PacketView {
        let stage = stage(family, hook);
        let at = At::new(space, between.oif.or(between.iif));
        let facts = &space.facts;
        if facts.has_gap("firewall") && !self.unread.contains(&facts.inum) {
            self.unread.push(facts.inum);
            let gaps: Vec<_> = facts
                .gaps
                .iter()
                .filter(|g| g.source.starts_with("firewall"))
                .map(ToString::to_string)
                .collect();
            let text = format!("packet filters of {}", at.whose());
            self.unknown(At::new(space, None), stage, text, gaps.join("; "));
        }
        let name = |link: Option<&Link>| Some(link.map_or_else(String::new, |l| l.name.clone()));
        let packet = PacketView {
            iif: name(between.iif),
            oif: name(between.oif),
            port_in: name(between.ports[0]),
            port_out: name(between.ports[1]),
            ..packet
        };
        let evaluation = evaluate(facts, family, hook, &packet);
        self.judge(at, stage, &evaluation, &packet, outer);
        evaluation.packet
    }

    fn judge(
        &mut self,
        at: At<'_>,
        stage: Stage,
        evaluation: &Evaluation,
        packet: &PacketView,
        outer: bool,
    ) {
        let kind = |decision| firewall_problem(decision, packet, &at.space.facts, outer);
        let enders: Vec<&Decision> = evaluation.enders().collect();
        let surest = enders.iter().max_by_key(|d| d.holds);
        match (evaluation.ends, surest) {
            (Holds::Never, _) if redirection(evaluation).is_some() => {
                let Some(decision) = redirection(evaluation) else { return };
                let fault = Fault::deadly(kind(decision), sentence(at, decision, outer));
                self.fault(at, stage, fault.entry(decision.describe()));
            }
            (Holds::Never, _) if perhaps_redirected(evaluation).is_some() => {
                let Some(decision) = perhaps_redirected(evaluation) else { return };
                let gap = format!("it depends on {}", decision.unclear.join(", "));
                self.unknown(at, stage, decision.describe(), gap);
            }
            (Holds::Never, _) if !outer && translation(evaluation).is_some() => {
                let Some((decision, rule)) = translation(evaluation) else { return };
                self.taken = translate::taken(at.space, at.link, decision, self.packet.dst);
                if !self.between_pods() {
                    return self.pass(at, stage, decision.describe());
                }
                let text = format!(
                    "{} translates the source of the packet: the other pod sees the node",
                    at.whose()
                );
                let kind = ProblemKind::Masquerade {
                    table: decision.table.clone(),
                    chain: decision.chain.clone(),
                    rule,
                };
                self.fault(at, stage, Fault::note(kind, text).entry(decision.describe()));
            }
            (Holds::Never, _) => {
                if let Some(text) = passed(evaluation, outer) {
                    self.pass(at, stage, text);
                }
            }
            (Holds::Always, Some(decision)) => {
                let sure = decision.holds == Holds::Always;
                let others = enders.len() - 1;
                let mut text = ended(at, decision, packet, outer);
                if !sure && others > 0 {
                    text += &format!(", or one of {others} others");
                }
                let fault = Fault::deadly(kind(decision), text);
                self.fault(at, stage, fault.entry(decision.describe()));
            }
            (Holds::Sometimes, Some(decision)) => {
                let text = format!("{}, for some packets", ended(at, decision, packet, outer));
                let fault = Fault::harms(kind(decision), text);
                self.fault(at, stage, fault.entry(decision.describe()));
            }
            (_, decision) => {
                let unclear = evaluation.decisions.iter().flat_map(|d| &d.unclear);
                let mut unclear: Vec<&str> = unclear.map(String::as_str).collect();
                unclear.dedup();
                let open =
                    |d: &&Decision| matches!(d.verdict, Verdict::Queue | Verdict::Unknown(_));
                let open = evaluation.decisions.iter().find(open);
                let gap = match open.map(|d| &d.verdict) {
                    Some(Verdict::Queue) => {
                        "it depends on the program that gets the packets to decide about".to_owned()
                    }
                    _ => format!("it depends on {}", unclear.join(", ")),
                };
                let text = open.or(decision.copied()).map_or_else(
                    || format!("packet filters at {}", stage.as_str()),
                    Decision::describe,
                );
                self.unknown(at, stage, text, gap);
            }
        }
    }
}

fn stage(family: TableFamily, hook: NfHook) -> Stage {
    match (family, hook) {
        (TableFamily::Bridge, _) => Stage::Bridge,
        (_, NfHook::Ingress) => Stage::Receive,
        (_, NfHook::Egress) => Stage::Transmit,
        (_, NfHook::Prerouting) => Stage::Prerouting,
        (_, NfHook::Input) => Stage::Input,
        (_, NfHook::Forward) => Stage::Forward,
        (_, NfHook::Output) => Stage::Output,
        (_, NfHook::Postrouting) => Stage::Postrouting,
    }
}

/// The rule that certainly translates the source.
fn translation(evaluation: &Evaluation) -> Option<(&Decision, String)> {
    let translates =
        |d: &&Decision| d.holds == Holds::Always && matches!(d.verdict, Verdict::Snat(_));
    let decision = evaluation.decisions.iter().find(translates)?;
    Some((decision, decision.rule.as_ref()?.text.clone()))
}

/// The rule that certainly sends the packet to another destination than the one it has.
fn redirection(evaluation: &Evaluation) -> Option<&Decision> {
    let own = evaluation.packet.dst.to_string();
    evaluation.decisions.iter().find(|d| {
        d.holds == Holds::Always
            && matches!(&d.verdict, Verdict::Dnat(to) if !to.starts_with(own.as_str()))
    })
}

/// The rule that may send the packet to another destination, which cannot be told.
fn perhaps_redirected(evaluation: &Evaluation) -> Option<&Decision> {
    let own = evaluation.packet.dst.to_string();
    evaluation.decisions.iter().find(|d| {
        d.holds == Holds::Unknown
            && matches!(&d.verdict, Verdict::Dnat(to) if !to.starts_with(own.as_str()))
    })
}

/// What let it pass, where there is more to tell than "nothing objected".
fn passed(evaluation: &Evaluation, outer: bool) -> Option<String> {
    let of = if outer { "tunnel packet: " } else { "" };
    let by_rule = evaluation.decisions.iter().rev().find(|d| d.rule.is_some());
    if let Some(decision) = by_rule {
        return Some(format!("{of}{}", decision.describe()));
    }
    let decision = evaluation.decisions.last()?;
    let backend = decision.backend.name();
    Some(format!("{of}{backend} table {}, chain {}: policy accept", decision.table, decision.chain))
}

/// The problem that a decision is for a packet. `outer`: the packet is a tunnel's.
pub fn firewall_problem(
    decision: &Decision,
    packet: &PacketView,
    facts: &NetnsFacts,
    outer: bool,
) -> ProblemKind {
    let redirect = match &decision.verdict {
        Verdict::Dnat(to) => Some(to.clone()),
        _ => None,
    };
    ProblemKind::Firewall {
        backend: decision.backend.name().to_owned(),
        family: decision.family.name().to_owned(),
        table: decision.table.clone(),
        chain: decision.chain.clone(),
        hook: decision.hook.name().to_uppercase(),
        rule: decision.rule.as_ref().map(|r| r.text.clone()),
        handle: decision.rule.as_ref().and_then(|r| r.handle),
        position: decision.rule.as_ref().map(|r| r.position),
        reject: match &decision.verdict {
            Verdict::Reject(with) => Some(with.clone()),
            _ => None,
        },
        outer,
        redirect,
        meaning: meaning(decision, packet, facts).map(Box::new),
        remedy: remedy(decision, packet, facts, outer),
    }
}

/// What a drop or reject means, where that is known, and where it is.
fn ended(at: At<'_>, decision: &Decision, packet: &PacketView, outer: bool) -> String {
    let sentence = sentence(at, decision, outer);
    match meaning(decision, packet, &at.space.facts) {
        Some(meaning) => format!("{}: {sentence}", meaning.summary),
        None => sentence,
    }
}

fn sentence(at: At<'_>, decision: &Decision, outer: bool) -> String {
    let what = if outer { "tunnel packets" } else { "the packet" };
    let does = match &decision.verdict {
        Verdict::Reject(_) => "rejects",
        Verdict::Dnat(_) => "redirects",
        _ => "drops",
    };
    let by = match &decision.rule {
        Some(rule) => format!("rule {} ({})", rule.position, rule.text),
        None => "by its policy".to_owned(),
    };
    format!(
        "{} {does} {what} at {}: {} table {}, chain {}, {by}",
        at.whose(),
        decision.hook.name().to_uppercase(),
        decision.backend.name(),
        decision.table,
        decision.chain
    )
}
