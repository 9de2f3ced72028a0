//! From the bytes that arrive to whole messages. No socket, no time, no actor.

use crate::input::Input;
use crate::websocket::error::Error;
use crate::websocket::frame::{CloseCode, Header, Opcode, append_masked, parse_close};

/// Which end of the connection this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Server,
    Client,
}

/// What the other end sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event<'a> {
    /// A message in UTF-8.
    Text(&'a str),
    Binary(&'a [u8]),
    Ping(&'a [u8]),
    Pong(&'a [u8]),
    Close(Option<CloseCode>, &'a str),
}

/// Bytes that one frame, and one message, may have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) frame: usize,
    pub(super) message: usize,
}

/// Puts messages together. Between messages it owns nothing.
#[derive(Debug, Default)]
pub(super) struct Receiver {
    partial: Option<Box<Partial>>,
}

/// A message of which not all has come.
#[derive(Debug)]
struct Partial {
    is_text: bool,
    payload: Vec<u8>,
    /// The bytes of a text that are known to be UTF-8. What follows them is the beginning of one
    /// character.
    valid: usize,
    /// The frame of which not all has come.
    frame: Option<Body>,
}

#[derive(Debug)]
struct Body {
    /// Bytes still to come; not 0.
    left: u64,
    /// The mask of the next byte, and so on.
    mask: Option<[u8; 4]>,
    fin: bool,
}

impl Receiver {
    /// The bytes that are kept here: at least one from the beginning of a message to its end.
    pub(super) fn held(&self) -> usize {
        self.partial
            .as_ref()
            .map_or(0, |partial| partial.payload.len().max(1))
    }

    /// The next of what came, or `None` when all that is there is used up: then the input is told
    /// how much makes the next step possible, if not any byte does. `scratch` is where an unmasked
    /// payload may lie.
    pub(super) fn next<'a, 'buf: 'a>(
        &mut self,
        input: &mut Input<'buf>,
        scratch: &'a mut Vec<u8>,
        role: Role,
        limits: Limits,
    ) -> Result<Option<Event<'a>>, Error> {
        loop {
            if let Some(partial) = &mut self.partial
                && let Some(body) = &mut partial.frame
            {
                if input.is_empty() {
                    return Ok(None);
                }
                let n = usize::try_from(body.left).unwrap_or(usize::MAX);
                let bytes = &input.bytes()[..n.min(input.len())];
                input.consume(bytes.len());
                match &mut body.mask {
                    Some(mask) => *mask = append_masked(&mut partial.payload, bytes, *mask),
                    None => partial.payload.extend_from_slice(bytes),
                }
                body.left -= bytes.len() as u64;
                let (is_whole, fin) = (body.left == 0, body.fin);
                partial.check()?;
                if !is_whole {
                    return Ok(None);
                }
                partial.frame = None;
                if fin {
                    return self.finish(scratch).map(Some);
                }
            }
            let (header, size) = match Header::parse(input.bytes())? {
                Ok(parsed) => parsed,
                Err(needed) => {
                    // Who says nothing is not waited for.
                    if !input.is_empty() {
                        input.need(needed);
                    }
                    return Ok(None);
                }
            };
            match (role, header.mask) {
                (Role::Server, None) => return Err(Error::NotMasked),
                (Role::Client, Some(_)) => return Err(Error::Masked),
                _ => {}
            }
            if !header.opcode.is_control() {
                self.check_data(&header, limits)?;
            }
            let is_alone = header.opcode.is_control() || header.fin && self.partial.is_none();
            let end =
                usize::try_from(header.len).map_or(usize::MAX, |len| len.saturating_add(size));
            if is_alone && end <= input.len() {
                let bytes = &input.bytes()[size..end];
                input.consume(end);
                let payload = match header.mask {
                    Some(mask) => {
                        scratch.clear();
                        append_masked(scratch, bytes, mask);
                        scratch
                    }
                    None => bytes,
                };
                return event(header.opcode, payload).map(Some);
            }
            if header.opcode.is_control() {
                input.need(end);
                return Ok(None);
            }
            input.consume(size);
            let partial = self.partial.get_or_insert_with(|| {
                Box::new(Partial {
                    is_text: header.opcode == Opcode::Text,
                    payload: Vec::new(),
                    valid: 0,
                    frame: None,
                })
            });
            if header.len > 0 {
                partial.frame = Some(Body {
                    left: header.len,
                    mask: header.mask,
                    fin: header.fin,
                });
            } else if header.fin {
                return self.finish(scratch).map(Some);
            }
        }
    }

    /// Whether a frame of data may come now, and be so long.
    fn check_data(&self, header: &Header, limits: Limits) -> Result<(), Error> {
        let before = match (&self.partial, header.opcode) {
            (None, Opcode::Continuation) => return Err(Error::NothingToContinue),
            (Some(partial), Opcode::Continuation) => partial.payload.len() as u64,
            (Some(_), _) => return Err(Error::NotContinued),
            (None, _) => 0,
        };
        let (len, limit) = (header.len, limits.frame);
        if len > limit as u64 {
            return Err(Error::FrameTooLong { len, limit });
        }
        let (len, limit) = (before + len, limits.message);
        if len > limit as u64 {
            return Err(Error::MessageTooLong { len, limit });
        }
        Ok(())
    }

    /// The message is whole.
    fn finish<'a>(&mut self, scratch: &'a mut Vec<u8>) -> Result<Event<'a>, Error> {
        let Some(partial) = self.partial.take() else {
            return Err(Error::NothingToContinue);
        };
        *scratch = partial.payload;
        let opcode = match partial.is_text {
            true => Opcode::Text,
            false => Opcode::Binary,
        };
        event(opcode, scratch)
    }
}

impl Partial {
    /// Looks at what has come of a text since the last time.
    fn check(&mut self) -> Result<(), Error> {
        if !self.is_text {
            return Ok(());
        }
        self.valid = match std::str::from_utf8(&self.payload[self.valid..]) {
            Ok(_) => self.payload.len(),
            Err(error) if error.error_len().is_none() => self.valid + error.valid_up_to(),
            Err(_) => return Err(Error::InvalidUtf8),
        };
        Ok(())
    }
}

fn event(opcode: Opcode, payload: &[u8]) -> Result<Event<'_>, Error> {
    Ok(match opcode {
        Opcode::Text => {
            let text = std::str::from_utf8(payload);
            Event::Text(text.map_err(|_| Error::InvalidUtf8)?)
        }
        Opcode::Binary | Opcode::Continuation => Event::Binary(payload),
        Opcode::Ping => Event::Ping(payload),
        Opcode::Pong => Event::Pong(payload),
        Opcode::Close => {
            let (code, reason) = parse_close(payload)?;
            Event::Close(code, reason)
        }
    })
}
