//! One clock against the axis: what is known of the offset at every moment. Pure arithmetic.
//!
//! Enters: [`Bound`]s, each saying that at one reading of the clock the offset (axis − clock) is at
//! least, or at most, a number of nanoseconds. Leaves: an [`Interval`] for any reading. Between two
//! bounds the offset moves by no more than [`MAX_DRIFT_PPM`] allows, so that each bound is a cone
//! around its moment; what lies inside all cones is possible, and the truth is. Where nothing does,
//! the clock has been set or was suspended in between: a step. It happened after the last bound that
//! disagrees with what follows, and before the first that disagrees with what came before; in between
//! both offsets are possible.
//!
//! What cannot be noticed is a step that fits between two bounds: one that is smaller than the
//! shortest way there and back; and two steps without a way there and back in between are one.

/// Most that two clocks gain on each other, parts per million. NTP steers a clock by at most 500 ppm
/// (`MAXFREQ`, include/linux/timex.h); here one may be steered up and the other down.
pub const MAX_DRIFT_PPM: u32 = 1000;

/// Bounds kept as they came; beyond it the oldest half is thinned to what decides.
const MAX_BOUNDS: usize = 8192;
/// Tips of cones kept on each side of a stretch that is over.
const MAX_TIPS: usize = 1024;
/// Stretches kept; older ones are forgotten.
const MAX_STRETCHES: usize = 256;
/// How many bounds behind a contradiction decide whether it was a false one.
const LOOK_AHEAD: usize = 64;

/// Which side of the offset a bound is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// The offset is at least this.
    Least,
    /// The offset is at most this.
    Most,
}

/// What one crossing says of a clock's offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bound {
    /// Reading of the clock, ns.
    pub at: i64,
    /// Which side.
    pub side: Side,
    /// Axis − clock, ns.
    pub offset: i64,
    /// Cannot be mistaken: a packet might be taken for another one like it.
    pub certain: bool,
}

/// Where the offset lies; `None`: nothing is known on that side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Interval {
    /// At least, ns.
    pub least: Option<i64>,
    /// At most, ns.
    pub most: Option<i64>,
}

impl Interval {
    /// The clock that the axis is made of.
    pub const ZERO: Self = Self { least: Some(0), most: Some(0) };

    /// Either of two.
    fn hull(self, other: Self) -> Self {
        Self {
            least: self.least.zip(other.least).map(|(a, b)| a.min(b)),
            most: self.most.zip(other.most).map(|(a, b)| a.max(b)),
        }
    }

    /// The offset to reckon with, and by how much it may be wrong at most; `None`: nobody knows.
    pub fn estimate(self) -> (i64, Option<u64>) {
        match (self.least, self.most) {
            (Some(least), Some(most)) => {
                let width = most.saturating_sub(least).max(0);
                (least.saturating_add(width / 2), Some(width.unsigned_abs().div_ceil(2)))
            }
            // Nothing arrives before it has left: at least not at the same time.
            (Some(least), None) => (least.saturating_add(1), None),
            (None, Some(most)) => (most.saturating_sub(1), None),
            (None, None) => (0, None),
        }
    }
}

/// By how much two clocks may have moved against each other between two readings, ns.
fn slack(from: i64, to: i64) -> i64 {
    /// Readings are whole nanoseconds, of both clocks.
    const ROUNDED: u64 = 2;
    if from == to {
        return 0;
    }
    let wander = from.abs_diff(to).div_ceil(1_000_000 / u64::from(MAX_DRIFT_PPM));
    i64::try_from(wander + ROUNDED).unwrap_or(i64::MAX)
}

/// Tips of cones on one side, by time; none lies inside another's cone. As upper bounds: lower ones
/// are entered with their sign changed.
#[derive(Clone, Debug, Default)]
struct Cones(Vec<(i64, i64)>);

impl Cones {
    /// Enters a tip; its time is no less than those before.
    fn push(&mut self, at: i64, value: i64) {
        if self.at(at).is_some_and(|known| known <= value) {
            return;
        }
        while let Some(&(before, tip)) = self.0.last() {
            if value.saturating_add(slack(before, at)) > tip {
                break;
            }
            self.0.pop();
        }
        self.0.push((at, value));
    }

