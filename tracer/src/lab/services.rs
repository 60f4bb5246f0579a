//! The lab's services and what serves behind them: parameters → addresses, ports, backends. Pure.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::config::LabConfig;
use super::plan::{NodePlan, Plan};

/// Kubernetes namespace of all of them.
pub(super) const NAMESPACE: &str = "default";
/// TCP and UDP port of the server in each node's own namespace.
pub const HOST_PORT: u16 = 9100;
/// TCP port of the outside host.
pub const OUTSIDE_PORT: u16 = 80;
/// Port of DNS (RFC 1035 section 4.2).
pub const DNS_PORT: u16 = 53;
/// TCP port of the web servers in pods a2, b and b2.
const WEB_PORT: u16 = 8090;
/// Port of the echo service (RFC 862), TCP and UDP.
const ECHO_PORT: u16 = 7;
/// Prefix length of the network of all ClusterIPs, around `--service-ip`.
const SERVICE_PREFIX_V4: u8 = 24;
const SERVICE_PREFIX_V6: u8 = 112;

/// Transport protocol of a service's port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Transport::Tcp => "tcp",
            Transport::Udp => "udp",
        })
    }
}

/// A port of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Its name in the service, as in `default/dns:dns-tcp`.
    pub name: &'static str,
    /// TCP or UDP.
    pub transport: Transport,
    /// At the ClusterIP.
    pub port: u16,
    /// At the backends.
    pub target: u16,
    /// On every node.
    pub node_port: Option<u16>,
}

/// What stands behind a service: a pod, or a node for a pod in the node's own network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceBackend {
    /// `a2`, `A`.
    pub name: String,
    /// In the order of [`Plan::cluster`].
    pub addresses: Vec<IpAddr>,
}

/// A service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePlan {
    /// Its name.
    pub name: &'static str,
    /// ClusterIPs, in the order of [`Plan::cluster`].
    pub ips: Vec<IpAddr>,
    /// Its ports.
    pub ports: Vec<ServicePort>,
    /// What it leads to; nobody when empty.
    pub backends: Vec<ServiceBackend>,
    /// A client's connections all go to the same backend (`sessionAffinity: ClientIP`), for this
    /// long after the last, s.
    pub affinity: Option<u32>,
}

/// A service of every lab.
struct Spec {
    name: &'static str,
    /// Last part of its ClusterIP, read as decimal in IPv4 and as hexadecimal in IPv6.
    host: u8,
    ports: &'static [ServicePort],
    backends: &'static [&'static str],
    affinity: Option<u32>,
}

const fn port(name: &'static str, transport: Transport, port: u16, target: u16) -> ServicePort {
    ServicePort { name, transport, port, target, node_port: None }
}

/// All but the one that the parameters describe.
const SERVICES: [Spec; 6] = [
    Spec {
        name: "dns",
        host: 53,
        ports: &[
            port("dns", Transport::Udp, DNS_PORT, DNS_PORT),
            port("dns-tcp", Transport::Tcp, DNS_PORT, DNS_PORT),
        ],
        backends: &["a2", "b2"],
        affinity: None,
    },
    Spec {
        name: "shop",
        host: 20,
        ports: &[ServicePort {
            node_port: Some(30090),
            ..port("http", Transport::Tcp, 80, WEB_PORT)
        }],
        backends: &["a2", "b", "b2"],
        affinity: None,
    },
    Spec {
        name: "echo",
        host: 30,
        ports: &[
            port("echo", Transport::Udp, ECHO_PORT, ECHO_PORT),
            port("echo-tcp", Transport::Tcp, ECHO_PORT, ECHO_PORT),
        ],
        backends: &["b2"],
        affinity: None,
    },
    Spec {
        name: "cart",
        host: 40,
        ports: &[port("http", Transport::Tcp, 80, WEB_PORT)],
        backends: &["a2", "b2"],
        // The API server's default.
        affinity: Some(10800),
    },
    Spec {
        name: "agent",
        host: 60,
        ports: &[port("metrics", Transport::Tcp, HOST_PORT, HOST_PORT)],
        backends: &["A", "B"],
        affinity: None,
    },
    Spec {
        name: "empty",
        host: 70,
        ports: &[port("http", Transport::Tcp, 80, WEB_PORT)],
        backends: &[],
        affinity: None,
    },
];

