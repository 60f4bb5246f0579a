//! What each guest is to do. The host writes it into the initramfs; the guest's init reads it, and
//! finds its role on the kernel's command line.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Where the plan is in the guest.
pub const FILE: &str = "/etc/podtrace-guest.json";

/// How each line that init itself writes begins; all others are the programs'.
pub const MARK: &str = "@guest ";

/// On the kernel's command line: which of the roles is this guest's.
pub const ROLE: &str = "podtrace.role=";
/// On the kernel's command line: how much too fast its clock runs, in millionths.
pub const DRIFT: &str = "podtrace.drift=";

/// Programs to run, one after the other, by role.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// In this order.
    pub roles: BTreeMap<String, Vec<Step>>,
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

impl Step {
    /// A shell script.
    pub fn script(name: &str, script: &str, seconds: u64) -> Self {
        Self {
            name: name.to_owned(),
            program: "/bin/bash".into(),
            arguments: vec!["-c".to_owned(), script.to_owned()],
            seconds,
        }
    }

    /// A script in Python.
    pub fn python(name: &str, script: &str, seconds: u64) -> Self {
        let program = "/usr/bin/python3".into();
        Self { program, ..Self::script(name, script, seconds) }
    }
}

/// Tests that need IPVS, which the guests' kernels have; few others do.
pub const IPVS: &str = "ipvs";

/// The tests of podtrace's privileged suite that run in every guest, by binary: a selection, since
/// an emulated machine takes ten times as long as a real one. Everything that depends on the kernel
/// is in it: loading, attaching and cleaning up, each protocol, each kind of drop. The first list is
/// that of every test run, the second what else there is.
pub const TESTS: [(&str, &[&str], &[&str]); 7] = [
    ("filter", &["maps_decide_where_addresses_and_ports_are_many"], &[]),
    (
        "lab",
        &[],
        &["pods_reach_each_other_through_vxlan", "down_ends_what_runs_in_it_and_leaves_nothing"],
    ),
    (
        "paths",
        &["a_ping_across_nodes_is_seen_at_twelve_hops_each_way"],
        &[
            "http_between_pods_is_followed_on_both_paths",
            "udp_is_followed_and_large_datagrams_are_one_packet",
        ],
    ),
    (
        "clean",
        &[],
        &[
            "nothing_stays_attached_however_it_ends",
            "without_type_information_the_hops_are_still_seen",
        ],
    ),
    (
        "clsact",
        &["a_killed_podtrace_is_cleaned_up_after_by_the_next"],
        &[
            "clsact_shows_the_twelve_hops_that_tcx_shows",
            "filters_of_others_stay_and_ours_see_packets_before_them",
            "two_podtraces_share_a_qdisc_and_the_last_removes_it",
            "an_ingress_qdisc_limits_what_is_seen_and_is_said_so",
        ],
    ),
    (
        IPVS,
        &["probes_of_a_service_with_one_backend_are_delivered"],
        &[
            "probes_of_a_service_with_three_backends_are_delivered",
            "a_service_with_one_backend_is_watched",
            "a_service_with_three_backends_is_watched",
            "the_port_of_a_node_is_translated_there",
            "a_backend_without_a_server_is_named",
            "a_service_without_real_servers_and_a_port_that_is_none",
            "tables_alone_tell_which_service_is_sound",
        ],
    ),
    (
        "faults",
        &[],
        &[
            "a_firewall_on_the_tunnel_port_is_found_at_input_and_output",
            "a_missing_forwarding_entry_is_found_where_the_tunnel_begins",
            "a_forward_policy_without_flannels_rules_drops",
            "a_refusal_is_told_from_a_drop",
            "a_drop_of_ipv6_is_found_too",
            "a_closed_port_refuses",
            "late_drops_are_waited_for",
        ],
    ),
];
