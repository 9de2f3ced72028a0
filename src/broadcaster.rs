//! Pushing one message to many actors.
//!
//! Who is a member is kept on the members' own pollers, so a push is one entry in the mailbox of
//! each poller (and actor type) that has members, however many there are; and a member that ends
//! leaves by its poller's hand.

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::actor::{Actor, Outcome};
use crate::addr::{Addr, Control, HasMailbox, Recipient, SendErrorKind, Takes, Waiter, sealed};
use crate::ask::Reply;
use crate::context::Context;
use crate::group::{GroupId, Notice};
use crate::registry::{ActorId, ActorKey};
use crate::timers::TimerKey;

/// Notice that a member has left because it ended: sent to the actor that it had joined, once for
/// each member, in room that is never refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    /// Who.
    pub member: ActorId,
}

impl Notice for Recipient<Left> {
    fn left(&self, member: ActorId) {
        self.post.send_reserved(self.key, Left { member });
    }
}

/// The members of a room: actors of any types that take an `M`, pushed to in one order that is the
/// same for all.
///
/// A field of the actor that does the pushing. That actor's message has to be made from [`Left`],
/// and on receiving one the actor calls [`Members::left`]. [`Broadcaster`] is such an actor, ready
/// made.
///
/// A direct message from the pushing actor to a member and its pushes keep their order, too: both
/// travel in one queue.
pub struct Members<M> {
    group: GroupId,
    targets: Vec<Target<M>>,
    /// Each member, and its place in `targets`.
    members: HashMap<ActorId, usize, ahash::RandomState>,
}

/// One mailbox with members behind it: one actor type on one poller.
struct Target<M> {
    post: Arc<dyn Takes<M>>,
    count: usize,
}

impl<M: Clone + Send + 'static> Members<M> {
    /// No members yet.
    pub fn new() -> Members<M> {
        Members {
            group: GroupId::next(),
            targets: Vec::new(),
            members: HashMap::default(),
        }
    }

    /// Lets `member` in; what is pushed from now on reaches it. `false` when it was in already.
    ///
    /// When it ends, or has ended already, the actor of `ctx` is sent [`Left`].
    pub fn join<A>(&mut self, member: &Recipient<M>, ctx: &Context<'_, A>) -> bool
    where
        A: Actor,
        A::Message: From<Left>,
    {
        let place = self
            .targets
            .iter()
            .position(|target| same(&target.post, &member.post))
            .unwrap_or(self.targets.len());
        if self.members.contains_key(&member.id()) {
            return false;
        }
        if place == self.targets.len() {
            self.targets.push(Target {
                post: member.post.clone(),
                count: 0,
            });
        }
        self.members.insert(member.id(), place);
        self.targets[place].count += 1;
        let notice = Arc::new(ctx.addr().recipient::<Left>());
        member
            .post
            .control(member.key, Control::Join(self.group, notice));
        true
    }

    /// Takes a member out: what is pushed from now on does not reach it. `false` when it was not
    /// in. A [`Left`] of it that was on its way already may still come; [`left`](Members::left)
    /// then says `false`.
    pub fn leave(&mut self, member: &Recipient<M>) -> bool {
        let was_in = self.remove(member.id());
        if was_in {
            member.post.control(member.key, Control::Leave(self.group));
        }
        was_in
    }

    /// To be called on receiving [`Left`]. `false` when that member had been taken out in the
    /// meantime.
    pub fn left(&mut self, left: &Left) -> bool {
        self.remove(left.member)
    }

    fn remove(&mut self, member: ActorId) -> bool {
        let Some(place) = self.members.remove(&member) else {
            return false;
        };
        self.targets[place].count -= 1;
        true
    }

    /// How many members there are.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Whether this actor is a member.
    pub fn contains(&self, member: ActorId) -> bool {
        self.members.contains_key(&member)
    }

    /// Pushes a message to every member: one entry, and one place in the bound, of each mailbox
    /// with members behind it.
    ///
    /// # Errors
    ///
    /// The mailboxes that were full are told, and the message comes back for them; the others have
    /// it. To lose nothing, and to keep the order, push nothing else before
    /// [`push_again`](Members::push_again) has succeeded: keep what came back, call
    /// [`ctx.wait_for_room(&refused)`](Context::wait_for_room), and push again in
    /// [`room`](Actor::room).
    pub fn push(&mut self, message: M) -> Result<(), Refused<M>> {
        let posts = self
            .targets
            .iter()
            .filter(|target| target.count > 0)
            .map(|target| &target.post);
        push_to(self.group, posts, message)
    }

    /// Pushes what was refused to those that refused it.
    ///
    /// # Errors
    ///
    /// As [`push`](Members::push).
    pub fn push_again(&mut self, refused: Refused<M>) -> Result<(), Refused<M>> {
        push_to(self.group, refused.posts.iter(), refused.message)
    }
}

