//! What goes wrong between two WebSockets.

use std::fmt;
use std::time::Duration;

use crate::websocket::frame::CloseCode;

/// Why a WebSocket was ended from this side: what
/// [`CloseReason::Error`](crate::CloseReason::Error) holds then.
///
/// ```
/// use greenroom::{CloseReason, websocket};
///
/// fn is_breach(reason: &CloseReason) -> bool {
///     let CloseReason::Error(error) = reason else { return false };
///     let error = error.downcast_ref::<websocket::Error>();
///     error.is_some_and(|error| error.code() == websocket::CloseCode::PROTOCOL)
/// }
/// # assert!(!is_breach(&CloseReason::Finished));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// A frame has a bit set that only an extension gives a meaning, and none was agreed on.
    ReservedBits,
    /// A frame has this opcode, which means nothing.
    ReservedOpcode(u8),
    /// A Close, Ping or Pong frame is in fragments.
    ControlFragmented,
    /// A Close, Ping or Pong frame has more than 125 bytes.
    ControlTooLong,
    /// The length of a frame is written in more bytes than it takes.
    LengthNotMinimal,
    /// The length of a frame has its highest bit set.
    LengthReserved,
    /// A client sent a frame without a mask.
    NotMasked,
    /// A server sent a frame with a mask.
    Masked,
    /// A continuation came where no message had begun.
    NothingToContinue,
    /// A new message came where one in fragments was not complete.
    NotContinued,
    /// A Close frame has a payload of one byte.
    CloseTooShort,
    /// A Close frame has this code, which may not travel.
    CloseCode(u16),
    /// A text message, or the reason in a Close frame, is not UTF-8.
    InvalidUtf8,
    /// A frame is longer than its limit ([`Options::frame_max`](crate::websocket::Options::frame_max)).
    #[non_exhaustive]
    FrameTooLong {
        /// The bytes of its payload.
        len: u64,
        /// The limit.
        limit: usize,
    },
    /// A message is longer than its limit
    /// ([`Options::message_max`](crate::websocket::Options::message_max)).
    #[non_exhaustive]
    MessageTooLong {
        /// The bytes that there are of it, the frame included that was about to come.
        len: u64,
        /// The limit.
        limit: usize,
    },
    /// The stream ended within a frame, or a message.
    Incomplete,
    /// Nothing came from the peer for this long after a Ping
    /// ([`Options::ping_every`](crate::websocket::Options::ping_every)).
    NoPong(Duration),
    /// More messages were sent to the actor while its handshake was under way than are kept
    /// ([`Options::held_max`](crate::websocket::Options::held_max)).
    #[non_exhaustive]
    TooManyHeld {
        /// The limit.
        limit: usize,
    },
}

impl Error {
    /// The code that the peer is told it with.
    pub fn code(&self) -> CloseCode {
        match self {
            Error::InvalidUtf8 => CloseCode::INVALID_DATA,
            Error::FrameTooLong { .. } | Error::MessageTooLong { .. } => CloseCode::TOO_LONG,
            Error::NoPong(_) | Error::TooManyHeld { .. } => CloseCode::ERROR,
            _ => CloseCode::PROTOCOL,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::ReservedBits => f.write_str("frame with reserved bits"),
            Error::ReservedOpcode(code) => write!(f, "frame with the reserved opcode {code}"),
            Error::ControlFragmented => f.write_str("control frame in fragments"),
            Error::ControlTooLong => f.write_str("control frame of more than 125 bytes"),
            Error::LengthNotMinimal => f.write_str("length of a frame in more bytes than it takes"),
            Error::LengthReserved => f.write_str("length of a frame with its highest bit set"),
            Error::NotMasked => f.write_str("frame of a client without a mask"),
            Error::Masked => f.write_str("frame of a server with a mask"),
            Error::NothingToContinue => f.write_str("continuation of no message"),
            Error::NotContinued => f.write_str("new message before the end of the one before"),
            Error::CloseTooShort => f.write_str("close frame with half a code"),
            Error::CloseCode(code) => write!(f, "close frame with the reserved code {code}"),
            Error::InvalidUtf8 => f.write_str("text that is not UTF-8"),
            Error::FrameTooLong { len, limit } => {
                write!(f, "frame of {len} bytes where {limit} may be")
            }
            Error::MessageTooLong { len, limit } => {
                write!(f, "message of {len} bytes or more where {limit} may be")
            }
            Error::Incomplete => f.write_str("the stream ended within a message"),
            Error::NoPong(after) => write!(f, "no answer to a ping for {after:?}"),
            Error::TooManyHeld { limit } => {
                write!(
                    f,
                    "more than {limit} messages before the handshake was over"
                )
            }
        }
    }
}

impl std::error::Error for Error {}
