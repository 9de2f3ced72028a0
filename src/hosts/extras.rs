//! What is kept for connections while input or output waits, or while they close.
//!
//! A slot names its extra by number, four bytes where a box would take eight. Extras that are given
//! back are kept for the next to take, up to a limit; beyond it their memory is freed.

use std::io;
use std::num::NonZeroU32;
use std::time::Instant;

use bytes::BytesMut;

use crate::actor::CloseReason;
use crate::call::Noted;
use crate::flags::Flags;
use crate::hosts::{Hosts, Slot};
use crate::output::{Change, Notices, Output, Pieces};

/// How many extras are held in reserve, and how much buffer each may hold: 1 MiB per poller in all,
/// enough for the connections that are written to in one turn.
const SPARE_MAX: usize = 256;
const SPARE_BYTES_MAX: usize = 4 << 10;

/// What is kept for one connection.
pub(super) struct Extra {
    /// Input that the actor did not consume.
    pub(super) kept: BytesMut,
    /// How many bytes the actor wants to see before it is called again.
    pub(super) need: usize,
    /// How many bytes of an incomplete frame it keeps itself, which count as if they were in `kept`.
    pub(super) held: usize,
    /// Output that waits for the end of the turn or for the socket.
    pub(super) output: Output,
    /// What most connections do not need.
    pub(super) apart: Option<Box<Apart>>,
    /// How much was taken out of the output to be sent by TLS, and has not left: it waits like the
    /// rest, in front of it. See `hosts/secured.rs`.
    pub(super) sealed: usize,
    /// How much of it is in the poller's count, and for which slot.
    pub(super) counted: usize,
    pub(super) owner: u32,
    /// When something of `kept` was last consumed, or it began; later by the pauses since.
    pub(super) input_since: Instant,
    /// Since when the peer is not to blame for what `kept` lacks.
    pub(super) paused_since: Option<Instant>,
    /// When something of `output` was last taken, or it began.
    pub(super) output_since: Instant,
    /// Bytes of `output` that were taken since then: since it began to wait, or since that was last
    /// looked at.
    pub(super) taken: usize,
    pub(super) taken_since: Instant,
    /// How much waited when the time of a close began, if a file was among it; else 0.
    pub(super) flush_from: usize,
    /// The error of a send, while the peer's last bytes are still to be shown. Then `output` is not
    /// empty: it goes nowhere.
    pub(super) broken: Option<io::Error>,
    /// Why the connection closes, once its output is flushed.
    pub(super) reason: Option<CloseReason>,
    /// How many bytes a lingering close may still discard.
    pub(super) linger_left: usize,
    /// ... during which the peer is to shut down its writing side first.
    pub(super) patient: bool,
}

impl Extra {
    fn new(now: Instant) -> Extra {
        Extra {
            kept: BytesMut::new(),
            need: 0,
            held: 0,
            output: Output::default(),
            apart: None,
            sealed: 0,
            counted: 0,
            owner: 0,
            input_since: now,
            paused_since: None,
            output_since: now,
            taken: 0,
            taken_since: now,
            flush_from: 0,
            broken: None,
            reason: None,
            linger_left: 0,
            patient: false,
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.kept.is_empty()
            && self.queued() == 0
            && self.need == 0
            && self.held == 0
            && self.reason.is_none()
            && self.apart.as_deref().is_none_or(Apart::is_idle)
    }

    /// How many bytes of input count as kept.
    pub(super) fn unread(&self) -> usize {
        self.kept.len() + self.held
    }

    /// From here on it is counted how much of the output is taken.
    pub(super) fn begin_window(&mut self, now: Instant) {
        self.taken = 0;
        self.taken_since = now;
    }

    /// The time that a close has begins, once more if a file waits.
    pub(super) fn begin_flush(&mut self) {
        self.flush_from = if self.has_file() { self.queued() } else { 0 };
    }

    /// The bytes of output that wait.
    #[inline]
    pub(super) fn queued(&self) -> usize {
        let apart = self.apart.as_deref();
        let in_pieces = apart.map_or(0, |apart| apart.pieces.len());
        self.sealed + self.output.len() + in_pieces
    }

    /// What they count as against the budget.
    pub(super) fn cost(&self) -> usize {
        let apart = self.apart.as_deref();
        self.sealed + self.output.len() + apart.map_or(0, |apart| apart.pieces.cost())
    }

    /// Drops the first `n` bytes of output, which the socket has taken; whether that makes a notice
    /// due.
    #[inline]
    pub(super) fn advance(&mut self, n: usize) -> bool {
        self.take_out(n);
        self.count_taken(n)
    }

    #[inline(always)]
    fn take_out(&mut self, n: usize) {
        let Some(apart) = &mut self.apart else {
            return self.output.advance(n);
        };
        let in_bytes = n.min(self.output.len());
        self.output.advance(in_bytes);
        apart.pieces.advance(n - in_bytes);
    }

    #[inline(always)]
    fn count_taken(&mut self, n: usize) -> bool {
        self.taken += n;
        let apart = self.apart.as_deref_mut();
        apart.is_some_and(|apart| apart.notices.advance(n))
    }

    /// The first `n` bytes have been sealed; they wait as before.
    pub(super) fn seal(&mut self, n: usize) {
        self.take_out(n);
        self.sealed += n;
    }

    /// So much that was never written waits behind what is sealed.
    pub(super) fn insert_sealed(&mut self, n: usize) {
        if let Some(apart) = &mut self.apart {
            apart.notices.shift(Change {
                behind: self.sealed,
                was: 0,
                is: n,
            });
        }
        self.sealed += n;
    }

    /// As [`advance`](Extra::advance), of what is sealed.
    pub(super) fn count_sent(&mut self, n: usize) -> bool {
        self.sealed -= n;
        self.count_taken(n)
    }
}

/// What is kept besides of the output of a connection that asks for more than bytes in order.
#[derive(Default)]
pub(super) struct Apart {
    pub(super) notices: Notices,
    /// What waits behind the output that is in one piece.
    pub(super) pieces: Pieces,
}

/// The number of an extra: its place and one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct ExtraId(NonZeroU32);

impl ExtraId {
    fn place(self) -> usize {
        self.0.get() as usize - 1
    }
}

/// The extras of one poller's connections.
#[derive(Default)]
pub(super) struct Extras {
    /// Boxed, so that those which nobody has cost eight bytes.
    places: Vec<Option<Box<Extra>>>,
    /// Numbers that nobody has, without and with an extra at their place.
    free: Vec<ExtraId>,
    spare: Vec<ExtraId>,
}

impl Extras {
    pub(super) fn get(&self, id: Option<ExtraId>) -> Option<&Extra> {
        self.places[id?.place()].as_deref()
    }

