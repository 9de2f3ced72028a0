//! The head of a request: where it ends, what it says of its body and its connection, and why it is
//! refused. Nothing here reads or writes: bytes in, a verdict out.
//!
//! `httparse` reads the fields. What it takes and two readers could take differently is refused here:
//! lines that end in a bare line feed, a second empty line in front, targets of no known form, and
//! whatever leaves a doubt about where the body ends. The verdict hangs on the bytes alone and not on
//! how they were cut: it is that of the first byte which is wrong.

use std::mem::MaybeUninit;

use httparse::{Error, Header, Status};

use crate::http::Options;

/// Room for as many fields as [`Options::headers_max`] can be set to.
pub(super) const HEADERS_MOST: usize = 256;

/// What a request line has beside its target: the longest method that is read, two spaces, the
/// version, the line's end.
const LINE_EXTRA: usize = 32 + 2 + 8 + 2;

/// What the input begins with.
pub(super) enum Found<'h, 'b> {
    /// A head of this many bytes.
    Head(usize, Head, Fields<'h, 'b>),
    /// The beginning of one.
    Part,
    /// Something else: it is answered with this status.
    Refused(u16),
}

/// What matters of a head for the connection.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Head {
    pub(super) body: Length,
    /// HTTP/1.0.
    pub(super) is_old: bool,
    pub(super) is_head: bool,
    /// The connection is to stay open behind the answer.
    pub(super) stays: bool,
    /// The client waits for word that its body is wanted.
    pub(super) expects: bool,
    /// It asks for another protocol.
    pub(super) upgrades: bool,
}

impl Head {
    /// Of what is no request.
    pub(super) const NONE: Head = Head {
        body: Length::Bytes(0),
        is_old: false,
        is_head: false,
        stays: false,
        expects: false,
        upgrades: false,
    };
}

/// How the end of a body is told.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Length {
    Bytes(u64),
    Chunked,
}

impl Length {
    pub(super) fn is_zero(self) -> bool {
        self == Length::Bytes(0)
    }
}

/// What a head says to the service; it points into the head's bytes.
#[derive(Clone, Copy)]
pub(super) struct Fields<'h, 'b> {
    pub(super) method: &'b str,
    pub(super) target: &'b str,
    pub(super) headers: &'h [Header<'b>],
}

pub(super) type Room<'b> = [MaybeUninit<Header<'b>>; HEADERS_MOST];

pub(super) fn room<'b>() -> Room<'b> {
    [const { MaybeUninit::uninit() }; HEADERS_MOST]
}

/// The fields of a head that [`find`] has found before.
pub(super) fn fields<'h, 'b>(head: &'b [u8], room: &'h mut Room<'b>) -> Option<Fields<'h, 'b>> {
    let mut request = httparse::Request::new(&mut []);
    request.parse_with_uninit_headers(head, room).ok()?;
    Some(Fields {
        method: request.method?,
        target: request.path?,
        headers: request.headers,
    })
}

/// Looks for a head at the beginning of `bytes`.
///
/// Whole lines alone are looked at, until a limit is reached: what a client sends in crumbs is read
/// once for each line.
pub(super) fn find<'h, 'b>(
    bytes: &'b [u8],
    options: &Options,
    room: &'h mut Room<'b>,
) -> Found<'h, 'b> {
    // Said at once, of a client that speaks another protocol.
    if bytes.first().is_some_and(|first| !is_token(*first)) {
        return Found::Refused(400);
    }
    let (limit, status) = match bytes.get(..line_max(options)) {
        Some(line) if !line.contains(&b'\n') => (line.len(), 414),
        _ => (options.head_max, 431),
    };
    let lines = match bytes.get(..limit) {
        Some(window) => window,
        None => match bytes.iter().rposition(|byte| *byte == b'\n') {
            Some(feed) => &bytes[..=feed],
            None => return Found::Part,
        },
    };
    let mut request = httparse::Request::new(&mut []);
    let most = options.headers_max.min(HEADERS_MOST);
    let error = match request.parse_with_uninit_headers(lines, &mut room[..most]) {
        Ok(Status::Complete(len)) => {
            let head = &lines[..len];
            // Each carriage return stands in front of a line feed, or it would have been refused.
            if count(head, b'\n') != count(head, b'\r') {
                return Found::Refused(400);
            }
            let (Some(method), Some(target)) = (request.method, request.path) else {
                return Found::Refused(400);
            };
            let is_old = request.version == Some(0);
            let headers: &'h [Header<'b>] = request.headers;
            let fields = Fields {
                method,
                target,
                headers,
            };
            return match judge(&fields, is_old, options) {
                Ok(head) => Found::Head(len, head, fields),
                Err(status) => Found::Refused(status),
            };
        }
        Ok(Status::Partial) => None,
        Err(error) => Some(error),
    };
    // A bare line feed in front of what is wrong counts first.
    let error = match bare_feed(lines) {
        None => error,
        Some(feed) => match error_in(&lines[..feed], most) {
            None => return Found::Refused(400),
            found => found,
        },
    };
    Found::Refused(match error {
        None if bytes.len() < limit => return Found::Part,
        None => status,
        Some(Error::TooManyHeaders) => 431,
        Some(Error::Version) if is_version(lines) => 505,
        Some(_) => 400,
    })
}

