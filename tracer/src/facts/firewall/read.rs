//! Reads the packet filters of the calling thread's namespace with the tools that manage them.

use std::collections::BTreeSet;
use std::fs;

use rtnetlink::sys::protocols::NETLINK_NETFILTER;

use super::super::dump::dump;
use super::super::tool::{self, ToolError};
use super::super::types::{Gap, NetnsFacts};
use super::{
    Backend, Condition, Firewall, Match, Table, TableFamily, ipset, iptables, nft, recent,
};

/// Tables that iptables makes.
const IPTABLES_NAMES: [&str; 5] = ["raw", "mangle", "nat", "filter", "security"];

/// What may decide about packets besides, each with the file that has lines when it is in use.
const NOT_READ: [(&str, &str); 1] = [("arp_tables_names", "rules of arptables-legacy")];

/// Reads all backends; a tool that is needed and missing is a gap.
pub(in super::super) fn read(facts: &mut NetnsFacts) {
    let gaps = &mut facts.gaps;
    let native = nft_tables();
    let mut tables = Vec::new();
    for v6 in [false, true] {
        let family = if v6 { TableFamily::Ip6 } else { TableFamily::Ip };
        let may_be_iptables =
            |t: &Table| t.family == family && IPTABLES_NAMES.contains(&t.name.as_str());
        let needed = native.as_ref().is_ok_and(|all| all.iter().any(may_be_iptables));
        // Without nft, iptables at least knows its own.
        if needed || native.is_err() {
            match save(Backend::IptablesNft, v6) {
                Ok(found) => tables.extend(found),
                Err(ToolError::Missing(_)) if !needed => {}
                Err(e) => gaps.push(gap(Backend::IptablesNft, family, &e.to_string())),
            }
        }
        if legacy_tables(v6) {
            match save(Backend::IptablesLegacy, v6) {
                Ok(found) => tables.extend(found),
                Err(e) => gaps.push(gap(Backend::IptablesLegacy, family, &e.to_string())),
            }
        }
    }
    for (file, source) in NOT_READ {
        if fs::read_to_string(format!("/proc/thread-self/net/{file}"))
            .is_ok_and(|text| !text.trim().is_empty())
        {
            let reason = "podtrace does not read it".to_owned();
            gaps.push(Gap { source: source.to_owned(), reason });
        }
    }
    match native {
        Ok(native) => add_native(&mut tables, native, gaps),
        Err(reason) => gaps.push(Gap { source: "firewall (nft)".to_owned(), reason }),
    }
    let (mut sets, mut lists) = (BTreeSet::new(), BTreeSet::new());
    for rule in tables.iter().flat_map(|t| &t.chains).flat_map(|c| &c.rules) {
        named(&rule.conditions, &mut sets, &mut lists);
    }
    let names: Vec<&str> = sets.into_iter().collect();
    let ipsets = ipset::read(&names, gaps);
    let names: Vec<&str> = lists.into_iter().collect();
    let recent = recent::read(&names, gaps);
    facts.firewall = Firewall { tables, ipsets, recent };
}

/// The names of ipsets and of lists of `-m recent` in conditions. nft has neither.
fn named<'a>(
    conditions: &'a [Condition],
    sets: &mut BTreeSet<&'a str>,
    lists: &mut BTreeSet<&'a str>,
) {
    for condition in conditions {
        match &condition.what {
            Match::IpSet { name, .. } => _ = sets.insert(name),
            Match::Recent(recent) => _ = lists.insert(&recent.list),
            _ => {}
        }
    }
}

/// Whether nftables holds anything here; asking the kernel needs no tool, and takes no time.
fn holds_nothing() -> bool {
    /// NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETTABLE (include/uapi/linux/netfilter/nfnetlink.h and
    /// nf_tables.h).
    const GET_TABLES: u16 = 10 << 8 | 1;
    /// Size of `struct nfgenmsg`, bytes.
    const NFGENMSG: usize = 4;
    let mut any = false;
    let result = dump(NETLINK_NETFILTER, GET_TABLES, &[0; NFGENMSG], |_| {
        any = true;
        false
    });
    result.is_ok() && !any
}

fn nft_tables() -> Result<Vec<Table>, String> {
    if holds_nothing() {
        return Ok(Vec::new());
    }
    let json = tool::output("nft", &["-j", "list", "ruleset"]).map_err(|e| e.to_string())?;
    // An old nft prints nothing at all for an empty ruleset.
    if json.trim().is_empty() { Ok(Vec::new()) } else { nft::parse(&json) }
}

