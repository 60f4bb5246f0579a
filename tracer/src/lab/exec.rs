//! Runs programs inside a lab's namespaces.

use std::convert::Infallible;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Output, Stdio};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use super::error::{Context, LabError, Result};
use crate::netns::{Guard, Netns};

/// Starts `command` inside; its standard streams are as the caller set them.
pub(super) fn spawn(netns: &Netns, command: &mut Command) -> Result<Child> {
    let program = command.get_program().to_string_lossy().into_owned();
    // On a thread of its own, which may give up its mount namespace; a child gets both of the
    // thread that starts it.
    let spawned = netns
        .run(|| {
            private_sysfs()?;
            command.spawn()
        })
        .context(|| format!("enter {}", netns.name()))?;
    spawned.context(|| format!("start {program} in {}", netns.name()))
}

/// Runs `argv` inside, without input, and waits for what it writes.
pub(super) fn output(netns: &Netns, argv: &[OsString]) -> Result<Output> {
    let mut command = command(argv)?;
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = spawn(netns, &mut command)?;
    child.wait_with_output().context(|| format!("wait for a program in {}", netns.name()))
}

/// Becomes `argv` inside: terminal, signals and exit status are then its own. Returns only when it
/// cannot.
pub(super) fn replace(netns: &Netns, argv: &[OsString]) -> LabError {
    let mut command = match command(argv) {
        Ok(command) => command,
        Err(error) => return error,
    };
    let source = match exec_inside(netns, &mut command) {
        Ok(never) => match never {},
        Err(error) => error,
    };
    LabError::Io {
        action: format!("run {} in {}", command.get_program().to_string_lossy(), netns.name()),
        source,
    }
}

fn exec_inside(netns: &Netns, command: &mut Command) -> io::Result<Infallible> {
    let _inside = Guard::enter(netns)?;
    private_sysfs()?;
    Err(command.exec())
}

fn command(argv: &[OsString]) -> Result<Command> {
    let Some((program, arguments)) = argv.split_first() else {
        return Err(LabError::Config("no command to run".to_owned()));
    };
    let mut command = Command::new(program);
    command.args(arguments);
    Ok(command)
}

/// Gives the calling thread a /sys that shows the interfaces of its network namespace, as
/// ip-netns(8) does. Programs that ask the kernel directly do without; where mounting is forbidden
/// (in a container) they must.
fn private_sysfs() -> io::Result<()> {
    match unshare(CloneFlags::CLONE_NEWNS) {
        Err(nix::Error::EPERM) => return Ok(()),
        result => result?,
    }
    // What is mounted here must not appear outside; what is mounted outside may appear here.
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_SLAVE | MsFlags::MS_REC, None::<&str>)?;
    // Nothing may be mounted there.
    let _ = umount2("/sys", MntFlags::MNT_DETACH);
    match mount(Some("podtrace"), "/sys", Some("sysfs"), MsFlags::empty(), None::<&str>) {
        Ok(()) | Err(nix::Error::EPERM | nix::Error::EBUSY) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
