//! Draws the lab: both nodes side by side on the wire, 80 columns wide. Pure.

use ipnet::IpNet;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::config::{Backend, DEFAULT_NAME, Firewall, LabConfig};
use super::plan::{NodePlan, POD_INTERFACE, Plan, SWITCH_BRIDGE};
use super::services::{ServicePlan, ServicePort};
use super::snapshot::{Link, Snapshot};
use super::verify::Snapshots;

/// Columns of the whole picture.
const WIDTH: usize = 80;
/// Columns between the two boxes.
const GAP: usize = 2;
/// Columns of a node's box.
const BOX: usize = (WIDTH - GAP) / 2;
/// Columns of text in a box, between "│ " and " │".
const TEXT: usize = BOX - 4;

/// The picture, with what is wrong below it.
pub(super) fn picture(
    config: &LabConfig,
    plan: &Plan,
    snapshots: &Snapshots,
    defects: &[String],
) -> String {
    let mut lines = vec![title(config, defects)];
    lines.extend(services(config, plan));
    lines.push(String::new());
    let mut boxes: Vec<Vec<String>> =
        plan.nodes.iter().map(|node| node_rows(config, node, snapshots)).collect();
    let height = boxes.iter().map(Vec::len).max().unwrap_or_default();
    for rows in &mut boxes {
        // The physical interface is last and touches the wire in both boxes.
        let above = rows.len().saturating_sub(physical_rows(rows));
        for _ in rows.len()..height {
            rows.insert(above, row("", ""));
        }
    }
    let gap = " ".repeat(GAP);
    let beside = |parts: Vec<String>| parts.join(&gap).trim_end().to_owned();
    lines.push(beside(plan.nodes.iter().map(top).collect()));
    for i in 0..height {
        lines.push(beside(
            boxes.iter().filter_map(|rows| rows.get(i)).map(|row| format!("│ {row} │")).collect(),
        ));
    }
    lines.push(beside(plan.nodes.iter().map(|_| bottom()).collect()));
    lines.push(beside(plan.nodes.iter().map(|node| port(plan, node, snapshots)).collect()));
    lines.push(wire(config, plan, snapshots));
    lines.push(outside(plan, snapshots));
    if !defects.is_empty() {
        lines.push(String::new());
        for defect in defects {
            lines.push(cut(&format!("! {defect}"), WIDTH));
        }
    }
    lines.push(String::new());
    lines.join("\n")
}

fn title(config: &LabConfig, defects: &[String]) -> String {
    let name =
        if config.name == DEFAULT_NAME { "lab".to_owned() } else { format!("lab {}", config.name) };
    let versions = if config.ipv6 { "IPv4 + IPv6" } else { "IPv4" };
    let health = if defects.is_empty() { "healthy" } else { "NOT AS BUILT" };
    cut(
        &format!(
            "{name}: {}, {versions}, firewall {}, kube-proxy {}: {health}",
            config.backend, config.firewall, config.kube_proxy
        ),
        WIDTH,
    )
}

/// A line for each service: what it is called, where it is, where it leads.
fn services(config: &LabConfig, plan: &Plan) -> Vec<String> {
    if config.firewall == Firewall::None {
        return vec!["no service (no firewall rules)".to_owned()];
    }
    let mut lines: Vec<String> = plan.services.iter().map(service).collect();
    if config.ipv6 {
        let all: Vec<String> = plan.service_nets.iter().skip(1).map(ToString::to_string).collect();
        lines.push(format!("the same in IPv6, in {}", all.join(", ")));
    }
    lines
}

fn service(service: &ServicePlan) -> String {
    let at = |port: &ServicePort| format!("{}/{}", port.port, port.transport);
    let ip = service.ips.first().map(ToString::to_string).unwrap_or_default();
    let ports: Vec<String> = service.ports.iter().map(at).collect();
    let targets = service.ports.first().map(|port| port.target).unwrap_or_default();
    let backends: Vec<&str> = service.backends.iter().map(|b| b.name.as_str()).collect();
    let to = match backends.as_slice() {
        [] => "nobody".to_owned(),
        some => format!("port {targets} of {}", some.join(", ")),
    };
    let node_ports = service.ports.iter().filter_map(|port| port.node_port);
    let node_ports: String = node_ports.map(|port| format!(", NodePort {port}")).collect();
    let affinity = if service.affinity.is_some() { ", affinity ClientIP" } else { "" };
    let head = format!("service {:6}{ip}:{}", service.name, ports.join(" "));
    cut(&format!("{head:38} → {to}{node_ports}{affinity}"), WIDTH)
}

