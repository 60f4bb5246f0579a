//! Nothing stays behind, and what goes wrong is said in one line.

#![expect(clippy::expect_used, reason = "helpers of tests fail the test")]

mod common;

use std::fs;
use std::process::Command;

use aya::programs::loaded_programs;
use common::attached::attached;
use common::clsact::{clsact_qdiscs, has_tcx};
use common::trace::{Live, PODTRACE, podtrace, run, wait_for};
use common::{TestLab, privileged};
use nix::sys::signal::Signal;
use tracer::report::Status;

/// eBPF programs loaded by a process, as its descriptors show them.
fn programs_of(pid: u32) -> Vec<u32> {
    let mut ids = Vec::new();
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fdinfo")) else { return ids };
    for entry in entries.flatten() {
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        ids.extend(
            text.lines()
                .filter_map(|l| l.strip_prefix("prog_id:"))
                .filter_map(|v| v.trim().parse::<u32>().ok()),
        );
    }
    ids.sort_unstable();
    ids.dedup();
    ids
}

#[test]
fn nothing_stays_attached_however_it_ends() {
    if !privileged() {
        return;
    }
    let lab = TestLab::up(|_| {});
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGKILL] {
        let live = Live::start(&lab, &["--src", "A.a", "--dst", "B.b", "--format", "json"]);
        let programs = programs_of(live.pid());
        assert!(programs.len() >= 9, "{programs:?}");
        assert!(attached(&lab).len() >= 24, "{:?}", attached(&lab));
        run(&lab, "A.a", &["ping", "-c1", "10.10.1.2"]);
        let run = live.signal(signal);
        if signal == Signal::SIGKILL {
            assert_eq!(run.status, 128 + 9);
        } else {
            assert_eq!(run.status, 0, "{}", run.stderr);
            assert_eq!(run.report().packets.sent, 1);
        }
        if signal == Signal::SIGKILL && !has_tcx() {
            // Filters belong to the interface: the next to come removes them.
            let next =
                podtrace(&lab, &["--src", "A.a2", "--dst", "B.b2", "--duration", "100ms", "-q"]);
            assert_eq!(next.status, 4, "{}", next.stderr);
        }
        // The kernel lets go of them shortly after the last descriptor is closed.
        wait_for("programs to go", || {
            !loaded_programs().flatten().any(|p| programs.contains(&p.id()))
        });
        assert_eq!(attached(&lab), Vec::<String>::new());
        assert_eq!(clsact_qdiscs(&lab), Vec::<String>::new());
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    if !privileged() {
        return;
    }
    let lab = TestLab::up(|_| {});
    let inventory = lab.inventory_path();
    let script = format!(
        "set -o pipefail; {PODTRACE} --src A.a --dst B.b --probe -c 1 --inventory {} | true",
        inventory.display()
    );
    let status = Command::new("bash").args(["-c", &script]).status().expect("start bash");
    assert_eq!(status.code(), Some(0));
}

#[test]
fn an_interface_that_vanishes_is_said_so() {
    if !privileged() {
        return;
    }
    let lab = TestLab::up(|_| {});
    let live = Live::start(&lab, &["--src", "A.a", "--dst", "B.b", "--format", "json"]);
    run(&lab, "A.a", &["ping", "-c1", "10.10.1.2"]);
    run(&lab, "A", &["ip", "link", "del", "flannel.1"]);
    // The route has gone with it: the answer is an error, or nothing.
    let output = lab.exec("A.a", &["ping", "-c1", "-W1", "10.10.1.2"]).expect("start ping");
    assert!(!output.status.success());
    let run = live.interrupt();
    let lines: Vec<_> = run.stderr.lines().filter(|l| l.contains("vanished")).collect();
    assert_eq!(lines, ["podtrace: interface A.flannel.1 vanished during the trace"]);
    assert!(matches!(run.status, 3 | 4), "{}", run.stderr);
    let report = run.report();
    assert!(report.notes.iter().any(|n| n.contains("A.flannel.1")), "{:?}", report.notes);
    assert_ne!(report.verdict.status, Status::Delivered);
}

