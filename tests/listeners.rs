//! What can be listened on, by whom, and where the connections go.

mod util;

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;

use greenroom::*;
use util::*;

/// Sends all back, behind a word of its own.
struct Echo(&'static str);

impl Actor for Echo {
    type Message = ();

    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.write_parts(&[self.0.as_bytes(), input.take_all()]);
        Ok(())
    }
}

/// Of another type, with another message.
struct Reverse;

impl Actor for Reverse {
    type Message = String;

    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        let mut bytes = input.take_all().to_vec();
        bytes.reverse();
        ctx.write(bytes);
        Ok(())
    }
}

/// Tells how it sees the connection.
struct Addresses;

impl Actor for Addresses {
    type Message = ();

    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        input.take_all();
        let (peer, local) = (ctx.peer(), ctx.local_addr());
        if let (Some(peer), Some(local)) = (peer, local) {
            ctx.write(format!("{peer} {local}"));
            ctx.close();
        } else {
            ctx.set_timer(std::time::Duration::ZERO);
        }
        Ok(())
    }

    fn timer(&mut self, _key: TimerKey, ctx: &mut Context<'_, Self>) -> Outcome {
        let (peer, local) = (ctx.peer(), ctx.local_addr());
        if let (Some(peer), Some(local)) = (peer, local) {
            ctx.write(format!("{peer} {local}"));
            ctx.close();
        }
        Ok(())
    }
}

fn ask(mut client: TcpStream, question: &[u8], len: usize) -> Vec<u8> {
    client.write_all(question).unwrap();
    read(client, len)
}

#[test]
fn several_listeners_with_actors_of_different_types_serve_in_one_system() {
    let dir = TempDir::new();
    let path = dir.join("socket");
    let system = builder(2).build().unwrap();
    let one = system.listen("127.0.0.1:0", |_| Echo("one ")).unwrap();
    let two = system.listen("127.0.0.1:0", |_| Echo("two ")).unwrap();
    let reverse = system.listen("127.0.0.1:0", |_| Reverse).unwrap();
    let unix = system.listen(path.as_path(), |_| Echo("unix ")).unwrap();
    for _ in 0..5 {
        assert_eq!(ask(connect(&one), b"x", 5), b"one x");
        assert_eq!(ask(connect(&two), b"y", 5), b"two y");
        assert_eq!(ask(connect(&reverse), b"abc", 3), b"cba");
        let mut client = UnixStream::connect(&path).unwrap();
        client.set_read_timeout(Some(TIMEOUT)).unwrap();
        client.write_all(b"z").unwrap();
        assert_eq!(read(client, 6), b"unix z");
    }
    one.close();
    two.close();
    unix.close();
    wait_until("the file of the socket is removed", || !path.exists());
    assert_eq!(ask(connect(&reverse), b"abc", 3), b"cba");
}

#[test]
fn addresses_are_told_for_ipv4() {
    let system = builder(1).build().unwrap();
    for endpoint in ["127.0.0.1:0", "0.0.0.0:0"] {
        let listener = system.listen(endpoint, |_| Addresses).unwrap();
        let client = TcpStream::connect(("127.0.0.1", tcp_addr(&listener).port())).unwrap();
        let expected = format!(
            "{} {}",
            client.local_addr().unwrap(),
            client.peer_addr().unwrap()
        );
        assert_eq!(ask(client, b"?", expected.len()), expected.as_bytes());
    }
}

#[test]
fn addresses_are_told_for_ipv6() {
    if TcpStream::connect("[::1]:1")
        .is_err_and(|error| error.raw_os_error() == Some(libc::EADDRNOTAVAIL))
        || std::net::TcpListener::bind("[::1]:0").is_err()
    {
        println!("skipped: there is no IPv6 here");
        return;
    }
    let system = builder(1).build().unwrap();
    for endpoint in ["[::1]:0", "[::]:0"] {
        let listener = system.listen(endpoint, |_| Addresses).unwrap();
        let clients: Vec<_> = (0..3)
            .map(|_| TcpStream::connect(("::1", tcp_addr(&listener).port())).unwrap())
            .collect();
        for client in clients {
            let expected = format!(
                "{} {}",
                client.local_addr().unwrap(),
                client.peer_addr().unwrap()
            );
            assert_eq!(ask(client, b"?", expected.len()), expected.as_bytes());
        }
    }
}

