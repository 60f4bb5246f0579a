//! What the text looks like, and what it never does.

use unicode_width::UnicodeWidthStr;

use super::super::fixtures;
use super::{TextOptions, render};

fn text(report: &crate::report::Report) -> String {
    render(report, &TextOptions::default())
}

#[test]
fn reports_look_like_this() {
    for (name, report) in fixtures::all() {
        insta::assert_snapshot!(name, text(&report));
    }
}

#[test]
fn verbose_reports_look_like_this() {
    let verbose = TextOptions { verbose: true, ..TextOptions::default() };
    insta::assert_snapshot!("forward_drop_verbose", render(&fixtures::forward_drop(), &verbose));
}

#[test]
fn ascii_reports_look_like_this() {
    let ascii = TextOptions { unicode: false, ..TextOptions::default() };
    insta::assert_snapshot!("healthy_ascii", render(&fixtures::healthy(), &ascii));
}

#[test]
fn nothing_exceeds_the_width_and_no_control_character_gets_through() {
    for (name, report) in fixtures::all() {
        for width in [0, 60, 61, 72, 80, 100, 120, 200] {
            for (verbose, unicode) in [(false, true), (true, true), (true, false)] {
                let options = TextOptions { color: false, width, verbose, unicode };
                let text = render(&report, &options);
                for line in text.lines() {
                    assert!(line.width() <= width.max(60), "{name} at {width}: {line:?}");
                    assert_eq!(line, line.trim_end(), "{name}: spaces at the end");
                    assert!(!line.chars().any(char::is_control), "{name}: {line:?}");
                }
                assert!(unicode || text.is_ascii(), "{name}");
                assert!(!text.contains('\u{202e}'), "{name}");
            }
        }
    }
}

#[test]
fn colour_changes_nothing_but_colour() {
    for (name, report) in fixtures::all() {
        let plain = text(&report);
        let colored = render(&report, &TextOptions { color: true, ..TextOptions::default() });
        assert_ne!(plain, colored);
        let mut stripped = String::new();
        let mut parts = colored.split("\x1b[");
        stripped += parts.next().unwrap();
        for part in parts {
            let (sgr, rest) = part.split_once('m').unwrap();
            assert!(sgr.chars().all(|c| c.is_ascii_digit() || c == ';'), "{sgr:?}");
            stripped += rest;
        }
        assert_eq!(stripped, plain, "{name}");
    }
}

#[test]
fn the_verdict_comes_first_and_the_losses_are_always_told() {
    for (name, report) in fixtures::all() {
        let text = text(&report);
        let first = text.lines().next().unwrap();
        let status = super::words::status(report.verdict.status);
        assert!(first.contains(status), "{name}: {first}");
        assert_eq!(text.matches("observation: ").count(), 1, "{name}");
    }
}

#[test]
fn every_hop_of_a_healthy_ping_is_shown_both_ways() {
    let report = fixtures::healthy();
    let text = text(&report);
    for direction in ["FORWARD", "REPLY"] {
        let ladder = text.split(direction).nth(1).unwrap();
        let ladder = ladder.split("\n\n").next().unwrap();
        for number in 1..=12 {
            let line = format!("\n{number:>4}  ");
            assert!(ladder.contains(&line), "{direction} lacks hop {number}:\n{ladder}");
        }
    }
}

#[test]
fn addresses_are_never_cut() {
    for width in [60, 80] {
        let text = render(&fixtures::ipv6(), &TextOptions { width, ..TextOptions::default() });
        for address in [
            "fd00:10:a000:1001:5054:ff:fe12:3456",
            "fd00:10:b000:2002:5054:ff:fe65:4321",
            "66:1d:0e:aa:00:01",
            "fd00:192:168:10::12",
        ] {
            assert!(text.contains(address), "{address} at {width}:\n{text}");
        }
    }
}
