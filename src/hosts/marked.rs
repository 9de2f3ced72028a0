//! Output of which a callback said more than bytes: it goes by way of what is kept, where places
//! are counted and writes are told apart.

use crate::actor::CloseReason;
use crate::flags::Flags;
use crate::hosts::extras::{Apart, Extra};
use crate::hosts::{Flush, Hosts};
use crate::origin::SlowReader;
use crate::output::{Change, FilePart, Mark, Marked, PIECE_BYTES};
use crate::registry::Counters;

/// Room that is kept between two callbacks for what they mark.
const MARKS_KEPT: usize = 256;

impl Hosts {
    /// Sends or keeps what the callback wrote, as [`send_staged`](Hosts::send_staged) does.
    pub(super) fn send_marked(&mut self, index: usize, flush: Flush) -> bool {
        if !self.keep_marked(index) {
            return false;
        }
        let queued = self.queued_at(index);
        if queued == 0 {
            self.tidy(index);
            return self.shut_if_flushed(index);
        }
        let is_little = queued < self.call.options().high_watermark;
        if !is_little {
            self.reach_high(index);
        }
        if self.slots[index].flags.has(Flags::BLOCKED) {
            self.block(index)
        } else if flush == Flush::EndOfTurn && is_little {
            self.flush_later(index);
            true
        } else {
            self.flush(index)
        }
    }

    /// Moves all that the callback wrote to what is kept for the connection; `false` when that has
    /// ended over it.
    pub(super) fn keep_all(&mut self, index: usize) -> bool {
        if self.call.marks.is_empty() {
            self.keep_staged(index, 0);
            return true;
        }
        self.keep_marked(index)
    }

    fn keep_marked(&mut self, index: usize) -> bool {
        let now = self.call.now();
        let options = &self.call.origins[usize::from(self.slots[index].origin)].options;
        let budget = Budget {
            max: options.output_max,
            policy: options.slow_reader,
        };
        let mut staged = std::mem::take(&mut self.call.staged);
        let mut marks = std::mem::take(&mut self.call.marks);
        let extra = self.extras.get_or_take(&mut self.slots[index].extra, now);
        if extra.queued() == 0 {
            extra.output_since = now;
            extra.begin_window(now);
        }
        let (mut at, end) = (0, staged.len());
        let mut cursor = staged.cursor(&self.read_buf);
        let (mut late, mut has_latest) = (Vec::new(), false);
        let mut lost = Lost::default();
        for Mark { at: place, what } in marks.drain(..) {
            match what {
                // In the order in which they were asked for, so behind one that comes last they
                // all do.
                Marked::Notice(token) if place > end || !late.is_empty() => {
                    late.push(token);
                    continue;
                }
                _ => {}
            }
            extra.keep(cursor.next(place - at));
            at = place;
            match what {
                Marked::Notice(token) => extra.note(token),
                Marked::Write(len) => {
                    extra.make_room(len + PIECE_BYTES, &budget, &mut lost);
                    extra.apart().pieces.push(cursor.next(len), true);
                    at += len;
                }
                Marked::Latest { key, len } => {
                    let bytes = cursor.next(len);
                    at += len;
                    has_latest = true;
                    if !bytes.is_empty() {
                        extra.keep_latest(key, bytes, &budget, &mut lost);
                    }
                }
                Marked::File(part) => extra.apart().pieces.push_file(part),
            }
        }
        extra.keep(cursor.next(end - at));
        late.into_iter().for_each(|token| extra.note(token));
        drop(cursor);
        let (queued, cost) = (extra.queued(), extra.cost());
        let drops = matches!(
            budget.policy,
            SlowReader::DropNewest | SlowReader::DropOldest
        );
        // Plain writes beside them were kept without a look at what waits.
        lost.is_over |= has_latest && !drops && cost > budget.max;
        staged.clear();
        self.call.staged = staged;
        marks.shrink_to(MARKS_KEPT);
        self.call.marks = marks;
        let counters = &self.call.registry.door.counters;
        Counters::add(&counters.dropped_writes, lost.dropped);
        Counters::add(&counters.replaced_writes, lost.replaced);
        if lost.dropped > 0 && queued > 0 {
            // As for who is told by `false`: `drained` says when to write again.
            self.slots[index].flags.set(Flags::ABOVE_HIGH);
        }
        if lost.is_over {
            let (queued, limit) = (cost, budget.max);
            self.end(index, CloseReason::SlowReader { queued, limit });
        }
        !lost.is_over
    }

