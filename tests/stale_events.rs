//! An address and a readiness event reach the actor that they were made for, or nobody.

mod util;

use std::io::Write;
use std::net::TcpStream;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use greenroom::*;
use util::*;

/// The place of an actor's slot, as its id tells it: `poller.index` of `poller.indexvgeneration`.
fn place(seen: &Seen) -> String {
    let id = seen.addr.id().to_string();
    id.split('v')
        .next()
        .expect("an id has a generation")
        .to_owned()
}

/// A connection, its end, and another that has got its slot.
fn in_the_same_slot(stage: &Stage) -> (Seen, TcpStream, Seen) {
    let (client, old) = stage.pair();
    drop(client);
    old.closed();
    wait_until("the slot is free", || stage.system.stats().connections == 0);
    let (client, new) = stage.pair();
    assert_eq!(place(&old), place(&new), "a free slot is used again");
    assert_ne!(old.addr.id(), new.addr.id());
    (old, client, new)
}

#[test]
fn an_old_address_reaches_nobody_when_its_slot_is_used_again() {
    let stage = Stage::new();
    let (old, _client, new) = in_the_same_slot(&stage);
    let error = old
        .addr
        .send(Box::new(|_| panic!("not for me")))
        .unwrap_err();
    assert!(error.is_gone());
    assert!(old.addr.is_gone() && !new.addr.is_gone());
    old.addr.close();
    settle(&stage.system);
    new.run(|_| ());
    assert!(new.events.try_recv().is_err(), "nothing has happened to it");
}

#[test]
fn a_message_on_its_way_when_the_slot_is_used_again_is_a_dead_letter() {
    let stage = Stage::new();
    let reached = Arc::new(AtomicBool::new(false));
    let mut same_slot = 0;
    // Whether the end or the connect is reported first is the selector's to choose, and on poll(2)
    // follows from who is watched: others come and go, so that it is not the same each time.
    for round in 1..=500 {
        if same_slot == 5 {
            break;
        }
        let others: Vec<_> = (0..round % 4).map(|_| stage.pair()).collect();
        let (client, old) = stage.pair();
        let hub = spawn(&stage.system, 0, |probe| probe);
        // All within one turn of the poller, in this order: the peer's end, the next connect, the
        // message and the close. They come behind more messages than are delivered in the turn that
        // is held up.
        let held = hold(&hub);
        for _ in 0..1_500 {
            hub.tell(|_| Ok(()));
        }
        reset(client);
        let client = stage.client();
        let reach = reached.clone();
        let message = move |_: &mut Context<'_, Probe>| {
            reach.store(true, Ordering::Relaxed);
            Ok(())
        };
        old.addr.send(Box::new(message)).expect("it is still there");
        old.addr.close();
        drop(held);
        let new = stage.accepted();
        same_slot += usize::from(place(&old) == place(&new));
        old.closed();
        wait_until("the message is counted", || {
            stage.system.stats().dead_letters == round
        });
        new.run(|_| ());
        assert!(new.events.try_recv().is_err(), "nothing has happened to it");
        drop(client);
        new.closed();
        drop(others);
        hub.addr.close();
        hub.closed();
        wait_until("all have left", || stage.system.stats().connections == 0);
    }
    assert!(
        !reached.load(Ordering::Relaxed),
        "a message for one actor has reached the next in its slot"
    );
    assert!(
        same_slot > 0,
        "no slot was used again: this has tested nothing"
    );
}

#[test]
fn timers_of_an_actor_end_with_it() {
    let stage = Stage::with(ConnectionOptions::new(), |probe| {
        probe.on_closed(|_, ctx| {
            ctx.set_timer(Duration::ZERO);
        })
    });
    let (client, old) = stage.pair();
    old.run(|ctx| ctx.set_interval(Duration::from_millis(1)));
    old.until(|event| matches!(event, Event::Timer(_)).then_some(()));
    drop(client);
    old.closed();
    wait_until("the slot is free", || stage.system.stats().connections == 0);
    let (_client, new) = stage.pair();
    assert_eq!(place(&old), place(&new));
    // Its own timer fires, later than the other's would have.
    let own = new.run(|ctx| ctx.set_timer(Duration::from_millis(20)));
    assert!(matches!(new.next(), Event::Timer(key) if key == own));
}

