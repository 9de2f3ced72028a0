//! Bytes on their way out: what one callback wrote, and what a socket has not taken yet.
//!
//! Both keep small pieces copied one behind the other in one vector, and remember between which of
//! those bytes a payload handed over as `Bytes` belongs. So a callback that only copies costs a
//! copy and nothing else, and a large payload is never copied.

mod marks;
mod notices;
mod pieces;

use std::collections::VecDeque;
use std::io::IoSlice;
use std::ops::Range;

use bytes::{Buf, Bytes};

pub(crate) use marks::{Mark, Marked};
pub(crate) use notices::{NOTICE_BYTES, Notices};
pub(crate) use pieces::{Change, FilePart, PIECE_BYTES, Pieces};

/// Below this many bytes a `Bytes` is copied: a part of its own costs an entry here, one in the
/// kernel's vector, and two atomic operations on a count that other pollers may hold, more than so
/// short a copy. It also lets go of a payload of which little is left.
pub(crate) const COPY_MAX: usize = 512;

/// Parts handed to one sendmsg. A kernel takes 1024 (IOV_MAX), at a cost for each; 64 of COPY_MAX
/// or more fill at least 32 KiB.
pub(crate) const MAX_PARTS: usize = 64;

/// What a poller keeps allocated for `Staged` between callbacks.
const KEEP: usize = 256 * 1024;

/// Bytes that the socket refused, or that wait for the end of the turn; first in, first out.
#[derive(Debug, Default)]
pub(crate) struct Output {
    /// Copied bytes, those before `head` already sent. Invariant: `head < copied.len()`, or both
    /// are 0.
    copied: Vec<u8>,
    head: usize,
    /// Copied bytes sent so far, of all that ever were: what positions are counted against.
    sent: u64,
    /// Payloads, each with its position: it follows when so many copied bytes are sent.
    /// Invariant: positions do not fall, and lie within `sent ..= sent + copied.len() - head`.
    shared: VecDeque<(u64, Bytes)>,
    /// The bytes in `shared`.
    shared_len: usize,
}

