//! The simulation itself: what it promises to those who test by it.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use greenroom::testing::{Client, Fault, Faults, Simulation, Stage, for_each_seed, note};
use greenroom::*;

const ADDR: &str = "127.0.0.1:9000";

/// Sends back what it is sent.
struct Echo;

impl Actor for Echo {
    type Message = ();

    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        if input.bytes() == b"panic\n" {
            panic!("it was told to");
        }
        ctx.write(input.take_all());
        Ok(())
    }
}

/// Sends so many bytes, and notes what comes back and how it ended.
struct Asker {
    bytes: Vec<u8>,
    log: Rc<RefCell<Log>>,
}

#[derive(Default)]
struct Log {
    echoed: Vec<Vec<u8>>,
    refused: usize,
    lost: usize,
}

impl Actor for Asker {
    type Message = ();

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.write(&self.bytes[..]);
        ctx.shutdown_write();
        Ok(())
    }

    fn readable(&mut self, input: &mut Input<'_>, _ctx: &mut Context<'_, Self>) -> Outcome {
        if input.at_end() {
            self.log.borrow_mut().echoed.push(input.take_all().to_vec());
        }
        Ok(())
    }

    fn closed(&mut self, reason: &CloseReason, _ctx: &mut Context<'_, Self>) {
        note(format_args!("an asker has ended: {reason}"));
        match reason {
            CloseReason::PeerClosed | CloseReason::Finished => {}
            CloseReason::NotConnected(_) => self.log.borrow_mut().refused += 1,
            _ => self.log.borrow_mut().lost += 1,
        }
    }
}

fn server(simulation: &mut Simulation, pollers: usize) -> System {
    let system = simulation.system(System::builder().pollers(pollers).name("server"));
    system.listen(ADDR, |_peer| Echo).unwrap();
    system
}

fn ask(simulation: &mut Simulation, bytes: Vec<u8>, log: &Rc<RefCell<Log>>) {
    let log = log.clone();
    simulation.connect(ADDR, Asker { bytes, log });
}

/// Stands in README.md, word for word.
#[test]
fn a_server_under_many_seeds() {
    for_each_seed(100, |simulation| {
        simulation.faults(Faults::harmless());
        let system = simulation.system(System::builder().pollers(2));
        system.listen("127.0.0.1:9000", |_peer| Echo).unwrap();
        let client = simulation.client("127.0.0.1:9000");
        client.send("hello\n");
        assert_eq!(client.line(simulation), "hello");
    });
}

#[test]
fn a_client_talks_to_a_server() {
    let mut simulation = Simulation::new(1);
    let system = server(&mut simulation, 2);
    let client = simulation.client(ADDR);
    client.send("hello\nand ");
    assert_eq!(client.line(&mut simulation), "hello");
    client.send("more\n");
    assert_eq!(client.line(&mut simulation), "and more");
    assert_eq!(system.stats().connections, 1);
    drop(client);
    simulation.run_until(Duration::from_secs(1), |_| system.stats().connections == 0);
    simulation.finish(Duration::from_secs(1));
}

#[test]
fn a_client_waits_for_so_many_bytes_or_for_the_end() {
    let mut simulation = Simulation::new(1);
    simulation.faults(Faults::harmless());
    let _system = server(&mut simulation, 2);
    let client = simulation.client(ADDR);
    client.send("one two three");
    client.half_close();
    assert_eq!(client.take(&mut simulation, 4), "one ");
    assert_eq!(client.take(&mut simulation, 0), "");
    assert_eq!(client.rest(&mut simulation), "two three");
}

#[test]
#[should_panic(expected = "take: the server has ended the stream; there is b\"one\"")]
fn a_client_that_waits_in_vain_says_why() {
    let mut simulation = Simulation::new(1);
    let _system = server(&mut simulation, 2);
    let client = simulation.client(ADDR);
    client.send("one");
    client.half_close();
    client.take(&mut simulation, 4);
}