/// Whether [`find`] would say of `bytes` what it said of the first `seen` of them.
pub(super) fn is_no_further(bytes: &[u8], seen: usize, options: &Options) -> bool {
    let Some((seen, new)) = bytes.split_at_checked(seen) else {
        return false;
    };
    !seen.is_empty()
        && bytes.len() < options.head_max
        && !new.contains(&b'\n')
        && (bytes.len() < line_max(options) || seen.contains(&b'\n'))
}

fn line_max(options: &Options) -> usize {
    options.target_max.saturating_add(LINE_EXTRA)
}

fn error_in(bytes: &[u8], most: usize) -> Option<Error> {
    let mut room = room();
    let mut request = httparse::Request::new(&mut []);
    let parsed = request.parse_with_uninit_headers(bytes, &mut room[..most]);
    parsed.err()
}

/// Whether the third word is a version, which is not spoken here, or none at all.
fn is_version(lines: &[u8]) -> bool {
    let word = lines.splitn(3, |byte| *byte == b' ').nth(2);
    match word.unwrap_or_default() {
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor, ..] => {
            major.is_ascii_digit() && minor.is_ascii_digit()
        }
        _ => false,
    }
}

fn count(bytes: &[u8], wanted: u8) -> usize {
    bytes.iter().filter(|byte| **byte == wanted).count()
}

/// The place of the first line feed with no carriage return in front of it.
fn bare_feed(bytes: &[u8]) -> Option<usize> {
    let is_bare = |at: &usize| bytes[*at] == b'\n' && (*at == 0 || bytes[at - 1] != b'\r');
    (0..bytes.len()).find(is_bare)
}

