//! Ends that meet other ends, and waits for room that meet other waits: found by reviews, each
//! named after what a user would see.

mod util;

use std::collections::VecDeque;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use bytes::Buf;
use greenroom::*;
use util::*;

// ---- the reason of an end -------------------------------------------------------------------------------------------

#[test]
fn an_error_is_the_reason_also_where_both_halves_are_shut() {
    let stage = Stage::with(ConnectionOptions::new(), |probe| {
        probe.on_read_closed(|ctx| {
            ctx.shutdown_write();
            Err("the request was cut short".into())
        })
    });
    let (client, seen) = stage.pair();
    half_close(&client);
    let reason = seen.closed();
    assert!(matches!(reason, CloseReason::Error(_)), "{reason}");
}

#[test]
fn a_panic_in_the_drop_of_an_error_that_another_end_hides_harms_nobody() {
    let stage = Stage::with(ConnectionOptions::new(), |probe| {
        probe.on_read_closed(|ctx| {
            ctx.shutdown_write();
            Err(Grudge.into())
        })
    });
    let neighbour = spawn(&stage.system, 0, |p| p);
    let (client, _seen) = stage.pair();
    half_close(&client);
    wait_until("the panic is counted", || stage.system.stats().panics == 1);
    neighbour.run(|_| ());
}

// ---- nothing spins --------------------------------------------------------------------------------------------------

#[test]
fn a_close_that_waits_with_input_left_makes_nobody_spin() {
    const CLIENTS: usize = 350;
    let options = ConnectionOptions::new()
        .incomplete_timeout(Duration::from_millis(20))
        .stuck_timeout(Duration::from_secs(600));
    let stage = Stage::listen(
        builder(1).name("unfinished"),
        "127.0.0.1:0",
        ListenOptions::new()
            .send_buffer(16 << 10)
            .connection(options),
        |probe| {
            probe.on_readable(|input, ctx| {
                // One line, and the beginning of the next.
                input.advance(1);
                // More than the two kernel buffers take.
                ctx.write(vec![b'x'; 256 << 10]);
                ctx.close();
                Ok(())
            })
        },
    );
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = connect_small(&stage.listener, 16 << 10);
        let seen = stage.accepted();
        client.write_all(b"qrest").unwrap();
        clients.push((client, seen));
    }
    wait_until("all close", || {
        stage.system.stats().opened == CLIENTS as u64
    });
    for (_, seen) in &clients {
        assert!(matches!(seen.next(), Event::Readable(..)));
    }
    settle(&stage.system);
    assert_quiet("unfinished");
}

// ---- drained --------------------------------------------------------------------------------------------------------

#[test]
fn who_was_told_false_is_told_drained_also_when_all_was_written_in_one_callback() {
    const FIRST: usize = 60 << 10;
    let options = ConnectionOptions::new()
        .output_max(100 << 10)
        .watermarks(16 << 10, 90 << 10)
        .slow_reader(SlowReader::DropNewest);
    let stage = Stage::listen(
        builder(1),
        "127.0.0.1:0",
        ListenOptions::new()
            .send_buffer(4 << 10)
            .connection(options),
        |probe| probe,
    );
    let client = connect_small(&stage.listener, 2 << 10);
    let seen = stage.accepted();
    let dropped = seen.run(|ctx| {
        assert!(ctx.write([b'a'; FIRST]));
        !ctx.write([b'b'; FIRST])
    });
    assert!(dropped);
    let queued = seen.run(|ctx| ctx.queued());
    assert!(
        queued > 16 << 10,
        "the kernel took nearly all: {queued} are left"
    );
    assert_eq!(read(&client, FIRST).len(), FIRST);
    seen.until(|event| matches!(event, Event::Drained).then_some(()));
}

// ---- waiting for room -----------------------------------------------------------------------------------------------

/// Sends what was kept, and waits where that is refused.
fn pass<A: Actor<Message = u32>>(
    next: &Option<Addr<A>>,
    kept: &mut VecDeque<u32>,
    ctx: &mut Context<'_, A>,
) {
    let Some(next) = next else { return };
    while let Some(number) = kept.pop_front() {
        if let Err(error) = next.send(number) {
            kept.push_front(error.into_message());
            return ctx.wait_for_room(next);
        }
    }
}

