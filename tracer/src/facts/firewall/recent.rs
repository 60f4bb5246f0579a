//! Lists of `-m recent` (/proc/net/xt_recent): addresses seen lately, which kube-proxy's session
//! affinity asks for.

use std::fs;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::super::types::Gap;

/// Lists read, at most: one for every endpoint of services with session affinity.
const MAX_LISTS: usize = 4096;
/// Entries kept of a list (ip_list_tot is 100 unless set otherwise, and 65536 at most).
const MAX_ENTRIES: usize = 65_536;
/// The kernel starts counting jiffies five minutes below 2^32 (INITIAL_JIFFIES,
/// include/linux/jiffies.h).
const WRAP: u64 = 1 << 32;
const BEFORE_WRAP_SECONDS: u64 = 300;
/// Values of CONFIG_HZ.
const HZ: [u64; 5] = [100, 250, 300, 1000, 1200];

/// A list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecentList {
    /// Name.
    pub name: String,
    /// Entries.
    pub entries: Vec<RecentEntry>,
}

/// An address that was seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecentEntry {
    /// Address, without the bits that the mask of the rule cuts off.
    pub ip: IpAddr,
    /// Whole seconds since it was seen last; `None`: not known.
    pub age: Option<u64>,
    /// How often, as far as the kernel remembers.
    pub hits: u32,
}

/// The kernel's clock, as far as it is known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    /// Now.
    jiffies: u64,
    /// Jiffies in a second.
    hz: u64,
}

impl Clock {
    /// From `/proc/timer_list` and `/proc/uptime`.
    fn read() -> Option<Self> {
        let timers = fs::read_to_string("/proc/timer_list").ok()?;
        let uptime = fs::read_to_string("/proc/uptime").ok()?;
        Self::new(&timers, &uptime)
    }

    fn new(timers: &str, uptime: &str) -> Option<Self> {
        let jiffies = timers.lines().find_map(|line| line.trim().strip_prefix("jiffies: "))?;
        let jiffies: u64 = jiffies.trim().parse().ok()?;
        let seconds: f64 = uptime.split_whitespace().next()?.parse().ok()?;
        // The nearest rate; time in suspend counts in the uptime alone.
        let fits = |hz: &u64| {
            let start = WRAP - BEFORE_WRAP_SECONDS * hz;
            #[expect(clippy::cast_precision_loss, reason = "a comparison of rates")]
            let rate = jiffies.checked_sub(start)? as f64 / seconds;
            #[expect(clippy::cast_precision_loss, reason = "a comparison of rates")]
            let off = (rate / *hz as f64 - 1.0).abs();
            (off < 0.1).then_some((off, *hz))
        };
        let best = HZ.iter().filter_map(fits).min_by(|a, b| a.0.total_cmp(&b.0))?;
        Some(Self { jiffies, hz: best.1 })
    }
}

/// Reads the lists of these names in the calling thread's namespace.
pub(super) fn read(names: &[&str], gaps: &mut Vec<Gap>) -> Vec<RecentList> {
    let clock = if names.is_empty() { None } else { Clock::read() };
    let mut lists = Vec::new();
    for name in names.iter().take(MAX_LISTS).filter(|name| !name.contains(['/', '\0'])) {
        match fs::read_to_string(format!("/proc/thread-self/net/xt_recent/{name}")) {
            Ok(text) => {
                lists.push(RecentList { name: (*name).to_owned(), entries: parse(&text, clock) })
            }
            Err(e) => {
                gaps.push(Gap { source: format!("recent list {name}"), reason: e.to_string() })
            }
        }
    }
    lists
}

/// `src=10.0.0.1 ttl: 64 last_seen: 4295000000 oldest_pkt: 2 4294990000, 4295000000`
/// (net/netfilter/xt_recent.c, recent_seq_show); times in jiffies.
pub(super) fn parse(text: &str, clock: Option<Clock>) -> Vec<RecentEntry> {
    let entry = |line: &str| {
        let after = |word: &str| line.split(word).nth(1)?.split_whitespace().next();
        let ip = after("src=")?.parse().ok()?;
        let seen: Option<u64> = after("last_seen:").and_then(|n| n.parse().ok());
        let stamps = line.split("oldest_pkt:").nth(1).unwrap_or_default();
        let hits = stamps.split_whitespace().skip(1).count();
        let age =
            clock.zip(seen).map(|(clock, seen)| clock.jiffies.saturating_sub(seen) / clock.hz);
        Some(RecentEntry { ip, age, hits: u32::try_from(hits).unwrap_or(u32::MAX) })
    };
    text.lines().take(MAX_ENTRIES).filter_map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_have_an_age_where_the_clock_is_known() {
        let clock = Clock::new("now at 1 nsecs\njiffies: 4294967296\n", "300.10 1.0").unwrap();
        assert_eq!((clock.jiffies, clock.hz), (WRAP, 100));
        let text = "src=10.0.0.1 ttl: 64 last_seen: 4294966296 oldest_pkt: 2 4294966000, 4294966296\nsrc=fd00::1 ttl: 64 last_seen: 4294967296 oldest_pkt: 1 4294967296\nnothing\n";
        let entries = parse(text, Some(clock));
        assert_eq!(entries.len(), 2);
        assert_eq!((entries[0].age, entries[0].hits), (Some(10), 2));
        assert_eq!(entries[1].ip, "fd00::1".parse::<IpAddr>().unwrap());
        assert_eq!(parse(text, None)[0].age, None);
    }

    #[test]
    fn a_clock_that_makes_no_sense_is_none() {
        assert!(Clock::new("jiffies: 12\n", "300.10 1.0").is_none());
        assert!(Clock::new("", "").is_none());
    }
}
