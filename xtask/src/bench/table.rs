//! The results as tables, on the screen and in the document.

use std::fmt::Write;

use super::observer::Condition;
use super::programs::Costs;
use super::replay::Replayed;
use super::stats::{median, quantile};
use super::{Results, Sample, Samples};

/// One condition over all rounds.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Which.
    pub condition: Condition,
    /// UDP packets per second, and its ratio to the bare run.
    pub udp: Measure,
    /// TCP bits per second, likewise.
    pub tcp: Measure,
    /// Round trip in ns, likewise.
    pub ping: Measure,
    /// Events or packets seen in all rounds.
    pub seen: u64,
    /// Of those lost, by its own account.
    pub lost: u64,
    /// Smallest part of the UDP packets that arrived.
    pub udp_arrived: f64,
}

/// A value and its ratio to the bare run of the same round.
#[derive(Clone, Copy, Debug)]
pub struct Measure {
    /// Median.
    pub value: f64,
    /// Median of the ratios.
    pub ratio: f64,
    /// Their first and third quartile.
    pub quartiles: (f64, f64),
}

fn measure(samples: &[Sample], bare: &[Sample], of: fn(&Sample) -> f64) -> Option<Measure> {
    let values: Vec<f64> = samples.iter().map(of).collect();
    let ratios: Vec<f64> = samples.iter().zip(bare).map(|(s, b)| of(s) / of(b)).collect();
    Some(Measure {
        value: median(&values)?,
        ratio: median(&ratios)?,
        quartiles: (quantile(&ratios, 0.25)?, quantile(&ratios, 0.75)?),
    })
}

/// The rows, in the order of [`Condition::ALL`].
pub fn rows(samples: &Samples) -> Vec<Row> {
    let bare = samples.get(&Condition::Bare).map(Vec::as_slice).unwrap_or_default();
    let row = |condition: Condition| {
        let samples = samples.get(&condition)?;
        Some(Row {
            condition,
            udp: measure(samples, bare, |s| s.udp)?,
            tcp: measure(samples, bare, |s| s.tcp)?,
            ping: measure(samples, bare, |s| s.ping)?,
            seen: samples.iter().map(|s| s.seen.seen).sum(),
            lost: samples.iter().map(|s| s.seen.lost).sum(),
            udp_arrived: samples.iter().map(|s| s.udp_arrived).fold(1.0, f64::min),
        })
    };
    Condition::ALL.into_iter().filter_map(row).collect()
}

/// The lines of the table of programs: what, nanoseconds, aim.
pub fn costs(costs: &Costs) -> [(&'static str, f64, Option<f64>); 9] {
    [
        ("hop program, packet of another flow", costs.hop_miss, Some(60.0)),
        ("hop program, packet of the flow", costs.hop_match, Some(300.0)),
        ("hop program, packet of another flow, 501 addresses in a map", costs.hop_miss_map, None),
        ("hop program by itself, packet of another flow", costs.hop_miss_alone, None),
        ("hop program by itself, packet of the flow", costs.hop_match_alone, None),
        ("hop program by itself, the same with the map", costs.hop_miss_map_alone, None),
        ("drop tracepoint, packet of another flow", costs.drop_miss, None),
        ("drop tracepoint, harmless end of a packet of the flow", costs.drop_plain, None),
        ("drop tracepoint, dropped packet of the flow (with stack)", costs.drop_stack, None),
    ]
}

/// `12.3 k` and the like.
fn thousands(value: f64) -> String {
    format!("{:.1} k", value / 1e3)
}

/// Cells of a row: condition, UDP, TCP, round trip, seen, lost.
pub fn cells(row: &Row) -> [String; 6] {
    let with = |value: String, m: &Measure| {
        if row.condition == Condition::Bare {
            value
        } else {
            format!("{value} · {:.2} ({:.2}–{:.2})", m.ratio, m.quartiles.0, m.quartiles.1)
        }
    };
    let counted = |n: u64| if row.seen == 0 { "–".to_owned() } else { n.to_string() };
    [
        row.condition.title().to_owned(),
        with(thousands(row.udp.value), &row.udp),
        with(format!("{:.2}", row.tcp.value / 1e9), &row.tcp),
        with(format!("{:.1}", row.ping.value / 1e3), &row.ping),
        counted(row.seen),
        counted(row.lost),
    ]
}

/// Headings of [`cells`].
pub const HEADINGS: [&str; 6] =
    ["", "UDP packets/s", "TCP Gbit/s", "round trip µs", "seen", "lost"];

/// Headings of [`replay_cells`].
pub const REPLAY_HEADINGS: [&str; 6] =
    ["events", "file MB", "bytes/event", "uncompressed", "events/s", "memory MiB"];

/// Cells of a row about a recording.
pub fn replay_cells(replayed: &Replayed) -> [String; 6] {
    let per_event = |bytes: u64| bytes as f64 / replayed.events as f64;
    [
        replayed.events.to_string(),
        format!("{:.1}", replayed.bytes as f64 / 1e6),
        format!("{:.1}", per_event(replayed.bytes)),
        format!("{:.0}", per_event(replayed.plain_bytes)),
        format!("{:.0} k", replayed.events_per_second() / 1e3),
        (replayed.memory >> 20).to_string(),
    ]
}

/// For the screen.
pub fn plain(results: &Results) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    if let Some(c) = &results.costs {
        for (what, ns, aim) in costs(c) {
            let aim = aim.map_or_else(String::new, |aim| format!("  (aim: below {aim:.0})"));
            let _ = writeln!(text, "{what:<58} {ns:>7.0} ns{aim}");
        }
        text.push('\n');
    }
    for (i, replayed) in results.replays.iter().enumerate() {
        if i == 0 {
            let _ = writeln!(text, "recordings: {}", REPLAY_HEADINGS.join(", "));
        }
        let _ = writeln!(
            text,
            "  {}  ({:.1} s by the clock)",
            replay_cells(replayed).join(", "),
            replayed.wall.as_secs_f64()
        );
    }
    let rows = rows(&results.samples);
    if rows.is_empty() {
        return text;
    }
    let lines: Vec<[String; 6]> =
        std::iter::once(HEADINGS.map(str::to_owned)).chain(rows.iter().map(cells)).collect();
    let widths: Vec<usize> = (0..HEADINGS.len())
        .map(|i| lines.iter().map(|l| l[i].chars().count()).max().unwrap_or(0))
        .collect();
    for line in &lines {
        let padded: Vec<String> =
            line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        let _ = writeln!(text, "{}", padded.join("  ").trim_end());
    }
    for row in rows.iter().filter(|row| row.udp_arrived < 0.999) {
        let percent = row.udp_arrived * 100.0;
        let title = row.condition.title();
        let _ =
            writeln!(text, "{title}: in the worst round {percent:.1} % of the UDP packets arrived");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::observer::Seen;

    fn sample(udp: f64) -> Sample {
        Sample { udp, udp_arrived: 1.0, tcp: 1e9, ping: 1000.0, seen: Seen { seen: 7, lost: 1 } }
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        // The machine was half as fast in the second round, which says nothing of the observer.
        let samples = Samples::from([
            (Condition::Bare, vec![sample(100.0), sample(50.0), sample(100.0)]),
            (Condition::Matching, vec![sample(80.0), sample(40.0), sample(80.0)]),
        ]);
        let rows = rows(&samples);
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[1].udp.ratio, 0.8);
        assert_eq!(rows[1].udp.quartiles, (0.8, 0.8));
        assert_eq!((rows[1].seen, rows[1].lost), (21, 3));
    }
}
