//! What an accepted message may count on: delivered once, in order, one at a time, or counted; and
//! what its way costs.

mod util;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use greenroom::*;
use util::*;

// ---- one at a time ------------------------------------------------------------------------------

#[test]
fn a_message_to_self_is_delivered_after_the_callback() {
    let system = builder(1).build().unwrap();
    let probe = spawn(&system, 0, |probe| probe);
    let (log, logged) = channel();
    probe.tell(move |ctx| {
        log.send("the callback begins").unwrap();
        let again = log.clone();
        let later =
            Box::new(move |_: &mut Context<'_, Probe>| Ok(again.send("its message to itself")?));
        ctx.addr().send(later).unwrap();
        log.send("the callback ends").unwrap();
        Ok(())
    });
    let order: Vec<_> = (0..3).map(|_| next(&logged)).collect();
    assert_eq!(
        order,
        [
            "the callback begins",
            "the callback ends",
            "its message to itself"
        ]
    );
}

/// Checks of each call that no other is under way, that it is on the actor's one thread, and that
/// each sender's come in order.
struct Checker {
    busy: Arc<AtomicBool>,
    home: thread::ThreadId,
    next: HashMap<usize, u32>,
    wrong: Arc<AtomicU32>,
    seen: Arc<AtomicU32>,
}

impl Actor for Checker {
    type Message = (usize, u32);

    fn message(&mut self, (sender, number): (usize, u32), _: &mut Context<'_, Self>) -> Outcome {
        let alone = !self.busy.swap(true, SeqCst);
        let next = self.next.entry(sender).or_default();
        if !alone || thread::current().id() != self.home || *next != number {
            self.wrong.fetch_add(1, SeqCst);
        }
        *next = number + 1;
        self.busy.store(false, SeqCst);
        self.seen.fetch_add(1, SeqCst);
        Ok(())
    }
}

#[test]
fn messages_come_one_at_a_time_on_one_thread_in_the_order_of_their_sender() {
    const SENDERS: usize = 4;
    const ACTORS: usize = 6;
    const EACH: u32 = 1_500;
    // A bound that is met, so that order is kept through refusals, too.
    let system = builder(2).mailbox_bound(200).build().unwrap();
    let (wrong, seen) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let actors: Vec<Addr<Checker>> = (0..ACTORS)
        .map(|_| {
            let (wrong, seen) = (wrong.clone(), seen.clone());
            system.spawn(|| Checker {
                busy: Arc::default(),
                home: thread::current().id(),
                next: HashMap::new(),
                wrong,
                seen,
            })
        })
        .collect();
    thread::scope(|scope| {
        for sender in 0..SENDERS {
            let actors = &actors;
            scope.spawn(move || {
                for number in 0..EACH {
                    for actor in actors {
                        assert!(send_patiently(actor, (sender, number)));
                    }
                }
            });
        }
    });
    let sent = SENDERS as u32 * ACTORS as u32 * EACH;
    wait_until("all messages have come", || seen.load(SeqCst) >= sent);
    settle(&system);
    assert_eq!((seen.load(SeqCst), wrong.load(SeqCst)), (sent, 0));
    assert_eq!(system.stats().dead_letters, 0);
}

// ---- exactly once, or counted -------------------------------------------------------------------

/// A message that is missed when it is lost.
struct Tracked {
    id: usize,
    dropped: Arc<AtomicU64>,
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.dropped.fetch_add(1, SeqCst);
    }
}

/// Takes messages until it has had enough, then closes.
struct Taker {
    left: u32,
    taken: Arc<Vec<AtomicU32>>,
}

impl Actor for Taker {
    type Message = Tracked;

    fn message(&mut self, message: Tracked, ctx: &mut Context<'_, Self>) -> Outcome {
        self.taken[message.id].fetch_add(1, SeqCst);
        self.left -= 1;
        if self.left == 0 {
            ctx.close();
        }
        Ok(())
    }
}

/// What became of the messages of several senders, all of them sent.
struct Sent {
    taken: Arc<Vec<AtomicU32>>,
    accepted: u64,
    refused: u64,
    dropped: Arc<AtomicU64>,
}

