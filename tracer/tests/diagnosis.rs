//! Every fault of the lab is met as a user would meet it, and must get its right name.
//!
//! Every answer is one line of the score table, written as it comes. `PODTRACE_FAULTS=name,name` runs
//! these faults only, `PODTRACE_VARIANTS=name,name` in these kinds of lab; see [`VARIANTS`].

#![expect(clippy::expect_used, reason = "helpers of tests fail the test")]

mod common;

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Mutex;
use std::thread;

use common::trace::{PODTRACE, Server, http_server, podtrace, replay, run, wait_for};
use common::{TestLab, privileged};
use tracer::lab::fault::{self, Case, Expected, Fault, Options};
use tracer::lab::{Backend, Firewall, LabConfig};
use tracer::report::{Report, Severity, Status, Verdict};

/// Kinds of lab without `PODTRACE_VARIANTS`: as flannel makes it; and everything on the other side and
/// called otherwise.
const USUAL: [&str; 2] = ["vxlan", "mirrored"];

/// Labs at a time: a trace mostly waits.
const WORKERS: usize = 4;

/// A kind of lab.
#[derive(Clone, Copy, Debug)]
struct Variant {
    name: &'static str,
    change: fn(&mut LabConfig),
    options: fn() -> Options,
}

fn plain() -> Options {
    Options { program: Some(PODTRACE.into()), ..Options::default() }
}

const VARIANTS: &[Variant] = &[
    Variant { name: "vxlan", change: |_| {}, options: plain },
    Variant { name: "mirrored", change: renamed, options: || Options { mirror: true, ..plain() } },
    Variant { name: "legacy", change: |c| c.firewall = Firewall::Legacy, options: plain },
    Variant { name: "ipv6", change: |_| {}, options: || Options { ipv6: true, ..plain() } },
    Variant { name: "host-gw", change: |c| c.backend = Backend::HostGw, options: plain },
];

/// Nothing is called or numbered as flannel does.
fn renamed(config: &mut LabConfig) {
    config.bridge_name = "br-pods".into();
    config.vxlan_name = "vx77".into();
    config.physical_name = "uplink0".into();
    config.vxlan_port = 4789;
    config.vni = 77;
    config.pod_cidr = "172.20.0.0/16".parse().expect("a network");
    config.wire_cidr = "198.18.7.0/24".parse().expect("a network");
}

struct Row {
    fault: String,
    expected: String,
    got: String,
    wrong: Vec<String>,
}

/// What a verdict says that should be compared.
fn describe(verdict: &Verdict) -> String {
    let place = verdict.r#where.as_ref();
    let text = |s: Option<&String>| s.cloned().unwrap_or_else(|| "-".into());
    format!(
        "{:?} {} {} {}/{} {} [{}]",
        verdict.status,
        verdict.direction.map_or_else(|| "-".into(), |d| d.to_string()),
        text(verdict.cause.as_ref()),
        text(place.and_then(|p| p.node.as_ref())),
        text(place.and_then(|p| p.interface.as_ref())),
        text(place.and_then(|p| p.stage.as_ref())),
        verdict.kernel_reason.as_ref().map_or("-", |r| r.name.as_str()),
    )
}

fn expectation(expected: &Expected) -> String {
    let or = |list: &[String]| if list.is_empty() { "*".to_owned() } else { list.join("|") };
    let statuses: Vec<String> = expected.status.iter().map(|s| format!("{s:?}")).collect();
    format!(
        "{} {} {} {}/{} {} [{}]",
        statuses.join("|"),
        expected.direction.map_or_else(|| "-".into(), |d| d.to_string()),
        or(&expected.cause),
        expected.node.clone().unwrap_or_else(|| "*".into()),
        or(&expected.interface),
        or(&expected.stage),
        or(&expected.reason),
    )
}

/// What a report gets wrong.
fn compare(report: &Report, expected: &Expected) -> Vec<String> {
    let mut wrong = Vec::new();
    let verdict = &report.verdict;
    let mut check = |what: &str, right: bool| {
        if !right {
            wrong.push(what.to_owned());
        }
    };
    check("status", expected.status.contains(&verdict.status));
    let told = if expected.finding {
        let found = report
            .findings
            .iter()
            .find(|f| f.cause.as_ref().is_some_and(|cause| expected.cause.contains(cause)));
        check("finding", found.is_some());
        found.unwrap_or(verdict)
    } else {
        check("cause", verdict.cause.as_ref().is_some_and(|c| expected.cause.contains(c)));
        verdict
    };
    let place = told.r#where.as_ref();
    let within = |list: &[String], got: Option<&String>| {
        list.is_empty() || got.is_some_and(|got| list.contains(got))
    };
    if expected.direction.is_some() {
        check("direction", told.direction == expected.direction);
    }
    check(
        "node",
        expected.node.is_none() || place.and_then(|p| p.node.as_ref()) == expected.node.as_ref(),
    );
    check(
        "pod",
        expected.pod.is_none() || place.and_then(|p| p.pod.as_ref()) == expected.pod.as_ref(),
    );
    check("interface", within(&expected.interface, place.and_then(|p| p.interface.as_ref())));
    check("stage", within(&expected.stage, place.and_then(|p| p.stage.as_ref())));
    let reason = told.kernel_reason.as_ref().map(|r| &r.name);
    check("reason", within(&expected.reason, reason));
    check("fix", told.status == Status::Delivered || !told.fix.is_empty());
    wrong
}

