//! How a connection ends.
//!
//! `close` flushes, then `finish_close` shuts down the writing side, tells the actor, and lingers;
//! `end` does it at once. Both come down to `retire` (the actor's end) and `free` (the socket's and
//! the slot's).

use std::any::Any;
use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::actor::CloseReason;
use crate::call::{Hosted, Noted, Wants};
use crate::flags::Flags;
use crate::hosts::guard::guard;
use crate::hosts::{Hosts, Slot, begin, is_reset};
use crate::registry::{ActorId, Counters};
use crate::sys::{Network, Socket, clock};

/// Slots for which room is kept when all have gone: a few pages, so that connections that come and
/// go one by one allocate nothing.
const SLOTS_KEPT: usize = 1024;

/// How long a connection that was refused may take to read why, and to go.
const REFUSED_LINGER: Duration = Duration::from_secs(1);

/// ... and how much it may send meanwhile.
const REFUSED_BYTES: usize = 64 << 10;

impl Hosts {
    /// Closes after flushing; from here on the actor is called no more but for `closed`.
    pub(super) fn close(&mut self, index: usize, reason: CloseReason) {
        self.close_within(index, reason, None);
    }

    /// The same; the flush may take so long, or as long as the origin's options say.
    pub(super) fn close_within(
        &mut self,
        index: usize,
        reason: CloseReason,
        within: Option<Duration>,
    ) {
        if self.slots[index].flags.has(Flags::CLOSING) {
            return self.close_again(index, reason);
        }
        if self.slots[index].flags.has(Flags::SPECIAL) && !self.is_secured(index) {
            return self.close_special(index, reason, within);
        }
        if !self.slots[index].flags.has(Flags::SOCKET) {
            return self.end(index, reason);
        }
        if let Some(reason) = self.begin_close(index, reason) {
            self.flush_to_close(index, reason, within);
        }
    }

    /// The rest of a close that has begun.
    fn flush_to_close(&mut self, index: usize, reason: CloseReason, within: Option<Duration>) {
        let key = self.key(index);
        let now = self.call.now();
        let extra = self.extra(index, now);
        extra.reason = Some(reason);
        if within.is_none() {
            extra.begin_flush();
        }
        if self.queued_at(index) == 0 {
            self.finish_close(index);
        } else if !self.slots[index].flags.has(Flags::DIRTY | Flags::BLOCKED) {
            self.flush(index);
        } else if self.slots[index].flags.has(Flags::BLOCKED) {
            self.block(index);
        } else {
            self.watch_output(index);
            self.sync_interest(index);
        }
        let slot = &self.slots[index];
        if self.find(key).is_some() && !slot.flags.has(Flags::LINGERING) {
            let options = &self.call.origins[usize::from(slot.origin)].options;
            let mut within = within.unwrap_or(options.flush_timeout);
            if slot.flags.has(Flags::REFUSED) {
                within = within.min(REFUSED_LINGER);
            }
            self.watch_flush(index, within);
        }
    }

    /// An idle connection lingers only for a farewell.
    pub(super) fn close_idle(&mut self, index: usize, after: Duration) {
        let reason = CloseReason::Idle(after);
        let flags = self.slots[index].flags.seen();
        if self.queued_at(index) > 0 || flags.has(Flags::SPECIAL) || !flags.has(Flags::SOCKET) {
            // Its peer takes nothing.
            return self.end(index, reason);
        }
        if let Some(reason) = self.begin_close(index, reason) {
            if self.queued_at(index) > 0 {
                self.flush_to_close(index, reason, None);
            } else {
                self.end(index, reason);
            }
        }
    }

    /// The poller ends: a farewell leaves now or not at all. `None` where there is one; then the
    /// connection is still to be ended, or freed.
    fn close_at_end(&mut self, index: usize, reason: CloseReason) -> Option<CloseReason> {
        let flags = self.slots[index].flags.seen();
        if !flags.has(Flags::SOCKET)
            || flags.has(Flags::CLOSING | Flags::SPECIAL)
            || self.queued_at(index) > 0
        {
            return Some(reason);
        }
        let reason = self.begin_close(index, reason)?;
        if self.queued_at(index) == 0 {
            return Some(reason);
        }
        let now = self.call.now();
        self.extra(index, now).reason = Some(reason);
        self.flush(index);
        None
    }