impl Sent {
    /// Sends from `senders` threads, each `each` messages to each of `actors`, while `meanwhile`
    /// runs.
    fn by(
        senders: usize,
        each: usize,
        actors: &[Addr<Taker>],
        taken: Arc<Vec<AtomicU32>>,
        meanwhile: impl FnOnce(),
    ) -> Sent {
        let (accepted, refused, dropped) = (
            AtomicU64::new(0),
            AtomicU64::new(0),
            Arc::<AtomicU64>::default(),
        );
        let start = Barrier::new(senders + 1);
        thread::scope(|scope| {
            for sender in 0..senders {
                let (accepted, refused, dropped, start) = (&accepted, &refused, &dropped, &start);
                scope.spawn(move || {
                    start.wait();
                    for n in 0..each {
                        for (at, actor) in actors.iter().enumerate() {
                            let id = (sender * each + n) * actors.len() + at;
                            match actor.send(Tracked {
                                id,
                                dropped: dropped.clone(),
                            }) {
                                Ok(()) => accepted.fetch_add(1, SeqCst),
                                Err(error) => {
                                    assert_eq!(
                                        error.into_message().id,
                                        id,
                                        "the message comes back"
                                    );
                                    refused.fetch_add(1, SeqCst)
                                }
                            };
                        }
                    }
                });
            }
            start.wait();
            meanwhile();
        });
        Sent {
            taken,
            accepted: accepted.into_inner(),
            refused: refused.into_inner(),
            dropped,
        }
    }

    fn delivered(&self) -> u64 {
        self.taken
            .iter()
            .map(|taken| u64::from(taken.load(SeqCst)))
            .sum()
    }

    #[track_caller]
    fn check(&self, stats: &Stats) {
        assert!(
            self.taken.iter().all(|taken| taken.load(SeqCst) <= 1),
            "a message was delivered twice"
        );
        assert_eq!(
            self.delivered() + stats.dead_letters,
            self.accepted,
            "delivered and dead letters, against accepted"
        );
        assert_eq!(self.accepted + self.refused, self.taken.len() as u64);
        assert_eq!(
            self.dropped.load(SeqCst),
            self.taken.len() as u64,
            "every message was dropped in the end"
        );
    }
}

fn takers(
    system: &System,
    count: usize,
    left: u32,
    messages: usize,
) -> (Vec<Addr<Taker>>, Arc<Vec<AtomicU32>>) {
    let taken: Arc<Vec<AtomicU32>> = Arc::new((0..messages).map(|_| AtomicU32::new(0)).collect());
    let addrs = (0..count).map(|_| {
        let taken = taken.clone();
        system.spawn(move || Taker { left, taken })
    });
    (addrs.collect(), taken)
}

#[test]
fn an_accepted_message_is_delivered_exactly_once_or_its_actor_had_gone_and_it_is_counted() {
    const EACH: usize = 3_000;
    let system = builder(2).mailbox_bound(512).build().unwrap();
    let (actors, taken) = takers(&system, 2, EACH as u32, 4 * EACH * 2);
    let sent = Sent::by(4, EACH, &actors, taken, || {});
    wait_until("all is delivered or counted", || {
        sent.delivered() + system.stats().dead_letters >= sent.accepted
    });
    settle(&system);
    sent.check(&system.stats());
    assert!(
        system.stats().dead_letters + sent.refused > 0,
        "the actors ended in the midst of the sends"
    );
}

#[test]
fn a_message_in_a_race_with_the_stop_is_delivered_or_counted_or_given_back() {
    const EACH: usize = 400;
    for round in 0..30 {
        let system = builder(2).build().unwrap();
        let (actors, taken) = takers(&system, 2, u32::MAX, 2 * EACH * 2);
        let handle = system.handle();
        let until = taken.clone();
        let sent = Sent::by(2, EACH, &actors, taken, || {
            // Somewhere in the middle, and elsewhere in each round.
            wait_until("some have been delivered", || {
                until[round * 8].load(SeqCst) > 0
            });
            handle.stop(Duration::ZERO);
            system.run().unwrap();
        });
        sent.check(&handle.stats());
        assert!(actors.iter().all(Addr::is_gone));
    }
}

/// A message that nobody takes, and that panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("a message that nobody took");
    }
}

#[test]
fn a_dead_letter_whose_drop_panics_harms_nobody() {
    let system = builder(1).build().unwrap();
    let (first, second) = (
        spawn(&system, 0, |probe| probe),
        spawn(&system, 0, |probe| probe),
    );
    let held = hold(&second);
    first.addr.close();
    let bomb = Bomb;
    first.tell(move |_| {
        let _bomb = bomb;
        Ok(())
    });
    drop(held);
    assert!(matches!(first.closed(), CloseReason::Finished));
    assert_eq!(second.run(|_| 7), 7);
    let stats = system.stats();
    assert_eq!((stats.panics, stats.dead_letters), (1, 1));
}

