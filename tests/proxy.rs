//! The example `proxy`: what goes in comes out, whoever is slow holds back the other, and clients
//! find an upstream that is up.

#[path = "util/process.rs"]
mod process;
#[allow(dead_code, reason = "its main is not run here")]
#[path = "../examples/proxy/main.rs"]
mod proxy;
mod util;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use greenroom::testing::{Fault, Faults, for_each_seed};
use greenroom::*;

use proxy::upstreams::{Balance, Upstreams};
use util::{TIMEOUT, TempDir, half_close, pattern, read, read_to_end, tcp_addr, wait_until};

/// Often enough that a test waits for nothing else.
const CHECK: Duration = Duration::from_millis(20);

struct Proxy {
    system: System,
    listener: Listener,
    upstreams: Arc<Upstreams>,
}

impl Proxy {
    fn to(remotes: Vec<Remote>, balance: Balance, check: Duration) -> Proxy {
        let system = System::builder().pollers(2).build().unwrap();
        let upstreams = Arc::new(Upstreams::new(remotes, balance));
        let listener = proxy::serve(&system, "127.0.0.1:0", &upstreams, check).unwrap();
        Proxy {
            system,
            listener,
            upstreams,
        }
    }

    fn connect(&self) -> TcpStream {
        let client = TcpStream::connect(tcp_addr(&self.listener)).unwrap();
        client.set_read_timeout(Some(TIMEOUT)).unwrap();
        client.set_write_timeout(Some(TIMEOUT)).unwrap();
        client
    }
}

fn listener() -> (TcpListener, Remote) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr.into())
}

/// One upstream that does with each connection what `serve` does.
fn upstream(serve: impl Fn(TcpStream) + Clone + Send + 'static) -> Remote {
    let (listener, remote) = listener();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let serve = serve.clone();
            thread::spawn(move || serve(stream));
        }
    });
    remote
}

fn echo(mut stream: TcpStream) {
    let mut writes = stream.try_clone().unwrap();
    let _ = std::io::copy(&mut stream, &mut writes);
    let _ = writes.shutdown(Shutdown::Write);
}

/// An address where nobody listens.
fn nobody() -> SocketAddr {
    let (listener, _) = listener();
    listener.local_addr().unwrap()
}

#[test]
fn megabytes_both_ways_at_once_are_whole_and_in_order() {
    let proxy = Proxy::to(vec![upstream(echo)], Balance::RoundRobin, CHECK);
    let client = proxy.connect();
    let sent = pattern(8 << 20);
    let mut writes = client.try_clone().unwrap();
    let copy = sent.clone();
    let writer = thread::spawn(move || {
        writes.write_all(&copy).unwrap();
        half_close(&writes);
    });
    assert!(
        read_to_end(&client) == sent,
        "what came back is what was sent"
    );
    writer.join().unwrap();
}

#[test]
fn either_side_may_end_its_stream_and_hear_the_other_to_its_end() {
    // Says something only when it has heard all.
    let last = upstream(|mut stream| {
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).unwrap();
        stream.write_all(&heard).unwrap();
    });
    let proxy = Proxy::to(vec![last], Balance::RoundRobin, CHECK);
    let mut client = proxy.connect();
    client.write_all(b"all that there is").unwrap();
    half_close(&client);
    assert_eq!(read_to_end(&client), b"all that there is");

    // Says all at once, ends, and then listens.
    let (heard, hears) = std::sync::mpsc::channel();
    let first = upstream(move |mut stream| {
        stream.write_all(b"that is all").unwrap();
        half_close(&stream);
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        heard.send(rest).unwrap();
    });
    let proxy = Proxy::to(vec![first], Balance::RoundRobin, CHECK);
    let mut client = proxy.connect();
    assert_eq!(read_to_end(&client), b"that is all");
    client.write_all(b"and still I speak").unwrap();
    drop(client);
    assert_eq!(util::next(&hears), b"and still I speak");
}

