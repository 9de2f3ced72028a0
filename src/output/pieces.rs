//! Output in pieces that are told apart: writes that may be dropped or replaced as long as they
//! wait whole, files, and whatever is written behind these.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::IoSlice;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};

use crate::output::Staged;

/// What a piece counts as against the budget of its connection, beside its bytes: about what it
/// takes to keep it apart.
pub(crate) const PIECE_BYTES: usize = 64;

/// A part of a file that is to be sent.
#[derive(Debug, Clone)]
pub(crate) struct FilePart {
    pub(crate) file: Arc<File>,
    pub(crate) at: u64,
    pub(crate) left: u64,
}

#[derive(Debug)]
enum What {
    Bytes(Bytes),
    File(FilePart),
}

#[derive(Debug)]
struct Piece {
    what: What,
    /// A newer write of the same key takes its place.
    key: Option<u64>,
    may_drop: bool,
}

/// What has moved in the queue: bytes that stood behind so many others have become more or fewer.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub(crate) struct Change {
    pub(crate) behind: usize,
    pub(crate) was: usize,
    pub(crate) is: usize,
}

/// The pieces of one connection that wait, first in, first out, none of them empty.
#[derive(Debug, Default)]
pub(crate) struct Pieces {
    /// The kernel may have taken the beginning of the first: that then has no key and is not
    /// dropped.
    pieces: VecDeque<Piece>,
    /// The number of the first piece. Pieces are numbered as they come.
    first: u64,
    /// The number of the piece of each key.
    keys: HashMap<u64, u64, ahash::RandomState>,
    bytes: usize,
    /// Wide enough for as many parts as there may be, however large.
    in_files: u128,
}

impl Pieces {
    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// The bytes that wait, those in files included; of more than any machine can count half of
    /// that, so that a sum is still a number.
    pub(crate) fn len(&self) -> usize {
        let in_files = usize::try_from(self.in_files).unwrap_or(usize::MAX);
        self.bytes.saturating_add(in_files).min(usize::MAX / 2)
    }

    /// What they count as against the budget.
    pub(crate) fn cost(&self) -> usize {
        self.bytes + self.pieces.len() * PIECE_BYTES
    }

    /// Whether a part of a file waits.
    pub(crate) fn has_file(&self) -> bool {
        self.in_files > 0
    }

    /// Appends bytes.
    pub(crate) fn push(&mut self, bytes: Bytes, may_drop: bool) {
        if !bytes.is_empty() {
            self.bytes += bytes.len();
            let what = What::Bytes(bytes);
            self.pieces.push_back(Piece {
                what,
                key: None,
                may_drop,
            });
        }
    }

    /// Appends a part of a file.
    pub(crate) fn push_file(&mut self, part: FilePart) {
        if part.left > 0 {
            self.in_files += u128::from(part.left);
            self.pieces.push_back(Piece {
                what: What::File(part),
                key: None,
                may_drop: false,
            });
        }
    }

    /// The bytes of this key that wait whole, if any.
    pub(crate) fn waiting_of(&self, key: u64) -> Option<usize> {
        let number = self.keys.get(&key)?;
        match &self.pieces.get((number - self.first) as usize)?.what {
            What::Bytes(bytes) => Some(bytes.len()),
            What::File(_) => None,
        }
    }

    /// Puts bytes, of which there are some, in the place of those of the same key that wait whole,
    /// or else behind all; says what that has changed in the first case. `is_counted` where somebody
    /// wants to know what stands before it, which is then added up.
    pub(crate) fn put(
        &mut self,
        key: u64,
        bytes: Bytes,
        may_drop: bool,
        is_counted: bool,
    ) -> Option<Change> {
        debug_assert!(!bytes.is_empty());
        let Some(number) = self.keys.get(&key) else {
            self.keys.insert(key, self.first + self.pieces.len() as u64);
            self.push(bytes, may_drop);
            if let Some(last) = self.pieces.back_mut() {
                last.key = Some(key);
            }
            return None;
        };
        let place = (number - self.first) as usize;
        let behind = if is_counted {
            self.len_before(place)
        } else {
            0
        };
        let (was, is) = (self.pieces[place].len(), bytes.len());
        self.bytes = self.bytes - was + is;
        self.pieces[place].what = What::Bytes(bytes);
        Some(Change { behind, was, is })
    }

    fn len_before(&self, place: usize) -> usize {
        self.pieces.range(..place).map(Piece::len).sum()
    }

    /// Drops the first piece that may be dropped; says where that was, or that there is none.
    pub(crate) fn drop_first(&mut self) -> Option<Change> {
        let place = self.pieces.iter().position(|piece| piece.may_drop)?;
        let behind = self.len_before(place);
        // Those before it have no key: their numbers may change.
        let piece = self.pieces.remove(place)?;
        self.first += 1;
        self.forget_key(&piece);
        let was = piece.len();
        self.bytes -= was;
        let is = 0;
        Some(Change { behind, was, is })
    }

    /// How many pieces may be dropped.
    pub(crate) fn droppable(&self) -> usize {
        self.pieces.iter().filter(|piece| piece.may_drop).count()
    }

    /// Fills `out` with the first pieces, up to the first that is in a file; returns how many it
    /// has got.
    pub(crate) fn io_slices<'a>(&'a self, out: &mut [IoSlice<'a>]) -> usize {
        let mut filled = 0;
        for (slot, part) in out.iter_mut().zip(self.parts()) {
            *slot = IoSlice::new(part);
            filled += 1;
        }
        filled
    }