    /// From here on the actor of a stream is shown nothing any more, and it says its farewell, which
    /// is kept behind all that waits. `None` where it has ended over that.
    pub(super) fn begin_close(&mut self, index: usize, reason: CloseReason) -> Option<CloseReason> {
        self.slots[index].flags.set(Flags::CLOSING);
        if let Some(extra) = self.extras.get_mut(self.slots[index].extra) {
            extra.kept = bytes::BytesMut::new();
            extra.need = 0;
            extra.held = 0;
            if let Some(error) = extra.broken.take() {
                extra.reason = Some(reason);
                self.fail(index, error);
                return None;
            }
        }
        let slot = &mut self.slots[index];
        if !slot.flags.has(Flags::OPENED) || slot.flags.has(Flags::WRITE_SHUT) {
            return Some(reason);
        }
        begin(&mut self.call, slot, index, &self.extras);
        let Some(actor) = slot.actor.as_deref_mut() else {
            return Some(reason);
        };
        let called = guard(|| actor.closing(&reason, &mut self.call));
        let wants = self.call.wants;
        if wants.is_empty() && called.is_ok() && self.call.spawned.is_empty() {
            self.keep_staged(index, 0);
            return Some(reason);
        }
        self.after_farewell(index, called, reason)
    }

    /// Of what else was asked for in a farewell only an abort is more than the close that is under
    /// way.
    #[cold]
    fn after_farewell(
        &mut self,
        index: usize,
        called: Result<(), Box<dyn Any + Send>>,
        reason: CloseReason,
    ) -> Option<CloseReason> {
        let wants = self.call.wants;
        let ends = match called {
            Err(panic) => {
                let what = self.note_panic(index, &*panic);
                self.drop_guarded(panic);
                self.slots[index].flags.set(Flags::ABORT);
                Some(CloseReason::Panicked(what))
            }
            Ok(()) if wants.has(Wants::ABORT) => Some(CloseReason::Aborted),
            Ok(()) => None,
        };
        if ends.is_some() || wants.has(Wants::OVERFLOW) {
            // No part of a farewell is to look like all of it.
            let is_dropped = u64::from(ends.is_none());
            Counters::add(&self.call.registry.door.counters.dropped_writes, is_dropped);
            self.call.staged.clear();
            self.call.marks.clear();
        }
        if wants.has(Wants::OPTIONS) && ends.is_none() {
            self.set_options(index);
        }
        self.call.drop_requests();
        let unused = self.call.detach.take();
        self.drop_guarded(unused);
        let kept = ends.is_none() && self.keep_all(index);
        self.call.marks.clear();
        self.call.pieces = 0;
        self.place_spawned();
        if kept {
            if wants.has(Wants::PATIENT) {
                let now = self.call.now();
                self.extra(index, now).patient = true;
            }
            return Some(reason);
        }
        self.drop_guarded(reason);
        if let Some(ends) = ends {
            self.end(index, ends);
        }
        None
    }

    /// A close under way keeps its reason, but for an error of the actor's own.
    fn close_again(&mut self, index: usize, reason: CloseReason) {
        let extra = self.extras.get_mut(self.slots[index].extra);
        let kept = extra.and_then(|extra| extra.reason.as_mut());
        let dropped = match (kept, reason) {
            (Some(CloseReason::Error(_)) | None, reason) => reason,
            (Some(kept), error @ CloseReason::Error(_)) => std::mem::replace(kept, error),
            (Some(_), reason) => reason,
        };
        self.drop_guarded(dropped);
    }

