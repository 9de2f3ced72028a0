//! The model of the lock itself, included beside the shipped one and beside its mutants.

use super::word_lock::WordLock;
use crate::check;
use loom::thread;
use std::sync::Arc;

/// Two threads, three turns under one lock: loom sees if both are there at once, or one does not
/// see what the other did before it.
pub fn the_lock_excludes() {
    const ONE: u64 = 2;
    fn add(lock: &WordLock<u64>) -> u64 {
        lock.with(|word, data| {
            *data += 1;
            *word += ONE;
            assert_eq!(*word, *data * ONE, "a change is lost");
            *word
        })
    }
    check(|| {
        let lock = Arc::new(WordLock::new(0));
        let other = {
            let lock = lock.clone();
            thread::spawn(move || add(&lock))
        };
        let mine = add(&lock);
        assert!(lock.peek() >= mine, "one's own change is seen without it");
        add(&lock);
        other.join().unwrap();
        assert_eq!(lock.with(|word, data| (*word, *data)), (3 * ONE, 3));
    });
}
