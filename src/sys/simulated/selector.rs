//! The simulated back end of the selector.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::faults::Fault;
use super::network::{Network, Number, Place, errno};
use super::trace::What;
use crate::sys::Interest;
use crate::sys::selector::{Event, Events};

/// Who watches a socket, and for what.
#[derive(Clone, Copy)]
pub(super) struct Watched {
    selector: usize,
    token: u64,
    interest: Interest,
    /// It stands in the selector's list.
    is_listed: bool,
}

impl Default for Watched {
    /// Nobody.
    fn default() -> Watched {
        Watched {
            selector: usize::MAX,
            token: 0,
            interest: Interest::NONE,
            is_listed: false,
        }
    }
}

impl Watched {
    fn is_watched(&self) -> bool {
        !self.interest.is_empty()
    }
}

/// One selector of this thread's network.
#[derive(Debug)]
pub(in crate::sys) struct SimulatedSelector {
    number: usize,
    /// Set by whoever wakes; the waker's token.
    waker: Option<(Arc<AtomicBool>, u64)>,
    /// What was reported last: it may be reported once more, for nothing.
    stale: Vec<Event>,
}

impl SimulatedSelector {
    pub(in crate::sys) fn new() -> SimulatedSelector {
        let number = Network::with(|network| {
            network.ready.push(Vec::new());
            network.ready.len() - 1
        });
        SimulatedSelector {
            number,
            waker: None,
            stale: Vec::new(),
        }
    }

    pub(in crate::sys) fn register(
        &self,
        number: Number,
        token: u64,
        interest: Interest,
    ) -> io::Result<()> {
        Network::with(|network| {
            if network.watched(number).is_watched() {
                return Err(errno(libc::EEXIST));
            }
            if network.happens(Fault::NoMemory) {
                network.record(|| What::Note("no memory for a registration".to_owned()));
                return Err(errno(libc::ENOMEM));
            }
            network.watch(number, self.number, token, interest);
            Ok(())
        })
    }

    pub(in crate::sys) fn reregister(
        &self,
        number: Number,
        token: u64,
        interest: Interest,
    ) -> io::Result<()> {
        Network::with(|network| {
            if !network.watched(number).is_watched() {
                return Err(errno(libc::ENOENT));
            }
            network.watch(number, self.number, token, interest);
            Ok(())
        })
    }

    pub(in crate::sys) fn deregister(&self, number: Number) -> io::Result<()> {
        Network::with(|network| {
            let watched = network.watched(number);
            if !watched.is_watched() {
                return Err(errno(libc::ENOENT));
            }
            watched.interest = Interest::NONE;
            Ok(())
        })
    }

    pub(in crate::sys) fn register_waker(&mut self, flag: Arc<AtomicBool>, token: u64) {
        self.waker = Some((flag, token));
    }

    /// Whether a wait would find something.
    pub(in crate::sys) fn is_ready(&self) -> bool {
        let woken = |(flag, _): &(Arc<AtomicBool>, u64)| flag.load(Ordering::Acquire);
        self.waker.as_ref().is_some_and(woken)
            || Network::with(|network| network.has_ready(self.number))
    }

    /// Reports what is ready at this moment, never waiting: the simulation calls it when there is
    /// something, or when the time of the wait is over.
    pub(in crate::sys) fn wait(&mut self, events: &mut Events) {
        let woken = self
            .waker
            .as_ref()
            .filter(|(flag, _)| flag.swap(false, Ordering::AcqRel))
            .map(|(_, token)| Event::new(*token, Interest::READ));
        Network::with(|network| {
            let most = events.capacity() - usize::from(woken.is_some());
            let mut ready = network.take_ready(self.number, most);
            if !self.stale.is_empty() && network.happens(Fault::Readiness) {
                let stale = *network.random.pick(&self.stale);
                if ready.len() < most && ready.iter().all(|event| event.token() != stale.token()) {
                    ready.push(stale);
                }
            }
            self.stale.clone_from(&ready);
            let (count, woken_by) = (ready.len(), woken.is_some());
            network.record(|| What::Wakes {
                events: count,
                woken: woken_by,
            });
            events.refill(woken.into_iter().chain(ready));
        });
    }
}

impl Network {
    fn watched(&mut self, number: Number) -> &mut Watched {
        match number.place() {
            Place::End { connection, side } => &mut self.connections[connection].ends[side].watched,
            Place::Listener(place) => &mut self.listeners[place].watched,
        }
    }

    fn watch(&mut self, number: Number, selector: usize, token: u64, interest: Interest) {
        let watched = self.watched(number);
        watched.selector = selector;
        watched.token = token;
        watched.interest = interest;
        self.touch_number(number);
    }

    /// Something about this end has changed: its selector is to look at it.
    pub(super) fn touch(&mut self, connection: usize, side: usize) {
        self.touch_number(Number::end(connection, side));
    }

    pub(super) fn touch_listener(&mut self, place: usize) {
        self.touch_number(Number::listener(place));
    }

    fn touch_number(&mut self, number: Number) {
        let watched = self.watched(number);
        if watched.is_watched() && !watched.is_listed {
            watched.is_listed = true;
            let selector = watched.selector;
            self.ready[selector].push(number);
        }
    }

    /// In which of the directions asked for it is ready.
    fn ready_of(&mut self, number: Number) -> Interest {
        let asked = self.watched(number).interest;
        match number.place() {
            _ if asked.is_empty() => Interest::NONE,
            Place::End { connection, side } if self.is_down(connection, side) => {
                Interest::READ | Interest::WRITE
            }
            Place::End { connection, side } => self.readiness(connection, side).and(asked),
            Place::Listener(place) if self.listeners[place].backlog.is_empty() => Interest::NONE,
            Place::Listener(_) => Interest::READ.and(asked),
        }
    }

    fn has_ready(&mut self, selector: usize) -> bool {
        while let Some(&number) = self.ready[selector].last() {
            if !self.ready_of(number).is_empty() {
                return true;
            }
            self.ready[selector].pop();
            self.unlist(number, selector);
        }
        false
    }

    fn unlist(&mut self, number: Number, selector: usize) {
        let watched = self.watched(number);
        if watched.selector == selector {
            watched.is_listed = false;
        }
    }

    /// Level-triggered: what is reported stays in the list until it is ready no more.
    fn take_ready(&mut self, selector: usize, most: usize) -> Vec<Event> {
        let mut list = std::mem::take(&mut self.ready[selector]);
        if self.happens(Fault::Readiness) {
            self.random.shuffle(&mut list);
        }
        let mut events = Vec::new();
        list.retain(|&number| {
            let ready = self.ready_of(number);
            if ready.is_empty() {
                self.unlist(number, selector);
                return false;
            }
            if events.len() < most && !self.happens(Fault::Readiness) {
                events.push(Event::new(self.watched(number).token, ready));
            }
            true
        });
        // What came first this time comes last the next.
        let reported = events.len().min(list.len());
        list.rotate_left(reported);
        self.ready[selector] = list;
        events
    }
}
