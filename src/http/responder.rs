//! How an answer finds its request, from wherever it is given.
//!
//! A [`Responder`] may be anywhere: in the service, on a thread of the pool, in another actor's
//! mailbox. What it is given goes onto the [`Desk`] of its connection, and the connection looks there
//! when its service has been called, or when it is nudged from outside.

use std::cell::Cell;
use std::error::Error;
use std::fmt;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use crate::addr::{Control, Controlled};
use crate::http::response::{Response, Switch};
use crate::http::service::Service;
use crate::registry::ActorKey;
use crate::sync::lock;

/// As much of one streamed body may be held back before its writer is refused ...
const STREAM_ROOM: usize = 64 << 10;

/// ... and no more than that when it is told to go on.
const STREAM_LOW: usize = STREAM_ROOM / 4;

/// What a piece counts for beside its bytes: its places on the desk and in the queue.
const PIECE_COST: usize = 128;

thread_local! {
    /// The desk, by its address, of the connection whose service this thread is in.
    static AT_WORK: Cell<*const ()> = const { Cell::new(ptr::null()) };
}

/// While it lives the service of a connection is called, which looks at its desk afterwards.
pub(super) struct AtWork(*const ());

impl AtWork {
    pub(super) fn at<S: Service>(desk: Option<&Arc<Desk<S>>>) -> AtWork {
        let desk = desk.map_or(ptr::null(), |desk| Arc::as_ptr(desk).cast());
        AtWork(AT_WORK.replace(desk))
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        AT_WORK.set(self.0);
    }
}

/// Makes the actor that takes a connection over, on its poller.
pub(super) type Make<S> = Box<dyn FnOnce() -> <S as Service>::Upgraded + Send>;

/// What a responder was given.
pub(super) enum Given<S: Service> {
    Answer(Response),
    /// The pieces of its body follow.
    Stream(Response, Reader),
    Piece(Bytes),
    /// The last piece has been given.
    End,
    /// It will never be.
    Cut,
    Upgrade(Switch, Make<S>),
    /// Nothing, and it is gone.
    Nothing,
}

/// Where the answers to the requests of one connection are put.
pub(super) struct Desk<S: Service> {
    post: Arc<dyn Controlled>,
    key: ActorKey,
    papers: Mutex<Papers<S>>,
}

struct Papers<S: Service> {
    given: Vec<(u64, Given<S>)>,
    /// The connection was nudged and has not looked since.
    nudged: bool,
    /// Nobody will look any more.
    is_closed: bool,
}

impl<S: Service> Desk<S> {
    pub(super) fn new(post: Arc<dyn Controlled>, key: ActorKey) -> Desk<S> {
        let papers = Mutex::new(Papers {
            given: Vec::new(),
            nudged: false,
            is_closed: false,
        });
        Desk { post, key, papers }
    }

    /// What comes too late is dropped where it was given.
    fn put(self: &Arc<Desk<S>>, id: u64, given: Given<S>) {
        let mut papers = lock(&self.papers);
        if papers.is_closed {
            // What it carries is the user's, and is dropped without the lock.
            drop(papers);
            drop(given);
            return;
        }
        papers.given.push((id, given));
        let looks = papers.nudged || AT_WORK.get() == Arc::as_ptr(self).cast();
        if !looks {
            papers.nudged = true;
            drop(papers);
            self.post.control(self.key, Control::Nudge);
        }
    }

    /// Takes all that is there, in exchange for an empty list.
    pub(super) fn take(&self, empty: &mut Vec<(u64, Given<S>)>) {
        let mut papers = lock(&self.papers);
        papers.nudged = false;
        std::mem::swap(&mut papers.given, empty);
    }

    pub(super) fn close(&self) {
        let mut papers = lock(&self.papers);
        papers.is_closed = true;
        let given = std::mem::take(&mut papers.given);
        drop(papers);
        drop(given);
    }

    fn is_closed(&self) -> bool {
        lock(&self.papers).is_closed
    }
}

/// The right, and the duty, to answer one request.
///
/// It can be kept, sent to another thread or actor, and used there: at once in
/// [`request`](Service::request), or later. Answers leave in the order of the requests, whatever the
/// order in which they are given; one that is given before its turn is kept until then. Answering
/// consumes it, so that nothing is answered twice. Dropped without an answer it gives 500 (Internal
/// Server Error). When the connection has ended, answers go nowhere.
///
/// ```
/// use greenroom::http::{Never, Request, Responder, Response, Service};
/// use greenroom::*;
///
/// /// Reads files, without keeping the poller waiting.
/// struct Files;
///
/// impl Actor for Files {
///     type Message = ();
///
///     fn message(&mut self, _: (), _: &mut Context<'_, Self>) -> Outcome {
///         Ok(())
///     }
/// }
///
/// impl Service for Files {
///     type Upgraded = Never<()>;
///
///     fn request(
///         &mut self,
///         request: Request<'_>,
///         responder: Responder<Self>,
///         ctx: &mut Context<'_, Self>,
///     ) -> Outcome {
///         let path = format!("/srv/pages{}", request.path());
///         let work = move || match std::fs::read(path) {
///             Ok(page) => responder.answer(Response::new(200).body(page)),
///             Err(_) => responder.answer(Response::new(404)),
///         };
///         // What is not taken is dropped, and the responder with it: 500.
///         let _ = ctx.offload(work, |_| ());
///         Ok(())
///     }
/// }
/// ```
#[must_use = "dropped, it answers 500"]
pub struct Responder<S: Service> {
    id: u64,
    /// `None` once it has been used.
    desk: Option<Arc<Desk<S>>>,
}

