//! From a node's routing, or over the bridge, into the destination pod.

use super::filter::Between;
use super::walker::{At, Fault, ICMP, ICMPV6, TCP, UDP, Walker};
use super::{Neighborhood, ProblemKind, Stage, text};
use crate::facts::firewall::{NfHook, TableFamily};
use crate::facts::{Link, NeighborState, RouteQuery, SocketProto, Space};
use crate::model::{Direction, Hook, Mac};

impl<'a> Walker<'a> {
    /// Out through the bridge (or the pod's veth itself), from the node's routing.
    pub(super) fn enter_pod(&mut self) {
        let node = self.to.node;
        let Some(attachment) = self.to.attachment else { return };
        let Some(first) = attachment.bridge.or(attachment.veth) else { return };
        let wrong = self.pod_neighbor(node, first);
        self.reach(node, attachment.bridge, Hook::Egress);
        if let Some(bridge) = attachment.bridge {
            self.devices(node, bridge, Hook::Egress);
        }
        if let Some((has, real, entry)) = wrong {
            let ip = self.to.ip;
            let text = format!(
                "node {} sends to {has} for {ip}, but pod {} has {real}",
                node.node, self.to.end.name
            );
            let veth = attachment.veth.map(|v| v.index);
            // Whoever sends from there through another port of the bridge is there, and answers.
            let holder =
                node.facts.fdb.iter().find(|e| {
                    e.mac == has && !e.own && e.master.is_some() && Some(e.ifindex) != veth
                });
            let kind = match holder {
                Some(entry) => ProblemKind::DuplicateAddress {
                    address: ip,
                    other: format!("{has} behind {}", text::name(&node.facts, entry.ifindex)),
                },
                None => ProblemKind::NeighborWrongMac {
                    ip,
                    device: first.name.clone(),
                    whose: Neighborhood::Pod,
                    has,
                    real,
                },
            };
            self.fault(
                At::on(node, first),
                Stage::Neighbor,
                Fault::deadly(kind, text).entry(entry),
            );
        }
        self.last_port(None);
    }

    /// The node's entry for the pod; a wrong one is returned, for it acts further on.
    fn pod_neighbor(&mut self, node: &'a Space, first: &'a Link) -> Option<(Mac, Mac, String)> {
        let at = At::on(node, first);
        let ip = self.to.ip;
        let pod = self.to.pod?;
        let entry = node.facts.neighbor(first.index, ip);
        let shown = entry.map(|e| text::neighbor(&node.facts, e));
        let known = entry.is_some_and(|e| e.mac.is_some());
        if pod.facts.holder(ip).is_none() {
            let text =
                format!("pod {} does not have {ip}, nobody answers for it", self.to.end.name);
            let kind = ProblemKind::PodAddressMissing { address: ip };
            // What the node has learned before may carry packets to the pod, which is no better.
            let fault = Fault::deadly(kind, text);
            let fault = match shown {
                Some(shown) => fault.entry(shown),
                None => fault,
            };
            self.fault(At::new(pod, None), Stage::Neighbor, fault);
            return None;
        }
        let real = self.to.attachment.and_then(|a| a.pod?.mac);
        match (entry, real) {
            (Some(entry), Some(real)) if entry.mac.is_some_and(|mac| mac != real) => {
                return Some((entry.mac?, real, shown?));
            }
            (Some(entry), _) if !known => {
                let shown = shown.unwrap_or_default();
                if matches!(entry.state, NeighborState::Failed | NeighborState::Incomplete) {
                    let gap = "asked in vain lately; will be asked again";
                    self.unknown(at, Stage::Neighbor, shown, gap);
                } else {
                    self.pass(at, Stage::Neighbor, shown);
                }
            }
            _ => {
                let text = shown.unwrap_or_else(|| format!("{ip}: will be asked for"));
                self.pass(at, Stage::Neighbor, text);
            }
        }
        None
    }