/// Messages in a row to one actor are handed over together; each of these ends the actor in the
/// midst of them.
#[test]
fn what_follows_the_end_of_an_actor_in_a_row_of_messages_is_a_dead_letter() {
    type End = fn(&mut Context<'_, Probe>) -> Outcome;
    let ends: [End; 4] = [
        |ctx| {
            ctx.close();
            Ok(())
        },
        |ctx| {
            ctx.abort();
            Ok(())
        },
        |_| Err("no more".into()),
        |_| panic!("no more"),
    ];
    for end in ends {
        let system = builder(1).build().unwrap();
        let (holder, ending) = (
            spawn(&system, 0, |probe| probe),
            spawn(&system, 0, |probe| probe),
        );
        let held = hold(&holder);
        let (log, done) = channel();
        for number in 0..6 {
            let log = log.clone();
            ending.tell(move |ctx| {
                log.send(number)?;
                if number == 2 { end(ctx) } else { Ok(()) }
            });
        }
        drop((held, log));
        ending.closed();
        assert_eq!(holder.run(|_| 7), 7);
        assert_eq!(done.iter().collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(system.stats().dead_letters, 3);
    }
}

/// What one of the messages in a row asks for is carried out before the next one.
#[test]
fn an_actor_that_is_spawned_in_a_row_of_messages_is_there_for_the_next_one() {
    let system = builder(1).build().unwrap();
    let probe = spawn(&system, 0, |probe| probe);
    let held = hold(&probe);
    let (log, seen) = channel();
    let (spawned, addr) = channel();
    probe.tell(move |ctx| Ok(spawned.send(ctx.spawn(Teller { log }))?));
    probe.tell(move |_| Ok(addr.try_recv()?.send(5)?));
    drop(held);
    let told: Vec<_> = (0..2).map(|_| next(&seen)).collect();
    assert_eq!(told, [Told::Opened, Told::Message(5)]);
}

// ---- opened first, closed last ------------------------------------------------------------------

/// Reports its callbacks.
struct Teller {
    log: Sender<Told>,
}

#[derive(Debug, PartialEq)]
enum Told {
    Opened,
    Message(u32),
    Closed,
}

impl Actor for Teller {
    type Message = u32;

    fn opened(&mut self, _: &mut Context<'_, Self>) -> Outcome {
        Ok(self.log.send(Told::Opened)?)
    }

    fn message(&mut self, message: u32, _: &mut Context<'_, Self>) -> Outcome {
        Ok(self.log.send(Told::Message(message))?)
    }

    fn closed(&mut self, _: &CloseReason, _: &mut Context<'_, Self>) {
        let _ = self.log.send(Told::Closed);
    }
}

#[test]
fn messages_sent_before_opened_wait_for_it_and_closed_is_last() {
    let system = builder(2).build().unwrap();
    let keeper = spawn(&system, 1, |probe| probe);
    let held = hold(&keeper);
    let (log, told) = channel();
    // The poller stands still: for all of these the actor is still to come.
    let addr = system.spawn_on(1, || Teller { log });
    for n in 0..1_000 {
        addr.send(n).unwrap();
    }
    assert!(!addr.is_gone(), "its address works before it is opened");
    addr.close();
    drop(held);
    assert_eq!(next(&told), Told::Opened);
    for n in 0..1_000 {
        assert_eq!(next(&told), Told::Message(n));
    }
    assert_eq!(next(&told), Told::Closed);
    assert!(
        told.recv_timeout(TIMEOUT).is_err(),
        "after `closed` it is dropped, and told nothing more"
    );
}

#[test]
fn an_actor_spawned_in_a_callback_is_opened_before_what_that_callback_sent_it() {
    let system = builder(2).build().unwrap();
    let parent = spawn(&system, 0, |probe| probe);
    for poller in 0..2 {
        let (log, told) = channel();
        parent.tell(move |ctx| {
            let child = match poller {
                0 => ctx.spawn(Teller { log }),
                _ => ctx.spawn_on(1, || Teller { log }),
            };
            for n in 0..100 {
                child.send(n)?;
            }
            child.close();
            Ok(())
        });
        let all: Vec<_> = (0..102).map(|_| next(&told)).collect();
        assert_eq!(all[0], Told::Opened);
        assert_eq!(all[101], Told::Closed);
        assert!((0..100).all(|n| all[n as usize + 1] == Told::Message(n)));
    }
}
