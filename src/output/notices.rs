//! Who is to be told when the bytes up to some place have been taken.

use std::collections::VecDeque;

use crate::output::Change;

/// What one notice takes, and so counts as against the budget of its connection.
pub(crate) const NOTICE_BYTES: usize = size_of::<(u64, u64)>();

/// The notices of one connection, in the order in which they were asked for.
///
/// Places are counted in bytes of the connection's queue from the making of this on; what goes to
/// the socket past an empty queue is not counted, for nothing can be waiting behind it.
#[derive(Debug, Default)]
pub(crate) struct Notices {
    /// Bytes of the queue that were taken.
    taken: u64,
    /// Each with the place at which it is due. Invariant: places do not fall.
    waiting: VecDeque<(u64, u64)>,
}

impl Notices {
    /// Adds one that is due when `ahead` more bytes have been taken, and all before it are told.
    pub(crate) fn add(&mut self, ahead: usize, token: u64) {
        let last = self.waiting.back().map_or(0, |(place, _)| *place);
        let place = self.taken.saturating_add(ahead as u64).max(last);
        self.waiting.push_back((place, token));
    }

    /// The socket has taken `n` bytes; whether a notice is due.
    pub(crate) fn advance(&mut self, n: usize) -> bool {
        self.taken += n as u64;
        self.is_due()
    }

    /// What waits has changed in the midst, see [`Change`]: places behind it move along, those
    /// within it to its end.
    pub(crate) fn shift(&mut self, change: Change) {
        let Change { behind, was, is } = change;
        let begin = self.taken + behind as u64;
        if is == 0 {
            // Whatever is dropped stands near the front, so rather than all behind it those before
            // it are moved: as if it had been taken.
            self.taken += was as u64;
            let end = begin + was as u64;
            let before = |(place, _): &&mut (u64, u64)| *place < end;
            for (place, _) in self.waiting.iter_mut().take_while(before) {
                *place = begin.min(*place) + was as u64;
            }
            return;
        }
        let end = begin + was as u64;
        for (place, _) in self.waiting.iter_mut().rev() {
            if *place <= begin {
                break;
            }
            *place = if *place >= end {
                *place - was as u64 + is as u64
            } else {
                begin + is as u64
            };
        }
    }

    /// Whether a notice is due.
    pub(crate) fn is_due(&self) -> bool {
        let first = self.waiting.front();
        first.is_some_and(|(place, _)| *place <= self.taken)
    }

    /// Takes out the first, if it is due.
    pub(crate) fn pop_due(&mut self) -> Option<u64> {
        if !self.is_due() {
            return None;
        }
        self.waiting.pop_front().map(|(_, token)| token)
    }

    /// How many are not told yet.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether all are told.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against a queue of bytes and notices as they stand one behind the other.
        #[test]
        fn notices_are_due_when_what_stands_before_them_has_gone(
            steps in prop::collection::vec((0..3_u8, 0..50_usize), 1..80),
        ) {
            let (mut notices, mut token) = (Notices::default(), 0);
            let mut model: VecDeque<Option<u64>> = VecDeque::new();
            let mut told = Vec::new();
            for (kind, n) in steps {
                let bytes = |model: &VecDeque<Option<u64>>| model.iter().filter(|at| at.is_none()).count();
                match kind {
                    0 => model.extend(vec![None; n]),
                    1 => {
                        notices.add(bytes(&model), token);
                        model.push_back(Some(token));
                        token += 1;
                    }
                    _ => {
                        let n = n.min(bytes(&model));
                        let is_due = notices.advance(n);
                        let (mut left, mut due) = (n, Vec::new());
                        while let Some(first) = model.front() {
                            match first {
                                None if left == 0 => break,
                                None => left -= 1,
                                Some(token) => due.push(*token),
                            }
                            model.pop_front();
                        }
                        prop_assert_eq!(is_due, !due.is_empty());
                        let popped: Vec<u64> = std::iter::from_fn(|| notices.pop_due()).collect();
                        prop_assert_eq!(&popped, &due);
                        told.extend(popped);
                    }
                }
                let waiting = model.iter().flatten().count();
                prop_assert_eq!((notices.len(), notices.is_empty()), (waiting, waiting == 0));
            }
            prop_assert!(told.iter().copied().eq(0..told.len() as u64));
        }
    }

    #[test]
    fn what_is_dropped_or_replaced_makes_no_notice_early() {
        let noted = || {
            let mut notices = Notices::default();
            notices.advance(1000);
            for (ahead, token) in [(0, 0), (100, 1), (150, 2), (170, 3), (200, 4)] {
                notices.add(ahead, token);
            }
            notices
        };
        let due_at = |mut notices: Notices| {
            let mut due = Vec::new();
            for taken in 0..400 {
                while notices.pop_due().is_some() {
                    due.push(taken);
                }
                notices.advance(1);
            }
            due
        };
        assert_eq!(due_at(noted()), [0, 100, 150, 170, 200]);
        let shifted = |was, is| {
            let mut notices = noted();
            let behind = 100;
            notices.shift(Change { behind, was, is });
            due_at(notices)
        };
        assert_eq!(shifted(50, 0), [0, 100, 100, 120, 150]);
        assert_eq!(shifted(50, 10), [0, 100, 110, 130, 160]);
        assert_eq!(shifted(50, 150), [0, 100, 250, 270, 300]);
    }

    #[test]
    fn places_do_not_fall() {
        let mut notices = Notices::default();
        notices.add(10, 1);
        notices.add(5, 2);
        assert!(!notices.advance(5) && notices.advance(5));
        assert_eq!(notices.pop_due(), Some(1));
        assert_eq!(notices.pop_due(), Some(2));
        assert!(notices.pop_due().is_none() && notices.is_empty());
    }
}
