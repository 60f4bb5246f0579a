//! Trace events for Perfetto (ui.perfetto.dev) and chrome://tracing: a process for each node, a
//! track for each interface, a slice for each packet at each hop, an arrow from hop to hop.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};

use crate::analysis::Analyzed;
use crate::model::{Direction, Topology};
use crate::report::Report;

/// Slices are this long where nothing follows, µs.
const LAST: f64 = 1.0;

/// The packets of `main`, with the words of its report, ending with a line feed.
pub fn render(report: &Report, main: &Analyzed) -> String {
    let mut events = Vec::new();
    let mut traces: Vec<_> = main.traces.iter().collect();
    traces.sort_by_key(|(_, _, trace)| std::cmp::Reverse(trace.journeys.len()));
    if let Some((_, topology, trace)) = traces.first() {
        let pids = tracks(&mut events, topology);
        let starts = trace.journeys.iter().map(|j| j.start_ns());
        let zero = starts.min().unwrap_or(0);
        let words: HashMap<&str, &str> =
            report.journeys.iter().map(|j| (j.id.as_str(), j.summary.as_str())).collect();
        for journey in &trace.journeys {
            let id = journey.id.to_string();
            let name = words.get(id.as_str()).copied().unwrap_or("packet");
            let us = |ns: u64| ns.saturating_sub(zero) as f64 / 1000.0;
            let place = |station: crate::model::StationId| {
                let pid = pids.get(topology.station(station).node.as_str()).copied().unwrap_or(0);
                (pid, station.0 + 1)
            };
            for (i, hop) in journey.hops.iter().enumerate() {
                let next = journey.hops.get(i + 1);
                let duration = next.map_or(LAST, |next| us(next.time_ns) - us(hop.time_ns));
                let (pid, tid) = place(hop.point.station);
                let ts = us(hop.time_ns);
                events.push(json!({
                    "ph": "X", "name": name, "cat": direction(journey.direction), "pid": pid,
                    "tid": tid, "ts": ts, "dur": duration.max(0.001),
                    "args": {
                        "packet": id, "hook": hop.point.hook.to_string(), "bytes": hop.len,
                        "segments": hop.segments, "outcome": journey.outcome,
                        "time_error_ns": hop.error_ns,
                    },
                }));
                let phase = match (i, next) {
                    (_, None) if i == 0 => continue,
                    (0, _) => "s",
                    (_, Some(_)) => "t",
                    (_, None) => "f",
                };
                events.push(json!({
                    "ph": phase, "bp": "e", "id": journey.id, "name": "packet", "cat": "packet",
                    "pid": pid, "tid": tid, "ts": ts,
                }));
            }
            if let (Some(drop), Some(last)) = (&journey.drop, journey.hops.last()) {
                let (pid, tid) = place(last.point.station);
                events.push(json!({
                    "ph": "i", "s": "t", "pid": pid, "tid": tid, "ts": us(drop.time_ns),
                    "name": format!("dropped: {} in {}", drop.info.reason, drop.info.function),
                    "cat": "drop",
                    "args": { "packet": id, "stack": drop.info.stack },
                }));
            }
        }
    }
    let file = json!({
        "displayTimeUnit": "ns",
        "otherData": {
            "podtrace": report.tool.version, "kernel": report.tool.kernel,
            "verdict": report.verdict.summary, "events_lost": report.loss.events_lost,
        },
        "traceEvents": events,
    });
    format!("{file}\n")
}

fn direction(direction: Direction) -> &'static str {
    match direction {
        Direction::Forward => "forward",
        Direction::Reply => "reply",
    }
}

/// Names and order of the tracks; process numbers by node.
fn tracks<'a>(events: &mut Vec<Value>, topology: &'a Topology) -> BTreeMap<&'a str, usize> {
    let mut pids = BTreeMap::new();
    for (i, station) in (1..).zip(&topology.stations) {
        let next = pids.len() + 1;
        let pid = *pids.entry(station.node.as_str()).or_insert(next);
        if pid == next {
            events.push(json!({
                "ph": "M", "name": "process_name", "pid": pid,
                "args": { "name": format!("node {}", station.node) },
            }));
        }
        events.push(json!({
            "ph": "M", "name": "thread_name", "pid": pid, "tid": i,
            "args": { "name": format!("{} ({})", station.label(), station.role) },
        }));
        events.push(json!({
            "ph": "M", "name": "thread_sort_index", "pid": pid, "tid": i,
            "args": { "sort_index": i },
        }));
    }
    pids
}