fn run_case(lab: &TestLab, fault: &Fault, variant: Variant, case: &Case) -> Row {
    let name = format!("{} ({}, {})", fault.name, variant.name, case.label);
    let recording = tempfile::NamedTempFile::new().expect("a temporary file");
    let file = recording.path().to_str().expect("UTF-8");
    let mut args = vec!["--format", "json", "-w", file];
    args.extend(case.args.iter().map(String::as_str));
    let run = podtrace(lab, &args);
    let expected = expectation(&case.expected);
    match serde_json::from_str::<Report>(&run.stdout) {
        Ok(report) => {
            let mut wrong = compare(&report, &case.expected);
            // Elsewhere, and later, the recording tells the same to the byte.
            if replay(recording.path(), "json") != (run.status, run.stdout) {
                wrong.push("replay".into());
            }
            Row {
                fault: name,
                expected,
                got: format!("{}\n    {}", describe(&report.verdict), report.verdict.summary),
                wrong,
            }
        }
        Err(_) => Row {
            fault: name,
            expected,
            got: format!("exit {}: {}{}", run.status, run.stdout, run.stderr.trim()),
            wrong: vec!["no report".into()],
        },
    }
}

/// Makes a fault in a fresh lab and traces it; empty when the lab cannot have it.
fn scenario(fault: &Fault, variant: Variant) -> Vec<Row> {
    let lab = TestLab::up(variant.change);
    let options = (variant.options)();
    if lab.unavailable(fault, &options).is_some() {
        return Vec::new();
    }
    match lab.inject(fault, &options) {
        Ok(injected) => {
            injected.cases.iter().map(|case| run_case(&lab, fault, variant, case)).collect()
        }
        Err(error) => vec![Row {
            fault: format!("{} ({})", fault.name, variant.name),
            expected: "can be made".into(),
            got: format!("{error}: {:?}", std::error::Error::source(&error)),
            wrong: vec!["injection".into()],
        }],
    }
}

/// Writes a line at once, past what the test harness keeps back.
fn say(line: &str) {
    // Whoever does not listen misses only the table.
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Writes a row of the score table.
fn tell(row: &Row) {
    let mark = if row.wrong.is_empty() { "ok" } else { "WRONG" };
    let got = row.got.lines().next().unwrap_or_default();
    say(&format!("score: {mark}  {}  expected {}  got {got}", row.fault, row.expected));
}

/// Fails unless all rows are right.
fn score(mut rows: Vec<Row>) {
    rows.sort_by(|a, b| a.fault.cmp(&b.fault));
    let mut table = String::new();
    for row in rows.iter().filter(|row| !row.wrong.is_empty()) {
        let _ = writeln!(table, "{}\n    {}\n    {}", row.fault, row.expected, row.got);
        let _ = writeln!(table, "    wrong: {}", row.wrong.join(", "));
    }
    let right = rows.iter().filter(|r| r.wrong.is_empty()).count();
    say(&format!("score: {right} of {} traces are right", rows.len()));
    assert!(!rows.is_empty(), "nothing was traced");
    assert_eq!(right, rows.len(), "{table}");
}

#[test]
fn every_fault_is_told() {
    if !privileged() {
        return;
    }
    let wanted = std::env::var("PODTRACE_FAULTS").ok();
    let wanted: Option<Vec<&str>> = wanted.as_deref().map(|w| w.split(',').collect());
    let variants = std::env::var("PODTRACE_VARIANTS").ok();
    let variants: Vec<&str> =
        variants.as_deref().map_or_else(|| USUAL.to_vec(), |names| names.split(',').collect());
    let mut queue = VecDeque::new();
    for fault in fault::all() {
        if wanted.as_ref().is_some_and(|w| !w.contains(&fault.name.as_str())) {
            continue;
        }
        for variant in VARIANTS {
            if variants.contains(&variant.name) {
                queue.push_back((fault, *variant));
            }
        }
    }
    let queue = Mutex::new(queue);
    let rows = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                loop {
                    let Some((fault, variant)) = queue.lock().expect("queue").pop_front() else {
                        return;
                    };
                    let found = scenario(fault, variant);
                    found.iter().for_each(tell);
                    rows.lock().expect("rows").extend(found);
                }
            });
        }
    });
    score(rows.into_inner().expect("rows"));
}

