//! The codecs that are there.

use crate::frames::{Encoder, Frame, FrameKind, Framer, Framing, FramingError};
use crate::input::{FrameError, Input, Prefix, position};
use crate::protocol::Codec;

/// Text in lines, each with `\n` behind it; a `\r` in front of that is taken off. Frames are
/// [text](FrameKind::Text); that they are UTF-8 is for [`Frame::text`] to look at.
///
/// A frame with a line break in it, or with a `\r` at its end, is not written, but an error: its
/// reader would take it for something else.
#[derive(Clone, Debug)]
pub struct Lines {
    max: usize,
    crlf: bool,
    /// How much of an incomplete line has been looked through.
    searched: usize,
}

impl Lines {
    /// Lines of up to `max` bytes, a `\r` at their end included, the `\n` not. Written with `\n`.
    pub fn new(max: usize) -> Lines {
        Lines {
            max,
            crlf: false,
            searched: 0,
        }
    }

    /// Writes `\r\n` behind each line. (Both are read in any case.)
    pub fn crlf(mut self) -> Lines {
        self.crlf = true;
        self
    }
}

impl Codec for Lines {
    #[inline]
    fn decode<'f, 'buf: 'f>(
        &mut self,
        input: &mut Input<'buf>,
        _decoded: &'f mut Vec<u8>,
    ) -> Result<Option<Frame<'f>>, FramingError> {
        let line = input.line_from(self.max, &mut self.searched)?;
        Ok(line.map(|line| Frame::new(FrameKind::Text, line)))
    }
}

impl Framer for Lines {
    #[inline]
    fn encode(
        &self,
        _kind: FrameKind,
        payload: &[u8],
        out: &mut Encoder<'_>,
    ) -> Result<(), FramingError> {
        let would_lose = !self.crlf && payload.ends_with(b"\r");
        if would_lose || position(payload, b'\n').is_some() {
            return Err(FrameError::HoldsDelimiter.into());
        }
        out.put_payload();
        out.put(if self.crlf { b"\r\n" } else { b"\n" });
        Ok(())
    }

    fn shared_as(&self) -> Option<Framing> {
        Some(Framing::of::<Lines>(self.crlf.into()))
    }
}

/// Binary frames, each behind its length.
///
/// ```
/// use greenroom::protocol::{LengthPrefixed, Prefix};
///
/// // As protobuf delimits messages, of up to 64 KiB.
/// let codec = LengthPrefixed::new(Prefix::Varint, 64 << 10);
/// ```
#[derive(Clone, Debug)]
pub struct LengthPrefixed {
    prefix: Prefix,
    max: usize,
}

impl LengthPrefixed {
    /// Frames of up to `max` bytes, their length not among them and not counting itself.
    pub fn new(prefix: Prefix, max: usize) -> LengthPrefixed {
        LengthPrefixed { prefix, max }
    }
}

impl Codec for LengthPrefixed {
    #[inline]
    fn decode<'f, 'buf: 'f>(
        &mut self,
        input: &mut Input<'buf>,
        _decoded: &'f mut Vec<u8>,
    ) -> Result<Option<Frame<'f>>, FramingError> {
        let frame = input.length_prefixed(self.prefix, self.max)?;
        Ok(frame.map(|frame| Frame::new(FrameKind::Binary, frame)))
    }
}

impl Framer for LengthPrefixed {
    #[inline]
    fn encode(
        &self,
        _kind: FrameKind,
        payload: &[u8],
        out: &mut Encoder<'_>,
    ) -> Result<(), FramingError> {
        let Some((header, size)) = self.prefix.write(payload.len() as u64) else {
            let limit = usize::try_from(self.prefix.max()).unwrap_or(usize::MAX);
            return Err(FrameError::TooLong { limit }.into());
        };
        out.put(&header[..size]);
        out.put_payload();
        Ok(())
    }

    fn shared_as(&self) -> Option<Framing> {
        Some(Framing::of::<LengthPrefixed>(self.prefix as u64))
    }
}

