//! The models, each named by the failure that it excludes. Included beside the shipped core and
//! beside each mutant.
//!
//! The poller of these models does what `mailbox.rs` asks of one ("The sleep"), or errs in the one
//! way that it is told to.

use super::mailbox::{Admission, Mailbox};
use super::oneshot::{NoReply, Oneshot};
use super::presence::{Hold, Presence};
use super::sync::{Arc, WakeFd};
use super::waker::Waker;
use crate::check;
use loom::thread;
use std::collections::VecDeque;
use std::sync::Mutex as Untracked;
use std::time::{Duration, Instant};

/// How the poller errs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Poller {
    /// Not at all.
    Sound,
    /// Not at all, either: looks without the lock before it arms.
    Spins,
    /// Looks, then arms: an entry may come in between.
    LooksBeforeArming,
    /// Arms, then falls asleep: a sender may find a waker that is awake.
    ArmsBeforeFallingAsleep,
    /// Reads the eventfd after the look: the wake of an entry that the look has missed is lost.
    ReadsAfterLooking,
    /// Looks at commands before it takes them, and so not at the mailboxes that they bring.
    ForgetsNewMailboxes,
    /// Leaves commands out of the look.
    ForgetsCommands,
    /// Pops what is left, then closes.
    DrainsBeforeClosing,
    /// Sleeps with waiters in line below half the bound.
    ForgetsWaiters,
}

/// How the waiter of a reply gives up.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Waiter {
    /// By `abandon`.
    Abandons,
    /// By a `wait_until` whose deadline has passed.
    TimesOut,
    /// By its own clock alone: the error.
    WalksAway,
}

fn new_waker() -> Arc<Waker> {
    Arc::new(Waker::new(WakeFd::default()))
}

/// Sleeps as `mailbox.rs` says, or not quite.
fn sleep(poller: Poller, waker: &Waker, arms: &[&dyn Arm]) {
    let mut may_block = true;
    match poller {
        Poller::LooksBeforeArming => {
            for mailbox in arms {
                may_block &= !mailbox.has_entries();
            }
            waker.fall_asleep();
            for mailbox in arms {
                let _ = mailbox.arm();
            }
        }
        Poller::ArmsBeforeFallingAsleep => {
            for mailbox in arms {
                may_block &= mailbox.arm();
            }
            waker.fall_asleep();
        }
        _ => {
            waker.fall_asleep();
            for mailbox in arms {
                may_block &= mailbox.arm();
            }
        }
    }
    if poller == Poller::ReadsAfterLooking {
        waker.fd().read();
    }
    if may_block {
        waker.fd().wait();
    }
    waker.get_up();
    for mailbox in arms {
        mailbox.disarm();
    }
}

/// Mailboxes of any type, for the look.
trait Arm {
    fn arm(&self) -> bool;
    fn disarm(&self);
    fn has_entries(&self) -> bool;
}

impl<T, W> Arm for Mailbox<T, W> {
    fn arm(&self) -> bool {
        self.arm()
    }
    fn disarm(&self) {
        self.disarm();
    }
    fn has_entries(&self) -> bool {
        self.has_entries()
    }
}

/// Pops and releases all there is, each of so many places: commands take none, as in the crate.
fn drain<T, W>(mailbox: &Mailbox<T, W>, places: usize) -> Vec<T> {
    let entries: Vec<T> = std::iter::from_fn(|| mailbox.pop()).collect();
    if !entries.is_empty() {
        mailbox.release(entries.len() * places, &mut Vec::new());
    }
    entries
}

/// Two senders and three messages, and a poller that sleeps whenever it may.
pub fn a_wake_is_never_lost(poller: Poller) {
    check(move || {
        let waker = new_waker();
        let mailbox = Arc::new(Mailbox::<u8, ()>::new(3, waker.clone()));
        let senders = [&[1, 2][..], &[11]].map(|messages| {
            let mailbox = mailbox.clone();
            thread::spawn(move || {
                for &message in messages {
                    assert_eq!(mailbox.push(message, 1), None);
                }
            })
        });
        let mut got = Vec::new();
        while got.len() < 3 {
            let mut batch = VecDeque::new();
            mailbox.take(&mut batch);
            if batch.is_empty() && !(poller == Poller::Spins && mailbox.has_work()) {
                sleep(poller, &waker, &[&*mailbox]);
            }
            got.extend(batch);
        }
        // Once only, to keep the model small; releases race pushes in the other models.
        mailbox.release(3, &mut Vec::new());
        for sender in senders {
            sender.join().unwrap();
        }
        let place = |message| got.iter().position(|&m| m == message).expect("delivered");
        assert!(place(1) < place(2), "out of order");
        assert!(place(11) < 3);
        assert_eq!(mailbox.count(), 0, "the count is off");
    });
}

enum Command {
    Open(Arc<Mailbox<u8, ()>>),
    Stop,
}

