//! Over the edge of what is known: to and from addresses outside, into a node's own programs, and past a
//! node's network stack.

use std::net::IpAddr;

use super::filter::Between;
use super::route::Leg;
use super::walker::{At, Fault, Walker};
use super::{ProblemKind, Stage, text};
use crate::expect::side::{Side, sent_to, stand_in};
use crate::facts::firewall::{CtState, NfHook};
use crate::facts::{Link, NeighborState, RouteKind, RouteQuery, Space};
use crate::model::{Direction, Hook};

impl<'a> Walker<'a> {
    /// What the packet is addressed to where it sets out, as far as that was asked for there.
    pub(super) fn sent_to(&self) -> IpAddr {
        let sent = sent_to(self.facts, &self.topology.aliases, self.direction, self.to.ip);
        let sender = self.from.pod.unwrap_or(self.from.node);
        let asked = sender.facts.answer(&RouteQuery::to(sent)).is_some();
        if asked { sent } else { self.to.ip }
    }

    /// The address that stands for the receiver of answers, which its node translates back.
    pub(super) fn in_place_of_receiver(&self) -> Option<IpAddr> {
        let ip = stand_in(&self.topology.aliases, self.to.ip)?;
        let answers = self.direction == Direction::Reply;
        let held = self.to.node.facts.holder(ip).is_some();
        let asked = self.from.node.facts.answers_to(ip).next().is_some() || self.from.is_outside();
        (answers && held && asked).then_some(ip)
    }

    /// Both ends are pods, and nothing stands for their addresses on purpose.
    pub(super) fn between_pods(&self) -> bool {
        let service = self.facts.dst.service.is_some();
        !service && self.from.end.kind.is_pod() && self.to.end.kind.is_pod()
    }

    /// To an address outside: up to the interface by which it leaves the node.
    pub(super) fn over_the_edge(&mut self) {
        let node = self.from.node;
        if self.passes_by(self.from) {
            return self.past_the_stack();
        }
        let iif = self.leave_pod();
        if self.from.stray.is_some() {
            return;
        }
        let out = self.path.iter().rev().filter(|p| p.hook == Hook::Egress).find_map(|p| {
            let station = self.topology.station(p.station);
            let here = station.netns_inum == node.facts.inum && station.pod.is_none();
            node.facts.link(station.ifindex).filter(|_| here)
        });
        let prerouted = iif.is_some_and(|l| self.was_prerouted(node, l));
        let own = self.packet.src;
        let hit = self.through(Leg { node, iif, out, home: false }, prerouted);
        let Some(out) = out else { return };
        self.egress(node, out);
        if let Some(hit) = hit {
            self.next_outside(node, out, hit.gateway.unwrap_or(self.packet.dst));
        }
        if self.packet.src == own {
            self.untranslated(node, out);
        }
        self.reach(node, Some(out), Hook::Egress);
        self.devices(node, out, Hook::Egress);
        let src = self.packet.src;
        let text = format!("{} leaves node {} as {src}", text::link(out), node.node);
        let gap =
            format!("what becomes of it beyond {}.{} is in no table here", node.node, out.name);
        self.unknown(At::on(node, out), Stage::Wire, text, gap);
    }

    /// Whoever takes it next is not known, but whether anybody does.
    fn next_outside(&mut self, node: &'a Space, out: &'a Link, hop: IpAddr) {
        if !out.ethernet() {
            return;
        }
        let at = At::on(node, out);
        let Some(entry) = node.facts.neighbor(out.index, hop) else {
            return self.pass(at, Stage::Neighbor, format!("{hop}: will be asked for"));
        };
        let shown = text::neighbor(&node.facts, entry);
        match entry.state {
            NeighborState::Failed | NeighborState::Incomplete if entry.mac.is_none() => {
                let gap = "asked in vain lately; will be asked again";
                self.unknown(at, Stage::Neighbor, shown, gap);
            }
            _ => self.pass(at, Stage::Neighbor, shown),
        }
    }

    /// A pod's own address leaves the node: who answers has to know the way to it.
    fn untranslated(&mut self, node: &'a Space, out: &'a Link) {
        let new = self.packet.ct.as_ref().is_none_or(|states| states.contains(&CtState::New));
        let forward = self.direction == Direction::Forward && new;
        if !forward || self.from.pod.is_none() || node.facts.has_gap("firewall") {
            return;
        }
        let src = self.packet.src;
        let text = format!(
            "node {} sends packets of pod {} out by {} as {src}, untranslated: no rule masquerades them",
            node.node, self.from.end.name, out.name
        );
        let kind = ProblemKind::MasqueradeMissing { src, device: out.name.clone() };
        // Somebody out there may know the way to pods.
        let fault = Fault::deadly(kind, text).if_certain(false);
        self.fault(At::on(node, out), Stage::Postrouting, fault);
    }