impl<S: Service> Responder<S> {
    pub(super) fn new(id: u64, desk: Arc<Desk<S>>) -> Responder<S> {
        let desk = Some(desk);
        Responder { id, desk }
    }

    /// The number of its request on this connection.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Whether the connection has ended, so that nobody will see an answer: a hint, for whoever would
    /// work for one in vain.
    pub fn is_gone(&self) -> bool {
        self.desk.as_ref().is_none_or(|desk| desk.is_closed())
    }

    /// Answers the request.
    pub fn answer(mut self, response: Response) {
        if let Some(desk) = self.desk.take() {
            desk.put(self.id, Given::Answer(response));
        }
    }

    /// Answers with a body that is not there yet: the pieces are given to what is returned, as they
    /// come. They are sent as chunks or, to a client of HTTP/1.0, up to the connection's end. A body
    /// that `response` has already is its first piece.
    ///
    /// # Panics
    ///
    /// When that body is a file, which is answered with as a whole.
    #[track_caller]
    pub fn stream(mut self, mut response: Response) -> BodyWriter<S> {
        let stream = Arc::new(Stream::default());
        let first = response.take_bytes().expect(
            "http: a file is no first piece of a streamed body; answer with it, or write what is in it",
        );
        let mut writer = BodyWriter {
            id: self.id,
            desk: None,
            stream: stream.clone(),
        };
        if let Some(desk) = self.desk.take() {
            desk.put(self.id, Given::Stream(response, Reader(stream)));
            writer.desk = Some(desk);
        }
        let _ = writer.write(first);
        writer
    }

    /// Answers with 101 and hands the connection over: when all answers before this one have left,
    /// `answer` is sent, and the actor that `make` makes has the connection from then on, the address
    /// and its messages included. The bytes that came behind the request are its first input. The
    /// answer is made by [`Response::switching`], or a whole one as bytes, such as a WebSocket's
    /// handshake makes.
    ///
    /// The service is told [`CloseReason::Detached`](crate::CloseReason::Detached) and dropped; its
    /// timers go with it. `make` runs on the connection's poller, so the actor need not be `Send`.
    ///
    /// A request that did not [ask](super::Request::wants_upgrade) for it is answered with 500, and
    /// so is one whose body is still on its way; with 503 where the connection ends, as for a stop or
    /// because the peer sends no more: nothing begins there.
    ///
    /// # Panics
    ///
    /// When `answer` is not one with the status 101.
    #[track_caller]
    pub fn upgrade<F>(mut self, answer: impl Into<Switch>, make: F)
    where
        F: FnOnce() -> S::Upgraded + Send + 'static,
    {
        let answer = answer.into();
        assert!(
            answer.is_one(),
            "http: an upgrade is answered with Response::switching, or a whole answer with the status 101"
        );
        if let Some(desk) = self.desk.take() {
            desk.put(self.id, Given::Upgrade(answer, Box::new(make)));
        }
    }
}

impl<S: Service> Drop for Responder<S> {
    fn drop(&mut self) {
        if let Some(desk) = self.desk.take() {
            desk.put(self.id, Given::Nothing);
        }
    }
}

impl<S: Service> fmt::Debug for Responder<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Responder")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// What the writer of a body and its connection both look at.
#[derive(Debug, Default)]
pub(super) struct Stream {
    /// Bytes that were given and have not gone on to the connection's output.
    held: AtomicUsize,
    /// The writer was told that there is no room.
    waits: AtomicBool,
    /// Nobody wants more of it.
    is_closed: AtomicBool,
}

impl Stream {
    fn has_room(&self) -> bool {
        if self.held.load(Ordering::SeqCst) < STREAM_ROOM {
            return true;
        }
        // Said before it is looked at again: whoever makes room in between sees it.
        self.waits.store(true, Ordering::SeqCst);
        self.held.load(Ordering::SeqCst) < STREAM_ROOM
    }
}

/// The connection's side of a body. When it goes, nobody wants more.
#[derive(Debug)]
pub(super) struct Reader(Arc<Stream>);

