//! Kernel time of podtrace's programs, as the kernel itself counts it.
//!
//! With `kernel.bpf_stats_enabled` the kernel takes the time before and after each run of a program.
//! Both counters stand in `/proc/PID/fdinfo` of the process that holds the program.

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

use super::alone::{self, Packet};
use super::lab::Lab;
use super::observer::{Condition, Observers};
use super::stats::median;
use super::traffic;

const SYSCTL: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// Nanoseconds per run of each program, in each situation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Costs {
    /// Hop program, packets of the flow.
    pub hop_match: f64,
    /// Hop program, other packets.
    pub hop_miss: f64,
    /// The same two by themselves, see [`alone`].
    pub hop_match_alone: f64,
    /// As above.
    pub hop_miss_alone: f64,
    /// Hop program, other packets, with a map of 501 addresses.
    pub hop_miss_map: f64,
    /// As above, by itself.
    pub hop_miss_map_alone: f64,
    /// Drop tracepoint, other packets.
    pub drop_miss: f64,
    /// Drop tracepoint, a packet of the flow whose end is harmless: no stack.
    pub drop_plain: f64,
    /// Drop tracepoint, a packet of the flow that was dropped: with its stack.
    pub drop_stack: f64,
}

/// Turns the counting on, and back to what it was.
struct Counting {
    before: String,
}

impl Counting {
    fn on() -> Result<Self> {
        let before = fs::read_to_string(SYSCTL).with_context(|| format!("read {SYSCTL}"))?;
        fs::write(SYSCTL, "1").with_context(|| format!("write {SYSCTL}"))?;
        Ok(Self { before })
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        if let Err(error) = fs::write(SYSCTL, self.before.trim()) {
            eprintln!("xtask: {SYSCTL} is still 1: {error}");
        }
    }
}

/// Runs and time of one kind of program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Runs {
    count: u64,
    time_ns: u64,
}

impl Runs {
    fn since(self, earlier: Self) -> Self {
        Self { count: self.count - earlier.count, time_ns: self.time_ns - earlier.time_ns }
    }

    fn each(self) -> Option<f64> {
        (self.count > 0).then(|| self.time_ns as f64 / self.count as f64)
    }
}

/// The hop programs and the drop tracepoint of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Programs {
    hop: Runs,
    drop: Runs,
    /// One of the hop programs.
    hop_id: u64,
}

impl Programs {
    fn of(pid: u32) -> Result<Self> {
        let dir = format!("/proc/{pid}/fdinfo");
        let entries = fs::read_dir(&dir).with_context(|| format!("read {dir}"))?;
        // One that was closed meanwhile is no program of interest.
        let files = entries.flatten().filter_map(|e| fs::read_to_string(e.path()).ok());
        Ok(Self::from_fdinfo(files))
    }

    fn from_fdinfo(files: impl IntoIterator<Item = String>) -> Self {
        /// `enum bpf_prog_type` (include/uapi/linux/bpf.h).
        const SCHED_CLS: u64 = 3;
        const TRACING: u64 = 26;
        // Several descriptors may stand for one program.
        let mut programs = HashMap::new();
        for text in files {
            let number = |key: &str| -> Option<u64> {
                text.lines().find_map(|l| l.strip_prefix(key)?.trim().parse().ok())
            };
            if let (Some(kind), Some(id), Some(time_ns), Some(count)) = (
                number("prog_type:"),
                number("prog_id:"),
                number("run_time_ns:"),
                number("run_cnt:"),
            ) {
                programs.insert(id, (kind, Runs { count, time_ns }));
            }
        }
        let sum = |wanted| {
            programs.values().filter(|(kind, _)| *kind == wanted).fold(
                Runs::default(),
                |sum, (_, runs)| Runs {
                    count: sum.count + runs.count,
                    time_ns: sum.time_ns + runs.time_ns,
                },
            )
        };
        let hops = programs.iter().filter(|(_, (kind, _))| *kind == SCHED_CLS);
        let hop_id = hops.map(|(id, _)| *id).min().unwrap_or(0);
        Self { hop: sum(SCHED_CLS), drop: sum(TRACING), hop_id }
    }

