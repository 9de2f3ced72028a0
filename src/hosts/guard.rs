//! Panics of the user's code end where they began.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::call::Hosted;
use crate::hosts::Hosts;
use crate::registry::{Counters, Door};
use crate::sys::{Network, clock};

impl Hosts {
    pub(super) fn note_panic(&mut self, index: usize, panic: &(dyn Any + Send)) -> String {
        let actor = self.slots[index]
            .actor
            .as_deref()
            .map_or("an actor", Hosted::type_name);
        self.count_panic(actor, panic)
    }

    pub(super) fn count_panic(&mut self, of: &str, panic: &(dyn Any + Send)) -> String {
        count_panic(&self.call.registry.door, of, panic)
    }

    /// Runs a closure of the user's that is not an actor's callback; `None` if it panicked.
    pub(crate) fn guarded<T>(&mut self, make: impl FnOnce() -> T) -> Option<T> {
        self.guarded_as("a conversion of a message", make)
    }

    /// The same of what the log is to call by this name.
    pub(crate) fn guarded_as<T>(&mut self, what: &str, make: impl FnOnce() -> T) -> Option<T> {
        match guard(make) {
            Ok(value) => Some(value),
            Err(panic) => {
                self.count_panic(what, &*panic);
                self.drop_guarded(panic);
                None
            }
        }
    }

    /// Drops a value of the user's, whose drop may panic.
    pub(crate) fn drop_guarded<T>(&mut self, value: T) {
        if let Err(panic) = guard(move || drop(value)) {
            self.count_panic("a destructor", &*panic);
            // Whoever panics again while the payload of a panic is dropped cannot be helped: the
            // payload is leaked.
            std::mem::forget(panic);
        }
    }
}

/// Counts a panic that was caught, and says so in the log; returns its text.
pub(crate) fn count_panic(door: &Door, of: &str, panic: &(dyn Any + Send)) -> String {
    Counters::add(&door.counters.panics, 1);
    let what = panic_text(panic);
    log::error!("{of} panicked, which harms nothing else: {what}");
    if clock::is_simulated() {
        Network::with(|network| network.note_panic(format!("{of} panicked: {what}")));
    }
    what
}

/// Runs code of the user's that is no callback of a hosted actor; a panic of it is counted.
pub(crate) fn contain(door: &Door, of: &str, f: impl FnOnce()) {
    if let Err(panic) = guard(f) {
        count_panic(door, of, &*panic);
        // As in `drop_guarded`.
        if let Err(panic) = guard(move || drop(panic)) {
            std::mem::forget(panic);
        }
    }
}

/// The only place where panics of a user's code are caught.
pub(crate) fn guard<T>(f: impl FnOnce() -> T) -> Result<T, Box<dyn Any + Send>> {
    // Unwind safety: an actor that panicked gets `closed` and is dropped, nothing else looks at
    // what it left behind; the call's staged output and requests are thrown away.
    catch_unwind(AssertUnwindSafe(f))
}

pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> String {
    if let Some(text) = panic.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text.clone()
    } else {
        "a value that is not a text".to_owned()
    }
}
