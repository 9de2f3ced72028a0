//! A changed count publishes nothing.

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
