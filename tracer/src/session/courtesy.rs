//! Giving way: work that can wait runs at a lower priority than the traffic that is watched.

use nix::unistd::gettid;

/// Weight of a tenth of a normal thread's: decoding then takes what the pods leave of the CPUs.
const NICE: libc::c_int = 10;

/// Lowers the priority of a thread as long as it lives; nothing changes where that is not allowed.
#[derive(Debug)]
pub(super) struct Courtesy {
    thread: libc::id_t,
    /// What it was.
    nice: libc::c_int,
}

impl Courtesy {
    /// For the calling thread.
    pub fn begin() -> Self {
        let thread = gettid().as_raw().cast_unsigned();
        // SAFETY: takes and returns integers. On Linux it is about the one thread named.
        let nice = unsafe { libc::getpriority(libc::PRIO_PROCESS, thread) };
        if nice < NICE {
            set(thread, NICE);
        }
        Self { thread, nice }
    }
}

impl Drop for Courtesy {
    fn drop(&mut self) {
        if self.nice < NICE {
            set(self.thread, self.nice);
        }
    }
}

fn set(thread: libc::id_t, nice: libc::c_int) {
    // A failure leaves the priority as it is, which only costs speed.
    // SAFETY: takes and returns integers.
    let _ = unsafe { libc::setpriority(libc::PRIO_PROCESS, thread, nice) };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nice() -> libc::c_int {
        // SAFETY: takes and returns integers; 0 is the calling thread.
        unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) }
    }

    #[test]
    fn lowers_the_priority_for_a_while() {
        // In a thread of its own: without privileges it cannot be raised again.
        let seen = std::thread::spawn(|| {
            let before = nice();
            let during = {
                let _courtesy = Courtesy::begin();
                nice()
            };
            (before, during)
        });
        let (before, during) = seen.join().unwrap();
        assert_eq!(during, before.max(NICE));
    }
}
