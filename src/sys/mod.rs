//! Every system call of the crate, every `cfg(target_os)` and every `unsafe` block.
//!
//! A platform supplies the following, and nothing above this folder knows which platform it is:
//!
//! - **readiness** (`selector`, a file per back end): level-triggered, a `u64` token per
//!   descriptor, deregistered by hand before a descriptor is closed, a wait with a timeout that is
//!   never cut short but by a signal;
//! - **a wake** (`wake_fd`, made by the selector that it wakes): from any thread, without blocking,
//!   without failing, never lost;
//! - **stream sockets** (`socket`, `listen_socket`, `unix_path`, `addr`): non-blocking and
//!   close-on-exec from the call that makes them, no `SIGPIPE`, TCP and Unix;
//! - **time** (`clock`): monotonic.
//!
//! What differs between systems has one name in `platform`: Linux is where this is built, tested and
//! measured; for the BSDs, macOS and other Unixes it is compiled, and has run on none of them.
//!
//! Beside them stands the one `unsafe` that is no system call, the lock of the mailboxes
//! (`word_lock`).
//!
//! Two conventions hold throughout. Descriptors are `OwnedFd`, so there is no close to forget and
//! no raw number to confuse. `EINTR` is dealt with here; `WouldBlock` is passed on, for the caller
//! alone knows whether to wait.

#![allow(unsafe_code)]

#[cfg(not(unix))]
compile_error!("greenroom runs on Unix: Windows is not among its aims");

use std::io;

/// Calls a function of libc and turns its `-1` into the `io::Error` of `errno`.
///
/// It holds no `unsafe` of its own: each call has to say why its arguments are sound.
macro_rules! syscall {
    ($function:ident($($argument:expr),* $(,)?)) => {{
        let result = libc::$function($($argument),*);
        if result == -1 {
            Err(::std::io::Error::last_os_error())
        } else {
            Ok(result)
        }
    }};
}

mod addr;
pub(crate) mod affinity;
mod chance;
pub(crate) mod clock;
mod datagram;
pub(crate) mod descriptor;
#[cfg(target_os = "linux")]
mod epoll;
pub(crate) mod fd_passing;
mod file;
#[cfg(any(
    target_vendor = "apple",
    target_os = "freebsd",
    target_os = "dragonfly",
    target_os = "netbsd",
    target_os = "openbsd",
    all(target_os = "linux", any(test, greenroom_kqueue_double))
))]
mod kqueue;
mod listen_socket;
mod lookup;
mod options;
mod outgoing;
mod platform;
mod poll;
mod primitives;
#[cfg(feature = "websocket")]
pub(crate) mod random;
mod selector;
mod simulated;
mod socket;
mod spare;
mod unix_path;
mod wake_fd;
mod word_lock;

#[cfg(test)]
mod test_util;

pub use addr::{Endpoint, Peer};
pub(crate) use chance::chance;
pub(crate) use datagram::{
    Arrived, Batched, DatagramBind, DatagramSocket, Destination, Family, Outgoing, ReceiveBatch,
    SPREADS, SendBatch, SourceAddr, Turn, is_of_the_past, is_passing,
};
pub use datagram::{DatagramAddr, DatagramOption, Interface};
pub(crate) use file::read_file_at;
pub(crate) use listen_socket::{Accepted, BindOptions, ListenSocket};
pub(crate) use lookup::{LookupError, look_up};
#[allow(unused_imports, reason = "for sockets that are not listened on")]
pub(crate) use options::Role;
pub use options::{Keepalive, SocketOption, SocketOptions};
pub(crate) use outgoing::{
    Begun, CannotConnect, HowToConnect, Step, check_path, is_out_of_descriptors, is_out_of_memory,
    is_out_of_ports,
};
pub use selector::Interest;
pub use selector::SelectorKind;
pub(crate) use selector::{Events, Selector, Source};
pub use simulated::{Fault, Faults, Random, Trace};
pub(crate) use simulated::{Hand, Network, Parcel, Process, Who, Wire};
pub(crate) use socket::Socket;
pub(crate) use spare::Spare;
pub(crate) use unix_path::UnixPath;
pub(crate) use wake_fd::WakeFd;
pub(crate) use word_lock::WordLock;

/// Repeats a call for as long as a signal interrupts it.
#[inline(always)]
fn retry_interrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