#[test]
fn a_cut_stream_does_not_look_whole() {
    let cuts = upstream(|mut stream| {
        stream.write_all(b"half of").unwrap();
        let mut word = [0; 2];
        stream.read_exact(&mut word).unwrap();
        util::reset(stream);
    });
    let proxy = Proxy::to(vec![cuts], Balance::RoundRobin, CHECK);
    let mut client = proxy.connect();
    assert_eq!(read(&client, 7), b"half of");
    client.write_all(b"ok").unwrap();
    let error = client.read(&mut [0; 8]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[test]
fn an_upstream_that_is_down_is_passed_over_until_it_is_up_again() {
    let addr = nobody();
    let remotes = vec![addr.into(), upstream(echo)];
    let proxy = Proxy::to(remotes, Balance::RoundRobin, CHECK);
    for _ in 0..10 {
        let mut client = proxy.connect();
        client.write_all(b"hello").unwrap();
        assert_eq!(read(&client, 5), b"hello");
    }
    wait_until("a connect has shown that it is down", || {
        !proxy.upstreams.is_up(0)
    });
    let back = TcpListener::bind(addr).unwrap();
    thread::spawn(move || {
        for stream in back.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                let _ = (&stream).write_all(b"I am back");
                echo(stream);
            });
        }
    });
    wait_until("a check has found it up", || proxy.upstreams.is_up(0));
    wait_until("it serves a client", || {
        let mut client = proxy.connect();
        client.write_all(b"who?").unwrap();
        read(&client, 4) == b"I am"
    });
}

#[test]
fn without_an_upstream_a_client_is_reset() {
    let remotes = vec![nobody().into(), nobody().into()];
    let proxy = Proxy::to(remotes, Balance::LeastConnections, CHECK);
    for _ in 0..3 {
        let error = proxy.connect().read(&mut [0; 1]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
}

#[test]
fn clients_are_spread_in_turn_or_by_load() {
    for balance in [Balance::RoundRobin, Balance::LeastConnections] {
        let remotes = vec![upstream(echo), upstream(echo)];
        let proxy = Proxy::to(remotes, balance, Duration::from_secs(60));
        let mut clients = Vec::new();
        for _ in 0..20 {
            let mut client = proxy.connect();
            client.write_all(b"x").unwrap();
            assert_eq!(read(&client, 1), b"x");
            clients.push(client);
        }
        let counts = [0, 1].map(|at| proxy.upstreams.connections(at));
        assert_eq!(counts, [10, 10], "{balance:?}");
        drop(clients);
        wait_until("all have left", || {
            [0, 1].map(|at| proxy.upstreams.connections(at)) == [0, 0]
        });
    }
}

/// More than any kernel holds between three processes, some MiB each.
const FLOOD: usize = 256 << 20;

#[test]
fn who_does_not_read_holds_the_other_side_back_and_memory_stays_flat() {
    for from_upstream in [true, false] {
        let (told, tells) = std::sync::mpsc::channel();
        // Sends until it is held back, and says how far it came; then sends the rest.
        let flood = move |stream: TcpStream| {
            stream.set_nonblocking(true).unwrap();
            let piece = vec![7; 64 << 10];
            let (mut sent, mut is_told) = (0, false);
            let mut idle = 0;
            while sent < FLOOD {
                match (&stream).write(&piece[..piece.len().min(FLOOD - sent)]) {
                    Ok(n) => (sent, idle) = (sent + n, 0),
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                        idle += 1;
                        // Held back for as long as everybody had time to take more.
                        if idle == 100 && !is_told {
                            told.send(sent).unwrap();
                            is_told = true;
                        }
                        thread::park_timeout(Duration::from_millis(5));
                    }
                    Err(error) => panic!("after {sent}: {error}"),
                }
            }
            half_close(&stream);
        };
        let (held, hold) = std::sync::mpsc::channel::<TcpStream>();
        let remote = match from_upstream {
            true => upstream(flood.clone()),
            false => upstream(move |stream| held.send(stream).unwrap()),
        };
        let proxy = Proxy::to(vec![remote], Balance::RoundRobin, Duration::from_secs(600));
        let client = proxy.connect();
        let slow = match from_upstream {
            true => client,
            false => {
                thread::spawn(move || flood(client));
                // The check comes first, and ends at once.
                loop {
                    let stream = util::next(&hold);
                    if stream.peek(&mut [0; 1]).is_ok_and(|n| n > 0) {
                        break stream;
                    }
                }
            }
        };
        let sent = util::next(&tells);
        assert!(sent < FLOOD / 2, "it was held back after {sent} bytes");
        let waiting = proxy.system.stats().output_waiting as usize;
        let most = proxy::side::WINDOW + (64 << 10);
        assert!(waiting <= most, "{waiting} bytes wait where {most} may");
        assert!(waiting > 0, "it is the window that holds it back");

        slow.set_nonblocking(false).unwrap();
        slow.set_read_timeout(Some(TIMEOUT)).unwrap();
        assert_eq!(
            read_to_end(&slow).len(),
            FLOOD,
            "all of it comes in the end"
        );
    }
}

#[test]
fn pairs_that_have_gone_leave_nothing_behind() {
    util::in_child("pairs_that_have_gone_leave_nothing_behind", 1024, || {
        let proxy = Proxy::to(vec![upstream(echo)], Balance::RoundRobin, CHECK * 50);
        for round in 0..500 {
            let mut client = proxy.connect();
            client.write_all(b"x").unwrap();
            assert_eq!(read(&client, 1), b"x");
            if round % 2 == 0 {
                util::reset(client);
            }
        }
        wait_until("all are closed", || {
            proxy.upstreams.connections(0) == 0 && proxy.listener.connections() == 0
        });
    });
}

#[test]
fn a_stop_lets_pairs_end_and_resets_the_others_at_its_deadline() {
    let proxy = Proxy::to(vec![upstream(echo)], Balance::RoundRobin, CHECK);
    let (mut ends, mut stays) = (proxy.connect(), proxy.connect());
    for client in [&mut ends, &mut stays] {
        client.write_all(b"x").unwrap();
        assert_eq!(read(&*client, 1), b"x");
    }
    let stop = proxy.system.handle();
    stop.stop(Duration::from_secs(2));
    ends.write_all(b"the last word").unwrap();
    half_close(&ends);
    assert_eq!(read_to_end(&ends), b"the last word");
    proxy.system.run().unwrap();
    assert!(stays.read(&mut [0; 1]).is_err(), "a reset, not an end");
}

#[test]
fn over_unix_sockets_it_is_the_same() {
    let dir = TempDir::new();
    let path = dir.path().join("upstream.sock");
    let upstream = System::builder().pollers(1).build().unwrap();
    upstream.listen(path.as_path(), |_| Echo).unwrap();
    let proxy = Proxy::to(vec![Remote::Unix(path)], Balance::RoundRobin, CHECK);
    let mut client = proxy.connect();
    client.write_all(b"hello").unwrap();
    assert_eq!(read(&client, 5), b"hello");
}

struct Echo;

impl Actor for Echo {
    type Message = ();

    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.write(input.take_all());
        Ok(())
    }
}

