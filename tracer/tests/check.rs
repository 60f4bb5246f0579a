//! `podtrace check` on real labs: nothing to say about healthy ones, and the right thing about
//! broken ones.

#![expect(clippy::expect_used, reason = "helpers of tests fail the test")]

mod common;

use common::trace::{podtrace, run};
use common::{TestLab, privileged};
use tracer::expect::audit::{Audit, Soundness};
use tracer::lab::{Backend, Firewall, Lab};
use tracer::model::Direction;

fn check(lab: &Lab, args: &[&str]) -> (i32, Audit) {
    let mut all = vec!["check", "--format", "json"];
    all.extend(args);
    let run = podtrace(lab, &all);
    assert_eq!(run.stderr, "");
    (run.status, serde_json::from_str(&run.stdout).expect("an audit"))
}

#[track_caller]
fn sound(lab: &Lab, src: &str, dst: &str, version: &str) {
    let (status, audit) = check(lab, &["--src", src, "--dst", dst, version]);
    let problems: Vec<_> = audit.directions.iter().flat_map(|d| &d.problems).collect();
    assert!(problems.is_empty(), "{src} to {dst} {version}: {problems:#?}");
    assert_eq!((status, audit.verdict), (0, Soundness::Sound));
    assert!(audit.directions.iter().all(|d| d.steps.len() >= 8));
}

/// The cause, node, interface and direction of the first break, and its first command.
#[track_caller]
fn broken(lab: &Lab, args: &[&str], cause: &str, place: &str, direction: Direction) -> String {
    let mut all = vec!["--src", "A.a", "--dst", "B.b", "-4"];
    all.extend(args);
    let (status, audit) = check(lab, &all);
    let first = audit.first_break.expect("a break");
    let at = [Some(first.place.node), first.place.pod, first.place.interface];
    let at = at.into_iter().flatten().collect::<Vec<_>>().join(".");
    assert_eq!((first.cause.as_str(), at.as_str()), (cause, place), "{}", first.summary);
    assert_eq!((first.direction, status, audit.verdict), (direction, 3, Soundness::Broken));
    first.fix.first().expect("a way out").clone()
}

#[test]
fn healthy_labs_have_no_problem() {
    if !privileged() {
        return;
    }
    for (backend, firewall) in [
        (Backend::Vxlan, Firewall::Nft),
        (Backend::Vxlan, Firewall::Legacy),
        (Backend::Vxlan, Firewall::None),
        (Backend::HostGw, Firewall::Nft),
    ] {
        let lab = TestLab::up(|config| {
            config.backend = backend;
            config.firewall = firewall;
        });
        for version in ["-4", "-6"] {
            for (src, dst) in [("A.a", "B.b"), ("B.b", "A.a"), ("A.a", "A.a2"), ("B.b2", "A.a2")] {
                sound(&lab, src, dst, version);
            }
        }
        // Traffic leaves learned entries behind, which are no problem either.
        let trace = podtrace(&lab, &["--src", "A.a", "--dst", "B.b", "--probe", "-c", "2"]);
        assert_eq!(trace.status, 0, "{}{}", trace.stdout, trace.stderr);
        sound(&lab, "A.a", "B.b", "-4");
    }
}

#[test]
fn breaks_are_named_with_a_command_that_mends_them() {
    if !privileged() {
        return;
    }
    let lab = TestLab::up(|config| {
        config.bridge_name = "pods0".to_owned();
        config.vxlan_name = "overlay.7".to_owned();
        config.physical_name = "enp1s0".to_owned();
        config.vxlan_port = 4789;
    });
    let mends = |node: &str, command: &str| {
        let command = command.split(" # ").next().unwrap_or(command);
        run(&lab, node, &["sh", "-c", command]);
        sound(&lab, "A.a", "B.b", "-4");
    };
    let forward = Direction::Forward;

    run(&lab, "A", &["sysctl", "-qw", "net.ipv4.ip_forward=0"]);
    mends("A", &broken(&lab, &[], "forwarding.disabled", "A.pods0", forward));

    run(&lab, "B", &["ip", "route", "add", "blackhole", "10.10.1.2"]);
    mends("B", &broken(&lab, &[], "route.blackhole", "B.pods0", forward));

    let routes = run(&lab, "A", &["ip", "route", "show", "dev", "overlay.7"]);
    assert!(routes.contains("10.10.1.0/24"), "{routes}");
    run(&lab, "A", &["ip", "route", "del", "10.10.1.0/24"]);
    mends("A", &broken(&lab, &[], "route.missing", "A.overlay.7", forward));

    run(&lab, "B", &["ip", "neigh", "del", "10.10.0.0", "dev", "overlay.7"]);
    let fix = broken(&lab, &[], "neighbor.missing", "B.overlay.7", Direction::Reply);
    mends("B", &fix);

    let port = &["-p", "udp", "--dport", "4789", "-j", "DROP"];
    run(&lab, "B", &[&["iptables-nft", "-I", "INPUT"], &port[..]].concat());
    mends("B", &broken(&lab, &[], "netfilter.drop", "B.enp1s0", forward));

    run(&lab, "B", &["iptables-legacy", "-P", "FORWARD", "DROP"]);
    mends("B", &broken(&lab, &[], "netfilter.policy", "B.pods0", forward));

    let tcp = ["--proto", "tcp", "--port", "81"];
    broken(&lab, &tcp, "socket.no-listener", "B.b.eth0", forward);

    run(&lab, "B.b", &["ip", "route", "del", "10.10.0.0/16"]);
    run(&lab, "B.b", &["ip", "route", "flush", "default"]);
    let fix = broken(&lab, &[], "pod.no-default-route", "B.b.eth0", Direction::Reply);
    mends("B.b", &fix);
}

#[test]
fn the_text_names_the_break_first_and_fits_a_terminal() {
    if !privileged() {
        return;
    }
    let lab = TestLab::up(|_| {});
    run(&lab, "A", &["ip", "link", "set", "flannel.1", "down"]);
    let out = podtrace(&lab, &["check", "--src", "A.a", "--dst", "B.b", "-4"]);
    assert_eq!(out.status, 3, "{}", out.stderr);
    let first = out.stdout.lines().next().expect("a line");
    assert!(first.starts_with("✗ BROKEN forward at A.flannel.1"), "{first}");
    assert!(out.stdout.contains("vxlan.device-down"), "{}", out.stdout);
    let wide = out.stdout.lines().find(|line| line.chars().count() > 80);
    assert_eq!(wide, None);
}
