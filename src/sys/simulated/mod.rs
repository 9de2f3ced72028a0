//! Sockets, selectors and time without a kernel: for actors that are driven by hand, and for whole
//! systems that are run from a seed.
//!
//! All of it belongs to one thread, whose [`Network`] it is. A [`Socket`](super::Socket) holds the
//! number of one end of a connection where another holds a descriptor, so the poller's code is the
//! same for both, and a socket takes four bytes as before. What a kernel and a network may do that
//! is seldom seen is done here as often as the seed says: see [`Fault`].
//!
//! The way of a byte: `send` takes it out of the room of its pipe and puts it under way, to happen
//! at the time of its arrival ([`network`]); `deliver` moves it to what has arrived and puts the
//! receiving end into its selector's list ([`stream`]); `recv` takes it out and gives the room
//! back.

mod connect;
mod datagram;
mod faults;
mod hand;
mod network;
mod random;
mod selector;
mod stream;
mod trace;
mod wire;

#[cfg(test)]
mod tests;

pub(crate) use datagram::Parcel;
pub(super) use datagram::as_kernels_tell;
pub use faults::{Fault, Faults};
pub(crate) use hand::Hand;
pub(in crate::sys) use network::simulate;
pub(crate) use network::{Network, Number, Process, Who};
pub use random::Random;
pub(super) use selector::SimulatedSelector;
pub use trace::Trace;
pub(crate) use wire::Wire;
