//! Is the lab as its plan says? Pure: plan and snapshots → what is wrong.

use std::collections::HashMap;

use ipnet::IpNet;

use super::build::everything;
use super::config::{Backend, LabConfig};
use super::plan::{NodePlan, POD_INTERFACE, Plan, PodPlan, SWITCH_BRIDGE};
use super::snapshot::{Link, Snapshot};

/// Snapshots by name of the namespace; one that is absent has none.
pub(super) type Snapshots = HashMap<String, Snapshot>;

/// Everything that is not as planned, one line each; empty when the lab is healthy.
pub(super) fn defects(config: &LabConfig, plan: &Plan, snapshots: &Snapshots) -> Vec<String> {
    let mut check = Check { snapshots, defects: Vec::new() };
    if let Some(wire) = check.snapshot(&plan.wire_netns) {
        check.link(&plan.wire_netns, wire, SWITCH_BRIDGE, None);
        let switch = wire.link(SWITCH_BRIDGE).map(|link| link.index);
        let ports = plan.nodes.iter().map(|node| &node.port).chain([&plan.outside.port]);
        for name in ports {
            let port = check.link(&plan.wire_netns, wire, name, Some(config.wire_mtu));
            if port.is_some_and(|port| port.master != switch) {
                check.add(&plan.wire_netns, format!("{name} is not plugged in"));
            }
        }
    }
    check.outside(config, plan);
    for node in &plan.nodes {
        let Some(snapshot) = check.snapshot(&node.netns) else { continue };
        check.node(config, plan, node, snapshot);
        for pod in &node.pods {
            if let Some(inside) = check.snapshot(&pod.netns) {
                check.pod(config, plan, node, snapshot, pod, inside);
            }
        }
    }
    check.defects
}

struct Check<'s> {
    snapshots: &'s Snapshots,
    defects: Vec<String>,
}

impl<'s> Check<'s> {
    fn add(&mut self, netns: &str, defect: String) {
        self.defects.push(format!("{netns}: {defect}"));
    }

