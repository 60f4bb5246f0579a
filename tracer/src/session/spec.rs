//! What a trace is to do, free of any command line.

use std::path::PathBuf;
use std::time::Duration;

use crate::kernel::AttachWith;
use crate::probe::Proto;

/// A trace to be done.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Test traffic to send from the source; `None`: watch what flows.
    pub probe: Option<Proto>,
    /// Only this protocol.
    pub proto: Option<Proto>,
    /// Only this TCP or UDP port, at either end; the probe's destination port.
    pub port: Option<u16>,
    /// Packets to send, or to see from the source before ending.
    pub count: Option<u64>,
    /// How long to trace.
    pub duration: Option<Duration>,
    /// Time between the probe's packets.
    pub interval: Duration,
    /// Payload bytes of the probe's packets; `None`: [`DEFAULT_SIZE`], and a large one afterwards.
    pub size: Option<u16>,
    /// IPv4 only.
    pub ipv4: bool,
    /// IPv6 only.
    pub ipv6: bool,
    /// Bytes of each packet to keep; `None`: the headers and 16 bytes of payload.
    pub snaplen: Option<u16>,
    /// Kernel type information; `None`: the running kernel's own.
    pub btf: Option<PathBuf>,
    /// How to attach to interfaces.
    pub attach: AttachWith,
    /// Size of the event buffer, MiB.
    pub buffer: u32,
    /// Somebody watches: records are worked off as they come, however many, and the newest kept.
    pub watched: bool,
}

/// Payload bytes of a probe packet, as `ping` has it.
pub const DEFAULT_SIZE: u16 = 56;

/// Packets that the probe sends where nothing else is asked for.
pub const DEFAULT_COUNT: u64 = 5;

impl Spec {
    /// IP protocol that the kernel's filter lets through; `None`: all.
    pub fn protocol(&self) -> Option<u8> {
        self.probe.or(self.proto).map(Proto::number)
    }

    /// Packets that the probe is to send.
    pub fn probe_count(&self) -> u64 {
        let endless = self.duration.is_some();
        self.count.unwrap_or(if endless { u64::MAX } else { DEFAULT_COUNT })
    }
}
