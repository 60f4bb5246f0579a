//! What a guest is to do. The host writes it into the initramfs; the guest's init reads it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Where the plan is in the guest.
pub const FILE: &str = "/etc/podtrace-guest.json";

/// How each line that init itself writes begins; all others are the programs'.
pub const MARK: &str = "@guest ";

/// Programs to run, one after the other.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// In this order.
    pub steps: Vec<Step>,
}

/// One program.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// As shown to a person: of a test binary its name.
    pub name: String,
    /// Absolute path in the guest.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// After this many seconds it is killed.
    pub seconds: u64,
}

/// The tests of podtrace's privileged suite that run in every guest, by binary: a selection, since
/// an emulated machine takes ten times as long as a real one. Everything that depends on the kernel
/// is in it: loading, attaching and cleaning up, each protocol, each kind of drop.
pub const TESTS: [(&str, &[&str]); 4] = [
    ("lab", &["up_and_down"]),
    (
        "paths",
        &[
            "a_ping_across_nodes_is_seen_at_twelve_hops_each_way",
            "addresses_at_every_hop_are_those_that_ip_reports",
        ],
    ),
    (
        "clean",
        &[
            "nothing_stays_attached_however_it_ends",
            "without_type_information_the_hops_are_still_seen",
        ],
    ),
    ("faults", &[]),
];
