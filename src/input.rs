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
    held: usize,
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
            held: 0,
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

    /// Says that of the bytes consumed, now and in earlier calls, `n` are kept by the actor itself
    /// and are part of a frame that is not complete. They count as if they had been left here: for
    /// [`input_max`](crate::ConnectionOptions::input_max),
    /// [`incomplete_timeout`](crate::ConnectionOptions::incomplete_timeout) and
    /// [`least_input_rate`](crate::ConnectionOptions::least_input_rate).
    ///
    /// For adapters that have to take bytes out before a frame is whole: a message in fragments, a
    /// decompression. What the last call of `readable` said holds until the next, so it is said in
    /// each. To count all bytes that came of the frame, headers among them, makes its time run on;
    /// where `n` grows by less than was consumed, a new frame has begun.
    ///
    /// At the peer's half-close an actor that holds bytes is called once more, if only with an empty
    /// input.
    ///
    /// ```
    /// use greenroom::testing::Stage;
    /// use greenroom::*;
    ///
    /// /// Takes what comes, up to a full stop.
    /// struct Sentence(Vec<u8>);
    ///
    /// impl Actor for Sentence {
    ///     type Message = ();
    ///
    ///     fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
    ///         for byte in input.take_all() {
    ///             self.0.push(*byte);
    ///             if *byte == b'.' {
    ///                 ctx.write(std::mem::take(&mut self.0));
    ///             }
    ///         }
    ///         input.hold(self.0.len());
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let options = ConnectionOptions::new().input_max(20);
    /// let mut stage = Stage::with_options(Sentence(Vec::new()), options);
    /// stage.receive("This is it. And this");
    /// assert_eq!(stage.output(), "This is it.");
    /// stage.receive(" is far too long");
    /// assert!(matches!(stage.reason(), Some(CloseReason::InputTooLong { len: 25, limit: 20 })));
    /// ```
    #[inline]
    pub fn hold(&mut self, n: usize) {
        self.held = n;
    }

    /// What `hold` said last; 0 if nothing.
    #[inline]
    pub fn held(&self) -> usize {
        self.held
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
        self.line_from(max, &mut 0)
    }

    /// The same for who remembers how much of an incomplete line has been looked through, from 0 on.
    // Always: for those who remember nothing, half of it falls away.
    #[inline(always)]
    pub(crate) fn line_from(
        &mut self,
        max: usize,
        searched: &mut usize,
    ) -> Result<Option<&'buf [u8]>, FrameError> {
        let end = self.len().min(max.saturating_add(1));
        let from = (*searched).min(end);
        match position(&self.bytes[from..end], b'\n') {
            Some(at) => {
                let line = &self.bytes[..from + at];
                self.consume(line.len() + 1);
                *searched = 0;
                Ok(Some(line.strip_suffix(b"\r").unwrap_or(line)))
            }
            None if self.len() > max => Err(FrameError::TooLong { limit: max }),
            None => {
                *searched = end;
                Ok(None)
            }
        }
    }

    /// Consumes a frame and the delimiter behind it, any bytes; returns the frame without it. None
    /// while it is incomplete.
    ///
    /// Each call looks through an incomplete frame again, up to the limit.
    ///
    /// # Errors
    ///
    /// [`FrameError::TooLong`] as soon as no delimiter can stand within or right behind the first
    /// `max` bytes any more. Nothing is consumed.
    ///
    /// # Panics
    ///
    /// If the delimiter is empty.
    ///
    /// # Examples
    ///
    /// ```
    /// let mut input = greenroom::Input::new(b"one--two--thr", false);
    /// assert_eq!(input.delimited(b"--", 80)?, Some(&b"one"[..]));
    /// assert_eq!(input.delimited(b"--", 80)?, Some(&b"two"[..]));
    /// assert_eq!(input.delimited(b"--", 80)?, None);
    /// # Ok::<(), greenroom::FrameError>(())
    /// ```
    pub fn delimited(
        &mut self,
        delimiter: &[u8],
        max: usize,
    ) -> Result<Option<&'buf [u8]>, FrameError> {
        self.delimited_from(delimiter, max, &mut 0)
    }

    /// The same for who remembers how much of an incomplete frame has been looked through, from 0
    /// on.
    pub(crate) fn delimited_from(
        &mut self,
        delimiter: &[u8],
        max: usize,
        searched: &mut usize,
    ) -> Result<Option<&'buf [u8]>, FrameError> {
        let Some(&first) = delimiter.first() else {
            panic!("delimited: the delimiter is empty");
        };
        let end = self.len().min(max.saturating_add(delimiter.len()));
        let window = &self.bytes[..end];
        let mut from = (*searched).min(end);
        while let Some(at) = position(&window[from..], first) {
            let start = from + at;
            let here = &window[start..];
            if here.starts_with(delimiter) {
                self.consume(start + delimiter.len());
                *searched = 0;
                return Ok(Some(&window[..start]));
            }
            if delimiter.starts_with(here) && start <= max {
                // The rest of the delimiter may be still to come.
                *searched = start;
                return Ok(None);
            }
            from = start + 1;
        }
        if self.len() > max {
            return Err(FrameError::TooLong { limit: max });
        }
        *searched = end;
        Ok(None)
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
        let too_long = FrameError::TooLong { limit: max };
        let (size, n) = match prefix.read(self.bytes, max)? {
            Ok(header) => header,
            Err(size) => {
                self.need(size);
                return Ok(None);
            }
        };
        let n = usize::try_from(n).map_err(|_| too_long)?;
        if n > max {
            return Err(too_long);
        }
        let Some(frame) = self.bytes[size..].get(..n) else {
            self.need(n.saturating_add(size));
            return Ok(None);
        };
        self.consume(size + n);
        Ok(Some(frame))
    }
}

