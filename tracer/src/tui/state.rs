//! What is shown: panel, selection, filter, and whether the view stands.

use tui_input::Input;

use super::model::Model;
use super::{Look, Snapshot, Source};
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
        let words: Vec<String> =
            self.filter.value().split_whitespace().map(str::to_lowercase).collect();
        self.model().packets.values().filter(|j| passes(j, &words)).collect()
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

/// Whether all the words are found in what is known of the packet.
fn passes(journey: &JourneyReport, words: &[String]) -> bool {
    if words.is_empty() {
        return true;
    }
    let mut text = format!("{} {} {:?}", journey.direction, journey.summary, journey.outcome);
    for hop in &journey.hops {
        let (inner, point) = (&hop.inner, &hop.point);
        text += &format!(" {} {} {}", inner.src_ip, inner.dst_ip, point.interface);
        text.extend(hop.names.values().map(|name| format!(" {name}")));
    }
    for drop in journey.drop.iter().chain(&journey.side_drops) {
        text += &format!(" {} {}", drop.reason.name, drop.function);
    }
    let text = text.to_lowercase();
    words.iter().all(|word| text.contains(word))
}
