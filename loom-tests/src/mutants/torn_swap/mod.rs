//! The waker's state is read by a load, and then changed.

#[path = "../../models.rs"]
pub mod models;
pub mod sync;

#[path = "../../../../src/mailbox.rs"]
mod mailbox;
#[path = "../../../../src/oneshot.rs"]
mod oneshot;
#[path = "../../../../src/presence.rs"]
mod presence;
#[path = "../../../../src/waker.rs"]
mod waker;
