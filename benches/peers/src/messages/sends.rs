//! Messages from threads to one receiver, which handles each by adding it up. A slice lasts from
//! the first send until the last message was handled.

use std::io;
use std::sync::Arc;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use actix::Actor as _;
use crossbeam_channel::{Receiver, Sender};
use greenroom::{Context, Outcome, System};
use greenroom_benches::samples::Samples;
use ractor::{Actor as _, ActorProcessingErr, ActorRef};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;

use super::race::{Case, Plan, Rival, race};

/// Of tokio's bounded channel: the default of greenroom's mailboxes.
const BOUND: usize = 16_384;

pub fn measure(plan: Plan, samples: &mut Samples) -> io::Result<()> {
    measure_with::<1>(plan, samples)?;
    measure_with::<4>(plan, samples)
}

/// All rivals with messages of so many words of 8 bytes.
fn measure_with<const WORDS: usize>(plan: Plan, samples: &mut Samples) -> io::Result<()> {
    for threads in [1, 2, 4] {
        let senders = if threads == 1 { "sender" } else { "senders" };
        let case = Case {
            part: "messages",
            name: &format!("{} bytes; {threads} {senders}", 8 * WORDS),
            operations: None,
        };
        let system = System::builder().pollers(1).build()?;
        let rivals = vec![
            rival("crossbeam", threads, crossbeam::<WORDS>),
            rival("greenroom", threads, |tally| {
                greenroom::<WORDS>(&system, tally)
            }),
            rival("tokio", threads, tokio_unbounded::<WORDS>),
            rival("tokio bounded", threads, tokio_bounded::<WORDS>),
            rival("actix", threads, actix::<WORDS>),
            rival("ractor", threads, ractor::<WORDS>),
        ];
        race(plan, &case, rivals, samples);
    }
    Ok(())
}

/// What every receiver does with a message.
struct Tally {
    /// Messages until the slice is complete; 0 before its first.
    left: u64,
    sum: u64,
    /// How many messages the slice that begins has.
    slice: Arc<AtomicU64>,
    /// Where the end of each slice goes.
    ends: Sender<Instant>,
}

impl Tally {
    fn handle<const WORDS: usize>(&mut self, message: [u64; WORDS]) {
        if self.left == 0 {
            // Written before the slice's first message was sent.
            self.left = self.slice.load(Ordering::Relaxed);
        }
        self.sum = std::hint::black_box(self.sum.wrapping_add(message[0]));
        self.left -= 1;
        if self.left == 0 {
            // Nobody waits any more when the race is over.
            let _ = self.ends.send(Instant::now());
        }
    }
}

/// A rival whose receiver `start` starts; it gives the function that sends, which is `false` for
/// a message that was refused.
fn rival<'a, const WORDS: usize, S: Fn([u64; WORDS]) -> bool + Sync + 'a>(
    name: &'static str,
    threads: u64,
    start: impl FnOnce(Tally) -> S,
) -> Rival<'a> {
    let size = Arc::new(AtomicU64::new(0));
    let (ends, ended) = crossbeam_channel::unbounded();
    let send = start(Tally {
        left: 0,
        sum: 0,
        slice: size.clone(),
        ends,
    });
    Rival::new(name, move |operations| {
        let each = operations.div_ceil(threads);
        size.store(each * threads, Ordering::Relaxed);
        let elapsed = slice(threads, each, &send, &ended);
        // As if it had been as many as asked for, which is up to three fewer.
        elapsed.mul_f64(operations as f64 / (each * threads) as f64)
    })
}

fn slice<const WORDS: usize>(
    threads: u64,
    each: u64,
    send: &(impl Fn([u64; WORDS]) -> bool + Sync),
    ended: &Receiver<Instant>,
) -> Duration {
    let ready = Barrier::new(threads as usize);
    thread::scope(|scope| {
        let senders: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    ready.wait();
                    // Taken by the sender: with more threads than processors any other may look at
                    // the clock late.
                    let start = Instant::now();
                    for number in 0..each {
                        while !send([number; WORDS]) {
                            thread::yield_now();
                        }
                    }
                    start
                })
            })
            .collect();
        let starts = senders
            .into_iter()
            .map(|sender| sender.join().expect("a sender does not panic"));
        let start = starts.min().expect("there is a sender");
        ended.recv().expect("the receiver lives") - start
    })
}

/// The bare channel, and a thread that blocks in it.
fn crossbeam<const WORDS: usize>(mut tally: Tally) -> impl Fn([u64; WORDS]) -> bool + Sync {
    let (sender, receiver) = crossbeam_channel::unbounded();
    thread::spawn(move || receiver.iter().for_each(|message| tally.handle(message)));
    move |message| sender.send(message).is_ok()
}

struct GreenroomSink<const WORDS: usize>(Tally);

