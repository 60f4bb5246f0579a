//! The audit of an expected path for people: the break first, then every step, node by node.

use super::canvas::{Canvas, Glyphs, Line, Tone};
use super::units::count;
use super::{TextOptions, verdict};
use crate::expect::audit::{Audit, ProblemReport, Soundness, SpotReport, StepState, WalkReport};

/// Columns of a step's number mark, interface and stage.
const INTERFACE: usize = 12;
const STAGE: usize = 12;

/// The audit as text, ending with a line feed.
pub fn render(audit: &Audit, options: &TextOptions) -> String {
    let mut canvas = Canvas::new(options);
    headline(&mut canvas, audit);
    if let Some(problem) = &audit.first_break {
        details(&mut canvas, problem);
    } else if audit.verdict == Soundness::Unclear {
        open(&mut canvas, audit);
    }
    backends(&mut canvas, audit);
    for walk in &audit.directions {
        draw(&mut canvas, walk);
    }
    others(&mut canvas, audit);
    if !audit.notes.is_empty() {
        canvas.title("NOTES", Tone::Plain, "", "what could not be read, or how the path was found");
        for note in &audit.notes {
            canvas.paragraph(Line::new().plain("  "), 4, Tone::Dim, note);
        }
    }
    canvas.finish()
}

fn headline(canvas: &mut Canvas, audit: &Audit) {
    let glyphs = canvas.glyphs();
    let (mark, tone, word) = mark(audit.verdict, glyphs);
    let place =
        audit.first_break.as_ref().map(|p| format!(" {} at {}", p.direction, short(&p.place)));
    let what = format!("{word}{}", place.unwrap_or_default());
    let head = Line::new().add(tone, format!("{mark} {}", canvas.clean(&what))).plain("  ");
    let text = format!(
        "{} {} {}, from state alone ({})",
        audit.src, glyphs.arrow, audit.dst, audit.packet
    );
    canvas.paragraph(head, 2, Tone::Plain, &text);
}

fn mark(verdict: Soundness, glyphs: &Glyphs) -> (&'static str, Tone, &'static str) {
    match verdict {
        Soundness::Sound => (glyphs.ok, Tone::Good, "SOUND"),
        Soundness::Impaired => (glyphs.warn, Tone::Warn, "IMPAIRED"),
        Soundness::Broken => (glyphs.bad, Tone::Bad, "BROKEN"),
        Soundness::Unclear => (glyphs.unclear, Tone::Warn, "UNCLEAR"),
    }
}

/// Every backend of a service in a line.
fn backends(canvas: &mut Canvas, audit: &Audit) {
    if audit.backends.is_empty() {
        return;
    }
    canvas.title(
        "BACKENDS",
        Tone::Plain,
        "",
        "the ways to all of them, the worst of which is shown",
    );
    for row in &audit.backends {
        let (mark, tone, word) = mark(row.verdict, canvas.glyphs());
        let ips: Vec<String> = row.ips.iter().map(ToString::to_string).collect();
        let ips = ips.join(", ");
        let name = if row.name == ips { ips } else { format!("{} ({ips})", row.name) };
        let why = row.first_break.as_ref();
        let why = why.map(|p| format!(" {} at {}: {}", p.direction, short(&p.place), p.cause));
        let head = Line::new().add(tone, format!("{mark} {word}"));
        canvas.paragraph(
            head.plain("  "),
            4,
            Tone::Plain,
            &format!("{name}{}", why.unwrap_or_default()),
        );
    }
}

/// What has to be known first.
fn open(canvas: &mut Canvas, audit: &Audit) {
    /// Lines shown.
    const SHOWN: usize = 4;
    canvas.paragraph(
        Line::new().plain("  "),
        2,
        Tone::Strong,
        "Nothing is known to be wrong, but not everything is known.",
    );
    for (i, what) in audit.unknown.iter().take(SHOWN).enumerate() {
        verdict::detail(canvas, 2, if i == 0 { "not known" } else { "" }, Tone::Warn, what);
    }
}

