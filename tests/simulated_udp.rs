//! Datagrams in a simulation: requests and answers over a network that loses, doubles and reorders
//! them, and what a socket is told.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use greenroom::testing::{Fault, Faults, Simulation, Stage, for_each_seed};
use greenroom::*;

const SERVER: &str = "10.1.1.1:9000";
const REQUESTS: u64 = 20;

/// What happened in a run, as all that take part write it down.
#[derive(Default)]
struct Record {
    /// On which poller each sender was heard.
    homes: BTreeMap<DatagramAddr, BTreeSet<usize>>,
    /// How often each request of each sender was carried out.
    done: BTreeMap<(DatagramAddr, u64), u32>,
    /// How often an answer was new to its client.
    answered: BTreeMap<(u64, u64), u32>,
    /// Datagrams that came a second time, or behind one sent later.
    doubled: u64,
    overtaken: u64,
    resent: u64,
}

type Shared = Arc<Mutex<Record>>;

/// Carries each request out once, and answers it as often as it comes: the answer may have been lost.
struct Server {
    record: Shared,
    seen: BTreeSet<(DatagramAddr, u64)>,
    last: BTreeMap<DatagramAddr, u64>,
}

impl Actor for Server {
    type Message = ();

    fn datagram(&mut self, datagram: Datagram<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        assert_eq!(datagram.local(), SERVER.parse::<DatagramAddr>()?);
        let text = std::str::from_utf8(datagram.bytes())?;
        let id: u64 = text
            .strip_prefix("request ")
            .ok_or("not a request")?
            .parse()?;
        let from = datagram.from().clone();
        let mut record = self.record.lock().unwrap();
        record
            .homes
            .entry(from.clone())
            .or_default()
            .insert(ctx.poller());
        let last = self.last.entry(from.clone()).or_insert(id);
        record.overtaken += u64::from(*last > id);
        *last = id.max(*last);
        if self.seen.insert((from.clone(), id)) {
            *record.done.entry((from, id)).or_default() += 1;
        } else {
            record.doubled += 1;
        }
        ctx.reply(&datagram, format!("answer {id}"));
        Ok(())
    }
}

/// Asks all its questions at once, and again until each is answered.
struct Client {
    number: u64,
    record: Shared,
    left: BTreeSet<u64>,
    refused: Arc<AtomicU64>,
}

impl Client {
    fn ask(&self, ctx: &mut Context<'_, Self>) {
        for id in &self.left {
            ctx.send(format!("request {id}"));
        }
    }
}

