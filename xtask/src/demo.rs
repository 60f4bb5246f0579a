//! `cargo xtask demo`: from a checkout to a packet's whole way on the screen, with one command.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Instant;

use anyhow::{Result, bail};

use crate::machine::Machine;
use crate::process::{self, run_shown};
use crate::ui::{seconds, section};
use crate::{podtrace, setup};

/// The demo's own lab: one that somebody works with stays as it is.
const LAB: &str = "demo";
/// podtrace's exit status when packets were not delivered.
const NOT_DELIVERED: i32 = 3;

/// Sets up, builds, brings a lab up, traces it healthy and broken, and takes it down.
///
/// # Errors
/// When something is missing that cannot be installed here, when a step fails, or when what
/// podtrace finds is not what was done to the lab. The lab is down in any case.
pub fn run(machine: &Machine) -> Result<()> {
    setup::need_root(machine, "cargo xtask demo")?;
    process::catch_signals()?;
    let began = Instant::now();
    section("Build podtrace");
    let binary = podtrace::build(machine, false)?;

    let lab = DemoLab::up(&binary, LAB)?;
    section("A ping from pod a on node A to pod b on node B");
    let healthy = lab.trace()?;
    if !healthy.success() {
        bail!("a healthy lab should deliver: podtrace ended with {healthy}");
    }

    section("The same with a fault: node A loses its tunnel's forwarding entry for node B");
    lab.succeed("fault", &["fdb-missing"])?;
    let broken = lab.trace()?;
    if broken.code() != Some(NOT_DELIVERED) {
        bail!("a broken lab should not deliver: podtrace ended with {broken}");
    }
    lab.down()?;

    section(&format!("That took {}", seconds(began.elapsed())));
    let podtrace = binary.strip_prefix(process::workspace()).unwrap_or(&binary).display();
    println!("To go on by yourself:");
    println!("  {podtrace} lab up");
    println!("  {podtrace} --src A.a --dst B.b --probe");
    println!("  {podtrace} lab fault list");
    Ok(())
}

/// A lab that goes away with this value, also after a failure or Ctrl-C.
#[derive(Debug)]
pub struct DemoLab {
    binary: PathBuf,
    name: &'static str,
    is_up: bool,
}

impl DemoLab {
    /// Brings it up.
    ///
    /// # Errors
    /// When that fails.
    pub fn up(binary: &Path, name: &'static str) -> Result<Self> {
        section("Two nodes with two pods each, joined as flannel does it");
        // Also half of it must go.
        let lab = Self { binary: binary.to_owned(), name, is_up: true };
        for command in [lab.lab("up"), lab.lab("status")] {
            succeed(command)?;
        }
        Ok(lab)
    }

    fn lab(&self, verb: &str) -> Command {
        let mut command = podtrace::command(&self.binary);
        command.args(["lab", verb, "--name", self.name]);
        command
    }

    /// Runs `podtrace lab VERB` with further arguments.
    ///
    /// # Errors
    /// When it fails.
    pub fn succeed(&self, verb: &str, arguments: &[&str]) -> Result<()> {
        let mut command = self.lab(verb);
        command.args(arguments);
        succeed(command)
    }

    /// Where its inventory is.
    pub fn inventory(&self) -> String {
        format!("/run/podtrace/{}/inventory.toml", self.name)
    }

    fn trace(&self) -> Result<ExitStatus> {
        let mut command = podtrace::command(&self.binary);
        command.args(["--src", "A.a", "--dst", "B.b", "--probe", "--inventory", &self.inventory()]);
        shown(&mut command)
    }

    /// Takes it down.
    ///
    /// # Errors
    /// When that fails.
    pub fn down(mut self) -> Result<()> {
        self.is_up = false;
        succeed(self.lab("down"))
    }
}

impl Drop for DemoLab {
    fn drop(&mut self) {
        if !self.is_up {
            return;
        }
        process::forget_interrupt();
        // A second Ctrl-C shall not stop it halfway.
        if let Err(error) = succeed({
            let mut command = self.lab("down");
            command.process_group(0);
            command
        }) {
            eprintln!("xtask: {error:#}");
        }
    }
}

/// Shows the command as a person would type it, and runs it.
fn shown(command: &mut Command) -> Result<ExitStatus> {
    let name = Path::new(command.get_program()).file_name().unwrap_or_default().to_owned();
    let line = process::line(command);
    let arguments = line.split_once(' ').map_or("", |(_, rest)| rest);
    println!("$ {} {arguments}", name.display());
    run_shown(command)
}

fn succeed(mut command: Command) -> Result<()> {
    let status = shown(&mut command)?;
    if !status.success() {
        bail!("`{}` failed ({status})", process::line(&command));
    }
    Ok(())
}
