//! Addresses: how any thread reaches an actor, and what it is told when it cannot.
//!
//! The way of a message: [`Addr::send`] looks whether the actor is there and its mailbox has room,
//! puts the message into the mailbox of that actor type on that poller, and wakes the poller if it
//! sleeps. The poller's [`Inbox`](crate::inbox::Inbox) takes it out, finds the slot by key and
//! generation, and calls `message`.

use std::cell::Cell;
use std::error::Error;
use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use crate::actor::Actor;
use crate::adopt::{Adoption, Watching};
use crate::ask::AskKey;
use crate::call::Hosted;
use crate::connect::Target;
use crate::datagram::Bound;
use crate::gone::{Monitor, MonitorId};
use crate::group::{GroupId, Notice};
use crate::mailbox::{Admission, Mailbox};
use crate::presence::Hold;
use crate::registry::{ActorId, ActorKey, Counters, Door};

/// The address of an actor of type `A`.
///
/// Sixteen bytes, cheap to clone, usable from every thread and inside actors. It keeps nothing
/// alive and carries no descriptor: when its actor has gone, a send is refused, and no other actor
/// can ever be reached through it.
pub struct Addr<A: Actor> {
    post: Arc<Post<A::Message>>,
    key: ActorKey,
}

impl<A: Actor> Addr<A> {
    pub(crate) fn new(post: Arc<Post<A::Message>>, key: ActorKey) -> Addr<A> {
        Addr { post, key }
    }

    /// The same address, as that of the actor inside an adapter.
    pub(crate) fn of_type<B: Actor<Message = A::Message>>(&self) -> Addr<B> {
        Addr::new(self.post.clone(), self.key)
    }

    pub(crate) fn parts(&self) -> (&Arc<Post<A::Message>>, ActorKey) {
        (&self.post, self.key)
    }

    /// Sends a message; callable from any thread, never blocks.
    ///
    /// `Ok` means that the message will be delivered exactly once, in the order of its sender, or
    /// that the actor had gone by the time its turn came: then it is counted in
    /// [`Stats::dead_letters`](crate::Stats::dead_letters) and dropped.
    ///
    /// A poller that is awake costs its senders no system call, one that sleeps a single write for
    /// any number of messages.
    ///
    /// # Errors
    ///
    /// The message comes back, because the mailbox is [full](SendError::is_full) or the actor has
    /// [gone](SendError::is_gone). The mailbox is that of all actors of one type on one poller
    /// ([`Builder::mailbox_bound`](crate::Builder::mailbox_bound)); when it is more than half full,
    /// a single actor may hold no more further places than are free, so that a flood to one leaves
    /// room to its neighbours (a dynamic threshold, Choudhury and Hahne 1998).
    ///
    /// Inside a callback `addr.send(m)?` closes the *sender* when the receiver is full or gone.
    /// Keep the message and call [`Context::wait_for_room`](crate::Context::wait_for_room) where it
    /// must not be lost.
    pub fn send(&self, message: A::Message) -> Result<(), SendError<A::Message>> {
        self.post.send(self.key, message)
    }

    /// Sends in reserved room.
    pub(crate) fn notice(&self, message: A::Message) {
        self.post.put(Entry::new(self.key, What::Notice(message)));
    }

    /// Has the actor be shown what has come to its socket before what is sent from here on.
    pub(crate) fn look(&self) {
        self.post.control(self.key, Control::Look);
    }

    /// Asks the actor to close after flushing, as [`Context::close`](crate::Context::close) does.
    /// Never refused; nothing happens when it has gone. Messages sent earlier are delivered first.
    /// An actor that is still [connecting](crate::Context::connect) ends at once, with
    /// [`ConnectErrorKind::Closed`](crate::ConnectErrorKind::Closed), and messages that waited for it
    /// are dead letters.
    pub fn close(&self) {
        self.post.control(self.key, Control::Close);
    }

    /// Whether the actor has gone, at this moment as seen from this thread: a hint, for whoever
    /// cleans up lists of addresses.
    pub fn is_gone(&self) -> bool {
        !self.post.door.is_here(self.key)
    }

