//! The requests of RESP2, the protocol of Redis: arrays of bulk strings, and lines typed by hand.
//!
//! Everything is parsed where it lies: arguments are slices of the input. Nothing is kept between
//! calls either; a command that is incomplete is parsed from its beginning when more of it is
//! there. What that costs is bounded by asking for as many bytes as the rest takes at least.

use std::fmt;

use smallvec::SmallVec;

/// Bytes of one argument. Redis takes 512 MiB by default; what a server of values in memory should
/// take from anybody at all is for its operator to say.
pub(crate) const BULK_MAX: usize = 8 << 20;

/// Bytes of one command: what is kept of it at most until it is complete.
pub(crate) const COMMAND_MAX: usize = 16 << 20;

/// Arguments of one command, the limit of Redis before 7.0.
pub(crate) const ARGUMENTS_MAX: usize = 1 << 20;

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
    /// No less than `need` bytes make it complete.
    Incomplete { need: usize },
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
        let rest = &bytes[at..];
        match rest.first() {
            None => return incomplete(at + missing * ARGUMENT_MIN),
            Some(b'$') => {}
            Some(&found) => return Err(ProtocolError::NotBulk(found)),
        }
        let Some((len, start)) = header(rest).ok_or(ProtocolError::BulkLen)? else {
            return incomplete(at + missing * ARGUMENT_MIN);
        };
        let len = usize::try_from(len).map_err(|_| ProtocolError::BulkLen)?;
        if len > BULK_MAX {
            return Err(ProtocolError::BulkLen);
        }
        let end = start + len + 2;
        match rest.get(start..end) {
            Some([arg @ .., b'\r', b'\n']) => args.push(arg),
            Some(_) => return Err(ProtocolError::LineEnd),
            None => return incomplete(at + end + (missing - 1) * ARGUMENT_MIN),
        }
        at += end;
    }
    Ok(Request::Command { len: at })
}

fn incomplete<'a>(need: usize) -> Result<Request<'a>, ProtocolError> {
    if need > COMMAND_MAX {
        return Err(ProtocolError::CommandTooLong);
    }
    Ok(Request::Incomplete { need })
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
