//! Waiting for room: a full mailbox slows down whoever feeds it, back to the sockets, and nothing
//! is lost.

mod util;

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::channel;
use std::time::Duration;

use greenroom::*;
use util::*;

fn nothing() -> Job {
    Box::new(|_| Ok(()))
}

/// Poller 0 with waiters, and a full mailbox on poller 1, which stands still.
struct Jam {
    /// Dropped first: a system that ends waits for its pollers.
    held: Held,
    target: Seen,
    system: System,
}

impl Jam {
    fn new(bound: usize) -> Jam {
        Jam::with(builder(2).mailbox_bound(bound))
    }

    fn with(builder: Builder) -> Jam {
        let system = builder.build().unwrap();
        let target = spawn(&system, 1, |probe| probe);
        let held = hold(&target);
        fill(&target.addr);
        Jam {
            held,
            target,
            system,
        }
    }

    /// A waiter that does nothing but wait.
    fn waiter(&self) -> Seen {
        self.waiter_on(&self.system)
    }

    fn waiter_on(&self, system: &System) -> Seen {
        let waiter = spawn(system, 0, |probe| probe);
        let to = self.target.addr.clone();
        waiter.run(move |ctx| ctx.wait_for_room(&to));
        waiter
    }
}

fn fill(addr: &Addr<Probe>) {
    while addr.send(nothing()).is_ok() {}
}

/// Waits for `room`, and that nothing else happened before.
#[track_caller]
fn told(waiter: &Seen) {
    let event = waiter.next();
    assert!(matches!(event, Event::Room), "{event:?}");
}

#[test]
fn room_is_told_once_for_each_wait() {
    let jam = Jam::new(16);
    let waiter = jam.waiter();
    // Asking again does not make it two.
    let other = spawn(&jam.system, 0, |probe| probe);
    let to = jam.target.addr.clone();
    other.run(move |ctx| {
        ctx.wait_for_room(&to);
        ctx.wait_for_room(&to.recipient::<Job>());
    });
    settle_poller_0(&jam.system);
    assert!(
        waiter.events.try_recv().is_err() && other.events.try_recv().is_err(),
        "it is still full"
    );
    drop(jam.held);
    for seen in [&waiter, &other] {
        told(seen);
    }
    settle(&jam.system);
    assert!(waiter.events.try_recv().is_err() && other.events.try_recv().is_err());
    // Where there is room, it is told at once.
    let to = jam.target.addr.clone();
    waiter.run(move |ctx| ctx.wait_for_room(&to));
    told(&waiter);
    assert_eq!(waiter.run(|_| 7), 7);
}

/// As `settle`, for a system whose other poller stands still.
fn settle_poller_0(system: &System) {
    let probe = spawn(system, 0, |probe| probe);
    for _ in 0..2 {
        probe.run(|ctx| ctx.set_timer(Duration::ZERO));
        probe.until(|event| matches!(event, Event::Timer(_)).then_some(()));
    }
    probe.addr.close();
}

#[test]
fn waiters_are_told_in_turn() {
    let jam = Jam::new(16);
    let here = builder(1).build().unwrap();
    let (log, order) = channel();
    let waiters: Vec<_> = (0..12)
        .map(|n| {
            let log = log.clone();
            let waiter = spawn(&here, 0, move |probe| {
                probe.on_room(move |_| Ok(log.send(n)?))
            });
            let to = jam.target.addr.clone();
            waiter.run(move |ctx| ctx.wait_for_room(&to));
            waiter
        })
        .collect();
    drop(jam.held);
    let order: Vec<i32> = waiters.iter().map(|_| next(&order)).collect();
    assert!(order.iter().copied().eq(0..12), "{order:?}");
}

#[test]
fn every_waiter_is_told_though_those_before_it_send_nothing() {
    tells_every_waiter(Jam::new(2));
}

/// A spin that lasted to its end would be longer than the test.
#[test]
fn a_poller_that_spins_tells_every_waiter() {
    let spinning = builder(2).busy_poll(2 * TIMEOUT);
    tells_every_waiter(Jam::with(spinning.mailbox_bound(2)));
}

