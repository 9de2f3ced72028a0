//! Connections under TLS, and those that are still to be.
//!
//! Both are special slots; of the first the actor sees a stream like any other ([`Flags::seen`]).
//! The [`Session`] of either lies in the [`Call`](crate::call::Call), by slot.
//!
//! What comes from the socket is decrypted into the poller's buffer and shown from there. What the
//! actor writes is kept as it is, with all that is known of it, and sealed when all that was sealed
//! before has left: up to [`SEALED_MAX`] bytes of it. Those are still counted as output that waits
//! (`Extra::sealed`) until the socket has taken the ciphertext that they have become. So are alerts
//! and answers of the protocol's own: whatever watches output that waits watches these, too.

use std::any::Any;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::BytesMut;

use crate::actor::CloseReason;
use crate::call::TimerFor;
use crate::flags::Flags;
use crate::hosts::extras::Extra;
use crate::hosts::guard::guard;
use crate::hosts::input::Shown;
use crate::hosts::output::file_is_cut;
use crate::hosts::special::Special;
use crate::hosts::{FRONT_MAX, HashMap, Hosts};
use crate::origin::Origin;
use crate::output::MAX_PARTS;
use crate::registry::{ActorKey, Counters};
use crate::sys::{Peer, Socket, read_file_at};
use crate::tls::{RECORD, Server, Session, TlsError, TlsErrorKind};
use crate::watch::Watch;

/// Ciphertext read at once: three records. Together with the rest of one that had come before, what
/// it holds has room in the poller's buffer, unless that was made smaller.
const WIRE_MAX: usize = 3 * RECORD;

/// The same in a handshake, whose messages are a few KiB.
const HANDSHAKE_READ: usize = RECORD;

/// Ciphertext that waits to leave: four records fill what a socket usually takes at once.
const SEALED_MAX: usize = 4 * RECORD;

/// Plaintext that one connection has sealed before the others have their turn: some hundred
/// microseconds.
const SEALED_PER_TURN: usize = 16 * RECORD;

/// Steps of handshakes, each of one message of the peer's, in one turn: see
/// `tls::Server::handshakes_per_turn`. Of handshakes of our own, with servers that we connect to.
const CLIENT_STEPS: usize = 8;

/// What all steps of one turn may come to, where a step of a listener that allows `n` of them is an
/// n-th of that.
const STEPS: usize = 1 << 20;

/// What a poller has for its connections under TLS.
#[derive(Default)]
pub(super) struct Securing {
    /// By slot.
    handshakes: HashMap<u32, Handshake>,
    /// Those that can go on, in order.
    due: VecDeque<ActorKey>,
    /// For ciphertext that has just been read. Empty until there is some.
    wire: Vec<u8>,
    /// For ciphertext that is about to leave.
    room: Vec<u8>,
}

/// A handshake under way.
struct Handshake {
    peer: Peer,
    /// Its key is among those that can go on.
    is_due: bool,
}

/// Why a handshake came to nothing.
enum Broken {
    Tls(TlsError),
    Socket(io::Error),
}

/// The listener's, if its connections are to be secured.
pub(super) fn tls_of(origin: &Origin) -> Option<&Server> {
    origin.entrance.as_deref()?.tls.as_ref()
}

impl Securing {
    pub(super) fn owes(&self) -> bool {
        !self.due.is_empty()
    }
}

// ---- the handshake ------------------------------------------------------------------------------

impl Hosts {
    /// A connection that was accepted, and that no actor is made for before it is secured.
    pub(super) fn await_handshake(&mut self, index: usize, server: &Server, peer: Peer) {
        if self.stop.is_some() {
            return self.end(index, CloseReason::Stopped);
        }
        self.make_special(index, Special::Securing);
        self.begin_handshake(index, peer);
        let until = self.call.deadline(server.deadline());
        let what = TimerFor::Watch(Watch::Handshake);
        self.call.timers.set(index as u32, until, None, what);
        self.sync_interest(index);
    }

    /// One that was made, and whose actor is told of it when it is secured.
    pub(super) fn connect_securely(&mut self, index: usize, peer: Peer) {
        self.begin_handshake(index, peer);
        // Ours is the first word.
        self.handshake_is_due(index);
        self.sync_interest(index);
    }

    fn begin_handshake(&mut self, index: usize, peer: Peer) {
        let is_due = false;
        let handshake = Handshake { peer, is_due };
        self.secured.handshakes.insert(index as u32, handshake);
    }

    /// Whether the connection at `index` is being secured.
    pub(super) fn is_securing(&self, index: usize) -> bool {
        self.secured.handshakes.contains_key(&(index as u32))
    }

