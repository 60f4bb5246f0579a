//! What a fault is: entries of the TOML files in `lab/faults`, one file per area.

use std::fmt;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use crate::model::Direction;
use crate::report::Status;

/// The files, in the order of [`all`].
const FILES: [(&str, &str); 6] = [
    ("firewall.toml", include_str!("../faults/firewall.toml")),
    ("vxlan.toml", include_str!("../faults/vxlan.toml")),
    ("routing.toml", include_str!("../faults/routing.toml")),
    ("links.toml", include_str!("../faults/links.toml")),
    ("slow.toml", include_str!("../faults/slow.toml")),
    ("services.toml", include_str!("../faults/services.toml")),
];

/// A fault that the lab can have.
///
/// Steps are `TARGET: COMMAND`: the command is for `sh -ec` in the namespace of the target (`A`,
/// `a` for `A.a`, `wire`, …); with `& ` before it, it runs while the fault lasts. `{…}` stands for something of the lab, see [`super::vars`].
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// `forward-policy-drop`.
    pub name: String,
    /// One line.
    pub title: String,
    /// How often real clusters have it.
    pub frequency: Frequency,
    /// Makes it.
    pub inject: Vec<String>,
    /// Undoes it, where that is less than building everything anew.
    #[serde(default)]
    pub mend: Vec<String>,
    /// Backends under which it exists.
    #[serde(default = "every_backend")]
    pub backends: Vec<super::super::Backend>,
    /// IP versions for which it exists.
    #[serde(default = "every_family")]
    pub families: Vec<u8>,
    /// Kinds of firewall under which it exists.
    #[serde(default = "every_firewall")]
    pub firewalls: Vec<super::super::Firewall>,
    /// Programs that injecting it needs beside `ip`, `bridge`, `sysctl` and the firewall's.
    #[serde(default)]
    pub needs: Vec<String>,
    /// On the mirrored side it kills the reply to the same probe (the requests pass).
    #[serde(default)]
    pub reply: bool,
    /// The mirrored side can have it too.
    #[serde(default = "yes")]
    pub mirrors: bool,
    /// Kernel parameter that must exist and be writable in a namespace.
    pub writable: Option<String>,
    /// Steps that succeed only while the fault is there: for one that kills no packet of the probe.
    #[serde(default)]
    pub proof: Vec<String>,
    /// What to send.
    #[serde(default)]
    pub probe: Probe,
    /// What podtrace must say.
    pub expected: Expected,
}

/// Traffic that meets a fault.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Probe {
    /// Source endpoint.
    pub src: String,
    /// Destination endpoint, or an address.
    pub dst: String,
    /// Nothing is sent: the fault's own traffic is watched.
    pub passive: bool,
    /// `icmp`, `tcp`, `udp`.
    #[serde(deserialize_with = "proto")]
    pub proto: crate::probe::Proto,
    /// Destination port of TCP and UDP.
    pub port: Option<String>,
    /// Packets.
    pub count: u32,
    /// Payload bytes.
    pub size: Option<String>,
    /// Further arguments for podtrace.
    pub args: Vec<String>,
    /// Servers to start, `TARGET KIND ARGUMENT`; see [`super::serve`].
    pub serve: Vec<String>,
}

impl Default for Probe {
    fn default() -> Self {
        Self {
            src: "A.a".to_owned(),
            dst: "B.b".to_owned(),
            passive: false,
            proto: crate::probe::Proto::Icmp,
            port: None,
            count: 3,
            size: None,
            args: Vec::new(),
            serve: Vec::new(),
        }
    }
}

/// What podtrace must say about a fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expected {
    /// Statuses that are right, the best first.
    pub status: Vec<Status>,
    /// Which way; absent where nothing dies.
    pub direction: Option<Direction>,
    /// Node where it happens.
    pub node: Option<String>,
    /// Pod, when it happens inside one.
    pub pod: Option<String>,
    /// Interfaces that are right; empty: any.
    #[serde(default)]
    pub interface: Vec<String>,
    /// Stages of processing that are right; empty: any.
    #[serde(default)]
    pub stage: Vec<String>,
    /// Causes that are right, the best first. Of the verdict, or of a finding where `finding`.
    pub cause: Vec<String>,
    /// Names of the kernel's reason that are right; empty: there is no drop event.
    #[serde(default)]
    pub reason: Vec<String>,
    /// Packets arrive: the cause is that of a finding.
    #[serde(default)]
    pub finding: bool,
}

/// How often real clusters have a fault, by public reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Frequency {
    /// Everybody meets it.
    VeryCommon,
    /// Often reported.
    Common,
    /// Sometimes reported.
    Occasional,
    /// Hardly ever.
    Rare,
}

impl fmt::Display for Frequency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Frequency::VeryCommon => "very common",
            Frequency::Common => "common",
            Frequency::Occasional => "occasional",
            Frequency::Rare => "rare",
        })
    }
}

fn proto<'de, D: serde::Deserializer<'de>>(from: D) -> Result<crate::probe::Proto, D::Error> {
    String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
}

fn every_backend() -> Vec<super::super::Backend> {
    <super::super::Backend as clap::ValueEnum>::value_variants().to_vec()
}

fn yes() -> bool {
    true
}

fn every_family() -> Vec<u8> {
    vec![4, 6]
}

fn every_firewall() -> Vec<super::super::Firewall> {
    <super::super::Firewall as clap::ValueEnum>::value_variants().to_vec()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    fault: Vec<Fault>,
}

/// Every fault, by area.
pub fn all() -> &'static [Fault] {
    static ALL: LazyLock<Vec<Fault>> = LazyLock::new(|| {
        let mut all = Vec::new();
        for (name, text) in FILES {
            match toml::from_str::<File>(text) {
                Ok(file) => all.extend(file.fault),
                // Only while somebody edits them: a test reads them.
                Err(error) => eprintln!("podtrace: {name}: {error}"),
            }
        }
        all
    });
    &ALL
}

/// The fault of this name.
pub fn by_name(name: &str) -> Option<&'static Fault> {
    all().iter().find(|fault| fault.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_files_are_valid() {
        for (name, text) in FILES {
            toml::from_str::<File>(text).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        assert!(toml::from_str::<File>("[[fault]]\nname = 'x'\nbogus = 1").is_err());
    }

    #[test]
    fn names_are_unique_and_kebab_case() {
        let names: BTreeSet<_> = all().iter().map(|fault| fault.name.as_str()).collect();
        assert_eq!(names.len(), all().len());
        for name in names {
            assert!(name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'));
            assert!(by_name(name).is_some());
        }
    }

    #[test]
    fn causes_are_documented() {
        for fault in all() {
            let known = |code: &String| crate::causes::title(code).is_some();
            assert!(!fault.expected.cause.is_empty(), "{}", fault.name);
            let unknown: Vec<_> = fault.expected.cause.iter().filter(|c| !known(c)).collect();
            assert!(unknown.is_empty(), "{}: {unknown:?}", fault.name);
        }
    }

    #[test]
    fn what_kills_nothing_has_a_proof() {
        for fault in all() {
            let kills =
                fault.expected.status.iter().all(|status| {
                    matches!(status, Status::Dropped | Status::Rejected | Status::Lost)
                });
            assert!(kills || !fault.proof.is_empty(), "{}", fault.name);
        }
    }
}