/// Not those alone for whom there are places.
#[track_caller]
fn tells_every_waiter(jam: Jam) {
    // Elsewhere: the bound is too small for what they are told.
    let here = builder(1).build().unwrap();
    let first = jam.waiter_on(&here);
    // Nor does one that has ended stand in the way.
    let ended = spawn(&here, 0, |probe| {
        probe.on_timer(|_, _| Err("it ends while it waits".into()))
    });
    let to = jam.target.addr.clone();
    ended.run(move |ctx| {
        ctx.wait_for_room(&to);
        ctx.set_timer(Duration::ZERO)
    });
    ended.closed();
    let others: Vec<_> = (0..6).map(|_| jam.waiter_on(&here)).collect();
    drop(jam.held);
    told(&first);
    others.iter().for_each(told);
}

#[test]
fn one_who_has_gone_counts_as_room() {
    let system = builder(2).mailbox_bound(16).build().unwrap();
    let (gone, neighbour) = (
        spawn(&system, 1, |probe| probe),
        spawn(&system, 1, |probe| probe),
    );
    gone.addr.close();
    gone.closed();
    wait_until("it has gone", || gone.addr.is_gone());
    let _held = hold(&neighbour);
    fill(&neighbour.addr);
    let waiter = spawn(&system, 0, |probe| probe);
    let to = gone.addr.clone();
    waiter.run(move |ctx| ctx.wait_for_room(&to));
    told(&waiter);
}

#[test]
fn one_who_goes_while_it_is_waited_for_counts_as_room() {
    let jam = Jam::new(16);
    let waiter = jam.waiter();
    jam.target.addr.close();
    drop(jam.held);
    jam.target.closed();
    told(&waiter);
}

#[test]
fn a_poller_that_has_gone_counts_as_room() {
    // So much that it ends before it has delivered half of it.
    let jam = Jam::new(16_384);
    let here = builder(1).build().unwrap();
    let waiter = spawn(&here, 0, |probe| probe);
    let to = jam.target.addr.clone();
    waiter.run(move |ctx| ctx.wait_for_room(&to));
    jam.system.handle().stop(Duration::ZERO);
    drop(jam.held);
    jam.system.run().unwrap();
    told(&waiter);
    let to = jam.target.addr.clone();
    waiter.run(move |ctx| ctx.wait_for_room(&to));
    told(&waiter);
}

