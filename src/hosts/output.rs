//! From an actor's staged output to the socket.

use std::io::{self, IoSlice};
use std::ops::ControlFlow;

use crate::actor::CloseReason;
use crate::flags::Flags;
use crate::hosts::{Flush, Hosts, holds_source};
use crate::output::{MAX_PARTS, Pieces};
use crate::sys::Socket;

/// Pieces handed to one sendmsg: they may be short, and nobody has copied them into one.
const PIECES_PER_SEND: usize = 256;

/// Bytes of files that one connection sends before the others have their turn.
const FILE_MAX: usize = 256 << 10;

/// A file ends so many bytes too early.
pub(super) fn file_is_cut(left: usize) -> io::Error {
    io::Error::new(
        io::ErrorKind::UnexpectedEof,
        format!("write_file: the file ends {left} bytes before what was to be sent"),
    )
}

/// Sends the first pieces: bytes, or a part of a file; how many bytes there were, and were taken.
///
/// Of files no more is sent than there is `room` for in this turn. The socket then counts as one
/// that has refused: the selector says in the next turn that it has not.
#[cold]
fn send_piece(
    socket: &Socket,
    pieces: &Pieces,
    room: &mut usize,
    scratch: &mut [u8],
) -> (usize, io::Result<usize>) {
    if let Some(part) = pieces.first_file() {
        let left = usize::try_from(part.left).unwrap_or(usize::MAX);
        if *room == 0 {
            return (left, Ok(0));
        }
        let sent = socket.send_file(&part.file, part.at, left.min(*room), scratch);
        let sent = sent.and_then(|sent| match sent {
            0 => Err(file_is_cut(left)),
            sent => Ok(sent),
        });
        *room -= sent.as_ref().copied().unwrap_or(0);
        return (left, sent);
    }
    let mut slices = [IoSlice::new(&[]); PIECES_PER_SEND];
    let count = pieces.io_slices(&mut slices);
    let offered = slices[..count].iter().map(|slice| slice.len()).sum();
    (offered, socket.send_vectored(&slices[..count]))
}

