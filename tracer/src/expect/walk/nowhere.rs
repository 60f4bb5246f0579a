//! To a service address that no rule translates: who refuses it, or where it goes instead.

use super::filter::Between;
use super::route::Leg;
use super::walker::{At, Fault, Walker};
use super::{ProblemKind, Stage};
use crate::expect::firewall::untranslated;
use crate::expect::ipvs;
use crate::facts::firewall::NfHook;
use crate::model::Leads;

impl Walker<'_> {
    /// Whether the destination is a service address that nothing translates.
    pub(super) fn leads_nowhere(&self) -> bool {
        self.to.end.service.as_ref().is_some_and(|s| s.leads == Leads::Nowhere)
    }

    /// Up to the hook at which kube-proxy refuses what it does not translate.
    pub(super) fn walk_nowhere(&mut self) {
        let node = self.from.node;
        let iif = self.leave_pod();
        if self.from.stray.is_some() {
            return;
        }
        let prerouted = iif.is_some_and(|l| self.was_prerouted(node, l));
        let own = self.packet.clone();
        let local = node.facts.holder(own.dst).is_some();
        match node.facts.way_to(own.dst) {
            // What IPVS does not translate kube-proxy refuses by a rule that does not say why.
            _ if ipvs::services_at(&node.facts, own.dst).next().is_some() => {}
            // IPVS has every service address on an interface of its own.
            _ if local => self.hook(node, NfHook::Input, Between { iif, ..Between::default() }),
            Some((out, _)) => {
                let leg = Leg { node, iif, out: Some(out), home: false };
                self.through(leg, prerouted);
            }
            // Without a route it does not come so far; but this is where it would be refused.
            None => {
                let hook = if iif.is_some() { NfHook::Forward } else { NfHook::Output };
                self.hook(node, hook, Between { iif, ..Between::default() });
            }
        }
        if self.problems.iter().any(super::Problem::deadly) {
            return;
        }
        let meaning = untranslated(&own, &node.facts, &node.node);
        // Rules that were not read may translate it, and an address near those of services need not be
        // one.
        let read = !node.facts.has_gap("firewall") && !node.facts.has_gap("services of IPVS");
        let certain = read && meaning.cause != "service.no-rules";
        let text = meaning.summary.clone();
        let kind = ProblemKind::Untranslated { meaning: Box::new(meaning) };
        let fault = Fault::deadly(kind, text).if_certain(certain);
        self.fault(At::new(node, iif), Stage::Prerouting, fault);
    }
}