impl Output {
    /// The bytes that wait.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.copied.len() - self.head + self.shared_len
    }

    /// Whether nothing waits.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends a copy.
    pub(crate) fn push_slice(&mut self, bytes: &[u8]) {
        // Rather than grow, move down over what is sent, if that is the larger part: each byte
        // moved was paid for by one sent, and the capacity stays below four times the most that
        // ever waited.
        let is_full = self.copied.len() + bytes.len() > self.copied.capacity();
        if is_full && self.head > self.copied.len() / 2 {
            self.copied.drain(..self.head);
            self.head = 0;
        }
        self.copied.extend_from_slice(bytes);
    }

    /// Appends a payload without copying it, unless it is small.
    #[inline]
    pub(crate) fn push_bytes(&mut self, bytes: Bytes) {
        if bytes.len() < COPY_MAX {
            return self.push_slice(&bytes);
        }
        let position = self.sent + (self.copied.len() - self.head) as u64;
        self.shared_len += bytes.len();
        self.shared.push_back((position, bytes));
    }

    /// The pieces in order, none of them empty.
    pub(crate) fn parts(&self) -> impl Iterator<Item = &[u8]> {
        let mut copied = &self.copied[self.head..];
        let mut position = self.sent;
        let last = self.shared.back().map_or(0, |(last, _)| last - self.sent);
        let rest = &copied[last as usize..];
        self.shared
            .iter()
            .flat_map(move |(next, bytes)| {
                let before;
                (before, copied) = copied.split_at((next - position) as usize);
                position = *next;
                [before, bytes]
            })
            .chain([rest])
            .filter(|part| !part.is_empty())
    }

    /// All that waits, if it is in one piece, for a plain send.
    pub(crate) fn as_slice(&self) -> Option<&[u8]> {
        let copied = &self.copied[self.head..];
        match (copied.is_empty(), self.shared.len()) {
            (_, 0) => Some(copied),
            (true, 1) => self.shared.front().map(|(_, bytes)| &bytes[..]),
            _ => None,
        }
    }

    /// Fills `out` with the first pieces, and returns how many it has got.
    pub(crate) fn io_slices<'a>(&'a self, out: &mut [IoSlice<'a>]) -> usize {
        fill(out, self.parts())
    }

    /// Drops the first `n` bytes, which the socket has taken.
    ///
    /// # Panics
    ///
    /// If there are fewer.
    pub(crate) fn advance(&mut self, mut n: usize) {
        assert!(n <= self.len(), "advanced past the end of the output");
        while let Some((position, bytes)) = self.shared.front_mut() {
            let before = (*position - self.sent) as usize;
            if n < before {
                break;
            }
            n -= before;
            self.sent += before as u64;
            self.head += before;
            if n < bytes.len() {
                bytes.advance(n);
                self.shared_len -= n;
                n = 0;
                break;
            }
            n -= bytes.len();
            self.shared_len -= bytes.len();
            self.shared.pop_front();
        }
        self.sent += n as u64;
        self.head += n;
        if self.head == self.copied.len() {
            self.copied.clear();
            self.head = 0;
        }
    }

    /// Takes out all that waits, in one piece; copied unless it is one already.
    pub(crate) fn take(&mut self) -> Bytes {
        let all = match (self.copied.is_empty(), self.shared.len()) {
            (true, 1) => self.shared.pop_front().map(|(_, bytes)| bytes),
            _ => None,
        };
        let all = all.unwrap_or_else(|| {
            let mut all = Vec::with_capacity(self.len());
            self.parts().for_each(|part| all.extend_from_slice(part));
            all.into()
        });
        self.clear();
        all
    }

    /// Drops all that waits.
    pub(crate) fn clear(&mut self) {
        self.copied.clear();
        self.head = 0;
        self.shared.clear();
        self.shared_len = 0;
    }

    /// The heap held, in bytes, payloads not included: those are shared with others.
    pub(crate) fn capacity(&self) -> usize {
        self.copied.capacity() + self.shared.capacity() * size_of::<(u64, Bytes)>()
    }
}

/// From this many bytes on, a piece of the input that is written is not copied. Below it the copy
/// costs nothing that can be measured beside the system call, and what is written after it stands
/// in one piece with it.
const SHOWN_MIN: usize = 1024;

/// What one callback wrote. One for each poller, used again for every callback.
///
/// A server that sends on what it was sent writes slices of its input. Where such a slice is large,
/// lies in the poller's read buffer and is the first thing written, it is only noted where it lies:
/// the buffer stays as it is until the callback's output was sent or kept. Whoever takes something
/// out hands that buffer in, as `input`.
#[derive(Debug, Default)]
pub(crate) struct Staged {
    /// The part of the read buffer that was written first. Empty: none.
    shown: Range<usize>,
    /// What was written after it.
    rest: Output,
}

