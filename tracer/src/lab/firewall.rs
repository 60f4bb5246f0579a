//! The rules of flannel and of kube-proxy in iptables mode: their text (pure), and loading it.

use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use ipnet::IpNet;

use super::config::{Firewall, LabConfig};
use super::error::{Context, LabError, Result};
use super::plan::{NodePlan, Plan};

/// What the service is called: `namespace/name:port`, as kube-proxy writes it into comments.
const SERVICE: &str = "default/web:http";
/// Alphabet of base 32 (RFC 4648 section 6), in which kube-proxy writes the hashes in chain names.
const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
/// Hash characters in a chain name.
const HASH_LENGTH: usize = 16;
/// How long iptables-legacy waits for its lock, which all namespaces share, s.
const XTABLES_WAIT: &str = "5";
/// Where administrators' programs are when PATH does not say.
const SYSTEM_PATH: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

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
    let service = *plan.service.get(index)?;
    let endpoint = *plan.endpoints().get(index)?;
    let mut text = filter_table(cluster);
    text.push_str(&nat_table(config, cluster, subnet, service, endpoint));
    Some(text)
}

/// Chains, jumps and their order as kube-proxy (pkg/proxy/iptables, `syncProxyRules`), the kubelet
/// (KUBE-FIREWALL) and flannel (pkg/trafficmngr/iptables, `forwardRules`) install them.
fn filter_table(cluster: &IpNet) -> String {
    let firewall = match cluster {
        IpNet::V4(_) => {
            "-A KUBE-FIREWALL ! -s 127.0.0.0/8 -d 127.0.0.0/8 -m comment --comment \"block incoming localnet connections\" -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP\n"
        }
        // The kernel never routes ::1, the kubelet has no such rule.
        IpNet::V6(_) => "",
    };
    format!(
        "\
*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:FLANNEL-FWD - [0:0]
:KUBE-EXTERNAL-SERVICES - [0:0]
:KUBE-FIREWALL - [0:0]
:KUBE-FORWARD - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-PROXY-FIREWALL - [0:0]
:KUBE-SERVICES - [0:0]
-A INPUT -m conntrack --ctstate NEW -m comment --comment \"kubernetes load balancer firewall\" -j KUBE-PROXY-FIREWALL
-A INPUT -m comment --comment \"kubernetes health check service ports\" -j KUBE-NODEPORTS
-A INPUT -m conntrack --ctstate NEW -m comment --comment \"kubernetes externally-visible service portals\" -j KUBE-EXTERNAL-SERVICES
-A INPUT -j KUBE-FIREWALL
-A FORWARD -m conntrack --ctstate NEW -m comment --comment \"kubernetes load balancer firewall\" -j KUBE-PROXY-FIREWALL
-A FORWARD -m comment --comment \"kubernetes forwarding rules\" -j KUBE-FORWARD
-A FORWARD -m conntrack --ctstate NEW -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A FORWARD -m conntrack --ctstate NEW -m comment --comment \"kubernetes externally-visible service portals\" -j KUBE-EXTERNAL-SERVICES
-A FORWARD -m comment --comment \"flanneld forward\" -j FLANNEL-FWD
-A OUTPUT -m conntrack --ctstate NEW -m comment --comment \"kubernetes load balancer firewall\" -j KUBE-PROXY-FIREWALL
-A OUTPUT -m conntrack --ctstate NEW -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A OUTPUT -j KUBE-FIREWALL
{firewall}\
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m comment --comment \"kubernetes forwarding rules\" -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -m comment --comment \"kubernetes forwarding conntrack rule\" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FLANNEL-FWD -s {cluster} -m comment --comment \"flanneld forward\" -j ACCEPT
-A FLANNEL-FWD -d {cluster} -m comment --comment \"flanneld forward\" -j ACCEPT
COMMIT
"
    )
}

