//! The records of a trace file.

use serde::{Deserialize, Serialize};

use super::event::EventRecord;
use crate::expect::Family;
use crate::facts::PathFacts;
use crate::model::{Loss, Observation, RoundTrip, Topology};
use crate::report::Verdict;

/// The value of [`Header::schema`] that is written.
pub const SCHEMA: &str = "podtrace.trace/1";

/// One line of a trace file: `{"KIND": VALUE}`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Record<'a> {
    /// The first record.
    Header(Box<Header>),
    /// Where the flow can pass, once for each address family and each end that packets may come to.
    Topology(Box<FamilyTopology>),
    /// State of the namespaces on the path.
    Facts(Box<Facts>),
    /// What the capture tells besides events, as far as it is known by now; the last one counts.
    Observation(Box<Observed>),
    /// Something seen.
    Event(#[serde(borrow)] EventRecord<'a>),
    /// The events since the last such record, so many, were handed on together.
    Batch(u64),
    /// Nothing was on its way any more.
    Idle(()),
    /// Everything that a machine will have seen up to this reading of its clock is in the file.
    Reached(Reached),
    /// A machine's clock was read.
    Clock(RoundTrip),
    /// Kernel time after which new packets do not count, ns.
    Closed(u64),
    /// A stage of the trace is over; the observation is about it. What follows belongs to the next.
    Stage(Box<Stage>),
    /// The observation of the main stage, put right by what was found out later.
    Amended(Box<Observed>),
    /// Losses so far, since the start.
    Loss(Losses),
    /// A remark of the recorder.
    Note(String),
    /// The last record.
    End(Box<End>),
    /// A kind that this version does not know.
    #[serde(skip)]
    Unknown(String),
}

/// What the file is and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// [`SCHEMA`].
    pub schema: String,
    /// Version of podtrace.
    pub tool: String,
    /// Wall-clock time at which the trace began, RFC 3339.
    pub started: String,
    /// The command line.
    #[serde(default)]
    pub command: Vec<String>,
    /// Machines that events come from; the first is the one that traced.
    #[serde(default)]
    pub machines: Vec<Machine>,
    /// Position among the files of a rotated recording, from 1.
    #[serde(default = "one")]
    pub part: u32,
    /// Addresses and names are stand-ins.
    #[serde(default)]
    pub private: bool,
}

fn one() -> u32 {
    1
}

/// A machine that events come from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Machine {
    /// Kernel release (`uname -r`).
    pub kernel: String,
    /// Hardware architecture (`uname -m`).
    pub architecture: String,
    /// Clock of its events.
    pub clock: Clock,
}

/// A clock, read against the wall clock once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Clock {
    /// `CLOCK_MONOTONIC`.
    pub name: String,
    /// What it showed, ns …
    pub at_ns: u64,
    /// … when the wall clock showed this, RFC 3339.
    pub wall: String,
}

/// Where the flow can pass.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FamilyTopology {
    /// Address family.
    pub family: Family,
    /// Interfaces, planned paths, names.
    pub topology: Topology,
}

/// When facts were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum When {
    /// Before the first event.
    Before,
    /// After the last.
    After,
}

/// State of the namespaces on the path at one time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// When.
    pub when: When,
    /// What.
    pub facts: PathFacts,
}

/// What the capture tells besides events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Observed {
    /// How long the trace has run by now, ns.
    pub duration_ns: u64,
    /// All else.
    #[serde(flatten)]
    pub observation: Observation,
}

/// What was traced from the stage before, or from the start, on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stage {
    /// For what.
    pub kind: StageKind,
    /// Bytes of network-layer packet, where the stage is about packets of one size.
    #[serde(default)]
    pub mtu: Option<u32>,
    /// What the capture tells besides events.
    #[serde(flatten)]
    pub observed: Observed,
}

/// What a stage of a trace is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StageKind {
    /// The trace asked for.
    Main,
    /// Packets as large as the source pod's interface takes.
    Large,
    /// One that this version does not know.
    #[serde(other)]
    Unknown,
}

/// Until when the events of a machine are complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reached {
    /// Number of the machine.
    #[serde(rename = "m")]
    pub machine: u16,
    /// CLOCK_MONOTONIC there, ns; `None`: nothing comes from it any more.
    #[serde(rename = "t")]
    pub until_ns: Option<u64>,
}

/// What was lost so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Losses {
    /// In the capture.
    #[serde(flatten)]
    pub capture: Loss,
    /// Events that were seen but not recorded, because writing did not keep up.
    pub unrecorded: u64,
}

/// That the recording is complete, and what was concluded from it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct End {
    /// Events that were not recorded.
    #[serde(default)]
    pub unrecorded: u64,
    /// The overall verdict; `null` where there was none.
    #[serde(default)]
    pub verdict: Option<Verdict>,
    /// The trace went on, and with it the recording in another file.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub continued: bool,
}

impl<'de: 'a, 'a> Deserialize<'de> for Record<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Line(std::marker::PhantomData))
    }
}

/// Reads the value straight into the type that its key asks for.
struct Line<'a>(std::marker::PhantomData<&'a ()>);

impl<'de: 'a, 'a> serde::de::Visitor<'de> for Line<'a> {
    type Value = Record<'a>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object with one member, the kind of the record")
    }

    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        use serde::de::{Error, IgnoredAny};
        let Some(kind) = map.next_key::<std::borrow::Cow<'de, str>>()? else {
            return Err(A::Error::custom("the object is empty"));
        };
        let record = match &*kind {
            "event" => Record::Event(map.next_value()?),
            "batch" => Record::Batch(map.next_value()?),
            "idle" => {
                map.next_value::<IgnoredAny>()?;
                Record::Idle(())
            }
            "closed" => Record::Closed(map.next_value()?),
            "reached" => Record::Reached(map.next_value()?),
            "clock" => Record::Clock(map.next_value()?),
            "header" => Record::Header(map.next_value()?),
            "topology" => Record::Topology(map.next_value()?),
            "facts" => Record::Facts(map.next_value()?),
            "observation" => Record::Observation(map.next_value()?),
            "stage" => Record::Stage(map.next_value()?),
            "amended" => Record::Amended(map.next_value()?),
            "loss" => Record::Loss(map.next_value()?),
            "note" => Record::Note(map.next_value()?),
            "end" => Record::End(map.next_value()?),
            unknown => {
                let kind = unknown.chars().take(40).collect();
                map.next_value::<IgnoredAny>()?;
                Record::Unknown(kind)
            }
        };
        if map.next_key::<IgnoredAny>()?.is_some() {
            return Err(A::Error::custom("the object has more than one member"));
        }
        Ok(record)
    }
}