    /// The lowest cone at a time: that of the tip before or behind it.
    fn at(&self, at: i64) -> Option<i64> {
        let behind = self.0.partition_point(|(t, _)| *t < at);
        let near = &self.0[behind.saturating_sub(1)..self.0.len().min(behind + 1)];
        near.iter().map(|(t, tip)| tip.saturating_add(slack(*t, at))).min()
    }

    /// Leaves out tips until few are left: what is known becomes less, never wrong.
    fn thin(&mut self, most: usize) {
        while self.0.len() > most {
            let mut odd = false;
            self.0.retain(|_| {
                odd = !odd;
                odd
            });
        }
    }
}

/// A time without a step.
#[derive(Clone, Debug)]
struct Stretch {
    /// The first and the last bound that are surely in it.
    first: i64,
    last: i64,
    /// Negated.
    least: Cones,
    most: Cones,
}

impl Stretch {
    fn of(bounds: &[Bound]) -> Option<Self> {
        let (first, last) = (bounds.first()?.at, bounds.last()?.at);
        let mut stretch = Self { first, last, least: Cones::default(), most: Cones::default() };
        for bound in bounds {
            match bound.side {
                Side::Least => stretch.least.push(bound.at, bound.offset.saturating_neg()),
                Side::Most => stretch.most.push(bound.at, bound.offset),
            }
        }
        Some(stretch)
    }

    fn at(&self, at: i64) -> Interval {
        Interval { least: self.least.at(at).map(i64::saturating_neg), most: self.most.at(at) }
    }

    /// The bounds that decide, by time.
    fn bounds(&self) -> Vec<Bound> {
        let bound = |side, at, offset| Bound { at, side, offset, certain: true };
        let least =
            self.least.0.iter().map(|(at, tip)| bound(Side::Least, *at, tip.saturating_neg()));
        let most = self.most.0.iter().map(|(at, tip)| bound(Side::Most, *at, *tip));
        let mut bounds: Vec<_> = least.chain(most).collect();
        bounds.sort_by_key(|bound| bound.at);
        bounds
    }
}

/// What is possible while bounds are gone through in one direction of time.
#[derive(Clone, Copy, Debug, Default)]
struct Filter {
    /// Tips of the cones that decide now.
    least: Option<(i64, i64)>,
    most: Option<(i64, i64)>,
}

impl Filter {
    /// Whether a bound can be true together with those that were entered.
    fn admits(&self, bound: &Bound) -> bool {
        match bound.side {
            Side::Least => self
                .most
                .is_none_or(|(at, tip)| bound.offset <= tip.saturating_add(slack(at, bound.at))),
            Side::Most => self
                .least
                .is_none_or(|(at, tip)| bound.offset >= tip.saturating_sub(slack(at, bound.at))),
        }
    }

    fn enter(&mut self, bound: &Bound) {
        let tip = (bound.at, bound.offset);
        match bound.side {
            Side::Least => {
                if self.least.is_none_or(|(at, v)| v.saturating_sub(slack(at, tip.0)) <= tip.1) {
                    self.least = Some(tip);
                }
            }
            Side::Most => {
                if self.most.is_none_or(|(at, v)| v.saturating_add(slack(at, tip.0)) >= tip.1) {
                    self.most = Some(tip);
                }
            }
        }
    }

    /// How many of these bounds can be true, each with all before it.
    fn run(mut self, bounds: &[Bound]) -> usize {
        for (i, bound) in bounds.iter().enumerate() {
            if !self.admits(bound) {
                return i;
            }
            self.enter(bound);
        }
        usize::MAX
    }
}

/// The stretches that bounds, by time, fall into, oldest first; and the bounds without false ones.
fn stretches(bounds: &[Bound]) -> (Vec<Stretch>, Vec<Bound>) {
    let mut list = Vec::with_capacity(bounds.len());
    // Where each stretch begins in `list`.
    let mut begins = vec![0];
    let mut filter = Filter::default();
    for (i, bound) in bounds.iter().enumerate() {
        if !filter.admits(bound) {
            let after = &bounds[i + 1..bounds.len().min(i + 1 + LOOK_AHEAD)];
            let mut new = Filter::default();
            new.enter(bound);
            // What comes next agrees with the past rather than with this one: a packet was taken
            // for another.
            if !bound.certain && new.run(after) < filter.run(after) {
                continue;
            }
            begins.push(list.len());
            filter = Filter::default();
        }
        filter.enter(bound);
        list.push(*bound);
    }
    // From the newest to the oldest: which bounds are surely before the step depends on all that is
    // surely behind it.
    let mut found = Vec::with_capacity(begins.len());
    let mut end = list.len();
    for begin in begins.into_iter().rev() {
        found.extend(Stretch::of(&list[begin..end]));
        let mut back = Filter::default();
        list[begin..end].iter().rev().for_each(|bound| back.enter(bound));
        end = list[..begin].iter().rposition(|bound| !back.admits(bound)).map_or(begin, |i| i + 1);
    }
    found.reverse();
    (found, list)
}