    /// All output has left: the lingering part of a close begins, or, where the peer has ended
    /// already, it is done.
    pub(super) fn finish_close(&mut self, index: usize) {
        if self.owe_notices(index) {
            // It goes on when the actor has been told, which is shown nothing any more meanwhile.
            return self.sync_interest(index);
        }
        if self.slots[index].flags.has(Flags::SPECIAL) && !self.has_said_end(index) {
            // It comes back here.
            self.flush(index);
            return;
        }
        let reason = self.take_reason(index).unwrap_or(CloseReason::Finished);
        let slot = &self.slots[index];
        // Where the peer has ended already, nothing is under way that a close could reset.
        let extra = self.extras.get(slot.extra);
        let is_patient = extra.is_some_and(|extra| extra.patient);
        let lingers = !slot.flags.has(Flags::EOF)
            && (is_patient
                || matches!(
                    slot.socket.as_ref().map(Socket::shutdown_write),
                    Some(Ok(()))
                ));
        if !lingers {
            return self.end(index, reason);
        }
        self.linger(index, reason);
    }

    /// The writing side is shut down: the actor's end has come, and the peer's is waited for.
    pub(super) fn linger(&mut self, index: usize, reason: CloseReason) {
        self.retire(index, &reason);
        self.drop_guarded(reason);
        if let Some(special) = self.take_special(index) {
            self.forget_special(index, special);
        }
        let options = &self.call.origins[usize::from(self.slots[index].origin)].options;
        let (mut timeout, mut bytes) = (options.linger_timeout, options.linger_bytes);
        if self.slots[index].flags.has(Flags::REFUSED) {
            // Nobody's bound counts these: they are not to hold descriptors for long.
            timeout = timeout.min(REFUSED_LINGER);
            bytes = bytes.min(REFUSED_BYTES);
        }
        let until = self.call.deadline(timeout);
        let now = self.call.now();
        self.slots[index].flags.set(Flags::LINGERING);
        let extra = self.extra(index, now);
        extra.linger_left = bytes;
        self.watch_linger(index, until);
        self.sync_interest(index);
    }

    /// Ends an actor and its connection at once. An abort resets it, and so does an end that throws
    /// output away: after an orderly one the peer would take what it has for all there is.
    pub(super) fn end(&mut self, index: usize, reason: CloseReason) {
        if self.slots[index].flags.has(Flags::LINGERING) {
            // Its actor has been told, and has gone.
            self.drop_guarded(reason);
            return self.free(index);
        }
        if matches!(reason, CloseReason::Panicked(_) | CloseReason::Error(_))
            && self.revive(index, &reason)
        {
            return self.drop_guarded(reason);
        }
        // Its peer is not slow, but gone.
        let reason = match (&reason, self.take_broken(index)) {
            (
                CloseReason::SlowReader { .. }
                | CloseReason::StuckReader { .. }
                | CloseReason::OutputRate { .. },
                Some(error),
            ) => lost(error),
            _ => reason,
        };
        let is_cut = match reason {
            CloseReason::Aborted | CloseReason::SlowReader { .. } | CloseReason::Io(_) => true,
            _ => self.queued_at(index) > 0,
        };
        if is_cut {
            self.slots[index].flags.set(Flags::ABORT);
        }
        if self.slots[index].flags.has(Flags::SPECIAL) {
            self.send_last_of_special(index, &reason, is_cut);
        }
        self.retire(index, &reason);
        self.drop_guarded(reason);
        self.free(index);
    }

    /// Whether an actor without a socket has failed that is made anew, later. Until then it takes no
    /// messages: they are set aside.
    fn revive(&mut self, index: usize, reason: &CloseReason) -> bool {
        let slot = &mut self.slots[index];
        let has_socket = Flags::SOCKET | Flags::CONNECTION | Flags::SPECIAL;
        if slot.flags.has(has_socket | Flags::CLOSING) || !slot.flags.has(Flags::OPENED) {
            return false;
        }
        begin(&mut self.call, slot, index, &self.extras);
        let Some(actor) = slot.actor.as_deref_mut() else {
            return false;
        };
        let revived = guard(|| actor.revive(reason, &mut self.call));
        // Asked for in the failed one's `closed`.
        self.call.drop_requests();
        match revived {
            Ok(true) => {
                self.slots[index].flags.set(Flags::WAITING);
                self.place_spawned();
                true
            }
            Ok(false) => false,
            Err(panic) => {
                self.note_panic(index, &*panic);
                self.drop_guarded(panic);
                false
            }
        }
    }

