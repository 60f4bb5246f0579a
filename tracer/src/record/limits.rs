//! Bounds of what a trace file may hold. Writers keep to them; readers refuse what does not.

use super::format::Header;
use crate::decode::RawEvent;
use crate::model::{End, EventKind, Station, Topology};

/// Bytes of a record other than an event, without its line feed.
pub const RECORD: usize = 16 << 20;
/// Bytes of an event, without its line feed.
pub const EVENT: usize = 32 << 10;
/// Events of a batch.
pub const BATCH: usize = 65_536;
/// Binary logarithm of the zstd window, bytes.
pub const WINDOW_LOG: u32 = 23;
/// Interfaces of a topology.
pub const STATIONS: usize = 4096;
/// Machines.
pub const MACHINES: usize = 256;
/// Topologies of one address family: ends that packets may come to.
pub const LEGS: usize = 1024;
/// Steps of a planned path.
pub const PATH: usize = 4096;
/// Bytes of a name: node, pod, interface, namespace, function, drop reason.
pub const NAME: usize = 512;
/// Frames of a kernel stack.
pub const STACK: usize = 128;
/// Remarks of the recorder.
pub const NOTES: usize = 1000;

type Checked = Result<(), String>;

fn name(text: &str, what: &str) -> Checked {
    if text.len() <= NAME {
        Ok(())
    } else {
        Err(format!("{what} of {} bytes; at most {NAME} are allowed", text.len()))
    }
}

fn count(n: usize, most: usize, what: &str) -> Checked {
    if n <= most { Ok(()) } else { Err(format!("{n} {what}; at most {most} are allowed")) }
}

fn end(end: &End) -> Checked {
    name(&end.name, "an endpoint's name")?;
    name(&end.node, "a node's name")?;
    name(end.pod.as_deref().unwrap_or_default(), "a pod's name")
}

fn station(station: &Station) -> Checked {
    name(&station.node, "a node's name")?;
    name(station.pod.as_deref().unwrap_or_default(), "a pod's name")?;
    name(&station.netns, "a namespace's name")?;
    name(&station.name, "an interface's name")
}

/// Whether a machine's number is within bounds.
pub(crate) fn machine(number: u16) -> Checked {
    if usize::from(number) < MACHINES {
        Ok(())
    } else {
        Err(format!("machine {number}; at most {MACHINES} are allowed"))
    }
}

/// Whether a header is within bounds.
pub(super) fn header(header: &Header) -> Checked {
    count(header.machines.len(), MACHINES, "machines")?;
    for machine in &header.machines {
        name(&machine.kernel, "a kernel release")?;
    }
    name(&header.started, "a time")?;
    name(&header.tool, "a version")
}

/// Whether there may be one topology more of an address family.
pub(super) fn legs(known: usize) -> Checked {
    count(known + 1, LEGS, "topologies of one address family")
}

/// Whether a topology is within bounds and its paths lead over its own stations.
pub(crate) fn topology(topology: &Topology) -> Checked {
    count(topology.stations.len(), STATIONS, "interfaces")?;
    topology.stations.iter().try_for_each(station)?;
    topology.src.iter().chain(&topology.dst).try_for_each(end)?;
    count(topology.machines.len(), STATIONS, "nodes")?;
    for (node, number) in &topology.machines {
        name(node, "a node's name")?;
        machine(*number)?;
    }
    for path in [&topology.forward, &topology.reply] {
        count(path.len(), PATH, "steps of a path")?;
        if path.iter().any(|point| usize::from(point.station.0) >= topology.stations.len()) {
            return Err("a path leads over an interface that is not there".to_owned());
        }
    }
    topology
        .names
        .ip
        .values()
        .chain(topology.names.mac.values())
        .try_for_each(|n| name(n, "a name"))
}

/// Whether an event is within bounds, beyond those of its line.
pub(crate) fn event(event: &RawEvent<'_>) -> Checked {
    machine(event.machine)?;
    if let EventKind::Drop(info) = &event.kind {
        count(info.stack.len(), STACK, "frames of a stack")?;
        name(&info.reason, "a reason")?;
        name(&info.function, "a function's name")?;
        info.stack.iter().try_for_each(|f| name(f, "a function's name"))?;
    }
    Ok(())
}