impl Reader {
    /// So many bytes have gone on, with which so many pieces have; whether the writer is to be told.
    pub(super) fn release(&self, bytes: usize, pieces: usize) -> bool {
        let cost = bytes + pieces * PIECE_COST;
        let held = self.0.held.fetch_sub(cost, Ordering::SeqCst) - cost;
        held <= STREAM_LOW && self.0.waits.swap(false, Ordering::SeqCst)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.is_closed.store(true, Ordering::SeqCst);
    }
}

/// The body of an answer, piece by piece. Made by [`Responder::stream`].
///
/// Like a responder it may be used from anywhere. 64 KiB of what is given may wait for the peer, or
/// for the answers in front, each piece counted with 128 bytes more; then a piece is refused, and when there is room again
/// [`drained`](crate::Actor::drained) of the service is called. [`finish`](BodyWriter::finish) ends
/// the body; dropped without it, the connection is reset, so that half a body cannot pass for a whole
/// one.
///
/// ```
/// use greenroom::http::{BodyWriter, Never, Request, Responder, Response, Service};
/// use greenroom::*;
///
/// /// Answers with the numbers up to a million.
/// #[derive(Default)]
/// struct Count {
///     body: Option<(BodyWriter<Count>, u32)>,
/// }
///
/// impl Actor for Count {
///     type Message = ();
///
///     fn drained(&mut self, _: &mut Context<'_, Self>) -> Outcome {
///         let Some((body, next)) = &mut self.body else {
///             return Ok(());
///         };
///         while *next < 1_000_000 && body.has_room() {
///             body.write(format!("{next}\n"))?;
///             *next += 1;
///         }
///         if *next == 1_000_000 && let Some((body, _)) = self.body.take() {
///             body.finish();
///         }
///         Ok(())
///     }
/// }
///
/// impl Service for Count {
///     type Upgraded = Never<()>;
///
///     fn request(
///         &mut self,
///         _: Request<'_>,
///         responder: Responder<Self>,
///         ctx: &mut Context<'_, Self>,
///     ) -> Outcome {
///         self.body = Some((responder.stream(Response::new(200)), 0));
///         self.drained(ctx)
///     }
/// }
/// # let mut stage = testing::Stage::new(http::Http::new(Count::default()));
/// # stage.receive("GET / HTTP/1.0\r\n\r\n");
/// # assert!(stage.output().ends_with(b"999999\n"));
/// ```
#[must_use = "dropped, it resets the connection"]
pub struct BodyWriter<S: Service> {
    id: u64,
    /// `None` once it has ended.
    desk: Option<Arc<Desk<S>>>,
    stream: Arc<Stream>,
}

impl<S: Service> BodyWriter<S> {
    /// The number of its request on this connection.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Whether another piece is taken. Once this said no, [`drained`](crate::Actor::drained) tells
    /// when there is room.
    pub fn has_room(&self) -> bool {
        self.stream.has_room()
    }

    /// Whether anybody will see what is written: not when the connection has ended, nor where the
    /// answer has no body (to HEAD, with 204, 205 or 304).
    pub fn is_wanted(&self) -> bool {
        !self.stream.is_closed.load(Ordering::SeqCst)
    }

    /// Writes a piece. It is not copied, so large ones are better than many.
    ///
    /// # Errors
    ///
    /// The piece comes back where there is no room; wait for [`drained`](crate::Actor::drained) then.
    /// (With `?` that would end the connection.) Where the body is not wanted any more, pieces are
    /// taken and dropped.
    pub fn write(&mut self, piece: impl Into<Bytes>) -> Result<(), NoRoom> {
        let piece = piece.into();
        // An empty chunk would be the end.
        if piece.is_empty() || !self.is_wanted() {
            return Ok(());
        }
        if !self.has_room() {
            return Err(NoRoom(piece));
        }
        let cost = piece.len() + PIECE_COST;
        self.stream.held.fetch_add(cost, Ordering::SeqCst);
        if let Some(desk) = &self.desk {
            desk.put(self.id, Given::Piece(piece));
        }
        Ok(())
    }

    /// Ends the body: it is whole.
    pub fn finish(mut self) {
        if let Some(desk) = self.desk.take() {
            desk.put(self.id, Given::End);
        }
    }
}

impl<S: Service> Drop for BodyWriter<S> {
    fn drop(&mut self) {
        if let Some(desk) = self.desk.take() {
            desk.put(self.id, Given::Cut);
        }
    }
}

impl<S: Service> fmt::Debug for BodyWriter<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BodyWriter")
            .field("id", &self.id)
            .field("stream", &self.stream)
            .finish_non_exhaustive()
    }
}

/// A piece of a body for which there is no room now; it is inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoRoom(Bytes);

impl NoRoom {
    /// The piece.
    pub fn into_piece(self) -> Bytes {
        self.0
    }
}

impl fmt::Display for NoRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("http: as much of this body waits as may; write on when `drained` is called")
    }
}

impl Error for NoRoom {}
