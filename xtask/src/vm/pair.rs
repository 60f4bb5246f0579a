//! `cargo xtask vm --pair`: two guests, each a node of its own with its pods, joined by a wire that
//! is a pair of sockets. Kernels differ, and so do the clocks: by minutes, and in speed.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::Options;
use super::kernels;
use super::plan::{DRIFT, Plan, Step};
use super::qemu::Guest;
use crate::machine::Machine;

/// Node, kernel, time at which its clock starts, and how much too fast that runs, in millionths.
const NODES: [(&str, &str, &str, i32); 2] =
    [("A", "6.1", "2026-01-01T12:00:00", -40), ("B", "6.12", "2026-01-01T12:07:00", 160)];

/// Becomes a node: the network card gets the name that the lab's physical interfaces have.
const NODE: &str = "set -e
for module in virtio_pci virtio_net; do modprobe $module; done
ip link set eth0 name ens33
PODTRACE lab node --node ROLE";

/// The other machine may still be on its way.
const REACH: &str = "for try in {1..120}; do
    ip netns exec podtrace-A-a ping -c1 -W1 ADDRESS >/dev/null 2>&1 && exit
    sleep 0.5
done
ip netns exec podtrace-A-a ping -c1 -W1 ADDRESS
ip -s link; ip neigh; bridge fdb show dev flannel.1
exit 1";

/// An end of the wire. Not below the workspace: a socket's path has at most 108 bytes.
fn socket(number: usize) -> PathBuf {
    std::env::temp_dir().join(format!("podtrace-{}-{number}", std::process::id()))
}

/// Removes what the emulators have left.
pub fn remove_wire() {
    for number in 0..NODES.len() {
        // It may not have come that far.
        let _ = std::fs::remove_file(socket(number));
    }
}

/// The guests, the one that decides when it is over first, and what they do.
///
/// # Errors
/// When a kernel cannot be fetched.
pub fn guests(machine: &Machine, podtrace: &Path, options: &Options) -> Result<(Vec<Guest>, Plan)> {
    let mut guests = Vec::new();
    let mut plan = Plan::default();
    for (number, (role, series, start, drift)) in NODES.into_iter().enumerate() {
        let wire = format!(
            "dgram,id=wire,local.type=unix,local.path={},remote.type=unix,remote.path={}",
            socket(number).display(),
            socket(1 - number).display(),
        );
        let card =
            format!("virtio-net-pci,netdev=wire,mac=02:77:00:00:00:0{},romfile=", number + 1);
        let devices = ["-netdev", &wire, "-device", &card, "-rtc", &format!("base={start}")];
        guests.push(Guest {
            kernel: kernels::get(machine, series)?,
            role: role.to_owned(),
            devices: devices.map(str::to_owned).to_vec(),
            append: format!("{DRIFT}{drift}"),
            cpus: options.cpus,
        });
        let script = NODE.replace("ROLE", role).replace("PODTRACE", &podtrace.to_string_lossy());
        let mut steps = vec![Step::script("this_machine_becomes_a_node", &script, 120)];
        steps.extend(if number > 0 {
            // Until it is switched off, with the first.
            vec![Step::script("serve", "sleep infinity", options.limit)]
        } else if let Some(command) = &options.run {
            vec![Step::script(command, command, options.limit)]
        } else {
            let reach = |name, address| Step::script(name, &REACH.replace("ADDRESS", address), 180);
            vec![
                reach("pods_of_two_machines_reach_each_other", "10.10.1.2"),
                reach("pods_of_two_machines_reach_each_other_over_ipv6", "fd00:10:10:1::2"),
            ]
        });
        plan.roles.insert(role.to_owned(), steps);
    }
    Ok((guests, plan))
}
