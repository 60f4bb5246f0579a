//! pcapng for Wireshark and tshark: every sighting as a packet of the interface it was seen at.
//!
//! One interface block for each node and interface, frames as captured there, and in comments what
//! podtrace knows of them. The number of the packet (`epb_packetid`) is the same at every hop.

mod blocks;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write};

use blocks::{Block, ETHERNET, RAW, option};

use super::marks::{Mark, Marks};
use crate::correlate::Clocks;
use crate::decode::RawEvent;
use crate::model::{DropInfo, EventKind, Hook, Outcome, Role, Station, Topology};
use crate::record::{Header, Replay};
use crate::report::JourneyReport;

/// `TC_ACT_SHOT` (include/uapi/linux/pkt_cls.h) as the verdict of a Linux eBPF program: the type
/// octet 1, then 64 bits. The format knows no other word for "dropped by the kernel".
const DROPPED: [u8; 9] = [1, 2, 0, 0, 0, 0, 0, 0, 0];

/// An Ethernet header for frames captured without theirs, but for its EtherType.
const NO_LINK_HEADER: [u8; 12] = [0; 12];

/// Interfaces that are not stations (of drops elsewhere) that are told apart.
const OTHERS: usize = 4096;

/// An export under way.
#[derive(Debug)]
pub struct Pcapng<'a> {
    topology: &'a Topology,
    marks: &'a Marks,
    journeys: HashMap<u64, &'a JourneyReport>,
    clock: Clock,
    clocks: &'a Clocks,
    /// Interface number of the station at this index; `None`: not exported.
    stations: Vec<Option<u32>>,
    others: HashMap<(u32, u32), u32>,
    counts: Vec<u64>,
    /// First and last time, ns.
    span: Option<(u64, u64)>,
}

/// Converts kernel time to wall-clock time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock(i128);

impl Clock {
    /// As the header of a recording says.
    pub(super) fn of(header: &Header) -> Self {
        let clock = header.machines.first().map(|m| &m.clock);
        Self(clock.map_or(0, |clock| {
            let wall: Option<jiff::Timestamp> = clock.wall.parse().ok();
            wall.map_or(0, |wall| wall.as_nanosecond() - i128::from(clock.at_ns))
        }))
    }

    /// Nanoseconds since 1970.
    pub(super) fn wall_ns(self, kernel_ns: u64) -> u64 {
        u64::try_from(i128::from(kernel_ns) + self.0).unwrap_or(kernel_ns)
    }
}

/// What an interface is, for people.
fn description(station: &Station) -> String {
    let role = match station.role {
        Role::Pod => "the pod's own end of its veth pair",
        Role::Veth => "the node's end of a pod's veth pair",
        Role::Bridge => "the bridge of the pods",
        Role::Vxlan => "VXLAN tunnel",
        Role::Tun => "TUN device",
        Role::Physical => "leads to the other nodes",
        Role::Wire => "the wire between the nodes",
        Role::Other => "on the path",
    };
    let mut text = format!("role {}: {role}; node {}", station.role, station.node);
    if let Some(pod) = &station.pod {
        text.push_str(&format!(", pod {pod}"));
    }
    text.push_str(&format!(", netns {}, MTU {}", station.netns, station.mtu));
    if let Some(vxlan) = &station.vxlan {
        text.push_str(&format!(", VNI {}, UDP port {}", vxlan.vni, vxlan.port));
    }
    text
}

impl<'a> Pcapng<'a> {
    /// Writes what comes before the packets. With `hop`, only the interface of that name
    /// (`A.cni0`) is exported.
    ///
    /// # Errors
    /// When it cannot be written, or there is no such interface.
    pub fn start(
        out: &mut dyn Write,
        replay: &'a Replay,
        marks: &'a Marks,
        hop: Option<&str>,
    ) -> io::Result<Self> {
        let Some((_, topology, _)) = replay.main.traces.first() else {
            return Err(io::Error::other("the recording has no topology"));
        };
        let mut export = Self {
            topology,
            marks,
            journeys: HashMap::new(),
            clock: Clock::of(&replay.header),
            clocks: &replay.main.clocks,
            stations: vec![None; topology.stations.len()],
            others: HashMap::new(),
            counts: Vec::new(),
            span: None,
        };
        for journey in &replay.report.journeys {
            if let Ok(id) = journey.id.parse() {
                export.journeys.insert(id, journey);
            }
        }
        export.section(out, replay)?;
        for (i, station) in topology.stations.iter().enumerate() {
            if hop.is_none_or(|hop| hop == station.label()) {
                export.stations[i] = Some(export.interface(out, station, replay)?);
            }
        }
        if export.counts.is_empty() {
            let labels: Vec<_> = topology.stations.iter().map(Station::label).collect();
            return Err(io::Error::other(format!(
                "there is no interface {}; there are: {}",
                hop.unwrap_or_default(),
                labels.join(", ")
            )));
        }
        if hop.is_some() {
            // Drops elsewhere are not seen there.
            export.others.insert((0, 0), u32::MAX);
        }
        let names: BTreeMap<_, _> = topology.names.ip.iter().collect();
        if !names.is_empty() {
            Block::names(names.into_iter()).write(out)?;
        }
        Ok(export)
    }

