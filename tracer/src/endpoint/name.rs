//! Understands what the user typed, against the inventory. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::{EndpointError, label};
use crate::inventory::{Inventory, Node, Pod};

/// What an endpoint's text means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Target<'a> {
    /// A pod of the inventory, and the one address that was asked for, if it was an address.
    Pod(&'a Node, &'a Pod, Option<IpAddr>),
    /// A node of the inventory.
    Node(&'a Node),
    /// An address that no pod of the inventory has.
    Address(IpAddr),
}

pub(super) fn understand<'a>(
    text: &str,
    inventory: Option<&'a Inventory>,
) -> Result<Target<'a>, EndpointError> {
    let text = text.trim();
    if let Ok(ip) = text.parse::<IpAddr>() {
        return address(text, ip, inventory);
    }
    let syntax = || EndpointError::Syntax(text.to_owned());
    if text.is_empty() || text.contains(char::is_whitespace) {
        return Err(syntax());
    }
    let inventory = inventory.ok_or_else(|| EndpointError::NoInventory(text.to_owned()))?;
    if let Some(node) = node_of(text, inventory)? {
        return Ok(Target::Node(node));
    }
    let (node, pod) = match text.split_once('/') {
        Some((namespace, pod)) if namespace.is_empty() || pod.is_empty() || pod.contains('/') => {
            return Err(syntax());
        }
        Some((namespace, pod)) => in_namespace(text, namespace, pod, inventory)?,
        None => match node_and_rest(text, inventory) {
            Some((node, pod)) => on_node(text, node, pod)?,
            None => anywhere(text, inventory)?,
        },
    };
    Ok(Target::Pod(node, pod, None))
}

/// The node that is named so, as `NODE` or `node/NODE`.
fn node_of<'a>(text: &str, inventory: &'a Inventory) -> Result<Option<&'a Node>, EndpointError> {
    let named = |name: &str| inventory.nodes.iter().find(|n| n.name == name);
    if let Some(name) = text.strip_prefix("node/") {
        // A namespace may be called so.
        let namespace = inventory.pods().any(|(_, pod)| pod.namespace == "node");
        return match named(name) {
            None if !namespace => Err(EndpointError::Node {
                node: name.to_owned(),
                nodes: list(inventory.nodes.iter().map(|n| n.name.as_str())),
            }),
            found => Ok(found),
        };
    }
    let Some(node) = named(text) else { return Ok(None) };
    let on_other = |(other, pod): &(&Node, &Pod)| {
        pod.name == text || text == format!("{}.{}", other.name, pod.name)
    };
    match inventory.pods().find(on_other) {
        Some((other, pod)) => Err(EndpointError::Ambiguous {
            text: text.to_owned(),
            candidates: format!("node/{text}, {}", label(other, pod)),
        }),
        None => Ok(Some(node)),
    }
}

fn address<'a>(
    text: &str,
    ip: IpAddr,
    inventory: Option<&'a Inventory>,
) -> Result<Target<'a>, EndpointError> {
    let pods = inventory.into_iter().flat_map(Inventory::pods);
    let holders: Vec<_> = pods.filter(|(_, pod)| pod.ips.contains(&ip)).collect();
    // Several pods of one node share an address by using the node's network.
    let shared = holders.iter().all(|(node, _)| node.name == holders[0].0.name);
    if holders.len() > 1 && shared {
        return Ok(Target::Address(ip));
    }
    match only(text, holders.into_iter())? {
        Some((node, pod)) => Ok(Target::Pod(node, pod, Some(ip))),
        None => Ok(Target::Address(ip)),
    }
}

/// Splits `NODE.POD`; node names may contain dots, so the longest that fits wins.
fn node_and_rest<'a, 't>(text: &'t str, inventory: &'a Inventory) -> Option<(&'a Node, &'t str)> {
    inventory
        .nodes
        .iter()
        .filter_map(|node| {
            let pod = text.strip_prefix(node.name.as_str())?.strip_prefix('.')?;
            Some((node, pod)).filter(|_| !pod.is_empty())
        })
        .max_by_key(|(node, _)| node.name.len())
}

fn on_node<'a>(
    text: &str,
    node: &'a Node,
    pod: &str,
) -> Result<(&'a Node, &'a Pod), EndpointError> {
    let all = node.pods.iter().map(|p| (node, p));
    only(text, all.filter(|(_, p)| p.name == pod))?.ok_or_else(|| EndpointError::PodOnNode {
        pod: pod.to_owned(),
        node: node.name.clone(),
        near: nearest(pod, node.pods.iter().map(|p| p.name.clone())),
    })
}

fn in_namespace<'a>(
    text: &str,
    namespace: &str,
    pod: &str,
    inventory: &'a Inventory,
) -> Result<(&'a Node, &'a Pod), EndpointError> {
    let there = || inventory.pods().filter(|(_, p)| p.namespace == namespace);
    if there().next().is_none() {
        let all: BTreeSet<_> = inventory.pods().map(|(_, p)| p.namespace.as_str()).collect();
        return Err(EndpointError::Namespace {
            namespace: namespace.to_owned(),
            namespaces: list(all),
        });
    }
    only(text, there().filter(|(_, p)| p.name == pod))?.ok_or_else(|| {
        let near = nearest(pod, there().map(|(_, p)| p.name.clone()));
        EndpointError::Pod {
            pod: text.to_owned(),
            near: near.map(|name| format!("{namespace}/{name}")),
        }
    })
}

/// A pod's name alone, or `NODE.POD` with a node that does not exist.
fn anywhere<'a>(
    text: &str,
    inventory: &'a Inventory,
) -> Result<(&'a Node, &'a Pod), EndpointError> {
    if let Some(found) = only(text, inventory.pods().filter(|(_, p)| p.name == text))? {
        return Ok(found);
    }
    match text.split_once('.') {
        Some((node, _)) => Err(EndpointError::Node {
            node: node.to_owned(),
            nodes: list(inventory.nodes.iter().map(|n| n.name.as_str())),
        }),
        None => Err(EndpointError::Pod {
            pod: text.to_owned(),
            near: nearest(text, inventory.pods().map(|(_, p)| p.name.clone())),
        }),
    }
}

/// The single candidate, if there is any.
fn only<'a>(
    text: &str,
    candidates: impl Iterator<Item = (&'a Node, &'a Pod)>,
) -> Result<Option<(&'a Node, &'a Pod)>, EndpointError> {
    let found: Vec<_> = candidates.collect();
    match found.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(*one)),
        several => {
            let same_node = several.iter().all(|(node, _)| node.name == several[0].0.name);
            let candidates = several.iter().map(|(node, pod)| match same_node {
                true => format!("{}/{}", pod.namespace, pod.name),
                false => label(node, pod),
            });
            Err(EndpointError::Ambiguous {
                text: text.to_owned(),
                candidates: list(candidates.collect::<Vec<_>>()),
            })
        }
    }
}

fn list<T: AsRef<str>>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<_> = items.into_iter().map(|i| i.as_ref().to_owned()).collect();
    if items.is_empty() { "none".to_owned() } else { items.join(", ") }
}

/// The most similar name, if any is similar enough to be a slip: at most half of it differs.
fn nearest(wanted: &str, names: impl Iterator<Item = String>) -> Option<String> {
    names
        .map(|name| (distance(wanted, &name), name))
        .filter(|(d, name)| *d * 2 <= wanted.chars().count().max(name.chars().count()))
        .min()
        .map(|(_, name)| name)
}

/// Levenshtein distance: insertions, deletions and substitutions of characters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substitution = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substitution.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
