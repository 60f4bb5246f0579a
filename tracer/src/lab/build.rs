//! Programs the kernel: what flanneld, the bridge CNI plugin and kube-proxy would do on each node,
//! in the order in which they would do it.

use std::net::IpAddr;
use std::os::fd::AsRawFd;

use ipnet::IpNet;
use netlink_packet_route::link::{InfoData, InfoVeth, LinkAttribute, LinkMessage};
use rtnetlink::packet_route::link::InfoKind;
use rtnetlink::{LinkBridge, LinkBridgePort, LinkMessageBuilder, LinkUnspec, LinkVeth, LinkVxlan};

use super::config::{Backend, Firewall, KubeProxy, LabConfig};
use super::error::{Context, Result};
use super::firewall::{self, Restore};
use super::identity::Identity;
use super::plan::{NodePlan, POD_INTERFACE, Plan, PodPlan, SWITCH_BRIDGE};
use super::space::{Space, random_mac, random_veth_name};
use super::{kube_proxy, namespace, reset, sysctl};
use crate::model::Mac;
use crate::netns::Netns;

/// A node's VXLAN device for one IP version.
pub(super) struct Vtep {
    index: u32,
    mac: Mac,
}

/// A node being built.
pub(super) struct Node<'p> {
    pub(super) plan: &'p NodePlan,
    pub(super) space: Space,
    /// ifindex of the physical interface.
    pub(super) physical: u32,
    /// Per IP version; empty without VXLAN.
    pub(super) vteps: Vec<Vtep>,
}

/// Builds everything in `plan`; whoever calls removes what is there after a failure. Namespaces that
/// are there are emptied first. The calling thread changes its namespace meanwhile.
pub(super) async fn build(config: &LabConfig, plan: &Plan, identity: &Identity) -> Result<()> {
    let wire = new_switch(plan).await?;
    new_outside(config, plan, &wire, identity).await?;
    let mut nodes = Vec::new();
    for node in &plan.nodes {
        nodes.push(new_node(config, node, &wire, identity).await?);
    }
    for (node, other) in nodes.iter().zip(nodes.iter().rev()) {
        let macs: Vec<Mac> = other.vteps.iter().map(|vtep| vtep.mac).collect();
        join(config, node, other.plan, &macs).await?;
        for gateway in &plan.outside.gateways {
            let gateway = gateway.addr();
            node.space.add_route(everything(gateway), gateway, node.physical, false).await?;
        }
    }
    // Before the pods, as on a node that boots; and loading runs while pods are made.
    let rules = load_rules(config, plan, &nodes)?;
    for node in &nodes {
        new_pods(config, plan, node, identity).await?;
    }
    rules.into_iter().try_for_each(Restore::finish)
}

/// A node's bridge and the pods on it.
pub(super) async fn new_pods(
    config: &LabConfig,
    plan: &Plan,
    node: &Node<'_>,
    identity: &Identity,
) -> Result<()> {
    let bridge = new_bridge(config, node, identity).await?;
    for pod in &node.plan.pods {
        new_pod(config, plan, node, bridge, pod, identity).await?;
    }
    Ok(())
}

/// Makes a namespace in which only `lo` exists, up; or makes one that is there so again.
async fn new_space(name: &str, prepare: impl FnOnce() -> Result<()>) -> Result<Space> {
    let space = if namespace::exists(name) {
        let netns = Netns::open(name).context(|| format!("open namespace {name}"))?;
        let space = Space::open(netns)?;
        reset::empty(&space, prepare).await?;
        space
    } else {
        let (netns, ()) = namespace::create(name, prepare)?;
        Space::open(netns)?
    };
    let up = LinkUnspec::new_with_name("lo").up().build();
    space.change_link("bring lo up", up).await?;
    Ok(space)
}

/// The wire: a bridge that only switches. No IPv6 of its own, and nothing of it passes netfilter.
async fn new_switch(plan: &Plan) -> Result<Space> {
    let space = new_space(&plan.wire_netns, || {
        sysctl::prepare_ipv6(false)?;
        sysctl::bridge_netfilter(false)
    })
    .await?;
    space.add_link(SWITCH_BRIDGE, LinkBridge::new(SWITCH_BRIDGE).up().build()).await?;
    Ok(space)
}

/// The nodes' default gateway, and the host behind it, plugged into the switch. It knows no pods: what
/// reaches it with a pod's address finds no way back.
async fn new_outside(
    config: &LabConfig,
    plan: &Plan,
    wire: &Space,
    identity: &Identity,
) -> Result<()> {
    let outside = &plan.outside;
    let space = new_space(&outside.netns, || {
        sysctl::prepare_ipv6(config.ipv6)?;
        sysctl::prepare_router(config.ipv6)
    })
    .await?;
    let index = plug(config, &space, POD_INTERFACE, wire, &outside.port, identity).await?;
    for gateway in &outside.gateways {
        space.add_address(index, *gateway).await?;
    }
    let loopback = space.index("lo").await?;
    for address in &outside.addresses {
        space.add_address(loopback, IpNet::from(*address)).await?;
    }
    Ok(())
}

