//! The shipped core beside a `sync` that is weakened in one thing each. All of them must be killed
//! by some model.

pub mod deaf_condvar;
pub mod looking_swap;
pub mod loose_exchange;
pub mod loose_unlock;
pub mod torn_exchange;
pub mod torn_lock;
pub mod torn_swap;