    /// The port that leads to the pod. `from`: the port that a bridged packet comes by.
    pub(super) fn last_port(&mut self, from: Option<&'a Link>) {
        let node = self.to.node;
        let Some(attachment) = self.to.attachment else { return };
        let Some(veth) = attachment.veth else { return };
        let mut open = true;
        if let Some(bridge) = attachment.bridge {
            open = self.bridge_out(node, bridge, veth, from);
        }
        let (Some(pod), Some(link)) = (self.to.pod, attachment.pod) else {
            if let Some(pod) = self.to.pod {
                let text = format!(
                    "pod {} has no interface that leads to node {}",
                    self.to.end.name, node.node
                );
                let fault = Fault::deadly(ProblemKind::PodInterfaceMissing, text);
                self.fault(At::new(pod, None), Stage::Pod, fault);
            }
            return;
        };
        if !link.up {
            let text = format!("{} of pod {} is down", link.name, self.to.end.name);
            let fault = Fault::deadly(ProblemKind::PodInterfaceDown, text);
            self.fault(At::on(pod, link), Stage::Pod, fault.entry(text::link(link)));
        } else if open {
            self.egress(node, veth);
        }
        self.reach(node, Some(veth), Hook::Egress);
        self.devices(node, veth, Hook::Egress);
        self.reach(pod, Some(link), Hook::Ingress);
        if link.up {
            self.pass(At::on(pod, link), Stage::Pod, text::link(link));
        }
        self.devices(pod, link, Hook::Ingress);
        self.in_pod(pod, link);
    }

    fn bridge_out(
        &mut self,
        node: &'a Space,
        bridge: &'a Link,
        veth: &'a Link,
        from: Option<&'a Link>,
    ) -> bool {
        if !bridge.up {
            // Told where its route is missing, or at the port that the packet came by.
            return false;
        }
        if !self.port(node, veth, bridge, true) {
            return false;
        }
        let packet = self.packet.clone();
        let between = Between { iif: from.or(Some(bridge)), oif: Some(veth), ..Between::default() };
        let hook = if from.is_some() { NfHook::Forward } else { NfHook::Output };
        self.filter(node, TableFamily::Bridge, hook, between, packet.clone(), false);
        self.filter(node, TableFamily::Bridge, NfHook::Postrouting, between, packet, false);
        let at = At::on(node, veth);
        let port = veth.bridge_port.as_ref();
        if from.is_some_and(|l| l.index == veth.index)
            && port.and_then(|p| p.hairpin) == Some(false)
        {
            let text = format!("{} does not send back what came by it", veth.name);
            self.fault(at, Stage::Bridge, Fault::deadly(ProblemKind::HairpinOff, text));
        }
        let isolated = |l: &Link| l.bridge_port.as_ref().and_then(|p| p.isolated) == Some(true);
        if let Some(from) = from.filter(|l| isolated(l) && isolated(veth)) {
            let text = format!("{} and {} are isolated from each other", from.name, veth.name);
            let kind = ProblemKind::PortIsolated { other: from.name.clone() };
            self.fault(at, Stage::Bridge, Fault::deadly(kind, text));
        }
        self.bridge_entry(node, bridge, veth);
        true
    }

    /// Where the bridge sends the pod's hardware address.
    fn bridge_entry(&mut self, node: &'a Space, bridge: &'a Link, veth: &'a Link) {
        let Some(mac) = self.to.attachment.and_then(|a| a.pod?.mac) else { return };
        let entries =
            node.facts.fdb.iter().filter(|e| e.mac == mac && e.master == Some(bridge.index));
        let mut entries = entries.filter(|e| !e.own);
        let at = At::on(node, veth);
        let Some(entry) = entries.next() else {
            return self.pass(at, Stage::Bridge, format!("{mac} not learned: to every port"));
        };
        let shown = text::fdb(&node.facts, entry);
        if entry.ifindex == veth.index {
            return self.pass(at, Stage::Bridge, shown);
        }
        let has = text::name(&node.facts, entry.ifindex);
        let text = format!("{} sends {mac} of pod {} to {has}", bridge.name, self.to.end.name);
        let kind = if entry.permanent {
            ProblemKind::BridgeEntryWrong { mac, has, expected: veth.name.clone() }
        } else {
            // Learned there: what is behind that port sends from this address too.
            ProblemKind::DuplicateMac { mac, other: format!("something behind {has}") }
        };
        self.fault(at, Stage::Bridge, Fault::deadly(kind, text).entry(shown));
    }

