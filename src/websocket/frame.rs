//! The frames of RFC 6455, section 5: their headers, masks, and the codes of Close frames.

use std::fmt;

use crate::websocket::error::Error;

/// The longest payload of a control frame.
pub(super) const CONTROL_MAX: usize = 125;

/// The longest header: two bytes, eight of length, four of mask.
pub(super) const HEADER_MAX: usize = 14;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Opcode {
    Continuation = 0,
    Text = 1,
    Binary = 2,
    Close = 8,
    Ping = 9,
    Pong = 10,
}

impl Opcode {
    fn of(bits: u8) -> Result<Opcode, Error> {
        Ok(match bits {
            0 => Opcode::Continuation,
            1 => Opcode::Text,
            2 => Opcode::Binary,
            8 => Opcode::Close,
            9 => Opcode::Ping,
            10 => Opcode::Pong,
            other => return Err(Error::ReservedOpcode(other)),
        })
    }

    pub(super) fn is_control(self) -> bool {
        self as u8 >= 8
    }
}

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) fin: bool,
    pub(super) opcode: Opcode,
    pub(super) mask: Option<[u8; 4]>,
    /// The bytes of the payload.
    pub(super) len: u64,
}

impl Header {
    /// Parses a header and returns it with its own length; or how many bytes it takes to tell, which
    /// is more than there are. What no further byte could mend is told at once.
    pub(super) fn parse(bytes: &[u8]) -> Result<Result<(Header, usize), usize>, Error> {
        let &[first, second, ref rest @ ..] = bytes else {
            // The first byte alone tells what is wrong with it.
            return match bytes {
                &[first] => Header::first(first).map(|_| Err(2)),
                _ => Ok(Err(2)),
            };
        };
        let (fin, opcode) = Header::first(first)?;
        let short = second & 0x7f;
        if opcode.is_control() && usize::from(short) > CONTROL_MAX {
            return Err(Error::ControlTooLong);
        }
        let extended = match short {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let is_masked = second & 0x80 != 0;
        let size = 2 + extended + if is_masked { 4 } else { 0 };
        if bytes.len() < size {
            return Ok(Err(size));
        }
        let (extended, mask) = rest[..size - 2].split_at(extended);
        let long = extended
            .iter()
            .fold(0, |len: u64, byte| len << 8 | u64::from(*byte));
        let len = match extended.len() {
            0 => u64::from(short),
            2 if long < 126 => return Err(Error::LengthNotMinimal),
            8 if long <= 0xffff => return Err(Error::LengthNotMinimal),
            _ if long >> 63 != 0 => return Err(Error::LengthReserved),
            _ => long,
        };
        let header = Header {
            fin,
            opcode,
            mask: mask.try_into().ok(),
            len,
        };
        Ok(Ok((header, size)))
    }

    fn first(byte: u8) -> Result<(bool, Opcode), Error> {
        if byte & 0x70 != 0 {
            return Err(Error::ReservedBits);
        }
        let opcode = Opcode::of(byte & 0x0f)?;
        let fin = byte & 0x80 != 0;
        if opcode.is_control() && !fin {
            return Err(Error::ControlFragmented);
        }
        Ok((fin, opcode))
    }

    /// The header as it goes out.
    pub(super) fn encode(&self) -> Encoded {
        let mut bytes = [0; HEADER_MAX];
        bytes[0] = u8::from(self.fin) << 7 | self.opcode as u8;
        let masked = u8::from(self.mask.is_some()) << 7;
        let mut size = match self.len {
            0..126 => {
                bytes[1] = masked | self.len as u8;
                2
            }
            126..=0xffff => {
                bytes[1] = masked | 126;
                bytes[2..4].copy_from_slice(&(self.len as u16).to_be_bytes());
                4
            }
            _ => {
                bytes[1] = masked | 127;
                bytes[2..10].copy_from_slice(&self.len.to_be_bytes());
                10
            }
        };
        if let Some(mask) = self.mask {
            bytes[size..size + 4].copy_from_slice(&mask);
            size += 4;
        }
        Encoded { bytes, size }
    }
}

/// The bytes of a header.
pub(super) struct Encoded {
    bytes: [u8; HEADER_MAX],
    size: usize,
}

impl std::ops::Deref for Encoded {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.size]
    }
}

