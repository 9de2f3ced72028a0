//! What a callback says of its output beside the bytes: notices, writes that may be dropped or
//! replaced, files.

use std::collections::HashMap;

use bytes::Bytes;

use crate::call::{Call, Wants};
use crate::flags::Flags;
use crate::origin::SlowReader;
use crate::output::{FilePart, Mark, Marked, NOTICE_BYTES, PIECE_BYTES, Staged};
use crate::registry::{ActorKey, Counters};

/// What waits for one connection in another way than as plain bytes. Of the actor at work, if that
/// has the same key; or else it has nothing of the kind.
#[derive(Default)]
pub(crate) struct Noted {
    pub(crate) key: ActorKey,
    /// Notices of earlier callbacks.
    pub(crate) notices: usize,
    /// By how much what waits is more than what counts against the budget; wrapping, as it may be
    /// less.
    pub(crate) free: usize,
}

impl Call {
    #[cold]
    pub(super) fn stage_apart(&mut self, len: usize, push: impl FnOnce(&mut Staged)) -> bool {
        if self.options().slow_reader != SlowReader::DropOldest {
            if self.is_judged_later(len) {
                push(&mut self.staged);
                return true;
            }
            return self.over_budget(len);
        }
        if len == 0 {
            return true;
        }
        let is_kept = if self.nested == 0 {
            self.mark_droppable(len, Marked::Write(len))
        } else {
            // What may be dropped are the writes of the outermost adapter.
            self.staged.len() + len <= self.options().output_max
        };
        if !is_kept {
            return self.over_budget(len);
        }
        let fits = self.counted() + len <= self.options().output_max;
        push(&mut self.staged);
        if !fits {
            self.wants.set(Wants::DROPPED);
        }
        fits
    }

    /// Whether a plain write beside values of keys may be kept as far as this callback knows: these
    /// may take the places of older ones, and then there is room. Where a write that is kept cannot
    /// be taken back, nobody waits for that.
    fn is_judged_later(&mut self, len: usize) -> bool {
        let is_latest = |mark: &Mark| matches!(mark.what, Marked::Latest { .. });
        let drops = self.options().slow_reader == SlowReader::DropNewest;
        if drops || self.nested > 0 || !self.marks.iter().any(is_latest) {
            return false;
        }
        self.has_room_here(len)
    }

    /// Whether so much more may be staged, twice the budget until only the newest of each key is
    /// left: so those are not looked for with each write.
    fn has_room_here(&mut self, cost: usize) -> bool {
        let max = self.options().output_max;
        if self.counted_here().saturating_add(cost) <= max.saturating_mul(2) {
            return true;
        }
        self.coalesce_staged();
        // This one may take a place, too.
        self.counted_here() <= max && cost <= max.saturating_mul(2)
    }

    /// Stages what has to leave whatever follows it, as the answer with which another protocol begins:
    /// it is none of the writes that may be dropped, and may wait beside what may.
    #[cfg(any(feature = "websocket", feature = "http"))]
    pub(crate) fn stage_kept(&mut self, bytes: Bytes) -> bool {
        let len = bytes.len();
        let is_droppable = self.options().slow_reader == SlowReader::DropOldest
            && self.nested == 0
            && self.flags.has(Flags::SOCKET)
            && !self.flags.has(Flags::WRITE_SHUT | Flags::SPECIAL);
        if !is_droppable || len > self.options().output_max {
            return self.stage(len, |staged| staged.push_bytes(bytes));
        }
        self.staged.push_bytes(bytes);
        true
    }

    /// What only a stream has was asked for.
    fn assert_stream(&self, what: &str) {
        assert!(
            self.flags.has(Flags::SOCKET),
            "{what}: this actor has no socket"
        );
        assert!(
            !self.flags.has(Flags::SPECIAL),
            "{what}: this actor's socket is no stream"
        );
        assert!(
            !self.flags.has(Flags::WRITE_SHUT),
            "{what}: this connection's writing side was shut down"
        );
    }

    /// What counts against the budget, that of this callback included.
    fn counted(&self) -> usize {
        self.queued + self.counted_here()
    }

    /// ... that of this callback alone.
    fn counted_here(&self) -> usize {
        self.staged.len() + self.over + self.pieces * PIECE_BYTES
    }

    /// Takes down a write that may be dropped; `false` where it would be too large even alone.
    fn mark_droppable(&mut self, len: usize, what: Marked) -> bool {
        let max = self.options().output_max;
        if len + PIECE_BYTES > max {
            return false;
        }
        if self.staged.len() + self.pieces * PIECE_BYTES > max.saturating_mul(2) {
            self.drop_staged(max);
        }
        self.mark(what);
        self.pieces += 1;
        true
    }

    /// Drops the oldest of what this very callback wrote, half of it: kept it would all be dropped.
    fn drop_staged(&mut self, max: usize) {
        let mut left = self.staged.len() + self.pieces * PIECE_BYTES;
        let (mut bytes, mut dropped) = (0, 0);
        self.marks.retain(|mark| {
            let (Marked::Write(len) | Marked::Latest { len, .. }) = mark.what else {
                return true;
            };
            // Only from the very front: what is not to be dropped keeps its place.
            if left <= max || mark.at != bytes {
                return true;
            }
            bytes += len;
            left -= len + PIECE_BYTES;
            dropped += 1;
            false
        });
        for mark in &mut self.marks {
            mark.at = match mark.at {
                usize::MAX => usize::MAX,
                at => at.saturating_sub(bytes),
            };
        }
        self.staged.drop_front(bytes);
        self.pieces -= dropped;
        let counter = &self.registry.door.counters.dropped_writes;
        Counters::add(counter, dropped as u64);
    }

