//! Network servers in which every connection is an actor.
#![deny(unsafe_code)]
#![allow(dead_code, unused_imports)]
mod input;
mod output;
mod sys;
mod timers;
pub use input::{FrameError, Input, Prefix};
pub use sys::{Endpoint, Peer};
pub use timers::TimerKey;
