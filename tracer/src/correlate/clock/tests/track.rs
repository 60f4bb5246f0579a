//! Bounds: the truth lies inside.

use proptest::prelude::*;

use super::Oscillator;
use crate::correlate::clock::track::{Bound, Interval, MAX_DRIFT_PPM, Side, Track};

const MS: i64 = 1_000_000;

/// Two clocks and a wire between them.
#[derive(Debug)]
struct World {
    axis: Oscillator,
    other: Oscillator,
    /// Shortest way there and back, ns.
    way: (i64, i64),
    track: Track,
    /// Readings of the other clock at which something happened, with the true offset.
    truth: Vec<(i64, i64)>,
    /// Shortest time there and back that packets needed.
    fastest: (i64, i64),
    now: i64,
}

/// One packet.
#[derive(Clone, Debug)]
struct Sent {
    /// Since the one before, ns.
    gap: i64,
    forth: bool,
    /// In addition to the shortest way, ns.
    queue: i64,
    lost: bool,
}

impl World {
    fn new(ppm: (i64, i64), base: i64, way: (i64, i64)) -> Self {
        Self {
            axis: Oscillator { base: 1 << 40, ppm: ppm.0, steps: Vec::new() },
            other: Oscillator { base: (1 << 50) + base, ppm: ppm.1, steps: Vec::new() },
            way,
            track: Track::default(),
            truth: Vec::new(),
            fastest: (i64::MAX, i64::MAX),
            now: 0,
        }
    }

    fn see(&mut self, real: i64) -> i64 {
        let at = self.other.at(real);
        self.truth.push((at, self.axis.at(real) - at));
        at
    }

    /// Sends a packet; the answer when it arrives.
    fn send(&mut self, sent: &Sent) -> i64 {
        self.now += sent.gap;
        let way = if sent.forth { self.way.0 } else { self.way.1 } + sent.queue;
        let (left, arrived) = (self.now, self.now + way);
        let asleep = |real| self.other.sleeps(real);
        if asleep(left) || asleep(arrived) {
            return arrived;
        }
        if sent.forth {
            if !sent.lost {
                let at = self.see(arrived);
                let offset = self.axis.at(left) - at;
                self.track.add(Bound { at, side: Side::Least, offset, certain: false });
                self.fastest.0 = self.fastest.0.min(way);
            }
        } else {
            let at = self.see(left);
            if !sent.lost {
                let offset = self.axis.at(arrived) - at;
                self.track.add(Bound { at, side: Side::Most, offset, certain: false });
                self.fastest.1 = self.fastest.1.min(way);
            }
        }
        arrived
    }

    /// A packet and its answer.
    fn exchange(&mut self) {
        for forth in [true, false] {
            self.now = self.send(&Sent { gap: MS, forth, queue: 0, lost: false });
        }
    }

    /// Sends packets, with an exchange before and one after them.
    fn block(&mut self, packets: &[Sent]) {
        self.exchange();
        let last = packets.iter().map(|sent| self.send(sent)).max().unwrap_or(0);
        self.now = self.now.max(last);
        self.exchange();
        self.now += MS;
    }

    /// The other clock jumps, or stands still.
    fn step(&mut self, size: i64) {
        self.other.steps.push((self.now, size));
        self.now += MS + size.min(0).abs();
    }

    /// What is said at a reading holds the truth.
    fn check(&mut self) -> Result<(), TestCaseError> {
        self.track.solve();
        for (at, truth) in &self.truth {
            let Interval { least, most } = self.track.at(*at);
            let inside = least.is_none_or(|l| l <= *truth) && most.is_none_or(|m| *truth <= m);
            prop_assert!(inside, "at {at}: {truth} is not within {least:?}..={most:?}");
            let (estimate, error) = self.track.at(*at).estimate();
            if let Some(error) = error {
                prop_assert!(estimate.abs_diff(*truth) <= error);
            }
        }
        Ok(())
    }
}

fn sent() -> impl Strategy<Value = Sent> {
    (0..300 * MS, any::<bool>(), prop_oneof![0..50_000i64, 0..20 * MS], prop::bool::weighted(0.2))
        .prop_map(|(gap, forth, queue, lost)| Sent { gap, forth, queue, lost })
}

/// Shortest ways of a fast and of a slow network, as asymmetric as can be.
fn way() -> impl Strategy<Value = (i64, i64)> {
    let one = || prop_oneof![1_000..200_000i64, 1..80 * MS];
    (one(), one())
}

fn ppm() -> impl Strategy<Value = (i64, i64)> {
    let half = i64::from(MAX_DRIFT_PPM / 2);
    prop_oneof![Just((0, 200)), Just((-100, 100)), (-half..half, -half..half)]
}