impl Staged {
    /// The bytes written.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.shown.len() + self.rest.len()
    }

    /// Whether nothing was written.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends a copy.
    #[inline]
    pub(crate) fn push_slice(&mut self, bytes: &[u8]) {
        // Not Output's: nothing is ever sent from here, so there is nothing to move down over.
        self.rest.copied.extend_from_slice(bytes);
    }

    /// Appends a payload without copying it, unless it is small.
    #[inline]
    pub(crate) fn push_bytes(&mut self, bytes: Bytes) {
        self.rest.push_bytes(bytes);
    }

    /// Whether [`push_shown`](Staged::push_shown) may take a piece of so many bytes.
    #[inline]
    pub(crate) fn takes_shown(&self, len: usize) -> bool {
        (len >= SHOWN_MIN || !self.shown.is_empty()) && self.rest.is_empty()
    }

    /// Appends a part of the read buffer without copying it; `false` where it has to be copied.
    #[inline]
    pub(crate) fn push_shown(&mut self, range: Range<usize>) -> bool {
        if self.shown.is_empty() {
            self.shown = range;
        } else if self.shown.end == range.start {
            self.shown.end = range.end;
        } else {
            return false;
        }
        true
    }

    /// The pieces in order, none of them empty.
    pub(crate) fn parts<'a>(&'a self, input: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        let shown = &input[self.shown.clone()];
        let shown = (!shown.is_empty()).then_some(shown);
        shown.into_iter().chain(self.rest.parts())
    }

    /// As [`Output::io_slices`].
    pub(crate) fn io_slices<'a>(&'a self, input: &'a [u8], out: &mut [IoSlice<'a>]) -> usize {
        fill(out, self.parts(input))
    }

    /// All that was written, if it is in one piece, for a plain send.
    pub(crate) fn as_slice<'a>(&'a self, input: &'a [u8]) -> Option<&'a [u8]> {
        match (self.shown.is_empty(), self.rest.is_empty()) {
            (true, _) => self.rest.as_slice(),
            (false, true) => Some(&input[self.shown.clone()]),
            (false, false) => None,
        }
    }

    /// Appends all but the first `skip` bytes, which the socket has taken, to `output`; empty
    /// afterwards. Payloads move without being copied, but for the small rest of one.
    ///
    /// # Panics
    ///
    /// If there are fewer.
    pub(crate) fn move_into(&mut self, output: &mut Output, skip: usize, input: &[u8]) {
        let shown = &input[self.shown.clone()];
        let (_, kept) = shown.split_at(skip.min(shown.len()));
        output.push_slice(kept);
        self.rest.advance(skip.saturating_sub(shown.len()));
        let Output {
            copied,
            head,
            sent,
            shared,
            ..
        } = &mut self.rest;
        let mut copied = &copied[*head..];
        if !shared.is_empty() {
            for (position, bytes) in shared.drain(..) {
                let before;
                (before, copied) = copied.split_at((position - *sent) as usize);
                *sent = position;
                output.push_slice(before);
                output.push_bytes(bytes);
            }
        }
        output.push_slice(copied);
        self.clear();
    }

    /// Forgets what was written, and gives back what a large write had allocated.
    pub(crate) fn clear(&mut self) {
        self.shown = 0..0;
        let rest = &mut self.rest;
        rest.copied.clear();
        if rest.head > 0 || rest.shared_len > 0 || rest.copied.capacity() > KEEP {
            rest.clear();
            rest.copied.shrink_to(KEEP);
            rest.shared.shrink_to(MAX_PARTS);
        }
    }
}