    pub(super) fn get_mut(&mut self, id: Option<ExtraId>) -> Option<&mut Extra> {
        self.places[id?.place()].as_deref_mut()
    }

    /// All that are there, those in reserve included.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Extra> {
        self.places.iter().filter_map(Option::as_deref)
    }

    /// The extra of a slot, made if it has none.
    pub(super) fn get_or_take(&mut self, id: &mut Option<ExtraId>, now: Instant) -> &mut Extra {
        let fresh = id.is_none();
        let id =
            *id.get_or_insert_with(|| {
                self.spare
                    .pop()
                    .or_else(|| self.free.pop())
                    .unwrap_or_else(|| {
                        self.places.push(None);
                        let number = u32::try_from(self.places.len())
                            .ok()
                            .and_then(NonZeroU32::new);
                        ExtraId(number.expect(
                            "slots, which have at most one extra each, are counted in 32 bits",
                        ))
                    })
            });
        let extra = self.places[id.place()].get_or_insert_with(|| Box::new(Extra::new(now)));
        if fresh {
            extra.input_since = now;
            extra.output_since = now;
            extra.begin_window(now);
        }
        extra
    }

    /// Takes an extra back, with all that is in it.
    pub(super) fn give_back(&mut self, id: ExtraId) {
        let place = &mut self.places[id.place()];
        let Some(extra) = place else { return };
        let held = extra.kept.capacity() + extra.output.capacity();
        if self.spare.len() < SPARE_MAX && held <= SPARE_BYTES_MAX {
            extra.kept.clear();
            extra.output.clear();
            extra.sealed = 0;
            extra.need = 0;
            extra.held = 0;
            extra.paused_since = None;
            extra.flush_from = 0;
            extra.patient = false;
            extra.broken = None;
            extra.reason = None;
            if extra.apart.is_some() {
                extra.apart = None;
            }
            self.spare.push(id);
        } else {
            *place = None;
            self.free.push(id);
        }
        let unused = self.free.len() + self.spare.len();
        if unused == self.places.len() && unused > 4 * SPARE_MAX {
            // A burst is over: its numbers, too, are given back.
            *self = Extras::default();
        }
    }
}

impl Hosts {
    pub(super) fn extra(&mut self, index: usize, now: Instant) -> &mut Extra {
        self.extras.get_or_take(&mut self.slots[index].extra, now)
    }

    /// Whether anything is kept for this connection.
    #[cfg(test)]
    pub(crate) fn keeps(&self, key: crate::registry::ActorKey) -> bool {
        self.find(key)
            .is_some_and(|index| self.slots[index].extra.is_some())
    }

    /// How many connections have something kept in which nothing is.
    pub(crate) fn idle_extras(&self) -> usize {
        let is_idle = |slot: &&Slot| {
            !slot.flags.has(Flags::LINGERING)
                && self.extras.get(slot.extra).is_some_and(Extra::is_idle)
        };
        self.slots.iter().filter(is_idle).count()
    }