#[test]
#[should_panic(expected = "line: the connect was refused; there is b\"\"")]
fn a_client_that_nobody_listens_to_says_so() {
    let mut simulation = Simulation::new(1);
    let client = simulation.client(ADDR);
    client.line(&mut simulation);
}

#[test]
#[should_panic(expected = "Echo panicked: it was told to")]
fn an_actor_that_panics_fails_the_test() {
    let mut simulation = Simulation::new(1);
    let _system = server(&mut simulation, 2);
    let client = simulation.client(ADDR);
    client.send("panic\n");
    client.line(&mut simulation);
}

#[test]
fn who_goes_past_the_simulation_is_told() {
    let mut simulation = Simulation::new(1);
    let error = System::builder().build().unwrap_err();
    assert!(error.to_string().contains("Simulation::system"), "{error}");
    let system = server(&mut simulation, 1);
    let error = system.run().unwrap_err();
    assert!(error.to_string().contains("its simulation"), "{error}");
}

#[test]
fn a_trace_tells_the_end_of_each_actor() {
    let mut simulation = Simulation::new(1);
    let _system = server(&mut simulation, 1);
    let client = simulation.client(ADDR);
    client.send("hello\n");
    client.line(&mut simulation);
    client.reset();
    while simulation.step() {}
    let trace = simulation.trace().to_string();
    for what in [
        "-            c1 resets its peer",
        "server-0     c1 receives the reset",
        "Echo 0.0v1 has ended: reset by the peer",
        "server-0     c1 closes",
    ] {
        assert!(trace.contains(what), "{what}: {trace}");
    }
    assert!(format!("{client:?}").contains("c1"), "{client:?}");
}

#[test]
fn a_client_that_resets_before_it_is_connected_leaves_nobody_behind() {
    let mut simulation = Simulation::new(1);
    let system = server(&mut simulation, 2);
    let client = simulation.client(ADDR);
    client.send("hello\n");
    client.reset();
    while simulation.step() {}
    assert!(client.is_reset() && client.is_closed());
    assert_eq!(system.stats().accepted, 0);
}

#[test]
fn harmless_faults_are_not_seen_by_clients() {
    for_each_seed(200, |simulation| {
        simulation.faults(Faults::harmless());
        let _system = server(simulation, 3);
        let log = Rc::new(RefCell::new(Log::default()));
        let clients = simulation.random().range(1..20);
        let mut sent = Vec::new();
        for client in 0..clients {
            let len = simulation.random().range(1..3000);
            let bytes: Vec<u8> = (0..len).map(|at| (client + at) as u8).collect();
            sent.push(bytes.clone());
            ask(simulation, bytes, &log);
        }
        let seen = log.clone();
        simulation.run_until(Duration::from_secs(3600), move |_| {
            let log = seen.borrow();
            log.echoed.len() + log.refused == clients as usize
        });
        let log = log.borrow();
        assert_eq!(log.lost, 0);
        assert!(log.echoed.iter().all(|echoed| sent.contains(echoed)));
    });
}

#[test]
fn whatever_goes_wrong_everything_ends() {
    for_each_seed(200, |simulation| {
        simulation.faults(Faults::all());
        let system = server(simulation, 2);
        let log = Rc::new(RefCell::new(Log::default()));
        for at in 0..20 {
            let log = log.clone();
            let len = simulation.random().below(6_000) as usize;
            let delay = simulation.random().duration(Duration::from_secs(100));
            simulation.after(delay, move |simulation| {
                ask(simulation, vec![at; len], &log);
            });
        }
        simulation.run_for(Duration::from_secs(200));
        simulation.finish(Duration::from_secs(10));
        let stats = system.stats();
        assert_eq!(stats.opened, stats.closed);
    });
}

#[test]
fn the_last_thing_that_happens_is_seen() {
    let mut simulation = Simulation::new(1);
    let log = Rc::default();
    // Nobody listens, and but for the refusal nothing ever happens.
    ask(&mut simulation, Vec::new(), &log);
    simulation.run_until(Duration::from_secs(1), |_| log.borrow().refused == 1);
}

