//! What the kernel must allow an agent, and giving up all the rest.
//!
//! Numbers: include/uapi/linux/capability.h.

use std::fs;
use std::io;

/// A capability: number, name, what for.
type Capability = (u32, &'static str, &'static str);

/// Without these nothing can be traced.
const NEEDED: [Capability; 4] = [
    (39, "CAP_BPF", "to load programs"),
    (38, "CAP_PERFMON", "for kernel addresses in events and the drop tracepoint"),
    (12, "CAP_NET_ADMIN", "to attach to interfaces and read packet filters"),
    (21, "CAP_SYS_ADMIN", "to enter network namespaces"),
];

/// Without these something is missing: what.
const USEFUL: [Capability; 3] = [
    (19, "CAP_SYS_PTRACE", "namespaces that only processes of other users hold are not found"),
    (13, "CAP_NET_RAW", "probes with ICMP cannot be sent from this node"),
    (34, "CAP_SYSLOG", "kernel functions in drop events have no names"),
];

/// What an agent keeps, as the bits of a set.
fn kept() -> u64 {
    NEEDED.iter().chain(&USEFUL).fold(0, |set, (bit, ..)| set | 1 << bit)
}

/// The calling thread's effective set; `None` where /proc does not tell.
fn effective() -> Option<u64> {
    let status = fs::read_to_string("/proc/thread-self/status").ok()?;
    let hex = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(hex.trim(), 16).ok()
}

/// What is missing in a set: first what nothing works without, then what is lacking besides.
fn missing(effective: u64) -> (Vec<String>, Vec<String>) {
    let lacks = |(bit, ..): &&Capability| effective & (1 << bit) == 0;
    let needed = NEEDED.iter().filter(lacks).map(|(_, name, why)| format!("{name} ({why})"));
    let useful = USEFUL.iter().filter(lacks).map(|(_, name, why)| format!("no {name}: {why}"));
    (needed.collect(), useful.collect())
}

/// Checks what the calling thread may do. What is lacking but can be done without is returned, a
/// line each.
///
/// # Errors
/// In words, when something is missing without which nothing works.
pub fn check() -> Result<Vec<String>, String> {
    // A /proc that cannot be read is no error: the kernel will tell.
    let (needed, useful) = missing(effective().unwrap_or(u64::MAX));
    if needed.is_empty() {
        return Ok(useful);
    }
    Err(format!("an agent needs {}: run it as root, or grant it those", needed.join(", ")))
}

/// Layout of `struct __user_cap_header_struct` (include/uapi/linux/capability.h).
#[repr(C)]
struct Header {
    version: u32,
    pid: libc::c_int,
}

/// Layout of `struct __user_cap_data_struct`: 32 capabilities of each set; two of these follow the
/// header.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// `_LINUX_CAPABILITY_VERSION_3`.
const VERSION: u32 = 0x2008_0522;

/// Gives up, for the calling thread and those that it will start, every capability that an agent
/// has no use for; programs that it runs (`nft`) get no others back.
///
/// # Errors
/// When the kernel refuses.
pub fn give_up_others() -> io::Result<()> {
    let keep = kept();
    // The bounding set first: that takes CAP_SETPCAP, which goes too.
    for bit in 0..64 {
        if keep & (1 << bit) != 0 {
            continue;
        }
        // SAFETY: takes numbers only.
        let result = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, bit as libc::c_ulong, 0, 0, 0) };
        if result != 0 {
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                // Behind the last one that this kernel has.
                Some(libc::EINVAL) => break,
                // Without CAP_SETPCAP there is not much to give up.
                Some(libc::EPERM) => break,
                _ => return Err(error),
            }
        }
    }
    let mut header = Header { version: VERSION, pid: 0 };
    let mut data = [Data::default(); 2];
    // SAFETY: header and data have the kernel's layout of version 3, and live until it returns.
    let result = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    for (half, data) in data.iter_mut().enumerate() {
        // Each half is 32 bits of the set.
        let keep = (keep >> (32 * half)) as u32;
        data.effective &= keep;
        data.permitted &= keep;
        data.inheritable &= keep;
    }
    // SAFETY: as above; the data is only read.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_what_is_missing() {
        assert_eq!(missing(u64::MAX), (vec![], vec![]));
        let (needed, useful) = missing(!(1 << 39 | 1 << 19));
        assert_eq!(needed, ["CAP_BPF (to load programs)"]);
        assert!(useful[0].starts_with("no CAP_SYS_PTRACE: "), "{useful:?}");
    }

    #[test]
    fn the_rest_is_given_up() {
        // On a thread of its own: capabilities are a thread's.
        let before = effective().unwrap();
        let after = std::thread::spawn(|| {
            give_up_others().unwrap();
            effective().unwrap()
        });
        assert_eq!(after.join().unwrap(), before & kept());
    }
}