impl ServicePlan {
    /// `default/dns:dns-tcp`, as kube-proxy writes a service's port into comments.
    pub fn port_name(&self, port: &ServicePort) -> String {
        format!("{NAMESPACE}/{}:{}", self.name, port.name)
    }
}

/// Every service of the lab, that of the parameters first.
pub(super) fn services(config: &LabConfig, nodes: &[NodePlan]) -> Vec<ServicePlan> {
    let mut web_ips = vec![IpAddr::V4(config.service_ip)];
    if config.ipv6 {
        web_ips.push(IpAddr::V6(config.service_ip_v6));
    }
    let web = ServicePlan {
        name: "web",
        ips: web_ips,
        ports: vec![port("http", Transport::Tcp, config.service_port, config.target_port)],
        backends: backends(nodes, &["b"]),
        affinity: None,
    };
    let others = SERVICES.iter().map(|spec| ServicePlan {
        name: spec.name,
        ips: cluster_ips(config, spec.host),
        ports: spec.ports.to_vec(),
        backends: backends(nodes, spec.backends),
        affinity: spec.affinity,
    });
    std::iter::once(web).chain(others).collect()
}

fn backends(nodes: &[NodePlan], names: &[&str]) -> Vec<ServiceBackend> {
    let addresses = |name: &str| -> Vec<&[IpNet]> {
        let node = nodes.iter().filter(|n| n.name == name).map(|n| n.wire.as_slice());
        let pods = nodes.iter().flat_map(|n| &n.pods).filter(|p| p.name == name);
        node.chain(pods.map(|p| p.addresses.as_slice())).collect()
    };
    names
        .iter()
        .map(|name| ServiceBackend {
            name: (*name).to_owned(),
            addresses: addresses(name).into_iter().flatten().map(IpNet::addr).collect(),
        })
        .collect()
}

fn cluster_ips(config: &LabConfig, host: u8) -> Vec<IpAddr> {
    let four = u32::from(service_net_v4(config).network()) | u32::from(host);
    let mut ips = vec![IpAddr::V4(Ipv4Addr::from(four))];
    if config.ipv6 {
        let six = u128::from(service_net_v6(config).network()) | host_v6(host);
        ips.push(IpAddr::V6(Ipv6Addr::from(six)));
    }
    ips
}

/// The decimal digits of `host` read as hexadecimal ones: 53 → 0x53.
fn host_v6(host: u8) -> u128 {
    let (hundreds, tens, ones) = (host / 100, host / 10 % 10, host % 10);
    (u128::from(hundreds) << 8) | (u128::from(tens) << 4) | u128::from(ones)
}

/// IPv4 network of all ClusterIPs.
pub(super) fn service_net_v4(config: &LabConfig) -> Ipv4Net {
    Ipv4Net::new_assert(config.service_ip, SERVICE_PREFIX_V4).trunc()
}

/// IPv6 network of all ClusterIPs.
pub(super) fn service_net_v6(config: &LabConfig) -> Ipv6Net {
    Ipv6Net::new_assert(config.service_ip_v6, SERVICE_PREFIX_V6).trunc()
}

/// The service, other than the parameters' own, that has this ClusterIP.
pub(super) fn holder(config: &LabConfig, ip: IpAddr) -> Option<&'static str> {
    let has = |spec: &&Spec| cluster_ips(config, spec.host).contains(&ip);
    SERVICES.iter().find(has).map(|spec| spec.name)
}

/// What a server of the lab speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speaks {
    /// Sends back what it gets, over TCP.
    Tcp,
    /// Sends back every datagram.
    Udp,
    /// DNS over UDP and TCP.
    Dns,
}

/// A server of the lab.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServerPlan {
    /// Where it serves.
    pub(super) netns: String,
    pub(super) speaks: Speaks,
    /// Where it listens.
    pub(super) at: SocketAddr,
}

