//! Parameters → names and addresses of everything in the lab. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::config::{DEFAULT_NAME, LabConfig, NODE_PREFIX_V4, NODE_PREFIX_V6};
use super::services::{self, ServicePlan};

/// The switch's name: as a node in the inventory, and as a target of `lab exec`.
pub const WIRE: &str = "wire";
/// The outside host's name, as a target of `lab exec`. It is in no inventory.
pub const OUTSIDE: &str = "outside";
/// Switch port of the gateway to the outside.
const OUTSIDE_SWITCH_PORT: &str = "u0";
/// IPv4 address of the outside host, reserved for documentation (RFC 5737).
pub const OUTSIDE_V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 80);
/// IPv6 address of the outside host, reserved for documentation (RFC 3849).
pub const OUTSIDE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 0x80);
/// Host part of the gateway's address on the wire.
const GATEWAY: u32 = 1;
/// Bridge inside the switch.
pub const SWITCH_BRIDGE: &str = "sw0";
/// A pod's interface, as every CNI plugin is told to call it.
pub const POD_INTERFACE: &str = "eth0";

/// Nodes with the pods on them and the switch port they are plugged into.
const NODES: [(&str, [&str; 2], &str); 2] = [("A", ["a", "a2"], "u1"), ("B", ["b", "b2"], "u2")];

/// Host part of the first node's address on the wire; read as decimal in IPv4 (.11, .12) and as
/// hexadecimal in IPv6 (::11, ::12), so that both look the same.
const FIRST_NODE_V4: u32 = 11;
const FIRST_NODE_V6: u128 = 0x11;

/// Everything in a lab.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// A and B.
    pub nodes: Vec<NodePlan>,
    /// The switch's namespace.
    pub wire_netns: String,
    /// Pod networks of the whole cluster, IPv4 first.
    pub cluster: Vec<IpNet>,
    /// ClusterIPs of service `web`, in the order of `cluster`.
    pub service: Vec<IpAddr>,
    /// Every service, `web` first.
    pub services: Vec<ServicePlan>,
    /// Network of all ClusterIPs, in the order of `cluster`.
    pub service_nets: Vec<IpNet>,
    /// What is beyond the wire.
    pub outside: OutsidePlan,
}

/// The gateway of the wire and the host behind it, which are one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutsidePlan {
    /// Its namespace.
    pub netns: String,
    /// Switch port it is plugged into.
    pub port: String,
    /// Addresses on the wire, in the order of [`Plan::cluster`]: the nodes' default gateways.
    pub gateways: Vec<IpNet>,
    /// Addresses beyond, in the same order.
    pub addresses: Vec<IpAddr>,
}

/// A node. The lists hold one entry per IP version, in the order of [`Plan::cluster`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodePlan {
    /// `A`.
    pub name: String,
    /// Its namespace.
    pub netns: String,
    /// Pod networks of this node.
    pub subnets: Vec<IpNet>,
    /// Addresses on the wire.
    pub wire: Vec<IpNet>,
    /// Switch port it is plugged into.
    pub port: String,
    /// Pods on it.
    pub pods: Vec<PodPlan>,
}

/// A pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodPlan {
    /// `a`.
    pub name: String,
    /// Its namespace.
    pub netns: String,
    /// Its addresses, in the order of [`Plan::cluster`].
    pub addresses: Vec<IpNet>,
}

