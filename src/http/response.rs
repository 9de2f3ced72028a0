//! What a request is answered with.

use std::error::Error;
use std::fmt;
use std::fs::File;
use std::sync::Arc;

use bytes::Bytes;

use crate::http::body::is_text;
use crate::http::head::is_token;

/// An answer: a status, header fields, and a body.
///
/// The length or the coding of the body, `Connection` and `Date` are added when it is sent. A body
/// for HEAD, 204, 205 or 304 is left out; for HEAD its length is told.
///
/// ```
/// use greenroom::http::Response;
///
/// let page = Response::new(200)
///     .header("Content-Type", "text/html; charset=utf-8")
///     .body("<p>Hello</p>");
/// let moved = Response::new(308).try_header("Location", b"/new\r\nSet-Cookie: a=b");
/// assert!(moved.unwrap_err().to_string().contains("Location"));
/// # let _ = page;
/// ```
#[derive(Debug)]
pub struct Response {
    pub(super) status: u16,
    /// Whole lines.
    pub(super) fields: Vec<u8>,
    pub(super) body: Content,
    pub(super) closes: bool,
}

/// The body of an answer that is there as a whole.
#[derive(Debug)]
pub(super) enum Content {
    Bytes(Bytes),
    File { file: Arc<File>, at: u64, len: u64 },
}

impl Content {
    pub(super) fn len(&self) -> u64 {
        match self {
            Content::Bytes(bytes) => bytes.len() as u64,
            Content::File { len, .. } => *len,
        }
    }
}

/// As many bytes of fields most answers have.
const FIELDS_USUAL: usize = 128;

/// Fields that say where an answer ends and what becomes of the connection: they are the server's.
const RESERVED: [&str; 6] = [
    "connection",
    "content-length",
    "date",
    "keep-alive",
    "transfer-encoding",
    "upgrade",
];

impl Response {
    /// An answer with this status and no body.
    ///
    /// # Panics
    ///
    /// When the status is not one from 200 to 599: those below are no answers.
    #[track_caller]
    pub fn new(status: u16) -> Response {
        assert!(
            (200..=599).contains(&status),
            "http: the status of an answer is one from 200 to 599, not {status}"
        );
        Response::of(status)
    }

    /// 200 with a plain text.
    pub fn text(text: impl Into<Bytes>) -> Response {
        let mut response = Response::of(200).body(text);
        response.field("Content-Type", b"text/plain; charset=utf-8");
        response
    }

    /// What the adapter itself answers with.
    pub(super) fn refusal(status: u16) -> Response {
        let mut response = Response::text(format!("{status} {}\n", reason(status)));
        response.status = status;
        response.closes = true;
        response
    }

    /// 101, with which another protocol begins: for [`Responder::upgrade`](super::Responder::upgrade).
    ///
    /// # Panics
    ///
    /// When the name of the protocol is no token.
    #[track_caller]
    pub fn switching(protocol: &str) -> Response {
        assert!(
            !protocol.is_empty() && protocol.bytes().all(|byte| is_token(byte) || byte == b'/'),
            "http: {protocol:?} is not the name of a protocol"
        );
        let mut response = Response::of(101);
        response.field("Connection", b"Upgrade");
        response.field("Upgrade", protocol.as_bytes());
        response
    }

    fn of(status: u16) -> Response {
        Response {
            status,
            fields: Vec::new(),
            body: Content::Bytes(Bytes::new()),
            closes: false,
        }
    }

    /// Adds a header field.
    ///
    /// # Panics
    ///
    /// As [`try_header`](Response::try_header) fails: for values that come from outside, call that.
    #[track_caller]
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Response {
        if let Err(error) = self.add(name, value.as_ref()) {
            panic!("{error}");
        }
        self
    }

    /// Adds a header field whose value may be anything.
    ///
    /// # Errors
    ///
    /// Where the name is no token or one of those that the server sets itself (`Connection`,
    /// `Content-Length`, `Date`, `Keep-Alive`, `Transfer-Encoding`, `Upgrade`), and where the value
    /// has a line end, a NUL or another control character in it: it would end the field and begin
    /// another one, or another answer.
    pub fn try_header(
        mut self,
        name: &str,
        value: impl AsRef<[u8]>,
    ) -> Result<Response, HeaderError> {
        self.add(name, value.as_ref())?;
        Ok(self)
    }

