//! The handshake of a server (RFC 6455, section 4.2): from a request to the answer. No socket.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;

use crate::sys::Peer;
use crate::websocket::request::is_token;

/// What the accepted key is made of, beside the client's.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The answer to a key.
pub(super) fn accept_key(key: &[u8]) -> String {
    let mut sha1 = sha1_smol::Sha1::new();
    sha1.update(key);
    sha1.update(GUID);
    BASE64_STANDARD.encode(sha1.digest().bytes())
}

/// A client's request to go on as a WebSocket, and what it is to be answered.
///
/// The protocol's own part of it has been checked. Whether this client may come in, from this
/// [origin](Upgrade::origin), at this [path](Upgrade::path), is yours to say.
///
/// ```
/// use greenroom::websocket::{Refusal, Upgrade};
///
/// struct Chat {
///     room: String,
///     version: u8,
/// }
///
/// fn let_in(upgrade: &mut Upgrade<'_>) -> Result<Chat, Refusal> {
///     // A browser tells where its script comes from; other sites' must not speak for its user.
///     if upgrade.origin().is_some_and(|origin| origin != "https://chat.example") {
///         return Err(Refusal::new(403).body("not from there"));
///     }
///     let room = upgrade.path().strip_prefix("/rooms/").ok_or(Refusal::new(404))?.to_owned();
///     let version = match upgrade.choose_protocol(&["chat.v2", "chat.v1"]) {
///         Some("chat.v2") => 2,
///         _ => 1,
///     };
///     upgrade.add_header("X-Room", &room)?;
///     Ok(Chat { room, version })
/// }
///
/// let headers = [
///     ("Host", &b"chat.example"[..]),
///     ("Upgrade", b"websocket"),
///     ("Connection", b"keep-alive, Upgrade"),
///     ("Sec-WebSocket-Version", b"13"),
///     ("Sec-WebSocket-Key", b"dGhlIHNhbXBsZSBub25jZQ=="),
///     ("Sec-WebSocket-Protocol", b"chat.v3, chat.v2"),
/// ];
/// let mut upgrade = Upgrade::parse("GET", "/rooms/blue", headers)?;
/// let chat = let_in(&mut upgrade)?;
/// assert_eq!((&chat.room[..], chat.version), ("blue", 2));
/// assert_eq!(
///     upgrade.response(),
///     "HTTP/1.1 101 Switching Protocols\r\n\
///      Upgrade: websocket\r\n\
///      Connection: Upgrade\r\n\
///      Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\
///      Sec-WebSocket-Protocol: chat.v2\r\n\
///      X-Room: blue\r\n\
///      \r\n"
/// );
/// # Ok::<(), Refusal>(())
/// ```
pub struct Upgrade<'a> {
    target: &'a str,
    headers: Vec<(&'a str, &'a [u8])>,
    key: &'a [u8],
    peer: Option<Peer>,
    protocol: Option<&'a str>,
    added: Vec<(String, String)>,
}

