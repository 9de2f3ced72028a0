//! What costs no allocation: a message, a timer, an echo. Counted by thread, so that the poller's
//! are known from the test's.

mod util;

use std::alloc::{GlobalAlloc, Layout, System as Heap};
use std::cell::Cell;
use std::io::Write;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use greenroom::*;
use util::*;

/// Counts the allocations of each thread.
struct Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    // A thread that ends allocates without its locals.
    let _ = COUNT.try_with(|count| count.set(count.get() + 1));
}

/// Those of the calling thread so far.
fn here() -> u64 {
    COUNT.get()
}

// SAFETY: hands everything to the system's allocator and only counts.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise.
        unsafe { Heap.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { Heap.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's promise.
        unsafe { Heap.realloc(at, layout, size) }
    }
}

#[global_allocator]
static HEAP: Counting = Counting;

/// Messages for which the queue may grow once: it doubles, and what a burst made large is let go
/// of.
const GROWTH: u64 = 500;

/// What may come of a table that grows at last.
const SLACK: u64 = 4;

/// Takes numbers, and tells how many allocations its poller has made.
struct Meter;

enum ToMeter {
    Number(#[allow(dead_code, reason = "it only has to be carried")] u64),
    Allocations(Reply<u64>),
}

impl From<u64> for ToMeter {
    fn from(number: u64) -> ToMeter {
        ToMeter::Number(number)
    }
}

impl Actor for Meter {
    type Message = ToMeter;

    fn message(&mut self, message: ToMeter, _: &mut Context<'_, Self>) -> Outcome {
        if let ToMeter::Allocations(reply) = message {
            let _ = reply.send(here());
        }
        Ok(())
    }
}

fn there(meter: &Addr<Meter>) -> u64 {
    meter.ask(TIMEOUT, ToMeter::Allocations).unwrap()
}

/// Sends `rounds` times a thousand messages; the allocations of the sender and of the poller.
fn measure(meter: &Addr<Meter>, rounds: u64, send: impl Fn(u64)) -> (u64, u64) {
    let before = there(meter);
    let mut sender = 0;
    for _ in 0..rounds {
        let start = here();
        (0..1_000).for_each(&send);
        sender += here() - start;
        // So that the mailbox does not fill.
        there(meter);
    }
    (sender, there(meter) - before)
}

#[test]
fn a_message_costs_no_allocation_but_for_the_growth_of_the_queue() {
    let system = builder(1).build().unwrap();
    let meter = system.spawn(|| Meter);
    let recipient: Recipient<u64> = meter.clone().into();
    for round in 0..2 {
        let by_address = measure(&meter, 50, |n| {
            meter.send(ToMeter::Number(n)).map_err(|_| ()).unwrap()
        });
        // Converted on its way.
        let by_recipient = measure(&meter, 50, |n| recipient.send(n).map_err(|_| ()).unwrap());
        for (sender, poller) in [by_address, by_recipient] {
            assert!(
                sender <= 50_000 / GROWTH + 50,
                "round {round}: {sender} allocations for 50,000 sends"
            );
            assert!(
                poller <= SLACK,
                "round {round}: {poller} allocations for 50,000 deliveries"
            );
        }
    }
}

#[test]
fn cloning_and_converting_an_address_costs_no_allocation() {
    let system = builder(1).build().unwrap();
    let meter = system.spawn(|| Meter);
    let before = here();
    for _ in 0..1_000 {
        let recipient: Recipient<u64> = meter.clone().into();
        assert!(!recipient.clone().is_gone());
    }
    assert_eq!(here(), before);
}

#[test]
fn a_message_between_actors_of_one_poller_costs_no_allocation_but_for_the_growth_of_the_queue() {
    struct Rally {
        left: u32,
        done: Sender<u64>,
        begun: u64,
    }
    impl Actor for Rally {
        type Message = ();
        fn message(&mut self, (): (), ctx: &mut Context<'_, Self>) -> Outcome {
            self.left -= 1;
            match self.left {
                30_000 => self.begun = here(),
                0 => return Ok(self.done.send(here() - self.begun)?),
                _ => {}
            }
            Ok(ctx.addr().send(())?)
        }
    }
    let system = builder(1).build().unwrap();
    let (done, allocations) = channel();
    let rally = system.spawn(|| Rally {
        left: 31_000,
        done,
        begun: 0,
    });
    rally.send(()).unwrap();
    let allocations = next(&allocations);
    assert!(
        allocations <= 30_000 / GROWTH + SLACK,
        "{allocations} allocations for 30,000 messages"
    );
}

#[test]
fn a_timer_costs_no_allocation_to_set_to_cancel_and_to_fire() {
    struct Ticker {
        left: u32,
        done: Sender<u64>,
        begun: u64,
    }
    impl Actor for Ticker {
        type Message = ();
        fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
            ctx.set_timer(Duration::ZERO);
            Ok(())
        }
        fn timer(&mut self, _: TimerKey, ctx: &mut Context<'_, Self>) -> Outcome {
            self.left -= 1;
            match self.left {
                10_000 => self.begun = here(),
                0 => return Ok(self.done.send(here() - self.begun)?),
                _ => {}
            }
            let cancelled = ctx.set_timer(Duration::from_secs(9));
            ctx.set_timer(Duration::ZERO);
            ctx.cancel_timer(cancelled);
            Ok(())
        }
    }
    let system = builder(1).build().unwrap();
    let (done, allocations) = channel();
    system.spawn(|| Ticker {
        left: 11_000,
        done,
        begun: 0,
    });
    assert!(next(&allocations) <= SLACK);
}