impl Actor for Client {
    type Message = ();

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        self.ask(ctx);
        ctx.set_interval(Duration::from_millis(300));
        Ok(())
    }

    fn timer(&mut self, _: TimerKey, ctx: &mut Context<'_, Self>) -> Outcome {
        self.record.lock().unwrap().resent += self.left.len() as u64;
        self.ask(ctx);
        Ok(())
    }

    fn datagram(&mut self, datagram: Datagram<'_>, _: &mut Context<'_, Self>) -> Outcome {
        assert_eq!(*datagram.from(), SERVER.parse::<DatagramAddr>()?);
        let text = std::str::from_utf8(datagram.bytes())?;
        let id: u64 = text
            .strip_prefix("answer ")
            .ok_or("not an answer")?
            .parse()?;
        if self.left.remove(&id) {
            let mut record = self.record.lock().unwrap();
            *record.answered.entry((self.number, id)).or_default() += 1;
        }
        Ok(())
    }

    fn datagram_failed(&mut self, failure: DatagramFailure, _: &mut Context<'_, Self>) -> Outcome {
        if let DatagramFailure::Socket(error) = failure {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// Four clients ask one server of three pollers over a network of these faults.
fn exchange(simulation: &mut Simulation, faults: Faults) -> Record {
    let record = Shared::default();
    simulation.faults(faults);
    let server = simulation.system(System::builder().pollers(3).name("server"));
    let clients = simulation.system(System::builder().pollers(2).name("clients"));
    let of = record.clone();
    let make = move || Server {
        record: of.clone(),
        seen: BTreeSet::new(),
        last: BTreeMap::new(),
    };
    let sockets = server.bind_datagram(SERVER, make).unwrap();
    assert_eq!(sockets.addrs().len(), 3);
    for number in 0..4 {
        let record = record.clone();
        let options = DatagramOptions::new().connect(*sockets.local_addr().udp().as_ref().unwrap());
        let make = move || Client {
            number,
            record: record.clone(),
            left: (0..REQUESTS).collect(),
            refused: Arc::default(),
        };
        clients
            .bind_datagram_with("10.2.2.2:0", options, make)
            .unwrap();
    }
    simulation.run_for(Duration::from_secs(2));
    simulation.heal();
    let all = || record.lock().unwrap().answered.len() as u64 == 4 * REQUESTS;
    simulation.run_until(Duration::from_secs(60), |_| all());
    simulation.finish(Duration::from_secs(10));
    std::mem::take(&mut *record.lock().unwrap())
}

#[track_caller]
fn look_at(record: &Record) {
    assert_eq!(record.done.len() as u64, 4 * REQUESTS);
    assert!(record.done.values().all(|times| *times == 1));
    assert!(record.answered.values().all(|times| *times == 1));
    assert_eq!(record.homes.len(), 4);
    for (sender, homes) in &record.homes {
        assert_eq!(homes.len(), 1, "{sender} was heard on several pollers");
    }
}

#[test]
fn requests_are_answered_once_each_whatever_is_lost_doubled_or_late() {
    let seen = Mutex::new((0, 0, 0));
    for_each_seed(60, |simulation| {
        // Without memory for its registration a client's socket fails, and with it the client.
        let faults = Faults::all().without(Fault::Busy).without(Fault::NoMemory);
        let record = exchange(simulation, faults);
        look_at(&record);
        let mut seen = seen.lock().unwrap();
        seen.0 += record.doubled;
        seen.1 += record.overtaken;
        seen.2 += record.resent;
    });
    if std::env::var_os("GREENROOM_SEED").is_none() {
        let (doubled, overtaken, resent) = *seen.lock().unwrap();
        assert!(
            doubled > 0 && overtaken > 0 && resent > 0,
            "{doubled} {overtaken} {resent}"
        );
    }
}

#[test]
fn on_a_harmless_network_nothing_is_lost_doubled_or_overtaken() {
    for_each_seed(25, |simulation| {
        // Late answers are asked for again: the first request of each is what counts.
        let record = exchange(simulation, Faults::none());
        look_at(&record);
        assert_eq!((record.doubled, record.overtaken, record.resent), (0, 0, 0));
    });
    for_each_seed(25, |simulation| {
        let faults = Faults::harmless().without(Fault::Stall);
        look_at(&exchange(simulation, faults));
    });
}

#[test]
fn nobody_there_is_told_to_who_is_connected_and_the_server_that_comes_is_found() {
    for_each_seed(20, |simulation| {
        let (record, refused) = (Shared::default(), Arc::new(AtomicU64::new(0)));
        let clients = simulation.system(System::builder().pollers(1).name("clients"));
        let to: SocketAddr = SERVER.parse().unwrap();
        let (of, count) = (record.clone(), refused.clone());
        let make = move || Client {
            number: 0,
            record: of.clone(),
            left: (0..REQUESTS).collect(),
            refused: count.clone(),
        };
        let options = DatagramOptions::new().connect(to);
        clients
            .bind_datagram_with("10.2.2.2:0", options, make)
            .unwrap();
        simulation.run_for(Duration::from_secs(1));
        assert!(refused.load(Ordering::Relaxed) > 0);
        let server = simulation.system(System::builder().pollers(1).name("server"));
        let of = record.clone();
        let make = move || Server {
            record: of.clone(),
            seen: BTreeSet::new(),
            last: BTreeMap::new(),
        };
        server.bind_datagram(to, make).unwrap();
        let all = || record.lock().unwrap().answered.len() as u64 == REQUESTS;
        simulation.run_until(Duration::from_secs(10), |_| all());
        simulation.finish(Duration::from_secs(10));
    });
}

/// Sends back what it gets, to all that it has heard of.
#[derive(Default)]
struct Hub {
    members: BTreeSet<DatagramAddr>,
}

impl Actor for Hub {
    type Message = ();

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.join_multicast(GROUP, Interface::Any);
        Ok(())
    }

    fn datagram(&mut self, datagram: Datagram<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        self.members.insert(datagram.from().clone());
        for member in &self.members {
            ctx.send_to(member, datagram.bytes());
        }
        Ok(())
    }
}

const GROUP: IpAddr = IpAddr::V4(Ipv4Addr::new(239, 1, 2, 3));

#[test]
fn a_test_plays_clients_by_hand_and_groups_are_heard() {
    for_each_seed(20, |simulation| {
        let system = simulation.system(System::builder().pollers(2));
        let options = DatagramOptions::new().per_poller(false);
        system
            .bind_datagram_with("0.0.0.0:7000", options, Hub::default)
            .unwrap();
        let clients: Vec<_> = (0..3)
            .map(|_| simulation.datagram_client("10.0.0.7:0"))
            .collect();
        clients[0].send_to("10.9.9.9:7000", "one");
        simulation.run_for(Duration::from_millis(10));
        clients[1].send_to((GROUP, 7000), "two");
        simulation.run_for(Duration::from_millis(10));
        // To nobody: that port is not the hub's.
        clients[2].send_to((GROUP, 7001), "three");
        simulation.run_for(Duration::from_millis(10));
        let heard = |client: &greenroom::testing::DatagramClient| {
            let heard = std::iter::from_fn(|| client.receive());
            heard.map(|(_, bytes)| bytes).collect::<Vec<_>>()
        };
        assert_eq!(heard(&clients[0]), ["one", "two"]);
        assert_eq!(heard(&clients[1]), ["two"]);
        assert!(heard(&clients[2]).is_empty());
        let again = system.bind_datagram("10.0.0.7:7000", Hub::default);
        assert_eq!(again.unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
        simulation.finish(Duration::from_secs(1));
    });
}

/// Greets whom it is connected to, and counts what it hears of that.
struct Greeter(Arc<AtomicU64>);

impl Actor for Greeter {
    type Message = ();

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.send("hello");
        Ok(())
    }

    fn datagram(&mut self, _: Datagram<'_>, _: &mut Context<'_, Self>) -> Outcome {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

#[test]
fn a_connected_socket_hears_its_peer_however_that_was_written() {
    let mut simulation = Simulation::new(0);
    let system = simulation.system(System::builder().pollers(1));
    let heard = Arc::new(AtomicU64::new(0));
    for (hub, own, to) in [
        ("127.0.0.1:7000", "127.0.0.1:0", "0.0.0.0:7000"),
        ("[::1]:7000", "[::1]:0", "[::]:7000"),
        ("10.0.0.1:7000", "[::]:0", "[::ffff:10.0.0.1]:7000"),
    ] {
        system.bind_datagram(hub, Hub::default).unwrap();
        let options = DatagramOptions::new().connect(to.parse::<SocketAddr>().unwrap());
        let heard = heard.clone();
        let make = move || Greeter(heard.clone());
        system.bind_datagram_with(own, options, make).unwrap();
    }
    simulation.run_for(Duration::from_secs(1));
    assert_eq!(heard.load(Ordering::Relaxed), 3);
}

/// Sends numbers to all of some paths at once, and writes down what it hears.
struct Numbers {
    to: &'static [&'static str],
    heard: Arc<Mutex<Vec<u64>>>,
    /// For how long it reads nothing more behind each.
    pauses: Option<Duration>,
}

impl Actor for Numbers {
    type Message = ();

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        for n in 0..200_u64 {
            for to in self.to {
                assert!(ctx.send_to(std::path::Path::new(to), n.to_string()));
            }
        }
        Ok(())
    }

    fn datagram(&mut self, datagram: Datagram<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        self.heard
            .lock()
            .unwrap()
            .push(std::str::from_utf8(datagram.bytes())?.parse()?);
        if let Some(after) = self.pauses {
            ctx.pause();
            ctx.set_timer(after);
        }
        Ok(())
    }

    fn timer(&mut self, _: TimerKey, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.resume();
        Ok(())
    }
}

#[test]
fn over_unix_sockets_nothing_is_lost_however_slow_the_receiver() {
    for_each_seed(30, |simulation| {
        simulation.faults(Faults::all().without(Fault::Busy).without(Fault::NoMemory));
        let heard = Arc::new(Mutex::new(Vec::new()));
        let system = simulation.system(System::builder().pollers(2));
        for (path, to, pauses) in [
            ("unix:/run/slow", &[][..], Some(Duration::from_millis(7))),
            ("unix:/run/from", &["/run/slow"], None),
        ] {
            let heard = heard.clone();
            let make = move || Numbers {
                to,
                heard: heard.clone(),
                pauses,
            };
            system.bind_datagram(path, make).unwrap();
        }
        let all = || heard.lock().unwrap().len() == 200;
        simulation.run_until(Duration::from_secs(300), |_| all());
        assert!(heard.lock().unwrap().iter().copied().eq(0..200));
        simulation.finish(Duration::from_secs(5));
    });
}

#[test]
fn who_never_reads_holds_up_none_of_the_others() {
    const STUCK: [&str; 3] = ["unix:/run/a", "unix:/run/b", "unix:/run/c"];
    for_each_seed(30, |simulation| {
        simulation.faults(Faults::all().without(Fault::Busy).without(Fault::NoMemory));
        let system = simulation.system(System::builder().pollers(2));
        let listener = |path, pauses| {
            let heard = Arc::new(Mutex::new(Vec::new()));
            let of = heard.clone();
            let make = move || Numbers {
                to: &[],
                heard: of.clone(),
                pauses: Some(pauses),
            };
            system.bind_datagram(path, make).unwrap();
            heard
        };
        let stuck = STUCK.map(|path| listener(path, Duration::from_secs(3600)));
        let slow = listener("unix:/run/d", Duration::from_millis(7));
        let make = || Numbers {
            to: &["/run/a", "/run/b", "/run/c", "/run/d"],
            heard: Arc::default(),
            pauses: None,
        };
        // Half of it for the four, of which each has as much as is left.
        let options = DatagramOptions::new().queue_max(2 * 5 * 200 * 70);
        system
            .bind_datagram_with("unix:/run/from", options, make)
            .unwrap();
        let all = || slow.lock().unwrap().len() == 200;
        simulation.run_until(Duration::from_secs(300), |_| all());
        assert!(slow.lock().unwrap().iter().copied().eq(0..200));
        for heard in &stuck {
            assert!(heard.lock().unwrap().len() < 20);
        }
        simulation.finish(Duration::from_secs(5));
    });
}

/// Sends to `/run/stuck` as long as it is taken, and again as often as it is told of room.
struct Insists {
    told: Arc<AtomicU64>,
}

impl Insists {
    fn fill(&self, ctx: &mut Context<'_, Self>) {
        while ctx.send_to(std::path::Path::new("/run/stuck"), [b'0'; 100]) {}
    }
}

impl Actor for Insists {
    type Message = ();

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        self.fill(ctx);
        Ok(())
    }

    fn drained(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        self.told.fetch_add(1, Ordering::Relaxed);
        self.fill(ctx);
        Ok(())
    }
}

