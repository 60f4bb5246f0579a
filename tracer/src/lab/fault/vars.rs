//! `{…}` in the steps of faults: names, addresses and numbers of the lab. Pure.
//!
//! | placeholder | |
//! |---|---|
//! | `{A.…}`, `{B.…}` | of a node: `netns`, `net` (its pods' network), `gw` (the bridge's address), `bridge`, `phys`, `port` (in the switch), `vxlan`; `vtep_ip`, `vtep_mac`; `phys_mac`, `bridge_mac`; `wire_ip`, `dead_ip` (nobody has it); `dead_pod` (an address of `net` that nobody has) |
//! | `{a.…}`, `{a2.…}`, `{b.…}`, `{b2.…}` | of a pod: `ip`, `mac`, `veth` and `veth_mac` (the node's end) |
//! | `{ip}`, `{iptables}`, `{other_iptables}` | with the IP version's flag; of the lab's firewall; of the other one |
//! | `{v}`, `{nft}`, `{icmp}`, `{max}` | `4` or `6`; `ip` or `ip6`; `icmp` or `ipv6-icmp`; bits of an address |
//! | `{any}` | everything: `0.0.0.0/0` |
//! | `{prohibited}`, `{host_prohibited}` | a reject type |
//! | `{cluster}`, `{wire}`, `{service}`, `{service_port}`, `{target_port}`, `{vxlan_port}`, `{vni}` | |
//! | `{other_port}`, `{other_vni}`, `{other_net}`, `{other_gw}` | wrong ones |
//! | `{wire_len}`, `{node_len}`, `{mtu}`, `{pod_mtu}`, `{small_mtu}`, `{full_size}` | prefix lengths; MTUs; ping's payload that fills a pod's MTU |

use std::net::IpAddr;

use ipnet::IpNet;

use super::super::config::{Firewall, LabConfig};
use super::super::identity::Identity;
use super::super::plan::{NodePlan, POD_INTERFACE, Plan, PodPlan};
use super::Options;

/// How much smaller a link's MTU becomes.
const MTU_CUT: u32 = 120;

/// What placeholders stand for.
pub(super) struct Vars<'l> {
    pub(super) config: &'l LabConfig,
    pub(super) plan: &'l Plan,
    pub(super) identity: &'l Identity,
    pub(super) options: &'l Options,
}

