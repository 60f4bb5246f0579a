//! What an agent does at most, so that it can never hurt its node.

use std::time::{Duration, Instant};

use crate::kernel::{Options, max_snaplen};
use crate::node::{CaptureRequest, ProbeRequest};

/// Limits of an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Traces at the same time, of all collectors together; as many probes besides.
    pub traces: usize,
    /// How long one trace or probe may take.
    pub duration: Duration,
    /// Events per second that one trace may send; more are dropped and counted.
    pub rate: u64,
    /// Connections at the same time.
    pub connections: usize,
    /// How long a peer may take to show its certificate, and then to its first question.
    pub patience: Duration,
    /// How long a collector may take nothing of what is sent to it.
    pub stall: Duration,
    /// The kernel's buffer of one trace, bytes.
    pub ring_bytes: u32,
    /// Events of one trace that wait to be sent, bytes; more are dropped and counted.
    pub backlog_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            traces: 4,
            duration: Duration::from_secs(3600),
            rate: 100_000,
            connections: 32,
            patience: Duration::from_secs(10),
            stall: Duration::from_secs(30),
            ring_bytes: 64 << 20,
            backlog_bytes: 64 << 20,
        }
    }
}

/// The shortest time between the packets of a probe.
const PROBE_INTERVAL: Duration = Duration::from_millis(1);

impl Limits {
    /// A capture as it is allowed. Files of the node are none of the collector's business.
    pub fn capture(&self, mut request: CaptureRequest) -> CaptureRequest {
        let Options { ring_bytes, backlog_bytes, btf, .. } = &mut request.options;
        *ring_bytes = (*ring_bytes).min(self.ring_bytes);
        *backlog_bytes = (*backlog_bytes).min(self.backlog_bytes);
        *btf = None;
        if let Some(snaplen) = &mut request.filter.snaplen {
            *snaplen = (*snaplen).min(u16::try_from(max_snaplen()).unwrap_or(u16::MAX));
        }
        request
    }

    /// A probe as it is allowed.
    pub fn probe(&self, mut request: ProbeRequest) -> ProbeRequest {
        let probe = &mut request.probe;
        probe.interval = probe.interval.max(PROBE_INTERVAL);
        // A packet carries no more.
        probe.size = probe.size.min(usize::from(u16::MAX));
        probe.timeout = probe.timeout.min(self.duration);
        request
    }
}

/// A bucket of tokens: events up to a rate, with at most a second's worth at once.
#[derive(Clone, Debug)]
pub struct Bucket {
    rate: u64,
    /// Tokens × 10⁹.
    tokens: u128,
    filled: Instant,
}

const SECOND: u128 = 1_000_000_000;

impl Bucket {
    /// A full one.
    pub fn new(rate: u64, now: Instant) -> Self {
        Self { rate, tokens: u128::from(rate) * SECOND, filled: now }
    }

    /// Takes as many of `wanted` as there are.
    pub fn take(&mut self, wanted: usize, now: Instant) -> usize {
        let rate = u128::from(self.rate);
        let since = now.saturating_duration_since(self.filled).as_nanos();
        self.filled = self.filled.max(now);
        self.tokens = (self.tokens + since.saturating_mul(rate)).min(rate * SECOND);
        let taken = usize::try_from(self.tokens / SECOND).unwrap_or(usize::MAX).min(wanted);
        self.tokens -= taken as u128 * SECOND;
        taken
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn never_more_than_the_rate(
            rate in 0u64..1000,
            steps in proptest::collection::vec((0u64..300, 0usize..500), 0..100),
        ) {
            let begun = Instant::now();
            let mut bucket = Bucket::new(rate, begun);
            let (mut taken, mut millis) = (0u64, 0u64);
            for (wait, wanted) in steps {
                millis += wait;
                taken += bucket.take(wanted, begun + Duration::from_millis(millis)) as u64;
                prop_assert!(taken * 1000 <= rate * (1000 + millis));
            }
        }

        #[test]
        fn all_below_the_rate(rate in 1u64..1000) {
            let begun = Instant::now();
            let mut bucket = Bucket::new(rate, begun);
            for second in 0..10 {
                let now = begun + Duration::from_secs(second);
                prop_assert_eq!(bucket.take(usize::try_from(rate).unwrap(), now) as u64, rate);
            }
        }
    }
}
