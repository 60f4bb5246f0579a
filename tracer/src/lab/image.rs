//! Everything that is configured in a lab, as comparable text: is a mended lab what it was?
//!
//! Without what time and traffic change: counters, timers, learned neighbours and forwarding
//! entries, interface indices.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::error::{Context, Result};
use super::plan::Plan;
use super::{exec, reset, sysctl};
use crate::netns::Netns;

/// Prints sections of state, each behind a line `== NAME`.
const SCRIPT: &str = r#"
section() { echo "== $1"; shift; "$@" 2>/dev/null; }
section link ip -d -o link
section address ip -o address
section route ip -4 route show table all
section route6 ip -6 route show table all
section rule ip -4 rule
section rule6 ip -6 rule
section neighbour ip neigh show nud permanent
section forwarding bridge fdb show
section queue tc qdisc show
section filter sh -c 'for i in /sys/class/net/*; do i=${i##*/}; for d in ingress egress; do tc filter show dev "$i" $d; done; done'
# Tables of iptables are printed by iptables: nft shows its extensions only now and then.
section nft sh -c 'nft list tables | while read -r _ family name; do case "$family $name" in ip\ filter | ip\ nat | ip\ mangle | ip\ raw | ip6\ filter | ip6\ nat | ip6\ mangle | ip6\ raw) ;; *) nft -s list table $family "$name" ;; esac; done'
section tables iptables-nft-save
section tables6 ip6tables-nft-save
section tables-legacy iptables-legacy-save
section tables-legacy6 ip6tables-legacy-save
section xfrm ip xfrm policy
"#;

/// Parameters that change by themselves, or that are the machine's.
const VOLATILE: [&str; 6] =
    ["nf_conntrack_count", "tcp_fastopen_key", "stable_secret", "mtu", "flush", "nf_conntrack_max"];

/// Lines of state by namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image(BTreeMap<String, Vec<String>>);

impl Image {
    /// Reads the state of every namespace of `plan` that exists.
    pub(super) fn read(plan: &Plan) -> Result<Self> {
        let read = |name: &str| -> Result<(String, Vec<String>)> {
            let netns = Netns::open(name).context(|| format!("open namespace {name}"))?;
            Ok((name.to_owned(), read_namespace(&netns)?))
        };
        let results: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = plan
                .namespaces()
                .into_iter()
                .filter(|name| super::namespace::exists(name))
                .map(|name| scope.spawn(move || read(name)))
                .collect();
            threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
        });
        results.into_iter().collect::<Result<_>>().map(Self)
    }

    /// Lines that only one of them has, with `-` (only here) or `+` (only there) before.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let mut all = Vec::new();
        let names: std::collections::BTreeSet<_> = self.0.keys().chain(other.0.keys()).collect();
        for name in names {
            let lines = |image: &Self| image.0.get(name).cloned().unwrap_or_default();
            let (before, after) = (lines(self), lines(other));
            let only = |a: &[String], b: &[String], sign: &str| -> Vec<String> {
                let mut rest = b.to_vec();
                let mut out = Vec::new();
                for line in a {
                    match rest.iter().position(|l| l == line) {
                        Some(i) => drop(rest.swap_remove(i)),
                        None => out.push(format!("{sign} {name} {line}")),
                    }
                }
                out
            };
            all.extend(only(&before, &after, "-"));
            all.extend(only(&after, &before, "+"));
        }
        all
    }
}

fn read_namespace(netns: &Netns) -> Result<Vec<String>> {
    let output = exec::output(netns, &["sh", "-c", SCRIPT].map(OsString::from))?;
    let mut lines = normalise(&String::from_utf8_lossy(&output.stdout));
    let mut parameters = BTreeMap::new();
    netns
        .run(|| {
            let wanted = |path: &Path| path.file_name().is_none_or(|name| name != "neigh");
            reset::read_directory(Path::new(sysctl::ROOT), &wanted, &mut parameters)
        })
        .and_then(|result| result)
        .context(|| format!("read kernel parameters in {}", netns.name()))?;
    let name = |path: &Path| path.file_name().map(|n| n.to_string_lossy().into_owned());
    parameters.retain(|path, _| name(path).is_some_and(|n| !VOLATILE.contains(&n.as_str())));
    lines.extend(
        parameters
            .into_iter()
            .map(|(path, value)| format!("sysctl {} = {}", path.display(), value.trim_end())),
    );
    Ok(lines)
}

/// The script's output without what changes by itself.
fn normalise(text: &str) -> Vec<String> {
    let mut section = "";
    let mut lines = Vec::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("== ") {
            section = name;
            continue;
        }
        if is_noise(section, line) {
            continue;
        }
        lines.push(format!("{section} {}", words(section, line)));
    }
    // Order matters among rules only.
    let (mut free, ordered): (Vec<_>, Vec<_>) = lines.into_iter().partition(|line| {
        !["nft", "tables", "rule"].iter().any(|section| line.starts_with(section))
    });
    free.sort();
    free.extend(ordered);
    free
}

fn is_noise(section: &str, line: &str) -> bool {
    match section {
        // Those of link-local addresses and groups come late, and by themselves.
        "route6" | "address" => {
            line.contains("fe80:") || line.contains("multicast ") || line.contains("anycast ")
        }
        "forwarding" => {
            !line.contains("permanent")
                || line.starts_with("33:33:")
                || line.starts_with("01:00:5e")
        }
        // A table that was asked for once is there, empty, as long as the namespace.
        _ if section.starts_with("tables") => {
            line.starts_with(['#', '*'])
                || line == "COMMIT"
                || (line.starts_with(':') && line.contains(" ACCEPT "))
        }
        _ => line.trim().is_empty(),
    }
}

/// A line's words without indices, timers and counters.
fn words(section: &str, line: &str) -> String {
    let mut words = Vec::new();
    let mut all = line.split_whitespace().peekable();
    // `2: eth0@if3:`; rules begin with their priority.
    if matches!(section, "link" | "address") {
        all.next();
    }
    while let Some(word) = all.next() {
        match word {
            "port_no" | "port_id" | "designated_port" | "link-netnsid" | "parentbus"
            | "promiscuity" | "allmulti" | "mcast_router" => {
                all.next();
            }
            _ if word.ends_with("_timer") => {
                all.next();
            }
            _ if word.starts_with('[') && word.contains(':') && section.starts_with("tables") => {}
            _ => words.push(word.split_once("@if").map_or(word, |(name, _)| name)),
        }
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_by_itself_is_left_out() {
        let a = normalise(
            "== link\n2: eth0@if3: <UP> mtu 1450\n== forwarding\n02:00:00:00:00:01 dev x master br0\n== tables\n*filter\n:INPUT ACCEPT [3:4]\n:FORWARD DROP [5:6]\nCOMMIT\n",
        );
        assert_eq!(a, ["link eth0 <UP> mtu 1450", "tables :FORWARD DROP"]);
        let timers = normalise("== link\n5: br0: <UP> gc_timer  299.34 priority 1\n");
        assert_eq!(timers, ["link br0: <UP> priority 1"]);
    }

    #[test]
    fn differences_name_both_sides() {
        let image = |line: &str| {
            Image(BTreeMap::from([("n".to_owned(), vec![line.to_owned(), "same".to_owned()])]))
        };
        assert_eq!(image("a").differences(&image("b")), ["- n a", "+ n b"]);
        assert_eq!(image("a").differences(&image("a")), Vec::<String>::new());
    }
}
