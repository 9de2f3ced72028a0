//! Datagrams that wait to be sent.

use std::collections::VecDeque;
use std::net::IpAddr;

use crate::sys::{DatagramAddr, Outgoing};

/// What a datagram counts besides its bytes: its entry here. So also those without any bytes are
/// bounded.
pub(crate) const ENTRY: usize = 64;

/// How much of a buffer an outbox that is empty keeps for the next datagrams: some dozens of small
/// answers.
const SPARE_MAX: usize = 8 << 10;

/// How many bytes that have left may lie in front of those that wait.
const STALE_MAX: usize = 64 << 10;

/// Datagrams in the order in which they were written, each whole.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    entries: VecDeque<Entry>,
    /// Their bytes, and those of some that have left.
    bytes: Vec<u8>,
    /// How many of the bytes belong to entries.
    live: usize,
}

#[derive(Debug)]
struct Entry {
    /// `None` for where the socket is connected to.
    to: Option<DatagramAddr>,
    from: Option<IpAddr>,
    start: usize,
    len: usize,
}

impl Outbox {
    /// How much waits: bytes, and [`ENTRY`] for each datagram.
    #[inline]
    pub(crate) fn size(&self) -> usize {
        self.live + self.entries.len() * ENTRY
    }

    /// How many datagrams.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many bytes of memory it holds.
    pub(crate) fn capacity(&self) -> usize {
        self.bytes.capacity() + self.entries.capacity() * size_of::<Entry>()
    }

    /// Adds one at the end.
    pub(crate) fn push(&mut self, to: Option<DatagramAddr>, from: Option<IpAddr>, bytes: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        self.live += bytes.len();
        let len = bytes.len();
        self.entries.push_back(Entry {
            to,
            from,
            start,
            len,
        });
    }

    /// Those from the place `at` on.
    pub(crate) fn iter_from(&self, at: usize) -> impl Iterator<Item = Outgoing<'_>> {
        self.entries.iter().skip(at).map(|entry| Outgoing {
            to: entry.to.as_ref(),
            from: entry.from,
            bytes: &self.bytes[entry.start..entry.start + entry.len],
        })
    }

    /// Takes `n` out from the place `at` on.
    pub(crate) fn remove_at(&mut self, at: usize, n: usize) {
        for entry in self.entries.drain(at..at + n) {
            self.live -= entry.len;
        }
        self.tidy();
    }

    /// Takes one out: where it was to go, and how long it was.
    pub(crate) fn remove(&mut self, at: usize) -> Option<(Option<DatagramAddr>, usize)> {
        let entry = self.entries.remove(at)?;
        self.live -= entry.len;
        self.tidy();
        Some((entry.to, entry.len))
    }

    /// Takes all out from the place `at` on.
    pub(crate) fn truncate(&mut self, at: usize) {
        for entry in self.entries.drain(at.min(self.entries.len())..) {
            self.live -= entry.len;
        }
        self.tidy();
    }

    /// Gives the room of what has left back: it is never more than what waits, but for a little.
    fn tidy(&mut self) {
        if self.entries.is_empty() {
            self.bytes.clear();
            if self.capacity() > SPARE_MAX {
                *self = Outbox::default();
            }
        } else if self.bytes.len() > 2 * self.live + STALE_MAX {
            let mut bytes = Vec::with_capacity(self.live);
            for entry in &mut self.entries {
                let start = bytes.len();
                bytes.extend_from_slice(&self.bytes[entry.start..entry.start + entry.len]);
                entry.start = start;
            }
            self.bytes = bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(outbox: &Outbox) -> Vec<Vec<u8>> {
        outbox
            .iter_from(0)
            .map(|next| next.bytes.to_vec())
            .collect()
    }

    #[test]
    fn datagrams_stay_whole_and_in_order() {
        let mut outbox = Outbox::default();
        let to = DatagramAddr::Udp(([127, 0, 0, 1], 9).into());
        for text in ["one", "", "three", "four"] {
            outbox.push(Some(to.clone()), None, text.as_bytes());
        }
        assert_eq!(outbox.size(), 12 + 4 * ENTRY);
        assert_eq!(outbox.remove(2), Some((Some(to), 5)));
        assert_eq!(contents(&outbox), [&b"one"[..], b"", b"four"]);
        outbox.remove_at(0, 1);
        assert_eq!(contents(&outbox), [&b""[..], b"four"]);
        assert_eq!(outbox.iter_from(1).count(), 1);
        outbox.truncate(1);
        assert_eq!(contents(&outbox), [b""]);
        outbox.truncate(5);
        outbox.remove_at(0, 1);
        assert!(outbox.is_empty() && outbox.remove(0).is_none());
        assert_eq!((outbox.size(), outbox.bytes.len()), (0, 0));
    }

    #[test]
    fn what_has_left_is_not_kept() {
        let mut outbox = Outbox::default();
        let datagram = |n: usize| vec![n as u8; 1000];
        for n in 0..100 {
            outbox.push(None, None, &datagram(n));
        }
        // One comes as one leaves: never empty, and never more than it was by much.
        for n in 100..10_000 {
            outbox.push(None, None, &datagram(n));
            outbox.remove_at(0, 1);
            assert!(outbox.bytes.len() <= 2 * outbox.live + STALE_MAX + 1000);
        }
        assert_eq!(
            contents(&outbox),
            (9900..10_000).map(datagram).collect::<Vec<_>>()
        );
        outbox.remove_at(0, 100);
        assert_eq!(outbox.capacity(), 0, "a large buffer is given back");
    }
}