/// Every server of the lab. Nobody serves behind `web`: that is the reader's (and the faults') to do.
pub(super) fn servers(plan: &Plan) -> Vec<ServerPlan> {
    let any = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    let mut all = Vec::new();
    let mut add = |netns: &str, speaks, ip, port| {
        all.push(ServerPlan { netns: netns.to_owned(), speaks, at: SocketAddr::new(ip, port) });
    };
    for pod in plan.nodes.iter().flat_map(|node| &node.pods) {
        match pod.name.as_str() {
            "a2" | "b2" => {
                add(&pod.netns, Speaks::Dns, any, DNS_PORT);
                add(&pod.netns, Speaks::Tcp, any, WEB_PORT);
            }
            "b" => add(&pod.netns, Speaks::Tcp, any, WEB_PORT),
            _ => {}
        }
        if pod.name == "b2" {
            add(&pod.netns, Speaks::Tcp, any, ECHO_PORT);
            add(&pod.netns, Speaks::Udp, any, ECHO_PORT);
        }
    }
    // A datagram's answer must come from the address that was asked: bound to each.
    for node in &plan.nodes {
        for address in &node.wire {
            add(&node.netns, Speaks::Tcp, address.addr(), HOST_PORT);
            add(&node.netns, Speaks::Udp, address.addr(), HOST_PORT);
        }
    }
    for address in &plan.outside.addresses {
        add(&plan.outside.netns, Speaks::Tcp, *address, OUTSIDE_PORT);
        add(&plan.outside.netns, Speaks::Dns, *address, DNS_PORT);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_service_has_its_addresses_and_backends() {
        let plan = Plan::new(&LabConfig::default());
        let text = |ips: &[IpAddr]| ips.iter().map(ToString::to_string).collect::<Vec<_>>();
        let dns = plan.services.iter().find(|s| s.name == "dns").expect("dns");
        assert_eq!(text(&dns.ips), ["10.96.0.53", "fd00:10:96::53"]);
        assert_eq!(dns.port_name(&dns.ports[1]), "default/dns:dns-tcp");
        assert_eq!(text(&dns.backends[0].addresses), ["10.10.0.3", "fd00:10:10::3"]);
        assert_eq!(text(&dns.backends[1].addresses), ["10.10.1.3", "fd00:10:10:1::3"]);
        let agent = plan.services.iter().find(|s| s.name == "agent").expect("agent");
        assert_eq!(text(&agent.backends[1].addresses), ["192.168.10.12", "fd00:10:168::12"]);
        for service in &plan.services {
            assert_eq!(service.ips.len(), plan.cluster.len(), "{}", service.name);
            for backend in &service.backends {
                assert_eq!(backend.addresses.len(), plan.cluster.len(), "{}", backend.name);
            }
        }
    }

    #[test]
    fn no_two_services_share_an_address_or_a_node_port() {
        let plan = Plan::new(&LabConfig::default());
        let mut ips: Vec<_> = plan.services.iter().flat_map(|s| &s.ips).collect();
        let mut ports: Vec<_> =
            plan.services.iter().flat_map(|s| &s.ports).filter_map(|p| p.node_port).collect();
        let (all_ips, all_ports) = (ips.len(), ports.len());
        ips.sort();
        ips.dedup();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!((ips.len(), ports.len()), (all_ips, all_ports));
        assert_eq!(host_v6(120), 0x120);
    }

    #[test]
    fn every_port_but_webs_is_served_at_every_backend() {
        let plan = Plan::new(&LabConfig::default());
        let all = servers(&plan);
        for service in plan.services.iter().filter(|s| s.name != "web") {
            for (port, backend) in
                service.ports.iter().flat_map(|p| service.backends.iter().map(move |b| (p, b)))
            {
                let pods = plan.nodes.iter().flat_map(|n| &n.pods);
                let pod = pods.filter(|p| p.name == backend.name).map(|p| &p.netns);
                let node = plan.nodes.iter().filter(|n| n.name == backend.name).map(|n| &n.netns);
                let netns = pod.chain(node).next().expect("a namespace");
                let served = all.iter().any(|server| {
                    let speaks = match server.speaks {
                        Speaks::Tcp => port.transport == Transport::Tcp,
                        Speaks::Udp => port.transport == Transport::Udp,
                        Speaks::Dns => true,
                    };
                    &server.netns == netns && server.at.port() == port.target && speaks
                });
                assert!(served, "{} at {}", service.port_name(port), backend.name);
            }
        }
    }
}
