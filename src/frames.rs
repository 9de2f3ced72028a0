//! Whole frames on their way in and out, and what stands between them and the bytes of a stream.

use std::any::{Any, TypeId};
use std::error::Error;
use std::fmt;
use std::ops::Deref;
use std::str::Utf8Error;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::output::COPY_MAX;

/// What a frame holds, where its framing tells: WebSocket does, and lines are text. Any other
/// frames of a stream are binary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FrameKind {
    /// Text. Of a WebSocket it is UTF-8; of a line nobody has looked: see [`Frame::text`].
    Text,
    /// Any bytes.
    Binary,
}

/// A whole frame that has come, without what frames it. It derefs to its bytes.
///
/// They lie in the poller's buffer or in the adapter's, so they are gone when the callback returns;
/// what is to stay is copied.
#[derive(Clone, Copy)]
pub struct Frame<'a>(Content<'a>);

#[derive(Clone, Copy)]
enum Content<'a> {
    /// Known to be UTF-8.
    Str(&'a str),
    Text(&'a [u8]),
    Binary(&'a [u8]),
}

impl<'a> Frame<'a> {
    /// A frame of such bytes: for codecs and adapters. Whether text is UTF-8 is looked at when
    /// somebody [asks](Frame::text) for it; a frame made from a `&str` is known to be.
    #[inline]
    pub fn new(kind: FrameKind, bytes: &'a [u8]) -> Frame<'a> {
        Frame(match kind {
            FrameKind::Text => Content::Text(bytes),
            FrameKind::Binary => Content::Binary(bytes),
        })
    }

    /// Whether it came as text or as binary.
    #[inline]
    pub fn kind(&self) -> FrameKind {
        match self.0 {
            Content::Str(_) | Content::Text(_) => FrameKind::Text,
            Content::Binary(_) => FrameKind::Binary,
        }
    }

    /// The bytes; they live as long as the buffer, not as the borrow of the frame.
    #[inline]
    pub fn bytes(&self) -> &'a [u8] {
        match self.0 {
            Content::Str(text) => text.as_bytes(),
            Content::Text(bytes) | Content::Binary(bytes) => bytes,
        }
    }

    /// The frame as text, whatever kind it came as. Costs a look at each byte, but for a text frame
    /// of a WebSocket, which has been looked at.
    ///
    /// # Errors
    ///
    /// Where it is no UTF-8. With `?` that closes the connection, told as the reason.
    #[inline]
    pub fn text(&self) -> Result<&'a str, Utf8Error> {
        match self.0 {
            Content::Str(text) => Ok(text),
            Content::Text(bytes) | Content::Binary(bytes) => std::str::from_utf8(bytes),
        }
    }
}

impl<'a> From<&'a str> for Frame<'a> {
    fn from(text: &'a str) -> Frame<'a> {
        Frame(Content::Str(text))
    }
}

impl Deref for Frame<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.bytes()
    }
}

impl AsRef<[u8]> for Frame<'_> {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        self.bytes()
    }
}

/// Shows kind and length only: the bytes may be secret, and many.
impl fmt::Debug for Frame<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame")
            .field("kind", &self.kind())
            .field("len", &self.len())
            .finish()
    }
}

/// What a peer says beside its frames, where the framing has such: what
/// [`FrameActor::control`](crate::protocol::FrameActor::control) is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Control<'a> {
    /// A Pong of a WebSocket, with the payload of the Ping that it answers.
    Pong(&'a [u8]),
    /// The peer closes, in the way of the protocol, and nothing follows: the Close frame of a
    /// WebSocket, with its code, if there is one, and what it gives as the reason. The connection is
    /// closed behind this.
    #[non_exhaustive]
    Close {
        /// As 1000 (all is said) or 1001 (the page is left).
        code: Option<u16>,
        /// In words; empty if none was given.
        reason: &'a str,
    },
}

/// What [`Context::write_frame`](crate::Context::write_frame) is given: a payload, and whether it is
/// text or binary.
///
/// Made by `into` from `&str`, `String` (text), `&[u8]`, `Vec<u8>`, [`Bytes`] (binary), a
/// `&`[`SharedFrame`], or a [`Frame`], whose kind it keeps.
#[derive(Clone)]
pub struct OutFrame<'a> {
    kind: FrameKind,
    payload: Payload<'a>,
}