    /// How many bytes of output wait for the connection's socket, to be asked from any thread;
    /// `None` when the actor has gone, 0 for one without a socket.
    ///
    /// What the socket has refused, as its poller saw it when it last tried: from that moment on
    /// what more is written counts at once, and what the peer makes room for when the poller sends
    /// it, which it does when the selector says so. What a callback has just written and the poller
    /// not yet tried to send is not in it ([`Context::queued`](crate::Context::queued) has that, in
    /// a callback). A figure of 4 GiB or more is told as 4 GiB less one.
    ///
    /// Reads one word, and stops nobody. A connection whose socket takes all that is written costs
    /// this nothing; one whose socket refuses bytes, a store each time.
    /// The example `backpressure` shows it at work.
    pub fn queued(&self) -> Option<usize> {
        self.post.door.queued(self.key)
    }

    /// The identity of the actor, for maps and logs.
    pub fn id(&self) -> ActorId {
        ActorId::new(self.post.door.poller, self.key)
    }

    /// The poller on which the actor lives, counted from 0.
    pub fn poller(&self) -> usize {
        self.post.door.poller as usize
    }

    /// This address as one that takes an `M`, converted into the actor's message.
    pub fn recipient<M>(&self) -> Recipient<M>
    where
        M: Send + 'static,
        A::Message: From<M>,
    {
        Recipient {
            post: self.post.clone(),
            key: self.key,
        }
    }
}

impl<A: Actor> Clone for Addr<A> {
    fn clone(&self) -> Addr<A> {
        Addr {
            post: self.post.clone(),
            key: self.key,
        }
    }
}

impl<A: Actor> PartialEq for Addr<A> {
    fn eq(&self, other: &Addr<A>) -> bool {
        self.key == other.key && Arc::ptr_eq(&self.post, &other.post)
    }
}

impl<A: Actor> Eq for Addr<A> {}

impl<A: Actor> fmt::Debug for Addr<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Addr<{}>({})", std::any::type_name::<A>(), self.id())
    }
}

/// The address of any actor that takes an `M`, as its message or converted into it: what lets
/// actors of different types be members of one room. Same promises as [`Addr`]; a send allocates
/// nothing.
pub struct Recipient<M> {
    pub(crate) post: Arc<dyn Takes<M>>,
    pub(crate) key: ActorKey,
}

impl<M: Send + 'static> Recipient<M> {
    /// Sends a message, as [`Addr::send`] does.
    ///
    /// # Errors
    ///
    /// As [`Addr::send`].
    pub fn send(&self, message: M) -> Result<(), SendError<M>> {
        self.post.send(self.key, message)
    }

    /// As [`Addr::close`].
    pub fn close(&self) {
        self.post.control(self.key, Control::Close);
    }

    /// As [`Addr::is_gone`].
    pub fn is_gone(&self) -> bool {
        !self.post.door().is_here(self.key)
    }

    /// As [`Addr::queued`].
    pub fn queued(&self) -> Option<usize> {
        self.post.door().queued(self.key)
    }

    /// As [`Addr::id`].
    pub fn id(&self) -> ActorId {
        ActorId::new(self.post.door().poller, self.key)
    }

    /// As [`Addr::poller`].
    pub fn poller(&self) -> usize {
        self.post.door().poller as usize
    }
}

impl<M> Clone for Recipient<M> {
    fn clone(&self) -> Recipient<M> {
        Recipient {
            post: self.post.clone(),
            key: self.key,
        }
    }
}

impl<M> fmt::Debug for Recipient<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Recipient<{}>({})",
            std::any::type_name::<M>(),
            ActorId::new(self.post.door().poller, self.key)
        )
    }
}

impl<A, M> From<Addr<A>> for Recipient<M>
where
    A: Actor,
    M: Send + 'static,
    A::Message: From<M>,
{
    fn from(addr: Addr<A>) -> Recipient<M> {
        Recipient {
            post: addr.post,
            key: addr.key,
        }
    }
}

/// Something with a mailbox whose room can be waited for: [`Addr`], [`Recipient`],
/// [`Refused`](crate::Refused).
pub trait HasMailbox: sealed::Sealed {
    #[doc(hidden)]
    fn wait(&self, waiter: Waiter) -> Option<Waiter>;

    /// Where the mailbox is, to tell one from another.
    #[doc(hidden)]
    fn mailbox(&self) -> *const ();
}

pub(crate) mod sealed {
    #[allow(unnameable_types)]
    pub trait Sealed {}
}

impl<A: Actor> sealed::Sealed for Addr<A> {}
impl<A: Actor> HasMailbox for Addr<A> {
    fn wait(&self, waiter: Waiter) -> Option<Waiter> {
        wait(&*self.post, self.key, waiter)
    }

    fn mailbox(&self) -> *const () {
        Arc::as_ptr(&self.post).cast()
    }
}

