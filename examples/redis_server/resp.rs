//! The requests of the protocol of Redis, which are the same in RESP2 and RESP3: arrays of bulk
//! strings, and lines typed by hand.
//!
//! A usual command is parsed where it lies: its arguments are slices of the input, and nothing is
//! kept between calls; if it is incomplete, it is parsed from its beginning when more of it is
//! there. A large one ([`Partial`]) is taken out of the input as it comes, an argument at a time.
//! Nothing is allocated for what a length only promises.

use std::fmt;

use bytes::Bytes;
use smallvec::SmallVec;

/// Bytes of one argument, as in Redis (`proto-max-bulk-len`).
pub(crate) const BULK_MAX: usize = 512 << 20;

/// Bytes of one command: what is kept of it at most until it is complete. As much as Redis keeps
/// (`client-query-buffer-limit`).
pub(crate) const COMMAND_MAX: usize = 1 << 30;

/// Arguments of one command, the limit of Redis before 7.0.
pub(crate) const ARGUMENTS_MAX: usize = 1 << 20;

/// An argument of so many bytes is received into a piece of memory of its own, which then is the
/// value.
pub(crate) const LARGE_MIN: usize = 32 << 10;

/// Bytes of a command that are parsed where they lie. From here on it is taken as it comes.
pub(crate) const IN_PLACE_MAX: usize = 64 << 10;

/// Bytes of a line typed by hand, as in Redis.
pub(crate) const INLINE_MAX: usize = 64 << 10;

/// The least that an argument takes, as `$0\r\n\r\n`.
const ARGUMENT_MIN: usize = 6;

/// The longest number, `-9223372036854775808`.
const DIGITS_MAX: usize = 20;

/// The arguments of a command, its name first.
pub(crate) type Args<'a> = SmallVec<[&'a [u8]; 16]>;

/// What the input begins with.
#[derive(Debug, PartialEq)]
pub(crate) enum Request<'a> {
    /// A command of `len` bytes, its arguments put into `args`; there may be none.
    Command { len: usize },
    /// A line of `len` bytes with its end that has quotes in it: see [`unquote`].
    Quoted { line: &'a [u8], len: usize },
    /// No less than `need` bytes make it complete, or large.
    Incomplete { need: usize },
    /// A large command. The arguments that are there, in `len` bytes, were put into `args`;
    /// `missing` of them follow: see [`Partial`].
    Begun { len: usize, missing: usize },
}

/// After one of these nobody knows where the next command begins, so the connection has to end. The
/// texts are those of Redis, but for the last two: it takes any two bytes for a line's end, and has
/// other limits.
#[derive(Debug, PartialEq)]
pub(crate) enum ProtocolError {
    ArrayLen,
    BulkLen,
    NotBulk(u8),
    LineTooLong,
    Quotes,
    LineEnd,
    CommandTooLong,
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Protocol error: ")?;
        match self {
            ProtocolError::ArrayLen => f.write_str("invalid multibulk length"),
            ProtocolError::BulkLen => f.write_str("invalid bulk length"),
            // An error reply is one line, whatever was found.
            ProtocolError::NotBulk(found) if !found.is_ascii_graphic() => {
                f.write_str("expected '$', got ' '")
            }
            ProtocolError::NotBulk(found) => write!(f, "expected '$', got '{}'", *found as char),
            ProtocolError::LineTooLong => f.write_str("too big inline request"),
            ProtocolError::Quotes => f.write_str("unbalanced quotes in request"),
            ProtocolError::LineEnd => f.write_str("expected CRLF after an argument"),
            ProtocolError::CommandTooLong => {
                write!(f, "a command of more than {COMMAND_MAX} bytes")
            }
        }
    }
}

/// Finds the first request of `bytes`, which are not empty.
pub(crate) fn parse<'a>(
    bytes: &'a [u8],
    args: &mut Args<'a>,
) -> Result<Request<'a>, ProtocolError> {
    args.clear();
    match bytes[0] {
        b'*' => array(bytes, args),
        _ => line(bytes, args),
    }
}

fn array<'a>(bytes: &'a [u8], args: &mut Args<'a>) -> Result<Request<'a>, ProtocolError> {
    let Some((count, mut at)) = header(bytes).ok_or(ProtocolError::ArrayLen)? else {
        return incomplete(bytes.len() + 1);
    };
    // None or less is no command, and not an error.
    let count = usize::try_from(count).unwrap_or(0);
    if count > ARGUMENTS_MAX {
        return Err(ProtocolError::ArrayLen);
    }
    for missing in (1..=count).rev() {
        match argument(&bytes[at..])? {
            Argument::Whole { arg, len } => {
                args.push(arg);
                at += len;
            }
            Argument::Part { need, large } => {
                if large.is_some() || bytes.len() >= IN_PLACE_MAX {
                    return Ok(Request::Begun { len: at, missing });
                }
                return incomplete(at + need + (missing - 1) * ARGUMENT_MIN);
            }
        }
    }
    Ok(Request::Command { len: at })
}