#[test]
fn as_a_program_it_says_what_to_do_next_and_what_is_wrong() {
    let addr = match upstream(echo) {
        Remote::Tcp(addr) => addr.to_string(),
        other => panic!("{other} is no TCP address"),
    };
    let program = process::Example::start("proxy", &["--upstream", &addr]);
    assert!(program.start_line.contains(&addr), "{}", program.start_line);
    let mut client = program.connect();
    client.say("hello");
    client.expect("hello");
    drop(client);
    program.signal("TERM");
    assert_eq!(program.last_line(), "stopped after 1 connections");

    let fails = |args: &[&str], needle: &str| {
        let program = process::program("proxy");
        let output = std::process::Command::new(program).args(args).output();
        let output = output.unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && error.contains(needle),
            "{error}"
        );
        assert!(!error.contains("panicked"), "{error}");
    };
    fails(&[], "--upstream");
    fails(&["--upstream", "nowhere"], "nowhere");
    fails(&["--upstream", &addr, "--check", "0"], "--check");
    fails(&["--upstream", &addr, "--addr", "nonsense"], "nonsense");
}

/// Whatever is slow, cut in pieces or stalled: each client hears what it said, and the ends.
#[test]
fn no_seed_loses_a_byte() {
    for_each_seed(100, |simulation| {
        simulation.faults(Faults::harmless());
        let upstream = simulation.system(System::builder().name("upstream"));
        upstream.listen("10.0.0.1:80", |_| Echo).unwrap();
        upstream.listen("10.0.0.2:80", |_| Echo).unwrap();
        let system = simulation.system(System::builder().name("proxy").pollers(2));
        let remotes = ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"];
        let remotes = remotes.map(|addr| addr.parse().unwrap()).into();
        let upstreams = Arc::new(Upstreams::new(remotes, Balance::RoundRobin));
        proxy::serve(&system, "10.0.0.9:80", &upstreams, Duration::from_secs(1)).unwrap();
        let clients: Vec<_> = (0..6).map(|_| simulation.client("10.0.0.9:80")).collect();
        for (n, client) in clients.iter().enumerate() {
            client.send(format!("client {n} says\n"));
        }
        for (n, client) in clients.iter().enumerate() {
            assert_eq!(client.line(simulation), format!("client {n} says"));
            client.send(format!("{n} again\n"));
        }
        for (n, client) in clients.iter().enumerate() {
            assert_eq!(client.line(simulation), format!("{n} again"));
        }
    });
}

