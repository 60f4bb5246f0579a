//! What watches while traffic is measured: nothing, podtrace, or tcpdump.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{ChildStderr, Command, Stdio};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;

use super::lab::{Lab, OTHERS, SOURCE, TARGET};
use crate::process::{self, Running};

/// How long an observer may take to say that it watches.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of each packet that tcpdump keeps: the headers, as podtrace does.
const SNAPLEN: &str = "128";

/// A condition under which traffic is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Condition {
    /// Nothing attached.
    Bare,
    /// The same again: how far two equal conditions differ is what no other difference can be
    /// told from.
    BareAgain,
    /// podtrace attached for another pair of pods.
    Attached,
    /// podtrace matching every packet.
    Matching,
    /// `tcpdump -i any` on both nodes.
    TcpdumpAny,
    /// One tcpdump for each interface of the nodes on the path.
    TcpdumpEach,
}

impl Condition {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Bare,
        Self::BareAgain,
        Self::Attached,
        Self::Matching,
        Self::TcpdumpAny,
        Self::TcpdumpEach,
    ];

    /// As the table and `--only` name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::BareAgain => "bare-again",
            Self::Attached => "attached",
            Self::Matching => "matching",
            Self::TcpdumpAny => "tcpdump-any",
            Self::TcpdumpEach => "tcpdump-each",
        }
    }

    /// As the document names it.
    pub fn title(self) -> &'static str {
        match self {
            Self::Bare => "nothing attached",
            Self::BareAgain => "nothing attached, again",
            Self::Attached => "(a) podtrace, other traffic",
            Self::Matching => "(b) podtrace, every packet",
            Self::TcpdumpAny => "(c) tcpdump -i any, both nodes",
            Self::TcpdumpEach => "(d) tcpdump on 8 interfaces",
        }
    }
}

/// What an observer saw, and what escaped it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// Events or packets.
    pub seen: u64,
    /// Of which it says itself that it lost them.
    pub lost: u64,
}

/// Observers at work.
#[derive(Debug)]
pub struct Observers {
    running: Vec<Observer>,
    /// The tcpdumps' files; gone with this value.
    files: Vec<PathBuf>,
}

#[derive(Debug)]
struct Observer {
    child: Running,
    stdout: Option<JoinHandle<String>>,
    stderr: Option<JoinHandle<String>>,
}

impl Observer {
    /// Starts it and waits until it says a line that `ready` knows.
    fn start(command: &mut Command, ready: fn(&str) -> bool) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = Running::start(command)?;
        let stdout = child.0.stdout.take().map(|mut stdout| {
            thread::spawn(move || {
                let mut text = String::new();
                // What is not text is no report, which the reader of this will say.
                let _ = stdout.read_to_string(&mut text);
                text
            })
        });
        let (sender, watching) = mpsc::channel();
        let stderr = child.0.stderr.take().map(|stderr| listen(stderr, ready, sender));
        let observer = Self { child, stdout, stderr };
        let deadline = Instant::now() + PATIENCE;
        while watching.recv_timeout(Duration::from_millis(100)).is_err() {
            process::check_interrupt()?;
            if Instant::now() > deadline || observer.stderr.as_ref().is_none_or(|t| t.is_finished())
            {
                let line = process::line(command);
                let (_, said) = observer.end(Signal::SIGKILL)?;
                bail!("`{line}` does not watch: {said}");
            }
        }
        Ok(observer)
    }

    /// Signals it and waits for the end: what it wrote to standard output and error.
    fn end(mut self, signal: Signal) -> Result<(String, String)> {
        self.child.signal(signal);
        self.child.wait()?;
        let text = |thread: Option<JoinHandle<String>>| {
            thread.and_then(|t| t.join().ok()).unwrap_or_default()
        };
        Ok((text(self.stdout), text(self.stderr)))
    }
}

fn listen(
    stderr: ChildStderr,
    ready: fn(&str) -> bool,
    sender: mpsc::Sender<()>,
) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut text = String::new();
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            if ready(&line) {
                // Nobody need be waiting any more.
                let _ = sender.send(());
            }
            text.push_str(&line);
            text.push('\n');
        }
        text
    })
}

/// podtrace, watching the flow between two pods.
fn podtrace(mut command: Command, src: &str, dst: &str) -> Result<Observer> {
    command.args(["--src", src, "--dst", dst, "-4", "--format", "json"]);
    Observer::start(&mut command, |line| line.starts_with("podtrace: watching "))
}

impl Observers {
    /// Starts what the condition asks for, and waits until it watches.
    pub fn start(lab: &Lab, condition: Condition) -> Result<Self> {
        let mut observers = Self { running: Vec::new(), files: Vec::new() };
        match condition {
            Condition::Bare | Condition::BareAgain => {}
            Condition::Attached => {
                observers.running.push(podtrace(lab.podtrace(), OTHERS[0], OTHERS[1])?)
            }
            Condition::Matching => {
                observers.running.push(podtrace(lab.podtrace(), SOURCE.name, TARGET.name)?);
            }
            Condition::TcpdumpAny => {
                for node in ["A", "B"] {
                    observers.tcpdump(lab, node, "any")?;
                }
            }
            Condition::TcpdumpEach => {
                for (node, interface) in lab.path_interfaces()? {
                    observers.tcpdump(lab, &node, &interface)?;
                }
            }
        }
        Ok(observers)
    }