/// Takes bytes of which each is one more than the one before.
#[derive(Default)]
struct Count(u8);

impl Actor for Count {
    type Message = ();

    fn readable(&mut self, input: &mut Input<'_>, _ctx: &mut Context<'_, Self>) -> Outcome {
        for byte in input.take_all() {
            assert_eq!(*byte, self.0, "bytes are missing");
            self.0 = self.0.wrapping_add(1);
        }
        Ok(())
    }
}

#[test]
fn what_has_arrived_of_a_lost_connection_has_no_gap() {
    for_each_seed(200, |simulation| {
        let faults = Faults::none().with(Fault::Split).with(Fault::Die);
        simulation.faults(faults.with(Fault::Reset));
        let system = simulation.system(System::builder().pollers(1));
        system.listen(ADDR, |_peer| Count::default()).unwrap();
        let log = Rc::default();
        for _ in 0..20 {
            let bytes = (0..5000).map(|at| at as u8).collect();
            ask(simulation, bytes, &log);
        }
        simulation.run_for(Duration::from_secs(200));
    });
}

#[test]
fn the_same_seed_is_the_same_run() {
    let run = |seed| {
        let mut simulation = Simulation::new(seed);
        simulation.faults(Faults::all().without(Fault::Refuse));
        simulation.keep_trace(usize::MAX);
        let _system = server(&mut simulation, 3);
        let log = Rc::new(RefCell::new(Log::default()));
        for _ in 0..30 {
            let len = simulation.random().below(1000) as usize;
            ask(&mut simulation, vec![b'x'; len], &log);
        }
        simulation.run_for(Duration::from_secs(20));
        simulation.finish(Duration::from_secs(1));
        simulation.trace().to_string()
    };
    for seed in 0..10 {
        assert_eq!(run(seed), run(seed));
        assert_ne!(run(seed), run(seed + 1));
    }
}

/// Keeps the reason of its end.
struct Ended(Rc<RefCell<Vec<String>>>);

impl Actor for Ended {
    type Message = ();

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        self.0.borrow_mut().push("opened".to_owned());
        ctx.write("hello");
        ctx.close();
        Ok(())
    }

    fn closed(&mut self, reason: &CloseReason, _ctx: &mut Context<'_, Self>) {
        self.0.borrow_mut().push(reason.to_string());
    }
}

#[test]
fn the_answer_of_a_connect_is_told_to_nobody_else() {
    let mut simulation = Simulation::new(1);
    let _system = server(&mut simulation, 1);
    let refused = simulation.client("127.0.0.1:1");
    simulation.run_until(Duration::from_secs(1), |_| refused.is_refused());
    drop(refused);
    // In the place that is free again.
    let log = Rc::default();
    simulation.connect(ADDR, Ended(Rc::clone(&log)));
    simulation.run_for(Duration::from_secs(1));
    assert_eq!(log.borrow()[0], "opened");
}

#[test]
fn what_a_test_sends_has_no_gaps() {
    for_each_seed(20, |simulation| {
        simulation.faults(Faults::harmless().with(Fault::NoMemory));
        let _system = server(simulation, 1);
        let client = simulation.client(ADDR);
        let all: String = (0..2000).map(|n| format!("{n}\n")).collect();
        for line in all.split_inclusive('\n') {
            client.send(line);
        }
        let mut echoed = Vec::new();
        simulation.run_until(Duration::from_secs(3600), |_| {
            echoed.extend(client.received());
            // The server's kernel may have no memory, too, and it closes over that.
            client.is_closed() || echoed.len() == all.len()
        });
        assert!(all.as_bytes().starts_with(&echoed));
    });
}

/// Writes a little, then more than kernels hold, and says how much of that waits a second later.
struct Flood {
    written: usize,
    waits: Arc<AtomicUsize>,
}

const FLOOD: usize = 500_000;

