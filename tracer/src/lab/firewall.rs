//! The rules of flannel, the kubelet and kube-proxy: their text (pure), and loading it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use ipnet::IpNet;

use super::config::{Firewall, KubeProxy, LabConfig};
use super::error::{Context, LabError, Result};
use super::kube_proxy;
use super::plan::{NodePlan, Plan};

/// How long iptables-legacy waits for its lock, which all namespaces share, s.
const XTABLES_WAIT: &str = "5";
/// Where administrators' programs are when PATH does not say.
const SYSTEM_PATH: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// A table in the language of `iptables-restore`.
pub(super) struct Table {
    head: String,
    chains: Vec<String>,
    rules: Vec<String>,
}

impl Table {
    fn new(name: &str, builtin: &[&str]) -> Self {
        let chains = builtin.iter().map(|chain| format!(":{chain} ACCEPT [0:0]")).collect();
        Self { head: format!("*{name}"), chains, rules: Vec::new() }
    }

    /// Declares a chain.
    pub(super) fn chain(&mut self, name: &str) {
        self.chains.push(format!(":{name} - [0:0]"));
    }

    /// Appends a rule to a chain.
    pub(super) fn rule(&mut self, chain: &str, rule: &str) {
        self.rules.push(format!("-A {chain} {rule}"));
    }

    fn text(self) -> String {
        let mut lines = vec![self.head];
        lines.extend(self.chains);
        lines.extend(self.rules);
        lines.push("COMMIT\n".to_owned());
        lines.join("\n")
    }
}

/// Input for `iptables-restore` (or `ip6tables-restore`) on `node`, for the IP version at `index`
/// of the plan's lists.
pub(super) fn rules(
    config: &LabConfig,
    plan: &Plan,
    node: &NodePlan,
    index: usize,
) -> Option<String> {
    let cluster = plan.cluster.get(index)?;
    let subnet = node.subnets.get(index)?;
    let mut filter = Table::new("filter", &["INPUT", "FORWARD", "OUTPUT"]);
    let mut nat = Table::new("nat", &["PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"]);
    if config.kube_proxy == KubeProxy::Iptables {
        kube_proxy::filter(&mut filter, plan, index);
        kube_proxy::nat(&mut nat, plan, index);
    }
    kubelet(&mut filter, cluster);
    flannel_forward(&mut filter, cluster);
    flannel_masquerade(&mut nat, cluster, subnet);
    Some(filter.text() + &nat.text())
}

/// The kubelet's KUBE-FIREWALL.
fn kubelet(filter: &mut Table, cluster: &IpNet) {
    filter.chain("KUBE-FIREWALL");
    for chain in ["INPUT", "OUTPUT"] {
        filter.rule(chain, "-j KUBE-FIREWALL");
    }
    // The kernel never routes ::1, the kubelet has no such rule.
    if matches!(cluster, IpNet::V4(_)) {
        filter.rule(
            "KUBE-FIREWALL",
            "! -s 127.0.0.0/8 -d 127.0.0.0/8 -m comment --comment \"block incoming localnet connections\" -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP",
        );
    }
}

/// flannel's `forwardRules` (pkg/trafficmngr/iptables).
fn flannel_forward(filter: &mut Table, cluster: &IpNet) {
    filter.chain("FLANNEL-FWD");
    filter.rule("FORWARD", "-m comment --comment \"flanneld forward\" -j FLANNEL-FWD");
    for side in ["-s", "-d"] {
        filter.rule(
            "FLANNEL-FWD",
            &format!("{side} {cluster} -m comment --comment \"flanneld forward\" -j ACCEPT"),
        );
    }
}

