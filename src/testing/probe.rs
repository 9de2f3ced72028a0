//! An address whose messages a test takes out itself.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::actor::Actor;
use crate::addr::{Addr, Control, Post, Recipient, What};
use crate::gone::Monitor;
use crate::group::{GroupId, Notice};
use crate::registry::{ActorId, ActorKey, Registry};
use crate::sys::WakeFd;

/// Stands in for an actor that the actor under test sends to: an address with a real mailbox, out
/// of which the test takes what came.
///
/// It serves as the [`Addr`] of any actor type with message `M`, as a [`Recipient`], and as a
/// member of [`Members`](crate::Members). To see an actor wait for room, give it a small bound and
/// take nothing out. After taking something out, [`Stage::run`](crate::testing::Stage::run) lets an
/// actor that waited go on. Dropping the probe is the end of the actor that it stands for.
///
/// ```
/// use greenroom::testing::Probe;
///
/// let mut probe = Probe::<&str>::with_bound(2);
/// let recipient = probe.recipient::<&str>();
/// recipient.send("one")?;
/// recipient.send("two")?;
/// assert!(recipient.send("three").unwrap_err().is_full());
/// assert_eq!(probe.take_all(), ["one", "two"]);
/// # Ok::<(), greenroom::SendError<&str>>(())
/// ```
pub struct Probe<M: Send + 'static> {
    post: Arc<Post<M>>,
    key: ActorKey,
    groups: Vec<(GroupId, Arc<dyn Notice>)>,
    monitors: Vec<Monitor>,
    close_asked: bool,
}

impl<M: Send + 'static> Probe<M> {
    /// A probe with a mailbox of the default size.
    pub fn new() -> Probe<M> {
        Probe::with_bound(super::MAILBOX_BOUND)
    }

    /// A probe whose mailbox is bounded as by
    /// [`Builder::mailbox_bound`](crate::Builder::mailbox_bound). The share of one actor is in
    /// force, too: of 16 messages with nobody else about, the 13th is refused.
    ///
    /// # Panics
    ///
    /// When `messages` is less than 2.
    pub fn with_bound(messages: usize) -> Probe<M> {
        assert!(
            messages >= 2,
            "mailbox_bound: at least two messages must have room"
        );
        // No two probes have one identity, as if each lived on a poller of its own.
        static POLLER: AtomicU32 = AtomicU32::new(u32::MAX);
        let poller = POLLER.fetch_sub(1, Ordering::Relaxed);
        let door = Registry::new(poller, WakeFd::simulated(), messages)
            .door
            .clone();
        let key = door.reserve();
        Probe {
            post: Arc::new(Post::new(messages, door)),
            key,
            groups: Vec::new(),
            monitors: Vec::new(),
            close_asked: false,
        }
    }

    /// The address, as that of an actor of type `A`, which is not run.
    pub fn addr<A: Actor<Message = M>>(&self) -> Addr<A> {
        Addr::new(self.post.clone(), self.key)
    }

    /// The address, as one that takes an `N`.
    pub fn recipient<N>(&self) -> Recipient<N>
    where
        M: From<N>,
        N: Send + 'static,
    {
        Recipient {
            post: self.post.clone(),
            key: self.key,
        }
    }

    /// The identity of the actor that the probe stands for.
    pub fn id(&self) -> ActorId {
        ActorId::new(self.post.door.poller, self.key)
    }

    /// Takes out the oldest message.
    pub fn take(&mut self) -> Option<M> {
        let mut taken = None;
        while taken.is_none() {
            let entry = self.post.mailbox.pop()?;
            let places = entry.places();
            if let What::Message { held: true, .. } = entry.what {
                let presence = &self.post.door.presence;
                presence.unhold(self.key.index(), self.key.generation(), 1);
            }
            taken = match entry.what {
                What::Message { message, .. } | What::Notice(message) => Some(message),
                What::Answer(answer) => Some((answer.make)()),
                What::Push(push) => {
                    let is_member = self.groups.iter().any(|(id, _)| *id == push.group);
                    is_member.then(push.make)
                }
                What::Control(control) => {
                    self.control(*control);
                    None
                }
            };
            let mut waiters = Vec::new();
            self.post.mailbox.release(places, &mut waiters);
            for waiter in waiters {
                waiter.tell();
            }
        }
        taken
    }

    /// Takes out all messages, in the order of their arrival.
    pub fn take_all(&mut self) -> Vec<M> {
        std::iter::from_fn(|| self.take()).collect()
    }

    /// Whether [`Addr::close`] came before a message that was taken out, or after the last one when
    /// none is left.
    pub fn is_asked_to_close(&self) -> bool {
        self.close_asked
    }

    fn control(&mut self, control: Control) {
        match control {
            Control::Close => self.close_asked = true,
            Control::Join(group, notice) => {
                if self.groups.iter().all(|(id, _)| *id != group) {
                    self.groups.push((group, notice));
                }
            }
            Control::Leave(group) | Control::Disband(group) => {
                self.groups.retain(|(id, _)| *id != group);
            }
            Control::Monitor(monitor) => self.monitors.push(*monitor),
            Control::Demonitor(id) => {
                let place = self.monitors.iter().position(|one| one.id() == id);
                if let Some(place) = place {
                    self.monitors.swap_remove(place).forget();
                }
            }
            // A probe waits for nobody, and nothing is spawned through its address.
            Control::Room
            | Control::Look
            | Control::Nudge
            | Control::WaitHere
            | Control::Spawn(_)
            | Control::Connect(..)
            | Control::Adopt(_)
            | Control::Watch(_)
            | Control::Bind(_) => {}
        }
    }
}

impl<M: Send + 'static> Default for Probe<M> {
    fn default() -> Probe<M> {
        Probe::new()
    }
}

impl<M: Send + 'static> Drop for Probe<M> {
    fn drop(&mut self) {
        while self.take().is_some() {}
        self.post.door.leave(self.key);
        let mut waiters = Vec::new();
        self.post.mailbox.close(&mut waiters);
        for waiter in waiters {
            waiter.tell();
        }
        for monitor in self.monitors.drain(..) {
            monitor.tell("finished");
        }
        for (_, notice) in self.groups.drain(..) {
            notice.left(ActorId::new(self.post.door.poller, self.key));
        }
    }
}

impl<M: Send + 'static> fmt::Debug for Probe<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Probe<{}>({})", std::any::type_name::<M>(), self.id())
    }
}