    /// There may be something for a handshake to go on with.
    pub(super) fn handshake_is_due(&mut self, index: usize) {
        let key = self.key(index);
        if let Some(handshake) = self.secured.handshakes.get_mut(&key.index())
            && !std::mem::replace(&mut handshake.is_due, true)
        {
            self.secured.due.push_back(key);
        }
    }

    /// Goes on with those that can, as many as a turn has time for.
    pub(super) fn go_on_with_handshakes(&mut self) {
        let mut left = STEPS;
        while left > 0
            && let Some(key) = self.secured.due.pop_front()
        {
            let Some(index) = self.find(key) else {
                continue;
            };
            let Some(handshake) = self.secured.handshakes.get_mut(&key.index()) else {
                continue;
            };
            handshake.is_due = false;
            let origin = &self.call.origins[usize::from(self.slots[index].origin)];
            let per_turn = tls_of(origin).map_or(CLIENT_STEPS, Server::per_turn);
            left = left.saturating_sub(STEPS.div_ceil(per_turn.max(1)));
            self.step_handshake(index);
        }
    }

    fn step_handshake(&mut self, index: usize) {
        let mut early = BytesMut::new();
        // A configuration may choose certificates, keep sessions and more by code of the user's.
        let exchanged = guard(|| self.exchange(index, &mut early)).unwrap_or_else(|panic| {
            self.note_tls_panic(panic);
            Err(Broken::Tls(TlsError::new(TlsErrorKind::Local)))
        });
        match exchanged {
            Ok(true) => self.secure(index, early),
            Ok(false) => self.sync_interest(index),
            Err(Broken::Tls(error)) => self.handshake_failed(index, error),
            Err(Broken::Socket(error)) if self.connecting(index).is_some() => {
                // Another address may do better.
                self.fail(index, error)
            }
            Err(Broken::Socket(_)) => {
                self.handshake_failed(index, TlsError::new(TlsErrorKind::Unfinished))
            }
        }
    }

    /// Sends and receives once; whether the handshake is done. `early` gets what has come behind
    /// it.
    fn exchange(&mut self, index: usize, early: &mut BytesMut) -> Result<bool, Broken> {
        if !self.call.sessions.contains_key(&(index as u32)) {
            let session = self.new_session(index).map_err(Broken::Tls)?;
            self.call.sessions.insert(index as u32, Box::new(session));
        }
        let (Some(session), Some(socket)) = (
            self.call.sessions.get_mut(&(index as u32)),
            &self.slots[index].socket,
        ) else {
            return Ok(false);
        };
        send_pending(session, socket).map_err(Broken::Socket)?;
        // Read in any case: a peer may wait for us to read before it reads on.
        self.secured.wire.resize(WIRE_MAX, 0);
        let mut wire = match socket.recv(&mut self.secured.wire[..HANDSHAKE_READ]) {
            Ok(0) => return Err(Broken::Tls(TlsError::new(TlsErrorKind::Unfinished))),
            Ok(received) => &self.secured.wire[..received],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(Broken::Socket(error)),
        };
        loop {
            let len = session.open(&mut wire, &mut self.read_buf);
            early.extend_from_slice(&self.read_buf[..len]);
            if len < self.read_buf.len() {
                break;
            }
        }
        session.gather_own();
        let failure = session.take_failure();
        let sent = send_pending(session, socket);
        if let Some(failure) = failure {
            return Err(Broken::Tls(failure));
        }
        sent.map_err(Broken::Socket)?;
        match session.is_handshaking() {
            true if session.peer_has_closed() => {
                Err(Broken::Tls(TlsError::new(TlsErrorKind::Unfinished)))
            }
            is_handshaking => Ok(!is_handshaking),
        }
    }

    /// Whether readiness for reading is acted on, and for writing.
    pub(super) fn handshake_interest(&self, index: usize) -> (bool, bool) {
        let session = self.call.sessions.get(&(index as u32));
        let waits = session.is_some_and(|session| !session.pending().is_empty());
        (true, waits)
    }

    fn new_session(&self, index: usize) -> Result<Session, TlsError> {
        if let Some(connecting) = self.connecting(index) {
            return connecting.new_session();
        }
        let origin = &self.call.origins[usize::from(self.slots[index].origin)];
        match tls_of(origin) {
            Some(server) => Session::of_server(server),
            None => Err(TlsError::new(TlsErrorKind::Local)),
        }
    }

