//! The lab that is measured in, and sockets inside its pods.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};

use crate::podtrace;
use crate::process::{self, output_of};

/// A lab of its own: others go on undisturbed.
const NAME: &str = "bench";
/// An inventory with which a pod has many addresses.
const CROWDED: &str = "/run/podtrace/bench/crowded.toml";
/// Addresses that it has then, beside its own.
const CROWD: u8 = 250;
/// Where its inventory is.
const INVENTORY: &str = "/run/podtrace/bench/inventory.toml";

/// Node and name of a pod, and its address.
#[derive(Clone, Copy, Debug)]
pub struct Pod {
    /// As podtrace names it.
    pub name: &'static str,
    /// As the lab gives it.
    pub ip: [u8; 4],
}

/// Where the measured traffic comes from.
pub const SOURCE: Pod = Pod { name: "A.a", ip: [10, 10, 0, 2] };
/// Where it goes.
pub const TARGET: Pod = Pod { name: "B.b", ip: [10, 10, 1, 2] };
/// Another pair of pods on the same nodes, which only a filter knows of.
pub const OTHERS: [&str; 2] = ["A.a2", "B.b2"];

/// A lab that goes away with this value, also after a failure or Ctrl-C.
#[derive(Debug)]
pub struct Lab {
    binary: PathBuf,
}

impl Lab {
    /// Brings it up.
    pub fn up(binary: &Path) -> Result<Self> {
        // Also half of it must go.
        let lab = Self { binary: binary.to_owned() };
        output_of(lab.command("up").arg("--force")).context("bring the lab up")?;
        Ok(lab)
    }

    fn command(&self, verb: &str) -> Command {
        let mut command = podtrace::command(&self.binary);
        command.args(["lab", verb, "--name", NAME]);
        command
    }

    /// podtrace itself.
    pub fn podtrace(&self) -> Command {
        let mut command = podtrace::command(&self.binary);
        command.env("PODTRACE_INVENTORY", INVENTORY);
        command
    }

    /// podtrace itself, told that the first of [`OTHERS`] has 501 addresses: more than its programs hold
    /// as constants.
    pub fn podtrace_crowded(&self) -> Result<Command> {
        let plain = fs::read_to_string(INVENTORY).with_context(|| format!("read {INVENTORY}"))?;
        let own = "\"10.10.0.3\"";
        let more: String =
            (1..=CROWD).map(|n| format!(", \"10.77.0.{n}\", \"10.77.1.{n}\"")).collect();
        let crowded = plain.replace(own, &format!("{own}{more}"));
        fs::write(CROWDED, crowded).with_context(|| format!("write {CROWDED}"))?;
        let mut command = self.podtrace();
        command.env("PODTRACE_INVENTORY", CROWDED);
        Ok(command)
    }

    /// A program inside a node or pod; it has the process id of what is started.
    pub fn inside<S: AsRef<OsStr>>(
        &self,
        place: &str,
        argv: impl IntoIterator<Item = S>,
    ) -> Command {
        let mut command = self.command("exec");
        command.arg(place).arg("--").args(argv);
        command
    }

    /// The interfaces of both nodes that the measured traffic crosses, each with its node.
    pub fn path_interfaces(&self) -> Result<Vec<(String, String)>> {
        let mut command = self.podtrace();
        command.args(["interfaces", "--format", "json"]);
        command.args(["--src", SOURCE.name, "--dst", TARGET.name]);
        on_the_nodes(&output_of(&mut command)?)
    }
}

/// From `podtrace interfaces --format json`: the nodes' interfaces that carry IPv4, without those of
/// the pods and the switch.
fn on_the_nodes(json: &[u8]) -> Result<Vec<(String, String)>> {
    let all: serde_json::Value =
        serde_json::from_slice(json).context("output of `podtrace interfaces`")?;
    let all = all["interfaces"].as_array().map(Vec::as_slice).unwrap_or_default();
    let on_path = |i: &&serde_json::Value| {
        let role = i["role"].as_str().unwrap_or_default();
        let other_family = i["vxlan"]["local"].as_str().is_some_and(|ip| ip.contains(':'));
        i["pod"].is_null()
            && matches!(role, "veth" | "bridge" | "vxlan" | "physical")
            && !other_family
    };
    let text = |v: &serde_json::Value| v.as_str().unwrap_or_default().to_owned();
    Ok(all.iter().filter(on_path).map(|i| (text(&i["node"]), text(&i["name"]))).collect())
}

impl Drop for Lab {
    fn drop(&mut self) {
        process::forget_interrupt();
        // It is not there unless it was asked for.
        let _ = fs::remove_file(CROWDED);
        // A second Ctrl-C shall not stop it halfway.
        let mut down = self.command("down");
        down.stdout(Stdio::null()).process_group(0);
        match down.status() {
            Ok(status) if status.success() => {}
            Ok(status) => {
                eprintln!("xtask: the lab is still up: `podtrace lab down` failed ({status})")
            }
            Err(error) => eprintln!("xtask: the lab is still up: {error}"),
        }
    }
}

/// Does something in a pod's network namespace: sockets made there stay there.
pub fn in_pod<T: Send + 'static>(
    pod: Pod,
    what: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T> {
    let path = format!("/run/netns/podtrace-{NAME}-{}", pod.name.replace('.', "-"));
    let netns = File::open(&path).with_context(|| format!("open {path}"))?;
    // A thread of its own, which ends inside: none that is used again changes its namespace.
    let thread = thread::spawn(move || {
        setns(netns, CloneFlags::CLONE_NEWNET)?;
        what()
    });
    match thread.join() {
        Ok(result) => result.with_context(|| format!("in {}", pod.name)),
        Err(_) => bail!("a thread in {} panicked", pod.name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_interfaces_that_a_tcpdump_on_the_nodes_would_be_started_on() {
        let json = br#"{"interfaces": [
            {"node": "A", "pod": "a", "name": "eth0", "role": "pod", "vxlan": null},
            {"node": "A", "pod": null, "name": "veth1", "role": "veth", "vxlan": null},
            {"node": "A", "pod": null, "name": "flannel.1", "role": "vxlan",
             "vxlan": {"local": "192.168.10.11"}},
            {"node": "A", "pod": null, "name": "flannel-v6.1", "role": "vxlan",
             "vxlan": {"local": "fd00::11"}},
            {"node": "wire", "pod": null, "name": "u1", "role": "wire", "vxlan": null}]}"#;
        let names = on_the_nodes(json).unwrap();
        assert_eq!(names, [("A", "veth1"), ("A", "flannel.1")].map(|(n, i)| (n.into(), i.into())));
    }
}
