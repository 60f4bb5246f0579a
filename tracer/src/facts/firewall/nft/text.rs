//! The listing that a person sees (`nft -a list ruleset`): rules by their handles.

use std::collections::HashMap;

/// What stands before a handle.
const HANDLE: &str = " # handle ";

/// A chain in the listing.
#[derive(Debug, Default)]
pub(super) struct Listed {
    /// Devices of a netdev chain.
    pub(super) devices: Vec<String>,
    /// Rules by handle.
    pub(super) rules: HashMap<u64, String>,
}

/// The listing, by family, table and chain.
#[derive(Debug, Default)]
pub(super) struct Listing(HashMap<(String, String, String), Listed>);

impl Listing {
    pub(super) fn chain(&self, family: &str, table: &str, chain: &str) -> Option<&Listed> {
        self.0.get(&(family.to_owned(), table.to_owned(), chain.to_owned()))
    }
}

pub(super) fn parse(text: &str) -> Listing {
    let mut listing = Listing::default();
    let (mut family, mut table, mut chain) = (String::new(), String::new(), None::<String>);
    // A rule with a long set goes over several lines; its handle ends the last.
    let mut pending = String::new();
    for line in text.lines().map(str::trim) {
        let (content, handle) = split_handle(line);
        let words: Vec<&str> = content.split_whitespace().collect();
        match words.as_slice() {
            ["table", of, name, "{"] => {
                (family, table, chain) = ((*of).to_owned(), (*name).to_owned(), None);
                continue;
            }
            ["chain", name, "{"] => {
                chain = Some((*name).to_owned());
                pending.clear();
                continue;
            }
            ["}"] if pending.is_empty() => {
                chain = None;
                continue;
            }
            _ => {}
        }
        let Some(chain) = &chain else { continue };
        let listed = listing.0.entry((family.clone(), table.clone(), chain.clone())).or_default();
        if pending.is_empty() && words.first() == Some(&"type") && content.ends_with(';') {
            listed.devices = devices(content);
            continue;
        }
        if pending.is_empty() && handle.is_none() && words.first() == Some(&"comment") {
            continue;
        }
        if !pending.is_empty() {
            pending.push(' ');
        }
        pending.push_str(content);
        if let Some(handle) = handle {
            listed.rules.insert(handle, std::mem::take(&mut pending));
        }
    }
    listing
}

fn split_handle(line: &str) -> (&str, Option<u64>) {
    match line.rsplit_once(HANDLE) {
        Some((content, number)) if number.parse::<u64>().is_ok() => (content, number.parse().ok()),
        _ => (line, None),
    }
}

/// `type filter hook ingress device "eth0" priority 0; …` or `devices = { "eth0", "eth1" }`.
fn devices(header: &str) -> Vec<String> {
    let Some((_, rest)) = header.split_once(" device") else { return Vec::new() };
    let rest = rest.split(" priority").next().unwrap_or_default();
    rest.trim_start_matches('s')
        .split(|c: char| c.is_whitespace() || "={},\"".contains(c))
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}
