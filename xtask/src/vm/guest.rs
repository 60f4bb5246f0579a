//! What runs inside the guest: this program is its init (process 1).
//!
//! It mounts what programs expect, runs the plan's steps one after the other with their output on
//! the second serial port, and switches the machine off. The first serial port is the kernel's.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::plan::{self, MARK, Plan, Step};

/// Where the plan's programs write.
const OUTPUT: &str = "/dev/ttyS1";

/// Type, and where. Not all are there on every kernel.
const MOUNTS: [(&str, &str); 9] = [
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("tmpfs", "/run"),
    ("tmpfs", "/tmp"),
    ("tracefs", "/sys/kernel/tracing"),
    ("debugfs", "/sys/kernel/debug"),
    ("bpf", "/sys/fs/bpf"),
    ("cgroup2", "/sys/fs/cgroup"),
];

/// Never returns: the end of process 1 would be a kernel panic.
pub fn main() -> ! {
    if let Err(error) = run() {
        eprintln!("init: {error:#}");
        if let Ok(mut output) = output() {
            // There is nobody else to tell.
            let _ = writeln!(output, "\n{MARK}failed {error:#}");
        }
    }
    // Closing a serial port waits until everything is written; then nothing is lost here.
    if let Err(error) = fs::write("/proc/sysrq-trigger", "o") {
        eprintln!("init: cannot switch off: {error}");
    }
    loop {
        thread::sleep(Duration::from_secs(1));
    }
}

fn output() -> Result<File> {
    fs::OpenOptions::new().write(true).open(OUTPUT).with_context(|| format!("open {OUTPUT}"))
}

fn run() -> Result<()> {
    for (kind, place) in MOUNTS {
        let mounted = fs::create_dir_all(place).map_err(anyhow::Error::from).and_then(|()| {
            Ok(mount(Some(kind), place, Some(kind), MsFlags::empty(), None::<&str>)?)
        });
        if let Err(error) = mounted {
            eprintln!("init: {kind} at {place}: {error}");
        }
    }
    let text = fs::read(plan::FILE).with_context(|| format!("read {}", plan::FILE))?;
    let plan: Plan = serde_json::from_slice(&text).context("understand the plan")?;
    let command_line = fs::read_to_string("/proc/cmdline").context("read /proc/cmdline")?;
    let value = |name| command_line.split_whitespace().find_map(|word| word.strip_prefix(name));
    let role = value(plan::ROLE).context("the command line names no role")?;
    let steps = plan.roles.get(role).with_context(|| format!("the plan has no role {role}"))?;
    if let Some(drift) = value(plan::DRIFT) {
        set_drift(drift.parse().context("the drift")?)?;
    }
    let mut up = Command::new("ip");
    let _ = environment(&mut up).args(["link", "set", "lo", "up"]).status();
    say("ready")?;
    for step in steps {
        say(&format!("begin {}", step.name))?;
        let end = match execute(step) {
            Ok(Some(status)) => {
                status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)).to_string()
            }
            Ok(None) => "late".to_owned(),
            Err(error) => format!("{error:#}"),
        };
        say(&format!("end {end}"))?;
    }
    say("done")
}

/// Lets all clocks of this machine run too fast, by millionths.
fn set_drift(ppm: i32) -> Result<()> {
    // SAFETY: the structure is made of integers only; zero is a value of each.
    let mut request: libc::timex = unsafe { std::mem::zeroed() };
    request.modes = libc::ADJ_FREQUENCY;
    // In millionths with 16 binary digits after the point (adjtimex(2)).
    request.freq = libc::c_long::from(ppm) << 16;
    // SAFETY: the structure lives until the call returns.
    if unsafe { libc::adjtimex(&raw mut request) } < 0 {
        return Err(std::io::Error::last_os_error()).context("set the clock's frequency");
    }
    Ok(())
}

fn say(what: &str) -> Result<()> {
    // On a line of its own, whatever a program left unfinished.
    writeln!(output()?, "\n{MARK}{what}").with_context(|| format!("write to {OUTPUT}"))
}

fn environment(command: &mut Command) -> &mut Command {
    command
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", "/root")
        .env("LANG", "C.UTF-8")
        .env("PODTRACE_PRIVILEGED", "1")
        .current_dir("/")
        .stdin(Stdio::null())
}

/// Runs a step to its end; `None` when it took too long and was killed. What it left running goes
/// with it.
fn execute(step: &Step) -> Result<Option<ExitStatus>> {
    let output = output()?;
    let mut command = Command::new(&step.program);
    environment(&mut command)
        .args(&step.arguments)
        .stdout(output.try_clone().context("copy a descriptor")?)
        .stderr(output)
        .process_group(0);
    let child = command.spawn().with_context(|| format!("start {}", step.program.display()))?;
    let id = Pid::from_raw(i32::try_from(child.id()).context("a process id")?);
    let deadline = Instant::now() + Duration::from_secs(step.seconds);
    let mut status = None;
    while status.is_none() && Instant::now() < deadline {
        // Init inherits every orphan and must wait for it.
        match waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) if pid == id => {
                status = Some(ExitStatus::from_raw(code << 8));
            }
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == id => {
                status = Some(ExitStatus::from_raw(signal as i32));
            }
            Ok(WaitStatus::StillAlive) | Err(_) => thread::sleep(Duration::from_millis(20)),
            Ok(_) => {}
        }
    }
    // All but init itself; there may be nobody.
    let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
    while matches!(waitpid(None::<Pid>, None), Ok(status) if status != WaitStatus::StillAlive) {}
    Ok(status)
}

/// Whether this process is a guest's init.
pub fn is_init() -> bool {
    std::process::id() == 1 && Path::new(plan::FILE).exists()
}
