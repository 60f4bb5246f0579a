//! The path: every point a row, node by node, the tunnel between, and where it breaks.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::{cell, show};
use crate::export::text::part;
use crate::model::{Direction, Hook, Role};
use crate::report::{DirectionReport, HopSummary, PointReport, Report, Status, Verdict};
use crate::tui::Snapshot;
use crate::tui::state::State;
use crate::tui::style::Tone;

/// Columns, in the order in which they are drawn, with their width and from how many columns of
/// screen on there is room for them.
const COLUMNS: [(Column, usize, usize); 9] = [
    (Column::Role, 8, 100),
    (Column::Hook, 3, 30),
    (Column::Packets, 6, 0),
    (Column::Rate, 7, 48),
    (Column::Loss, 5, 40),
    (Column::Median, 8, 56),
    (Column::Tail, 8, 66),
    (Column::Course, 8, 78),
    (Column::Back, 6, 72),
];

#[derive(Clone, Copy)]
enum Column {
    Role,
    Hook,
    Packets,
    Rate,
    Loss,
    Median,
    Tail,
    Course,
    Back,
}

impl Column {
    fn title(self) -> &'static str {
        match self {
            Column::Role => "role",
            Column::Hook => "",
            Column::Packets => "pkts",
            Column::Rate => "rate",
            Column::Loss => "loss",
            Column::Median => "median",
            Column::Tail => "p99",
            Column::Course => "step",
            Column::Back => "back",
        }
    }

    fn is_number(self) -> bool {
        !matches!(self, Column::Role | Column::Hook | Column::Course)
    }
}

pub(super) fn draw(frame: &mut Frame<'_>, state: &mut State, snapshot: &Snapshot, area: Rect) {
    let report = &snapshot.report;
    let direction = state.direction;
    let Some(way) = report.directions.iter().find(|d| d.direction == direction) else { return };
    let back = report.directions.iter().find(|d| d.direction != direction);
    let width = usize::from(area.width);
    let columns: Vec<_> = COLUMNS.into_iter().filter(|(.., from)| width >= *from).collect();
    let taken: usize = columns.iter().map(|(_, w, _)| w + 1).sum();
    let label = width.saturating_sub(2 + taken).clamp(4, 24);
    let drawing = Drawing { state, snapshot, way, back, columns, label };

    let rows = way.hops.len() + 1;
    let broken = drawing.broken();
    let roomy = usize::from(area.height) >= rows + 3 + usize::from(broken.is_some());
    let (text, at) = drawing.lines(roomy, broken, width);
    // Where it breaks is on the screen, unless the user has looked elsewhere.
    let height = usize::from(area.height);
    if let Some(at) = at
        && state.scroll.0 == 0
        && at >= height
    {
        let from = at + 1 - height;
        let shown = text.into_iter().skip(from).collect();
        return show(frame, state, area, shown);
    }
    show(frame, state, area, text);
}

struct Drawing<'a> {
    state: &'a State,
    snapshot: &'a Snapshot,
    way: &'a DirectionReport,
    back: Option<&'a DirectionReport>,
    columns: Vec<(Column, usize, usize)>,
    label: usize,
}

