//! Boots one guest, follows its tests, and says how it went.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::kernels::Kernel;
use super::plan::{MARK, ROLE};
use crate::process::{run_lines, target_dir};
use crate::ui::seconds;

/// Megabytes of memory; the unpacked initramfs is in it.
const MEMORY: &str = "1536";
/// Lines of the kernel's console that are shown when a guest fails.
const CONSOLE_LINES: usize = 40;

/// How a guest went.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Tests that passed.
    pub passed: usize,
    /// Names of those that failed.
    pub failed: Vec<String>,
    /// What else went wrong.
    pub problems: Vec<String>,
    /// Switched off before it was done, because it was needed no more.
    pub dismissed: bool,
    /// From the start of the emulator until init ran.
    pub boot: Duration,
    /// Altogether.
    pub time: Duration,
}

impl Outcome {
    /// Nothing failed.
    pub fn good(&self) -> bool {
        self.failed.is_empty() && self.problems.is_empty()
    }
}

/// Understands the lines that come from a guest.
#[derive(Debug, Default)]
struct Follower {
    label: String,
    step: String,
    /// Tests that ran in this step.
    ran: usize,
    /// Lines of the step so far.
    lines: Vec<String>,
    done: bool,
    outcome: Outcome,
}

impl Follower {
    /// Takes one line; returns what to show of it.
    fn line(&mut self, line: &str) -> Option<String> {
        if let Some(said) = line.strip_prefix(MARK) {
            return self.said(said);
        }
        self.lines.push(line.to_owned());
        let (name, result) = line.strip_prefix("test ")?.rsplit_once(" ... ")?;
        let name = format!("{}::{name}", self.step);
        self.ran += 1;
        match result {
            "ok" => self.outcome.passed += 1,
            "ignored" => {}
            _ => self.outcome.failed.push(name.clone()),
        }
        Some(format!("{}  {name} ... {result}", self.label))
    }

    fn said(&mut self, said: &str) -> Option<String> {
        let (word, rest) = said.split_once(' ').unwrap_or((said, ""));
        match word {
            "begin" => {
                rest.clone_into(&mut self.step);
                self.lines.clear();
                self.ran = 0;
                None
            }
            "end" => self.end_of_step(rest),
            "done" => {
                self.done = true;
                None
            }
            "failed" => {
                self.outcome.problems.push(format!("init: {rest}"));
                None
            }
            _ => None,
        }
    }

    fn end_of_step(&mut self, status: &str) -> Option<String> {
        let step = &self.step;
        if status == "0" {
            // A script is one test; a test binary says how many it runs.
            let is_binary = self.lines.iter().any(|line| line.starts_with("running "));
            if is_binary || self.ran > 0 {
                return None;
            }
            self.outcome.passed += 1;
            return Some(format!("{}  {step} ... ok", self.label));
        }
        let explained = status == "101" && !self.outcome.failed.is_empty();
        match status {
            "late" => self.outcome.problems.push(format!("{step} took too long")),
            _ if !explained => self.outcome.problems.push(format!("{step} ended with {status}")),
            _ => {}
        }
        // Of a test runner's output the part about failures, else all.
        let from = self.lines.iter().position(|l| l == "failures:").unwrap_or(0);
        let shown = self.lines[from..].iter().map(|l| format!("{}    {l}", self.label));
        Some(shown.collect::<Vec<_>>().join("\n"))
    }
}

/// A machine to emulate.
#[derive(Clone, Debug)]
pub struct Guest {
    /// Its kernel.
    pub kernel: Kernel,
    /// Which part of the plan is its; what its output is marked with.
    pub role: String,
    /// What it gets beyond a processor and memory.
    pub devices: Vec<String>,
    /// More of the kernel's command line.
    pub append: String,
    /// Processors.
    pub cpus: u32,
}

