//! What a trace must be allowed to do.

/// Capabilities (include/uapi/linux/capability.h) and what each is for.
const NEEDED: [(u32, &str); 4] = [
    (39, "CAP_BPF"),       // load programs
    (38, "CAP_PERFMON"),   // kernel addresses in events, the drop tracepoint
    (12, "CAP_NET_ADMIN"), // attach to interfaces
    (21, "CAP_SYS_ADMIN"), // enter network namespaces
];

/// Names of the capabilities that are missing from an effective set.
fn missing(effective: u64) -> Vec<&'static str> {
    NEEDED.iter().filter(|(bit, _)| effective & (1 << bit) == 0).map(|(_, name)| *name).collect()
}

/// Checks the calling thread's effective capabilities.
///
/// # Errors
/// Names those that are missing. A /proc that cannot be read is no error: the kernel will tell.
pub fn check() -> anyhow::Result<()> {
    let Ok(status) = std::fs::read_to_string("/proc/thread-self/status") else { return Ok(()) };
    let effective = status
        .lines()
        .find_map(|l| l.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    let missing = missing(effective.unwrap_or(u64::MAX));
    if missing.is_empty() {
        return Ok(());
    }
    anyhow::bail!("tracing needs {}: run podtrace as root (sudo podtrace …)", missing.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_what_is_missing() {
        assert_eq!(missing(u64::MAX), Vec::<&str>::new());
        assert_eq!(missing(!(1 << 39)), ["CAP_BPF"]);
        assert_eq!(missing(0).len(), 4);
    }
}
