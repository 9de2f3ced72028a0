use std::sync::mpsc::{Receiver, Sender, channel};

use super::*;
use crate::addr::{Answer, Loss};
use crate::ask::AskKey;
use crate::hosts::tests::{Idle, hosts};

struct Nobody;

impl Notice for Nobody {
    fn left(&self, _: ActorId) {}
}

/// Joins a group, or leaves it.
fn change(inbox: &mut Inbox<()>, hosts: &mut Hosts, key: ActorKey, control: Control) {
    inbox.control(key, control, hosts);
    let pairs: usize = inbox.memberships.values().map(Vec::len).sum();
    let members: usize = inbox
        .groups
        .values()
        .map(|group| group.keys().count())
        .sum();
    assert_eq!(pairs, members);
}

#[test]
fn members_that_come_and_go_leave_nothing_behind() {
    let mut hosts = hosts(0);
    let post = hosts.call.registry.post::<Idle>();
    let mut inbox = Inbox::new::<Idle>(post);
    let groups = [GroupId::next(), GroupId::next()];
    let keys: Vec<_> = (0..100)
        .map(|_| {
            let key = hosts.call.registry.door.reserve();
            hosts.spawn(key, Box::new(|| Box::new(Idle)));
            key
        })
        .collect();
    for round in 0..10 {
        for &key in &keys {
            for id in groups {
                let join = Control::Join(id, Arc::new(Nobody));
                change(&mut inbox, &mut hosts, key, join);
            }
            if round > 0 {
                change(&mut inbox, &mut hosts, key, Control::Leave(groups[0]));
            }
        }
        let places = |id| inbox.groups.get(&id).map_or(0, Group::places);
        assert!(places(groups[0]) <= 300 && places(groups[1]) == 100);
    }
    assert!(!inbox.groups.contains_key(&groups[0]), "it is empty");
    change(&mut inbox, &mut hosts, keys[0], Control::Disband(groups[1]));
    assert!(inbox.groups.is_empty() && inbox.memberships.is_empty());
}

/// Notes what it is told.
struct Notes(Sender<u32>);

impl Actor for Notes {
    type Message = u32;

    fn message(&mut self, message: u32, _: &mut Context<'_, Self>) -> Outcome {
        Ok(self.0.send(message)?)
    }
}

/// An inbox without a poller, whose mailbox has a bound of 16.
struct Bench {
    hosts: Hosts,
    inbox: Inbox<u32>,
}

impl Bench {
    fn new() -> Bench {
        let hosts = hosts(0);
        let post = hosts.call.registry.post::<Notes>();
        let inbox = Inbox::new::<Notes>(post);
        Bench { hosts, inbox }
    }

    fn actor(&mut self) -> (ActorKey, Receiver<u32>) {
        let key = self.hosts.call.registry.door.reserve();
        let (log, told) = channel();
        self.hosts.spawn(key, Box::new(|| Box::new(Notes(log))));
        (key, told)
    }

    fn put(&self, key: ActorKey, what: What<u32>) {
        self.inbox.post.put(Entry::new(key, what));
    }

    fn control(&self, key: ActorKey, control: Control) {
        self.put(key, What::Control(Box::new(control)));
    }

    /// Sends 0, 1, ... until one is refused; how many were accepted.
    fn fill(&self, key: ActorKey) -> u32 {
        (0..)
            .find(|n| self.inbox.post.send(key, *n).is_err())
            .unwrap()
    }

    fn drain(&mut self, quota: usize) -> bool {
        self.inbox.drain(&mut self.hosts, quota)
    }

    /// Places that are counted as taken.
    fn count(&self) -> usize {
        self.inbox.post.mailbox.count()
    }
}

fn message(message: u32) -> What<u32> {
    let held = false;
    What::Message { message, held }
}

fn answer(message: u32) -> What<u32> {
    What::Answer(Box::new(Answer {
        make: Box::new(move || message),
        asking: AskKey::default(),
        loss: Loss::Reply,
    }))
}

#[test]
fn a_turn_takes_out_its_quota_whatever_that_is() {
    for put in [
        (|bench, key, _| bench.put(key, message(1))) as fn(&Bench, ActorKey, ActorKey),
        |bench, _, nobody| bench.put(nobody, message(1)),
        |bench, key, _| bench.put(key, What::Notice(1)),
        |bench, key, _| bench.put(key, answer(1)),
        |bench, key, _| bench.control(key, Control::Leave(GroupId::next())),
    ] {
        let mut bench = Bench::new();
        let (key, _told) = bench.actor();
        let nobody = ActorKey::new(key.index(), key.generation() + 2);
        for _ in 0..8 {
            put(&bench, key, nobody);
        }
        for left in [5, 2, 0] {
            assert!(bench.drain(3), "there may be more");
            assert_eq!(bench.inbox.batch.len(), left);
        }
        assert!(!bench.drain(3));
        assert_eq!(bench.count(), 0);
    }
}

#[test]
fn places_are_given_back_whatever_comes_behind_what_took_them() {
    for behind in [What::Notice, answer] {
        let mut bench = Bench::new();
        let (key, told) = bench.actor();
        for n in 0..3 {
            bench.put(key, message(n));
        }
        bench.put(key, behind(3));
        assert_eq!(bench.count(), 3);
        bench.drain(10);
        assert!(told.try_iter().eq(0..4));
        assert_eq!(bench.count(), 0);
    }
}

#[test]
fn the_share_of_each_actor_is_given_back() {
    let mut bench = Bench::new();
    let (first, first_told) = bench.actor();
    let (second, second_told) = bench.actor();
    for _ in 0..5 {
        assert_eq!((bench.fill(first), bench.fill(second)), (12, 2));
        bench.drain(100);
        assert!(first_told.try_iter().eq(0..12));
        assert!(second_told.try_iter().eq(0..2));
    }
}

#[test]
fn the_share_of_one_that_waited_is_given_back() {
    let mut bench = Bench::new();
    let (key, told) = bench.actor();
    for _ in 0..5 {
        assert_eq!(bench.fill(key), 12);
        bench.hosts.mark(key, Flags::WAITING);
        bench.drain(100);
        assert_eq!((told.try_iter().count(), bench.count()), (0, 12));
        bench.control(key, Control::Room);
        bench.drain(100);
        assert!(told.try_iter().eq(0..12));
        assert_eq!(bench.count(), 0);
    }
}

#[test]
fn what_a_burst_took_is_let_go_of_and_what_a_turn_took_is_kept() {
    let mut bench = Bench::new();
    let (key, _told) = bench.actor();
    // Each of the two deques becomes as large as it has to be.
    for (burst, kept) in [(BATCH_KEPT, BATCH_KEPT), (BATCH_KEPT + 1, 0)] {
        for _ in 0..2 {
            for _ in 0..burst {
                bench.put(key, message(1));
            }
            bench.drain(usize::MAX);
        }
        assert!(bench.inbox.batch.capacity() >= burst);
        for _ in 0..2 {
            bench.inbox.refill();
            assert_eq!(bench.inbox.batch.capacity(), kept);
        }
    }
}