/// A cable from `name` in `space` to `port` of the switch; returns the index of `name`.
async fn plug(
    config: &LabConfig,
    space: &Space,
    name: &str,
    wire: &Space,
    port: &str,
    identity: &Identity,
) -> Result<u32> {
    let cable = Veth {
        name,
        peer: port,
        mtu: config.wire_mtu,
        peer_space: wire,
        mac: identity.mac(space.netns().name(), name),
        peer_mac: identity.mac(wire.netns().name(), port),
    };
    let index = space.add_link(name, cable.message()).await?;
    let peer = wire.index(port).await?;
    let switch = wire.index(SWITCH_BRIDGE).await?;
    let plug = LinkUnspec::new_with_index(peer).controller(switch).up().build();
    wire.change_link(&format!("plug {port} into {SWITCH_BRIDGE}"), plug).await?;
    Ok(index)
}

/// A node with its physical interface plugged into the switch, and flannel's devices.
async fn new_node<'p>(
    config: &LabConfig,
    plan: &'p NodePlan,
    wire: &Space,
    identity: &Identity,
) -> Result<Node<'p>> {
    let space = new_space(&plan.netns, || {
        sysctl::prepare_ipv6(config.ipv6)?;
        sysctl::prepare_node(config.ipv6)
    })
    .await?;
    let physical = plug(config, &space, &config.physical_name, wire, &plan.port, identity).await?;
    for address in &plan.wire {
        space.add_address(physical, *address).await?;
    }
    let vteps = new_vteps(config, &space, physical, plan, identity).await?;
    Ok(Node { plan, space, physical, vteps })
}

/// flannel's devices for each IP version; none without VXLAN.
pub(super) async fn new_vteps(
    config: &LabConfig,
    space: &Space,
    physical: u32,
    plan: &NodePlan,
    identity: &Identity,
) -> Result<Vec<Vtep>> {
    let mut vteps = Vec::new();
    if config.backend == Backend::Vxlan {
        for (subnet, local) in plan.subnets.iter().zip(&plan.wire) {
            vteps.push(new_vtep(config, space, physical, *subnet, local.addr(), identity).await?);
        }
    }
    Ok(vteps)
}

/// flannel's `newVXLANDevice` and `Configure` (pkg/backend/vxlan/device.go): the subnet's first
/// address as a host address, so that no broadcast route appears.
async fn new_vtep(
    config: &LabConfig,
    space: &Space,
    lower: u32,
    subnet: IpNet,
    local: IpAddr,
    identity: &Identity,
) -> Result<Vtep> {
    let (name, mtu) = match subnet {
        IpNet::V4(_) => (config.vxlan_name.clone(), config.pod_mtu()),
        IpNet::V6(_) => (config.vxlan_name_v6(), config.vxlan_mtu_v6()),
    };
    let mac = identity.mac(space.netns().name(), &name).map_or_else(random_mac, Ok)?;
    let link = LinkVxlan::new(&name, config.vni)
        .dev(lower)
        .port(config.vxlan_port)
        .learning(false)
        .address(mac.0.to_vec())
        .mtu(mtu);
    let link = match local {
        IpAddr::V4(local) => link.local(local),
        IpAddr::V6(local) => link.local6(local),
    };
    let index = space.add_link(&name, link.build()).await?;
    space.inside(|| {
        if sysctl::has_ipv6() {
            sysctl::set(&format!("ipv6/conf/{name}/accept_ra"), "0")?;
        }
        Ok(())
    })?;
    space.add_address(index, IpNet::from(subnet.network())).await?;
    let up = LinkUnspec::new_with_index(index).up().build();
    space.change_link(&format!("bring {name} up"), up).await?;
    Ok(Vtep { index, mac })
}

/// What flanneld does when it learns of another node: neighbour, forwarding entry, and the route
/// last, because the kernel would resolve its gateway if it could (`handleSubnetEvents`); or only a
/// route with host-gw. `macs` are those of the other's VXLAN devices.
pub(super) async fn join(
    config: &LabConfig,
    node: &Node<'_>,
    other: &NodePlan,
    macs: &[Mac],
) -> Result<()> {
    for (i, (subnet, public)) in other.subnets.iter().zip(&other.wire).enumerate() {
        match config.backend {
            Backend::HostGw => {
                node.space.add_route(*subnet, public.addr(), node.physical, false).await?;
            }
            Backend::Vxlan => {
                let (Some(here), Some(there)) = (node.vteps.get(i), macs.get(i)) else { continue };
                let gateway = subnet.network();
                node.space.add_neighbor(here.index, gateway, *there).await?;
                node.space.add_fdb(here.index, *there, public.addr()).await?;
                node.space.add_route(*subnet, gateway, here.index, true).await?;
            }
        }
    }
    Ok(())
}

