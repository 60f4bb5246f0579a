//! `cargo xtask vm`: the privileged tests on Debian's kernels, each in an emulated machine.

mod cpio;
pub mod guest;
mod image;
mod kernels;
pub mod pair;
mod plan;
mod qemu;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::machine::Machine;
use crate::process::{self, output_of, target_dir};
use crate::test::Tally;
use crate::test::binaries::{self, TestBinary};
use crate::ui::seconds;
use crate::{ebpf, setup};
use image::Built;
pub use plan::IPVS;
use plan::{Plan, Step};
use qemu::{Guest, Outcome};

/// How long one test binary may take in a guest, seconds.
const STEP_SECONDS: u64 = 600;
/// How long all of them may take, seconds.
const LIMIT_SECONDS: u64 = 1200;

/// What to run, and where
#[derive(Args, Clone, Debug, Default)]
pub struct Options {
    /// Kernel series [default: all]
    #[arg(long = "kernel", value_name = "SERIES")]
    kernels: Vec<String>,
    /// Only tests whose names contain this; also such as are not in the usual selection
    #[arg(long, value_name = "TEXT")]
    test: Option<String>,
    /// Run this shell command instead of the tests, and show its output
    #[arg(long, value_name = "COMMAND", conflicts_with = "test")]
    run: Option<String>,
    /// Seconds until a guest is given up
    #[arg(long, value_name = "SECONDS", default_value_t = LIMIT_SECONDS)]
    limit: u64,
    /// Processors of each guest
    #[arg(long, value_name = "N", default_value_t = 1)]
    cpus: u32,
    /// Two guests with different kernels and clocks, each one node of a cluster
    #[arg(long, conflicts_with = "kernels")]
    pair: bool,
    /// Only the few tests of every test run
    #[arg(long, conflicts_with_all = ["test", "run"])]
    few: bool,
}

/// `cargo xtask vm`.
///
/// # Errors
/// When something is missing, does not build, or fails in a guest.
pub fn run(machine: &Machine, options: &Options) -> Result<()> {
    process::catch_signals()?;
    setup::run(machine)?;
    ebpf::build(machine)?;
    let tally = guests(machine, options)?;
    println!("vm: {tally}");
    if tally.failed > 0 {
        bail!("something failed in the guests");
    }
    Ok(())
}

/// As a phase of `cargo xtask test`: the matrix of kernels, or the pair; a few of the tests, or `all`.
///
/// # Errors
/// When something is missing or does not build. What fails in a guest is in the tally.
pub fn phase(machine: &Machine, pair: bool, all: bool) -> Result<Tally> {
    ebpf::build(machine)?;
    let few = !all;
    guests(machine, &Options { limit: LIMIT_SECONDS, cpus: 1, pair, few, ..Options::default() })
}

/// Builds, boots, and tells how it went.
fn guests(machine: &Machine, options: &Options) -> Result<Tally> {
    let tests = tests()?;
    let podtrace = target_dir().join("debug/podtrace");
    let podtrace =
        podtrace.canonicalize().with_context(|| format!("find {}", podtrace.display()))?;
    if options.pair {
        pair(machine, options, &tests, &podtrace)
    } else {
        matrix(machine, options, &tests, podtrace)
    }
}

/// A guest for each kernel, at the same time, and tests in each.
fn matrix(
    machine: &Machine,
    options: &Options,
    tests: &[TestBinary],
    podtrace: PathBuf,
) -> Result<Tally> {
    let wanted: Vec<&str> = if options.kernels.is_empty() {
        kernels::series().collect()
    } else {
        options.kernels.iter().map(String::as_str).collect()
    };
    let steps = steps(options, tests)?;
    let guests = wanted.into_iter().map(|series| {
        let kernel = kernels::get(machine, series)?;
        let role = series.to_owned();
        let (devices, append) = (vec!["-nic".to_owned(), "none".to_owned()], String::new());
        Ok(Guest { kernel, role, devices, append, cpus: options.cpus })
    });
    let guests = guests.collect::<Result<Vec<_>>>()?;
    let roles = guests.iter().map(|guest| (guest.role.clone(), steps.clone())).collect();
    let plan = Plan { roles };
    // Tests find podtrace where it was when they were built.
    let mut built = vec![Built { place: podtrace.clone(), file: podtrace }];
    let needed = tests.iter().filter(|test| steps.iter().any(|step| step.program == place(test)));
    built.extend(needed.map(|test| Built { file: test.path.clone(), place: place(test) }));
    let initramfs = image(machine, &guests, &built, &[], &plan)?;
    let limit = Duration::from_secs(options.limit);
    let outcomes: Vec<_> = thread::scope(|scope| {
        let initramfs = &initramfs;
        let run = |guest| scope.spawn(move || qemu::run(guest, initramfs, limit, || false));
        let running: Vec<_> = guests.iter().map(run).collect();
        running.into_iter().map(|guest| guest.join()).collect()
    });
    let mut sum = Tally::default();
    for (guest, outcome) in guests.iter().zip(outcomes) {
        let Ok(outcome) = outcome else { bail!("following {} panicked", guest.kernel.release) };
        let mut outcome = outcome.with_context(|| format!("Linux {}", guest.kernel.release))?;
        if outcome.passed == 0 {
            outcome.problems.push("no test passed".to_owned());
        }
        sum += told(guest, &outcome);
    }
    Ok(sum)
}

