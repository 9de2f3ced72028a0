//! Word of an actor's end to whoever monitors it.
//!
//! The inbox of the monitored keeps a [`Monitor`] for each and tells it when the actor ends, or
//! drops it where there is nobody to be monitored any more: a monitor that is dropped tells, too. The
//! poller of the one who monitors keeps the other end ([`Monitors`]): whoever ends first has the other
//! side forget.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::actor::Actor;
use crate::addr::{Addr, Answer, Control, Controlled, Entry, Loss, Recipient, What};
use crate::ask::AskKey;
use crate::context::Context;
use crate::registry::{ActorId, ActorKey};

type HashMap<K, V> = std::collections::HashMap<K, V, ahash::RandomState>;

/// An actor that was [monitored](Context::monitor) has gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Gone {
    /// Who.
    pub actor: ActorId,
    /// The [name of the reason](crate::CloseReason::name); `None` where the actor had gone before it
    /// was monitored, or never came to be.
    pub reason: Option<&'static str>,
}

/// Names one monitor of an actor, to [end](Context::demonitor) it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MonitorKey(MonitorId);

/// One monitor, or one entry in a directory, of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct MonitorId(u64);

impl MonitorId {
    pub(crate) fn next() -> MonitorId {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        MonitorId(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// Tells of the end of one actor, once: at the latest when it is dropped.
pub(crate) struct Monitor {
    id: MonitorId,
    actor: ActorId,
    tell: Option<Box<dyn FnOnce(Gone) + Send>>,
}

impl Monitor {
    pub(crate) fn new(
        id: MonitorId,
        actor: ActorId,
        tell: impl FnOnce(Gone) + Send + 'static,
    ) -> Monitor {
        let tell = Some(Box::new(tell) as _);
        Monitor { id, actor, tell }
    }

    pub(crate) fn id(&self) -> MonitorId {
        self.id
    }

    pub(crate) fn tell(mut self, reason: &'static str) {
        self.now(Some(reason));
    }

    /// Nobody wants to know any more.
    pub(crate) fn forget(mut self) {
        self.tell = None;
    }

    fn now(&mut self, reason: Option<&'static str>) {
        if let Some(tell) = self.tell.take() {
            let actor = self.actor;
            tell(Gone { actor, reason });
        }
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.now(None);
    }
}

/// The other end: whom the actors of one poller monitor.
#[derive(Default)]
pub(crate) struct Monitors(HashMap<ActorKey, BTreeMap<MonitorId, Monitored>>);

struct Monitored {
    post: Arc<dyn Controlled>,
    key: ActorKey,
}

impl Monitors {
    /// Takes one out that has been told; `false` if it has been ended meanwhile.
    pub(crate) fn told(&mut self, monitor: ActorKey, id: MonitorId) -> bool {
        self.remove(monitor, id).is_some()
    }

    fn remove(&mut self, monitor: ActorKey, id: MonitorId) -> Option<Monitored> {
        let monitored = self.0.get_mut(&monitor)?;
        let found = monitored.remove(&id);
        if monitored.is_empty() {
            self.0.remove(&monitor);
        }
        found
    }

    /// Ends all of one that has gone.
    #[inline]
    pub(crate) fn end(&mut self, monitor: ActorKey) {
        if !self.0.is_empty() {
            for (id, monitored) in self.0.remove(&monitor).into_iter().flatten() {
                monitored.end(id);
            }
        }
    }
}

impl Monitored {
    fn end(self, id: MonitorId) {
        self.post.control(self.key, Control::Demonitor(id));
    }
}

/// An address whose end can be told of: [`Addr`] and [`Recipient`].
pub trait HasEnd: sealed::Sealed {
    #[doc(hidden)]
    fn target(&self) -> Target;
}

mod sealed {
    #[allow(unnameable_types)]
    pub trait Sealed {}
}

/// Tells an actor from all others of the process: also from those of other systems, which
/// [`ActorId`] does not.
pub(crate) type Who = (usize, ActorKey);

/// Where an actor is told of what is no message.
#[doc(hidden)]
pub struct Target {
    pub(crate) post: Arc<dyn Controlled>,
    pub(crate) key: ActorKey,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({})", self.id())
    }
}

impl Target {
    pub(crate) fn id(&self) -> ActorId {
        ActorId::new(self.post.door().poller, self.key)
    }

    pub(crate) fn who(&self) -> Who {
        // Its poller's, which is there for as long as this is.
        (std::ptr::from_ref(self.post.door()).addr(), self.key)
    }

    pub(crate) fn monitor(&self, monitor: Monitor) {
        let monitor = Control::Monitor(Box::new(monitor));
        self.post.control(self.key, monitor);
    }

    pub(crate) fn demonitor(&self, id: MonitorId) {
        self.post.control(self.key, Control::Demonitor(id));
    }
}

impl<A: Actor> sealed::Sealed for Addr<A> {}
impl<A: Actor> HasEnd for Addr<A> {
    fn target(&self) -> Target {
        let (post, key) = self.parts();
        let post = post.clone();
        Target { post, key }
    }
}

impl<M> sealed::Sealed for Recipient<M> {}
impl<M: 'static> HasEnd for Recipient<M> {
    fn target(&self) -> Target {
        let post = self.post.clone();
        Target {
            post,
            key: self.key,
        }
    }
}

impl<A: Actor> Context<'_, A> {
    /// Has this actor told when another one has gone: exactly one message comes, which `notice` makes
    /// in this actor, at once if that one has gone already. It travels in reserved room.
    ///
    /// It ends with either of the two actors, and with [`demonitor`](Context::demonitor). One that
    /// is [supervised](crate::Supervised) has gone when it is not restarted any more. To monitor
    /// the same actor twice brings two notices.
    ///
    /// ```
    /// # use greenroom::*;
    /// # struct Worker;
    /// # impl Actor for Worker { type Message = (); }
    /// struct Boss {
    ///     worker: Addr<Worker>,
    /// }
    ///
    /// impl Actor for Boss {
    ///     type Message = Gone;
    ///
    ///     fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
    ///         ctx.monitor(&self.worker, |gone| gone);
    ///         Ok(())
    ///     }
    ///
    ///     fn message(&mut self, gone: Gone, ctx: &mut Context<'_, Self>) -> Outcome {
    ///         println!("{} has gone: {}", gone.actor, gone.reason.unwrap_or("long ago"));
    ///         self.worker = ctx.spawn(Worker);
    ///         ctx.monitor(&self.worker, |gone| gone);
    ///         Ok(())
    ///     }
    /// }
    /// ```
    pub fn monitor(
        &mut self,
        actor: &impl HasEnd,
        notice: impl FnOnce(Gone) -> A::Message + Send + 'static,
    ) -> MonitorKey {
        let (post, key) = self.mailbox();
        let (id, target) = (MonitorId::next(), actor.target());
        let monitor = Monitor::new(id, target.id(), move |gone| {
            let answer = Answer {
                make: Box::new(move || notice(gone)),
                asking: AskKey::default(),
                loss: Loss::Notice(id),
            };
            post.put(Entry::new(key, What::Answer(Box::new(answer))));
        });
        let monitored = Monitored {
            post: target.post.clone(),
            key: target.key,
        };
        let monitors = &mut self.call().monitors.0;
        monitors.entry(key).or_default().insert(id, monitored);
        target.monitor(monitor);
        MonitorKey(id)
    }

    /// Ends a monitor of this actor: no notice comes from it any more, not even one that is on its way.
    /// `false` when it had come before.
    pub fn demonitor(&mut self, monitor: MonitorKey) -> bool {
        let (_, key) = self.mailbox();
        let ended = self.call().monitors.remove(key, monitor.0);
        let is_ended = ended.is_some();
        if let Some(monitored) = ended {
            monitored.end(monitor.0);
        }
        is_ended
    }
}
