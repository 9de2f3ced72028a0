//! Listeners behind proxies: the actor is made for the client that the header names, is given every
//! byte behind it and none of it, and for whoever has no good header none is made.

mod util;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use greenroom::testing::{Fault, Faults, Simulation, for_each_seed, note};
use greenroom::*;
use util::*;

const V1: &[u8] = b"PROXY TCP4 192.0.2.7 198.51.100.1 4660 80\r\n";

/// A header of version 2: command and version, family and protocol, and the rest.
fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let mut bytes = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    bytes.extend([command, family]);
    bytes.extend((rest.len() as u16).to_be_bytes());
    bytes.extend(rest);
    bytes
}

fn over_v4() -> Vec<u8> {
    v2(
        0x21,
        0x11,
        &[192, 0, 2, 7, 198, 51, 100, 1, 0x12, 0x34, 0, 80],
    )
}

fn over_v6() -> Vec<u8> {
    let mut rest = [0; 40];
    rest[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
    rest[15] = 9;
    rest[32..34].copy_from_slice(&443_u16.to_be_bytes());
    // Something added.
    rest[36..].copy_from_slice(&[0x04, 0, 1, 7]);
    v2(0x21, 0x21, &rest)
}

fn peer(text: &str) -> Peer {
    Peer::Tcp(text.parse().unwrap())
}

/// Echoes, and tells for whom it was made, and opened.
struct Echo {
    made_for: Peer,
    opened: Sender<(Peer, Option<Peer>)>,
}

impl Actor for Echo {
    type Message = ();

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        let _ = self.opened.send((self.made_for, ctx.peer()));
        Ok(())
    }

    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.write(input.take_all());
        Ok(())
    }
}

struct Server {
    system: System,
    listener: Listener,
    opened: Receiver<(Peer, Option<Peer>)>,
}

impl Server {
    fn new(proxies: ProxyProtocol) -> Server {
        Server::listen("127.0.0.1:0", ListenOptions::new().proxy_protocol(proxies))
    }

    fn listen(endpoint: &str, options: ListenOptions) -> Server {
        let system = builder(1).build().unwrap();
        let (opening, opened) = channel();
        let make = move |made_for| Echo {
            made_for,
            opened: opening.clone(),
        };
        let listener = system.listen_with(endpoint, options, make).unwrap();
        Server {
            system,
            listener,
            opened,
        }
    }

    fn client(&self) -> TcpStream {
        connect(&self.listener)
    }

    /// The peer that the next actor was made for and has.
    #[track_caller]
    fn peer(&self) -> Peer {
        let (made_for, has) = next(&self.opened);
        assert_eq!(has, Some(made_for));
        made_for
    }

    #[track_caller]
    fn assert_refused(&self, mut client: TcpStream, times: u64) {
        match client.read(&mut [0; 1]) {
            Ok(0) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            other => panic!("it is closed, not {other:?}"),
        }
        let stats = self.system.stats();
        assert_eq!((stats.headers_refused, stats.opened), (times, 0));
        assert!(self.opened.try_recv().is_err());
        wait_until("its place is free", || self.listener.connections() == 0);
    }
}

fn loopback() -> ProxyProtocol {
    ProxyProtocol::trusting(["127.0.0.0/8", "::1"]).unwrap()
}

fn own_addr(client: &TcpStream) -> Peer {
    Peer::Tcp(client.local_addr().unwrap())
}

#[test]
fn an_actor_is_made_for_the_client_and_gets_what_is_behind_the_header() {
    let server = Server::new(loopback());
    for (header, client) in [
        (V1.to_vec(), peer("192.0.2.7:4660")),
        (
            b"PROXY TCP6 2001:db8::9 ::1 443 80\r\n".to_vec(),
            peer("[2001:db8::9]:443"),
        ),
        (over_v4(), peer("192.0.2.7:4660")),
        (over_v6(), peer("[2001:db8::9]:443")),
        (v2(0x21, 0x31, &[b'/'; 216]), Peer::Unix),
        (
            b"PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n".to_vec(),
            peer("0.0.0.0:0"),
        ),
    ] {
        // In one segment, and apart; what follows may look like a header.
        for behind in [&b"hello"[..], V1] {
            let mut stream = server.client();
            stream.write_all(&[&header, behind].concat()).unwrap();
            assert_eq!(server.peer(), client);
            assert_eq!(read(&stream, behind.len()), behind);
            let mut stream = server.client();
            stream.write_all(&header).unwrap();
            assert_eq!(server.peer(), client);
            stream.write_all(behind).unwrap();
            assert_eq!(read(&stream, behind.len()), behind);
        }
    }
    assert_eq!(server.system.stats().headers_refused, 0);
}

