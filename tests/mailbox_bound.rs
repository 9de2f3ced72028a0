//! A mailbox has a bound: past it the sender gets the message back, and one flooded actor does not
//! close it to the others.

mod util;

use std::cell::Cell;
use std::error::Error;
use std::sync::mpsc::{Sender, channel};

use greenroom::*;
use util::*;

const BOUND: usize = 16;

/// Takes messages that are `Send` and not `Sync`.
struct Taker {
    log: Sender<u32>,
}

impl Actor for Taker {
    type Message = Cell<u32>;

    fn message(&mut self, message: Cell<u32>, _: &mut Context<'_, Self>) -> Outcome {
        Ok(self.log.send(message.get())?)
    }

    fn closed(&mut self, _: &CloseReason, _: &mut Context<'_, Self>) {
        let _ = self.log.send(u32::MAX);
    }
}

fn system() -> (System, Seen) {
    let system = builder(1).mailbox_bound(BOUND).build().unwrap();
    let keeper = spawn(&system, 0, |probe| probe);
    (system, keeper)
}

fn taker(system: &System) -> (Addr<Taker>, std::sync::mpsc::Receiver<u32>) {
    let (log, taken) = channel();
    let addr = system.spawn_on(0, || Taker { log });
    // So that what is in the mailbox is what the test puts there.
    settle(system);
    (addr, taken)
}

/// Sends until it is refused; how many were accepted.
fn fill(to: &Addr<Taker>) -> usize {
    for n in 0.. {
        assert!(n <= 10 * BOUND, "the mailbox has no bound");
        if let Err(error) = to.send(Cell::new(n as u32)) {
            assert!(error.is_full() && error.kind() == SendErrorKind::Full);
            return n;
        }
    }
    unreachable!("a mailbox has a bound")
}

#[test]
fn a_full_mailbox_gives_the_message_back() {
    let (system, keeper) = system();
    let (addr, taken) = taker(&system);
    let held = hold(&keeper);
    let accepted = fill(&addr);
    assert!(
        (BOUND / 2..=BOUND).contains(&accepted),
        "{accepted} of {BOUND}"
    );
    let error = addr.send(Cell::new(77)).unwrap_err();
    assert_eq!(error.to_string(), "send: the receiver's mailbox is full");
    assert_eq!(error.into_message().get(), 77);
    drop(held);
    for n in 0..accepted {
        assert_eq!(
            next(&taken),
            n as u32,
            "what was accepted comes, and only that"
        );
    }
    settle(&system);
    assert!(taken.try_recv().is_err());
    addr.send(Cell::new(78)).expect("there is room again");
    assert_eq!(next(&taken), 78);
}

#[test]
fn actors_of_one_type_share_the_bound_and_those_of_another_do_not() {
    let (system, keeper) = system();
    let takers: Vec<_> = (0..40).map(|_| taker(&system)).collect();
    let held = hold(&keeper);
    let accepted: usize = takers.iter().map(|(addr, _)| fill(addr)).sum();
    assert_eq!(accepted, BOUND);
    keeper.tell(|_| Ok(()));
    drop(held);
    let came: usize = takers
        .iter()
        .map(|(addr, taken)| {
            addr.close();
            std::iter::from_fn(|| Some(next(taken)).filter(|n| *n != u32::MAX)).count()
        })
        .sum();
    assert_eq!(came, BOUND);
}

#[test]
fn a_flood_to_one_actor_leaves_room_for_its_neighbour() {
    let (system, keeper) = system();
    let (flooded, _taken) = taker(&system);
    let (neighbour, taken) = taker(&system);
    // Again and again: what was counted against an actor is given back.
    for round in 0..20 {
        let held = hold(&keeper);
        let flood = fill(&flooded);
        assert!(
            flood >= BOUND / 2,
            "round {round}: alone it gets half at least, not {flood}"
        );
        neighbour
            .send(Cell::new(round))
            .expect("a flood to one leaves room for another");
        drop(held);
        assert_eq!(next(&taken), round);
        settle(&system);
    }
    // Nor does what was on its way to one that ended stay counted.
    let held = hold(&keeper);
    fill(&flooded);
    flooded.close();
    drop(held);
    settle(&system);
    let held = hold(&keeper);
    let filled = fill(&neighbour);
    assert!(filled >= BOUND / 2, "{filled} of {BOUND}");
    drop(held);
}

#[test]
fn a_close_gets_through_a_full_mailbox_behind_what_was_sent_before() {
    let (system, keeper) = system();
    let (addr, taken) = taker(&system);
    let held = hold(&keeper);
    let accepted = fill(&addr);
    addr.close();
    drop(held);
    for n in 0..accepted {
        assert_eq!(next(&taken), n as u32);
    }
    assert_eq!(next(&taken), u32::MAX);
}

#[test]
fn a_spawn_gets_through_a_full_mailbox() {
    let (system, keeper) = system();
    let (addr, _taken) = taker(&system);
    let held = hold(&keeper);
    fill(&addr);
    let (log, told) = channel();
    let late = system.spawn_on(0, || Taker { log });
    late.close();
    drop(held);
    assert_eq!(next(&told), u32::MAX);
}

#[test]
fn messages_sent_before_opened_wait_within_the_bound() {
    let (system, keeper) = system();
    let held = hold(&keeper);
    let (log, taken) = channel();
    let addr = system.spawn_on(0, || Taker { log });
    let accepted = fill(&addr);
    assert!((BOUND / 2..=BOUND).contains(&accepted));
    drop(held);
    for n in 0..accepted {
        assert_eq!(next(&taken), n as u32);
    }
}

/// A message that is `Send` and neither `Sync` nor `Debug`.
struct Bare(#[allow(dead_code, reason = "only its type matters")] Cell<u32>);

#[test]
fn a_send_error_is_an_error_that_crosses_threads_whatever_the_message() {
    fn is_error<T: Error + Send + Sync + 'static>() {}
    is_error::<SendError<Bare>>();
    is_error::<SendError<Cell<u32>>>();
    let (system, keeper) = system();
    let (addr, _taken) = taker(&system);
    let _held = hold(&keeper);
    fill(&addr);
    let send = || -> Outcome { Ok(addr.send(Cell::new(1))?) };
    let error = send().unwrap_err();
    assert!(error.downcast::<SendError<Cell<u32>>>().unwrap().is_full());
}

#[test]
fn a_question_mark_on_a_send_closes_the_sender() {
    let (system, keeper) = system();
    let gone = spawn(&system, 0, |probe| probe);
    gone.addr.close();
    gone.closed();
    wait_until("it has gone", || gone.addr.is_gone());
    let to = gone.addr.clone();
    keeper.tell(move |_| Ok(to.send(Box::new(|_| Ok(())))?));
    match keeper.closed() {
        CloseReason::Error(error) => assert_eq!(error.to_string(), "send: the receiver has gone"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_bound_that_has_room_for_less_than_two_is_refused() {
    for bound in [0, 1] {
        assert!(std::panic::catch_unwind(|| System::builder().mailbox_bound(bound)).is_err());
    }
}
