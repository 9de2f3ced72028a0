//! What connections share, over real sockets: the values of their poller, and services of their
//! system, which are found by name, made anew after a panic, and known to have gone.

mod util;

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::mpsc::channel;
use std::time::Duration;

use greenroom::*;
use util::*;

struct Client(BufReader<TcpStream>);

impl Client {
    fn to(listener: &Listener) -> Client {
        Client(BufReader::new(connect(listener)))
    }

    fn say(&mut self, line: &str) {
        let line = format!("{line}\n");
        self.0.get_mut().write_all(line.as_bytes()).unwrap();
    }

    #[track_caller]
    fn hears(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    #[track_caller]
    fn asks(&mut self, line: &str) -> String {
        self.say(line);
        self.hears()
    }
}

// ---- values, closures, ticks --------------------------------------------------------------------

/// The lines that the connections of one poller have sent since the last tick.
struct Lines(u64);

struct Counting;

impl Actor for Counting {
    type Message = ();

    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        while input.line(80)?.is_some() {
            let lines = ctx.local::<Lines>();
            lines.borrow_mut().0 += 1;
            ctx.write(format!("{} {}\n", ctx.poller(), lines.borrow().0));
        }
        Ok(())
    }
}

fn counting(system: &System) -> Listener {
    let options = ListenOptions::new().balance(Balance::RoundRobin);
    system
        .listen_with("127.0.0.1:0", options, |_| Counting)
        .unwrap()
}

#[test]
fn connections_of_a_poller_share_its_value_and_closures_see_it() {
    let system = builder(2).local(|_| Lines(0)).build().unwrap();
    let listener = counting(&system);
    let mut counts = [0, 0];
    for _ in 0..6 {
        let mut client = Client::to(&listener);
        for _ in 0..5 {
            let answer = client.asks("line");
            let (poller, count) = answer.split_once(' ').unwrap();
            let poller: usize = poller.parse().unwrap();
            counts[poller] += 1;
            assert_eq!(count, counts[poller].to_string());
        }
    }
    assert_eq!(counts, [15, 15], "in turn");
    let (said, seen) = channel();
    let refused = system.handle().run_on_all(move |poller| {
        let lines = poller.local::<Lines>();
        said.send((poller.poller(), lines.borrow().0)).unwrap();
    });
    assert!(refused.is_empty());
    for _ in 0..2 {
        let (poller, count) = next(&seen);
        assert_eq!(count, counts[poller]);
    }
}

#[test]
fn a_tick_of_each_poller_works_on_what_its_connections_share() {
    let (said, seen) = channel();
    let builder = builder(2).local(|_| Lines(0));
    let builder = builder.tick(Duration::from_millis(1), move |poller| {
        let count = std::mem::take(&mut poller.local::<Lines>().borrow_mut().0);
        if count > 0 {
            let _ = said.send((poller.poller(), count));
        }
    });
    let system = builder.build().unwrap();
    let listener = counting(&system);
    let mut clients = [Client::to(&listener), Client::to(&listener)];
    for client in &mut clients {
        (0..50).for_each(|_| client.say("line"));
        (0..50).for_each(|_| drop(client.hears()));
    }
    let mut counts = [0, 0];
    while counts != [50, 50] {
        let (poller, count) = next(&seen);
        counts[poller] += count;
        assert!(counts[poller] <= 50, "each is counted once");
    }
}

// ---- services -----------------------------------------------------------------------------------

/// What a service is told.
enum Order {
    Next(Reply<u32>),
    Panic,
}

/// Gives out numbers, from 1 on.
#[derive(Default)]
struct Numbers(u32);

impl Actor for Numbers {
    type Message = Order;

    fn message(&mut self, order: Order, _: &mut Context<'_, Self>) -> Outcome {
        match order {
            Order::Next(reply) => {
                self.0 += 1;
                // Whoever asked may have gone.
                let _ = reply.send(self.0);
            }
            Order::Panic => panic!("told to"),
        }
        Ok(())
    }
}

