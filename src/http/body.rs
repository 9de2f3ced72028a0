//! Where the body of a request ends, and what of the bytes is its own. Nothing here reads or writes.
//!
//! Byte by byte, so that how the bytes were cut can make no difference, but for the data itself,
//! which is passed on in as large pieces as it comes in.

use crate::http::head::{Length, is_token};

/// What may follow the size in one chunk's line.
const EXTENSION_MAX: u32 = 256;

/// What may follow the sizes in all of them. Nobody reads extensions; a client that sends one byte
/// in each chunk with as much behind it as may would be a flood for next to no body.
const EXTENSIONS_MAX: u32 = 4 << 10;

/// Bytes of all trailers, line ends included.
const TRAILERS_MAX: u32 = 4 << 10;

/// How much of a body has come.
#[derive(Debug)]
pub(super) struct Decoder {
    state: State,
    /// Bytes of data so far.
    received: u64,
    /// ... and how many they may be.
    max: u64,
    /// Bytes of this chunk, or of the whole body, that are to come.
    left: u64,
    extension: u32,
    extensions: u32,
    trailers: u32,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    /// A length was given.
    Counted,
    /// In the size of a chunk, behind so many digits.
    Size(u8),
    Extension,
    /// Behind the carriage return of a chunk's line.
    SizeEnd,
    Data,
    DataReturn,
    DataFeed,
    /// At the beginning of a trailer, or of the empty line that is the end.
    Trailer,
    TrailerName,
    TrailerValue,
    TrailerEnd,
    End,
    Done,
}

/// One step.
#[derive(Debug, PartialEq)]
pub(super) enum Step<'a> {
    /// A piece of the body.
    Data(&'a [u8]),
    /// There is no more of it.
    Done,
    /// All that is here was looked at.
    More,
}

impl Decoder {
    /// # Errors
    ///
    /// 413 where the body is longer than `max`.
    pub(super) fn new(length: Length, max: u64) -> Result<Decoder, u16> {
        let (state, left) = match length {
            Length::Bytes(length) if length > max => return Err(413),
            Length::Bytes(0) => (State::Done, 0),
            Length::Bytes(length) => (State::Counted, length),
            Length::Chunked => (State::Size(0), 0),
        };
        Ok(Decoder {
            state,
            received: 0,
            max,
            left,
            extension: 0,
            extensions: 0,
            trailers: 0,
        })
    }

    pub(super) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Bytes of data so far.
    pub(super) fn received(&self) -> u64 {
        self.received
    }

    /// Takes from the front of `bytes` what belongs to the body, up to the end of one piece of data.
    ///
    /// # Errors
    ///
    /// The status with which the request is to be refused.
    pub(super) fn step<'a>(&mut self, bytes: &mut &'a [u8]) -> Result<Step<'a>, u16> {
        loop {
            match self.state {
                State::Done => return Ok(Step::Done),
                State::Counted | State::Data => {
                    let most = usize::try_from(self.left).unwrap_or(usize::MAX);
                    let (data, rest) = bytes.split_at(bytes.len().min(most));
                    *bytes = rest;
                    self.left -= data.len() as u64;
                    self.received += data.len() as u64;
                    if self.left == 0 {
                        self.state = match self.state {
                            State::Counted => State::Done,
                            _ => State::DataReturn,
                        };
                    }
                    return Ok(match data {
                        [] => Step::More,
                        data => Step::Data(data),
                    });
                }
                _ => {}
            }
            let Some((byte, rest)) = bytes.split_first() else {
                return Ok(Step::More);
            };
            *bytes = rest;
            self.state = self.line(*byte)?;
        }
    }

    /// What follows a byte that is not data.
    fn line(&mut self, byte: u8) -> Result<State, u16> {
        let is_trailer = matches!(
            self.state,
            State::Trailer | State::TrailerName | State::TrailerValue | State::TrailerEnd
        );
        if is_trailer {
            self.trailers += 1;
            if self.trailers > TRAILERS_MAX {
                return Err(431);
            }
        }
        Ok(match (self.state, byte) {
            (State::Size(digits), b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let digit = char::from(byte).to_digit(16).unwrap_or(0);
                // Sixteen digits fit, and leading zeros are not an end of their own.
                if digits == 16 {
                    return Err(400);
                }
                self.left = self.left << 4 | u64::from(digit);
                State::Size(digits + 1)
            }
            (State::Size(1..), b'\r') => State::SizeEnd,
            (State::Size(1..), b';') => {
                self.extension = 0;
                State::Extension
            }
            (State::Extension, b'\r') => State::SizeEnd,
            (State::Extension, byte) if is_text(byte) => {
                self.extension += 1;
                self.extensions += 1;
                if self.extension > EXTENSION_MAX || self.extensions > EXTENSIONS_MAX {
                    return Err(400);
                }
                State::Extension
            }
            (State::SizeEnd, b'\n') if self.left == 0 => State::Trailer,
            (State::SizeEnd, b'\n') => {
                if self.left > self.max - self.received {
                    return Err(413);
                }
                State::Data
            }
            (State::DataReturn, b'\r') => State::DataFeed,
            (State::DataFeed, b'\n') => State::Size(0),
            (State::Trailer, b'\r') => State::End,
            (State::Trailer | State::TrailerName, byte) if is_token(byte) => State::TrailerName,
            (State::TrailerName, b':') => State::TrailerValue,
            (State::TrailerValue, b'\r') => State::TrailerEnd,
            (State::TrailerValue, byte) if is_text(byte) => State::TrailerValue,
            (State::TrailerEnd, b'\n') => State::Trailer,
            (State::End, b'\n') => State::Done,
            _ => return Err(400),
        })
    }
}

/// Of what the value of a field consists.
pub(super) fn is_text(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=0x7e | 0x80..)
}
