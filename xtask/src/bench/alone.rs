//! A hop program by itself: `bpftool prog run` calls it many times in a row with a made-up packet
//! (`BPF_PROG_TEST_RUN`). Everything it touches is in the cache, and no clock is read in between:
//! what is left is the program's own work.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::lab::{SOURCE, TARGET};
use crate::process::{output_of, path_with_sbin};

/// Calls in a row; their events must fit into the ring buffer.
const REPEAT: &str = "100000";
/// The packet, for bpftool to read.
const FILE: &str = "/dev/shm/podtrace-bench-packet";

/// A packet for a hop program.
#[derive(Clone, Copy, Debug)]
pub enum Packet {
    /// Of the flow.
    Own,
    /// Between two other pods.
    Other,
}

impl Packet {
    /// Ethernet, IPv4, UDP, 64 bytes of payload. The programs check no checksums.
    fn bytes(self) -> Vec<u8> {
        let (src, dst) = match self {
            Self::Own => (SOURCE.ip, TARGET.ip),
            Self::Other => ([10, 10, 0, 3], [10, 10, 1, 3]),
        };
        let mut packet = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00];
        packet.extend([0x45, 0, 0, 92, 0, 1, 0x40, 0, 64, 17, 0, 0]);
        packet.extend(src);
        packet.extend(dst);
        packet.extend([0x23, 0x28, 0x23, 0x28, 0, 72, 0, 0]);
        packet.resize(14 + 92, 0);
        packet
    }
}

/// Mean time of a run, ns.
pub fn measure(program_id: u64, packet: Packet) -> Result<f64> {
    let _file = Removed(Path::new(FILE));
    fs::write(FILE, packet.bytes()).with_context(|| format!("write {FILE}"))?;
    let mut command = Command::new("bpftool");
    command.env("PATH", path_with_sbin());
    command.args(["prog", "run", "id", &program_id.to_string(), "data_in", FILE]);
    command.args(["repeat", REPEAT]);
    let output = output_of(&mut command)?;
    let text = String::from_utf8_lossy(&output);
    match duration(&text) {
        Some(ns) => Ok(ns),
        None => bail!("bpftool states no duration: {text}"),
    }
}

/// From `Return value: 4294967295, duration (average): 34ns`.
fn duration(text: &str) -> Option<f64> {
    text.split_once("duration (average): ")?.1.split_once("ns")?.0.parse().ok()
}

/// A file that goes away with this value.
struct Removed<'a>(&'a Path);

impl Drop for Removed<'_> {
    fn drop(&mut self) {
        // It is not there if it could not be written.
        let _ = fs::remove_file(self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_as_long_as_their_headers_say() {
        let packet = Packet::Own.bytes();
        assert_eq!(packet.len() - 14, 92);
        assert_eq!(packet[26..30], SOURCE.ip);
        assert_ne!(packet, Packet::Other.bytes());
    }

    #[test]
    fn reads_the_duration() {
        assert_eq!(duration("Return value: 4294967295, duration (average): 34ns\n"), Some(34.0));
        assert_eq!(duration("Error: cannot run"), None);
    }
}