/// One thread makes a mailbox and tells the poller by a command; another sends into it if it finds
/// it there, even before the poller was told, and into an old one if not.
pub fn a_new_mailbox_is_seen_before_sleep(poller: Poller) {
    check(move || {
        let waker = new_waker();
        let commands = Arc::new(Mailbox::<Command, ()>::new(1, waker.clone()));
        let old = Arc::new(Mailbox::<u8, ()>::new(1, waker.clone()));
        let directory = Arc::new(loom::sync::Mutex::new(old.clone()));
        let maker = {
            let (waker, commands) = (waker.clone(), commands.clone());
            let directory = directory.clone();
            thread::spawn(move || {
                let new = Arc::new(Mailbox::new(1, waker));
                *directory.lock().unwrap() = new.clone();
                assert!(commands.push(Command::Open(new), 0).is_none());
            })
        };
        let finder = thread::spawn(move || {
            let found = directory.lock().unwrap().clone();
            assert_eq!(found.push(1, 1), None);
        });
        let mut known = vec![old];
        let mut got = 0;
        loop {
            let forgotten = known.len();
            for command in drain(&commands, 0) {
                if let Command::Open(mailbox) = command {
                    known.push(mailbox);
                }
            }
            let seen = match poller {
                Poller::ForgetsNewMailboxes => &known[..forgotten],
                _ => &known[..],
            };
            got += seen
                .iter()
                .map(|mailbox| drain(mailbox, 1).len())
                .sum::<usize>();
            if got == 1 {
                break;
            }
            let mut arms: Vec<&dyn Arm> = seen.iter().map(|m| &**m as _).collect();
            if poller != Poller::ForgetsCommands {
                arms.push(&*commands);
            }
            sleep(poller, &waker, &arms);
        }
        maker.join().unwrap();
        finder.join().unwrap();
    });
}

/// A stop from one thread, a message from another.
pub fn stop_is_seen_before_sleep(poller: Poller) {
    check(move || {
        let waker = new_waker();
        let commands = Arc::new(Mailbox::<Command, ()>::new(1, waker.clone()));
        let messages = Arc::new(Mailbox::<u8, ()>::new(1, waker.clone()));
        let stopper = {
            let commands = commands.clone();
            thread::spawn(move || assert!(commands.push(Command::Stop, 0).is_none()))
        };
        let sender = {
            let messages = messages.clone();
            thread::spawn(move || match messages.admit() {
                Admission::Closed => 1,
                _ => usize::from(messages.push(1, 1).is_some()),
            })
        };
        let (mut got, mut sleeps) = (0, 0);
        loop {
            let stop = matches!(drain(&commands, 0)[..], [Command::Stop]);
            got += drain(&messages, 1).len();
            if stop {
                break;
            }
            sleeps += 1;
            match poller {
                Poller::ForgetsCommands => sleep(poller, &waker, &[&*messages]),
                _ => sleep(poller, &waker, &[&*commands, &*messages]),
            }
        }
        commands.close(&mut Vec::new());
        messages.close(&mut Vec::new());
        got += drain(&messages, 1).len();
        stopper.join().unwrap();
        assert_eq!(got + sender.join().unwrap(), 1, "lost or had twice");
        assert!(waker.fd().writes() <= sleeps, "more writes than sleeps");
    });
}

/// Two senders and three messages against a close: each is popped by the poller, refused, or
/// stranded and given back to a sender.
pub fn stop_races_sends(poller: Poller) {
    check(move || {
        let mailbox = Arc::new(Mailbox::<u8, ()>::new(3, new_waker()));
        let ended = Arc::new(Untracked::new(Vec::new()));
        let senders = [&[1, 2][..], &[11]].map(|messages| {
            let (mailbox, ended) = (mailbox.clone(), ended.clone());
            thread::spawn(move || {
                for &message in messages {
                    let end = match mailbox.admit() {
                        Admission::Closed => Some(message),
                        _ => mailbox.push(message, 1),
                    };
                    ended.lock().unwrap().extend(end);
                }
            })
        });
        let mut ends = Vec::new();
        if poller == Poller::DrainsBeforeClosing {
            ends.extend(std::iter::from_fn(|| mailbox.pop()));
        }
        mailbox.close(&mut Vec::new());
        if poller == Poller::Sound {
            ends.extend(std::iter::from_fn(|| mailbox.pop()));
        }
        for sender in senders {
            sender.join().unwrap();
        }
        assert_eq!(mailbox.pop(), None, "left behind");
        ends.append(&mut ended.lock().unwrap());
        ends.sort_unstable();
        assert_eq!(ends, [1, 2, 11], "lost or had twice");
    });
}

/// Two waiters for one place, and a release.
pub fn room_is_told_once(poller: Poller) {
    check(move || {
        let mailbox = Arc::new(Mailbox::<u8, char>::new(1, new_waker()));
        assert_eq!(mailbox.push(1, 1), None);
        let waiters = ['a', 'b'].map(|name| {
            let mailbox = mailbox.clone();
            thread::spawn(move || mailbox.wait(name))
        });
        let mut told = Vec::new();
        assert_eq!(mailbox.pop(), Some(1));
        mailbox.release(1, &mut told);
        while poller != Poller::ForgetsWaiters && !mailbox.arm() {
            mailbox.disarm();
            mailbox.release(0, &mut told);
        }
        told.extend(waiters.into_iter().filter_map(|w| w.join().unwrap()));
        told.sort_unstable();
        assert_eq!(told, ['a', 'b'], "told never or twice");
    });
}