    /// Leaves the newest of the values of each key that this callback wrote, in the place of the
    /// first.
    fn coalesce_staged(&mut self) {
        let mut places: HashMap<u64, usize, ahash::RandomState> = HashMap::default();
        let mut kept: Vec<(Bytes, Option<Mark>, Bytes)> = Vec::new();
        let mut replaced = 0;
        let rest = self.staged.take_rest();
        let (mut at, end) = (self.staged.len(), self.staged.len() + rest.len());
        let mut cursor = rest.cursor(&[]);
        for mark in self.marks.drain(..) {
            // One that comes last has no place yet.
            let place = if mark.at > end { at } else { mark.at };
            let before = cursor.next(place - at);
            at += before.len();
            let (Marked::Latest { len, .. } | Marked::Write(len)) = mark.what else {
                kept.push((before, Some(mark), Bytes::new()));
                continue;
            };
            let bytes = cursor.next(len);
            at += len;
            let Marked::Latest { key, .. } = mark.what else {
                kept.push((before, Some(mark), bytes));
                continue;
            };
            match places.get(&key) {
                Some(place) => {
                    kept[*place].2 = bytes;
                    kept.push((before, None, Bytes::new()));
                    replaced += 1;
                }
                None => {
                    places.insert(key, kept.len());
                    kept.push((before, Some(mark), bytes));
                }
            }
        }
        let behind = cursor.next(end - at);
        for (before, mark, bytes) in kept {
            self.staged.push_bytes(before);
            if let Some(Mark { at, mut what }) = mark {
                if let Marked::Latest { len, .. } = &mut what {
                    *len = bytes.len();
                }
                let at = if at == usize::MAX {
                    at
                } else {
                    self.staged.len()
                };
                self.marks.push(Mark { at, what });
                self.staged.push_bytes(bytes);
            }
        }
        self.staged.push_bytes(behind);
        self.pieces -= replaced;
        let counter = &self.registry.door.counters.replaced_writes;
        Counters::add(counter, replaced as u64);
    }

    fn mark(&mut self, what: Marked) {
        let at = self.staged.len();
        self.marks.push(Mark { at, what });
        self.wants.set(Wants::MARKS);
    }

    /// Stages the newest value of a key.
    pub(crate) fn stage_latest(&mut self, key: u64, bytes: Bytes) {
        if self.nested > 0 {
            // The outermost adapter's writes are what a peer gets.
            self.stage(bytes.len(), |staged| staged.push_bytes(bytes));
            return;
        }
        self.assert_stream("write_latest");
        let len = bytes.len();
        let is_kept = match self.options().slow_reader {
            SlowReader::DropOldest => self.mark_droppable(len, Marked::Latest { key, len }),
            _ => {
                // Whether it fits with what waits is seen when that of its key is known. Here only
                // what one callback may write is bounded.
                let fits = self.has_room_here(len + PIECE_BYTES);
                if fits {
                    self.mark(Marked::Latest { key, len });
                    self.pieces += 1;
                }
                fits
            }
        };
        if is_kept {
            self.staged.push_bytes(bytes);
        } else {
            self.over_budget(len);
        }
    }

    /// Stages a part of a file; it comes back where that cannot be.
    pub(crate) fn stage_file(&mut self, part: FilePart) -> Result<(), FilePart> {
        self.assert_stream("write_file");
        if self.counted() + PIECE_BYTES > self.options().output_max {
            return if self.over_budget(PIECE_BYTES) {
                Ok(())
            } else {
                Err(part)
            };
        }
        if self.noted.key != self.key {
            let key = self.key;
            self.noted = Noted {
                key,
                ..Noted::default()
            };
        }
        let left = usize::try_from(part.left).unwrap_or(usize::MAX);
        self.noted.free = self.noted.free.wrapping_add(left.min(usize::MAX / 4));
        self.mark(Marked::File(part));
        self.pieces += 1;
        Ok(())
    }

    /// The bytes that wait, those of this callback included.
    #[inline]
    pub(crate) fn waiting(&self) -> usize {
        let free = if self.noted.key == self.key {
            self.noted.free
        } else {
            0
        };
        self.queued.wrapping_add(free) + self.staged.len()
    }

    /// Takes down a notice behind what is staged; `false` where the budget has no room for it.
    pub(crate) fn notify(&mut self, token: u64) -> bool {
        assert!(
            self.flags.has(Flags::SOCKET),
            "notify_written: this actor has no socket"
        );
        assert!(
            !self.flags.has(Flags::SPECIAL),
            "notify_written: this actor's socket is no stream"
        );
        let Noted { key, notices, .. } = self.noted;
        let noted = if key == self.key { notices } else { 0 };
        let held = (noted + self.marks.len() + 1) * NOTICE_BYTES;
        if held > self.options().output_max {
            return self.over_budget(NOTICE_BYTES);
        }
        self.mark(Marked::Notice(token));
        true
    }
}