impl<'a> Upgrade<'a> {
    /// Checks a request of HTTP/1.1: its method, its target (path and query) and its headers. For a
    /// server of HTTP that serves WebSockets on the same port; a
    /// [`Server`](crate::websocket::Server) reads the request itself.
    ///
    /// The request must have no body, and what follows it belongs to the WebSocket
    /// ([`WebSocket::upgraded`](crate::websocket::WebSocket::upgraded)). No extension is agreed on.
    ///
    /// # Errors
    ///
    /// A [`Refusal`] with its status: 405 for a method other than GET, 426 where no WebSocket or
    /// another version of it is asked for, 400 for whatever else is wrong.
    pub fn parse(
        method: &str,
        target: &'a str,
        headers: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    ) -> Result<Upgrade<'a>, Refusal> {
        let headers: Vec<_> = headers.into_iter().collect();
        let mut upgrade = Upgrade {
            target,
            headers,
            key: b"",
            peer: None,
            protocol: None,
            added: Vec::new(),
        };
        upgrade.key = upgrade.check(method)?;
        Ok(upgrade)
    }

    /// Returns the client's key.
    fn check(&self, method: &str) -> Result<&'a [u8], Refusal> {
        let bad = |why: &str| Err(Refusal::new(400).body(format!("{why}\n")));
        if method != "GET" {
            let refusal = Refusal::new(405).body("a WebSocket is asked for with GET\n");
            return Err(refusal.known_header("Allow", "GET"));
        }
        if !self.target.starts_with('/') || self.target.contains('#') {
            return bad("the target of a WebSocket is a path");
        }
        let has_token = |name, token: &str| {
            let lists = self.all(name);
            let mut tokens = lists.flat_map(|list| list.split(|byte| *byte == b','));
            tokens.any(|part| part.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
        };
        if !has_token("Upgrade", "websocket") || !has_token("Connection", "upgrade") {
            return Err(Refusal::upgrade_required("this is a WebSocket"));
        }
        if self.all("Host").count() != 1 {
            return bad("a request has one Host header");
        }
        let mut lengths = self.all("Content-Length");
        if lengths.any(|len| len.trim_ascii() != b"0") || self.header("Transfer-Encoding").is_some()
        {
            return bad("a request for a WebSocket has no body");
        }
        match self.only("Sec-WebSocket-Version") {
            Ok(Some(b"13")) => {}
            Ok(Some(_)) => return Err(Refusal::upgrade_required("the version is 13")),
            Ok(None) => return bad("Sec-WebSocket-Version is missing"),
            Err(()) => return bad("there are several Sec-WebSocket-Version headers"),
        }
        let lists = self.all("Sec-WebSocket-Protocol");
        let mut protocols = lists.flat_map(|list| list.split(|byte| *byte == b','));
        if !protocols.all(|name| is_token(name.trim_ascii())) {
            return bad("Sec-WebSocket-Protocol is not a list of names");
        }
        match self.only("Sec-WebSocket-Key") {
            Ok(Some(key)) if BASE64_STANDARD.decode(key).is_ok_and(|key| key.len() == 16) => {
                Ok(key)
            }
            _ => bad("Sec-WebSocket-Key is not there once, with 16 bytes in base64"),
        }
    }

    pub(super) fn set_peer(&mut self, peer: Option<Peer>) {
        self.peer = peer;
    }

    fn all(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let headers = self.headers.iter();
        let named = headers.filter(move |(other, _)| other.eq_ignore_ascii_case(name));
        named.map(|(_, value)| *value)
    }

    /// A header that may be there once.
    fn only(&self, name: &str) -> Result<Option<&'a [u8]>, ()> {
        let mut all = self.all(name);
        match (all.next(), all.next()) {
            (Some(_), Some(_)) => Err(()),
            (first, _) => Ok(first.map(|value| value.trim_ascii())),
        }
    }

    /// Path and query, as they were sent.
    pub fn target(&self) -> &'a str {
        self.target
    }

    /// The path, as it was sent: what is escaped in it (`%20`) still is.
    pub fn path(&self) -> &'a str {
        self.target
            .split_once('?')
            .map_or(self.target, |(path, _)| path)
    }

    /// What follows the first `?`, if there is one.
    pub fn query(&self) -> Option<&'a str> {
        self.target.split_once('?').map(|(_, query)| query)
    }

    /// The first header of this name, whatever the case of its letters.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.all(name).next()
    }

    /// All headers, in order.
    pub fn headers(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        self.headers.iter().copied()
    }

    /// The `Host` header: the name under which the client reached this server.
    pub fn host(&self) -> Option<&'a str> {
        self.text("Host")
    }

    /// The `Origin` header: where the script comes from that asks, in a browser. Others need not
    /// send one, or may send any.
    pub fn origin(&self) -> Option<&'a str> {
        self.text("Origin")
    }

    fn text(&self, name: &str) -> Option<&'a str> {
        std::str::from_utf8(self.header(name)?).ok()
    }

    /// The client's address, where the request came to a
    /// [`Server`](crate::websocket::Server).
    pub fn peer(&self) -> Option<Peer> {
        self.peer
    }

    /// The subprotocols that the client speaks, as it prefers them.
    pub fn protocols(&self) -> impl Iterator<Item = &'a str> {
        let lists = self.all("Sec-WebSocket-Protocol");
        let names = lists.flat_map(|list| list.split(|byte| *byte == b','));
        names.filter_map(|name| std::str::from_utf8(name.trim_ascii()).ok())
    }

    /// Chooses the first of these subprotocols that the client speaks, and tells it so. `None`
    /// where it speaks none of them: then it is told none, and may close for that.
    pub fn choose_protocol<'b>(&mut self, ours: &[&'b str]) -> Option<&'b str> {
        for ours in ours {
            let theirs = self.protocols().find(|theirs| theirs == ours);
            if theirs.is_some() {
                self.protocol = theirs;
                return Some(ours);
            }
        }
        None
    }

    /// The subprotocol that was chosen.
    pub fn protocol(&self) -> Option<&'a str> {
        self.protocol
    }

    /// Adds a header to the answer.
    ///
    /// # Errors
    ///
    /// [`InvalidHeader`] where the name is none, the value has a line break or another control
    /// character in it, or the header is one of the handshake's own. By `?` that is a refusal with
    /// status 500.
    pub fn add_header(&mut self, name: &str, value: &str) -> Result<(), InvalidHeader> {
        InvalidHeader::check(name, value)?;
        self.added.push((name.to_owned(), value.to_owned()));
        Ok(())
    }

    /// The headers of the answer beside `Upgrade: websocket` and `Connection: Upgrade`, for a server
    /// of HTTP that writes an answer with status 101 itself.
    pub fn response_headers(&self) -> Vec<(String, String)> {
        let mut headers = vec![("Sec-WebSocket-Accept".to_owned(), accept_key(self.key))];
        if let Some(protocol) = self.protocol {
            headers.push(("Sec-WebSocket-Protocol".to_owned(), protocol.to_owned()));
        }
        headers.extend(self.added.iter().cloned());
        headers
    }

    /// The whole answer: what a client has to be sent in front of the first frame.
    pub fn response(&self) -> String {
        let mut response = String::from(
            "HTTP/1.1 101 Switching Protocols\r\n\
             Upgrade: websocket\r\n\
             Connection: Upgrade\r\n",
        );
        for (name, value) in self.response_headers() {
            response += &format!("{name}: {value}\r\n");
        }
        response + "\r\n"
    }
}

