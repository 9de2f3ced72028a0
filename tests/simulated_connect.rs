//! Connecting out on a simulated network, from clients and from within a server: each connect ends
//! in one of two ways, whatever goes wrong, and what was sent early comes first, or not at all.
//!
//!     GREENROOM_SEEDS=10000 cargo test --release --test simulated_connect

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use greenroom::testing::{Fault, Faults, Simulation, for_each_seed};
use greenroom::*;

const SERVER: &str = "10.0.0.1:9000";
const RELAY: &str = "10.0.0.1:9001";

/// Sends all back.
struct Echo;

impl Actor for Echo {
    type Message = ();

    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.write(input.take_all());
        Ok(())
    }
}

/// What the actors of a run write down, by number.
#[derive(Default, Debug)]
struct Life {
    calls: Vec<&'static str>,
    messages: Vec<u32>,
    failure: Option<ConnectErrorKind>,
}

type Lives = Arc<Mutex<BTreeMap<usize, Life>>>;

/// One end of a connect.
struct Caller {
    number: usize,
    lives: Lives,
}

impl Caller {
    fn note(&self, call: &'static str) {
        let mut lives = self.lives.lock().unwrap();
        lives.entry(self.number).or_default().calls.push(call);
    }
}

impl Actor for Caller {
    type Message = u32;

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        assert!(ctx.has_socket() && ctx.peer().is_some());
        self.note("opened");
        Ok(())
    }

    fn readable(&mut self, input: &mut Input<'_>, _ctx: &mut Context<'_, Self>) -> Outcome {
        input.take_all();
        self.note("readable");
        Ok(())
    }

    fn message(&mut self, message: u32, ctx: &mut Context<'_, Self>) -> Outcome {
        self.note("message");
        let mut lives = self.lives.lock().unwrap();
        let life = lives.entry(self.number).or_default();
        life.messages.push(message);
        ctx.write(message.to_be_bytes());
        Ok(())
    }

    fn closed(&mut self, reason: &CloseReason, ctx: &mut Context<'_, Self>) {
        assert!(!ctx.has_socket());
        self.note("closed");
        if let CloseReason::NotConnected(error) = reason {
            let mut lives = self.lives.lock().unwrap();
            let life = lives.entry(self.number).or_default();
            life.failure = Some(error.kind());
        }
    }
}

/// Connects to the server for each byte that it gets, from its own poller.
struct Relay {
    lives: Lives,
    first: usize,
    options: ConnectOptions,
}

impl Actor for Relay {
    type Message = ();

    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        for byte in input.take_all() {
            let number = self.first + usize::from(*byte);
            let lives = self.lives.clone();
            lives.lock().unwrap().entry(number).or_default();
            let to: Remote = SERVER.parse()?;
            let caller = ctx.connect_with(to, self.options.clone(), Caller { number, lives });
            for message in 1..=3 {
                caller.send(message)?;
            }
            if number.is_multiple_of(7) {
                caller.close();
            }
        }
        Ok(())
    }
}

/// What holds of each connect.
fn check(lives: &Lives) -> (usize, BTreeMap<ConnectErrorKind, usize>) {
    let (mut opened, mut failed) = (0, BTreeMap::new());
    for (number, life) in &*lives.lock().unwrap() {
        let calls = &life.calls;
        let count = |call| calls.iter().filter(|made| **made == call).count();
        assert_eq!(count("closed"), 1, "{number}: {life:?}");
        assert_eq!(calls.last(), Some(&"closed"), "{number}: {life:?}");
        match life.failure {
            Some(kind) => {
                assert_eq!(calls.len(), 1, "{number}: {life:?}");
                *failed.entry(kind).or_default() += 1;
            }
            None => {
                opened += 1;
                assert_eq!(calls[0], "opened", "{number}: {life:?}");
                assert_eq!(count("opened"), 1, "{number}: {life:?}");
            }
        }
        let in_order: Vec<u32> = (1..=life.messages.len() as u32).collect();
        assert_eq!(life.messages, in_order, "{number}");
    }
    (opened, failed)
}

