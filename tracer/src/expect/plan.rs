//! The way a healthy packet takes, point by point. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::side::{Side, sent_to};
use super::{Family, ipvs};
use crate::facts::{Link, PathFacts, RouteHit, RouteOutcome, Space, is_link_local, underlay};
use crate::model::{Direction, Hook, Point, Role, Topology};

pub(super) fn plan(
    facts: &PathFacts,
    topology: &Topology,
    family: Family,
    direction: Direction,
    gaps: &mut BTreeSet<String>,
) -> Vec<Point> {
    let (from, to) = match direction {
        Direction::Forward => (&facts.src, &facts.dst),
        Direction::Reply => (&facts.dst, &facts.src),
    };
    let (Some(from), Some(to)) = (Side::new(facts, family, from), Side::new(facts, family, to))
    else {
        return Vec::new();
    };
    let from = from.sending(sent_to(facts, &topology.aliases, direction, to.ip));
    let past_the_stack = |side: &Side<'_>| side.attachment.is_some_and(|a| a.lower.is_some());
    let planner = Planner { facts, topology, family };
    let mut way = Way { topology, points: Vec::new() };
    let via = facts.translator();
    if let Some(via) = via.as_ref().and_then(|via| Side::new(facts, family, via))
        && planner.goes_through(&via, direction)
    {
        planner.through(&from, &via, &to, &mut way, gaps);
    } else if to.is_outside() {
        planner.over_the_edge(&from, &to, &mut way, gaps);
    } else if from.is_outside() {
        planner.in_from_outside(&from, &to, &mut way, gaps);
    } else if past_the_stack(&from) || past_the_stack(&to) {
        planner.past_the_stack(&from, &to, &mut way);
    } else if from.node.facts.inum == to.node.facts.inum {
        planner.within_node(&from, &to, &mut way);
    } else {
        way.leave_pod(&from);
        // Answers to an address that stands for the source go to the node that has it.
        let back = planner.in_place_of(&to).filter(|_| direction == Direction::Reply);
        let back = back.filter(|back| from.node.facts.answers_to(back.ip).next().is_some());
        planner.between_nodes(&from, &back.unwrap_or(to), &mut way, gaps);
        way.enter_pod(&to);
    }
    way.points
}

/// Points in the making.
pub(super) struct Way<'a> {
    topology: &'a Topology,
    points: Vec<Point>,
}

impl Way<'_> {
    pub(super) fn push(&mut self, space: &Space, link: Option<&Link>, hook: Hook) {
        let station = link.and_then(|l| self.topology.find(space.facts.inum, l.index));
        self.points.extend(station.map(|station| Point { station, hook }));
    }

    /// From the pod's interface to the node's routing.
    pub(super) fn leave_pod(&mut self, side: &Side<'_>) {
        self.leave_pair(side);
        self.push(side.node, side.bridge(), Hook::Ingress);
    }

    /// From the node's routing to the pod's interface.
    pub(super) fn enter_pod(&mut self, side: &Side<'_>) {
        self.push(side.node, side.bridge(), Hook::Egress);
        self.enter_pair(side);
    }

    fn leave_pair(&mut self, side: &Side<'_>) {
        let (Some(pod), Some(attachment)) = (side.pod, side.attachment) else { return };
        self.push(pod, side.stray.or(attachment.pod), Hook::Egress);
        self.push(side.node, attachment.veth, Hook::Ingress);
    }

    fn enter_pair(&mut self, side: &Side<'_>) {
        let (Some(pod), Some(attachment)) = (side.pod, side.attachment) else { return };
        self.push(side.node, attachment.veth, Hook::Egress);
        self.push(pod, attachment.pod, Hook::Ingress);
    }
}

/// A device that carries the flow from one node to the other, and the route that chose it.
#[derive(Clone, Copy)]
struct Carrier<'a> {
    device: &'a Link,
    /// `None`: chosen from what the interfaces are for.
    hit: Option<&'a RouteHit>,
}

pub(super) struct Planner<'a> {
    pub(super) facts: &'a PathFacts,
    pub(super) topology: &'a Topology,
    family: Family,
}

/// Whether bridged packets pass netfilter on a node (br_netfilter).
fn filters_bridged(node: &Space, family: Family) -> bool {
    let name = match family {
        Family::V4 => "net.bridge.bridge-nf-call-iptables",
        Family::V6 => "net.bridge.bridge-nf-call-ip6tables",
    };
    node.facts.sysctl_number(name).is_some_and(|n| n != 0)
}