    /// Straight over the bridge from one pod to the other.
    pub(super) fn bridged(&mut self) {
        let node = self.from.node;
        let (Some(from), Some(to)) = (self.from.attachment, self.to.attachment) else { return };
        let (Some(near), Some(far), Some(bridge)) = (from.veth, to.veth, to.bridge) else { return };
        if let (Some(a), Some(b)) = (from.pod.and_then(|l| l.mac), to.pod.and_then(|l| l.mac))
            && a == b
        {
            let text =
                format!("pods {} and {} both have {a}", self.from.end.name, self.to.end.name);
            let kind = ProblemKind::DuplicateMac { mac: a, other: self.from.end.name.clone() };
            if let Some(pod) = self.to.pod {
                self.fault(At::new(pod, to.pod), Stage::Bridge, Fault::deadly(kind, text));
            }
        }
        self.neighbor_pod();
        if !self.port(node, near, bridge, false) {
            return;
        }
        let packet = self.packet.clone();
        let arrived = Between { iif: Some(near), ..Between::default() };
        self.filter(node, TableFamily::Bridge, NfHook::Prerouting, arrived, packet, false);
        if self.bridge_calls_iptables(node, bridge) {
            let ports = [Some(near), Some(far)];
            self.prerouting(
                node,
                Between { iif: Some(bridge), oif: None, ports: [Some(near), None] },
            );
            let between = Between { iif: Some(bridge), oif: Some(bridge), ports };
            self.hook(node, NfHook::Forward, between);
            self.hook(node, NfHook::Postrouting, Between { iif: None, ..between });
        }
        self.last_port(Some(near));
    }

    /// What the pod itself knows of its neighbour.
    fn neighbor_pod(&mut self) {
        let (Some(pod), Some(link)) = (self.from.pod, self.from.attachment.and_then(|a| a.pod))
        else {
            return;
        };
        let (ip, at) = (self.to.ip, At::on(pod, link));
        let Some(entry) = pod.facts.neighbor(link.index, ip) else { return };
        let shown = text::neighbor(&pod.facts, entry);
        let real = self.to.attachment.and_then(|a| a.pod?.mac);
        match (entry.mac, real) {
            (Some(has), Some(real)) if has != real => {
                let text = format!(
                    "pod {} sends to {has} for {ip}, but pod {} has {real}",
                    self.from.end.name, self.to.end.name
                );
                let kind = ProblemKind::NeighborWrongMac {
                    ip,
                    device: link.name.clone(),
                    whose: Neighborhood::Pod,
                    has,
                    real,
                };
                self.fault(at, Stage::Neighbor, Fault::deadly(kind, text).entry(shown));
            }
            (None, _) => self.unknown(
                at,
                Stage::Neighbor,
                shown,
                "asked in vain lately; will be asked again",
            ),
            _ => self.pass(at, Stage::Neighbor, shown),
        }
    }

