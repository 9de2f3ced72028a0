//! The poller's side of the mailbox of one actor type: takes entries out and hands them to their
//! actors, a bounded batch a turn.

use std::any::{Any, TypeId};
use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::sync::Arc;

use crate::actor::{Actor, Outcome};
use crate::addr::{Control, Entry, Loss, Post, Push, Waiter, What};
use crate::call::{Call, Hosted};
use crate::context::Context;
use crate::flags::Flags;
use crate::gone::{Monitor, MonitorId};
use crate::group::{Group, GroupId, Notice};
use crate::hosts::{Hosts, Present};
use crate::registry::{ActorId, ActorKey};

type HashMap<K, V> = std::collections::HashMap<K, V, ahash::RandomState>;

/// The inboxes of all actor types behind one face.
pub(crate) trait AnyInbox {
    /// Delivers up to `quota` messages; whether there may be more.
    fn drain(&mut self, hosts: &mut Hosts, quota: usize) -> bool;
    /// Whether there are messages to be taken out, or waiters to be told. A hint.
    fn has_work(&self) -> bool;
    /// Whether the poller may sleep as far as this mailbox goes; from here on its senders wake the
    /// poller.
    fn arm(&self) -> bool;
    /// Takes `arm` back.
    fn disarm(&self);
    /// An actor for which messages may have been set aside takes them from here on.
    fn let_in(&mut self, key: ActorKey);
    /// An actor has ended of which this inbox may keep something.
    fn forget(&mut self, key: ActorKey, reason: &'static str, hosts: &mut Hosts);
    /// The poller ends: nothing is taken in any more, and what is left is counted as dead letters.
    fn close(&mut self, hosts: &mut Hosts);
}

/// Places that an emptied deque may keep: what a poller delivers in one turn. A larger one was a
/// burst's.
const BATCH_KEPT: usize = 1024;

/// Pushes that one walk hands out together: enough to make a write of many short lines, and few
/// enough that a member takes little of a turn.
const PUSHES_PER_WALK: usize = 64;

pub(crate) struct Inbox<M> {
    post: Arc<Post<M>>,
    deliver: fn(&mut dyn Hosted, M, &mut Call) -> Outcome,
    deliver_run: fn(&mut dyn Hosted, &mut Run<'_, M>, &mut Call) -> Outcome,
    groups: HashMap<GroupId, Group>,
    /// The groups of each member. Invariant: the same pairs as in `groups`.
    memberships: HashMap<ActorKey, Vec<GroupId>>,
    /// Who is to be told when an actor ends.
    monitors: HashMap<ActorKey, BTreeMap<MonitorId, Monitor>>,
    /// A push that is being handed to its members; nothing else is taken out of the mailbox before
    /// it is done, so that all members see one order.
    walk: Option<Walk<M>>,
    /// Messages of actors without a socket that wait for room elsewhere: their input is paused.
    /// They go on counting against the mailbox's bound, so that the wait reaches back to their
    /// senders.
    aside: HashMap<ActorKey, VecDeque<Entry<M>>>,
    /// Actors that wait for this very mailbox and found no room even for its own, oldest first.
    own: VecDeque<ActorKey>,
    /// Actors whose messages set aside may be delivered now.
    resumed: VecDeque<ActorKey>,
    /// Taken out of the mailbox and not delivered yet.
    batch: VecDeque<Entry<M>>,
    /// Whose share is to be given back, and how much of it: see `unhold`.
    held: (ActorKey, u32),
    /// Reused by `settle`.
    waiters: Vec<Waiter>,
}

struct Walk<M> {
    group: GroupId,
    next: usize,
    /// Several pushes to the same members: each member gets all of them, in their order, before
    /// the next one gets any.
    makes: Vec<Box<dyn FnMut() -> M + Send>>,
}

/// Messages for one actor that follow one another at the front of a batch.
struct Run<'a, M> {
    key: ActorKey,
    batch: &'a mut VecDeque<Entry<M>>,
    /// How many more may be delivered in this turn.
    left: &'a mut usize,
    /// How many of those that were taken out count against the actor's share.
    held: &'a mut u32,
}

impl<M> Run<'_, M> {
    /// Takes the next one out.
    fn next(&mut self) -> Option<M> {
        match self.batch.front()? {
            Entry {
                key,
                what: What::Message { .. },
            } if *key == self.key && *self.left > 0 => {}
            _ => return None,
        }
        let What::Message { message, held } = self.batch.pop_front()?.what else {
            return None;
        };
        *self.left -= 1;
        *self.held += u32::from(held);
        Some(message)
    }
}