impl Vars<'_> {
    /// Index of the IP version in the plan's lists.
    fn version(&self) -> usize {
        usize::from(self.options.ipv6)
    }

    /// Node or pod by the name that data has for it: the other one when mirrored.
    fn side(&self, name: &str) -> String {
        if !self.options.mirror {
            return name.to_owned();
        }
        name.chars()
            .map(|c| match c {
                'A' => 'B',
                'B' => 'A',
                'a' => 'b',
                'b' => 'a',
                other => other,
            })
            .collect()
    }

    fn node(&self, name: &str) -> Option<&NodePlan> {
        let name = self.side(name);
        self.plan.nodes.iter().find(|node| node.name == name)
    }

    fn pod(&self, name: &str) -> Option<(&NodePlan, &PodPlan)> {
        let name = self.side(name);
        self.plan
            .nodes
            .iter()
            .find_map(|node| Some((node, node.pods.iter().find(|pod| pod.name == name)?)))
    }

    /// Target of the lab for one in the data: `A`, `a` or `A.a`, `wire`.
    pub(super) fn target(&self, name: &str) -> Option<String> {
        if name == super::super::plan::WIRE {
            return Some(name.to_owned());
        }
        if let Some(node) = self.node(name) {
            return Some(node.name.clone());
        }
        let pod = name.split_once('.').map_or(name, |(_, pod)| pod);
        self.pod(pod).map(|(node, pod)| format!("{}.{}", node.name, pod.name))
    }

    /// Splits `TARGET: COMMAND` and replaces the placeholders.
    pub(super) fn step(&self, step: &str) -> Result<(String, String), String> {
        let (target, command) =
            step.split_once(": ").ok_or_else(|| format!("{step:?} has no target"))?;
        let target = self.target(target).ok_or_else(|| format!("no target {target:?}"))?;
        Ok((target, self.fill(command)?))
    }

    /// Replaces the placeholders. Braces that are none (around blanks) stay.
    pub(super) fn fill(&self, text: &str) -> Result<String, String> {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(start) = rest.find('{') {
            let (before, from) = rest.split_at(start);
            out.push_str(before);
            let name_end = from[1..].find(|c: char| !is_name(c)).map(|end| end + 1);
            match name_end {
                Some(end) if end > 1 && from[end..].starts_with('}') => {
                    let name = &from[1..end];
                    let value =
                        self.value(name).ok_or_else(|| format!("nothing is called {{{name}}}"))?;
                    out.push_str(&value);
                    rest = &from[end + 1..];
                }
                _ => {
                    out.push('{');
                    rest = &from[1..];
                }
            }
        }
        out.push_str(rest);
        Ok(out)
    }

    fn value(&self, name: &str) -> Option<String> {
        match name.split_once('.') {
            Some((owner, what)) if owner.starts_with(['A', 'B']) => {
                self.of_node(self.node(owner)?, what)
            }
            Some((owner, what)) => self.of_pod(owner, what),
            None => self.of_lab(name),
        }
    }

    fn vxlan(&self) -> String {
        if self.options.ipv6 { self.config.vxlan_name_v6() } else { self.config.vxlan_name.clone() }
    }

    fn of_node(&self, node: &NodePlan, what: &str) -> Option<String> {
        let v = self.version();
        let net = *node.subnets.get(v)?;
        let wire = *node.wire.get(v)?;
        let mac = |name: &str| self.identity.mac(&node.netns, name).map(|mac| mac.to_string());
        Some(match what {
            "name" => node.name.clone(),
            "netns" => node.netns.clone(),
            "net" => net.to_string(),
            "gw" => node.gateways().get(v)?.addr().to_string(),
            "bridge" => self.config.bridge_name.clone(),
            "phys" => self.config.physical_name.clone(),
            "port" => node.port.clone(),
            "vxlan" => self.vxlan(),
            "vtep_ip" => net.network().to_string(),
            "vtep_mac" => mac(&self.vxlan())?,
            "phys_mac" => mac(&self.config.physical_name)?,
            "bridge_mac" => mac(&self.config.bridge_name)?,
            "wire_ip" => wire.addr().to_string(),
            "dead_ip" => nth(wire, 0x1d).to_string(),
            "dead_endpoint" => endpoint(nth(net, 99), self.config.target_port),
            "rejoin" => self.rejoin(node)?,
            "dead_pod" => nth(net, 99).to_string(),
            _ => return None,
        })
    }

    /// What flanneld does with a VXLAN device that it has just made, with `ip` and `bridge`.
    fn rejoin(&self, node: &NodePlan) -> Option<String> {
        let peer = self.plan.peer(node)?;
        let vxlan = self.vxlan();
        let v = self.version();
        let own = node.subnets.get(v)?.network();
        let (net, via) = (peer.subnets.get(v)?, peer.subnets.get(v)?.network());
        let mac = self.identity.mac(&peer.netns, &vxlan)?;
        let public = peer.wire.get(v)?.addr();
        let ip = if self.options.ipv6 { "ip -6" } else { "ip -4" };
        Some(format!(
            "ip address add {own} dev {vxlan}; ip link set {vxlan} up; \
             {ip} neigh add {via} lladdr {mac} dev {vxlan} nud permanent; \
             bridge fdb add {mac} dev {vxlan} dst {public} self permanent; \
             {ip} route add {net} via {via} dev {vxlan} onlink"
        ))
    }

    fn of_pod(&self, pod: &str, what: &str) -> Option<String> {
        let (node, pod) = self.pod(pod)?;
        let mac = |netns: &str, name: &str| self.identity.mac(netns, name).map(|m| m.to_string());
        let veth = self.identity.veth(&pod.netns);
        Some(match what {
            "ip" => pod.addresses.get(self.version())?.addr().to_string(),
            "mac" => mac(&pod.netns, POD_INTERFACE)?,
            "veth" => veth?.to_owned(),
            "veth_mac" => mac(&node.netns, veth?)?,
            "endpoint" => {
                endpoint(pod.addresses.get(self.version())?.addr(), self.config.target_port)
            }
            "name" => format!("{}.{}", node.name, pod.name),
            _ => return None,
        })
    }

    fn of_lab(&self, name: &str) -> Option<String> {
        let v = self.version();
        let six = self.options.ipv6;
        let pick = |four: &str, six_: &str| if six { six_ } else { four }.to_owned();
        let iptables = |firewall| {
            let kind = if firewall == Firewall::Legacy { "legacy" } else { "nft" };
            pick(&format!("iptables-{kind}"), &format!("ip6tables-{kind}"))
        };
        let node = self.plan.nodes.first()?;
        Some(match name {
            "ip" => pick("ip -4", "ip -6"),
            "iptables" => iptables(self.config.firewall),
            "other_iptables" => iptables(match self.config.firewall {
                Firewall::Legacy => Firewall::Nft,
                _ => Firewall::Legacy,
            }),
            "v" => pick("4", "6"),
            "nft" => pick("ip", "ip6"),
            "forwarding" => pick("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"),
            "ttl_one" => pick("TTL --ttl-set 1", "HL --hl-set 1"),
            "resolution" => {
                pick("ether type arp", "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert }")
            }
            "too_big" => pick(
                "icmp --icmp-type fragmentation-needed",
                "ipv6-icmp --icmpv6-type packet-too-big",
            ),
            "bridge_nf" => {
                pick("net/bridge/bridge-nf-call-iptables", "net/bridge/bridge-nf-call-ip6tables")
            }
            "echo_ignore" => pick("net/ipv4/icmp_echo_ignore_all", "net/ipv6/icmp/echo_ignore_all"),
            "stranger" => pick("10.0.2.15", "fd00:2::15"),
            "ipver" => pick("ipv4", "ipv6"),
            "icmp" => pick("icmp", "ipv6-icmp"),
            "max" => pick("32", "128"),
            "any" => pick("0.0.0.0/0", "::/0"),
            "prohibited" => pick("icmp-admin-prohibited", "icmp6-adm-prohibited"),
            "host_prohibited" => pick("icmp-host-prohibited", "icmp6-adm-prohibited"),
            "unreachable" => pick("icmp-port-unreachable", "icmp6-port-unreachable"),
            "cluster" => self.plan.cluster.get(v)?.to_string(),
            "wire" => node.wire.get(v)?.trunc().to_string(),
            "router" => nth(*node.wire.get(v)?, 1).to_string(),
            "service" => self.plan.service.get(v)?.to_string(),
            "service_port" => self.config.service_port.to_string(),
            "target_port" => self.config.target_port.to_string(),
            "vxlan_port" => self.config.vxlan_port.to_string(),
            "vni" => self.config.vni.to_string(),
            "other_port" => (if self.config.vxlan_port == 4789 { 8472 } else { 4789 }).to_string(),
            "other_vni" => (if self.config.vni == 1 { 2 } else { self.config.vni - 1 }).to_string(),
            "other_net" => nth_net(*self.plan.cluster.get(v)?, node.subnets.get(v)?)?.to_string(),
            "other_gw" => {
                nth(nth_net(*self.plan.cluster.get(v)?, node.subnets.get(v)?)?, 1).to_string()
            }
            "wire_len" => node.wire.get(v)?.prefix_len().to_string(),
            "node_len" => node.subnets.get(v)?.prefix_len().to_string(),
            "mtu" => self.config.wire_mtu.to_string(),
            "pod_mtu" => self.config.pod_mtu().to_string(),
            "mtu_size" => {
                self.config.wire_mtu.saturating_sub(if six { 48 } else { 28 }).to_string()
            }
            "small_mtu" => self.config.wire_mtu.saturating_sub(MTU_CUT).to_string(),
            // IP and ICMP headers: 20 + 8 or 40 + 8 bytes.
            "full_size" => {
                let mtu = if six { self.config.vxlan_mtu_v6() } else { self.config.pod_mtu() };
                mtu.saturating_sub(if six { 48 } else { 28 }).to_string()
            }
            _ => return None,
        })
    }
}

