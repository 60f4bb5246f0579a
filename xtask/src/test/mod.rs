//! `cargo xtask test`: everything that must hold before a change may land.
//!
//! A list of phases, each run whatever became of those before it (except setup), so that one run
//! tells all that is wrong. A new kind of test is one more entry in [`PHASES`].

pub mod binaries;
pub mod fuzz;
mod leftovers;

use std::env;
use std::ops::AddAssign;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use clap::builder::PossibleValuesParser;

use crate::machine::Machine;
use crate::process::{self, run_step};
use crate::ui::{seconds, section};
use crate::{ebpf, setup, vm};
use leftovers::Leftovers;

/// One step of the test run.
struct Phase {
    /// For `--only` and `--skip`.
    name: &'static str,
    /// What it does, as its headline.
    about: &'static str,
    run: fn(&Context) -> Result<Tally>,
}

/// Every phase, in order: what fails fast comes first.
const PHASES: &[Phase] = &[
    Phase {
        name: "setup",
        about: "what building and testing needs",
        run: |c| check(setup::run(c.machine)),
    },
    Phase { name: "format", about: "formatting, eBPF crate too", run: |_| format() },
    Phase {
        name: "ebpf",
        about: "build the eBPF programs",
        run: |c| check(ebpf::build(c.machine)),
    },
    Phase { name: "clippy", about: "lints", run: |_| clippy() },
    Phase {
        name: "clippy-ebpf",
        about: "lints of the eBPF crate",
        run: |c| check(ebpf::clippy(c.machine)),
    },
    Phase { name: "unit", about: "unit tests, without privileges", run: |c| binaries::unit(c) },
    Phase {
        name: "fuzz",
        about: "parsers, with what strangers might give them",
        run: |_| fuzz::phase(),
    },
    Phase { name: "doc", about: "examples in the documentation", run: |_| doc() },
    Phase {
        name: "privileged",
        about: "tests on real namespaces and the real kernel",
        run: |c| binaries::privileged(c),
    },
    Phase {
        name: "vm",
        about: "tests on Debian's kernels, in emulated machines",
        run: |c| vm::phase(c.machine, false, c.all),
    },
    Phase {
        name: "vm-pair",
        about: "two emulated machines as one cluster",
        run: |c| vm::phase(c.machine, true, c.all),
    },
    Phase {
        name: "leftovers",
        about: "nothing is left on this machine",
        run: |c| c.leftovers.check(),
    },
];

/// What a phase works with.
struct Context<'a> {
    machine: &'a Machine,
    leftovers: Leftovers,
    /// Also the tests that take long.
    all: bool,
}

/// Results, counted. A check such as clippy counts as one test.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Tests that passed.
    pub passed: u64,
    /// Tests that failed.
    pub failed: u64,
    /// Tests that could not run.
    pub skipped: u64,
}