impl<'a> Planner<'a> {
    /// Whether packets of a direction go through another node that translates: answers do only
    /// where it has put itself in the place of the source.
    fn goes_through(&self, via: &Side<'_>, direction: Direction) -> bool {
        let own = |ip| via.node.facts.holder(ip).is_some();
        direction == Direction::Forward
            || self.topology.aliases.iter().any(|a| a.source && own(a.ip))
    }

    fn through(
        &self,
        from: &Side<'a>,
        via: &Side<'a>,
        to: &Side<'a>,
        way: &mut Way<'_>,
        gaps: &mut BTreeSet<String>,
    ) {
        way.leave_pod(from);
        if from.node.facts.inum != via.node.facts.inum {
            self.between_nodes(from, via, way, gaps);
        }
        if via.node.facts.inum != to.node.facts.inum {
            self.between_nodes(via, to, way, gaps);
        }
        way.enter_pod(to);
    }

    fn within_node(&self, from: &Side<'_>, to: &Side<'_>, way: &mut Way<'_>) {
        let same_bridge = match (from.bridge(), to.bridge()) {
            (Some(a), Some(b)) => a.index == b.index,
            _ => false,
        };
        // A pod that sends to a neighbour through its gateway makes the node route.
        let through_gateway = match &to.end.service {
            // The bridge translates, and sends on to the port itself, where it is told to.
            // IPVS takes what is for the node itself.
            Some(service) => {
                to.pod.is_none()
                    || !filters_bridged(from.node, self.family)
                    || ipvs::leads_to(&from.node.facts, service, to.ip).is_some()
            }
            None => from
                .pod
                .and_then(|pod| pod.facts.way_to(to.ip))
                .is_some_and(|(_, hit)| hit.gateway.is_some()),
        };
        if same_bridge && !through_gateway {
            way.leave_pair(from);
            way.enter_pair(to);
        } else {
            way.leave_pod(from);
            way.enter_pod(to);
        }
    }

    pub(super) fn between_nodes(
        &self,
        from: &Side<'a>,
        to: &Side<'a>,
        way: &mut Way<'_>,
        gaps: &mut BTreeSet<String>,
    ) {
        let Some(carrier) = self.carrier(from, to, gaps) else {
            gaps.insert(format!(
                "nothing is known to lead from {} to {}",
                from.end.node, to.end.node
            ));
            return;
        };
        let tunnelled = matches!(self.role(from.node, carrier.device), Role::Vxlan | Role::Tun);
        let (exit, target) = self.exit(from, to, &carrier, gaps);
        let entry = self.entry(from, to, exit, target);
        if tunnelled {
            way.push(from.node, Some(carrier.device), Hook::Egress);
        }
        way.push(from.node, exit, Hook::Egress);
        self.wire(from, to, exit, entry, way);
        way.push(to.node, entry, Hook::Ingress);
        if tunnelled {
            let far = self.counterpart(to.node, carrier.device);
            if far.is_none() {
                gaps.insert(format!(
                    "{} has no tunnel device that answers {}.{}",
                    to.end.node, from.end.node, carrier.device.name
                ));
            }
            way.push(to.node, far, Hook::Ingress);
        }
    }

    pub(super) fn role(&self, space: &Space, link: &Link) -> Role {
        let station = self.topology.find(space.facts.inum, link.index);
        station.map_or(Role::Other, |id| self.topology.station(id).role)
    }

    fn with_role(&self, space: &'a Space, role: Role) -> impl Iterator<Item = &'a Link> {
        space.facts.links.iter().filter(move |l| self.role(space, l) == role)
    }

    /// The tunnel device, or the physical interface where there is no tunnel.
    fn carrier(
        &self,
        from: &Side<'a>,
        to: &Side<'a>,
        gaps: &mut BTreeSet<String>,
    ) -> Option<Carrier<'a>> {
        let there = self.looked_up(from, to);
        if let Some(carrier) = there
            && self.is_sound(from, to, &carrier)
        {
            return Some(carrier);
        }
        // The route is missing or leads astray: the way back, else what the interfaces are for,
        // tells how it was meant.
        let back = self.looked_up(to, from).filter(|c| self.is_sound(to, from, c));
        let mirrored = back.and_then(|c| match self.role(to.node, c.device) {
            Role::Vxlan | Role::Tun => self.counterpart(from.node, c.device),
            _ => self.facing(from, to).map(|(link, _)| link),
        });
        let unsound = there
            .filter(|c| matches!(self.role(from.node, c.device), Role::Physical | Role::Other));
        let meant = mirrored.map(|device| Carrier { device, hit: None });
        let chosen = meant
            .or(unsound)
            .or_else(|| self.by_roles(from, to).map(|device| Carrier { device, hit: None }));
        if let Some(carrier) = chosen
            && carrier.hit.is_none()
        {
            gaps.insert(format!(
                "{} {}; the plan goes through {}, as the interfaces suggest",
                from.end.node,
                self.why_not(from, to, there),
                carrier.device.name
            ));
        }
        chosen
    }

