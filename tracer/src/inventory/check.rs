//! What TOML alone cannot say about an inventory: names are unique, addresses are addresses, and
//! every node and pod can be found. Pure.

use std::collections::HashSet;
use std::net::IpAddr;

use crate::agent::address::Target;

use super::{DEFAULT_NAMESPACE, File, FileNode, FilePod, Node, Place, Pod};

/// What is wrong, and at which byte of the file.
pub(super) struct Fault {
    pub at: usize,
    pub message: String,
}

pub(super) fn nodes(file: File) -> Result<Vec<Node>, Fault> {
    let mut names = HashSet::new();
    file.node
        .into_iter()
        .map(|raw| {
            let at = raw.name.span().start;
            let node = node(raw)?;
            if names.insert(node.name.clone()) {
                Ok(node)
            } else {
                Err(Fault { at, message: format!("there is already a node {:?}", node.name) })
            }
        })
        .collect()
}

fn node(raw: FileNode) -> Result<Node, Fault> {
    let at = raw.name.span().start;
    let fault = |message| Fault { at, message };
    let name = raw.name.into_inner();
    check_name("node", &name).map_err(fault)?;
    let place = match (raw.netns, raw.agent) {
        (Some(netns), None) => Place::Netns(netns),
        (None, Some(agent)) => Place::Agent(agent),
        (Some(_), Some(_)) => {
            return Err(fault(format!("node {name:?} has both `netns` and `agent`; give one")));
        }
        (None, None) => {
            return Err(fault(format!(
                "node {name:?} has neither `netns` (a node on this machine) nor `agent` (one \
                 elsewhere)"
            )));
        }
    };
    let (Place::Netns(text) | Place::Agent(text)) = &place;
    if text.is_empty() {
        return Err(fault(format!("node {name:?}: `netns` and `agent` must not be empty")));
    }
    if let Place::Agent(agent) = &place {
        agent.parse::<Target>().map_err(|why| fault(format!("node {name:?}: {why}")))?;
    }
    let mut seen = HashSet::new();
    let pods = raw
        .pod
        .into_iter()
        .map(|raw| {
            let at = raw.name.span().start;
            let pod = pod(raw)?;
            if seen.insert((pod.namespace.clone(), pod.name.clone())) {
                Ok(pod)
            } else {
                let message = format!(
                    "node {name:?} already has a pod {:?} in namespace {:?}",
                    pod.name, pod.namespace
                );
                Err(Fault { at, message })
            }
        })
        .collect::<Result<_, _>>()?;
    Ok(Node { name, place, pods })
}

fn pod(raw: FilePod) -> Result<Pod, Fault> {
    let at = raw.name.span().start;
    let fault = |message| Fault { at, message };
    let name = raw.name.into_inner();
    check_name("pod", &name).map_err(fault)?;
    let namespace = raw.namespace.unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned());
    check_name("namespace", &namespace).map_err(fault)?;
    let mut ips = raw
        .ip
        .into_iter()
        .map(|text| {
            let at = text.span().start;
            let text = text.into_inner();
            text.parse::<IpAddr>().map_err(|_| {
                let message = format!(
                    "pod {name:?}: {text:?} is not an IP address (without prefix length, e.g. \
                     \"10.10.0.2\")"
                );
                Fault { at, message }
            })
        })
        .collect::<Result<Vec<_>, _>>()?;
    ips.sort_by_key(IpAddr::is_ipv6);
    if raw.netns.as_deref() == Some("") {
        return Err(fault(format!("pod {name:?}: `netns` must not be empty; leave it out")));
    }
    if ips.is_empty() && raw.netns.is_none() {
        return Err(fault(format!("pod {name:?} has neither `ip` nor `netns` to find it by")));
    }
    Ok(Pod { name, namespace, ips, netns: raw.netns })
}

/// Names end up in `NODE.POD` and `NAMESPACE/POD`, so a slash or a space would make them
/// unreachable.
fn check_name(what: &str, name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err(format!("a {what} must have a name"));
    }
    match name.chars().find(|c| c.is_whitespace() || c.is_control() || *c == '/') {
        Some(c) => Err(format!("{what} name {name:?} must not contain {c:?}")),
        None => Ok(()),
    }
}