    /// As for [`Condition::Attached`], with more addresses than podtrace's programs hold as constants.
    pub fn crowded(lab: &Lab) -> Result<Self> {
        let observer = podtrace(lab.podtrace_crowded()?, OTHERS[0], OTHERS[1])?;
        Ok(Self { running: vec![observer], files: Vec::new() })
    }

    fn tcpdump(&mut self, lab: &Lab, node: &str, interface: &str) -> Result<()> {
        // In memory, as podtrace keeps its events.
        let file = PathBuf::from(format!("/dev/shm/podtrace-bench-{node}-{interface}.pcap"));
        let name = file.to_string_lossy().into_owned();
        self.files.push(file);
        let argv =
            ["tcpdump", "-Z", "root", "-n", "-i", interface, "-s", SNAPLEN, "-w", name.as_str()];
        let mut command = lab.inside(node, argv);
        command.env("LC_ALL", "C");
        self.running.push(Observer::start(&mut command, |line| line.contains("listening on "))?);
        Ok(())
    }

    /// Process id of the only observer.
    pub fn pid(&self) -> Option<u32> {
        self.running.first().map(|o| o.child.id())
    }

    /// Ends them all; what they saw.
    pub fn stop(mut self) -> Result<Seen> {
        let mut seen = Seen::default();
        for observer in std::mem::take(&mut self.running) {
            let (stdout, stderr) = observer.end(Signal::SIGINT)?;
            let one = if self.files.is_empty() {
                podtrace_says(&stdout).with_context(|| format!("podtrace: {stderr}"))?
            } else {
                tcpdump_says(&stderr).with_context(|| format!("tcpdump: {stderr}"))?
            };
            seen.seen += one.seen;
            seen.lost += one.lost;
        }
        Ok(seen)
    }
}

impl Drop for Observers {
    fn drop(&mut self) {
        self.running.clear();
        for file in &self.files {
            // It is not there if its tcpdump did not start.
            let _ = fs::remove_file(file);
        }
    }
}

/// From the JSON report. It may have hundreds of megabytes, nearly all of them journeys: only the
/// parts that are wanted are parsed.
fn podtrace_says(report: &str) -> Result<Seen> {
    let lost = member(report, "loss")?["events_lost"].as_u64().context("no loss in the report")?;
    let directions = member(report, "directions")?;
    let directions = directions.as_array().map(Vec::as_slice).unwrap_or_default();
    let hops = directions.iter().filter_map(|d| d["hops"].as_array()).flatten();
    Ok(Seen { seen: hops.filter_map(|h| h["packets"].as_u64()).sum(), lost })
}

/// A member of an object that is laid out with two spaces to a level.
fn member(object: &str, name: &str) -> Result<serde_json::Value> {
    const NEXT: &str = "\n  \"";
    let key = format!("{NEXT}{name}\": ");
    let (_, rest) = object.split_once(&key).with_context(|| format!("no {name} in the report"))?;
    let value = rest.find(NEXT).or_else(|| rest.rfind('}')).map_or(rest, |end| &rest[..end]);
    let value = value.trim_end().trim_end_matches(',');
    serde_json::from_str(value).with_context(|| format!("{name} of the report"))
}

/// From `N packets captured`, `N packets dropped by kernel`.
fn tcpdump_says(text: &str) -> Result<Seen> {
    let number = |what: &str| {
        text.lines()
            .find_map(|line| {
                line.trim().strip_suffix(what)?.split_whitespace().next_back()?.parse().ok()
            })
            .with_context(|| format!("does not say how many{what}"))
    };
    Ok(Seen { seen: number(" packets captured")?, lost: number(" packets dropped by kernel")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_tcpdump_says_at_its_end() {
        let text = "tcpdump: listening on cni0, link-type EN10MB\n12 packets captured\n\
            15 packets received by filter\n3 packets dropped by kernel\n";
        let seen = tcpdump_says(text).unwrap();
        assert_eq!((seen.seen, seen.lost), (12, 3));
        assert!(tcpdump_says("tcpdump: no such device").is_err());
    }

    #[test]
    fn adds_up_the_hops_of_a_report() {
        let report = serde_json::json!({
            "directions": [{"hops": [{"packets": 5}, {"packets": 4}]}, {"hops": [{"packets": 3}]}],
            "journeys": [{"loss": 1}],
            "loss": {"events_lost": 2},
        });
        let report = &serde_json::to_string_pretty(&report).unwrap();
        let seen = podtrace_says(report).unwrap();
        assert_eq!((seen.seen, seen.lost), (12, 2));
        assert!(podtrace_says("{}").is_err());
    }
}
