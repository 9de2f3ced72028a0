//! Lines as people type them, framed a little more kindly than [`Lines`] does, which ends a connection
//! for a line that is too long or has no end.

use greenroom::protocol::{Codec, Encoder, Frame, FrameKind, Framer, Framing, FramingError, Lines};
use greenroom::{FrameError, Input};

use super::LINE_MAX;

/// Of a line that is too long the client is shown one byte more than it may have, as soon as that is
/// known; the rest is skipped. What comes before the end of the stream is a line, too.
pub(crate) struct TypedLines {
    lines: Lines,
    is_skipping: bool,
}

impl TypedLines {
    pub(crate) fn new() -> TypedLines {
        TypedLines {
            lines: Lines::new(LINE_MAX),
            is_skipping: false,
        }
    }
}

impl Codec for TypedLines {
    fn decode<'f, 'buf: 'f>(
        &mut self,
        input: &mut Input<'buf>,
        _decoded: &'f mut Vec<u8>,
    ) -> Result<Option<Frame<'f>>, FramingError> {
        if self.is_skipping {
            self.is_skipping = input.line(usize::MAX)?.is_none();
            if self.is_skipping {
                input.take_all();
                return Ok(None);
            }
        }
        let line = match input.line(LINE_MAX) {
            Ok(None) if input.at_end() && !input.is_empty() => Some(input.take_all()),
            Ok(line) => line,
            Err(FrameError::TooLong { .. }) => {
                self.is_skipping = true;
                input.take(LINE_MAX + 1)
            }
            Err(error) => return Err(error.into()),
        };
        Ok(line.map(|line| Frame::new(FrameKind::Text, line)))
    }
}

impl Framer for TypedLines {
    fn encode(
        &self,
        kind: FrameKind,
        payload: &[u8],
        out: &mut Encoder<'_>,
    ) -> Result<(), FramingError> {
        self.lines.encode(kind, payload, out)
    }

    fn shared_as(&self) -> Option<Framing> {
        self.lines.shared_as()
    }
}
