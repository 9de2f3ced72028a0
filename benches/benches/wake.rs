//! Question: what does it cost to wake a sleeping poller, and how long until its actor answers?
//!
//! Ping-pong: each side sleeps until the other has answered, so a round trip is two wakes and all
//! that lies around them. The two sides are pinned to two processors where there are as many.
//!
//! Baseline: two threads that block in read(2) of an eventfd each, the least that two sleeping
//! threads can do. The second rival does what a poller cannot do without: it waits in epoll and
//! reads the eventfd. The bar: not above the first; with pollers that spin before they sleep
//! (`Builder::busy_poll`) less than 3 microseconds. Run:
//! `cargo bench -p greenroom-benches --bench wake`.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use greenroom::{Actor, Addr, Context, Outcome, System};
use greenroom_benches::rounds::{Rival, machine, race};
use greenroom_benches::{Epoll, EventFd, pin_if_many};

const ROUND_TRIPS: u64 = 2_000;
/// Longer than any wake.
const PATIENCE: Duration = Duration::from_secs(60);

/// Answers another thread by an eventfd.
struct Answerer(Arc<EventFd>);

impl Actor for Answerer {
    type Message = ();

    fn message(&mut self, _ping: (), _ctx: &mut Context<'_, Self>) -> Outcome {
        Ok(self.0.signal()?)
    }
}

/// Begins each round trip to an actor on another poller.
struct Pinger {
    to: Addr<Ponger>,
    me: Option<Addr<Pinger>>,
    left: u64,
    done: Arc<EventFd>,
}

enum Ping {
    Begin,
    Pong,
}

impl Actor for Pinger {
    type Message = Ping;

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        self.me = Some(ctx.addr());
        Ok(())
    }

    fn message(&mut self, message: Ping, _ctx: &mut Context<'_, Self>) -> Outcome {
        match message {
            Ping::Begin => self.left = ROUND_TRIPS,
            Ping::Pong => self.left -= 1,
        }
        match &self.me {
            Some(me) if self.left > 0 => Ok(self.to.send(me.clone())?),
            _ => Ok(self.done.signal()?),
        }
    }
}

struct Ponger;

impl Actor for Ponger {
    type Message = Addr<Pinger>;

    fn message(&mut self, from: Addr<Pinger>, _ctx: &mut Context<'_, Self>) -> Outcome {
        Ok(from.send(Ping::Pong)?)
    }
}

/// One slice of two threads; each waits by what `waiter` makes for its eventfd.
fn threads<W: FnMut(&EventFd) -> io::Result<()>>(
    waiter: impl Fn(&EventFd) -> io::Result<W> + Sync,
) -> io::Result<Duration> {
    let (ping, pong) = (EventFd::new()?, EventFd::new()?);
    thread::scope(|scope| {
        let other = scope.spawn(|| {
            pin_if_many(0);
            let mut wait = waiter(&ping)?;
            (0..ROUND_TRIPS).try_for_each(|_| {
                wait(&ping)?;
                pong.signal()
            })
        });
        let mut wait = waiter(&pong)?;
        let start = Instant::now();
        for _ in 0..ROUND_TRIPS {
            ping.signal()?;
            wait(&pong)?;
        }
        let elapsed = start.elapsed();
        other.join().expect("the other thread").map(|()| elapsed)
    })
}

/// A pinger on poller 1, to a ponger on poller 0, each on a processor of its own.
fn spawn_pair(system: &System, done: &Arc<EventFd>) -> Addr<Pinger> {
    let to = system.spawn_on(0, || {
        pin_if_many(0);
        Ponger
    });
    let done = done.clone();
    system.spawn_on(1, move || {
        pin_if_many(1);
        Pinger {
            to,
            me: None,
            left: 0,
            done,
        }
    })
}

fn main() -> io::Result<()> {
    println!("{}", machine());
    pin_if_many(1);
    let system = System::builder().pollers(2).build()?;
    let answer = Arc::new(EventFd::new()?);
    let done = Arc::new(EventFd::new()?);
    let by = answer.clone();
    let answerer = system.spawn_on(0, move || {
        pin_if_many(0);
        Answerer(by)
    });
    let pinger = spawn_pair(&system, &done);
    // Beside the others it sleeps, and its slices cover only its own.
    let spinning = System::builder()
        .pollers(2)
        .busy_poll(Duration::from_micros(50))
        .build()?;
    let spinning_pinger = spawn_pair(&spinning, &done);

    let rivals = vec![
        Rival::new("two threads, eventfd, read", || {
            threads(|_| Ok(EventFd::wait)).expect("eventfd")
        }),
        Rival::new("two threads, eventfd, epoll_wait and read", || {
            let waiter = |fd: &EventFd| {
                let mut epoll = Epoll::new()?;
                epoll.add(fd, 0)?;
                Ok(move |fd: &EventFd| {
                    while epoll.wait(PATIENCE)? == 0 {}
                    fd.wait()
                })
            };
            threads(waiter).expect("epoll")
        }),
        Rival::new("greenroom, a thread and an actor", || {
            let start = Instant::now();
            for _ in 0..ROUND_TRIPS {
                answerer.send(()).expect("the actor lives");
                answer.wait().expect("eventfd");
            }
            start.elapsed()
        }),
        Rival::new("greenroom, actors on two pollers", || {
            let start = Instant::now();
            pinger.send(Ping::Begin).expect("the actor lives");
            done.wait().expect("eventfd");
            start.elapsed()
        }),
        Rival::new("greenroom, busy_poll, actors on two pollers", || {
            let start = Instant::now();
            spinning_pinger.send(Ping::Begin).expect("the actor lives");
            done.wait().expect("eventfd");
            start.elapsed()
        }),
    ];
    race("round trips between two that sleep", ROUND_TRIPS, rivals);
    Ok(())
}