    /// Drops all writes that may be dropped but the newest; whether there were any.
    pub(super) fn drop_old_writes(&mut self, index: usize) -> bool {
        let Some(extra) = self.extras.get_mut(self.slots[index].extra) else {
            return false;
        };
        let mut dropped = 0;
        let apart = extra.apart.as_deref();
        let droppable = apart.map_or(0, |apart| apart.pieces.droppable());
        let old = droppable.saturating_sub(1);
        for _ in 0..old {
            dropped += u64::from(extra.drop_first());
        }
        if dropped > 0 {
            self.slots[index].flags.set(Flags::ABOVE_HIGH);
            Counters::add(&self.call.registry.door.counters.dropped_writes, dropped);
            self.set_counted(index, true);
            self.owe_notices(index);
        }
        dropped > 0
    }
}

/// What a connection may keep.
struct Budget {
    max: usize,
    policy: SlowReader,
}

/// What became of writes as others were kept.
#[derive(Default)]
struct Lost {
    dropped: u64,
    replaced: u64,
    /// More is to be kept than may.
    is_over: bool,
}

impl Extra {
    pub(super) fn apart(&mut self) -> &mut Apart {
        self.apart.get_or_insert_default()
    }

    /// Whether a part of a file waits.
    pub(super) fn has_file(&self) -> bool {
        let apart = self.apart.as_deref();
        apart.is_some_and(|apart| apart.pieces.has_file())
    }

    /// The part of a file that is the first to be sent, if one is.
    pub(super) fn first_file(&self) -> Option<&FilePart> {
        self.apart.as_deref()?.pieces.first_file()
    }

    /// Takes all bytes out that wait.
    ///
    /// # Panics
    ///
    /// If a part of a file is among them.
    pub(super) fn take_output(&mut self) -> bytes::Bytes {
        if let Some(apart) = &mut self.apart {
            let rest = apart.pieces.take();
            if !rest.is_empty() {
                self.output.push_bytes(rest);
            }
        }
        self.output.take()
    }

    /// Appends bytes of which nothing more is known.
    fn keep(&mut self, bytes: bytes::Bytes) {
        match &mut self.apart {
            Some(apart) if !apart.pieces.is_empty() => apart.pieces.push(bytes, false),
            _ => self.output.push_bytes(bytes),
        }
    }

    /// Appends a notice.
    fn note(&mut self, token: u64) {
        let queued = self.queued();
        self.apart().notices.add(queued, token);
    }

    /// Drops the oldest write that may be dropped, if there is one.
    fn drop_first(&mut self) -> bool {
        let in_front = self.sealed + self.output.len();
        let apart = self.apart();
        let Some(change) = apart.pieces.drop_first() else {
            return false;
        };
        apart.notices.shift(Change {
            behind: in_front + change.behind,
            ..change
        });
        true
    }

    /// Drops the oldest writes until so much more fits, or none is left that may be dropped.
    fn make_room(&mut self, cost: usize, budget: &Budget, lost: &mut Lost) {
        while self.cost() + cost > budget.max && self.drop_first() {
            lost.dropped += 1;
        }
    }

    /// Keeps a write in the place of an older one of the same key, or behind all.
    fn keep_latest(&mut self, key: u64, bytes: bytes::Bytes, budget: &Budget, lost: &mut Lost) {
        let may_drop = budget.policy == SlowReader::DropOldest;
        let grows = match self.apart().pieces.waiting_of(key) {
            Some(was) => bytes.len().saturating_sub(was),
            None => bytes.len() + PIECE_BYTES,
        };
        if self.cost() + grows > budget.max {
            match budget.policy {
                SlowReader::DropOldest => {
                    self.make_room(grows, budget, lost);
                    if self.apart().pieces.waiting_of(key).is_none() {
                        // The older one was among those that were dropped.
                        self.make_room(bytes.len() + PIECE_BYTES, budget, lost);
                    }
                }
                SlowReader::DropNewest => {
                    lost.dropped += 1;
                    return;
                }
                // Judged when all is kept.
                SlowReader::Close | SlowReader::PauseSource => {}
            }
        }
        let in_front = self.sealed + self.output.len();
        let apart = self.apart();
        let is_counted = !apart.notices.is_empty();
        if let Some(change) = apart.pieces.put(key, bytes, may_drop, is_counted) {
            lost.replaced += 1;
            if is_counted {
                apart.notices.shift(Change {
                    behind: in_front + change.behind,
                    ..change
                });
            }
        }
    }
}
