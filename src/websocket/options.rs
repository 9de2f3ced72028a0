//! What a WebSocket allows its peer, and what it does by itself.

use std::time::Duration;

use crate::websocket::receiver::Limits;

/// What a WebSocket allows its peer, and what it does by itself.
///
/// | option | default | why this much | what happens there |
/// |---|---|---|---|
/// | [`message_max`](Options::message_max) | 1,000,000 bytes | what is kept of a message counts against [`input_max`](crate::ConnectionOptions::input_max), 1 MiB: this leaves room for headers | code 1009 |
/// | [`frame_max`](Options::frame_max) | 1,000,000 bytes | a message may come in one frame | code 1009 |
/// | [`fragment`](Options::fragment) | none: each message leaves in one frame | nothing waits for a part | |
/// | [`ping_every`](Options::ping_every) | none | waiting is what a push connection is for | [`Error::NoPong`](crate::websocket::Error::NoPong), code 1011 |
/// | [`handshake_timeout`](Options::handshake_timeout) | 10 s | round trips over a poor line, sent again once or twice | status 408 |
/// | [`handshake_max`](Options::handshake_max) | 8,192 bytes, 64 headers | cookies of a browser, and a token or two | status 431 |
/// | [`held_max`](Options::held_max) | 1,024 messages | some milliseconds of work | [`Error::TooManyHeld`](crate::websocket::Error::TooManyHeld) |
#[derive(Clone, Debug)]
pub struct Options {
    pub(super) limits: Limits,
    pub(super) fragment: usize,
    pub(super) ping: Option<Ping>,
    pub(super) handshake_timeout: Duration,
    pub(super) handshake_max: usize,
    pub(super) held_max: usize,
}

/// When the peer is asked whether it is still there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ping {
    pub(super) every: Duration,
    pub(super) within: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            limits: Limits {
                frame: 1_000_000,
                message: 1_000_000,
            },
            fragment: usize::MAX,
            ping: None,
            handshake_timeout: Duration::from_secs(10),
            handshake_max: 8192,
            held_max: 1024,
        }
    }
}

impl Options {
    /// The defaults.
    pub fn new() -> Options {
        Options::default()
    }

    /// The longest message, in bytes, all its fragments together; also the longest
    /// [frame](Options::frame_max), until that is set.
    ///
    /// What has come of a message that is not whole counts as input that is kept: for more than
    /// [`input_max`](crate::ConnectionOptions::input_max) allows, that has to be set as well, to at
    /// least 16 bytes more than this. And each frame has to come within
    /// [`incomplete_timeout`](crate::ConnectionOptions::incomplete_timeout), as has each pause
    /// between the fragments of a message.
    #[must_use]
    pub fn message_max(mut self, bytes: usize) -> Options {
        self.limits = Limits {
            frame: bytes,
            message: bytes,
        };
        self
    }

    /// The longest frame, in bytes of its payload.
    #[must_use]
    pub fn frame_max(mut self, bytes: usize) -> Options {
        self.limits.frame = bytes;
        self
    }

    /// Messages that are longer leave in several frames of so many bytes each.
    ///
    /// # Panics
    ///
    /// When it is 0.
    #[must_use]
    pub fn fragment(mut self, bytes: usize) -> Options {
        assert!(bytes > 0, "fragment: a frame of a message has a byte");
        self.fragment = bytes;
        self
    }

    /// Asks the peer every so often whether it is still there, by a Ping; one of which nothing comes
    /// for `within` after that, no Pong and nothing else, is closed.
    ///
    /// Not while messages wait for the peer to take them, which
    /// [`stuck_timeout`](crate::ConnectionOptions::stuck_timeout) watches, and not while reading is
    /// paused.
    ///
    /// # Panics
    ///
    /// When either is zero, or `within` is longer than `every`.
    #[must_use]
    pub fn ping_every(mut self, every: Duration, within: Duration) -> Options {
        assert!(
            !within.is_zero() && within <= every,
            "ping_every: the time for an answer is within the time to the next ping"
        );
        self.ping = Some(Ping { every, within });
        self
    }

    /// How long the handshake may take, from the accept or the connect on.
    #[must_use]
    pub fn handshake_timeout(mut self, after: Duration) -> Options {
        self.handshake_timeout = after;
        self
    }

    /// How many bytes the peer's part of the handshake may have.
    #[must_use]
    pub fn handshake_max(mut self, bytes: usize) -> Options {
        self.handshake_max = bytes;
        self
    }

    /// How many messages are kept that are sent to the actor during the handshake. One more ends the
    /// connection.
    #[must_use]
    pub fn held_max(mut self, messages: usize) -> Options {
        self.held_max = messages;
        self
    }
}
