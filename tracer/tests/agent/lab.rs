//! Real agents in a real cluster: `podtrace agent` inside the nodes' namespaces, reached over the
//! cluster's own wire with certificates of `podtrace agent init`.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tracer::lab::Lab;
use tracer::report::{Report, Status};

use crate::common::attached::attached;
use crate::common::trace::{PODTRACE, run, wait_for};
use crate::common::{TestLab, privileged};

/// A cluster with agents.
struct Cluster {
    lab: TestLab,
    folder: tempfile::TempDir,
}

/// `podtrace agent` on a node; ends with the test.
struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Agent {
    fn pid(&self) -> u32 {
        self.0.id()
    }

    fn send(&self, signal: Signal) {
        let pid = i32::try_from(self.pid()).expect("a pid");
        kill(Pid::from_raw(pid), signal).expect("signal the agent");
    }
}

impl Cluster {
    fn up() -> Self {
        let cluster = Self {
            lab: TestLab::up(|_| {}),
            folder: tempfile::tempdir().expect("temporary directory"),
        };
        let nodes: Vec<String> =
            ["A", "B"].map(|node| format!("{node}={}", cluster.address(node))).to_vec();
        let output = Command::new(PODTRACE)
            .args(["agent", "init", "--dir"])
            .arg(cluster.pki())
            .args(&nodes)
            .output()
            .expect("start podtrace");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        cluster
    }

    fn lab(&self) -> &Lab {
        &self.lab
    }

    fn pki(&self) -> PathBuf {
        self.folder.path().join("pki")
    }

    /// Address of a node on the wire.
    fn address(&self, node: &str) -> String {
        let nodes = &self.lab.plan().nodes;
        let node = nodes.iter().find(|n| n.name == node).expect("a node");
        node.wire[0].addr().to_string()
    }

    /// Starts the agent of a node, and waits until it listens.
    fn agent(&self, node: &str) -> Agent {
        let mut command = Command::new(PODTRACE);
        command
            .args(["agent", "--listen", &format!("{}:7474", self.address(node)), "--tls"])
            .arg(self.pki().join("nodes").join(node))
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut child = self.lab.spawn(node, &mut command).expect("start the agent");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("piped");
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        assert!(line.starts_with("podtrace agent: listening at "), "{line:?}");
        Agent(child)
    }

    /// An inventory in which these nodes are reached through agents, the others are here.
    fn inventory(&self, agents: &[&str]) -> PathBuf {
        let collector = self.pki().join("collector");
        let mut text = format!("[collector]\ntls = {:?}\n", collector.display().to_string());
        for node in &self.lab.plan().nodes {
            let name = &node.name;
            let place = if agents.contains(&name.as_str()) {
                format!("agent = \"https://{}:7474\"", self.address(name))
            } else {
                format!("netns = {:?}", node.netns)
            };
            writeln!(text, "[[node]]\nname = {name:?}\n{place}").expect("write");
            for pod in &node.pods {
                let ip = pod.addresses[0].addr();
                let name = &pod.name;
                writeln!(text, "[[node.pod]]\nname = {name:?}\nip = [\"{ip}\"]").expect("write");
            }
        }
        let path = self.folder.path().join(format!("inventory-{}.toml", agents.concat()));
        fs::write(&path, text).expect("write the inventory");
        path
    }

    /// A podtrace on node A.
    fn collector(&self, agents: &[&str], args: &[&str]) -> Child {
        let mut command = Command::new(PODTRACE);
        command
            .args(["--src", "A.a", "--dst", "B.b", "--format", "json", "--inventory"])
            .arg(self.inventory(agents))
            .args(args)
            .env_remove("PODTRACE_INVENTORY")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        self.lab.spawn("A", &mut command).expect("start podtrace")
    }

    /// The report of a trace that these agents take part in.
    fn trace(&self, agents: &[&str]) -> Report {
        let child = self.collector(agents, &["--probe"]);
        report(child)
    }
}

fn report(child: Child) -> Report {
    let output = child.wait_with_output().expect("podtrace");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!(
            "{error}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )
    })
}

/// What must not depend on where nodes are.
fn essence(report: &Report) -> String {
    let verdict = &report.verdict;
    let place = verdict.r#where.as_ref();
    format!(
        "{:?} {:?} {:?} {:?} {:?} {:?} sent {} delivered {} lost {}",
        verdict.status,
        verdict.direction,
        verdict.cause,
        place.map(|p| (&p.node, &p.interface, &p.stage, &p.function)),
        verdict.kernel_reason.as_ref().map(|r| &r.name),
        verdict.confidence,
        report.packets.sent,
        report.packets.delivered,
        report.loss.events_lost,
    )
}