    fn looked_up(&self, from: &Side<'a>, to: &Side<'a>) -> Option<Carrier<'a>> {
        let (device, hit) = from.node.facts.way_to(to.ip)?;
        Some(Carrier { device, hit: Some(hit) })
    }

    /// Whether a route leads to the other node: into a tunnel, or to an address of that node.
    fn is_sound(&self, from: &Side<'a>, to: &Side<'a>, carrier: &Carrier<'a>) -> bool {
        match self.role(from.node, carrier.device) {
            Role::Vxlan | Role::Tun => true,
            Role::Physical => carrier.hit.is_some_and(|hit| {
                let next_hop = hit.gateway.unwrap_or(to.ip);
                to.node.facts.holder(next_hop).is_some()
            }),
            _ => false,
        }
    }

    fn why_not(&self, from: &Side<'a>, to: &Side<'a>, there: Option<Carrier<'a>>) -> String {
        if let Some(carrier) = there {
            let via = carrier.hit.and_then(|h| h.gateway).map(|g| format!(" via {g}"));
            let via = via.unwrap_or_default();
            return format!("routes {} to {}{via}", to.ip, carrier.device.name);
        }
        let refusal = from.node.facts.answers_to(to.ip).find_map(|a| match &a.outcome {
            RouteOutcome::Failed { message, .. } => Some(message.as_str()),
            RouteOutcome::Found(_) => None,
        });
        format!("does not route {} ({})", to.ip, refusal.unwrap_or("no route forwards it"))
    }

    /// Without a route to go by: the tunnel device that fits best, else what faces the other node.
    fn by_roles(&self, from: &Side<'a>, to: &Side<'a>) -> Option<&'a Link> {
        let fit = |link: &&Link| {
            let same_network =
                self.with_role(to.node, Role::Vxlan).any(|far| vni(far) == vni(link));
            (self.carries(from.node, link), same_network, self.underlay_fits(link))
        };
        self.with_role(from.node, Role::Vxlan)
            .filter(|link| self.may_carry(from.node, link))
            .max_by_key(fit)
            .or_else(|| self.with_role(from.node, Role::Tun).next())
            .or_else(|| self.facing(from, to).map(|(link, _)| link))
    }

    /// The tunnel device that takes out what `other` on another node wraps.
    fn counterpart(&self, node: &'a Space, other: &Link) -> Option<&'a Link> {
        let Some(wanted) = &other.vxlan else { return self.with_role(node, Role::Tun).next() };
        self.with_role(node, Role::Vxlan)
            .filter(|link| self.may_carry(node, link))
            .filter_map(|link| Some((link, link.vxlan.as_ref()?)))
            // What listens on IPv6 does not hear IPv4.
            .filter(|(_, own)| match (own.local, wanted.local) {
                (Some(near), Some(far)) => near.is_ipv4() == far.is_ipv4(),
                _ => true,
            })
            // Without regard to port and VNI where only one device is left: they may be what is
            // wrong.
            .max_by_key(|(link, own)| {
                (own.vni == wanted.vni, self.carries(node, link), own.port == wanted.port)
            })
            .map(|(link, _)| link)
    }

    /// The device has an address of the flow's family, so it is the one for that family.
    fn carries(&self, node: &Space, link: &Link) -> bool {
        families(node, link).any(|family| family == self.family)
    }

    /// The device is not the one for the other family.
    fn may_carry(&self, node: &Space, link: &Link) -> bool {
        self.carries(node, link) || families(node, link).next().is_none()
    }

    fn underlay_fits(&self, link: &Link) -> bool {
        let local = link.vxlan.as_ref().and_then(|v| v.local);
        local.is_some_and(|ip| Family::of(&ip) == self.family)
    }

    /// The interface by which the packet leaves the node, and the address it is sent to there.
    fn exit(
        &self,
        from: &Side<'a>,
        to: &Side<'a>,
        carrier: &Carrier<'a>,
        gaps: &mut BTreeSet<String>,
    ) -> (Option<&'a Link>, Option<IpAddr>) {
        let facts = &from.node.facts;
        let device = carrier.device;
        match self.role(from.node, device) {
            Role::Vxlan => {}
            Role::Tun => return split(self.facing(from, to)),
            _ => return (Some(device), carrier.hit.map(|h| h.gateway.unwrap_or(to.ip))),
        }
        let next_hop = carrier.hit.map(|h| h.gateway.unwrap_or(to.ip));
        let query = next_hop.and_then(|hop| facts.tunnel_query(device, hop));
        let outer = query.map(|q| q.dst);
        let routed = query
            .and_then(|q| facts.answer(&q)?.hit()?.oif)
            .and_then(|oif| facts.link(oif))
            .filter(|link| self.role(from.node, link) == Role::Physical);
        if routed.is_some() {
            return (routed, outer);
        }
        if let (Some(hop), None) = (next_hop, outer) {
            gaps.insert(format!(
                "{}.{} has no tunnel endpoint for {hop} (neighbour or forwarding entry missing)",
                from.end.node, device.name
            ));
        } else if let Some(outer) = outer {
            gaps.insert(format!("{} has no way out for tunnel packets to {outer}", from.end.node));
        }
        let vxlan = device.vxlan.as_ref();
        let lower = vxlan.and_then(|v| facts.link(v.lower_ifindex?));
        let holder = || vxlan.and_then(|v| facts.holder(v.local?));
        let (facing, address) = split(self.facing(from, to));
        let far = self.counterpart(to.node, device).and_then(|l| l.vxlan.as_ref()?.local);
        (lower.or_else(holder).or(facing), outer.or(far).or(address))
    }

    /// The physical interface by which a node reaches the other's addresses, and which of them.
    fn facing(&self, from: &Side<'a>, to: &Side<'a>) -> Option<(&'a Link, Option<IpAddr>)> {
        let ways = underlay(self.facts, to.node).filter_map(|ip| {
            let (link, hit) = from.node.facts.way_to(ip)?;
            (self.role(from.node, link) == Role::Physical).then_some((link, hit, ip))
        });
        // A neighbour on the link before something behind the default gateway.
        let best = ways.min_by_key(|(_, hit, _)| hit.gateway.is_some());
        if let Some((link, _, ip)) = best {
            return Some((link, Some(ip)));
        }
        let mut all = self.with_role(from.node, Role::Physical);
        let only = all.next()?;
        all.next().is_none().then_some((only, None))
    }

    /// The interface by which the packet comes into the other node.
    fn entry(
        &self,
        from: &Side<'a>,
        to: &Side<'a>,
        exit: Option<&Link>,
        target: Option<IpAddr>,
    ) -> Option<&'a Link> {
        let physical = |link: &&Link| self.role(to.node, link) == Role::Physical;
        let across = exit.and_then(|exit| from.node.facts.peer(exit)).and_then(|(inum, index)| {
            self.with_role(to.node, Role::Physical).find(|link| {
                (inum, index) == (to.node.facts.inum, link.index)
                    || to.node.facts.peer(link).is_some_and(|(far, _)| far == inum)
            })
        });
        target
            .and_then(|ip| to.node.facts.holder(ip))
            .filter(physical)
            .or(across)
            .or_else(|| self.facing(to, from).map(|(link, _)| link))
    }

    /// The ports of what stands between the nodes, where it can be seen.
    pub(super) fn wire(
        &self,
        from: &Side<'a>,
        to: &Side<'a>,
        exit: Option<&Link>,
        entry: Option<&Link>,
        way: &mut Way<'_>,
    ) {
        for (side, link, hook) in [(from, exit, Hook::Ingress), (to, entry, Hook::Egress)] {
            let Some((inum, index)) = link.and_then(|l| side.node.facts.peer(l)) else { continue };
            let Some(space) = self.facts.space(inum) else { continue };
            let port = space.facts.link(index);
            way.push(space, port.filter(|p| self.role(space, p) == Role::Wire), hook);
        }
    }
}

/// Of the addresses of a device that are more than link-local.
fn families(node: &Space, link: &Link) -> impl Iterator<Item = Family> {
    let addresses = node.facts.addresses_of(link.index).map(|net| net.addr());
    addresses.filter(|ip| !is_link_local(*ip)).map(|ip| Family::of(&ip))
}

fn vni(link: &Link) -> Option<u32> {
    link.vxlan.as_ref().map(|v| v.vni)
}

fn split(way: Option<(&Link, Option<IpAddr>)>) -> (Option<&Link>, Option<IpAddr>) {
    way.map_or((None, None), |(link, ip)| (Some(link), ip))
}
