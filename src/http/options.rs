//! The limits of a connection.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::http::head::HEADERS_MOST;

/// The limits of HTTP connections, each with a default: see the [module](crate::http#defaults).
///
/// ```
/// use std::time::Duration;
///
/// let options = greenroom::http::Options::new()
///     .body_max(16 << 20)
///     .keep_alive(Duration::from_secs(10));
/// # let _ = options;
/// ```
#[derive(Debug, Clone)]
pub struct Options {
    pub(super) head_max: usize,
    pub(super) headers_max: usize,
    pub(super) target_max: usize,
    pub(super) body_max: usize,
    pub(super) pending_max: usize,
    pub(super) head_timeout: Duration,
    pub(super) body_timeout: Duration,
    pub(super) keep_alive: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            head_max: 16 << 10,
            headers_max: 64,
            target_max: 8 << 10,
            body_max: 1 << 20,
            pending_max: 32,
            head_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            keep_alive: Duration::from_secs(75),
        }
    }
}

impl Options {
    /// The defaults.
    pub fn new() -> Options {
        Options::default()
    }

    /// Bytes of a request line and its header fields; 16 KiB. More is answered with 431 (Request
    /// Header Fields Too Large).
    ///
    /// # Panics
    ///
    /// When it is less than 64: no request has room.
    #[track_caller]
    pub fn head_max(mut self, bytes: usize) -> Self {
        assert!(
            bytes >= 64,
            "head_max: no request has room in {bytes} bytes"
        );
        self.head_max = bytes;
        self
    }

    /// Header fields of a request; 64. More are answered with 431.
    ///
    /// # Panics
    ///
    /// When it is more than 256, for which there is no room.
    #[track_caller]
    pub fn headers_max(mut self, fields: usize) -> Self {
        assert!(
            fields <= HEADERS_MOST,
            "headers_max: there is room for {HEADERS_MOST} fields, not for {fields}"
        );
        self.headers_max = fields;
        self
    }

    /// Bytes of a request's target; 8 KiB. A longer one is answered with 414 (URI Too Long).
    pub fn target_max(mut self, bytes: usize) -> Self {
        self.target_max = bytes;
        self
    }

    /// Bytes of a body that is [collected](super::Intake::Collect); 1 MiB. A longer one is answered
    /// with 413 (Content Too Large), as soon as its length is known.
    pub fn body_max(mut self, bytes: usize) -> Self {
        self.body_max = bytes;
        self
    }

    /// Requests that wait for their answers; 32. While there are as many, no further one is read.
    ///
    /// # Panics
    ///
    /// When it is 0.
    #[track_caller]
    pub fn pending_max(mut self, requests: usize) -> Self {
        assert!(
            requests > 0,
            "pending_max: at least one request must have room"
        );
        self.pending_max = requests;
        self
    }

    /// How long a head may take from its first byte to its last; 10 s. Then it is answered with 408
    /// (Request Timeout).
    pub fn head_timeout(mut self, after: Duration) -> Self {
        self.head_timeout = after;
        self
    }

    /// How long a body may take, and as long again for each 64 KiB of it that have come; 30 s. Then
    /// it is answered with 408.
    pub fn body_timeout(mut self, after: Duration) -> Self {
        self.body_timeout = after;
        self
    }

    /// How long a connection without a request is kept; 75 s. Then it is closed.
    pub fn keep_alive(mut self, after: Duration) -> Self {
        self.keep_alive = after;
        self
    }

    /// The defaults, the same for all.
    pub(super) fn shared() -> Arc<Options> {
        static DEFAULTS: OnceLock<Arc<Options>> = OnceLock::new();
        DEFAULTS.get_or_init(Arc::default).clone()
    }
}
