//! The bytes of a handshake, and the client's side of it (RFC 6455, section 4.1). No socket.

use std::error::Error;
use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use crate::sys::random;
use crate::websocket::handshake::{InvalidHeader, Refusal, Upgrade, accept_key};

/// Headers of a request, and of an answer.
const HEADERS_MAX: usize = 64;

/// Whether this is a token of HTTP: the name of a header, of a subprotocol.
pub(super) fn is_token(bytes: &[u8]) -> bool {
    let is_in_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !bytes.is_empty() && bytes.iter().all(is_in_token)
}

/// What is looked at of these bytes: whole lines alone, until there are more than may be, so that how
/// they were cut makes no difference, and each line that comes costs one look.
fn lines(bytes: &[u8], max: usize) -> Option<&[u8]> {
    match bytes.get(..max) {
        Some(window) => Some(window),
        None => {
            let end = bytes.iter().rposition(|byte| *byte == b'\n')?;
            Some(&bytes[..=end])
        }
    }
}

/// Parses the request at the beginning of `bytes` and checks it. `None` while it is not whole; else
/// with its length, or with the answer where it is no request for a WebSocket.
pub(super) fn read_request<T>(
    bytes: &[u8],
    max: usize,
    then: impl FnOnce(Upgrade<'_>, usize) -> Result<T, Refusal>,
) -> Result<Option<T>, Refusal> {
    let malformed = || Refusal::new(400).body("not a request of HTTP/1.1\n");
    // Said at once to a client that speaks another protocol.
    if bytes
        .first()
        .is_some_and(|first| !first.is_ascii_alphabetic())
    {
        return Err(malformed());
    }
    let Some(shown) = lines(bytes, max) else {
        return Ok(None);
    };
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let len = match request.parse(shown) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) if bytes.len() < max => return Ok(None),
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            return Err(Refusal::new(431).body("the headers are too long, or too many\n"));
        }
        Err(_) => return Err(malformed()),
    };
    if request.version != Some(1) {
        return Err(Refusal::new(505).body("a WebSocket is asked for in HTTP/1.1\n"));
    }
    let (Some(method), Some(target)) = (request.method, request.path) else {
        return Err(Refusal::new(400));
    };
    let headers = request
        .headers
        .iter()
        .map(|header| (header.name, header.value));
    then(Upgrade::parse(method, target, headers)?, len).map(Some)
}

/// What a client asks a server for: the path, the host, subprotocols, headers. For
/// [`WebSocket::client`](crate::websocket::WebSocket::client).
///
/// ```
/// use greenroom::websocket::Request;
///
/// let request = Request::new("chat.example", "/rooms/blue?since=7")?
///     .protocol("chat.v2")?
///     .header("Authorization", "Bearer 1234")?;
/// # Ok::<(), greenroom::websocket::InvalidRequest>(())
/// ```
#[derive(Clone)]
pub struct Request {
    host: String,
    target: String,
    protocols: Vec<String>,
    headers: String,
}

impl Request {
    /// A request for `target` (path and query, beginning with `/`) of this host, as the server knows
    /// it: a name or an address, with a port where that is not 80, or 443 with TLS.
    ///
    /// # Errors
    ///
    /// [`InvalidRequest`] where either has a space, a line break or another character that it may
    /// not have.
    pub fn new(host: &str, target: &str) -> Result<Request, InvalidRequest> {
        let is_plain =
            |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_plain(host) || host.contains(['/', '?', '#', '@']) {
            return Err(InvalidRequest::Host);
        }
        if !is_plain(target) || !target.starts_with('/') || target.contains('#') {
            return Err(InvalidRequest::Target);
        }
        Ok(Request {
            host: host.to_owned(),
            target: target.to_owned(),
            protocols: Vec::new(),
            headers: String::new(),
        })
    }

