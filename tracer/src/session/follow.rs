//! The second look: what the first result leaves open is asked over the same capture.
//!
//! * Everything arrived: does a packet as large as the pod's interface takes arrive too? Small ones
//!   say nothing about the path's MTU.
//! * Lost between two nodes: do the nodes reach each other at all? A ping from node to node tells a
//!   dead link from a filter that takes only the tunnel's packets.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::{Session, send_from};
use crate::analysis::{Analyzed, Large};
use crate::facts::PathFacts;
use crate::model::{NodePing, Role};
use crate::probe::{Probe, Proto};
use crate::record::StageKind;
use crate::report::{Report, Status};

/// ICMP header and IPv4 or IPv6 header around the payload of an echo request, bytes.
const HEADERS: (u32, u32) = (8 + 20, 8 + 40);

/// Large packets sent.
const LARGE_COUNT: u64 = 2;

/// Pings from node to node.
const PING_COUNT: u64 = 3;

/// Time between the packets of a second look.
const INTERVAL: Duration = Duration::from_millis(50);

/// How long an answer is waited for. Nothing here waits for an address to be resolved: packets have
/// gone the same way just before.
const PATIENCE: Duration = Duration::from_millis(600);

impl Session {
    /// Looks again where the first result asks for it.
    pub(super) fn follow_up(
        &mut self,
        report: Report,
        main: &mut Analyzed,
        after: &PathFacts,
    ) -> Result<Report> {
        if report.verdict.status == Status::Delivered
            && self.spec.probe == Some(Proto::Icmp)
            && self.spec.size.is_none()
        {
            return self.large(report, main, after);
        }
        if report.verdict.status != Status::Inconclusive
            && report.verdict.is_on_wire()
            && let Some(ping) = self.ping_nodes(&report)
        {
            main.observation.node_ping = Some(ping);
            self.record_amended(&main.observation);
            return self.diagnose(main, None, after);
        }
        Ok(report)
    }

    /// Sends packets as large as the source pod's interface takes, unfragmented.
    fn large(&mut self, report: Report, main: &Analyzed, after: &PathFacts) -> Result<Report> {
        let topology = Arc::clone(&self.paths[0].1);
        let mtu = topology.forward.first().map(|p| topology.station(p.station).mtu);
        let template = self.template()?;
        let headers = if template.dst.is_ipv4() { HEADERS.0 } else { HEADERS.1 };
        let Some(mtu) = mtu.filter(|mtu| *mtu > headers) else { return Ok(report) };
        let probe = Probe {
            count: LARGE_COUNT,
            interval: INTERVAL,
            // Raw sockets send at most 65,507 bytes behind an IPv4 header.
            size: (mtu - headers).min(65_000) as usize,
            dont_fragment: true,
            timeout: PATIENCE,
            ..template
        };
        let handle = self.send(probe)?;
        let deadline = Instant::now() + PATIENCE + INTERVAL * 4;
        while !handle.is_finished() && Instant::now() < deadline {
            self.take(Duration::from_millis(10));
        }
        self.probe = Some(handle);
        let patience = Duration::from_millis(100);
        let analyzed = self.close_stage(StageKind::Large, Some(mtu), patience)?;
        self.diagnose(main, Some(&Large { mtu, analyzed }), after)
    }

    /// Pings the node where the packets should have arrived from the one that they left.
    fn ping_nodes(&self, report: &Report) -> Option<NodePing> {
        let from = &report.verdict.last_seen.as_ref()?.node;
        let to = &report.verdict.next_expected.as_ref()?.node;
        let direction = report.verdict.direction?;
        // The tunnel's own ends where there is a tunnel; else the physical interfaces' addresses.
        let outer = report
            .journeys
            .iter()
            .filter(|j| j.direction == direction)
            .flat_map(|j| &j.hops)
            .filter(|h| h.point.node == *from)
            .find_map(|h| h.outer.as_ref());
        let (src, dst): (IpAddr, IpAddr) = match outer {
            Some(outer) => (outer.src_ip.parse().ok()?, outer.dst_ip.parse().ok()?),
            None => {
                let v4 = self.template().ok()?.dst.is_ipv4();
                let address = |node: &str| {
                    let topology = self.topology();
                    let station = topology
                        .stations
                        .iter()
                        .find(|s| s.node == node && s.pod.is_none() && s.role == Role::Physical)?;
                    let ips = station.addresses.iter().map(|net| net.addr());
                    ips.filter(|ip| !crate::facts::is_link_local(*ip)).find(|ip| ip.is_ipv4() == v4)
                };
                (address(from)?, address(to)?)
            }
        };
        let inum = self.before.facts.node(from)?.facts.inum;
        let probe = Probe {
            proto: Proto::Icmp,
            src,
            dst,
            port: 0,
            count: PING_COUNT,
            interval: INTERVAL,
            size: usize::from(super::DEFAULT_SIZE),
            dont_fragment: false,
            timeout: PATIENCE,
        };
        let result = send_from(self.before.namespaces.get(&inum)?, probe).ok()?.join().ok()?;
        Some(NodePing {
            from: from.clone(),
            to: to.clone(),
            src,
            dst,
            sent: result.sent,
            answered: result.answered,
        })
    }
}
