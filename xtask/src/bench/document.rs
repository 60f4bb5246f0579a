//! `docs/performance.md`: method, results, what was aimed at, what limits it.

use std::fmt::Write;

use super::machine::Description;
use super::observer::Condition;
use super::replay::Replayed;
use super::table::{self, Row, rows};
use super::{PROGRAMS, Results};
use crate::ui::seconds;

/// Hops of a packet on its way from pod to pod in the lab: twelve interfaces.
const HOPS: f64 = 12.0;

/// The whole document.
pub fn write(results: &Results, machine: &Description) -> String {
    let rows = rows(&results.samples);
    let mut text = String::new();
    text.push_str(
        "# Performance\n\n\
         What watching costs the traffic that is watched. Written by `cargo xtask bench`; do not edit by hand.\n\n",
    );
    text.push_str(&measured_on(results, machine));
    text.push_str(&programs(results));
    text.push_str(&traffic(&rows));
    text.push_str(&recordings(&results.replays));
    text.push_str(&aims(results, &rows));
    text.push_str(&limits(results, &rows));
    text.push_str(&method(results));
    text
}

fn measured_on(results: &Results, machine: &Description) -> String {
    let kind = if machine.kind.is_empty() { String::new() } else { format!(" ({})", machine.kind) };
    let rounds = results.samples.get(&Condition::Bare).map_or(0, Vec::len);
    format!(
        "Measured on {}: {}{kind}, {} CPUs, {:.1} GiB of memory, Linux {}; {rounds} rounds in {}.\n\
         Both nodes, the wire between them, the traffic and whatever observes it share these CPUs: on real\n\
         nodes, each pays only for its own half of the path.\n\n",
        machine.date,
        machine.cpu,
        machine.cpus,
        machine.memory_mib as f64 / 1024.0,
        machine.kernel,
        seconds(results.took),
    )
}

fn programs(results: &Results) -> String {
    let Some(costs) = &results.costs else { return String::new() };
    let mut text = String::from(
        "## Kernel time per program run\n\n\
         | program | ns | aim |\n|---|---:|---|\n",
    );
    for (what, ns, aim) in table::costs(costs) {
        let aim = aim.map_or_else(String::new, |aim| format!("below {aim:.0}"));
        // Writing to a string cannot fail.
        let _ = writeln!(text, "| {what} | {ns:.0} | {aim} |");
    }
    text.push_str(
        "\nThe kernel's own count (`kernel.bpf_stats_enabled`), under real traffic; it includes about one reading\n\
         of the clock per run. \"By itself\": called in a row with one packet (`BPF_PROG_TEST_RUN`), everything in\n\
         the cache and no clock read in between; the difference is caches and counting. A packet of another flow that is not encapsulated is turned away after a look at its IPv4\n\
         header, one inside VXLAN after a look at both.\n\n",
    );
    text
}

fn traffic(rows: &[Row]) -> String {
    let mut text = String::from(
        "## Pod-to-pod traffic\n\n\
         Median, then the median of the ratios to the bare run of the same round with their quartiles in\n\
         brackets. For round trips, smaller is better. The second bare row shows how far two equal\n\
         conditions differ: smaller differences mean nothing.\n\n",
    );
    let mut headings = table::HEADINGS;
    headings[0] = "condition";
    let _ = writeln!(text, "| {} |\n|---|---|---|---|---:|---:|", headings.join(" | "));
    for row in rows {
        let _ = writeln!(text, "| {} |", table::cells(row).join(" | "));
    }
    if let Some(least) = rows.iter().map(|r| r.udp_arrived).reduce(f64::min) {
        let percent = least * 100.0;
        let _ = if percent > 99.95 {
            writeln!(
                text,
                "\nAll UDP packets sent arrived, under each condition and in every round."
            )
        } else {
            writeln!(
                text,
                "\nOf the UDP packets sent, {percent:.1} % or more arrived under each condition in every round: the\n\
                 rest found the receiver's buffer full."
            )
        };
    }
    text.push_str(
        "\n\"Seen\" and \"lost\" add up all rounds: hop events for podtrace, packets for tcpdump, each by its own\n\
         account (what podtrace does not match, it does not see).\n\n",
    );
    text
}

fn recordings(replays: &[Replayed]) -> String {
    if replays.is_empty() {
        return String::new();
    }
    let mut text = String::from(
        "## Recordings\n\n\
         A healthy exchange of pings over two nodes, repeated with new identifiers (25 events each), replayed\n\
         by `podtrace replay FILE`. Speed is by processor time of the whole command.\n\n",
    );
    let _ = writeln!(
        text,
        "| {} |\n|---:|---:|---:|---:|---:|---:|",
        table::REPLAY_HEADINGS.join(" | ")
    );
    for replayed in replays {
        let _ = writeln!(text, "| {} |", table::replay_cells(replayed).join(" | "));
    }
    text.push_str(
        "\nThe first packets and those that failed are kept with all their hops, to be shown; the rest is\n\
         counted. Real traffic, whose headers differ more, compresses less.\n\n",
    );
    text
}