impl<M: Send + 'static> Inbox<M> {
    pub(crate) fn new<A: Actor<Message = M>>(post: Arc<Post<M>>) -> Inbox<M> {
        Inbox {
            post,
            deliver: deliver::<A>,
            deliver_run: deliver_run::<A>,
            groups: HashMap::default(),
            memberships: HashMap::default(),
            monitors: HashMap::default(),
            walk: None,
            aside: HashMap::default(),
            own: VecDeque::new(),
            resumed: VecDeque::new(),
            batch: VecDeque::new(),
            held: Default::default(),
            waiters: Vec::new(),
        }
    }

    /// Takes out all that has come.
    fn refill(&mut self) {
        // Two deques go to and fro between the senders and this. One that a burst has made large is
        // let go of.
        if self.batch.capacity() > BATCH_KEPT {
            self.batch = VecDeque::new();
        }
        self.post.mailbox.take(&mut self.batch);
    }

    /// Tells the senders that `taken` places are free (or, negative, that as many more are taken).
    ///
    /// With nothing taken, too: waiters that were told before may have had nothing to send, and the
    /// others are told now.
    fn settle(&mut self, taken: isize) {
        match usize::try_from(taken) {
            Ok(freed) => self.post.mailbox.release(freed, &mut self.waiters),
            Err(_) => self.post.mailbox.occupy(taken.unsigned_abs()),
        }
        for waiter in self.waiters.drain(..) {
            waiter.tell();
        }
    }

    /// What is counted from here on is this actor's share.
    fn hold_for(&mut self, key: ActorKey) {
        if self.held.0 != key {
            self.unhold();
            self.held.0 = key;
        }
    }

    /// Gives back the share of messages delivered in a row to one actor in one go, as a flood is
    /// mostly to one.
    fn unhold(&mut self) {
        let (key, count) = mem::take(&mut self.held);
        if count > 0 {
            let presence = &self.post.door.presence;
            presence.unhold(key.index(), key.generation(), count);
        }
    }

    /// Delivers the message at the front of the batch, which is for `key`, and those for the same
    /// actor behind it; returns the number of places that they gave back.
    fn run(&mut self, key: ActorKey, hosts: &mut Hosts, left: &mut usize) -> isize {
        let Present::At(index) = hosts.present(key) else {
            *left -= 1;
            let entry = self.batch.pop_front();
            return entry.map_or(0, |entry| self.letter(entry, hosts));
        };
        self.hold_for(key);
        let before = *left;
        let deliver_run = self.deliver_run;
        let mut run = Run {
            key,
            batch: &mut self.batch,
            left,
            held: &mut self.held.1,
        };
        hosts.call(index, |actor, call| deliver_run(actor, &mut run, call));
        (before - *left) as isize
    }

    /// Delivers an entry that is the actor's own business; returns the number of places that it
    /// gave back.
    fn letter(&mut self, entry: Entry<M>, hosts: &mut Hosts) -> isize {
        let key = entry.key;
        let present = hosts.present(key);
        if matches!(present, Present::Aside) {
            self.put_aside(entry, hosts);
            return 0;
        }
        if let What::Message { held: true, .. } = entry.what {
            self.hold_for(key);
            self.held.1 += 1;
        }
        let places = entry.places() as isize;
        let Present::At(index) = present else {
            self.bury(entry, hosts);
            return places;
        };
        let deliver = self.deliver;
        match entry.what {
            What::Message { message, .. } | What::Notice(message) => {
                hosts.call(index, |actor, call| deliver(actor, message, call));
            }
            What::Answer(answer) => {
                if let Loss::Notice(id) = answer.loss
                    && !hosts.call.monitors.told(key, id)
                {
                    hosts.drop_guarded(answer);
                    return places;
                }
                hosts.call(index, |actor, call| deliver(actor, (answer.make)(), call));
            }
            What::Push(_) | What::Control(_) => hosts.close_by_address(key),
        }
        places
    }

    /// Sets an entry aside for an actor that waits. It goes on taking its place, so that the wait
    /// is felt by the senders.
    fn put_aside(&mut self, entry: Entry<M>, hosts: &mut Hosts) {
        let key = entry.key;
        self.aside.entry(key).or_default().push_back(entry);
        hosts.mark(key, Flags::ASIDE | Flags::KNOWN_TO_INBOX);
    }

    /// Delivers what was set aside for the first resumed actor.
    fn resume(&mut self, hosts: &mut Hosts, left: &mut usize) -> isize {
        let Some(&key) = self.resumed.front() else {
            return 0;
        };
        let mut taken = 0;
        while *left > 0 && !hosts.is_waiting(key) {
            let Some(entry) = self.aside.get_mut(&key).and_then(VecDeque::pop_front) else {
                break;
            };
            *left -= 1;
            // Not for `letter` to see the flag that would set it aside again.
            hosts.unmark(key, Flags::ASIDE);
            taken += self.letter(entry, hosts);
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

    /// Begins to hand out a push, and with it those to the same members that wait right behind it:
    /// what falls behind catches up, as each member is then written to once for all of them.
    /// Returns how many places they gave back.
    fn begin_walk(&mut self, push: Push<M>) -> isize {
        let Push { group, make } = push;
        let mut makes = vec![make];
        while makes.len() < PUSHES_PER_WALK
            && let Some(entry) = self.batch.pop_front()
        {
            match entry.what {
                What::Push(push) if push.group == group => makes.push(push.make),
                what => {
                    let entry = Entry { what, ..entry };
                    self.batch.push_front(entry);
                    break;
                }
            }
        }
        let taken = makes.len() as isize;
        let next = 0;
        self.walk = Some(Walk { group, next, makes });
        taken
    }

    /// Hands the pushes under way to their next members.
    fn walk(&mut self, hosts: &mut Hosts, left: &mut usize) -> isize {
        let Some(mut walk) = self.walk.take() else {
            return 0;
        };
        // Taken out of the map meanwhile, not looked up for each member: nobody joins or leaves
        // while this runs.
        let Some(group) = self.groups.remove(&walk.group) else {
            hosts.drop_guarded(walk);
            return 0;
        };
        let mut taken = 0;
        while *left > 0 && walk.next < group.places() {
            let key = group.at(walk.next);
            walk.next += 1;
            for make in &mut walk.makes {
                *left = left.saturating_sub(1);
                match hosts.present(key) {
                    Present::At(index) => {
                        let deliver = self.deliver;
                        hosts.call(index, |actor, call| deliver(actor, make(), call));
                    }
                    // A place more than the one that the push took: what is set aside counts.
                    Present::Aside => {
                        if let Some(message) = hosts.guarded(make) {
                            let held = false;
                            let entry = Entry::new(key, What::Message { message, held });
                            self.put_aside(entry, hosts);
                            taken -= 1;
                        }
                    }
                    Present::No => break,
                }
            }
        }
        let is_done = walk.next == group.places();
        self.groups.insert(walk.group, group);
        if is_done {
            self.end_walk(walk.group);
            // With it goes the message, whose drop is the user's.
            hosts.drop_guarded(walk);
        } else {
            self.walk = Some(walk);
        }
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

    /// The mailbox that an actor waited for has room.
    fn room(&mut self, key: ActorKey, hosts: &mut Hosts) {
        if hosts.waits_here(key) {
            self.post.grant(|| hosts.room(key));
        } else {
            hosts.room(key);
        }
        self.let_in(key);
    }

    /// Whether an actor that waits for this very mailbox may go on.
    fn has_room_for_own(&self) -> bool {
        !self.own.is_empty() && self.post.has_room_for_own()
    }

    /// Carries out what travels beside the messages.
    fn control(&mut self, key: ActorKey, control: Control, hosts: &mut Hosts) {
        match control {
            Control::Spawn(make) => hosts.spawn(key, make),
            Control::Adopt(adoption) => hosts.place_adoption(key, *adoption),
            Control::Watch(watching) => hosts.place_watching(key, *watching),
            Control::Bind(bound) => hosts.bind(key, *bound),
            Control::Connect(target, make) => hosts.connect(key, *target, make),
            Control::Close if hosts.is_connecting(key) => hosts.close_by_address(key),
            Control::Close => {
                self.letter(Entry::new(key, What::Control(Box::new(control))), hosts);
            }
            Control::Room => self.room(key, hosts),
            Control::Nudge => hosts.nudge(key),
            Control::Look => hosts.handle_ready(key.token(), true, false),
            Control::WaitHere => self.own.push_back(key),
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
                    self.tell(&*notice, key, hosts);
                }
            }
            Control::Monitor(monitor) if hosts.is_there(key) => {
                let monitors = self.monitors.entry(key).or_default();
                monitors.insert(monitor.id(), *monitor);
                hosts.mark(key, Flags::KNOWN_TO_INBOX);
            }
            // Dropped, it tells that the actor has gone.
            Control::Monitor(monitor) => hosts.drop_guarded(monitor),
            Control::Demonitor(id) => {
                let Some(monitors) = self.monitors.get_mut(&key) else {
                    return;
                };
                let monitor = monitors.remove(&id);
                if monitors.is_empty() {
                    self.monitors.remove(&key);
                }
                hosts.guarded(|| monitor.map(Monitor::forget));
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

    /// Tells a group's owner that a member has ended. Its message is made from that by the user's
    /// code.
    fn tell(&self, notice: &dyn Notice, member: ActorKey, hosts: &mut Hosts) {
        let member = ActorId::new(self.post.door.poller, member);
        hosts.guarded(|| notice.left(member));
    }

    /// Takes a member out of a group; the group's notice if it was in.
    fn leave(&mut self, id: GroupId, key: ActorKey) -> Option<Arc<dyn Notice>> {
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

    fn bury(&mut self, entry: Entry<M>, hosts: &mut Hosts) {
        self.post.bury(&entry);
        hosts.drop_guarded(entry);
    }
}

impl<M: Send + 'static> AnyInbox for Inbox<M> {
    fn drain(&mut self, hosts: &mut Hosts, quota: usize) -> bool {
        // As in most turns. To look is a load; to take is to take the senders' cache line, too. What
        // is sent meanwhile is found by `arm`.
        let is_empty = self.resumed.is_empty() && self.walk.is_none() && self.batch.is_empty();
        if is_empty && !self.has_work() {
            return false;
        }
        let mut left = quota;
        let mut taken = 0;
        let mut refilled = false;
        while left > 0 {
            if !self.resumed.is_empty() {
                taken += self.resume(hosts, &mut left);
                continue;
            }
            if self.walk.is_some() {
                taken += self.walk(hosts, &mut left);
                continue;
            }
            // Once a turn: each look takes the senders' cache line away, for few messages at a
            // time.
            if self.batch.is_empty() && !refilled {
                self.refill();
                refilled = true;
                // Whoever it is for: one that a callback has asked for since comes first.
                hosts.bind_all();
            }
            if let Some(Entry {
                key,
                what: What::Message { .. },
            }) = self.batch.front()
            {
                taken += self.run(*key, hosts, &mut left);
                continue;
            }
            let Some(entry) = self.batch.pop_front() else {
                self.settle(mem::take(&mut taken));
                if self.has_room_for_own()
                    && let Some(key) = self.own.pop_front()
                {
                    left -= 1;
                    self.room(key, hosts);
                    continue;
                }
                break;
            };
            left -= 1;
            match entry.what {
                What::Push(push) => taken += self.begin_walk(*push),
                What::Control(control) => {
                    if matches!(*control, Control::Room) {
                        // Whoever waited for this very mailbox is to find it as it is.
                        self.settle(mem::take(&mut taken));
                    }
                    self.control(entry.key, *control, hosts);
                }
                What::Answer(ref answer) => {
                    hosts.call.answered(entry.key, answer.asking);
                    taken += self.letter(entry, hosts);
                }
                What::Message { .. } | What::Notice(_) => taken += self.letter(entry, hosts),
            }
        }
        self.unhold();
        self.settle(taken);
        // Where messages came there are often more, just being sent. To look once more costs a wait
        // that returns at once; to sleep and be woken costs each side some microseconds.
        left < quota
    }

    fn has_work(&self) -> bool {
        self.post.mailbox.has_work() || self.has_room_for_own()
    }

    fn arm(&self) -> bool {
        self.post.mailbox.arm() && !self.has_room_for_own()
    }

    fn disarm(&self) {
        self.post.mailbox.disarm();
    }

    fn let_in(&mut self, key: ActorKey) {
        if self.aside.contains_key(&key) && !self.resumed.contains(&key) {
            self.resumed.push_back(key);
        }
    }

    fn forget(&mut self, key: ActorKey, reason: &'static str, hosts: &mut Hosts) {
        for (_, monitor) in self.monitors.remove(&key).into_iter().flatten() {
            hosts.guarded(|| monitor.tell(reason));
        }
        for id in self.memberships.remove(&key).unwrap_or_default() {
            if let Some(notice) = self.leave(id, key) {
                self.tell(&*notice, key, hosts);
            }
        }
        let aside = self.aside.remove(&key).unwrap_or_default();
        self.resumed.retain(|resumed| *resumed != key);
        self.settle(aside.iter().map(|entry| entry.places() as isize).sum());
        for entry in aside {
            self.bury(entry, hosts);
        }
    }

    fn close(&mut self, hosts: &mut Hosts) {
        self.post.mailbox.close(&mut self.waiters);
        for waiter in self.waiters.drain(..) {
            waiter.tell();
        }
        loop {
            if self.batch.is_empty() {
                self.refill();
            }
            let Some(entry) = self.batch.pop_front() else {
                break;
            };
            self.bury(entry, hosts);
        }
        for (_, aside) in mem::take(&mut self.aside) {
            for entry in aside {
                self.bury(entry, hosts);
            }
        }
        hosts.drop_guarded(self.walk.take());
    }
}

/// Hands a message to an actor of type `A` behind its erased face. The message is lost if the actor
/// is of another type, which cannot be: a mailbox's keys are those of its own actor type.
fn deliver<A: Actor>(actor: &mut dyn Hosted, message: A::Message, call: &mut Call) -> Outcome {
    match downcast::<A>(actor) {
        Some(actor) => Actor::message(actor, message, &mut Context::new(call)),
        None => Ok(()),
    }
}

/// The same with messages that follow one another, as long as none asks for anything: what entering
/// a callback costs is paid once for all of them.
fn deliver_run<A: Actor>(
    actor: &mut dyn Hosted,
    run: &mut Run<'_, A::Message>,
    call: &mut Call,
) -> Outcome {
    let Some(actor) = downcast::<A>(actor) else {
        return Ok(());
    };
    while let Some(message) = run.next() {
        Actor::message(actor, message, &mut Context::new(call))?;
        if !call.is_quiet() {
            break;
        }
    }
    Ok(())
}

fn downcast<A: Actor>(actor: &mut dyn Hosted) -> Option<&mut A> {
    let actor: &mut dyn Any = actor;
    debug_assert_eq!((*actor).type_id(), TypeId::of::<A>());
    actor.downcast_mut::<A>()
}

#[cfg(test)]
mod tests;
