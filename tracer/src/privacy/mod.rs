//! Stand-ins for what a trace tells of the machines it was made on.
//!
//! Enters: the records of a trace. Leaves: the same records with consistent stand-ins, from which
//! the same report is made. What is equal stays equal, what is in one subnet stays in one subnet,
//! interfaces are called after their roles; payload is gone. The stand-ins hang on a random key that
//! is never written down: nobody can go back from them, and two files have nothing in common.
//!
//! What is kept: lengths, times, ports, protocol fields, VNIs, MTUs, kernel functions and releases,
//! and the words of [`words`]. Everything that is not known to be harmless is replaced.

mod addresses;
mod frame;
mod rewrite;
#[cfg(test)]
mod tests;
mod text;
mod words;

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};

pub use rewrite::rewrite;

use crate::model::{Role, Station, Topology};
use text::Dictionary;

/// The stand-ins of one trace.
#[derive(Debug, Default)]
struct Mask {
    /// Keyed with random numbers of the operating system.
    key: RandomState,
    names: Dictionary,
    /// Names of interfaces, for the patterns of rules.
    interfaces: BTreeSet<String>,
}

impl Mask {
    /// A number that only the key and `of` decide.
    fn random<T: std::hash::Hash>(&self, of: T) -> u64 {
        self.key.hash_one(of)
    }

    /// Learns the names of a topology, so that they get telling stand-ins.
    fn learn(&mut self, topology: &Topology) {
        for end in topology.src.iter().chain(&topology.dst) {
            self.names.node(&end.node);
            self.names.pod(end.pod.as_deref());
        }
        for station in &topology.stations {
            self.names.node(&station.node);
            self.names.pod(station.pod.as_deref());
            self.names.add(&station.name, kind(station));
            self.names.add(&station.netns, "netns");
        }
    }
}

/// What an interface is called after.
fn kind(station: &Station) -> &'static str {
    match station.role {
        Role::Pod => "eth",
        Role::Veth => "veth",
        Role::Bridge => "bridge",
        Role::Vxlan => "vxlan",
        Role::Tun => "tun",
        Role::Physical => "nic",
        Role::Wire => "port",
        Role::Other => "if",
    }
}
