//! What an address is and whom it reaches: the actor that it was made for, or nobody.

mod util;

use std::collections::HashSet;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use greenroom::*;
use util::*;

/// As little `Send` as an actor can be.
struct Homebody {
    _not_send: Rc<()>,
    dropped: Arc<AtomicBool>,
}

impl Actor for Homebody {
    type Message = Reply<ActorId>;

    fn message(&mut self, reply: Reply<ActorId>, ctx: &mut Context<'_, Self>) -> Outcome {
        let _ = reply.send(ctx.addr().id());
        Ok(())
    }
}

impl Drop for Homebody {
    fn drop(&mut self) {
        self.dropped.store(true, SeqCst);
    }
}

fn homebody(system: &System) -> (Addr<Homebody>, Arc<AtomicBool>) {
    let dropped = Arc::<AtomicBool>::default();
    let flag = dropped.clone();
    (
        system.spawn(|| Homebody {
            _not_send: Rc::new(()),
            dropped: flag,
        }),
        dropped,
    )
}

#[test]
fn an_address_is_sixteen_bytes_and_crosses_threads_though_its_actor_does_not() {
    fn crosses<T: Send + Sync + Clone + std::fmt::Debug + 'static>() {}
    crosses::<Addr<Homebody>>();
    assert_eq!(size_of::<Addr<Homebody>>(), 16);
    assert_eq!(size_of::<Option<Addr<Homebody>>>(), 16);
    crosses::<Recipient<Reply<ActorId>>>();
}

#[test]
fn addresses_are_equal_when_they_reach_the_same_actor() {
    let system = builder(2).build().unwrap();
    let ((one, _), (other, _)) = (homebody(&system), homebody(&system));
    assert_eq!(one, one.clone());
    assert_ne!(one, other);
    assert_ne!(one.id(), other.id());
    let (third, _) = homebody(&system);
    assert_eq!(
        third.poller(),
        one.poller(),
        "actors are spawned on the pollers in turn"
    );
    assert_ne!(third, one);
    assert!(format!("{one:?}").contains("Homebody"));
    assert!(format!("{one:?}").contains(&one.id().to_string()));
}

#[test]
fn an_actor_has_its_own_address_from_its_context() {
    let system = builder(2).build().unwrap();
    for _ in 0..2 {
        let (addr, _) = homebody(&system);
        assert_eq!(addr.ask(TIMEOUT, |reply| reply), Ok(addr.id()));
    }
    let probe = spawn(&system, 1, |probe| probe);
    let (poller, id, addr) = probe.run(|ctx| (ctx.poller(), ctx.id(), ctx.addr()));
    assert_eq!((poller, id, addr), (1, probe.addr.id(), probe.addr.clone()));
}

#[test]
fn an_address_keeps_no_actor_alive() {
    let system = builder(1).build().unwrap();
    let (addr, dropped) = homebody(&system);
    let recipient = addr.recipient::<Reply<ActorId>>();
    addr.close();
    settle(&system);
    assert!(dropped.load(SeqCst), "the actor is dropped when it closes");
    assert!(addr.is_gone() && recipient.is_gone());
    assert_eq!(addr.ask(TIMEOUT, |reply| reply), Err(AskError::Gone));

    let (addr, dropped) = homebody(&system);
    drop(system);
    assert!(
        dropped.load(SeqCst),
        "the actor is dropped when its system ends"
    );
    assert_eq!(addr.ask(TIMEOUT, |reply| reply), Err(AskError::Gone));
}

#[test]
fn an_address_holds_no_connection_open() {
    let stage = Stage::new();
    let (client, probe) = stage.pair();
    let (kept, recipient) = (
        probe.addr.clone(),
        Recipient::<Job>::from(probe.addr.clone()),
    );
    probe.addr.close();
    assert_eq!(read_to_end(&client), b"");
    drop(client);
    wait_until("the descriptor has been given back", || stage.is_over());
    assert!(kept.is_gone() && recipient.is_gone());
}

#[test]
fn an_address_of_a_system_that_has_ended_reaches_nobody() {
    let system = builder(1).build().unwrap();
    let handle = system.handle();
    drop(system);
    let dropped = Arc::<AtomicBool>::default();
    let flag = dropped.clone();
    let addr = handle.spawn(|| Homebody {
        _not_send: Rc::new(()),
        dropped: flag,
    });
    assert_eq!(addr.ask(TIMEOUT, |reply| reply), Err(AskError::Gone));
    addr.close();
}

// ---- slots that are used again ------------------------------------------------------------------

/// The slot in an identity, which is printed as `poller.slot` and the slot's generation: `0.3v5`.
fn slot(id: ActorId) -> String {
    let text = id.to_string();
    text.split('v')
        .next()
        .expect("an identity has a slot")
        .to_owned()
}

/// Two probes that had the same slot, the first of them gone.
fn predecessor_and_successor(system: &System) -> (Seen, Seen) {
    let mut gone: Vec<Seen> = Vec::new();
    for _ in 0..100 {
        let now = spawn(system, 0, |probe| probe);
        if let Some(at) = gone
            .iter()
            .position(|seen| slot(seen.addr.id()) == slot(now.addr.id()))
        {
            return (gone.swap_remove(at), now);
        }
        now.addr.close();
        now.closed();
        settle(system);
        gone.push(now);
    }
    panic!("no slot was ever used again: this test has seen nothing");
}

