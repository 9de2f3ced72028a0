//! Whom listeners let in, by seed: no limit is passed, of a source, a listener or the system; nobody
//! waits where there is room; a rate is kept to the token; who is paused serves nobody, and who is
//! resumed all that have waited; each balance is what it says.
//!
//!     GREENROOM_SEEDS=10000 cargo test --release --test simulated_accept

#[path = "util/weather.rs"]
mod weather;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use greenroom::testing::{Client, Faults, Random, Simulation, for_each_seed};
use greenroom::{
    Actor, AtLimit, Balance, CloseReason, Context, ListenOptions, Listener, Outcome, Peer, System,
};

use weather::{LIMIT, Weather, millis, secs};

const FAREWELL: &[u8] = b"full\n";
const TOO_MANY: &[u8] = b"too many of you\n";
const WELCOME: &[u8] = b"in\n";

/// Longer than anything that a healed server waits for.
const QUIET: Duration = Duration::from_secs(120);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice {
    Balance(Balance),
    /// A closure, which is wrong now and then.
    Custom,
}

#[derive(Clone, Debug)]
struct Plan {
    max: Option<usize>,
    per_source: Option<usize>,
    refuses: bool,
    rate: Option<(u32, u32)>,
    choice: Choice,
    pollers: Vec<usize>,
    accepts_per_turn: usize,
    is_v6: bool,
}

impl Plan {
    fn draw(random: &mut Random, pollers: usize) -> Plan {
        let some =
            |random: &mut Random, max| random.one_in(2).then(|| 1 + random.below(max) as usize);
        let served: Vec<usize> = (0..pollers).filter(|_| random.one_in(2)).collect();
        Plan {
            max: some(random, 4),
            per_source: some(random, 3),
            refuses: random.one_in(2),
            rate: random.one_in(2).then(|| {
                let per_second = *random.pick(&[1, 3, 10, 1000]);
                (per_second, 1 + random.below(5) as u32)
            }),
            choice: *random.pick(&[
                Choice::Balance(Balance::LeastConnections),
                Choice::Balance(Balance::RoundRobin),
                Choice::Balance(Balance::SourceHash),
                Choice::Balance(Balance::PerPoller),
                Choice::Custom,
            ]),
            pollers: if served.is_empty() {
                (0..pollers).collect()
            } else {
                served
            },
            accepts_per_turn: *random.pick(&[1, 2, 64]),
            is_v6: random.one_in(4),
        }
    }

    fn options(&self, book: &Shared) -> ListenOptions {
        let mut options = ListenOptions::new()
            .pollers(self.pollers.iter().copied())
            .accepts_per_turn(self.accepts_per_turn)
            .source_farewell(TOO_MANY);
        if let Some(max) = self.max {
            options = options.max_connections(max);
        }
        if let Some(max) = self.per_source {
            options = options.max_per_source(max);
        }
        if self.refuses {
            options = options.at_limit(AtLimit::Refuse(FAREWELL.into()));
        }
        if let Some((per_second, burst)) = self.rate {
            options = options.accept_rate(per_second, burst);
        }
        let Choice::Balance(balance) = self.choice else {
            let (book, pollers) = (book.clone(), self.pollers.clone());
            return options.balance_by(move |peer, loads| {
                assert_eq!(loads.pollers(), pollers);
                let mut book = open(&book);
                book.choices += 1;
                let chosen = book.choices * 7 % 5;
                if pollers.contains(&chosen) {
                    book.chosen.insert(peer, chosen);
                } else {
                    book.misdirected += 1;
                }
                chosen
            });
        };
        options.balance(balance)
    }

    /// The address of a source of this number, and another one that is of the same source.
    fn source(&self, number: u64, random: &mut Random) -> IpAddr {
        if self.is_v6 {
            let net = u128::from(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0));
            let host = u128::from(random.below(3));
            return Ipv6Addr::from(net + (u128::from(number) << 64) + host).into();
        }
        Ipv4Addr::new(10, 1, 0, number as u8).into()
    }
}

