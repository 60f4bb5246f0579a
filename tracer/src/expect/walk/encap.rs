//! Into the tunnel, and out of the node.

use std::net::IpAddr;

use ipnet::IpNet;

use super::fib::{self, Question};
use super::filter::Between;
use super::walker::{At, Fault, UDP, Walker};
use super::{Neighborhood, ProblemKind, Stage, text};
use crate::expect::firewall::PacketView;
use crate::facts::firewall::{CtState, NfHook};
use crate::facts::{
    FdbEntry, Link, NeighborState, RouteHit, RouteKind, RouteOutcome, RouteQuery, Space,
};
use crate::model::{Hook, Mac, Role};

/// Bytes around an inner packet: Ethernet 14, VXLAN 8, UDP 8, and the outer IP header.
const fn overhead(v6: bool) -> u32 {
    14 + 8 + 8 + if v6 { 40 } else { 20 }
}

/// A tunnel packet as it should arrive.
#[derive(Clone)]
pub(super) struct Tunnelled<'a> {
    /// The device that wraps.
    pub(super) device: &'a Link,
    /// Hardware address that the inner packet is sent to, and the entry that says so.
    pub(super) mac: Option<(Mac, IpAddr, String)>,
    /// Network identifier, and UDP port that it is sent to.
    pub(super) vni: u32,
    pub(super) port: u16,
    /// The outer packet.
    pub(super) outer: Option<PacketView>,
    /// Hardware address that the outer packet is sent to, where it is a wrong one.
    pub(super) wrong_hop: Option<(IpAddr, Mac, Mac, String)>,
}

