//! The process that serves in a running lab: started with it, found again, ended with it.
//!
//! One process for all servers: its main thread is in the outside host's namespace, where
//! [`Lab::down`](super::Lab::down) ends whatever is left, and its sockets are where they serve.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::error::{Context, LabError, Result};
use super::fault::serve::READY;
use super::plan::{OUTSIDE, Plan};
use super::{Lab, namespace, state};
use crate::netns::Netns;

/// How long it has to end.
const END_PATIENCE: Duration = Duration::from_millis(500);
/// How often it is looked at meanwhile.
const END_POLL: Duration = Duration::from_millis(2);

/// The record of the process.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Servers {
    pid: i32,
    /// The program that it runs.
    program: PathBuf,
}

fn path(lab: &str) -> PathBuf {
    state::directory(lab).join(state::SERVERS_FILE)
}

/// What the record says; `None` when there is none, or none that can be read.
fn load(lab: &str) -> Option<Servers> {
    toml::from_str(&fs::read_to_string(path(lab)).ok()?).ok()
}

/// Starts the process unless it runs. `program` is the `podtrace` to run: by default the one that
/// ran before, else this one.
pub(super) fn ensure(lab: &Lab, program: Option<&Path>) -> Result<()> {
    let name = &lab.config().name;
    if is_running(name, lab.plan()) {
        return Ok(());
    }
    let program = match (program, load(name)) {
        (Some(program), _) => program.to_owned(),
        (None, Some(before)) => before.program,
        (None, None) => std::env::current_exe().context(|| "find the own program")?,
    };
    let mut command = Command::new(&program);
    command.args(["lab", "serve", "lab", name.as_str()]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = lab.spawn(OUTSIDE, &mut command)?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut line).context(|| "wait for the lab's servers")?;
    }
    if line.trim_end() != READY {
        let output = child.wait_with_output().context(|| "wait for the lab's servers")?;
        return Err(LabError::Program {
            program: format!("podtrace lab serve lab {name}"),
            netns: lab.plan().outside.netns.clone(),
            message: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        });
    }
    let pid = i32::try_from(child.id()).unwrap_or_default();
    let text = toml::to_string(&Servers { pid, program })
        .map_err(std::io::Error::other)
        .context(|| "write the record of the lab's servers")?;
    state::write(&path(name), &text)
}

/// Whether the process is there: one of its number, in the outside host's namespace.
pub(super) fn is_running(lab: &str, plan: &Plan) -> bool {
    load(lab).is_some_and(|servers| is_there(&servers, plan))
}

fn is_there(servers: &Servers, plan: &Plan) -> bool {
    let netns = Netns::open(&plan.outside.netns);
    netns.is_ok_and(|netns| namespace::is_in(servers.pid, &[u64::from(netns.inum())]))
}

/// Ends the process.
pub(super) fn end(lab: &str, plan: &Plan) {
    let Some(servers) = load(lab) else { return };
    let until = Instant::now() + END_PATIENCE;
    while is_there(&servers, plan) && Instant::now() < until {
        // It keeps nothing that it would have to put away, and may have ended by itself since.
        let _ = kill(Pid::from_raw(servers.pid), Signal::SIGKILL);
        std::thread::sleep(END_POLL);
    }
}
