//! Network servers in which every connection is an actor.
#![deny(unsafe_code)]
#![allow(dead_code, unused_imports, unreachable_pub)]
mod input;
mod mailbox;
mod oneshot;
mod output;
mod presence;
mod sync;
mod sys;
mod timers;
mod waker;
pub use input::{FrameError, Input, Prefix};
pub use sys::{Endpoint, Peer};
pub use timers::TimerKey;