/// Appends `from` to `to`, masked or unmasked, which is the same. Returns the mask as it goes on
/// behind these bytes.
pub(super) fn append_masked(to: &mut Vec<u8>, from: &[u8], mask: [u8; 4]) -> [u8; 4] {
    let start = to.len();
    to.extend_from_slice(from);
    apply_mask(&mut to[start..], mask)
}

/// Masks or unmasks in place. Returns the mask as it goes on behind these bytes.
pub(super) fn apply_mask(bytes: &mut [u8], mask: [u8; 4]) -> [u8; 4] {
    let wide = u64::from_ne_bytes([mask, mask].concat().try_into().unwrap_or_default());
    let (words, rest) = bytes.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
    let mut next = mask;
    next.rotate_left(bytes.len() % 4);
    next
}

/// Why a WebSocket is closed: the code of a Close frame (RFC 6455, section 7.4).
///
/// ```
/// use greenroom::websocket::CloseCode;
///
/// assert_eq!(CloseCode::NORMAL.get(), 1000);
/// // 4000 to 4999 are an application's own.
/// assert_eq!(CloseCode::new(4001).unwrap().get(), 4001);
/// // 1006 is for a connection that was lost: it never travels.
/// assert!(CloseCode::new(1006).is_none());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CloseCode(u16);

impl CloseCode {
    /// 1000: all is said.
    pub const NORMAL: CloseCode = CloseCode(1000);
    /// 1001: the server stops, or the browser leaves the page.
    pub const AWAY: CloseCode = CloseCode(1001);
    /// 1002: the peer broke the protocol.
    pub const PROTOCOL: CloseCode = CloseCode(1002);
    /// 1003: a kind of message that is not taken here, as binary where text is expected.
    pub const UNSUPPORTED: CloseCode = CloseCode(1003);
    /// 1007: a text message that is not UTF-8.
    pub const INVALID_DATA: CloseCode = CloseCode(1007);
    /// 1008: a message that a rule of the application forbids.
    pub const POLICY: CloseCode = CloseCode(1008);
    /// 1009: a message that is too long.
    pub const TOO_LONG: CloseCode = CloseCode(1009);
    /// 1010: the server did not agree to an extension that the client needs.
    pub const EXTENSION: CloseCode = CloseCode(1010);
    /// 1011: something here failed.
    pub const ERROR: CloseCode = CloseCode(1011);
    /// 1012: the server is started anew.
    pub const RESTART: CloseCode = CloseCode(1012);
    /// 1013: too busy, try again later.
    pub const TRY_AGAIN: CloseCode = CloseCode(1013);

    /// The code of this number; `None` for one that may not travel: below 1000, 1004, 1005 (no code
    /// was sent), 1006 (the connection was lost), 1015 (TLS failed), 1016 to 2999, 5000 and more.
    pub const fn new(code: u16) -> Option<CloseCode> {
        match code {
            1000..=1003 | 1007..=1014 | 3000..=4999 => Some(CloseCode(code)),
            _ => None,
        }
    }