    /// Takes the extra back when nothing is in it.
    pub(super) fn tidy(&mut self, index: usize) {
        let extra = self.extras.get(self.slots[index].extra);
        if extra.is_some_and(Extra::is_idle) {
            self.recycle(index);
        }
    }

    pub(super) fn recycle(&mut self, index: usize) {
        let extra = self.extras.get(self.slots[index].extra);
        if extra.is_some_and(|extra| extra.counted > 0 || extra.apart.is_some()) {
            self.forget_apart(index);
        }
        if let Some(id) = self.slots[index].extra.take() {
            self.extras.give_back(id);
        }
    }

    /// What few have beside is no more.
    #[cold]
    fn forget_apart(&mut self, index: usize) {
        self.uncount_output(index);
        self.call.noted = Noted::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_leaves_nothing_behind() {
        let now = Instant::now();
        let mut extras = Extras::default();
        let mut ids = vec![None; 5 * SPARE_MAX];
        for (n, id) in ids.iter_mut().enumerate() {
            extras.get_or_take(id, now).need = n;
        }
        for (n, id) in ids.iter().enumerate() {
            assert_eq!(extras.get(*id).map(|extra| extra.need), Some(n));
        }
        let (last, others) = ids.split_last().expect("some");
        others
            .iter()
            .for_each(|id| extras.give_back(id.expect("taken")));
        assert_eq!(extras.spare.len(), SPARE_MAX);
        assert_eq!(extras.places.iter().flatten().count(), SPARE_MAX + 1);
        assert_eq!(
            extras.get(*last).map(|extra| extra.need),
            Some(5 * SPARE_MAX - 1)
        );
        extras.give_back(last.expect("taken"));
        assert!(extras.places.is_empty());
    }

    #[test]
    fn the_numbers_of_a_small_burst_stay() {
        let now = Instant::now();
        let mut extras = Extras::default();
        let mut ids = vec![None; 4 * SPARE_MAX];
        for id in &mut ids {
            extras.get_or_take(id, now);
        }
        for id in &ids {
            extras.give_back(id.expect("taken"));
        }
        assert_eq!(extras.places.len(), 4 * SPARE_MAX);
    }

    #[test]
    fn an_extra_with_more_than_a_little_buffer_is_not_held_in_reserve() {
        let now = Instant::now();
        let spare_after = |kept: usize, output: usize| {
            let mut extras = Extras::default();
            let mut id = None;
            let extra = extras.get_or_take(&mut id, now);
            extra.kept.reserve(kept);
            extra.output.push_slice(&vec![0; output]);
            extras.give_back(id.expect("taken"));
            (extras.spare.len(), extras.free.len())
        };
        assert_eq!(spare_after(SPARE_BYTES_MAX, 0), (1, 0));
        assert_eq!(spare_after(SPARE_BYTES_MAX + 1, 0), (0, 1));
        assert_eq!(spare_after(SPARE_BYTES_MAX / 2, SPARE_BYTES_MAX), (0, 1));
        assert_eq!(spare_after(1_000, 1_000), (1, 0));
    }

    #[test]
    fn an_extra_is_idle_when_none_of_its_six_things_is_there() {
        let new = || Extra::new(Instant::now());
        assert!(new().is_idle());
        let mut extra = new();
        extra.kept.extend_from_slice(b"kept");
        assert!(!extra.is_idle());
        let mut extra = new();
        extra.output.push_slice(b"waits");
        assert!(!extra.is_idle());
        assert!(!Extra { need: 1, ..new() }.is_idle());
        assert!(!Extra { held: 1, ..new() }.is_idle());
        let apart = Some(Box::default());
        let mut extra = Extra { apart, ..new() };
        assert!(extra.is_idle(), "with nothing in it");
        let apart = extra.apart.as_mut().expect("just made");
        apart.notices.add(0, 1);
        assert!(!extra.is_idle());
        let reason = Some(CloseReason::Finished);
        assert!(!Extra { reason, ..new() }.is_idle());
    }

    #[test]
    fn what_comes_from_the_reserve_is_as_new() {
        let now = Instant::now();
        let mut extras = Extras::default();
        let mut id = None;
        let extra = extras.get_or_take(&mut id, now);
        extra.kept.extend_from_slice(b"kept");
        extra.output.push_slice(b"waits");
        extra.need = 9;
        extra.held = 9;
        extra.apart = Some(Box::default());
        extra.reason = Some(CloseReason::Finished);
        extras.give_back(id.expect("taken"));
        let mut other = None;
        assert!(extras.get_or_take(&mut other, now).is_idle());
        assert_eq!(other, id);
    }
}
