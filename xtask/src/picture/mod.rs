//! `cargo xtask picture`: the live view of a real run, as the picture that the README shows.

mod svg;

use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::demo::DemoLab;
use crate::machine::Machine;
use crate::process::{self, check_interrupt, output_of};
use crate::ui::section;
use crate::{podtrace, setup};

/// The picture's own lab.
const LAB: &str = "picture";
/// What is broken while it is watched.
const FAULT: &str = "fdb-missing";
/// Where the picture goes, from the workspace.
const PICTURE: &str = "docs/images/live-view.svg";
/// Columns and rows of the screen.
const SIZE: (u16, u16) = (100, 24);
/// Long enough for anything that happens at all on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Builds, brings a lab up, watches it in tmux, breaks it, and keeps what the screen shows then.
///
/// # Errors
/// When something is missing, a step fails, or the screen does not show what was done. The lab is
/// down in any case.
pub fn run(machine: &Machine) -> Result<()> {
    setup::need_root(machine, "cargo xtask picture")?;
    process::catch_signals()?;
    section("Build podtrace");
    let binary = podtrace::build(machine, false)?;
    let lab = DemoLab::up(&binary, LAB)?;
    section("Watch it in tmux, and break it");
    let screen = Screen::start(&binary, &lab.inventory())?;
    screen.wait_for("DELIVERED")?;
    lab.succeed("fault", &[FAULT])?;
    // All that is looked at was sent after the fault.
    screen.wait_for("100%")?;
    screen.wait_for("DROPPED")?;
    let captured = screen.capture(true)?;
    drop(screen);
    lab.down()?;

    let path = process::workspace().join(PICTURE);
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)
            .with_context(|| format!("make {}", directory.display()))?;
    }
    let title = "podtrace --src A.a --dst B.b --probe --tui";
    std::fs::write(&path, svg::draw(&captured, title, SIZE))
        .with_context(|| format!("write {}", path.display()))?;
    println!("picture: {}", path.display());
    Ok(())
}

/// A terminal with podtrace in it; gone when dropped.
struct Screen {
    socket: String,
}

impl Screen {
    fn start(binary: &Path, inventory: &str) -> Result<Self> {
        let screen = Self { socket: format!("podtrace-picture-{}", std::process::id()) };
        let mut command = screen.tmux();
        command
            .args(["-f", "/dev/null", "new-session", "-d"])
            .args(["-x", &SIZE.0.to_string(), "-y", &SIZE.1.to_string()])
            .arg(binary)
            .args(["--src", "A.a", "--dst", "B.b", "--probe", "--tui", "--color", "always"])
            .args(["--inventory", inventory])
            .env("PATH", process::path_with_sbin());
        output_of(&mut command)?;
        Ok(screen)
    }

    /// tmux with a server of its own.
    fn tmux(&self) -> Command {
        let mut command = Command::new("tmux");
        command.env("LC_ALL", "C.UTF-8").env_remove("TMUX").args(["-u", "-L", &self.socket]);
        command
    }

    /// What is on the screen, with colours or without.
    fn capture(&self, colors: bool) -> Result<String> {
        let mut command = self.tmux();
        command.args(["capture-pane", "-p"]);
        if colors {
            command.arg("-e");
        }
        Ok(String::from_utf8_lossy(&output_of(&mut command)?).into_owned())
    }

    fn wait_for(&self, text: &str) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let shown = self.capture(false)?;
            if shown.contains(text) {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("the screen does not show {text:?}:\n{shown}");
            }
            check_interrupt()?;
            thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.tmux().arg("kill-server").stderr(Stdio::null()).status();
    }
}
