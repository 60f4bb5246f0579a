//! Fuzzes what takes text and bytes from strangers, for a short time.
//!
//! The targets are those of `cargo fuzz` (directory `fuzz`), built here without it and without a nightly
//! compiler: the coverage passes are in every rustc, only the sanitizers are not. Only podtrace's own
//! crate is instrumented, by a wrapper around rustc that adds the options for it alone, so that the
//! dependencies are those of the other phases and need not be compiled again.

use std::env;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result};

use super::Tally;
use crate::process::{self, run_step, target_dir, workspace};

/// Fuzz targets; the programs are called `fuzz_` and so.
const TARGETS: [&str; 4] = ["recording", "packet", "inventory", "tools"];
/// Each runs for so long, seconds.
const TIME: u32 = 6;
/// An input that takes longer than this is a failure, seconds: unoptimised, on a busy machine.
const HANGS: u32 = 60;
/// Memory that a target may take, MiB: more than any bound of a reader allows.
const MEMORY: u32 = 2048;
/// Says to this program that it stands in for rustc.
const AS_WRAPPER: &str = "PODTRACE_XTASK_RUSTC";
/// What libFuzzer needs to see where an input leads.
const COVERAGE: [&str; 8] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cdebug-assertions=on",
    "-Coverflow-checks=on",
    "--cfg=fuzzing",
];

/// Where Cargo has started this program instead of rustc: does rustc's work.
pub fn as_rustc() -> Option<ExitCode> {
    env::var_os(AS_WRAPPER)?;
    let mut arguments = env::args_os().skip(1);
    let mut rustc = Command::new(arguments.next()?);
    let arguments: Vec<_> = arguments.collect();
    let instrumented = arguments.windows(2).any(|pair| {
        pair[0] == "--crate-name"
            && pair[1].to_str().is_some_and(|name| name == "tracer" || name.starts_with("fuzz_"))
    });
    rustc.args(arguments);
    if instrumented {
        rustc.args(COVERAGE);
    }
    match rustc.status() {
        Ok(status) if status.success() => Some(ExitCode::SUCCESS),
        Ok(_) => Some(ExitCode::FAILURE),
        Err(error) => {
            eprintln!("xtask: start rustc: {error}");
            Some(ExitCode::FAILURE)
        }
    }
}

/// Builds the targets and runs each for a short time.
pub(super) fn phase() -> Result<Tally> {
    let mut build = process::cargo();
    build
        .args(["build", "--locked", "--bins", "--manifest-path"])
        .arg(workspace().join("fuzz/Cargo.toml"))
        .arg("--target-dir")
        .arg(target_dir())
        .env("RUSTC_WRAPPER", env::current_exe().context("the path of this program")?)
        .env(AS_WRAPPER, "1");
    run_step("build the fuzz targets", &mut build)?;
    let directory = target_dir().join("fuzz");
    let mut tally = Tally::default();
    for target in TARGETS {
        tally += fuzz(target, &directory).map_or_else(
            |error| {
                println!("FAILED: {error:#}");
                println!("an input that fails is below {}", directory.display());
                Tally::FAILED
            },
            |()| Tally::PASSED,
        );
    }
    Ok(tally)
}

fn fuzz(target: &str, directory: &Path) -> Result<()> {
    // New inputs go into the first directory; those in the repository stay as they are.
    let found = directory.join(target);
    fs::create_dir_all(&found)
        .with_context(|| format!("make the directory {}", found.display()))?;
    let mut command = Command::new(target_dir().join(format!("debug/fuzz_{target}")));
    command
        .arg(&found)
        .arg(workspace().join("fuzz/corpus").join(target))
        .arg(format!("-artifact_prefix={}/{target}-", directory.display()))
        .arg(format!("-max_total_time={TIME}"))
        .arg(format!("-timeout={HANGS}"))
        .arg(format!("-rss_limit_mb={MEMORY}"))
        .args(["-max_len=40000", "-verbosity=0", "-close_fd_mask=1"]);
    run_step(&format!("fuzz {target} for {TIME} s"), &mut command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_of_the_manifest_is_run_and_has_seeds() {
        let fuzz = workspace().join("fuzz");
        let manifest = fs::read_to_string(fuzz.join("Cargo.toml")).unwrap();
        assert_eq!(manifest.matches("[[bin]]").count(), TARGETS.len());
        for target in TARGETS {
            assert!(manifest.contains(&format!("name = \"fuzz_{target}\"")), "{target}");
            let seeds = fs::read_dir(fuzz.join("corpus").join(target)).unwrap();
            assert!(seeds.count() > 0, "{target}");
        }
    }
}