    /// What the pod does with it.
    pub(super) fn in_pod(&mut self, pod: &'a Space, link: &'a Link) {
        let at = At::on(pod, link);
        let ip = self.to.ip;
        // What was tracked and marked on the node stays there.
        self.packet.mark = Some(0);
        let between = Between { iif: Some(link), ..Between::default() };
        self.hook(pod, NfHook::Prerouting, between);
        self.duplicates(pod, link);
        if pod.facts.answer(&RouteQuery::to(self.packet.src)).is_some() && link.up {
            self.reverse_path(pod, link, self.packet.src);
        }
        match pod.facts.addresses.iter().find(|a| a.net.addr() == ip) {
            Some(address) if !address.tentative => {
                self.pass(at, Stage::Pod, format!("{} dev {}", address.net, link.name));
            }
            Some(address) => {
                let gap = "duplicate address detection has not ended well, or not yet";
                self.unknown(at, Stage::Pod, format!("{} tentative", address.net), gap);
            }
            // Over the bridge nobody has missed it yet.
            None => {
                let kind = ProblemKind::PodAddressMissing { address: ip };
                let told = self.problems.iter().any(|p| p.kind == kind);
                if !told {
                    let text = format!("pod {} does not have its address {ip}", self.to.end.name);
                    self.fault(at, Stage::Pod, Fault::deadly(kind, text));
                }
            }
        }
        self.hook(pod, NfHook::Input, between);
        self.socket(pod, link);
    }

    /// Others that are known to have the address.
    fn duplicates(&mut self, pod: &'a Space, link: &'a Link) {
        let ip = self.to.ip;
        let other = self.facts.pods.iter().find(|p| p.ips.contains(&ip));
        let Some(other) = other else { return };
        let other = format!("pod {}.{}", other.node, other.pod);
        let text = format!("{other} has {ip} too");
        let kind = ProblemKind::DuplicateAddress { address: ip, other };
        self.fault(At::on(pod, link), Stage::Pod, Fault::harms(kind, text));
    }

    pub(super) fn socket(&mut self, pod: &'a Space, link: &'a Link) {
        let at = At::on(pod, link);
        let facts = &pod.facts;
        let ip = self.to.ip;
        let proto = match self.flow.proto {
            TCP => SocketProto::Tcp,
            UDP => SocketProto::Udp,
            ICMP | ICMPV6 => {
                let name = match self.flow.proto {
                    ICMP => "net.ipv4.icmp_echo_ignore_all",
                    _ => "net.ipv6.icmp.echo_ignore_all",
                };
                if self.direction == Direction::Forward && facts.sysctl(name) == Some("1") {
                    let text = format!("pod {} answers no echo request", self.to.end.name);
                    let kind = ProblemKind::IcmpIgnored { sysctl: name.to_owned() };
                    let fault = Fault::deadly(kind, text).entry(format!("{name} = 1"));
                    self.fault(at, Stage::Socket, fault);
                }
                return;
            }
            _ => return,
        };
        // The asker's own socket is there as long as it asks.
        let (Some(port), Direction::Forward) = (self.packet.dport, self.direction) else { return };
        let word = if proto == SocketProto::Tcp { "tcp" } else { "udp" };
        if facts.has_gap("socket") {
            return self.unknown(
                at,
                Stage::Socket,
                format!("{word} port {port}"),
                "sockets were not read",
            );
        }
        let sockets =
            || facts.sockets.iter().filter(|s| s.proto == proto && s.local.port() == port);
        if let Some(socket) = sockets().find(|s| s.takes(proto, ip, port)) {
            return self.pass(at, Stage::Socket, format!("{word} socket on {}", socket.local));
        }
        let elsewhere = sockets().next().map(|s| s.local.ip());
        let but = elsewhere.map(|at| format!(", only on {at}")).unwrap_or_default();
        let whose = match &pod.pod {
            Some(_) => format!("pod {}", self.to.end.name),
            None => at.whose(),
        };
        let text = format!("nothing listens on {word} port {port} of {ip} in {whose}{but}");
        let kind = ProblemKind::NoListener { proto: self.flow.proto, port, elsewhere };
        self.fault(at, Stage::Socket, Fault::deadly(kind, text));
    }
}