/// Hands on each message to the next, and waits where that is full.
struct Relay {
    next: Option<Addr<Relay>>,
    kept: VecDeque<u32>,
    got: Sender<u32>,
}

impl Actor for Relay {
    type Message = u32;

    fn message(&mut self, number: u32, ctx: &mut Context<'_, Self>) -> Outcome {
        if self.next.is_none() {
            self.got.send(number)?;
            return Ok(());
        }
        self.kept.push_back(number);
        pass(&self.next, &mut self.kept, ctx);
        Ok(())
    }

    fn room(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        pass(&self.next, &mut self.kept, ctx);
        Ok(())
    }
}

#[test]
fn hubs_that_wait_for_another_of_their_type_go_on() {
    const BOUND: usize = 16;
    const HUBS: usize = 2 * BOUND;
    const EACH: u32 = 100;
    let system = builder(1).mailbox_bound(BOUND).build().unwrap();
    let relay = |next, got: &Sender<u32>| {
        let got = got.clone();
        system.spawn_on(0, move || Relay {
            next,
            kept: VecDeque::new(),
            got,
        })
    };
    let (got, numbers) = channel();
    let last = relay(None, &got);
    let hubs: Vec<_> = (0..HUBS).map(|_| relay(Some(last.clone()), &got)).collect();
    let sender = thread::spawn(move || {
        for number in 0..EACH {
            for hub in &hubs {
                if !send_patiently(hub, number) {
                    return;
                }
            }
        }
    });
    for _ in 0..EACH as usize * HUBS {
        next(&numbers);
    }
    sender.join().unwrap();
}

/// The same with rooms: hands on each number to its members, and waits where their mailbox is full.
struct Room {
    members: Members<u32>,
    refused: Option<Refused<u32>>,
    kept: VecDeque<u32>,
    got: Sender<u32>,
}

enum ToRoom {
    Join(Recipient<u32>),
    Number(u32),
    Left,
}

impl From<u32> for ToRoom {
    fn from(number: u32) -> ToRoom {
        ToRoom::Number(number)
    }
}

impl From<Left> for ToRoom {
    fn from(_: Left) -> ToRoom {
        ToRoom::Left
    }
}

impl Room {
    fn pass(&mut self, ctx: &mut Context<'_, Room>) {
        while self.refused.is_none()
            && let Some(number) = self.kept.pop_front()
        {
            self.keep(|members| members.push(number), ctx);
        }
    }

    fn keep(
        &mut self,
        push: impl FnOnce(&mut Members<u32>) -> Result<(), Refused<u32>>,
        ctx: &mut Context<'_, Room>,
    ) {
        self.refused = push(&mut self.members).err();
        if let Some(refused) = &self.refused {
            ctx.wait_for_room(refused);
        }
    }
}

impl Actor for Room {
    type Message = ToRoom;

    fn message(&mut self, message: ToRoom, ctx: &mut Context<'_, Self>) -> Outcome {
        match message {
            ToRoom::Join(member) => drop(self.members.join(&member, ctx)),
            ToRoom::Number(number) if self.members.is_empty() => self.got.send(number)?,
            ToRoom::Number(number) => {
                self.kept.push_back(number);
                self.pass(ctx);
            }
            ToRoom::Left => {}
        }
        Ok(())
    }

    fn room(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        if let Some(refused) = self.refused.take() {
            self.keep(|members| members.push_again(refused), ctx);
        }
        self.pass(ctx);
        Ok(())
    }
}

/// Sends until nobody takes anything; how many were taken.
fn fill<A: Actor>(hubs: &[Addr<A>], message: impl Fn(u32) -> A::Message) -> u32 {
    let mut sent = 0;
    while let taken @ 1.. = hubs
        .iter()
        .filter(|hub| hub.send(message(1)).is_ok())
        .count()
    {
        sent += taken as u32;
    }
    sent
}

