//! The loop that all probes share: send on time, receive in between, end in bounded time.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use super::Probe;
use super::tally::Tally;

/// How often the stop flag is looked at while nothing happens.
const STOP_SLICE: Duration = Duration::from_millis(20);
/// Lag up to which missed packets are sent in a burst; beyond it (a suspended machine) the schedule
/// starts anew.
const MAX_LAG: Duration = Duration::from_millis(500);

/// What became of an attempt to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// Handed to the kernel, or refused by it and counted as an error.
    Yes,
    /// The socket's buffer is full: try again when it is not.
    NotNow,
}

/// A kind of traffic.
pub(super) trait Transport {
    /// Sends packet `tally.sent()`.
    fn send(&mut self, tally: &mut Tally) -> Sent;
    /// Takes in all that has arrived, without blocking.
    fn receive(&mut self, tally: &mut Tally);
    /// Sockets to wait for, and what for.
    fn sockets(&self) -> Vec<(BorrowedFd<'_>, PollFlags)>;
}

/// When packets are due.
struct Schedule {
    /// When packet `base` was or is due.
    origin: Instant,
    base: u64,
    interval: Duration,
}

impl Schedule {
    /// When packet `number` is due.
    fn due(&self, number: u64) -> Instant {
        let nanos = self.interval.as_nanos().saturating_mul(u128::from(number - self.base));
        let wait = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        // Beyond what the clock can say is never: look again in an hour.
        self.origin.checked_add(wait).unwrap_or(self.origin + Duration::from_secs(3600))
    }

    /// Starts anew at packet `number` when it is hopelessly late.
    fn forgive(&mut self, number: u64, now: Instant) {
        if now.saturating_duration_since(self.due(number)) > MAX_LAG {
            (self.origin, self.base) = (now, number);
        }
    }
}

/// Runs `probe` over `transport` until its end or until `stop` is set.
pub(super) fn run(
    probe: &Probe,
    transport: &mut impl Transport,
    tally: &mut Tally,
    stop: &AtomicBool,
) -> io::Result<()> {
    let mut schedule = Schedule { origin: Instant::now(), base: 0, interval: probe.interval };
    let mut last_sent = schedule.origin;
    let mut blocked = false;
    loop {
        transport.receive(tally);
        if stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        let now = Instant::now();
        let wake = if tally.sent() < probe.count {
            let due = schedule.due(tally.sent());
            if now >= due && !blocked {
                schedule.forgive(tally.sent(), now);
                last_sent = now;
                blocked = transport.send(tally) == Sent::NotNow;
                continue;
            }
            // A full socket buffer says itself when it has room.
            if blocked { now + STOP_SLICE } else { due }
        } else {
            // Timeouts beyond what the clock can say are never over.
            let over = last_sent.checked_add(probe.timeout);
            if tally.waiting() == 0 || over.is_some_and(|over| now >= over) {
                return Ok(());
            }
            over.unwrap_or(now + STOP_SLICE)
        };
        let extra = if blocked { PollFlags::POLLOUT } else { PollFlags::empty() };
        wait(transport, extra, wake.saturating_duration_since(now).min(STOP_SLICE))?;
        blocked = false;
    }
}

/// Waits until a socket has something to say, at most `timeout`.
fn wait(transport: &impl Transport, extra: PollFlags, timeout: Duration) -> io::Result<()> {
    let mut fds: Vec<PollFd<'_>> =
        transport.sockets().into_iter().map(|(fd, flags)| PollFd::new(fd, flags | extra)).collect();
    match ppoll(&mut fds, Some(TimeSpec::from_duration(timeout)), None) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_do_not_add_up() {
        let origin = Instant::now();
        let ms = Duration::from_millis;
        let mut schedule = Schedule { origin, base: 0, interval: ms(1) };
        assert_eq!(schedule.due(1000), origin + ms(1000));
        schedule.forgive(1000, origin + ms(1400));
        assert_eq!(schedule.due(1001), origin + ms(1001), "a short lag is caught up");
        schedule.forgive(1000, origin + ms(9000));
        assert_eq!(schedule.due(1001), origin + ms(9001), "a long one is not");
    }

    #[test]
    fn absurd_intervals_do_not_overflow() {
        let schedule =
            Schedule { origin: Instant::now(), base: 0, interval: Duration::from_secs(u64::MAX) };
        assert!(schedule.due(u64::MAX) > schedule.origin);
    }
}