#[test]
fn the_factory_is_given_the_peers_address() {
    let (sender, peers) = std::sync::mpsc::channel();
    let system = builder(1).build().unwrap();
    let listener = system
        .listen("127.0.0.1:0", move |peer| {
            let _ = sender.send(peer);
            Reverse
        })
        .unwrap();
    let client = connect(&listener);
    assert_eq!(next(&peers), Peer::Tcp(client.local_addr().unwrap()));
    let dir = TempDir::new();
    let path = dir.join("socket");
    let (sender, peers) = std::sync::mpsc::channel();
    let make = move |peer| {
        let _ = sender.send(peer);
        Reverse
    };
    let _listener = system.listen(path.as_path(), make).unwrap();
    let _client = UnixStream::connect(&path).unwrap();
    assert_eq!(next(&peers), Peer::Unix);
}

#[test]
fn an_address_in_use_is_an_error_that_names_it() {
    let system = builder(2).build().unwrap();
    let options = |balance| ListenOptions::new().balance(balance);
    let balances = [Balance::LeastConnections, Balance::PerPoller];
    for (first, second) in balances
        .iter()
        .flat_map(|b| balances.map(|other| (*b, other)))
    {
        let listen =
            |at: SocketAddr, balance| system.listen_with(at, options(balance), |_| Reverse);
        let listener = listen("127.0.0.1:0".parse().unwrap(), first).unwrap();
        let addr = tcp_addr(&listener);
        // Also where both spread their connects over sockets that share the port.
        let error = listen(addr, second).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
        assert!(error.to_string().contains(&addr.to_string()), "{error}");
    }
    assert!(system.listen("no address", |_| Reverse).is_err());
}

/// On which pollers `count` clients in a row end up.
fn spread(
    balance: Balance,
    pollers: usize,
    count: usize,
) -> (Stage, Vec<(TcpStream, Seen)>, Vec<usize>) {
    let stage = Stage::listen(
        builder(pollers),
        "127.0.0.1:0",
        ListenOptions::new().balance(balance),
        |probe| probe,
    );
    let pairs: Vec<_> = (0..count).map(|_| stage.pair()).collect();
    let mut counts = vec![0; pollers];
    for (_, seen) in &pairs {
        counts[seen.addr.poller()] += 1;
    }
    (stage, pairs, counts)
}

#[test]
fn round_robin_gives_the_pollers_connections_in_turn() {
    let (_stage, pairs, _) = spread(Balance::RoundRobin, 3, 12);
    let first = pairs[0].1.addr.poller();
    for (at, (_, seen)) in pairs.iter().enumerate() {
        assert_eq!(seen.addr.poller(), (first + at) % 3);
    }
}

#[test]
fn least_connections_fills_up_the_poller_that_has_the_fewest() {
    let (stage, mut pairs, counts) = spread(Balance::LeastConnections, 3, 12);
    assert_eq!(counts, [4, 4, 4]);
    // All of one poller leave, and those who come take their places.
    let leaving: Vec<_> = pairs
        .extract_if(.., |(_, seen)| seen.addr.poller() == 1)
        .collect();
    drop(leaving);
    wait_until("they have left", || stage.system.stats().connections == 8);
    for _ in 0..4 {
        pairs.push(stage.pair());
        assert_eq!(pairs.last().unwrap().1.addr.poller(), 1);
    }
}

#[test]
fn every_poller_accepts_for_itself_with_reuse_port() {
    let (stage, pairs, counts) = spread(Balance::PerPoller, 2, 64);
    assert!(
        counts.iter().all(|count| *count > 0),
        "a fair coin would do this once in 2^63: {counts:?}"
    );
    for (mut client, seen) in pairs {
        client.write_all(b"x").unwrap();
        assert_eq!(seen.read(1), b"x");
    }
    wait_until("all is over", || stage.is_over());
}

#[test]
fn a_unix_socket_cannot_be_accepted_from_per_poller_and_that_is_said() {
    let system = builder(1).build().unwrap();
    let options = ListenOptions::new().balance(Balance::PerPoller);
    let error = system
        .listen_with("unix:/tmp/greenroom-never", options, |_| Reverse)
        .unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
}

#[test]
fn a_listener_that_closes_accepts_its_backlog_first() {
    for balance in [Balance::LeastConnections, Balance::PerPoller] {
        let options = ListenOptions::new().balance(balance);
        let stage = Stage::listen(builder(1), "127.0.0.1:0", options, |probe| {
            probe.on_readable(|input, ctx| {
                ctx.write(input.take_all());
                Ok(())
            })
        });
        let (_client, seen) = stage.pair();
        let held = hold(&seen);
        let mut waiting: Vec<_> = (0..300).map(|_| stage.client()).collect();
        stage.listener.close();
        stage.listener.close();
        drop(held);
        for client in &mut waiting {
            client.write_all(b"served?").unwrap();
            assert_eq!(read(client, 7), b"served?");
        }
        // And nobody is accepted from then on.
        assert!(TcpStream::connect(tcp_addr(&stage.listener)).is_err());
    }
}
