//! Compares table by table.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::Hash;

use super::super::firewall::{Chain, Counter, Firewall, Policy, Table};
use super::super::types::{Link, NeighborState, NetnsFacts};
use super::super::{LinkStats, PathFacts, Qdisc};
use super::{Change, Difference, Entry, RulePlace};

/// What changed from `before` to `after`: configuration first, counters last, namespaces in the
/// order of `before`. A namespace that is in one of them only is left out, and so is a table that
/// one of them could not read.
pub fn diff(before: &PathFacts, after: &PathFacts) -> Vec<Difference> {
    let mut differences = Vec::new();
    for old in &before.spaces {
        let Some(new) = after.space(old.facts.inum) else { continue };
        differences.extend(changes(&old.facts, &new.facts).into_iter().map(|change| Difference {
            netns: old.facts.inum,
            node: old.node.clone(),
            pod: old.pod.clone(),
            change,
        }));
    }
    differences.sort_by_key(|d| d.change.is_counter());
    differences
}

impl Change {
    /// A number went up, rather than a table or a parameter being different.
    pub fn is_counter(&self) -> bool {
        match self {
            Self::Counter { .. }
            | Self::LinkCounter { .. }
            | Self::QdiscCounter { .. }
            | Self::ConntrackCounter { .. }
            | Self::RuleCounter { .. }
            | Self::SocketDrops { .. } => true,
            Self::FirewallRule(_)
            | Self::Sysctl { .. }
            | Self::Link(_)
            | Self::Address(_)
            | Self::Route(_)
            | Self::Rule(_)
            | Self::Neighbor { .. }
            | Self::Fdb(_) => false,
        }
    }
}

/// In one namespace.
fn changes(before: &NetnsFacts, after: &NetnsFacts) -> Vec<Change> {
    let mut found = Vec::new();
    // A source that failed once would look like a table that became empty.
    let read = |source: &str| !before.has_gap(source) && !after.has_gap(source);
    if read("interfaces") {
        let entries = entries(&before.links, &after.links, |l| l.index, configuration);
        found.extend(entries.map(|e| Change::Link(boxed(e))));
    }
    if read("addresses") {
        let key = |a: &super::Address| (a.ifindex, a.net);
        found.extend(
            entries(&before.addresses, &after.addresses, key, |a| a.tentative).map(Change::Address),
        );
    }
    let routes = ["IPv4 routes", "IPv6 routes"].into_iter().all(read);
    if routes {
        let key = |r: &super::Route| (r.table, r.dst, r.tos, r.priority);
        let entries = entries(&before.routes, &after.routes, key, Clone::clone);
        found.extend(entries.map(Change::Route));
    }
    if ["IPv4 rules", "IPv6 rules"].into_iter().all(read) {
        let whole = |r: &super::Rule| format!("{r:?}");
        found.extend(entries(&before.rules, &after.rules, whole, |_| ()).map(Change::Rule));
    }
    if read("neighbours") {
        let key = |n: &super::NeighborEntry| (n.ifindex, n.ip);
        let entries =
            entries(&before.neighbors, &after.neighbors, key, |n| (n.mac, settled(n.state)));
        found.extend(entries.filter_map(|entry| {
            let ip = entry.after.as_ref().or(entry.before.as_ref())?.ip;
            Some(Change::Neighbor { ip, entry })
        }));
    }
    if read("forwarding database") {
        let key = |e: &super::FdbEntry| (e.ifindex, e.mac, e.master, e.own, e.dst);
        let entries = entries(&before.fdb, &after.fdb, key, |e| (e.via, e.vni, e.port));
        found.extend(entries.map(Change::Fdb));
    }
    if read("sysctls") {
        found.extend(sysctls(&before.sysctls, &after.sysctls));
    }
    // A tool that is missing was so both times; then what the others show can be compared.
    if gaps(before, "firewall").eq(gaps(after, "firewall")) {
        firewall(&before.firewall, &after.firewall, &mut found);
    }
    counters(before, after, &mut found);
    found
}

/// What could not be read, among sources whose names begin so.
fn gaps<'a>(facts: &'a NetnsFacts, source: &'a str) -> impl Iterator<Item = &'a str> {
    facts.gaps.iter().map(|g| g.source.as_str()).filter(move |s| s.starts_with(source))
}

