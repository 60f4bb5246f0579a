//! Reads the packet filters of the calling thread's namespace with the tools that manage them.

use std::fs;

use super::super::tool::{self, ToolError};
use super::super::types::{Gap, NetnsFacts};
use super::{Backend, Table, TableFamily, iptables};

/// Reads all backends; a tool that is needed and missing is a gap.
pub(in super::super) fn read(facts: &mut NetnsFacts) {
    let gaps = &mut facts.gaps;
    let tables = &mut facts.firewall.tables;
    for v6 in [false, true] {
        if let Some(found) = save(Backend::IptablesNft, v6, gaps) {
            tables.extend(found);
        }
        if legacy_tables(v6)
            && let Some(found) = save(Backend::IptablesLegacy, v6, gaps)
        {
            tables.extend(found);
        }
    }
}

/// Whether the older xtables hold anything here. Asking their tool would create the tables.
fn legacy_tables(v6: bool) -> bool {
    let name = if v6 { "ip6_tables_names" } else { "ip_tables_names" };
    fs::read_to_string(format!("/proc/thread-self/net/{name}")).is_ok_and(|t| !t.trim().is_empty())
}

/// What the tool of one backend prints. Distributions call the same tool by several names.
fn save(backend: Backend, v6: bool, gaps: &mut Vec<Gap>) -> Option<Vec<Table>> {
    let variant = if backend == Backend::IptablesNft { "nft" } else { "legacy" };
    let stem = if v6 { "ip6tables" } else { "iptables" };
    let special = format!("{stem}-{variant}-save");
    let result = match tool::output(&special, &["-c"]) {
        Err(ToolError::Missing(_)) => tool::output(&format!("{stem}-save"), &["-c"]),
        other => other,
    };
    let family = if v6 { TableFamily::Ip6 } else { TableFamily::Ip };
    let source = || format!("firewall ({} {})", backend.name(), family.name());
    match result {
        Ok(text) => {
            let tables = iptables::parse(&text, v6);
            Some(tables.into_iter().filter(|t| t.backend == backend).collect())
        }
        Err(e) => {
            gaps.push(Gap { source: source(), reason: e.to_string() });
            None
        }
    }
}
