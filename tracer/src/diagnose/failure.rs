//! Packets that did not arrive: alike ones together, each kind with its place and its evidence.

use super::Case;
use super::absent;
use super::causes;
use super::death::{Death, Ending};
use super::fix;
use super::place::{place, stage};
use super::text::{actor, icmp_text, of_packets, point_report, point_text};
use super::verdict::{Counts, plain};
use crate::model::{
    Body, Direction, DropInfo, Hook, Journey, JourneyDrop, L4, Outcome, Point, Role, Station,
};
use crate::report::{Confidence, KernelReason, Place, Status, Verdict};

/// The cause of packets that were last seen within a node and of which nothing else is known.
pub(super) const VANISHED: &str = "kernel.vanished";
/// Lines of evidence of one sort; more would not convince anybody further.
const MAX_LINES: usize = 3;

/// What failed packets have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    /// Dropped by the kernel, for this reason, in this function and namespace.
    Drop { reason: String, function: String, netns_inum: u32, hook: Option<&'static str> },
    /// Last seen here, and no drop event.
    Lost { last: Option<Point> },
}

/// Failed packets of one kind.
struct Group<'a> {
    kind: Kind,
    count: u64,
    /// The sender was told of at least one.
    told: bool,
    example: &'a Journey,
}

/// The failed packets of a direction.
pub(super) struct Failures<'a> {
    case: &'a Case<'a>,
    direction: Direction,
    counts: Counts,
    groups: Vec<Group<'a>>,
}

/// The status of a failure, when others arrived.
pub(super) fn degraded(counts: Counts, status: Status) -> Status {
    if counts.delivered > 0 && status != Status::Inconclusive { Status::Degraded } else { status }
}

impl<'a> Failures<'a> {
    /// Groups the failed journeys that were kept, the largest group first.
    pub fn of(case: &'a Case<'a>, direction: Direction, counts: Counts) -> Self {
        let mut groups: Vec<Group<'a>> = Vec::new();
        let failed = case.trace.journeys.iter().filter(|j| {
            j.direction == direction
                && matches!(
                    j.outcome,
                    Outcome::Dropped | Outcome::Rejected | Outcome::Lost | Outcome::Partial
                )
        });
        // Copies made on the way are not packets that somebody waits for.
        for journey in failed.filter(|j| j.duplicate_of.is_none()) {
            let kind = kind_of(case, journey);
            let told = journey.outcome == Outcome::Rejected;
            match groups.iter_mut().find(|g| g.kind == kind) {
                Some(group) => {
                    group.count += 1;
                    group.told |= told;
                }
                None => groups.push(Group { kind, count: 1, told, example: journey }),
            }
        }
        // Stable: of equals, the earlier one first.
        groups.sort_by_key(|g| std::cmp::Reverse(g.count));
        if let [only] = groups.as_mut_slice() {
            // Those that were not kept are most likely alike.
            only.count = only.count.max(counts.failed);
        }
        Self { case, direction, counts, groups }
    }

    /// One verdict per kind, the most frequent first.
    pub fn verdicts(&self) -> Vec<Verdict> {
        self.groups
            .iter()
            .map(|group| {
                let bare = match (&group.kind, &group.example.drop) {
                    (Kind::Drop { .. }, Some(drop)) => {
                        // They waited for an address: what ended the question ended them.
                        let death = Death::of_drop(self.case, self.direction, drop);
                        let question = self.case.killed_question(&death);
                        if let Some((question, killer)) = question {
                            let bare = self.dropped(group, drop);
                            return absent::question(self.case, bare, question, killer);
                        }
                        self.dropped(group, drop)
                    }
                    (Kind::Lost { last: Some(last) }, _) => self.lost(group, *last),
                    _ => return self.unknown(group),
                };
                causes::explain(self.case, &self.death(group, &bare), bare)
            })
            .collect()
    }