enum Word {
    Number(Result<u32, AskError>),
    Gone(Gone),
    Heard(String),
}

impl From<String> for Word {
    fn from(line: String) -> Word {
        Word::Heard(line)
    }
}

/// Uses the service, watches it, and is one of the group of all clients.
struct Front;

impl Actor for Front {
    type Message = Word;

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        let system = ctx.system();
        system.join_group::<String>("clients", ctx.addr())?;
        if let Some(numbers) = system.lookup::<Numbers>("numbers")? {
            ctx.monitor(&numbers, Word::Gone);
        }
        ctx.write("welcome\n");
        Ok(())
    }

    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        while let Some(line) = input.line(80)? {
            let system = ctx.system();
            if let Some(said) = line.strip_prefix(b"all ") {
                let said = String::from_utf8(said.to_vec())?;
                for client in system.members::<String>("clients")? {
                    // One may have gone a moment ago.
                    let _ = client.send(said.clone());
                }
                continue;
            }
            let Some(numbers) = system.lookup::<Numbers>("numbers")? else {
                ctx.write("none\n");
                continue;
            };
            match line {
                b"number" => ctx.ask(&numbers, TIMEOUT, Order::Next, Word::Number),
                _ => numbers.send(Order::Panic)?,
            }
        }
        Ok(())
    }

    fn message(&mut self, word: Word, ctx: &mut Context<'_, Self>) -> Outcome {
        match word {
            Word::Number(number) => ctx.write(format!("{}\n", number?)),
            Word::Gone(gone) => ctx.write(format!("gone: {}\n", gone.reason.unwrap_or("before"))),
            Word::Heard(line) => ctx.write(format!("{line}\n")),
        };
        Ok(())
    }
}

#[test]
fn a_service_is_found_by_its_name_made_anew_after_a_panic_and_known_to_have_gone() {
    let system = builder(2).build().unwrap();
    let handle = system.handle();
    let restart = Restart::new()
        .at_most(2, TIMEOUT)
        .backoff(Duration::from_millis(1), Duration::from_millis(1));
    let numbers = handle.supervise(restart, Numbers::default);
    handle.register("numbers", &numbers).unwrap();
    let listener = system.listen("127.0.0.1:0", |_| Front).unwrap();
    let mut clients: Vec<_> = (0..3).map(|_| Client::to(&listener)).collect();
    for client in &mut clients {
        assert_eq!(client.hears(), "welcome");
    }
    for restarts in 0..=2 {
        // Each new one begins anew. What it is asked before it is there waits for it.
        assert_eq!(clients[0].asks("number"), "1");
        assert_eq!(clients[1].asks("number"), "2");
        assert_eq!(system.stats().restarts, restarts);
        clients[0].say("panic");
        // On the way to the service behind the panic.
        wait_until("it has panicked", || system.stats().panics == restarts + 1);
    }
    for client in &mut clients {
        assert_eq!(client.hears(), "gone: panicked");
        assert_eq!(client.asks("number"), "none");
    }
    let stats = system.stats();
    assert_eq!((stats.closed, stats.connections), (1, 3), "they go on");
}

#[test]
fn all_clients_are_a_group_that_whoever_goes_leaves() {
    let system = builder(2).build().unwrap();
    let listener = system.listen("127.0.0.1:0", |_| Front).unwrap();
    let mut clients: Vec<_> = (0..4).map(|_| Client::to(&listener)).collect();
    for client in &mut clients {
        assert_eq!(client.hears(), "welcome");
    }
    clients[0].say("all hello");
    for client in &mut clients {
        assert_eq!(client.hears(), "hello");
    }
    assert_eq!(clients[1].asks("number"), "none");
    let size = || system.handle().members::<String>("clients").unwrap().len();
    drop(clients.pop());
    wait_until("it has left", || size() == 3);
    clients[2].say("all bye");
    for client in &mut clients {
        assert_eq!(client.hears(), "bye");
    }
    drop(clients);
    wait_until("the group has gone", || system.handle().groups().is_empty());
    assert_eq!(system.stats().dead_letters, 0);
}
