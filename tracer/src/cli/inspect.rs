//! `podtrace interfaces|pods|nodes`: what can be seen from here, without any traffic.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use serde::Serialize;
use unicode_width::UnicodeWidthStr;

use crate::endpoint::{self, EndpointError};
use crate::expect::{self, Classified, Family};
use crate::facts::{self, Space, SpaceKind};
use crate::inventory::{Inventory, InventoryError, Place};
use crate::model::{Role, Station};
use crate::node::Nodes;

/// How to print.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// An aligned table.
    #[default]
    Text,
    /// JSON.
    Json,
}

/// Options that all of these commands have.
#[derive(Clone, Debug, Args)]
struct Common {
    /// Inventory of nodes and pods [default: $PODTRACE_INVENTORY, then
    /// /run/podtrace/inventory.toml, then /etc/podtrace/inventory.toml]
    #[arg(long, value_name = "FILE")]
    inventory: Option<PathBuf>,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Show the interfaces that packets between two pods cross, and what each is for.
///
/// Without --src and --dst, shows all interfaces of every node and pod of the inventory.
#[derive(Clone, Debug, Args)]
pub struct InterfacesArgs {
    /// Where packets start: NODE.POD, NAMESPACE/POD, POD or an IP address
    #[arg(long, value_name = "ENDPOINT", requires = "dst")]
    src: Option<String>,
    /// Where they go
    #[arg(long, value_name = "ENDPOINT", requires = "src")]
    dst: Option<String>,
    #[command(flatten)]
    common: Common,
}

/// Show the pods that can be traced.
#[derive(Clone, Debug, Args)]
pub struct PodsArgs {
    #[command(flatten)]
    common: Common,
}

/// Show the nodes that can be traced.
#[derive(Clone, Debug, Args)]
pub struct NodesArgs {
    #[command(flatten)]
    common: Common,
}

/// One interface, as JSON gives it.
#[derive(Serialize)]
struct InterfaceRow {
    #[serde(flatten)]
    station: Station,
    /// Has a carrier.
    lower_up: bool,
    /// Operational state.
    state: String,
    /// `A.vethX`: the other end of the pair, or the device below.
    peer: Option<String>,
}

#[derive(Serialize)]
struct Interfaces {
    interfaces: Vec<InterfaceRow>,
    gaps: Vec<String>,
}

#[derive(Serialize)]
struct PodRow {
    name: String,
    namespace: String,
    node: String,
    ips: Vec<String>,
    netns: Option<String>,
    netns_inum: Option<u32>,
    /// Why it cannot be traced; `null`: it can.
    problem: Option<String>,
}

#[derive(Serialize)]
struct NodeRow {
    name: String,
    netns: Option<String>,
    netns_inum: Option<u32>,
    agent: Option<String>,
    pods: usize,
    /// Why it cannot be observed; `null`: it can.
    problem: Option<String>,
}

impl InterfacesArgs {
    /// Runs the command; the exit status.
    ///
    /// # Errors
    /// When an endpoint cannot be found or a namespace not read.
    pub fn run(self) -> anyhow::Result<u8> {
        let inventory = Inventory::load(self.common.inventory.as_deref())?;
        let shown = match (&self.src, &self.dst) {
            (Some(src), Some(dst)) => between(&Nodes::new(inventory), src, dst)?,
            _ => everything(&Nodes::new(Some(required(inventory)?))),
        };
        print(self.common.format, &shown, interfaces_text)
    }
}

impl PodsArgs {
    /// Runs the command; the exit status.
    ///
    /// # Errors
    /// When there is no inventory, or a wrong one.
    pub fn run(self) -> anyhow::Result<u8> {
        let inventory = required(Inventory::load(self.common.inventory.as_deref())?)?;
        let nodes = Nodes::new(Some(inventory.clone()));
        let rows: Vec<_> = inventory
            .pods()
            .map(|(node, pod)| {
                let (found, problem) = split(endpoint::pod(&nodes, node, pod));
                let ips = found.as_ref().map_or(&pod.ips, |f| &f.end.ips);
                PodRow {
                    name: pod.name.clone(),
                    namespace: pod.namespace.clone(),
                    node: node.name.clone(),
                    ips: ips.iter().map(ToString::to_string).collect(),
                    netns: found
                        .as_ref()
                        .map(|f| f.pod_netns.name().to_owned())
                        .or_else(|| pod.netns.clone()),
                    netns_inum: found.as_ref().map(|f| f.pod_netns.inum()),
                    problem,
                }
            })
            .collect();
        print(self.common.format, &rows, |rows| {
            let header = ["NODE", "POD", "NAMESPACE", "NETNS", "ADDRESSES"];
            let lines = rows.iter().map(|p| {
                let netns = p.netns.clone().unwrap_or_default();
                [p.node.clone(), p.name.clone(), p.namespace.clone(), netns, p.ips.join(" ")]
            });
            let problems = rows.iter().filter_map(|p| p.problem.clone());
            with_notes(table(&header, lines), problems)
        })
    }
}

impl NodesArgs {
    /// Runs the command; the exit status.
    ///
    /// # Errors
    /// When there is no inventory, or a wrong one.
    pub fn run(self) -> anyhow::Result<u8> {
        let inventory = required(Inventory::load(self.common.inventory.as_deref())?)?;
        let nodes = Nodes::new(Some(inventory.clone()));
        let rows: Vec<_> = inventory
            .nodes
            .iter()
            .map(|node| {
                let (found, problem) = split(endpoint::node_netns(&nodes, node));
                let (netns, agent) = match &node.place {
                    Place::Netns(netns) => (Some(netns.clone()), None),
                    Place::Agent(agent) => (None, Some(agent.clone())),
                };
                NodeRow {
                    name: node.name.clone(),
                    netns,
                    netns_inum: found.map(|n| n.inum()),
                    agent,
                    pods: node.pods.len(),
                    problem,
                }
            })
            .collect();
        print(self.common.format, &rows, |rows| {
            let lines = rows.iter().map(|n| {
                let place = n.netns.clone().or_else(|| n.agent.clone()).unwrap_or_default();
                let inode = n.netns_inum.map(|i| i.to_string()).unwrap_or_default();
                [n.name.clone(), place, inode, n.pods.to_string()]
            });
            let problems = rows.iter().filter_map(|n| n.problem.clone());
            with_notes(table(&["NODE", "NETNS", "INODE", "PODS"], lines), problems)
        })
    }
}

fn split<T>(result: Result<T, EndpointError>) -> (Option<T>, Option<String>) {
    match result {
        Ok(value) => (Some(value), None),
        Err(e) => (None, Some(format!("{:#}", anyhow::Error::from(e)))),
    }
}

fn required(inventory: Option<Inventory>) -> Result<Inventory, InventoryError> {
    inventory.ok_or(InventoryError::None)
}

/// The stations between two ends.
fn between(nodes: &Nodes, src: &str, dst: &str) -> anyhow::Result<Interfaces> {
    let mut src = endpoint::source(src, dst, nodes)?;
    let mut dst = match endpoint::resolve(dst, nodes) {
        Err(EndpointError::Address(ip)) => endpoint::outside(ip, src.node.clone()),
        found => found?,
    };
    endpoint::face(&mut src, &mut dst);
    endpoint::distinct(&src, &dst)?;
    let family = Family::common(&src.end, &dst.end)?;
    let facts = facts::collect(nodes, &src, &dst.into())?.facts;
    let topology = expect::topology(&facts, family)?;
    let classified = expect::classify(&facts.spaces);
    let interfaces = topology
        .stations
        .iter()
        .filter_map(|s| {
            classified
                .iter()
                .find(|c| c.space.facts.inum == s.netns_inum && c.link.index == s.ifindex)
        })
        .map(|c| row(c, &facts.spaces))
        .collect();
    Ok(Interfaces { interfaces, gaps: topology.gaps })
}

/// Every interface of every namespace of the inventory.
fn everything(nodes: &Nodes) -> Interfaces {
    let (collected, mut gaps) = facts::survey(nodes);
    let spaces = &collected.facts;
    for space in spaces {
        let whose = &space.facts.name;
        gaps.extend(space.facts.gaps.iter().map(|gap| format!("{whose}: {gap}")));
    }
    let classified = expect::classify(spaces);
    Interfaces { interfaces: classified.iter().map(|c| row(c, spaces)).collect(), gaps }
}

fn row(c: &Classified<'_>, spaces: &[Space]) -> InterfaceRow {
    InterfaceRow {
        station: c.station(),
        lower_up: c.link.lower_up,
        state: c.link.oper_state.clone(),
        peer: peer(c, spaces),
    }
}

fn peer(c: &Classified<'_>, spaces: &[Space]) -> Option<String> {
    let lower = c.link.vxlan.as_ref().and_then(|v| v.lower_ifindex);
    let index = c.link.linked.or(lower)?;
    let (inum, index) = match c.space.facts.peer(c.link) {
        Some(peer) => peer,
        None if c.link.linked_nsid.is_none() => (c.space.facts.inum, index),
        None => return Some(format!("#{index} elsewhere")),
    };
    let space = spaces.iter().find(|s| s.facts.inum == inum);
    let Some((space, link)) = space.and_then(|s| Some((s, s.facts.link(index)?))) else {
        return Some(format!("#{index} elsewhere"));
    };
    Some(if space.facts.inum == c.space.facts.inum {
        link.name.clone()
    } else {
        match (&space.pod, space.kind) {
            (Some(pod), SpaceKind::Pod) => format!("{}.{pod}.{}", space.node, link.name),
            _ => format!("{}.{}", space.node, link.name),
        }
    })
}

/// One heading per namespace, one line per interface, addresses and tunnel below it: so that it
/// fits 80 columns.
fn interfaces_text(shown: &Interfaces) -> String {
    let header = ["INTERFACE", "INDEX", "ROLE", "MAC", "MTU", "STATE", "PEER"];
    let lines: Vec<_> = shown.interfaces.iter().map(interface_cells).collect();
    let aligned = table(&header, lines.into_iter());
    let mut aligned = aligned.lines();
    let mut text = String::new();
    let mut heading = None;
    let columns = aligned.next().unwrap_or_default();
    for (interface, line) in shown.interfaces.iter().zip(aligned) {
        let station = &interface.station;
        if heading != Some(station.netns_inum) {
            let whose = match &station.pod {
                Some(pod) => format!("pod {}.{pod}", station.node),
                None => format!("node {}", station.node),
            };
            let gap = if heading.is_some() { "\n" } else { "" };
            // Writing to a String cannot fail.
            _ = writeln!(text, "{gap}{whose} (namespace {})\n  {columns}", station.netns);
            heading = Some(station.netns_inum);
        }
        _ = writeln!(text, "  {line}");
        let addresses = station.addresses.iter().map(ToString::to_string);
        for detail in addresses.chain(tunnel(station)) {
            _ = writeln!(text, "      {detail}");
        }
    }
    with_notes(text, shown.gaps.iter().cloned())
}

fn interface_cells(interface: &InterfaceRow) -> [String; 7] {
    let station = &interface.station;
    let state = match (station.up, interface.lower_up) {
        (false, _) => "down",
        (true, false) => "no-carrier",
        (true, true) => "up",
    };
    [
        station.name.clone(),
        station.ifindex.to_string(),
        if station.role == Role::Other { "-".to_owned() } else { station.role.to_string() },
        station.mac.map_or_else(|| "-".to_owned(), |mac| mac.to_string()),
        station.mtu.to_string(),
        state.to_owned(),
        interface.peer.clone().unwrap_or_default(),
    ]
}

fn tunnel(station: &Station) -> Option<String> {
    let vxlan = station.vxlan.as_ref()?;
    let local = vxlan.local.map(|l| format!(" local {l}")).unwrap_or_default();
    let learning = if vxlan.learning { "learning" } else { "nolearning" };
    Some(format!("vxlan vni {} port {}{local} {learning}", vxlan.vni, vxlan.port))
}

/// Aligns columns; trailing spaces are cut.
fn table<const N: usize>(header: &[&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let mut lines = vec![header.map(str::to_owned)];
    lines.extend(rows);
    let mut widths = [0; N];
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.width());
        }
    }
    let mut text = String::new();
    for line in &lines {
        let mut row = String::new();
        for (width, cell) in widths.iter().zip(line) {
            row.push_str(cell);
            row.extend(std::iter::repeat_n(' ', width - cell.width() + 2));
        }
        text.push_str(row.trim_end());
        text.push('\n');
    }
    text
}

fn with_notes(mut text: String, notes: impl Iterator<Item = String>) -> String {
    for note in notes.collect::<BTreeSet<_>>() {
        _ = writeln!(text, "note: {note}");
    }
    text
}

/// Prints; a reader that went away is no error.
fn print<T: Serialize>(
    format: Format,
    value: &T,
    text: impl FnOnce(&T) -> String,
) -> anyhow::Result<u8> {
    let text = match format {
        Format::Text => text(value),
        Format::Json => format!("{}\n", serde_json::to_string_pretty(value)?),
    };
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(0),
        other => other.map(|()| 0).context("cannot write to standard output"),
    }
}