/// The hubs find their mailbox full and wait for it; then messages for them fill it again. All are
/// set aside, as the hubs wait, and there is no room before one of those has gone on.
fn jam<A: Actor>(
    system: &System,
    hubs: [Addr<A>; 12],
    numbers: &Receiver<u32>,
    message: impl Fn(u32) -> A::Message + Clone + Send + 'static,
) {
    settle(system);
    // Of another type: its turn comes behind that of the hubs.
    let probe = spawn(system, 0, |probe| probe);
    let held = hold(&probe);
    let mut left = fill(&hubs, message.clone());
    assert_eq!(left, 16);
    let (filled, again) = channel();
    let job = move |_: &mut Context<'_, Probe>| Ok(filled.send(fill(&hubs, message))?);
    assert!(probe.addr.send(Box::new(job)).is_ok());
    drop(held);
    left += next(&again);
    assert_eq!(
        left,
        16 + 12,
        "all that was taken out has been filled again"
    );
    while left > 0 {
        left -= next(numbers);
    }
}

#[test]
fn hubs_go_on_though_what_is_set_aside_for_them_fills_the_mailbox_that_they_wait_for() {
    let system = builder(1).mailbox_bound(16).build().unwrap();
    let (got, numbers) = channel();
    let relay = |next: Option<&Addr<Relay>>| {
        let (next, got) = (next.cloned(), got.clone());
        system.spawn_on(0, move || Relay {
            next,
            kept: VecDeque::new(),
            got,
        })
    };
    let last = relay(None);
    let hubs = [(); 12].map(|()| relay(Some(&last)));
    jam(&system, hubs, &numbers, |number| number);
}

#[test]
fn rooms_go_on_though_what_is_set_aside_for_them_fills_the_mailbox_that_they_wait_for() {
    let system = builder(1).mailbox_bound(16).build().unwrap();
    let (got, numbers) = channel();
    let room = || {
        let got = got.clone();
        system.spawn_on(0, move || Room {
            members: Members::new(),
            refused: None,
            kept: VecDeque::new(),
            got,
        })
    };
    let (last, rooms) = (room(), [(); 12].map(|()| room()));
    for room in &rooms {
        assert!(send_patiently(room, ToRoom::Join(last.recipient())));
    }
    jam(&system, rooms, &numbers, ToRoom::Number);
}

// ---- stop -----------------------------------------------------------------------------------------------------------

enum ToHub {
    Join(Recipient<u8>),
    Left,
}

impl From<Left> for ToHub {
    fn from(_: Left) -> ToHub {
        ToHub::Left
    }
}

/// Tells who joined, who left, and its own end.
struct Hub {
    members: Members<u8>,
    told: Sender<&'static str>,
}

impl Actor for Hub {
    type Message = ToHub;

    fn message(&mut self, message: ToHub, ctx: &mut Context<'_, Self>) -> Outcome {
        match message {
            ToHub::Join(member) => {
                self.members.join(&member, ctx);
                self.told.send("joined")?;
            }
            ToHub::Left => self.told.send("left")?,
        }
        Ok(())
    }

    fn closed(&mut self, _: &CloseReason, _: &mut Context<'_, Self>) {
        let _ = self.told.send("closed");
    }
}

/// Joins the hub, and at the stop ends at once while another actor of its poller is busy.
struct Guest {
    hub: Addr<Hub>,
    busy: Addr<Probe>,
}

impl Actor for Guest {
    type Message = u8;

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        Ok(self.hub.send(ToHub::Join(ctx.addr().into()))?)
    }

    fn stopping(&mut self, _deadline: std::time::Instant, ctx: &mut Context<'_, Self>) -> Outcome {
        let _ = self.busy.send(Box::new(|_| {
            // A callback that takes long: nobody waits for this but the poller.
            thread::sleep(Duration::from_millis(200));
            Ok(())
        }));
        ctx.abort();
        Ok(())
    }
}

