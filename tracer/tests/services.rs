//! Services, nodes and the outside on the real kernel, broken and whole, in the lab's own clusters: what
//! users of other tools reported. Needs root and `PODTRACE_PRIVILEGED=1`.

#![expect(clippy::expect_used, clippy::panic, reason = "helpers of tests fail the test")]

mod common;

use std::fmt::Write as _;
use std::net::SocketAddr;

use common::trace::{Live, Run, podtrace, run};
use common::traffic::{Client, ask};
use common::{TestLab, privileged};
use tracer::expect::audit::{Audit, Soundness};
use tracer::lab::{KubeProxy, Lab};
use tracer::probe::Proto;
use tracer::report::{BackendReport, Report, Severity, Status};

/// A ClusterIP that no service of the lab has.
const OTHER_SERVICE: &str = "10.96.0.99";

/// Probes, and returns the run and its report.
fn trace(lab: &Lab, args: &[&str]) -> (Run, Report) {
    let mut all = vec!["-4", "--format", "json", "-i", "50ms"];
    all.extend(args);
    let run = podtrace(lab, &all);
    let report = run.report();
    (run, report)
}

fn check(lab: &Lab, args: &[&str]) -> (i32, Audit) {
    let mut all = vec!["check", "-4", "--format", "json"];
    all.extend(args);
    let run = podtrace(lab, &all);
    let audit = serde_json::from_str(&run.stdout);
    (run.status, audit.unwrap_or_else(|e| panic!("{e}: {}{}", run.stdout, run.stderr)))
}

/// Everything that a report says of what is wrong.
fn said(report: &Report) -> String {
    let mut text = String::new();
    for verdict in std::iter::once(&report.verdict).chain(&report.findings) {
        let _ = writeln!(text, "{:?} {:?}: {}", verdict.status, verdict.cause, verdict.summary);
        for line in verdict.evidence.iter().chain(&verdict.fix) {
            let _ = writeln!(text, "    {line}");
        }
    }
    text
}

#[track_caller]
fn delivered(run: &Run, report: &Report) {
    assert_eq!((run.status, report.verdict.status), (0, Status::Delivered), "{}", said(report));
    let harmless = report.findings.iter().all(|f| f.severity == Some(Severity::Note));
    assert!(harmless, "{}", said(report));
}

/// Writes a service as kube-proxy writes it in iptables mode, beside those that there are, on both
/// nodes.
fn add_service(lab: &Lab, name: &str, to: &str, proto: &str, port: u16, backends: &[&str]) {
    let mut rules = format!("*nat\n:KUBE-SVC-{name} - [0:0]\n");
    for i in 0..backends.len() {
        let _ = writeln!(rules, ":KUBE-SEP-{name}{i} - [0:0]");
    }
    let service = format!("default/{}:http", name.to_lowercase());
    let _ = writeln!(
        rules,
        "-I KUBE-SERVICES 1 -d {to}/32 -p {proto} -m comment --comment \"{service} cluster IP\" -m {proto} --dport {port} -j KUBE-SVC-{name}"
    );
    for (i, backend) in backends.iter().enumerate() {
        let chance = match backends.len() - i {
            1 => String::new(),
            left => format!("-m statistic --mode random --probability {:.10} ", 1.0 / left as f64),
        };
        let ip = backend.split(':').next().unwrap_or_default();
        let _ = writeln!(
            rules,
            "-A KUBE-SVC-{name} -m comment --comment \"{service} -> {backend}\" {chance}-j KUBE-SEP-{name}{i}\n\
             -A KUBE-SEP-{name}{i} -s {ip}/32 -m comment --comment \"{service}\" -j KUBE-MARK-MASQ\n\
             -A KUBE-SEP-{name}{i} -p {proto} -m comment --comment \"{service}\" -m {proto} -j DNAT --to-destination {backend}"
        );
    }
    rules.push_str("COMMIT\n");
    for node in ["A", "B"] {
        let load = format!("iptables-nft-restore --noflush <<'END'\n{rules}END");
        run(lab, node, &["sh", "-ec", &load]);
    }
}

/// The row of a backend.
#[track_caller]
fn backend<'r>(report: &'r Report, address: &str) -> &'r BackendReport {
    let found = report.backends.iter().find(|row| row.address.starts_with(address));
    found.unwrap_or_else(|| panic!("no row {address}: {:#?}", report.backends))
}

