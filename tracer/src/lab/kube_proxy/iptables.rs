//! Mode `iptables` (pkg/proxy/iptables, `syncProxyRules`): chains, jumps and their order.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::super::firewall::Table;
use super::super::plan::Plan;
use super::{Port, chain_hash, ports};

/// Hash characters in a chain name.
const HASH: usize = 16;

/// Its part of table `filter`.
pub(in super::super) fn filter(table: &mut Table, plan: &Plan, index: usize) {
    for chain in [
        "KUBE-EXTERNAL-SERVICES",
        "KUBE-FORWARD",
        "KUBE-NODEPORTS",
        "KUBE-PROXY-FIREWALL",
        "KUBE-SERVICES",
    ] {
        table.chain(chain);
    }
    const NEW: &str = "-m conntrack --ctstate NEW -m comment --comment";
    for (chain, rules) in [
        (
            "INPUT",
            [
                format!("{NEW} \"kubernetes load balancer firewall\" -j KUBE-PROXY-FIREWALL"),
                "-m comment --comment \"kubernetes health check service ports\" -j KUBE-NODEPORTS"
                    .to_owned(),
                format!(
                    "{NEW} \"kubernetes externally-visible service portals\" -j KUBE-EXTERNAL-SERVICES"
                ),
            ]
            .to_vec(),
        ),
        (
            "FORWARD",
            [
                format!("{NEW} \"kubernetes load balancer firewall\" -j KUBE-PROXY-FIREWALL"),
                "-m comment --comment \"kubernetes forwarding rules\" -j KUBE-FORWARD".to_owned(),
                format!("{NEW} \"kubernetes service portals\" -j KUBE-SERVICES"),
                format!(
                    "{NEW} \"kubernetes externally-visible service portals\" -j KUBE-EXTERNAL-SERVICES"
                ),
            ]
            .to_vec(),
        ),
        (
            "OUTPUT",
            [
                format!("{NEW} \"kubernetes load balancer firewall\" -j KUBE-PROXY-FIREWALL"),
                format!("{NEW} \"kubernetes service portals\" -j KUBE-SERVICES"),
            ]
            .to_vec(),
        ),
        (
            "KUBE-FORWARD",
            [
                "-m conntrack --ctstate INVALID -j DROP".to_owned(),
                "-m comment --comment \"kubernetes forwarding rules\" -m mark --mark 0x4000/0x4000 -j ACCEPT".to_owned(),
                "-m comment --comment \"kubernetes forwarding conntrack rule\" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT".to_owned(),
            ]
            .to_vec(),
        ),
    ] {
        for rule in rules {
            table.rule(chain, &rule);
        }
    }
    for port in ports(plan, index).iter().filter(|port| port.backends.is_empty()) {
        let (name, transport) = (port.name(), port.port.transport);
        let reject = match port.ip {
            IpAddr::V4(_) => "icmp-port-unreachable",
            IpAddr::V6(_) => "icmp6-port-unreachable",
        };
        let rule = |to: &str, dport: u16| {
            format!("{to}-m {transport} --dport {dport} -j REJECT --reject-with {reject}")
        };
        let to = format!(
            "-d {} -p {transport} -m comment --comment \"{name} has no endpoints\" ",
            IpNet::from(port.ip)
        );
        table.rule("KUBE-SERVICES", &rule(&to, port.port.port));
        if let Some(node_port) = port.port.node_port {
            let to = format!(
                "-p {transport} -m comment --comment \"{name} has no endpoints\" -m addrtype --dst-type LOCAL "
            );
            table.rule("KUBE-EXTERNAL-SERVICES", &rule(&to, node_port));
        }
    }
}