/// Binary frames, each with the same bytes behind it, which none holds.
///
/// A frame that holds the delimiter is not written, but an error.
#[derive(Clone, Debug)]
pub struct Delimited {
    delimiter: Box<[u8]>,
    max: usize,
    /// How much of an incomplete frame has been looked through.
    searched: usize,
}

impl Delimited {
    /// Frames of up to `max` bytes, the delimiter behind them not counted.
    ///
    /// # Panics
    ///
    /// If the delimiter is empty.
    pub fn new(delimiter: impl Into<Vec<u8>>, max: usize) -> Delimited {
        let delimiter = delimiter.into().into_boxed_slice();
        assert!(!delimiter.is_empty(), "Delimited: the delimiter is empty");
        Delimited {
            delimiter,
            max,
            searched: 0,
        }
    }
}

impl Codec for Delimited {
    fn decode<'f, 'buf: 'f>(
        &mut self,
        input: &mut Input<'buf>,
        _decoded: &'f mut Vec<u8>,
    ) -> Result<Option<Frame<'f>>, FramingError> {
        let frame = input.delimited_from(&self.delimiter, self.max, &mut self.searched)?;
        Ok(frame.map(|frame| Frame::new(FrameKind::Binary, frame)))
    }
}

impl Framer for Delimited {
    fn encode(
        &self,
        _kind: FrameKind,
        payload: &[u8],
        out: &mut Encoder<'_>,
    ) -> Result<(), FramingError> {
        if ends_early(payload, &self.delimiter) {
            return Err(FrameError::HoldsDelimiter.into());
        }
        out.put_payload();
        out.put(&self.delimiter);
        Ok(())
    }

    fn shared_as(&self) -> Option<Framing> {
        // The name has to tell all delimiters apart that it is given to.
        if self.delimiter.len() > 7 {
            return None;
        }
        let name = self
            .delimiter
            .iter()
            .fold(1, |name: u64, byte| name << 8 | u64::from(*byte));
        Some(Framing::of::<Delimited>(name))
    }
}

/// Whether a reader would find the delimiter before the payload's end: within it, or beginning in it
/// and ending in the delimiter that stands behind.
fn ends_early(payload: &[u8], delimiter: &[u8]) -> bool {
    let mut from = 0;
    while let Some(at) = position(&payload[from..], delimiter[0]) {
        let here = &payload[from + at..];
        let is_one = match delimiter.strip_prefix(here) {
            Some(rest) => delimiter.starts_with(rest),
            None => here.starts_with(delimiter),
        };
        if is_one {
            return true;
        }
        from += at + 1;
    }
    false
}

/// Binary frames that all have the same size.
#[derive(Clone, Debug)]
pub struct Fixed {
    size: usize,
}

impl Fixed {
    /// Frames of `size` bytes.
    ///
    /// # Panics
    ///
    /// If that is 0.
    pub fn new(size: usize) -> Fixed {
        assert!(size > 0, "Fixed: frames of no bytes cannot be told apart");
        Fixed { size }
    }
}

impl Codec for Fixed {
    fn decode<'f, 'buf: 'f>(
        &mut self,
        input: &mut Input<'buf>,
        _decoded: &'f mut Vec<u8>,
    ) -> Result<Option<Frame<'f>>, FramingError> {
        let frame = input.frame(self.size, self.size)?;
        Ok(frame.map(|frame| Frame::new(FrameKind::Binary, frame)))
    }
}

impl Framer for Fixed {
    fn encode(
        &self,
        _kind: FrameKind,
        payload: &[u8],
        out: &mut Encoder<'_>,
    ) -> Result<(), FramingError> {
        let (len, size) = (payload.len(), self.size);
        if len != size {
            return Err(FrameError::WrongSize { len, size }.into());
        }
        out.put_payload();
        Ok(())
    }

    fn shared_as(&self) -> Option<Framing> {
        Some(Framing::of::<Fixed>(self.size as u64))
    }
}
