//! Actors without a socket: spawned from outside and from a callback, here and on another poller.

mod util;

use std::rc::Rc;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use greenroom::*;
use util::*;

#[derive(Debug, PartialEq)]
enum Told {
    Made(Option<String>),
    Opened(usize, bool),
    Message(u32),
    Closed(String),
    Dropped,
}

/// An actor that cannot cross threads and reports where it is.
struct Local {
    log: Sender<Told>,
    _not_send: Rc<()>,
}

impl Local {
    fn new(log: Sender<Told>) -> Local {
        log.send(Told::Made(thread::current().name().map(str::to_owned)))
            .unwrap();
        Local {
            log,
            _not_send: Rc::new(()),
        }
    }
}

impl Actor for Local {
    type Message = u32;

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        assert!(ctx.peer().is_none() && ctx.local_addr().is_none());
        Ok(self
            .log
            .send(Told::Opened(ctx.poller(), ctx.has_socket()))?)
    }

    fn message(&mut self, message: u32, _: &mut Context<'_, Self>) -> Outcome {
        Ok(self.log.send(Told::Message(message))?)
    }

    fn closed(&mut self, reason: &CloseReason, _: &mut Context<'_, Self>) {
        let _ = self.log.send(Told::Closed(reason.to_string()));
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        let _ = self.log.send(Told::Dropped);
    }
}

fn named(pollers: usize) -> System {
    System::builder()
        .pollers(pollers)
        .name("spawner")
        .build()
        .unwrap()
}

#[test]
fn an_actor_is_made_on_its_poller_and_told_its_beginning_and_its_end() {
    let system = named(2);
    for poller in 0..2 {
        let (log, told) = channel();
        let addr = system.spawn_on(poller, || Local::new(log));
        assert_eq!(addr.poller(), poller);
        addr.send(5).unwrap();
        addr.close();
        assert_eq!(next(&told), Told::Made(Some(format!("spawner-{poller}"))));
        assert_eq!(next(&told), Told::Opened(poller, false));
        assert_eq!(next(&told), Told::Message(5));
        assert_eq!(next(&told), Told::Closed("finished".to_owned()));
        assert_eq!(next(&told), Told::Dropped);
    }
}

#[test]
fn spawns_from_outside_go_to_the_pollers_in_turn() {
    let system = named(2);
    let pollers: Vec<usize> = (0..6)
        .map(|_| {
            let (log, _) = channel();
            system
                .handle()
                .spawn(|| Local {
                    log,
                    _not_send: Rc::new(()),
                })
                .poller()
        })
        .collect();
    assert_eq!(pollers.iter().filter(|poller| **poller == 0).count(), 3);
    assert!(pollers.windows(2).all(|two| two[0] != two[1]));
}

#[test]
fn an_actor_spawns_another_here_and_elsewhere() {
    let system = named(2);
    let parent = spawn(&system, 0, |probe| probe);
    let (log, told) = channel();
    parent.tell(move |ctx| {
        // Not made by a closure: it never crosses a thread.
        let here = ctx.spawn(Local {
            log,
            _not_send: Rc::new(()),
        });
        assert_eq!(here.poller(), 0);
        here.send(1)?;
        Ok(())
    });
    assert_eq!(next(&told), Told::Opened(0, false));
    assert_eq!(next(&told), Told::Message(1));
    let (log, told) = channel();
    let addr = parent.run(move |ctx| {
        let there = ctx.spawn_on(1, || Local::new(log));
        there.send(2).unwrap();
        there
    });
    assert_eq!(next(&told), Told::Made(Some("spawner-1".to_owned())));
    assert_eq!(next(&told), Told::Opened(1, false));
    assert_eq!(next(&told), Told::Message(2));
    // The parent's end is not the child's.
    parent.addr.close();
    parent.closed();
    addr.send(3).unwrap();
    assert_eq!(next(&told), Told::Message(3));
}

#[test]
fn an_actor_can_be_spawned_in_opened_and_in_closed() {
    let system = named(1);
    let (log, told) = channel();
    let (first, last) = (log.clone(), log);
    let parent = spawn(&system, 0, |probe| {
        probe
            .on_opened(move |ctx| {
                ctx.spawn(Local {
                    log: first.clone(),
                    _not_send: Rc::new(()),
                });
                Ok(())
            })
            .on_closed(move |_, ctx| {
                ctx.spawn(Local {
                    log: last.clone(),
                    _not_send: Rc::new(()),
                })
                .send(9)
                .unwrap();
            })
    });
    assert_eq!(next(&told), Told::Opened(0, false));
    parent.addr.close();
    assert_eq!(next(&told), Told::Opened(0, false));
    assert_eq!(next(&told), Told::Message(9));
}

