//! The bytes that have arrived at an actor, and the framing of them.

use std::error::Error;
use std::fmt;
use std::io::BufRead;

use bytes::Buf;

/// The bytes that have arrived and were not consumed before.
///
/// What a callback does not consume is kept, and shown again with the next bytes, on `resume`, and
/// at the peer's half-close. Slices live as long as the buffer, not as the borrow of the `Input`:
/// several can be held at once, and be written while reading goes on.
///
/// No method blocks or allocates. Those that frame consume a whole frame or nothing, and each takes
/// the limit past which a frame is an error, so that a peer cannot make the server keep more.
///
/// # Examples
///
/// ```
/// use greenroom::Input;
///
/// let mut input = Input::new(b"GET key\r\nGET ot", false);
/// let request = input.line(1024)?.expect("the first line is complete");
/// assert_eq!(request, b"GET key");
/// assert_eq!(input.line(1024)?, None);
/// // The slice is still good, and the incomplete line is there to be kept.
/// assert_eq!((request.len(), input.bytes()), (7, &b"GET ot"[..]));
/// # Ok::<(), greenroom::FrameError>(())
/// ```
pub struct Input<'buf> {
    /// What is not consumed.
    bytes: &'buf [u8],
    consumed: usize,
    needed: usize,
    at_end: bool,
}

impl<'buf> Input<'buf> {
    /// Makes an input of `bytes`; `at_end` tells that nothing will follow them.
    ///
    /// For adapters, which hand the actor that they wrap an input of decoded bytes, and for tests.
    #[inline]
    pub fn new(bytes: &'buf [u8], at_end: bool) -> Self {
        Self {
            bytes,
            consumed: 0,
            needed: 0,
            at_end,
        }
    }

    /// The bytes not consumed yet.
    #[inline]
    pub fn bytes(&self) -> &'buf [u8] {
        self.bytes
    }

    /// The number of bytes not consumed yet.
    #[inline]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether all is consumed.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The number of bytes consumed since this input was made.
    #[inline]
    pub fn consumed(&self) -> usize {
        self.consumed
    }

    /// Whether the peer has half-closed: nothing follows the bytes that are here.
    pub fn at_end(&self) -> bool {
        self.at_end
    }

    /// Consumes `n` bytes, or nothing if fewer are there.
    ///
    /// Called through the `&mut Input` of a callback this is meant also where [`Buf`] is in scope;
    /// on an owned `Input` the compiler would prefer [`Buf::take`].
    #[inline]
    pub fn take(&mut self, n: usize) -> Option<&'buf [u8]> {
        let (taken, rest) = self.bytes.split_at_checked(n)?;
        self.bytes = rest;
        self.consumed += n;
        if n > 0 {
            self.needed = 0;
        }
        Some(taken)
    }

    /// Consumes all bytes.
    #[inline]
    pub fn take_all(&mut self) -> &'buf [u8] {
        let all = self.bytes;
        self.consume(all.len());
        all
    }

    /// Consumes `n` bytes.
    ///
    /// # Panics
    ///
    /// If fewer are there.
    #[inline]
    pub fn consume(&mut self, n: usize) {
        let len = self.len();
        assert!(
            self.take(n).is_some(),
            "consumed {n} bytes of an input of {len}"
        );
    }

    /// Puts the next call off until `n` bytes are there, so that the beginning of a large frame is
    /// not looked at again with each packet.
    ///
    /// `n` counts from the first byte that is not consumed when the callback returns. To consume
    /// bytes after this call takes it back, since `n` would mean another byte then. With no more
    /// than is already here, the next call comes with the next byte, as without this. The peer's
    /// half-close is told in any case. An `n` beyond what the server keeps for a connection can
    /// never be met: keep the limits of frames below that.
    #[inline]
    pub fn need(&mut self, n: usize) {
        self.needed = n;
    }

    /// What `need` asked for last; 0 if nothing, or if bytes were consumed since.
    #[inline]
    pub fn needed(&self) -> usize {
        self.needed
    }

    /// Consumes a line: returns the bytes before its `\n`, without a `\r` at their end. None while
    /// it is incomplete; at the end of input, what no `\n` follows is left in
    /// [`bytes`](Self::bytes).
    ///
    /// Each call looks through an incomplete line again, up to the limit.
    ///
    /// # Errors
    ///
    /// [`FrameError::TooLong`] as soon as there are more than `max` bytes before the `\n`, the `\r`
    /// included. Nothing is consumed.
    #[inline]
    pub fn line(&mut self, max: usize) -> Result<Option<&'buf [u8]>, FrameError> {
        let mut searched = &self.bytes[..self.len().min(max.saturating_add(1))];
        // std's only way to libc's memchr: six times as fast on long lines as a search with
        // `position`. A slice gives no read error.
        let found = searched.skip_until(b'\n').unwrap_or(0);
        match self.bytes[..found].strip_suffix(b"\n") {
            Some(line) => {
                self.consume(found);
                Ok(Some(line.strip_suffix(b"\r").unwrap_or(line)))
            }
            None if self.len() > max => Err(FrameError::TooLong { limit: max }),
            None => Ok(None),
        }
    }

    /// Consumes a frame of `n` bytes. If it is incomplete, consumes nothing and calls
    /// [`need`](Self::need).
    ///
    /// # Errors
    ///
    /// [`FrameError::TooLong`] if `n` is more than `max`, before waiting for a byte of it.
    #[inline]
    pub fn frame(&mut self, n: usize, max: usize) -> Result<Option<&'buf [u8]>, FrameError> {
        if n > max {
            return Err(FrameError::TooLong { limit: max });
        }
        let frame = self.take(n);
        if frame.is_none() {
            self.need(n);
        }
        Ok(frame)
    }

    /// Consumes a frame and the length before it: returns the frame without the length, which does
    /// not count itself. If it is incomplete, consumes nothing and calls [`need`](Self::need).
    ///
    /// # Errors
    ///
    /// [`FrameError::TooLong`] if the length is more than `max`, before waiting for a byte of the
    /// frame. Nothing is consumed.
    ///
    /// # Examples
    ///
    /// ```
    /// use greenroom::{Input, Prefix};
    ///
    /// let mut input = Input::new(b"\0\x05hello\0\x09wo", false);
    /// assert_eq!(input.length_prefixed(Prefix::U16Be, 4096)?, Some(&b"hello"[..]));
    /// assert_eq!(input.length_prefixed(Prefix::U16Be, 4096)?, None);
    /// assert_eq!(input.needed(), 2 + 9);
    /// # Ok::<(), greenroom::FrameError>(())
    /// ```
    pub fn length_prefixed(
        &mut self,
        prefix: Prefix,
        max: usize,
    ) -> Result<Option<&'buf [u8]>, FrameError> {
        let Some((header, rest)) = self.bytes.split_at_checked(prefix.size()) else {
            self.need(prefix.size());
            return Ok(None);
        };
        let too_long = FrameError::TooLong { limit: max };
        let n = usize::try_from(prefix.decode(header)).map_err(|_| too_long)?;
        if n > max {
            return Err(too_long);
        }
        let Some(frame) = rest.get(..n) else {
            self.need(n.saturating_add(prefix.size()));
            return Ok(None);
        };
        self.consume(prefix.size() + n);
        Ok(Some(frame))
    }
}