fn push_to<'a, M: Clone + Send + 'static>(
    group: GroupId,
    posts: impl Iterator<Item = &'a Arc<dyn Takes<M>>>,
    message: M,
) -> Result<(), Refused<M>> {
    let mut full = Vec::new();
    for post in posts {
        // A poller that has gone has taken its members with it.
        if post.push(group, message.clone()) == Err(SendErrorKind::Full) {
            full.push(post.clone());
        }
    }
    if full.is_empty() {
        Ok(())
    } else {
        Err(Refused {
            message,
            posts: full,
        })
    }
}

/// By address: the two may be seen through different tables of functions.
fn same<M>(one: &Arc<dyn Takes<M>>, other: &Arc<dyn Takes<M>>) -> bool {
    Arc::as_ptr(one).cast::<()>() == Arc::as_ptr(other).cast::<()>()
}

impl<M: Clone + Send + 'static> Default for Members<M> {
    fn default() -> Members<M> {
        Members::new()
    }
}

impl<M> Drop for Members<M> {
    fn drop(&mut self) {
        for target in &self.targets {
            target
                .post
                .control(ActorKey::default(), Control::Disband(self.group));
        }
    }
}

impl<M> fmt::Debug for Members<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Members")
            .field("len", &self.members.len())
            .finish_non_exhaustive()
    }
}

/// A push that some mailboxes were too full for; see [`Members::push`].
pub struct Refused<M> {
    message: M,
    posts: Vec<Arc<dyn Takes<M>>>,
}

impl<M> Refused<M> {
    /// The message.
    pub fn message(&self) -> &M {
        &self.message
    }

    /// The pollers whose members did not get it. One stands here twice if two of its mailboxes were
    /// full.
    pub fn pollers(&self) -> impl Iterator<Item = usize> {
        self.posts.iter().map(|post| post.door().poller as usize)
    }
}

impl<M> sealed::Sealed for Refused<M> {}
impl<M> HasMailbox for Refused<M> {
    /// Waits for the first of them; whoever pushes again then learns of the next.
    fn wait(&self, waiter: Waiter) -> Option<Waiter> {
        match self.posts.first() {
            Some(post) => post.wait(waiter),
            None => Some(waiter),
        }
    }

    fn mailbox(&self) -> *const () {
        let first = self.posts.first();
        first.map_or(std::ptr::null(), |post| Arc::as_ptr(post).cast())
    }
}

impl<M> fmt::Debug for Refused<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refused")
            .field("pollers", &self.pollers().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

impl<M> fmt::Display for Refused<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "push: {} mailboxes are full", self.posts.len())
    }
}

impl<M: Sync> Error for Refused<M> {}

impl<M: Clone + Send + 'static> Addr<Broadcaster<M>> {
    /// Lets `member` in, or tells it that it may not; never refused, however full the broadcaster's
    /// mailbox is. Callable from any thread.
    pub fn join(&self, member: impl Into<Recipient<M>>) {
        self.notice(Broadcast::Join(member.into()));
    }

    /// Takes a member out; never refused, as [`join`](Addr::join).
    pub fn leave(&self, member: impl Into<Recipient<M>>) {
        self.notice(Broadcast::Leave(member.into()));
    }
}

/// What a [`Broadcaster`] is sent.
#[derive(Debug)]
pub enum Broadcast<M> {
    /// Let this actor in.
    Join(Recipient<M>),
    /// Take it out.
    Leave(Recipient<M>),
    /// Push this to all members.
    Push(M),
    /// How many members there are.
    Count(Reply<usize>),
    /// A member has ended. Sent by its poller.
    Left(Left),
}

impl<M> From<Left> for Broadcast<M> {
    fn from(left: Left) -> Broadcast<M> {
        Broadcast::Left(left)
    }
}

type Make<M> = Box<dyn FnMut(usize) -> M>;