impl<'a> Walker<'a> {
    /// What takes out of the tunnel at the other node.
    pub(super) fn far_vxlan(&self) -> Option<&'a Link> {
        self.planned(self.to.node, Role::Vxlan, Hook::Ingress)
    }

    /// The far tunnel device's own address of the flow's family: the next hop of flannel's routes.
    pub(super) fn far_vtep_address(&self) -> Option<IpAddr> {
        let far = self.far_vxlan()?;
        let v6 = self.packet.dst.is_ipv6();
        self.to
            .node
            .facts
            .addresses_of(far.index)
            .map(|net| net.addr())
            .find(|ip| ip.is_ipv6() == v6 && !super::is_link_local(*ip))
    }

    /// The address that tunnel packets (or routed ones) to the other node should be sent to.
    pub(super) fn far_underlay_address(&self) -> Option<IpAddr> {
        let far = self.to.node;
        let local = self.far_vxlan().and_then(|l| l.vxlan.as_ref()?.local);
        let entry = self.planned(far, Role::Physical, Hook::Ingress);
        let v6 = self.packet.dst.is_ipv6();
        local.filter(|ip| far.facts.holder(*ip).is_some()).or_else(|| {
            far.facts
                .addresses_of(entry?.index)
                .map(|net| net.addr())
                .find(|ip| ip.is_ipv6() == v6 && !super::is_link_local(*ip))
        })
    }

    /// The address that flannel gives a node's VXLAN device: the first of its pod network.
    pub(super) fn vxlan_address(&self, node: &Space) -> Option<IpNet> {
        let side = if node.facts.inum == self.from.node.facts.inum { &self.from } else { &self.to };
        let entry = node.facts.link(side.attachment?.entry()?)?;
        let net = node.facts.addresses_of(entry.index).find(|n| n.contains(&side.ip))?;
        IpNet::new(net.network(), net.max_prefix_len()).ok()
    }

    /// From the VXLAN device to the node's own sending of the outer packet.
    pub(super) fn wrap(&mut self, device: &'a Link, hit: Option<&'a RouteHit>) -> Tunnelled<'a> {
        let node = self.from.node;
        let at = At::on(node, device);
        let info = device.vxlan.as_ref();
        let mut tunnelled = Tunnelled {
            device,
            mac: None,
            vni: info.map_or(0, |v| v.vni),
            port: info.map_or(0, |v| v.port),
            outer: None,
            wrong_hop: None,
        };
        // Where it is down, its routes are gone too: told already.
        if !device.up {
            if hit.is_some() {
                let text = format!("{} of node {} is down", device.name, node.node);
                let fault = Fault::deadly(ProblemKind::VxlanDown, text).entry(text::link(device));
                self.fault(at, Stage::Encap, fault);
            }
        } else {
            self.pass(at, Stage::Encap, text::vxlan(device));
        }
        if let Some(local) =
            info.and_then(|v| v.local).filter(|ip| node.facts.holder(*ip).is_none())
        {
            let exit = self.planned(node, Role::Physical, Hook::Egress);
            let expected = exit.and_then(|exit| {
                let mut own = node.facts.addresses_of(exit.index).map(|net| net.addr());
                own.find(|ip| ip.is_ipv4() == local.is_ipv4() && !super::is_link_local(*ip))
            });
            let text = format!(
                "{} of node {} sends from {local}, which the node does not have",
                device.name, node.node
            );
            let kind = ProblemKind::VxlanLocalAddress { local, expected };
            self.fault(at, Stage::Encap, Fault::deadly(kind, text).entry(text::vxlan(device)));
        }
        if info.is_some_and(|v| v.learning) {
            let text = format!("{} learns addresses from what it receives", device.name);
            let fault = Fault::note(ProblemKind::VxlanLearning, text);
            self.fault(at, Stage::Encap, fault.entry(text::vxlan(device)));
        }
        let hop =
            hit.map_or_else(|| self.far_vtep_address(), |h| h.gateway.or(Some(self.packet.dst)));
        let Some(hop) = hop else { return tunnelled };
        tunnelled.mac = self.vtep_neighbor(device, hop);
        let far_mac = self.far_vxlan().and_then(|l| l.mac);
        let Some(mac) = tunnelled.mac.as_ref().map(|m| m.0).or(far_mac) else { return tunnelled };
        let Some(entry) = self.vtep_entry(device, mac) else { return tunnelled };
        tunnelled.vni = entry.vni.unwrap_or(tunnelled.vni);
        tunnelled.port = entry.port.unwrap_or(tunnelled.port);
        tunnelled
    }

    /// The entry that flanneld sets for the next hop.
    fn vtep_neighbor(&mut self, device: &'a Link, hop: IpAddr) -> Option<(Mac, IpAddr, String)> {
        let node = self.from.node;
        let at = At::on(node, device);
        let mac = self.far_vxlan().and_then(|l| l.mac);
        let name = device.name.clone();
        let whose = Neighborhood::Vtep;
        let Some(entry) = node.facts.neighbor(device.index, hop) else {
            let text = format!(
                "node {} has no neighbour entry for {hop} on {name}, and nobody answers ARP there",
                node.node
            );
            let kind = ProblemKind::NeighborMissing { ip: hop, device: name, whose, mac };
            self.fault(at, Stage::Encap, Fault::deadly(kind, text));
            return None;
        };
        let shown = text::neighbor(&node.facts, entry);
        let Some(has) = entry.mac else {
            let text =
                format!("node {} does not know the hardware address of {hop} on {name}", node.node);
            let kind = match entry.state {
                NeighborState::Failed => {
                    ProblemKind::NeighborFailed { ip: hop, device: name, whose, mac }
                }
                // Being asked for, where nobody answers: the entry that flanneld sets is gone.
                _ => ProblemKind::NeighborMissing { ip: hop, device: name, whose, mac },
            };
            self.fault(at, Stage::Encap, Fault::deadly(kind, text).entry(shown));
            return None;
        };
        self.pass(at, Stage::Encap, shown.clone());
        Some((has, hop, shown))
    }

    /// Where the device sends that hardware address.
    fn vtep_entry(&mut self, device: &'a Link, mac: Mac) -> Option<&'a FdbEntry> {
        let node = self.from.node;
        let at = At::on(node, device);
        let expected = self.far_underlay_address();
        let Some(entry) = node.facts.tunnel_entry(device.index, mac) else {
            let text =
                format!("{} of node {} has no forwarding entry for {mac}", device.name, node.node);
            let kind = ProblemKind::FdbMissing { mac, expected };
            self.fault(at, Stage::Encap, Fault::deadly(kind, text));
            return None;
        };
        let shown = text::fdb(&node.facts, entry);
        let Some(dst) = entry.dst else { return Some(entry) };
        let far = self.to.node;
        if let Some(holder) = node.facts.holder(dst).filter(|_| far.facts.holder(dst).is_some()) {
            self.taken_from_the_peer(node, holder, dst);
        } else if node.facts.holder(dst).is_some() {
            let text = format!(
                "{} of node {} sends {mac} to {dst}, which is the node itself",
                device.name, node.node
            );
            let kind = ProblemKind::FdbSelf { mac, dst, expected };
            self.fault(at, Stage::Encap, Fault::deadly(kind, text).entry(shown));
        } else if far.facts.holder(dst).is_none() && !far.facts.addresses.is_empty() {
            let text = format!(
                "{} of node {} sends {mac} to {dst}, which node {} does not have",
                device.name, node.node, far.node
            );
            let kind = ProblemKind::FdbWrong { mac, dst, expected };
            self.fault(at, Stage::Encap, Fault::deadly(kind, text).entry(shown));
        } else {
            self.pass(at, Stage::Encap, shown);
        }
        Some(entry)
    }

    /// The outer packet's way out of the node, from the hook OUTPUT to the wire.
    pub(super) fn send_outer(&mut self, tunnelled: &mut Tunnelled<'a>) {
        let node = self.from.node;
        let exit = self.planned(node, Role::Physical, Hook::Egress);
        let device = tunnelled.device;
        let at = At::on(node, device);
        let near = device.vxlan.as_ref().and_then(|v| v.local);
        let listed = tunnelled
            .mac
            .as_ref()
            .and_then(|(mac, ..)| node.facts.tunnel_entry(device.index, *mac));
        let dst = listed.and_then(|e| e.dst).or_else(|| self.far_underlay_address());
        let Some(dst) = dst else { return };
        let query = RouteQuery {
            dst,
            src: near.filter(|ip| ip.is_ipv4() == dst.is_ipv4()),
            iif: None,
            oif: listed.and_then(|e| e.via),
        };
        let answer = node.facts.answer(&query).or_else(|| node.facts.answer(&RouteQuery::to(dst)));
        let hit = answer.and_then(|a| a.hit());
        let src = query.src.or_else(|| hit.and_then(|h| h.prefsrc)).or_else(|| {
            let exit = exit?;
            node.facts
                .addresses_of(exit.index)
                .map(|n| n.addr())
                .find(|ip| ip.is_ipv4() == dst.is_ipv4())
        });
        let Some(src) = src else { return };
        let outer = PacketView {
            dport: Some(tunnelled.port),
            iif: Some(String::new()),
            oif: Some(String::new()),
            port_in: Some(String::new()),
            port_out: Some(String::new()),
            ct: Some(vec![CtState::New]),
            mark: self.packet.mark,
            length: Some(self.flow.size + overhead(dst.is_ipv6())),
            fragment: Some(false),
            ..PacketView::new(src, dst, UDP)
        };
        let wrong = self.outer_route(at, exit, dst, answer.map(|a| &a.outcome));
        let family = outer.tables();
        let between = Between { oif: exit, ..Between::default() };
        let outer = self.filter(node, family, NfHook::Output, between, outer, true);
        let outer = self.filter(node, family, NfHook::Postrouting, between, outer, true);
        tunnelled.outer = Some(outer);
        let Some(exit) = exit.filter(|_| !wrong) else { return };
        let up = self.is_up(node, exit, Stage::Transmit);
        if let Some(hit) = hit.filter(|_| up) {
            let hop = hit.gateway.unwrap_or(dst);
            tunnelled.wrong_hop = self.next_hop(node, exit, hop);
        }
        self.tunnel_sizes(device, exit, dst.is_ipv6());
    }

    /// Whether the tunnel packet's route is a wrong one.
    fn outer_route(
        &mut self,
        at: At<'a>,
        exit: Option<&'a Link>,
        dst: IpAddr,
        outcome: Option<&'a RouteOutcome>,
    ) -> bool {
        let node = at.space;
        match outcome {
            None => {
                let gap = "the node's routing was not asked for it";
                self.unknown(at, Stage::Encap, format!("route to {dst}"), gap);
            }
            Some(RouteOutcome::Failed { message, .. }) => {
                // A source that the node does not have, or a device that is down, is told as such.
                let told = self.problems.last().is_some_and(|p| {
                    matches!(p.kind, ProblemKind::VxlanLocalAddress { .. })
                        && p.spot.node == node.node
                });
                if exit.is_some_and(|l| !l.up) || told {
                    return false;
                }
                let question = Question {
                    src: None,
                    dst,
                    iif: None,
                    mark: 0,
                    proto: UDP,
                    dport: at.link.and_then(|l| Some(l.vxlan.as_ref()?.port)),
                };
                let found = fib::lookup(&node.facts, &question);
                if let Some(refusal) = found.refusal() {
                    self.refused(at, dst, refusal, &found);
                    return true;
                }
                let text = format!(
                    "node {} has no route to the tunnel endpoint {dst}: {message}",
                    node.node
                );
                // Where the interface has an address of the same network, the route goes with it.
                let expected = exit.and_then(|exit| {
                    let net = node.facts.addresses_of(exit.index).find(|n| n.contains(&dst))?;
                    Some(format!("{} dev {} src {}", net.trunc(), exit.name, net.addr()))
                });
                let kind = ProblemKind::RouteMissing { dst, expected };
                self.fault(at, Stage::Encap, Fault::deadly(kind, text));
                return true;
            }
            Some(RouteOutcome::Found(hit)) => {
                let shown = text::hit(&node.facts, dst, hit);
                let right = exit.is_none_or(|l| hit.oif == Some(l.index));
                if hit.kind != RouteKind::Unicast || right {
                    // Local: the forwarding entry leads here, and has been told.
                    self.pass(at, Stage::Encap, shown);
                    return hit.kind != RouteKind::Unicast;
                }
                let has = hit.oif.map_or_else(String::new, |oif| text::name(&node.facts, oif));
                let expected = exit.map(|l| l.name.clone()).unwrap_or_default();
                // The way to an address of the far node may lead through any interface.
                if self.to.node.facts.holder(dst).is_none() {
                    self.pass(at, Stage::Encap, shown);
                    return true;
                }
                let text = format!(
                    "node {} sends tunnel packets to {dst} through {has} rather than {expected}",
                    node.node
                );
                let kind = ProblemKind::RouteWrongDevice {
                    dst,
                    has,
                    expected,
                    route: None,
                    replace: None,
                };
                let fault = Fault::deadly(kind, text).entry(shown);
                self.fault(at, Stage::Encap, fault);
                return true;
            }
        }
        false
    }

    /// The next hop on the wire; its wrong hardware address, if it has one.
    pub(super) fn next_hop(
        &mut self,
        node: &'a Space,
        exit: &'a Link,
        hop: IpAddr,
    ) -> Option<(IpAddr, Mac, Mac, String)> {
        let at = At::on(node, exit);
        let holder = self.to.node.facts.holder(hop);
        let Some(entry) = node.facts.neighbor(exit.index, hop) else {
            self.pass(at, Stage::Neighbor, format!("{hop}: will be asked for"));
            return None;
        };
        let shown = text::neighbor(&node.facts, entry);
        match (entry.mac, holder.and_then(|l| l.mac)) {
            (None, _)
                if matches!(entry.state, NeighborState::Failed | NeighborState::Incomplete) =>
            {
                self.unknown(
                    at,
                    Stage::Neighbor,
                    shown,
                    "asked in vain lately; will be asked again",
                );
                None
            }
            (Some(has), Some(real)) if has != real => Some((hop, has, real, shown)),
            _ => {
                self.pass(at, Stage::Neighbor, shown);
                None
            }
        }
    }

    /// Whether what the tunnel makes of packets fits.
    fn tunnel_sizes(&mut self, device: &'a Link, exit: &'a Link, v6: bool) {
        let node = self.from.node;
        let needed = device.mtu + overhead(v6);
        if needed > exit.mtu {
            let tunnel_mtu = exit.mtu.saturating_sub(overhead(v6));
            let text = format!(
                "tunnel packets of {} can have {needed} bytes, {} carries {}",
                device.name, exit.name, exit.mtu
            );
            let kind = ProblemKind::UnderlayMtu {
                needed,
                mtu: exit.mtu,
                device: exit.name.clone(),
                tunnel_mtu,
            };
            let entry = format!("{}; {}", text::link(device), text::link(exit));
            self.fault(
                At::on(node, device),
                Stage::Transmit,
                Fault::harms(kind, text).entry(entry),
            );
        }
    }

    /// Whether pods may send more than the carrier takes.
    pub(super) fn pod_mtu(&mut self, out: &'a Link) {
        let Some(pod) = self.from.attachment.and_then(|a| a.pod) else { return };
        let Some(space) = self.from.pod else { return };
        // flannel allows for the IPv4 header around IPv6 too; IPv6 finds the path's MTU itself.
        let slack = if self.packet.dst.is_ipv6() { 20 } else { 0 };
        if pod.mtu <= out.mtu + slack {
            return;
        }
        let text = format!(
            "pod {} sends packets of up to {} bytes, {} of node {} takes {}",
            self.from.end.name, pod.mtu, out.name, self.from.node.node, out.mtu
        );
        let kind = ProblemKind::PodMtu { pod: pod.mtu, mtu: out.mtu, device: out.name.clone() };
        let entry = format!("{}; {}", text::link(pod), text::link(out));
        self.fault(At::on(space, pod), Stage::Pod, Fault::harms(kind, text).entry(entry));
    }
}