#[test]
fn who_the_proxy_does_not_name_is_who_connected() {
    let server = Server::new(loopback());
    for header in [
        b"PROXY UNKNOWN\r\n".to_vec(),
        b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n".to_vec(),
        v2(0x20, 0x00, b""),
        v2(0x20, 0x11, &[1; 12]),
        v2(0x21, 0x00, b"whatever"),
    ] {
        let mut stream = server.client();
        stream.write_all(&[&header[..], b"x"].concat()).unwrap();
        assert_eq!(server.peer(), own_addr(&stream));
        assert_eq!(read(&stream, 1), b"x");
    }
}

#[test]
fn a_header_may_come_byte_by_byte_and_be_followed_by_any_number_of_bytes() {
    let server = Server::new(loopback());
    for header in [V1.to_vec(), over_v6()] {
        let mut stream = server.client();
        for byte in &header {
            stream.write_all(&[*byte]).unwrap();
            // Each has its turn, or some together: as the machine likes.
            server.system.handle().stats();
        }
        let bytes = pattern(100_000);
        let (mut writing, written) = (stream.try_clone().unwrap(), bytes.clone());
        let writer = std::thread::spawn(move || writing.write_all(&written));
        assert_same(&read(&stream, bytes.len()), &bytes);
        writer.join().unwrap().unwrap();
        server.peer();
    }
}

#[test]
fn a_header_from_where_nobody_is_trusted_is_not_believed() {
    let elsewhere = ProxyProtocol::trusting(["10.0.0.0/8"]).unwrap();
    let server = Server::new(elsewhere);
    for (times, bytes) in [(1, V1), (2, b"hello")] {
        let mut client = server.client();
        let _ = client.write_all(bytes);
        server.assert_refused(client, times);
    }
}

#[test]
fn a_direct_client_is_its_own_where_that_is_allowed() {
    let elsewhere = ProxyProtocol::trusting(["10.0.0.0/8"]).unwrap();
    let server = Server::new(elsewhere.allow_direct());
    let mut client = server.client();
    assert_eq!(
        server.peer(),
        own_addr(&client),
        "opened before it says a word"
    );
    // What looks like a header is the client's own bytes.
    client.write_all(V1).unwrap();
    assert_eq!(read(&client, V1.len()), V1);
}

#[test]
fn what_is_no_header_closes_its_connection_alone() {
    let server = Server::new(loopback());
    let bad = [
        b"GET / HTTP/1.1\r\n".to_vec(),
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1 99999\r\n".to_vec(),
        [&b"PROXY "[..], &[b'x'; 101]].concat(),
        v2(0x31, 0x11, &[0; 12]),
        v2(0x21, 0x12, &[0; 12]),
        v2(0x21, 0x11, &[0; 11]),
        v2(0x21, 0x11, &[0; 4081]),
    ];
    for (times, bytes) in (1..).zip(&bad) {
        let mut client = server.client();
        client.write_all(bytes).unwrap();
        server.assert_refused(client, times);
    }
    // Who goes before it is whole.
    let mut client = server.client();
    client.write_all(&V1[..20]).unwrap();
    half_close(&client);
    server.assert_refused(client, bad.len() as u64 + 1);
    let mut client = server.client();
    client.write_all(&V1[..20]).unwrap();
    reset(client);
    wait_until("the reset is noticed", || {
        server.system.stats().headers_refused == bad.len() as u64 + 2
    });
    let mut client = server.client();
    client.write_all(V1).unwrap();
    assert_eq!(server.peer(), peer("192.0.2.7:4660"));
}

#[test]
fn a_header_of_its_limit_is_taken_and_one_byte_more_is_not() {
    let server = Server::new(loopback().max_bytes(300));
    let mut client = server.client();
    client.write_all(&v2(0x21, 0x11, &[7; 284])).unwrap();
    assert_eq!(server.peer(), peer("7.7.7.7:1799"));
    let mut client = server.client();
    client.write_all(&v2(0x21, 0x11, &[7; 285])).unwrap();
    assert!(matches!(client.read(&mut [0; 1]), Ok(0) | Err(_)));
    assert_eq!(server.system.stats().headers_refused, 1);
}

#[test]
fn a_header_that_does_not_come_in_time_closes_its_connection() {
    let server = Server::new(loopback().deadline(Duration::from_millis(100)));
    server.assert_refused(server.client(), 1);
    let mut client = server.client();
    client.write_all(&V1[..V1.len() - 1]).unwrap();
    server.assert_refused(client, 2);
}