impl Tally {
    /// One check that passed.
    pub const PASSED: Self = Self { passed: 1, failed: 0, skipped: 0 };
    /// One that failed.
    pub const FAILED: Self = Self { passed: 0, failed: 1, skipped: 0 };
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

/// Which phases to run.
#[derive(Args, Debug)]
pub struct TestArgs {
    /// Run only this phase (may be repeated)
    #[arg(long, value_name = "PHASE", value_parser = names(), conflicts_with = "skip")]
    only: Vec<String>,
    /// Leave this phase out (may be repeated)
    #[arg(long, value_name = "PHASE", value_parser = names())]
    skip: Vec<String>,
    /// In emulated machines all of the tests, not only a few
    #[arg(long)]
    all: bool,
}

fn names() -> PossibleValuesParser {
    PossibleValuesParser::new(PHASES.iter().map(|phase| phase.name))
}

impl TestArgs {
    fn wants(&self, phase: &Phase) -> bool {
        let named = |list: &[String]| list.iter().any(|name| name == phase.name);
        if self.only.is_empty() { !named(&self.skip) } else { named(&self.only) }
    }
}

/// Runs the phases and prints what became of each; the last line counts all tests.
///
/// # Errors
/// When Ctrl-C ends it, or signals cannot be caught. Tests that fail are in the exit code.
pub fn run(machine: &Machine, args: &TestArgs) -> Result<ExitCode> {
    process::catch_signals()?;
    let context = Context { machine, leftovers: Leftovers::before(), all: args.all };
    let began = Instant::now();
    let mut results: Vec<(&str, Tally, Duration)> = Vec::new();
    for phase in PHASES.iter().filter(|phase| args.wants(phase)) {
        section(&format!("{}: {}", phase.name, phase.about));
        let began = Instant::now();
        let tally = (phase.run)(&context).unwrap_or_else(|error| {
            println!("FAILED: {error:#}");
            Tally::FAILED
        });
        if let Err(error) = process::check_interrupt() {
            process::forget_interrupt();
            // What the tests were not allowed to put back.
            context.leftovers.remove();
            return Err(error);
        }
        println!("{}: {tally} ({})", phase.name, seconds(began.elapsed()));
        results.push((phase.name, tally, began.elapsed()));
        if phase.name == "setup" && tally.failed > 0 {
            println!("the rest needs that; --skip setup runs it all the same");
            break;
        }
    }
    // Also where that phase was left out.
    context.leftovers.remove();
    Ok(conclude(&results, began.elapsed(), is_ci()))
}

/// Prints the summary; with `strict`, a skipped test is a failure.
fn conclude(results: &[(&str, Tally, Duration)], took: Duration, strict: bool) -> ExitCode {
    section(&format!("all of it took {}", seconds(took)));
    let mut sum = Tally::default();
    for (name, tally, time) in results {
        let mark = if tally.failed > 0 { "FAILED" } else { "ok" };
        println!("{mark:>6}  {name:<12} {:>14}  {tally}", seconds(*time));
        sum += *tally;
    }
    let skips_fail = strict && sum.skipped > 0;
    if skips_fail {
        println!("in CI (CI is set) a skipped test is a failure");
    }
    println!("{sum}");
    if sum.failed > 0 || skips_fail { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Whether this is a continuous integration run, by the variable that they all set.
fn is_ci() -> bool {
    env::var("CI").is_ok_and(|value| !matches!(value.as_str(), "" | "0" | "false"))
}

/// A check that passes or fails as a whole.
fn check(result: Result<()>) -> Result<Tally> {
    result.map(|()| Tally::PASSED)
}

fn format() -> Result<Tally> {
    let mut tally = Tally::default();
    let workspace = run_step("cargo fmt --check", process::cargo().args(["fmt", "--check"]));
    for result in [workspace, ebpf::format()] {
        tally += result.map_or_else(
            |error| {
                println!("FAILED: {error:#}");
                Tally::FAILED
            },
            |()| Tally::PASSED,
        );
    }
    Ok(tally)
}

fn clippy() -> Result<Tally> {
    let mut command = process::cargo();
    command.args(["clippy", "--workspace", "--all-targets", "--locked", "--", "-Dwarnings"]);
    check(run_step("cargo clippy", &mut command))
}

fn doc() -> Result<Tally> {
    let mut command = process::cargo();
    command.args(["test", "--doc", "--workspace", "--locked"]);
    check(run_step("cargo test --doc", &mut command))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_are_chosen_by_name() {
        let wanted = |only: &[&str], skip: &[&str]| {
            let owned = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
            let args = TestArgs { only: owned(only), skip: owned(skip), all: false };
            PHASES.iter().filter(|p| args.wants(p)).map(|p| p.name).collect::<Vec<_>>()
        };
        assert_eq!(wanted(&["unit"], &[]), ["unit"]);
        assert_eq!(wanted(&["vm"], &[]), ["vm"]);
        assert_eq!(wanted(&[], &[]).len(), PHASES.len());
        let rest = wanted(&[], &["privileged", "leftovers"]);
        assert!(rest.len() == PHASES.len() - 2 && !rest.contains(&"privileged"));
    }

    #[test]
    fn skipped_tests_fail_in_ci_only() {
        let time = Duration::from_secs(1);
        let skipped = [("unit", Tally { passed: 3, failed: 0, skipped: 1 }, time)];
        assert_eq!(conclude(&skipped, time, false), ExitCode::SUCCESS);
        assert_eq!(conclude(&skipped, time, true), ExitCode::FAILURE);
        let good = [("unit", Tally { passed: 3, failed: 0, skipped: 0 }, time)];
        assert_eq!(conclude(&good, time, true), ExitCode::SUCCESS);
        let bad = [("unit", Tally::PASSED, time), ("doc", Tally::FAILED, time)];
        assert_eq!(conclude(&bad, time, false), ExitCode::FAILURE);
    }
}