/// As [`filter_table`]; flannel's part is its `masqRules`.
fn nat_table(
    config: &LabConfig,
    cluster: &IpNet,
    subnet: &IpNet,
    service: IpAddr,
    endpoint: IpAddr,
) -> String {
    let port = config.service_port;
    let backend = match endpoint {
        IpAddr::V4(ip) => format!("{ip}:{}", config.target_port),
        IpAddr::V6(ip) => format!("[{ip}]:{}", config.target_port),
    };
    let svc = format!("KUBE-SVC-{}", chain_hash(&format!("{SERVICE}tcp")));
    let sep = format!("KUBE-SEP-{}", chain_hash(&format!("{SERVICE}tcp{backend}")));
    let service = IpNet::from(service);
    let endpoint = IpNet::from(endpoint);
    let multicast = match cluster {
        IpNet::V4(_) => "224.0.0.0/4",
        IpNet::V6(_) => "ff00::/8",
    };
    format!(
        "\
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:FLANNEL-POSTRTG - [0:0]
:KUBE-MARK-MASQ - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-SERVICES - [0:0]
:{svc} - [0:0]
:{sep} - [0:0]
-A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A POSTROUTING -m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING
-A POSTROUTING -m comment --comment \"flanneld masq\" -j FLANNEL-POSTRTG
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000
-A KUBE-POSTROUTING -m comment --comment \"kubernetes service traffic requiring SNAT\" -j MASQUERADE --random-fully
-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000
-A KUBE-SERVICES -d {service} -p tcp -m comment --comment \"{SERVICE} cluster IP\" -m tcp --dport {port} -j {svc}
-A KUBE-SERVICES -m comment --comment \"kubernetes service nodeports; NOTE: this must be the last rule in this chain\" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
-A {svc} ! -s {cluster} -d {service} -p tcp -m comment --comment \"{SERVICE} cluster IP\" -m tcp --dport {port} -j KUBE-MARK-MASQ
-A {svc} -m comment --comment \"{SERVICE} -> {backend}\" -j {sep}
-A {sep} -s {endpoint} -m comment --comment \"{SERVICE}\" -j KUBE-MARK-MASQ
-A {sep} -p tcp -m comment --comment \"{SERVICE}\" -m tcp -j DNAT --to-destination {backend}
-A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 -m comment --comment \"flanneld masq\" -j RETURN
-A FLANNEL-POSTRTG -s {subnet} -d {cluster} -m comment --comment \"flanneld masq\" -j RETURN
-A FLANNEL-POSTRTG -s {cluster} -d {subnet} -m comment --comment \"flanneld masq\" -j RETURN
-A FLANNEL-POSTRTG ! -s {cluster} -d {subnet} -m comment --comment \"flanneld masq\" -j RETURN
-A FLANNEL-POSTRTG -s {cluster} ! -d {multicast} -m comment --comment \"flanneld masq\" -j MASQUERADE --random-fully
-A FLANNEL-POSTRTG ! -s {cluster} -d {cluster} -m comment --comment \"flanneld masq\" -j MASQUERADE --random-fully
COMMIT
"
    )
}

/// Looks like the hash that kube-proxy puts into chain names (base 32, 16 characters) and is as
/// stable; kube-proxy itself hashes with SHA-256, which nothing depends on.
fn chain_hash(text: &str) -> String {
    // FNV-1a, 128 bits (draft-eastlake-fnv).
    let mut hash: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    for byte in text.bytes() {
        hash ^= u128::from(byte);
        hash = hash.wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
    }
    (0..HASH_LENGTH).map(|i| char::from(BASE32[(hash >> (i * 5)) as usize & 31])).collect()
}

/// A running `iptables-restore`.
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
        let path = find_program(&program).ok_or_else(|| LabError::Missing {
            program: program.clone(),
            package: "iptables".to_owned(),
            otherwise: "build the lab with --firewall none".to_owned(),
        })?;
        let mut child = Command::new(path)
            .args(wait)
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
    fn chain_names_fit_and_differ() {
        let (a, b) = (chain_hash("one"), chain_hash("two"));
        assert_ne!(a, b);
        // iptables allows 28 characters (XT_EXTENSION_MAXNAMELEN - 1).
        assert!(format!("KUBE-SVC-{a}").len() <= 28);
    }
}