/// The ready-made actor that pushes to its members, on a message or periodically, and can limit how
/// many there are.
///
/// A push that a poller has no room for is kept, and the broadcaster takes no further messages
/// until it has gone through: its own mailbox then fills, its senders are told
/// [full](crate::SendError::is_full), and nothing is lost. Ticks that fall due meanwhile are
/// skipped.
pub struct Broadcaster<M> {
    members: Members<M>,
    refused: Option<Refused<M>>,
    every: Option<(Duration, Make<M>)>,
    limit: Option<(usize, Make<M>)>,
    welcome: Option<Make<M>>,
}

impl<M: Clone + Send + 'static> Broadcaster<M> {
    /// A broadcaster that pushes what it is sent.
    pub fn new() -> Broadcaster<M> {
        Broadcaster {
            members: Members::new(),
            refused: None,
            every: None,
            limit: None,
            welcome: None,
        }
    }

    /// Pushes what `make` makes every `period`; it is given the number of members.
    ///
    /// # Panics
    ///
    /// When the period is zero.
    pub fn every(mut self, period: Duration, make: impl FnMut(usize) -> M + 'static) -> Self {
        assert!(!period.is_zero(), "every: the period must not be zero");
        self.every = Some((period, Box::new(make)));
        self
    }

    /// Lets at most `max` in. Whoever asks to join past it is sent what `refusal` makes instead,
    /// which is given `max`.
    pub fn limit(mut self, max: usize, refusal: impl FnMut(usize) -> M + 'static) -> Self {
        self.limit = Some((max, Box::new(refusal)));
        self
    }

    /// Sends a new member what `make` makes, before anything is pushed to it; `make` is given the
    /// number of members, the new one included.
    pub fn welcome(mut self, make: impl FnMut(usize) -> M + 'static) -> Self {
        self.welcome = Some(Box::new(make));
        self
    }

    fn join(&mut self, member: &Recipient<M>, ctx: &mut Context<'_, Self>) {
        if self.members.contains(member.id()) {
            return;
        }
        // In reserved room, both: there is one for each join, and the joiner waits for it.
        if let Some((max, refusal)) = &mut self.limit
            && self.members.len() >= *max
        {
            let refusal = refusal(*max);
            return member.post.send_reserved(member.key, refusal);
        }
        if let Some(welcome) = &mut self.welcome {
            let welcome = welcome(self.members.len() + 1);
            member.post.send_reserved(member.key, welcome);
        }
        self.members.join(member, ctx);
    }

    fn push(&mut self, message: M, ctx: &mut Context<'_, Self>) {
        if let Err(refused) = self.members.push(message) {
            self.keep(refused, ctx);
        }
    }

    fn keep(&mut self, refused: Refused<M>, ctx: &mut Context<'_, Self>) {
        ctx.wait_for_room(&refused);
        self.refused = Some(refused);
    }
}

impl<M: Clone + Send + 'static> Default for Broadcaster<M> {
    fn default() -> Broadcaster<M> {
        Broadcaster::new()
    }
}

impl<M: Clone + Send + 'static> Actor for Broadcaster<M> {
    type Message = Broadcast<M>;

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        if let Some((period, _)) = &self.every {
            ctx.set_interval(*period);
        }
        Ok(())
    }

    fn message(&mut self, message: Broadcast<M>, ctx: &mut Context<'_, Self>) -> Outcome {
        match message {
            Broadcast::Push(message) => self.push(message, ctx),
            Broadcast::Join(member) => self.join(&member, ctx),
            Broadcast::Leave(member) => {
                self.members.leave(&member);
            }
            Broadcast::Left(left) => {
                self.members.left(&left);
            }
            Broadcast::Count(reply) => {
                // The asker may have given up waiting.
                let _ = reply.send(self.members.len());
            }
        }
        Ok(())
    }

    fn timer(&mut self, _key: TimerKey, ctx: &mut Context<'_, Self>) -> Outcome {
        if self.refused.is_none()
            && let Some((_, make)) = &mut self.every
        {
            let message = make(self.members.len());
            self.push(message, ctx);
        }
        Ok(())
    }

    fn room(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        if let Some(refused) = self.refused.take()
            && let Err(refused) = self.members.push_again(refused)
        {
            self.keep(refused, ctx);
        }
        Ok(())
    }
}

impl<M> fmt::Debug for Broadcaster<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broadcaster")
            .field("members", &self.members)
            .finish_non_exhaustive()
    }
}