impl Actor for Flood {
    type Message = ();

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.write(&[b'x'; 1000][..]);
        ctx.set_timer(Duration::from_secs(1));
        Ok(())
    }

    fn timer(&mut self, _timer: TimerKey, ctx: &mut Context<'_, Self>) -> Outcome {
        if self.written == 0 {
            ctx.write(vec![b'x'; FLOOD]);
            ctx.set_timer(Duration::from_secs(1));
        } else {
            self.waits.store(ctx.queued(), Ordering::Relaxed);
        }
        self.written += FLOOD;
        Ok(())
    }
}

/// How much the kernels hold for a client that does not read.
fn held_by_kernels(stop: impl FnOnce(&mut Simulation, &Client)) -> usize {
    let mut simulation = Simulation::new(1);
    let system = simulation.system(System::builder().pollers(1));
    let waits = Arc::new(AtomicUsize::new(0));
    let told = waits.clone();
    let flood = move |_| Flood {
        written: 0,
        waits: told.clone(),
    };
    system.listen(ADDR, flood).unwrap();
    let client = simulation.client(ADDR);
    simulation.run_for(Duration::from_millis(500));
    stop(&mut simulation, &client);
    simulation.run_for(Duration::from_secs(2));
    FLOOD - waits.load(Ordering::Relaxed)
}

#[test]
fn kernels_hold_64_kib_whatever_was_before() {
    let room = 64 << 10;
    assert_eq!(held_by_kernels(|_, client| client.stop_reading()), room);
    let on_and_off = |_: &mut Simulation, client: &Client| {
        for _ in 0..100 {
            client.stop_reading();
            client.read_on();
        }
        client.stop_reading();
    };
    assert_eq!(held_by_kernels(on_and_off), room);
    let healed = |simulation: &mut Simulation, client: &Client| {
        simulation.heal();
        simulation.heal();
        client.stop_reading();
    };
    assert_eq!(held_by_kernels(healed), room);
}

#[test]
fn a_reset_ends_both_sides_of_a_connection_that_is_still_being_made() {
    for_each_seed(300, |simulation| {
        simulation.faults(Faults::none().with(Fault::Delay).with(Fault::Reset));
        let system = server(simulation, 1);
        let clients: Vec<Client> = (0..5).map(|_| simulation.client(ADDR)).collect();
        let reset = simulation.client(ADDR);
        if simulation.random().one_in(2) {
            simulation.step();
        }
        reset.reset();
        simulation.run_for(Duration::from_secs(200));
        let alive = clients.iter().filter(|client| !client.is_closed());
        assert_eq!(system.stats().connections, alive.count() as u64);
    });
}

#[test]
fn a_note_may_look_at_a_client() {
    let mut simulation = Simulation::new(1);
    let client = simulation.client(ADDR);
    note(format_args!("{client:?}"));
    assert!(
        simulation
            .trace()
            .to_string()
            .contains("is_connected: false")
    );
}

#[test]
fn a_client_may_outlive_its_simulation() {
    let mut simulation = Simulation::new(1);
    let client = simulation.client(ADDR);
    drop(simulation);
    let mut simulation = Simulation::new(2);
    let other = simulation.client("127.0.0.1:1");
    drop(client);
    simulation.run_until(Duration::from_secs(1), |_| other.is_refused());
}

#[test]
#[should_panic(expected = "its simulation is over")]
fn a_client_whose_simulation_is_over_says_so() {
    let mut simulation = Simulation::new(1);
    let client = simulation.client(ADDR);
    drop(simulation);
    client.send("hello");
}

#[test]
#[should_panic(expected = "a Stage")]
fn a_simulation_does_not_share_a_thread_with_a_stage() {
    let _stage = Stage::new(Echo);
    let _simulation = Simulation::new(1);
}

#[test]
#[should_panic(expected = "a Simulation")]
fn a_stage_does_not_share_a_thread_with_a_simulation() {
    let _simulation = Simulation::new(1);
    let _stage = Stage::new(Echo);
}