#[test]
fn a_hub_is_told_who_left_before_its_end_also_at_stop() {
    let system = builder(2).build().expect("the system starts");
    let (told, heard) = channel();
    let hub = system.spawn_on(0, move || Hub {
        members: Members::new(),
        told,
    });
    let busy = spawn(&system, 1, |probe| probe);
    let to = busy.addr.clone();
    let options = ListenOptions::new().balance(Balance::RoundRobin);
    let listener = system
        .listen_with("127.0.0.1:0", options, move |_peer| Guest {
            hub: hub.clone(),
            busy: to.clone(),
        })
        .expect("it listens");
    // The second is on poller 1; the first has left before the stop.
    let first = connect(&listener);
    assert_eq!(next(&heard), "joined");
    let _second = connect(&listener);
    assert_eq!(next(&heard), "joined");
    reset(first);
    assert_eq!(next(&heard), "left");
    system.handle().stop(Duration::from_secs(600));
    let ended = system.run();
    assert_eq!((next(&heard), next(&heard)), ("left", "closed"));
    ended.expect("a stop in order");
}

/// Hands on each message eight times, and waits where that is full. Counts what it is given.
struct Copier {
    next: Option<Addr<Copier>>,
    kept: VecDeque<u32>,
    got: Arc<AtomicUsize>,
}

impl Actor for Copier {
    type Message = u32;

    fn message(&mut self, number: u32, ctx: &mut Context<'_, Self>) -> Outcome {
        if self.next.is_some() {
            self.got.fetch_add(1, Ordering::SeqCst);
        }
        self.kept.extend([number; 8]);
        if self.next.is_none() {
            self.kept.clear();
        }
        pass(&self.next, &mut self.kept, ctx);
        Ok(())
    }

    fn room(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        pass(&self.next, &mut self.kept, ctx);
        Ok(())
    }
}

#[test]
fn what_waits_for_a_hub_that_waits_for_its_own_type_is_bounded() {
    const BOUND: usize = 16;
    const HUBS: usize = 32;
    let system = builder(1).mailbox_bound(BOUND).build().unwrap();
    let got = Arc::new(AtomicUsize::new(0));
    let sent = Arc::new(AtomicUsize::new(0));
    let spawn = |next: Option<Addr<Copier>>| {
        let got = got.clone();
        system.spawn_on(0, move || Copier {
            next,
            kept: VecDeque::new(),
            got,
        })
    };
    let last = spawn(None);
    let hubs: Vec<_> = (0..HUBS).map(|_| spawn(Some(last.clone()))).collect();
    let deadline = std::time::Instant::now() + Duration::from_secs(2);
    let mut most = 0;
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut number = 0;
            while std::time::Instant::now() < deadline {
                for hub in &hubs {
                    if hub.send(number).is_ok() {
                        sent.fetch_add(1, Ordering::SeqCst);
                    }
                    number += 1;
                }
            }
        });
        while std::time::Instant::now() < deadline {
            let done = got.load(Ordering::SeqCst);
            most = most.max(sent.load(Ordering::SeqCst).saturating_sub(done));
            thread::park_timeout(Duration::from_millis(10));
        }
    });
    // The bound, each hub's share, and what was counted between the two looks.
    assert!(
        most < 10_000,
        "{most} messages wait behind a bound of {BOUND}"
    );
}

#[test]
fn a_hub_that_waited_elsewhere_first_can_wait_for_its_own_type() {
    let system = builder(2).mailbox_bound(16).build().unwrap();
    let far = spawn(&system, 1, |probe| probe);
    let near = spawn(&system, 0, |probe| probe);
    let hubs: Vec<_> = (0..9).map(|_| spawn(&system, 0, |probe| probe)).collect();
    let held = hold(&far);
    while far.addr.send(Box::new(|_| Ok(()))).is_ok() {}
    for hub in &hubs {
        let far = far.addr.clone();
        hub.run(move |ctx| ctx.wait_for_room(&far));
    }
    // Set aside: the first hub's take most of the mailbox, the others' the rest.
    let (done, is_done) = channel();
    let mut jobs = 0;
    for hub in &hubs {
        loop {
            let (near, done) = (near.addr.clone(), done.clone());
            let job = move |ctx: &mut Context<'_, Probe>| {
                if near.send(Box::new(|_| Ok(()))).is_err() {
                    ctx.wait_for_room(&near);
                }
                Ok(done.send(())?)
            };
            if hub.addr.send(Box::new(job)).is_err() {
                break;
            }
            jobs += 1;
        }
    }
    drop(held);
    for _ in 0..jobs {
        next(&is_done);
    }
}