#[test]
fn who_insists_on_one_that_never_reads_does_not_spin() {
    for_each_seed(10, |simulation| {
        let system = simulation.system(System::builder().pollers(1));
        let make = || Numbers {
            to: &[],
            heard: Arc::default(),
            pauses: Some(Duration::from_secs(3600)),
        };
        system.bind_datagram("unix:/run/stuck", make).unwrap();
        let told = Arc::new(AtomicU64::new(0));
        let here = told.clone();
        let make = move || Insists { told: here.clone() };
        let options = DatagramOptions::new().queue_max(1 << 14);
        system
            .bind_datagram_with("unix:/run/from", options, make)
            .unwrap();
        simulation.run_for(Duration::from_secs(10));
        let told = told.load(Ordering::Relaxed);
        assert!((1..1000).contains(&told), "told {told} times in 10 s");
        simulation.finish(Duration::from_secs(5));
    });
}

/// Sends small ones, and then one for which there is no room beside those.
struct Large {
    taken: Arc<AtomicU64>,
}

impl Large {
    fn send(&self, ctx: &mut Context<'_, Self>) {
        let taken = ctx.send_to(std::path::Path::new("/run/slow"), [b'0'; 14_000]);
        self.taken.fetch_add(u64::from(taken), Ordering::Relaxed);
    }
}