#[test]
fn a_system_may_outlive_its_simulation() {
    let mut simulation = Simulation::new(1);
    let system = server(&mut simulation, 2);
    let addr = system.spawn(|| Echo);
    simulation.run_for(Duration::from_secs(1));
    drop(simulation);
    assert!(addr.send(()).is_err());
    let error = system.listen("127.0.0.1:1", |_| Echo).unwrap_err();
    assert!(
        error.to_string().contains("its simulation is over"),
        "{error}"
    );
}

#[test]
fn the_last_thing_that_happens_counts() {
    let mut simulation = Simulation::new(1);
    let log = Rc::new(RefCell::new(Log::default()));
    ask(&mut simulation, vec![b'x'], &log);
    simulation.run_until(Duration::from_secs(1), |_| log.borrow().refused == 1);
    let done = Rc::new(RefCell::new(false));
    let set = done.clone();
    simulation.after(Duration::from_secs(1), move |_| *set.borrow_mut() = true);
    simulation.run_until(Duration::from_secs(2), |_| *done.borrow());
}

#[test]
fn a_connect_that_is_lost_on_its_way_is_made_in_the_end() {
    for_each_seed(30, |simulation| {
        simulation.faults(Faults::none().with(Fault::LostConnect));
        let _system = server(simulation, 1);
        let clients: Vec<Client> = (0..1000).map(|_| simulation.client(ADDR)).collect();
        simulation.run_for(Duration::from_secs(20));
        assert!(clients.iter().all(Client::is_connected));
    });
}

#[test]
fn stages_before_and_after_a_simulation_are_none_of_its_business() {
    drop(Stage::new(Echo));
    let mut simulation = Simulation::new(1);
    let _system = server(&mut simulation, 1);
    let client = simulation.client(ADDR);
    client.send("hello\n");
    assert_eq!(client.line(&mut simulation), "hello");
    drop(simulation);
    let mut stage = Stage::new(Echo);
    stage.receive("hello");
    assert_eq!(stage.output(), "hello");
}

#[test]
fn a_system_has_as_many_pollers_on_every_machine() {
    let mut simulation = Simulation::new(1);
    let system = simulation.system(System::builder());
    assert_eq!(system.handle().pollers(), 2);
}

#[test]
#[should_panic(expected = "Simulation::ask")]
fn an_ask_that_would_wait_for_ever_says_so() {
    let mut simulation = Simulation::new(1);
    let system = server(&mut simulation, 1);
    let addr = system.spawn(|| Echo);
    let _ = addr.ask(Duration::from_secs(1), |_: Reply<()>| ());
}

/// Closes at once.
struct Closes;

impl Actor for Closes {
    type Message = ();

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.close();
        Ok(())
    }
}

#[test]
#[should_panic(expected = "run_until: not after 1ns")]
fn what_is_late_is_not_in_time() {
    let mut simulation = Simulation::new(1);
    let system = simulation.system(System::builder().pollers(1));
    system.listen(ADDR, |_| Closes).unwrap();
    while !simulation.rates().contains("Delay 1/1") {
        simulation.faults(Faults::none().with(Fault::Delay));
    }
    let client = simulation.client(ADDR);
    simulation.run_until(Duration::from_secs(10), |_| system.stats().closed > 0);
    // The end of the stream is what comes next, and not within a nanosecond.
    simulation.run_until(Duration::from_nanos(1), |_| client.is_closed());
}

/// Tells its address and its peer's.
struct Addresses(Arc<Mutex<Vec<String>>>);

impl Actor for Addresses {
    type Message = ();

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        // Asked for here, known later.
        let _ = ctx.local_addr();
        ctx.set_timer(Duration::from_millis(1));
        Ok(())
    }

    fn timer(&mut self, _timer: TimerKey, ctx: &mut Context<'_, Self>) -> Outcome {
        let local = ctx.local_addr().ok_or("no local address")?;
        let peer = ctx.peer().ok_or("no peer")?;
        self.0
            .lock()
            .unwrap()
            .extend([local.to_string(), peer.to_string()]);
        Ok(())
    }
}

