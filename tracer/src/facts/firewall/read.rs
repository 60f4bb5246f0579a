//! Reads the packet filters of the calling thread's namespace with the tools that manage them.

use std::fs;

use super::super::tool::{self, ToolError};
use super::super::types::{Gap, NetnsFacts};
use super::{Backend, Table, TableFamily, iptables, nft};

/// Tables that iptables makes.
const IPTABLES_NAMES: [&str; 5] = ["raw", "mangle", "nat", "filter", "security"];

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
    match native {
        Ok(native) => add_native(&mut tables, native, gaps),
        Err(reason) => gaps.push(Gap { source: "firewall (nft)".to_owned(), reason }),
    }
    facts.firewall.tables = tables;
}

fn nft_tables() -> Result<Vec<Table>, String> {
    let json = tool::output("nft", &["-j", "list", "ruleset"]).map_err(|e| e.to_string())?;
    // An old nft prints nothing at all for an empty ruleset.
    if json.trim().is_empty() { Ok(Vec::new()) } else { nft::parse(&json) }
}

/// Adds the tables of nft, without those that iptables has told of already.
fn add_native(tables: &mut Vec<Table>, mut native: Vec<Table>, gaps: &mut Vec<Gap>) {
    native.retain(|nft| {
        let same = tables.iter_mut().find(|t| {
            t.backend == Backend::IptablesNft && t.family == nft.family && t.name == nft.name
        });
        same.is_none_or(|table| {
            take_handles(table, nft);
            false
        })
    });
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
