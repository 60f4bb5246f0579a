//! Recordings of real traces give the same report again.

#![expect(clippy::expect_used, reason = "helpers of tests fail the test")]

mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use common::trace::{PODTRACE, podtrace, run};
use common::{TestLab, privileged};

fn replay(file: &Path, format: &str) -> (Option<i32>, String) {
    let output = Command::new(PODTRACE)
        .args(["replay", "--format", format])
        .arg(file)
        .output()
        .expect("start podtrace");
    (output.status.code(), String::from_utf8(output.stdout).expect("UTF-8"))
}

#[test]
fn a_replay_is_byte_for_byte_what_the_trace_said() {
    if !privileged() {
        return;
    }
    let lab = TestLab::up(|_| {});
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("x.podtrace");
    let name = file.to_str().expect("UTF-8");
    let same = |case: &str, status: i32| {
        for format in ["json", "text"] {
            let args = ["--src", "A.a", "--dst", "B.b", "--probe", "-w", name, "--format", format];
            let live = podtrace(&lab, &args);
            assert_eq!(live.status, status, "{case}: {}{}", live.stdout, live.stderr);
            assert_eq!(replay(&file, format), (Some(status), live.stdout), "{case}");
        }
    };
    // With a second look at large packets, with a drop, with a ping from node to node.
    same("healthy", 0);
    run(&lab, "A", &["iptables", "-I", "FORWARD", "-d", "10.10.1.2", "-j", "DROP"]);
    same("forward drop", 3);
    run(&lab, "A", &["iptables", "-D", "FORWARD", "-d", "10.10.1.2", "-j", "DROP"]);
    run(&lab, "wire", &["ip", "link", "set", "u2", "down"]);
    same("wire loss", 3);
}

#[test]
fn recordings_go_through_pipes() {
    if !privileged() {
        return;
    }
    let lab = TestLab::up(|_| {});
    let mut trace = Command::new(PODTRACE)
        .args(["--src", "A.a", "--dst", "B.b", "--probe", "-w", "-", "--inventory"])
        .arg(lab.inventory_path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("start podtrace");
    let pipe = trace.stdout.take().expect("piped");
    let replay =
        Command::new(PODTRACE).args(["replay", "-"]).stdin(pipe).output().expect("start podtrace");
    assert_eq!(trace.wait().expect("wait").code(), Some(0));
    assert_eq!(replay.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&replay.stdout).starts_with("✓ DELIVERED"));
}

#[test]
fn a_recording_that_cannot_be_written_is_said_and_the_report_made() {
    if !privileged() || !fs::exists("/dev/full").unwrap_or(false) {
        return;
    }
    let lab = TestLab::up(|_| {});
    let args = ["--src", "A.a", "--dst", "B.b", "--probe", "-w", "/dev/full"];
    let run = podtrace(&lab, &args);
    assert_eq!(run.status, 1);
    assert!(run.stdout.starts_with("✓ DELIVERED"), "{}", run.stdout);
    assert!(run.stderr.contains("cannot record the trace"), "{}", run.stderr);
}
