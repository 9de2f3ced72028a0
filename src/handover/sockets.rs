//! The sockets of listeners: lent to another process, and given out of hand when it has them.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Instant;

use crate::command::{Command, Lent, Released};
use crate::handover::{HandoverError, soon};
use crate::listener::Listener;

/// All that comes from the pollers that a command went to, until each has carried it out.
fn collect<T>(from: Receiver<T>) -> Result<Vec<T>, HandoverError> {
    let deadline = soon();
    let mut all = Vec::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match from.recv_timeout(left) {
            Ok(one) => all.push(one),
            Err(RecvTimeoutError::Disconnected) => return Ok(all),
            Err(RecvTimeoutError::Timeout) => return Err(HandoverError::Busy),
        }
    }
}

/// The pollers that accept for a listener, each once.
fn homes(listener: &Listener) -> Vec<usize> {
    let mut homes = listener.homes().to_vec();
    homes.sort_unstable();
    homes.dedup();
    homes
}

/// Duplicates of all sockets of a listener; none of one that is closed.
pub(super) fn borrow(listener: &Listener) -> Result<Vec<Lent>, HandoverError> {
    let (to, lent) = channel();
    for home in homes(listener) {
        listener.shared.pollers[home].command(Command::Lend {
            origin: listener.origin.clone(),
            to: to.clone(),
        });
    }
    drop(to);
    let lent = collect(lent)?;
    let lent = lent.into_iter().collect::<io::Result<Vec<Lent>>>();
    let lent = lent.map_err(HandoverError::Io)?;
    if lent.len() == listener.homes().len() || listener.is_closed() {
        return Ok(lent);
    }
    Err(HandoverError::Busy)
}

/// Sockets that are not accepted from, until it is clear that another process does. Given back to
/// their pollers when this is dropped before.
pub(super) struct Release<'a> {
    listeners: &'a BTreeMap<String, Listener>,
    released: Vec<Released>,
}

impl<'a> Release<'a> {
    pub(super) fn of(
        listeners: &'a BTreeMap<String, Listener>,
    ) -> Result<Release<'a>, HandoverError> {
        let mut release = Release {
            listeners,
            released: Vec::new(),
        };
        for listener in listeners.values() {
            let (to, released) = channel();
            for home in homes(listener) {
                listener.shared.pollers[home].command(Command::Release {
                    origin: listener.origin.clone(),
                    to: to.clone(),
                });
            }
            drop(to);
            release.released.extend(collect(released)?);
        }
        Ok(release)
    }

    /// It does: they are closed here, and their files left to it.
    pub(super) fn keep(mut self) {
        for mut released in self.released.drain(..) {
            released.socket.give_up_path();
        }
    }
}

impl Drop for Release<'_> {
    fn drop(&mut self) {
        for released in self.released.drain(..) {
            let Released {
                poller,
                socket,
                opened,
            } = released;
            let is_of = |listener: &&Listener| Arc::ptr_eq(&listener.origin, &opened.origin);
            if let Some(listener) = self.listeners.values().find(is_of) {
                listener.shared.pollers[poller].command(Command::Listen { socket, opened });
            }
        }
    }
}
