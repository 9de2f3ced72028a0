//! Signals of the process: to a graceful stop, and as messages to an actor.
//!
//! With the feature `signals`, which brings the crate `signal-hook`. A signal is noted by a handler
//! and dealt with by a thread of its own; pollers see nothing of it.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use greenroom::*;
//! use greenroom::signals::{self, SIGHUP};
//!
//! struct Config;
//!
//! enum Order {
//!     ReadAgain,
//! }
//!
//! impl Actor for Config {
//!     type Message = Order;
//!     // ...
//! }
//!
//! fn main() -> std::io::Result<()> {
//!     let system = System::builder().build()?;
//!     let config = system.spawn(|| Config);
//!     signals::stop_on(&system.handle(), Duration::from_secs(30))?;
//!     signals::send_to(&[SIGHUP], config, |_signal| Order::ReadAgain)?;
//!     system.run()
//! }
//! ```
//!
//! A signal that is [listened](Listening) to keeps its handler until the process ends, also after
//! [`Listening::end`]: it does nothing then. `SIGPIPE` needs none of this: what is sent to a
//! connection that has gone raises none, whatever the process has it do.

use std::fmt;
use std::io;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use signal_hook::consts::FORBIDDEN;
use signal_hook::iterator::{Handle as Hook, Signals};
use signal_hook::low_level::signal_name;

pub use signal_hook::consts::signal::{
    SIGALRM, SIGCHLD, SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGUSR1, SIGUSR2,
    SIGWINCH,
};

use crate::addr::Recipient;
use crate::handle::Handle;
use crate::hosts::contain;
use crate::sys::Network;

/// Somebody listens to signals, until [`end`](Listening::end) or the end of the process. To drop
/// this ends nothing.
pub struct Listening {
    hook: Hook,
    thread: JoinHandle<()>,
}

impl Listening {
    /// Listens no more, and waits for the thread. The signals do nothing from here on.
    pub fn end(self) {
        self.hook.close();
        // It runs no code but ours, and contains the panics of the user's.
        let _ = self.thread.join();
    }

    /// Whether it has ended by itself, because the actor that was told has gone: with the first signal
    /// that comes then.
    pub fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }
}

impl fmt::Debug for Listening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listening").finish_non_exhaustive()
    }
}

/// Stops the system at `SIGINT` and `SIGTERM`: gracefully, [within](Handle::stop) this time, at the
/// first, and at once at the second.
///
/// # Errors
///
/// When the system has no thread or descriptor left, and for a
/// [simulated](crate::testing::Simulation) system, to which a script does it
/// ([`Simulation::after`](crate::testing::Simulation::after)).
pub fn stop_on(handle: &Handle, within: Duration) -> io::Result<Listening> {
    if handle.shared.simulated.is_some() {
        return Err(simulated("stop_on"));
    }
    let handle = handle.clone();
    let mut within = within;
    listen("stop_on", &[SIGINT, SIGTERM], move |signal| {
        let name = signal_name(signal).unwrap_or("a signal");
        log::info!("{name}: the system stops within {within:?}");
        handle.stop(within);
        within = Duration::ZERO;
        true
    })
}

/// Sends an actor a message, made by `make`, at each of these signals, until the actor has gone. The
/// message travels in reserved room, so none is refused; of several signals of one number that come
/// close together the kernel makes one. A panic in `make` is contained and counted as one of a
/// callback.
///
/// # Errors
///
/// When a signal cannot be listened to (`SIGKILL`, `SIGSTOP`, `SIGSEGV`, `SIGILL`, `SIGFPE`, or none
/// of this platform), when the system has no thread or descriptor left, and on the thread of a
/// [`Simulation`](crate::testing::Simulation).
pub fn send_to<M: Send + 'static>(
    signals: &[i32],
    to: impl Into<Recipient<M>>,
    mut make: impl FnMut(i32) -> M + Send + 'static,
) -> io::Result<Listening> {
    if Network::with(|network| network.is_simulated()) {
        return Err(simulated("send_to"));
    }
    let to = to.into();
    listen("send_to", signals, move |signal| {
        if !to.is_gone() {
            contain(to.post.door(), "what makes a signal's message", || {
                to.post.send_reserved(to.key, make(signal));
            });
        }
        !to.is_gone()
    })
}

/// Calls `act` at each signal, on a thread of its own, as long as it says so.
fn listen(
    operation: &str,
    wanted: &[i32],
    mut act: impl FnMut(i32) -> bool + Send + 'static,
) -> io::Result<Listening> {
    // Of numbers that are none the kernel knows, but for those signal-hook has no place.
    let is_wrong = |signal: &&i32| FORBIDDEN.contains(signal) || !(1..128).contains(*signal);
    if let Some(wrong) = wanted.iter().find(is_wrong) {
        let text = format!("{operation}: signal {wrong} cannot be listened to");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let failed = |what: String| {
        move |error: io::Error| io::Error::new(error.kind(), format!("{what}: {error}"))
    };
    let mut signals = Signals::new([0; 0]).map_err(failed(operation.to_owned()))?;
    let hook = signals.handle();
    for signal in wanted {
        let added = hook.add_signal(*signal);
        added.map_err(failed(format!("{operation}: signal {signal}")))?;
    }
    let act = move || {
        let mut signals = signals.forever();
        while signals.next().is_some_and(&mut act) {}
    };
    let thread = thread::Builder::new().name("signals".to_owned());
    let thread = thread.spawn(act).map_err(failed(operation.to_owned()))?;
    Ok(Listening { hook, thread })
}

fn simulated(operation: &str) -> io::Error {
    let text = format!("{operation}: no signal reaches a simulation; have a script do it");
    io::Error::new(io::ErrorKind::Unsupported, text)
}