/// Boots a guest and follows it to the end of its plan, for at most `limit`, or until `over` says
/// that it is needed no more.
///
/// # Errors
/// When the emulator cannot be started, or Ctrl-C ended it. What fails in the guest is in the
/// outcome.
pub fn run(
    guest: &Guest,
    initramfs: &Path,
    limit: Duration,
    over: impl Fn() -> bool,
) -> Result<Outcome> {
    let directory = target_dir().join("vm");
    let console = directory.join(format!("console-{}.log", guest.role));
    let output = directory.join(format!("output-{}.log", guest.role));
    let started = Instant::now();
    let mut command = command(guest, initramfs, &console);
    let mut follower = Follower { label: guest.role.clone(), ..Follower::default() };
    let mut log = String::new();
    let mut late = false;
    let ended = run_lines(&mut command, None, |line| {
        if over() {
            follower.outcome.dismissed = true;
            bail!("not needed any more");
        }
        if started.elapsed() > limit {
            late = true;
            bail!("not done after {}", seconds(limit));
        }
        let Some(line) = line.map(str::trim_end) else { return Ok(()) };
        if line.strip_prefix(MARK) == Some("ready") {
            follower.outcome.boot = started.elapsed();
            let boot = seconds(follower.outcome.boot);
            println!("{}  Linux {} is up after {boot}", guest.role, guest.kernel.release);
        }
        log.push_str(line);
        log.push('\n');
        if let Some(text) = follower.line(line) {
            println!("{text}");
        }
        Ok(())
    });
    fs::write(&output, log).with_context(|| format!("write {}", output.display()))?;
    match ended {
        Ok(status) if status.success() => {}
        Ok(status) => follower.outcome.problems.push(format!("the emulator ended with {status}")),
        Err(_) if follower.outcome.dismissed => follower.done = true,
        Err(error) if late => follower.outcome.problems.push(error.to_string()),
        Err(error) => return Err(error),
    }
    let Follower { mut outcome, done, step, .. } = follower;
    if !done && outcome.problems.is_empty() {
        let when =
            if step.is_empty() { "before it was up".to_owned() } else { format!("in {step}") };
        outcome.problems.push(format!("the guest ended {when}"));
    }
    outcome.time = started.elapsed();
    if !outcome.good() {
        show_console(guest, &console)?;
    }
    Ok(outcome)
}

fn command(guest: &Guest, initramfs: &Path, console: &Path) -> Command {
    // A panic ends the emulator, thanks to -no-reboot.
    let append = format!(
        "console=ttyS0 loglevel=5 panic=-1 random.trust_cpu=on {ROLE}{} {}",
        guest.role, guest.append
    );
    let mut command = Command::new("qemu-system-x86_64");
    command
        // Emulated: it works wherever this does, also in a virtual machine.
        .args(["-machine", "q35,accel=tcg", "-cpu", "max", "-m", MEMORY])
        .args(["-smp", &guest.cpus.to_string()])
        .args(["-display", "none", "-monitor", "none", "-nic", "none", "-no-reboot"])
        .arg("-serial")
        .arg(joined("file:", console))
        .args(["-serial", "stdio"])
        .arg("-kernel")
        .arg(guest.kernel.image())
        .arg("-initrd")
        .arg(initramfs)
        .args(["-append", &append])
        .args(&guest.devices);
    command
}

fn joined(prefix: &str, path: &Path) -> std::ffi::OsString {
    let mut text = std::ffi::OsString::from(prefix);
    text.push(path);
    text
}

fn show_console(guest: &Guest, file: &PathBuf) -> Result<()> {
    let bytes = fs::read(file).with_context(|| format!("read {}", file.display()))?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(CONSOLE_LINES);
    println!("{}  the end of its console ({}):", guest.role, file.display());
    for line in &lines[from..] {
        println!("{}    {}", guest.role, line.trim_end());
    }
    if lines.is_empty() {
        bail!("the guest with Linux {} wrote nothing at all", guest.kernel.release);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn follow(text: &str) -> (Outcome, Vec<String>, bool) {
        let mut follower = Follower { label: "6.1".into(), ..Follower::default() };
        let shown = text.lines().filter_map(|line| follower.line(line)).collect();
        (follower.outcome, shown, follower.done)
    }

    #[test]
    fn tests_are_counted_and_named() {
        let (outcome, shown, done) = follow(
            "@guest ready\n@guest begin clean\n\nrunning 2 tests\ntest one ... ok\ntest two ... ok\n\n\
             test result: ok. 2 passed\n@guest end 0\n@guest done",
        );
        assert!(outcome.good() && done);
        assert_eq!(outcome.passed, 2);
        assert_eq!(shown, ["6.1  clean::one ... ok", "6.1  clean::two ... ok"]);
    }

    #[test]
    fn a_failure_comes_with_what_the_test_said() {
        let (outcome, shown, _) = follow(
            "@guest begin a\ntest x ... FAILED\n\nfailures:\n\n---- x stdout ----\nbecause\n@guest end 101",
        );
        assert_eq!(outcome.failed, ["a::x"]);
        assert!(outcome.problems.is_empty());
        assert!(shown[1].contains("6.1    because") && !shown[1].contains("test x"));
    }

    #[test]
    fn what_is_no_test_failure_is_a_problem() {
        for (text, problem) in [
            ("@guest begin a\ntest x ... ok\n@guest end late", "a took too long"),
            ("@guest begin a\ntest x ... ok\n@guest end 139", "a ended with 139"),
            ("@guest begin a\n@guest end start /a: No such file", "a ended with start /a"),
            ("@guest failed read x", "init: read x"),
        ] {
            let (outcome, _, _) = follow(text);
            assert!(outcome.problems[0].starts_with(problem), "{:?}", outcome.problems);
        }
    }
}
