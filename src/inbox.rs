//! The poller's side of the mailbox of one actor type: takes entries out and hands them to their actors, a bounded batch a turn.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;

use crate::actor::{Actor, Outcome};
use crate::addr::{Control, Post, Waiter, What};
use crate::context::{self, Call, Hosted};
use crate::flags::Flags;
use crate::group::{Group, GroupId};
use crate::hosts::{Hosts, Present};
use crate::registry::{ActorId, ActorKey, Counters};

type HashMap<K, V> = std::collections::HashMap<K, V, ahash::RandomState>;

/// The inboxes of all actor types behind one face.
pub(crate) trait AnyInbox {
    /// Delivers up to `quota` messages; whether there may be more.
    fn drain(&mut self, hosts: &mut Hosts, quota: usize) -> bool;
    /// Whether the poller may sleep as far as this mailbox goes; from here on its senders wake the poller.
    fn arm(&self) -> bool;
    /// Takes `arm` back.
    fn disarm(&self);
    /// An actor has ended of which this inbox may keep something.
    fn forget(&mut self, key: ActorKey, hosts: &mut Hosts);
    /// The poller ends: nothing is taken in any more, and what is left is counted as dead letters.
    fn close(&mut self, hosts: &mut Hosts);
}

pub(crate) struct Inbox<M> {
    post: Arc<Post<M>>,
    deliver: fn(&mut dyn Hosted, M, &mut Call) -> Outcome,
    groups: HashMap<GroupId, Group>,
    /// The groups of each member. Invariant: the same pairs as in `groups`.
    memberships: HashMap<ActorKey, Vec<GroupId>>,
    /// A push that is being handed to its members; nothing else is taken out of the mailbox before it is done, so that all
    /// members see one order.
    walk: Option<Walk<M>>,
    /// Messages of actors without a socket that wait for room elsewhere: their input is paused. They go on counting
    /// against the mailbox's bound, so that the wait reaches back to their senders.
    aside: HashMap<ActorKey, VecDeque<Aside<M>>>,
    /// Actors whose messages set aside may be delivered now.
    resumed: VecDeque<ActorKey>,
    /// Reused by `settle`.
    waiters: Vec<Waiter>,
}

struct Walk<M> {
    group: GroupId,
    next: usize,
    make: Box<dyn FnMut() -> M + Send>,
}

struct Aside<M> {
    message: M,
    held: bool,
}