/// Its part of table `nat`.
pub(in super::super) fn nat(table: &mut Table, plan: &Plan, index: usize) {
    for chain in ["KUBE-MARK-MASQ", "KUBE-NODEPORTS", "KUBE-POSTROUTING", "KUBE-SERVICES"] {
        table.chain(chain);
    }
    for (chain, rule) in [
        ("PREROUTING", "-m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES"),
        ("OUTPUT", "-m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES"),
        (
            "POSTROUTING",
            "-m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING",
        ),
        ("KUBE-POSTROUTING", "-m mark ! --mark 0x4000/0x4000 -j RETURN"),
        ("KUBE-POSTROUTING", "-j MARK --xor-mark 0x4000"),
        (
            "KUBE-POSTROUTING",
            "-m comment --comment \"kubernetes service traffic requiring SNAT\" -j MASQUERADE --random-fully",
        ),
        ("KUBE-MARK-MASQ", "-j MARK --or-mark 0x4000"),
    ] {
        table.rule(chain, rule);
    }
    let Some(cluster) = plan.cluster.get(index) else { return };
    for port in ports(plan, index).iter().filter(|port| !port.backends.is_empty()) {
        service(table, port, cluster);
    }
    table.rule(
        "KUBE-SERVICES",
        "-m comment --comment \"kubernetes service nodeports; NOTE: this must be the last rule in this chain\" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS",
    );
}

/// Chains of a service's port that has endpoints.
fn service(table: &mut Table, port: &Port<'_>, cluster: &IpNet) {
    let (name, transport) = (port.name(), port.port.transport);
    let hash = chain_hash(&format!("{name}{transport}"), HASH);
    let svc = format!("KUBE-SVC-{hash}");
    table.chain(&svc);
    let to = format!(
        "-d {} -p {transport} -m comment --comment \"{name} cluster IP\" -m {transport} --dport {}",
        IpNet::from(port.ip),
        port.port.port
    );
    table.rule("KUBE-SERVICES", &format!("{to} -j {svc}"));
    if let Some(node_port) = port.port.node_port {
        let ext = format!("KUBE-EXT-{hash}");
        table.chain(&ext);
        table.rule(
            "KUBE-NODEPORTS",
            &format!(
                "-p {transport} -m comment --comment \"{name}\" -m {transport} --dport {node_port} -j {ext}"
            ),
        );
        table.rule(
            &ext,
            &format!(
                "-m comment --comment \"masquerade traffic for {name} external destinations\" -j KUBE-MARK-MASQ"
            ),
        );
        table.rule(&ext, &format!("-j {svc}"));
    }
    table.rule(&svc, &format!("! -s {cluster} {to} -j KUBE-MARK-MASQ"));
    let sep = |backend: &SocketAddr| {
        format!("KUBE-SEP-{}", chain_hash(&format!("{name}{transport}{backend}"), HASH))
    };
    // Bits of the source address that make a client.
    let mask = match port.ip {
        IpAddr::V4(_) => "255.255.255.255",
        IpAddr::V6(_) => "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    };
    if let Some(seconds) = port.service.affinity {
        for backend in &port.backends {
            let sep = sep(backend);
            table.rule(
                &svc,
                &format!(
                    "-m comment --comment \"{name} -> {backend}\" -m recent --rcheck --seconds {seconds} --reap --name {sep} --mask {mask} --rsource -j {sep}"
                ),
            );
        }
    }
    for (i, backend) in port.backends.iter().enumerate() {
        let chance = match port.backends.len() - i {
            1 => String::new(),
            left => format!("-m statistic --mode random --probability {:.10} ", 1.0 / left as f64),
        };
        let sep = sep(backend);
        table.rule(&svc, &format!("-m comment --comment \"{name} -> {backend}\" {chance}-j {sep}"));
        table.chain(&sep);
        table.rule(
            &sep,
            &format!(
                "-s {} -m comment --comment \"{name}\" -j KUBE-MARK-MASQ",
                IpNet::from(backend.ip())
            ),
        );
        let remember = match port.service.affinity {
            Some(_) => format!("-m recent --set --name {sep} --mask {mask} --rsource "),
            None => String::new(),
        };
        table.rule(
            &sep,
            &format!(
                "-p {transport} -m comment --comment \"{name}\" {remember}-m {transport} -j DNAT --to-destination {backend}"
            ),
        );
    }
}