#[test]
fn a_hub_that_waits_gets_no_messages_and_its_senders_are_told_full() {
    let jam = Jam::new(8);
    // Of another type than the target, with a mailbox of its own.
    let (log, got) = channel();
    struct Hub {
        jammed: Addr<Probe>,
        log: std::sync::mpsc::Sender<Option<u32>>,
    }
    impl Actor for Hub {
        type Message = u32;
        fn message(&mut self, message: u32, ctx: &mut Context<'_, Self>) -> Outcome {
            self.log.send(Some(message))?;
            if message == 0 {
                ctx.wait_for_room(&self.jammed);
            }
            Ok(())
        }
        fn room(&mut self, _: &mut Context<'_, Self>) -> Outcome {
            Ok(self.log.send(None)?)
        }
    }
    let jammed = jam.target.addr.clone();
    let hub = jam.system.spawn_on(0, || Hub { jammed, log });
    hub.send(0).unwrap();
    assert_eq!(next(&got), Some(0));
    settle_poller_0(&jam.system);
    let mut sent = 0;
    let refused = loop {
        match hub.send(sent + 1) {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
        assert!(
            sent <= 8,
            "what waits for the hub counts in its mailbox's bound"
        );
        // Taken out of the queue, and not delivered.
        settle_poller_0(&jam.system);
    };
    assert!(refused.is_full() && sent >= 4, "{sent} were accepted");
    assert!(got.try_recv().is_err(), "it waits");
    drop(jam.held);
    assert_eq!(next(&got), None, "first it is told of the room");
    for n in 1..=sent {
        assert_eq!(next(&got), Some(n), "then come the messages in their order");
    }
    wait_until("there is room again", || hub.send(99).is_ok());
    assert_eq!(next(&got), Some(99));
}

#[test]
fn a_hub_that_ends_while_it_waits_leaves_dead_letters_and_room() {
    let jam = Jam::new(64);
    let end = Arc::<AtomicBool>::default();
    let ends = end.clone();
    let hub = spawn(&jam.system, 0, move |probe| {
        probe.on_timer(move |_, ctx| {
            if ends.load(SeqCst) {
                ctx.close();
            } else {
                ctx.set_timer(Duration::from_millis(1));
            }
            Ok(())
        })
    });
    let to = jam.target.addr.clone();
    hub.run(move |ctx| {
        ctx.set_timer(Duration::ZERO);
        ctx.wait_for_room(&to);
    });
    settle_poller_0(&jam.system);
    let mut sent = 0;
    while hub.addr.send(nothing()).is_ok() {
        sent += 1;
    }
    settle_poller_0(&jam.system);
    end.store(true, SeqCst);
    assert!(matches!(hub.closed(), CloseReason::Finished));
    wait_until("what waited for it is counted", || {
        jam.system.stats().dead_letters == sent
    });
    let neighbour = spawn(&jam.system, 0, |probe| probe);
    let mut again = 0;
    while neighbour.addr.send(nothing()).is_ok() {
        again += 1;
        assert!(again <= 10_000, "the mailbox has no bound");
        if again == sent {
            return;
        }
    }
    panic!("its places are not free again: {again} of {sent}");
}

#[test]
fn a_connection_that_waits_is_shown_no_bytes_and_still_gets_messages() {
    let jam = Jam::new(8);
    let to = jam.target.addr.clone();
    let (listener, opened) = listen(
        &jam.system,
        "127.0.0.1:0",
        ListenOptions::new(),
        move |probe| {
            let to = to.clone();
            let mut waited = false;
            probe.on_readable(move |input, ctx| {
                // The first byte it cannot pass on.
                if !waited && input.take(1).is_some() {
                    waited = true;
                    ctx.wait_for_room(&to);
                } else {
                    input.take_all();
                }
                Ok(())
            })
        },
    );
    let mut client = connect(&listener);
    let events = next(&opened);
    let Event::Opened(addr) = next(&events) else {
        panic!("`opened` comes first")
    };
    let seen = Seen { addr, events };
    assert_eq!(
        seen.addr.poller(),
        0,
        "it would stand still with the one that it waits for"
    );
    client.write_all(b"abc").unwrap();
    assert!(matches!(seen.next(), Event::Readable(bytes, _) if bytes.starts_with(b"a")));
    client.write_all(b"def").unwrap();
    settle_poller_0(&jam.system);
    assert_eq!(seen.run(|_| 7), 7, "messages come");
    assert!(seen.events.try_recv().is_err(), "bytes do not");
    drop(jam.held);
    told(&seen);
    let mut rest = Vec::new();
    while rest != b"bcdef" {
        match seen.next() {
            Event::Readable(bytes, _) => rest.extend(bytes),
            event => panic!("{event:?}"),
        }
        assert!(b"bcdef".starts_with(&rest), "{rest:?}");
    }
}

#[test]
fn a_hub_waits_for_another_of_its_own_type_and_is_told() {
    let system = builder(1).mailbox_bound(16).build().unwrap();
    let (hub, other) = (
        spawn(&system, 0, |probe| probe),
        spawn(&system, 0, |probe| probe),
    );
    let keeper = spawn(&system, 0, |probe| probe);
    let held = hold(&keeper);
    let to = other.addr.clone();
    // Its own messages fill the mailbox that it waits for.
    hub.tell(move |ctx| {
        // The place of the message that held the poller is free again.
        while to.send(nothing()).is_ok() {}
        ctx.wait_for_room(&to);
        Ok(())
    });
    fill(&hub.addr);
    fill(&other.addr);
    drop(held);
    told(&hub);
    let (done, is_done) = channel();
    assert!(send_patiently(
        &hub.addr,
        Box::new(move |_| Ok(done.send(7)?))
    ));
    assert_eq!(next(&is_done), 7);
}
