//! What an interface does to every packet: state, queues, programs, filters, size.

use super::filter::Between;
use super::walker::{At, Fault, Walker};
use super::{ProblemKind, Stage, text};
use crate::facts::firewall::{NfHook, TableFamily};
use crate::facts::{AttachPoint, Link, Qdisc, Space};
use crate::model::Hook;

/// Queueing disciplines that hold packets back or lose them by intent.
const SHAPERS: [&str; 7] = ["tbf", "htb", "hfsc", "cbq", "netem", "drr", "qfq"];

impl<'a> Walker<'a> {
    /// Others' programs and queues at a planned interface.
    pub(super) fn devices(&mut self, space: &'a Space, link: &'a Link, hook: Hook) {
        let at = At::on(space, link);
        let stage = if hook == Hook::Ingress { Stage::Receive } else { Stage::Transmit };
        for program in space.facts.programs.iter().filter(|p| p.ifindex == link.index) {
            let (point, way) = match program.point {
                AttachPoint::Xdp => ("xdp", Hook::Ingress),
                AttachPoint::TcIngress | AttachPoint::TcxIngress => ("tc ingress", Hook::Ingress),
                AttachPoint::TcEgress | AttachPoint::TcxEgress => ("tc egress", Hook::Egress),
            };
            if way != hook {
                continue;
            }
            let name = match (&program.name, program.id) {
                (Some(name), Some(id)) => format!("{name} (id {id})"),
                (Some(name), None) => name.clone(),
                (None, Some(id)) => format!("program {id}"),
                (None, None) => program.kind.clone(),
            };
            let text = format!("{name} sees the packets at {point} of {}", link.name);
            let kind = ProblemKind::ForeignProgram { hook: point.to_owned(), program: name };
            let entry = if program.text.is_empty() { text.clone() } else { program.text.clone() };
            let fault = Fault::note(kind, text).if_certain(false).entry(entry);
            self.fault(at, stage, fault);
        }
        if hook == Hook::Egress {
            self.queues(space, link);
        }
    }

    fn queues(&mut self, space: &'a Space, link: &'a Link) {
        let shapers = space
            .facts
            .qdiscs
            .iter()
            .filter(|q| q.ifindex == link.index && SHAPERS.contains(&q.kind.as_str()));
        for qdisc in shapers {
            let Qdisc { kind, handle, parent, options, drops, .. } = qdisc;
            let entry = format!("qdisc {kind} {handle} {parent} {options}").trim_end().to_owned();
            let text = format!("{kind} holds packets back on {} ({drops} dropped)", link.name);
            let problem = ProblemKind::Qdisc { qdisc: entry.clone(), drops: *drops };
            let loses = *drops > 0 || kind == "netem";
            let fault =
                if loses { Fault::harms(problem, text) } else { Fault::note(problem, text) };
            self.fault(At::on(space, link), Stage::Transmit, fault.entry(entry));
        }
    }

    /// nftables' own hook at a device, on the way in.
    pub(super) fn ingress(&mut self, space: &'a Space, link: &'a Link) {
        let between = Between { iif: Some(link), ..Between::default() };
        let packet = self.packet.clone();
        self.filter(space, TableFamily::Netdev, NfHook::Ingress, between, packet, false);
    }

    /// As [`Walker::ingress`], on the way out.
    pub(super) fn egress(&mut self, space: &'a Space, link: &'a Link) {
        let between = Between { oif: Some(link), ..Between::default() };
        let packet = self.packet.clone();
        self.filter(space, TableFamily::Netdev, NfHook::Egress, between, packet, false);
    }

    /// A device towards the other node; whether packets get out of it.
    pub(super) fn is_up(&mut self, space: &'a Space, link: &'a Link, stage: Stage) -> bool {
        let at = At::on(space, link);
        if link.up && (link.lower_up || link.oper_state == "unknown") {
            self.pass(at, stage, text::link(link));
            return true;
        }
        let how = if link.up { "has no carrier" } else { "is down" };
        let text = format!("{} of {} {how}", link.name, at.whose());
        let fault = Fault::deadly(ProblemKind::LinkDown { carrier: link.up }, text);
        self.fault(at, stage, fault.entry(text::link(link)));
        false
    }

    /// Whether the packet itself fits.
    pub(super) fn packet_too_big(&mut self, at: At<'a>, link: &Link, stage: Stage) {
        let size = self.flow.size;
        let whole = self.flow.dont_fragment || self.packet.dst.is_ipv6();
        if size <= link.mtu || !whole {
            return;
        }
        let text = format!(
            "{size} bytes do not fit {} of {} (mtu {}), and must not be fragmented",
            link.name,
            at.whose(),
            link.mtu
        );
        let kind = ProblemKind::PacketTooBig { size, mtu: link.mtu, device: link.name.clone() };
        self.fault(at, stage, Fault::deadly(kind, text).entry(text::link(link)));
    }
}
