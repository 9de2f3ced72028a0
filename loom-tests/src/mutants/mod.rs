//! The shipped core beside a `sync` that is weakened in one thing each. All of them must be killed
//! by some model.

pub mod deaf_condvar;
pub mod looking_swap;
pub mod torn_add;
pub mod torn_exchange;
pub mod torn_or;
pub mod torn_sub;
pub mod torn_swap;
