//! Mode `nftables` (pkg/proxy/nftables): a table per IP version with maps.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::super::plan::{NodePlan, Plan};
use super::super::services::NAMESPACE;
use super::{Port, chain_hash, ports};

/// Hash characters in a chain name.
const HASH: usize = 8;

/// Input for `nft -f` on `node`, for the IP version at `index` of the plan's lists.
pub(in super::super) fn ruleset(plan: &Plan, node: &NodePlan, index: usize) -> Option<String> {
    let (family, addr) = match plan.cluster.get(index)? {
        IpNet::V4(_) => ("ip", "ipv4_addr"),
        IpNet::V6(_) => ("ip6", "ipv6_addr"),
    };
    let table = Table {
        family,
        addr,
        cluster: *plan.cluster.get(index)?,
        services: *plan.service_nets.get(index)?,
        node: node.wire.get(index)?.addr(),
        ports: ports(plan, index),
    };
    Some(table.text())
}

struct Table<'p> {
    family: &'static str,
    /// Type of an address.
    addr: &'static str,
    cluster: IpNet,
    /// Network of all ClusterIPs.
    services: IpNet,
    /// The node's own address, at which its NodePorts are.
    node: IpAddr,
    ports: Vec<Port<'p>>,
}

impl Table<'_> {
    fn text(&self) -> String {
        let mut text =
            format!("table {} kube-proxy {{\n\tcomment \"rules for kube-proxy\"\n", self.family);
        self.sets(&mut text);
        // A verdict may name only a chain that is there.
        chain(
            &mut text,
            "reject-chain",
            &[
                "comment \"helper for @no-endpoint-services / @no-endpoint-nodeports\"".to_owned(),
                "reject".to_owned(),
            ],
        );
        let with_endpoints = || self.ports.iter().filter(|port| !port.backends.is_empty());
        for port in with_endpoints() {
            self.service(&mut text, port);
        }
        self.maps(&mut text);
        self.hooks(&mut text);
        text.push_str("}\n");
        text
    }

    fn sets(&self, text: &mut String) {
        let addr = self.addr;
        let hairpin = self.ports.iter().flat_map(|port| {
            port.backends.iter().map(move |b| {
                format!("{} . {} . {} . {}", b.ip(), b.ip(), port.port.transport, b.port())
            })
        });
        let mut hairpin: Vec<String> = hairpin.collect();
        hairpin.sort();
        hairpin.dedup();
        set(
            text,
            "hairpin-connections",
            &format!("{addr} . {addr} . inet_proto . inet_service"),
            "service hairpin connections",
            &hairpin,
        );
        let mut ips: Vec<String> = self.ports.iter().map(|port| port.ip.to_string()).collect();
        ips.dedup();
        set(text, "cluster-ips", addr, "Active ClusterIPs", &ips);
        let node = [self.node.to_string()];
        set(text, "nodeport-ips", addr, "IPs that accept NodePort traffic", &node);
        for port in self.ports.iter().filter(|port| port.service.affinity.is_some()) {
            for backend in &port.backends {
                let _ = write!(
                    text,
                    "\n\tset {} {{\n\t\ttype {addr}\n\t\tflags dynamic,timeout\n\t\ttimeout {}s\n\t}}\n",
                    of_backend("affinity", port, backend),
                    port.service.affinity.unwrap_or_default()
                );
            }
        }
    }

    /// Chains of a service's port: one that chooses, and with affinity one for each backend.
    fn service(&self, text: &mut String, port: &Port<'_>) {
        let (family, transport) = (self.family, port.port.transport);
        let count = port.backends.len();
        let number = |(i, to): (usize, String)| format!("{i} : {to}");
        let rules = if port.service.affinity.is_some() {
            for backend in &port.backends {
                let rules = [
                    format!(
                        "update @{} {{ {family} saddr }}",
                        of_backend("affinity", port, backend)
                    ),
                    format!("meta l4proto {transport} dnat to {backend}"),
                ];
                chain(text, &of_backend("endpoint", port, backend), &rules);
            }
            let known = |b: &SocketAddr| {
                format!(
                    "{family} saddr @{} goto {}",
                    of_backend("affinity", port, b),
                    of_backend("endpoint", port, b)
                )
            };
            let mut rules: Vec<String> = port.backends.iter().map(known).collect();
            let goto = |b: &SocketAddr| format!("goto {}", of_backend("endpoint", port, b));
            let all: Vec<String> = port.backends.iter().map(goto).enumerate().map(number).collect();
            rules.push(format!("numgen random mod {count} vmap {{ {} }}", all.join(", ")));
            rules
        } else {
            let to = |b: &SocketAddr| format!("{} . {}", b.ip(), b.port());
            let all: Vec<String> = port.backends.iter().map(to).enumerate().map(number).collect();
            vec![format!(
                "meta l4proto {transport} dnat {family} to numgen random mod {count} map {{ {} }}",
                all.join(", ")
            )]
        };
        chain(text, &of_port("service", port), &rules);
        if port.port.node_port.is_some() {
            let rules = [
                "meta mark set meta mark | 0x00004000".to_owned(),
                format!("goto {}", of_port("service", port)),
            ];
            chain(text, &of_port("external", port), &rules);
        }
    }

    fn maps(&self, text: &mut String) {
        let key = format!("{} . inet_proto . inet_service", self.addr);
        let at = |p: &Port<'_>| format!("{} . {} . {}", p.ip, p.port.transport, p.port.port);
        let named = |p: &Port<'_>| format!("comment \"{}\" : goto reject-chain", p.name());
        let (live, empty): (Vec<_>, Vec<_>) =
            self.ports.iter().partition(|port| !port.backends.is_empty());
        let node_port =
            |p: &Port<'_>| p.port.node_port.map(|n| format!("{} . {n}", p.port.transport));
        let elements: Vec<String> =
            empty.iter().map(|p| format!("{} {}", at(p), named(p))).collect();
        map(
            text,
            "no-endpoint-services",
            &key,
            "vmap to drop or reject packets to services with no endpoints",
            &elements,
        );
        let elements: Vec<String> =
            empty.iter().filter_map(|p| Some(format!("{} {}", node_port(p)?, named(p)))).collect();
        map(
            text,
            "no-endpoint-nodeports",
            "inet_proto . inet_service",
            "vmap to drop or reject packets to service nodeports with no endpoints",
            &elements,
        );
        map(
            text,
            "firewall-ips",
            &key,
            "destinations that are subject to LoadBalancerSourceRanges",
            &[],
        );
        let elements: Vec<String> =
            live.iter().map(|p| format!("{} : goto {}", at(p), of_port("service", p))).collect();
        map(
            text,
            "service-ips",
            &key,
            "ClusterIP, ExternalIP and LoadBalancer IP traffic",
            &elements,
        );
        let goto = |p: &Port<'_>| format!("goto {}", of_port("external", p));
        let elements: Vec<String> =
            live.iter().filter_map(|p| Some(format!("{} : {}", node_port(p)?, goto(p)))).collect();
        map(text, "service-nodeports", "inet_proto . inet_service", "NodePort traffic", &elements);
    }

    /// The chains at hooks and what they jump to, which is there first.
    fn hooks(&self, text: &mut String) {
        let ip = self.family;
        let jump = |names: &[&str]| -> Vec<String> {
            names.iter().map(|name| format!("ct state new jump {name}")).collect()
        };
        let to = format!("{ip} daddr . meta l4proto . th dport vmap");
        let node = format!("{ip} daddr @nodeport-ips meta l4proto . th dport vmap");
        chain(text, "nodeport-endpoints-check", &[format!("{node} @no-endpoint-nodeports")]);
        chain(text, "service-endpoints-check", &[format!("{to} @no-endpoint-services")]);
        chain(text, "firewall-check", &[format!("{to} @firewall-ips")]);
        chain(
            text,
            "services",
            &[
                format!(
                    "{ip} daddr @cluster-ips {ip} saddr != {} meta mark set meta mark | 0x00004000 comment \"masquerade clusterIP traffic from outside cluster\"",
                    self.cluster
                ),
                format!("{to} @service-ips"),
                format!("{node} @service-nodeports"),
            ],
        );
        chain(text, "masquerading", &[
            "meta mark & 0x00004000 != 0x00000000 meta mark set meta mark ^ 0x00004000 masquerade fully-random".to_owned(),
            format!(
                "ct status dnat {ip} saddr . {ip} daddr . meta l4proto . th dport @hairpin-connections masquerade fully-random"
            ),
        ]);
        chain(
            text,
            "cluster-ips-check",
            &[
                format!(
                    "{ip} daddr @cluster-ips reject comment \"Reject traffic to invalid ports of ClusterIPs\""
                ),
                format!(
                    "{ip} daddr {} drop comment \"Drop traffic to unallocated ClusterIPs\"",
                    self.services
                ),
            ],
        );
        for (name, hook, rules) in [
            (
                "filter-prerouting-pre-dnat",
                "filter hook prerouting priority dstnat - 10",
                jump(&["firewall-check"]),
            ),
            (
                "filter-output-pre-dnat",
                "filter hook output priority -110",
                jump(&["firewall-check"]),
            ),
            (
                "filter-input",
                "filter hook input priority filter",
                jump(&["nodeport-endpoints-check", "service-endpoints-check"]),
            ),
            (
                "filter-forward",
                "filter hook forward priority filter",
                jump(&["service-endpoints-check", "cluster-ips-check"]),
            ),
            (
                "filter-output",
                "filter hook output priority filter",
                jump(&["service-endpoints-check", "cluster-ips-check"]),
            ),
            (
                "nat-prerouting",
                "nat hook prerouting priority dstnat",
                vec!["jump services".to_owned()],
            ),
            ("nat-output", "nat hook output priority -100", vec!["jump services".to_owned()]),
            (
                "nat-postrouting",
                "nat hook postrouting priority srcnat",
                vec!["jump masquerading".to_owned()],
            ),
        ] {
            let mut all = vec![format!("type {hook}; policy accept;")];
            all.extend(rules);
            chain(text, name, &all);
        }
    }
}