    /// The socket failed. A connection that was closing for an error of its own keeps that as its
    /// reason.
    pub(super) fn fail(&mut self, index: usize, error: io::Error) {
        if self.slots[index].flags.has(Flags::SPECIAL) && self.connecting(index).is_some() {
            return self.attempt_failed(index, error.into());
        }
        let reason = match self.take_reason(index) {
            Some(reason @ CloseReason::Error(_)) => reason,
            _ => lost(error),
        };
        self.end(index, reason);
    }

    /// The reason of a close under way, which is now somebody else's to tell.
    pub(super) fn take_reason(&mut self, index: usize) -> Option<CloseReason> {
        self.extras.get_mut(self.slots[index].extra)?.reason.take()
    }

    /// Tells the actor its end and drops it. Nothing can reach it from here on.
    pub(super) fn retire(&mut self, index: usize, reason: &CloseReason) {
        let key = self.key(index);
        self.call.registry.door.leave(key);
        self.call.timers.cancel_all(index as u32);
        let slot = &mut self.slots[index];
        slot.flags.clear(Flags::SOCKET);
        slot.flags.set(Flags::CLOSING);
        if slot.flags.take(Flags::KNOWN_TO_INBOX) {
            self.ended.push((key, reason.name()));
        }
        if slot.flags.take(Flags::OPENED) {
            self.log_end(index, reason);
            let slot = &mut self.slots[index];
            begin(&mut self.call, slot, index, &self.extras);
            self.call.queued = 0;
            self.call.noted = Noted::default();
            if let Some(actor) = slot.actor.as_deref_mut()
                && let Err(panic) = guard(|| actor.closed(reason, &mut self.call))
            {
                self.note_panic(index, &*panic);
                self.drop_guarded(panic);
            }
            // Nobody carries out what it asked for, and timers that it set would belong to whoever
            // comes next in this slot.
            self.call.drop_requests();
            self.call.timers.cancel_all(index as u32);
            Counters::add(&self.call.registry.door.counters.closed[reason.place()], 1);
        }
        self.call.monitors.end(key);
        let actor = self.slots[index].actor.take();
        self.drop_guarded(actor);
        self.place_spawned();
    }

    fn log_end(&mut self, index: usize, reason: &CloseReason) {
        if clock::is_simulated() || log::log_enabled!(log::Level::Debug) {
            let id = ActorId::new(self.call.registry.door.poller, self.key(index));
            let actor = self.slots[index]
                .actor
                .as_deref()
                .map_or("?", Hosted::type_name);
            // The text of an error is the user's code.
            self.guarded_as("the text of an error", || {
                log::debug!("{actor} {id}: {reason}");
                Network::note(format_args!("{actor} {id} has ended: {reason}"));
            });
        }
    }

    /// Closes the socket and gives the slot back.
    pub(super) fn free(&mut self, index: usize) {
        let key = self.key(index);
        let unheard = self.take_reason(index);
        if let Some(special) = self.take_special(index) {
            self.forget_special(index, special);
        }
        self.drop_guarded(unheard);
        if self.slots[index].flags.has(Flags::WAITING) {
            self.waits_here.remove(&key);
        }
        self.recycle(index);
        let mut slot = std::mem::replace(&mut self.slots[index], Slot::VACANT);
        self.call.timers.cancel_all(index as u32);
        if slot.flags.has(Flags::ADDR_ELSEWHERE) {
            self.call.peers.remove(&(index as u32));
            self.call.locals.remove(&(index as u32));
        }
        let are_any = !self.tickets.is_empty();
        let ticket = are_any.then(|| self.tickets.remove(&(index as u32)));
        let door = &self.call.registry.door;
        door.free(key);
        self.vacated = true;
        let Some(socket) = slot.socket.take() else {
            return;
        };
        // Before it is closed: a duplicate of the descriptor would be reported on for ever.
        if slot.flags.has(Flags::REGISTERED)
            && let Err(error) = self.selector.deregister(socket.source())
        {
            log::warn!("deregister: {error}");
        }
        if slot.flags.has(Flags::ABORT) {
            socket.abort();
        } else {
            drop(socket);
        }
        self.give_back(slot.origin, slot.flags);
        // A connection counts until it is closed, also for its source.
        drop(ticket);
    }