#[derive(Clone)]
pub(crate) enum Payload<'a> {
    Slice(&'a [u8]),
    Bytes(Bytes),
    Shared(&'a SharedFrame),
}

impl<'a> OutFrame<'a> {
    fn slice(kind: FrameKind, bytes: &'a [u8]) -> OutFrame<'a> {
        let payload = Payload::Slice(bytes);
        OutFrame { kind, payload }
    }

    fn owned(kind: FrameKind, bytes: Bytes) -> OutFrame<'static> {
        let payload = Payload::Bytes(bytes);
        OutFrame { kind, payload }
    }

    /// Whether it goes out as text or as binary, where the framing tells them apart.
    pub fn kind(&self) -> FrameKind {
        self.kind
    }

    /// The payload.
    pub fn bytes(&self) -> &[u8] {
        match &self.payload {
            Payload::Slice(bytes) => bytes,
            Payload::Bytes(bytes) => bytes,
            Payload::Shared(frame) => frame.bytes(),
        }
    }

    pub(crate) fn payload(self) -> Payload<'a> {
        self.payload
    }
}

impl fmt::Debug for OutFrame<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OutFrame")
            .field("kind", &self.kind)
            .field("len", &self.bytes().len())
            .finish()
    }
}

impl<'a> From<&'a str> for OutFrame<'a> {
    #[inline]
    fn from(text: &'a str) -> OutFrame<'a> {
        OutFrame::slice(FrameKind::Text, text.as_bytes())
    }
}

impl<'a> From<&'a String> for OutFrame<'a> {
    fn from(text: &'a String) -> OutFrame<'a> {
        OutFrame::from(text.as_str())
    }
}

impl From<String> for OutFrame<'_> {
    fn from(text: String) -> Self {
        OutFrame::owned(FrameKind::Text, text.into())
    }
}

impl<'a> From<&'a [u8]> for OutFrame<'a> {
    #[inline]
    fn from(bytes: &'a [u8]) -> OutFrame<'a> {
        OutFrame::slice(FrameKind::Binary, bytes)
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for OutFrame<'a> {
    fn from(bytes: &'a [u8; N]) -> OutFrame<'a> {
        OutFrame::slice(FrameKind::Binary, bytes)
    }
}

impl<'a> From<&'a Vec<u8>> for OutFrame<'a> {
    fn from(bytes: &'a Vec<u8>) -> OutFrame<'a> {
        OutFrame::slice(FrameKind::Binary, bytes)
    }
}

impl From<Vec<u8>> for OutFrame<'_> {
    fn from(bytes: Vec<u8>) -> Self {
        OutFrame::owned(FrameKind::Binary, bytes.into())
    }
}

impl From<Bytes> for OutFrame<'_> {
    fn from(bytes: Bytes) -> Self {
        OutFrame::owned(FrameKind::Binary, bytes)
    }
}

impl<'a> From<&'a SharedFrame> for OutFrame<'a> {
    #[inline]
    fn from(frame: &'a SharedFrame) -> OutFrame<'a> {
        let payload = Payload::Shared(frame);
        let kind = frame.kind();
        OutFrame { kind, payload }
    }
}

impl<'a> From<Frame<'a>> for OutFrame<'a> {
    #[inline]
    fn from(frame: Frame<'a>) -> OutFrame<'a> {
        OutFrame::slice(frame.kind(), frame.bytes())
    }
}

/// One payload for many connections: what each framing makes of it is made once, when it is first
/// written on a connection of that framing, and not once for each member. A large payload is never
/// copied (unless the framing changes its bytes, as the masks of WebSocket clients do).
///
/// Cheap to clone, and to be sent in messages to any number of connections of any framings.
///
/// ```
/// use greenroom::protocol::{Frame, FrameActor, Framed, LengthPrefixed, Lines, SharedFrame};
/// use greenroom::testing::Stage;
/// use greenroom::*;
///
/// struct Member;
///
/// impl Actor for Member {
///     type Message = SharedFrame;
///
///     fn message(&mut self, said: SharedFrame, ctx: &mut Context<'_, Self>) -> Outcome {
///         ctx.write_frame(&said)?;
///         Ok(())
///     }
/// }
///
/// impl FrameActor for Member {
///     fn frame(&mut self, _frame: Frame<'_>, _ctx: &mut Context<'_, Self>) -> Outcome {
///         Ok(())
///     }
/// }
///
/// let said = SharedFrame::text("hello");
/// let mut lines = Stage::new(Framed::new(Lines::new(80), Member));
/// lines.send(said.clone());
/// assert_eq!(lines.output(), "hello\n");
/// let mut lengths = Stage::new(Framed::new(LengthPrefixed::new(Prefix::U16Be, 80), Member));
/// lengths.send(said);
/// assert_eq!(lengths.output(), "\0\x05hello");
/// ```
#[derive(Clone)]
pub struct SharedFrame(Arc<Shared>);

struct Shared {
    kind: FrameKind,
    payload: Bytes,
    encoded: Encodings,
}