    fn section(&self, out: &mut dyn Write, replay: &Replay) -> io::Result<()> {
        let report = &replay.report;
        let mut comment =
            format!("{} → {}: {}", report.src.name, report.dst.name, report.verdict.summary);
        for port in &self.topology.vxlan_ports {
            comment.push_str(&format!(
                "\nThe tunnel uses UDP port {port}. Where it is not shown as VXLAN: \
                 tshark -d udp.port=={port},vxlan, or Decode As in Wireshark."
            ));
        }
        for remark in &replay.remarks {
            comment.push_str(&format!("\n{remark}"));
        }
        Block::section()
            .text(option::COMMENT, &comment)
            .text(option::SHB_OS, &format!("Linux {}", report.tool.kernel))
            .text(option::SHB_APPLICATION, &format!("podtrace {}", report.tool.version))
            .write(out)
    }

    fn interface(
        &mut self,
        out: &mut dyn Write,
        station: &Station,
        replay: &Replay,
    ) -> io::Result<u32> {
        let mut block = Block::interface(if station.ethernet { ETHERNET } else { RAW })
            .text(option::IF_NAME, &station.label())
            .text(option::IF_DESCRIPTION, &description(station))
            .option(option::IF_TSRESOL, &[9])
            .text(option::IF_OS, &format!("Linux {}", replay.report.tool.kernel));
        if let Some(mac) = station.mac {
            block = block.mac(option::IF_MAC, mac);
        }
        for net in &station.addresses {
            block = match net {
                ipnet::IpNet::V4(net) => {
                    let parts = [net.addr().octets(), net.netmask().octets()];
                    block.option(option::IF_IPV4, &parts.concat())
                }
                ipnet::IpNet::V6(net) => {
                    let mut value = net.addr().octets().to_vec();
                    value.push(net.prefix_len());
                    block.option(option::IF_IPV6, &value)
                }
            };
        }
        if let Some(vxlan) = &station.vxlan {
            let hint = format!(
                "outer frames are VXLAN on UDP port {0}: tshark -d udp.port=={0},vxlan",
                vxlan.port
            );
            block = block.text(option::COMMENT, &hint);
        }
        block.write(out)?;
        self.counts.push(0);
        Ok(u32::try_from(self.counts.len() - 1).unwrap_or(u32::MAX))
    }

    /// The interface of an event: a station's, or one made for it; `None`: not exported.
    fn interface_of(
        &mut self,
        out: &mut dyn Write,
        event: &RawEvent<'_>,
    ) -> io::Result<Option<(u32, bool)>> {
        if let Some(id) = self.topology.find(event.netns_inum, event.ifindex) {
            let number = self.stations.get(usize::from(id.0)).copied().flatten();
            return Ok(number.map(|n| (n, self.topology.station(id).ethernet)));
        }
        let mut key = (event.netns_inum, event.ifindex);
        if self.others.contains_key(&(0, 0)) && self.others[&(0, 0)] == u32::MAX {
            return Ok(None);
        }
        if self.others.len() >= OTHERS {
            key = (0, 0);
        }
        if let Some(number) = self.others.get(&key) {
            return Ok(Some((*number, true)));
        }
        let owner = self.topology.owner(key.0);
        let name = match owner {
            Some((node, Some(pod))) => format!("{node}.{pod}.if{}", key.1),
            Some((node, None)) => format!("{node}.if{}", key.1),
            None => format!("elsewhere.if{}", key.1),
        };
        Block::interface(ETHERNET)
            .text(option::IF_NAME, &name)
            .text(option::IF_DESCRIPTION, "not on the planned path; only drops are seen here")
            .option(option::IF_TSRESOL, &[9])
            .write(out)?;
        self.counts.push(0);
        let number = u32::try_from(self.counts.len() - 1).unwrap_or(u32::MAX);
        self.others.insert(key, number);
        Ok(Some((number, true)))
    }

