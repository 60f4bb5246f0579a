//! Builds the test programs of the workspace, runs them one after another, and counts.
//!
//! A test that cannot run here prints a line that begins with `SKIP` and returns: it counts as
//! skipped, not as passed.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use super::{Context, Tally};
use crate::ebpf;
use crate::process::{self, path_with_sbin, run_lines, run_step_into, target_dir};
use crate::ui::{Progress, seconds};
use crate::vm;

/// A test program that says nothing for this long hangs.
const SILENCE: Duration = Duration::from_secs(1200);
/// Privileged tests at the same time. They wait for the kernel more than they compute.
const PRIVILEGED_AT_ONCE: &str = "4";
/// Tells the tests that they may change this machine's network state, and must be able to.
const PRIVILEGED: &str = "PODTRACE_PRIVILEGED";
/// What a test that cannot run prints first.
const SKIP: &str = "SKIP";

/// One test program.
#[derive(Debug)]
pub struct TestBinary {
    /// Crate or file that it is made from.
    pub name: String,
    /// A file below `tests/`, as opposed to the tests inside a crate.
    pub is_integration: bool,
    /// The program.
    pub path: PathBuf,
    manifest: PathBuf,
}

/// Tests inside the crates.
pub(super) fn unit(_: &Context) -> Result<Tally> {
    let binaries = build()?;
    run_all(binaries.iter().filter(|b| !b.is_integration), |command| {
        command.env_remove(PRIVILEGED);
    })
}

/// Tests below `tests/`. Without root they run too, and say what they skip.
pub(super) fn privileged(context: &Context) -> Result<Tally> {
    ebpf::build(context.machine)?;
    let binaries = build()?;
    let is_root = context.machine.is_root;
    if !is_root {
        println!("not root: tests that need it will be skipped");
    }
    // Those that need emulated machines have phases of their own.
    let elsewhere = [vm::pair::TESTS, vm::IPVS];
    let here =
        binaries.iter().filter(|b| b.is_integration && !elsewhere.contains(&b.name.as_str()));
    run_all(here, |command| {
        context.leftovers.mark(command);
        command.args(["--test-threads", PRIVILEGED_AT_ONCE]);
        if is_root {
            command.env(PRIVILEGED, "1");
        } else {
            command.env_remove(PRIVILEGED);
        }
    })
}

/// Builds them all, and with them podtrace.
///
/// # Errors
/// When something does not compile.
pub fn build() -> Result<Vec<TestBinary>> {
    // Cargo's messages for programs; what is for people goes to standard error.
    let file = target_dir().join("xtask-tests.json");
    let messages = File::create(&file).with_context(|| format!("write {}", file.display()))?;
    let mut command = process::cargo();
    command.args(["test", "--workspace", "--lib", "--bins", "--tests", "--no-run", "--locked"]);
    command.arg("--message-format=json-render-diagnostics");
    run_step_into("build the tests", &mut command, Some(messages.into()))?;
    let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
    let binaries = executables(&text)?;
    if binaries.is_empty() {
        bail!("Cargo named no test program");
    }
    Ok(binaries)
}

/// The parts of Cargo's messages that are needed here; see `cargo help build`, "external tools".
#[derive(Deserialize)]
struct Message {
    reason: String,
    executable: Option<PathBuf>,
    manifest_path: Option<PathBuf>,
    target: Option<MessageTarget>,
    profile: Option<MessageProfile>,
}

#[derive(Deserialize)]
struct MessageTarget {
    kind: Vec<String>,
    name: String,
}

#[derive(Deserialize)]
struct MessageProfile {
    test: bool,
}

/// Test programs among what Cargo has built.
fn executables(messages: &str) -> Result<Vec<TestBinary>> {
    let mut binaries = Vec::new();
    for line in messages.lines().filter(|line| line.starts_with('{')) {
        let message: Message = serde_json::from_str(line).context("Cargo's messages")?;
        if message.reason != "compiler-artifact" || !message.profile.is_some_and(|p| p.test) {
            continue;
        }
        if let (Some(path), Some(target), Some(manifest)) =
            (message.executable, message.target, message.manifest_path)
        {
            let is_integration = target.kind.iter().any(|kind| kind == "test");
            binaries.push(TestBinary { name: target.name, is_integration, path, manifest });
        }
    }
    binaries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(binaries)
}

fn run_all<'a>(
    binaries: impl Iterator<Item = &'a TestBinary>,
    prepare: impl Fn(&mut Command),
) -> Result<Tally> {
    let mut sum = Tally::default();
    for binary in binaries {
        sum += run(binary, &prepare)?;
    }
    Ok(sum)
}

