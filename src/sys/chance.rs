//! Chance.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use super::clock;
use super::simulated::{Network, Random};

/// Numbers that nobody else has, from what the system seeds hash maps with; on a simulated thread
/// those that its seed decides.
///
/// Not for secrets.
pub(crate) fn chance() -> Random {
    if clock::is_simulated() {
        return Network::with(Network::split_random);
    }
    Random::new(RandomState::new().hash_one(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_have_the_same_numbers() {
        let mut all: Vec<u64> = (0..100).map(|_| chance().next()).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 100);
    }
}
