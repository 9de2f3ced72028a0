//! Question: what does a send to an actor cost, beside a bare queue that some thread empties?
//!
//! 1, 2 and 4 threads send numbers as fast as they can; the actor, or the receiving thread, handles
//! each by adding it up. A slice lasts from the first send to the last number handled. Who finds a
//! mailbox or queue full yields and tries again; on two processors that is mostly a race for one of
//! them, so greenroom stands here twice: with a bound that is never reached, to go beside the
//! unbounded channel, and with the default bound, to go beside the bounded one. Then two actors on
//! one poller, the sender waiting for room, beside a channel that one thread fills and empties by
//! turns.
//!
//! Once with messages of 8 bytes, once of 32 (a `Bytes` has as many): a mailbox carries 16 more for
//! each, and the lines of memory that travel between the processors are what a send costs.
//!
//! Whoever receives, the poller of the actor too, starts a slice together with the senders: which
//! processor a thread gets that is woken in the midst of it is the scheduler's luck.
//!
//! Baseline: crossbeam's unbounded channel, and tokio's into a task. The bar: not behind the first,
//! 1.2 times as fast as the second from one thread and 20 times from four. Only the channels and
//! the mutex let the receiver sleep; the thread behind SegQueue spins, which flatters it. Run:
//! `cargo bench -p greenroom-benches --bench sends`, with `-- 1` for 8 bytes alone.

use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Condvar, Mutex};
use std::task::{self, Poll};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use crossbeam_queue::SegQueue;
use greenroom::{Actor, Addr, Context, Outcome, System};
use greenroom_benches::rounds::{Rival, machine, race};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

/// A slice; a multiple of each count of threads.
const MESSAGES: u64 = 400_000;
/// The default of greenroom's mailboxes.
const BOUND: usize = 16_384;
/// What the one thread puts into its channel before it empties it: as much as a poller delivers in
/// a turn.
const BATCH: u64 = 1024;

/// What every receiver does with a message.
struct Tally {
    seen: u64,
    sum: u64,
}

impl Tally {
    const NEW: Tally = Tally { seen: 0, sum: 0 };

    /// The time, if this was the last message of a slice.
    fn handle<const WORDS: usize>(&mut self, message: [u64; WORDS]) -> Option<Instant> {
        self.sum = std::hint::black_box(self.sum.wrapping_add(message[0]));
        self.seen += 1;
        self.seen.is_multiple_of(MESSAGES).then(Instant::now)
    }

    /// Handles what `next` returns until a slice is complete.
    fn handle_slice<const WORDS: usize>(
        mut self,
        mut next: impl FnMut() -> [u64; WORDS],
    ) -> Instant {
        loop {
            if let Some(end) = self.handle(next()) {
                return end;
            }
        }
    }
}

/// Adds up and tells the end of each slice.
struct Sink<const WORDS: usize> {
    tally: Tally,
    ends: Sender<Instant>,
}

impl<const WORDS: usize> Actor for Sink<WORDS> {
    type Message = [u64; WORDS];

    fn message(&mut self, message: [u64; WORDS], _ctx: &mut Context<'_, Self>) -> Outcome {
        if let Some(end) = self.tally.handle(message) {
            self.ends.send(end)?;
        }
        Ok(())
    }
}

/// Holds its poller until a slice begins.
struct Gate;

impl Actor for Gate {
    type Message = Arc<Barrier>;

    fn message(&mut self, ready: Arc<Barrier>, _ctx: &mut Context<'_, Self>) -> Outcome {
        ready.wait();
        Ok(())
    }
}

/// A sink, what it tells, and the gate of its poller.
struct Target<const WORDS: usize> {
    sink: Addr<Sink<WORDS>>,
    ended: Receiver<Instant>,
    gate: Addr<Gate>,
}

fn spawn_sink<const WORDS: usize>(system: &System) -> Target<WORDS> {
    let (ends, ended) = crossbeam_channel::unbounded();
    let sink = system.spawn(move || Sink {
        tally: Tally::NEW,
        ends,
    });
    let gate = system.spawn(|| Gate);
    Target { sink, ended, gate }
}

/// Sends to an actor on its own poller.
struct Source {
    to: Addr<Sink<1>>,
    left: u64,
}

impl Source {
    fn pump(&mut self, ctx: &mut Context<'_, Self>) {
        while self.left > 0 {
            if self.to.send([self.left]).is_err() {
                return ctx.wait_for_room(&self.to);
            }
            self.left -= 1;
        }
    }
}

