//! Numbers that a seed decides.

use std::ops::Range;
use std::time::Duration;

/// Random numbers that are the same for the same seed on every machine and in every version of
/// this crate: what [`Simulation::random`](crate::testing::Simulation::random) gives a test to
/// decide by.
///
/// SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014). Not for
/// secrets.
#[derive(Clone, Debug, Default)]
pub struct Random(u64);

impl Random {
    /// The numbers of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// A generator of its own, whose numbers have nothing to do with the ones that follow here.
    pub fn split(&mut self) -> Random {
        Random(self.next())
    }

    /// Any number.
    // Not an iterator, which would have an end.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number from 0 to `n - 1`; 0 when `n` is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(n)) >> 64) as u64
    }

    /// A number of the range.
    ///
    /// # Panics
    ///
    /// When it is empty.
    pub fn range(&mut self, range: Range<u64>) -> u64 {
        assert!(!range.is_empty(), "range: {range:?} is empty");
        range.start + self.below(range.end - range.start)
    }

    /// `true` once in `n` times; never when `n` is 0.
    pub fn one_in(&mut self, n: u64) -> bool {
        n > 0 && self.below(n) == 0
    }

    /// One of them.
    ///
    /// # Panics
    ///
    /// When there is none.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len() as u64) as usize]
    }

    /// Puts them into any order.
    pub fn shuffle<T>(&mut self, list: &mut [T]) {
        for end in (1..list.len()).rev() {
            list.swap(end, self.below(end as u64 + 1) as usize);
        }
    }

    /// Any time below `max`, of whatever order of magnitude: half of them are below a thousandth
    /// of it.
    pub fn duration(&mut self, max: Duration) -> Duration {
        let max = u64::try_from(max.as_nanos()).unwrap_or(u64::MAX);
        let bits = u64::BITS - max.leading_zeros();
        let shift = self.below(u64::from(bits.min(20)) + 1);
        Duration::from_nanos(self.below(max >> shift))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_numbers_for_ever() {
        let mut random = Random::new(0);
        // The first ones of SplitMix64 as its authors publish them.
        assert_eq!(random.next(), 0xE220_A839_7B1D_CDAF);
        assert_eq!(random.next(), 0x6E78_9E6A_A1B9_65F4);
    }

    #[test]
    fn numbers_stay_below_their_bound_and_reach_it() {
        let mut random = Random::new(1);
        let mut seen = [0; 3];
        for _ in 0..300 {
            seen[random.below(3) as usize] += 1;
        }
        assert!(seen.iter().all(|count| *count > 50), "{seen:?}");
        assert_eq!(random.below(0), 0);
        assert!((0..100).all(|_| (5..7).contains(&random.range(5..7))));
        assert!(!(0..100).any(|_| random.one_in(0)));
        assert!((0..100).all(|_| random.one_in(1)));
        let max = Duration::from_secs(3);
        assert!((0..1000).all(|_| random.duration(max) < max));
    }

    #[test]
    fn a_shuffle_loses_nobody() {
        let mut list: Vec<u32> = (0..50).collect();
        Random::new(3).shuffle(&mut list);
        assert_ne!(list, (0..50).collect::<Vec<_>>());
        list.sort_unstable();
        assert_eq!(list, (0..50).collect::<Vec<_>>());
    }
}
