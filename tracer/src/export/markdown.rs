//! Markdown to paste into an issue: verdict, environment, the text report in a code block, details
//! folded.

use std::fmt::Write as _;

use super::text::{self, TextOptions, words};
use crate::report::{Report, Verdict};

/// A line of text in which nothing is markup.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '~' | '#' | '@' | '!' | '$' => {
                out.push('\\');
                out.push(c);
            }
            '\n' | '\r' | '\t' => out.push(' '),
            c if c.is_control()
                || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') =>
            {
                out.push('\u{fffd}');
            }
            c => out.push(c),
        }
    }
    out
}

/// A code block that its content cannot end.
fn block(out: &mut String, language: &str, content: &str) {
    let longest = content.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    let _ = write!(out, "{fence}{language}\n{content}");
    let end = if content.ends_with('\n') { "" } else { "\n" };
    let _ = writeln!(out, "{end}{fence}");
}

/// The report as Markdown, ending with a line feed.
pub fn render(report: &Report) -> String {
    let mut out = String::new();
    let verdict = &report.verdict;
    let _ = writeln!(
        out,
        "## {}: {} → {}\n",
        words::status(verdict.status),
        plain(&report.src.title()),
        plain(&report.dst.title())
    );
    told(&mut out, verdict);
    environment(&mut out, report);
    let options = TextOptions { width: 100, ..TextOptions::default() };
    out.push('\n');
    block(&mut out, "text", &text::render(report, &options));
    if !report.findings.is_empty() {
        folded(&mut out, "Other findings", |out| {
            for finding in &report.findings {
                let _ = writeln!(out, "### {}\n", words::status(finding.status));
                told(out, finding);
                out.push('\n');
            }
        });
    }
    folded(&mut out, "Everything: kernel stacks, headers of both directions", |out| {
        block(out, "text", &text::render(report, &TextOptions { verbose: true, ..options }));
    });
    out
}

fn told(out: &mut String, verdict: &Verdict) {
    let _ = writeln!(out, "{}\n", plain(&verdict.summary));
    let mut row = |name: &str, text: Option<String>| {
        if let Some(text) = text.filter(|t| !t.is_empty()) {
            let _ = writeln!(out, "- **{name}:** {}", plain(&text));
        }
    };
    row("Where", verdict.r#where.as_ref().map(words::place));
    row(
        "Cause",
        verdict.cause.clone().map(|c| format!("{c} ({})", words::confidence(verdict.confidence))),
    );
    row("Last seen", verdict.last_seen.as_ref().map(words::label_hook));
    row("Expected next", verdict.next_expected.as_ref().map(words::label_hook));
    row("Kernel", verdict.kernel_reason.as_ref().map(|r| format!("{} ({})", r.name, r.code)));
    row("Rule", verdict.rule.clone());
    if !verdict.evidence.is_empty() {
        let _ = writeln!(out, "- **Evidence:**");
        verdict.evidence.iter().for_each(|e| _ = writeln!(out, "  - {}", plain(e)));
    }
    if !verdict.fix.is_empty() {
        let _ = writeln!(out, "- **Fix:**");
        verdict.fix.iter().for_each(|f| _ = writeln!(out, "  - {}", plain(f)));
    }
}

fn environment(out: &mut String, report: &Report) {
    let _ = writeln!(out, "\n| | |\n|---|---|");
    let mut row = |name: &str, value: &str| {
        let _ = writeln!(out, "| {name} | {} |", plain(value));
    };
    row("podtrace", &report.tool.version);
    row("kernel", &report.tool.kernel);
    row("started", &report.started);
    row("duration", &text::duration(report.duration_ns));
    for (name, end) in [("source", &report.src), ("destination", &report.dst)] {
        row(name, &format!("{} ({}), node {}", end.name, end.ips.join(", "), end.node));
    }
    row("packets", &report.counts());
    row("events lost in observation", &report.loss.events_lost.to_string());
    let missed = report.loss.by_node.iter().filter(|(_, loss)| loss.total() + loss.stray > 0);
    for (node, loss) in missed {
        row(&format!("lost on {node}"), &text::losses(loss));
    }
    for station in report.stations.iter().filter(|s| s.vni.is_some()) {
        row(
            "tunnel",
            &format!(
                "{}.{}: VXLAN VNI {}, UDP port {}, MTU {}",
                station.node,
                station.interface,
                station.vni.unwrap_or(0),
                station.udp_port.unwrap_or(0),
                station.mtu
            ),
        );
    }
}

fn folded(out: &mut String, title: &str, content: impl FnOnce(&mut String)) {
    let _ = writeln!(out, "\n<details>\n<summary>{title}</summary>\n");
    content(out);
    let _ = writeln!(out, "\n</details>");
}

#[cfg(test)]
mod tests {
    use super::super::fixtures;
    use super::*;

    #[test]
    fn text_from_outside_is_no_markup_and_cannot_end_a_block() {
        let mut report = fixtures::forward_drop();
        let evil = "``` ````\n# x | <script>@all [a](b)";
        report.src.name = evil.into();
        report.verdict.summary = evil.into();
        let text = render(&report);
        assert!(!text.contains("<script>@") || text.contains("`````text"), "{text}");
        let head: String = text.lines().take(4).collect();
        assert!(head.contains("\\`\\`\\` ") && head.contains("&lt;script&gt;\\@all"), "{head}");
        let fences: Vec<_> = text.lines().filter(|l| l.starts_with("`````")).collect();
        assert_eq!(fences.len() % 2, 0, "{fences:?}");
        assert_eq!(text.matches("<details>").count(), text.matches("</details>").count());
    }
}