/// `default/shop/tcp/http`.
fn path(port: &Port<'_>) -> String {
    format!("{NAMESPACE}/{}/{}/{}", port.service.name, port.port.transport, port.port.name)
}

/// `service-KHN6ECMT-default/shop/tcp/http`.
fn of_port(kind: &str, port: &Port<'_>) -> String {
    let path = path(port);
    format!("{kind}-{}-{path}", chain_hash(&path, HASH))
}

/// `endpoint-2CRNCTTE-default/cart/tcp/http__10.10.0.3/8090`.
fn of_backend(kind: &str, port: &Port<'_>, backend: &SocketAddr) -> String {
    // A colon cannot be in a name.
    let ip = backend.ip().to_string().replace(':', ".");
    let path = format!("{}__{ip}/{}", path(port), backend.port());
    format!("{kind}-{}-{path}", chain_hash(&path, HASH))
}

fn chain(text: &mut String, name: &str, rules: &[String]) {
    let _ = writeln!(text, "\n\tchain {name} {{\n\t\t{}\n\t}}", rules.join("\n\t\t"));
}

fn set(text: &mut String, name: &str, kind: &str, comment: &str, elements: &[String]) {
    collection(text, &format!("set {name}"), kind, comment, elements);
}

fn map(text: &mut String, name: &str, key: &str, comment: &str, elements: &[String]) {
    collection(text, &format!("map {name}"), &format!("{key} : verdict"), comment, elements);
}

fn collection(text: &mut String, head: &str, kind: &str, comment: &str, elements: &[String]) {
    let _ = writeln!(text, "\n\t{head} {{\n\t\ttype {kind}\n\t\tcomment \"{comment}\"");
    if !elements.is_empty() {
        let _ = writeln!(text, "\t\telements = {{ {} }}", elements.join(", "));
    }
    text.push_str("\t}\n");
}
