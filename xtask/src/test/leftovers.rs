//! What tests must not leave on the machine: processes, namespaces, labs' files, eBPF programs.
//!
//! Others may be at work on the same machine, so each test program of a run gets the run's name in
//! its environment, from where its children and the names of its labs have it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Deserialize;

use super::Tally;
use crate::process::path_with_sbin;

/// Says to a test which run it belongs to: the first part of the names of its labs.
const RUN: &str = "PODTRACE_TEST_RUN";
/// Where named network namespaces are.
const NETNS: &str = "/run/netns";
/// Where labs keep their files.
const LABS: &str = "/run/podtrace";
/// How the names of podtrace's eBPF programs begin (tracer-ebpf/src/main.rs).
const PROGRAMS: [&str; 3] = ["hop_in_", "hop_out_", "packet_dropped"];
/// The kernel frees programs and namespaces a little after their last user has gone.
const PATIENCE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(100);

/// Finds what a test run leaves.
#[derive(Debug)]
pub struct Leftovers {
    run: String,
    /// eBPF programs that were there before, by id.
    programs: BTreeSet<u32>,
}

impl Leftovers {
    /// Takes note of what is there before the tests.
    pub fn before() -> Self {
        let programs = own_programs().map(|all| all.into_keys().collect()).unwrap_or_default();
        Self { run: format!("t{}", std::process::id()), programs }
    }

    /// Makes a test program, and what it starts, recognisable.
    pub fn mark(&self, command: &mut Command) {
        command.env(RUN, &self.run);
    }

    /// Fails when something is left, and removes it.
    ///
    /// # Errors
    /// When it cannot be found out.
    pub fn check(&self) -> Result<Tally> {
        let deadline = Instant::now() + PATIENCE;
        let mut found = self.find()?;
        while !found.is_empty() && Instant::now() < deadline {
            thread::sleep(POLL);
            found.retain(|item| self.find().is_ok_and(|now| now.contains(item)));
        }
        for item in &found {
            println!("left behind: {item}");
        }
        self.remove();
        Ok(if found.is_empty() { Tally::PASSED } else { Tally::FAILED })
    }

    fn find(&self) -> Result<BTreeSet<String>> {
        let mut found: BTreeSet<String> = self
            .processes()
            .into_iter()
            .map(|pid| format!("process {pid} ({})", command_line(pid)))
            .collect();
        found.extend(self.files().iter().map(|path| path.display().to_string()));
        let programs = own_programs()?;
        if programs.keys().any(|id| !self.programs.contains(id)) {
            // Somebody's running podtrace holds its programs.
            let held = held_programs();
            let left =
                programs.iter().filter(|(id, _)| !self.programs.contains(id) && !held.contains(id));
            found.extend(
                left.map(|(id, name)| format!("eBPF program {name} (id {id}), held by no process")),
            );
        }
        Ok(found)
    }

    /// Ends processes of the run and removes its namespaces and files.
    pub fn remove(&self) {
        for pid in self.processes() {
            // It may have ended meanwhile.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        for path in self.files() {
            if path.starts_with(NETNS) {
                // Not a mount when its making was interrupted; then it is just a file.
                let _ = nix::mount::umount2(&path, nix::mount::MntFlags::MNT_DETACH);
            }
            let _ = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        }
    }

    /// Processes that the run's tests have started and not ended.
    fn processes(&self) -> Vec<i32> {
        let mark = format!("{RUN}={}", self.run);
        let marked = |pid: &i32| {
            fs::read(format!("/proc/{pid}/environ"))
                .is_ok_and(|e| e.split(|b| *b == 0).any(|variable| variable == mark.as_bytes()))
        };
        pids().filter(marked).collect()
    }

    /// Names of namespaces, and files of labs, that are the run's.
    fn files(&self) -> Vec<PathBuf> {
        let names = [format!("podtrace-{}-", self.run), format!("{}-", self.run)];
        [NETNS, LABS]
            .iter()
            .flat_map(|dir| entries(Path::new(dir)))
            .filter(|path| {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                names.iter().any(|start| name.starts_with(start))
            })
            .collect()
    }
}

fn entries(dir: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(dir).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()))
}

fn pids() -> impl Iterator<Item = i32> {
    entries(Path::new("/proc")).filter_map(|path| path.file_name()?.to_str()?.parse().ok())
}

fn command_line(pid: i32) -> String {
    let text = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&text).replace('\0', " ").trim().to_owned()
}

/// An eBPF program as bpftool lists it.
#[derive(Deserialize)]
struct Listed {
    id: u32,
    #[serde(default)]
    name: String,
}

/// podtrace's eBPF programs in the kernel, whoever has loaded them: name by id.
fn own_programs() -> Result<std::collections::BTreeMap<u32, String>> {
    if !nix::unistd::geteuid().is_root() {
        // Only root can have loaded any, and only root is told.
        return Ok(Default::default());
    }
    let output = Command::new("bpftool")
        .args(["--json", "prog", "show"])
        .env("PATH", path_with_sbin())
        .output()
        .context("start bpftool")?;
    let all: Vec<Listed> = serde_json::from_slice(&output.stdout).context("what bpftool wrote")?;
    let own = all.into_iter().filter(|p| PROGRAMS.iter().any(|start| p.name.starts_with(start)));
    Ok(own.map(|p| (p.id, p.name)).collect())
}

/// Ids of programs that a process has a descriptor of, or of a link to.
fn held_programs() -> BTreeSet<u32> {
    pids()
        .flat_map(|pid| entries(&PathBuf::from(format!("/proc/{pid}/fdinfo"))).collect::<Vec<_>>())
        .filter_map(|file| fs::read_to_string(file).ok())
        .filter_map(|text| {
            text.lines().find_map(|line| line.strip_prefix("prog_id:")?.trim().parse().ok())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{Running, workspace};
    use std::process::Stdio;

    #[test]
    fn a_process_of_the_run_is_found_and_ended() {
        let leftovers =
            Leftovers { run: format!("u{}", std::process::id()), programs: BTreeSet::new() };
        let mut command = Command::new("sleep");
        leftovers.mark(command.arg("1000").stdin(Stdio::null()));
        let mut sleeper = Running::start(&mut command).unwrap();
        // The environment is there as soon as the program is: spawn has waited for that.
        assert_eq!(leftovers.processes(), [i32::try_from(sleeper.id()).unwrap()]);
        leftovers.remove();
        assert!(!sleeper.wait().unwrap().success());
        assert_eq!(leftovers.processes(), Vec::<i32>::new());
    }

    #[test]
    fn the_names_of_the_programs_are_known() {
        let source = fs::read_to_string(workspace().join("tracer-ebpf/src/main.rs")).unwrap();
        for name in PROGRAMS {
            assert!(source.contains(name), "{name}");
        }
    }
}