/// What actors and closures know of one run.
#[derive(Default)]
struct Book {
    inside: HashMap<(usize, IpAddr), usize>,
    /// On which poller the connections of an address are.
    homes: HashMap<(usize, IpAddr), Vec<usize>>,
    chosen: HashMap<Peer, usize>,
    choices: usize,
    misdirected: usize,
    is_stopping: bool,
}

type Shared = Arc<Mutex<Book>>;

fn open(book: &Shared) -> MutexGuard<'_, Book> {
    book.lock().unwrap()
}

/// What counts as one source: all of an IPv4 address, the network of an IPv6 address.
fn source_of(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(ip) => Ipv6Addr::from(u128::from(ip) >> 64 << 64).into(),
    }
}

/// A connection that looks at what there is beside it.
struct Guest {
    listener: usize,
    plan: Plan,
    system_max: Option<usize>,
    book: Shared,
    peer: Peer,
}

impl Guest {
    fn ip(&self) -> IpAddr {
        self.peer.ip().expect("a TCP listener")
    }
}

impl Actor for Guest {
    type Message = ();

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        let mut book = open(&self.book);
        let key = (self.listener, source_of(self.ip()));
        *book.inside.entry(key).or_default() += 1;
        let of_source = book.inside[&key];
        let mine = book
            .inside
            .iter()
            .filter(|((at, _), _)| *at == self.listener);
        let of_listener: usize = mine.map(|(_, count)| count).sum();
        let of_system: usize = book.inside.values().sum();
        let holds = |count: usize, max: Option<usize>| max.is_none_or(|max| count <= max);
        assert!(
            holds(of_source, self.plan.per_source),
            "{of_source} of {key:?}"
        );
        assert!(
            holds(of_listener, self.plan.max),
            "{of_listener} are inside"
        );
        assert!(holds(of_system, self.system_max), "{of_system} are inside");
        let poller = ctx.addr().poller();
        assert!(self.plan.pollers.contains(&poller), "on poller {poller}");
        if let Some(chosen) = book.chosen.get(&self.peer) {
            assert_eq!(poller, *chosen, "not where it was to go");
        }
        let home = (self.listener, self.ip());
        book.homes.entry(home).or_default().push(poller);
        drop(book);
        ctx.write(WELCOME);
        Ok(())
    }

    fn closed(&mut self, _reason: &CloseReason, _ctx: &mut Context<'_, Self>) {
        let key = (self.listener, source_of(self.ip()));
        let mut book = open(&self.book);
        *book.inside.get_mut(&key).expect("it was opened") -= 1;
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Waiting,
    Served,
    TurnedAway,
    Lost,
}

struct Caller {
    client: Option<Client>,
    listener: usize,
    phase: Phase,
    got: Vec<u8>,
    stay: Duration,
    leaves_at: Option<Duration>,
}

impl Caller {
    fn look(&mut self, sim: &mut Simulation, is_rough: bool) {
        let Some(client) = &self.client else { return };
        self.got.extend_from_slice(&client.received());
        if self.phase == Phase::Waiting && self.got == WELCOME {
            self.phase = Phase::Served;
            self.leaves_at = Some(sim.elapsed() + self.stay);
            sim.after(self.stay, |_| ());
        }
        if client.is_closed() {
            if self.phase == Phase::Waiting {
                // One who is turned away without a descriptor is not waited for: it is reset where
                // the farewell does not go through at once.
                let told = self.got == FAREWELL || self.got == TOO_MANY || client.is_reset();
                self.phase = if told { Phase::TurnedAway } else { Phase::Lost };
                assert!(told || is_rough, "lost without a word: {:?}", self.got);
            }
            self.client = None;
        } else if self.leaves_at.is_some_and(|at| at <= sim.elapsed()) {
            self.client = None;
        }
    }
}

type Callers = Arc<Mutex<Vec<Caller>>>;

struct Run {
    system: System,
    /// Its limit of connections.
    max: Option<usize>,
    listeners: Vec<Listener>,
    plans: Vec<Plan>,
    book: Shared,
    callers: Callers,
    weather: Weather,
    /// When something was accepted, as seen after the turn.
    accepts: Vec<Duration>,
    seen: u64,
    /// How many each listener had when it was found paused.
    paused_at: Vec<Option<(usize, u64)>>,
}