/// Shows lengths only: the bytes may be secret, and many.
impl fmt::Debug for Input<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Input")
            .field("len", &self.len())
            .field("consumed", &self.consumed)
            .field("needed", &self.needed)
            .field("at_end", &self.at_end)
            .finish()
    }
}

/// Reading through `Buf` consumes; its getters panic past the end, where the methods above return
/// None.
impl Buf for Input<'_> {
    fn remaining(&self) -> usize {
        self.len()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes
    }

    fn advance(&mut self, n: usize) {
        self.consume(n);
    }
}

/// How the length before a frame is written: its size in bits, and its byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prefix {
    /// One byte.
    U8,
    /// Two bytes, big-endian.
    U16Be,
    /// Two bytes, little-endian.
    U16Le,
    /// Four bytes, big-endian.
    U32Be,
    /// Four bytes, little-endian.
    U32Le,
    /// Eight bytes, big-endian.
    U64Be,
    /// Eight bytes, little-endian.
    U64Le,
}

impl Prefix {
    /// The bytes that the length takes.
    pub const fn size(self) -> usize {
        match self {
            Self::U8 => 1,
            Self::U16Be | Self::U16Le => 2,
            Self::U32Be | Self::U32Le => 4,
            Self::U64Be | Self::U64Le => 8,
        }
    }

    fn decode(self, mut header: &[u8]) -> u64 {
        match self {
            Self::U8 | Self::U16Be | Self::U32Be | Self::U64Be => header.get_uint(self.size()),
            Self::U16Le | Self::U32Le | Self::U64Le => header.get_uint_le(self.size()),
        }
    }
}

/// Why the bytes that have arrived cannot be framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FrameError {
    /// A line or frame is longer than the limit that it was read with.
    #[non_exhaustive]
    TooLong {
        /// That limit, in bytes.
        limit: usize,
    },
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { limit } => {
                write!(f, "line or frame longer than its limit of {limit} bytes")
            }
        }
    }
}

impl Error for FrameError {}

#[cfg(test)]
mod tests;