#[test]
fn the_verdict_is_the_same_wherever_nodes_are() {
    if !privileged() {
        return;
    }
    let cluster = Cluster::up();
    let (_a, _b) = (cluster.agent("A"), cluster.agent("B"));
    let places: [&[&str]; 3] = [&[], &["B"], &["A", "B"]];
    let healthy = places.map(|agents| cluster.trace(agents));
    assert_eq!(healthy[0].verdict.status, Status::Delivered);
    let hops = |report: &Report| {
        let all = report.journeys.iter().map(|j| j.hops.len());
        all.collect::<Vec<_>>()
    };
    for remote in &healthy[1..] {
        assert_eq!(essence(remote), essence(&healthy[0]));
        assert_eq!(hops(remote), hops(&healthy[0]));
    }
    // Dropped at the far end, by a packet filter there.
    for command in [
        "nft add table ip bad",
        "nft add chain ip bad deny { type filter hook forward priority -1 ; }",
        "nft add rule ip bad deny ip protocol icmp drop",
    ] {
        run(cluster.lab(), "B", &command.split(' ').collect::<Vec<_>>());
    }
    let dropped = places.map(|agents| cluster.trace(agents));
    assert_eq!(dropped[0].verdict.cause.as_deref(), Some("netfilter.drop"));
    for remote in &dropped[1..] {
        assert_eq!(essence(remote), essence(&dropped[0]));
    }
}

#[test]
fn an_agent_keeps_only_the_capabilities_that_it_needs() {
    if !privileged() {
        return;
    }
    let cluster = Cluster::up();
    let agent = cluster.agent("B");
    let status = fs::read_to_string(format!("/proc/{}/status", agent.pid())).expect("status");
    let set = |name: &str| {
        let line = status.lines().find_map(|l| l.strip_prefix(name)).expect("a set");
        u64::from_str_radix(line.trim(), 16).expect("hexadecimal")
    };
    // CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_PTRACE, CAP_SYS_ADMIN, CAP_SYSLOG, CAP_PERFMON, CAP_BPF
    let kept = [12, 13, 19, 21, 34, 38, 39].iter().fold(0u64, |set, bit| set | 1 << bit);
    for name in ["CapEff:", "CapPrm:", "CapBnd:"] {
        assert_eq!(set(name) & !kept, 0, "{name} {:x}", set(name));
    }
    // And they suffice.
    assert_eq!(cluster.trace(&["B"]).verdict.status, Status::Delivered);
}

#[test]
fn what_is_left_of_a_collector_that_was_killed_is_nothing() {
    if !privileged() {
        return;
    }
    let cluster = Cluster::up();
    let agent = cluster.agent("B");
    for signal in [Signal::SIGKILL, Signal::SIGSTOP] {
        let mut collector = cluster.collector(&["B"], &["--duration", "10m"]);
        let on_b = || attached(cluster.lab()).iter().filter(|a| a.starts_with('B')).count();
        wait_for("programs on B", || on_b() >= 8);
        let pid = Pid::from_raw(i32::try_from(collector.id()).expect("a pid"));
        // Killed, its connection is closed; stopped, it answers no more.
        kill(pid, signal).expect("signal podtrace");
        wait_for("programs on B to go", || on_b() == 0);
        collector.kill().expect("kill podtrace");
        collector.wait().expect("podtrace");
        wait_for("all programs to go", || attached(cluster.lab()).is_empty());
    }
    drop(agent);
}

#[test]
fn an_agent_that_was_killed_leaves_what_the_rest_can_prove() {
    if !privileged() {
        return;
    }
    let cluster = Cluster::up();
    let agent = cluster.agent("B");
    let collector = cluster.collector(&["B"], &["--probe", "-c", "1000", "--interval", "50ms"]);
    // Those of the collector's own node are attached last.
    wait_for("programs on A", || attached(cluster.lab()).iter().any(|a| a.starts_with("A")));
    agent.send(Signal::SIGKILL);
    wait_for("the agent's programs to go", || {
        !attached(cluster.lab()).iter().any(|a| a.starts_with("B"))
    });
    let pid = Pid::from_raw(i32::try_from(collector.id()).expect("a pid"));
    kill(pid, Signal::SIGINT).expect("signal podtrace");
    let report = report(collector);
    let text = serde_json::to_string(&report).expect("JSON");
    assert!(text.contains("unreachable"), "{text}");
    // Nothing was lost: who answers from where nobody looked was there.
    assert_ne!(report.verdict.status, Status::Lost);
    wait_for("all programs to go", || attached(cluster.lab()).is_empty());
}