fn incomplete<'a>(need: usize) -> Result<Request<'a>, ProtocolError> {
    let need = need.min(IN_PLACE_MAX);
    Ok(Request::Incomplete { need })
}

enum Argument<'a> {
    /// It takes `len` bytes.
    Whole { arg: &'a [u8], len: usize },
    /// It takes `need` bytes at least. A large one begins at a place and has a length.
    Part {
        need: usize,
        large: Option<(usize, usize)>,
    },
}

#[inline]
fn argument(bytes: &[u8]) -> Result<Argument<'_>, ProtocolError> {
    let part = |need, large| Ok(Argument::Part { need, large });
    match bytes.first() {
        None => return part(ARGUMENT_MIN, None),
        Some(b'$') => {}
        Some(&found) => return Err(ProtocolError::NotBulk(found)),
    }
    let Some((len, start)) = header(bytes).ok_or(ProtocolError::BulkLen)? else {
        return part(ARGUMENT_MIN.max(bytes.len() + 1), None);
    };
    let len = usize::try_from(len).map_err(|_| ProtocolError::BulkLen)?;
    if len > BULK_MAX {
        return Err(ProtocolError::BulkLen);
    }
    let end = start + len + 2;
    match bytes.get(start..end) {
        Some([arg @ .., b'\r', b'\n']) => Ok(Argument::Whole { arg, len: end }),
        Some(_) => Err(ProtocolError::LineEnd),
        None => part(end, (len >= LARGE_MIN).then_some((start, len))),
    }
}

/// A large command, as far as it has come: what it keeps grows with what has come, up to a limit.
#[derive(Debug)]
pub(crate) struct Partial {
    args: Vec<Bytes>,
    missing: usize,
    /// The large argument that is being received, and its length.
    large: Option<(Vec<u8>, usize)>,
    /// Bytes of all arguments, that one in full.
    total: usize,
    max: usize,
}

impl Partial {
    /// With the arguments that are there. All together may have `max` bytes.
    pub(crate) fn begin(args: &[&[u8]], missing: usize, max: usize) -> Partial {
        Partial {
            args: args.iter().map(|arg| Bytes::copy_from_slice(arg)).collect(),
            missing,
            large: None,
            total: args.iter().map(|arg| arg.len() + ARGUMENT_MIN).sum(),
            max,
        }
    }

    /// Takes what it can from the beginning of `bytes`. Returns how many it took, and how many more
    /// there have to be for it to go on; none when it is complete.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Result<(usize, Option<usize>), ProtocolError> {
        let mut at = 0;
        while self.missing > 0 {
            if let Some((large, len)) = &mut self.large {
                let here = bytes.len().min(at + *len - large.len());
                extend(large, &bytes[at..here], *len);
                at = here;
                if large.len() < *len {
                    return Ok((at, Some(1)));
                }
                match bytes[at..] {
                    [] | [b'\r'] => return Ok((at, Some(2))),
                    [b'\r', b'\n', ..] => at += 2,
                    _ => return Err(ProtocolError::LineEnd),
                }
                self.args.push(std::mem::take(large).into());
                self.large = None;
                self.missing -= 1;
                continue;
            }
            match argument(&bytes[at..])? {
                Argument::Whole { arg, len } => {
                    self.count(arg.len())?;
                    self.args.push(Bytes::copy_from_slice(arg));
                    self.missing -= 1;
                    at += len;
                }
                Argument::Part {
                    large: Some((start, len)),
                    ..
                } => {
                    self.count(len)?;
                    self.large = Some((Vec::new(), len));
                    at += start;
                }
                Argument::Part { need, .. } => return Ok((at, Some(need))),
            }
        }
        Ok((at, None))
    }

    fn count(&mut self, len: usize) -> Result<(), ProtocolError> {
        let total = self.total + len + ARGUMENT_MIN;
        if total > self.max {
            return Err(ProtocolError::CommandTooLong);
        }
        self.total = total;
        Ok(())
    }

    /// Bytes that have come of it.
    pub(crate) fn held(&self) -> usize {
        let missing = self
            .large
            .as_ref()
            .map_or(0, |(large, len)| len - large.len());
        self.total - missing
    }

    /// The arguments of one that is complete.
    pub(crate) fn into_args(self) -> Vec<Bytes> {
        self.args
    }
}

/// Twice the room whenever it is full, and none too much in the end: what is left over would stay
/// with the value.
fn extend(large: &mut Vec<u8>, bytes: &[u8], len: usize) {
    if large.capacity() - large.len() < bytes.len() {
        let room = (large.capacity() * 2).max(large.len() + bytes.len());
        large.reserve_exact(room.min(len) - large.len());
    }
    large.extend_from_slice(bytes);
}

