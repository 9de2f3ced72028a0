//! The simulated back end of the selector.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::faults::Fault;
use super::network::{Network, Number, Place, errno, simulate};
use super::trace::What;
use crate::sys::Interest;
use crate::sys::selector::{Event, Events};

/// Who watches a socket, and for what.
#[derive(Clone, Copy)]
pub(super) struct Watched {
    token: u64,
    /// By which number it stands in the selector's list; 0 if it does not.
    listing: u64,
    selector: u32,
    interest: Interest,
}

/// What stands in a selector's list. Of no meaning any more once what is watched stands there by
/// another number: it was taken out of the selector, or closed, and the place may be another's.
#[derive(Clone, Copy)]
pub(super) struct Listed {
    number: Number,
    listing: u64,
}

impl Default for Watched {
    /// Nobody.
    fn default() -> Watched {
        Watched {
            token: 0,
            listing: 0,
            selector: u32::MAX,
            interest: Interest::NONE,
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
    /// Of which network it is, and its place there.
    network: u64,
    number: u32,
    /// Set by whoever wakes; the waker's token.
    waker: Option<(Arc<AtomicBool>, u64)>,
    /// What was reported last: it may be reported once more, for nothing.
    stale: Vec<Event>,
}

impl SimulatedSelector {
    pub(in crate::sys) fn new() -> SimulatedSelector {
        let (network, number) = Network::with(|network| {
            let number = network.gone.pop().unwrap_or_else(|| {
                network.ready.push(Vec::new());
                network.ready.len() as u32 - 1
            });
            (network.id(), number)
        });
        SimulatedSelector {
            network,
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
            watched.listing = 0;
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
            // A poller looks once more after each piece of work: those looks would be half of every
            // trace.
            if count > 0 || woken_by {
                network.record(|| What::Wakes {
                    events: count,
                    woken: woken_by,
                });
            }
            events.refill(woken.into_iter().chain(ready));
        });
    }
}

/// All that it watched has been closed before.
impl Drop for SimulatedSelector {
    fn drop(&mut self) {
        let _ = simulate(|network| {
            if network.id() == self.network {
                network.ready[self.number as usize] = Vec::new();
                network.gone.push(self.number);
            }
        });
    }
}

impl Network {
    fn watched(&mut self, number: Number) -> &mut Watched {
        match number.place() {
            Place::End { connection, side } => &mut self.connections[connection].ends[side].watched,
            Place::Listener(place) => &mut self.listeners[place].watched,
            Place::Datagram(place) => &mut self.bound[place].watched,
        }
    }

