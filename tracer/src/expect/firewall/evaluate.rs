//! Base chains of a hook, one after the other. Pure.
//!
//! A chain that packets come to with the same mark and the same certainty again does the same again,
//! and is followed once. What is still too much to follow ends in an unknown verdict.

use std::collections::HashMap;

use super::cost::cost;
use super::matching::{self, Holds, MARK};
use super::{Decision, Evaluation, PacketView, RuleRef, Verdict, Via};
use crate::facts::NetnsFacts;
use crate::facts::firewall::{
    Action, Chain, Choice, Condition, CtState, FirewallRule, Hooked, NfHook, Policy, TableFamily,
};

/// NF_IP_PRI_CONNTRACK (include/uapi/linux/netfilter_ipv4.h): when connection tracking looks at
/// packets; before, every packet counts as invalid.
const CONNTRACK: i32 = -200;
/// The kernel refuses rulesets whose jumps go deeper (NFT_JUMP_STACK_SIZE); loops end here too.
const DEEPEST: usize = 16;
/// What following the chains of a hook may cost, in [`cost`]: a node with some ten thousand services
/// takes a tenth of it, and all of it takes less than a second.
const BUDGET: u64 = 2_000_000;
/// What a decision costs: it is kept, with its text.
const DECISION: u64 = 200;
/// What coming to a chain costs: what it does is kept.
const CHAIN: u64 = 20;
/// Conditions that are told for one decision, at most.
const MAX_DOUBTS: usize = 8;

/// What the chains that tables of `family` have at `hook` do with a packet. `family` is
/// [`PacketView::tables`] at the IP hooks, or bridge or netdev.
pub fn evaluate(
    facts: &NetnsFacts,
    family: TableFamily,
    hook: NfHook,
    packet: &PacketView,
) -> Evaluation {
    let mut packet = packet.clone();
    let mut decisions = Vec::new();
    let mut ends = Holds::Never;
    let mut budget = BUDGET;
    let mut marked_by = Vec::new();
    for hooked in facts.firewall.chains_at(family, hook) {
        if !concerns(&hooked, &packet) {
            continue;
        }
        let kept = packet.ct.clone();
        if let (NfHook::Prerouting | NfHook::Output, ..CONNTRACK) = (hook, hooked.base.priority) {
            packet.ct = Some(vec![CtState::Invalid]);
        }
        let before = packet.ct.clone();
        let mut run = Run {
            facts,
            hooked,
            packet,
            decisions: Vec::new(),
            doubts: Vec::new(),
            marked_by,
            path: Vec::new(),
            followed: HashMap::new(),
            budget,
            gave_up: false,
        };
        let ended = run.base();
        let Run { packet: after, decisions: found, budget: left, marked_by: why, .. } = run;
        (packet, budget, marked_by) = (after, left, why);
        if packet.ct == before {
            packet.ct = kept;
        }
        decisions.extend(found);
        ends = either(ends, ended);
        if ends == Holds::Always {
            break;
        }
    }
    Evaluation { decisions, ends, packet }
}

/// Whether the chain is called for the packet at all.
fn concerns(hooked: &Hooked<'_>, packet: &PacketView) -> bool {
    let device = match hooked.base.hook {
        NfHook::Ingress => &packet.iif,
        NfHook::Egress => &packet.oif,
        _ => return true,
    };
    let devices = &hooked.base.devices;
    devices.is_empty() || device.as_ref().is_none_or(|name| devices.contains(name))
}

fn either(a: Holds, b: Holds) -> Holds {
    a.max(b)
}

/// For which of the packets that came so far the walk goes on, when it stops for some of them.
fn left(here: Holds, gone: Holds) -> Holds {
    match gone {
        Holds::Never => here,
        Holds::Always => Holds::Never,
        Holds::Unknown | Holds::Sometimes => here.and(gone),
    }
}

