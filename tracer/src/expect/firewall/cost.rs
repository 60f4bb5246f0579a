//! What it takes to judge a rule, so that following chains can be bounded. Pure.

use crate::facts::firewall::{Action, Condition, FirewallRule, Match};

/// Values compared for a rule, about. A look-up of an ipset counts as one hundred: most are small.
pub(super) fn cost(rule: &FirewallRule) -> u64 {
    let choices = match &rule.action {
        Action::Choose(choices) => choices.len(),
        _ => 0,
    };
    let values = rule.conditions.iter().map(values).sum::<usize>();
    u64::try_from(1 + choices + values).unwrap_or(u64::MAX)
}

fn values(condition: &Condition) -> usize {
    /// Comparisons of one look-up in a set.
    const SET: usize = 100;
    match &condition.what {
        Match::Iif(list) | Match::Oif(list) | Match::PhysdevIn(list) | Match::PhysdevOut(list) => {
            list.len()
        }
        Match::Src(list) | Match::Dst(list) => list.len(),
        Match::Sport(list) | Match::Dport(list) | Match::Port(list) => list.len(),
        Match::EtherSrc(list) | Match::EtherDst(list) => list.len(),
        Match::AnyOf(list) => list.len(),
        Match::IpSet { .. } | Match::Recent(_) => SET,
        _ => 1,
    }
}
