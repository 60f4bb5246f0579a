//! From the source pod to its node's routing, or straight over the bridge.

use std::net::IpAddr;

use super::fib::{self, Question};
use super::filter::Between;
use super::walker::{At, Fault, Walker};
use super::{Neighborhood, ProblemKind, Stage, text};
use crate::facts::firewall::{NfHook, TableFamily};
use crate::facts::{Link, NeighborState, RouteKind, RouteOutcome, RouteQuery, Space};
use crate::model::Hook;

impl<'a> Walker<'a> {
    /// Ends where the node's routing gets the packet; the interface it comes in by there.
    pub(super) fn leave_pod(&mut self) -> Option<&'a Link> {
        let (node, veth) = (self.from.node, self.leave_to_bridge());
        let bridge = self.from.attachment?.bridge;
        if let (Some(veth), Some(bridge)) = (veth, bridge) {
            self.enter_bridge(node, veth, bridge);
        }
        bridge.or(veth)
    }

    /// Ends behind the node's end of the pod's pair, which is returned.
    pub(super) fn leave_to_bridge(&mut self) -> Option<&'a Link> {
        let node = self.from.node;
        let (Some(pod), Some(attachment)) = (self.from.pod, self.from.attachment) else {
            return None;
        };
        let Some(link) = attachment.pod else {
            let text = format!(
                "pod {} has no interface that leads to node {}",
                self.from.end.name, node.node
            );
            let fault = Fault::deadly(ProblemKind::PodInterfaceMissing, text);
            self.fault(At::new(pod, None), Stage::Pod, fault);
            return None;
        };
        // Without the other end the pod has no carrier, and sends nothing.
        let cut = attachment.veth.filter(|veth| !veth.up);
        if let Some(veth) = cut {
            self.veth_down(node, veth);
        }
        self.pod_stack(pod, link);
        if let Some(stray) = self.from.stray {
            self.reach(pod, Some(stray), Hook::Egress);
            self.devices(pod, stray, Hook::Egress);
            return None;
        }
        self.reach(pod, Some(link), Hook::Egress);
        self.devices(pod, link, Hook::Egress);
        let Some(veth) = attachment.veth else {
            let gap = format!("the node's end of {} is not known", link.name);
            self.unknown(At::new(node, None), Stage::Bridge, text::link(link), gap);
            return None;
        };
        self.reach(node, Some(veth), Hook::Ingress);
        self.devices(node, veth, Hook::Ingress);
        self.ingress(node, veth);
        Some(veth)
    }

    /// The pod's own interface, address, route and filters.
    pub(super) fn pod_stack(&mut self, pod: &'a Space, link: &'a Link) {
        let at = At::on(pod, link);
        let facts = &pod.facts;
        let ip = self.from.ip;
        if !link.up {
            let text = format!("{} of pod {} is down", link.name, self.from.end.name);
            let fault = Fault::deadly(ProblemKind::PodInterfaceDown, text);
            self.fault(at, Stage::Pod, fault.entry(text::link(link)));
            // Its routes are gone with it.
            return;
        }
        self.pass(at, Stage::Pod, text::link(link));
        match facts.addresses.iter().find(|a| a.net.addr() == ip) {
            None => {
                let text = format!("pod {} does not have its address {ip}", self.from.end.name);
                let kind = ProblemKind::PodAddressMissing { address: ip };
                self.fault(at, Stage::Pod, Fault::deadly(kind, text));
            }
            Some(address) if address.tentative => {
                let gap = "duplicate address detection has not ended well, or not yet";
                self.unknown(at, Stage::Pod, format!("{} tentative", address.net), gap);
            }
            Some(address) => {
                let net = address.net;
                self.pass(at, Stage::Pod, format!("{net} dev {}", link.name));
            }
        }
        if let Some(other) = facts.holder(self.to.ip) {
            let text = format!(
                "pod {} itself has {}, the address of {}",
                self.from.end.name, self.to.ip, self.to.end.name
            );
            let (address, other) = (self.to.ip, format!("{} {}", self.from.end.name, other.name));
            let kind = ProblemKind::DuplicateAddress { address, other };
            self.fault(at, Stage::Pod, Fault::deadly(kind, text));
            return;
        }
        self.hook(pod, NfHook::Output, Between { oif: Some(link), ..Between::default() });
        self.pod_route(pod, link);
        self.hook(pod, NfHook::Postrouting, Between { oif: Some(link), ..Between::default() });
        // Marks and connections stay in the namespace.
        self.packet.mark = Some(0);
        self.packet_too_big(at, link, Stage::Pod);
    }

    fn pod_route(&mut self, pod: &'a Space, link: &'a Link) {
        let at = At::on(pod, link);
        let facts = &pod.facts;
        let dst = self.sent_to();
        let question = Question {
            src: None,
            dst,
            iif: None,
            mark: 0,
            proto: self.flow.proto,
            dport: self.packet.dport,
        };
        let found = fib::lookup(facts, &question);
        let Some(answer) = facts.answer(&RouteQuery::to(dst)) else {
            let gap = "the pod's routing was not asked";
            return self.unknown(at, Stage::Route, format!("route to {dst}"), gap);
        };
        let hit = match &answer.outcome {
            RouteOutcome::Found(hit) => hit,
            RouteOutcome::Failed { message, .. } => {
                if let Some(refusal) = found.refusal() {
                    return self.refused(at, dst, refusal, &found);
                }
                let gateway = self.gateway_of_node();
                let text = format!(
                    "pod {} has no route to {dst} ({message}); pods have a default route",
                    self.from.end.name
                );
                let kind = ProblemKind::PodRouteMissing { dst, gateway };
                return self.fault(at, Stage::Route, Fault::deadly(kind, text));
            }
        };
        let shown =
            found.route.map_or_else(|| text::hit(facts, dst, hit), |r| text::route(facts, r));
        if hit.kind != RouteKind::Unicast {
            return self.unknown(at, Stage::Route, shown, "a route that does not forward");
        }
        if let Some(oif) = hit.oif.filter(|oif| *oif != link.index) {
            let has = text::name(facts, oif);
            if self.to.is_outside() {
                // That is what a second interface is there for.
                return self.pass(at, Stage::Route, shown);
            }
            let text = format!(
                "pod {} sends to {dst} through {has} rather than {}",
                self.from.end.name, link.name
            );
            let kind = ProblemKind::RouteWrongDevice {
                dst,
                has,
                expected: link.name.clone(),
                // What it has for everything else it may need; this address needs a way of its own.
                route: None,
                replace: self.gateway_of_node().map(|gateway| {
                    let net = ipnet::IpNet::from(dst);
                    format!(
                        "{net} via {gateway} dev {}   # in the pod; better: the whole network",
                        link.name
                    )
                }),
            };
            return self.fault(at, Stage::Route, Fault::deadly(kind, text).entry(shown));
        }
        self.pass(at, Stage::Route, shown);
        self.gateway(pod, link, hit.gateway);
    }

    /// An address of the node in the pod's network.
    fn gateway_of_node(&self) -> Option<IpAddr> {
        let attachment = self.from.attachment?;
        let facts = &self.from.node.facts;
        let entry = facts.link(attachment.entry()?)?;
        facts
            .addresses_of(entry.index)
            .find(|net| net.contains(&self.from.ip))
            .map(|net| net.addr())
    }

    /// Whoever the pod sends to: does the node have that address, and does the pod know where?
    fn gateway(&mut self, pod: &'a Space, link: &'a Link, gateway: Option<IpAddr>) {
        let node = self.from.node;
        let Some(attachment) = self.from.attachment else { return };
        let Some(gateway) = gateway else { return };
        let facts = &node.facts;
        let entry = pod.facts.neighbor(link.index, gateway);
        let known = entry.filter(|e| e.mac.is_some());
        let Some(first) = attachment.bridge.or(attachment.veth) else { return };
        let holder = facts.holder(gateway);
        if holder.is_none() {
            let proxy = facts.interface_sysctl("ipv4", &first.name, "proxy_arp") == Some("1");
            if proxy || gateway.is_ipv6() && super::is_link_local(gateway) {
                return self.pass(
                    At::on(pod, link),
                    Stage::Neighbor,
                    format!("{gateway}: {} answers for it", first.name),
                );
            }
            let prefix = pod
                .facts
                .addresses_of(link.index)
                .find(|net| net.contains(&gateway))
                .map_or(if gateway.is_ipv6() { 64 } else { 24 }, |net| net.prefix_len());
            let has: Vec<_> = facts.addresses_of(first.index).collect();
            let listed: Vec<_> = has.iter().map(ToString::to_string).collect();
            let listed = if listed.is_empty() { "none".to_owned() } else { listed.join(", ") };
            let text = format!(
                "node {} does not have {gateway}, the gateway of pod {} (addresses of {}: {listed})",
                node.node, self.from.end.name, first.name
            );
            let kind = match attachment.bridge {
                Some(_) => ProblemKind::GatewayAddressMissing { gateway, prefix, has },
                None => ProblemKind::BridgeMissing,
            };
            // What the pod has learned before may carry it for a while.
            let fault = Fault::deadly(kind, text).if_certain(known.is_none());
            return self.fault(At::on(node, first), Stage::Neighbor, fault);
        }
        self.gateway_answers(pod, link, gateway, first);
    }

    fn gateway_answers(
        &mut self,
        pod: &'a Space,
        link: &'a Link,
        gateway: IpAddr,
        first: &'a Link,
    ) {
        let node = self.from.node;
        let at = At::on(pod, link);
        let entry = pod.facts.neighbor(link.index, gateway);
        let ignore = ["all", first.name.as_str()]
            .into_iter()
            .filter_map(|name| {
                let value = node.facts.interface_sysctl("ipv4", name, "arp_ignore")?;
                Some((name, value.parse::<u32>().ok()?, value))
            })
            .max_by_key(|(_, number, _)| *number);
        // 8: answers nobody (Documentation/networking/ip-sysctl.rst).
        if let Some((name, 8.., value)) = ignore.filter(|_| gateway.is_ipv4()) {
            let sysctl = format!("net.ipv4.conf.{}.arp_ignore", name.replace('.', "/"));
            let text = format!("{} of node {} answers no ARP", first.name, node.node);
            let entry = format!("{sysctl} = {value}");
            let kind = ProblemKind::GatewayIgnoresArp { sysctl, value: value.to_owned() };
            let fault = Fault::deadly(kind, text).entry(entry);
            let known = pod.facts.neighbor(link.index, gateway).is_some_and(|e| e.mac.is_some());
            return self.fault(At::on(node, first), Stage::Neighbor, fault.if_certain(!known));
        }
        let Some(entry) = entry else {
            return self.pass(at, Stage::Neighbor, format!("{gateway}: will be asked for"));
        };
        let shown = text::neighbor(&pod.facts, entry);
        let Some(mac) = entry.mac else {
            return match entry.state {
                NeighborState::Failed | NeighborState::Incomplete => self.unknown(
                    at,
                    Stage::Neighbor,
                    shown,
                    "asked in vain lately; will be asked again",
                ),
                _ => self.pass(at, Stage::Neighbor, shown),
            };
        };
        // A bridge hears its own address and that of the port the frame comes by.
        let own = [Some(first), self.from.attachment.and_then(|a| a.veth)];
        let fits = own.iter().flatten().any(|l| l.mac == Some(mac));
        if let (false, Some(real)) = (fits, first.mac) {
            let text = format!(
                "pod {} sends to {mac} for its gateway {gateway}, but {} of node {} is {real}",
                self.from.end.name, first.name, node.node
            );
            let kind = ProblemKind::NeighborWrongMac {
                ip: gateway,
                device: link.name.clone(),
                whose: Neighborhood::Gateway,
                has: mac,
                real,
            };
            return self.fault(at, Stage::Neighbor, Fault::deadly(kind, text).entry(shown));
        }
        self.pass(at, Stage::Neighbor, shown);
    }

    /// Over the bridge port to the bridge itself.
    fn enter_bridge(&mut self, node: &'a Space, veth: &'a Link, bridge: &'a Link) {
        if !self.port(node, veth, bridge, false) {
            return;
        }
        let between = Between { iif: Some(veth), ..Between::default() };
        let packet = self.packet.clone();
        self.filter(node, TableFamily::Bridge, NfHook::Prerouting, between, packet.clone(), false);
        if self.bridge_calls_iptables(node, bridge) {
            // br_netfilter runs the IP hook here, and the node not again.
            self.prerouting(
                node,
                Between { iif: Some(bridge), oif: None, ports: [Some(veth), None] },
            );
        }
        let to_bridge = Between { oif: Some(bridge), ..between };
        self.filter(node, TableFamily::Bridge, NfHook::Input, to_bridge, packet, false);
        self.reach(node, Some(bridge), Hook::Ingress);
        self.devices(node, bridge, Hook::Ingress);
    }

    /// Whether bridged packets are shown to iptables.
    pub(super) fn bridge_calls_iptables(&self, node: &Space, bridge: &Link) -> bool {
        let v6 = self.packet.dst.is_ipv6();
        let name = if v6 {
            "net.bridge.bridge-nf-call-ip6tables"
        } else {
            "net.bridge.bridge-nf-call-iptables"
        };
        let own = bridge
            .bridge
            .as_ref()
            .and_then(|b| if v6 { b.nf_call_ip6tables } else { b.nf_call_iptables });
        node.facts.sysctl(name) == Some("1") || own == Some(true)
    }

    fn veth_down(&mut self, node: &'a Space, veth: &'a Link) {
        let text = format!("{}, the node's end of the pod's pair, is down", veth.name);
        let fault = Fault::deadly(ProblemKind::VethDown, text).entry(text::link(veth));
        self.fault(At::on(node, veth), Stage::Bridge, fault);
    }

    /// A veth as port of its bridge; whether frames get through. `out`: towards the pod.
    pub(super) fn port(
        &mut self,
        node: &'a Space,
        veth: &'a Link,
        bridge: &'a Link,
        out: bool,
    ) -> bool {
        let at = At::on(node, veth);
        if !veth.up {
            if out {
                self.veth_down(node, veth);
            }
            return false;
        }
        if veth.master != Some(bridge.index) {
            let text = format!("{} is not a port of {}", veth.name, bridge.name);
            let kind = ProblemKind::PortDetached { bridge: bridge.name.clone() };
            // What comes from the pod the node may route all the same.
            let fault = if out { Fault::deadly(kind, text) } else { Fault::harms(kind, text) };
            self.fault(at, Stage::Bridge, fault.entry(text::link(veth)));
            return false;
        }
        if !bridge.up {
            let text = format!("bridge {} is down", bridge.name);
            let fault = Fault::deadly(ProblemKind::BridgeDown, text).entry(text::link(bridge));
            self.fault(At::on(node, bridge), Stage::Bridge, fault);
            return false;
        }
        let state = veth.bridge_port.as_ref().and_then(|p| p.state.as_deref());
        match state {
            Some(state) if state != "forwarding" && veth.lower_up => {
                let text = format!("port {} of {} is {state}", veth.name, bridge.name);
                let kind = ProblemKind::PortBlocking { state: state.to_owned() };
                let entry = format!("{} master {} state {state}", veth.name, bridge.name);
                self.fault(at, Stage::Bridge, Fault::deadly(kind, text).entry(entry));
                return false;
            }
            state => {
                let state = state.map(|s| format!(" state {s}")).unwrap_or_default();
                let entry = format!("{} master {}{state}", veth.name, bridge.name);
                self.pass(at, Stage::Bridge, entry);
            }
        }
        true
    }
}