impl Actor for Large {
    type Message = ();

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        for n in 0..50_u64 {
            assert!(ctx.send_to(std::path::Path::new("/run/slow"), n.to_string()));
        }
        ctx.set_timer(Duration::from_millis(1));
        Ok(())
    }

    fn timer(&mut self, _: TimerKey, ctx: &mut Context<'_, Self>) -> Outcome {
        self.send(ctx);
        assert_eq!(self.taken.load(Ordering::Relaxed), 0, "others wait");
        Ok(())
    }

    fn drained(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        self.send(ctx);
        Ok(())
    }
}

#[test]
fn a_large_one_is_taken_when_the_receivers_that_took_nothing_have_read() {
    for_each_seed(10, |simulation| {
        let system = simulation.system(System::builder().pollers(1));
        let make = || Numbers {
            to: &[],
            heard: Arc::default(),
            pauses: Some(Duration::from_millis(50)),
        };
        system.bind_datagram("unix:/run/slow", make).unwrap();
        let taken = Arc::new(AtomicU64::new(0));
        let here = taken.clone();
        let make = move || Large {
            taken: here.clone(),
        };
        let options = DatagramOptions::new().queue_max(1 << 14);
        system
            .bind_datagram_with("unix:/run/from", options, make)
            .unwrap();
        simulation.run_until(Duration::from_secs(60), |_| {
            taken.load(Ordering::Relaxed) > 0
        });
        assert_eq!(taken.load(Ordering::Relaxed), 1);
        simulation.finish(Duration::from_secs(5));
    });
}