/// Two guests as two nodes, and tests out here, or a command on the first.
fn pair(
    machine: &Machine,
    options: &Options,
    tests: &[TestBinary],
    podtrace: &Path,
) -> Result<Tally> {
    let pair = pair::Pair::new(machine, podtrace, options)?;
    let built = [Built { place: podtrace.to_owned(), file: podtrace.to_owned() }];
    let initramfs = image(machine, &pair.guests, &built, &pair.directories, &pair.plan)?;
    let binary = tests.iter().find(|test| test.name == pair::TESTS);
    let binary = binary.with_context(|| format!("podtrace has no test binary {}", pair::TESTS))?;
    if options.few {
        known(binary, &pair::FEW)?;
    }
    let limit = Duration::from_secs(options.limit);
    let over = AtomicBool::new(false);
    let (outcomes, tally) = thread::scope(|scope| {
        let (initramfs, over) = (&initramfs, &over);
        let run = |(number, guest)| {
            scope.spawn(move || {
                let outcome = qemu::run(guest, initramfs, limit, || over.load(Relaxed));
                // Of a command the first machine tells the end; neither is of use without the other.
                over.fetch_or(options.run.is_some() && number == 0 || outcome.is_err(), Relaxed);
                outcome
            })
        };
        let running: Vec<_> = pair.guests.iter().enumerate().map(run).collect();
        let tally = if options.run.is_some() {
            Ok(Tally::default())
        } else {
            let tally = binaries::run(binary, |command| {
                pair.prepare(command);
                command.args(&options.test);
                if options.few {
                    command.arg("--exact").args(pair::FEW);
                }
            });
            over.store(true, Relaxed);
            tally
        };
        (running.into_iter().map(|guest| guest.join()).collect::<Vec<_>>(), tally)
    });
    let mut sum = tally?;
    for (guest, outcome) in pair.guests.iter().zip(outcomes) {
        let Ok(outcome) = outcome else { bail!("following {} panicked", guest.kernel.release) };
        sum += told(guest, &outcome.with_context(|| format!("Linux {}", guest.kernel.release))?);
    }
    Ok(sum)
}

fn image(
    machine: &Machine,
    guests: &[Guest],
    built: &[Built],
    directories: &[Built],
    plan: &Plan,
) -> Result<PathBuf> {
    let kernels: Vec<_> = guests.iter().map(|guest| guest.kernel.clone()).collect();
    let (initramfs, size) = image::write(machine, &kernels, built, directories, plan)?;
    println!("initramfs of {} MB, {} guests", size / 1_000_000, guests.len());
    Ok(initramfs)
}

/// Says how a guest went, and counts.
fn told(guest: &Guest, outcome: &Outcome) -> Tally {
    let failed = outcome.failed.len() + outcome.problems.len();
    println!(
        "Linux {}: {} passed, {failed} failed; up after {}, all done after {}",
        guest.kernel.release,
        outcome.passed,
        seconds(outcome.boot),
        seconds(outcome.time),
    );
    let what = outcome.failed.iter().map(|test| format!("{test} failed"));
    for what in what.chain(outcome.problems.iter().cloned()) {
        println!("    {what}");
    }
    Tally { passed: outcome.passed as u64, failed: failed as u64, skipped: 0 }
}

/// podtrace's integration tests.
fn tests() -> Result<Vec<TestBinary>> {
    let mut tests = binaries::build()?;
    tests.retain(|test| test.is_integration);
    Ok(tests)
}

/// Where a guest has a test.
fn place(test: &TestBinary) -> PathBuf {
    Path::new("/tests").join(&test.name)
}

/// What a guest of the matrix does.
fn steps(options: &Options, tests: &[TestBinary]) -> Result<Vec<Step>> {
    if let Some(command) = &options.run {
        return Ok(vec![Step::script(command, command, STEP_SECONDS)]);
    }
    let step = |test: &TestBinary, arguments: Vec<String>| Step {
        name: test.name.clone(),
        program: place(test),
        // Side by side they would only wait for each other.
        arguments: [vec!["--test-threads=1".to_owned()], arguments].concat(),
        seconds: STEP_SECONDS,
    };
    if let Some(text) = &options.test {
        let mut steps = Vec::new();
        for test in tests {
            if names(test)?.iter().any(|name| name.contains(text)) {
                steps.push(step(test, vec![text.clone()]));
            }
        }
        return Ok(steps);
    }
    let mut steps = Vec::new();
    for (name, few, rest) in plan::TESTS {
        let selected = if options.few { few.to_vec() } else { [few, rest].concat() };
        if selected.is_empty() {
            continue;
        }
        let Some(test) = tests.iter().find(|test| test.name == name) else {
            bail!("podtrace has no test binary {name}");
        };
        known(test, &selected)?;
        let names = selected.iter().map(|&name| name.to_owned());
        steps.push(step(test, names.chain(["--exact".to_owned()]).collect()));
    }
    Ok(steps)
}

/// Fails unless a binary has these tests: of one that is missing nobody would hear.
fn known(test: &TestBinary, selected: &[&str]) -> Result<()> {
    let known = names(test)?;
    match selected.iter().find(|name| !known.iter().any(|k| k == *name)) {
        Some(unknown) => bail!("podtrace has no test {unknown} in {}", test.name),
        None => Ok(()),
    }
}

/// The tests in a binary.
fn names(test: &TestBinary) -> Result<Vec<String>> {
    let list = output_of(Command::new(&test.path).arg("--list"))?;
    let list = String::from_utf8(list).context("names of tests")?;
    Ok(list.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
}
