//! Whose rule it is, by the names that programs give their chains and sets. Pure.
//!
//! What a program has written it writes anew: to change it by hand helps for a moment, and breaks
//! what the program keeps. So advice is in terms of the program.

use super::comments;
use crate::expect::firewall::Decision;

/// A program that keeps rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Owner {
    /// kube-proxy (pkg/proxy/iptables, pkg/proxy/nftables), and the kubelet's KUBE-FIREWALL.
    KubeProxy,
    /// kube-router, k3s's network policies too.
    KubeRouter,
    /// Calico's Felix, in Canal too.
    Calico,
    /// Cilium.
    Cilium,
    /// flannel (pkg/trafficmngr).
    Flannel,
    /// CNI plugins: portmap, bridge, firewall.
    Cni,
    /// Docker.
    Docker,
    /// fail2ban.
    Fail2ban,
    /// ufw.
    Ufw,
    /// firewalld.
    Firewalld,
    /// libvirt.
    Libvirt,
}

/// How names of their chains begin. KUBE-ROUTER comes before KUBE.
const PREFIXES: [(&str, Owner); 24] = [
    ("KUBE-ROUTER-", Owner::KubeRouter),
    ("KUBE-POD-FW-", Owner::KubeRouter),
    ("KUBE-NWPLCY-", Owner::KubeRouter),
    ("KUBE-SRC-", Owner::KubeRouter),
    ("KUBE-DST-", Owner::KubeRouter),
    ("KUBE-", Owner::KubeProxy),
    ("cali-", Owner::Calico),
    ("filter-cali-", Owner::Calico),
    ("cali40", Owner::Calico),
    ("cali60", Owner::Calico),
    ("CILIUM_", Owner::Cilium),
    ("OLD_CILIUM_", Owner::Cilium),
    ("FLANNEL-", Owner::Flannel),
    ("CNI-", Owner::Cni),
    ("DOCKER", Owner::Docker),
    ("f2b-", Owner::Fail2ban),
    ("addr-set-", Owner::Fail2ban),
    ("ufw-", Owner::Ufw),
    ("ufw6-", Owner::Ufw),
    ("filter_FW", Owner::Firewalld),
    ("filter_IN", Owner::Firewalld),
    ("filter_FORWARD", Owner::Firewalld),
    ("filter_INPUT", Owner::Firewalld),
    ("LIBVIRT_", Owner::Libvirt),
];

/// Tables of nft that belong to one program.
const TABLES: [(&str, Owner); 9] = [
    ("kube-proxy", Owner::KubeProxy),
    ("calico", Owner::Calico),
    ("flannel-ipv4", Owner::Flannel),
    ("flannel-ipv6", Owner::Flannel),
    ("cni_hostport", Owner::Cni),
    ("cni_plugins_masquerade", Owner::Cni),
    ("f2b-table", Owner::Fail2ban),
    ("firewalld", Owner::Firewalld),
    ("libvirt_network", Owner::Libvirt),
];

/// What rules of programs in built-in chains say about themselves.
const COMMENTS: [(&str, Owner); 7] = [
    ("kube-router netpol", Owner::KubeRouter),
    ("kubernetes ", Owner::KubeProxy),
    (" has no endpoints", Owner::KubeProxy),
    (" has no local endpoints", Owner::KubeProxy),
    ("cali:", Owner::Calico),
    ("flanneld ", Owner::Flannel),
    ("CNI ", Owner::Cni),
];

impl Owner {
    /// Whose a decision's rule is; `None`: nobody's that is known. A policy is the administrator's,
    /// whoever else uses the chain.
    pub fn of(decision: &Decision) -> Option<Self> {
        let rule = decision.rule.as_ref()?;
        Self::named(&decision.table, &decision.chain, &rule.text)
    }

    /// Whose a rule is, by its table, its chain and its text.
    pub fn named(table: &str, chain: &str, rule: &str) -> Option<Self> {
        let by_table = TABLES.iter().find(|(name, _)| *name == table);
        let by_chain = || PREFIXES.iter().find(|(prefix, _)| chain.starts_with(prefix));
        let by_comment = || {
            let said = comments(rule);
            COMMENTS.iter().find(|(words, _)| said.iter().any(|c| c.contains(words)))
        };
        let found = by_table.or_else(by_chain).or_else(by_comment);
        found.map(|(_, owner)| *owner)
    }

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::KubeProxy => "kube-proxy",
            Self::KubeRouter => "kube-router",
            Self::Calico => "Calico",
            Self::Cilium => "Cilium",
            Self::Flannel => "flannel",
            Self::Cni => "the CNI plugins",
            Self::Docker => "Docker",
            Self::Fail2ban => "fail2ban",
            Self::Ufw => "ufw",
            Self::Firewalld => "firewalld",
            Self::Libvirt => "libvirt",
        }
    }
}