/// A box's rows: pods, bridge, VXLAN devices, physical interface, each an interface's entry.
fn node_rows(config: &LabConfig, node: &NodePlan, snapshots: &Snapshots) -> Vec<String> {
    let outside = snapshots.get(&node.netns);
    let mut rows = Vec::new();
    for pod in &node.pods {
        rows.push(row(&format!("pod {}", pod.name), ""));
        let inside = snapshots.get(&pod.netns);
        // The other end: the interface of the node that eth0 names as its peer.
        let port = inside
            .and_then(|s| s.link(POD_INTERFACE)?.peer)
            .and_then(|peer| outside?.links.iter().find(|link| link.index == peer))
            .map_or_else(|| "nothing".to_owned(), |port| port.name.clone());
        rows.extend(entry(inside, POD_INTERFACE, &format!("── {port}")));
        rows.push(row("", ""));
    }
    rows.extend(entry(outside, &config.bridge_name, ""));
    if config.backend == Backend::Vxlan {
        let six = config.ipv6.then(|| config.vxlan_name_v6());
        for name in std::iter::once(config.vxlan_name.clone()).chain(six) {
            let vxlan = outside.and_then(|s| s.link(&name)?.vxlan);
            let note =
                vxlan.map_or_else(String::new, |(vni, port)| format!("VNI {vni}, UDP {port}"));
            rows.extend(entry(outside, &name, &note));
        }
    }
    rows.extend(entry(outside, &config.physical_name, ""));
    rows
}

/// An interface: name and state, hardware address and MTU, addresses.
fn entry(snapshot: Option<&Snapshot>, name: &str, note: &str) -> Vec<String> {
    let head = |state: &str| row(format!("{name} {note}").trim_end(), state);
    let Some(snapshot) = snapshot else { return vec![head("NO NAMESPACE")] };
    let Some(link) = snapshot.link(name) else { return vec![head("MISSING")] };
    let mac = link.mac.map(|mac| mac.to_string()).unwrap_or_default();
    let mut rows = vec![head(state(link)), row(&format!("  {mac}"), &format!("mtu {}", link.mtu))];
    for address in snapshot.addresses_of(link.index).filter(|a| !is_link_local(a.net)) {
        let usable = if address.usable { "" } else { "UNUSABLE" };
        rows.push(row(&format!("  {}", address.net), usable));
    }
    rows
}

/// Rows of the last entry: from the last row that does not start with a blank.
fn physical_rows(rows: &[String]) -> usize {
    rows.iter().rev().position(|row| !row.starts_with(' ')).map_or(0, |n| n + 1)
}

fn state(link: &Link) -> &'static str {
    match (link.admin_up, link.running) {
        (true, true) => "up",
        (true, false) => "NO CARRIER",
        (false, _) => "DOWN",
    }
}

/// Addresses that every interface gives itself say nothing about the lab.
fn is_link_local(net: IpNet) -> bool {
    matches!(net, IpNet::V6(net) if net.addr().is_unicast_link_local())
}

fn top(node: &NodePlan) -> String {
    let left = format!("┌─ node {} ", node.name);
    // At least one line between the two, and the corner behind.
    let room = BOX.saturating_sub(left.width() + 5);
    let right = format!(" {} ─┐", cut(&node.netns, room));
    let line = BOX.saturating_sub(left.width() + right.width());
    format!("{left}{}{right}", "─".repeat(line))
}

fn bottom() -> String {
    let half = (BOX - 3) / 2;
    format!("└{}┬{}┘", "─".repeat(half), "─".repeat(BOX - 3 - half))
}

fn port(plan: &Plan, node: &NodePlan, snapshots: &Snapshots) -> String {
    let link = snapshots.get(&plan.wire_netns).and_then(|wire| wire.link(&node.port));
    let text = format!("│ {} {}", node.port, link.map_or("MISSING", state));
    pad(&format!("{}{text}", " ".repeat((BOX - 3) / 2 + 1)), BOX)
}

