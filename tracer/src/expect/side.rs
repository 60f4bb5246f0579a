//! An end of the flow with its surroundings, and what packets are addressed to where they set out. Pure.

use std::net::IpAddr;

use super::Family;
use crate::facts::{Attachment, Link, PathFacts, Space, attachment_of};
use crate::model::{Alias, Direction, End, EndKind, Leads};

/// One end with its surroundings.
#[derive(Clone, Copy)]
pub(super) struct Side<'a> {
    pub(super) end: &'a End,
    pub(super) ip: IpAddr,
    pub(super) node: &'a Space,
    /// The pod's namespace; `None` for an end in the node's own.
    pub(super) pod: Option<&'a Space>,
    pub(super) attachment: Option<Attachment<'a>>,
    /// The pod's interface by which it sends, where that is another one and leads not into the node.
    pub(super) stray: Option<&'a Link>,
}

impl<'a> Side<'a> {
    pub(super) fn new(facts: &'a PathFacts, family: Family, end: &'a End) -> Option<Self> {
        let node = facts.node(&end.node)?;
        let ip = family.first(end)?;
        if !end.kind.is_pod() {
            return Some(Self { end, ip, node, pod: None, attachment: None, stray: None });
        }
        let (pod, attachment) = (facts.pod(end), facts.attachment(end));
        Some(Self { end, ip, node, pod, attachment, stray: None })
    }

    /// As the sender of what is addressed to `sent_to`: by the interface that the pod's own routing
    /// chooses.
    pub(super) fn sending(self, sent_to: IpAddr) -> Self {
        let (Some(pod), Some(attachment)) = (self.pod, self.attachment) else { return self };
        let Some((link, _)) = pod.facts.way_to(sent_to).filter(|(link, _)| !link.loopback) else {
            return self;
        };
        if attachment.pod.is_none_or(|own| own.index == link.index) {
            return self;
        }
        let other = attachment_of(pod, link, self.node);
        if other.veth.is_some() || other.lower.is_some() {
            Self { attachment: Some(other), ..self }
        } else {
            Self { stray: Some(link), ..self }
        }
    }

    pub(super) fn bridge(&self) -> Option<&'a Link> {
        match self.attachment {
            Some(attachment) => attachment.bridge,
            // Behind the bridge there is nobody, but that is where packets would go.
            None if self.is_gone() => self.node.facts.bridge_of(self.ip),
            None => None,
        }
    }

    /// A pod that should be there, and is not.
    fn is_gone(&self) -> bool {
        self.end.service.as_ref().is_some_and(|s| s.dead)
    }

    pub(super) fn is_outside(&self) -> bool {
        self.end.kind == EndKind::Outside
    }
}

/// What packets of a direction are addressed to where they set out: a service's address, or the one
/// that stands for the source.
pub(super) fn sent_to(
    facts: &PathFacts,
    aliases: &[Alias],
    direction: Direction,
    own: IpAddr,
) -> IpAddr {
    match direction {
        Direction::Forward => {
            let service = facts.dst.service.as_ref().filter(|s| s.leads != Leads::Nowhere);
            service.map(|s| s.ip).filter(|ip| ip.is_ipv6() == own.is_ipv6()).unwrap_or(own)
        }
        Direction::Reply => stand_in(aliases, own).unwrap_or(own),
    }
}

/// The address that stands for the source.
pub(super) fn stand_in(aliases: &[Alias], src: IpAddr) -> Option<IpAddr> {
    aliases.iter().find(|a| a.source && a.real == src).map(|a| a.ip)
}