/// Adds the tables of nft, without what iptables has told of already.
fn add_native(tables: &mut Vec<Table>, mut native: Vec<Table>, gaps: &mut Vec<Gap>) {
    for nft in &mut native {
        let same = tables.iter_mut().find(|t| {
            t.backend == Backend::IptablesNft && t.family == nft.family && t.name == nft.name
        });
        if let Some(table) = same {
            share(table, nft);
        }
    }
    native.retain(|t| !t.chains.is_empty());
    if !native.is_empty() {
        match tool::output("nft", &["-a", "list", "ruleset"]) {
            Ok(listing) => nft::add_text(&mut native, &listing),
            Err(e) => {
                let source = "firewall (text of nft rules)".to_owned();
                gaps.push(Gap { source, reason: e.to_string() });
            }
        }
    }
    tables.extend(native);
}

/// Leaves to nft the chains that iptables does not show: base chains that someone added with nft
/// to a table of iptables. In such a table iptables shows built-in chains that are not there.
fn share(table: &mut Table, nft: &mut Table) {
    table.chains.retain(|chain| nft.chain(&chain.name).is_some());
    take_handles(table, nft);
    nft.chains.retain(|chain| table.chain(&chain.name).is_none());
}

/// iptables does not print the kernel's handles; the rules are the same, in the same order.
fn take_handles(table: &mut Table, nft: &Table) {
    for chain in &mut table.chains {
        let Some(same) = nft.chain(&chain.name) else { continue };
        if same.rules.len() == chain.rules.len() {
            for (rule, other) in chain.rules.iter_mut().zip(&same.rules) {
                rule.handle = other.handle;
            }
        }
    }
}

/// Whether the older xtables hold anything here. Asking their tool would create the tables.
fn legacy_tables(v6: bool) -> bool {
    let name = if v6 { "ip6_tables_names" } else { "ip_tables_names" };
    fs::read_to_string(format!("/proc/thread-self/net/{name}")).is_ok_and(|t| !t.trim().is_empty())
}

/// What the tool of one backend prints. Distributions call the same tool by several names.
fn save(backend: Backend, v6: bool) -> Result<Vec<Table>, ToolError> {
    let variant = if backend == Backend::IptablesNft { "nft" } else { "legacy" };
    let stem = if v6 { "ip6tables" } else { "iptables" };
    let text = match tool::output(&format!("{stem}-{variant}-save"), &["-c"]) {
        Err(ToolError::Missing(_)) => tool::output(&format!("{stem}-save"), &["-c"]),
        other => other,
    }?;
    let tables = iptables::parse(&text, v6);
    Ok(tables.into_iter().filter(|t| t.backend == backend).collect())
}

fn gap(backend: Backend, family: TableFamily, reason: &str) -> Gap {
    let source = format!("firewall ({} {})", backend.name(), family.name());
    Gap { source, reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As iptables 1.8.9 prints it for a table whose only chain is a base chain made with nft.
    const FOREIGN: &str = "# Table `filter' contains incompatible base-chains, use 'nft' tool to list them.\n# Generated by iptables-nft-save v1.8.9 (nf_tables) on Wed\n*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n";

    #[test]
    fn base_chains_added_with_nft_to_a_table_of_iptables_are_not_lost() {
        let mut table = iptables::parse(FOREIGN, false).remove(0);
        let json = r#"{"nftables":[{"table":{"family":"ip","name":"filter"}},{"chain":{"family":"ip","table":"filter","name":"FORWARD","type":"filter","hook":"forward","prio":0,"policy":"accept"}},{"chain":{"family":"ip","table":"filter","name":"fw","type":"filter","hook":"forward","prio":0,"policy":"drop"}}]}"#;
        let mut native = nft::parse(json).unwrap().remove(0);
        share(&mut table, &mut native);
        let names = |t: &Table| t.chains.iter().map(|c| c.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&table), ["FORWARD"], "the others are made up");
        assert_eq!(names(&native), ["fw"]);
    }

    #[test]
    fn rules_of_iptables_get_the_kernels_handles() {
        let text = "# Generated by iptables-nft-save v1.8.9 (nf_tables) on Wed\n*filter\n:FORWARD ACCEPT [0:0]\n[0:0] -A FORWARD -j DROP\nCOMMIT\n";
        let mut table = iptables::parse(text, false).remove(0);
        let json = r#"{"nftables":[{"table":{"family":"ip","name":"filter"}},{"chain":{"family":"ip","table":"filter","name":"FORWARD","type":"filter","hook":"forward","prio":0,"policy":"accept"}},{"rule":{"family":"ip","table":"filter","chain":"FORWARD","handle":9,"expr":[{"drop":null}]}}]}"#;
        let mut native = nft::parse(json).unwrap().remove(0);
        share(&mut table, &mut native);
        assert_eq!(table.chains[0].rules[0].handle, Some(9));
        assert!(native.chains.is_empty());
    }
}