impl Drawing<'_> {
    /// The verdict that says where this direction breaks, and the row behind which.
    fn broken(&self) -> Option<(usize, &Verdict)> {
        let overall = &self.snapshot.report.verdict;
        let verdict =
            if overall.direction == Some(self.way.direction) { overall } else { &self.way.verdict };
        let fine = matches!(verdict.status, Status::Delivered | Status::NoTraffic);
        if fine && verdict.cause.is_none() {
            return None;
        }
        let place = verdict.r#where.as_ref();
        let at_place = |point: &PointReport| {
            place.is_some_and(|p| {
                p.node.as_ref() == Some(&point.node)
                    && p.pod == point.pod
                    && p.interface.as_ref() == Some(&point.interface)
            })
        };
        let hops = &self.way.hops;
        let row = match &verdict.last_seen {
            Some(last) => hops.iter().position(|h| h.point == *last).map(|at| at + 1),
            None => hops.iter().position(|h| at_place(&h.point)).map(|at| at + 1),
        };
        Some((row.unwrap_or(0), verdict))
    }

    /// The lines, and which of them shows where it breaks.
    fn lines(
        &self,
        roomy: bool,
        broken: Option<(usize, &Verdict)>,
        width: usize,
    ) -> (Vec<Line<'static>>, Option<usize>) {
        let look = self.state.look;
        let mut lines = Vec::new();
        let titles = self.columns.iter().map(|(column, width, _)| {
            format!(" {}", cell(self.state, column.title(), *width, column.is_number()))
        });
        let head = format!(
            "  {}{}",
            cell(self.state, &self.span(), self.label, false),
            titles.collect::<String>()
        );
        if roomy || width >= 40 {
            lines.push(Line::from(look.span(Tone::Dim, head)));
        }
        let mut broken_at = None;
        let mut node = None;
        for (i, hop) in self.way.hops.iter().enumerate() {
            if let Some((row, verdict)) = broken
                && row == i
            {
                broken_at = Some(lines.len());
                lines.push(self.break_line(verdict));
            }
            let wire = hop.point.role == Role::Wire;
            if roomy && node != Some(&hop.point.node) && !wire {
                if let Some(from) = node {
                    lines.push(self.between(from, &hop.point.node, width));
                } else {
                    lines.push(Line::from(look.span(
                        Tone::Node,
                        format!("{0}{0} node {1}", look.glyphs().rule, look.clean(&hop.point.node)),
                    )));
                }
                node = Some(&hop.point.node);
            }
            lines.push(self.row(hop));
        }
        if let Some((_, verdict)) = broken
            && broken_at.is_none()
        {
            broken_at = Some(lines.len());
            lines.push(self.break_line(verdict));
        }
        (lines, broken_at)
    }

    /// What the counts are about.
    fn span(&self) -> String {
        let (span, elapsed) =
            (self.snapshot.span.as_secs_f64(), self.snapshot.elapsed.as_secs_f64());
        let which = if span + 1.0 < elapsed { "last" } else { "all" };
        if span < 0.95 { format!("{which} {span:.2} s") } else { format!("{which} {span:.0} s") }
    }

    fn break_line(&self, verdict: &Verdict) -> Line<'static> {
        let look = self.state.look;
        let (mark, tone) = look.mark(verdict.status);
        let tone = if verdict.status == Status::Degraded { Tone::Bad } else { tone };
        let what = verdict.cause.as_deref().unwrap_or("cause unknown");
        let place = verdict.r#where.as_ref().and_then(part::short_place);
        let place = place.map_or_else(String::new, |p| format!(" at {p}"));
        let text = format!("{mark}{mark} {} {what}{place}", part::status(verdict.status));
        Line::from(vec![
            look.span(tone, look.clean(&text)),
            Span::raw(format!("  {}", look.clean(&verdict.summary))),
        ])
    }

    /// What is between two nodes, and how exact times are across.
    fn between(&self, from: &str, to: &str, width: usize) -> Line<'static> {
        let look = self.state.look;
        let glyphs = look.glyphs();
        let (report, direction) = (&self.snapshot.report, self.way.direction);
        let hops =
            report.journeys.iter().filter(|j| j.direction == direction).flat_map(|j| &j.hops);
        let outer = hops.filter_map(|h| h.outer.as_ref()).next_back();
        let (line, text) = match outer {
            Some(outer) => {
                let kind = match outer.vni {
                    Some(vni) => format!("VXLAN {vni}"),
                    None => "UDP tunnel".to_owned(),
                };
                let ends = format!("{} {} {}", outer.src_ip, glyphs.arrow, outer.dst_ip);
                (glyphs.tunnel, format!(" {kind}  {ends}:{} ", outer.udp_dst))
            }
            None => (glyphs.rule, " between the nodes ".to_owned()),
        };
        let error = |node: &str| {
            let clock = report.clock.iter().find(|clock| clock.node == node);
            clock.map_or(Some(0), |clock| clock.error_ns)
        };
        let both = error(from).zip(error(to));
        let bound = part::within(both.map(|(a, b)| a.saturating_add(b)), &look.text(80));
        let clocks = bound.map_or_else(String::new, |bound| format!(" clocks {bound} "));
        let text = look.clean(&format!("{text}{clocks}"));
        let rest = width.min(78).saturating_sub(4 + text.chars().count());
        Line::from(vec![
            look.span(Tone::Node, line.repeat(4)),
            look.span(Tone::Strong, text),
            look.span(Tone::Node, line.repeat(rest)),
        ])
    }

    fn row(&self, hop: &HopSummary) -> Line<'static> {
        let look = self.state.look;
        let glyphs = look.glyphs();
        let (mark, tone) = match (hop.packets, hop.lost) {
            (0, lost) if lost > 0 => (glyphs.bad, Tone::Bad),
            (0, _) => (glyphs.unseen, Tone::Dim),
            (_, lost) if lost > 0 => (glyphs.warn, Tone::Warn),
            _ => (glyphs.ok, Tone::Good),
        };
        let rest = if hop.packets == 0 { Tone::Dim } else { Tone::Plain };
        let rest = if hop.expected { rest } else { Tone::Warn };
        let name = look.clean(&part::label(&hop.point));
        let mut spans = vec![
            look.span(tone, format!("{mark} ")),
            look.span(rest, cell(self.state, &name, self.label, false)),
        ];
        for (column, width, _) in &self.columns {
            let text = self.value(hop, *column);
            let tone =
                if matches!(column, Column::Loss) && hop.lost > 0 { Tone::Bad } else { rest };
            spans.push(Span::raw(" "));
            spans.push(look.span(tone, cell(self.state, &text, *width, column.is_number())));
        }
        Line::from(spans)
    }

    fn value(&self, hop: &HopSummary, column: Column) -> String {
        let look = self.state.look;
        let seen = hop.packets > 0;
        let span = self.snapshot.span.as_secs_f64().max(0.001);
        match column {
            Column::Role => hop.point.role.to_string(),
            Column::Hook => match hop.point.hook {
                Hook::Ingress => "in".to_owned(),
                Hook::Egress => "out".to_owned(),
            },
            Column::Packets => hop.packets.to_string(),
            Column::Rate if seen => format!("{}/s", short(hop.packets as f64 / span)),
            Column::Loss if hop.lost > 0 => {
                let all = hop.packets + hop.lost;
                format!("{:.0}%", hop.lost as f64 * 100.0 / all.max(1) as f64)
            }
            Column::Loss if seen => "0%".to_owned(),
            Column::Median => hop
                .latency
                .map_or_else(String::new, |l| part::duration(l.median_ns, &look.text(80))),
            Column::Tail => {
                let mut steps = steps(&self.snapshot.report, self.way.direction, &hop.point);
                steps.sort_unstable();
                let at = (steps.len() * 99).div_ceil(100).checked_sub(1);
                let tail = at.and_then(|at| steps.get(at));
                tail.map_or_else(String::new, |ns| part::duration(*ns, &look.text(80)))
            }
            Column::Course => {
                look.spark(&steps(&self.snapshot.report, self.way.direction, &hop.point), 8)
            }
            Column::Back => {
                let opposite = |h: &&HopSummary| {
                    h.point.node == hop.point.node
                        && h.point.pod == hop.point.pod
                        && h.point.interface == hop.point.interface
                        && h.point.hook != hop.point.hook
                };
                let hops = self.back.map(|d| d.hops.as_slice()).unwrap_or_default();
                hops.iter().find(opposite).map_or_else(String::new, |h| h.packets.to_string())
            }
            Column::Rate | Column::Loss => String::new(),
        }
    }
}

/// Times of the step to a point, of the packets that are listed, oldest first. The first point has
/// none before it.
fn steps(report: &Report, direction: Direction, point: &PointReport) -> Vec<u64> {
    let journeys = report.journeys.iter().filter(|j| j.direction == direction);
    let hops = journeys.filter_map(|j| j.hops.iter().skip(1).find(|h| h.point == *point));
    hops.map(|h| h.delta_ns).collect()
}

/// `4.9`, `120`, `12k`.
fn short(value: f64) -> String {
    match value {
        v if v >= 10_000.0 => format!("{:.0}k", v / 1000.0),
        v if v >= 10.0 => format!("{v:.0}"),
        v => format!("{v:.1}"),
    }
}