/// Rows that came, went, or are different in what `value` tells of them, in the order of `after`,
/// those that went last. Rows with the same key are told apart by their number.
fn entries<T: Clone, K: Hash + Eq, V: PartialEq>(
    before: &[T],
    after: &[T],
    key: impl Fn(&T) -> K,
    value: impl Fn(&T) -> V,
) -> impl Iterator<Item = Entry<T>> {
    let numbered = |rows: &[T]| {
        let mut seen: HashMap<K, usize> = HashMap::new();
        let rows: Vec<((K, usize), T)> = rows
            .iter()
            .map(|row| {
                let number = seen.entry(key(row)).or_default();
                *number += 1;
                ((key(row), *number), row.clone())
            })
            .collect();
        rows
    };
    let (old, new) = (numbered(before), numbered(after));
    let known: HashMap<&(K, usize), &T> = old.iter().map(|(key, row)| (key, row)).collect();
    let kept: HashSet<&(K, usize)> = new.iter().map(|(key, _)| key).collect();
    let mut found = Vec::new();
    for (key, row) in &new {
        let before = known.get(key).copied();
        if before.is_none_or(|before| value(before) != value(row)) {
            found.push(Entry { before: before.cloned(), after: Some(row.clone()) });
        }
    }
    for (key, row) in &old {
        if !kept.contains(key) {
            found.push(Entry { before: Some(row.clone()), after: None });
        }
    }
    found.into_iter()
}

/// An interface without what counts.
fn configuration(link: &Link) -> Link {
    Link { stats: None, ..link.clone() }
}

fn boxed(entry: Entry<Link>) -> Entry<Box<Link>> {
    Entry { before: entry.before.map(Box::new), after: entry.after.map(Box::new) }
}

/// The states between "confirmed" and "to be confirmed again" come and go with any traffic.
fn settled(state: NeighborState) -> NeighborState {
    match state {
        NeighborState::Stale | NeighborState::Delay | NeighborState::Probe => {
            NeighborState::Reachable
        }
        state => state,
    }
}

fn sysctls<'a>(
    before: &'a BTreeMap<String, String>,
    after: &'a BTreeMap<String, String>,
) -> impl Iterator<Item = Change> + 'a {
    let names: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    names.into_iter().filter_map(|name| {
        let value = Entry { before: before.get(name).cloned(), after: after.get(name).cloned() };
        (value.before != value.after).then(|| Change::Sysctl { name: name.clone(), value })
    })
}

/// A rule or policy with what it counted.
type Counted = (RulePlace, Option<Counter>);

fn firewall(before: &Firewall, after: &Firewall, found: &mut Vec<Change>) {
    let (old, new) = (rules(before), rules(after));
    // Position moves when a rule is inserted above; text (without counters) stays.
    let key = |(place, _): &Counted| {
        (
            place.backend,
            place.family,
            place.table.clone(),
            place.chain.clone(),
            is_policy(place),
            place.text.clone(),
        )
    };
    let place = |entry: Entry<Counted>| {
        Change::FirewallRule(Entry {
            before: entry.before.map(|c| c.0),
            after: entry.after.map(|c| c.0),
        })
    };
    found.extend(entries(&old, &new, key, |_| ()).map(place));
    for entry in entries(&old, &new, key, |(_, counter)| *counter) {
        if let (Some((_, Some(old))), Some((rule, Some(new)))) = (entry.before, entry.after)
            && let Some(packets) = new.packets.checked_sub(old.packets).filter(|by| *by > 0)
        {
            let bytes = new.bytes.saturating_sub(old.bytes);
            found.push(Change::RuleCounter { rule, packets, bytes });
        }
    }
}

fn is_policy(place: &RulePlace) -> bool {
    place.position.is_none()
}

fn rules(firewall: &Firewall) -> Vec<Counted> {
    let mut all = Vec::new();
    for table in &firewall.tables {
        for chain in &table.chains {
            all.extend(rules_of(table, chain));
        }
    }
    all
}

fn rules_of(table: &Table, chain: &Chain) -> impl Iterator<Item = Counted> {
    let place = |position, text: String| RulePlace {
        backend: table.backend,
        family: table.family,
        table: table.name.clone(),
        chain: chain.name.clone(),
        position,
        text,
    };
    let policy = chain.base.as_ref().map(|base| {
        let text = match base.policy {
            Policy::Accept => "policy accept",
            Policy::Drop => "policy drop",
        };
        (place(None, text.to_owned()), base.counter)
    });
    let rules = chain.rules.iter().enumerate().map(move |(position, rule)| {
        (place(Some(position), without_counters(&rule.text)), rule.counter)
    });
    policy.into_iter().chain(rules)
}

