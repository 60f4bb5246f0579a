//! Which rule or policy dropped packets: what its counter says, and whether it fits them. Pure.

use super::matching::{self, Holds};
use super::{Decision, PacketView, RuleRef, Verdict, evaluate};
use crate::facts::NetnsFacts;
use crate::facts::firewall::{
    Action, Backend, Chain, Choice, Counter, FirewallRule, Hooked, NfHook, Policy, TableFamily,
};

/// A rule or policy that may have ended packets at a hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suspect {
    /// Which.
    pub decision: Decision,
    /// By how many packets its counter rose; `None`: it has none, or there is nothing to compare.
    pub rose: Option<u64>,
    /// Whether following the packet through the chains leads to it.
    pub reached: bool,
}

/// The rules and policies at a hook that drop or reject, likeliest first: what the packet leads
/// to and whose counter rose by the number of `drops`, what it leads to and is not counted, what
/// rose though the packet should not get there. A counter that stood still acquits.
pub fn suspects(
    before: Option<&NetnsFacts>,
    after: &NetnsFacts,
    family: TableFamily,
    hook: NfHook,
    packet: &PacketView,
    drops: u64,
) -> Vec<Suspect> {
    let evaluation = evaluate(after, family, hook, packet);
    let mut found: Vec<(u8, u64, Suspect)> = Vec::new();
    let mut see = |decision: Decision, counter: Option<Counter>, was: Option<Option<Counter>>| {
        let reached = evaluation.decisions.iter().find(|d| same(d, &decision));
        let holds = reached.map_or(Holds::Never, |d| d.holds);
        // A rule that was not there before started from nothing.
        let rose = match (counter, was, before) {
            (Some(now), Some(Some(was)), _) => Some(now.packets.saturating_sub(was.packets)),
            (Some(now), None, Some(_)) => Some(now.packets),
            _ => None,
        };
        let rank = match (rose, holds) {
            (Some(0), _) => return,
            (Some(n), Holds::Always | Holds::Sometimes) if n == drops => 0,
            (Some(_), Holds::Always | Holds::Sometimes) => 1,
            (Some(n), Holds::Unknown) if n == drops => 2,
            (None, Holds::Always) => 3,
            (Some(_), Holds::Unknown) => 4,
            (None, Holds::Sometimes) => 5,
            (None, Holds::Unknown) => 6,
            (Some(_), Holds::Never) if fits(&decision, after, packet) => 7,
            (Some(_), Holds::Never) => 8,
            (None, Holds::Never) => return,
        };
        let distance = rose.map_or(u64::MAX, |n| n.abs_diff(drops));
        let decision = reached.cloned().unwrap_or(decision);
        found.push((rank, distance, Suspect { decision, rose, reached: holds != Holds::Never }));
    };
    for hooked in after.firewall.chains_at(family, hook) {
        let old = before.and_then(|b| {
            b.firewall.table(hooked.table.backend, hooked.table.family, &hooked.table.name)
        });
        if hooked.base.policy == Policy::Drop {
            let was = old.and_then(|t| t.chain(&hooked.chain.name)?.base.as_ref());
            let decision = bare(&hooked, hooked.chain, None, Verdict::Drop);
            see(decision, hooked.base.counter, was.map(|b| b.counter));
        }
        for chain in reachable(&hooked) {
            let old = old.and_then(|t| t.chain(&chain.name));
            for (index, rule) in chain.rules.iter().enumerate() {
                let Some(verdict) = end_of(&rule.action) else { continue };
                let was = old.and_then(|c| same_rule(chain, index, rule, c));
                let decision = bare(&hooked, chain, Some((index, rule)), verdict);
                see(decision, rule.counter, was.map(|r| r.counter));
            }
        }
    }
    found.sort_by_key(|(rank, distance, _)| (*rank, *distance));
    found.into_iter().map(|(.., suspect)| suspect).collect()
}

/// The base chain and all that it can jump to, each once.
fn reachable<'a>(hooked: &Hooked<'a>) -> Vec<&'a Chain> {
    let mut chains = vec![hooked.chain];
    let mut at = 0;
    while let Some(chain) = chains.get(at).copied() {
        at += 1;
        for rule in &chain.rules {
            for name in targets(&rule.action) {
                if !chains.iter().any(|c| c.name == name) {
                    chains.extend(hooked.table.chain(name));
                }
            }
        }
    }
    chains
}

fn targets(action: &Action) -> Vec<&str> {
    match action {
        Action::Jump(name) | Action::Goto(name) => vec![name],
        Action::Choose(choices) => choices.iter().flat_map(|c| targets(&c.action)).collect(),
        _ => Vec::new(),
    }
}

fn end_of(action: &Action) -> Option<Verdict> {
    match action {
        Action::Drop => Some(Verdict::Drop),
        Action::Reject { with } => Some(Verdict::Reject(with.clone())),
        Action::Choose(choices) => choices.iter().find_map(|c: &Choice| end_of(&c.action)),
        _ => None,
    }
}

/// The rule as it was: by its number, else by text and place among those with the same text.
fn same_rule<'a>(
    chain: &Chain,
    index: usize,
    rule: &FirewallRule,
    old: &'a Chain,
) -> Option<&'a FirewallRule> {
    if rule.handle.is_some() {
        return old.rules.iter().find(|r| r.handle == rule.handle);
    }
    let nth = chain.rules.iter().take(index).filter(|r| r.text == rule.text).count();
    old.rules.iter().filter(|r| r.text == rule.text).nth(nth)
}

/// The conditions of the rule itself, whatever leads to it.
fn fits(decision: &Decision, facts: &NetnsFacts, packet: &PacketView) -> bool {
    let Some(rule) = &decision.rule else { return true };
    let index = usize::try_from(rule.position).unwrap_or(usize::MAX).saturating_sub(1);
    facts
        .firewall
        .table(decision.backend, decision.family, &decision.table)
        .and_then(|t| t.chain(&decision.chain)?.rules.get(index))
        .is_some_and(|r| {
            matching::all(&r.conditions, packet, facts, &mut Vec::new()) != Holds::Never
        })
}

fn same(a: &Decision, b: &Decision) -> bool {
    let id = |d: &Decision| -> (Backend, TableFamily, NfHook, Option<u32>) {
        (d.backend, d.family, d.hook, d.rule.as_ref().map(|r| r.position))
    };
    id(a) == id(b)
        && a.table == b.table
        && a.chain == b.chain
        && a.verdict.ends() == b.verdict.ends()
}

fn bare(
    hooked: &Hooked<'_>,
    chain: &Chain,
    rule: Option<(usize, &FirewallRule)>,
    verdict: Verdict,
) -> Decision {
    Decision {
        backend: hooked.table.backend,
        family: hooked.table.family,
        table: hooked.table.name.clone(),
        chain: chain.name.clone(),
        hook: hooked.base.hook,
        rule: rule.map(|(index, rule)| RuleRef::new(index, rule)),
        element: None,
        via: Vec::new(),
        verdict,
        holds: Holds::Unknown,
        unclear: Vec::new(),
    }
}
