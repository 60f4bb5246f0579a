//! Sets of byte ranges: what of a packet, or of a TCP stream, came by a point.

/// A set of half-open ranges of bytes. Ranges that touch collapse into one, so that a stream
/// without holes costs one entry however long it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct IntervalSet(Ranges);

/// Nearly every set holds one range: that one is kept without an allocation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Ranges {
    #[default]
    None,
    One((u64, u64)),
    Many(Vec<(u64, u64)>),
}

impl IntervalSet {
    /// The ranges in ascending order, disjoint and not touching.
    pub fn ranges(&self) -> &[(u64, u64)] {
        match &self.0 {
            Ranges::None => &[],
            Ranges::One(range) => std::slice::from_ref(range),
            Ranges::Many(many) => many,
        }
    }

    /// Bytes in the set.
    pub fn len(&self) -> u64 {
        self.ranges().iter().map(|(start, end)| end - start).sum()
    }

    /// Adds `start..end`; returns how many of its bytes were not there before.
    pub fn insert(&mut self, start: u64, end: u64) -> u64 {
        if start >= end {
            return 0;
        }
        match &mut self.0 {
            Ranges::None => {
                self.0 = Ranges::One((start, end));
                end - start
            }
            Ranges::One(one) if start <= one.1 && end >= one.0 => {
                let before = one.1 - one.0;
                *one = (one.0.min(start), one.1.max(end));
                one.1 - one.0 - before
            }
            Ranges::One(one) => {
                let pair =
                    if start < one.0 { vec![(start, end), *one] } else { vec![*one, (start, end)] };
                self.0 = Ranges::Many(pair);
                end - start
            }
            Ranges::Many(many) => {
                let new = insert_into(many, start, end);
                if let [only] = many.as_slice() {
                    self.0 = Ranges::One(*only);
                }
                new
            }
        }
    }

    /// Whether every byte of `start..end` is in the set; an empty range always is.
    pub fn covers(&self, start: u64, end: u64) -> bool {
        start >= end || self.overlap(start, end) == end - start
    }

    /// How many bytes of `start..end` are in the set.
    pub fn overlap(&self, start: u64, end: u64) -> u64 {
        let ranges = self.ranges();
        let first = ranges.partition_point(|r| r.1 <= start);
        ranges[first..]
            .iter()
            .take_while(|r| r.0 < end)
            .map(|r| r.1.min(end) - r.0.max(start))
            .sum()
    }

    /// The parts of `start..end` that are not in the set, in ascending order.
    pub fn missing(&self, start: u64, end: u64) -> Vec<(u64, u64)> {
        let ranges = self.ranges();
        let mut gaps = Vec::new();
        let mut at = start;
        for &(s, e) in &ranges[ranges.partition_point(|r| r.1 <= start)..] {
            if s >= end {
                break;
            }
            if s > at {
                gaps.push((at, s));
            }
            at = at.max(e);
        }
        if at < end {
            gaps.push((at, end));
        }
        gaps
    }
}

/// Adds a range to a sorted list of disjoint ones; returns the bytes that are new.
fn insert_into(ranges: &mut Vec<(u64, u64)>, start: u64, end: u64) -> u64 {
    let first = ranges.partition_point(|r| r.1 < start);
    let last = first + ranges[first..].partition_point(|r| r.0 <= end);
    let touched = &ranges[first..last];
    let before: u64 = touched.iter().map(|r| r.1 - r.0).sum();
    let merged = (
        touched.first().map_or(start, |r| r.0.min(start)),
        touched.last().map_or(end, |r| r.1.max(end)),
    );
    ranges.splice(first..last, [merged]);
    merged.1 - merged.0 - before
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn touching_ranges_collapse() {
        let mut set = IntervalSet::default();
        assert_eq!(set.insert(10, 20), 10);
        assert_eq!(set.insert(30, 40), 10);
        assert_eq!(set.ranges(), [(10, 20), (30, 40)]);
        assert_eq!(set.insert(20, 30), 10);
        assert_eq!(set.ranges(), [(10, 40)]);
        assert_eq!(set.insert(15, 35), 0);
        assert_eq!(set.missing(0, 50), [(0, 10), (40, 50)]);
        assert!(set.covers(10, 40) && !set.covers(9, 12) && set.covers(100, 100));
    }

    proptest! {
        #[test]
        fn agrees_with_a_bitmap(pieces in prop::collection::vec((0u64..200, 0u64..40), 0..60)) {
            let mut set = IntervalSet::default();
            let mut bits = [false; 256];
            for (start, len) in pieces {
                let end = start + len;
                let mut new = 0;
                for bit in &mut bits[start as usize..end as usize] {
                    new += u64::from(!*bit);
                    *bit = true;
                }
                prop_assert_eq!(set.insert(start, end), new);
                let count = |s: u64, e: u64| {
                    bits[s as usize..e as usize].iter().filter(|b| **b).count() as u64
                };
                prop_assert_eq!(set.len(), count(0, 256));
                prop_assert_eq!(set.overlap(start / 2, end), count(start / 2, end));
                let gaps: u64 = set.missing(0, 256).iter().map(|(s, e)| e - s).sum();
                prop_assert_eq!(gaps, 256 - set.len());
                prop_assert!(set.ranges().windows(2).all(|w| w[0].1 < w[1].0));
            }
        }
    }
}
