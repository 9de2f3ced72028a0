//! Datagrams that wait to be sent.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

use crate::sys::{DatagramAddr, Outgoing, SourceAddr};

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
    from: Option<SourceAddr>,
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
    pub(crate) fn push(
        &mut self,
        to: Option<DatagramAddr>,
        from: Option<SourceAddr>,
        bytes: &[u8],
    ) {
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

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Outgoing<'_>> {
        self.entries.iter().map(|entry| Outgoing {
            to: entry.to.as_ref(),
            from: entry.from,
            bytes: &self.bytes[entry.start..entry.start + entry.len],
        })
    }

    /// Takes the first `n` out.
    pub(crate) fn remove(&mut self, n: usize) {
        for entry in self.entries.drain(..n) {
            self.live -= entry.len;
        }
        self.tidy();
    }

    /// Takes the first one out: where it was to go, and how long it was.
    pub(crate) fn pop(&mut self) -> Option<(Option<DatagramAddr>, usize)> {
        let entry = self.entries.pop_front()?;
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

/// Datagrams for receivers that take nothing more at the moment: each has a queue of its own, so that
/// they hold up nobody but themselves.
#[derive(Debug, Default)]
pub(crate) struct Refusing {
    /// None of them empty.
    receivers: BTreeMap<DatagramAddr, Outbox>,
    /// Of all of them.
    size: usize,
    /// Who was tried last.
    tried: Option<DatagramAddr>,
}

impl Refusing {
    /// As [`Outbox::size`].
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// How many datagrams.
    pub(crate) fn len(&self) -> usize {
        self.receivers.values().map(Outbox::len).sum()
    }

    /// How many receivers.
    pub(crate) fn receivers(&self) -> usize {
        self.receivers.len()
    }

    /// Whether something waits for this one, so that what is sent now has to wait behind it.
    pub(crate) fn has(&self, to: Option<&DatagramAddr>) -> bool {
        !self.receivers.is_empty() && to.is_some_and(|to| self.receivers.contains_key(to))
    }

    /// Puts `datagram` behind those that wait for its receiver; `false` where that would have more
    /// than is left of `room` to the others.
    pub(crate) fn push(&mut self, datagram: &Outgoing<'_>, room: usize) -> bool {
        let Some(to) = datagram.to else { return false };
        let own = self.receivers.get(to).map_or(0, Outbox::size);
        let more = datagram.bytes.len() + ENTRY;
        if own + more > room.saturating_sub(self.size) {
            return false;
        }
        let outbox = self.receivers.entry(to.clone()).or_default();
        outbox.push(Some(to.clone()), datagram.from, datagram.bytes);
        self.size += more;
        true
    }

    /// Takes out what waits for one receiver; the next time, for the next of them.
    pub(crate) fn take(&mut self) -> Option<(DatagramAddr, Outbox)> {
        let behind = self
            .tried
            .as_ref()
            .map_or(Bound::Unbounded, Bound::Excluded);
        let mut behind = self.receivers.range((behind, Bound::Unbounded));
        let next = behind.next().or_else(|| self.receivers.first_key_value());
        let next = next?.0.clone();
        let outbox = self.receivers.remove(&next)?;
        self.size -= outbox.size();
        self.tried = Some(next.clone());
        Some((next, outbox))
    }

    /// Puts back what it has not taken of that.
    pub(crate) fn put_back(&mut self, to: DatagramAddr, left: Outbox) {
        if !left.is_empty() {
            self.size += left.size();
            self.receivers.insert(to, left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(outbox: &Outbox) -> Vec<Vec<u8>> {
        outbox.iter().map(|next| next.bytes.to_vec()).collect()
    }

    #[test]
    fn datagrams_stay_whole_and_in_order() {
        let mut outbox = Outbox::default();
        let to = DatagramAddr::Udp(([127, 0, 0, 1], 9).into());
        for text in ["one", "", "three", "four"] {
            outbox.push(Some(to.clone()), None, text.as_bytes());
        }
        assert_eq!(outbox.size(), 12 + 4 * ENTRY);
        assert_eq!(outbox.pop(), Some((Some(to), 3)));
        assert_eq!(contents(&outbox), [&b""[..], b"three", b"four"]);
        outbox.remove(1);
        assert_eq!(contents(&outbox), [&b"three"[..], b"four"]);
        outbox.truncate(1);
        assert_eq!(contents(&outbox), [b"three"]);
        outbox.truncate(5);
        outbox.remove(1);
        assert!(outbox.is_empty() && outbox.pop().is_none());
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
            outbox.remove(1);
            assert!(outbox.bytes.len() <= 2 * outbox.live + STALE_MAX + 1000);
        }
        assert_eq!(
            contents(&outbox),
            (9900..10_000).map(datagram).collect::<Vec<_>>()
        );
        outbox.remove(100);
        assert_eq!(outbox.capacity(), 0, "a large buffer is given back");
    }
    fn unix(name: &str) -> DatagramAddr {
        DatagramAddr::Unix(name.into())
    }

    fn push(refusing: &mut Refusing, to: &str, len: usize, room: usize) -> bool {
        let (to, bytes) = (unix(to), vec![0; len]);
        let datagram = Outgoing {
            to: Some(&to),
            from: None,
            bytes: &bytes,
        };
        refusing.push(&datagram, room)
    }

    #[test]
    fn who_refuses_has_no_more_than_is_left_to_the_others() {
        let room = 8 * (ENTRY + 36);
        let mut refusing = Refusing::default();
        for (to, most) in [("/a", 4), ("/b", 2), ("/c", 1), ("/d", 1), ("/e", 0)] {
            let taken = (0..9).take_while(|_| push(&mut refusing, to, 36, room));
            assert_eq!(taken.count(), most, "{to}");
            assert_eq!(refusing.has(Some(&unix(to))), most > 0);
        }
        assert!(!push(&mut refusing, "/a", 36, room), "it has its part");
        assert_eq!((refusing.len(), refusing.receivers()), (8, 4));
        assert_eq!(refusing.size(), room);
        assert!(!refusing.has(None));
    }

    #[test]
    fn receivers_that_refuse_are_tried_in_turn() {
        let mut refusing = Refusing::default();
        for to in ["/a", "/b", "/c"] {
            assert!(push(&mut refusing, to, 1, 1 << 20));
        }
        let mut tried = Vec::new();
        for _ in 0..6 {
            let (to, mut outbox) = refusing.take().unwrap();
            if to == unix("/b") {
                outbox.remove(1);
            }
            refusing.put_back(to.clone(), outbox);
            tried.push(to.to_string());
        }
        let order = [
            "unix:/a", "unix:/b", "unix:/c", "unix:/a", "unix:/c", "unix:/a",
        ];
        assert_eq!(tried, order);
        assert_eq!(refusing.size(), 2 * (ENTRY + 1));
        while refusing.take().is_some() {}
        assert_eq!((refusing.size(), refusing.len()), (0, 0));
    }
}
