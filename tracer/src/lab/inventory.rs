//! The inventory that tells the tracer of the lab's nodes and pods. Pure.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;

use super::plan::{NodePlan, Plan, PodPlan, WIRE};
use super::services::NAMESPACE;

#[derive(Serialize)]
struct File {
    node: Vec<Node>,
}

#[derive(Serialize)]
struct Node {
    name: String,
    netns: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pod: Vec<Pod>,
}

#[derive(Serialize)]
struct Pod {
    name: String,
    namespace: &'static str,
    ip: Vec<IpAddr>,
    netns: String,
}

/// Text of the inventory file. The switch is a node without pods, so that the tracer can show the
/// wire too.
pub(super) fn text(lab: &str, plan: &Plan) -> Result<String, toml::ser::Error> {
    let mut node: Vec<Node> = plan.nodes.iter().map(with_agent).collect();
    node.push(Node { name: WIRE.to_owned(), netns: plan.wire_netns.clone(), pod: Vec::new() });
    let body = toml::to_string(&File { node })?;
    Ok(format!(
        "# Written by `podtrace lab up` for lab {lab:?}; `podtrace lab down` removes it.\n\n{body}"
    ))
}

/// A node with the pod that serves in the node's own network.
fn with_agent(node: &NodePlan) -> Node {
    let mut entry = entry(node);
    entry.pod.push(Pod {
        name: format!("agent-{}", node.name.to_lowercase()),
        namespace: NAMESPACE,
        ip: node.wire.iter().map(IpNet::addr).collect(),
        netns: node.netns.clone(),
    });
    entry
}

/// As [`text`], of the one node that this machine is.
pub(super) fn text_of_node(lab: &str, node: &NodePlan) -> Result<String, toml::ser::Error> {
    let body = toml::to_string(&File { node: vec![entry(node)] })?;
    Ok(format!("# Written by `podtrace lab node` for lab {lab:?}.\n\n{body}"))
}

fn entry(node: &NodePlan) -> Node {
    let pod = |pod: &PodPlan| Pod {
        name: pod.name.clone(),
        namespace: NAMESPACE,
        ip: pod.addresses.iter().map(IpNet::addr).collect(),
        netns: pod.netns.clone(),
    };
    Node {
        name: node.name.clone(),
        netns: node.netns.clone(),
        pod: node.pods.iter().map(pod).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::config::LabConfig;

    #[test]
    fn inventory_of_the_default_lab() {
        let config = LabConfig::default();
        let text = text(&config.name, &Plan::new(&config)).expect("text");
        insta::assert_snapshot!(text, @r#"
        # Written by `podtrace lab up` for lab "default"; `podtrace lab down` removes it.

        [[node]]
        name = "A"
        netns = "podtrace-A"

        [[node.pod]]
        name = "a"
        namespace = "default"
        ip = ["10.10.0.2", "fd00:10:10::2"]
        netns = "podtrace-A-a"

        [[node.pod]]
        name = "a2"
        namespace = "default"
        ip = ["10.10.0.3", "fd00:10:10::3"]
        netns = "podtrace-A-a2"

        [[node.pod]]
        name = "agent-a"
        namespace = "default"
        ip = ["192.168.10.11", "fd00:10:168::11"]
        netns = "podtrace-A"

        [[node]]
        name = "B"
        netns = "podtrace-B"

        [[node.pod]]
        name = "b"
        namespace = "default"
        ip = ["10.10.1.2", "fd00:10:10:1::2"]
        netns = "podtrace-B-b"

        [[node.pod]]
        name = "b2"
        namespace = "default"
        ip = ["10.10.1.3", "fd00:10:10:1::3"]
        netns = "podtrace-B-b2"

        [[node.pod]]
        name = "agent-b"
        namespace = "default"
        ip = ["192.168.10.12", "fd00:10:168::12"]
        netns = "podtrace-B"

        [[node]]
        name = "wire"
        netns = "podtrace-wire"
        "#);
    }
}