impl<M: Send + 'static> Inbox<M> {
    pub(crate) fn new<A: Actor<Message = M>>(post: Arc<Post<M>>) -> Inbox<M> {
        Inbox {
            post,
            deliver: context::deliver::<A>,
            groups: HashMap::default(),
            memberships: HashMap::default(),
            walk: None,
            aside: HashMap::default(),
            resumed: VecDeque::new(),
            waiters: Vec::new(),
        }
    }

    /// Tells the senders that `taken` places are free (or, negative, that as many more are taken).
    ///
    /// With nothing taken, too: waiters that were told before may have had nothing to send, and the others are told now.
    fn settle(&mut self, taken: isize) {
        match usize::try_from(taken) {
            Ok(freed) => self.post.mailbox.release(freed, &mut self.waiters),
            Err(_) => self.post.mailbox.occupy(taken.unsigned_abs()),
        }
        for waiter in self.waiters.drain(..) {
            waiter.tell();
        }
    }

    /// Delivers one message; returns the number of places that it gave back.
    fn message(&mut self, key: ActorKey, held: bool, message: M, hosts: &mut Hosts) -> isize {
        match hosts.present(key) {
            Present::Aside => {
                self.put_aside(key, Aside { message, held }, hosts);
                return 0;
            }
            Present::At(index) => {
                let deliver = self.deliver;
                hosts.call(index, |actor, call| deliver(actor, message, call));
            }
            Present::No => {
                Counters::add(&self.post.door.counters.dead_letters, 1);
                hosts.drop_guarded(message);
            }
        }
        if held {
            self.post
                .door
                .presence
                .unhold(key.index(), key.generation());
        }
        1
    }

    /// Delivers what travels in reserved room; nobody who sent it counts it as a letter.
    fn notice(&mut self, key: ActorKey, message: M, hosts: &mut Hosts) -> isize {
        if matches!(hosts.present(key), Present::No) {
            hosts.drop_guarded(message);
            return 1;
        }
        self.message(key, false, message, hosts)
    }

    fn put_aside(&mut self, key: ActorKey, aside: Aside<M>, hosts: &mut Hosts) {
        self.aside.entry(key).or_default().push_back(aside);
        hosts.mark(key, Flags::ASIDE | Flags::KNOWN_TO_INBOX);
    }

    /// Delivers what was set aside for the first resumed actor.
    fn resume(&mut self, hosts: &mut Hosts, left: &mut usize) -> isize {
        let Some(&key) = self.resumed.front() else {
            return 0;
        };
        let mut taken = 0;
        while *left > 0 && !hosts.is_waiting(key) {
            let Some(Aside { message, held }) =
                self.aside.get_mut(&key).and_then(VecDeque::pop_front)
            else {
                break;
            };
            *left -= 1;
            // Not for `message` to see the flag that would set it aside again.
            hosts.unmark(key, Flags::ASIDE);
            taken += self.message(key, held, message, hosts);
            hosts.mark(key, Flags::ASIDE);
        }
        if self.aside.get(&key).is_none_or(VecDeque::is_empty) {
            self.aside.remove(&key);
            hosts.unmark(key, Flags::ASIDE);
            self.resumed.pop_front();
        } else if hosts.is_waiting(key) {
            self.resumed.pop_front();
        }
        taken
    }

    /// Hands the push under way to its next members.
    fn walk(&mut self, hosts: &mut Hosts, left: &mut usize) -> isize {
        let Some(mut walk) = self.walk.take() else {
            return 0;
        };
        let mut taken = 0;
        while *left > 0 {
            let Some(group) = self
                .groups
                .get(&walk.group)
                .filter(|group| walk.next < group.places())
            else {
                self.end_walk(walk.group);
                return taken;
            };
            *left -= 1;
            let key = group.at(walk.next);
            walk.next += 1;
            match hosts.present(key) {
                Present::At(index) => {
                    let (deliver, make) = (self.deliver, &mut walk.make);
                    hosts.call(index, |actor, call| deliver(actor, make(), call));
                }
                // A place more than the one that the push took: what is set aside counts.
                Present::Aside => {
                    if let Some(message) = hosts.guarded(&mut walk.make) {
                        self.put_aside(
                            key,
                            Aside {
                                message,
                                held: false,
                            },
                            hosts,
                        );
                        taken -= 1;
                    }
                }
                Present::No => {}
            }
        }
        self.walk = Some(walk);
        taken
    }

    fn end_walk(&mut self, group: GroupId) {
        if let Some(found) = self.groups.get_mut(&group) {
            found.compact();
            if found.is_empty() {
                self.groups.remove(&group);
            }
        }
    }

    fn control(&mut self, key: ActorKey, control: Control, hosts: &mut Hosts) {
        match control {
            Control::Spawn(make) => hosts.spawn(key, make),
            Control::Close => hosts.close_by_address(key),
            Control::Room => {
                hosts.room(key);
                if self.aside.contains_key(&key) && !self.resumed.contains(&key) {
                    self.resumed.push_back(key);
                }
            }
            Control::Join(id, notice) => {
                if !matches!(hosts.present(key), Present::No) {
                    self.groups
                        .entry(id)
                        .or_insert_with(|| Group::new(notice))
                        .join(key);
                    let memberships = self.memberships.entry(key).or_default();
                    if !memberships.contains(&id) {
                        memberships.push(id);
                    }
                    hosts.mark(key, Flags::KNOWN_TO_INBOX);
                } else {
                    notice.left(ActorId::new(self.post.door.poller, key));
                }
            }
            Control::Leave(id) => {
                self.leave(id, key);
                self.drop_membership(key, id);
            }
            Control::Disband(id) => {
                if let Some(group) = self.groups.remove(&id) {
                    for member in group.keys() {
                        self.drop_membership(member, id);
                    }
                }
            }
        }
    }

    /// Takes a member out of a group; the group's notice if it was in.
    fn leave(&mut self, id: GroupId, key: ActorKey) -> Option<Arc<dyn crate::group::Notice>> {
        let group = self.groups.get_mut(&id)?;
        let notice = group.leave(key).then(|| group.notice().clone());
        // A walk keeps its place by index, see `Group::compact`.
        if self.walk.as_ref().is_none_or(|walk| walk.group != id) {
            self.end_walk(id);
        }
        notice
    }

    fn drop_membership(&mut self, key: ActorKey, id: GroupId) {
        if let Some(memberships) = self.memberships.get_mut(&key) {
            memberships.retain(|membership| *membership != id);
            if memberships.is_empty() {
                self.memberships.remove(&key);
            }
        }
    }

    fn bury(&mut self, what: What<M>, hosts: &mut Hosts) {
        self.post.count_dead(&what);
        hosts.drop_guarded(what);
    }
}

