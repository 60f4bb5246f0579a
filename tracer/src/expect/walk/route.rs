//! Through a node's routing: source checks, forwarding, the route, and the hooks around them.

use std::net::IpAddr;

use super::fib::{self, Found, Question};
use super::filter::Between;
use super::walker::{At, Fault, Walker};
use super::{ProblemKind, RefusalKind, Stage, text};
use crate::facts::firewall::{CtState, NfHook};
use crate::facts::{Link, RouteHit, RouteKind, RouteOutcome, RouteQuery, Space};
use crate::model::Role;

/// Where a node should send the packet.
#[derive(Clone, Copy)]
pub(super) struct Leg<'a> {
    pub(super) node: &'a Space,
    /// Interface it comes in by; `None`: the node sends it itself.
    pub(super) iif: Option<&'a Link>,
    /// Interface it should leave by; `None`: there is none.
    pub(super) out: Option<&'a Link>,
    /// To the pod, which is on this node.
    pub(super) home: bool,
}

impl<'a> Walker<'a> {
    /// The node's way with the packet; the route that it takes where that is the right one.
    pub(super) fn through(&mut self, leg: Leg<'a>, prerouted: bool) -> Option<&'a RouteHit> {
        let Leg { node, iif, out, .. } = leg;
        if let Some(balanced) = iif.and_then(|_| self.balanced(node)) {
            return self.through_ipvs(leg, prerouted, balanced);
        }
        if !prerouted && iif.is_some() {
            self.prerouting(node, Between { iif, ..Between::default() });
        }
        let hit = self.route(leg);
        let between = Between { iif, oif: out, ..Between::default() };
        let hook = if iif.is_some() { NfHook::Forward } else { NfHook::Output };
        self.ttl(leg);
        if let Some(out) = out {
            self.packet_too_big(At::on(node, out), out, Stage::Forward);
        }
        self.hook(node, hook, between);
        self.hook(node, NfHook::Postrouting, Between { oif: out, ..Between::default() });
        self.xfrm(leg);
        hit
    }

    /// What IPVS has translated, on its way out: as if the node had sent it, but with the TTL of the
    /// packet that came in.
    pub(super) fn sent_on(&mut self, leg: Leg<'a>) -> Option<&'a RouteHit> {
        let Leg { node, out, .. } = leg;
        let hit = self.route(Leg { iif: None, ..leg });
        self.ttl(leg);
        if let Some(out) = out {
            self.packet_too_big(At::on(node, out), out, Stage::Output);
        }
        let between = Between { oif: out, ..Between::default() };
        self.hook(node, NfHook::Output, between);
        self.hook(node, NfHook::Postrouting, between);
        self.xfrm(leg);
        hit
    }

    /// The hook, with connection tracking in its midst.
    pub(super) fn prerouting(&mut self, node: &'a Space, between: Between<'a>) {
        self.hook(node, NfHook::Prerouting, between);
        let Some(conntrack) = &node.facts.conntrack else { return };
        let (Some(count), Some(max)) = (conntrack.count, conntrack.max) else { return };
        let tracked = self.packet.ct.as_ref().is_some_and(|s| s.contains(&CtState::New));
        if max == 0 || !tracked || count < max - max / 20 {
            return;
        }
        let text = format!("connection tracking of node {} is at {count} of {max}", node.node);
        let kind = ProblemKind::ConntrackFull { count, max };
        let entry = format!("net.netfilter.nf_conntrack_max = {max}, count {count}");
        let fault = if count >= max {
            Fault::deadly(kind, text + ": new connections are dropped").if_certain(count > max)
        } else {
            Fault::harms(kind, text + ": nearly full")
        };
        self.fault(At::new(node, between.iif), Stage::Prerouting, fault.entry(entry));
    }

    fn ttl(&mut self, leg: Leg<'a>) {
        // Each node takes one; the far one gets what the first has left.
        let crossed = u8::from(leg.home && self.from.node.facts.inum != self.to.node.facts.inum);
        if leg.iif.is_some()
            && self.flow.ttl.saturating_sub(crossed) <= 1
            && self.flow.ttl > crossed
        {
            let ttl = self.flow.ttl;
            let text = format!("a TTL of {ttl} ends at node {}", leg.node.node);
            let fault = Fault::deadly(ProblemKind::TtlExceeded { ttl }, text);
            self.fault(At::new(leg.node, leg.iif), Stage::Forward, fault);
        }
    }

    fn route(&mut self, leg: Leg<'a>) -> Option<&'a RouteHit> {
        let Leg { node, iif, .. } = leg;
        let mut refused = false;
        if let Some(iif) = iif {
            refused |= self.martian(node, iif);
            refused |= self.forwarding(node, iif);
            refused |= self.reverse_path(node, iif, self.packet.src);
        }
        let (src, dst) = (self.packet.src, self.packet.dst);
        let facts = &node.facts;
        let full = RouteQuery { dst, src: iif.map(|_| src), iif: iif.map(|l| l.index), oif: None };
        let asked = facts.answer(&full);
        // A node that refuses for another reason gives no route; then what it would do itself.
        let answer = match asked.filter(|a| a.hit().is_some() || !refused) {
            Some(answer) => Some(answer),
            None => facts.answer(&RouteQuery::to(dst)),
        };
        let question = Question {
            src: Some(src),
            dst,
            iif: iif.map(|l| l.name.as_str()),
            mark: self.packet.mark.unwrap_or(0),
            proto: self.flow.proto,
            dport: self.packet.dport,
        };
        let found = fib::lookup(facts, &question);
        let usual = fib::without_special_rules(facts, &question);
        let at = At::new(node, leg.out);
        match answer.map(|a| &a.outcome) {
            None => {
                let gap = "the node's routing was not asked";
                self.unknown(at, Stage::Route, format!("route to {dst}"), gap);
                None
            }
            Some(RouteOutcome::Found(hit)) => self.routed(leg, hit, found, usual),
            Some(RouteOutcome::Failed { message, .. }) => {
                if let Some(refusal) = found.refusal() {
                    self.refused(at, dst, refusal, &found);
                } else if let Some(route) = found.route {
                    let gap = format!("the kernel says: {message}");
                    self.unknown(at, Stage::Route, text::route(facts, route), gap);
                } else {
                    self.unrouted(leg, message);
                }
                None
            }
        }
    }

    /// A route there is; is it the right one? `usual`: the one without special rules.
    fn routed(
        &mut self,
        leg: Leg<'a>,
        hit: &'a RouteHit,
        found: Found<'a>,
        usual: Found<'a>,
    ) -> Option<&'a RouteHit> {
        let Leg { node, iif, out, .. } = leg;
        let (facts, dst) = (&node.facts, self.packet.dst);
        let at = At::new(node, out);
        // Where tables and answer disagree, the answer is right and the entry is not named.
        let agrees = found.route.is_some_and(|r| {
            r.kind == hit.kind
                && (r.oif == hit.oif || r.more_hops.iter().any(|(oif, _)| Some(*oif) == hit.oif))
        });
        let found = if agrees { found } else { Found::default() };
        let shown =
            found.route.map_or_else(|| text::hit(facts, dst, hit), |r| text::route(facts, r));
        match hit.kind {
            RouteKind::Unicast => {}
            RouteKind::Blackhole | RouteKind::Unreachable | RouteKind::Prohibit => {
                let refusal = found.refusal().unwrap_or(match hit.kind {
                    RouteKind::Blackhole => RefusalKind::Blackhole,
                    RouteKind::Unreachable => RefusalKind::Unreachable,
                    _ => RefusalKind::Prohibit,
                });
                self.refused(at, dst, refusal, &found);
                return None;
            }
            RouteKind::Local => {
                let holder = facts.holder(dst).map_or("a local route", |l| l.name.as_str());
                let text = format!("node {} takes {dst} for its own ({holder})", node.node);
                let other = format!("node {} {holder}", node.node);
                let kind = ProblemKind::DuplicateAddress { address: dst, other };
                self.fault(at, Stage::Route, Fault::deadly(kind, text).entry(shown));
                return None;
            }
            _ => {
                self.unknown(at, Stage::Route, shown, "a route of a kind that does not forward");
                return None;
            }
        }
        let Some(out) = out else {
            // Only the default route is left: what should carry the packet is gone.
            if found.route.is_none_or(|r| r.dst.prefix_len() == 0) {
                self.unrouted(leg, "only the default route is left");
            } else {
                self.unknown(at, Stage::Route, shown, "where it should go is not known");
            }
            return None;
        };
        if hit.oif == Some(out.index) {
            if let Some(rule) = found.special_rule() {
                // Without a tunnel, the way out is wherever the rule leads.
                let leads = |gateway: Option<IpAddr>| {
                    self.to.node.facts.holder(gateway.unwrap_or(dst)).is_some()
                };
                if let Some(route) = usual.route
                    && !leg.home
                    && leads(route.gateway)
                    && !leads(hit.gateway)
                {
                    let name = |oif: Option<u32>| {
                        oif.map_or_else(|| "nothing".to_owned(), |oif| text::name(facts, oif))
                    };
                    let (has, expected) = (name(hit.oif), name(route.oif));
                    let text =
                        format!("node {} sends {dst} to {has} rather than {expected}", node.node);
                    let rule = text::rule(rule);
                    let kind = ProblemKind::RuleHijack { dst, has, expected, rule };
                    self.fault(at, Stage::Route, Fault::deadly(kind, text).entry(shown));
                    return None;
                }
                self.pass(at, Stage::Route, format!("{shown} (rule {})", text::rule(rule)));
            } else {
                self.pass(at, Stage::Route, shown);
            }
            return Some(hit);
        }
        let has = hit.oif.map_or_else(|| "nothing".to_owned(), |oif| text::name(facts, oif));
        let expected = out.name.clone();
        let text = format!("node {} sends {dst} to {has} rather than {expected}", node.node);
        let back = leg.home && iif.is_some_and(|iif| hit.oif == Some(iif.index));
        let special = found.special_rule();
        let default = found.route.is_some_and(|r| r.dst.prefix_len() == 0) && special.is_none();
        let kind = match special {
            // Not by the default route: then what should carry the packet is gone.
            _ if back && !default => ProblemKind::RouteLoop { dst, device: has },
            Some(rule) => ProblemKind::RuleHijack { dst, has, expected, rule: text::rule(rule) },
            None if default => {
                self.unrouted(leg, "only the default route is left");
                return None;
            }
            None => ProblemKind::RouteWrongDevice {
                dst,
                has,
                expected,
                route: found.route.map(|r| text::route(facts, r)),
                replace: self.expected_route(leg),
            },
        };
        self.fault(at, Stage::Route, Fault::deadly(kind, text).entry(shown));
        None
    }

    /// No route: because what it would lead through is gone, or by itself.
    fn unrouted(&mut self, leg: Leg<'a>, why: &str) {
        let Leg { node, out, home, .. } = leg;
        let dst = self.packet.dst;
        let facts = &node.facts;
        let at = At::new(node, out);
        let v6 = dst.is_ipv6();
        let addressed = |link: &Link| {
            facts
                .addresses_of(link.index)
                .any(|net| net.addr().is_ipv6() == v6 && !super::is_link_local(net.addr()))
        };
        let fault = match out {
            None if self.to.is_outside() => {
                let text = format!("node {} has no route to {dst}: {why}", node.node);
                Fault::deadly(ProblemKind::RouteMissing { dst, expected: None }, text)
            }
            None if home => {
                let text = format!("node {} has no bridge or interface for {dst}", node.node);
                Fault::deadly(ProblemKind::BridgeMissing, text)
            }
            None => {
                let text = format!("node {} has no VXLAN device and no route to {dst}", node.node);
                Fault::deadly(ProblemKind::VxlanMissing, text)
            }
            Some(link) if !link.up => {
                let text =
                    format!("{} of node {} is down, and its routes are gone", link.name, node.node);
                let kind = match (link.vxlan.is_some(), home) {
                    (true, _) => ProblemKind::VxlanDown,
                    (_, true) if link.is_pair() => ProblemKind::VethDown,
                    (_, true) => ProblemKind::BridgeDown,
                    _ => ProblemKind::LinkDown { carrier: false },
                };
                Fault::deadly(kind, text).entry(text::link(link))
            }
            Some(link) if link.vxlan.is_some() && !addressed(link) => {
                let text = format!(
                    "{} of node {} has lost its address, and its routes with it",
                    link.name, node.node
                );
                let kind = ProblemKind::VxlanAddressMissing { expected: self.vxlan_address(node) };
                Fault::deadly(kind, text).entry(text::link(link))
            }
            Some(link) if home && link.is("bridge") && !self.covers(node, link, dst) => {
                let has: Vec<_> = facts.addresses_of(link.index).collect();
                let listed: Vec<_> = has.iter().map(ToString::to_string).collect();
                let text = format!(
                    "{} of node {} has no address in the network of {dst} (it has {})",
                    link.name,
                    node.node,
                    if listed.is_empty() { "none".to_owned() } else { listed.join(", ") }
                );
                match self.gateway_of_pod() {
                    Some((gateway, prefix)) => Fault::deadly(
                        ProblemKind::GatewayAddressMissing { gateway, prefix, has },
                        text,
                    ),
                    None => Fault::deadly(ProblemKind::RouteMissing { dst, expected: None }, text),
                }
            }
            Some(_) => {
                let expected = self.expected_route(leg);
                let text = format!("node {} has no route to {dst}: {why}", node.node);
                Fault::deadly(ProblemKind::RouteMissing { dst, expected }, text)
            }
        };
        self.fault(at, Stage::Route, fault);
    }

    fn covers(&self, node: &Space, link: &Link, ip: IpAddr) -> bool {
        node.facts.addresses_of(link.index).any(|net| net.contains(&ip))
    }

    /// The destination pod's gateway, with the prefix length of its network.
    fn gateway_of_pod(&self) -> Option<(IpAddr, u8)> {
        let pod = self.to.pod?;
        let link = self.to.attachment?.pod?;
        let net = pod.facts.addresses_of(link.index).find(|n| n.addr() == self.to.ip)?;
        let gateway = pod
            .facts
            .routes
            .iter()
            .find(|r| r.dst.prefix_len() == 0 && r.dst.addr().is_ipv6() == net.addr().is_ipv6())
            .and_then(|r| r.gateway)?;
        Some((gateway, net.prefix_len()))
    }

    /// `10.10.1.0/24 via 10.10.1.0 dev flannel.1 onlink`, from what the far node has.
    fn expected_route(&self, leg: Leg<'a>) -> Option<String> {
        let out = leg.out?;
        if leg.home {
            let (_, prefix) = self.gateway_of_pod()?;
            let net = ipnet::IpNet::new(self.to.ip, prefix).ok()?.trunc();
            return Some(format!("{net} dev {}", out.name));
        }
        if out.vxlan.is_some() {
            return Some(format!(
                "{} onlink",
                self.route_to_far_pods(self.far_vtep_address(), out)?
            ));
        }
        self.route_to_far_pods(self.far_underlay_address(), out)
    }

    /// The route to the other node's pods, as `ip route add` takes it.
    pub(super) fn route_to_far_pods(&self, via: Option<IpAddr>, out: &Link) -> Option<String> {
        let far = &self.to.node.facts;
        let entry = far.link(self.to.attachment?.entry()?)?;
        let net = far.addresses_of(entry.index).find(|n| n.contains(&self.to.ip))?.trunc();
        Some(format!("{net} via {} dev {}", via?, out.name))
    }

    pub(super) fn refused(
        &mut self,
        at: At<'a>,
        dst: IpAddr,
        refusal: RefusalKind,
        found: &Found<'a>,
    ) {
        let facts = &at.space.facts;
        let route = found.route.map(|r| text::route(facts, r));
        let rule = match found.route {
            Some(_) => None,
            None => found.rule.map(text::rule),
        };
        let entry = route.clone().or_else(|| rule.clone());
        let what = if rule.is_some() { "rule" } else { "route" };
        let text = format!("{} has a {what} that refuses {dst}: {}", at.whose(), refusal.as_str());
        let kind = ProblemKind::RouteRefuses { dst, refusal, route, rule };
        let fault = Fault::deadly(kind, text);
        self.fault(
            at,
            Stage::Route,
            match entry {
                Some(entry) => fault.entry(entry),
                None => fault,
            },
        );
    }

    /// Sources that are the node's own are not believed (IPv4).
    pub(super) fn martian(&mut self, node: &'a Space, iif: &'a Link) -> bool {
        let src = self.packet.src;
        let Some(holder) = node.facts.holder(src).filter(|_| src.is_ipv4()) else { return false };
        let accepts = ["all", iif.name.as_str()]
            .into_iter()
            .any(|name| node.facts.interface_sysctl("ipv4", name, "accept_local") == Some("1"));
        if accepts {
            return false;
        }
        let text = format!(
            "node {} has {src} itself, on {}: it takes packets from there for forged",
            node.node, holder.name
        );
        let kind = ProblemKind::MartianSource { src, holder: holder.name.clone() };
        let fault = Fault::deadly(kind, text).entry(format!("{src} dev {}", holder.name));
        self.fault(At::on(node, iif), Stage::Route, fault);
        true
    }

    fn forwarding(&mut self, node: &'a Space, iif: &'a Link) -> bool {
        let facts = &node.facts;
        let at = At::on(node, iif);
        // IPv4 asks the interface it came by, IPv6 the namespace.
        let (interface, general) = match self.packet.dst.is_ipv6() {
            false => (iif.name.as_str(), "net.ipv4.ip_forward"),
            true => ("all", "net.ipv6.conf.all.forwarding"),
        };
        let own =
            format!("net.{}.conf.{}.forwarding", self.family_name(), interface.replace('.', "/"));
        let off = [general, own.as_str()].into_iter().find(|name| facts.sysctl(name) == Some("0"));
        // Per interface it may be on although the general switch, set later, says otherwise.
        let on = facts.sysctl(&own).or_else(|| facts.sysctl(general));
        match (on, off) {
            (None, _) => self.unknown(at, Stage::Forward, own, "this parameter was not read"),
            (Some("0"), Some(sysctl)) => {
                let text = format!("node {} does not forward: {sysctl} is 0", node.node);
                let kind = ProblemKind::ForwardingOff { sysctl: sysctl.to_owned() };
                let fault = Fault::deadly(kind, text).entry(format!("{sysctl} = 0"));
                self.fault(at, Stage::Forward, fault);
                return true;
            }
            (Some(value), _) => self.pass(at, Stage::Forward, format!("{own} = {value}")),
        }
        false
    }

    /// Whether answers to `src` would leave by the interface it comes in by, where that is asked.
    pub(super) fn reverse_path(&mut self, space: &'a Space, iif: &'a Link, src: IpAddr) -> bool {
        if src.is_ipv6() {
            return false;
        }
        let facts = &space.facts;
        let value = |name| -> Option<u8> {
            facts.interface_sysctl("ipv4", name, "rp_filter")?.parse().ok()
        };
        let mode = value("all").max(value(&iif.name)).unwrap_or(0);
        if mode == 0 || facts.answers_to(src).next().is_none() {
            return false;
        }
        let at = At::on(space, iif);
        let question = Question { src: None, dst: src, iif: None, mark: 0, proto: 0, dport: None };
        let found = fib::lookup(facts, &question);
        let ways: Vec<u32> = match found.route.filter(|r| r.kind == RouteKind::Unicast) {
            Some(route) => {
                route.oif.into_iter().chain(route.more_hops.iter().map(|h| h.0)).collect()
            }
            None => facts.way_to(src).map(|(link, _)| link.index).into_iter().collect(),
        };
        let fits = if mode == 1 { ways.contains(&iif.index) } else { !ways.is_empty() };
        let name = if value("all") >= value(&iif.name) { "all" } else { iif.name.as_str() };
        let sysctl = format!("net.ipv4.conf.{}.rp_filter = {mode}", name.replace('.', "/"));
        if fits {
            self.pass(at, Stage::Route, format!("{sysctl}: the way back fits"));
            return false;
        }
        let back = ways.first().map(|index| text::name(facts, *index));
        let way =
            back.as_ref().map_or_else(|| "nowhere".to_owned(), |name| format!("through {name}"));
        let text = format!(
            "{} would answer {src} {way}, but it comes in by {}: the reverse-path filter drops it",
            at.whose(),
            iif.name
        );
        let kind = ProblemKind::RpFilter { src, iif: iif.name.clone(), back, mode };
        self.fault(at, Stage::Route, Fault::deadly(kind, text).entry(sysctl));
        true
    }

    /// IPsec policies for the packet.
    fn xfrm(&mut self, leg: Leg<'a>) {
        let direction = if leg.iif.is_some() { "fwd" } else { "out" };
        let (src, dst, proto) = (self.packet.src, self.packet.dst, self.packet.proto);
        let policy = leg
            .node
            .facts
            .xfrm
            .iter()
            .filter(|p| p.direction == direction || p.direction == "out")
            .filter(|p| p.src.contains(&src) && p.dst.contains(&dst))
            .filter(|p| p.proto == 0 || p.proto == proto)
            .min_by_key(|p| p.priority);
        let Some(policy) = policy else { return };
        let action = if policy.block { " action block" } else { "" };
        let entry = format!(
            "src {} dst {} dir {} priority {}{action}",
            policy.src, policy.dst, policy.direction, policy.priority
        );
        let kind = ProblemKind::XfrmPolicy { policy: entry.clone(), blocks: policy.block };
        let text = format!("an IPsec policy of node {} applies", leg.node.node);
        let fault = if policy.block { Fault::deadly(kind, text) } else { Fault::note(kind, text) };
        self.fault(At::new(leg.node, leg.out), Stage::Postrouting, fault.entry(entry));
    }

    /// The interface that leads to the pod.
    pub(super) fn home_link(&self) -> Option<&'a Link> {
        let attachment = self.to.attachment?;
        attachment.bridge.or(attachment.veth)
    }

    pub(super) fn role(&self, space: &Space, link: &Link) -> Role {
        let station = self.topology.find(space.facts.inum, link.index);
        station.map_or(Role::Other, |id| self.topology.station(id).role)
    }
}
