//! `cargo xtask vm`: the privileged tests on Debian's kernels, each in an emulated machine.

mod cpio;
pub mod guest;
mod image;
mod kernels;
mod plan;
mod qemu;

use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::machine::Machine;
use crate::process::{self, target_dir};
use crate::test::Tally;
use crate::test::binaries::{self, TestBinary};
use crate::ui::seconds;
use crate::{ebpf, setup};
use image::Built;
use plan::{Plan, Step};

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

/// Builds, boots a guest for each kernel at the same time, and tells how they went.
fn guests(machine: &Machine, options: &Options) -> Result<Tally> {
    let tests = tests()?;
    let binary = target_dir().join("debug/podtrace");
    let binary = binary.canonicalize().with_context(|| format!("find {}", binary.display()))?;
    let wanted: Vec<&str> = if options.kernels.is_empty() {
        kernels::series().collect()
    } else {
        options.kernels.iter().map(String::as_str).collect()
    };
    let kernels: Vec<_> =
        wanted.iter().map(|series| kernels::get(machine, series)).collect::<Result<_>>()?;
    let plan = plan(options, &tests)?;
    // Tests find podtrace where it was when they were built.
    let mut built = vec![Built { place: binary.clone(), file: binary }];
    let needed = tests.iter().filter(|t| plan.steps.iter().any(|s| s.program == place(t)));
    built.extend(needed.map(|test| Built { file: test.path.clone(), place: place(test) }));
    let (initramfs, size) = image::write(machine, &kernels, &built, &plan)?;
    println!("initramfs of {} MB, {} guests", size / 1_000_000, kernels.len());
    let limit = Duration::from_secs(options.limit);
    let outcomes: Vec<_> = thread::scope(|scope| {
        let guests: Vec<_> = kernels
            .iter()
            .map(|kernel| scope.spawn(|| qemu::run(kernel, &initramfs, limit, options.cpus)))
            .collect();
        guests.into_iter().map(|guest| guest.join()).collect()
    });
    let mut sum = Tally::default();
    for (kernel, outcome) in kernels.iter().zip(outcomes) {
        let Ok(outcome) = outcome else { bail!("following {} panicked", kernel.release) };
        let mut outcome = outcome.with_context(|| format!("Linux {}", kernel.release))?;
        if options.run.is_none() && outcome.passed == 0 {
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

fn plan(options: &Options, tests: &[TestBinary]) -> Result<Plan> {
    if let Some(command) = &options.run {
        let step = Step {
            name: command.clone(),
            program: "/bin/bash".into(),
            arguments: vec!["-c".into(), command.clone()],
            seconds: STEP_SECONDS,
        };
        return Ok(Plan { steps: vec![step] });
    }
    let step = |test: &TestBinary, arguments: Vec<String>| Step {
        name: test.name.clone(),
        program: place(test),
        // Side by side they would only wait for each other.
        arguments: [vec!["--test-threads=1".to_owned()], arguments].concat(),
        seconds: STEP_SECONDS,
    };
    if let Some(text) = &options.test {
        let steps = tests.iter().map(|test| step(test, vec![text.clone()])).collect();
        return Ok(Plan { steps });
    }
    let mut steps = Vec::new();
    for (name, selected) in plan::TESTS {
        let Some(test) = tests.iter().find(|test| test.name == name) else {
            bail!("podtrace has no test binary {name}");
        };
        let mut arguments: Vec<String> = selected.iter().map(|&name| name.to_owned()).collect();
        if !arguments.is_empty() {
            arguments.push("--exact".to_owned());
        }
        steps.push(step(test, arguments));
    }
    Ok(Plan { steps })
}
