//! Anything at all, for a bounded time: a replay ends with a report or an error.
//! `PROPTEST_CASES` makes it longer.

use std::sync::LazyLock;

use proptest::prelude::*;

use super::fixture;
use super::tape::{Tape, play};
use crate::export::{json, text};
use crate::report::Report;

static SEEDS: LazyLock<Vec<Vec<String>>> = LazyLock::new(|| {
    let unpacked = |name: &str| {
        let plain = zstd::decode_all(fixture(name).as_slice()).unwrap();
        String::from_utf8(plain).unwrap().lines().map(str::to_owned).collect()
    };
    vec![
        Tape::of_pings(2).lines(),
        unpacked("healthy"),
        unpacked("forward-drop"),
        unpacked("wire-loss"),
    ]
});

/// Whatever is said about it can be shown.
fn show(report: &Report) {
    let _ = json::render(report);
    let _ = text::render(report, &text::TextOptions { verbose: true, ..Default::default() });
}

/// Replaces the number at or behind `at` by another.
fn other_number(line: &str, at: usize, value: u64) -> String {
    let bytes = line.as_bytes();
    let at = at % bytes.len();
    let digit = |b: &u8| b.is_ascii_digit();
    let Some(start) = bytes[at..].iter().position(digit).map(|n| at + n) else {
        return line.to_owned();
    };
    let len = bytes[start..].iter().take_while(|b| digit(b)).count();
    format!("{}{value}{}", &line[..start], &line[start + len..])
}

/// How many of each kind to try.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]

    #[test]
    fn bytes(data in proptest::collection::vec(any::<u8>(), 0..400), kind in 0..3) {
        let file = match kind {
            0 => data,
            1 => [b"{", data.as_slice()].concat(),
            _ => zstd::bulk::compress(&data, 1).unwrap(),
        };
        if let Ok(replay) = play(&file) {
            show(&replay.report);
        }
    }

    #[test]
    fn compressed_files(seed in 1..4_usize, at: usize, value: u8) {
        let mut file = fixture(["", "healthy", "forward-drop", "wire-loss"][seed]);
        let at = at % file.len();
        file[at] = value;
        if let Ok(replay) = play(&file) {
            show(&replay.report);
        }
    }

    /// Lines lost, doubled and swapped, bytes and numbers changed.
    #[test]
    fn lines(
        seed in 0..4_usize,
        changes in proptest::collection::vec(
            (0..5, any::<usize>(), any::<usize>(), prop_oneof![
                Just(0), Just(1), Just(u64::MAX), Just(u64::MAX - 1), Just(u64::from(u32::MAX)),
                any::<u64>(),
            ]),
            1..12,
        ),
    ) {
        let mut lines = SEEDS[seed].clone();
        for (kind, a, b, value) in changes {
            let n = lines.len();
            match kind {
                0 => _ = lines.remove(a % n),
                1 => lines.insert(a % n, lines[b % n].clone()),
                2 => lines.swap(a % n, b % n),
                3 => {
                    let mut bytes = std::mem::take(&mut lines[a % n]).into_bytes();
                    let len = bytes.len().max(1);
                    if let Some(byte) = bytes.get_mut(b % len) {
                        *byte = b' ' + (value % 95) as u8;
                    }
                    lines[a % n] = String::from_utf8_lossy(&bytes).into_owned();
                }
                _ => {
                    let line = &lines[a % n];
                    if !line.is_empty() {
                        lines[a % n] = other_number(line, b, value);
                    }
                }
            }
            if lines.is_empty() {
                break;
            }
        }
        if let Ok(replay) = play((lines.join("\n") + "\n").as_bytes()) {
            show(&replay.report);
        }
    }
}
