//! How many packets: each number has one definition (docs/output.md) and is made here, so that every view
//! says the same.

use serde::{Deserialize, Serialize};

use super::Report;
use crate::model::ProbeResult;

/// Counts over all journeys. What was sent is delivered, dropped or lost, or unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PacketCounts {
    /// Forward packets that left the source, or that its own kernel dropped, within the trace.
    pub sent: u64,
    /// Of those, the ones that reached the destination whole.
    pub delivered: u64,
    /// Reply packets that reached the source whole.
    pub replied: u64,
    /// Packets whose bytes had been sent before.
    pub retransmitted: u64,
    /// Identical copies of packets.
    pub duplicated: u64,
    /// With a probe: attempts that got a reply. Without: as `replied`.
    #[serde(default)]
    pub answered: u64,
    /// With a probe: attempts that got a refusal (RST, port unreachable). Without: packets sent that were
    /// dropped and of which the sender was told.
    #[serde(default)]
    pub refused: u64,
    /// Packets sent of which nobody knows what became: under way when the trace ended, or when a node
    /// could no longer be observed; not seen to arrive, where the observation has holes.
    #[serde(default)]
    pub unknown: u64,
}

impl PacketCounts {
    /// Adds those of other packets.
    pub fn add(&mut self, more: &Self) {
        self.sent += more.sent;
        self.delivered += more.delivered;
        self.replied += more.replied;
        self.retransmitted += more.retransmitted;
        self.duplicated += more.duplicated;
        self.answered += more.answered;
        self.refused += more.refused;
        self.unknown += more.unknown;
    }

    /// What was answered and refused as the probe tells it, where there was one.
    pub fn told_by(&mut self, probe: Option<&ProbeResult>) {
        if let Some(probe) = probe {
            self.refused = probe.refused.min(probe.answered);
            self.answered = probe.answered - self.refused;
        }
    }
}

impl Report {
    /// The counts in words: `5/5 delivered, 5/5 answered`.
    pub fn counts(&self) -> String {
        let PacketCounts { sent, delivered, replied, answered, refused, unknown, .. } =
            self.packets;
        let nothing = sent == 0 && replied == 0;
        let mut parts = Vec::new();
        if nothing {
            parts.push("no packet seen".to_owned());
        } else {
            parts.push(format!("{delivered}/{sent} delivered"));
        }
        if unknown > 0 {
            parts.push(format!("{unknown} unknown"));
        }
        // Attempts of a probe are counted out of all of them.
        let attempts = self.probe.as_ref().map(|probe| format!("/{}", probe.sent));
        let of = attempts.as_deref().unwrap_or_default();
        if answered > 0 || refused == 0 && !nothing {
            parts.push(format!("{answered}{of} answered"));
        }
        if refused > 0 {
            parts.push(format!("{refused}{of} refused"));
        }
        parts.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::fixtures;

    #[test]
    fn counts_are_put_in_words() {
        let mut report = fixtures::healthy();
        assert_eq!(report.counts(), "5/5 delivered, 5/5 answered");
        let packets = |sent, delivered, answered, refused, unknown| PacketCounts {
            sent,
            delivered,
            replied: answered,
            answered,
            refused,
            unknown,
            ..PacketCounts::default()
        };
        report.packets = packets(5, 5, 0, 5, 0);
        assert_eq!(report.counts(), "5/5 delivered, 5/5 refused");
        report.packets = packets(5, 5, 2, 3, 0);
        assert_eq!(report.counts(), "5/5 delivered, 2/5 answered, 3/5 refused");
        report.packets = packets(0, 0, 0, 0, 0);
        assert_eq!(report.counts(), "no packet seen");
        report.packets = packets(0, 0, 5, 0, 0);
        report.packets.replied = 0;
        assert_eq!(report.counts(), "no packet seen, 5/5 answered");
        report.probe = None;
        report.packets = packets(30, 3, 3, 0, 27);
        assert_eq!(report.counts(), "3/30 delivered, 27 unknown, 3 answered");
    }

    #[test]
    fn the_probe_tells_answers_from_refusals() {
        let probe = ProbeResult { sent: 5, answered: 4, refused: 1, ..ProbeResult::default() };
        let mut counts = PacketCounts { answered: 9, refused: 9, ..PacketCounts::default() };
        counts.told_by(None);
        assert_eq!((counts.answered, counts.refused), (9, 9));
        counts.told_by(Some(&probe));
        assert_eq!((counts.answered, counts.refused), (3, 1));
    }
}
