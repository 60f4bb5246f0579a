//! Tables of the network state.

use super::Extras;
use crate::facts::{self, Change, Difference, NetnsFacts, PathFacts};

/// Rows of a table that are shown.
const ROWS: usize = 200;
/// Changes that are shown.
const CHANGES: usize = 200;

/// A namespace.
pub(super) struct Space {
    pub title: String,
    pub tables: Vec<Table>,
}

/// A table of it.
pub(super) struct Table {
    pub title: &'static str,
    pub head: &'static [&'static str],
    pub rows: Vec<Vec<String>>,
}

/// A value, or nothing.
fn text<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(String::new, |v| v.to_string())
}

/// What is known of each namespace.
pub(super) fn spaces(facts: &PathFacts) -> Vec<Space> {
    facts
        .spaces
        .iter()
        .map(|space| Space {
            title: format!("{} ({})", space.title(), space.facts.name),
            tables: tables(&space.facts).into_iter().filter(|t| !t.rows.is_empty()).collect(),
        })
        .collect()
}

fn tables(facts: &NetnsFacts) -> Vec<Table> {
    let dev = |index: u32| {
        facts.link(index).map_or_else(|| format!("if{index}"), |link| link.name.clone())
    };
    let yes = |is: bool| if is { "yes" } else { "no" }.to_owned();
    let links = facts.links.iter().filter(|l| !l.loopback).map(|l| {
        let addresses: Vec<String> =
            facts.addresses_of(l.index).map(|net| net.to_string()).collect();
        vec![
            l.name.clone(),
            text(l.kind.as_ref()),
            text(l.mac),
            l.mtu.to_string(),
            yes(l.up),
            yes(l.lower_up),
            text(l.master.map(dev)),
            addresses.join(", "),
        ]
    });
    let vxlan =
        facts.links.iter().filter_map(|l| l.vxlan.as_ref().map(|v| (l, v))).map(|(l, v)| {
            vec![
                l.name.clone(),
                v.vni.to_string(),
                v.port.to_string(),
                text(v.local),
                text(v.lower_ifindex.map(dev)),
                yes(v.learning),
            ]
        });
    let routes = facts.routes.iter().filter(|r| r.table != 255).map(|r| {
        vec![
            r.dst.to_string(),
            text(r.gateway),
            text(r.oif.map(dev)),
            format!("{:?}", r.kind).to_lowercase(),
            r.table.to_string(),
            text(r.prefsrc),
        ]
    });
    let neighbors = facts.neighbors.iter().map(|n| {
        vec![n.ip.to_string(), text(n.mac), dev(n.ifindex), format!("{:?}", n.state).to_lowercase()]
    });
    let fdb =
        facts.fdb.iter().filter(|f| f.dst.is_some() || !f.permanent).map(|f| {
            vec![f.mac.to_string(), dev(f.ifindex), text(f.dst), text(f.vni), text(f.port)]
        });
    let table = |title, head, rows: &mut dyn Iterator<Item = Vec<String>>| Table {
        title,
        head,
        rows: rows.take(ROWS).collect(),
    };
    vec![
        table(
            "Interfaces",
            &["name", "kind", "MAC", "MTU", "up", "carrier", "port of", "addresses"],
            &mut { links },
        ),
        table("VXLAN", &["name", "VNI", "port", "local", "lower", "learning"], &mut { vxlan }),
        table("Routes", &["to", "via", "dev", "kind", "table", "source"], &mut { routes }),
        table("Neighbours", &["address", "MAC", "dev", "state"], &mut { neighbors }),
        table("Forwarding", &["MAC", "dev", "tunnel to", "VNI", "port"], &mut { fdb }),
        table(
            "Not readable",
            &["what", "why"],
            &mut facts.gaps.iter().map(|g| vec![g.source.clone(), g.reason.clone()]),
        ),
    ]
}

/// What changed during the trace: where and what.
pub(super) fn changes(extras: Extras<'_>) -> Vec<(String, String)> {
    let (Some(before), Some(after)) = (extras.before, extras.after) else { return Vec::new() };
    facts::diff(before, after)
        .iter()
        .take(CHANGES)
        .map(|difference| (whose(difference), what(&difference.change)))
        .collect()
}

fn whose(difference: &Difference) -> String {
    match &difference.pod {
        Some(pod) => format!("{}.{pod}", difference.node),
        None => difference.node.clone(),
    }
}

fn what(change: &Change) -> String {
    match change {
        Change::Counter { name, by } => format!("{name} +{by}"),
        Change::LinkCounter { interface, name, by, .. } => format!("{interface} {name} +{by}"),
        Change::QdiscCounter { interface, kind, handle, name, by } => {
            format!("{interface} qdisc {kind} {handle} {name} +{by}")
        }
        Change::ConntrackCounter { name, by } => format!("conntrack {name} +{by}"),
        Change::RuleCounter { rule, packets, .. } => {
            format!("{} {}: {} +{packets} packets", rule.table, rule.chain, rule.text)
        }
        // The rest is told by its fields.
        other => serde_json::to_string(other).unwrap_or_default(),
    }
}