/// The same actor on a stage: one datagram after the other, the peers played by the test.
#[test]
fn an_actor_with_datagrams_is_tested_on_a_stage() {
    struct Pausing(Rc<RefCell<Vec<String>>>);

    impl Actor for Pausing {
        type Message = String;

        fn datagram(&mut self, datagram: Datagram<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
            let text = std::str::from_utf8(datagram.bytes())?.to_owned();
            if text == "pause" {
                ctx.pause();
            }
            self.0.borrow_mut().push(text);
            Ok(())
        }

        fn message(&mut self, to: String, ctx: &mut Context<'_, Self>) -> Outcome {
            ctx.resume();
            ctx.send_to(to.parse::<SocketAddr>()?, "resumed");
            Ok(())
        }
    }

    let heard = Rc::new(RefCell::new(Vec::new()));
    let mut stage = Stage::with_datagrams(Pausing(heard.clone()), DatagramOptions::new());
    let peer: SocketAddr = "192.0.2.1:7".parse().unwrap();
    for text in ["one", "pause", "two"] {
        stage.receive_datagram(peer, text);
    }
    assert_eq!(*heard.borrow(), ["one", "pause"]);
    stage.send("192.0.2.2:8".to_owned());
    assert_eq!(*heard.borrow(), ["one", "pause", "two"]);
    let to: DatagramAddr = "192.0.2.2:8".parse().unwrap();
    assert_eq!(stage.sent_datagrams(), [(to, "resumed".into())]);
    stage.send("not an address".to_owned());
    assert!(matches!(stage.reason(), Some(CloseReason::Error(_))));
    assert_eq!(stage.stats().datagrams_received, 3);
}