    /// What the causes are asked to explain.
    fn death(&self, group: &Group<'a>, bare: &Verdict) -> Death<'a> {
        let journey = group.example;
        let (last, ending) = match (&group.kind, &journey.drop) {
            (Kind::Lost { last }, _) if bare.is_on_wire() => (*last, Ending::Wire),
            (Kind::Lost { last }, _) => (*last, Ending::Vanished),
            (Kind::Drop { .. }, Some(drop)) => {
                let last = last_before(journey, drop.time_ns).map(|hop| hop.point);
                (last, Ending::Drop { drop, stage: stage(&drop.info) })
            }
            (Kind::Drop { .. }, None) => (None, Ending::Vanished),
        };
        // On the wire the node's last point counts, not the wire's own ports.
        let last = last.map(|point| match ending {
            Ending::Wire => self.last_of_node(journey, point),
            _ => point,
        });
        let next = match last {
            Some(point) => self.case.next_planned(self.direction, point),
            None => self.case.topology.path(self.direction).first().copied(),
        };
        let place = bare.r#where.clone().unwrap_or_default();
        let seen = last.map(|p| self.case.topology.station(p.station).netns_inum);
        let netns = match &journey.drop {
            Some(drop) if drop.netns_inum != 0 => drop.netns_inum,
            _ => seen.unwrap_or(0),
        };
        let (count, of) = (group.count, self.counts.ended());
        let direction = self.direction;
        Death { direction, ending, place, netns, last, next, count, of, example: Some(journey) }
    }

    /// The last point before this one that is a node's.
    fn last_of_node(&self, journey: &Journey, point: Point) -> Point {
        let is_node = |p: &Point| self.case.topology.station(p.station).role != Role::Wire;
        let path = self.case.topology.path(self.direction);
        match path.iter().position(|p| *p == point) {
            Some(at) => path[..=at].iter().copied().rfind(is_node),
            // It has left the plan.
            None => journey.hops.iter().map(|h| h.point).rfind(is_node),
        }
        .unwrap_or(point)
    }

    fn share(&self, group: &Group<'_>) -> String {
        of_packets(group.count, self.counts.ended())
    }

    fn dropped(&self, group: &Group<'_>, drop: &JourneyDrop) -> Verdict {
        let case = self.case;
        let last = last_before(group.example, drop.time_ns);
        let place = place(case.topology, drop, last);
        let hook = stage(&drop.info).and_then(|s| s.hook);
        let (status, verb) =
            if group.told { (Status::Rejected, "rejected") } else { (Status::Dropped, "dropped") };
        let reason = &drop.info.reason;
        let seen = last.map(|hop| point_text(case.topology, hop.point));
        let after = seen
            .as_ref()
            .map_or_else(|| " before it left its pod".to_owned(), |seen| format!(" after {seen}"));
        let summary = format!(
            "{} {verb} the packet{} ({reason} at {}){after}; {}.",
            actor(&place, drop.netns_inum),
            stage_words(&place, hook),
            drop.info.function,
            self.share(group),
        );
        let mut evidence = vec![format!(
            "kernel drop event {reason} ({}) at {}",
            drop.info.code, drop.info.function
        )];
        if !drop.info.stack.is_empty() {
            evidence.push(format!("kernel stack: {}", short_stack(&drop.info)));
        }
        evidence.extend(seen.map(|seen| format!("last seen at {seen}")));
        let next = last.map_or_else(
            || case.topology.path(self.direction).first().copied(),
            |hop| case.next_planned(self.direction, hop.point),
        );
        evidence.extend(next.map(|n| format!("never seen at {}", point_text(case.topology, n))));
        evidence.extend(self.told(group));
        if let (Some("neighbor"), Some(node)) = (place.stage.as_deref(), &place.node) {
            evidence.extend(case.unanswered_resolutions(node).into_iter().take(MAX_LINES));
        }
        let confidence = self.confidence(&mut evidence, Confidence::Proven);
        let ends = match &drop.packet.body {
            Body::Ip(ip) => Some((ip.src, ip.dst)),
            Body::Neighbor(_) | Body::Other(_) => None,
        };
        Verdict {
            cause: Some(format!("kernel.{reason}")),
            fix: fix::for_drop(reason, hook, &place, ends),
            r#where: Some(place),
            last_seen: last.map(|hop| point_report(case.topology, hop.point)),
            next_expected: next.map(|p| point_report(case.topology, p)),
            kernel_reason: Some(KernelReason { code: drop.info.code, name: reason.clone() }),
            evidence,
            confidence,
            ..plain(degraded(self.counts, status), Some(self.direction), summary)
        }
    }

    /// How the sender was told.
    fn told(&self, group: &Group<'_>) -> Option<String> {
        let id = group.example.id;
        let error = self.case.trace.icmp_errors.iter().find(|e| e.about == Some(id));
        let icmp = error.and_then(|e| match &e.packet.l4 {
            L4::IcmpError { kind, code, mtu, .. } => {
                let text = icmp_text(e.packet.src.is_ipv6(), *kind, *code, *mtu);
                let from = self.case.ip_name(&e.packet.src);
                Some(format!("ICMP error from {from}: {text}"))
            }
            _ => None,
        });
        icmp.or_else(|| group.told.then(|| "answered with a TCP reset".to_owned()))
    }

    fn lost(&self, group: &Group<'_>, last: Point) -> Verdict {
        let case = self.case;
        let station = case.topology.station(last.station);
        let next = case.next_planned(self.direction, last);
        let on_wire = station.role == Role::Wire
            || next.is_some_and(|next| {
                let next = case.topology.station(next.station);
                last.hook == Hook::Egress && leads_out(station) && next.node != station.node
            });
        let mut verdict =
            if on_wire { self.lost_on_wire(group, last) } else { self.vanished(group, last, next) };
        let lines = case.unanswered_resolutions(&station.node);
        verdict.evidence.extend(lines.into_iter().take(MAX_LINES));
        let copies = group.example.side_drops.iter().take(MAX_LINES);
        verdict.evidence.extend(copies.map(|drop| self.copy_line(drop)));
        self.doubt(verdict)
    }

    /// Left a node's physical interface and was not seen at the next node.
    fn lost_on_wire(&self, group: &Group<'_>, last: Point) -> Verdict {
        let case = self.case;
        let path = case.topology.path(self.direction);
        let at = path.iter().position(|p| *p == last);
        let behind = at.map_or(&path[..0], |at| &path[at + 1..]);
        let is_node = |p: &&Point| case.topology.station(p.station).role != Role::Wire;
        let from = self.last_of_node(group.example, last);
        let to = behind.iter().find(is_node).copied();
        let text = |p| point_text(case.topology, p);
        let to_text = to.map_or_else(|| "the next node".to_owned(), text);
        let mut evidence = vec![format!("last seen at {}", text(from))];
        if from != last {
            evidence.push(format!("seen on the wire at {}", text(last)));
        }
        evidence.push(format!("never seen at {to_text}"));
        let wire_drop = group.example.side_drops.iter().find(|d| case.is_wire(d.netns_inum));
        Verdict {
            cause: Some("underlay.lost".to_owned()),
            r#where: Some(Place {
                node: None,
                pod: None,
                netns: None,
                interface: None,
                stage: Some("wire".to_owned()),
                function: None,
            }),
            last_seen: Some(point_report(case.topology, from)),
            next_expected: to.map(|p| point_report(case.topology, p)),
            fix: self.wire_steps(from, to),
            evidence,
            // The wire's own drop event, where the wire can be watched, leaves no doubt.
            confidence: if wire_drop.is_some() { Confidence::Proven } else { Confidence::Likely },
            ..plain(
                degraded(self.counts, Status::Lost),
                Some(self.direction),
                format!(
                    "Lost on the wire: the packet left {} and never came to {to_text}; {}.",
                    text(from),
                    self.share(group)
                ),
            )
        }
    }

    fn wire_steps(&self, from: Point, to: Option<Point>) -> Vec<String> {
        let label = |p: Point| {
            let station = self.case.topology.station(p.station);
            (station.node.clone(), station.name.clone())
        };
        let (node, interface) = label(from);
        let mut steps =
            vec![format!("on {node}: ip -s link show dev {interface} (errors, carrier)")];
        if let Some((node, interface)) = to.map(label) {
            steps.push(format!(
                "on {node}: ip -s link show dev {interface} (is it up, does it receive?)"
            ));
        }
        let ports: Vec<String> =
            self.case.topology.vxlan_ports.iter().map(u16::to_string).collect();
        steps.push(match ports.as_slice() {
            [] => "check cabling, switches and firewalls between the nodes".to_owned(),
            ports => format!(
                "let UDP {} pass both ways between the nodes (security groups, firewalls); check \
                 cabling and switches",
                ports.join(", ")
            ),
        });
        steps
    }

    /// Vanished inside a node, without a drop event.
    fn vanished(&self, group: &Group<'_>, last: Point, next: Option<Point>) -> Verdict {
        let case = self.case;
        let station = case.topology.station(last.station);
        let seen = point_text(case.topology, last);
        let planned = case.topology.path(self.direction).contains(&last);
        let mut evidence = vec![format!("last seen at {seen}")];
        if !planned {
            evidence.push(format!("{seen} is not on the expected path"));
        }
        evidence.extend(next.map(|n| format!("never seen at {}", point_text(case.topology, n))));
        evidence.push("no drop event for it".to_owned());
        let place = Place {
            node: Some(station.node.clone()),
            pod: station.pod.clone(),
            netns: Some(station.netns.clone()),
            interface: Some(station.name.clone()),
            stage: None,
            function: None,
        };
        let at = fix::on(&place);
        let arrived = if group.example.outcome == Outcome::Partial { "part of " } else { "" };
        Verdict {
            cause: Some(VANISHED.to_owned()),
            fix: vec![
                format!("{at}: tc -s qdisc show; ip -s link show (queues that hold packets back)"),
                format!("{at}: ip neigh show; nstat -az (counters that rise with the packets)"),
            ],
            r#where: Some(place),
            last_seen: Some(point_report(case.topology, last)),
            next_expected: next.map(|p| point_report(case.topology, p)),
            evidence,
            confidence: Confidence::Possible,
            ..plain(
                degraded(self.counts, Status::Lost),
                Some(self.direction),
                format!(
                    "After {seen} {arrived}the packet vanished without a drop event; {}.",
                    self.share(group)
                ),
            )
        }
    }

    fn copy_line(&self, drop: &JourneyDrop) -> String {
        let place = place(self.case.topology, drop, None);
        let who = if self.case.is_wire(drop.netns_inum) {
            "on the wire the kernel".to_owned()
        } else {
            actor(&place, drop.netns_inum)
        };
        format!("{who} dropped it or a copy: {} at {}", drop.info.reason, drop.info.function)
    }

    fn unknown(&self, group: &Group<'_>) -> Verdict {
        let summary = format!("The packet was lost; {}.", self.share(group));
        let status = degraded(self.counts, Status::Lost);
        let verdict = Verdict {
            confidence: Confidence::Possible,
            ..plain(status, Some(self.direction), summary)
        };
        self.doubt(verdict)
    }

    /// A packet that was not seen proves nothing where the observation has holes.
    fn doubt(&self, mut verdict: Verdict) -> Verdict {
        let Some(because) = self.case.observation.holes() else {
            verdict.evidence.push("no event was lost in observation".to_owned());
            return verdict;
        };
        verdict.summary = format!("Inconclusive, because {because}. {}", verdict.summary);
        verdict.evidence.push(because);
        verdict.status = Status::Inconclusive;
        verdict.cause = None;
        verdict.confidence = Confidence::Possible;
        let unread = self.case.observation.is_only_unread();
        let fix = match unread {
            true => "look at the packets themselves, where they were seen (tcpdump -w FILE)",
            false => "trace again, with less traffic or a narrower filter",
        };
        verdict.fix = vec![fix.to_owned()];
        verdict
    }

    fn confidence(&self, evidence: &mut Vec<String>, best: Confidence) -> Confidence {
        match self.case.observation.losses() {
            None => {
                evidence.push("no event was lost in observation".to_owned());
                best
            }
            Some(losses) => {
                evidence.push(losses);
                Confidence::Likely
            }
        }
    }
}

