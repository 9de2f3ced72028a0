//! Question: how many instructions does each operation take? callgrind counts them, so no clock and
//! no neighbour disturbs the answer.
//!
//! Run: `.ci/instructions`, which installs what is missing and compares with the recorded figures.
//!
//! Each benchmark is run with so many operations as the run's name says (`n2000`) and with twice as
//! many; the difference, divided, is the figure, and set-up and end fall out. Instructions of user
//! space alone are counted: what the kernel does in a system call is not there, nor is what a
//! processor makes of an instruction.
//!
//! - `echo`: 64 bytes to a connection and back, one at a time: a turn of the poller each.
//! - `request`: 16 lines come in one read, and their answers leave in one write.
//! - `frame`: the same by an actor for frames, behind a codec for lines.
//! - `accept`: a connection is accepted, written to, and closed after its peer.
//! - `send`: a message to an actor of a poller that is awake, on the sender's side.
//! - `message`: such a message is taken from the mailbox and handed to its actor.
//! - `fanout`: one member, a connection, of 50 is handed a push and writes it.
//! - `timer_cancel`: a timer is set and cancelled, among 1,000 that are pending.
//! - `timer_fire`: a timer is set and fires, among 1,000 that are pending.
//!
//! All but the timers run on a real poller, with sockets and system calls. The peer waits for an
//! answer before it goes on, or the poller is held until all has been sent, so that the poller does
//! the same in each run, however the threads are scheduled. Timers run on the stage of
//! `greenroom::testing`, where time moves by hand: on the clock each run would find others due.
//!
//! Seen in six runs, a compiler and other benchmarks beside them: `fanout` the same to half a per
//! cent, `message` to 0.4, the others exactly. The random seeds of hash maps are not seen: an
//! operation looks something up at most, which takes as long with each seed.

// The macros make public items without documentation.
#![allow(missing_docs)]

use std::collections::VecDeque;
use std::hint::black_box;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use greenroom::protocol::{self, Frame, FrameActor, Framed};
use greenroom::testing::Stage;
use greenroom::{
    Actor, Addr, Broadcast, Broadcaster, Context, Endpoint, Input, Listener, Outcome, System,
    TimerKey,
};
use gungraun::prelude::*;
use gungraun::{Callgrind, EntryPoint};

/// Requests in one read.
const PIPELINE: usize = 16;

/// Members of the fan-out.
const MEMBERS: usize = 50;

/// Timers that are pending all the time.
const PENDING: usize = 1_000;

/// Bytes of a message.
const BYTES: usize = 64;

/// Counts what the system's one poller does, and nothing of the thread of the benchmark: in
/// `thread_start` of the standard library every thread begins and ends but the first.
fn on_the_poller() -> LibraryBenchmarkConfig {
    LibraryBenchmarkConfig::default()
        .tool(Callgrind::default().entry_point(EntryPoint::Custom("*::thread_start".to_owned())))
        .clone()
}

/// With one poller. Dropped before its clients, or it would be chance how many of them it sees end.
fn system() -> System {
    let system = System::builder().pollers(1).build();
    system.expect("descriptors and a thread for a poller")
}

/// Holds its poller in a callback until its peer closes.
struct Gate(UnixStream);

impl Actor for Gate {
    type Message = ();

    fn opened(&mut self, _ctx: &mut Context<'_, Self>) -> Outcome {
        self.0.write_all(&[7])?;
        self.0.read_to_end(&mut Vec::new())?;
        Ok(())
    }
}

/// Holds the system's poller until what is returned is dropped.
fn hold(system: &System) -> UnixStream {
    let (mut gate, opens) = UnixStream::pair().expect("a pair of sockets");
    system.spawn(move || Gate(opens));
    gate.read_exact(&mut [0]).expect("a poller that is held");
    gate
}

fn connect(listener: &Listener) -> TcpStream {
    let Endpoint::Tcp(addr) = listener.local_addr() else {
        unreachable!("it listens on a TCP port");
    };
    TcpStream::connect(addr).expect("a server that listens")
}

// ---- connections --------------------------------------------------------------------------------

struct Echo;

impl Actor for Echo {
    type Message = ();

    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.write(input.take_all());
        Ok(())
    }
}

