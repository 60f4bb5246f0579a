//! Named network namespaces as iproute2 makes them, so that `ip netns` sees ours and we see its.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::sys::statfs::{NSFS_MAGIC, statfs};
use nix::unistd::Pid;

use super::error::{Context, Result};
use crate::netns::{Guard, NETNS_DIR, Netns};

/// How long a process inside a namespace has to end after SIGTERM, and again after SIGKILL.
const END_PATIENCE: Duration = Duration::from_millis(500);
/// How often processes that should end are looked at.
const END_POLL: Duration = Duration::from_millis(5);

/// Where `name` is mounted.
fn path_of(name: &str) -> PathBuf {
    Path::new(NETNS_DIR).join(name)
}

/// Whether a namespace of this name exists (a plain file left by an interrupted creation is none).
pub(super) fn exists(name: &str) -> bool {
    statfs(&path_of(name)).is_ok_and(|fs| fs.filesystem_type() == NSFS_MAGIC)
}

/// Makes namespace `name` and runs `inside` in it while the calling thread is there anyway.
///
/// Changes the calling thread's namespace for that time: only for threads of the lab's own.
pub(super) fn create<T>(name: &str, inside: impl FnOnce() -> Result<T>) -> Result<(Netns, T)> {
    prepare_directory().context(|| format!("prepare {NETNS_DIR}"))?;
    let path = path_of(name);
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o444)
        .open(&path)
        .context(|| format!("create {}", path.display()))?;
    let home = Netns::current().context(|| "find the own network namespace")?;
    // The guard leads home from the new namespace too.
    let _home = Guard::enter(&home).context(|| "enter the own network namespace")?;
    unshare(CloneFlags::CLONE_NEWNET).context(|| "make a network namespace")?;
    mount(Some("/proc/thread-self/ns/net"), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .context(|| format!("mount a network namespace on {}", path.display()))?;
    let netns = Netns::open(name).context(|| format!("open namespace {name}"))?;
    let value = inside()?;
    Ok((netns, value))
}

/// Removes the name and the mount behind it; nothing happens when there is none. The namespace
/// itself lives on while something holds it.
pub(super) fn remove(name: &str) -> Result<()> {
    let path = path_of(name);
    // An interrupted creation may have mounted nothing, and a careless one twice.
    while exists(name) {
        umount2(&path, MntFlags::MNT_DETACH).context(|| format!("unmount {}", path.display()))?;
    }
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Makes `/run/netns` a shared mount, so that namespaces appear in (and vanish from) every mount
/// namespace that was cloned from this one. As iproute2 (ip/ipnetns.c, `netns_add`) does it, with
/// its lock, so that two processes do not mount twice.
fn prepare_directory() -> io::Result<()> {
    fs::create_dir_all(NETNS_DIR)?;
    let _lock = Flock::lock(File::open(NETNS_DIR)?, FlockArg::LockExclusive)
        .map_err(|(_, errno)| io::Error::from(errno))?;
    let share = || {
        mount(
            None::<&str>,
            NETNS_DIR,
            None::<&str>,
            MsFlags::MS_SHARED | MsFlags::MS_REC,
            None::<&str>,
        )
    };
    match share() {
        // Not a mount point yet.
        Err(nix::Error::EINVAL) => {
            mount(
                Some(NETNS_DIR),
                NETNS_DIR,
                None::<&str>,
                MsFlags::MS_BIND | MsFlags::MS_REC,
                None::<&str>,
            )?;
            share()?;
        }
        result => result?,
    }
    Ok(())
}

/// Ends every process whose main thread is in one of these namespaces and says how many there
/// were: a server left running in a pod would keep the pod's namespace alive without a name.
pub(super) fn end_processes(names: &[&str]) -> Result<usize> {
    let own = Netns::current().context(|| "find the own network namespace")?;
    let inums: Vec<u64> = names
        .iter()
        .filter(|name| exists(name))
        .filter_map(|name| Netns::open(name).ok())
        // Whoever bind-mounted the machine's own namespace here must not lose the machine.
        .filter(|netns| netns.inum() != own.inum())
        .map(|netns| u64::from(netns.inum()))
        .collect();
    if inums.is_empty() {
        return Ok(0);
    }
    let mut ended = Vec::new();
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let deadline = Instant::now() + END_PATIENCE;
        let mut signalled = Vec::new();
        loop {
            let running = processes_in(&inums).context(|| "list processes")?;
            if running.is_empty() {
                return Ok(ended.len());
            }
            for pid in running {
                if !signalled.contains(&pid) {
                    // It may have ended by itself since.
                    let _ = kill(Pid::from_raw(pid), signal);
                    signalled.push(pid);
                }
                if !ended.contains(&pid) {
                    ended.push(pid);
                }
            }
            if Instant::now() >= deadline {
                break;
            }
            std::thread::sleep(END_POLL);
        }
    }
    // What does not even end on SIGKILL hangs in the kernel; the names can be removed all the same.
    Ok(ended.len())
}

/// Whether a process is in one of these namespaces. One that ends meanwhile, and a zombie, have none
/// any more.
pub(super) fn is_in(pid: i32, inums: &[u64]) -> bool {
    fs::metadata(format!("/proc/{pid}/ns/net"))
        .is_ok_and(|metadata| inums.contains(&metadata.ino()))
}

fn processes_in(inums: &[u64]) -> io::Result<Vec<i32>> {
    let own = i32::try_from(std::process::id()).unwrap_or(i32::MAX);
    let mut pids = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        if is_in(pid, inums) && pid != own {
            pids.push(pid);
        }
    }
    Ok(pids)
}