/// Where `byte` is first.
#[inline]
pub(crate) fn position(mut bytes: &[u8], byte: u8) -> Option<usize> {
    let all = bytes;
    // std's only way to libc's memchr: six times as fast on long lines as a search with `position`.
    // A slice gives no read error.
    let found = bytes.skip_until(byte).unwrap_or(0).checked_sub(1)?;
    (all[found] == byte).then_some(found)
}

/// Shows lengths only: the bytes may be secret, and many.
impl fmt::Debug for Input<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Input")
            .field("len", &self.len())
            .field("consumed", &self.consumed)
            .field("needed", &self.needed)
            .field("held", &self.held)
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
    /// One to ten bytes of seven bits each, the lowest first, the highest bit of a byte saying that
    /// another follows (LEB128): as protobuf delimits messages.
    Varint,
}

impl Prefix {
    /// The bytes that the length takes; of a [`Varint`](Prefix::Varint) the most that it may.
    pub const fn size(self) -> usize {
        match self {
            Self::U8 => 1,
            Self::U16Be | Self::U16Le => 2,
            Self::U32Be | Self::U32Le => 4,
            Self::U64Be | Self::U64Le => 8,
            Self::Varint => 10,
        }
    }

    /// The longest frame that this can tell of.
    pub const fn max(self) -> u64 {
        match self {
            Self::Varint => u64::MAX,
            _ => u64::MAX >> (64 - 8 * self.size()),
        }
    }

    /// Writes the length `n` as it stands before a frame: the bytes, and how many of them.
    ///
    /// `None` where it does not fit.
    pub fn write(self, n: u64) -> Option<([u8; 10], usize)> {
        if n > self.max() {
            return None;
        }
        let mut header = [0; 10];
        let mut size = self.size();
        match self {
            Self::U8 | Self::U16Be | Self::U32Be | Self::U64Be => {
                header[..size].copy_from_slice(&n.to_be_bytes()[8 - size..]);
            }
            Self::U16Le | Self::U32Le | Self::U64Le => {
                header[..size].copy_from_slice(&n.to_le_bytes()[..size]);
            }
            Self::Varint => {
                size = 0;
                let mut rest = n;
                loop {
                    let more = rest >= 0x80;
                    header[size] = (rest as u8 & 0x7f) | u8::from(more) << 7;
                    rest >>= 7;
                    size += 1;
                    if !more {
                        break;
                    }
                }
            }
        }
        Some((header, size))
    }

    /// Reads the length at the front of `bytes`: how many bytes it took, and it; or how many bytes
    /// are needed.
    fn read(self, bytes: &[u8], max: usize) -> Result<Result<(usize, u64), usize>, FrameError> {
        if self == Self::Varint {
            return read_varint(bytes, max);
        }
        let size = self.size();
        Ok(match bytes.get(..size) {
            Some(mut header) => Ok((
                size,
                match self {
                    Self::U16Le | Self::U32Le | Self::U64Le => header.get_uint_le(size),
                    _ => header.get_uint(size),
                },
            )),
            None => Err(size),
        })
    }
}

/// What is longer than `max` is told before the rest of the length has come.
fn read_varint(bytes: &[u8], max: usize) -> Result<Result<(usize, u64), usize>, FrameError> {
    let mut value = 0;
    for (place, byte) in bytes.iter().take(10).enumerate() {
        let bits = u64::from(byte & 0x7f);
        if place == 9 && *byte > 1 {
            return Err(FrameError::BadLength);
        }
        value |= bits << (7 * place);
        if value > max as u64 {
            return Err(FrameError::TooLong { limit: max });
        }
        if byte & 0x80 == 0 {
            return Ok(Ok((place + 1, value)));
        }
    }
    Ok(Err(bytes.len() + 1))
}

/// Why bytes that have arrived cannot be framed, or a frame not be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FrameError {
    /// A line or frame is longer than the limit that it was read with.
    #[non_exhaustive]
    TooLong {
        /// That limit, in bytes.
        limit: usize,
    },
    /// The length before a frame is none: a varint of more than 64 bits.
    BadLength,
    /// The input ended within a frame.
    #[non_exhaustive]
    Incomplete {
        /// How many bytes of it had come.
        len: usize,
    },
    /// A frame that was to be written holds what ends one: its delimiter, or, as a line, a line
    /// break.
    HoldsDelimiter,
    /// A frame that was to be written has another size than all frames have.
    #[non_exhaustive]
    WrongSize {
        /// Its size, in bytes.
        len: usize,
        /// What all have.
        size: usize,
    },
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { limit } => {
                write!(f, "line or frame longer than its limit of {limit} bytes")
            }
            Self::BadLength => f.write_str("the length of a frame takes more than 64 bits"),
            Self::Incomplete { len } => {
                write!(
                    f,
                    "the input ended within a frame of which {len} bytes had come"
                )
            }
            Self::HoldsDelimiter => {
                f.write_str("a frame to be written holds the delimiter that would end it")
            }
            Self::WrongSize { len, size } => {
                write!(
                    f,
                    "a frame to be written has {len} bytes where all have {size}"
                )
            }
        }
    }
}

impl Error for FrameError {}

#[cfg(test)]
mod tests;