/// As many pairs as that find no room, on one poller: each stream comes whole, and so does its end.
#[test]
fn a_full_mailbox_loses_neither_bytes_nor_ends() {
    for_each_seed(60, |simulation| {
        // One that is lost may take longer than a check, and then nobody is let in.
        simulation.faults(Faults::harmless().without(Fault::LostConnect));
        let upstream = simulation.system(System::builder().name("upstream"));
        upstream.listen("10.0.0.1:80", |_| Echo).unwrap();
        let bound = simulation.random().range(2..5) as usize;
        let builder = System::builder().name("proxy").pollers(1);
        let system = simulation.system(builder.mailbox_bound(bound));
        let remotes = vec!["10.0.0.1:80".parse().unwrap()];
        let upstreams = Arc::new(Upstreams::new(remotes, Balance::RoundRobin));
        proxy::serve(&system, "10.0.0.9:80", &upstreams, Duration::from_secs(60)).unwrap();
        let clients: Vec<_> = (0..12).map(|_| simulation.client("10.0.0.9:80")).collect();
        let says: Vec<_> = (0..12).map(|n| pattern(n * 1_500)).collect();
        for (client, says) in clients.iter().zip(&says) {
            for part in says.chunks(500) {
                client.send(part);
            }
            client.half_close();
        }
        for (client, says) in clients.iter().zip(&says) {
            assert!(client.rest(simulation) == says[..], "something is missing");
            assert!(!client.is_reset(), "the end is one of a whole stream");
        }
        simulation.run_until(TIMEOUT, |_| upstreams.connections(0) == 0);
    });
}

/// Whatever is lost or cut on the way: a stream that ends in order is whole.
#[test]
fn no_seed_has_a_cut_stream_look_whole() {
    let whole = std::cell::Cell::new(0);
    let cut = std::cell::Cell::new(0);
    for_each_seed(100, |simulation| {
        let upstream = simulation.system(System::builder().name("upstream"));
        upstream.listen("10.0.0.1:80", |_| Echo).unwrap();
        let system = simulation.system(System::builder().name("proxy").pollers(2));
        let remotes = vec!["10.0.0.1:80".parse().unwrap()];
        let upstreams = Arc::new(Upstreams::new(remotes, Balance::RoundRobin));
        proxy::serve(&system, "10.0.0.9:80", &upstreams, Duration::from_secs(1)).unwrap();
        // Who has heard nothing for a minute is closed in order, whatever was on its way.
        let faults = Faults::all().without(Fault::Die).without(Fault::Freeze);
        simulation.faults(faults);
        let clients: Vec<_> = (0..8).map(|_| simulation.client("10.0.0.9:80")).collect();
        let says: Vec<_> = (0..8).map(|n| pattern(10_000 + n * 1_500)).collect();
        for (client, says) in clients.iter().zip(&says) {
            for part in says.chunks(2_000) {
                client.send(part);
            }
            client.half_close();
        }
        for (client, says) in clients.iter().zip(&says) {
            let heard = client.rest(simulation);
            if client.is_reset() || client.is_refused() {
                assert!(says.starts_with(&heard), "what came is the beginning");
                cut.set(cut.get() + 1);
            } else {
                assert!(heard == says[..], "{} of {} bytes", heard.len(), says.len());
                whole.set(whole.get() + 1);
            }
        }
        simulation.heal();
        simulation.run_until(TIMEOUT, |_| upstreams.connections(0) == 0);
    });
    if std::env::var_os("GREENROOM_SEED").is_none() {
        assert!(whole.get() > 100 && cut.get() > 100, "{whole:?} {cut:?}");
    }
}