/// Says what, where, on what evidence, and how to mend it.
fn details(canvas: &mut Canvas, problem: &ProblemReport) {
    canvas.paragraph(Line::new().plain("  "), 2, Tone::Strong, &problem.summary);
    let netns = &problem.place.netns;
    let place = format!("{}, {} (netns {netns})", long(&problem.place), problem.stage);
    verdict::detail(canvas, 2, "where", Tone::Plain, &place);
    let sure = if problem.certain { "proven by the tables" } else { "possible" };
    verdict::detail(canvas, 2, "cause", Tone::Plain, &format!("{} ({sure})", problem.cause));
    let reach = match (&problem.last_seen, &problem.not_seen) {
        (Some(seen), Some(not)) => format!("gets to {seen}, not to {not}"),
        (Some(seen), None) => format!("gets to {seen}, and no further"),
        (None, Some(not)) => format!("does not get to {not}"),
        (None, None) => String::new(),
    };
    if !reach.is_empty() {
        verdict::detail(canvas, 2, "packet", Tone::Plain, &reach);
    }
    if let Some(entry) = &problem.entry {
        verdict::detail(canvas, 2, "evidence", Tone::Plain, entry);
    }
    for line in &problem.evidence {
        verdict::detail(canvas, 2, "", Tone::Plain, line);
    }
    for (i, fix) in problem.fix.iter().enumerate() {
        verdict::detail(canvas, 2, if i == 0 { "fix" } else { "" }, Tone::Good, fix);
    }
}

/// The steps around where a trace parts from what the tables say; all of them where asked for all.
pub(super) fn beside(canvas: &mut Canvas, walk: &WalkReport) {
    /// Steps shown before and behind.
    const AROUND: (usize, usize) = (5, 2);
    let (title, text) =
        ("EXPECTED", format!("{}, by the tables, beside what was seen", walk.direction));
    canvas.title(title, Tone::Plain, "", &text);
    let parting = walk
        .first_difference
        .or_else(|| walk.steps.iter().position(|s| s.state == StepState::Problem));
    let (from, to) = match parting {
        Some(at) if !canvas.verbose() => (at.saturating_sub(AROUND.0), at + AROUND.1 + 1),
        _ => (0, walk.steps.len()),
    };
    let to = to.min(walk.steps.len());
    let left_out = |canvas: &mut Canvas, n: usize| {
        if n > 0 {
            canvas.line(
                Line::new()
                    .plain("  ")
                    .add(Tone::Dim, format!("{} (-v shows them)", count(n as u64, "more step"))),
            );
        }
    };
    left_out(canvas, from);
    steps(canvas, walk, from..to);
    left_out(canvas, walk.steps.len() - to);
}

fn draw(canvas: &mut Canvas, walk: &WalkReport) {
    let problems = walk.steps.iter().filter(|s| s.state == StepState::Problem).count();
    let unknown = walk.steps.iter().filter(|s| s.state == StepState::Unknown).count();
    let text = format!("{} steps, {problems} with problems, {unknown} unknown", walk.steps.len());
    canvas.title(&walk.direction.to_string().to_uppercase(), Tone::Plain, "", &text);
    steps(canvas, walk, 0..walk.steps.len());
}