    /// A socket has gone, or is nobody's here any more: it counts no longer.
    pub(super) fn give_back(&mut self, origin: u16, flags: Flags) {
        if flags.has(Flags::REFUSED) {
            self.refused -= 1;
        } else {
            let origin = &self.call.origins[usize::from(origin)];
            origin.leave(&self.call.shared);
        }
        self.freed += 1;
    }

    /// The sockets freed in this turn are gone. Said only when all that their ends caused is in the
    /// mailboxes, the notices of members that left included: when the last socket has gone while
    /// the system stops, pollers may end.
    ///
    /// Slots that a burst has left behind are given back here, where no place is held in a
    /// variable.
    pub(crate) fn count_freed(&mut self) {
        if std::mem::take(&mut self.vacated) {
            let vacant = self.slots.iter().rev();
            let vacant = vacant.take_while(|slot| slot.generation == 0).count();
            self.slots.truncate(self.slots.len() - vacant);
            let kept = SLOTS_KEPT.max(2 * self.slots.len());
            if self.slots.capacity() > 2 * kept {
                self.slots.shrink_to(kept);
            }
        }
        if self.freed > 0 {
            let freed = std::mem::take(&mut self.freed);
            self.call
                .registry
                .door
                .sockets
                .fetch_sub(freed, Ordering::AcqRel);
            if self.stop.is_some() {
                self.call.shared.tell_if_empty();
            }
        }
    }

    /// The poller ends: so does everything on it.
    pub(crate) fn end_all(&mut self) {
        // `closed` of one may spawn others; those are placed and, never opened, dropped with the
        // rest in the next round.
        while !self.call.bindings.is_empty() || self.slots.iter().any(|slot| slot.generation != 0) {
            self.forget_bindings();
            for index in 0..self.slots.len() {
                if self.slots[index].generation == 0 {
                    continue;
                }
                let flags = self.slots[index].flags;
                if flags.has(Flags::LINGERING) {
                    self.free(index);
                } else if !flags.has(Flags::OPENING) && self.connecting(index).is_some() {
                    self.close_special(index, CloseReason::Stopped, None);
                } else {
                    // What is still queued is thrown away, so a close under way is not what ends
                    // it; an error of its own is.
                    let reason = match self.take_reason(index) {
                        Some(reason @ CloseReason::Error(_)) => reason,
                        _ => CloseReason::Stopped,
                    };
                    if let Some(reason) = self.close_at_end(index, reason) {
                        self.end(index, reason);
                    }
                }
            }
        }
    }
}