    fn add(&mut self, name: &str, value: &[u8]) -> Result<(), HeaderError> {
        let kind = if name.is_empty() || !name.bytes().all(is_token) {
            HeaderErrorKind::Name
        } else if RESERVED.iter().any(|own| name.eq_ignore_ascii_case(own)) {
            HeaderErrorKind::Reserved
        } else if !value.iter().copied().all(is_text) {
            HeaderErrorKind::Value
        } else {
            self.field(name, value);
            return Ok(());
        };
        let name = name.escape_debug().to_string();
        Err(HeaderError { name, kind })
    }

    pub(super) fn field(&mut self, name: &str, value: &[u8]) {
        if self.fields.capacity() == 0 {
            self.fields.reserve(FIELDS_USUAL);
        }
        self.fields.extend_from_slice(name.as_bytes());
        self.fields.extend_from_slice(b": ");
        self.fields.extend_from_slice(value);
        self.fields.extend_from_slice(b"\r\n");
    }

    /// Sets the body; it is not copied. One of any size is sent as fast as the peer takes it.
    pub fn body(mut self, body: impl Into<Bytes>) -> Response {
        self.body = Content::Bytes(body.into());
        self
    }

    /// Has `len` bytes of a file be the body, from `offset` on, sent as by
    /// [`Context::write_file`](crate::Context::write_file): without being read into memory, unless
    /// an adapter stands around [`Http`](super::Http). A file that turns out to be shorter ends the
    /// connection with a reset.
    pub fn file(mut self, file: impl Into<Arc<File>>, offset: u64, len: u64) -> Response {
        let file = file.into();
        self.body = Content::File {
            file,
            at: offset,
            len,
        };
        self
    }

    /// Has the connection be closed behind this answer, and says so in it.
    pub fn close(mut self) -> Response {
        self.closes = true;
        self
    }

    /// The body, where it is there as bytes, out of it.
    pub(super) fn take_bytes(&mut self) -> Option<Bytes> {
        match &mut self.body {
            Content::Bytes(bytes) => Some(std::mem::take(bytes)),
            Content::File { .. } => None,
        }
    }

    /// The status.
    pub fn status(&self) -> u16 {
        self.status
    }
}

/// The answer with which another protocol begins: a [`Response`] made by [`Response::switching`], or
/// all of one as bytes.
#[derive(Debug)]
pub struct Switch(pub(super) Begins);

#[derive(Debug)]
pub(super) enum Begins {
    Response(Response),
    Bytes(Bytes),
}

impl Switch {
    pub(super) fn is_one(&self) -> bool {
        match &self.0 {
            Begins::Response(response) => response.status == 101,
            Begins::Bytes(bytes) => {
                let mut ends = bytes.windows(4).filter(|four| *four == b"\r\n\r\n");
                bytes.starts_with(b"HTTP/1.1 101 ") && bytes.ends_with(b"\r\n\r\n") && {
                    ends.next();
                    ends.next().is_none()
                }
            }
        }
    }
}

impl From<Response> for Switch {
    fn from(response: Response) -> Switch {
        Switch(Begins::Response(response))
    }
}

impl From<Bytes> for Switch {
    fn from(bytes: Bytes) -> Switch {
        Switch(Begins::Bytes(bytes))
    }
}

/// A header field that cannot be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderError {
    name: String,
    kind: HeaderErrorKind,
}

/// What is wrong with a header field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeaderErrorKind {
    /// The name is empty, or has a character that no name has.
    Name,
    /// The server sets this one itself.
    Reserved,
    /// The value has a line end, a NUL or another control character in it.
    Value,
}

impl HeaderError {
    /// What is wrong.
    pub fn kind(&self) -> HeaderErrorKind {
        self.kind
    }
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.name;
        match self.kind {
            HeaderErrorKind::Name => write!(f, "http: \"{name}\" is not the name of a header"),
            HeaderErrorKind::Reserved => write!(
                f,
                "http: the server sets {name} itself; see Response::body, Response::close and \
                 Responder::stream"
            ),
            HeaderErrorKind::Value => write!(
                f,
                "http: the value of {name} has a line end or another control character in it; \
                 remove or encode those"
            ),
        }
    }
}

impl Error for HeaderError {}

/// What a status is called.
pub(super) fn reason(status: u16) -> &'static str {
    match status {
        101 => "Switching Protocols",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        203 => "Non-Authoritative Information",
        204 => "No Content",
        205 => "Reset Content",
        206 => "Partial Content",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        451 => "Unavailable For Legal Reasons",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        507 => "Insufficient Storage",
        511 => "Network Authentication Required",
        _ => "",
    }
}