/// The number behind the first byte of `line`, and where the line ends; the inner `None` while it
/// is incomplete, the outer where it is no number.
fn header(line: &[u8]) -> Option<Option<(i64, usize)>> {
    let value = |digit: u8| i64::from(digit - b'0');
    // Nearly all are one of these two, which take a third of the time this way.
    match *line {
        [_, ones @ b'1'..=b'9', b'\r', b'\n', ..] => Some(Some((value(ones), 4))),
        [_, tens @ b'1'..=b'9', ones @ b'0'..=b'9', b'\r', b'\n', ..] => {
            Some(Some((value(tens) * 10 + value(ones), 5)))
        }
        _ => any_header(line),
    }
}

fn any_header(line: &[u8]) -> Option<Option<(i64, usize)>> {
    let digits = &line[1..line.len().min(DIGITS_MAX + 2)];
    let Some(len) = digits.iter().position(|&byte| byte == b'\r') else {
        return (digits.len() <= DIGITS_MAX).then_some(None);
    };
    let number = integer(&digits[..len])?;
    match line.get(len + 2) {
        Some(b'\n') => Some(Some((number, len + 3))),
        Some(_) => None,
        None => Some(None),
    }
}

/// A number as Redis writes it: no plus sign, no zero in front, nothing around it.
pub(crate) fn integer(digits: &[u8]) -> Option<i64> {
    let (is_negative, magnitude) = match digits {
        [b'0'] => return Some(0),
        [b'1'..=b'9', ..] => (false, digits),
        [b'-', magnitude @ ..] if matches!(magnitude, [b'1'..=b'9', ..]) => (true, magnitude),
        _ => return None,
    };
    magnitude.iter().try_fold(0_i64, |number, byte| {
        let digit = i64::from(byte.checked_sub(b'0').filter(|digit| *digit <= 9)?);
        // Below zero there is one number more than above.
        let number = number.checked_mul(10)?;
        if is_negative {
            number.checked_sub(digit)
        } else {
            number.checked_add(digit)
        }
    })
}

fn line<'a>(bytes: &'a [u8], args: &mut Args<'a>) -> Result<Request<'a>, ProtocolError> {
    let searched = &bytes[..bytes.len().min(INLINE_MAX)];
    match searched.iter().position(|&byte| byte == b'\n') {
        Some(end) => {
            let (line, len) = (&searched[..end], end + 1);
            if line.iter().any(|byte| matches!(byte, b'"' | b'\'')) {
                return Ok(Request::Quoted { line, len });
            }
            let words = line.split(u8::is_ascii_whitespace);
            args.extend(words.filter(|word| !word.is_empty()));
            Ok(Request::Command { len })
        }
        None if searched.len() == INLINE_MAX => Err(ProtocolError::LineTooLong),
        None => incomplete(bytes.len() + 1),
    }
}

/// Splits a line into arguments at the white space outside of quotes. Between double quotes a
/// backslash escapes as in C, between single quotes only a single quote.
pub(crate) fn unquote(line: &[u8]) -> Result<Vec<Vec<u8>>, ProtocolError> {
    let mut args = Vec::new();
    let mut rest = line.trim_ascii_start();
    while !rest.is_empty() {
        let mut arg = Vec::new();
        let mut quote = None;
        loop {
            let (len, byte) = match (quote, rest) {
                (None, []) => break,
                (None, [byte, ..]) if byte.is_ascii_whitespace() => break,
                (Some(_), []) => return Err(ProtocolError::Quotes),
                (None, [mark @ (b'"' | b'\''), ..]) => {
                    quote = Some(*mark);
                    (1, None)
                }
                (Some(mark), [byte, after @ ..]) if mark == *byte => {
                    // What follows a closing quote directly is a mistake, not more of the word.
                    if after
                        .first()
                        .is_some_and(|byte| !byte.is_ascii_whitespace())
                    {
                        return Err(ProtocolError::Quotes);
                    }
                    rest = after;
                    break;
                }
                (Some(b'"'), [b'\\', b'x', high, low, ..])
                    if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
                {
                    (4, Some(hex(*high) << 4 | hex(*low)))
                }
                (Some(b'"'), [b'\\', byte, ..]) => (2, Some(unescape(*byte))),
                (Some(b'\''), [b'\\', b'\'', ..]) => (2, Some(b'\'')),
                (_, [byte, ..]) => (1, Some(*byte)),
            };
            arg.extend(byte);
            rest = &rest[len..];
        }
        args.push(arg);
        rest = rest.trim_ascii_start();
    }
    Ok(args)
}

fn hex(digit: u8) -> u8 {
    (digit as char).to_digit(16).unwrap_or(0) as u8
}

fn unescape(byte: u8) -> u8 {
    match byte {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 8,
        b'a' => 7,
        other => other,
    }
}