/// What the framings made of a payload, in a list that only grows: few, and read by many pollers at
/// once.
type Encodings = OnceLock<Box<Encoding>>;

struct Encoding {
    framing: Framing,
    wire: Wire,
    next: Encodings,
}

impl SharedFrame {
    /// Text.
    pub fn text(text: impl Into<String>) -> SharedFrame {
        SharedFrame::new(FrameKind::Text, text.into().into())
    }

    /// Binary.
    pub fn binary(bytes: impl Into<Bytes>) -> SharedFrame {
        SharedFrame::new(FrameKind::Binary, bytes.into())
    }

    fn new(kind: FrameKind, payload: Bytes) -> SharedFrame {
        SharedFrame(Arc::new(Shared {
            kind,
            payload,
            encoded: OnceLock::new(),
        }))
    }

    /// Whether it is text or binary.
    pub fn kind(&self) -> FrameKind {
        self.0.kind
    }

    /// The payload.
    pub fn bytes(&self) -> &Bytes {
        &self.0.payload
    }

    /// What this framing makes of it; made now if it has not been.
    pub(crate) fn encoded(
        &self,
        framing: Framing,
        encode: impl FnOnce() -> Result<Wire, FramingError>,
    ) -> Result<&Wire, FramingError> {
        let mut list = &self.0.encoded;
        while let Some(encoding) = list.get() {
            if encoding.framing == framing {
                return Ok(&encoding.wire);
            }
            list = &encoding.next;
        }
        let mut made = Some(Box::new(Encoding {
            framing,
            wire: encode()?,
            next: OnceLock::new(),
        }));
        // Another thread may add one meanwhile, of this framing or another.
        loop {
            let encoding = list.get_or_init(|| made.take().expect("taken once"));
            if encoding.framing == framing {
                return Ok(&encoding.wire);
            }
            list = &encoding.next;
        }
    }
}

impl fmt::Debug for SharedFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedFrame")
            .field("kind", &self.kind())
            .field("len", &self.bytes().len())
            .finish()
    }
}

/// Why a frame could not be written or read: what the framing says, such as
/// [`FrameError`](crate::FrameError).
pub type FramingError = Box<dyn Error + Send + Sync>;

/// How frames are written on a connection: what an adapter hands to the actor inside, with
/// [`Context::framing`](crate::Context::framing).
///
/// Every [`Codec`](crate::protocol::Codec) is one.
pub trait Framer {
    /// Writes what goes onto the wire for this payload to `out`.
    ///
    /// # Errors
    ///
    /// Where this framing cannot carry it: too long for its length field, a line break in a line.
    /// Then nothing is written.
    fn encode(
        &self,
        kind: FrameKind,
        payload: &[u8],
        out: &mut Encoder<'_>,
    ) -> Result<(), FramingError>;

    /// Under what name the encoding of a [`SharedFrame`] is kept for others: framers of the same
    /// name must make the same bytes of the same payload. `None`, the default, where each connection
    /// makes its own, as with a WebSocket client's masks.
    fn shared_as(&self) -> Option<Framing> {
        None
    }

    /// For a framing that has more to offer than frames.
    #[doc(hidden)]
    fn as_any(&self) -> Option<&dyn Any> {
        None
    }
}

/// The name of a framing: see [`Framer::shared_as`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Framing(TypeId, u64);

impl Framing {
    /// That of framers of type `T` with this parameter, which tells those apart that encode in
    /// different ways. What is encoded under a name stays with the [`SharedFrame`], so there should
    /// be few of them: one for each way to encode, not one for each connection.
    pub fn of<T: 'static>(parameter: u64) -> Framing {
        Framing(TypeId::of::<T>(), parameter)
    }
}

/// Where a [`Framer`] puts what goes onto the wire for one frame: a header, the payload, a trailer;
/// or bytes that it made of the payload.
#[derive(Debug)]
pub struct Encoder<'a> {
    /// What stands around the payload, or instead of it.
    around: &'a mut Vec<u8>,
    /// How much of it stands before the payload, where that goes out as it is.
    before: Option<usize>,
}

impl<'a> Encoder<'a> {
    pub(crate) fn new(around: &'a mut Vec<u8>) -> Encoder<'a> {
        around.clear();
        let before = None;
        Encoder { around, before }
    }

    /// Appends these bytes.
    #[inline]
    pub fn put(&mut self, bytes: &[u8]) {
        self.around.extend_from_slice(bytes);
    }

    /// Appends the payload as it is: it is not copied here.
    ///
    /// # Panics
    ///
    /// If it was before.
    #[inline]
    pub fn put_payload(&mut self) {
        assert!(
            self.before.is_none(),
            "put_payload: the payload stands in its frame once"
        );
        self.before = Some(self.around.len());
    }

    /// The bytes [`put`](Encoder::put) so far, to be changed in place.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.around
    }