    /// Writes an event.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn event(&mut self, out: &mut dyn Write, event: &RawEvent<'_>) -> io::Result<()> {
        let Some((interface, ethernet)) = self.interface_of(out, event)? else { return Ok(()) };
        let (data, len, made_up) = frame(event, ethernet);
        let ns = self.clock.wall_ns(self.clocks.machine_0_at(event.reading()));
        let (first, last) = self.span.unwrap_or((ns, ns));
        self.span = Some((first.min(ns), last.max(ns)));
        if let Some(count) = self.counts.get_mut(interface as usize) {
            *count += 1;
        }
        let mark = self.marks.of(self.topology, event);
        let direction: u32 = match &event.kind {
            EventKind::Hop(Hook::Ingress) => 1,
            EventKind::Hop(Hook::Egress) => 2,
            EventKind::Drop(_) => 0,
        };
        let mut block = Block::packet(interface, ns, &data, len)
            .option(option::EPB_FLAGS, &direction.to_le_bytes());
        if let Some(mark) = mark {
            block = block.option(option::EPB_PACKETID, &mark.id.to_le_bytes());
        }
        if let EventKind::Drop(info) = &event.kind {
            block = block
                .option(option::EPB_VERDICT, &DROPPED)
                .text(option::COMMENT, &self.drop_comment(info, mark));
        }
        if let Some(comment) = mark.and_then(|mark| self.missing_comment(mark)) {
            block = block.text(option::COMMENT, &comment);
        }
        if let Some(gso) = &event.gso {
            let text = format!("super-packet: {} segments of {} bytes", gso.segments, gso.size);
            block = block.text(option::COMMENT, &text);
        }
        if made_up {
            let text = "the kernel gave no link header; the one shown is made up";
            block = block.text(option::COMMENT, text);
        }
        block.write(out)
    }

    fn drop_comment(&self, info: &DropInfo, mark: Option<Mark>) -> String {
        let mut text = format!("dropped: {} ({}) in {}", info.reason, info.code, info.function);
        let journey = mark.and_then(|mark| self.journeys.get(&mark.id));
        if let Some(drop) = journey.and_then(|journey| journey.drop.as_ref()) {
            if let Some(hook) = &drop.hook {
                text.push_str(&format!(", netfilter hook {hook}"));
            }
            if let Some(rule) = &drop.rule {
                text.push_str(&format!(", rule {rule}"));
            }
            if let Some(node) = &drop.place.node {
                text.push_str(&format!(", node {node}"));
            }
        }
        match mark {
            Some(mark) => text.push_str(&format!("; this ended packet {}", mark.id)),
            None => text.push_str("; no packet of the flow ended here"),
        }
        if !info.stack.is_empty() {
            text.push_str(&format!("\nkernel stack: {}", info.stack.join(" < ")));
        }
        text
    }

    fn missing_comment(&self, mark: Mark) -> Option<String> {
        let next = mark.missing_at?;
        let label = self.topology.station(next.station).label();
        (mark.outcome == Outcome::Lost).then(|| {
            format!(
                "packet {} was last seen here; it should have come by at {label} {} next",
                mark.id, next.hook
            )
        })
    }

    /// Writes what comes after the packets.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(self, out: &mut dyn Write, replay: &Replay) -> io::Result<()> {
        let lost = replay.main.observation.events_lost();
        let (first, last) = self.span.unwrap_or_default();
        for (interface, count) in (0_u32..).zip(&self.counts) {
            // Events are lost for all interfaces of a machine together: counted once, said at each.
            let dropped = if interface == 0 { lost } else { 0 };
            let mut block = Block::statistics(interface, last)
                .option(option::ISB_STARTTIME, &time(first))
                .option(option::ISB_ENDTIME, &time(last))
                .option(option::ISB_IFRECV, &count.to_le_bytes())
                .option(option::ISB_IFDROP, &dropped.to_le_bytes());
            if lost > 0 {
                let text = format!("{lost} events were lost in observation, at any interface");
                block = block.text(option::COMMENT, &text);
            }
            block.write(out)?;
        }
        Ok(())
    }
}

/// A time as options have it: the high half first.
fn time(ns: u64) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&((ns >> 32) as u32).to_le_bytes());
    bytes[4..].copy_from_slice(&(ns as u32).to_le_bytes());
    bytes
}

/// The frame of an event for its interface, its length, and whether its link header is made up.
fn frame<'e>(event: &'e RawEvent<'_>, ethernet: bool) -> (Cow<'e, [u8]>, u32, bool) {
    let l3 = usize::from(event.l3_offset).min(event.data.len());
    match (ethernet, l3) {
        (false, _) => (Cow::Borrowed(&event.data[l3..]), event.len, false),
        (true, 14..) => (Cow::Borrowed(&event.data[l3 - 14..]), event.len, false),
        (true, _) => {
            let ethertype = event.protocol.to_be_bytes();
            let data = [&NO_LINK_HEADER[..], &ethertype, &event.data[l3..]].concat();
            (Cow::Owned(data), event.len.saturating_add(14), true)
        }
    }
}
