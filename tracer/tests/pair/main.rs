//! Two machines with kernels and clocks of their own, and agents on them: a cluster as users have it.
//! `cargo xtask vm --pair` starts the machines; this is the wire between them.

#![expect(clippy::expect_used, clippy::panic, reason = "helpers of tests fail the test")]

#[path = "../common/mod.rs"]
mod common;
mod faults;
mod gone;
mod guest;
mod healthy;
mod segments;
mod server;
mod wire;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use guest::{Answer, Guest};
use tracer::report::Report;
use wire::Wire;

/// Where the machines' sockets are.
const VARIABLE: &str = "PODTRACE_PAIR";

/// Inventory in which both nodes have agents; the collector is on A all the same.
const AGENTS: &str = "/run/agents.toml";
/// Inventory in which A, where the collector is, has none.
const COLLECTOR_IS_A: &str = "/run/collector-is-a.toml";

const INVENTORY: &str = r#"
[collector]
tls = "/etc/podtrace/pki/collector"
[[node]]
name = "A"
PLACE
[[node.pod]]
name = "a"
ip = ["10.10.0.2", "fd00:10:10::2"]
[[node]]
name = "B"
agent = "https://192.168.10.12"
[[node.pod]]
name = "b"
ip = ["10.10.1.2", "fd00:10:10:1::2"]
"#;

/// Until the other machine is there too.
const REACH: &str = "for try in {1..120}; do
    ip netns exec podtrace-A-a ping -c1 -W1 10.10.1.2 && exit
done
exit 1";

/// The machines and what is between them.
pub struct Pair {
    /// Node A.
    pub a: Guest,
    /// Node B.
    pub b: Guest,
    /// Between their network cards.
    pub wire: Wire,
}

/// The pair, for one test at a time; `None`, and said so, where there is none.
pub fn pair() -> Option<MutexGuard<'static, Pair>> {
    static PAIR: OnceLock<Mutex<Pair>> = OnceLock::new();
    static STARTED: AtomicBool = AtomicBool::new(false);
    let Some(directory) = std::env::var_os(VARIABLE) else {
        eprintln!("SKIP: needs two emulated machines: cargo xtask vm --pair");
        return None;
    };
    let pair = PAIR.get_or_init(|| {
        assert!(!STARTED.swap(true, Relaxed), "the machines did not come up for an earlier test");
        Mutex::new(Pair::start(&PathBuf::from(directory)))
    });
    // A test that failed has put back what it changed.
    Some(pair.lock().unwrap_or_else(PoisonError::into_inner))
}

impl Pair {
    fn start(directory: &std::path::Path) -> Self {
        let wire = Wire::between(directory);
        let [a, b] = ["A", "B"].map(|n| Guest::connect(&directory.join(format!("{n}.control"))));
        let pair = Self { a, b, wire };
        for (file, place) in [
            (AGENTS, r#"agent = "https://192.168.10.11""#),
            (COLLECTOR_IS_A, r#"netns = "/proc/1/ns/net""#),
        ] {
            let text = INVENTORY.replace("PLACE", place);
            pair.a.ok(&format!("cat > {file} <<'END'\n{text}\nEND"));
        }
        pair.agent(&pair.a, "A");
        pair.agent(&pair.b, "B");
        pair.a.ok(REACH);
        pair
    }

    /// Starts the agent of a node, and waits until it listens.
    pub fn agent(&self, guest: &Guest, node: &str) {
        guest.ok(&format!(
            "podtrace agent --listen 0.0.0.0:7474 --tls /etc/podtrace/pki/nodes/{node} \
             >/run/agent.log 2>&1 & echo $! >/run/agent.pid
             until grep -q listening /run/agent.log; do
                 kill -0 $! || {{ cat /run/agent.log; exit 1; }}; sleep 0.2
             done"
        ));
    }

    /// Runs podtrace on A to its end, from a to b.
    pub fn podtrace(&self, inventory: &str, args: &str) -> Answer {
        self.podtrace_to("B.b", inventory, args)
    }

    /// The same to another destination.
    pub fn podtrace_to(&self, dst: &str, inventory: &str, args: &str) -> Answer {
        self.a.run(&format!("podtrace --src A.a --dst {dst} --inventory {inventory} {args}"))
    }

    /// What a trace with a probe says.
    #[track_caller]
    pub fn probe(&self, inventory: &str, args: &str) -> Report {
        parsed(&self.podtrace(inventory, &format!("--probe --format json {args}")))
    }

    /// Starts podtrace on A, waits until it watches, runs a script there, which must succeed, and
    /// interrupts it. The report.
    #[track_caller]
    pub fn watch(&self, args: &str, script: &str) -> Report {
        let answer = self.a.run(&format!(
            "podtrace --src A.a --dst B.b --inventory {COLLECTOR_IS_A} --format json {args} \
             >/run/report.json 2>/run/errors &
             until grep -q watching /run/errors; do
                 kill -0 $! || {{ cat /run/errors; exit 1; }}; sleep 0.2
             done
             {script}
             status=$?
             kill -INT $!; wait $!; cat /run/report.json; cat /run/errors >&2; exit $status"
        ));
        assert_eq!(answer.status, Some(0), "{script}: {answer:?}");
        parsed(&answer)
    }
}

/// The report that a run has written.
#[track_caller]
pub fn parsed(answer: &Answer) -> Report {
    serde_json::from_str(&answer.stdout)
        .unwrap_or_else(|e| panic!("{e}: {:?} {}{}", answer.status, answer.stdout, answer.stderr))
}
