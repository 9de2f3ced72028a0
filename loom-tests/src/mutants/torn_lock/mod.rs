//! The lock is taken by a load and a store.

#[path = "../../lock_models.rs"]
pub mod models;
mod primitives;

#[allow(unsafe_code)]
#[path = "../../../../src/sys/word_lock.rs"]
mod word_lock;
