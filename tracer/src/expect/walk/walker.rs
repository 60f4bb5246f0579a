//! The walk in the making: where it is, what it has seen, how steps and problems are noted.

use std::net::IpAddr;

use super::{FlowSpec, Problem, ProblemKind, Seriousness, Spot, Stage, Step, StepOutcome, Walk};
use crate::expect::firewall::PacketView;
use crate::expect::side::Side;
use crate::facts::firewall::CtState;
use crate::facts::{Link, PathFacts, Space};
use crate::model::{Direction, Hook, Point, Role, Topology};

/// IP protocol numbers (IANA).
pub(super) const ICMP: u8 = 1;
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
pub(super) const ICMPV6: u8 = 58;

/// A namespace and an interface in it.
#[derive(Clone, Copy)]
pub(super) struct At<'a> {
    pub(super) space: &'a Space,
    pub(super) link: Option<&'a Link>,
}

impl<'a> At<'a> {
    pub(super) fn new(space: &'a Space, link: Option<&'a Link>) -> Self {
        Self { space, link }
    }

    pub(super) fn on(space: &'a Space, link: &'a Link) -> Self {
        Self { space, link: Some(link) }
    }

    pub(super) fn spot(&self) -> Spot {
        Spot {
            node: self.space.node.clone(),
            pod: self.space.pod.clone(),
            netns: self.space.facts.name.clone(),
            netns_inum: self.space.facts.inum,
            interface: self.link.map(|l| l.name.clone()),
        }
    }

    /// `node A`, `pod A.a`
    pub(super) fn whose(&self) -> String {
        match &self.space.pod {
            Some(pod) => format!("pod {}.{pod}", self.space.node),
            None => format!("node {}", self.space.node),
        }
    }
}

/// What is wrong at a step.
pub(super) struct Fault {
    pub(super) kind: ProblemKind,
    pub(super) seriousness: Seriousness,
    pub(super) certain: bool,
    pub(super) text: String,
    pub(super) entry: Option<String>,
}

impl Fault {
    /// What the facts prove to end the packet.
    pub(super) fn deadly(kind: ProblemKind, text: impl Into<String>) -> Self {
        Self::new(Seriousness::Deadly, kind, text)
    }

    /// What some packets suffer from.
    pub(super) fn harms(kind: ProblemKind, text: impl Into<String>) -> Self {
        Self::new(Seriousness::Harms, kind, text)
    }

    /// What is worth knowing.
    pub(super) fn note(kind: ProblemKind, text: impl Into<String>) -> Self {
        Self::new(Seriousness::Note, kind, text)
    }

    fn new(seriousness: Seriousness, kind: ProblemKind, text: impl Into<String>) -> Self {
        Self { kind, seriousness, certain: true, text: text.into(), entry: None }
    }

    /// The table entry at fault.
    pub(super) fn entry(self, entry: impl Into<String>) -> Self {
        Self { entry: Some(entry.into()), ..self }
    }

    /// It depends on what is not known.
    pub(super) fn if_certain(self, certain: bool) -> Self {
        Self { certain, ..self }
    }
}

pub(super) struct Walker<'a> {
    pub(super) facts: &'a PathFacts,
    pub(super) topology: &'a Topology,
    pub(super) flow: &'a FlowSpec,
    pub(super) direction: Direction,
    pub(super) path: &'a [Point],
    pub(super) from: Side<'a>,
    pub(super) to: Side<'a>,
    /// The packet itself as it is now.
    pub(super) packet: PacketView,
    /// Points of the path behind it.
    pub(super) cursor: usize,
    /// The source that the packet gets at the hook that it is at.
    pub(super) taken: Option<IpAddr>,
    /// Namespaces whose packet filters could not be read, once told.
    pub(super) unread: Vec<u32>,
    pub(super) steps: Vec<Step>,
    pub(super) problems: Vec<Problem>,
}

