//! The lab: a two-node flannel cluster in network namespaces of this machine.
//!
//! Enters: a [`LabConfig`]. Leaves: namespaces programmed as flanneld, the bridge CNI plugin and
//! kube-proxy program real nodes, and an inventory file that names them for the tracer.
//!
//! ```text
//!  pod a ── vethX ─┐                                                  ┌─ vethY ── pod b
//!                  ├─ cni0 ── [route] ── flannel.1 ── ens33 ── wire … │
//!  pod a2 ─ vethZ ─┘                                            │     └─ (the same)
//!                                                  gateway and outside host
//! ```
//!
//! A lab is a set of names under `/run/netns`, a directory under `/run/podtrace`, and one process
//! that serves behind its services, in the nodes and outside.

mod build;
mod config;
mod dns;
mod error;
mod exec;
pub mod fault;
mod firewall;
mod identity;
mod image;
mod inventory;
mod kube_proxy;
mod namespace;
mod plan;
mod reset;
mod servers;
mod services;
mod single;
mod snapshot;
mod space;
mod state;
mod status;
mod sysctl;
mod verify;

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

pub use config::{Backend, DEFAULT_NAME, Firewall, KubeProxy, LabConfig};
pub use error::{LabError, Result};
pub use image::Image;
pub use plan::{
    NodePlan, OUTSIDE, OUTSIDE_V4, OUTSIDE_V6, OutsidePlan, POD_INTERFACE, Plan, PodPlan,
    SWITCH_BRIDGE, WIRE, netns_name,
};
pub use services::{
    DNS_PORT, HOST_PORT, OUTSIDE_PORT, ServiceBackend, ServicePlan, ServicePort, Transport,
};
pub use state::{RUN_DIR, inventory_path};

use error::Context;
use identity::Identity;
use space::Space;
use verify::Snapshots;

use crate::netns::Netns;

/// How long a built lab may take until every link is up and every address usable.
const READY_PATIENCE: Duration = Duration::from_secs(5);
/// How often to look meanwhile.
const READY_POLL: Duration = Duration::from_millis(5);
/// Defects named in an error; the rest is counted.
const DEFECTS_SHOWN: usize = 3;

/// What [`Lab::up`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Built {
    /// There was nothing.
    New,
    /// It was up and healthy with the same parameters: nothing was done.
    Already,
    /// What was there was half-built or damaged, and was replaced.
    Repaired,
    /// What was there had other parameters (or was healthy and a new one was asked for), and was
    /// replaced.
    Replaced,
}

/// How [`Lab::up_with`] goes about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Up {
    /// Replace what is there, whatever it is.
    pub force: bool,
    /// The `podtrace` program, for the lab's servers; by default the running one.
    pub program: Option<PathBuf>,
}

/// What [`Lab::down`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Removed {
    /// There was something of the lab.
    pub existed: bool,
    /// Processes, other than its own, that were still running in it and were ended.
    pub processes: usize,
}

/// A lab that is there, as [`Lab::list`] finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// Parameters; `None` when its state cannot be read.
    pub config: Option<LabConfig>,
    /// It was built to the end.
    pub complete: bool,
}

/// What [`Lab::picture`] draws.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Lines of at most 80 columns, what is wrong below.
    pub text: String,
    /// Nothing is wrong.
    pub healthy: bool,
}

/// A lab that is up.
#[derive(Clone, Debug)]
pub struct Lab {
    config: LabConfig,
    plan: Plan,
}