/// A duplicate of the server's end of a client's connection: what a fork would hold.
fn duplicate_of_the_other_end(client: &TcpStream) -> OwnedFd {
    let (here, there) = (client.local_addr().unwrap(), client.peer_addr().unwrap());
    for entry in std::fs::read_dir("/proc/self/fd").unwrap().flatten() {
        let Some(number) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        // SAFETY: the descriptor may be closed by another thread meanwhile, in which case the call fails or duplicates one that is
        // looked at below like any other.
        let Ok(copy) = unsafe { BorrowedFd::borrow_raw(number) }.try_clone_to_owned() else {
            continue;
        };
        let stream = TcpStream::from(copy);
        if stream.local_addr().is_ok_and(|addr| addr == there)
            && stream.peer_addr().is_ok_and(|addr| addr == here)
        {
            return stream.into();
        }
    }
    panic!("the server has no end of this connection")
}

#[test]
fn a_duplicated_descriptor_is_not_reported_on_after_the_close() {
    // In a process of its own, where no other test's descriptors come and go.
    in_child(
        "a_duplicated_descriptor_is_not_reported_on_after_the_close",
        1024,
        || {
            let stage = Stage::listen(
                builder(1).name("dup"),
                "127.0.0.1:0",
                ListenOptions::new(),
                |probe| probe,
            );
            let (mut client, old) = stage.pair();
            let _duplicate = duplicate_of_the_other_end(&client);
            old.tell(|ctx| {
                ctx.abort();
                Ok(())
            });
            old.closed();
            wait_until("the slot is free", || stage.system.stats().connections == 0);
            let (_other, new) = stage.pair();
            assert_eq!(place(&old), place(&new));
            // The duplicate keeps the connection open: bytes and the end arrive, and nobody must be
            // told.
            client.write_all(b"for the one who has gone").unwrap();
            half_close(&client);
            assert_quiet("dup");
            assert!(new.events.try_recv().is_err(), "nothing has happened to it");
        },
    );
}

#[test]
fn many_ends_in_one_batch_of_events_each_reach_their_own() {
    // Half of those that are readable at one time close as they are read, and their slots are used
    // again at once by clients that wait: nobody may get what was meant for another.
    let stage = Stage::with(ConnectionOptions::new(), |probe| {
        let mut name = None;
        probe.on_readable(move |input, ctx| {
            for byte in input.take_all() {
                assert_eq!(
                    *name.get_or_insert(*byte),
                    *byte,
                    "a byte of somebody else's"
                );
                if *byte % 2 == 0 {
                    ctx.abort();
                }
            }
            Ok(())
        })
    });
    let hub = spawn(&stage.system, 0, |probe| probe);
    for _ in 0..20 {
        let mut pairs: Vec<_> = (0..50).map(|_| stage.pair()).collect();
        let held = hold(&hub);
        for (number, (client, _)) in pairs.iter_mut().enumerate() {
            client.write_all(&[number as u8]).unwrap();
        }
        let mut late: Vec<_> = (0..50).map(|_| stage.client()).collect();
        for (number, client) in late.iter_mut().enumerate() {
            client.write_all(&[100 + number as u8]).unwrap();
        }
        drop(held);
        for (number, (client, seen)) in pairs.into_iter().enumerate() {
            assert_eq!(seen.read(1), [number as u8]);
            drop(client);
            let expected = if number % 2 == 0 {
                "Aborted"
            } else {
                "PeerClosed"
            };
            assert_eq!(format!("{:?}", seen.closed()), expected);
        }
        let mut numbers: Vec<_> = late.iter().map(|_| stage.accepted().read(1)[0]).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (100..150).collect::<Vec<u8>>());
        drop(late);
        wait_until("all have left", || stage.system.stats().connections == 0);
    }
    assert_eq!(stage.system.stats().panics, 0);
}