    fn watch(&mut self, number: Number, selector: u32, token: u64, interest: Interest) {
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

    pub(super) fn touch_datagram(&mut self, place: usize) {
        self.touch_number(Number::datagram(place));
    }

    fn touch_number(&mut self, number: Number) {
        let listing = self.listings + 1;
        let watched = self.watched(number);
        if watched.is_watched() && watched.listing == 0 {
            watched.listing = listing;
            let selector = watched.selector as usize;
            self.listings = listing;
            self.ready[selector].push(Listed { number, listing });
        }
    }

    /// In which of the directions asked for it is ready.
    fn ready_of(&mut self, listed: Listed) -> Interest {
        let Listed { number, listing } = listed;
        let watched = self.watched(number);
        let asked = watched.interest;
        match number.place() {
            _ if watched.listing != listing => Interest::NONE,
            Place::End { connection, side } if self.is_down(connection, side) => {
                Interest::READ | Interest::WRITE
            }
            Place::End { connection, side } => self.readiness(connection, side).and(asked),
            Place::Listener(place) if self.listeners[place].backlog.is_empty() => Interest::NONE,
            Place::Listener(_) => Interest::READ.and(asked),
            Place::Datagram(place) => self.datagram_readiness(place).and(asked),
        }
    }

    fn has_ready(&mut self, selector: u32) -> bool {
        while let Some(&listed) = self.ready[selector as usize].last() {
            if !self.ready_of(listed).is_empty() {
                return true;
            }
            self.ready[selector as usize].pop();
            self.unlist(listed);
        }
        false
    }

    fn unlist(&mut self, listed: Listed) {
        let watched = self.watched(listed.number);
        if watched.listing == listed.listing {
            watched.listing = 0;
        }
    }

    /// Level-triggered: what is reported stays in the list until it is ready no more.
    fn take_ready(&mut self, selector: u32, most: usize) -> Vec<Event> {
        let mut list = std::mem::take(&mut self.ready[selector as usize]);
        if self.happens(Fault::Readiness) {
            self.random.shuffle(&mut list);
        }
        let mut events = Vec::new();
        list.retain(|&listed| {
            let ready = self.ready_of(listed);
            if ready.is_empty() {
                self.unlist(listed);
                return false;
            }
            if events.len() < most && !self.happens(Fault::Readiness) {
                events.push(Event::new(self.watched(listed.number).token, ready));
            }
            true
        });
        // What came first this time comes last the next.
        let reported = events.len().min(list.len());
        list.rotate_left(reported);
        self.ready[selector as usize] = list;
        events
    }
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;

    use super::*;
    use crate::sys::simulated::network::SERVER;

    fn send(from: Number, bytes: &[u8]) {
        let sent = Network::with(|network| network.send(from, &[IoSlice::new(bytes)]));
        assert_eq!(sent.unwrap(), bytes.len());
    }

    fn tokens(selector: &mut SimulatedSelector) -> Vec<u64> {
        let mut events = Events::with_capacity(8);
        selector.wait(&mut events);
        events.iter().map(Event::token).collect()
    }

    #[test]
    fn an_end_is_reported_until_its_cause_is_dealt_with() {
        let [client, server] = Network::with(Network::pair);
        let mut selector = SimulatedSelector::new();
        selector.register(server, 7, Interest::READ).unwrap();
        assert!(!selector.is_ready());
        send(client, b"hello");
        for _ in 0..2 {
            assert!(selector.is_ready());
            assert_eq!(tokens(&mut selector), [7]);
        }
        assert_eq!(server.recv(&mut [0; 10]).unwrap(), 5);
        assert!(!selector.is_ready());
        assert_eq!(tokens(&mut selector), []);
    }

    #[test]
    fn an_end_is_not_reported_in_the_place_of_one_that_was_closed() {
        let [client, server] = Network::with(Network::pair);
        let (mut before, mut after) = (SimulatedSelector::new(), SimulatedSelector::new());
        before.register(server, 1, Interest::READ).unwrap();
        send(client, b"to the first");
        server.close();
        client.close();
        let [client, again] = Network::with(Network::pair);
        assert_eq!(again, server, "the place is used again");
        after.register(again, 2, Interest::READ).unwrap();
        send(client, b"to the second");
        assert!(!before.is_ready());
        assert_eq!(tokens(&mut before), []);
        assert_eq!(tokens(&mut after), [2]);
    }

    #[test]
    fn an_end_is_reported_once_by_a_wait() {
        let mut selector = SimulatedSelector::new();
        for _ in 0..3 {
            let [client, server] = Network::with(Network::pair);
            selector.register(server, 1, Interest::READ).unwrap();
            send(client, b"hello");
            selector.deregister(server).unwrap();
            selector.register(server, 1, Interest::READ).unwrap();
            assert_eq!(tokens(&mut selector), [1]);
            client.close();
            server.close();
        }
        let [client, server] = Network::with(Network::pair);
        send(client, b"hello");
        for _ in 0..3 {
            selector.register(server, 1, Interest::READ).unwrap();
            server.close();
            let end = Number::end(0, SERVER);
            assert_eq!(server, end);
            let [_client, again] = Network::with(|network| {
                network.close(client);
                network.pair()
            });
            assert_eq!(again, server);
            send(client, b"hello");
        }
        selector.register(server, 1, Interest::READ).unwrap();
        assert_eq!(tokens(&mut selector), [1]);
    }

    #[test]
    fn a_selector_that_has_gone_leaves_nothing_behind() {
        let places = || Network::with(|network| network.ready.len());
        drop(SimulatedSelector::new());
        let before = places();
        for _ in 0..100 {
            drop(SimulatedSelector::new());
        }
        assert_eq!(places(), before);
    }
}