impl Actor for Source {
    type Message = ();

    fn message(&mut self, _begin: (), ctx: &mut Context<'_, Self>) -> Outcome {
        self.left = MESSAGES;
        self.pump(ctx);
        Ok(())
    }

    fn room(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        self.pump(ctx);
        Ok(())
    }
}

/// One slice: `threads` send; `receive` sees to it that whoever handles the messages waits for the
/// start, and returns when the last one has been handled.
fn slice<const WORDS: usize>(
    threads: u64,
    try_send: impl Fn([u64; WORDS]) -> bool + Sync,
    receive: impl FnOnce(Arc<Barrier>) -> Instant + Send,
) -> Duration {
    let ready = Arc::new(Barrier::new(threads as usize + 1));
    thread::scope(|scope| {
        let at_start = ready.clone();
        let receiver = scope.spawn(|| receive(at_start));
        let senders: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    ready.wait();
                    // Taken by the sender: with more threads than processors any other may look at
                    // the clock late.
                    let start = Instant::now();
                    for number in 0..MESSAGES / threads {
                        while !try_send([number; WORDS]) {
                            thread::yield_now();
                        }
                    }
                    start
                })
            })
            .collect();
        let starts = senders
            .into_iter()
            .map(|sender| sender.join().expect("a sender"));
        let start = starts.min().expect("there is a sender");
        receiver.join().expect("the receiver") - start
    })
}

fn channel<'a, const WORDS: usize>(
    name: &str,
    threads: u64,
    ends: (Sender<[u64; WORDS]>, Receiver<[u64; WORDS]>),
) -> Rival<'a> {
    Rival::new(name, move || {
        let (sender, receiver) = &ends;
        slice(
            threads,
            |message| sender.try_send(message).is_ok(),
            |ready| {
                ready.wait();
                Tally::NEW.handle_slice(|| receiver.recv().expect("a sender lives"))
            },
        )
    })
}

fn seg_queue<'a, const WORDS: usize>(threads: u64) -> Rival<'a> {
    let (queue, count) = (SegQueue::new(), AtomicUsize::new(0));
    Rival::new("SegQueue and a counter, spinning receiver", move || {
        let try_send = |message: [u64; WORDS]| {
            if count.load(Ordering::Relaxed) >= BOUND {
                return false;
            }
            count.fetch_add(1, Ordering::Relaxed);
            queue.push(message);
            true
        };
        let receive = || {
            loop {
                if let Some(message) = queue.pop() {
                    count.fetch_sub(1, Ordering::Relaxed);
                    return message;
                }
                thread::yield_now();
            }
        };
        slice(threads, try_send, |ready| {
            ready.wait();
            Tally::NEW.handle_slice(receive)
        })
    })
}

fn double_buffer<'a, const WORDS: usize>(threads: u64) -> Rival<'a> {
    let (filling, filled) = (Mutex::new(Vec::new()), Condvar::new());
    Rival::new("Mutex<Vec>, swapped whole", move || {
        let try_send = |message: [u64; WORDS]| {
            let mut buffer = filling.lock().expect("nobody panics");
            if buffer.len() >= BOUND {
                return false;
            }
            buffer.push(message);
            if buffer.len() == 1 {
                filled.notify_one();
            }
            true
        };
        let receive = |ready: Arc<Barrier>| {
            ready.wait();
            let (mut tally, mut buffer) = (Tally::NEW, Vec::new());
            loop {
                let guard = filling.lock().expect("nobody panics");
                let mut guard = filled
                    .wait_while(guard, |buffer| buffer.is_empty())
                    .expect("nobody panics");
                std::mem::swap(&mut *guard, &mut buffer);
                drop(guard);
                let end = buffer.drain(..).filter_map(|message| tally.handle(message));
                if let Some(end) = end.last() {
                    return end;
                }
            }
        };
        slice(threads, try_send, receive)
    })
}