#[library_benchmark(config = on_the_poller())]
#[bench::n2000(2_000)]
#[bench::n4000(4_000)]
fn echo(ops: usize) {
    let system = system();
    let listener = system.listen("127.0.0.1:0", |_peer| Echo).expect("a port");
    let mut client = connect(&listener);
    let mut bytes = [7; BYTES];
    for _ in 0..ops {
        client.write_all(&bytes).expect("a send");
        client.read_exact(&mut bytes).expect("an echo");
    }
    drop(system);
}

/// Answers each line.
struct Lines;

impl Actor for Lines {
    type Message = ();

    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        while let Some(line) = input.line(1000)? {
            ctx.write_parts(&[line, b"\n"]);
        }
        Ok(())
    }
}

#[library_benchmark(config = on_the_poller())]
#[bench::n2000(2_000)]
#[bench::n4000(4_000)]
fn request(ops: usize) {
    let system = system();
    let listener = system.listen("127.0.0.1:0", |_peer| Lines);
    ask_in_lines(ops, system, &listener.expect("a port"));
}

impl FrameActor for Lines {
    fn frame(&mut self, frame: Frame<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.write_frame(frame)?;
        Ok(())
    }
}

#[library_benchmark(config = on_the_poller())]
#[bench::n2000(2_000)]
#[bench::n4000(4_000)]
fn frame(ops: usize) {
    let system = system();
    let make = |_peer| Framed::new(protocol::Lines::new(1000), Lines);
    let listener = system.listen("127.0.0.1:0", make);
    ask_in_lines(ops, system, &listener.expect("a port"));
}

fn ask_in_lines(ops: usize, system: System, listener: &Listener) {
    let mut client = connect(listener);
    let mut line = [b'x'; BYTES];
    line[BYTES - 1] = b'\n';
    let mut lines = line.repeat(PIPELINE);
    for _ in 0..ops / PIPELINE {
        client.write_all(&lines).expect("a send");
        client.read_exact(&mut lines).expect("the answers");
    }
    drop(system);
}

/// Greets, so that the peer knows that it was accepted.
struct Greeter;

impl Actor for Greeter {
    type Message = ();

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.write([7]);
        Ok(())
    }
}

#[library_benchmark(config = on_the_poller())]
#[bench::n500(500)]
#[bench::n1000(1_000)]
fn accept(ops: usize) {
    let system = system();
    let listener = system.listen("127.0.0.1:0", |_peer| Greeter);
    let listener = listener.expect("a port");
    for _ in 0..ops {
        let mut client = connect(&listener);
        client.read_exact(&mut [0]).expect("a greeting");
        let write = std::net::Shutdown::Write;
        client.shutdown(write).expect("a connection to half-close");
        let end = client.read(&mut [0]).expect("a clean end");
        assert_eq!(end, 0, "the server closes after its peer");
    }
}

// ---- messages -----------------------------------------------------------------------------------

/// Tells its peer of the last message that is to come.
struct Count {
    left: usize,
    end: UnixStream,
}

impl Actor for Count {
    type Message = [u8; BYTES];

    fn message(&mut self, message: [u8; BYTES], _ctx: &mut Context<'_, Self>) -> Outcome {
        black_box(message);
        self.left -= 1;
        if self.left == 0 {
            self.end.write_all(&[7])?;
        }
        Ok(())
    }
}

/// A poller that is held, and an actor on it that is to be sent so many messages.
struct Held {
    ops: usize,
    to: Addr<Count>,
    end: UnixStream,
    // The order of their drop: once the gate is open, the system can end.
    gate: UnixStream,
    _system: System,
}

impl Held {
    fn new(ops: usize) -> Held {
        let system = system();
        let (end, counts) = UnixStream::pair().expect("a pair of sockets");
        let to = system.spawn(move || Count {
            left: ops,
            end: counts,
        });
        Held {
            ops,
            to,
            end,
            gate: hold(&system),
            _system: system,
        }
    }

    fn send(&self) {
        for _ in 0..self.ops {
            let sent = self.to.send(black_box([7; BYTES]));
            sent.expect("a mailbox with room");
        }
    }

    fn deliver(mut self) {
        drop(self.gate);
        self.end.read_exact(&mut [0]).expect("the last message");
    }
}

#[library_benchmark]
#[bench::n2000(Held::new(2_000))]
#[bench::n4000(Held::new(4_000))]
fn send(held: Held) -> Held {
    held.send();
    held
}