impl Lab {
    /// Brings a lab up and says what that took. A healthy one with the same parameters is left
    /// alone, a half-built or damaged one is replaced, one with other parameters is an error;
    /// with [`Up::force`] it is replaced in each case.
    ///
    /// # Errors
    /// Without root, with unusable parameters, or when the kernel refuses: then nothing is left.
    pub fn up_with(config: &LabConfig, how: &Up) -> Result<(Self, Built)> {
        config.validate()?;
        need_root()?;
        let lab = Self { config: config.clone(), plan: Plan::new(config) };
        let _lock = state::Lock::take(&config.name)?;
        let found = state::load(&config.name)?;
        let there = found.is_some() || lab.plan.namespaces().into_iter().any(namespace::exists);
        let mut built = if there { Built::Repaired } else { Built::New };
        if let Some(found) = found.filter(|found| found.complete) {
            if how.force {
                built = Built::Replaced;
            } else if found.config != *config {
                return Err(LabError::Differs {
                    name: config.name.clone(),
                    flag: name_flag(&config.name),
                    differences: differences(&found.config, config),
                });
            } else if lab.defects()?.is_empty() {
                // Somebody may have removed it; it costs nothing.
                state::save_inventory(&config.name, &lab.plan)?;
                return Ok((lab, Built::Already));
            }
        }
        remove(&lab.plan, &config.name)?;
        if let Err(error) = lab.build(how.program.as_deref()) {
            // The first error tells more than one of cleaning up after it.
            let _ = remove(&lab.plan, &config.name);
            return Err(error);
        }
        Ok((lab, built))
    }

    /// Makes this machine one node of a lab whose other node is another machine; returns the path of
    /// the inventory. The physical interface is used as it is; nothing is ever taken down again, so
    /// this is for machines that are themselves thrown away.
    ///
    /// # Errors
    /// Without root, with unusable parameters, for a node that the lab does not have, or when the
    /// kernel refuses.
    pub fn become_node(config: &LabConfig, name: &str) -> Result<PathBuf> {
        config.validate()?;
        need_root()?;
        let mut plan = Plan::new(config);
        for node in plan.nodes.iter_mut().filter(|node| node.name == name) {
            single::HERE.clone_into(&mut node.netns);
        }
        let local = plan.nodes.iter().find(|node| node.name == name);
        let Some((local, remote)) = local.and_then(|node| Some((node, plan.peer(node)?))) else {
            let known: Vec<_> = plan.nodes.iter().map(|node| node.name.as_str()).collect();
            let known = known.join(", ");
            return Err(LabError::Config(format!("no node {name:?}: must be one of {known}")));
        };
        let _lock = state::Lock::take(&config.name)?;
        if !sysctl::has_bridge_netfilter() {
            load_bridge_netfilter();
        }
        on_worker(async || single::build(config, &plan, local, remote).await)?;
        state::save_inventory_of_node(&config.name, local)?;
        Ok(inventory_path(&config.name))
    }

    /// Takes a lab down: ends what still runs in it, removes its namespaces and files. Nothing
    /// happens when there is none.
    ///
    /// # Errors
    /// Without root, or when something of it cannot be removed.
    pub fn down(name: &str) -> Result<Removed> {
        config::check_name(name)?;
        need_root()?;
        let _lock = state::Lock::take(name)?;
        remove(&Plan::new(&LabConfig { name: name.to_owned(), ..LabConfig::default() }), name)
    }

    /// Opens a lab that is up.
    ///
    /// # Errors
    /// When it is not, or was not built to the end.
    pub fn open(name: &str) -> Result<Self> {
        config::check_name(name)?;
        match state::load(name)? {
            Some(found) if found.complete => {
                let plan = Plan::new(&found.config);
                Ok(Self { config: found.config, plan })
            }
            _ => Err(LabError::NotUp { name: name.to_owned(), flag: name_flag(name) }),
        }
    }

    /// Every lab of this machine, the default one first.
    ///
    /// # Errors
    /// When `/run/podtrace` cannot be read.
    pub fn list() -> Result<Vec<Listed>> {
        state::names()?
            .into_iter()
            .map(|name| {
                let found = state::load(&name)?;
                let complete = found.as_ref().is_some_and(|state| state.complete);
                Ok(Listed { name, complete, config: found.map(|state| state.config) })
            })
            .collect()
    }

    /// What it was built from.
    pub fn config(&self) -> &LabConfig {
        &self.config
    }

    /// Names and addresses of everything in it.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Its inventory file, for `podtrace --inventory`.
    pub fn inventory_path(&self) -> PathBuf {
        state::inventory_path(&self.config.name)
    }

    /// Namespace of `A`, `A.a`, `wire`, ….
    ///
    /// # Errors
    /// When there is no such part, or its namespace is gone.
    pub fn netns(&self, target: &str) -> Result<Netns> {
        let name = self.plan.target(target).ok_or_else(|| {
            let known: Vec<String> = self.plan.targets().into_iter().map(|(t, _)| t).collect();
            LabError::Target { target: target.to_owned(), known: known.join(", ") }
        })?;
        Netns::open(name).context(|| format!("open namespace {name}"))
    }

