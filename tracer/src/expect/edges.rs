//! The parts of a way that lead over the edge of what is known, or past a node's network stack. Pure.

use std::collections::BTreeSet;

use super::plan::{Planner, Way};
use super::side::Side;
use crate::facts::{Link, Space};
use crate::model::{Hook, Role};

impl<'a> Planner<'a> {
    /// From an end to an address outside: up to the interface by which packets leave the last node.
    pub(super) fn over_the_edge(
        &self,
        from: &Side<'a>,
        to: &Side<'a>,
        way: &mut Way<'_>,
        gaps: &mut BTreeSet<String>,
    ) {
        if let (Some(pod), Some(_)) = (from.pod, from.stray) {
            return way.push(pod, from.stray, Hook::Egress);
        }
        way.leave_pod(from);
        if let Some(lower) = from.attachment.and_then(|a| a.lower) {
            return way.push(from.node, Some(lower), Hook::Egress);
        }
        let mut last = from.node;
        // Where another node has put itself in the place of the source, answers pass it.
        if let Some(back) = self.in_place_of(to)
            && back.node.facts.inum != last.facts.inum
        {
            self.between_nodes(from, &back, way, gaps);
            last = back.node;
        }
        match last.facts.way_to(to.ip) {
            Some((link, _)) => way.push(last, Some(link), Hook::Egress),
            None => {
                gaps.insert(format!("{} has no way out to {}", last.node, to.ip));
            }
        }
    }

    /// From an address outside to an end: in by the interface through which answers would leave.
    pub(super) fn in_from_outside(
        &self,
        from: &Side<'a>,
        to: &Side<'a>,
        way: &mut Way<'_>,
        gaps: &mut BTreeSet<String>,
    ) {
        if let Some(lower) = to.attachment.and_then(|a| a.lower) {
            way.push(to.node, Some(lower), Hook::Ingress);
            return way.enter_pod(to);
        }
        // What comes back to the address that stands for the source comes to the node that has it.
        let first = from.node;
        let entry = first.facts.way_to(from.ip).map(|(link, _)| link);
        if let Some(link) = entry {
            self.port_of_wire(first, link, way);
        }
        way.push(first, entry, Hook::Ingress);
        if first.facts.inum != to.node.facts.inum {
            self.between_nodes(from, to, way, gaps);
        }
        way.enter_pod(to);
    }

    /// Between pods of which one has its interface on one of the node's (macvlan, ipvlan).
    pub(super) fn past_the_stack(&self, from: &Side<'a>, to: &Side<'a>, way: &mut Way<'_>) {
        let lower = |side: &Side<'a>| side.attachment.and_then(|a| a.lower);
        let (near, far) = (lower(from), lower(to));
        way.leave_pod(from);
        let same = from.node.facts.inum == to.node.facts.inum
            && near.zip(far).is_some_and(|(a, b)| a.index == b.index);
        if !same {
            let exit = near.or_else(|| from.node.facts.way_to(to.ip).map(|(link, _)| link));
            let entry = far.or_else(|| to.node.facts.way_to(from.ip).map(|(link, _)| link));
            way.push(from.node, exit, Hook::Egress);
            self.wire(from, to, exit, entry, way);
            way.push(to.node, entry, Hook::Ingress);
        }
        way.enter_pod(to);
    }

    /// The same end under the address that stands for it, where its node has that.
    pub(super) fn in_place_of(&self, end: &Side<'a>) -> Option<Side<'a>> {
        let ip = super::side::stand_in(&self.topology.aliases, end.ip)?;
        end.node.facts.holder(ip)?;
        Some(Side { ip, ..*end })
    }

    /// What stands between the node and everything else, where that can be seen.
    fn port_of_wire(&self, node: &'a Space, link: &'a Link, way: &mut Way<'_>) {
        let Some((inum, index)) = node.facts.peer(link) else { return };
        let Some(space) = self.facts.space(inum) else { return };
        let port = space.facts.link(index).filter(|p| self.role(space, p) == Role::Wire);
        way.push(space, port, Hook::Egress);
    }
}
