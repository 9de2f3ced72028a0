//! Network servers in which every connection is an actor.
#![deny(unsafe_code)]
#![allow(dead_code, unused_imports)]
mod sys;
pub use sys::{Endpoint, Peer};