impl<M> sealed::Sealed for Recipient<M> {}
impl<M> HasMailbox for Recipient<M> {
    fn wait(&self, waiter: Waiter) -> Option<Waiter> {
        wait(&*self.post, self.key, waiter)
    }

    fn mailbox(&self) -> *const () {
        Arc::as_ptr(&self.post).cast()
    }
}

/// An actor that has gone counts as room: there is nothing to wait for.
fn wait(post: &(impl Controlled + ?Sized), key: ActorKey, waiter: Waiter) -> Option<Waiter> {
    if post.door().is_here(key) {
        post.wait(waiter)
    } else {
        Some(waiter)
    }
}

/// An actor that waits for room in somebody's mailbox.
#[doc(hidden)]
pub struct Waiter {
    pub(crate) post: Arc<dyn Controlled>,
    pub(crate) key: ActorKey,
}

impl Waiter {
    pub(crate) fn tell(self) {
        self.post.control(self.key, Control::Room);
    }
}

impl fmt::Debug for Waiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Waiter({})",
            ActorId::new(self.post.door().poller, self.key)
        )
    }
}

/// A message that could not be sent; it is inside.
pub struct SendError<M> {
    kind: SendErrorKind,
    /// A lock that is never contended, only there because it makes any message that is `Send` also
    /// `Sync`, as `Box<dyn Error + Send + Sync>` asks.
    message: Mutex<M>,
}

/// Why a message could not be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendErrorKind {
    /// The mailbox is at its bound, or the actor at its share of it.
    Full,
    /// The actor has gone.
    Gone,
}

impl<M> SendError<M> {
    pub(crate) fn new(kind: SendErrorKind, message: M) -> SendError<M> {
        SendError {
            kind,
            message: Mutex::new(message),
        }
    }

    /// Why.
    pub fn kind(&self) -> SendErrorKind {
        self.kind
    }

    /// The mailbox is at its bound, or the actor at its share of it: later it may go.
    pub fn is_full(&self) -> bool {
        self.kind == SendErrorKind::Full
    }

    /// The actor has gone: it will never go.
    pub fn is_gone(&self) -> bool {
        self.kind == SendErrorKind::Gone
    }

    /// The message.
    pub fn into_message(self) -> M {
        self.message
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl<M> fmt::Debug for SendError<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendError")
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

impl<M> fmt::Display for SendError<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            SendErrorKind::Full => "send: the receiver's mailbox is full",
            SendErrorKind::Gone => "send: the receiver has gone",
        })
    }
}

impl<M> Error for SendError<M> {}

/// One place in a mailbox.
pub(crate) struct Entry<M> {
    pub(crate) key: ActorKey,
    pub(crate) what: What<M>,
}

impl<M> Entry<M> {
    pub(crate) fn new(key: ActorKey, what: What<M>) -> Entry<M> {
        Entry { key, what }
    }

    /// How many places it takes in the mailbox's bound: what must not be refused takes none.
    pub(crate) fn places(&self) -> usize {
        match self.what {
            What::Message { .. } | What::Push(_) => 1,
            What::Notice(_) | What::Answer(_) | What::Control(_) => 0,
        }
    }
}

/// Everything but a message is boxed, so that a message's place is as small as can be, 16 bytes and
/// the message: what a send costs is mostly the cache lines that travel from the sender's processor
/// to the poller's.
pub(crate) enum What<M> {
    Message {
        message: M,
        /// Whether the receiver's share was counted up for it, see
        /// [`Presence::hold`](crate::presence::Presence::hold).
        held: bool,
    },
    /// A message of the framework's own making, which is never refused.
    Notice(M),
    /// The answer to a question that this actor asked.
    Answer(Box<Answer<M>>),
    /// One entry for all members of a group on this poller.
    Push(Box<Push<M>>),
    Control(Box<Control>),
}

/// What the members of a group are pushed: each is given what the closure makes.
pub(crate) struct Push<M> {
    pub(crate) group: GroupId,
    pub(crate) make: Box<dyn FnMut() -> M + Send>,
}

/// The answer to a question, or word that there is none.
pub(crate) struct Answer<M> {
    pub(crate) make: Box<dyn FnOnce() -> M + Send>,
    pub(crate) asking: AskKey,
    pub(crate) loss: Loss,
}

/// What is lost with an answer whose actor has gone.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loss {
    /// Word of something that did not happen.
    Nothing,
    /// Somebody was told that their reply is accepted.
    Reply,
    /// What a thread worked for.
    Work,
    /// Word of an end that was monitored, unless that has been taken back.
    Notice(MonitorId),
}

