//! The shipped core beside a `sync` that is weakened in one thing each. All of them must be killed
//! by some model.

/// A `sync` whose words are changed by `$exchange`, which is given the word, what it is expected to
/// be, and what it is to become.
macro_rules! exchange_by {
    ($exchange:expr) => {
        pub use crate::shipped::sync::*;
        use std::ops::Deref;

        #[derive(Debug, Default)]
        pub struct AtomicU64(loom::sync::atomic::AtomicU64);

        impl AtomicU64 {
            pub fn new(value: u64) -> Self {
                AtomicU64(loom::sync::atomic::AtomicU64::new(value))
            }

            pub fn compare_exchange_weak(
                &self,
                current: u64,
                new: u64,
                _: Ordering,
                _: Ordering,
            ) -> Result<u64, u64> {
                let exchange: fn(&Self, u64, u64) -> Result<u64, u64> = $exchange;
                exchange(self, current, new)
            }
        }

        impl Deref for AtomicU64 {
            type Target = loom::sync::atomic::AtomicU64;

            fn deref(&self) -> &Self::Target {
                &self.0
            }
        }
    };
}

pub mod deaf_condvar;
pub mod looking_swap;
pub mod loose_exchange;
pub mod loose_unlock;
pub mod torn_exchange;
pub mod torn_lock;
pub mod torn_swap;
