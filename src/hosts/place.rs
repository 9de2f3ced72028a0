//! How an actor comes to its slot, and is opened.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::actor::CloseReason;
use crate::call::{Hosted, Spawned};
use crate::flags::Flags;
use crate::hosts::guard::guard;
use crate::hosts::header::proxies;
use crate::hosts::secured::tls_of;
use crate::hosts::{Hosts, Slot};
use crate::origin::Origin;
use crate::registry::{ActorKey, Counters};
use crate::sys::{Peer, Socket};

/// Connections of one poller that have been refused and are given time to read why. Further ones are
/// not: nobody's bound counts them, and a flood of those who are refused is not to take the
/// descriptors of those who are not.
pub(super) const REFUSED_MAX: usize = 256;

impl Hosts {
    /// The place of a key that was reserved for a new actor.
    pub(super) fn place(&mut self, key: ActorKey, actor: Option<Box<dyn Hosted>>) -> usize {
        let index = key.index() as usize;
        if index >= self.slots.len() {
            self.slots.resize_with(index + 1, || Slot::VACANT);
        }
        debug_assert!(
            self.slots[index].generation == 0,
            "a reserved slot is vacant"
        );
        self.slots[index] = Slot {
            actor,
            generation: key.generation(),
            ..Slot::VACANT
        };
        index
    }

    /// Actors that the callback spawned get their places; they are opened later in the turn.
    pub(crate) fn place_spawned(&mut self) {
        while let Some(Spawned { key, actor, target }) = self.call.spawned.pop() {
            let index = match target {
                Some(target) => self.place_connecting(key, *target, actor),
                None => self.place(key, Some(actor)),
            };
            self.owe(index, Flags::OPENING);
        }
        if !self.call.adopting.is_empty() {
            self.place_adopting();
        }
    }

    /// An actor without a socket, made by another thread's closure.
    pub(crate) fn spawn(
        &mut self,
        key: ActorKey,
        make: Box<dyn FnOnce() -> Box<dyn Hosted> + Send>,
    ) {
        if let Some(actor) = self.make_spawned(key, make) {
            let index = self.place(key, Some(actor));
            self.slots[index].flags.set(Flags::OPENING);
            self.open(index);
        }
    }

    /// What another thread's closure makes; where it panics, the key has gone.
    pub(super) fn make_spawned(
        &mut self,
        key: ActorKey,
        make: Box<dyn FnOnce() -> Box<dyn Hosted> + Send>,
    ) -> Option<Box<dyn Hosted>> {
        match guard(make) {
            Ok(actor) => Some(actor),
            Err(panic) => {
                self.count_panic("a factory", &*panic);
                self.drop_guarded(panic);
                self.call.registry.door.leave(key);
                self.call.registry.door.free(key);
                None
            }
        }
    }

    /// Hosts an accepted connection: makes its actor, opens it, and registers its socket.
    ///
    /// The acceptor has counted the socket in the origin and in this poller's door.
    pub(crate) fn adopt(&mut self, origin: &Arc<Origin>, socket: Socket, peer: Peer) {
        if let Some(proxies) = proxies(origin)
            && (!proxies.allows_direct || proxies.trusts(&peer))
        {
            return self.await_header(origin, proxies, socket, peer);
        }
        let index = self.place_socket(origin, socket, peer, None);
        if let Some(server) = tls_of(origin) {
            self.await_handshake(index, server, peer);
        } else if self.is_made(index, origin, peer) {
            self.welcome(index, origin);
        }
    }

    /// Has the listener make the actor of a connection; where that panics, the connection ends.
    pub(super) fn is_made(&mut self, index: usize, origin: &Arc<Origin>, peer: Peer) -> bool {
        match guard(|| (origin.make)(peer)) {
            Ok(actor) => {
                self.slots[index].actor = Some(actor);
                true
            }
            Err(panic) => {
                let what = self.count_panic("a listener's factory", &*panic);
                self.drop_guarded(panic);
                self.end(index, CloseReason::Panicked(what));
                false
            }
        }
    }

    /// Opens the actor of a connection and registers its socket; counted beforehand as for
    /// [`adopt`](Hosts::adopt).
    pub(crate) fn host(
        &mut self,
        origin: &Arc<Origin>,
        socket: Socket,
        peer: Peer,
        actor: Box<dyn Hosted>,
    ) -> ActorKey {
        let index = self.place_socket(origin, socket, peer, Some(actor));
        self.welcome(index, origin)
    }

    /// Opens an actor that has its socket.
    pub(super) fn welcome(&mut self, index: usize, origin: &Origin) -> ActorKey {
        self.slots[index].flags.set(Flags::OPENING);
        if !origin.per_connection.is_empty() {
            self.set_accepted_options(index);
        }
        self.watch_silence(index);
        self.watch_idle(index);
        let key = self.key(index);
        self.open(index);
        key
    }

    /// Tells an actor that was not opened its end, by `closed` alone.
    pub(super) fn end_unopened(
        &mut self,
        key: ActorKey,
        actor: Box<dyn Hosted>,
        reason: CloseReason,
    ) {
        let index = self.place(key, Some(actor));
        Counters::add(&self.call.registry.door.counters.opened, 1);
        self.slots[index].flags.set(Flags::OPENED);
        self.end(index, reason);
    }

