//! The sockets of listeners: lent to another process, and given out of hand when it has them.

use std::collections::BTreeMap;
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Instant;

use crate::command::{Command, Lent, Released};
use crate::handover::{HandoverError, soon};
use crate::listener::Listener;

/// All that comes from the pollers that a command went to, until each has carried it out.
fn collect<T>(from: Receiver<T>, deadline: Instant) -> Result<Vec<T>, HandoverError> {
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
    let lent = collect(lent, soon())?;
    let lent = lent.into_iter().collect::<io::Result<Vec<Lent>>>();
    let lent = lent.map_err(HandoverError::Io)?;
    if lent.len() == listener.homes().len() || listener.is_closed() {
        return Ok(lent);
    }
    Err(HandoverError::Busy)
}

/// Sockets that are not accepted from, until it is clear that another process does. Given back to
/// their pollers when this is dropped before.
pub(super) struct Release {
    released: Vec<Released>,
}

impl Release {
    /// Those of all these listeners, from all of their pollers; else of none.
    pub(super) fn of(
        listeners: &BTreeMap<String, Listener>,
        deadline: Instant,
    ) -> Result<Release, HandoverError> {
        let mut all = Vec::new();
        for listener in listeners.values() {
            let (to, released) = channel();
            for home in homes(listener) {
                listener.shared.pollers[home].command(Command::Release {
                    origin: listener.origin.clone(),
                    to: to.clone(),
                });
            }
            drop(to);
            all.extend(collect(released, deadline)?);
        }
        Ok(Release { released: all })
    }

    /// It does: they are closed here, and their files left to it.
    pub(super) fn keep(self) {
        self.released.into_iter().for_each(Released::close);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::actor::Actor;
    use crate::listener::{Balance, ListenOptions};
    use crate::local::PollerContext;
    use crate::system::System;

    struct Nobody;

    impl Actor for Nobody {
        type Message = ();
    }

    /// Of two pollers one is in a callback: what the other one has given goes back to it.
    #[test]
    fn where_one_poller_does_not_answer_the_others_get_their_sockets_back() {
        let system = System::builder().pollers(2).build().unwrap();
        let each = ListenOptions::new().balance(Balance::PerPoller);
        let listener = system.listen_with("127.0.0.1:0", each, |_| Nobody).unwrap();
        let listeners = BTreeMap::from([("one".to_owned(), listener.clone())]);
        let (is_in, waits) = channel();
        let (go_on, may_go) = channel::<()>();
        let hold = move |_: &mut PollerContext<'_>| {
            let _ = is_in.send(());
            let _ = may_go.recv();
        };
        assert!(system.handle().run_on(1, hold).is_ok());
        waits.recv().unwrap();
        let soon = Instant::now() + Duration::from_millis(100);
        let released = Release::of(&listeners, soon);
        assert!(matches!(released, Err(HandoverError::Busy)));
        drop(go_on);
        let in_vain = Instant::now() + Duration::from_secs(30);
        while borrow(&listener).map_or(0, |lent| lent.len()) < 2 {
            assert!(Instant::now() < in_vain, "a socket has not come back");
            std::thread::yield_now();
        }
    }
}
