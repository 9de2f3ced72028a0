//! Round trips between two threads, each of which sleeps until the other has answered. They are
//! pinned to two processors where there are as many.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use actix::{Actor as _, Addr as ActixAddr};
use crossbeam_channel::Sender;
use greenroom::{Addr, Context, Outcome, System};
use greenroom_benches::samples::Samples;
use greenroom_benches::{EventFd, pin_if_many};
use ractor::{ActorProcessingErr, ActorRef};
use tokio::runtime::Builder;
use tokio::sync::mpsc;

use super::race::{Case, Plan, Rival, race};

/// Where the side that begins runs, and where the one that answers.
const PINGER: usize = 1;
const PONGER: usize = 0;

/// How long the pollers of one rival spin before they sleep.
const BUSY_POLL: Duration = Duration::from_micros(200);

pub fn measure(plan: Plan, samples: &mut Samples) -> io::Result<()> {
    let case = Case {
        part: "wake",
        name: "round trip over two threads",
        operations: None,
    };
    let system = System::builder().pollers(2).build()?;
    // It sleeps while the others have their turns: those take longer than it spins.
    let busy = System::builder().pollers(2).busy_poll(BUSY_POLL).build()?;
    let rivals = vec![
        eventfd()?,
        rival("greenroom", greenroom(&system)),
        rival("greenroom busy-poll", greenroom(&busy)),
        rival("tokio", tokio()),
        rival("actix", actix()),
        rival("ractor", ractor()),
    ];
    race(plan, &case, rivals, samples);
    Ok(())
}

/// So many round trips, and who waits for their end.
struct Begin {
    round_trips: u64,
    done: Sender<()>,
}

/// A rival that `begin` sets off.
fn rival<'a>(name: &'static str, begin: impl Fn(Begin) + 'a) -> Rival<'a> {
    let (done, is_done) = crossbeam_channel::bounded(1);
    Rival::new(name, move |round_trips| {
        let start = Instant::now();
        begin(Begin {
            round_trips,
            done: done.clone(),
        });
        is_done.recv().expect("the pinger lives");
        start.elapsed()
    })
}

/// Two threads that block in read(2) of an eventfd each, the least that two sleeping threads can
/// do.
fn eventfd<'a>() -> io::Result<Rival<'a>> {
    let (ping, pong) = (EventFd::new()?, EventFd::new()?);
    Ok(Rival::new("eventfd", move |round_trips| {
        thread::scope(|scope| {
            scope.spawn(|| {
                pin_if_many(PONGER);
                for _ in 0..round_trips {
                    ping.wait().and_then(|()| pong.signal()).expect("eventfd");
                }
            });
            let pinger = scope.spawn(|| {
                pin_if_many(PINGER);
                let start = Instant::now();
                for _ in 0..round_trips {
                    ping.signal().and_then(|()| pong.wait()).expect("eventfd");
                }
                start.elapsed()
            });
            pinger.join().expect("the pinger does not panic")
        })
    }))
}

/// What the side that begins has left to do.
#[derive(Default)]
struct Left {
    round_trips: u64,
    done: Option<Sender<()>>,
}

impl Left {
    fn begin(&mut self, begin: Begin) {
        self.round_trips = begin.round_trips;
        self.done = Some(begin.done);
    }

    /// Whether there is another round trip; else tells who waits.
    fn next(&mut self) -> bool {
        if self.round_trips == 0 {
            if let Some(done) = self.done.take() {
                // It waits as long as the race lasts.
                let _ = done.send(());
            }
            return false;
        }
        self.round_trips -= 1;
        true
    }
}

struct GreenroomPinger {
    to: Addr<GreenroomPonger>,
    left: Left,
}

enum Ping {
    Begin(Begin),
    Pong,
}

impl greenroom::Actor for GreenroomPinger {
    type Message = Ping;

    fn message(&mut self, message: Ping, ctx: &mut Context<'_, Self>) -> Outcome {
        if let Ping::Begin(begin) = message {
            self.left.begin(begin);
        }
        if self.left.next() {
            self.to.send(ctx.addr())?;
        }
        Ok(())
    }
}

struct GreenroomPonger;

impl greenroom::Actor for GreenroomPonger {
    type Message = Addr<GreenroomPinger>;

    fn message(&mut self, from: Addr<GreenroomPinger>, _ctx: &mut Context<'_, Self>) -> Outcome {
        Ok(from.send(Ping::Pong)?)
    }
}

/// Two actors on the two pollers of `system`.
fn greenroom(system: &System) -> impl Fn(Begin) + use<> {
    let to = system.spawn_on(0, || {
        pin_if_many(PONGER);
        GreenroomPonger
    });
    let pinger = system.spawn_on(1, move || {
        pin_if_many(PINGER);
        GreenroomPinger {
            to,
            left: Left::default(),
        }
    });
    move |begin| {
        let sent = pinger.send(Ping::Begin(begin));
        sent.expect("the pinger lives");
    }
}

/// Runs `serve` on a runtime of a thread of its own.
fn spawn_runtime(cpu: usize, serve: impl Future<Output = ()> + Send + 'static) {
    thread::spawn(move || {
        pin_if_many(cpu);
        Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("the kernel gives a runtime what it needs")
            .block_on(serve);
    });
}

