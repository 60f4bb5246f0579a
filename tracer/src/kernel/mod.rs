//! Kernel side: load the eBPF programs, attach them, read the ring buffer, count losses.
//!
//! Enters: [`Station`]s (what to attach to) and a [`Filter`] (what to let through). Leaves:
//! batches of raw records for [`crate::decode`], and the losses. With TCX everything hangs on file
//! descriptors of this process: when it ends, however it ends, nothing stays attached. On older
//! kernels the filters of a podtrace that was killed stay until the next one starts.

mod attach;
pub mod btf;
mod clock;
mod clsact;
mod filter;
mod load;
mod reader;
mod release;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::mpsc::Receiver;

use aya::Ebpf;
use aya::maps::{MapData, PerCpuArray};
use serde::{Deserialize, Serialize};
use tracer_common::{LOST_DROP, LOST_HOP, MAX_SNAPLEN};

pub(crate) use attach::is_own_program;
pub use clock::monotonic_ns;
pub use filter::Filter;
pub use reader::HeldBatch;
pub use release::{architecture, release};

use crate::decode::NameSource;
use crate::model::{Loss, Station};
use crate::netns::Netns;

/// The default size of the ring buffer, bytes: half a second at a million events of 64 packet
/// bytes each.
pub const DEFAULT_RING_BYTES: u32 = 64 << 20;

/// How the hop programs are attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AttachWith {
    /// TCX where the kernel has it, else clsact.
    #[default]
    Any,
    /// Links (Linux 6.6).
    Tcx,
    /// Filters of a clsact qdisc.
    Clsact,
}

/// How to capture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    /// How to attach.
    pub attach: AttachWith,
    /// Size of the ring buffer, bytes; rounded up to a power of two.
    pub ring_bytes: u32,
    /// Kernel type information, a file of the machine that captures; `None`: the running kernel's
    /// own. Nobody else can ask for a file.
    #[serde(skip)]
    pub btf: Option<PathBuf>,
    /// Raw records held in memory until they are taken, bytes; beyond it they are dropped and
    /// counted.
    pub backlog_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            attach: AttachWith::default(),
            ring_bytes: DEFAULT_RING_BYTES,
            btf: None,
            backlog_bytes: 1 << 30,
        }
    }
}

/// Why a capture cannot start.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// Built without the BPF toolchain.
    #[error("this podtrace was built without its eBPF programs; build it with `cargo xtask build`")]
    NoPrograms,
    /// The kernel is older than TCX.
    #[error("kernel {0} has no TCX: that came with Linux 6.6")]
    NoTcx(String),
    /// More namespaces than programs.
    #[error("the path crosses {0} network namespaces; at most {max} can be observed", max = tracer_common::MAX_SLOTS)]
    TooManyNamespaces(usize),
    /// The filter holds a fixed number of entries.
    #[error("{0} {1} on the path; the kernel filter holds at most {2}")]
    FilterFull(usize, &'static str, usize),
    /// A program or map could not be loaded.
    #[error("cannot load eBPF {what}: {source}")]
    Load {
        /// Program or map.
        what: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A program could not be attached.
    #[error("cannot observe {interface}: {source}")]
    Attach {
        /// Interface.
        interface: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A namespace could not be entered, or a thread not started.
    #[error("cannot enter network namespace {netns}: {source}")]
    Netns {
        /// Namespace.
        netns: String,
        /// Why.
        source: std::io::Error,
    },
}

/// A running capture. Dropping it detaches everything.
pub struct Capture {
    /// Owns the programs and, through them, the TCX links.
    _bpf: Ebpf,
    /// Owns the filters where there are no links.
    _clsact: Option<clsact::Clsact>,
    lost: PerCpuArray<MapData, u64>,
    reader: reader::Reader,
    slots: Vec<u32>,
    disabled: Vec<String>,
    vanished: Vec<String>,
    names: Option<NameSource>,
}

impl std::fmt::Debug for Capture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Capture").field("slots", &self.slots).finish_non_exhaustive()
    }
}

impl Capture {
    /// Loads, attaches to every station, and starts reading. `namespaces` holds, by inode, every
    /// namespace that a station is in.
    ///
    /// # Errors
    /// When the programs cannot be loaded or attached. A probe that is not required (the drop
    /// tracepoint) is left out with a reason instead; see [`Capture::disabled`].
    pub fn start(
        stations: &[Station],
        namespaces: &HashMap<u32, Netns>,
        filter: &Filter,
        options: &Options,
    ) -> Result<Self, CaptureError> {
        let load::Loaded { mut bpf, lost, events, slots, mut disabled, names } =
            load::load(stations, filter, options)?;
        let attach::Attached { clsact, vanished, limits } =
            attach::attach_all(&mut bpf, stations, namespaces, &slots, options.attach)?;
        disabled.extend(limits);
        if vanished.iter().any(|v| !v.is_empty()) {
            disabled.push(format!("gone before they could be observed: {}", vanished.join(", ")));
        }
        let reader = reader::Reader::start(events, options.backlog_bytes)
            .map_err(|source| CaptureError::Netns { netns: "(reader)".into(), source })?;
        Ok(Self {
            _bpf: bpf,
            _clsact: clsact,
            lost,
            reader,
            slots,
            disabled,
            vanished,
            names: Some(names),
        })
    }

    /// Raw records as they come, in batches.
    pub fn batches(&self) -> &Receiver<HeldBatch> {
        self.reader.batches()
    }

    /// Whatever happened before this time (CLOCK_MONOTONIC, ns) has been put into
    /// [`Capture::batches`], or is lost.
    pub fn until_ns(&self) -> u64 {
        self.reader.until_ns()
    }

    /// Inode of the namespace behind each slot, for the decoder.
    pub fn slots(&self) -> &[u32] {
        &self.slots
    }

    /// Names for the decoder; the first call gets them.
    pub fn take_names(&mut self) -> Option<NameSource> {
        self.names.take()
    }

    /// Probes that could not run, each with the reason.
    pub fn disabled(&self) -> &[String] {
        &self.disabled
    }

    /// Stations that were gone when the programs were to be attached.
    pub fn vanished(&self) -> &[String] {
        &self.vanished
    }

    /// Events lost so far.
    pub fn loss(&self) -> Loss {
        let sum = |index| self.lost.get(&index, 0).map_or(0, |cpus| cpus.iter().sum());
        Loss {
            ring_hop: sum(LOST_HOP),
            ring_drop: sum(LOST_DROP),
            backlog: self.reader.discarded(),
            ..Loss::default()
        }
    }
}

/// The largest `--snaplen`, bytes.
pub const fn max_snaplen() -> usize {
    MAX_SNAPLEN
}