impl Run {
    fn new(sim: &mut Simulation, plans: Vec<Plan>, pollers: usize, max: Option<usize>) -> Run {
        let weather = Weather::draw(sim.random());
        let mut builder = System::builder().pollers(pollers);
        if let Some(max) = max {
            builder = builder.max_connections(max);
        }
        let system = sim.system(builder);
        let book = Shared::default();
        let listen = |(number, plan): (usize, &Plan)| {
            let (book, plan) = (book.clone(), plan.clone());
            let options = plan.options(&book);
            let listened = system.listen_with(addr(number, &plan), options, move |peer| Guest {
                listener: number,
                plan: plan.clone(),
                system_max: max,
                book: book.clone(),
                peer,
            });
            listened.expect("the address is free")
        };
        let listeners = plans.iter().enumerate().map(listen).collect();
        weather::set_faults(sim, weather);
        Run {
            system,
            max,
            listeners,
            paused_at: vec![None; plans.len()],
            plans,
            book,
            callers: Callers::default(),
            weather,
            accepts: Vec::new(),
            seen: 0,
        }
    }

    /// Has a caller connect after a while.
    fn call(&self, sim: &mut Simulation, after: Duration) {
        let listener = sim.random().below(self.plans.len() as u64) as usize;
        let number = sim.random().below(4);
        let plan = self.plans[listener].clone();
        let from = plan.source(number, sim.random());
        let stay = sim.random().duration(secs(2));
        let callers = self.callers.clone();
        sim.after(after, move |sim| {
            let client = sim.client_from(from, addr(listener, &plan));
            callers.lock().unwrap().push(Caller {
                client: Some(client),
                listener,
                phase: Phase::Waiting,
                got: Vec::new(),
                stay,
                leaves_at: None,
            });
        });
    }

    /// A step, and what holds at each.
    fn step(&mut self, sim: &mut Simulation) -> bool {
        let before = sim.elapsed();
        let moved = sim.step();
        let stats = self.system.stats();
        let now = stats.accepted + stats.refused;
        if let [plan] = &self.plans[..]
            && plan.rate.is_some()
        {
            // It happened at the beginning of the turn, or after the clock had jumped.
            let at = before.max(sim.elapsed().saturating_sub(Duration::from_micros(1)));
            self.accepts.extend((self.seen..now).map(|_| at));
        }
        for (number, listener) in self.listeners.iter().enumerate() {
            let count = listener.connections();
            let held = &mut self.paused_at[number];
            match held {
                _ if !listener.is_paused() || listener.is_closed() => *held = None,
                None => *held = Some((count, now)),
                Some((then, accepted)) => {
                    assert!(count <= *then, "a paused listener has let somebody in");
                    assert!(
                        self.plans.len() > 1 || now == *accepted,
                        "a paused listener has accepted"
                    );
                    *then = count;
                }
            }
        }
        self.seen = now;
        let mut callers = self.callers.lock().unwrap();
        for caller in callers.iter_mut() {
            caller.look(sim, self.weather.is_rough());
        }
        moved
    }

    fn run_for(&mut self, sim: &mut Simulation, time: Duration) {
        let until = sim.elapsed() + time;
        sim.after(time, |_| ());
        while sim.elapsed() < until && self.step(sim) {}
    }

    fn is_anybody_here(&self) -> bool {
        let callers = self.callers.lock().unwrap();
        callers.iter().any(|caller| caller.client.is_some())
    }

    /// Never more than `burst + rate * t` in any stretch of time.
    fn assert_rate(&self) {
        let [
            Plan {
                rate: Some((per_second, burst)),
                ..
            },
        ] = &self.plans[..]
        else {
            return;
        };
        for (first, from) in self.accepts.iter().enumerate() {
            for (count, to) in (1_u64..).zip(&self.accepts[first..]) {
                let nanos = (*to - *from).as_nanos() as u64 * u64::from(*per_second);
                let most = u64::from(*burst) + nanos / 1_000_000_000;
                assert!(count <= most, "{count} from {from:?} to {to:?}");
            }
        }
    }