impl Plan {
    /// The lab that `config` describes.
    pub fn new(config: &LabConfig) -> Self {
        let mut cluster = vec![IpNet::V4(config.pod_cidr)];
        let mut service = vec![IpAddr::V4(config.service_ip)];
        if config.ipv6 {
            cluster.push(IpNet::V6(config.pod_cidr_v6));
            service.push(IpAddr::V6(config.service_ip_v6));
        }
        let nodes: Vec<NodePlan> = (0u32..)
            .zip(NODES)
            .map(|(i, (name, pods, port))| {
                let mut subnets = vec![subnet_v4(config.pod_cidr, i)];
                let mut wire = vec![IpNet::V4(host_v4(config.wire_cidr, FIRST_NODE_V4 + i))];
                if config.ipv6 {
                    subnets.push(subnet_v6(config.pod_cidr_v6, i));
                    let host = FIRST_NODE_V6 + u128::from(i);
                    wire.push(IpNet::V6(host_v6(config.wire_cidr_v6, host)));
                }
                let pods = (2u32..)
                    .zip(pods)
                    .map(|(host, pod)| PodPlan {
                        name: pod.to_owned(),
                        netns: netns_name(&config.name, &format!("{name}-{pod}")),
                        addresses: subnets.iter().map(|net| host_of(*net, host)).collect(),
                    })
                    .collect();
                NodePlan {
                    name: name.to_owned(),
                    netns: netns_name(&config.name, name),
                    subnets,
                    wire,
                    port: port.to_owned(),
                    pods,
                }
            })
            .collect();
        let mut service_nets = vec![IpNet::V4(services::service_net_v4(config))];
        let mut outside = OutsidePlan {
            netns: netns_name(&config.name, OUTSIDE),
            port: OUTSIDE_SWITCH_PORT.to_owned(),
            gateways: vec![IpNet::V4(host_v4(config.wire_cidr, GATEWAY))],
            addresses: vec![IpAddr::V4(OUTSIDE_V4)],
        };
        if config.ipv6 {
            service_nets.push(IpNet::V6(services::service_net_v6(config)));
            outside.gateways.push(IpNet::V6(host_v6(config.wire_cidr_v6, u128::from(GATEWAY))));
            outside.addresses.push(IpAddr::V6(OUTSIDE_V6));
        }
        let services = services::services(config, &nodes);
        Self {
            nodes,
            wire_netns: netns_name(&config.name, WIRE),
            cluster,
            service,
            services,
            service_nets,
            outside,
        }
    }

    /// Names of all namespaces: nodes, pods, wire, outside.
    pub fn namespaces(&self) -> Vec<&str> {
        let mut names = Vec::new();
        for node in &self.nodes {
            names.push(node.netns.as_str());
            names.extend(node.pods.iter().map(|pod| pod.netns.as_str()));
        }
        names.push(&self.wire_netns);
        names.push(&self.outside.netns);
        names
    }

    /// Namespace of a target: `A`, `A.a`, `wire`.
    pub fn target(&self, target: &str) -> Option<&str> {
        self.targets().into_iter().find(|(name, _)| name == target).map(|(_, netns)| netns)
    }

    /// Everything that [`Plan::target`] knows, with its namespace.
    pub fn targets(&self) -> Vec<(String, &str)> {
        let mut all = Vec::new();
        for node in &self.nodes {
            all.push((node.name.clone(), node.netns.as_str()));
            for pod in &node.pods {
                all.push((format!("{}.{}", node.name, pod.name), pod.netns.as_str()));
            }
        }
        all.push((WIRE.to_owned(), &self.wire_netns));
        all.push((OUTSIDE.to_owned(), &self.outside.netns));
        all
    }

    /// Endpoint addresses of service `web`: pod b, in the order of [`Plan::cluster`].
    pub fn endpoints(&self) -> Vec<IpAddr> {
        let pod = self.nodes.last().and_then(|node| node.pods.first());
        pod.map(|pod| pod.addresses.iter().map(IpNet::addr).collect()).unwrap_or_default()
    }

    /// The other node.
    pub fn peer(&self, node: &NodePlan) -> Option<&NodePlan> {
        self.nodes.iter().find(|other| other.name != node.name)
    }
}

impl NodePlan {
    /// The bridge's addresses: the first of each pod network.
    pub fn gateways(&self) -> Vec<IpNet> {
        self.subnets.iter().map(|net| host_of(*net, 1)).collect()
    }
}

/// Name of a namespace of a lab under `/run/netns`.
pub fn netns_name(lab: &str, part: &str) -> String {
    if lab == DEFAULT_NAME { format!("podtrace-{part}") } else { format!("podtrace-{lab}-{part}") }
}

fn subnet_v4(cluster: Ipv4Net, index: u32) -> IpNet {
    let first = u32::from(cluster.network()) | (index << (32 - u32::from(NODE_PREFIX_V4)));
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::from(first), NODE_PREFIX_V4))
}

