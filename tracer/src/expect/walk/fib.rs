//! Routing as the kernel does it: policy rules in order, longest prefix in each table. Pure.
//!
//! The kernel's own answer says where a packet goes; this says by which rule and which route, and
//! why it goes nowhere. Where the two disagree (a rule has a condition that is not read), the
//! kernel is right and the entry is not named.

use std::net::IpAddr;

use super::RefusalKind;
use crate::facts::{NetnsFacts, Route, RouteKind, Rule, RuleAction};

/// Priorities of the rules that every namespace has: local, main, default.
const DEFAULT_RULES: [u32; 3] = [0, 32766, 32767];

/// What a packet asks routing for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question<'a> {
    pub(super) src: Option<IpAddr>,
    pub(super) dst: IpAddr,
    /// Name of the interface that it came in by; `None`: of the host itself.
    pub(super) iif: Option<&'a str>,
    pub(super) mark: u32,
    pub(super) proto: u8,
    pub(super) dport: Option<u16>,
}

/// Where the search ended.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Found<'a> {
    /// The rule that led to the table, or that refuses by itself.
    pub(super) rule: Option<&'a Rule>,
    /// The route.
    pub(super) route: Option<&'a Route>,
}

impl Found<'_> {
    /// How the rule or route refuses, if it does.
    pub(super) fn refusal(&self) -> Option<RefusalKind> {
        match (self.route.map(|r| r.kind), self.rule.map(|r| r.action)) {
            (Some(RouteKind::Blackhole), _) | (None, Some(RuleAction::Blackhole)) => {
                Some(RefusalKind::Blackhole)
            }
            (Some(RouteKind::Unreachable), _) | (None, Some(RuleAction::Unreachable)) => {
                Some(RefusalKind::Unreachable)
            }
            (Some(RouteKind::Prohibit), _) | (None, Some(RuleAction::Prohibit)) => {
                Some(RefusalKind::Prohibit)
            }
            _ => None,
        }
    }

    /// The rule, where it is not one of those that every namespace has.
    pub(super) fn special_rule(&self) -> Option<&Rule> {
        self.rule.filter(|r| !DEFAULT_RULES.contains(&r.priority))
    }
}

/// Follows the rules.
pub(super) fn lookup<'a>(facts: &'a NetnsFacts, question: &Question<'_>) -> Found<'a> {
    follow(facts, question, |_| true)
}

/// Follows only the rules that every namespace has: where the packet would go without the others.
pub(super) fn without_special_rules<'a>(
    facts: &'a NetnsFacts,
    question: &Question<'_>,
) -> Found<'a> {
    follow(facts, question, |rule| DEFAULT_RULES.contains(&rule.priority))
}

fn follow<'a>(
    facts: &'a NetnsFacts,
    question: &Question<'_>,
    counts: impl Fn(&Rule) -> bool,
) -> Found<'a> {
    let v6 = question.dst.is_ipv6();
    let mut rules: Vec<&Rule> = facts.rules.iter().filter(|r| r.v6 == v6 && counts(r)).collect();
    rules.sort_by_key(|r| r.priority);
    let mut at = 0;
    while let Some(rule) = rules.get(at).copied() {
        at += 1;
        if !selects(rule, question) {
            continue;
        }
        match rule.action {
            RuleAction::ToTable => {
                let suppressed = |r: &&Route| {
                    rule.suppress_prefix.is_none_or(|n| u32::from(r.dst.prefix_len()) > n)
                };
                let route = best(facts, rule.table, question.dst).filter(suppressed);
                match route.map(|r| r.kind) {
                    None | Some(RouteKind::Throw) => {}
                    Some(_) => return Found { rule: Some(rule), route },
                }
            }
            // Forward only, so this ends.
            RuleAction::Goto(priority) => {
                at = rules.iter().position(|r| r.priority >= priority).unwrap_or(at).max(at);
            }
            RuleAction::Nop | RuleAction::Other(_) => {}
            RuleAction::Blackhole | RuleAction::Unreachable | RuleAction::Prohibit => {
                return Found { rule: Some(rule), route: None };
            }
        }
    }
    Found::default()
}

/// The most specific route of a table, of several the one with the least metric. Those that lead
/// out of a dead interface do not count.
fn best(facts: &NetnsFacts, table: u32, dst: IpAddr) -> Option<&Route> {
    facts
        .routes
        .iter()
        .filter(|r| r.table == table && r.tos == 0 && r.dst.contains(&dst))
        .filter(|r| !r.dead || !r.more_hops.is_empty())
        .min_by_key(|r| (u8::MAX - r.dst.prefix_len(), r.priority.unwrap_or(0)))
}

fn selects(rule: &Rule, question: &Question<'_>) -> bool {
    let matches = rule.dst.is_none_or(|net| net.contains(&question.dst))
        && rule.src.is_none_or(|net| match question.src {
            Some(src) => net.contains(&src),
            None => net.prefix_len() == 0,
        })
        && rule.iif.as_deref().is_none_or(|name| match question.iif {
            Some(iif) => name == iif,
            // What the host sends itself comes from the loopback device.
            None => name == "lo",
        })
        && rule.oif.is_none()
        && rule.tos == 0
        && rule.sport.is_none()
        && rule.uids.is_none()
        && rule.proto.is_none_or(|proto| proto == question.proto)
        && rule.dport.is_none_or(|(first, last)| {
            question.dport.is_some_and(|port| (first..=last).contains(&port))
        })
        && rule.fwmark.is_none_or(|(mark, mask)| question.mark & mask == mark);
    matches != rule.invert
}