#[test]
fn a_stale_address_does_not_reach_the_next_actor_in_its_slot() {
    let system = builder(1).build().unwrap();
    let (old, new) = predecessor_and_successor(&system);
    assert_ne!(old.addr, new.addr);
    assert!(old.addr.is_gone() && !new.addr.is_gone());
    let before = system.stats().dead_letters;
    assert!(
        old.addr
            .send(Box::new(|_| panic!("this reached a stranger")))
            .unwrap_err()
            .is_gone()
    );
    let recipient: Recipient<Job> = old.addr.clone().into();
    assert!(
        recipient
            .send(Box::new(|_| panic!("this reached a stranger")))
            .unwrap_err()
            .is_gone()
    );
    old.addr.close();
    recipient.close();
    assert_eq!(
        new.run(|_| 7),
        7,
        "the new one was not closed by the old one's address"
    );
    assert_eq!(
        system.stats().dead_letters,
        before,
        "what was refused is no dead letter"
    );
}

#[test]
fn a_message_on_its_way_does_not_reach_the_next_actor_in_the_slot() {
    let system = builder(1).build().unwrap();
    let (keeper, old) = (
        spawn(&system, 0, |probe| probe),
        spawn(&system, 0, |probe| probe),
    );
    let (events, of_new) = channel();
    let before = system.stats();
    let held = hold(&keeper);
    // In the mailbox, one behind the other: the end, the successor, and what was meant for the
    // predecessor.
    old.addr.close();
    keeper.tell(|ctx| {
        ctx.spawn(Probe::new(events));
        Ok(())
    });
    old.tell(|_| panic!("this reached a stranger"));
    drop(held);
    let Event::Opened(new) = next(&of_new) else {
        panic!("`opened` comes first")
    };
    assert_eq!(
        slot(new.id()),
        slot(old.addr.id()),
        "another slot: this test has seen nothing"
    );
    settle(&system);
    let after = system.stats();
    assert_eq!(after.dead_letters - before.dead_letters, 1);
    assert_eq!(after.panics, 0);
    assert!(!new.is_gone());
}

/// Knows its own number and counts what was meant for another.
struct Numbered {
    number: u64,
    lived: u32,
    tally: Arc<Tally>,
}

#[derive(Default)]
struct Tally {
    own: AtomicU64,
    strangers: AtomicU64,
    accepted: AtomicU64,
    refused: AtomicU64,
}

impl Actor for Numbered {
    type Message = u64;

    fn message(&mut self, number: u64, ctx: &mut Context<'_, Self>) -> Outcome {
        let counter = if number == self.number {
            &self.tally.own
        } else {
            &self.tally.strangers
        };
        counter.fetch_add(1, SeqCst);
        self.lived += 1;
        if self.lived == 3 {
            ctx.close();
        }
        Ok(())
    }
}

#[test]
fn stale_addresses_reach_nobody_while_slots_are_used_again_and_again() {
    const ACTORS: u64 = 6_000;
    const THREADS: usize = 3;
    let system = builder(2).build().unwrap();
    let tally = Arc::<Tally>::default();
    let mut slots = HashSet::new();
    thread::scope(|scope| {
        let senders: Vec<_> = (0..THREADS)
            .map(|_| {
                let (sender, addrs) = channel::<(u64, Addr<Numbered>)>();
                let tally = tally.clone();
                scope.spawn(move || {
                    let mut known = Vec::new();
                    for fresh in addrs {
                        known.push(fresh);
                        if known.len() > 16 {
                            known.remove(0);
                        }
                        // Most of these have gone, and others are in their slots.
                        for (number, addr) in &known {
                            let counter = if addr.send(*number).is_ok() {
                                &tally.accepted
                            } else {
                                &tally.refused
                            };
                            counter.fetch_add(1, SeqCst);
                        }
                    }
                });
                sender
            })
            .collect();
        for number in 0..ACTORS {
            let tally = tally.clone();
            let addr = system.spawn(move || Numbered {
                number,
                lived: 0,
                tally,
            });
            slots.insert(slot(addr.id()));
            for sender in &senders {
                sender.send((number, addr.clone())).unwrap();
            }
            if number % 32 == 0 {
                wait_until("most have ended", || number < system.stats().closed + 256);
            }
        }
    });
    let get = |counter: &AtomicU64| counter.load(SeqCst);
    wait_until("all is delivered or counted", || {
        get(&tally.own) + get(&tally.strangers) + system.stats().dead_letters
            >= get(&tally.accepted)
    });
    settle(&system);
    let dead = system.stats().dead_letters;
    assert_eq!(get(&tally.strangers), 0, "messages reached a stranger");
    assert_eq!(
        get(&tally.own) + dead,
        get(&tally.accepted),
        "delivered and dead letters, against accepted"
    );
    assert!(
        get(&tally.refused) > 0 && slots.len() < ACTORS as usize / 2,
        "no slot was used again: this test has seen nothing"
    );
}

#[test]
fn is_gone_tells_the_end_and_no_sooner() {
    let system = builder(1).build().unwrap();
    let (keeper, probe) = (
        spawn(&system, 0, |probe| probe),
        spawn(&system, 0, |probe| probe),
    );
    let held = hold(&keeper);
    probe.addr.close();
    assert!(!probe.addr.is_gone(), "asked to close, and not closed yet");
    drop(held);
    probe.closed();
    wait_until("the address tells it", || probe.addr.is_gone());
    assert_eq!(
        probe.addr.ask(Duration::ZERO, |_: Reply<()>| -> Job {
            Box::new(|_| Ok(()))
        }),
        Err(AskError::Gone)
    );
}