#[test]
fn an_echo_costs_no_allocation() {
    struct Echo;
    impl Actor for Echo {
        type Message = ();
        fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
            ctx.write(input.take_all());
            Ok(())
        }
    }
    let system = builder(1).build().unwrap();
    let listener = system.listen("127.0.0.1:0", |_| Echo).unwrap();
    let meter = system.spawn(|| Meter);
    let mut clients: Vec<_> = (0..8).map(|_| connect(&listener)).collect();
    let mut echo = |rounds: usize| {
        for _ in 0..rounds {
            for client in &mut clients {
                client.write_all(&[7; 64]).unwrap();
            }
            for client in &clients {
                assert_eq!(read(client, 64), [7; 64]);
            }
        }
    };
    echo(100);
    let before = there(&meter);
    echo(500);
    let allocations = there(&meter) - before;
    assert!(
        allocations <= SLACK,
        "{allocations} allocations for 4,000 echoes"
    );
}

/// The allocations of its poller so far, in front of what it is sent.
struct Frames;

impl Actor for Frames {
    type Message = protocol::SharedFrame;

    fn message(&mut self, frame: protocol::SharedFrame, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.write_frame(&frame)?;
        Ok(())
    }
}

impl protocol::FrameActor for Frames {
    fn frame(&mut self, frame: protocol::Frame<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        let allocations = here().to_be_bytes();
        ctx.write_frame(&allocations)?;
        ctx.write_frame(frame)?;
        Ok(())
    }
}

#[test]
fn a_frame_costs_no_allocation() {
    let system = builder(1).build().unwrap();
    let make = |_| {
        let codec = protocol::LengthPrefixed::new(Prefix::U32Be, 1000);
        protocol::Framed::new(codec, Frames)
    };
    let listener = system.listen("127.0.0.1:0", make).unwrap();
    let mut client = connect(&listener);
    let frame = [&100_u32.to_be_bytes()[..], &[7; 100]].concat();
    let mut round = || {
        client.write_all(&frame.repeat(10)).unwrap();
        let mut answers = vec![0; 10 * (12 + frame.len())];
        std::io::Read::read_exact(&mut client, &mut answers).unwrap();
        let last = &answers[9 * (12 + frame.len())..];
        assert!(last.ends_with(&frame));
        u64::from_be_bytes(last[4..12].try_into().unwrap())
    };
    let before = (0..5).map(|_| round()).last().unwrap();
    let after = (0..100).map(|_| round()).last().unwrap();
    assert!(
        after - before <= SLACK,
        "{} for 1,000 frames",
        after - before
    );
}

#[test]
fn a_push_costs_allocations_for_itself_and_none_for_its_members() {
    let cost = [10, 1_000].map(|members| {
        let system = builder(1).build().unwrap();
        let meter = system.spawn(|| Meter);
        let room = system.spawn(Broadcaster::<u64>::new);
        for _ in 0..members {
            room.send(Broadcast::Join(system.spawn(|| Meter).into()))
                .unwrap();
        }
        assert_eq!(room.ask(TIMEOUT, Broadcast::Count), Ok(members));
        let push = |times: u64| {
            for n in 0..times {
                room.send(Broadcast::Push(n)).unwrap();
                room.ask(TIMEOUT, Broadcast::Count).unwrap();
            }
            settle(&system);
        };
        push(20);
        let before = there(&meter);
        push(100);
        there(&meter) - before
    });
    assert!(
        cost[1] <= cost[0] + 50,
        "100 pushes: {cost:?} allocations for 10 and for 1,000 members"
    );
}

#[test]
fn a_burst_that_is_over_costs_the_connections_after_it_no_allocation() {
    /// Ends when its peer does.
    struct Guest;
    impl Actor for Guest {
        type Message = ();
    }
    let system = builder(1).build().unwrap();
    let listener = system.listen("127.0.0.1:0", |_| Guest).unwrap();
    let meter = system.spawn(|| Meter);
    let come_and_go = |times: u64| {
        let before = there(&meter);
        for _ in 0..times {
            let opened = system.stats().opened;
            drop(connect(&listener));
            wait_until("the connection came", || system.stats().opened > opened);
            wait_until("the connection went", || system.stats().connections == 0);
        }
        there(&meter) - before
    };
    come_and_go(20);
    let quiet = come_and_go(100);
    let burst: Vec<_> = (0..20_000).map(|_| system.spawn(|| Guest)).collect();
    burst.iter().for_each(Addr::close);
    wait_until("the burst is over", || burst.iter().all(Addr::is_gone));
    come_and_go(20);
    let after = come_and_go(100);
    assert!(
        after <= quiet + SLACK,
        "allocations for 100 connections: {quiet} before the burst, {after} after it"
    );
}
