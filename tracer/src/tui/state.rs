//! What is shown: panel, selection, filter, and whether the view stands.

use tui_input::Input;

use super::filter::Query;
use super::model::Model;
use super::{Captured, Look, Snapshot, Source, Wanted};
use crate::model::Direction;
use crate::report::JourneyReport;

/// A panel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Panel {
    Path,
    Packets,
    Drops,
    Verdict,
    Facts,
}

impl Panel {
    pub const ALL: [Panel; 5] =
        [Panel::Path, Panel::Packets, Panel::Drops, Panel::Verdict, Panel::Facts];

    pub fn title(self) -> &'static str {
        match self {
            Panel::Path => "Path",
            Panel::Packets => "Packets",
            Panel::Drops => "Drops",
            Panel::Verdict => "Verdict",
            Panel::Facts => "Facts",
        }
    }

    /// The panel `by` further on, round and round.
    pub fn step(self, by: usize) -> Self {
        let at = Self::ALL.iter().position(|p| *p == self).unwrap_or(0);
        Self::ALL[(at + by) % Self::ALL.len()]
    }
}

/// All that drawing depends on.
#[derive(Debug)]
pub(super) struct State {
    pub look: Look,
    pub source: Source,
    live: Model,
    /// What is shown while the view stands.
    frozen: Option<Box<Model>>,
    pub panel: Panel,
    pub direction: Direction,
    pub help: bool,
    /// The selected packet is shown whole.
    pub detail: bool,
    /// Id of the selected packet; `None` follows the newest.
    pub selected: Option<String>,
    /// Selected group of drops.
    pub group: usize,
    /// First line, and column, that text is shown from.
    pub scroll: (usize, usize),
    pub filter: Input,
    /// The filter is being typed.
    pub typing: bool,
    /// A format to export to is being chosen.
    pub choosing: bool,
    /// What the user was told last, until the next key.
    pub message: Option<String>,
    /// Captured bytes of the packet that was asked for last.
    pub captured: Option<Captured>,
    /// Rows of the last drawn list or text: a page.
    pub page: usize,
    /// Lines of the last drawn text.
    pub lines: usize,
}

impl State {
    pub fn new(look: Look, source: Source) -> Self {
        Self {
            look,
            source,
            live: Model::default(),
            frozen: None,
            panel: Panel::Path,
            direction: Direction::Forward,
            help: false,
            detail: false,
            selected: None,
            group: 0,
            scroll: (0, 0),
            filter: Input::default(),
            typing: false,
            choosing: false,
            message: None,
            captured: None,
            page: 10,
            lines: 0,
        }
    }

    /// Takes what is new; shown at once unless the view stands.
    pub fn apply(&mut self, snapshot: Snapshot) {
        self.live.apply(snapshot);
    }

    /// What is shown.
    pub fn model(&self) -> &Model {
        self.frozen.as_deref().unwrap_or(&self.live)
    }

    pub fn is_frozen(&self) -> bool {
        self.frozen.is_some()
    }

    /// Lets the view stand, or go on.
    pub fn freeze(&mut self) {
        self.frozen = match self.frozen.take() {
            Some(_) => None,
            None => Some(Box::new(self.live.clone())),
        };
    }

    pub fn show(&mut self, panel: Panel) {
        self.panel = panel;
        self.detail = false;
        self.scroll = (0, 0);
    }

    /// Packets that pass the filter, oldest first.
    pub fn packets(&self) -> Vec<&JourneyReport> {
        let query = Query::of(self.filter.value());
        self.model().packets.values().filter(|j| query.admits(j)).collect()
    }

    /// Shows the selected packet whole; what is to be asked for to that end.
    pub fn open(&mut self) -> Option<Wanted> {
        let packets = self.packets();
        let packet = packets[self.position(&packets)?];
        let sightings = packet.hops.iter().map(|hop| (hop.clock, hop.point.clone()));
        let wanted = Wanted { id: packet.id.clone(), sightings: sightings.collect() };
        // The one that is looked at stays when others come.
        self.selected = Some(wanted.id.clone());
        self.detail = true;
        self.scroll = (0, 0);
        Some(wanted)
    }

    /// Position of the selected packet among `packets`.
    pub fn position(&self, packets: &[&JourneyReport]) -> Option<usize> {
        let last = packets.len().checked_sub(1)?;
        let found = self.selected.as_ref().and_then(|id| packets.iter().position(|j| j.id == *id));
        Some(found.unwrap_or(last))
    }

    /// Selects the packet `by` further on, or back.
    pub fn select(&mut self, by: isize) {
        let packets = self.packets();
        let Some(at) = self.position(&packets) else { return };
        let to = at.saturating_add_signed(by).min(packets.len() - 1);
        // The last one stays the newest when more come.
        let selected = (to + 1 < packets.len()).then(|| packets[to].id.clone());
        self.selected = selected;
        self.scroll = (0, 0);
    }
}