    /// The first pieces, up to the first that is in a file.
    pub(crate) fn parts(&self) -> impl Iterator<Item = &[u8]> {
        self.pieces.iter().map_while(|piece| match &piece.what {
            What::Bytes(bytes) => Some(&bytes[..]),
            What::File(_) => None,
        })
    }

    /// The first piece, if that is in a file.
    pub(crate) fn first_file(&self) -> Option<&FilePart> {
        match &self.pieces.front()?.what {
            What::File(part) => Some(part),
            What::Bytes(_) => None,
        }
    }

    /// Drops the first `n` bytes, which the socket has taken.
    ///
    /// # Panics
    ///
    /// If there are fewer.
    pub(crate) fn advance(&mut self, mut n: usize) {
        while n > 0 {
            let Some(piece) = self.pieces.front_mut() else {
                panic!("advanced past the end of the pieces");
            };
            let step = n.min(piece.len());
            n -= step;
            let is_done = step == piece.len();
            match &mut piece.what {
                What::Bytes(bytes) => {
                    bytes.advance(step);
                    self.bytes -= step;
                }
                What::File(part) => {
                    part.at += step as u64;
                    part.left -= step as u64;
                    self.in_files -= step as u128;
                }
            }
            piece.may_drop = false;
            let begun = Piece {
                what: What::Bytes(Bytes::new()),
                key: piece.key.take(),
                may_drop: false,
            };
            self.forget_key(&begun);
            if is_done {
                self.pieces.pop_front();
                self.first += 1;
            }
        }
        if self.pieces.is_empty() {
            // A burst is over.
            *self = Pieces::default();
        }
    }

    fn forget_key(&mut self, piece: &Piece) {
        if let Some(key) = piece.key {
            self.keys.remove(&key);
        }
    }

    /// All that waits in one piece.
    ///
    /// # Panics
    ///
    /// If a file is among it.
    pub(crate) fn take(&mut self) -> Bytes {
        assert!(!self.has_file(), "a file cannot be taken out");
        let mut all = BytesMut::with_capacity(self.bytes);
        for piece in std::mem::take(self).pieces {
            if let What::Bytes(bytes) = piece.what {
                all.extend_from_slice(&bytes);
            }
        }
        all.freeze()
    }
}

impl Piece {
    fn len(&self) -> usize {
        match &self.what {
            What::Bytes(bytes) => bytes.len(),
            What::File(part) => usize::try_from(part.left).unwrap_or(usize::MAX),
        }
    }
}

/// Takes what was staged out, write by write.
pub(crate) struct Cursor<'a>(VecDeque<Source<'a>>);

enum Source<'a> {
    Slice(&'a [u8]),
    Shared(Bytes),
}

impl Staged {
    /// At the beginning of what was written.
    pub(crate) fn cursor<'a>(&'a self, input: &'a [u8]) -> Cursor<'a> {
        let mut sources = VecDeque::new();
        let mut copied = &self.rest.copied[self.rest.head..];
        let mut position = self.rest.sent;
        sources.push_back(Source::Slice(&input[self.shown.clone()]));
        for (next, bytes) in &self.rest.shared {
            let before;
            (before, copied) = copied.split_at((next - position) as usize);
            position = *next;
            sources.push_back(Source::Slice(before));
            sources.push_back(Source::Shared(bytes.clone()));
        }
        sources.push_back(Source::Slice(copied));
        Cursor(sources)
    }

    /// Takes out all but what is only noted where it lies in the read buffer, which is in front.
    pub(crate) fn take_rest(&mut self) -> Staged {
        let rest = std::mem::take(&mut self.rest);
        Staged { shown: 0..0, rest }
    }

    /// Drops the first `n` bytes.
    pub(crate) fn drop_front(&mut self, n: usize) {
        let shown = n.min(self.shown.len());
        self.shown.start += shown;
        self.rest.advance(n - shown);
    }
}

impl Cursor<'_> {
    /// The next `n` bytes: what was handed over as one is not copied.
    ///
    /// # Panics
    ///
    /// If there are fewer.
    pub(crate) fn next(&mut self, n: usize) -> Bytes {
        let mut gathered = BytesMut::new();
        loop {
            let wanted = n - gathered.len();
            let Some(source) = self.0.front_mut() else {
                assert!(wanted == 0, "there is less than that");
                return gathered.freeze();
            };
            let step = wanted.min(source.len());
            if step == wanted && gathered.is_empty() {
                return source.split_to(step);
            }
            gathered.extend_from_slice(&source.split_to(step));
            if step == wanted {
                return gathered.freeze();
            }
            self.0.pop_front();
        }
    }
}

impl Source<'_> {
    fn len(&self) -> usize {
        match self {
            Source::Slice(slice) => slice.len(),
            Source::Shared(bytes) => bytes.len(),
        }
    }

    fn split_to(&mut self, n: usize) -> Bytes {
        match self {
            Source::Slice(slice) => {
                let taken;
                (taken, *slice) = slice.split_at(n);
                Bytes::copy_from_slice(taken)
            }
            Source::Shared(bytes) => bytes.split_to(n),
        }
    }
}

#[cfg(test)]
mod tests;
