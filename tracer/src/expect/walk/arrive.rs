//! Between the nodes, and out of the tunnel at the other one.

use std::net::IpAddr;

use super::encap::Tunnelled;
use super::filter::Between;
use super::walker::{At, Fault, Walker};
use super::{Neighborhood, ProblemKind, Stage, text};
use crate::expect::firewall::PacketView;
use crate::facts::firewall::{NfHook, TableFamily};
use crate::facts::{Link, NeighborState, Route, RouteHit, RouteKind, Space, SpaceKind};
use crate::model::{Hook, Role};

impl<'a> Walker<'a> {
    /// Without a tunnel: the next hop is the other node, or somebody on the way.
    pub(super) fn hand_over(&mut self, exit: &'a Link, hit: Option<&'a RouteHit>) {
        let node = self.from.node;
        if !self.is_up(node, exit, Stage::Transmit) {
            return;
        }
        let Some(hit) = hit else { return };
        let dst = self.packet.dst;
        let hop = hit.gateway.unwrap_or(dst);
        if self.to.node.facts.holder(hop).is_some() {
            if let Some((ip, has, real, shown)) = self.next_hop(node, exit, hop) {
                self.wrong_hop(ip, has, real, shown, exit);
            }
            return;
        }
        let at = At::on(node, exit);
        let entry = node.facts.neighbor(exit.index, hop);
        let dead = entry.is_some_and(|e| {
            e.mac.is_none() && matches!(e.state, NeighborState::Failed | NeighborState::Incomplete)
        });
        let shown = entry.map(|e| text::neighbor(&node.facts, e));
        if entry.is_some_and(|e| e.mac.is_some()) {
            let gap = format!("{hop} is not an address of node {}", self.to.node.node);
            return self.unknown(at, Stage::Neighbor, shown.unwrap_or_default(), gap);
        }
        let expected = self.far_underlay_address();
        let leads = |r: &&Route| r.kind == RouteKind::Unicast && r.dst.contains(&dst);
        let best = node.facts.routes.iter().filter(leads).map(|r| r.dst.prefix_len()).max();
        if !dead && best == Some(0) {
            // Somebody is there to forward it, and may know the way; the node itself does not.
            let text = format!(
                "node {} has no route of its own to {dst}: the default route takes it to {hop}",
                node.node
            );
            let expected = expected.and_then(|via| self.route_to_far_pods(Some(via), exit));
            let fault = Fault::deadly(ProblemKind::RouteMissing { dst, expected }, text);
            return self.fault(at, Stage::Route, fault.if_certain(false));
        }
        let text = format!(
            "node {} sends {dst} to {hop} on {}, which is not node {}",
            node.node, exit.name, self.to.node.node
        );
        let kind =
            ProblemKind::GatewayDead { dst, gateway: hop, device: exit.name.clone(), expected };
        let fault = Fault::deadly(kind, text).if_certain(dead);
        self.fault(
            at,
            Stage::Neighbor,
            match shown {
                Some(shown) => fault.entry(shown),
                None => fault,
            },
        );
    }

    fn wrong_hop(
        &mut self,
        ip: IpAddr,
        has: crate::model::Mac,
        real: crate::model::Mac,
        shown: String,
        exit: &'a Link,
    ) {
        let node = self.from.node;
        let text = format!(
            "node {} sends to {has} for {ip}, but node {} has {real}",
            node.node, self.to.node.node
        );
        let kind = ProblemKind::NeighborWrongMac {
            ip,
            device: exit.name.clone(),
            whose: Neighborhood::Underlay,
            has,
            real,
        };
        self.fault(At::on(node, exit), Stage::Neighbor, Fault::deadly(kind, text).entry(shown));
    }

    /// Past what stands between the nodes, where packets can be watched there. Its tables are not
    /// asked: a real wire has none that a node could read.
    pub(super) fn wire(&mut self) {
        let ports: Vec<(&'a Space, &'a Link, Hook)> = self
            .path
            .iter()
            .filter_map(|p| {
                let station = self.topology.station(p.station);
                let space = self.facts.space(station.netns_inum)?;
                let is_wire = space.kind == SpaceKind::Wire && station.role == Role::Wire;
                Some((space, space.facts.link(station.ifindex).filter(|_| is_wire)?, p.hook))
            })
            .collect();
        for (space, port, hook) in ports {
            self.pass(At::on(space, port), Stage::Wire, text::link(port));
            self.reach(space, Some(port), hook);
        }
    }