    /// Its number.
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Parses the payload of a Close frame: the code, if there is one, and the reason.
pub(super) fn parse_close(payload: &[u8]) -> Result<(Option<CloseCode>, &str), Error> {
    let Some((code, reason)) = payload.split_first_chunk::<2>() else {
        return match payload {
            [] => Ok((None, "")),
            _ => Err(Error::CloseTooShort),
        };
    };
    let number = u16::from_be_bytes(*code);
    let code = CloseCode::new(number).ok_or(Error::CloseCode(number))?;
    let reason = std::str::from_utf8(reason).map_err(|_| Error::InvalidUtf8)?;
    Ok((Some(code), reason))
}

/// The payload of a Close frame; the reason is cut to what fits, between two characters.
pub(super) fn close_payload(code: CloseCode, reason: &str) -> Vec<u8> {
    let mut len = reason.len().min(CONTROL_MAX - 2);
    while !reason.is_char_boundary(len) {
        len -= 1;
    }
    [&code.get().to_be_bytes(), &reason.as_bytes()[..len]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(fin: bool, opcode: Opcode, mask: Option<[u8; 4]>, len: u64) -> Header {
        Header {
            fin,
            opcode,
            mask,
            len,
        }
    }

    #[test]
    fn headers_come_back_as_they_were_and_shorter_ones_ask_for_more() {
        let masks = [None, Some([1, 2, 3, 4])];
        let lens = [0, 1, 125, 126, 127, 0xffff, 0x1_0000, u64::MAX >> 1];
        for (mask, len) in masks.iter().flat_map(|mask| lens.map(|len| (*mask, len))) {
            for opcode in [Opcode::Text, Opcode::Binary, Opcode::Continuation] {
                for fin in [true, false] {
                    let header = header(fin, opcode, mask, len);
                    let mut bytes = header.encode().to_vec();
                    let size = bytes.len();
                    for cut in 0..size {
                        let needed = Header::parse(&bytes[..cut]).unwrap().unwrap_err();
                        assert!(cut < needed && needed <= size, "{cut} {needed} {size}");
                    }
                    bytes.extend([0xff; 3]);
                    assert_eq!(Header::parse(&bytes).unwrap(), Ok((header, size)));
                }
            }
        }
    }

    #[test]
    fn what_the_protocol_forbids_is_refused_as_soon_as_it_is_seen() {
        for (bytes, error) in [
            (&[0xc1][..], Error::ReservedBits),
            (&[0xa1], Error::ReservedBits),
            (&[0x91], Error::ReservedBits),
            (&[0x83], Error::ReservedOpcode(3)),
            (&[0x87], Error::ReservedOpcode(7)),
            (&[0x8b], Error::ReservedOpcode(11)),
            (&[0x8f], Error::ReservedOpcode(15)),
            (&[0x08], Error::ControlFragmented),
            (&[0x09], Error::ControlFragmented),
            (&[0x0a], Error::ControlFragmented),
            (&[0x89, 126], Error::ControlTooLong),
            (&[0x88, 0xff], Error::ControlTooLong),
            (&[0x81, 126, 0, 125], Error::LengthNotMinimal),
            (
                &[0x81, 127, 0, 0, 0, 0, 0, 0, 0xff, 0xff],
                Error::LengthNotMinimal,
            ),
            (
                &[0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0],
                Error::LengthReserved,
            ),
        ] {
            assert_eq!(Header::parse(bytes).unwrap_err(), error, "{bytes:x?}");
        }
    }

    #[test]
    fn a_mask_goes_on_where_it_stopped() {
        let plain: Vec<u8> = (0..=255).collect();
        let mask = [0xa1, 0x0b, 0x5c, 0xf0];
        let mut whole = plain.clone();
        apply_mask(&mut whole, mask);
        for (at, byte) in whole.iter().enumerate() {
            assert_eq!(*byte, plain[at] ^ mask[at % 4]);
        }
        for cut in 0..plain.len() {
            let mut parts = Vec::new();
            let next = append_masked(&mut parts, &plain[..cut], mask);
            append_masked(&mut parts, &plain[cut..], next);
            assert_eq!(parts, whole, "cut at {cut}");
        }
    }

    #[test]
    fn codes_that_may_travel() {
        let may = |code: &u16| CloseCode::new(*code).is_some();
        let all: Vec<u16> = (0..=u16::MAX).filter(may).collect();
        let known = (1000..=1003).chain(1007..=1014).chain(3000..=4999);
        assert_eq!(all, known.collect::<Vec<u16>>());
    }

    #[test]
    fn close_payloads() {
        assert_eq!(parse_close(b""), Ok((None, "")));
        assert_eq!(parse_close(b"\x03"), Err(Error::CloseTooShort));
        assert_eq!(parse_close(b"\x03\xe8"), Ok((Some(CloseCode::NORMAL), "")));
        assert_eq!(
            parse_close(b"\x03\xe9bye"),
            Ok((Some(CloseCode::AWAY), "bye"))
        );
        assert_eq!(parse_close(b"\x03\xed"), Err(Error::CloseCode(1005)));
        assert_eq!(parse_close(b"\x03\xe8\xff"), Err(Error::InvalidUtf8));
        let long = "\u{e4}".repeat(100);
        let payload = close_payload(CloseCode::ERROR, &long);
        assert_eq!(payload.len(), 2 + 122);
        let (code, reason) = parse_close(&payload).unwrap();
        assert_eq!((code, reason), (Some(CloseCode::ERROR), &long[..122]));
    }
}
