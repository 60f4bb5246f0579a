//! JSON for programs, schema `podtrace.report/1` (docs/schema/podtrace.report-1.schema.json).

use crate::report::Report;

/// The report as indented JSON, fields in the order of the schema, ending with a line feed.
pub fn render(report: &Report) -> String {
    #[expect(
        clippy::expect_used,
        reason = "a report holds no map with other keys than strings and nothing that fails to \
                  serialize; no input can change that"
    )]
    let mut text = serde_json::to_string_pretty(report).expect("a report is always valid JSON");
    text.push('\n');
    text
}
