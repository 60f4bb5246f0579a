//! Builds podtrace whole, and runs it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use crate::machine::Machine;
use crate::process::{self, path_with_sbin, run_shown, target_dir};
use crate::{ebpf, setup};

/// Sets up, builds the eBPF programs and podtrace, and says where it is.
///
/// # Errors
/// When something is missing or does not compile.
pub fn build(machine: &Machine, release: bool) -> Result<PathBuf> {
    setup::run(machine)?;
    ebpf::build(machine)?;
    let mut command = process::cargo();
    command.args(["build", "--package", "podtrace"]);
    if release {
        command.arg("--release");
    }
    // Cargo shows its own progress.
    let status = run_shown(&mut command)?;
    if !status.success() {
        bail!("`cargo build` failed ({status})");
    }
    Ok(target_dir().join(if release { "release" } else { "debug" }).join("podtrace"))
}

/// podtrace, to be given arguments.
pub fn command(binary: &Path) -> Command {
    let mut command = Command::new(binary);
    command.env("PATH", path_with_sbin());
    command
}