    fn since(self, earlier: Self) -> Self {
        let (hop, drop) = (self.hop.since(earlier.hop), self.drop.since(earlier.drop));
        Self { hop, drop, hop_id: self.hop_id }
    }
}

/// Measures them all; the median of some rounds.
pub fn measure(lab: &Lab, rounds: usize) -> Result<Costs> {
    let mut all: [Vec<f64>; 6] = Default::default();
    let mut by_itself: [Vec<f64>; 3] = Default::default();
    for _ in 0..rounds {
        let counting = Counting::on()?;
        let other = Observers::start(lab, Condition::Attached)?;
        let ping = during(&other, || traffic::ping(lab, 3000).map(drop))?;
        other.stop()?;
        let crowded = Observers::crowded(lab)?;
        let with_map = during(&crowded, || traffic::ping(lab, 3000).map(drop))?;
        // Of another flow than the one watched here.
        let with_map_alone = alone::measure(with_map.hop_id, Packet::Own)?;
        crowded.stop()?;
        let own = Observers::start(lab, Condition::Matching)?;
        let udp = during(&own, || traffic::udp(Duration::from_millis(200), None).map(drop))?;
        let answered = during(&own, || traffic::ping(lab, 3000).map(drop))?;
        // The router drops each of these, and what it drops them for is the tracepoint's business.
        let dropped = during(&own, || traffic::udp(Duration::from_millis(200), Some(1)).map(drop))?;
        drop(counting);
        for (all, packet) in by_itself.iter_mut().zip([Packet::Own, Packet::Other]) {
            all.push(alone::measure(dropped.hop_id, packet)?);
        }
        by_itself[2].push(with_map_alone);
        own.stop()?;
        let costs = [
            udp.hop.each(),
            ping.hop.each(),
            ping.drop.each(),
            answered.drop.each(),
            dropped.drop.each(),
            with_map.hop.each(),
        ];
        for (all, cost) in all.iter_mut().zip(costs) {
            all.extend(cost);
        }
    }
    let [hop_match, hop_miss, drop_miss, drop_plain, drop_stack, hop_miss_map] =
        all.map(|all| median(&all).context("a program did not run although there was traffic"));
    let [hop_match_alone, hop_miss_alone, hop_miss_map_alone] =
        by_itself.map(|all| median(&all).context("no program ran by itself"));
    Ok(Costs {
        hop_match_alone: hop_match_alone?,
        hop_miss_alone: hop_miss_alone?,
        hop_match: hop_match?,
        hop_miss: hop_miss?,
        hop_miss_map: hop_miss_map?,
        hop_miss_map_alone: hop_miss_map_alone?,
        drop_miss: drop_miss?,
        drop_plain: drop_plain?,
        drop_stack: drop_stack?,
    })
}

/// What the programs of the only observer ran during some traffic.
fn during(observers: &Observers, traffic: impl FnOnce() -> Result<()>) -> Result<Programs> {
    let pid = observers.pid().context("nothing observes")?;
    let before = Programs::of(pid)?;
    traffic()?;
    Ok(Programs::of(pid)?.since(before))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(kind: u32, id: u32, time: u32, count: u32) -> String {
        format!(
            "pos:\t0\nflags:\t02000002\nprog_type:\t{kind}\nprog_jited:\t1\nprog_id:\t{id}\n\
             run_time_ns:\t{time}\nrun_cnt:\t{count}\n"
        )
    }

    #[test]
    fn counts_each_program_once() {
        let files = [
            program(3, 7, 1000, 10),
            program(3, 7, 1000, 10),
            program(3, 8, 500, 20),
            program(26, 9, 300, 3),
            "pos:\t0\nlink_type:\ttcx\nprog_id:\t7\n".to_owned(),
        ];
        let programs = Programs::from_fdinfo(files);
        assert_eq!(programs.hop, Runs { count: 30, time_ns: 1500 });
        assert_eq!(programs.drop, Runs { count: 3, time_ns: 300 });
        assert_eq!((programs.hop.each(), programs.hop_id), (Some(50.0), 7));
        assert_eq!(programs.since(programs).hop.each(), None);
    }
}