    /// The handshake is done: from here on the connection is one like any other.
    fn secure(&mut self, index: usize, early: BytesMut) {
        let Some(handshake) = self.secured.handshakes.remove(&(index as u32)) else {
            return;
        };
        Counters::add(&self.call.registry.door.counters.handshakes, 1);
        let peer = handshake.peer;
        if self.connecting(index).is_some() {
            return self.settle(index, peer, Some(early));
        }
        let origin: Arc<Origin> = self.call.origins[usize::from(self.slots[index].origin)].clone();
        if self.is_made(index, &origin, peer) {
            self.take_special(index);
            self.call.timers.cancel_all(index as u32);
            self.make_secured(index, early);
            self.welcome(index, &origin);
        }
    }

    /// The slot is that of a stream under TLS, of which this has come already.
    pub(super) fn make_secured(&mut self, index: usize, early: BytesMut) {
        self.make_special(index, Special::Secured);
        let Some(session) = self.call.sessions.get_mut(&(index as u32)) else {
            return;
        };
        session.give_back(&mut self.secured.room);
        session.rest();
        let (waiting, has_closed) = (session.waiting(), session.peer_has_closed());
        let now = self.call.now();
        if waiting > 0 {
            // As where the socket has just refused it, which it has.
            self.extra(index, now).sealed = waiting;
            self.slots[index].flags.set(Flags::BLOCKED);
            self.watch_output(index);
            self.set_counted(index, true);
        }
        if has_closed {
            self.slots[index].flags.set(Flags::EOF);
        }
        if !early.is_empty() || has_closed {
            self.extra(index, now).kept = early;
            self.owe(index, Flags::SHOW_INPUT);
            self.watch_input(index);
        }
    }

    /// The time of a handshake is over.
    pub(super) fn handshake_is_late(&mut self, index: usize) {
        let origin = &self.call.origins[usize::from(self.slots[index].origin)];
        let after = match self.connecting(index) {
            Some(connecting) => connecting.timeout(),
            None => tls_of(origin).map(Server::deadline).unwrap_or_default(),
        };
        self.handshake_failed(index, TlsError::late(after));
    }

    /// Nobody is told but the log and the counters, unless the connection was made from here.
    fn handshake_failed(&mut self, index: usize, error: TlsError) {
        let Some(handshake) = self.secured.handshakes.remove(&(index as u32)) else {
            return;
        };
        let counters = &self.call.registry.door.counters;
        Counters::add(&counters.handshakes_failed[error.kind().place()], 1);
        if self.connecting(index).is_some() {
            return self.not_connected(index, error.into());
        }
        log::debug!("connection from {}: {error}", handshake.peer);
        match error.kind() {
            TlsErrorKind::Deadline | TlsErrorKind::Unfinished | TlsErrorKind::Local => {
                self.end(index, CloseReason::Finished)
            }
            _ => {
                // The alert that says why is not to be lost over what else has come.
                self.forget_secured(index);
                self.take_special(index);
                self.close(index, CloseReason::Finished);
            }
        }
    }

    /// The connection is under TLS no more, or never came to be.
    pub(super) fn forget_secured(&mut self, index: usize) {
        self.secured.handshakes.remove(&(index as u32));
        if let Some(session) = self.call.sessions.remove(&(index as u32)) {
            self.drop_guarded(session);
        }
    }

    #[cold]
    fn note_tls_panic(&mut self, panic: Box<dyn Any + Send>) {
        self.count_panic("code of a TLS configuration", &*panic);
        self.drop_guarded(panic);
    }
}

