//! Descriptors that are watched for an actor, which reads and writes them itself.

use crate::actor::CloseReason;
use crate::adopt::{AdoptError, AdoptErrorKind, Readiness, Watching};
use crate::call::{Hosted, Wants};
use crate::flags::Flags;
use crate::hosts::Hosts;
use crate::hosts::special::Special;
use crate::registry::ActorKey;
use crate::sys::descriptor::{self, Ready};
use crate::sys::{Interest, Socket, Source};

/// What is kept for a watched descriptor, which itself is in [`Call`](crate::call::Call), where its
/// actor can get at it.
pub(super) struct Watched {
    /// What the actor asks for.
    interest: Interest,
    /// What the selector reports.
    registered: Interest,
    /// Nothing will come any more but the hang-up, for ever, and that was told.
    is_told: bool,
}

impl Hosts {
    /// A descriptor that another thread gave to this poller.
    pub(crate) fn place_watching(&mut self, key: ActorKey, watching: Watching) {
        let Watching {
            make,
            descriptor,
            interest,
        } = watching;
        if let Some(actor) = self.make_spawned(key, make) {
            self.place_watched(key, descriptor, interest, actor);
        }
    }

    /// The actor is opened later in the turn or in the next.
    pub(super) fn place_watched(
        &mut self,
        key: ActorKey,
        descriptor: Socket,
        interest: Interest,
        actor: Box<dyn Hosted>,
    ) {
        if !self.selector.takes(descriptor.source()) {
            let error = AdoptError::new("watch", AdoptErrorKind::OtherWorld, None);
            return self.end_unopened(key, actor, CloseReason::NotAdopted(error));
        }
        let index = self.place(key, Some(actor));
        let watched = Watched {
            interest,
            registered: Interest::NONE,
            is_told: false,
        };
        self.make_special(index, Special::Watched(watched));
        self.call.descriptors.insert(index as u32, descriptor);
        self.owe(index, Flags::OPENING);
    }

    /// The selector has reported it. What of is asked of the descriptor itself: of a selector's
    /// report, a hang-up is as good as any direction.
    pub(super) fn handle_watched(&mut self, index: usize) {
        let Some(Special::Watched(watched)) = self.special.get_mut(&(index as u32)) else {
            return;
        };
        let Some(Source::Fd(fd)) = self.call.descriptor(index).map(Socket::source) else {
            return;
        };
        let ready = match descriptor::ready(fd, watched.registered) {
            Ok(ready) => ready,
            Err(error) => return self.end(index, CloseReason::Io(error)),
        };
        let Ready {
            readable, hung_up, ..
        } = ready;
        if !readable && !ready.writable && !hung_up {
            return;
        }
        // Of a hang-up with nothing left to read there is no end: it is told once.
        watched.is_told = hung_up && !readable;
        let key = self.key(index);
        self.call(index, |actor, call| actor.ready(Readiness(ready), call));
        if self.find(key).is_some() {
            if hung_up && !readable {
                self.look_whether_hung_up(index);
            }
            self.sync_watched(index);
        }
    }

    /// An error of a socket looks like a hang-up, until the actor has taken it.
    #[cold]
    fn look_whether_hung_up(&mut self, index: usize) {
        if let Some(Special::Watched(watched)) = self.special.get_mut(&(index as u32))
            && let Some(Source::Fd(fd)) = self.call.descriptor(index).map(Socket::source)
            && let Ok(Ready { hung_up: false, .. }) = descriptor::ready(fd, Interest::NONE)
        {
            watched.is_told = false;
        }
    }

    /// The actor has asked for other directions, or goes on after a pause.
    pub(super) fn go_on_watching(&mut self, index: usize, wants: Wants) {
        if let Some(Special::Watched(watched)) = self.special.get_mut(&(index as u32)) {
            if wants.has(Wants::INTEREST) {
                watched.interest = self.call.interest;
            }
            watched.is_told = false;
        }
    }

    /// Makes the selector report just what the actor asks for.
    pub(super) fn sync_watched(&mut self, index: usize) {
        let flags = self.slots[index].flags;
        let token = self.key(index).token();
        let Some(Special::Watched(watched)) = self.special.get_mut(&(index as u32)) else {
            return;
        };
        let is_off = flags.has(Flags::NOT_READING | Flags::CLOSING | Flags::OPENING);
        let wanted = if is_off || watched.is_told {
            Interest::NONE
        } else {
            watched.interest
        };
        let have = std::mem::replace(&mut watched.registered, wanted);
        if have == wanted {
            return;
        }
        let Some(source) = self.call.descriptor(index).map(Socket::source) else {
            return;
        };
        let done = match (have.is_empty(), wanted.is_empty()) {
            (true, _) => self.selector.register(source, token, wanted),
            (_, true) => self.selector.deregister(source),
            _ => self.selector.reregister(source, token, wanted),
        };
        if let Err(error) = done {
            watched.registered = Interest::NONE;
            self.end(index, CloseReason::Io(error));
        }
    }

    /// Its actor has gone: so does the descriptor, out of the selector first.
    pub(super) fn forget_watched(&mut self, index: usize, watched: &Watched) {
        let Some(descriptor) = self.call.descriptors.remove(&(index as u32)) else {
            return;
        };
        if !watched.registered.is_empty()
            && let Err(error) = self.selector.deregister(descriptor.source())
        {
            log::warn!("deregister: {error}");
        }
    }
}
