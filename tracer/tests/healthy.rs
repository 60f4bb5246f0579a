//! Healthy paths of every kind: pods, services, nodes and outside, in both of kube-proxy's modes, with
//! probes and watching. Each is delivered, and nothing is accused. Needs root and
//! `PODTRACE_PRIVILEGED=1`.
//!
//! A new path is a line in [`ROWS`]. `PODTRACE_ROWS=TEXT|TEXT` restricts the test to those that contain one.

#![expect(clippy::expect_used, reason = "helpers of tests fail the test")]

mod common;

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::Mutex;
use std::thread;

use common::trace::{Live, Run, podtrace};
use common::traffic::Client;
use common::{TestLab, privileged};
use tracer::lab::{KubeProxy, Lab};
use tracer::probe::Proto::{self, Icmp, Tcp, Udp};
use tracer::report::{Report, Severity, Status};

/// Traces at once.
const WORKERS: usize = 2;

/// A healthy path.
#[derive(Clone, Copy, Debug)]
struct Row {
    /// As podtrace is told.
    src: &'static str,
    dst: &'static str,
    proto: Proto,
    port: u16,
    six: bool,
    /// Watched: a client in this part of the lab talks to this address meanwhile. Otherwise probed.
    client: Option<(&'static str, &'static str)>,
}

const fn probe(src: &'static str, dst: &'static str, proto: Proto, port: u16) -> Row {
    Row { src, dst, proto, port, six: false, client: None }
}

/// Over IPv6.
const fn probe6(src: &'static str, dst: &'static str, proto: Proto, port: u16) -> Row {
    Row { six: true, ..probe(src, dst, proto, port) }
}

/// A client in `src` talks to `dst`.
const fn watch(src: &'static str, dst: &'static str, proto: Proto, port: u16) -> Row {
    Row { client: Some((src, dst)), ..probe(src, dst, proto, port) }
}

/// A client talks to another address than podtrace was told, or from elsewhere.
const fn watch_by_name(
    src: &'static str,
    dst: &'static str,
    proto: Proto,
    port: u16,
    client: (&'static str, &'static str),
) -> Row {
    Row { client: Some(client), ..probe(src, dst, proto, port) }
}

/// Services of the lab: dns (two backends), shop (three), echo (one), cart (two, affinity), agent (the
/// nodes). 30090 is shop's NodePort, .11 and .12 are nodes A and B, 203.0.113.80 is outside.
const ROWS: &[Row] = &[
    // Pod to pod.
    probe("A.a", "B.b2", Tcp, 8090),
    probe("A.a", "A.a2", Udp, 53),
    watch_by_name("A.a", "B.b2", Tcp, 8090, ("A.a", "10.10.1.3")),
    // Services, one to three backends.
    probe("A.a", "10.96.0.53", Udp, 53),
    probe("A.a", "10.96.0.53", Tcp, 53),
    probe("A.a", "10.96.0.30", Udp, 7),
    probe("A.a", "10.96.0.30", Tcp, 7),
    probe("A.a", "10.96.0.20", Tcp, 80),
    probe("A.a", "10.96.0.40", Tcp, 80),
    probe("A.a", "10.96.0.60", Tcp, 9100),
    probe("B.b", "10.96.0.53", Udp, 53),
    probe("B.b", "10.96.0.20", Tcp, 80),
    probe("B.b2", "10.96.0.30", Udp, 7),
    probe6("A.a", "fd00:10:96::53", Udp, 53),
    probe6("A.a", "fd00:10:96::20", Tcp, 80),
    probe6("B.b", "fd00:10:96::30", Tcp, 7),
    watch("A.a", "10.96.0.53", Udp, 53),
    watch("A.a", "10.96.0.53", Tcp, 53),
    watch("A.a", "10.96.0.30", Udp, 7),
    watch("A.a", "10.96.0.30", Tcp, 7),
    watch("A.a", "10.96.0.20", Tcp, 80),
    watch("B.b", "10.96.0.40", Tcp, 80),
    watch("A.a", "10.96.0.60", Tcp, 9100),
    watch_by_name("A.a", "B.b2", Udp, 7, ("A.a", "10.96.0.30")),
    watch_by_name("A.a", "B.b2", Tcp, 7, ("A.a", "10.96.0.30")),
    // Nodes and what serves in their network.
    probe("A.a", "B", Icmp, 0),
    probe("A.a", "B", Tcp, 9100),
    probe("A.a", "B", Udp, 9100),
    probe("A.a", "A", Icmp, 0),
    probe("A.a", "A", Tcp, 9100),
    probe("A.a", "B.agent-b", Tcp, 9100),
    probe("A.a", "192.168.10.12", Tcp, 9100),
    probe6("A.a", "B", Tcp, 9100),
    probe("A", "B", Icmp, 0),
    probe("A", "B", Tcp, 9100),
    probe("A", "B.b2", Tcp, 8090),
    probe("A", "B.b", Icmp, 0),
    probe("A", "A.a", Icmp, 0),
    watch_by_name("A.a", "B", Tcp, 9100, ("A.a", "192.168.10.12")),
    watch_by_name("A.a", "A", Udp, 9100, ("A.a", "192.168.10.11")),
    watch_by_name("B", "A.a2", Tcp, 8090, ("B", "10.10.0.3")),
    // Nodes to services, and NodePorts.
    probe("A", "10.96.0.53", Udp, 53),
    probe("A", "10.96.0.20", Tcp, 80),
    probe("A", "10.96.0.30", Tcp, 7),
    probe("A.a", "192.168.10.11", Tcp, 30090),
    probe("A.a", "192.168.10.12", Tcp, 30090),
    probe("A", "192.168.10.12", Tcp, 30090),
    watch("A", "10.96.0.20", Tcp, 80),
    watch("A.a", "192.168.10.12", Tcp, 30090),
    // The outside, both ways.
    probe("A.a", "203.0.113.80", Icmp, 0),
    probe("A.a", "203.0.113.80", Tcp, 80),
    probe("A.a", "203.0.113.80", Udp, 53),
    probe("B", "203.0.113.80", Tcp, 80),
    probe6("A.a", "2001:db8:113::80", Tcp, 80),
    watch("A.a", "203.0.113.80", Tcp, 80),
    watch("A.a", "203.0.113.80", Udp, 53),
    watch("A", "203.0.113.80", Udp, 53),
    watch_by_name("192.168.10.1", "A", Tcp, 9100, ("outside", "192.168.10.11")),
    watch_by_name("192.168.10.1", "192.168.10.11", Tcp, 30090, ("outside", "192.168.10.11")),
];

