//! Packet filters as one model, whichever tool wrote them: nft, iptables on nftables, or legacy
//! iptables.
//!
//! Nothing that decides about a packet is left out: what is not understood is
//! [`Match::Unknown`] or [`Action::Unknown`], with its text.

pub mod ipset;
pub mod iptables;
pub mod nft;
mod read;
pub mod recent;
mod rule;
mod words;

use serde::{Deserialize, Serialize};

pub use ipset::{IpSet, IpSetEntry, IpSetPart};
pub(super) use read::read;
pub use recent::{RecentEntry, RecentList};
pub use rule::{
    Action, AddressRange, Choice, Condition, Counter, CtState, FirewallRule, Match, NamePattern,
    PortRange, RecentMatch,
};

/// All packet-filter tables of a namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Firewall {
    /// Tables, in the order in which their tools list them.
    pub tables: Vec<Table>,
    /// The ipsets that rules name, and those that are members of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ipsets: Vec<IpSet>,
    /// The lists of `-m recent` that rules name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recent: Vec<RecentList>,
}

/// Whose table it is: which tool shows and changes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Backend {
    /// `nft`.
    Nft,
    /// `iptables-nft`: the kernel's nftables, written by `iptables`.
    IptablesNft,
    /// `iptables-legacy`: the kernel's older xtables.
    IptablesLegacy,
}

impl Backend {
    /// As in the serialized form.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nft => "nft",
            Self::IptablesNft => "iptables-nft",
            Self::IptablesLegacy => "iptables-legacy",
        }
    }
}

/// Which packets a table sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TableFamily {
    /// IPv4.
    Ip,
    /// IPv6.
    Ip6,
    /// IPv4 and IPv6.
    Inet,
    /// ARP.
    Arp,
    /// Frames that cross a bridge.
    Bridge,
    /// Everything at the ingress or egress of a device.
    Netdev,
}

impl TableFamily {
    /// As nft writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
            Self::Inet => "inet",
            Self::Arp => "arp",
            Self::Bridge => "bridge",
            Self::Netdev => "netdev",
        }
    }
}

/// A table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Whose.
    pub backend: Backend,
    /// Which packets it sees.
    pub family: TableFamily,
    /// Name: `filter`.
    pub name: String,
    /// Chains.
    pub chains: Vec<Chain>,
}

impl Table {
    /// The chain with this name.
    pub fn chain(&self, name: &str) -> Option<&Chain> {
        self.chains.iter().find(|c| c.name == name)
    }
}

/// A chain of rules.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    /// Name: `FORWARD`.
    pub name: String,
    /// How packets get here; `None`: only by a jump.
    pub base: Option<BaseChain>,
    /// Rules in order.
    pub rules: Vec<FirewallRule>,
}

/// Where in the stack a chain is called (`NF_INET_*`, include/uapi/linux/netfilter.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NfHook {
    /// At a device, before everything else.
    Ingress,
    /// Before routing.
    Prerouting,
    /// To this host.
    Input,
    /// Through this host.
    Forward,
    /// From this host.
    Output,
    /// After routing.
    Postrouting,
    /// At a device, after everything else.
    Egress,
}

impl NfHook {
    /// As nft writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Prerouting => "prerouting",
            Self::Input => "input",
            Self::Forward => "forward",
            Self::Output => "output",
            Self::Postrouting => "postrouting",
            Self::Egress => "egress",
        }
    }
}

/// What makes a chain be called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseChain {
    /// Where.
    pub hook: NfHook,
    /// Lower comes first.
    pub priority: i32,
    /// `filter`, `nat` or `route`.
    pub kind: String,
    /// What happens to a packet that no rule decides about: it passes, or is dropped.
    pub policy: Policy,
    /// Packets that met the policy; `None`: not counted.
    pub counter: Option<Counter>,
    /// Only for these devices (ingress and egress); empty: for all.
    pub devices: Vec<String>,
}

/// What a base chain does in the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// Passes.
    #[default]
    Accept,
    /// Drops.
    Drop,
}

/// A base chain with its table, as [`Firewall::chains_at`] lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hooked<'a> {
    /// Table.
    pub table: &'a Table,
    /// Chain.
    pub chain: &'a Chain,
    /// Its hook.
    pub base: &'a BaseChain,
}

impl Firewall {
    /// Whether there is any table.
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// The table of that family and name.
    pub fn table(&self, backend: Backend, family: TableFamily, name: &str) -> Option<&Table> {
        self.tables.iter().find(|t| t.backend == backend && t.family == family && t.name == name)
    }

    /// The ipset with this name, if it was read.
    pub fn ipset(&self, name: &str) -> Option<&IpSet> {
        self.ipsets.iter().find(|set| set.name == name)
    }

    /// The base chains that a packet of a family meets at a hook, in the order of evaluation.
    ///
    /// `family` is that of the packet: `Ip` and `Ip6` include tables of family inet, `Netdev`
    /// includes the ingress chains of family inet. Among equal priorities the kernel calls the
    /// chain that was registered last first (net/netfilter/core.c, nf_hook_entries_grow), which
    /// the tools do not tell; they are listed as the tools do.
    pub fn chains_at(&self, family: TableFamily, hook: NfHook) -> Vec<Hooked<'_>> {
        let at_device = matches!(hook, NfHook::Ingress | NfHook::Egress);
        let sees = |table: TableFamily| {
            table == family
                || table == TableFamily::Inet
                    && match family {
                        TableFamily::Ip | TableFamily::Ip6 => !at_device,
                        TableFamily::Netdev => at_device,
                        _ => false,
                    }
        };
        let mut found: Vec<Hooked<'_>> = self
            .tables
            .iter()
            .filter(|t| sees(t.family))
            .flat_map(|table| {
                table.chains.iter().filter_map(move |chain| {
                    let base = chain.base.as_ref().filter(|b| b.hook == hook)?;
                    Some(Hooked { table, chain, base })
                })
            })
            .collect();
        found.sort_by_key(|h| h.base.priority);
        found
    }
}

#[cfg(test)]
mod tests;