/// Sends what a handshake has to say, as far as the socket takes it.
fn send_pending(session: &mut Session, socket: &Socket) -> io::Result<()> {
    while !session.pending().is_empty() {
        match socket.send(session.pending()) {
            Ok(sent) => {
                session.advance(sent);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

// ---- what comes ---------------------------------------------------------------------------------

impl Hosts {
    /// Whether the slot is a stream under TLS.
    pub(super) fn is_secured(&self, index: usize) -> bool {
        matches!(self.special.get(&(index as u32)), Some(Special::Secured))
    }

    /// As [`receive`](Hosts::receive).
    pub(super) fn receive_secured(&mut self, index: usize) {
        let mut wire = std::mem::take(&mut self.secured.wire);
        wire.resize(WIRE_MAX, 0);
        let most = match self.read_max() {
            max if max >= 2 * RECORD => max - RECORD,
            max => max.min(RECORD),
        };
        let most = most.min(WIRE_MAX);
        let slot = &self.slots[index];
        let received = slot
            .socket
            .as_ref()
            .map(|socket| socket.recv(&mut wire[..most]));
        match received {
            Some(Ok(0)) => self.cut_off(index),
            Some(Ok(received)) => self.open_wire(index, &wire[..received], received == most),
            Some(Err(error)) if error.kind() != io::ErrorKind::WouldBlock => {
                self.fail(index, error)
            }
            Some(Err(_)) | None => {}
        }
        self.secured.wire = wire;
    }

    /// The connection has ended, and the peer has not said that it would.
    fn cut_off(&mut self, index: usize) {
        if let Some(error) = self.take_broken(index) {
            return self.fail(index, error);
        }
        let reason = CloseReason::Tls(TlsError::new(TlsErrorKind::Truncated));
        self.end(index, reason);
    }

    /// Decrypts what has come, and shows it. `is_full` where there is probably more.
    fn open_wire(&mut self, index: usize, mut wire: &[u8], is_full: bool) {
        self.touch_idle(index);
        let key = self.key(index);
        let Some(session) = self.call.sessions.get_mut(&key.index()) else {
            return;
        };
        let extra = self.extras.get_mut(self.slots[index].extra);
        let kept = extra.as_ref().map_or(0, |extra| extra.kept.len());
        let mut at = 0;
        if let Some(extra) = &extra
            && kept <= FRONT_MAX
        {
            at = kept;
            self.read_buf[..at].copy_from_slice(&extra.kept);
        }
        let mut more = BytesMut::new();
        let opened = guard(|| {
            let end = at + session.open(&mut wire, &mut self.read_buf[at..]);
            if end == self.read_buf.len() {
                // Of a buffer that was made small.
                let mut room = [0; 1024];
                loop {
                    let len = session.open(&mut wire, &mut room);
                    more.extend_from_slice(&room[..len]);
                    if len < room.len() {
                        break;
                    }
                }
            }
            end
        });
        let end = match opened {
            Ok(end) => end,
            Err(panic) => {
                self.note_tls_panic(panic);
                return self.fail_secured(index, TlsError::new(TlsErrorKind::Local));
            }
        };
        if !is_full {
            session.rest();
        }
        let counts = session.gather_own();
        let (failure, has_closed) = (session.take_failure(), session.peer_has_closed());
        if let Some(failure) = failure {
            return self.fail_secured(index, failure);
        }
        if counts > 0 {
            self.count_own(index, counts);
            if !self.slots[index].flags.has(Flags::BLOCKED) {
                self.flush_later(index);
            }
        }
        if end > at {
            self.touch(index);
            let shown = if kept == at && more.is_empty() {
                Shown::Buffer(end)
            } else {
                let now = self.call.now();
                let extra = self.extras.get_or_take(&mut self.slots[index].extra, now);
                if extra.kept.is_empty() {
                    extra.input_since = now;
                }
                extra.kept.extend_from_slice(&self.read_buf[at..end]);
                extra.kept.extend_from_slice(&more);
                self.watch_input(index);
                Shown::Kept
            };
            self.show(index, shown, false);
        }
        if has_closed && self.find(key).is_some() {
            self.end_of_secured(index);
        }
    }

    /// The peer has said that nothing follows.
    fn end_of_secured(&mut self, index: usize) {
        let flags = self.slots[index].flags;
        if flags.has(Flags::CLOSING) {
            return;
        }
        if flags.has(Flags::NO_RECEIVE) {
            // It is told when the actor reads on, behind what is kept.
            self.slots[index].flags.set(Flags::EOF);
            return self.sync_interest(index);
        }
        self.end_of_input(index);
    }

    /// What came was not what the peer has sent, or it does not keep to the protocol. The alert that
    /// says so is the last that it gets.
    fn fail_secured(&mut self, index: usize, error: TlsError) {
        let reason = match self.take_reason(index) {
            Some(reason @ CloseReason::Error(_)) => reason,
            _ => CloseReason::Tls(error),
        };
        let (Some(session), Some(socket)) = (
            self.call.sessions.get_mut(&(index as u32)),
            &self.slots[index].socket,
        ) else {
            return;
        };
        let has_left = send_pending(session, socket).is_ok() && session.pending().is_empty();
        if has_left && matches!(socket.shutdown_write(), Ok(())) {
            // Output that waits goes nowhere; the peer does not take what it has for all there is.
            self.recycle(index);
            // Nor is it sent later: this close is finished.
            let flags = &mut self.slots[index].flags;
            flags.clear(Flags::BLOCKED | Flags::DIRTY);
            self.linger(index, reason);
        } else {
            self.end(index, reason);
        }
    }
}

// ---- what leaves --------------------------------------------------------------------------------

impl Hosts {
    /// Counts what the protocol itself has to say among what waits, behind all that is sealed.
    fn count_own(&mut self, index: usize, counts: usize) {
        let now = self.call.now();
        let extra = self.extra(index, now);
        if extra.queued() == 0 {
            extra.output_since = now;
            extra.begin_window(now);
        }
        extra.insert_sealed(counts);
    }

    /// Whether the peer has got our word that nothing follows. Where not, it is about to be said.
    pub(super) fn has_said_end(&mut self, index: usize) -> bool {
        let Some(session) = self.call.sessions.get_mut(&(index as u32)) else {
            return true;
        };
        if session.has_closed() {
            return session.pending().is_empty();
        }
        let counts = session.close();
        self.count_own(index, counts);
        false
    }

    /// The same for one that ends at once: if the socket takes it.
    pub(super) fn say_end(&mut self, index: usize, reason: &CloseReason) {
        let is_orderly = !matches!(
            reason,
            CloseReason::Reset | CloseReason::Panicked(_) | CloseReason::Tls(_)
        );
        if let Some(session) = self.call.sessions.get_mut(&(index as u32))
            && let Some(socket) = &self.slots[index].socket
            && is_orderly
            && !session.has_closed()
        {
            session.close();
            // It may have gone, which is why it ends.
            let _ = socket.send(session.pending());
        }
    }

    /// As [`flush`](Hosts::flush).
    pub(super) fn flush_secured(&mut self, index: usize) -> bool {
        let mut left = SEALED_PER_TURN;
        while self.queued_at(index) > 0 {
            if let Some(error) = self.take_broken(index) {
                return self.fail_to_send(index, error);
            }
            let (Some(session), Some(socket), Some(extra)) = (
                self.call.sessions.get_mut(&(index as u32)),
                &self.slots[index].socket,
                self.extras.get_mut(self.slots[index].extra),
            ) else {
                break;
            };
            if session.pending().is_empty() {
                if left == 0 {
                    // The selector says in the next turn that the socket takes more.
                    self.fall_low(index);
                    return self.block(index);
                }
                session.lend(&mut self.secured.room);
                // What is sealed counts against the budget, even of a file, and is not dropped for
                // newer: it is not to take all of it.
                let origin = usize::from(self.slots[index].origin);
                let most = self.call.origins[origin].options.output_max / 2;
                let most = most.clamp(1, SEALED_MAX);
                match seal(session, extra, most, &mut self.read_buf) {
                    Ok(sealed) => left = left.saturating_sub(sealed),
                    Err(error) => return self.fail_to_send(index, error),
                }
                continue;
            }
            let offered = session.pending().len();
            let took = socket.send(session.pending()).map(|sent| {
                let counts = session.advance(sent);
                session.give_back(&mut self.secured.room);
                (extra.count_sent(counts), sent == offered)
            });
            if let ControlFlow::Break(lives) = self.has_offered(index, took) {
                return lives;
            }
        }
        self.has_flushed(index)
    }
}

/// Seals the beginning of what waits, up to `most` bytes; how much of it.
fn seal(
    session: &mut Session,
    extra: &mut Extra,
    most: usize,
    scratch: &mut [u8],
) -> io::Result<usize> {
    let mut all = 0;
    while all < most {
        let room = RECORD.min(most - all);
        let mut slices = [IoSlice::new(&[]); MAX_PARTS];
        let count = match &extra.apart {
            Some(apart) if extra.output.is_empty() => {
                record(apart.pieces.parts(), room, &mut slices)
            }
            _ => record(extra.output.parts(), room, &mut slices),
        };
        let sealed = if count > 0 {
            session.seal(&slices[..count])
        } else if let Some(part) = extra.first_file() {
            let left = usize::try_from(part.left).unwrap_or(usize::MAX);
            let room = left.min(room).min(scratch.len());
            let read = read_file_at(&part.file, &mut scratch[..room], part.at)?;
            if read == 0 {
                return Err(file_is_cut(left));
            }
            session.seal(&[IoSlice::new(&scratch[..read])])
        } else {
            break;
        };
        if sealed == 0 {
            return Err(io::Error::other("TLS: no record can be encrypted any more"));
        }
        extra.seal(sealed);
        all += sealed;
    }
    Ok(all)
}

/// Fills `out` with the first bytes, as many as there is room for; returns how many slices there are.
fn record<'a>(
    parts: impl Iterator<Item = &'a [u8]>,
    room: usize,
    out: &mut [IoSlice<'a>],
) -> usize {
    let (mut filled, mut left) = (0, room);
    for (slot, part) in out.iter_mut().zip(parts) {
        if left == 0 {
            break;
        }
        let part = &part[..part.len().min(left)];
        left -= part.len();
        *slot = IoSlice::new(part);
        filled += 1;
    }
    filled
}