/// nft prints a rule's counters within it: `counter packets 5 bytes 420 drop` → `counter drop`.
pub(super) fn without_counters(text: &str) -> String {
    const START: &str = "counter packets ";
    let Some((before, rest)) = text.split_once(START) else { return text.to_owned() };
    let mut words = rest.splitn(4, ' ');
    match (words.next(), words.next(), words.next()) {
        (Some(packets), Some("bytes"), Some(bytes))
            if packets.parse::<u64>().is_ok() && bytes.parse::<u64>().is_ok() =>
        {
            match words.next() {
                Some(after) => format!("{before}counter {after}"),
                None => format!("{before}counter"),
            }
        }
        _ => text.to_owned(),
    }
}

fn counters(before: &NetnsFacts, after: &NetnsFacts, found: &mut Vec<Change>) {
    let rises = |old: &BTreeMap<String, u64>, new: &BTreeMap<String, u64>| -> Vec<(String, u64)> {
        let rise = |(name, new): (&String, &u64)| {
            // What was not there before was zero: some counters appear with their first event.
            let by = new.checked_sub(old.get(name).copied().unwrap_or_default())?;
            (by > 0).then(|| (name.clone(), by))
        };
        new.iter().filter_map(rise).collect()
    };
    if !before.counters.is_empty() {
        let all = rises(&before.counters, &after.counters).into_iter();
        found.extend(all.map(|(name, by)| Change::Counter { name, by }));
    }
    if let (Some(old), Some(new)) = (&before.conntrack, &after.conntrack) {
        let all = rises(&old.stats, &new.stats).into_iter();
        found.extend(all.map(|(name, by)| Change::ConntrackCounter { name, by }));
    }
    for new in &after.links {
        let old = before.link(new.index).filter(|old| old.name == new.name);
        if let (Some(old), Some(stats)) = (old.and_then(|l| l.stats), new.stats) {
            found.extend(link_counters(&old, &stats).map(|(name, by)| Change::LinkCounter {
                ifindex: new.index,
                interface: new.name.clone(),
                name: name.to_owned(),
                by,
            }));
        }
    }
    for new in &after.qdiscs {
        let same = |q: &&Qdisc| {
            (q.ifindex, &q.kind, &q.handle, &q.parent)
                == (new.ifindex, &new.kind, &new.handle, &new.parent)
        };
        let Some(old) = before.qdiscs.iter().find(same) else { continue };
        let interface = after.link(new.ifindex).map(|l| l.name.clone()).unwrap_or_default();
        for (name, old, new_value) in [
            ("drops", old.drops, new.drops),
            ("overlimits", old.overlimits, new.overlimits),
            ("requeues", old.requeues, new.requeues),
        ] {
            if let Some(by) = new_value.checked_sub(old).filter(|by| *by > 0) {
                found.push(Change::QdiscCounter {
                    interface: interface.clone(),
                    kind: new.kind.clone(),
                    handle: new.handle.clone(),
                    name: name.to_owned(),
                    by,
                });
            }
        }
    }
    for new in &after.sockets {
        let old = before.sockets.iter().find(|s| s.inode == new.inode && s.local == new.local);
        if let (Some(old), Some(drops)) = (old.and_then(|s| s.drops), new.drops)
            && let Some(by) = drops.checked_sub(old).filter(|by| *by > 0)
        {
            found.push(Change::SocketDrops { local: new.local, by });
        }
    }
}

fn link_counters(
    old: &LinkStats,
    new: &LinkStats,
) -> impl Iterator<Item = (&'static str, u64)> + use<> {
    [
        ("rx_packets", old.rx_packets, new.rx_packets),
        ("tx_packets", old.tx_packets, new.tx_packets),
        ("rx_bytes", old.rx_bytes, new.rx_bytes),
        ("tx_bytes", old.tx_bytes, new.tx_bytes),
        ("rx_errors", old.rx_errors, new.rx_errors),
        ("tx_errors", old.tx_errors, new.tx_errors),
        ("rx_dropped", old.rx_dropped, new.rx_dropped),
        ("tx_dropped", old.tx_dropped, new.tx_dropped),
        ("rx_nohandler", old.rx_nohandler, new.rx_nohandler),
        ("tx_carrier_errors", old.tx_carrier_errors, new.tx_carrier_errors),
    ]
    .into_iter()
    .filter_map(|(name, old, new)| Some((name, new.checked_sub(old).filter(|by| *by > 0)?)))
}
