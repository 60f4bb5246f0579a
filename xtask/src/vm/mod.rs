//! `cargo xtask vm`: the privileged tests on Debian's kernels, each in an emulated machine.

mod cpio;
pub mod guest;
mod image;
mod kernels;
mod pair;
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
use plan::{Plan, Step};
use qemu::Guest;

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
    #[arg(long, conflicts_with_all = ["kernels", "test"])]
    pair: bool,
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

/// As a phase of `cargo xtask test`: the matrix of kernels, or the pair.
///
/// # Errors
/// When something is missing or does not build. What fails in a guest is in the tally.
pub fn phase(machine: &Machine, pair: bool) -> Result<Tally> {
    ebpf::build(machine)?;
    guests(machine, &Options { limit: LIMIT_SECONDS, cpus: 1, pair, ..Options::default() })
}

/// Builds, boots a guest for each kernel at the same time, and tells how they went.
fn guests(machine: &Machine, options: &Options) -> Result<Tally> {
    let tests = tests()?;
    let binary = target_dir().join("debug/podtrace");
    let binary = binary.canonicalize().with_context(|| format!("find {}", binary.display()))?;
    let limit = Duration::from_secs(options.limit);
    // Tests find podtrace where it was when they were built.
    let mut built = vec![Built { place: binary.clone(), file: binary.clone() }];
    let (guests, plan) = if options.pair {
        pair::guests(machine, &binary, options)?
    } else {
        let wanted: Vec<&str> = if options.kernels.is_empty() {
            kernels::series().collect()
        } else {
            options.kernels.iter().map(String::as_str).collect()
        };
        let steps = steps(options, &tests)?;
        let guests = wanted.into_iter().map(|series| {
            let kernel = kernels::get(machine, series)?;
            let role = series.to_owned();
            let (devices, append) = (vec!["-nic".to_owned(), "none".to_owned()], String::new());
            Ok(Guest { kernel, role, devices, append, cpus: options.cpus })
        });
        let guests = guests.collect::<Result<Vec<_>>>()?;
        let roles = guests.iter().map(|guest| (guest.role.clone(), steps.clone())).collect();
        (guests, Plan { roles })
    };
    let runs =
        |test: &TestBinary| plan.roles.values().flatten().any(|step| step.program == place(test));
    let needed = tests.iter().filter(|test| runs(test));
    built.extend(needed.map(|test| Built { file: test.path.clone(), place: place(test) }));
    let kernels: Vec<_> = guests.iter().map(|guest| guest.kernel.clone()).collect();
    let (initramfs, size) = image::write(machine, &kernels, &built, &plan)?;
    println!("initramfs of {} MB, {} guests", size / 1_000_000, guests.len());
    let first_done = AtomicBool::new(false);
    let outcomes: Vec<_> = thread::scope(|scope| {
        let (initramfs, first_done) = (&initramfs, &first_done);
        let running: Vec<_> = guests
            .iter()
            .enumerate()
            .map(|(number, guest)| {
                scope.spawn(move || {
                    // The second of a pair is there for the first.
                    let over = || options.pair && number > 0 && first_done.load(Relaxed);
                    let outcome = qemu::run(guest, initramfs, limit, over);
                    first_done.fetch_or(number == 0, Relaxed);
                    outcome
                })
            })
            .collect();
        running.into_iter().map(|guest| guest.join()).collect()
    });
    if options.pair {
        pair::remove_wire();
    }
    let mut sum = Tally::default();
    for (kernel, outcome) in kernels.iter().zip(outcomes) {
        let Ok(outcome) = outcome else { bail!("following {} panicked", kernel.release) };
        let mut outcome = outcome.with_context(|| format!("Linux {}", kernel.release))?;
        if outcome.passed == 0 && !outcome.dismissed {
            outcome.problems.push("no test passed".to_owned());
        }
        let failed = outcome.failed.len() + outcome.problems.len();
        println!(
            "Linux {}: {} passed, {failed} failed; up after {}, all done after {}",
            kernel.release,
            outcome.passed,
            seconds(outcome.boot),
            seconds(outcome.time),
        );
        let what = outcome.failed.iter().map(|test| format!("{test} failed"));
        for what in what.chain(outcome.problems.iter().cloned()) {
            println!("    {what}");
        }
        sum += Tally { passed: outcome.passed as u64, failed: failed as u64, skipped: 0 };
    }
    Ok(sum)
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
    for (name, selected) in plan::TESTS {
        let Some(test) = tests.iter().find(|test| test.name == name) else {
            bail!("podtrace has no test binary {name}");
        };
        let known = names(test)?;
        if let Some(unknown) = selected.iter().find(|name| !known.iter().any(|k| k == *name)) {
            bail!("podtrace has no test {unknown} in {name}");
        }
        let names = selected.iter().map(|&name| name.to_owned());
        steps.push(step(test, names.chain(["--exact".to_owned()]).collect()));
    }
    Ok(steps)
}

/// The tests in a binary.
fn names(test: &TestBinary) -> Result<Vec<String>> {
    let list = output_of(Command::new(&test.path).arg("--list"))?;
    let list = String::from_utf8(list).context("names of tests")?;
    Ok(list.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
}
