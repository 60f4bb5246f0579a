//! What differs between two labs of the same parameters: hardware addresses and the random names of
//! the pods' veths. A lab that is mended keeps them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::config::LabConfig;
use super::plan::{POD_INTERFACE, Plan};
use super::snapshot::{Link, Snapshot};
use super::verify::Snapshots;
use crate::model::Mac;

/// Hardware addresses, by namespace and interface, and the node's ends of the pods' veths. What is
/// absent is chosen anew.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Identity {
    /// Namespace → interface → address, as text.
    macs: BTreeMap<String, BTreeMap<String, String>>,
    /// Pod's namespace → interface on its node.
    veths: BTreeMap<String, String>,
}

impl Identity {
    /// What `snapshots` show of it.
    pub(super) fn of(config: &LabConfig, plan: &Plan, snapshots: &Snapshots) -> Self {
        let mut identity = Self::default();
        identity.learn(snapshots, &plan.wire_netns, &plan.outside.port);
        identity.learn(snapshots, &plan.outside.netns, POD_INTERFACE);
        for node in &plan.nodes {
            let names = [&config.physical_name, &config.bridge_name, &config.vxlan_name]
                .map(String::as_str);
            let six = config.vxlan_name_v6();
            for name in names.into_iter().chain([six.as_str()]) {
                identity.learn(snapshots, &node.netns, name);
            }
            identity.learn(snapshots, &plan.wire_netns, &node.port);
            for pod in &node.pods {
                identity.learn(snapshots, &pod.netns, POD_INTERFACE);
                let inside = snapshots.get(&pod.netns);
                let outside = snapshots.get(&node.netns);
                let Some(veth) = inside.zip(outside).and_then(|(i, o)| veth(i, o)) else {
                    continue;
                };
                identity.veths.insert(pod.netns.clone(), veth.name.clone());
                identity.learn(snapshots, &node.netns, &veth.name);
            }
        }
        identity
    }

    /// With an address chosen for an interface.
    pub(super) fn with(mut self, netns: &str, interface: &str, mac: Mac) -> Self {
        let of = self.macs.entry(netns.to_owned()).or_default();
        of.insert(interface.to_owned(), mac.to_string());
        self
    }

    fn learn(&mut self, snapshots: &Snapshots, netns: &str, interface: &str) {
        let link = snapshots.get(netns).and_then(|snapshot| snapshot.link(interface));
        if let Some(mac) = link.and_then(|link| link.mac) {
            let of = self.macs.entry(netns.to_owned()).or_default();
            of.insert(interface.to_owned(), mac.to_string());
        }
    }

    /// Hardware address of an interface.
    pub(super) fn mac(&self, netns: &str, interface: &str) -> Option<Mac> {
        self.macs.get(netns)?.get(interface).and_then(|text| parse(text))
    }

    /// The node's end of a pod's veth.
    pub(super) fn veth(&self, pod_netns: &str) -> Option<&str> {
        self.veths.get(pod_netns).map(String::as_str)
    }

    /// This one where it knows, the other where not.
    pub(super) fn or(mut self, other: Self) -> Self {
        for (netns, macs) in other.macs {
            let of = self.macs.entry(netns).or_default();
            for (interface, mac) in macs {
                of.entry(interface).or_insert(mac);
            }
        }
        for (pod, veth) in other.veths {
            self.veths.entry(pod).or_insert(veth);
        }
        self
    }
}

fn veth<'s>(inside: &Snapshot, outside: &'s Snapshot) -> Option<&'s Link> {
    let peer = inside.link(POD_INTERFACE)?.peer?;
    outside.links.iter().find(|link| link.index == peer)
}

fn parse(text: &str) -> Option<Mac> {
    let mut bytes = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut bytes {
        *byte = u8::from_str_radix(parts.next()?, 16).ok()?;
    }
    parts.next().is_none().then_some(Mac(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshots(mac: u8) -> Snapshots {
        let link = |index, name: &str, peer| Link {
            index,
            name: name.to_owned(),
            mac: Some(Mac([2, 0, 0, 0, 0, mac])),
            peer,
            ..Link::default()
        };
        let of = |links| Snapshot { links, ..Snapshot::default() };
        Snapshots::from([
            ("podtrace-A".to_owned(), of(vec![link(2, "cni0", None), link(9, "vethx", None)])),
            ("podtrace-A-a".to_owned(), of(vec![link(2, "eth0", Some(9))])),
        ])
    }

    #[test]
    fn it_is_read_and_completed() {
        let config = LabConfig::default();
        let plan = Plan::new(&config);
        let identity = Identity::of(&config, &plan, &snapshots(1));
        let mac = Some(Mac([2, 0, 0, 0, 0, 1]));
        assert_eq!(identity.mac("podtrace-A", "cni0"), mac);
        assert_eq!(identity.mac("podtrace-A", "vethx"), mac);
        assert_eq!(identity.veth("podtrace-A-a"), Some("vethx"));
        assert_eq!(identity.veth("podtrace-B-b"), None);
        let other = Identity::of(&config, &plan, &snapshots(7));
        assert_eq!(identity.clone().or(other.clone()).mac("podtrace-A", "cni0"), mac);
        assert_eq!(Identity::default().or(other.clone()), other);
    }

    #[test]
    fn hardware_addresses_survive_text() {
        let mac = Mac([0xfe, 1, 0x20, 3, 4, 0xff]);
        assert_eq!(parse(&mac.to_string()), Some(mac));
        assert_eq!(parse("1:2:3"), None);
        assert_eq!(parse("1:2:3:4:5:6:7"), None);
    }
}