#[test]
fn both_ends_agree_on_their_addresses() {
    for (listens, connects) in [
        (ADDR, ADDR),
        ("0.0.0.0:9000", ADDR),
        ("[::]:9000", "[::1]:9000"),
    ] {
        let mut simulation = Simulation::new(1);
        let system = simulation.system(System::builder().pollers(1));
        let told = Arc::new(Mutex::new(Vec::new()));
        let server = told.clone();
        system
            .listen(listens, move |_| Addresses(server.clone()))
            .unwrap();
        simulation.run_for(Duration::from_millis(1));
        simulation.connect(connects, Addresses(told.clone()));
        simulation.run_for(Duration::from_secs(1));
        let told = told.lock().unwrap();
        let [a_local, a_peer, b_local, b_peer] = &told[..] else {
            panic!("{told:?}");
        };
        assert_eq!((a_local, a_peer), (b_peer, b_local));
        assert!(
            [a_local, a_peer].iter().any(|addr| *addr == connects),
            "{told:?}"
        );
    }
}

#[test]
fn listeners_get_in_each_others_way_as_on_a_kernel() {
    let mut simulation = Simulation::new(1);
    let system = simulation.system(System::builder().pollers(1));
    let listen = |addr: &str| system.listen(addr, |_| Echo).map(drop);
    let in_use = |addr: &str| {
        let error = listen(addr).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse, "{addr}");
    };
    listen("127.0.0.1:1").unwrap();
    in_use("127.0.0.1:1");
    in_use("0.0.0.0:1");
    listen("127.0.0.2:1").unwrap();
    listen("0.0.0.0:2").unwrap();
    in_use("127.0.0.1:2");
    listen("unix:/a").unwrap();
    in_use("unix:/a");
    // A port that somebody has asked for is given to nobody.
    listen("127.0.0.1:40010").unwrap();
    for _ in 0..20 {
        listen("127.0.0.1:0").unwrap();
    }
}

/// A line in a room. Where it is dropped is seen in the trace.
#[derive(Clone)]
struct Line(String);

impl Drop for Line {
    fn drop(&mut self) {
        note(format_args!("drops {}", self.0));
    }
}

/// A connection that says its lines in the room, and is said those of all.
struct Talker {
    room: Addr<Broadcaster<Line>>,
    unsaid: Option<Line>,
}

impl Talker {
    fn say(&mut self, line: Line, ctx: &mut Context<'_, Self>) -> bool {
        let Err(error) = self.room.send(Broadcast::Push(line)) else {
            return true;
        };
        if let Broadcast::Push(line) = error.into_message() {
            self.unsaid = Some(line);
        }
        ctx.wait_for_room(&self.room);
        false
    }
}

impl Actor for Talker {
    type Message = Line;

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        self.room.join(ctx.addr());
        ctx.set_timer(Duration::from_millis(3));
        Ok(())
    }

    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        while let Some(line) = input.line(100)? {
            let line = Line(String::from_utf8_lossy(line).into_owned());
            if !self.say(line, ctx) {
                break;
            }
        }
        Ok(())
    }

    fn room(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        if let Some(line) = self.unsaid.take() {
            self.say(line, ctx);
        }
        Ok(())
    }

    fn message(&mut self, line: Line, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.write_parts(&[line.0.as_bytes(), b"\n"]);
        Ok(())
    }

    fn timer(&mut self, _timer: TimerKey, ctx: &mut Context<'_, Self>) -> Outcome {
        let room = self.room.clone();
        let timeout = Duration::from_millis(5);
        ctx.ask(&room, timeout, Broadcast::Count, |count| {
            Line(format!("{count:?}"))
        });
        let after = Duration::from_millis(20);
        ctx.set_timer(after);
        Ok(())
    }
}

