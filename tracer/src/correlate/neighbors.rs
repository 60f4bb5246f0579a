//! Address resolutions: who asked for whom, and whether anybody answered.

use crate::model::{Event, EventKind, Neighbor, Resolution};

/// Resolutions kept.
const MAX_RESOLUTIONS: usize = 1000;
/// A question this long after the one before begins a new resolution, ns: the kernel repeats an
/// unanswered one every second (`retrans_time_ms`), three times.
const AGAIN_NS: u64 = 2_000_000_000;

/// Resolutions seen.
#[derive(Debug, Default)]
pub(super) struct Neighbors {
    pub resolutions: Vec<Resolution>,
    /// When each was last asked, ns, and which way the first question crossed its station: bridges
    /// in hairpin mode send a broadcast back to where it came from.
    asked: Vec<(u64, EventKind)>,
}

impl Neighbors {
    /// ARP or neighbour discovery came by.
    pub fn see(&mut self, event: &Event, neighbor: &Neighbor) {
        if neighbor.request {
            self.ask(event, neighbor);
        } else {
            self.answer(event, neighbor);
        }
    }

    fn latest(&self, is: impl Fn(&Resolution) -> bool) -> Option<usize> {
        self.resolutions.iter().rposition(is)
    }

    fn ask(&mut self, event: &Event, question: &Neighbor) {
        // An announcement of one's own address asks for nothing, nor does a probe for duplicates.
        if question.sender_ip == question.target_ip || question.sender_ip.is_unspecified() {
            return;
        }
        let (asker, target) = (question.sender_ip, question.target_ip);
        if let Some(at) = self.latest(|r| r.asker == asker && r.target == target) {
            // The same question at its next hops is seen within the time of one repetition.
            let repeats = event.time_ns.saturating_sub(self.asked[at].0) <= AGAIN_NS;
            if repeats || self.asked.len() >= MAX_RESOLUTIONS {
                self.asked[at].0 = event.time_ns;
                let known = &mut self.resolutions[at];
                let there = known.station == event.station && self.asked[at].1 == event.kind;
                known.requests += u32::from(there);
                return;
            }
        }
        if self.resolutions.len() < MAX_RESOLUTIONS {
            self.asked.push((event.time_ns, event.kind.clone()));
            self.resolutions.push(Resolution {
                station: event.station,
                time_ns: event.time_ns,
                asker,
                target,
                requests: 1,
                answer: None,
            });
        }
    }

    fn answer(&mut self, event: &Event, answer: &Neighbor) {
        // An ARP reply names the asker as its target, an advertisement what it advertises.
        let fits = |r: &Resolution| {
            r.answer.is_none()
                && r.time_ns <= event.time_ns
                && ((answer.sender_ip == r.target && answer.target_ip == r.asker)
                    || answer.target_ip == r.target)
        };
        if let Some(at) = self.latest(fits) {
            let sender = event.packet.eth.map(|eth| eth.src);
            self.resolutions[at].answer = answer.sender_mac.or(sender);
        }
    }
}