impl<'a> Walker<'a> {
    pub(super) fn new(
        facts: &'a PathFacts,
        topology: &'a Topology,
        flow: &'a FlowSpec,
        direction: Direction,
        [from, to]: [Side<'a>; 2],
    ) -> Self {
        let packet = packet(flow, direction, from.ip, to.ip);
        Self {
            facts,
            topology,
            flow,
            direction,
            path: topology.path(direction),
            from,
            to,
            packet,
            cursor: 0,
            taken: None,
            unread: Vec::new(),
            steps: Vec::new(),
            problems: Vec::new(),
        }
    }

    pub(super) fn finish(self) -> Walk {
        Walk { direction: self.direction, steps: self.steps, problems: self.problems }
    }

    /// The planned interface of a role in a namespace that is crossed so.
    pub(super) fn planned(&self, space: &'a Space, role: Role, hook: Hook) -> Option<&'a Link> {
        self.path.iter().filter(|p| p.hook == hook).find_map(|p| {
            let station = self.topology.station(p.station);
            (station.netns_inum == space.facts.inum && station.role == role)
                .then(|| space.facts.link(station.ifindex))?
        })
    }

    /// The packet is at this point now, if it is planned.
    pub(super) fn reach(&mut self, space: &Space, link: Option<&Link>, hook: Hook) {
        let station = link.and_then(|l| self.topology.find(space.facts.inum, l.index));
        let ahead = self.path.iter().enumerate().skip(self.cursor);
        let found = ahead.into_iter().find(|(_, p)| Some(p.station) == station && p.hook == hook);
        if let Some((index, _)) = found {
            self.cursor = index + 1;
        }
    }

    pub(super) fn pass(&mut self, at: At<'_>, stage: Stage, text: impl Into<String>) {
        self.step(at, stage, text.into(), StepOutcome::Passes);
    }

    pub(super) fn unknown(
        &mut self,
        at: At<'_>,
        stage: Stage,
        text: impl Into<String>,
        gap: impl Into<String>,
    ) {
        self.step(at, stage, text.into(), StepOutcome::Unknown(gap.into()));
    }

    pub(super) fn fault(&mut self, at: At<'_>, stage: Stage, fault: Fault) {
        let text = fault.entry.clone().unwrap_or_else(|| fault.text.clone());
        self.step(at, stage, text, StepOutcome::Stops(self.problems.len()));
        self.problems.push(Problem {
            kind: fault.kind,
            spot: at.spot(),
            stage,
            direction: self.direction,
            position: self.cursor,
            after: self.cursor.checked_sub(1).and_then(|i| self.path.get(i)).copied(),
            before: self.path.get(self.cursor).copied(),
            seriousness: fault.seriousness,
            certain: fault.certain,
            text: fault.text,
            entry: fault.entry,
        });
    }

    fn step(&mut self, at: At<'_>, stage: Stage, text: String, outcome: StepOutcome) {
        let point = self.path.get(self.cursor).copied();
        self.steps.push(Step { spot: at.spot(), stage, point, text, outcome });
    }

    /// Parameters of a family are named after it.
    pub(super) fn family_name(&self) -> &'static str {
        if self.packet.dst.is_ipv6() { "ipv6" } else { "ipv4" }
    }
}

/// The packet as it leaves the pod.
fn packet(flow: &FlowSpec, direction: Direction, src: IpAddr, dst: IpAddr) -> PacketView {
    let reply = direction == Direction::Reply;
    let (sport, dport) = if reply { (flow.dport, flow.sport) } else { (flow.sport, flow.dport) };
    let icmp = match (flow.proto, reply) {
        (ICMP, false) => Some((8, 0)),
        (ICMP, true) => Some((0, 0)),
        (ICMPV6, false) => Some((128, 0)),
        (ICMPV6, true) => Some((129, 0)),
        _ => None,
    };
    // SYN, and SYN with ACK (RFC 9293).
    let tcp_flags = (flow.proto == TCP).then_some(if reply { 0x12 } else { 0x02 });
    let state = if reply { CtState::Established } else { CtState::New };
    PacketView {
        sport,
        dport,
        icmp,
        tcp_flags,
        iif: Some(String::new()),
        oif: Some(String::new()),
        port_in: Some(String::new()),
        port_out: Some(String::new()),
        ct: Some(vec![state]),
        mark: Some(0),
        length: Some(flow.size),
        fragment: Some(false),
        ..PacketView::new(src, dst, flow.proto)
    }
}