#[test]
fn who_waits_for_a_header_takes_a_place() {
    let options = ListenOptions::new()
        .proxy_protocol(loopback())
        .max_connections(1)
        .at_limit(AtLimit::Refuse(b"full"[..].into()));
    let server = Server::listen("127.0.0.1:0", options);
    let mut waiting = server.client();
    wait_until("it is accepted", || server.listener.connections() == 1);
    assert_eq!(read_to_end(server.client()), b"full");
    waiting.write_all(V1).unwrap();
    assert_eq!(server.peer(), peer("192.0.2.7:4660"));
    assert_eq!(server.listener.connections(), 1);
}

#[test]
fn a_factory_that_panics_ends_that_connection_alone() {
    let system = builder(1).build().unwrap();
    let options = ListenOptions::new().proxy_protocol(loopback());
    let (opened, _opened) = channel();
    let make = move |made_for| {
        assert_ne!(
            made_for,
            peer("192.0.2.7:4660"),
            "a client that nobody likes"
        );
        Echo {
            made_for,
            opened: opened.clone(),
        }
    };
    let listener = system.listen_with("127.0.0.1:0", options, make).unwrap();
    let mut client = connect(&listener);
    client.write_all(V1).unwrap();
    assert!(matches!(client.read(&mut [0; 1]), Ok(0) | Err(_)));
    let mut client = connect(&listener);
    client.write_all(b"PROXY UNKNOWN\r\nx").unwrap();
    assert_eq!(read(&client, 1), b"x");
    assert_eq!(system.stats().panics, 1);
    drop(client);
    wait_until("all is over", || listener.connections() == 0);
}

#[test]
fn who_waits_for_a_header_does_not_hold_a_stop_beyond_its_deadline() {
    let server = Server::new(loopback().deadline(Duration::from_millis(100)));
    let client = server.client();
    wait_until("it is accepted", || server.listener.connections() == 1);
    server.system.handle().stop(Duration::from_secs(3600));
    server.system.run().unwrap();
    drop(client);
}

#[test]
fn over_a_unix_socket_the_file_says_who_is_trusted() {
    let dir = TempDir::new();
    let path = dir.path().join("x.sock");
    let nobody = ProxyProtocol::trusting(Vec::<String>::new()).unwrap();
    let options = ListenOptions::new().proxy_protocol(nobody);
    let server = Server::listen(&format!("unix:{}", path.display()), options);
    let mut client = UnixStream::connect(&path).unwrap();
    client.write_all(V1).unwrap();
    assert_eq!(server.peer(), peer("192.0.2.7:4660"));
    let mut client = UnixStream::connect(&path).unwrap();
    client.write_all(b"PROXY UNKNOWN\r\n").unwrap();
    assert_eq!(server.peer(), Peer::Unix);
}

#[test]
fn a_client_behind_a_proxy_of_the_other_family_is_shown_as_it_is() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        return eprintln!("skipped: no IPv6 loopback here");
    }
    let options = ListenOptions::new().proxy_protocol(loopback());
    let server = Server::listen("[::1]:0", options);
    for (header, client) in [
        (V1.to_vec(), peer("192.0.2.7:4660")),
        (v2(0x21, 0x31, &[b'/'; 216]), Peer::Unix),
    ] {
        let mut stream = server.client();
        stream.write_all(&header).unwrap();
        assert_eq!(server.peer(), client);
    }
}

/// Gives its connection to a new actor, which echoes.
struct Mover(Handle, Echo);

impl Actor for Mover {
    type Message = ();

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        let Echo { made_for, opened } = &self.1;
        let (handle, made_for, opened) = (self.0.clone(), *made_for, opened.clone());
        ctx.detach(move |detached| {
            assert_eq!(detached.peer, made_for);
            let make = move || Echo { made_for, opened };
            handle.adopt(detached, make).unwrap();
        })?;
        Ok(())
    }
}

#[test]
fn a_connection_that_moves_stays_that_of_its_client() {
    let system = builder(2).build().unwrap();
    let (opening, opened) = channel();
    let handle = system.handle();
    let make = move |made_for| {
        let opened = opening.clone();
        Mover(handle.clone(), Echo { made_for, opened })
    };
    let options = ListenOptions::new().proxy_protocol(loopback());
    let listener = system.listen_with("127.0.0.1:0", options, make).unwrap();
    let mut client = connect(&listener);
    client.write_all(V1).unwrap();
    let client_of_proxy = peer("192.0.2.7:4660");
    assert_eq!(next(&opened), (client_of_proxy, Some(client_of_proxy)));
    client.write_all(b"echo").unwrap();
    assert_eq!(read(&client, 4), b"echo");
}