/// A set of bytes, to be asked by one look: the letters and digits, and these.
const fn letters_digits_and(others: &[u8]) -> [bool; 256] {
    let mut set = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        set[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let mut at = 0;
    while at < others.len() {
        set[others[at] as usize] = true;
        at += 1;
    }
    set
}

/// Of what names and methods consist.
static TOKEN: [bool; 256] = letters_digits_and(b"!#$%&'*+-.^_`|~");

/// Of what a host and a port do.
static AUTHORITY: [bool; 256] = letters_digits_and(b"-._~!$&'()*+;=:%[]");

pub(super) fn is_token(byte: u8) -> bool {
    TOKEN[usize::from(byte)]
}

/// Wherever two readers of the same bytes could disagree on where a request ends, it is refused:
/// what one takes for a body must not be a request to the other.
fn judge(fields: &Fields<'_, '_>, is_old: bool, options: &Options) -> Result<Head, u16> {
    let Fields {
        method,
        target,
        headers,
    } = *fields;
    if target.len() > options.target_max {
        return Err(414);
    }
    check_target(method, target)?;
    let mut hosts = 0;
    let mut length = None;
    let mut codings = Codings::default();
    let (mut close, mut keep_alive, mut upgrade) = (false, false, false);
    let (mut expects, mut names_protocol) = (false, false);
    for header in headers {
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        // Most fields are none of these, and by their length.
        match header.name.len() {
            4 if is("host") => {
                hosts += 1;
                if hosts > 1 || !is_authority(header.value) {
                    return Err(400);
                }
            }
            6 if is("expect") && !is_old => {
                if !header.value.eq_ignore_ascii_case(b"100-continue") {
                    return Err(417);
                }
                expects = true;
            }
            7 if is("upgrade") => names_protocol = true,
            10 if is("connection") => {
                for option in header.value.split(|byte| *byte == b',') {
                    let option = option.trim_ascii();
                    close |= option.eq_ignore_ascii_case(b"close");
                    keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                    upgrade |= option.eq_ignore_ascii_case(b"upgrade");
                }
            }
            14 if is("content-length") => {
                if length.is_some() {
                    return Err(400);
                }
                length = Some(number(header.value)?);
            }
            17 if is("transfer-encoding") => codings.add(header.value)?,
            _ => {}
        }
    }
    if hosts == 0 && !is_old {
        return Err(400);
    }
    let body = match (codings.end()?, length) {
        (true, Some(_)) => return Err(400),
        (true, None) if is_old => return Err(400),
        (true, None) => Length::Chunked,
        (false, length) => Length::Bytes(length.unwrap_or(0)),
    };
    if method == "CONNECT" {
        return Err(501);
    }
    Ok(Head {
        body,
        is_old,
        is_head: method == "HEAD",
        stays: !close && (!is_old || keep_alive),
        expects: expects && !body.is_zero(),
        upgrades: upgrade && names_protocol && !close && !is_old,
    })
}

/// A path, a whole URL as sent to proxies, or the server as such: `OPTIONS *`. What CONNECT names is
/// refused later.
fn check_target(method: &str, target: &str) -> Result<(), u16> {
    let is_known = match target.as_bytes()[0] {
        b'/' => true,
        b'*' => target == "*" && method == "OPTIONS",
        _ if method == "CONNECT" => true,
        _ => after_scheme(target).is_some_and(|rest| {
            let (authority, _) = split_authority(rest);
            !authority.is_empty() && is_authority(authority.as_bytes())
        }),
    };
    if is_known { Ok(()) } else { Err(400) }
}

/// What follows `http://` or `https://`.
pub(super) fn after_scheme(target: &str) -> Option<&str> {
    ["http://", "https://"].iter().find_map(|scheme| {
        let (start, rest) = target.split_at_checked(scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then_some(rest)
    })
}

/// The authority of a URL without its scheme, and the rest.
pub(super) fn split_authority(rest: &str) -> (&str, &str) {
    rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()))
}

/// Whether it may name a host and a port. An empty one is allowed: the target then has none either.
fn is_authority(value: &[u8]) -> bool {
    value.iter().all(|byte| AUTHORITY[usize::from(*byte)])
}

fn number(value: &[u8]) -> Result<u64, u16> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(400);
    }
    // Digits that are too many are a body that is too large.
    let add = |sum: u64, digit: &u8| sum.checked_mul(10)?.checked_add(u64::from(digit - b'0'));
    value.iter().try_fold(0, add).ok_or(413)
}

/// What the fields of transfer codings say, one after another.
#[derive(Default)]
struct Codings {
    count: usize,
    /// The last one is `chunked`.
    chunked: bool,
}

impl Codings {
    fn add(&mut self, value: &[u8]) -> Result<(), u16> {
        for coding in value.split(|byte| *byte == b',') {
            let coding = coding.trim_ascii();
            // Nothing may follow it, and it may not come twice.
            if self.chunked || coding.is_empty() || !coding.iter().copied().all(is_token) {
                return Err(400);
            }
            self.count += 1;
            self.chunked = coding.eq_ignore_ascii_case(b"chunked");
        }
        Ok(())
    }

    /// Whether the body is chunked.
    fn end(&self) -> Result<bool, u16> {
        match (self.count, self.chunked) {
            (0, _) => Ok(false),
            // Where it ends nobody can tell.
            (_, false) => Err(400),
            (1, true) => Ok(true),
            // Where it ends is clear, what it says is not.
            (_, true) => Err(501),
        }
    }
}