    /// Asks for a subprotocol; the first that is asked for is the one preferred. The server may
    /// choose one of them, or none.
    ///
    /// # Errors
    ///
    /// [`InvalidRequest::Protocol`] where it is no name of one, or was asked for before.
    pub fn protocol(mut self, name: &str) -> Result<Request, InvalidRequest> {
        if !is_token(name.as_bytes()) || self.protocols.iter().any(|other| other == name) {
            return Err(InvalidRequest::Protocol);
        }
        self.protocols.push(name.to_owned());
        Ok(self)
    }

    /// Adds a header.
    ///
    /// # Errors
    ///
    /// As [`Upgrade::add_header`].
    pub fn header(mut self, name: &str, value: &str) -> Result<Request, InvalidRequest> {
        InvalidHeader::check(name, value).map_err(InvalidRequest::Header)?;
        self.headers += &format!("{name}: {value}\r\n");
        Ok(self)
    }

    /// A key that nobody guesses, and the bytes of the request with it.
    pub(super) fn begin(&self) -> (String, String) {
        let mut nonce = [0; 16];
        random::fill(&mut nonce);
        let key = BASE64_STANDARD.encode(nonce);
        let Request {
            host,
            target,
            protocols,
            headers,
        } = self;
        let mut bytes = format!(
            "GET {target} HTTP/1.1\r\n\
             Host: {host}\r\n\
             Upgrade: websocket\r\n\
             Connection: Upgrade\r\n\
             Sec-WebSocket-Key: {key}\r\n\
             Sec-WebSocket-Version: 13\r\n"
        );
        if !protocols.is_empty() {
            bytes += &format!("Sec-WebSocket-Protocol: {}\r\n", protocols.join(", "));
        }
        (key, bytes + headers + "\r\n")
    }

    /// Parses the answer at the beginning of `bytes` and checks it. `None` while it is not whole;
    /// else with its length.
    pub(super) fn read_answer<T>(
        &self,
        key: &str,
        bytes: &[u8],
        max: usize,
        then: impl FnOnce(Answer<'_>, usize) -> T,
    ) -> Result<Option<T>, ClientError> {
        let mut at = 0;
        loop {
            let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
            let mut response = httparse::Response::new(&mut headers);
            let Some(shown) = lines(bytes, max).and_then(|lines| lines.get(at..)) else {
                return Ok(None);
            };
            let len = match response.parse(shown) {
                Ok(httparse::Status::Complete(len)) => len,
                Ok(httparse::Status::Partial) if bytes.len() < max => return Ok(None),
                Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
                    return Err(ClientError::TooLong { limit: max });
                }
                Err(_) => return Err(ClientError::Malformed),
            };
            let status = response.code.unwrap_or_default();
            match (response.version, status) {
                // What a server or a proxy may say meanwhile.
                (Some(1), 100 | 102..=199) => {
                    at += len;
                    continue;
                }
                (Some(1), 101) => {}
                _ => {
                    let reason = response.reason.unwrap_or_default().to_owned();
                    return Err(ClientError::Refused { status, reason });
                }
            }
            let mut answer = Answer {
                protocol: None,
                headers: response.headers,
            };
            answer.protocol = answer.check(self, key)?;
            return Ok(Some(then(answer, at + len)));
        }
    }
}

/// Shows neither query nor headers: they may be secret.
impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.target.split('?').next().unwrap_or_default();
        f.debug_struct("Request")
            .field("host", &self.host)
            .field("path", &path)
            .field("protocols", &self.protocols)
            .finish_non_exhaustive()
    }
}

/// What a server answered to a client that it lets in.
pub struct Answer<'a> {
    protocol: Option<&'a str>,
    headers: &'a [httparse::Header<'a>],
}