/// What travels beside the messages, in one order with them, in room that is never refused.
pub(crate) enum Control {
    Spawn(Box<dyn FnOnce() -> Box<dyn Hosted> + Send>),
    Adopt(Box<Adoption>),
    Watch(Box<Watching>),
    /// A datagram socket and its actor.
    Bind(Box<Bound>),
    Connect(Box<Target>, Box<dyn FnOnce() -> Box<dyn Hosted> + Send>),
    Close,
    /// Its socket is to be read now, ahead of what was sent behind this.
    Look,
    Room,
    /// The actor waits for this very mailbox, which has no room even for its own.
    WaitHere,
    Join(GroupId, Arc<dyn Notice>),
    Leave(GroupId),
    Disband(GroupId),
    Monitor(Box<Monitor>),
    Demonitor(MonitorId),
    /// An adapter has been given something from outside: see [`TimerKey::NUDGE`].
    #[cfg_attr(not(feature = "http"), allow(dead_code))]
    Nudge,
}

thread_local! {
    /// The mailbox, by its address, that the running callback may send to past the bound.
    static GRANTED: Cell<*const ()> = const { Cell::new(std::ptr::null()) };
}

/// The mailbox of all actors of one type on one poller.
pub(crate) struct Post<M> {
    pub(crate) mailbox: Mailbox<Entry<M>, Waiter>,
    pub(crate) door: Arc<Door>,
}

impl<M: Send + 'static> Post<M> {
    pub(crate) fn new(bound: usize, door: Arc<Door>) -> Post<M> {
        Post {
            mailbox: Mailbox::new(bound, door.waker.clone()),
            door,
        }
    }

    /// Whether a message for `key` may come in; `Ok(true)` if it was counted against that actor's
    /// share.
    fn admit(&self, key: ActorKey) -> Result<bool, SendErrorKind> {
        if !self.door.is_here(key) {
            return Err(SendErrorKind::Gone);
        }
        match self.admit_within_bound(key) {
            Err(SendErrorKind::Full) if self.is_granted() => Ok(false),
            admitted => admitted,
        }
    }

    /// Runs the `room` of an actor that waited for this very mailbox, and lets it send past the
    /// bound, to twice the bound at most.
    ///
    /// What was set aside for such an actor takes places here, so there may never be room as long
    /// as it waits. It took a message out for each that it hands on, so nothing gathers; where an
    /// actor makes more of them, it waits at twice the bound.
    pub(crate) fn grant(&self, room: impl FnOnce()) {
        GRANTED.set(std::ptr::from_ref(self).cast());
        room();
        GRANTED.set(std::ptr::null());
    }

    fn is_granted(&self) -> bool {
        GRANTED.get() == std::ptr::from_ref(self).cast() && self.has_room_for_own()
    }

    /// Whether an actor that waits for its own mailbox may send, see [`Post::grant`].
    pub(crate) fn has_room_for_own(&self) -> bool {
        self.mailbox.count() < self.mailbox.bound().saturating_mul(2)
    }

    fn admit_within_bound(&self, key: ActorKey) -> Result<bool, SendErrorKind> {
        let bound = self.mailbox.bound();
        match self.mailbox.admit() {
            Admission::Closed => Err(SendErrorKind::Gone),
            Admission::Full => Err(SendErrorKind::Full),
            Admission::Room { count } if count < bound.div_ceil(2) => Ok(false),
            // Crowded: one actor may hold no more of the second half than is free (a dynamic
            // threshold, Choudhury and Hahne 1998), so k flooded actors leave 1/(k+1) of that half
            // to all others. Below half, sends count nothing.
            Admission::Room { count } => {
                let free = u32::try_from(bound - count).unwrap_or(u32::MAX);
                match self.door.presence.hold(key.index(), key.generation(), free) {
                    Hold::Held => Ok(true),
                    Hold::Full => Err(SendErrorKind::Full),
                    Hold::Gone => Err(SendErrorKind::Gone),
                }
            }
        }
    }

    fn send_converted<N>(
        &self,
        key: ActorKey,
        message: N,
        convert: impl FnOnce(N) -> M,
    ) -> Result<(), SendError<N>> {
        match self.admit(key) {
            Ok(held) => {
                let message = convert(message);
                self.put(Entry::new(key, What::Message { message, held }));
                Ok(())
            }
            Err(kind) => Err(SendError::new(kind, message)),
        }
    }

    #[inline]
    pub(crate) fn send(&self, key: ActorKey, message: M) -> Result<(), SendError<M>> {
        self.send_converted(key, message, |message| message)
    }

    /// Puts an entry in without asking whether there is room.
    #[inline]
    pub(crate) fn put(&self, entry: Entry<M>) {
        let places = entry.places();
        if let Some(stranded) = self.mailbox.push(entry, places) {
            self.bury(&stranded);
        }
    }

    /// Takes note of an entry that nobody will take any more. It is a dead letter if a `send` or a
    /// push was told that it is accepted.
    #[cold]
    pub(crate) fn bury(&self, entry: &Entry<M>) {
        let dead = match &entry.what {
            What::Message { .. } | What::Push(_) => true,
            What::Answer(answer) => {
                if answer.loss == Loss::Work {
                    Counters::add(&self.door.counters.unclaimed_work, 1);
                }
                answer.loss == Loss::Reply
            }
            What::Notice(_) => false,
            What::Control(control) => {
                if let Control::Adopt(adoption) = &**control {
                    adoption.origin.live.fetch_sub(1, Ordering::AcqRel);
                    self.door.sockets.fetch_sub(1, Ordering::AcqRel);
                }
                if let Control::Bind(_) = **control {
                    self.door.sockets.fetch_sub(1, Ordering::AcqRel);
                }
                if let Control::Spawn(_)
                | Control::Connect(..)
                | Control::Adopt(_)
                | Control::Watch(_)
                | Control::Bind(_) = **control
                {
                    self.door.leave(entry.key);
                    self.door.free(entry.key);
                }
                false
            }
        };
        if dead {
            Counters::add(&self.door.counters.dead_letters, 1);
        }
    }
}

