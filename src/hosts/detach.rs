//! Sockets that leave with an actor's end, and those that come from elsewhere.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::BytesMut;

use crate::actor::CloseReason;
use crate::adopt::{AdoptError, AdoptErrorKind, Adoption, Carried, Detached, Given, Prepared};
use crate::call::{AdoptFor, Adopting, Hosted};
use crate::datagram::DatagramOptions;
use crate::flags::Flags;
use crate::hosts::extras::Extra;
use crate::hosts::{Hosts, begin};
use crate::origin::Origin;
use crate::registry::ActorKey;
use crate::sys::DatagramSocket;

impl Hosts {
    /// The actor's callback asked for its socket to be taken out. What it wrote is kept, and not
    /// sent.
    pub(super) fn detach(&mut self, index: usize) {
        if !self.keep_all(index) {
            return;
        }
        let extra = self.extras.get(self.slots[index].extra);
        if extra.is_some_and(Extra::has_file) {
            let text = "detach: a part of a file waits to be sent, and cannot go along";
            let error = io::Error::new(io::ErrorKind::Unsupported, text);
            return self.end(index, CloseReason::Io(error));
        }
        let Some(take) = self.call.detach.take() else {
            return;
        };
        begin(&mut self.call, &self.slots[index], index, &self.extras);
        let (peer, local) = (self.call.peer(), self.call.local());
        let slot = &mut self.slots[index];
        let (Some(socket), Some(peer)) = (slot.socket.take(), peer) else {
            return;
        };
        let local = local.or_else(|| socket.local_addr().ok());
        // First of all: whoever gets it may close it, or give it to another selector.
        if slot.flags.has(Flags::REGISTERED)
            && let Err(error) = self.selector.deregister(socket.source())
        {
            log::warn!("deregister: {error}");
        }
        slot.flags.clear(Flags::REGISTERED);
        let mut carried = Carried {
            write_shut: slot.flags.has(Flags::WRITE_SHUT),
            ..Carried::default()
        };
        if let Some(extra) = self.extras.get_mut(slot.extra) {
            carried.unread = std::mem::take(&mut extra.kept).freeze();
            carried.unwritten = extra.take_output();
        }
        self.retire(index, &CloseReason::Detached);
        let (origin, flags) = (self.slots[index].origin, self.slots[index].flags);
        self.free(index);
        self.give_back(origin, flags);
        let detached = Detached::new(socket, carried, peer, local);
        self.guarded_as("the taker of a detached socket", || take(detached));
    }

    /// A socket that another thread gave to this poller.
    pub(crate) fn place_adoption(&mut self, key: ActorKey, adoption: Adoption) {
        let Adoption {
            make,
            origin,
            socket,
        } = adoption;
        if let Some(actor) = self.make_spawned(key, make) {
            return self.place_adopted(key, &origin, socket, actor);
        }
        origin.live.fetch_sub(1, Ordering::AcqRel);
        // Closed before it is counted as gone.
        drop(socket);
        self.freed += 1;
    }

    /// Descriptors that the callback gave to new actors.
    pub(super) fn place_adopting(&mut self) {
        while let Some(adopting) = self.call.adopting.pop() {
            let Adopting {
                key,
                actor,
                socket,
                for_what,
            } = adopting;
            let is_simulated = self.call.shared.simulated.is_some();
            let error = match for_what {
                AdoptFor::Stream(options) => match socket.prepare(&options, is_simulated) {
                    Ok(Given::Datagrams(socket, options)) => {
                        self.place_adopted_datagrams(key, socket, options, actor);
                        continue;
                    }
                    Ok(Given::Stream(socket)) => {
                        let origin = self.call.shared.origin_of(&options.connection);
                        origin.live.fetch_add(1, Ordering::AcqRel);
                        let door = &self.call.registry.door;
                        door.sockets.fetch_add(1, Ordering::AcqRel);
                        self.place_adopted(key, &origin, socket, actor);
                        continue;
                    }
                    Err(error) => error,
                },
                AdoptFor::Watching(interest) => match socket.prepare_to_watch(is_simulated) {
                    Ok(descriptor) => {
                        self.place_watched(key, descriptor, interest, actor);
                        continue;
                    }
                    Err(error) => error,
                },
            };
            let reason = CloseReason::NotAdopted(error.without_socket());
            self.end_unopened(key, actor, reason);
        }
    }

    fn place_adopted_datagrams(
        &mut self,
        key: ActorKey,
        socket: DatagramSocket,
        options: DatagramOptions,
        actor: Box<dyn Hosted>,
    ) {
        if !self.selector.takes(socket.socket.source()) {
            drop(socket);
            let error = AdoptError::new("adopt", AdoptErrorKind::OtherWorld, None);
            return self.end_unopened(key, actor, CloseReason::NotAdopted(error));
        }
        let door = &self.call.registry.door;
        door.sockets.fetch_add(1, Ordering::AcqRel);
        let index = self.place_datagrams(key, socket, options, actor);
        self.owe(index, 0);
    }

    /// The actor is opened, and shown what came with its socket, later in the turn or in the next.
    fn place_adopted(
        &mut self,
        key: ActorKey,
        origin: &Arc<Origin>,
        socket: Prepared,
        actor: Box<dyn Hosted>,
    ) {
        if !self.selector.takes(socket.socket.source()) {
            origin.live.fetch_sub(1, Ordering::AcqRel);
            drop(socket);
            self.freed += 1;
            let error = AdoptError::new("adopt", AdoptErrorKind::OtherWorld, None);
            return self.end_unopened(key, actor, CloseReason::NotAdopted(error));
        }
        let Prepared {
            socket,
            peer,
            carried,
        } = socket;
        let socket = socket.into_socket();
        let index = self.place_socket_at(key, origin, socket, peer, Some(actor));
        self.watch_idle(index);
        self.owe(index, Flags::OPENING);
        if carried.write_shut {
            let flags = Flags::WRITE_SHUT | Flags::SHUT_PENDING;
            self.slots[index].flags.set(flags);
        }
        if carried.write_shut || !carried.unwritten.is_empty() {
            let now = self.call.now();
            self.extra(index, now).output.push_bytes(carried.unwritten);
            // As if the socket had just refused them, which it probably has.
            self.slots[index].flags.set(Flags::BLOCKED);
            self.watch_output(index);
            self.set_counted(index, true);
        }
        if !carried.unread.is_empty() {
            let now = self.call.now();
            self.extra(index, now).kept = BytesMut::from(carried.unread);
            self.owe(index, Flags::SHOW_INPUT);
            self.watch_input(index);
        }
        if self.queued_at(index) >= origin.options.high_watermark {
            self.reach_high(index);
        }
    }
}