fn steps(canvas: &mut Canvas, walk: &WalkReport, range: std::ops::Range<usize>) {
    let glyphs = canvas.glyphs();
    let mut node: Option<(&str, Option<&str>)> = None;
    for (number, step) in walk.steps.iter().enumerate().take(range.end).skip(range.start) {
        let here = (step.place.node.as_str(), step.place.pod.as_deref());
        if node != Some(here) {
            node_header(canvas, &step.place);
            node = Some(here);
        }
        let serious =
            step.problem.and_then(|i| walk.problems.get(i)).map(|p| p.seriousness.as_str());
        let (mark, tone) = match (step.state, serious) {
            (StepState::Passes, _) => (glyphs.ok, Tone::Good),
            (StepState::Problem, Some("deadly")) => (glyphs.bad, Tone::Bad),
            (StepState::Problem, _) => (glyphs.warn, Tone::Warn),
            (StepState::Unknown, _) => (glyphs.unclear, Tone::Warn),
        };
        let interface = canvas.clean(step.place.interface.as_deref().unwrap_or(""));
        let interface = canvas.shorten(&interface, INTERFACE);
        let head = Line::new()
            .plain("  ")
            .cell(tone, mark, 1, false)
            .plain(" ")
            .cell(Tone::Plain, &interface, INTERFACE, false)
            .plain(" ")
            .cell(Tone::Dim, &step.stage, STAGE, false);
        let indent = head.width();
        let quiet = if step.state == StepState::Passes { Tone::Plain } else { tone };
        canvas.paragraph(head, indent, quiet, &step.text);
        let parts = walk.first_difference == Some(number);
        let seen = step.seen.filter(|_| parts || canvas.verbose());
        if let Some(seen) = seen {
            let text = match seen {
                0 => "not seen here".to_owned(),
                1 => "seen here: 1 packet".to_owned(),
                n => format!("seen here: {n} packets"),
            };
            let tone = if parts { Tone::Bad } else { Tone::Dim };
            canvas.paragraph(Line::new().plain(" ".repeat(indent)), indent, tone, &text);
        }
        let summary = step.problem.and_then(|i| walk.problems.get(i)).map(|p| &p.summary);
        let more = summary.or(step.gap.as_ref()).filter(|more| **more != step.text);
        if let Some(more) = more {
            canvas.paragraph(Line::new().plain(" ".repeat(indent)), indent, Tone::Dim, more);
        }
    }
}

fn node_header(canvas: &mut Canvas, place: &SpotReport) {
    let rule = canvas.glyphs().rule;
    let name = match &place.pod {
        Some(pod) => format!("pod {}.{pod}", place.node),
        None => format!("node {}", place.node),
    };
    let line = Line::new()
        .add(Tone::Dim, rule.repeat(2))
        .plain(" ")
        .add(Tone::Node, canvas.clean(&name))
        .plain(" ");
    let rest = canvas.width().min(100).saturating_sub(line.width());
    canvas.line(line.add(Tone::Dim, rule.repeat(rest)));
}

/// Problems beside the first break.
fn others(canvas: &mut Canvas, audit: &Audit) {
    let all = audit.directions.iter().flat_map(|d| &d.problems);
    let rest: Vec<_> = all.filter(|p| Some(*p) != audit.first_break.as_ref()).collect();
    if rest.is_empty() {
        return;
    }
    canvas.title("ALSO", Tone::Plain, "", "other things wrong on the way");
    let glyphs = canvas.glyphs();
    for problem in rest {
        let (mark, tone) = match problem.seriousness.as_str() {
            "deadly" => (glyphs.bad, Tone::Bad),
            _ => (glyphs.warn, Tone::Warn),
        };
        let head = Line::new().plain("  ").cell(tone, mark, 1, false).plain(" ");
        let text = format!("{} ({}, {})", problem.summary, problem.cause, problem.direction);
        canvas.paragraph(head, 4, Tone::Plain, &text);
        if let Some(fix) = problem.fix.first() {
            verdict::detail(canvas, 4, "fix", Tone::Good, fix);
        }
    }
}

/// `A.flannel.1`
fn short(place: &SpotReport) -> String {
    let parts = [Some(&place.node), place.pod.as_ref(), place.interface.as_ref()];
    parts.into_iter().flatten().map(String::as_str).collect::<Vec<_>>().join(".")
}

/// `node A, pod a, eth0`
fn long(place: &SpotReport) -> String {
    let parts = [
        Some(format!("node {}", place.node)),
        place.pod.as_ref().map(|pod| format!("pod {pod}")),
        place.interface.clone(),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}
