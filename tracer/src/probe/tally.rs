//! Bookkeeping of a probe: what is outstanding, what was answered, how long it took.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use nix::errno::Errno;

use crate::model::{Attempt, AttemptOutcome, ProbeResult};

/// Packets remembered while they wait for an answer; at most as many as ICMP has sequence numbers.
const WINDOW: usize = 1 << 16;
/// Round-trip times kept (8 MiB): a probe may run for days.
const MAX_RTTS: usize = 1 << 20;
/// Different error texts kept; what differs only by who complained could grow without end.
const MAX_ERRORS: usize = 32;
/// Text under which errors beyond [`MAX_ERRORS`] are counted.
const OTHER_ERRORS: &str = "other errors";

/// What another thread may read while the probe runs.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) sent: AtomicU64,
    pub(super) answered: AtomicU64,
}

/// State of one packet.
#[derive(Clone, Copy, Debug)]
enum Slot {
    Waiting(Instant),
    Answered(u64),
    /// Refused by an error, or given up: nothing more is expected.
    Closed,
}

/// Counts and outstanding packets of a probe. Packets are numbered from 0.
#[derive(Debug)]
pub(super) struct Tally {
    result: ProbeResult,
    counters: Arc<Counters>,
    window: VecDeque<Slot>,
    /// Number of the first packet in `window`.
    first: u64,
    waiting: usize,
}

impl Tally {
    pub(super) fn new(proto: &str, counters: Arc<Counters>) -> Self {
        let result = ProbeResult { proto: proto.to_owned(), ..ProbeResult::default() };
        Self { result, counters, window: VecDeque::new(), first: 0, waiting: 0 }
    }

    /// Packets sent; also the number of the next one.
    pub(super) fn sent(&self) -> u64 {
        self.result.sent
    }

    /// Packets that may still be answered.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Counts a packet about to be sent. One that the kernel refuses is counted too, as ping does:
    /// it was tried.
    pub(super) fn send(&mut self, now: Instant) {
        if self.window.len() == WINDOW {
            self.retire();
        }
        self.window.push_back(Slot::Waiting(now));
        self.waiting += 1;
        self.result.sent += 1;
        self.counters.sent.store(self.result.sent, Ordering::Relaxed);
    }

    /// Packet `number`, which was just counted, leaves from local `port` (0: it got none).
    pub(super) fn attempt(&mut self, number: u64, port: u16) {
        let attempts = &mut self.result.attempts;
        // Packet n is the nth of them.
        if attempts.len() as u64 == number && attempts.len() < ProbeResult::MAX_ATTEMPTS {
            attempts.push(Attempt { port, outcome: AttemptOutcome::Unanswered });
        }
    }

    /// Enters what became of packet `number`, where attempts are told one by one.
    fn became(&mut self, number: u64, outcome: AttemptOutcome) {
        let index = usize::try_from(number).unwrap_or(usize::MAX);
        if let Some(attempt) = self.result.attempts.get_mut(index) {
            attempt.outcome = outcome;
        }
    }

    /// Takes back the last [`Tally::send`]: the kernel was not ready for it.
    pub(super) fn unsend(&mut self) {
        if let Some(Slot::Waiting(_)) = self.window.back() {
            self.window.pop_back();
            self.waiting -= 1;
            self.result.sent -= 1;
            self.counters.sent.store(self.result.sent, Ordering::Relaxed);
        }
    }

    /// An answer to packet `number` arrived; answers that nothing waits for (duplicates, foreign
    /// ones) do not count.
    pub(super) fn answer(&mut self, number: u64, now: Instant) -> bool {
        let Some(slot) = self.slot(number) else { return false };
        let Slot::Waiting(at) = *slot else { return false };
        let rtt = u64::try_from(now.saturating_duration_since(at).as_nanos()).unwrap_or(u64::MAX);
        *slot = Slot::Answered(rtt);
        self.waiting -= 1;
        self.result.answered += 1;
        self.became(number, AttemptOutcome::Answered);
        self.counters.answered.store(self.result.answered, Ordering::Relaxed);
        while self.window.front().is_some_and(|s| !matches!(s, Slot::Waiting(_))) {
            self.retire();
        }
        true
    }

    /// Packet `number` was refused by the destination: an answer, too.
    pub(super) fn refuse(&mut self, number: u64, now: Instant) {
        if self.answer(number, now) {
            self.result.refused += 1;
            self.became(number, AttemptOutcome::Refused);
        }
    }

    /// Packet `number` failed with `error`.
    pub(super) fn fail(&mut self, number: u64, error: String) {
        if self.give_up(number) {
            self.became(number, AttemptOutcome::Error);
        }
        self.error(error);
    }

    /// Nothing more is expected for packet `number`; false if nothing was.
    pub(super) fn give_up(&mut self, number: u64) -> bool {
        if let Some(slot) = self.slot(number)
            && matches!(slot, Slot::Waiting(_))
        {
            *slot = Slot::Closed;
            self.waiting -= 1;
            return true;
        }
        false
    }

    /// Counts an error that belongs to no packet in particular.
    pub(super) fn error(&mut self, text: String) {
        let errors = &mut self.result.errors;
        let known = |errors: &[(String, u64)], text: &str| errors.iter().position(|e| e.0 == text);
        let text = match known(errors, &text) {
            None if errors.len() >= MAX_ERRORS => OTHER_ERRORS.to_owned(),
            _ => text,
        };
        match known(errors, &text).and_then(|i| errors.get_mut(i)) {
            Some(entry) => entry.1 += 1,
            None => errors.push((text, 1)),
        }
    }

