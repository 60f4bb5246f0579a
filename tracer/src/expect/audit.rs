//! The audit of an expected path as data: what `podtrace check` prints, schema `podtrace.check/1`.
//! Pure.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::walk::{FlowSpec, Problem, Seriousness, Spot, Step, StepOutcome, Walk};
use crate::facts::PathFacts;
use crate::model::{Direction, End, Point, Topology};

/// The value of [`Audit::schema`].
pub const SCHEMA: &str = "podtrace.check/1";

/// What the state alone says about the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Soundness {
    /// Packets pass: every step was decided from something that was read.
    Sound,
    /// Packets pass, but some of them suffer.
    Impaired,
    /// Packets do not pass.
    Broken,
    /// Something may be in the way; it depends on what is not known.
    Unclear,
}

impl Soundness {
    /// The larger, the worse.
    fn rank(self) -> u8 {
        match self {
            Self::Sound => 0,
            Self::Unclear => 1,
            Self::Impaired => 2,
            Self::Broken => 3,
        }
    }

    /// Exit status of the command.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Sound => 0,
            Self::Impaired | Self::Broken => 3,
            Self::Unclear => 4,
        }
    }
}

/// An audit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audit {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// Source.
    pub src: String,
    /// Destination.
    pub dst: String,
    /// The packet whose way was walked: `IPv4 icmp, 84 bytes`.
    pub packet: String,
    /// The result.
    pub verdict: Soundness,
    /// The first thing that ends the packet; `null` when nothing does.
    pub first_break: Option<ProblemReport>,
    /// Of a service with several backends, what the tables say about the way to each; the rest of the
    /// audit is about the worst of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backends: Vec<BackendAudit>,
    /// What could not be told on the way, with what to read for it; absent where everything was.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<String>,
    /// Request and reply.
    pub directions: Vec<WalkReport>,
    /// What could not be read.
    pub notes: Vec<String>,
}

/// The way to one backend of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendAudit {
    /// `B.b`, or its address.
    pub name: String,
    /// Addresses.
    pub ips: Vec<IpAddr>,
    /// The result.
    pub verdict: Soundness,
    /// The first thing that ends packets to it; `null` when nothing does.
    pub first_break: Option<ProblemReport>,
}

/// One audit of the ways to all backends of a service: as bad as the worst, which it shows. `None` for
/// no way.
pub fn of_backends(ways: Vec<(End, Audit)>) -> Option<Audit> {
    let rows: Vec<BackendAudit> = ways
        .iter()
        .map(|(end, audit)| BackendAudit {
            name: end.name.clone(),
            ips: end.ips.clone(),
            verdict: audit.verdict,
            first_break: audit.first_break.clone(),
        })
        .collect();
    let service = ways.first().and_then(|(end, _)| end.service.clone());
    // The first of equals.
    let (worst, mut audit) =
        ways.into_iter().rev().max_by_key(|(_, audit)| audit.verdict.rank())?;
    if rows.len() > 1 {
        let service = service.map_or_else(String::new, |s| format!("service {}, ", s.address()));
        audit.dst = format!("{service}backend {}", worst.name);
        audit.backends = rows;
    }
    Some(audit)
}

/// One direction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalkReport {
    /// Which.
    pub direction: Direction,
    /// In the order in which the packet meets them.
    pub steps: Vec<StepReport>,
    /// In the order in which the packet meets them.
    pub problems: Vec<ProblemReport>,
    /// Index of the first step whose point packets should have been seen at and were not; absent
    /// without a trace, and where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_difference: Option<usize>,
}

impl WalkReport {
    /// Of a walk over a topology.
    pub fn new(topology: &Topology, walk: &Walk) -> Self {
        Self {
            direction: walk.direction,
            steps: walk.steps.iter().map(step).collect(),
            problems: walk.problems.iter().map(|p| problem(topology, p)).collect(),
            first_difference: None,
        }
    }

    /// With what a trace saw: `seen` says how many packets came by a point.
    #[must_use]
    pub fn observed(mut self, walk: &Walk, seen: impl Fn(Point) -> u64) -> Self {
        for (report, step) in self.steps.iter_mut().zip(&walk.steps) {
            report.seen = step.point.map(&seen);
        }
        let traced = self.steps.iter().any(|s| s.seen.is_some_and(|n| n > 0));
        let missing = |s: &StepReport| s.seen == Some(0);
        self.first_difference = self.steps.iter().position(missing).filter(|_| traced);
        self
    }
}

/// A place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpotReport {
    /// Node.
    pub node: String,
    /// Pod, inside one.
    pub pod: Option<String>,
    /// Namespace.
    pub netns: String,
    /// Interface.
    pub interface: Option<String>,
}

impl From<&Spot> for SpotReport {
    fn from(spot: &Spot) -> Self {
        Self {
            node: spot.node.clone(),
            pod: spot.pod.clone(),
            netns: spot.netns.clone(),
            interface: spot.interface.clone(),
        }
    }
}

/// What becomes of the packet at a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StepState {
    /// It goes on.
    Passes,
    /// There is a problem.
    Problem,
    /// It cannot be told.
    Unknown,
}