    /// In by the other node's interface; `outer`: what arrives there, where it is a tunnel packet.
    pub(super) fn receive(&mut self, tunnelled: Option<&Tunnelled<'a>>) -> Option<&'a Link> {
        let node = self.to.node;
        let entry = self.planned(node, Role::Physical, Hook::Ingress)?;
        let up = self.is_up(node, entry, Stage::Receive);
        self.reach(node, Some(entry), Hook::Ingress);
        self.devices(node, entry, Hook::Ingress);
        let between = Between { iif: Some(entry), ..Between::default() };
        let outer = tunnelled.and_then(|t| t.outer.clone()).map(|outer| PacketView {
            // Between nodes no mark survives.
            mark: Some(0),
            ..outer
        });
        let seen = outer.clone().unwrap_or_else(|| self.packet.clone());
        let wrapped = outer.is_some();
        self.filter(node, TableFamily::Netdev, NfHook::Ingress, between, seen, wrapped);
        if let Some((ip, has, real, shown)) = tunnelled.and_then(|t| t.wrong_hop.clone())
            && let Some(exit) = self.planned(self.from.node, Role::Physical, Hook::Egress)
        {
            self.wrong_hop(ip, has, real, shown, exit);
        }
        if let Some(outer) = outer.filter(|_| up) {
            let family = outer.tables();
            let outer = self.filter(node, family, NfHook::Prerouting, between, outer, true);
            let here = node.facts.holder(outer.dst).is_some();
            if here {
                let src = outer.src;
                self.reverse_path(node, entry, src);
                self.filter(node, family, NfHook::Input, between, outer, true);
            }
        }
        Some(entry)
    }

    /// Out of the tunnel; the device that the inner packet comes in by.
    pub(super) fn unwrap(&mut self, tunnelled: &Tunnelled<'a>) -> Option<&'a Link> {
        let node = self.to.node;
        let near = self.from.node;
        let Some(device) = self.far_vxlan() else {
            let text = format!("node {} has no VXLAN device for these packets", node.node);
            self.fault(
                At::new(node, None),
                Stage::Decap,
                Fault::deadly(ProblemKind::VxlanMissing, text),
            );
            return None;
        };
        let at = At::on(node, device);
        let shown = text::vxlan(device);
        let mut sound = true;
        if !device.up {
            let text = format!(
                "{} of node {} is down, so nobody takes its packets",
                device.name, node.node
            );
            self.fault(
                at,
                Stage::Decap,
                Fault::deadly(ProblemKind::VxlanDown, text).entry(text::link(device)),
            );
            sound = false;
        }
        let info = device.vxlan.as_ref();
        if let Some(info) = info.filter(|i| i.port != tunnelled.port) {
            let text = format!(
                "node {} sends to UDP port {}, {} of node {} listens on {}",
                near.node, tunnelled.port, device.name, node.node, info.port
            );
            let kind = ProblemKind::PortMismatch { near: tunnelled.port, far: info.port };
            self.fault(at, Stage::Decap, Fault::deadly(kind, text).entry(shown.clone()));
            sound = false;
        }
        if let Some(info) = info.filter(|i| i.vni != tunnelled.vni) {
            let text = format!(
                "node {} sends with VNI {}, {} of node {} has {}",
                near.node, tunnelled.vni, device.name, node.node, info.vni
            );
            let kind = ProblemKind::VniMismatch { near: tunnelled.vni, far: info.vni };
            self.fault(at, Stage::Decap, Fault::deadly(kind, text).entry(shown.clone()));
            sound = false;
        }
        if let Some(mac) = device.mac.filter(|mac| tunnelled.device.mac == Some(*mac)) {
            let text = format!(
                "{} of node {} and {} of node {} both have {mac}",
                device.name, node.node, tunnelled.device.name, near.node
            );
            let kind = ProblemKind::VtepMacDuplicate { mac, other: near.node.clone() };
            self.fault(at, Stage::Decap, Fault::deadly(kind, text).entry(text::link(device)));
            sound = false;
        }
        if sound {
            self.pass(at, Stage::Decap, shown);
        }
        self.reach(node, Some(device), Hook::Ingress);
        self.devices(node, device, Hook::Ingress);
        if let (Some((has, ip, entry)), Some(real)) = (tunnelled.mac.clone(), device.mac)
            && has != real
        {
            let text = format!(
                "node {} sends to {has}, but {} of node {} is {real}: it takes the packets for another's",
                near.node, device.name, node.node
            );
            let kind = ProblemKind::NeighborWrongMac {
                ip,
                device: tunnelled.device.name.clone(),
                whose: Neighborhood::Vtep,
                has,
                real,
            };
            let fault = Fault::deadly(kind, text).entry(entry);
            self.fault(At::on(near, tunnelled.device), Stage::Receive, fault);
        }
        self.ingress(node, device);
        Some(device)
    }
}