#[library_benchmark(config = on_the_poller())]
#[bench::n2000(2_000)]
#[bench::n4000(4_000)]
fn message(ops: usize) {
    let held = Held::new(ops);
    held.send();
    held.deliver();
}

type Room = Addr<Broadcaster<[u8; BYTES]>>;

/// A connection that writes what is pushed.
struct Member(Room);

impl Actor for Member {
    type Message = [u8; BYTES];

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        self.0.join(ctx.addr());
        Ok(())
    }

    fn message(&mut self, message: [u8; BYTES], ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.write(message);
        Ok(())
    }
}

/// A connection that has something pushed for each byte. A thread that sends the pushes would find
/// the poller now awake, now asleep.
struct Pusher(Room);

impl Actor for Pusher {
    type Message = ();

    fn readable(&mut self, input: &mut Input<'_>, _ctx: &mut Context<'_, Self>) -> Outcome {
        for _ in input.take_all() {
            self.0.send(Broadcast::Push([7; BYTES]))?;
        }
        Ok(())
    }
}

#[library_benchmark(config = on_the_poller())]
#[bench::n2000(2_000)]
#[bench::n4000(4_000)]
fn fanout(ops: usize) {
    let system = system();
    // The welcome tells a client that its connection is a member.
    let room = system.spawn(|| Broadcaster::new().welcome(|_members| [7; BYTES]));
    let (push, join) = (room.clone(), room);
    let pushers = system.listen("127.0.0.1:0", move |_peer| Pusher(push.clone()));
    let members = system.listen("127.0.0.1:0", move |_peer| Member(join.clone()));
    let (pushers, members) = (pushers.expect("a port"), members.expect("a port"));
    let mut bytes = [0; BYTES];
    // All are accepted in one turn, whenever they come.
    let gate = hold(&system);
    let mut pusher = connect(&pushers);
    let mut clients: Vec<TcpStream> = (0..MEMBERS).map(|_| connect(&members)).collect();
    drop(gate);
    for client in &mut clients {
        client.read_exact(&mut bytes).expect("a welcome");
    }
    for _ in 0..ops / MEMBERS {
        pusher.write_all(&[7]).expect("a send");
        for client in &mut clients {
            client.read_exact(&mut bytes).expect("a push");
        }
    }
    drop(system);
}

// ---- timers -------------------------------------------------------------------------------------

/// Keeps as many timers pending: for each that fires or is cancelled it sets one.
struct Alarms(VecDeque<TimerKey>);

/// One of ten instants: a poller, too, finds several timers due at a time. In whole seconds:
/// whether a fraction carries over depends on the time of day, and takes instructions.
fn after(number: usize) -> Duration {
    Duration::from_secs(1 + number as u64 * 7 % 10)
}

impl Actor for Alarms {
    /// How many to cancel.
    type Message = usize;

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        self.0 = (0..PENDING).map(|n| ctx.set_timer(after(n))).collect();
        Ok(())
    }

    fn message(&mut self, ops: usize, ctx: &mut Context<'_, Self>) -> Outcome {
        for number in 0..ops {
            let oldest = self.0.pop_front().ok_or("no timer is pending")?;
            assert!(ctx.cancel_timer(oldest), "it has not fired");
            self.0.push_back(ctx.set_timer(after(number)));
        }
        Ok(())
    }

    fn timer(&mut self, _key: TimerKey, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.set_timer(Duration::from_secs(10));
        Ok(())
    }
}

fn stage() -> Stage<Alarms> {
    Stage::without_socket(Alarms(VecDeque::new()))
}

#[library_benchmark]
#[bench::n2000(stage(), 2_000)]
#[bench::n4000(stage(), 4_000)]
fn timer_cancel(mut stage: Stage<Alarms>, ops: usize) -> Stage<Alarms> {
    stage.send(ops);
    stage
}

#[library_benchmark]
#[bench::n2000(stage(), 2_000)]
#[bench::n4000(stage(), 4_000)]
fn timer_fire(mut stage: Stage<Alarms>, ops: usize) -> Stage<Alarms> {
    for _ in 0..ops / PENDING {
        stage.advance(Duration::from_secs(10));
    }
    stage
}

library_benchmark_group!(
    name = per_operation,
    benchmarks = [
        echo,
        request,
        frame,
        accept,
        send,
        message,
        fanout,
        timer_cancel,
        timer_fire
    ]
);
main!(library_benchmark_groups = per_operation);