/// A base chain and those that it jumps to.
struct Run<'a> {
    facts: &'a NetnsFacts,
    hooked: Hooked<'a>,
    packet: PacketView,
    decisions: Vec<Decision>,
    /// Conditions that could not be judged, and on which depends what comes after them.
    doubts: Vec<String>,
    /// What it depends on whether the packet has the mark that it may have.
    marked_by: Vec<String>,
    /// Rules that led to the chain which is followed now.
    path: Vec<At<'a>>,
    /// What chains do that were followed to their end.
    followed: HashMap<Asked<'a>, Outcome>,
    /// What may still be spent.
    budget: u64,
    /// It was too much.
    gave_up: bool,
}

/// All on which it depends what a chain does with the packet: its name, which packets come to it,
/// and what rules can have changed by then.
type Asked<'a> = (&'a str, Holds, Option<u32>, Option<Vec<CtState>>);

/// What a chain has done.
#[derive(Clone)]
struct Outcome {
    ended: Holds,
    mark: Option<u32>,
    ct: Option<Vec<CtState>>,
    doubts: Vec<String>,
}

/// What a rule does to the packets that meet it.
struct Next {
    /// For which of them the base chain ends.
    ended: Holds,
    /// For which of them this chain ends, and its caller goes on.
    left: Holds,
}

impl Next {
    /// Goes on with the next rule.
    const ON: Self = Self { ended: Holds::Never, left: Holds::Never };
    const ENDED: Self = Self { ended: Holds::Always, left: Holds::Never };
    const LEFT: Self = Self { ended: Holds::Never, left: Holds::Always };
}

impl<'a> Run<'a> {
    /// For which packets the base chain is the end.
    fn base(&mut self) -> Holds {
        let Hooked { chain, base, .. } = self.hooked;
        // Only the first packet of a connection meets translation rules.
        let reached = match (base.kind.as_str(), &self.packet.ct) {
            ("nat", Some(states)) if states.contains(&CtState::New) => Holds::Always,
            ("nat", Some(_)) => return Holds::Never,
            ("nat", None) => Holds::Unknown,
            _ => Holds::Always,
        };
        let rest = left(reached, self.chain(chain, reached, 0));
        if rest != Holds::Never {
            let verdict = match base.policy {
                Policy::Accept => Verdict::Accept,
                Policy::Drop => Verdict::Drop,
            };
            self.decide(chain, None, verdict, rest);
        }
        let may_end = |d: &&Decision| !matches!(d.verdict, Verdict::Unknown(_) | Verdict::Queue);
        let (clear, open): (Vec<_>, Vec<_>) = self.decisions.iter().partition(may_end);
        let enders = clear.iter().filter(|d| d.verdict.ends());
        if open.is_empty() && !clear.is_empty() && clear.iter().all(|d| d.verdict.ends()) {
            // Whichever of them decides, none lets the packet pass.
            return reached;
        }
        let unsure = if open.is_empty() { Holds::Never } else { Holds::Unknown };
        enders.map(|d| d.holds).max().unwrap_or(Holds::Never).max(unsure)
    }

    /// Follows a chain which `reached` packets come to; for which of those the base chain ends
    /// in it.
    fn chain(&mut self, chain: &'a Chain, reached: Holds, depth: usize) -> Holds {
        let asked = (chain.name.as_str(), reached, self.packet.mark, self.packet.ct.clone());
        if let Some(known) = self.followed.get(&asked).cloned() {
            (self.packet.mark, self.packet.ct) = (known.mark, known.ct);
            known.doubts.into_iter().for_each(|doubt| self.doubt(doubt));
            return known.ended;
        }
        if !self.spend(chain, CHAIN) {
            return Holds::Unknown;
        }
        let doubts = self.doubts.len();
        let ended = self.rules(chain, reached, depth);
        if !self.gave_up {
            let outcome = Outcome {
                ended,
                mark: self.packet.mark,
                ct: self.packet.ct.clone(),
                doubts: self.doubts.get(doubts..).unwrap_or_default().to_vec(),
            };
            self.followed.insert(asked, outcome);
        }
        ended
    }