fn wire(config: &LabConfig, plan: &Plan, snapshots: &Snapshots) -> String {
    let left = (BOX - 3) / 2 + 1;
    let right = BOX + GAP + left;
    let link = snapshots.get(&plan.wire_netns).and_then(|wire| wire.link(SWITCH_BRIDGE));
    let label = format!(
        " {SWITCH_BRIDGE} {}, mtu {}, {} ",
        link.map_or("MISSING", state),
        config.wire_mtu,
        plan.wire_netns
    );
    let inner = right - left - 1;
    let line = inner.saturating_sub(label.width());
    let before = line / 2;
    format!(
        "{}└{}{}{}┘",
        " ".repeat(left),
        "─".repeat(before),
        cut(&label, inner),
        "─".repeat(line - before)
    )
}

/// The gateway and the host behind it, on the wire that is drawn above.
fn outside(plan: &Plan, snapshots: &Snapshots) -> String {
    let outside = &plan.outside;
    let port = snapshots.get(&plan.wire_netns).and_then(|wire| wire.link(&outside.port));
    let gateway = outside.gateways.first().map(|net| net.addr().to_string()).unwrap_or_default();
    let beyond = outside.addresses.first().map(ToString::to_string).unwrap_or_default();
    let there = match snapshots.get(&outside.netns) {
        Some(_) => outside.netns.as_str(),
        None => "NO NAMESPACE",
    };
    let text = format!(
        "{} {} ── gateway {gateway}, outside host {beyond}, {there}",
        outside.port,
        port.map_or("MISSING", state)
    );
    cut(&text, WIDTH)
}

/// A row of a box: text to the left and to the right; the left gives way.
fn row(left: &str, right: &str) -> String {
    let room = if right.is_empty() { TEXT } else { TEXT.saturating_sub(right.width() + 1) };
    let left = cut(left, room);
    let space = TEXT.saturating_sub(left.width() + right.width());
    format!("{left}{}{right}", " ".repeat(space))
}

fn pad(text: &str, width: usize) -> String {
    let text = cut(text, width);
    let space = width.saturating_sub(text.width());
    format!("{text}{}", " ".repeat(space))
}

