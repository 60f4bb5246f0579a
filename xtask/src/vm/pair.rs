//! `cargo xtask vm --pair`: two guests, each a node of its own with its pods. Kernels differ, and so do
//! the clocks: by minutes, and in speed. The tests run here, outside, ask the guests for commands
//! through a port of each, and are the wire between their network cards.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::Options;
use super::image::Built;
use super::kernels;
use super::plan::{DRIFT, Plan, Step};
use super::qemu::Guest;
use crate::machine::Machine;
use crate::process::{output_of, run_step, target_dir};

/// The tests that need a pair, a file of podtrace's `tests`.
pub const TESTS: &str = "pair";
/// Those of every test run.
pub const FEW: [&str; 2] = [
    "healthy::a_ping_is_followed_from_machine_to_machine_and_replayed_elsewhere",
    "faults::a_packet_filter_on_the_far_machine_is_found",
];
/// Tells them where the sockets are: `A.control`, `A.nic` and `A.wire`, and the same of B.
pub const VARIABLE: &str = "PODTRACE_PAIR";

/// Node, kernel, its address on the wire, how much later than here it is there, and how much too fast
/// its clock runs, in millionths.
const NODES: [(&str, &str, &str, &str, i32); 2] = [
    ("A", "6.1", "192.168.10.11", "0 minutes", -40),
    ("B", "6.12", "192.168.10.12", "7 minutes", 160),
];

/// Becomes a node: the network card gets the name that the lab's physical interfaces have.
const NODE: &str = "set -e
for module in virtio_pci virtio_net virtio_console; do modprobe $module; done
ip link set eth0 name ens33
ln -s PODTRACE /usr/bin/podtrace
podtrace lab node --node ROLE";

/// Runs what the tests ask for.
const CONTROL: &str = include_str!("control.py");

/// Where the guests have the certificates of `podtrace agent init`.
const CERTIFICATES: &str = "/etc/podtrace/pki";

/// A pair that can be started.
#[derive(Debug)]
pub struct Pair {
    /// The two machines.
    pub guests: Vec<Guest>,
    /// What they do.
    pub plan: Plan,
    /// What they have beside the programs.
    pub directories: Vec<Built>,
    sockets: PathBuf,
}

impl Pair {
    /// Prepares two machines with this podtrace.
    ///
    /// # Errors
    /// When a kernel cannot be fetched, or no certificates can be made.
    pub fn new(machine: &Machine, podtrace: &Path, options: &Options) -> Result<Self> {
        let directories = vec![certificates(podtrace)?];
        // Not below the workspace: a socket's path has at most 108 bytes.
        let sockets = std::env::temp_dir().join(format!("podtrace-{}", std::process::id()));
        let made = fs::DirBuilder::new().mode(0o700).create(&sockets);
        made.with_context(|| format!("make {}", sockets.display()))?;
        let mut pair = Self { guests: Vec::new(), plan: Plan::default(), directories, sockets };
        for (number, (role, series, _, later, drift)) in NODES.into_iter().enumerate() {
            let path = |end: &str| pair.sockets.join(end).display().to_string();
            // A command has nobody who would be the wire.
            let far = match &options.run {
                Some(_) => format!("{}.nic", NODES[1 - number].0),
                None => format!("{role}.wire"),
            };
            let (near, far, control) =
                (path(&format!("{role}.nic")), path(&far), path(&format!("{role}.control")));
            let devices = [
                "-netdev".to_owned(),
                format!(
                    "dgram,id=wire,local.type=unix,local.path={near},remote.type=unix,remote.path={far}"
                ),
                "-device".to_owned(),
                format!("virtio-net-pci,netdev=wire,mac=02:77:00:00:00:0{},romfile=", number + 1),
                "-chardev".to_owned(),
                format!("socket,id=control,path={control},server=on,wait=off"),
                "-device".to_owned(),
                "virtio-serial-pci".to_owned(),
                "-device".to_owned(),
                "virtserialport,chardev=control".to_owned(),
                "-rtc".to_owned(),
                format!("base={}", time(later)?),
            ];
            pair.guests.push(Guest {
                kernel: kernels::get(machine, series)?,
                role: role.to_owned(),
                devices: devices.to_vec(),
                append: format!("{DRIFT}{drift}"),
                cpus: options.cpus,
            });
            let script =
                NODE.replace("ROLE", role).replace("PODTRACE", &podtrace.to_string_lossy());
            let mut steps = vec![Step::script("this_machine_becomes_a_node", &script, 120)];
            steps.push(match &options.run {
                // Until it is switched off, with the first.
                Some(_) if number > 0 => Step::script("serve", "sleep infinity", options.limit),
                Some(command) => Step::script(command, command, options.limit),
                None => Step::python("serve", CONTROL, options.limit),
            });
            pair.plan.roles.insert(role.to_owned(), steps);
        }
        Ok(pair)
    }

    /// What the tests need to know.
    pub fn prepare(&self, tests: &mut Command) {
        // They share the machines.
        tests.env(VARIABLE, &self.sockets).args(["--test-threads", "1"]);
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        // Nothing is lost with what remains, and nobody to be told.
        let _ = fs::remove_dir_all(&self.sockets);
    }
}

/// The time here and so much later, as the emulator wants it.
fn time(later: &str) -> Result<String> {
    let output = output_of(Command::new("date").args(["-u", "-d", later, "+%FT%T"]))?;
    Ok(String::from_utf8(output).context("the time")?.trim().to_owned())
}

/// Makes certificates for both nodes.
fn certificates(podtrace: &Path) -> Result<Built> {
    let file = target_dir().join("vm/pki");
    if file.exists() {
        fs::remove_dir_all(&file).with_context(|| format!("remove {}", file.display()))?;
    }
    let mut command = Command::new(podtrace);
    command.args(["agent", "init", "--dir"]).arg(&file);
    command.args(NODES.map(|(role, _, address, ..)| format!("{role}={address}")));
    run_step("make certificates for the nodes", &mut command)?;
    Ok(Built { file, place: CERTIFICATES.into() })
}