/// All rivals with messages of so many words.
fn race_with<const WORDS: usize>(open: &System, bounded: &System, runtime: &Runtime) {
    let (open, bounded) = (spawn_sink::<WORDS>(open), spawn_sink::<WORDS>(bounded));
    for threads in [1, 2, 4] {
        let rivals = vec![
            channel::<WORDS>(
                "crossbeam channel, unbounded",
                threads,
                crossbeam_channel::unbounded(),
            ),
            greenroom("greenroom, bound never reached", threads, &open),
            channel::<WORDS>(
                "crossbeam channel, bounded",
                threads,
                crossbeam_channel::bounded(BOUND),
            ),
            greenroom("greenroom, bounded", threads, &bounded),
            tokio_unbounded::<WORDS>(runtime, threads),
            tokio_bounded::<WORDS>(runtime, threads),
            seg_queue::<WORDS>(threads),
            double_buffer::<WORDS>(threads),
        ];
        let bytes = 8 * WORDS;
        race(
            &format!(
                "sends of {bytes} bytes from {threads} threads; bound {BOUND} where there is one"
            ),
            MESSAGES,
            rivals,
        );
    }
}

fn greenroom<'a, const WORDS: usize>(
    name: &str,
    threads: u64,
    target: &'a Target<WORDS>,
) -> Rival<'a> {
    Rival::new(name, move || {
        slice(
            threads,
            |message| target.sink.send(message).is_ok(),
            |ready| {
                target.gate.send(ready).expect("the gate lives");
                target.ended.recv().expect("the sink lives")
            },
        )
    })
}

/// A channel of tokio's into a task, which `poll` takes the next message out of.
fn tokio<'a, const WORDS: usize, R: Send + 'static>(
    name: &str,
    runtime: &'a Runtime,
    threads: u64,
    try_send: impl Fn([u64; WORDS]) -> bool + Sync + 'a,
    receiver: R,
    poll: fn(&mut R, &mut task::Context<'_>) -> Poll<Option<[u64; WORDS]>>,
) -> Rival<'a> {
    let mut receiver = Some(receiver);
    Rival::new(name, move || {
        let mut own = receiver.take().expect("it comes back after each slice");
        slice(threads, &try_send, |ready| {
            let task = runtime.spawn(async move {
                ready.wait();
                let mut tally = Tally::NEW;
                loop {
                    let message = poll_fn(|cx| poll(&mut own, cx)).await;
                    if let Some(end) = tally.handle(message.expect("a sender lives")) {
                        return (end, own);
                    }
                }
            });
            let (end, own) = runtime.block_on(task).expect("nobody panics");
            receiver = Some(own);
            end
        })
    })
}

fn tokio_unbounded<const WORDS: usize>(runtime: &Runtime, threads: u64) -> Rival<'_> {
    let (sender, receiver) = mpsc::unbounded_channel::<[u64; WORDS]>();
    tokio(
        "tokio mpsc into a task, unbounded",
        runtime,
        threads,
        move |message| sender.send(message).is_ok(),
        receiver,
        |receiver, cx| receiver.poll_recv(cx),
    )
}

fn tokio_bounded<const WORDS: usize>(runtime: &Runtime, threads: u64) -> Rival<'_> {
    let (sender, receiver) = mpsc::channel::<[u64; WORDS]>(BOUND);
    tokio(
        "tokio mpsc into a task, bounded",
        runtime,
        threads,
        move |message| sender.try_send(message).is_ok(),
        receiver,
        |receiver, cx| receiver.poll_recv(cx),
    )
}

fn main() -> std::io::Result<()> {
    println!("{}", machine());
    let open = System::builder()
        .pollers(1)
        .mailbox_bound(4 * MESSAGES as usize);
    let open = open.build()?;
    let system = System::builder().pollers(1).mailbox_bound(BOUND).build()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .build()?;
    race_with::<1>(&open, &system, &runtime);
    if std::env::args().all(|argument| argument != "1") {
        race_with::<4>(&open, &system, &runtime);
    }

    let Target {
        sink: to, ended, ..
    } = spawn_sink(&system);
    let source = system.spawn(move || Source { to, left: 0 });
    let (sender, receiver) = crossbeam_channel::unbounded();
    let rivals = vec![
        Rival::new("crossbeam channel, one thread", || {
            let start = Instant::now();
            let mut tally = Tally::NEW;
            while tally.seen < MESSAGES {
                for number in 0..BATCH.min(MESSAGES - tally.seen) {
                    sender.send([number]).expect("the receiver lives");
                }
                while let Ok(message) = receiver.try_recv() {
                    tally.handle::<1>(message);
                }
            }
            start.elapsed()
        }),
        Rival::new("greenroom, two actors on one poller", || {
            let start = Instant::now();
            source.send(()).expect("the source lives");
            ended.recv().expect("the sink lives") - start
        }),
    ];
    race("sends of 8 bytes within one thread", MESSAGES, rivals);
    Ok(())
}