    /// Takes from the budget; whether there was enough. The first time that there was not is told.
    fn spend(&mut self, chain: &'a Chain, cost: u64) -> bool {
        match self.budget.checked_sub(cost) {
            Some(left) if !self.gave_up => self.budget = left,
            _ => {
                self.budget = 0;
                if !self.gave_up {
                    self.gave_up = true;
                    let why = "chains that are too many, or too large, to follow";
                    self.doubt(why.to_owned());
                    self.decide(chain, None, Verdict::Unknown(why.to_owned()), Holds::Unknown);
                }
            }
        }
        !self.gave_up
    }

    fn doubt(&mut self, what: String) {
        if self.doubts.len() < MAX_DOUBTS && !self.doubts.contains(&what) {
            self.doubts.push(what);
        }
    }

    fn all(&mut self, conditions: &[Condition]) -> Holds {
        let mut unclear = Vec::new();
        let holds = matching::all(conditions, &self.packet, self.facts, &mut unclear);
        for doubt in unclear {
            // Rather what decides about the mark, where that is known.
            if doubt.ends_with(MARK) && !self.marked_by.is_empty() {
                self.marked_by.clone().into_iter().for_each(|doubt| self.doubt(doubt));
            } else {
                self.doubt(doubt);
            }
        }
        holds
    }

    fn rules(&mut self, chain: &'a Chain, reached: Holds, depth: usize) -> Holds {
        let mut here = Holds::Always;
        let mut ended = Holds::Never;
        let mut returned = Holds::Never;
        for (index, rule) in chain.rules.iter().enumerate() {
            if !self.spend(chain, cost(rule)) {
                return Holds::Unknown;
            }
            let doubts = self.doubts.len();
            let matches = self.all(&rule.conditions);
            if matches == Holds::Never {
                continue;
            }
            let met = here.and(matches);
            let at = At { chain, index, rule, choice: None, met: reached.and(met), depth };
            rule.effects.iter().for_each(|effect| self.effect(effect, at.met));
            let next = self.act(&at, &rule.action);
            ended = either(ended, met.and(next.ended));
            returned = either(returned, met.and(next.left));
            let gone = either(next.ended, next.left);
            here = left(here, matches.and(gone));
            if gone == Holds::Never {
                self.doubts.truncate(doubts);
            }
            if here == Holds::Never {
                // Some end here and some there, but all end.
                return if returned == Holds::Never { Holds::Always } else { ended };
            }
        }
        ended
    }

    fn act(&mut self, at: &At<'a>, action: &'a Action) -> Next {
        let verdict = match action {
            Action::Continue => return Next::ON,
            Action::Return => return Next::LEFT,
            Action::NoTrack | Action::SetMark { .. } => {
                self.effect(action, at.met);
                return Next::ON;
            }
            Action::Jump(name) | Action::Goto(name) => {
                let table = self.hooked.table;
                let Some(target) = table.chain(name) else {
                    return self.unknown(at, &format!("chain {name} is not known"));
                };
                if at.depth >= DEEPEST {
                    return self.unknown(at, &format!("chain {name}, too deep to follow"));
                }
                self.path.push(*at);
                let ended = self.chain(target, at.met, at.depth + 1);
                self.path.pop();
                return match action {
                    Action::Goto(_) => Next { ended, left: left(Holds::Always, ended) },
                    _ => Next { ended, left: Holds::Never },
                };
            }
            Action::Choose(choices) => return self.choose(at, choices),
            Action::Unknown(text) => return self.unknown(at, text),
            Action::Accept => Verdict::Accept,
            Action::Drop => Verdict::Drop,
            Action::Reject { with } => Verdict::Reject(with.clone()),
            Action::Snat { to, .. } => Verdict::Snat(to.clone()),
            Action::Masquerade { .. } => Verdict::Snat("masquerade".to_owned()),
            Action::Dnat { to } => Verdict::Dnat(to.clone()),
            Action::Redirect { .. } => Verdict::Dnat("redirect".to_owned()),
            Action::Queue => Verdict::Queue,
        };
        self.decide(at.chain, Some(at), verdict, at.met);
        Next::ENDED
    }