/// One aim: what, and whether it was reached, with the number.
struct Aim {
    what: &'static str,
    value: String,
    reached: bool,
}

fn find(rows: &[Row], condition: Condition) -> Option<&Row> {
    rows.iter().find(|r| r.condition == condition)
}

fn all_aims(results: &Results, rows: &[Row]) -> Vec<Aim> {
    let mut aims = Vec::new();
    let mut aim = |what, value, reached| aims.push(Aim { what, value, reached });
    if let Some(costs) = &results.costs {
        let ns = |ns: f64| format!("{ns:.0} ns");
        aim("hop program, other flow: below 60 ns", ns(costs.hop_miss), costs.hop_miss < 60.0);
        aim("hop program, match: below 300 ns", ns(costs.hop_match), costs.hop_match < 300.0);
    }
    if let Some(a) = find(rows, Condition::Attached) {
        let two = |r: f64| format!("{r:.2}");
        aim("(a) UDP rate at least 0.97", two(a.udp.ratio), a.udp.ratio >= 0.97);
        aim("(a) TCP throughput at least 0.97", two(a.tcp.ratio), a.tcp.ratio >= 0.97);
        aim("(a) round trip at most 1.03 times", two(a.ping.ratio), a.ping.ratio <= 1.03);
    }
    if let Some(b) = find(rows, Condition::Matching) {
        let two = |r: f64| format!("{r:.2}");
        aim("(b) UDP rate at least 0.85", two(b.udp.ratio), b.udp.ratio >= 0.85);
        aim("(b) round trip below 1.25 times", two(b.ping.ratio), b.ping.ratio < 1.25);
        let others = [Condition::TcpdumpAny, Condition::TcpdumpEach];
        let others: Vec<&Row> = others.iter().filter_map(|c| find(rows, *c)).collect();
        if !others.is_empty() {
            let best = others.iter().map(|r| r.udp.ratio).fold(0.0, f64::max);
            aim(
                "(b) UDP rate above both tcpdumps",
                format!("{:.2} against {best:.2}", b.udp.ratio),
                b.udp.ratio > best,
            );
            let best = others.iter().map(|r| r.ping.ratio).fold(f64::INFINITY, f64::min);
            aim(
                "(b) round trip below both tcpdumps",
                format!("{:.2} against {best:.2}", b.ping.ratio),
                b.ping.ratio < best,
            );
        }
        aim("(b) nothing lost, or every loss counted", format!("{} lost", b.lost), true);
    }
    if let Some(longest) = results.replays.last() {
        let speed = longest.events_per_second();
        aim("replay above 500,000 events/s", format!("{speed:.0}"), speed > 500_000.0);
    }
    aims
}

fn aims(results: &Results, rows: &[Row]) -> String {
    let mut text = String::from("## Aims\n\n| aim | measured | |\n|---|---|---|\n");
    for Aim { what, value, reached } in all_aims(results, rows) {
        let word = if reached { "reached" } else { "**not reached**" };
        let _ = writeln!(text, "| {what} | {value} | {word} |");
    }
    text.push('\n');
    text
}

fn limits(results: &Results, rows: &[Row]) -> String {
    let mut text = String::from("## What limits it\n\n");
    if let (Some(costs), Some(bare), Some(b)) =
        (&results.costs, find(rows, Condition::Bare), find(rows, Condition::Matching))
        && bare.udp.value > 0.0
    {
        let packet_ns = 1e9 / bare.udp.value;
        let programs_ns = HOPS * costs.hop_match;
        let alone = packet_ns / (packet_ns + programs_ns);
        let _ = writeln!(
            text,
            "- **Work per packet.** A small UDP packet takes {:.1} µs from socket to socket, both nodes and the\n  \
             wire included, and crosses twelve interfaces on one CPU. Twelve matches at {:.0} ns add {:.1} µs: by\n  \
             itself that allows {alone:.2} of the bare rate. Measured: {:.2}. What is missing goes to reading the\n  \
             events, on a CPU that the receiving pod needs too.",
            packet_ns / 1e3,
            costs.hop_match,
            programs_ns / 1e3,
            b.udp.ratio,
        );
        if let Some(a) = find(rows, Condition::Attached) {
            let misses_ns = HOPS * costs.hop_miss;
            let _ = writeln!(
                text,
                "- **Being there at all.** Twelve misses at {:.0} ns are {:.1} µs: by itself that allows {:.2} of\n  \
                 the bare rate. Measured: {:.2}, where two equal conditions differ as the second bare row\n  \
                 shows. A CPU for each node, as real nodes have, halves this.",
                costs.hop_miss,
                misses_ns / 1e3,
                packet_ns / (packet_ns + misses_ns),
                a.udp.ratio,
            );
        }
        let _ = writeln!(
            text,
            "- **The counting itself.** `kernel.bpf_stats_enabled` is off while traffic is measured; with it on,\n  \
             each run reads the clock twice, so the ns above are a little more than what a packet pays."
        );
    }
    text.push_str(
        "- **A match** costs two things that cannot be left out: a reservation in the ring buffer, which all\n  \
         CPUs share and which takes a lock, and a reading of the clock. The rest is copying 64 bytes (128\n  \
         where the packet is encapsulated) and a header of 40.\n\
         - **A miss** is the program's entry, and comparing the two addresses (four, and a port, inside VXLAN).\n  \
         Up to eight pairs of addresses are constants of the program; beyond that a hash map decides, which is\n  \
         asked once for the outer and once for the inner source (again for the destination where that hits).\n\
         - **Wake-ups.** The programs never wake the reader; it looks every few milliseconds. One wake-up per\n  \
         event halved the packet rate.\n\
         - **Decoding** waits while traffic is heavy; up to 256 MiB of records are kept raw.\n\
         - **Stacks.** The drop tracepoint takes one only where it says something: not of the harmless\n  \
         NO_SOCKET at the end of every ping.\n\n",
    );
    text
}

