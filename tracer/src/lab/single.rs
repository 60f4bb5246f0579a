//! One node of a lab on a machine of its own: the machine itself is the node, and another machine is
//! the other one. What they must know of each other follows from the plan, so that neither has to
//! ask: real nodes learn it from flannel's store.

use rtnetlink::LinkUnspec;

use super::build::{self, Node};
use super::config::{Backend, LabConfig};
use super::error::{Context, Result};
use super::identity::Identity;
use super::plan::{NodePlan, Plan};
use super::space::Space;
use super::sysctl;
use crate::model::Mac;
use crate::netns::Netns;

/// The machine's own namespace.
pub(super) const HERE: &str = "/proc/1/ns/net";

/// Addresses of a node's VXLAN devices, in the order of the plan's lists. A node's number in the plan
/// tells them apart.
fn vtep_macs(plan: &Plan, node: &NodePlan) -> Vec<Mac> {
    let number = plan.nodes.iter().position(|n| n.name == node.name).unwrap_or(0);
    // Locally administered, one station's. There are two nodes and two IP versions.
    let mac = |version: usize| Mac([0x02, 0xf1, 0, 0, number as u8 + 1, version as u8 + 1]);
    (0..node.subnets.len()).map(mac).collect()
}

/// Makes this machine the node `local` of `plan`, whose namespace is [`HERE`]: uses the physical
/// interface that there is, adds flannel's devices, the rules, the bridge and the pods.
pub(super) async fn build(
    config: &LabConfig,
    plan: &Plan,
    local: &NodePlan,
    remote: &NodePlan,
) -> Result<()> {
    let netns = Netns::open(&local.netns).context(|| format!("open {}", local.netns))?;
    let space = Space::open(netns)?;
    space.inside(|| {
        sysctl::prepare_ipv6(config.ipv6)?;
        sysctl::prepare_node(config.ipv6)
    })?;
    let name = &config.physical_name;
    let physical = space.index(name).await?;
    let up = LinkUnspec::new_with_index(physical).mtu(config.wire_mtu).up().build();
    space.change_link(&format!("bring {name} up"), up).await?;
    for address in &local.wire {
        space.add_address(physical, *address).await?;
    }
    let mut identity = Identity::default();
    if config.backend == Backend::Vxlan {
        let names = [config.vxlan_name.clone(), config.vxlan_name_v6()];
        for (name, mac) in names.iter().zip(vtep_macs(plan, local)) {
            identity = identity.with(&local.netns, name, mac);
        }
    }
    let vteps = build::new_vteps(config, &space, physical, local, &identity).await?;
    let node = Node { plan: local, space, physical, vteps };
    build::join(config, &node, remote, &vtep_macs(plan, remote)).await?;
    let node = [node];
    let rules = build::load_rules(config, plan, &node)?;
    for node in &node {
        build::new_pods(config, plan, node, &identity).await?;
    }
    rules.into_iter().try_for_each(super::firewall::Restore::finish)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_devices_have_four_addresses() {
        let plan = Plan::new(&LabConfig::default());
        let mut all: Vec<_> = plan.nodes.iter().flat_map(|node| vtep_macs(&plan, node)).collect();
        assert_eq!(all[0].to_string(), "02:f1:00:00:01:01");
        all.dedup();
        assert_eq!(all.len(), 4);
    }
}