    /// How much stands before the payload, if that goes out.
    pub(crate) fn split(&self) -> Option<usize> {
        self.before
    }
}

/// A frame as it goes onto the wire.
pub(crate) struct Wire {
    /// What stands before and behind the payload, or all of the frame.
    pub(crate) around: Bytes,
    /// How much of it stands before, where the payload does not lie in it.
    pub(crate) before: Option<usize>,
}

impl Wire {
    /// Small frames are put together, as every member copies them: one copy is cheaper than three.
    pub(crate) fn new(around: &[u8], before: Option<usize>, payload: &[u8]) -> Wire {
        match before {
            Some(before) if payload.len() < COPY_MAX => {
                let (before, behind) = around.split_at(before);
                let around = [before, payload, behind].concat().into();
                Wire {
                    around,
                    before: None,
                }
            }
            before => Wire {
                around: Bytes::copy_from_slice(around),
                before,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::thread;

    use super::*;

    #[test]
    fn pollers_that_encode_at_once_get_what_is_theirs_and_keep_one_of_each() {
        for _ in 0..200 {
            let shared = SharedFrame::text("payload");
            let start = Barrier::new(4);
            let wires: Vec<Vec<(u64, usize)>> = thread::scope(|scope| {
                let threads: Vec<_> = (0..4)
                    .map(|first: u64| {
                        let (shared, start) = (shared.clone(), &start);
                        scope.spawn(move || {
                            start.wait();
                            let names = (0..3).map(|n| (first + n) % 3);
                            let wires = names.map(|name| {
                                let around = [name as u8];
                                let make = || Ok(Wire::new(&around, None, b""));
                                let wire = shared.encoded(Framing::of::<u8>(name), make);
                                let wire = wire.expect("nothing fails");
                                assert_eq!(wire.around, &around[..]);
                                (name, wire.around.as_ptr().addr())
                            });
                            wires.collect()
                        })
                    })
                    .collect();
                let joined = threads.into_iter().map(|thread| thread.join());
                joined.map(|wires| wires.expect("no panic")).collect()
            });
            let mut all: Vec<_> = wires.into_iter().flatten().collect();
            all.sort_unstable();
            all.dedup();
            assert_eq!(all.len(), 3, "one place for each name: {all:?}");
        }
    }

    #[test]
    fn a_small_frame_is_put_together_and_a_large_one_is_not() {
        let small = Wire::new(b"<>", Some(1), b"payload");
        assert_eq!((&small.around[..], small.before), (&b"<payload>"[..], None));
        let large = Wire::new(b"<>", Some(1), &[0; COPY_MAX]);
        assert_eq!((&large.around[..], large.before), (&b"<>"[..], Some(1)));
    }

    #[test]
    fn what_is_known_of_a_frame() {
        let text = Frame::from("text");
        assert_eq!((text.kind(), text.text()), (FrameKind::Text, Ok("text")));
        for kind in [FrameKind::Text, FrameKind::Binary] {
            let frame = Frame::new(kind, b"\xc3\xbc");
            assert_eq!((frame.kind(), frame.text()), (kind, Ok("\u{fc}")));
            assert!(Frame::new(kind, b"\xc3").text().is_err());
            let out = OutFrame::from(frame);
            assert_eq!((out.kind(), out.bytes()), (kind, &b"\xc3\xbc"[..]));
            assert_eq!(
                format!("{frame:?}"),
                format!("Frame {{ kind: {kind:?}, len: 2 }}")
            );
        }
        let owned = ("x".to_owned(), vec![b'x']);
        let texts = [
            OutFrame::from("x"),
            (&owned.0).into(),
            "x".to_owned().into(),
        ];
        assert!(texts.iter().all(|frame| frame.kind() == FrameKind::Text));
        let bytes = [
            OutFrame::from(b"x"),
            (&b"x"[..]).into(),
            vec![b'x'].into(),
            (&owned.1).into(),
            Bytes::from_static(b"x").into(),
        ];
        assert!(bytes.iter().all(|frame| frame.kind() == FrameKind::Binary));
        assert!(
            texts
                .iter()
                .chain(&bytes)
                .all(|frame| frame.bytes() == b"x")
        );
    }

    #[test]
    #[should_panic(expected = "the payload stands in its frame once")]
    fn a_payload_twice_panics() {
        let mut around = Vec::new();
        let mut out = Encoder::new(&mut around);
        out.put_payload();
        out.put_payload();
    }
}