fn method(results: &Results) -> String {
    format!(
        "## Method\n\n\
         `cargo xtask bench` brings up a lab of its own (`podtrace lab up`, VXLAN), and measures each condition\n\
         in every round, in a new random order each time; the traffic runs from pod A.a to pod B.b only.\n\n\
         - UDP: one sender, payload of {} bytes, as fast as it can for {} ms; packets received are counted.\n\
         - TCP: one connection, as fast as it can for {} ms; bytes received are counted.\n\
         - Round trip: the mean that `ping -f` states for {} requests.\n\
         - Sender and receiver are bound to the first and the last CPU; observers are not bound.\n\
         - (a): `podtrace --src A.a2 --dst B.b2`; the measured packets pass its programs and are of no interest.\n\
         - (b): `podtrace --src A.a --dst B.b`; all measured packets, request and reply, at all interfaces.\n\
         - (c), (d): `tcpdump -s 128 -w FILE`, the file in memory, its buffers as they come.\n\
         - Program runs: counted by the kernel in {} further rounds, over ping (other flow, harmless end), UDP\n  \
         (match), and UDP with a TTL of 1, which the first node drops (with stack).\n\n\
         `--quick` is for a look, `--only NAME` for a part (`{}`, `{}`, {}).\n",
        super::traffic::SMALL,
        results.effort.time.as_millis(),
        results.effort.time.as_millis(),
        results.effort.pings,
        results.effort.program_rounds,
        PROGRAMS,
        super::REPLAY,
        Condition::ALL.map(|c| format!("`{}`", c.name())).join(", "),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::observer::Seen;
    use crate::bench::programs::Costs;
    use crate::bench::{FULL, Sample, Samples};
    use std::time::Duration;

    fn sample(udp: f64, ping: f64) -> Vec<Sample> {
        vec![Sample { udp, udp_arrived: 1.0, tcp: 1e10, ping, seen: Seen { seen: 9, lost: 0 } }]
    }

    #[test]
    fn says_which_aims_were_reached() {
        let results = Results {
            effort: FULL,
            costs: Some(Costs {
                hop_match: 200.0,
                hop_miss: 70.0,
                hop_match_alone: 90.0,
                hop_miss_alone: 30.0,
                hop_miss_map: 95.0,
                hop_miss_map_alone: 50.0,
                drop_miss: 90.0,
                drop_plain: 300.0,
                drop_stack: 3000.0,
            }),
            replays: vec![Replayed {
                events: 2_000_000,
                bytes: 33_000_000,
                plain_bytes: 538_000_000,
                cpu: Duration::from_secs(5),
                wall: Duration::from_secs(6),
                memory: 123 << 20,
            }],
            samples: Samples::from([
                (Condition::Bare, sample(100e3, 70e3)),
                (Condition::Attached, sample(96e3, 70e3)),
                (Condition::Matching, sample(86e3, 80e3)),
                (Condition::TcpdumpAny, sample(70e3, 90e3)),
                (Condition::TcpdumpEach, sample(87e3, 95e3)),
            ]),
            took: Duration::from_secs(300),
        };
        let machine = Description {
            cpu: "Some CPU".to_owned(),
            cpus: 2,
            kernel: "6.18.0".to_owned(),
            memory_mib: 2048,
            kind: String::new(),
            date: "2026-01-02".to_owned(),
        };
        let text = write(&results, &machine);
        for line in [
            "| hop program, other flow: below 60 ns | 70 ns | **not reached** |",
            "| hop program, match: below 300 ns | 200 ns | reached |",
            "| replay above 500,000 events/s | 400000 | **not reached** |",
            "| 2000000 | 33.0 | 16.5 | 269 | 400 k | 123 |",
            "| (a) UDP rate at least 0.97 | 0.96 | **not reached** |",
            "| (b) UDP rate at least 0.85 | 0.86 | reached |",
            "| (b) UDP rate above both tcpdumps | 0.86 against 0.87 | **not reached** |",
            "| (b) round trip below both tcpdumps | 1.14 against 1.29 | reached |",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        assert!(text.contains("Some CPU, 2 CPUs, 2.0 GiB of memory, Linux 6.18.0; 1 rounds"));
    }
}
