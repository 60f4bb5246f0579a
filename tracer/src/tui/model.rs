//! What came so far: the newest snapshot, and what goes beyond its few seconds. Bounded.

use indexmap::IndexMap;

use super::Snapshot;
use crate::report::{DropReport, JourneyReport};

/// Packets that can be scrolled back to.
const PACKETS: usize = 1000;
/// Groups of drops.
const GROUPS: usize = 200;
/// Points of the course of a group's count.
const COURSE: usize = 60;

/// Drops at one place for one reason.
#[derive(Clone, Debug)]
pub(super) struct DropGroup {
    /// The newest.
    pub last: DropReport,
    /// All of them.
    pub count: u64,
    /// Those in each snapshot, oldest first.
    pub course: Vec<u64>,
    /// Those in the snapshot that is being taken.
    now: u64,
    /// When the last one came, by the trace's time, seconds.
    pub last_s: u64,
}

/// What is remembered.
#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    pub snapshot: Option<Snapshot>,
    /// By id, in the order in which they came.
    pub packets: IndexMap<String, JourneyReport>,
    /// By place and reason.
    pub drops: IndexMap<String, DropGroup>,
}

impl Model {
    /// Takes what is new.
    pub fn apply(&mut self, snapshot: Snapshot) {
        let back = self.snapshot.as_ref().is_some_and(|old| snapshot.elapsed < old.elapsed);
        if back {
            // A recording was wound back.
            self.packets.clear();
            self.drops.clear();
        }
        let now_s = snapshot.elapsed.as_secs();
        for journey in &snapshot.report.journeys {
            let known = self.packets.get(&journey.id);
            if known == Some(journey) {
                continue;
            }
            let told = |j: &JourneyReport| j.drop.iter().chain(&j.side_drops).count();
            let already = known.map_or(0, told);
            for drop in journey.drop.iter().chain(&journey.side_drops).skip(already) {
                let group = group(&mut self.drops, drop);
                group.count += 1;
                group.now += 1;
                group.last_s = now_s;
                let rule = drop.rule.clone().or_else(|| group.last.rule.take());
                group.last = DropReport { rule, ..drop.clone() };
            }
            self.packets.insert(journey.id.clone(), journey.clone());
        }
        for group in self.drops.values_mut() {
            group.course.push(std::mem::take(&mut group.now));
            let more = group.course.len().saturating_sub(COURSE);
            group.course.drain(..more);
        }
        let more = self.packets.len().saturating_sub(PACKETS);
        self.packets.drain(..more);
        let more = self.drops.len().saturating_sub(GROUPS);
        self.drops.drain(..more);
        self.snapshot = Some(snapshot);
    }
}

/// The group that a drop belongs to, begun if need be. Which rule dropped is known a while later than
/// that packets are dropped, once the tables were read.
fn group<'a>(groups: &'a mut IndexMap<String, DropGroup>, drop: &DropReport) -> &'a mut DropGroup {
    let place = place(drop);
    let mut key = place.clone() + drop.rule.as_deref().unwrap_or_default();
    if !groups.contains_key(&key) {
        match &drop.rule {
            Some(_) => {
                if let Some(group) = groups.shift_remove(&place) {
                    groups.insert(key.clone(), group);
                }
            }
            None => {
                let named = groups.keys().rev().find(|key| key.starts_with(&place));
                key = named.cloned().unwrap_or(key);
            }
        }
    }
    groups.entry(key).or_insert_with(|| DropGroup {
        last: drop.clone(),
        count: 0,
        course: Vec::new(),
        now: 0,
        last_s: 0,
    })
}

/// Where and for which reason, up to the rule.
fn place(drop: &DropReport) -> String {
    let part = |text: &Option<String>| text.clone().unwrap_or_default();
    let place = &drop.place;
    [
        part(&place.node),
        part(&place.pod),
        part(&place.interface),
        part(&drop.hook),
        drop.function.clone(),
        drop.reason.name.clone(),
        String::new(),
    ]
    .join("\0")
}