#[test]
fn each_connect_is_opened_and_closed_or_closed_alone() {
    let all = RefCell::new((0, BTreeMap::new()));
    for_each_seed(300, |sim| {
        let foul = sim.random().one_in(2);
        sim.faults(if foul {
            Faults::all()
        } else {
            Faults::harmless()
        });
        let lives = Lives::default();
        let server = sim.system(System::builder().pollers(2).name("server"));
        let limit = 1 + sim.random().below(20) as usize;
        let options = ListenOptions::new()
            .max_connections(limit)
            .backlog(sim.random().below(10) as u16);
        server.listen_with(SERVER, options, |_peer| Echo).unwrap();
        let relay = sim.system(System::builder().pollers(2).name("relay"));
        let timeout = sim.random().duration(Duration::from_secs(15));
        let options = ConnectOptions::new().timeout(timeout);
        let (for_relays, of_relays) = (lives.clone(), options.clone());
        let numbers = Mutex::new(1_000..);
        relay
            .listen(RELAY, move |_peer| Relay {
                lives: for_relays.clone(),
                first: 1_000 * numbers.lock().unwrap().next().unwrap_or(0),
                options: of_relays.clone(),
            })
            .unwrap();
        let clients: Vec<_> = (0..3).map(|_| sim.client(RELAY)).collect();
        for client in &clients {
            let bytes: Vec<u8> = (0..20).collect();
            client.send(bytes);
        }
        for number in 0..30 {
            let lives = lives.clone();
            let after = sim.random().duration(Duration::from_secs(20));
            let to = *sim.random().pick(&[SERVER, SERVER, "10.0.0.9:1"]);
            let options = options.clone();
            let closes = sim.random().one_in(4);
            sim.after(after, move |sim| {
                lives.lock().unwrap().entry(number).or_default();
                let caller = sim.connect_with(to, options, Caller { number, lives });
                for message in 1..=4 {
                    // It may be over already, where no descriptor is left.
                    let _ = caller.send(message);
                }
                if closes {
                    let after = sim.random().duration(Duration::from_secs(2));
                    sim.after(after, move |_| caller.close());
                }
            });
        }
        let runs = sim.random().duration(Duration::from_secs(40));
        sim.run_for(runs);
        let stats = [relay.stats(), sim.client_stats()];
        drop(clients);
        let stops = sim.random().duration(Duration::from_secs(5));
        sim.finish(stops);
        let (opened, failed) = check(&lives);
        let made: u64 = stats.iter().map(|stats| stats.connected).sum();
        assert!(made <= opened as u64);
        let mut all = all.borrow_mut();
        all.0 += opened;
        for (kind, count) in failed {
            *all.1.entry(kind).or_insert(0) += count;
        }
    });
    if std::env::var_os("GREENROOM_SEED").is_none() {
        let (opened, failed) = all.into_inner();
        assert!(opened > 1_000, "{opened}");
        for kind in [
            ConnectErrorKind::Refused,
            ConnectErrorKind::TimedOut,
            ConnectErrorKind::Reset,
            ConnectErrorKind::NoDescriptors,
            ConnectErrorKind::NoMemory,
            ConnectErrorKind::Closed,
            ConnectErrorKind::Stopped,
        ] {
            assert!(failed.contains_key(&kind), "{kind:?} of {failed:?}");
        }
    }
}

/// After how long, and why if it came to nothing.
type Ended = (Duration, Option<ConnectErrorKind>);

/// Says when its connect ended, and how.
struct Ends {
    at: Rc<RefCell<Vec<Ended>>>,
    start: std::time::Instant,
}

impl Actor for Ends {
    type Message = ();

    fn closed(&mut self, reason: &CloseReason, ctx: &mut Context<'_, Self>) {
        let kind = match reason {
            CloseReason::NotConnected(error) => Some(error.kind()),
            _ => None,
        };
        let at = ctx.now() - self.start;
        self.at.borrow_mut().push((at, kind));
    }
}

#[test]
fn a_deadline_is_kept_to_the_millisecond() {
    for_each_seed(20, |sim| {
        let system = sim.system(System::builder().pollers(1));
        let options = ListenOptions::new().backlog(1).max_connections(1);
        system.listen_with(SERVER, options, |_peer| Echo).unwrap();
        let _served = [sim.client(SERVER), sim.client(SERVER)];
        sim.run_for(Duration::from_secs(1));
        let timeout = Duration::from_millis(1 + sim.random().below(5_000));
        let (at, start) = (Rc::<RefCell<Vec<_>>>::default(), sim.now());
        let ends = Ends {
            at: at.clone(),
            start,
        };
        sim.connect_with(SERVER, ConnectOptions::new().timeout(timeout), ends);
        sim.run_for(Duration::from_secs(10));
        let [(ended, kind)] = at.borrow()[..] else {
            panic!("{at:?}")
        };
        assert_eq!(kind, Some(ConnectErrorKind::TimedOut));
        let late = ended.checked_sub(timeout).expect("not early");
        assert!(late < Duration::from_millis(2), "{late:?}");
    });
}