impl<const WORDS: usize> greenroom::Actor for GreenroomSink<WORDS> {
    type Message = [u64; WORDS];

    fn message(&mut self, message: [u64; WORDS], _ctx: &mut Context<'_, Self>) -> Outcome {
        self.0.handle(message);
        Ok(())
    }
}

/// An actor on a poller, with the default options: a send to a full mailbox is refused.
fn greenroom<const WORDS: usize>(
    system: &System,
    tally: Tally,
) -> impl Fn([u64; WORDS]) -> bool + Sync + use<WORDS> {
    let sink = system.spawn(move || GreenroomSink(tally));
    move |message| sink.send(message).is_ok()
}

/// Runs `receive` as a task of a runtime with the defaults of `#[tokio::main]`; both end together.
/// One sender is served faster by it than by a runtime of one thread, several within the spread.
fn spawn_task(receive: impl Future<Output = ()> + Send + 'static) -> Runtime {
    let runtime = Runtime::new().expect("the kernel gives a runtime what it needs");
    runtime.spawn(receive);
    runtime
}

fn tokio_unbounded<const WORDS: usize>(mut tally: Tally) -> impl Fn([u64; WORDS]) -> bool + Sync {
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let runtime = spawn_task(async move {
        while let Some(message) = receiver.recv().await {
            tally.handle(message);
        }
    });
    move |message| {
        let _lives_as_long = &runtime;
        sender.send(message).is_ok()
    }
}

/// A sender waits for room, as tokio's users let it.
fn tokio_bounded<const WORDS: usize>(mut tally: Tally) -> impl Fn([u64; WORDS]) -> bool + Sync {
    let (sender, mut receiver) = mpsc::channel(BOUND);
    let runtime = spawn_task(async move {
        while let Some(message) = receiver.recv().await {
            tally.handle(message);
        }
    });
    move |message| {
        let _lives_as_long = &runtime;
        sender.blocking_send(message).is_ok()
    }
}

struct ActixSink(Tally);

impl actix::Actor for ActixSink {
    type Context = actix::Context<Self>;
}

#[derive(actix::Message)]
#[rtype(result = "()")]
struct ActixMessage<const WORDS: usize>([u64; WORDS]);

impl<const WORDS: usize> actix::Handler<ActixMessage<WORDS>> for ActixSink {
    type Result = ();

    fn handle(&mut self, message: ActixMessage<WORDS>, _ctx: &mut Self::Context) {
        self.0.handle(message.0);
    }
}

/// Stops the thread of an arbiter that is not needed any more.
struct Arbiter(actix::Arbiter);

impl Drop for Arbiter {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// `do_send`, which no mailbox refuses, however many messages it holds.
fn actix<const WORDS: usize>(tally: Tally) -> impl Fn([u64; WORDS]) -> bool + Sync {
    let arbiter = Arbiter(actix::Arbiter::new());
    let sink = ActixSink::start_in_arbiter(&arbiter.0.handle(), |_| ActixSink(tally));
    move |message| {
        let _lives_as_long = &arbiter;
        sink.do_send(ActixMessage(message));
        true
    }
}

struct RactorSink<const WORDS: usize>;

impl<const WORDS: usize> ractor::Actor for RactorSink<WORDS> {
    type Msg = [u64; WORDS];
    type State = Tally;
    type Arguments = Tally;

    async fn pre_start(
        &self,
        _me: ActorRef<Self::Msg>,
        tally: Tally,
    ) -> Result<Tally, ActorProcessingErr> {
        Ok(tally)
    }

    async fn handle(
        &self,
        _me: ActorRef<Self::Msg>,
        message: Self::Msg,
        tally: &mut Tally,
    ) -> Result<(), ActorProcessingErr> {
        tally.handle(message);
        Ok(())
    }
}

/// Stops an actor, and with it the thread of its runtime, when the race is over.
struct Ractor<const WORDS: usize>(ActorRef<[u64; WORDS]>);

impl<const WORDS: usize> Drop for Ractor<WORDS> {
    fn drop(&mut self) {
        self.0.stop(None);
    }
}

/// An actor on a runtime of one thread, which serves ractor better than one of several.
fn ractor<const WORDS: usize>(tally: Tally) -> impl Fn([u64; WORDS]) -> bool + Sync {
    let (started, start) = crossbeam_channel::bounded(1);
    thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("the kernel gives a runtime what it needs");
        runtime.block_on(async {
            let spawned = RactorSink::<WORDS>::spawn(None, RactorSink, tally).await;
            let (sink, ended) = spawned.expect("pre_start does not fail");
            started.send(sink).expect("the starter waits");
            // A panic of the actor shows itself by the slice that never ends.
            let _ = ended.await;
        });
    });
    let sink = Ractor(start.recv().expect("the runtime starts the actor"));
    move |message| sink.0.cast(message).is_ok()
}