impl fmt::Debug for Upgrade<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upgrade")
            .field("path", &self.path())
            .field("protocol", &self.protocol)
            .finish_non_exhaustive()
    }
}

/// A header that cannot be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidHeader {
    /// The name is empty, or has a character that names have not.
    Name,
    /// The value has a line break or another control character.
    Value,
    /// The handshake itself sends this one.
    Reserved,
}

impl InvalidHeader {
    /// Names that are the handshake's or the connection's.
    const RESERVED: [&str; 7] = [
        "Connection",
        "Content-Length",
        "Host",
        "Sec-WebSocket-Protocol",
        "Sec-WebSocket-Extensions",
        "Transfer-Encoding",
        "Upgrade",
    ];

    pub(super) fn check(name: &str, value: &str) -> Result<(), InvalidHeader> {
        if !is_token(name.as_bytes()) {
            return Err(InvalidHeader::Name);
        }
        let is_reserved = |reserved: &&str| name.eq_ignore_ascii_case(reserved);
        let keys = [
            "Sec-WebSocket-Accept",
            "Sec-WebSocket-Key",
            "Sec-WebSocket-Version",
        ];
        if InvalidHeader::RESERVED.iter().chain(&keys).any(is_reserved) {
            return Err(InvalidHeader::Reserved);
        }
        let is_control = |byte: u8| byte != b'\t' && byte.is_ascii_control();
        if value.bytes().any(is_control) {
            return Err(InvalidHeader::Value);
        }
        Ok(())
    }
}