/// A step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepReport {
    /// Where.
    pub place: SpotReport,
    /// Part of the kernel.
    pub stage: String,
    /// The entry that decides.
    pub text: String,
    /// What becomes of the packet.
    pub state: StepState,
    /// Index into the direction's problems.
    pub problem: Option<usize>,
    /// What is not known.
    pub gap: Option<String>,
    /// Packets of the trace that came by the point to which the step leads; absent without a trace,
    /// and for a step that leads to no observed point.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<u64>,
}

/// A problem.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProblemReport {
    /// `area.cause`.
    pub cause: String,
    /// Which way the packet goes.
    pub direction: Direction,
    /// Where the entry at fault is.
    pub place: SpotReport,
    /// Part of the kernel.
    pub stage: String,
    /// `deadly`, `harms`, `note`.
    pub seriousness: String,
    /// Whether the facts prove it.
    pub certain: bool,
    /// One sentence.
    pub summary: String,
    /// The table entry at fault.
    pub entry: Option<String>,
    /// What it is read from beside the entry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<String>,
    /// The last point where the packet is seen: `A.cni0 ingress`.
    pub last_seen: Option<String>,
    /// The first point where it is not.
    pub not_seen: Option<String>,
    /// Commands that mend it.
    pub fix: Vec<String>,
}

/// Puts walks together.
pub fn audit(facts: &PathFacts, topology: &Topology, flow: &FlowSpec, walks: &[Walk]) -> Audit {
    let broken = walks.iter().filter_map(|w| w.first_break());
    let certain = broken.clone().find(|p| p.certain);
    let first = certain.or_else(|| broken.clone().next());
    let harmed = walks
        .iter()
        .flat_map(|w| &w.problems)
        .any(|p| p.certain && p.seriousness == Seriousness::Harms);
    // Where the request gets nowhere, nobody answers.
    let ended = broken.clone().any(|p| p.direction == Direction::Forward);
    let answers = |w: &&Walk| w.direction == Direction::Forward || !(ended && w.steps.is_empty());
    let unknown: Vec<String> = walks.iter().filter(answers).flat_map(unknown).collect();
    let verdict = match first {
        Some(p) if p.certain => Soundness::Broken,
        Some(_) => Soundness::Unclear,
        None if harmed => Soundness::Impaired,
        None if !unknown.is_empty() => Soundness::Unclear,
        None => Soundness::Sound,
    };
    Audit {
        schema: SCHEMA.to_owned(),
        src: facts.src.name.clone(),
        dst: facts.dst.name.clone(),
        packet: packet(flow),
        verdict,
        first_break: first.map(|p| problem(topology, p)),
        backends: Vec::new(),
        unknown,
        directions: walks.iter().map(|walk| WalkReport::new(topology, walk)).collect(),
        notes: topology.gaps.clone(),
    }
}

/// What a walk could not tell, each once. Nothing to walk is not known either.
fn unknown(walk: &Walk) -> Vec<String> {
    if walk.steps.is_empty() {
        return vec![format!("{}: no way was found that could be walked", walk.direction)];
    }
    let mut found = Vec::new();
    for step in &walk.steps {
        let StepOutcome::Unknown(gap) = &step.outcome else { continue };
        let place = match &step.spot.pod {
            Some(pod) => format!("pod {}.{pod}", step.spot.node),
            None => format!("node {}", step.spot.node),
        };
        let text = format!(
            "{} at {place}, {}: {} ({gap})",
            walk.direction,
            step.stage.as_str(),
            step.text
        );
        if !found.contains(&text) {
            found.push(text);
        }
    }
    found
}

fn packet(flow: &FlowSpec) -> String {
    let proto = match flow.proto {
        1 => "icmp".to_owned(),
        58 => "icmpv6".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        n => format!("protocol {n}"),
    };
    let port = flow.dport.map(|port| format!(" to port {port}")).unwrap_or_default();
    format!("{} {proto}{port}, {} bytes", flow.family, flow.size)
}

fn step(step: &Step) -> StepReport {
    let (state, problem, gap) = match &step.outcome {
        StepOutcome::Passes => (StepState::Passes, None, None),
        StepOutcome::Stops(index) => (StepState::Problem, Some(*index), None),
        StepOutcome::Unknown(gap) => (StepState::Unknown, None, Some(gap.clone())),
    };
    StepReport {
        place: SpotReport::from(&step.spot),
        stage: step.stage.as_str().to_owned(),
        text: step.text.clone(),
        state,
        problem,
        gap,
        seen: None,
    }
}

fn problem(topology: &Topology, problem: &Problem) -> ProblemReport {
    let point = |p: Point| format!("{} {}", topology.station(p.station).label(), p.hook);
    ProblemReport {
        cause: problem.cause().to_owned(),
        direction: problem.direction,
        place: SpotReport::from(&problem.spot),
        stage: problem.stage.as_str().to_owned(),
        seriousness: match problem.seriousness {
            Seriousness::Note => "note",
            Seriousness::Harms => "harms",
            Seriousness::Deadly => "deadly",
        }
        .to_owned(),
        certain: problem.certain,
        summary: problem.text.clone(),
        entry: problem.entry.clone(),
        evidence: problem.evidence().to_vec(),
        last_seen: problem.after.map(point),
        not_seen: problem.before.map(point),
        fix: problem.fix(),
    }
}