    fn choose(&mut self, at: &At<'a>, choices: &'a [Choice]) -> Next {
        let mut here = Holds::Always;
        let mut total = Next::ON;
        let (mut all_end, mut all_leave) = (true, true);
        for choice in choices {
            let chosen = self.all(&choice.conditions);
            if chosen == Holds::Never {
                continue;
            }
            let met = here.and(chosen);
            let chosen_at = At { met: at.met.and(met), choice: Some(choice), ..*at };
            let next = self.act(&chosen_at, &choice.action);
            all_end &= next.ended == Holds::Always;
            all_leave &= next.left == Holds::Always;
            total = Next {
                ended: either(total.ended, met.and(next.ended)),
                left: either(total.left, met.and(next.left)),
            };
            here = left(here, chosen);
            if here == Holds::Never {
                break;
            }
        }
        match here {
            // Whichever is chosen, it comes to the same.
            Holds::Never if all_end => Next::ENDED,
            Holds::Never if all_leave => Next::LEFT,
            _ => total,
        }
    }

    /// Something that may do anything.
    fn unknown(&mut self, at: &At<'a>, what: &str) -> Next {
        let verdict = Verdict::Unknown(what.to_owned());
        let met = at.met.and(Holds::Unknown);
        self.doubt(what.to_owned());
        self.decide(at.chain, Some(at), verdict, met);
        self.packet.mark = None;
        Next { ended: Holds::Unknown, left: Holds::Never }
    }

    fn effect(&mut self, effect: &Action, met: Holds) {
        let certain = met == Holds::Always;
        match effect {
            Action::SetMark { value, mask } => {
                // Where all bits are replaced, it does not matter what it was.
                let set = match *mask {
                    u32::MAX => Some(*value),
                    mask => self.packet.mark.map(|mark| (mark & !mask) ^ value),
                };
                let unchanged = self.packet.mark.filter(|mark| set == Some(*mark));
                self.packet.mark = if certain { set } else { unchanged };
                if met == Holds::Unknown && self.packet.mark.is_none() {
                    self.marked_by.clone_from(&self.doubts);
                }
            }
            Action::NoTrack => self.packet.ct = certain.then(|| vec![CtState::Untracked]),
            Action::Unknown(text) if text.contains("mark") => self.packet.mark = None,
            _ => {}
        }
    }

    fn decide(&mut self, chain: &'a Chain, at: Option<&At<'a>>, verdict: Verdict, holds: Holds) {
        if !self.gave_up && !self.spend(chain, DECISION) {
            return;
        }
        let Hooked { table, base, .. } = self.hooked;
        let unclear = if holds == Holds::Unknown { self.doubts.clone() } else { Vec::new() };
        self.decisions.push(Decision {
            backend: table.backend,
            family: table.family,
            table: table.name.clone(),
            chain: chain.name.clone(),
            hook: base.hook,
            rule: at.map(|at| RuleRef::new(at.index, at.rule)),
            element: at.and_then(|at| at.choice).map(Into::into),
            via: self.path.iter().map(At::via).collect(),
            verdict,
            holds,
            unclear,
        });
    }
}

/// A rule that packets have met.
#[derive(Clone, Copy)]
struct At<'a> {
    chain: &'a Chain,
    index: usize,
    rule: &'a FirewallRule,
    /// The entry of the rule's map that was chosen.
    choice: Option<&'a Choice>,
    /// Which packets have come here.
    met: Holds,
    depth: usize,
}

impl At<'_> {
    fn via(&self) -> Via {
        Via {
            chain: self.chain.name.clone(),
            rule: self.rule.text.clone(),
            element: self.choice.map(Into::into),
        }
    }
}
