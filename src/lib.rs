//! Network servers in which every connection is an actor.
//!
//! A connection is a plain struct with `&mut self` callbacks ([`Actor`]). Each poller thread hosts very many of them and
//! calls them one at a time when bytes, a timer or a message has come; any thread reaches one by its [`Addr`].
//!
//! Start at [`System`] for a program, [`Actor`] for the callbacks and their order, [`Context`] for what an actor may ask for,
//! [`Members`] and [`Broadcaster`] for pushing to many, [`testing`] for a test of an actor without a socket.
//!
//! # Defaults
//!
//! A server with no option set survives slow and stuck readers, senders that never finish a frame, floods of messages and of
//! connects, and more clients than descriptors. The defaults stand where their options are: [`ConnectionOptions`] for a
//! connection, [`ListenOptions`] for a listener, [`Builder`] for the mailboxes and pollers.
//!
//! # Panics
//!
//! A panic in a callback ends that actor alone, where panics unwind. With `panic = "abort"` it ends the process.

#![deny(unsafe_code)]

// In reading order: what the user writes, what carries it, what it stands on.
mod actor;
mod addr;
mod ask;
mod broadcaster;
mod context;
mod handle;
mod input;
mod listener;
mod origin;
mod system;
pub mod testing;

mod acceptor;
mod poller;

mod command;
mod flags;
mod group;
mod hosts;
mod inbox;
mod registry;
mod watch;

// Four of these are also included by loom-tests, in a crate of their own: hence their `pub`, and a method or two that only the
// models call.
#[allow(unreachable_pub, dead_code)]
mod mailbox;
#[allow(unreachable_pub, dead_code)]
mod oneshot;
mod output;
#[allow(unreachable_pub)]
mod presence;
mod timers;
#[allow(unreachable_pub)]
mod waker;

#[allow(unreachable_pub)]
mod sync;
mod sys;

pub use actor::{Actor, CloseReason, Outcome};
pub use addr::{Addr, HasMailbox, Recipient, SendError, SendErrorKind};
pub use ask::{AskError, Reply};
pub use broadcaster::{Broadcast, Broadcaster, Left, Members, Refused};
pub use context::{Context, Written};
pub use handle::Handle;
pub use input::{FrameError, Input, Prefix};
pub use listener::{Balance, ListenOptions, Listener};
pub use origin::{AtLimit, ConnectionOptions, SlowReader};
pub use registry::{ActorId, Stats};
pub use sys::{Endpoint, Peer};
pub use system::{Builder, System};
pub use timers::TimerKey;