/// What failed.
fn kind_of(case: &Case<'_>, journey: &Journey) -> Kind {
    match &journey.drop {
        Some(drop) => Kind::Drop {
            reason: drop.info.reason.clone(),
            function: drop.info.function.clone(),
            netns_inum: drop.netns_inum,
            hook: stage(&drop.info).and_then(|s| s.hook),
        },
        None => Kind::Lost { last: last_whole(case, journey) },
    }
}

/// The point at which all of a packet was seen last.
fn last_whole(case: &Case<'_>, journey: &Journey) -> Option<Point> {
    let bytes = journey.range.map_or(0, |r| r.end - r.start);
    let whole = || journey.hops.iter().filter(|h| h.covered >= bytes);
    let furthest = whole()
        .filter_map(|h| Some((case.position(journey.direction, h.point)?, h)))
        .max_by_key(|(position, _)| *position)
        .map(|(_, hop)| hop);
    // It may have left the plan after that.
    let strayed = whole().rfind(|h| {
        case.position(journey.direction, h.point).is_none()
            && furthest.is_none_or(|f| h.time_ns > f.time_ns)
    });
    strayed.or(furthest).or_else(|| journey.hops.last()).map(|h| h.point)
}

/// The last hop before a time; where the clock does not tell, the last of all.
fn last_before(journey: &Journey, time_ns: u64) -> Option<&crate::model::Hop> {
    journey.hops.iter().rfind(|h| h.time_ns <= time_ns).or_else(|| journey.hops.last())
}