#[test]
fn a_panic_in_the_factory_is_counted_and_the_address_has_gone() {
    let system = named(1);
    let keeper = spawn(&system, 0, |probe| probe);
    let held = hold(&keeper);
    let addr = system.spawn_on(0, || -> Local { panic!("no actor comes of this") });
    addr.send(1).expect("it is still to be made");
    drop(held);
    settle(&system);
    assert!(addr.is_gone());
    assert!(addr.send(2).unwrap_err().is_gone());
    addr.close();
    let stats = system.stats();
    assert_eq!((stats.panics, stats.dead_letters), (1, 1));
    wait_until("only the keeper is there", || {
        let stats = system.stats();
        stats.opened == stats.closed + 1
    });
    assert_eq!(keeper.run(|_| 7), 7, "its poller goes on");
}

#[test]
fn a_panic_in_opened_ends_that_actor_alone_with_closed() {
    let system = named(1);
    let (one, other) = (
        spawn(&system, 0, |probe| probe),
        spawn(&system, 0, |probe| probe),
    );
    let (events, of_child) = channel();
    one.tell(|ctx| {
        ctx.spawn(Probe::new(events).on_opened(|_| panic!("in opened")));
        Ok(())
    });
    assert!(matches!(next(&of_child), Event::Opened(_)));
    match next(&of_child) {
        Event::Closed(CloseReason::Panicked(what)) => assert_eq!(what, "in opened"),
        event => panic!("{event:?}"),
    }
    assert!(matches!(next(&of_child), Event::Dropped));
    assert_eq!(other.run(|_| 7), 7);
    assert_eq!(system.stats().panics, 1);
}

#[test]
fn a_write_where_there_is_no_socket_is_an_error_of_the_actor() {
    let system = named(1);
    let probe = spawn(&system, 0, |probe| probe);
    probe.tell(|ctx| {
        ctx.write("to nobody");
        Ok(())
    });
    match probe.closed() {
        CloseReason::Panicked(what) => assert!(what.contains("no socket"), "{what}"),
        reason => panic!("{reason:?}"),
    }
}

#[test]
fn a_spawned_actor_is_kept_while_the_system_stops_and_closed_at_its_end() {
    let stage = Stage::new();
    let (client, _probe) = stage.pair();
    let (log, told) = channel();
    let addr = stage.system.spawn_on(0, || Local {
        log,
        _not_send: Rc::new(()),
    });
    stage.system.handle().stop(TIMEOUT);
    assert_eq!(next(&told), Told::Opened(0, false));
    // The client has not closed yet, so the hub still serves.
    assert_eq!(read_to_end(&client), b"");
    if addr.send(4).is_ok() {
        assert_eq!(next(&told), Told::Message(4));
    }
    drop(client);
    stage.system.run().unwrap();
    assert_eq!(next(&told), Told::Closed("the system stopped".to_owned()));
    assert_eq!(next(&told), Told::Dropped);
}

#[test]
fn a_spawn_on_a_poller_that_is_not_there_panics() {
    let system = named(1);
    let handle = system.handle();
    assert!(
        std::panic::catch_unwind(|| handle.spawn_on(1, || -> Local { unreachable!() })).is_err()
    );
    let probe = spawn(&system, 0, |probe| probe);
    probe.tell(|ctx| {
        ctx.spawn_on(1, || -> Local { unreachable!() });
        Ok(())
    });
    assert!(matches!(probe.closed(), CloseReason::Panicked(_)));
}

#[test]
fn every_opened_has_one_closed_also_for_actors_still_to_come_when_the_system_ends() {
    for _ in 0..20 {
        let system = named(2);
        let handle = system.handle();
        let (log, told) = channel();
        for _ in 0..100 {
            let log = log.clone();
            system.spawn(|| Local {
                log,
                _not_send: Rc::new(()),
            });
        }
        drop(log);
        handle.stop(Duration::ZERO);
        system.run().unwrap();
        let all: Vec<Told> = told.iter().collect();
        let count = |wanted: fn(&Told) -> bool| all.iter().filter(|told| wanted(told)).count();
        let opened = count(|told| matches!(told, Told::Opened(..)));
        assert_eq!(opened, count(|told| matches!(told, Told::Closed(_))));
        assert!(count(|told| *told == Told::Dropped) >= opened);
        let stats = handle.stats();
        assert_eq!((stats.opened, stats.closed), (opened as u64, opened as u64));
    }
}
