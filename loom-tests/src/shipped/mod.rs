//! What ships, on types that loom sees through.

#[path = "../lock_models.rs"]
pub mod lock_models;
#[path = "../models.rs"]
pub mod models;
pub mod primitives;
pub mod sync;

#[path = "../../../src/mailbox.rs"]
mod mailbox;
#[path = "../../../src/oneshot.rs"]
mod oneshot;
#[path = "../../../src/presence.rs"]
mod presence;
#[path = "../../../src/waker.rs"]
mod waker;
#[allow(unsafe_code)]
#[path = "../../../src/sys/word_lock.rs"]
mod word_lock;