#[test]
fn options_that_are_written_down_anew_for_each_of_70_000_connects_take_no_room() {
    for_each_seed(1, |sim| {
        sim.keep_trace(0);
        let system = sim.system(System::builder().pollers(1).name("server"));
        let patient = ConnectionOptions::new().first_bytes_timeout(None);
        let options = ListenOptions::new().connection(patient);
        system.listen_with(SERVER, options, |_peer| Echo).unwrap();
        let lives = Lives::default();
        // All of them at a time, with equal options, and others that differ in each and go.
        let idle = |millis| ConnectionOptions::new().idle_timeout(Duration::from_millis(millis));
        for number in 0..70_000 {
            let lives = lives.clone();
            let stays = ConnectOptions::new().connection(idle(3_600_000));
            sim.connect_with(SERVER, stays, Caller { number, lives });
            if number % 1_000 == 0 {
                sim.run_for(Duration::from_millis(100));
            }
        }
        sim.run_for(Duration::from_secs(10));
        let stats = sim.client_stats();
        assert_eq!((stats.connected, stats.connections), (70_000, 70_000));
        for number in 70_000..140_000 {
            let lives = lives.clone();
            let goes = ConnectOptions::new().connection(idle(number as u64 / 1_000));
            let own = ConnectOptions::new().connection(idle(10 + number as u64 % 100));
            let options = if number % 2 == 0 { goes } else { own };
            sim.connect_with(SERVER, options, Caller { number, lives });
            if number % 1_000 == 0 {
                sim.run_for(Duration::from_secs(1));
            }
        }
        sim.run_for(Duration::from_secs(10));
        let stats = sim.client_stats();
        assert_eq!((stats.connected, stats.connect_failed), (140_000, 0));
        assert_eq!(stats.closed_by["idle"], 70_000);
        assert_eq!(stats.connections, 70_000, "the others live on");
        sim.finish(Duration::from_secs(30));
        check(&lives);
    });
}

/// Nothing goes wrong but what the test says.
fn calm(scenario: impl Fn(&mut Simulation)) {
    for_each_seed(10, scenario);
}

#[test]
fn what_goes_wrong_is_told_by_its_kind() {
    use ConnectErrorKind::*;
    for (fault, kinds) in [
        (Fault::Refuse, &[Refused, Reset][..]),
        (Fault::Exhaust, &[NoDescriptors]),
    ] {
        let seen = RefCell::new(0);
        for_each_seed(50, |sim| {
            sim.faults(Faults::none().with(fault));
            let lives = Lives::default();
            let system = sim.system(System::builder().pollers(1));
            system.listen(SERVER, |_peer| Echo).unwrap();
            for number in 0..50 {
                let lives = lives.clone();
                sim.connect(SERVER, Caller { number, lives });
            }
            sim.run_for(Duration::from_secs(60));
            sim.finish(Duration::from_secs(1));
            let (_, failed) = check(&lives);
            for (kind, count) in failed {
                assert!(kinds.contains(&kind), "{kind:?}");
                *seen.borrow_mut() += count;
            }
        });
        assert!(*seen.borrow() > 20, "{fault:?}");
    }
}

#[test]
fn a_client_has_the_local_address_that_it_chose() {
    calm(|sim| {
        let system = sim.system(System::builder().pollers(1));
        let seen = Arc::new(Mutex::new(None));
        let server = seen.clone();
        system
            .listen(SERVER, move |peer| {
                *server.lock().unwrap() = Some(peer);
                Echo
            })
            .unwrap();
        let local = "10.0.0.77:4711".parse().unwrap();
        let options = ConnectOptions::new().local_addr(local);
        let lives = Lives::default();
        let number = 0;
        sim.connect_with(SERVER, options, Caller { number, lives });
        sim.run_for(Duration::from_secs(1));
        assert_eq!(*seen.lock().unwrap(), Some(Peer::Tcp(local)));
    });
}

/// What came of the connects to one name, in a run.
fn to_a_name(
    sim: &mut Simulation,
    to: &str,
    options: ConnectOptions,
) -> Vec<Option<ConnectErrorKind>> {
    let at = Rc::<RefCell<Vec<_>>>::default();
    let start = sim.now();
    let ends = Ends {
        at: at.clone(),
        start,
    };
    let addr = sim.connect_with(to, options, ends);
    sim.run_for(Duration::from_secs(30));
    addr.close();
    sim.run_for(Duration::from_secs(30));
    at.borrow().iter().map(|(_, kind)| *kind).collect()
}