#[test]
fn a_tracked_query_makes_no_service_sick() {
    if !privileged() {
        return;
    }
    let lab = TestLab::up(|_| {});
    let at: SocketAddr = "10.96.0.30:7".parse().expect("an address");
    let netns = lab.netns("A.a").expect("namespace");
    let query = || ask(Proto::Udp, at);
    netns.run(query).expect("enter the namespace").expect("an answer");
    let args = ["--src", "A.a", "--dst", "10.96.0.30", "--probe=udp", "--port", "7"];
    let (run, report) = trace(&lab, &args);
    delivered(&run, &report);
}

#[test]
fn two_pods_that_talk_through_a_service_are_followed_by_name() {
    if !privileged() {
        return;
    }
    for mode in [KubeProxy::Iptables, KubeProxy::Nftables] {
        let lab = TestLab::up(|config| config.kube_proxy = mode);
        let args = ["-4", "--src", "A.a", "--dst", "B.b2", "--duration=2s", "--format", "json"];
        let live = Live::start(&lab, &args);
        let at: SocketAddr = "10.96.0.30:7".parse().expect("an address");
        let _client = Client::start(&lab, "A.a", Proto::Tcp, at);
        let run = live.wait();
        let report = run.report();
        delivered(&run, &report);
        let translated = |change: &String| change.starts_with("dst ") && change.contains("B.b2.ip");
        let mut hops = report.journeys.iter().flat_map(|journey| &journey.hops);
        assert!(hops.any(|hop| hop.changes.iter().any(translated)), "{mode}: no translation");
    }
}

#[test]
fn of_two_backends_the_one_without_listener_is_named() {
    if !privileged() {
        return;
    }
    let lab = TestLab::up(|_| {});
    add_service(&lab, "HALF", OTHER_SERVICE, "tcp", 80, &["10.10.0.3:8090", "10.10.1.2:8099"]);
    let args = ["--src", "A.a", "--dst", OTHER_SERVICE, "--probe=tcp", "--port", "80", "-c", "12"];
    let (run, report) = trace(&lab, &args);
    assert_eq!((run.status, report.verdict.status), (3, Status::Degraded), "{}", said(&report));
    assert_eq!(report.verdict.cause.as_deref(), Some("socket.no-listener"), "{}", said(&report));
    let place = report.verdict.r#where.as_ref().expect("a place");
    assert_eq!((place.node.as_deref(), place.pod.as_deref()), (Some("B"), Some("b")));
    let (good, bad) = (backend(&report, "10.10.0.3"), backend(&report, "10.10.1.2"));
    assert_eq!(report.backends.len(), 2);
    assert_eq!((good.status, good.cause.as_deref()), (Status::Delivered, None), "{good:#?}");
    assert!(good.sent > 0 && good.refused.is_none_or(|refused| refused == 0), "{good:#?}");
    assert!(bad.refused.is_some_and(|refused| refused > 0), "{bad:#?}");
    assert_eq!((bad.cause.as_deref(), bad.pod.as_deref()), (Some("socket.no-listener"), Some("b")));
}