impl Hosts {
    /// Sends or keeps what the callback wrote; `false` when the connection has ended over it.
    pub(super) fn send_staged(&mut self, index: usize, flush: Flush) -> bool {
        let len = self.call.staged.len();
        if len == 0 {
            return self.shut_if_flushed(index);
        }
        let queued = self.queued_at(index);
        if queued + len >= self.call.options().high_watermark {
            self.reach_high(index);
        }
        let is_secured = self.slots[index].flags.has(Flags::SPECIAL);
        if flush == Flush::EndOfTurn || queued > 0 || is_secured {
            self.keep_staged(index, 0);
            // A reader that reads is not to run over its budget only because the turn is long.
            let is_little = queued + len < self.call.options().high_watermark;
            if self.slots[index].flags.has(Flags::BLOCKED) {
                return self.block(index);
            } else if flush == Flush::EndOfTurn && is_little {
                self.flush_later(index);
                return true;
            }
            return self.flush(index);
        }
        let Some(socket) = &self.slots[index].socket else {
            self.call.staged.clear();
            return true;
        };
        let in_one = self.call.staged.as_slice(&self.read_buf);
        let sent = match in_one {
            Some(bytes) => socket.send(bytes),
            None => {
                let mut slices = [IoSlice::new(&[]); MAX_PARTS];
                let count = self.call.staged.io_slices(&self.read_buf, &mut slices);
                socket.send_vectored(&slices[..count])
            }
        };
        let in_one = in_one.is_some();
        match sent {
            Ok(sent) if sent == len => {
                self.call.staged.clear();
                let flags = self.slots[index].flags;
                const REST: u32 =
                    Flags::TIMED | Flags::SILENT | Flags::ABOVE_HIGH | Flags::SHUT_PENDING;
                if !flags.has(REST) {
                    return true;
                }
                self.touch(index);
                self.fall_low(index);
                self.shut_if_flushed(index)
            }
            Ok(sent) => {
                self.touch(index);
                self.keep_staged(index, sent);
                // Of several parts not all may have been offered: the socket need not be full.
                if in_one {
                    self.block(index)
                } else {
                    self.flush(index)
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.keep_staged(index, 0);
                self.block(index)
            }
            Err(error) => {
                self.keep_staged(index, 0);
                self.fail_to_send(index, error)
            }
        }
    }

    /// A send has failed. The actor is still shown what its peer sent before, as far as the kernel
    /// has it; then the connection fails with this error. `false` when it has already.
    ///
    /// An actor that has paused gets as long as a stuck reader to read on.
    #[cold]
    pub(super) fn fail_to_send(&mut self, index: usize, error: io::Error) -> bool {
        let slot = &self.slots[index];
        let has_unread = || slot.socket.as_ref().is_some_and(Socket::has_unread);
        if slot.flags.has(Flags::EOF | Flags::CLOSING) || !has_unread() {
            self.fail(index, error);
            return false;
        }
        let now = self.call.now();
        let extra = self.extra(index, now);
        extra.broken = Some(error);
        // Its output will not fall any more.
        if self.slots[index].flags.take(Flags::HELD) {
            self.owe(index, Flags::SHOW_INPUT);
        }
        self.block(index)
    }

    /// Whether a send has failed: what is written goes nowhere.
    pub(super) fn is_broken(&self, index: usize) -> bool {
        let extra = self.extras.get(self.slots[index].extra);
        extra.is_some_and(|extra| extra.broken.is_some())
    }

    /// With what error a send has failed.
    pub(super) fn take_broken(&mut self, index: usize) -> Option<io::Error> {
        self.extras.get_mut(self.slots[index].extra)?.broken.take()
    }

    /// Moves what was staged, but for the first `sent` bytes, to what is kept for the connection.
    pub(super) fn keep_staged(&mut self, index: usize, sent: usize) {
        if self.call.staged.is_empty() {
            return;
        }
        let now = self.call.now();
        let was_empty = self.queued_at(index) == 0;
        let mut staged = std::mem::take(&mut self.call.staged);
        let extra = self.extras.get_or_take(&mut self.slots[index].extra, now);
        if was_empty {
            extra.output_since = now;
            extra.begin_window(now);
        }
        match &mut extra.apart {
            Some(apart) if !apart.pieces.is_empty() => {
                let mut cursor = staged.cursor(&self.read_buf);
                cursor.next(sent);
                apart.pieces.push(cursor.next(staged.len() - sent), false);
                staged.clear();
            }
            _ => staged.move_into(&mut extra.output, sent, &self.read_buf),
        }
        self.call.staged = staged;
    }

    /// Puts the connection on the list of those flushed at the end of the turn.
    pub(super) fn flush_later(&mut self, index: usize) {
        let key = self.key(index);
        let flags = &mut self.slots[index].flags;
        if !flags.has(Flags::DIRTY) {
            flags.set(Flags::DIRTY);
            self.dirty.push(key);
        }
    }

    /// Writes out what this turn's callbacks produced.
    pub(crate) fn flush_dirty(&mut self) {
        if self.dirty.is_empty() {
            return;
        }
        let mut dirty = std::mem::take(&mut self.dirty);
        for key in dirty.drain(..) {
            if let Some(index) = self.find(key)
                && self.slots[index].flags.take(Flags::DIRTY)
            {
                self.flush(index);
            }
        }
        // Flushing calls no actor but for `closed`, which cannot write: nothing was added
        // meanwhile.
        debug_assert!(self.dirty.is_empty());
        self.dirty = dirty;
    }

    /// Sends what is kept until it is gone or the socket refuses; `false` when the connection has
    /// ended.
    pub(super) fn flush(&mut self, index: usize) -> bool {
        if self.slots[index].flags.has(Flags::SPECIAL) {
            return self.flush_special(index);
        }
        let mut room = FILE_MAX;
        loop {
            let slot = &self.slots[index];
            let extra = self.extras.get_mut(slot.extra);
            let (Some(socket), Some(extra)) = (&slot.socket, extra) else {
                break;
            };
            if extra.queued() == 0 {
                break;
            }
            if let Some(error) = extra.broken.take() {
                return self.fail_to_send(index, error);
            }
            let (offered, sent) = match extra.output.as_slice() {
                Some([]) => {
                    let Some(apart) = &extra.apart else { break };
                    send_piece(socket, &apart.pieces, &mut room, &mut self.read_buf)
                }
                Some(bytes) => (bytes.len(), socket.send(bytes)),
                None => {
                    let mut slices = [IoSlice::new(&[]); MAX_PARTS];
                    let count = extra.output.io_slices(&mut slices);
                    let offered = slices[..count].iter().map(|slice| slice.len()).sum();
                    (offered, socket.send_vectored(&slices[..count]))
                }
            };
            let took = sent.map(|sent| (extra.advance(sent), sent == offered));
            if let ControlFlow::Break(lives) = self.has_offered(index, took) {
                return lives;
            }
        }
        self.has_flushed(index)
    }

    /// The socket has taken some of what waits: whether that makes a notice due, and whether it took
    /// all that it was offered, so that it may take more. Or it has not. Breaks, as
    /// [`flush`](Hosts::flush) returns, where nothing more is to be offered.
    #[inline(always)]
    pub(super) fn has_offered(
        &mut self,
        index: usize,
        took: io::Result<(bool, bool)>,
    ) -> ControlFlow<bool> {
        let (is_due, is_all) = match took {
            Ok(took) => took,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return ControlFlow::Break(self.block(index));
            }
            Err(error) => return ControlFlow::Break(self.fail_to_send(index, error)),
        };
        let now = self.call.now();
        self.extra(index, now).output_since = now;
        self.touch(index);
        if is_due {
            self.owe(index, 0);
        }
        if is_all {
            return ControlFlow::Continue(());
        }
        self.fall_low(index);
        ControlFlow::Break(self.block(index))
    }

