//! Events on their way from a node.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::decode::{RawEvent, Unpacker, time_of};
use crate::kernel::HeldBatch;
use crate::model::Reading;
use crate::record::{EventRecord, check_event};

/// What a named event takes beyond its packet, bytes.
const EVENT_BYTES: usize = 96;

/// Events of one node, in nearly the order of time.
///
/// Serialised as the records of a trace file are.
#[derive(Debug)]
pub enum Events {
    /// As the kernel of this machine wrote them. They are named when they are read: under heavy
    /// traffic that can wait.
    Raw {
        /// The records.
        batch: HeldBatch,
        /// What reads them.
        unpacker: Arc<Unpacker>,
    },
    /// Named already.
    Named(Vec<RawEvent<'static>>),
}

impl Default for Events {
    fn default() -> Self {
        Self::Named(Vec::new())
    }
}

impl Events {
    /// Number of records.
    pub fn len(&self) -> usize {
        match self {
            Self::Raw { batch, .. } => batch.len(),
            Self::Named(events) => events.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Memory taken, bytes.
    pub fn size(&self) -> usize {
        match self {
            Self::Raw { batch, .. } => batch.size(),
            Self::Named(events) => events.iter().map(|e| EVENT_BYTES + e.data.len()).sum(),
        }
    }

    /// Reads them one after the other; `None` for a record that is not an event.
    pub fn for_each<'a>(&'a self, mut f: impl FnMut(Option<RawEvent<'a>>)) {
        match self {
            Self::Raw { batch, unpacker } => {
                for record in batch.records() {
                    f(unpacker.unpack(record));
                }
            }
            Self::Named(events) => {
                for event in events {
                    f(Some(event.borrowed()));
                }
            }
        }
    }

    /// When the first of them happened, by the clock of its machine.
    pub fn first(&self) -> Option<Reading> {
        match self {
            Self::Raw { batch, .. } => {
                Some(Reading { machine: 0, ns: time_of(batch.records().next()?)? })
            }
            Self::Named(events) => Some(events.first()?.reading()),
        }
    }

    /// Reads those that happened at times that are wanted, ns.
    pub fn of_times(&self, wanted: impl Fn(u64) -> bool, mut f: impl FnMut(RawEvent<'_>)) {
        match self {
            Self::Raw { batch, unpacker } => {
                let records = batch.records().filter(|r| time_of(r).is_some_and(&wanted));
                records.filter_map(|record| unpacker.unpack(record)).for_each(f);
            }
            Self::Named(events) => {
                for event in events.iter().filter(|event| wanted(event.time_ns)) {
                    f(event.borrowed());
                }
            }
        }
    }

    /// Gives back memory that there is room for and that is not needed.
    pub fn shrink(&mut self) {
        match self {
            Self::Raw { batch, .. } => batch.shrink(),
            Self::Named(events) => events.shrink_to_fit(),
        }
    }

    /// They have been dealt with: what is kept of them no longer counts as backlog.
    pub fn release(&self) {
        if let Self::Raw { batch, .. } = self {
            batch.release();
        }
    }

    /// Names all of them; with the number of records that are none.
    pub fn named(&self) -> (Vec<RawEvent<'static>>, u64) {
        let mut events = Vec::with_capacity(self.len());
        let mut undecodable = 0;
        self.for_each(|event| match event {
            Some(event) => events.push(event.into_owned()),
            None => undecodable += 1,
        });
        (events, undecodable)
    }
}

impl Serialize for Events {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut records = Vec::with_capacity(self.len());
        // What cannot be read is counted where it is named.
        self.for_each(|event| records.extend(event.map(EventRecord::of)));
        serializer.collect_seq(records)
    }
}

impl<'de> Deserialize<'de> for Events {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let records = Vec::<EventRecord<'de>>::deserialize(deserializer)?;
        let events = records.into_iter().map(|record| {
            let event = record.event()?;
            check_event(&event)?;
            Ok(event)
        });
        let events: Result<_, String> = events.collect();
        events.map(Self::Named).map_err(serde::de::Error::custom)
    }
}