/// All that is known of one clock.
#[derive(Clone, Debug, Default)]
pub(super) struct Track {
    /// What is over.
    past: Vec<Stretch>,
    /// By time.
    bounds: Vec<Bound>,
    /// Of `bounds`.
    present: Vec<Stretch>,
    stale: bool,
    /// Bounds before this are of no use any more.
    closed: Option<i64>,
}

impl Track {
    pub fn add(&mut self, bound: Bound) {
        if self.closed.is_some_and(|closed| bound.at < closed) {
            return;
        }
        let place = self.bounds.partition_point(|b| b.at <= bound.at);
        self.bounds.insert(place, bound);
        self.stale = true;
        if self.bounds.len() > MAX_BOUNDS {
            self.compact();
        }
    }

    /// Works off what was added.
    pub fn solve(&mut self) {
        if std::mem::take(&mut self.stale) {
            self.present = stretches(&self.bounds).0;
        }
    }

    /// Keeps of the older bounds what decides.
    fn compact(&mut self) {
        (self.present, self.bounds) = stretches(&self.bounds);
        let newest = self.present.pop();
        for mut stretch in self.present.drain(..) {
            stretch.least.thin(MAX_TIPS);
            stretch.most.thin(MAX_TIPS);
            self.past.push(stretch);
        }
        if self.past.len() > MAX_STRETCHES {
            self.past.drain(..self.past.len() - MAX_STRETCHES);
        }
        let Some(newest) = newest else { return };
        // The younger half stays: what comes late may still belong between.
        let Some(middle) = self.bounds.get(self.bounds.len() / 2) else { return };
        let keep = middle.at.max(newest.first);
        let old = self.bounds.partition_point(|b| b.at < keep);
        let first = self.bounds.partition_point(|b| b.at < newest.first);
        if let Some(mut older) = Stretch::of(&self.bounds[first.min(old)..old]) {
            older.least.thin(MAX_TIPS);
            older.most.thin(MAX_TIPS);
            let mut bounds = older.bounds();
            bounds.extend_from_slice(&self.bounds[old..]);
            self.bounds = bounds;
        } else {
            self.bounds.drain(..old);
        }
        self.closed = Some(keep);
        self.stale = true;
        self.solve();
    }

    /// Where the offset lies at a reading of the clock, as of the last [`Track::solve`].
    pub fn at(&self, at: i64) -> Interval {
        let (past, present) = (self.past.len(), self.present.len());
        let stretch = |i: usize| self.past.get(i).or_else(|| self.present.get(i - past.min(i)));
        let begun = self.past.partition_point(|s| s.first <= at)
            + self.present.partition_point(|s| s.first <= at);
        let here = begun.saturating_sub(1);
        let Some(before) = stretch(here) else { return Interval::default() };
        match stretch(here + 1) {
            Some(after) if here + 1 < past + present && at > before.last => {
                before.at(at).hull(after.at(at))
            }
            _ => before.at(at),
        }
    }

    /// Numbers that are kept.
    #[cfg(test)]
    pub fn size(&self) -> usize {
        let tips = |s: &Stretch| s.least.0.len() + s.most.0.len();
        let stretches = self.past.iter().chain(&self.present);
        self.bounds.len() + stretches.map(tips).sum::<usize>()
    }

    /// Steps that were noticed.
    pub fn steps(&self) -> usize {
        (self.past.len() + self.present.len()).saturating_sub(1)
    }

    /// First and last reading of the newest stretch.
    pub fn newest(&self) -> Option<(i64, i64)> {
        self.present.last().or(self.past.last()).map(|s| (s.first, s.last))
    }
}
