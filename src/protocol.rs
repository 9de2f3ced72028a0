//! Framing: actors that take and write whole frames, whatever carries them.
//!
//! A [`FrameActor`] is an ordinary [`Actor`] that is called with frames in place of bytes, and writes
//! frames with [`Context::write_frame`]. [`Framed`] puts it behind a [`Codec`] on a stream: [`Lines`],
//! [`LengthPrefixed`], [`Delimited`], [`Fixed`], or one's own. The same actor, unchanged, runs behind
//! a WebSocket, and behind any of them over TLS.
//!
//! ```
//! use greenroom::protocol::{Frame, FrameActor, Framed, Lines};
//! use greenroom::*;
//!
//! struct Shout;
//!
//! impl Actor for Shout {
//!     type Message = ();
//! }
//!
//! impl FrameActor for Shout {
//!     fn frame(&mut self, frame: Frame<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
//!         ctx.write_frame(frame.text()?.to_uppercase())?;
//!         Ok(())
//!     }
//! }
//!
//! # fn main() -> std::io::Result<()> {
//! let system = System::builder().pollers(1).build()?;
//! let listener = system.listen("127.0.0.1:0", |_peer| Framed::new(Lines::new(1024), Shout))?;
//! # use std::io::{Read, Write};
//! # let greenroom::Endpoint::Tcp(addr) = listener.local_addr() else { panic!() };
//! # let mut client = std::net::TcpStream::connect(addr)?;
//! # client.write_all(b"hello\nworld\n")?;
//! # let mut said = [0; 12];
//! # client.read_exact(&mut said)?;
//! # assert_eq!(&said, b"HELLO\nWORLD\n");
//! # Ok(())
//! # }
//! ```
//!
//! Every codec has a limit, in bytes of a frame without what frames it. A frame of just that size
//! passes; of a longer one the connection is told as soon as its length is known, before the rest is
//! waited for. It should be below [`input_max`](crate::ConnectionOptions::input_max) (by default 1
//! MiB), beyond which nothing is kept that is not whole. A frame that lies in one piece in the
//! poller's buffer is not copied; one that came in several packets is put together once. What is
//! incomplete is not looked through again with each packet.
//!
//! An input that ends within a frame ends the connection with [`FrameError::Incomplete`]: half a
//! request is none.

mod codecs;
mod framed;

pub use codecs::{Delimited, Fixed, LengthPrefixed, Lines};
pub use framed::Framed;

pub use crate::frames::{
    Control, Encoder, Frame, FrameKind, Framer, Framing, FramingError, OutFrame, SharedFrame,
};
#[doc(no_inline)]
pub use crate::input::{FrameError, Prefix};

use crate::actor::{Actor, Outcome};
use crate::context::Context;
use crate::input::Input;

/// An actor that takes whole frames.
///
/// All that an [`Actor`] may do, it may: it opens, takes messages, sets timers, pauses, closes. Only
/// its bytes come as frames, so its `readable` is never called; and it writes by
/// [`Context::write_frame`]. ([`Context::write`] is still there, and writes bytes past the framing.)
///
/// A frame that comes while the actor [pauses](Context::pause) or
/// [waits](Context::wait_for_room) is shown when it goes on.
pub trait FrameActor: Actor {
    /// A frame has come. An error closes the connection, as from any callback.
    fn frame(&mut self, frame: Frame<'_>, ctx: &mut Context<'_, Self>) -> Outcome;

    /// The peer has said something beside its frames: only behind a framing that has such, as a
    /// WebSocket. The default passes over it.
    fn control(&mut self, control: Control<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        let _ = (control, ctx);
        Ok(())
    }
}

/// How frames lie in a stream of bytes: what [`Framed`] is made with. To take them apart is here, to
/// write them in [`Framer`].
///
/// ```
/// use greenroom::Input;
/// use greenroom::protocol::*;
///
/// /// Frames of up to nine bytes behind one digit that tells how many.
/// struct Digit;
///
/// impl Codec for Digit {
///     fn decode<'f, 'buf: 'f>(
///         &mut self,
///         input: &mut Input<'buf>,
///         _decoded: &'f mut Vec<u8>,
///     ) -> Result<Option<Frame<'f>>, FramingError> {
///         let Some(digit) = input.bytes().first() else {
///             return Ok(None);
///         };
///         let len = usize::from(digit.checked_sub(b'0').filter(|n| *n < 10).ok_or("no digit")?);
///         let Some(frame) = input.bytes().get(1..1 + len) else {
///             input.need(1 + len);
///             return Ok(None);
///         };
///         input.consume(1 + len);
///         Ok(Some(Frame::new(FrameKind::Binary, frame)))
///     }
/// }
///
/// impl Framer for Digit {
///     fn encode(
///         &self,
///         _kind: FrameKind,
///         payload: &[u8],
///         out: &mut Encoder<'_>,
///     ) -> Result<(), FramingError> {
///         let len = u8::try_from(payload.len()).ok().filter(|n| *n < 10).ok_or("too long")?;
///         out.put(&[b'0' + len]);
///         out.put_payload();
///         Ok(())
///     }
///
///     fn shared_as(&self) -> Option<Framing> {
///         Some(Framing::of::<Digit>(0))
///     }
/// }
///
/// use greenroom::testing::Stage;
/// # use greenroom::{Actor, Context, Outcome};
/// # struct Echo;
/// # impl Actor for Echo { type Message = (); }
/// # impl FrameActor for Echo {
/// #     fn frame(&mut self, frame: Frame<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
/// #         ctx.write_frame(frame)?;
/// #         Ok(())
/// #     }
/// # }
/// let mut stage = Stage::new(Framed::new(Digit, Echo));
/// stage.receive("5hello03y");
/// assert_eq!(stage.output(), "5hello0");
/// stage.receive("ou");
/// assert_eq!(stage.output(), "3you");
/// stage.receive("x");
/// assert_eq!(stage.reason().unwrap().to_string(), "no digit");
/// ```
pub trait Codec: Framer + 'static {
    /// Takes the next frame out of the input: consumes all of it, or, while it is incomplete, returns
    /// `None`. Then nothing should be consumed, and [`Input::need`] be told how much will do, if that
    /// is known. (A codec that has to consume says what it keeps with [`Input::hold`].)
    ///
    /// The frame lies in the input, or, where the codec changes its bytes, in `decoded`, an empty
    /// buffer that serves for this one call.
    ///
    /// # Errors
    ///
    /// Where the bytes are no frame, or one past the limit. The connection then closes.
    fn decode<'f, 'buf: 'f>(
        &mut self,
        input: &mut Input<'buf>,
        decoded: &'f mut Vec<u8>,
    ) -> Result<Option<Frame<'f>>, FramingError>;
}