/// Two tasks on two runtimes.
fn tokio() -> impl Fn(Begin) {
    let (ping, mut pinged) = mpsc::unbounded_channel();
    let (pong, mut ponged) = mpsc::unbounded_channel();
    let (begin, mut begun) = mpsc::unbounded_channel::<Begin>();
    spawn_runtime(PONGER, async move {
        while let Some(()) = pinged.recv().await {
            pong.send(()).expect("the pinger outlives its pings");
        }
    });
    spawn_runtime(PINGER, async move {
        let mut left = Left::default();
        while let Some(begin) = begun.recv().await {
            left.begin(begin);
            while left.next() {
                ping.send(()).expect("the ponger lives");
                ponged.recv().await.expect("the ponger lives");
            }
        }
    });
    move |message| begin.send(message).expect("the pinger lives")
}

struct ActixPinger {
    to: ActixAddr<ActixPonger>,
    left: Left,
}

struct ActixPonger;

impl actix::Actor for ActixPinger {
    type Context = actix::Context<Self>;
}

impl actix::Actor for ActixPonger {
    type Context = actix::Context<Self>;
}

impl actix::Message for Begin {
    type Result = ();
}

#[derive(actix::Message)]
#[rtype(result = "()")]
struct ActixPing(ActixAddr<ActixPinger>);

#[derive(actix::Message)]
#[rtype(result = "()")]
struct ActixPong;

impl ActixPinger {
    fn ping(&mut self, ctx: &actix::Context<Self>) {
        use actix::AsyncContext;
        if self.left.next() {
            self.to.do_send(ActixPing(ctx.address()));
        }
    }
}

impl actix::Handler<Begin> for ActixPinger {
    type Result = ();

    fn handle(&mut self, begin: Begin, ctx: &mut Self::Context) {
        self.left.begin(begin);
        self.ping(ctx);
    }
}

impl actix::Handler<ActixPong> for ActixPinger {
    type Result = ();

    fn handle(&mut self, _pong: ActixPong, ctx: &mut Self::Context) {
        self.ping(ctx);
    }
}

impl actix::Handler<ActixPing> for ActixPonger {
    type Result = ();

    fn handle(&mut self, ping: ActixPing, _ctx: &mut Self::Context) {
        ping.0.do_send(ActixPong);
    }
}

/// Two actors in two arbiters.
fn actix() -> impl Fn(Begin) {
    let arbiter = |cpu| {
        let arbiter = actix::Arbiter::new();
        arbiter.spawn_fn(move || pin_if_many(cpu));
        arbiter
    };
    let (ponging, pinging) = (arbiter(PONGER), arbiter(PINGER));
    let to = ActixPonger::start_in_arbiter(&ponging.handle(), |_| ActixPonger);
    let pinger = ActixPinger::start_in_arbiter(&pinging.handle(), |_| ActixPinger {
        to,
        left: Left::default(),
    });
    move |begin| pinger.do_send(begin)
}

struct RactorPinger;

struct RactorPonger;

enum RactorPing {
    Begin(Begin),
    Pong,
}

impl ractor::Actor for RactorPinger {
    type Msg = RactorPing;
    type State = (ActorRef<ActorRef<RactorPing>>, Left);
    type Arguments = ActorRef<ActorRef<RactorPing>>;

    async fn pre_start(
        &self,
        _me: ActorRef<Self::Msg>,
        to: Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        Ok((to, Left::default()))
    }

    async fn handle(
        &self,
        me: ActorRef<Self::Msg>,
        message: RactorPing,
        (to, left): &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        if let RactorPing::Begin(begin) = message {
            left.begin(begin);
        }
        if left.next() {
            to.cast(me)?;
        }
        Ok(())
    }
}

impl ractor::Actor for RactorPonger {
    type Msg = ActorRef<RactorPing>;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _me: ActorRef<Self::Msg>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(
        &self,
        _me: ActorRef<Self::Msg>,
        from: ActorRef<RactorPing>,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        Ok(from.cast(RactorPing::Pong)?)
    }
}

/// An actor on a runtime of its own thread.
fn spawn_ractor<A: ractor::Actor>(
    cpu: usize,
    actor: A,
    arguments: A::Arguments,
) -> ActorRef<A::Msg> {
    let (started, start) = crossbeam_channel::bounded(1);
    spawn_runtime(cpu, async move {
        let spawned = A::spawn(None, actor, arguments).await;
        let (actor, ended) = spawned.expect("pre_start does not fail");
        started.send(actor).expect("the starter waits");
        // A panic of the actor shows itself by the slice that never ends.
        let _ = ended.await;
    });
    start.recv().expect("the runtime starts the actor")
}

/// Two actors on two runtimes.
fn ractor() -> impl Fn(Begin) {
    let to = spawn_ractor(PONGER, RactorPonger, ());
    let pinger = spawn_ractor(PINGER, RactorPinger, to);
    move |begin| {
        let cast = pinger.cast(RactorPing::Begin(begin));
        cast.expect("the pinger lives");
    }
}