impl<M: Send + 'static> AnyInbox for Inbox<M> {
    fn drain(&mut self, hosts: &mut Hosts, quota: usize) -> bool {
        let mut left = quota;
        let mut taken = 0;
        while left > 0 {
            if !self.resumed.is_empty() {
                taken += self.resume(hosts, &mut left);
                continue;
            }
            if self.walk.is_some() {
                taken += self.walk(hosts, &mut left);
                continue;
            }
            let Some(entry) = self.post.mailbox.pop() else {
                break;
            };
            match entry.what {
                What::Message(message) => {
                    left -= 1;
                    taken += self.message(entry.key, entry.held, message, hosts);
                }
                What::Notice(message) => {
                    left -= 1;
                    taken += self.notice(entry.key, message, hosts);
                }
                What::Answer(message, ask) => {
                    left -= 1;
                    hosts.call.answered(entry.key, ask);
                    taken += self.notice(entry.key, message, hosts);
                }
                What::Push(group, make) => {
                    left -= 1;
                    taken += 1;
                    self.walk = Some(Walk {
                        group,
                        next: 0,
                        make,
                    });
                }
                What::Control(control) => {
                    left -= 1;
                    taken += 1;
                    self.control(entry.key, control, hosts);
                }
            }
        }
        self.settle(taken);
        left == 0
    }

    fn arm(&self) -> bool {
        self.post.mailbox.arm()
    }

    fn disarm(&self) {
        self.post.mailbox.disarm();
    }

    fn forget(&mut self, key: ActorKey, hosts: &mut Hosts) {
        for id in self.memberships.remove(&key).unwrap_or_default() {
            if let Some(notice) = self.leave(id, key) {
                notice.left(ActorId::new(self.post.door.poller, key));
            }
        }
        let aside = self.aside.remove(&key).unwrap_or_default();
        self.resumed.retain(|resumed| *resumed != key);
        self.settle(aside.len() as isize);
        for Aside { message, .. } in aside {
            self.bury(What::Message(message), hosts);
        }
    }

    fn close(&mut self, hosts: &mut Hosts) {
        self.post.mailbox.close(&mut self.waiters);
        for waiter in self.waiters.drain(..) {
            waiter.tell();
        }
        while let Some(entry) = self.post.mailbox.pop() {
            self.bury(entry.what, hosts);
        }
        for (_, aside) in mem::take(&mut self.aside) {
            for Aside { message, .. } in aside {
                self.bury(What::Message(message), hosts);
            }
        }
        hosts.drop_guarded(self.walk.take());
    }
}
