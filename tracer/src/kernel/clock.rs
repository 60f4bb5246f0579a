//! The clock of the events.

use nix::time::{ClockId, clock_gettime};

/// CLOCK_MONOTONIC in ns: what `bpf_ktime_get_ns` returns. Zero should the clock be unreadable,
/// which Linux does not know.
pub fn monotonic_ns() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |t| {
        let (seconds, nanos) =
            (u64::try_from(t.tv_sec()).unwrap_or(0), u64::try_from(t.tv_nsec()).unwrap_or(0));
        seconds * 1_000_000_000 + nanos
    })
}
