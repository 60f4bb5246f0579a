//! Recordings of real traces give the same report again.

#![expect(clippy::expect_used, reason = "helpers of tests fail the test")]

mod common;

use std::fs;
use std::process::{Command, Stdio};

use common::trace::{PODTRACE, podtrace, replay, run};
use common::{TestLab, privileged};

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
            assert_eq!(replay(&file, format), (status, live.stdout), "{case}");
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
fn a_long_recording_is_split_into_files_of_which_the_newest_stay() {
    if !privileged() {
        return;
    }
    let lab = TestLab::up(|_| {});
    let dir = tempfile::tempdir().expect("a directory");
    let name = dir.path().join("x.podtrace");
    let args = ["--src", "A.a", "--dst", "B.b", "--probe", "-c", "2000", "-i", "1ms", "-C", "100k"];
    let file = ["-W", "3", "-w", name.to_str().expect("UTF-8")];
    let live = podtrace(&lab, &[&args[..], &file].concat());
    assert_eq!(live.status, 0, "{}{}", live.stdout, live.stderr);
    let mut files: Vec<_> = fs::read_dir(dir.path())
        .expect("the directory")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    // Of those that were made, the first are gone.
    assert_eq!(files.len(), 3, "{files:?} {}", live.stderr);
    assert!(!files.contains(&dir.path().join("x-0001.podtrace")), "{files:?}");
    let last = files.len() - 1;
    for (i, file) in files.iter().enumerate() {
        let (status, text) = replay(file, "text");
        assert!(status == 0 && text.starts_with("✓ DELIVERED"), "{text}");
        assert_eq!(text.contains("goes on in the next file"), i < last, "{text}");
        assert!(text.contains("what was under way when it began"), "{text}");
    }
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