    /// Nothing waits any more; `false` when the connection has ended.
    #[inline(always)]
    pub(super) fn has_flushed(&mut self, index: usize) -> bool {
        let key = self.key(index);
        // Also off the list of those to be flushed: a close that is finished here must not be
        // finished again from there.
        if self.slots[index].flags.has(Flags::BLOCKED) {
            self.uncount_output(index);
        }
        self.slots[index].flags.clear(Flags::BLOCKED | Flags::DIRTY);
        self.fall_low(index);
        if self.slots[index].flags.has(Flags::CLOSING) {
            self.finish_close(index);
        } else {
            self.tidy(index);
            if self.shut_if_flushed(index) {
                self.sync_interest(index);
            }
        }
        self.find(key).is_some()
    }

    /// The socket refused bytes: wait until it takes some.
    pub(super) fn block(&mut self, index: usize) -> bool {
        let key = self.key(index);
        self.slots[index].flags.set(Flags::BLOCKED);
        self.watch_output(index);
        self.sync_interest(index);
        self.count_output(key);
        self.find(key).is_some()
    }

    /// Carries out a half-close that waited for the output to be flushed; `false` when the
    /// connection has ended over it.
    pub(super) fn shut_if_flushed(&mut self, index: usize) -> bool {
        let queued = self.queued_at(index);
        let flags = self.slots[index].flags;
        if queued > 0 || !flags.has(Flags::SHUT_PENDING) {
            return true;
        }
        if flags.has(Flags::SPECIAL) && !self.has_said_end(index) {
            // It comes back here.
            return self.flush(index);
        }
        let slot = &mut self.slots[index];
        slot.flags.clear(Flags::SHUT_PENDING);
        match slot.socket.as_ref().map(|socket| socket.shutdown_write()) {
            Some(Err(error)) => {
                self.fail(index, error);
                false
            }
            _ => !self.close_if_shut(index),
        }
    }

    /// A connection both of whose halves are shut has nothing to wait for any more; whether it was
    /// one.
    pub(super) fn close_if_shut(&mut self, index: usize) -> bool {
        let flags = self.slots[index].flags;
        let shut = flags.has(Flags::EOF_TOLD)
            && flags.has(Flags::WRITE_SHUT)
            && !flags.has(Flags::SHUT_PENDING | Flags::CLOSING);
        if shut {
            self.close(index, CloseReason::PeerClosed);
        }
        shut
    }

    pub(super) fn reach_high(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        slot.flags.set(Flags::ABOVE_HIGH);
        // The selector is told when the socket refuses bytes; until then there may be nothing to
        // hold back.
        if holds_source(&self.call, slot.origin) && !self.is_broken(index) {
            let slot = &mut self.slots[index];
            slot.flags.set(Flags::HELD);
            self.pause_frame(index);
        }
    }

    /// `drained` is owed when the output, having been at the high watermark, is at the low one or
    /// below.
    pub(super) fn fall_low(&mut self, index: usize) {
        let slot = &self.slots[index];
        if !slot.flags.has(Flags::ABOVE_HIGH) {
            return;
        }
        let options = &self.call.origins[usize::from(slot.origin)].options;
        if self.queued_at(index) > options.low_watermark {
            return;
        }
        let slot = &mut self.slots[index];
        slot.flags.clear(Flags::ABOVE_HIGH);
        let held = slot.flags.take(Flags::HELD);
        self.owe(
            index,
            if held {
                Flags::DRAINED | Flags::SHOW_INPUT
            } else {
                Flags::DRAINED
            },
        );
    }
}