/// flannel's `masqRules`.
fn flannel_masquerade(nat: &mut Table, cluster: &IpNet, subnet: &IpNet) {
    let multicast = match cluster {
        IpNet::V4(_) => "224.0.0.0/4",
        IpNet::V6(_) => "ff00::/8",
    };
    nat.chain("FLANNEL-POSTRTG");
    nat.rule("POSTROUTING", "-m comment --comment \"flanneld masq\" -j FLANNEL-POSTRTG");
    for (packets, target) in [
        ("-m mark --mark 0x4000/0x4000".to_owned(), "RETURN"),
        (format!("-s {subnet} -d {cluster}"), "RETURN"),
        (format!("-s {cluster} -d {subnet}"), "RETURN"),
        (format!("! -s {cluster} -d {subnet}"), "RETURN"),
        (format!("-s {cluster} ! -d {multicast}"), "MASQUERADE --random-fully"),
        (format!("! -s {cluster} -d {cluster}"), "MASQUERADE --random-fully"),
    ] {
        let rule = format!("{packets} -m comment --comment \"flanneld masq\" -j {target}");
        nat.rule("FLANNEL-POSTRTG", &rule);
    }
}

/// A running `iptables-restore` or `nft`.
pub(super) struct Restore {
    child: Child,
    program: String,
    netns: String,
}

impl Restore {
    /// Starts loading `rules` in the namespace that the calling thread is in, which is `netns`.
    pub(super) fn start(firewall: Firewall, ipv6: bool, netns: &str, rules: &str) -> Result<Self> {
        let version = if ipv6 { "ip6tables" } else { "iptables" };
        let (program, wait): (_, &[&str]) = match firewall {
            Firewall::Nft => (format!("{version}-nft-restore"), &[]),
            Firewall::Legacy => (format!("{version}-legacy-restore"), &["-w", XTABLES_WAIT]),
            Firewall::None => {
                return Err(LabError::Config("no firewall to load rules into".into()));
            }
        };
        Self::run(program, wait, "iptables", "--firewall none", netns, rules)
    }

    /// As [`Restore::start`], with rules in nft's own language.
    pub(super) fn start_nft(netns: &str, rules: &str) -> Result<Self> {
        Self::run("nft".to_owned(), &["-f", "-"], "nftables", "--kube-proxy iptables", netns, rules)
    }

    fn run(
        program: String,
        arguments: &[&str],
        package: &str,
        otherwise: &str,
        netns: &str,
        rules: &str,
    ) -> Result<Self> {
        let path = find_program(&program).ok_or_else(|| LabError::Missing {
            program: program.clone(),
            package: package.to_owned(),
            otherwise: format!("build the lab with {otherwise}"),
        })?;
        let mut child = Command::new(path)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context(|| format!("start {program}"))?;
        let written = match child.stdin.take() {
            Some(mut stdin) => stdin.write_all(rules.as_bytes()),
            None => Ok(()),
        };
        let restore = Self { child, program, netns: netns.to_owned() };
        match written {
            Ok(()) => Ok(restore),
            // It ended before it read everything: what it wrote about that says more.
            Err(error) => {
                let program = restore.program.clone();
                restore.finish()?;
                Err(error).context(|| format!("write to {program}"))
            }
        }
    }

    /// Waits for the end.
    pub(super) fn finish(self) -> Result<()> {
        let Self { child, program, netns } = self;
        let output = child.wait_with_output().context(|| format!("wait for {program}"))?;
        if output.status.success() {
            return Ok(());
        }
        let stderr = String::from_utf8_lossy(&output.stderr);
        let message = stderr.split_whitespace().collect::<Vec<_>>().join(" ");
        let message = if message.is_empty() { output.status.to_string() } else { message };
        Err(LabError::Program { program, netns, message })
    }
}

