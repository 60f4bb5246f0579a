//! Runs the steps of faults.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::super::error::{Context, LabError, Result};
use super::super::{Lab, namespace};
use crate::netns::Netns;

/// Forgets learned neighbours, forwarding entries and routes. Each may be missing in a kernel or a
/// version of iproute2.
const SETTLE: &str = r#"
ip neigh flush all
ip -6 neigh flush all
for bridge in /sys/class/net/*/bridge; do
    [ ! -d "$bridge" ] || { bridge=${bridge%/bridge}; bridge fdb flush dev "${bridge##*/}" nopermanent; }
done
ip route flush cache
ip -6 route flush cache
true
"#;

/// Runs a command of a step.
pub(super) fn step(lab: &Lab, target: &str, command: &str) -> Result<()> {
    let output = lab.exec(target, &["sh", "-ec", command])?;
    if output.status.success() {
        return Ok(());
    }
    let text = [output.stderr, output.stdout].concat();
    let text = String::from_utf8_lossy(&text);
    let message = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let message = if message.is_empty() { output.status.to_string() } else { message };
    Err(LabError::Program { program: command.to_owned(), netns: target.to_owned(), message })
}

/// Forgets what traffic has taught.
pub(super) fn settle(lab: &Lab, target: &str) -> Result<()> {
    lab.exec(target, &["sh", "-c", SETTLE]).map(drop)
}

/// Starts a command that runs while the fault lasts; returns its process.
pub(super) fn background(lab: &Lab, target: &str, command: &str) -> Result<u32> {
    let mut sh = Command::new("sh");
    sh.args(["-c", &format!("exec {command}")]);
    sh.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    Ok(lab.spawn(target, &mut sh)?.id())
}

/// Starts a server and waits until it serves; returns its process.
pub(super) fn server(
    lab: &Lab,
    program: Option<&Path>,
    target: &str,
    arguments: &[String],
) -> Result<u32> {
    let own = std::env::current_exe().context(|| "find the own program")?;
    let mut command = Command::new(program.unwrap_or(&own));
    command.args(["lab", "serve"]).args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = lab.spawn(target, &mut command)?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut line).context(|| "wait for a server")?;
    }
    if line.trim_end() == super::serve::READY {
        return Ok(child.id());
    }
    let output = child.wait_with_output().context(|| "wait for a server")?;
    Err(LabError::Program {
        program: format!("podtrace lab serve {}", arguments.join(" ")),
        netns: target.to_owned(),
        message: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

/// Ends those of the processes that are still in the lab: a number may be another's by now.
pub(super) fn end(lab: &Lab, processes: &[u32]) {
    let namespaces = lab.plan().namespaces();
    let inums: Vec<u64> = namespaces
        .into_iter()
        .filter(|name| namespace::exists(name))
        .filter_map(|name| Netns::open(name).ok())
        .map(|netns| u64::from(netns.inum()))
        .collect();
    for pid in processes {
        if let Ok(pid) = i32::try_from(*pid)
            && namespace::is_in(pid, &inums)
        {
            // It may have ended by itself since.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}
