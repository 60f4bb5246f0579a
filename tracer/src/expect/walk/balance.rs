//! Through a node whose IPVS translates: what comes in for a service goes up to the node itself, and is
//! sent on from there.

use super::Stage;
use super::filter::Between;
use super::route::Leg;
use super::walker::{At, Walker};
use crate::expect::ipvs;
use crate::facts::firewall::NfHook;
use crate::facts::{RouteHit, Space};
use crate::model::{Direction, Service};

impl<'a> Walker<'a> {
    /// The service that IPVS of this node translates to where the packet goes, with the entry that does.
    pub(super) fn balanced(&self, node: &Space) -> Option<(&'a Service, String)> {
        let service = self.facts.dst.service.as_ref()?;
        let here = self.direction == Direction::Forward && service.translator == node.node;
        let entry = ipvs::leads_to(&node.facts, service, self.to.ip).filter(|_| here)?;
        Some((service, entry))
    }

    /// As [`Walker::through`], by INPUT and OUTPUT instead of FORWARD.
    pub(super) fn through_ipvs(
        &mut self,
        leg: Leg<'a>,
        prerouted: bool,
        (service, entry): (&Service, String),
    ) -> Option<&'a RouteHit> {
        let Leg { node, iif, .. } = leg;
        let real = (self.packet.dst, self.packet.dport);
        (self.packet.dst, self.packet.dport) = (service.ip, service.port);
        if !prerouted {
            self.prerouting(node, Between { iif, ..Between::default() });
        }
        if let Some(iif) = iif {
            self.martian(node, iif);
            self.reverse_path(node, iif, self.packet.src);
        }
        self.hook(node, NfHook::Input, Between { iif, ..Between::default() });
        self.pass(At::new(node, iif), Stage::Input, entry);
        (self.packet.dst, self.packet.dport) = real;
        self.sent_on(leg)
    }
}
