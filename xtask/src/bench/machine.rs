//! What the measurements were made on.

use std::fs;
use std::process::Command;
use std::thread;

/// The machine, and when.
#[derive(Clone, Debug)]
pub struct Description {
    /// Model of the first CPU.
    pub cpu: String,
    /// CPUs that may be used.
    pub cpus: usize,
    /// Release of the running kernel.
    pub kernel: String,
    /// Memory, MiB.
    pub memory_mib: u64,
    /// `virtual machine`, or empty.
    pub kind: String,
    /// `2026-11-25`
    pub date: String,
}

/// Asks the running system; what it does not tell is "unknown".
pub fn describe() -> Description {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let unknown = || "unknown".to_owned();
    Description {
        cpu: after(&cpuinfo, "model name").unwrap_or_else(unknown),
        cpus: thread::available_parallelism().map_or(1, |n| n.get()),
        kernel: Some(read("/proc/sys/kernel/osrelease").trim().to_owned())
            .filter(|k| !k.is_empty())
            .unwrap_or_else(unknown),
        memory_mib: after(&read("/proc/meminfo"), "MemTotal")
            .and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok())
            .unwrap_or(0)
            / 1024,
        kind: after(&cpuinfo, "flags")
            .filter(|flags| flags.split_whitespace().any(|f| f == "hypervisor"))
            .map_or_else(String::new, |_| "virtual machine".to_owned()),
        date: Command::new("date")
            .args(["-u", "+%Y-%m-%d"])
            .output()
            .map_or_else(|_| unknown(), |o| String::from_utf8_lossy(&o.stdout).trim().to_owned()),
    }
}

/// The value in the first line `key : value`.
fn after(text: &str, key: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == key).then(|| value.trim().to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_proc_says() {
        let text = "processor\t: 0\nmodel name\t: AMD EPYC\nmodel name\t: other\n";
        assert_eq!(after(text, "model name").as_deref(), Some("AMD EPYC"));
        assert_eq!(after(text, "model"), None);
    }
}