/// Whether a character can be part of a placeholder's name.
fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_')
}

/// Address number `n` of a network.
fn nth(net: IpNet, n: u8) -> IpAddr {
    match net.network() {
        IpAddr::V4(ip) => IpAddr::from((u32::from(ip) | u32::from(n)).to_be_bytes()),
        IpAddr::V6(ip) => IpAddr::from((u128::from(ip) | u128::from(n)).to_be_bytes()),
    }
}

/// `10.10.0.2:8080`, `[fd00::2]:8080`.
fn endpoint(ip: IpAddr, port: u16) -> String {
    std::net::SocketAddr::new(ip, port).to_string()
}

/// A network of the cluster that no node has, as long as a node's.
fn nth_net(cluster: IpNet, node: &IpNet) -> Option<IpNet> {
    match cluster {
        IpNet::V4(net) => net.subnets(node.prefix_len()).ok()?.last().map(IpNet::V4),
        // The last but one bit: `subnets` would count through all of them.
        IpNet::V6(net) => {
            let last = u128::from(net.broadcast()) >> (128 - node.prefix_len());
            let first = std::net::Ipv6Addr::from(last << (128 - node.prefix_len()));
            ipnet::Ipv6Net::new(first, node.prefix_len()).ok().map(IpNet::V6)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    use super::super::super::snapshot::{Link, Snapshot};
    use super::super::spec::all;

    fn check(options: Options, test: impl FnOnce(&Vars<'_>)) {
        let config = LabConfig::default();
        let plan = Plan::new(&config);
        let mut snapshots = HashMap::new();
        for node in &plan.nodes {
            let mut links = Vec::new();
            let names = ["ens33", "cni0", "flannel.1", "flannel-v6.1"];
            for (name, index) in names.into_iter().zip(2u32..) {
                let mac = Some(crate::model::Mac([2, 0, 0, 0, node.name.as_bytes()[0], 1]));
                links.push(Link { index, name: name.to_owned(), mac, ..Link::default() });
            }
            for (pod, index) in node.pods.iter().zip(10u32..) {
                let mac = Some(crate::model::Mac([2, 0, 0, 0, 0, 9]));
                let link = |index, name: &str, peer| Link {
                    index,
                    name: name.to_owned(),
                    mac,
                    peer,
                    ..Link::default()
                };
                links.push(link(index, &format!("veth{}", pod.name), None));
                let inside =
                    Snapshot { links: vec![link(2, "eth0", Some(index))], ..Snapshot::default() };
                snapshots.insert(pod.netns.clone(), inside);
            }
            snapshots.insert(node.netns.clone(), Snapshot { links, ..Snapshot::default() });
        }
        let identity = Identity::of(&config, &plan, &snapshots);
        test(&Vars { config: &config, plan: &plan, identity: &identity, options: &options });
    }

    #[test]
    fn placeholders_are_replaced() {
        check(Options::default(), |vars| {
            assert_eq!(
                vars.step("A: ip route del {B.net} dev {A.vxlan}").unwrap(),
                ("A".to_owned(), "ip route del 10.10.1.0/24 dev flannel.1".to_owned())
            );
            assert_eq!(
                vars.fill("{ type filter hook input }").unwrap(),
                "{ type filter hook input }"
            );
            assert_eq!(
                vars.fill("{a.ip} {a.veth} {other_gw}").unwrap(),
                "10.10.0.2 vetha 10.10.255.1"
            );
            assert_eq!(vars.fill("{B.dead_ip}/{wire_len}").unwrap(), "192.168.10.29/24");
            assert!(vars.fill("{nonsense}").is_err());
            assert!(vars.step("C: true").is_err());
        });
        check(Options { mirror: true, ipv6: true, program: None }, |vars| {
            assert_eq!(
                vars.step("A: {iptables} -d {b.ip} -o {B.vxlan} {B.vtep_mac}").unwrap(),
                (
                    "B".to_owned(),
                    "ip6tables-nft -d fd00:10:10::2 -o flannel-v6.1 02:00:00:00:41:01".to_owned()
                )
            );
            assert_eq!(vars.target("a2").as_deref(), Some("B.b2"));
            assert_eq!(vars.target("A.a").as_deref(), Some("B.b"));
            assert_eq!(vars.target("wire").as_deref(), Some("wire"));
            assert_eq!(vars.fill("{other_net}").unwrap(), "fd00:10:10:ffff::/64");
        });
    }

    #[test]
    fn everything_in_the_files_stands_for_something() {
        for (mirror, ipv6) in [(false, false), (true, false), (false, true), (true, true)] {
            check(Options { mirror, ipv6, program: None }, |vars| {
                for fault in all().iter().filter(|f| f.families.contains(&if ipv6 { 6 } else { 4 }))
                {
                    let steps = fault.inject.iter().chain(&fault.mend).chain(&fault.proof);
                    for step in steps {
                        if let Err(error) = vars.step(step) {
                            panic!("{}: {error}", fault.name);
                        }
                    }
                    for text in fault.expected.interface.iter().chain(&fault.probe.args) {
                        vars.fill(text).unwrap_or_else(|error| panic!("{}: {error}", fault.name));
                    }
                }
            });
        }
    }
}