    fn assert_balanced(&self) {
        let book = open(&self.book);
        for (number, plan) in self.plans.iter().enumerate() {
            let homes = book.homes.iter().filter(|((at, _), _)| *at == number);
            match plan.choice {
                Choice::Balance(Balance::SourceHash) => {
                    for (source, pollers) in homes {
                        assert!(
                            pollers.iter().all(|poller| *poller == pollers[0]),
                            "{source:?} is on {pollers:?}"
                        );
                    }
                }
                Choice::Balance(Balance::RoundRobin) => {
                    let count = |poller: &usize| {
                        let all = homes.clone().flat_map(|(_, pollers)| pollers);
                        all.filter(|home| *home == poller).count()
                    };
                    let counts: Vec<_> = plan.pollers.iter().map(count).collect();
                    let (least, most) = (counts.iter().min(), counts.iter().max());
                    assert!(most.unwrap() - least.unwrap() <= 1, "{counts:?}");
                }
                _ => {}
            }
        }
        let stats = self.system.stats();
        assert_eq!(stats.misdirected, book.misdirected as u64);
    }

    /// As many get in as may, and the next one waits or is turned away.
    fn assert_all_places_are_there(&mut self, sim: &mut Simulation) {
        let plan = self.plans[0].clone();
        let max = plan.max.into_iter().chain(self.max).min();
        let Some(max) = max.filter(|_| self.plans.len() == 1) else {
            return;
        };
        sim.limit_descriptors(&self.system, usize::MAX);
        let mut inside = Vec::new();
        for number in 0..max as u64 {
            let from = plan.source(100 + number, sim.random());
            let client = sim.client_from(from, addr(0, &plan));
            assert_eq!(client.line(sim), "in");
            inside.push(client);
        }
        let from = plan.source(200, sim.random());
        let next = sim.client_from(from, addr(0, &plan));
        if plan.refuses {
            assert_eq!(next.rest(sim), FAREWELL);
        } else {
            sim.run_for(secs(5));
            assert!(next.received().is_empty() && !next.is_closed());
            drop(inside.pop());
            assert_eq!(next.line(sim), "in");
        }
    }
}

fn addr(listener: usize, plan: &Plan) -> String {
    if plan.is_v6 {
        format!("[fd00::9]:{}", 9000 + listener)
    } else {
        format!("10.0.0.9:{}", 9000 + listener)
    }
}