#[test]
fn names_lead_to_their_addresses_in_turn() {
    calm(|sim| {
        let system = sim.system(System::builder().pollers(1).name("server"));
        system.listen(SERVER, |_peer| Echo).unwrap();
        // The first refuses, the second has nobody who answers, the third is there.
        let full = ListenOptions::new().backlog(1).max_connections(1);
        system
            .listen_with("10.0.0.3:9000", full, |_peer| Echo)
            .unwrap();
        let _fill = [sim.client("10.0.0.3:9000"), sim.client("10.0.0.3:9000")];
        sim.name("db", [[10, 0, 0, 2], [10, 0, 0, 3], [10, 0, 0, 1]]);
        sim.name("gone", [[10, 0, 0, 2], [10, 0, 0, 4]]);
        let (yes, no) = ("db:9000", "gone:9000");
        // The second has a half of the time that is left to it.
        let timeout = ConnectOptions::new().timeout(Duration::from_secs(4));
        assert_eq!(to_a_name(sim, yes, timeout.clone()), [None]);
        assert_eq!(sim.client_stats().connected, 1);
        let refused = Some(ConnectErrorKind::Refused);
        assert_eq!(to_a_name(sim, no, timeout.clone()), [refused]);
        let unknown = Some(ConnectErrorKind::NoSuchName);
        assert_eq!(to_a_name(sim, "nobody:9000", timeout), [unknown]);
    });
}

#[test]
fn a_lookup_that_takes_too_long_holds_no_deadline_up() {
    let seen = RefCell::new(BTreeMap::new());
    for_each_seed(200, |sim| {
        sim.faults(Faults::none().with(Fault::Lookup));
        let system = sim.system(System::builder().pollers(1).name("server"));
        system.listen(SERVER, |_peer| Echo).unwrap();
        sim.name("db", [[10, 0, 0, 1]]);
        // Lookups take up to 10 ms or up to a second.
        let timeout = ConnectOptions::new().timeout(Duration::from_millis(5));
        for kind in to_a_name(sim, "db:9000", timeout) {
            *seen.borrow_mut().entry(kind).or_insert(0) += 1;
        }
    });
    let seen = seen.borrow();
    for kind in [
        None,
        Some(ConnectErrorKind::TimedOut),
        Some(ConnectErrorKind::LookupFailed),
    ] {
        assert!(seen.contains_key(&kind), "{kind:?} of {seen:?}");
    }
}

/// A name whose server does not answer would have the threads for lookups work for nobody, while
/// those who want another name wait.
#[test]
fn no_name_is_looked_up_for_who_has_gone() {
    let (mut in_time, timeout) = (0, Duration::from_millis(20));
    for seed in 0..40 {
        let sim = &mut Simulation::new(seed);
        sim.keep_trace(100_000);
        sim.faults(Faults::none().with(Fault::Lookup));
        sim.name("db", [[10, 0, 0, 1]]);
        let lives = Lives::default();
        for number in 0..200 {
            let (lives, options) = (lives.clone(), ConnectOptions::new().timeout(timeout));
            sim.connect_with("db:9000", options, Caller { number, lives });
        }
        sim.run_for(Duration::from_secs(1000));
        let trace = sim.trace().to_string();
        for line in trace.lines().filter(|line| line.contains("looked up now")) {
            let at = line.split_whitespace().next().unwrap();
            let at: f64 = at.parse().unwrap();
            let latest = 2.0 * timeout.as_secs_f64();
            assert!(at < latest, "seed {seed}: {line}");
            in_time += 1;
        }
        sim.finish(Duration::from_secs(10));
    }
    assert!(in_time > 0, "some were looked up");
}

#[test]
fn more_lookups_than_may_wait_are_refused_and_the_others_made() {
    calm(|sim| {
        sim.keep_trace(0);
        let system = sim.system(System::builder().pollers(1).name("server"));
        system.listen(SERVER, |_peer| Echo).unwrap();
        sim.name("db", [[10, 0, 0, 1]]);
        let lives = Lives::default();
        let patient = ConnectOptions::new().timeout(Duration::from_secs(3600));
        for number in 0..1_500 {
            let lives = lives.clone();
            sim.connect_with("db:9000", patient.clone(), Caller { number, lives });
        }
        sim.run_for(Duration::from_secs(3600));
        assert_eq!(sim.client_stats().connected, 1_032, "8 at work, 1,024 wait");
        sim.finish(Duration::from_secs(10));
        let (_, failed) = check(&lives);
        assert_eq!(failed, [(ConnectErrorKind::TooManyLookups, 468)].into());
    });
}

#[test]
fn a_stop_ends_lookups_at_once() {
    calm(|sim| {
        let system = sim.system(System::builder().pollers(2).name("asks"));
        let lives = Lives::default();
        for number in 0..20 {
            let lives = lives.clone();
            let to: Remote = "db:9000".parse().unwrap();
            system.connect(to, move || Caller { number, lives });
        }
        system.handle().stop(Duration::from_secs(3600));
        sim.finish(Duration::from_secs(3600));
        assert!(sim.elapsed() < Duration::from_secs(1));
        let (opened, failed) = check(&lives);
        assert_eq!(opened, 0);
        let stopped = failed.get(&ConnectErrorKind::Stopped).copied();
        let unknown = failed.get(&ConnectErrorKind::NoSuchName).copied();
        assert_eq!(stopped.unwrap_or(0) + unknown.unwrap_or(0), 20);
    });
}