impl Row {
    fn args(&self) -> Vec<String> {
        let mut args = vec!["--src", self.src, "--dst", self.dst];
        args.push(if self.six { "-6" } else { "-4" });
        let mut args: Vec<String> = args.into_iter().map(str::to_owned).collect();
        match self.client {
            None => args.extend([format!("--probe={}", self.proto), "-i=50ms".to_owned()]),
            Some(_) => args.extend([format!("--proto={}", self.proto), "--duration=1s".to_owned()]),
        }
        if self.port != 0 {
            args.push(format!("--port={}", self.port));
        }
        args
    }

    fn run(&self, lab: &Lab) -> Run {
        let mut args = self.args();
        args.extend(["--format", "json"].map(str::to_owned));
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let Some((target, to)) = self.client else { return podtrace(lab, &args) };
        let live = Live::start(lab, &args);
        let to: IpAddr = to.parse().expect("an address");
        let _client = Client::start(lab, target, self.proto, SocketAddr::new(to, self.port));
        live.wait()
    }
}

/// What is wrong with a run; nothing when it is as a healthy one must be.
fn wrong(run: &Run) -> Vec<String> {
    let mut wrong = Vec::new();
    if run.status != 0 {
        wrong.push(format!("exit status {}", run.status));
    }
    let Ok(report) = serde_json::from_str::<Report>(&run.stdout) else {
        wrong.push(format!("no report: {}{}", run.stdout, run.stderr));
        return wrong;
    };
    let verdict = &report.verdict;
    if verdict.status != Status::Delivered {
        let cause = verdict.cause.as_deref().unwrap_or("-");
        wrong.push(format!("{:?} {cause}: {}", verdict.status, verdict.summary));
    }
    for finding in &report.findings {
        // What accuses nobody is said with severity note.
        if finding.severity != Some(Severity::Note) {
            let cause = finding.cause.as_deref().unwrap_or("-");
            wrong.push(format!("finding {cause}: {}", finding.summary));
        }
    }
    wrong
}

/// Runs every row in one lab and fails with what every wrong one said.
fn healthy(mode: KubeProxy) {
    let only = std::env::var("PODTRACE_ROWS").unwrap_or_default();
    let lab = TestLab::up(|config| config.kube_proxy = mode);
    let chosen = |row: &&Row| only.split('|').any(|text| format!("{row:?}").contains(text));
    let rows = ROWS.iter().filter(chosen);
    let tasks: Mutex<Vec<&Row>> = Mutex::new(rows.rev().collect());
    let failures = Mutex::new(Vec::new());
    let work = || {
        loop {
            let next = tasks.lock().expect("no panic").pop();
            let Some(row) = next else { return };
            let run = row.run(&lab);
            let wrong = wrong(&run);
            if !wrong.is_empty() {
                let mut text = format!("podtrace {}", row.args().join(" "));
                if let Some((target, to)) = row.client {
                    let _ = write!(text, "  # {target} talks to {to}");
                }
                for line in wrong {
                    let _ = write!(text, "\n    {line}");
                }
                eprintln!("FAILED {mode}: {text}\n{}{}", run.stdout, run.stderr);
                failures.lock().expect("no panic").push(text);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(work);
        }
    });
    let failures = failures.into_inner().expect("no panic");
    assert!(
        failures.is_empty(),
        "{mode}: {} healthy paths are accused:\n{}",
        failures.len(),
        failures.join("\n")
    );
}

#[test]
fn nothing_healthy_is_accused_in_iptables_mode() {
    if !privileged() {
        return;
    }
    healthy(KubeProxy::Iptables);
}

#[test]
fn nothing_healthy_is_accused_in_nftables_mode() {
    if !privileged() {
        return;
    }
    healthy(KubeProxy::Nftables);
}

#[test]
fn there_are_enough_of_them() {
    // In each mode.
    assert!(ROWS.len() >= 50, "{}", ROWS.len());
    let watched = ROWS.iter().filter(|row| row.client.is_some()).count();
    assert!(watched * 4 >= ROWS.len(), "{watched}");
}