/// At most `width` columns; what does not fit is replaced by "…".
fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut room = width.saturating_sub(1);
    let kept: String = text
        .chars()
        .take_while(|c| {
            let columns = c.width().unwrap_or(0);
            let fits = columns <= room;
            room = room.saturating_sub(columns);
            fits
        })
        .collect();
    format!("{kept}…")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::snapshot::Address;
    use crate::model::Mac;

    fn link(index: u32, name: &str, last: u8) -> Link {
        Link {
            index,
            name: name.to_owned(),
            mac: Some(Mac([2, 0, 0, 0, 0, last])),
            mtu: 1450,
            admin_up: true,
            running: true,
            ..Link::default()
        }
    }

    fn snapshots(config: &LabConfig, plan: &Plan) -> Snapshots {
        let mut all = Snapshots::new();
        for node in &plan.nodes {
            let mut outside = Snapshot::default();
            outside.links.push(link(2, &config.physical_name, 2));
            let mut vtep = link(3, &config.vxlan_name, 3);
            vtep.vxlan = Some((config.vni, config.vxlan_port));
            outside.links.push(vtep);
            outside.links.push(link(5, &config.bridge_name, 5));
            outside.links.push(link(6, "veth0a1b2c3d", 6));
            for (index, net) in [(2, node.wire[0]), (5, node.gateways()[0])] {
                outside.addresses.push(Address { index, net, usable: true });
            }
            all.insert(node.netns.clone(), outside);
            for pod in &node.pods {
                let mut inside = Snapshot::default();
                inside.links.push(Link { peer: Some(6), ..link(2, POD_INTERFACE, 7) });
                for net in &pod.addresses {
                    inside.addresses.push(Address { index: 2, net: *net, usable: true });
                }
                all.insert(pod.netns.clone(), inside);
            }
        }
        let mut wire = Snapshot::default();
        wire.links.extend([link(2, SWITCH_BRIDGE, 8), link(3, "u1", 9), link(4, "u2", 10)]);
        wire.links.push(link(5, &plan.outside.port, 11));
        all.insert(plan.wire_netns.clone(), wire);
        all.insert(plan.outside.netns.clone(), Snapshot::default());
        all
    }

    #[test]
    fn picture_of_a_healthy_lab() {
        let config = LabConfig { ipv6: false, ..LabConfig::default() };
        let plan = Plan::new(&config);
        insta::assert_snapshot!(picture(&config, &plan, &snapshots(&config, &plan), &[]), @r#"
        lab: vxlan, IPv4, firewall nft, kube-proxy iptables: healthy
        service web   10.96.0.10:80/tcp        → port 8080 of b
        service dns   10.96.0.53:53/udp 53/tcp → port 53 of a2, b2
        service shop  10.96.0.20:80/tcp        → port 8090 of a2, b, b2, NodePort 30090
        service echo  10.96.0.30:7/udp 7/tcp   → port 7 of b2
        service cart  10.96.0.40:80/tcp        → port 8090 of a2, b2, affinity ClientIP
        service agent 10.96.0.60:9100/tcp      → port 9100 of A, B
        service empty 10.96.0.70:80/tcp        → nobody

        ┌─ node A ─────────────── podtrace-A ─┐  ┌─ node B ─────────────── podtrace-B ─┐
        │ pod a                               │  │ pod b                               │
        │ eth0 ── veth0a1b2c3d             up │  │ eth0 ── veth0a1b2c3d             up │
        │   02:00:00:00:00:07        mtu 1450 │  │   02:00:00:00:00:07        mtu 1450 │
        │   10.10.0.2/24                      │  │   10.10.1.2/24                      │
        │                                     │  │                                     │
        │ pod a2                              │  │ pod b2                              │
        │ eth0 ── veth0a1b2c3d             up │  │ eth0 ── veth0a1b2c3d             up │
        │   02:00:00:00:00:07        mtu 1450 │  │   02:00:00:00:00:07        mtu 1450 │
        │   10.10.0.3/24                      │  │   10.10.1.3/24                      │
        │                                     │  │                                     │
        │ cni0                             up │  │ cni0                             up │
        │   02:00:00:00:00:05        mtu 1450 │  │   02:00:00:00:00:05        mtu 1450 │
        │   10.10.0.1/24                      │  │   10.10.1.1/24                      │
        │ flannel.1 VNI 1, UDP 8472        up │  │ flannel.1 VNI 1, UDP 8472        up │
        │   02:00:00:00:00:03        mtu 1450 │  │   02:00:00:00:00:03        mtu 1450 │
        │ ens33                            up │  │ ens33                            up │
        │   02:00:00:00:00:02        mtu 1450 │  │   02:00:00:00:00:02        mtu 1450 │
        │   192.168.10.11/24                  │  │   192.168.10.12/24                  │
        └──────────────────┬──────────────────┘  └──────────────────┬──────────────────┘
                           │ u1 up                                  │ u2 up
                           └─── sw0 up, mtu 1500, podtrace-wire ────┘
        u0 up ── gateway 192.168.10.1, outside host 203.0.113.80, podtrace-outside
        "#);
    }

    #[test]
    fn damage_shows_and_nothing_is_wider_than_the_terminal() {
        let config =
            LabConfig { name: "a-rather-long-name-for-a-lab".into(), ..LabConfig::default() };
        let plan = Plan::new(&config);
        let mut snapshots = snapshots(&config, &plan);
        snapshots.remove(&plan.nodes[0].pods[1].netns);
        snapshots.remove(&plan.outside.netns);
        if let Some(wire) = snapshots.get_mut(&plan.wire_netns) {
            wire.links[1].admin_up = false;
        }
        let text = picture(&config, &plan, &snapshots, &["x".repeat(100)]);
        assert!(text.contains("NO NAMESPACE") && text.contains("u1 DOWN"));
        // The IPv6 device is not in the snapshots.
        assert!(text.contains("flannel-v6.1") && text.contains("MISSING"));
        for line in text.lines() {
            assert!(line.width() <= WIDTH, "{line}");
        }
    }
}
