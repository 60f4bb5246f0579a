//! The live view in a real terminal, over the lab.

#![expect(clippy::expect_used, reason = "helpers of tests fail the test")]

mod common;

use std::process::Command;

use common::tmux::Pane;
use common::trace::{PODTRACE, run};
use common::{TestLab, privileged};
use nix::sys::signal::Signal;
use tracer::report::Report;
use tracer::tui::{Look, Screen, Source};

/// Set for the run of this program that is to panic.
const PANIC: &str = "PODTRACE_TEST_PANIC";
const MESSAGE: &str = "a panic with a screen";

fn watch(lab: &TestLab, directory: &std::path::Path, more: &[&str]) -> Pane {
    let inventory = lab.inventory_path();
    let inventory = inventory.to_str().expect("UTF-8");
    let fixed =
        [PODTRACE, "--src", "A.a", "--dst", "B.b", "--probe", "--tui", "--inventory", inventory];
    Pane::start(directory, &[], &[&fixed, more].concat())
}

#[test]
fn a_fault_comes_and_goes_while_it_is_watched() {
    if !privileged() {
        return;
    }
    let lab = TestLab::up(|_| {});
    let dir = tempfile::tempdir().expect("a directory");
    let pane = watch(&lab, dir.path(), &[]);
    let healthy = pane.wait_for(&["✓ DELIVERED", "✓ A.a.eth0", "✓ B.b.eth0", "VXLAN"]);
    assert!(!healthy.contains('✗'), "{healthy}");

    run(&lab, "A", &["iptables", "-I", "FORWARD", "-d", "10.10.1.2", "-j", "DROP"]);
    pane.wait_for(&["✗ DROPPED netfilter.drop", "100%"]);
    pane.press(&["3"]);
    pane.wait_for(&["NETFILTER_DROP", "rule", "-j DROP"]);
    pane.press(&["4"]);
    pane.wait_for(&["evidence", "fix"]);

    run(&lab, "A", &["iptables", "-D", "FORWARD", "-d", "10.10.1.2", "-j", "DROP"]);
    pane.press(&["1"]);
    pane.wait_for(&["✓ DELIVERED"]);

    // A packet of now, to its bytes.
    pane.press(&["2"]);
    pane.wait_for(&["ICMP echo request", "delivered"]);
    pane.press(&["Enter"]);
    pane.scroll_to(&["of 98 bytes", "    0030 "]);

    pane.press(&["s"]);
    let saved = pane.wait_for(&["wrote "]);
    let saved = saved.lines().find_map(|line| line.strip_prefix("wrote ")).expect("a line");
    let replay = Command::new(PODTRACE)
        .args(["replay", "--format", "json", saved.trim()])
        .output()
        .expect("start podtrace");
    let report: Report = serde_json::from_slice(&replay.stdout).expect("a report");
    // It has seen packets arrive, and packets dropped.
    assert_eq!(report.verdict.status, tracer::report::Status::Degraded, "{report:?}");
    assert_eq!(report.verdict.cause.as_deref(), Some("netfilter.drop"));

    pane.press(&["e"]);
    pane.wait_for(&["Markdown"]);
    pane.press(&["m"]);
    let saved = pane.wait_for(&["wrote ", ".md"]);
    let saved = saved.lines().find_map(|line| line.strip_prefix("wrote ")).expect("a line");
    let page = std::fs::read_to_string(saved.trim()).expect("the page");
    assert!(page.contains("netfilter.drop"), "{page}");

    pane.press(&["q"]);
    let left = pane.ended(3);
    assert!(left.contains("DEGRADED") && left.contains("netfilter.drop"), "{left}");
    assert!(left.contains("podtrace: wrote "), "{left}");
}

#[test]
fn a_signal_gives_the_terminal_back_and_the_report() {
    if !privileged() {
        return;
    }
    let lab = TestLab::up(|_| {});
    let dir = tempfile::tempdir().expect("a directory");
    let pane = watch(&lab, dir.path(), &["--privacy"]);
    pane.wait_for(&["✓ DELIVERED", "only the screen shows real addresses and names"]);
    pane.signal(Signal::SIGTERM);
    let left = pane.ended(0);
    assert!(left.contains("✓ DELIVERED") && left.contains("node1.pod1"), "{left}");
    assert!(!left.contains("A.a"), "{left}");
}

#[test]
fn a_terminal_that_goes_is_the_end() {
    if !privileged() {
        return;
    }
    let lab = TestLab::up(|_| {});
    let dir = tempfile::tempdir().expect("a directory");
    let pane = watch(&lab, dir.path(), &[]);
    pane.wait_for(&["✓ DELIVERED"]);
    pane.hang_up();
}

#[test]
fn a_panic_gives_the_terminal_back() {
    if std::env::var_os(PANIC).is_some() {
        let look = Look { color: true, unicode: true };
        let screen = Screen::open(look, Source::Live).expect("a screen");
        screen.tell("about to panic".to_owned());
        // The screen is there when the key comes.
        while screen.commands().is_empty() {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        panic!("{MESSAGE}");
    }
    if !privileged() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let program = std::env::current_exe().expect("this program");
    let argv = [
        program.to_str().expect("UTF-8"),
        "--exact",
        "a_panic_gives_the_terminal_back",
        "--nocapture",
    ];
    let pane = Pane::start(dir.path(), &[(PANIC, "1")], &argv);
    pane.wait_for(&["about to panic"]);
    pane.press(&["s"]);
    let left = pane.ended(101);
    assert!(left.contains(MESSAGE), "{left}");
}

#[test]
fn a_recording_is_played_on_the_screen() {
    if !privileged() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/forward-drop.podtrace");
    let pane = Pane::start(dir.path(), &[], &[PODTRACE, "replay", file, "--tui"]);
    pane.wait_for(&["end ", "✗ DROPPED"]);
    pane.press(&["{"]);
    pane.wait_for(&[" 0.00/"]);
    pane.press(&["}"]);
    pane.wait_for(&["end "]);
    pane.press(&["2", "Home", "Enter"]);
    pane.scroll_to(&["of 98 bytes", "    0030 "]);
    pane.press(&["q"]);
    let left = pane.ended(3);
    assert!(left.contains("✗ DROPPED"), "{left}");
}