#[test]
fn a_socket_that_leaves_is_of_its_own_kind_whoever_its_client_is() {
    let dir = TempDir::new();
    let path = dir.path().join("x.sock");
    let stage = |endpoint: &str, proxies| {
        let options = ListenOptions::new().proxy_protocol(proxies);
        Stage::listen(builder(1), endpoint, options, |probe| probe)
    };
    let detached = |stage: &Stage| {
        let (send, detached) = channel();
        stage.accepted().tell(move |ctx| {
            ctx.detach(move |detached| drop(send.send(detached)))?;
            Ok(())
        });
        next(&detached)
    };
    let nobody = ProxyProtocol::trusting(Vec::<String>::new()).unwrap();
    let unix = stage(&format!("unix:{}", path.display()), nobody);
    let mut client = UnixStream::connect(&path).unwrap();
    client.write_all(V1).unwrap();
    let error = detached(&unix).into_tcp_stream().unwrap_err();
    let stream = error.into_detached().into_unix_stream().unwrap();
    (&stream).write_all(b"x").unwrap();
    client.read_exact(&mut [0]).unwrap();

    let tcp = stage("127.0.0.1:0", loopback());
    let mut client = connect(&tcp.listener);
    client.write_all(&v2(0x21, 0x31, &[b'/'; 216])).unwrap();
    let error = detached(&tcp).into_unix_stream().unwrap_err();
    let stream = error.into_detached().into_tcp_stream().unwrap();
    assert_eq!(stream.peer_addr().unwrap(), client.local_addr().unwrap());
}

/// Whatever the pieces in which it comes, and whatever becomes of the connection, a header is whole
/// or nobody is made.
#[test]
fn from_any_seed_the_client_is_named_or_nobody_is_made() {
    let named = std::cell::Cell::new(0);
    for_each_seed(200, |simulation: &mut Simulation| {
        let foul = Faults::harmless().with(Fault::Reset).with(Fault::Die);
        let is_foul = simulation.random().one_in(2);
        simulation.faults(if is_foul { foul } else { Faults::harmless() });
        let system = simulation.system(System::builder().pollers(2));
        let proxies = ProxyProtocol::trusting(["10.0.0.0/8"]).unwrap();
        let deadline = Duration::from_secs(600);
        let options = ListenOptions::new().proxy_protocol(proxies.deadline(deadline));
        let (opening, opened) = channel();
        let make = move |made_for| Echo {
            made_for,
            opened: opening.clone(),
        };
        system.listen_with("127.0.0.1:1", options, make).unwrap();
        let mut clients = Vec::new();
        for n in 0..10_u16 {
            let client = simulation.client("127.0.0.1:1");
            let is_bad = simulation.random().one_in(4);
            let header = match simulation.random().below(3) {
                _ if is_bad => b"PROXY TCP4 nobody\r\n".to_vec(),
                0 => format!("PROXY TCP4 192.0.2.7 1.2.3.4 {n} 80\r\n").into_bytes(),
                1 => {
                    let port = n.to_be_bytes();
                    let rest = [192, 0, 2, 7, 1, 2, 3, 4, port[0], port[1], 0, 80];
                    v2(0x21, 0x11, &rest)
                }
                _ => format!("PROXY TCP6 ::ffff:192.0.2.7 ::1 {n} 80\r\n").into_bytes(),
            };
            let cut = simulation.random().below(header.len() as u64 + 1) as usize;
            client.send(&header[..cut]);
            simulation.run_for(Duration::from_millis(5));
            client.send(&header[cut..]);
            client.send(format!("behind {n}"));
            clients.push((n, is_bad, client));
        }
        simulation.heal();
        simulation.run_for(Duration::from_secs(900));
        let made: Vec<SocketAddr> = opened
            .try_iter()
            .map(|(made_for, has)| {
                assert_eq!(has, Some(made_for));
                match made_for {
                    Peer::Tcp(addr) => addr,
                    other => panic!("{other:?}"),
                }
            })
            .collect();
        for (n, is_bad, client) in &clients {
            let addr = SocketAddr::from(([192, 0, 2, 7], *n));
            let is_made = made.contains(&addr);
            let got = client.received();
            note(format_args!("{n}: bad {is_bad}, made {is_made}, {got:?}"));
            assert!(!(is_made && *is_bad));
            assert!(is_made || is_foul || *is_bad, "{addr}");
            if !is_foul && !is_bad {
                assert_eq!(got, format!("behind {n}"));
            }
            assert!(format!("behind {n}").as_bytes().starts_with(&got));
        }
        assert_eq!(
            system.stats().opened,
            made.len() as u64,
            "{:?}",
            system.stats()
        );
        named.set(named.get() + made.len());
    });
    assert!(named.get() > 0 || std::env::var("GREENROOM_SEED").is_ok());
}