fn subnet_v6(cluster: Ipv6Net, index: u32) -> IpNet {
    let shift = 128 - u32::from(NODE_PREFIX_V6);
    let first = u128::from(cluster.network()) | (u128::from(index) << shift);
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::from(first), NODE_PREFIX_V6))
}

fn host_v4(net: Ipv4Net, host: u32) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::from(u32::from(net.network()) | host), net.prefix_len())
}

fn host_v6(net: Ipv6Net, host: u128) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::from(u128::from(net.network()) | host), net.prefix_len())
}

fn host_of(net: IpNet, host: u32) -> IpNet {
    match net {
        IpNet::V4(net) => IpNet::V4(host_v4(net, host)),
        IpNet::V6(net) => IpNet::V6(host_v6(net, u128::from(host))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(nets: &[IpNet]) -> Vec<String> {
        nets.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn addresses_of_the_default_lab() {
        let plan = Plan::new(&LabConfig::default());
        let [a, b] = plan.nodes.as_slice() else { panic!("two nodes") };
        assert_eq!(text(&a.subnets), ["10.10.0.0/24", "fd00:10:10::/64"]);
        assert_eq!(text(&b.subnets), ["10.10.1.0/24", "fd00:10:10:1::/64"]);
        assert_eq!(text(&a.gateways()), ["10.10.0.1/24", "fd00:10:10::1/64"]);
        assert_eq!(text(&a.wire), ["192.168.10.11/24", "fd00:10:168::11/64"]);
        assert_eq!(text(&b.wire), ["192.168.10.12/24", "fd00:10:168::12/64"]);
        assert_eq!(text(&a.pods[0].addresses), ["10.10.0.2/24", "fd00:10:10::2/64"]);
        assert_eq!(text(&a.pods[1].addresses), ["10.10.0.3/24", "fd00:10:10::3/64"]);
        assert_eq!(text(&b.pods[0].addresses), ["10.10.1.2/24", "fd00:10:10:1::2/64"]);
        assert_eq!(text(&plan.outside.gateways), ["192.168.10.1/24", "fd00:10:168::1/64"]);
        assert_eq!(text(&plan.service_nets), ["10.96.0.0/24", "fd00:10:96::/112"]);
        assert_eq!(
            plan.endpoints(),
            ["10.10.1.2", "fd00:10:10:1::2"].map(|ip| ip.parse::<IpAddr>().expect("address"))
        );
    }

    #[test]
    fn names_of_namespaces() {
        let plan = Plan::new(&LabConfig::default());
        assert_eq!(
            plan.namespaces(),
            [
                "podtrace-A",
                "podtrace-A-a",
                "podtrace-A-a2",
                "podtrace-B",
                "podtrace-B-b",
                "podtrace-B-b2",
                "podtrace-wire",
                "podtrace-outside"
            ]
        );
        let named = Plan::new(&LabConfig { name: "t1".to_owned(), ..LabConfig::default() });
        assert_eq!(named.namespaces()[1], "podtrace-t1-A-a");
        assert_eq!(named.target("A.a2"), Some("podtrace-t1-A-a2"));
        assert_eq!(named.target("B"), Some("podtrace-t1-B"));
        assert_eq!(named.target("wire"), Some("podtrace-t1-wire"));
        assert_eq!(named.target("outside"), Some("podtrace-t1-outside"));
        assert_eq!(named.target("C"), None);
    }

    #[test]
    fn without_ipv6_there_is_none() {
        let plan = Plan::new(&LabConfig { ipv6: false, ..LabConfig::default() });
        let every = plan.nodes.iter().flat_map(|n| {
            n.subnets.iter().chain(&n.wire).chain(n.pods.iter().flat_map(|p| &p.addresses))
        });
        assert!(every.chain(&plan.outside.gateways).all(|net| matches!(net, IpNet::V4(_))));
        assert!(plan.services.iter().flat_map(|s| &s.ips).all(IpAddr::is_ipv4));
        assert_eq!(plan.endpoints().len(), 1);
    }
}
