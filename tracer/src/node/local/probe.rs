//! A probe from a namespace of this machine.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::model::ProbeResult;
use crate::netns::Netns;
use crate::node::Probing;
use crate::probe::{Probe, ProbeHandle, Progress};

#[derive(Debug)]
pub(super) struct LocalProbe {
    handle: Option<ProbeHandle>,
    stop: Arc<AtomicBool>,
}

impl LocalProbe {
    pub fn start(netns: &Netns, probe: Probe) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let handle = Some(probe.start(netns, Arc::clone(&stop)));
        Self { handle, stop }
    }
}

impl Probing for LocalProbe {
    fn progress(&self) -> Progress {
        self.handle.as_ref().map(ProbeHandle::progress).unwrap_or_default()
    }

    fn is_finished(&self) -> bool {
        self.handle.as_ref().is_none_or(ProbeHandle::is_finished)
    }

    fn stop(&self) {
        self.stop.store(true, Relaxed);
    }

    fn join(mut self: Box<Self>) -> io::Result<ProbeResult> {
        match self.handle.take() {
            Some(handle) => handle.join(),
            None => Ok(ProbeResult::default()),
        }
    }
}

impl Drop for LocalProbe {
    fn drop(&mut self) {
        self.stop();
    }
}
