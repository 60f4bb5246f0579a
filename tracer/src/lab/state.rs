//! A lab's files: the inventory, the parameters it was built with, and the lock.
//!
//! The default lab's are in `/run/podtrace`, those of lab N in `/run/podtrace/N`. Locks are in
//! `/run/podtrace` for all, because the directory of a lab comes and goes with it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use super::config::{DEFAULT_NAME, LabConfig, check_name};
use super::error::{Context, LabError, Result};
use super::inventory;
use super::plan::{NodePlan, Plan};

/// Where running labs keep their files.
pub const RUN_DIR: &str = "/run/podtrace";
/// Name of the file with the lab's faults.
pub(super) const FAULT_FILE: &str = "faults.json";
/// Name of the file with the lab's servers.
pub(super) const SERVERS_FILE: &str = "servers.toml";
/// Version of the state file.
const VERSION: u32 = 1;
/// How long to wait for another process that changes the same lab.
const LOCK_PATIENCE: Duration = Duration::from_secs(20);
/// How often to try meanwhile.
const LOCK_POLL: Duration = Duration::from_millis(20);

/// The state file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct State {
    version: u32,
    /// Building it came to its end.
    pub(super) complete: bool,
    /// What it was built from.
    pub(super) config: LabConfig,
}

/// Directory of a lab's files.
pub fn directory(lab: &str) -> PathBuf {
    let run = PathBuf::from(RUN_DIR);
    if lab == DEFAULT_NAME { run } else { run.join(lab) }
}

/// A lab's inventory file.
pub fn inventory_path(lab: &str) -> PathBuf {
    directory(lab).join("inventory.toml")
}

fn state_path(lab: &str) -> PathBuf {
    directory(lab).join("lab.toml")
}

/// Reads the state; `None` when there is none, or none that this version can read (which, like a
/// half-built lab, only serves to be replaced).
pub(super) fn load(lab: &str) -> Result<Option<State>> {
    let path = state_path(lab);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(toml::from_str(&text).ok().filter(|state: &State| state.version == VERSION)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).context(|| format!("read {}", path.display())),
    }
}

/// Writes the state.
pub(super) fn save(config: &LabConfig, complete: bool) -> Result<()> {
    let state = State { version: VERSION, complete, config: config.clone() };
    let text = toml::to_string(&state).map_err(io::Error::other).context(|| "write the state")?;
    write(&state_path(&config.name), &text)
}

/// Writes the inventory.
pub(super) fn save_inventory(lab: &str, plan: &Plan) -> Result<()> {
    let text =
        inventory::text(lab, plan).map_err(io::Error::other).context(|| "write the inventory")?;
    write(&inventory_path(lab), &text)
}

/// Writes the inventory of the one node that this machine is.
pub(super) fn save_inventory_of_node(lab: &str, node: &NodePlan) -> Result<()> {
    let text = inventory::text_of_node(lab, node)
        .map_err(io::Error::other)
        .context(|| "write the inventory")?;
    write(&inventory_path(lab), &text)
}

/// Removes a lab's files except the lock; says whether there were any.
pub(super) fn remove(lab: &str) -> Result<bool> {
    let mut any = false;
    let faults = directory(lab).join(FAULT_FILE);
    let servers = directory(lab).join(SERVERS_FILE);
    for path in [inventory_path(lab), state_path(lab), faults.clone(), servers.clone()] {
        match fs::remove_file(&path) {
            Ok(()) => any = true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).context(|| format!("remove {}", path.display())),
        }
    }
    for path in [inventory_path(lab), state_path(lab), faults, servers] {
        // Left by a process that was killed while it wrote.
        let _ = fs::remove_file(draft_of(&path));
    }
    if lab != DEFAULT_NAME {
        // Stays when somebody has put files of their own there.
        let _ = fs::remove_dir(directory(lab));
    }
    Ok(any)
}

/// Names of the labs that have a state file, the default one first.
pub(super) fn names() -> Result<Vec<String>> {
    let mut names = Vec::new();
    let entries = match fs::read_dir(RUN_DIR) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(names),
        Err(error) => return Err(error).context(|| format!("read {RUN_DIR}")),
    };
    for entry in entries {
        let entry = entry.context(|| format!("read {RUN_DIR}"))?;
        if let Some(name) = entry.file_name().to_str()
            && check_name(name).is_ok()
            && state_path(name).is_file()
        {
            names.push(name.to_owned());
        }
    }
    names.sort();
    if state_path(DEFAULT_NAME).is_file() {
        names.insert(0, DEFAULT_NAME.to_owned());
    }
    Ok(names)
}

/// Where a file is written before it takes its place.
fn draft_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

/// Writes a file so that readers see the old one or the new one, never a part.
pub(super) fn write(path: &Path, text: &str) -> Result<()> {
    let action = || format!("write {}", path.display());
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).context(action)?;
    }
    let draft = draft_of(path);
    let mut file = File::create(&draft).context(action)?;
    file.write_all(text.as_bytes()).context(action)?;
    fs::rename(&draft, path).context(action)
}

/// While it lives, no other process changes the lab.
pub(super) struct Lock {
    _file: Flock<File>,
    path: PathBuf,
}

impl Lock {
    /// Waits for it, for a while.
    pub(super) fn take(lab: &str) -> Result<Self> {
        let path = Path::new(RUN_DIR).join(format!("{lab}.lock"));
        let action = || format!("lock {}", path.display());
        fs::create_dir_all(RUN_DIR).context(action)?;
        let deadline = Instant::now() + LOCK_PATIENCE;
        loop {
            let file = OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .open(&path)
                .context(action)?;
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                // The holder before may have removed the file: then this lock excludes nobody.
                Ok(file) if is_at(&file, &path) => return Ok(Self { _file: file, path }),
                Ok(_) => {}
                Err((_, nix::Error::EWOULDBLOCK)) if Instant::now() < deadline => {
                    std::thread::sleep(LOCK_POLL);
                }
                Err((_, nix::Error::EWOULDBLOCK)) => {
                    return Err(LabError::Busy { name: lab.to_owned() });
                }
                Err((_, errno)) => return Err(errno).context(action),
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Still locked here: who waits for it notices that the file is another (see `take`).
        let _ = fs::remove_file(&self.path);
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(open), Ok(there)) => (open.dev(), open.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_labs() {
        assert_eq!(inventory_path(DEFAULT_NAME), Path::new("/run/podtrace/inventory.toml"));
        assert_eq!(inventory_path("t1"), Path::new("/run/podtrace/t1/inventory.toml"));
    }

    #[test]
    fn a_written_file_replaces_the_old_one() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("new/lab.toml");
        write(&path, "one").expect("write");
        write(&path, "two").expect("write again");
        assert_eq!(fs::read_to_string(&path).expect("read"), "two");
        assert_eq!(fs::read_dir(path.parent().expect("parent")).expect("list").count(), 1);
    }
}