/// Finds a program in PATH, and in the directories that an administrator's PATH would have.
pub(super) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(SYSTEM_PATH.iter().map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|candidate| Path::is_file(candidate))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(node: usize, index: usize) -> String {
        let config = LabConfig::default();
        let plan = Plan::new(&config);
        rules(&config, &plan, &plan.nodes[node], index).expect("rules")
    }

    #[test]
    fn rules_carry_the_nodes_networks() {
        let a = text(0, 0);
        assert!(a.contains("-A FLANNEL-FWD -s 10.10.0.0/16 "));
        assert!(a.contains("-A FLANNEL-POSTRTG -s 10.10.0.0/24 -d 10.10.0.0/16 "));
        assert!(a.contains("-A KUBE-SERVICES -d 10.96.0.10/32 -p tcp "));
        assert!(a.contains("-j DNAT --to-destination 10.10.1.2:8080\n"));
        assert!(text(1, 0).contains("-A FLANNEL-POSTRTG -s 10.10.1.0/24 -d 10.10.0.0/16 "));
        let six = text(0, 1);
        assert!(six.contains("-A KUBE-SERVICES -d fd00:10:96::10/128 -p tcp "));
        assert!(six.contains("--to-destination [fd00:10:10:1::2]:8080\n"));
        assert!(six.contains("! -d ff00::/8 "));
        assert!(!six.contains("127.0.0.0"));
    }

    #[test]
    fn every_jump_has_its_chain() {
        for index in [0, 1] {
            let text = text(0, index);
            for table in text.split("COMMIT\n").filter(|t| !t.is_empty()) {
                let chains: Vec<&str> = table
                    .lines()
                    .filter_map(|line| line.strip_prefix(':')?.split(' ').next())
                    .collect();
                for rule in table.lines().filter(|line| line.starts_with("-A ")) {
                    let words: Vec<&str> = rule.split(' ').collect();
                    assert!(chains.contains(&words[1]), "{rule}");
                    let jump = words.iter().position(|w| *w == "-j").expect("a target");
                    let target = words[jump + 1];
                    if target.contains('-') {
                        assert!(chains.contains(&target), "{rule}");
                    }
                }
            }
        }
    }

    #[test]
    fn services_are_told_apart_as_kube_proxy_does() {
        let a = text(0, 0);
        for rule in [
            "-A KUBE-SERVICES -d 10.96.0.53/32 -p udp -m comment --comment \"default/dns:dns cluster IP\" -m udp --dport 53 -j KUBE-SVC-",
            "\"default/shop:http -> 10.10.0.3:8090\" -m statistic --mode random --probability 0.3333333333 -j KUBE-SEP-",
            "\"default/shop:http -> 10.10.1.2:8090\" -m statistic --mode random --probability 0.5000000000 -j KUBE-SEP-",
            "\"default/shop:http -> 10.10.1.3:8090\" -j KUBE-SEP-",
            "-A KUBE-NODEPORTS -p tcp -m comment --comment \"default/shop:http\" -m tcp --dport 30090 -j KUBE-EXT-",
            "\"default/cart:http -> 10.10.1.3:8090\" -m recent --rcheck --seconds 10800 --reap --name KUBE-SEP-",
            "-A KUBE-SERVICES -d 10.96.0.70/32 -p tcp -m comment --comment \"default/empty:http has no endpoints\" -m tcp --dport 80 -j REJECT --reject-with icmp-port-unreachable",
        ] {
            assert!(a.contains(rule), "{rule}");
        }
        assert!(text(0, 1).contains("--reject-with icmp6-port-unreachable"));
    }

    #[test]
    fn in_the_other_mode_kube_proxy_leaves_iptables_alone() {
        let config = LabConfig { kube_proxy: KubeProxy::Nftables, ..LabConfig::default() };
        let plan = Plan::new(&config);
        let text = rules(&config, &plan, &plan.nodes[0], 0).expect("rules");
        assert!(!text.contains("KUBE-SERVICES") && !text.contains("KUBE-SVC"), "{text}");
        assert!(text.contains("FLANNEL-POSTRTG") && text.contains("KUBE-FIREWALL"));
        let nft = kube_proxy::ruleset(&plan, &plan.nodes[0], 0).expect("rules");
        for line in [
            "10.96.0.70 . tcp . 80 comment \"default/empty:http\" : goto reject-chain",
            "tcp . 30090 : goto external-",
            "dnat ip to numgen random mod 2 map { 0 : 10.10.0.3 . 53, 1 : 10.10.1.3 . 53 }",
            "elements = { 192.168.10.11 }",
            "ip saddr != 10.10.0.0/16 meta mark set",
            "ip daddr 10.96.0.0/24 drop comment",
            "timeout 10800s",
        ] {
            assert!(nft.contains(line), "{line}: {nft}");
        }
        let six = kube_proxy::ruleset(&plan, &plan.nodes[0], 1).expect("rules");
        assert!(six.starts_with("table ip6 kube-proxy {") && six.contains("ipv6_addr"));
    }
}
