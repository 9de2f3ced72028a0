//! The other end of a WebSocket, written for itself: bytes of frames, and frames out of bytes.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses a part of it"
)]

pub const CONTINUATION: u8 = 0;
pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

/// In the first byte, beside the opcode.
pub const FIN: u8 = 0x80;

pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// What a client asks a server with.
pub fn request(target: &str, more: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n{more}\r\n"
    )
}

/// What a server answers to that.
pub fn response() -> String {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
    )
}

/// A frame with this first byte, masked or not.
pub fn frame(first: u8, mask: Option<[u8; 4]>, payload: &[u8]) -> Vec<u8> {
    let bit = if mask.is_some() { 0x80 } else { 0 };
    let mut bytes = vec![first];
    match payload.len() {
        len @ ..=125 => bytes.push(bit | len as u8),
        len @ 126..=65535 => {
            bytes.push(bit | 126);
            bytes.extend((len as u16).to_be_bytes());
        }
        len => {
            bytes.push(bit | 127);
            bytes.extend((len as u64).to_be_bytes());
        }
    }
    bytes.extend(mask.iter().flatten());
    let mask = mask.unwrap_or_default();
    bytes.extend(
        payload
            .iter()
            .enumerate()
            .map(|(at, byte)| byte ^ mask[at % 4]),
    );
    bytes
}

const MASK: [u8; 4] = [0x3d, 0xa0, 0x00, 0xff];

/// A whole message of a client.
pub fn sent(opcode: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    frame(FIN | opcode, Some(MASK), payload.as_ref())
}

/// A frame of a client, as it is.
pub fn sent_as(first: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    frame(first, Some(MASK), payload.as_ref())
}

/// A whole message of a server.
pub fn served(opcode: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    frame(FIN | opcode, None, payload.as_ref())
}

/// The payload of a Close frame.
pub fn code(code: u16, reason: &str) -> Vec<u8> {
    [&code.to_be_bytes(), reason.as_bytes()].concat()
}

/// A frame that came.
#[derive(Clone, PartialEq, Eq)]
pub struct Came {
    pub first: u8,
    pub mask: Option<[u8; 4]>,
    pub payload: Vec<u8>,
}

impl std::fmt::Debug for Came {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = String::from_utf8_lossy(&self.payload);
        let short: String = text.chars().take(60).collect();
        write!(f, "{:#x} {} {short:?}", self.first, self.payload.len())
    }
}

/// Takes a frame off the front of what came, if it is whole.
pub fn take(bytes: &mut Vec<u8>) -> Option<Came> {
    let (first, second) = (*bytes.first()?, *bytes.get(1)?);
    let (len, mut at) = match second & 0x7f {
        126 => (
            u64::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().unwrap())),
            4,
        ),
        127 => (
            u64::from_be_bytes(bytes.get(2..10)?.try_into().unwrap()),
            10,
        ),
        short => (u64::from(short), 2),
    };
    let mut mask = None;
    if second & 0x80 != 0 {
        mask = Some(bytes.get(at..at + 4)?.try_into().unwrap());
        at += 4;
    }
    let end = at + len as usize;
    let mut payload = bytes.get(at..end)?.to_vec();
    for (at, byte) in payload.iter_mut().enumerate() {
        *byte ^= mask.map_or(0, |mask: [u8; 4]| mask[at % 4]);
    }
    bytes.drain(..end);
    Some(Came {
        first,
        mask,
        payload,
    })
}

/// All frames that came, and nothing else.
#[track_caller]
pub fn frames(bytes: impl AsRef<[u8]>) -> Vec<Came> {
    let mut bytes = bytes.as_ref().to_vec();
    let frames = std::iter::from_fn(|| take(&mut bytes)).collect();
    assert!(bytes.is_empty(), "half a frame: {bytes:x?}");
    frames
}

/// The same, of a server: first bytes and payloads.
#[track_caller]
pub fn served_frames(bytes: impl AsRef<[u8]>) -> Vec<(u8, Vec<u8>)> {
    let unmasked = |came: Came| {
        assert_eq!(came.mask, None, "a server masks nothing");
        (came.first, came.payload)
    };
    frames(bytes).into_iter().map(unmasked).collect()
}