/// What sends to other nodes.
fn leads_out(station: &Station) -> bool {
    matches!(station.role, Role::Physical | Role::Other)
}

/// ` in netfilter FORWARD`, ` while routing it`
fn stage_words(place: &Place, hook: Option<&str>) -> String {
    if let Some(hook) = hook {
        return format!(" in netfilter {hook}");
    }
    match place.stage.as_deref() {
        Some("route") => " while routing it".to_owned(),
        Some("encap") => " while encapsulating it".to_owned(),
        Some("decap") => " while decapsulating it".to_owned(),
        Some("neighbor") => " while resolving the next hop's address".to_owned(),
        Some("bridge") => " in the bridge".to_owned(),
        Some("transmit") => " while transmitting it".to_owned(),
        Some("receive") => " on receipt".to_owned(),
        Some("socket") => " at the socket".to_owned(),
        Some(stage) => format!(" in {stage}"),
        None => String::new(),
    }
}

/// The inner end of a stack, from the function that dropped: what decides the place.
fn short_stack(info: &DropInfo) -> String {
    const FRAMES: usize = 8;
    let stack = info.stack.as_slice();
    let from = stack.iter().position(|frame| *frame == info.function).unwrap_or(0);
    let frames = stack.get(from..).unwrap_or(stack);
    let text = frames.iter().take(FRAMES).map(String::as_str).collect::<Vec<_>>().join(" < ");
    if frames.len() > FRAMES { format!("{text} < …") } else { text }
}