    /// From an address outside: from the interface by which it comes in.
    pub(super) fn in_from_outside(&mut self) {
        let node = self.from.node;
        let first = self.path.iter().filter(|p| p.hook == Hook::Ingress).find_map(|p| {
            let station = self.topology.station(p.station);
            let here = station.netns_inum == node.facts.inum;
            Some((p, node.facts.link(station.ifindex).filter(|_| here)?))
        });
        let Some((_, entry)) = first else {
            let gap = "by which interface it comes in is not known";
            return self.unknown(
                At::new(node, None),
                Stage::Receive,
                self.from.end.name.clone(),
                gap,
            );
        };
        if self.passes_by(self.to) {
            return self.past_the_stack();
        }
        let up = self.is_up(node, entry, Stage::Receive);
        self.reach(node, Some(entry), Hook::Ingress);
        self.devices(node, entry, Hook::Ingress);
        if up {
            self.ingress(node, entry);
        }
        self.back_to_the_receiver();
        if node.facts.inum == self.to.node.facts.inum {
            return self.forward_home(Some(entry));
        }
        self.onward(Some(entry), false);
    }

    /// What answers were sent to becomes the receiver's own address again, where a connection is tracked.
    pub(super) fn back_to_the_receiver(&mut self) {
        if self.packet.dst != self.to.ip {
            let (from, to) = (self.packet.dst, self.to.ip);
            self.packet.dst = to;
            let text = format!("connection tracking: {from} becomes {to} again");
            self.pass(At::new(self.to.node, None), Stage::Prerouting, text);
        }
    }

    /// To the node itself.
    pub(super) fn enter_node(&mut self, iif: Option<&'a Link>, prerouted: bool) {
        let node = self.to.node;
        let between = Between { iif, ..Between::default() };
        if let Some(iif) = iif {
            if !prerouted {
                self.prerouting(node, between);
            }
            self.martian(node, iif);
            self.reverse_path(node, iif, self.packet.src);
        } else {
            self.hook(node, NfHook::Output, Between::default());
        }
        let dst = self.packet.dst;
        let at = At::new(node, node.facts.holder(dst).or(iif));
        let answer = node.facts.answer(&RouteQuery::to(dst)).and_then(|a| a.hit());
        match (node.facts.holder(dst), answer) {
            (Some(link), _) => {
                self.pass(at, Stage::Route, format!("local {dst} dev {}", link.name));
            }
            (None, Some(hit)) if hit.kind == RouteKind::Local => {
                self.pass(at, Stage::Route, format!("local {dst}"));
            }
            (None, _) => {
                let gap = format!("{dst} is no address of node {}", node.node);
                self.unknown(at, Stage::Route, format!("route to {dst}"), gap);
            }
        }
        self.hook(node, NfHook::Input, between);
        if let Some(link) = node.facts.holder(dst).or(iif) {
            self.socket(node, link);
        }
    }

    /// The node has an address of the other node too: whatever is sent there stays here.
    pub(super) fn taken_from_the_peer(&mut self, node: &'a Space, holder: &'a Link, ip: IpAddr) {
        let far = &self.to.node.node;
        let text = format!(
            "node {} has {ip} on {}, the address of node {far}: what it sends to that node it takes itself",
            node.node, holder.name
        );
        let net = node.facts.addresses_of(holder.index).find(|net| net.addr() == ip);
        let entry = net.map_or_else(|| ip.to_string(), |net| net.to_string());
        let kind = ProblemKind::UnderlayAddressTaken {
            address: entry.clone(),
            device: holder.name.clone(),
            owner: far.clone(),
        };
        let fault = Fault::deadly(kind, text).entry(format!("{entry} dev {}", holder.name));
        self.fault(At::on(node, holder), Stage::Encap, fault);
    }

    /// Whether a pod's packets go by the node's stack.
    pub(super) fn passes_by(&self, side: Side<'a>) -> bool {
        side.attachment.is_some_and(|a| a.lower.is_some())
    }

    /// From or to a pod whose interface sits on one of the node's: macvlan and ipvlan.
    pub(super) fn past_the_stack(&mut self) {
        if self.passes_by(self.from) {
            self.leave_past_the_stack();
        } else {
            self.leave_pod();
        }
        let side = if self.passes_by(self.from) { self.from } else { self.to };
        if let Some(lower) = side.attachment.and_then(|a| a.lower) {
            let gap = format!(
                "{} packets go by the tables of node {}; what they meet behind {} is in none that was read",
                side.end.name, side.node.node, lower.name
            );
            self.unknown(At::on(side.node, lower), Stage::Transmit, text::link(lower), gap);
        }
        if self.to.is_outside() {
            return;
        }
        if let (Some(pod), Some(link)) = (self.to.pod, self.to.attachment.and_then(|a| a.pod)) {
            self.reach(pod, Some(link), Hook::Ingress);
            self.in_pod(pod, link);
        } else if self.to.pod.is_none() {
            let entry = self.to.node.facts.way_to(self.packet.src).map(|(link, _)| link);
            self.enter_node(entry, false);
        }
    }

    fn leave_past_the_stack(&mut self) {
        let (Some(pod), Some(attachment)) = (self.from.pod, self.from.attachment) else { return };
        if let Some(link) = attachment.pod {
            self.pod_stack(pod, link);
            self.reach(pod, Some(link), Hook::Egress);
            self.devices(pod, link, Hook::Egress);
        }
    }
}
