//! What a decision that ends packets means in Kubernetes: which NetworkPolicy denies what to whom,
//! which service leads nowhere and why. Pure.
//!
//! It is read out of what controllers write into their rules: names of chains, comments of rules and
//! of map elements, and sets.

mod owner;
mod policy;
mod remedy;
mod service;
#[cfg(test)]
mod tests;

pub use owner::Owner;
pub use service::{ServicePort, service_ports, untranslated, wrong_port};

use super::{Decision, PacketView};
use crate::facts::NetnsFacts;
use crate::facts::firewall::{Chain, FirewallRule, Table};

/// A decision, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meaning {
    /// Its cause code.
    pub cause: &'static str,
    /// One sentence.
    pub summary: String,
    /// What it is read from, beside the rule itself.
    pub evidence: Vec<String>,
    /// What helps, best first; never a change of the controller's own rules.
    pub fix: Vec<String>,
}

/// What a drop or reject means; `None`: nothing more than it says.
pub fn meaning(decision: &Decision, packet: &PacketView, facts: &NetnsFacts) -> Option<Meaning> {
    if !decision.verdict.ends() {
        return None;
    }
    service::read(decision, packet, facts).or_else(|| policy::read(decision, packet, facts))
}

/// What to type so that the packet passes, in the terms of whose rule it is. `outer`: the packet is
/// a tunnel's.
pub fn remedy(
    decision: &Decision,
    packet: &PacketView,
    facts: &NetnsFacts,
    outer: bool,
) -> Vec<String> {
    remedy::commands(decision, packet, facts, outer)
}

/// The table of a decision.
fn table<'a>(decision: &Decision, facts: &'a NetnsFacts) -> Option<&'a Table> {
    facts.firewall.table(decision.backend, decision.family, &decision.table)
}

/// The chain of a decision.
fn chain<'a>(decision: &Decision, facts: &'a NetnsFacts) -> Option<&'a Chain> {
    table(decision, facts)?.chain(&decision.chain)
}

/// The rule of a decision.
fn rule<'a>(decision: &Decision, facts: &'a NetnsFacts) -> Option<&'a FirewallRule> {
    let position = decision.rule.as_ref()?.position.checked_sub(1)?;
    chain(decision, facts)?.rules.get(usize::try_from(position).ok()?)
}

/// The comments of a rule, as iptables-save (`--comment "…"`) and nft (`comment "…"`) print them.
fn comments(text: &str) -> Vec<&str> {
    let option = if text.contains("--comment ") { "--comment " } else { "comment \"" };
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once(option) {
        let quoted = after.strip_prefix('"').or((option != "--comment ").then_some(after));
        let (comment, behind) = match quoted {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => after.split_once(' ').unwrap_or((after, "")),
        };
        found.push(comment);
        rest = behind;
    }
    found
}

/// Several, as a sentence lists them; of many the first few.
fn listed(items: &[String]) -> String {
    /// Items that are named.
    const NAMED: usize = 4;
    match items {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] if items.len() <= NAMED => format!("{} and {last}", first.join(", ")),
        many => {
            let named = many.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
            format!("{named} and {} more", many.len() - NAMED)
        }
    }
}