#[test]
fn without_type_information_the_hops_are_still_seen() {
    if !privileged() {
        return;
    }
    let lab = TestLab::up(|_| {});
    let args = [
        "--src",
        "A.a",
        "--dst",
        "B.b",
        "--probe",
        "-c",
        "1",
        "--btf",
        "/nonexistent",
        "--format",
        "json",
    ];
    let run = podtrace(&lab, &args);
    assert_eq!(run.status, 0, "{}", run.stderr);
    let lines: Vec<_> = run.stderr.lines().filter(|l| l.contains("drop tracepoint off")).collect();
    assert_eq!(lines.len(), 1, "{}", run.stderr);
    assert!(lines[0].contains("/nonexistent"), "{}", lines[0]);
    let report = run.report();
    assert_eq!(report.journeys[0].hops.len(), 12);
    assert!(report.notes.iter().any(|n| n.contains("drop tracepoint off")));
}

/// Runs it without the capabilities that a trace needs.
#[test]
fn missing_privileges_are_named() {
    if !privileged() {
        return;
    }
    let lab = TestLab::up(|_| {});
    let output = Command::new("setpriv")
        .args([
            "--bounding-set",
            "-net_admin,-bpf,-perfmon",
            "--inh-caps",
            "-net_admin,-bpf,-perfmon",
        ])
        .args([PODTRACE, "--src", "A.a", "--dst", "B.b", "--probe", "--inventory"])
        .arg(lab.inventory_path())
        .output()
        .expect("start setpriv");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert_eq!(
        text.trim_end(),
        "podtrace: tracing needs CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN: run podtrace as root (sudo podtrace …)"
    );
    assert!(output.stdout.is_empty());
}

#[test]
fn wrong_use_is_one_line_and_status_two() {
    if !privileged() {
        return;
    }
    let lab = TestLab::up(|_| {});
    for (args, line) in [
        (
            ["--src", "A.a", "--dst", "B.bb"],
            "podtrace: pod \"bb\" not found on node B; nearest: \"b",
        ),
        (["--src", "A.a", "--dst", "C.b"], "podtrace: node \"C\" not found; nodes: A, B, wire"),
        (["--src", "A.a", "--dst", "A.a"], "podtrace: --src and --dst are the same pod"),
    ] {
        let run = podtrace(&lab, &args);
        assert_eq!(run.status, 2, "{args:?}: {}", run.stderr);
        assert!(run.stderr.trim_end().starts_with(line), "{}", run.stderr);
        assert_eq!(run.stderr.lines().count(), 1, "{}", run.stderr);
        assert!(run.stdout.is_empty());
    }
    let port = podtrace(&lab, &["--src", "A.a", "--dst", "B.b", "--probe=tcp"]);
    assert_eq!(
        (port.status, port.stderr.trim_end()),
        (2, "podtrace: --probe=tcp and --probe=udp need --port")
    );
}

#[test]
fn an_output_file_is_whole_or_not_there() {
    if !privileged() {
        return;
    }
    let lab = TestLab::up(|_| {});
    let directory = tempfile::tempdir().expect("temporary directory");
    let file = directory.path().join("report.json");
    let path = file.to_str().expect("UTF-8");
    let args =
        ["--src", "A.a", "--dst", "B.b", "--probe", "-c", "1", "--format", "json", "-o", path];
    let run = podtrace(&lab, &args);
    assert_eq!((run.status, run.stdout.as_str()), (0, ""), "{}", run.stderr);
    let text = fs::read_to_string(&file).expect("the report");
    serde_json::from_str::<tracer::report::Report>(&text).expect("a report");
    assert_eq!(fs::read_dir(directory.path()).expect("directory").count(), 1);
    let nowhere =
        podtrace(&lab, &["--src", "A.a", "--dst", "B.b", "--probe", "-o", "/nonexistent/x"]);
    assert_eq!(nowhere.status, 1);
    assert_eq!(nowhere.stderr.lines().count(), 1, "{}", nowhere.stderr);
}

#[test]
fn text_fits_eighty_columns_and_has_no_colour_in_a_pipe() {
    if !privileged() {
        return;
    }
    let lab = TestLab::up(|_| {});
    for family in ["-4", "-6"] {
        let run = podtrace(&lab, &["--src", "A.a", "--dst", "B.b", "--probe", family]);
        assert_eq!(run.status, 0, "{}", run.stderr);
        for line in run.stdout.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
        assert!(!run.stdout.contains('\x1b'));
        for word in ["cni0", "flannel", "ens33", "A.a.ip", "B.b.ip", "nothing lost"] {
            assert!(run.stdout.contains(word), "no {word} in\n{}", run.stdout);
        }
    }
}