    /// The full number of the latest packet sent whose low 16 bits are `low`.
    pub(super) fn number(&self, low: u16) -> Option<u64> {
        let last = self.result.sent.checked_sub(1)?;
        last.checked_sub(u64::from((last as u16).wrapping_sub(low)))
    }

    /// The result, with the round-trip times in order of sending.
    pub(super) fn finish(mut self) -> ProbeResult {
        while !self.window.is_empty() {
            self.retire();
        }
        self.result
    }

    fn slot(&mut self, number: u64) -> Option<&mut Slot> {
        let index = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.window.get_mut(index)
    }

    /// Forgets the oldest packet.
    fn retire(&mut self) {
        match self.window.pop_front() {
            Some(Slot::Answered(rtt)) if self.result.rtt_ns.len() < MAX_RTTS => {
                self.result.rtt_ns.push(rtt);
            }
            Some(Slot::Waiting(_)) => self.waiting -= 1,
            Some(_) => {}
            None => return,
        }
        self.first += 1;
    }
}

/// `EPERM: Operation not permitted`: the name is what one searches for, the words are what one
/// understands.
pub(super) fn error_text(error: &io::Error) -> String {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(errno) => format!("{errno:?}: {}", errno.desc()),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn tally() -> Tally {
        Tally::new("icmp", Arc::default())
    }

    #[test]
    fn round_trip_times_are_in_order_of_sending() {
        let start = Instant::now();
        let mut tally = tally();
        (0..4).for_each(|_| tally.send(start));
        assert!(tally.answer(2, start + Duration::from_nanos(300)));
        assert!(tally.answer(0, start + Duration::from_nanos(500)));
        tally.fail(3, "EPERM".into());
        assert!(!tally.answer(2, start + Duration::from_nanos(900)), "a duplicate counts twice");
        assert!(!tally.answer(9, start), "an answer to nothing counts");
        assert_eq!(tally.waiting(), 1);
        let result = tally.finish();
        assert_eq!((result.sent, result.answered), (4, 2));
        assert_eq!(result.rtt_ns, [500, 300]);
        assert_eq!(result.errors, [("EPERM".to_owned(), 1)]);
        assert_eq!(result.attempts, [], "pings have no ports");
    }

    #[test]
    fn attempts_tell_port_and_outcome() {
        let now = Instant::now();
        let mut tally = tally();
        for port in [5, 4, 3, 2] {
            let number = tally.sent();
            tally.send(now);
            tally.attempt(number, port);
        }
        tally.fail(3, "EPERM".into());
        tally.refuse(1, now);
        assert!(tally.answer(2, now));
        tally.refuse(2, now);
        tally.fail(2, "late".into());
        let outcome = |port, outcome| Attempt { port, outcome };
        assert_eq!(
            tally.finish().attempts,
            [
                outcome(5, AttemptOutcome::Unanswered),
                outcome(4, AttemptOutcome::Refused),
                outcome(3, AttemptOutcome::Answered),
                outcome(2, AttemptOutcome::Error),
            ]
        );
    }

    #[test]
    fn attempts_told_one_by_one_are_bounded() {
        let (now, max) = (Instant::now(), ProbeResult::MAX_ATTEMPTS);
        let mut tally = tally();
        for number in 0..max as u64 + 2 {
            tally.send(now);
            tally.attempt(number, 1);
            tally.refuse(number, now);
        }
        let result = tally.finish();
        assert_eq!(result.refused, max as u64 + 2);
        assert_eq!(result.attempts.len(), max);
    }

    #[test]
    fn sequence_numbers_wrap() {
        let now = Instant::now();
        let mut tally = tally();
        assert_eq!(tally.number(0), None);
        for n in 0..70_000_u64 {
            tally.send(now);
            assert_eq!(tally.number(n as u16), Some(n));
        }
        assert_eq!(tally.number(65_535), Some(65_535));
        assert_eq!(tally.waiting(), WINDOW);
        assert!(!tally.answer(70_000 - WINDOW as u64 - 1, now));
        assert!(tally.answer(70_000 - WINDOW as u64, now));
        assert_eq!(tally.finish().sent, 70_000);
    }

    #[test]
    fn a_packet_the_kernel_was_not_ready_for_is_taken_back() {
        let mut tally = tally();
        tally.send(Instant::now());
        tally.unsend();
        assert_eq!((tally.sent(), tally.waiting()), (0, 0));
    }

    #[test]
    fn different_errors_are_bounded() {
        let mut tally = tally();
        (0..100).for_each(|n| tally.error(format!("error {n}")));
        tally.error("error 0".into());
        let errors = tally.finish().errors;
        assert_eq!(errors.len(), MAX_ERRORS + 1);
        assert_eq!(errors.first(), Some(&("error 0".to_owned(), 2)));
        assert_eq!(errors.last(), Some(&(OTHER_ERRORS.to_owned(), 100 - MAX_ERRORS as u64)));
    }

    #[test]
    fn errors_carry_name_and_words() {
        let error = io::Error::from_raw_os_error(libc::EPERM);
        assert_eq!(error_text(&error), "EPERM: Operation not permitted");
    }
}
