//! The waker's state is changed only if a load finds that it must be, and the load is the answer.

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