    fn snapshot(&mut self, netns: &str) -> Option<&'s Snapshot> {
        let snapshot = self.snapshots.get(netns);
        if snapshot.is_none() {
            self.add(netns, "no such namespace".to_owned());
        }
        snapshot
    }

    /// The interface, when it is there; reported when it is not, or not up, or has another MTU.
    fn link(
        &mut self,
        netns: &str,
        snapshot: &'s Snapshot,
        name: &str,
        mtu: Option<u32>,
    ) -> Option<&'s Link> {
        let Some(link) = snapshot.link(name) else {
            self.add(netns, format!("{name} is missing"));
            return None;
        };
        if !link.running {
            self.add(netns, format!("{name} is down"));
        }
        if let Some(mtu) = mtu.filter(|mtu| link.mtu != *mtu) {
            self.add(netns, format!("{name} has MTU {} instead of {mtu}", link.mtu));
        }
        Some(link)
    }

    fn addresses(&mut self, netns: &str, snapshot: &Snapshot, link: &Link, wanted: &[IpNet]) {
        for net in wanted {
            let there = snapshot.addresses_of(link.index).any(|a| a.net == *net && a.usable);
            if !there {
                self.add(netns, format!("{} has no usable address {net}", link.name));
            }
        }
    }

    fn route(&mut self, netns: &str, snapshot: &Snapshot, link: &Link, to: IpNet, via: IpNet) {
        let there = snapshot
            .routes
            .iter()
            .any(|r| r.to == to && r.via == via.addr() && r.index == link.index);
        if !there {
            self.add(netns, format!("no route to {to} via {} dev {}", via.addr(), link.name));
        }
    }

    fn outside(&mut self, config: &LabConfig, plan: &Plan) {
        let outside = &plan.outside;
        let Some(snapshot) = self.snapshot(&outside.netns) else { return };
        let mtu = Some(config.wire_mtu);
        if let Some(link) = self.link(&outside.netns, snapshot, POD_INTERFACE, mtu) {
            self.addresses(&outside.netns, snapshot, link, &outside.gateways);
        }
        if let Some(link) = self.link(&outside.netns, snapshot, "lo", None) {
            let beyond: Vec<IpNet> = outside.addresses.iter().copied().map(IpNet::from).collect();
            self.addresses(&outside.netns, snapshot, link, &beyond);
        }
    }

    fn node(&mut self, config: &LabConfig, plan: &Plan, node: &NodePlan, snapshot: &'s Snapshot) {
        let netns = &node.netns;
        let physical = self.link(netns, snapshot, &config.physical_name, Some(config.wire_mtu));
        if let Some(physical) = physical {
            self.addresses(netns, snapshot, physical, &node.wire);
            for gateway in &plan.outside.gateways {
                self.route(netns, snapshot, physical, everything(gateway.addr()), *gateway);
            }
        }
        if let Some(bridge) =
            self.link(netns, snapshot, &config.bridge_name, Some(config.pod_mtu()))
        {
            self.addresses(netns, snapshot, bridge, &node.gateways());
        }
        let Some(peer) = plan.peer(node) else { return };
        for (i, (subnet, public)) in peer.subnets.iter().zip(&peer.wire).enumerate() {
            match config.backend {
                Backend::HostGw => {
                    if let Some(physical) = physical {
                        self.route(netns, snapshot, physical, *subnet, *public);
                    }
                }
                Backend::Vxlan => {
                    self.vtep(config, node, peer, i, snapshot);
                }
            }
        }
    }

    fn vtep(
        &mut self,
        config: &LabConfig,
        node: &NodePlan,
        peer: &NodePlan,
        version: usize,
        snapshot: &'s Snapshot,
    ) {
        let netns = &node.netns;
        let (Some(own), Some(subnet), Some(public)) =
            (node.subnets.get(version), peer.subnets.get(version), peer.wire.get(version))
        else {
            return;
        };
        let (name, mtu) = match subnet {
            IpNet::V4(_) => (config.vxlan_name.clone(), config.pod_mtu()),
            IpNet::V6(_) => (config.vxlan_name_v6(), config.vxlan_mtu_v6()),
        };
        let Some(link) = self.link(netns, snapshot, &name, Some(mtu)) else { return };
        if link.vxlan != Some((config.vni, config.vxlan_port)) {
            self.add(netns, format!("{name} has another VNI or port"));
        }
        self.addresses(netns, snapshot, link, &[IpNet::from(own.network())]);
        let gateway = IpNet::from(subnet.network());
        self.route(netns, snapshot, link, *subnet, gateway);
        let Some(mac) = self
            .snapshots
            .get(&peer.netns)
            .and_then(|there| there.link(&name))
            .and_then(|there| there.mac)
        else {
            // Reported with the other node.
            return;
        };
        let has = |list: &[super::snapshot::Neighbor], ip| {
            list.iter().any(|n| n.index == link.index && n.mac == mac && n.ip == ip)
        };
        if !has(&snapshot.neighbors, gateway.addr()) {
            self.add(netns, format!("{name} has no neighbour {} at {mac}", gateway.addr()));
        }
        if !has(&snapshot.forwarding, public.addr()) {
            self.add(netns, format!("{name} does not forward {mac} to {}", public.addr()));
        }
    }

    fn pod(
        &mut self,
        config: &LabConfig,
        plan: &Plan,
        node: &NodePlan,
        outside: &Snapshot,
        pod: &PodPlan,
        inside: &'s Snapshot,
    ) {
        let netns = &pod.netns;
        let Some(link) = self.link(netns, inside, POD_INTERFACE, Some(config.pod_mtu())) else {
            return;
        };
        self.addresses(netns, inside, link, &pod.addresses);
        for (gateway, cluster) in node.gateways().into_iter().zip(&plan.cluster) {
            self.route(netns, inside, link, *cluster, gateway);
            self.route(netns, inside, link, everything(gateway.addr()), gateway);
        }
        let bridge = outside.link(&config.bridge_name).map(|link| link.index);
        let port = outside.links.iter().find(|l| Some(l.index) == link.peer);
        let attached = port.is_some_and(|port| {
            port.running && port.hairpin && port.master.is_some() && port.master == bridge
        });
        if !attached {
            self.add(
                &node.netns,
                format!("pod {} has no hairpin port of {}", pod.name, config.bridge_name),
            );
        }
    }
}