fn room(simulation: &mut Simulation) -> System {
    let builder = System::builder().pollers(3).mailbox_bound(8);
    let system = simulation.system(builder.name("room"));
    let room = system.spawn_on(0, Broadcaster::<Line>::new);
    let options = ListenOptions::new().balance(Balance::PerPoller);
    let talker = move |_| Talker {
        room: room.clone(),
        unsaid: None,
    };
    system.listen_with(ADDR, options, talker).unwrap();
    system
}

const TALKERS: usize = 8;

fn talk(simulation: &mut Simulation, lines: usize) -> Vec<Client> {
    let clients: Vec<Client> = (0..TALKERS).map(|_| simulation.client(ADDR)).collect();
    for n in 0..lines {
        for (at, client) in clients.iter().enumerate() {
            client.send(format!("{at} says {n}\n"));
        }
    }
    clients
}

#[test]
fn a_room_is_the_same_under_the_same_seed() {
    let run = |seed| {
        let mut simulation = Simulation::new(seed);
        simulation.faults(Faults::all());
        simulation.keep_trace(usize::MAX);
        let _system = room(&mut simulation);
        let clients = talk(&mut simulation, 40);
        // In the middle of it, in most runs.
        let time = simulation.random().duration(Duration::from_secs(2));
        simulation.run_for(time);
        drop(clients);
        simulation.finish(Duration::from_millis(1));
        drop(_system);
        simulation.trace().to_string()
    };
    for seed in 0..100 {
        let (one, other) = (run(seed), run(seed));
        if one != other {
            let differ = one
                .lines()
                .zip(other.lines())
                .find(|(one, other)| one != other);
            panic!("seed {seed}: {differ:?}");
        }
    }
}

/// The whole lines that somebody has said.
fn said(heard: &[u8]) -> Vec<&str> {
    let lines = std::str::from_utf8(heard).unwrap().split_inclusive('\n');
    let said = |line: &&str| line.contains("says") && line.ends_with('\n');
    lines.filter(said).collect()
}

#[test]
fn a_room_loses_no_line() {
    for_each_seed(15, |simulation| {
        simulation.faults(Faults::harmless().without(Fault::LostConnect));
        let system = room(simulation);
        let clients: Vec<Client> = (0..TALKERS).map(|_| simulation.client(ADDR)).collect();
        simulation.run_until(Duration::from_secs(60), |_| {
            system.stats().opened == TALKERS as u64 + 1
        });
        simulation.run_for(Duration::from_secs(10));
        for n in 0..40 {
            for (at, client) in clients.iter().enumerate() {
                client.send(format!("{at} says {n}\n"));
            }
        }
        let mut heard = vec![Vec::new(); TALKERS];
        simulation.run_until(Duration::from_secs(600), |_| {
            let mut grown = false;
            for (client, heard) in clients.iter().zip(&mut heard) {
                let received = client.received();
                grown |= received.contains(&b'\n');
                heard.extend(received);
            }
            grown && heard.iter().all(|heard| said(heard).len() >= 40 * TALKERS)
        });
        let first = said(&heard[0]);
        assert_eq!(first.len(), 40 * TALKERS);
        assert!(
            heard.iter().all(|heard| said(heard) == first),
            "one order for all"
        );
    });
}

/// Ends the connection at once, in the middle of what it has to say.
struct Aborts;

impl Actor for Aborts {
    type Message = ();

    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        input.take_all();
        ctx.abort();
        Ok(())
    }
}

#[test]
fn an_abort_is_a_reset_but_over_a_unix_socket() {
    for (addr, is_reset) in [(ADDR, true), ("unix:/run/aborts.sock", false)] {
        let mut simulation = Simulation::new(1);
        let system = simulation.system(System::builder());
        system.listen(addr, |_peer| Aborts).unwrap();
        let client = simulation.client(addr);
        client.send("x");
        simulation.run_until(Duration::from_secs(1), |_| client.is_closed());
        assert_eq!(client.is_reset(), is_reset, "{addr}");
        simulation.finish(Duration::from_secs(1));
    }
}