/// Runs one, with what `prepare` adds to its command line and environment.
///
/// # Errors
/// None: what fails is in the tally.
pub fn run(binary: &TestBinary, prepare: impl Fn(&mut Command)) -> Result<Tally> {
    let mut command = Command::new(&binary.path);
    let directory = binary.manifest.parent().unwrap_or(process::workspace());
    // As `cargo test` does it.
    command
        .current_dir(directory)
        .env("CARGO_MANIFEST_DIR", directory)
        .env("CARGO", process::cargo().get_program())
        .env("PATH", path_with_sbin())
        .args(["--show-output", "--color=never"]);
    prepare(&mut command);
    let mut progress = Progress::start(&binary.name);
    let mut output = Output::default();
    let (began, mut spoke) = (Instant::now(), Instant::now());
    let status = run_lines(&mut command, None, |line| {
        match line {
            Some(line) => {
                spoke = Instant::now();
                // Tables that tests write on purpose.
                if line.starts_with("score: ") {
                    println!("    {line}");
                }
                output.line(line);
                progress.last_line(line);
            }
            None => progress.tick(),
        }
        if spoke.elapsed() > SILENCE {
            bail!("{} has said nothing for {}: it hangs", binary.name, seconds(SILENCE));
        }
        Ok(())
    });
    drop(progress);
    let mut tally = output.tally();
    let note = match &status {
        Ok(status) if status.success() || tally.failed > 0 => String::new(),
        Ok(status) => format!(", ended with {status}"),
        Err(error) => format!(", {error:#}"),
    };
    if !note.is_empty() {
        // It has crashed, or was killed: that is a failure more than it could tell.
        tally += Tally::FAILED;
    }
    println!("{}: {tally} in {}{note}", binary.name, seconds(began.elapsed()));
    for name in &output.skipped {
        println!("    skipped: {name}");
    }
    if tally.failed > 0 {
        for line in &output.lines {
            println!("    {line}");
        }
    }
    Ok(tally)
}

/// What the test harness writes.
#[derive(Debug, Default)]
struct Output {
    passed: BTreeSet<String>,
    failed: BTreeSet<String>,
    skipped: BTreeSet<String>,
    /// Whose output follows.
    speaker: Option<String>,
    lines: Vec<String>,
}

impl Output {
    fn line(&mut self, line: &str) {
        self.lines.push(line.to_owned());
        if let Some(name) = line.strip_prefix("---- ").and_then(|l| l.strip_suffix(" stdout ----"))
        {
            self.speaker = Some(name.to_owned());
        } else if line.starts_with("test result:") {
            self.speaker = None;
        } else if let Some((name, result)) =
            line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... "))
        {
            // `name - should panic`
            let name = name.split(" - ").next().unwrap_or(name).to_owned();
            match result.split([' ', ',']).next() {
                Some("ok") => self.passed.insert(name),
                Some("FAILED") => self.failed.insert(name),
                Some("ignored") => self.skipped.insert(name),
                _ => false,
            };
        } else if let Some(speaker) = &self.speaker
            && line.starts_with(SKIP)
        {
            self.skipped.insert(speaker.clone());
        }
    }

    fn tally(&self) -> Tally {
        let count = |names: usize| names as u64;
        Tally {
            passed: count(self.passed.difference(&self.skipped).count()),
            failed: count(self.failed.len()),
            skipped: count(self.skipped.difference(&self.failed).count()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "
running 4 tests
test old ... ignored, needs a moon
test good ... ok
test unable ... ok
test bad ... FAILED
test wild - should panic ... ok

successes:

---- unable stdout ----
SKIP: needs root

successes:
    good
    unable

failures:

---- bad stdout ----
thread 'bad' panicked at tests/x.rs:1:1:
no

failures:
    bad

test result: FAILED. 3 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s
";

    #[test]
    fn a_test_that_could_not_run_has_not_passed() {
        let mut output = Output::default();
        OUTPUT.lines().for_each(|line| output.line(line));
        assert_eq!(output.tally(), Tally { passed: 2, failed: 1, skipped: 2 });
        assert!(output.skipped.iter().eq(["old", "unable"]));
    }

    #[test]
    fn test_programs_are_found_in_cargos_messages() {
        let artifact = |kind: &str, name: &str, test: bool, executable: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","manifest_path":"/w/Cargo.toml","target":{{"kind":["{kind}"],"name":"{name}"}},"profile":{{"test":{test}}},"executable":{executable}}}"#
            )
        };
        let messages = [
            artifact("test", "paths", true, r#""/w/paths-1""#),
            artifact("lib", "tracer", true, r#""/w/tracer-1""#),
            artifact("bin", "podtrace", false, r#""/w/podtrace""#),
            artifact("lib", "dependency", false, "null"),
            r#"{"reason":"build-finished","success":true}"#.to_owned(),
        ]
        .join("\n");
        let found = executables(&messages).unwrap();
        let found: Vec<_> = found.iter().map(|b| (b.name.as_str(), b.is_integration)).collect();
        assert_eq!(found, [("paths", true), ("tracer", false)]);
    }
}