/// Two waiters for one place, and a close.
pub fn the_end_is_told_once(poller: Poller) {
    check(move || {
        let mailbox = Arc::new(Mailbox::<u8, char>::new(1, new_waker()));
        assert_eq!(mailbox.push(1, 1), None);
        let waiters = ['a', 'b'].map(|name| {
            let mailbox = mailbox.clone();
            thread::spawn(move || mailbox.wait(name))
        });
        let mut told = Vec::new();
        match poller {
            Poller::ForgetsWaiters => mailbox.close(&mut Vec::new()),
            _ => mailbox.close(&mut told),
        }
        told.extend(waiters.into_iter().filter_map(|w| w.join().unwrap()));
        told.sort_unstable();
        assert_eq!(told, ['a', 'b'], "told never or twice");
    });
}

/// Two senders hold an address whose actor ends; its slot gets another actor, to which the poller
/// sends.
pub fn an_actor_that_closes_while_a_message_is_on_its_way() {
    const OLD: u32 = 1;
    const NEW: u32 = 3;
    check(|| {
        let presence = Arc::new(Presence::new());
        let mailbox = Arc::new(Mailbox::<u32, ()>::new(4, new_waker()));
        assert_eq!(presence.enter(0), OLD);
        // Makes the words of the counts, which loom would have made by a thread that it does not
        // see hand them on: `OnceLock` is std's.
        assert_eq!(presence.hold(0, OLD, 1), Hold::Held);
        presence.unhold(0, OLD, 1);
        let sender = {
            let (presence, mailbox) = (presence.clone(), mailbox.clone());
            thread::spawn(move || {
                let hold = presence.hold(0, OLD, 2);
                assert_ne!(hold, Hold::Full, "the new actor's count was read");
                if hold == Hold::Held {
                    assert_eq!(mailbox.push(OLD, 1), None);
                }
                usize::from(hold == Hold::Held)
            })
        };
        let undecided = {
            let presence = presence.clone();
            thread::spawn(move || {
                if presence.hold(0, OLD, 2) == Hold::Held {
                    presence.unhold(0, OLD, 1);
                }
            })
        };
        presence.leave(0, OLD);
        assert_eq!(presence.enter(0), NEW);
        assert_eq!(presence.hold(0, NEW, 1), Hold::Held, "stale count");
        assert_eq!(mailbox.push(NEW, 1), None);
        // The poller takes an entry as its slot map would: by the generation.
        let (mut delivered, mut dead) = (0, 0);
        let mut take = |key| {
            presence.unhold(0, key, 1);
            *if key == NEW {
                &mut delivered
            } else {
                &mut dead
            } += 1;
        };
        drain(&mailbox, 1).into_iter().for_each(&mut take);
        let sent = sender.join().unwrap();
        undecided.join().unwrap();
        drain(&mailbox, 1).into_iter().for_each(&mut take);
        assert_eq!((delivered, dead), (1, sent));
        assert!(
            presence.is_here(0, NEW) && !presence.is_here(0, OLD),
            "stale word"
        );
        assert_eq!(presence.hold(0, NEW, 1), Hold::Held, "stale count");
        assert_eq!(presence.hold(0, NEW, 1), Hold::Full, "stale count");
    });
}

/// A reply against a waiter that gives up.
pub fn reply_races_timeout(waiter: Waiter) {
    check(move || {
        let oneshot = Arc::new(Oneshot::new());
        let replier = {
            let oneshot = oneshot.clone();
            thread::spawn(move || oneshot.put(1).is_ok())
        };
        let got = match waiter {
            Waiter::Abandons => oneshot.abandon(),
            Waiter::TimesOut => oneshot.wait_until(Instant::now()).ok(),
            Waiter::WalksAway => None,
        };
        assert_eq!(replier.join().unwrap(), got.is_some(), "lost or had twice");
        assert_eq!(oneshot.abandon(), None, "lost or had twice");
    });
}

/// A waiter whose deadline is far away, a reply, and a reply handle that is dropped.
pub fn the_waiter_is_woken() {
    check(|| {
        let oneshot = Arc::new(Oneshot::new());
        let replier = {
            let oneshot = oneshot.clone();
            thread::spawn(move || oneshot.put(1).is_ok())
        };
        let dropper = {
            let oneshot = oneshot.clone();
            thread::spawn(move || oneshot.close())
        };
        let got = oneshot.wait_until(Instant::now() + Duration::from_secs(3600));
        let replied = replier.join().unwrap();
        dropper.join().unwrap();
        assert_eq!(
            got,
            if replied {
                Ok(1)
            } else {
                Err(NoReply::Dropped)
            }
        );
    });
}
