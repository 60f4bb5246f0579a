//! Order and summary of the measurements.

use std::time::{SystemTime, UNIX_EPOCH};

/// The middle value, or the mean of the two in the middle; `None` of nothing.
pub fn median(values: &[f64]) -> Option<f64> {
    quantile(values, 0.5)
}

/// The value below which a part of the others lies, interpolated; `None` of nothing.
pub fn quantile(values: &[f64], part: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().checked_sub(1)?;
    let at = part * last as f64;
    let (below, above) = (at.floor(), at.ceil());
    // Both lie within 0..=last.
    let (low, high) = (sorted[below as usize], sorted[above as usize]);
    Some(low + (high - low) * (at - below))
}

/// A source of orders: not secret, not reproducible, only not always the same.
#[derive(Debug)]
pub struct Shuffler(u64);

impl Shuffler {
    /// Seeded with the time.
    pub fn new() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::seeded(now.as_nanos() as u64)
    }

    fn seeded(seed: u64) -> Self {
        // xorshift must not start at 0.
        Self(seed | 1)
    }

    /// xorshift64 (Marsaglia 2003).
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Puts them into any order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = (self.next() % (last as u64 + 1)) as usize;
            items.swap(last, other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_and_quartiles() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(quantile(&[1.0, 2.0, 3.0, 4.0, 5.0], 0.25), Some(2.0));
        assert_eq!(quantile(&[1.0], 0.75), Some(1.0));
    }

    #[test]
    fn shuffling_keeps_everything_and_comes_to_every_order() {
        let mut shuffler = Shuffler::seeded(42);
        let mut orders = std::collections::HashSet::new();
        for _ in 0..200 {
            let mut items = [1, 2, 3];
            shuffler.shuffle(&mut items);
            orders.insert(items);
            items.sort_unstable();
            assert_eq!(items, [1, 2, 3]);
        }
        assert_eq!(orders.len(), 6);
    }
}
