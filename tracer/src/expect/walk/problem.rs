//! A problem on the way: what, where, how bad, how sure.

use super::{ProblemKind, Spot, Stage};
use crate::model::{Direction, Point};

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Seriousness {
    /// Worth knowing; the packet passes.
    Note,
    /// Some packets suffer: large ones, many at once, later ones.
    Harms,
    /// The packet asked about goes no further.
    Deadly,
}

/// Something wrong on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What.
    pub kind: ProblemKind,
    /// Where its entry is.
    pub spot: Spot,
    /// In which part of the kernel the packet meets it.
    pub stage: Stage,
    /// Which way the packet goes.
    pub direction: Direction,
    /// How many points of the planned path come before it.
    pub position: usize,
    /// The last planned point where the packet is seen; `None`: before the first.
    pub after: Option<Point>,
    /// The first planned point where it is not; `None`: behind the last.
    pub before: Option<Point>,
    /// How bad.
    pub seriousness: Seriousness,
    /// Whether the facts prove it; otherwise it depends on what is not known.
    pub certain: bool,
    /// One sentence for a person.
    pub text: String,
    /// The table entry at fault, as its tool prints it; `None` where one is missing.
    pub entry: Option<String>,
}

impl Problem {
    /// Whether the packet asked about goes no further.
    pub fn deadly(&self) -> bool {
        self.seriousness == Seriousness::Deadly
    }

    /// Stable code, `area.cause`.
    pub fn cause(&self) -> &'static str {
        self.kind.cause()
    }

    /// What it is read from, beside [`Problem::entry`].
    pub fn evidence(&self) -> &[String] {
        match &self.kind {
            ProblemKind::Firewall { meaning: Some(meaning), .. }
            | ProblemKind::Untranslated { meaning } => &meaning.evidence,
            _ => &[],
        }
    }

    /// Commands that mend it, as typed in the namespace of [`Problem::spot`] or where the comment
    /// in them says; best first.
    pub fn fix(&self) -> Vec<String> {
        super::fix::commands(&self.kind, &self.spot)
    }
}