impl<'a> Answer<'a> {
    /// Returns the subprotocol.
    fn check(&self, request: &Request, key: &str) -> Result<Option<&'a str>, ClientError> {
        let only = |name: &'static str| {
            let mut all = self.all(name);
            match (all.next(), all.next()) {
                (Some(value), None) => Ok(Some(value)),
                (None, _) => Ok(None),
                (Some(_), Some(_)) => Err(ClientError::Header(name)),
            }
        };
        let is_websocket = |value: &[u8]| value.eq_ignore_ascii_case(b"websocket");
        if !only("Upgrade")?.is_some_and(is_websocket) {
            return Err(ClientError::Header("Upgrade"));
        }
        let lists = self.all("Connection");
        let mut tokens = lists.flat_map(|list| list.split(|byte| *byte == b','));
        if !tokens.any(|token| token.trim_ascii().eq_ignore_ascii_case(b"upgrade")) {
            return Err(ClientError::Header("Connection"));
        }
        if only("Sec-WebSocket-Accept")? != Some(accept_key(key.as_bytes()).as_bytes()) {
            return Err(ClientError::Header("Sec-WebSocket-Accept"));
        }
        if self
            .all("Sec-WebSocket-Extensions")
            .any(|value| !value.is_empty())
        {
            return Err(ClientError::Header("Sec-WebSocket-Extensions"));
        }
        let Some(name) = only("Sec-WebSocket-Protocol")? else {
            return Ok(None);
        };
        let name = std::str::from_utf8(name).unwrap_or_default();
        if !request.protocols.iter().any(|asked| asked == name) {
            return Err(ClientError::Header("Sec-WebSocket-Protocol"));
        }
        Ok(Some(name))
    }

    fn all(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let headers = self.headers.iter();
        let named = headers.filter(move |header| header.name.eq_ignore_ascii_case(name));
        named.map(|header| header.value.trim_ascii())
    }

    /// The subprotocol that the server has chosen of those that were asked for.
    pub fn protocol(&self) -> Option<&'a str> {
        self.protocol
    }

    /// The first header of this name, whatever the case of its letters.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.all(name).next()
    }
}

impl fmt::Debug for Answer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer")
            .field("protocol", &self.protocol)
            .finish_non_exhaustive()
    }
}

/// A [`Request`] that cannot be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidRequest {
    /// The host is empty or has a character that none has.
    Host,
    /// The target does not begin with `/`, or has a character that has to be escaped (`%20`).
    Target,
    /// Not the name of a subprotocol, or one that was asked for before.
    Protocol,
    /// A header cannot be sent.
    Header(InvalidHeader),
}

impl fmt::Display for InvalidRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            InvalidRequest::Host => "not the name of a host",
            InvalidRequest::Target => "not a path: it begins with / and has no spaces",
            InvalidRequest::Protocol => "not the name of one more subprotocol",
            InvalidRequest::Header(error) => return error.fmt(f),
        })
    }
}

impl Error for InvalidRequest {}

/// Why a server's answer makes no WebSocket: what
/// [`CloseReason::Error`](crate::CloseReason::Error) of a client holds then.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClientError {
    /// The server refused, with this status and the words behind it.
    Refused {
        /// As 401, 403, 404.
        status: u16,
        /// As `Forbidden`; may be empty.
        reason: String,
    },
    /// The answer is none of HTTP/1.1.
    Malformed,
    /// The answer is longer than its limit, or has more than 64 headers
    /// ([`Options::handshake_max`](crate::websocket::Options::handshake_max)).
    #[non_exhaustive]
    TooLong {
        /// The limit.
        limit: usize,
    },
    /// The answer lacks this header, has it more than once, or with a value that was not asked for.
    Header(&'static str),
    /// There was no whole answer in time
    /// ([`Options::handshake_timeout`](crate::websocket::Options::handshake_timeout)).
    TimedOut,
    /// The connection ended before there was a whole answer.
    Ended,
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientError::Refused { status, reason } => {
                write!(f, "websocket refused by the server: {status} {reason}")
            }
            ClientError::Malformed => f.write_str("websocket: not an answer of HTTP/1.1"),
            ClientError::TooLong { limit } => write!(
                f,
                "websocket: an answer of more than {limit} bytes or {HEADERS_MAX} headers"
            ),
            ClientError::Header(name) => {
                write!(
                    f,
                    "websocket: the answer's {name} is not what was asked for"
                )
            }
            ClientError::TimedOut => f.write_str("websocket: no answer in time"),
            ClientError::Ended => f.write_str("websocket: the connection ended before an answer"),
        }
    }
}

impl Error for ClientError {}
