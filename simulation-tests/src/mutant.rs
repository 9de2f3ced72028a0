//! Which mutant is at work. Of a thread, as a simulation is: tests run side by side.

use std::cell::Cell;

thread_local! {
    static MUTANT: Cell<&'static str> = const { Cell::new("") };
    static REACHED: Cell<u64> = const { Cell::new(0) };
}

/// Runs `body` with this mutant in place of what ships, on this thread. Returns how often it was at
/// work beside what `body` returns.
pub fn with<T>(name: &'static str, body: impl FnOnce() -> T) -> (T, u64) {
    struct Reset;
    impl Drop for Reset {
        fn drop(&mut self) {
            MUTANT.set("");
        }
    }
    let _reset = Reset;
    MUTANT.set(name);
    REACHED.set(0);
    let value = body();
    (value, REACHED.get())
}

/// Times that a mutant may be at work in one run: more is a loop that it has made endless.
const REACHED_MAX: u64 = 5_000_000;

/// Asked at each place that a mutant changes.
///
/// # Panics
///
/// When it is asked for ever, so that the test comes to an end.
#[inline]
pub fn is(name: &'static str) -> bool {
    let is = MUTANT.get() == name;
    if is {
        REACHED.set(REACHED.get() + 1);
        assert!(REACHED.get() < REACHED_MAX, "{name} runs for ever");
    }
    is
}

/// Waits as somebody does who is blocked: time passes. Not for ever, so that a test comes to an end;
/// whether it still waits.
pub(crate) fn blocks() -> bool {
    thread_local! {
        static WAITED: Cell<u32> = const { Cell::new(0) };
    }
    crate::sys::Network::with(|network| {
        let later = network.now() + std::time::Duration::from_millis(1);
        network.advance(later);
    });
    crate::testing::note("waits for a socket");
    WAITED.set((WAITED.get() + 1) % 5);
    WAITED.get() > 0
}