proptest! {
    #[test]
    fn the_truth_is_inside_without_steps(
        (ppm, way, base) in (ppm(), way(), -(1i64 << 45)..1 << 45),
        packets in prop::collection::vec(sent(), 0..200),
    ) {
        let mut world = World::new(ppm, base, way);
        for sent in &packets {
            world.send(sent);
        }
        world.check()?;
        prop_assert_eq!(world.track.steps(), 0);
    }

    #[test]
    fn one_direction_bounds_one_side(
        (ppm, way, forth) in (ppm(), way(), any::<bool>()),
        packets in prop::collection::vec(sent(), 1..50),
    ) {
        let mut world = World::new(ppm, 0, way);
        for sent in &packets {
            world.send(&Sent { forth, lost: false, ..sent.clone() });
        }
        world.check()?;
        for (at, _) in &world.truth {
            let Interval { least, most } = world.track.at(*at);
            prop_assert_eq!((least.is_some(), most.is_some()), (forth, !forth));
            prop_assert_eq!(world.track.at(*at).estimate().1, None);
        }
    }

    /// Guests that are suspended and clocks that are set, by more than packets are under way.
    #[test]
    fn large_steps_are_noticed_each(
        (ppm, way) in (ppm(), way()),
        blocks in prop::collection::vec(prop::collection::vec(sent(), 0..40), 2..5),
        sizes in prop::collection::vec((0..10_000 * MS, any::<bool>()), 4),
    ) {
        let mut world = World::new(ppm, 0, way);
        let least = way.0 + way.1 + 40 * MS + 60 * MS;
        for (i, block) in blocks.iter().enumerate() {
            world.block(block);
            if i + 1 < blocks.len() {
                let (size, back) = sizes[i];
                world.step(if back { -least - size } else { least + size });
            }
        }
        world.check()?;
        prop_assert_eq!(world.track.steps(), blocks.len() - 1);
    }

    /// A step of any size is noticed and bounded, or is shorter than the way there and back.
    #[test]
    fn a_small_step_is_noticed_or_small(
        (ppm, way) in (ppm(), way()),
        before in prop::collection::vec(sent(), 0..40),
        after in prop::collection::vec(sent(), 0..40),
        size in prop_oneof![-MS..MS, -200 * MS..200 * MS],
    ) {
        let mut world = World::new(ppm, 0, way);
        world.block(&before);
        world.step(size);
        world.block(&after);
        world.track.solve();
        match world.track.steps() {
            0 => {
                // Both ends of the gap have a packet that did not wait; it is a few ms wide.
                let shortest = world.fastest.0 + world.fastest.1;
                let wander = (shortest + size.abs() + 10 * MS) / 1000 + 10;
                prop_assert!(size.abs() <= shortest + wander, "{size} is not small");
            }
            1 => world.check()?,
            more => prop_assert!(false, "{more} steps"),
        }
    }

    /// A packet taken for another, anywhere among others: no step, and the truth stays inside.
    #[test]
    fn a_false_crossing_is_recognised(
        (ppm, way) in (ppm(), way()),
        packets in prop::collection::vec(sent(), 20..60),
        (place, wrong, side) in (3usize..17, 500 * MS..5_000 * MS, any::<bool>()),
    ) {
        let mut world = World::new(ppm, 0, way);
        world.block(&[]);
        for (i, sent) in packets.iter().enumerate() {
            world.send(&Sent { gap: sent.gap % (10 * MS), ..sent.clone() });
            world.exchange();
            if i == place {
                let (at, truth) = *world.truth.last().unwrap();
                let bound = match side {
                    true => Bound { at, side: Side::Least, offset: truth + wrong, certain: false },
                    false => Bound { at, side: Side::Most, offset: truth - wrong, certain: false },
                };
                world.track.add(bound);
            }
        }
        world.check()?;
        prop_assert_eq!(world.track.steps(), 0);
    }
}

/// A trace of many bounds: memory stays bounded, and what is said stays true and sharp.
#[test]
fn endless_traces_stay_bounded() {
    let mut world = World::new((150, -50), 7, (30_000, 50_000));
    let mut random = 1u64;
    let mut next = |most: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        i64::try_from((random >> 33) % most).unwrap()
    };
    for i in 0..60_000 {
        let forth = next(2) == 0;
        world.send(&Sent { gap: next(2_000_000), forth, queue: next(300_000), lost: false });
        if i == 30_000 {
            world.block(&[]);
            world.step(-500 * MS);
            world.block(&[]);
        }
    }
    world.check().unwrap();
    assert_eq!(world.track.steps(), 1);
    assert!(world.track.size() < 20_000, "{}", world.track.size());
    let (at, _) = world.truth[world.truth.len() - 10];
    let (_, error) = world.track.at(at).estimate();
    // Half of the way there and back, and what the luckiest of some packets wait.
    assert!(error.unwrap() < 80_000, "{error:?}");
}