#[test]
fn of_two_backends_the_one_that_is_cut_off_is_named() {
    if !privileged() {
        return;
    }
    for mode in [KubeProxy::Iptables, KubeProxy::Nftables] {
        let lab = TestLab::up(|config| config.kube_proxy = mode);
        run(&lab, "B", &["iptables", "-I", "INPUT", "-p", "udp", "--dport", "8472", "-j", "DROP"]);
        let args =
            ["--src", "A.a", "--dst", "10.96.0.53", "--probe=udp", "--port", "53", "-c", "12"];
        let (run, report) = trace(&lab, &args);
        assert_eq!(run.status, 3, "{mode}: {}", said(&report));
        let place = report.verdict.r#where.as_ref().expect("a place");
        assert_eq!(place.node.as_deref(), Some("B"), "{mode}: {}", said(&report));
        let (good, bad) = (backend(&report, "10.10.0.3"), backend(&report, "10.10.1.3"));
        assert_eq!((good.status, good.delivered), (Status::Delivered, good.sent), "{good:#?}");
        assert!(bad.sent > 0 && bad.delivered == 0 && bad.cause.is_some(), "{bad:#?}");
        let accused = report.findings.iter().chain([&report.verdict]);
        let pods = accused.filter_map(|v| v.r#where.as_ref()?.pod.as_deref());
        assert_eq!(pods.filter(|pod| *pod == "a2").count(), 0, "{}", said(&report));

        let (status, audit) =
            check(&lab, &["--src", "A.a", "--dst", "10.96.0.53", "--proto=udp", "--port=53"]);
        assert_eq!((status, audit.verdict), (3, Soundness::Broken), "{mode}: {audit:#?}");
    }
}

#[test]
fn node_ports_are_sound() {
    if !privileged() {
        return;
    }
    for mode in [KubeProxy::Iptables, KubeProxy::Nftables] {
        let lab = TestLab::up(|config| config.kube_proxy = mode);
        for dst in ["192.168.10.11", "192.168.10.12"] {
            let args = ["--src", "A.a", "--dst", dst, "--proto=tcp", "--port=30090"];
            let (status, audit) = check(&lab, &args);
            assert_eq!((status, audit.verdict), (0, Soundness::Sound), "{mode} {dst}: {audit:#?}");
        }
    }
}

#[test]
fn pods_are_masqueraded_on_their_way_out_and_come_back() {
    if !privileged() {
        return;
    }
    let lab = TestLab::up(|_| {});
    for (dst, port) in [("B", "9100"), ("203.0.113.80", "80")] {
        let args = ["--src", "A.a", "--dst", dst, "--probe=tcp", "--port", port];
        let (run, report) = trace(&lab, &args);
        delivered(&run, &report);
        let probe = report.probe.as_ref().expect("a probe");
        assert_eq!((probe.answered, probe.refused), (probe.sent, 0), "{probe:?}");
        let masqueraded = |change: &String| change.starts_with("src ") && change.contains("→ A");
        let mut hops = report.journeys.iter().flat_map(|journey| &journey.hops);
        assert!(hops.any(|hop| hop.changes.iter().any(masqueraded)), "{dst}: not masqueraded");
    }
}

#[test]
fn a_pods_address_that_leaves_untranslated_is_the_missing_rule() {
    if !privileged() {
        return;
    }
    let lab = TestLab::up(|_| {});
    run(&lab, "A", &["iptables", "-t", "nat", "-F", "FLANNEL-POSTRTG"]);
    let (run, report) = trace(&lab, &["--src", "A.a", "--dst", "203.0.113.80", "--probe"]);
    assert_eq!(run.status, 3, "{}", said(&report));
    let cause = report.verdict.cause.as_deref();
    assert_eq!(cause, Some("netfilter.masquerade-missing"), "{}", said(&report));
    let place = report.verdict.r#where.as_ref().expect("a place");
    assert_eq!(place.node.as_deref(), Some("A"));
}

#[test]
fn what_cannot_work_is_not_sound() {
    if !privileged() {
        return;
    }
    for mode in [KubeProxy::Iptables, KubeProxy::Nftables] {
        let lab = TestLab::up(|config| config.kube_proxy = mode);
        let args = ["--src", "A.a", "--dst", "10.96.0.70", "--proto=tcp", "--port=80"];
        let (status, audit) = check(&lab, &args);
        assert_eq!((status, audit.verdict), (3, Soundness::Broken), "{mode}: {audit:#?}");
        let first = audit.first_break.expect("a break");
        assert_eq!(first.cause, "service.no-endpoints", "{mode}: {first:#?}");
    }
}

#[test]
fn a_set_behind_a_rule_decides() {
    if !privileged() {
        return;
    }
    let lab = TestLab::up(|_| {});
    run(&lab, "B", &["ipset", "create", "FRIENDS", "hash:ip"]);
    let rule = "-d 10.10.1.2 -m set ! --match-set FRIENDS src -j REJECT";
    run(&lab, "B", &["sh", "-ec", &format!("iptables -A FORWARD {rule}")]);
    run(&lab, "B", &["sh", "-ec", &format!("iptables -I FORWARD {rule}")]);
    let args = ["--src", "A.a", "--dst", "B.b", "--proto=icmp"];
    let (status, audit) = check(&lab, &args);
    assert!([3, 4].contains(&status), "{audit:#?}");
    assert_ne!(audit.verdict, Soundness::Sound);
    // The sender is a member: now the way is free.
    run(&lab, "B", &["ipset", "add", "FRIENDS", "10.10.0.2"]);
    let (status, audit) = check(&lab, &args);
    assert_ne!(audit.verdict, Soundness::Broken, "{status} {audit:#?}");
}

#[test]
fn nftables_services_without_answer_say_what_is_missing() {
    if !privileged() {
        return;
    }
    let lab = TestLab::up(|config| config.kube_proxy = KubeProxy::Nftables);
    let probe = |dst: &str, port: &str| {
        let args = ["--src", "A.a", "--dst", dst, "--probe=tcp", "--port", port, "-c", "2"];
        let (run, report) = trace(&lab, &args);
        assert_eq!(run.status, 3, "{dst}:{port}: {}", said(&report));
        report
    };
    let empty = probe("10.96.0.70", "80");
    let said_of_empty = said(&empty);
    assert_eq!(empty.verdict.cause.as_deref(), Some("service.no-endpoints"), "{said_of_empty}");
    assert!(said_of_empty.contains("default/empty"), "{said_of_empty}");
    assert!(!said_of_empty.contains("nft delete"), "{said_of_empty}");

    let wrong_port = said(&probe("10.96.0.20", "8080"));
    assert!(wrong_port.contains("default/shop") && wrong_port.contains("port 80"), "{wrong_port}");
    assert!(!wrong_port.contains("nft delete"), "{wrong_port}");

    let unknown = said(&probe("10.96.0.123", "80"));
    assert!(unknown.contains("No service has the address 10.96.0.123"), "{unknown}");
    assert!(!unknown.contains("nft delete"), "{unknown}");
}

#[test]
fn a_service_address_that_a_node_has_itself_is_translated_first() {
    if !privileged() {
        return;
    }
    let lab = TestLab::up(|_| {});
    add_service(&lab, "LB", "192.168.10.12", "tcp", 8000, &["10.10.1.3:8090"]);
    let args = ["--src", "A.a", "--dst", "192.168.10.12", "--probe=tcp", "--port", "8000"];
    let (run, report) = trace(&lab, &args);
    delivered(&run, &report);
}

#[test]
fn nobody_answers_a_ping_of_a_service() {
    if !privileged() {
        return;
    }
    for mode in [KubeProxy::Iptables, KubeProxy::Nftables] {
        let lab = TestLab::up(|config| config.kube_proxy = mode);
        let (run, report) = trace(&lab, &["--src", "A.a", "--dst", "10.96.0.20", "--probe", "-c2"]);
        let said = said(&report);
        assert_ne!(run.status, 0, "{mode}: {said}");
        assert!(said.contains("10.96.0.20") || said.contains("default/shop"), "{mode}: {said}");
        assert!(!said.contains("nft delete") && !said.contains("iptables -D"), "{mode}: {said}");
        for other in ["default/empty", "default/dns", "default/web"] {
            assert!(!said.contains(other), "{mode}: {said}");
        }
    }
}

#[test]
fn a_pods_second_interface_with_the_default_route_is_watched() {
    if !privileged() {
        return;
    }
    let lab = TestLab::up(|_| {});
    // A second network of the pod, on the wire; what is no pod goes there.
    run(
        &lab,
        "wire",
        &[
            "sh",
            "-ec",
            &format!(
                "ip link add u9 type veth peer name net1; ip link set net1 netns {}; ip link set u9 master sw0 up",
                lab.netns("A.a").expect("namespace").name()
            ),
        ],
    );
    run(
        &lab,
        "A.a",
        &[
            "sh",
            "-ec",
            "ip addr add 192.168.10.111/24 dev net1; ip link set net1 up; \
             ip route replace default via 192.168.10.1 dev net1",
        ],
    );
    let args = ["--src", "A.a", "--dst", "10.96.0.20", "--probe=tcp", "--port", "80", "-c", "2"];
    let (run, report) = trace(&lab, &args);
    assert_ne!(run.status, 0, "{}", said(&report));
    assert_ne!(report.verdict.status, Status::NoTraffic, "{}", said(&report));
    assert!(said(&report).contains("net1"), "{}", said(&report));
}