pub(super) fn load_rules(
    config: &LabConfig,
    plan: &Plan,
    nodes: &[Node<'_>],
) -> Result<Vec<Restore>> {
    let mut loading = Vec::new();
    if config.firewall == Firewall::None {
        return Ok(loading);
    }
    for node in nodes {
        for index in 0..plan.cluster.len() {
            if config.kube_proxy == KubeProxy::Nftables
                && let Some(rules) = kube_proxy::ruleset(plan, node.plan, index)
            {
                let start = || Restore::start_nft(&node.plan.netns, &rules);
                loading.push(node.space.inside(start)?);
            }
            if let Some(rules) = firewall::rules(config, plan, node.plan, index) {
                let ipv6 = matches!(plan.cluster.get(index), Some(IpNet::V6(_)));
                loading.push(
                    node.space.inside(|| {
                        Restore::start(config.firewall, ipv6, &node.plan.netns, &rules)
                    })?,
                );
            }
        }
    }
    Ok(loading)
}

/// The bridge plugin's `ensureBridge` and `ensureAddr`. Not promiscuous: flannel's CNI
/// configuration asks for hairpin ports, and the plugin refuses both together.
async fn new_bridge(config: &LabConfig, node: &Node<'_>, identity: &Identity) -> Result<u32> {
    let name = &config.bridge_name;
    // An address of its own: otherwise the bridge takes the lowest of its ports', which changes
    // as pods come and go.
    let mac = identity.mac(&node.plan.netns, name).map_or_else(random_mac, Ok)?;
    let link = LinkBridge::new(name).mtu(config.pod_mtu()).address(mac.0.to_vec()).up().build();
    let index = node.space.add_link(name, link).await?;
    for gateway in node.plan.gateways() {
        node.space.add_address(index, gateway).await?;
    }
    Ok(index)
}

/// The bridge plugin's `cmdAdd` with flannel's configuration: `isDefaultGateway`, and the
/// cluster's network among the routes.
async fn new_pod(
    config: &LabConfig,
    plan: &Plan,
    node: &Node<'_>,
    bridge: u32,
    pod: &PodPlan,
    identity: &Identity,
) -> Result<()> {
    let space = new_space(&pod.netns, || sysctl::prepare_ipv6(config.ipv6)).await?;
    let known = identity.veth(&pod.netns).map(str::to_owned);
    let host_name = known.map_or_else(random_veth_name, Ok)?;
    let pair = Veth {
        name: POD_INTERFACE,
        peer: &host_name,
        mtu: config.pod_mtu(),
        peer_space: &node.space,
        mac: identity.mac(&pod.netns, POD_INTERFACE),
        peer_mac: identity.mac(&node.plan.netns, &host_name),
    };
    let index = space.add_link(POD_INTERFACE, pair.message()).await?;
    let host = node.space.index(&host_name).await?;
    let attach = LinkUnspec::new_with_index(host).controller(bridge).up().build();
    node.space.change_link(&format!("attach {host_name} to the bridge"), attach).await?;
    let hairpin = LinkBridgePort::new(host).hairpin(true).build();
    node.space.change_link(&format!("set hairpin mode of {host_name}"), hairpin).await?;
    for address in &pod.addresses {
        space.add_address(index, *address).await?;
    }
    for (gateway, cluster) in node.plan.gateways().iter().zip(&plan.cluster) {
        space.add_route(*cluster, gateway.addr(), index, false).await?;
        space.add_route(everything(gateway.addr()), gateway.addr(), index, false).await?;
    }
    space.inside(|| sysctl::finish_pod(POD_INTERFACE, config.ipv6))
}

/// The default route's destination, in the IP version of `like`.
pub(super) fn everything(like: IpAddr) -> IpNet {
    match like {
        IpAddr::V4(_) => IpNet::V4(ipnet::Ipv4Net::default()),
        IpAddr::V6(_) => IpNet::V6(ipnet::Ipv6Net::default()),
    }
}

/// A veth pair: one end here, up, the other in `peer_space`, still down.
struct Veth<'a> {
    name: &'a str,
    peer: &'a str,
    mtu: u32,
    peer_space: &'a Space,
    /// Hardware addresses; the kernel chooses where there is none.
    mac: Option<Mac>,
    peer_mac: Option<Mac>,
}

impl Veth<'_> {
    fn message(&self) -> LinkMessage {
        let peer = LinkUnspec::new_with_name(self.peer).mtu(self.mtu).append_extra_attribute(
            LinkAttribute::NetNsFd(self.peer_space.netns().file().as_raw_fd()),
        );
        let peer = match self.peer_mac {
            Some(mac) => peer.address(mac.0.to_vec()),
            None => peer,
        };
        let link = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
            .name(self.name)
            .mtu(self.mtu)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer.build())))
            .up();
        match self.mac {
            Some(mac) => link.address(mac.0.to_vec()),
            None => link,
        }
        .build()
    }
}