/// What an error of the socket is to its actor.
fn lost(error: io::Error) -> CloseReason {
    if is_reset(&error) {
        CloseReason::Reset
    } else {
        CloseReason::Io(error)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::hosts::tests::{Idle, adopt, hosts, origin};
    use crate::registry::Stats;

    /// The end of a turn in which all connections but the first `left` ended.
    fn end_but(hosts: &mut Hosts, left: usize) {
        for index in left..hosts.slots.len() {
            hosts.end(index, CloseReason::Finished);
        }
        hosts.count_freed();
        let sockets = &hosts.call.registry.door.sockets;
        assert_eq!((hosts.freed, sockets.load(Ordering::Acquire)), (0, left));
        assert_eq!(hosts.slots.len(), left, "those at the end are vacant");
    }

    #[test]
    fn slots_that_a_burst_has_left_behind_are_given_back_but_for_some_room() {
        let mut hosts = hosts(8 * SLOTS_KEPT);
        let room = hosts.slots.capacity();
        for left in [3 * SLOTS_KEPT, 2 * SLOTS_KEPT] {
            end_but(&mut hosts, left);
            assert_eq!(hosts.slots.capacity(), room, "a quarter is used");
        }
        end_but(&mut hosts, SLOTS_KEPT);
        let twice = 2 * SLOTS_KEPT..=4 * SLOTS_KEPT;
        assert!(twice.contains(&hosts.slots.capacity()));
        end_but(&mut hosts, 10);
        let room = SLOTS_KEPT..=2 * SLOTS_KEPT;
        assert!(room.contains(&hosts.slots.capacity()));
    }

    #[test]
    fn slots_of_actors_without_sockets_are_given_back_though_no_socket_is_freed() {
        let mut hosts = hosts(1);
        for _ in 0..8 * SLOTS_KEPT {
            let key = hosts.call.registry.door.reserve();
            hosts.spawn(key, Box::new(|| Box::new(Idle)));
        }
        for index in 1..hosts.slots.len() {
            hosts.end(index, CloseReason::Finished);
        }
        hosts.count_freed();
        assert_eq!(hosts.slots.len(), 1);
        assert!(hosts.slots.capacity() <= 2 * SLOTS_KEPT);
        let sockets = &hosts.call.registry.door.sockets;
        assert_eq!(sockets.load(Ordering::Acquire), 1, "that of the first");
    }

    #[test]
    fn a_vacant_slot_below_one_that_is_used_stays() {
        let mut hosts = hosts(3);
        hosts.end(1, CloseReason::Finished);
        hosts.count_freed();
        assert_eq!((hosts.slots.len(), hosts.freed), (3, 0));
        hosts.end(2, CloseReason::Finished);
        hosts.count_freed();
        assert_eq!(hosts.slots.len(), 1);
    }

    /// By name, the reasons of which there were any.
    fn reasons(hosts: &Hosts) -> Vec<&'static str> {
        let mut stats = Stats::default();
        hosts.call.registry.add_to(&mut stats);
        let counts = stats.closed_by.into_iter();
        counts
            .filter(|(_, n)| *n > 0)
            .map(|(name, _)| name)
            .collect()
    }

    #[test]
    fn an_error_of_the_socket_is_the_reason_unless_it_tells_that_the_peer_has_gone() {
        for (kind, told) in [
            (io::ErrorKind::TimedOut, "io"),
            (io::ErrorKind::ConnectionReset, "reset"),
            (io::ErrorKind::BrokenPipe, "reset"),
            (io::ErrorKind::ConnectionAborted, "reset"),
        ] {
            let mut hosts = hosts(1);
            hosts.fail(0, kind.into());
            assert_eq!(reasons(&hosts), [told], "{kind}");
        }
    }

    #[test]
    fn a_socket_that_fails_to_receive_ends_its_connection() {
        let mut hosts = hosts(0);
        adopt(&mut hosts, &Arc::new(origin())).reset();
        hosts.receive(0);
        hosts.count_freed();
        assert!(hosts.slots.is_empty());
        assert_eq!(reasons(&hosts), ["reset"]);
    }

    #[test]
    fn a_socket_with_nothing_to_receive_is_left_alone() {
        let mut hosts = hosts(0);
        let wire = adopt(&mut hosts, &Arc::new(origin()));
        hosts.receive(0);
        assert!(hosts.slots[0].actor.is_some());
        hosts.close(0, CloseReason::Finished);
        assert!(hosts.slots[0].flags.has(Flags::LINGERING));
        hosts.receive(0);
        assert!(hosts.slots[0].flags.has(Flags::LINGERING));
        assert!(wire.has_ended() && wire.is_hosted());
    }

    #[test]
    fn an_origin_that_serves_nobody_gives_its_number_to_the_next() {
        let mut hosts = hosts(0);
        let origins: Vec<_> = (0..4).map(|_| Arc::new(origin())).collect();
        let _wires = [0, 1, 2].map(|n| adopt(&mut hosts, &origins[n]));
        let numbers = |hosts: &Hosts| {
            hosts
                .slots
                .iter()
                .map(|slot| slot.origin)
                .collect::<Vec<_>>()
        };
        assert_eq!(numbers(&hosts), [1, 2, 3]);
        hosts.end(1, CloseReason::Finished);
        let _wire = adopt(&mut hosts, &origins[3]);
        assert_eq!(numbers(&hosts), [1, 2, 3], "in the slot that was vacant");
        assert!(Arc::ptr_eq(&hosts.call.origins[2], &origins[3]));
        assert_eq!(hosts.call.origins.len(), 4);
    }
}