impl fmt::Display for InvalidHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            InvalidHeader::Name => "not the name of a header",
            InvalidHeader::Value => "header with a control character in its value",
            InvalidHeader::Reserved => "header that the handshake sends itself",
        })
    }
}

impl Error for InvalidHeader {}

impl From<InvalidHeader> for Refusal {
    fn from(error: InvalidHeader) -> Refusal {
        log::warn!("websocket: {error}");
        Refusal::new(500)
    }
}

/// The answer to a client that is not let in: a status, and what is said beside.
///
/// As an error, in [`CloseReason::Error`](crate::CloseReason::Error), it is why the connection
/// ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    status: u16,
    headers: Vec<(String, String)>,
    body: Cow<'static, str>,
}

impl Refusal {
    /// A refusal with this status, for instance 401, 403 or 404.
    ///
    /// # Panics
    ///
    /// When it is not one from 300 to 599.
    pub fn new(status: u16) -> Refusal {
        assert!(
            (300..600).contains(&status),
            "refusal: the status has to be one from 300 to 599"
        );
        Refusal {
            status,
            headers: Vec::new(),
            body: Cow::Borrowed(""),
        }
    }

    fn upgrade_required(why: &str) -> Refusal {
        let refusal = Refusal::new(426).body(format!("{why}\n"));
        let refusal = refusal.known_header("Upgrade", "websocket");
        refusal.known_header("Sec-WebSocket-Version", "13")
    }

    fn known_header(mut self, name: &str, value: &str) -> Refusal {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The text to say why, as `text/plain`.
    #[must_use]
    pub fn body(mut self, text: impl Into<Cow<'static, str>>) -> Refusal {
        self.body = text.into();
        self
    }

    /// Adds a header, as `WWW-Authenticate` or `Retry-After`.
    ///
    /// # Errors
    ///
    /// As [`Upgrade::add_header`].
    pub fn header(self, name: &str, value: &str) -> Result<Refusal, InvalidHeader> {
        InvalidHeader::check(name, value)?;
        Ok(self.known_header(name, value))
    }

    /// The status.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Its headers, beside those that say how long it is and that the connection closes.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        let headers = self.headers.iter();
        headers.map(|(name, value)| (&name[..], &value[..]))
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.body
    }

    /// The whole answer. The connection is to be closed behind it.
    pub fn response(&self) -> Bytes {
        let reason = match self.status {
            300 => "Multiple Choices",
            301 => "Moved Permanently",
            302 => "Found",
            303 => "See Other",
            307 => "Temporary Redirect",
            308 => "Permanent Redirect",
            400 => "Bad Request",
            401 => "Unauthorized",
            403 => "Forbidden",
            404 => "Not Found",
            405 => "Method Not Allowed",
            408 => "Request Timeout",
            410 => "Gone",
            426 => "Upgrade Required",
            429 => "Too Many Requests",
            431 => "Request Header Fields Too Large",
            500 => "Internal Server Error",
            503 => "Service Unavailable",
            505 => "HTTP Version Not Supported",
            _ => "Refused",
        };
        let Refusal {
            status,
            headers,
            body,
        } = self;
        // Beside an Upgrade header has to stand that it is for this connection.
        let connection = match headers.iter().any(|(name, _)| name == "Upgrade") {
            true => "close, Upgrade",
            false => "close",
        };
        let mut response = format!(
            "HTTP/1.1 {status} {reason}\r\n\
             Connection: {connection}\r\n\
             Content-Type: text/plain; charset=utf-8\r\n\
             Content-Length: {}\r\n",
            body.len()
        );
        for (name, value) in headers {
            response += &format!("{name}: {value}\r\n");
        }
        (response + "\r\n" + body).into()
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "websocket refused with status {}", self.status)?;
        match self.body.trim_end() {
            "" => Ok(()),
            body => write!(f, ": {body}"),
        }
    }
}

impl Error for Refusal {}