/// Two faults at once: the one that packets meet first, and one behind it.
const PAIRS: [(&str, &str); 11] = [
    ("ip-forward-off-source", "forward-rule-drop"),
    ("fdb-missing", "ip-forward-off-destination"),
    ("route-missing", "tunnel-input-drop"),
    ("forward-policy-drop", "vxlan-port-mismatch"),
    ("vtep-neighbour-missing", "forward-rule-drop"),
    ("tunnel-input-drop", "ip-forward-off-destination"),
    ("vni-mismatch", "forward-rule-drop"),
    ("ip-forward-off-source", "fdb-missing"),
    ("fdb-missing", "vni-mismatch"),
    ("forward-policy-drop", "fdb-missing"),
    ("route-missing", "forward-rule-drop"),
];

fn pair(first: &str, second: &str) -> Row {
    let lab = TestLab::up(|_| {});
    let [one, two] = [first, second].map(|name| {
        let fault = fault::by_name(name).expect("a fault");
        let injected = lab.inject(fault, &plain()).expect("inject");
        injected.cases.into_iter().next().expect("a case")
    });
    let mut args = vec!["--format", "json"];
    args.extend(one.args.iter().map(String::as_str));
    let report = podtrace(&lab, &args).report();
    let mut wrong = compare(&report, &one.expected);
    let found = |f: &Verdict| f.cause.as_ref().is_some_and(|c| two.expected.cause.contains(c));
    if !report.findings.iter().any(found) {
        wrong.push("the second is no finding".into());
    }
    let findings: Vec<String> = report.findings.iter().map(describe).collect();
    Row {
        fault: format!("{first} + {second}"),
        expected: format!("{}; and {}", expectation(&one.expected), two.expected.cause.join("|")),
        got: format!("{}; and {}", describe(&report.verdict), findings.join("; ")),
        wrong,
    }
}

#[test]
fn of_two_faults_the_deadly_one_is_the_verdict_and_the_other_a_finding() {
    if !privileged() {
        return;
    }
    let queue = Mutex::new(VecDeque::from(PAIRS));
    let rows = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                loop {
                    let Some((first, second)) = queue.lock().expect("queue").pop_front() else {
                        return;
                    };
                    let row = pair(first, second);
                    tell(&row);
                    rows.lock().expect("rows").push(row);
                }
            });
        }
    });
    score(rows.into_inner().expect("rows"));
}

/// Every protocol, both IP versions, to the other node and to the same one.
fn healthy_runs(variant: &str, change: fn(&mut LabConfig)) -> Vec<Row> {
    let lab = TestLab::up(change);
    let mut servers = Vec::new();
    for pod in ["B.b", "A.a2"] {
        servers.push(http_server(&lab, pod, 8080, 1000));
    }
    let echo = "import socket\ns=socket.socket(socket.AF_INET6,socket.SOCK_DGRAM)\ns.bind(('::',9000))\nwhile 1:\n d,a=s.recvfrom(65535)\n s.sendto(d,a)";
    let _echoes = ["B.b", "A.a2"].map(|pod| Server::start(&lab, pod, &["python3", "-c", echo]));
    for pod in ["B.b", "A.a2"] {
        wait_for("the UDP server", || run(&lab, pod, &["ss", "-lun"]).contains(":9000"));
    }
    let mut rows = Vec::new();
    for dst in ["B.b", "A.a2"] {
        for family in ["-4", "-6"] {
            for probe in [
                &["--probe=icmp"][..],
                &["--probe=tcp", "--port", "8080"],
                &["--probe=udp", "--port", "9000"],
            ] {
                let mut args = vec!["--src", "A.a", "--dst", dst, family, "-c", "3", "-i", "50ms"];
                args.extend(probe);
                args.extend(["--format", "json"]);
                let report = podtrace(&lab, &args).report();
                let accused = report.findings.iter().filter(|f| f.severity != Some(Severity::Note));
                let mut wrong: Vec<String> = accused.map(|f| f.summary.clone()).collect();
                if report.verdict.status != Status::Delivered {
                    wrong.push(report.verdict.summary.clone());
                }
                rows.push(Row {
                    fault: format!("healthy ({variant}, {dst}, {family}, {})", probe[0]),
                    expected: "Delivered".into(),
                    got: describe(&report.verdict),
                    wrong,
                });
            }
        }
    }
    rows
}

#[test]
fn a_healthy_path_never_accuses() {
    if !privileged() {
        return;
    }
    type Change = fn(&mut LabConfig);
    let labs: [(&str, Change); 5] = [
        ("vxlan", |_| {}),
        ("renamed", renamed),
        ("legacy", |c| c.firewall = Firewall::Legacy),
        ("no firewall", |c| c.firewall = Firewall::None),
        ("host-gw", |c| c.backend = Backend::HostGw),
    ];
    let rows: Vec<Row> = thread::scope(|scope| {
        let labs = labs.map(|(name, change)| scope.spawn(move || healthy_runs(name, change)));
        labs.into_iter().flat_map(|lab| lab.join().expect("healthy runs")).collect()
    });
    assert!(rows.len() >= 50);
    score(rows);
}