/// The side of a mailbox that does not depend on what it carries.
pub(crate) trait Controlled: Send + Sync {
    fn control(&self, key: ActorKey, control: Control);
    fn wait(&self, waiter: Waiter) -> Option<Waiter>;
    fn door(&self) -> &Door;
}

impl<M: Send + 'static> Controlled for Post<M> {
    fn control(&self, key: ActorKey, control: Control) {
        self.put(Entry::new(key, What::Control(Box::new(control))));
    }

    fn wait(&self, waiter: Waiter) -> Option<Waiter> {
        let own = Arc::as_ptr(&waiter.post).cast::<()>() == std::ptr::from_ref(self).cast();
        if !own {
            return self.mailbox.wait(waiter);
        }
        if self.has_room_for_own() {
            return Some(waiter);
        }
        // Not in the mailbox's line: what is set aside for those who stand there may keep it from
        // ever being below half.
        self.control(waiter.key, Control::WaitHere);
        None
    }

    fn door(&self) -> &Door {
        &self.door
    }
}

/// A mailbox that an `M` can be put into.
pub(crate) trait Takes<M>: Controlled {
    fn send(&self, key: ActorKey, message: M) -> Result<(), SendError<M>>;
    /// In reserved room: for notices, which are never refused.
    fn send_reserved(&self, key: ActorKey, message: M);
    /// One entry for all members of `group` behind this mailbox.
    fn push(&self, group: GroupId, message: M) -> Result<(), SendErrorKind>
    where
        M: Clone;
}

impl<M, N> Takes<N> for Post<M>
where
    M: From<N> + Send + 'static,
    N: Send + 'static,
{
    fn send(&self, key: ActorKey, message: N) -> Result<(), SendError<N>> {
        self.send_converted(key, message, M::from)
    }

    fn send_reserved(&self, key: ActorKey, message: N) {
        self.put(Entry::new(key, What::Notice(message.into())));
    }

    fn push(&self, group: GroupId, message: N) -> Result<(), SendErrorKind>
    where
        N: Clone,
    {
        match self.mailbox.admit() {
            Admission::Closed => Err(SendErrorKind::Gone),
            Admission::Full if !self.is_granted() => Err(SendErrorKind::Full),
            Admission::Full | Admission::Room { .. } => {
                Counters::add(&self.door.counters.pushes, 1);
                let make = Box::new(move || M::from(message.clone()));
                let push = Box::new(Push { group, make });
                self.put(Entry::new(ActorKey::default(), What::Push(push)));
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_in_a_mailbox_is_16_bytes_and_the_message() {
        assert_eq!(size_of::<Entry<u64>>(), 24);
        assert_eq!(size_of::<Entry<[u64; 5]>>(), 56);
    }
}
