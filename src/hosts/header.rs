//! Connections whose proxy is still to say whose they are: see [`ProxyProtocol`].

use std::io;
use std::sync::Arc;
use std::time::Instant;

use crate::actor::CloseReason;
use crate::entrance::Cause;
use crate::flags::Flags;
use crate::hosts::place::REFUSED_MAX;
use crate::hosts::secured::tls_of;
use crate::hosts::special::Special;
use crate::hosts::{FRONT_MAX, Hosts};
use crate::origin::Origin;
use crate::proxy_protocol::{Header, ProxyProtocol};
use crate::registry::Counters;
use crate::sys::{Peer, Socket};
use crate::watch::Watch;

/// A connection that waits for its header.
pub(super) struct Waiting {
    /// The beginning of one. Never more than the limit of its listener.
    bytes: Vec<u8>,
    /// Who connected.
    proxy: Peer,
}

/// The listener's, if it is behind proxies.
pub(super) fn proxies(origin: &Origin) -> Option<&ProxyProtocol> {
    origin.entrance.as_deref()?.proxies.as_ref()
}

impl Hosts {
    /// A connection of a listener that is behind proxies, and not a client's own.
    pub(super) fn await_header(
        &mut self,
        origin: &Arc<Origin>,
        proxies: &ProxyProtocol,
        socket: Socket,
        peer: Peer,
    ) {
        let index = self.place_socket(origin, socket, peer, None);
        if !proxies.trusts(&peer) {
            return self.refuse_header(index, peer, "it is not from a trusted address");
        }
        let bytes = Vec::new();
        let proxy = peer;
        self.make_special(index, Special::Header(Waiting { bytes, proxy }));
        let until = self.call.deadline(proxies.deadline);
        self.watch_header(index, until);
        self.sync_interest(index);
    }

    fn watch_header(&mut self, index: usize, until: Instant) {
        let what = crate::call::TimerFor::Watch(Watch::Header);
        self.call.timers.set(index as u32, until, None, what);
    }

    /// The deadline has come.
    pub(super) fn header_is_late(&mut self, index: usize) {
        if let Some(Special::Header(waiting)) = self.special.get(&(index as u32)) {
            let proxy = waiting.proxy;
            self.refuse_header(index, proxy, "it has not come in time");
        }
    }

    /// Looks at what has come, and takes no byte behind the header: that belongs to the actor, and
    /// stays where the selector will report it.
    pub(super) fn read_header(&mut self, index: usize) {
        let slot = &self.slots[index];
        let origin = self.call.origins[usize::from(slot.origin)].clone();
        let (Some(proxies), Some(socket)) = (proxies(&origin), &slot.socket) else {
            return;
        };
        let Some(Special::Header(waiting)) = self.special.get_mut(&(index as u32)) else {
            return;
        };
        let proxy = waiting.proxy;
        let before = waiting.bytes.len();
        let room = (proxies.max - before).min(FRONT_MAX);
        let looked = socket.peek(&mut self.read_buf[..room]);
        let found = match looked {
            Ok(0) => Err("the connection has ended before it"),
            Ok(len) => {
                waiting.bytes.extend_from_slice(&self.read_buf[..len]);
                match Header::parse(&waiting.bytes, proxies.max) {
                    Header::Incomplete => Ok((waiting.bytes.len(), None)),
                    Header::Whole { len, peer } => Ok((len, Some(peer.unwrap_or(proxy)))),
                    Header::Malformed(why) => Err(why),
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(_) => Err("the connection has failed before it"),
        };
        let (len, peer) = match found {
            Ok(found) => found,
            Err(why) => return self.refuse_header(index, proxy, why),
        };
        // What was looked at is there to be taken.
        let mut left = len - before;
        while left > 0 {
            match socket.recv(&mut self.read_buf[..left]) {
                Ok(taken) if taken > 0 => left -= taken,
                _ => return self.refuse_header(index, proxy, "the connection has failed in it"),
            }
        }
        if let Some(peer) = peer {
            self.take_special(index);
            self.call.timers.cancel_all(index as u32);
            self.host_client(index, &origin, peer);
        }
    }

    /// The header has told whose connection it is: its actor is made and opened.
    fn host_client(&mut self, index: usize, origin: &Arc<Origin>, peer: Peer) {
        self.set_peer(index, peer);
        if !self.has_room_for(index, origin, peer) {
            return;
        }
        if let Some(server) = tls_of(origin) {
            return self.await_handshake(index, server, peer);
        }
        if self.is_made(index, origin, peer) {
            self.welcome(index, origin);
        }
    }

    /// Whether this client's source has a place left; if not, the connection is told so and closed.
    ///
    /// Looked at here and not at the accept, where all clients are the proxy.
    fn has_room_for(&mut self, index: usize, origin: &Arc<Origin>, peer: Peer) -> bool {
        let Some(entrance) = origin.entrance.as_deref() else {
            return true;
        };
        let (Some(sources), Some(ip)) = (&entrance.sources, peer.ip()) else {
            return true;
        };
        if let Some(ticket) = sources.take(ip) {
            self.tickets.insert(index as u32, ticket);
            return true;
        }
        let counters = &self.call.registry.door.counters;
        Counters::add(&counters.refused[Cause::Source as usize], 1);
        // It gives its place back at once, as one that was refused when it was accepted.
        origin.leave(&self.call.shared);
        self.slots[index].flags.set(Flags::REFUSED);
        self.refused += 1;
        let farewell = entrance.source_farewell().clone();
        if farewell.is_empty() || self.refused > REFUSED_MAX {
            self.end(index, CloseReason::Finished);
        } else {
            let now = self.call.now();
            self.extra(index, now).output.push_bytes(farewell);
            self.close(index, CloseReason::Finished);
        }
        false
    }

    fn refuse_header(&mut self, index: usize, from: Peer, why: &str) {
        Counters::add(&self.call.registry.door.counters.headers_refused, 1);
        log::debug!("connection from {from}: PROXY protocol header: {why}");
        debug_assert!(!self.slots[index].flags.has(Flags::OPENED));
        self.end(index, CloseReason::Finished);
    }
}