    /// Runs a program inside a part of the lab, without input, and returns what it wrote.
    ///
    /// # Errors
    /// When there is no such part, or the program cannot be started. A program that fails is no
    /// error: its status says so.
    pub fn exec<S: AsRef<str>>(&self, target: &str, argv: &[S]) -> Result<Output> {
        let argv: Vec<OsString> = argv.iter().map(|word| word.as_ref().into()).collect();
        exec::output(&self.netns(target)?, &argv)
    }

    /// Starts a program inside a part of the lab, with the streams that `command` says. Whoever
    /// calls ends it; [`Lab::down`] ends it otherwise.
    ///
    /// # Errors
    /// When there is no such part, or the program cannot be started.
    pub fn spawn(&self, target: &str, command: &mut Command) -> Result<Child> {
        exec::spawn(&self.netns(target)?, command)
    }

    /// Becomes `argv` inside a part of the lab; returns only when that fails.
    pub fn replace_process(&self, target: &str, argv: &[OsString]) -> LabError {
        match self.netns(target) {
            Ok(netns) => exec::replace(&netns, argv),
            Err(error) => error,
        }
    }

    /// What is not as it was built, one line each: interfaces, addresses, routes, neighbours,
    /// forwarding entries and the servers' process; not firewall rules and sysctls.
    ///
    /// # Errors
    /// Without root, or when the kernel's state cannot be read.
    pub fn defects(&self) -> Result<Vec<String>> {
        Ok(self.defects_in(&self.snapshots()?))
    }

    fn defects_in(&self, snapshots: &Snapshots) -> Vec<String> {
        let mut defects = verify::defects(&self.config, &self.plan, snapshots);
        if !servers::is_running(&self.config.name, &self.plan) {
            defects.push(format!("{}: the lab's servers do not run", self.plan.outside.netns));
        }
        defects
    }

    /// Everything that is configured in it, to compare with another time.
    ///
    /// # Errors
    /// When the kernel's state cannot be read.
    pub fn image(&self) -> Result<Image> {
        need_root()?;
        Image::read(&self.plan)
    }

    /// A picture of the lab as the kernel shows it now.
    ///
    /// # Errors
    /// Without root, or when the kernel's state cannot be read.
    pub fn picture(&self) -> Result<Picture> {
        let snapshots = self.snapshots()?;
        let defects = self.defects_in(&snapshots);
        let mut text = status::picture(&self.config, &self.plan, &snapshots, &defects);
        if !sysctl::has_bridge_netfilter() {
            text.push_str("\nbr_netfilter is not loaded: bridged packets pass no iptables rule\n");
        }
        Ok(Picture { text, healthy: defects.is_empty() })
    }

    fn snapshots(&self) -> Result<Snapshots> {
        need_root()?;
        on_worker(async || {
            let spaces = self.spaces()?;
            snapshots_of(&spaces).await
        })
    }

    /// Sockets in those of the lab's namespaces that exist.
    fn spaces(&self) -> Result<Vec<Space>> {
        self.plan
            .namespaces()
            .into_iter()
            .filter(|name| namespace::exists(name))
            .map(|name| Space::open(Netns::open(name).context(|| format!("open {name}"))?))
            .collect()
    }

    fn build(&self, program: Option<&Path>) -> Result<()> {
        if !sysctl::has_bridge_netfilter() {
            load_bridge_netfilter();
        }
        if self.config.ipv6 && !sysctl::has_ipv6() {
            return Err(LabError::Config("this kernel has no IPv6: add --no-ipv6".to_owned()));
        }
        state::save(&self.config, false)?;
        on_worker(async || {
            build::build(&self.config, &self.plan, &Identity::default()).await?;
            self.wait_until_ready().await
        })?;
        servers::ensure(self, program)?;
        state::save_inventory(&self.config.name, &self.plan)?;
        state::save(&self.config, true)
    }