fn fill<'a>(out: &mut [IoSlice<'a>], parts: impl Iterator<Item = &'a [u8]>) -> usize {
    let mut filled = 0;
    for (slot, part) in out.iter_mut().zip(parts) {
        *slot = IoSlice::new(part);
        filled += 1;
    }
    filled
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Slice(usize),
        Bytes(usize),
        /// A share of what waits, in 1/16.
        Advance(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        let len = prop_oneof![
            Just(0),
            1..40_usize,
            COPY_MAX - 2..COPY_MAX + 3,
            2_000..9_000_usize
        ];
        prop_oneof![
            4 => len.clone().prop_map(Step::Slice),
            3 => len.prop_map(Step::Bytes),
            4 => (0..=16_usize).prop_map(Step::Advance),
        ]
    }

    /// Parts of an input of 20,000 bytes, of which some follow one on another.
    fn range() -> impl Strategy<Value = Range<usize>> {
        let at = prop_oneof![Just(0), Just(2_000), Just(4_000), 0..10_000_usize];
        let len = prop_oneof![Just(2_000), Just(500), 1..10_000_usize];
        (at, len).prop_map(|(at, len)| at..at + len)
    }

    /// Bytes that tell where they belong: no two neighbouring pieces look alike.
    fn payload(counter: &mut u32, len: usize) -> Vec<u8> {
        (0..len)
            .map(|_| {
                *counter = counter.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (*counter >> 24) as u8
            })
            .collect()
    }

    fn check(output: &Output, model: &VecDeque<u8>) {
        assert_eq!(
            (output.len(), output.is_empty()),
            (model.len(), model.is_empty())
        );
        assert!(output.parts().all(|part| !part.is_empty()));
        assert!(output.parts().flatten().eq(model));
        assert_eq!(output.parts().count() <= 1, output.as_slice().is_some());
        assert!(output.as_slice().is_none_or(|all| all.iter().eq(model)));
        let mut out = [IoSlice::new(&[]); 3];
        let filled = output.io_slices(&mut out);
        assert_eq!(filled, output.parts().count().min(3));
        assert!(
            out.iter()
                .zip(output.parts())
                .all(|(slice, part)| **slice == *part)
        );
        assert!(output.head < output.copied.len() || (output.head, output.copied.len()) == (0, 0));
    }

    proptest! {
        #[test]
        fn output_is_a_queue_of_bytes(steps in prop::collection::vec(step(), 1..120)) {
            let (mut output, mut model, mut counter) = (Output::default(), VecDeque::new(), 1);
            for step in steps {
                match step {
                    Step::Slice(len) => {
                        let bytes = payload(&mut counter, len);
                        output.push_slice(&bytes);
                        model.extend(bytes);
                    }
                    Step::Bytes(len) => {
                        let bytes = payload(&mut counter, len);
                        model.extend(&bytes);
                        output.push_bytes(Bytes::from(bytes));
                    }
                    Step::Advance(share) => {
                        let n = model.len() * share / 16;
                        output.advance(n);
                        model.drain(..n);
                    }
                }
                check(&output, &model);
            }
        }

        #[test]
        fn staged_bytes_move_whole(
            before in prop::collection::vec(step(), 0..6),
            shown in prop::collection::vec(range(), 0..4),
            steps in prop::collection::vec(step(), 0..20),
            skip in 0..=16_usize,
        ) {
            let (mut output, mut model, mut counter) = (Output::default(), VecDeque::new(), 1);
            for step in before {
                if let Step::Slice(len) | Step::Bytes(len) = step {
                    let bytes = payload(&mut counter, len);
                    model.extend(&bytes);
                    output.push_bytes(Bytes::from(bytes));
                }
            }
            let (mut staged, mut written) = (Staged::default(), VecDeque::new());
            let input = payload(&mut counter, 20_000);
            for range in shown {
                if staged.takes_shown(range.len()) && staged.push_shown(range.clone()) {
                    written.extend(&input[range]);
                }
            }
            for step in steps {
                match step {
                    Step::Slice(len) => {
                        let bytes = payload(&mut counter, len);
                        staged.push_slice(&bytes);
                        written.extend(bytes);
                    }
                    Step::Bytes(len) => {
                        let bytes = payload(&mut counter, len);
                        written.extend(&bytes);
                        staged.push_bytes(Bytes::from(bytes));
                    }
                    _ => {}
                }
            }
            prop_assert_eq!((staged.len(), staged.is_empty()), (written.len(), written.is_empty()));
            prop_assert!(staged.parts(&input).all(|part| !part.is_empty()));
            prop_assert!(staged.parts(&input).flatten().eq(&written));
            prop_assert_eq!(staged.parts(&input).count() <= 1, staged.as_slice(&input).is_some());
            if let Some(slice) = staged.as_slice(&input) {
                prop_assert!(slice.iter().eq(&written));
            }
            let mut slices = [IoSlice::new(&[]); 64];
            let count = staged.io_slices(&input, &mut slices);
            prop_assert!(slices[..count].iter().flat_map(|slice| slice.iter()).eq(&written));
            let skip = written.len() * skip / 16;
            staged.move_into(&mut output, skip, &input);
            model.extend(written.range(skip..));
            check(&output, &model);
            prop_assert!(staged.is_empty() && staged.as_slice(&[]) == Some(&[]));
        }
    }

    #[test]
    fn a_large_payload_is_never_copied() {
        let bytes = Bytes::from(vec![7; 100_000]);
        let (mut staged, mut output) = (Staged::default(), Output::default());
        staged.push_slice(b"head");
        staged.push_bytes(bytes.clone());
        staged.move_into(&mut output, 1_004, &[]);
        assert_eq!(
            output.parts().next().unwrap_or_default().as_ptr(),
            bytes[1_000..].as_ptr()
        );
        output.advance(5);
        output.push_slice(b"tail");
        assert_eq!(
            output.parts().next().unwrap_or_default().as_ptr(),
            bytes[1_005..].as_ptr()
        );
        assert_eq!(output.copied, b"tail");
    }

    #[test]
    fn a_large_piece_of_the_input_is_not_copied() {
        let input = vec![7; 10_000];
        let (mut staged, mut output) = (Staged::default(), Output::default());
        assert!(!staged.takes_shown(SHOWN_MIN - 1));
        assert!(staged.takes_shown(SHOWN_MIN) && staged.push_shown(100..3_000));
        assert!(staged.takes_shown(1) && staged.push_shown(3_000..3_001));
        assert!(!staged.push_shown(5_000..9_000));
        let slice = staged.as_slice(&input).expect("one piece");
        assert_eq!(
            (slice.as_ptr(), slice.len()),
            (input[100..].as_ptr(), 2_901)
        );
        staged.push_slice(b"tail");
        assert!(!staged.takes_shown(9_000));
        staged.move_into(&mut output, 2_900, &input);
        assert!(output.parts().flatten().eq(b"\x07tail"));
    }

    #[test]
    fn a_long_lived_queue_stays_within_four_times_what_waits() {
        let mut output = Output::default();
        output.push_slice(&[1; 10_000]);
        for _ in 0..10_000 {
            output.push_slice(&[1; 700]);
            output.advance(700);
            assert!(output.capacity() <= 4 * 10_700, "{}", output.capacity());
        }
    }

    #[test]
    fn bytes_move_down_when_there_is_no_room_behind_them_over_a_larger_part_that_is_sent() {
        let grown = |waits: usize, sent: usize, more: usize| {
            let mut output = Output::default();
            output.copied.reserve_exact(100);
            output.push_slice(&vec![1; waits]);
            output.advance(sent);
            output.push_slice(&vec![2; more]);
            (output.head, output.copied.capacity() > 100)
        };
        assert_eq!(grown(100, 60, 1), (0, false));
        assert_eq!(grown(90, 60, 10), (60, false), "there was just room");
        let (head, is_grown) = grown(100, 50, 1);
        assert!(head == 50 && is_grown, "only half is sent");
    }

    #[test]
    fn a_payload_is_copied_below_copy_max_and_the_heap_held_is_told_without_payloads() {
        let mut output = Output::default();
        output.push_bytes(Bytes::from(vec![1; COPY_MAX - 1]));
        assert_eq!(output.copied.len(), COPY_MAX - 1);
        for _ in 0..100 {
            output.push_bytes(Bytes::from(vec![1; COPY_MAX]));
        }
        assert_eq!(
            (output.copied.len(), output.shared.len()),
            (COPY_MAX - 1, 100)
        );
        let held = COPY_MAX - 1 + 100 * size_of::<(u64, Bytes)>();
        assert!((held..2 * held).contains(&output.capacity()));
    }

    #[test]
    fn memory_is_given_back_but_for_what_a_usual_callback_needs() {
        let mut staged = Staged::default();
        let write = |staged: &mut Staged, bytes: usize, payloads: usize| {
            staged.push_slice(&vec![1; bytes]);
            for _ in 0..payloads {
                staged.push_bytes(Bytes::from_static(&[1; COPY_MAX]));
            }
            staged.clear();
            (staged.rest.copied.capacity(), staged.rest.shared.capacity())
        };
        let usual = write(&mut staged, 200_000, MAX_PARTS);
        assert!(usual.0 >= 200_000 && usual.1 >= MAX_PARTS);
        assert!(write(&mut staged, 4 * KEEP, 0).0 <= KEEP);
        let large = write(&mut staged, 4 * KEEP, 1_000);
        assert!(large.0 <= KEEP && large.1 <= MAX_PARTS);
        assert_eq!(write(&mut staged, 200_000, MAX_PARTS), large, "kept");
    }

    #[test]
    #[should_panic(expected = "advanced past the end")]
    fn advancing_past_the_end_panics() {
        Output::default().advance(1);
    }
}