    /// Sends `farewell` to a connection that nobody will serve, and closes it.
    pub(crate) fn refuse(
        &mut self,
        origin: &Arc<Origin>,
        socket: Socket,
        peer: Peer,
        farewell: bytes::Bytes,
    ) {
        if farewell.is_empty() || self.refused >= REFUSED_MAX {
            return self.turn_away(socket, &farewell);
        }
        let door = &self.call.registry.door;
        door.sockets.fetch_add(1, Ordering::AcqRel);
        let index = self.place_socket(origin, socket, peer, None);
        self.slots[index].flags.set(Flags::REFUSED);
        self.refused += 1;
        let now = self.call.now();
        self.extra(index, now).output.push_bytes(farewell);
        self.close(index, CloseReason::Finished);
    }

    /// The same at once, to a peer that is not waited for. What it has sent is received before, or the
    /// close would be a reset; and it is one if the kernel does not take all of the farewell: half of
    /// it is not to look like all of it.
    pub(crate) fn turn_away(&mut self, socket: Socket, farewell: &[u8]) {
        // Whatever fails here, the connection is closed, and nobody is there to be told.
        let _ = socket.recv(&mut self.read_buf);
        let mut left = farewell;
        while !left.is_empty() {
            match socket.send(left) {
                Ok(sent) => left = &left[sent..],
                Err(_) => return socket.abort(),
            }
        }
        let _ = socket.shutdown_write();
    }

    pub(super) fn place_socket(
        &mut self,
        origin: &Arc<Origin>,
        socket: Socket,
        peer: Peer,
        actor: Option<Box<dyn Hosted>>,
    ) -> usize {
        let key = self.call.registry.door.reserve();
        self.place_socket_at(key, origin, socket, peer, actor)
    }

    pub(super) fn place_socket_at(
        &mut self,
        key: ActorKey,
        origin: &Arc<Origin>,
        socket: Socket,
        peer: Peer,
        actor: Option<Box<dyn Hosted>>,
    ) -> usize {
        let origin = self.origin(origin);
        let index = self.place(key, actor);
        if let Some(ticket) = self.arriving.take() {
            self.tickets.insert(index as u32, ticket);
        }
        let slot = &mut self.slots[index];
        slot.socket = Some(socket);
        slot.origin = origin;
        slot.flags.set(Flags::SOCKET | Flags::CONNECTION);
        self.set_peer(index, peer);
        index
    }

    /// Who is at the other end; in place of whoever was.
    pub(super) fn set_peer(&mut self, index: usize, peer: Peer) {
        let slot = &mut self.slots[index];
        slot.peer = [0; 6];
        if slot.flags.has(Flags::ADDR_ELSEWHERE) {
            self.call.peers.remove(&(index as u32));
        }
        match peer {
            // Nobody's, but a proxy may say so; all zero in the slot is no address.
            Peer::Tcp(SocketAddr::V4(v4)) if !v4.ip().is_unspecified() || v4.port() > 0 => {
                slot.peer[..4].copy_from_slice(&v4.ip().octets());
                slot.peer[4..].copy_from_slice(&v4.port().to_be_bytes());
            }
            Peer::Tcp(_) => {
                slot.flags.set(Flags::ADDR_ELSEWHERE);
                self.call.peers.insert(index as u32, peer);
            }
            Peer::Unix => {}
        }
    }

    /// The number of this origin on this poller. Origins that serve no connection any more give
    /// their number to the next.
    pub(super) fn origin(&mut self, origin: &Arc<Origin>) -> u16 {
        let origins = &mut self.call.origins;
        if let Some(number) = origins.iter().position(|known| Arc::ptr_eq(known, origin)) {
            return number as u16;
        }
        let unused = |known: &Arc<Origin>| known.live.load(Ordering::Acquire) == 0;
        match origins.iter().skip(1).position(unused) {
            Some(number) => {
                let before = std::mem::replace(&mut origins[number + 1], origin.clone());
                // With it may go the factory of a closed listener, and what that captured.
                self.drop_guarded(before);
                (number + 1) as u16
            }
            None => {
                origins.push(origin.clone());
                // One for each listener with connections: more than 65,535 of them need more
                // descriptors than there are.
                u16::try_from(origins.len() - 1).unwrap_or(0)
            }
        }
    }

    /// Calls `opened` if it has not been, and lets the selector watch a socket.
    pub(super) fn open(&mut self, index: usize) {
        if !self.slots[index].flags.take(Flags::OPENING) {
            return;
        }
        if self.slots[index].flags.has(Flags::SPECIAL) && self.connecting(index).is_some() {
            return self.begin_connecting(index);
        }
        let key = self.key(index);
        Counters::add(&self.call.registry.door.counters.opened, 1);
        self.slots[index].flags.set(Flags::OPENED);
        self.call(index, |actor, call| actor.opened(call));
        if self.find(key).is_none() {
            return;
        }
        if self.stop.is_some() {
            self.owe(index, Flags::STOPPING);
        }
        self.sync_interest(index);
    }

    /// Tells every actor that the system stops.
    pub(crate) fn begin_stop(&mut self, deadline: Instant) {
        if let Some(stop) = &mut self.stop {
            *stop = deadline.min(*stop);
            return;
        }
        self.stop = Some(deadline);
        for index in 0..self.slots.len() {
            if self.slots[index].actor.is_none() {
                // Nobody would be told of a stop that comes behind it.
                if self.is_securing(index) {
                    self.end(index, CloseReason::Stopped);
                }
            } else if self.connecting(index).is_some() {
                self.close_special(index, CloseReason::Stopped, None);
            } else {
                self.owe(index, Flags::STOPPING);
            }
        }
    }
}