fn scenario(sim: &mut Simulation, callers: u64) {
    let pollers = sim.random().range(1..5) as usize;
    let listeners = sim.random().range(1..3);
    let plans = (0..listeners).map(|_| Plan::draw(sim.random(), pollers));
    let plans: Vec<_> = plans.collect();
    let max = sim
        .random()
        .one_in(3)
        .then(|| 1 + sim.random().below(6) as usize);
    let mut run = Run::new(sim, plans, pollers, max);
    if sim.random().one_in(4) {
        let descriptors = 2 + pollers + sim.random().below(4) as usize;
        sim.limit_descriptors(&run.system, descriptors);
    }
    let period = *sim.random().pick(&[10, 1_000, 10_000]);
    for _ in 0..callers {
        let after = millis(sim.random().below(period));
        run.call(sim, after);
    }
    for listener in &run.listeners {
        for _ in 0..sim.random().below(4) {
            let after = millis(sim.random().below(period + 2_000));
            let (listener, pauses) = (listener.clone(), sim.random().one_in(2));
            sim.after(after, move |_| match pauses {
                true => listener.pause(),
                false => listener.resume(),
            });
        }
    }
    run.run_for(sim, millis(period + 2_000));
    run.assert_rate();
    if sim.random().one_in(4) {
        // In the midst of it: one is closed, or all is.
        open(&run.book).is_stopping = true;
        if sim.random().one_in(2) {
            run.listeners[0].close();
            sim.run_until(LIMIT, |_| run.listeners[0].is_closed());
            let gone = sim.client(addr(0, &run.plans[0]));
            sim.heal();
            sim.run_until(LIMIT, |_| gone.is_closed());
            assert!(gone.is_refused(), "nobody listens there");
        }
        drop(run.callers);
        return sim.finish(secs(60));
    }
    sim.heal();
    for listener in &run.listeners {
        listener.resume();
    }
    // Whoever waits gets in when others leave, or is turned away: nobody is left.
    let until = sim.elapsed() + LIMIT;
    while run.is_anybody_here() {
        assert!(
            run.step(sim) && sim.elapsed() < until,
            "somebody waits for ever"
        );
    }
    run.assert_rate();
    run.run_for(sim, QUIET);
    run.assert_balanced();
    let stats = run.system.stats();
    assert_eq!(stats.connections, 0);
    assert!(
        run.listeners
            .iter()
            .all(|listener| listener.connections() == 0)
    );
    assert_eq!(stats.refused, stats.refused_by.values().sum::<u64>());
    if !run.weather.is_rough() {
        let callers = run.callers.lock().unwrap();
        let count = |phase| {
            callers
                .iter()
                .filter(|caller| caller.phase == phase)
                .count() as u64
        };
        assert_eq!(count(Phase::Waiting) + count(Phase::Lost), 0);
        assert_eq!(count(Phase::TurnedAway), stats.refused);
        assert_eq!(count(Phase::Served), stats.accepted);
        for caller in callers.iter() {
            let plan = &run.plans[caller.listener];
            assert!(
                caller.phase != Phase::TurnedAway || plan.refuses || plan.per_source.is_some(),
                "turned away where clients wait"
            );
        }
    }
    run.assert_all_places_are_there(sim);
    sim.finish(secs(60));
}

#[test]
fn no_seed_breaks_a_limit_a_rate_or_a_pause() {
    for_each_seed(400, |sim| {
        let callers = sim.random().range(1..25);
        scenario(sim, callers);
    });
}

#[test]
fn a_crowd_comes_and_goes() {
    for_each_seed(5, |sim| scenario(sim, 150));
}

#[test]
fn a_port_in_use_is_an_error_whoever_accepts() {
    struct Nobody;
    impl Actor for Nobody {
        type Message = ();
    }
    let mut sim = Simulation::new(1);
    let system = sim.system(System::builder().pollers(2));
    let balances = [Balance::LeastConnections, Balance::PerPoller];
    for (port, first) in (9000..).zip(balances) {
        let listen = |balance| {
            let options = ListenOptions::new().balance(balance);
            system.listen_with(format!("127.0.0.1:{port}"), options, |_| Nobody)
        };
        listen(first).unwrap();
        for second in balances {
            let error = listen(second).unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
        }
    }
}

#[test]
fn a_listener_that_closes_accepts_all_of_a_long_backlog() {
    const WAITING: usize = 10_000;
    struct Stays;
    impl Actor for Stays {
        type Message = ();
    }
    let mut sim = Simulation::new(1);
    sim.faults(Faults::none());
    let system = sim.system(System::builder().pollers(1));
    let options = ListenOptions::new().backlog(WAITING as u16);
    let listened = system.listen_with("127.0.0.1:9000", options, |_| Stays);
    let listener = listened.unwrap();
    listener.pause();
    sim.run_for(secs(1));
    let clients: Vec<_> = (0..WAITING).map(|_| sim.client("127.0.0.1:9000")).collect();
    sim.run_for(secs(1));
    assert_eq!(listener.connections(), 0);
    listener.close();
    sim.run_for(secs(1));
    assert!(listener.is_closed());
    assert_eq!(listener.connections(), WAITING);
    assert!(clients.iter().all(|client| !client.is_closed()));
}

#[test]
fn the_same_seed_twice_is_the_same_run() {
    let run = |seed| {
        let mut sim = Simulation::new(seed);
        sim.keep_trace(1_000_000);
        scenario(&mut sim, 20);
        sim.trace().to_string()
    };
    for seed in 0..5 {
        assert!(run(seed) == run(seed), "seed {seed} had two runs");
    }
}
