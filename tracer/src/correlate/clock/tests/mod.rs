//! Clocks that are simulated, with what is said of them held against the truth.

mod order;
mod track;

/// A clock in real time: where it starts, how fast it runs, and when it jumps or stands still.
#[derive(Clone, Debug, Default)]
pub(super) struct Oscillator {
    /// At real time 0, ns.
    pub base: i64,
    /// Faster than real time, parts per million.
    pub ppm: i64,
    /// Real time and size of each step, ns. Forward ones are instantaneous; for a backward one the
    /// clock stands still for so long.
    pub steps: Vec<(i64, i64)>,
}

impl Oscillator {
    /// What it shows at a real time, ns.
    pub fn at(&self, real: i64) -> i64 {
        let begun = self.steps.iter().filter(|(at, _)| real >= *at);
        let (mut awake, mut set) = (real, 0);
        for (at, size) in begun {
            if *size < 0 {
                awake -= (real - at).min(-size);
            } else {
                set += size;
            }
        }
        let drift = (i128::from(awake) * i128::from(self.ppm)).div_euclid(1_000_000);
        self.base + awake + set + i64::try_from(drift).unwrap()
    }

    /// Whether it stands still.
    pub fn sleeps(&self, real: i64) -> bool {
        self.steps.iter().any(|(at, size)| *size < 0 && (*at..=at - size).contains(&real))
    }
}