    async fn wait_until_ready(&self) -> Result<()> {
        let spaces = self.spaces()?;
        let deadline = Instant::now() + READY_PATIENCE;
        loop {
            let snapshots = snapshots_of(&spaces).await?;
            let defects = verify::defects(&self.config, &self.plan, &snapshots);
            if defects.is_empty() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(LabError::Unhealthy {
                    name: self.config.name.clone(),
                    defects: some_of(&defects),
                });
            }
            tokio::time::sleep(READY_POLL).await;
        }
    }
}

async fn snapshots_of(spaces: &[Space]) -> Result<Snapshots> {
    let mut snapshots = HashMap::new();
    for space in spaces {
        let snapshot = snapshot::Snapshot::read(space).await?;
        snapshots.insert(space.netns().name().to_owned(), snapshot);
    }
    Ok(snapshots)
}

/// Removes whatever there is of a lab.
fn remove(plan: &Plan, name: &str) -> Result<Removed> {
    let namespaces = plan.namespaces();
    let mut existed = namespaces.iter().any(|name| namespace::exists(name));
    servers::end(name, plan);
    let processes = namespace::end_processes(&namespaces)?;
    // Try all of it, then report the first failure: the less is left the better.
    let results: Vec<Result<()>> = namespaces.into_iter().map(namespace::remove).collect();
    results.into_iter().collect::<Result<()>>()?;
    existed |= state::remove(name)?;
    Ok(Removed { existed, processes })
}

/// Runs `work` on a thread of its own, which may change its namespace as it likes, in a tokio
/// runtime.
fn on_worker<T: Send>(work: impl AsyncFnOnce() -> Result<T> + Send) -> Result<T> {
    let home = Netns::current().context(|| "find the own network namespace")?;
    home.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context(|| "start a runtime")?;
        runtime.block_on(work())
    })
    .context(|| "run the lab's thread")?
}

/// Kernels with `br_netfilter` as a module do not load it by themselves. Where it cannot be loaded
/// bridged packets just do not pass iptables, which `podtrace lab status` says.
fn load_bridge_netfilter() {
    if let Some(modprobe) = firewall::find_program("modprobe") {
        let _ = Command::new(modprobe)
            .args(["--quiet", "br_netfilter"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
    }
}

fn need_root() -> Result<()> {
    if nix::unistd::geteuid().is_root() { Ok(()) } else { Err(LabError::NotRoot) }
}

/// ` --name N`, for messages that name a command.
fn name_flag(name: &str) -> String {
    if name == DEFAULT_NAME { String::new() } else { format!(" --name {name}") }
}

/// Names of the parameters in which two labs differ, as in the state file.
fn differences(there: &LabConfig, wanted: &LabConfig) -> String {
    let table = |config: &LabConfig| toml::Table::try_from(config).unwrap_or_default();
    let (there, wanted) = (table(there), table(wanted));
    let differing: Vec<String> = wanted
        .iter()
        .filter_map(|(key, new)| {
            let old = there.get(key)?;
            (old != new).then(|| format!("{key} {old} → {new}"))
        })
        .collect();
    some_of(&differing)
}

/// The first few of a list on one line, with the number of the others.
fn some_of(lines: &[String]) -> String {
    let shown = lines.iter().take(DEFECTS_SHOWN).cloned().collect::<Vec<_>>().join("; ");
    match lines.len().saturating_sub(DEFECTS_SHOWN) {
        0 => shown,
        more => format!("{shown}; and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differing_parameters_are_named() {
        let a = LabConfig::default();
        let b = LabConfig { vxlan_port: 4789, bridge_name: "br0".to_owned(), ..a.clone() };
        assert_eq!(differences(&a, &b), "bridge_name \"cni0\" → \"br0\"; vxlan_port 8472 → 4789");
        assert_eq!(differences(&a, &a), "");
    }

    #[test]
    fn long_lists_are_cut() {
        let lines: Vec<String> = (1..=5).map(|i| i.to_string()).collect();
        assert_eq!(some_of(&lines), "1; 2; 3; and 2 more");
        assert_eq!(some_of(&lines[..2]), "1; 2");
    }

    #[test]
    fn names_that_leave_the_directory_are_refused() {
        assert!(Lab::open("../x").is_err());
        assert!(Lab::down("a/b").is_err());
    }
}
